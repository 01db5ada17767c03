/* skillwatch train classify: one label a text, by multinomial logistic regression on the frozen encoder's vectors. */
#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "engine/data/embed.h"
#include "engine/learn/ranking.h"
#include "engine/model/logistic.h"
#include "engine/store/config_file.h"
#include "engine/store/vectors.h"
#include "train/setup.h"
#include "train/tasks.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_HOLDOUT = 3, EMBED_TOKENS = 4096, LOGIT_ROWS = 2048 };
#define HEAD "label"

typedef struct {
  sw_setup_options setup;
  const char *column, *label, *prefix, *method, *vectors, *dev_vectors;
  sw_list data, dev;
  double holdout, c, tolerance;
  int max_iterations, k, json;
} classify_options;

/* --- rows --- */

/* Labelled vectors. `names` are the distinct labels in the order they came; labels [rows] count in it. */
typedef struct {
  size_t rows, capacity, num_names, names_capacity, num_slots;
  int hidden;
  float *vectors;
  int32_t *labels;
  char **names;
  int32_t *slots; /* a hash table of names: index + 1, or 0 */
  json_t *files;  /* the manifest */
  uint64_t rejected, truncated;
} row_set;

static void close_rows(row_set *s) {
  for (size_t i = 0; i < s->num_names; i++) free(s->names[i]);
  free(s->names);
  free(s->slots);
  free(s->vectors);
  free(s->labels);
  json_decref(s->files);
}

static size_t slot_of(const row_set *s, const char *name) {
  uint64_t hash = 14695981039346656037u; /* FNV-1a */
  for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
  size_t i = (size_t)(hash ^ hash >> 32) & (s->num_slots - 1);
  while (s->slots[i] && strcmp(s->names[s->slots[i] - 1], name)) i = (i + 1) & (s->num_slots - 1);
  return i;
}

static int grow_names(row_set *s) {
  const size_t larger = s->names_capacity ? 2 * s->names_capacity : 256;
  char **names = sw_realloc_array(s->names, larger, sizeof *names);
  if (!names) return -1;
  s->names = names;
  s->names_capacity = larger;
  free(s->slots);
  s->num_slots = 4 * larger;
  if (!(s->slots = sw_alloc_array(s->num_slots, sizeof *s->slots))) return -1;
  for (size_t i = 0; i < s->num_names; i++) s->slots[slot_of(s, s->names[i])] = (int32_t)i + 1;
  return 0;
}

static int add_row(row_set *s, const char *label, const float *vector) {
  if (s->num_names == s->names_capacity && grow_names(s)) return -1;
  if (s->rows == s->capacity) {
    const size_t larger = s->capacity ? 2 * s->capacity : 1024;
    float *vectors = sw_realloc_array(s->vectors, larger, (size_t)s->hidden * sizeof *vectors);
    if (!vectors) return -1;
    s->vectors = vectors;
    int32_t *labels = sw_realloc_array(s->labels, larger, sizeof *labels);
    if (!labels) return -1;
    s->labels = labels;
    s->capacity = larger;
  }
  const size_t slot = slot_of(s, label);
  if (!s->slots[slot]) {
    if (!(s->names[s->num_names] = sw_strdup(label))) return -1;
    s->slots[slot] = (int32_t)++s->num_names;
  }
  memcpy(s->vectors + s->rows * (size_t)s->hidden, vector, (size_t)s->hidden * sizeof *vector);
  s->labels[s->rows++] = s->slots[slot] - 1;
  return 0;
}

/* --- vectors by the encoder --- */

typedef struct {
  sw_embedder embedder;
  row_set *rows;
} embedding;

static int open_worker(void *context, void **worker) {
  embedding *e = context;
  *worker = sw_alloc(sizeof(sw_embed_worker)); /* closed by the pipeline, also when what follows fails */
  return *worker ? sw_embed_worker_open(&e->embedder, *worker) : -1;
}

static void close_worker(void *context, void *worker) {
  sw_embed_worker_close(worker);
  free(worker);
}

static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  embedding *e = context;
  return sw_embed_encode(&e->embedder, worker, item, pieces, (uint32_t)e->embedder.hidden);
}

