#include "engine/data/pipeline.h"
#include "base/error.h"
#include "base/progress.h"
#include "engine/data/piece_cache.h"
#include "engine/data/stream.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN_FLIGHT = 3, SLICE_TEXTS = 64, SLICE_BYTES = 256 << 10, MIN_BATCH_TOKENS = 256 };

typedef struct {
  size_t first, end; /* items */
  sw_pieces pieces;
  sw_buffer output;
} slice;

typedef enum { FREE, ENCODE, PLAN, RUN, FINISH, DONE } chunk_stage;

typedef struct {
  chunk_stage stage;
  size_t next, pending; /* the stage's work: what nobody has taken, and what is not done */
  sw_item *items;
  size_t count, capacity;
  slice *slices;
  size_t num_slices, slices_capacity;
  uint64_t read_bytes, total_bytes; /* of the input, after this chunk */
  sw_piece **unique;                /* to be run, longest first */
  size_t num_unique;
  size_t *starts; /* [num_batches + 1] */
  size_t num_batches;
  float *results;
  sw_pipeline_counts counts;
} chunk;

typedef struct {
  sw_postings *postings;
  const sw_pipeline_job *job;
  sw_pipeline_options options;
  pthread_mutex_t lock, cache_lock;
  pthread_cond_t changed;
  /* under the lock: chunks head..tail - 1 exist, chunk n is chunks[n % IN_FLIGHT] */
  chunk chunks[IN_FLIGHT];
  uint64_t head, tail;
  int ended; /* the reader is done */
  /* the reader's own */
  chunk *reading; /* being filled; NULL where there is none */
  double began;   /* when its first text came */
  char *error;
  atomic_int stop;
  sw_piece_cache cache; /* under cache_lock */
} pipeline;

int sw_item_check_finite(const float *values, size_t count, const sw_item *item) {
  for (size_t i = 0; i < count; i++)
    if (!isfinite(values[i]))
      return sw_fail("row %llu (id %s): the model gives a value that is no finite number; its weights are unusable",
                     (unsigned long long)item->posting.index + 1, item->posting.id);
  return 0;
}

int sw_pieces_add(sw_pieces *p, const int32_t *ids, int32_t length, const int32_t *reads, uint32_t num_reads,
                  uint32_t outputs) {
  if (p->count == p->capacity) {
    size_t capacity = p->capacity ? 2 * p->capacity : 64;
    sw_piece *items = sw_realloc_array(p->items, capacity, sizeof *items);
    if (!items) return -1;
    p->items = items;
    p->capacity = capacity;
  }
  const size_t wanted = p->numbers_count + (size_t)length + num_reads;
  if (wanted > p->numbers_capacity) {
    size_t capacity = p->numbers_capacity ? p->numbers_capacity : 4096;
    while (capacity < wanted) capacity *= 2;
    int32_t *numbers = sw_realloc_array(p->numbers, capacity, sizeof *numbers);
    if (!numbers) return -1;
    p->numbers = numbers;
    p->numbers_capacity = capacity;
  }
  if (length) memcpy(p->numbers + p->numbers_count, ids, (size_t)length * sizeof *ids);
  if (num_reads) memcpy(p->numbers + p->numbers_count + length, reads, num_reads * sizeof *reads);
  p->numbers_count = wanted;
  p->items[p->count++] = (sw_piece){.length = length,
                                    .num_reads = num_reads,
                                    .outputs = outputs,
                                    .item = p->item,
                                    .hash = sw_piece_hash(ids, length, reads, num_reads)};
  return 0;
}

void sw_pieces_settle(sw_pieces *p, sw_item *items, size_t count) {
  const int32_t *at = p->numbers;
  sw_piece *piece = p->items;
  for (size_t i = 0; i < count; i++) {
    items[i].pieces = piece;
    for (uint32_t k = 0; k < items[i].num_pieces; k++, piece++) {
      piece->ids = at;
      piece->reads = at + piece->length;
      at += (size_t)piece->length + piece->num_reads;
    }
  }
}

void sw_pieces_close(sw_pieces *p) {
  free(p->items);
  free(p->numbers);
  *p = (sw_pieces){0};
}

sw_batch sw_pieces_pack(const sw_piece *const *pieces, size_t count, int32_t *ids, int32_t *cu_seqlens) {
  sw_batch batch = {.batch = (int)count, .ids = ids, .cu_seqlens = cu_seqlens};
  for (size_t i = 0; i < count; i++) {
    cu_seqlens[i] = (int32_t)batch.tokens;
    memcpy(ids + batch.tokens, pieces[i]->ids, (size_t)pieces[i]->length * sizeof *ids);
    batch.tokens += pieces[i]->length;
    if (pieces[i]->length > batch.max_seqlen) batch.max_seqlen = pieces[i]->length;
  }
  cu_seqlens[count] = (int32_t)batch.tokens;
  return batch;
}

