/* skillwatch fetch: job postings from a board's API, as dated folders of texts and as JSON lines with all fields. */
#include "base/error.h"
#include "base/file.h"
#include "base/lock.h"
#include "base/sha256.h"
#include "engine/data/sources.h"
#include "engine/store/config_file.h"
#include "engine/store/http.h"
#include "engine/store/json.h"
#include "tools/fetch/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STALE_SECONDS = 48 * 3600, STATE_BYTES = 1 << 28, SHOWN_REQUESTS = 20, MAX_REPEATS = 2 };

static void close_run(fetch_run *run) {
  sw_journal_close(&run->journal, 0);
  sw_table_close(&run->seen);
  json_decref(run->validators);
  free(run->state);
  free(run->journal_path);
  free(run->identity);
  free(run->next);
}

/* --- what run it is --- */

/* Only a hash: a source's file may hold keys. */
static int hash_identity(const sw_job_source *s, const fetch_options *o, char hex[65]) {
  json_t *what = json_pack("{s:O, s:s*, s:s*, s:i, s:s*}", "source", s->config, "query", o->query, "since", o->since, "limit", o->limit, "date", o->date);
  char *text = what ? sw_json_canonical(what) : NULL;
  sw_sha256 *hash = text ? sw_sha256_open() : NULL;
  if (hash) {
    sw_sha256_add(hash, text, strlen(text));
    sw_sha256_close(hash, hex);
  }
  if (!what) sw_fail("--query and --since should be UTF-8");
  json_decref(what);
  free(text);
  return hash ? 0 : -1;
}

static int open_run(const sw_job_source *s, const fetch_options *o, fetch_run *run) {
  char hex[65];
  sw_buffer path = {0};
  *run = (fetch_run){.options = o, .source = s, .page = s->first, .journal = {.file = -1}};
  size_t length = strlen(o->output);
  while (length > 1 && o->output[length - 1] == '/') length--;
  int status = sw_buffer_print(&path, "%.*s.fetch", (int)length, o->output);
  if (!status && !(run->state = sw_buffer_take(&path))) status = -1;
  if (!status) status = hash_identity(s, o, hex) || sw_buffer_print(&path, "%s/%s-%.12s", run->state, s->name, hex) ? -1 : 0;
  if (!status && !(run->journal_path = sw_buffer_take(&path))) status = -1;
  if (!status) status = sw_buffer_print(&path, "skillwatch fetch 1 %s", hex);
  if (!status && !(run->identity = sw_buffer_take(&path))) status = -1;
  if (!status) status = sw_buffer_print(&path, "%s/validators-%s.json", run->state, s->name);
  if (!status) run->validators = sw_exists(path.data) ? sw_json_read(path.data, STATE_BYTES) : json_object();
  if (!status && !json_is_object(run->validators)) status = run->validators ? sw_fail("%s should be a JSON object: remove it, it is made anew", path.data) : -1;
  sw_buffer_close(&path);
  if (status) close_run(run);
  return status;
}

/* --- where in the pages the run is --- */

json_t *fetch_read_head(const void *payload, size_t bytes, const char **body, size_t *body_bytes) {
  const char *text = payload, *end = memchr(text, '\n', bytes);
  if (!end) return sw_fail("the journal holds a page without a head"), NULL;
  *body = end + 1;
  *body_bytes = bytes - (size_t)(end + 1 - text);
  return sw_json_parse(text + 1, (size_t)(end - text) - 1, "the journal");
}

/* Notes the ids of a page; *fresh: how many rows are not known from pages before. */
static int note_rows(fetch_run *run, const sw_job_page *page, size_t *fresh) {
  *fresh = 0;
  for (size_t i = 0; i < json_array_size(page->rows); i++) {
    char reason[256];
    json_t *job;
    const int usable = sw_job_read(run->source, page, i, &job, reason);
    if (usable < 0) return -1;
    const char *id = sw_json_string(job, "id");
    const int known = usable && sw_table_find(&run->seen, id) >= 0, failed = usable && sw_table_add(&run->seen, id) < 0;
    json_decref(job);
    if (failed) return -1;
    *fresh += !known;
  }
  return 0;
}

