#include "engine/space/start.h"
#include "base/error.h"
#include "base/philox.h"
#include "engine/space/nearest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 20, SAMPLE = 16384, BESIDE = 3, QUERIES = 4096, META_NEIGHBOURS = 15, BLOCK = 1024 };
/* A part is large from 1 / LARGE of the points on, so that there are at most LARGE; small parts look for BESIDE points in a SAMPLE of the
 * large ones. */

typedef struct {
  int64_t first, size; /* its first row; rows */
  int32_t large;       /* which of the large parts it is, or -1 */
  float center[3], radius;
} part;

typedef struct {
  sw_stream *stream;
  const sw_start_desc *desc;
  int64_t rows;
  const int32_t *component;
  int32_t parts, larges;
  part *part;
  float *local; /* [rows, dims], -1 to 1 in each part: of which the coordinates are made in place */
} start;

static int copy_rows(const start *s, const int64_t *row, int64_t count, float *host) {
  const size_t hidden = (size_t)s->desc->hidden;
  sw_device *device = s->stream->device;
  for (int64_t i = 0; i < count; i++)
    if (device->copy_out(s->stream, host + (size_t)i * hidden, s->desc->vectors + (size_t)row[i] * hidden, hidden * sizeof *host)) return -1;
  return device->synchronize(s->stream);
}

/* Those rows of the vectors as a matrix on the device; NULL with the message set. */
static float *gather(const start *s, const int64_t *row, int64_t count) {
  const size_t bytes = (size_t)count * (size_t)s->desc->hidden * sizeof(float);
  sw_device *device = s->stream->device;
  float *host = sw_alloc(bytes), *memory = host ? device->alloc(device, bytes) : NULL;
  if (memory && (copy_rows(s, row, count, host) || device->copy_in(s->stream, memory, host, bytes) || device->synchronize(s->stream))) {
    device->release(device, memory);
    memory = NULL;
  }
  free(host);
  return memory;
}

/* The large parts as their mean vectors stand to each other: classical scaling, the largest coordinate of magnitude 1. */
static int place_large(start *s) {
  const int n = s->larges, hidden = s->desc->hidden, dims = s->desc->dims;
  double *mean = sw_alloc_array((size_t)n * (size_t)hidden, sizeof *mean), gram[LARGE * LARGE], values[LARGE], v[LARGE * LARGE];
  float *block = sw_alloc_array(BLOCK, (size_t)hidden * sizeof *block);
  sw_device *device = s->stream->device;
  int status = mean && block ? 0 : -1;
  for (int64_t first = 0; first < s->rows && !status; first += BLOCK) {
    const int64_t count = s->rows - first < BLOCK ? s->rows - first : BLOCK;
    status = device->copy_out(s->stream, block, s->desc->vectors + first * hidden, (size_t)(count * hidden) * sizeof *block) ||
                     device->synchronize(s->stream)
                 ? -1
                 : 0;
    for (int64_t i = 0; i < count && !status; i++) {
      const part *p = s->part + s->component[first + i];
      for (int h = 0; h < hidden && p->large >= 0; h++) mean[p->large * hidden + h] += (double)block[i * hidden + h] / (double)p->size;
    }
  }
  for (int h = 0; h < hidden && !status; h++) {
    double center = 0;
    for (int i = 0; i < n; i++) center += mean[i * hidden + h] / n;
    for (int i = 0; i < n; i++) mean[i * hidden + h] -= center;
  }
  for (int i = 0; i < n * n && !status; i++) {
    gram[i] = 0;
    for (int h = 0; h < hidden; h++) gram[i] += mean[i / n * hidden + h] * mean[i % n * hidden + h];
  }
  free(mean), free(block);
  if (status) return -1;
  sw_symmetric_eigen(n, gram, values, v);
  double largest = 0, center[LARGE][3] = {{0}};
  for (int i = 0; i < n; i++)
    for (int c = 0; c < dims && c < n; c++) {
      center[i][c] = values[c] > 0 ? v[i * n + c] * sqrt(values[c]) : 0;
      largest = fmax(largest, fabs(center[i][c]));
    }
  for (int i = 0; i < n && largest == 0; i++) center[i][0] = n > 1 ? 2.0 * i / (n - 1) - 1 : 0; /* all means are one: in a line */
  for (int32_t p = 0; p < s->parts; p++) {
    part *own = s->part + p;
    if (own->large < 0) continue;
    double nearest = INFINITY;
    for (int i = 0; i < n; i++) {
      double squares = 0;
      for (int c = 0; c < dims; c++) squares += (center[own->large][c] - center[i][c]) * (center[own->large][c] - center[i][c]);
      if (i != own->large) nearest = fmin(nearest, squares);
    }
    const double scale = largest > 0 ? largest : 1;
    for (int c = 0; c < dims; c++) own->center[c] = (float)(center[own->large][c] / scale);
    own->radius = n > 1 ? (float)fmax(sqrt(nearest) / scale / 2, 0.1) : 1;
  }
  return 0;
}

