/* skillwatch train classify: one label a text, by multinomial logistic regression on the frozen encoder's vectors, or (classify_tune.c) by a head
 * that is trained together with its encoder. */
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "engine/data/embed.h"
#include "engine/model/logistic.h"
#include "engine/store/config_file.h"
#include "engine/store/vectors.h"
#include "train/classify.h"
#include "train/tasks.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EMBED_TOKENS = 4096, LOGIT_ROWS = 2048 };

/* --- vectors by the encoder --- */

typedef struct {
  sw_embedder embedder; /* first: the pipeline's */
  sw_labelled *rows;
} embedding;

static int keep(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  const embedding *e = context;
  for (size_t i = 0; i < count; i++)
    if (sw_labelled_add(e->rows, items[i].posting.label, items[i].pieces[0].result)) return -1;
  return 0;
}

static int embed(sw_setup *setup, const sw_classify_options *o, sw_postings *postings, sw_labelled *rows, uint64_t *truncated) {
  sw_runs runs = {0};
  embedding e = {.rows = rows};
  sw_pipeline_counts counts = {0};
  int status = sw_runs_open(&runs, &setup->stream, setup->model, EMBED_TOKENS) || sw_embedder_open(&e.embedder, &runs, setup->tokenizer, o->prefix, -1)
                   ? -1
                   : 0;
  const sw_pipeline_job job = {.context = &e, .open_worker = sw_embed_open_worker, .close_worker = sw_embed_close_worker,
                               .encode = sw_embed_encode_vector, .run = sw_embed_run_vectors, .write = keep};
  const sw_pipeline_options options = {.threads = setup->stream.threads, .batch_tokens = runs.batch_tokens, .max_batch = runs.max_batch, .dedup = 1,
                                       .progress = o->setup.loop.quiet ? NULL : "embed"};
  if (!status) status = sw_pipeline_run(postings, &job, &options, &counts);
  *truncated += counts.truncated;
  sw_runs_close(&runs);
  return status;
}

/* --- vectors from a file --- */

static int check_vectors(const sw_setup *setup, const sw_classify_options *o, const char *path, const sw_vectors *v) {
  if (v->hidden != setup->config.hidden_size)
    return sw_fail("%s holds vectors of %d numbers, those of %s have %d", path, v->hidden, o->setup.base, setup->config.hidden_size);
  if (*v->model_sha256 && strcmp(v->model_sha256, setup->checkpoint.parent_sha256))
    return sw_fail("%s was made with another model than %s: make it with skillwatch infer embed -m %s", path, o->setup.base, o->setup.base);
  if (*v->model_sha256 && strcmp(v->prefix, o->prefix))
    return sw_fail("%s was made with --prefix '%s', not '%s'", path, v->prefix, o->prefix);
  return 0;
}

/* The postings' vectors are those with their ids, in the same order; there may be others between them. */
static int match(sw_vectors *v, const char *path, sw_postings *postings, sw_labelled *rows) {
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
    if (status == 1 && (sw_vectors_read(v, next - 1, 1, vector) || sw_labelled_add(rows, posting.label, vector))) status = -1;
    sw_posting_close(&posting);
  }
  free(vector);
  return status;
}

static int match_file(const sw_setup *setup, const sw_classify_options *o, const char *path, sw_postings *postings, sw_labelled *rows) {
  sw_vectors v;
  if (sw_vectors_open(path, &v)) return -1;
  int status = check_vectors(setup, o, path, &v) ? -1 : match(&v, path, postings, rows);
  sw_vectors_close(&v);
  return status;
}

/* --- reading --- */

typedef struct {
  sw_setup *setup;
  const sw_classify_options *o;
  const char *vectors; /* of the file, or NULL */
  uint64_t *truncated;
} source;

static int take_rows(void *context, sw_postings *postings, sw_labelled *rows) {
  const source *from = context;
  return from->vectors ? match_file(from->setup, from->o, from->vectors, postings, rows) : embed(from->setup, from->o, postings, rows, from->truncated);
}

