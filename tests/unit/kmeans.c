/* k-means: clusters that are there are found, starts and threads do not show, empty and odd sets; silhouettes and names by hand. */
#include "base/error.h"
#include "base/philox.h"
#include "engine/space/kmeans.h"
#include "engine/space/names.h"
#include "engine/space/silhouette.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static sw_device *device;
static sw_stream stream_of(int threads) {
  sw_stream s;
  assert_int_equal(sw_stream_open(device, threads, &s), 0);
  return s;
}

/* Rows around `centres` corners of a cube, in turn. */
static float *blobs(int64_t rows, int hidden, int centres, float noise, uint64_t seed) {
  float *x = malloc((size_t)rows * (size_t)hidden * sizeof *x);
  sw_random r = {.seed = seed};
  for (int64_t i = 0; i < rows; i++)
    for (int h = 0; h < hidden; h++) x[i * hidden + h] = (float)((i % centres >> h % 3) & 1) + noise * (sw_random_float(&r) - 0.5f);
  return x;
}

static void finds_blobs(void **state) {
  enum { ROWS = 3000, HIDDEN = 7, K = 5 };
  float *x = blobs(ROWS, HIDDEN, K, 0.4f, test_seed("kmeans"));
  sw_kmeans_options o = SW_KMEANS_DEFAULTS;
  o.k = K, o.seed = 3;
  sw_kmeans one, two;
  sw_stream first = stream_of(1), second = stream_of(2);
  assert_int_equal(sw_kmeans_fit(&first, &o, ROWS, HIDDEN, x, 1, &one), 0);
  assert_int_equal(sw_kmeans_fit(&second, &o, ROWS, HIDDEN, x, 1, &two), 0);
  assert_memory_equal(one.label, two.label, ROWS * sizeof *one.label);
  assert_memory_equal(one.distance, two.distance, ROWS * sizeof *one.distance);
  assert_memory_equal(one.centres, two.centres, K * HIDDEN * sizeof *one.centres);
  assert_true(one.inertia == two.inertia);
  double inertia = 0;
  for (int i = 0; i < ROWS; i++) {
    double squares = 0;
    for (int h = 0; h < HIDDEN; h++) squares += pow((double)x[i * HIDDEN + h] - (double)one.centres[one.label[i] * HIDDEN + h], 2);
    assert_true(fabs(sqrt(squares) - (double)one.distance[i]) < 1e-6);
    assert_int_equal(one.label[i], one.label[i % K]); /* a blob a cluster */
    inertia += squares;
  }
  assert_true(fabs(inertia - one.inertia) < 1e-6 * inertia);
  for (int c = 0; c < K; c++) assert_int_equal(one.sizes[c], ROWS / K);
  assert_int_equal(one.label[0], 0); /* of equal sizes the one with the first row */
  sw_kmeans_close(&two);
  /* with more starts the first ones are the same: never worse */
  o.starts = 1, o.k = 40;
  double before = INFINITY;
  for (; o.starts <= 13; o.starts += 4) {
    assert_int_equal(sw_kmeans_fit(&second, &o, ROWS, HIDDEN, x, 1, &two), 0);
    assert_true(two.inertia <= before);
    for (int c = 1; c < o.k; c++) assert_true(two.sizes[c] <= two.sizes[c - 1] && two.sizes[c] > 0);
    before = two.inertia;
    sw_kmeans_close(&two);
  }
  sw_kmeans_close(&one);
  free(x);
}

