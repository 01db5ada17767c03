#include "engine/space/umap.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/progress.h"
#include "engine/space/nearest.h"
#include "engine/space/start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Parts of the points that move in turn; negative samples of an active edge (umap-learn's); epochs where nothing is said, twice as many above
 * 10,000 points. umap-learn takes 200 there: with 200, 500 and 1,000 a map of 20,000 titles had a trustworthiness of 0.954, 0.965 and 0.970. */
enum { GROUPS = 8, NEGATIVES = 5, EPOCHS = 500 };

int sw_umap_check(const sw_umap_options *o) {
  if (o->neighbours < 2 || o->neighbours > SW_MOST_NEIGHBOURS)
    return sw_fail("--n-neighbors is %d, not 2 to %d", o->neighbours, SW_MOST_NEIGHBOURS);
  if (o->components != 2 && o->components != 3) return sw_fail("--components is %d, not 2 or 3", o->components);
  if (o->epochs < 0) return sw_fail("--epochs is %d, must not be negative (0: by the number of points)", o->epochs);
  if (!(o->spread > 0) || !(o->min_dist >= 0) || !(o->min_dist <= o->spread) || !isfinite(o->spread))
    return sw_fail("--min-dist is %g and --spread %g: the spread must be positive, and --min-dist 0 to the spread", o->min_dist, o->spread);
  return 0;
}

/* Gauss and Newton's steps, damped as Levenberg and Marquardt do, for log a and b on umap-learn's 300 points. */
int sw_umap_curve(double min_dist, double spread, double *a, double *b) {
  enum { POINTS = 300 };
  double log_a = 0, power = 1, damping = 1e-3, best = INFINITY;
  double new_log_a = log_a, new_power = power, jtj[3] = {0}, jtr[2] = {0};
  for (int step = 0; step < 500; step++) {
    double error = 0, m[3] = {0}, v[2] = {0};
    for (int i = 0; i < POINTS; i++) {
      double x = 3 * spread * i / (POINTS - 1), y = x < min_dist ? 1 : exp(-(x - min_dist) / spread);
      double grown = x > 0 ? exp(new_log_a) * pow(x, 2 * new_power) : 0, f = 1 / (1 + grown), slope = -f * f * grown;
      double by_a = slope, by_b = x > 0 ? slope * 2 * log(x) : 0, r = y - f;
      error += r * r;
      m[0] += by_a * by_a, m[1] += by_a * by_b, m[2] += by_b * by_b, v[0] += by_a * r, v[1] += by_b * r;
    }
    if (error < best) {
      int done = best - error < 1e-15 * best;
      best = error, log_a = new_log_a, power = new_power, damping /= 10;
      memcpy(jtj, m, sizeof jtj);
      memcpy(jtr, v, sizeof jtr);
      if (done) break;
    } else if ((damping *= 10) > 1e12) {
      break;
    }
    double p = jtj[0] * (1 + damping), q = jtj[2] * (1 + damping), determinant = p * q - jtj[1] * jtj[1];
    if (!(determinant > 0)) break;
    new_log_a = log_a + (jtr[0] * q - jtr[1] * jtj[1]) / determinant;
    new_power = power + (jtr[1] * p - jtr[0] * jtj[1]) / determinant;
  }
  *a = exp(log_a), *b = power;
  return isfinite(best) && isfinite(*a) && *b > 0 ? 0 : sw_fail("no curve fits --min-dist %g and --spread %g", min_dist, spread);
}

size_t sw_umap_bytes(const sw_umap_options *o, int64_t rows, int hidden, size_t *device) {
  const size_t n = (size_t)rows, found = n * (size_t)(o->neighbours - 1), edges = 2 * found; /* at most */
  const size_t vectors = n * (size_t)hidden * sizeof(float), graph = edges * 8 + n * 8;
  size_t neighbours = found * 12, merging = neighbours + found * 8 + graph;
  size_t layout = 2 * graph + sw_spectral_bytes(rows, (int64_t)edges) + edges * 4 + n * (2 * SW_UMAP_BLOCK + 16) * 4;
  *device = vectors + graph + sw_spectral_bytes(rows, (int64_t)edges);
  return vectors + (merging > layout ? merging : layout);
}

const char *sw_umap_normalize(const sw_umap_options *o, int hidden, float *row) {
  double squares = 0;
  for (int h = 0; h < hidden; h++) {
    if (!isfinite(row[h])) return "the vector has a value that is not finite";
    squares += (double)row[h] * row[h];
  }
  if (!o->cosine) return squares < 1e38 ? NULL : "the vector is too long for squared distances";
  if (squares == 0) return "the vector is 0: it has no direction, which --metric cosine needs";
  const double factor = 1 / sqrt(squares);
  for (int h = 0; h < hidden; h++) row[h] = (float)(row[h] * factor);
  return NULL;
}

