/* The pipeline with a job that needs no model: order, equal pieces, the cache, skipping, and a failure at every step.
 */
#include "base/error.h"
#include "base/philox.h"
#include "engine/data/piece_cache.h"
#include "engine/data/pipeline.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXTS = 3000, BATCH_TOKENS = 50, MAX_BATCH = 9 };

typedef struct {
  atomic_uint open, encoded, run, finished, written;
  atomic_uint_fast64_t run_tokens;
  uint64_t skip;
  const char *fail_in; /* "encode" … at the `fail_at`th call */
  unsigned fail_at;
} job;

static int fails(job *j, const char *where, unsigned call) {
  return j->fail_in && !strcmp(j->fail_in, where) && call == j->fail_at ? sw_fail("%s failed", where) : 0;
}

static int open_worker(void *context, void **worker) {
  job *j = context;
  *worker = malloc(1);
  return fails(j, "open_worker", atomic_fetch_add(&j->open, 1));
}

static void close_worker(void *context, void *worker) {
  free(worker);
}

/* A text is a number n; its pieces are n % 4 sequences of lengths that follow from it. */
static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  job *j = context;
  const int n = atoi(item->posting.text);
  int32_t ids[64];
  for (int k = 0; k < n % 4; k++) {
    const int32_t length = 1 + (n * 7 + k * 13) % BATCH_TOKENS, reads[2] = {0, length - 1};
    for (int32_t i = 0; i < length; i++) ids[i] = n % 100 + i;
    const uint32_t num_reads = (uint32_t)(n / 100) % 3;
    if (sw_pieces_add(pieces, ids, length, reads, num_reads, 1 + num_reads)) return -1;
  }
  item->truncated = n % 5 == 0;
  item->extra = strdup(item->posting.text);
  return fails(j, "encode", atomic_fetch_add(&j->encoded, 1));
}

static float expected(const sw_piece *piece, uint32_t output) {
  float sum = (float)piece->length * 1000 + (float)output;
  for (int32_t i = 0; i < piece->length; i++) sum += (float)(piece->ids[i] * (i % 3));
  return sum + (output ? (float)piece->reads[output - 1] : 0);
}

static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces,
               const sw_item *items) {
  job *j = context;
  if (batch->tokens > BATCH_TOKENS || batch->batch > MAX_BATCH || batch->batch < 1 || batch->cu_seqlens[0] != 0)
    return sw_fail("a bad batch");
  for (int i = 0; i < batch->batch; i++) {
    if (batch->cu_seqlens[i + 1] - batch->cu_seqlens[i] != pieces[i]->length || pieces[i]->length > batch->max_seqlen ||
        memcmp(batch->ids + batch->cu_seqlens[i], pieces[i]->ids, (size_t)pieces[i]->length * 4))
      return sw_fail("a bad sequence");
    for (uint32_t k = 0; k < pieces[i]->outputs; k++) pieces[i]->result[k] = expected(pieces[i], k);
  }
  atomic_fetch_add(&j->run_tokens, (uint64_t)batch->tokens);
  return fails(j, "run", atomic_fetch_add(&j->run, 1));
}

static int finish(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  job *j = context;
  if (strcmp(item->extra, item->posting.text)) return sw_fail("another text's extra");
  for (uint32_t i = 0; i < item->num_pieces; i++)
    for (uint32_t k = 0; k < item->pieces[i].outputs; k++)
      if (item->pieces[i].result[k] != expected(&item->pieces[i], k))
        return sw_fail("text %s has a wrong result", item->posting.text);
  return fails(j, "finish", atomic_fetch_add(&j->finished, 1)) || sw_buffer_print(out, "%s\n", item->posting.text) ? -1
                                                                                                                   : 0;
}

static int write_chunk(void *context, const sw_item *items, size_t count, const sw_buffer *output,
                       const sw_pipeline_counts *counts) {
  job *j = context;
  const char *at = output->data;
  for (size_t i = 0; i < count; i++, j->written++) {
    char want[32];
    snprintf(want, sizeof want, "%llu\n", (unsigned long long)(j->skip + j->written) * 7 % 1001);
    if (strncmp(at, want, strlen(want)) || strncmp(items[i].posting.text, want, strlen(want) - 1))
      return sw_fail("out of order");
    at += strlen(want);
    if (fails(j, "write", j->written)) return -1;
  }
  return at == output->data + output->size && counts->rows == count ? 0 : sw_fail("a bad chunk");
}

