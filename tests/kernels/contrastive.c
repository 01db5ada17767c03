/* The in-batch-negatives loss against the double reference. */
#include "kernels/contrastive/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_contrastive_desc desc;
  kt_tensor *queries, *candidates, *weights, *dqueries, *dcandidates, *sum, *workspace;
  int32_t *positive; /* device */
  double loss, losses[5];
  int runs;
} job;

static int try_contrastive(kt *t, job *j) {
  j->loss = 3; /* the loss is added to */
  if (t->device->copy_in(&t->stream, j->sum->data, &j->loss, sizeof j->loss)) exit(1);
  int status = SW_RUN(&t->stream, contrastive, &j->desc, j->queries->data, j->candidates->data, j->positive, j->weights ? j->weights->data : NULL,
                      j->sum->data, j->dqueries ? j->dqueries->data : NULL, j->dcandidates ? j->dcandidates->data : NULL, j->workspace->data);
  if (t->device->copy_out(&t->stream, &j->loss, j->sum->data, sizeof j->loss) || t->device->synchronize(&t->stream)) exit(1);
  return status;
}
static void contrastive(kt *t, void *argument) {
  job *j = argument;
  kt_ok(t, try_contrastive(t, j));
  if (j->runs < 5) j->losses[j->runs++] = j->loss;
}

static job make(kt *t, int64_t rows, int64_t candidates, int hidden, float similarity_scale, int weights, const int32_t *positive) {
  job j = {.desc = {rows, candidates, hidden, similarity_scale, (float)(1.0 / (rows ? (double)rows : 1))}};
  j.queries = kt_new(t, "queries", SW_F32, rows * hidden);
  j.candidates = kt_new(t, "candidates", SW_F32, candidates * hidden);
  j.dqueries = kt_new(t, "dqueries", SW_F32, rows * hidden);
  j.dcandidates = kt_new(t, "dcandidates", SW_F32, candidates * hidden);
  kt_normal(t, j.queries, 0, 1 / sqrt(hidden));
  kt_normal(t, j.candidates, 0, 1 / sqrt(hidden));
  j.sum = kt_bytes(t, "loss", sizeof j.loss);
  if (weights) {
    j.weights = kt_new(t, "weights", SW_F32, rows);
    kt_uniform(t, j.weights, 0, 2);
  }
  j.positive = kt_int32(t, "positive", rows, positive);
  int threads = t->stream.threads;
  size_t bytes;
  t->stream.threads = 3; /* the most that kt_with_threads takes */
  kt_ok(t, SW_RUN(&t->stream, contrastive_workspace, &j.desc, &bytes));
  t->stream.threads = threads;
  j.workspace = kt_bytes(t, "workspace", bytes);
  return j;
}

typedef struct {
  const job *j;
  const int32_t *positive;
  const double *other;
  int candidates; /* x is the candidates, other the queries */
} scalar;
static double objective(const double *x, void *argument) {
  scalar *s = argument;
  return s->j->desc.scale * sw_contrastive_reference(&s->j->desc, s->candidates ? s->other : x, s->candidates ? x : s->other, s->positive,
                                                     s->j->weights ? s->j->weights->host : NULL, NULL, NULL);
}

