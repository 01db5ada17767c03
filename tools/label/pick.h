/* The sentences that a tagger is least sure of: those from which labels teach it the most. Uncertainty comes from the tags of a sentence's words, over
 * all layers: the mean, the largest or the sum of their entropies, in nats, or the mean of 1 - (p of the best tag - p of the second best) ("token
 * entropy", "total token entropy", "margin": B. Settles and M. Craven, "An analysis of active learning strategies for sequence labeling tasks", EMNLP
 * 2008). The same inputs and checkpoint give the same choice. */
#ifndef SW_LABEL_PICK_H
#define SW_LABEL_PICK_H
#include "tools/label/run.h"

typedef enum { SW_PICK_MEAN, SW_PICK_MAX, SW_PICK_SUM, SW_PICK_MARGIN } sw_pick_rule;

/* Fills options->picked with at most `count` sentences, no text twice; of equally uncertain ones the first. free() it. */
int sw_label_pick(sw_label_options *options, size_t count, sw_pick_rule rule, const char *device, int threads);
/* Without a model to ask: writes the picked sentences to the output, {"text", "source", "uncertainty"} or for a tool of --export, without labels. */
int sw_label_write_picked(const sw_label_options *options);
#endif
