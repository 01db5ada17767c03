/* The in-batch-negatives loss on the GPU: see contrastive.h for the mathematics.
 *
 * As on the CPU, three kernels of one shape: a block owns 64 rows of one side, and the other side passes by, 128 rows at a time, each time
 * a tile of scores (kernels/cuda/tile.cuh) in registers.
 *   sums               own queries: each thread keeps the largest score and the sum of e^(s - largest) of its columns; at the end the 16
 *                      threads of a row combine theirs. Blocks add up their rows' losses in double, kernels/cuda/sum.cuh the blocks.
 *   query gradient     own queries, others candidates: the tile becomes g in shared memory, and dq += g c, 128 features at a time. dq
 *                      waits in global memory meanwhile, where only this block sees it.
 *   candidate gradient own candidates, others queries: the same with g^T q.
 * Deterministic: every sum runs over the other side in its order, in one thread. */
#include "kernels/cuda/sum.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/operators.cuh"
extern "C" {
#include "kernels/contrastive/check.h"
}

namespace {
constexpr int OWN = 64, MINE = OWN / 16, OTHERS = SW_TILE_COLUMNS, STRIDE = OWN + 4; /* of g in shared memory: its rows stay 16-byte aligned */

struct job {
  int64_t own_count, other_count;
  const float *own, *other;
  float *out; /* gradient of own */
  const int32_t *positive;
  const float *row_weights;
  float *largest, *factor, *base; /* of the queries: g = factor e^(s - largest), less base at the positive */
  double *partials;
  int hidden, candidates;
  float similarity_scale, scale;
};

static __global__ void __launch_bounds__(SW_TILE_THREADS, 2) sums(const job j) {
  SW_SHARED(float, slices, SW_TILE_SHARED<OWN>);
  double total = 0;
  for (int64_t first = (int64_t)blockIdx.x * OWN; first < j.own_count; first += (int64_t)gridDim.x * OWN) {
    float largest[MINE], sum[MINE], picked[MINE];
    int positive[MINE];
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      const int64_t row = first + sw_tile_row<OWN>(i);
      largest[i] = -INFINITY, sum[i] = 0, picked[i] = 0;
      positive[i] = row < j.own_count ? j.positive[row] : 0;
    }
    for (int64_t at = 0; at < j.other_count; at += OTHERS) {
      float s[MINE][8];
      __syncthreads(); /* the slices of the tile before are no longer read */
      sw_tile<OWN, false>(s, j.own + first * j.hidden, j.own_count - first, j.other + at * j.hidden, j.other_count - at, j.hidden, slices);
#pragma unroll
      for (int i = 0; i < MINE; i++) {
        float top = largest[i];
#pragma unroll
        for (int c = 0; c < 8; c++) {
          const int64_t column = at + sw_tile_column(c);
          s[i][c] = column < j.other_count ? s[i][c] * j.similarity_scale : -INFINITY;
          if (column == positive[i]) picked[i] = s[i][c];
          top = fmaxf(top, s[i][c]);
        }
        if (top == -INFINITY) continue; /* nothing yet */
        sum[i] *= expf(largest[i] - top);
        largest[i] = top;
#pragma unroll
        for (int c = 0; c < 8; c++) sum[i] += expf(s[i][c] - top);
      }
    }
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      float top = largest[i];
#pragma unroll
      for (int step = 8; step; step >>= 1) top = fmaxf(top, __shfl_xor_sync(SW_ALL_LANES, top, step));
      sum[i] *= largest[i] == -INFINITY ? 0.0f : expf(largest[i] - top); /* NaN stays NaN */
#pragma unroll
      for (int step = 8; step; step >>= 1) {
        sum[i] += __shfl_xor_sync(SW_ALL_LANES, sum[i], step);
        picked[i] += __shfl_xor_sync(SW_ALL_LANES, picked[i], step);
      }
      const int64_t row = first + sw_tile_row<OWN>(i);
      if (row >= j.own_count || threadIdx.x % 16) continue;
      double weight = j.row_weights ? j.row_weights[row] : 1.0;
      if (positive[i] < 0 || positive[i] >= j.candidates) weight = NAN;
      const float base = (float)(weight * j.scale * j.similarity_scale);
      total += weight * ((double)top - picked[i] + (double)logf(sum[i]));
      j.largest[row] = top;
      j.factor[row] = base / sum[i];
      j.base[row] = base;
    }
  }
  total = sw_block_sum(total);
  if (threadIdx.x == 0) j.partials[blockIdx.x] = total;
}

