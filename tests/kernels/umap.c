/* The steps of UMAP against the double reference. */
#include "kernels/umap/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

/* A random graph: row i has up to `most` edges, one in ten rows has none, row 1 has very many. */
typedef struct {
  int64_t rows, points, edges;
  int64_t *row_start;
  int32_t *column;
  kt_tensor *on_device;
} graph;
static graph make_graph(kt *t, int64_t rows, int64_t points, int most, int many) {
  graph g = {.rows = rows, .points = points};
  g.row_start = (int64_t *)kt_doubles(t, rows + 1);
  g.column = (int32_t *)kt_doubles(t, rows * most + many + 1);
  for (int64_t i = 0; i < rows; i++) {
    const int count = i == 1 ? many : i % 10 == 7 ? 0 : kt_below(t, most + 1);
    for (int n = 0; n < count; n++) g.column[g.edges++] = kt_below(t, (int)points);
    g.row_start[i + 1] = g.edges;
  }
  g.on_device = kt_bytes(t, "row_start", (size_t)(rows + 1) * sizeof *g.row_start);
  if (t->device->copy_in(&t->stream, g.on_device->data, g.row_start, g.on_device->bytes)) exit(1);
  return g;
}
static void *on_device(kt *t, const char *name, const void *host, size_t bytes) {
  kt_tensor *x = kt_bytes(t, name, bytes);
  if (bytes && t->device->copy_in(&t->stream, x->data, host, bytes)) exit(1);
  return x->data;
}

/* --- weights --- */

typedef struct {
  sw_umap_weights_desc desc;
  kt_tensor *distances, *weights;
} weights_job;
static void run_weights(kt *t, void *argument) {
  weights_job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, umap_weights, &j->desc, j->distances->data, j->weights->data));
}
static void weights(kt *t, int64_t rows, int k, int nearest, double scale) {
  kt_case(t, "weights, %lld x %d%s, scale %g", (long long)rows, k, nearest ? ", from the nearest" : "", scale);
  weights_job j = {.desc = {rows, k, nearest, (float)log2(k + nearest)}};
  j.distances = kt_new(t, "distances", SW_F32, rows * k);
  j.weights = kt_new(t, "weights", SW_F32, rows * k);
  for (int64_t i = 0; i < rows; i++) {
    double at = scale * (0.1 + kt_random(t));
    for (int n = 0; n < k; n++) {
      double *d = j.distances->host + i * k + n;
      *d = i % 7 == 3 ? 0 : i % 7 == 4 && n < k / 2 ? 0 : at; /* all equal; many equal */
      if (i % 7 == 5 && n >= k / 2) *d = INFINITY;            /* fewer neighbours */
      at += scale * 0.1 * kt_random(t);
    }
  }
  kt_upload(t, j.distances);
  double *want = kt_doubles(t, rows * k);
  sw_umap_weights_reference(&j.desc, j.distances->host, want);
  kt_with_threads(t, "weights", run_weights, &j, &j.weights, 1);
  kt_compare(t, "weights", j.weights, want, 2e-4, 2e-5); /* the bisection ends within 1e-5 of the sum */
  kt_tensor *alone = j.weights;
  j.weights = j.distances; /* in place */
  run_weights(t, &j);
  kt_same_bits(t, "in place", j.distances, alone);
  kt_clear(t);
}

/* --- sparse products --- */

