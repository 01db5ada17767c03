/* skillwatch train embed: a bi-encoder of (query, positive[, hard negatives]), in-batch negatives, large batches in parts. */
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"
#include "base/sha256.h"
#include "engine/data/pairs.h"
#include "engine/data/sources.h"
#include "engine/learn/retrieval.h"
#include "train/encoder.h"
#include "train/setup.h"
#include "train/tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_TOKENS = 2048, EVAL_BATCH = 256 };

typedef struct {
  sw_setup_options setup;
  sw_list data, dev, corpus, negatives;
  const char *query, *positive, *corpus_column;
  double scale;
  int batch_size, chunk_size; /* pairs: of a loss; of the encoder at once (the loop's batches) */
} embed_options;

typedef struct {
  uint32_t query, positive; /* in texts */
  uint32_t num_negatives;
  size_t first_negative; /* in negatives */
} item;

typedef struct {
  const embed_options *options;
  sw_encoder encode;
  sw_sequences texts;
  item *items;
  uint32_t *negatives;
  size_t num_items, item_capacity, num_negatives, negative_capacity;
  uint32_t most_negatives; /* of an item */
  sw_stream *stream;
  size_t hidden;
  int32_t *lengths;
  sw_retrieval dev;
  sw_pair_vectors *vectors;
  float scale; /* 1 / pairs of the step */
  sw_group *group;
  int ahead; /* vectors and loss are made in a preview: the batch comes in parts, or to several processes */
  /* the pairs of one loss, each its query and the candidates that no pair before it has: those of a text that comes again share one */
  const uint32_t *pairs;       /* [num_pairs] items */
  size_t num_pairs;
  uint32_t *candidates;        /* texts */
  size_t *first_candidate;     /* [num_pairs + 1] of each pair, in candidates */
  int32_t *rows;               /* of the queries, then of the candidates */
  int32_t *positive;           /* [num_pairs]: places in candidates */
  uint32_t *seen, generation;  /* [texts]: the loss that it was a candidate in, and its place there */
  int32_t *place;
  float *shared;               /* host: all processes' vectors */
  /* of a forward */
  int32_t *ids, *cu_seqlens, *item_ids;
} embedder;

/* --- data --- */

/* 0, 1 where the text cannot be used, -1. `what`: "query" */
static int encode_text(sw_encoder *e, const char *what, sw_text text, sw_sequences *set, uint32_t *number) {
  int32_t length;
  if (sw_encoder_run(e, text.data ? text.data : "", text.bytes, &length)) {
    sw_fail_in("the %s", what);
    return sw_error_is_memory() ? -1 : 1;
  }
  if (length == 2) return sw_fail("the %s is empty", what), 1;
  return sw_sequences_add(set, e->ids, length, number);
}

static void *grow(void *items, size_t count, size_t *capacity, size_t size) {
  if (count <= *capacity) return items;
  *capacity = 2 * count + 1024;
  return sw_realloc_array(items, *capacity, size);
}

static int take_pair(void *context, const sw_pair *pair) {
  embedder *t = context;
  item new = {.num_negatives = (uint32_t)pair->num_negatives, .first_negative = t->num_negatives};
  uint32_t *negatives = grow(t->negatives, t->num_negatives + pair->num_negatives, &t->negative_capacity, sizeof *negatives);
  if (negatives) t->negatives = negatives;
  item *items = grow(t->items, t->num_items + 1, &t->item_capacity, sizeof *items);
  if (items) t->items = items;
  if ((pair->num_negatives && !negatives) || !items) return -1;
  int status = encode_text(&t->encode, "query", pair->query, &t->texts, &new.query);
  if (!status) status = encode_text(&t->encode, "positive", pair->positive, &t->texts, &new.positive);
  for (size_t i = 0; i < pair->num_negatives && !status; i++)
    status = encode_text(&t->encode, "negative", pair->negatives[i], &t->texts, &t->negatives[t->num_negatives + i]);
  if (status) return status;
  t->num_negatives += pair->num_negatives;
  if (new.num_negatives > t->most_negatives) t->most_negatives = new.num_negatives;
  t->items[t->num_items++] = new;
  return 0;
}

