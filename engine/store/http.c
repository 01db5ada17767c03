#include "engine/store/http.h"
#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/sha256.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HOPS = 10, MAX_CONNECT_TRIES = 3, MAX_ATTEMPTS = 200, MAX_WAIT = 60, MAX_ASKED = 86400, ETAG = 160, URL = 4096 };

typedef struct {
  const sw_http_request *request;
  sw_http_result *result;
  CURL *curl;
  char error[CURL_ERROR_SIZE];
  const char *authorities; /* the environment variable that names them; NULL: the system's */
  /* of the response being received */
  long status;
  char etag[ETAG], linked_etag[ETAG], location[URL], retry_after[64];
  uint64_t range_start; /* of Content-Range */
  /* known for the whole download */
  char digest[65]; /* SHA-256 the content should have; "" = not known */
  char saved_etag[ETAG];
  char *part; /* the unfinished file; NULL until the first byte */
  FILE *file;
  uint64_t have, wanted_from,
      received;  /* bytes in the part file; where the Range asked for starts; bytes of this response */
  int unchanged; /* a redirect says that our copy is right */
  int again;     /* the transfer was stopped on purpose: ask again for a range */
  int local;     /* failed on this side (disk, limit): do not try again */
  int own_host;  /* this hop goes to the host of the request */
  sw_progress progress;
} transfer;

static void start_curl(void) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* --- digests and ETags */

/* "W/\"abc\"" and "\"abc\"" become abc */
static void strip_etag(char *etag) {
  char *from = etag;
  if (!strncmp(from, "W/", 2)) from += 2;
  size_t length = strlen(from);
  if (length >= 2 && from[0] == '"' && from[length - 1] == '"') {
    from++;
    length -= 2;
  }
  memmove(etag, from, length);
  etag[length] = 0;
}

static int is_digest(const char *etag) {
  return strlen(etag) == 64 && strspn(etag, "0123456789abcdef") == 64;
}

static char *side_path(const char *path, const char *middle, const char *end) {
  sw_buffer name = {0};
  if (sw_buffer_print(&name, "%s%s%.16s%s", path, middle[0] ? "." : "", middle, end)) {
    sw_buffer_close(&name);
    return NULL;
  }
  return sw_buffer_take(&name);
}

static void read_saved_etag(transfer *t) {
  char *name = side_path(t->request->path, "", ".etag");
  FILE *file = name && sw_exists(t->request->path) ? fopen(name, "re") : NULL;
  if (file && !fgets(t->saved_etag, sizeof t->saved_etag, file)) t->saved_etag[0] = 0;
  if (file) fclose(file);
  free(name);
  t->saved_etag[strcspn(t->saved_etag, "\r\n")] = 0;
  char found[65]; /* a damaged copy in the cache should be fetched again, not kept because its ETag is right */
  if (is_digest(t->saved_etag) && (sw_sha256_file(t->request->path, found) || strcmp(found, t->saved_etag)))
    t->saved_etag[0] = 0;
}

static int save_etag(const transfer *t) {
  char *name = side_path(t->request->path, "", ".etag");
  sw_output output = {0};
  int status = name ? sw_output_open(&output, name) : -1;
  if (!status) {
    fprintf(output.file, "%s\n", t->linked_etag[0] ? t->linked_etag : t->etag);
    status = sw_output_commit(&output);
  }
  free(name);
  return status;
}

/* --- what arrives */

static int header_is(const char *line, size_t bytes, const char *name, char *out, size_t capacity) {
  size_t length = strlen(name);
  if (bytes <= length || strncasecmp(line, name, length) || line[length] != ':') return 0;
  const char *from = line + length + 1, *end = line + bytes;
  while (from < end && (*from == ' ' || *from == '\t')) from++;
  while (end > from && (unsigned char)end[-1] <= ' ') end--;
  if ((size_t)(end - from) < capacity) {
    memcpy(out, from, (size_t)(end - from));
    out[end - from] = 0;
  }
  return 1;
}

