/* k-means on the CPU: see kmeans.h.
 *
 * A panel of TILE_COLUMNS rows is transposed, so that a lane is a row, and goes by all centres, a tile of TILE_ROWS of them at a time. The nearest
 * is then found lane by lane, with nothing to do across lanes. */
#include "kernels/isa.h"
#include "kernels/kmeans/check.h"
#include "kernels/tile_products.h"

#include <math.h>
#include <omp.h>

sw_kmeans_workspace_fn SW_CPU(kmeans_workspace);
sw_kmeans_assign_fn SW_CPU(kmeans_assign);
sw_kmeans_update_fn SW_CPU(kmeans_update);

enum { UPDATE_ROWS = 256 /* whose columns stay in the cache for all groups */, UPDATE_COLUMNS = 16 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t tiles_of(const sw_kmeans_desc *d) { return ((int64_t)d->groups * d->k + TILE_ROWS - 1) / TILE_ROWS; }
static int64_t tile_floats(const sw_kmeans_desc *d) { return (int64_t)d->hidden * SW_LANES; }
static int64_t panel_floats(const sw_kmeans_desc *d) { return (int64_t)d->hidden * TILE_COLUMNS; }

int SW_CPU(kmeans_workspace)(sw_stream *stream, const sw_kmeans_desc *desc, size_t *bytes) {
  if (kmeans_check(desc)) return -1;
  *bytes = (size_t)(tiles_of(desc) * tile_floats(desc) + stream->threads * panel_floats(desc)) * sizeof(float);
  return 0;
}

/* The nearest so far of the panel's rows, of one group. */
typedef struct {
  vf least[2];
  vi label[2];
} nearest;
SW_INLINE void start(nearest *n) {
  for (int v = 0; v < 2; v++) n->least[v] = vf_set(INFINITY), n->label[v] = vi_set(-1);
}
/* To label and distance from `at` on. */
static void put(const nearest *n, int64_t rows, int64_t at, int32_t *label, float *distance) {
  for (int v = 0; v < 2 && rows > 0; v++, rows -= SW_LANES, at += SW_LANES) {
    const size_t bytes = (size_t)smaller(rows, SW_LANES) * 4;
    if (label) memcpy(label + at, &n->label[v], bytes);
    memcpy(distance + at, &n->least[v], bytes);
  }
}

/* One tile of centres, from `first` of all groups' on; `rows` is a constant where this is inlined. */
SW_INLINE void pass_tile(const sw_kmeans_desc *d, int rows, const float *tile, const float *panel, int first, int count, nearest *n, int64_t row,
                         int32_t *label, float *distance) {
  vf sum[TILE_ROWS][2] = {0};
  tile_multiply(tile, panel, TILE_COLUMNS, d->hidden, rows, 1, sum);
  int group = first / d->k, centre = first % d->k;
  for (int r = 0; r < rows; r++) {
    if (r >= count) break;
    if (centre == 0) start(n);
    for (int v = 0; v < 2; v++) {
      const vi less = sum[r][v] < n->least[v];
      n->least[v] = vf_select(less, sum[r][v], n->least[v]);
      n->label[v] = (less & vi_set(centre)) | (~less & n->label[v]);
    }
    if (++centre < d->k) continue;
    put(n, d->rows - row, group * d->rows + row, label, distance);
    centre = 0, group++;
  }
}
#define PASS(rows)                                                                                                               \
  static void pass_##rows(const sw_kmeans_desc *d, const float *tile, const float *panel, int first, int count, nearest *n, int64_t row,     \
                          int32_t *label, float *distance) {                                                                     \
    pass_tile(d, rows < TILE_ROWS ? rows : TILE_ROWS, tile, panel, first, count, n, row, label, distance);                       \
  }
PASS(12)
PASS(6)
PASS(4)
PASS(2)
PASS(1)

int SW_CPU(kmeans_assign)(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const float *centres, int32_t *label, float *distance,
                          void *workspace) {
  if (kmeans_check(desc)) return -1;
  const sw_kmeans_desc d = *desc;
  const int all = d.groups * d.k;
  float *tiles = workspace, *panels = tiles + tiles_of(&d) * tile_floats(&d);
  for (int first = 0; first < all; first += TILE_ROWS)
    tile_pack(centres + (int64_t)first * d.hidden, d.hidden, smaller(all - first, TILE_ROWS), tiles + first / TILE_ROWS * tile_floats(&d), SW_LANES);
#pragma omp parallel num_threads(stream->threads) if (d.rows * d.hidden * all >= 1 << 20)
  {
    float *panel = panels + omp_get_thread_num() * panel_floats(&d);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < d.rows; row += TILE_COLUMNS) {
      nearest n;
      start(&n);
      tile_pack_panel(x + row * d.hidden, d.hidden, d.rows - row, panel);
      for (int first = 0; first < all; first += TILE_ROWS) {
        const int count = (int)smaller(all - first, TILE_ROWS);
        (count == 1 ? pass_1 : count <= 2 ? pass_2 : count <= 4 ? pass_4 : count <= 6 ? pass_6 : pass_12)(
            &d, tiles + first / TILE_ROWS * tile_floats(&d), panel, first, count, &n, row, label, distance);
      }
    }
  }
  return 0;
}

/* Columns [from, to) of a group's rows [first, last). */
static void move_rows(const sw_kmeans_desc *d, const float *x, const int32_t *before, const int32_t *label, int64_t first, int64_t last, int from,
                      int to, double *sums) {
  for (int64_t i = first; i < last; i++) {
    if (before[i] == label[i]) continue;
    const float *row = x + i * d->hidden;
    if (before[i] >= 0) {
      double *sum = sums + (int64_t)before[i] * d->hidden;
      for (int h = from; h < to; h++) sum[h] -= row[h];
    }
    if (label[i] >= 0) {
      double *sum = sums + (int64_t)label[i] * d->hidden;
      for (int h = from; h < to; h++) sum[h] += row[h];
    }
  }
}

int SW_CPU(kmeans_update)(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const int32_t *before, const int32_t *label,
                          double *sums, int64_t *counts, int64_t *changed) {
  if (kmeans_check(desc)) return -1;
  const sw_kmeans_desc d = *desc;
  const int64_t parts = smaller((d.hidden + UPDATE_COLUMNS - 1) / UPDATE_COLUMNS, stream->threads), size = (int64_t)d.k * d.hidden;
#pragma omp parallel num_threads(stream->threads) if (d.rows * d.groups >= 1 << 14)
  {
#pragma omp for schedule(static) nowait
    for (int64_t g = 0; g < d.groups; g++) {
      const int32_t *b = before + g * d.rows, *l = label + g * d.rows;
      int64_t *count = counts + g * d.k, moved = 0;
      for (int64_t i = 0; i < d.rows; i++) {
        if (b[i] == l[i]) continue;
        if (b[i] >= 0) count[b[i]]--;
        if (l[i] >= 0) count[l[i]]++;
        moved++;
      }
      changed[g] = moved;
    }
#pragma omp for schedule(static)
    for (int64_t part = 0; part < parts; part++) {
      const int from = (int)(d.hidden * part / parts), to = (int)(d.hidden * (part + 1) / parts);
      for (int64_t first = 0; first < d.rows; first += UPDATE_ROWS)
        for (int64_t g = 0; g < d.groups; g++)
          move_rows(&d, x, before + g * d.rows, label + g * d.rows, first, smaller(first + UPDATE_ROWS, d.rows), from, to, sums + g * size);
    }
  }
  return 0;
}
