#include "infer/serve/batcher.h"
#include "base/error.h"
#include "base/progress.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PASSED = 2, SLICE_TEXTS = 32, SLICE_BYTES = 64 << 10, MIN_BATCH_TOKENS = 64, LARGE_BODY = 1 << 20 };

struct sw_batcher {
  int threads;
  pthread_t *workers;
  void (*observe)(void *context, int64_t tokens);
  void *context;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  /* under the lock */
  sw_call *first, *last; /* not done; those that were served longest ago come first */
  size_t calls;
  sw_lane *lanes, **lanes_end; /* with pieces to be run, in the order in which they got their first */
  int stop, large;             /* large: a large body is being read, of which one at a time takes enough memory */
  int64_t running;             /* tokens of the batches that are run */
  sw_batcher_state seen;
};

/* --- lanes --- */

int sw_lane_open(sw_lane *l, const sw_pipeline_job *steps, int64_t batch_tokens, int max_batch, int threads, int at_once) {
  *l = (sw_lane){.steps = *steps, .batch_tokens = batch_tokens, .max_batch = max_batch, .threads = threads, .at_once = at_once};
  l->workers = sw_alloc_array((size_t)threads, sizeof *l->workers);
  return l->workers ? 0 : -1;
}

void sw_lane_close(sw_lane *l) {
  for (int i = 0; l->workers && i < l->threads; i++)
    if (l->workers[i]) l->steps.close_worker(l->steps.context, l->workers[i]);
  free(l->workers);
  free(l->units);
  *l = (sw_lane){0};
}

static void list_lane(sw_batcher *b, sw_lane *l) {
  if (l->listed || !l->count) return;
  l->listed = 1;
  l->passed = 0;
  l->next = NULL;
  *b->lanes_end = l;
  b->lanes_end = &l->next;
}

/* Takes the lane out where it has nothing left; otherwise it goes behind the others, so that all get their turn. */
static void relist_lane(sw_batcher *b, sw_lane *l) {
  sw_lane **at = &b->lanes;
  while (*at && *at != l) at = &(*at)->next;
  if (*at) {
    *at = l->next;
    if (b->lanes_end == &l->next) b->lanes_end = at;
  }
  l->listed = 0;
  list_lane(b, l);
}

static int add_units(sw_batcher *b, sw_slice *s) {
  sw_lane *l = s->call->lane;
  if (l->first + l->count + s->pieces.count > l->capacity) {
    if (l->count) memmove(l->units, l->units + l->first, l->count * sizeof *l->units);
    l->first = 0;
    if (l->count + s->pieces.count > l->capacity) {
      const size_t capacity = 2 * (l->count + s->pieces.count);
      struct sw_unit *units = sw_realloc_array(l->units, capacity, sizeof *units);
      if (!units) return -1;
      l->units = units;
      l->capacity = capacity;
    }
  }
  for (size_t i = 0; i < s->pieces.count; i++) {
    l->units[l->first + l->count++] = (struct sw_unit){&s->pieces.items[i], s};
    l->tokens += s->pieces.items[i].length;
  }
  list_lane(b, l);
  return 0;
}

/* --- calls --- */

static void link_last(sw_batcher *b, sw_call *c) {
  c->before = b->last;
  c->after = NULL;
  *(b->last ? &b->last->after : &b->first) = c;
  b->last = c;
}

static void unlink_call(sw_batcher *b, sw_call *c) {
  *(c->before ? &c->before->after : &b->first) = c->after;
  *(c->after ? &c->after->before : &b->last) = c->before;
}

void sw_call_clear(sw_call *c) {
  for (size_t i = 0; i < c->num_slices; i++) {
    sw_pieces_close(&c->slices[i].pieces);
    free(c->slices[i].results);
    sw_buffer_close(&c->slices[i].output);
  }
  free(c->slices);
  free(c->error);
  for (size_t i = 0; c->items && i < c->count; i++) free(c->items[i].extra);
  c->slices = NULL;
  c->error = NULL;
  c->num_slices = 0;
}

/* Nothing more of the call is begun; what is being done is waited for. */
static void stop_call(sw_batcher *b, sw_call *c, sw_call_outcome outcome, const char *error) {
  if (c->stopped) return;
  c->stopped = 1;
  c->outcome = outcome;
  c->error = strdup(error);
  sw_lane *l = c->stage == SW_CALL_READY ? c->lane : NULL; /* before, prepare may be writing it */
  size_t kept = 0;
  for (size_t i = 0; l && i < l->count; i++) {
    const struct sw_unit unit = l->units[l->first + i];
    if (unit.slice->call == c) l->tokens -= unit.piece->length;
    else l->units[l->first + kept++] = unit;
  }
  if (!l) return;
  l->count = kept;
  if (l->listed) relist_lane(b, l);
}

