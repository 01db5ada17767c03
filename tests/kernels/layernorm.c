/* Residual + dropout + LayerNorm, forward and backward, against the fp64 reference. */
#include "kernels/layernorm/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_layernorm_desc desc;
  kt_tensor *x, *residual, *gamma, *beta, *y, *mean, *rstd, *dy, *z, *dz, *dx, *dgamma, *dbeta, *workspace;
  int training;
} layer;

static void forward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, layernorm_forward, &l->desc, l->x->data, l->residual ? l->residual->data : NULL,
                  l->gamma->data, l->beta->data, l->y->data, l->training ? l->mean->data : NULL,
                  l->training ? l->rstd->data : NULL));
}
static void backward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, layernorm_backward, &l->desc, l->dy->data, l->z->data, l->gamma->data, l->mean->data,
                  l->rstd->data, l->dz->data, l->dx ? l->dx->data : NULL, l->dgamma->data, l->dbeta->data, l->workspace->data));
}
static kt_tensor *workspace_of(kt *t, const sw_layernorm_desc *desc) {
  size_t bytes = 0;
  kt_ok(t, SW_RUN(&t->stream, layernorm_workspace, desc, &bytes));
  return kt_bytes(t, "workspace", bytes);
}

/* one rounding of the result to the storage dtype, or a few of fp32 arithmetic */
static double rtol_of(sw_dtype dtype) {
  return dtype == SW_F32 ? 2e-6 : 0x1p-8;
}

static double *mask_of(kt *t, const sw_dropout *dropout, int64_t count) {
  if (dropout->p == 0) return NULL;
  double *mask = kt_doubles(t, count);
  for (int64_t i = 0; i < count; i++) mask[i] = sw_reference_multiplier(dropout, (uint64_t)i);
  return mask;
}
static double *copy_of(kt *t, const double *from, int64_t count) {
  double *to = kt_doubles(t, count);
  memcpy(to, from, (size_t)count * sizeof *to);
  return to;
}