/* Points of the large parts, evenly taken: their rows. */
static int64_t sample_large(const start *s, int64_t *row) {
  int64_t all = 0, seen = 0, count = 0;
  for (int32_t p = 0; p < s->parts; p++) all += s->part[p].large >= 0 ? s->part[p].size : 0;
  for (int64_t i = 0; i < s->rows; i++) {
    if (s->part[s->component[i]].large < 0) continue;
    if (all <= SAMPLE || seen * SAMPLE / all != (seen - 1) * SAMPLE / all || seen == 0) row[count++] = i;
    seen++;
  }
  return count;
}

/* The small parts beside the large ones' points that are nearest to their first vector. */
static int place_beside(start *s) {
  const int dims = s->desc->dims;
  sw_device *device = s->stream->device;
  int64_t *sample = sw_alloc_array(SAMPLE + 1, sizeof *sample), *row = sw_alloc_array(QUERIES, sizeof *row),
          *index = sw_alloc_array(QUERIES * BESIDE, sizeof *index);
  float *distances = sw_alloc_array(QUERIES * BESIDE, sizeof *distances);
  const int64_t points = sample ? sample_large(s, sample) : 0;
  float *corpus = row && index && distances && sample ? gather(s, sample, points) : NULL;
  int status = corpus ? 0 : -1;
  for (int32_t p = 0; p < s->parts && !status;) {
    int64_t count = 0;
    const int32_t begin = p;
    for (; p < s->parts && count < QUERIES; p++)
      if (s->part[p].large < 0) row[count++] = s->part[p].first;
    if (!count) break;
    float *queries = gather(s, row, count);
    const sw_nearest_desc d = {count, points, s->desc->hidden, BESIDE, s->desc->cosine, 0};
    status = queries ? sw_nearest(s->stream, &d, queries, corpus, 1, index, distances) : -1;
    if (queries) device->release(device, queries);
    int64_t n = 0;
    for (int32_t i = begin; i < p && !status; i++) {
      part *own = s->part + i;
      if (own->large >= 0) continue;
      int found = 0;
      for (int j = 0; j < BESIDE; j++) {
        if (index[n * BESIDE + j] < 0) continue;
        const int64_t at = sample[index[n * BESIDE + j]];
        const part *other = s->part + s->component[at];
        for (int c = 0; c < dims; c++) own->center[c] += other->center[c] + other->radius * s->local[at * dims + c];
        found++;
      }
      for (int c = 0; c < dims && found; c++) own->center[c] /= (float)found;
      own->radius = (float)sqrt((double)own->size / (double)s->rows) / 2;
      n++;
    }
  }
  if (corpus) device->release(device, corpus);
  free(sample), free(row), free(index), free(distances);
  return status;
}

