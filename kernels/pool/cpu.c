/* Pooling on the CPU. A sequence belongs to one thread, and its tokens are added in order. Columns go in blocks of as many vectors as
 * stay in registers while the tokens pass by. */
#include "base/error.h"
#include "kernels/backend.h"
#include "kernels/isa.h"
#include "kernels/simd.h"

#include <math.h>

sw_pool_forward_fn SW_CPU(pool_forward);
sw_pool_backward_fn SW_CPU(pool_backward);
sw_gather_forward_fn SW_CPU(gather_forward);
sw_gather_backward_fn SW_CPU(gather_backward);

enum { BLOCK = 8, PARALLEL_FROM = 1 << 15 }; /* vectors a block; elements from which threads pay */
static const float smallest_norm = 1e-12f;

/* `w` vectors from column `c`, or one partial vector of `n` columns */
typedef struct {
  int c, w, n;
} block;
SW_INLINE int next_block(block *b, int hidden) {
  b->c += b->n ? b->n : b->w * SW_LANES;
  int left = hidden - b->c;
  if (left <= 0) return 0;
  b->w = left / SW_LANES < BLOCK ? left / SW_LANES : BLOCK;
  b->n = b->w ? 0 : left;
  return 1;
}
SW_INLINE vf get(const void *x, sw_dtype dtype, int64_t at, int n) {
  return n ? vf_get_n(x, dtype, at, n) : vf_get(x, dtype, at);
}
SW_INLINE void put(void *x, sw_dtype dtype, int64_t at, vf v, int n) {
  if (n)
    vf_put_n(x, dtype, at, v, n);
  else
    vf_put(x, dtype, at, v);
}

/* true where a takes over from the running maximum m; NaN stays, as in PyTorch */
SW_INLINE vi beats(vf a, vf m) { return (a > m) | ((a != a) & (m == m)); }

SW_INLINE void pool_columns(const void *x, sw_dtype dtype, sw_pooling pooling, int64_t first, int64_t tokens, int hidden, int c, int w,
                            int n, float *y) {
  vf sum[BLOCK];
  for (int k = 0; k < w; k++) sum[k] = get(x, dtype, first * hidden + c + k * SW_LANES, n);
  if (pooling == SW_POOL_MEAN || pooling == SW_POOL_SUM) {
    for (int64_t t = 1; t < tokens; t++)
      for (int k = 0; k < w; k++) sum[k] += get(x, dtype, (first + t) * hidden + c + k * SW_LANES, n);
    vf count = vf_set(pooling == SW_POOL_SUM ? 1.0f : (float)tokens);
    for (int k = 0; k < w; k++) sum[k] = sum[k] / count;
  } else if (pooling == SW_POOL_MAX) {
    for (int64_t t = 1; t < tokens; t++)
      for (int k = 0; k < w; k++) {
        vf a = get(x, dtype, (first + t) * hidden + c + k * SW_LANES, n);
        sum[k] = vf_select(beats(a, sum[k]), a, sum[k]);
      }
  }
  for (int k = 0; k < w; k++) put(y, SW_F32, c + k * SW_LANES, sum[k], n);
}

SW_INLINE float dot(const float *a, const float *b, int hidden) {
  vf s = vf_zero();
  int i = 0;
  for (; i + SW_LANES <= hidden; i += SW_LANES) s += vf_load(a + i) * vf_load(b + i);
  if (i < hidden) s += vf_load_n(a + i, hidden - i) * vf_load_n(b + i, hidden - i);
  return vf_sum(s);
}

SW_INLINE void pool_one(const sw_pool_desc *d, sw_dtype dtype, int64_t first, int64_t tokens, const void *x, float *y, float *norm) {
  if (tokens == 0) {
    memset(y, 0, (size_t)d->hidden * 4);
  } else {
    for (block b = {0}; next_block(&b, d->hidden);) {
      if (b.w == BLOCK) /* a constant, so that the sums stay in registers */
        pool_columns(x, dtype, d->pooling, first, tokens, d->hidden, b.c, BLOCK, 0, y);
      else if (b.w)
        for (int k = 0; k < b.w; k++) pool_columns(x, dtype, d->pooling, first, tokens, d->hidden, b.c + k * SW_LANES, 1, 0, y);
      else
        pool_columns(x, dtype, d->pooling, first, tokens, d->hidden, b.c, 1, b.n, y);
    }
  }
  if (!d->normalize && !norm) return;
  float length = sqrtf(dot(y, y, d->hidden));
  if (norm) *norm = length;
  if (!d->normalize) return;
  float divisor = length < smallest_norm ? smallest_norm : length; /* NaN stays NaN */
  for (int i = 0; i < d->hidden; i++) y[i] = y[i] / divisor;
}