static size_t on_header(char *line, size_t size, size_t count, void *data) {
  transfer *t = data;
  size_t bytes = size * count;
  char range[64] = "";
  if (bytes > 5 && !memcmp(line, "HTTP/", 5)) { /* a new response begins */
    const char *space = memchr(line, ' ', bytes);
    t->status = space ? strtol(space, NULL, 10) : 0;
    t->etag[0] = t->location[0] = t->retry_after[0] = 0;
    t->range_start = 0;
  } else if (header_is(line, bytes, "etag", t->etag, sizeof t->etag)) {
    strip_etag(t->etag);
  } else if (t->own_host && header_is(line, bytes, "x-linked-etag", t->linked_etag, sizeof t->linked_etag)) {
    strip_etag(t->linked_etag);
  } else if (header_is(line, bytes, "content-range", range, sizeof range)) {
    if (!strncmp(range, "bytes ", 6)) t->range_start = strtoull(range + 6, NULL, 10);
  } else {
    header_is(line, bytes, "location", t->location, sizeof t->location);
    header_is(line, bytes, "retry-after", t->retry_after, sizeof t->retry_after);
    if (t->own_host) header_is(line, bytes, "x-repo-commit", t->result->commit, sizeof t->result->commit);
    if (t->own_host) header_is(line, bytes, "x-error-code", t->result->code, sizeof t->result->code);
  }
  return bytes;
}

static int fail_here(transfer *t) {
  t->local = 1;
  return -1;
}

static void close_part(transfer *t) {
  if (t->file && fclose(t->file) && !t->local) {
    sw_fail("cannot write %s: %s", t->part, strerror(errno));
    fail_here(t);
  }
  t->file = NULL;
}

/* What the Hub itself says the content's SHA-256 is; an ETag of another host may be anything. 1: it is not what it was
 * before. */
static int learn_digest(transfer *t) {
  const char *etag = t->linked_etag[0] ? t->linked_etag : t->own_host ? t->etag : "";
  if (!is_digest(etag) || !strcmp(etag, t->digest)) return 0;
  int changed = t->digest[0] != 0;
  memcpy(t->digest, etag, 65);
  free(t->part);
  t->part = NULL;
  return changed;
}

/* Opens the part file when the headers of the content are known: its name carries the digest, so that only equal
 * content is resumed. */
static int open_part(transfer *t) {
  int changed = learn_digest(t);
  if (!t->part && !(t->part = side_path(t->request->path, t->digest, ".part"))) return fail_here(t);
  struct stat info;
  uint64_t present = t->digest[0] && stat(t->part, &info) == 0 ? (uint64_t)info.st_size : 0;
  /* an earlier run left something: ask for the rest instead; or the file changed on the server while we were fetching
   * it */
  if ((t->status == 200 && present && !t->wanted_from) || (t->status == 206 && changed)) {
    t->again = 1;
    return -1;
  }
  if (t->status == 206 && t->range_start != t->wanted_from) {
    sw_fail("%s: the server sent another range than it was asked for", t->request->name);
    return fail_here(t);
  }
  t->have = t->status == 206 ? t->wanted_from : 0;
  t->file = fopen(t->part, t->status == 206 ? "r+be" : "wbe");
  if (!t->file || (t->have && fseeko(t->file, (off_t)t->have, SEEK_SET))) {
    sw_fail("cannot write %s: %s", t->part, strerror(errno));
    return fail_here(t);
  }
  return 0;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *data) {
  transfer *t = data;
  size_t length = size * count;
  if (t->status != 200 && t->status != 206) return length; /* an error page or a redirect's text */
  if (!t->file && open_part(t)) return 0;
  if (t->have + length > t->request->limit) {
    sw_fail("%s is longer than %llu bytes; refused", t->request->name, (unsigned long long)t->request->limit);
    fail_here(t);
    return 0;
  }
  if (fwrite(bytes, 1, length, t->file) != length) {
    sw_fail("cannot write %s: %s", t->part, strerror(errno));
    fail_here(t);
    return 0;
  }
  t->have += length;
  t->received += length;
  return length;
}