static int go(const char *path, job *j, int threads, int dedup, size_t cache, sw_pipeline_counts *counts) {
  sw_postings_options reading = {.format = SW_POSTINGS_LINES};
  sw_postings *postings;
  if (sw_postings_open(&path, 1, &reading, &postings)) return -1;
  const sw_pipeline_job steps = {j, open_worker, close_worker, encode, run, finish, write_chunk};
  const sw_pipeline_options options = {.threads = threads,
                                       .batch_tokens = BATCH_TOKENS,
                                       .max_batch = MAX_BATCH,
                                       .dedup = dedup,
                                       .skip = j->skip,
                                       .chunk_texts = 37,
                                       .chunk_bytes = 100,
                                       .cache_bytes = cache};
  int status = sw_pipeline_run(postings, &steps, &options, counts);
  char message[300];
  snprintf(message, sizeof message, "%s", sw_error());
  assert_int_equal(sw_postings_close(postings), 0);
  if (status) sw_fail("%s", message);
  return status;
}

static const char *input(void) {
  char *text = calloc(TEXTS, 8);
  size_t n = 0;
  for (unsigned i = 0; i < TEXTS; i++) n += (size_t)sprintf(text + n, "%u\n", i * 7 % 1001);
  const char *path = test_write_text("numbers.txt", text);
  free(text);
  return path;
}

static void test_everything_in_order(void **state) {
  const char *path = input();
  uint64_t all_tokens = 0;
  for (int threads = 1; threads <= 5; threads += 2)
    for (int dedup = 0; dedup < 2; dedup++)
      for (size_t cache = 1; cache < 1 << 22; cache <<= 7) {
        job j = {0};
        sw_pipeline_counts counts;
        if (go(path, &j, threads, dedup, cache, &counts)) fail_msg("%s", sw_error());
        assert_int_equal(j.written, TEXTS);
        assert_int_equal(counts.rows, TEXTS);
        assert_int_equal(counts.computed_tokens, j.run_tokens);
        assert_true(counts.truncated > TEXTS / 6);
        if (all_tokens) assert_int_equal(counts.tokens, all_tokens);
        all_tokens = counts.tokens;
        if (!dedup) assert_int_equal(counts.computed_tokens, all_tokens);
        if (dedup && cache > 1 << 20) assert_true(counts.computed_tokens < all_tokens / 2);
      }
}

static void test_skip(void **state) {
  const char *path = input();
  const uint64_t skips[] = {0, 1, 36, 37, 38, 2999, 3000, 5000};
  for (size_t i = 0; i < sizeof skips / sizeof *skips; i++) {
    job j = {.skip = skips[i]};
    sw_pipeline_counts counts;
    if (go(path, &j, 2, 1, 0, &counts)) fail_msg("%s", sw_error());
    assert_int_equal(j.written, skips[i] < TEXTS ? TEXTS - skips[i] : 0);
  }
}

/* What each of several shards writes: the chunk that a row is in, its turn. */
typedef struct {
  job base;
  unsigned shard, shards, chunks;
  unsigned *turns; /* [TEXTS] from 1; 0: nobody's yet */
} shard_job;

static int write_shard(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  shard_job *j = context;
  for (size_t i = 0; i < count; i++) {
    if (j->turns[items[i].posting.index]) return sw_fail("a text is done twice");
    j->turns[items[i].posting.index] = 1 + j->chunks * j->shards + j->shard;
  }
  j->chunks++;
  return 0;
}

static int go_shard(const char *path, shard_job *j, uint64_t skip, sw_pipeline_counts *counts) {
  sw_postings_options reading = {.format = SW_POSTINGS_LINES};
  sw_postings *postings;
  if (sw_postings_open(&path, 1, &reading, &postings)) return -1;
  const sw_pipeline_job steps = {j, open_worker, close_worker, encode, run, finish, write_shard};
  const sw_pipeline_options options = {.threads = 2, .batch_tokens = BATCH_TOKENS, .max_batch = MAX_BATCH, .dedup = 1, .skip = skip,
                                       .chunk_texts = 37, .chunk_bytes = 100, .shard = (int)j->shard, .shards = (int)j->shards};
  return sw_pipeline_run(postings, &steps, &options, counts) | sw_postings_close(postings);
}

/* Every text is some shard's, chunks come in turn, and a shard that goes on after its first chunk gives the same. */
static void test_shards(void **state) {
  const char *path = input();
  for (unsigned shards = 1; shards <= 7; shards += 2) {
    unsigned turns[TEXTS] = {0}, again[TEXTS] = {0};
    uint64_t rows = 0;
    for (unsigned s = 0; s < shards; s++) {
      shard_job j = {.shard = s, .shards = shards, .turns = turns}, rest = {.shard = s, .shards = shards, .chunks = 1, .turns = again};
      sw_pipeline_counts counts;
      uint64_t first = 0;
      if (go_shard(path, &j, 0, &counts)) fail_msg("%s", sw_error());
      rows += counts.rows;
      for (int i = 0; i < TEXTS; i++)
        if (turns[i] == 1 + s) {
          again[i] = turns[i];
          first++;
        }
      assert_true(first > 0 && first <= 37);
      if (go_shard(path, &rest, first, &counts)) fail_msg("%s", sw_error());
      assert_int_equal(j.chunks, rest.chunks);
    }
    assert_int_equal(rows, TEXTS);
    assert_memory_equal(turns, again, sizeof turns);
    for (int i = 0; i < TEXTS; i++) assert_true(turns[i] == (i ? turns[i - 1] : 1) || (i && turns[i] == turns[i - 1] + 1));
  }
}

