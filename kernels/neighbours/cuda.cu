/* Nearest neighbours on the GPU: see neighbours.h.
 *
 * A block has 128 queries and a segment of the corpus, which passes by, 128 rows at a time. The k best of each query are kept sorted in
 * global memory. Where there is something to take in, the list comes into a warp's registers (entry 32 e + lane), takes in what is better
 * than its worst, each time by all lanes at once moving up the entries behind it, and goes back.
 *
 * Plain tiles: all scores of the tile are computed in fp32 (kernels/cuda/tile.cuh) and left in shared memory, as keys: the larger, the
 * better. Then each of the eight warps looks at its 16 queries' rows. Usually none of the 128 keys reaches the worst of the query's k
 * best: one compare and one vote.
 *
 * Tensor tiles: the tensor cores multiply the rows as bf16, rounded beforehand, and what cannot reach the worst of the query's k best is
 * ruled out by a bound. The few pairs that are left are computed in fp32 by the contract's chain, a lane a pair, so that nothing
 * depends on the rounding, which decides only what need not be computed. With rounded rows q' and c', Cauchy and Schwarz:
 *   |q.c - q'.c'| <= |q - q'| |c| + |q'| |c - c'|
 * and what the tensor cores and the chain lose in fp32 is below a small multiple of hidden 2^-24 |q| |c|. The norms of what was rounded away
 * are measured, in double; of the corpus the bound takes a tile's largest. A distance is |q|^2 + |c|^2 - 2 q.c: half its key is
 * q.c - |c|^2 / 2 up to a constant of the query. Whatever is not finite, or so large that sums might not be, makes a bound that is infinite or NaN,
 * and such pairs are computed. Where too many pairs of a tile are left (equal texts, or a list that is not filled up yet), it becomes a plain one.
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
constexpr int DEPTH = 64, CHUNKS = DEPTH / 8, SLICE = ROWS * DEPTH; /* a slice of bf16 rows in shared memory, in 16-byte chunks */
constexpr int WORDS = COLUMNS / 32, MOST_PAIRS = ROWS * COLUMNS / 16;  /* of a tensor tile: bits of a row; pairs, more than which a plain tile is quicker */
constexpr int FIRST_PLAIN = 8;                                         /* times k: rows in which most lists change */
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
  int width;                             /* of a rounded row; 0: plain tiles only */
  const sw_bf16 *query_bf16, *row_bf16;
  const float4 *query_measures;          /* |q - q'| and what fp32 loses, |q'|, slack, |q|^2 / 2 for distances */
  const float *half_square;              /* |c|^2 / 2 for distances, otherwise 0 */
  const float4 *tile_measures;           /* the largest of 128 rows: |c|, |c - c'|, slack */
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

/* --- tensor tiles --- */

/* A float above x >= 0, never 0. */
__device__ __forceinline__ float above(double x) { return (float)(x * 1.001 + 0x1p-126); }

/* 128 rows as bf16, filled up with zeros, and what the bound needs of them. Numbers that bf16 holds with fewer digits only (below
 * 2^-126) become zeros: tensor cores may do so. */
template <bool QUERIES, bool SQUARES>
static __global__ void __launch_bounds__(SW_TILE_THREADS)
    round_rows(int64_t rows, int hidden, int width, const float *x, sw_bf16 *rounded, float4 *measures, float *half_square) {
  SW_SHARED(float4, largest, WARPS);
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP;
  const int64_t end = min((long)rows, (long)(blockIdx.x + 1) * ROWS);
  const float rounding = (float)(hidden + 16) * 0x1p-22f; /* of sums in fp32, relative to the product of the norms */
  float4 most = make_float4(0, 0, 0, 0);
  for (int64_t r = (int64_t)blockIdx.x * ROWS + warp; r < end; r += WARPS) {
    double square = 0, error = 0, norm = 0;
    for (int d = lane; d < width; d += SW_WARP) {
      const float v = d < hidden ? x[r * hidden + d] : 0.0f;
      sw_bf16 b = sw_from_float<sw_bf16>(v);
      if ((b & 0x7f80) == 0) b = 0;
      const float near = sw_to_float(b), lost = v - near;
      rounded[r * width + d] = b;
      square += (double)v * v, error += (double)lost * lost, norm += (double)near * near;
    }
    square = sw_warp_sum(square), error = sqrt(sw_warp_sum(error)), norm = sqrt(sw_warp_sum(norm));
    const float half = SQUARES ? (float)(square / 2) : 0.0f;
    if (QUERIES) {
      if (lane == 0)
        measures[r] = make_float4(above(error + rounding * sqrt(square)), above(norm), rounding * half + (float)hidden * 0x1p-120f, half);
    } else {
      if (lane == 0) half_square[r] = half;
      most.x = fmaxf(most.x, above(sqrt(square))); /* fmaxf leaves out NaN: such a row's own scores are NaN */
      most.y = fmaxf(most.y, above(error));
      most.z = fmaxf(most.z, rounding * half);
    }
  }
  if (QUERIES) return;
  if (lane == 0) largest[warp] = most;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 1; w < WARPS; w++)
    most = make_float4(fmaxf(most.x, largest[w].x), fmaxf(most.y, largest[w].y), fmaxf(most.z, largest[w].z), 0);
  measures[blockIdx.x] = most;
}

