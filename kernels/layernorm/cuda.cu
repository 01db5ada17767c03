/* Residual + dropout + LayerNorm on a GPU: see layernorm.h for the mathematics, row.cuh for who holds what.
 *
 * Forward reads x and the residual once and writes z and y: z enters the statistics in fp32, from registers, before it is rounded to the
 * storage dtype. Masks are made where they are used. Every row is summed by its own threads in a fixed order, so its
 * bits depend on nothing else in the batch. */
#include "kernels/layernorm/row.cuh"
#include "kernels/cuda/operators.cuh"

/* y may be residual. */
template <class T, class S, bool DROPOUT>
static __global__ void __launch_bounds__(S::THREADS, S::ROWS == 1 ? 1 : 0)
    layernorm_forward(int64_t tokens, int hidden, float eps, sw_dropout_mask mask, T *x, const T *residual, const float *__restrict__ gamma,
                      const float *__restrict__ beta, T *y, float *mean, float *rstd) {
  const int64_t t = (int64_t)blockIdx.x * S::ROWS + S::row(), at = t * hidden;
  if (t >= tokens) return;
  row_four z[S::QUADS], other[S::QUADS];
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) z[q] = row_load<S::VECTOR>(x + at, S::column() + q * S::STEP, hidden);
  if (residual) {
#pragma unroll
    for (int q = 0; q < S::QUADS; q++) other[q] = row_load<S::VECTOR>(residual + at, S::column() + q * S::STEP, hidden);
  }
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) {
    if (DROPOUT) row_drop<S::VECTOR>(z[q], mask, at, S::column() + q * S::STEP, hidden);
    if (residual) {
#pragma unroll
      for (int e = 0; e < 4; e++) z[q].v[e] += other[q].v[e];
    }
    if (mean && (DROPOUT || residual)) row_store<S::VECTOR>(x + at, S::column() + q * S::STEP, hidden, z[q]);
  }
  row_normalize<S, false>(z, hidden, eps, gamma, beta, mask, t, y, mean, rstd);
}

template <class T, bool DROPOUT>
static int forward(const sw_stream *stream, const sw_layernorm_desc *desc, void *x, const void *residual, const float *gamma, const float *beta,
                   void *y, float *mean, float *rstd) {
  return row_with_shape(desc->hidden, [&](auto shape) {
    using S = decltype(shape);
    return sw_launch(stream, "layernorm forward", layernorm_forward<T, S, DROPOUT>, dim3(sw_blocks(desc->tokens, S::ROWS)), dim3(S::THREADS), 0,
                     desc->tokens, desc->hidden, desc->eps, sw_dropout_mask_of(desc->dropout), (T *)x, (const T *)residual, gamma, beta, (T *)y,
                     mean, rstd);
  });
}

int sw_cuda_layernorm_forward(sw_stream *stream, const sw_layernorm_desc *desc, void *x, const void *residual, const float *gamma,
                              const float *beta, void *y, float *mean, float *rstd) {
  if (row_check("layernorm", desc->tokens, desc->hidden, &desc->dropout)) return -1;
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return (desc->dropout.p > 0 ? forward<T, true> : forward<T, false>)(stream, desc, x, residual, gamma, beta, y, mean, rstd);
  });
}

int sw_cuda_layernorm_workspace(sw_stream *, const sw_layernorm_desc *desc, size_t *bytes) {
  if (row_check("layernorm", desc->tokens, desc->hidden, &desc->dropout)) return -1;
  *bytes = row_partial_bytes(desc->tokens, desc->hidden);
  return 0;
}

int sw_cuda_layernorm_backward(sw_stream *stream, const sw_layernorm_desc *desc, const void *dy, const void *z, const float *gamma,
                               const float *mean, const float *rstd, void *dz, void *dx, float *dgamma, float *dbeta, void *workspace) {
  if (row_check("layernorm", desc->tokens, desc->hidden, &desc->dropout)) return -1;
  if (!dx && desc->dropout.p > 0) return sw_fail("layernorm backward: dx is NULL while dropout is %g", (double)desc->dropout.p);
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return (desc->dropout.p > 0 ? row_run_backward<T, ROW_MASK_DX> : row_run_backward<T, ROW_PLAIN>)(
        stream, "layernorm backward", desc->tokens, desc->hidden, desc->dropout, dy, z, gamma, mean, rstd, dz, dx, dgamma, dbeta, workspace);
  });
}