static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  embedding *e = context;
  sw_embed_worker *w = worker;
  const size_t hidden = (size_t)e->embedder.hidden;
  if (sw_embed_run(&e->embedder, w, batch, pieces, items)) return -1;
  for (int i = 0; i < batch->batch; i++) memcpy(pieces[i]->result, w->vectors + (size_t)i * hidden, hidden * sizeof(float));
  return 0;
}

static int keep(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  const embedding *e = context;
  for (size_t i = 0; i < count; i++)
    if (add_row(e->rows, items[i].posting.label, items[i].pieces[0].result)) return -1;
  return 0;
}

static int embed(sw_setup *setup, const classify_options *o, sw_postings *postings, row_set *rows) {
  sw_runs runs = {0};
  embedding e = {.rows = rows};
  sw_pipeline_counts counts = {0};
  int status = sw_runs_open(&runs, &setup->stream, setup->model, EMBED_TOKENS) || sw_embedder_open(&e.embedder, &runs, setup->tokenizer, o->prefix, -1)
                   ? -1
                   : 0;
  const sw_pipeline_job job = {.context = &e, .open_worker = open_worker, .close_worker = close_worker, .encode = encode, .run = run, .write = keep};
  const sw_pipeline_options options = {.threads = setup->stream.threads, .batch_tokens = runs.batch_tokens, .max_batch = runs.max_batch, .dedup = 1,
                                       .progress = o->setup.loop.quiet ? NULL : "embed"};
  if (!status) status = sw_pipeline_run(postings, &job, &options, &counts);
  rows->truncated += counts.truncated;
  sw_runs_close(&runs);
  return status;
}

/* --- vectors from a file --- */

static int check_vectors(const sw_setup *setup, const classify_options *o, const char *path, const sw_vectors *v) {
  if (v->hidden != setup->config.hidden_size)
    return sw_fail("%s holds vectors of %d numbers, those of %s have %d", path, v->hidden, o->setup.base, setup->config.hidden_size);
  if (*v->model_sha256 && strcmp(v->model_sha256, setup->checkpoint.parent_sha256))
    return sw_fail("%s was made with another model than %s: make it with skillwatch infer embed -m %s", path, o->setup.base, o->setup.base);
  if (*v->model_sha256 && strcmp(v->prefix, o->prefix))
    return sw_fail("%s was made with --prefix '%s', not '%s'", path, v->prefix, o->prefix);
  return 0;
}

/* The postings' vectors are those with their ids, in the same order; there may be others between them. */
static int match(sw_vectors *v, const char *path, sw_postings *postings, row_set *rows) {
  sw_posting posting;
  char *id = NULL;
  float *vector = sw_alloc_array((size_t)v->hidden, sizeof *vector);
  uint64_t next = 0;
  int status = vector ? 1 : -1;
  while (status == 1 && (status = sw_postings_next(postings, &posting)) == 1) {
    for (int found = 0; !found && status == 1; next++) {
      if (next == v->rows)
        status = sw_fail("row %llu (id %s) has no vector in %s, or not in the same order", (unsigned long long)posting.index + 1, posting.id, path);
      else if (sw_vectors_read_ids(v, next, 1, &id))
        status = -1;
      else
        found = !strcmp(id, posting.id);
      free(id);
      id = NULL;
    }
    if (status == 1 && (sw_vectors_read(v, next - 1, 1, vector) || add_row(rows, posting.label, vector))) status = -1;
    sw_posting_close(&posting);
  }
  free(vector);
  return status;
}

static int match_file(const sw_setup *setup, const classify_options *o, const char *path, sw_postings *postings, row_set *rows) {
  sw_vectors v;
  if (sw_vectors_open(path, &v)) return -1;
  int status = check_vectors(setup, o, path, &v) ? -1 : match(&v, path, postings, rows);
  sw_vectors_close(&v);
  return status;
}

/* --- reading --- */

