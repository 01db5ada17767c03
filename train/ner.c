/* skillwatch train ner: token classification with one head a label layer, trained jointly on a shared encoder. */
#include "base/error.h"
#include "engine/data/token_set.h"
#include "engine/learn/evaluate.h"
#include "train/setup.h"
#include "train/tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_TOKENS = 2048, EVAL_BATCH = 256 };

typedef struct {
  sw_model *model;
  sw_token_set set;
  int32_t *lengths;
  sw_eval_set *dev;
  /* of the step: 1 / weight of the labelled words, a layer each; 0 where the step has none */
  float *scales;
  /* of the batch */
  int32_t *ids, *cu_seqlens, *labels;
  float *weights;
} ner;

static void step_weights(const ner *t, const uint32_t *items, size_t count, double *totals) {
  for (size_t h = 0; h < t->set.num_layers; h++) totals[h] = 0;
  for (size_t i = 0; i < count; i++) {
    const sw_sequence *s = &t->set.items[items[i]];
    for (size_t h = 0; h < t->set.num_layers; h++)
      for (int32_t k = 0; k < s->length; k++)
        if (s->labels[h * (size_t)s->length + (size_t)k] != SW_IGNORE) totals[h] += s->weight;
  }
}

static int begin_step(void *self, const uint32_t *items, size_t count) {
  ner *t = self;
  double totals[64];
  step_weights(t, items, count, totals);
  for (size_t h = 0; h < t->set.num_layers; h++) t->scales[h] = totals[h] > 0 ? (float)(1 / totals[h]) : 0;
  return 0;
}

static int batch(void *self, sw_run *run, const uint32_t *items, size_t count, sw_gradients *gradients, int *used) {
  ner *t = self;
  double totals[64];
  step_weights(t, items, count, totals);
  *used = 0;
  for (size_t h = 0; h < t->set.num_layers; h++) *used |= totals[h] > 0;
  if (!*used) return 0;
  sw_batch b = {.batch = (int)count, .ids = t->ids, .cu_seqlens = t->cu_seqlens};
  t->cu_seqlens[0] = 0;
  for (size_t i = 0; i < count; i++) {
    const sw_sequence *s = &t->set.items[items[i]];
    memcpy(t->ids + b.tokens, s->ids, (size_t)s->length * sizeof *s->ids);
    for (int32_t k = 0; k < s->length; k++) t->weights[b.tokens + k] = s->weight;
    b.tokens += s->length;
    if (s->length > b.max_seqlen) b.max_seqlen = s->length;
    t->cu_seqlens[i + 1] = (int32_t)b.tokens;
  }
  if (sw_run_forward(run, &b, NULL)) return -1;
  int first = 1;
  for (size_t h = 0; h < t->set.num_layers; h++) {
    if (!(totals[h] > 0)) continue;
    int64_t at = 0;
    for (size_t i = 0; i < count; i++) {
      const sw_sequence *s = &t->set.items[items[i]];
      memcpy(t->labels + at, s->labels + h * (size_t)s->length, (size_t)s->length * sizeof *s->labels);
      at += s->length;
    }
    if (sw_run_token_loss(run, h, t->labels, t->weights, t->scales[h], first, gradients)) return -1;
    first = 0;
  }
  return sw_run_backward(run, gradients);
}

static double step_loss(void *self, const double *sums) {
  const ner *t = self;
  double loss = 0;
  for (size_t h = 0; h < t->set.num_layers; h++) loss += sums[h] * (double)t->scales[h];
  return loss;
}

static void item_ids(void *self, uint32_t item, const int32_t **ids, int32_t *count) {
  const sw_sequence *s = &((ner *)self)->set.items[item];
  *ids = s->ids;
  *count = s->length;
}

static int evaluate(void *self, sw_run *run, double *score, json_t **metrics, char *line) {
  ner *t = self;
  sw_eval_scores scores;
  if (sw_eval_set_run(t->dev, t->model, run, t->model->config.max_positions > EVAL_TOKENS ? t->model->config.max_positions : EVAL_TOKENS,
                      EVAL_BATCH, SW_DECODE_VITERBI, &scores, metrics))
    return -1;
  *score = scores.micro.f1;
  snprintf(line, 200, "dev F1 %.4f  precision %.4f  recall %.4f  accuracy %.4f  loss %.4f", scores.micro.f1, scores.micro.precision,
           scores.micro.recall, scores.accuracy, scores.loss);
  return 0;
}

