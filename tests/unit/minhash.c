/* Shingles and their similarity, how often bands find texts of a known similarity, and boilerplate. */
#include "base/buffer.h"
#include "base/philox.h"
#include "engine/data/boilerplate.h"
#include "engine/text/minhash.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static double similarity(const char *a, const char *b) {
  sw_shingles x = {0}, y = {0};
  assert_int_equal(sw_shingles_make(a, strlen(a), &x), 0);
  assert_int_equal(sw_shingles_make(b, strlen(b), &y), 0);
  const double j = sw_jaccard(&x, &y);
  sw_shingles_close(&x);
  sw_shingles_close(&y);
  return j;
}

static void test_shingles(void **state) {
  assert_true(similarity("", " \n") == 1);
  assert_true(similarity("one two", "") == 0);
  assert_true(similarity("one two", "One, TWO!") == 1); /* case and punctuation do not count */
  assert_true(similarity("one two", "two one") == 0);
  assert_true(similarity("\xC3\x84rzte b c d e f", "\xC3\xA4rzte b c d e f") == 1);
  /* 3 shingles of a..g, 3 of b..h, 2 in common */
  assert_true(similarity("a b c d e f g", "b c d e f g h") == 2.0 / 4);
  assert_true(similarity("a b c d e a b c d e a b c d e", "a b c d e a b c d e") == 1); /* sets */
  sw_shingles s = {0};
  assert_int_equal(sw_shingles_make("a \xC3 b", 5, &s), -1);
  assert_int_equal(sw_shingles_make("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", 18, &s), 0); /* ideographs are words */
  assert_int_equal(s.count, 2);
  sw_shingles_close(&s);
}

static int count(void *context, uint32_t text) {
  ++*(int *)context;
  return 0;
}

static int first(void *context, uint32_t text) {
  *(uint32_t *)context = text;
  return 1;
}

/* Two sets of 600 numbers with Jaccard similarity s share 2 s / (1 + s) of them. */
static double found_at(double s, int trials) {
  sw_random random = {.seed = 5};
  int found = 0;
  uint64_t x[600], y[600];
  for (int t = 0; t < trials; t++) {
    const int shared = (int)(2 * s / (1 + s) * 600 + 0.5);
    for (int i = 0; i < 600; i++) {
      x[i] = sw_random_u64(&random);
      y[i] = i < shared ? x[i] : sw_random_u64(&random);
    }
    const sw_shingles a = {.count = 600, .items = x}, b = {.count = 600, .items = y};
    uint32_t bands[SW_MINHASH_BANDS], others[SW_MINHASH_BANDS];
    sw_near near = {0};
    int hits = 0;
    sw_minhash(&a, bands);
    sw_minhash(&b, others);
    assert_int_equal(sw_near_add(&near, bands), 0);
    assert_int_equal(sw_near_find(&near, others, count, &hits), 0);
    assert_true(hits <= 1);
    found += hits;
    sw_near_close(&near);
  }
  return (double)found / trials;
}

static void test_bands(void **state) {
  /* 1 - (1 - s^5)^20, within four standard deviations of 400 trials */
  const double expected[][2] = {{0.9, 1.0}, {0.8, 0.9996}, {0.5, 0.4701}, {0.3, 0.0475}, {0.0, 0.0}};
  for (size_t i = 0; i < 5; i++) {
    const double rate = found_at(expected[i][0], 400), p = expected[i][1];
    if (!(rate > p - 0.1 * (p > 0 && p < 1) - 0.005 && rate < p + 0.1 + 1e-9)) fail_msg("at %.1f: %.3f found, %.3f expected", expected[i][0], rate, p);
  }
}

static void test_near(void **state) {
  sw_near near = {0};
  sw_random random = {.seed = 7};
  uint32_t bands[1000][SW_MINHASH_BANDS], other[SW_MINHASH_BANDS], text = 0;
  for (int i = 0; i < 1000; i++) { /* the table grows several times */
    for (int b = 0; b < SW_MINHASH_BANDS; b++) bands[i][b] = sw_random_u32(&random);
    assert_int_equal(sw_near_add(&near, bands[i]), 0);
  }
  for (int i = 0; i < 1000; i++) {
    for (int b = 0; b < SW_MINHASH_BANDS; b++) other[b] = sw_random_u32(&random);
    other[i % SW_MINHASH_BANDS] = bands[i][i % SW_MINHASH_BANDS]; /* one band is enough */
    assert_int_equal(sw_near_find(&near, other, first, &text), 1);
    assert_int_equal(text, i);
    int hits = 0;
    assert_int_equal(sw_near_find(&near, bands[i], count, &hits), 0); /* once, though all bands agree */
    assert_int_equal(hits, 1);
  }
  sw_near_close(&near);
}

static void test_boilerplate(void **state) {
  const char *const companies[] = {"Acme Corp", "Beta", "Gamma GmbH"};
  char text[512];
  sw_boilerplate *b;
  sw_buffer out = {0};
  assert_int_equal(sw_boilerplate_open(3, &b), 0);
  for (int i = 0; i < 3; i++) {
    snprintf(text, sizeof text, "Requirements\nWe want people who know number %d very well indeed.\n\n%s is an Equal Opportunity employer and welcomes everyone.\nBye", i,
             companies[i]);
    assert_int_equal(sw_boilerplate_count(b, companies[i], text), 0);
    assert_int_equal(sw_boilerplate_count(b, companies[0], "Only this one company says this one again and again."), 0);
  }
  assert_int_equal(sw_boilerplate_strip(b, "Gamma GmbH", text, &out), 0);
  assert_string_equal(out.data, "Requirements\nWe want people who know number 2 very well indeed.\n\nBye");
  sw_buffer_clear(&out);
  assert_int_equal(sw_boilerplate_strip(b, "Acme Corp", "Only this one company says this one again and again.", &out), 0);
  assert_string_equal(out.data, "Only this one company says this one again and again.");
  sw_buffer_clear(&out); /* a text that is nothing else stays */
  assert_int_equal(sw_boilerplate_strip(b, "Beta", "BETA is an equal opportunity employer, and welcomes everyone!", &out), 0);
  assert_string_equal(out.data, "BETA is an equal opportunity employer, and welcomes everyone!");
  assert_int_equal(sw_boilerplate_cut(b), 1);
  sw_buffer_clear(&out);
  assert_int_equal(sw_boilerplate_report(b, &out), 0);
  assert_string_equal(out.data,
                      "{\"companies\": 3, \"postings\": 3, \"cut\": 1, \"text\": \"Gamma GmbH is an Equal Opportunity employer and welcomes everyone.\"}\n");
  sw_buffer_close(&out);
  sw_boilerplate_close(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_shingles), cmocka_unit_test(test_bands), cmocka_unit_test(test_near), cmocka_unit_test(test_boilerplate)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