/* Four floats of a row from column h on; those beyond the row are 0 / not written. */
__device__ __forceinline__ float4 load_row4(const float *row, int h, int hidden) {
  if (hidden % 4 == 0) return h < hidden ? sw_load4(row + h) : make_float4(0, 0, 0, 0);
  return make_float4(h < hidden ? row[h] : 0.0f, h + 1 < hidden ? row[h + 1] : 0.0f, h + 2 < hidden ? row[h + 2] : 0.0f,
                     h + 3 < hidden ? row[h + 3] : 0.0f);
}
__device__ __forceinline__ void store_row4(float *row, int h, int hidden, float4 v) {
  if (hidden % 4 == 0) {
    if (h < hidden) sw_store4(row + h, v);
    return;
  }
  if (h < hidden) row[h] = v.x;
  if (h + 1 < hidden) row[h + 1] = v.y;
  if (h + 2 < hidden) row[h + 2] = v.z;
  if (h + 3 < hidden) row[h + 3] = v.w;
}

/* out (rows from `first` on, features from h0 on) += g [64, others] other [others, 128 features]. g: [others][STRIDE]. */
__device__ __forceinline__ void add_features(const job &j, const float *g, float *slice, int64_t first, int64_t at, int h0) {
  const int y = (int)threadIdx.x / 16, others = (int)(j.other_count - at < OTHERS ? j.other_count - at : OTHERS);
  float sum[MINE][8];
#pragma unroll
  for (int i = 0; i < MINE; i++) {
    const int64_t row = first + sw_tile_row<OWN>(i);
#pragma unroll
    for (int c = 0; c < 8; c += 4) {
      const float4 v = at > 0 && row < j.own_count ? load_row4(j.out + row * j.hidden, h0 + sw_tile_column(c), j.hidden) : make_float4(0, 0, 0, 0);
      sum[i][c] = v.x, sum[i][c + 1] = v.y, sum[i][c + 2] = v.z, sum[i][c + 3] = v.w;
    }
  }
  for (int k0 = 0; k0 < others; k0 += SW_TILE_DEPTH) {
    const int here = min(SW_TILE_DEPTH, others - k0);
    __syncthreads(); /* g is written; the slice before is no longer read */
    for (int i = threadIdx.x; i < here * 32; i += SW_TILE_THREADS)
      *reinterpret_cast<float4 *>(slice + i * 4) = load_row4(j.other + (at + k0 + i / 32) * j.hidden, h0 + i % 32 * 4, j.hidden);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < here; k++) {
      const float4 p = *reinterpret_cast<const float4 *>(g + (k0 + k) * STRIDE + y * MINE);
      const float mine[MINE] = {p.x, p.y, p.z, p.w};
#pragma unroll
      for (int c = 0; c < 8; c += 4) {
        const float4 q = *reinterpret_cast<const float4 *>(slice + k * 128 + sw_tile_column(c));
#pragma unroll
        for (int i = 0; i < MINE; i++) {
          sum[i][c] = fmaf(mine[i], q.x, sum[i][c]);
          sum[i][c + 1] = fmaf(mine[i], q.y, sum[i][c + 1]);
          sum[i][c + 2] = fmaf(mine[i], q.z, sum[i][c + 2]);
          sum[i][c + 3] = fmaf(mine[i], q.w, sum[i][c + 3]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < MINE; i++) {
    const int64_t row = first + sw_tile_row<OWN>(i);
    if (row >= j.own_count) continue;
#pragma unroll
    for (int c = 0; c < 8; c += 4)
      store_row4(j.out + row * j.hidden, h0 + sw_tile_column(c), j.hidden, make_float4(sum[i][c], sum[i][c + 1], sum[i][c + 2], sum[i][c + 3]));
  }
}

template <bool CANDIDATES> static __global__ void __launch_bounds__(SW_TILE_THREADS, 1) gradient(const job j) {
  SW_DYNAMIC_SHARED(float, shared); /* slices; g [OTHERS][STRIDE] */
  float *g = shared + SW_TILE_SHARED<OWN>;
  const int64_t first = (int64_t)blockIdx.x * OWN;
  for (int64_t at = 0; at < j.other_count; at += OTHERS) {
    float s[MINE][8];
    if (at) __syncthreads(); /* the last features of the tile before are made */
    sw_tile<OWN, false>(s, j.own + first * j.hidden, j.own_count - first, j.other + at * j.hidden, j.other_count - at, j.hidden, shared);
#pragma unroll
    for (int c = 0; c < 8; c++) {
      const int64_t column = at + sw_tile_column(c);
      if (column >= j.other_count) continue;
      float value[MINE];
#pragma unroll
      for (int i = 0; i < MINE; i++) {
        const int64_t row = first + sw_tile_row<OWN>(i), query = CANDIDATES ? column : row, candidate = CANDIDATES ? row : column;
        value[i] = 0;
        if (row >= j.own_count) continue;
        value[i] = expf(s[i][c] * j.similarity_scale - j.largest[query]) * j.factor[query];
        if (j.positive[query] == candidate) value[i] -= j.base[query];
      }
      *reinterpret_cast<float4 *>(g + sw_tile_column(c) * STRIDE + sw_tile_row<OWN>(0)) = make_float4(value[0], value[1], value[2], value[3]);
    }
    for (int h = 0; h < j.hidden; h += 128) add_features(j, g, shared, first, at, h);
  }
}

template <bool CANDIDATES> int launch_gradient(const sw_stream *stream, const job &j) {
  return sw_launch(stream, "contrastive gradient", gradient<CANDIDATES>, dim3(sw_blocks(j.own_count, OWN)), dim3(SW_TILE_THREADS),
                   (SW_TILE_SHARED<OWN> + OTHERS * STRIDE) * sizeof(float), j);
}
} // namespace

int sw_cuda_contrastive_workspace(sw_stream *stream, const sw_contrastive_desc *desc, size_t *bytes) {
  if (contrastive_check(desc)) return -1;
  *bytes = SW_SUM_WORKSPACE + (size_t)desc->rows * 3 * sizeof(float);
  return 0;
}

int sw_cuda_contrastive(sw_stream *stream, const sw_contrastive_desc *desc, const float *queries, const float *candidates, const int32_t *positive,
                        const float *row_weights, double *loss, float *dqueries, float *dcandidates, void *workspace) {
  if (contrastive_check(desc)) return -1;
  if (!desc->rows)
    return dcandidates ? sw_cuda_check(cudaMemsetAsync(dcandidates, 0, (size_t)desc->candidates * (size_t)desc->hidden * sizeof(float),
                                                       sw_cuda_stream(stream)),
                                       "contrastive")
                       : 0;
  float *state = (float *)((char *)workspace + SW_SUM_WORKSPACE);
  job j = {desc->rows, desc->candidates, queries, candidates, dqueries, positive, row_weights, state, state + desc->rows,
           state + 2 * desc->rows, (double *)workspace, desc->hidden, (int)desc->candidates, desc->similarity_scale, desc->scale};
  const unsigned tiles = sw_blocks(desc->rows, OWN), blocks = tiles < (unsigned)SW_SUM_BLOCKS ? tiles : (unsigned)SW_SUM_BLOCKS;
  if (sw_launch(stream, "contrastive", sums, dim3(blocks), dim3(SW_TILE_THREADS), 0, j) ||
      sw_finish_sum(stream, "contrastive", blocks, workspace, true, loss) || (dqueries && launch_gradient<false>(stream, j)))
    return -1;
  j.own = candidates, j.own_count = desc->candidates, j.other = queries, j.other_count = desc->rows, j.out = dcandidates;
  return dcandidates ? launch_gradient<true>(stream, j) : 0;
}
