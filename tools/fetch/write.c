#include "tools/fetch/run.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/data/boilerplate.h"
#include "engine/data/rejects.h"
#include "engine/data/rows.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"
#include "tools/fetch/index.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEEP_DAYS = 60, TURN_BYTES = 1 << 20 };

typedef struct {
  fetch_run *run;
  job_index index;
  sw_rejects rejects;
  sw_table rejected;  /* of this date and source, so that none is there twice */
  sw_output rows;     /* the date's JSON lines */
  uint64_t size;      /* bytes of it */
  int64_t next;       /* number of the next posting */
  size_t first_place; /* of the index: the first new posting */
  sw_table seen;      /* ids of this run */
  int64_t taken;
  sw_boilerplate *boilerplate;
} writer;

static char *state_path(const fetch_run *run, const char *end) {
  sw_buffer path = {0};
  if (sw_buffer_print(&path, "%s/%s%s", run->state, run->date, end)) {
    sw_buffer_close(&path);
    return NULL;
  }
  return sw_buffer_take(&path);
}

/* The number in a row's "file", "<date>/<n>"; 0: none. */
static int64_t number_of(const json_t *row) {
  const char *file = sw_json_string(row, "file"), *slash = file ? strchr(file, '/') : NULL;
  return slash ? strtoll(slash + 1, NULL, 10) : 0;
}

/* --- the first number --- */

static int highest_in_rows(void *context, const json_t *row) {
  int64_t *highest = context, number = number_of(row);
  if (number > *highest) *highest = number;
  return 0;
}

static int choose_first(fetch_run *run) {
  int64_t highest = 0;
  char *folder = sw_path_join(run->options->output, run->date);
  job_index date_only = {.folder = run->state, .num_files = 1, .files = &(index_file){.name = NULL}};
  char name[32];
  snprintf(name, sizeof name, "%s.jsonl", run->date);
  date_only.files[0].name = name;
  int status = folder ? index_rows(&date_only, highest_in_rows, &highest) : -1;
  DIR *dir = status ? NULL : opendir(folder);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    char *end;
    const long long number = strtoll(entry->d_name, &end, 10);
    if (end != entry->d_name && !strncmp(end, ".txt", 4) && number > highest && number < INT64_MAX / 2) highest = number;
  }
  if (dir) closedir(dir);
  free(folder);
  run->first = highest + 1;
  return status;
}

/* --- the date's rows --- */

static int write_row(writer *w, const json_t *row) {
  char *text = sw_json_canonical(row);
  if (!text) return -1;
  const size_t bytes = strlen(text) + 1;
  int status = 0;
  if (fputs(text, w->rows.file) < 0 || fputc('\n', w->rows.file) < 0 || fflush(w->rows.file)) status = sw_fail("cannot write %s: %s", w->rows.path, strerror(errno));
  free(text);
  if (!status) status = index_add(&w->index, row, w->size, bytes);
  w->size += bytes;
  return status;
}

/* Rows of the same date that are older than this run; those that it wrote before it was killed are written again. */
static int keep_row(void *context, const json_t *row) {
  writer *w = context;
  if (!row) return sw_fail("%s holds a line that is no JSON: repair it, or move the file away", w->rows.path);
  return number_of(row) < w->run->first ? write_row(w, row) : 0;
}

static int open_rows(writer *w) {
  fetch_run *run = w->run;
  char *path = state_path(run, ".jsonl");
  int status = path ? sw_output_open(&w->rows, path) : -1;
  char name[32];
  snprintf(name, sizeof name, "%s.jsonl", run->date);
  job_index date_only = {.folder = run->state, .num_files = 1, .files = &(index_file){.name = name}};
  if (!status && !w->rows.temporary) status = sw_fail("%s is no regular file", path);
  if (!status && !(w->index.current = sw_strdup(w->rows.temporary))) status = -1;
  if (!status) status = index_rows(&date_only, keep_row, w);
  w->first_place = w->index.near.count;
  free(path);
  return status;
}