typedef struct {
  sw_umap_multiply_desc desc;
  graph g;
  int32_t *column;
  kt_tensor *value, *x, *y;
} multiply_job;
static void run_multiply(kt *t, void *argument) {
  multiply_job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, umap_multiply, &j->desc, j->g.on_device->data, j->column, j->value->data, j->x->data,
                  j->y->data));
}
static void multiply(kt *t, int64_t rows, float back, int integers) {
  kt_case(t, "multiply, %lld rows, back %g%s", (long long)rows, back, integers ? ", integers" : "");
  multiply_job j = {.desc = {rows, integers ? 2 : 1.7f, integers ? -1 : 0.3f, back},
                    .g = make_graph(t, rows, rows, 20, 200)};
  j.column = on_device(t, "column", j.g.column, (size_t)j.g.edges * sizeof *j.g.column);
  j.value = kt_new(t, "value", SW_F32, j.g.edges);
  j.x = kt_new(t, "x", SW_F32, rows * SW_UMAP_BLOCK);
  j.y = kt_new(t, "y", SW_F32, rows * SW_UMAP_BLOCK);
  kt_tensor *const all[] = {j.value, j.x, j.y};
  for (int n = 0; n < (back != 0 ? 3 : 2); n++) integers ? kt_integers(t, all[n], -3, 3) : kt_normal(t, all[n], 0, 1);
  double *want = kt_doubles(t, j.y->count);
  if (back != 0) memcpy(want, j.y->host, (size_t)j.y->count * sizeof *want); /* otherwise y is NaN, and not read */
  sw_umap_multiply_reference(&j.desc, j.g.row_start, j.g.column, j.value->host, j.x->host, want);
  kt_with_threads(t, "multiply", run_multiply, &j, &j.y, 1);
  kt_check(t, rows < 3 || kt_largest(want, j.y->count) > 0, "the result is all zero");
  kt_compare(t, "y", j.y, want, integers ? 0 : 1e-5, integers ? 0 : 1e-4);
  kt_clear(t);
}

/* --- layout --- */

typedef struct {
  sw_umap_layout_desc desc;
  int32_t *head, *tail;
  uint32_t *rate;
  kt_tensor *positions, *workspace;
  int32_t *host_head, *host_tail;
  uint32_t *host_rate;
} layout_job;
static void run_layout(kt *t, void *argument) {
  layout_job *j = argument;
  kt_ok(t,
        SW_RUN(&t->stream, umap_layout, &j->desc, j->head, j->tail, j->rate, j->positions->data, j->workspace->data));
}
/* Colours are random pairings: of all points, of some, of two, of none. */
static void make_layout(kt *t, layout_job *j, int colors, double largest_rate) {
  const int64_t points = j->desc.descent.points;
  int64_t *start = (int64_t *)kt_doubles(t, colors + 1);
  int32_t *order = (int32_t *)kt_doubles(t, points);
  j->host_head = (int32_t *)kt_doubles(t, colors * points / 2 + 1);
  j->host_tail = (int32_t *)kt_doubles(t, colors * points / 2 + 1);
  j->host_rate = (uint32_t *)kt_doubles(t, colors * points / 2 + 1);
  for (int64_t i = 0; i < points; i++) order[i] = (int32_t)i;
  int64_t edges = 0;
  for (int c = 0; c < colors; c++) {
    for (int64_t i = points - 1; i > 0; i--) {
      const int64_t other = kt_below(t, (int)i + 1);
      const int32_t kept = order[i];
      order[i] = order[other], order[other] = kept;
    }
    const int64_t pairs = c % 5 == 4 ? 0 : c % 5 == 2 ? points > 1 : c % 5 == 3 ? points / 6 : points / 2;
    for (int64_t n = 0; n < pairs; n++, edges++) {
      j->host_head[edges] = order[2 * n], j->host_tail[edges] = order[2 * n + 1];
      j->host_rate[edges] = kt_below(t, 3) ? (uint32_t)(kt_random(t) * largest_rate * 0x1p32) : 0xffffffffu;
    }
    start[c + 1] = edges;
  }
  j->desc.colors = colors, j->desc.color_start = start;
  j->head = on_device(t, "head", j->host_head, (size_t)edges * sizeof *j->head);
  j->tail = on_device(t, "tail", j->host_tail, (size_t)edges * sizeof *j->tail);
  j->rate = on_device(t, "rate", j->host_rate, (size_t)edges * sizeof *j->rate);
  j->positions = kt_new(t, "positions", SW_F32, points * j->desc.descent.components);
  kt_normal(t, j->positions, 0, 3);
  size_t bytes;
  kt_ok(t, SW_RUN(&t->stream, umap_layout_workspace, &j->desc, &bytes));
  j->workspace = kt_bytes(t, "workspace", bytes);
}
static void layout(kt *t, int64_t points, int components, int colors, int negatives, int epochs) {
  kt_case(t, "layout, %lld points, %d components, %d colours, %d negatives", (long long)points, components, colors,
          negatives);
  layout_job j = {.desc.descent = {points, components, 3, 3 + epochs, 20, negatives, 1.577f, 0.895f, 0.02f, 12345}};
  make_layout(t, &j, colors, 1);
  if (points > 5 && colors) { /* points that are one: no force */
    memcpy(j.positions->host + j.host_tail[0] * components, j.positions->host + j.host_head[0] * components,
           (size_t)components * sizeof(double));
    kt_upload(t, j.positions);
  }
  double *want = kt_doubles(t, points * components), *before = kt_doubles(t, points * components);
  memcpy(want, j.positions->host, (size_t)(points * components) * sizeof *want);
  sw_umap_layout_reference(&j.desc, j.host_head, j.host_tail, j.host_rate, want, before);
  double moved = 0;
  for (int64_t i = 0; i < points * components; i++) moved = fmax(moved, fabs(want[i] - j.positions->host[i]));
  kt_check(t, points < 30 || !colors || moved > 0.01, "nothing moved");
  kt_with_threads(t, "layout", run_layout, &j, &j.positions, 1);
  /* steps are short here: with long ones, which overshoot, each would multiply the errors of those before */
  kt_compare(t, "positions", j.positions, want, 1e-4, 1e-4);
  kt_clear(t);
}

