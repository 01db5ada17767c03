/* Cross-entropy, sigmoid BCE and log-softmax against the double reference. */
#include "kernels/loss/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_loss_desc desc;
  kt_tensor *logits, *targets, *class_weights, *row_weights, *dlogits, *copy;
  int32_t *labels; /* device */
  kt_tensor *sum, *workspace;
  double loss; /* of the last run */
  int in_place;
  double losses[5]; /* of the runs that kt_with_threads makes */
  int runs;
} job;

static void start_loss(kt *t, job *j) {
  j->loss = 3; /* the loss is added to */
  if (t->device->copy_in(&t->stream, j->sum->data, &j->loss, sizeof j->loss)) exit(1);
}
static void finish_loss(kt *t, job *j) {
  if (t->device->copy_out(&t->stream, &j->loss, j->sum->data, sizeof j->loss) || t->device->synchronize(&t->stream)) exit(1);
  if (j->runs < 5) j->losses[j->runs++] = j->loss;
}
static void cross_entropy(kt *t, void *argument) {
  job *j = argument;
  float *to = j->dlogits ? j->dlogits->data : NULL;
  start_loss(t, j);
  kt_ok(t, SW_RUN(&t->stream, cross_entropy, &j->desc, j->in_place ? to : j->logits->data, j->labels,
                  j->class_weights ? j->class_weights->data : NULL, j->row_weights ? j->row_weights->data : NULL, j->sum->data, to, j->workspace->data));
  finish_loss(t, j);
}
static void sigmoid_bce(kt *t, void *argument) {
  job *j = argument;
  float *to = j->dlogits ? j->dlogits->data : NULL;
  start_loss(t, j);
  kt_ok(t, SW_RUN(&t->stream, sigmoid_bce, &j->desc, j->in_place ? to : j->logits->data, j->targets->data,
                  j->row_weights ? j->row_weights->data : NULL, j->sum->data, to, j->workspace->data));
  finish_loss(t, j);
}

static double sum_of_weights(const double *w, int64_t rows) {
  double sum = 0;
  for (int64_t i = 0; i < rows; i++) sum += w ? w[i] : 1;
  return sum;
}

typedef struct {
  const sw_loss_desc *desc;
  const int32_t *labels;
  const double *targets, *class_weights, *row_weights;
} scalar;
static double ce_objective(const double *l, void *argument) {
  scalar *s = argument;
  return s->desc->scale * sw_cross_entropy_reference(s->desc, l, s->labels, s->class_weights, s->row_weights, NULL);
}
static double bce_objective(const double *l, void *argument) {
  scalar *s = argument;
  return s->desc->scale * sw_sigmoid_bce_reference(s->desc, l, s->targets, s->row_weights, NULL);
}

static void check_runs(kt *t, job *j, double want, double tolerance) {
  kt_check(t, fabs(j->losses[0] - 3 - want) <= tolerance, "loss %.12g, want %.12g within %.3g", j->losses[0] - 3, want, tolerance);
  for (int r = 1; r < j->runs; r++)
    kt_check(t, memcmp(&j->losses[0], &j->losses[r], sizeof(double)) == 0, "loss %.17g and %.17g in runs 1 and %d", j->losses[0],
             j->losses[r], r + 1);
}

/* Runs `op` apart and in place, with threads; compares with loss and gradient. */
static void run_both_ways(kt *t, job *j, kt_run_fn *op, double want, const double *gradient) {
  double weights = sum_of_weights(j->row_weights ? j->row_weights->host : NULL, j->desc.rows), scale = kt_largest(j->logits->host, j->logits->count);
  double columns = op == sigmoid_bce ? j->desc.classes : 1, loss_tolerance = 1e-6 * (scale + log(j->desc.classes) + 1) * weights * columns + 1e-12;
  double largest = kt_largest(gradient, j->logits->count);
  j->runs = 0;
  kt_with_threads(t, "apart", op, j, (kt_tensor *[]){j->dlogits}, 1);
  kt_compare(t, "dlogits", j->dlogits, gradient, 4e-6, 2e-7 * largest);
  check_runs(t, j, want, loss_tolerance);
  kt_tensor *apart = j->dlogits;
  j->dlogits = j->copy;
  j->in_place = 1;
  j->runs = 0;
  kt_with_threads(t, "in place", op, j, (kt_tensor *[]){j->copy}, 1);
  kt_same_bits(t, "in place and apart", apart, j->copy);
  check_runs(t, j, want, loss_tolerance);
  j->dlogits = NULL;
  j->in_place = 0;
  double loss = j->loss;
  op(t, j);
  kt_check(t, j->loss == loss, "the loss without gradients is %.17g, not %.17g", j->loss, loss);
  j->dlogits = apart;
}

