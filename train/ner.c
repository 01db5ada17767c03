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

/* An earlier test set: what its score was and becomes is how much is forgotten. */
typedef struct {
  sw_labels labels;
  sw_eval_set *set;
} earlier_test;

typedef struct {
  sw_model *model;
  sw_token_set set;
  sw_replay replays[SW_MAX_REPLAYS];
  unsigned char *kept; /* of each layer: the base had its head */
  earlier_test *tests;
  size_t num_tests;
  int quiet;
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

static int64_t eval_tokens(const sw_model *model) {
  return model->config.max_positions > EVAL_TOKENS ? model->config.max_positions : EVAL_TOKENS;
}

static int evaluate(void *self, sw_run *run, double *score, json_t **metrics, char *line) {
  ner *t = self;
  sw_eval_scores scores;
  if (sw_eval_set_run(t->dev, t->model, run, eval_tokens(t->model), EVAL_BATCH, SW_DECODE_VITERBI, &scores, metrics, NULL)) return -1;
  *score = scores.micro.f1;
  snprintf(line, 200, "dev F1 %.4f  precision %.4f  recall %.4f  accuracy %.4f  loss %.4f", scores.micro.f1, scores.micro.precision,
           scores.micro.recall, scores.accuracy, scores.loss);
  return 0;
}

/* F1 on the earlier test sets, in all and by layer; before training starts only of the layers whose heads the base had. */
static int test(void *self, sw_run *run, int begun, json_t **metrics) {
  ner *t = self;
  if (!(*metrics = json_array())) return sw_fail("out of memory");
  for (size_t i = 0; i < t->num_tests; i++) {
    const sw_labels *labels = &t->tests[i].labels;
    json_t *scores, *layers = json_object(), *layer;
    const char *name;
    double sum = 0;
    size_t known = 0;
    if (sw_eval_set_run(t->tests[i].set, t->model, run, eval_tokens(t->model), EVAL_BATCH, SW_DECODE_VITERBI, NULL, &scores, NULL)) return -1;
    json_object_foreach(json_object_get(scores, "layers"), name, layer) {
      size_t k = 0;
      while (k < labels->num_layers && strcmp(labels->layers[k].name, name)) k++;
      if (k == labels->num_layers || (!begun && !t->kept[k])) continue;
      json_t *f1 = json_object_get(json_object_get(layer, "micro"), "f1");
      json_object_set(layers, name, f1);
      sum += json_real_value(f1);
      known++;
    }
    json_decref(scores);
    json_t *entry = json_pack("{s:s, s:s, s:I, s:o}", "file", labels->files[0].path, "sha256", labels->files[0].sha256, "rows",
                              (json_int_t)labels->num_examples, "f1", layers);
    if (!entry || json_object_set_new(entry, "mean_f1", known ? json_real(sum / (double)known) : json_null()) ||
        json_array_append_new(*metrics, entry))
      return sw_fail("out of memory");
    if (!t->quiet && known) fprintf(stderr, "%s %s: F1 %.4f\n", begun ? "now" : "before training", labels->files[0].path, sum / (double)known);
  }
  return 0;
}

static int has_labels(const sw_head *head, const sw_layer *layer) {
  if (strcmp(head->task, "token") || strcmp(head->name, layer->name) || head->num_labels != layer->num_labels) return 0;
  for (size_t i = 0; i < layer->num_labels; i++)
    if (strcmp(head->labels[i], layer->labels[i])) return 0;
  return 1;
}
/* Whether some layer of the labels has the same labels: then the head's weights stay. */
static int keeps_head(const void *self, const sw_head *head) {
  const sw_labels *labels = self;
  for (size_t k = 0; k < labels->num_layers; k++)
    if (has_labels(head, &labels->layers[k])) return 1;
  return 0;
}

static int set_heads(ner *t, sw_setup *setup, const sw_labels *labels) {
  if (!(t->kept = sw_alloc_array(labels->num_layers, 1))) return -1;
  for (size_t h = 0; h < setup->checkpoint.num_heads; h++)
    for (size_t k = 0; k < labels->num_layers; k++)
      t->kept[k] |= has_labels(&setup->checkpoint.heads[h], &labels->layers[k]);
  sw_setup_drop_heads(setup, keeps_head, labels);
  for (size_t k = 0; k < labels->num_layers; k++) {
    const sw_layer *layer = &labels->layers[k];
    if (sw_setup_add_head(setup, layer->name, "token", (const char *const *)layer->labels, layer->num_labels, (uint32_t)k)) return -1;
  }
  return 0;
}

/* The files read, the last of them replayed. */
static json_t *manifest(const sw_labels *labels, const sw_replay *replays, size_t num_replays) {
  json_t *list = json_array();
  for (size_t i = 0; list && i < labels->num_files; i++) {
    json_t *file = json_pack("{s:s, s:s, s:I, s:I, s:f}", "file", labels->files[i].path, "sha256", labels->files[i].sha256, "rows",
                             (json_int_t)labels->files[i].rows, "rejected", (json_int_t)labels->files[i].rejected, "weight",
                             labels->files[i].weight);
    if (i + num_replays >= labels->num_files)
      json_object_set_new(file, "replay", json_real(replays[i + num_replays - labels->num_files].part));
    json_array_append_new(list, file);
  }
  return list;
}

typedef struct {
  sw_setup_options setup;
  sw_list data, dev, replay, test;
  char *replay_files[SW_MAX_REPLAYS]; /* "path:1", without the parts */
  double parts[SW_MAX_REPLAYS];
} ner_options;

static int check_output(const void *self, const char *output) {
  const ner_options *o = self;
  return sw_labels_check_output(output, o->data.items, (size_t)o->data.count) ||
                 sw_labels_check_output(output, (const char *const *)o->replay_files, (size_t)o->replay.count) ||
                 sw_labels_check_output(output, o->dev.items, (size_t)o->dev.count) ||
                 sw_labels_check_output(output, o->test.items, (size_t)o->test.count)
             ? -1
             : 0;
}

/* Training data and what is replayed, whose files come last; data to evaluate on. */
static int read_labels(const ner_options *o, const sw_setup *setup, sw_labels *data, sw_labels *dev) {
  const char *output = o->setup.loop.output;
  char *rejected = sw_loop_path(output, ".rejected.jsonl"), *dev_rejected = sw_loop_path(output, ".dev.rejected.jsonl");
  const size_t fresh = (size_t)o->data.count, count = fresh + (size_t)o->replay.count;
  const char **inputs = sw_alloc_array(count, sizeof *inputs);
  int status = rejected && dev_rejected && inputs ? 0 : -1;
  for (size_t i = 0; i < count && !status; i++) inputs[i] = i < fresh ? o->data.items[i] : o->replay_files[i - fresh];
  if (!status) status = sw_labels_read_training(inputs, count, sw_setup_rejected(setup, rejected), data);
  if (!status && o->dev.count) status = sw_labels_read(o->dev.items, (size_t)o->dev.count, sw_setup_rejected(setup, dev_rejected), data, dev);
  free(inputs);
  free(rejected);
  free(dev_rejected);
  return status;
}

/* The type of a label: what follows "B-" or "I-", "" for plain B and I. */
static const char *type_of(const char *label) { return label[1] == '-' ? label + 2 : ""; }

/* Whether the new data, or the base's head, have this type in this layer. */
static int knows_type(const sw_checkpoint *base, const sw_labels *labels, size_t layer, const char *type, size_t fresh) {
  for (size_t h = 0; h < base->num_heads; h++)
    for (size_t k = 1; k < base->heads[h].num_labels && !strcmp(base->heads[h].name, labels->layers[layer].name); k++)
      if (!strcmp(type_of(base->heads[h].labels[k]), type)) return 1;
  for (size_t i = 0; i < labels->num_examples; i++) {
    const sw_example *e = &labels->examples[i];
    if (e->file >= fresh) continue;
    const int32_t *tags = e->tags + layer * e->num_words;
    for (size_t w = 0; w < e->num_words; w++)
      if (tags[w] > 0 && !strcmp(type_of(labels->layers[layer].labels[tags[w]]), type)) return 1;
  }
  return 0;
}

/* Labels of another kind would change the heads that the new data is for: they are refused. */
static int check_replays(const sw_checkpoint *base, const sw_labels *labels, size_t fresh) {
  for (size_t k = 0; k < labels->num_layers; k++) {
    const sw_layer *layer = &labels->layers[k];
    for (size_t label = 1; label < layer->num_labels; label += 2) { /* B and I of a type */
      if (knows_type(base, labels, k, type_of(layer->labels[label]), fresh)) continue;
      for (size_t i = 0; i < labels->num_examples; i++) {
        const sw_example *e = &labels->examples[i];
        for (size_t w = 0; w < e->num_words && e->file >= fresh; w++)
          if ((e->tags[k * e->num_words + w] + 1) / 2 == (int32_t)(label + 1) / 2)
            return sw_fail("--replay %s, line %llu: '%s' in the layer '%s' is a label that neither --data nor the base's head has",
                           labels->files[e->file].path, (unsigned long long)e->line, layer->labels[label], layer->name);
      }
    }
  }
  return 0;
}

static int open_tests(ner *t, const sw_labels *data, const sw_tokenizer *tokenizer, const sw_list *files, sw_group *group) {
  if (!files->count) return 0;
  if (!(t->tests = sw_alloc_array((size_t)files->count, sizeof *t->tests))) return -1;
  for (t->num_tests = 0; t->num_tests < (size_t)files->count; t->num_tests++) {
    earlier_test *test = &t->tests[t->num_tests];
    if (sw_labels_read(files->items + t->num_tests, 1, NULL, data, &test->labels) ||
        sw_eval_set_open(&test->labels, tokenizer, t->model->config.max_positions, &test->set))
      return -1;
    sw_eval_set_share(test->set, group);
  }
  return 0;
}

static int open_task(ner *t, const sw_labels *data, const sw_labels *dev, const sw_tokenizer *tokenizer, const ner_options *o) {
  const sw_loop_options *l = &o->setup.loop;
  if (data->num_layers > 64) return sw_fail("%zu label layers are too many (at most 64)", data->num_layers);
  if (sw_token_set_open(data, tokenizer, o->setup.max_length, 0, &t->set)) return -1;
  if (!t->set.count) return sw_fail("the training data has no word to learn from");
  if (dev && sw_eval_set_open(dev, tokenizer, t->model->config.max_positions, &t->dev)) return -1;
  if (dev) sw_eval_set_share(t->dev, l->group);
  if (open_tests(t, data, tokenizer, &o->test, l->group)) return -1;
  const size_t longest = (size_t)t->set.max_length, budget = (size_t)l->batch_tokens;
  const size_t room = l->batch_size ? (size_t)l->batch_size * longest : budget > longest ? budget : longest; /* of any batch */
  t->lengths = sw_alloc_array(t->set.count, sizeof *t->lengths);
  t->scales = sw_alloc_array(t->set.num_layers, sizeof *t->scales);
  t->ids = sw_alloc_array(room, sizeof *t->ids);
  t->labels = sw_alloc_array(room, sizeof *t->labels);
  t->weights = sw_alloc_array(room, sizeof *t->weights);
  t->cu_seqlens = sw_alloc_array(room + 1, sizeof *t->cu_seqlens);
  if (!t->lengths || !t->scales || !t->ids || !t->labels || !t->weights || !t->cu_seqlens) return -1;
  for (size_t i = 0; i < t->set.count; i++) t->lengths[i] = t->set.items[i].length;
  return 0;
}

/* Sequences lie in the order of their files: those of the new data, then those of each replayed file. */
static int split_sequences(ner *t, const sw_labels *data, const ner_options *o, size_t *fresh) {
  size_t at = 0;
  for (size_t file = 0; file < data->num_files; file++) {
    const size_t first = at;
    while (at < t->set.count && data->examples[t->set.items[at].example].file == file) at++;
    if (file < (size_t)o->data.count)
      *fresh = at;
    else if (at == first)
      return sw_fail("%s has no word to replay", data->files[file].path);
    else
      t->replays[file - (size_t)o->data.count] = (sw_replay){first, at - first, o->parts[file - (size_t)o->data.count]};
  }
  return *fresh ? 0 : sw_fail("the training data has no word to learn from");
}

static void close_task(ner *t) {
  sw_token_set_close(&t->set);
  sw_eval_set_close(t->dev);
  for (size_t i = 0; i < t->num_tests; i++) {
    sw_eval_set_close(t->tests[i].set);
    sw_labels_close(&t->tests[i].labels);
  }
  free(t->tests);
  free(t->kept);
  free(t->lengths);
  free(t->scales);
  free(t->ids);
  free(t->labels);
  free(t->weights);
  free(t->cu_seqlens);
}

static void print_start(const sw_setup *setup, const ner *t, const sw_labels *data, size_t num_replays, const sw_labels *dev) {
  const size_t set_aside = data->rejected + dev->rejected;
  sw_setup_print_device(setup);
  fprintf(stderr, "; %zu sentence%s, %llu token%s", data->num_examples, SW_S(data->num_examples), (unsigned long long)t->set.tokens,
          SW_S(t->set.tokens));
  for (size_t k = 0; k < data->num_layers; k++) fprintf(stderr, "%s %s", k ? "," : "; layers:", data->layers[k].name);
  fputc('\n', stderr);
  for (size_t r = 0; r < num_replays; r++)
    fprintf(stderr, "%g of every batch: %s\n", t->replays[r].part, data->files[data->num_files - num_replays + r].path);
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
  if (read_labels(o, &setup, &data, &dev) || check_replays(&setup.checkpoint, &data, (size_t)o->data.count) || set_heads(&t, &setup, &data) ||
      sw_setup_model(&setup, "ner"))
    goto done;
  size_t fresh = 0;
  t.model = setup.model;
  t.quiet = o->setup.loop.quiet;
  if (open_task(&t, &data, o->dev.count ? &dev : NULL, setup.tokenizer, o) || split_sequences(&t, &data, o, &fresh)) goto done;
  if (!t.quiet) print_start(&setup, &t, &data, (size_t)o->replay.count, &dev);
  const int evaluates = t.dev || t.num_tests;
  sw_task task = {.name = "ner", .self = &t, .num_items = fresh, .lengths = t.lengths, .replays = t.replays,
                  .num_replays = (size_t)o->replay.count, .begin_step = begin_step, .batch = batch, .ids = item_ids, .loss = step_loss,
                  .evaluate = t.dev ? evaluate : NULL, .test = t.num_tests ? test : NULL,
                  .eval_tokens = evaluates ? eval_tokens(t.model) : 0, .eval_batch = evaluates ? EVAL_BATCH : 0};
  status = sw_setup_train(&setup, &task, manifest(&data, t.replays, task.num_replays), manifest(&dev, NULL, 0), NULL);
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_setup_tell(&setup, status);
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
      {"replay", 0, SW_OPTION_LIST, &o.replay, "FILE:PART", "older labels that make up this part of every batch; may be repeated"},
      {"test", 0, SW_OPTION_LIST, &o.test, "FILE", "an earlier test set: scored before and after, to see what is forgotten; may be repeated"},
      {0}};
  const sw_command command = {
      "skillwatch train ner --base CKPT --data FILE [--data FILE ...] --dev FILE -o CKPT [options]",
      "Fine-tunes a tagger on labelled sentences: {\"tokens\",\"tags_<layer>\"} or {\"text\",\"spans\"} JSON lines, CoNLL, doccano,\n"
      "Label Studio or prodigy exports. Every label layer gets a head of its own on the shared encoder.",
      "skillwatch train ner --base minilm.h5 --data samples/labels/train.jsonl --dev samples/labels/dev.jsonl -o tagger.h5", options};
  int status = sw_setup_parse(&command, &o.setup, argc, argv);
  if (!status && !o.data.count) status = sw_fail("--data is missing: labelled sentences to train on");
  if (!status) status = sw_setup_parse_replays(&o.replay, ":1", o.replay_files, o.parts);
  if (!status) status = sw_setup_check(&o.setup, check_output, &o);
  int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_ner(&o);
  for (int i = 0; i < SW_MAX_REPLAYS; i++) free(o.replay_files[i]);
  sw_list_close(&o.data);
  sw_list_close(&o.dev);
  sw_list_close(&o.replay);
  sw_list_close(&o.test);
  return code;
}