/* The first failure counts; everyone stops. */
static void fail(pipeline *p) {
  pthread_mutex_lock(&p->lock);
  if (!p->error) p->error = strdup(sw_error());
  atomic_store(&p->stop, 1);
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
}

static void empty_chunk(chunk *c) {
  for (size_t i = 0; i < c->count; i++) {
    sw_posting_close(&c->items[i].posting);
    free(c->items[i].extra);
  }
  for (size_t i = 0; i < c->num_slices; i++) {
    sw_pieces_close(&c->slices[i].pieces);
    sw_buffer_close(&c->slices[i].output);
  }
  free(c->unique), free(c->starts), free(c->results);
  c->unique = NULL, c->starts = NULL, c->results = NULL;
  c->count = c->num_slices = c->num_unique = c->num_batches = 0;
  c->counts = (sw_pipeline_counts){0};
}

static int add_item(chunk *c, const sw_posting *posting) {
  if (c->count == c->capacity) {
    size_t capacity = c->capacity ? 2 * c->capacity : 256;
    sw_item *items = sw_realloc_array(c->items, capacity, sizeof *items);
    if (!items) return -1;
    c->items = items;
    c->capacity = capacity;
  }
  c->items[c->count++] = (sw_item){.posting = *posting};
  return 0;
}

static int make_slices(chunk *c) {
  for (size_t i = 0; i < c->count;) {
    if (c->num_slices == c->slices_capacity) {
      size_t capacity = c->slices_capacity ? 2 * c->slices_capacity : 64;
      slice *slices = sw_realloc_array(c->slices, capacity, sizeof *slices);
      if (!slices) return -1;
      c->slices = slices;
      c->slices_capacity = capacity;
    }
    slice *s = &c->slices[c->num_slices++];
    *s = (slice){.first = i};
    for (size_t bytes = 0; i < c->count && i - s->first < SLICE_TEXTS && bytes < SLICE_BYTES; i++)
      bytes += c->items[i].posting.bytes;
    s->end = i;
  }
  return 0;
}

/* --- the reader --- */

/* Waits for a chunk to fill: 0; -1 where another thread has failed. */
static int begin_chunk(pipeline *p) {
  pthread_mutex_lock(&p->lock);
  while (p->tail - p->head == IN_FLIGHT && !atomic_load(&p->stop)) pthread_cond_wait(&p->changed, &p->lock);
  p->reading = &p->chunks[p->tail % IN_FLIGHT];
  pthread_mutex_unlock(&p->lock);
  return atomic_load(&p->stop) ? sw_fail("the run has failed") : 0;
}

/* Gives the chunk to the workers. */
static int end_chunk(pipeline *p) {
  chunk *c = p->reading;
  sw_postings_progress(p->postings, &c->read_bytes, &c->total_bytes);
  if (make_slices(c)) return -1;
  pthread_mutex_lock(&p->lock);
  c->stage = ENCODE;
  c->next = 0;
  c->pending = c->num_slices;
  p->tail++;
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
  return 0;
}

/* From within sw_postings_next, while a pipe gives nothing: what has come so far need not wait for a full chunk, and a run that has
 * failed need not wait for more. */
static int on_idle(void *context) {
  pipeline *p = context;
  if (atomic_load(&p->stop)) return sw_fail("the run has failed");
  return p->options.shards < 2 && p->reading->count && (end_chunk(p) || begin_chunk(p)) ? -1 : 0;
}

/* A chunk is full, or the first text of one that comes through a pipe has waited long enough. */
static int is_full(const pipeline *p, size_t texts, size_t bytes) {
  uint64_t done, total;
  if (texts >= p->options.chunk_texts || bytes >= p->options.chunk_bytes) return 1;
  if (p->options.shards > 1) return 0;
  sw_postings_progress(p->postings, &done, &total);
  return !total && sw_clock() - p->began > SW_IDLE_MS / 1000.0;
}

