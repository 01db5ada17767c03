/* From what a model named to spans of the sentence: whole words, found in the text, not overlapping within a label. */
#ifndef SW_LABEL_VERIFY_H
#define SW_LABEL_VERIFY_H
#include "tools/label/answer.h"

typedef struct {
  uint32_t first, end; /* words of the sentence, half-open */
  int label;
  int votes;  /* answers that have it */
  int source; /* the answer it was first seen in; mentions that an answer repeats count once */
} sw_label_span;

typedef struct {
  size_t count, capacity;
  sw_label_span *items; /* owned */
} sw_label_spans;
void sw_label_spans_close(sw_label_spans *spans);

/* Told of each mention that could not be used: `reason` is one line. */
typedef int sw_mention_dropped(void *context, const sw_mention *mention, const char *reason);

typedef struct {
  sw_label_words named;
  sw_word_ranges places;
} sw_verifier; /* scratch; zero-initialise */
void sw_verifier_close(sw_verifier *verifier);

/* Adds the spans of answer number `source` to `spans`, a vote each. A text that is named once, without saying which of its places is meant, stands for
 * all of them; one that is named several times for as many, in order. */
int sw_verify(sw_verifier *verifier, const sw_label_words *sentence, const sw_mentions *mentions, const sw_label_names *labels, int source,
              sw_label_spans *spans, sw_mention_dropped *dropped, void *context);
/* Keeps the spans that more than half of `answers` have; of those of one label that overlap the one with more votes, then the longer, then the
 * first. Sorted by place. *weight: the mean share of the answers that agree with what was decided about a span; 1 where none was named. */
void sw_settle(sw_label_spans *spans, int answers, double *weight);
#endif
