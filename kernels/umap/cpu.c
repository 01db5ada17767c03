/* The steps of UMAP on the CPU: see umap.h.
 *
 * In the layout an active edge is a lane of vectors: those of a colour share no point. In placing a row is a lane,
 * which goes through its active edges. Nothing depends on what is in the lanes beside. */
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
sw_umap_place_fn SW_CPU(umap_place);
sw_umap_ranks_workspace_fn SW_CPU(umap_ranks_workspace);
sw_umap_ranks_fn SW_CPU(umap_ranks);

enum { STEPS = 64 }; /* of the bisection */

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

int SW_CPU(umap_multiply)(sw_stream *stream, const sw_umap_multiply_desc *desc, const int64_t *row_start,
                          const int32_t *column, const float *value, const float *x, float *y) {
  if (umap_multiply_check(desc)) return -1;
  const sw_umap_multiply_desc d = *desc;
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 256) if (d.rows >= 1024)
  for (int64_t i = 0; i < d.rows; i++) {
    v8 sum = {0};
    for (int64_t e = row_start[i]; e < row_start[i + 1]; e++)
      sum += value[e] * v8_load(x + (int64_t)column[e] * SW_UMAP_BLOCK);
    v8 result = d.scale * sum + d.shift * v8_load(x + i * SW_UMAP_BLOCK);
    if (d.back != 0) result += d.back * v8_load(y + i * SW_UMAP_BLOCK);
    memcpy(y + i * SW_UMAP_BLOCK, &result, sizeof result);
  }
  return 0;
}

/* --- layout and placing --- */

/* x^b of x from 1e-30 to 1e30, b about 1, to some 1e-6 of it: 2^(b log2 x). The polynomials, fitted to the smallest
 * relative error, are those of log2(1 + f) / f from sqrt(1/2) - 1 to sqrt(2) - 1 and of 2^r from -1/2 to 1/2; in pairs,
 * because what counts here is how long a result takes. */
SW_INLINE vf power_of(vf x, float b) {
  const vi n = (vi)((vu)x - 0x3f3504f3u) >> 23; /* x = 2^n (1 + f) */
  const vf f = (vf)((vu)x - ((vu)n << 23)) - 1.0f, f2 = f * f;
  const vf low = (1.44269496f + -0.721352788f * f) + (0.480923241f + -0.360239637f * f) * f2;
  const vf high = (0.287098728f + -0.248876932f * f) + (0.234042166f + -0.145811211f * f) * f2;
  const vf y = (__builtin_convertvector(n, vf) + (low + high * (f2 * f2)) * f) * b;
  const vf whole = y + 12582912.0f, r = y - (whole - 12582912.0f),
           r2 = r * r; /* 1.5 * 2^23: rounds to the nearest whole number */
  const vf p = (1.00000007f + 0.693146967f * r) +
               ((0.240221197f + 0.0555071328f * r) + (0.00967554132f + 0.00132764707f * r) * r2) * r2;
  return (vf)((vu)p + ((vu)whole << 23));
}

/* The step of p from q, by an attraction or a repulsion. */
SW_INLINE void force(const sw_umap_descent *descent, int dims, int attract, vf alpha, const vf *p, const vf *q,
                     vf *by) {
  const float a = descent->a, b = descent->b;
  vf d[3], squares = vf_zero();
  for (int c = 0; c < dims; c++) {
    d[c] = p[c] - q[c];
    squares += d[c] * d[c];
  }
  squares = vf_max(squares, vf_set(1e-30f)); /* where the points are one, d = 0 and there is no force */
  vf power = power_of(squares, b), below = power * a + 1.0f;
  vf factor = attract ? power * (-2 * a * b) / (squares * below) : 2 * b / ((squares + 0.001f) * below);
  for (int c = 0; c < dims; c++) by[c] = alpha * vf_max(vf_min(factor * d[c], vf_set(4)), vf_set(-4));
}

