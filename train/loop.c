#include "train/loop.h"
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/philox.h"
#include "base/progress.h"
#include "train/kept.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STREAM_DROPOUT = 3 };

/* Where training stands: all that a resumed run needs besides weights and moments. */
typedef struct {
  int64_t step;          /* updates done */
  int epoch;             /* 0-based, of the next batch */
  int64_t batch;         /* next batch within the epoch */
  int64_t micro_step;    /* forwards done: the dropout's counter */
  double best_score;
  int64_t best_step;
  int evaluations_since_best;
  int have_best;
} position;

typedef struct {
  sw_stream *stream;
  sw_model *model;
  sw_task *task;
  const sw_loop_options *options;
  sw_checkpoint *checkpoint;
  json_t *facts;
  sw_run *run;
  sw_optimizer *optimizer;
  sw_schedule schedule;
  position at;
  int batch_tokens;  /* the budget: the options', or half of it where the device has no room for more */
  char *last_path, *metrics_path;
  FILE *metrics;
  sw_monitor *monitor;
  char run_id[SW_MONITOR_ID]; /* MLflow's, as the newest checkpoint has it */
  int64_t saved_at;           /* step of the newest checkpoint */
  sw_order order;    /* of the present epoch's items */
  size_t *starts;    /* of its batches, and the end */
  size_t num_batches;
  int64_t tokens_done;
  double seconds;    /* spent in steps: without evaluation and checkpoints */
  json_t *best_metrics;
  json_t *tests_before, *tests_after; /* scores on earlier test sets; NULL without such */
  double *sums;      /* [num_heads + 1] losses of a step, and whether there were any */
  sw_group *group;   /* NULL: one process */
  int rank, ranks;
} loop;

static volatile sig_atomic_t stop_signal;
static void on_signal(int signal) { stop_signal = signal; }

char *sw_loop_path(const char *output, const char *ending) {
  size_t n = strlen(output);
  if (n > 3 && !strcmp(output + n - 3, ".h5")) n -= 3;
  sw_buffer name = {0};
  if (sw_buffer_print(&name, "%.*s%s", (int)n, output, ending)) {
    sw_buffer_close(&name);
    return NULL;
  }
  return sw_buffer_take(&name);
}

int sw_loop_check_output(const sw_loop_options *o) {
  if (o->force) return 0;
  int64_t *steps;
  size_t count;
  char *last = sw_loop_path(o->output, ".last.h5");
  if (!last || sw_kept_list(o->output, &steps, &count)) {
    free(last);
    return -1;
  }
  const int there = sw_exists(last);
  int status = 0;
  if (o->resume && !there && count)
    status = sw_fail("%s is missing: link one of the %zu numbered checkpoints beside it to that name (ln), or start anew with --force", last, count);
  else if (!o->resume && (count || there || sw_exists(o->output)))
    status = sw_fail("%s exists already: --resume goes on with it, --force starts anew, or give another -o", sw_exists(o->output) ? o->output : last);
  free(steps);
  free(last);
  return status;
}

/* The epoch's order and its batches. */
static void plan_epoch(loop *l, int epoch) {
  const sw_task *task = l->task;
  sw_order_epoch(&l->order, epoch);
  int64_t tokens = 0;
  size_t items = 0;
  l->num_batches = 0;
  for (size_t i = 0; i < l->order.count; i++) {
    int32_t length = task->lengths[l->order.items[i]];
    int full = l->options->batch_size ? items >= (size_t)l->options->batch_size : tokens + length > l->batch_tokens;
    if (items == 0 || full) {
      l->starts[l->num_batches++] = i;
      tokens = 0;
      items = 0;
    }
    tokens += length;
    items++;
  }
  l->starts[l->num_batches] = l->order.count;
}

/* Where the part of the rank-th process in batch `b` begins; it ends where the next one's does. */
static size_t part_of(const loop *l, size_t b, int rank) {
  return l->starts[b] + (l->starts[b + 1] - l->starts[b]) * (size_t)rank / (size_t)l->ranks;
}

