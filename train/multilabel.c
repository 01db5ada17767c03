/* skillwatch train multilabel: any number of labels for a whole text, a sigmoid each, by a GRU over stems or, with a base, by an encoder that is
 * trained together with its head. */
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/data/label_table.h"
#include "engine/learn/label_reduction.h"
#include "engine/learn/label_scores.h"
#include "engine/model/gru.h"
#include "engine/store/json.h"
#include "train/encoder.h"
#include "train/setup.h"
#include "train/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_TOKENS = 4096, EVAL_BATCH = 256 };
enum { BERT_EPOCHS = 5, BERT_BATCH = 16 };
#define BERT_RATE 2e-4
#define BERT_DEFAULTS "5 epochs, rate 2e-4, batches of 16"
#define HEAD "labels"

/* Texts as ids, and their labels. */
typedef struct {
  size_t count;
  size_t room;    /* of ids */
  size_t *starts; /* [count + 1] of each text in ids */
  int32_t *ids, *lengths;
  uint8_t *targets; /* [count][labels] */
  size_t truncated;
} text_set;

static void close_set(text_set *s) {
  free(s->starts);
  free(s->ids);
  free(s->lengths);
  free(s->targets);
}

typedef struct {
  sw_model *model;
  sw_checkpoint *checkpoint;
  sw_group *group;
  size_t num_labels;
  char *const *names; /* the head's */
  text_set train, dev; /* train: the new texts, then those of each replayed file */
  size_t fresh;
  sw_replay replays[SW_MAX_REPLAYS];
  text_set *tests;
  json_t **test_files; /* their entries in a manifest */
  size_t num_tests;
  int knows, quiet;    /* knows: the base had this head */
  json_t *base_thresholds;
  int max_length;           /* of a text that is read: stems or tokens */
  int tunes;                /* thresholds are set at every evaluation, on the training data */
  float *thresholds;        /* a label each */
  float *positive_weights;  /* a label each; NULL: all 1 */
  float *probabilities;     /* [rows of the larger set][labels] */
  /* of the step */
  float scale;
  /* of the batch */
  int32_t *ids, *cu_seqlens;
  float *targets, *weights;
  float *vectors; /* an encoder's; NULL of a GRU */
} multilabel;

/* --- the loop's task --- */

static int begin_step(void *self, const uint32_t *items, size_t count) {
  multilabel *t = self;
  t->scale = (float)(1 / ((double)count * (double)t->num_labels));
  return 0;
}

/* Lays texts side by side: those of `items`, or from `first` on where items is NULL. */
static sw_batch pack(multilabel *t, const text_set *set, const uint32_t *items, size_t first, size_t count) {
  sw_batch b = {.batch = (int)count, .ids = t->ids, .cu_seqlens = t->cu_seqlens};
  t->cu_seqlens[0] = 0;
  for (size_t i = 0; i < count; i++) {
    const size_t item = items ? items[i] : first + i;
    const int32_t length = set->lengths[item];
    memcpy(t->ids + b.tokens, set->ids + set->starts[item], (size_t)length * sizeof *t->ids);
    b.tokens += length;
    if (length > b.max_seqlen) b.max_seqlen = length;
    t->cu_seqlens[i + 1] = (int32_t)b.tokens;
  }
  return b;
}

static int batch(void *self, sw_run *run, const uint32_t *items, size_t count, sw_gradients *gradients, int *used) {
  multilabel *t = self;
  const sw_batch b = pack(t, &t->train, items, 0, count);
  *used = 1;
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < t->num_labels; k++) {
      const uint8_t target = t->train.targets[items[i] * t->num_labels + k];
      t->targets[i * t->num_labels + k] = target;
      if (t->positive_weights) t->weights[i * t->num_labels + k] = target ? t->positive_weights[k] : 1;
    }
  return sw_run_forward(run, &b, NULL) ||
                 sw_run_label_loss(run, 0, t->targets, t->positive_weights ? t->weights : NULL, t->scale, 1, gradients) ||
                 sw_run_backward(run, gradients)
             ? -1
             : 0;
}

static double step_loss(void *self, const double *sums) { return sums[0] * (double)((multilabel *)self)->scale; }

static void item_ids(void *self, uint32_t item, const int32_t **ids, int32_t *count) {
  const text_set *s = &((multilabel *)self)->train;
  *ids = s->ids + s->starts[item];
  *count = s->lengths[item];
}

/* --- evaluation --- */

static int64_t eval_tokens(const sw_model *model) {
  return model->config.max_positions > EVAL_TOKENS ? model->config.max_positions : EVAL_TOKENS;
}