static int take_dev_pair(void *context, const sw_pair *pair) {
  embedder *t = context;
  uint32_t query, positive, negative;
  int status = encode_text(&t->encode, "positive", pair->positive, &t->dev.corpus, &positive);
  for (size_t i = 0; i < pair->num_negatives && !status; i++)
    status = encode_text(&t->encode, "negative", pair->negatives[i], &t->dev.corpus, &negative);
  if (!status) status = encode_text(&t->encode, "query", pair->query, &t->dev.queries, &query); /* at last: it needs a positive */
  return status ? status : sw_retrieval_add_relevant(&t->dev, query, positive);
}

static int note_file(json_t *manifest, const char *path, const char *sha256, size_t rows, size_t rejected) {
  return json_array_append_new(manifest, json_pack("{s:s, s:s, s:I, s:I}", "file", path, "sha256", sha256, "rows", (json_int_t)rows, "rejected",
                                                   (json_int_t)rejected))
             ? sw_fail("out of memory")
             : 0;
}

static int read_pairs(embedder *t, const sw_setup *setup, const sw_list *inputs, const char *ending, int (*take)(void *, const sw_pair *), json_t *manifest,
                      uint64_t *rejected) {
  const embed_options *o = t->options;
  const sw_pair_columns columns = {o->query, o->positive, o->negatives.items, o->negatives.count};
  char *path = sw_loop_path(o->setup.loop.output, ending);
  sw_rejects rejects;
  int status = path ? sw_rejects_open(&rejects, sw_setup_rejected(setup, path)) : -1;
  free(path);
  if (status) return -1;
  for (int i = 0; i < inputs->count && !status; i++) {
    sw_pair_counts counts;
    status = sw_pairs_read(inputs->items[i], &columns, &rejects, take, t, &counts) ||
             note_file(manifest, inputs->items[i], counts.sha256, counts.rows, counts.rejected);
  }
  char *why = status ? sw_strdup(sw_error()) : NULL; /* the first failure is the one to report; the reasons are worth having all the more */
  if ((!status || rejects.count) && sw_rejects_commit(&rejects)) status = -1;
  if (why) sw_fail("%s", why);
  free(why);
  *rejected += rejects.count;
  sw_rejects_close(&rejects);
  return status ? -1 : 0;
}

static char *corpus_rejected_path(const embed_options *o, int number) {
  char ending[48];
  snprintf(ending, sizeof ending, ".corpus%d.rejected.jsonl", number + 1);
  return sw_loop_path(o->setup.loop.output, ending);
}

/* More documents for the dev queries to be told from. */
static int read_corpus(embedder *t, const char *input, const char *rejected_path, json_t *manifest, uint64_t *rejected) {
  sw_sources sources;
  sw_postings *postings;
  sw_posting posting;
  char hash[65];
  if (sw_is_folder(input) || !strcmp(input, "-")) return sw_fail("--corpus %s: give a file of texts: .csv, .tsv, .jsonl or a text a line", input);
  if (sw_sources_open(&input, 1, SW_POSTINGS_AUTO, &sources)) return -1;
  sw_postings_options options = {.format = sources.items[0].format == SW_POSTINGS_TEXT ? SW_POSTINGS_LINES : SW_POSTINGS_AUTO,
                                 .column = t->options->corpus_column, .rejected_path = rejected_path};
  sw_sources_close(&sources);
  if (sw_sha256_file(input, hash) || sw_postings_open(&input, 1, &options, &postings)) return -1;
  int status;
  uint32_t number;
  while ((status = sw_postings_next(postings, &posting)) > 0) {
    status = encode_text(&t->encode, "text", (sw_text){posting.text, posting.bytes}, &t->dev.corpus, &number);
    sw_posting_close(&posting);
    if (status < 0) break;
    *rejected += (uint64_t)status;
  }
  if (!status) status = note_file(manifest, input, hash, sw_postings_rows(postings), sw_postings_rejected(postings));
  *rejected += sw_postings_rejected(postings);
  return sw_postings_close(postings) || status ? -1 : 0;
}