/* Steps of all epochs, and the largest part of a batch that any process has. */
static int64_t plan_all(loop *l, int64_t *max_tokens, int *max_batch) {
  int64_t steps = 0;
  *max_tokens = *max_batch = 1;
  for (int epoch = 0; epoch < l->options->epochs; epoch++) {
    plan_epoch(l, epoch);
    steps += ((int64_t)l->num_batches + l->options->accumulate - 1) / l->options->accumulate;
    for (size_t b = 0; b < l->num_batches; b++)
      for (int rank = 0; rank < l->ranks; rank++) {
        const size_t first = part_of(l, b, rank), end = part_of(l, b, rank + 1);
        int64_t tokens = 0;
        for (size_t i = first; i < end; i++) tokens += l->task->lengths[l->order.items[i]];
        if (tokens > *max_tokens) *max_tokens = tokens;
        if ((int)(end - first) > *max_batch) *max_batch = (int)(end - first);
      }
  }
  return steps;
}

/* --- checkpoints --- */
static json_t *position_json(const position *at, int64_t updates, int ranks) {
  return json_pack("{s:i, s:I, s:I, s:i, s:I, s:I, s:f, s:I, s:i, s:b}", "processes", ranks, "step", (json_int_t)at->step, "updates", (json_int_t)updates, "epoch", at->epoch, "batch",
                   (json_int_t)at->batch, "forwards", (json_int_t)at->micro_step, "best_score", at->best_score, "best_step",
                   (json_int_t)at->best_step, "evaluations_since_best", at->evaluations_since_best, "have_best", at->have_best);
}

static int read_position(const json_t *json, position *at) {
  json_int_t step, batch, forwards, best_step;
  if (json_unpack((json_t *)json, "{s:I, s:i, s:I, s:I, s:F, s:I, s:i, s:b}", "step", &step, "epoch", &at->epoch, "batch", &batch, "forwards",
                  &forwards, "best_score", &at->best_score, "best_step", &best_step, "evaluations_since_best",
                  &at->evaluations_since_best, "have_best", &at->have_best))
    return sw_fail("the checkpoint does not say where its training stands");
  at->step = step;
  at->batch = batch;
  at->micro_step = forwards;
  at->best_step = best_step;
  return 0;
}

static int write_checkpoint(loop *l, const char *path, int with_optimizer) {
  sw_checkpoint *c = l->checkpoint;
  if (sw_optimizer_settle(l->optimizer)) return -1;
  if (l->rank) return 0; /* all have the same to write */
  if (sw_model_save(l->stream, l->model, c)) return -1;
  json_decref(c->training);
  c->training = json_pack("{s:s, s:O}", "task", l->task->name, "run", l->facts);
  if (!c->training) return sw_fail("out of memory");
  json_object_set(c->training, "metrics", l->best_metrics ? l->best_metrics : json_null());
  int failed = json_object_set_new(c->training, "position", position_json(&l->at, sw_optimizer_steps(l->optimizer), l->ranks));
  if (l->tests_before)
    failed |= json_object_set_new(c->training, "earlier_tests", json_pack("{s:O, s:O?}", "before", l->tests_before, "after", l->tests_after));
  if (with_optimizer) {
    char run_id[SW_MONITOR_ID];
    sw_monitor_run_id(l->monitor, run_id);
    if (run_id[0]) memcpy(l->run_id, run_id, sizeof run_id);
    if (l->run_id[0]) failed |= json_object_set_new(c->training, "mlflow_run_id", json_string(l->run_id));
  }
  if (failed) return sw_fail("out of memory");
  if (with_optimizer && sw_optimizer_save(l->optimizer, c)) return -1;
  int status = sw_checkpoint_write(path, c);
  if (with_optimizer) sw_tensors_close(&c->optimizer);
  return status;
}

