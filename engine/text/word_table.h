/* Words of a text as lower-cased runs of letters, and tables of words. */
#ifndef SW_TEXT_WORD_TABLE_H
#define SW_TEXT_WORD_TABLE_H
#include <stddef.h>
#include <stdint.h>

/* A letter is what Unicode calls alphabetic, or a mark on one; "don't" is "don" and "t", "C++" is "c". */
enum { SW_WORD_BYTES = 256 };
typedef struct {
  const uint8_t *at, *begin, *end;
  char word[SW_WORD_BYTES + 8]; /* not terminated */
  size_t bytes;                 /* above SW_WORD_BYTES where the word is too long: then its end is missing */
} sw_words;
sw_words sw_words_of(const char *text, size_t bytes);
/* 1: the next word is there; 0: the end; -1: failure (not UTF-8). Needs sw_unicode_open. */
int sw_words_next(sw_words *words);

/* A table of texts without NUL, each with a number. Zeroed, it is empty. */
typedef struct {
  char *text; /* owned; NULL: a free place */
  uint64_t value;
} sw_word_entry;
typedef struct {
  size_t count, capacity; /* capacity: a power of two, at least twice as large as count */
  sw_word_entry *entries; /* owned: [capacity] */
} sw_word_table;
void sw_word_table_close(sw_word_table *table);
/* NULL where there is none. */
sw_word_entry *sw_word_table_find(const sw_word_table *table, const char *text, size_t bytes);
/* The text's entry, perhaps a new one of value 0; valid until the next is added. NULL on failure. */
sw_word_entry *sw_word_table_add(sw_word_table *table, const char *text, size_t bytes);
#endif