/* 1: a page of which every row was on pages before. */
static int repeats(const fetch_run *run, const sw_job_page *page) {
  const size_t rows = json_array_size(page->rows);
  for (size_t i = 0; i < rows; i++) {
    char reason[256];
    json_t *job;
    if (sw_job_read(run->source, page, i, &job, reason) <= 0) return 0;
    const int known = sw_table_find(&run->seen, sw_json_string(job, "id")) >= 0;
    json_decref(job);
    if (!known) return 0;
  }
  return rows > 0;
}

/* Goes on to the next page; `asked`: rows it was asked for. */
static int advance(fetch_run *run, size_t rows, size_t fresh, int64_t asked, const char *next) {
  const sw_job_source *s = run->source;
  run->counts.pages++;
  run->taken += (int64_t)fresh;
  run->repeats = rows && !fresh ? run->repeats + 1 : 0;
  run->counts.repeated += rows && !fresh;
  run->offset += (int64_t)rows;
  run->page++;
  const int same = next && run->next && !strcmp(next, run->next);
  free(run->next);
  run->next = next ? sw_strdup(next) : NULL;
  if (next && !run->next) return -1;
  const int short_page = !s->until_empty && (int64_t)rows < asked, by_next = s->paging == SW_PAGING_CURSOR || s->paging == SW_PAGING_NEXT;
  run->done = s->paging == SW_PAGING_NONE || (by_next ? !run->next || same : rows == 0 || short_page) || run->repeats >= MAX_REPEATS ||
              (run->options->limit && run->taken >= run->options->limit) || (int64_t)run->counts.pages >= s->most;
  return 0;
}

/* No more rows are asked for than are wanted; but where pages are numbered all have the same size. */
static int64_t rows_wanted(const fetch_run *run) {
  const int64_t left = run->options->limit && run->source->paging != SW_PAGING_PAGE ? run->options->limit - run->taken : run->source->size;
  return left < run->source->size ? left : run->source->size;
}

static int replay(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  fetch_run *run = context;
  const char *text = payload, *body;
  size_t body_bytes, fresh;
  if (!bytes) return 0;
  if (counters[0]) run->last = (int64_t)counters[0];
  if (*text == RECORD_BEGIN && bytes == 11) {
    memcpy(run->date, text + 1, 10);
    run->begun = 1;
  } else if (*text == RECORD_WRITE) {
    char number[32];
    snprintf(number, sizeof number, "%.*s", (int)bytes - 1, text + 1);
    run->first = strtoll(number, NULL, 10);
    run->writing = 1;
  } else if (*text == RECORD_PAGE) {
    json_t *head = fetch_read_head(payload, bytes, &body, &body_bytes);
    if (!head) return -1;
    sw_job_page page = {0};
    int status = 0;
    const int unchanged = json_is_true(json_object_get(head, "unchanged"));
    size_t rows = (size_t)json_integer_value(json_object_get(head, "rows"));
    fresh = rows;
    if (!unchanged) status = sw_job_page_read(run->source, body, body_bytes, &page) || note_rows(run, &page, &fresh) ? -1 : 0;
    if (!status) status = advance(run, rows, fresh, json_integer_value(json_object_get(head, "asked")), sw_json_string(head, "next"));
    sw_job_page_close(&page);
    json_decref(head);
    return status;
  }
  return 0;
}

/* The counters of a record hold when it was written. */
static int append(fetch_run *run, const void *payload, size_t bytes) {
  const uint64_t now[SW_JOURNAL_COUNTERS] = {(uint64_t)time(NULL)};
  return sw_journal_append(&run->journal, now, payload, bytes);
}