static int read_data(embedder *t, const sw_setup *setup, json_t *data, json_t *dev, uint64_t *rejected) {
  const embed_options *o = t->options;
  if (read_pairs(t, setup, &o->data, ".rejected.jsonl", take_pair, data, rejected)) return -1;
  if (o->dev.count && read_pairs(t, setup, &o->dev, ".dev.rejected.jsonl", take_dev_pair, dev, rejected)) return -1;
  for (int i = 0; i < o->corpus.count; i++) {
    char *path = corpus_rejected_path(o, i);
    int status = path ? read_corpus(t, o->corpus.items[i], sw_setup_rejected(setup, path), dev, rejected) : -1;
    free(path);
    if (status) return -1;
  }
  return 0;
}

/* --- the loss --- */

static uint32_t candidate_text(const embedder *t, const item *pair, uint32_t k) {
  return k ? t->negatives[pair->first_negative + k - 1] : pair->positive;
}

/* The loss's pairs, in the order in which they are fed: a part of them, of a chunk or of a process, is a stretch of rows. */
static int begin_loss(void *self, const uint32_t *items, size_t count) {
  embedder *t = self;
  size_t n = 0;
  t->generation++;
  t->pairs = items;
  t->num_pairs = count;
  for (size_t i = 0; i < count; i++) {
    const item *pair = &t->items[items[i]];
    t->first_candidate[i] = n;
    t->rows[i] = (int32_t)(i + n);
    for (uint32_t k = 0; k <= pair->num_negatives; k++) {
      const uint32_t text = candidate_text(t, pair, k);
      if (t->seen[text] == t->generation) continue;
      t->seen[text] = t->generation;
      t->place[text] = (int32_t)n;
      t->rows[count + n] = (int32_t)(i + 1 + n);
      t->candidates[n++] = text;
    }
    t->positive[i] = t->place[pair->positive];
  }
  t->first_candidate[count] = n;
  return t->group ? sw_pair_vectors_clear(t->stream, t->vectors) : 0;
}

static void pack_text(embedder *t, uint32_t text, sw_batch *b) {
  const int32_t length = sw_sequence_length(&t->texts, text);
  memcpy(t->ids + b->tokens, sw_sequence_ids(&t->texts, text), (size_t)length * sizeof *t->ids);
  b->tokens += length;
  if (length > b->max_seqlen) b->max_seqlen = length;
  t->cu_seqlens[++b->batch] = (int32_t)b->tokens;
}

/* Query and candidates of pair i of the loss. */
static void pack_pair(embedder *t, size_t i, sw_batch *b) {
  pack_text(t, t->items[t->pairs[i]].query, b);
  for (size_t k = t->first_candidate[i]; k < t->first_candidate[i + 1]; k++) pack_text(t, t->candidates[k], b);
}

static int64_t first_row(const embedder *t, const uint32_t *items) { return t->rows[items - t->pairs]; }

/* The dropout's place; backward asks for it again. */
static void set_place(const embedder *t, sw_run *run, const uint32_t *items) {
  const size_t first = (size_t)(items - t->pairs), chunk = first - first % (size_t)t->options->chunk_size;
  int64_t before = 0; /* tokens of the chunk: other processes' */
  for (size_t i = chunk; i < first; i++) {
    before += sw_sequence_length(&t->texts, t->items[t->pairs[i]].query);
    for (size_t k = t->first_candidate[i]; k < t->first_candidate[i + 1]; k++) before += sw_sequence_length(&t->texts, t->candidates[k]);
  }
  sw_run_set_place(run, before, t->rows[first] - t->rows[chunk]);
}

