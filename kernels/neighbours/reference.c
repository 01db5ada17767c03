#include "kernels/neighbours/reference.h"

#include <math.h>

void sw_neighbours_scores_reference(const sw_neighbours_desc *d, const double *queries, const double *corpus, double *scores) {
  for (int64_t i = 0; i < d->queries; i++)
    for (int64_t j = 0; j < d->corpus; j++) {
      const double *q = queries + i * d->hidden, *c = corpus + j * d->hidden;
      double sum = 0;
      for (int h = 0; h < d->hidden; h++) sum += d->metric == SW_INNER_PRODUCT ? q[h] * c[h] : (q[h] - c[h]) * (q[h] - c[h]);
      int left_out = (d->first_skip >= 0 && d->base + j == d->first_skip + i) || sum == (d->metric == SW_INNER_PRODUCT ? -INFINITY : INFINITY);
      scores[i * d->corpus + j] = left_out ? NAN : sum;
    }
}

void sw_neighbours_best_reference(const sw_neighbours_desc *d, const double *scores, int64_t *index, double *score) {
  double sign = d->metric == SW_INNER_PRODUCT ? 1 : -1;
  for (int64_t i = 0; i < d->queries; i++) {
    const double *row = scores + i * d->corpus;
    for (int n = 0; n < d->k; n++) { /* the best behind the one before */
      int64_t best = -1, before = n ? index[i * d->k + n - 1] - d->base : -1;
      if (n == 0 || index[i * d->k + n - 1] >= 0)
        for (int64_t j = 0; j < d->corpus; j++) {
          int later = n == 0 || sign * row[j] < sign * row[before] || (row[j] == row[before] && j > before);
          if (!isnan(row[j]) && later && (best < 0 || sign * row[j] > sign * row[best])) best = j;
        }
      index[i * d->k + n] = best < 0 ? -1 : d->base + best;
      score[i * d->k + n] = best < 0 ? -sign * INFINITY : row[best];
    }
  }
}
