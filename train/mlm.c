/* skillwatch train mlm: a base adapted to a domain by masked language modelling on raw postings. */
#include "base/launch.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/data/masking.h"
#include "engine/data/text_set.h"
#include "train/setup.h"
#include "train/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EVAL_TOKENS = 2048, EVAL_EPOCH = (1 << 24) - 1, EVAL_SEED = 0, LEAST_LENGTH = 3 };

typedef struct {
  sw_stream *stream;
  const sw_model *model;
  sw_masking masking;
  sw_text_set set, dev;
  sw_text_facts facts, dev_facts;
  uint64_t seed;
  uint32_t epoch;
  int64_t masked; /* tokens of the step */
  int64_t eval_tokens;
  sw_group *group;
  /* of the batch */
  int32_t *ids, *cu_seqlens, *positions, *labels;
} mlm;

/* The item's tokens as they are fed, into ids; returns how many are masked. */
static int32_t mask_item(const mlm *t, uint32_t item, int32_t *ids, int32_t *positions, int32_t *labels) {
  sw_text_set_get(&t->set, item, ids);
  return sw_mask(&t->masking, t->seed, t->epoch, item, ids, t->set.lengths[item], positions, labels);
}

static void begin_epoch(void *self, int epoch) { ((mlm *)self)->epoch = (uint32_t)epoch; }

static int begin_step(void *self, const uint32_t *items, size_t count) {
  mlm *t = self;
  t->masked = 0;
  for (size_t i = 0; i < count; i++) t->masked += mask_item(t, items[i], t->ids, t->positions, t->labels);
  return 0;
}

/* Adds a sequence of `length` tokens, `masked` of which are chosen, to the batch; all three already lie behind what is there. */
static void add_sequence(mlm *t, sw_batch *b, int64_t *count, int32_t length, int32_t masked) {
  for (int32_t k = 0; k < masked; k++) t->positions[*count + k] += (int32_t)b->tokens;
  *count += masked;
  b->tokens += length;
  if (length > b->max_seqlen) b->max_seqlen = length;
  t->cu_seqlens[++b->batch] = (int32_t)b->tokens;
}

static sw_batch new_batch(mlm *t) {
  t->cu_seqlens[0] = 0;
  return (sw_batch){.ids = t->ids, .cu_seqlens = t->cu_seqlens};
}

static int batch(void *self, sw_run *run, const uint32_t *items, size_t count, sw_gradients *gradients, int *used) {
  mlm *t = self;
  sw_batch b = new_batch(t);
  int64_t masked = 0;
  for (size_t i = 0; i < count; i++) {
    const int32_t own = mask_item(t, items[i], t->ids + b.tokens, t->positions + masked, t->labels + masked);
    add_sequence(t, &b, &masked, t->set.lengths[items[i]], own);
  }
  *used = masked > 0;
  if (!*used) return 0;
  return sw_run_forward(run, &b, NULL) ||
                 sw_run_mlm_loss(run, t->positions, t->labels, masked, (float)(1 / (double)t->masked), gradients) ||
                 sw_run_backward(run, gradients)
             ? -1
             : 0;
}

static double step_loss(void *self, const double *sums) {
  const mlm *t = self;
  return t->masked ? sums[t->model->num_heads] / (double)t->masked : 0;
}

static void item_ids(void *self, uint32_t item, const int32_t **ids, int32_t *count) {
  mlm *t = self;
  mask_item(t, item, t->ids, t->positions, t->labels);
  *ids = t->ids;
  *count = t->set.lengths[item];
}

