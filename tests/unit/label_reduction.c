/* Which labels are merged, and the choice of thresholds. The measures themselves are compared with scipy in parity/test_multilabel.py, the scores
 * with scikit-learn in e2e/test_multilabel.py. */
#include "base/error.h"
#include "engine/learn/label_reduction.h"
#include "engine/learn/label_scores.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

enum { LABELS = 6, ROWS = 8 };
/* b is a but for one row, c is b but for one; d is a turned round, e is always there, f never */
static const uint8_t targets[ROWS + 1][LABELS] = {{1, 1, 1, 0, 1, 0}, {1, 1, 1, 0, 1, 0}, {1, 1, 1, 0, 1, 0}, {1, 1, 1, 0, 1, 0}, {0, 1, 1, 1, 1, 0},
                                                  {0, 0, 1, 1, 1, 0}, {0, 0, 0, 1, 1, 0}, {0, 0, 0, 1, 1, 0}, {1, 0, 0, 1, 0, 1}};
static const uint32_t rows[ROWS] = {0, 1, 2, 3, 4, 5, 6, 7}; /* not the last */
static char *names[] = {"a", "b", "c", "d", "e", "f"};

static void groups(sw_association kind, double threshold, const size_t want[LABELS], size_t num_groups, size_t num_pairs) {
  sw_label_reduction r;
  assert_int_equal(sw_label_reduction_make(kind, threshold, targets[0], LABELS, rows, ROWS, &r), 0);
  assert_int_equal(r.num_groups, num_groups);
  assert_int_equal(r.num_pairs, num_pairs);
  assert_memory_equal(r.group, want, LABELS * sizeof *want);
  sw_label_reduction_close(&r);
}

static void merging(void **state) {
  /* phi(a, b) = 0.775, phi(b, c) = 0.745, phi(a, c) = 0.577; d is a's opposite */
  for (int kind = SW_PEARSON; kind <= SW_CRAMER; kind++) {
    groups((sw_association)kind, 0.74, (size_t[]){0, 0, 0, 1, 2, 3}, 4, 4); /* a-b, b-c, and a-d, b-d, which stay apart */
    groups((sw_association)kind, 0.78, (size_t[]){0, 1, 2, 3, 4, 5}, 6, 1);
  }
  sw_label_reduction r;
  uint8_t merged[(ROWS + 1) * 4];
  assert_int_equal(sw_label_reduction_make(SW_PEARSON, 0.74, targets[0], LABELS, rows, ROWS, &r), 0);
  assert_int_equal(r.representative[0], 2); /* the most frequent */
  sw_label_reduction_apply(&r, targets[0], ROWS + 1, merged);
  for (int i = 0; i <= ROWS; i++) assert_int_equal(merged[4 * i], targets[i][0] | targets[i][1] | targets[i][2]);
  json_t *json = sw_label_reduction_json(&r, names), *group = json_array_get(json_object_get(json, "groups"), 0);
  assert_int_equal(json_array_size(json_object_get(json, "groups")), 1);
  assert_string_equal(json_string_value(json_object_get(group, "label")), "c");
  assert_int_equal(json_array_size(json_object_get(group, "merged")), 2);
  size_t i;
  json_t *pair;
  json_array_foreach(json_object_get(json, "pairs"), i, pair) {
    const int apart = !strcmp(json_string_value(json_object_get(pair, "b")), "d");
    assert_int_equal(json_is_true(json_object_get(pair, "merged")), !apart);
    assert_int_equal(strstr(json_string_value(json_object_get(pair, "reason")), "exclude") != NULL, apart);
  }
  json_decref(json);
  sw_label_reduction_close(&r);
}

static void options(void **state) {
  sw_association kind;
  double threshold;
  assert_int_equal(sw_association_parse("cramer:0.9", &kind, &threshold), 0);
  assert_true(kind == SW_CRAMER && threshold == 0.9);
  static const char *const bad[] = {"cramer", "cramer:", "cramer:0", "cramer:1.1", "cramer:nan", "cramer:0.9x", "kendall:0.9", ":0.9", "pears:0.9"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(sw_association_parse(bad[i], &kind, &threshold), -1);
}

static void thresholds(void **state) {
  /* the first label is told apart between 0.3 and 0.2, the second is never there, the third always, the fourth has ties */
  const float p[] = {0.9f, 0.1f, 0.6f, 0.4f, 0.3f, 0.2f, 0.7f, 0.4f, 0.2f, 0.9f, 0.8f, 0.4f};
  const uint8_t t[] = {1, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1};
  float found[4];
  assert_int_equal(sw_label_thresholds(t, p, 3, 4, found), 0);
  assert_true(fabsf(found[0] - 0.25f) < 1e-6f && found[1] == 0.5f && fabsf(found[2] - 0.3f) < 1e-6f && found[3] <= 0.4f);
  sw_label_counts counts[4];
  sw_label_scores scores;
  sw_label_count(t, p, found, 3, 4, counts);
  assert_int_equal(sw_label_scores_of(counts, 4, &scores), 0);
  assert_true(counts[0].true_positive == 2 && counts[0].true_negative == 1 && counts[2].true_positive == 3);
  /* accuracies 1, 2/3, 1, 2/3; F1 1, 0, 1, 4/5 */
  assert_true(fabs(scores.median_accuracy - 5.0 / 6) < 1e-12 && fabs(scores.macro_f1 - 0.7) < 1e-12 && fabs(scores.micro_f1 - 14.0 / 16) < 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(merging), cmocka_unit_test(options), cmocka_unit_test(thresholds)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
