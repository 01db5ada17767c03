/* What surrounds the matrix products of a linear layer: bias, activation and rounding after it, the activation's
 * gradient before it. Included by the CPU sources only; compiled for whatever instruction set they are. */
#ifndef SW_KERNELS_LINEAR_EPILOGUE_H
#define SW_KERNELS_LINEAR_EPILOGUE_H
#include "kernels/linear/check.h"
#include "kernels/simd.h"
#include <math.h>
#include <pthread.h>

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

#ifdef __AVX512F__
/* GELU from a table, for AVX-512, where two registers are a table of 32 and a permutation looks sixteen elements up.
 * With t = |x|, cut off at 6, and Q(t) the upper tail of the normal distribution, phi its density: gelu(x) = max(x, 0)
 * - t Q(t)        gelu'(x) = x < 0 ? G(t) : 1 - G(t), G(t) = Q(t) - t phi(t) Q and G are polynomials of degree 4 around
 * 32 equidistant centres: their Taylor series to degree 5, of which the last term is spread over the lower ones as
 * Chebyshev's T5 asks. Error below 6e-8. */
typedef struct {
  float c[5][32] __attribute__((aligned(64))); /* coefficient, centre */
} linear_table;
static linear_table linear_tail, linear_gradient_tail;
static pthread_once_t linear_tables_made = PTHREAD_ONCE_INIT;
static const float linear_table_end = 6.0f, linear_table_scale = 31.4f / 6.0f;

/* f has the value `value` and the derivative p(t) phi(t) at t; p of degree 2 at most. */
static inline void linear_expand(linear_table *table, int centre, double t, double value, const double p[3]) {
  double width = 1 / (double)linear_table_scale, phi = exp(-t * t / 2) / sqrt(2 * 3.14159265358979323846);
  double q[8] = {p[0], p[1], p[2]}, c[6] = {value}, factor = 1;
  for (int n = 1; n <= 5; n++) {
    double at = 0, next[8] = {0};
    for (int i = 7; i >= 0; i--) at = at * t + q[i];
    factor *= width / n;
    c[n] = at * phi * factor;     /* f^(n) width^n / n! */
    for (int i = 0; i < 7; i++) { /* (q phi)' = (q' - t q) phi */
      next[i] += (i + 1) * q[i + 1];
      next[i + 1] -= q[i];
    }
    memcpy(q, next, sizeof q);
  }
  /* |v| <= 1/2, z = 2 v: z^5 is T5(z) / 16 + (20 z^3 - 5 z) / 16 */
  c[3] += c[5] * 20.0 / 16 / 4;
  c[1] -= c[5] * 5.0 / 16 / 16;
  for (int n = 0; n < 5; n++) table->c[n][centre] = (float)c[n];
}
static void linear_make_tables(void) {
  for (int i = 0; i < 32; i++) {
    double t = i / (double)linear_table_scale, tail = 0.5 * erfc(t / sqrt(2));
    linear_expand(&linear_tail, i, t, tail, (double[3]){-1, 0, 0});
    linear_expand(&linear_gradient_tail, i, t, tail - t * exp(-t * t / 2) / sqrt(2 * 3.14159265358979323846),
                  (double[3]){-2, 0, 1});
  }
}
SW_INLINE __m512 linear_look_up(const linear_table *table, __m512 t) {
  const __m512 scale = _mm512_set1_ps(linear_table_scale), whole = _mm512_set1_ps(12582912.0f); /* 1.5 * 2^23: rounds */
  __m512 at = _mm512_fmadd_ps(t, scale, whole), v = _mm512_fmsub_ps(t, scale, _mm512_sub_ps(at, whole));
  __m512i index = _mm512_castps_si512(at);
#define AT(n) _mm512_permutex2var_ps(_mm512_load_ps(table->c[n]), index, _mm512_load_ps(table->c[n] + 16))
  __m512 f = AT(4);
  f = _mm512_fmadd_ps(f, v, AT(3));
  f = _mm512_fmadd_ps(f, v, AT(2));
  f = _mm512_fmadd_ps(f, v, AT(1));
  return _mm512_fmadd_ps(f, v, AT(0));
#undef AT
}
/* Lesser of |x| and the table's end; the end for NaN. */
SW_INLINE __m512 linear_cut_off(__m512 x) {
  return _mm512_range_ps(x, _mm512_set1_ps(linear_table_end), 10);
}
SW_INLINE vf linear_gelu(vf v) {
  __m512 x = (__m512)v, t = linear_cut_off(x);
  __m512 positive = _mm512_max_ps(_mm512_setzero_ps(), x); /* the second operand where one is NaN */
  return (vf)_mm512_fnmadd_ps(t, linear_look_up(&linear_tail, t), positive);
}
SW_INLINE vf linear_gelu_gradient(vf v) {
  __m512 x = (__m512)v, g = linear_look_up(&linear_gradient_tail, linear_cut_off(x));
  g = _mm512_mask_sub_ps(g, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), _mm512_set1_ps(1.0f), g);
  return (vf)_mm512_mask_mov_ps(g, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}
static inline void linear_tables(void) {
  pthread_once(&linear_tables_made, linear_make_tables);
}
#else
SW_INLINE vf linear_gelu(vf x) {
  return vf_gelu(x);
}
SW_INLINE vf linear_gelu_gradient(vf x) {
  return vf_gelu_gradient(x);
}
static inline void linear_tables(void) {}
#endif