/* Whether some layer of the labels has the same labels: then the head's weights stay. */
static int keeps_head(const void *self, const sw_head *head) {
  const sw_labels *labels = self;
  for (size_t k = 0; k < labels->num_layers; k++) {
    const sw_layer *layer = &labels->layers[k];
    int same = !strcmp(head->task, "token") && !strcmp(head->name, layer->name) && head->num_labels == layer->num_labels;
    for (size_t i = 0; same && i < layer->num_labels; i++) same = !strcmp(head->labels[i], layer->labels[i]);
    if (same) return 1;
  }
  return 0;
}

static int set_heads(sw_setup *setup, const sw_labels *labels) {
  sw_setup_drop_heads(setup, keeps_head, labels);
  for (size_t k = 0; k < labels->num_layers; k++) {
    const sw_layer *layer = &labels->layers[k];
    if (sw_setup_add_head(setup, layer->name, "token", (const char *const *)layer->labels, layer->num_labels, (uint32_t)k)) return -1;
  }
  return 0;
}

static json_t *manifest(const sw_labels *labels) {
  json_t *list = json_array();
  for (size_t i = 0; list && i < labels->num_files; i++)
    json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I, s:f}", "file", labels->files[i].path, "sha256", labels->files[i].sha256,
                                          "rows", (json_int_t)labels->files[i].rows, "rejected", (json_int_t)labels->files[i].rejected,
                                          "weight", labels->files[i].weight));
  return list;
}

typedef struct {
  sw_setup_options setup;
  sw_list data, dev;
} ner_options;

static int check_output(const void *self, const char *output) {
  const ner_options *o = self;
  return sw_labels_check_output(output, o->data.items, (size_t)o->data.count) ||
                 sw_labels_check_output(output, o->dev.items, (size_t)o->dev.count)
             ? -1
             : 0;
}

static int read_labels(const ner_options *o, sw_labels *data, sw_labels *dev) {
  const char *output = o->setup.loop.output;
  char *rejected = sw_loop_path(output, ".rejected.jsonl"), *dev_rejected = sw_loop_path(output, ".dev.rejected.jsonl");
  int status = rejected && dev_rejected ? sw_labels_read(o->data.items, (size_t)o->data.count, rejected, NULL, data) : -1;
  if (!status && o->dev.count) status = sw_labels_read(o->dev.items, (size_t)o->dev.count, dev_rejected, data, dev);
  free(rejected);
  free(dev_rejected);
  return status;
}

static int open_task(ner *t, const sw_labels *data, const sw_labels *dev, const sw_tokenizer *tokenizer, int max_length) {
  const int positions = t->model->config.max_positions;
  if (data->num_layers > 64) return sw_fail("%zu label layers are too many (at most 64)", data->num_layers);
  if (sw_token_set_open(data, tokenizer, max_length, 0, &t->set)) return -1;
  if (!t->set.count) return sw_fail("the training data has no word to learn from");
  if (dev && sw_eval_set_open(dev, tokenizer, positions, &t->dev)) return -1;
  size_t room = (size_t)t->set.tokens; /* an upper bound on any batch */
  t->lengths = sw_alloc_array(t->set.count, sizeof *t->lengths);
  t->scales = sw_alloc_array(t->set.num_layers, sizeof *t->scales);
  t->ids = sw_alloc_array(room, sizeof *t->ids);
  t->labels = sw_alloc_array(room, sizeof *t->labels);
  t->weights = sw_alloc_array(room, sizeof *t->weights);
  t->cu_seqlens = sw_alloc_array(t->set.count + 1, sizeof *t->cu_seqlens);
  if (!t->lengths || !t->scales || !t->ids || !t->labels || !t->weights || !t->cu_seqlens) return -1;
  for (size_t i = 0; i < t->set.count; i++) t->lengths[i] = t->set.items[i].length;
  return 0;
}