static int read_file(sw_setup *setup, const classify_options *o, const char *path, const char *vectors, const char *rejected, row_set *rows) {
  const sw_postings_options reading = {.column = o->column, .label_column = o->label, .rejected_path = rejected};
  char sha256[65];
  sw_postings *postings;
  const size_t before = rows->rows;
  if (sw_is_folder(path)) return sw_fail("--data %s is a folder, a file was expected", path);
  if (sw_sha256_file(path, sha256) || sw_postings_open(&path, 1, &reading, &postings)) return -1;
  int status = vectors ? match_file(setup, o, vectors, postings, rows) : embed(setup, o, postings, rows);
  const uint64_t set_aside = sw_postings_rejected(postings);
  const char *reason = sw_postings_reason(postings, 0);
  if (!status && rows->rows == before) status = sw_fail("%s: no row can be used%s%s", path, reason ? ": " : "", reason ? reason : "");
  if (!status && set_aside && !o->setup.loop.quiet)
    fprintf(stderr, "%s: %llu unusable row%s set aside in %s (%s)\n", path, (unsigned long long)set_aside, SW_S(set_aside), rejected, reason);
  rows->rejected += set_aside;
  json_t *entry = json_pack("{s:s, s:s, s:I, s:I}", "file", path, "sha256", sha256, "rows", (json_int_t)(rows->rows - before + set_aside), "rejected",
                            (json_int_t)set_aside);
  if (!status && vectors && (sw_sha256_file(vectors, sha256) || json_object_set_new(entry, "vectors_sha256", json_string(sha256)))) status = -1;
  if (json_array_append_new(rows->files, entry) && !status) status = sw_fail("%s: the name is not valid UTF-8", path);
  if (!status) return sw_postings_close(postings);
  char *message = sw_strdup(sw_error()); /* closing may fail too, which matters less */
  sw_postings_close(postings);
  if (message) sw_fail("%s", message);
  free(message);
  return -1;
}

/* "<stem>.rejected.jsonl", and for further files "<stem>.2.rejected.jsonl"... */
static char *rejected_path(const classify_options *o, const char *which, int number) {
  char ending[64];
  if (number) snprintf(ending, sizeof ending, "%s.%d.rejected.jsonl", which, number + 1);
  else snprintf(ending, sizeof ending, "%s.rejected.jsonl", which);
  return sw_loop_path(o->setup.loop.output, ending);
}

static int read_list(sw_setup *setup, const classify_options *o, const sw_list *list, const char *vectors, const char *which, row_set *rows) {
  rows->hidden = setup->config.hidden_size;
  if (!(rows->files = json_array())) return sw_fail("out of memory");
  for (int i = 0; i < list->count; i++) {
    char *rejected = rejected_path(o, which, i);
    const int failed = !rejected || read_file(setup, o, list->items[i], vectors, rejected, rows);
    free(rejected);
    if (failed) return -1;
  }
  return 0;
}

/* --- classes --- */

static int by_name(const void *a, const void *b) { return strcmp(**(char *const *const *)a, **(char *const *const *)b); }

/* Classes are numbered by name, whatever the order of the rows. */
static int sort_classes(row_set *s) {
  char ***order = sw_alloc_array(s->num_names, sizeof *order), **names = sw_alloc_array(s->names_capacity, sizeof *names);
  int32_t *number = sw_alloc_array(s->num_names, sizeof *number);
  const int status = order && names && number ? 0 : -1;
  if (!status) {
    for (size_t i = 0; i < s->num_names; i++) order[i] = &s->names[i];
    qsort(order, s->num_names, sizeof *order, by_name);
    for (size_t i = 0; i < s->num_names; i++) {
      names[i] = *order[i];
      number[order[i] - s->names] = (int32_t)i;
    }
    for (size_t i = 0; i < s->rows; i++) s->labels[i] = number[s->labels[i]];
    memset(s->slots, 0, s->num_slots * sizeof *s->slots);
    memcpy(s->names, names, s->num_names * sizeof *names);
    for (size_t i = 0; i < s->num_names; i++) s->slots[slot_of(s, s->names[i])] = (int32_t)i + 1;
  }
  free(order);
  free(names);
  free(number);
  return status;
}

/* Rows of dev whose class training has, numbered as there; *unseen: how many were dropped. */
static void adopt_classes(const row_set *train, row_set *dev, uint64_t *unseen) {
  size_t kept = 0;
  const size_t hidden = (size_t)dev->hidden;
  for (size_t i = 0; i < dev->rows; i++) {
    const int32_t found = train->slots[slot_of(train, dev->names[dev->labels[i]])];
    if (!found) continue;
    memmove(dev->vectors + kept * hidden, dev->vectors + i * hidden, hidden * sizeof *dev->vectors);
    dev->labels[kept++] = found - 1;
  }
  *unseen = dev->rows - kept;
  dev->rows = kept;
}