/* Epochs one by one are those of all at once. */
static void layout_in_parts(kt *t) {
  kt_case(t, "layout in parts");
  enum { POINTS = 50, EPOCHS = 6 };
  layout_job j = {.desc.descent = {POINTS, 2, 0, EPOCHS, EPOCHS, 5, 1.577f, 0.895f, 0.25f, 7}};
  make_layout(t, &j, 7, 1);
  layout_job step = j;
  step.positions = kt_new(t, "steps", SW_F32, POINTS * 2);
  memcpy(step.positions->host, j.positions->host, POINTS * 2 * sizeof(double));
  kt_upload(t, step.positions);
  run_layout(t, &j);
  for (int e = 0; e < EPOCHS; e++) {
    step.desc.descent.first_epoch = e, step.desc.descent.last_epoch = e + 1;
    run_layout(t, &step);
  }
  kt_same_bits(t, "epochs one by one", step.positions, j.positions);
  kt_clear(t);
}

/* --- placing --- */

typedef struct {
  sw_umap_place_desc desc;
  graph g;
  int32_t *column;
  uint32_t *rate, *host_rate;
  uint64_t *ids, *host_ids;
  kt_tensor *positions, *points;
} place_job;
static void run_place(kt *t, void *argument) {
  place_job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, umap_place, &j->desc, j->g.on_device->data, j->column, j->rate, j->ids,
                  j->positions->data, j->points->data));
}
static void make_place(kt *t, place_job *j) {
  const sw_umap_descent *d = &j->desc.descent;
  j->g = make_graph(t, j->desc.rows, d->points, 12, 150); /* more active edges than the CPU lists at a time */
  j->host_rate = (uint32_t *)kt_doubles(t, j->g.edges + 1);
  j->host_ids = (uint64_t *)kt_doubles(t, j->desc.rows + 1);
  for (int64_t e = 0; e < j->g.edges; e++)
    j->host_rate[e] = kt_below(t, 3) ? (uint32_t)(kt_random(t) * 0x1p32) : 0xffffffffu;
  for (int64_t i = 0; i < j->desc.rows; i++) j->host_ids[i] = (uint64_t)(kt_random(t) * 0x1p53) * 2049;
  j->column = on_device(t, "column", j->g.column, (size_t)j->g.edges * sizeof *j->column);
  j->rate = on_device(t, "rate", j->host_rate, (size_t)j->g.edges * sizeof *j->rate);
  j->ids = on_device(t, "ids", j->host_ids, (size_t)j->desc.rows * sizeof *j->ids);
  j->positions = kt_new(t, "positions", SW_F32, j->desc.rows * d->components);
  j->points = kt_new(t, "points", SW_F32, d->points * d->components);
  kt_normal(t, j->positions, 0, 3);
  kt_normal(t, j->points, 0, 3);
}
static void place(kt *t, int64_t rows, int64_t points, int components, int negatives, int epochs) {
  kt_case(t, "place, %lld rows, %lld points, %d components, %d negatives", (long long)rows, (long long)points,
          components, negatives);
  place_job j = {.desc = {{points, components, 3, 3 + epochs, 20, negatives, 1.577f, 0.895f, 0.02f, 12345}, rows}};
  make_place(t, &j);
  double *want = kt_doubles(t, rows * components + 1);
  memcpy(want, j.positions->host, (size_t)(rows * components) * sizeof *want);
  sw_umap_place_reference(&j.desc, j.g.row_start, j.g.column, j.host_rate, j.host_ids, want, j.points->host);
  double moved = 0;
  for (int64_t i = 0; i < rows * components; i++) moved = fmax(moved, fabs(want[i] - j.positions->host[i]));
  kt_check(t, rows < 2 || moved > 0.01, "nothing moved");
  kt_with_threads(t, "place", run_place, &j, &j.positions, 1);
  kt_compare(t, "positions", j.positions, want, 1e-4, 1e-4);
  kt_clear(t);
}

