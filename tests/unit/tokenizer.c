/* The tokenizer: a small vocabulary by hand, and properties on random text. tests/parity compares it with `tokenizers`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "engine/text/tokenizer.h"
#include "engine/text/trie.h"
#include "engine/text/unicode.h"
#include "engine/text/words.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  PAD,
  UNK,
  CLS,
  SEP,
  MASK,
  UN,
  AFF,
  ABLE,
  THE,
  A,
  B,
  COMMA,
  BRACKET,
  HASH,
  S,
  ED,
  ZHONG,
  E_ACUTE,
  THE_UP,
  A_UP,
  DOT_I,
  LONG
};
static const char *const vocab[] = {
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "the", "a",        "b",
    ",",     "[",     "#",     "##s",   "##ed",   "中", "é",     "The",    "A",   "##\u0307", "electroencephalograph"};
enum { VOCAB = sizeof vocab / sizeof vocab[0] };

static sw_tokenizer *open_tokenizer(const char *const *tokens, size_t count, sw_tokenizer_options options) {
  size_t *bytes = malloc(count * sizeof *bytes);
  assert_non_null(bytes);
  for (size_t i = 0; i < count; i++) bytes[i] = strlen(tokens[i]);
  sw_tokenizer *t = NULL;
  int status = sw_tokenizer_open(tokens, bytes, count, &options, &t);
  free(bytes);
  assert_int_equal(status, t ? 0 : -1);
  return t;
}

static const sw_tokenizer_options cased = {
    .max_chars_per_word = 100, .strip_accents = -1, .clean_text = 1, .tokenize_chinese_chars = 1};

typedef struct {
  const char *text;
  int count;
  struct {
    int32_t id, start, end;
  } tokens[8];
} example;

static void check(const sw_tokenizer *t, const example *examples, size_t count) {
  sw_encoding e = {0};
  for (size_t i = 0; i < count; i++) {
    const example *x = &examples[i];
    assert_int_equal(sw_tokenizer_encode(t, x->text, strlen(x->text), &e), 0);
    if ((int)e.count != x->count) fail_msg("\"%s\": %zu tokens, %d expected", x->text, e.count, x->count);
    for (int k = 0; k < x->count; k++)
      if (e.ids[k] != x->tokens[k].id || e.start[k] != x->tokens[k].start || e.end[k] != x->tokens[k].end)
        fail_msg("\"%s\": token %d is %d [%d, %d), expected %d [%d, %d)", x->text, k, e.ids[k], e.start[k], e.end[k],
                 x->tokens[k].id, x->tokens[k].start, x->tokens[k].end);
  }
  sw_encoding_close(&e);
}

static void test_uncased(void **state) {
  static const example examples[] = {
      {"", 0, {{0}}},
      {" \t\r\n ", 0, {{0}}},
      {"the", 1, {{THE, 0, 3}}},
      {"THE,the", 3, {{THE, 0, 3}, {COMMA, 3, 4}, {THE, 4, 7}}},
      {"unaffable", 3, {{UN, 0, 2}, {AFF, 2, 5}, {ABLE, 5, 9}}},
      {"unaffablex", 1, {{UNK, 0, 10}}},
      {"  unaffableds ", 1, {{UNK, 2, 13}}},
      {"Electroencephalographs", 2, {{LONG, 0, 21}, {S, 21, 22}}},
      {"[CLS]the[MASK]", 3, {{CLS, 0, 5}, {THE, 5, 8}, {MASK, 8, 14}}},
      {"[[SEP]", 2, {{BRACKET, 0, 1}, {SEP, 1, 6}}},
      {"[cls]", 3, {{BRACKET, 0, 1}, {UNK, 1, 4}, {UNK, 4, 5}}},
      {"the\u0301 a", 2, {{THE, 0, 3}, {A, 5, 6}}}, /* a mark is removed, and is in no token */
      {"th\u00E9s", 2, {{THE, 0, 3}, {S, 3, 4}}},   /* é becomes e */
      {"un\u200Baff\uFEFFable",
       3,
       {{UN, 0, 2}, {AFF, 3, 6}, {ABLE, 7, 11}}}, /* nothing of what was removed ends a word */
      {"a\u00A0a\u2028b", 3, {{A, 0, 1}, {A, 2, 3}, {B, 4, 5}}},
      {"a中a\uFFFD", 3, {{A, 0, 1}, {ZHONG, 1, 2}, {A, 2, 3}}},
      {"\u0301\u0302", 0, {{0}}},
      {"a\u2019s", 3, {{A, 0, 1}, {UNK, 1, 2}, {UNK, 2, 3}}},
      {"##s", 3, {{HASH, 0, 1}, {HASH, 1, 2}, {UNK, 2, 3}}},
  };
  sw_tokenizer *t = open_tokenizer(vocab, VOCAB, SW_TOKENIZER_DEFAULTS);
  assert_non_null(t);
  check(t, examples, sizeof examples / sizeof examples[0]);

  char word[112] = "a"; /* 100 letters are a word, 101 are unknown, on both paths */
  for (int extra = 0; extra < 2; extra++) {
    memset(word + 1, 0, sizeof word - 1);
    for (int i = 1; i < 100 + extra; i++) strcat(word, "s");
    sw_encoding e = {0};
    assert_int_equal(sw_tokenizer_encode(t, word, strlen(word), &e), 0);
    assert_int_equal(e.count, extra ? 1 : 100);
    assert_int_equal(e.ids[0], extra ? UNK : A);
    assert_int_equal(e.end[e.count - 1], 100 + extra);
    strcat(word, "\u0301");
    assert_int_equal(sw_tokenizer_encode(t, word, strlen(word), &e), 0);
    assert_int_equal(e.count, extra ? 1 : 100);
    assert_int_equal(e.end[e.count - 1], 100 + extra);
    sw_encoding_close(&e);
  }
  sw_tokenizer_close(t);
}

