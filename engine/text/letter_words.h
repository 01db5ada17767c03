/* Words of a text as lower-cased runs of letters. */
#ifndef SW_TEXT_LETTER_WORDS_H
#define SW_TEXT_LETTER_WORDS_H
#include <stddef.h>
#include <stdint.h>

/* A letter is what Unicode calls alphabetic, or a mark on one; "don't" is "don" and "t", "C++" is "c". */
enum { SW_WORD_BYTES = 256 };
typedef struct {
  const uint8_t *at, *begin, *end;
  char word[SW_WORD_BYTES + 8]; /* ends in NUL */
  size_t bytes;                 /* above SW_WORD_BYTES where the word is too long: then its end is missing */
} sw_words;
sw_words sw_words_of(const char *text, size_t bytes);
/* 1: the next word is there; 0: the end; -1: failure (not UTF-8). Needs sw_unicode_open. */
int sw_words_next(sw_words *words);

#endif
