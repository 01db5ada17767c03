/* The pieces attention on the CPU is made of: transposition, the two register-blocked products, exp2.
 *
 * Scores are kept transposed: T [keys, SW_QUERIES], one query a lane. Every step of the softmax is then vertical (no
 * sum or maximum across lanes), keys need no padding, and a probability is read back as a scalar that is broadcast, by
 * query or by key. */
#ifndef SW_KERNELS_ATTENTION_TILES_H
#define SW_KERNELS_ATTENTION_TILES_H
#include "kernels/simd.h"

enum { SW_QUERIES = 2 * SW_LANES }; /* queries a block */

/* 2^x for x <= 0, to 2 units in the last place (the polynomial of Cephes' exp2f); below -126 it is 2^-126. NaN stays
 * NaN: the clamp returns its second operand for it, and 2^k is multiplied, not added to the exponent. */
SW_INLINE vf attention_exp2(vf x) {
  x = vf_max(vf_set(-126.0f), x);
  vf shifted =
      x + (12582912.0f + 127.0f); /* 1.5 * 2^23: rounds to a whole number, which then is in the low bits, biased */
  vf r = x - (shifted - (12582912.0f + 127.0f));
  vf p = vf_set(1.535336188319500e-4f);
  p = p * r + 1.339887440266574e-3f;
  p = p * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
  return p * (vf)((vi)shifted << 23);
}

/* [rows, columns] in `dtype` with `stride` elements a row -> fp32 [rows, padded], zeros beyond the columns */
SW_INLINE void attention_pack(const void *from, sw_dtype dtype, int64_t at, int64_t stride, int rows, int columns,
                              int padded, float *to) {
  for (int r = 0; r < rows; r++) {
    int c = 0;
    for (; c + SW_LANES <= columns; c += SW_LANES) vf_store(to + c, vf_get(from, dtype, at + c));
    if (c < columns) vf_store(to + c, vf_get_n(from, dtype, at + c, (int)((unsigned)columns % SW_LANES)));
    at += stride;
    to += padded;
  }
}
/* fp32 [rows, padded] times scale -> [rows, columns] in `dtype` */
SW_INLINE void attention_unpack(const float *from, int padded, int rows, int columns, float scale, void *to,
                                sw_dtype dtype, int64_t at, int64_t stride) {
  for (int r = 0; r < rows; r++) {
    int c = 0;
    for (; c + SW_LANES <= columns; c += SW_LANES) vf_put(to, dtype, at + c, vf_load(from + c) * scale);
    if (c < columns) vf_put_n(to, dtype, at + c, vf_load(from + c) * scale, (int)((unsigned)columns % SW_LANES));
    at += stride;
    from += padded;
  }
}

/* rows <= SW_QUERIES of `columns` floats, times scale -> to [columns, SW_QUERIES]; lanes beyond the rows are 0 up to
 * the next whole vector. Rows may be read up to the next whole vector of columns. */
SW_INLINE void attention_transpose(const float *from, int64_t stride, int rows, int columns, float scale, float *to) {
  static const float zeros[256 + SW_LANES];
  for (int first = 0; first < rows; first += SW_LANES) {
    const float *row[SW_LANES];
    for (int i = 0; i < SW_LANES; i++) row[i] = first + i < rows ? from + (first + i) * stride : zeros;
#if defined(__AVX512F__)
    __m512 factor = _mm512_set1_ps(scale);
    for (int c = 0; c < columns; c += 4) { /* four columns: 128-bit pieces side by side, then 4 x 4 within them */
      __m512 x[4], a, b, d, e;
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        x[i] = _mm512_castps128_ps512(_mm_loadu_ps(row[i] + c));
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(row[i + 4] + c), 1);
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(row[i + 8] + c), 2);
        x[i] = _mm512_mul_ps(_mm512_insertf32x4(x[i], _mm_loadu_ps(row[i + 12] + c), 3), factor);
      }
      a = _mm512_unpacklo_ps(x[0], x[1]), b = _mm512_unpackhi_ps(x[0], x[1]);
      d = _mm512_unpacklo_ps(x[2], x[3]), e = _mm512_unpackhi_ps(x[2], x[3]);
      float *out = to + (int64_t)c * SW_QUERIES + first;
      _mm512_storeu_ps(out, _mm512_shuffle_ps(a, d, 0x44));
      _mm512_storeu_ps(out + SW_QUERIES, _mm512_shuffle_ps(a, d, 0xee));
      _mm512_storeu_ps(out + 2 * SW_QUERIES, _mm512_shuffle_ps(b, e, 0x44));
      _mm512_storeu_ps(out + 3 * SW_QUERIES, _mm512_shuffle_ps(b, e, 0xee));
    }
