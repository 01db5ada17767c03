#include "engine/learn/label_reduction.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {[SW_PEARSON] = "pearson", [SW_SPEARMAN] = "spearman", [SW_CRAMER] = "cramer"};

int sw_association_parse(const char *text, sw_association *kind, double *threshold) {
  const char *colon = strchr(text, ':');
  char *end = NULL;
  int known = 0;
  for (int k = 0; k < 3 && colon; k++)
    if (!strncmp(text, names[k], (size_t)(colon - text)) && !names[k][colon - text]) *kind = (sw_association)k, known = 1;
  if (known) *threshold = strtod(colon + 1, &end);
  return known && colon[1] && !*end && *threshold > 0 && *threshold <= 1
             ? 0
             : sw_fail("--reduce %s: pearson:X, spearman:X or cramer:X was expected, X above 0 and at most 1", text);
}

/* Pearson's correlation of x and y, which take the values x[0], x[1] and y[0], y[1]; counts[2 i + j]: how often x[i] meets y[j] */
static double correlation(const uint64_t counts[4], const double x[2], const double y[2]) {
  double n = 0, mean_x = 0, mean_y = 0, xy = 0, xx = 0, yy = 0;
  for (int i = 0; i < 4; i++) {
    n += (double)counts[i];
    mean_x += (double)counts[i] * x[i / 2];
    mean_y += (double)counts[i] * y[i % 2];
  }
  mean_x /= n;
  mean_y /= n;
  for (int i = 0; i < 4; i++) {
    const double dx = x[i / 2] - mean_x, dy = y[i % 2] - mean_y;
    xy += (double)counts[i] * dx * dy;
    xx += (double)counts[i] * dx * dx;
    yy += (double)counts[i] * dy * dy;
  }
  return xy / (sqrt(xx) * sqrt(yy));
}

static double cramers_v(const uint64_t counts[4]) {
  const double n = (double)(counts[0] + counts[1] + counts[2] + counts[3]);
  double chi = 0;
  for (int i = 0; i < 4; i++) {
    const double row = (double)(counts[i & 2] + counts[(i & 2) + 1]), column = (double)(counts[i & 1] + counts[(i & 1) + 2]);
    const double expected = row * column / n, difference = (double)counts[i] - expected;
    chi += difference * difference / expected;
  }
  return sqrt(chi / n);
}

double sw_association_of(sw_association kind, const uint64_t counts[4]) {
  const double zeros_a = (double)(counts[0] + counts[1]), ones_a = (double)(counts[2] + counts[3]);
  const double zeros_b = (double)(counts[0] + counts[2]), ones_b = (double)(counts[1] + counts[3]);
  if (!(zeros_a > 0) || !(ones_a > 0) || !(zeros_b > 0) || !(ones_b > 0)) return NAN;
  switch (kind) {
  case SW_PEARSON:
    return correlation(counts, (double[]){0, 1}, (double[]){0, 1});
  case SW_SPEARMAN:
    return correlation(counts, (double[]){(zeros_a + 1) / 2, zeros_a + (ones_a + 1) / 2},
                       (double[]){(zeros_b + 1) / 2, zeros_b + (ones_b + 1) / 2});
  case SW_CRAMER:
    return cramers_v(counts);
  }
  return NAN;
}

/* --- joining --- */