/* What a pair's score, minus |c|^2 / 2, must reach to matter to a query whose k best end with `worst`. */
template <bool SQUARES> __device__ __forceinline__ float limit_of(float worst, const float4 &q, const float4 &tile) {
  const float norms = q.y * tile.x;
  float bound = q.x * tile.x + q.y * tile.y + (q.z + tile.z);
  bound += 0.0f * (8 * norms); /* NaN where sums of products might overflow on the way */
  return (SQUARES ? 0.5f * worst + q.w : worst) - bound;
}

/* Where a chunk of a row is in a slice: neither copies nor ldmatrix meet bank conflicts. */
__device__ __forceinline__ int chunk_at(int row, int chunk) { return row * DEPTH + (chunk ^ (row & 7)) * 8; }
/* `rows` rows from depth `first` on, in the background; zeros up to the next `whole` rows and beyond the width. */
__device__ __forceinline__ void copy_slice(sw_bf16 *slice, const sw_bf16 *x, int rows, int whole, int width, int first) {
  for (int i = threadIdx.x; i < (rows + whole - 1) / whole * whole * CHUNKS; i += SW_TILE_THREADS) {
    const int row = i / CHUNKS, chunk = i % CHUNKS;
    const bool valid = row < rows && first + chunk * 8 < width;
    sw_async_copy16(slice + chunk_at(row, chunk), valid ? x + (int64_t)row * width + first + chunk * 8 : x, valid);
  }
}
/* A warp's 32 rows by 64 columns, or nothing where its rows or columns are none. */
struct patch {
  int row, column;
  bool any;
  float c[2][8][4];
};
__device__ __forceinline__ void multiply(patch &p, const sw_bf16 *a_slice, const sw_bf16 *b_slice, int steps) {
  const int lane = (int)threadIdx.x % SW_WARP;
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; m++) sw_ldmatrix_x4(a[m], a_slice + chunk_at(p.row + m * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      sw_ldmatrix_x4(b, b_slice + chunk_at(p.column + n * 8 + (lane >> 4) * 8 + (lane & 7), 2 * k + (lane >> 3 & 1)));
#pragma unroll
      for (int m = 0; m < 2; m++) {
        sw_mma_bf16(p.c[m][n], a[m], b);
        sw_mma_bf16(p.c[m][n + 1], a[m], b + 2);
      }
    }
  }
}
/* The pairs of the patch that may matter, as bits [ROWS][WORDS]; how many. */
__device__ __forceinline__ int mark(const job &j, const patch &p, const float *limits, int count, int64_t first, int columns, unsigned *bits) {
  const int lane = (int)threadIdx.x % SW_WARP, g = lane / 4, t = lane % 4;
  unsigned found[2][2][2] = {}; /* [m][upper rows][32 columns] */
  float half[8][2];
  bool any = false;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int column = p.column + n * 8 + 2 * t + e;
      half[n][e] = p.any && column < columns ? j.half_square[first + column] : 0.0f;
    }
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = p.row + m * 16 + h * 8 + g;
      const float limit = p.any && row < count ? limits[row] : 0.0f;
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const int at = n * 8 + 2 * t + e;
          const bool hit = p.any && row < count && p.column + at < columns && !(p.c[m][n][2 * h + e] - half[n][e] < limit); /* or NaN */
          found[m][h][n / 4] |= (hit ? 1u : 0u) << at % 32;
          any = any || hit;
        }
    }
  any = __any_sync(SW_ALL_LANES, any);
  int number = 0;
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int w = 0; w < 2; w++) {
        unsigned word = found[m][h][w];
        if (any) {
          word |= __shfl_xor_sync(SW_ALL_LANES, word, 1);
          word |= __shfl_xor_sync(SW_ALL_LANES, word, 2);
        }
        if (t == 0) {
          bits[(p.row + m * 16 + h * 8 + g) * WORDS + p.column / 32 + w] = word;
          number += __popc(word);
        }
      }
  return any ? sw_warp_sum(number) : 0;
}
/* The contract's chain. */
template <bool SQUARES> __device__ __forceinline__ float chain(const float *q, const float *c, int hidden) {
  float sum = 0;
  const auto add = [&](float a, float b) {
    const float u = SQUARES ? __fsub_rn(a, b) : a;
    sum = __fmaf_rn(u, SQUARES ? u : b, sum);
  };
  int d = 0;
  if (hidden % 4 == 0)
#pragma unroll 4
    for (; d < hidden; d += 4) {
      const float4 a = sw_load4(q + d), b = sw_load4(c + d);
      add(a.x, b.x), add(a.y, b.y), add(a.z, b.z), add(a.w, b.w);
    }
  for (; d < hidden; d++) add(q[d], c[d]);
  return sum;
}
/* Row n of a warp's 16. */
__device__ __forceinline__ int warp_row(int n) { return n * WARPS + (int)threadIdx.x / SW_WARP; }

