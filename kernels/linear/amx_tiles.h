/* The layouts and conversions in front of the AMX products; included by cpu_amx.c only.
 *
 * A tile is 1 KiB: 16 rows of 32 bf16. TDPBF16PS adds to a C tile (16 x 16 fp32) the products of an A tile (16 rows, 32
 * k) and a B tile (16 pairs of k, 16 columns): C[m][n] += sum over p of A[m][2p] B[p][n][0] + A[m][2p+1] B[p][n][1].
 * Which k share a pair does not matter as long as A and B agree: 1 part  (bf16): pair p of a step is k = 2p, 2p + 1, as
 * they lie in memory, so that x can be loaded without a copy; 3 parts (fp32): pair p is k = p, p + 16: two vectors are
 * then merged by a shift and a blend, without a permutation.
 *
 * fp32 by three bf16 parts (Henry, Tang, Heinecke: "Leveraging the bfloat16 artificial intelligence datatype for
 * higher-precision computations", ARITH 2019): x = x1 + x2 + x3 exactly, each part having 8 bits. x1 and x2 are
 * rounded, which keeps the products left out (x2 w3, x3 w2, x3 w3) below 2^-24 of x w and gives them no preferred sign.
 * x1 is clamped to the largest bf16, so that it cannot round to infinity (x2 and x3 hold the rest). An infinity or NaN
 * becomes NaN in x3 (of two parts: stays in x2): what is not finite stays so, but an infinity may come out as NaN. The tile unit takes subnormal
 * numbers for zeros: parts below 1.2e-38 are lost. */
#ifndef SW_KERNELS_LINEAR_AMX_TILES_H
#define SW_KERNELS_LINEAR_AMX_TILES_H
#include "kernels/linear/epilogue.h"
#include <immintrin.h>

enum {
  SIDE = 16,
  STEP = 32,
  PANEL = 32,
  TILE = 1024
}; /* rows or columns of a tile; k of a tile; columns of a prepared panel; bytes */

/* lanes [0, n) of 16 */
SW_INLINE __mmask16 lanes(int64_t n) {
  return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* Sixteen elements from index i as fp32, zero where the mask is. */
SW_INLINE __m512 load16(const void *p, sw_dtype dtype, int64_t i, __mmask16 mask) {
  if (dtype == SW_F32) return _mm512_maskz_loadu_ps(mask, (const float *)p + i);
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, (const sw_bf16 *)p + i)), 16));
}

/* lo in the lower, hi in the upper half of each 32-bit lane, in three parts, the first two of them, or rounded to one. */
SW_INLINE void split_pairs(__m512 lo, __m512 hi, int parts, __m512i out[3]) {
  if (parts == 1) {
    __m512i l = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(lo)),
            h = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(hi));
    out[0] = _mm512_or_si512(l, _mm512_slli_epi32(h, 16));
    return;
  }
  const __m512i top = _mm512_set1_epi32((int)0xffff0000u), half = _mm512_set1_epi32(0x8000);
  const __m512 largest = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f7f0000));
  for (int part = 0; part < parts; part++) {
    __m512i l = _mm512_castps_si512(lo), h = _mm512_castps_si512(hi);
    if (part ==
        0) { /* the lesser magnitude, with the sign of the first; for NaN the second, which leaves the NaN to x2 */
      l = _mm512_castps_si512(_mm512_range_ps(lo, largest, 2));
      h = _mm512_castps_si512(_mm512_range_ps(hi, largest, 2));
    }
    if (parts == 2 && part == 1) { /* a NaN must not be rounded to something else */
      l = _mm512_mask_add_epi32(l, _mm512_cmp_ps_mask(lo, lo, _CMP_ORD_Q), l, half);
      h = _mm512_mask_add_epi32(h, _mm512_cmp_ps_mask(hi, hi, _CMP_ORD_Q), h, half);
    } else if (part < 2) {
      l = _mm512_add_epi32(l, half), h = _mm512_add_epi32(h, half);
    }
    out[part] = _mm512_ternarylogic_epi32(top, h, _mm512_srli_epi32(l, 16), 0xca); /* top ? h : l >> 16 */
    if (part == parts - 1) break;
    lo = _mm512_sub_ps(lo, _mm512_castsi512_ps(_mm512_and_si512(l, top)));
    hi = _mm512_sub_ps(hi, _mm512_castsi512_ps(_mm512_and_si512(h, top)));
  }
}

/* Pairs of the 32 k of one row. */
SW_INLINE void merge_row(__m512 first, __m512 second, int parts, __m512i out[3]) {
  if (parts == 1)
    out[0] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  else
    split_pairs(first, second, parts, out);
}
/* The same from memory: p[at ...], n of them valid. */
SW_INLINE void row_pairs(const void *p, sw_dtype dtype, int64_t at, int64_t n, int parts, __m512i out[3]) {
  if (dtype == SW_BF16 && parts == 1) {
    out[0] = _mm512_maskz_loadu_epi16(n >= 32 ? 0xffffffffu : n <= 0 ? 0 : (1u << n) - 1, (const sw_bf16 *)p + at);
    return;
  }
  merge_row(load16(p, dtype, at, lanes(n)), load16(p, dtype, at + 16, lanes(n - 16)), parts, out);
}
/* Pairs across two rows (k = row_a, row_b; negative: zeros), sixteen columns from `col`. */
SW_INLINE void column_pairs(const void *p, sw_dtype dtype, int64_t ld, int64_t row_a, int64_t row_b, int64_t col,
                            __mmask16 mask, int parts, __m512i out[3]) {
  if (dtype == SW_BF16 && parts == 1) {
    const sw_bf16 *h = (const sw_bf16 *)p + col;
    __m256i zero = _mm256_setzero_si256();
    __m256i l = row_a < 0 ? zero : _mm256_maskz_loadu_epi16(mask, h + row_a * ld);
    __m256i u = row_b < 0 ? zero : _mm256_maskz_loadu_epi16(mask, h + row_b * ld);
    out[0] = _mm512_or_si512(_mm512_cvtepu16_epi32(l), _mm512_slli_epi32(_mm512_cvtepu16_epi32(u), 16));
    return;
  }
  __m512 a = row_a < 0 ? _mm512_setzero_ps() : load16(p, dtype, row_a * ld + col, mask);
  __m512 b = row_b < 0 ? _mm512_setzero_ps() : load16(p, dtype, row_b * ld + col, mask);
  split_pairs(a, b, parts, out);
}

/* 16 x 16 transposition of 32-bit elements. */
SW_INLINE void transpose16(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; i++) { /* r[4 g + i]: column i of each 128-bit lane, rows 4 g .. 4 g + 3 */
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

/* The rows (1..16) of each tile register; every row has 64 bytes. Zeroes the registers. */
SW_INLINE void configure_tiles(const int rows[8]) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
  } __attribute__((aligned(64))) config = {.palette = 1};
  for (int i = 0; i < 8; i++) config.bytes_per_row[i] = 64, config.rows[i] = (uint8_t)rows[i];
  __asm__ volatile("ldtilecfg %0" ::"m"(config)); /* gcc's _tile_loadconfig names only its first eight bytes as read */
}
/* The compilers' tile loads and stores do not say which memory they touch: this stands between them and ordinary code.
 */
#define TILE_FENCE() __asm__ volatile("" ::: "memory")
#endif