/* Moves a random part of the rows from train to dev; every class keeps one. */
static int hold_out(row_set *train, row_set *dev, double part, int seed) {
  const size_t rows = train->rows, hidden = (size_t)train->hidden, wanted = (size_t)llround(part * (double)rows);
  sw_random random = {.seed = (uint64_t)seed, .stream = (uint64_t)STREAM_HOLDOUT << 32};
  size_t *order = sw_alloc_array(rows, sizeof *order), *left = sw_alloc_array(train->num_names, sizeof *left), kept = 0;
  char *held = sw_alloc(rows);
  int status = order && left && held ? 0 : -1;
  for (size_t i = 0; i < rows && !status; i++) {
    order[i] = i;
    left[train->labels[i]]++;
  }
  for (size_t i = rows; i > 1 && !status; i--) { /* Fisher, Yates */
    const size_t other = sw_random_below(&random, (uint32_t)i), moved = order[i - 1];
    order[i - 1] = order[other];
    order[other] = moved;
  }
  for (size_t i = 0, taken = 0; i < rows && taken < wanted && !status; i++)
    if (left[train->labels[order[i]]] > 1) {
      left[train->labels[order[i]]]--;
      held[order[i]] = 1;
      taken++;
    }
  for (size_t i = 0; i < rows && !status; i++) {
    const float *vector = train->vectors + i * hidden;
    if (held[i]) {
      status = add_row(dev, train->names[train->labels[i]], vector);
    } else {
      memmove(train->vectors + kept * hidden, vector, hidden * sizeof *vector);
      train->labels[kept++] = train->labels[i];
    }
  }
  if (!status) train->rows = kept;
  free(order);
  free(left);
  free(held);
  return status;
}

/* --- fit and scores --- */

static void report(void *context, int iteration, double objective, double gradient) {
  char details[96];
  snprintf(details, sizeof details, "objective %.6g  gradient %.2g", objective, gradient);
  sw_progress_show(context, iteration, details);
}

static int fit(sw_setup *setup, const classify_options *o, const row_set *train, float *weight, float *bias, sw_logistic_result *result) {
  const sw_logistic_problem problem = {.rows = (int64_t)train->rows, .dim = train->hidden, .classes = (int)train->num_names, .features = train->vectors,
                                       .labels = train->labels};
  sw_progress progress;
  const sw_logistic_options options = {.c = o->c, .tolerance = o->tolerance, .max_iterations = o->max_iterations, .report = report, .context = &progress};
  const double start = sw_clock();
  sw_progress_open(&progress, "fit", 0, o->setup.loop.quiet);
  const int status = sw_logistic_fit(&setup->stream, &problem, &options, weight, bias, result);
  sw_progress_close(&progress);
  if (!status && !o->setup.loop.quiet)
    fprintf(stderr, "fit: objective %.9g after %d iteration%s and %d evaluations in %.3f s (%s, gradient %.2g)\n", result->objective, result->iterations,
            SW_S(result->iterations), result->evaluations, sw_clock() - start, sw_logistic_end_name(result->end), result->gradient);
  return status;
}

static int score_rows(sw_setup *setup, const row_set *dev, size_t classes, const float *weight, const float *bias, sw_ranking *ranking,
                      int32_t *predicted) {
  float *logits = sw_alloc_array((dev->rows < LOGIT_ROWS ? dev->rows : LOGIT_ROWS) * classes, sizeof *logits);
  int status = logits ? 0 : -1;
  for (size_t from = 0; from < dev->rows && !status; from += LOGIT_ROWS) {
    const size_t rows = dev->rows - from < LOGIT_ROWS ? dev->rows - from : LOGIT_ROWS;
    status = sw_logistic_logits(&setup->stream, dev->hidden, (int)classes, weight, bias, dev->vectors + from * (size_t)dev->hidden, (int64_t)rows, logits);
    for (size_t i = 0; i < rows && !status; i++) {
      const float *row = logits + i * classes;
      const uint64_t rank = sw_rank_of(row, classes, (size_t)dev->labels[from + i]);
      uint32_t best;
      sw_ranking_add(ranking, &rank, 1, 1);
      sw_rank_best(row, classes, 1, &best);
      predicted[from + i] = (int32_t)best;
    }
  }
  free(logits);
  return status;
}