static int is_done(const sw_call *c) {
  return !c->busy && (c->stopped || (c->stage == SW_CALL_READY && c->finished == c->num_slices));
}

/* Takes the call out where it is done: 1, and its owner is to be told. */
static int retire(sw_batcher *b, sw_call *c) {
  if (!is_done(c)) return 0;
  unlink_call(b, c);
  b->calls--;
  return 1;
}

/* Under the lock, which is given up for a moment where the call is done. */
static void check_done(sw_batcher *b, sw_call *c) {
  if (!retire(b, c)) return;
  pthread_mutex_unlock(&b->lock);
  c->done(c, c->outcome);
  pthread_mutex_lock(&b->lock);
}

int sw_batcher_add(sw_batcher *b, sw_call *c, size_t most) {
  pthread_mutex_lock(&b->lock);
  const int full = b->calls >= most;
  if (!full) {
    b->calls++;
    link_last(b, c);
    pthread_cond_signal(&b->changed);
  }
  pthread_mutex_unlock(&b->lock);
  return full;
}

void sw_batcher_cancel(sw_batcher *b, sw_call *c) {
  pthread_mutex_lock(&b->lock);
  c->deadline = -HUGE_VAL;
  pthread_mutex_unlock(&b->lock);
}

void sw_batcher_expire(sw_batcher *b, double now) {
  pthread_mutex_lock(&b->lock);
  for (sw_call *c = b->first; c;) {
    if (!c->stopped && c->deadline <= now) stop_call(b, c, SW_CALL_LATE, "the deadline has passed");
    if (c->stopped && is_done(c)) {
      check_done(b, c);
      c = b->first; /* the list may be another one now */
    } else {
      c = c->after;
    }
  }
  pthread_mutex_unlock(&b->lock);
}

void sw_batcher_look(sw_batcher *b, sw_batcher_state *out) {
  pthread_mutex_lock(&b->lock);
  *out = b->seen;
  for (const sw_call *c = b->first; c; c = c->after) {
    if (c->stage == SW_CALL_WAITING) out->waiting_calls++;
    else out->running_calls++;
  }
  for (const sw_lane *l = b->lanes; l; l = l->next) out->waiting_tokens += l->tokens;
  pthread_mutex_unlock(&b->lock);
}

/* --- the workers --- */

typedef struct {
  sw_batcher *batcher;
  int index;
  size_t most_units, most_ids; /* allocated */
  struct sw_unit *units;
  const sw_piece **pieces;
  sw_call **calls;
  int32_t *ids, *cu_seqlens;
} worker;

static void *worker_of(worker *w, sw_lane *l) {
  void **own = &l->workers[w->index];
  if (*own || !l->steps.open_worker(l->steps.context, own)) return *own;
  if (*own) l->steps.close_worker(l->steps.context, *own);
  return *own = NULL;
}

/* Texts by slices, for a call that prepare has read. */
static int make_slices(sw_call *c) {
  if (!(c->slices = sw_alloc_array(c->count + 1, sizeof *c->slices))) return -1;
  for (size_t i = 0; i < c->count;) {
    sw_slice *s = &c->slices[c->num_slices++];
    *s = (sw_slice){.call = c, .first = i};
    for (size_t bytes = 0; i < c->count && i - s->first < SLICE_TEXTS && bytes < SLICE_BYTES; i++) bytes += c->items[i].posting.bytes;
    s->count = i - s->first;
  }
  return 0;
}

static void do_prepare(sw_batcher *b, sw_call *c) {
  const int large = c->weight >= LARGE_BODY;
  c->stage = SW_CALL_PREPARING;
  c->busy++;
  b->large += large;
  pthread_mutex_unlock(&b->lock);
  const int refused = c->prepare(c), failed = !refused && make_slices(c);
  pthread_mutex_lock(&b->lock);
  c->busy--;
  b->large -= large;
  c->stage = SW_CALL_READY;
  if (refused || failed) stop_call(b, c, refused ? SW_CALL_REFUSED : SW_CALL_BROKEN, sw_error());
  pthread_cond_broadcast(&b->changed);
  check_done(b, c);
}

static void finish_slice(worker *w, sw_slice *s) {
  sw_batcher *b = w->batcher;
  sw_call *c = s->call;
  int failed = 0;
  if (!c->stopped) {
    pthread_mutex_unlock(&b->lock);
    failed = c->finish(c, worker_of(w, c->lane), s->first, s->count, &s->output);
    sw_pieces_close(&s->pieces);
    free(s->results);
    s->results = NULL;
    pthread_mutex_lock(&b->lock);
  }
  c->finished++;
  if (failed) stop_call(b, c, SW_CALL_BROKEN, sw_error());
}

