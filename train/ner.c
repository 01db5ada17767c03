/* skillwatch train ner: token classification with one head a label layer, trained jointly on a shared encoder. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/philox.h"
#include "engine/data/token_set.h"
#include "engine/learn/evaluate.h"
#include "train/loop.h"
#include "train/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_HEADS = 2, EVAL_TOKENS = 2048, EVAL_BATCH = 256 };

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

/* The head for a layer: kept where the base has it with the same labels, otherwise new, N(0, 0.02) as BERT's initializer_range. */
static int add_head(sw_checkpoint *c, const sw_layer *layer, int hidden, int seed, uint32_t number) {
  char name[256];
  snprintf(name, sizeof name, "heads.%s.weight", layer->name);
  if (sw_checkpoint_add_head(c, layer->name, "token", (const char *const *)layer->labels, layer->num_labels)) return -1;
  if (sw_tensors_find(&c->weights, name)) return 0;
  int64_t shape[4] = {(int64_t)layer->num_labels, hidden};
  sw_tensor *weight = sw_tensors_add(&c->weights, name, SW_F32, 2, shape);
  if (!weight) return -1;
  sw_random random = {.seed = (uint64_t)seed, .stream = (uint64_t)STREAM_HEADS << 32 | number};
  float *w = weight->data;
  for (int64_t i = 0; i < shape[0] * shape[1]; i++) { /* Box, Muller 1958 */
    double u = ((double)sw_random_u32(&random) + 0.5) * 0x1p-32, v = (double)sw_random_u32(&random) * 0x1p-32;
    w[i] = (float)(0.02 * sqrt(-2 * log(u)) * cos(2 * M_PI * v));
  }
  snprintf(name, sizeof name, "heads.%s.bias", layer->name);
  sw_tensor *bias = sw_tensors_add(&c->weights, name, SW_F32, 1, shape);
  if (!bias) return -1;
  memset(bias->data, 0, layer->num_labels * sizeof(float));
  return 0;
}

static int same_labels(const sw_head *head, const sw_layer *layer) {
  if (strcmp(head->task, "token") || strcmp(head->name, layer->name) || head->num_labels != layer->num_labels) return 0;
  for (size_t i = 0; i < layer->num_labels; i++)
    if (strcmp(head->labels[i], layer->labels[i])) return 0;
  return 1;
}

/* Replaces the checkpoint's heads by those of the labels' layers; weights of heads with the same labels stay. */
static int set_heads(sw_checkpoint *c, const sw_labels *labels, int hidden, int seed, int quiet) {
  char name[256];
  for (size_t i = 0; i < c->num_heads; i++) {
    sw_head *head = &c->heads[i];
    int kept = 0;
    for (size_t k = 0; k < labels->num_layers; k++) kept |= same_labels(head, &labels->layers[k]);
    if (!kept) {
      if (!quiet) fprintf(stderr, "the base's head '%s' is left out: the data does not label it the same way\n", head->name);
      for (int part = 0; part < 2; part++) {
        snprintf(name, sizeof name, "heads.%s.%s", head->name, part ? "bias" : "weight");
        sw_tensor *t = sw_tensors_find(&c->weights, name);
        if (t) sw_tensors_remove(&c->weights, t);
      }
    }
    for (size_t k = 0; k < head->num_labels; k++) free(head->labels[k]);
    free(head->labels);
    free(head->name);
    free(head->task);
  }
  free(c->heads);
  c->heads = NULL;
  c->num_heads = 0;
  for (size_t k = 0; k < labels->num_layers; k++)
    if (add_head(c, &labels->layers[k], hidden, seed, (uint32_t)k)) return -1;
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
  sw_loop_options loop;
  const char *base, *device, *dtype, *schedule;
  sw_list data, dev;
  int threads, max_length;
} ner_options;

/* One entry about the base in the family tree. */
static int extend_lineage(sw_checkpoint *c) {
  json_t *lineage = c->lineage ? json_deep_copy(c->lineage) : json_array();
  json_t *run = json_object_get(c->training, "run");
  json_t *entry = json_pack("{s:s, s:s, s:s, s:O?, s:O?}", "content_sha256", c->content_sha256, "kind", c->kind, "created", c->created, "data",
                            json_object_get(run, "data"), "metrics", json_object_get(c->training, "metrics"));
  if (!lineage || !entry || json_array_append_new(lineage, entry)) {
    json_decref(lineage);
    return sw_fail("out of memory");
  }
  json_decref(c->lineage);
  c->lineage = lineage;
  memcpy(c->parent_sha256, c->content_sha256, sizeof c->parent_sha256);
  return 0;
}

