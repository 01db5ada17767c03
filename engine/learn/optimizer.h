/* AdamW over a model's parameters, with clipping by the global norm. The word table is updated by rows (kernels/adamw/adamw.h): its
 * rows must be made current before they are read: sw_optimizer_refresh before every forward, sw_optimizer_settle before saving or
 * evaluating. Where the masked-language-model head is open, the table's gradient is dense: the rows' is added to the decoder's, the table is
 * updated as the other parameters are, and these two calls do nothing. */
#ifndef SW_LEARN_OPTIMIZER_H
#define SW_LEARN_OPTIMIZER_H
#include "engine/learn/group.h"
#include "engine/model/model.h"

typedef struct {
  double beta1, beta2, eps, weight_decay;
  double clip; /* gradients are scaled down to this global norm; 0 = never */
  sw_group *group; /* the processes that share every batch, each with the same model and options (borrowed); NULL: there are no others */
  double pull; /* towards the encoder's weights as they were at opening (L2-SP, kernels/adamw/adamw.h); 0 = none; heads are free */
} sw_optimizer_options;
#define SW_OPTIMIZER_DEFAULTS ((sw_optimizer_options){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .clip = 1.0})

typedef struct sw_optimizer sw_optimizer;

/* max_tokens: of one forward, of any process; accumulate: forwards a step. */
int sw_optimizer_open(sw_stream *stream, sw_model *model, const sw_optimizer_options *options, int64_t max_tokens, int accumulate,
                      sw_optimizer **out);
void sw_optimizer_close(sw_optimizer *optimizer);

/* Brings the word rows of these ids up to date, and of those given to sw_optimizer_touch since the last refresh. */
int sw_optimizer_refresh(sw_optimizer *optimizer, const int32_t *ids, int64_t count);
void sw_optimizer_touch(sw_optimizer *optimizer, const int32_t *ids, int64_t count);
/* Where the losses and sw_run_backward put gradients. After each backward, call sw_optimizer_collect. */
sw_gradients *sw_optimizer_gradients(sw_optimizer *optimizer);
int sw_optimizer_collect(sw_optimizer *optimizer);
/* With a group: before the step's last backward, so that gradients go to the others while it still makes more of them; after it, and its
 * sw_optimizer_collect, also where this process had no part of the step: from then on the gradients are those of all processes. */
void sw_optimizer_begin_sum(sw_optimizer *optimizer);
int sw_optimizer_finish_sum(sw_optimizer *optimizer);
/* Starts measuring the gradient's norm; sw_optimizer_step may follow once the device is synchronised. */
int sw_optimizer_measure(sw_optimizer *optimizer);
/* Clips, updates all parameters, prepares the model's weights, and empties the gradients. *norm: the global norm before clipping.
 * A norm that is NaN or infinite is a failure, and nothing is updated. Does not wait for the device. */
int sw_optimizer_step(sw_optimizer *optimizer, double learning_rate, double *norm);
/* Brings every word row up to date. */
int sw_optimizer_settle(sw_optimizer *optimizer);
int64_t sw_optimizer_steps(const sw_optimizer *optimizer);

/* Moments to and from checkpoint->optimizer ("m/<name>", "v/<name>"); the step count travels in the caller's JSON. Settles first. */
int sw_optimizer_save(sw_optimizer *optimizer, sw_checkpoint *checkpoint);
int sw_optimizer_load(sw_optimizer *optimizer, const sw_checkpoint *checkpoint, int64_t steps);
#endif