/* Rows alone have the places they have among others, and epochs one by one those of all at once. */
static void place_in_parts(kt *t) {
  kt_case(t, "place in parts");
  enum { ROWS = 37, EPOCHS = 6 };
  place_job j = {.desc = {{50, 2, 0, EPOCHS, EPOCHS, 5, 1.577f, 0.895f, 0.25f, 7}, ROWS}};
  make_place(t, &j);
  kt_tensor *steps = kt_new(t, "steps", SW_F32, ROWS * 2), *one = kt_new(t, "one", SW_F32, 2);
  memcpy(steps->host, j.positions->host, ROWS * 2 * sizeof(double));
  kt_upload(t, steps);
  double start[2 * ROWS];
  memcpy(start, j.positions->host, sizeof start);
  run_place(t, &j);
  place_job step = j;
  step.positions = steps;
  for (int e = 0; e < EPOCHS; e++) {
    step.desc.descent.first_epoch = e, step.desc.descent.last_epoch = e + 1;
    run_place(t, &step);
  }
  kt_same_bits(t, "epochs one by one", steps, j.positions);
  for (int i = 0; i < ROWS; i += 5) {
    place_job alone = j;
    int64_t starts[2] = {0, j.g.row_start[i + 1] - j.g.row_start[i]};
    alone.desc.rows = 1;
    alone.g.on_device = kt_bytes(t, "row_start", sizeof starts);
    if (t->device->copy_in(&t->stream, alone.g.on_device->data, starts, sizeof starts)) exit(1);
    alone.column = j.column + j.g.row_start[i], alone.rate = j.rate + j.g.row_start[i], alone.ids = j.ids + i;
    alone.positions = one;
    memcpy(one->host, start + 2 * i, 2 * sizeof(double));
    kt_upload(t, one);
    run_place(t, &alone);
    kt_same_bits_at(t, "alone", one, 0, j.positions, 2 * i, 2);
  }
  kt_clear(t);
}

/* --- ranks --- */