static int begin(fetch_run *run) {
  char record[12];
  if (run->options->date) {
    snprintf(run->date, sizeof run->date, "%s", run->options->date);
  } else {
    const time_t now = time(NULL);
    struct tm utc;
    strftime(run->date, sizeof run->date, "%d-%m-%Y", gmtime_r(&now, &utc));
  }
  snprintf(record, sizeof record, "%c%s", RECORD_BEGIN, run->date);
  run->begun = 1;
  return append(run, record, 11);
}

/* --- one page --- */

/* What the page is known by across runs: the address (without secrets) and the body. */
static int page_key(const fetch_run *run, const sw_job_ask *ask, const char *url, char key[65]) {
  sw_buffer text = {0};
  int status = url ? sw_buffer_append(&text, url, strlen(url)) : sw_job_url(run->source, ask, 1, &text);
  if (!status) status = sw_buffer_append(&text, "\n", 1) || sw_job_body(run->source, ask, 1, &text);
  sw_sha256 *hash = status ? NULL : sw_sha256_open();
  if (hash) {
    sw_sha256_add(hash, text.data, text.size);
    sw_sha256_close(hash, key);
    key[32] = 0;
  }
  sw_buffer_close(&text);
  return hash ? 0 : -1;
}

static void read_validator(const json_t *known, validator *out) {
  const char *etag = sw_json_string(known, "etag"), *modified = sw_json_string(known, "modified");
  *out = (validator){.etag = ""};
  if (etag && strlen(etag) < sizeof out->etag) strcpy(out->etag, etag);
  if (modified && strlen(modified) < sizeof out->modified) strcpy(out->modified, modified);
}

static int keep_page(fetch_run *run, const answer *a, const char *key, int64_t asked, size_t rows, const char *next) {
  json_t *head = json_pack("{s:s, s:b, s:I, s:I, s:s*}", "key", key, "unchanged", a->unchanged, "rows", (json_int_t)rows, "asked", (json_int_t)asked, "next", next);
  /* a server's header may be anything */
  if (head && a->validator.etag[0]) json_object_set_new(head, "etag", json_string(a->validator.etag));
  if (head && a->validator.modified[0]) json_object_set_new(head, "modified", json_string(a->validator.modified));
  char *text = head ? sw_json_canonical(head) : NULL;
  sw_buffer record = {0};
  int status = text ? sw_buffer_print(&record, "%c%s\n", RECORD_PAGE, text) : -1;
  if (!status && !a->unchanged) status = sw_buffer_append(&record, a->body.data ? a->body.data : "", a->body.size);
  if (!status) status = append(run, record.data, record.size);
  sw_buffer_close(&record);
  free(text);
  json_decref(head);
  return status;
}

static ask_result fetch_page(fetch_run *run, asker *board) {
  const fetch_options *o = run->options;
  const sw_job_source *s = run->source;
  const char *url = s->paging == SW_PAGING_NEXT ? run->next : NULL;
  sw_job_ask ask = {.query = o->query, .since = o->since, .cursor = s->paging == SW_PAGING_CURSOR ? run->next : NULL, .offset = run->offset,
                    .limit = rows_wanted(run), .page = run->page};
  char key[65], what[64];
  validator known;
  answer a = {0};
  sw_buffer next_page = {0};
  size_t fresh;
  snprintf(what, sizeof what, "page %llu", (unsigned long long)run->counts.pages + 1);
  if (page_key(run, &ask, url, key)) return ASK_FAILED;
  if (run->next && sw_job_unmask(s, run->next, url != NULL, &next_page)) {
    sw_buffer_close(&next_page);
    return ASK_FAILED;
  }
  if (url) url = next_page.data;
  if (ask.cursor) ask.cursor = next_page.data;
  const json_t *before = json_object_get(run->validators, key);
  read_validator(before, &known);
  ask_result result = ask_page(board, &ask, url, &known, what, &a);
  if (result == ASK_DONE && !a.unchanged && repeats(run, &a.page)) { /* once more: it may be a slip */
    answer_close(&a);
    a = (answer){0};
    result = ask_page(board, &ask, url, NULL, what, &a);
  }
  if (result == ASK_DONE) {
    const size_t rows = a.unchanged ? (size_t)json_integer_value(json_object_get(before, "rows")) : json_array_size(a.page.rows);
    const char *next = a.unchanged ? sw_json_string(before, "next") : a.page.next;
    fresh = rows;
    if (keep_page(run, &a, key, ask.limit, rows, next) || (!a.unchanged && note_rows(run, &a.page, &fresh)) || advance(run, rows, fresh, ask.limit, next))
      result = ASK_FAILED;
  }
  answer_close(&a);
  sw_buffer_close(&next_page);
  return result;
}

