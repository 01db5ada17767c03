#include "infer/session.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Chunks that are dealt out to several processes: small enough that all get about the same. */
enum { SHARD_TEXTS = 1024, SHARD_BYTES = 1 << 20 };

int sw_infer_ends_in(const char *name, const char *suffix) {
  const size_t n = strlen(name), k = strlen(suffix);
  return n > k && !strcmp(name + n - k, suffix);
}

static int parse_dtype(const char *name, sw_dtype *out) {
  *out = SW_F32;
  if (!name || !strcmp(name, "fp32")) return 0;
  *out = SW_BF16;
  return strcmp(name, "bf16") ? sw_fail("--dtype %s is not known: use fp32 or bf16", name) : 0;
}

int sw_infer_check_outputs(const char *output, const char *rejected, const char *more, const char *const *inputs, int count) {
  sw_buffer own = {0};
  int status = !rejected && strcmp(output, "-") ? sw_buffer_print(&own, "%s.rejected.jsonl", output) : 0;
  const char *const outputs[] = {output, rejected ? rejected : own.data, more};
  if (!status) status = sw_check_outputs(outputs, 3, inputs, count);
  sw_buffer_close(&own);
  return status;
}

int sw_infer_check(const sw_infer_options *o, const sw_list *inputs) {
  sw_postings_format format;
  sw_dtype dtype;
  if (!o->model && !o->model_optional) return sw_fail("a checkpoint is needed: -m FILE (see --help)");
  if (inputs->count == 0) return sw_fail("inputs are needed: files, folders or - for standard input (see --help)");
  if (sw_infer_check_outputs(o->output, o->rejected, NULL, inputs->items, inputs->count) ||
      sw_infer_check_outputs(o->output, o->rejected, NULL, &o->model, 1))
    return -1;
  int shard, shards;
  if (sw_shards_parse(o->shard, &shard, &shards)) return -1;
  if (shards > 1 && !strcmp(o->output, "-")) return sw_fail("several processes need -o FILE: there their parts are joined");
  for (int i = 0; shards > 1 && i < inputs->count; i++) {
    struct stat info;
    if (!strcmp(inputs->items[i], "-") || (!stat(inputs->items[i], &info) && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)))
      return sw_fail("%s: several processes cannot read one pipe; give files or folders", inputs->items[i]);
  }
  if (o->batch_tokens < 1 || o->batch_tokens > 1 << 20)
    return sw_fail("--batch-tokens wants a number from 1 to %d", 1 << 20);
  return sw_device_check(o->device, o->threads) || sw_postings_format_parse(o->format, &format) || parse_dtype(o->dtype, &dtype) ? -1 : 0;
}

typedef enum { READS_TOKENS, READS_STEMS, NO_MODEL } source;

/* Where unusable rows go; *out NULL: nowhere. free() it. */
static int name_rejects(const sw_infer_session *s, char **out) {
  sw_buffer path = {0};
  *out = NULL;
  if (s->to_stdout && !s->options->rejected) return 0;
  const int failed = s->options->rejected ? sw_buffer_print(&path, "%s", s->options->rejected) : sw_buffer_print(&path, "%s.rejected.jsonl", s->output);
  if (!failed) *out = sw_buffer_take(&path);
  sw_buffer_close(&path);
  return failed;
}

/* All shards read all rows: one of them writes those set aside. */
static int open_rejects(sw_infer_session *s) {
  char *path;
  if (name_rejects(s, &path)) return -1;
  const int status = sw_rejects_open(&s->rejects, s->shards.index ? NULL : path);
  free(path);
  return status;
}

static int open_session(sw_infer_session *s, const char *verb, const sw_infer_options *o, const sw_list *inputs, source how) {
  *s =
      (sw_infer_session){.options = o, .verb = verb, .inputs = *inputs, .journal = {.file = -1}, .started = sw_clock()};
  sw_checkpoint_init(&s->checkpoint);
  s->to_stdout = !strcmp(o->output, "-");
  if (sw_shards_parse(o->shard, &s->shards.index, &s->shards.count) || !(s->output = sw_strdup(o->output))) return -1;
  for (size_t n = strlen(s->output); n > 1 && s->output[n - 1] == '/'; n--) s->output[n - 1] = 0;
  if (open_rejects(s)) return -1;
  sw_stream stream;
  if (parse_dtype(o->dtype, &s->dtype) || sw_device_choose(o->device, o->quiet, &s->device) ||
      sw_stream_open(s->device, o->threads, &stream))
    return -1;
  s->threads = stream.threads;
  if (!o->model) return 0;
  if (sw_checkpoint_read(o->model, &s->checkpoint)) return -1;
  if (s->checkpoint.vocab_size == 0)
    return sw_fail("%s has no tokenizer, so it cannot read text; make it anew with: skillwatch pull", o->model);
  if (how == NO_MODEL) return 0;
  if (((how == READS_TOKENS || !sw_checkpoint_has_stems(&s->checkpoint)) && sw_checkpoint_tokenizer(&s->checkpoint, &s->tokenizer)) ||
      sw_model_open(&stream, &s->checkpoint, s->dtype, SW_INFERENCE, &s->model))
    return sw_fail_in("%s", o->model);
  sw_tensors_close(&s->checkpoint.weights); /* the model has its own copy */
  sw_tensors_close(&s->checkpoint.optimizer);
  s->longest = s->model->config.max_seq_length;
  return sw_runs_open(&s->runs, &stream, s->model, o->batch_tokens);
}

