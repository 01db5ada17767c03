/* skillwatch train classify --method fine-tune: an encoder and a head of labels on its pooled vectors, by softmax cross entropy. */
#include "base/error.h"
#include "engine/data/labels.h"
#include "engine/data/sequences.h"
#include "train/classify.h"
#include "train/encoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_TOKENS = 2048, EVAL_BATCH = 256 };

typedef struct {
  const sw_classify_options *options;
  sw_model *model;
  sw_group *group;
  sw_encoder encode;
  sw_sequences texts;
  sw_labelled train, dev, *tests; /* a row is a number in texts; train: the new rows, then those of each replayed file */
  json_t **test_files; /* borrowed from tests */
  size_t num_tests, fresh;
  sw_replay replays[SW_MAX_REPLAYS];
  size_t unseen; /* rows of dev */
  int knows;     /* the base had this head */
  int32_t *lengths;
  /* of the step */
  float scale;
  /* of the batch */
  int32_t *ids, *cu_seqlens, *labels;
  float *vectors, *log_probs; /* of an evaluation's */
} tuner;

/* --- the loop's task --- */

static uint32_t text_of(const sw_labelled *set, size_t row) {
  uint32_t number;
  memcpy(&number, sw_labelled_value(set, row), sizeof number);
  return number;
}

/* Puts the row's text behind the others of the batch. */
static void pack(tuner *t, const sw_labelled *set, size_t row, sw_batch *b) {
  const uint32_t text = text_of(set, row);
  const int32_t length = sw_sequence_length(&t->texts, text);
  memcpy(t->ids + b->tokens, sw_sequence_ids(&t->texts, text), (size_t)length * sizeof *t->ids);
  b->tokens += length;
  if (length > b->max_seqlen) b->max_seqlen = length;
  t->labels[b->batch++] = set->labels[row];
  t->cu_seqlens[b->batch] = (int32_t)b->tokens;
}

static int begin_step(void *self, const uint32_t *items, size_t count) {
  ((tuner *)self)->scale = (float)(1 / (double)count);
  return 0;
}

static int batch(void *self, sw_run *run, const uint32_t *items, size_t count, sw_gradients *gradients, int *used) {
  tuner *t = self;
  sw_batch b = {.ids = t->ids, .cu_seqlens = t->cu_seqlens};
  *used = 1;
  for (size_t i = 0; i < count; i++) pack(t, &t->train, items[i], &b);
  return sw_run_forward(run, &b, NULL) || sw_run_sequence_loss(run, 0, t->labels, NULL, NULL, t->scale, 1, gradients) || sw_run_backward(run, gradients)
             ? -1
             : 0;
}

static double step_loss(void *self, const double *sums) { return sums[0] * (double)((tuner *)self)->scale; }

static void item_ids(void *self, uint32_t item, const int32_t **ids, int32_t *count) {
  tuner *t = self;
  const uint32_t text = text_of(&t->train, item);
  *ids = sw_sequence_ids(&t->texts, text);
  *count = sw_sequence_length(&t->texts, text);
}

/* --- evaluation --- */

static int64_t eval_tokens(const sw_model *model) {
  return model->config.max_positions > EVAL_TOKENS ? model->config.max_positions : EVAL_TOKENS;
}

