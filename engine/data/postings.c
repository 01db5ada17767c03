#include "engine/data/postings.h"
#include "base/error.h"
#include "engine/data/csv.h"
#include "engine/data/rows.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"
#include "engine/text/words.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_COLUMNS = 16 };

struct sw_postings {
  sw_postings_format format;
  char *column, *id_column, *label_column; /* owned, NULL where not given */
  const char *column_option, *id_option;   /* borrowed */
  char *parts[MOST_COLUMNS];               /* owned: the names in `column`; none where it has no comma */
  int num_parts;
  size_t max_text, max_row;
  const char *const *texts; /* given in memory, or NULL */
  size_t num_texts;
  sw_sources sources;
  size_t next;       /* sources.items[next] is opened next */
  sw_source *source; /* the one that is open, or NULL */
  uint64_t index;    /* of the next row */
  uint64_t done;     /* bytes of the files that are finished */
  sw_rejects own, *rejects; /* own, or borrowed */
  uint64_t before;          /* in what is borrowed */
  char *reasons[SW_REASONS];
  char failure[1024]; /* the message, once reading has failed: it does not go on after that */
  /* of the open source, by its format */
  sw_csv csv;
  int text_columns[MOST_COLUMNS], num_text_columns;
  int id_field, date_field, label_field; /* -1: none */
  int text_read;                         /* the one row of a text file was given out */
  sw_window lines;
  sw_rows rows;
  uint64_t objects, with_text, with_id, with_label; /* JSON rows seen, and those that had the keys */
  char *first_keys;                     /* of the first JSON row, for the message */
};

int sw_postings_format_parse(const char *name, sw_postings_format *out) {
  static const struct {
    const char *name;
    sw_postings_format format;
  } known[] = {{"auto", SW_POSTINGS_AUTO},
               {"text", SW_POSTINGS_TEXT},
               {"lines", SW_POSTINGS_LINES},
               {"csv", SW_POSTINGS_CSV},
               {"jsonl", SW_POSTINGS_JSONL}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(name, known[i].name)) {
      *out = known[i].format;
      return 0;
    }
  return sw_fail("--format %s is not known: use auto, text, lines, csv or jsonl", name);
}

enum { ROW = 1, SET_ASIDE = 2 }; /* what a reader returns besides 0 (the end) and -1 */

static const char *path_of(const sw_postings *p) {
  return strcmp(p->source->path, "-") ? p->source->path : "standard input";
}

static int set_aside(sw_postings *p, uint64_t line, const char *reason, const char *row, size_t bytes) {
  return sw_rejects_add(p->rejects, path_of(p), line, reason, row, bytes) ? -1 : SET_ASIDE;
}

static int is_blank(const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (text[i] != ' ' && (text[i] < '\t' || text[i] > '\r')) return 0;
  return 1;
}

/* NULL when `text` can be used, otherwise the reason, in `reason`. */
static const char *fault_of(const sw_postings *p, const char *text, size_t bytes, char reason[160]) {
  if (bytes > p->max_text)
    snprintf(reason, 160, "the text is longer than %zu bytes", p->max_text);
  else if (is_blank(text, bytes))
    snprintf(reason, 160, "the text is empty");
  else if (sw_check_utf8(text, bytes))
    snprintf(reason, 160, "%s", sw_error());
  else
    return NULL;
  return reason;
}

static int row_number(const sw_postings *p, sw_buffer *out) {
  return sw_buffer_print(out, "%llu", (unsigned long long)p->index + 1);
}

/* NULL when `label` (white space around it is taken off) can be used, otherwise the reason. */
static const char *label_fault(sw_buffer *label) {
  size_t start = 0, end = label->size;
  while (start < end && is_blank(label->data + start, 1)) start++;
  while (end > start && is_blank(label->data + end - 1, 1)) end--;
  if (start == end) return "the label is empty";
  if (sw_check_utf8(label->data + start, end - start)) return "the label is not valid UTF-8";
  memmove(label->data, label->data + start, end - start);
  label->size = end - start;
  label->data[label->size] = 0;
  return NULL;
}

/* One more part of a text. */
static int add_part(sw_buffer *text, const char *part, size_t bytes) {
  return bytes && ((text->size && sw_buffer_append(text, "\n", 1)) || sw_buffer_append(text, part, bytes)) ? -1 : 0;
}

