#include "engine/space/spectral.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = SW_UMAP_BLOCK, DEGREE = 24, ROUNDS = 10 };
static const double TOLERANCE = 1e-4; /* of |A x - value x|: umap-learn's */

void sw_symmetric_eigen(int n, double *a, double *values, double *v) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) v[i * n + j] = i == j;
  for (int sweep = 0; sweep < 60; sweep++) {
    double off = 0, on = 0;
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) *(i == j ? &on : &off) += a[i * n + j] * a[i * n + j];
    if (off <= 1e-30 * on) break;
    for (int p = 0; p < n; p++)
      for (int q = p + 1; q < n; q++) {
        double apq = a[p * n + q];
        if (apq == 0) continue;
        double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
        for (int k = 0; k < n; k++) {
          double x = a[k * n + p], y = a[k * n + q];
          a[k * n + p] = c * x - s * y, a[k * n + q] = s * x + c * y;
        }
        for (int k = 0; k < n; k++) {
          double x = a[p * n + k], y = a[q * n + k];
          a[p * n + k] = c * x - s * y, a[q * n + k] = s * x + c * y;
          x = v[k * n + p], y = v[k * n + q];
          v[k * n + p] = c * x - s * y, v[k * n + q] = s * x + c * y;
        }
      }
  }
  for (int i = 0; i < n; i++) values[i] = a[i * n + i];
  for (int i = 0; i < n; i++) { /* selection sort of values and columns */
    int best = i;
    for (int j = i + 1; j < n; j++) best = values[j] > values[best] ? j : best;
    double value = values[i];
    values[i] = values[best], values[best] = value;
    for (int k = 0; k < n && best != i; k++) {
      value = v[k * n + i];
      v[k * n + i] = v[k * n + best], v[k * n + best] = value;
    }
  }
}

/* One component's block. */
typedef struct {
  double gram[B * B], product[B * B]; /* X'X and X'AX */
  double known[B];                    /* X'u of the eigenvector u that is known */
  double turn[B * B], values[B];      /* X turn: the Ritz vectors */
  double squares;                     /* of u */
  int64_t rows;
} block;

typedef struct {
  sw_stream *stream;
  const sw_graph *graph;
  const int64_t *row_start;
  const int32_t *column, *component;
  int32_t components, largest;
  block *blocks;
  float *u;            /* [rows]: sqrt of the rows' sums, the eigenvector of eigenvalue 1 */
  float *x, *ax;       /* [rows, B] */
  float *value;        /* device */
  float *device_x, *device_y;
} spectral;

size_t sw_spectral_bytes(int64_t rows, int64_t edges) { return ((size_t)edges + 2 * (size_t)rows * B) * sizeof(float); }

static int prepare(spectral *s, uint64_t seed) {
  const sw_graph *g = s->graph;
  const size_t rows = (size_t)g->rows, edges = (size_t)g->row_start[rows];
  sw_device *device = s->stream->device;
  float *value = sw_alloc_array(edges + 1, sizeof *value);
  s->u = sw_alloc_array(rows, sizeof *s->u);
  s->x = sw_alloc_array(rows, B * sizeof *s->x);
  s->ax = sw_alloc_array(rows, B * sizeof *s->ax);
  s->blocks = sw_alloc_array((size_t)s->components, sizeof *s->blocks);
  s->value = device->alloc(device, (edges + 1) * sizeof *value);
  s->device_x = device->alloc(device, rows * B * sizeof *s->x);
  s->device_y = device->alloc(device, rows * B * sizeof *s->x);
  int status = value && s->u && s->x && s->ax && s->blocks && s->value && s->device_x && s->device_y ? 0 : -1;
  for (size_t i = 0; i < rows && !status; i++) {
    double sum = 0;
    for (int64_t e = g->row_start[i]; e < g->row_start[i + 1]; e++) sum += g->weight[e];
    s->u[i] = (float)sqrt(sum);
    block *b = s->blocks + s->component[i];
    b->rows++;
    b->squares += (double)s->u[i] * s->u[i];
  }
  sw_random random = {.seed = seed, .stream = 1};
  for (size_t i = 0; i < rows && !status; i++) {
    for (int64_t e = g->row_start[i]; e < g->row_start[i + 1]; e++) value[e] = g->weight[e] / (s->u[i] * s->u[g->column[e]]);
    for (int c = 0; c < B; c++) s->x[i * B + (size_t)c] = (sw_random_float(&random) - 0.5f) * s->u[i];
  }
  if (!status)
    for (int32_t c = 0; c < s->components; c++)
      if (s->blocks[c].rows > s->blocks[s->largest].rows) s->largest = c;
  if (!status) status = device->copy_in(s->stream, s->value, value, edges * sizeof *value);
  free(value);
  return status;
}