static int on_progress(void *data, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now) {
  transfer *t = data;
  if (t->status != 200 && t->status != 206) return 0;
  char details[64];
  double all = (double)total + (double)(t->status == 206 ? t->wanted_from : 0), done = (double)t->have;
  t->progress.total = total > 0 ? all : 0;
  snprintf(details, sizeof details, "%.1f of %.1f MB", done / 1e6, all / 1e6);
  sw_progress_show(&t->progress, done, total > 0 ? details : "bytes");
  return 0;
}

/* --- one request */

int sw_http_same_origin(const char *a, const char *b) {
  int same = 1;
  CURLU *x = curl_url(), *y = curl_url();
  if (!x || !y || curl_url_set(x, CURLUPART_URL, a, 0) || curl_url_set(y, CURLUPART_URL, b, 0)) same = 0;
  static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
  for (size_t i = 0; same && i < 3; i++) {
    char *p = NULL, *q = NULL;
    if (curl_url_get(x, parts[i], &p, CURLU_DEFAULT_PORT) || curl_url_get(y, parts[i], &q, CURLU_DEFAULT_PORT) ||
        strcasecmp(p, q))
      same = 0;
    curl_free(p);
    curl_free(q);
  }
  curl_url_cleanup(x);
  curl_url_cleanup(y);
  return same;
}

int sw_http_keeps_secrets(const char *url) {
  if (!strncasecmp(url, "https://", 8)) return 1;
  if (strncasecmp(url, "http://", 7)) return 0;
  const char *host = url + 7;
  if (memchr(host, '@', strcspn(host, "/?#"))) return 0; /* what stands before it is a login, not the host */
  const size_t length = strcspn(host, ":/?#");
  return (length == 9 && (!strncmp(host, "127.0.0.1", 9) || !strncmp(host, "localhost", 9))) || !strncmp(host, "[::1]", 5);
}

/* Bytes at `p` that stand for `c`: itself, or %XX or one of JSON's escapes; 0: others. `escaped`: the latter go first. */
static size_t stands_for(const char *p, char c, int escaped) {
  char percent[8], unicode[8];
  size_t slashes = 0; /* each time it is escaped doubles them */
  while (slashes < 8 && p[slashes] == '\\') slashes++;
  snprintf(percent, sizeof percent, "%%%02x", (unsigned char)c);
  snprintf(unicode, sizeof unicode, "u%04x", (unsigned char)c);
  size_t length = 0;
  if (!strncasecmp(p, percent, 3)) length = 3;
  else if (slashes && !strncasecmp(p + slashes, unicode, 5)) length = slashes + 5;
  else if (slashes && (c == '/' || c == '"') && p[slashes] == c) length = slashes + 1;
  else if (slashes > 1 && c == '\\') length = 2;
  return *p == c && !(escaped && length) ? 1 : length;
}

size_t sw_http_key_at(const char *p, const char *key) {
  if (*p != *key && *p != '%' && *p != '\\') return 0;
  for (int escaped = 1; escaped >= 0; escaped--) {
    const char *end = p, *c = key;
    for (size_t length; *c && (length = stands_for(end, *c, escaped)); c++) end += length;
    if (!*c) return (size_t)(end - p);
  }
  return 0;
}

void sw_http_hide(char *text, size_t bytes, const char *key) {
  for (size_t i = 0, length; key && i < bytes; i += length ? length : 1)
    if ((length = sw_http_key_at(text + i, key))) memset(text + i, '*', length);
}

char *sw_http_redirect(const char *url, const char *location) {
  CURLU *base = curl_url();
  char *next = NULL, *copy = NULL;
  if (!base || curl_url_set(base, CURLUPART_URL, url, 0) || curl_url_set(base, CURLUPART_URL, location, 0) ||
      curl_url_get(base, CURLUPART_URL, &next, 0) || strlen(next) >= URL)
    sw_fail("the server redirects to an address that is not valid");
  else if (strncasecmp(next, "https://", 8) && (strncasecmp(next, "http://", 7) || !strncasecmp(url, "https://", 8)))
    sw_fail("the server redirects from https to something unsafe; refused");
  else
    copy = sw_strdup(next);
  curl_free(next);
  curl_url_cleanup(base);
  return copy;
}

