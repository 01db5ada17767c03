/* skillwatch infer classify: texts to their most probable labels. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/csv.h"
#include "engine/learn/ranking.h"
#include "engine/store/config_file.h"
#include "infer/labels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A label of a text, and how well it fits: a probability, or a cosine. */
typedef struct {
  const char *label;
  double fit;
} match;

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
  sw_classify_job *job = context;
  classify_worker *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *worker = w; /* closed by the pipeline, also when what follows fails */
  w->best = sw_alloc_array((size_t)job->k, sizeof *w->best);
  return w->best ? sw_embed_worker_open(&job->embedder, &w->embed) : -1;
}

/* A piece's result: k labels, as numbers, then their log-probabilities. */
static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  sw_classify_job *job = context;
  classify_worker *w = worker;
  return sw_embed_encode(&job->embedder, &w->embed, item, pieces, 2 * (uint32_t)job->k);
}

static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  sw_classify_job *job = context;
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

/* "probability" or "score" */
static const char *name_of_fit(const sw_classify_job *job) { return job->head ? "probability" : "score"; }

static int print_json(const sw_classify_job *job, const sw_posting *posting, const match *found, int count, sw_buffer *out) {
  if (put(out, "{\"id\": ") || sw_json_quote(out, posting->id, strlen(posting->id)) || put(out, ", \"date\": ") ||
      sw_json_quote(out, posting->date, strlen(posting->date)) || put(out, ", \"labels\": ["))
    return -1;
  for (int n = 0; n < count; n++)
    if (put(out, n ? ", {\"label\": " : "{\"label\": ") || sw_json_quote(out, found[n].label, strlen(found[n].label)) ||
        sw_buffer_print(out, ", \"%s\": %.6g}", name_of_fit(job), found[n].fit))
      return -1;
  return put(out, "]}\n");
}

static int print_csv(const sw_posting *posting, const match *found, int count, sw_buffer *out) {
  for (int n = 0; n < count; n++)
    if (sw_csv_quote(out, posting->id, strlen(posting->id)) || put(out, ",") || sw_csv_quote(out, posting->date, strlen(posting->date)) ||
        sw_buffer_print(out, ",%d,", n + 1) || sw_csv_quote(out, found[n].label, strlen(found[n].label)) || sw_buffer_print(out, ",%.6g\r\n", found[n].fit))
      return -1;
  return 0;
}

static int print(const sw_classify_job *job, const sw_posting *posting, const match *found, int count, sw_buffer *out) {
  return job->csv ? print_csv(posting, found, count, out) : print_json(job, posting, found, count, out);
}

static int finish(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  const sw_classify_job *job = context;
  const float *result = item->pieces[0].result;
  match *found = sw_alloc_array((size_t)job->k, sizeof *found);
  for (int n = 0; n < job->k && found; n++) found[n] = (match){job->head->labels[(size_t)result[n]], exp((double)result[job->k + n])};
  const int failed = !found || print(job, &item->posting, found, job->k, out);
  free(found);
  return failed ? -1 : 0;
}

static int write_record(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  sw_classify_job *job = context;
  return sw_infer_put(job->session, counts, output->data, output->size);
}

const sw_pipeline_job sw_classify_steps = {.open_worker = open_worker, .close_worker = close_worker, .encode = encode, .run = run, .finish = finish};

int sw_classify_open_head(sw_classify_job *job, const char *prefix) {
  const sw_infer_session *s = job->session;
  const char *path = s->options->model, *own = json_string_value(json_object_get(json_object_get(s->checkpoint.config, "skillwatch"), "prefix"));
  int found = -1;
  for (size_t h = 0; h < s->model->num_heads && found < 0; h++)
    if (!strcmp(s->model->heads[h].task, "sequence")) found = (int)h;
  if (found < 0)
    return sw_fail("%s has no head over whole texts; train one with: skillwatch train classify --base %s --data labelled.csv --label NAME -o labels.h5; or "
                   "search a table with --occupations",
                   path, path);
  job->head = &s->model->heads[found];
  if (job->k > job->head->num_labels) job->k = job->head->num_labels;
  return sw_embedder_open(&job->embedder, &job->session->runs, s->tokenizer, prefix ? prefix : own ? own : "", found) ? sw_fail_in("%s", path) : 0;
}