static void odd_sets(void **state) {
  enum { ROWS = 60, HIDDEN = 3 };
  float x[ROWS * HIDDEN];
  sw_stream s = stream_of(2);
  sw_kmeans_options o = SW_KMEANS_DEFAULTS;
  sw_kmeans found;
  for (int i = 0; i < ROWS * HIDDEN; i++) x[i] = (float)(i / HIDDEN % 4); /* four different rows */
  o.k = 4;
  assert_int_equal(sw_kmeans_fit(&s, &o, ROWS, HIDDEN, x, 1, &found), 0);
  assert_true(found.inertia == 0);
  sw_kmeans_close(&found);
  o.k = 5;
  assert_int_equal(sw_kmeans_fit(&s, &o, ROWS, HIDDEN, x, 1, &found), -1);
  assert_string_equal(sw_error(), "there are only 4 different vectors, too few for 5 clusters: ask for 4 or fewer");
  assert_int_equal(sw_kmeans_fit(&s, &o, 3, HIDDEN, x, 1, &found), -1);
  assert_string_equal(sw_error(), "3 vectors cannot make 5 clusters: ask for 3 or fewer");
  memset(x, 0, sizeof x);
  o.k = 1;
  assert_int_equal(sw_kmeans_fit(&s, &o, ROWS, HIDDEN, x, 1, &found), 0);
  assert_true(found.inertia == 0 && found.sizes[0] == ROWS);
  sw_kmeans_close(&found);
  for (int i = 0; i < ROWS * HIDDEN; i++) x[i] = (float)i * 0.37f;
  o.k = ROWS; /* each row a cluster */
  assert_int_equal(sw_kmeans_fit(&s, &o, ROWS, HIDDEN, x, 1, &found), 0);
  assert_true(found.inertia == 0);
  sw_kmeans_close(&found);
  const sw_kmeans_options bad[] = {{0, 1, 1, 0, 0}, {1001, 1, 1, 0, 0}, {2, 0, 1, 0, 0}, {2, 1, 0, 0, 0}, {2, 1, 1, -1, 0}, {2, 1, 1, NAN, 0}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(sw_kmeans_fit(&s, &bad[i], ROWS, HIDDEN, x, 1, &found), -1);
}

/* Many passes, some more than bounds may live; and centres that lose their rows. */
static void hard_sets(void **state) {
  enum { ROWS = 2000, HIDDEN = 2 };
  const uint64_t seed = test_seed("hard k-means");
  for (int n = 0; n < 6; n++) {
    float *x = blobs(ROWS, HIDDEN, 3 + n, n % 2 ? 1.0f : 1e-3f, seed + (uint64_t)n);
    for (int i = 0; i < ROWS && n == 2; i++) x[i * HIDDEN] = x[i * HIDDEN + 1] = (float)i;
    sw_kmeans_options o = {.k = n == 2 ? 2 : 64, .starts = 3, .max_iterations = 1000, .seed = (uint64_t)n};
    sw_stream s = stream_of(2);
    sw_kmeans found;
    assert_int_equal(sw_kmeans_fit(&s, &o, ROWS, HIDDEN, x, 1, &found), 0);
    double inertia = 0;
    for (int i = 0; i < ROWS; i++) { /* the nearest centre, and with tolerance 0 it is the mean */
      double least = INFINITY;
      for (int c = 0; c < o.k; c++) {
        const double squares = pow((double)(x[2 * i] - found.centres[2 * c]), 2) + pow((double)(x[2 * i + 1] - found.centres[2 * c + 1]), 2);
        least = squares < least ? squares : least;
      }
      inertia += least;
    }
    assert_true(fabs(inertia - found.inertia) <= 1e-5 * inertia);
    for (int c = 0; c < o.k; c++) {
      double sum = 0;
      for (int i = 0; i < ROWS; i++) sum += found.label[i] == c ? (double)x[2 * i] : 0;
      assert_true(found.sizes[c] > 0 && fabs(sum / (double)found.sizes[c] - (double)found.centres[2 * c]) <= 1e-6 * (1 + fabs(sum)));
    }
    sw_kmeans_close(&found);
    free(x);
  }
}

static void silhouette(void **state) {
  /* on a line: 0, 1 | 4, 6 | 10 alone */
  const float x[] = {0, 1, 4, 6, 10};
  const int32_t label[] = {0, 0, 1, 1, 2}, same[] = {0, 0, 0, 0, 0}, each[] = {0, 1, 2, 3, 4};
  sw_stream s = stream_of(1);
  sw_silhouette_sample sample;
  double value;
  assert_int_equal(sw_silhouette_open(&s, 5, 1, x, 1, &sample), 0);
  assert_int_equal(sw_silhouette(&sample, label, 3, &value), 0);
  const double want = (4.0 / 5 + 3.0 / 4 + 1.5 / 3.5 + (4 - 2) / 4.0 + 0) / 5; /* (b - a) / max: b of 0 is 5, of 1 is 4, of 4 is 3.5, of 6 is 4 (to 10) */
  assert_true(fabs(value - want) < 1e-9);
  assert_int_equal(sw_silhouette(&sample, same, 1, &value), 0);
  assert_true(isnan(value));
  assert_int_equal(sw_silhouette(&sample, each, 5, &value), 0);
  assert_true(isnan(value));
  sw_silhouette_close(&sample);
  enum { ROWS = 5000 };
  float *many = blobs(ROWS, 2, 2, 0.1f, 5);
  assert_int_equal(sw_silhouette_open(&s, ROWS, 2, many, 9, &sample), 0);
  assert_int_equal(sample.count, SW_SILHOUETTE_ROWS);
  for (int i = 1; i < SW_SILHOUETTE_ROWS; i++) assert_true(sample.row[i] > sample.row[i - 1] && sample.row[i] < ROWS);
  assert_true(sample.row[0] < 50 && sample.row[SW_SILHOUETTE_ROWS - 1] > ROWS - 50);
  sw_silhouette_close(&sample);
  free(many);
}

static void names(void **state) {
  sw_names *n;
  char *out[3];
  assert_int_equal(sw_names_open(3, &n), 0);
  const char *const texts[][2] = {{"0", "The Nurse of the ward, a nurse"}, {"0", "Nurse manager"}, {"1", "Welder; steel worker"}, {"1", "WELDER manager steel welder"}};
  for (int i = 0; i < 4; i++) assert_int_equal(sw_names_add(n, texts[i][0][0] - '0', texts[i][1], strlen(texts[i][1])), 0);
  assert_int_equal(sw_names_add(n, 0, "\xff", 1), -1);
  assert_int_equal(sw_names_make(n, 3, out), 0);
  assert_string_equal(out[0], "nurse / ward / manager"); /* ward and manager both once here, manager elsewhere too */
  assert_string_equal(out[1], "welder / steel / worker");
  assert_string_equal(out[2], "");
  for (int i = 0; i < 3; i++) free(out[i]);
  sw_names_close(n);
}

int main(void) {
  if (sw_device_open("cpu", &device)) return 1;
  const struct CMUnitTest tests[] = {cmocka_unit_test(finds_blobs), cmocka_unit_test(odd_sets), cmocka_unit_test(hard_sets), cmocka_unit_test(silhouette),
                                     cmocka_unit_test(names)};
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  sw_device_close(device);
  return failed;
}