/* A checkpoint to resume from; with --keep also under its number, for which older ones go once it is safe. */
static int save(loop *l) {
  const sw_loop_options *o = l->options;
  if (write_checkpoint(l, l->last_path, 1)) return -1;
  l->saved_at = l->at.step;
  if (!o->keep || l->rank) return 0;
  if (sw_kept_prune(o->output, l->at.step, o->keep)) return -1;
  int status = sw_kept_link(o->output, l->last_path, l->at.step);
  if (status > 0) {
    char *path = sw_kept_path(o->output, l->at.step);
    status = path ? write_checkpoint(l, path, 1) : -1;
    free(path);
  }
  return status;
}

/* Whether the newest checkpoint lacks something: steps, or the run's id that the tracking server has given since. */
static int has_news(const loop *l) {
  char run_id[SW_MONITOR_ID];
  sw_monitor_run_id(l->monitor, run_id);
  return l->saved_at != l->at.step || (run_id[0] && strcmp(run_id, l->run_id));
}

static int log_line(loop *l, json_t *line) {
  if (!line) return sw_fail("out of memory");
  if (!l->metrics) { /* another process writes them */
    json_decref(line);
    return 0;
  }
  sw_monitor_metrics(l->monitor, l->at.step, line);
  char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
  json_decref(line);
  if (!text) return sw_fail("out of memory");
  int status = fprintf(l->metrics, "%s\n", text) < 0 || fflush(l->metrics) ? sw_fail("cannot write %s: %s", l->metrics_path, strerror(errno)) : 0;
  free(text);
  return status;
}

/* Evaluates, keeps the best, writes checkpoints. *stop = 1 when patience ran out. */
static int evaluate(loop *l, int *stop) {
  double score = (double)l->at.step;
  json_t *metrics = NULL;
  char line[256] = "";
  if (sw_optimizer_settle(l->optimizer)) return -1;
  if (l->task->evaluate) {
    if (l->task->evaluate(l->task->self, l->run, &score, &metrics, line)) return -1;
    if (!isfinite(score)) {
      json_decref(metrics);
      return sw_fail("the score after step %lld is not a number; the checkpoints written before are as they were", (long long)l->at.step);
    }
    if (log_line(l, json_pack("{s:I, s:i, s:O}", "step", (json_int_t)l->at.step, "epoch", l->at.epoch, "dev", metrics))) {
      json_decref(metrics);
      return -1;
    }
  }
  int better = !l->at.have_best || score > l->at.best_score;
  if (better) {
    l->at.best_score = score;
    l->at.best_step = l->at.step;
    l->at.have_best = 1;
    l->at.evaluations_since_best = 0;
    json_decref(l->best_metrics);
    l->best_metrics = json_incref(metrics);
  } else {
    l->at.evaluations_since_best++;
  }
  json_decref(metrics);
  if (better && l->task->test) {
    json_decref(l->tests_after);
    l->tests_after = NULL;
    if (l->task->test(l->task->self, l->run, 1, &l->tests_after)) return -1;
  }
  if (!l->options->quiet && l->task->evaluate)
    fprintf(stderr, "step %lld, epoch %d: %s%s\n", (long long)l->at.step, l->at.epoch, line, better ? "  (best so far)" : "");
  if (better && write_checkpoint(l, l->options->output, 0)) return -1;
  *stop = l->options->patience && l->at.evaluations_since_best >= l->options->patience;
  return 0;
}

