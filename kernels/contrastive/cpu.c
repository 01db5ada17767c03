/* The in-batch-negatives loss on the CPU.
 *
 * Three passes of one shape: some rows are `own`, and all rows of the other side pass by, in chunks that stay in the level-2 cache and
 * are transposed into panels. A block of TILE_ROWS own rows times STRIP others is a strip of scores.
 *   sums                own queries, others candidates:   the largest score and the sum of e^(s - largest), corrected as they grow
 *   query gradient      own queries, others candidates:   the strip becomes g, and dq += g c
 *   candidate gradient  own candidates, others queries:   dc += g^T q
 * An own row belongs to one thread and meets the others in order, so the bits do not depend on the threads. */
#include "kernels/contrastive/check.h"
#include "kernels/isa.h"
#include "kernels/tile_products.h"

#include <math.h>
#include <omp.h>

sw_contrastive_workspace_fn SW_CPU(contrastive_workspace);
sw_contrastive_fn SW_CPU(contrastive);

enum { STRIP = 4 * TILE_COLUMNS, CHUNK_BYTES = 1 << 19, PARALLEL_FROM = 1 << 18 };

/* Of the queries; in the workspace. g = factor e^(s - largest), less `base` at the positive. */
typedef struct {
  double *sum;
  float *largest, *picked, *factor, *base;
} rows_state;
typedef enum { SUMS, QUERY_GRADIENT, CANDIDATE_GRADIENT } pass;
typedef struct {
  const sw_contrastive_desc *d;
  const int32_t *positive;
  rows_state rows;
  const float *own, *other;
  int64_t own_count, other_count;
  float *out; /* gradient of own */
} job;
typedef struct { /* of one thread */
  float *panels, *tails, *block, *strip, *columns;
} scratch;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Rows of a chunk: whole strips. */
static int64_t chunk_of(const sw_contrastive_desc *d) {
  int64_t most = CHUNK_BYTES / ((int64_t)d->hidden * 4) / STRIP * STRIP, all = round_up(d->rows > d->candidates ? d->rows : d->candidates, STRIP);
  return smaller(most < STRIP ? STRIP : most, all);
}
static int64_t thread_floats(const sw_contrastive_desc *d) {
  return round_up(chunk_of(d) * (d->hidden + TILE_COLUMNS) + SW_LANES * d->hidden + 2 * SW_LANES * STRIP, 16);
}
static int64_t state_bytes(const sw_contrastive_desc *d) { return round_up(d->rows * (int64_t)(sizeof(double) + 4 * sizeof(float)), 64); }
static scratch scratch_of(const sw_contrastive_desc *d, float *own) {
  scratch s = {.panels = own};
  s.tails = s.panels + chunk_of(d) * d->hidden;
  s.block = s.tails + chunk_of(d) * TILE_COLUMNS;
  s.strip = s.block + SW_LANES * d->hidden;
  s.columns = s.strip + SW_LANES * STRIP;
  return s;
}

int SW_CPU(contrastive_workspace)(sw_stream *stream, const sw_contrastive_desc *desc, size_t *bytes) {
  if (contrastive_check(desc)) return -1;
  *bytes = (size_t)(state_bytes(desc) + stream->threads * thread_floats(desc) * 4);
  return 0;
}

/* The scores of a block of own rows with up to STRIP others: strip[r * STRIP + j]. */
static void multiply_strip(const job *j, const scratch *s, const float *panels, int64_t n) {
  for (int64_t at = 0; at < n; at += TILE_COLUMNS) {
    vf sum[TILE_ROWS][2] = {0};
    tile_multiply(s->block, panels + at * j->d->hidden, TILE_COLUMNS, j->d->hidden, TILE_ROWS, 0, sum);
    for (int r = 0; r < TILE_ROWS; r++)
      for (int v = 0; v < 2; v++) vf_store(s->strip + r * STRIP + at + v * SW_LANES, sum[r][v] * j->d->similarity_scale);
  }
}

