#include "engine/data/pairs.h"
#include "base/error.h"
#include "base/sha256.h"
#include "engine/data/csv.h"
#include "engine/data/rows.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  const char *path;
  const char *query, *positive;
  const char *const *negatives;
  int num_negatives, negatives_needed;
  sw_rejects *rejects;
  int (*take)(void *context, const sw_pair *pair);
  void *context;
  sw_pair_counts *counts;
  char first[300]; /* the first rejected row's line and reason */
  sw_pair pair;
} reader;

static int reject(reader *r, uint64_t line, const char *row, size_t bytes) {
  r->counts->rejected++;
  if (!*r->first) snprintf(r->first, sizeof r->first, "line %llu: %s", (unsigned long long)line, sw_error());
  return sw_rejects_add(r->rejects, r->path, line, sw_error(), row, bytes);
}

/* `status` 0: the pair is there; 1: the row is bad for the reason in sw_error(). */
static int finish(reader *r, int status, uint64_t line, const char *row, size_t bytes) {
  r->counts->rows++;
  if (!status) status = r->take(r->context, &r->pair);
  return status > 0 ? reject(r, line, row, bytes) : status;
}

static int bad(const char *what, const char *name) { return sw_fail("%s \"%.100s\"", what, name), 1; }

/* --- CSV --- */
static int find_column(const reader *r, const sw_csv *csv, const char *name, const char *option) {
  const int column = sw_csv_column(csv, name);
  if (column >= 0) return column;
  char *names = sw_csv_column_list(csv);
  if (names) sw_fail("%s has no column \"%s\"; there are: %s. Choose one with --%s NAME", r->path, name, names, option);
  free(names);
  return -1;
}

static int read_csv(reader *r) {
  sw_csv csv;
  uint64_t line;
  int status = -1, *columns = NULL, num_columns = 2 + r->num_negatives;
  sw_buffer *fields = NULL;
  if (sw_csv_open(&csv, r->path, 0, 0)) return -1;
  if (!r->negatives_needed && sw_csv_column(&csv, r->negatives[0]) < 0) num_columns = 2;
  columns = sw_alloc_array((size_t)num_columns, sizeof *columns);
  fields = sw_alloc_array((size_t)num_columns, sizeof *fields);
  if (!columns || !fields) goto done;
  for (int i = 0; i < num_columns; i++)
    if ((columns[i] = find_column(r, &csv, i == 0 ? r->query : i == 1 ? r->positive : r->negatives[i - 2],
                                  i == 0 ? "query" : i == 1 ? "positive" : "negatives")) < 0)
      goto done;
  while ((status = sw_csv_next(&csv, r->rejects, &line)) > 0) {
    if (status == 2) { /* set aside by the parser */
      r->counts->rows++;
      r->counts->rejected++;
      if (!*r->first) snprintf(r->first, sizeof r->first, "%.290s", r->rejects->reason);
      continue;
    }
    r->pair.num_negatives = 0;
    for (int i = 0; i < num_columns; i++) {
      if (sw_csv_field_text(&csv.fields[columns[i]], &fields[i])) goto failed;
      const sw_text text = {fields[i].data, fields[i].size};
      if (i < 2)
        *(i ? &r->pair.positive : &r->pair.query) = text;
      else if (text.bytes)
        r->pair.negatives[r->pair.num_negatives++] = text;
    }
    if (finish(r, 0, line, csv.window.data + csv.window.start, csv.used)) goto failed;
  }
  goto done;
failed:
  status = -1;
done:
  for (int i = 0; fields && i < num_columns; i++) sw_buffer_close(&fields[i]);
  free(fields);
  free(columns);
  sw_csv_close(&csv);
  return status;
}

/* --- JSON --- */
static int add_negative(reader *r, const char *key, const json_t *value) {
  if (!json_is_string(value)) return bad("neither a text nor a list of texts:", key);
  if (r->pair.num_negatives == SW_MAX_NEGATIVES) return sw_fail("more than %d negatives", (int)SW_MAX_NEGATIVES), 1;
  r->pair.negatives[r->pair.num_negatives++] = (sw_text){json_string_value(value), json_string_length(value)};
  return 0;
}

