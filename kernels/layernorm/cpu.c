/* Residual + dropout + LayerNorm on the CPU: see layernorm.h. Forward is one pass over memory: the row stays in L1
 * between the sum, the variance and the normalisation. z enters the statistics in fp32, before it is rounded to the
 * storage dtype. */
#include "kernels/layernorm/row.h"
#include "kernels/isa.h"
#include "kernels/layernorm/check.h"

sw_layernorm_forward_fn SW_CPU(layernorm_forward);
sw_layernorm_workspace_fn SW_CPU(layernorm_workspace);
sw_layernorm_backward_fn SW_CPU(layernorm_backward);

typedef struct {
  const sw_layernorm_desc *desc;
  void *x;
  const void *residual, *dy, *z;
  const float *gamma, *beta;
  void *y, *dz, *dx;
  float *mean, *rstd;
} job;

static int check(const sw_layernorm_desc *d) {
  return sw_check_rows("layernorm", d->hidden, &d->dropout);
}

SW_INLINE void forward_rows(const job *j, int64_t first, int64_t last, sw_dtype dtype) {
  int hidden = j->desc->hidden;
  float z[SW_MAX_HIDDEN], room[SW_DROPOUT_ROOM(SW_MAX_HIDDEN)];
  for (int64_t t = first; t < last; t++) {
    int64_t at = t * hidden;
    const float *mask = j->desc->dropout.p > 0 ? sw_dropout_row(&j->desc->dropout, (uint64_t)at, hidden, room) : NULL;
    SW_EACH_VECTOR(hidden, {
      vf v = row_get(j->x, dtype, at + i, n);
      if (mask) v *= row_first(vf_load(mask + i), n);
      if (j->residual) v += row_get(j->residual, dtype, at + i, n);
      vf_store(z + i, v); /* zeros beyond the row */
      if (j->mean && (mask || j->residual)) row_put(j->x, dtype, at + i, v, n);
    });
    float mean, rstd;
    row_statistics(z, hidden, j->desc->eps, &mean, &rstd);
    row_normalize(z, hidden, mean, rstd, j->gamma, j->beta, NULL, j->y, at, dtype);
    if (j->mean) j->mean[t] = mean, j->rstd[t] = rstd;
  }
}
static __attribute__((noinline)) void forward_f32(const job *j, int64_t a, int64_t b) {
  forward_rows(j, a, b, SW_F32);
}
static __attribute__((noinline)) void forward_bf16(const job *j, int64_t a, int64_t b) {
  forward_rows(j, a, b, SW_BF16);
}

int SW_CPU(layernorm_forward)(sw_stream *stream, const sw_layernorm_desc *desc, void *x, const void *residual,
                              const float *gamma, const float *beta, void *y, float *mean, float *rstd) {
  if (check(desc)) return -1;
  job j = {
      .desc = desc, .x = x, .residual = residual, .gamma = gamma, .beta = beta, .y = y, .mean = mean, .rstd = rstd};
  int64_t tokens = desc->tokens;
  enum { GROUP = 16 };
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (tokens * desc->hidden > 16384)
  for (int64_t t = 0; t < tokens; t += GROUP) {
    int64_t end = t + GROUP < tokens ? t + GROUP : tokens;
    if (desc->dtype == SW_F32)
      forward_f32(&j, t, end);
    else
      forward_bf16(&j, t, end);
  }
  return 0;
}

SW_INLINE void backward_slice(const job *j, int64_t first, int64_t last, float *dgamma, float *dbeta, sw_dtype dtype) {
  int hidden = j->desc->hidden;
  float room[SW_DROPOUT_ROOM(SW_MAX_HIDDEN)];
  memset(dgamma, 0, (size_t)hidden * sizeof *dgamma);
  memset(dbeta, 0, (size_t)hidden * sizeof *dbeta);
  for (int64_t t = first; t < last; t++) {
    int64_t at = t * hidden;
    const float *mask = j->desc->dropout.p > 0 ? sw_dropout_row(&j->desc->dropout, (uint64_t)at, hidden, room) : NULL;
    row_backward(j->dy, j->z, at, hidden, j->gamma, j->mean[t], j->rstd[t], NULL, j->dz, j->dx, mask, dgamma, dbeta,
                 dtype);
  }
}
static __attribute__((noinline)) void backward_f32(const job *j, int64_t a, int64_t b, float *dgamma, float *dbeta) {
  backward_slice(j, a, b, dgamma, dbeta, SW_F32);
}
static __attribute__((noinline)) void backward_bf16(const job *j, int64_t a, int64_t b, float *dgamma, float *dbeta) {
  backward_slice(j, a, b, dgamma, dbeta, SW_BF16);
}

int SW_CPU(layernorm_workspace)(sw_stream *stream, const sw_layernorm_desc *desc, size_t *bytes) {
  (void)stream;
  if (check(desc)) return -1;
  *bytes = row_slices_bytes(desc->tokens, desc->hidden);
  return 0;
}

int SW_CPU(layernorm_backward)(sw_stream *stream, const sw_layernorm_desc *desc, const void *dy, const void *z,
                               const float *gamma, const float *mean, const float *rstd, void *dz, void *dx,
                               float *dgamma, float *dbeta, void *workspace) {
  if (check(desc)) return -1;
  if (!dx && desc->dropout.p > 0) return sw_fail("layernorm backward: dx is NULL while dropout is %g", desc->dropout.p);
  job j = {
      .desc = desc, .dy = dy, .z = z, .gamma = gamma, .dz = dz, .dx = dx, .mean = (float *)mean, .rstd = (float *)rstd};
  int64_t tokens = desc->tokens;
  int hidden = desc->hidden;
  row_slices slices = row_slices_of(tokens, hidden);
  float *partial = workspace;
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (tokens * hidden > 16384)
  for (int s = 0; s < slices.count; s++) {
    int64_t first = s * slices.tokens, last = first + slices.tokens < tokens ? first + slices.tokens : tokens;
    float *g = partial + (int64_t)s * 2 * hidden;
    if (desc->dtype == SW_F32)
      backward_f32(&j, first, last, g, g + hidden);
    else
      backward_bf16(&j, first, last, g, g + hidden);
  }
  row_add_slices(partial, slices.count, hidden, dgamma, dbeta);
  return 0;
}