/* accuracy@1/3/5/10 (and @k), MRR and macro F1 on dev, as a JSON object; prints them. */
static int evaluate(sw_setup *setup, const classify_options *o, const row_set *dev, size_t classes, const float *weight, const float *bias, json_t *metrics) {
  uint32_t cuts[5] = {1, 3, 5, 10, (uint32_t)o->k};
  const int num_cuts = o->k == 1 || o->k == 3 || o->k == 5 || o->k == 10 ? 4 : 5;
  sw_ranking ranking;
  double f1 = 0;
  int32_t *predicted = sw_alloc_array(dev->rows, sizeof *predicted);
  sw_ranking_open(&ranking, cuts, num_cuts);
  int status = !predicted || score_rows(setup, dev, classes, weight, bias, &ranking, predicted) || sw_macro_f1(dev->labels, predicted, dev->rows, classes, &f1)
                   ? -1
                   : 0;
  free(predicted);
  if (status) return -1;
  const int quiet = o->setup.loop.quiet;
  if (!quiet) fprintf(stderr, "dev, %zu row%s: ", dev->rows, SW_S(dev->rows));
  for (int i = 0; i < num_cuts; i++) {
    char name[32];
    snprintf(name, sizeof name, "accuracy@%u", cuts[i]);
    const double value = sw_ranking_mean(&ranking, SW_ACCURACY_AT, i);
    if (json_object_set_new(metrics, name, json_real(value))) return sw_fail("out of memory");
    if (!quiet) fprintf(stderr, "%s %.4f  ", name, value);
  }
  if (!quiet) fprintf(stderr, "MRR %.4f  macro F1 %.4f\n", sw_ranking_mrr(&ranking), f1);
  return json_object_set_new(metrics, "mrr", json_real(sw_ranking_mrr(&ranking))) || json_object_set_new(metrics, "macro_f1", json_real(f1)) ||
                 json_object_set_new(metrics, "rows", json_integer((json_int_t)dev->rows))
             ? sw_fail("out of memory")
             : 0;
}

/* --- the checkpoint --- */

static int add_head(sw_setup *setup, const row_set *train, const float *weight, const float *bias) {
  sw_checkpoint *c = &setup->checkpoint;
  const int64_t shape[2] = {(int64_t)train->num_names, train->hidden};
  if (sw_checkpoint_add_head(c, HEAD, "sequence", (const char *const *)train->names, train->num_names)) return -1;
  sw_tensor *w = sw_tensors_add(&c->weights, "heads." HEAD ".weight", SW_F32, 2, shape);
  if (!w) return -1;
  memcpy(w->data, weight, (size_t)(shape[0] * shape[1]) * sizeof *weight);
  sw_tensor *b = sw_tensors_add(&c->weights, "heads." HEAD ".bias", SW_F32, 1, shape);
  if (!b) return -1;
  memcpy(b->data, bias, (size_t)shape[0] * sizeof *bias);
  free(c->kind);
  return (c->kind = sw_strdup("classify")) ? 0 : -1;
}

/* The prefix belongs to the model: inference puts it before every text, too. */
static int set_prefix(sw_checkpoint *c, const char *prefix) {
  json_t *own = json_object_get(c->config, "skillwatch");
  if (!own && (!(own = json_object()) || json_object_set_new(c->config, "skillwatch", own))) return sw_fail("out of memory");
  return json_object_set_new(own, "prefix", json_string(prefix)) ? sw_fail("--prefix is not valid UTF-8") : 0;
}