/* --- the layout --- */

typedef struct { /* in device memory */
  int64_t *row_start;
  int32_t *column, *order;
  uint32_t *rate;
  uint64_t *ids;
  float *positions, *points;
  void *workspace;
} device_layout;

static void release(sw_device *device, device_layout *l) {
  void *const owned[] = {l->row_start, l->column, l->order, l->rate, l->ids, l->positions, l->points == l->positions ? NULL : l->points, l->workspace};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) device->release(device, owned[i]);
}
static void *to_device(sw_stream *stream, const void *host, size_t bytes) {
  void *memory = stream->device->alloc(stream->device, bytes ? bytes : 1);
  if (memory && stream->device->copy_in(stream, memory, host, bytes)) {
    stream->device->release(stream->device, memory);
    return NULL;
  }
  return memory;
}

/* The share of epochs in which an edge acts, in units of 2^-32. */
static uint32_t rate_of(float weight, float largest) {
  double rate = (double)weight / largest * 0x1p32;
  return rate >= 0xffffffffu ? 0xffffffffu : (uint32_t)rate;
}

static int run_layout(sw_stream *stream, sw_umap_layout_desc *d, const device_layout *l, const char *what, int quiet) {
  const int step = (d->epochs + 99) / 100;
  sw_progress progress;
  sw_progress_open(&progress, what, d->epochs, quiet);
  int status = 0;
  for (int epoch = 0; epoch < d->epochs && !status; epoch += step) {
    d->first_epoch = epoch, d->last_epoch = epoch + step < d->epochs ? epoch + step : d->epochs;
    status = SW_RUN(stream, umap_layout, d, l->row_start, l->column, l->rate, l->ids, l->order, l->positions, l->points, l->workspace);
    if (!status && progress.enabled) status = stream->device->synchronize(stream);
    sw_progress_show(&progress, d->last_epoch, NULL);
  }
  sw_progress_close(&progress);
  return status;
}

/* --- fit --- */

typedef struct {
  uint64_t activity;
  int32_t row;
} active_row;
static int by_activity(const void *a, const void *b) {
  const active_row *x = a, *y = b;
  return x->activity != y->activity ? (x->activity < y->activity ? 1 : -1) : (x->row > y->row) - (x->row < y->row);
}

/* Rates of the edges, and the order of the rows: every GROUPS-th one to a part, and in a part by how much they have to do, so that rows
 * which are computed side by side take equally long. */
static int schedule(const sw_graph *g, uint32_t *rate, int32_t *order, int groups) {
  active_row *rows = sw_alloc_array((size_t)g->rows, sizeof *rows);
  if (!rows) return -1;
  float largest = 0;
  int64_t at = 0;
  for (int64_t e = 0; e < g->row_start[g->rows]; e++) largest = fmaxf(largest, g->weight[e]);
  for (int64_t e = 0; e < g->row_start[g->rows]; e++) rate[e] = rate_of(g->weight[e], largest);
  for (int64_t first = 0; first < groups; first++)
    for (int64_t i = first; i < g->rows; i += groups, at++) {
      rows[at].row = (int32_t)i;
      for (int64_t e = g->row_start[i]; e < g->row_start[i + 1]; e++) rows[at].activity += rate[e];
    }
  for (int64_t part = 0; part < groups; part++) {
    int64_t begin = g->rows * part / groups, end = g->rows * (part + 1) / groups;
    qsort(rows + begin, (size_t)(end - begin), sizeof *rows, by_activity);
  }
  for (int64_t i = 0; i < g->rows; i++) order[i] = rows[i].row;
  free(rows);
  return 0;
}

/* Neighbours, their weights, and the graph. */
static int make_graph(sw_stream *stream, const sw_umap_options *o, int64_t rows, int hidden, const float *vectors, int epochs, int quiet,
                      sw_graph *graph) {
  const int k = (int)(rows < o->neighbours ? rows : o->neighbours) - 1;
  const sw_nearest_desc desc = {rows, rows, hidden, k, o->cosine, 1};
  int64_t *index = sw_alloc_array((size_t)rows * (size_t)k, sizeof *index);
  float *distances = sw_alloc_array((size_t)rows * (size_t)k, sizeof *distances);
  int status = index && distances && !sw_nearest(stream, &desc, vectors, vectors, quiet, index, distances) ? 0 : -1;
  if (!status) status = sw_nearest_weights(stream, rows, k, 1, log2(k + 1), distances);
  if (!status) status = sw_graph_union(rows, k, index, distances, 1.0 / epochs, graph);
  free(index);
  free(distances);
  return status;
}

