/* The sentences that a tagger is least sure of: those from which labels teach it the most. Uncertainty is the mean entropy, in nats, of the tags of a
 * sentence's words over all layers ("token entropy", B. Settles and M. Craven, "An analysis of active learning strategies for sequence labeling tasks",
 * EMNLP 2008). The same inputs and checkpoint give the same choice. */
#ifndef SW_LABEL_PICK_H
#define SW_LABEL_PICK_H
#include "tools/label/run.h"

/* Fills options->picked with at most `count` sentences, no text twice; of equally uncertain ones the first. free() it. */
int sw_label_pick(sw_label_options *options, size_t count, const char *device, int threads);
/* Without a model to ask: writes the picked sentences to the output, {"text", "source", "uncertainty"} or for a tool of --export, without labels. */
int sw_label_write_picked(const sw_label_options *options);
#endif
