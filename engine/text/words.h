/* Words and sentences of a text, with offsets.
 *
 * The functions that fill an sw_spans empty it first and keep its memory: zero-initialise it before the first call,
 * close it after the last. A text that is not UTF-8, or of 2 GB or more, is a failure. Thread-safe. */
#ifndef SW_TEXT_WORDS_H
#define SW_TEXT_WORDS_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint32_t byte_start, byte_end; /* half-open, bytes of the UTF-8 text */
  uint32_t start, end;           /* half-open, Unicode code points */
} sw_span;

typedef struct {
  size_t count, capacity;
  sw_span *items; /* owned */
} sw_spans;
void sw_spans_close(sw_spans *spans);
int sw_spans_append(sw_spans *spans, sw_span span);

/* The words of a text as BERT's pre-tokenizer sees them: split at white space, punctuation characters and CJK
 * characters alone. Control characters, which BERT removes (zero-width joiners too), neither split a word nor stand at
 * its ends. */
int sw_split_words(const char *text, size_t bytes, sw_spans *out);

/* Sentences and list items, in order. White space around is not part of a sentence; empty sentences are left out.
 * Together they cover every character that is not white space; a bullet or number belongs to the item it begins.
 *
 * Lines: most postings have a paragraph or a list item on a line, so a line break ends a sentence unless
 *   - the line holds nothing but a bullet or a number, or
 *   - the line does not end in . ! ? : or ; and the next begins with no bullet or number, and the sentence
 *     clearly goes on:
 *       the line ends in a word that ends no sentence ("the", "with"), or
 *       the next begins with a word that begins none ("is", "and", in lower case), or
 *       the line is wrapped: the first word of the next would not have fitted (the paragraph's longest line, of 40
 *       to 120 characters, is the measure), and the next begins in lower case or this ends in a comma, a dash, "and" or
 *       the like.
 * A blank line always ends a sentence; so does a heading, for it meets none of these.
 * Bullets: - * + – — o before white space, and • ● ▪ and their like; numbers: 1. 2) (3) a). A • in the middle of
 *   a line, after white space, begins an item as well.
 * Within that, ICU's sentence breaks (Unicode Standard Annex 29), except after abbreviations ("e.g.", "Sr.", "Inc.",
 *   "U.S."; those that can end a sentence do so before words such as "The" and "We"), after a list item's number, and
 *   within ".NET". */
int sw_split_sentences(const char *text, size_t bytes, sw_spans *out);

/* 0 when `text` is valid UTF-8 without NUL; otherwise -1 with the byte offset in the message. */
int sw_check_utf8(const char *text, size_t bytes);
/* Number of code points of valid UTF-8. */
size_t sw_count_code_points(const char *text, size_t bytes);
#endif
