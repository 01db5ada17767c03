/* Dropout masks for the CPU kernels: Philox4x32-10 in vectors, bit for bit the numbers of base/philox.h.
 *
 * A mask comes as multipliers: 1 / (1 - p) where the element is kept, 0 where it is dropped; sw_dropout in
 * kernels/backend.h defines which. The four 32-bit words of a counter are the low halves of 64-bit lanes, because 32 x
 * 32 -> 64 bit products are what the instruction sets have; what is left in the high halves is ignored. */
#ifndef SW_KERNELS_DROPOUT_MASK_H
#define SW_KERNELS_DROPOUT_MASK_H
#include "base/philox.h"
#include "kernels/backend.h"
#include "kernels/simd.h"

typedef uint64_t vq __attribute__((vector_size(SW_LANES * 4)));

/* A word is kept where it is >= this: the smallest whole number that is not below p * 2^32. */
SW_INLINE uint32_t sw_dropout_threshold(float p) {
  double t = (double)p * 4294967296.0;
  uint64_t whole = (uint64_t)t;
  whole += (double)whole < t;
  return whole > 0xffffffffu ? 0xffffffffu : (uint32_t)whole;
}
SW_INLINE float sw_dropout_scale(float p) {
  return 1.0f / (1.0f - p);
}

/* the low halves of a times m */
SW_INLINE vq vq_mul_low(vq a, uint32_t m) {
#if defined(__AVX512F__)
  return (vq)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
  return (vq)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#elif defined(__SSE2__)
  return (vq)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(m));
#else
  return (a & 0xffffffffu) * m;
#endif
}
/* the high halves, in the low ones: a shuffle where the port that multiplies also shifts */
SW_INLINE vq vq_high(vq a) {
#if defined(__AVX512F__)
  return (vq)_mm512_shuffle_epi32((__m512i)a, (_MM_PERM_ENUM)0xf5);
#else
  return a >> 32;
#endif
}
SW_INLINE void sw_philox_round(vq c[4], uint32_t k0, uint32_t k1) {
  vq p0 = vq_mul_low(c[0], 0xD2511F53u), p1 = vq_mul_low(c[2], 0xCD9E8D57u);
  c[0] = vq_high(p1) ^ c[1] ^ (uint64_t)k0;
  c[2] = vq_high(p0) ^ c[3] ^ (uint64_t)k1;
  c[1] = p1;
  c[3] = p0;
}
/* One counter a 64-bit lane, its words in the low halves of a[0..3]; they become the random words. Two sets of counters
 * take turns: a round is one chain of dependent instructions. */
SW_INLINE void sw_philox_lanes(uint64_t key, vq a[4], vq b[4]) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    sw_philox_round(a, k0, k1);
    sw_philox_round(b, k0, k1);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}
SW_INLINE vf sw_dropout_keep(vq words, uint32_t threshold, float scale) {
  return (vf)((vi)((vu)words >= vu_set(threshold)) & (vi)vf_set(scale));
}