static job make(kt *t, int64_t rows, int classes, double deviation, int weights) {
  job j = {.desc = {rows, classes, -100, (float)(1.0 / (rows ? (double)rows : 1))}};
  j.logits = kt_new(t, "logits", SW_F32, rows * classes);
  j.copy = kt_new(t, "logits in place", SW_F32, rows * classes);
  j.dlogits = kt_new(t, "dlogits", SW_F32, rows * classes);
  j.sum = kt_bytes(t, "loss", sizeof j.loss);
  j.workspace = kt_bytes(t, "workspace", SW_SUM_WORKSPACE);
  kt_normal(t, j.logits, 0, deviation);
  memcpy(j.copy->host, j.logits->host, (size_t)(rows * classes) * sizeof(double));
  kt_upload(t, j.copy);
  if (weights) {
    j.class_weights = kt_new(t, "class weights", SW_F32, classes);
    j.row_weights = kt_new(t, "row weights", SW_F32, rows);
    kt_uniform(t, j.class_weights, 0.1, 3);
    kt_uniform(t, j.row_weights, 0, 2);
  }
  return j;
}

static void check_cross_entropy(kt *t, int64_t rows, int classes, double deviation, int weights) {
  kt_case(t, "cross entropy %lld x %d, deviation %g%s", (long long)rows, classes, deviation, weights ? ", weights" : "");
  job j = make(t, rows, classes, deviation, weights);
  int32_t *labels = malloc((size_t)(rows + 1) * sizeof *labels);
  for (int64_t i = 0; i < rows; i++) labels[i] = kt_below(t, 4) ? kt_below(t, classes) : -100;
  j.labels = kt_int32(t, "labels", rows, labels);
  double *gradient = kt_doubles(t, rows * classes), *cw = weights ? j.class_weights->host : NULL, *rw = weights ? j.row_weights->host : NULL;
  double loss = sw_cross_entropy_reference(&j.desc, j.logits->host, labels, cw, rw, gradient);
  run_both_ways(t, &j, cross_entropy, loss, gradient);
  scalar s = {&j.desc, labels, NULL, cw, rw};
  if (rows * classes < 100000) kt_finite_difference(t, "reference", ce_objective, &s, j.logits->host, gradient, rows * classes);
  /* a row alone: the same bits */
  if (rows > 3) {
    job one = make(t, 1, classes, 1, 0);
    int64_t r = rows - 2;
    one.desc.scale = j.desc.scale;
    memcpy(one.logits->host, j.logits->host + r * classes, (size_t)classes * sizeof(double));
    kt_upload(t, one.logits);
    one.labels = kt_int32(t, "label", 1, labels + r);
    one.class_weights = j.class_weights;
    if (weights) {
      one.row_weights = kt_new(t, "row weight", SW_F32, 1);
      kt_fill(t, one.row_weights, j.row_weights->host[r]);
    }
    cross_entropy(t, &one);
    kt_same_bits_at(t, "row alone", one.dlogits, 0, j.dlogits, r * classes, classes);
  }
  free(labels);
  kt_clear(t);
}

static void check_bce(kt *t, int64_t rows, int classes, double deviation, int weights) {
  kt_case(t, "sigmoid BCE %lld x %d, deviation %g%s", (long long)rows, classes, deviation, weights ? ", weights" : "");
  job j = make(t, rows, classes, deviation, weights);
  j.targets = kt_new(t, "targets", SW_F32, rows * classes);
  kt_uniform(t, j.targets, 0, 1);
  for (int64_t i = 0; i < rows * classes; i++) /* most targets are 0 or 1 */
    if (kt_below(t, 4)) j.targets->host[i] = j.targets->host[i] > 0.7;
  kt_upload(t, j.targets);
  double *gradient = kt_doubles(t, rows * classes), *rw = weights ? j.row_weights->host : NULL;
  double loss = sw_sigmoid_bce_reference(&j.desc, j.logits->host, j.targets->host, rw, gradient);
  run_both_ways(t, &j, sigmoid_bce, loss, gradient);
  scalar s = {&j.desc, NULL, j.targets->host, NULL, rw};
  if (rows * classes < 100000) kt_finite_difference(t, "reference", bce_objective, &s, j.logits->host, gradient, rows * classes);
  kt_clear(t);
}