/* The set's scores, and its mean loss, as a JSON object. Processes take turns with the batches. */
static int score(tuner *t, sw_run *run, const sw_labelled *set, json_t **metrics, char *line) {
  const size_t classes = t->train.names.count;
  sw_class_scores scores = {0};
  double loss = 0;
  int turn = 0;
  *metrics = json_object();
  int status = *metrics && !sw_class_scores_open(&scores, set, classes, t->options->k) ? 0 : -1;
  sw_run_set_dropout(run, 0, 0, 0);
  for (size_t first = 0; first < set->rows && !status;) {
    sw_batch b = {.ids = t->ids, .cu_seqlens = t->cu_seqlens};
    for (size_t row = first; row < set->rows && b.batch < EVAL_BATCH; row++) {
      if (b.batch && b.tokens + sw_sequence_length(&t->texts, text_of(set, row)) > eval_tokens(t->model)) break;
      pack(t, set, row, &b);
    }
    const int own = turn == sw_group_rank(t->group);
    turn = (turn + 1) % sw_group_size(t->group);
    if (own) status = sw_run_embed(run, &b, t->vectors) || sw_run_sequence_log_probs(run, 0, t->log_probs) ? -1 : 0;
    for (size_t i = 0; i < (size_t)b.batch && own && !status; i++) {
      loss -= (double)t->log_probs[i * classes + (size_t)set->labels[first + i]];
      sw_class_scores_add(&scores, first + i, t->log_probs + i * classes);
    }
    first += (size_t)b.batch;
  }
  if (!status) status = sw_class_scores_share(&scores, t->group) || sw_group_sum(t->group, &loss, 1) ? -1 : 0;
  if (!status) status = sw_class_scores_json(&scores, *metrics, line);
  if (!status && json_object_set_new(*metrics, "loss", json_real(loss / (double)set->rows))) status = sw_fail("out of memory");
  sw_class_scores_close(&scores);
  return status;
}

static int evaluate(void *self, sw_run *run, double *best_by, json_t **metrics, char *line) {
  tuner *t = self;
  const int told = snprintf(line, 10, "dev ");
  if (score(t, run, &t->dev, metrics, line + told)) return -1;
  *best_by = json_real_value(json_object_get(*metrics, "mrr"));
  return t->unseen && json_object_set_new(*metrics, "unseen_labels", json_integer((json_int_t)t->unseen)) ? sw_fail("out of memory") : 0;
}

static int score_test(void *self, sw_run *run, size_t number, json_t **metrics, char *line) {
  tuner *t = self;
  return score(t, run, &t->tests[number], metrics, line);
}

static int test(void *self, sw_run *run, int begun, json_t **list) {
  tuner *t = self;
  return sw_setup_test(&(sw_earlier_tests){t, t->num_tests, t->test_files, t->knows, t->options->setup.loop.quiet, score_test}, run, begun, list);
}

/* --- data --- */

static int take_texts(void *context, sw_postings *postings, sw_labelled *set) {
  tuner *t = context;
  sw_posting posting;
  int32_t length;
  uint32_t number;
  int status;
  while ((status = sw_postings_next(postings, &posting)) == 1) {
    const int failed = sw_encoder_run(&t->encode, posting.text, posting.bytes, &length)
                           ? sw_fail_in("row %llu (id %s)", (unsigned long long)posting.index + 1, posting.id)
                           : sw_sequences_add(&t->texts, t->encode.ids, length, &number) || sw_labelled_add(set, posting.label, &number);
    sw_posting_close(&posting);
    if (failed) return -1;
  }
  return status;
}

static int read_file(tuner *t, const char *path, const char *rejected, sw_labelled *set, json_t **entry) {
  if (sw_group_rank(t->group)) rejected = NULL; /* the first process writes it */
  const sw_postings_options reading = {.column = t->options->column, .label_column = t->options->label};
  set->row_bytes = sizeof(uint32_t);
  return sw_labelled_read(set, path, &reading, rejected, t->options->setup.loop.quiet, take_texts, t, entry);
}

static int read_list(tuner *t, const char *const *paths, int count, const char *which, sw_labelled *set, json_t **entries) {
  for (int i = 0; i < count; i++) {
    const size_t before = set->rows;
    char *rejected = sw_setup_rejected_path(&t->options->setup, which, i);
    const int failed = !rejected || read_file(t, paths[i], rejected, set, entries ? &entries[i] : NULL);
    free(rejected);
    if (failed) return -1;
    if (entries) t->replays[i] = (sw_replay){before, set->rows - before, t->options->parts[i]};
  }
  return 0;
}