/* Takes the buffers over (label: may be NULL), whatever happens. */
static int give(sw_posting *out, sw_buffer *text, sw_buffer *id, sw_buffer *date, sw_buffer *label) {
  out->bytes = text->size;
  out->label = label && label->size ? sw_buffer_take(label) : NULL;
  out->text = sw_buffer_take(text);
  out->id = sw_buffer_take(id);
  out->date = sw_buffer_take(date);
  if (out->text && out->id && out->date) return ROW;
  sw_posting_close(out);
  return -1;
}

/* --- one posting a file --- */
static int next_text(sw_postings *p, sw_posting *out) {
  if (p->text_read) return 0;
  p->text_read = 1;
  if (strcmp(p->source->path, "-") && access(p->source->path, R_OK))
    return sw_fail("cannot open %s: %s", p->source->path, strerror(errno));
  sw_window w;
  if (sw_window_open(&w, p->source->path, 0)) return sw_error_is_memory() ? -1 : set_aside(p, 1, sw_error(), "", 0);
  int more = 1, result;
  while (more > 0 && w.end - w.start <= p->max_text) more = sw_window_fill(&w);
  const char *data = w.data + w.start;
  size_t bytes = w.end - w.start;
  char reason[160];
  if (more < 0) {
    result = sw_error_is_memory() ? -1 : set_aside(p, 1, sw_error(), data, bytes);
  } else if (fault_of(p, data, bytes, reason)) {
    result = set_aside(p, 1, reason, data, bytes);
  } else {
    sw_buffer text = {0}, id = {0}, date = {0};
    int standard_input = !strcmp(p->source->path, "-");
    result = sw_buffer_append(&text, data, bytes) ||
             (standard_input ? row_number(p, &id) : sw_buffer_print(&id, "%s", p->source->id)) ||
             sw_buffer_print(&date, "%s", p->source->date);
    const char *bad_name = !result && sw_check_utf8(id.data, id.size) ? "the file's name is not valid UTF-8" : NULL;
    if (result || bad_name) {
      result = bad_name ? set_aside(p, 1, bad_name, data, bytes) : -1;
      sw_buffer_close(&text), sw_buffer_close(&id), sw_buffer_close(&date);
    } else {
      result = give(out, &text, &id, &date, NULL);
    }
  }
  sw_window_close(&w);
  return result;
}

/* --- one text a line --- */
static int next_line(sw_postings *p, sw_posting *out) {
  const char *row;
  size_t bytes;
  uint64_t line;
  char reason[160];
  int status = sw_window_line(&p->lines, p->max_text, &row, &bytes, &line);
  if (status <= 0) return status;
  if (status == SW_ROW_LONG) {
    snprintf(reason, sizeof reason, "the line is longer than %zu bytes", p->max_text);
    return set_aside(p, line, reason, row, bytes);
  }
  if (fault_of(p, row, bytes, reason)) return set_aside(p, line, reason, row, bytes);
  sw_buffer text = {0}, id = {0}, date = {0};
  if (sw_buffer_append(&text, row, bytes) || row_number(p, &id) || sw_buffer_print(&date, "%s", p->source->date)) {
    sw_buffer_close(&text), sw_buffer_close(&id), sw_buffer_close(&date);
    return -1;
  }
  return give(out, &text, &id, &date, NULL);
}

/* The text or the id is not there: what was looked for, what there is, and how to choose. */
static int fail_missing(const sw_postings *p, const char *kind, const char *name, const char *names) {
  const int is_text = name != p->id_column && name != p->label_column;
  const char *option = is_text ? p->column_option : name == p->id_column ? p->id_option : "label";
  if (!p->column && is_text)
    return sw_fail("%s has no %s \"description\" or \"text\"; there are: %s. Choose the text's with --%s NAME", path_of(p), kind, names, option);
  return sw_fail("%s has no %s \"%s\"; there are: %s. Choose one with --%s NAME", path_of(p), kind, name, names, option);
}

/* --- CSV --- */
/* A column that was not asked for by name: large and small letters are the same. */
static int usual_column(const sw_csv *csv, const char *name) {
  int column = sw_csv_column(csv, name);
  for (size_t i = 0; i < csv->num_columns && column < 0; i++)
    if (!strcasecmp(csv->columns[i], name)) column = (int)i;
  return column;
}

