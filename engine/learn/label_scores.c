#include "engine/learn/label_scores.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double ratio(uint64_t part, uint64_t whole) { return whole ? (double)part / (double)whole : 0; }
static uint64_t rows_of(sw_label_counts c) { return c.true_positive + c.false_positive + c.false_negative + c.true_negative; }
static double accuracy_of(sw_label_counts c) { return ratio(c.true_positive + c.true_negative, rows_of(c)); }
static double precision_of(sw_label_counts c) { return ratio(c.true_positive, c.true_positive + c.false_positive); }
static double recall_of(sw_label_counts c) { return ratio(c.true_positive, c.true_positive + c.false_negative); }
static double f1_of(sw_label_counts c) { return ratio(2 * c.true_positive, 2 * c.true_positive + c.false_positive + c.false_negative); }

float sw_label_probability(float logit) { return (float)(1 / (1 + exp(-(double)logit))); }

void sw_label_count(const uint8_t *targets, const float *probabilities, const float *thresholds, size_t rows, size_t labels,
                    sw_label_counts *counts) {
  memset(counts, 0, labels * sizeof *counts);
  for (size_t i = 0; i < rows; i++)
    for (size_t k = 0; k < labels; k++) {
      const int wanted = targets[i * labels + k], found = probabilities[i * labels + k] >= thresholds[k];
      ++*(wanted ? (found ? &counts[k].true_positive : &counts[k].false_negative)
                 : (found ? &counts[k].false_positive : &counts[k].true_negative));
    }
}

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int sw_label_scores_of(const sw_label_counts *counts, size_t labels, sw_label_scores *out) {
  double *accuracies = sw_alloc_array(labels, sizeof *accuracies);
  sw_label_counts all = {0};
  *out = (sw_label_scores){0};
  if (!accuracies) return -1;
  for (size_t k = 0; k < labels; k++) {
    accuracies[k] = accuracy_of(counts[k]);
    out->mean_accuracy += accuracies[k] / (double)labels;
    out->macro_f1 += f1_of(counts[k]) / (double)labels;
    all.true_positive += counts[k].true_positive;
    all.false_positive += counts[k].false_positive;
    all.false_negative += counts[k].false_negative;
  }
  qsort(accuracies, labels, sizeof *accuracies, compare_doubles);
  out->median_accuracy = (accuracies[(labels - 1) / 2] + accuracies[labels / 2]) / 2;
  out->micro_precision = precision_of(all);
  out->micro_recall = recall_of(all);
  out->micro_f1 = f1_of(all);
  free(accuracies);
  return 0;
}

json_t *sw_label_scores_json(const sw_label_scores *s, const sw_label_counts *counts, char *const *names, const float *thresholds,
                             size_t labels) {
  json_t *each = json_object();
  for (size_t k = 0; k < labels && each; k++) {
    const sw_label_counts c = counts[k];
    json_t *label = json_pack("{s:f, s:f, s:f, s:f, s:I, s:f}", "accuracy", accuracy_of(c), "precision", precision_of(c), "recall", recall_of(c),
                              "f1", f1_of(c), "support", (json_int_t)(c.true_positive + c.false_negative), "threshold", (double)thresholds[k]);
    if (json_object_set_new(each, names[k], label)) {
      json_decref(each);
      each = NULL;
    }
  }
  json_t *all = json_pack("{s:f, s:f, s:{s:f, s:f, s:f}, s:{s:f}, s:I, s:o}", "median_accuracy", s->median_accuracy, "mean_accuracy",
                          s->mean_accuracy, "micro", "precision", s->micro_precision, "recall", s->micro_recall, "f1", s->micro_f1, "macro", "f1",
                          s->macro_f1, "rows", (json_int_t)(labels ? rows_of(counts[0]) : 0), "per_label", each);
  if (!all) sw_fail("the scores could not be written as JSON (a name that is not UTF-8, or out of memory)");
  return all;
}

typedef struct {
  const char *name;
  const json_t *scores;
} line;
static double number(const json_t *scores, const char *key) { return json_number_value(json_object_get(scores, key)); }
static int by_accuracy(const void *a, const void *b) {
  const line *x = a, *y = b;
  const double p = number(x->scores, "accuracy"), q = number(y->scores, "accuracy");
  return p != q ? (p > q) - (p < q) : strcmp(x->name, y->name);
}

int sw_label_scores_print(const json_t *metrics, FILE *to) {
  json_t *each = json_object_get(metrics, "per_label"), *scores;
  const char *name;
  size_t count = 0;
  line *lines = sw_alloc_array(json_object_size(each), sizeof *lines);
  if (!lines) return -1;
  json_object_foreach(each, name, scores) lines[count++] = (line){name, scores};
  qsort(lines, count, sizeof *lines, by_accuracy);
  fprintf(to, "accuracy  precision  recall      F1  support  threshold  label\n");
  for (size_t i = 0; i < count; i++)
    fprintf(to, "%8.4f  %9.4f  %6.4f  %6.4f  %7lld  %9.4f  %s\n", number(lines[i].scores, "accuracy"), number(lines[i].scores, "precision"),
            number(lines[i].scores, "recall"), number(lines[i].scores, "f1"), (long long)number(lines[i].scores, "support"),
            number(lines[i].scores, "threshold"), lines[i].name);
  free(lines);
  return 0;
}

/* --- thresholds --- */

typedef struct {
  float probability;
  uint8_t wanted;
} row;
static int by_probability(const void *a, const void *b) { /* the most probable first */
  const float x = ((const row *)a)->probability, y = ((const row *)b)->probability;
  return (x < y) - (x > y);
}

/* The best threshold for rows sorted by probability. */
static float best_threshold(const row *rows, size_t count, uint64_t positives) {
  double best = -1;
  float threshold = 0.5f;
  uint64_t found = 0;
  for (size_t i = 0; i < count && positives; i++) {
    found += rows[i].wanted;
    if (i + 1 < count && rows[i + 1].probability == rows[i].probability) continue;
    const float below = i + 1 < count ? rows[i + 1].probability : 0, between = (rows[i].probability + below) / 2;
    const float candidate = between > below ? between : rows[i].probability; /* neighbouring floats have nothing between */
    const double f1 = 2 * (double)found / (double)(positives + i + 1);
    if (f1 > best || (f1 == best && fabsf(candidate - 0.5f) < fabsf(threshold - 0.5f))) {
      best = f1;
      threshold = candidate;
    }
  }
  return threshold;
}

int sw_label_thresholds(const uint8_t *targets, const float *probabilities, size_t rows, size_t labels, float *thresholds) {
  row *sorted = sw_alloc_array(rows, sizeof *sorted);
  if (!sorted) return -1;
  for (size_t k = 0; k < labels; k++) {
    uint64_t positives = 0;
    for (size_t i = 0; i < rows; i++) {
      sorted[i] = (row){probabilities[i * labels + k], targets[i * labels + k]};
      positives += targets[i * labels + k];
    }
    qsort(sorted, rows, sizeof *sorted, by_probability);
    thresholds[k] = best_threshold(sorted, rows, positives);
  }
  free(sorted);
  return 0;
}