/* Probabilities of all texts of the set, and the mean cross entropy of a label, unweighted. Processes take turns with the batches. */
static int predict(multilabel *t, sw_run *run, const text_set *set, double *loss) {
  const size_t labels = t->num_labels, outputs = set->count * labels;
  double sum = 0;
  int turn = 0;
  sw_run_set_dropout(run, 0, 0, 0);
  if (t->group) memset(t->probabilities, 0, outputs * sizeof *t->probabilities);
  for (size_t first = 0, count; first < set->count; first += count) {
    int64_t tokens = set->lengths[first];
    for (count = 1; count < EVAL_BATCH && first + count < set->count; count++)
      if ((tokens += set->lengths[first + count]) > eval_tokens(t->model)) break;
    const int own = turn == sw_group_rank(t->group);
    turn = (turn + 1) % sw_group_size(t->group);
    if (!own) continue;
    const sw_batch b = pack(t, set, NULL, first, count);
    if ((t->vectors ? sw_run_embed(run, &b, t->vectors) : sw_run_forward(run, &b, NULL)) ||
        sw_run_label_logits(run, 0, t->probabilities + first * labels))
      return -1;
  }
  if (sw_group_start_sum(t->group, t->probabilities, outputs) || sw_group_wait(t->group)) return -1;
  for (size_t i = 0; i < outputs; i++) { /* until here they are logits */
    const double l = t->probabilities[i];
    if (!isfinite(l)) return sw_fail("the model gives a value that is no finite number");
    t->probabilities[i] = sw_label_probability(t->probabilities[i]);
    sum += fmax(l, 0) - l * set->targets[i] + log1p(exp(-fabs(l)));
  }
  *loss = sum / (double)outputs;
  return 0;
}

/* The checkpoint says which thresholds its labels have. */
static int store_thresholds(multilabel *t) {
  json_t *list = json_array();
  for (size_t k = 0; k < t->num_labels && list; k++) json_array_append_new(list, json_real(t->thresholds[k]));
  return list && !json_object_set_new(t->checkpoint->config, "thresholds", list) ? 0 : sw_fail("out of memory");
}

/* The set's scores by the present thresholds. */
static int score_set(multilabel *t, sw_run *run, const text_set *set, double *score, json_t **metrics, char *line) {
  double loss;
  sw_label_scores scores;
  sw_label_counts *counts = sw_alloc_array(t->num_labels, sizeof *counts);
  if (!counts || predict(t, run, set, &loss)) {
    free(counts);
    return -1;
  }
  sw_label_count(set->targets, t->probabilities, t->thresholds, set->count, t->num_labels, counts);
  int status = sw_label_scores_of(counts, t->num_labels, &scores);
  if (!status) *metrics = sw_label_scores_json(&scores, counts, t->names, t->thresholds, t->num_labels);
  free(counts);
  if (status || !*metrics || json_object_set_new(*metrics, "loss", json_real(loss))) return -1;
  *score = scores.median_accuracy;
  snprintf(line, 200, "median label accuracy %.4f  micro F1 %.4f  macro F1 %.4f  loss %.4f", scores.median_accuracy, scores.micro_f1,
           scores.macro_f1, loss);
  return 0;
}

static int evaluate(void *self, sw_run *run, double *score, json_t **metrics, char *line) {
  multilabel *t = self;
  double loss;
  if (t->tunes && (predict(t, run, &t->train, &loss) ||
                   sw_label_thresholds(t->train.targets, t->probabilities, t->train.count, t->num_labels, t->thresholds) || store_thresholds(t)))
    return -1;
  return score_set(t, run, &t->dev, score, metrics, line);
}

static int score_test(void *self, sw_run *run, size_t number, json_t **metrics, char *line) {
  double score;
  if (score_set(self, run, &((multilabel *)self)->tests[number], &score, metrics, line)) return -1;
  json_object_del(*metrics, "per_label");
  return 0;
}

static int test(void *self, sw_run *run, int begun, json_t **list) {
  multilabel *t = self;
  return sw_setup_test(&(sw_earlier_tests){t, t->num_tests, t->test_files, t->knows, t->quiet, score_test}, run, begun, list);
}

/* --- options --- */

typedef struct {
  sw_setup_options setup;
  sw_list data, dev, replay, test;
  char *replay_files[SW_MAX_REPLAYS];
  double parts[SW_MAX_REPLAYS];
  const char *column, *labels, *prefix, *model, *reduce, *thresholds, *positive_weights;
  int holdout_every, vocabulary, min_count, embedding, cells, table;
  double dropout, threshold, positive_weight; /* threshold < 0: tuned; positive_weight: 0 = balanced */
  sw_association association;
  double reduce_above;
} multilabel_options;

static int check_output(const void *self, const char *output) {
  const multilabel_options *o = self;
  return sw_check_output(output, o->data.items, o->data.count) || sw_check_output(output, o->dev.items, o->dev.count) ||
                 sw_check_output(output, (const char *const *)o->replay_files, o->replay.count) ||
                 sw_check_output(output, o->test.items, o->test.count)
             ? -1
             : 0;
}

/* A number, or the word that stands for `special`. */
static int number_or(const char *text, const char *word, double special, double low, double high, double *out) {
  char *end;
  *out = strcmp(text, word) ? strtod(text, &end) : special;
  return !strcmp(text, word) || (*text && !*end && *out >= low && *out <= high) ? 0 : -1;
}