/* 2 * SW_LANES multipliers from the words of SW_LANES / 2 counters */
SW_INLINE void sw_dropout_store(float *to, const vq c[4], const vq order, uint32_t threshold, float scale) {
#ifdef __SSE2__
  vq x = (c[0] & 0xffffffffu) | (c[1] << 32), y = (c[2] & 0xffffffffu) | (c[3] << 32), low, high;
#if defined(__AVX512F__)
  low = (vq)_mm512_unpacklo_epi64((__m512i)x, (__m512i)y);
  high = (vq)_mm512_unpackhi_epi64((__m512i)x, (__m512i)y);
#elif defined(__AVX2__)
  low = (vq)_mm256_unpacklo_epi64((__m256i)x, (__m256i)y);
  high = (vq)_mm256_unpackhi_epi64((__m256i)x, (__m256i)y);
#else
  low = (vq)_mm_unpacklo_epi64((__m128i)x, (__m128i)y);
  high = (vq)_mm_unpackhi_epi64((__m128i)x, (__m128i)y);
#endif
  vf_store(to, sw_dropout_keep(low, threshold, scale));
  vf_store(to + SW_LANES, sw_dropout_keep(high, threshold, scale));
#else
  for (int l = 0; l < SW_LANES / 2; l++)
    for (int w = 0; w < 4; w++) to[4 * (int)order[l] + w] = (uint32_t)c[w][l] >= threshold ? scale : 0;
#endif
}
/* The buffer that sw_dropout_row needs for n elements, in floats. */
#define SW_DROPOUT_ROOM(n) ((n) + 3 + 4 * SW_LANES)
/* The multipliers of elements first .. first + n - 1 (and d->first); they lie in `buffer`, at the address returned. */
static __attribute__((noinline, unused)) const float *sw_dropout_row(const sw_dropout *d, uint64_t first, int n,
                                                                     float *buffer) {
  const uint64_t seed = d->seed; /* the buffer might overlap *d, for all the compiler knows */
  const vq site = (vq){0} + d->site, step = (vq){0} + d->step;
  uint32_t threshold = sw_dropout_threshold(d->p);
  float scale = sw_dropout_scale(d->p);
  first += d->first;
  int lead = (int)(first & 3), total = lead + n;
  vq order = {0}; /* 128-bit lane l computes counters l and quarter + l: unpacking then leaves the words in order */
  for (int l = 0; l < SW_LANES / 4; l++) order[2 * l] = (uint64_t)l, order[2 * l + 1] = (uint64_t)(SW_LANES / 4 + l);
  for (int i = 0; i < total; i += 4 * SW_LANES) {
    vq counter = ((first >> 2) + (uint64_t)(i >> 2)) + order, next = counter + SW_LANES / 2;
    vq a[4] = {counter, counter >> 32, site, step}, b[4] = {next, next >> 32, site, step};
    sw_philox_lanes(seed, a, b);
    sw_dropout_store(buffer + i, a, order, threshold, scale);
    sw_dropout_store(buffer + i + 2 * SW_LANES, b, order, threshold, scale);
  }
  return buffer + lead;
}

/* Attention probabilities, one query a lane: the mask's elements are row << 10 | key with row = token * heads + head.
 */
typedef struct {
  vq even, odd; /* row << 8, of the even and of the odd lanes */
} sw_dropout_rows;
SW_INLINE sw_dropout_rows sw_dropout_rows_of(const sw_dropout *d, uint64_t first_row, uint64_t row_stride) {
  first_row += d->first >> 10;
  uint64_t even[SW_LANES / 2], odd[SW_LANES / 2];
  for (int l = 0; l < SW_LANES / 2; l++) {
    even[l] = (first_row + (uint64_t)(2 * l) * row_stride) << 8;
    odd[l] = (first_row + (uint64_t)(2 * l + 1) * row_stride) << 8;
  }
  sw_dropout_rows r;
  memcpy(&r.even, even, sizeof r.even);
  memcpy(&r.odd, odd, sizeof r.odd);
  return r;
}
/* The multipliers of keys 4 * quad .. 4 * quad + 3. */
SW_INLINE void sw_dropout_columns(const sw_dropout *d, const sw_dropout_rows *rows, uint32_t quad, uint32_t threshold,
                                  float scale, vf out[4]) {
  vq even = rows->even | (uint64_t)quad, odd = rows->odd | (uint64_t)quad;
  vq a[4] = {even, even >> 32, (vq){0} + d->site, (vq){0} + d->step};
  vq b[4] = {odd, odd >> 32, a[2], a[3]};
  sw_philox_lanes(d->seed, a, b);
  for (int w = 0; w < 4; w++) out[w] = sw_dropout_keep((a[w] & 0xffffffffu) | (b[w] << 32), threshold, scale);
}
#endif