typedef struct {
  sw_umap_ranks_desc desc;
  kt_tensor *queries, *corpus, *ranks, *workspace;
  int64_t *own, *index;
} ranks_job;
static void run_ranks(kt *t, void *argument) {
  ranks_job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, umap_ranks, &j->desc, j->queries->data, j->corpus->data, j->own, j->index, j->ranks->data,
                  j->workspace->data));
}
static void ranks(kt *t, int64_t queries, int64_t corpus, int hidden, int k, sw_metric metric) {
  kt_case(t, "ranks, %lld x %lld x %d, k %d, %s", (long long)queries, (long long)corpus, hidden, k,
          metric ? "distance" : "product");
  ranks_job j = {.desc = {queries, corpus, hidden, k, metric}};
  j.queries = kt_new(t, "queries", SW_F32, queries * hidden);
  j.corpus = kt_new(t, "corpus", SW_F32, corpus * hidden);
  kt_integers(t, j.queries, -3, 3); /* exact scores, many of them equal */
  kt_integers(t, j.corpus, -3, 3);
  int64_t *own = (int64_t *)kt_doubles(t, queries + 1), *index = (int64_t *)kt_doubles(t, queries * k + 1);
  for (int64_t i = 0; i < queries; i++) own[i] = i % 3 ? kt_below(t, (int)corpus) : -1;
  for (int64_t i = 0; i < queries * k; i++) index[i] = i % 11 == 10 ? -1 : kt_below(t, (int)corpus);
  j.own = on_device(t, "own", own, (size_t)queries * sizeof *own);
  j.index = on_device(t, "index", index, (size_t)(queries * k) * sizeof *index);
  j.ranks = kt_bytes(t, "ranks", (size_t)(queries * k) * sizeof(int32_t));
  const int threads = t->stream.threads;
  size_t bytes;
  t->stream.threads = 3; /* the most that kt_with_threads takes */
  kt_ok(t, SW_RUN(&t->stream, umap_ranks_workspace, &j.desc, &bytes));
  t->stream.threads = threads;
  j.workspace = kt_bytes(t, "workspace", bytes);
  int32_t *want = (int32_t *)kt_doubles(t, queries * k + 1), *got = (int32_t *)kt_doubles(t, queries * k + 1);
  sw_umap_ranks_reference(&j.desc, j.queries->host, j.corpus->host, own, index, want);
  kt_with_threads(t, "ranks", run_ranks, &j, &j.ranks, 1);
  if (t->device->copy_out(&t->stream, got, j.ranks->data, j.ranks->bytes) || t->device->synchronize(&t->stream))
    exit(1);
  kt_check(t, memcmp(got, want, j.ranks->bytes) == 0, "ranks differ");
  kt_clear(t);
}

static void bad_input(kt *t) {
  kt_case(t, "bad input");
  size_t bytes;
  sw_umap_weights_desc w = {3, 0, 1, 2};
  kt_fails(t, SW_RUN(&t->stream, umap_weights, &w, NULL, NULL), "3 rows of 0 neighbours");
  sw_umap_multiply_desc m = {-1, 1, 0, 0};
  kt_fails(t, SW_RUN(&t->stream, umap_multiply, &m, NULL, NULL, NULL, NULL, NULL), "-1 rows");
  static const struct {
    const char *message;
    sw_umap_descent descent;
  } cases[] = {{"4 components", {3, 4, 0, 1, 1, 5, 1, 1, 1, 0}},
               {"0 points", {0, 2, 0, 1, 1, 5, 1, 1, 1, 0}},
               {"epochs 2 to 1 of 3", {3, 2, 2, 1, 3, 5, 1, 1, 1, 0}},
               {"epochs 0 to 4 of 3", {3, 2, 0, 4, 3, 5, 1, 1, 1, 0}},
               {"-1 negatives", {3, 2, 0, 1, 1, -1, 1, 1, 1, 0}}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const sw_umap_layout_desc l = {.descent = cases[i].descent};
    const sw_umap_place_desc p = {.descent = cases[i].descent};
    kt_fails(t, SW_RUN(&t->stream, umap_layout, &l, NULL, NULL, NULL, NULL, NULL), cases[i].message);
    kt_fails(t, SW_RUN(&t->stream, umap_layout_workspace, &l, &bytes), cases[i].message);
    kt_fails(t, SW_RUN(&t->stream, umap_place, &p, NULL, NULL, NULL, NULL, NULL, NULL), cases[i].message);
  }
  const sw_umap_layout_desc l = {{3, 2, 0, 1, 1, 5, 1, 1, 1, 0}, 2, NULL};
  kt_fails(t, SW_RUN(&t->stream, umap_layout, &l, NULL, NULL, NULL, NULL, NULL), "no starts");
  const sw_umap_place_desc p = {{3, 2, 0, 1, 1, 5, 1, 1, 1, 0}, -1};
  kt_fails(t, SW_RUN(&t->stream, umap_place, &p, NULL, NULL, NULL, NULL, NULL, NULL), "-1 rows");
  sw_umap_ranks_desc r = {3, 5, 4, 257, SW_INNER_PRODUCT};
  kt_fails(t, SW_RUN(&t->stream, umap_ranks_workspace, &r, &bytes), "257 of 3 queries");
  r.k = 2, r.metric = (sw_metric)2;
  kt_fails(t, SW_RUN(&t->stream, umap_ranks, &r, NULL, NULL, NULL, NULL, NULL, NULL), "unknown metric 2");
  kt_clear(t);
}

