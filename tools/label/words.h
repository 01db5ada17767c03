/* A sentence as whole words, and where in it a text that a model named stands. */
#ifndef SW_LABEL_WORDS_H
#define SW_LABEL_WORDS_H
#include "base/buffer.h"
#include "engine/text/words.h"

/* Zero-initialise before the first use; memory is kept from sentence to sentence. */
typedef struct {
  const char *text; /* borrowed */
  size_t bytes;
  sw_spans words;     /* sw_split_words: those that training tags */
  sw_buffer keys;     /* of all words: NFKC with case folded, one kind of quote and dash; each ends in NUL */
  uint32_t *key_of;   /* [words.count] into keys */
  uint8_t *silent;    /* [words.count] 1: punctuation that says nothing; + and # do: C, C++ and C# are three */
  size_t capacity;
} sw_label_words;

/* `text` is valid UTF-8. */
int sw_label_words_read(sw_label_words *words, const char *text, size_t bytes);
void sw_label_words_close(sw_label_words *words);
/* 1 where both hold the same words, but for case, white space, quotes and the like. */
int sw_label_words_same(const sw_label_words *a, const sw_label_words *b);

typedef struct {
  uint32_t first, end; /* words, half-open */
} sw_word_range;

typedef struct {
  size_t count, capacity;
  sw_word_range *items; /* owned */
} sw_word_ranges;
void sw_word_ranges_close(sw_word_ranges *ranges);

/* All places in `text` where the words of `named` stand, in order. Of three ways to look the first that finds any counts: letter by letter; word by
 * word whatever the case, white space, quotes, dashes and Unicode form (NFKC); the same without punctuation. Empties `out` first. */
int sw_label_words_find(const sw_label_words *text, const sw_label_words *named, sw_word_ranges *out);
#endif