/* Takes metrics over. */
static int set_training(sw_setup *setup, const classify_options *o, const row_set *train, const row_set *dev, const sw_logistic_result *r, json_t *metrics) {
  json_t *hyper = json_pack("{s:s, s:f, s:f, s:i, s:s?, s:s, s:s, s:s, s:f, s:i}", "method", o->method, "C", o->c, "tolerance", o->tolerance,
                            "max_iterations", o->max_iterations, "column", o->column, "label", o->label, "prefix", o->prefix, "dtype",
                            o->setup.dtype, "holdout", o->holdout, "seed", o->setup.loop.seed);
  json_t *fitted = json_pack("{s:I, s:f, s:f, s:i, s:i, s:s}", "rows", (json_int_t)train->rows, "objective", r->objective, "gradient", r->gradient,
                             "iterations", r->iterations, "evaluations", r->evaluations, "end", sw_logistic_end_name(r->end));
  json_t *facts = json_pack("{s:o, s:O, s:o, s:s, s:s}", "hyper_parameters", hyper, "data", train->files, "dev",
                            dev->files ? json_incref(dev->files) : json_array(), "base_sha256", setup->checkpoint.parent_sha256, "device",
                            setup->device->name);
  json_decref(setup->checkpoint.training);
  setup->checkpoint.training = json_pack("{s:s, s:o, s:o, s:o}", "task", "classify", "metrics", metrics, "fit", fitted, "run", facts);
  return setup->checkpoint.training ? 0 : sw_fail("the settings cannot be kept: --column or --label is not valid UTF-8");
}

static void print_start(const sw_setup *setup, const classify_options *o, const row_set *train, const row_set *dev, uint64_t unseen) {
  if (o->setup.loop.quiet) return;
  sw_setup_print_device(setup);
  fprintf(stderr, ": %zu row%s in %zu classes, %zu row%s to score by\n", train->rows, SW_S(train->rows), train->num_names, dev->rows, SW_S(dev->rows));
  if (train->truncated + dev->truncated)
    fprintf(stderr, "%llu texts were longer than %d tokens and were truncated\n", (unsigned long long)(train->truncated + dev->truncated),
            setup->config.max_seq_length);
  if (unseen)
    fprintf(stderr, "%llu row%s of --dev %s left out: the training data has no such label\n", (unsigned long long)unseen, SW_S(unseen),
            unseen == 1 ? "is" : "are");
}

static int learn(sw_setup *setup, const classify_options *o, row_set *train, row_set *dev, uint64_t unseen) {
  const size_t classes = train->num_names;
  float *weight = sw_alloc_array(classes * (size_t)train->hidden, sizeof *weight), *bias = sw_alloc_array(classes, sizeof *bias);
  sw_logistic_result result;
  json_t *metrics = json_object();
  int status = weight && bias && metrics ? fit(setup, o, train, weight, bias, &result) : -1;
  if (!status && dev->rows) status = evaluate(setup, o, dev, classes, weight, bias, metrics);
  if (!status && unseen && json_object_set_new(metrics, "unseen_labels", json_integer((json_int_t)unseen))) status = sw_fail("out of memory");
  if (!status) status = add_head(setup, train, weight, bias);
  if (!status) status = set_prefix(&setup->checkpoint, o->prefix);
  if (!status) {
    status = set_training(setup, o, train, dev, &result, metrics);
    metrics = NULL;
  }
  if (!status) status = sw_checkpoint_write(o->setup.loop.output, &setup->checkpoint);
  if (!status && o->json) {
    char *text = json_dumps(json_object_get(setup->checkpoint.training, "metrics"), JSON_REAL_PRECISION(17));
    if (text) puts(text);
    free(text);
  }
  json_decref(metrics);
  free(weight);
  free(bias);
  return status;
}