static int forward_part(embedder *t, sw_run *run, const uint32_t *items, size_t count) {
  sw_batch b = {.ids = t->ids, .cu_seqlens = t->cu_seqlens};
  for (size_t i = 0; i < count; i++) pack_pair(t, (size_t)(items - t->pairs) + i, &b);
  return sw_run_forward(run, &b, NULL);
}

static int loss(embedder *t, sw_run *run) {
  return sw_run_contrastive_loss(run, t->vectors, (int64_t)t->num_pairs, (int64_t)t->first_candidate[t->num_pairs], t->rows, t->positive,
                                 (float)t->options->scale, t->scale);
}

static int preview(void *self, sw_run *run, const uint32_t *items, size_t count) {
  embedder *t = self;
  set_place(t, run, items);
  return forward_part(t, run, items, count) || sw_run_pool_pairs(run, t->vectors, first_row(t, items)) ? -1 : 0;
}

/* Every process has the vectors of all, and the loss of all. */
static int end_preview(void *self, sw_run *run) {
  embedder *t = self;
  const int64_t rows = (int64_t)(t->num_pairs + t->first_candidate[t->num_pairs]);
  if (t->group && (sw_pair_vectors_read(t->stream, t->vectors, rows, t->shared) ||
                   sw_group_start_sum(t->group, t->shared, (size_t)rows * t->hidden) || sw_group_wait(t->group) ||
                   sw_pair_vectors_write(t->stream, t->vectors, rows, t->shared)))
    return -1;
  return loss(t, run);
}

static int in_parts(const embedder *t) { return t->options->chunk_size < t->options->batch_size; }

static int begin_step(void *self, const uint32_t *items, size_t count) {
  ((embedder *)self)->scale = (float)(1 / (double)count);
  return 0;
}

static int batch(void *self, sw_run *run, const uint32_t *items, size_t count, sw_gradients *gradients, int *used) {
  embedder *t = self;
  *used = 1;
  set_place(t, run, items);
  if (in_parts(t) ? forward_part(t, run, items, count) : !t->ahead && (preview(t, run, items, count) || loss(t, run))) return -1;
  return sw_run_unpool_pairs(run, t->vectors, first_row(t, items)) || sw_run_backward(run, gradients) ? -1 : 0;
}

/* There are no heads, and every process has the whole loss. */
static double step_loss(void *self, const double *sums) {
  const embedder *t = self;
  return sums[0] / sw_group_size(t->group) * (double)t->scale;
}

static void item_ids(void *self, uint32_t number, const int32_t **ids, int32_t *count) {
  embedder *t = self;
  const item *pair = &t->items[number];
  *ids = t->item_ids;
  *count = 0;
  for (uint32_t k = 0; k <= pair->num_negatives + 1; k++) {
    const uint32_t text = k ? candidate_text(t, pair, k - 1) : pair->query;
    const int32_t length = sw_sequence_length(&t->texts, text);
    memcpy(t->item_ids + *count, sw_sequence_ids(&t->texts, text), (size_t)length * sizeof **ids);
    *count += length;
  }
}

static int evaluate(void *self, sw_run *run, double *score, json_t **metrics, char *line) {
  embedder *t = self;
  sw_ranking found;
  const int last = SW_RETRIEVAL_CUTS - 1;
  sw_run_set_dropout(run, 0, 0, 0);
  if (sw_retrieval_run(&t->dev, run, &found)) return -1;
  if (!(*metrics = sw_retrieval_json(&found))) return sw_fail("out of memory");
  *score = sw_ranking_mean(&found, SW_NDCG_AT, last);
  snprintf(line, 200, "dev NDCG@10 %.4f  MRR@10 %.4f  accuracy@1 %.4f  accuracy@10 %.4f", *score, sw_ranking_mean(&found, SW_MRR_AT, last),
           sw_ranking_mean(&found, SW_ACCURACY_AT, 0), sw_ranking_mean(&found, SW_ACCURACY_AT, last));
  return 0;
}

/* --- the run --- */

static int64_t eval_tokens(const sw_model *model) {
  return model->config.max_positions > EVAL_TOKENS ? model->config.max_positions : EVAL_TOKENS;
}