/* --- one step --- */
/* This process's part of batch `b`, the word rows of all of it made current, its dropout that of the `forward`-th; handed to the device as one piece. */
static int run_batch(loop *l, size_t b, int64_t forward, int preview, int *used) {
  sw_task *task = l->task;
  const uint32_t *items = l->order.items + l->starts[b];
  const size_t count = l->starts[b + 1] - l->starts[b];
  for (size_t i = 0; i < count; i++) {
    const int32_t *ids;
    int32_t n;
    task->ids(task->self, items[i], &ids, &n);
    sw_optimizer_touch(l->optimizer, ids, n);
    if (!preview) l->tokens_done += n;
  }
  sw_run_set_dropout(l->run, 1, (uint64_t)l->options->seed ^ (uint64_t)STREAM_DROPOUT << 56, (uint32_t)forward);
  const size_t first = part_of(l, b, l->rank) - l->starts[b], own = part_of(l, b, l->rank + 1) - l->starts[b] - first;
  int64_t before = 0;
  for (size_t i = 0; i < first; i++) before += task->lengths[items[i]];
  sw_run_set_place(l->run, before, (int64_t)first);
  if (sw_collect(l->stream)) return -1;
  int failed = sw_optimizer_refresh(l->optimizer, NULL, 0);
  if (!failed && own && preview)
    failed = task->preview(task->self, l->run, items + first, own);
  else if (!failed && own)
    failed = task->batch(task->self, l->run, items + first, own, sw_optimizer_gradients(l->optimizer), used) ||
             (*used && sw_optimizer_collect(l->optimizer));
  return sw_submit(l->stream, failed ? -1 : 0);
}

/* What comes before batches first .. last - 1, which share a loss; `forward` is the first one's. */
static int begin_loss(loop *l, size_t first, size_t last, int64_t forward) {
  sw_task *task = l->task;
  if (task->begin_loss(task->self, l->order.items + l->starts[first], l->starts[last] - l->starts[first])) return -1;
  if (!task->preview) return 0;
  for (size_t b = first; b < last; b++)
    if (run_batch(l, b, forward + (int64_t)(b - first), 1, NULL)) return -1;
  return task->end_preview(task->self, l->run);
}

static int run_step(loop *l, double *loss, double *norm, double *rate) {
  sw_task *task = l->task;
  const size_t first = (size_t)l->at.batch;
  size_t last = first + (size_t)l->options->accumulate;
  if (last > l->num_batches) last = l->num_batches;
  if (task->begin_step(task->self, l->order.items + l->starts[first], l->starts[last] - l->starts[first])) return -1;
  *loss = *norm = 0;
  int any = 0;
  for (size_t b = first; b < last; b++) {
    int used = 0;
    if (task->begin_loss && (b - first) % (size_t)task->together == 0) {
      const size_t end = b + (size_t)task->together;
      if (begin_loss(l, b, end < last ? end : last, l->at.micro_step)) return -1;
    }
    if (b + 1 == last) sw_optimizer_begin_sum(l->optimizer);
    if (run_batch(l, b, l->at.micro_step++, 0, &used)) return -1;
    any |= used;
  }
  *rate = sw_schedule_rate(&l->schedule, l->at.step);
  if (l->group) { /* what one process has once it is ready for the next step, together with the others */
    const size_t losses = l->model->num_heads + 1;
    if (sw_optimizer_finish_sum(l->optimizer) || sw_run_losses(l->run, l->sums) || l->model->device->synchronize(l->stream)) return -1;
    l->sums[losses] = any;
    if (sw_group_sum(l->group, l->sums, losses + 1)) return -1;
    any = l->sums[losses] > 0;
    if (any && (sw_optimizer_measure(l->optimizer) || l->model->device->synchronize(l->stream))) return -1;
  } else {
    if (any && sw_optimizer_measure(l->optimizer)) return -1;
    if (sw_run_losses(l->run, l->sums) || l->model->device->synchronize(l->stream)) return -1; /* the one wait of a step */
  }
  *loss = task->loss(task->self, l->sums);
  if (!isfinite(*loss)) return sw_fail("the loss is not a number");
  if (any && sw_optimizer_step(l->optimizer, *rate, norm)) return -1;
  l->at.step++;
  l->at.batch = (int64_t)last;
  return 0;
}

