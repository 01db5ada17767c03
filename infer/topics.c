/* skillwatch infer topics: what texts are about. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/csv.h"
#include "engine/data/rejects.h"
#include "engine/model/lda.h"
#include "engine/store/config_file.h"
#include "infer/session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 256 };

typedef struct {
  sw_infer_session session;
  sw_lda lda;
  pthread_mutex_t turn; /* on a GPU: whose batch runs */
  int csv;
  double minimum;
} topics_job;

typedef struct {
  sw_stream stream; /* of one thread: workers share the work by batches */
  sw_lda_room room;
  sw_stems *stems;
  int32_t *ids;  /* [SW_DOCUMENT_WORDS] */
  sw_bags bags;  /* of a batch */
  float *gamma;  /* [BATCH, topics] */
} topics_worker;

static void close_worker(void *context, void *worker) {
  topics_worker *w = worker;
  sw_lda_room_close(&w->room);
  sw_stems_close(w->stems);
  sw_bags_close(&w->bags);
  free(w->ids);
  free(w->gamma);
  free(w);
}

static int open_worker(void *context, void **worker) {
  topics_job *job = context;
  const size_t tokens = (size_t)job->session.runs.batch_tokens;
  topics_worker *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *worker = w; /* closed by the pipeline, also when what follows fails */
  const int64_t words = job->lda.shape.words, longest = words < SW_DOCUMENT_WORDS ? words : SW_DOCUMENT_WORDS;
  w->ids = sw_alloc_array(SW_DOCUMENT_WORDS, sizeof *w->ids);
  w->gamma = sw_alloc_array(BATCH, (unsigned long)job->lda.shape.topics * sizeof *w->gamma);
  w->bags.starts = sw_alloc_array(BATCH + 1, sizeof *w->bags.starts);
  w->bags.words = sw_alloc_array(tokens, sizeof *w->bags.words);
  w->bags.counts = sw_alloc_array(tokens, sizeof *w->bags.counts);
  return w->ids && w->gamma && w->bags.starts && w->bags.words && w->bags.counts && !sw_checkpoint_stems(&job->session.checkpoint, &w->stems) &&
                 !sw_stream_open(job->session.device, 1, &w->stream) &&
                 !sw_lda_room_open(&job->lda, &w->stream, BATCH, (int64_t)tokens, longest, 0, &w->room)
             ? 0
             : -1;
}

/* A text's words of the dictionary, sorted: texts of the same words are the same. */
static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  topics_job *job = context;
  topics_worker *w = worker;
  const int32_t *ids;
  size_t count;
  if (sw_stems_encode(w->stems, item->posting.text, item->posting.bytes, SW_DOCUMENT_WORDS, &ids, &count, &item->truncated))
    return sw_fail_in("row %llu (id %s)", (unsigned long long)item->posting.index + 1, item->posting.id);
  memcpy(w->ids, ids, count * sizeof *ids);
  const size_t known = sw_bag_sort(w->ids, count);
  return known ? sw_pieces_add(pieces, w->ids, (int32_t)known, NULL, 0, (uint32_t)job->lda.shape.topics) : 0;
}

static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  topics_job *job = context;
  topics_worker *w = worker;
  const size_t topics = (size_t)job->lda.shape.topics;
  const int shared = strcmp(job->session.device->backend, "cpu") != 0;
  w->bags.documents = batch->batch;
  w->bags.longest = 0;
  for (int i = 0; i < batch->batch; i++) {
    const int64_t start = w->bags.starts[i];
    const int64_t distinct = (int64_t)sw_bag_of(pieces[i]->ids, (size_t)pieces[i]->length, w->bags.words + start, w->bags.counts + start);
    w->bags.starts[i + 1] = start + distinct;
    if (distinct > w->bags.longest) w->bags.longest = distinct;
  }
  if (shared) pthread_mutex_lock(&job->turn);
  const int failed = sw_lda_infer(&w->room, &w->bags, 0, batch->batch, w->gamma);
  if (shared) pthread_mutex_unlock(&job->turn);
  if (failed) return -1;
  for (int i = 0; i < batch->batch; i++) {
    const float *gamma = w->gamma + (size_t)i * topics;
    double sum = 0;
    if (sw_item_check_finite(gamma, topics, &items[pieces[i]->item])) return -1;
    for (size_t k = 0; k < topics; k++) sum += (double)gamma[k];
    for (size_t k = 0; k < topics; k++) pieces[i]->result[k] = (float)((double)gamma[k] / sum);
  }
  return 0;
}

static int quote(sw_buffer *out, const char *text) { return sw_json_quote(out, text, strlen(text)); }