int sw_infer_open(sw_infer_session *s, const char *verb, const sw_infer_options *o, const sw_list *inputs) {
  return open_session(s, verb, o, inputs, READS_TOKENS);
}
int sw_infer_open_stems(sw_infer_session *s, const char *verb, const sw_infer_options *o, const sw_list *inputs) {
  return open_session(s, verb, o, inputs, READS_STEMS);
}
int sw_infer_open_checkpoint(sw_infer_session *s, const char *verb, const sw_infer_options *o, const sw_list *inputs) {
  return open_session(s, verb, o, inputs, NO_MODEL);
}

/* What tells one state of a folder's files from another. */
static struct { uint64_t files, bytes, newest; } folder;

static int add_file(const char *path, const struct stat *info, int type, struct FTW *place) {
  if (type != FTW_F) return 0;
  const uint64_t time = (uint64_t)info->st_mtim.tv_sec * 1000000000u + (uint64_t)info->st_mtim.tv_nsec;
  folder.files++;
  folder.bytes += (uint64_t)info->st_size;
  if (time > folder.newest) folder.newest = time;
  return 0;
}

/* The text that two runs share when one may go on with the other's results. */
static char *identity_of(const sw_infer_session *s, json_t *settings) {
  json_t *inputs = json_array();
  for (int i = 0; inputs && i < s->inputs.count; i++) {
    memset(&folder, 0, sizeof folder);
    nftw(s->inputs.items[i], add_file, 16, FTW_PHYS); /* what cannot be read is reported by the reader */
    struct stat info;
    if (!stat(s->inputs.items[i], &info) && S_ISREG(info.st_mode)) { /* through a link, too */
      folder.bytes = (uint64_t)info.st_size;
      folder.newest = (uint64_t)info.st_mtim.tv_sec * 1000000000u + (uint64_t)info.st_mtim.tv_nsec;
    }
    json_array_append_new(inputs, json_pack("{s:s%,s:I,s:I,s:I}", "path", s->inputs.items[i],
                                            strlen(s->inputs.items[i]), "files", (json_int_t)folder.files, "bytes",
                                            (json_int_t)folder.bytes, "time", (json_int_t)folder.newest));
  }
  const sw_infer_options *o = s->options;
  json_t *all =
      json_pack("{s:s,s:s,s:s,s:s,s:s,s:s?,s:s?,s:o,s:o}", "verb", s->verb, "version", SW_VERSION, "model_sha256",
                s->checkpoint.content_sha256, "dtype", sw_dtype_name(s->dtype), "format", o->format, "column",
                o->column, "id_column", o->id_column, "settings", settings, "inputs", inputs);
  char *text = all ? sw_json_canonical(all) : NULL;
  if (!all) sw_fail("an option or a file name is not valid UTF-8");
  json_decref(all);
  return text;
}

int sw_infer_open_output(sw_infer_session *s, json_t *settings) {
  if (s->to_stdout) {
    json_decref(settings);
    return 0;
  }
  char *identity = identity_of(s, settings);
  if (!identity) return -1;
  int resume = s->options->resume;
  for (int i = 0; i < s->inputs.count; i++) {
    struct stat info; /* what comes through a pipe cannot be read again */
    if (!strcmp(s->inputs.items[i], "-") ||
        (!stat(s->inputs.items[i], &info) && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)))
      resume = 0;
  }
  const char *why;
  const int sharded = s->shards.count > 1;
  s->shards.output = s->output;
  s->shards.identity = identity;
  if (sharded) {
    const int joined = sw_shards_clear(&s->shards);
    if (joined < 0) return -1;
    if (joined && !s->options->quiet) fprintf(stderr, "skillwatch: %s is joined already; what was left of its parts is removed\n", s->output);
    if ((s->joined = joined && resume)) return 0;
  }
  char *out = sharded ? sw_shards_path(&s->shards, s->shards.index) : sw_strdup(s->output);
  int status = out ? 0 : -1;
  if (!status && sharded && resume) { /* what is finished is not done again */
    status = sw_journal_open_finished(out, identity, &s->journal);
    s->part_done = status > 0;
    why = NULL;
  }
  if (!status) status = sw_journal_open(out, identity, resume, &s->journal, &why);
  free(out);
  if (status < 0) return -1;
  s->before =
      (sw_pipeline_counts){s->journal.totals[0], s->journal.totals[1], s->journal.totals[2], s->journal.totals[3]};
  if (why && !s->options->quiet)
    fprintf(stderr, "skillwatch: %s is not continued, %s; beginning anew\n", s->journal.path, why);
  else if (s->before.rows && !s->options->quiet && !s->part_done)
    fprintf(stderr, "skillwatch: going on after %llu text%s of an interrupted run\n", (unsigned long long)s->before.rows,
            SW_S(s->before.rows));
  return 0;
}