/* The signal that ends the run, or 0. Where it came to one process, all hear of it here, so all must ask. */
static int stopping(const loop *l) {
  if (!l->group) return stop_signal;
  double seen[3] = {stop_signal == SIGUSR1, stop_signal == SIGTERM, stop_signal == SIGINT};
  sw_group_sum(l->group, seen, 3);
  return seen[0] > 0 ? SIGUSR1 : seen[1] > 0 ? SIGTERM : seen[2] > 0 ? SIGINT : 0;
}

static int train(loop *l) {
  const sw_loop_options *o = l->options;
  sw_progress bar;
  char what[64], details[128];
  /* a run that was stopped at the end of an epoch has yet to evaluate it */
  int64_t evaluated_at = o->eval_every && l->at.step % o->eval_every == 0 ? l->at.step : -1;
  int stop = o->patience && l->at.evaluations_since_best >= o->patience, status = 0, by_signal = 0;
  if (l->task->evaluate && l->task->evaluate_first && !l->at.have_best) { /* from the first file on, there is something to resume from */
    status = write_checkpoint(l, l->last_path, 1) || evaluate(l, &stop) ? -1 : 0;
    l->saved_at = -1;
  }
  while (!status && !stop && l->at.epoch < o->epochs) {
    plan_epoch(l, l->at.epoch);
    if (l->task->begin_epoch) l->task->begin_epoch(l->task->self, l->at.epoch);
    snprintf(what, sizeof what, "epoch %d/%d", l->at.epoch + 1, o->epochs);
    sw_progress_open(&bar, what, (double)l->num_batches, o->quiet);
    double mean = 0;
    int64_t steps_here = 0;
    while (!status && !stop && (size_t)l->at.batch < l->num_batches && !(by_signal = stopping(l))) {
      double loss, norm, rate = 0, began = sw_clock();
      if (run_step(l, &loss, &norm, &rate)) {
        status = sw_fail("step %lld: %s; the best checkpoint so far is kept: try a lower --lr", (long long)l->at.step + 1, sw_error());
        break;
      }
      mean = (mean * (double)steps_here + loss) / (double)(steps_here + 1);
      steps_here++;
      l->seconds += sw_clock() - began;
      snprintf(details, sizeof details, "loss %.4f  %.0f tokens/s", mean, (double)l->tokens_done / l->seconds);
      sw_progress_show(&bar, (double)l->at.batch, details);
      int epoch_ends = (size_t)l->at.batch >= l->num_batches;
      if (l->at.step % o->log_every == 0 || epoch_ends)
        status = log_line(l, json_pack("{s:I, s:i, s:f, s:f, s:f, s:f}", "step", (json_int_t)l->at.step, "epoch", l->at.epoch + 1, "loss",
                                       loss, "learning_rate", rate, "gradient_norm", norm, "tokens_per_second",
                                       (double)l->tokens_done / l->seconds));
      if (!status && o->eval_every && l->at.step % o->eval_every == 0) {
        sw_progress_close(&bar);
        status = evaluate(l, &stop);
        evaluated_at = l->at.step;
        sw_progress_open(&bar, what, (double)l->num_batches, o->quiet);
      }
      int due = o->checkpoint_every ? l->at.step % o->checkpoint_every == 0 : evaluated_at == l->at.step;
      if (!status && due && !epoch_ends) status = save(l);
    }
    sw_progress_close(&bar);
    if (!status && !stop && !by_signal) by_signal = stopping(l);
    if (status || stop || by_signal) break;
    l->at.epoch++;
    l->at.batch = 0;
    if (!o->quiet && !l->task->evaluate && steps_here) fprintf(stderr, "epoch %d: mean loss %.4f\n", l->at.epoch, mean);
    if ((!o->eval_every || l->at.epoch == o->epochs) && evaluated_at != l->at.step) {
      status = evaluate(l, &stop);
      evaluated_at = l->at.step;
    }
    if (!status) status = save(l);
    if (!status && (by_signal = stopping(l))) break;
  }
  if (!status && stop && l->at.epoch < o->epochs) {
    l->at.epoch = o->epochs; /* a resumed run has nothing left to do */
    status = save(l);
    if (!o->quiet) fprintf(stderr, "stopped early: no better score in %d evaluation%s\n", o->patience, SW_S(o->patience));
  }
  if (!status && by_signal && l->at.epoch < o->epochs) { /* a signal that comes when all is done changes nothing */
    if (has_news(l) && save(l)) return SW_EXIT_FAILED;
    if (!l->rank) fprintf(stderr, "skillwatch: stopped by signal %d after step %lld; go on with --resume\n", by_signal, (long long)l->at.step);
    return SW_EXIT_AGAIN;
  }
  return status ? SW_EXIT_FAILED : SW_EXIT_DONE;
}

