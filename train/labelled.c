#include "train/labelled.h"
#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/sha256.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_HOLDOUT = 3 };

/* --- rows --- */

void sw_labelled_close(sw_labelled *s) {
  sw_table_close(&s->names);
  free(s->values);
  free(s->labels);
  json_decref(s->files);
}

int sw_labelled_add(sw_labelled *s, const char *label, const void *value) {
  if (s->rows == s->capacity) {
    const size_t larger = s->capacity ? 2 * s->capacity : 1024;
    char *values = sw_realloc_array(s->values, larger, s->row_bytes);
    if (!values) return -1;
    s->values = values;
    int32_t *labels = sw_realloc_array(s->labels, larger, sizeof *labels);
    if (!labels) return -1;
    s->labels = labels;
    s->capacity = larger;
  }
  const int64_t number = sw_table_add(&s->names, label);
  if (number < 0) return -1;
  memcpy(sw_labelled_value(s, s->rows), value, s->row_bytes);
  s->labels[s->rows++] = (int32_t)number;
  return 0;
}

int sw_labelled_read(sw_labelled *s, const char *path, const sw_postings_options *options, const char *rejected, int quiet,
                     int (*take)(void *context, sw_postings *postings, sw_labelled *set), void *context, json_t **entry) {
  sw_postings_options reading = *options;
  char sha256[65];
  sw_postings *postings;
  const size_t before = s->rows;
  reading.rejected_path = rejected;
  if (!s->files && !(s->files = json_array())) return sw_fail("out of memory");
  if (sw_is_folder(path)) return sw_fail("%s is a folder, a file of labelled texts was expected", path);
  if (sw_sha256_file(path, sha256) || sw_postings_open(&path, 1, &reading, &postings)) return -1;
  int status = take(context, postings, s);
  const uint64_t set_aside = sw_postings_rejected(postings);
  const char *reason = sw_postings_reason(postings, 0);
  if (!status && s->rows == before) status = sw_fail("%s: no row can be used%s%s", path, reason ? ": " : "", reason ? reason : "");
  if (!status && set_aside && !quiet)
    fprintf(stderr, "%s: %llu unusable row%s %s%s (%s)\n", path, (unsigned long long)set_aside, SW_S(set_aside),
            rejected ? "set aside in " : "left out", rejected ? rejected : "", reason);
  json_t *file = json_pack("{s:s, s:s, s:I, s:I}", "file", path, "sha256", sha256, "rows", (json_int_t)(s->rows - before + set_aside), "rejected",
                           (json_int_t)set_aside);
  if (entry) *entry = file;
  if (json_array_append_new(s->files, file) && !status) status = sw_fail("%s: the name is not valid UTF-8", path);
  if (!status) return sw_postings_close(postings);
  char *message = sw_strdup(sw_error()); /* closing may fail too, which matters less */
  sw_postings_close(postings);
  if (message) sw_fail("%s", message);
  free(message);
  return -1;
}