/* Tiny losses keep their relative accuracy: with l = -20 and t = 0 the loss is e^-20, not 0. */
static void check_bce_tails(kt *t) {
  kt_case(t, "sigmoid BCE, confident");
  for (int l = 1; l <= 60; l += 7) {
    job j = make(t, 1, 1, 1, 0);
    j.targets = kt_new(t, "targets", SW_F32, 1);
    kt_fill(t, j.targets, 0);
    kt_fill(t, j.logits, -l);
    j.desc.scale = 1;
    sigmoid_bce(t, &j);
    kt_download(t, j.dlogits);
    double want = 1 / (1 + exp(l));
    kt_check(t, fabs(j.dlogits->host[0] - want) <= 1e-6 * want, "gradient at -%d: %g, want %g", l, j.dlogits->host[0], want);
    kt_check(t, fabs(j.loss - 3 - log1p(exp(-l))) <= 1e-6 * log1p(exp(-l)) + 1e-15, "loss at -%d: %g, want %g", l, j.loss - 3, log1p(exp(-l)));
    kt_clear(t);
  }
}

static void check_log_softmax(kt *t, int64_t rows, int classes, double deviation) {
  kt_case(t, "log softmax %lld x %d", (long long)rows, classes);
  job j = make(t, rows, classes, deviation, 0);
  double *want = kt_doubles(t, rows * classes);
  sw_log_softmax_reference(&j.desc, j.logits->host, want);
  for (int threads = 1; threads <= 3; threads++) {
    t->stream.threads = threads;
    kt_ok(t, SW_RUN(&t->stream, log_softmax, &j.desc, j.logits->data, j.dlogits->data));
    kt_compare(t, "y", j.dlogits, want, 5e-7, 5e-7 * (deviation + log(classes)));
  }
  t->stream.threads = 2;
  kt_ok(t, SW_RUN(&t->stream, log_softmax, &j.desc, j.copy->data, j.copy->data));
  kt_same_bits(t, "in place and apart", j.dlogits, j.copy);
  kt_clear(t);
}

static void special_values(kt *t) {
  static const int classes[] = {2, 5, 40};
  for (int c = 0; c < 3; c++)
    for (int at = 0; at < classes[c]; at += classes[c] - 1) {
      kt_case(t, "special values, %d classes, at %d", classes[c], at);
      int32_t labels[] = {0, 1, -100};
      job j = make(t, 3, classes[c], 1, 0);
      j.labels = kt_int32(t, "labels", 3, labels);
      j.logits->host[classes[c] + at] = NAN; /* second row */
      j.logits->host[2 * classes[c]] = NAN;  /* ignored row */
      kt_upload(t, j.logits);
      double *gradient = kt_doubles(t, 3 * classes[c]);
      sw_cross_entropy_reference(&j.desc, j.logits->host, labels, NULL, NULL, gradient);
      for (int i = classes[c]; i < 2 * classes[c]; i++) gradient[i] = NAN;
      cross_entropy(t, &j);
      kt_check(t, isnan(j.loss), "the loss of a row with NaN is %g", j.loss);
      kt_compare(t, "dlogits", j.dlogits, gradient, 1e-5, 1e-6);
      labels[1] = -100; /* without it all is well */
      j.labels = kt_int32(t, "labels", 3, labels);
      cross_entropy(t, &j);
      kt_check(t, isfinite(j.loss), "NaN in an ignored row makes the loss %g", j.loss);

      j.targets = kt_new(t, "targets", SW_F32, 3 * classes[c]);
      kt_fill(t, j.targets, 1);
      sigmoid_bce(t, &j);
      kt_check(t, isnan(j.loss), "the BCE of a row with NaN is %g", j.loss);
      kt_download(t, j.dlogits);
      kt_check(t, isnan(j.dlogits->host[classes[c] + at]), "the BCE gradient of NaN is %g", j.dlogits->host[classes[c] + at]);

      /* a class ruled out by -infinity; logits far apart */
      kt_normal(t, j.logits, 0, 1000);
      j.logits->host[at] = -INFINITY;
      kt_upload(t, j.logits);
      labels[0] = at ? 0 : 1, labels[1] = 1;
      j.labels = kt_int32(t, "labels", 3, labels);
      double want = sw_cross_entropy_reference(&j.desc, j.logits->host, labels, NULL, NULL, gradient);
      cross_entropy(t, &j);
      kt_compare(t, "dlogits", j.dlogits, gradient, 1e-5, 1e-7);
      kt_check(t, fabs(j.loss - 3 - want) <= 1e-6 * want + 1e-6, "loss %.9g, want %.9g", j.loss - 3, want);
      kt_clear(t);
    }
  kt_case(t, "equal logits are exact");
  job j = make(t, 2, 4, 1, 0);
  kt_fill(t, j.logits, 7);
  j.desc.scale = 0.5f;
  j.labels = kt_int32(t, "labels", 2, (int32_t[]){3, 0});
  cross_entropy(t, &j);
  kt_compare(t, "dlogits", j.dlogits, (double[]){0.125, 0.125, 0.125, -0.375, -0.375, 0.125, 0.125, 0.125}, 0, 0);
  kt_clear(t);
}

