/* Masking by BERT's rule, and postings as token sequences: rates within binomial limits, special tokens never chosen or drawn, whole words, the
 * same for the same counters; no token lost or repeated, sequences within their limit, sentences and words whole, equal texts once. */
#include "engine/data/masking.h"
#include "base/error.h"
#include "base/philox.h"
#include "engine/data/text_set.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNK, CLS, SEP, PAD, MASK, SPECIALS, WORDS = 300, VOCAB = SPECIALS + WORDS, LENGTH = 128, ITEMS = 4000 };
static const char *const specials[SPECIALS] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"};
static char texts[VOCAB][16];

static const char *text_of(int i) {
  if (i < SPECIALS) return specials[i];
  snprintf(texts[i], sizeof texts[i], i % 3 == 0 ? "##%c%c%c" : "%c%c%c", 'a' + i % 7, 'a' + i / 7 % 7, 'a' + i / 49);
  return texts[i];
}
/* A vocabulary of words and, every third token, sub-words that go on. */
static sw_tokenizer *open_tokenizer(int count) {
  const char *vocab[VOCAB];
  size_t bytes[VOCAB];
  sw_tokenizer *tokenizer = NULL;
  for (int i = 0; i < count; i++) bytes[i] = strlen(vocab[i] = text_of(i));
  assert_int_equal(sw_tokenizer_open(vocab, bytes, (size_t)count, &SW_TOKENIZER_DEFAULTS, &tokenizer), 0);
  return tokenizer;
}
static int continues(int32_t id) { return id >= SPECIALS && id % 3 == 0; }

static void random_sequence(sw_random *r, int32_t *ids, int32_t length) {
  ids[0] = CLS;
  for (int32_t i = 1; i < length - 1; i++) ids[i] = sw_random_below(r, 20) ? SPECIALS + (int32_t)sw_random_below(r, WORDS) : UNK;
  ids[length - 1] = SEP;
}

/* k of n at probability p, within five standard deviations. */
static void assert_rate(const char *what, double k, double n, double p) {
  const double apart = fabs(k - n * p), limit = 5 * sqrt(n * p * (1 - p));
  if (!(apart <= limit)) fail_msg("%s: %.0f of %.0f, expected %.0f within %.0f", what, k, n, n * p, limit);
}

static void check_rates(int whole_words) {
  sw_tokenizer *tokenizer = open_tokenizer(VOCAB);
  sw_masking m;
  assert_int_equal(sw_masking_open(tokenizer, 0.15, whole_words, &m), 0);
  sw_random r = {.seed = test_seed("masking")};
  double candidates = 0, chosen = 0, masked = 0, kept = 0, random = 0;
  double drawn[VOCAB] = {0}, at[LENGTH] = {0};
  for (uint32_t item = 0; item < ITEMS; item++) {
    int32_t before[LENGTH], ids[LENGTH], positions[LENGTH], labels[LENGTH], own = 0;
    const int32_t length = LENGTH - (int32_t)(item % 2) * 7;
    random_sequence(&r, before, length);
    memcpy(ids, before, sizeof ids);
    const int32_t count = sw_mask(&m, 3, 1, item, ids, length, positions, labels);
    for (int32_t i = 0; i < length; i++) own += before[i] >= SPECIALS;
    if (!whole_words) assert_int_equal(count, lrint(0.15 * own));
    assert_in_range(count, 1, (int)lrint(0.15 * own));
    for (int32_t i = 0, k = 0; i < length; i++) {
      if (k == count || positions[k] != i) {
        assert_int_equal(ids[i], before[i]); /* nothing else changes */
        continue;
      }
      assert_int_equal(labels[k++], before[i]);
      assert_true(before[i] >= SPECIALS);
      assert_true(ids[i] == MASK || ids[i] >= SPECIALS);
      at[i]++;
      if (ids[i] == MASK) masked++;
      else if (ids[i] == before[i]) kept++;
      else random++, drawn[ids[i]]++;
    }
    candidates += own;
    chosen += count;
    if (!whole_words) continue;
    for (int32_t k = 0; k < count; k++) { /* neighbours within a word are chosen with it */
      const int32_t p = positions[k];
      if (continues(before[p]) && before[p - 1] >= SPECIALS) assert_true(k > 0 && positions[k - 1] == p - 1);
      if (continues(before[p + 1])) assert_true(k + 1 < count && positions[k + 1] == p + 1);
    }
  }
  if (!whole_words) assert_rate("chosen", chosen, candidates, 0.15);
  assert_true(chosen > 0.14 * candidates);
  const double same = 0.1 / WORDS; /* a random token may be the one that was there */
  assert_rate("[MASK]", masked, chosen, 0.8);
  assert_rate("kept", kept, chosen, 0.1 + same);
  assert_rate("random", random, chosen, 0.1 - same);
  for (int i = SPECIALS; i < VOCAB; i++) assert_rate("a random token", drawn[i], random, 1.0 / WORDS);
  for (int i = 1; i < LENGTH - 8 && !whole_words; i++) assert_rate("a place", at[i], ITEMS, 0.15 * 0.95);
  sw_masking_close(&m);
  sw_tokenizer_close(tokenizer);
}
static void test_tokens(void **state) { check_rates(0); }
static void test_whole_words(void **state) { check_rates(1); }

