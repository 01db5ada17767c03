/* What every verb of skillwatch-infer shares: options, the loaded model, the inputs, and the place where results go. */
#ifndef SW_INFER_SESSION_H
#define SW_INFER_SESSION_H
#include "base/options.h"
#include "engine/data/embed.h"
#include "engine/data/rejects.h"
#include "infer/shards.h"

typedef struct {
  const char *model, *output, *rejected, *column, *id_column, *format, *device, *dtype, *shard;
  int threads, batch_tokens, dedup, resume, quiet, json;
  int model_optional; /* where inputs may be vectors */
} sw_infer_options;
#define SW_INFER_DEFAULTS                                                                                              \
  ((sw_infer_options){                                                                                                 \
      .output = "-", .format = "auto", .device = "auto", .threads = 0, .batch_tokens = 4096, .dedup = 1, .resume = 1})

/* What INPUTS are, for --help. */
#define SW_INFER_INPUTS                                                                                                \
  "<date>/<n>.txt folders, text, CSV and JSONL files, plain,\n"                                                         \
  ".gz or .zst; - for standard input, one text a line. The text of a row is its column or key\n"                        \
  "\"description\", otherwise \"text\", otherwise the only one there is.\n"

/* Rows of the option table. */
/* clang-format off */
#define SW_INFER_COMMON_OPTIONS(o)                                                                                \
  {"model", 'm', SW_OPTION_TEXT, &(o).model, "FILE", "checkpoint (needed)"},                                      \
  {"column", 0, SW_OPTION_TEXT, &(o).column, "NAME", "column or key of the text (else: description, text, the only one)"},      \
  {"id-column", 0, SW_OPTION_TEXT, &(o).id_column, "NAME", "column or key of the id (else: id, job_id, number)"}, \
  {"format", 0, SW_OPTION_TEXT, &(o).format, "F", "of inputs: auto, text (a posting a file), lines, csv, jsonl"}, \
  {"rejected", 0, SW_OPTION_TEXT, &(o).rejected, "FILE", "unusable rows go here (else: OUTPUT.rejected.jsonl)"},  \
  {"device", 0, SW_OPTION_TEXT, &(o).device, "D", "auto, cpu or cuda[:N]"},                                       \
  {"dtype", 0, SW_OPTION_TEXT, &(o).dtype, "T", "fp32 or bf16 (else: fp32 on the CPU)"},                          \
  {"threads", 0, SW_OPTION_INT, &(o).threads, "N", "worker threads; 0: one a core. Changes no result"},           \
  {"batch-tokens", 0, SW_OPTION_INT, &(o).batch_tokens, "N", "tokens of a batch. Changes no result"},             \
  {"dedup", 0, SW_OPTION_FLAG, &(o).dedup, NULL, "compute equal texts once (--no-dedup: every one)"},             \
  {"resume", 0, SW_OPTION_FLAG, &(o).resume, NULL, "go on with an interrupted run (--no-resume: anew)"},          \
  {"shard", 0, SW_OPTION_TEXT, &(o).shard, "I/N", "do the I-th of N parts, 1/4 to 4/4 say; the last to end joins them"}, \
  {"quiet", 'q', SW_OPTION_FLAG, &(o).quiet, NULL, "no progress and no summary"},                                 \
  {"json", 0, SW_OPTION_FLAG, &(o).json, NULL, "summary as JSON, to stdout (stderr with -o -)"}
/* clang-format on */

typedef struct {
  const sw_infer_options *options;
  const char *verb;         /* "tag" */
  sw_checkpoint checkpoint; /* without its weights: those are in the model */
  sw_tokenizer *tokenizer;  /* NULL where the model reads stems */
  sw_device *device;
  sw_model *model;
  sw_dtype dtype;
  int threads;
  sw_runs runs; /* of the model */
  int longest;  /* tokens of a text that are read; of longer ones the first */
  sw_list inputs; /* borrowed */
  char *output;   /* without a last '/' */
  int to_stdout;
  sw_rejects rejects; /* of all that is read; published by sw_infer_run */
  sw_journal journal;        /* open unless to_stdout */
  sw_shards shards;
  int joined;                /* the output was joined by an earlier run: nothing is left to do */
  int part_done;             /* the part was finished by an earlier run */
  int publishes;             /* the results of sw_infer_run are to be brought to the output by this process */
  sw_pipeline_counts before; /* what was done by the run that is continued */
  double started;
} sw_infer_session;

