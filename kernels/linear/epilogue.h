/* What surrounds the matrix products of a linear layer: bias, activation and rounding after it, the activation's gradient before it.
 * Included by the CPU sources only; compiled for whatever instruction set they are. */
#ifndef SW_KERNELS_LINEAR_EPILOGUE_H
#define SW_KERNELS_LINEAR_EPILOGUE_H
#include "base/error.h"
#include "kernels/backend.h"
#include "kernels/simd.h"

/* Where a product goes. Without activation, bias and pre it may be added to what y holds. */
typedef struct {
  void *y, *pre; /* [rows, ld] in dtype; pre may be NULL */
  const float *bias;
  int64_t ld;
  sw_dtype dtype;
  sw_activation activation;
  int accumulate;
} linear_output;

SW_INLINE void linear_put(void *p, sw_dtype dtype, int64_t i, vf v) {
#ifdef __AVX512BF16__
  if (dtype == SW_BF16) {
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    memcpy((sw_bf16 *)p + i, &h, sizeof h);
    return;
  }
#endif
  vf_put(p, dtype, i, v);
}

/* x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3) is x/2 (1 + tanh u), with one exponential. */
SW_INLINE vf linear_gelu_tanh_gate(vf x) {
  vf u = x * (0.79788456080286536f + 0.035677408136300125f * x * x);
  return 1.0f / (1.0f + vf_exp(u * -2.0f));
}
SW_INLINE vf linear_activate(vf x, sw_activation activation) {
  switch (activation) {
  case SW_GELU: return vf_gelu(x);
  case SW_GELU_TANH: return x * linear_gelu_tanh_gate(x);
  case SW_TANH: return vf_tanh(x);
  case SW_RELU: return vf_select(x < 0.0f, vf_zero(), x); /* NaN stays */
  default: return x;
  }
}
SW_INLINE vf linear_activation_gradient(vf x, sw_activation activation) {
  switch (activation) {
  case SW_GELU: return vf_gelu_gradient(x);
  case SW_GELU_TANH: {
    vf c = vf_select(x != x, x, vf_min(vf_max(x, vf_set(-20.0f)), vf_set(20.0f))); /* constant beyond; no 0 * inf */
    vf s = linear_gelu_tanh_gate(c);
    return s + c * s * (1.0f - s) * (1.5957691216057308f + 0.21406444881780074f * c * c);
  }
  case SW_TANH: {
    vf t = vf_tanh(x);
    return 1.0f - t * t;
  }
  case SW_RELU: return vf_select(x <= 0.0f, vf_zero(), vf_set(1.0f));
  default: return vf_set(1.0f);
  }
}

SW_INLINE void linear_finish_as(const linear_output *o, sw_activation activation, sw_dtype dtype, const float *c, int64_t ldc,
                                int64_t row, int rows, int col, int cols) {
  for (int r = 0; r < rows; r++) {
    int64_t at = (row + r) * o->ld + col;
    const float *from = c + r * ldc;
    int j = 0;
    for (; j + SW_LANES <= cols; j += SW_LANES) {
      vf v = vf_load(from + j);
      if (o->bias) v += vf_load(o->bias + col + j);
      if (o->accumulate) v += vf_get(o->y, dtype, at + j);
      if (o->pre) linear_put(o->pre, dtype, at + j, v);
      linear_put(o->y, dtype, at + j, linear_activate(v, activation));
    }
    if (j < cols) {
      int n = cols - j;
      vf v = vf_load_n(from + j, n);
      if (o->bias) v += vf_load_n(o->bias + col + j, n);
      if (o->accumulate) v += vf_get_n(o->y, dtype, at + j, n);
      if (o->pre) vf_put_n(o->pre, dtype, at + j, v, n);
      vf_put_n(o->y, dtype, at + j, linear_activate(v, activation), n);
    }
  }
}
/* Takes c [rows, cols] (fp32, rows ldc apart) to row `row`, column `col` of the output. */
static inline void linear_finish(const linear_output *o, const float *c, int64_t ldc, int64_t row, int rows, int col, int cols) {
#define AS(a)                                                                                                                    \
  case a:                                                                                                                        \
    if (o->dtype == SW_F32)                                                                                                      \
      linear_finish_as(o, a, SW_F32, c, ldc, row, rows, col, cols);                                                              \
    else                                                                                                                         \
      linear_finish_as(o, a, SW_BF16, c, ldc, row, rows, col, cols);                                                             \
    break;
  switch (o->activation) { AS(SW_NO_ACTIVATION) AS(SW_GELU) AS(SW_GELU_TANH) AS(SW_TANH) AS(SW_RELU) }
#undef AS
}

/* Row by row, so that an element meets the same instructions wherever its row is. */
SW_INLINE void linear_gradient_as(sw_activation activation, sw_dtype dtype, void *dy, const void *pre, int64_t ld, int64_t from,
                                  int64_t to) {
  for (int64_t row = from; row < to; row++) {
    int64_t i = row * ld, end = i + ld;
    for (; i + SW_LANES <= end; i += SW_LANES)
      linear_put(dy, dtype, i, vf_get(dy, dtype, i) * linear_activation_gradient(vf_get(pre, dtype, i), activation));
    if (i < end) {
      int n = (int)(end - i);
      vf_put_n(dy, dtype, i, vf_get_n(dy, dtype, i, n) * linear_activation_gradient(vf_get_n(pre, dtype, i, n), activation), n);
    }
  }
}
/* dy *= activation'(pre) for the rows [from, to). */
static inline void linear_gradient(const sw_linear_desc *desc, void *dy, const void *pre, int64_t from, int64_t to) {
#define AS(a)                                                                                                                    \
  case a:                                                                                                                        \
    if (desc->out_dtype == SW_F32)                                                                                               \
      linear_gradient_as(a, SW_F32, dy, pre, desc->out_features, from, to);                                                      \
    else                                                                                                                         \
      linear_gradient_as(a, SW_BF16, dy, pre, desc->out_features, from, to);                                                     \
    break;
  switch (desc->activation) { AS(SW_GELU) AS(SW_GELU_TANH) AS(SW_TANH) AS(SW_RELU) case SW_NO_ACTIVATION: break; }
#undef AS
}

static inline int linear_check(const sw_stream *stream, const sw_linear_desc *d) {
  if (d->tokens < 0 || d->in_features < 1 || d->out_features < 1)
    return sw_fail("linear: %lld tokens of %d features to %d: sizes must be positive", (long long)d->tokens, d->in_features,
                   d->out_features);
  if ((d->dtype != SW_F32 && d->dtype != SW_BF16) || (d->out_dtype != SW_F32 && d->out_dtype != SW_BF16) ||
      d->activation < SW_NO_ACTIVATION || d->activation > SW_RELU)
    return sw_fail("linear: unknown dtype %d, output dtype %d or activation %d", (int)d->dtype, (int)d->out_dtype, (int)d->activation);
  if (stream->threads < 1) return sw_fail("linear: the stream has %d threads", stream->threads);
  return 0;
}
static inline int64_t linear_round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static inline int64_t linear_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t linear_max(int64_t a, int64_t b) { return a > b ? a : b; }
#endif