SW_INLINE void gather(const float *points, int dims, vi index, vf *q) {
  if (dims == 2) {
    vf_gather_pairs(points, index, q, q + 1);
    return;
  }
  for (int c = 0; c < dims; c++) q[c] = vf_gather(points, (vi)((vu)index * (uint32_t)dims + (uint32_t)c));
}
/* count <= SW_LANES */
SW_INLINE void scatter(float *points, int dims, vi index, const vf *p, int count) {
  if (dims == 2) {
    vf_scatter_pairs(points, index, p[0], p[1], count);
    return;
  }
  for (int lane = 0; lane < count; lane++)
    for (int c = 0; c < dims; c++) points[(int64_t)index[lane] * dims + c] = p[c][lane];
}

static float alpha_of(const sw_umap_descent *d, int epoch) {
  return (float)(d->first_alpha * (1 - (double)epoch / d->epochs));
}

/* Random numbers of SW_LANES events: the ids of even and of odd lanes, and the last words drawn for them. */
typedef struct {
  vq id_even, id_odd, even[5], odd[5];
} draws;
/* The n-th negative of each lane; n = 0, 1, 2 ... in turn. */
SW_INLINE vi draw(const sw_umap_descent *d, int epoch, uint32_t n, draws *w) {
  const uint32_t which = n % 5;
  if (which == 0) {
    w->even[0] = w->id_even, w->even[1] = w->id_even >> 32, w->odd[0] = w->id_odd, w->odd[1] = w->id_odd >> 32;
    w->even[2] = w->odd[2] = (vq){0} + (uint64_t)epoch, w->even[3] = w->odd[3] = (vq){0} + (uint64_t)(n / 5);
    sw_philox_lanes(d->seed, w->even, w->odd);
    w->even[4] = w->even[0] + w->even[1] + w->even[2] + w->even[3],
    w->odd[4] = w->odd[0] + w->odd[1] + w->odd[2] + w->odd[3];
  }
  return (vi)(vq_mul_low(w->even[which], (uint32_t)d->points) >> 32 |
              (vq_mul_low(w->odd[which], (uint32_t)d->points) & 0xffffffff00000000u));
}
/* p is pushed away from points, each lane's own left out (-1: it is none of them), where its alpha is not 0. */
SW_INLINE void repel(const sw_umap_descent *d, int dims, int epoch, uint32_t n, draws *w, const float *points, vi own,
                     vf alpha, vf *p) {
  const vi other = draw(d, epoch, n, w);
  vf q[3], by[3];
  gather(points, dims, other, q);
  force(d, dims, 0, vf_select(other == own, vf_zero(), alpha), p, q, by);
  for (int c = 0; c < dims; c++) p[c] += by[c];
}

enum {
  EDGES = 512, /* of a colour, that a thread takes at a time */
  WIDE = 2,
  FEW = 512 /* edges of a colour, and fewer: not worth sharing */
};
typedef struct {
  const sw_umap_descent *d;
  const int32_t *end[2]; /* [direction]: where the edges begin */
  const uint32_t *rate;
  const float *before;
  float *positions;
} layout;

/* `count` active edges, in `wide` vectors that take turns: a force is one chain of dependent instructions. dims and
 * wide are constants. */
