/* fp32 products of the rows of two matrices, a tile a block: for operators that use the scores where they arise.
 *
 * A block of 256 threads has a tile of ROWS x 128 sums of a.b. The thread (y, x) = (threadIdx / 16, threadIdx % 16) has ROWS / 16
 * neighbouring rows from ROWS / 16 y on, and the columns 4 x .. + 3 and 64 + 4 x .. + 3. The depth passes in slices of 32 through shared memory,
 * transposed; groups of four rows are xor-ed with the depth / 4, so that neither the writes (a warp: 4 rows by 32) nor the reads meet
 * bank conflicts. Each sum is one chain of fused multiply-adds from depth 0 on, whatever the tile. */
#ifndef SW_KERNELS_CUDA_TILE_CUH
#define SW_KERNELS_CUDA_TILE_CUH
#include "kernels/cuda/cuda.cuh"

constexpr int SW_TILE_COLUMNS = 128, SW_TILE_THREADS = 256, SW_TILE_DEPTH = 32;
/* Floats of shared memory that sw_tile needs. */
template <int ROWS> constexpr int SW_TILE_SHARED = (ROWS + SW_TILE_COLUMNS) * SW_TILE_DEPTH;

/* Which column of the tile a thread's i-th of eight is. */
__device__ __forceinline__ int sw_tile_column(int i) { return (i & 4) * 16 + (int)threadIdx.x % 16 * 4 + (i & 3); }
template <int ROWS> __device__ __forceinline__ int sw_tile_row(int i) { return (int)threadIdx.x / 16 * (ROWS / 16) + i; }

/* Where the slice's element is; the row's group of four stays together. */
template <int ROWS> __device__ __forceinline__ int sw_tile_at(int depth, int row) {
  return depth * ROWS + (((row >> 2) ^ (depth >> 2 & 7)) << 2) + (row & 3);
}
/* ROWS rows, from depth `first` on, of x [rows, depth]: zeros beyond either. */
template <int ROWS> __device__ __forceinline__ void sw_tile_load(float *slice, const float *x, int64_t rows, int depth, int first) {
#pragma unroll 4
  for (int i = threadIdx.x; i < ROWS * (SW_TILE_DEPTH / 4); i += SW_TILE_THREADS) {
    const int row = i / (SW_TILE_DEPTH / 4), d = i % (SW_TILE_DEPTH / 4) * 4;
    const float *from = x + (int64_t)row * depth + first + d;
    float4 v = make_float4(0, 0, 0, 0);
    if (row < rows) {
      if (depth % 4 == 0) {
        if (first + d < depth) v = sw_load4(from);
      } else {
        if (first + d < depth) v.x = from[0];
        if (first + d + 1 < depth) v.y = from[1];
        if (first + d + 2 < depth) v.z = from[2];
        if (first + d + 3 < depth) v.w = from[3];
      }
    }
    float *to = slice + sw_tile_at<ROWS>(d, row);
    to[0] = v.x, to[ROWS] = v.y, to[2 * ROWS] = v.z, to[3 * ROWS] = v.w;
  }
}
/* sum[i][c]: row i of the thread's by column c of its eight, of a [a_rows, depth] and b [b_rows, depth]; squares: of (a - b)^2. All
 * threads of the block come; before the call and after it `shared` may be in use by others only across a barrier. */
template <int ROWS, bool SQUARES>
__device__ __forceinline__ void sw_tile(float (&sum)[ROWS / 16][8], const float *a, int64_t a_rows, const float *b, int64_t b_rows, int depth,
                                        float *shared) {
  constexpr int MINE = ROWS / 16;
  const int y = (int)threadIdx.x / 16, x = (int)threadIdx.x % 16;
  float *slice_a = shared, *slice_b = shared + ROWS * SW_TILE_DEPTH;
#pragma unroll
  for (int i = 0; i < MINE; i++)
#pragma unroll
    for (int c = 0; c < 8; c++) sum[i][c] = 0;
  for (int first = 0; first < depth; first += SW_TILE_DEPTH) {
    if (first) __syncthreads(); /* the slice before is no longer read */
    sw_tile_load<ROWS>(slice_a, a, a_rows, depth, first);
    sw_tile_load<SW_TILE_COLUMNS>(slice_b, b, b_rows, depth, first);
    __syncthreads();
    const int here = min(SW_TILE_DEPTH, depth - first);
#pragma unroll 4
    for (int d = 0; d < here; d++) {
      float p[MINE], q[8];
#pragma unroll
      for (int i = 0; i < MINE; i += 4) {
        const float4 v = *reinterpret_cast<const float4 *>(slice_a + sw_tile_at<ROWS>(d, y * MINE + i));
        p[i] = v.x, p[i + 1] = v.y, p[i + 2] = v.z, p[i + 3] = v.w;
      }
#pragma unroll
      for (int c = 0; c < 8; c += 4) {
        const float4 v = *reinterpret_cast<const float4 *>(slice_b + sw_tile_at<SW_TILE_COLUMNS>(d, c * 16 + 4 * x));
        q[c] = v.x, q[c + 1] = v.y, q[c + 2] = v.z, q[c + 3] = v.w;
      }
#pragma unroll
      for (int i = 0; i < MINE; i++)
#pragma unroll
        for (int c = 0; c < 8; c++) {
          const float u = SQUARES ? __fsub_rn(p[i], q[c]) : p[i];
          sum[i][c] = __fmaf_rn(u, SQUARES ? u : q[c], sum[i][c]);
        }
    }
  }
}
#endif