/* The held-out text under one fixed mask: the same at every evaluation, for every seed and every base with this vocabulary. */
static int evaluate(void *self, sw_run *run, double *score, json_t **metrics, char *line) {
  mlm *t = self;
  int64_t total = 0;
  double sums[2];
  int turn = 0; /* whose batch it is */
  sw_run_set_dropout(run, 0, 0, 0);
  for (size_t i = 0; i < t->dev.count;) {
    sw_batch b = new_batch(t);
    int64_t masked = 0;
    for (; i < t->dev.count && b.tokens + t->dev.lengths[i] <= t->eval_tokens; i++) {
      const int32_t length = t->dev.lengths[i];
      sw_text_set_get(&t->dev, i, t->ids + b.tokens);
      const int32_t own = sw_mask(&t->masking, EVAL_SEED, EVAL_EPOCH, (uint32_t)i, t->ids + b.tokens, length, t->positions + masked, t->labels + masked);
      add_sequence(t, &b, &masked, length, own);
    }
    total += masked;
    const int own = turn == sw_group_rank(t->group);
    turn = (turn + 1) % sw_group_size(t->group);
    if (own && masked && (sw_run_forward(run, &b, NULL) || sw_run_mlm_loss(run, t->positions, t->labels, masked, 1, NULL))) return -1;
  }
  if (sw_run_losses(run, sums) || t->model->device->synchronize(t->stream) || sw_group_sum(t->group, sums, t->model->num_heads + 1)) return -1;
  if (!total) return sw_fail("the held-out text has no token to predict");
  const double loss = sums[t->model->num_heads] / (double)total;
  if (!isfinite(loss)) return sw_fail("the loss of the held-out text is not a number");
  *score = -loss;
  *metrics = json_pack("{s:f, s:f, s:I}", "perplexity", exp(loss), "loss", loss, "masked_tokens", (json_int_t)total);
  snprintf(line, 80, "held-out perplexity %.3f  loss %.4f", exp(loss), loss);
  return *metrics ? 0 : sw_fail("out of memory");
}

/* --- options and data --- */

static const double HOLDOUT = 0.05;

typedef struct {
  sw_setup_options setup;
  sw_list data, dev;
  const char *column, *format;
  double mask, holdout;
  int whole_words, memory;
} mlm_options;

static int check(mlm_options *o) {
  sw_postings_format format;
  if (!o->data.count) return sw_fail("--data is missing: postings to train on");
  if (!(o->mask > 0 && o->mask < 1)) return sw_fail("--mask is a share of the tokens: above 0 and below 1");
  if (o->dev.count && o->holdout != HOLDOUT) return sw_fail("--dev and --holdout exclude each other: one says what is held out");
  if (o->dev.count) o->holdout = 0;
  if (!(o->holdout >= 0 && o->holdout < 1)) return sw_fail("--holdout is a share of the postings: from 0 to below 1");
  if (o->memory < 0) return sw_fail("--memory cannot be negative");
  return sw_postings_format_parse(o->format, &format);
}

static int check_output(const void *self, const char *output) {
  const mlm_options *o = self;
  return sw_check_output(output, o->data.items, o->data.count) || sw_check_output(output, o->dev.items, o->dev.count) ? -1 : 0;
}

static int read_postings(const mlm_options *o, const sw_setup *setup, mlm *t) {
  const char *output = o->setup.loop.output;
  const uint64_t half = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2 / (uint64_t)sw_launched()->local_size;
  char *rejected = sw_loop_path(output, ".rejected.jsonl"), *dev_rejected = sw_loop_path(output, ".dev.rejected.jsonl");
  sw_text_options options = {.tokenizer = setup->tokenizer, .max_length = o->setup.max_length, .max_bytes = o->memory ? (uint64_t)o->memory << 20 : half,
                             .holdout = o->holdout, .postings = {.column = o->column, .rejected_path = sw_setup_rejected(setup, rejected)},
                             .progress = o->setup.loop.quiet ? NULL : "reading"};
  int status = rejected && dev_rejected ? sw_postings_format_parse(o->format, &options.postings.format) : -1;
  if (!status) status = sw_text_set_read(o->data.items, (size_t)o->data.count, &options, &t->set, o->holdout > 0 ? &t->dev : NULL, &t->facts);
  if (!status && o->dev.count) {
    options.holdout = 0;
    options.postings.rejected_path = sw_setup_rejected(setup, dev_rejected);
    status = sw_text_set_read(o->dev.items, (size_t)o->dev.count, &options, &t->dev, NULL, &t->dev_facts);
  }
  free(rejected);
  free(dev_rejected);
  if (status) return -1;
  const unsigned long long postings = t->set.postings + t->dev.postings;
  if (!t->set.count) return sw_fail("--holdout %g: all %llu postings are held out: give more postings or a smaller share", o->holdout, postings);
  if (o->holdout > 0 && !t->dev.count)
    return sw_fail("--holdout %g: none of %llu postings is held out: give more postings, a larger share, --dev, or --holdout 0 to train without",
                   o->holdout, postings);
  return 0;
}

