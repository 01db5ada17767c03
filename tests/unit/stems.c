/* Words, stems, vocabularies and ids. */
#include "base/error.h"
#include "engine/text/stems.h"
#include "engine/text/letter_words.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

static sw_stems *open_plain(const char *const *vocab, size_t count) {
  sw_stems *s;
  assert_int_equal(sw_stems_open(SW_STEM_ALGORITHM, sw_stop_words, sw_num_stop_words, vocab, NULL, count, &s), 0);
  return s;
}
static int count(sw_stems *s, const char *text) { return sw_stems_count(s, text, strlen(text)); }

static void vocabulary(void **state) {
  sw_stems *s = open_plain(NULL, 0);
  const char *const *vocab;
  size_t n;
  assert_int_equal(count(s, "Plan the plans; PLANNING don't re-plan! C++ and C# 2024"), 0);
  assert_int_equal(count(s, "zebra apple Zebras"), 0);
  assert_int_equal(count(s, ""), 0);
  assert_int_equal(sw_stems_vocabulary(s, 1, 100, &vocab, &n), 0);
  static const char *const all[] = {"[UNK]", "plan", "c", "zebra", "appl"}; /* by frequency, then by their bytes */
  assert_int_equal(n, 5);
  for (size_t i = 0; i < n; i++) assert_string_equal(vocab[i], all[i]);
  assert_int_equal(sw_stems_vocabulary(s, 2, 100, &vocab, &n), 0);
  assert_int_equal(n, 4);
  assert_int_equal(sw_stems_vocabulary(s, 1, 3, &vocab, &n), 0);
  assert_int_equal(n, 3);
  assert_string_equal(vocab[2], "c");
  assert_int_equal(count(s, "caf\xc3"), -1);
  assert_non_null(strstr(sw_error(), "not UTF-8"));
  sw_stems_close(s);
}

static void encode(sw_stems *s, const char *text, size_t limit, const int32_t *want, size_t length, int more) {
  const int32_t *ids;
  size_t n;
  int truncated;
  assert_int_equal(sw_stems_encode(s, text, strlen(text), limit, &ids, &n, &truncated), 0);
  assert_int_equal(n, length);
  assert_memory_equal(ids, want, length * sizeof *ids);
  assert_int_equal(truncated, more);
}

static void ids(void **state) {
  static const char *const vocab[] = {"[UNK]", "plan", "caf\xc3\xa9", "zebra"};
  sw_stems *s = open_plain(vocab, 4);
  encode(s, "The planned zebras, unknown", 9, (int32_t[]){1, 3, 0}, 3, 0);
  encode(s, "CAF\xc3\x89", 9, (int32_t[]){2}, 1, 0);
  encode(s, "plan plan plan of", 3, (int32_t[]){1, 1, 1}, 3, 0);
  encode(s, "plan zebra plan", 2, (int32_t[]){1, 3}, 2, 1);
  encode(s, "", 2, (int32_t[]){0}, 1, 0);
  encode(s, "the 12 of", 2, (int32_t[]){0}, 1, 0);
  char longest[SW_WORD_BYTES + 100];
  memset(longest, 'a', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  encode(s, longest, 2, (int32_t[]){0}, 1, 0);
  const int32_t *list;
  size_t n;
  assert_int_equal(sw_stems_encode(s, "plan \xff", 6, 9, &list, &n, NULL), -1);
  sw_stems_close(s);
}

static void bad_vocabularies(void **state) {
  sw_stems *s;
  static const char *const twice[] = {"[UNK]", "plan", "plan"}, *const headless[] = {"plan"};
  assert_int_equal(sw_stems_open("porter", NULL, 0, twice, NULL, 3, &s), -1);
  assert_non_null(strstr(sw_error(), "twice"));
  assert_int_equal(sw_stems_open("porter", NULL, 0, headless, NULL, 1, &s), -1);
  assert_int_equal(sw_stems_open("klingon", NULL, 0, NULL, NULL, 0, &s), -1);
  assert_non_null(strstr(sw_error(), "klingon"));
}

static void stop_words_are_sorted(void **state) {
  for (size_t i = 1; i < sw_num_stop_words; i++) assert_true(strcmp(sw_stop_words[i - 1], sw_stop_words[i]) < 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(vocabulary), cmocka_unit_test(ids), cmocka_unit_test(bad_vocabularies),
                                     cmocka_unit_test(stop_words_are_sorted)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
