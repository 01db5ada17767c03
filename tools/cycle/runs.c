#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"
#include "engine/store/models.h"
#include "tools/cycle/cycle.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_BYTES = 1 << 28 };

char *cycle_path(const cycle *c, const char *run, const char *name) {
  sw_buffer path = {0};
  const int status = run ? sw_buffer_print(&path, "%s/%s/%s", c->state, run, name) : sw_buffer_print(&path, "%s/%s", c->folder, name);
  char *text = status ? NULL : sw_buffer_take(&path);
  sw_buffer_close(&path);
  return text;
}

static json_t *read_if_there(char *path) {
  json_t *value = path && sw_exists(path) ? sw_json_read(path, RECORD_BYTES) : NULL;
  free(path);
  return value;
}

json_t *cycle_record(const cycle *c, const char *run, const char *name) {
  sw_buffer file = {0};
  json_t *record = sw_buffer_print(&file, "%s.json", name) ? NULL : read_if_there(cycle_path(c, run, file.data));
  sw_buffer_close(&file);
  return record;
}

int cycle_record_write(const cycle *c, const char *name, const json_t *record) {
  sw_buffer file = {0};
  char *text = sw_json_pretty(record);
  const int status = text && !sw_buffer_print(&file, "%s.json", name) ? sw_file_write(c->folder, file.data, text, strlen(text)) : -1;
  sw_buffer_close(&file);
  free(text);
  return status;
}

/* --- names --- */

static int is_name(const char *name) {
  if (!isalnum((unsigned char)name[0]) || strlen(name) > 64 || !strcmp(name, "answers")) return 0;
  for (const char *at = name; *at; at++)
    if (!isalnum((unsigned char)*at) && !strchr("-_.", *at)) return 0;
  return 1;
}

/* "2026-W02" for 05-01-2026: ISO 8601's week, by the C library. */
static int week_of(const char *date, char week[16]) {
  struct tm day = {0};
  if (sscanf(date, "%2d-%2d-%4d", &day.tm_mday, &day.tm_mon, &day.tm_year) != 3) return -1;
  day.tm_mon--;
  day.tm_year -= 1900;
  day.tm_hour = 12;
  const int mday = day.tm_mday, mon = day.tm_mon;
  if (timegm(&day) == -1 || day.tm_mday != mday || day.tm_mon != mon) return -1; /* 31-02 */
  return strftime(week, 16, "%G-W%V", &day) ? 0 : -1;
}

static int by_number(const void *a, const void *b) {
  const json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "number")), y = json_integer_value(json_object_get(*(json_t *const *)b, "number"));
  return (x > y) - (x < y);
}

/* run.json of every run, in order. */
static json_t *find_runs(const cycle *c) {
  json_t *all = json_array(), **items = NULL;
  DIR *dir = opendir(c->state);
  for (struct dirent *entry; all && dir && (entry = readdir(dir));) {
    if (!is_name(entry->d_name)) continue;
    char *file = cycle_path(c, entry->d_name, "run.json");
    const int there = file && sw_exists(file);
    json_t *info = there ? sw_json_read(file, RECORD_BYTES) : NULL;
    free(file);
    if (there && !info) {
      sw_fail("%s; move the folder %s/%s away, and the next run takes its postings", sw_error(), c->state, entry->d_name);
      json_decref(all);
      all = NULL;
    } else if (info && (!sw_json_string(info, "run") || strcmp(sw_json_string(info, "run"), entry->d_name) || !json_is_integer(json_object_get(info, "number")))) {
      sw_fail("%s/%s/run.json is not that run's: move the folder away", c->state, entry->d_name);
      json_decref(info);
      json_decref(all);
      all = NULL;
    } else if (info) {
      json_array_append_new(all, info);
    }
  }
  if (dir) closedir(dir);
  const size_t count = json_array_size(all);
  if (all && count && (items = sw_alloc_array(count, sizeof *items))) {
    for (size_t i = 0; i < count; i++) items[i] = json_incref(json_array_get(all, i));
    qsort(items, count, sizeof *items, by_number);
    for (size_t i = 0; i < count; i++) json_array_set_new(all, i, items[i]);
  }
  free(items);
  return all;
}