/* One entry for all inputs: they are read as one stream. */
static json_t *manifest(const sw_list *inputs, const sw_text_facts *facts) {
  sw_buffer names = {0};
  json_t *list = NULL;
  int failed = 0;
  if (!inputs->count) return json_array();
  for (int i = 0; i < inputs->count; i++) failed |= sw_buffer_print(&names, "%s%s", i ? ", " : "", inputs->items[i]);
  if (!failed)
    list = json_pack("[{s:s, s:s, s:I, s:I, s:I}]", "file", names.data, "sha256", facts->sha256, "rows", (json_int_t)facts->rows, "rejected",
                     (json_int_t)facts->rejected, "repeated", (json_int_t)facts->repeated);
  sw_buffer_close(&names);
  return list;
}

static int open_task(mlm *t, const sw_setup_options *o) {
  const int64_t longest = o->max_length, by_budget = o->loop.batch_tokens > longest ? o->loop.batch_tokens : longest;
  t->eval_tokens = longest > EVAL_TOKENS ? longest : EVAL_TOKENS;
  int64_t room = o->loop.batch_size ? o->loop.batch_size * longest : by_budget;
  if (room < t->eval_tokens) room = t->eval_tokens;
  t->seed = (uint64_t)o->loop.seed;
  t->ids = sw_alloc_array((size_t)room, sizeof *t->ids);
  t->positions = sw_alloc_array((size_t)room, sizeof *t->positions);
  t->labels = sw_alloc_array((size_t)room, sizeof *t->labels);
  t->cu_seqlens = sw_alloc_array((size_t)(room / LEAST_LENGTH) + 2, sizeof *t->cu_seqlens);
  return t->ids && t->positions && t->labels && t->cu_seqlens ? 0 : -1;
}

static void close_task(mlm *t) {
  sw_masking_close(&t->masking);
  sw_text_set_close(&t->set);
  sw_text_set_close(&t->dev);
  free(t->ids);
  free(t->positions);
  free(t->labels);
  free(t->cu_seqlens);
}

static void print_start(const sw_setup *setup, const mlm *t) {
  const uint64_t set_aside = t->facts.rejected + t->dev_facts.rejected, repeated = t->facts.repeated + t->dev_facts.repeated;
  sw_setup_print_device(setup);
  fprintf(stderr, "; %llu posting%s, %zu sequence%s, %llu tokens (%.1f MB in memory)", (unsigned long long)t->set.postings, SW_S(t->set.postings),
          t->set.count, SW_S(t->set.count), (unsigned long long)t->set.tokens, (double)(t->set.bytes + t->dev.bytes) * 0x1p-20);
  if (t->dev.count)
    fprintf(stderr, "; held out: %llu posting%s, %llu tokens", (unsigned long long)t->dev.postings, SW_S(t->dev.postings),
            (unsigned long long)t->dev.tokens);
  fputc('\n', stderr);
  if (repeated) fprintf(stderr, "%llu text%s left out: the same as an earlier one\n", (unsigned long long)repeated, repeated == 1 ? " is" : "s are");
  if (set_aside)
    fprintf(stderr, "%llu row%s could not be used: see the .rejected.jsonl file beside the output\n", (unsigned long long)set_aside, SW_S(set_aside));
}

