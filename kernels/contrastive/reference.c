#include "kernels/contrastive/reference.h"

#include <math.h>

static double similarity(const sw_contrastive_desc *d, const double *q, const double *c) {
  double sum = 0;
  for (int h = 0; h < d->hidden; h++) sum += q[h] * c[h];
  return sum * d->similarity_scale;
}

double sw_contrastive_reference(const sw_contrastive_desc *d, const double *queries, const double *candidates, const int32_t *positive,
                                const double *row_weights, double *dqueries, double *dcandidates) {
  double total = 0;
  for (int64_t i = 0; dqueries && i < d->rows * d->hidden; i++) dqueries[i] = 0;
  for (int64_t i = 0; dcandidates && i < d->candidates * d->hidden; i++) dcandidates[i] = 0;
  for (int64_t i = 0; i < d->rows; i++) {
    const double *q = queries + i * d->hidden, weight = row_weights ? row_weights[i] : 1;
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < d->candidates; j++) largest = fmax(largest, similarity(d, q, candidates + j * d->hidden));
    for (int64_t j = 0; j < d->candidates; j++) sum += exp(similarity(d, q, candidates + j * d->hidden) - largest);
    double lse = largest + log(sum);
    total += weight * (lse - similarity(d, q, candidates + (int64_t)positive[i] * d->hidden));
    if (!dqueries && !dcandidates) continue;
    for (int64_t j = 0; j < d->candidates; j++) {
      const double *c = candidates + j * d->hidden;
      double g = d->scale * weight * d->similarity_scale * (exp(similarity(d, q, c) - lse) - (j == positive[i]));
      for (int h = 0; dqueries && h < d->hidden; h++) dqueries[i * d->hidden + h] += g * c[h];
      for (int h = 0; dcandidates && h < d->hidden; h++) dcandidates[j * d->hidden + h] += g * q[h];
    }
  }
  return total;
}
