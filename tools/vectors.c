/* skillwatch vectors: a file of vectors that grows and shrinks. Every change writes a new file and renames it over the old one. */
#include "base/error.h"
#include "base/file.h"
#include "base/lock.h"
#include "base/options.h"
#include "engine/store/checkpoint.h"
#include "engine/store/config_file.h"
#include "engine/store/json.h"
#include "engine/store/vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char *output, *model, *ids, *prefix;
  int replace, force, quiet, json;
} vectors_options;

/* Ids, sorted by name once all are there. */
typedef struct {
  size_t count, capacity;
  char **ids; /* owned */
  char *found; /* [count] */
} id_set;

static int add_id(id_set *s, char *id) {
  if (s->count == s->capacity) {
    const size_t larger = s->capacity ? 2 * s->capacity : 256;
    char **ids = sw_realloc_array(s->ids, larger, sizeof *ids);
    if (!ids) return -1;
    s->ids = ids;
    s->capacity = larger;
  }
  s->ids[s->count++] = id;
  return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The first id that comes twice, or NULL. */
static const char *sort_ids(id_set *s) {
  const char *twice = NULL;
  qsort(s->ids, s->count, sizeof *s->ids, by_name);
  for (size_t i = 1; i < s->count && !twice; i++)
    if (!strcmp(s->ids[i - 1], s->ids[i])) twice = s->ids[i];
  return twice;
}

static size_t find_id(const id_set *s, const char *id) {
  char **found = s->count ? bsearch(&id, s->ids, s->count, sizeof *s->ids, by_name) : NULL;
  return found ? (size_t)(found - s->ids) : SIZE_MAX;
}

static void close_ids(id_set *s) {
  for (size_t i = 0; i < s->count; i++) free(s->ids[i]);
  free(s->ids);
  free(s->found);
}

static sw_vectors_origin origin_of(const sw_vectors *v) {
  return (sw_vectors_origin){v->model_sha256, v->model, v->pooling, v->prefix, v->normalize};
}

static int is_npy(const char *path) {
  const size_t n = strlen(path);
  return n > 4 && !strcmp(path + n - 4, ".npy");
}

/* --- show --- */

static int show(const vectors_options *o, const char *path) {
  sw_vectors v;
  if (sw_vectors_open(path, &v)) return -1;
  if (o->json) {
    json_t *facts = json_pack("{s:s, s:I, s:i, s:s, s:s, s:s, s:s, s:b}", "file", path, "rows", (json_int_t)v.rows, "hidden_size", v.hidden, "model",
                              v.model, "model_sha256", v.model_sha256, "pooling", v.pooling, "prefix", v.prefix, "normalize", v.normalize);
    char *text = facts ? sw_json_pretty(facts) : NULL;
    if (text) fputs(text, stdout);
    json_decref(facts);
    free(text);
    sw_vectors_close(&v);
    return text ? 0 : sw_fail("%s: its texts are not valid UTF-8", path);
  }
  printf("%s: %llu vector%s of %d numbers\n", path, (unsigned long long)v.rows, SW_S(v.rows), v.hidden);
  if (*v.model_sha256)
    printf("  model   %s (%s)\n  pooling %s%s\n  prefix  '%s'\n", v.model, v.model_sha256, v.pooling, v.normalize ? ", length 1" : "", v.prefix);
  else
    puts("  it does not say which model made it");
  sw_vectors_close(&v);
  return 0;
}

/* --- append and delete --- */

static int keep_unless_listed(void *context, size_t source, uint64_t row, const char *id) {
  id_set *s = context;
  const size_t at = source ? SIZE_MAX : find_id(s, id);
  if (at == SIZE_MAX) return 1;
  s->found[at] = 1;
  return 0;
}

/* Calls `visit` for every id in turn, until it returns something else than 0. */
static int each_id(sw_vectors *v, int (*visit)(void *context, char *id), void *context) {
  enum { AT_ONCE = 1024 };
  char *ids[AT_ONCE];
  int status = 0;
  for (uint64_t first = 0; first < v->rows && !status; first += AT_ONCE) {
    const uint64_t rows = v->rows - first < AT_ONCE ? v->rows - first : AT_ONCE;
    if (sw_vectors_read_ids(v, first, rows, ids)) return -1;
    for (uint64_t i = 0; i < rows; i++) {
      if (!status) status = visit(context, ids[i]);
      free(ids[i]);
    }
  }
  return status;
}

static int refuse_listed(void *set, char *id) {
  return find_id(set, id) == SIZE_MAX ? 0 : sw_fail("the store has the id '%.64s' already: --replace puts the new vector in its place", id);
}

static int list_id(void *set, char *id) {
  char *own = sw_strdup(id);
  return own ? add_id(set, own) : -1;
}

static int mark_id(void *context, char *id) {
  id_set *set = context;
  const size_t at = find_id(set, id);
  if (at != SIZE_MAX) set->found[at] = 1;
  return 0;
}

static int check_same_model(const char *path, const sw_vectors *store, const char *other, const sw_vectors *v) {
  if (!*v->model_sha256) return sw_fail("%s does not say which model made it: skillwatch vectors import %s -m MODEL -o NEW.h5 notes it", other, other);
  if (strcmp(store->model_sha256, v->model_sha256))
    return sw_fail("%s was made with another model than %s: make it with skillwatch infer embed -m %s", other, path, store->model);
  if (strcmp(store->prefix, v->prefix)) return sw_fail("%s was made with the prefix '%s', %s with '%s'", other, v->prefix, path, store->prefix);
  return 0;
}

/* A map's points would be lost with any change of its rows. */
static int refuse_map(const char *path, const sw_vectors *v) {
  return sw_vectors_is_map(v) ? sw_fail("%s is a map, whose points belong to its rows: place new ones with 'skillwatch infer map --fit-on %s', or change the vectors it was made of", path, path) : 0;
}

static int append(const vectors_options *o, const sw_list *paths) {
  const char *store = paths->items[0];
  id_set new = {0};
  uint64_t rows = 0;
  size_t open = 0;
  int status = 0;
  sw_vectors *all = sw_alloc_array((size_t)paths->count, sizeof *all);
  if (!all) return -1;
  for (int i = sw_exists(store) ? 0 : 1; i < paths->count && !status; i++)
    if (!(status = sw_vectors_open(paths->items[i], &all[open]))) open++;
  const int fresh = open < (size_t)paths->count;
  if (!status && !fresh) status = refuse_map(store, &all[0]);
  for (size_t i = fresh ? 0 : 1; i < open && !status; i++) {
    const char *path = paths->items[i + (fresh ? 1 : 0)];
    status = check_same_model(paths->items[fresh ? 1 : 0], &all[0], path, &all[i]) || each_id(&all[i], list_id, &new) ? -1 : 0;
  }
  const char *twice = status ? NULL : sort_ids(&new);
  if (twice) status = sw_fail("the id '%.64s' comes twice in what is to be added", twice);
  if (!status && !(new.found = sw_alloc_array(new.count + 1, 1))) status = -1;
  if (!status && !fresh && !o->replace) status = each_id(&all[0], refuse_listed, &new);
  const sw_vectors_origin origin = origin_of(&all[0]);
  if (!status) status = sw_vectors_copy(store, all, open, &origin, !fresh && o->replace ? keep_unless_listed : NULL, &new, &rows);
  if (!status && !o->quiet)
    fprintf(stderr, "%s: %zu row%s added, %llu in all\n", store, new.count, SW_S(new.count), (unsigned long long)rows);
  for (size_t i = 0; i < open; i++) sw_vectors_close(&all[i]);
  free(all);
  close_ids(&new);
  return status;
}

/* Ids of operands, and lines of a file. */
static int read_ids(const vectors_options *o, const sw_list *operands, id_set *out) {
  for (int i = 1; i < operands->count; i++) {
    char *id = sw_strdup(operands->items[i]);
    if (!id || add_id(out, id)) return -1;
  }
  if (!o->ids) return 0;
  sw_buffer text = {0};
  int status = sw_file_read(o->ids, (size_t)1 << 31, &text);
  for (char *line = text.data, *end; line && *line && !status; line = end) {
    const size_t length = strcspn(line, "\n");
    end = line + length + (line[length] == '\n');
    const size_t bytes = length && line[length - 1] == '\r' ? length - 1 : length;
    char *id = bytes ? sw_strndup(line, bytes) : NULL;
    if (bytes) status = id && !add_id(out, id) ? 0 : -1;
  }
  sw_buffer_close(&text);
  return status;
}

static int delete(const vectors_options *o, const sw_list *operands) {
  const char *store = operands->items[0];
  id_set gone = {0};
  sw_vectors v = {0};
  uint64_t rows = 0;
  size_t found = 0;
  int status = read_ids(o, operands, &gone) || sw_vectors_open(store, &v) || refuse_map(store, &v) ? -1 : 0;
  if (!status) sort_ids(&gone);
  if (!status && !(gone.found = sw_alloc_array(gone.count + 1, 1))) status = -1;
  const uint64_t before = v.rows;
  if (!status) status = each_id(&v, mark_id, &gone); /* nothing is written where nothing is to go */
  for (size_t i = 0; i < gone.count && !status; i++) found += (size_t)gone.found[i];
  if (!status && !found) status = sw_fail("%s has none of the %zu id%s that were named", store, gone.count, SW_S(gone.count));
  const sw_vectors_origin origin = origin_of(&v);
  if (!status) status = sw_vectors_copy(store, &v, 1, &origin, keep_unless_listed, &gone, &rows);
  size_t absent = 0;
  for (size_t i = 0; i < gone.count && gone.found; i++) absent += find_id(&gone, gone.ids[i]) == i && !gone.found[i];
  if (!status && !o->quiet)
    fprintf(stderr, "%s: %llu row%s deleted, %llu left%s\n", store, (unsigned long long)(before - rows), SW_S(before - rows), (unsigned long long)rows,
            absent ? "; some ids were not there" : "");
  if (v.handle) sw_vectors_close(&v);
  close_ids(&gone);
  return status;
}

/* --- .npy in and out --- */

static int copy_to(const vectors_options *o, const char *path, int importing) {
  sw_vectors v;
  sw_checkpoint model;
  sw_checkpoint_init(&model);
  uint64_t rows = 0;
  if (sw_vectors_open(path, &v)) return -1;
  sw_vectors_origin origin = origin_of(&v);
  int status = 0;
  if (importing && *v.model_sha256) status = sw_fail("%s says itself which model made it: skillwatch vectors append takes it as it is", path);
  if (importing && !status && !(status = sw_checkpoint_read(o->model, &model))) {
    const json_t *own = json_object_get(model.config, "skillwatch"), *size = json_object_get(model.config, "hidden_size");
    const char *pooling = json_string_value(json_object_get(own, "pooling"));
    if (!size) size = json_object_get(model.config, "dim");
    origin = (sw_vectors_origin){model.content_sha256, o->model, pooling ? pooling : "mean", o->prefix, json_is_true(json_object_get(own, "normalize"))};
    if (json_integer_value(size) != v.hidden)
      status = sw_fail("%s holds vectors of %d numbers, those of %s have %lld", path, v.hidden, o->model, (long long)json_integer_value(size));
  }
  if (!status) status = sw_vectors_copy(o->output, &v, 1, &origin, NULL, NULL, &rows);
  if (!status && !o->quiet) fprintf(stderr, "%s: %llu row%s written\n", o->output, (unsigned long long)rows, SW_S(rows));
  sw_vectors_close(&v);
  sw_checkpoint_close(&model);
  return status;
}

/* --- the command line --- */

static int check_output(const vectors_options *o, const sw_list *operands, int npy) {
  if (operands->count != 1) return sw_fail("one file of vectors is wanted (see --help)");
  if (!o->output) return sw_fail("-o is missing: the file to write");
  if (is_npy(o->output) != npy) return sw_fail("-o %s: the name must end in %s", o->output, npy ? ".npy" : ".h5");
  if (sw_check_output(o->output, operands->items, 1)) return -1;
  return sw_exists(o->output) && !o->force ? sw_fail("%s exists already: --force replaces it, or give another -o", o->output) : 0;
}

static int check(const vectors_options *o, const char *verb, const sw_list *operands) {
  if (operands->count < 1) return sw_fail("a file of vectors is wanted: skillwatch vectors %s STORE.h5", verb);
  if (!strcmp(verb, "show")) return 0;
  if (!strcmp(verb, "export")) return check_output(o, operands, 1);
  if (!strcmp(verb, "import")) return !o->model ? sw_fail("-m is missing: the model that made the vectors") : check_output(o, operands, 0);
  if (strcmp(verb, "append") && strcmp(verb, "delete")) return sw_fail("'%s' is not known: use show, append, delete, export or import", verb);
  if (is_npy(operands->items[0])) return sw_fail("%s: a store is an HDF5 file; skillwatch vectors import makes one of a .npy", operands->items[0]);
  if (!strcmp(verb, "append") && operands->count < 2) return sw_fail("vectors to add are wanted: skillwatch vectors append STORE.h5 MORE.h5");
  if (!strcmp(verb, "append")) return sw_check_output(operands->items[0], operands->items + 1, operands->count - 1);
  return operands->count < 2 && !o->ids ? sw_fail("ids to delete are wanted: as operands, or --ids FILE, one a line") : 0;
}

/* Append and delete read the store and write it anew: one at a time. */
static int change(const vectors_options *o, const sw_list *operands, int (*work)(const vectors_options *, const sw_list *)) {
  sw_buffer path = {0};
  sw_lock lock = {0};
  int status = sw_buffer_print(&path, "%s.lock", operands->items[0]) ? -1 : sw_lock_take(path.data, &lock);
  sw_buffer_close(&path);
  if (status > 0) return SW_EXIT_AGAIN;
  if (!status) status = work(o, operands);
  sw_lock_release(&lock);
  return status ? SW_EXIT_FAILED : SW_EXIT_DONE;
}

static int body(int argc, char **argv) {
  vectors_options o = {.prefix = ""};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "export, import: the file to write"},
      {"model", 'm', SW_OPTION_TEXT, &o.model, "CKPT", "import: the model that made the vectors"},
      {"prefix", 0, SW_OPTION_TEXT, &o.prefix, "TEXT", "import: what was put before every text"},
      {"ids", 0, SW_OPTION_TEXT, &o.ids, "FILE", "delete: ids, one a line"},
      {"replace", 0, SW_OPTION_FLAG, &o.replace, NULL, "append: rows whose ids are there already take their places"},
      {"force", 0, SW_OPTION_FLAG, &o.force, NULL, "export, import: replace an existing output"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "show: as JSON"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.quiet, NULL, "no summary"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch vectors show|append|delete|export|import STORE ... [options]",
      .summary = "Works on a file of vectors, as skillwatch infer embed writes it.\n"
                 "show STORE...; append STORE MORE...: the rows of other files, made with the same model and prefix (a store that is not there is made);\n"
                 "delete STORE ID...; export STORE -o X.npy: with the ids in X.npy.ids.txt; import X.npy -m MODEL -o STORE: the way back.\n"
                 "The store is at any moment the old one or the new one, whole; while one command changes it another one ends with status 75.",
      .example = "skillwatch vectors append titles.h5 titles-of-this-week.h5",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status && !operands.count) status = sw_fail("what to do is missing: show, append, delete, export or import (see --help)");
  const char *verb = status ? "" : operands.items[0];
  sw_list rest = {operands.count - 1, operands.items + 1};
  if (!status) status = check(&o, verb, &rest);
  if (status) {
    sw_list_close(&operands);
    return status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  }
  for (int i = 0; i < rest.count && !strcmp(verb, "show") && !status; i++) status = show(&o, rest.items[i]);
  if (!strcmp(verb, "append")) status = change(&o, &rest, append);
  if (!strcmp(verb, "delete")) status = change(&o, &rest, delete);
  if (!strcmp(verb, "export") || !strcmp(verb, "import")) status = copy_to(&o, rest.items[0], verb[0] == 'i');
  sw_list_close(&operands);
  if (status == SW_EXIT_AGAIN) return sw_exit_message(SW_EXIT_AGAIN);
  return status ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