static int encode_slice(worker *w, sw_slice *s) {
  sw_call *c = s->call;
  size_t outputs = 0;
  void *own = worker_of(w, c->lane);
  if (!own) return -1;
  for (size_t i = s->first; i < s->first + s->count; i++) {
    const size_t before = s->pieces.count;
    if (c->encode(c, own, i, &s->pieces)) return -1;
    c->items[i].num_pieces = (uint32_t)(s->pieces.count - before);
  }
  sw_pieces_settle(&s->pieces, c->items + s->first, s->count);
  for (size_t i = 0; i < s->pieces.count; i++) outputs += s->pieces.items[i].outputs;
  if (!(s->results = sw_alloc_aligned(sizeof(float) * (outputs + 1)))) return -1;
  float *result = s->results;
  for (size_t i = 0; i < s->pieces.count; i++) {
    s->pieces.items[i].result = result;
    result += s->pieces.items[i].outputs;
    if (s->pieces.items[i].length > c->lane->batch_tokens)
      return sw_fail("a sequence of %d tokens does not fit into a batch of %lld", s->pieces.items[i].length, (long long)c->lane->batch_tokens);
  }
  return 0;
}

static void do_encode(worker *w, sw_call *c) {
  sw_batcher *b = w->batcher;
  sw_slice *s = &c->slices[c->next_slice++];
  c->busy++;
  unlink_call(b, c);
  link_last(b, c);
  pthread_mutex_unlock(&b->lock);
  const int failed = encode_slice(w, s);
  pthread_mutex_lock(&b->lock);
  s->left = s->pieces.count;
  for (size_t i = 0; i < s->left; i++) c->tokens += (uint64_t)s->pieces.items[i].length;
  if (failed || (!c->stopped && s->left && add_units(b, s))) stop_call(b, c, SW_CALL_BROKEN, sw_error());
  else if (!c->stopped && !s->left) finish_slice(w, s);
  c->busy--;
  pthread_cond_broadcast(&b->changed);
  check_done(b, c);
}

static int make_room(worker *w, const sw_lane *l) {
  if ((size_t)l->max_batch > w->most_units) {
    free(w->units), free(w->pieces), free(w->calls), free(w->cu_seqlens);
    w->most_units = (size_t)l->max_batch;
    w->units = sw_alloc_array(w->most_units, sizeof *w->units);
    w->pieces = sw_alloc_array(w->most_units, sizeof *w->pieces);
    w->calls = sw_alloc_array(w->most_units, sizeof *w->calls);
    w->cu_seqlens = sw_alloc_array(w->most_units + 1, sizeof *w->cu_seqlens);
  }
  if ((size_t)l->batch_tokens > w->most_ids) {
    free(w->ids);
    w->most_ids = (size_t)l->batch_tokens;
    w->ids = sw_alloc_array(w->most_ids, sizeof *w->ids);
  }
  if (w->units && w->pieces && w->calls && w->cu_seqlens && w->ids) return 0;
  w->most_units = w->most_ids = 0;
  return -1;
}

static int run_units(worker *w, sw_lane *l, size_t first, size_t count) {
  static const sw_item unnamed = {.posting = {.id = (char *)"in a batch"}}; /* whom messages name */
  void *own = worker_of(w, l);
  if (!own) return -1;
  for (size_t i = 0; i < count; i++) w->pieces[i] = w->units[first + i].piece;
  const sw_batch batch = sw_pieces_pack(w->pieces, count, w->ids, w->cu_seqlens);
  return l->steps.run(l->steps.context, own, &batch, w->pieces, &unnamed);
}

/* Where a batch fails, its pieces are run one by one, so that only the requests that have a part in the failure fail. */
static void run_batch(worker *w, sw_lane *l, size_t count) {
  sw_batcher *b = w->batcher;
  if (!run_units(w, l, 0, count)) return;
  for (size_t i = 0; i < count; i++) {
    if (count > 1 && !run_units(w, l, i, 1)) continue;
    pthread_mutex_lock(&b->lock);
    stop_call(b, w->units[i].slice->call, SW_CALL_BROKEN, sw_error());
    pthread_mutex_unlock(&b->lock);
  }
}

