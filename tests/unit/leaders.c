/* Groups by leaders: as the definition says, across blocks. */
#include "base/error.h"
#include "engine/space/leaders.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

enum { ROWS = 2500, HIDDEN = 3 };

/* Directions in the plane, by angle; lengths differ, and do not matter. */
static float vectors[ROWS * HIDDEN];
static double angle[ROWS];

static void by_definition(void **state) {
  sw_device *device;
  sw_stream stream;
  static int64_t leader[ROWS];
  unsigned seed = 7;
  for (int i = 0; i < ROWS; i++) {
    seed = seed * 1664525u + 1013904223u;
    angle[i] = (seed >> 8) % 360 * acos(-1) / 180; /* whole degrees, so that no cosine lies at the threshold */
    vectors[i * HIDDEN] = (float)(cos(angle[i]) * (1 + i % 5));
    vectors[i * HIDDEN + 1] = (float)(sin(angle[i]) * (1 + i % 5));
  }
  assert_int_equal(sw_device_open("cpu", &device), 0);
  assert_int_equal(sw_stream_open(device, 2, &stream), 0);
  for (int step = 0; step < 2; step++) {
    const double threshold = cos((step ? 0.2 : 3.5) * acos(-1) / 180); /* few leaders; one for each direction */
    int groups = 0;
    assert_int_equal(sw_leaders_run(&stream, vectors, ROWS, HIDDEN, threshold, leader), 0);
    for (int i = 0; i < ROWS; i++) {
      double best = -2;
      for (int k = 0; k < i; k++)
        if (leader[k] == k && cos(angle[i] - angle[k]) > best) best = cos(angle[i] - angle[k]);
      groups += leader[i] == i;
      assert_true((leader[i] == i) == (best < threshold));
      assert_true(leader[i] == i || (leader[leader[i]] == leader[i] && fabs(cos(angle[i] - angle[leader[i]]) - best) < 1e-5));
    }
    assert_true(step ? groups > 300 : groups > 40 && groups < 120);
  }
  static float zeros[2 * HIDDEN];
  assert_int_equal(sw_leaders_run(&stream, zeros, 2, HIDDEN, 0.5, leader), 0);
  assert_true(leader[0] == 0 && leader[1] == 1); /* at cosine 0 from everything */
  assert_int_equal(sw_leaders_run(&stream, zeros, 0, HIDDEN, 0.5, leader), 0);
  sw_device_close(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(by_definition)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
