#include "engine/space/quality.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* m of n rows, ascending: each of the rest is taken with the chance that leaves the right number. */
static void draw(int64_t n, int64_t m, uint64_t seed, int64_t *row) {
  sw_random random = {.seed = seed, .stream = 3};
  int64_t taken = 0;
  for (int64_t i = 0; taken < m; i++)
    if (m - taken == n - i || (int64_t)sw_random_below(&random, (uint32_t)(n - i)) < m - taken) row[taken++] = i;
}

static void *gather(sw_stream *stream, const float *from, const int64_t *row, int64_t count, int width) {
  const size_t bytes = (size_t)width * sizeof(float);
  sw_device *device = stream->device;
  float *host = sw_alloc((size_t)count * bytes), *memory = host ? device->alloc(device, (size_t)count * bytes) : NULL;
  int status = memory ? 0 : -1;
  for (int64_t i = 0; i < count && !status; i++) status = device->copy_out(stream, host + i * width, from + row[i] * width, bytes);
  if (!status) status = device->synchronize(stream) || device->copy_in(stream, memory, host, (size_t)count * bytes) ? -1 : 0;
  free(host);
  if (status && memory) device->release(device, memory);
  return status ? NULL : memory;
}

/* The nearest points on the map to index [m, k + 1], host: with the point itself, so one more. */
static int nearest(sw_stream *stream, int64_t rows, int dims, const float *coordinates, const int64_t *row, int64_t m, int k, int64_t *index) {
  sw_device *device = stream->device;
  const sw_neighbours_desc d = {.queries = m, .corpus = rows, .hidden = dims, .k = k + 1, .metric = SW_SQUARED_DISTANCE, .first_skip = -1};
  const size_t found = (size_t)m * (size_t)(k + 1), bytes = (size_t)rows * (size_t)dims * sizeof *coordinates;
  size_t scratch = 0;
  int status = SW_RUN(stream, neighbours_workspace, &d, &scratch);
  float *map = status ? NULL : device->alloc(device, bytes), *score = status ? NULL : device->alloc(device, found * sizeof *score);
  int64_t *on_device = status ? NULL : device->alloc(device, found * sizeof *on_device);
  void *workspace = status ? NULL : device->alloc(device, scratch + 1);
  float *queries = NULL;
  if (!map || !score || !on_device || !workspace || device->copy_in(stream, map, coordinates, bytes) || !(queries = gather(stream, map, row, m, dims)) ||
      SW_RUN(stream, neighbours, &d, queries, map, on_device, score, workspace) ||
      device->copy_out(stream, index, on_device, found * sizeof *index) || device->synchronize(stream))
    status = -1;
  void *const owned[] = {map, score, on_device, workspace, queries};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) device->release(device, owned[i]);
  return status;
}

static int ranks_of(sw_stream *stream, int cosine, int64_t rows, int hidden, const float *vectors, const int64_t *row, int64_t m, int k,
                    const int64_t *index, int32_t *ranks) {
  sw_device *device = stream->device;
  const sw_umap_ranks_desc d = {m, rows, hidden, k, cosine ? SW_INNER_PRODUCT : SW_SQUARED_DISTANCE};
  const size_t pairs = (size_t)m * (size_t)k;
  size_t scratch = 0;
  int status = SW_RUN(stream, umap_ranks_workspace, &d, &scratch);
  int64_t *own = status ? NULL : device->alloc(device, (size_t)m * sizeof *own), *targets = status ? NULL : device->alloc(device, pairs * sizeof *targets);
  int32_t *out = status ? NULL : device->alloc(device, pairs * sizeof *out);
  void *workspace = status ? NULL : device->alloc(device, scratch + 1);
  float *queries = NULL;
  if (!own || !targets || !out || !workspace || device->copy_in(stream, own, row, (size_t)m * sizeof *own) ||
      device->copy_in(stream, targets, index, pairs * sizeof *targets) || !(queries = gather(stream, vectors, row, m, hidden)) ||
      SW_RUN(stream, umap_ranks, &d, queries, vectors, own, targets, out, workspace) || device->copy_out(stream, ranks, out, pairs * sizeof *ranks) ||
      device->synchronize(stream))
    status = -1;
  void *const owned[] = {own, targets, out, workspace, queries};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) device->release(device, owned[i]);
  return status;
}

int sw_map_quality_of(sw_stream *stream, int cosine, int64_t rows, int hidden, const float *vectors, int dims, const float *coordinates, int k,
                      uint64_t seed, sw_map_quality *out) {
  const int64_t m = rows < SW_QUALITY_QUERIES ? rows : SW_QUALITY_QUERIES, most = (rows - 1) / 2;
  k = most < k ? (int)most : k;
  *out = (sw_map_quality){NAN, NAN, k, m};
  if (rows < 4) return 0;
  const size_t pairs = (size_t)m * (size_t)(k + 1);
  int64_t *row = sw_alloc_array((size_t)m, sizeof *row), *index = sw_alloc_array(pairs, sizeof *index);
  int32_t *ranks = sw_alloc_array(pairs, sizeof *ranks);
  int status = row && index && ranks ? 0 : -1;
  if (!status) {
    draw(rows, m, seed, row);
    status = nearest(stream, rows, dims, coordinates, row, m, k, index);
  }
  for (int64_t i = 0; i < m && !status; i++) { /* the point itself goes, or, where k + 1 others are as near, the last */
    int kept = 0;
    for (int j = 0; j <= k && kept < k; j++)
      if (index[i * (k + 1) + j] != row[i]) index[i * k + kept++] = index[i * (k + 1) + j];
  }
  if (!status) status = ranks_of(stream, cosine, rows, hidden, vectors, row, m, k, index, ranks);
  double far = 0, kept = 0;
  for (int64_t i = 0; i < m * k && !status; i++) far += ranks[i] > k ? ranks[i] - k : 0, kept += ranks[i] <= k;
  if (!status) {
    out->trustworthiness = 1 - 2 * far / ((double)m * k * (2 * (double)rows - 3 * k - 1));
    out->kept = kept / ((double)m * k);
  }
  free(row), free(index), free(ranks);
  return status;
}
