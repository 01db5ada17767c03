#include "train/setup.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"
#include "base/philox.h"
#include "base/sha256.h"
#include "engine/store/config_file.h"
#include "train/kept.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STREAM_HEADS = 2 };

/* --- options --- */

/* What an option was set to, on the command line or by --config: its hash goes to the other processes. */
static int note_option(const sw_option *row, sw_said *said) {
  sw_buffer text = {0};
  int status = sw_buffer_print(&text, "%s", row->name);
  if (!status && (row->type == SW_OPTION_INT || row->type == SW_OPTION_FLAG)) status = sw_buffer_print(&text, " %d", *(const int *)row->value);
  if (!status && row->type == SW_OPTION_DOUBLE) status = sw_buffer_print(&text, " %.17g", *(const double *)row->value);
  if (!status && row->type == SW_OPTION_TEXT && *(const char *const *)row->value) status = sw_buffer_print(&text, " %s", *(const char *const *)row->value);
  const sw_list none = {0}, *list = row->type == SW_OPTION_LIST ? row->value : &none;
  for (int i = 0; i < list->count && !status; i++) status = sw_buffer_print(&text, "\n%s", list->items[i]);
  sw_sha256 *hash = status ? NULL : sw_sha256_open();
  if (hash) {
    sw_sha256_add(hash, text.data, text.size);
    sw_sha256_close(hash, said->sha256);
  }
  said->name = row->name;
  sw_buffer_close(&text);
  return hash ? 0 : -1;
}

/* Which options are a process's own affair. */
static int is_own(const sw_option *row, const sw_setup_options *o) { return row->value == &o->device || row->value == &o->threads || row->value == &o->loop.quiet; }

/* All processes must have been given the same. As sw_setup_open. */
static int check_said(const sw_setup_options *o, sw_group *group) {
  if (!group) return 0;
  const size_t ranks = (size_t)sw_group_size(group);
  sw_said *all = sw_alloc_array(ranks, sizeof o->said);
  int status = all && !sw_group_gather(group, o->said, sizeof o->said, all) ? 0 : SW_EXIT_FAILED;
  for (size_t r = 1; r < ranks && !status; r++)
    for (size_t i = 0; i < SW_MOST_OPTIONS && !status; i++)
      if (strcmp(all[i].sha256, all[r * SW_MOST_OPTIONS + i].sha256)) {
        sw_fail("process %zu of %zu was given another --%s than the first one: give all the same options and the same --config", r + 1, ranks,
                o->said[i].name ? o->said[i].name : "option");
        status = SW_EXIT_USAGE;
      }
  free(all);
  return status;
}

