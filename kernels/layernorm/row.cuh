/* LayerNorm of rows on a GPU, shared by kernels/layernorm and kernels/embedding.
 *
 * A row is held in registers by a warp (up to 1024 columns) or by a block: a thread has up to QUADS groups of four neighbours, thread i
 * the quads i, i + LANES, ... so that neighbours read neighbours and memory is passed over once. Sums over a row are
 * trees of a fixed shape; the variance is taken around the mean, from the registers.
 *
 * Gradients of gamma and beta, dgamma = sum dy n and dbeta = sum dy, run over tokens. Each block walks over rows blockIdx, + gridDim, ...
 * and keeps its sums in registers; its warps' sums are added in their order and go to the workspace, [block][2][hidden];
 * row_add_partials adds the blocks' sums, again in a fixed order. How many blocks there are depends on the number of tokens alone. */
#ifndef SW_KERNELS_LAYERNORM_ROW_CUH
#define SW_KERNELS_LAYERNORM_ROW_CUH
#include "kernels/cuda/cuda.cuh"
extern "C" {
#include "kernels/layernorm/check.h"
}

/* LANES threads a row; VECTOR: rows are a multiple of four long, so that a quad is one aligned access. */
template <int LANES_, int QUADS_, bool VECTOR_> struct row_shape {
  static constexpr int LANES = LANES_, QUADS = QUADS_, THREADS = LANES == SW_WARP ? 128 : LANES, ROWS = THREADS / LANES;
  static constexpr int WARPS = THREADS / SW_WARP, COLUMNS = 4 * QUADS * LANES;
  static constexpr bool VECTOR = VECTOR_;
  /* Blocks of the backward pass that a multiprocessor has registers for, and their number: all that run at once on the 132 of an H100. */
  static constexpr int RESIDENT = LANES > SW_WARP ? 1 : QUADS == 3 ? 4 : QUADS == 8 ? 2 : 3, PARTS = 132 * RESIDENT;
  /* The thread's own row of the block, and its first column; each next quad is STEP columns on. */
  static constexpr int STEP = 4 * LANES;
  __device__ static __forceinline__ int row() { return (int)threadIdx.x / LANES; }
  __device__ static __forceinline__ int column() { return (int)threadIdx.x % LANES * 4; }
};
template <class F> int row_with_shape(int hidden, F f) {
  if (hidden % 4) return hidden <= 512 ? f(row_shape<SW_WARP, 4, false>()) : f(row_shape<512, 4, false>());
  if (hidden <= 384) return f(row_shape<SW_WARP, 3, true>());
  if (hidden <= 768) return f(row_shape<SW_WARP, 6, true>());
  if (hidden <= 1024) return f(row_shape<SW_WARP, 8, true>());
  return f(row_shape<512, 4, true>());
}

struct row_four {
  float v[4];
};
/* Columns column .. column + 3 of a row; zeros beyond its end. */
template <bool VECTOR, class T> __device__ __forceinline__ row_four row_load(const T *row, int column, int hidden) {
  row_four r = {{0, 0, 0, 0}};
  if (VECTOR) {
    if (column < hidden) {
      const float4 f = sw_load4(row + column);
      r = {{f.x, f.y, f.z, f.w}};
    }
  } else {
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (column + e < hidden) r.v[e] = sw_to_float(row[column + e]);
  }
  return r;
}
template <bool VECTOR, class T> __device__ __forceinline__ void row_store(T *row, int column, int hidden, row_four x) {
  if (VECTOR) {
    if (column < hidden) sw_store4(row + column, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
  } else {
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (column + e < hidden) row[column + e] = sw_from_float<T>(x.v[e]);
  }
}
/* x times its elements' multipliers; `at` is the index of the row's first element. */
template <bool VECTOR> __device__ __forceinline__ void row_drop(row_four &x, const sw_dropout_mask &mask, int64_t at, int column, int hidden) {
  if (VECTOR) {
    if (column < hidden) {
      const float4 m = mask.four((uint64_t)(at + column) >> 2);
      x.v[0] *= m.x, x.v[1] *= m.y, x.v[2] *= m.z, x.v[3] *= m.w;
    }
  } else if (column < hidden) { /* four elements out of two quads of the mask */
    unsigned kept = 0;
#pragma unroll 1 /* one at a time: this path is short of registers */
    for (int k = 0; k < 2; k++) kept |= mask.kept(((uint64_t)(at + column) >> 2) + (unsigned)k) << 4 * k;
    kept >>= at & 3;
#pragma unroll
    for (int e = 0; e < 4; e++) x.v[e] *= kept >> e & 1 ? mask.scale : 0.0f;
  }
}

/* The sum over the threads of a row, in each of them. `slots`: a float for each warp, its own for each of two calls that take turns. */
template <class S> __device__ __forceinline__ float row_sum(float value, float *slots) {
  value = sw_warp_sum(value);
  if constexpr (S::LANES > SW_WARP) {
    if (threadIdx.x % SW_WARP == 0) slots[threadIdx.x / SW_WARP] = value;
    __syncthreads();
    value = 0;
#pragma unroll
    for (int w = 0; w < S::WARPS; w++) value += slots[w];
  }
  return value;
}

/* Mean and 1 / sqrt(var + eps) of z, which is row t, then y[t] = (gamma (z - mean) rstd + beta) * mask. mean and rstd may be NULL. */
template <class S, bool DROPOUT, class T>
__device__ __forceinline__ void row_normalize(const row_four (&z)[S::QUADS], int hidden, float eps, const float *__restrict__ gamma,
                                              const float *__restrict__ beta, const sw_dropout_mask &mask, int64_t t, T *y, float *mean,
                                              float *rstd) {
  SW_SHARED(float, slots, 2 * S::WARPS);
  float sum = 0, squares = 0;
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) sum += (z[q].v[0] + z[q].v[1]) + (z[q].v[2] + z[q].v[3]);
  const float m = row_sum<S>(sum, slots) / (float)hidden;
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float c = z[q].v[e] - m;
      if (S::column() + q * S::STEP + (S::VECTOR ? 0 : e) < hidden) squares += c * c;
    }
  }
  const float r = 1.0f / sqrtf(row_sum<S>(squares, slots + S::WARPS) / (float)hidden + eps);
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) {
    const int column = S::column() + q * S::STEP;
    const row_four g = row_load<S::VECTOR>(gamma, column, hidden), b = row_load<S::VECTOR>(beta, column, hidden);
    row_four v;
#pragma unroll
    for (int e = 0; e < 4; e++) v.v[e] = (z[q].v[e] - m) * r * g.v[e] + b.v[e];
    if (DROPOUT) row_drop<S::VECTOR>(v, mask, t * hidden, column, hidden);
    row_store<S::VECTOR>(y + t * hidden, column, hidden, v);
  }
  if (mean && S::column() == 0) mean[t] = m, rstd[t] = r;
}