/* y = scale A x + shift x + back y on the device */
static int multiply(const spectral *s, double scale, double shift, double back, const float *x, float *y) {
  sw_umap_multiply_desc d = {s->graph->rows, (float)scale, (float)shift, (float)back};
  return SW_RUN(s->stream, umap_multiply, &d, s->row_start, s->column, s->value, x, y);
}

/* x = T(A) x, T the Chebyshev polynomial that is small on [-1, cut]; its image A x is left in ax. */
static int filter(spectral *s, double cut) {
  const double middle = (cut - 1) / 2, half = (cut + 1) / 2;
  const size_t bytes = (size_t)s->graph->rows * B * sizeof(float);
  sw_device *device = s->stream->device;
  float *x = s->device_x, *y = s->device_y;
  if (device->copy_in(s->stream, x, s->x, bytes) || multiply(s, 1 / half, -middle / half, 0, x, y)) return -1;
  for (int n = 1; n < DEGREE; n++) {
    float *before = x;
    x = y, y = before;
    if (multiply(s, 2 / half, -2 * middle / half, -1, x, y)) return -1;
  }
  return device->copy_out(s->stream, s->x, y, bytes) || multiply(s, 1, 0, 0, y, x) || device->copy_out(s->stream, s->ax, x, bytes) ||
                 device->synchronize(s->stream)
             ? -1
             : 0;
}

/* Rayleigh-Ritz in each component: x becomes orthonormal, orthogonal to u, and ordered by the Ritz values, and ax its image. */
static void rotate(spectral *s) {
  const int64_t rows = s->graph->rows;
  for (int32_t c = 0; c < s->components; c++)
    memset(s->blocks[c].gram, 0, sizeof s->blocks[c].gram), memset(s->blocks[c].product, 0, sizeof s->blocks[c].product),
        memset(s->blocks[c].known, 0, sizeof s->blocks[c].known);
  for (int64_t i = 0; i < rows; i++) {
    block *b = s->blocks + s->component[i];
    for (int c = 0; c < B; c++) b->known[c] += (double)s->x[i * B + c] * s->u[i];
  }
  for (int64_t i = 0; i < rows; i++) {
    block *b = s->blocks + s->component[i];
    float *x = s->x + i * B, *ax = s->ax + i * B;
    for (int c = 0; c < B; c++) { /* A u = u */
      float part = (float)(b->known[c] / b->squares * s->u[i]);
      x[c] -= part, ax[c] -= part;
    }
    for (int c = 0; c < B; c++)
      for (int r = 0; r < B; r++) b->gram[c * B + r] += (double)x[c] * x[r], b->product[c * B + r] += (double)x[c] * ax[r];
  }
  for (int32_t c = 0; c < s->components; c++) {
    block *b = s->blocks + c;
    if (b->rows < SW_SPECTRAL_LEAST) continue;
    double values[B], base[B * B], half[B * B], middle[B * B], scale[B], inner[B * B];
    for (int i = 0; i < B; i++) scale[i] = b->gram[i * B + i] > 0 ? 1 / sqrt(b->gram[i * B + i]) : 0; /* columns of length 1 */
    for (int i = 0; i < B * B; i++) b->gram[i] *= scale[i / B] * scale[i % B];
    sw_symmetric_eigen(B, b->gram, values, base);
    for (int i = 0; i < B * B; i++) /* X half is orthonormal; directions that are not there become 0 */
      half[i] = values[i % B] > 1e-10 ? scale[i / B] * base[i] / sqrt(values[i % B]) : 0;
    for (int i = 0; i < B; i++)
      for (int j = 0; j < B; j++) {
        double sum = 0;
        for (int k = 0; k < B; k++) sum += b->product[i * B + k] * half[k * B + j];
        middle[i * B + j] = sum;
      }
    for (int i = 0; i < B; i++)
      for (int j = 0; j < B; j++) {
        double sum = 0;
        for (int k = 0; k < B; k++) sum += half[k * B + i] * middle[k * B + j];
        inner[i * B + j] = sum;
      }
    for (int i = 0; i < B; i++)
      for (int j = 0; j < i; j++) inner[i * B + j] = inner[j * B + i] = (inner[i * B + j] + inner[j * B + i]) / 2;
    for (int i = 0; i < B; i++)
      if (!(values[i] > 1e-10)) inner[i * B + i] = -2; /* to the end */
    sw_symmetric_eigen(B, inner, b->values, base);
    for (int i = 0; i < B; i++)
      for (int j = 0; j < B; j++) {
        double sum = 0;
        for (int k = 0; k < B; k++) sum += half[i * B + k] * base[k * B + j];
        b->turn[i * B + j] = sum;
      }
  }
  for (int64_t i = 0; i < rows; i++) {
    const block *b = s->blocks + s->component[i];
    for (int pass = 0; pass < 2; pass++) {
      float *x = (pass ? s->ax : s->x) + i * B, turned[B];
      for (int c = 0; c < B; c++) {
        double sum = 0;
        for (int k = 0; k < B; k++) sum += x[k] * b->turn[k * B + c];
        turned[c] = (float)sum;
      }
      memcpy(x, turned, sizeof turned);
    }
  }
}