static void close_task(ner *t) {
  sw_token_set_close(&t->set);
  sw_eval_set_close(t->dev);
  free(t->lengths);
  free(t->scales);
  free(t->ids);
  free(t->labels);
  free(t->weights);
  free(t->cu_seqlens);
}

static void print_start(const sw_setup *setup, const ner *t, const sw_labels *data, const sw_labels *dev) {
  const size_t set_aside = data->rejected + dev->rejected;
  sw_setup_print_device(setup);
  fprintf(stderr, "; %zu sentence%s, %llu token%s", data->num_examples, SW_S(data->num_examples), (unsigned long long)t->set.tokens,
          SW_S(t->set.tokens));
  for (size_t k = 0; k < data->num_layers; k++) fprintf(stderr, "%s %s", k ? "," : "; layers:", data->layers[k].name);
  fputc('\n', stderr);
  if (set_aside) fprintf(stderr, "%zu row%s could not be used: see the .rejected.jsonl file beside the output\n", set_aside, SW_S(set_aside));
  if (dev->skipped_layers)
    fprintf(stderr, "the layers %s of the --dev data are left out: the training data does not label them\n", dev->skipped_layers);
  if (t->set.split)
    fprintf(stderr, "%llu sentence%s longer than %d tokens %s split\n", (unsigned long long)t->set.split, SW_S(t->set.split),
            setup->options->max_length, t->set.split == 1 ? "was" : "were");
}

static int train_ner(ner_options *o) {
  sw_setup setup = {0};
  sw_labels data = {0}, dev = {0};
  ner t = {0};
  int status = sw_setup_open(&o->setup, &setup);
  if (status) goto done;
  status = SW_EXIT_FAILED;
  if (read_labels(o, &data, &dev) || set_heads(&setup, &data) || sw_setup_model(&setup, "ner")) goto done;
  t.model = setup.model;
  if (open_task(&t, &data, o->dev.count ? &dev : NULL, setup.tokenizer, o->setup.max_length)) goto done;
  if (!o->setup.loop.quiet) print_start(&setup, &t, &data, &dev);
  const int positions = setup.config.max_positions;
  sw_task task = {.name = "ner", .self = &t, .num_items = t.set.count, .lengths = t.lengths, .begin_step = begin_step, .batch = batch,
                  .ids = item_ids, .loss = step_loss, .evaluate = t.dev ? evaluate : NULL,
                  .eval_tokens = t.dev ? (positions > EVAL_TOKENS ? positions : EVAL_TOKENS) : 0, .eval_batch = t.dev ? EVAL_BATCH : 0};
  status = sw_setup_train(&setup, &task, manifest(&data), manifest(&dev), NULL);
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_exit_message(status);
  close_task(&t);
  sw_labels_close(&data);
  sw_labels_close(&dev);
  sw_setup_close(&setup);
  return status;
}

int sw_train_ner(int argc, char **argv) {
  ner_options o = {.setup = SW_SETUP_DEFAULTS};
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o.data, "FILE[:W]", "labelled sentences, with a weight if wanted; may be repeated"},
      {"dev", 0, SW_OPTION_LIST, &o.dev, "FILE", "labelled sentences to choose the best checkpoint by; may be repeated"},
      {0}};
  const sw_command command = {
      "skillwatch train ner --base CKPT --data FILE [--data FILE ...] --dev FILE -o CKPT [options]",
      "Fine-tunes a tagger on labelled sentences: {\"tokens\",\"tags_<layer>\"} or {\"text\",\"spans\"} JSON lines, CoNLL, doccano,\n"
      "Label Studio or prodigy exports. Every label layer gets a head of its own on the shared encoder.",
      "skillwatch train ner --base minilm.h5 --data samples/labels/train.jsonl --dev samples/labels/dev.jsonl -o tagger.h5", options};
  int status = sw_setup_parse(&command, &o.setup, argc, argv);
  if (!status && !o.data.count) status = sw_fail("--data is missing: labelled sentences to train on");
  if (!status) status = sw_setup_check(&o.setup, check_output, &o);
  int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_ner(&o);
  sw_list_close(&o.data);
  sw_list_close(&o.dev);
  return code;
}
