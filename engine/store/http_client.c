#include "engine/store/http_client.h"
#include "base/error.h"
#include "engine/store/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CONNECT_SECONDS = 5 };

struct sw_http_client {
  CURL *curl;
  char *authorization, *user, *password; /* a header line; basic authentication */
  atomic_int *stop;
  atomic_ullong *moved;
  curl_off_t seen; /* bytes of this request */
  const sw_http_message *message;
  CURLcode code;   /* of the last request */
  char error[CURL_ERROR_SIZE];
};

/* A line break in a login or a header would begin another header. */
static int check_value(const char *text, const char *what) {
  for (; text && *text; text++)
    if ((unsigned char)*text < 0x20 || *text == 0x7f) return sw_fail("%s holds a line break or another control character", what);
  return 0;
}

static int check_login(const char *text) { return check_value(text, "the login for the server"); }

static int add_header(struct curl_slist **list, const sw_http_header *h) {
  char what[128];
  sw_buffer line = {0};
  snprintf(what, sizeof what, "the header %.64s", h->name);
  if (!h->name[0] || strpbrk(h->name, ": \t\r\n")) return sw_fail("'%.64s' is no name of a header", h->name);
  if (check_value(h->value, what)) return -1;
  /* "Name;" is how libcurl is told of a header without a value: "Name:" would remove it */
  int status = sw_buffer_print(&line, h->value[0] ? "%s: %s" : "%s;", h->name, h->value);
  struct curl_slist *longer = status ? NULL : curl_slist_append(*list, line.data);
  sw_buffer_close(&line);
  if (!status && !longer) status = sw_fail_memory("the headers");
  if (longer) *list = longer;
  return status;
}

int sw_http_client_open(const sw_http_login *login, atomic_int *stop, atomic_ullong *moved, sw_http_client **out) {
  *out = NULL;
  if (check_login(login->token) || check_login(login->user) || check_login(login->password)) return -1;
  sw_http_client *c = sw_alloc(sizeof *c);
  if (!c) return -1;
  sw_buffer line = {0};
  int status = login->token ? sw_buffer_print(&line, "Authorization: Bearer %s", login->token) : 0;
  if (login->token && !status) c->authorization = sw_buffer_take(&line);
  if (login->user && !(c->user = sw_strdup(login->user))) status = -1;
  if (login->user && !(c->password = sw_strdup(login->password ? login->password : ""))) status = -1;
  c->stop = stop;
  c->moved = moved;
  if (!status && !(c->curl = sw_http_open())) status = -1;
  sw_buffer_close(&line);
  if (status)
    sw_http_client_close(c);
  else
    *out = c;
  return status;
}

void sw_http_client_close(sw_http_client *c) {
  if (!c) return;
  if (c->curl) curl_easy_cleanup(c->curl);
  free(c->authorization);
  free(c->user);
  free(c->password);
  free(c);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *data) {
  return sw_buffer_append(data, bytes, size * count) ? 0 : size * count;
}

static size_t on_header(char *line, size_t size, size_t count, void *data) {
  const sw_http_message *m = data;
  const size_t bytes = size * count;
  for (size_t i = 0; i < m->num_wanted; i++) {
    sw_http_wanted *w = &m->wanted[i];
    const size_t length = strlen(w->name);
    if (bytes > 5 && !memcmp(line, "HTTP/", 5)) w->value[0] = 0; /* a new answer begins */
    if (bytes <= length || line[length] != ':' || strncasecmp(line, w->name, length)) continue;
    const char *from = line + length + 1, *end = line + bytes;
    while (from < end && (*from == ' ' || *from == '\t')) from++;
    while (end > from && (unsigned char)end[-1] <= ' ') end--;
    const size_t kept = (size_t)(end - from) < sizeof w->value ? (size_t)(end - from) : 0;
    memcpy(w->value, from, kept);
    w->value[kept] = 0;
  }
  return bytes;
}

static int on_progress(void *data, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up) {
  sw_http_client *c = data;
  if (up + down != c->seen) atomic_fetch_add(c->moved, 1);
  c->seen = up + down;
  const sw_http_message *m = c->message;
  if (m->file && m->progress) {
    char details[64];
    snprintf(details, sizeof details, "%.1f of %.1f MB", (m->done + (double)up) / 1e6, m->progress->total / 1e6);
    sw_progress_show(m->progress, m->done + (double)up, details);
  }
  return atomic_load(c->stop);
}

/* A file, or a part of one, as a body. */
typedef struct {
  FILE *file;
  curl_off_t from, bytes, left;
} body;

