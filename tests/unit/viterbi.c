/* Constrained decoding against every sequence there is, and the entities of a sequence. */
#include "base/error.h"
#include "base/philox.h"
#include "engine/learn/viterbi.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static char *plain[] = {"O", "B", "I"};
static char *mixed[] = {"I-b", "B", "B-a", "O", "I-a", "I", "B-b"}; /* any order, with and without type */
static char *half[] = {"B-a", "I-c", "O"};                          /* an I without its B can never stand */

static int valid(char *const *labels, const int32_t *tags, size_t count) {
  for (size_t t = 0; t < count; t++) {
    const char *now = labels[tags[t]];
    if (now[0] != 'I') continue;
    if (t == 0) return 0;
    const char *before = labels[tags[t - 1]];
    if (before[0] == 'O' || strcmp(before + 1, now + 1)) return 0;
  }
  return 1;
}

/* The best valid sequence by trying them all. */
static double best_of_all(char *const *labels, size_t n, const float *p, size_t count) {
  int32_t tags[8] = {0};
  double best = -INFINITY;
  for (;;) {
    double sum = 0;
    for (size_t t = 0; t < count; t++) sum += (double)p[t * n + (size_t)tags[t]];
    if (sum > best && valid(labels, tags, count)) best = sum;
    size_t t = 0;
    while (t < count && ++tags[t] == (int32_t)n) tags[t++] = 0;
    if (t == count) return best;
  }
}

static void against_all(void **state) {
  sw_random random = {test_seed("viterbi"), 1, 0};
  struct {
    char **labels;
    size_t n;
  } sets[] = {{plain, 3}, {mixed, 7}, {half, 3}};
  for (int round = 0; round < 1500; round++) {
    char **labels = sets[round % 3].labels;
    size_t n = sets[round % 3].n, count = 1 + sw_random_below(&random, n == 7 ? 5 : 8);
    int whole = round % 2; /* small whole numbers make ties */
    float p[8 * 7];
    int32_t tags[8];
    for (size_t i = 0; i < count * n; i++) {
      p[i] = whole ? -(float)sw_random_below(&random, 4) : logf(sw_random_float(&random) + 1e-6f);
      if (sw_random_below(&random, 12) == 0) p[i] = -INFINITY;
    }
    sw_viterbi_rules rules;
    assert_int_equal(sw_viterbi_rules_open(labels, n, &rules), 0);
    assert_int_equal(sw_viterbi_decode(&rules, p, count, tags), 0);
    assert_true(valid(labels, tags, count));
    double sum = 0, best = best_of_all(labels, n, p, count);
    for (size_t t = 0; t < count; t++) sum += (double)p[t * n + (size_t)tags[t]];
    assert_true(sum == best || fabs(sum - best) < 1e-9);
    sw_viterbi_rules_close(&rules);
  }
}

static void refused(void **state) {
  sw_viterbi_rules rules;
  char *bad[][2] = {{"O", "X"}, {"O", "B-"}, {"O", "S-a"}, {"O", ""}, {"O", "Bx"}, {"OO", "B"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(sw_viterbi_rules_open(bad[i], 2, &rules), -1);
  assert_int_equal(sw_viterbi_rules_open(plain, 0, &rules), -1);
  assert_int_equal(sw_viterbi_rules_open(plain, 3, &rules), 0);
  float p[6] = {-1, -1, -1, -1, NAN, -1};
  int32_t tags[2];
  assert_int_equal(sw_viterbi_decode(&rules, p, 2, tags), -1);
  assert_non_null(strstr(sw_error(), "position 1 is NaN"));
  p[4] = INFINITY;
  assert_int_equal(sw_viterbi_decode(&rules, p, 2, tags), -1);
  p[4] = -1;
  assert_int_equal(sw_viterbi_decode(&rules, p, 2, tags), 0);
  assert_int_equal(tags[0], 0); /* ties: the smaller label */
  assert_int_equal(tags[1], 0);
  assert_int_equal(sw_viterbi_decode(&rules, p, 0, tags), 0);
  sw_viterbi_rules_close(&rules);
}

static void entities(void **state) {
  sw_viterbi_rules rules;
  assert_int_equal(sw_viterbi_rules_open(mixed, 7, &rules), 0);
  assert_int_equal(rules.num_types, 3);
  assert_string_equal(rules.types[0], "");
  assert_string_equal(rules.types[1], "a");
  /* I-a (begins) I-a | B-a | I-b (begins) | O | B | I | I-a */
  int32_t tags[] = {4, 4, 2, 0, 3, 1, 5, 4};
  float p[8 * 7];
  for (int i = 0; i < 8 * 7; i++) p[i] = logf(0.25f);
  p[1 * 7 + 4] = logf(0.75f);
  sw_entity found[8];
  assert_int_equal(sw_entities(&rules, tags, p, 8, found), 5);
  const int wanted[5][3] = {{0, 2, 1}, {2, 3, 1}, {3, 4, 2}, {5, 7, 0}, {7, 8, 1}};
  for (int i = 0; i < 5; i++) {
    assert_int_equal(found[i].start, wanted[i][0]);
    assert_int_equal(found[i].end, wanted[i][1]);
    assert_int_equal(found[i].type, wanted[i][2]);
    assert_true(fabs((double)found[i].score - (i == 0 ? 0.5 : 0.25)) < 1e-6);
  }
  assert_int_equal(sw_entities(&rules, tags, NULL, 8, found), 5);
  assert_true(found[0].score == 0);
  assert_int_equal(sw_entities(&rules, tags, p, 0, found), 0);
  sw_viterbi_rules_close(&rules);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(against_all), cmocka_unit_test(refused),
                                     cmocka_unit_test(entities)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