/* The marked pairs of a warp's rows, computed and taken in; `pairs`: the warp's own room for MOST_PAIRS. */
template <int E, bool SQUARES>
__device__ __forceinline__ void take_marked(const job &j, const unsigned *bits, uint16_t *pairs, int64_t first_query, int count, int64_t first,
                                            int64_t lists, float *worst_key, int64_t *worst_index) {
  const int lane = (int)threadIdx.x % SW_WARP;
  int number = 0;
#pragma unroll 1
  for (int half = 0; half < 2; half++) { /* a lane has a word of 8 of the rows */
    const int own = warp_row(half * 8 + lane / WORDS);
    const unsigned word = own < count ? bits[own * WORDS + lane % WORDS] : 0;
    for (unsigned lanes = __ballot_sync(SW_ALL_LANES, word != 0); lanes; lanes &= lanes - 1) {
      const int from = __ffs((int)lanes) - 1;
      const unsigned these = __shfl_sync(SW_ALL_LANES, word, from);
      if (these >> lane & 1) pairs[number + __popc(these & ((1u << lane) - 1))] = (uint16_t)((half * 8 + from / WORDS) * COLUMNS + from % WORDS * 32 + lane);
      number += __popc(these);
    }
  }
  __syncwarp();
#pragma unroll 1
  for (int at = 0; at < number; at += SW_WARP) {
    const bool has = at + lane < number;
    const int pair = has ? pairs[at + lane] : 0, row = warp_row(pair / COLUMNS), column = pair % COLUMNS;
    const int64_t index = j.base + first + column;
    float key = -INFINITY;
    if (has && !(j.first_skip >= 0 && index == j.first_skip + first_query + row))
      key = j.sign * chain<SQUARES>(j.query + (first_query + row) * j.hidden, j.row + (first + column) * j.hidden, j.hidden);
    const bool good = has && (at > 0 || better(key, index, worst_key[row], worst_index[row])); /* read before it changes, or not at all */
    for (unsigned left = __ballot_sync(SW_ALL_LANES, good); left;) { /* row by row */
      const int r = __shfl_sync(SW_ALL_LANES, row, __ffs((int)left) - 1);
      const unsigned same = __ballot_sync(SW_ALL_LANES, good && row == r);
      const int64_t list = lists + (int64_t)r * j.k;
      best<E> b;
      float limit;
      int64_t limit_index;
      load(b, j.lists_score + list, j.lists_index + list, j.k, j.sign);
      worst(b, &limit, &limit_index);
      take(b, good && row == r, key, index, &limit, &limit_index);
      store(b, j.lists_score + list, j.lists_index + list, j.k, j.sign);
      if (lane == 0) worst_key[r] = limit, worst_index[r] = limit_index; /* for the next tile */
      left &= ~same;
    }
  }
}

/* The buffers of tensor tiles, in the place of plain tiles' slices and keys; two of each slice. */
struct tensor_shared {
  sw_bf16 query[2][SLICE], row[2][SLICE];
  uint16_t pairs[WARPS][MOST_PAIRS];
  unsigned bits[ROWS * WORDS];
};
static_assert(sizeof(tensor_shared) <= (SW_TILE_SHARED<ROWS> + ROWS * STRIDE) * sizeof(float), "shared memory is that of plain tiles");