int cycle_run_name(cycle *c, const char *name, const char *date) {
  char week[16];
  const time_t now = time(NULL);
  struct tm utc;
  if (date)
    snprintf(c->date, sizeof c->date, "%s", date);
  else
    strftime(c->date, sizeof c->date, "%d-%m-%Y", gmtime_r(&now, &utc));
  if ((date && (strlen(date) != 10 || strspn(date, "0123456789-") != 10 || date[2] != '-' || date[5] != '-')) || week_of(c->date, week)) return sw_fail("--date wants a day as 31-01-2026, not '%s'", date ? date : c->date);
  if (name && !is_name(name)) return sw_fail("--run wants a name of letters, digits, '-', '_' and '.', as in 2026-W05, not '%s'", name);
  sw_buffer folder = {0};
  c->run = sw_strdup(name ? name : week);
  const int status = c->run ? sw_buffer_print(&folder, "%s/%s", c->state, c->run) : -1;
  c->folder = status ? NULL : sw_buffer_take(&folder);
  sw_buffer_close(&folder);
  return c->folder ? 0 : -1;
}

int cycle_unfinished(const cycle *c, char **name) {
  json_t *infos = find_runs(c), *info = NULL;
  *name = NULL;
  for (size_t i = json_array_size(infos); !info && i-- > 0;)
    if (json_array_size(json_object_get(json_array_get(infos, i), "postings"))) info = json_array_get(infos, i);
  int status = infos ? 0 : -1;
  if (info && !json_is_true(json_object_get(info, "finished")) && !(*name = sw_strdup(sw_json_string(info, "run")))) status = -1;
  json_decref(infos);
  return status;
}

int cycle_finished(cycle *c, int finished) {
  if (json_is_true(json_object_get(c->info, "finished")) == finished) return 0;
  return json_object_set_new(c->info, "finished", json_boolean(finished)) || cycle_record_write(c, "run", c->info) ? -1 : 0;
}

void cycle_run_close(cycle *c) {
  json_decref(c->info);
  json_decref(c->runs);
  json_object_clear(c->hashes);
  free(c->run);
  free(c->folder);
  c->info = c->runs = NULL;
  c->run = c->folder = NULL;
}

/* Fails for a step's record that is there and cannot be read: taken for none, it would have the step done, and paid for, again. */
static int check_records(const cycle *c, const char *run) {
  int status = 0;
  for (int i = 0; !status && i < cycle_step_count(); i++) {
    sw_buffer file = {0};
    char *path = sw_buffer_print(&file, "%s.json", cycle_steps[i].name) ? NULL : cycle_path(c, run, file.data);
    json_t *record = path && sw_exists(path) ? sw_json_read(path, RECORD_BYTES) : NULL;
    if (!path) status = -1;
    else if (!record && sw_exists(path)) status = sw_fail("%s; move it away, and the step is done again", sw_error());
    else if (record && !json_is_integer(json_object_get(record, "status"))) status = sw_fail("%s is no step's record; move it away, and the step is done again", path);
    json_decref(record);
    free(path);
    sw_buffer_close(&file);
  }
  return status;
}

int cycle_run_open(cycle *c) {
  json_t *infos = find_runs(c), *info;
  size_t i;
  json_int_t last = 0;
  c->runs = json_array();
  if (!infos || !c->runs) {
    json_decref(infos);
    return -1;
  }
  json_array_foreach(infos, i, info) {
    const int ours = !strcmp(sw_json_string(info, "run"), c->run);
    if (ours) c->info = json_incref(info);
    if (!json_array_size(json_object_get(info, "postings"))) continue; /* nothing was done in it */
    last = json_integer_value(json_object_get(info, "number"));
    json_array_append(c->runs, json_object_get(info, "run"));
  }
  json_decref(infos);
  const int empty = !json_array_size(json_object_get(c->info, "postings"));
  c->newest = empty || json_integer_value(json_object_get(c->info, "number")) == last;
  if (empty) json_array_append_new(c->runs, json_string(c->run));
  json_array_foreach(c->runs, i, info)
    if (check_records(c, json_string_value(info))) return -1;
  if (c->info) return empty && json_object_set_new(c->info, "number", json_integer(last + 1)) ? sw_fail_memory("the run cannot be noted") : 0;
  c->info = json_pack("{s:s, s:I, s:s, s:[]}", "run", c->run, "number", last + 1, "date", c->date, "postings");
  if (!c->info) return sw_fail_memory("the run cannot be noted");
  return c->dry ? 0 : sw_make_folders(c->folder) || cycle_record_write(c, "run", c->info) ? -1 : 0;
}

/* --- the run's postings --- */