static int open_task(embedder *t, sw_setup *setup) {
  const embed_options *o = t->options;
  const size_t batch_size = (size_t)o->batch_size < t->num_items ? (size_t)o->batch_size : t->num_items, texts = t->texts.count,
               each = 2 + (size_t)t->most_negatives, candidates = batch_size * (each - 1);
  int64_t total = 0, longest = 0;
  t->stream = &setup->stream;
  t->hidden = (size_t)setup->model->config.hidden_size;
  t->group = t->dev.group = setup->group;
  t->ahead = in_parts(t) || t->group;
  int same = !t->num_negatives;
  if (!(t->lengths = sw_alloc_array(t->num_items, sizeof *t->lengths))) return -1;
  for (size_t i = 0; i < t->num_items; i++) {
    const item *pair = &t->items[i];
    int64_t length = sw_sequence_length(&t->texts, pair->query);
    for (uint32_t k = 0; k <= pair->num_negatives; k++) length += sw_sequence_length(&t->texts, candidate_text(t, pair, k));
    t->lengths[i] = (int32_t)length;
    total += length;
    if (length > longest) longest = length;
    same &= pair->positive == t->items[0].positive;
  }
  if (same) return sw_fail("all pairs have the same positive: there is nothing to tell it from");
  if (longest * o->chunk_size < total) total = longest * o->chunk_size;
  t->candidates = sw_alloc_array(candidates, sizeof *t->candidates);
  t->first_candidate = sw_alloc_array(batch_size + 1, sizeof *t->first_candidate);
  t->rows = sw_alloc_array(batch_size + candidates, sizeof *t->rows);
  t->positive = sw_alloc_array(batch_size, sizeof *t->positive);
  t->seen = sw_alloc_array(texts, sizeof *t->seen);
  t->place = sw_alloc_array(texts, sizeof *t->place);
  t->ids = sw_alloc_array((size_t)total, sizeof *t->ids);
  t->cu_seqlens = sw_alloc_array(batch_size * each + 1, sizeof *t->cu_seqlens);
  t->item_ids = sw_alloc_array((size_t)longest, sizeof *t->item_ids);
  if (t->group && !(t->shared = sw_alloc_array(batch_size + candidates, t->hidden * sizeof *t->shared))) return -1;
  if (!t->candidates || !t->first_candidate || !t->rows || !t->positive || !t->seen || !t->place || !t->ids || !t->cu_seqlens || !t->item_ids) return -1;
  if (o->dev.count && sw_retrieval_open(&setup->stream, setup->model, eval_tokens(setup->model), EVAL_BATCH, &t->dev)) return -1;
  return sw_pair_vectors_open(&setup->stream, setup->model, (int64_t)batch_size, (int64_t)candidates, &t->vectors);
}

static void close_task(embedder *t) {
  sw_encoder_close(&t->encode);
  sw_sequences_close(&t->texts);
  free(t->items);
  free(t->negatives);
  free(t->lengths);
  sw_retrieval_close(&t->dev);
  sw_pair_vectors_close(t->vectors);
  free(t->candidates);
  free(t->first_candidate);
  free(t->rows);
  free(t->shared);
  free(t->positive);
  free(t->seen);
  free(t->place);
  free(t->ids);
  free(t->cu_seqlens);
  free(t->item_ids);
}

static void print_start(const sw_setup *setup, const embedder *t, uint64_t rejected) {
  sw_setup_print_device(setup);
  fprintf(stderr, "; %zu pair%s of %u texts", t->num_items, SW_S(t->num_items), t->texts.count);
  if (t->options->dev.count) fprintf(stderr, "; dev: %u quer%s, %u documents", t->dev.queries.count, t->dev.queries.count == 1 ? "y" : "ies", t->dev.corpus.count);
  fputc('\n', stderr);
  if (rejected)
    fprintf(stderr, "%llu row%s could not be used: see the .rejected.jsonl file beside the output\n", (unsigned long long)rejected, SW_S(rejected));
  sw_encoder_report(&t->encode);
}

