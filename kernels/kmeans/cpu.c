/* k-means on the CPU: see kmeans.h.
 *
 * TILE_COLUMNS rows that are not passed over are transposed to a panel, so that a lane is a row, and go by all centres, a tile of TILE_ROWS of them
 * at a time. The nearest is then found lane by lane, with nothing to do across lanes.
 *
 * Bounds: with s1 and s2 the computed squares of the distances to the nearest centre and the next, and e what their roots may be off by, a row's
 * centre is nearer than any other by sqrt(s2) (1 - e) - sqrt(s1) (1 + e) at least. Moves of the centres take from that. What is left must be more than 2 e
 * times the distance to the own centre, or rounding could show another centre as the nearest; until the bound is used up that distance is below
 * sqrt(s2) (1 + e), so 3 e sqrt(s2) are taken off at once. */
#include "kernels/isa.h"
#include "kernels/kmeans/check.h"
#include "kernels/tile_products.h"

#include <math.h>
#include <omp.h>

sw_kmeans_workspace_fn SW_CPU(kmeans_workspace);
sw_kmeans_assign_fn SW_CPU(kmeans_assign);
sw_kmeans_update_fn SW_CPU(kmeans_update);

enum {
  BLOCK = 256, /* rows that are looked at together; in updates their columns stay in the cache for all groups */
  UPDATE_COLUMNS = 16
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t tiles_of(const sw_kmeans_desc *d) { return ((int64_t)d->groups * d->k + TILE_ROWS - 1) / TILE_ROWS; }
static int64_t tile_floats(const sw_kmeans_desc *d) { return (int64_t)d->hidden * SW_LANES; }
static int64_t panel_floats(const sw_kmeans_desc *d) { return (int64_t)d->hidden * TILE_COLUMNS; }

int SW_CPU(kmeans_workspace)(sw_stream *stream, const sw_kmeans_desc *desc, size_t *bytes) {
  if (kmeans_check(desc)) return -1;
  *bytes = (size_t)(tiles_of(desc) * tile_floats(desc) + stream->threads * 2 * panel_floats(desc)) * sizeof(float);
  return 0;
}

/* One call. */
typedef struct {
  sw_kmeans_desc d;
  const float *x, *tiles;
  sw_kmeans_bounds bounds; /* zeroed where there are none */
  float rounding;
  int32_t *label;
  float *distance;
} job;
/* Rows on their way: a panel of them, and of one group the nearest so far and the next. */
typedef struct {
  float *panel, *rows; /* [hidden, TILE_COLUMNS]; [TILE_COLUMNS, hidden] */
  int count;
  int64_t row[TILE_COLUMNS];
  vf least[2], next[2];
  vi label[2];
} batch;

SW_INLINE void begin_group(batch *b) {
  for (int v = 0; v < 2; v++) b->least[v] = b->next[v] = vf_set(INFINITY), b->label[v] = vi_set(-1);
}
static void end_group(const job *j, const batch *b, int64_t group) {
  float least[TILE_COLUMNS], bound[TILE_COLUMNS];
  int32_t label[TILE_COLUMNS];
  const float e = j->rounding;
  for (int v = 0; v < 2; v++) {
    vf_store(least + v * SW_LANES, b->least[v]);
    memcpy(label + v * SW_LANES, &b->label[v], sizeof b->label[v]);
    if (j->bounds.bound) vf_store(bound + v * SW_LANES, vf_sqrt(b->next[v]) * (1 - 4 * e) - vf_sqrt(b->least[v]) * (1 + e) - 1e-18f);
  }
  for (int r = 0; r < b->count; r++) {
    const int64_t at = group * j->d.rows + b->row[r];
    j->distance[at] = least[r];
    if (j->label) j->label[at] = label[r];
    if (j->bounds.bound) j->bounds.bound[at] = bound[r];
  }
}

/* One tile of centres, from `first` of all groups' on; `rows` is a constant where this is inlined. */
SW_INLINE void pass_tile(const job *j, batch *b, int rows, const float *tile, int first, int count) {
  vf sum[TILE_ROWS][2] = {0};
  tile_multiply(tile, b->panel, TILE_COLUMNS, j->d.hidden, rows, 1, sum);
  int group = first / j->d.k, centre = first % j->d.k;
  for (int r = 0; r < rows; r++) {
    if (r >= count) break;
    if (centre == 0) begin_group(b);
    for (int v = 0; v < 2; v++) {
      const vi less = sum[r][v] < b->least[v];
      b->next[v] = vf_min(b->next[v], vf_select(less, b->least[v], sum[r][v]));
      b->least[v] = vf_select(less, sum[r][v], b->least[v]);
      b->label[v] = (less & vi_set(centre)) | (~less & b->label[v]);
    }
    if (++centre < j->d.k) continue;
    end_group(j, b, group++);
    centre = 0;
  }
}
#define PASS(rows)                                                                                                               \
  static void pass_##rows(const job *j, batch *b, const float *tile, int first, int count) {                                     \
    pass_tile(j, b, rows < TILE_ROWS ? rows : TILE_ROWS, tile, first, count);                                                    \
  }