static int train_classify(classify_options *o) {
  sw_setup setup = {0};
  row_set train = {0}, dev = {0};
  uint64_t unseen = 0;
  int status = sw_setup_open(&o->setup, &setup);
  const int signals[] = {SIGTERM, SIGINT, SIGUSR1}; /* there is nothing to resume: they just end the program */
  for (int i = 0; i < 3; i++) signal(signals[i], SIG_DFL);
  if (!status) {
    sw_setup_drop_heads(&setup, NULL, NULL);
    const sw_dtype dtype = !strcmp(o->setup.dtype, "bf16") ? SW_BF16 : SW_F32;
    int failed = (!o->vectors && sw_model_open(&setup.stream, &setup.checkpoint, dtype, SW_INFERENCE, &setup.model)) ||
                 read_list(&setup, o, &o->data, o->vectors, "", &train) || sort_classes(&train);
    if (!failed && o->dev.count) {
      failed = read_list(&setup, o, &o->dev, o->dev_vectors, ".dev", &dev);
      if (!failed) adopt_classes(&train, &dev, &unseen);
      if (!failed && !dev.rows) failed = sw_fail("no row of --dev has a label that the training data has");
    } else if (!failed && o->holdout > 0) {
      dev.hidden = train.hidden;
      failed = hold_out(&train, &dev, o->holdout, o->setup.loop.seed);
      if (!failed) adopt_classes(&train, &dev, &unseen);
    }
    if (!failed) print_start(&setup, o, &train, &dev, unseen);
    status = failed || learn(&setup, o, &train, &dev, unseen) ? SW_EXIT_FAILED : SW_EXIT_DONE;
  }
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_exit_message(status);
  if (!status && !o->setup.loop.quiet) fprintf(stderr, "%s: written\n", o->setup.loop.output);
  close_rows(&train);
  close_rows(&dev);
  sw_setup_close(&setup);
  return status;
}

/* --- the command line --- */

static int check_file(const classify_options *o, const char *path) {
  const char *const others[] = {o->vectors, o->dev_vectors};
  return sw_check_output(path, &o->setup.base, 1) || sw_check_output(path, o->data.items, o->data.count) ||
                 sw_check_output(path, o->dev.items, o->dev.count) || (o->vectors && sw_check_output(path, others, 1)) ||
                 (o->dev_vectors && sw_check_output(path, others + 1, 1))
             ? -1
             : 0;
}

static int check_outputs(const classify_options *o) {
  const char *output = o->setup.loop.output;
  int status = check_file(o, output);
  for (int dev = 0; dev < 2; dev++)
    for (int i = 0; i < (dev ? o->dev.count : o->data.count) && !status; i++) {
      char *path = rejected_path(o, dev ? ".dev" : "", i);
      status = path ? check_file(o, path) : -1;
      free(path);
    }
  if (!status && sw_exists(output) && !o->setup.loop.force) return sw_fail("%s exists already: --force replaces it, or give another -o", output);
  return status;
}

static int check(const classify_options *o) {
  const char *output = o->setup.loop.output;
  if (!o->setup.base) return sw_fail("--base is missing: the encoder, made by skillwatch pull");
  if (!o->data.count) return sw_fail("--data is missing: a CSV, TSV or JSON lines file of texts with labels");
  if (!o->label) return sw_fail("--label is missing: the column or key of the label");
  if (!output) return sw_fail("-o is missing: the checkpoint to write");
  if (!strcmp(output, "-")) return sw_fail("-o -: a checkpoint cannot be written to standard output");
  if (sw_is_folder(output)) return sw_fail("-o %s is a folder, a file name was expected", output);
  if (strcmp(o->method, "logistic")) return sw_fail("--method %s is not known: use logistic", o->method);
  if (o->dev.count && o->holdout > 0) return sw_fail("--dev and --holdout exclude each other");
  if (!(o->holdout >= 0 && o->holdout < 1)) return sw_fail("--holdout is a part of the rows: from 0 to below 1");
  if (!(o->c > 0) || !isfinite(o->c)) return sw_fail("-C must be a number above 0");
  if (!(o->tolerance >= 0)) return sw_fail("--tolerance cannot be negative");
  if (o->max_iterations < 1) return sw_fail("--max-iterations must be at least 1");
  if (o->k < 1) return sw_fail("-k must be at least 1");
  if (o->vectors && (o->data.count > 1 || (o->dev.count && !o->dev_vectors)))
    return sw_fail("--vectors goes with one --data, and with --dev-vectors where there is a --dev");
  if (o->dev_vectors && (o->dev.count != 1 || !o->vectors)) return sw_fail("--dev-vectors goes with one --dev and with --vectors");
  for (int i = 0; i < o->data.count + o->dev.count; i++)
    if (!strcmp(i < o->data.count ? o->data.items[i] : o->dev.items[i - o->data.count], "-"))
      return sw_fail("--data -: a file is wanted, whose hash is kept with the model");
  if (strcmp(o->setup.dtype, "fp32") && strcmp(o->setup.dtype, "bf16")) return sw_fail("--dtype %s: use fp32 or bf16", o->setup.dtype);
  return sw_device_check(o->setup.device, o->setup.threads) || check_outputs(o) ? -1 : 0;
}