static json_t *names_json(const sw_list *names) {
  json_t *list = json_array();
  for (int i = 0; i < names->count; i++) json_array_append_new(list, json_string(names->items[i]));
  return list;
}

static int train_embed(embed_options *o) {
  const int wanted_length = o->setup.max_length, accumulate = o->setup.loop.accumulate;
  sw_setup setup = {0};
  embedder t = {.options = o};
  json_t *data = json_array(), *dev = json_array();
  uint64_t rejected = 0;
  int status = sw_setup_open(&o->setup, &setup);
  if (status) goto done;
  status = SW_EXIT_FAILED;
  if (!data || !dev) {
    sw_fail("out of memory");
    goto done;
  }
  /* texts are cut where `infer embed` cuts them, unless earlier was asked for */
  if (sw_encoder_length(&setup.config, o->setup.base, wanted_length, setup.config.max_seq_length, &o->setup.max_length)) {
    status = SW_EXIT_USAGE;
    goto done;
  }
  if (sw_encoder_open(&t.encode, setup.tokenizer, o->setup.max_length, "") || read_data(&t, &setup, data, dev, &rejected)) goto done;
  sw_setup_drop_heads(&setup, NULL, NULL);
  if (sw_setup_model(&setup, "embed") || open_task(&t, &setup)) goto done;
  if (!o->setup.loop.quiet) print_start(&setup, &t, rejected);
  o->setup.loop.batch_size = o->chunk_size;
  const int together = o->batch_size / o->chunk_size;
  if (in_parts(&t)) o->setup.loop.accumulate = together;
  sw_task task = {.name = "embed", .self = &t, .num_items = t.num_items, .lengths = t.lengths, .sequences = 2 + (int)t.most_negatives,
                  .begin_step = begin_step, .begin_loss = begin_loss, .together = together, .preview = t.ahead ? preview : NULL,
                  .end_preview = end_preview, .batch = batch, .ids = item_ids, .loss = step_loss,
                  .evaluate = o->dev.count ? evaluate : NULL, .eval_tokens = o->dev.count ? eval_tokens(setup.model) : 0,
                  .eval_batch = o->dev.count ? EVAL_BATCH : 0};
  json_t *hyper = json_pack("{s:f, s:i, s:i, s:i, s:s?, s:s?, s:s?, s:o}", "scale", o->scale, "batch_size", o->batch_size, "chunk_size", o->chunk_size,
                            "accumulate", accumulate, "query", o->query, "positive", o->positive, "corpus_column", o->corpus_column, "negatives",
                            names_json(&o->negatives));
  if (!hyper) {
    sw_fail("the options are not valid UTF-8, or out of memory");
    goto done;
  }
  status = sw_setup_train(&setup, &task, data, dev, hyper);
  data = dev = NULL;
  if (status == SW_EXIT_FAILED && sw_error_is_memory()) sw_fail("%s; a smaller --chunk-size needs less for the same batch", sw_error());
done:
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_setup_tell(&setup, status);
  json_decref(data);
  json_decref(dev);
  close_task(&t);
  sw_setup_close(&setup);
  return status;
}

/* --- the command line --- */

static int check_output(const void *self, const char *output) {
  const embed_options *o = self;
  return sw_check_output(output, o->data.items, o->data.count) || sw_check_output(output, o->dev.items, o->dev.count) ||
                 sw_check_output(output, o->corpus.items, o->corpus.count)
             ? -1
             : 0;
}