static int read_data(tuner *t) {
  const sw_classify_options *o = t->options;
  json_t *replayed[SW_MAX_REPLAYS];
  t->dev.row_bytes = sizeof(uint32_t);
  if (read_list(t, o->data.items, o->data.count, "", &t->train, NULL) ||
      (o->holdout > 0 && sw_labelled_hold_out(&t->train, &t->dev, o->holdout, o->setup.loop.seed)))
    return -1;
  t->fresh = t->train.rows;
  if (read_list(t, (const char *const *)o->replay_files, o->replay.count, ".replay", &t->train, replayed) || sw_labelled_sort(&t->train)) return -1;
  for (int i = 0; i < o->replay.count; i++) json_object_set_new(replayed[i], "replay", json_real(o->parts[i]));
  if (t->train.names.count < 2) return sw_fail("all rows have the label '%s': two classes are needed to tell apart", t->train.names.keys[0]);
  if (read_list(t, o->dev.items, o->dev.count, ".dev", &t->dev, NULL)) return -1;
  if (t->dev.rows) t->unseen = sw_labelled_adopt(&t->train, &t->dev);
  if (o->dev.count && !t->dev.rows) return sw_fail("no row of --dev has a label that the training data has");
  if (o->test.count && (!(t->tests = sw_alloc_array((size_t)o->test.count, sizeof *t->tests)) ||
                        !(t->test_files = sw_alloc_array((size_t)o->test.count, sizeof *t->test_files))))
    return -1;
  for (; t->num_tests < (size_t)o->test.count; t->num_tests++) {
    sw_labelled *set = &t->tests[t->num_tests];
    if (read_file(t, o->test.items[t->num_tests], NULL, set, &t->test_files[t->num_tests])) return -1;
    sw_labelled_adopt(&t->train, set);
    if (!set->rows) return sw_fail("no row of --test %s has a label that the training data has", o->test.items[t->num_tests]);
  }
  return 0;
}

/* --- the run --- */

/* Whether the base's head has the same labels, and was trained with its encoder: then its weights stay. */
static int keeps_head(const void *self, const sw_head *head) {
  const sw_labelled *train = self;
  if (strcmp(head->task, "sequence") || strcmp(head->name, SW_CLASSIFY_HEAD) || head->num_labels != train->names.count) return 0;
  for (size_t i = 0; i < head->num_labels; i++)
    if (strcmp(head->labels[i], train->names.keys[i])) return 0;
  return 1;
}

static int set_model(tuner *t, sw_setup *setup) {
  const int pooled = !setup->config.normalize; /* a head on vectors of length 1 knows another scale */
  for (size_t h = 0; h < setup->checkpoint.num_heads && pooled; h++) t->knows |= keeps_head(&t->train, &setup->checkpoint.heads[h]);
  sw_setup_drop_heads(setup, pooled ? keeps_head : NULL, &t->train);
  if (sw_setup_add_head(setup, SW_CLASSIFY_HEAD, "sequence", (const char *const *)t->train.names.keys, t->train.names.count, 0) ||
      sw_setup_set_pooled(setup) || sw_setup_set_prefix(setup, t->options->prefix) || sw_setup_model(setup, "classify"))
    return -1;
  t->model = setup->model;
  return 0;
}

static int open_task(tuner *t) {
  const sw_loop_options *l = &t->options->setup.loop;
  size_t longest = 0;
  if (!(t->lengths = sw_alloc_array(t->train.rows, sizeof *t->lengths))) return -1;
  for (size_t i = 0; i < t->train.rows; i++) {
    t->lengths[i] = sw_sequence_length(&t->texts, text_of(&t->train, i));
    if ((size_t)t->lengths[i] > longest) longest = (size_t)t->lengths[i];
  }
  const size_t budget = (size_t)l->batch_tokens, most = (size_t)eval_tokens(t->model);
  size_t room = l->batch_size ? (size_t)l->batch_size * longest : budget > longest ? budget : longest; /* of any batch */
  if (room < most) room = most;
  t->ids = sw_alloc_array(room, sizeof *t->ids);
  t->labels = sw_alloc_array(room, sizeof *t->labels);
  t->cu_seqlens = sw_alloc_array(room + 1, sizeof *t->cu_seqlens);
  t->vectors = sw_alloc_array(EVAL_BATCH, (size_t)t->model->config.hidden_size * sizeof *t->vectors);
  t->log_probs = sw_alloc_array(EVAL_BATCH, t->train.names.count * sizeof *t->log_probs);
  return t->ids && t->labels && t->cu_seqlens && t->vectors && t->log_probs ? 0 : -1;
}

