/* The sentences of postings, streamed; equal inputs give the same ones in the same order. */
#ifndef SW_LABEL_SENTENCES_H
#define SW_LABEL_SENTENCES_H
#include "engine/data/postings.h"
#include "engine/text/words.h"

enum { SW_MAX_SENTENCE = 16 << 10 }; /* bytes; more is no sentence */

typedef struct {
  sw_postings *postings;
  sw_posting posting;
  sw_spans spans;
  size_t next;
  int whole; /* each text is one sentence */
  int open;
} sw_sentences;

typedef struct {
  const char *text; /* in the posting; not NUL-terminated */
  size_t bytes;
  const char *posting, *date; /* id and date of its posting */
  size_t number;              /* within it, from 1 */
} sw_sentence;

int sw_sentences_open(const char *const *inputs, size_t count, const sw_postings_options *options, int whole, sw_sentences *out);
/* 1: `out` is the next one, until the next call; 0: the end; -1. */
int sw_sentences_next(sw_sentences *sentences, sw_sentence *out);
int sw_sentences_close(sw_sentences *sentences);
#endif