static int read_all(pipeline *p) {
  const int shards = p->options.shards > 1 ? p->options.shards : 1;
  uint64_t skip = p->options.skip;
  size_t texts = 0, bytes = 0; /* of the chunk, whoever's it is */
  int turn = 0;                /* the shard whose it is */
  if (begin_chunk(p)) return -1;
  for (;;) {
    sw_posting posting;
    int status = sw_postings_next(p->postings, &posting);
    if (status < 0) return -1;
    if (status == 0) return p->reading->count ? end_chunk(p) : 0;
    const int ours = turn == p->options.shard, drop = !ours || skip;
    if (ours && skip) skip--;
    if (drop && shards == 1) {
      sw_posting_close(&posting);
      continue;
    }
    if (!p->reading->count) {
      p->began = sw_clock();
      if (shards == 1) texts = bytes = 0;
    }
    texts++;
    bytes += posting.bytes;
    if (drop) {
      sw_posting_close(&posting);
    } else if (add_item(p->reading, &posting)) {
      sw_posting_close(&posting);
      return -1;
    }
    if (atomic_load(&p->stop)) return -1;
    if (!is_full(p, texts, bytes)) continue;
    if (p->reading->count && (end_chunk(p) || begin_chunk(p))) return -1;
    texts = bytes = 0;
    turn = (turn + 1) % shards;
  }
}

static void *reader(void *context) {
  pipeline *p = context;
  sw_byte_stream_on_idle(on_idle, p);
  if (read_all(p)) fail(p);
  pthread_mutex_lock(&p->lock);
  p->ended = 1;
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
  return NULL;
}

/* --- the workers --- */

static int encode_slice(pipeline *p, chunk *c, slice *s, void *worker) {
  for (size_t i = s->first; i < s->end; i++) {
    sw_item *item = &c->items[i];
    s->pieces.item = (uint32_t)i;
    const size_t before = s->pieces.count;
    if (p->job->encode(p->job->context, worker, item, &s->pieces)) return -1;
    item->num_pieces = (uint32_t)(s->pieces.count - before);
  }
  sw_pieces_settle(&s->pieces, c->items + s->first, s->end - s->first);
  return 0;
}

static int longest_first(const void *a, const void *b) {
  const sw_piece *x = *(sw_piece *const *)a, *y = *(sw_piece *const *)b;
  if (x->length != y->length) return x->length > y->length ? -1 : 1;
  return (x > y) - (x < y);
}

/* Finds which pieces must be run, gives every piece its place for the result, and packs batches. */
static int plan(pipeline *p, chunk *c) {
  size_t count = 0, outputs = 0;
  for (size_t i = 0; i < c->num_slices; i++) {
    count += c->slices[i].pieces.count;
    for (size_t k = 0; k < c->slices[i].pieces.count; k++) outputs += c->slices[i].pieces.items[k].outputs;
  }
  size_t num_slots = 64;
  while (num_slots < 2 * count) num_slots *= 2;
  sw_piece **slots = sw_alloc_array(p->options.dedup ? num_slots : 1, sizeof *slots);
  c->unique = sw_alloc_array(count + 1, sizeof *c->unique);
  c->starts = sw_alloc_array(count + 1, sizeof *c->starts);
  c->results = sw_alloc_aligned(sizeof(float) * (outputs + 1));
  if (!slots || !c->unique || !c->starts || !c->results) {
    free(slots);
    return -1;
  }
  float *result = c->results;
  uint64_t run_tokens = 0;
  pthread_mutex_lock(&p->cache_lock);
  for (size_t i = 0; i < c->num_slices; i++)
    for (size_t k = 0; k < c->slices[i].pieces.count; k++) {
      sw_piece *piece = &c->slices[i].pieces.items[k];
      c->counts.tokens += (uint64_t)piece->length;
      if (p->options.dedup) {
        size_t at = piece->hash & (num_slots - 1);
        while (slots[at] && !sw_piece_equal(slots[at], piece)) at = (at + 1) & (num_slots - 1);
        if (slots[at]) {
          piece->result = slots[at]->result;
          continue;
        }
        slots[at] = piece;
      }
      piece->result = result;
      result += piece->outputs;
      if (p->options.dedup && sw_piece_cache_get(&p->cache, piece)) continue;
      c->unique[c->num_unique++] = piece;
      run_tokens += (uint64_t)piece->length;
    }
  pthread_mutex_unlock(&p->cache_lock);
  free(slots);
  c->counts.rows = c->count;
  c->counts.computed_tokens = run_tokens;
  for (size_t i = 0; i < c->count; i++) c->counts.truncated += c->items[i].truncated != 0;
  if (c->num_unique) qsort(c->unique, c->num_unique, sizeof *c->unique, longest_first);
  /* few texts are spread over the threads, as long as a batch keeps a size worth running */
  int64_t budget = (int64_t)(run_tokens / (uint64_t)p->options.threads + 1);
  if (budget < MIN_BATCH_TOKENS) budget = MIN_BATCH_TOKENS;
  if (budget > p->options.batch_tokens) budget = p->options.batch_tokens;
  int64_t tokens = 0;
  for (size_t i = 0; i < c->num_unique; i++) {
    const int32_t length = c->unique[i]->length;
    if (length > p->options.batch_tokens)
      return sw_fail("a sequence of %d tokens does not fit into a batch of %lld", length,
                     (long long)p->options.batch_tokens);
    if (i == 0 || tokens + length > budget || i - c->starts[c->num_batches - 1] >= (size_t)p->options.max_batch) {
      c->starts[c->num_batches++] = i;
      tokens = 0;
    }
    tokens += length;
  }
  c->starts[c->num_batches] = c->num_unique;
  return 0;
}