static int finish(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  const topics_job *job = context;
  const sw_posting *posting = &item->posting;
  const float *parts = item->num_pieces ? item->pieces[0].result : NULL; /* NULL: no word that the model knows */
  int any = 0;
  if (!job->csv && (sw_buffer_print(out, "{\"id\": ") || quote(out, posting->id) || sw_buffer_print(out, ", \"date\": ") || quote(out, posting->date) ||
                    sw_buffer_print(out, ", \"words\": %d, \"topics\": [", parts ? item->pieces[0].length : 0)))
    return -1;
  for (int k = 0; parts && k < job->lda.shape.topics; k++) {
    if (!((double)parts[k] >= job->minimum)) continue;
    /* nine digits give every float back exactly */
    const int failed = job->csv ? sw_csv_quote(out, posting->id, strlen(posting->id)) || sw_buffer_print(out, ",") ||
                                      sw_csv_quote(out, posting->date, strlen(posting->date)) ||
                                      sw_buffer_print(out, ",%d,%.9g\r\n", k + 1, (double)parts[k])
                                : sw_buffer_print(out, "%s{\"topic\": %d, \"probability\": %.9g}", any ? ", " : "", k + 1, (double)parts[k]);
    if (failed) return -1;
    any = 1;
  }
  return job->csv ? 0 : sw_buffer_print(out, "]}\n");
}

static int write_record(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  return sw_infer_put(&((topics_job *)context)->session, counts, output->data, output->size);
}

static int open_model(topics_job *job) {
  sw_infer_session *s = &job->session;
  sw_lda_shape shape;
  const float *lambda;
  sw_stream stream;
  if (sw_lda_of_checkpoint(&s->checkpoint, s->options->model, &shape, &lambda) || sw_stream_open(s->device, s->options->threads, &stream) ||
      sw_lda_open(&stream, &shape, lambda, 0, &job->lda))
    return -1;
  sw_tensors_close(&s->checkpoint.weights); /* the model has its own copy */
  s->longest = SW_DOCUMENT_WORDS;
  s->runs.batch_tokens = s->options->batch_tokens > SW_DOCUMENT_WORDS ? s->options->batch_tokens : SW_DOCUMENT_WORDS;
  s->runs.max_batch = BATCH;
  return 0;
}

static int find_topics(topics_job *job, const sw_infer_options *options, const sw_list *inputs) {
  static const char head[] = "id,date,topic,probability\r\n";
  int status = sw_infer_open_checkpoint(&job->session, "topics", options, inputs);
  pthread_mutex_init(&job->turn, NULL);
  if (!status) status = open_model(job);
  if (!status) {
    json_t *settings = json_pack("{s:b,s:f}", "csv", job->csv, "minimum", job->minimum);
    status = settings ? sw_infer_open_output(&job->session, settings) : sw_fail("out of memory");
  }
  sw_pipeline_job pipeline = {.context = job,
                              .open_worker = open_worker,
                              .close_worker = close_worker,
                              .encode = encode,
                              .run = run,
                              .finish = finish,
                              .write = write_record};
  if (!status) status = sw_infer_complete(&job->session, &pipeline, job->csv ? head : "", NULL);
  sw_lda_close(&job->lda);
  pthread_mutex_destroy(&job->turn);
  memset(&job->session.runs, 0, sizeof job->session.runs); /* there is no model whose runs they are */
  sw_infer_close(&job->session);
  return status;
}

int sw_infer_topics(int argc, char **argv) {
  sw_infer_options o = SW_INFER_DEFAULTS;
  topics_job job = {.minimum = 0.01};
  int csv = 0;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "topics.jsonl, topics.csv or - for stdout"},
      {"csv", 0, SW_OPTION_FLAG, &csv, NULL, "one topic of a text a row: id, date, topic, probability"},
      {"minimum", 0, SW_OPTION_DOUBLE, &job.minimum, "X", "least probability of a topic"},
      SW_INFER_COMMON_OPTIONS(o),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer topics -m CHECKPOINT POSTINGS... [options]",
      .summary = "Finds what texts are about. POSTINGS: " SW_INFER_INPUTS
                 "One JSON object a posting, in input order:\n"
                 "  {\"id\", \"date\", \"words\", \"topics\": [{\"topic\", \"probability\"}]}\n"
                 "words: those that the model knows; without any there are no topics. skillwatch show\n"
                 "tells the topics' words. The output appears when all is done; until then the work is\n"
                 "kept in OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer topics -m topics.h5 postings.csv -o topics.jsonl",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = sw_infer_check(&o, &inputs);
  if (!status && !(job.minimum >= 0 && job.minimum <= 1)) status = sw_fail("--minimum must be from 0 to 1");
  if (!status && o.dtype && strcmp(o.dtype, "fp32")) status = sw_fail("--dtype %s: topics are computed in fp32", o.dtype);
  job.csv = csv || sw_infer_ends_in(o.output, ".csv");
  if (!status && strcmp(o.output, "-") && !job.csv && !sw_infer_ends_in(o.output, ".jsonl"))
    status = sw_fail("-o %s: the name must end in .jsonl or .csv", o.output);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = find_topics(&job, &o, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
