/* Runs of one model for several worker threads: on the CPU one each, on a GPU one, at which they take turns. */
#ifndef SW_MODEL_RUNS_H
#define SW_MODEL_RUNS_H
#include "engine/model/model.h"
#include <pthread.h>

typedef struct {
  sw_device *device;
  const sw_model *model; /* borrowed, as the device */
  int64_t batch_tokens;  /* of a run: at least the model's positions */
  int max_batch;         /* sequences of a run */
  pthread_mutex_t turn;  /* on a GPU: whose batch runs */
  sw_run *shared;        /* on a GPU: the one run */
} sw_runs;

/* Where a GPU's memory does not hold a run of that size, it is halved once, and a line on stderr says so. */
int sw_runs_open(sw_runs *runs, sw_stream *stream, const sw_model *model, int64_t batch_tokens);
void sw_runs_close(sw_runs *runs);

/* A worker's share. */
typedef struct {
  sw_runs *runs;
  sw_stream stream; /* of one thread: workers share the work by batches */
  sw_run *run;      /* between sw_runs_begin and sw_runs_end */
  sw_run *own;      /* on the CPU: opened at its first batch */
} sw_runs_worker;
int sw_runs_worker_open(sw_runs *runs, sw_runs_worker *worker);
void sw_runs_worker_close(sw_runs_worker *worker);
/* Gives the worker a run: on the CPU one of its own, on a GPU the only one, when its turn comes. */
int sw_runs_begin(sw_runs_worker *worker);
void sw_runs_end(sw_runs_worker *worker);
#endif