static int open_csv(sw_postings *p) {
  sw_csv *csv = &p->csv;
  if (sw_csv_open(csv, p->source->path, 0, p->max_row)) return -1;
  const char *missing = NULL;
  p->num_text_columns = 1;
  if (p->column) {
    const int whole = sw_csv_column(csv, p->column), several = whole < 0 && p->num_parts;
    if (several) p->num_text_columns = p->num_parts;
    for (int i = 0; i < p->num_text_columns; i++) {
      p->text_columns[i] = several ? sw_csv_column(csv, p->parts[i]) : whole;
      if (p->text_columns[i] < 0 && !missing) missing = several ? p->parts[i] : p->column;
    }
  } else {
    p->text_columns[0] = usual_column(csv, "description");
    if (p->text_columns[0] < 0) p->text_columns[0] = usual_column(csv, "text");
    if (p->text_columns[0] < 0 && csv->num_columns == 1) p->text_columns[0] = 0;
    if (p->text_columns[0] < 0) missing = "description";
  }
  if (p->id_column) {
    if ((p->id_field = sw_csv_column(csv, p->id_column)) < 0 && !missing) missing = p->id_column;
  } else {
    p->id_field = usual_column(csv, "id");
    if (p->id_field < 0) p->id_field = usual_column(csv, "job_id");
    if (p->id_field == p->text_columns[0]) p->id_field = -1;
  }
  p->date_field = usual_column(csv, "date");
  p->label_field = p->label_column ? sw_csv_column(csv, p->label_column) : -1;
  if (p->label_column && p->label_field < 0 && !missing) missing = p->label_column;
  if (!missing) return 0;
  char *columns = sw_csv_column_list(csv);
  if (columns) fail_missing(p, "column", missing, columns);
  free(columns);
  sw_csv_close(csv);
  return -1;
}

static int next_csv(sw_postings *p, sw_posting *out) {
  uint64_t line;
  int status = sw_csv_next(&p->csv, p->rejects, &line);
  if (status != 1) return status;
  const sw_csv_field *fields = p->csv.fields;
  sw_buffer text = {0}, id = {0}, date = {0}, label = {0}, part = {0};
  char reason[160];
  const char *fault = NULL;
  int failed = sw_buffer_reserve(&text, fields[p->text_columns[0]].bytes) ||
               sw_csv_field_text(&fields[p->text_columns[0]], &text);
  for (int i = 1; i < p->num_text_columns && !failed; i++)
    failed = sw_csv_field_text(&fields[p->text_columns[i]], &part) || add_part(&text, part.data, part.size);
  sw_buffer_close(&part);
  failed = failed || (p->label_field >= 0 && sw_csv_field_text(&fields[p->label_field], &label)) ||
               (p->id_field >= 0 && sw_csv_field_text(&fields[p->id_field], &id)) ||
               (p->date_field >= 0 && sw_csv_field_text(&fields[p->date_field], &date)) ||
               (p->date_field < 0 && sw_buffer_print(&date, "%s", p->source->date)) || (!id.size && row_number(p, &id));
  if (!failed) {
    fault = fault_of(p, text.data, text.size, reason);
    if (!fault && p->label_column) fault = label_fault(&label);
    if (!fault && sw_check_utf8(id.data, id.size)) fault = "the id is not valid UTF-8";
    if (!fault && date.size && sw_check_utf8(date.data, date.size)) fault = "the date is not valid UTF-8";
  }
  if (!failed && !fault) return give(out, &text, &id, &date, &label);
  sw_buffer_close(&text), sw_buffer_close(&id), sw_buffer_close(&date), sw_buffer_close(&label);
  return failed ? -1 : set_aside(p, line, fault, p->csv.window.data + p->csv.window.start, p->csv.used);
}

/* --- JSON lines, or one array of objects --- */
static int open_jsonl(sw_postings *p) {
  sw_window w;
  if (sw_window_open(&w, p->source->path, 0)) return -1;
  p->objects = p->with_text = p->with_id = p->with_label = 0;
  return sw_rows_open(&p->rows, w, path_of(p), p->max_row);
}

/* The key of the text, which the row may lack. */
static const char *text_key(const sw_postings *p, const json_t *row) {
  if (p->column) return p->column;
  if (json_object_get(row, "description")) return "description";
  if (json_object_get(row, "text")) return "text";
  return json_object_size(row) == 1 ? json_object_iter_key(json_object_iter((json_t *)row)) : "description";
}