static void one_case(kt *t, sw_dtype dtype, int64_t tokens, int hidden, float p, int with_residual) {
  kt_case(t, "%s tokens %lld hidden %d p %g%s", sw_dtype_name(dtype), (long long)tokens, hidden, p,
          with_residual ? " residual" : "");
  int64_t count = tokens * hidden;
  layer l = {
      .desc = {tokens, hidden, 1e-12f, dtype, {.p = p, .seed = t->seed ^ 0x123456789abcdef0ull, .site = 7, .step = 41, .first = 4 * (uint64_t)tokens}},
      .training = 1};
  l.x = kt_new(t, "x", dtype, count), l.y = kt_new(t, "y", dtype, count);
  l.residual = with_residual ? kt_new(t, "residual", dtype, count) : NULL;
  l.gamma = kt_new(t, "gamma", SW_F32, hidden), l.beta = kt_new(t, "beta", SW_F32, hidden);
  l.mean = kt_new(t, "mean", SW_F32, tokens), l.rstd = kt_new(t, "rstd", SW_F32, tokens);
  kt_normal(t, l.x, 0.5, 2);
  if (l.residual) kt_normal(t, l.residual, -1, 1);
  kt_normal(t, l.gamma, 1, 0.3);
  kt_normal(t, l.beta, 0, 0.3);
  double *mask = mask_of(t, &l.desc.dropout, count);
  double *z = kt_doubles(t, count), *y = kt_doubles(t, count), *mean = kt_doubles(t, tokens),
         *rstd = kt_doubles(t, tokens);
  sw_reference_layernorm_forward(tokens, hidden, l.desc.eps, l.x->host, mask, l.residual ? l.residual->host : NULL,
                                 l.gamma->host, l.beta->host, NULL, z, y, mean, rstd);
  kt_with_threads(t, "forward", forward, &l, (kt_tensor *[]){l.x, l.y, l.mean, l.rstd}, 4);
  /* hidden = 1 leaves nothing but eps: y is beta plus amplified rounding, so only z and the mean are looked at */
  double scale = kt_largest(y, count);
  if (hidden > 1) {
    double smallest = INFINITY; /* nearly constant rows lose digits: errors in z are multiplied by rstd */
    for (int64_t i = 0; i < tokens; i++) smallest = fmin(smallest, 1 / rstd[i]);
    kt_compare(t, "y", l.y, y, rtol_of(dtype), 1e-6 * scale + 2e-6 / smallest);
    kt_compare(t, "rstd", l.rstd, rstd, 2e-6 + 2e-6 / smallest, 0);
  }
  kt_compare(t, "z", l.x, z, rtol_of(dtype), 1e-6);
  kt_compare(t, "mean", l.mean, mean, 2e-6, 2e-6);
  if (p == 0 && !with_residual) { /* z is x, so x can serve once more: without statistics, the same bits */
    layer inference = l;
    inference.training = 0;
    inference.y = kt_new(t, "y without statistics", dtype, count);
    forward(t, &inference);
    kt_same_bits(t, "inference", inference.y, l.y);
  }

  /* backward, from z, mean and rstd as they are stored */
  l.z = kt_new(t, "z", dtype, count), l.dy = kt_new(t, "dy", dtype, count), l.dz = kt_new(t, "dz", dtype, count);
  l.dx = p > 0 ? kt_new(t, "dx", dtype, count) : NULL;
  l.dgamma = kt_new(t, "dgamma", SW_F32, hidden), l.dbeta = kt_new(t, "dbeta", SW_F32, hidden);
  l.workspace = workspace_of(t, &l.desc);
  kt_normal(t, l.z, -0.5, 1.5);
  kt_normal(t, l.dy, 0, 1);
  kt_normal(t, l.dgamma, 0, 1);
  kt_normal(t, l.dbeta, 0, 1);
  double *dz = kt_doubles(t, count), *dx = kt_doubles(t, count);
  double *dgamma = copy_of(t, l.dgamma->host, hidden), *dbeta = copy_of(t, l.dbeta->host, hidden);
  sw_reference_layernorm_forward(tokens, hidden, l.desc.eps, l.z->host, NULL, NULL, l.gamma->host, l.beta->host, NULL,
                                 NULL, y, l.mean->host, l.rstd->host);
  kt_upload(t, l.mean);
  kt_upload(t, l.rstd);
  sw_reference_layernorm_backward(tokens, hidden, l.desc.eps, l.dy->host, l.z->host, l.gamma->host, mask, NULL, dz, dx,
                                  dgamma, dbeta);
  kt_tensor *outputs[] = {l.dz, l.dgamma, l.dbeta, l.dx};
  kt_with_threads(t, "backward", backward, &l, outputs, l.dx ? 4 : 3);
  double amplified = 1; /* two nearly equal elements make rstd, and the rounding of z - mean with it, large */
  for (int64_t i = 0; i < tokens && hidden > 1; i++) amplified = fmax(amplified, l.rstd->host[i] * l.rstd->host[i]);
  if (hidden > 1) {
    kt_compare(t, "dz", l.dz, dz, rtol_of(dtype), 4e-6 * amplified);
    if (l.dx) kt_compare(t, "dx", l.dx, dx, rtol_of(dtype), 4e-6 * amplified);
    kt_compare(t, "dgamma", l.dgamma, dgamma, 1e-5, 1e-5 + 2e-6 * (double)tokens * amplified);
  }
  kt_compare(t, "dbeta", l.dbeta, dbeta, 1e-5, 1e-5);
  /* parameter gradients add; dz may be dy */
  sw_reference_layernorm_backward(tokens, hidden, l.desc.eps, l.dy->host, l.z->host, l.gamma->host, mask, NULL, dz, dx,
                                  dgamma, dbeta);
  kt_tensor *separate = l.dz;
  l.dz = l.dy;
  backward(t, &l);
  kt_same_bits(t, "dz in place", l.dz, separate);
  if (hidden > 1) kt_compare(t, "dgamma twice", l.dgamma, dgamma, 1e-5, 2e-5 + 4e-6 * (double)tokens * amplified);
  kt_compare(t, "dbeta twice", l.dbeta, dbeta, 1e-5, 2e-5);
  kt_clear(t);
}