static int follow(transfer *t, char url[URL]) {
  char *next = sw_http_redirect(url, t->location);
  if (!next) return sw_fail_in("%s", t->request->name), fail_here(t);
  strcpy(url, next);
  free(next);
  return 0;
}

static struct curl_slist *make_headers(const transfer *t) {
  struct curl_slist *headers = NULL;
  char line[8192];
  if (t->request->token && t->own_host) {
    snprintf(line, sizeof line, "Authorization: Bearer %s", t->request->token);
    headers = curl_slist_append(headers, line);
  }
  if (t->saved_etag[0] && t->own_host && !t->part) {
    snprintf(line, sizeof line, "If-None-Match: \"%s\"", t->saved_etag);
    headers = curl_slist_append(headers, line);
  }
  return headers;
}

/* Returns curl's code; redirects are followed here, because the token must stay with its host and X-Linked-Etag comes
 * with the first answer. */
static CURLcode perform(transfer *t) {
  char url[URL], range[64];
  snprintf(url, sizeof url, "%s", t->request->url);
  t->linked_etag[0] = 0;
  for (int hop = 0; hop < MAX_HOPS; hop++) {
    t->own_host = sw_http_same_origin(url, t->request->url);
    t->status = 0;
    t->again = 0;
    t->error[0] = t->retry_after[0] = t->etag[0] = t->location[0] = 0;
    t->have = t->received = 0;
    struct stat info;
    t->wanted_from = t->part && t->digest[0] && stat(t->part, &info) == 0 ? (uint64_t)info.st_size : 0;
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->wanted_from);
    struct curl_slist *headers = make_headers(t);
    sw_http_set_url(t->curl, url);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(t->curl, CURLOPT_USERNAME, t->own_host ? t->request->user : NULL);
    curl_easy_setopt(t->curl, CURLOPT_PASSWORD, t->own_host && t->request->user ? t->request->password : NULL);
    curl_easy_setopt(t->curl, CURLOPT_RANGE, t->wanted_from ? range : NULL);
    CURLcode code = curl_easy_perform(t->curl);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    close_part(t);
    if (t->local) return code;
    if (t->again) continue; /* the same address, now that the part's name is known */
    if (code || t->status < 300 || t->status > 399 || t->status == 304) return code;
    if (t->linked_etag[0] && !strcmp(t->linked_etag, t->saved_etag)) {
      t->unchanged = 1;
      return code;
    }
    if (t->linked_etag[0]) learn_digest(t);
    if (!t->part && !(t->part = side_path(t->request->path, t->digest, ".part"))) return fail_here(t), code;
    if (!t->location[0]) {
      sw_fail("%s: the server answers with status %ld and no address", t->request->name, t->status);
      fail_here(t);
      return code;
    }
    if (follow(t, url)) return code;
  }
  sw_fail("%s: more than %d redirects", t->request->name, MAX_HOPS);
  fail_here(t);
  return CURLE_TOO_MANY_REDIRECTS;
}

/* --- trying again */

double sw_http_wait(int failures, const char *retry_after) {
  double wait = 0.5 * (double)(1u << (failures < 1 ? 0 : failures < 8 ? failures - 1 : 7)), asked = 0;
  sw_random jitter = {.seed = (uint64_t)getpid() << 32 ^ (uint64_t)(sw_clock() * 1e6), .stream = 0x68747470};
  wait *= 0.75 + 0.5 * (double)sw_random_float(&jitter);
  if (wait > MAX_WAIT) wait = MAX_WAIT;
  if (retry_after && retry_after[0]) {
    const int seconds = !retry_after[strspn(retry_after, "0123456789")];
    const time_t when = seconds ? 0 : curl_getdate(retry_after, NULL);
    asked = seconds ? strtod(retry_after, NULL) : when > 0 ? difftime(when, time(NULL)) : 0;
    if (asked > MAX_ASKED) asked = MAX_ASKED;
  }
  return asked > wait ? asked : wait; /* never sooner than asked */
}

void sw_http_pause(double seconds) {
  struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&left, &left) && errno == EINTR) {
  }
}