static int check_sequences(const char *what, const sw_pool_desc *d, const int32_t *cu_seqlens) {
  if (d->batch < 0 || d->hidden < 1 || d->total_tokens < 0)
    return sw_fail("%s: batch %d, hidden %d, tokens %lld: sizes must be positive", what, d->batch, d->hidden, (long long)d->total_tokens);
  if (d->pooling != SW_POOL_MEAN && d->pooling != SW_POOL_CLS && d->pooling != SW_POOL_MAX && d->pooling != SW_POOL_SUM)
    return sw_fail("%s: unknown pooling %d", what, (int)d->pooling);
  if (cu_seqlens[0] != 0) return sw_fail("%s: cu_seqlens[0] is %d, not 0", what, cu_seqlens[0]);
  for (int i = 0; i < d->batch; i++)
    if (cu_seqlens[i + 1] < cu_seqlens[i]) return sw_fail("%s: cu_seqlens falls at sequence %d", what, i);
  if (cu_seqlens[d->batch] > d->total_tokens)
    return sw_fail("%s: cu_seqlens ends at %d, beyond the %lld tokens", what, cu_seqlens[d->batch], (long long)d->total_tokens);
  return 0;
}

int SW_CPU(pool_forward)(sw_stream *stream, const sw_pool_desc *desc, const int32_t *cu_seqlens, const void *x, float *y, float *norms) {
  const sw_pool_desc d = *desc;
  if (check_sequences("pool_forward", &d, cu_seqlens)) return -1;
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic) if (d.total_tokens * d.hidden >= PARALLEL_FROM)
  for (int i = 0; i < d.batch; i++) {
    int64_t first = cu_seqlens[i], tokens = cu_seqlens[i + 1] - first;
    float *to = y + (int64_t)i * d.hidden, *norm = norms ? norms + i : NULL;
    if (d.dtype == SW_F32)
      pool_one(&d, SW_F32, first, tokens, x, to, norm);
    else
      pool_one(&d, SW_BF16, first, tokens, x, to, norm);
  }
  return 0;
}

SW_INLINE void unpool_columns(const sw_pool_desc *d, sw_dtype dtype, int64_t first, int64_t tokens, const void *x, int c, int n, vf g,
                              void *dx) {
  int hidden = d->hidden;
  if (d->pooling == SW_POOL_MEAN || d->pooling == SW_POOL_SUM) {
    g = g / vf_set(d->pooling == SW_POOL_SUM ? 1.0f : (float)tokens);
    for (int64_t t = 0; t < tokens; t++) put(dx, dtype, (first + t) * hidden + c, g, n);
  } else if (d->pooling == SW_POOL_CLS) {
    put(dx, dtype, first * hidden + c, g, n);
    for (int64_t t = 1; t < tokens; t++) put(dx, dtype, (first + t) * hidden + c, vf_zero(), n);
  } else {
    vf m = get(x, dtype, first * hidden + c, n);
    vi where = vi_set(0);
    for (int64_t t = 1; t < tokens; t++) {
      vf a = get(x, dtype, (first + t) * hidden + c, n);
      vi better = beats(a, m);
      m = vf_select(better, a, m);
      where = (better & vi_set((int32_t)t)) | (~better & where);
    }
    for (int64_t t = 0; t < tokens; t++) put(dx, dtype, (first + t) * hidden + c, (vf)((where == vi_set((int32_t)t)) & (vi)g), n);
  }
}

