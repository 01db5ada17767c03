/* Ranking scores on cases worked out by hand; those of skillwatch train classify are compared with scikit-learn's in e2e/test_classify.py. */
#include "engine/learn/ranking.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>

static int near(double a, double b) { return fabs(a - b) <= 1e-12; }

static void by_hand(void **state) {
  sw_ranking r;
  const uint32_t cuts[] = {1, 3, 5};
  sw_ranking_open(&r, cuts, 3);
  assert_true(sw_ranking_mrr(&r) == 0 && sw_ranking_mean(&r, SW_NDCG_AT, 0) == 0);
  sw_ranking_add(&r, (const uint64_t[]){2, 5}, 2, 4);
  assert_true(near(sw_ranking_mean(&r, SW_ACCURACY_AT, 0), 0) && near(sw_ranking_mean(&r, SW_ACCURACY_AT, 1), 1));
  assert_true(near(sw_ranking_mean(&r, SW_PRECISION_AT, 1), 1.0 / 3) && near(sw_ranking_mean(&r, SW_PRECISION_AT, 2), 0.4));
  assert_true(near(sw_ranking_mean(&r, SW_RECALL_AT, 1), 0.25) && near(sw_ranking_mean(&r, SW_RECALL_AT, 2), 0.5));
  assert_true(near(sw_ranking_mean(&r, SW_MRR_AT, 0), 0) && near(sw_ranking_mean(&r, SW_MRR_AT, 1), 0.5) && near(sw_ranking_mrr(&r), 0.5));
  const double ideal = 1 + 1 / log2(3) + 1 / log2(4);
  assert_true(near(sw_ranking_mean(&r, SW_NDCG_AT, 1), 1 / log2(3) / ideal));
  assert_true(near(sw_ranking_mean(&r, SW_NDCG_AT, 2), (1 / log2(3) + 1 / log2(6)) / (ideal + 1 / log2(5))));
  sw_ranking_add(&r, NULL, 0, 1); /* nothing found */
  sw_ranking_add(&r, (const uint64_t[]){1}, 1, 1);
  assert_int_equal(r.queries, 3);
  assert_true(near(sw_ranking_mrr(&r), 0.5) && near(sw_ranking_mean(&r, SW_ACCURACY_AT, 0), 1.0 / 3));
  assert_true(near(sw_ranking_mean(&r, SW_NDCG_AT, 0), 1.0 / 3));
}

static void order(void **state) {
  const float scores[] = {1, 3, 2, 3, -INFINITY, 3};
  const uint64_t ranks[] = {5, 1, 4, 2, 6, 3};
  uint32_t best[6];
  for (size_t k = 0; k <= 6; k++) {
    sw_rank_best(scores, 6, k, best);
    for (size_t i = 0; i < k; i++) assert_int_equal(ranks[best[i]], i + 1);
  }
  for (size_t i = 0; i < 6; i++) assert_int_equal(sw_rank_of(scores, 6, i), ranks[i]);
}

static void macro(void **state) {
  double f1;
  /* class 2 is predicted only: its F1 is 0; class 3 does not occur */
  assert_int_equal(sw_macro_f1((const int32_t[]){0, 1, 1, 0, 1, 1}, (const int32_t[]){0, 0, 1, 0, 1, 2}, 6, 4, &f1), 0);
  const double zero = 2 * 2.0 / (2 + 3), one = 2 * 2.0 / (4 + 2);
  assert_true(near(f1, (zero + one + 0) / 3));
  assert_int_equal(sw_macro_f1(NULL, NULL, 0, 4, &f1), 0);
  assert_true(f1 == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(order), cmocka_unit_test(macro)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