static int read_file(const source *from, const char *path, const char *rejected, sw_labelled *rows) {
  const sw_postings_options reading = {.column = from->o->column, .label_column = from->o->label};
  char sha256[65];
  json_t *entry;
  if (sw_labelled_read(rows, path, &reading, rejected, from->o->setup.loop.quiet, take_rows, (void *)from, &entry)) return -1;
  return from->vectors && (sw_sha256_file(from->vectors, sha256) || json_object_set_new(entry, "vectors_sha256", json_string(sha256))) ? -1 : 0;
}

static int read_list(const source *from, const sw_list *list, const char *which, sw_labelled *rows) {
  rows->row_bytes = (size_t)from->setup->config.hidden_size * sizeof(float);
  for (int i = 0; i < list->count; i++) {
    char *rejected = sw_setup_rejected_path(&from->o->setup, which, i);
    const int failed = !rejected || read_file(from, list->items[i], rejected, rows);
    free(rejected);
    if (failed) return -1;
  }
  return 0;
}

/* --- fit and scores --- */

static void report(void *context, int iteration, double objective, double gradient) {
  char details[96];
  snprintf(details, sizeof details, "objective %.6g  gradient %.2g", objective, gradient);
  sw_progress_show(context, iteration, details);
}

static int fit(sw_setup *setup, const sw_classify_options *o, const sw_labelled *train, float *weight, float *bias, sw_logistic_result *result) {
  const sw_logistic_problem problem = {.rows = (int64_t)train->rows, .dim = setup->config.hidden_size, .classes = (int)train->names.count, .features = (const float *)train->values,
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

/* The scores on dev, as a JSON object; prints them. */
static int evaluate(sw_setup *setup, const sw_classify_options *o, const sw_labelled *dev, size_t classes, const float *weight, const float *bias, json_t *metrics) {
  float *logits = sw_alloc_array((dev->rows < LOGIT_ROWS ? dev->rows : LOGIT_ROWS) * classes, sizeof *logits);
  sw_class_scores scores = {0};
  char line[200];
  int status = logits && !sw_class_scores_open(&scores, dev, classes, o->k) ? 0 : -1;
  for (size_t from = 0; from < dev->rows && !status; from += LOGIT_ROWS) {
    const size_t rows = dev->rows - from < LOGIT_ROWS ? dev->rows - from : LOGIT_ROWS;
    status = sw_logistic_logits(&setup->stream, setup->config.hidden_size, (int)classes, weight, bias, sw_labelled_value(dev, from), (int64_t)rows, logits);
    for (size_t i = 0; i < rows && !status; i++) sw_class_scores_add(&scores, from + i, logits + i * classes);
  }
  if (!status) status = sw_class_scores_json(&scores, metrics, line);
  if (!status && !o->setup.loop.quiet) fprintf(stderr, "dev, %zu row%s: %s\n", dev->rows, SW_S(dev->rows), line);
  sw_class_scores_close(&scores);
  free(logits);
  return status;
}

/* --- the checkpoint --- */

static int add_head(sw_setup *setup, const sw_labelled *train, const float *weight, const float *bias) {
  sw_checkpoint *c = &setup->checkpoint;
  const int64_t shape[2] = {(int64_t)train->names.count, setup->config.hidden_size};
  if (sw_checkpoint_add_head(c, SW_CLASSIFY_HEAD, "sequence", (const char *const *)train->names.keys, train->names.count)) return -1;
  sw_tensor *w = sw_tensors_add(&c->weights, "heads." SW_CLASSIFY_HEAD ".weight", SW_F32, 2, shape);
  if (!w) return -1;
  memcpy(w->data, weight, (size_t)(shape[0] * shape[1]) * sizeof *weight);
  sw_tensor *b = sw_tensors_add(&c->weights, "heads." SW_CLASSIFY_HEAD ".bias", SW_F32, 1, shape);
  if (!b) return -1;
  memcpy(b->data, bias, (size_t)shape[0] * sizeof *bias);
  free(c->kind);
  return (c->kind = sw_strdup("classify")) ? 0 : -1;
}

/* Takes metrics over. */
static int set_training(sw_setup *setup, const sw_classify_options *o, const sw_labelled *train, const sw_labelled *dev, const sw_logistic_result *r, json_t *metrics) {
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

static void print_start(const sw_setup *setup, const sw_classify_options *o, const sw_labelled *train, const sw_labelled *dev, uint64_t truncated, size_t unseen) {
  if (o->setup.loop.quiet) return;
  sw_setup_print_device(setup);
  fprintf(stderr, ": %zu row%s in %zu classes, %zu row%s to score by\n", train->rows, SW_S(train->rows), train->names.count, dev->rows, SW_S(dev->rows));
  if (truncated)
    fprintf(stderr, "%llu texts were longer than %d tokens and were truncated\n", (unsigned long long)truncated, setup->config.max_seq_length);
  if (unseen)
    fprintf(stderr, "%zu row%s of --dev %s left out: the training data has no such label\n", unseen, SW_S(unseen), unseen == 1 ? "is" : "are");
}

static int learn(sw_setup *setup, const sw_classify_options *o, sw_labelled *train, sw_labelled *dev, size_t unseen) {
  const size_t classes = train->names.count;
  float *weight = sw_alloc_array(classes * (size_t)setup->config.hidden_size, sizeof *weight), *bias = sw_alloc_array(classes, sizeof *bias);
  sw_logistic_result result;
  json_t *metrics = json_object();
  int status = weight && bias && metrics ? fit(setup, o, train, weight, bias, &result) : -1;
  if (!status && dev->rows) status = evaluate(setup, o, dev, classes, weight, bias, metrics);
  if (!status && unseen && json_object_set_new(metrics, "unseen_labels", json_integer((json_int_t)unseen))) status = sw_fail("out of memory");
  if (!status) status = add_head(setup, train, weight, bias);
  if (!status) status = sw_setup_set_prefix(setup, o->prefix);
  if (!status) {
    status = set_training(setup, o, train, dev, &result, metrics);
    metrics = NULL;
  }
  if (!status) status = sw_checkpoint_write(o->setup.loop.output, &setup->checkpoint);
  if (!status && o->json) sw_classify_print_metrics(&setup->checkpoint);
  json_decref(metrics);
  free(weight);
  free(bias);
  return status;
}

static int fit_logistic(sw_classify_options *o) {
  sw_setup setup = {0};
  sw_labelled train = {0}, dev = {0};
  uint64_t truncated = 0;
  size_t unseen = 0;
  int status = sw_setup_open(&o->setup, &setup);
  const int signals[] = {SIGTERM, SIGINT, SIGUSR1}; /* there is nothing to resume: they just end the program */
  for (int i = 0; i < 3; i++) signal(signals[i], SIG_DFL);
  if (!status) {
    sw_setup_drop_heads(&setup, NULL, NULL);
    const source from = {&setup, o, o->vectors, &truncated}, dev_from = {&setup, o, o->dev_vectors, &truncated};
    const sw_dtype dtype = !strcmp(o->setup.dtype, "bf16") ? SW_BF16 : SW_F32;
    int failed = (!o->vectors && sw_model_open(&setup.stream, &setup.checkpoint, dtype, SW_INFERENCE, &setup.model)) || read_list(&from, &o->data, "", &train) ||
                 sw_labelled_sort(&train);
    dev.row_bytes = train.row_bytes;
    if (!failed && o->dev.count) failed = read_list(&dev_from, &o->dev, ".dev", &dev);
    if (!failed && o->holdout > 0) failed = sw_labelled_hold_out(&train, &dev, o->holdout, o->setup.loop.seed);
    if (!failed) unseen = sw_labelled_adopt(&train, &dev);
    if (!failed && o->dev.count && !dev.rows) failed = sw_fail("no row of --dev has a label that the training data has");
    if (!failed) print_start(&setup, o, &train, &dev, truncated, unseen);
    status = failed || learn(&setup, o, &train, &dev, unseen) ? SW_EXIT_FAILED : SW_EXIT_DONE;
  }
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_exit_message(status);
  if (!status && !o->setup.loop.quiet) fprintf(stderr, "%s: written\n", o->setup.loop.output);
  sw_labelled_close(&train);
  sw_labelled_close(&dev);
  sw_setup_close(&setup);
  return status;
}

/* --- the command line --- */

void sw_classify_print_metrics(const sw_checkpoint *checkpoint) {
  char *text = json_dumps(json_object_get(checkpoint->training, "metrics"), JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY);
  if (text) puts(text);
  free(text);
}

int sw_classify_check_output(const void *options, const char *output) {
  const sw_classify_options *o = options;
  const char *const inputs[] = {o->setup.base, o->vectors, o->dev_vectors};
  int status = sw_check_output(output, o->data.items, o->data.count) || sw_check_output(output, o->dev.items, o->dev.count) ||
               sw_check_output(output, o->test.items, o->test.count) ||
               sw_check_output(output, (const char *const *)o->replay_files, o->replay.count);
  for (int i = 0; i < 3 && !status; i++) status = inputs[i] && sw_check_output(output, inputs + i, 1);
  return status ? -1 : 0;
}

static int check_rejected(const sw_classify_options *o) {
  const struct {
    const char *which;
    int count;
  } kinds[] = {{"", o->data.count}, {".dev", o->dev.count}, {".replay", o->replay.count}};
  for (int kind = 0; kind < 3; kind++)
    for (int i = 0; i < kinds[kind].count; i++) {
      char *path = sw_setup_rejected_path(&o->setup, kinds[kind].which, i);
      const int failed = !path || sw_classify_check_output(o, path);
      free(path);
      if (failed) return -1;
    }
  return 0;
}

/* What both methods want. */
static int check(const sw_classify_options *o) {
  const sw_list *const lists[] = {&o->data, &o->dev, &o->replay, &o->test};
  if (!o->setup.base) return sw_fail("--base is missing: the encoder, made by skillwatch pull");
  if (!o->data.count) return sw_fail("--data is missing: a CSV, TSV or JSON lines file of texts with labels");
  if (!o->label) return sw_fail("--label is missing: the column or key of the label");
  if (!o->setup.loop.output) return sw_fail("-o is missing: the checkpoint to write");
  if (o->dev.count && o->holdout > 0) return sw_fail("--dev and --holdout exclude each other");
  if (!(o->holdout >= 0 && o->holdout < 1)) return sw_fail("--holdout is a part of the rows: from 0 to below 1");
  if (o->k < 1) return sw_fail("-k must be at least 1");
  for (size_t list = 0; list < sizeof lists / sizeof *lists; list++)
    for (int i = 0; i < lists[list]->count; i++)
      if (!strcmp(lists[list]->items[i], "-")) return sw_fail("--data -: a file is wanted, whose hash is kept with the model");
  return 0;
}

static int check_logistic(const sw_classify_options *o) {
  const char *output = o->setup.loop.output;
  if (check(o)) return -1;
  if (!strcmp(output, "-")) return sw_fail("-o -: a checkpoint cannot be written to standard output");
  if (sw_is_folder(output)) return sw_fail("-o %s is a folder, a file name was expected", output);
  if (!(o->c > 0) || !isfinite(o->c)) return sw_fail("-C must be a number above 0");
  if (!(o->tolerance >= 0)) return sw_fail("--tolerance cannot be negative");
  if (o->max_iterations < 1) return sw_fail("--max-iterations must be at least 1");
  if (o->vectors && (o->data.count > 1 || (o->dev.count && !o->dev_vectors)))
    return sw_fail("--vectors goes with one --data, and with --dev-vectors where there is a --dev");
  if (o->dev_vectors && (o->dev.count != 1 || !o->vectors)) return sw_fail("--dev-vectors goes with one --dev and with --vectors");
  if (strcmp(o->setup.dtype, "fp32") && strcmp(o->setup.dtype, "bf16")) return sw_fail("--dtype %s: use fp32 or bf16", o->setup.dtype);
  if (sw_device_check(o->setup.device, o->setup.threads) || sw_classify_check_output(o, output) || check_rejected(o)) return -1;
  if (sw_exists(output) && !o->setup.loop.force) return sw_fail("%s exists already: --force replaces it, or give another -o", output);
  return 0;
}

static int check_tune(sw_classify_options *o) {
  return check(o) || sw_setup_parse_replays(&o->replay, "", o->replay_files, o->parts) ||
                 sw_setup_check(&o->setup, sw_classify_check_output, o) || check_rejected(o)
             ? -1
             : 0;
}

static void close_options(sw_classify_options *o) {
  sw_list_close(&o->data);
  sw_list_close(&o->dev);
  sw_list_close(&o->replay);
  sw_list_close(&o->test);
  for (int i = 0; i < SW_MAX_REPLAYS; i++) free(o->replay_files[i]);
}

enum { ANY, LOGISTIC, TUNE }; /* whose options are understood */

/* As sw_options_parse. */
static int parse(sw_classify_options *o, int method, int argc, char **argv) {
  const sw_logistic_options fit = SW_LOGISTIC_DEFAULTS;
  *o = (sw_classify_options){.setup = SW_SETUP_DEFAULTS, .prefix = "", .method = "logistic", .c = fit.c, .tolerance = fit.tolerance,
                             .max_iterations = fit.max_iterations, .k = 10};
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o->data, "FILE", "texts with labels: CSV, TSV or JSON lines, plain, .gz or .zst; may be repeated"},
      {"column", 0, SW_OPTION_TEXT, &o->column, "NAME[,NAME]", "columns or keys of the text (else: description, text, the only one)"},
      {"label", 'l', SW_OPTION_TEXT, &o->label, "NAME", "column or key of the label"},
      {"dev", 0, SW_OPTION_LIST, &o->dev, "FILE", "the same, to score by; may be repeated"},
      {"holdout", 0, SW_OPTION_DOUBLE, &o->holdout, "PART", "part of --data's rows to score by, instead of --dev; every class keeps a row"},
      {"prefix", 0, SW_OPTION_TEXT, &o->prefix, "TEXT", "put before every text, by inference too"},
      {"method", 0, SW_OPTION_TEXT, &o->method, "NAME",
       "logistic: multinomial logistic regression with L2 on the vectors of the encoder, which stays as it is; fine-tune: encoder and head learn together"},
      {"top", 'k', SW_OPTION_INT, &o->k, "N", "accuracy@N is told beside that at 1, 3, 5 and 10"},
      {"json", 0, SW_OPTION_FLAG, &o->json, NULL, "the metrics as JSON, to stdout"},
      {0}};
  const sw_option logistic[] = {
      {"inverse-l2", 'C', SW_OPTION_DOUBLE, &o->c, "X", "logistic: scikit-learn's C: the larger, the less weights are held back"},
      {"tolerance", 0, SW_OPTION_DOUBLE, &o->tolerance, "X", "logistic: largest part of the mean objective's gradient to stop at"},
      {"max-iterations", 0, SW_OPTION_INT, &o->max_iterations, "N", "logistic: steps of L-BFGS"},
      {"vectors", 0, SW_OPTION_TEXT, &o->vectors, "FILE", "logistic: vectors of --data's rows (.h5, .npy), made by infer embed: nothing is embedded"},
      {"dev-vectors", 0, SW_OPTION_TEXT, &o->dev_vectors, "FILE", "logistic: the same for --dev"},
      {0}};
  const sw_option tune[] = {
      {"replay", 0, SW_OPTION_LIST, &o->replay, "FILE:PART", "fine-tune: older texts with labels that make up this part of every batch; may be repeated"},
      {"test", 0, SW_OPTION_LIST, &o->test, "FILE", "fine-tune: an earlier test set: scored before and after, to see what is forgotten; may be repeated"},
      {"max-length", 0, SW_OPTION_INT, &o->setup.max_length, "N",
       "fine-tune: tokens of a text that are read, by inference too; 0 = the model's max_seq_length"},
      {0}};
  const sw_option plain[] = { /* of those that training by steps has, what logistic needs */
      {"base", 'b', SW_OPTION_TEXT, &o->setup.base, "CKPT", "encoder"},
      {"output", 'o', SW_OPTION_TEXT, &o->setup.loop.output, "CKPT", "checkpoint"},
      {"force", 0, SW_OPTION_FLAG, &o->setup.loop.force, NULL, "replace an existing output"},
      {"seed", 0, SW_OPTION_INT, &o->setup.loop.seed, "N", "of --holdout"},
      {"device", 0, SW_OPTION_TEXT, &o->setup.device, "NAME", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o->setup.dtype, "TYPE", "of the encoder: fp32 or bf16"},
      {"threads", 0, SW_OPTION_INT, &o->setup.threads, "N", "CPU threads"},
      {"quiet", 'q', SW_OPTION_FLAG, &o->setup.loop.quiet, NULL, "print errors only"},
      {0}};
  const sw_option *const parts[] = {options, method != TUNE ? logistic : plain, method != LOGISTIC ? tune : plain};
  sw_option all[48] = {{0}};
  size_t count = 0;
  for (int i = 0; i < 3; i++)
    for (const sw_option *row = parts[i]; row->name && (method != TUNE || parts[i] != plain); row++) all[count++] = *row;
  const sw_command command = {
      "skillwatch train classify --base CKPT --data FILE --label NAME -o CKPT [--method fine-tune] [options]",
      "Learns to give texts one of many labels, occupation codes say, from texts that have one. --method logistic: multinomial logistic\n"
      "regression on the encoder's vectors, seconds of work, without the options of training by steps (--epochs, --lr ...). --method\n"
      "fine-tune: the encoder and a head on its pooled vectors are trained together, which takes longer and learns more.\n"
      "Scores by accuracy@k, mean reciprocal rank (MRR, by which the best checkpoint is chosen) and macro F1.\n"
      "Rows without text or label are set aside in <output>.rejected.jsonl.",
      "skillwatch train classify --base minilm.h5 --data occupations.csv --column Title,Description --label Code --holdout 0.2 -o occupations.h5", all};
  if (method != LOGISTIC) return sw_setup_parse(&command, &o->setup, argc, argv);
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' was not expected: give data with --data", operands.items[0]);
  sw_list_close(&operands);
  return status;
}

int sw_train_classify(int argc, char **argv) {
  sw_classify_options o;
  int status = parse(&o, ANY, argc, argv), method = ANY;
  if (!status) {
    const char *name = o.method;
    method = !strcmp(name, "logistic") ? LOGISTIC : TUNE;
    if (method == TUNE && strcmp(name, "fine-tune")) {
      status = sw_fail("--method %s is not known: use logistic or fine-tune", name);
    } else if (method == LOGISTIC && sw_launched()->size > 1) {
      status = sw_fail("train classify --method logistic runs in one process, on all rows at once, and takes seconds: type 'skillwatch train classify' and its options without "
                       "mpirun; --method fine-tune is for several processes");
    } else {
      close_options(&o);
      if (parse(&o, method, argc, argv)) status = sw_fail_in("--method %s", name);
    }
  }
  if (!status) status = method == TUNE ? check_tune(&o) : check_logistic(&o);
  const int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : method == TUNE ? sw_classify_tune(&o) : fit_logistic(&o);
  close_options(&o);
  return code;
}
