/* Searching a corpus that comes in several pieces: the neighbours of a plain loop, of equal ones the first, no row for itself, other blocks the same bits;
 * what has no answer is refused. And regular expressions. */
#include "base/error.h"
#include "base/philox.h"
#include "engine/space/search.h"
#include "engine/text/pattern.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 1024, ROWS = 4500, QUERIES = 6, K = 5 }; /* a piece has 2049 rows */

static sw_device *device;
static sw_stream stream;
static float *corpus, *queries;

static int read_rows(void *context, int64_t first, int64_t rows, float *out) {
  memcpy(out, (const float *)context + first * HIDDEN, (size_t)(rows * HIDDEN) * sizeof *out);
  return 0;
}

static int open_data(void **state) {
  sw_random r = {.seed = test_seed("search")};
  if (sw_device_open("cpu", &device) || sw_stream_open(device, 2, &stream)) return -1;
  corpus = sw_alloc_array(ROWS * HIDDEN, sizeof *corpus);
  queries = sw_alloc_array(QUERIES * HIDDEN, sizeof *queries);
  if (!corpus || !queries) return -1;
  for (size_t i = 0; i < ROWS * HIDDEN; i++) corpus[i] = sw_random_float(&r) - 0.4f;
  for (size_t i = 0; i < QUERIES * HIDDEN; i++) queries[i] = sw_random_float(&r) - 0.4f;
  memset(corpus + 7 * HIDDEN, 0, HIDDEN * sizeof *corpus);
  for (int i = 0; i < 3; i++) /* the same row in every piece, and twice in one */
    memcpy(corpus + (4400 - 1500 * i) * HIDDEN, queries, HIDDEN * sizeof *corpus);
  memcpy(corpus + 4401 * HIDDEN, queries, HIDDEN * sizeof *corpus);
  return 0;
}

static int close_data(void **state) {
  free(corpus);
  free(queries);
  sw_device_close(device);
  return 0;
}

static double similarity(sw_similarity kind, const float *q, const float *c) {
  double product = 0, qq = 0, cc = 0, distance = 0;
  for (int h = 0; h < HIDDEN; h++) {
    product += (double)q[h] * (double)c[h];
    qq += (double)q[h] * (double)q[h];
    cc += (double)c[h] * (double)c[h];
    distance += ((double)q[h] - (double)c[h]) * ((double)q[h] - (double)c[h]);
  }
  return kind == SW_EUCLIDEAN ? -sqrt(distance) : qq > 0 && cc > 0 ? product / sqrt(qq * cc) : 0;
}

static void search(sw_similarity kind, int64_t max_queries, int64_t skip, int64_t *index, float *score) {
  sw_search *s;
  const sw_search_corpus rows = {ROWS, read_rows, corpus, "corpus"};
  assert_int_equal(sw_search_open(&stream, HIDDEN, K, kind, max_queries, &s), 0);
  for (int64_t at = 0; at < QUERIES; at += max_queries) {
    const int64_t count = QUERIES - at < max_queries ? QUERIES - at : max_queries;
    assert_int_equal(sw_search_run(s, &rows, queries + at * HIDDEN, count, skip < 0 ? -1 : skip + at, index + at * K, score + at * K), 0);
  }
  sw_search_close(s);
}

static void test_neighbours(void **state) {
  static double all[ROWS];
  for (int kind = 0; kind < 2; kind++) {
    int64_t index[QUERIES * K], again[QUERIES * K];
    float score[QUERIES * K], scores_again[QUERIES * K];
    search((sw_similarity)kind, QUERIES, -1, index, score);
    search((sw_similarity)kind, 4, -1, again, scores_again);
    assert_memory_equal(index, again, sizeof index);
    assert_memory_equal(score, scores_again, sizeof score);
    const int64_t same[4] = {1400, 2900, 4400, 4401};
    assert_memory_equal(index, same, sizeof same);
    for (int q = 0; q < QUERIES; q++) {
      for (int i = 0; i < ROWS; i++) all[i] = similarity((sw_similarity)kind, queries + q * HIDDEN, corpus + i * HIDDEN);
      for (int n = 0; n < K; n++) { /* no row that is not given is better than one that is */
        const double here = all[index[q * K + n]], told = kind == SW_EUCLIDEAN ? -(double)score[q * K + n] : (double)score[q * K + n];
        assert_true(fabs(here - told) < 1e-3);
        if (n) assert_true(all[index[q * K + n - 1]] >= here - 1e-5);
      }
      int better = 0;
      for (int i = 0; i < ROWS; i++) better += all[i] > all[index[q * K + K - 1]] + 1e-5;
      assert_true(better < K);
    }
    search((sw_similarity)kind, QUERIES, 1400, index, score); /* the first query is row 1400 */
    assert_int_equal(index[0], 2900);
  }
}

static void test_refused(void **state) {
  sw_search *s;
  int64_t index[QUERIES * K];
  float score[QUERIES * K];
  assert_int_not_equal(sw_search_open(&stream, HIDDEN, 0, SW_COSINE, 1, &s), 0);
  assert_int_not_equal(sw_search_open(&stream, HIDDEN, SW_MOST_NEIGHBOURS + 1, SW_COSINE, 1, &s), 0);
  assert_int_equal(sw_search_open(&stream, HIDDEN, K, SW_COSINE, QUERIES, &s), 0);
  const sw_search_corpus rows = {3, read_rows, corpus, "corpus"}, empty = {0, read_rows, corpus, "corpus"};
  assert_int_not_equal(sw_search_run(s, &empty, queries, 1, -1, index, score), 0);
  assert_non_null(strstr(sw_error(), "empty"));
  assert_int_equal(sw_search_run(s, &rows, queries, 2, -1, index, score), 0);
  for (int n = 0; n < 2 * K; n++) assert_int_equal(index[n] < 0, n % K >= 3);
  const float kept = corpus[HIDDEN + 3];
  corpus[HIDDEN + 3] = NAN;
  assert_int_not_equal(sw_search_run(s, &rows, queries, 1, -1, index, score), 0);
  assert_non_null(strstr(sw_error(), "row 2"));
  corpus[HIDDEN + 3] = kept;
  sw_search_close(s);
}

static void test_patterns(void **state) {
  sw_pattern *p;
  assert_int_equal(sw_pattern_open("machine learning|\xc3\x84rzt", &p), 0);
  const struct {
    const char *text;
    int found;
  } cases[] = {{"Senior MACHINE Learning Engineer", 1}, {"machine  learning", 0}, {"\xc3\xa4rztin", 1}, {"", 0}, {"Learning", 0}};
  for (int twice = 0; twice < 2; twice++)
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      assert_int_equal(sw_pattern_find(p, cases[i].text, strlen(cases[i].text)), cases[i].found);
  sw_pattern_close(p);
  const char *const broken[] = {"", "(", "a{2", "[", "*", "\\"};
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    assert_int_not_equal(sw_pattern_open(broken[i], &p), 0);
    assert_null(p);
  }
  char slow[64];
  memset(slow, 'a', sizeof slow);
  assert_int_equal(sw_pattern_open("(a+)+b", &p), 0);
  assert_int_equal(sw_pattern_find(p, slow, sizeof slow), -1); /* told, instead of hours */
  sw_pattern_close(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_neighbours), cmocka_unit_test(test_refused), cmocka_unit_test(test_patterns)};
  return cmocka_run_group_tests(tests, open_data, close_data);
}
