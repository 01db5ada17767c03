#include "engine/space/umap.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/progress.h"
#include "engine/space/nearest.h"
#include "engine/space/start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Negative samples of an active edge (umap-learn's); epochs where nothing is said, up to MANY points and above
 * (umap-learn: 500 and 200). */
enum { NEGATIVES = 5, EPOCHS = 500, EPOCHS_OF_MANY = 300, MANY = 10000 };

int sw_umap_check(const sw_umap_options *o) {
  if (o->neighbours < 2 || o->neighbours > SW_MOST_NEIGHBOURS)
    return sw_fail("--n-neighbors is %d, not 2 to %d", o->neighbours, SW_MOST_NEIGHBOURS);
  if (o->components != 2 && o->components != 3) return sw_fail("--components is %d, not 2 or 3", o->components);
  if (o->epochs < 0) return sw_fail("--epochs is %d, must not be negative (0: by the number of points)", o->epochs);
  if (!(o->spread > 0) || !(o->min_dist >= 0) || !(o->min_dist <= o->spread) || !isfinite(o->spread))
    return sw_fail("--min-dist is %g and --spread %g: the spread must be positive, and --min-dist 0 to the spread",
                   o->min_dist, o->spread);
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
  return isfinite(best) && isfinite(*a) && *b > 0
             ? 0
             : sw_fail("no curve fits --min-dist %g and --spread %g", min_dist, spread);
}

