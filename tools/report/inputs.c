/* Tags, topics, occupations, checkpoints, labels: what a report counts. */
#include "tools/report/inputs.h"
#include "base/error.h"
#include "engine/data/csv.h"
#include "engine/data/rows.h"
#include "engine/model/lda.h"
#include "engine/store/family.h"
#include "engine/store/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int report_note(report *r, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  char **notes = sw_realloc_array(r->notes, r->num_notes + 1, sizeof *notes);
  if (!notes) return -1;
  r->notes = notes;
  return (notes[r->num_notes++] = sw_strdup(text)) ? 0 : -1;
}

/* --- rows of CSV and JSON lines --- */

static int ends_in(const char *path, const char *ending) {
  size_t n = strlen(path), m = strlen(ending);
  if (n > 3 && !strcmp(path + n - 3, ".gz")) n -= 3;
  else if (n > 4 && !strcmp(path + n - 4, ".zst")) n -= 4;
  return n > m && !strncmp(path + n - m, ending, m);
}

int report_is_table(const char *path) { return ends_in(path, ".csv") || ends_in(path, ".tsv"); }

static int set_aside(report *r, const char *path, uint64_t line, const char *why, const char *text, size_t bytes) {
  return sw_rejects_add(&r->rejects, path, line, why, text, bytes);
}

