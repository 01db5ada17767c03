#include "tools/fetch/ask.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "engine/store/http.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_HEADERS = 64, MAX_HOPS = 5, BAD_TRIES = 3, QUOTA_BYTES = 1 << 20 };
enum { ETAG, MODIFIED, RETRY_AFTER, LINK, LOCATION, WANTED };

static double unix_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void today(char day[11]) {
  const time_t now = time(NULL);
  struct tm utc;
  strftime(day, 11, "%Y-%m-%d", gmtime_r(&now, &utc));
}

/* --- pace and quota --- */

static void note_recent(asker *a, double when) {
  const int64_t size = a->source->rate_requests;
  if (a->num_recent == size) a->recent[a->oldest] = when, a->oldest = (a->oldest + 1) % size;
  else a->recent[(a->oldest + a->num_recent++) % size] = when;
}

static int read_quota(asker *a) {
  today(a->day);
  if (!sw_exists(a->quota.data)) return 0;
  json_t *quota = sw_json_read(a->quota.data, QUOTA_BYTES);
  if (!quota) return sw_fail_in("the record of the quota (remove it to begin a new one)");
  const char *day = sw_json_string(quota, "day");
  int64_t used = 0;
  const json_t *list = json_object_get(quota, "recent"), *value;
  size_t i;
  int status = sw_json_integer(quota, "requests", 0, INT64_MAX / 2, 0, a->quota.data, &used);
  if (day && !strcmp(day, a->day)) a->used = used;
  json_array_foreach(list, i, value)
    if (a->recent && json_number_value(value) <= unix_time()) note_recent(a, json_number_value(value)); /* none of the future: clocks are set */
  json_decref(quota);
  return status;
}

static int write_quota(const asker *a) {
  if (!a->source->rate_requests && !a->source->per_day) return 0;
  json_t *list = json_array();
  for (int64_t i = 0; i < a->num_recent; i++) json_array_append_new(list, json_real(a->recent[(a->oldest + i) % a->source->rate_requests]));
  json_t *quota = json_pack("{s:s, s:I, s:o}", "day", a->day, "requests", (json_int_t)a->used, "recent", list);
  char *text = quota ? sw_json_canonical(quota) : NULL;
  json_decref(quota);
  sw_output output = {0};
  int status = text ? sw_output_open(&output, a->quota.data) : -1;
  if (!status) {
    fprintf(output.file, "%s\n", text);
    status = sw_output_commit(&output);
  }
  free(text);
  return status;
}

int asker_open(const sw_job_source *source, const char *folder, int time_limit, int quiet, asker *a) {
  const sw_http_login nobody = {0};
  *a = (asker){.source = source, .time_limit = time_limit, .deadline = sw_clock() + time_limit, .quiet = quiet};
  if (source->rate_requests && !(a->recent = sw_alloc_array((unsigned long)source->rate_requests, sizeof *a->recent))) return -1;
  return sw_buffer_print(&a->quota, "%s/quota-%s.json", folder, source->name) || read_quota(a) ||
                 sw_http_client_open(&nobody, &a->stop, &a->moved, &a->client)
             ? -1
             : 0;
}

void asker_close(asker *a) {
  sw_http_client_close(a->client);
  sw_buffer_close(&a->quota);
  free(a->recent);
  *a = (asker){0};
}

/* Waits, where that ends in time. */
static ask_result wait_for(asker *a, double seconds, const char *why) {
  if (sw_clock() + seconds < a->deadline) {
    sw_http_pause(seconds);
    return ASK_DONE;
  }
  sw_fail("%s; the time limit of %d s leaves no time to wait %.0f s", why, a->time_limit, seconds);
  return ASK_LATER;
}

/* Waits for this request's turn and notes it, on disk first: a run that is killed has counted it. */
static ask_result take_turn(asker *a) {
  const sw_job_source *s = a->source;
  char day[11];
  today(day);
  if (strcmp(day, a->day)) {
    memcpy(a->day, day, sizeof day);
    a->used = 0;
  }
  if (s->per_day && a->used >= s->per_day) {
    sw_fail("the quota of %lld request%s a day is used up; it begins anew at 00:00 UTC", (long long)s->per_day, SW_S(s->per_day));
    return ASK_LATER;
  }
  if (s->rate_requests && a->num_recent == s->rate_requests) {
    const double wait = a->recent[a->oldest] + (double)s->rate_seconds - unix_time();
    const ask_result result = wait > 0 ? wait_for(a, wait, "the source's pace") : ASK_DONE;
    if (result != ASK_DONE) return result;
  }
  a->used++;
  a->requests++;
  if (s->rate_requests) note_recent(a, unix_time());
  return write_quota(a) ? ASK_FAILED : ASK_DONE;
}

