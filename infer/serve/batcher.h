/* Dynamic batching: texts of all requests for a model and job (a lane) share batches, filled up to the model's token budget.
 *
 *   call: prepare -> slices of its texts: encode -> pieces wait in the lane -> batches: run -> slices: finish -> done
 *
 * A worker that is free takes what is there, so that an idle server answers at once and a busy one fills its batches; texts are encoded ahead up to
 * one batch a lane, slices of the calls in turn, so that a large request does not stand before a small one. Bits are those of the command line, because
 * steps and operators are (engine/data/pipeline.h). */
#ifndef SW_SERVE_BATCHER_H
#define SW_SERVE_BATCHER_H
#include "engine/data/pipeline.h"

typedef struct sw_slice sw_slice;
typedef struct sw_call sw_call;
typedef struct sw_batcher sw_batcher;

/* One job of one model; its pieces share batches. */
typedef struct sw_lane {
  sw_pipeline_job steps; /* open_worker, close_worker and run are used */
  int64_t batch_tokens;
  int max_batch;
  void **workers; /* [threads]; a thread's own, opened when it first has work here */
  int threads;
  int at_once; /* batches that can run at once: a GPU runs one */
  /* the batcher's: pieces to be run, the oldest first */
  struct sw_unit {
    sw_piece *piece;
    sw_slice *slice;
  } *units;
  size_t first, count, capacity;
  int64_t tokens;
  struct sw_lane *next; /* of those that have any */
  int listed, passed; /* passed: batches of others that came before, since its last */
  int running;        /* batches */
} sw_lane;
int sw_lane_open(sw_lane *lane, const sw_pipeline_job *steps, int64_t batch_tokens, int max_batch, int threads, int at_once);
void sw_lane_close(sw_lane *lane);

typedef enum { SW_CALL_ANSWERED, SW_CALL_REFUSED, SW_CALL_BROKEN, SW_CALL_LATE } sw_call_outcome;

struct sw_call {
  /* set by the owner */
  int (*prepare)(sw_call *call); /* in a worker: reads the request and sets what follows; -1: refused */
  int (*encode)(sw_call *call, void *worker, size_t index, sw_pieces *pieces);                           /* text `index` to pieces */
  int (*finish)(sw_call *call, void *worker, size_t first, size_t count, sw_buffer *out); /* what is said of these texts */
  void (*done)(sw_call *call, sw_call_outcome outcome); /* in a worker, or the thread of sw_batcher_expire; the call is the owner's again */
  double deadline;  /* of sw_clock */
  size_t weight;    /* bytes of the request */
  sw_lane *lane;    /* by prepare, as the following */
  sw_item *items;   /* [count], owned by the owner */
  size_t count;
  /* the answer */
  sw_slice *slices; /* [num_slices], in order; until sw_call_clear */
  size_t num_slices;
  uint64_t tokens;
  char *error; /* owned; of outcomes but the first, NULL where memory lacks */
  /* the batcher's */
  enum { SW_CALL_WAITING, SW_CALL_PREPARING, SW_CALL_READY } stage;
  size_t next_slice, finished;
  int busy; /* workers at it */
  int stopped;
  sw_call_outcome outcome;
  sw_call *before, *after;
};

/* Some texts of a call, and what is said of them. */
struct sw_slice {
  sw_call *call;
  size_t first, count;
  sw_pieces pieces;
  size_t left; /* pieces that are not run */
  float *results;
  sw_buffer output;
};

typedef struct {
  uint64_t batches, batch_tokens, batch_sequences, waiting_calls, running_calls;
  int64_t waiting_tokens;
} sw_batcher_state;

/* `observe` (may be NULL) is told the tokens of every batch. */
int sw_batcher_open(int threads, void (*observe)(void *context, int64_t tokens), void *context, sw_batcher **out);
/* After the last call is done. */
void sw_batcher_close(sw_batcher *batcher);
/* 0: done will be called. 1: the queue holds `most` calls already. */
int sw_batcher_add(sw_batcher *batcher, sw_call *call, size_t most);
/* Ends what has its deadline at `now` (of sw_clock; HUGE_VAL: all) or before; to be called a few times a second. */
void sw_batcher_expire(sw_batcher *batcher, double now);
/* The next sw_batcher_expire ends the call, where it is not done by then. */
void sw_batcher_cancel(sw_batcher *batcher, sw_call *call);
void sw_batcher_look(sw_batcher *batcher, sw_batcher_state *out);
/* Frees what the batcher left in a call. */
void sw_call_clear(sw_call *call);
#endif
