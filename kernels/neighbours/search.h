/* Nearest neighbours on the CPU: how the work is cut, and the search in fp32. Included once for an instruction set.
 *
 * A task is a group of queries by a segment of the corpus. The segment passes in chunks that stay in the level-2 cache, transposed
 * into panels of TILE_COLUMNS rows; each block of the group's queries is multiplied by each panel, a tile of scores in registers. A
 * compare with the worst of each query's k best rejects most of a tile at once; what is left goes into the query's heap. Where queries
 * are few, there are several segments with heaps of their own, which are merged at the end: the order of pairs is total (the
 * score, then the index), so neither segments nor threads nor chunks can be seen in the result. */
#ifndef SW_NEIGHBOURS_SEARCH_H
#define SW_NEIGHBOURS_SEARCH_H
#include "kernels/isa.h"
#include "kernels/neighbours/best.h"
#include "kernels/neighbours/check.h"
#include "kernels/tile_products.h"

#include <omp.h>

enum {
  CHUNK_BYTES = 1 << 20,
  GROUP = 96,        /* fewer queries do not pay for transposing the corpus once more */
  SEGMENT = 1024,    /* corpus rows, at least */
  TASKS = 2          /* a thread */
};

typedef struct {
  sw_neighbours_desc d;
  const float *queries, *corpus;
  int64_t *index;
  float *key;
  int64_t groups, segments;
  int64_t chunk; /* rows */
} search;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static search plan(const sw_stream *stream, const sw_neighbours_desc *d) {
  int64_t tasks = (int64_t)TASKS * stream->threads, columns = TILE_COLUMNS;
  search s = {.d = *d};
  s.groups = larger(smaller(d->queries / GROUP, tasks), 1);
  s.segments = larger(smaller((tasks + s.groups - 1) / s.groups, d->corpus / SEGMENT), 1);
  s.chunk = larger(CHUNK_BYTES / ((int64_t)d->hidden * 4) / columns * columns, columns);
  s.chunk = smaller(s.chunk, larger(round_up(d->corpus, columns), columns));
  return s;
}
/* Floats of a thread's chunk and block of queries; entries of the segments' heaps. */
static int64_t plain_floats(const search *s) { return round_up((s->chunk + SW_LANES) * s->d.hidden, 16); }
static int64_t heap_entries(const search *s) { return s->segments > 1 ? s->segments * s->d.queries * s->d.k : 0; }
/* Where threads have `floats` each. With fewer queries there may be more segments: g groups have less than GROUP (g + 1) queries and
 * less than tasks / g + 1 segments, of which the product is largest for g = 1 and g = tasks. */
static size_t workspace_bytes(const sw_stream *stream, const sw_neighbours_desc *d, int64_t floats) {
  int64_t tasks = (int64_t)TASKS * stream->threads;
  int64_t heaps = d->corpus / SEGMENT > 1 ? smaller(d->queries * tasks, 2 * GROUP * (tasks + 1)) * d->k : 0;
  return (size_t)(round_up(heaps * 12, 64) + stream->threads * floats * 4);
}

/* The lanes of `hits`: corpus rows from `first` on, with their keys; those from `last` on are padding. */
static void offer_lanes(const search *s, vf keys, unsigned hits, int64_t query, int64_t first, int64_t last, float *key, int64_t *index) {
  float lane[SW_LANES];
  vf_store(lane, keys);
  for (; hits; hits &= hits - 1) {
    int l = __builtin_ctz(hits);
    int64_t i = s->d.base + first + l;
    if (first + l < last && (s->d.first_skip < 0 || i != s->d.first_skip + query)) offer(key, index, s->d.k, lane[l], i);
  }
}

/* A block of queries by a panel; `rows` and `squares` are constants where this is inlined. */
SW_INLINE void scan_panel(const search *s, int rows, int squares, const float *block, int64_t query, int count, const float *panel,
                          int64_t first, int64_t last, float *key, int64_t *index) {
  vf sum[TILE_ROWS][2] = {0};
  tile_multiply(block, panel, TILE_COLUMNS, s->d.hidden, rows, squares, sum);
  for (int r = 0; r < rows; r++) {
    if (r >= count) break;
    float *own = key + (int64_t)r * s->d.k;
    for (int v = 0; v < 2; v++) {
      vf keys = squares ? -sum[r][v] : sum[r][v];
      unsigned hits = vf_at_least(keys, vf_set(own[0]));
      if (hits) offer_lanes(s, keys, hits, query + r, first + v * SW_LANES, last, own, index + (int64_t)r * s->d.k);
    }
  }
}
#define SCAN(rows, squares)                                                                                                      \
  static void scan_##rows##_##squares(const search *s, const float *block, int64_t query, int count, const float *panels,        \
                                      int64_t first, int64_t last, float *key, int64_t *index) {                                 \
    for (int64_t at = first; at < last; at += TILE_COLUMNS, panels += (int64_t)TILE_COLUMNS * s->d.hidden)                       \
      scan_panel(s, rows, squares, block, query, count, panels, at, last, key, index);                                                 \
  }