typedef struct {
  pipeline *pipeline;
  void *worker; /* the job's */
  int32_t *ids, *cu_seqlens;
} worker_thread;

static int run_batch(worker_thread *w, const chunk *c, size_t index) {
  const pipeline *p = w->pipeline;
  const size_t first = c->starts[index], count = c->starts[index + 1] - first;
  const sw_piece *const *pieces = (const sw_piece *const *)(c->unique + first);
  const sw_batch batch = sw_pieces_pack(pieces, count, w->ids, w->cu_seqlens);
  return p->job->run(p->job->context, w->worker, &batch, pieces, c->items);
}

static void keep_results(pipeline *p, const chunk *c) {
  if (!p->options.dedup) return;
  pthread_mutex_lock(&p->cache_lock);
  for (size_t i = 0; i < c->num_unique; i++) sw_piece_cache_put(&p->cache, c->unique[i]);
  pthread_mutex_unlock(&p->cache_lock);
}

static int finish_slice(pipeline *p, const chunk *c, slice *s, void *worker) {
  for (size_t i = s->first; i < s->end; i++)
    if (p->job->finish(p->job->context, worker, &c->items[i], &s->output)) return -1;
  return 0;
}

static void enter_stage(pipeline *p, chunk *c, chunk_stage stage) {
  if (stage == RUN && c->num_batches == 0) stage = FINISH;
  if (stage == FINISH && !p->job->finish) stage = DONE;
  c->stage = stage;
  c->next = 0;
  c->pending = stage == RUN ? c->num_batches : c->num_slices;
  pthread_cond_broadcast(&p->changed);
}

/* The most urgent work, under the lock: what brings the oldest chunk out, then what feeds the batches, then the
 * batches. */
static chunk *take(pipeline *p, chunk_stage *stage_out, size_t *index) {
  static const chunk_stage order[] = {FINISH, ENCODE, RUN};
  for (size_t k = 0; k < sizeof order / sizeof *order; k++)
    for (uint64_t n = p->head; n < p->tail; n++) {
      chunk *c = &p->chunks[n % IN_FLIGHT];
      if (c->stage != order[k] || c->next == (c->stage == RUN ? c->num_batches : c->num_slices)) continue;
      *stage_out = c->stage;
      *index = c->next++;
      return c;
    }
  return NULL;
}

static int do_work(worker_thread *w, chunk *c, chunk_stage stage, size_t index) {
  pipeline *p = w->pipeline;
  int status = stage == ENCODE ? encode_slice(p, c, &c->slices[index], w->worker)
               : stage == RUN  ? run_batch(w, c, index)
                               : finish_slice(p, c, &c->slices[index], w->worker);
  if (status) return -1;
  pthread_mutex_lock(&p->lock);
  const int last = --c->pending == 0;
  if (last) c->stage = PLAN; /* nobody else touches it until the next stage is entered */
  pthread_mutex_unlock(&p->lock);
  if (!last) return 0;
  if (stage == ENCODE && plan(p, c)) return -1;
  if (stage == RUN) keep_results(p, c);
  pthread_mutex_lock(&p->lock);
  enter_stage(p, c, stage == ENCODE ? RUN : stage == RUN ? FINISH : DONE);
  pthread_mutex_unlock(&p->lock);
  return 0;
}