static int add_posting(writer *w, json_t *job) {
  fetch_run *run = w->run;
  fetch_counts *n = &run->counts;
  const char *id = sw_json_string(job, "id"), *source = run->source->name;
  if (sw_table_find(&w->seen, id) < 0) w->taken++;
  if (sw_table_add(&w->seen, id) < 0) return -1;
  if (run->options->limit && w->taken > run->options->limit) return 0;
  n->read++;
  int known = index_has_id(&w->index, source, id);
  if (known) return known < 0 ? -1 : (n->same_id++, 0);
  if ((known = index_has_text(&w->index, sw_json_string(job, "text"), run->options->similarity))) return known < 0 ? -1 : (n->same_text++, 0);
  char file[64];
  snprintf(file, sizeof file, "%s/%lld", run->date, (long long)w->next++);
  if (json_object_set_new(job, "date", json_string(run->date)) || json_object_set_new(job, "file", json_string(file)) ||
      json_object_set_new(job, "source", json_string(source)))
    return sw_fail_memory("a posting");
  n->added++;
  return write_row(w, job);
}

/* 1: set aside; 0: it was already, by an earlier run of that day; -1. */
static int add_reject(writer *w, const char *page, uint64_t line, const char *reason, const char *row) {
  sw_buffer key = {0};
  int status = sw_buffer_print(&key, "%s\t%llu\t%s\t%.*s", page, (unsigned long long)line, reason, SW_REJECT_ROW_BYTES - 3, row);
  const size_t before = w->rejected.count;
  if (!status && sw_table_add(&w->rejected, key.data) < 0) status = -1;
  sw_buffer_close(&key);
  if (status || w->rejected.count == before) return status;
  return sw_rejects_add(&w->rejects, page, line, reason, row, strlen(row)) ? -1 : 1;
}

static int reject(writer *w, const json_t *row, uint64_t page, size_t line, const char *reason) {
  char name[80], *text = sw_json_canonical(row);
  snprintf(name, sizeof name, "%s, page %llu", w->run->source->name, (unsigned long long)page);
  const int status = text ? add_reject(w, name, line, reason, text) : -1;
  free(text);
  w->run->counts.rejected++;
  return status < 0 ? -1 : 0;
}