static void bench(kt *t) {
  enum { ROWS = 100000, EDGES = 25 };
  layout_job j = {.desc.descent = {ROWS, 2, 100, 101, 200, 5, 1.577f, 0.895f, 1, 1}};
  make_layout(t, &j, EDGES, 0.5);
  const int64_t edges = j.desc.color_start[EDGES];
  kt_report(t, "layout epoch, 100000 points, 1.6 M directed edges", kt_seconds(t, run_layout, &j), 0,
            (double)edges * 2 * 12);
  graph g = make_graph(t, ROWS, ROWS, 2 * EDGES, 200);
  multiply_job m = {.desc = {ROWS, 1, 0, -1}, .g = g};
  m.column = on_device(t, "column", g.column, (size_t)g.edges * sizeof *m.column);
  m.value = kt_new(t, "value", SW_F32, g.edges);
  m.x = kt_new(t, "x", SW_F32, (int64_t)ROWS * SW_UMAP_BLOCK);
  m.y = kt_new(t, "y", SW_F32, (int64_t)ROWS * SW_UMAP_BLOCK);
  kt_fill(t, m.value, 0.01), kt_fill(t, m.x, 1), kt_fill(t, m.y, 1);
  kt_report(t, "multiply, 2.5 M edges", kt_seconds(t, run_multiply, &m), 2.0 * SW_UMAP_BLOCK * (double)g.edges,
            (double)g.edges * 40);
  weights_job w = {.desc = {ROWS, 14, 1, 3.9f}};
  w.distances = kt_new(t, "distances", SW_F32, (int64_t)ROWS * 14);
  w.weights = kt_new(t, "weights", SW_F32, (int64_t)ROWS * 14);
  for (int64_t i = 0; i < w.distances->count; i++) w.distances->host[i] = 0.2 + 0.01 * (double)(i % 14);
  kt_upload(t, w.distances);
  kt_report(t, "weights, 100000 x 14", kt_seconds(t, run_weights, &w), 0, (double)ROWS * 14 * 8);
  kt_clear(t);
}

static void tests(kt *t) {
  const int small = kt_small(t);
  static const int ks[] = {1, 2, 14, 15, 16, 17, 33, 256};
  for (int n = 0; n < 8; n++) {
    weights(t, 23, ks[n], n % 2, n % 3 ? 1 : 1e-4);
    if (!small) weights(t, 600, ks[n], 1, 100);
  }
  weights(t, 0, 5, 1, 1);
  static const int64_t sizes[] = {0, 1, 2, 37, 300};
  for (int n = 0; n < 5; n++) {
    multiply(t, sizes[n], 0, 0);
    multiply(t, sizes[n], -1, n % 2);
  }
  if (!small) multiply(t, 3000, -1, 1);
  for (int components = 2; components <= 3; components++) {
    layout(t, 1, components, 2, 5, 2);
    layout(t, 2, components, 1, 5, 2);
    layout(t, 37, components, 12, 5, 2);
    layout(t, 100, components, 40, 0, 2);
    layout(t, 300, components, 3, 7, 1);
    layout(t, 300, components, 0, 7, 1);
    if (!small) layout(t, 6000, components, 8, 5, 1);
    place(t, 45, 200, components, 5, 3);
    place(t, 0, 200, components, 5, 3);
    place(t, 1, 1, components, 2, 3);
    if (!small) place(t, 3000, 500, components, 5, 1);
  }
  layout_in_parts(t);
  place_in_parts(t);
  for (int metric = SW_INNER_PRODUCT; metric <= SW_SQUARED_DISTANCE; metric++) {
    ranks(t, 7, 1, 5, 2, (sw_metric)metric);
    ranks(t, 1, 40, 3, 15, (sw_metric)metric);
    ranks(t, 13, 131, 16, 33, (sw_metric)metric);
    ranks(t, 5, 300, 2, 256, (sw_metric)metric);
    ranks(t, 0, 10, 2, 4, (sw_metric)metric);
    if (!small) ranks(t, 100, 3000, 37, 15, (sw_metric)metric);
  }
  bad_input(t);
}

int main(int argc, char **argv) {
  return kt_run(argc, argv, tests, bench);
}