/* --- backward --- */
/* Where dropout stands: nowhere, behind the LayerNorm (dy goes through the mask), before it (dx is dz through the mask). */
enum row_masking { ROW_PLAIN, ROW_MASK_DY, ROW_MASK_DX };

/* dz may be dy; dx may be NULL. */
template <class T, class S, row_masking MASK>
static __global__ void __launch_bounds__(S::THREADS, S::RESIDENT)
    row_backward(int64_t tokens, int hidden, sw_dropout_mask mask, const T *dy, const T *z, const float *__restrict__ gamma,
                 const float *__restrict__ mean, const float *__restrict__ rstd, T *dz, T *dx, float *partial) {
  SW_SHARED(float, slots, 2 * S::WARPS);
  row_four dgamma[S::QUADS], dbeta[S::QUADS];
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) dgamma[q] = dbeta[q] = {{0, 0, 0, 0}};
  for (int64_t t = (int64_t)blockIdx.x * S::ROWS + S::row(); t < tokens; t += (int64_t)gridDim.x * S::ROWS) {
    const int64_t at = t * hidden;
    row_four a[S::QUADS], n[S::QUADS];
#pragma unroll
    for (int q = 0; q < S::QUADS; q++) {
      a[q] = row_load<S::VECTOR>(dy + at, S::column() + q * S::STEP, hidden);
      n[q] = row_load<S::VECTOR>(z + at, S::column() + q * S::STEP, hidden);
    }
    const float m = mean[t], r = rstd[t];
    float sum = 0, moment = 0;
#pragma unroll
    for (int q = 0; q < S::QUADS; q++) {
      const int column = S::column() + q * S::STEP;
      const row_four g = row_load<S::VECTOR>(gamma, column, hidden);
      if (MASK == ROW_MASK_DY) row_drop<S::VECTOR>(a[q], mask, at, column, hidden);
#pragma unroll
      for (int e = 0; e < 4; e++) {
        n[q].v[e] = (n[q].v[e] - m) * r;
        dgamma[q].v[e] += a[q].v[e] * n[q].v[e];
        dbeta[q].v[e] += a[q].v[e];
        a[q].v[e] *= g.v[e]; /* 0 beyond the row */
        sum += a[q].v[e];
        moment += a[q].v[e] * n[q].v[e];
      }
    }
    sum = row_sum<S>(sum, slots) / (float)hidden;
    moment = row_sum<S>(moment, slots + S::WARPS) / (float)hidden;
#pragma unroll
    for (int q = 0; q < S::QUADS; q++) {
      const int column = S::column() + q * S::STEP;
#pragma unroll
      for (int e = 0; e < 4; e++) a[q].v[e] = r * (a[q].v[e] - sum - n[q].v[e] * moment);
      row_store<S::VECTOR>(dz + at, column, hidden, a[q]);
      if (MASK == ROW_MASK_DX) row_drop<S::VECTOR>(a[q], mask, at, column, hidden);
      if (MASK != ROW_MASK_DY && dx) row_store<S::VECTOR>(dx + at, column, hidden, a[q]);
    }
  }
  partial += (int64_t)blockIdx.x * 2 * hidden;
  if constexpr (S::ROWS == 1) {
#pragma unroll
    for (int q = 0; q < S::QUADS; q++) {
      row_store<S::VECTOR>(partial, S::column() + q * S::STEP, hidden, dgamma[q]);
      row_store<S::VECTOR>(partial + hidden, S::column() + q * S::STEP, hidden, dbeta[q]);
    }
  } else {
    SW_SHARED(float, sums, S::ROWS *S::COLUMNS);
#pragma unroll
    for (int which = 0; which < 2; which++) {
      if (which) __syncthreads(); /* those of gamma have been read */
#pragma unroll
      for (int q = 0; q < S::QUADS; q++)
        row_store<true>(sums + S::row() * S::COLUMNS, S::column() + q * S::STEP, S::COLUMNS, which ? dbeta[q] : dgamma[q]);
      __syncthreads();
      for (int column = (int)threadIdx.x; column < hidden; column += S::THREADS) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < S::ROWS; w++) sum += sums[w * S::COLUMNS + column];
        partial[which * hidden + column] = sum;
      }
    }
  }
}