PASS(12)
PASS(6)
PASS(4)
PASS(2)
PASS(1)

/* Finds the centres of the batch's rows, and empties it. */
static void pass_batch(const job *j, batch *b) {
  const int64_t hidden = j->d.hidden;
  const int all = j->d.groups * j->d.k;
  if (!b->count) return;
  if (b->row[b->count - 1] - b->row[0] == b->count - 1) {
    tile_pack_panel(j->x + b->row[0] * hidden, (int)hidden, b->count, b->panel);
  } else {
    for (int r = 0; r < b->count; r++) memcpy(b->rows + r * hidden, j->x + b->row[r] * hidden, (size_t)hidden * sizeof(float));
    tile_pack_panel(b->rows, (int)hidden, b->count, b->panel);
  }
  for (int first = 0; first < all; first += TILE_ROWS) {
    const int count = (int)smaller(all - first, TILE_ROWS);
    (count == 1 ? pass_1 : count <= 2 ? pass_2 : count <= 4 ? pass_4 : count <= 6 ? pass_6 : pass_12)(j, b, j->tiles + first / TILE_ROWS * tile_floats(&j->d),
                                                                                                    first, count);
  }
  b->count = 0;
}

/* Which of the rows [first, last), at most BLOCK, may have another centre than before; labels of all become those before. */
static void look_through(const job *j, int64_t first, int64_t last, uint8_t *open) {
  for (int64_t g = 0; g < j->d.groups; g++) {
    const int64_t at = g * j->d.rows + first;
    const float *drift = j->bounds.drift + g * j->d.k;
    const int32_t *before = j->bounds.before + at;
    float *bound = j->bounds.bound + at;
    for (int64_t i = 0; i < last - first; i++) {
      const float left = before[i] < 0 ? 0 : bound[i] - drift[before[i]];
      bound[i] = left;
      open[i] |= !(left > 0);
    }
    if (j->label) memcpy(j->label + at, before, (size_t)(last - first) * sizeof *before);
  }
}

int SW_CPU(kmeans_assign)(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const float *centres, const sw_kmeans_bounds *bounds,
                          int32_t *label, float *distance, void *workspace) {
  if (kmeans_check(desc)) return -1;
  const sw_kmeans_desc d = *desc;
  const int all = d.groups * d.k;
  float *tiles = workspace, *panels = tiles + tiles_of(&d) * tile_floats(&d);
  const job j = {.d = d, .x = x, .tiles = tiles, .bounds = bounds ? *bounds : (sw_kmeans_bounds){0}, .rounding = kmeans_rounding(&d), .label = label,
                 .distance = distance};
  for (int first = 0; first < all; first += TILE_ROWS)
    tile_pack(centres + (int64_t)first * d.hidden, d.hidden, smaller(all - first, TILE_ROWS), tiles + first / TILE_ROWS * tile_floats(&d), SW_LANES);
#pragma omp parallel num_threads(stream->threads) if (d.rows * d.hidden * all >= 1 << 20)
  {
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num(), blocks = (d.rows + BLOCK - 1) / BLOCK;
    batch b;
    b.panel = panels + thread * 2 * panel_floats(&d), b.rows = b.panel + panel_floats(&d), b.count = 0;
    for (int64_t block = blocks * thread / threads; block < blocks * (thread + 1) / threads; block++) {
      const int64_t first = block * BLOCK, last = smaller(first + BLOCK, d.rows);
      uint8_t open[BLOCK] = {0};
      if (bounds) look_through(&j, first, last, open);
      for (int64_t i = first; i < last; i++) {
        if (bounds && !open[i - first]) continue;
        b.row[b.count++] = i;
        if (b.count == TILE_COLUMNS) pass_batch(&j, &b);
      }
    }
    pass_batch(&j, &b);
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
      for (int64_t first = 0; first < d.rows; first += BLOCK)
        for (int64_t g = 0; g < d.groups; g++)
          move_rows(&d, x, before + g * d.rows, label + g * d.rows, first, smaller(first + BLOCK, d.rows), from, to, sums + g * size);
    }
  }
  return 0;
}