SW_INLINE void move_lanes(const layout *l, int dims, int wide, int epoch, int direction, int64_t first,
                          const int32_t *active, int count) {
  const vf alpha = vf_set(alpha_of(l->d, epoch));
  vi head[WIDE], tail[WIDE];
  vf p[WIDE][3], q[WIDE][3], by[3];
  draws w[WIDE];
  for (int v = 0; v < wide; v++) {
    vi e;
    memcpy(&e, active + v * SW_LANES, sizeof e);
    w[v].id_even = 2 * (((vq)e & 0xffffffffu) + (uint64_t)first) + (uint64_t)direction;
    w[v].id_odd = 2 * (((vq)e >> 32) + (uint64_t)first) + (uint64_t)direction;
    head[v] = vi_gather(l->end[direction] + first, e);
    tail[v] = vi_gather(l->end[!direction] + first, e);
    gather(l->positions, dims, head[v], p[v]);
    gather(l->positions, dims, tail[v], q[v]);
  }
  for (int v = 0; v < wide; v++) {
    force(l->d, dims, 1, alpha, p[v], q[v], by);
    for (int c = 0; c < dims; c++) p[v][c] += by[c], q[v][c] -= by[c];
  }
  for (uint32_t n = 0; n < (uint32_t)l->d->negatives; n++)
    for (int v = 0; v < wide; v++) repel(l->d, dims, epoch, n, &w[v], l->before, head[v], alpha, p[v]);
  for (int v = 0; v < wide; v++) {
    const int left = count - v * SW_LANES, lanes = left < SW_LANES ? left : SW_LANES;
    scatter(l->positions, dims, head[v], p[v], lanes);
    scatter(l->positions, dims, tail[v], q[v], lanes);
  }
}
/* Edges of a colour, EDGES at most. */
SW_INLINE void move_edges(const layout *l, int dims, int epoch, int direction, int64_t first, int64_t last) {
  const uint32_t times = (uint32_t)epoch + 1, *rate = l->rate + first;
  const int edges = (int)(last - first);
  int32_t active[EDGES + WIDE * SW_LANES];
  int count = 0, e = 0;
  vi lanes;
  for (int lane = 0; lane < SW_LANES; lane++) lanes[lane] = lane;
  for (; e + SW_LANES <= edges; e += SW_LANES) {
    vu r;
    memcpy(&r, rate + e, sizeof r);
    count += vi_compress_below(active + count, lanes + e, r * times, r);
  }
  for (; e < edges; e++) {
    active[count] = e;
    count += times * rate[e] < rate[e];
  }
  for (int lane = 0; lane < WIDE * SW_LANES; lane++)
    active[count + lane] = 0; /* idle lanes compute what nobody keeps */
  for (int at = 0; at < count;) {
    if (count - at > (WIDE - 1) * SW_LANES) {
      move_lanes(l, dims, WIDE, epoch, direction, first, active + at, count - at);
      at += WIDE * SW_LANES;
    } else if (count - at > SW_LANES) {
      move_lanes(l, dims, 2, epoch, direction, first, active + at, count - at);
      at += 2 * SW_LANES;
    } else {
      move_lanes(l, dims, 1, epoch, direction, first, active + at, count - at);
      at += SW_LANES;
    }
  }
}
static void move(const layout *l, int epoch, int direction, int64_t first, int64_t last) {
  if (l->d->components == 2)
    move_edges(l, 2, epoch, direction, first, last);
  else
    move_edges(l, 3, epoch, direction, first, last);
}

int SW_CPU(umap_layout_workspace)(sw_stream *stream, const sw_umap_layout_desc *desc, size_t *bytes) {
  if (umap_layout_check(desc)) return -1;
  *bytes = (size_t)(desc->descent.points * desc->descent.components) * sizeof(float);
  return 0;
}

/* By all threads together. */
static void run_epoch(const layout *l, const sw_umap_layout_desc *desc, int epoch, float *before) {
  const int64_t *start = desc->color_start, numbers = desc->descent.points * desc->descent.components;
#pragma omp for schedule(static)
  for (int64_t i = 0; i < numbers; i++) before[i] = l->positions[i];
  for (int direction = 0; direction < 2; direction++)
    for (int32_t color = 0, next; color < desc->colors; color = next) {
      next = color + 1;
      if (start[next] - start[color] > FEW) {
#pragma omp for schedule(static)
        for (int64_t first = start[color]; first < start[next]; first += EDGES)
          move(l, epoch, direction, first, first + EDGES < start[next] ? first + EDGES : start[next]);
        continue;
      }
      while (next < desc->colors && start[next + 1] - start[next] <= FEW) next++;
#pragma omp single
      for (int32_t c = color; c < next; c++)
        for (int64_t first = start[c]; first < start[c + 1]; first += EDGES)
          move(l, epoch, direction, first, first + EDGES < start[c + 1] ? first + EDGES : start[c + 1]);
    }
}

