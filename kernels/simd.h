/* Vectors of floats as wide as the instruction set this file is compiled for, in GCC/Clang vector extensions: the same
 * source is AVX-512, AVX2, SSE or NEON. Elementary functions are accurate to a few units in the last place over the
 * range noted. */
#ifndef SW_KERNELS_SIMD_H
#define SW_KERNELS_SIMD_H
#include "kernels/dtype.h"
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define SW_LANES 16
#elif defined(__AVX2__)
#define SW_LANES 8
#else
#define SW_LANES 4
#endif

typedef float vf __attribute__((vector_size(SW_LANES * 4)));
typedef int32_t vi __attribute__((vector_size(SW_LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(SW_LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(SW_LANES * 2)));
#define SW_INLINE static inline __attribute__((always_inline, unused))

SW_INLINE vf vf_set(float x) {
  return x - (vf){0};
}
SW_INLINE vi vi_set(int32_t x) {
  return (vi)((uint32_t)x - (vu){0});
} /* unsigned: UBSan takes signed vectors apart */
SW_INLINE vu vu_set(uint32_t x) {
  return x - (vu){0};
}
SW_INLINE vf vf_zero(void) {
  return (vf){0};
}
SW_INLINE vf vf_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
SW_INLINE void vf_store(float *p, vf v) {
  memcpy(p, &v, sizeof v);
}
/* p[index], lane by lane */
SW_INLINE vf vf_gather(const float *p, vi index) {
#if defined(__AVX512F__)
  return (vf)_mm512_i32gather_ps((__m512i)index, p, 4);
#elif defined(__AVX2__)
  return (vf)_mm256_i32gather_ps(p, (__m256i)index, 4);
#else
  vf v;
  for (int i = 0; i < SW_LANES; i++) v[i] = p[index[i]];
  return v;
#endif
}
/* p[index] of whole numbers */
SW_INLINE vi vi_gather(const int32_t *p, vi index) {
#if defined(__AVX512F__)
  return (vi)_mm512_i32gather_epi32((__m512i)index, p, 4);
#elif defined(__AVX2__)
  return (vi)_mm256_i32gather_epi32(p, (__m256i)index, 4);
#else
  vi v;
  for (int i = 0; i < SW_LANES; i++) v[i] = p[index[i]];
  return v;
#endif
}
/* x and y of the points p[2 index], p[2 index + 1] */
SW_INLINE void vf_gather_pairs(const float *p, vi index, vf *x, vf *y) {
#if defined(__AVX512F__)
  const __m512i i = (__m512i)index, evens = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512 low = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256(i), p, 8));
  const __m512 high = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64(i, 1), p, 8));
  *x = (vf)_mm512_permutex2var_ps(low, evens, high);
  *y = (vf)_mm512_permutex2var_ps(low, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), high);
#else
  *x = vf_gather(p, (vi)((vu)index * 2));
  *y = vf_gather(p, (vi)((vu)index * 2 + 1));
#endif
}
/* p[2 index] = x, p[2 index + 1] = y of the first n <= SW_LANES lanes, whose indices differ */
SW_INLINE void vf_scatter_pairs(float *p, vi index, vf x, vf y, int n) {
#if defined(__AVX512F__)
  const __m512i i = (__m512i)index;
  const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps((__m512)x, (__m512)y)),
                high = _mm512_castps_pd(_mm512_unpackhi_ps((__m512)x, (__m512)y));
  const __m512i first =
      _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0); /* the unpacked quarters, in the order of the lanes */
  const __mmask16 lanes = (__mmask16)((1u << n) - 1);
  _mm512_mask_i32scatter_pd(p, (__mmask8)lanes, _mm512_castsi512_si256(i), _mm512_permutex2var_pd(low, first, high), 8);
  _mm512_mask_i32scatter_pd(p, (__mmask8)(lanes >> 8), _mm512_extracti64x4_epi64(i, 1),
                            _mm512_permutex2var_pd(low, _mm512_add_epi64(first, _mm512_set1_epi64(4)), high), 8);
#else
  for (int lane = 0; lane < n; lane++) p[2 * (int64_t)index[lane]] = x[lane], p[2 * (int64_t)index[lane] + 1] = y[lane];
#endif
}
/* The lanes of v where a < b, one after the other from p on; up to SW_LANES numbers behind them may be overwritten.
 * Returns how many. */