static void against_reference(kt *t, int64_t rows, int64_t candidates, int hidden, float similarity_scale, int weights) {
  kt_case(t, "%lld x %lld, hidden %d, scale %g%s", (long long)rows, (long long)candidates, hidden, similarity_scale, weights ? ", weights" : "");
  int32_t *positive = malloc((size_t)(rows + 1) * sizeof *positive);
  for (int64_t i = 0; i < rows; i++) positive[i] = kt_below(t, 3) ? (int32_t)(i % candidates) : kt_below(t, (int)candidates); /* some shared */
  job j = make(t, rows, candidates, hidden, similarity_scale, weights, positive);
  double *w = weights ? j.weights->host : NULL, *dq = kt_doubles(t, rows * hidden), *dc = kt_doubles(t, candidates * hidden);
  double want = sw_contrastive_reference(&j.desc, j.queries->host, j.candidates->host, positive, w, dq, dc);
  kt_with_threads(t, "contrastive", contrastive, &j, (kt_tensor *[]){j.dqueries, j.dcandidates}, 2);
  /* an error of a score s is one of e^s; a score's is some 2^-24 of the sum of its products' magnitudes, which is about similarity_scale */
  double error = 1e-6 + 3e-7 * similarity_scale, largest = kt_largest(dq, rows * hidden), largest_c = kt_largest(dc, candidates * hidden);
  kt_check(t, rows == 0 || (largest > 0 && largest_c > 0) || candidates == 1, "the gradient is all zero");
  kt_compare(t, "dqueries", j.dqueries, dq, error, error * largest + 1e-7 * similarity_scale * (candidates == 1));
  kt_compare(t, "dcandidates", j.dcandidates, dc, error, error * largest_c + 1e-7 * similarity_scale * (candidates == 1));
  double tolerance = error * 2 * (double)rows + 1e-12;
  kt_check(t, fabs(j.losses[0] - 3 - want) <= tolerance, "loss %.12g, want %.12g within %.3g", j.losses[0] - 3, want, tolerance);
  for (int r = 1; r < j.runs; r++)
    kt_check(t, memcmp(&j.losses[0], &j.losses[r], sizeof(double)) == 0, "loss %.17g and %.17g in runs 1 and %d", j.losses[0], j.losses[r], r + 1);
  if (rows * candidates * hidden <= 4000) {
    scalar q = {&j, positive, j.candidates->host, 0}, c = {&j, positive, j.queries->host, 1};
    kt_finite_difference(t, "reference of dqueries", objective, &q, j.queries->host, dq, rows * hidden);
    kt_finite_difference(t, "reference of dcandidates", objective, &c, j.candidates->host, dc, candidates * hidden);
  }
  /* each gradient alone and none: the same bits */
  kt_tensor *both[2] = {j.dqueries, j.dcandidates}, *alone[2];
  double loss = j.loss;
  for (int k = 0; k < 2; k++) alone[k] = kt_new(t, "alone", SW_F32, both[k]->count);
  j.dqueries = alone[0], j.dcandidates = NULL;
  contrastive(t, &j);
  kt_same_bits(t, "dqueries alone", alone[0], both[0]);
  j.dqueries = NULL, j.dcandidates = alone[1];
  contrastive(t, &j);
  kt_same_bits(t, "dcandidates alone", alone[1], both[1]);
  j.dcandidates = NULL;
  contrastive(t, &j);
  kt_check(t, j.loss == loss, "the loss without gradients is %.17g, not %.17g", j.loss, loss);
  free(positive);
  kt_clear(t);
}

/* Equal candidates: every probability is 1 / 4, whole numbers in powers of two. */
static void exact(kt *t) {
  kt_case(t, "exact");
  enum { ROWS = 5, HIDDEN = 37 };
  const int32_t positive[ROWS] = {0, 1, 1, 3, 2};
  job j = make(t, ROWS, 4, HIDDEN, 4, 0, positive);
  kt_integers(t, j.queries, -3, 3);
  kt_integers(t, j.candidates, -3, 3);
  for (int i = HIDDEN; i < 4 * HIDDEN; i++) j.candidates->host[i] = j.candidates->host[i % HIDDEN];
  kt_upload(t, j.candidates);
  j.desc.scale = 0.5f;
  double *dq = kt_doubles(t, ROWS * HIDDEN), *dc = kt_doubles(t, 4 * HIDDEN);
  for (int i = 0; i < ROWS; i++)
    for (int c = 0; c < 4; c++)
      for (int h = 0; h < HIDDEN; h++) dc[c * HIDDEN + h] += 2 * (0.25 - (c == positive[i])) * j.queries->host[i * HIDDEN + h];
  contrastive(t, &j);
  kt_check(t, kt_largest(dc, 4 * HIDDEN) > 0, "the result is all zero");
  kt_compare(t, "dqueries", j.dqueries, dq, 0, 0);
  kt_compare(t, "dcandidates", j.dcandidates, dc, 0, 0);
  kt_check(t, fabs(j.loss - 3 - ROWS * log(4)) <= 1e-6, "loss %.12g, want %.12g", j.loss - 3, ROWS * log(4));
  kt_clear(t);
}