static int check_options(multilabel_options *o) {
  if (!o->data.count) return sw_fail("--data is missing: a table of texts and labels to train on");
  if (o->dev.count && o->holdout_every) return sw_fail("--dev and --holdout-every exclude each other");
  if (o->holdout_every && o->holdout_every < 2) return sw_fail("--holdout-every must be at least 2: every N-th row is held out");
  if (o->vocabulary < 2 || o->vocabulary > 1 << 20) return sw_fail("--vocabulary must be from 2 to %d", 1 << 20);
  if (o->min_count < 1) return sw_fail("--min-count must be at least 1");
  if (o->embedding < 1 || o->embedding > 4096) return sw_fail("--embedding must be from 1 to 4096");
  if (o->cells < 1 || o->cells > 1024) return sw_fail("--cells must be from 1 to 1024");
  if (!(o->dropout >= 0 && o->dropout < 0.99)) return sw_fail("--dropout must be from 0 to below 0.99");
  if (!o->setup.base && (o->setup.max_length < 3 || o->setup.max_length > 1 << 16)) return sw_fail("--max-length must be from 3 to %d", 1 << 16);
  if (o->reduce && sw_association_parse(o->reduce, &o->association, &o->reduce_above)) return -1;
  if (number_or(o->thresholds, "tuned", -1, 0, 1, &o->threshold)) return sw_fail("--thresholds %s: a number from 0 to 1, or tuned", o->thresholds);
  if (o->threshold < 0 && !o->dev.count && !o->holdout_every)
    return sw_fail("--thresholds tuned needs --dev or --holdout-every: thresholds are set when the model is evaluated");
  if (sw_setup_parse_replays(&o->replay, "", o->replay_files, o->parts)) return -1;
  char *report = o->setup.loop.output ? sw_loop_path(o->setup.loop.output, ".labels.json") : NULL;
  const int failed = report && o->reduce && check_output(o, report);
  free(report);
  if (failed) return -1;
  for (int i = 0; i < o->replay.count && o->setup.loop.output; i++) {
    char *rejected = sw_setup_rejected_path(&o->setup, ".replay", i);
    const int taken = !rejected || check_output(o, rejected);
    free(rejected);
    if (taken) return -1;
  }
  if (o->positive_weights && number_or(o->positive_weights, "balanced", 0, 1e-3, 1e3, &o->positive_weight))
    return sw_fail("--positive-weights %s: a number from 0.001 to 1000, or balanced", o->positive_weights);
  return sw_setup_check(&o->setup, check_output, o);
}

/* --- data --- */

typedef struct {
  sw_label_table data, dev, replays[SW_MAX_REPLAYS], *tests; /* all with the labels of data */
  int num_replays, num_tests;
  uint32_t *rows, *held; /* of data: to train on, to evaluate on */
  size_t num_rows, num_held;
  sw_label_reduction reduction;
  char **names; /* [num_labels] what is learned; borrowed from data.labels */
  size_t num_labels;
} tables;

static void close_tables(tables *d) {
  sw_label_table_close(&d->data);
  sw_label_table_close(&d->dev);
  for (int i = 0; i < d->num_replays; i++) sw_label_table_close(&d->replays[i]);
  for (int i = 0; i < d->num_tests; i++) sw_label_table_close(&d->tests[i]);
  free(d->tests);
  sw_label_reduction_close(&d->reduction);
  free(d->rows);
  free(d->held);
  free(d->names);
}

static int read_tables(const multilabel_options *o, const sw_setup *setup, tables *d) {
  const char *output = o->setup.loop.output;
  char *rejected = sw_loop_path(output, ".rejected.jsonl"), *dev_rejected = sw_loop_path(output, ".dev.rejected.jsonl");
  int status = rejected && dev_rejected ? 0 : -1;
  if (!status) status = sw_label_table_read(o->data.items, (size_t)o->data.count, o->column, o->labels, NULL, sw_setup_rejected(setup, rejected), &d->data);
  if (!status && o->dev.count) status = sw_label_table_read(o->dev.items, (size_t)o->dev.count, o->column, NULL, &d->data, sw_setup_rejected(setup, dev_rejected), &d->dev);
  free(rejected);
  free(dev_rejected);
  if (status || !(d->tests = sw_alloc_array((size_t)o->test.count + 1, sizeof *d->tests))) return -1;
  for (; d->num_replays < o->replay.count; d->num_replays++) {
    char *path = sw_setup_rejected_path(&o->setup, ".replay", d->num_replays);
    status = path ? sw_label_table_read((const char *const *)&o->replay_files[d->num_replays], 1, o->column, NULL, &d->data, sw_setup_rejected(setup, path),
                                        &d->replays[d->num_replays])
                  : -1;
    free(path);
    if (status) return sw_fail_in("--replay");
  }
  for (; d->num_tests < o->test.count; d->num_tests++)
    if (sw_label_table_read(o->test.items + d->num_tests, 1, o->column, NULL, &d->data, NULL, &d->tests[d->num_tests])) return sw_fail_in("--test");
  d->rows = sw_alloc_array(d->data.num_rows, sizeof *d->rows);
  d->held = sw_alloc_array(d->data.num_rows, sizeof *d->held);
  if (!d->rows || !d->held) return -1;
  for (uint32_t i = 0; i < d->data.num_rows; i++)
    if (o->holdout_every && i % (uint32_t)o->holdout_every == 0)
      d->held[d->num_held++] = i;
    else
      d->rows[d->num_rows++] = i;
  return d->num_rows ? 0 : sw_fail("--holdout-every %d leaves no row to train on", o->holdout_every);
}