/* --- the whole --- */

static void report(const fetch_run *run) {
  const fetch_options *o = run->options;
  const fetch_counts *n = &run->counts;
  if (o->json)
    printf("{\"date\": \"%s\", \"source\": \"%s\", \"new\": %llu, \"read\": %llu, \"pages\": %llu, \"requests\": %llu, \"unchanged_pages\": %llu, "
           "\"repeated_pages\": %llu, \"known_id\": %llu, \"known_text\": %llu, \"rejected\": %llu, \"bad_bytes\": %llu, \"boilerplate_cut\": %llu}\n",
           run->date, run->source->name, (unsigned long long)n->added, (unsigned long long)n->read, (unsigned long long)n->pages, (unsigned long long)n->requests,
           (unsigned long long)n->unchanged, (unsigned long long)n->repeated, (unsigned long long)n->same_id, (unsigned long long)n->same_text,
           (unsigned long long)n->rejected, (unsigned long long)n->bad_bytes, (unsigned long long)n->cut);
  if (o->quiet) return;
  fprintf(stderr, "%s/%s: %llu new posting%s of %llu read (%llu page%s, %llu request%s); known by id: %llu, by text: %llu; set aside: %llu\n", o->output, run->date,
          (unsigned long long)n->added, SW_S(n->added), (unsigned long long)n->read, (unsigned long long)n->pages, SW_S(n->pages), (unsigned long long)n->requests,
          SW_S(n->requests), (unsigned long long)n->same_id, (unsigned long long)n->same_text, (unsigned long long)n->rejected);
  if (n->rejected) fprintf(stderr, "why rows were set aside: %s/%s-%s.rejected.jsonl\n", run->state, run->date, run->source->name);
  if (n->unchanged) fprintf(stderr, "%llu page%s unchanged since an earlier run\n", (unsigned long long)n->unchanged, SW_S(n->unchanged));
  if (n->repeated) fprintf(stderr, "%llu page%s held nothing but rows of pages before: does the source page as its config says?\n", (unsigned long long)n->repeated, SW_S(n->repeated));
  if (n->bad_bytes) fprintf(stderr, "%llu byte%s of the answers were not UTF-8\n", (unsigned long long)n->bad_bytes, SW_S(n->bad_bytes));
  if (o->strip) fprintf(stderr, "%llu line%s of boilerplate cut: %s/%s-%s.boilerplate.jsonl\n", (unsigned long long)n->cut, SW_S(n->cut), run->state, run->date, run->source->name);
}

