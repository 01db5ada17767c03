/* Products of fp32 matrices in register tiles, for operators that use each tile where it arises. An element of a tile is one chain of
 * fused multiply-adds from depth 0 on (a product and a sum where the processor has none): the same bits in whatever tile it is. */
#ifndef SW_KERNELS_TILE_PRODUCTS_H
#define SW_KERNELS_TILE_PRODUCTS_H
#include "kernels/simd.h"

/* A tile has up to TILE_ROWS rows and TILE_COLUMNS columns: as many accumulators as leave registers for the factors. */
enum { TILE_ROWS = SW_LANES == 16 ? 12 : SW_LANES == 8 ? 6 : 4, TILE_COLUMNS = 2 * SW_LANES };

/* Rows and columns of a square of SW_LANES vectors change places: in each step the blocks beside the diagonal do, at all sizes. */
#define TILE_UPPER(l, step) ((l) & (step) ? SW_LANES + (l) - (step) : (l))
#define TILE_LOWER(l, step) ((l) & (step) ? SW_LANES + (l) : (l) + (step))
#define TILE_LANES_4(f, step, first) f(first, step), f(first + 1, step), f(first + 2, step), f(first + 3, step)
#define TILE_LANES_8(f, step, first) TILE_LANES_4(f, step, first), TILE_LANES_4(f, step, first + 4)
#if SW_LANES == 16
#define TILE_LANES(f, step) TILE_LANES_8(f, step, 0), TILE_LANES_8(f, step, 8)
#elif SW_LANES == 8
#define TILE_LANES(f, step) TILE_LANES_8(f, step, 0)
#else
#define TILE_LANES(f, step) TILE_LANES_4(f, step, 0)
#endif
#ifdef __clang__
#define TILE_SHUFFLE(a, b, f, step) __builtin_shufflevector(a, b, TILE_LANES(f, step))
#else
#define TILE_SHUFFLE(a, b, f, step) __builtin_shuffle(a, b, (vi){TILE_LANES(f, step)})
#endif
#define TILE_SWAP(v, step)                                                                                                       \
  for (int i = 0; i < SW_LANES; i++)                                                                                             \
    if (!(i & (step))) {                                                                                                         \
      vf upper = (v)[i], lower = (v)[i + (step)];                                                                                \
      (v)[i] = TILE_SHUFFLE(upper, lower, TILE_UPPER, step);                                                                     \
      (v)[i + (step)] = TILE_SHUFFLE(upper, lower, TILE_LOWER, step);                                                            \
    }
SW_INLINE void tile_transpose(vf v[SW_LANES]) {
  TILE_SWAP(v, 1)
  TILE_SWAP(v, 2)
#if SW_LANES >= 8
  TILE_SWAP(v, 4)
#endif
#if SW_LANES == 16
  TILE_SWAP(v, 8)
#endif
}

/* to[d * width + r] = x[r * depth + d] for r < SW_LANES; rows from `rows` on are zeros. */
static void tile_pack(const float *x, int depth, int64_t rows, float *to, int width) {
  for (int d = 0; d < depth; d += SW_LANES) {
    int n = depth - d < SW_LANES ? depth - d : SW_LANES;
    vf v[SW_LANES];
    for (int r = 0; r < SW_LANES; r++) {
      const float *row = x + (int64_t)r * depth + d;
      v[r] = r >= rows ? vf_zero() : n == SW_LANES ? vf_load(row) : vf_load_n(row, n);
    }
    tile_transpose(v);
    for (int i = 0; i < n; i++) vf_store(to + (int64_t)(d + i) * width, v[i]);
  }
}
/* The same for a panel of TILE_COLUMNS rows of x: the columns of tiles. */
SW_INLINE void tile_pack_panel(const float *x, int depth, int64_t rows, float *to) {
  tile_pack(x, depth, rows, to, TILE_COLUMNS);
  tile_pack(x + (rows > SW_LANES ? (int64_t)SW_LANES * depth : 0), depth, rows - SW_LANES, to + SW_LANES, TILE_COLUMNS);
}

/* sum[r][v] += the sum over d of a[d * SW_LANES + r] * b[d * b_stride + v * SW_LANES ...]; or of their squared differences. `rows` and
 * `squares` are constants where this is inlined. */
SW_INLINE void tile_multiply(const float *a, const float *b, int64_t b_stride, int depth, int rows, int squares, vf (*sum)[2]) {
  for (int d = 0; d < depth; d++) {
    vf b0 = vf_load(b), b1 = vf_load(b + SW_LANES);
    for (int r = 0; r < rows; r++) {
      vf x = vf_set(a[r]);
      if (squares) {
        vf d0 = x - b0, d1 = x - b1;
        sum[r][0] = vf_fma(d0, d0, sum[r][0]);
        sum[r][1] = vf_fma(d1, d1, sum[r][1]);
      } else {
        sum[r][0] = vf_fma(x, b0, sum[r][0]);
        sum[r][1] = vf_fma(x, b1, sum[r][1]);
      }
    }
    a += SW_LANES;
    b += b_stride;
  }
}
#endif