/* Which labels are learned, and the report of those that were merged. */
static int reduce_labels(const multilabel_options *o, const sw_setup *setup, tables *d) {
  const size_t labels = d->data.num_labels;
  d->num_labels = labels;
  if (!(d->names = sw_alloc_array(labels, sizeof *d->names))) return -1;
  for (size_t k = 0; k < labels; k++) d->names[k] = d->data.labels[k];
  if (!o->reduce) return 0;
  if (sw_label_reduction_make(o->association, o->reduce_above, d->data.targets, labels, d->rows, d->num_rows, &d->reduction)) return -1;
  d->num_labels = d->reduction.num_groups;
  for (size_t k = 0; k < d->num_labels; k++) d->names[k] = d->data.labels[d->reduction.representative[k]];
  if (sw_group_rank(setup->group)) return 0;
  json_t *report = sw_label_reduction_json(&d->reduction, d->data.labels);
  char *path = sw_loop_path(o->setup.loop.output, ".labels.json"), *text = report ? sw_json_pretty(report) : NULL;
  json_decref(report);
  sw_output output;
  int status = path && text ? sw_output_open(&output, path) : -1;
  if (!status) {
    fputs(text, output.file);
    status = sw_output_commit(&output);
  }
  if (!status && !o->setup.loop.quiet)
    fprintf(stderr, "%zu labels became %zu: see %s\n", labels, d->num_labels, path);
  free(path);
  free(text);
  return status;
}

static int make_vocabulary(const multilabel_options *o, const tables *d, sw_checkpoint *c, int max_length) {
  sw_stems *stems;
  const char *const *vocab;
  size_t count;
  if (sw_stems_open(SW_STEM_ALGORITHM, sw_stop_words, sw_num_stop_words, NULL, NULL, 0, &stems)) return -1;
  int status = 0;
  for (size_t i = 0; i < d->num_rows && !status; i++)
    status = sw_stems_count(stems, d->data.rows[d->rows[i]].text, d->data.rows[d->rows[i]].bytes);
  for (int r = 0; r < d->num_replays; r++)
    for (size_t i = 0; i < d->replays[r].num_rows && !status; i++) status = sw_stems_count(stems, d->replays[r].rows[i].text, d->replays[r].rows[i].bytes);
  if (!status) status = sw_stems_vocabulary(stems, (uint64_t)o->min_count, (size_t)o->vocabulary, &vocab, &count);
  if (!status && count < 2) status = sw_fail("no word of the training data is left for the vocabulary: a lower --min-count may help");
  if (!status)
    status = sw_gru_init(c, (int)count, o->embedding, o->cells, max_length, o->dropout, HEAD, (const char *const *)d->names, d->num_labels,
                         (uint64_t)o->setup.loop.seed) ||
                     sw_checkpoint_set_stems(c, SW_STEM_ALGORITHM, sw_stop_words, sw_num_stop_words, vocab, count)
                 ? -1
                 : 0;
  sw_stems_close(stems);
  return status;
}

/* How texts are read: as stems, the first max_length of them, or by an encoder's tokens. */
typedef struct {
  sw_stems *stems;
  size_t max_length;
  sw_encoder encode;
} reader;

static int read_text(reader *r, const char *text, size_t bytes, const int32_t **ids, size_t *length, int *truncated) {
  if (r->stems) return sw_stems_encode(r->stems, text, bytes, r->max_length, ids, length, truncated);
  int32_t tokens;
  const uint64_t before = r->encode.truncated;
  if (sw_encoder_run(&r->encode, text, bytes, &tokens)) return -1;
  *ids = r->encode.ids;
  *length = (size_t)tokens;
  *truncated = r->encode.truncated > before;
  return 0;
}

static json_t *file_entry(const struct sw_label_table_file *file) {
  return json_pack("{s:s, s:s, s:I, s:I}", "file", file->path, "sha256", file->sha256, "rows", (json_int_t)file->rows, "rejected",
                   (json_int_t)file->rejected);
}

