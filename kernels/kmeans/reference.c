#include "kernels/kmeans/reference.h"

#include <math.h>
#include <string.h>

void sw_kmeans_distances_reference(const sw_kmeans_desc *d, const double *x, const double *centres, double *distances) {
  for (int64_t c = 0; c < (int64_t)d->groups * d->k; c++)
    for (int64_t i = 0; i < d->rows; i++) {
      double sum = 0;
      for (int h = 0; h < d->hidden; h++) sum += pow(x[i * d->hidden + h] - centres[c * d->hidden + h], 2);
      distances[c * d->rows + i] = sum;
    }
}

void sw_kmeans_nearest_reference(const sw_kmeans_desc *d, const double *distances, int32_t *label, double *distance) {
  for (int64_t g = 0; g < d->groups; g++)
    for (int64_t i = 0; i < d->rows; i++) {
      int32_t best = -1;
      double least = INFINITY;
      for (int32_t c = d->k - 1; c >= 0; c--) { /* the first of equals is the last here */
        const double to = distances[(g * d->k + c) * d->rows + i];
        if (to <= least && to < INFINITY) best = c, least = to;
      }
      label[g * d->rows + i] = best;
      distance[g * d->rows + i] = least;
    }
}

void sw_kmeans_sums_reference(const sw_kmeans_desc *d, const double *x, const int32_t *label, double *sums, int64_t *counts) {
  const size_t centres = (size_t)d->groups * (size_t)d->k;
  memset(sums, 0, centres * (size_t)d->hidden * sizeof *sums);
  memset(counts, 0, centres * sizeof *counts);
  for (int64_t g = 0; g < d->groups; g++)
    for (int64_t i = 0; i < d->rows; i++) {
      const int32_t own = label[g * d->rows + i];
      if (own < 0) continue;
      counts[g * d->k + own]++;
      for (int h = 0; h < d->hidden; h++) sums[(g * d->k + own) * d->hidden + h] += x[i * d->hidden + h];
    }
}
