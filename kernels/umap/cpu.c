/* The steps of UMAP on the CPU: see umap.h.
 *
 * In the layout a row is a lane of vectors: SW_LANES rows of a part go through their active edges side by side. Rows know nothing of each
 * other, so what is beside a row changes none of its bits; where rows that stand together in `order` have about as many active edges,
 * few lanes idle. */
#include "kernels/dropout/mask.h"
#include "kernels/isa.h"
#include "kernels/tile_products.h"
#include "kernels/umap/check.h"

#include <math.h>
#include <omp.h>

sw_umap_weights_fn SW_CPU(umap_weights);
sw_umap_multiply_fn SW_CPU(umap_multiply);
sw_umap_layout_workspace_fn SW_CPU(umap_layout_workspace);
sw_umap_layout_fn SW_CPU(umap_layout);
sw_umap_ranks_workspace_fn SW_CPU(umap_ranks_workspace);
sw_umap_ranks_fn SW_CPU(umap_ranks);

enum { STEPS = 64, LIST = 64 }; /* of the bisection; active edges of a row that are listed at a time: a multiple of 4 */

/* --- weights --- */

/* exp(-gap / scale) into `out`, and their sum; a gap of infinity weighs 0. k is padded to whole vectors. */
static float weigh(const float *gap, int k, float scale, float *out) {
  const vf factor = vf_set(-1 / scale);
  vf sum = vf_zero();
  for (int j = 0; j < k; j += SW_LANES) {
    vf g = vf_load(gap + j), w = vf_select(g < INFINITY, vf_exp(g * factor), vf_zero());
    vf_store(out + j, w);
    sum += w;
  }
  return vf_sum(sum);
}

static void row_weights(const sw_umap_weights_desc *d, const float *distances, float *weights) {
  float gap[SW_MOST_NEIGHBOURS + SW_LANES], weight[SW_MOST_NEIGHBOURS + SW_LANES], nearest = 0, mean = 0;
  int count = 0;
  for (int j = 0; j < d->k; j++) {
    if (!(distances[j] < INFINITY)) continue;
    if (d->nearest && nearest == 0) nearest = distances[j];
    mean += distances[j], count++;
  }
  mean /= (float)(count + 1);
  for (int j = 0; j < d->k + SW_LANES; j++)
    gap[j] = j < d->k && distances[j] < INFINITY ? fmaxf(distances[j] - nearest, 0) : INFINITY;
  float scale = mean > 0 ? mean : 1, least = 0, most = INFINITY;
  for (int step = 0; step < STEPS; step++) {
    float sum = weigh(gap, d->k, scale, weight);
    if (fabsf(sum - d->target) < 1e-5f) break;
    if (sum > d->target)
      most = scale;
    else
      least = scale;
    scale = most == INFINITY ? scale * 2 : (least + most) / 2;
  }
  weigh(gap, d->k, fmaxf(scale, fmaxf(1e-3f * mean, 1e-30f)), weight);
  memcpy(weights, weight, (size_t)d->k * sizeof *weight);
}

int SW_CPU(umap_weights)(sw_stream *stream, const sw_umap_weights_desc *desc, const float *distances, float *weights) {
  if (umap_weights_check(desc)) return -1;
#pragma omp parallel for num_threads(stream->threads) if (desc->rows >= 256)
  for (int64_t i = 0; i < desc->rows; i++) row_weights(desc, distances + i * desc->k, weights + i * desc->k);
  return 0;
}

/* --- sparse matrix --- */

typedef float v8 __attribute__((vector_size(SW_UMAP_BLOCK * 4)));
SW_INLINE v8 v8_load(const float *p) {
  v8 v;
  memcpy(&v, p, sizeof v);
  return v;
}

int SW_CPU(umap_multiply)(sw_stream *stream, const sw_umap_multiply_desc *desc, const int64_t *row_start, const int32_t *column,
                          const float *value, const float *x, float *y) {
  if (umap_multiply_check(desc)) return -1;
  const sw_umap_multiply_desc d = *desc;
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 256) if (d.rows >= 1024)
  for (int64_t i = 0; i < d.rows; i++) {
    v8 sum = {0};
    for (int64_t e = row_start[i]; e < row_start[i + 1]; e++) sum += value[e] * v8_load(x + (int64_t)column[e] * SW_UMAP_BLOCK);
    v8 result = d.scale * sum + d.shift * v8_load(x + i * SW_UMAP_BLOCK);
    if (d.back != 0) result += d.back * v8_load(y + i * SW_UMAP_BLOCK);
    memcpy(y + i * SW_UMAP_BLOCK, &result, sizeof result);
  }
  return 0;
}

/* --- layout --- */