int report_each_json(report *r, const char *path, report_json_fn *use, void *context) {
  sw_window window;
  sw_rows rows;
  const char *text;
  size_t bytes;
  uint64_t line;
  if (sw_window_open(&window, path, 0) || sw_rows_open(&rows, window, path, 0)) return -1;
  int more, status = 0;
  while (!status && (more = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    json_error_t error;
    json_t *row = NULL;
    const char *why = "the row is too long";
    if (more == SW_ROW) status = sw_json_row(text, bytes, 0, &row, &error), why = error.text;
    if (!status && row && !json_is_object(row)) json_decref(row), row = NULL, why = "the row is no JSON object";
    if (!status) status = row ? use(r, context, row, &why) : 1;
    if (status > 0) status = set_aside(r, path, line, why, text, bytes);
    json_decref(row);
  }
  sw_rows_close(&rows);
  return status || more < 0 ? -1 : 0;
}

int report_each_csv(report *r, const char *path, const char *const *columns, int count, int required, report_csv_fn *use, void *context) {
  sw_csv csv;
  int at[REPORT_COLUMNS], status = 0, more = 0;
  sw_buffer values[REPORT_COLUMNS] = {{0}};
  if (sw_csv_open(&csv, path, 0, 0)) return -1;
  for (int i = 0; i < count && !status; i++) {
    at[i] = sw_csv_column(&csv, columns[i]);
    if (at[i] >= 0 || i >= required) continue;
    char *has = sw_csv_column_list(&csv);
    if (has) status = sw_fail("%s has no column '%s'; its columns are: %s", path, columns[i], has);
    else status = -1;
    free(has);
  }
  uint64_t line;
  while (!status && (more = sw_csv_next(&csv, &r->rejects, &line)) > 0) {
    const char *texts[REPORT_COLUMNS] = {NULL}, *why = NULL;
    if (more == 2) continue;
    for (int i = 0; i < count && !status; i++) {
      if (at[i] < 0) continue;
      status = sw_csv_field_text(&csv.fields[at[i]], &values[i]);
      texts[i] = values[i].data ? values[i].data : "";
      if (!status && memchr(texts[i], 0, values[i].size)) status = 1, why = "the row holds a NUL";
    }
    if (!status) status = use(r, context, texts, &why);
    if (status > 0) status = set_aside(r, path, line, why, csv.fields[0].data, csv.fields[0].bytes);
  }
  for (int i = 0; i < count; i++) sw_buffer_close(&values[i]);
  sw_csv_close(&csv);
  return status || more < 0 ? -1 : 0;
}

const char *report_text(const json_t *row, const char *key) {
  const char *text = json_string_value(json_object_get(row, key));
  return text ? text : "";
}

/* --- tags --- */

int report_read_tags(report *r) {
  const report_options *o = r->o;
  if (!o->tags.count) return 0;
  sw_skill_counts *c = &r->counts;
  c->by_layer = c->known_postings = 1;
  if (sw_skill_counts_open(c)) return -1;
  for (int i = 0; i < o->tags.count; i++)
    if (sw_skill_counts_read(c, o->tags.items[i], &r->rejects)) return -1;
  if (!c->postings)
    return c->rejected ? sw_fail("%s: none of %ld line%s is a tagged posting (%s)", o->tags.items[0], c->rejected, SW_S(c->rejected), r->rejects.reason)
                       : sw_fail("%s is empty: no posting was tagged; skillwatch infer tag -m CKPT POSTINGS -o tags.jsonl writes one", o->tags.items[0]);
  if (c->rejected &&
      report_note(r, "%ld line%s of the tags could not be used and %s set aside (rejected.jsonl has the reason).", c->rejected, SW_S(c->rejected), c->rejected == 1 ? "was" : "were"))
    return -1;
  if (c->any_linked)
    return report_note(r, "%ld of %ld tagged spans are linked to a taxonomy's skills, which count once; the others count by their normalised words.", c->linked, c->spans);
  return 0;
}

/* --- topics --- */

static int read_topic_words(report *r) {
  enum { WORDS = 10 };
  sw_checkpoint c;
  sw_lda_shape shape;
  const float *lambda;
  int32_t top[WORDS];
  if (sw_checkpoint_read(r->o->topics, &c)) return -1;
  int status = sw_lda_of_checkpoint(&c, r->o->topics, &shape, &lambda);
  const size_t count = status || shape.words >= WORDS ? WORDS : (size_t)shape.words;
  if (!status && !(r->topic_words = sw_alloc_array((size_t)shape.topics, sizeof *r->topic_words))) status = -1;
  if (!status) r->num_topics = shape.topics;
  for (int k = 0; k < r->num_topics && !status; k++) {
    sw_buffer words = {0};
    status = sw_lda_top_words(&shape, lambda, k, count, top);
    for (size_t i = 0; i < count && !status; i++) status = sw_buffer_print(&words, "%s%s", i ? " " : "", c.vocab[top[i] + 1]);
    if (!status && !(r->topic_words[k] = sw_buffer_take(&words))) status = -1;
    sw_buffer_close(&words);
  }
  sw_checkpoint_close(&c);
  return status;
}

static int use_topics(report *r, void *context, const json_t *row, const char **why) {
  const json_t *topics = json_object_get(row, "topics"), *topic;
  size_t i;
  *why = "no topics of a document: give the JSON lines of skillwatch infer topics";
  if (!json_is_array(topics)) return 1;
  json_array_foreach(topics, i, topic) {
    const json_int_t k = json_integer_value(json_object_get(topic, "topic"));
    const double p = json_number_value(json_object_get(topic, "probability"));
    *why = "a topic's number or probability is out of range: are these documents of another model?";
    if (k < 1 || k > r->num_topics || !(p >= 0 && p <= 1 + 1e-6)) return 1;
  }
  const int week = report_week_of(report_text(row, "date"));
  double *by_week = week == NO_WEEK ? NULL : report_weekly_at(&r->topic_weeks, week);
  if (!by_week && week != NO_WEEK) return -1;
  json_array_foreach(topics, i, topic) {
    const size_t k = (size_t)json_integer_value(json_object_get(topic, "topic")) - 1;
    const double p = json_number_value(json_object_get(topic, "probability"));
    r->topic_sums[k] += p;
    if (by_week) by_week[k] += p;
  }
  r->topic_sums[r->num_topics]++;
  if (by_week) by_week[r->num_topics]++;
  return 0;
}

int report_read_topics(report *r) {
  const char *documents = r->o->document_topics;
  if (!r->o->topics) return 0;
  if (read_topic_words(r)) return -1;
  r->topic_weeks.columns = r->num_topics + 1;
  if (!(r->topic_sums = sw_alloc_array((size_t)r->num_topics + 1, sizeof *r->topic_sums))) return -1;
  if (!documents) return 0;
  if (report_each_json(r, documents, use_topics, NULL)) return -1;
  if (r->topic_sums[r->num_topics] > 0) return 0;
  return sw_fail("%s holds no document's topics of %s: give the JSON lines of skillwatch infer topics", documents, r->o->topics);
}

/* --- occupations --- */

typedef struct {
  sw_table labels, postings; /* a posting: its date and id */
  size_t room;
} occupation_table;

/* 1: of this posting an occupation was counted before; one without an id is another each time. */
static int was_counted(occupation_table *t, const char *id, const char *date) {
  sw_buffer key = {0};
  const size_t before = t->postings.count;
  if (!*id) return 0;
  const int failed = sw_buffer_print(&key, "%s\n%s", date, id) || sw_table_add(&t->postings, key.data) < 0;
  sw_buffer_close(&key);
  return failed ? -1 : t->postings.count == before;
}

static int count_occupation(report *r, occupation_table *t, const char *label) {
  char *tidy = sw_tidy_text(label, 0);
  const int64_t at = tidy ? sw_table_add(&t->labels, tidy) : -1;
  free(tidy);
  if (at < 0) return -1;
  if ((size_t)at >= t->room) {
    const size_t room = t->room ? 2 * t->room : 256;
    report_count *counts = sw_realloc_array(r->occupations, room, sizeof *counts);
    if (!counts) return -1;
    r->occupations = counts, t->room = room;
  }
  if ((size_t)at == r->num_occupations) {
    r->occupations[r->num_occupations] = (report_count){sw_strdup(t->labels.keys[at]), 0};
    if (!r->occupations[r->num_occupations++].label) return -1;
  }
  r->occupations[at].count++;
  r->occupied++;
  return 0;
}

static int use_occupation_csv(report *r, void *context, const char *const *values, const char **why) {
  *why = "the row has no label";
  if (values[1] && strcmp(values[1], "1")) return 0; /* the best one counts */
  if (!values[0][0]) return 1;
  const int again = was_counted(context, values[2] ? values[2] : "", values[3] ? values[3] : "");
  *why = "an occupation of this posting was read before";
  if (again) return again > 0 && !values[1] ? 0 : again; /* without ranks the first row of a posting is the best */
  return count_occupation(r, context, values[0]);
}

static int use_occupation_json(report *r, void *context, const json_t *row, const char **why) {
  const json_t *labels = json_object_get(row, "labels");
  const char *label = json_string_value(json_object_get(json_array_get(labels, 0), "label"));
  *why = "no occupations of a posting: give what skillwatch infer classify writes";
  if (!json_is_array(labels)) return 1;
  if (!label) return 0;
  *why = "an occupation of this posting was read before";
  const int again = was_counted(context, report_text(row, "id"), report_text(row, "date"));
  return again ? again : count_occupation(r, context, label);
}

static int by_count(const void *a, const void *b) {
  const report_count *x = a, *y = b;
  return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : strcmp(x->label, y->label);
}

int report_read_occupations(report *r) {
  static const char *const columns[] = {"label", "rank", "id", "date"};
  const char *path = r->o->occupations;
  occupation_table t = {0};
  if (!path) return 0;
  int status = report_is_table(path) ? report_each_csv(r, path, columns, 4, 1, use_occupation_csv, &t) : report_each_json(r, path, use_occupation_json, &t);
  sw_table_close(&t.labels);
  sw_table_close(&t.postings);
  if (!status && !r->occupied) status = sw_fail("%s holds no occupation: give what skillwatch infer classify writes", path);
  if (!status) qsort(r->occupations, r->num_occupations, sizeof *r->occupations, by_count);
  return status;
}

/* --- model quality --- */

static int by_created(const void *a, const void *b) {
  const report_quality *x = a, *y = b;
  const int order = strcmp(x->created, y->created);
  return order ? order : strcmp(x->hash, y->hash);
}

int report_read_quality(report *r) {
  const sw_list *paths = &r->o->checkpoints;
  sw_family family = {0};
  int status = 0;
  for (int i = 0; i < paths->count && !status; i++) {
    sw_checkpoint c;
    if (sw_checkpoint_read(paths->items[i], &c)) {
      status = -1;
      break;
    }
    status = sw_family_add(&family, &c, paths->items[i]);
    sw_checkpoint_close(&c);
  }
  if (!status && family.count && (!(r->family = json_array()) || !(r->quality = sw_alloc_array((size_t)family.count, sizeof *r->quality)))) status = -1;
  for (int i = 0; i < family.count && !status; i++) {
    json_t *entry = family.members[i].entry;
    sw_family_score scores[SW_FAMILY_SCORES];
    const int count = sw_family_scores(json_object_get(entry, "metrics"), scores);
    if (json_array_append(r->family, entry)) {
      status = sw_fail("out of memory");
      break;
    }
    const char *path = json_string_value(json_array_get(json_object_get(entry, "paths"), 0));
    report_quality *q = &r->quality[r->num_quality++];
    *q = (report_quality){report_text(entry, "content_sha256"), report_text(entry, "parent_sha256"), report_text(entry, "kind"), report_text(entry, "created"),
                          path ? path : "", report_text(json_array_get(json_object_get(entry, "data"), 0), "file"), {NULL}, {0}};
    for (int k = 0; k < count; k++) q->names[k] = scores[k].name, q->scores[k] = scores[k].value;
  }
  if (!status && r->num_quality) qsort(r->quality, r->num_quality, sizeof *r->quality, by_created);
  sw_family_close(&family);
  return status;
}

/* --- labels --- */

static int add_labels(report *r, int week, const double values[LABEL_COLUMNS]) {
  double *sums = week == NO_WEEK ? NULL : report_weekly_at(&r->labels, week);
  if (!sums && week != NO_WEEK) return -1;
  for (int i = 0; i < LABEL_COLUMNS; i++) {
    r->label_sums[i] += values[i];
    if (sums) sums[i] += values[i];
  }
  return 0;
}

/* "05-01-2026/3#2": the sentence's posting lies in a dated folder. */
static int week_of_source(const char *source) {
  char date[16] = "";
  const size_t bytes = strcspn(source, "/#");
  if (bytes < sizeof date) memcpy(date, source, bytes);
  return report_week_of(date);
}

/* Spans of a labelled row in any form; -1 where it is none. */
static double spans_of(const json_t *row) {
  const json_t *list = json_object_get(row, "spans"), *value, *tag;
  const char *key;
  size_t i;
  if (!list) list = json_object_get(row, "label");
  if (json_is_array(list)) return (double)json_array_size(list);
  if (!json_is_array(json_object_get(row, "tokens"))) return -1;
  double spans = 0;
  json_object_foreach((json_t *)row, key, value) {
    if (strncmp(key, "tags", 4)) continue;
    json_array_foreach(value, i, tag) spans += json_is_string(tag) && json_string_value(tag)[0] == 'B';
  }
  return spans;
}

static int use_labels(report *r, void *used, const json_t *row, const char **why) {
  double values[LABEL_COLUMNS] = {0};
  if (json_is_number(json_object_get(row, "cost"))) { /* of skillwatch label --json */
    values[BILL_COST] = json_number_value(json_object_get(row, "cost"));
    values[BILL_TOKENS_IN] = json_number_value(json_object_get(row, "tokens_in"));
    values[BILL_TOKENS_OUT] = json_number_value(json_object_get(row, "tokens_out"));
    *why = "a bill with a cost or a number of tokens that is below 0 or beyond all bounds";
    for (int i = BILL_TOKENS_IN; i <= BILL_COST; i++)
      if (!(values[i] >= 0 && isfinite(r->label_sums[i] + values[i]))) return 1;
    ++*(uint64_t *)used;
    return add_labels(r, report_week_of(report_text(row, "date")), values);
  }
  *why = "neither a labelled sentence nor a bill: give what skillwatch label wrote, or what its --json printed";
  values[LABELLED] = 1, values[LABEL_SPANS] = spans_of(row);
  if (values[LABEL_SPANS] < 0) return 1;
  ++*(uint64_t *)used;
  return add_labels(r, week_of_source(report_text(row, "source")), values);
}

int report_read_labels(report *r) {
  const sw_list *paths = &r->o->labels;
  r->labels.columns = LABEL_COLUMNS;
  for (int i = 0; i < paths->count; i++) {
    const uint64_t rejected = r->rejects.count;
    uint64_t used = 0;
    if (report_each_json(r, paths->items[i], use_labels, &used)) return -1;
    if (!used && r->rejects.count > rejected)
      return sw_fail("%s holds no labelled sentence and no bill: give what skillwatch label wrote, or what its --json printed", paths->items[i]);
  }
  return 0;
}

void report_close(report *r) {
  sw_skill_counts_close(&r->counts);
  sw_rejects_close(&r->rejects);
  for (size_t i = 0; i < r->num_notes; i++) free(r->notes[i]);
  for (size_t i = 0; i < r->ids.count && r->points; i++) free(r->points[i].title);
  for (int k = 0; k < r->num_topics && r->topic_words; k++) free(r->topic_words[k]);
  for (size_t i = 0; i < r->num_occupations; i++) free(r->occupations[i].label);
  for (int i = 0; i < 2; i++) free(r->maps[i].at), free(r->maps[i].id);
  sw_table_close(&r->ids);
  sw_table_close(&r->clusters);
  free(r->notes), free(r->postings), free(r->named), free(r->skills), free(r->points), free(r->cluster_sizes);
  free(r->topic_words), free(r->topic_weeks.weeks), free(r->topic_weeks.values), free(r->topic_sums), free(r->occupations);
  free(r->quality), free(r->labels.weeks), free(r->labels.values);
  json_decref(r->family);
}
