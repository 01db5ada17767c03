/* LayerNorm of one row, shared by kernels/layernorm and kernels/embedding. `dtype` is a constant wherever these are
 * inlined. A row lives in fp32 on the stack between the passes over it. */
#ifndef SW_KERNELS_LAYERNORM_ROW_H
#define SW_KERNELS_LAYERNORM_ROW_H
#include "kernels/dropout/mask.h"
#include "kernels/layernorm/check.h"
#include "kernels/simd.h"

/* Columns are handled in whole vectors, then one of n < SW_LANES: the body sees `i` and `n` (SW_LANES for a whole one,
 * a constant). */
#define SW_EACH_VECTOR(columns, ...)                                                                                   \
  do {                                                                                                                 \
    int i = 0;                                                                                                         \
    for (; i + SW_LANES <= (columns); i += SW_LANES) {                                                                 \
      enum { n = SW_LANES };                                                                                           \
      __VA_ARGS__                                                                                                      \
    }                                                                                                                  \
    if (i < (columns)) {                                                                                               \
      const int n = (int)((unsigned)(columns) % SW_LANES);                                                             \
      __VA_ARGS__                                                                                                      \
    }                                                                                                                  \
  } while (0)
SW_INLINE vf row_get(const void *p, sw_dtype dtype, int64_t i, int n) {
  return n == SW_LANES ? vf_get(p, dtype, i) : vf_get_n(p, dtype, i, n);
}
SW_INLINE void row_put(void *p, sw_dtype dtype, int64_t i, vf v, int n) {
  if (n == SW_LANES)
    vf_put(p, dtype, i, v);
  else
    vf_put_n(p, dtype, i, v, n);
}
/* the first n lanes of v, 0 in the others */
SW_INLINE vf row_first(vf v, int n) {
  if (n == SW_LANES) return v;
  vi lane;
  for (int k = 0; k < SW_LANES; k++) lane[k] = k;
  return vf_select(lane < vi_set(n), v, vf_zero());
}

/* Mean and 1 / sqrt(var + eps) of z [hidden]; z is padded with zeros to whole vectors. Four sums hide the latency of
 * the additions. */
SW_INLINE void row_statistics(const float *z, int hidden, float eps, float *mean, float *rstd) {
  vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
  int i = 0;
  for (; i + 4 * SW_LANES <= hidden; i += 4 * SW_LANES)
    for (int k = 0; k < 4; k++) s[k] += vf_load(z + i + k * SW_LANES);
  for (; i < hidden; i += SW_LANES) s[0] += vf_load(z + i);
  float m = vf_sum((s[0] + s[1]) + (s[2] + s[3])) / (float)hidden;
  for (int k = 0; k < 4; k++) s[k] = vf_zero();
  for (i = 0; i + 4 * SW_LANES <= hidden; i += 4 * SW_LANES)
    for (int k = 0; k < 4; k++) {
      vf c = vf_load(z + i + k * SW_LANES) - m;
      s[k] += c * c;
    }
  for (; i < hidden; i += SW_LANES) {
    vf c = row_first(vf_load(z + i) - m, hidden - i < SW_LANES ? hidden - i : SW_LANES);
    s[0] += c * c;
  }
  *mean = m;
  *rstd = 1.0f / __builtin_sqrtf(vf_sum((s[0] + s[1]) + (s[2] + s[3])) / (float)hidden + eps);
}
/* y = (gamma (z - mean) rstd + beta) * mask; mask may be NULL. */
SW_INLINE void row_normalize(const float *z, int hidden, float mean, float rstd, const float *gamma, const float *beta,
                             const float *mask, void *y, int64_t at, sw_dtype dtype) {
  SW_EACH_VECTOR(hidden, {
    vf v = (vf_load(z + i) - mean) * rstd * row_get(gamma, SW_F32, i, n) + row_get(beta, SW_F32, i, n);
    if (mask) v *= vf_load(mask + i);
    row_put(y, dtype, at + i, v, n);
  });
}
/* dz from dy * before (the mask of the output, or NULL); dx = dz * after (the mask of the branch) where dx is not NULL.
 * dz may be dy. dgamma and dbeta are added to. Two passes over the row, the second one in L1. */