/* --- resume --- */
/* Cuts the metrics file back to the lines of steps that the checkpoint has seen: the lines after it will be written again. */
static int trim_metrics(const char *path, int64_t step) {
  sw_buffer text = {0};
  sw_output output;
  if (!sw_exists(path)) return 0;
  if (sw_file_read(path, 1u << 30, &text) || sw_output_open(&output, path)) {
    sw_buffer_close(&text);
    return -1;
  }
  for (char *line = text.data, *end; line && *line; line = end) {
    char *newline = strchr(line, '\n');
    if (!newline) break; /* torn */
    end = newline + 1;
    json_t *row = json_loadb(line, (size_t)(newline - line), 0, NULL);
    if (json_integer_value(json_object_get(row, "step")) <= step && row) fwrite(line, 1, (size_t)(end - line), output.file);
    json_decref(row);
  }
  sw_buffer_close(&text);
  return sw_output_commit(&output);
}

/* The first key under "run" that differs, for the message. */
static const char *first_difference(const json_t *old, const json_t *now) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)now, key, value) if (!json_equal(value, json_object_get(old, key))) return key;
  return "run";
}

/* Reads a checkpoint that has to be of this very run. */
static int read_own(const loop *l, const char *path, sw_checkpoint *c) {
  if (sw_checkpoint_read(path, c)) return -1;
  const json_t *run = json_object_get(c->training, "run");
  if (json_equal(run, l->facts)) return 0;
  return sw_fail("%s was made with another '%s': give the same options and data, or another -o", path, first_difference(run, l->facts));
}

/* Killed between its first best checkpoint and its first last one: only that run may start anew over it. */
static int check_best(const loop *l) {
  sw_checkpoint best;
  sw_checkpoint_init(&best);
  int status = read_own(l, l->options->output, &best);
  sw_checkpoint_close(&best);
  return status;
}

static int resume(loop *l) {
  sw_checkpoint last;
  sw_checkpoint_init(&last);
  int status = read_own(l, l->last_path, &last);
  if (!status) status = read_position(json_object_get(last.training, "position"), &l->at);
  for (size_t i = 0; !status && i < l->model->num_parameters; i++) {
    const sw_parameter *p = &l->model->parameters[i];
    const sw_tensor *t = sw_tensors_find(&last.weights, p->name);
    if (!t || t->dtype != SW_F32 || sw_tensor_elements(t) != (int64_t)p->count)
      status = sw_fail("%s: weight '%s' does not fit", l->last_path, p->name);
    else
      status = l->model->device->copy_in(l->stream, l->model->values + p->offset, t->data, p->count * sizeof(float));
  }
  if (!status) { /* a step without a label updates nothing */
    const json_t *updates = json_object_get(json_object_get(last.training, "position"), "updates");
    status = sw_optimizer_load(l->optimizer, &last, updates ? json_integer_value(updates) : l->at.step);
  }
  if (!status) status = sw_model_prepare(l->stream, l->model);
  /* what was told of the first evaluation is told again where it is done again */
  if (!status && !l->rank) status = trim_metrics(l->metrics_path, l->task->evaluate_first && !l->at.have_best ? -1 : l->at.step);
  if (!status && !l->rank) status = sw_kept_cut(l->options->output, l->at.step);
  if (!status) {
    const char *run_id = json_string_value(json_object_get(last.training, "mlflow_run_id"));
    snprintf(l->run_id, sizeof l->run_id, "%s", run_id ? run_id : "");
    json_t *metrics = json_object_get(last.training, "metrics");
    l->best_metrics = json_is_null(metrics) ? NULL : json_incref(metrics);
    l->tests_after = json_incref(json_object_get(json_object_get(last.training, "earlier_tests"), "after"));
    const json_t *were = json_object_get(json_object_get(last.training, "position"), "processes");
    if (!l->options->quiet) fprintf(stderr, "resumed after step %lld\n", (long long)l->at.step);
    if (!l->options->quiet && were && json_integer_value(were) != l->ranks)
      fprintf(stderr, "it ran in %lld process%s before, not %d: it goes on with the same batches, but not to the same bits\n",
              (long long)json_integer_value(were), json_integer_value(were) == 1 ? "" : "es", l->ranks);
  }
  sw_checkpoint_close(&last);
  return status;
}

