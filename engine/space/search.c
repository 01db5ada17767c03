#include "engine/space/search.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 8 << 20 };

struct sw_search {
  sw_stream stream;
  int hidden, k;
  sw_similarity similarity;
  int64_t max_queries, piece_rows;
  float *host; /* [the larger of both, hidden] */
  float *queries, *piece, *score; /* device */
  int64_t *index;
  void *workspace;
};

int sw_similarity_parse(const char *name, sw_similarity *out) {
  *out = SW_COSINE;
  if (!strcmp(name, "cosine")) return 0;
  *out = SW_EUCLIDEAN;
  return strcmp(name, "euclidean") ? sw_fail("--metric %s is not known: use cosine or euclidean", name) : 0;
}

static sw_neighbours_desc describe(const sw_search *s, int64_t queries, int64_t rows) {
  return (sw_neighbours_desc){.queries = queries, .corpus = rows, .hidden = s->hidden, .k = s->k,
                              .metric = s->similarity == SW_COSINE ? SW_INNER_PRODUCT : SW_SQUARED_DISTANCE, .first_skip = -1};
}

int sw_search_open(sw_stream *stream, int hidden, int k, sw_similarity similarity, int64_t max_queries, sw_search **out) {
  *out = NULL;
  if (k < 1 || k > SW_MOST_NEIGHBOURS) return sw_fail("-k must be from 1 to %d", SW_MOST_NEIGHBOURS);
  sw_search *s = sw_alloc(sizeof *s);
  if (!s) return -1;
  sw_device *device = stream->device;
  const size_t row = (size_t)hidden * sizeof(float);
  *s = (sw_search){.stream = *stream, .hidden = hidden, .k = k, .similarity = similarity, .max_queries = max_queries,
                   .piece_rows = (int64_t)(PIECE_BYTES / row) + 1};
  const size_t queries = (size_t)max_queries, piece = (size_t)s->piece_rows;
  const sw_neighbours_desc desc = describe(s, max_queries, s->piece_rows);
  size_t bytes;
  if (!(s->host = sw_alloc_array(queries > piece ? queries : piece, row)) || SW_RUN(stream, neighbours_workspace, &desc, &bytes) ||
      !(s->workspace = device->alloc(device, bytes)) || !(s->queries = device->alloc(device, queries * row)) ||
      !(s->piece = device->alloc(device, piece * row)) || !(s->score = device->alloc(device, queries * (size_t)k * sizeof(float))) ||
      !(s->index = device->alloc(device, queries * (size_t)k * sizeof(int64_t)))) {
    sw_search_close(s);
    return -1;
  }
  *out = s;
  return 0;
}

void sw_search_close(sw_search *s) {
  if (!s) return;
  void *const owned[] = {s->queries, s->piece, s->score, s->index, s->workspace};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) s->stream.device->release(s->stream.device, owned[i]);
  free(s->host);
  free(s);
}

/* Of unit length for the cosine; whether its values are finite numbers. */
static int settle_row(const sw_search *s, float *row) {
  double squares = 0;
  for (int h = 0; h < s->hidden; h++) squares += (double)row[h] * (double)row[h];
  const double factor = squares > 0 ? 1 / sqrt(squares) : 0;
  for (int h = 0; h < s->hidden && s->similarity == SW_COSINE; h++) row[h] = (float)(row[h] * factor);
  return isfinite(squares);
}

/* The rows in s->host to the device. */
static int put_rows(sw_search *s, int64_t rows, int64_t first, const char *name, float *to) {
  int64_t bad = rows; /* the first */
#pragma omp parallel for num_threads(s->stream.threads) schedule(static) reduction(min : bad) if (rows * s->hidden >= 1 << 16)
  for (int64_t i = 0; i < rows; i++)
    if (!settle_row(s, s->host + i * s->hidden) && i < bad) bad = i;
  if (bad < rows) return sw_fail("%s: row %lld holds a value that is no finite number", name, (long long)(first + bad + 1));
  sw_device *device = s->stream.device;
  return device->copy_in(&s->stream, to, s->host, (size_t)(rows * s->hidden) * sizeof(float)) || device->synchronize(&s->stream) ? -1 : 0;
}

int sw_search_run(sw_search *s, const sw_search_corpus *corpus, const float *queries, int64_t count, int64_t first_skip, int64_t *index, float *score) {
  sw_device *device = s->stream.device;
  if (count < 1 || count > s->max_queries) return sw_fail("%lld queries in blocks of %lld", (long long)count, (long long)s->max_queries);
  if (corpus->rows < 1) return sw_fail("%s is empty: there is nothing to search in", corpus->name);
  if (corpus->rows > INT32_MAX) return sw_fail("%s has %lld rows; at most %d can be searched", corpus->name, (long long)corpus->rows, INT32_MAX);
  memcpy(s->host, queries, (size_t)(count * s->hidden) * sizeof *queries);
  if (put_rows(s, count, 0, "the queries", s->queries)) return -1;
  for (int64_t first = 0, rows; first < corpus->rows; first += rows) {
    rows = corpus->rows - first < s->piece_rows ? corpus->rows - first : s->piece_rows;
    sw_neighbours_desc desc = describe(s, count, rows);
    desc.base = first;
    desc.first_skip = first_skip;
    desc.resume = first > 0;
    if (corpus->read(corpus->context, first, rows, s->host) || put_rows(s, rows, first, corpus->name, s->piece) ||
        SW_RUN(&s->stream, neighbours, &desc, s->queries, s->piece, s->index, s->score, s->workspace))
      return -1;
  }
  const size_t results = (size_t)(count * s->k);
  if (device->copy_out(&s->stream, index, s->index, results * sizeof *index) || device->copy_out(&s->stream, score, s->score, results * sizeof *score) ||
      device->synchronize(&s->stream))
    return -1;
  for (size_t i = 0; i < results && s->similarity == SW_EUCLIDEAN; i++) score[i] = sqrtf(score[i]);
  return 0;
}