static const char *kind_of(const json_t *value) {
  static const char *const kinds[] = {[JSON_OBJECT] = "an object",  [JSON_ARRAY] = "a list", [JSON_STRING] = "a string",
                                      [JSON_INTEGER] = "a number",  [JSON_REAL] = "a number", [JSON_TRUE] = "true",
                                      [JSON_FALSE] = "false",       [JSON_NULL] = "null"};
  return kinds[json_typeof(value)];
}

static int note_keys(sw_postings *p, json_t *row) {
  sw_buffer keys = {0};
  const char *key;
  json_t *value;
  json_object_foreach(row, key, value) {
    int cut = keys.size > 300;
    if (cut ? sw_buffer_print(&keys, ", ...") : sw_buffer_print(&keys, "%s%.80s", keys.size ? ", " : "", key)) {
      sw_buffer_close(&keys);
      return -1;
    }
    if (cut) break;
  }
  return (p->first_keys = sw_buffer_take(&keys)) ? 0 : -1;
}

/* The text behind a key: 0, -1, or 1 with *fault. */
static int read_text(const json_t *value, const char *key, sw_buffer *text, char fault[160]) {
  if (!json_is_string(value))
    return snprintf(fault, 160, "\"%.80s\" is %s, a text in quotes was expected", key, kind_of(value)), 1;
  return add_part(text, json_string_value(value), json_string_length(value));
}

/* A string or a whole number. */
static int print_name(const json_t *value, sw_buffer *out) {
  if (json_is_integer(value)) return sw_buffer_print(out, "%lld", (long long)json_integer_value(value));
  return json_is_string(value) ? sw_buffer_append(out, json_string_value(value), json_string_length(value)) : 0;
}

/* Fills the buffers from a parsed row: 0, -1, or 1 with *fault. */
static int read_object(sw_postings *p, json_t *row, sw_buffer *text, sw_buffer *id, sw_buffer *date, sw_buffer *label, char fault[160]) {
  if (!json_is_object(row)) return snprintf(fault, 160, "the row is no JSON object"), 1;
  if (p->objects++ == 0 && note_keys(p, row)) return -1;
  const char *key = text_key(p, row);
  json_t *value = json_object_get(row, key);
  json_t *id_value = json_object_get(row, p->id_column ? p->id_column : "id");
  if (!id_value && !p->id_column) id_value = json_object_get(row, "job_id");
  if (id_value == value) id_value = NULL;
  json_t *label_value = p->label_column ? json_object_get(row, p->label_column) : NULL;
  p->with_id += id_value != NULL;
  p->with_label += label_value != NULL;
  int found = value != NULL, status = value ? read_text(value, key, text, fault) : 0;
  for (int i = 0; !value && i < p->num_parts && !status; i++) {
    const json_t *part = json_object_get(row, p->parts[i]);
    found |= part != NULL;
    if (part && !json_is_null(part)) status = read_text(part, p->parts[i], text, fault);
  }
  p->with_text += found != 0;
  if (status) return status;
  if (!found) return snprintf(fault, 160, "no key \"%.100s\"%s", key, p->column ? "" : " or \"text\""), 1;
  if (fault_of(p, text->data, text->size, fault)) return 1;
  if (p->id_column && !json_is_string(id_value) && !json_is_integer(id_value))
    return snprintf(fault, 160, "\"%.100s\" is no string or whole number", p->id_column), 1;
  if (label_value && !json_is_string(label_value) && !json_is_integer(label_value))
    return snprintf(fault, 160, "\"%.80s\" is %s, a label was expected", p->label_column, kind_of(label_value)), 1;
  const json_t *date_value = json_object_get(row, "date");
  if (print_name(id_value, id) || print_name(label_value, label) || (!id->size && row_number(p, id)) ||
      sw_buffer_print(date, "%s", json_is_string(date_value) ? json_string_value(date_value) : p->source->date))
    return -1;
  const char *no_label = p->label_column ? label_fault(label) : NULL;
  return no_label ? snprintf(fault, 160, "%s", no_label), 1 : 0;
}