static json_t *facts_of(const ner_options *o, const sw_labels *data, const sw_labels *dev, const char *parent, const char *device) {
  json_t *hyper = json_pack(
      "{s:i, s:f, s:s, s:f, s:i, s:i, s:i, s:f, s:f, s:i, s:i, s:i, s:i, s:s}", "epochs", o->loop.epochs, "learning_rate",
      o->loop.learning_rate, "schedule", o->schedule, "warmup", o->loop.warmup, "batch_tokens", o->loop.batch_tokens, "batch_size",
      o->loop.batch_size, "accumulate", o->loop.accumulate, "weight_decay", o->loop.optimizer.weight_decay, "clip", o->loop.optimizer.clip,
      "seed", o->loop.seed, "eval_every", o->loop.eval_every, "patience", o->loop.patience, "max_length", o->max_length, "dtype", o->dtype);
  return json_pack("{s:o, s:o, s:o, s:s, s:s}", "hyper_parameters", hyper, "data", manifest(data), "dev", dev ? manifest(dev) : json_array(),
                   "base_sha256", parent, "device", device);
}

static int check_output(const ner_options *o, const char *output) {
  return sw_check_output(output, &o->base, 1) || sw_labels_check_output(output, o->data.items, (size_t)o->data.count) ||
                 sw_labels_check_output(output, o->dev.items, (size_t)o->dev.count)
             ? -1
             : 0;
}

/* Nothing that the run writes may be something that it reads. */
static int check_outputs(const ner_options *o) {
  static const char *const endings[] = {".last.h5", ".metrics.jsonl", ".rejected.jsonl", ".dev.rejected.jsonl"};
  if (sw_is_folder(o->loop.output)) return sw_fail("-o %s is a folder, a file name was expected", o->loop.output);
  int status = check_output(o, o->loop.output);
  for (size_t i = 0; i < sizeof endings / sizeof *endings && !status; i++) {
    char *path = sw_loop_path(o->loop.output, endings[i]);
    status = path ? check_output(o, path) : -1;
    free(path);
  }
  return status;
}

static int read_labels(const ner_options *o, sw_labels *data, sw_labels *dev) {
  char *rejected = sw_loop_path(o->loop.output, ".rejected.jsonl"), *dev_rejected = sw_loop_path(o->loop.output, ".dev.rejected.jsonl");
  int status = rejected && dev_rejected ? sw_labels_read(o->data.items, (size_t)o->data.count, rejected, NULL, data) : -1;
  if (!status && o->dev.count) status = sw_labels_read(o->dev.items, (size_t)o->dev.count, dev_rejected, data, dev);
  free(rejected);
  free(dev_rejected);
  return status;
}