/* The table's files, and those that are replayed. */
static json_t *manifest(const sw_label_table *table, const sw_label_table *replays, const sw_replay *parts, int num_replays) {
  json_t *list = json_array();
  for (size_t i = 0; list && i < table->num_files; i++) json_array_append_new(list, file_entry(&table->files[i]));
  for (int i = 0; list && i < num_replays; i++) {
    json_t *entry = file_entry(&replays[i].files[0]);
    json_object_set_new(entry, "replay", json_real(parts[i].part));
    json_array_append_new(list, entry);
  }
  return list;
}

/* Adds texts as ids to the set; rows NULL: all of the table. */
static int add_texts(const tables *d, const sw_label_table *table, const uint32_t *rows, size_t count, reader *r, text_set *out) {
  const size_t labels = table->num_labels, all = out->count + count;
  size_t *starts = sw_realloc_array(out->starts, all + 1, sizeof *starts);
  if (starts) out->starts = starts;
  int32_t *lengths = sw_realloc_array(out->lengths, all, sizeof *lengths);
  if (lengths) out->lengths = lengths;
  uint8_t *targets = sw_realloc_array(out->targets, all, d->num_labels), *given = sw_alloc_array(count, labels);
  if (targets) out->targets = targets;
  int status = starts && lengths && targets && given ? 0 : -1;
  if (!status && !out->count) out->starts[0] = 0;
  for (size_t i = 0; i < count && !status; i++) {
    const size_t row = rows ? rows[i] : i, at = out->count + i;
    const int32_t *ids;
    size_t length;
    int truncated;
    status = read_text(r, table->rows[row].text, table->rows[row].bytes, &ids, &length, &truncated);
    if (!status && out->starts[at] + length > out->room) {
      const size_t room = 2 * (out->starts[at] + length);
      int32_t *larger = sw_realloc_array(out->ids, room, sizeof *larger);
      if (larger) {
        out->ids = larger;
        out->room = room;
      } else {
        status = -1;
      }
    }
    if (status) break;
    memcpy(out->ids + out->starts[at], ids, length * sizeof *ids);
    out->lengths[at] = (int32_t)length;
    out->starts[at + 1] = out->starts[at] + length;
    out->truncated += (size_t)truncated;
    memcpy(given + i * labels, table->targets + row * labels, labels);
  }
  if (!status && d->num_labels < labels)
    sw_label_reduction_apply(&d->reduction, given, count, out->targets + out->count * d->num_labels);
  else if (!status)
    memcpy(out->targets + out->count * labels, given, count * labels);
  if (!status) out->count = all;
  free(given);
  return status;
}

static int make_sets(multilabel *t, const tables *d, const sw_tokenizer *tokenizer, const multilabel_options *o) {
  reader r = {.max_length = (size_t)t->max_length};
  int status = tokenizer ? sw_encoder_open(&r.encode, tokenizer, t->max_length, o->prefix) : sw_checkpoint_stems(t->checkpoint, &r.stems);
  if (!status) status = add_texts(d, &d->data, d->rows, d->num_rows, &r, &t->train);
  if (!status && d->num_held) status = add_texts(d, &d->data, d->held, d->num_held, &r, &t->dev);
  if (!status && d->dev.num_rows) status = add_texts(d, &d->dev, NULL, d->dev.num_rows, &r, &t->dev);
  t->fresh = t->train.count;
  for (int i = 0; i < d->num_replays && !status; i++) {
    t->replays[i] = (sw_replay){t->train.count, d->replays[i].num_rows, o->parts[i]};
    status = add_texts(d, &d->replays[i], NULL, d->replays[i].num_rows, &r, &t->train);
  }
  if (!status && d->num_tests && (!(t->tests = sw_alloc_array((size_t)d->num_tests, sizeof *t->tests)) ||
                                  !(t->test_files = sw_alloc_array((size_t)d->num_tests, sizeof *t->test_files))))
    status = -1;
  for (; t->num_tests < (size_t)d->num_tests && !status; t->num_tests++) {
    const sw_label_table *table = &d->tests[t->num_tests];
    status = add_texts(d, table, NULL, table->num_rows, &r, &t->tests[t->num_tests]);
    t->test_files[t->num_tests] = file_entry(&table->files[0]);
  }
  sw_stems_close(r.stems);
  sw_encoder_close(&r.encode);
  return status;
}

/* --- the task --- */

/* "balanced": what is rare weighs as much as what is not, negatives / positives (King, Zeng 2001). */
static int set_positive_weights(multilabel *t, double weight) {
  if (!(t->positive_weights = sw_alloc_array(t->num_labels, sizeof *t->positive_weights))) return -1;
  for (size_t k = 0; k < t->num_labels; k++) {
    size_t positives = 0;
    for (size_t i = 0; i < t->train.count; i++) positives += t->train.targets[i * t->num_labels + k];
    t->positive_weights[k] = (float)(weight > 0                              ? weight
                                     : positives && positives < t->train.count ? (double)(t->train.count - positives) / (double)positives
                                                                               : 1);
  }
  return 0;
}

