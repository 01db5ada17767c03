/* skillwatch infer classify: texts to their most probable labels. */
#include "base/error.h"
#include "engine/data/csv.h"
#include "engine/learn/ranking.h"
#include "engine/store/config_file.h"
#include "infer/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  sw_infer_session session;
  sw_embedder embedder;
  const sw_model_head *head;
  int csv, k;
} classify_job;

typedef struct {
  sw_embed_worker embed;
  uint32_t *best; /* [k] */
} classify_worker;

static void close_worker(void *context, void *worker) {
  classify_worker *w = worker;
  sw_embed_worker_close(&w->embed);
  free(w->best);
  free(w);
}

static int open_worker(void *context, void **worker) {
  classify_job *job = context;
  classify_worker *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *worker = w; /* closed by the pipeline, also when what follows fails */
  w->best = sw_alloc_array((size_t)job->k, sizeof *w->best);
  return w->best ? sw_embed_worker_open(&job->embedder, &w->embed) : -1;
}

/* A piece's result: k labels, as numbers, then their log-probabilities. */
static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  classify_job *job = context;
  classify_worker *w = worker;
  return sw_embed_encode(&job->embedder, &w->embed, item, pieces, 2 * (uint32_t)job->k);
}

static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  classify_job *job = context;
  classify_worker *w = worker;
  const size_t labels = (size_t)job->head->num_labels;
  if (sw_embed_run(&job->embedder, &w->embed, batch, pieces, items)) return -1;
  for (int i = 0; i < batch->batch; i++) {
    const float *log_probs = w->embed.outputs + (size_t)i * labels;
    sw_rank_best(log_probs, labels, (size_t)job->k, w->best);
    for (int n = 0; n < job->k; n++) {
      pieces[i]->result[n] = (float)w->best[n];
      pieces[i]->result[job->k + n] = log_probs[w->best[n]];
    }
  }
  return 0;
}

static int put(sw_buffer *out, const char *text) { return sw_buffer_append(out, text, strlen(text)); }

static const char *label_of(const classify_job *job, const float *result, int n) { return job->head->labels[(size_t)result[n]]; }
static double probability_of(const classify_job *job, const float *result, int n) { return exp((double)result[job->k + n]); }

static int print_json(const classify_job *job, const sw_posting *posting, const float *result, sw_buffer *out) {
  if (put(out, "{\"id\": ") || sw_json_quote(out, posting->id, strlen(posting->id)) || put(out, ", \"date\": ") ||
      sw_json_quote(out, posting->date, strlen(posting->date)) || put(out, ", \"labels\": ["))
    return -1;
  for (int n = 0; n < job->k; n++) {
    const char *label = label_of(job, result, n);
    if (put(out, n ? ", {\"label\": " : "{\"label\": ") || sw_json_quote(out, label, strlen(label)) ||
        sw_buffer_print(out, ", \"probability\": %.6g}", probability_of(job, result, n)))
      return -1;
  }
  return put(out, "]}\n");
}

static int print_csv(const classify_job *job, const sw_posting *posting, const float *result, sw_buffer *out) {
  for (int n = 0; n < job->k; n++) {
    const char *label = label_of(job, result, n);
    if (sw_csv_quote(out, posting->id, strlen(posting->id)) || put(out, ",") || sw_csv_quote(out, posting->date, strlen(posting->date)) ||
        sw_buffer_print(out, ",%d,", n + 1) || sw_csv_quote(out, label, strlen(label)) ||
        sw_buffer_print(out, ",%.6g\r\n", probability_of(job, result, n)))
      return -1;
  }
  return 0;
}

static int finish(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  const classify_job *job = context;
  return (job->csv ? print_csv : print_json)(job, &item->posting, item->pieces[0].result, out);
}

static int write_record(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  classify_job *job = context;
  return sw_infer_put(&job->session, counts, output->data, output->size);
}

/* The model's head over vectors, with the prefix that it was trained with unless another is given. */
static int open_head(classify_job *job, const char *prefix) {
  const sw_infer_session *s = &job->session;
  const char *path = s->options->model, *own = json_string_value(json_object_get(json_object_get(s->checkpoint.config, "skillwatch"), "prefix"));
  int found = -1;
  for (size_t h = 0; h < s->model->num_heads && found < 0; h++)
    if (!strcmp(s->model->heads[h].task, "sequence")) found = (int)h;
  if (found < 0)
    return sw_fail("%s has no head over whole texts; train one with: skillwatch train classify --base %s --data labelled.csv --label NAME -o labels.h5",
                   path, path);
  job->head = &s->model->heads[found];
  if (job->k > job->head->num_labels) job->k = job->head->num_labels;
  return sw_embedder_open(&job->embedder, &job->session.runs, s->tokenizer, prefix ? prefix : own ? own : "", found) ? sw_fail_in("%s", path) : 0;
}

static int classify(classify_job *job, const sw_infer_options *options, const char *prefix, const sw_list *inputs) {
  const char *head = job->csv ? "id,date,rank,label,probability\r\n" : "";
  int status = sw_infer_open(&job->session, "classify", options, inputs) || open_head(job, prefix) ? -1 : 0;
  if (!status) {
    json_t *settings = json_pack("{s:s,s:b,s:i}", "prefix", job->embedder.prefix, "csv", job->csv, "k", job->k);
    status = settings ? sw_infer_open_output(&job->session, settings) : sw_fail("--prefix is not valid UTF-8");
  }
  sw_pipeline_job pipeline = {.context = job, .open_worker = open_worker, .close_worker = close_worker, .encode = encode, .run = run, .finish = finish,
                              .write = write_record};
  if (!status) status = sw_infer_complete(&job->session, &pipeline, head, NULL);
  sw_infer_close(&job->session);
  return status;
}

int sw_infer_classify(int argc, char **argv) {
  sw_infer_options o = SW_INFER_DEFAULTS;
  classify_job job = {.k = 10};
  const char *prefix = NULL;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "top.csv, top.jsonl or - (JSON lines to stdout)"},
      {"csv", 0, SW_OPTION_FLAG, &job.csv, NULL, "one label a row: id, date, rank, label, probability"},
      {"top", 'k', SW_OPTION_INT, &job.k, "N", "labels of each text, the most probable first"},
      {"prefix", 0, SW_OPTION_TEXT, &prefix, "TEXT", "put before every text (else: what the model was trained with)"},
      SW_INFER_COMMON_OPTIONS(o),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer classify -m CHECKPOINT POSTINGS... [options]",
      .summary = "Gives texts the most probable of the model's labels. POSTINGS: " SW_INFER_INPUTS
                 "Several columns with commas between them are read one after the other. One JSON object a text, in input order:\n"
                 "  {\"id\", \"date\", \"labels\": [{\"label\", \"probability\"}]}\n"
                 "Of equally probable labels the first in the model's order comes first. The output appears when all is\n"
                 "done; until then the work is kept in OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer classify -m occupations.h5 postings.csv --column title,description -k 10 -o top.csv",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = sw_infer_check(&o, &inputs);
  if (!status && job.k < 1) status = sw_fail("-k must be at least 1");
  job.csv |= sw_infer_ends_in(o.output, ".csv");
  if (!status && !job.csv && strcmp(o.output, "-") && !sw_infer_ends_in(o.output, ".jsonl"))
    status = sw_fail("-o %s: the name must end in .csv or .jsonl", o.output);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = classify(&job, &o, prefix, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