int sw_http_is_temporary(int code, long status) {
  switch (code) {
  case CURLE_OK:
    return status == 408 || status == 429 || (status >= 500 && status <= 599 && status != 501 && status != 505);
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_CONNECT:
  case CURLE_OPERATION_TIMEDOUT:
  case CURLE_PARTIAL_FILE:
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_RECV_ERROR:
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_HTTP2:
  case CURLE_HTTP2_STREAM:
    return 1;
  default:
    return 0;
  }
}

/* A storage host denies access where its signed address is too old: the Hub gives a new one. */
static int is_temporary(CURLcode code, const transfer *t) {
  return sw_http_is_temporary((int)code, t->status) || (!code && !t->own_host && (t->status == 401 || t->status == 403));
}

static int never_connected(CURLcode code) {
  return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_COULDNT_CONNECT;
}

static int report_certificate(const transfer *t) {
  const char *name = t->request->name;
  long verdict = X509_V_OK;
  curl_easy_getinfo(t->curl, CURLINFO_SSL_VERIFYRESULT, &verdict);
  if (verdict == X509_V_ERR_CERT_HAS_EXPIRED || verdict == X509_V_ERR_CERT_NOT_YET_VALID)
    return sw_fail("%s: the server's certificate is not valid today (%s); check this machine's date", name, t->error);
  if (verdict == X509_V_OK || verdict == X509_V_ERR_UNSPECIFIED) /* the chain is right: the names differ */
    return sw_fail("%s: the server's certificate is for another host (%s); check HF_ENDPOINT and https_proxy", name,
                   t->error);
  return sw_fail("%s: the server's certificate is not trusted (%s); name the authority that signed it with SSL_CERT_FILE",
                 name, t->error);
}

static int report_failure(const transfer *t, CURLcode code) {
  const char *name = t->request->name;
  if (never_connected(code) || code == CURLE_OPERATION_TIMEDOUT)
    return sw_fail("%s: the server cannot be reached (%s); check the network, HF_ENDPOINT and https_proxy, or give a "
                   "folder or wheel instead",
                   name, t->error[0] ? t->error : curl_easy_strerror(code));
  if (code == CURLE_PEER_FAILED_VERIFICATION) return report_certificate(t);
  if (code == CURLE_SSL_CACERT_BADFILE)
    return sw_fail("%s: the certificate authorities that %s names cannot be used: %s holds none, or cannot be read",
                   name, t->authorities, getenv(t->authorities));
  if (code)
    return sw_fail("%s: the download failed: %s; what arrived is kept, run the command again", name,
                   t->error[0] ? t->error : curl_easy_strerror(code));
  if (t->status == 429)
    return sw_fail(
        "%s: the server asks to come back later (HTTP 429); try again in some minutes, HF_TOKEN raises the limit",
        name);
  return sw_fail("%s: the server answers with HTTP status %ld%s", name, t->status,
                 t->status >= 500 ? "; try again later" : "");
}

/* 0: the part is whole and right; 1: try again; -1: failed. */
static int check_part(transfer *t, int *mismatches) {
  if (!t->part && !(t->part = side_path(t->request->path, t->digest, ".part"))) return -1;
  if (!t->have) { /* an empty body never reaches on_body */
    FILE *empty = fopen(t->part, "wbe");
    if (!empty) return sw_fail("cannot write %s: %s", t->part, strerror(errno));
    fclose(empty);
  }
  if (!t->digest[0]) return 0;
  char found[65];
  if (sw_sha256_file(t->part, found)) return -1;
  if (!strcmp(found, t->digest)) return 0;
  unlink(t->part);
  if (++*mismatches < 2) return 1;
  return sw_fail(
      "%s: its SHA-256 is %.12s..., the server announced %.12s...; what arrived was thrown away, try again later",
      t->request->name, found, t->digest);
}

static int publish(transfer *t) {
  char *name = side_path(t->request->path, "", ".etag");
  if (!name) return -1;
  unlink(name); /* never an old ETag beside a new file */
  free(name);
  if (sw_file_publish(t->part, t->request->path)) return -1;
  return t->linked_etag[0] || t->etag[0] ? save_etag(t) : 0;
}

