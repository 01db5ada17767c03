/* Nearest neighbours on the GPU: see neighbours.h.
 *
 * A block has 128 queries and a segment of the corpus, which passes by, 128 rows at a time. Each tile of scores is computed in fp32
 * (kernels/cuda/tile.cuh) and left in shared memory, as keys: the larger, the better. Then each of the eight warps looks at its 16
 * queries' rows. Usually none of the 128 keys reaches the worst of the query's k best: one compare and one vote. Otherwise the
 * list of the k best, which is kept sorted in global memory, comes into the warp's registers (entry 32 e + lane), takes in what is better
 * than its worst, each time by all lanes at once moving up the entries behind it, and goes back.
 *
 * Where queries are few, the corpus is cut into segments with lists of their own, which a second kernel merges. The order of pairs is
 * total (the key, then the index), so the result does not depend on segments, tiles or the order of anything. */
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/operators.cuh"
extern "C" {
#include "kernels/neighbours/check.h"
}

namespace {
constexpr int ROWS = 128, MINE = ROWS / 16, COLUMNS = SW_TILE_COLUMNS, WARPS = SW_TILE_THREADS / SW_WARP, STRIDE = COLUMNS + 1;
constexpr int BLOCKS = 264, MOST_SEGMENTS = 64, SEGMENT = 4 * COLUMNS; /* two blocks a multiprocessor; rows that pay for a merge */

struct job {
  int64_t queries, corpus, base, first_skip, segment; /* rows of a segment */
  const float *query, *row;
  int64_t *index;
  float *score;
  int64_t *lists_index; /* of the segments, [segments, queries, k]; or index and score */
  float *lists_score;
  int hidden, k, segments;
  float sign; /* key = sign * score */
  bool resume;
};

/* The k best of a query in a warp, sorted: the last k of 32 E entries 32 e + lane, so that the worst has a fixed place. What stands before
 * them is better than everything. */
template <int E> struct best {
  float key[E];
  int64_t index[E];
};
__device__ __forceinline__ bool better(float key, int64_t index, float than, int64_t than_index) {
  return key > than || (key == than && index < than_index);
}
/* Which of the k best a lane's entry e is; negative: none. */
template <int E> __device__ __forceinline__ int place(int e, int k) { return 32 * (e - E) + (int)threadIdx.x % SW_WARP + k; }
template <int E> __device__ __forceinline__ void clear(best<E> &b, int k) {
#pragma unroll
  for (int e = 0; e < E; e++) b.key[e] = place<E>(e, k) < 0 ? INFINITY : -INFINITY, b.index[e] = -1;
}
template <int E> __device__ __forceinline__ void load(best<E> &b, const float *score, const int64_t *index, int k, float sign) {
  clear(b, k);
#pragma unroll
  for (int e = 0; e < E; e++) {
    const int at = place<E>(e, k);
    if (at >= 0) b.key[e] = sign * score[at], b.index[e] = index[at];
  }
}
template <int E> __device__ __forceinline__ void store(const best<E> &b, float *score, int64_t *index, int k, float sign) {
#pragma unroll
  for (int e = 0; e < E; e++) {
    const int at = place<E>(e, k);
    if (at >= 0) score[at] = sign * b.key[e], index[at] = b.index[e];
  }
}
template <int E> __device__ __forceinline__ void worst(const best<E> &b, float *key, int64_t *index) {
  *key = __shfl_sync(SW_ALL_LANES, b.key[E - 1], SW_WARP - 1);
  *index = __shfl_sync(SW_ALL_LANES, b.index[E - 1], SW_WARP - 1);
}
/* All lanes bring the same pair. An entry that is better stays, the first that is not gives way to the pair, the rest move up. */
template <int E> __device__ __forceinline__ void insert(best<E> &b, float key, int64_t index) {
  const int lane = (int)threadIdx.x % SW_WARP;
#pragma unroll
  for (int e = E - 1; e >= 0; e--) {
    float before = __shfl_up_sync(SW_ALL_LANES, b.key[e], 1);
    int64_t index_before = __shfl_up_sync(SW_ALL_LANES, b.index[e], 1);
    if (e > 0) {
      const float last = __shfl_sync(SW_ALL_LANES, b.key[e > 0 ? e - 1 : 0], SW_WARP - 1);
      const int64_t last_index = __shfl_sync(SW_ALL_LANES, b.index[e > 0 ? e - 1 : 0], SW_WARP - 1);
      if (lane == 0) before = last, index_before = last_index;
    }
    if (better(b.key[e], b.index[e], key, index)) continue;
    const bool first = (e == 0 && lane == 0) || better(before, index_before, key, index);
    b.key[e] = first ? key : before;
    b.index[e] = first ? index : index_before;
  }
}
/* The pairs of the lanes that have one (`has`), taken in one by one; the worst afterwards. */
template <int E> __device__ __forceinline__ void take(best<E> &b, bool has, float key, int64_t index, float *worst_key, int64_t *worst_index) {
  unsigned lanes = __ballot_sync(SW_ALL_LANES, has && key > -INFINITY && better(key, index, *worst_key, *worst_index));
  while (lanes) {
    const int from = __ffs((int)lanes) - 1;
    const float new_key = __shfl_sync(SW_ALL_LANES, key, from);
    const int64_t new_index = __shfl_sync(SW_ALL_LANES, index, from);
    lanes &= lanes - 1;
    if (!better(new_key, new_index, *worst_key, *worst_index)) continue; /* in all lanes alike */
    insert(b, new_key, new_index);
    worst(b, worst_key, worst_index);
  }
}

/* The keys of a tile, from registers to shared memory; NaN where there is no pair. */
template <bool SQUARES>
__device__ __forceinline__ void put_keys(const job &j, const float (&sum)[MINE][8], float *keys, int64_t first_query, int64_t first, int64_t last) {
#pragma unroll
  for (int i = 0; i < MINE; i++) {
    const int64_t skip = j.first_skip < 0 ? -1 : j.first_skip + first_query + sw_tile_row<ROWS>(i);
#pragma unroll
    for (int c = 0; c < 8; c++) {
      const int64_t row = first + sw_tile_column(c);
      const bool pair = row < last && j.base + row != skip;
      keys[sw_tile_row<ROWS>(i) * STRIDE + sw_tile_column(c)] = pair ? (SQUARES ? -sum[i][c] : sum[i][c]) : NAN;
    }
  }
}

/* A warp's row of keys, of corpus rows from `first` on, into the query's list. */
template <int E>
__device__ __forceinline__ void select(const job &j, const float *keys, int64_t first, float *score, int64_t *index, float *worst_key,
                                       int64_t *worst_index) {
  const int lane = (int)threadIdx.x % SW_WARP;
  float key[COLUMNS / SW_WARP];
  bool any = false;
#pragma unroll
  for (int n = 0; n < COLUMNS / SW_WARP; n++) {
    key[n] = keys[n * SW_WARP + lane];
    any = any || key[n] >= *worst_key;
  }
  if (!__any_sync(SW_ALL_LANES, any)) return;
  best<E> b;
  float limit = *worst_key;
  int64_t limit_index = *worst_index;
  load(b, score, index, j.k, j.sign);
#pragma unroll
  for (int n = 0; n < COLUMNS / SW_WARP; n++) take(b, true, key[n], j.base + first + n * SW_WARP + lane, &limit, &limit_index);
  store(b, score, index, j.k, j.sign);
  if (lane == 0) *worst_key = limit, *worst_index = limit_index; /* read at the next tile, behind barriers */
}

template <int E, bool SQUARES> static __global__ void __launch_bounds__(SW_TILE_THREADS, 1) search(const job j) {
  SW_DYNAMIC_SHARED(float, shared); /* slices; keys [ROWS][STRIDE] */
  SW_SHARED(float, worst_key, ROWS);
  SW_SHARED(int64_t, worst_index, ROWS);
  float *keys = shared + SW_TILE_SHARED<ROWS>;
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP;
  const int64_t first_query = (int64_t)blockIdx.x * ROWS, begin = blockIdx.y * j.segment;
  const int64_t end = begin + j.segment < j.corpus ? begin + j.segment : j.corpus;
  const int count = (int)(j.queries - first_query < ROWS ? j.queries - first_query : ROWS);
  const int64_t lists = ((int64_t)blockIdx.y * j.queries + first_query) * j.k;
  for (int r = warp; r < count; r += WARPS) {
    float *score = j.lists_score + lists + (int64_t)r * j.k;
    int64_t *index = j.lists_index + lists + (int64_t)r * j.k;
    best<E> b;
    float limit;
    int64_t limit_index;
    if (j.resume && j.segments == 1) {
      load(b, score, index, j.k, j.sign);
    } else {
      clear(b, j.k);
      store(b, score, index, j.k, j.sign);
    }
    worst(b, &limit, &limit_index);
    if (lane == 0) worst_key[r] = limit, worst_index[r] = limit_index;
  }
  for (int64_t first = begin; first < end; first += COLUMNS) {
    float sum[MINE][8];
    sw_tile<ROWS, SQUARES>(sum, j.query + first_query * j.hidden, count, j.row + first * j.hidden, end - first, j.hidden, shared);
    put_keys<SQUARES>(j, sum, keys, first_query, first, end); /* a barrier of sw_tile has seen the selection before end */
    __syncthreads();                                          /* also behind the last reads of the slices */
    for (int r = warp; r < count; r += WARPS) {
      const int64_t at = lists + (int64_t)r * j.k;
      select<E>(j, keys + r * STRIDE, first, j.lists_score + at, j.lists_index + at, worst_key + r, worst_index + r);
    }
  }
}

/* The lists of the segments to the result; a warp a query. */
template <int E> static __global__ void __launch_bounds__(SW_TILE_THREADS) merge(const job j) {
  const int64_t query = (int64_t)blockIdx.x * WARPS + threadIdx.x / SW_WARP;
  if (query >= j.queries) return;
  const int lane = (int)threadIdx.x % SW_WARP;
  best<E> b;
  float limit;
  int64_t limit_index;
  if (j.resume)
    load(b, j.score + query * j.k, j.index + query * j.k, j.k, j.sign);
  else
    clear(b, j.k);
  worst(b, &limit, &limit_index);
  for (int segment = 0; segment < j.segments; segment++) {
    const int64_t at = (segment * j.queries + query) * j.k;
    for (int n = 0; n < j.k; n += SW_WARP) {
      const bool has = n + lane < j.k;
      take(b, has, has ? j.sign * j.lists_score[at + n + lane] : 0, has ? j.lists_index[at + n + lane] : 0, &limit, &limit_index);
    }
  }
  store(b, j.score + query * j.k, j.index + query * j.k, j.k, j.sign);
}

int64_t segments_of(const sw_neighbours_desc *d) {
  const int64_t tiles = (d->queries + ROWS - 1) / ROWS, wanted = tiles ? (BLOCKS + tiles - 1) / tiles : 1, useful = d->corpus / SEGMENT;
  const int64_t segments = wanted < useful ? wanted : useful;
  return segments < 1 ? 1 : segments < MOST_SEGMENTS ? segments : MOST_SEGMENTS;
}
template <int E> int launch(const sw_stream *stream, const sw_neighbours_desc *d, const job &j) {
  const size_t shared = (SW_TILE_SHARED<ROWS> + ROWS * STRIDE) * sizeof(float);
  const dim3 grid(sw_blocks(d->queries, ROWS), (unsigned)j.segments);
  if (d->metric == SW_SQUARED_DISTANCE ? sw_launch(stream, "neighbours", search<E, true>, grid, dim3(SW_TILE_THREADS), shared, j)
                                       : sw_launch(stream, "neighbours", search<E, false>, grid, dim3(SW_TILE_THREADS), shared, j))
    return -1;
  return j.segments > 1 ? sw_launch(stream, "neighbours: merge", merge<E>, dim3(sw_blocks(d->queries, WARPS)), dim3(SW_TILE_THREADS), 0, j) : 0;
}
} // namespace

