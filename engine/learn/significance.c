#include "engine/learn/significance.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Columns that are summed at a time, in registers; draws between which 32 bits cannot overflow. */
enum { WIDTH = 16, DRAWS = 512 };

/* sw_random_below for one n, again and again: the four numbers of a block are made once, not for each of them. */
typedef struct {
  uint64_t seed, stream, next;
  uint32_t n, limit, block[4];
} draws;

static uint32_t draw(draws *d) {
  uint32_t value;
  do {
    const uint64_t block = d->next >> 2;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)d->stream,
                                 (uint32_t)(d->stream >> 32)};
    if (d->next % 4 == 0) sw_philox(d->seed, counter, d->block);
    value = d->block[d->next++ % 4];
  } while (value > d->limit);
  return value % d->n;
}

/* rows: the counts, padded to a multiple of WIDTH columns. */
static void resample(const uint32_t *rows, size_t examples, size_t columns, size_t stride, draws random,
                     uint64_t *sums) {
  size_t at[DRAWS];
  memset(sums, 0, columns * sizeof *sums);
  for (size_t done = 0; done < examples; done += DRAWS) {
    const size_t count = examples - done < DRAWS ? examples - done : DRAWS;
    for (size_t i = 0; i < count; i++) at[i] = stride * draw(&random);
    for (size_t first = 0; first < columns; first += WIDTH) {
      uint32_t sum[WIDTH] = {0};
      for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < WIDTH; c++) sum[c] += rows[at[i] + first + c];
      for (size_t c = 0; c < WIDTH && first + c < columns; c++) sums[first + c] += sum[c];
    }
  }
}

int sw_bootstrap_sums(const uint32_t *counts, size_t examples, size_t columns, size_t resamples, uint64_t seed,
                      uint64_t stream, int threads, uint64_t *sums) {
  if (!examples || examples > UINT32_MAX) return sw_fail("%zu examples cannot be resampled", examples);
  const size_t stride = (columns + WIDTH - 1) / WIDTH * WIDTH;
  uint32_t *rows = sw_alloc_array(examples, stride * sizeof *rows);
  if (!rows) return -1;
  for (size_t i = 0; i < examples; i++) memcpy(rows + i * stride, counts + i * columns, columns * sizeof *rows);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (size_t b = 0; b < resamples; b++)
    resample(rows, examples, columns, stride,
             (draws){.seed = seed,
                     .stream = stream + b,
                     .n = (uint32_t)examples,
                     .limit = (uint32_t)(0x100000000ull / examples * examples - 1)},
             sums + b * columns);
  free(rows);
  return 0;
}

double sw_quantile(const double *sorted, size_t count, double q) {
  const double place = q * (double)(count - 1);
  const size_t below = (size_t)place;
  if (below + 1 >= count) return sorted[count - 1];
  return sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

sw_interval sw_bootstrap_interval(double *values, size_t count, double level) {
  qsort(values, count, sizeof *values, by_value);
  return (sw_interval){sw_quantile(values, count, (1 - level) / 2), sw_quantile(values, count, (1 + level) / 2)};
}

double sw_bootstrap_p(const double *differences, size_t count) {
  size_t low = 0, high = 0;
  for (size_t i = 0; i < count; i++) {
    low += differences[i] <= 0;
    high += differences[i] >= 0;
  }
  const double p = 2 * (double)((low < high ? low : high) + 1) / (double)(count + 1);
  return p < 1 ? p : 1;
}

/* 2 * P(X <= k), X ~ Binomial(n, 1/2): the largest term by its logarithm, each smaller one from the one before. */
double sw_mcnemar(uint64_t only_first, uint64_t only_second) {
  const double n = (double)only_first + (double)only_second, k = fmin((double)only_first, (double)only_second);
  if (only_first == only_second) return 1;
  int sign;
  const double largest = lgamma_r(n + 1, &sign) - lgamma_r(k + 1, &sign) - lgamma_r(n - k + 1, &sign) - n * M_LN2;
  double sum = 1, term = 1;
  for (double i = k; i > 0 && term > sum * 1e-17; i--) sum += term *= i / (n - i + 1);
  return fmin(1, 2 * exp(largest) * sum);
}