/* What other runs have: {"05-01-2026/1.txt": true}. */
static json_t *taken_by_others(const cycle *c) {
  json_t *taken = json_object(), *name, *item;
  size_t i, k;
  json_array_foreach(c->runs, i, name) {
    if (!strcmp(json_string_value(name), c->run)) continue;
    json_t *info = cycle_record(c, json_string_value(name), "run");
    json_array_foreach(json_object_get(info, "postings"), k, item) json_object_set_new(taken, json_string_value(item), json_true());
    json_decref(info);
  }
  return taken;
}

/* What fetch is going to bring, for a plan. */
static int expect_postings(const cycle *c, json_t *list) {
  json_t *done = json_object_get(c->config, "fetch") ? cycle_record(c, NULL, "fetch") : json_object();
  const int waits = !done || (json_object_size(done) && json_integer_value(json_object_get(done, "status")) != 0);
  json_decref(done);
  return waits ? json_array_append(list, json_object_get(c->info, "date")) : 0;
}

/* "05-01-2026" of "05-01-2026/1.txt": the length. */
static size_t top_of(const char *posting) { return strcspn(posting, "/"); }

int cycle_take_postings(cycle *c) {
  const int there = sw_is_folder(c->postings);
  json_t *taken = taken_by_others(c), *list = json_array();
  sw_sources files = {0};
  int status = taken && list ? 0 : -1;
  if (!status && !there && !json_object_get(c->config, "fetch")) status = sw_fail("the folder %s (\"postings\") is not there", c->postings);
  if (!status && there) status = sw_sources_below(c->postings, &files);
  json_object_clear(c->present);
  for (size_t i = 0; !status && i < files.count; i++) {
    const char *name = files.items[i].path + strlen(c->postings);
    name += strspn(name, "/");
    json_t *item = json_string(name), *top = json_stringn(name, top_of(name));
    if (!item || !top) status = sw_fail("%s: the name should be UTF-8", files.items[i].path);
    else if (c->newest && !json_object_get(taken, name)) status = json_array_append(list, item);
    if (!status) status = json_object_set_new(c->present, json_string_value(top), json_integer(1 + json_integer_value(json_object_get(c->present, json_string_value(top)))));
    json_decref(item);
    json_decref(top);
  }
  sw_sources_close(&files);
  json_decref(taken);
  const json_t *before = json_object_get(c->info, "postings");
  if (!status && c->newest && json_array_size(before) && !json_array_size(list)) status = sw_fail("the postings of run %s are gone from %s: put them back, or remove %s", c->run, c->postings, c->folder);
  if (!status && c->newest && c->dry && !json_array_size(list)) status = expect_postings(c, list);
  if (!status && c->newest && !json_equal(list, before)) status = json_object_set(c->info, "postings", list) ? -1 : c->dry ? 0 : cycle_record_write(c, "run", c->info);
  json_decref(list);
  return status;
}

int cycle_add_postings(const cycle *c, plan *p) {
  const json_t *all = json_object_get(c->info, "postings");
  const size_t count = json_array_size(all);
  for (size_t i = 0, end; i < count; i = end) { /* those of one folder follow each other */
    const char *first = json_string_value(json_array_get(all, i));
    const size_t length = top_of(first);
    for (end = i + 1; end < count; end++) {
      const char *next = json_string_value(json_array_get(all, end));
      if (strncmp(first, next, length) || top_of(next) != length) break;
    }
    char *top = sw_strndup(first, length), *path = top ? sw_path_join(c->postings, top) : NULL;
    const int whole = top && (size_t)json_integer_value(json_object_get(c->present, top)) <= end - i; /* else another run has some of it */
    int status = path ? json_array_append_new(p->inputs, json_string(path)) || (whole && json_array_append_new(p->command, json_string(path))) : -1;
    free(top);
    free(path);
    for (size_t k = i; !status && !whole && k < end; k++) {
      path = sw_path_join(c->postings, json_string_value(json_array_get(all, k)));
      status = path ? json_array_append_new(p->command, json_string(path)) : -1;
      free(path);
    }
    if (status) return sw_fail_memory("the postings cannot be listed");
  }
  return 0;
}

/* --- hashes --- */