int sw_infer_put(sw_infer_session *s, const sw_pipeline_counts *c, const void *payload, size_t bytes) {
  if (!s->to_stdout) {
    const uint64_t counters[SW_JOURNAL_COUNTERS] = {c->rows, c->truncated, c->tokens, c->computed_tokens};
    return sw_journal_append(&s->journal, counters, payload, bytes);
  }
  errno = 0;
  if ((bytes && fwrite(payload, bytes, 1, stdout) != 1) || fflush(stdout))
    return sw_fail("cannot write to standard output: %s", errno ? strerror(errno) : "write error");
  return 0;
}

/* Rows that go nowhere are told of here: the first few reasons, or the failure where no row at all could be used. */
static int tell_rejected(const sw_infer_session *s, const sw_postings *postings, const char *aside, uint64_t used) {
  const unsigned long long rejected = sw_postings_rejected(postings);
  const char *reason;
  if (!rejected) return 0;
  if (used) {
    for (size_t i = 0; !aside && !s->options->quiet && (reason = sw_postings_reason(postings, i)); i++)
      fprintf(stderr, "skillwatch: %s\n", reason);
    return 0;
  }
  sw_buffer text = {0};
  for (size_t i = 0; i < (aside ? 1 : SW_REASONS) && (reason = sw_postings_reason(postings, i)); i++)
    sw_buffer_print(&text, "%s%s", i ? "; " : "", reason);
  sw_fail("%llu row%s, and none can be used: %s%s%s", rejected, SW_S(rejected), text.size ? text.data : "?",
          aside ? "; all are in " : "", aside ? aside : "");
  sw_buffer_close(&text);
  return -1;
}

/* Rows set aside are worth having after a failure, too. That may fail as well, which matters less than the failure that has its message already. */
static int close_after(sw_infer_session *s, sw_postings *postings, int status) {
  char *message = status ? sw_strdup(sw_error()) : NULL;
  if (sw_postings_close(postings)) status = -1;
  if (sw_rejects_commit(&s->rejects)) status = -1;
  if (message) sw_fail("%s", message);
  free(message);
  return status;
}

static int run_part(sw_infer_session *s, sw_pipeline_job *job, sw_pipeline_counts *counts, uint64_t *rejected) {
  const sw_infer_options *o = s->options;
  char *aside = NULL;
  sw_postings_options reading = {.column = o->column, .id_column = o->id_column, .rejects = &s->rejects};
  sw_postings *postings = NULL;
  if (sw_postings_format_parse(o->format, &reading.format) || name_rejects(s, &aside)) return -1;
  if (sw_postings_open(s->inputs.items, (size_t)s->inputs.count, &reading, &postings)) {
    free(aside);
    return -1;
  }
  sw_pipeline_options options = {.threads = s->threads,
                                 .batch_tokens = s->runs.batch_tokens,
                                 .max_batch = s->runs.max_batch,
                                 .dedup = o->dedup,
                                 .skip = s->before.rows,
                                 .progress = o->quiet ? NULL : s->verb};
  if (s->shards.count > 1) {
    options.shard = s->shards.index;
    options.shards = s->shards.count;
    options.chunk_texts = SHARD_TEXTS;
    options.chunk_bytes = SHARD_BYTES;
  }
  int status = sw_pipeline_run(postings, job, &options, counts);
  *rejected = s->rejects.count;
  counts->rows += s->before.rows;
  counts->truncated += s->before.truncated;
  counts->tokens += s->before.tokens;
  counts->computed_tokens += s->before.computed_tokens;
  if (!status) status = tell_rejected(s, postings, aside, sw_postings_rows(postings) - sw_postings_rejected(postings));
  free(aside);
  return close_after(s, postings, status);
}

