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

void sw_umap_multiply_reference(const sw_umap_multiply_desc *d, const int64_t *row_start, const int32_t *column,
                                const double *value, const double *x, double *y) {
  for (int64_t i = 0; i < d->rows; i++)
    for (int c = 0; c < SW_UMAP_BLOCK; c++) {
      double sum = 0, *out = y + i * SW_UMAP_BLOCK + c;
      for (int64_t e = row_start[i]; e < row_start[i + 1]; e++)
        sum += value[e] * x[(int64_t)column[e] * SW_UMAP_BLOCK + c];
      *out = d->scale * sum + d->shift * x[i * SW_UMAP_BLOCK + c] + (d->back != 0 ? d->back * *out : 0);
    }
}

/* by[c]: the step of p from q. */
static void force(const sw_umap_descent *d, double alpha, int attract, const double *p, const double *q, double *by) {
  double squares = 0;
  for (int c = 0; c < d->components; c++) squares += (p[c] - q[c]) * (p[c] - q[c]);
  double power = pow(squares, d->b), factor = squares == 0 ? 0
                                              : attract    ? -2 * d->a * d->b * power / squares / (1 + d->a * power)
                                                           : 2 * d->b / ((0.001 + squares) * (1 + d->a * power));
  for (int c = 0; c < d->components; c++) by[c] = alpha * fmax(-4, fmin(4, factor * (p[c] - q[c])));
}
static double alpha_of(const sw_umap_descent *d, int epoch) {
  return d->first_alpha * (1 - (double)epoch / d->epochs);
}
static int acts(uint32_t rate, int epoch) {
  return (uint32_t)(((uint64_t)epoch + 1) * rate) < rate;
}
static void repel(const sw_umap_descent *d, uint64_t id, int epoch, uint32_t n, int64_t own, const double *points,
                  double *p) {
  uint32_t counter[4] = {(uint32_t)id, (uint32_t)(id >> 32), (uint32_t)epoch, n / 5}, word[5];
  sw_philox(d->seed, counter, word);
  word[4] = word[0] + word[1] + word[2] + word[3];
  const int64_t other = (int64_t)(((uint64_t)word[n % 5] * (uint64_t)d->points) >> 32);
  double by[3];
  if (other == own) return;
  force(d, alpha_of(d, epoch), 0, p, points + other * d->components, by);
  for (int c = 0; c < d->components; c++) p[c] += by[c];
}

void sw_umap_layout_reference(const sw_umap_layout_desc *desc, const int32_t *head, const int32_t *tail,
                              const uint32_t *rate, double *positions, double *before) {
  const sw_umap_descent *d = &desc->descent;
  const int dims = d->components;
  for (int t = d->first_epoch; t < d->last_epoch; t++) {
    memcpy(before, positions, (size_t)(d->points * dims) * sizeof *positions);
    for (int direction = 0; direction < 2; direction++)
      for (int64_t e = 0; desc->colors && e < desc->color_start[desc->colors]; e++) {
        const int64_t from = direction ? tail[e] : head[e], to = direction ? head[e] : tail[e];
        double *p = positions + from * dims, *q = positions + to * dims, by[3];
        if (!acts(rate[e], t)) continue;
        force(d, alpha_of(d, t), 1, p, q, by);
        for (int c = 0; c < dims; c++) p[c] += by[c], q[c] -= by[c];
        for (int n = 0; n < d->negatives; n++) repel(d, (uint64_t)(2 * e + direction), t, (uint32_t)n, from, before, p);
      }
  }
}

void sw_umap_place_reference(const sw_umap_place_desc *desc, const int64_t *row_start, const int32_t *column,
                             const uint32_t *rate, const uint64_t *ids, double *positions, const double *points) {
  const sw_umap_descent *d = &desc->descent;
  const int dims = d->components;
  for (int t = d->first_epoch; t < d->last_epoch; t++)
    for (int64_t i = 0; i < desc->rows; i++) {
      uint32_t drawn = 0;
      double *p = positions + i * dims, by[3];
      for (int64_t e = row_start[i]; e < row_start[i + 1]; e++) {
        if (!acts(rate[e], t)) continue;
        force(d, alpha_of(d, t), 1, p, points + (int64_t)column[e] * dims, by);
        for (int c = 0; c < dims; c++) p[c] += by[c];
        for (int n = 0; n < d->negatives; n++) repel(d, ids[i], t, drawn++, -1, points, p);
      }
    }
}

static double score_of(const sw_umap_ranks_desc *d, const double *q, const double *c) {
  double sum = 0;
  for (int h = 0; h < d->hidden; h++)
    sum += d->metric == SW_INNER_PRODUCT ? q[h] * c[h] : -(q[h] - c[h]) * (q[h] - c[h]);
  return sum;
}

void sw_umap_ranks_reference(const sw_umap_ranks_desc *d, const double *queries, const double *corpus,
                             const int64_t *own, const int64_t *index, int32_t *ranks) {
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