static int from_json(reader *r, const json_t *row) {
  if (!json_is_object(row)) return sw_fail("the row is no JSON object"), 1;
  for (int i = 0; i < 2; i++) {
    const char *key = i ? r->positive : r->query;
    const json_t *value = json_object_get(row, key);
    if (!value) return bad("no key", key);
    if (!json_is_string(value)) return bad("no text in quotes:", key);
    *(i ? &r->pair.positive : &r->pair.query) = (sw_text){json_string_value(value), json_string_length(value)};
  }
  r->pair.num_negatives = 0;
  for (int i = 0; i < r->num_negatives; i++) {
    const json_t *value = json_object_get(row, r->negatives[i]), *one;
    size_t k;
    int status = 0;
    if (!value || json_is_null(value)) continue;
    if (!json_is_array(value)) status = add_negative(r, r->negatives[i], value);
    else json_array_foreach(value, k, one) if ((status = add_negative(r, r->negatives[i], one))) break;
    if (status) return status;
  }
  return 0;
}

static int read_json(reader *r) {
  sw_window window;
  sw_rows rows;
  const char *text;
  size_t bytes;
  uint64_t line;
  int status;
  if (sw_window_open(&window, r->path, 0) || sw_rows_open(&rows, window, r->path, 0)) return -1;
  while ((status = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    json_error_t error;
    json_t *row = NULL;
    int usable = 1;
    if (status == SW_ROW_LONG)
      sw_fail("longer than %d bytes", (int)SW_MAX_ROW_BYTES);
    else if ((status = sw_json_row(text, bytes, 0, &row, &error)))
      break;
    else if (row)
      usable = from_json(r, row);
    else
      sw_fail("broken JSON: %.150s (byte %d)", error.text, error.position);
    status = finish(r, usable, line, text, bytes);
    json_decref(row);
    if (status) break;
  }
  sw_rows_close(&rows);
  return status;
}

int sw_pairs_read(const char *path, const sw_pair_columns *columns, sw_rejects *rejects, int (*take)(void *context, const sw_pair *pair),
                  void *context, sw_pair_counts *counts) {
  static const char *const usual = "negatives";
  if (!strcmp(path, "-")) return sw_fail("-: pairs are read from a file, which a resumed run reads again");
  if (columns->num_negatives > SW_MAX_NEGATIVES) return sw_fail("more than %d columns of negatives", (int)SW_MAX_NEGATIVES);
  sw_sources sources;
  if (sw_sources_open(&path, 1, SW_POSTINGS_AUTO, &sources)) return -1;
  const sw_postings_format format = sources.count == 1 ? sources.items[0].format : SW_POSTINGS_TEXT;
  sw_sources_close(&sources);
  if (format != SW_POSTINGS_CSV && format != SW_POSTINGS_JSONL)
    return sw_fail("%s: pairs are read from files whose name ends in .jsonl, .json, .csv or .tsv (.gz, .zst)", path);
  reader *r = sw_alloc(sizeof *r);
  if (!r) return -1;
  *counts = (sw_pair_counts){0};
  r->path = path;
  r->query = columns->query ? columns->query : "query";
  r->positive = columns->positive ? columns->positive : "positive";
  r->negatives_needed = columns->num_negatives > 0;
  r->negatives = r->negatives_needed ? columns->negatives : &usual;
  r->num_negatives = r->negatives_needed ? columns->num_negatives : 1;
  r->rejects = rejects;
  r->take = take;
  r->context = context;
  r->counts = counts;
  int status = format == SW_POSTINGS_CSV ? read_csv(r) : read_json(r);
  if (!status) status = sw_sha256_file(path, counts->sha256);
  if (!status && counts->rows == counts->rejected)
    status = counts->rows ? sw_fail("%s: no row can be used, %zu of %zu were set aside; %s", path, counts->rejected, counts->rows, r->first)
                          : sw_fail("%s is empty: it holds no pair", path);
  free(r);
  return status;
}