static int try_cross_entropy(kt *t, job *j) {
  start_loss(t, j);
  int status = SW_RUN(&t->stream, cross_entropy, &j->desc, j->logits->data, j->labels, NULL, NULL, j->sum->data, j->dlogits->data,
                      j->workspace->data);
  finish_loss(t, j);
  kt_download(t, j->dlogits);
  return status;
}
static void bad_input(kt *t) {
  static const struct {
    int32_t labels[3];
    int bad;
    const char *message;
  } cases[] = {{{0, -100, 5}, 2, "row 2 has label 5"}, {{0, -1, 4}, 1, "row 1 has label -1"}};
  for (int k = 0; k < 2; k++) {
    kt_case(t, "bad input: %s", cases[k].message);
    job j = make(t, 3, 5, 1, 0);
    j.labels = kt_int32(t, "labels", 3, cases[k].labels);
    if (!strcmp(t->device->backend, "cpu")) {
      kt_fails(t, try_cross_entropy(t, &j), cases[k].message);
      kt_check(t, j.loss == 3 && isnan(j.dlogits->host[0]), "a refused call has written something");
    } else { /* labels are known on the device only: the row and the loss become NaN */
      kt_ok(t, try_cross_entropy(t, &j));
      kt_check(t, isnan(j.loss), "the loss is %g", j.loss);
      for (int i = 0; i < 15; i++)
        kt_check(t, !isnan(j.dlogits->host[i]) == (i / 5 != cases[k].bad), "dlogits[%d] is %g", i, j.dlogits->host[i]);
    }
    j.desc.classes = 0;
    kt_fails(t, try_cross_entropy(t, &j), "0 classes");
    kt_fails(t, SW_RUN(&t->stream, log_softmax, &j.desc, j.logits->data, j.dlogits->data), "0 classes");
    kt_clear(t);
  }
}

static void bench(kt *t) {
  static const struct {
    int64_t rows;
    int classes;
  } shapes[] = {{300, 30522}, {8192, 3}, {8192, 32}, {512, 2000}};
  for (int s = 0; s < 4; s++) {
    char name[64];
    job j = make(t, shapes[s].rows, shapes[s].classes, 1, 0);
    int32_t *labels = calloc((size_t)shapes[s].rows, sizeof *labels);
    j.labels = kt_int32(t, "labels", shapes[s].rows, labels);
    free(labels);
    j.targets = j.copy;
    snprintf(name, sizeof name, "cross_entropy %lld x %d", (long long)shapes[s].rows, shapes[s].classes);
    kt_report(t, name, kt_seconds(t, cross_entropy, &j), 0, (double)j.logits->bytes * 2);
    snprintf(name, sizeof name, "sigmoid_bce %lld x %d", (long long)shapes[s].rows, shapes[s].classes);
    kt_report(t, name, kt_seconds(t, sigmoid_bce, &j), 0, (double)j.logits->bytes * 3);
    kt_clear(t);
  }
}

int main(int argc, char **argv) {
  kt t;
  int status = kt_open(&t, argc, argv);
  if (status) return status;
  static const int classes[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33, 515};
  for (int weights = 0; weights <= 1; weights++) {
    for (int c = 0; c < (int)(sizeof classes / sizeof *classes); c++) {
      check_cross_entropy(&t, 1, classes[c], 1, weights);
      check_cross_entropy(&t, 77, classes[c], 3, weights);
      check_bce(&t, 1, classes[c], 1, weights);
      check_bce(&t, 39, classes[c], 3, weights);
    }
    check_cross_entropy(&t, 0, 5, 1, weights);
    check_cross_entropy(&t, 4999, 3, 2, weights); /* more rows than one round of the row buffer */
    check_bce(&t, 4999, 2, 2, weights);
    check_cross_entropy(&t, 9, 30522, 2, weights);
    check_cross_entropy(&t, 5, 40003, 2, weights); /* more than a GPU's block holds in registers */
    check_bce(&t, 9, 5000, 2, weights);
    check_cross_entropy(&t, 20, 30, 40, weights); /* far apart: only the true maximum keeps the exponentials in range */
    check_cross_entropy(&t, 20, 300, 80, weights);
  }
  check_bce_tails(&t);
  check_log_softmax(&t, 61, 37, 2);
  check_log_softmax(&t, 5, 30522, 3);
  check_log_softmax(&t, 4, 40004, 3);
  check_log_softmax(&t, 7, 2, 30);
  special_values(&t);
  bad_input(&t);
  if (t.bench) bench(&t);
  return kt_close(&t);
}