int sw_setup_parse(const sw_command *command, sw_setup_options *o, int argc, char **argv) {
  const sw_option first[] = {
      {"base", 'b', SW_OPTION_TEXT, &o->base, "CKPT", "checkpoint to start from (skillwatch pull makes one)"}, {0}};
  const sw_option rest[] = {
      {"output", 'o', SW_OPTION_TEXT, &o->loop.output, "CKPT", "best checkpoint; <name>.last.h5 and <name>.metrics.jsonl lie beside it"},
      {"epochs", 'e', SW_OPTION_INT, &o->loop.epochs, "N", "passes over the data"},
      {"lr", 0, SW_OPTION_DOUBLE, &o->loop.learning_rate, "X", "peak learning rate"},
      {"schedule", 0, SW_OPTION_TEXT, &o->schedule, "NAME", "linear, cosine or constant"},
      {"warmup", 0, SW_OPTION_DOUBLE, &o->loop.warmup, "PART", "part of all steps in which the rate rises from 0"},
      {"batch-tokens", 0, SW_OPTION_INT, &o->loop.batch_tokens, "N", "token budget of a batch"},
      {"batch-size", 0, SW_OPTION_INT, &o->loop.batch_size, "N", "sequences of a batch, instead of the token budget"},
      {"accumulate", 0, SW_OPTION_INT, &o->loop.accumulate, "N", "batches a step"},
      {"max-length", 0, SW_OPTION_INT, &o->max_length, "N",
       o->from_scratch ? "words of a text, of longer ones the first" : "tokens of a sequence, longer texts are split; 0 = 256, or the model's limit where that is less"},
      {"weight-decay", 0, SW_OPTION_DOUBLE, &o->loop.optimizer.weight_decay, "X", "AdamW's; not for biases and LayerNorm"},
      {"pull", 0, SW_OPTION_DOUBLE, &o->loop.optimizer.pull, "X",
       "draws the encoder back to the base's weights, so that less is forgotten (L2-SP; 0.1 to 10); 0 = not at all"},
      {"clip", 0, SW_OPTION_DOUBLE, &o->loop.optimizer.clip, "X", "largest gradient norm; 0 = never clip"},
      {"eval-every", 0, SW_OPTION_INT, &o->loop.eval_every, "N", "steps between evaluations; 0 = every epoch"},
      {"patience", 0, SW_OPTION_INT, &o->loop.patience, "N", "stop after N evaluations without a better score; 0 = never"},
      {"checkpoint-every", 0, SW_OPTION_INT, &o->loop.checkpoint_every, "N",
       "steps between resumable checkpoints; 0 = every epoch or evaluation"},
      {"keep", 0, SW_OPTION_INT, &o->loop.keep, "N",
       "also keep the N newest resumable checkpoints as <name>.step-<n>.h5 (ln -f one to <name>.last.h5 and --resume to go back); 0 = none"},
      {"log-every", 0, SW_OPTION_INT, &o->loop.log_every, "N", "steps between lines of the metrics file"},
      {"tensorboard", 0, SW_OPTION_TEXT, &o->loop.monitor.tensorboard, "FOLDER", "also write the metrics as TensorBoard event files; a folder a run"},
      {"mlflow", 0, SW_OPTION_TEXT, &o->loop.monitor.mlflow, "URL",
       "also send settings, metrics and the result to this MLflow tracking server (MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD)"},
      {"mlflow-experiment", 0, SW_OPTION_TEXT, &o->loop.monitor.experiment, "NAME", "the experiment there"},
      {"mlflow-model", 0, SW_OPTION_TEXT, &o->loop.monitor.model, "NAME", "registered model that gets the best checkpoint as its new version"},
      {"resume", 0, SW_OPTION_FLAG, &o->loop.resume, NULL, "go on where an interrupted run of the same command stood"},
      {"force", 0, SW_OPTION_FLAG, &o->loop.force, NULL, "start anew over an existing output"},
      {"seed", 0, SW_OPTION_INT, &o->loop.seed, "N", "of everything random: shuffling, dropout, new weights"},
      {"device", 0, SW_OPTION_TEXT, &o->device, "NAME", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o->dtype, "TYPE", "fp32 or bf16"},
      {"gradients", 0, SW_OPTION_TEXT, &o->gradients, "KIND",
       "fp32 matrix products of the backward pass: quick (16 bits of each factor where that is quicker: processors with AMX) or exact"},
      {"threads", 0, SW_OPTION_INT, &o->threads, "N", "CPU threads; 0 = one a core"},
      {"quiet", 'q', SW_OPTION_FLAG, &o->loop.quiet, NULL, "print errors only"},
      {0}};
  const sw_option none = {0};
  const sw_option *const parts[] = {o->from_scratch ? &none : first, command->options, rest};
  sw_option all[SW_MOST_OPTIONS] = {{0}};
  size_t count = 0;
  for (int i = 0; i < 3; i++)
    for (const sw_option *row = parts[i]; row->name; row++) {
      int own = row->value == &o->loop.batch_tokens && !o->loop.batch_tokens; /* an option that the task has not, or has said itself */
      for (const sw_option *said = command->options; i == 2 && said->name; said++) own |= !strcmp(said->name, row->name);
      if (own) continue;
      if (count + 1 == sizeof all / sizeof *all) return sw_fail("too many options");
      all[count++] = *row;
    }
  sw_command whole = *command;
  whole.options = all;
  sw_list operands = {0};
  int status = sw_config_parse(&whole, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' was not expected: give data with --data", operands.items[0]);
  sw_list_close(&operands);
  memset(o->said, 0, sizeof o->said);
  for (size_t i = 0; i < count && !status; i++)
    if (!is_own(&all[i], o)) status = note_option(&all[i], &o->said[i]);
  return status;
}

static int check_output(const sw_setup_options *o, const char *output, int (*check)(const void *self, const char *output), const void *self) {
  return (o->base && sw_check_output(output, &o->base, 1)) || check(self, output) ? -1 : 0;
}

int sw_setup_parse_replays(const sw_list *list, const char *ending, char **files, double *parts) {
  double all = 0;
  if (list->count > SW_MAX_REPLAYS) return sw_fail("--replay: at most %d files", SW_MAX_REPLAYS);
  for (int i = 0; i < list->count; i++) {
    const char *text = list->items[i], *colon = strrchr(text, ':');
    char *end = NULL;
    double part = colon && colon[1] ? strtod(colon + 1, &end) : 0;
    if (!end || *end || !(part > 0 && part < 1))
      return sw_fail("--replay %s: FILE:FRACTION was expected, with a fraction of every batch between 0 and 1: old.jsonl:0.2", text);
    all += parts[i] = part;
    sw_buffer path = {0};
    if (sw_buffer_print(&path, "%.*s%s", (int)(colon - text), text, ending)) return -1;
    files[i] = sw_buffer_take(&path);
  }
  return all <= 0.99 ? 0 : sw_fail("--replay: the fractions come to %g; at most 0.99 leaves room for the new data", all);
}

int sw_setup_test(const sw_earlier_tests *t, sw_run *run, int begun, json_t **list) {
  if (!(*list = json_array())) return sw_fail("out of memory");
  for (size_t i = 0; i < t->count; i++) {
    json_t *entry = json_copy(t->files[i]), *metrics = NULL;
    char line[256];
    int status = entry && !json_array_append_new(*list, entry) ? 0 : sw_fail("out of memory");
    if (!status && (begun || t->knows)) status = t->score(t->self, run, i, &metrics, line);
    if (metrics && !status && json_object_update(entry, metrics)) status = sw_fail("out of memory");
    if (!status && metrics && !t->quiet)
      fprintf(stderr, "%s %s: %s\n", begun ? "now" : "before training", json_string_value(json_object_get(entry, "file")), line);
    json_decref(metrics);
    if (status) return -1;
  }
  return 0;
}

int sw_setup_check(sw_setup_options *o, int (*check)(const void *self, const char *output), const void *self) {
  static const char *const endings[] = {".last.h5", ".lock", ".metrics.jsonl", ".rejected.jsonl", ".dev.rejected.jsonl"};
  const sw_loop_options *l = &o->loop;
  if (!o->base && !o->from_scratch) return sw_fail("--base is missing: the checkpoint to start from, made by skillwatch pull");
  if (!l->output) return sw_fail("-o is missing: the checkpoint to write");
  if (!strcmp(l->output, "-")) return sw_fail("-o -: a checkpoint cannot be written to standard output");
  if (l->epochs < 1 || l->epochs > 10000) return sw_fail("--epochs must be from 1 to 10000");
  if (!(l->learning_rate > 0 && l->learning_rate < 1)) return sw_fail("--lr must lie between 0 and 1");
  if (!(l->warmup >= 0 && l->warmup < 1)) return sw_fail("--warmup is a part of all steps: from 0 to below 1");
  if ((l->batch_tokens < 1 && !l->batch_size) || l->batch_tokens > 1 << 20) return sw_fail("--batch-tokens must be from 1 to 1048576");
  if (l->batch_size < 0 || l->batch_size > 1 << 16) return sw_fail("--batch-size must be from 0 to 65536");
  const int processes = sw_launched()->size;
  if (l->batch_size % processes)
    return sw_fail("--batch-size %d cannot be dealt out to %d processes: give a multiple of %d", l->batch_size, processes, processes);
  if (l->accumulate < 1 || l->accumulate > 4096) return sw_fail("--accumulate must be from 1 to 4096");
  if (l->eval_every < 0 || l->patience < 0 || l->checkpoint_every < 0)
    return sw_fail("--eval-every, --patience and --checkpoint-every cannot be negative");
  if (l->keep < 0 || l->keep > 1000000) return sw_fail("--keep must be from 0 to 1000000");
  if (l->log_every < 1) return sw_fail("--log-every must be at least 1");
  if (o->max_length && o->max_length < 3) return sw_fail("--max-length must be at least 3");
  if (!(l->optimizer.weight_decay >= 0) || !(l->optimizer.clip >= 0) || !(l->optimizer.pull >= 0))
    return sw_fail("--weight-decay, --pull and --clip cannot be negative");
  if (!(l->learning_rate * (l->optimizer.weight_decay + l->optimizer.pull) < 1))
    return sw_fail("--lr times --weight-decay and --pull must stay below 1: weights would overshoot");
  if (sw_monitor_check(&l->monitor)) return -1;
  if (sw_device_check(o->device, o->threads)) return -1;
  if (strcmp(o->dtype, "fp32") && strcmp(o->dtype, "bf16")) return sw_fail("--dtype %s: use fp32 or bf16", o->dtype);
  if (strcmp(o->gradients, "quick") && strcmp(o->gradients, "exact")) return sw_fail("--gradients %s: use quick or exact", o->gradients);
  if (sw_schedule_parse(o->schedule, &o->loop.schedule)) return -1;
  if (sw_is_folder(l->output)) return sw_fail("-o %s is a folder, a file name was expected", l->output);
  int status = check_output(o, l->output, check, self);
  for (size_t i = 0; i < sizeof endings / sizeof *endings && !status; i++) {
    char *path = sw_loop_path(l->output, endings[i]);
    status = path ? check_output(o, path, check, self) : -1;
    free(path);
  }
  int64_t *steps;
  size_t count;
  if (sw_kept_list(l->output, &steps, &count)) status = -1;
  for (size_t i = 0; i < count && !status; i++) { /* they would be removed */
    char *path = sw_kept_path(l->output, steps[i]);
    status = path ? check_output(o, path, check, self) : -1;
    free(path);
  }
  free(steps);
  return status;
}

/* --- the base --- */

/* One entry about the base in the family tree. */
static int extend_lineage(sw_checkpoint *c) {
  json_t *lineage = c->lineage ? json_deep_copy(c->lineage) : json_array();
  json_t *entry = sw_checkpoint_entry(c);
  if (!lineage || !entry || json_array_append_new(lineage, entry)) {
    json_decref(lineage);
    return sw_fail("out of memory");
  }
  json_decref(c->lineage);
  c->lineage = lineage;
  memcpy(c->parent_sha256, c->content_sha256, sizeof c->parent_sha256);
  return 0;
}

/* Before the loop there is nothing to save. */
static void stop_early(int signal) {
  static const char line[] = "skillwatch: stopped before training began\n";
  if (!sw_launched()->rank && write(STDERR_FILENO, line, sizeof line - 1)) {}
  _exit(SW_EXIT_AGAIN);
}

static int take_lock(sw_setup *s) {
  char *path = sw_loop_path(s->options->loop.output, ".lock");
  int status = path ? sw_lock_take(path, &s->lock) : -1;
  free(path);
  return status > 0 ? sw_exit_message(SW_EXIT_AGAIN) : status ? SW_EXIT_FAILED : 0;
}

static int open_device(sw_setup *s) {
  const sw_setup_options *o = s->options;
  const char *why;
  if (sw_device_choose(o->device, o->loop.quiet, &s->device) || sw_stream_open(s->device, o->threads, &s->stream) || sw_group_join(s->group, s->device, &why))
    return -1;
  if (why && !o->loop.quiet) fprintf(stderr, "skillwatch: gradients go from process to process by way of the host: %s\n", why);
  return 0;
}

int sw_setup_open(sw_setup_options *o, sw_setup *s) {
  s->options = o;
  sw_checkpoint_init(&s->checkpoint);
  if (sw_group_open(&s->group)) return SW_EXIT_FAILED;
  o->loop.group = s->group;
  const int apart = check_said(o, s->group);
  if (apart) return apart;
  const int rank = sw_group_rank(s->group);
  if (rank) o->loop.quiet = 1; /* one process speaks and writes for all */
  const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
  for (int i = 0; i < 3; i++) sigaction(signals[i], &(struct sigaction){.sa_handler = stop_early}, NULL);
  int status = rank ? 0 : sw_check_writable(o->loop.output) ? SW_EXIT_FAILED : take_lock(s);
  if (!status && !rank && sw_loop_check_output(&o->loop)) status = SW_EXIT_FAILED; /* before a file beside it is replaced */
  if (sw_group_broadcast(s->group, &status, sizeof status)) return SW_EXIT_FAILED;
  if (status) return status;
  if (o->from_scratch)
    return open_device(s) ? SW_EXIT_FAILED : 0;
  if (sw_checkpoint_read(o->base, &s->checkpoint)) return SW_EXIT_FAILED;
  if (sw_model_config_parse(s->checkpoint.config, &s->config)) return sw_fail_in("%s", o->base), SW_EXIT_FAILED;
  const int limit = s->config.max_positions;
  if (!o->max_length) o->max_length = limit < 256 ? limit : 256;
  if (o->max_length > limit) {
    sw_fail("--max-length %d: %s takes at most %d tokens", o->max_length, o->base, limit);
    return SW_EXIT_USAGE;
  }
  return open_device(s) || sw_checkpoint_tokenizer(&s->checkpoint, &s->tokenizer) || extend_lineage(&s->checkpoint)
             ? SW_EXIT_FAILED
             : 0;
}

void sw_setup_close(sw_setup *s) {
  sw_model_close(s->model);
  sw_tokenizer_close(s->tokenizer);
  sw_checkpoint_close(&s->checkpoint);
  sw_device_close(s->device);
  sw_lock_release(&s->lock);
  sw_group_close(s->group);
}

void sw_setup_tell(const sw_setup *s, int status) {
  const sw_launch *launch = sw_launched(); /* the group may not have come about */
  if (launch->rank) {
    signal(SIGTERM, SIG_DFL);
    if (status != SW_EXIT_USAGE) { /* sw_exit_message does it then */
      sleep(2); /* what fails everywhere is the first process's to tell: it ends this one meanwhile */
      sw_fail_in("process %d of %d", launch->rank + 1, launch->size);
    }
  }
  sw_exit_message(status);
  sw_group_abort(s->group, status);
}

char *sw_setup_rejected_path(const sw_setup_options *o, const char *which, int number) {
  char ending[64];
  if (number) snprintf(ending, sizeof ending, "%s.%d.rejected.jsonl", which, number + 1);
  else snprintf(ending, sizeof ending, "%s.rejected.jsonl", which);
  return sw_loop_path(o->loop.output, ending);
}

const char *sw_setup_rejected(const sw_setup *s, const char *path) { return sw_group_rank(s->group) ? NULL : path; }

/* --- heads and model --- */

int sw_setup_add_head(sw_setup *s, const char *name, const char *task, const char *const *labels, size_t count, uint32_t number) {
  sw_checkpoint *c = &s->checkpoint;
  char tensor[256];
  if (sw_checkpoint_add_head(c, name, task, labels, count)) return -1;
  snprintf(tensor, sizeof tensor, "heads.%s.weight", name);
  if (sw_tensors_find(&c->weights, tensor)) return 0;
  int64_t shape[4] = {(int64_t)count, s->config.hidden_size};
  sw_tensor *weight = sw_tensors_add(&c->weights, tensor, SW_F32, 2, shape);
  if (!weight) return -1;
  sw_random random = {.seed = (uint64_t)s->options->loop.seed, .stream = (uint64_t)STREAM_HEADS << 32 | number};
  float *w = weight->data;
  for (int64_t i = 0; i < shape[0] * shape[1]; i++) { /* Box, Muller 1958 */
    double u = ((double)sw_random_u32(&random) + 0.5) * 0x1p-32, v = (double)sw_random_u32(&random) * 0x1p-32;
    w[i] = (float)(0.02 * sqrt(-2 * log(u)) * cos(2 * M_PI * v));
  }
  snprintf(tensor, sizeof tensor, "heads.%s.bias", name);
  sw_tensor *bias = sw_tensors_add(&c->weights, tensor, SW_F32, 1, shape);
  if (!bias) return -1;
  memset(bias->data, 0, count * sizeof(float));
  return 0;
}

void sw_setup_drop_heads(sw_setup *s, int (*keeps)(const void *self, const sw_head *head), const void *self) {
  sw_checkpoint *c = &s->checkpoint;
  char name[256];
  for (size_t i = 0; i < c->num_heads; i++) {
    sw_head *head = &c->heads[i];
    if (!keeps || !keeps(self, head)) {
      if (!s->options->loop.quiet)
        fprintf(stderr, "the base's head '%s' is left out: %s\n", head->name,
                keeps ? "the data does not label it the same way" : "this task does not train it");
      for (int part = 0; part < 2; part++) {
        snprintf(name, sizeof name, "heads.%s.%s", head->name, part ? "bias" : "weight");
        sw_tensor *t = sw_tensors_find(&c->weights, name);
        if (t) sw_tensors_remove(&c->weights, t);
      }
    }
    for (size_t k = 0; k < head->num_labels; k++) free(head->labels[k]);
    free(head->labels);
    free(head->name);
    free(head->task);
  }
  free(c->heads);
  c->heads = NULL;
  c->num_heads = 0;
}

/* The config's "skillwatch" object; NULL for want of memory. */
static json_t *own_config(sw_setup *s) {
  json_t *own = json_object_get(s->checkpoint.config, "skillwatch");
  if (own) return own;
  own = json_object();
  return !own || json_object_set_new(s->checkpoint.config, "skillwatch", own) ? sw_fail("out of memory"), NULL : own;
}

int sw_setup_set_prefix(sw_setup *s, const char *prefix) {
  json_t *own = own_config(s);
  return own && json_object_set_new(own, "prefix", json_string(prefix)) ? sw_fail("--prefix is not valid UTF-8") : own ? 0 : -1;
}

int sw_setup_set_pooled(sw_setup *s) {
  json_t *own = own_config(s);
  if (!own) return -1;
  return json_object_set_new(own, "normalize", json_false()) || json_object_set_new(own, "max_seq_length", json_integer(s->options->max_length))
             ? sw_fail("out of memory")
             : 0;
}

static sw_dtype dtype_of(const sw_setup *s) { return !strcmp(s->options->dtype, "bf16") ? SW_BF16 : SW_F32; }
static sw_model_use use_of(const sw_setup *s) { return !strcmp(s->options->gradients, "exact") ? SW_TRAINING_EXACT : SW_TRAINING; }

static int set_kind(sw_setup *s, const char *kind) {
  free(s->checkpoint.kind);
  return (s->checkpoint.kind = sw_strdup(kind)) ? 0 : -1;
}

int sw_setup_model(sw_setup *s, const char *kind) {
  return set_kind(s, kind) ? -1 : sw_model_open(&s->stream, &s->checkpoint, dtype_of(s), use_of(s), &s->model);
}

int sw_setup_mlm_model(sw_setup *s, const char *kind) {
  int added;
  if (set_kind(s, kind) || sw_mlm_add_head(&s->checkpoint, &added)) return -1;
  if (added && !s->options->loop.quiet) fputs("the base has no masked-language-model head: it begins with a new one\n", stderr);
  return sw_model_open_mlm(&s->stream, &s->checkpoint, dtype_of(s), use_of(s), &s->model);
}

void sw_setup_print_device(const sw_setup *s) {
  if (s->group) fprintf(stderr, "%d processes, each ", sw_group_size(s->group));
  fprintf(stderr, "%s, %d thread%s, %s", s->device->name, s->stream.threads, SW_S(s->stream.threads), s->options->dtype);
}

/* --- the run --- */

int sw_setup_train(sw_setup *s, sw_task *task, json_t *data, json_t *dev, json_t *hyper) {
  const sw_setup_options *o = s->options;
  const sw_loop_options *l = &o->loop;
  json_t *shared = json_pack("{s:i, s:f, s:s, s:f, s:i, s:i, s:i, s:f, s:f, s:f, s:i, s:i, s:i, s:i, s:s, s:s}", "epochs", l->epochs, "learning_rate",
                             l->learning_rate, "schedule", o->schedule, "warmup", l->warmup, "batch_tokens", l->batch_tokens, "batch_size",
                             l->batch_size, "accumulate", l->accumulate, "weight_decay", l->optimizer.weight_decay, "pull", l->optimizer.pull, "clip", l->optimizer.clip,
                             "seed", l->seed, "eval_every", l->eval_every, "patience", l->patience, "max_length", o->max_length, "dtype", o->dtype,
                             "gradients", o->gradients);
  int failed = hyper && json_object_update(shared, hyper);
  json_decref(hyper);
  json_t *facts = json_pack("{s:o, s:o, s:o, s:s, s:s}", "hyper_parameters", shared, "data", data, "dev", dev, "base_sha256",
                            s->checkpoint.parent_sha256, "device", s->device->name);
  int status = SW_EXIT_FAILED;
  if (failed || !facts)
    sw_fail("out of memory");
  else
    status = sw_loop_run(&s->stream, s->model, task, l, &s->checkpoint, facts);
  json_decref(facts);
  return status;
}
