#include "engine/model/runs.h"
#include "base/error.h"

#include <stdio.h>
#include <string.h>

static int one_run(const sw_runs *r) { return strcmp(r->device->backend, "cpu") != 0; }

int sw_runs_open(sw_runs *r, sw_stream *stream, const sw_model *model, int64_t batch_tokens) {
  const int positions = model->config.max_positions;
  *r = (sw_runs){.device = stream->device, .model = model, .batch_tokens = batch_tokens > positions ? batch_tokens : positions};
  r->max_batch = r->batch_tokens < 1024 ? (int)r->batch_tokens : 1024;
  pthread_mutex_init(&r->turn, NULL);
  if (!one_run(r) || !sw_run_open(stream, model, r->batch_tokens, r->max_batch, 0, &r->shared)) return 0;
  if (!sw_error_is_memory() || r->batch_tokens / 2 < positions) return -1;
  r->batch_tokens /= 2;
  fprintf(stderr, "skillwatch: %s; going on with --batch-tokens %lld\n", sw_error(), (long long)r->batch_tokens);
  return sw_run_open(stream, model, r->batch_tokens, r->max_batch, 0, &r->shared);
}

void sw_runs_close(sw_runs *r) {
  if (!r->device) return;
  sw_run_close(r->shared);
  pthread_mutex_destroy(&r->turn);
  *r = (sw_runs){0};
}

int sw_runs_worker_open(sw_runs *r, sw_runs_worker *w) {
  *w = (sw_runs_worker){.runs = r};
  return sw_stream_open(r->device, 1, &w->stream);
}

void sw_runs_worker_close(sw_runs_worker *w) { sw_run_close(w->own); }

int sw_runs_begin(sw_runs_worker *w) {
  sw_runs *r = w->runs;
  if (one_run(r)) {
    pthread_mutex_lock(&r->turn);
    w->run = r->shared;
    return 0;
  }
  if (!w->own && sw_run_open(&w->stream, r->model, r->batch_tokens, r->max_batch, 0, &w->own)) return -1;
  w->run = w->own;
  return 0;
}

void sw_runs_end(sw_runs_worker *w) {
  if (w->run == w->runs->shared) pthread_mutex_unlock(&w->runs->turn);
  w->run = NULL;
}