/* NaN spreads to what depends on it: the loss, the query's gradient and every candidate's. */
static void special_values(kt *t) {
  kt_case(t, "NaN in a query");
  const int32_t positive[3] = {0, 1, 2};
  job j = make(t, 3, 9, 5, 20, 0, positive);
  j.queries->host[5 + 2] = NAN; /* second query */
  kt_upload(t, j.queries);
  contrastive(t, &j);
  kt_download(t, j.dqueries);
  kt_download(t, j.dcandidates);
  kt_check(t, isnan(j.loss), "the loss is %g", j.loss);
  for (int i = 0; i < 15; i++) kt_check(t, !isnan(j.dqueries->host[i]) == (i / 5 != 1), "dqueries[%d] is %g", i, j.dqueries->host[i]);
  for (int i = 0; i < 45; i++) kt_check(t, isnan(j.dcandidates->host[i]), "dcandidates[%d] is %g", i, j.dcandidates->host[i]);
  kt_clear(t);

  kt_case(t, "far apart"); /* only the true maximum keeps the exponentials in range, wherever it is */
  for (int at = 0; at < 300; at += 37) {
    const int32_t one[1] = {5};
    j = make(t, 1, 300, 3, 20, 0, one);
    kt_fill(t, j.queries, 1);
    kt_fill(t, j.candidates, -1);
    for (int h = 0; h < 3; h++) j.candidates->host[at * 3 + h] = 40;
    kt_upload(t, j.candidates);
    double dq[3], dc[900], want = sw_contrastive_reference(&j.desc, j.queries->host, j.candidates->host, one, NULL, dq, dc);
    contrastive(t, &j);
    kt_compare(t, "dqueries", j.dqueries, dq, 1e-6, 0);
    kt_compare(t, "dcandidates", j.dcandidates, dc, 1e-6, 1e-30);
    kt_check(t, fabs(j.loss - 3 - want) <= 1e-6 * want, "loss %.9g, want %.9g", j.loss - 3, want);
    kt_clear(t);
  }
}

static void bad_input(kt *t) {
  static const struct {
    int32_t positive[3];
    int bad;
    const char *message;
  } cases[] = {{{0, 1, 5}, 2, "row 2 has positive 5"}, {{0, -1, 4}, 1, "row 1 has positive -1"}};
  for (int k = 0; k < 2; k++) {
    kt_case(t, "bad input: %s", cases[k].message);
    job j = make(t, 3, 5, 4, 20, 0, cases[k].positive);
    int status = try_contrastive(t, &j);
    kt_download(t, j.dqueries);
    kt_download(t, j.dcandidates);
    if (!strcmp(t->device->backend, "cpu")) {
      kt_fails(t, status, cases[k].message);
      kt_check(t, j.loss == 3 && isnan(j.dqueries->host[0]), "a refused call has written something");
    } else { /* known on the device only */
      kt_ok(t, status);
      kt_check(t, isnan(j.loss), "the loss is %g", j.loss);
      for (int i = 0; i < 12; i++)
        kt_check(t, !isnan(j.dqueries->host[i]) == (i / 4 != cases[k].bad), "dqueries[%d] is %g", i, j.dqueries->host[i]);
      for (int i = 0; i < 20; i++) kt_check(t, isnan(j.dcandidates->host[i]), "dcandidates[%d] is %g", i, j.dcandidates->host[i]);
    }
    j.desc.candidates = 0;
    kt_fails(t, try_contrastive(t, &j), "0 candidates");
    size_t bytes;
    kt_fails(t, SW_RUN(&t->stream, contrastive_workspace, &j.desc, &bytes), "0 candidates");
    kt_clear(t);
  }
}

static void bench(kt *t) {
  static const int64_t sizes[] = {64, 512, 4096};
  for (int s = 0; s < 3; s++) {
    int64_t n = sizes[s];
    int32_t *positive = malloc((size_t)n * sizeof *positive);
    for (int64_t i = 0; i < n; i++) positive[i] = (int32_t)i;
    job j = make(t, n, n, 384, 20, 0, positive);
    char name[64];
    snprintf(name, sizeof name, "contrastive %lld x %lld x 384", (long long)n, (long long)n);
    kt_report(t, name, kt_seconds(t, contrastive, &j), 2.0 * 5 * (double)n * (double)n * 384, 0); /* scores thrice, two gradients */
    free(positive);
    kt_clear(t);
  }
}

int main(int argc, char **argv) {
  kt t;
  int status = kt_open(&t, argc, argv);
  if (status) return status;
  int small = kt_small(&t);
  static const int hiddens[] = {1, 5, 16, 37, 64, 131, 384, 1030};
  for (int h = 0; h < (int)(sizeof hiddens / sizeof *hiddens); h++) {
    against_reference(&t, 13, 19, hiddens[h], 20, h % 2);
    if (!small) against_reference(&t, 130, 261, hiddens[h], 20, !(h % 2));
  }
  for (int n = 1; n <= 4; n++) against_reference(&t, n, 1 + n % 3, 8, 5, 1);
  against_reference(&t, 0, 7, 12, 20, 0);
  against_reference(&t, 1, 300, 20, 20, 0);
  against_reference(&t, 300, 1, 20, 20, 1);
  against_reference(&t, small ? 130 : 513, small ? 150 : 700, 24, 50, 1);
  if (!small) against_reference(&t, 1500, 40, 48, 1, 0);
  exact(&t);
  special_values(&t);
  bad_input(&t);
  if (t.bench) bench(&t);
  return kt_close(&t);
}