/* --- by search --- */

static int print_nearest(void *context, const sw_posting *posting, const int64_t *index, const float *score) {
  sw_classify_job *job = context;
  match found[SW_MOST_NEIGHBOURS];
  int count = 0;
  for (; count < job->k && index[count] >= 0; count++) found[count] = (match){job->occupations.ids[index[count]], (double)score[count]};
  return print(job, posting, found, count, &job->record);
}

static int write_nearest(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  sw_classify_job *job = context;
  sw_buffer_clear(&job->record);
  return sw_finder_items(job->session, &job->finder, items, count, -1, print_nearest, job) ? -1
         : sw_infer_put(job->session, counts, job->record.data, job->record.size);
}

/* --- the command --- */

typedef struct {
  sw_infer_options infer;
  const char *prefix, *title, *occupations, *occupations_prefix;
  sw_postings_options reading; /* of the occupations */
} classify_options;

static int open_occupations(sw_classify_job *job, const classify_options *o) {
  sw_infer_session *s = job->session;
  if (sw_corpus_open(s, o->occupations, &o->reading, "auto", o->occupations_prefix, &job->occupations)) return -1;
  const sw_search_corpus rows = sw_corpus_rows(&job->occupations);
  return sw_finder_open(s, &rows, job->occupations.hidden, job->k, SW_COSINE, &job->finder) ||
                 sw_embedder_open(&job->embedder, &s->runs, s->tokenizer, o->prefix ? o->prefix : "", -1)
             ? -1
             : 0;
}

static int classify(sw_classify_job *job, const classify_options *o, const sw_list *inputs) {
  const int by_search = o->occupations != NULL;
  sw_infer_session session;
  job->session = &session;
  int status = sw_infer_open(&session, "classify", &o->infer, inputs) || (by_search ? open_occupations(job, o) : sw_classify_open_head(job, o->prefix)) ? -1 : 0;
  if (!status) {
    json_t *settings = json_pack("{s:s,s:b,s:i,s:o,s:s?,s:s?,s:s}", "prefix", job->embedder.prefix, "csv", job->csv, "k", job->k, "occupations",
                                 by_search ? sw_corpus_identity(o->occupations) : json_null(), "occupations_column", o->reading.column, "occupations_id",
                                 o->reading.id_column, "occupations_prefix", o->occupations_prefix);
    status = settings ? sw_infer_open_output(job->session, settings) : sw_fail("an option is not valid UTF-8");
  }
  const sw_pipeline_job nearest = {.open_worker = sw_embed_open_worker, .close_worker = sw_embed_close_worker, .encode = sw_embed_encode_vector,
                                   .run = sw_embed_run_vectors};
  sw_pipeline_job pipeline = by_search ? nearest : sw_classify_steps;
  pipeline.context = job;
  pipeline.write = by_search ? write_nearest : write_record;
  const char *head = !job->csv ? "" : by_search ? "id,date,rank,label,score\r\n" : "id,date,rank,label,probability\r\n";
  if (!status) status = sw_infer_complete(job->session, &pipeline, head, NULL);
  sw_finder_close(&job->finder);
  sw_corpus_close(&job->occupations);
  sw_buffer_close(&job->record);
  sw_infer_close(job->session);
  return status;
}