/* Adds a strip's scores to what is known of the query. */
static void add_scores(const job *j, int64_t query, const float *score, int64_t first, int n) {
  const rows_state *rows = &j->rows;
  int64_t at = j->positive[query] - first;
  if (at >= 0 && at < n) rows->picked[query] = score[at];
  float before = rows->largest[query], largest = before;
  vf top = vf_set(before), part = vf_zero();
  int i = 0;
  for (; i + SW_LANES <= n; i += SW_LANES) top = vf_max(top, vf_load(score + i));
  largest = vf_max_lane(top);
  for (; i < n; i++) largest = score[i] > largest ? score[i] : largest;
  for (i = 0; i < n; i += SW_LANES) {
    vf e = vf_exp(vf_load(score + i) - largest); /* the strip has room beyond n */
    if (n - i < SW_LANES) {
      vf kept = vf_zero();
      for (int l = 0; l < n - i; l++) kept[l] = e[l];
      e = kept;
    }
    part += e;
  }
  double sum = rows->sum[query];
  if (largest != before) sum *= exp((double)before - largest);
  rows->sum[query] = sum + (double)vf_sum(part);
  rows->largest[query] = largest;
}

/* Scores to g, for `count` own rows from `own` on and n others from `first` on. */
static void scores_to_gradient(const job *j, pass p, const scratch *s, int64_t own, int count, int64_t first, int n) {
  const rows_state *rows = &j->rows;
  for (int r = 0; r < count; r++)
    for (int i = 0; i < n; i += SW_LANES) {
      float *g = s->strip + r * STRIP + i;
      int here = n - i < SW_LANES ? n - i : SW_LANES;
      vf largest, factor;
      if (p == QUERY_GRADIENT)
        largest = vf_set(rows->largest[own + r]), factor = vf_set(rows->factor[own + r]);
      else
        largest = vf_load_n(rows->largest + first + i, here), factor = vf_load_n(rows->factor + first + i, here);
      vf_store(g, vf_exp(vf_load(g) - largest) * factor);
    }
  if (p == QUERY_GRADIENT) {
    for (int r = 0; r < count; r++) {
      int64_t at = j->positive[own + r] - first;
      if (at >= 0 && at < n) s->strip[r * STRIP + at] -= rows->base[own + r];
    }
  } else {
    for (int i = 0; i < n; i++) {
      int64_t r = j->positive[first + i] - own;
      if (r >= 0 && r < count) s->strip[r * STRIP + i] -= rows->base[first + i];
    }
  }
}

/* TILE_COLUMNS columns (n of them there) of `count` rows of the gradient += g b, or = it. */
static void add_gradient(const float *g, const float *b, int64_t b_stride, int depth, int add, float *out, int64_t stride, int count, int n) {
  vf sum[TILE_ROWS][2] = {0};
  for (int r = 0; r < TILE_ROWS; r++)
    for (int v = 0; v < 2; v++)
      if (add && r < count && n > v * SW_LANES)
        sum[r][v] = vf_load_n(out + r * stride + v * SW_LANES, n - v * SW_LANES < SW_LANES ? n - v * SW_LANES : SW_LANES);
  tile_multiply(g, b, b_stride, depth, TILE_ROWS, 0, sum);
  for (int r = 0; r < TILE_ROWS; r++)
    for (int v = 0; v < 2; v++)
      if (r < count && n > v * SW_LANES)
        vf_store_n(out + r * stride + v * SW_LANES, sum[r][v], n - v * SW_LANES < SW_LANES ? n - v * SW_LANES : SW_LANES);
}