int SW_CPU(umap_layout)(sw_stream *stream, const sw_umap_layout_desc *desc, const int32_t *head, const int32_t *tail,
                        const uint32_t *rate, float *positions, void *workspace) {
  if (umap_layout_check(desc)) return -1;
  const layout l = {&desc->descent, {head, tail}, rate, workspace, positions};
#pragma omp parallel num_threads(stream->threads) if (desc->colors && desc->color_start[desc->colors] >= 4096)
  for (int epoch = desc->descent.first_epoch; epoch < desc->descent.last_epoch; epoch++)
    run_epoch(&l, desc, epoch, workspace);
  return 0;
}

enum { LIST = 64 }; /* active edges of a row that are listed at a time */
typedef struct {
  const sw_umap_place_desc *desc;
  const int64_t *row_start;
  const int32_t *column;
  const uint32_t *rate;
  const uint64_t *ids;
  const float *points;
  float *positions;
} placing;

/* Up to LIST active edges of a lane's row; `cursor` stands behind the last one looked at. */
static int list_edges(const placing *l, uint32_t times, int64_t *cursor, int64_t end, int32_t *list) {
  int count = 0;
  int64_t e = *cursor;
  for (; e < end && count < LIST; e++) { /* the entry behind the last is written, too: the list has room for it */
    list[count * SW_LANES] = l->column[e];
    count += times * l->rate[e] < l->rate[e];
  }
  *cursor = e;
  return count;
}

/* An epoch of rows first to first + SW_LANES - 1, or fewer. dims is a constant. */
SW_INLINE void place_rows(const placing *l, int dims, int epoch, int64_t first) {
  const sw_umap_descent *d = &l->desc->descent;
  int64_t cursor[SW_LANES], end[SW_LANES];
  uint64_t even[SW_LANES / 2] = {0}, odd[SW_LANES / 2] = {0};
  int32_t count[SW_LANES], list[(LIST + 1) * SW_LANES] = {0};
  float place[3][SW_LANES] = {{0}};
  for (int lane = 0; lane < SW_LANES; lane++) {
    const int64_t i = first + lane;
    cursor[lane] = end[lane] = 0;
    if (i >= l->desc->rows) continue;
    cursor[lane] = l->row_start[i], end[lane] = l->row_start[i + 1];
    (lane % 2 ? odd : even)[lane / 2] = l->ids[i];
    for (int c = 0; c < dims; c++) place[c][lane] = l->positions[i * dims + c];
  }
  vf p[3], q[3], by[3];
  vi counts, column;
  draws w;
  for (int c = 0; c < dims; c++) p[c] = vf_load(place[c]);
  memcpy(&w.id_even, even, sizeof even);
  memcpy(&w.id_odd, odd, sizeof odd);
  const float alpha = alpha_of(d, epoch);
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
      force(d, dims, 1, step, p, q, by);
      for (int c = 0; c < dims; c++) p[c] += by[c];
      for (int n = 0; n < d->negatives; n++, drawn++) repel(d, dims, epoch, drawn, &w, l->points, (vi){0} - 1, step, p);
    }
  }
  for (int c = 0; c < dims; c++) vf_store(place[c], p[c]);
  for (int lane = 0; lane < SW_LANES && first + lane < l->desc->rows; lane++)
    for (int c = 0; c < dims; c++) l->positions[(first + lane) * dims + c] = place[c][lane];
}
static void place_rows_2(const placing *l, int epoch, int64_t first) {
  place_rows(l, 2, epoch, first);
}
static void place_rows_3(const placing *l, int epoch, int64_t first) {
  place_rows(l, 3, epoch, first);
}