/* Everything whose size depends on the batches: gradients, moments, activations. */
static int open_buffers(loop *l) {
  const sw_loop_options *o = l->options;
  int64_t max_tokens;
  int max_batch;
  int64_t steps = plan_all(l, &max_tokens, &max_batch);
  l->schedule = (sw_schedule){.kind = o->schedule, .peak = o->learning_rate, .total = steps, .warmup = (int64_t)(o->warmup * (double)steps)};
  sw_optimizer_options with_group = o->optimizer;
  with_group.group = l->group;
  if (sw_optimizer_open(l->stream, l->model, &with_group, max_tokens, o->accumulate, &l->optimizer)) return -1;
  if (l->task->sequences) max_batch *= l->task->sequences;
  if (l->task->eval_tokens > max_tokens) max_tokens = l->task->eval_tokens;
  if (l->task->eval_batch > max_batch) max_batch = l->task->eval_batch;
  return sw_run_open(l->stream, l->model, max_tokens, max_batch, 1, &l->run);
}

/* All processes must be at the same work: same options, same data, same kind of device. */
static int check_group(const loop *l) {
  if (!l->group) return 0;
  const sw_model_config *c = &l->model->config;
  if (c->hidden_size % 4) return sw_fail("several processes want a hidden size that is a multiple of 4; this model's is %d", c->hidden_size);
  if (c->gru && c->embedding_size % 4) return sw_fail("several processes want --embedding to be a multiple of 4, not %d", c->embedding_size);
  char *own = json_dumps(l->facts, JSON_COMPACT | JSON_SORT_KEYS);
  size_t bytes = own ? strlen(own) + 1 : 0;
  int status = own ? sw_group_broadcast(l->group, &bytes, sizeof bytes) : sw_fail("out of memory");
  char *first = status ? NULL : sw_alloc(bytes);
  if (first && !l->rank) memcpy(first, own, bytes);
  if (!status) status = first ? sw_group_broadcast(l->group, first, bytes) : -1;
  if (!status && strcmp(first, own)) {
    json_t *theirs = json_loads(first, 0, NULL);
    status = sw_fail("this process and the first one differ in '%s': all need the same files and the same kind of machine", first_difference(theirs, l->facts));
    json_decref(theirs);
  }
  free(first);
  free(own);
  return status;
}