/* The own rows [from, to) of a pass. */
static void run_rows(const job *j, pass p, const scratch *s, int64_t from, int64_t to) {
  const int hidden = j->d->hidden, tail = hidden % TILE_COLUMNS;
  const int64_t chunk = chunk_of(j->d);
  for (int64_t start = 0; start < j->other_count; start += chunk) {
    int64_t end = smaller(start + chunk, j->other_count);
    for (int64_t row = start; row < end; row += TILE_COLUMNS)
      tile_pack_panel(j->other + row * hidden, hidden, end - row, s->panels + (row - start) * hidden);
    if (p != SUMS && tail)
      for (int64_t row = start; row < end; row++) {
        float *t = s->tails + (row - start) * TILE_COLUMNS;
        memset(t, 0, TILE_COLUMNS * sizeof *t);
        memcpy(t, j->other + row * hidden + hidden - tail, (size_t)tail * sizeof *t);
      }
    for (int64_t own = from; own < to; own += TILE_ROWS) {
      int count = (int)smaller(to - own, TILE_ROWS);
      tile_pack(j->own + own * hidden, hidden, count, s->block, SW_LANES);
      for (int64_t first = start; first < end; first += STRIP) {
        int n = (int)smaller(end - first, STRIP);
        multiply_strip(j, s, s->panels + (first - start) * hidden, n);
        if (p == SUMS) {
          for (int r = 0; r < count; r++) add_scores(j, own + r, s->strip + r * STRIP, first, n);
          continue;
        }
        scores_to_gradient(j, p, s, own, count, first, n);
        tile_pack(s->strip, STRIP, count, s->columns, SW_LANES);
        for (int h = 0; h < hidden; h += TILE_COLUMNS) {
          int whole = h + TILE_COLUMNS <= hidden;
          add_gradient(s->columns, whole ? j->other + first * hidden + h : s->tails + (first - start) * TILE_COLUMNS,
                       whole ? hidden : TILE_COLUMNS, n, first > 0, j->out + own * hidden + h, hidden, count, whole ? TILE_COLUMNS : tail);
        }
      }
    }
  }
}

static void run_pass(sw_stream *stream, const job *j, pass p, float *memory) {
  int64_t floats = thread_floats(j->d), blocks = (j->own_count + TILE_ROWS - 1) / TILE_ROWS, groups = smaller(blocks, 2 * stream->threads);
#pragma omp parallel num_threads(stream->threads) if (j->own_count * j->other_count * j->d->hidden >= PARALLEL_FROM)
  {
    scratch s = scratch_of(j->d, memory + omp_get_thread_num() * floats);
#pragma omp for schedule(dynamic, 1)
    for (int64_t g = 0; g < groups; g++)
      run_rows(j, p, &s, blocks * g / groups * TILE_ROWS, smaller(blocks * (g + 1) / groups * TILE_ROWS, j->own_count));
  }
}

int SW_CPU(contrastive)(sw_stream *stream, const sw_contrastive_desc *desc, const float *queries, const float *candidates,
                        const int32_t *positive, const float *row_weights, double *loss, float *dqueries, float *dcandidates,
                        void *workspace) {
  const int64_t rows = desc->rows, candidate_count = desc->candidates;
  if (contrastive_check(desc)) return -1;
  for (int64_t i = 0; i < rows; i++)
    if (positive[i] < 0 || positive[i] >= candidate_count)
      return sw_fail("contrastive: row %lld has positive %d, outside the %lld candidates", (long long)i, positive[i],
                     (long long)candidate_count);
  float *state = (float *)((double *)workspace + rows), *memory = (float *)((char *)workspace + state_bytes(desc));
  job j = {.d = desc, .positive = positive, .own = queries, .other = candidates, .own_count = rows, .other_count = candidate_count,
           .rows = {workspace, state, state + rows, state + 2 * rows, state + 3 * rows}};
  for (int64_t i = 0; i < rows; i++) j.rows.largest[i] = -INFINITY, j.rows.sum[i] = 0;
  run_pass(stream, &j, SUMS, memory);
  double total = *loss;
  for (int64_t i = 0; i < rows; i++) {
    double weight = row_weights ? row_weights[i] : 1, base = weight * desc->scale * desc->similarity_scale;
    total += weight * ((double)j.rows.largest[i] - j.rows.picked[i] + log(j.rows.sum[i]));
    j.rows.base[i] = (float)base;
    j.rows.factor[i] = (float)(base / j.rows.sum[i]);
  }
  *loss = total;
  if (dqueries) {
    j.out = dqueries;
    run_pass(stream, &j, QUERY_GRADIENT, memory);
  }
  if (dcandidates) {
    if (!rows) memset(dcandidates, 0, (size_t)(candidate_count * desc->hidden) * sizeof *dcandidates);
    j.own = candidates, j.own_count = candidate_count, j.other = queries, j.other_count = rows, j.out = dcandidates;
    run_pass(stream, &j, CANDIDATE_GRADIENT, memory);
  }
  return 0;
}