static void test_counters(void **state) {
  sw_tokenizer *tokenizer = open_tokenizer(VOCAB);
  sw_masking m;
  assert_int_equal(sw_masking_open(tokenizer, 0.15, 0, &m), 0);
  sw_random r = {.seed = 1};
  int32_t before[LENGTH], ids[5][LENGTH], positions[5][LENGTH], labels[LENGTH];
  const uint32_t seeds[5] = {7, 7, 8, 7, 7}, epochs[5] = {2, 2, 2, 3, 2}, items[5] = {9, 9, 9, 9, 10};
  random_sequence(&r, before, LENGTH);
  for (int i = 0; i < 5; i++) {
    memcpy(ids[i], before, sizeof before);
    memset(positions[i], 0, sizeof positions[i]);
    sw_mask(&m, seeds[i], epochs[i], items[i], ids[i], LENGTH, positions[i], labels);
    for (int k = 0; k < i; k++) /* another seed, epoch or item: another mask */
      assert_int_equal(!memcmp(ids[i], ids[k], sizeof before), i == 1);
  }
  int32_t only[] = {CLS, UNK, SEP};
  assert_int_equal(sw_mask(&m, 1, 0, 0, only, 3, positions[0], labels), 0);
  int32_t word[] = {CLS, SPECIALS, SPECIALS + 1, SPECIALS + 4, SEP}; /* one word of sub-words 6, 9: longer than the share */
  word[2] = 6, word[3] = 9;
  m.whole_words = 1;
  assert_int_equal(sw_mask(&m, 1, 0, 0, word, 5, positions[0], labels), 3);
  sw_masking_close(&m);
  sw_tokenizer_close(tokenizer);
  const char *const vocab[] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "a"};
  const size_t bytes[] = {5, 5, 5, 5, 1};
  assert_int_equal(sw_tokenizer_open(vocab, bytes, 5, &SW_TOKENIZER_DEFAULTS, &tokenizer), 0);
  assert_int_equal(sw_masking_open(tokenizer, 0.15, 0, &m), -1);
  assert_non_null(strstr(sw_error(), "[MASK]"));
  sw_tokenizer_close(tokenizer);
}

/* --- text sets --- */

/* Sentences of 1 to 40 words of 1 to 3 tokens, one word now and then of 30. */
static size_t random_text(sw_random *r, char *out) {
  size_t n = 0;
  const uint32_t sentences = 1 + sw_random_below(r, 9);
  for (uint32_t s = 0; s < sentences; s++) {
    const uint32_t words = 1 + sw_random_below(r, 40);
    for (uint32_t w = 0; w < words; w++) {
      const uint32_t parts = sw_random_below(r, 50) ? 1 + sw_random_below(r, 3) : 30;
      for (uint32_t k = 0; k < parts; k++) {
        int id;
        do id = SPECIALS + (int)sw_random_below(r, WORDS);
        while (continues(id) != (k > 0));
        n += (size_t)sprintf(out + n, "%s%s", k ? "" : " ", text_of(id) + (k ? 2 : 0));
      }
    }
    n += (size_t)sprintf(out + n, "\n\n");
  }
  return n;
}

static sw_text_facts facts;
static void read_set(const char *path, const sw_tokenizer *tokenizer, int max_length, double holdout, sw_text_set *set, sw_text_set *held_out) {
  const sw_text_options o = {.tokenizer = tokenizer, .max_length = max_length, .max_bytes = 1 << 24, .holdout = holdout};
  assert_int_equal(sw_text_set_read(&path, 1, &o, set, held_out, &facts), 0);
  assert_int_equal(strlen(facts.sha256), 64);
}