static void close_task(tuner *t) {
  sw_encoder_close(&t->encode);
  sw_sequences_close(&t->texts);
  sw_labelled_close(&t->train);
  sw_labelled_close(&t->dev);
  for (size_t i = 0; t->tests && i < (size_t)t->options->test.count; i++) sw_labelled_close(&t->tests[i]);
  free(t->tests);
  free(t->test_files);
  free(t->lengths);
  free(t->ids);
  free(t->labels);
  free(t->cu_seqlens);
  free(t->vectors);
  free(t->log_probs);
}

static void print_start(const sw_setup *setup, const tuner *t) {
  sw_setup_print_device(setup);
  fprintf(stderr, ": %zu row%s in %zu classes, %zu row%s to score by\n", t->fresh, SW_S(t->fresh), t->train.names.count, t->dev.rows, SW_S(t->dev.rows));
  for (int i = 0; i < t->options->replay.count; i++)
    fprintf(stderr, "%g of every batch: %s, %zu rows\n", t->replays[i].part, t->options->replay_files[i], t->replays[i].count);
  sw_encoder_report(&t->encode);
  if (t->unseen) fprintf(stderr, "%zu row%s of --dev %s left out: the training data has no such label\n", t->unseen, SW_S(t->unseen), t->unseen == 1 ? "is" : "are");
}

int sw_classify_tune(sw_classify_options *o) {
  const int wanted_length = o->setup.max_length;
  sw_setup setup = {0};
  tuner t = {.options = o};
  int status = sw_setup_open(&o->setup, &setup);
  if (status) goto done;
  status = SW_EXIT_FAILED;
  t.group = setup.group;
  if (sw_encoder_length(&setup.config, o->setup.base, wanted_length, setup.config.max_positions, &o->setup.max_length) ||
      sw_encoder_open(&t.encode, setup.tokenizer, o->setup.max_length, o->prefix) || read_data(&t) || set_model(&t, &setup) || open_task(&t))
    goto done;
  if (!o->setup.loop.quiet) print_start(&setup, &t);
  const int evaluates = t.dev.rows || t.num_tests;
  sw_task task = {.name = "classify", .self = &t, .num_items = t.fresh, .lengths = t.lengths, .replays = t.replays,
                  .num_replays = (size_t)o->replay.count, .begin_step = begin_step, .batch = batch, .ids = item_ids, .loss = step_loss,
                  .evaluate = t.dev.rows ? evaluate : NULL, .test = t.num_tests ? test : NULL,
                  .eval_tokens = evaluates ? eval_tokens(t.model) : 0, .eval_batch = evaluates ? EVAL_BATCH : 0};
  json_t *hyper = json_pack("{s:s, s:s?, s:s, s:s, s:f, s:i}", "method", o->method, "column", o->column, "label", o->label, "prefix", o->prefix,
                            "holdout", o->holdout, "top", o->k);
  if (!hyper) {
    sw_fail("--column or --label is not valid UTF-8, or out of memory");
    goto done;
  }
  status = sw_setup_train(&setup, &task, json_incref(t.train.files), t.dev.files ? json_incref(t.dev.files) : json_array(), hyper);
  if (status == SW_EXIT_DONE && o->json && !sw_group_rank(t.group)) sw_classify_print_metrics(&setup.checkpoint);
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_setup_tell(&setup, status);
  close_task(&t);
  sw_setup_close(&setup);
  return status;
}