static int open_loop(loop *l) {
  const sw_loop_options *o = l->options;
  if (!(l->last_path = sw_loop_path(o->output, ".last.h5")) || !(l->metrics_path = sw_loop_path(o->output, ".metrics.jsonl"))) return -1;
  int can_resume = o->resume && sw_exists(l->last_path);
  if (sw_group_broadcast(l->group, &can_resume, sizeof can_resume) || check_group(l)) return -1;
  if (o->resume && !can_resume && !o->force && !l->rank && sw_exists(o->output) && check_best(l)) return -1;
  if (sw_order_open((uint64_t)o->seed, l->task->num_items, l->task->replays, l->task->num_replays, &l->order)) return -1;
  l->starts = sw_alloc_array(l->order.count + 1, sizeof *l->starts);
  l->sums = sw_alloc_array(l->model->num_heads + 2, sizeof *l->sums);
  if (!l->starts || !l->sums) return -1;
  if (open_buffers(l)) {
    if (l->group || o->batch_size || l->batch_tokens < 2 || !sw_error_is_memory()) return -1;
    l->batch_tokens /= 2;
    fprintf(stderr, "skillwatch: %s; going on with --batch-tokens %d\n", sw_error(), l->batch_tokens);
    if (json_object_set_new(l->facts, "batch_tokens", json_integer(l->batch_tokens))) return sw_fail("out of memory");
    sw_optimizer_close(l->optimizer);
    l->optimizer = NULL;
    if (open_buffers(l)) return -1;
  }
  if (l->task->test && l->task->test(l->task->self, l->run, 0, &l->tests_before)) return -1;
  if (sw_group_sum(l->group, &(double){0}, 1)) return -1; /* nothing is removed before all have agreed to start */
  if (can_resume) {
    if (resume(l)) return -1;
    l->saved_at = l->at.step;
  } else if (!l->rank) {
    remove(l->metrics_path);
    if (o->force) remove(l->last_path);
    if (sw_kept_cut(o->output, -1)) return -1;
  }
  if (sw_group_sum(l->group, &(double){0}, 1)) return -1; /* nothing is written before all have read */
  if (l->rank) return 0;
  l->metrics = fopen(l->metrics_path, "ae");
  if (!l->metrics) return sw_fail("cannot write %s: %s", l->metrics_path, strerror(errno));
  sw_monitor_options monitor = o->monitor;
  if (l->at.epoch >= o->epochs) { /* nothing to tell but the end, where a kill came before it */
    if (!monitor.mlflow || !l->run_id[0]) return 0;
    monitor.tensorboard = NULL;
    monitor.over = 1;
  }
  return sw_monitor_open(&monitor, o->output, l->at.step, l->run_id, l->facts, &l->monitor);
}

int sw_loop_run(sw_stream *stream, sw_model *model, sw_task *task, const sw_loop_options *options, sw_checkpoint *checkpoint, json_t *facts) {
  loop l = {.stream = stream, .model = model, .task = task, .options = options, .checkpoint = checkpoint, .facts = facts,
            .batch_tokens = options->batch_tokens, .group = options->group, .rank = sw_group_rank(options->group),
            .ranks = sw_group_size(options->group)};
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGUSR1, &action, NULL);
  int status = SW_EXIT_FAILED;
  if (!open_loop(&l)) {
    if (l.at.epoch >= options->epochs && !options->quiet) fprintf(stderr, "nothing left to train: %s is complete\n", options->output);
    status = train(&l);
    if (status == SW_EXIT_DONE && !options->quiet)
      fprintf(stderr, "%s: best of step %lld\n", options->output, (long long)l.at.best_step);
  }
  if (l.metrics) fclose(l.metrics);
  stop_signal = 0; /* another one: do not wait for a server, either */
  sw_monitor_close(l.monitor, status == SW_EXIT_DONE ? SW_MONITOR_FINISHED : status == SW_EXIT_AGAIN ? SW_MONITOR_KILLED : SW_MONITOR_FAILED,
                   l.metrics_path, options->output, &stop_signal);
  sw_optimizer_close(l.optimizer);
  sw_run_close(l.run);
  json_decref(l.best_metrics);
  json_decref(l.tests_before);
  json_decref(l.tests_after);
  sw_order_close(&l.order);
  free(l.starts);
  free(l.sums);
  free(l.last_path);
  free(l.metrics_path);
  return status;
}