/* Checks the common options (usage errors: no inputs, no model, bad names, an output that is an input). Returns 0 or -1. */
int sw_infer_check(const sw_infer_options *options, const sw_list *inputs);
/* No output of a verb may be an input or another output: `rejected`, or where it is NULL the name that rejects have by themselves; `more` may be
 * NULL, and so may inputs. */
int sw_infer_check_outputs(const char *output, const char *rejected, const char *more, const char *const *inputs, int count);
/* Loads the model; where there is none, only the device is opened. */
int sw_infer_open(sw_infer_session *session, const char *verb, const sw_infer_options *options, const sw_list *inputs);
/* The same for a model that may read stems: then tokenizer stays NULL, and workers open their own with sw_checkpoint_stems. */
int sw_infer_open_stems(sw_infer_session *session, const char *verb, const sw_infer_options *options, const sw_list *inputs);
/* The same without a model: the verb makes its own of the checkpoint, and sets longest, runs.batch_tokens and runs.max_batch. */
int sw_infer_open_checkpoint(sw_infer_session *session, const char *verb, const sw_infer_options *options, const sw_list *inputs);
/* Opens the journal beside the output, or that of this process's part; `settings` (reference taken over, may be NULL after a failure): the options that
 * shape the results. */
int sw_infer_open_output(sw_infer_session *session, json_t *settings);
/* Runs the job over the inputs, or over this process's part: what it finishes is written to stdout or appended to the journal. job->write may be
 * NULL: the output of finish as it is. *rejected: rows set aside. */
int sw_infer_run(sw_infer_session *session, sw_pipeline_job *job, sw_pipeline_counts *counts, uint64_t *rejected);
/* From the opened output on, what the verbs that read texts do alike: `head` goes to standard output before the results, where they go there; the
 * job is run, its results are published where session->publishes, by `publish` with job->context or, where that is NULL, by sw_infer_publish after
 * `head`; and what was done is told. */
int sw_infer_complete(sw_infer_session *session, sw_pipeline_job *job, const char *head, int (*publish)(void *context));
/* One record of the results, from within job->write. */
int sw_infer_put(sw_infer_session *session, const sw_pipeline_counts *counts, const void *payload, size_t bytes);
/* Where session->publishes after sw_infer_run: all results in input order, as they were put. */
int sw_infer_replay(sw_infer_session *session, sw_journal_each *each, void *context);
/* The same to the output, behind `head`. */
int sw_infer_publish(sw_infer_session *session, const char *head);
/* The end of a run: the journal goes away, the summary is printed. */
void sw_infer_report(sw_infer_session *session, const sw_pipeline_counts *counts, uint64_t rejected);
/* Keeps the journal when sw_infer_report was not reached. */
void sw_infer_close(sw_infer_session *session);

/* 1 when `name` ends in `suffix`. */
int sw_infer_ends_in(const char *name, const char *suffix);

int sw_infer_classify(int argc, char **argv);
int sw_infer_cluster(int argc, char **argv);
int sw_infer_embed(int argc, char **argv);
int sw_infer_map(int argc, char **argv);
int sw_infer_link(int argc, char **argv);
int sw_infer_multilabel(int argc, char **argv);
int sw_infer_search(int argc, char **argv);
int sw_infer_serve(int argc, char **argv);
int sw_infer_select(int argc, char **argv);
int sw_infer_tag(int argc, char **argv);
int sw_infer_topics(int argc, char **argv);
#endif