/* No part is large: their first vectors have a map's start of their own. */
static int place_by_graph(start *s) {
  const size_t count = (size_t)s->parts;
  const int dims = s->desc->dims, k = (s->parts < META_NEIGHBOURS ? s->parts : META_NEIGHBOURS) - 1;
  sw_device *device = s->stream->device;
  int64_t *row = sw_alloc_array(count, sizeof *row), *index = sw_alloc_array(count * (size_t)k, sizeof *index), *row_start = NULL;
  float *weights = sw_alloc_array(count * (size_t)k, sizeof *weights), *center = sw_alloc_array(count * (size_t)dims, sizeof *center);
  int32_t *column = NULL;
  sw_graph graph = {0};
  for (int32_t p = 0; row && p < s->parts; p++) row[p] = s->part[p].first;
  float *vectors = row && index && weights && center ? gather(s, row, s->parts) : NULL;
  const sw_nearest_desc d = {s->parts, s->parts, s->desc->hidden, k, s->desc->cosine, 1};
  int status = vectors && !sw_nearest(s->stream, &d, vectors, vectors, 1, index, weights) &&
                       !sw_nearest_weights(s->stream, s->parts, k, 1, log2(k + 1), weights) && !sw_graph_union(s->parts, k, index, weights, 0, &graph)
                   ? 0
                   : -1;
  if (!status) {
    const size_t starts = (count + 1) * sizeof *row_start, edges = (size_t)graph.row_start[count] * sizeof *column;
    sw_start_desc desc = *s->desc;
    desc.vectors = vectors;
    row_start = device->alloc(device, starts);
    column = device->alloc(device, edges + 1);
    status = row_start && column && !device->copy_in(s->stream, row_start, graph.row_start, starts) &&
                     !device->copy_in(s->stream, column, graph.column, edges) && !sw_start(s->stream, &desc, &graph, row_start, column, center)
                 ? 0
                 : -1;
  }
  for (int32_t p = 0; p < s->parts && !status; p++) {
    for (int c = 0; c < dims; c++) s->part[p].center[c] = center[p * dims + c] / 5 - 1;
    s->part[p].radius = (float)sqrt((double)s->part[p].size / (double)s->rows);
  }
  if (vectors) device->release(device, vectors);
  if (row_start) device->release(device, row_start);
  if (column) device->release(device, column);
  sw_graph_close(&graph);
  free(row), free(index), free(weights), free(center);
  return status;
}

/* Every coordinate to [0, 10], with normal noise of deviation 1e-4, as umap-learn has it. */
static void finish(const start *s, sw_random *random) {
  const int dims = s->desc->dims;
  for (int c = 0; c < dims; c++) {
    float low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < s->rows; i++) low = fminf(low, s->local[i * dims + c]), high = fmaxf(high, s->local[i * dims + c]);
    for (int64_t i = 0; i < s->rows; i++) {
      double u = sw_random_float(random) + 0x1p-25, angle = 2 * M_PI * sw_random_float(random);
      float *x = s->local + i * dims + c;
      *x = (high > low ? 10 * (*x - low) / (high - low) : 5) + (float)(1e-4 * sqrt(-2 * log(u)) * cos(angle));
    }
  }
}

int sw_start(sw_stream *stream, const sw_start_desc *desc, const sw_graph *graph, const int64_t *row_start, const int32_t *column,
             float *coordinates) {
  const int dims = desc->dims;
  start s = {.stream = stream, .desc = desc, .rows = graph->rows, .local = coordinates};
  int32_t *component = sw_alloc_array((size_t)graph->rows, sizeof *component);
  int status = component && !sw_graph_components(graph, component, &s.parts) ? 0 : -1;
  s.component = component;
  s.part = status ? NULL : sw_alloc_array((size_t)s.parts, sizeof *s.part);
  if (!s.part) status = -1;
  if (!status) status = sw_spectral_start(stream, graph, row_start, column, component, s.parts, dims, desc->seed, coordinates);
  sw_random random = {.seed = desc->seed, .stream = 2};
  for (int64_t i = 0; i < s.rows && !status; i++) {
    part *p = s.part + component[i];
    if (p->size++ == 0) p->first = i;
  }
  for (int64_t i = 0; i < s.rows && !status; i++)
    for (int c = 0; c < dims; c++)
      if (s.part[component[i]].size < SW_SPECTRAL_LEAST) coordinates[i * dims + c] = 2 * sw_random_float(&random) - 1;
  for (int32_t p = 0; p < s.parts && !status; p++) s.part[p].large = s.part[p].size * LARGE >= s.rows ? s.larges++ : -1;
  if (!status && s.larges) status = place_large(&s);
  if (!status && s.larges && s.larges < s.parts) status = place_beside(&s);
  if (!status && !s.larges && s.parts < s.rows) status = place_by_graph(&s); /* rows without edges: all begin anywhere */
  for (int64_t i = 0; i < s.rows && !status; i++) {
    const part *p = s.part + component[i];
    for (int c = 0; c < dims; c++) coordinates[i * dims + c] = p->center[c] + (p->radius > 0 ? p->radius : 1) * coordinates[i * dims + c];
  }
  if (!status) finish(&s, &random);
  free(s.part);
  free(component);
  return status;
}