/* With n = |pooled| and y = pooled / n: d pooled = (dy - y (y . dy)) / n; where n was below the floor, y = pooled / floor. */
SW_INLINE void unpool_one(const sw_pool_desc *d, sw_dtype dtype, int64_t first, int64_t tokens, const void *x, const float *y, float norm,
                          const float *dy, void *dx) {
  float along = 0, divisor = 1;
  if (d->normalize) {
    divisor = norm < smallest_norm ? smallest_norm : norm;
    if (!(norm < smallest_norm)) along = dot(y, dy, d->hidden);
  }
  for (int c = 0; c < d->hidden; c += SW_LANES) {
    int n = d->hidden - c < SW_LANES ? d->hidden - c : 0;
    vf g = get(dy, SW_F32, c, n);
    if (d->normalize) g = (g - get(y, SW_F32, c, n) * along) / divisor;
    unpool_columns(d, dtype, first, tokens, x, c, n, g, dx);
  }
}

int SW_CPU(pool_backward)(sw_stream *stream, const sw_pool_desc *desc, const int32_t *cu_seqlens, const void *x, const float *y,
                          const float *norms, const float *dy, void *dx) {
  const sw_pool_desc d = *desc;
  if (check_sequences("pool_backward", &d, cu_seqlens)) return -1;
  if (d.normalize && !norms) return sw_fail("pool_backward: the norms of the forward pass are needed when normalising");
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic) if (d.total_tokens * d.hidden >= PARALLEL_FROM)
  for (int i = 0; i < d.batch; i++) {
    int64_t first = cu_seqlens[i], tokens = cu_seqlens[i + 1] - first, at = (int64_t)i * d.hidden;
    if (tokens == 0) continue;
    float norm = d.normalize ? norms[i] : 1;
    if (d.dtype == SW_F32)
      unpool_one(&d, SW_F32, first, tokens, x, y + at, norm, dy + at, dx);
    else
      unpool_one(&d, SW_BF16, first, tokens, x, y + at, norm, dy + at, dx);
  }
  /* tokens that belong to no sequence */
  size_t row = (size_t)d.hidden * sw_dtype_bytes(d.dtype), used = (size_t)cu_seqlens[d.batch];
  if (used < (size_t)d.total_tokens) memset((char *)dx + used * row, 0, ((size_t)d.total_tokens - used) * row);
  return 0;
}

static int check_indices(const char *what, const sw_gather_desc *d, const int32_t *index) {
  if (d->rows < 0 || d->tokens < 0 || d->hidden < 1)
    return sw_fail("%s: rows %lld, tokens %lld, hidden %d: sizes must be positive", what, (long long)d->rows, (long long)d->tokens, d->hidden);
  for (int64_t i = 0; i < d->rows; i++)
    if (index[i] < 0 || index[i] >= d->tokens)
      return sw_fail("%s: index[%lld] is %d, outside the %lld tokens", what, (long long)i, index[i], (long long)d->tokens);
  return 0;
}

int SW_CPU(gather_forward)(sw_stream *stream, const sw_gather_desc *desc, const int32_t *index, const void *x, void *y) {
  if (check_indices("gather_forward", desc, index)) return -1;
  size_t row = (size_t)desc->hidden * sw_dtype_bytes(desc->dtype);
  int64_t rows = desc->rows;
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (rows * (int64_t)row >= 4 * PARALLEL_FROM)
  for (int64_t i = 0; i < rows; i++) memcpy((char *)y + (size_t)i * row, (const char *)x + (size_t)index[i] * row, row);
  return 0;
}

int SW_CPU(gather_backward)(sw_stream *stream, const sw_gather_desc *desc, const int32_t *index, const void *dy, void *dx) {
  if (check_indices("gather_backward", desc, index)) return -1;
  size_t row = (size_t)desc->hidden * sw_dtype_bytes(desc->dtype);
  int64_t rows = desc->rows, tokens = desc->tokens;
#pragma omp parallel num_threads(stream->threads) if (tokens * (int64_t)row >= 4 * PARALLEL_FROM)
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tokens; i++) memset((char *)dx + (size_t)i * row, 0, row);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows; i++) memcpy((char *)dx + (size_t)index[i] * row, (const char *)dy + (size_t)i * row, row);
  }
  return 0;
}
