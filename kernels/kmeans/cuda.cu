/* k-means on the GPU: see kmeans.h.
 *
 * Assigning: a block has 128 rows; the centres of all groups pass by, 128 at a time (kernels/cuda/tile.cuh). The tile of distances lies in shared
 * memory; then a thread a row looks for the nearest of each group, and carries what it has from one tile to the next.
 * Updating: a thread has a column of a group's sums, and one more the counts; it walks over all rows, in order, and most of them have not moved. */
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/operators.cuh"
extern "C" {
#include "kernels/kmeans/check.h"
}

namespace {
constexpr int ROWS = 128, MINE = ROWS / 16, COLUMNS = SW_TILE_COLUMNS, STRIDE = COLUMNS + 1, UPDATE_THREADS = 64;

static __global__ void __launch_bounds__(SW_TILE_THREADS, 1)
    assign(const sw_kmeans_desc d, const float *x, const float *centres, const sw_kmeans_bounds bounds, float e, int32_t *label, float *distance) {
  SW_DYNAMIC_SHARED(float, shared); /* slices; distances [ROWS][STRIDE] */
  SW_SHARED(int, open, SW_TILE_THREADS / SW_WARP); /* of each warp: whether one of its rows may have another centre than before */
  float *tile = shared + SW_TILE_SHARED<ROWS>;
  const int64_t first_row = (int64_t)blockIdx.x * ROWS, row = first_row + threadIdx.x;
  const bool mine = threadIdx.x < ROWS && row < d.rows;
  const int all = d.groups * d.k;
  if (bounds.bound) {
    bool near = false;
    for (int64_t g = 0; g < d.groups && mine; g++) {
      const int before = bounds.before[g * d.rows + row];
      const float left = before < 0 ? 0 : bounds.bound[g * d.rows + row] - bounds.drift[g * d.k + before];
      bounds.bound[g * d.rows + row] = left;
      if (label) label[g * d.rows + row] = before;
      near = near || !(left > 0);
    }
    const bool any = __any_sync(SW_ALL_LANES, near);
    if (threadIdx.x % SW_WARP == 0) open[threadIdx.x / SW_WARP] = any;
    __syncthreads();
    int all_open = 0;
    for (int w = 0; w < SW_TILE_THREADS / SW_WARP; w++) all_open |= open[w];
    if (!all_open) return; /* the whole block */
  }
  float least = INFINITY, next = INFINITY;
  int best = -1, centre = 0;
  int64_t at = row; /* of the group and the row */
  for (int first = 0; first < all; first += COLUMNS) {
    float sum[MINE][8];
    sw_tile<ROWS, true>(sum, x + first_row * d.hidden, d.rows - first_row, centres + (int64_t)first * d.hidden, all - first, d.hidden, shared);
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
      for (int c = 0; c < 8; c++) tile[sw_tile_row<ROWS>(i) * STRIDE + sw_tile_column(c)] = sum[i][c]; /* a barrier of sw_tile is behind the last reads */
    __syncthreads(); /* also behind the last reads of the slices */
    if (!mine) continue;
    for (int c = 0; c < COLUMNS && first + c < all; c++) {
      const float to = tile[threadIdx.x * STRIDE + c];
      next = fminf(next, to < least ? least : to);
      if (to < least) least = to, best = centre;
      if (++centre < d.k) continue;
      if (label) label[at] = best;
      distance[at] = least;
      if (bounds.bound) bounds.bound[at] = sqrtf(next) * (1 - 4 * e) - sqrtf(least) * (1 + e) - 1e-18f; /* see cpu.c */
      at += d.rows, centre = 0, best = -1, least = next = INFINITY;
    }
  }
}

static __global__ void __launch_bounds__(UPDATE_THREADS) update(const sw_kmeans_desc d, const float *x, const int32_t *before, const int32_t *label,
                                                                double *sums, int64_t *counts, int64_t *changed) {
  const int column = (int)(blockIdx.x * UPDATE_THREADS + threadIdx.x);
  const int64_t group = blockIdx.y;
  if (column > d.hidden) return;
  before += group * d.rows, label += group * d.rows, sums += group * d.k * d.hidden + column, counts += group * d.k;
  int64_t moved = 0;
#pragma unroll 8
  for (int64_t i = 0; i < d.rows; i++) {
    const int from = before[i], to = label[i];
    if (from == to) continue;
    if (column == d.hidden) {
      if (from >= 0) counts[from]--;
      if (to >= 0) counts[to]++;
      moved++;
    } else {
      const double value = x[i * d.hidden + column];
      if (from >= 0) sums[(int64_t)from * d.hidden] -= value;
      if (to >= 0) sums[(int64_t)to * d.hidden] += value;
    }
  }
  if (column == d.hidden) changed[group] = moved;
}
} // namespace

int sw_cuda_kmeans_workspace(sw_stream *stream, const sw_kmeans_desc *desc, size_t *bytes) {
  *bytes = 0;
  return kmeans_check(desc);
}

int sw_cuda_kmeans_assign(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const float *centres, const sw_kmeans_bounds *bounds,
                          int32_t *label, float *distance, void *workspace) {
  if (kmeans_check(desc)) return -1;
  const size_t shared = (SW_TILE_SHARED<ROWS> + ROWS * STRIDE) * sizeof(float);
  return sw_launch(stream, "kmeans_assign", assign, dim3(sw_blocks(desc->rows, ROWS)), dim3(SW_TILE_THREADS), shared, *desc, x, centres,
                   bounds ? *bounds : sw_kmeans_bounds{nullptr, nullptr, nullptr}, kmeans_rounding(desc), label, distance);
}

int sw_cuda_kmeans_update(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const int32_t *before, const int32_t *label, double *sums,
                          int64_t *counts, int64_t *changed) {
  if (kmeans_check(desc)) return -1;
  return sw_launch(stream, "kmeans_update", update, dim3(sw_blocks(desc->hidden + 1, UPDATE_THREADS), (unsigned)desc->groups), dim3(UPDATE_THREADS), 0,
                   *desc, x, before, label, sums, counts, changed);
}