static int train_mlm(mlm_options *o) {
  sw_setup setup = {0};
  mlm t = {0};
  int status = sw_setup_open(&o->setup, &setup);
  if (status) goto done;
  status = SW_EXIT_FAILED;
  if (sw_masking_open(setup.tokenizer, o->mask, o->whole_words, &t.masking) || read_postings(o, &setup, &t)) goto done;
  sw_setup_drop_heads(&setup, NULL, NULL);
  if (sw_setup_mlm_model(&setup, "base") || open_task(&t, &o->setup)) goto done;
  t.stream = &setup.stream;
  t.model = setup.model;
  t.group = setup.group;
  if (!o->setup.loop.quiet) print_start(&setup, &t);
  sw_task task = {.name = "mlm", .self = &t, .num_items = t.set.count, .lengths = t.set.lengths, .begin_epoch = begin_epoch,
                  .begin_step = begin_step, .batch = batch, .ids = item_ids, .loss = step_loss, .evaluate = t.dev.count ? evaluate : NULL,
                  .evaluate_first = 1, .eval_tokens = t.dev.count ? t.eval_tokens : 0,
                  .eval_batch = t.dev.count ? (int)(t.eval_tokens / LEAST_LENGTH) : 0};
  json_t *hyper = json_pack("{s:f, s:b, s:f, s:s?}", "mask", o->mask, "whole_words", o->whole_words, "holdout", o->holdout, "column", o->column);
  status = sw_setup_train(&setup, &task, manifest(&o->data, &t.facts), manifest(&o->dev, &t.dev_facts), hyper);
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_setup_tell(&setup, status);
  close_task(&t);
  sw_setup_close(&setup);
  return status;
}

int sw_train_mlm(int argc, char **argv) {
  mlm_options o = {.setup = SW_SETUP_DEFAULTS, .format = "auto", .mask = 0.15, .holdout = HOLDOUT};
  o.setup.loop.batch_tokens = 4096;
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o.data, "POSTINGS", "folders, text, CSV, JSONL, plain, .gz or .zst; - for text lines; may be repeated"},
      {"column", 0, SW_OPTION_TEXT, &o.column, "NAME", "column or key of the text (else: description, text, the only one)"},
      {"format", 0, SW_OPTION_TEXT, &o.format, "F", "of inputs: auto, text (a posting a file), lines, csv, jsonl"},
      {"dev", 0, SW_OPTION_LIST, &o.dev, "POSTINGS", "postings to measure perplexity on, and choose the best checkpoint by; may be repeated"},
      {"holdout", 0, SW_OPTION_DOUBLE, &o.holdout, "SHARE", "without --dev: the share of --data that is held out for it, by each text's hash"},
      {"mask", 0, SW_OPTION_DOUBLE, &o.mask, "SHARE", "of the tokens that are to be predicted"},
      {"whole-words", 0, SW_OPTION_FLAG, &o.whole_words, NULL, "mask all sub-words of a word or none"},
      {"memory", 0, SW_OPTION_INT, &o.memory, "MB", "that the encoded postings may take, and no more; 0 = half of this machine's, shared by its processes"},
      {0}};
  const sw_command command = {
      "skillwatch train mlm --base CKPT --data POSTINGS [--data POSTINGS ...] -o CKPT [options]",
      "Adapts a base to a domain: it learns to predict masked words of raw postings, without labels. The result is a base for\n"
      "the other tasks. Perplexity is measured on held-out postings, before training too; the best checkpoint is kept.",
      "skillwatch train mlm --base minilm.h5 --data job-postings/ -o domain.h5", options};
  int status = sw_setup_parse(&command, &o.setup, argc, argv);
  if (!status) status = check(&o);
  if (!status) status = sw_setup_check(&o.setup, check_output, &o);
  int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_mlm(&o);
  sw_list_close(&o.data);
  sw_list_close(&o.dev);
  return code;
}