static size_t root_of(size_t *parent, size_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

static int add_pair(sw_label_reduction *r, size_t *capacity, sw_label_pair pair) {
  if (r->num_pairs == *capacity) {
    const size_t larger = 2 * *capacity + 64;
    sw_label_pair *pairs = sw_realloc_array(r->pairs, larger, sizeof *pairs);
    if (!pairs) return -1;
    r->pairs = pairs;
    *capacity = larger;
  }
  r->pairs[r->num_pairs++] = pair;
  return 0;
}

/* columns [num_labels][words]: the targets as bits; parent: a forest of joined labels. */
static int find_pairs(sw_label_reduction *r, const uint64_t *columns, size_t words, size_t num_rows, size_t *parent) {
  size_t capacity = 0;
  for (size_t a = 0; a < r->num_labels; a++)
    for (size_t b = a + 1; b < r->num_labels; b++) {
      uint64_t both = 0;
      for (size_t w = 0; w < words; w++) both += (uint64_t)__builtin_popcountll(columns[a * words + w] & columns[b * words + w]);
      const uint64_t fa = r->frequency[a], fb = r->frequency[b];
      const uint64_t counts[4] = {num_rows - fa - fb + both, fb - both, fa - both, both};
      const double value = sw_association_of(r->kind, counts);
      if (!(fabs(value) >= r->threshold)) continue;
      const int together = (double)both * (double)num_rows > (double)fa * (double)fb;
      if (add_pair(r, &capacity, (sw_label_pair){a, b, value, together})) return -1;
      const size_t x = root_of(parent, a), y = root_of(parent, b);
      if (together) parent[x > y ? x : y] = x < y ? x : y;
    }
  return 0;
}

static void number_groups(sw_label_reduction *r, size_t *parent) {
  for (size_t i = 0; i < r->num_labels; i++) { /* a root is the first of its labels */
    const size_t root = root_of(parent, i);
    r->group[i] = root == i ? r->num_groups++ : r->group[root];
    size_t *representative = &r->representative[r->group[i]];
    if (root == i || r->frequency[i] > r->frequency[*representative]) *representative = i;
  }
}

int sw_label_reduction_make(sw_association kind, double threshold, const uint8_t *targets, size_t num_labels, const uint32_t *rows, size_t num_rows,
                            sw_label_reduction *out) {
  const size_t words = (num_rows + 63) / 64;
  *out = (sw_label_reduction){.kind = kind, .threshold = threshold, .num_labels = num_labels};
  uint64_t *columns = sw_alloc_array(num_labels, words * sizeof *columns);
  size_t *parent = sw_alloc_array(num_labels, sizeof *parent);
  out->group = sw_alloc_array(num_labels, sizeof *out->group);
  out->representative = sw_alloc_array(num_labels, sizeof *out->representative);
  out->frequency = sw_alloc_array(num_labels, sizeof *out->frequency);
  int status = columns && parent && out->group && out->representative && out->frequency ? 0 : -1;
  for (size_t i = 0; i < num_labels && !status; i++) {
    parent[i] = i;
    for (size_t k = 0; k < num_rows; k++)
      if (targets[(size_t)rows[k] * num_labels + i]) {
        columns[i * words + k / 64] |= 1ull << k % 64;
        out->frequency[i]++;
      }
  }
  if (!status) status = find_pairs(out, columns, words, num_rows, parent);
  if (!status) number_groups(out, parent);
  free(columns);
  free(parent);
  if (status) sw_label_reduction_close(out);
  return status;
}

void sw_label_reduction_close(sw_label_reduction *r) {
  free(r->group);
  free(r->representative);
  free(r->frequency);
  free(r->pairs);
  *r = (sw_label_reduction){0};
}

void sw_label_reduction_apply(const sw_label_reduction *r, const uint8_t *from, size_t num_rows, uint8_t *to) {
  memset(to, 0, num_rows * r->num_groups);
  for (size_t k = 0; k < num_rows; k++)
    for (size_t i = 0; i < r->num_labels; i++) to[k * r->num_groups + r->group[i]] |= from[k * r->num_labels + i];
}

/* --- the report --- */

static json_t *groups_json(const sw_label_reduction *r, char *const *labels) {
  json_t *groups = json_array();
  for (size_t g = 0; g < r->num_groups && groups; g++) {
    json_t *merged = json_array();
    for (size_t i = 0; i < r->num_labels; i++)
      if (r->group[i] == g && i != r->representative[g]) json_array_append_new(merged, json_string(labels[i]));
    if (json_array_size(merged))
      json_array_append_new(groups, json_pack("{s:s, s:O, s:I}", "label", labels[r->representative[g]], "merged", merged, "rows",
                                              (json_int_t)r->frequency[r->representative[g]]));
    json_decref(merged);
  }
  return groups;
}

json_t *sw_label_reduction_json(const sw_label_reduction *r, char *const *labels) {
  json_t *pairs = json_array();
  for (size_t i = 0; i < r->num_pairs && pairs; i++) {
    const sw_label_pair *p = &r->pairs[i];
    char reason[160];
    if (p->merged)
      snprintf(reason, sizeof reason, "%s %.4f is at least %g", names[r->kind], p->value, r->threshold);
    else
      snprintf(reason, sizeof reason, "they exclude each other (%s %.4f): not merged", names[r->kind], p->value);
    json_array_append_new(pairs, json_pack("{s:s, s:s, s:f, s:b, s:s}", "a", labels[p->a], "b", labels[p->b], "value", p->value, "merged",
                                           p->merged, "reason", reason));
  }
  json_t *all = json_pack("{s:s, s:f, s:I, s:I, s:o, s:o}", "method", names[r->kind], "threshold", r->threshold, "labels_before",
                          (json_int_t)r->num_labels, "labels_after", (json_int_t)r->num_groups, "groups", groups_json(r, labels), "pairs", pairs);
  if (!all) sw_fail("out of memory");
  return all;
}