static int next_jsonl(sw_postings *p, sw_posting *out) {
  const char *bytes_of_row;
  size_t bytes;
  uint64_t line;
  char fault[160] = "";
  int status = sw_rows_next(&p->rows, &bytes_of_row, &bytes, &line);
  if (status < 0) return -1;
  if (status == 0) {
    const char *missing = p->objects && !p->with_text                 ? (p->column ? p->column : "description")
                          : p->objects && p->id_column && !p->with_id ? p->id_column
                          : p->objects && p->label_column && !p->with_label ? p->label_column
                                                                      : NULL;
    return missing ? fail_missing(p, "row with the key", missing, p->first_keys) : 0;
  }
  if (status == SW_ROW_LONG) {
    snprintf(fault, sizeof fault, "the row is longer than %zu bytes", p->max_row);
    return set_aside(p, line, fault, bytes_of_row, bytes);
  }
  json_error_t error;
  json_t *row;
  if (sw_json_row(bytes_of_row, bytes, 0, &row, &error))
    return sw_fail_in("%s, line %llu", path_of(p), (unsigned long long)line);
  if (!row) {
    snprintf(fault, sizeof fault, "broken JSON: %.100s (byte %d)", error.text, error.position);
    return set_aside(p, line, fault, bytes_of_row, bytes);
  }
  sw_buffer text = {0}, id = {0}, date = {0}, label = {0};
  status = read_object(p, row, &text, &id, &date, &label, fault);
  json_decref(row);
  if (status == 0) return give(out, &text, &id, &date, &label);
  sw_buffer_close(&text), sw_buffer_close(&id), sw_buffer_close(&date), sw_buffer_close(&label);
  return status < 0 ? -1 : set_aside(p, line, fault, bytes_of_row, bytes);
}

/* --- all of them --- */
static int open_source(sw_postings *p) {
  p->source = &p->sources.items[p->next++];
  p->text_read = 0;
  switch (p->source->format) {
  case SW_POSTINGS_CSV:
    return open_csv(p);
  case SW_POSTINGS_JSONL:
    return open_jsonl(p);
  case SW_POSTINGS_LINES:
    return sw_window_open(&p->lines, p->source->path, 0);
  default: /* text: opened when it is read */
    return 0;
  }
}

static void close_source(sw_postings *p) {
  sw_csv_close(&p->csv);
  sw_rows_close(&p->rows);
  sw_window_close(&p->lines);
  free(p->first_keys);
  p->first_keys = NULL;
  p->source = NULL;
}

static void free_names(sw_postings *p) {
  for (int i = 0; i < p->num_parts; i++) free(p->parts[i]);
  free(p->column);
  free(p->id_column);
  free(p->label_column);
}

static int copy_names(sw_postings *p, const sw_postings_options *o) {
  if ((o->column && !(p->column = sw_strdup(o->column))) || (o->id_column && !(p->id_column = sw_strdup(o->id_column))) ||
      (o->label_column && !(p->label_column = sw_strdup(o->label_column))))
    return -1;
  for (const char *at = p->column; at && strchr(p->column, ',');) {
    const char *comma = strchr(at, ',');
    if (p->num_parts == MOST_COLUMNS) return sw_fail("--column names more than %d columns", MOST_COLUMNS);
    if (!(p->parts[p->num_parts] = sw_strndup(at, comma ? (size_t)(comma - at) : strlen(at)))) return -1;
    p->num_parts++;
    at = comma ? comma + 1 : NULL;
  }
  return 0;
}

static int check_labels(const sw_postings *p) {
  for (size_t i = 0; i < p->sources.count && p->label_column; i++)
    if (p->sources.items[i].format != SW_POSTINGS_CSV && p->sources.items[i].format != SW_POSTINGS_JSONL)
      return sw_fail("%s has no labels: a CSV, TSV or JSON lines file with a label in every row is wanted", p->sources.items[i].path);
  return 0;
}

int sw_postings_open(const char *const *inputs, size_t count, const sw_postings_options *options, sw_postings **out) {
  *out = NULL;
  sw_postings_options defaults = {0};
  if (!options) options = &defaults;
  sw_postings *p = sw_alloc(sizeof *p);
  if (!p) return -1;
  p->format = options->format;
  p->column_option = options->column_option ? options->column_option : "column";
  p->id_option = options->id_option ? options->id_option : "id-column";
  p->max_text = options->max_text_bytes ? options->max_text_bytes : SW_MAX_ROW_BYTES;
  /* a row may hold more than the text */
  p->max_row = p->max_text > SW_MAX_ROW_BYTES ? p->max_text + (1 << 20) : SW_MAX_ROW_BYTES;
  p->rejects = options->rejects ? options->rejects : &p->own;
  p->before = p->rejects->count;
  if (copy_names(p, options) || sw_rejects_open(&p->own, options->rejected_path) ||
      sw_sources_open(inputs, count, options->format, &p->sources) || check_labels(p)) {
    sw_sources_close(&p->sources);
    sw_rejects_close(&p->own);
    free_names(p);
    free(p);
    return -1;
  }
  *out = p;
  return 0;
}