static int check(embed_options *o) {
  if (!o->data.count) return sw_fail("--data is missing: pairs to train on");
  if (o->corpus.count && !o->dev.count) return sw_fail("--corpus adds documents to those of --dev, which is missing");
  if (o->batch_size < 2 || o->batch_size > 1 << 16) return sw_fail("--batch-size must be from 2 to 65536: a pair's negatives are the other pairs'");
  if (!(o->scale > 0 && o->scale <= 1000)) return sw_fail("--scale must lie above 0, and not above 1000");
  if (!o->chunk_size) o->chunk_size = o->batch_size;
  if (o->chunk_size < 1 || o->batch_size % o->chunk_size)
    return sw_fail("--chunk-size %d must divide --batch-size %d", o->chunk_size, o->batch_size);
  if (o->chunk_size % sw_launched()->size && o->batch_size % sw_launched()->size == 0)
    return sw_fail("--chunk-size %d cannot be dealt out to %d processes: give a multiple of %d", o->chunk_size, sw_launched()->size, sw_launched()->size);
  if (o->chunk_size < o->batch_size && o->setup.loop.accumulate > 1)
    return sw_fail("--accumulate with --chunk-size: give a larger --batch-size, which has more negatives, too");
  o->setup.loop.batch_size = o->batch_size;
  if (sw_setup_check(&o->setup, check_output, o)) return -1;
  int status = 0;
  for (int i = 0; i < o->corpus.count && !status; i++) {
    char *path = corpus_rejected_path(o, i);
    status = path && !check_output(o, path) ? 0 : -1;
    free(path);
  }
  return status;
}

int sw_train_embed(int argc, char **argv) {
  embed_options o = {.setup = SW_SETUP_DEFAULTS, .scale = 20, .batch_size = 64};
  o.setup.loop.batch_tokens = 0;
  o.setup.loop.learning_rate = 5e-5;
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o.data, "FILE", "pairs: .jsonl, .csv or .tsv; may be repeated"},
      {"dev", 0, SW_OPTION_LIST, &o.dev, "FILE", "pairs to choose the best checkpoint by (NDCG@10); may be repeated"},
      {"corpus", 0, SW_OPTION_LIST, &o.corpus, "FILE", "more texts to search for the dev queries' positives; may be repeated"},
      {"corpus-column", 0, SW_OPTION_TEXT, &o.corpus_column, "NAME", "their column or key (else: description, text, the only one)"},
      {"query", 0, SW_OPTION_TEXT, &o.query, "NAME", "column or key of the query (else: query)"},
      {"positive", 0, SW_OPTION_TEXT, &o.positive, "NAME", "of the text that belongs to it (else: positive)"},
      {"negatives", 0, SW_OPTION_LIST, &o.negatives, "NAME", "of texts that do not (else: negatives, where it is there); may be repeated"},
      {"scale", 0, SW_OPTION_DOUBLE, &o.scale, "X", "factor of the cosines in the loss, the inverse of a temperature"},
      {"batch-size", 0, SW_OPTION_INT, &o.batch_size, "N", "pairs of a batch, which are each other's negatives"},
      {"chunk-size", 0, SW_OPTION_INT, &o.chunk_size, "N", "pairs in the encoder at once, for batches that do not fit into memory; 0 = all"},
      {"max-length", 0, SW_OPTION_INT, &o.setup.max_length, "N", "tokens of a text, longer ones are cut; 0 = the model's max_seq_length"},
      {0}};
  const sw_command command = {
      "skillwatch train embed --base CKPT --data FILE [--data FILE ...] --dev FILE -o CKPT [options]",
      "Trains an encoder so that a query's vector is near that of its positive and far from all others' of the batch: pairs\n"
      "{\"query\", \"positive\", \"negatives\": [...]} as JSON lines, or columns of a CSV or TSV. Texts that come several times in a\n"
      "batch are one candidate, so that nobody's positive is taken for a negative of its own pair. With --chunk-size the batch goes\n"
      "through the encoder in parts, twice (gradient caching). Dev: every query against all positives and negatives of the dev pairs.",
      "skillwatch train embed --base minilm.h5 --data pairs.csv --query sentence --positive title --dev dev.csv -o occupations.h5", options};
  int status = sw_setup_parse(&command, &o.setup, argc, argv);
  if (!status) status = check(&o);
  int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_embed(&o);
  sw_list_close(&o.data);
  sw_list_close(&o.dev);
  sw_list_close(&o.corpus);
  sw_list_close(&o.negatives);
  return code;
}