/* out[i] += the sum over parts of partial[part][y][i]; out is `first` where the block's y is 0, `second` where it is 1. */
template <int WARPS>
static __global__ void __launch_bounds__(WARPS *SW_WARP)
    row_add_partials(int64_t count, int parts, const float *__restrict__ partial, float *first, float *second) {
  SW_SHARED(float, sums, WARPS *SW_WARP);
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP;
  const int64_t i = (int64_t)blockIdx.x * SW_WARP + lane;
  float sum = 0;
  if (i < count) {
#pragma unroll 8
    for (int part = warp; part < parts; part += WARPS) sum += partial[((int64_t)part * gridDim.y + blockIdx.y) * count + i];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp || i >= count) return;
#pragma unroll
  for (int w = 1; w < WARPS; w++) sum += sums[w * SW_WARP + lane];
  float *out = blockIdx.y ? second : first;
  out[i] += sum;
}
/* partial [parts, 1 or 2, count] is added to first and second (NULL: there is one). */
static inline int row_add(const sw_stream *stream, int64_t count, int parts, const float *partial, float *first, float *second) {
  const dim3 grid(sw_blocks(count, SW_WARP), second ? 2 : 1);
  return parts > 16 ? sw_launch(stream, "partial sums", row_add_partials<16>, grid, dim3(16 * SW_WARP), 0, count, parts, partial, first, second)
                    : sw_launch(stream, "partial sums", row_add_partials<4>, grid, dim3(4 * SW_WARP), 0, count, parts, partial, first, second);
}

/* Blocks of row_backward. */
static inline int row_parts(int64_t tokens, int hidden) {
  return row_with_shape(hidden, [&](auto shape) {
    using S = decltype(shape);
    const int64_t blocks = (tokens + S::ROWS - 1) / S::ROWS;
    return (int)(blocks < S::PARTS ? blocks : S::PARTS);
  });
}
static inline size_t row_partial_bytes(int64_t tokens, int hidden) {
  return (size_t)row_parts(tokens, hidden) * 2 * (size_t)hidden * sizeof(float);
}
template <class T, row_masking MASK>
int row_run_backward(const sw_stream *stream, const char *name, int64_t tokens, int hidden, const sw_dropout &dropout, const void *dy,
                     const void *z, const float *gamma, const float *mean, const float *rstd, void *dz, void *dx, float *dgamma, float *dbeta,
                     void *workspace) {
  float *partial = (float *)workspace;
  const int parts = row_parts(tokens, hidden);
  return row_with_shape(hidden,
                        [&](auto shape) {
                          using S = decltype(shape);
                          return sw_launch(stream, name, row_backward<T, S, MASK>, dim3((unsigned)parts), dim3(S::THREADS), 0, tokens, hidden,
                                           sw_dropout_mask_of(dropout), (const T *)dy, (const T *)z, gamma, mean, rstd, (T *)dz, (T *)dx,
                                           partial);
                        }) ||
                 row_add(stream, hidden, parts, partial, dgamma, dbeta)
             ? -1
             : 0;
}

/* What only the GPU refuses: a row's number is a block's. */
static inline int row_check(const char *what, int64_t tokens, int hidden, const sw_dropout *dropout) {
  if (sw_check_rows(what, hidden, dropout)) return -1;
  if (tokens > 0x7fffffff) return sw_fail("%s: %lld tokens are too many", what, (long long)tokens);
  return 0;
}
#endif