static int run(transfer *t) {
  int failures = 0, mismatches = 0;
  for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    CURLcode code = perform(t);
    t->result->status = t->status;
    if (t->local) return -1;
    if (t->unchanged || (!code && t->status == 304)) return t->result->outcome = SW_HTTP_UNCHANGED, 0;
    if (!code && t->status == 404) return t->result->outcome = SW_HTTP_ABSENT, 0;
    if (!code && t->own_host && (t->status == 401 || t->status == 403)) return t->result->outcome = SW_HTTP_DENIED, 0;
    if (!code && t->status == 416 && t->wanted_from) { /* nothing is left to send: the part is whole, or wrong */
      t->have = t->wanted_from;
      t->status = 206;
    }
    if (!code && (t->status == 200 || t->status == 206)) {
      int state = check_part(t, &mismatches);
      if (state < 0) return -1;
      if (!state) return t->result->outcome = SW_HTTP_DONE, publish(t);
      continue;
    }
    failures = t->received && t->digest[0] ? 1 : failures + 1; /* what arrived is kept, so this is progress */
    if (!is_temporary(code, t) || failures >= (never_connected(code) ? MAX_CONNECT_TRIES : SW_HTTP_TRIES))
      return report_failure(t, code);
    double wait = sw_http_wait(failures, t->retry_after);
    if (wait > MAX_WAIT) wait = MAX_WAIT;
    if (!t->request->quiet) {
      sw_progress_close(&t->progress);
      fprintf(stderr, "%s: %s%s; trying again in %.1f s\n", t->request->name,
              code ? "connection trouble: " : "the server is busy", code ? curl_easy_strerror(code) : "", wait);
      sw_progress_open(&t->progress, t->request->name, 0, 0);
    }
    sw_http_pause(wait);
  }
  return sw_fail("%s: the connection was cut %d times; what arrived is kept, run the command again", t->request->name,
                 MAX_ATTEMPTS);
}

/* The names that users of huggingface_hub know (requests, curl and OpenSSL brought them), in its order; a file or a
 * folder. The first that is set says whom to trust, and nobody else is. */
static const char *trust_authorities(CURL *curl) {
  static const char *const names[] = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *path = getenv(names[i]);
    if (!path || !path[0]) continue;
    int folder = sw_is_folder(path);
    curl_easy_setopt(curl, CURLOPT_CAINFO, folder ? NULL : path);
    curl_easy_setopt(curl, CURLOPT_CAPATH, folder ? path : NULL);
    return names[i];
  }
  return NULL;
}

void *sw_http_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, start_curl);
  CURL *curl = curl_easy_init();
  if (!curl) sw_fail("libcurl cannot start");
  return curl;
}

const char *sw_http_set_up(void *curl) {
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "skillwatch/" SW_VERSION);
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  return trust_authorities(curl);
}

void sw_http_set_url(void *curl, const char *url) {
  curl_easy_setopt(curl, CURLOPT_URL, url);
  curl_easy_setopt(curl, CURLOPT_NOPROXY, strncasecmp(url, "https:", 6) && sw_http_keeps_secrets(url) ? "*" : NULL);
}

int sw_http_download(const sw_http_request *request, sw_http_result *result) {
  *result = (sw_http_result){0};
  transfer *t = sw_alloc(sizeof *t);
  if (!t) return -1;
  t->request = request;
  t->result = result;
  t->curl = sw_http_open();
  int status = -1;
  if (t->curl && strlen(request->url) >= URL) {
    sw_fail("%s: the address is too long", request->name);
  } else if (t->curl) {
    t->authorities = sw_http_set_up(t->curl);
    curl_easy_setopt(t->curl, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_LIMIT, 100L);
    curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_TIME, 30L);
    curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFODATA, t);
    sw_progress_open(&t->progress, request->name, 0, request->quiet);
    if (request->known)
      snprintf(t->saved_etag, sizeof t->saved_etag, "%s", request->known);
    else
      read_saved_etag(t);
    status = run(t);
    sw_progress_close(&t->progress);
  }
  close_part(t);
  if (t->curl) curl_easy_cleanup(t->curl);
  free(t->part);
  free(t);
  return status;
}