/* x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3) is x/2 (1 + tanh u), with one exponential. */
SW_INLINE vf linear_gelu_tanh_gate(vf x) {
  vf u = x * (0.79788456080286536f + 0.035677408136300125f * x * x);
  return 1.0f / (1.0f + vf_exp(u * -2.0f));
}
SW_INLINE vf linear_activate(vf x, sw_activation activation) {
  switch (activation) {
  case SW_GELU:
    return linear_gelu(x);
  case SW_GELU_TANH:
    return x * linear_gelu_tanh_gate(x);
  case SW_TANH:
    return vf_tanh(x);
  case SW_RELU:
    return vf_select(x < 0.0f, vf_zero(), x); /* NaN stays */
  default:
    return x;
  }
}
SW_INLINE vf linear_activation_gradient(vf x, sw_activation activation) {
  switch (activation) {
  case SW_GELU:
    return linear_gelu_gradient(x);
  case SW_GELU_TANH: {
    vf c = vf_select(x != x, x, vf_min(vf_max(x, vf_set(-20.0f)), vf_set(20.0f))); /* constant beyond; no 0 * inf */
    vf s = linear_gelu_tanh_gate(c);
    return s + c * s * (1.0f - s) * (1.5957691216057308f + 0.21406444881780074f * c * c);
  }
  case SW_TANH: {
    vf t = vf_tanh(x);
    return 1.0f - t * t;
  }
  case SW_RELU:
    return vf_select(x <= 0.0f, vf_zero(), vf_set(1.0f));
  default:
    return vf_set(1.0f);
  }
}

SW_INLINE void linear_finish_as(const linear_output *o, sw_activation activation, sw_dtype dtype, const float *c,
                                int64_t ldc, int64_t row, int rows, int col, int cols) {
  void *y = o->y, *pre = o->pre; /* copies: the compiler cannot know that y is not *o */
  const float *bias = o->bias ? o->bias + col : NULL;
  int64_t ld = o->ld;
  int accumulate = o->accumulate;
  for (int r = 0; r < rows; r++) {
    int64_t at = (row + r) * ld + col;
    const float *from = c + r * ldc;
    int j = 0;
    for (; j + SW_LANES <= cols; j += SW_LANES) {
      vf v = vf_load(from + j);
      if (bias) v += vf_load(bias + j);
      if (accumulate) v += vf_get(y, dtype, at + j);
      if (pre) linear_put(pre, dtype, at + j, v);
      linear_put(y, dtype, at + j, linear_activate(v, activation));
    }
    if (j < cols) {
      int n = cols - j;
      vf v = vf_load_n(from + j, n);
      if (bias) v += vf_load_n(bias + j, n);
      if (accumulate) v += vf_get_n(y, dtype, at + j, n);
      if (pre) vf_put_n(pre, dtype, at + j, v, n);
      vf_put_n(y, dtype, at + j, linear_activate(v, activation), n);
    }
  }
}
/* Takes c [rows, cols] (fp32, rows ldc apart) to row `row`, column `col` of the output. */
static inline void linear_finish(const linear_output *o, const float *c, int64_t ldc, int64_t row, int rows, int col,
                                 int cols) {
#define AS(a)                                                                                                          \
  case a:                                                                                                              \
    if (o->dtype == SW_F32)                                                                                            \
      linear_finish_as(o, a, SW_F32, c, ldc, row, rows, col, cols);                                                    \
    else                                                                                                               \
      linear_finish_as(o, a, SW_BF16, c, ldc, row, rows, col, cols);                                                   \
    break;
  switch (o->activation) { AS(SW_NO_ACTIVATION) AS(SW_GELU) AS(SW_GELU_TANH) AS(SW_TANH) AS(SW_RELU) }
#undef AS
}

/* Row by row, so that an element meets the same instructions wherever its row is. */
SW_INLINE void linear_gradient_as(sw_activation activation, sw_dtype dtype, void *dy, const void *pre, int64_t ld,
                                  int64_t from, int64_t to) {
  for (int64_t row = from; row < to; row++) {
    int64_t i = row * ld, end = i + ld;
    for (; i + SW_LANES <= end; i += SW_LANES)
      linear_put(dy, dtype, i, vf_get(dy, dtype, i) * linear_activation_gradient(vf_get(pre, dtype, i), activation));
    if (i < end) {
      int n = (int)(end - i);
      vf_put_n(dy, dtype, i,
               vf_get_n(dy, dtype, i, n) * linear_activation_gradient(vf_get_n(pre, dtype, i, n), activation), n);
    }
  }
}
/* dy *= activation'(pre) for the rows [from, to). */
static inline void linear_gradient(const sw_linear_desc *desc, void *dy, const void *pre, int64_t from, int64_t to) {
#define AS(a)                                                                                                          \
  case a:                                                                                                              \
    if (desc->out_dtype == SW_F32)                                                                                     \
      linear_gradient_as(a, SW_F32, dy, pre, desc->out_features, from, to);                                            \
    else                                                                                                               \
      linear_gradient_as(a, SW_BF16, dy, pre, desc->out_features, from, to);                                           \
    break;
  switch (desc->activation) { AS(SW_GELU) AS(SW_GELU_TANH) AS(SW_TANH) AS(SW_RELU) case SW_NO_ACTIVATION : break; }
#undef AS
}

/* First thing in every call. */
static inline int linear_check(const sw_stream *stream, const sw_linear_desc *d) {
  linear_tables();
  return linear_check_desc(stream, d);
}
static inline int64_t linear_round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}
static inline int64_t linear_min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t linear_max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
#endif
