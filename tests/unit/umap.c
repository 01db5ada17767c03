/* The parts of UMAP that have a known answer: the curve, the fuzzy union, connected parts, eigenvectors of a ring. */
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

/* Two rings: each one's first two eigenvectors are a circle, on which its points stand in their order, all equally far from the middle. */
static void rings(void **state) {
  enum { RING = 40, ROWS = 2 * RING };
  int64_t neighbours[2 * ROWS];
  float weights[2 * ROWS], out[2 * ROWS];
  int32_t component[ROWS], count;
  for (int i = 0; i < ROWS; i++)
    for (int n = 0; n < 2; n++) neighbours[2 * i + n] = i / RING * RING + (i % RING + (n ? RING - 1 : 1)) % RING, weights[2 * i + n] = 1;
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
    const double radius = hypot(out[2 * i], out[2 * i + 1]), step = hypot(out[2 * i] - out[2 * next], out[2 * i + 1] - out[2 * next + 1]);
    assert_true(fabs(radius - 1) < 0.02 && fabs(step - 2 * sin(M_PI / RING)) < 0.02);
  }
  sw_device_close(device);
  sw_graph_close(&g);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(curve), cmocka_unit_test(fuzzy_union), cmocka_unit_test(eigen), cmocka_unit_test(rings)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