/* A row's bits do not depend on the other rows, on whether statistics are kept, or on y overwriting the residual. */
static void rows_alone(kt *t, sw_dtype dtype, int hidden) {
  kt_case(t, "%s rows alone, hidden %d", sw_dtype_name(dtype), hidden);
  enum { TOKENS = 37 };
  int64_t count = (int64_t)TOKENS * hidden;
  layer l = {.desc = {TOKENS, hidden, 1e-5f, dtype, {0}}, .training = 1};
  l.x = kt_new(t, "x", dtype, count), l.y = kt_new(t, "y", dtype, count),
  l.residual = kt_new(t, "residual", dtype, count);
  l.gamma = kt_new(t, "gamma", SW_F32, hidden), l.beta = kt_new(t, "beta", SW_F32, hidden);
  l.mean = kt_new(t, "mean", SW_F32, TOKENS), l.rstd = kt_new(t, "rstd", SW_F32, TOKENS);
  kt_normal(t, l.x, 0, 1);
  kt_normal(t, l.residual, 0, 1);
  kt_normal(t, l.gamma, 1, 0.1);
  kt_normal(t, l.beta, 0, 0.1);
  kt_tensor *x = kt_new(t, "one x", dtype, hidden), *y = kt_new(t, "one y", dtype, hidden);
  kt_tensor *rows_x = kt_new(t, "x again", dtype, count);
  memcpy(rows_x->host, l.x->host, (size_t)count * sizeof(double));
  kt_upload(t, rows_x);
  forward(t, &l);
  for (int row = 0; row < TOKENS; row += 12) {
    layer one = l;
    one.desc.tokens = 1;
    one.training = 0;
    one.x = x;
    one.residual = y; /* y overwrites the residual */
    one.y = y;
    memcpy(x->host, rows_x->host + (int64_t)row * hidden, (size_t)hidden * sizeof(double));
    memcpy(y->host, l.residual->host + (int64_t)row * hidden, (size_t)hidden * sizeof(double));
    kt_upload(t, x);
    kt_upload(t, y);
    forward(t, &one);
    kt_same_bits_at(t, "one row", l.y, (int64_t)row * hidden, y, 0, hidden);
  }
  kt_clear(t);
}

/* Rows of +-k have mean 0 and variance k^2: with eps = 0 and k a power of two everything is exact. */
static void integers(kt *t, sw_dtype dtype) {
  kt_case(t, "%s integers", sw_dtype_name(dtype));
  enum { TOKENS = 5, HIDDEN = 64 };
  layer l = {.desc = {TOKENS, HIDDEN, 0, dtype, {0}}, .training = 1};
  l.x = kt_new(t, "x", dtype, TOKENS * HIDDEN), l.y = kt_new(t, "y", dtype, TOKENS * HIDDEN);
  l.gamma = kt_new(t, "gamma", SW_F32, HIDDEN), l.beta = kt_new(t, "beta", SW_F32, HIDDEN);
  l.mean = kt_new(t, "mean", SW_F32, TOKENS), l.rstd = kt_new(t, "rstd", SW_F32, TOKENS);
  for (int i = 0; i < TOKENS * HIDDEN; i++) l.x->host[i] = 3 + ldexp(i % 2 ? 1 : -1, i / HIDDEN);
  kt_upload(t, l.x);
  kt_integers(t, l.gamma, 1, 4);
  kt_integers(t, l.beta, -4, 4);
  double *want = kt_doubles(t, TOKENS * HIDDEN);
  for (int i = 0; i < TOKENS * HIDDEN; i++)
    want[i] = (i % 2 ? 1 : -1) * l.gamma->host[i % HIDDEN] + l.beta->host[i % HIDDEN];
  forward(t, &l);
  kt_compare(t, "y", l.y, want, 0, 0);
  kt_clear(t);
}

/* A row far from zero: E[z^2] - mean^2 in fp32 would have no digit left. A NaN stays in its row. */
static void hard_rows(kt *t) {
  kt_case(t, "hard rows");
  enum { TOKENS = 3, HIDDEN = 384 };
  layer l = {.desc = {TOKENS, HIDDEN, 1e-12f, SW_F32, {0}}, .training = 1};
  l.x = kt_new(t, "x", SW_F32, TOKENS * HIDDEN), l.y = kt_new(t, "y", SW_F32, TOKENS * HIDDEN);
  l.gamma = kt_new(t, "gamma", SW_F32, HIDDEN), l.beta = kt_new(t, "beta", SW_F32, HIDDEN);
  l.mean = kt_new(t, "mean", SW_F32, TOKENS), l.rstd = kt_new(t, "rstd", SW_F32, TOKENS);
  kt_fill(t, l.gamma, 1);
  kt_fill(t, l.beta, 0);
  for (int i = 0; i < TOKENS * HIDDEN; i++) l.x->host[i] = 4096 + ldexp(kt_below(t, 1024), -10);
  l.x->host[HIDDEN + 5] = NAN;
  kt_upload(t, l.x);
  double *y = kt_doubles(t, TOKENS * HIDDEN);
  sw_reference_layernorm_forward(TOKENS, HIDDEN, l.desc.eps, l.x->host, NULL, NULL, l.gamma->host, l.beta->host, NULL,
                                 NULL, y, NULL, NULL);
  forward(t, &l);
  kt_compare(t, "y", l.y, y, 1e-5, 5e-3); /* the mean itself is rounded to 2^-12 of fp32's grid there */
  kt_clear(t);
}

