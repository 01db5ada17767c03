/* Windows over random words: every word kept once, whole windows, the promised overlap, the most context. */
#include "base/philox.h"
#include "engine/text/windows.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

static uint32_t tokens[3000];
static uint64_t before[3001]; /* tokens before each word */

static uint32_t size_of(size_t word, uint32_t most) {
  return tokens[word] < most ? tokens[word] : most;
}

/* The smaller of the numbers of tokens that the window shows on either side of the word. */
static uint64_t context(const sw_word_window *w, size_t word) {
  const uint64_t left = before[word] - before[w->first], right = before[w->end] - before[word + 1];
  return left < right ? left : right;
}

static void check(size_t words, uint32_t most, double overlap) {
  before[0] = 0;
  for (size_t i = 0; i < words; i++) before[i + 1] = before[i] + size_of(i, most);
  sw_word_windows windows = {0};
  assert_int_equal(sw_word_windows_make(tokens, words, most, overlap, &windows), 0);
  if (words == 0) assert_int_equal(windows.count, 0);
  size_t kept = 0;
  for (size_t i = 0; i < windows.count; i++) {
    const sw_word_window *w = &windows.items[i];
    assert_true(w->first < w->end && w->end <= words);
    assert_true(before[w->end] - before[w->first] <= most);
    assert_true(w->keep_first >= w->first && w->keep_end <= w->end);
    assert_int_equal(w->keep_first, kept);
    assert_true(w->keep_end >= w->keep_first);
    kept = w->keep_end;
    if (i + 1 < windows.count) {
      const sw_word_window *next = &windows.items[i + 1];
      assert_true(next->first > w->first && next->first <= w->end &&
                  next->end > w->end); /* it gets on and leaves no gap */
      assert_true(before[w->end] - before[next->first] <= (uint64_t)(overlap * most));
      assert_true(before[w->end + 1] - before[w->first] > most); /* it was full */
    }
  }
  assert_int_equal(kept, words);
  /* among neighbours, a word is kept where it has most context */
  for (size_t i = 0; i + 1 < windows.count; i++) {
    const sw_word_window *a = &windows.items[i], *b = &windows.items[i + 1];
    for (size_t word = b->first; word < a->end; word++) {
      if (word >= a->keep_first && word < a->keep_end) assert_true(context(a, word) >= context(b, word));
      if (word >= b->keep_first && word < b->keep_end) assert_true(context(b, word) >= context(a, word));
    }
  }
  sw_word_windows_close(&windows);
}

static void test_random(void **state) {
  sw_random r = {.seed = test_seed("windows")};
  for (int round = 0; round < 3000; round++) {
    const size_t words = sw_random_below(&r, round % 10 ? 60 : 3000);
    const uint32_t largest = 1 + sw_random_below(&r, round % 3 ? 3 : 20);
    for (size_t i = 0; i < words; i++) tokens[i] = sw_random_below(&r, largest + 1); /* 0 as well */
    const double overlaps[] = {0, 0.25, 0.5, 0.9};
    check(words, 1 + sw_random_below(&r, 40), overlaps[round % 4]);
  }
}

static void test_exact(void **state) {
  for (int i = 0; i < 10; i++) tokens[i] = 1;
  sw_word_windows w = {0};
  assert_int_equal(sw_word_windows_make(tokens, 10, 8, 0.25, &w), 0);
  assert_int_equal(w.count, 2);
  assert_int_equal(w.items[0].end, 8);
  assert_int_equal(w.items[1].first, 6); /* a quarter of 8 tokens */
  assert_int_equal(w.items[0].keep_end, 7);
  assert_int_equal(w.items[1].keep_first, 7);
  tokens[3] = 100; /* a word that is longer than a window counts as a full one */
  assert_int_equal(sw_word_windows_make(tokens, 5, 8, 0.25, &w), 0);
  assert_int_equal(w.count, 3);
  assert_int_equal(w.items[1].first, 3);
  assert_int_equal(w.items[1].end, 4);
  assert_int_not_equal(sw_word_windows_make(tokens, 5, 0, 0.25, &w), 0);
  assert_int_not_equal(sw_word_windows_make(tokens, 5, 8, 1, &w), 0);
  assert_int_not_equal(sw_word_windows_make(tokens, 5, 8, 0.0 / 0.0, &w), 0);
  sw_word_windows_close(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_exact)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