static int open_body(const sw_http_message *m, body *b) {
  struct stat info;
  b->file = fopen(m->file, "rbe");
  if (!b->file || fstat(fileno(b->file), &info)) {
    sw_fail("cannot read %s: %s", m->file, strerror(errno));
    if (b->file) fclose(b->file);
    return -1;
  }
  b->from = (curl_off_t)m->from;
  b->bytes = b->left = m->bytes ? (curl_off_t)m->bytes : (curl_off_t)info.st_size - b->from;
  if (b->bytes < 0 || b->from + b->bytes > (curl_off_t)info.st_size || fseeko(b->file, (off_t)b->from, SEEK_SET)) {
    fclose(b->file);
    return sw_fail("%s has become shorter while it was sent", m->file);
  }
  return 0;
}

static size_t read_body(char *bytes, size_t size, size_t count, void *data) {
  body *b = data;
  const size_t room = size * count, wanted = (curl_off_t)room < b->left ? room : (size_t)b->left;
  const size_t got = fread(bytes, 1, wanted, b->file);
  if (got < wanted && ferror(b->file)) return CURL_READFUNC_ABORT;
  b->left -= (curl_off_t)got;
  return got;
}

/* libcurl begins anew where a connection that was kept turns out to be dead. */
static int seek_body(void *data, curl_off_t offset, int origin) {
  body *b = data;
  if (origin != SEEK_SET || offset < 0 || offset > b->bytes || fseeko(b->file, (off_t)(b->from + offset), SEEK_SET)) return CURL_SEEKFUNC_FAIL;
  b->left = b->bytes - offset;
  return CURL_SEEKFUNC_OK;
}

int sw_http_client_send(sw_http_client *c, const sw_http_message *m, long *status, sw_buffer *answer) {
  body b = {0};
  *status = 0;
  c->code = CURLE_OK; /* not the last request's where this one cannot begin */
  if (m->file && open_body(m, &b)) return -1;
  c->message = m;
  sw_buffer_clear(answer);
  curl_easy_reset(c->curl); /* keeps the connection */
  sw_http_set_up(c->curl);
  c->error[0] = 0;
  c->seen = 0;
  curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
  sw_http_set_url(c->curl, m->url);
  curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
  curl_easy_setopt(c->curl, CURLOPT_QUICK_EXIT, 1L); /* an unfinished look-up of a name is not waited for */
  curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->error);
  curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, answer);
  for (size_t i = 0; i < m->num_wanted; i++) m->wanted[i].value[0] = 0;
  if (m->num_wanted) {
    curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, (void *)m);
  }
  curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, c);
  struct curl_slist *headers = curl_slist_append(NULL, "Expect:"); /* no waiting for "100 Continue" */
  int refused = 0;
  for (size_t i = 0; i < m->num_headers && !refused; i++) refused = add_header(&headers, &m->headers[i]);
  if (c->authorization) headers = curl_slist_append(headers, c->authorization);
  if (c->user) {
    curl_easy_setopt(c->curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
    curl_easy_setopt(c->curl, CURLOPT_USERNAME, c->user);
    curl_easy_setopt(c->curl, CURLOPT_PASSWORD, c->password);
  }
  sw_buffer type = {0};
  if ((m->json || m->file) && !refused)
    refused = sw_buffer_print(&type, "Content-Type: %s", m->type ? m->type : m->file ? "application/octet-stream" : "application/json");
  if (type.data) headers = curl_slist_append(headers, type.data);
  sw_buffer_close(&type);
  if (b.file) {
    curl_easy_setopt(c->curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(c->curl, CURLOPT_READFUNCTION, read_body);
    curl_easy_setopt(c->curl, CURLOPT_READDATA, &b);
    curl_easy_setopt(c->curl, CURLOPT_SEEKFUNCTION, seek_body);
    curl_easy_setopt(c->curl, CURLOPT_SEEKDATA, &b);
    curl_easy_setopt(c->curl, CURLOPT_INFILESIZE_LARGE, b.bytes);
    curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_TIME, m->seconds);
  } else {
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, m->seconds);
    if (m->json) curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, m->json);
  }
  curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, m->method);
  curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
  if (!refused) c->code = curl_easy_perform(c->curl);
  curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, status);
  curl_slist_free_all(headers);
  if (b.file) fclose(b.file);
  if (refused) return -1;
  if (!c->code) atomic_fetch_add(c->moved, 1);
  if (c->code == CURLE_WRITE_ERROR) return sw_fail_in("the answer"); /* on_body said why */
  return c->code ? sw_fail("%s", c->error[0] ? c->error : curl_easy_strerror(c->code)) : 0;
}

int sw_http_client_code(const sw_http_client *c) { return (int)c->code; }