SW_INLINE int vi_compress_below(int32_t *p, vi v, vu a, vu b) {
#if defined(__AVX512F__)
  const __mmask16 which = _mm512_cmplt_epu32_mask((__m512i)a, (__m512i)b);
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(which, (__m512i)v));
  return __builtin_popcount(which);
#else
  int n = 0;
  for (int i = 0; i < SW_LANES; i++) {
    p[n] = v[i];
    n += a[i] < b[i];
  }
  return n;
#endif
}
/* the first n < SW_LANES elements; the rest are 0 / not written */
SW_INLINE vf vf_load_n(const float *p, int n) {
#ifdef __AVX512F__
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  vf v = {0};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
#endif
}
SW_INLINE void vf_store_n(float *p, vf v, int n) {
#ifdef __AVX512F__
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

SW_INLINE vf vf_select(vi mask, vf a, vf b) {
  return (vf)((mask & (vi)a) | (~mask & (vi)b));
}
SW_INLINE vf vf_max(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return vf_select(a > b, a, b);
#endif
}
/* a b + c rounded once; twice on processors without such an instruction */
SW_INLINE vf vf_fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && defined(__AVX2__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
/* bit l: whether a[l] >= b[l] */
SW_INLINE unsigned vf_at_least(vf a, vf b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#elif defined(__AVX2__)
  return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GE_OQ));
#elif defined(__SSE2__)
  return (unsigned)_mm_movemask_ps(_mm_cmpge_ps((__m128)a, (__m128)b));
#else
  unsigned bits = 0;
  for (int i = 0; i < SW_LANES; i++) bits |= (unsigned)(a[i] >= b[i]) << i;
  return bits;
#endif
}
SW_INLINE vf vf_min(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return vf_select(a < b, a, b);
#endif
}
SW_INLINE vf vf_abs(vf a) {
  return (vf)((vi)a & 0x7fffffff);
}
SW_INLINE vf vf_sqrt(vf a) {
#if defined(__AVX512F__)
  return (vf)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX2__)
  return (vf)_mm256_sqrt_ps((__m256)a);
#else
  for (int i = 0; i < SW_LANES; i++) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}
/* The same order of additions every time: halves, then pairs. */
SW_INLINE float vf_sum(vf v) {
  float x[SW_LANES];
  vf_store(x, v);
  for (int w = SW_LANES / 2; w; w /= 2)
    for (int i = 0; i < w; i++) x[i] += x[i + w];
  return x[0];
}
SW_INLINE float vf_max_lane(vf v) {
  float x[SW_LANES];
  vf_store(x, v);
  for (int w = SW_LANES / 2; w; w /= 2)
    for (int i = 0; i < w; i++) x[i] = x[i] > x[i + w] ? x[i] : x[i + w];
  return x[0];
}

/* --- bfloat16 --- */
SW_INLINE vf vf_load_bf16(const sw_bf16 *p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return (vf)(__builtin_convertvector(h, vu) << 16);
}
SW_INLINE void vf_store_bf16(sw_bf16 *p, vf v) {
  vu bits = (vu)v;
  vu rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  vi nan = (vi)((bits & 0x7fffffffu) > 0x7f800000u);
  rounded = (rounded & ~(vu)nan) | ((bits >> 16 | 0x40) & (vu)nan);
  vh h = __builtin_convertvector(rounded, vh);
  memcpy(p, &h, sizeof h);
}
/* by dtype, at element index i: `dtype` is a constant where these are inlined */
SW_INLINE vf vf_get(const void *p, sw_dtype dtype, int64_t i) {
  return dtype == SW_F32 ? vf_load((const float *)p + i) : vf_load_bf16((const sw_bf16 *)p + i);
}
SW_INLINE void vf_put(void *p, sw_dtype dtype, int64_t i, vf v) {
  if (dtype == SW_F32)
    vf_store((float *)p + i, v);
  else
    vf_store_bf16((sw_bf16 *)p + i, v);
}
SW_INLINE float sw_get(const void *p, sw_dtype dtype, int64_t i) {
  return dtype == SW_F32 ? ((const float *)p)[i] : sw_bf16_to_f32(((const sw_bf16 *)p)[i]);
}
SW_INLINE void sw_put(void *p, sw_dtype dtype, int64_t i, float v) {
  if (dtype == SW_F32)
    ((float *)p)[i] = v;
  else
    ((sw_bf16 *)p)[i] = sw_f32_to_bf16(v);
}
/* n < SW_LANES elements */
SW_INLINE vf vf_get_n(const void *p, sw_dtype dtype, int64_t i, int n) {
  if (dtype == SW_F32) return vf_load_n((const float *)p + i, n);
  vf v = {0};
  for (int k = 0; k < n; k++) v[k] = sw_bf16_to_f32(((const sw_bf16 *)p)[i + k]);
  return v;
}
SW_INLINE void vf_put_n(void *p, sw_dtype dtype, int64_t i, vf v, int n) {
  if (dtype == SW_F32)
    vf_store_n((float *)p + i, v, n);
  else
    for (int k = 0; k < n; k++) ((sw_bf16 *)p)[i + k] = sw_f32_to_bf16(v[k]);
}

