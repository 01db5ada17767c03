#include "engine/data/label_table.h"
#include "base/error.h"
#include "base/sha256.h"
#include "engine/data/csv.h"
#include "engine/data/rows.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"
#include "engine/text/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_LABELS = 4096, MAX_LABEL_BYTES = 512 };

typedef struct {
  sw_label_table *table;
  const char *text;    /* asked for, or NULL */
  sw_rejects rejects;  /* of the file that is being read; its count is that of the file before the next begins */
  uint32_t file;
  const char *path;
  size_t row_capacity;
  uint8_t *row;        /* [num_labels] the present row's targets */
} reader;

/* --- labels --- */

static int label_index(const sw_label_table *t, const char *name) {
  for (size_t i = 0; i < t->num_labels; i++)
    if (!strcmp(t->labels[i], name)) return (int)i;
  return -1;
}

static int add_label(sw_label_table *t, const char *name) {
  if (!name[0] || strlen(name) > MAX_LABEL_BYTES) return sw_fail("a label's name is empty or longer than %d bytes: %.60s", MAX_LABEL_BYTES, name);
  if (sw_check_utf8(name, strlen(name))) return sw_fail_in("the name of a label");
  if (t->num_labels == MAX_LABELS) return sw_fail("more than %d labels are too many: name those that you want with --labels", MAX_LABELS);
  char **labels = sw_realloc_array(t->labels, t->num_labels + 1, sizeof *labels);
  if (!labels) return -1;
  t->labels = labels;
  if (!(labels[t->num_labels] = sw_strdup(name))) return -1;
  t->num_labels++;
  return 0;
}

/* "a,\"b, c\"" */
static int take_labels(sw_label_table *t, const char *list) {
  sw_csv_field *fields = sw_alloc_array(MAX_LABELS, sizeof *fields);
  sw_buffer name = {0};
  size_t count = 0, used;
  int status = fields ? 0 : -1;
  if (!status && (sw_csv_parse(list, strlen(list), 1, ',', 1, fields, MAX_LABELS, &count, &used) != SW_CSV_RECORD || used < strlen(list)))
    status = sw_fail("--labels: names with commas between were expected, those that hold a comma or a quote in double quotes");
  for (size_t i = 0; i < count && !status; i++) {
    sw_buffer_clear(&name);
    if (sw_csv_field_text(&fields[i], &name) || sw_buffer_reserve(&name, 1))
      status = -1;
    else if (label_index(t, name.size ? name.data : "") >= 0)
      status = sw_fail("--labels names '%s' twice", name.data);
    else
      status = add_label(t, name.size ? name.data : "");
  }
  sw_buffer_close(&name);
  free(fields);
  return status;
}

/* 0, 1, or -1 for what is neither. */
static int flag_of(const sw_csv_field *field) {
  if (!field->bytes || (field->data[0] != '0' && field->data[0] != '1')) return -1;
  const int one = field->data[0] == '1';
  return field->bytes == 1 || (field->bytes == 3 && !memcmp(field->data + 1, ".0", 2)) ? one : -1;
}

static int text_column(const reader *r, const sw_csv *csv) {
  static const char *const usual[] = {"text", "description"};
  int column = r->text ? sw_csv_column(csv, r->text) : -1;
  for (int k = 0; k < 2 && !r->text && column < 0; k++)
    for (size_t i = 0; i < csv->num_columns && column < 0; i++)
      if (!strcasecmp(csv->columns[i], usual[k])) column = (int)i;
  if (column >= 0) return column;
  char *columns = sw_csv_column_list(csv);
  if (columns) sw_fail("%s has no column \"%s\"; there are: %s. Choose the text's with --text COLUMN", r->path, r->text ? r->text : "text", columns);
  free(columns);
  return -1;
}

