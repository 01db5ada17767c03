/* Masking for the masked language model, by BERT's rule (Devlin et al. 2018, section 3.1 and create_pretraining_data.py): of a sequence's
 * tokens, special ones aside, a share is chosen, rounded, at least one; of the chosen ones 80 % are replaced by [MASK], 10 % by a random token
 * that is not special, 10 % stay. With whole words, words are chosen with all their sub-words ("##..."); one that would exceed the share is passed
 * over, unless nothing else is there.
 *
 * All of it follows from (seed, epoch, item) by counters: the same on every device, in any order and after a resume. */
#ifndef SW_DATA_MASKING_H
#define SW_DATA_MASKING_H
#include "engine/text/tokenizer.h"

typedef struct {
  double share; /* of the tokens, in (0, 1) */
  int whole_words;
  int32_t mask, vocab_size;
  uint8_t *kinds; /* [vocab_size] SW_TOKEN_*; owned */
} sw_masking;
enum { SW_TOKEN_PLAIN, SW_TOKEN_CONTINUES /* "##..." */, SW_TOKEN_SPECIAL };

/* Fails where the vocabulary has no [MASK], or only special tokens. */
int sw_masking_open(const sw_tokenizer *tokenizer, double share, int whole_words, sw_masking *out);
void sw_masking_close(sw_masking *masking);
/* Masks ids [length] in place; returns the number of chosen tokens, 0 where all are special. positions (increasing) and labels (the tokens
 * that were there): room for `length` each. epoch < 2^24. */
int32_t sw_mask(const sw_masking *masking, uint64_t seed, uint32_t epoch, uint32_t item, int32_t *ids, int32_t length, int32_t *positions,
                int32_t *labels);
#endif
