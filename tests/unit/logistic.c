/* Logistic regression: objective and gradient against the mathematics in double precision, whose gradient is checked by finite differences;
 * the minimum, by that gradient and F(x) - F* <= |gradient|^2 / (2 / C); same bits with any number of threads; what is refused.
 * The comparison with scikit-learn is parity/test_logistic.py. */
#include "base/error.h"
#include "base/philox.h"
#include "engine/model/logistic.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 157, DIM = 13, CLASSES = 7, N = CLASSES * (DIM + 1) };

typedef struct {
  float x[ROWS * DIM], weights[ROWS];
  int32_t labels[ROWS];
  sw_logistic_problem problem;
} data;

/* Clusters that overlap, far from the origin, on different scales. */
static void draw(data *d, int weighted) {
  sw_random random = {.seed = 11};
  float centres[CLASSES][DIM];
  for (int i = 0; i < CLASSES * DIM; i++) centres[i / DIM][i % DIM] = sw_random_float(&random);
  for (int i = 0; i < ROWS; i++) {
    d->labels[i] = i < CLASSES ? i : (int32_t)(sw_random_below(&random, CLASSES) * sw_random_below(&random, CLASSES) / CLASSES);
    d->weights[i] = 0.25f + sw_random_float(&random);
    for (int k = 0; k < DIM; k++) d->x[i * DIM + k] = 3 + (centres[d->labels[i]][k] + sw_random_float(&random)) * (float)(1 + k % 3);
  }
  d->weights[20] = 0;
  d->problem = (sw_logistic_problem){.rows = ROWS, .dim = DIM, .classes = CLASSES, .features = d->x, .labels = d->labels,
                                     .row_weights = weighted ? d->weights : NULL};
}

/* F, and its gradient where g is not NULL: p and g are W, then b. */
static double reference(const data *d, double c, const double *p, double *g) {
  double f = 0;
  if (g) memset(g, 0, N * sizeof *g);
  for (int i = 0; i < ROWS; i++) {
    double z[CLASSES], largest = -INFINITY, sum = 0, w = d->problem.row_weights ? (double)d->weights[i] : 1;
    for (int k = 0; k < CLASSES; k++) {
      z[k] = p[CLASSES * DIM + k];
      for (int j = 0; j < DIM; j++) z[k] += p[k * DIM + j] * (double)d->x[i * DIM + j];
      if (z[k] > largest) largest = z[k];
    }
    for (int k = 0; k < CLASSES; k++) sum += exp(z[k] - largest);
    f += w * (largest + log(sum) - z[d->labels[i]]);
    for (int k = 0; k < CLASSES && g; k++) {
      const double r = w * (exp(z[k] - largest) / sum - (k == d->labels[i]));
      for (int j = 0; j < DIM; j++) g[k * DIM + j] += r * (double)d->x[i * DIM + j];
      g[CLASSES * DIM + k] += r;
    }
  }
  for (int i = 0; i < CLASSES * DIM; i++) {
    f += p[i] * p[i] / (2 * c);
    if (g) g[i] += p[i] / c;
  }
  return f;
}

static sw_device *device;
static sw_stream stream_of(int threads) {
  sw_stream stream;
  assert_int_equal(sw_stream_open(device, threads, &stream), 0);
  return stream;
}

static void objective(void **state) {
  static data d;
  double p[N], g[N], f;
  float p32[N], g32[N];
  sw_stream stream = stream_of(1);
  sw_random random = {.seed = 5};
  for (int weighted = 0; weighted < 2; weighted++) {
    draw(&d, weighted);
    for (int i = 0; i < N; i++) p[i] = p32[i] = sw_random_float(&random) - 0.5f;
    double want = reference(&d, 0.5, p, g), largest = 0;
    for (int i = 0; i < N; i += 5) { /* the reference itself */
      const double h = 1e-5, at = p[i];
      p[i] = at + h;
      double up = reference(&d, 0.5, p, NULL);
      p[i] = at - h;
      double slope = (up - reference(&d, 0.5, p, NULL)) / (2 * h);
      p[i] = at;
      assert_true(fabs(slope - g[i]) <= 1e-6 * (1 + fabs(g[i])));
    }
    assert_int_equal(sw_logistic_objective(&stream, &d.problem, 0.5, p32, p32 + CLASSES * DIM, &f, g32, g32 + CLASSES * DIM), 0);
    assert_true(fabs(f - want) <= 1e-6 * want);
    for (int i = 0; i < N; i++) largest = fmax(largest, fabs(g[i]));
    for (int i = 0; i < N; i++) assert_true(fabs((double)g32[i] - g[i]) <= 2e-6 * largest);
  }
}