/* Returns an exit status; *stale: what was written were the pages of an earlier run, which is to begin anew. */
static int run_once(const sw_job_source *s, const fetch_options *o, int *stale) {
  fetch_run run;
  asker board = {0};
  const char *why;
  *stale = 0;
  int status = open_run(s, o, &run);
  if (status) return sw_exit_message(SW_EXIT_FAILED);
  status = fetch_check_turn(&run);
  if (!status) status = sw_journal_open(run.journal_path, run.identity, 1, &run.journal, &why) || sw_journal_replay(&run.journal, replay, &run) ? -1 : 0;
  const uint64_t held = run.counts.pages;
  const int old = run.begun && time(NULL) - run.last > STALE_SECONDS;
  if (!status && !run.begun) status = o->finish ? sw_fail("there is nothing to finish: no run with this source, query and limit was interrupted") : begin(&run);
  if (!status && !o->quiet && held)
    fprintf(stderr, "%s: %llu page%s of a run of %s that was interrupted %s there\n", s->name, (unsigned long long)held, SW_S(held), run.date, held == 1 ? "is" : "are");
  ask_result result = ASK_DONE;
  if (!status && !run.writing && !old && !o->finish && !run.done) {
    if (asker_open(s, run.state, o->time_limit, o->quiet, &board)) result = ASK_FAILED;
    while (result == ASK_DONE && !run.done) result = fetch_page(&run, &board);
    run.counts.requests = board.requests;
    asker_close(&board);
  }
  int code = SW_EXIT_DONE;
  if (status || result == ASK_FAILED) {
    code = SW_EXIT_FAILED;
  } else if (result == ASK_LATER) {
    code = SW_EXIT_AGAIN;
  } else if (fetch_write(&run)) {
    code = SW_EXIT_FAILED;
  } else {
    sw_journal_close(&run.journal, 1);
    fetch_end_turn(&run);
    report(&run);
    *stale = old && !o->finish;
  }
  if (code) sw_exit_message(code);
  if (code && run.counts.pages)
    fprintf(stderr, "skillwatch: %llu page%s kept: run the command again to go on, or with --finish to write what is there\n", (unsigned long long)run.counts.pages,
            run.counts.pages == 1 ? " is" : "s are");
  close_run(&run);
  return code;
}

/* --- --dry-run --- */

static int looks_secret(const char *name) {
  static const char *const words[] = {"key", "token", "auth", "secret", "cookie", "password"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strcasestr(name, words[i])) return 1;
  return 0;
}

static int print_request(const fetch_run *run) {
  const sw_job_source *s = run->source;
  const sw_job_ask ask = {.query = run->options->query, .since = run->options->since, .offset = run->offset, .limit = rows_wanted(run), .page = run->page,
                          .cursor = s->paging == SW_PAGING_CURSOR ? run->next : NULL};
  sw_buffer url = {0}, body = {0};
  int status = sw_job_url(s, &ask, 1, &url) || sw_job_body(s, &ask, 1, &body) ? -1 : 0;
  if (!status) printf("%s %s\n", s->method, s->paging == SW_PAGING_NEXT && run->next ? run->next : url.data);
  if (!status && body.size) printf("  %s\n", body.data);
  sw_buffer_close(&url);
  sw_buffer_close(&body);
  return status;
}

static int dry_run(const sw_job_source *s, const fetch_options *o) {
  fetch_run run;
  const char *why, *key, *variable;
  json_t *value;
  if (open_run(s, o, &run)) return -1;
  sw_buffer path = {0};
  int status = sw_buffer_print(&path, "%s.partial", run.journal_path);
  if (!status && sw_exists(path.data))
    status = sw_journal_open(run.journal_path, run.identity, 1, &run.journal, &why) || sw_journal_replay(&run.journal, replay, &run) ? -1 : 0;
  sw_buffer_close(&path);
  if (run.counts.pages) printf("%llu page%s of an interrupted run are there\n", (unsigned long long)run.counts.pages, SW_S(run.counts.pages));
  const int counted = s->paging == SW_PAGING_OFFSET || s->paging == SW_PAGING_PAGE;
  int shown = 0;
  for (; !status && !run.done && !run.writing && shown < (counted && o->limit ? SHOWN_REQUESTS : 1); shown++) {
    const int64_t wanted = rows_wanted(&run);
    status = print_request(&run);
    if (!status) status = advance(&run, (size_t)wanted, (size_t)wanted, wanted, NULL);
  }
  if (!status && !run.done) printf("... and so on, until a page says that it is the last; at most %lld pages\n", (long long)s->most);
  if (!status && !shown) printf("nothing is to be asked: only files are to be written\n");
  json_object_foreach((json_t *)s->headers, key, value) {
    const char *text = json_string_value(value), *found = strncmp(text, "env:", 4) ? text : getenv(text + 4);
    variable = found == text ? NULL : text + 4;
    if (variable)
      printf("%s: *** (%s%s)\n", key, variable, found && found[0] ? "" : ", which is not set");
    else
      printf("%s: %s\n", key, looks_secret(key) ? "***" : text);
  }
  if (s->rate_requests) printf("at most %lld request%s in %lld s\n", (long long)s->rate_requests, SW_S(s->rate_requests), (long long)s->rate_seconds);
  if (s->per_day) printf("at most %lld request%s a day\n", (long long)s->per_day, SW_S(s->per_day));
  close_run(&run);
  return status;
}