static void *work(void *context) {
  pipeline *p = context;
  worker_thread w = {.pipeline = p};
  w.ids = sw_alloc_array((unsigned long)p->options.batch_tokens, sizeof *w.ids);
  w.cu_seqlens = sw_alloc_array((unsigned long)p->options.max_batch + 1, sizeof *w.cu_seqlens);
  int status = !w.ids || !w.cu_seqlens || p->job->open_worker(p->job->context, &w.worker) ? -1 : 0;
  while (status == 0) {
    chunk_stage stage = FREE;
    size_t index = 0;
    pthread_mutex_lock(&p->lock);
    chunk *c = NULL;
    while (!atomic_load(&p->stop) && !(p->ended && p->head == p->tail) && !(c = take(p, &stage, &index)))
      pthread_cond_wait(&p->changed, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (!c) break;
    status = do_work(&w, c, stage, index);
  }
  if (status) fail(p);
  if (w.worker) p->job->close_worker(p->job->context, w.worker);
  free(w.ids), free(w.cu_seqlens);
  return NULL;
}

/* --- the caller's thread: writes --- */

static int write_chunk(pipeline *p, chunk *c) {
  sw_buffer output = {0};
  int status = 0;
  for (size_t i = 0; i < c->num_slices && !status; i++) {
    sw_buffer *from = &c->slices[i].output;
    if (from->size) status = sw_buffer_append(&output, from->data, from->size);
    sw_buffer_close(from);
  }
  if (!status) status = p->job->write(p->job->context, c->items, c->count, &output, &c->counts);
  sw_buffer_close(&output);
  return status;
}

static void write_all(pipeline *p, sw_pipeline_counts *counts) {
  sw_progress progress;
  sw_progress_open(&progress, p->options.progress ? p->options.progress : "", 0, !p->options.progress);
  for (;;) {
    pthread_mutex_lock(&p->lock);
    chunk *c;
    for (;;) {
      c = p->head < p->tail ? &p->chunks[p->head % IN_FLIGHT] : NULL;
      if (atomic_load(&p->stop) || (c ? c->stage == DONE : p->ended)) break;
      pthread_cond_wait(&p->changed, &p->lock);
    }
    if (atomic_load(&p->stop)) c = NULL;
    pthread_mutex_unlock(&p->lock);
    if (!c) break;
    if (write_chunk(p, c)) {
      fail(p);
      break;
    }
    counts->rows += c->counts.rows;
    counts->truncated += c->counts.truncated;
    counts->tokens += c->counts.tokens;
    counts->computed_tokens += c->counts.computed_tokens;
    progress.total = (double)c->total_bytes;
    char details[96];
    snprintf(details, sizeof details, "%llu texts  %.0f texts/s", (unsigned long long)counts->rows,
             (double)counts->rows / (sw_clock() - progress.start + 1e-9));
    sw_progress_show(&progress, c->total_bytes ? (double)c->read_bytes : (double)counts->rows, details);
    empty_chunk(c);
    pthread_mutex_lock(&p->lock);
    c->stage = FREE;
    p->head++;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
  }
  sw_progress_close(&progress);
}

int sw_pipeline_run(sw_postings *postings, const sw_pipeline_job *job, const sw_pipeline_options *options,
                    sw_pipeline_counts *counts) {
  pipeline p = {.postings = postings, .job = job, .options = *options};
  if (p.options.threads < 1 || p.options.batch_tokens < 1 || p.options.max_batch < 1)
    return sw_fail("the pipeline needs at least one thread, one token and one sequence a batch");
  if (!p.options.chunk_texts) p.options.chunk_texts = 4096;
  if (!p.options.chunk_bytes) p.options.chunk_bytes = 4 << 20;
  sw_piece_cache_open(&p.cache, p.options.cache_bytes ? p.options.cache_bytes : 128u << 20);
  pthread_mutex_init(&p.lock, NULL);
  pthread_mutex_init(&p.cache_lock, NULL);
  pthread_cond_init(&p.changed, NULL);
  sw_pipeline_counts all = {0};
  const int wanted = p.options.threads + 1;
  int started = 0;
  pthread_t *threads = sw_alloc_array((unsigned long)wanted, sizeof *threads);
  if (!threads) fail(&p);
  for (; threads && started < wanted; started++) {
    int error = pthread_create(&threads[started], NULL, started == 0 ? reader : work, &p);
    if (error) {
      sw_fail("cannot start thread %d of %d: %s; use fewer with --threads", started + 1, wanted, strerror(error));
      fail(&p);
      break;
    }
  }
  write_all(&p, &all);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  free(threads);
  for (int i = 0; i < IN_FLIGHT; i++) {
    empty_chunk(&p.chunks[i]);
    free(p.chunks[i].items);
    free(p.chunks[i].slices);
  }
  sw_piece_cache_close(&p.cache);
  pthread_cond_destroy(&p.changed);
  pthread_mutex_destroy(&p.cache_lock);
  pthread_mutex_destroy(&p.lock);
  if (counts) *counts = all;
  if (!atomic_load(&p.stop)) return 0;
  sw_fail("%s", p.error ? p.error : "out of memory");
  free(p.error);
  return -1;
}