typedef struct {
  int tokens, hidden;
  const double *mask, *out_mask, *gamma, *beta, *x, *weight;
} smooth;
static double loss_of(const smooth *s, const double *x, const double *gamma, const double *beta) {
  double y[5 * 24], sum = 0;
  sw_reference_layernorm_forward(s->tokens, s->hidden, 1e-3, x, s->mask, s->x, gamma, beta, s->out_mask, NULL, y, NULL,
                                 NULL);
  for (int i = 0; i < s->tokens * s->hidden; i++) sum += y[i] * s->weight[i];
  return sum;
}
static double of_x(const double *x, void *s) {
  return loss_of(s, x, ((smooth *)s)->gamma, ((smooth *)s)->beta);
}
static double of_gamma(const double *g, void *s) {
  return loss_of(s, ((smooth *)s)->x, g, ((smooth *)s)->beta);
}
static double of_beta(const double *b, void *s) {
  return loss_of(s, ((smooth *)s)->x, ((smooth *)s)->gamma, b);
}
static void reference_by_differences(kt *t) {
  kt_case(t, "reference");
  enum { TOKENS = 5, HIDDEN = 24, COUNT = TOKENS * HIDDEN };
  double x[COUNT], mask[COUNT], out_mask[COUNT], weight[COUNT], gamma[HIDDEN], beta[HIDDEN], z[COUNT], y[COUNT];
  double dz[COUNT], dx[COUNT], dgamma[HIDDEN] = {0}, dbeta[HIDDEN] = {0};
  sw_dropout dropout = {.p = 0.25f, .seed = t->seed, .site = 1, .step = 2},
             other = {.p = 0.25f, .seed = t->seed, .site = 2};
  for (int i = 0; i < COUNT; i++) {
    x[i] = kt_random_normal(t), weight[i] = kt_random_normal(t);
    mask[i] = sw_reference_multiplier(&dropout, (uint64_t)i),
    out_mask[i] = sw_reference_multiplier(&other, (uint64_t)i);
  }
  for (int i = 0; i < HIDDEN; i++) gamma[i] = 1 + 0.3 * kt_random_normal(t), beta[i] = kt_random_normal(t);
  smooth s = {TOKENS, HIDDEN, mask, out_mask, gamma, beta, x, weight};
  double residual[COUNT];
  memcpy(residual, x, sizeof x);
  s.x = residual;
  sw_reference_layernorm_forward(TOKENS, HIDDEN, 1e-3, x, mask, residual, gamma, beta, out_mask, z, y, NULL, NULL);
  sw_reference_layernorm_backward(TOKENS, HIDDEN, 1e-3, weight, z, gamma, mask, out_mask, dz, dx, dgamma, dbeta);
  kt_finite_difference(t, "dx", of_x, &s, x, dx, COUNT);
  kt_finite_difference(t, "dgamma", of_gamma, &s, gamma, dgamma, HIDDEN);
  kt_finite_difference(t, "dbeta", of_beta, &s, beta, dbeta, HIDDEN);
}

static void refused(kt *t) {
  kt_case(t, "refused");
  kt_tensor *x = kt_new(t, "x", SW_F32, 64);
  kt_fill(t, x, 1);
  sw_layernorm_desc d = {.tokens = 1, .hidden = 100000, .eps = 1e-12f};
  kt_fails(t, SW_RUN(&t->stream, layernorm_forward, &d, x->data, NULL, x->data, x->data, x->data, NULL, NULL),
           "hidden size 100000");
  d = (sw_layernorm_desc){1, 16, 1e-12f, SW_F32, {.p = 1}};
  kt_fails(t, SW_RUN(&t->stream, layernorm_forward, &d, x->data, NULL, x->data, x->data, x->data, NULL, NULL),
           "dropout 1");
  d.dropout.p = 0.5f;
  kt_fails(t,
           SW_RUN(&t->stream, layernorm_backward, &d, x->data, x->data, x->data, x->data, x->data, x->data, NULL,
                  x->data, x->data, x->data),
           "dx is NULL");
  if (strcmp(t->device->backend, "cpu")) {
    d.tokens = 1ll << 31;
    kt_fails(t, SW_RUN(&t->stream, layernorm_forward, &d, x->data, NULL, x->data, x->data, x->data, NULL, NULL), "tokens are too many");
  }
  kt_clear(t);
}

