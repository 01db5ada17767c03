/* The training loop that every task shares: batches, steps, learning rate, evaluation, early stopping, checkpoints, resume.
 *
 * Several processes (engine/learn/group.h) share every batch: each computes a part of its items, and all do the same step on the sum of their
 * gradients. Rank 0 writes.
 *
 * A step is `accumulate` batches; a batch is cut from the epoch's shuffled items by a token budget or a number of items. All of it
 * follows from (seed, epoch, step), so a resumed run goes on with the same bits. */
#ifndef SW_TRAIN_LOOP_H
#define SW_TRAIN_LOOP_H
#include "engine/learn/optimizer.h"
#include "engine/learn/schedule.h"
#include "engine/monitor/monitor.h"
#include "train/order.h"

#include <jansson.h>

typedef struct {
  const char *output;      /* best checkpoint; beside it <stem>.last.h5 and <stem>.metrics.jsonl */
  int epochs;
  double learning_rate;
  sw_schedule_kind schedule;
  double warmup;           /* part of all steps, [0, 1) */
  int batch_tokens;        /* token budget of a batch */
  int batch_size;          /* sequences of a batch; 0: by the token budget alone; > 0: by the number alone */
  int accumulate;
  sw_optimizer_options optimizer;
  int seed;
  int eval_every;          /* steps; 0: at the end of every epoch */
  int patience;            /* evaluations without a better score before stopping; 0: never */
  int checkpoint_every;    /* steps; 0: at every evaluation */
  int keep;                /* numbered resumable checkpoints to keep (train/kept.h); 0: none */
  int log_every;           /* steps between lines of the metrics file */
  sw_monitor_options monitor;
  int resume, force, quiet, json;
  sw_group *group;         /* NULL: one process */
} sw_loop_options;

/* What a task brings. Functions return 0 or -1 with the message set. */
typedef struct sw_task {
  const char *name;        /* "ner" */
  void *self;
  size_t num_items;        /* of an epoch; items from here on are replayed */
  const int32_t *lengths;  /* [num_items + replayed] tokens */
  const sw_replay *replays;
  size_t num_replays;
  void (*begin_epoch)(void *self, int epoch); /* or NULL; 0-based, also of the epoch that a resumed run goes on in */
  int sequences;           /* an item has at most; 0: one */
  /* The items of a whole step, before its first batch: normalisers. */
  int (*begin_step)(void *self, const uint32_t *items, size_t count);
  /* NULL, or for a loss that is not the sum of its items': before the first of every `together` batches of a step, the items of all of them. */
  int (*begin_loss)(void *self, const uint32_t *items, size_t count);
  int together; /* batches; at least 1 with begin_loss */
  /* NULL, or then sees each of these batches, with the dropout it will have, and makes their loss, before the first of them is trained on. */
  int (*preview)(void *self, sw_run *run, const uint32_t *items, size_t count);
  int (*end_preview)(void *self, sw_run *run);
  /* Forward, loss, backward of one batch; the losses stay in the run. *used = 0 when it held no label. `items` lie in those of begin_step and begin_loss. */
  int (*batch)(void *self, sw_run *run, const uint32_t *items, size_t count, sw_gradients *gradients, int *used);
  /* The step's (normalised) loss from the heads' sums over its batches, and over all processes. */
  double (*loss)(void *self, const double *sums);
  /* The distinct or repeated token ids of a batch, for the word table's refresh. */
  void (*ids)(void *self, uint32_t item, const int32_t **ids, int32_t *count);
  /* With a group, each process calls batch and preview for its part of a batch (`used`: of that part) where it has one, and the others for all of it. */
  /* NULL without evaluation data: then the last weights are the best. Turns dropout off for itself. *score: higher is better; *metrics: new reference;
   * `line` (256 bytes) for people. */
  int (*evaluate)(void *self, sw_run *run, double *score, json_t **metrics, char *line);
  int evaluate_first;      /* also before the first step: a base that training only makes worse stays the best */
  /* NULL without earlier test sets: scores on them, an array of JSON objects (new reference). Called before the first step (`begun` 0) and
   * whenever a checkpoint is the best so far; both end in the checkpoint as "earlier_tests": {"before", "after"}. */
  int (*test)(void *self, sw_run *run, int begun, json_t **metrics);
  int64_t eval_tokens;     /* room that evaluate and test need in the run */
  int eval_batch;
} sw_task;

/* Trains `model`. `checkpoint` is what gets written: its weights, training and lineage are filled here; `facts` (hyper-parameters and
 * data manifest, borrowed) is stored and compared on resume.
 * Returns an exit status: 0 done, 1 failed (message set), 75 stopped by a signal after saving. */
int sw_loop_run(sw_stream *stream, sw_model *model, sw_task *task, const sw_loop_options *options, sw_checkpoint *checkpoint, json_t *facts);
/* -1 where the run would overwrite what is there, neither resuming it nor forced to; for before anything beside it is written. */
int sw_loop_check_output(const sw_loop_options *options);
/* "<stem><ending>", the stem being the output's name without ".h5": ".last.h5", ".metrics.jsonl" ...; free() it. */
char *sw_loop_path(const char *output, const char *ending);
#endif
