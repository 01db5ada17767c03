/* skillwatch infer select: postings that are similar to anchors. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/csv.h"
#include "engine/store/config_file.h"
#include "engine/text/pattern.h"
#include "infer/corpus.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  sw_embedder embedder; /* first: the pipeline's */
  sw_infer_session session;
  sw_corpus anchors;
  int by_pattern; /* anchors are those of the postings that the expression matches */
  int by_mean;
  float *mean; /* of the anchors' unit vectors, where that is what counts */
  sw_finder finder;
  int csv;
  double cutoff;
  uint64_t selected;
  sw_buffer record;
} select_job;

static int put(sw_buffer *out, const char *text) { return sw_buffer_append(out, text, strlen(text)); }
static int quote(sw_buffer *out, const char *text) { return sw_json_quote(out, text, strlen(text)); }

static int by_place(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Whether the posting is one that the expression matched. */
static int is_anchor(const select_job *job, const sw_posting *posting) {
  return job->by_pattern && bsearch(&posting->index, job->anchors.places, job->anchors.rows, sizeof posting->index, by_place) != NULL;
}

static int print_posting(select_job *job, const sw_posting *posting, int matched, int64_t anchor, float score) {
  sw_buffer *out = &job->record;
  const sw_corpus *c = &job->anchors;
  const int named = !matched && !job->by_mean; /* the anchor that is the reason */
  const char *reason = matched ? "matched" : job->by_mean ? "mean" : "nearest", *id = named ? c->ids[anchor] : "";
  const char *text = named && c->texts ? c->texts[anchor] : "";
  job->selected++;
  if (job->csv)
    return sw_csv_quote(out, posting->id, strlen(posting->id)) || put(out, ",") || sw_csv_quote(out, posting->date, strlen(posting->date)) ||
           sw_buffer_print(out, ",%.9g,%s,", (double)score, reason) || sw_csv_quote(out, id, strlen(id)) || put(out, ",") ||
           sw_csv_quote(out, text, strlen(text)) || put(out, "\r\n");
  return put(out, "{\"id\": ") || quote(out, posting->id) || put(out, ", \"date\": ") || quote(out, posting->date) ||
         sw_buffer_print(out, ", \"score\": %.9g, \"reason\": \"%s\"", (double)score, reason) ||
         (named && (put(out, ", \"anchor\": ") || quote(out, id))) || (*text && (put(out, ", \"anchor_text\": ") || quote(out, text))) || put(out, "}\n");
}

static int read_mean(void *context, int64_t first, int64_t rows, float *out) {
  const select_job *job = context;
  memcpy(out, job->mean, (size_t)job->anchors.hidden * sizeof *out);
  return 0;
}

static int print_if_near(void *context, const sw_posting *posting, const int64_t *anchor, const float *score) {
  select_job *job = context;
  const int matched = is_anchor(job, posting);
  return matched || (double)*score >= job->cutoff ? print_posting(job, posting, matched, *anchor, *score) : 0;
}

static int write_chunk(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  select_job *job = context;
  sw_buffer_clear(&job->record);
  return sw_finder_items(&job->session, &job->finder, items, count, -1, print_if_near, job) ? -1
         : sw_infer_put(&job->session, counts, job->record.data, job->record.size);
}

/* --- the command --- */

typedef struct {
  sw_infer_options infer;
  const char *anchors, *anchors_file, *anchors_column, *prefix, *by;
  double cutoff;
  int csv;
} select_options;

/* Unit vectors count alike. */
static int make_mean(select_job *job) {
  const size_t hidden = (size_t)job->anchors.hidden;
  double *sum = sw_alloc_array(hidden, sizeof *sum);
  float *row = sw_alloc_array(hidden, sizeof *row);
  int status = sum && row && (job->mean = sw_alloc_array(hidden, sizeof *job->mean)) ? 0 : -1;
  const sw_search_corpus rows = sw_corpus_rows(&job->anchors);
  for (int64_t i = 0; i < rows.rows && !status; i++) {
    double squares = 0;
    if ((status = rows.read(rows.context, i, 1, row))) break;
    for (size_t h = 0; h < hidden; h++) squares += (double)row[h] * (double)row[h];
    for (size_t h = 0; h < hidden && squares > 0; h++) sum[h] += row[h] / sqrt(squares);
  }
  for (size_t h = 0; h < hidden && !status; h++) job->mean[h] = (float)(sum[h] / (double)rows.rows);
  free(sum);
  free(row);
  return status;
}

static int open_anchors(select_job *job, const select_options *o, const sw_list *inputs) {
  sw_infer_session *s = &job->session;
  sw_postings_options reading = {.column = o->infer.column, .id_column = o->infer.id_column};
  if (o->anchors)
    return sw_postings_format_parse(o->infer.format, &reading.format) ||
                   sw_corpus_embed(s, inputs->items, (size_t)inputs->count, &reading, o->prefix, o->anchors, 1, &job->anchors)
               ? -1
               : 0;
  if (o->anchors_column) reading = (sw_postings_options){.column = o->anchors_column};
  reading.column_option = "anchors-column";
  return sw_corpus_open(s, o->anchors_file, &reading, "auto", o->prefix, &job->anchors);
}

static int open_finder(select_job *job, const select_options *o) {
  if (!o->infer.quiet) fprintf(stderr, "skillwatch: %llu anchor%s\n", (unsigned long long)job->anchors.rows, SW_S(job->anchors.rows));
  if (job->by_mean && make_mean(job)) return -1;
  const sw_search_corpus corpus =
      job->by_mean ? (sw_search_corpus){.rows = 1, .read = read_mean, .context = job, .name = "the anchors' mean"} : sw_corpus_rows(&job->anchors);
  return sw_finder_open(&job->session, &corpus, job->anchors.hidden, 1, SW_COSINE, &job->finder);
}

static int run_select(select_job *job, const select_options *o, const sw_list *inputs) {
  const char *head = job->csv ? "id,date,score,reason,anchor,anchor_text\r\n" : "";
  sw_infer_session *s = &job->session;
  int status = sw_infer_open(s, "select", &o->infer, inputs) || open_anchors(job, o, inputs) || open_finder(job, o) ||
                       sw_embedder_open(&job->embedder, &s->runs, s->tokenizer, o->prefix, -1)
                   ? -1
                   : 0;
  if (!status) {
    json_t *settings = json_pack("{s:s?, s:o, s:s?, s:s, s:s, s:f, s:b}", "anchors", o->anchors, "anchors_file",
                                 o->anchors_file ? sw_corpus_identity(o->anchors_file) : json_null(), "anchors_column", o->anchors_column, "prefix",
                                 o->prefix, "by", o->by, "cutoff", o->cutoff, "csv", job->csv);
    status = settings ? sw_infer_open_output(s, settings) : sw_fail("an option is not valid UTF-8");
  }
  sw_pipeline_job pipeline = {.context = job, .open_worker = sw_embed_open_worker, .close_worker = sw_embed_close_worker,
                              .encode = sw_embed_encode_vector, .run = sw_embed_run_vectors, .write = write_chunk};
  const int resumed = s->before.rows > 0;
  if (!status) status = sw_infer_complete(s, &pipeline, head, NULL);
  if (!status && !o->infer.quiet)
    fprintf(stderr, "select: %llu selected%s\n", (unsigned long long)job->selected, resumed ? " since the run was continued" : "");
  sw_finder_close(&job->finder);
  sw_corpus_close(&job->anchors);
  sw_buffer_close(&job->record);
  free(job->mean);
  sw_infer_close(s);
  return status;
}

static int check(select_options *o, const sw_list *inputs) {
  sw_pattern *pattern = NULL;
  if (!o->anchors == !o->anchors_file) return sw_fail("anchors are needed: --anchors EXPRESSION, or --anchors-file FILE");
  if (sw_infer_check(&o->infer, inputs)) return -1;
  if (sw_infer_check_outputs(o->infer.output, o->infer.rejected, NULL, &o->anchors_file, 1)) return -1;
  for (int i = 0; i < inputs->count && o->anchors; i++)
    if (!strcmp(inputs->items[i], "-")) return sw_fail("--anchors reads the postings twice, and standard input can be read once: give a file, or --anchors-file");
  if (o->anchors && sw_pattern_open(o->anchors, &pattern)) return -1;
  sw_pattern_close(pattern);
  if (o->anchors_file && (!strcmp(o->anchors_file, "-") || sw_is_folder(o->anchors_file)))
    return sw_fail("--anchors-file %s: a file is wanted", o->anchors_file);
  if (!(o->cutoff >= -1 && o->cutoff <= 1)) return sw_fail("--cutoff is a cosine: from -1 to 1");
  if (strcmp(o->by, "nearest") && strcmp(o->by, "mean")) return sw_fail("--by %s is not known: use nearest or mean", o->by);
  o->csv |= sw_infer_ends_in(o->infer.output, ".csv");
  if (strcmp(o->infer.output, "-") && !o->csv && !sw_infer_ends_in(o->infer.output, ".jsonl"))
    return sw_fail("-o %s: the name must end in .csv or .jsonl", o->infer.output);
  return 0;
}

int sw_infer_select(int argc, char **argv) {
  select_options o = {.infer = SW_INFER_DEFAULTS, .prefix = "", .by = "nearest", .cutoff = 0.85};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.infer.output, "FILE", "selected.csv, selected.jsonl or - (JSON lines to stdout)"},
      {"anchors", 'a', SW_OPTION_TEXT, &o.anchors, "EXPRESSION", "regular expression, large and small letters alike: postings whose text it matches are anchors"},
      {"anchors-file", 0, SW_OPTION_TEXT, &o.anchors_file, "FILE", "texts that are anchors (.txt: one a line), or their vectors (.h5, .npy)"},
      {"anchors-column", 0, SW_OPTION_TEXT, &o.anchors_column, "NAME", "column or key of their texts (else: that of --column)"},
      {"cutoff", 0, SW_OPTION_DOUBLE, &o.cutoff, "X", "least cosine of a posting that is selected"},
      {"by", 0, SW_OPTION_TEXT, &o.by, "NAME", "similarity to the nearest anchor, or to the anchors' mean"},
      {"prefix", 0, SW_OPTION_TEXT, &o.prefix, "TEXT", "put before every text"},
      {"csv", 0, SW_OPTION_FLAG, &o.csv, NULL, "one posting a row: id, date, score, reason, anchor, anchor_text"},
      SW_INFER_COMMON_OPTIONS(o.infer),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer select -m CHECKPOINT POSTINGS... --anchors EXPRESSION|--anchors-file FILE [options]",
      .summary = "Selects postings that are similar to anchors. POSTINGS: " SW_INFER_INPUTS
                 "Each posting whose cosine reaches the cut-off, and each that the expression matches, becomes one JSON object, in input order:\n"
                 "  {\"id\", \"date\", \"score\", \"reason\", \"anchor\", \"anchor_text\"}\n"
                 "reason: matched (by the expression), nearest (similar to the anchor that is named) or mean. Anchors are kept in memory.\n"
                 "The output appears when all is done; until then the work is kept in OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer select -m base.h5 postings.csv --column title --anchors 'machine learning|artificial intelligence' --cutoff 0.85",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = check(&o, &inputs);
  select_job job = {.csv = o.csv, .cutoff = o.cutoff, .by_pattern = o.anchors != NULL, .by_mean = !strcmp(o.by, "mean")};
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = run_select(&job, &o, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