SW_INLINE void row_backward(const void *dy, const void *z, int64_t at, int hidden, const float *gamma, float mean,
                            float rstd, const float *before, void *dz, void *dx, const float *after, float *dgamma,
                            float *dbeta, sw_dtype dtype) {
  vf sa = vf_zero(), san = vf_zero(), sb = vf_zero(), sbn = vf_zero();
  SW_EACH_VECTOR(hidden, {
    vf a = row_get(dy, dtype, at + i, n) * row_get(gamma, SW_F32, i, n); /* 0 beyond the row */
    if (before) a *= row_first(vf_load(before + i), n);
    vf an = a * ((row_get(z, dtype, at + i, n) - mean) * rstd);
    if (i & SW_LANES)
      sa += a, san += an;
    else
      sb += a, sbn += an;
  });
  float ma = vf_sum(sa + sb) / (float)hidden, man = vf_sum(san + sbn) / (float)hidden;
  SW_EACH_VECTOR(hidden, {
    vf d = row_get(dy, dtype, at + i, n);
    if (before) d *= vf_load(before + i);
    vf normal = (row_get(z, dtype, at + i, n) - mean) * rstd;
    vf v = rstd * (d * row_get(gamma, SW_F32, i, n) - ma - normal * man);
    row_put(dz, dtype, at + i, v, n);
    if (dx) row_put(dx, dtype, at + i, after ? v * vf_load(after + i) : v, n);
    row_put(dgamma, SW_F32, i, row_get(dgamma, SW_F32, i, n) + d * normal, n);
    row_put(dbeta, SW_F32, i, row_get(dbeta, SW_F32, i, n) + d, n);
  });
}

/* dgamma and dbeta: the tokens are cut into slices, each summed by one thread on its own; the slices are then added in
 * order. How many slices there are depends on the shapes alone, so the sums do not depend on the threads. */
enum { SW_SLICE_TOKENS = 16, SW_SLICES = 64, SW_SLICE_FLOATS = 1 << 17, SW_ROW_BLOCK = 4 * SW_LANES };
typedef struct {
  int64_t tokens; /* of a slice */
  int count;
} row_slices;
SW_INLINE int row_most_slices(int hidden) {
  return SW_SLICE_FLOATS / (2 * hidden) < SW_SLICES ? SW_SLICE_FLOATS / (2 * hidden) : SW_SLICES;
}
SW_INLINE row_slices row_slices_of(int64_t tokens, int hidden) {
  int most = row_most_slices(hidden);
  row_slices s = {.tokens = (tokens + most - 1) / most};
  if (s.tokens < SW_SLICE_TOKENS) s.tokens = SW_SLICE_TOKENS;
  s.count = (int)((tokens + s.tokens - 1) / s.tokens);
  return s;
}
/* Of their partial sums, for as many tokens or fewer (which may make more slices, but never more than this). */
SW_INLINE size_t row_slices_bytes(int64_t tokens, int hidden) {
  int64_t slices = (tokens + SW_SLICE_TOKENS - 1) / SW_SLICE_TOKENS, most = row_most_slices(hidden);
  return (size_t)(slices < most ? slices : most) * 2 * (size_t)hidden * sizeof(float);
}
/* partial [slices, 2, hidden] */
SW_INLINE void row_add_slices(const float *partial, int slices, int hidden, float *dgamma, float *dbeta) {
  for (int s = 0; s < slices; s++) {
    const float *g = partial + (int64_t)s * 2 * hidden, *b = g + hidden;
    for (int i = 0; i < hidden; i++) dgamma[i] += g[i];
    for (int i = 0; i < hidden; i++) dbeta[i] += b[i];
  }
}
#endif