typedef struct {
  sw_umap_layout_desc d;
  const int64_t *row_start;
  const int32_t *column, *order;
  const uint32_t *rate;
  const uint64_t *ids;
  const float *points;
  float *positions, *next;
} layout;

/* p += step clip(factor (p - q)), by an attraction or a repulsion. */
SW_INLINE void push(const layout *l, int dims, int attract, vf step, const vf *q, vf *p) {
  const float a = l->d.a, b = l->d.b;
  vf d[3], squares = vf_zero();
  for (int c = 0; c < dims; c++) {
    d[c] = p[c] - q[c];
    squares += d[c] * d[c];
  }
  squares = vf_max(squares, vf_set(1e-30f)); /* where the points are one, d = 0 and there is no force */
  vf power = vf_exp(vf_log(squares) * b), below = power * a + 1.0f;
  vf factor = attract ? power * (-2 * a * b) / (squares * below) : 2 * b / ((squares + 0.001f) * below);
  for (int c = 0; c < dims; c++) p[c] += step * vf_max(vf_min(factor * d[c], vf_set(4)), vf_set(-4));
}

SW_INLINE void gather(const float *points, int dims, vi index, vf *q) {
  for (int c = 0; c < dims; c++) q[c] = vf_gather(points, (vi)((vu)index * (uint32_t)dims + (uint32_t)c));
}

/* Up to LIST active edges of a lane's row; `cursor` stands behind the last one looked at. */
static int list_edges(const layout *l, uint32_t times, int64_t *cursor, int64_t end, int32_t *list) {
  int count = 0;
  int64_t e = *cursor;
  for (; e < end && count < LIST; e++) { /* the entry behind the last is written, too: the list has room for it */
    list[count * SW_LANES] = l->column[e];
    count += times * l->rate[e] < l->rate[e];
  }
  *cursor = e;
  return count;
}

/* Rows order[first] to order[first + SW_LANES - 1], or to order[last - 1]; their new places into next. dims is a constant. */
SW_INLINE void move_rows(const layout *l, int dims, int epoch, int64_t first, int64_t last, float *next) {
  int64_t cursor[SW_LANES], end[SW_LANES];
  uint64_t even[SW_LANES / 2] = {0}, odd[SW_LANES / 2] = {0};
  int32_t own[SW_LANES], count[SW_LANES], list[(LIST + 1) * SW_LANES] = {0};
  float place[3][SW_LANES];
  for (int lane = 0; lane < SW_LANES; lane++) {
    int64_t at = first + lane, i = at >= last ? -1 : l->order ? l->order[at] : at;
    cursor[lane] = i < 0 ? 0 : l->row_start[i];
    end[lane] = i < 0 ? 0 : l->row_start[i + 1];
    own[lane] = l->d.own ? (int32_t)i : -1;
    (lane % 2 ? odd : even)[lane / 2] = i < 0 ? 0 : l->ids ? l->ids[i] : (uint64_t)i;
    for (int c = 0; c < dims; c++) place[c][lane] = i < 0 ? 0 : l->positions[i * dims + c];
  }
  vf p[3], q[3];
  for (int c = 0; c < dims; c++) p[c] = vf_load(place[c]);
  vq id_even, id_odd, a[4] = {0}, b[4] = {0};
  memcpy(&id_even, even, sizeof id_even);
  memcpy(&id_odd, odd, sizeof id_odd);
  vi self, counts, column;
  memcpy(&self, own, sizeof self);
  const float alpha = (float)(l->d.first_alpha * (1 - (double)epoch / l->d.epochs));
  uint32_t drawn = 0;
  for (int more = 1; more;) {
    int steps = 0;
    more = 0;
    for (int lane = 0; lane < SW_LANES; lane++) {
      count[lane] = list_edges(l, (uint32_t)epoch + 1, cursor + lane, end[lane], list + lane);
      steps = count[lane] > steps ? count[lane] : steps;
      more |= cursor[lane] < end[lane];
    }
    memcpy(&counts, count, sizeof counts);
    for (int s = 0; s < steps; s++) {
      const vf step = vf_select(counts > s, vf_set(alpha), vf_zero());
      memcpy(&column, list + s * SW_LANES, sizeof column);
      gather(l->points, dims, column, q);
      for (int n = 0; n < l->d.pulls; n++) push(l, dims, 1, step, q, p);
      for (int n = 0; n < l->d.negatives; n++, drawn++) {
        if (drawn % 4 == 0) {
          a[0] = id_even, a[1] = id_even >> 32, b[0] = id_odd, b[1] = id_odd >> 32;
          a[2] = b[2] = (vq){0} + (uint64_t)epoch, a[3] = b[3] = (vq){0} + (uint64_t)(drawn / 4);
          sw_philox_lanes(l->d.seed, a, b);
        }
        vi other = (vi)(vq_mul_low(a[drawn % 4], (uint32_t)l->d.points) >> 32 |
                        (vq_mul_low(b[drawn % 4], (uint32_t)l->d.points) & 0xffffffff00000000u));
        gather(l->points, dims, other, q);
        push(l, dims, 0, vf_select(other == self, vf_zero(), step), q, p);
      }
    }
  }
  for (int c = 0; c < dims; c++) vf_store(place[c], p[c]);
  for (int lane = 0; lane < SW_LANES && first + lane < last; lane++)
    for (int c = 0; c < dims; c++) next[lane * dims + c] = place[c][lane];
}
static void move_rows_2(const layout *l, int epoch, int64_t first, int64_t last, float *next) { move_rows(l, 2, epoch, first, last, next); }
static void move_rows_3(const layout *l, int epoch, int64_t first, int64_t last, float *next) { move_rows(l, 3, epoch, first, last, next); }