int sw_train_classify(int argc, char **argv) {
  const sw_logistic_options fit = SW_LOGISTIC_DEFAULTS;
  classify_options o = {.setup = SW_SETUP_DEFAULTS, .prefix = "", .method = "logistic", .c = fit.c, .tolerance = fit.tolerance,
                        .max_iterations = fit.max_iterations, .k = 10};
  const sw_option options[] = {
      {"base", 'b', SW_OPTION_TEXT, &o.setup.base, "CKPT", "encoder (skillwatch pull makes one); it stays as it is"},
      {"data", 'd', SW_OPTION_LIST, &o.data, "FILE", "texts with labels: CSV, TSV or JSON lines, plain, .gz or .zst; may be repeated"},
      {"column", 0, SW_OPTION_TEXT, &o.column, "NAME[,NAME]", "columns or keys of the text (else: description, text, the only one)"},
      {"label", 'l', SW_OPTION_TEXT, &o.label, "NAME", "column or key of the label"},
      {"dev", 0, SW_OPTION_LIST, &o.dev, "FILE", "the same, to score by; may be repeated"},
      {"holdout", 0, SW_OPTION_DOUBLE, &o.holdout, "PART", "part of --data's rows to score by, instead of --dev; every class keeps a row"},
      {"output", 'o', SW_OPTION_TEXT, &o.setup.loop.output, "CKPT", "checkpoint: the encoder with a head of the labels"},
      {"prefix", 0, SW_OPTION_TEXT, &o.prefix, "TEXT", "put before every text, by inference too"},
      {"method", 0, SW_OPTION_TEXT, &o.method, "NAME", "logistic: multinomial logistic regression with L2 on the vectors"},
      {"inverse-l2", 'C', SW_OPTION_DOUBLE, &o.c, "X", "scikit-learn's C: the larger, the less weights are held back"},
      {"tolerance", 0, SW_OPTION_DOUBLE, &o.tolerance, "X", "largest part of the mean objective's gradient to stop at"},
      {"max-iterations", 0, SW_OPTION_INT, &o.max_iterations, "N", "steps of L-BFGS"},
      {"top", 'k', SW_OPTION_INT, &o.k, "N", "accuracy@N is told beside that at 1, 3, 5 and 10"},
      {"vectors", 0, SW_OPTION_TEXT, &o.vectors, "FILE", "vectors of --data's rows (.h5, .npy), made by infer embed: nothing is embedded"},
      {"dev-vectors", 0, SW_OPTION_TEXT, &o.dev_vectors, "FILE", "the same for --dev"},
      {"force", 0, SW_OPTION_FLAG, &o.setup.loop.force, NULL, "replace an existing output"},
      {"seed", 0, SW_OPTION_INT, &o.setup.loop.seed, "N", "of --holdout"},
      {"device", 0, SW_OPTION_TEXT, &o.setup.device, "NAME", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o.setup.dtype, "TYPE", "of the encoder: fp32 or bf16"},
      {"threads", 0, SW_OPTION_INT, &o.setup.threads, "N", "CPU threads; 0 = one a core. Changes no result"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "the metrics as JSON, to stdout"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.setup.loop.quiet, NULL, "print errors only"},
      {0}};
  const sw_command command = {
      "skillwatch train classify --base CKPT --data FILE --label NAME -o CKPT [options]",
      "Learns to give texts one of many labels, occupation codes say, from texts that have one: multinomial logistic\n"
      "regression on the encoder's vectors. Scores by accuracy@k, mean reciprocal rank (MRR) and macro F1.\n"
      "Rows without text or label are set aside in <output>.rejected.jsonl.",
      "skillwatch train classify --base minilm.h5 --data occupations.csv --column Title,Description --label Code --holdout 0.2 -o occupations.h5",
      options};
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' was not expected: give data with --data", operands.items[0]);
  if (!status) status = check(&o);
  const int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_classify(&o);
  sw_list_close(&operands);
  sw_list_close(&o.data);
  sw_list_close(&o.dev);
  return code;
}