size_t sw_umap_bytes(const sw_umap_options *o, int64_t rows, int hidden, size_t *device) {
  const size_t n = (size_t)rows, found = n * (size_t)(o->neighbours - 1), edges = 2 * found; /* at most */
  const size_t vectors = n * (size_t)hidden * sizeof(float), graph = edges * 8 + n * 8,
               coordinates = n * (size_t)o->components * 4;
  const size_t merging = found * 12 + found * 8 + graph, start = 2 * graph + sw_spectral_bytes(rows, (int64_t)edges);
  const size_t coloring = graph + edges * 8 + n * 8 + edges / 2 * 12,
               layout = edges / 2 * (12 + 4 + 12) + 3 * coordinates;
  size_t most = merging > start ? merging : start;
  most = most > coloring ? most : coloring;
  most = most > layout ? most : layout;
  *device = vectors + graph + sw_spectral_bytes(rows, (int64_t)edges);
  return vectors + most + coordinates;
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

static void release(sw_device *device, void *const *memory, int count) {
  for (int i = 0; i < count; i++)
    if (memory[i]) device->release(device, memory[i]);
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

/* All epochs, some at a time: run() does those of `descent`. */
typedef int run_epochs(sw_stream *stream, void *context);
static int descend(sw_stream *stream, sw_umap_descent *descent, const char *what, int quiet, run_epochs *run,
                   void *context) {
  const int step = (descent->epochs + 99) / 100;
  sw_progress progress;
  sw_progress_open(&progress, what, descent->epochs, quiet);
  int status = 0;
  for (int epoch = 0; epoch < descent->epochs && !status; epoch += step) {
    descent->first_epoch = epoch, descent->last_epoch = epoch + step < descent->epochs ? epoch + step : descent->epochs;
    status = run(stream, context);
    if (!status && progress.enabled) status = stream->device->synchronize(stream);
    sw_progress_show(&progress, descent->last_epoch, NULL);
  }
  sw_progress_close(&progress);
  return status;
}

/* --- fit --- */

/* Neighbours, their weights, and the graph. */
static int make_graph(sw_stream *stream, const sw_umap_options *o, int64_t rows, int hidden, const float *vectors,
                      int epochs, int quiet, sw_graph *graph) {
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

typedef struct {
  sw_umap_layout_desc desc;
  int32_t *head, *tail; /* these and what follows: in device memory */
  uint32_t *rate;
  float *positions;
  void *workspace;
} layout;
static int run_layout(sw_stream *stream, void *context) {
  const layout *l = context;
  return SW_RUN(stream, umap_layout, &l->desc, l->head, l->tail, l->rate, l->positions, l->workspace);
}

static int lay_out(sw_stream *stream, const sw_umap_descent *descent, const sw_colored_edges *edges,
                   const int32_t *order, int quiet, float *coordinates) {
  const int dims = descent->components;
  const size_t count = (size_t)edges->edges, bytes = (size_t)(descent->points * dims) * sizeof *coordinates;
  sw_device *device = stream->device;
  float largest = 0;
  uint32_t *rate = sw_alloc_array(count + 1, sizeof *rate);
  float *ordered = sw_alloc(bytes);
  for (size_t e = 0; e < count; e++) largest = fmaxf(largest, edges->weight[e]);
  for (size_t e = 0; e < count && rate; e++) rate[e] = rate_of(edges->weight[e], largest);
  layout l = {.desc = {*descent, edges->colors, edges->color_start}};
  for (int64_t i = 0; i < descent->points && ordered; i++)
    memcpy(ordered + i * dims, coordinates + (int64_t)order[i] * dims, (size_t)dims * sizeof *ordered);
  size_t workspace = 0;
  int status = rate && ordered ? SW_RUN(stream, umap_layout_workspace, &l.desc, &workspace) : -1;
  if (!status) {
    l.head = to_device(stream, edges->head, count * sizeof *l.head);
    l.tail = to_device(stream, edges->tail, count * sizeof *l.tail);
    l.rate = to_device(stream, rate, count * sizeof *l.rate);
    l.positions = to_device(stream, ordered, bytes);
    l.workspace = device->alloc(device, workspace);
    status = l.head && l.tail && l.rate && l.positions && l.workspace
                 ? descend(stream, &l.desc.descent, "layout", quiet, run_layout, &l)
                 : -1;
  }
  if (!status) status = device->copy_out(stream, ordered, l.positions, bytes) || device->synchronize(stream) ? -1 : 0;
  for (int64_t i = 0; i < descent->points && !status; i++)
    memcpy(coordinates + (int64_t)order[i] * dims, ordered + i * dims, (size_t)dims * sizeof *ordered);
  release(device, (void *const[]){l.head, l.tail, l.rate, l.positions, l.workspace}, 5);
  free(rate), free(ordered);
  return status;
}

int sw_umap_fit(sw_stream *stream, const sw_umap_options *o, int64_t rows, int hidden, const float *vectors, int quiet,
                float *coordinates) {
  const int dims = o->components, epochs = o->epochs ? o->epochs : rows <= MANY ? EPOCHS : EPOCHS_OF_MANY;
  double a, b;
  if (sw_umap_check(o) || sw_umap_curve(o->min_dist, o->spread, &a, &b)) return -1;
  if (rows < 1 || rows > INT32_MAX / dims)
    return sw_fail("a map of %lld vectors: there must be some, and fewer than 2^31 coordinates", (long long)rows);
  memset(coordinates, 0, (size_t)rows * (size_t)dims * sizeof *coordinates);
  if (rows == 1) return 0;
  sw_graph graph = {0};
  sw_colored_edges edges = {0};
  sw_device *device = stream->device;
  int status = make_graph(stream, o, rows, hidden, vectors, epochs, quiet, &graph);
  if (!status) {
    int64_t *row_start = to_device(stream, graph.row_start, ((size_t)rows + 1) * sizeof *row_start);
    int32_t *column = to_device(stream, graph.column, (size_t)graph.row_start[rows] * sizeof *column);
    const sw_start_desc start = {o->cosine, hidden, dims, o->seed, vectors};
    status = row_start && column ? sw_start(stream, &start, &graph, row_start, column, coordinates) : -1;
    release(device, (void *const[]){row_start, column}, 2);
  }
  int32_t *order = sw_alloc_array((size_t)rows, sizeof *order);
  if (!order) status = -1;
  if (!status) status = sw_graph_order(&graph, order);
  if (!status) status = sw_graph_color(&graph, order, &edges);
  sw_graph_close(&graph);
  const sw_umap_descent descent = {.points = rows,
                                   .components = dims,
                                   .epochs = epochs,
                                   .negatives = NEGATIVES,
                                   .a = (float)a,
                                   .b = (float)b,
                                   .first_alpha = 1,
                                   .seed = o->seed};
  if (!status) status = lay_out(stream, &descent, &edges, order, quiet, coordinates);
  sw_colored_edges_close(&edges);
  free(order);
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
    status =
        stream->device->copy_out(stream, block, vectors + first * hidden, (size_t)(count * hidden) * sizeof *block) ||
                stream->device->synchronize(stream)
            ? -1
            : 0;
    for (int64_t i = 0; i < count && !status; i++) ids[first + i] = hash_row(block + i * hidden, hidden);
  }
  free(block);
  return status;
}

/* The weighted mean of its neighbours: where a new point begins. */
static void begin_at(const sw_umap_map *map, int dims, int k, const int64_t *index, const float *weights,
                     float *place) {
  double sum = 0, mean[3] = {0};
  for (int j = 0; j < k; j++) {
    if (index[j] < 0) continue;
    sum += weights[j];
    for (int c = 0; c < dims; c++) mean[c] += (double)weights[j] * map->coordinates[index[j] * dims + c];
  }
  for (int c = 0; c < dims; c++) place[c] = sum > 0 ? (float)(mean[c] / sum) : 0;
}

typedef struct {
  sw_umap_place_desc desc;
  int64_t *row_start; /* this and what follows: in device memory */
  int32_t *column;
  uint32_t *rate;
  uint64_t *ids;
  float *positions, *points;
} placing;
static int run_placing(sw_stream *stream, void *context) {
  const placing *p = context;
  return SW_RUN(stream, umap_place, &p->desc, p->row_start, p->column, p->rate, p->ids, p->positions, p->points);
}

int sw_umap_place(sw_stream *stream, const sw_umap_options *o, const sw_umap_map *map, int64_t rows, int hidden,
                  const float *vectors, int quiet, float *coordinates) {
  const int dims = o->components, k = (int)(map->rows < o->neighbours ? map->rows : o->neighbours);
  const int epochs = o->epochs ? (o->epochs + 2) / 3 : map->rows <= MANY ? 100 : 30; /* umap-learn's */
  double a, b;
  if (sw_umap_check(o) || sw_umap_curve(o->min_dist, o->spread, &a, &b)) return -1;
  if (map->rows < 1 || map->rows > INT32_MAX / dims)
    return sw_fail("a map of %lld points: there must be some, and fewer than 2^31 coordinates", (long long)map->rows);
  if (rows < 1) return 0;
  const size_t n = (size_t)rows, edges = n * (size_t)k;
  sw_device *device = stream->device;
  const sw_nearest_desc desc = {rows, map->rows, hidden, k, o->cosine, 0};
  int64_t *index = sw_alloc_array(edges, sizeof *index), *row_start = sw_alloc_array(n + 1, sizeof *row_start);
  float *weights = sw_alloc_array(edges, sizeof *weights);
  int32_t *column = sw_alloc_array(edges, sizeof *column);
  uint32_t *rate = sw_alloc_array(edges, sizeof *rate);
  uint64_t *ids = sw_alloc_array(n, sizeof *ids);
  int status = index && row_start && weights && column && rate && ids &&
                       !sw_nearest(stream, &desc, vectors, map->vectors, quiet, index, weights) &&
                       !sw_nearest_weights(stream, rows, k, 0, log2(k), weights) &&
                       !hash_rows(stream, rows, hidden, vectors, ids)
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
  placing p = {.desc = {{.points = map->rows,
                         .components = dims,
                         .epochs = epochs,
                         .negatives = NEGATIVES,
                         .a = (float)a,
                         .b = (float)b,
                         .first_alpha = 0.25f,
                         .seed = o->seed},
                        rows}};
  if (!status) {
    p.row_start = to_device(stream, row_start, (n + 1) * sizeof *row_start);
    p.column = to_device(stream, column, edges * sizeof *column);
    p.rate = to_device(stream, rate, edges * sizeof *rate);
    p.ids = to_device(stream, ids, n * sizeof *ids);
    p.positions = to_device(stream, coordinates, n * (size_t)dims * sizeof *coordinates);
    p.points = to_device(stream, map->coordinates, (size_t)map->rows * (size_t)dims * sizeof *coordinates);
    status = p.row_start && p.column && p.rate && p.ids && p.positions && p.points
                 ? descend(stream, &p.desc.descent, "place", quiet, run_placing, &p)
                 : -1;
  }
  if (!status)
    status = device->copy_out(stream, coordinates, p.positions, n * (size_t)dims * sizeof *coordinates) ||
                     device->synchronize(stream)
                 ? -1
                 : 0;
  release(device, (void *const[]){p.row_start, p.column, p.rate, p.ids, p.positions, p.points}, 6);
  free(index), free(row_start), free(weights), free(column), free(rate), free(ids);
  return status;
}
