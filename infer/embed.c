/* skillwatch infer embed: texts to vectors. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/rejects.h"
#include "engine/store/config_file.h"
#include "engine/store/vectors.h"
#include "infer/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { JSON_LINES, VECTORS_FILE } output_format;

typedef struct {
  sw_embedder embedder; /* first: the pipeline's */
  sw_infer_session session;
  output_format format;
  sw_buffer record; /* of the chunk that is being written */
} embed_job;

/* A line of JSON; nine digits give every float back exactly. */
static int finish_line(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  const embed_job *job = context;
  if (sw_buffer_append(out, "{\"id\": ", 7) || sw_json_quote(out, item->posting.id, strlen(item->posting.id)) ||
      sw_buffer_append(out, ", \"vector\": [", 13))
    return -1;
  for (int i = 0; i < job->embedder.hidden; i++) {
    char number[32];
    int n = snprintf(number, sizeof number, i ? ", %.9g" : "%.9g", (double)item->pieces[0].result[i]);
    if (sw_buffer_append(out, number, (size_t)n)) return -1;
  }
  return sw_buffer_append(out, "]}\n", 3);
}

/* The record of a vectors file: number of rows (uint64), vectors, then the ids, each ended by NUL. */
static int write_record(void *context, const sw_item *items, size_t count, const sw_buffer *output,
                        const sw_pipeline_counts *counts) {
  embed_job *job = context;
  if (job->format == JSON_LINES) return sw_infer_put(&job->session, counts, output->data, output->size);
  const uint64_t rows = count;
  sw_buffer_clear(&job->record);
  if (sw_buffer_append(&job->record, &rows, sizeof rows)) return -1;
  for (size_t i = 0; i < count; i++)
    if (sw_buffer_append(&job->record, items[i].pieces[0].result, (size_t)job->embedder.hidden * sizeof(float))) return -1;
  for (size_t i = 0; i < count; i++)
    if (sw_buffer_append(&job->record, items[i].posting.id, strlen(items[i].posting.id) + 1)) return -1;
  return sw_infer_put(&job->session, counts, job->record.data, job->record.size);
}

/* --- from the journal to the destination --- */

typedef struct {
  int hidden;
  sw_vectors_writer *writer;
  const char **ids;
  size_t capacity, id_bytes;
} copy_out;

/* Twice over the journal: without a writer it finds the length of the longest id. */
static int copy_vectors(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload,
                        size_t bytes) {
  copy_out *c = context;
  uint64_t rows;
  const size_t row = (size_t)c->hidden * sizeof(float);
  if (bytes < sizeof rows) return sw_fail("the journal is damaged");
  memcpy(&rows, payload, sizeof rows);
  if (rows > (bytes - sizeof rows) / (row + 1)) return sw_fail("the journal is damaged");
  if (rows > c->capacity) {
    const char **ids = sw_realloc_array(c->ids, rows, sizeof *ids);
    if (!ids) return -1;
    c->ids = ids;
    c->capacity = rows;
  }
  const char *vectors = (const char *)payload + sizeof rows, *at = vectors + rows * row,
             *end = (const char *)payload + bytes;
  for (uint64_t i = 0; i < rows; i++) {
    const char *nul = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
    if (!nul) return sw_fail("the journal is damaged");
    c->ids[i] = at;
    if ((size_t)(nul - at) > c->id_bytes) c->id_bytes = (size_t)(nul - at);
    at = nul + 1;
  }
  if (!c->writer) return 0;
  return sw_vectors_append(c->writer, (const float *)(const void *)vectors, c->ids, rows);
}

static int publish_vectors(void *context) {
  embed_job *job = context;
  static const char *const poolings[] = {[SW_POOL_MEAN] = "mean", [SW_POOL_CLS] = "cls", [SW_POOL_MAX] = "max"};
  sw_infer_session *s = &job->session;
  const sw_vectors_origin origin = {.model_sha256 = s->checkpoint.content_sha256,
                                    .model = s->options->model,
                                    .pooling = poolings[s->model->config.pooling],
                                    .prefix = job->embedder.prefix,
                                    .normalize = s->model->config.normalize};
  copy_out copy = {.hidden = job->embedder.hidden};
  if (sw_infer_replay(s, copy_vectors, &copy) ||
      sw_vectors_create(s->output, job->embedder.hidden, copy.id_bytes, &origin, &copy.writer)) {
    free(copy.ids);
    return -1;
  }
  int status = sw_infer_replay(s, copy_vectors, &copy);
  free(copy.ids);
  if (status == 0) return sw_vectors_commit(copy.writer);
  sw_vectors_abandon(copy.writer);
  return -1;
}

static int embed(const sw_infer_options *options, const char *prefix, const sw_list *inputs) {
  embed_job job = {0};
  const int is_lines = !strcmp(options->output, "-") || sw_infer_ends_in(options->output, ".jsonl");
  job.format = is_lines ? JSON_LINES : VECTORS_FILE;
  int status = sw_infer_open(&job.session, "embed", options, inputs);
  if (!status && sw_embedder_open(&job.embedder, &job.session.runs, job.session.tokenizer, prefix, -1))
    status = sw_fail_in("%s", options->model);
  if (!status) {
    json_t *settings = json_pack("{s:s,s:b}", "prefix", prefix, "lines", is_lines);
    status = settings ? sw_infer_open_output(&job.session, settings) : sw_fail("--prefix is not valid UTF-8");
  }
  sw_pipeline_job pipeline = {.context = &job,
                              .open_worker = sw_embed_open_worker,
                              .close_worker = sw_embed_close_worker,
                              .encode = sw_embed_encode_vector,
                              .run = sw_embed_run_vectors,
                              .finish = is_lines ? finish_line : NULL,
                              .write = write_record};
  if (!status) status = sw_infer_complete(&job.session, &pipeline, "", is_lines ? NULL : publish_vectors);
  sw_buffer_close(&job.record);
  sw_infer_close(&job.session);
  return status;
}

int sw_infer_embed(int argc, char **argv) {
  sw_infer_options o = SW_INFER_DEFAULTS;
  const char *prefix = "";
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE",
       "vectors.h5, vectors.npy, vectors.jsonl or - (JSON lines to stdout)"},
      {"prefix", 0, SW_OPTION_TEXT, &prefix, "TEXT", "put before every text"},
      SW_INFER_COMMON_OPTIONS(o),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer embed -m CHECKPOINT INPUTS... [options]",
      .summary = "Turns texts into vectors. INPUTS: " SW_INFER_INPUTS
                 "A text longer than the model's max_seq_length is truncated, and counted.\n"
                 "The output appears when all is done; until then the work is kept in\n"
                 "OUTPUT.partial, and an interrupted run goes on from there.",
      .example = "skillwatch infer embed -m base.h5 titles.csv --column title --prefix 'Job title: ' -o vectors.h5",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = sw_infer_check(&o, &inputs);
  if (!status && strcmp(o.output, "-") && !sw_infer_ends_in(o.output, ".h5") && !sw_infer_ends_in(o.output, ".hdf5") &&
      !sw_infer_ends_in(o.output, ".npy") && !sw_infer_ends_in(o.output, ".jsonl"))
    status = sw_fail("-o %s: the name must end in .h5, .npy or .jsonl", o.output);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = embed(&o, prefix, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