int SW_CPU(umap_layout_workspace)(sw_stream *stream, const sw_umap_layout_desc *desc, size_t *bytes) {
  if (umap_layout_check(desc)) return -1;
  *bytes = (size_t)((desc->rows / desc->groups + 1) * desc->components) * sizeof(float);
  return 0;
}

int SW_CPU(umap_layout)(sw_stream *stream, const sw_umap_layout_desc *desc, const int64_t *row_start, const int32_t *column,
                        const uint32_t *rate, const uint64_t *ids, const int32_t *order, float *positions, const float *points,
                        void *workspace) {
  if (umap_layout_check(desc)) return -1;
  const layout l = {*desc, row_start, column, order, rate, ids, points, positions, workspace};
  const int dims = desc->components;
#pragma omp parallel num_threads(stream->threads) if (desc->rows >= 4096)
  for (int epoch = desc->first_epoch; epoch < desc->last_epoch; epoch++)
    for (int64_t g = 0; g < desc->groups; g++) {
      const int64_t begin = desc->rows * g / desc->groups, end = desc->rows * (g + 1) / desc->groups;
#pragma omp for schedule(dynamic, 4)
      for (int64_t first = begin; first < end; first += SW_LANES)
        (dims == 2 ? move_rows_2 : move_rows_3)(&l, epoch, first, end, l.next + (first - begin) * dims);
#pragma omp for schedule(static)
      for (int64_t at = begin; at < end; at++)
        memcpy(positions + (order ? order[at] : at) * dims, l.next + (at - begin) * dims, (size_t)dims * sizeof *positions);
    }
  return 0;
}

/* --- ranks --- */

/* A panel of the corpus, TILE_COLUMNS rows, passes by all queries; each thread has a share of the panels, and counts of its own. */
typedef struct {
  const sw_umap_ranks_desc *d;
  const float *queries, *corpus;
  const int64_t *own, *index;
  float *blocks; /* the queries, packed: TILE_ROWS a block */
  float *target; /* [queries, k]: the scores of the pairs, the larger the better */
} ranking;

static int64_t query_blocks(const sw_umap_ranks_desc *d) { return (d->queries + TILE_ROWS - 1) / TILE_ROWS; }
static int64_t block_floats(const sw_umap_ranks_desc *d) { return (int64_t)d->hidden * SW_LANES; }
/* Of a thread: a panel, rows to pack one from, and counts. */
static int64_t thread_bytes(const sw_umap_ranks_desc *d) {
  return ((int64_t)d->hidden * 2 * TILE_COLUMNS * (int64_t)sizeof(float) + d->queries * d->k * (int64_t)sizeof(int32_t) + 63) / 64 * 64;
}
static int64_t shared_bytes(const sw_umap_ranks_desc *d) {
  return ((query_blocks(d) * block_floats(d) + d->queries * d->k) * (int64_t)sizeof(float) + 63) / 64 * 64;
}

/* keys[r][TILE_COLUMNS] of a block of queries and a panel */
static void score_panel(const ranking *r, int64_t block, const float *panel, float (*keys)[TILE_COLUMNS]) {
  const float *queries = r->blocks + block * block_floats(r->d);
  vf sum[TILE_ROWS][2] = {0};
  if (r->d->metric == SW_SQUARED_DISTANCE)
    tile_multiply(queries, panel, TILE_COLUMNS, r->d->hidden, TILE_ROWS, 1, sum);
  else
    tile_multiply(queries, panel, TILE_COLUMNS, r->d->hidden, TILE_ROWS, 0, sum);
  for (int q = 0; q < TILE_ROWS; q++)
    for (int v = 0; v < 2; v++) vf_store(keys[q] + v * SW_LANES, r->d->metric == SW_SQUARED_DISTANCE ? -sum[q][v] : sum[q][v]);
}