int sw_umap_fit(sw_stream *stream, const sw_umap_options *o, int64_t rows, int hidden, const float *vectors, int quiet, float *coordinates) {
  const int dims = o->components, epochs = o->epochs ? o->epochs : rows <= 10000 ? EPOCHS : 2 * EPOCHS;
  const size_t bytes = (size_t)rows * (size_t)dims * sizeof *coordinates;
  double a, b;
  if (sw_umap_check(o) || sw_umap_curve(o->min_dist, o->spread, &a, &b)) return -1;
  if (rows < 1 || rows > INT32_MAX / dims) return sw_fail("a map of %lld vectors: there must be some, and fewer than 2^31 coordinates", (long long)rows);
  memset(coordinates, 0, bytes);
  if (rows == 1) return 0;
  sw_graph graph = {0};
  device_layout l = {0};
  sw_device *device = stream->device;
  int status = make_graph(stream, o, rows, hidden, vectors, epochs, quiet, &graph);
  const size_t edges = status ? 0 : (size_t)graph.row_start[rows];
  if (!status) {
    l.row_start = to_device(stream, graph.row_start, ((size_t)rows + 1) * sizeof *l.row_start);
    l.column = to_device(stream, graph.column, edges * sizeof *l.column);
    const sw_start_desc start = {o->cosine, hidden, dims, o->seed, vectors};
    status = l.row_start && l.column ? sw_start(stream, &start, &graph, l.row_start, l.column, coordinates) : -1;
  }
  sw_umap_layout_desc d = {.rows = rows, .points = rows, .components = dims, .own = 1, .epochs = epochs, .groups = rows < GROUPS ? (int)rows : GROUPS,
                           .negatives = NEGATIVES, .pulls = 2, .a = (float)a, .b = (float)b, .first_alpha = 1, .seed = o->seed};
  if (!status) {
    uint32_t *rate = sw_alloc_array(edges + 1, sizeof *rate);
    int32_t *order = sw_alloc_array((size_t)rows, sizeof *order);
    size_t workspace = 0;
    status = rate && order && !schedule(&graph, rate, order, d.groups) && !SW_RUN(stream, umap_layout_workspace, &d, &workspace) ? 0 : -1;
    if (!status) {
      l.rate = to_device(stream, rate, edges * sizeof *rate);
      l.order = to_device(stream, order, (size_t)rows * sizeof *order);
      l.positions = l.points = to_device(stream, coordinates, bytes);
      l.workspace = device->alloc(device, workspace ? workspace : 1);
      status = l.rate && l.order && l.positions && l.workspace ? 0 : -1;
    }
    free(rate);
    free(order);
  }
  if (!status) status = run_layout(stream, &d, &l, "layout", quiet);
  if (!status) status = device->copy_out(stream, coordinates, l.positions, bytes) || device->synchronize(stream) ? -1 : 0;
  release(device, &l);
  sw_graph_close(&graph);
  return status;
}

/* --- place --- */

/* What a vector's random numbers hang on: a hash of its bits (splitmix64's mixing, word by word). */
static uint64_t hash_row(const float *row, int hidden) {
  uint64_t hash = (uint64_t)hidden;
  for (int h = 0; h < hidden; h++) {
    uint32_t bits;
    float value = row[h] + 0.0f; /* -0 is 0 */
    memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) + 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ hash >> 27) * 0x94d049bb133111ebu;
    hash ^= hash >> 31;
  }
  return hash;
}
static int hash_rows(sw_stream *stream, int64_t rows, int hidden, const float *vectors, uint64_t *ids) {
  enum { BLOCK = 1024 };
  float *block = sw_alloc_array(BLOCK, (size_t)hidden * sizeof *block);
  int status = block ? 0 : -1;
  for (int64_t first = 0; first < rows && !status; first += BLOCK) {
    const int64_t count = rows - first < BLOCK ? rows - first : BLOCK;
    status = stream->device->copy_out(stream, block, vectors + first * hidden, (size_t)(count * hidden) * sizeof *block) ||
                     stream->device->synchronize(stream)
                 ? -1
                 : 0;
    for (int64_t i = 0; i < count && !status; i++) ids[first + i] = hash_row(block + i * hidden, hidden);
  }
  free(block);
  return status;
}

