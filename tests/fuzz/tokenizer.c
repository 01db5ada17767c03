/* Arbitrary bytes as text, and as vocabulary: never a crash; for valid UTF-8 every id is in the vocabulary and the
 * offsets are in bounds and in order; words and sentences too.
 *
 * Input: one byte of options, then the text; where bit 7 is set, a vocabulary comes before the text: lines up to an
 * empty one. */
#include "base/error.h"
#include "engine/text/tokenizer.h"
#include "engine/text/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OWN_TOKENS = 23, TOKENS_MAX = 64 };
static const char *const own_tokens[OWN_TOKENS] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a",        "b", "the",
                                                   "##a",   "##b",   "##the", "##s",   "é",      "##é",      "e", "##e",
                                                   "中",    ",",     "##中",  "#",     "ss",     "##\u0307", "i"};

static void require(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "fuzz-tokenizer: %s (%s)\n", what, sw_error());
  abort();
}

static void check_spans(const sw_spans *spans, size_t bytes, size_t chars) {
  for (size_t i = 0; i < spans->count; i++) {
    const sw_span *s = &spans->items[i];
    require(s->byte_start < s->byte_end && s->byte_end <= bytes && s->start < s->end && s->end <= chars,
            "span out of bounds");
    require(!i || (spans->items[i - 1].byte_end <= s->byte_start && spans->items[i - 1].end <= s->start),
            "spans out of order");
  }
}

static void check_encoding(const sw_encoding *e, size_t vocab_size, size_t chars) {
  for (size_t i = 0; i < e->count; i++) {
    require(e->ids[i] >= 0 && (size_t)e->ids[i] < vocab_size, "id outside the vocabulary");
    require(e->start[i] >= 0 && e->start[i] < e->end[i] && (size_t)e->end[i] <= chars, "offsets out of bounds");
    require(!i || (e->start[i - 1] <= e->start[i] && e->end[i - 1] <= e->end[i]), "offsets out of order");
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  unsigned flags = *data++;
  size--;

  const char *tokens[TOKENS_MAX];
  size_t token_bytes[TOKENS_MAX], count = 0;
  for (; count < OWN_TOKENS && (!(flags & 128) || count < 5); count++) {
    tokens[count] = own_tokens[count];
    token_bytes[count] = strlen(own_tokens[count]);
  }
  while (flags & 128 && size && count < TOKENS_MAX) {
    const uint8_t *stop = memchr(data, '\n', size);
    size_t bytes = stop ? (size_t)(stop - data) : size;
    if (bytes) {
      tokens[count] = (const char *)data;
      token_bytes[count++] = bytes;
    }
    data += bytes + (stop != NULL);
    size -= bytes + (stop != NULL);
    if (!bytes) break;
  }
  sw_tokenizer_options options = {.do_lower_case = flags & 1,
                                  .strip_accents = flags & 2 ? -1 : (flags & 4) != 0,
                                  .tokenize_chinese_chars = !(flags & 8),
                                  .clean_text = !(flags & 16),
                                  .max_chars_per_word = flags & 32 ? 5 : 100};
  sw_tokenizer *tokenizer;
  if (sw_tokenizer_open(tokens, token_bytes, count, &options, &tokenizer)) {
    require(flags & 128, "the fixed vocabulary was refused");
    return 0;
  }

  /* a copy of exact size, so that the sanitizer sees every read beyond it */
  char *text = malloc(size ? size : 1);
  if (!text) abort();
  if (size) memcpy(text, data, size);
  int has_nul = size && memchr(text, 0, size), is_valid = !sw_check_utf8(text, size);
  size_t chars = sw_count_code_points(text, size);
  sw_encoding e = {0};
  sw_spans spans = {0};
  for (int round = 0; round < 2; round++) { /* the second time out of the cache */
    int encoded = !sw_tokenizer_encode(tokenizer, text, size, &e);
    require(is_valid ? encoded : has_nul || !encoded, "encode and sw_check_utf8 differ about UTF-8");
    if (encoded) check_encoding(&e, count, chars);
  }
  if (!sw_split_words(text, size, &spans)) check_spans(&spans, size, chars);
  require((sw_split_sentences(text, size, &spans) == 0) == is_valid, "sentences and sw_check_utf8 differ about UTF-8");
  if (is_valid) check_spans(&spans, size, chars);
  sw_encoding_close(&e);
  sw_spans_close(&spans);
  sw_tokenizer_close(tokenizer);
  free(text);
  return 0;
}
