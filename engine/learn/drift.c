#include "engine/learn/drift.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>

double sw_cosine(const float *x, const float *y, size_t size) {
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < size; i++) {
    xy += (double)x[i] * (double)y[i];
    xx += (double)x[i] * (double)x[i];
    yy += (double)y[i] * (double)y[i];
  }
  const double lengths = sqrt(xx * yy);
  return lengths > 0 ? xy / lengths : 0;
}

/* Columns of x and y whose products are summed at a time; matrices are padded to the wider. */
enum { TALL = 4, WIDE = 32 };

static double *centred(const float *x, size_t rows, size_t size, size_t stride) {
  double *out = sw_alloc_array(rows, stride * sizeof *out), *mean = sw_alloc_array(size, sizeof *mean);
  for (size_t i = 0; out && mean && i < rows; i++)
    for (size_t p = 0; p < size; p++) mean[p] += (double)x[i * size + p];
  for (size_t i = 0; out && mean && i < rows; i++)
    for (size_t p = 0; p < size; p++) out[i * stride + p] = (double)x[i * size + p] - mean[p] / (double)rows;
  if (!mean) free(out), out = NULL;
  free(mean);
  return out;
}

/* |x'y|^2 */
static int product_norm(const double *x, size_t x_stride, const double *y, size_t y_stride, size_t rows, int threads,
                        double *out) {
  const size_t tiles = x_stride / TALL;
  double *parts = sw_alloc_array(tiles, sizeof *parts); /* added up in order, whoever made them */
  if (!parts) return -1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (size_t tile = 0; tile < tiles; tile++)
    for (size_t q = 0; q < y_stride; q += WIDE) {
      double sum[TALL][WIDE] = {{0}};
      for (size_t i = 0; i < rows; i++) {
        const double *a = x + i * x_stride + tile * TALL, *b = y + i * y_stride + q;
        for (size_t p = 0; p < TALL; p++)
          for (size_t k = 0; k < WIDE; k++) sum[p][k] += a[p] * b[k];
      }
      for (size_t p = 0; p < TALL; p++)
        for (size_t k = 0; k < WIDE; k++) parts[tile] += sum[p][k] * sum[p][k];
    }
  *out = 0;
  for (size_t tile = 0; tile < tiles; tile++) *out += parts[tile];
  free(parts);
  return 0;
}

int sw_linear_cka(const float *x, size_t x_size, const float *y, size_t y_size, size_t rows, int threads, double *out) {
  const size_t x_stride = (x_size + WIDE - 1) / WIDE * WIDE, y_stride = (y_size + WIDE - 1) / WIDE * WIDE;
  double xy, xx, yy, *a = centred(x, rows, x_size, x_stride), *b = centred(y, rows, y_size, y_stride);
  int status = a && b && !product_norm(a, x_stride, b, y_stride, rows, threads, &xy) &&
                       !product_norm(a, x_stride, a, x_stride, rows, threads, &xx) &&
                       !product_norm(b, y_stride, b, y_stride, rows, threads, &yy)
                   ? 0
                   : -1;
  if (!status) *out = xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
  free(a);
  free(b);
  return status;
}