/* --- options --- */

/* Another address of the same API: a proxy, or a test. */
static int change_base(sw_job_source *s, const char *base) {
  const char *rest = strstr(s->url, "//") + 2;
  rest += strcspn(rest, "/?");
  size_t length = strlen(base);
  while (length && base[length - 1] == '/') length--;
  if (strncmp(base, "https://", 8) && strncmp(base, "http://", 7)) return sw_fail("--base-url should begin with https://");
  if (strpbrk(base, "{}@?#")) return sw_fail("--base-url should hold none of {}@?#: only a scheme, a host, a port and a path");
  sw_buffer url = {0};
  int status = sw_buffer_print(&url, "%.*s%s", (int)length, base, rest);
  if (!status && json_object_set_new(s->config, "url", json_string(url.data))) status = sw_fail("--base-url is not UTF-8");
  if (!status) s->url = sw_json_string(s->config, "url");
  sw_buffer_close(&url);
  return status;
}

/* "YYYY-MM-DD" of either way to write a date. */
static int read_day(const char *option, const char *text, int day_first, char out[11]) {
  if (!sw_date_number(text, strlen(text))) return sw_fail("%s %s is no date; write it as 2025-01-31", option, text);
  if ((text[2] == '-') == day_first)
    memcpy(out, text, 11);
  else if (day_first)
    snprintf(out, 11, "%.2s-%.2s-%.4s", text + 8, text + 5, text);
  else
    snprintf(out, 11, "%.4s-%.2s-%.2s", text + 6, text + 3, text);
  return 0;
}

static int check(fetch_options *o, const sw_list *operands, char since[11], char date[11], sw_job_source *s) {
  if (operands->count != 1) return sw_fail("one source is wanted: linkedin, or a JSON file that describes one (see skillwatch fetch --help)");
  o->source = operands->items[0];
  if (o->limit < 0) return sw_fail("--limit wants a number of postings");
  if (o->time_limit < 1) return sw_fail("--time-limit wants a number of seconds");
  if (o->companies < 2) return sw_fail("--boilerplate-companies wants 2 or more");
  if (!(o->similarity > 0 && o->similarity <= 1)) return sw_fail("--similarity wants a number from 0 to 1");
  if (o->since && read_day("--since", o->since, 0, since)) return -1;
  if (o->date && read_day("--date", o->date, 1, date)) return -1;
  if (o->since) o->since = since;
  if (o->date) o->date = date;
  if (sw_job_source_open(o->source, s) || (o->base_url && change_base(s, o->base_url))) return -1;
  if (o->query && !(s->uses & SW_ASK_QUERY)) return sw_fail("%s: the source has no {query}, so --query can do nothing", o->source);
  if (o->since && !(s->uses & SW_ASK_SINCE)) return sw_fail("%s: the source has no {since}, so --since can do nothing", o->source);
  if (s->uses & SW_ASK_SECRET && !sw_http_keeps_secrets(s->url))
    return sw_fail("%s: the address is plain http, which would show the key to anyone on the way; use https", o->source);
  /* a missing key or query is better known now */
  const sw_job_ask ask = {.query = o->query, .since = o->since};
  const char *key, *variable;
  json_t *value;
  sw_buffer text = {0};
  int status = sw_job_url(s, &ask, o->dry_run || o->finish, &text) || sw_job_body(s, &ask, o->dry_run || o->finish, &text) ? -1 : 0;
  json_object_foreach((json_t *)s->headers, key, value)
    if (!status && !o->dry_run && !o->finish && !sw_job_header(json_string_value(value), &variable)) status = -1;
  sw_buffer_close(&text);
  return status;
}