static int add_folder(sw_sha256 *hash, const char *folder) {
  struct dirent **entries;
  const int count = scandir(folder, &entries, NULL, alphasort);
  int status = count < 0 ? sw_fail("cannot open the folder %s: %s", folder, strerror(errno)) : 0;
  for (int i = 0; i < count; i++) {
    const char *name = entries[i]->d_name;
    char hex[65], *path = status || !strcmp(name, ".") || !strcmp(name, "..") ? NULL : sw_path_join(folder, name);
    if (path) {
      sw_sha256_add(hash, name, strlen(name) + 1);
      const int below = sw_is_folder(path);
      sw_sha256_add(hash, below ? "{" : "=", 1);
      status = below ? add_folder(hash, path) : sw_sha256_file(path, hex);
      if (!status) sw_sha256_add(hash, below ? "}" : hex, below ? 1 : 64);
    }
    free(path);
    free(entries[i]);
  }
  if (count >= 0) free(entries);
  return status;
}

/* What of a folder of postings is the run's, whatever else comes to lie in it. 1: `folder` is none. */
static int add_postings(const cycle *c, sw_sha256 *hash, const char *folder) {
  const size_t length = strlen(c->postings), top = strlen(folder);
  json_t *item;
  size_t i;
  int found = 0;
  if (strncmp(folder, c->postings, length)) return 1;
  json_array_foreach(json_object_get(c->info, "postings"), i, item) {
    char hex[65] = "", *path = sw_path_join(c->postings, json_string_value(item));
    const int ours = path && !strncmp(path, folder, top) && path[top] == '/';
    const int status = !path || (ours && sw_exists(path) && sw_sha256_file(path, hex));
    if (!status && ours) {
      sw_sha256_add(hash, path + top, strlen(path + top) + 1);
      sw_sha256_add(hash, hex, strlen(hex));
    }
    free(path);
    if (status) return -1;
    found |= ours;
  }
  return !found;
}

const char *cycle_hash(cycle *c, const char *path) {
  char hex[65] = "";
  const char *known = sw_json_string(c->hashes, path);
  int status = 0;
  if (known) return known;
  if (sw_is_folder(path)) {
    sw_sha256 *hash = sw_sha256_open();
    status = hash ? add_postings(c, hash, path) : -1;
    if (status > 0) status = add_folder(hash, path);
    if (hash) sw_sha256_close(hash, hex);
  } else if (sw_exists(path)) {
    status = sw_sha256_file(path, hex);
  }
  if (status || json_object_set_new(c->hashes, path, json_string(hex))) return NULL;
  return sw_json_string(c->hashes, path);
}

/* --- what is not needed any more --- */

static void clean_training(const cycle *c, const char *run) {
  char *folder = cycle_path(c, run, "train");
  DIR *dir = folder ? opendir(folder) : NULL;
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    const size_t length = strlen(entry->d_name);
    if (length > 3 && !strcmp(entry->d_name + length - 3, ".h5")) unlinkat(dirfd(dir), entry->d_name, 0);
  }
  if (dir) closedir(dir);
  free(folder);
}

/* Promoted checkpoints that the kept runs' steps name, which would begin anew without them: {"NAME.h5": true}. */
static json_t *needed_models(const cycle *c) {
  static const char *const steps[] = {"train", "compare", "tag", "report", "push"};
  const size_t count = json_array_size(c->runs), length = strlen(c->models);
  json_t *needed = json_object(), *word;
  for (size_t i = count > (size_t)c->keep ? count - (size_t)c->keep : 0; i < count; i++) {
    for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
      json_t *record = cycle_record(c, json_string_value(json_array_get(c->runs, i)), steps[k]);
      size_t at;
      json_array_foreach(json_object_get(record, "command"), at, word) {
        const char *text = json_string_value(word);
        if (text && !strncmp(text, c->models, length) && text[length] == '/') json_object_set_new(needed, text + length + 1, json_true());
      }
      json_decref(record);
    }
  }
  return needed;
}

int cycle_clean(cycle *c) {
  const size_t count = json_array_size(c->runs);
  for (size_t i = 0; i + (size_t)c->keep < count; i++) clean_training(c, json_string_value(json_array_get(c->runs, i)));
  sw_temporary_sweep(c->state);
  if (!sw_is_folder(c->models)) return 0;
  sw_lock lock = {0};
  const int locked = sw_models_lock(c->models, &lock);
  if (locked) return locked > 0 ? 0 : -1; /* a rollback is at work: another time */
  sw_temporary_sweep(c->models);
  json_t *needed = needed_models(c);
  const int status = needed ? sw_models_prune(c->models, c->keep, needed, NULL) : sw_fail_memory("the models cannot be cleaned");
  json_decref(needed);
  sw_lock_release(&lock);
  return status;
}
