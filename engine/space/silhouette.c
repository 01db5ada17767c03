#include "engine/space/silhouette.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_STREAM = 0x511 };

static int by_row(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* `count` of `rows` rows, none twice: Floyd's algorithm, with the sample itself as the set. */
static int draw(int64_t rows, int64_t count, uint64_t seed, int64_t *out) {
  sw_random random = {.seed = seed, .stream = SAMPLE_STREAM};
  const size_t places = 4 * SW_SILHOUETTE_ROWS;
  int64_t *taken = sw_alloc_array(places, sizeof *taken); /* row + 1 */
  if (!taken) return -1;
  for (int64_t n = 0; n < count; n++) {
    const int64_t last = rows - count + n;
    int64_t row = count == rows ? n : (int64_t)(sw_random_double(&random) * (double)(last + 1));
    for (int again = 0; again < 2; again++) {
      size_t at = (size_t)row % places;
      while (taken[at] && taken[at] != row + 1) at = (at + 1) % places;
      if (!taken[at]) {
        taken[at] = row + 1;
        out[n] = row;
        break;
      }
      row = last; /* which no earlier draw can have given */
    }
  }
  free(taken);
  qsort(out, (size_t)count, sizeof *out, by_row);
  return 0;
}

/* All distances of the sample to each other: each of its rows is a group of one centre. */
static int measure(sw_stream *stream, int hidden, const float *x, sw_silhouette_sample *s) {
  const sw_kmeans_desc d = {.rows = s->count, .hidden = hidden, .groups = (int)s->count, .k = 1};
  const size_t count = (size_t)s->count, width = (size_t)hidden, pairs = count * count;
  sw_device *device = stream->device;
  size_t bytes;
  if (SW_RUN(stream, kmeans_workspace, &d, &bytes)) return -1;
  float *host = sw_alloc_array(count, width * sizeof *host), *rows = device->alloc(device, count * width * sizeof *rows);
  float *distance = device->alloc(device, pairs * sizeof *distance);
  void *workspace = device->alloc(device, bytes + 1);
  int status = host && rows && distance && workspace ? 0 : -1;
  for (size_t i = 0; i < count && !status; i++)
    status = device->copy_out(stream, host + i * width, x + s->row[i] * hidden, width * sizeof *host);
  if (!status)
    status = device->synchronize(stream) || device->copy_in(stream, rows, host, count * width * sizeof *rows) ||
                     SW_RUN(stream, kmeans_assign, &d, rows, rows, NULL, NULL, distance, workspace) ||
                     device->copy_out(stream, s->distance, distance, pairs * sizeof *distance) || device->synchronize(stream)
                 ? -1
                 : 0;
  void *const owned[] = {rows, distance, workspace};
  for (int i = 0; i < 3; i++)
    if (owned[i]) device->release(device, owned[i]);
  free(host);
  return status;
}

int sw_silhouette_open(sw_stream *stream, int64_t rows, int hidden, const float *x, uint64_t seed, sw_silhouette_sample *out) {
  const size_t count = (size_t)(rows < SW_SILHOUETTE_ROWS ? rows : SW_SILHOUETTE_ROWS);
  *out = (sw_silhouette_sample){(int64_t)count, sw_alloc_array(count, sizeof *out->row), sw_alloc_array(count * count, sizeof *out->distance)};
  if (out->row && out->distance && !draw(rows, out->count, seed, out->row) && !measure(stream, hidden, x, out)) return 0;
  sw_silhouette_close(out);
  return -1;
}

void sw_silhouette_close(sw_silhouette_sample *s) {
  free(s->row), free(s->distance);
  *s = (sw_silhouette_sample){0};
}

int sw_silhouette(const sw_silhouette_sample *s, const int32_t *label, int k, double *out) {
  double *sum = sw_alloc_array((size_t)k, sizeof *sum), total = 0;
  int64_t *size = sw_alloc_array((size_t)k, sizeof *size), present = 0;
  const int status = sum && size ? 0 : -1;
  for (int64_t i = 0; i < s->count && !status; i++) present += size[label[s->row[i]]]++ == 0;
  for (int64_t i = 0; i < s->count && !status; i++) {
    const int own = label[s->row[i]];
    if (size[own] < 2) continue; /* alone: 0 */
    double next = INFINITY;
    memset(sum, 0, (size_t)k * sizeof *sum);
    for (int64_t j = 0; j < s->count; j++) sum[label[s->row[j]]] += sqrt((double)s->distance[i * s->count + j]);
    for (int c = 0; c < k; c++)
      if (c != own && size[c] && sum[c] / (double)size[c] < next) next = sum[c] / (double)size[c];
    const double within = sum[own] / (double)(size[own] - 1), larger = within > next ? within : next;
    if (larger > 0) total += (next - within) / larger;
  }
  *out = present > 1 && present < s->count ? total / (double)s->count : NAN;
  free(sum), free(size);
  return status;
}