static void test_cased(void **state) {
  static const example examples[] = {
      {"The the THE", 3, {{THE_UP, 0, 3}, {THE, 4, 7}, {UNK, 8, 11}}},
      {"\u00E9 e\u0301", 2, {{E_ACUTE, 0, 1}, {UNK, 2, 4}}}, /* accents stay, and are not composed */
      {"A,[PAD]", 3, {{A_UP, 0, 1}, {COMMA, 1, 2}, {PAD, 2, 7}}},
  };
  sw_tokenizer *t = open_tokenizer(vocab, VOCAB, cased);
  assert_non_null(t);
  check(t, examples, sizeof examples / sizeof examples[0]);
  sw_tokenizer_close(t);

  /* lower-casing without stripping: one character becomes two, both from the same place */
  static const example two[] = {{"\u0130", 1, {{UNK, 0, 1}}}, {"A\u0130", 1, {{UNK, 0, 2}}}};
  sw_tokenizer_options keep_accents = SW_TOKENIZER_DEFAULTS;
  keep_accents.strip_accents = 0;
  t = open_tokenizer(vocab, VOCAB, keep_accents);
  assert_non_null(t);
  check(t, two, 2);
  sw_tokenizer_close(t);
  static const char *const with_i[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "i", "##\u0307"};
  static const example expanded[] = {{"\u0130", 2, {{4, 0, 1}, {5, 0, 1}}}};
  t = open_tokenizer(with_i, 6, keep_accents);
  assert_non_null(t);
  check(t, expanded, 1);
  sw_tokenizer_close(t);
}

static void expect_refusal(const char *const *tokens, size_t count, sw_tokenizer_options options, const char *message) {
  sw_tokenizer *t = open_tokenizer(tokens, count, options);
  assert_null(t);
  if (!strstr(sw_error(), message)) fail_msg("the message is \"%s\"; it should have \"%s\"", sw_error(), message);
}

