/* The parts of UMAP that have a known answer: the curve, the fuzzy union, connected parts, an order and colours of
 * edges, eigenvectors of a ring. */
#include "engine/space/spectral.h"
#include "engine/space/umap.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What umap-learn's find_ab_params finds. */
static void curve(void **state) {
  static const double known[][4] = {{0.1, 1, 1.57694, 0.89506}, {0.0, 1, 1.93285, 0.79050}, {0.5, 1, 0.58303, 1.33417}};
  for (int i = 0; i < 3; i++) {
    double a, b;
    assert_int_equal(sw_umap_curve(known[i][0], known[i][1], &a, &b), 0);
    assert_true(fabs(a - known[i][2]) < 2e-4 && fabs(b - known[i][3]) < 2e-4);
  }
}

static void fuzzy_union(void **state) {
  const int64_t neighbours[] = {1, 2, 0, -1, 1, 0, 4, -1, 3, -1};
  const float weights[] = {1, 0.5f, 0.25f, 1, 1, 0.5f, 1, 1, 1, 0};
  const int64_t row_start[] = {0, 2, 4, 6, 7, 8};
  const int32_t column[] = {1, 2, 0, 2, 0, 1, 4, 3}, part[] = {0, 0, 0, 1, 1};
  const float weight[] = {1, 0.75f, 1, 1, 0.75f, 1, 1, 1}; /* 1 + 1/4 - 1/4, 1/2 + 1/2 - 1/4, ... */
  sw_graph g;
  int32_t component[5], count;
  assert_int_equal(sw_graph_union(5, 2, neighbours, weights, 0, &g), 0);
  assert_memory_equal(g.row_start, row_start, sizeof row_start);
  assert_memory_equal(g.column, column, sizeof column);
  assert_memory_equal(g.weight, weight, sizeof weight);
  assert_int_equal(sw_graph_components(&g, component, &count), 0);
  assert_int_equal(count, 2);
  assert_memory_equal(component, part, sizeof part);
  sw_graph_close(&g);
  assert_int_equal(sw_graph_union(5, 2, neighbours, weights, 0.9, &g), 0); /* without 0 - 2 */
  assert_int_equal(g.row_start[5], 6);
  assert_int_equal(g.column[1], 0);
  sw_graph_close(&g);
}

static void eigen(void **state) {
  double a[] = {2, 1, 0, 1, 2, 0, 0, 0, 7}, values[3], v[9];
  sw_symmetric_eigen(3, a, values, v);
  assert_true(fabs(values[0] - 7) < 1e-12 && fabs(values[1] - 3) < 1e-12 && fabs(values[2] - 1) < 1e-12);
  assert_true(fabs(fabs(v[2 * 3]) - 1) < 1e-12 && fabs(v[1] - v[3 + 1]) < 1e-12);
}

/* Two chains, joined by their lightest edge: one comes after the other. */
static void order(void **state) {
  enum { ROWS = 10 };
  int64_t neighbours[ROWS];
  float weights[ROWS];
  int32_t found[ROWS];
  for (int i = 0; i < ROWS; i++)
    neighbours[i] = i + 2 < ROWS ? i + 2 : i == 9 ? 0 : -1, weights[i] = i == 9 ? 0.25f : 0.5f + 0.01f * (float)i;
  sw_graph g;
  assert_int_equal(sw_graph_union(ROWS, 1, neighbours, weights, 0, &g), 0);
  assert_int_equal(sw_graph_order(&g, found), 0);
  for (int i = 0; i < ROWS; i++) assert_int_equal(found[i], i < 5 ? 2 * i : 9 - 2 * (i - 5));
  sw_graph_close(&g);
}