/* The pace counts from the end of a request: the server saw it no later, so that it never sees more than are allowed. */
static void end_turn(asker *a) {
  const int64_t size = a->source->rate_requests;
  if (size) a->recent[(a->oldest + a->num_recent - 1) % size] = unix_time();
}

/* --- one request --- */

static ask_result send_once(asker *a, const char *url, const char *body, const validator *known, long *status, sw_http_wanted wanted[WANTED], sw_buffer *text) {
  sw_http_header headers[MAX_HEADERS + 3];
  size_t count = 0;
  const char *key, *variable;
  json_t *value;
  const ask_result turn = take_turn(a);
  if (turn != ASK_DONE) return turn;
  if (sw_http_same_origin(url, a->source->url)) { /* no header of ours for others */
    json_object_foreach((json_t *)a->source->headers, key, value) {
      const char *found = sw_job_header(json_string_value(value), &variable);
      if (!found) return ASK_FAILED;
      if (count == MAX_HEADERS) return sw_fail("more than %d headers", MAX_HEADERS), ASK_FAILED;
      headers[count++] = (sw_http_header){key, found};
    }
  }
  headers[count++] = (sw_http_header){"Accept", "application/json"};
  if (known && known->etag[0]) headers[count++] = (sw_http_header){"If-None-Match", known->etag};
  if (known && known->modified[0]) headers[count++] = (sw_http_header){"If-Modified-Since", known->modified};
  const double left = a->deadline - sw_clock();
  const sw_http_message message = {.method = body ? "POST" : "GET", .url = url, .json = body, .headers = headers, .num_headers = count,
                                   .seconds = left < 1 ? 1 : left < (double)a->source->timeout ? (long)left : (long)a->source->timeout,
                                   .wanted = wanted, .num_wanted = WANTED};
  text->limit = (size_t)a->source->max_bytes;
  const int failed = sw_http_client_send(a->client, &message, status, text);
  end_turn(a);
  return failed ? ASK_FAILED : ASK_DONE;
}

static int is_redirect(long status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }

/* With redirects: `url` becomes the last address. */
static ask_result send_hops(asker *a, sw_buffer *url, const char *body, const validator *known, long *status, sw_http_wanted wanted[WANTED], sw_buffer *text) {
  for (int hop = 0; hop < MAX_HOPS; hop++) {
    const ask_result result = send_once(a, url->data, body, known, status, wanted, text);
    if (result != ASK_DONE || !is_redirect(*status)) return result;
    if (body) return sw_fail("it redirects a POST (HTTP %ld), which is not followed: give the address it really has", *status), ASK_FAILED;
    char *next = sw_http_redirect(url->data, wanted[LOCATION].value);
    if (!next) return ASK_FAILED;
    sw_buffer_clear(url);
    const int failed = sw_buffer_append(url, next, strlen(next));
    free(next);
    if (failed) return ASK_FAILED;
  }
  return sw_fail("more than %d redirects", MAX_HOPS), ASK_FAILED;
}

/* The name of a secret that a message may advise to check; "" where the source has none. */
static const char *secret_name(const sw_job_source *s) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)s->headers, key, value)
    if (!strncmp(json_string_value(value), "env:", 4)) return json_string_value(value) + 4;
  return s->uses & SW_ASK_SECRET ? "the environment" : "";
}

static void explain(const sw_job_source *s, long status) {
  const char *secret = secret_name(s);
  if (status == 401 || status == 403)
    sw_fail("it denies access (HTTP %ld)%s%s", status, secret[0] ? ": check the key in " : "", secret);
  else if (status == 429)
    sw_fail("it asks to come back later (HTTP 429)");
  else if (status == 304)
    sw_fail("it says that nothing changed (HTTP 304), though nothing was known");
  else
    sw_fail("it answers with HTTP status %ld", status);
}

/* The address in <...> of the Link header's rel="next". */
static int read_link(const char *header, const char *url, char **next) {
  for (const char *p = header; (p = strchr(p, '<'));) {
    const char *close = strchr(p, '>'), *end = close ? close + strcspn(close, "<") : NULL;
    if (!close) return 0;
    const char *rel = strcasestr(close, "rel=");
    if (rel && rel < end && !strncmp(rel + 4 + (rel[4] == '"'), "next", 4)) {
      char *address = sw_strndup(p + 1, (size_t)(close - p) - 1);
      if (!address) return -1;
      *next = sw_http_redirect(url, address);
      free(address);
      return *next ? 0 : sw_fail_in("the next page");
    }
    p = end;
  }
  return 0;
}

