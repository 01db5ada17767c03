/* What every task of skillwatch-train does alike before and after its loop: the shared options, the base, the device, new heads, and the
 * record of where the checkpoint comes from. */
#ifndef SW_TRAIN_SETUP_H
#define SW_TRAIN_SETUP_H
#include "base/lock.h"
#include "base/options.h"
#include "train/loop.h"

enum { SW_MOST_OPTIONS = 96 };
typedef struct {
  const char *name;
  char sha256[65]; /* of the name and the value; "" of options that processes may differ in */
} sw_said;

typedef struct {
  sw_loop_options loop;
  int from_scratch; /* the task makes the model itself: there is no base */
  const char *base, *device, *dtype, *gradients, *schedule;
  int threads;
  int max_length; /* tokens of a sequence; 0 until sw_setup_open knows the model's limit */
  sw_said said[SW_MOST_OPTIONS]; /* what sw_setup_parse found, which all processes of a group must have found */
} sw_setup_options;
#define SW_SETUP_DEFAULTS                                                                                                              \
  {.loop = {.epochs = 3, .learning_rate = 1e-4, .warmup = 0.1, .batch_tokens = 1024, .accumulate = 1,                                  \
            .optimizer = SW_OPTIMIZER_DEFAULTS, .log_every = 10, .monitor = {.experiment = "skillwatch"}},                             \
   .device = "auto", .dtype = "fp32", .gradients = "quick", .schedule = "linear"}

/* Parses the command line: command->options are the task's own, those of `o` are added but for names that the task has itself, and
 * --batch-tokens where its default is 0 (a task that cuts batches by number only). Operands are refused.
 * As sw_options_parse: 0, 1 after --help, -1 on wrong usage. */
int sw_setup_parse(const sw_command *command, sw_setup_options *o, int argc, char **argv);
/* Checks the shared options. Nothing that the run writes may be something that it reads: `check` is called for every file that the run
 * may write (the loop's, and <stem>.rejected.jsonl and <stem>.dev.rejected.jsonl) and fails where it is one of the task's inputs. -1: wrong usage. */
int sw_setup_check(sw_setup_options *o, int (*check)(const void *self, const char *output), const void *self);

typedef struct {
  const sw_setup_options *options;
  sw_device *device;
  sw_stream stream;
  sw_checkpoint checkpoint; /* of the base at first; becomes the one that is written */
  sw_model_config config;
  sw_tokenizer *tokenizer;
  sw_model *model;          /* NULL before sw_setup_model */
  sw_lock lock;             /* <stem>.lock: no other run writes the same output */
  sw_group *group;          /* the processes of this run; NULL: one */
} sw_setup;

/* Keeps other runs off the output, and refuses one that is there and may not be replaced; opens the device; reads the base, opens its tokenizer and notes it in the lineage, unless from_scratch: then the
 * checkpoint is empty, and config and tokenizer are the task's to make. Sets o->max_length where it is 0. From now on SIGTERM, SIGINT and SIGUSR1 end
 * the program with SW_EXIT_AGAIN; sw_loop_run saves before. `setup` must be zeroed; close it in any case. Returns 0, or SW_EXIT_FAILED or
 * SW_EXIT_USAGE with the message set, or SW_EXIT_AGAIN with it printed. */
int sw_setup_open(sw_setup_options *o, sw_setup *setup);
void sw_setup_close(sw_setup *setup);
/* Prints sw_error() and, where there are other processes, ends them with `status`. */
void sw_setup_tell(const sw_setup *setup, int status);
/* "<stem><which>.rejected.jsonl", and for further files of a kind "<stem><which>.2.rejected.jsonl"...; free() it. */
char *sw_setup_rejected_path(const sw_setup_options *o, const char *which, int number);
/* Where a file of rows set aside goes: `path`, or nowhere, for one process of several writes them. */
const char *sw_setup_rejected(const sw_setup *setup, const char *path);

/* Appends a head to the checkpoint. Its weights [labels, hidden] stay where the checkpoint has them under that name; otherwise they are new:
 * N(0, 0.02), as BERT's initializer_range, from the seed and `number`; bias 0. */
int sw_setup_add_head(sw_setup *setup, const char *name, const char *task, const char *const *labels, size_t count, uint32_t number);
/* Removes all heads from the list, and the weights of those that `keeps` (may be NULL) refuses; says which, unless quiet. */
void sw_setup_drop_heads(sw_setup *setup, int (*keeps)(const void *self, const sw_head *head), const void *self);

/* --replay: "FILE:FRACTION" each, at most SW_MAX_REPLAYS. files[i] (free() it) becomes FILE with `ending` behind it, parts[i] the fraction of
 * every batch. */
int sw_setup_parse_replays(const sw_list *list, const char *ending, char **files, double *parts);
/* A task's earlier test sets, for sw_task.test: the entry of each in `list` (new reference) is that of its file with its scores. */
typedef struct {
  void *self;
  size_t count;
  json_t *const *files; /* [count] {"file", "sha256", "rows", "rejected"} */
  int knows;            /* the base had this head: there are scores before training */
  int quiet;
  /* The scores of set number i, as an object (new reference), and for people (256 bytes). */
  int (*score)(void *self, sw_run *run, size_t i, json_t **metrics, char *line);
} sw_earlier_tests;
int sw_setup_test(const sw_earlier_tests *tests, sw_run *run, int begun, json_t **list);
/* What is put before every text belongs to the model: inference does it, too. */
int sw_setup_set_prefix(sw_setup *setup, const char *prefix);
/* For heads over whole texts that are trained with their encoder: they read pooled vectors that are not brought to unit length, of texts of at
 * most options->max_length tokens; the config says so from now on. */
int sw_setup_set_pooled(sw_setup *setup);

/* Opens the model for training from the checkpoint, which from now on is of that kind. */
int sw_setup_model(sw_setup *setup, const char *kind);
/* The same with the masked-language-model head, which is new where the base has none. */
int sw_setup_mlm_model(sw_setup *setup, const char *kind);
/* "cpu, 2 threads, fp32": how the line begins that a task prints before it trains; prints nothing else. */
void sw_setup_print_device(const sw_setup *setup);
/* Trains. `data`, `dev`: arrays of {"file", "sha256", "rows", "rejected", ...}; `hyper`: the task's own hyper-parameters, or NULL; all three
 * are taken over (NULL for want of memory is reported here). Returns an exit status; the message is set for 1. */
int sw_setup_train(sw_setup *setup, sw_task *task, json_t *data, json_t *dev, json_t *hyper);
#endif