#elif defined(__SSE2__)
    __m128 factor = _mm_set1_ps(scale);
    for (int c = 0; c < columns; c += 4)
      for (int i = 0; i < SW_LANES; i += 4) {
        __m128 x[4];
        for (int k = 0; k < 4; k++) x[k] = _mm_mul_ps(_mm_loadu_ps(row[i + k] + c), factor);
        _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
        for (int k = 0; k < 4; k++) _mm_storeu_ps(to + (int64_t)(c + k) * SW_QUERIES + first + i, x[k]);
      }
#else
    for (int c = 0; c < columns; c++)
      for (int i = 0; i < SW_LANES; i++) to[(int64_t)c * SW_QUERIES + first + i] = row[i][c] * scale;
#endif
  }
}

/* Tiles are sized by the number of vector registers: 32, or 16. */
#ifdef __AVX512F__
#define SW_SCORE_KEYS(vectors) 12
#define SW_COMBINE_VECTORS 4
#define SW_COMBINE_ROWS(vectors) ((vectors) <= 2 ? 12 : (vectors) == 3 ? 8 : 6)
#else
#define SW_SCORE_KEYS(vectors) ((vectors) == 1 ? 12 : 6)
#define SW_COMBINE_VECTORS 2
#define SW_COMBINE_ROWS(vectors) ((vectors) == 1 ? 12 : 6)
#endif
#define SW_TO_12(X, ...)                                                                                               \
  X(1, __VA_ARGS__)                                                                                                    \
  X(2, __VA_ARGS__) X(3, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__) X(7, __VA_ARGS__)          \
      X(8, __VA_ARGS__) X(9, __VA_ARGS__) X(10, __VA_ARGS__) X(11, __VA_ARGS__) X(12, __VA_ARGS__)

/* T[k, q] = sum_j a[j, q] b[k, j] for `keys` rows of b and `vectors` vectors of queries; top[q] becomes the largest so
 * far. */
SW_INLINE void attention_score_tile(const float *a, const float *b, int64_t stride, int size, float *t, float *top,
                                    const int keys, const int vectors) {
  vf sum[12][2];
#pragma GCC unroll 12
  for (int k = 0; k < keys; k++) sum[k][0] = sum[k][1] = vf_zero();
  const float *b3 = b + 3 * stride, *b6 = b + 6 * stride, *b9 = b + 9 * stride;
  for (int j = 0; j < size; j++, a += SW_QUERIES) {
    vf q0 = vf_load(a), q1 = vectors > 1 ? vf_load(a + SW_LANES) : vf_zero();
#pragma GCC unroll 12
    for (int k = 0; k < keys; k++) {
      const float *row = k < 3 ? b : k < 6 ? b3 : k < 9 ? b6 : b9;
      vf x = vf_set(row[j + (k % 3) * stride]);
      sum[k][0] += q0 * x;
      if (vectors > 1) sum[k][1] += q1 * x;
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < vectors; v++) {
    vf m = vf_load(top + v * SW_LANES);
#pragma GCC unroll 12
    for (int k = 0; k < keys; k++) {
      m = vf_max(sum[k][v], m);
      vf_store(t + k * SW_QUERIES + v * SW_LANES, sum[k][v]);
    }
    vf_store(top + v * SW_LANES, m);
  }
}
typedef void attention_score_fn(const float *a, const float *b, int64_t stride, int size, float *t, float *top);
#define SW_SCORE(keys, vectors)                                                                                        \
  static __attribute__((noinline)) void attention_score_##keys##_##vectors(                                            \
      const float *a, const float *b, int64_t stride, int size, float *t, float *top) {                                \
    if (keys <= SW_SCORE_KEYS(vectors)) attention_score_tile(a, b, stride, size, t, top, keys, vectors);               \
  }
SW_TO_12(SW_SCORE, 1)
SW_TO_12(SW_SCORE, 2)
#undef SW_SCORE
#define SW_SCORE(keys, vectors) attention_score_##keys##_##vectors,
static attention_score_fn *const attention_score_of[2][12] = {{SW_TO_12(SW_SCORE, 1)}, {SW_TO_12(SW_SCORE, 2)}};
#undef SW_SCORE

/* T [keys, SW_QUERIES] = b a for b [keys, size] and the transposed queries a [size, SW_QUERIES]; top [SW_QUERIES]:
 * their maxima. */
SW_INLINE void attention_scores(const float *a, const float *b, int64_t stride, int size, int keys, int queries,
                                float *t, float *top) {
  int vectors = queries > SW_LANES ? 2 : 1, most = SW_SCORE_KEYS(vectors);
  attention_score_fn *const *tile = attention_score_of[vectors - 1];
  for (int v = 0; v < vectors; v++) vf_store(top + v * SW_LANES, vf_set(-__builtin_inff()));
  for (int k = 0; k < keys; k += most) {
    int n = keys - k < most ? keys - k : most;
    tile[n - 1](a, b + k * stride, stride, size, t + (int64_t)k * SW_QUERIES, top);
  }
}