static void test_refusals(void **state) {
  static const char *const no_unk[] = {"[PAD]", "[CLS]", "[SEP]", "a"};
  static const char *const twice[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "a"};
  static const char *const broken[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a\xFF"};
  expect_refusal(no_unk, 4, SW_TOKENIZER_DEFAULTS, "no token [UNK]");
  expect_refusal(vocab, 0, SW_TOKENIZER_DEFAULTS, "0 tokens");
  expect_refusal(twice, 7, SW_TOKENIZER_DEFAULTS, "\"a\" appears twice, as tokens 4 and 6");
  expect_refusal(broken, 5, SW_TOKENIZER_DEFAULTS, "token 4");
  sw_tokenizer_options options = SW_TOKENIZER_DEFAULTS;
  options.max_chars_per_word = 0;
  expect_refusal(vocab, VOCAB, options, "max_chars_per_word is 0");

  sw_tokenizer *t = open_tokenizer(vocab, VOCAB, SW_TOKENIZER_DEFAULTS);
  sw_encoding e = {0};
  const char *bad[] = {"the \xE9t\xE9",        "the \xC0\x80", "the \xED\xA0\x80",
                       "the \xF4\x90\x80\x80", "the \xE4\xB8", "the \x80"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    assert_int_equal(sw_tokenizer_encode(t, bad[i], strlen(bad[i]), &e), -1);
    assert_non_null(strstr(sw_error(), "byte 4"));
    assert_int_equal(e.count, 0);
  }
  assert_int_equal(sw_tokenizer_encode(t, "the", 3, &e), 0); /* the encoding is good as before */
  assert_int_equal(e.count, 1);
  assert_int_equal(sw_tokenizer_encode(t, "a\0b", 3, &e), 0); /* NUL is a control character like others */
  assert_int_equal(e.count, 1);
  assert_int_equal(e.end[0], 3);
  sw_encoding_close(&e);
  sw_tokenizer_close(t);
}

static void test_accessors(void **state) {
  sw_tokenizer *t = open_tokenizer(vocab, VOCAB, cased);
  sw_special_ids ids = sw_tokenizer_special_ids(t);
  assert_true(ids.pad == PAD && ids.unk == UNK && ids.cls == CLS && ids.sep == SEP && ids.mask == MASK);
  assert_int_equal(sw_tokenizer_vocab_size(t), VOCAB);
  size_t bytes;
  for (int i = 0; i < VOCAB; i++) {
    const char *text = sw_tokenizer_token(t, i, &bytes);
    assert_int_equal(bytes, strlen(vocab[i]));
    assert_memory_equal(text, vocab[i], bytes);
  }
  assert_null(sw_tokenizer_token(t, VOCAB, &bytes));
  assert_null(sw_tokenizer_token(t, -1, &bytes));
  assert_int_equal(sw_tokenizer_get_options(t)->strip_accents, -1);
  sw_tokenizer_close(t);
  sw_tokenizer_close(NULL);
}

/* --- properties */

static uint64_t seed;

/* All words of one and two of a few letters, as whole words and as pieces: most of what is made of them is known. */
static sw_tokenizer *open_syllables(sw_tokenizer_options options) {
  static const char letters[] = "aeirstnAX0";
  static char text[5 + 2 * 110][8];
  static const char *tokens[5 + 2 * 110];
  size_t count = 5;
  for (size_t i = 0; i < 5; i++) tokens[i] = vocab[i];
  for (int inside = 0; inside < 2; inside++)
    for (int i = 0; i < 10; i++)
      for (int k = -1; k < 10; k++) {
        if (k >= 0 && (i * 10 + k) % 7 == 3) continue; /* some are missing */
        char second = (char)(k < 0 ? 0 : letters[k]);  /* 0 ends the string earlier */
        snprintf(text[count], sizeof text[0], "%s%c%c", inside ? "##" : "", letters[i], second);
        tokens[count] = text[count];
        count++;
      }
  sw_tokenizer *t = open_tokenizer(tokens, count, options);
  assert_non_null(t);
  return t;
}

static size_t random_ascii(sw_random *r, char *text, size_t most) {
  static const char alphabet[] = "aeirstnAX0aeirstnaeirstnq ,[";
  size_t bytes = sw_random_below(r, (uint32_t)most);
  for (size_t i = 0; i < bytes; i++) text[i] = alphabet[sw_random_below(r, sizeof alphabet - 1 - (i % 3 ? 3 : 0))];
  return bytes;
}

/* A zero-width space after every letter takes a word off the ASCII path, and must change nothing else. */
static void test_two_paths_agree(void **state) {
  sw_random r = {seed, 1, 0};
  for (int round = 0; round < 2; round++) {
    sw_tokenizer *t = open_syllables(round ? cased : SW_TOKENIZER_DEFAULTS);
    sw_encoding plain = {0}, spaced = {0};
    for (int n = 0; n < 20000; n++) {
      char text[300], other[1200];
      size_t bytes = random_ascii(&r, text, n % 100 ? 60 : sizeof text), length = 0;
      for (size_t i = 0; i < bytes; i++) {
        other[length++] = text[i];
        if (text[i] != '[') memcpy(other + length, "\u200B", 3), length += 3;
      }
      /* a buffer of exact size, so that the sanitizer sees a read beyond it */
      char *exact = malloc(bytes ? bytes : 1);
      assert_non_null(exact);
      memcpy(exact, text, bytes);
      assert_int_equal(sw_tokenizer_encode(t, exact, bytes, &plain), 0);
      free(exact);
      assert_int_equal(sw_tokenizer_encode(t, other, length, &spaced), 0);
      assert_int_equal(plain.count, spaced.count);
      int32_t position[300], place = 0; /* of each character in the other text */
      for (size_t i = 0; i < bytes; i++) {
        position[i] = place;
        place += text[i] != '[' ? 2 : 1;
      }
      for (size_t k = 0; k < plain.count; k++) {
        assert_int_equal(plain.ids[k], spaced.ids[k]);
        assert_int_equal(position[plain.start[k]], spaced.start[k]);
        assert_int_equal(position[plain.end[k] - 1] + 1, spaced.end[k]);
      }
    }
    sw_encoding_close(&plain);
    sw_encoding_close(&spaced);
    sw_tokenizer_close(t);
  }
}

/* One encoding that goes from one tokenizer to another must not remember the other's words. */
static void test_encoding_changes_tokenizer(void **state) {
  static const char *const one[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"};
  static const char *const two[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "b", "a"};
  sw_encoding e = {0};
  for (int i = 0; i < 4; i++) {
    sw_tokenizer *t = open_tokenizer(i % 2 ? one : two, 6, SW_TOKENIZER_DEFAULTS);
    assert_int_equal(sw_tokenizer_encode(t, "a b", 3, &e), 0);
    assert_int_equal(e.ids[0], i % 2 ? 4 : 5);
    sw_tokenizer_close(t); /* the next may get the same address */
  }
  sw_encoding_close(&e);
}

typedef struct {
  const sw_tokenizer *tokenizer;
  uint64_t sum;
} thread_work;

static void *encode_in_thread(void *argument) {
  thread_work *w = argument;
  sw_random r = {seed, 2, 0};
  sw_encoding e = {0};
  char text[100];
  for (int n = 0; n < 5000; n++) {
    size_t bytes = random_ascii(&r, text, sizeof text);
    if (sw_tokenizer_encode(w->tokenizer, text, bytes, &e)) break;
    for (size_t k = 0; k < e.count; k++) w->sum = w->sum * 31 + (uint64_t)e.ids[k] * 7 + (uint64_t)e.start[k];
    sw_char_class(sw_random_below(&r, SW_CODE_POINTS)); /* fills pages of the table beside the other thread */
  }
  sw_encoding_close(&e);
  return NULL;
}

static void test_threads(void **state) {
  sw_tokenizer *t = open_syllables(SW_TOKENIZER_DEFAULTS);
  thread_work work[4];
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) {
    work[i] = (thread_work){t, 0};
    assert_int_equal(pthread_create(&threads[i], NULL, encode_in_thread, &work[i]), 0);
  }
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  assert_true(work[0].sum != 0);
  for (int i = 1; i < 4; i++) assert_true(work[i].sum == work[0].sum);
  sw_tokenizer_close(t);
}

static int compare_text(const void *a, const void *b) {
  return strcmp(((const sw_trie_key *)a)->text, ((const sw_trie_key *)b)->text);
}

static void test_trie(void **state) {
  enum { KEYS = 3000 };
  static char text[KEYS][8];
  sw_trie_key keys[KEYS];
  sw_random r = {seed, 3, 0};
  for (int i = 0; i < KEYS; i++) {
    size_t bytes = 1 + sw_random_below(&r, 6);
    for (size_t k = 0; k < bytes; k++)
      text[i][k] = (char)(i % 2 ? 'a' + (int)sw_random_below(&r, 3) : 1 + (int)sw_random_below(&r, 255));
    keys[i] = (sw_trie_key){text[i], (uint32_t)strlen(text[i]), 0};
  }
  qsort(keys, KEYS, sizeof keys[0], compare_text);
  size_t count = 0;
  for (size_t i = 0; i < KEYS; i++)
    if (!i || strcmp(keys[count - 1].text, keys[i].text)) keys[count++] = keys[i];
  for (size_t i = 0; i < count; i++) keys[i].value = (uint32_t)i * 5;
  sw_trie trie;
  assert_int_equal(sw_trie_open(keys, count, &trie), 0);
  for (int n = 0; n < 20000; n++) {
    uint8_t query[8];
    size_t bytes = sw_random_below(&r, 9), length = 0, best = 0;
    for (size_t k = 0; k < bytes; k++)
      query[k] = (uint8_t)(n % 2 ? 'a' + sw_random_below(&r, 3) : sw_random_below(&r, 256));
    uint32_t expected = SW_TRIE_NONE, found = sw_trie_longest(&trie, 0, query, bytes, &length);
    for (size_t i = 0; i < count; i++)
      if (keys[i].bytes <= bytes && keys[i].bytes > best && !memcmp(keys[i].text, query, keys[i].bytes)) {
        best = keys[i].bytes;
        expected = keys[i].value;
      }
    assert_int_equal(found, expected);
    if (found != SW_TRIE_NONE) assert_int_equal(length, best);
  }
  sw_trie_close(&trie);
  assert_int_equal(sw_trie_open(keys, 0, &trie), 0); /* no key at all */
  size_t length;
  assert_int_equal(sw_trie_longest(&trie, 0, (const uint8_t *)"abc", 3, &length), SW_TRIE_NONE);
  sw_trie_close(&trie);
}

int main(void) {
  seed = getenv("SW_TEST_SEED") ? strtoull(getenv("SW_TEST_SEED"), NULL, 0) : (uint64_t)time(NULL);
  printf("seed %llu\n", (unsigned long long)seed);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_uncased),         cmocka_unit_test(test_cased),
      cmocka_unit_test(test_refusals),        cmocka_unit_test(test_accessors),
      cmocka_unit_test(test_two_paths_agree), cmocka_unit_test(test_encoding_changes_tokenizer),
      cmocka_unit_test(test_threads),         cmocka_unit_test(test_trie),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