/* --- classes --- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int sw_labelled_sort(sw_labelled *s) {
  const size_t count = s->names.count;
  char **order = sw_alloc_array(count, sizeof *order);
  sw_table sorted = {0};
  int status = order ? 0 : -1;
  if (!status) memcpy(order, s->names.keys, count * sizeof *order);
  if (!status) qsort(order, count, sizeof *order, by_name);
  for (size_t i = 0; i < count && !status; i++) status = sw_table_add(&sorted, order[i]) < 0 ? -1 : 0;
  free(order);
  if (status) {
    sw_table_close(&sorted);
    return -1;
  }
  for (size_t i = 0; i < s->rows; i++) s->labels[i] = (int32_t)sw_table_find(&sorted, s->names.keys[s->labels[i]]);
  sw_table_close(&s->names);
  s->names = sorted;
  return 0;
}

size_t sw_labelled_adopt(const sw_labelled *train, sw_labelled *dev) {
  const size_t rows = dev->rows;
  dev->rows = 0;
  for (size_t i = 0; i < rows; i++) {
    const int64_t found = sw_table_find(&train->names, dev->names.keys[dev->labels[i]]);
    if (found < 0) continue;
    memmove(sw_labelled_value(dev, dev->rows), sw_labelled_value(dev, i), dev->row_bytes);
    dev->labels[dev->rows++] = (int32_t)found;
  }
  return rows - dev->rows;
}

int sw_labelled_hold_out(sw_labelled *train, sw_labelled *dev, double part, int seed) {
  const size_t rows = train->rows, wanted = (size_t)llround(part * (double)rows);
  sw_random random = {.seed = (uint64_t)seed, .stream = (uint64_t)STREAM_HOLDOUT << 32};
  size_t *order = sw_alloc_array(rows, sizeof *order), *left = sw_alloc_array(train->names.count, sizeof *left), kept = 0;
  char *held = sw_alloc(rows);
  int status = order && left && held ? 0 : -1;
  for (size_t i = 0; i < rows && !status; i++) {
    order[i] = i;
    left[train->labels[i]]++;
  }
  for (size_t i = rows; i > 1 && !status; i--) { /* Fisher, Yates */
    const size_t other = sw_random_below(&random, (uint32_t)i), moved = order[i - 1];
    order[i - 1] = order[other];
    order[other] = moved;
  }
  for (size_t i = 0, taken = 0; i < rows && taken < wanted && !status; i++)
    if (left[train->labels[order[i]]] > 1) {
      left[train->labels[order[i]]]--;
      held[order[i]] = 1;
      taken++;
    }
  for (size_t i = 0; i < rows && !status; i++) {
    if (held[i]) {
      status = sw_labelled_add(dev, train->names.keys[train->labels[i]], sw_labelled_value(train, i));
    } else {
      memmove(sw_labelled_value(train, kept), sw_labelled_value(train, i), train->row_bytes);
      train->labels[kept++] = train->labels[i];
    }
  }
  if (!status) train->rows = kept;
  free(order);
  free(left);
  free(held);
  return status;
}

/* --- scores --- */

int sw_class_scores_open(sw_class_scores *s, const sw_labelled *set, size_t classes, int k) {
  *s = (sw_class_scores){.set = set, .classes = classes, .cuts = {1, 3, 5, 10, (uint32_t)k}, .num_cuts = k == 1 || k == 3 || k == 5 || k == 10 ? 4 : 5,
                         .found = sw_alloc_array(2 * set->rows, sizeof *s->found)};
  return s->found ? 0 : -1;
}

void sw_class_scores_close(sw_class_scores *s) { free(s->found); }

void sw_class_scores_add(sw_class_scores *s, size_t row, const float *values) {
  uint32_t best;
  sw_rank_best(values, s->classes, 1, &best);
  s->found[2 * row] = (double)sw_rank_of(values, s->classes, (size_t)s->set->labels[row]);
  s->found[2 * row + 1] = best;
}

int sw_class_scores_share(sw_class_scores *s, sw_group *group) { return sw_group_sum(group, s->found, 2 * s->set->rows); }

int sw_class_scores_json(sw_class_scores *s, json_t *metrics, char *line) {
  const size_t rows = s->set->rows;
  double f1;
  int at = 0, failed = 0;
  sw_ranking ranking;
  int32_t *predicted = sw_alloc_array(rows, sizeof *predicted);
  if (!predicted) return -1;
  sw_ranking_open(&ranking, s->cuts, s->num_cuts);
  for (size_t row = 0; row < rows; row++) {
    const uint64_t rank = (uint64_t)s->found[2 * row];
    sw_ranking_add(&ranking, &rank, 1, 1);
    predicted[row] = (int32_t)s->found[2 * row + 1];
  }
  const int status = sw_macro_f1(s->set->labels, predicted, rows, s->classes, &f1);
  free(predicted);
  if (status) return -1;
  for (int i = 0; i < s->num_cuts; i++) {
    char name[32];
    snprintf(name, sizeof name, "accuracy@%u", s->cuts[i]);
    const double value = sw_ranking_mean(&ranking, SW_ACCURACY_AT, i);
    failed |= json_object_set_new(metrics, name, json_real(value));
    at += snprintf(line + at, 200 - (size_t)at, "%s %.4f  ", name, value);
  }
  snprintf(line + at, 200 - (size_t)at, "MRR %.4f  macro F1 %.4f", sw_ranking_mrr(&ranking), f1);
  failed |= json_object_set_new(metrics, "mrr", json_real(sw_ranking_mrr(&ranking))) || json_object_set_new(metrics, "macro_f1", json_real(f1)) ||
            json_object_set_new(metrics, "rows", json_integer((json_int_t)s->set->rows));
  return failed ? sw_fail("out of memory") : 0;
}