/* c[m, :] = scale[m] * sum_n t(m, n) b[n, :] (+ c[m, :] where `add`), `rows` rows and `vectors` vectors wide.
 * by_query: t(m, n) = T[n, m], rows are queries and the sum runs over keys; otherwise t(m, n) = T[m, n], the other way
 * round. */
SW_INLINE void attention_combine_tile(const float *t, const float *b, int64_t b_stride, int count, float *c,
                                      int64_t c_stride, int add, const float *scale, const int rows, const int vectors,
                                      const int by_query) {
  vf sum[12][4];
#pragma GCC unroll 12
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[m][v] = add ? vf_load(c + m * c_stride + v * SW_LANES) : vf_zero();
  for (int n = 0; n < count; n++) {
    vf x[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) x[v] = vf_load(b + v * SW_LANES);
#pragma GCC unroll 12
    for (int m = 0; m < rows; m++) {
      vf w = vf_set(by_query ? t[m] : t[m * SW_QUERIES]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[m][v] += w * x[v];
    }
    b += b_stride;
    t += by_query ? SW_QUERIES : 1;
  }
#pragma GCC unroll 12
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      vf_store(c + m * c_stride + v * SW_LANES, scale ? sum[m][v] * scale[m] : sum[m][v]);
}
typedef void attention_combine_fn(const float *t, const float *b, int64_t b_stride, int count, float *c,
                                  int64_t c_stride, int add, const float *scale);
#define SW_COMBINE(rows, vectors, by_query)                                                                            \
  static __attribute__((noinline)) void attention_combine_##rows##_##vectors##_##by_query(                             \
      const float *t, const float *b, int64_t b_stride, int count, float *c, int64_t c_stride, int add,                \
      const float *scale) {                                                                                            \
    if (vectors <= SW_COMBINE_VECTORS && rows <= SW_COMBINE_ROWS(vectors))                                             \
      attention_combine_tile(t, b, b_stride, count, c, c_stride, add, scale, rows, vectors, by_query);                 \
  }
SW_TO_12(SW_COMBINE, 1, 0)
SW_TO_12(SW_COMBINE, 2, 0) SW_TO_12(SW_COMBINE, 3, 0) SW_TO_12(SW_COMBINE, 4, 0) SW_TO_12(SW_COMBINE, 1, 1)
    SW_TO_12(SW_COMBINE, 2, 1) SW_TO_12(SW_COMBINE, 3, 1) SW_TO_12(SW_COMBINE, 4, 1)
#undef SW_COMBINE
#define SW_COMBINE(rows, vectors, by_query) attention_combine_##rows##_##vectors##_##by_query,
        static attention_combine_fn *const attention_combine_of[2][4][12] = {{{SW_TO_12(SW_COMBINE, 1, 0)},
                                                                              {SW_TO_12(SW_COMBINE, 2, 0)},
                                                                              {SW_TO_12(SW_COMBINE, 3, 0)},
                                                                              {SW_TO_12(SW_COMBINE, 4, 0)}},
                                                                             {{SW_TO_12(SW_COMBINE, 1, 1)},
                                                                              {SW_TO_12(SW_COMBINE, 2, 1)},
                                                                              {SW_TO_12(SW_COMBINE, 3, 1)},
                                                                              {SW_TO_12(SW_COMBINE, 4, 1)}}};
#undef SW_COMBINE

/* c [rows, padded]: all rows and columns. The rows of a tile are dealt out evenly, so that no tile is left with one. */
SW_INLINE void attention_combine(const float *t, int by_query, const float *b, int64_t b_stride, int count, int rows,
                                 int padded, float *c, int64_t c_stride, int add, const float *scale) {
  for (int column = 0; column < padded; column += SW_COMBINE_VECTORS * SW_LANES) {
    int vectors = (padded - column) / SW_LANES;
    if (vectors > SW_COMBINE_VECTORS) vectors = SW_COMBINE_VECTORS;
    int most = SW_COMBINE_ROWS(vectors), tiles = (rows + most - 1) / most, m = 0;
    for (int i = 0; i < tiles; i++) {
      int n = (rows - m + tiles - i - 1) / (tiles - i);
      attention_combine_of[by_query][vectors - 1][n - 1](t + (by_query ? m : m * SW_QUERIES), b + column, b_stride,
                                                         count, c + m * c_stride + column, c_stride, add,
                                                         scale ? scale + m : NULL);
      m += n;
    }
  }
}
#endif