/* The columns that hold 0 and 1. */
static int find_columns(reader *r) {
  sw_csv csv;
  sw_rejects none = {0};
  uint64_t line, rows = 0;
  int status, text = -1;
  if (sw_csv_open(&csv, r->path, 0, 0)) return -1;
  uint64_t *flags = sw_alloc_array(csv.num_columns, sizeof *flags);
  status = flags && (text = text_column(r, &csv)) >= 0 ? 1 : -1;
  while (status > 0 && (status = sw_csv_next(&csv, &none, &line)) > 0) {
    if (status == 2) continue; /* set aside */
    rows++;
    for (size_t i = 0; i < csv.num_columns; i++) flags[i] += flag_of(&csv.fields[i]) >= 0;
  }
  for (size_t i = 0; i < csv.num_columns && !status; i++)
    if ((int)i != text && rows && 10 * flags[i] >= 9 * rows)
      status = label_index(r->table, csv.columns[i]) < 0 ? add_label(r->table, csv.columns[i])
                                                         : sw_fail("%s has two columns \"%s\": give them different names", r->path, csv.columns[i]);
  if (!status && !r->table->num_labels)
    status = sw_fail("%s has no column of 0 and 1 beside the text: a label is one; name them with --labels", r->path);
  sw_rejects_close(&none);
  free(flags);
  sw_csv_close(&csv);
  return status;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Calls `each` for every row that is a JSON value; otherwise it is set aside. */
static int each_json(reader *r, int (*each)(reader *r, json_t *row, const char **fault)) {
  sw_window window;
  sw_rows rows;
  const char *text;
  size_t bytes;
  uint64_t line;
  int status;
  if (sw_window_open(&window, r->path, 0) || sw_rows_open(&rows, window, r->path, 0)) return -1;
  while ((status = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    json_t *row = NULL;
    json_error_t error;
    const char *fault = status == SW_ROW_LONG ? "the row is too long" : NULL;
    if (!fault && sw_json_row(text, bytes, 0, &row, &error)) {
      status = sw_fail_in("%s, line %llu", r->path, (unsigned long long)line);
      break;
    }
    if (!fault && !row) fault = "broken JSON";
    if (!fault && !json_is_object(row)) fault = "the row is no JSON object";
    if (!fault) {
      if (each(r, row, &fault)) status = -1;
      if (!fault && status > 0 && r->row) r->table->rows[r->table->num_rows - 1].line = line;
    }
    json_decref(row);
    if (status > 0 && fault && sw_rejects_add(&r->rejects, r->path, line, fault, text, bytes)) status = -1;
    if (status < 0) break;
  }
  sw_rows_close(&rows);
  return status;
}

static int note_labels(reader *r, json_t *row, const char **fault) {
  size_t i;
  json_t *label;
  json_array_foreach(json_object_get(row, "labels"), i, label) {
    const char *name = json_string_value(label);
    if (name && name[0] && label_index(r->table, name) < 0 && add_label(r->table, name)) return -1;
  }
  return 0;
}

static int find_labels(reader *r, const sw_sources *sources) {
  for (size_t i = 0; i < sources->count; i++)
    if (sources->items[i].format == SW_POSTINGS_CSV) {
      r->path = sources->items[i].path;
      return find_columns(r);
    }
  for (size_t i = 0; i < sources->count; i++) {
    r->path = sources->items[i].path;
    if (each_json(r, note_labels)) return -1;
  }
  if (!r->table->num_labels) return sw_fail("%s: no row has a label: {\"text\": \"...\", \"labels\": [\"...\"]} was expected", r->path);
  qsort(r->table->labels, r->table->num_labels, sizeof *r->table->labels, compare_names);
  return 0;
}

/* --- rows --- */

static const char *fault_of_text(const char *text, size_t bytes) {
  if (sw_check_utf8(text, bytes)) return "the text is not valid UTF-8, or holds a NUL";
  for (size_t i = 0; i < bytes; i++)
    if (!strchr(" \t\r\n", text[i])) return NULL;
  return "the text is empty";
}

/* Takes the row of `r->row` over. */
static int add_row(reader *r, const char *text, size_t bytes, uint64_t line) {
  sw_label_table *t = r->table;
  if (t->num_rows == r->row_capacity) {
    const size_t larger = 2 * r->row_capacity + 256;
    struct sw_labelled_text *rows = sw_realloc_array(t->rows, larger, sizeof *rows);
    if (!rows) return -1;
    t->rows = rows;
    uint8_t *targets = sw_realloc_array(t->targets, larger, t->num_labels);
    if (!targets) return -1;
    t->targets = targets;
    r->row_capacity = larger;
  }
  char *copy = sw_strndup(text, bytes);
  if (!copy) return -1;
  memcpy(t->targets + t->num_rows * t->num_labels, r->row, t->num_labels);
  t->rows[t->num_rows++] = (struct sw_labelled_text){copy, bytes, r->file, line};
  return 0;
}

static int read_csv(reader *r) {
  sw_label_table *t = r->table;
  sw_csv csv;
  sw_buffer text = {0};
  char fault[700];
  uint64_t line;
  int status, column = -1;
  if (sw_csv_open(&csv, r->path, 0, 0)) return -1;
  int *columns = sw_alloc_array(t->num_labels, sizeof *columns);
  status = columns && (column = text_column(r, &csv)) >= 0 ? 1 : -1;
  for (size_t i = 0; i < t->num_labels && status > 0; i++)
    if ((columns[i] = sw_csv_column(&csv, t->labels[i])) < 0 || columns[i] == column)
      status = sw_fail("%s has no column \"%s\" of 0 and 1, which is a label", r->path, t->labels[i]);
  while (status > 0 && (status = sw_csv_next(&csv, &r->rejects, &line)) > 0) {
    if (status == 2) continue;
    const char *why = NULL;
    sw_buffer_clear(&text);
    if (sw_csv_field_text(&csv.fields[column], &text)) status = -1;
    if (status > 0) why = fault_of_text(text.data, text.size);
    for (size_t i = 0; i < t->num_labels && status > 0 && !why; i++) {
      const sw_csv_field *cell = &csv.fields[columns[i]];
      const int flag = flag_of(cell);
      if (flag < 0)
        snprintf(fault, sizeof fault, "column \"%s\" holds \"%.*s\", 0 or 1 was expected", t->labels[i], (int)(cell->bytes < 60 ? cell->bytes : 60),
                 cell->data),
            why = fault;
      r->row[i] = flag == 1;
    }
    if (status > 0 && why) status = sw_rejects_add(&r->rejects, r->path, line, why, csv.window.data + csv.window.start, csv.used) ? -1 : 1;
    if (status > 0 && !why && add_row(r, text.data, text.size, line)) status = -1;
  }
  sw_buffer_close(&text);
  free(columns);
  sw_csv_close(&csv);
  return status;
}

static int read_object(reader *r, json_t *row, const char **fault) {
  const char *key = r->text ? r->text : json_object_get(row, "text") ? "text" : "description";
  const json_t *text = json_object_get(row, key), *labels = json_object_get(row, "labels");
  json_t *label;
  size_t i;
  memset(r->row, 0, r->table->num_labels);
  if (!json_is_string(text)) return *fault = "there is no text (choose its key with --text)", 0;
  if (!json_is_array(labels)) return *fault = "there is no list \"labels\"", 0;
  json_array_foreach(labels, i, label) {
    const int index = json_is_string(label) ? label_index(r->table, json_string_value(label)) : -1;
    if (index < 0) return *fault = "one of its labels is none of those that are learned", 0;
    r->row[index] = 1;
  }
  if ((*fault = fault_of_text(json_string_value(text), json_string_length(text)))) return 0;
  return add_row(r, json_string_value(text), json_string_length(text), 0);
}

static int read_file(reader *r, const sw_source *source, struct sw_label_table_file *file) {
  const size_t before = r->table->num_rows, rejected = (size_t)r->rejects.count;
  r->path = source->path;
  if (!(file->path = sw_strdup(source->path)) || sw_sha256_file(source->path, file->sha256)) return -1;
  if (source->format == SW_POSTINGS_CSV ? read_csv(r) : each_json(r, read_object)) return -1;
  file->rejected = (size_t)r->rejects.count - rejected;
  file->rows = r->table->num_rows - before + file->rejected;
  r->table->rejected += file->rejected;
  if (r->table->num_rows > before) return 0;
  return file->rejected ? sw_fail("%s: none of %zu row%s can be used; the last one: %s", file->path, file->rows, SW_S(file->rows), r->rejects.reason)
                        : sw_fail("%s is empty: it holds no row", file->path);
}

static int read_all(reader *r, const sw_sources *sources, const char *labels, const sw_label_table *fixed, const char *rejected_path) {
  sw_label_table *t = r->table;
  for (size_t i = 0; i < sources->count; i++)
    if (!strcmp(sources->items[i].path, "-") ||
        (sources->items[i].format != SW_POSTINGS_CSV && sources->items[i].format != SW_POSTINGS_JSONL))
      return sw_fail("%s: a file of CSV or JSON lines was expected (.csv, .tsv, .jsonl, .json; .gz, .zst)", sources->items[i].path);
  for (size_t i = 0; fixed && i < fixed->num_labels; i++)
    if (add_label(t, fixed->labels[i])) return -1;
  if (!fixed && (labels ? take_labels(t, labels) : find_labels(r, sources))) return -1;
  sw_rejects_close(&r->rejects); /* what was counted in search of labels will be met again */
  r->rejects = (sw_rejects){0};
  t->files = sw_alloc_array(sources->count, sizeof *t->files);
  r->row = sw_alloc_array(t->num_labels, 1);
  if (!t->files || !r->row || sw_rejects_open(&r->rejects, rejected_path)) return -1;
  for (size_t i = 0; i < sources->count; i++) {
    r->file = (uint32_t)i;
    t->num_files = i + 1;
    if (read_file(r, &sources->items[i], &t->files[i])) return -1;
  }
  return 0;
}

int sw_label_table_read(const char *const *inputs, size_t count, const char *text, const char *labels, const sw_label_table *fixed,
                        const char *rejected_path, sw_label_table *out) {
  *out = (sw_label_table){0};
  reader r = {.table = out, .text = text};
  sw_sources sources;
  if (sw_sources_open(inputs, count, SW_POSTINGS_AUTO, &sources)) return -1;
  int status = read_all(&r, &sources, labels, fixed, rejected_path);
  if (!status) {
    status = sw_rejects_commit(&r.rejects);
  } else if (r.rejects.path) { /* the reasons are worth having all the more; the first failure is the one to report */
    char *why = sw_strdup(sw_error());
    if (r.rejects.count) sw_rejects_commit(&r.rejects);
    sw_fail("%s", why ? why : "out of memory");
    free(why);
  }
  sw_rejects_close(&r.rejects);
  sw_sources_close(&sources);
  free(r.row);
  if (status) sw_label_table_close(out);
  return status;
}

void sw_label_table_close(sw_label_table *t) {
  for (size_t i = 0; i < t->num_labels; i++) free(t->labels[i]);
  for (size_t i = 0; i < t->num_rows; i++) free(t->rows[i].text);
  for (size_t i = 0; i < t->num_files; i++) free(t->files[i].path);
  free(t->labels);
  free(t->rows);
  free(t->targets);
  free(t->files);
  *t = (sw_label_table){0};
}
