/* skillwatch infer multilabel: the labels of whole texts. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/csv.h"
#include "engine/data/rejects.h"
#include "engine/learn/label_scores.h"
#include "engine/store/config_file.h"
#include "infer/labels.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  sw_runs_worker base; /* of a GRU, as stems */
  sw_stems *stems;
  sw_embed_worker embed; /* of an encoder */
  float *logits;         /* [max_batch, labels] */
} label_worker;

static int reads_stems(const sw_label_job *job) { return !job->session->tokenizer; }

static void close_worker(void *context, void *worker) {
  label_worker *w = worker;
  if (reads_stems(context)) {
    sw_runs_worker_close(&w->base);
    sw_stems_close(w->stems);
    free(w->logits);
  } else {
    sw_embed_worker_close(&w->embed);
  }
  free(w);
}

static int open_worker(void *context, void **worker) {
  sw_label_job *job = context;
  label_worker *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *worker = w; /* closed by the pipeline, also when what follows fails */
  if (!reads_stems(job)) {
    if (sw_embed_worker_open(&job->embedder, &w->embed)) return -1;
    w->logits = w->embed.outputs;
    return 0;
  }
  w->logits = sw_alloc_array((unsigned long)job->session->runs.max_batch * (unsigned long)job->labels->num_labels, sizeof *w->logits);
  return w->logits && !sw_checkpoint_stems(&job->session->checkpoint, &w->stems) ? sw_runs_worker_open(&job->session->runs, &w->base) : -1;
}

static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  sw_label_job *job = context;
  label_worker *w = worker;
  const int32_t *ids;
  size_t count;
  if (!reads_stems(job)) return sw_embed_encode(&job->embedder, &w->embed, item, pieces, (uint32_t)job->labels->num_labels);
  if (sw_stems_encode(w->stems, item->posting.text, item->posting.bytes, (size_t)job->session->model->config.max_positions, &ids, &count,
                      &item->truncated))
    return sw_fail_in("row %llu (id %s)", (unsigned long long)item->posting.index + 1, item->posting.id);
  return sw_pieces_add(pieces, ids, (int32_t)count, NULL, 0, (uint32_t)job->labels->num_labels);
}

static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  sw_label_job *job = context;
  label_worker *w = worker;
  const size_t labels = (size_t)job->labels->num_labels;
  if (reads_stems(job)) {
    if (sw_runs_begin(&w->base)) return -1;
    const int failed = sw_run_forward(w->base.run, batch, NULL) || sw_run_label_logits(w->base.run, job->head, w->logits);
    sw_runs_end(&w->base);
    if (failed) return -1;
  } else if (sw_embed_run(&job->embedder, &w->embed, batch, pieces, items)) {
    return -1;
  }
  for (int i = 0; i < batch->batch; i++) {
    const float *logits = w->logits + (size_t)i * labels;
    if (sw_item_check_finite(logits, labels, &items[pieces[i]->item])) return -1;
    for (size_t k = 0; k < labels; k++) pieces[i]->result[k] = sw_label_probability(logits[k]);
  }
  return 0;
}

static int quote(sw_buffer *out, const char *text) { return sw_json_quote(out, text, strlen(text)); }

static int finish(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  const sw_label_job *job = context;
  const sw_posting *posting = &item->posting;
  const float *probabilities = item->pieces[0].result;
  int any = 0;
  if (!job->csv && (sw_buffer_print(out, "{\"id\": ") || quote(out, posting->id) || sw_buffer_print(out, ", \"date\": ") ||
                    quote(out, posting->date) || sw_buffer_print(out, ", \"labels\": [")))
    return -1;
  for (int k = 0; k < job->labels->num_labels; k++) {
    const char *name = job->labels->labels[k];
    if (!job->all && probabilities[k] < job->thresholds[k]) continue;
    /* nine digits give every float back exactly */
    const int failed = job->csv ? sw_csv_quote(out, posting->id, strlen(posting->id)) || sw_buffer_print(out, ",") ||
                                      sw_csv_quote(out, posting->date, strlen(posting->date)) || sw_buffer_print(out, ",") ||
                                      sw_csv_quote(out, name, strlen(name)) || sw_buffer_print(out, ",%.9g\r\n", (double)probabilities[k])
                                : sw_buffer_print(out, "%s{\"label\": ", any ? ", " : "") || quote(out, name) ||
                                      sw_buffer_print(out, ", \"probability\": %.9g}", (double)probabilities[k]);
    if (failed) return -1;
    any = 1;
  }
  return job->csv ? 0 : sw_buffer_print(out, "]}\n");
}