/* The next page's address becomes an absolute one, without keys. */
static int resolve_next(const sw_job_source *s, const char *url, const char *link, sw_job_page *page) {
  if (s->paging != SW_PAGING_NEXT) return 0;
  sw_buffer given = {0}, masked = {0};
  char *next = NULL;
  int status = 0;
  if (!s->next_path)
    status = read_link(link, url, &next);
  else if (page->next)
    status = sw_job_unmask(s, page->next, 1, &given) || !(next = sw_http_redirect(url, given.data)) ? sw_fail_in("the next page") : 0;
  if (!status && next) status = sw_job_mask(s, next, strlen(next), 0, &masked);
  free(page->next);
  page->next = !status && next ? sw_buffer_take(&masked) : NULL;
  if (!status && next && !page->next) status = -1;
  sw_buffer_close(&given);
  sw_buffer_close(&masked);
  free(next);
  return status;
}

/* From here on the answer holds no key: it goes into files. */
static int mask_body(const sw_job_source *s, sw_buffer *body) {
  sw_buffer masked = {0};
  if (!json_array_size(s->secrets)) return 0;
  const int status = sw_job_mask(s, body->data ? body->data : "", body->size, 1, &masked);
  sw_buffer_close(status ? &masked : body);
  if (!status) *body = masked;
  return status;
}

void answer_close(answer *a) {
  sw_buffer_close(&a->body);
  sw_job_page_close(&a->page);
}

/* What is too long is not kept: the page is asked for again. */
static void keep(char *out, size_t capacity, const char *value) {
  const size_t length = strlen(value);
  if (length < capacity) memcpy(out, value, length + 1);
}

static void say(const asker *a, const char *what, double wait) {
  if (!a->quiet) fprintf(stderr, "%s: %s: %s; trying again in %.1f s\n", a->source->name, what, sw_error(), wait);
}

ask_result ask_page(asker *a, const sw_job_ask *ask, const char *address, const validator *known, const char *what, answer *out) {
  sw_buffer url = {0}, body = {0};
  ask_result result = ASK_FAILED;
  sw_http_wanted wanted[WANTED] = {{"ETag", ""}, {"Last-Modified", ""}, {"Retry-After", ""}, {"Link", ""}, {"Location", ""}};
  int bad = 0;
  for (int failures = 1;; failures++) {
    long status = 0;
    result = ASK_FAILED;
    sw_buffer_clear(&url), sw_buffer_clear(&body);
    if ((address ? sw_buffer_append(&url, address, strlen(address)) : sw_job_url(a->source, ask, 0, &url)) || sw_job_body(a->source, ask, 0, &body)) break;
    const uint64_t before = a->requests;
    result = send_hops(a, &url, body.data, known, &status, wanted, &out->body);
    if (result == ASK_LATER || (result == ASK_FAILED && (a->requests == before || !sw_http_client_code(a->client)))) break;
    int again = result == ASK_FAILED ? sw_http_is_temporary(sw_http_client_code(a->client), 0) : sw_http_is_temporary(0, status);
    if (result == ASK_DONE && status == 304 && known && (known->etag[0] || known->modified[0])) {
      out->unchanged = 1;
      out->validator = *known;
      break;
    }
    if (result == ASK_DONE && status == 200) {
      keep(out->validator.etag, sizeof out->validator.etag, wanted[ETAG].value);
      keep(out->validator.modified, sizeof out->validator.modified, wanted[MODIFIED].value);
      sw_job_page_close(&out->page);
      if (mask_body(a->source, &out->body)) {
        result = ASK_FAILED;
        break;
      }
      if (!sw_job_page_read(a->source, out->body.data ? out->body.data : "", out->body.size, &out->page)) {
        if (resolve_next(a->source, url.data, wanted[LINK].value, &out->page)) result = ASK_FAILED;
        break;
      }
      again = !sw_error_is_memory() && ++bad < BAD_TRIES; /* a gateway's page, or an answer that was cut */
    } else if (result == ASK_DONE) {
      explain(a->source, status);
    }
    result = again ? ASK_LATER : ASK_FAILED;
    if (!again || failures >= SW_HTTP_TRIES) break;
    const double wait = sw_http_wait(failures, wanted[RETRY_AFTER].value);
    char why[512];
    snprintf(why, sizeof why, "%s", sw_error());
    if (sw_clock() + wait < a->deadline) say(a, what, wait);
    if ((result = wait_for(a, wait, why)) != ASK_DONE) break;
  }
  if (result != ASK_DONE) sw_fail_in("%s: %s", a->source->name, what);
  sw_buffer_close(&url);
  sw_buffer_close(&body);
  return result;
}