int sw_infer_run(sw_infer_session *s, sw_pipeline_job *job, sw_pipeline_counts *counts, uint64_t *rejected) {
  sw_shards *shards = &s->shards;
  if (s->joined) return 0;
  if (s->part_done)
    *counts = s->before;
  else if (run_part(s, job, counts, rejected))
    return -1;
  s->publishes = !s->to_stdout;
  if (shards->count < 2) return 0;
  char *path = sw_shards_path(shards, shards->index);
  int status = path ? 0 : -1;
  if (!status && !s->part_done) status = sw_journal_finish(&s->journal, path);
  free(path);
  if (!status) status = sw_shards_gather(shards, s->options->quiet);
  s->publishes = status > 0;
  return status < 0 ? -1 : 0;
}

int sw_infer_replay(sw_infer_session *s, sw_journal_each *each, void *context) {
  return s->shards.count > 1 ? sw_journal_replay_in_turn(s->shards.parts, s->shards.count, each, context)
                             : sw_journal_replay(&s->journal, each, context);
}

static int copy_record(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  sw_output *output = context;
  return bytes && fwrite(payload, bytes, 1, output->file) != 1 ? sw_fail("cannot write %s: the disk is full or fails", output->path) : 0;
}

int sw_infer_publish(sw_infer_session *s, const char *head) {
  sw_output output;
  if (sw_output_open(&output, s->output)) return -1;
  if (fputs(head, output.file) < 0) sw_fail("cannot write %s: %s", s->output, strerror(errno));
  else if (!sw_infer_replay(s, copy_record, &output)) return sw_output_commit(&output);
  sw_output_abandon(&output);
  return -1;
}

void sw_infer_report(sw_infer_session *s, const sw_pipeline_counts *c, uint64_t rejected) {
  if (!s->to_stdout && s->shards.count < 2) sw_journal_close(&s->journal, 1);
  const int joined = s->shards.count > 1 && s->publishes, parts = s->shards.count;
  if (joined) sw_shards_close(&s->shards, 1);
  const double seconds = sw_clock() - s->started, rate = (double)(c->rows - s->before.rows) / seconds;
  if (!s->options->quiet) {
    fprintf(stderr, "%s: %llu text%s, %llu token%s in %.1f s (%.0f texts/s)", s->verb, (unsigned long long)c->rows,
            SW_S(c->rows), (unsigned long long)c->tokens, SW_S(c->tokens), seconds, rate);
    if (rejected)
      fprintf(stderr, ", %llu unusable row%s %s", (unsigned long long)rejected, SW_S(rejected),
              s->to_stdout && !s->options->rejected ? "left out" : "set aside");
    fprintf(stderr, "\n");
    const char *was = c->truncated == 1 ? "was" : "were";
    if (c->truncated)
      fprintf(stderr, "%s: %llu of %llu text%s %s longer than %d tokens and %s truncated\n", s->verb,
              (unsigned long long)c->truncated, (unsigned long long)c->rows, SW_S(c->rows), was,
              s->longest, was);
  }
  if (joined && !s->options->quiet) fprintf(stderr, "%s: %d parts joined\n", s->output, parts);
  if (s->options->json)
    fprintf(s->to_stdout ? stderr : stdout,
            "{\"rows\": %llu, \"truncated\": %llu, \"rejected\": %llu, \"resumed\": %llu, \"tokens\": %llu, "
            "\"computed_tokens\": %llu, "
            "\"seconds\": %.3f, \"texts_per_second\": %.1f}\n",
            (unsigned long long)c->rows, (unsigned long long)c->truncated, (unsigned long long)rejected,
            (unsigned long long)s->before.rows, (unsigned long long)c->tokens, (unsigned long long)c->computed_tokens,
            seconds, rate);
}

int sw_infer_complete(sw_infer_session *s, sw_pipeline_job *job, const char *head, int (*publish)(void *context)) {
  sw_pipeline_counts counts = {0};
  uint64_t rejected = 0;
  if (s->to_stdout && fputs(head, stdout) < 0) return sw_fail("cannot write to standard output");
  if (sw_infer_run(s, job, &counts, &rejected)) return -1;
  if (s->publishes && (publish ? publish(job->context) : sw_infer_publish(s, head))) return -1;
  sw_infer_report(s, &counts, rejected);
  return 0;
}

void sw_infer_close(sw_infer_session *s) {
  sw_journal_close(&s->journal, 0);
  sw_shards_close(&s->shards, 0);
  sw_runs_close(&s->runs);
  sw_model_close(s->model);
  sw_tokenizer_close(s->tokenizer);
  sw_device_close(s->device);
  sw_checkpoint_close(&s->checkpoint);
  sw_rejects_close(&s->rejects);
  free(s->output);
}