__device__ __forceinline__ void copy_slices(const job &j, tensor_shared *t, int buffer, int64_t first_query, int count, int64_t first, int columns,
                                            int depth) {
  copy_slice(t->query[buffer], j.query_bf16 + first_query * j.width, count, 32, j.width, depth);
  copy_slice(t->row[buffer], j.row_bf16 + first * j.width, columns, 64, j.width, depth);
  sw_async_commit();
}

template <int E, bool SQUARES> static __global__ void __launch_bounds__(SW_TILE_THREADS, 1) search(const job j) {
  SW_DYNAMIC_SHARED(float, shared); /* slices; keys [ROWS][STRIDE]; or tensor_shared */
  SW_SHARED(float, worst_key, ROWS);
  SW_SHARED(int64_t, worst_index, ROWS);
  SW_SHARED(float, limits, ROWS);
  SW_SHARED(int, marked, WARPS);
  float *keys = shared + SW_TILE_SHARED<ROWS>;
  tensor_shared *tensor = reinterpret_cast<tensor_shared *>(shared);
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
  const int64_t first_tensor = !j.width ? end : j.resume && j.segments == 1 ? begin : begin + FIRST_PLAIN * j.k;
  int buffer = 0;
  bool under_way = false; /* the first slices of this tile */
  for (int64_t first = begin; first < end; first += COLUMNS) {
    if (first >= first_tensor) {
      const int columns = (int)(end - first < COLUMNS ? end - first : COLUMNS), slices = (j.width + DEPTH - 1) / DEPTH;
      __syncthreads(); /* the lists are those of the tile before, and its keys are no longer read */
      if (!under_way) copy_slices(j, tensor, buffer, first_query, count, first, columns, 0);
      if ((int)threadIdx.x < count)
        limits[threadIdx.x] = limit_of<SQUARES>(worst_key[threadIdx.x], j.query_measures[first_query + threadIdx.x], j.tile_measures[first / COLUMNS]);
      patch p = {warp / 2 * 32, warp % 2 * 64, false, {}};
      p.any = p.row < count && p.column < columns;
      for (int s = 0; s < slices; s++, buffer ^= 1) {
        sw_async_wait<0>();
        __syncthreads(); /* the slice is there, and the one before no longer read */
        if (s + 1 < slices) copy_slices(j, tensor, buffer ^ 1, first_query, count, first, columns, (s + 1) * DEPTH);
        const int left = (j.width - s * DEPTH) / 16;
        if (p.any) multiply(p, tensor->query[buffer], tensor->row[buffer], left < DEPTH / 16 ? left : DEPTH / 16);
      }
      const int number = mark(j, p, limits, count, first, columns, tensor->bits);
      if (lane == 0) marked[warp] = number;
      __syncthreads();
      int pairs = 0;
#pragma unroll
      for (int w = 0; w < WARPS; w++) pairs += marked[w];
      under_way = pairs <= MOST_PAIRS && first + COLUMNS < end;
      if (under_way) {
        const int64_t next = first + COLUMNS;
        copy_slices(j, tensor, buffer, first_query, count, next, (int)(end - next < COLUMNS ? end - next : COLUMNS), 0);
      }
      if (pairs <= MOST_PAIRS) {
        take_marked<E, SQUARES>(j, tensor->bits, tensor->pairs[warp], first_query, count, first, lists, worst_key, worst_index);
        continue;
      }
    }
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

/* Rounding reads the corpus once, and pays where a tile is a tensor one. Does not depend on the number of queries: the workspace of more is
 * enough for fewer. */
int width_of(const sw_neighbours_desc *d) {
  const int64_t plain = FIRST_PLAIN * d->k;
  return d->corpus > (plain > COLUMNS ? plain : COLUMNS) ? (d->hidden + 15) / 16 * 16 : 0;
}
int64_t segments_of(const sw_neighbours_desc *d) {
  const int64_t tiles = (d->queries + ROWS - 1) / ROWS, wanted = tiles ? (BLOCKS + tiles - 1) / tiles : 1, useful = d->corpus / SEGMENT;
  const int64_t segments = wanted < useful ? wanted : useful;
  return segments < 1 ? 1 : segments < MOST_SEGMENTS ? segments : MOST_SEGMENTS;
}
template <int E> int launch(const sw_stream *stream, const sw_neighbours_desc *d, const job &j) {
  const bool squares = d->metric == SW_SQUARED_DISTANCE;
  if (j.width) {
    const auto round = [&](auto *kernel, int64_t rows, const float *x, const sw_bf16 *rounded, const float4 *measures, const float *half) {
      return sw_launch(stream, "neighbours: rounding", kernel, dim3(sw_blocks(rows, ROWS)), dim3(SW_TILE_THREADS), 0, rows, d->hidden, j.width, x,
                       (sw_bf16 *)rounded, (float4 *)measures, (float *)half);
    };
    if (round(squares ? round_rows<true, true> : round_rows<true, false>, d->queries, j.query, j.query_bf16, j.query_measures, nullptr) ||
        round(squares ? round_rows<false, true> : round_rows<false, false>, d->corpus, j.row, j.row_bf16, j.tile_measures, j.half_square))
      return -1;
  }
  const size_t shared = (SW_TILE_SHARED<ROWS> + ROWS * STRIDE) * sizeof(float);
  const dim3 grid(sw_blocks(d->queries, ROWS), (unsigned)j.segments);
  if (squares ? sw_launch(stream, "neighbours", search<E, true>, grid, dim3(SW_TILE_THREADS), shared, j)
                                       : sw_launch(stream, "neighbours", search<E, false>, grid, dim3(SW_TILE_THREADS), shared, j))
    return -1;
  return j.segments > 1 ? sw_launch(stream, "neighbours: merge", merge<E>, dim3(sw_blocks(d->queries, WARPS)), dim3(SW_TILE_THREADS), 0, j) : 0;
}

/* The workspace: the segments' lists, then rounded rows and their measures. */
size_t whole_lines(int64_t bytes) { return (size_t)((bytes + 127) / 128 * 128); }
size_t lists_bytes(int64_t lists, int k) { return lists > 0 ? whole_lines(lists * k * (int64_t)(sizeof(int64_t) + sizeof(float))) : 0; }
size_t place_rounded(const sw_neighbours_desc *d, job *j, char *memory) {
  char *at = memory;
  const auto take = [&](int64_t bytes) { char *here = at; return at += whole_lines(bytes), here; };
  j->width = width_of(d);
  if (!j->width) return 0;
  j->query_bf16 = (const sw_bf16 *)take(d->queries * j->width * (int64_t)sizeof(sw_bf16));
  j->row_bf16 = (const sw_bf16 *)take(d->corpus * j->width * (int64_t)sizeof(sw_bf16));
  j->query_measures = (const float4 *)take(d->queries * (int64_t)sizeof(float4));
  j->tile_measures = (const float4 *)take((d->corpus + COLUMNS - 1) / COLUMNS * (int64_t)sizeof(float4));
  j->half_square = (const float *)take(d->corpus * (int64_t)sizeof(float));
  return (size_t)(at - memory);
}
} // namespace

int sw_cuda_neighbours_workspace(sw_stream *stream, const sw_neighbours_desc *desc, size_t *bytes) {
  if (neighbours_check(desc)) return -1;
  /* with fewer queries there may be more segments: tiles (BLOCKS / tiles + 1) blocks of lists at most, and MOST_SEGMENTS of them a query */
  const int64_t useful = desc->corpus / SEGMENT, most = useful < MOST_SEGMENTS ? useful : MOST_SEGMENTS, each = desc->queries * most;
  const int64_t bound = (int64_t)ROWS * 2 * BLOCKS;
  job j = {};
  *bytes = (most > 1 ? lists_bytes(each < bound ? each : bound, desc->k) : 0) + place_rounded(desc, &j, nullptr);
  return 0;
}

int sw_cuda_neighbours(sw_stream *stream, const sw_neighbours_desc *desc, const float *queries, const float *corpus, int64_t *index,
                       float *score, void *workspace) {
  if (neighbours_check(desc)) return -1;
  const int64_t segments = segments_of(desc), each = (desc->corpus + segments - 1) / segments, listed = segments > 1 ? segments * desc->queries : 0;
  int64_t *lists = (int64_t *)workspace;
  job j = {desc->queries, desc->corpus, desc->base, desc->first_skip, (each + COLUMNS - 1) / COLUMNS * COLUMNS, queries, corpus, index, score,
           listed ? lists : index, listed ? (float *)(lists + listed * desc->k) : score, desc->hidden, desc->k, (int)segments,
           desc->metric == SW_SQUARED_DISTANCE ? -1.0f : 1.0f, desc->resume != 0, 0, nullptr, nullptr, nullptr, nullptr, nullptr};
  place_rounded(desc, &j, (char *)workspace + lists_bytes(listed, desc->k));
  return desc->k <= SW_WARP ? launch<1>(stream, desc, j) : launch<SW_MOST_NEIGHBOURS / SW_WARP>(stream, desc, j);
}
