#include "kernels/umap/reference.h"
#include "base/philox.h"

#include <math.h>
#include <string.h>

static double weight(double distance, double nearest, double scale) {
  return isinf(distance) ? 0 : distance <= nearest ? 1 : exp((nearest - distance) / scale);
}

void sw_umap_weights_reference(const sw_umap_weights_desc *d, const double *distances, double *weights) {
  for (int64_t i = 0; i < d->rows; i++) {
    const double *row = distances + i * d->k;
    double nearest = 0, mean = 0, least = 0, most = INFINITY;
    int count = 0;
    for (int j = d->k - 1; j >= 0; j--) {
      if (isinf(row[j])) continue;
      mean += row[j], count++;
      if (d->nearest && row[j] > 0) nearest = row[j];
    }
    mean /= count + 1;
    double scale = mean;
    for (int step = 0; step < 200; step++) {
      double sum = 0;
      for (int j = 0; j < d->k; j++) sum += weight(row[j], nearest, scale);
      if (sum > d->target)
        most = scale;
      else
        least = scale;
      scale = isinf(most) ? 2 * scale : (least + most) / 2;
      if (!(scale < 1e30 * mean)) break; /* fewer neighbours than the target */
    }
    if (scale < 1e-3 * mean) scale = 1e-3 * mean;
    for (int j = 0; j < d->k; j++) weights[i * d->k + j] = weight(row[j], nearest, scale);
  }
}

void sw_umap_multiply_reference(const sw_umap_multiply_desc *d, const int64_t *row_start, const int32_t *column, const double *value,
                                const double *x, double *y) {
  for (int64_t i = 0; i < d->rows; i++)
    for (int c = 0; c < SW_UMAP_BLOCK; c++) {
      double sum = 0, *out = y + i * SW_UMAP_BLOCK + c;
      for (int64_t e = row_start[i]; e < row_start[i + 1]; e++) sum += value[e] * x[(int64_t)column[e] * SW_UMAP_BLOCK + c];
      *out = d->scale * sum + d->shift * x[i * SW_UMAP_BLOCK + c] + (d->back != 0 ? d->back * *out : 0);
    }
}

static void push(const sw_umap_layout_desc *d, double alpha, int attract, double *p, const double *q) {
  double squares = 0;
  for (int c = 0; c < d->components; c++) squares += (p[c] - q[c]) * (p[c] - q[c]);
  if (squares == 0) return;
  double power = pow(squares, d->b), factor = attract ? -2 * d->a * d->b * power / squares / (1 + d->a * power)
                                                      : 2 * d->b / ((0.001 + squares) * (1 + d->a * power));
  double step[3];
  for (int c = 0; c < d->components; c++) step[c] = fmax(-4, fmin(4, factor * (p[c] - q[c])));
  for (int c = 0; c < d->components; c++) p[c] += alpha * step[c];
}

void sw_umap_layout_reference(const sw_umap_layout_desc *d, const int64_t *row_start, const int32_t *column, const uint32_t *rate,
                              const uint64_t *ids, const int32_t *order, double *positions, const double *points, double *scratch) {
  const int dims = d->components;
  const size_t bytes = (size_t)(d->rows * dims) * sizeof *positions;
  for (int t = d->first_epoch; t < d->last_epoch; t++)
    for (int64_t g = 0; g < d->groups; g++) {
      memcpy(scratch, positions, bytes);
      for (int64_t at = d->rows * g / d->groups; at < d->rows * (g + 1) / d->groups; at++) {
        int64_t i = order ? order[at] : at;
        uint64_t id = ids ? ids[i] : (uint64_t)i;
        uint32_t drawn = 0;
        double *p = scratch + i * dims, alpha = d->first_alpha * (1 - (double)t / d->epochs);
        for (int64_t e = row_start[i]; e < row_start[i + 1]; e++) {
          if ((uint32_t)(((uint64_t)t + 1) * rate[e]) >= rate[e]) continue;
          for (int n = 0; n < d->pulls; n++) push(d, alpha, 1, p, points + (int64_t)column[e] * dims);
          for (int n = 0; n < d->negatives; n++, drawn++) {
            uint32_t counter[4] = {(uint32_t)id, (uint32_t)(id >> 32), (uint32_t)t, drawn >> 2}, word[4];
            sw_philox(d->seed, counter, word);
            int64_t other = (int64_t)(((uint64_t)word[drawn & 3] * (uint64_t)d->points) >> 32);
            if (!d->own || other != i) push(d, alpha, 0, p, points + other * dims);
          }
        }
      }
      memcpy(positions, scratch, bytes);
    }
}

static double score_of(const sw_umap_ranks_desc *d, const double *q, const double *c) {
  double sum = 0;
  for (int h = 0; h < d->hidden; h++) sum += d->metric == SW_INNER_PRODUCT ? q[h] * c[h] : -(q[h] - c[h]) * (q[h] - c[h]);
  return sum;
}

void sw_umap_ranks_reference(const sw_umap_ranks_desc *d, const double *queries, const double *corpus, const int64_t *own, const int64_t *index,
                             int32_t *ranks) {
  for (int64_t i = 0; i < d->queries; i++)
    for (int j = 0; j < d->k; j++) {
      const int64_t target = index[i * d->k + j];
      const double *q = queries + i * d->hidden;
      int32_t rank = target >= 0;
      for (int64_t c = 0; c < d->corpus && target >= 0; c++)
        rank += c != own[i] && score_of(d, q, corpus + c * d->hidden) > score_of(d, q, corpus + target * d->hidden);
      ranks[i * d->k + j] = rank;
    }
}