static int open_task(multilabel *t, const tables *d, const sw_tokenizer *tokenizer, const multilabel_options *o) {
  const sw_loop_options *l = &o->setup.loop;
  if (make_sets(t, d, tokenizer, o) || (o->positive_weights && set_positive_weights(t, o->positive_weight))) return -1;
  const size_t longest = (size_t)t->model->config.max_positions, budget = (size_t)l->batch_tokens;
  const size_t room = l->batch_size ? (size_t)l->batch_size * longest : budget > longest ? budget : longest; /* tokens of any batch */
  const size_t tokens = room > (size_t)eval_tokens(t->model) ? room : (size_t)eval_tokens(t->model);
  const size_t texts = l->batch_size ? (size_t)l->batch_size : room; /* each has a token at least */
  const size_t outputs = texts * t->num_labels;
  size_t most = t->tunes && t->train.count > t->dev.count ? t->train.count : t->dev.count;
  for (size_t i = 0; i < t->num_tests; i++)
    if (t->tests[i].count > most) most = t->tests[i].count;
  if (tokenizer && !(t->vectors = sw_alloc_array(EVAL_BATCH, (size_t)t->model->config.hidden_size * sizeof *t->vectors))) return -1;
  t->ids = sw_alloc_array(tokens, sizeof *t->ids);
  t->cu_seqlens = sw_alloc_array(tokens + 1, sizeof *t->cu_seqlens);
  t->targets = sw_alloc_array(outputs, sizeof *t->targets);
  t->weights = sw_alloc_array(outputs, sizeof *t->weights);
  t->probabilities = sw_alloc_array(most, t->num_labels * sizeof *t->probabilities);
  t->thresholds = sw_alloc_array(t->num_labels, sizeof *t->thresholds);
  if (!t->ids || !t->cu_seqlens || !t->targets || !t->weights || !t->probabilities || !t->thresholds) return -1;
  for (size_t k = 0; k < t->num_labels; k++) t->thresholds[k] = t->tunes ? 0.5f : (float)o->threshold;
  for (size_t k = 0; k < t->num_labels && t->tunes && t->knows; k++) /* the base's, for its scores */
    if (json_is_number(json_array_get(t->base_thresholds, k))) t->thresholds[k] = (float)json_number_value(json_array_get(t->base_thresholds, k));
  return t->tunes || o->threshold != 0.5 ? store_thresholds(t) : 0;
}

static void close_task(multilabel *t) {
  close_set(&t->train);
  close_set(&t->dev);
  for (size_t i = 0; i < t->num_tests; i++) {
    close_set(&t->tests[i]);
    json_decref(t->test_files[i]);
  }
  free(t->tests);
  free(t->test_files);
  json_decref(t->base_thresholds);
  free(t->thresholds);
  free(t->positive_weights);
  free(t->probabilities);
  free(t->ids);
  free(t->cu_seqlens);
  free(t->targets);
  free(t->weights);
  free(t->vectors);
}

static void print_start(const sw_setup *setup, const multilabel *t, const tables *d) {
  size_t set_aside = d->data.rejected + d->dev.rejected, truncated = t->train.truncated + t->dev.truncated;
  for (int i = 0; i < d->num_replays; i++) set_aside += d->replays[i].rejected;
  sw_setup_print_device(setup);
  fprintf(stderr, "; %zu text%s, %zu token%s", t->fresh, SW_S(t->fresh), t->train.starts[t->fresh], SW_S(t->train.starts[t->fresh]));
  if (!t->vectors) fprintf(stderr, ", %zu stem%s", setup->checkpoint.vocab_size, SW_S(setup->checkpoint.vocab_size));
  fprintf(stderr, ", %zu label%s", t->num_labels, SW_S(t->num_labels));
  if (t->dev.count) fprintf(stderr, "; %zu to evaluate on", t->dev.count);
  fputc('\n', stderr);
  for (int i = 0; i < d->num_replays; i++)
    fprintf(stderr, "%g of every batch: %s, %zu rows\n", t->replays[i].part, d->replays[i].files[0].path, t->replays[i].count);
  if (set_aside) fprintf(stderr, "%zu row%s could not be used: see the .rejected.jsonl file beside the output\n", set_aside, SW_S(set_aside));
  if (truncated)
    fprintf(stderr, "of %zu text%s with more than %d %s the first are read\n", truncated, SW_S(truncated), t->max_length, t->vectors ? "tokens" : "words");
}

static json_t *hyper_parameters(const multilabel_options *o) {
  json_t *all = json_pack("{s:s, s:s?, s:s?, s:i, s:s?, s:s, s:s?}", "model", o->model, "column", o->column, "labels", o->labels, "holdout_every",
                          o->holdout_every, "reduce", o->reduce, "thresholds", o->thresholds, "positive_weights", o->positive_weights);
  json_t *own = o->setup.base ? json_pack("{s:s}", "prefix", o->prefix)
                              : json_pack("{s:i, s:i, s:i, s:i, s:f}", "vocabulary", o->vocabulary, "min_count", o->min_count, "embedding_size",
                                          o->embedding, "cells", o->cells, "dropout", o->dropout);
  const int failed = !all || !own || json_object_update(all, own);
  json_decref(own);
  if (!failed) return all;
  json_decref(all);
  sw_fail("the options are not valid UTF-8, or out of memory");
  return NULL;
}