static int run_all(const sw_job_source *s, const fetch_options *o) {
  sw_buffer path = {0};
  sw_lock lock = {0};
  size_t length = strlen(o->output);
  while (length > 1 && o->output[length - 1] == '/') length--;
  int status = sw_buffer_print(&path, "%.*s.fetch", (int)length, o->output) || sw_make_folders(path.data) || sw_buffer_print(&path, "/lock") ? -1 : 0;
  if (!status) status = sw_lock_take(path.data, &lock);
  int code = status ? sw_exit_message(status > 0 ? SW_EXIT_AGAIN : SW_EXIT_FAILED) : SW_EXIT_DONE, stale = 1;
  while (!code && stale) code = run_once(s, o, &stale);
  sw_lock_release(&lock);
  sw_buffer_close(&path);
  return code;
}

static int body(int argc, char **argv) {
  fetch_options o = {.output = "job-postings", .time_limit = 3600, .companies = 5, .similarity = 0.8};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FOLDER", "postings go to FOLDER/<date>/<n>.txt, all else to FOLDER.fetch/"},
      {"query", 0, SW_OPTION_TEXT, &o.query, "TEXT", "what to search for"},
      {"since", 0, SW_OPTION_TEXT, &o.since, "DATE", "only postings of this day (2025-01-31) and later"},
      {"limit", 0, SW_OPTION_INT, &o.limit, "N", "take N postings at most; 0: all"},
      {"date", 0, SW_OPTION_TEXT, &o.date, "DATE", "name of the dated folder instead of today's (UTC)"},
      {"time-limit", 0, SW_OPTION_INT, &o.time_limit, "SECONDS", "ask no longer than that in all; then exit status 75"},
      {"similarity", 0, SW_OPTION_DOUBLE, &o.similarity, "X", "texts that share so much (Jaccard, runs of 5 words) are one posting; below 0.7 some are missed"},
      {"strip-boilerplate", 0, SW_OPTION_FLAG, &o.strip, NULL, "leave lines that many companies' postings share out of the .txt files"},
      {"boilerplate-companies", 0, SW_OPTION_INT, &o.companies, "N", "how many companies make a line boilerplate"},
      {"base-url", 0, SW_OPTION_TEXT, &o.base_url, "URL", "another scheme, host and port for the source, such as a proxy's"},
      {"finish", 0, SW_OPTION_FLAG, &o.finish, NULL, "ask nothing: write the pages that an interrupted run has"},
      {"dry-run", 0, SW_OPTION_FLAG, &o.dry_run, NULL, "print what would be asked, keys masked, and ask nothing"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "print what was done as JSON"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.quiet, NULL, "no reports"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch fetch SOURCE [options]",
      .summary = "Fetches job postings from the API of a job board: linkedin (the LinkedIn job search API on RapidAPI), or any board\n"
                 "that a small JSON file describes (samples/sources/). Postings that are known, by id or by nearly the same text,\n"
                 "also from earlier weeks, are left out. A run that was interrupted is continued: no page is asked for twice.\n"
                 "Exit status 75: try again later (the quota is used up, the server is busy, the time is over).\n\n"
                 "environment:\n"
                 "  RAPID_API_KEY  key for linkedin; other sources name their own\n"
                 "  SSL_CERT_FILE  certificate authorities to trust instead of the system's",
      .example = "RAPID_API_KEY=... skillwatch fetch linkedin --query 'machine learning' --limit 500 -o job-postings",
      .options = options,
  };
  sw_list operands = {0};
  sw_job_source source = {0};
  char since[11], date[11];
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status) status = check(&o, &operands, since, date, &source);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else if (o.dry_run)
    status = dry_run(&source, &o) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  else
    status = run_all(&source, &o);
  sw_job_source_close(&source);
  sw_list_close(&operands);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
