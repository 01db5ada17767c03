/* Entity scores on cases worked out by hand; the comparison with seqeval is parity/test_seqeval.py. */
#include "base/error.h"
#include "engine/data/labels.h"
#include "engine/learn/metrics.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

static char *plain[] = {"O", "B", "I"};
static char *typed[] = {"O", "B-x", "I-x", "B-y", "I-y"};

static void check(sw_entity_score s, double p, double r, double f, uint64_t support) {
  assert_true(fabs(s.precision - p) < 1e-12 && fabs(s.recall - r) < 1e-12 && fabs(s.f1 - f) < 1e-12);
  assert_int_equal(s.support, support);
}

static void by_hand(void **state) {
  sw_entity_metrics m;
  assert_int_equal(sw_entity_metrics_open(typed, 5, &m), 0);
  /* gold: x[0,2) y[3,4) x[4,5)   predicted: x[0,2) (I begins) y[3,5) */
  const int32_t gold[] = {1, 2, 0, 3, 1}, predicted[] = {2, 2, 0, 3, 4};
  assert_int_equal(sw_entity_metrics_add(&m, gold, predicted, 5), 0);
  assert_int_equal(m.counts[0].true_positive, 1);
  assert_int_equal(m.counts[0].gold, 2);
  assert_int_equal(m.counts[0].predicted, 1);
  assert_int_equal(m.counts[1].true_positive, 0);
  check(sw_entity_micro(m.counts, m.num_types), 0.5, 1.0 / 3, 0.4, 3);
  check(sw_entity_macro(m.counts, m.num_types), 0.5, 0.25, (2 * 0.5 / 1.5) / 2, 3);
  assert_int_equal(m.tags, 5);
  assert_int_equal(m.tags_right, 3);
  json_t *json = sw_entity_metrics_json(&m);
  assert_non_null(json);
  assert_int_equal(
      json_integer_value(json_object_get(json_object_get(json_object_get(json, "labels"), "x"), "support")), 2);
  assert_true(fabs(json_real_value(json_object_get(json, "accuracy")) - 0.6) < 1e-12);
  json_decref(json);
  sw_entity_metrics_close(&m);
}

static void edges(void **state) {
  sw_entity_metrics m;
  assert_int_equal(sw_entity_metrics_open(plain, 3, &m), 0);
  check(sw_entity_micro(m.counts, m.num_types), 0, 0, 0, 0);
  check(sw_entity_macro(m.counts, m.num_types), 0, 0, 0, 0);
  /* ignored positions are as if they were not there: B [I] I is one entity of two */
  const int32_t gold[] = {1, SW_IGNORE, 2, 0, SW_IGNORE}, predicted[] = {1, 0, 2, 0, 1};
  assert_int_equal(sw_entity_metrics_add(&m, gold, predicted, 5), 0);
  check(sw_entity_micro(m.counts, m.num_types), 1, 1, 1, 1);
  assert_int_equal(m.tags, 3);
  const int32_t bad[] = {1, 3}, low[] = {1, -1};
  assert_int_equal(sw_entity_metrics_add(&m, bad, gold, 2), -1);
  assert_int_equal(sw_entity_metrics_add(&m, gold, low, 1), 0);
  assert_int_equal(sw_entity_metrics_add(&m, low, low, 2), -1);
  check(sw_entity_micro(m.counts, m.num_types), 1, 1, 1, 2);
  assert_int_equal(sw_entity_metrics_add(&m, NULL, NULL, 0), 0);
  sw_entity_metrics_close(&m);
  char *unknown[] = {"O", "LABEL_1"};
  assert_int_equal(sw_entity_metrics_open(unknown, 2, &m), -1);
  assert_non_null(strstr(sw_error(), "LABEL_1"));
  sw_entity_metrics_close(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(edges)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