static void minimum(void **state) {
  static data d;
  sw_stream stream = stream_of(2);
  for (int i = 0; i < 6; i++) {
    const double c = (double[]){0.01, 1, 100}[i / 2];
    float p32[N];
    double p[N], g[N], bound = 0, total = 0;
    sw_logistic_result r;
    sw_logistic_options o = SW_LOGISTIC_DEFAULTS;
    draw(&d, i % 2);
    o.c = c;
    o.tolerance = 1e-6;
    for (int k = 0; k < ROWS; k++) total += i % 2 ? (double)d.weights[k] : 1;
    assert_int_equal(sw_logistic_fit(&stream, &d.problem, &o, p32, p32 + CLASSES * DIM, &r), 0);
    assert_int_equal(r.end, SW_LOGISTIC_CONVERGED);
    assert_true(r.gradient <= o.tolerance && r.evaluations > r.iterations);
    for (int k = 0; k < N; k++) p[k] = p32[k];
    const double f = reference(&d, c, p, g);
    assert_true(fabs(f - r.objective) <= 1e-6 * f);
    for (int k = 0; k < N; k++) {
      assert_true(fabs(g[k]) <= 1.1 * (o.tolerance + 1e-7) * total);
      if (k < CLASSES * DIM) bound += g[k] * g[k] * c / 2;
    }
    assert_true(bound <= 1e-3 * f);
  }
}

static void same_bits(void **state) {
  enum { MANY = 700, WIDE = 96, MORE = 150 }; /* several spans and blocks */
  float *x = malloc(MANY * WIDE * sizeof *x), *w[3], *b[3];
  int32_t labels[MANY];
  sw_random random = {.seed = 3};
  for (int i = 0; i < MANY * WIDE; i++) x[i] = sw_random_float(&random);
  for (int i = 0; i < MANY; i++) labels[i] = i % MORE;
  const sw_logistic_problem problem = {.rows = MANY, .dim = WIDE, .classes = MORE, .features = x, .labels = labels};
  sw_logistic_options o = SW_LOGISTIC_DEFAULTS;
  o.max_iterations = 6;
  o.tolerance = 0;
  for (int t = 0; t < 3; t++) {
    sw_stream stream = stream_of(t + 1);
    sw_logistic_result r;
    w[t] = malloc(MORE * WIDE * sizeof *x), b[t] = malloc(MORE * sizeof *x);
    assert_int_equal(sw_logistic_fit(&stream, &problem, &o, w[t], b[t], &r), 0);
    assert_int_equal(r.end, SW_LOGISTIC_ITERATIONS);
    assert_int_equal(r.iterations, 6);
    assert_memory_equal(w[t], w[0], MORE * WIDE * sizeof *x);
    assert_memory_equal(b[t], b[0], MORE * sizeof *x);
  }
  assert_true(w[0][5] != 0);
  /* a row's logits alone and among others */
  float *all = malloc(MANY * MORE * sizeof *all), one[MORE];
  sw_stream stream = stream_of(2);
  assert_int_equal(sw_logistic_logits(&stream, WIDE, MORE, w[0], b[0], x, MANY, all), 0);
  assert_int_equal(sw_logistic_logits(&stream, WIDE, MORE, w[0], b[0], x + 33 * WIDE, 1, one), 0);
  assert_memory_equal(one, all + 33 * MORE, sizeof one);
  for (int t = 0; t < 3; t++) free(w[t]), free(b[t]);
  free(all);
  free(x);
}

static void separable(void **state) {
  const float x[] = {-1, -1.1f, 1, 1.1f};
  const int32_t labels[] = {0, 0, 1, 1};
  const sw_logistic_problem problem = {.rows = 4, .dim = 1, .classes = 2, .features = x, .labels = labels};
  sw_logistic_options o = SW_LOGISTIC_DEFAULTS;
  sw_logistic_result r;
  sw_stream stream = stream_of(1);
  float w[2], b[2];
  o.c = 1e6;
  assert_int_equal(sw_logistic_fit(&stream, &problem, &o, w, b, &r), 0);
  assert_true(w[1] > 2 && fabsf(w[0] + w[1]) < 1e-3f * w[1] && r.objective < 1e-3);
  o.tolerance = 0; /* not to be reached: ends all the same, and says why */
  assert_int_equal(sw_logistic_fit(&stream, &problem, &o, w, b, &r), 0);
  assert_true(r.end == SW_LOGISTIC_PRECISION || r.end == SW_LOGISTIC_ITERATIONS || r.gradient == 0);
}

static void refused(void **state) {
  static data d;
  sw_stream stream = stream_of(1);
  sw_logistic_options o = SW_LOGISTIC_DEFAULTS;
  sw_logistic_result r;
  float w[N], b[CLASSES];
#define REFUSED(change, part)                                                                                                    \
  draw(&d, 1);                                                                                                                   \
  change;                                                                                                                        \
  assert_int_equal(sw_logistic_fit(&stream, &d.problem, &o, w, b, &r), -1);                                                      \
  assert_non_null(strstr(sw_error(), part))
  REFUSED(d.labels[3] = CLASSES, "label 7");
  REFUSED(d.problem.rows = 3, "class 3 has no row");
  REFUSED(d.weights[4] = -1, "row 4");
  REFUSED(d.x[2] = NAN, "feature 2");
  REFUSED(d.problem.classes = 1, "two classes");
  REFUSED(o.c = 0, "C must");
#undef REFUSED
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(objective), cmocka_unit_test(minimum), cmocka_unit_test(same_bits),
                                     cmocka_unit_test(separable), cmocka_unit_test(refused)};
  if (sw_device_open("cpu", &device)) return 1;
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  sw_device_close(device);
  return failed;
}