/* The weighted mean of its neighbours: where a new point begins. */
static void begin_at(const sw_umap_map *map, int dims, int k, const int64_t *index, const float *weights, float *place) {
  double sum = 0, mean[3] = {0};
  for (int j = 0; j < k; j++) {
    if (index[j] < 0) continue;
    sum += weights[j];
    for (int c = 0; c < dims; c++) mean[c] += (double)weights[j] * map->coordinates[index[j] * dims + c];
  }
  for (int c = 0; c < dims; c++) place[c] = sum > 0 ? (float)(mean[c] / sum) : 0;
}

int sw_umap_place(sw_stream *stream, const sw_umap_options *o, const sw_umap_map *map, int64_t rows, int hidden, const float *vectors, int quiet,
                  float *coordinates) {
  const int dims = o->components, k = (int)(map->rows < o->neighbours ? map->rows : o->neighbours);
  const int epochs = o->epochs ? (o->epochs + 2) / 3 : map->rows <= 10000 ? 100 : 30; /* umap-learn's */
  double a, b;
  if (sw_umap_check(o) || sw_umap_curve(o->min_dist, o->spread, &a, &b)) return -1;
  if (map->rows < 1 || map->rows > INT32_MAX / dims) return sw_fail("a map of %lld points: there must be some, and fewer than 2^31 coordinates", (long long)map->rows);
  if (rows < 1) return 0;
  const size_t n = (size_t)rows, edges = n * (size_t)k;
  sw_device *device = stream->device;
  const sw_nearest_desc desc = {rows, map->rows, hidden, k, o->cosine, 0};
  int64_t *index = sw_alloc_array(edges, sizeof *index), *row_start = sw_alloc_array(n + 1, sizeof *row_start);
  float *weights = sw_alloc_array(edges, sizeof *weights);
  int32_t *column = sw_alloc_array(edges, sizeof *column);
  uint32_t *rate = sw_alloc_array(edges, sizeof *rate);
  uint64_t *ids = sw_alloc_array(n, sizeof *ids);
  int status = index && row_start && weights && column && rate && ids && !sw_nearest(stream, &desc, vectors, map->vectors, quiet, index, weights) &&
                       !sw_nearest_weights(stream, rows, k, 0, log2(k), weights) && !hash_rows(stream, rows, hidden, vectors, ids)
                   ? 0
                   : -1;
  for (int64_t i = 0; i < rows && !status; i++) {
    float largest = 0;
    for (int64_t e = i * k; e < (i + 1) * k; e++) largest = fmaxf(largest, weights[e]);
    int64_t at = row_start[i];
    for (int64_t e = i * k; e < (i + 1) * k; e++)
      if (index[e] >= 0 && weights[e] > 0) column[at] = (int32_t)index[e], rate[at++] = rate_of(weights[e], largest);
    row_start[i + 1] = at;
    begin_at(map, dims, k, index + i * k, weights + i * k, coordinates + i * dims);
  }
  sw_umap_layout_desc d = {.rows = rows, .points = map->rows, .components = dims, .epochs = epochs, .groups = 1, .negatives = NEGATIVES, .pulls = 1,
                           .a = (float)a, .b = (float)b, .first_alpha = 0.25f, .seed = o->seed};
  device_layout l = {0};
  size_t workspace = 0;
  if (!status) status = SW_RUN(stream, umap_layout_workspace, &d, &workspace);
  if (!status) {
    l.row_start = to_device(stream, row_start, (n + 1) * sizeof *row_start);
    l.column = to_device(stream, column, edges * sizeof *column);
    l.rate = to_device(stream, rate, edges * sizeof *rate);
    l.ids = to_device(stream, ids, n * sizeof *ids);
    l.positions = to_device(stream, coordinates, n * (size_t)dims * sizeof *coordinates);
    l.points = to_device(stream, map->coordinates, (size_t)map->rows * (size_t)dims * sizeof *coordinates);
    l.workspace = device->alloc(device, workspace ? workspace : 1);
    status = l.row_start && l.column && l.rate && l.ids && l.positions && l.points && l.workspace ? 0 : -1;
  }
  if (!status) status = run_layout(stream, &d, &l, "place", quiet);
  if (!status)
    status = device->copy_out(stream, coordinates, l.positions, n * (size_t)dims * sizeof *coordinates) || device->synchronize(stream) ? -1 : 0;
  release(device, &l);
  free(index), free(row_start), free(weights), free(column), free(rate), free(ids);
  return status;
}
