/* Postings as token sequences for the masked language model: read and encoded once, kept in memory.
 *
 * A posting's sentences (words.h) are packed, in order, into sequences of at most max_length tokens; a sentence that is longer by itself
 * is split between words. Nothing is cut away; a text that was there before is left out, and counted. Tokens are kept without [CLS] and [SEP], in two bytes each where the vocabulary allows it. */
#ifndef SW_DATA_TEXT_SET_H
#define SW_DATA_TEXT_SET_H
#include "engine/data/postings.h"
#include "engine/text/tokenizer.h"

typedef struct {
  size_t count;       /* sequences */
  int32_t *lengths;   /* [count] tokens, with [CLS] and [SEP]; 3..max_length */
  uint64_t tokens;    /* sum of lengths */
  uint64_t postings;
  uint64_t bytes;     /* of memory */
  int32_t cls, sep;
  int wide;           /* tokens of four bytes */
  void *ids;          /* of all sequences, one behind the other */
  uint64_t *starts;   /* [count] */
} sw_text_set;

typedef struct {
  const sw_tokenizer *tokenizer;
  int max_length;        /* counts [CLS] and [SEP], at least 3 */
  uint64_t max_bytes;    /* of memory for all sequences; more is a failure */
  double holdout;        /* the share of the postings, by the hash of their text, that goes to the other set */
  sw_postings_options postings;
  const char *progress;  /* what the progress bar says; NULL: none */
} sw_text_options;

/* What was read, for the manifest. */
typedef struct {
  uint64_t rows, rejected, repeated;
  char sha256[65]; /* of the usable texts, in order */
} sw_text_facts;

/* `held_out`: where holdout > 0. Fails where no posting can be used, naming the first reason. */
int sw_text_set_read(const char *const *inputs, size_t count, const sw_text_options *options, sw_text_set *out, sw_text_set *held_out,
                     sw_text_facts *facts);
void sw_text_set_close(sw_text_set *set);
/* The tokens of a sequence, with [CLS] and [SEP]: out [lengths[item]]. */
void sw_text_set_get(const sw_text_set *set, size_t item, int32_t *out);
#endif