static void bench(kt *t) {
  static const int hiddens[] = {384, 768};
  static const int thread_counts[] = {1, 2};
  for (int k = 0; k < 8; k++) {
    sw_dtype dtype = k & 1 ? SW_BF16 : SW_F32;
    int hidden = hiddens[k / 2 % 2], tokens = 8192;
    t->stream.threads = thread_counts[k / 4];
    int64_t count = (int64_t)tokens * hidden;
    layer l = {.desc = {tokens, hidden, 1e-12f, dtype, {0}}};
    l.x = kt_new(t, "x", dtype, count), l.y = kt_new(t, "y", dtype, count),
    l.residual = kt_new(t, "residual", dtype, count);
    l.gamma = kt_new(t, "gamma", SW_F32, hidden), l.beta = kt_new(t, "beta", SW_F32, hidden);
    l.mean = kt_new(t, "mean", SW_F32, tokens), l.rstd = kt_new(t, "rstd", SW_F32, tokens);
    l.dy = kt_new(t, "dy", dtype, count), l.z = kt_new(t, "z", dtype, count), l.dz = kt_new(t, "dz", dtype, count);
    l.dx = kt_new(t, "dx", dtype, count);
    l.dgamma = kt_new(t, "dgamma", SW_F32, hidden), l.dbeta = kt_new(t, "dbeta", SW_F32, hidden);
    l.workspace = workspace_of(t, &l.desc);
    kt_tensor *all[] = {l.x, l.residual, l.gamma, l.beta, l.mean, l.rstd, l.dy, l.z, l.dgamma, l.dbeta};
    for (int i = 0; i < 10; i++) kt_uniform(t, all[i], 0.5, 1);
    double bytes = (double)count * (double)sw_dtype_bytes(dtype);
    char what[80];
    snprintf(what, sizeof what, "layernorm %s %dx%d", sw_dtype_name(dtype), tokens, hidden);
    kt_report(t, what, kt_seconds(t, forward, &l), 0, 3 * bytes);
    l.desc.dropout = (sw_dropout){.p = 0.1f, .seed = 1};
    l.training = 1;
    snprintf(what, sizeof what, "layernorm %s %dx%d training, dropout", sw_dtype_name(dtype), tokens, hidden);
    kt_report(t, what, kt_seconds(t, forward, &l), 0, 4 * bytes);
    snprintf(what, sizeof what, "layernorm %s %dx%d backward, dropout", sw_dtype_name(dtype), tokens, hidden);
    kt_report(t, what, kt_seconds(t, backward, &l), 0, 4 * bytes);
    l.dx = NULL;
    l.desc.dropout.p = 0;
    snprintf(what, sizeof what, "layernorm %s %dx%d backward", sw_dtype_name(dtype), tokens, hidden);
    kt_report(t, what, kt_seconds(t, backward, &l), 0, 3 * bytes);
    kt_clear(t);
  }
}

static void tests(kt *t) {
  reference_by_differences(t);
  const int small = kt_small(t);
  static const int hiddens[] = {1, 5, 16, 31, 64, 100, 384, 768};
  for (int dtype = SW_F32; dtype <= SW_BF16; dtype++) {
    for (int h = 0; h < 8; h++) {
      int64_t tokens = h == 6 && !small ? 403
                       : h == 0         ? 3
                       : small          ? 20 + h
                                        : 70 + h; /* 403 x 384: two groups of the backward pass, neither whole */
      one_case(t, (sw_dtype)dtype, tokens, hiddens[h], 0, 1);
      one_case(t, (sw_dtype)dtype, tokens, hiddens[h], 0.1f, h % 2);
    }
    one_case(t, (sw_dtype)dtype, 11, 1000, 0, 1); /* wide rows are dealt out differently, as are those that are no multiple of four */
    one_case(t, (sw_dtype)dtype, 9, 1100, 0.1f, 1);
    one_case(t, (sw_dtype)dtype, 140, 601, 0.1f, 0); /* more rows than a GPU makes partial sums of */
    one_case(t, (sw_dtype)dtype, 2200, 12, 0, 1);
    one_case(t, (sw_dtype)dtype, 1, 384, 0, 0);
    one_case(t, (sw_dtype)dtype, 0, 384, 0.1f, 1);
    rows_alone(t, (sw_dtype)dtype, 384);
    rows_alone(t, (sw_dtype)dtype, 77);
    rows_alone(t, (sw_dtype)dtype, 1028);
    integers(t, (sw_dtype)dtype);
  }
  hard_rows(t);
  refused(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