int sw_cuda_neighbours_workspace(sw_stream *stream, const sw_neighbours_desc *desc, size_t *bytes) {
  if (neighbours_check(desc)) return -1;
  /* with fewer queries there may be more segments: tiles (BLOCKS / tiles + 1) blocks of lists at most, and MOST_SEGMENTS of them a query */
  const int64_t useful = desc->corpus / SEGMENT, most = useful < MOST_SEGMENTS ? useful : MOST_SEGMENTS, each = desc->queries * most;
  const int64_t bound = (int64_t)ROWS * 2 * BLOCKS;
  *bytes = most > 1 ? (size_t)((each < bound ? each : bound) * desc->k) * (sizeof(int64_t) + sizeof(float)) : 0;
  return 0;
}

int sw_cuda_neighbours(sw_stream *stream, const sw_neighbours_desc *desc, const float *queries, const float *corpus, int64_t *index,
                       float *score, void *workspace) {
  if (neighbours_check(desc)) return -1;
  const int64_t segments = segments_of(desc), each = (desc->corpus + segments - 1) / segments;
  int64_t *lists = (int64_t *)workspace;
  const job j = {desc->queries, desc->corpus, desc->base, desc->first_skip, (each + COLUMNS - 1) / COLUMNS * COLUMNS, queries, corpus, index, score,
                 segments > 1 ? lists : index, segments > 1 ? (float *)(lists + segments * desc->queries * desc->k) : score, desc->hidden,
                 desc->k, (int)segments, desc->metric == SW_SQUARED_DISTANCE ? -1.0f : 1.0f, desc->resume != 0};
  return desc->k <= SW_WARP ? launch<1>(stream, desc, j) : launch<SW_MOST_NEIGHBOURS / SW_WARP>(stream, desc, j);
}