int SW_CPU(umap_place)(sw_stream *stream, const sw_umap_place_desc *desc, const int64_t *row_start,
                       const int32_t *column, const uint32_t *rate, const uint64_t *ids, float *positions,
                       const float *points) {
  if (umap_place_check(desc)) return -1;
  const placing l = {desc, row_start, column, rate, ids, points, positions};
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 4) if (desc->rows >= 1024)
  for (int64_t first = 0; first < desc->rows; first += SW_LANES)
    for (int epoch = desc->descent.first_epoch; epoch < desc->descent.last_epoch; epoch++)
      (desc->descent.components == 2 ? place_rows_2 : place_rows_3)(&l, epoch, first);
  return 0;
}

/* --- ranks --- */

/* A panel of the corpus, TILE_COLUMNS rows, passes by all queries; each thread has a share of the panels, and counts of
 * its own. */
typedef struct {
  const sw_umap_ranks_desc *d;
  const float *queries, *corpus;
  const int64_t *own, *index;
  float *blocks; /* the queries, packed: TILE_ROWS a block */
  float *target; /* [queries, k]: the scores of the pairs, the larger the better */
} ranking;

static int64_t query_blocks(const sw_umap_ranks_desc *d) {
  return (d->queries + TILE_ROWS - 1) / TILE_ROWS;
}
static int64_t block_floats(const sw_umap_ranks_desc *d) {
  return (int64_t)d->hidden * SW_LANES;
}
/* Of a thread: a panel, rows to pack one from, and counts. */
static int64_t thread_bytes(const sw_umap_ranks_desc *d) {
  return ((int64_t)d->hidden * 2 * TILE_COLUMNS * (int64_t)sizeof(float) +
          d->queries * d->k * (int64_t)sizeof(int32_t) + 63) /
         64 * 64;
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
    for (int v = 0; v < 2; v++)
      vf_store(keys[q] + v * SW_LANES, r->d->metric == SW_SQUARED_DISTANCE ? -sum[q][v] : sum[q][v]);
}

static void score_targets(const ranking *r, int64_t query, float *panel, float *rows) {
  const sw_umap_ranks_desc *d = r->d;
  float keys[TILE_ROWS][TILE_COLUMNS];
  for (int first = 0; first < d->k; first += TILE_COLUMNS) {
    int count = d->k - first < TILE_COLUMNS ? d->k - first : TILE_COLUMNS;
    const int64_t *index = r->index + query * d->k + first;
    for (int j = 0; j < count; j++)
      memcpy(rows + (int64_t)j * d->hidden, r->corpus + (index[j] < 0 ? 0 : index[j]) * d->hidden,
             (size_t)d->hidden * sizeof *rows);
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
        for (int v = 0; v < 2; v++)
          counts[q * d->k + j] += SW_LANES - __builtin_popcount(vf_at_least(target, vf_load(key + v * SW_LANES)));
      }
    }
  }
}

int SW_CPU(umap_ranks_workspace)(sw_stream *stream, const sw_umap_ranks_desc *desc, size_t *bytes) {
  if (umap_ranks_check(desc)) return -1;
  *bytes = (size_t)(shared_bytes(desc) + stream->threads * thread_bytes(desc));
  return 0;
}

int SW_CPU(umap_ranks)(sw_stream *stream, const sw_umap_ranks_desc *desc, const float *queries, const float *corpus,
                       const int64_t *own, const int64_t *index, int32_t *ranks, void *workspace) {
  if (umap_ranks_check(desc)) return -1;
  const int64_t blocks = query_blocks(desc), panels = (desc->corpus + TILE_COLUMNS - 1) / TILE_COLUMNS,
                pairs = desc->queries * desc->k;
  ranking r = {desc, queries, corpus, own, index, workspace, (float *)workspace + blocks * block_floats(desc)};
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t left = desc->queries - b * TILE_ROWS;
    tile_pack(queries + b * TILE_ROWS * desc->hidden, desc->hidden, left < TILE_ROWS ? left : TILE_ROWS,
              r.blocks + b * block_floats(desc), SW_LANES);
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
