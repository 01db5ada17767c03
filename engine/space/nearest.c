#include "engine/space/nearest.h"
#include "base/error.h"
#include "base/progress.h"

#include <math.h>

int sw_nearest(sw_stream *stream, const sw_nearest_desc *desc, const float *queries, const float *corpus, int quiet, int64_t *index,
               float *distances) {
  const int64_t pieces = (desc->queries + 16383) / 16384, piece = pieces ? (desc->queries + pieces - 1) / pieces : 0; /* equal ones */
  const int k = desc->k;
  sw_device *device = stream->device;
  sw_neighbours_desc d = {.queries = piece, .corpus = desc->corpus, .hidden = desc->hidden, .k = k,
                          .metric = desc->cosine ? SW_INNER_PRODUCT : SW_SQUARED_DISTANCE, .first_skip = desc->self ? 0 : -1};
  size_t bytes;
  if (SW_RUN(stream, neighbours_workspace, &d, &bytes)) return -1;
  void *workspace = device->alloc(device, bytes ? bytes : 1);
  int64_t *found = device->alloc(device, (size_t)(piece * k) * sizeof *found + 1);
  float *score = device->alloc(device, (size_t)(piece * k) * sizeof *score + 1);
  int status = workspace && found && score ? 0 : -1;
  sw_progress progress;
  sw_progress_open(&progress, "neighbours", (double)desc->queries, quiet);
  for (int64_t first = 0; first < desc->queries && !status; first += piece) {
    d.queries = desc->queries - first < piece ? desc->queries - first : piece;
    if (desc->self) d.first_skip = first;
    const size_t count = (size_t)(d.queries * k);
    status = SW_RUN(stream, neighbours, &d, queries + first * desc->hidden, corpus, found, score, workspace) ||
                     device->copy_out(stream, index + first * k, found, count * sizeof *found) ||
                     device->copy_out(stream, distances + first * k, score, count * sizeof *score) || device->synchronize(stream)
                 ? -1
                 : 0;
    sw_progress_show(&progress, (double)(first + d.queries), NULL);
  }
  sw_progress_close(&progress);
  if (workspace) device->release(device, workspace);
  if (found) device->release(device, found);
  if (score) device->release(device, score);
  for (int64_t i = 0; i < desc->queries * k && !status; i++) {
    if (index[i] < 0)
      distances[i] = INFINITY;
    else if (desc->cosine)
      distances[i] = 1 - distances[i] < 2e-6f ? 0 : 1 - distances[i];
    else
      distances[i] = sqrtf(distances[i]);
  }
  return status;
}

int sw_nearest_weights(sw_stream *stream, int64_t rows, int k, int nearest, double target, float *distances) {
  const sw_umap_weights_desc d = {rows, k, nearest, (float)target};
  const size_t bytes = (size_t)(rows * k) * sizeof(float);
  sw_device *device = stream->device;
  float *memory = device->alloc(device, bytes);
  int status = memory && !device->copy_in(stream, memory, distances, bytes) && !SW_RUN(stream, umap_weights, &d, memory, memory) &&
                       !device->copy_out(stream, distances, memory, bytes) && !device->synchronize(stream)
                   ? 0
                   : -1;
  if (memory) device->release(device, memory);
  return status;
}
