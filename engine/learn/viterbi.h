/* B/I/O tags: what they mean, the most probable valid sequence of them, and the entities in a sequence. */
#ifndef SW_LEARN_VITERBI_H
#define SW_LEARN_VITERBI_H
#include <stddef.h>
#include <stdint.h>

/* The labels of one layer, taken apart. */
typedef struct {
  size_t num_labels, num_types;
  char **types;      /* [num_types] owned, sorted by name; "" for the nameless type of plain "B" and "I" */
  int32_t *type_of;  /* [num_labels]; -1 for "O" */
  int32_t *is_begin; /* [num_labels]; 1 for B */
  int32_t *begin_of; /* [num_types]: the label B of the type, -1 where there is none */
} sw_viterbi_rules;

/* `labels`: "O", "B", "I", "B-<type>", "I-<type>" in any order; fails for any other. */
int sw_viterbi_rules_open(char *const *labels, size_t num_labels, sw_viterbi_rules *out);
void sw_viterbi_rules_close(sw_viterbi_rules *rules);

/* The valid sequence with the largest sum of log probabilities (Viterbi 1967, with the transitions of IOB2: I-x only
 * behind B-x or I-x, everything else anywhere). log_probs: [count][num_labels] fp32; logits give the same tags. tags:
 * [count]. Sums are fp64; of equal sequences the one with the smaller labels, from the end. Any number of threads may
 * share the rules. Fails on NaN and +infinity, naming the position. -infinity is a probability of zero. */
int sw_viterbi_decode(const sw_viterbi_rules *rules, const float *log_probs, size_t count, int32_t *tags);

typedef struct {
  uint32_t start, end; /* half-open positions in the sequence */
  int32_t type;        /* index into rules->types */
  float score;         /* mean probability of its tags; 0 where no log_probs were given */
} sw_entity;

/* The entities of a sequence, in order, as seqeval's default mode finds them: an I that continues nothing begins one.
 * log_probs (may be NULL): [count][num_labels] log softmax. `out` has room for `count` entities. Returns their number.
 */
size_t sw_entities(const sw_viterbi_rules *rules, const int32_t *tags, const float *log_probs, size_t count,
                   sw_entity *out);
#endif