static void do_batch(worker *w, sw_lane *l) {
  sw_batcher *b = w->batcher;
  if (make_room(w, l)) { /* whoever waits first learns of it */
    sw_call *c = l->units[l->first].slice->call;
    stop_call(b, c, SW_CALL_BROKEN, sw_error());
    check_done(b, c);
    return;
  }
  /* a part for each batch that can run now, and one to go on with while those who were answered ask again */
  int64_t budget = (l->tokens + b->running) / (l->at_once + 1) + 1, tokens = 0;
  if (budget < MIN_BATCH_TOKENS) budget = MIN_BATCH_TOKENS;
  if (budget > l->batch_tokens) budget = l->batch_tokens;
  size_t count = 0;
  for (; count < l->count && count < (size_t)l->max_batch; count++) {
    const struct sw_unit unit = l->units[l->first + count];
    if (count && tokens + unit.piece->length > budget) break;
    tokens += unit.piece->length;
    unit.slice->call->busy++;
    w->units[count] = unit;
  }
  l->first += count;
  l->count -= count;
  l->tokens -= tokens;
  b->running += tokens;
  l->running++;
  for (sw_lane *other = b->lanes; other != l; other = other->next) other->passed++;
  relist_lane(b, l);
  b->seen.batches++;
  b->seen.batch_tokens += (uint64_t)tokens;
  b->seen.batch_sequences += count;
  pthread_cond_broadcast(&b->changed); /* there is room for encoding */
  pthread_mutex_unlock(&b->lock);
  if (b->observe) b->observe(b->context, tokens);
  run_batch(w, l, count);
  pthread_mutex_lock(&b->lock);
  b->running -= tokens;
  l->running--;
  for (size_t i = 0; i < count; i++)
    if (--w->units[i].slice->left == 0) finish_slice(w, w->units[i].slice);
  size_t done = 0; /* calls, which are taken out before any of them is given back: units then point to what may be gone */
  for (size_t i = 0; i < count; i++) {
    sw_call *c = w->units[i].slice->call;
    c->busy--;
    if (retire(b, c)) w->calls[done++] = c;
  }
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  for (size_t i = 0; i < done; i++) w->calls[i]->done(w->calls[i], w->calls[i]->outcome);
  pthread_mutex_lock(&b->lock);
}

/* One more batch than can run at once is packed ahead: while it waits for its turn, the next one grows. */
static int can_run(const sw_lane *l) { return l->running <= l->at_once; }

/* Does something, under the lock, which is given up meanwhile; 0: there is nothing to do. */
static int do_something(worker *w) {
  sw_batcher *b = w->batcher;
  /* a full batch first, but a lane that has little does not wait for the end of a large request to another */
  for (sw_lane *l = b->lanes; l; l = l->next)
    if (can_run(l) && (l->tokens >= l->batch_tokens || l->passed >= MOST_PASSED)) {
      do_batch(w, l);
      return 1;
    }
  for (sw_call *c = b->first; c; c = c->after) {
    const int prepare = c->stage == SW_CALL_WAITING && !(b->large && c->weight >= LARGE_BODY);
    const int encode = c->stage == SW_CALL_READY && c->next_slice < c->num_slices && c->lane->tokens < c->lane->batch_tokens;
    if (c->stopped || !(prepare || encode)) continue;
    if (prepare) do_prepare(b, c);
    else do_encode(w, c);
    return 1;
  }
  for (sw_lane *l = b->lanes; l; l = l->next)
    if (can_run(l)) {
      do_batch(w, l);
      return 1;
    }
  return 0;
}

static void *work(void *context) {
  worker *w = context;
  sw_batcher *b = w->batcher;
  pthread_mutex_lock(&b->lock);
  while (!b->stop) {
    if (do_something(w)) continue;
    pthread_cond_wait(&b->changed, &b->lock);
  }
  pthread_mutex_unlock(&b->lock);
  free(w->units), free(w->pieces), free(w->calls), free(w->ids), free(w->cu_seqlens);
  free(w);
  return NULL;
}

int sw_batcher_open(int threads, void (*observe)(void *context, int64_t tokens), void *context, sw_batcher **out) {
  sw_batcher *b = sw_alloc(sizeof *b);
  if (!b) return -1;
  *out = b;
  b->observe = observe;
  b->context = context;
  b->lanes_end = &b->lanes;
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->changed, NULL);
  if (!(b->workers = sw_alloc_array((size_t)threads, sizeof *b->workers))) return -1;
  for (; b->threads < threads; b->threads++) {
    worker *w = sw_alloc(sizeof *w);
    if (!w) return -1;
    *w = (worker){.batcher = b, .index = b->threads};
    const int error = pthread_create(&b->workers[b->threads], NULL, work, w);
    if (error) {
      free(w);
      return sw_fail("cannot start thread %d of %d: %s; use fewer with --threads", b->threads + 1, threads, strerror(error));
    }
  }
  return 0;
}

void sw_batcher_close(sw_batcher *b) {
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  b->stop = 1;
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  for (int i = 0; i < b->threads; i++) pthread_join(b->workers[i], NULL);
  free(b->workers);
  pthread_cond_destroy(&b->changed);
  pthread_mutex_destroy(&b->lock);
  free(b);
}
