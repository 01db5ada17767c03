#include "kernels/pool/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The pooled value of column c is sum_t weight[t] x[t][c]. */
static void weights_of(const sw_pool_desc *d, const double *x, int first, int last, int c, double *weight) {
  int best = first;
  for (int t = first; t < last; t++) {
    weight[t] = d->pooling == SW_POOL_SUM ? 1 : d->pooling == SW_POOL_MEAN ? 1.0 / (last - first) : d->pooling == SW_POOL_CLS && t == first;
    if (x[(int64_t)t * d->hidden + c] > x[(int64_t)best * d->hidden + c]) best = t;
  }
  if (d->pooling == SW_POOL_MAX && first < last) weight[best] = 1;
}

void sw_pool_reference(const sw_pool_desc *d, const int32_t *cu, const double *x, double *y, double *norms) {
  double *weight = malloc((size_t)(d->total_tokens + 1) * sizeof(double));
  for (int b = 0; b < d->batch; b++) {
    double *out = y + (int64_t)b * d->hidden, squares = 0;
    for (int c = 0; c < d->hidden; c++) {
      out[c] = 0;
      weights_of(d, x, cu[b], cu[b + 1], c, weight);
      for (int t = cu[b]; t < cu[b + 1]; t++) out[c] += weight[t] * x[(int64_t)t * d->hidden + c];
      squares += out[c] * out[c];
    }
    norms[b] = sqrt(squares);
    if (d->normalize)
      for (int c = 0; c < d->hidden; c++) out[c] /= fmax(norms[b], 1e-12);
  }
  free(weight);
}

void sw_pool_backward_reference(const sw_pool_desc *d, const int32_t *cu, const double *x, const double *dy, double *dx) {
  double *pooled = malloc((size_t)d->batch * d->hidden * sizeof(double)), *norms = malloc((size_t)d->batch * sizeof(double)),
         *weight = malloc((size_t)(d->total_tokens + 1) * sizeof(double));
  sw_pool_desc plain = *d;
  plain.normalize = 0;
  memset(dx, 0, (size_t)d->total_tokens * d->hidden * sizeof(double));
  sw_pool_reference(&plain, cu, x, pooled, norms);
  for (int b = 0; b < d->batch; b++) {
    const double *u = pooled + (int64_t)b * d->hidden, *g = dy + (int64_t)b * d->hidden;
    double n = fmax(norms[b], 1e-12), dn = 0; /* y = u / n; d n = -sum(g u) / n^2 */
    for (int c = 0; c < d->hidden; c++) dn -= g[c] * u[c] / (n * n);
    for (int c = 0; c < d->hidden; c++) {
      double du = g[c];
      if (d->normalize) du = g[c] / n + (norms[b] > 1e-12 ? dn * u[c] / norms[b] : 0);
      weights_of(d, x, cu[b], cu[b + 1], c, weight);
      for (int t = cu[b]; t < cu[b + 1]; t++) dx[(int64_t)t * d->hidden + c] = du * weight[t];
    }
  }
  free(pooled);
  free(norms);
  free(weight);
}