/* Every edge once, no colour twice at a row, in order, with its weight; also where everybody's neighbour is row 0. */
static void colors(void **state) {
  enum { ROWS = 300, K = 5 };
  int64_t neighbours[ROWS * K];
  float weights[ROWS * K];
  int32_t order[ROWS];
  uint32_t random = 1;
  for (int i = 0; i < ROWS; i++) {
    order[i] = (int32_t)((i * 77 + 5) % ROWS);
    for (int n = 0; n < K; n++) {
      const int other = (i + 1 + n * 31) % ROWS;
      neighbours[i * K + n] = n == 0 && i ? 0 : n && !other ? -1 : other;
      weights[i * K + n] = (float)((random = random * 1664525 + 1013904223) >> 8) * 0x1p-24f;
    }
  }
  sw_graph g;
  sw_colored_edges c;
  assert_int_equal(sw_graph_union(ROWS, K, neighbours, weights, 0, &g), 0);
  assert_int_equal(sw_graph_color(&g, order, &c), 0);
  assert_int_equal(2 * c.edges, g.row_start[ROWS]);
  assert_true(c.color_start[0] == 0 && c.color_start[c.colors] == c.edges && c.colors >= ROWS - 1 &&
              c.colors < 2 * ROWS);
  for (int32_t k = 0; k < c.colors; k++) {
    char seen[ROWS] = {0};
    assert_true(c.color_start[k] < c.color_start[k + 1]);
    for (int64_t e = c.color_start[k]; e < c.color_start[k + 1]; e++) {
      assert_true(c.head[e] < c.tail[e] && !seen[c.head[e]] && !seen[c.tail[e]]);
      seen[c.head[e]] = seen[c.tail[e]] = 1;
      assert_true(e == c.color_start[k] || c.head[e - 1] < c.head[e]);
      const int64_t i = order[c.head[e]];
      int64_t at = g.row_start[i];
      while (at < g.row_start[i + 1] && g.column[at] != order[c.tail[e]]) at++;
      assert_true(at < g.row_start[i + 1] && g.weight[at] == c.weight[e]);
      g.weight[at] = -1; /* once */
    }
  }
  sw_colored_edges_close(&c);
  sw_graph_close(&g);
  /* no edges */
  for (int i = 0; i < ROWS * K; i++) neighbours[i] = -1;
  assert_int_equal(sw_graph_union(ROWS, K, neighbours, weights, 0, &g), 0);
  assert_int_equal(sw_graph_color(&g, order, &c), 0);
  assert_true(c.edges == 0 && c.colors == 0);
  sw_colored_edges_close(&c);
  sw_graph_close(&g);
}

/* Two rings: each one's first two eigenvectors are a circle, on which its points stand in their order, all equally far
 * from the middle. */
static void rings(void **state) {
  enum { RING = 40, ROWS = 2 * RING };
  int64_t neighbours[2 * ROWS];
  float weights[2 * ROWS], out[2 * ROWS];
  int32_t component[ROWS], count;
  for (int i = 0; i < ROWS; i++)
    for (int n = 0; n < 2; n++)
      neighbours[2 * i + n] = i / RING * RING + (i % RING + (n ? RING - 1 : 1)) % RING, weights[2 * i + n] = 1;
  sw_graph g;
  sw_device *device;
  sw_stream stream;
  assert_int_equal(sw_graph_union(ROWS, 2, neighbours, weights, 0, &g), 0);
  assert_int_equal(sw_graph_components(&g, component, &count), 0);
  assert_int_equal(count, 2);
  assert_int_equal(sw_device_open("cpu", &device), 0);
  assert_int_equal(sw_stream_open(device, 1, &stream), 0);
  assert_int_equal(sw_spectral_start(&stream, &g, g.row_start, g.column, component, count, 2, 5, out), 0);
  for (int i = 0; i < ROWS; i++) {
    const int next = i / RING * RING + (i + 1) % RING;
    const double radius = hypot(out[2 * i], out[2 * i + 1]),
                 step = hypot(out[2 * i] - out[2 * next], out[2 * i + 1] - out[2 * next + 1]);
    assert_true(fabs(radius - 1) < 0.02 && fabs(step - 2 * sin(M_PI / RING)) < 0.02);
  }
  sw_device_close(device);
  sw_graph_close(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(curve),  cmocka_unit_test(fuzzy_union), cmocka_unit_test(order),
                                     cmocka_unit_test(colors), cmocka_unit_test(eigen),       cmocka_unit_test(rings)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