static void test_sequences(void **state) {
  sw_tokenizer *tokenizer = open_tokenizer(VOCAB);
  sw_random r = {.seed = test_seed("text sets")};
  for (int round = 0; round < 200; round++) {
    static char text[60000];
    const size_t bytes = random_text(&r, text);
    const int max_length = 3 + (int)sw_random_below(&r, 60);
    const int32_t room = max_length - 2;
    const char *path = test_write("posting.txt", text, bytes);
    sw_text_set set;
    read_set(path, tokenizer, max_length, 0, &set, NULL);
    sw_encoding whole = {0};
    assert_int_equal(sw_tokenizer_encode(tokenizer, text, bytes, &whole), 0);
    size_t at = 0;
    for (size_t i = 0; i < set.count; i++) {
      int32_t ids[64];
      assert_in_range(set.lengths[i], 3, max_length);
      sw_text_set_get(&set, i, ids);
      assert_int_equal(ids[0], CLS);
      assert_int_equal(ids[set.lengths[i] - 1], SEP);
      if (continues(ids[1])) { /* within a word only where it is longer than a sequence */
        size_t start = at, end = at;
        while (continues(whole.ids[start])) start--;
        while (end < whole.count && continues(whole.ids[end])) end++;
        assert_true((int32_t)(end - start) > room);
      }
      for (int32_t k = 1; k < set.lengths[i] - 1; k++) assert_int_equal(ids[k], whole.ids[at++]);
    }
    assert_int_equal(at, whole.count); /* every token, in order, once */
    assert_int_equal(set.tokens, whole.count + 2 * set.count);
    sw_encoding_close(&whole);
    sw_text_set_close(&set);
  }
  /* sentences are not torn where they fit: 6, 6 and 3 tokens with room for 12 */
  const char *const s = "aaa aaa aaa aaa aaa aaa\n\naaa aaa aaa aaa aaa aaa\n\naaa aaa aaa\n";
  sw_text_set set;
  read_set(test_write_text("three.txt", s), tokenizer, 14, 0, &set, NULL);
  assert_int_equal(set.count, 2);
  assert_int_equal(set.lengths[1], 5);
  sw_text_set_close(&set);
  sw_tokenizer_close(tokenizer);
}

static void test_holdout(void **state) {
  sw_tokenizer *tokenizer = open_tokenizer(VOCAB);
  sw_random r = {.seed = 5};
  enum { TEXTS = 2000 };
  char *lines = malloc(TEXTS * 2 * 64);
  size_t n = 0;
  for (int i = 0; i < TEXTS; i++) { /* every text twice */
    char line[64];
    size_t own = 0;
    for (int w = 0; w < 8; w++) {
      int id;
      do id = SPECIALS + (int)sw_random_below(&r, WORDS);
      while (continues(id));
      own += (size_t)sprintf(line + own, "%s ", text_of(id));
    }
    for (int k = 0; k < 2; k++) n += (size_t)sprintf(lines + n, "{\"text\":\"%s\"}\n", line);
  }
  const char *path = test_write("lines.jsonl", lines, n);
  free(lines);
  sw_text_set all, set, held_out;
  read_set(path, tokenizer, 32, 0, &all, NULL);
  read_set(path, tokenizer, 32, 0.2, &set, &held_out);
  assert_int_equal(facts.rows, 2 * TEXTS);
  assert_int_equal(facts.repeated, TEXTS);
  assert_int_equal(set.postings + held_out.postings, TEXTS);
  assert_int_equal(set.tokens + held_out.tokens, all.tokens);
  assert_rate("held out", (double)held_out.postings, TEXTS, 0.2);
  sw_text_set_close(&all), sw_text_set_close(&set), sw_text_set_close(&held_out);

  sw_text_options o = {.tokenizer = tokenizer, .max_length = 32, .max_bytes = 10000};
  assert_int_equal(sw_text_set_read(&path, 1, &o, &set, NULL, &facts), -1); /* larger than allowed */
  assert_non_null(strstr(sw_error(), "--memory"));
  path = test_write_text("none.jsonl", "{\"text\": \"\"}\n");
  o.max_bytes = 1 << 20;
  assert_int_equal(sw_text_set_read(&path, 1, &o, &set, NULL, &facts), -1);
  assert_non_null(strstr(sw_error(), "row 1: the text is empty"));
  sw_tokenizer_close(tokenizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokens), cmocka_unit_test(test_whole_words), cmocka_unit_test(test_counters),
                                     cmocka_unit_test(test_sequences), cmocka_unit_test(test_holdout)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