static void test_failures(void **state) {
  const char *path = input();
  const char *const where[] = {"open_worker", "encode", "run", "finish", "write"};
  const unsigned when[] = {0, 1, 150};
  for (size_t w = 0; w < 5; w++)
    for (size_t k = 0; k < 3; k++)
      for (int threads = 1; threads <= 4; threads += 3) {
        job j = {.fail_in = where[w], .fail_at = when[k]};
        if (w == 0 && (int)when[k] >= threads) continue;
        char want[64];
        snprintf(want, sizeof want, "%s failed", where[w]);
        assert_int_equal(go(path, &j, threads, 0, 0, NULL), -1);
        assert_string_equal(sw_error(), want);
      }
}

/* The reading end as a path, and the writing end. */
static const char *open_pipe(int *writing) {
  static char path[40];
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
  *writing = ends[1];
  return path;
}

typedef struct {
  job *job;
  int writing;
} slow_writer;

/* Two texts, and the next only when the results of these are written. */
static void *write_slowly(void *context) {
  slow_writer *w = context;
  for (unsigned i = 0; i < 6; i += 2) {
    dprintf(w->writing, "%u\n%u\n", i * 7 % 1001, (i + 1) * 7 % 1001);
    while (w->job->written < i + 2) usleep(1000);
  }
  close(w->writing);
  return NULL;
}

static void test_slow_pipe(void **state) {
  job j = {0};
  slow_writer w = {.job = &j};
  const char *path = open_pipe(&w.writing);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, write_slowly, &w), 0);
  if (go(path, &j, 2, 1, 0, NULL)) fail_msg("%s", sw_error());
  pthread_join(thread, NULL);
  assert_int_equal(j.written, 6);
}

/* A failure ends the run though the pipe stays open and silent. */
static void test_silent_pipe(void **state) {
  job j = {.fail_in = "write", .fail_at = 1};
  int writing;
  const char *path = open_pipe(&writing);
  dprintf(writing, "0\n7\n");
  assert_int_equal(go(path, &j, 2, 1, 0, NULL), -1);
  assert_string_equal(sw_error(), "write failed");
  close(writing);
}

static void test_cache(void **state) {
  sw_random r = {.seed = test_seed("cache")};
  const size_t limits[] = {0, 1000, 20000, 1 << 20};
  for (size_t l = 0; l < 4; l++) {
    sw_piece_cache cache;
    sw_piece_cache_open(&cache, limits[l]);
    unsigned found = 0;
    for (int i = 0; i < 20000; i++) {
      int32_t ids[12], reads[3] = {0, 1, 2};
      float result[5];
      sw_piece p = {.ids = ids, .reads = reads, .result = result, .length = 3 + (int32_t)sw_random_below(&r, 9)};
      for (int32_t k = 0; k < p.length; k++) ids[k] = (int32_t)sw_random_below(&r, k < 2 ? 40 : 1);
      p.num_reads = sw_random_below(&r, 3);
      p.outputs = 1 + p.num_reads;
      p.hash = sw_piece_hash(p.ids, p.length, p.reads, p.num_reads) & (i % 2 ? ~0ull : 0xff); /* collisions, too */
      if (sw_piece_cache_get(&cache, &p)) {
        found++;
        for (uint32_t k = 0; k < p.outputs; k++)
          assert_true(result[k] == (float)(ids[0] * 100 + ids[1]) + (float)p.length + (float)k);
      } else {
        for (uint32_t k = 0; k < p.outputs; k++)
          result[k] = (float)(ids[0] * 100 + ids[1]) + (float)p.length + (float)k;
        sw_piece_cache_put(&cache, &p);
      }
      assert_true(cache.young.capacity + cache.young.num_slots * sizeof *cache.young.slots <=
                  cache.limit * 2 + (1 << 14));
    }
    assert_true(l == 0 ? found == 0 : l < 3 || found > 1000);
    sw_piece_cache_close(&cache);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_everything_in_order), cmocka_unit_test(test_skip),
                                     cmocka_unit_test(test_shards),
                                     cmocka_unit_test(test_failures), cmocka_unit_test(test_slow_pipe),
                                     cmocka_unit_test(test_silent_pipe), cmocka_unit_test(test_cache)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