/* What earlier runs of that day set aside stays: pages that did not change since are not read again. */
static int keep_rejected(writer *w, const char *path) {
  sw_rows rows;
  sw_window window;
  const char *text;
  size_t bytes;
  uint64_t line;
  if (sw_rejects_open(&w->rejects, path)) return -1;
  if (!sw_exists(path)) return 0;
  if (sw_window_open(&window, path, 0) || sw_rows_open(&rows, window, path, 0)) return -1;
  int status;
  while ((status = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    json_error_t error;
    json_t *row;
    if ((status = sw_json_row(text, bytes, 0, &row, &error))) break;
    const char *page = sw_json_string(row, "file"), *reason = sw_json_string(row, "reason"), *old = sw_json_string(row, "row");
    if (page && reason && old) status = add_reject(w, page, (uint64_t)json_integer_value(json_object_get(row, "line")), reason, old);
    json_decref(row);
    if (status < 0) break;
  }
  sw_rows_close(&rows);
  return status < 0 ? -1 : 0;
}

/* What this page is known by, for the next run. */
static int keep_validator(fetch_run *run, json_t *head) {
  const char *key = sw_json_string(head, "key"), *etag = sw_json_string(head, "etag"), *modified = sw_json_string(head, "modified");
  if (!key || ((!etag || !etag[0]) && (!modified || !modified[0]))) return 0;
  json_t *copy = json_copy(head);
  if (copy) json_object_del(copy, "key"), json_object_del(copy, "unchanged"), json_object_set_new(copy, "date", json_string(run->date));
  return json_object_set_new(run->validators, key, copy) ? sw_fail_memory("a page's ETag") : 0;
}

static int write_page(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  writer *w = context;
  fetch_run *run = w->run;
  if (!bytes || *(const char *)payload != RECORD_PAGE) return 0;
  const char *body;
  size_t body_bytes;
  json_t *head = fetch_read_head(payload, bytes, &body, &body_bytes);
  int status = head ? 0 : -1;
  run->counts.pages++;
  const int unchanged = json_is_true(json_object_get(head, "unchanged"));
  run->counts.unchanged += unchanged;
  sw_job_page page = {0};
  if (!status && unchanged) w->taken += json_integer_value(json_object_get(head, "rows"));
  if (!status && !unchanged) status = sw_job_page_read(run->source, body, body_bytes, &page);
  run->counts.bad_bytes += page.bad_bytes;
  for (size_t i = 0; !status && i < json_array_size(page.rows); i++) {
    char reason[256];
    json_t *job;
    const int usable = sw_job_read(run->source, &page, i, &job, reason);
    if (usable > 0) status = add_posting(w, job);
    if (usable < 0) status = -1;
    if (usable == 0) w->taken++;
    if (usable == 0 && (!run->options->limit || w->taken <= run->options->limit))
      status = reject(w, json_array_get(page.rows, i), run->counts.pages, i + 1, reason);
    json_decref(job);
  }
  /* a page of which not all was taken is to be read again */
  if (!status && !(run->options->limit && w->taken > run->options->limit)) status = keep_validator(run, head);
  sw_job_page_close(&page);
  json_decref(head);
  return status;
}

/* --- texts --- */

static int count_row(void *context, const json_t *row) {
  const char *text = sw_json_string(row, "text"), *company = sw_json_string(row, "company");
  return text ? sw_boilerplate_count(context, company ? company : "", text) : 0;
}

static int write_text(writer *w, const json_t *row) {
  const char *text = sw_json_string(row, "text"), *company = sw_json_string(row, "company"), *file = sw_json_string(row, "file");
  sw_buffer stripped = {0}, path = {0};
  sw_output output = {0};
  int status = 0;
  if (w->boilerplate) {
    status = sw_boilerplate_strip(w->boilerplate, company ? company : "", text, &stripped);
    text = stripped.data;
  }
  if (!status) status = sw_buffer_print(&path, "%s/%s.txt", w->run->options->output, file);
  if (!status && !(status = sw_output_open(&output, path.data))) {
    fprintf(output.file, "%s\n", text);
    status = sw_output_commit(&output);
  }
  sw_buffer_close(&stripped);
  sw_buffer_close(&path);
  return status;
}

static int write_texts(writer *w) {
  fetch_run *run = w->run;
  char *folder = sw_path_join(run->options->output, run->date);
  int status = folder && (w->index.near.count == w->first_place || !sw_make_folders(folder)) ? 0 : -1;
  if (!status && run->options->strip)
    status = sw_boilerplate_open(run->options->companies, &w->boilerplate) || index_rows(&w->index, count_row, w->boilerplate) ? -1 : 0;
  for (size_t i = w->first_place; i < w->index.near.count && !status; i++) {
    json_t *row = index_row(&w->index, i);
    status = row ? write_text(w, row) : -1;
    json_decref(row);
  }
  free(folder);
  return status;
}

static int write_file(const char *path, const char *text, size_t bytes) {
  sw_output output = {0};
  if (sw_output_open(&output, path)) return -1;
  fwrite(text, 1, bytes, output.file);
  return sw_output_commit(&output);
}

static int write_boilerplate(writer *w) {
  sw_buffer text = {0}, end = {0};
  char *path = NULL;
  int status = 0;
  if (!w->boilerplate || w->index.near.count == w->first_place) return 0; /* nothing new: the last report stays */
  w->run->counts.cut = sw_boilerplate_cut(w->boilerplate);
  status = sw_boilerplate_report(w->boilerplate, &text) || sw_buffer_print(&end, "-%s.boilerplate.jsonl", w->run->source->name) ||
           !(path = state_path(w->run, end.data)) || write_file(path, text.data ? text.data : "", text.size);
  sw_buffer_close(&text);
  sw_buffer_close(&end);
  free(path);
  return status ? -1 : 0;
}

/* --- validators --- */

static int64_t day_number(const char *date) {
  struct tm when = {.tm_mday = atoi(date), .tm_mon = atoi(date + 3) - 1, .tm_year = atoi(date + 6) - 1900};
  return (int64_t)timegm(&when) / 86400;
}

static int write_validators(fetch_run *run) {
  sw_buffer path = {0};
  const char *key;
  json_t *value;
  void *next;
  json_object_foreach_safe(run->validators, next, key, value) {
    const char *date = sw_json_string(value, "date");
    if (!date || strlen(date) != 10 || day_number(run->date) - day_number(date) > KEEP_DAYS) json_object_del(run->validators, key);
  }
  char *text = sw_json_pretty(run->validators);
  int status = text ? sw_buffer_print(&path, "%s/validators-%s.json", run->state, run->source->name) : -1;
  if (!status && (json_object_size(run->validators) || sw_exists(path.data))) status = write_file(path.data, text, strlen(text));
  sw_buffer_close(&path);
  free(text);
  return status;
}

/* --- whose turn it is to write --- */

static int quote(sw_buffer *out, const char *option, const char *text) {
  int status = text ? sw_buffer_print(out, "%s '", option) : 0;
  for (; text && *text && !status; text++) status = *text == '\'' ? sw_buffer_print(out, "'\\''") : sw_buffer_append(out, text, 1);
  return status || !text ? status : sw_buffer_append(out, "'", 1);
}

/* The command that goes on with this run. */
static int print_command(const fetch_options *o, sw_buffer *out) {
  return sw_buffer_print(out, "skillwatch fetch") || quote(out, "", o->source) || quote(out, " -o", o->output) || quote(out, " --query", o->query) ||
                 quote(out, " --since", o->since) || (o->limit && sw_buffer_print(out, " --limit %d", o->limit)) || quote(out, " --date", o->date) ||
                 quote(out, " --base-url", o->base_url) || (o->strip && sw_buffer_print(out, " --strip-boilerplate"))
             ? -1
             : 0;
}

static const char *journal_name(const fetch_run *run) { return run->journal_path + strlen(run->state) + 1; }

static int take_turn(const fetch_run *run) {
  sw_buffer text = {0};
  int status = sw_buffer_print(&text, "%s\n", journal_name(run)) || print_command(run->options, &text) ? -1 : 0;
  if (!status) status = sw_file_write(run->state, "writing", text.data, text.size);
  sw_buffer_close(&text);
  return status;
}

int fetch_check_turn(const fetch_run *run) {
  char *path = sw_path_join(run->state, "writing");
  sw_buffer text = {0}, partial = {0};
  int status = path ? 0 : -1;
  if (!status && sw_exists(path) && !(status = sw_file_read(path, TURN_BYTES, &text))) {
    char *command = text.data ? strchr(text.data, '\n') : NULL;
    if (!command) {
      status = sw_fail("%s does not say which run is writing: remove it", path);
    } else if (*command++ = 0, strcmp(text.data, journal_name(run))) {
      status = sw_buffer_print(&partial, "%s/%s.partial", run->state, text.data);
      if (!status && sw_exists(partial.data))
        status = sw_fail("another run was interrupted while it wrote its postings; run this first: %s (or remove %s, and its pages with it)", command, partial.data);
    }
  }
  sw_buffer_close(&partial);
  sw_buffer_close(&text);
  free(path);
  return status;
}

void fetch_end_turn(const fetch_run *run) {
  char *path = sw_path_join(run->state, "writing");
  if (path) unlink(path); /* one that stays names a journal that is gone, and keeps nobody out */
  free(path);
}

int fetch_write(fetch_run *run) {
  const uint64_t now[SW_JOURNAL_COUNTERS] = {(uint64_t)time(NULL)};
  writer w = {.run = run};
  sw_buffer record = {0}, end = {0};
  char *rejected = NULL;
  const uint64_t requests = run->counts.requests, repeated = run->counts.repeated;
  run->counts = (fetch_counts){.requests = requests, .repeated = repeated};
  int status = 0;
  if (!run->writing) { /* from here on the run only writes, and gives its postings these numbers */
    status = take_turn(run) || choose_first(run) || sw_buffer_print(&record, "%c%lld", RECORD_WRITE, (long long)run->first) ||
             sw_journal_append(&run->journal, now, record.data, record.size);
    run->writing = !status;
  }
  w.next = run->first;
  if (!status)
    status = sw_buffer_print(&end, "-%s.rejected.jsonl", run->source->name) || !(rejected = state_path(run, end.data)) ||
             keep_rejected(&w, rejected) || index_open(run->state, run->date, &w.index) || open_rows(&w) ||
             sw_journal_replay(&run->journal, write_page, &w);
  if (!status) status = write_texts(&w) || write_boilerplate(&w);
  /* the rows make it known that the texts are whole; what follows can be made again */
  const int published = w.index.near.count > w.first_place;
  if (!status && published) status = sw_output_commit(&w.rows);
  if (!status) status = sw_rejects_commit(&w.rejects) || write_validators(run);
  if (!status) status = index_save(&w.index, published);
  sw_output_abandon(&w.rows);
  sw_rejects_close(&w.rejects);
  index_close(&w.index);
  sw_table_close(&w.seen);
  sw_table_close(&w.rejected);
  sw_boilerplate_close(w.boilerplate);
  sw_buffer_close(&record);
  sw_buffer_close(&end);
  free(rejected);
  return status ? -1 : 0;
}