/* --- the encoder's head --- */

static int has_labels(const void *self, const sw_head *head) {
  const tables *d = self;
  if (strcmp(head->task, "multilabel") || strcmp(head->name, HEAD) || head->num_labels != d->num_labels) return 0;
  for (size_t i = 0; i < d->num_labels; i++)
    if (strcmp(head->labels[i], d->names[i])) return 0;
  return 1;
}

static int add_head(multilabel *t, const multilabel_options *o, const tables *d, sw_setup *setup) {
  for (size_t h = 0; h < setup->checkpoint.num_heads && !setup->config.normalize; h++) t->knows |= has_labels(d, &setup->checkpoint.heads[h]);
  t->base_thresholds = json_incref(json_object_get(setup->checkpoint.config, "thresholds"));
  json_object_del(setup->checkpoint.config, "thresholds"); /* the base's */
  sw_setup_drop_heads(setup, setup->config.normalize ? NULL : has_labels, d);
  return sw_setup_add_head(setup, HEAD, "multilabel", (const char *const *)d->names, d->num_labels, 0) || sw_setup_set_pooled(setup) ||
                 sw_setup_set_prefix(setup, o->prefix)
             ? -1
             : 0;
}

static int train_multilabel(multilabel_options *o) {
  const int wanted_length = o->setup.max_length;
  sw_setup setup = {0};
  tables d = {0};
  multilabel t = {.checkpoint = &setup.checkpoint, .tunes = o->threshold < 0};
  int status = sw_setup_open(&o->setup, &setup);
  if (status) goto done;
  status = SW_EXIT_FAILED;
  if (o->setup.base && sw_encoder_length(&setup.config, o->setup.base, wanted_length, setup.config.max_positions, &o->setup.max_length)) goto done;
  if (read_tables(o, &setup, &d) || reduce_labels(o, &setup, &d) ||
      (o->setup.base ? add_head(&t, o, &d, &setup) : make_vocabulary(o, &d, &setup.checkpoint, o->setup.max_length)) || sw_setup_model(&setup, "multilabel"))
    goto done;
  t.model = setup.model;
  t.group = setup.group;
  t.names = d.names;
  t.num_labels = d.num_labels;
  t.quiet = o->setup.loop.quiet;
  t.max_length = o->setup.max_length;
  if (open_task(&t, &d, setup.tokenizer, o)) goto done;
  if (!o->setup.loop.quiet) print_start(&setup, &t, &d);
  const int evaluates = t.dev.count || t.num_tests;
  sw_task task = {.name = "multilabel", .self = &t, .num_items = t.fresh, .lengths = t.train.lengths, .replays = t.replays,
                  .num_replays = (size_t)d.num_replays, .begin_step = begin_step, .batch = batch, .ids = item_ids, .loss = step_loss,
                  .evaluate = t.dev.count ? evaluate : NULL, .test = t.num_tests ? test : NULL,
                  .eval_tokens = evaluates ? eval_tokens(t.model) : 0, .eval_batch = evaluates ? EVAL_BATCH : 0};
  json_t *hyper = hyper_parameters(o);
  if (!hyper) goto done;
  status = sw_setup_train(&setup, &task, manifest(&d.data, d.replays, t.replays, d.num_replays), manifest(&d.dev, NULL, NULL, 0), hyper);
  if (status == SW_EXIT_DONE && o->table && !sw_group_rank(setup.group) && sw_label_scores_print(json_object_get(setup.checkpoint.training, "metrics"), stdout)) status = SW_EXIT_FAILED;
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_setup_tell(&setup, status);
  close_task(&t);
  close_tables(&d);
  sw_setup_close(&setup);
  return status;
}

enum { ANY, GRU, BERT }; /* whose options are understood, and the defaults */

