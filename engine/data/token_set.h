/* Labelled examples as token ids for token classification, encoded once and kept.
 *
 * Each word is tokenised by itself and its first sub-word carries its tag in every layer; other sub-words, [CLS] and
 * [SEP] carry SW_IGNORE. A word that has no tokens (control characters only) has no place in a sequence. An example
 * that is longer than max_length becomes several sequences at word boundaries: disjoint ones (overlap 0, for training)
 * or overlapping windows (for evaluation, as tagging does), where a word is labelled in one of them only: no label is
 * cut away, none counts twice. */
#ifndef SW_DATA_TOKEN_SET_H
#define SW_DATA_TOKEN_SET_H
#include "engine/data/labels.h"
#include "engine/text/tokenizer.h"

typedef struct {
  int32_t length;        /* tokens, with [CLS] and [SEP]; 2..max_length */
  uint32_t example;      /* index into labels->examples; the sequences of one example are neighbours, in order */
  float weight;          /* of its example */
  const int32_t *ids;    /* [length] */
  const int32_t *labels; /* [num_layers][length] */
  const int32_t *words; /* [length]: the word (index within its example) that is labelled at this token; -1 elsewhere */
  uint32_t num_words;   /* tokens with words[t] >= 0 */
} sw_sequence;

typedef struct {
  size_t num_layers;
  size_t count;
  sw_sequence *items;
  uint64_t tokens;    /* sum of lengths */
  int32_t max_length; /* the longest sequence */
  uint64_t split;     /* examples that did not fit into one sequence */
  void *arena;        /* owns what the sequences point to */
} sw_token_set;

/* max_length counts [CLS] and [SEP], at least 3. overlap as in windows.h: 0 for training, SW_WINDOW_OVERLAP for
 * evaluation. */
#define SW_WINDOW_OVERLAP 0.25
int sw_token_set_open(const sw_labels *labels, const sw_tokenizer *tokenizer, int max_length, double overlap,
                      sw_token_set *out);
void sw_token_set_close(sw_token_set *set);

/* Splits sequences into batches by token budget: `order` (indices into set->items, already in the wanted order; count
 * of them) is cut greedily wherever one more sequence would exceed max_tokens or max_batch. Writes the first position
 * of each batch, and `count` at last, to starts (room for count + 1); returns the number of batches. A sequence longer
 * than max_tokens makes a batch by itself. */
size_t sw_token_set_cut(const sw_token_set *set, const uint32_t *order, size_t count, int64_t max_tokens, int max_batch,
                        size_t *starts);
#endif