static void score_targets(const ranking *r, int64_t query, float *panel, float *rows) {
  const sw_umap_ranks_desc *d = r->d;
  float keys[TILE_ROWS][TILE_COLUMNS];
  for (int first = 0; first < d->k; first += TILE_COLUMNS) {
    int count = d->k - first < TILE_COLUMNS ? d->k - first : TILE_COLUMNS;
    const int64_t *index = r->index + query * d->k + first;
    for (int j = 0; j < count; j++)
      memcpy(rows + (int64_t)j * d->hidden, r->corpus + (index[j] < 0 ? 0 : index[j]) * d->hidden, (size_t)d->hidden * sizeof *rows);
    tile_pack_panel(rows, d->hidden, count, panel);
    score_panel(r, query / TILE_ROWS, panel, keys);
    memcpy(r->target + query * d->k + first, keys[query % TILE_ROWS], (size_t)count * sizeof **keys);
  }
}

static void count_panel(const ranking *r, int64_t first, const float *panel, int32_t *counts) {
  const sw_umap_ranks_desc *d = r->d;
  float keys[TILE_ROWS][TILE_COLUMNS];
  for (int64_t block = 0; block < query_blocks(d); block++) {
    score_panel(r, block, panel, keys);
    for (int64_t q = block * TILE_ROWS; q < (block + 1) * TILE_ROWS && q < d->queries; q++) {
      float *key = keys[q % TILE_ROWS];
      for (int64_t c = d->corpus - first; c < TILE_COLUMNS; c++) key[c] = -INFINITY; /* padding */
      if (r->own[q] >= first && r->own[q] < first + TILE_COLUMNS) key[r->own[q] - first] = -INFINITY;
      for (int j = 0; j < d->k; j++) {
        const vf target = vf_set(r->target[q * d->k + j]);
        for (int v = 0; v < 2; v++) counts[q * d->k + j] += SW_LANES - __builtin_popcount(vf_at_least(target, vf_load(key + v * SW_LANES)));
      }
    }
  }
}

int SW_CPU(umap_ranks_workspace)(sw_stream *stream, const sw_umap_ranks_desc *desc, size_t *bytes) {
  if (umap_ranks_check(desc)) return -1;
  *bytes = (size_t)(shared_bytes(desc) + stream->threads * thread_bytes(desc));
  return 0;
}

int SW_CPU(umap_ranks)(sw_stream *stream, const sw_umap_ranks_desc *desc, const float *queries, const float *corpus, const int64_t *own,
                       const int64_t *index, int32_t *ranks, void *workspace) {
  if (umap_ranks_check(desc)) return -1;
  const int64_t blocks = query_blocks(desc), panels = (desc->corpus + TILE_COLUMNS - 1) / TILE_COLUMNS, pairs = desc->queries * desc->k;
  ranking r = {desc, queries, corpus, own, index, workspace, (float *)workspace + blocks * block_floats(desc)};
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t left = desc->queries - b * TILE_ROWS;
    tile_pack(queries + b * TILE_ROWS * desc->hidden, desc->hidden, left < TILE_ROWS ? left : TILE_ROWS, r.blocks + b * block_floats(desc), SW_LANES);
  }
  for (int64_t i = 0; i < pairs; i++) ranks[i] = index[i] >= 0;
#pragma omp parallel num_threads(stream->threads) if (desc->queries * desc->corpus * desc->hidden >= 1 << 20)
  {
    float *panel = (float *)((char *)workspace + shared_bytes(desc) + omp_get_thread_num() * thread_bytes(desc));
    float *rows = panel + (int64_t)desc->hidden * TILE_COLUMNS;
    int32_t *counts = (int32_t *)(rows + (int64_t)desc->hidden * TILE_COLUMNS);
    memset(counts, 0, (size_t)pairs * sizeof *counts);
#pragma omp for schedule(dynamic, 16)
    for (int64_t q = 0; q < desc->queries; q++) score_targets(&r, q, panel, rows);
#pragma omp for schedule(dynamic, 8)
    for (int64_t p = 0; p < panels; p++) {
      tile_pack_panel(corpus + p * TILE_COLUMNS * desc->hidden, desc->hidden, desc->corpus - p * TILE_COLUMNS, panel);
      count_panel(&r, p * TILE_COLUMNS, panel, counts);
    }
#pragma omp critical
    for (int64_t i = 0; i < pairs; i++) ranks[i] += index[i] >= 0 ? counts[i] : 0; /* whole numbers: in any order */
  }
  return 0;
}