/* --- elementary functions --- */
/* exp(x): 2^n e^r, |r| <= ln 2 / 2, degree-6 polynomial (Cephes' expf); below -87.3 it is 0 or the smallest normal,
 * above 88.3 it is clamped. NaN stays NaN. */
SW_INLINE vf vf_exp(vf x) {
  vi is_nan = (x != x);
  vf c = vf_min(vf_max(x, vf_set(-87.33654f)), vf_set(88.37626f));
  vf n = c * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest whole number */
  vu k = (vu)n - 0x4b400000u;
  n = n - 12582912.0f;
  vf r = c - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vf p = vf_set(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return vf_select(is_nan, x, (vf)((vu)p + (k << 23)));
}
/* log(x) of positive, normal x: x = 2^n m with m around 1, and log m by a polynomial of degree 9 (Cephes' logf). */
SW_INLINE vf vf_log(vf x) {
  vi n = (vi)((vu)x - 0x3f3504f3u) >> 23; /* m from sqrt(1/2) on */
  vf e = __builtin_convertvector(n, vf), f = (vf)((vu)x - ((vu)n << 23)) - 1.0f, s = f * f;
  vf p = vf_set(7.0376836292e-2f);
  p = p * f + -1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f + -1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f + -1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f + -2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * s + e * -2.12194440e-4f;
  return e * 0.693359375f + (f + (p - 0.5f * s));
}
/* erf(x): odd rational minimax approximation on [-4, 4] (the coefficients are those of Eigen's generic float erf), +-1
 * beyond. */
SW_INLINE vf vf_erf(vf x) {
  vf c = vf_min(vf_max(x, vf_set(-4.0f)), vf_set(4.0f)), s = c * c;
  vf a = vf_set(-2.72614225801306e-10f);
  a = a * s + 2.77068142495902e-08f;
  a = a * s + -2.10102402082508e-06f;
  a = a * s + -5.69250639462346e-05f;
  a = a * s + -7.34990630326855e-04f;
  a = a * s + -2.95459980854025e-03f;
  a = a * s + -1.60960333262415e-02f;
  vf b = vf_set(-1.45660718464996e-05f);
  b = b * s + -2.13374055278905e-04f;
  b = b * s + -1.68282697438203e-03f;
  b = b * s + -7.37332916720468e-03f;
  b = b * s + -1.42647390514189e-02f;
  return vf_select(x != x, x, c * a / b);
}
SW_INLINE vf vf_tanh(vf x) {
  vf c = vf_min(vf_max(x, vf_set(-9.0f)), vf_set(9.0f));
  vf e = vf_exp(c + c);
  vf wide = (e - 1.0f) / (e + 1.0f);
  vf s = c * c,
     narrow = c * (1.0f + s * (-0.333333333f + s * (0.133333333f + s * -0.0539682540f))); /* Taylor, |x| < 0.1 */
  return vf_select(x != x, x, vf_select(vf_abs(c) < 0.1f, narrow, wide));
}
SW_INLINE vf vf_gelu(vf x) {
  return x * (0.5f + 0.5f * vf_erf(x * 0.70710678118654752f));
}
/* d gelu / dx = Phi(x) + x phi(x) */
SW_INLINE vf vf_gelu_gradient(vf x) {
  return 0.5f + 0.5f * vf_erf(x * 0.70710678118654752f) + x * 0.3989422804014327f * vf_exp(x * x * -0.5f);
}
#endif