SCAN(TILE_ROWS, 0)
SCAN(TILE_ROWS, 1)
SCAN(4, 0)
SCAN(4, 1)
SCAN(1, 0)
SCAN(1, 1)
typedef void scan_fn(const search *s, const float *block, int64_t query, int count, const float *panels, int64_t first, int64_t last,
                     float *key, int64_t *index);

/* Queries [from, to) by corpus rows [first, last); key and index: the heap of query `from` and the following. */
static void search_plain(const search *s, int64_t from, int64_t to, int64_t first, int64_t last, float *scratch, float *key, int64_t *index) {
  static scan_fn *const scans[3][2] = {{scan_TILE_ROWS_0, scan_TILE_ROWS_1}, {scan_4_0, scan_4_1}, {scan_1_0, scan_1_1}};
  const int depth = s->d.hidden, k = s->d.k;
  float *panels = scratch, *block = scratch + s->chunk * depth;
  for (int64_t start = first; start < last; start += s->chunk) {
    int64_t end = smaller(start + s->chunk, last);
    for (int64_t row = start; row < end; row += TILE_COLUMNS)
      tile_pack_panel(s->corpus + row * depth, depth, end - row, panels + (row - start) * depth);
    for (int64_t q = from; q < to; q += TILE_ROWS) {
      int count = (int)smaller(to - q, TILE_ROWS);
      tile_pack(s->queries + q * depth, depth, count, block, SW_LANES);
      scan_fn *scan = scans[count == 1 ? 2 : count <= 4 ? 1 : 0][s->d.metric == SW_SQUARED_DISTANCE];
      scan(s, block, q, count, panels, start, end, key + (q - from) * k, index + (q - from) * k);
    }
  }
}

typedef void search_fn(const search *s, int64_t from, int64_t to, int64_t first, int64_t last, float *scratch, float *key, int64_t *index);

/* The whole call: `searching` with `floats` of scratch for each thread. */
static void run_search(sw_stream *stream, const search *s, search_fn *searching, int64_t floats, void *workspace) {
  const int64_t queries = s->d.queries, heaps = heap_entries(s), tasks = s->groups * s->segments;
  const int k = s->d.k;
  const float sign = s->d.metric == SW_SQUARED_DISTANCE ? -1 : 1;
  int64_t *heap_index = workspace;
  float *heap_key = (float *)(heap_index + heaps), *scratch = (float *)((char *)workspace + round_up(heaps * 12, 64));
  for (int64_t q = 0; q < queries; q++) {
    if (s->d.resume)
      start_again(s->key + q * k, s->index + q * k, k, sign);
    else
      start_empty(s->key + q * k, s->index + q * k, k);
  }
#pragma omp parallel num_threads(stream->threads) if (queries * s->d.corpus * s->d.hidden >= 1 << 20)
  {
    float *own = scratch + omp_get_thread_num() * floats;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; task++) {
      int64_t group = task % s->groups, segment = task / s->groups;
      int64_t from = queries * group / s->groups, to = queries * (group + 1) / s->groups;
      int64_t first = s->d.corpus * segment / s->segments, last = s->d.corpus * (segment + 1) / s->segments;
      int64_t at = (heaps ? segment * queries + from : from) * k;
      if (heaps) start_empty(heap_key + at, heap_index + at, (int)(k * (to - from)));
      searching(s, from, to, first, last, own, (heaps ? heap_key : s->key) + at, (heaps ? heap_index : s->index) + at);
    }
#pragma omp for schedule(static)
    for (int64_t q = 0; q < queries; q++) {
      for (int64_t segment = 0; heaps && segment < s->segments; segment++)
        for (int64_t at = (segment * queries + q) * k, end = at + k; at < end; at++)
          offer(s->key + q * k, s->index + q * k, k, heap_key[at], heap_index[at]);
      finish(s->key + q * k, s->index + q * k, k, sign);
    }
  }
}
#endif