static int open_task(ner *t, const sw_labels *data, const sw_labels *dev, const sw_tokenizer *tokenizer, const ner_options *o) {
  const int positions = t->model->config.max_positions;
  if (data->num_layers > 64) return sw_fail("%zu label layers are too many (at most 64)", data->num_layers);
  if (sw_token_set_open(data, tokenizer, o->max_length, 0, &t->set)) return -1;
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

static int check_options(ner_options *o) {
  const sw_loop_options *l = &o->loop;
  if (!o->base) return sw_fail("--base is missing: the checkpoint to start from, made by skillwatch pull");
  if (!o->data.count) return sw_fail("--data is missing: labelled sentences to train on");
  if (!l->output) return sw_fail("-o is missing: the checkpoint to write");
  if (!strcmp(l->output, "-")) return sw_fail("-o -: a checkpoint cannot be written to standard output");
  if (l->epochs < 1 || l->epochs > 10000) return sw_fail("--epochs must be from 1 to 10000");
  if (!(l->learning_rate > 0 && l->learning_rate < 1)) return sw_fail("--lr must lie between 0 and 1");
  if (!(l->warmup >= 0 && l->warmup < 1)) return sw_fail("--warmup is a part of all steps: from 0 to below 1");
  if (l->batch_tokens < 1 || l->batch_tokens > 1 << 20) return sw_fail("--batch-tokens must be from 1 to 1048576");
  if (l->batch_size < 0 || l->batch_size > 1 << 16) return sw_fail("--batch-size must be from 0 to 65536");
  if (l->accumulate < 1 || l->accumulate > 4096) return sw_fail("--accumulate must be from 1 to 4096");
  if (l->eval_every < 0 || l->patience < 0 || l->checkpoint_every < 0) return sw_fail("--eval-every, --patience and --checkpoint-every cannot be negative");
  if (l->log_every < 1) return sw_fail("--log-every must be at least 1");
  if (o->max_length && o->max_length < 3) return sw_fail("--max-length must be at least 3");
  if (!(l->optimizer.weight_decay >= 0) || !(l->optimizer.clip >= 0)) return sw_fail("--weight-decay and --clip cannot be negative");
  if (sw_device_check(o->device, o->threads)) return -1;
  if (strcmp(o->dtype, "fp32") && strcmp(o->dtype, "bf16")) return sw_fail("--dtype %s: use fp32 or bf16", o->dtype);
  return sw_schedule_parse(o->schedule, &o->loop.schedule) || check_outputs(o) ? -1 : 0;
}

static int train_ner(ner_options *o) {
  sw_device *device = NULL;
  sw_stream stream;
  sw_checkpoint checkpoint;
  sw_labels data = {0}, dev = {0};
  sw_tokenizer *tokenizer = NULL;
  sw_model *model = NULL;
  json_t *facts = NULL;
  ner t = {0};
  sw_model_config config;
  int status = SW_EXIT_FAILED;
  sw_checkpoint_init(&checkpoint);
  if (sw_check_writable(o->loop.output) || sw_checkpoint_read(o->base, &checkpoint) ||
      sw_model_config_parse(checkpoint.config, &config))
    goto done;
  if (!o->max_length) o->max_length = config.max_positions < 256 ? config.max_positions : 256;
  if (o->max_length > config.max_positions) {
    sw_fail("--max-length %d: %s takes at most %d tokens", o->max_length, o->base, config.max_positions);
    status = SW_EXIT_USAGE;
    goto done;
  }
  if (sw_device_choose(o->device, o->loop.quiet, &device) || sw_stream_open(device, o->threads, &stream) ||
      sw_checkpoint_tokenizer(&checkpoint, &tokenizer) || read_labels(o, &data, &dev) || extend_lineage(&checkpoint))
    goto done;
  facts = facts_of(o, &data, o->dev.count ? &dev : NULL, checkpoint.parent_sha256, device->name);
  if (!facts) {
    sw_fail("out of memory");
    goto done;
  }
  free(checkpoint.kind);
  if (!(checkpoint.kind = sw_strdup("ner")) || set_heads(&checkpoint, &data, config.hidden_size, o->loop.seed, o->loop.quiet) ||
      sw_model_open(&stream, &checkpoint, !strcmp(o->dtype, "bf16") ? SW_BF16 : SW_F32, 1, &model))
    goto done;
  t.model = model;
  if (open_task(&t, &data, o->dev.count ? &dev : NULL, tokenizer, o)) goto done;
  if (!o->loop.quiet) {
    const size_t set_aside = data.rejected + dev.rejected;
    fprintf(stderr, "%s, %d thread%s, %s; %zu sentence%s, %llu token%s", device->name, stream.threads, SW_S(stream.threads), o->dtype,
            data.num_examples, SW_S(data.num_examples), (unsigned long long)t.set.tokens, SW_S(t.set.tokens));
    for (size_t k = 0; k < data.num_layers; k++) fprintf(stderr, "%s %s", k ? "," : "; layers:", data.layers[k].name);
    fputc('\n', stderr);
    if (set_aside)
      fprintf(stderr, "%zu row%s could not be used: see the .rejected.jsonl file beside the output\n", set_aside, SW_S(set_aside));
    if (dev.skipped_layers) fprintf(stderr, "the layers %s of the --dev data are left out: the training data does not label them\n", dev.skipped_layers);
    if (t.set.split)
      fprintf(stderr, "%llu sentence%s longer than %d tokens %s split\n", (unsigned long long)t.set.split, SW_S(t.set.split), o->max_length,
              t.set.split == 1 ? "was" : "were");
  }
  sw_task task = {.name = "ner", .self = &t, .num_items = t.set.count, .lengths = t.lengths, .begin_step = begin_step, .batch = batch,
                  .ids = item_ids, .loss = step_loss, .evaluate = t.dev ? evaluate : NULL,
                  .eval_tokens = t.dev ? (config.max_positions > EVAL_TOKENS ? config.max_positions : EVAL_TOKENS) : 0,
                  .eval_batch = t.dev ? EVAL_BATCH : 0};
  status = sw_loop_run(&stream, model, &task, &o->loop, &checkpoint, facts);
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_exit_message(status);
  close_task(&t);
  json_decref(facts);
  sw_model_close(model);
  sw_tokenizer_close(tokenizer);
  sw_labels_close(&data);
  sw_labels_close(&dev);
  sw_checkpoint_close(&checkpoint);
  sw_device_close(device);
  return status;
}

int sw_train_ner(int argc, char **argv) {
  ner_options o = {.loop = {.epochs = 3, .learning_rate = 1e-4, .warmup = 0.1, .batch_tokens = 1024, .accumulate = 1,
                            .optimizer = SW_OPTIMIZER_DEFAULTS, .seed = 0, .log_every = 10},
                   .device = "auto", .dtype = "fp32", .schedule = "linear"};
  const sw_option options[] = {
      {"base", 'b', SW_OPTION_TEXT, &o.base, "CKPT", "checkpoint to start from (skillwatch pull makes one)"},
      {"data", 'd', SW_OPTION_LIST, &o.data, "FILE[:W]", "labelled sentences, with a weight if wanted; may be repeated"},
      {"dev", 0, SW_OPTION_LIST, &o.dev, "FILE", "labelled sentences to choose the best checkpoint by; may be repeated"},
      {"output", 'o', SW_OPTION_TEXT, &o.loop.output, "CKPT", "best checkpoint; <name>.last.h5 and <name>.metrics.jsonl lie beside it"},
      {"epochs", 'e', SW_OPTION_INT, &o.loop.epochs, "N", "passes over the data"},
      {"lr", 0, SW_OPTION_DOUBLE, &o.loop.learning_rate, "X", "peak learning rate"},
      {"schedule", 0, SW_OPTION_TEXT, &o.schedule, "NAME", "linear, cosine or constant"},
      {"warmup", 0, SW_OPTION_DOUBLE, &o.loop.warmup, "PART", "part of all steps in which the rate rises from 0"},
      {"batch-tokens", 0, SW_OPTION_INT, &o.loop.batch_tokens, "N", "token budget of a batch"},
      {"batch-size", 0, SW_OPTION_INT, &o.loop.batch_size, "N", "sentences of a batch, instead of the token budget"},
      {"accumulate", 0, SW_OPTION_INT, &o.loop.accumulate, "N", "batches a step"},
      {"max-length", 0, SW_OPTION_INT, &o.max_length, "N", "tokens of a sequence, longer sentences are split; 0 = 256, or the model's limit where that is less"},
      {"weight-decay", 0, SW_OPTION_DOUBLE, &o.loop.optimizer.weight_decay, "X", "AdamW's; not for biases and LayerNorm"},
      {"clip", 0, SW_OPTION_DOUBLE, &o.loop.optimizer.clip, "X", "largest gradient norm; 0 = never clip"},
      {"eval-every", 0, SW_OPTION_INT, &o.loop.eval_every, "N", "steps between evaluations; 0 = every epoch"},
      {"patience", 0, SW_OPTION_INT, &o.loop.patience, "N", "stop after N evaluations without a better F1; 0 = never"},
      {"checkpoint-every", 0, SW_OPTION_INT, &o.loop.checkpoint_every, "N", "steps between resumable checkpoints; 0 = every epoch or evaluation"},
      {"log-every", 0, SW_OPTION_INT, &o.loop.log_every, "N", "steps between lines of the metrics file"},
      {"resume", 0, SW_OPTION_FLAG, &o.loop.resume, NULL, "go on where an interrupted run of the same command stood"},
      {"force", 0, SW_OPTION_FLAG, &o.loop.force, NULL, "start anew over an existing output"},
      {"seed", 0, SW_OPTION_INT, &o.loop.seed, "N", "of shuffling, dropout and new heads"},
      {"device", 0, SW_OPTION_TEXT, &o.device, "NAME", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o.dtype, "TYPE", "fp32 or bf16"},
      {"threads", 0, SW_OPTION_INT, &o.threads, "N", "CPU threads; 0 = one a core"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.loop.quiet, NULL, "print errors only"},
      {0}};
  const sw_command command = {
      "skillwatch train ner --base CKPT --data FILE [--data FILE ...] --dev FILE -o CKPT [options]",
      "Fine-tunes a tagger on labelled sentences: {\"tokens\",\"tags_<layer>\"} or {\"text\",\"spans\"} JSON lines, CoNLL, doccano,\n"
      "Label Studio or prodigy exports. Every label layer gets a head of its own on the shared encoder.",
      "skillwatch train ner --base minilm.h5 --data samples/labels/train.jsonl --dev samples/labels/dev.jsonl -o tagger.h5", options};
  sw_list operands = {0};
  int status = sw_options_parse(&command, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' was not expected: give data with --data", operands.items[0]);
  if (!status) status = check_options(&o);
  int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_ner(&o);
  sw_list_close(&operands);
  sw_list_close(&o.data);
  sw_list_close(&o.dev);
  return code;
}