/* The largest |A x - value x| of the wanted vectors in the largest component. */
static double residual(const spectral *s, int dims) {
  const block *b = s->blocks + s->largest;
  double squares[3] = {0}, worst = 0;
  for (int64_t i = 0; i < s->graph->rows; i++) {
    if (s->component[i] != s->largest) continue;
    for (int c = 0; c < dims; c++) {
      double r = s->ax[i * B + c] - b->values[c] * s->x[i * B + c];
      squares[c] += r * r;
    }
  }
  for (int c = 0; c < dims; c++) worst = fmax(worst, sqrt(squares[c]));
  return worst;
}

/* As umap-learn, takes the eigenvectors of the symmetric matrix as they are. */
static int take(const spectral *s, int dims, float *out) {
  float *largest = sw_alloc_array((size_t)s->components, 3 * sizeof *largest);
  if (!largest) return -1;
  for (int pass = 0; pass < 2; pass++)
    for (int64_t i = 0; i < s->graph->rows; i++) {
      const int32_t c = s->component[i];
      for (int k = 0; k < dims; k++) {
        float *top = largest + (size_t)c * 3 + k, x = s->blocks[c].rows < SW_SPECTRAL_LEAST ? 0 : s->x[i * B + k];
        if (!pass)
          *top = fmaxf(*top, fabsf(x));
        else
          out[i * dims + k] = *top > 0 ? x / *top : 0;
      }
    }
  free(largest);
  return 0;
}

int sw_spectral_start(sw_stream *stream, const sw_graph *graph, const int64_t *row_start, const int32_t *column, const int32_t *component,
                      int32_t components, int dims, uint64_t seed, float *out) {
  spectral s = {.stream = stream, .graph = graph, .row_start = row_start, .column = column, .component = component, .components = components};
  int status = prepare(&s, seed);
  double cut = 0.8;
  for (int round = 0; round < ROUNDS && !status; round++) {
    if ((status = filter(&s, cut))) break;
    rotate(&s);
    if (residual(&s, dims) < TOLERANCE) break;
    cut = fmin(fmax(s.blocks[s.largest].values[B - 1], 0), 0.9999);
  }
  if (!status) status = take(&s, dims, out);
  sw_device *device = stream->device;
  void *const on_device[] = {s.value, s.device_x, s.device_y};
  for (int i = 0; i < 3; i++)
    if (on_device[i]) device->release(device, on_device[i]);
  free(s.u), free(s.x), free(s.ax), free(s.blocks);
  return status;
}