static int write_record(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  return sw_infer_put(((sw_label_job *)context)->session, counts, output->data, output->size);
}

const sw_pipeline_job sw_label_steps = {.open_worker = open_worker, .close_worker = close_worker, .encode = encode, .run = run, .finish = finish};

int sw_label_open_head(sw_label_job *job, double threshold) {
  sw_infer_session *s = job->session;
  const sw_model *model = s->model;
  while (job->head < model->num_heads && strcmp(model->heads[job->head].task, "multilabel")) job->head++;
  if (job->head == model->num_heads)
    return sw_fail("%s has no labels of whole texts; train them with: skillwatch train multilabel --data table.csv -o skills.h5", s->options->model);
  if (reads_stems(job) && s->checkpoint.vocab_size > (size_t)model->config.vocab_size)
    return sw_fail("%s: the vocabulary has %zu stems, the embedding only %d rows", s->options->model, s->checkpoint.vocab_size, model->config.vocab_size);
  job->labels = &model->heads[job->head];
  const char *prefix = json_string_value(json_object_get(json_object_get(s->checkpoint.config, "skillwatch"), "prefix"));
  if (!reads_stems(job) && sw_embedder_open(&job->embedder, &s->runs, s->tokenizer, prefix ? prefix : "", (int)job->head))
    return sw_fail_in("%s", s->options->model);
  if (!(job->thresholds = sw_alloc_array((size_t)job->labels->num_labels, sizeof *job->thresholds))) return -1;
  const json_t *own = json_object_get(s->checkpoint.config, "thresholds");
  for (int k = 0; k < job->labels->num_labels; k++) {
    const json_t *value = json_array_get(own, (size_t)k);
    job->thresholds[k] = threshold >= 0 ? (float)threshold : json_is_number(value) ? (float)json_number_value(value) : 0.5f;
  }
  return 0;
}

static int label(sw_label_job *job, const sw_infer_options *options, double threshold, const sw_list *inputs) {
  static const char head[] = "id,date,label,probability\r\n";
  sw_infer_session session;
  job->session = &session;
  int status = sw_infer_open_stems(&session, "multilabel", options, inputs);
  if (!status) status = sw_label_open_head(job, threshold);
  if (!status) {
    json_t *settings = json_pack("{s:b,s:b,s:f}", "csv", job->csv, "all", job->all, "threshold", threshold);
    status = settings ? sw_infer_open_output(job->session, settings) : sw_fail("out of memory");
  }
  sw_pipeline_job pipeline = sw_label_steps;
  pipeline.context = job;
  pipeline.write = write_record;
  if (!status) status = sw_infer_complete(job->session, &pipeline, job->csv ? head : "", NULL);
  free(job->thresholds);
  sw_infer_close(job->session);
  return status;
}

int sw_infer_multilabel(int argc, char **argv) {
  sw_infer_options o = SW_INFER_DEFAULTS;
  sw_label_job job = {0};
  double threshold = -1;
  int csv = 0;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "labels.jsonl, labels.csv or - for stdout"},
      {"csv", 0, SW_OPTION_FLAG, &csv, NULL, "one label a row: id, date, label, probability"},
      {"all", 0, SW_OPTION_FLAG, &job.all, NULL, "every label, however improbable"},
      {"threshold", 0, SW_OPTION_DOUBLE, &threshold, "X", "least probability of a label; -1: the model's own, 0.5 unless they were tuned"},
      SW_INFER_COMMON_OPTIONS(o),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer multilabel -m CHECKPOINT POSTINGS... [options]",
      .summary = "Finds the labels of whole texts. POSTINGS: " SW_INFER_INPUTS
                 "One JSON object a posting, in input order:\n"
                 "  {\"id\", \"date\", \"labels\": [{\"label\", \"probability\"}]}\n"
                 "The output appears when all is done; until then the work is kept in\n"
                 "OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer multilabel -m skills.h5 postings.csv -o labels.jsonl",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = sw_infer_check(&o, &inputs);
  if (!status && !(threshold == -1 || (threshold >= 0 && threshold <= 1))) status = sw_fail("--threshold must be from 0 to 1, or -1");
  job.csv = csv || sw_infer_ends_in(o.output, ".csv");
  if (!status && strcmp(o.output, "-") && !job.csv && !sw_infer_ends_in(o.output, ".jsonl"))
    status = sw_fail("-o %s: the name must end in .jsonl or .csv", o.output);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = label(&job, &o, threshold, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