static int keep_reason(sw_postings *p, uint64_t row) {
  sw_buffer text = {0};
  const int several = p->sources.count > 1;
  const uint64_t rejected = sw_postings_rejected(p);
  if (rejected > SW_REASONS) return 0;
  if (sw_buffer_print(&text, "row %llu%s%s%s: %s", (unsigned long long)row, several ? " (" : "", several ? path_of(p) : "",
                      several ? ")" : "", p->rejects->reason)) {
    sw_buffer_close(&text);
    return -1;
  }
  return (p->reasons[rejected - 1] = sw_buffer_take(&text)) ? 0 : -1;
}

static int fail_for_good(sw_postings *p) {
  snprintf(p->failure, sizeof p->failure, "%s", sw_error());
  return -1;
}

int sw_postings_open_texts(const char *const *texts, size_t count, sw_postings **out) {
  sw_postings *p = *out = sw_alloc(sizeof *p);
  if (!p) return -1;
  p->rejects = &p->own;
  p->texts = texts;
  p->num_texts = count;
  return 0;
}

static int next_given(sw_postings *p, sw_posting *out) {
  if (p->index == p->num_texts) return 0;
  const char *text = p->texts[p->index];
  *out = (sw_posting){.index = p->index++, .id = sw_strdup(""), .date = sw_strdup(""), .text = sw_strdup(text), .bytes = strlen(text)};
  if (out->id && out->date && out->text) return 1;
  sw_posting_close(out);
  return -1;
}

int sw_postings_next(sw_postings *p, sw_posting *out) {
  *out = (sw_posting){0};
  if (p->texts) return next_given(p, out);
  if (*p->failure) return sw_fail("%s", p->failure);
  for (;;) {
    if (!p->source) {
      if (p->next == p->sources.count) return 0;
      if (open_source(p)) return fail_for_good(p);
    }
    int status;
    switch (p->source->format) {
    case SW_POSTINGS_CSV:
      status = next_csv(p, out);
      break;
    case SW_POSTINGS_JSONL:
      status = next_jsonl(p, out);
      break;
    case SW_POSTINGS_LINES:
      status = next_line(p, out);
      break;
    default:
      status = next_text(p, out);
    }
    if (status < 0) return fail_for_good(p);
    if (status == 0) {
      p->done += p->source->bytes;
      close_source(p);
      continue;
    }
    out->index = p->index++;
    if (status == ROW) return 1;
    if (keep_reason(p, out->index + 1)) return fail_for_good(p);
  }
}

void sw_posting_close(sw_posting *posting) {
  free(posting->id);
  free(posting->date);
  free(posting->text);
  free(posting->label);
  *posting = (sw_posting){0};
}

uint64_t sw_postings_rows(const sw_postings *p) {
  return p->index;
}
uint64_t sw_postings_rejected(const sw_postings *p) {
  return p->rejects->count - p->before;
}
const char *sw_postings_reason(const sw_postings *p, size_t index) {
  return index < SW_REASONS ? p->reasons[index] : NULL;
}

void sw_postings_progress(const sw_postings *p, uint64_t *done, uint64_t *total) {
  const sw_byte_stream *open = p->csv.window.stream    ? p->csv.window.stream
                               : p->rows.window.stream ? p->rows.window.stream
                                                       : p->lines.stream;
  *done = p->texts ? p->index : p->done + (open ? sw_byte_stream_done(open) : 0);
  *total = p->texts ? p->num_texts : p->sources.bytes;
}

int sw_postings_close(sw_postings *p) {
  if (!p) return 0;
  close_source(p);
  int status = p->rejects == &p->own ? sw_rejects_commit(&p->own) : 0;
  sw_rejects_close(&p->own);
  sw_sources_close(&p->sources);
  for (size_t i = 0; i < SW_REASONS; i++) free(p->reasons[i]);
  free_names(p);
  free(p);
  return status;
}