/* `column` becomes title and text, which are read one after the other. */
static int check(classify_options *o, sw_classify_job *job, const sw_list *inputs, sw_buffer *column) {
  if (sw_infer_check(&o->infer, inputs) || (o->occupations && sw_infer_check_outputs(o->infer.output, o->infer.rejected, NULL, &o->occupations, 1))) return -1;
  if (job->k < 1 || (o->occupations && job->k > SW_MOST_NEIGHBOURS)) return sw_fail("-k must be %s %d", o->occupations ? "from 1 to" : "at least", o->occupations ? SW_MOST_NEIGHBOURS : 1);
  if (!o->occupations && (o->reading.column || o->reading.id_column || *o->occupations_prefix))
    return sw_fail("--occupations-column, --occupations-id and --occupations-prefix are for --occupations FILE, which is missing");
  if (o->occupations && (!strcmp(o->occupations, "-") || sw_is_folder(o->occupations))) return sw_fail("--occupations %s: a file is wanted", o->occupations);
  if (o->title && !o->infer.column) return sw_fail("--title-column %s: --column must say which column has the text behind it", o->title);
  job->csv |= sw_infer_ends_in(o->infer.output, ".csv");
  if (!job->csv && strcmp(o->infer.output, "-") && !sw_infer_ends_in(o->infer.output, ".jsonl"))
    return sw_fail("-o %s: the name must end in .csv or .jsonl", o->infer.output);
  if (!o->title) return 0;
  if (sw_buffer_print(column, "%s,%s", o->title, o->infer.column)) return -1;
  o->infer.column = column->data;
  return 0;
}

int sw_infer_classify(int argc, char **argv) {
  classify_options o = {.infer = SW_INFER_DEFAULTS, .occupations_prefix = "", .reading = {.column_option = "occupations-column", .id_option = "occupations-id"}};
  sw_classify_job job = {.k = 10};
  sw_buffer column = {0};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.infer.output, "FILE", "top.csv, top.jsonl or - (JSON lines to stdout)"},
      {"csv", 0, SW_OPTION_FLAG, &job.csv, NULL, "one label a row: id, date, rank, label, probability (or score)"},
      {"top", 'k', SW_OPTION_INT, &job.k, "N", "labels of each text, the most probable first"},
      {"prefix", 0, SW_OPTION_TEXT, &o.prefix, "TEXT", "put before every text (else: what the model was trained with)"},
      {"title-column", 0, SW_OPTION_TEXT, &o.title, "NAME", "read before --column: title and text are embedded as one, a line each"},
      {"occupations", 0, SW_OPTION_TEXT, &o.occupations, "FILE", "table of occupations, one a row, or their vectors (.h5, .npy): found by meaning"},
      {"occupations-column", 0, SW_OPTION_TEXT, &o.reading.column, "NAME", "column of their texts: Title, or Title,Description (else: as --column)"},
      {"occupations-id", 0, SW_OPTION_TEXT, &o.reading.id_column, "NAME", "column of what they are called (else: id, job_id, number)"},
      {"occupations-prefix", 0, SW_OPTION_TEXT, &o.occupations_prefix, "TEXT", "put before their texts"},
      SW_INFER_COMMON_OPTIONS(o.infer),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer classify -m CHECKPOINT POSTINGS... [options]",
      .summary = "Gives texts the most probable of the model's labels, or with --occupations the most similar of a table. POSTINGS: " SW_INFER_INPUTS
                 "Several columns with commas between them are read one after the other. One JSON object a text, in input order:\n"
                 "  {\"id\", \"date\", \"labels\": [{\"label\", \"probability\"}]}\n"
                 "With --occupations the model is a sentence encoder, labels are the table's ids, and instead of a probability there is a\n"
                 "\"score\": the cosine of the vectors. Of equal ones the first in the model's order, or in the table, comes first. The output\n"
                 "appears when all is done; until then the work is kept in OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer classify -m occupations.h5 postings.csv --column title,description -k 10 -o top.csv\n"
                 "  skillwatch infer classify -m base.h5 --occupations occupations.tsv --occupations-column Title,Description --occupations-id Code \\\n"
                 "    postings.csv --title-column title --column description -o top.csv",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = check(&o, &job, &inputs, &column);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = classify(&job, &o, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_buffer_close(&column);
  sw_list_close(&inputs);
  return status;
}