/* As sw_options_parse. */
static int parse(multilabel_options *o, int model, int argc, char **argv) {
  *o = (multilabel_options){.setup = SW_SETUP_DEFAULTS, .prefix = "", .thresholds = "0.5", .vocabulary = 500, .min_count = 1,
                            .embedding = SW_GRU_EMBEDDING, .cells = SW_GRU_CELLS, .dropout = 0.5};
  o->setup.from_scratch = 1;
  o->setup.max_length = model == BERT ? 0 : 100;
  o->setup.loop.epochs = model == BERT ? BERT_EPOCHS : 25;
  o->setup.loop.learning_rate = model == BERT ? BERT_RATE : 2e-3;
  if (model != BERT) o->setup.loop.optimizer.weight_decay = 0.1;
  o->setup.loop.batch_size = model == BERT ? BERT_BATCH : 32;
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o->data, "FILE", "texts with labels, CSV or JSON lines; may be repeated"},
      {"column", 0, SW_OPTION_TEXT, &o->column, "NAME", "column or key of the text (else: text, description)"},
      {"labels", 0, SW_OPTION_TEXT, &o->labels, "LIST", "columns of labels, with commas between (else: all of 0 and 1); of JSON lines, labels to learn"},
      {"dev", 0, SW_OPTION_LIST, &o->dev, "FILE", "texts with labels to choose the best checkpoint by; may be repeated"},
      {"holdout-every", 0, SW_OPTION_INT, &o->holdout_every, "N", "instead of --dev: the first of every N rows of the data; 0 = none"},
      {"replay", 0, SW_OPTION_LIST, &o->replay, "FILE:PART", "older texts with the same labels that make up this part of every batch; may be repeated"},
      {"test", 0, SW_OPTION_LIST, &o->test, "FILE", "an earlier test set: scored before and after, to see what is forgotten; may be repeated"},
      {"base", 'b', SW_OPTION_TEXT, &o->setup.base, "CKPT", "an encoder to train together with a head of labels, instead of the GRU"},
      {"model", 0, SW_OPTION_TEXT, &o->model, "NAME", "gru, or bert with --base"},
      {"reduce", 0, SW_OPTION_TEXT, &o->reduce, "METHOD:X",
       "merge labels whose columns correlate at least X: pearson, spearman or cramer; <name>.labels.json says which"},
      {"thresholds", 0, SW_OPTION_TEXT, &o->thresholds, "X", "least probability of a label; tuned: for each the one with the best F1 in training"},
      {"positive-weights", 0, SW_OPTION_TEXT, &o->positive_weights, "X", "of a label that is there, in the loss; balanced: rows without it / rows with it"},
      {"max-length", 0, SW_OPTION_INT, &o->setup.max_length, "N", "words of a text, of longer ones the first; with --base tokens, 0 = the model's max_seq_length"},
      {"table", 0, SW_OPTION_FLAG, &o->table, NULL, "print the scores of every label to standard output"},
      {0}};
  const sw_option gru[] = {
      {"vocabulary", 0, SW_OPTION_INT, &o->vocabulary, "N", "GRU: most frequent stems that are told apart, and one for all others"},
      {"min-count", 0, SW_OPTION_INT, &o->min_count, "N", "GRU: least occurrences of a stem that is told apart"},
      {"embedding", 0, SW_OPTION_INT, &o->embedding, "N", "GRU: size of a stem's embedding"},
      {"cells", 0, SW_OPTION_INT, &o->cells, "N", "GRU: cells"},
      {"dropout", 0, SW_OPTION_DOUBLE, &o->dropout, "X", "GRU: of embeddings and of the last state, in training"},
      {0}};
  const sw_option bert[] = {{"prefix", 0, SW_OPTION_TEXT, &o->prefix, "TEXT", "with --base: put before every text, by inference too"}, {0}};
  const sw_option *const parts[] = {options, model == BERT ? NULL : gru, model == GRU ? NULL : bert};
  sw_option all[32] = {{0}};
  size_t count = 0;
  for (int i = 0; i < 3; i++)
    for (const sw_option *row = parts[i]; row && row->name; row++) all[count++] = *row;
  const sw_command command = {
      "skillwatch train multilabel --data FILE [--column NAME] [--base CKPT] [--holdout-every N] -o CKPT [options]",
      "Learns labels of whole texts, any number each: a GRU over word stems with one sigmoid a label, or with --base a BERT that is trained\n"
      "together with such a head (" BERT_DEFAULTS " unless said otherwise). Data: CSV with a column of\n"
      "texts and a column of 0 and 1 for each label, or JSON lines {\"text\", \"labels\": [...]}; plain, .gz or .zst.",
      "skillwatch train multilabel --data train.csv --column Description --holdout-every 5 -o skills.h5", all};
  return sw_setup_parse(&command, &o->setup, argc, argv);
}

static void close_options(multilabel_options *o) {
  sw_list_close(&o->data);
  sw_list_close(&o->dev);
  sw_list_close(&o->replay);
  sw_list_close(&o->test);
  for (int i = 0; i < SW_MAX_REPLAYS; i++) free(o->replay_files[i]);
}

int sw_train_multilabel(int argc, char **argv) {
  multilabel_options o;
  int status = parse(&o, ANY, argc, argv);
  if (!status) {
    const int bert = o.setup.base != NULL;
    if (o.model && strcmp(o.model, bert ? "bert" : "gru")) {
      status = sw_fail("--model %s: use gru, or bert with --base CKPT", o.model);
    } else {
      close_options(&o);
      status = parse(&o, bert ? BERT : GRU, argc, argv) ? sw_fail_in("%s --base", bert ? "with" : "without") : 0;
      o.model = bert ? "bert" : "gru";
      o.setup.from_scratch = !bert;
    }
  }
  if (!status) status = check_options(&o);
  int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_multilabel(&o);
  close_options(&o);
  return code;
}
