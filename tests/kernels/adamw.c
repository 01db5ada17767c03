/* AdamW, dense and by rows, sum of squares and casts. */
#include "kernels/adamw/reference.h"
#include "base/progress.h"
#include "tests/support/kernel_test.h"

#include <string.h>

static sw_adamw_step step_of(const sw_adamw_settings *s, int64_t t) {
  return sw_adamw_step_of(s->lr, s->beta1, s->beta2, s->eps, s->weight_decay, s->pull, t);
}

static void scalars(kt *t) {
  kt_case(t, "scalars of a step");
  for (int64_t n = 1; n < 2000000; n *= 7) {
    sw_adamw_step s = sw_adamw_step_of(3e-5, 0.9, 0.999, 1e-8, 0.01, 0.02, n);
    /* the powers by repeated squaring in long double */
    long double b1 = 1, b2 = 1, x1 = 0.9, x2 = 0.999;
    for (int64_t k = n; k; k >>= 1, x1 *= x1, x2 *= x2)
      if (k & 1) b1 *= x1, b2 *= x2;
    kt_check(t, s.step_size == (float)(3e-5L / (1 - b1)), "step size at %lld: %.9g", (long long)n, s.step_size);
    kt_check(t, s.inverse_sqrt_correction == (float)(1 / sqrtl(1 - b2)), "correction at %lld: %.9g", (long long)n, s.inverse_sqrt_correction);
    kt_check(t, s.decay == (float)(1 - 3e-5L * 0.01L) && s.pull == (float)(3e-5 * 0.02) && s.beta1 == 0.9f && s.one_minus_beta2 == 0.001f, "decay %.9g", s.decay);
  }
  sw_adamw_step s = sw_adamw_step_of(0.5, 0, 0, 1e-8, 0, 0, 1);
  kt_check(t, s.step_size == 0.5f && s.inverse_sqrt_correction == 1 && s.decay == 1, "betas of 0");
}

/* --- dense --- */
typedef struct {
  sw_adamw_desc desc;
  sw_adamw_tensor list[8];
  kt_tensor *p[8], *m[8], *v[8], *g[8], *anchor[8];
} job;
static void run_adamw(kt *t, void *argument) {
  job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, adamw, &j->desc, j->list));
}
static job make(kt *t, int tensors, const int64_t *counts) {
  job j = {.desc = {.tensors = tensors}};
  for (int i = 0; i < tensors; i++) {
    j.p[i] = kt_new(t, "p", SW_F32, counts[i]);
    j.m[i] = kt_new(t, "m", SW_F32, counts[i]);
    j.v[i] = kt_new(t, "v", SW_F32, counts[i]);
    j.g[i] = kt_new(t, "g", SW_F32, counts[i]);
    kt_normal(t, j.p[i], 0, 0.5);
    kt_fill(t, j.m[i], 0);
    kt_fill(t, j.v[i], 0);
    j.anchor[i] = kt_new(t, "anchor", SW_F32, counts[i]);
    kt_normal(t, j.anchor[i], 0, 0.5);
    j.list[i] = (sw_adamw_tensor){j.p[i]->data, j.m[i]->data, j.v[i]->data, j.g[i]->data, counts[i], i % 2, NULL};
  }
  return j;
}

static void dense(kt *t, int tensors, const int64_t *counts, double beta2, double scale) {
  kt_case(t, "dense, %d tensors, beta2 %g", tensors, beta2);
  sw_adamw_settings s = {1e-2, 0.9, beta2, 1e-8, 0.1, (float)scale, 0.7};
  job j = make(t, tensors, counts);
  for (int i = 0; i < tensors; i++) /* with and without decay, with and without an anchor */
    if (i / 2 % 2) j.list[i].anchor = j.anchor[i]->data;
  j.desc.grad_scale = (float)scale;
  double *p[8], *m[8], *v[8];
  for (int i = 0; i < tensors; i++) {
    p[i] = kt_doubles(t, counts[i]), m[i] = kt_doubles(t, counts[i]), v[i] = kt_doubles(t, counts[i]);
    memcpy(p[i], j.p[i]->host, (size_t)counts[i] * sizeof(double));
  }
  for (int64_t step = 1; step <= 20; step++) {
    j.desc.step = step_of(&s, step);
    for (int i = 0; i < tensors; i++) kt_normal(t, j.g[i], 0.01, 0.1);
    if (step == 4 && tensors == 6) {
      kt_tensor *outputs[18];
      for (int i = 0; i < 6; i++) outputs[3 * i] = j.p[i], outputs[3 * i + 1] = j.m[i], outputs[3 * i + 2] = j.v[i];
      kt_with_threads(t, "adamw", run_adamw, &j, outputs, 18);
    } else {
      run_adamw(t, &j);
    }
    for (int i = 0; i < tensors; i++) {
      const double *anchor = j.list[i].anchor ? j.anchor[i]->host : NULL;
      sw_adamw_reference(&s, step, i % 2, counts[i], j.g[i]->host, anchor, p[i], m[i], v[i]);
    }
  }
  for (int i = 0; i < tensors; i++) {
    kt_compare(t, "m", j.m[i], m[i], 2e-6, 5e-8); /* gradients of 0.1 cancel */
    kt_compare(t, "v", j.v[i], v[i], 4e-6, 0);
    kt_compare(t, "p", j.p[i], p[i], 1e-6, 2e-6); /* twenty roundings of |p| < 2 and steps of 0.01 */
  }
  kt_clear(t);
}

/* One tensor cut into many pieces, at places that are not aligned, is updated to the same bits. */
static void many_tensors(kt *t) {
  enum { PIECES = 400 };
  kt_case(t, "%d tensors", PIECES);
  int64_t count = 0, cuts[PIECES + 1] = {0};
  for (int i = 0; i < PIECES; i++) cuts[i + 1] = count += kt_below(t, 40) + (i % 100 == 7) * 5000;
  job j[2] = {make(t, 1, &count), make(t, 1, &count)};
  sw_adamw_settings s = {1e-2, 0.9, 0.999, 1e-8, 0.1, 0.5f, 0.3};
  sw_adamw_tensor pieces[PIECES];
  double want = 0, sum;
  for (int k = 0; k < 2; k++) j[k].list[0].anchor = j[0].anchor[0]->data;
  kt_tensor *squares = kt_bytes(t, "sum", 8), *workspace = kt_bytes(t, "workspace", SW_SUM_WORKSPACE);
  kt_integers(t, j[0].g[0], -9, 9);
  kt_integers(t, j[0].p[0], -9, 9);
  memcpy(j[1].g[0]->host, j[0].g[0]->host, (size_t)count * sizeof(double));
  memcpy(j[1].p[0]->host, j[0].p[0]->host, (size_t)count * sizeof(double));
  kt_upload(t, j[1].g[0]);
  kt_upload(t, j[1].p[0]);
  for (int64_t i = 0; i < count; i++) want += j[0].g[0]->host[i] * j[0].g[0]->host[i];
  for (int i = 0; i < PIECES; i++) {
    const sw_adamw_tensor w = j[1].list[0];
    pieces[i] = (sw_adamw_tensor){w.p + cuts[i], w.m + cuts[i], w.v + cuts[i], w.g + cuts[i], cuts[i + 1] - cuts[i], w.decays, w.anchor + cuts[i]};
  }
  for (int step = 1; step <= 2; step++) {
    j[0].desc.step = step_of(&s, step);
    j[0].desc.grad_scale = s.grad_scale;
    run_adamw(t, &j[0]);
    j[1].desc = j[0].desc;
    j[1].desc.tensors = PIECES;
    kt_ok(t, SW_RUN(&t->stream, adamw, &j[1].desc, pieces));
  }
  kt_same_bits(t, "p", j[0].p[0], j[1].p[0]);
  kt_same_bits(t, "m", j[0].m[0], j[1].m[0]);
  kt_same_bits(t, "v", j[0].v[0], j[1].v[0]);
  kt_ok(t, SW_RUN(&t->stream, sum_squares, PIECES, pieces, squares->data, workspace->data));
  if (t->device->copy_out(&t->stream, &sum, squares->data, sizeof sum) || t->device->synchronize(&t->stream)) exit(1);
  kt_check(t, sum == want, "the sum of squares is %g, not %g", sum, want);
  kt_clear(t);
}

static void dense_special(kt *t) {
  kt_case(t, "special values");
  job j = make(t, 1, (int64_t[]){37});
  sw_adamw_settings s = {1e-2, 0.9, 0.999, 1e-8, 0, 1, 0};
  j.desc.grad_scale = 1;
  /* the first step moves every parameter by lr against the gradient's sign, however small the gradient is beside others */
  kt_fill(t, j.p[0], 0);
  for (int i = 0; i < 37; i++) j.g[0]->host[i] = (i % 2 ? -1 : 1) * pow(10, i % 5 - 2);
  kt_upload(t, j.g[0]);
  double want[37];
  for (int i = 0; i < 37; i++) want[i] = i % 2 ? 0.01 : -0.01;
  j.desc.step = step_of(&s, 1);
  run_adamw(t, &j);
  kt_compare(t, "first step", j.p[0], want, 2e-6, 0);
  /* NaN stays in its element */
  kt_fill(t, j.g[0], 1);
  j.g[0]->host[20] = NAN;
  kt_upload(t, j.g[0]);
  run_adamw(t, &j);
  kt_download(t, j.p[0]);
  kt_download(t, j.m[0]);
  for (int i = 0; i < 37; i++)
    kt_check(t, !isnan(j.p[0]->host[i]) == (i != 20) && !isnan(j.m[0]->host[i]) == (i != 20), "p[%d] = %g", i, j.p[0]->host[i]);
  /* moments die away to 0, not to subnormal numbers */
  kt_fill(t, j.p[0], 1);
  kt_fill(t, j.m[0], 1e-25);
  kt_fill(t, j.v[0], 1e-35);
  kt_fill(t, j.g[0], 0);
  for (int64_t step = 1; step < 3000; step++) {
    j.desc.step = step_of(&s, step);
    run_adamw(t, &j);
  }
  for (int i = 0; i < 37; i++) want[i] = 0;
  kt_compare(t, "m", j.m[0], want, 0, 0);
  kt_compare(t, "v", j.v[0], want, 0, 0);
  kt_clear(t);
}

/* --- rows: the same bits as the dense update with zero gradients for the rows that were not touched --- */
typedef struct {
  sw_adamw_rows_desc desc;
  sw_adamw_step *history; /* device */
  float *p, *m, *v;
  int32_t *last_step, *touched;
  int64_t count;
  float *g;
} rows_job;
static void run_rows(kt *t, void *argument) {
  rows_job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, adamw_rows, &j->desc, j->history, j->p, j->m, j->v, j->last_step, j->touched, j->count, j->g));
}

static void sparse(kt *t, int rows, int hidden, int steps, int per_step, double eps, int decays, double pull, double m_start) {
  kt_case(t, "rows %d x %d, %d steps of %d, eps %g%s%s", rows, hidden, steps, per_step, eps, decays ? ", decay" : "", pull > 0 ? ", pull" : "");
  int64_t count = (int64_t)rows * hidden;
  sw_adamw_settings s = {5e-3, 0.9, 0.999, eps, 0.05, 0.75, pull};
  job whole = make(t, 1, &count);
  if (pull > 0) whole.list[0].anchor = whole.anchor[0]->data;
  whole.list[0].decays = decays;
  whole.desc.grad_scale = 0.75f;
  if (m_start != 0) { /* as after a resume: some rows carry moments, tiny ones that die away in between among them */
    for (int64_t i = 0; i < count; i += 3) {
      whole.m[0]->host[i] = m_start * kt_random_normal(t) * (i % 2 ? 1 : 1e-28);
      whole.v[0]->host[i] = m_start * m_start * kt_random(t);
    }
    for (int64_t i = count - hidden; i < count; i++) { /* a row whose v dies away while m is 0 */
      whole.m[0]->host[i] = 0;
      whole.v[0]->host[i] = 1e-36 * (1 + 0.02 * kt_random(t));
    }
    kt_upload(t, whole.m[0]);
    kt_upload(t, whole.v[0]);
  }
  kt_tensor *p = kt_new(t, "p by rows", SW_F32, count), *m = kt_new(t, "m by rows", SW_F32, count),
            *v = kt_new(t, "v by rows", SW_F32, count);
  kt_tensor *pairs[3][2] = {{whole.p[0], p}, {whole.m[0], m}, {whole.v[0], v}};
  for (int k = 0; k < 3; k++) {
    memcpy(pairs[k][1]->host, pairs[k][0]->host, (size_t)count * sizeof(double));
    kt_upload(t, pairs[k][1]);
  }
  int32_t *zeros = calloc((size_t)rows, 4), *chosen = malloc((size_t)(per_step + 1) * 4);
  const int64_t first = 11; /* a resume: the history begins here, and every row has seen step 10 */
  for (int i = 0; i < rows; i++) zeros[i] = (int32_t)first - 1;
  kt_tensor *last = kt_bytes(t, "last_step", (size_t)rows * 4);
  if (t->device->copy_in(&t->stream, last->data, zeros, last->bytes)) exit(1);
  rows_job j = {.desc = {rows, hidden, decays, 0.75f, 0, first, whole.list[0].anchor}, .p = p->data, .m = m->data, .v = v->data, .last_step = last->data};
  j.history = kt_bytes(t, "history", (size_t)steps * sizeof *j.history)->data;
  for (int k = 0; k < steps; k++) {
    /* a schedule: another learning rate every step, the last ones of it 0 */
    s.lr = 5e-3 * (k > steps - 3 ? 0 : 1 - (double)k / steps);
    whole.desc.step = step_of(&s, first + k);
    if (t->device->copy_in(&t->stream, j.history + k, &whole.desc.step, sizeof *j.history)) exit(1);
    int n = kt_below(t, 5) ? per_step : 0; /* sometimes nothing is touched */
    for (int i = 0; i < n;) { /* mostly low row numbers, as word frequencies are; distinct */
      chosen[i] = kt_below(t, 1 + kt_below(t, rows));
      int fresh = 1;
      for (int q = 0; q < i; q++) fresh &= chosen[q] != chosen[i];
      i += fresh;
    }
    kt_tensor *g = kt_new(t, "g of rows", SW_F32, (int64_t)n * hidden);
    kt_normal(t, g, 0, 0.1);
    kt_fill(t, whole.g[0], 0);
    for (int i = 0; i < n; i++)
      memcpy(whole.g[0]->host + (int64_t)chosen[i] * hidden, g->host + (int64_t)i * hidden, (size_t)hidden * sizeof(double));
    kt_upload(t, whole.g[0]);
    run_adamw(t, &whole);
    j.desc.step = first + k;
    j.touched = kt_int32(t, "touched", n, chosen);
    j.count = n;
    j.g = g->data;
    if (k == steps / 2)
      kt_with_threads(t, "adamw_rows", run_rows, &j, (kt_tensor *[]){p, m, v, last}, 4);
    else
      run_rows(t, &j);
    for (int i = 0; i < n; i += 7) { /* touched rows are up to date at once */
      int64_t at = (int64_t)chosen[i] * hidden;
      for (int q = 0; q < 3; q++) kt_same_bits_at(t, "touched row", pairs[q][0], at, pairs[q][1], at, hidden);
    }
    if (k == steps / 3 || k == steps - 1) {
      j.touched = NULL;
      j.count = 0;
      j.g = NULL;
      kt_with_threads(t, "all rows", run_rows, &j, (kt_tensor *[]){p, m, v, last}, 4);
      run_rows(t, &j); /* once more changes nothing */
      kt_same_bits(t, "p", whole.p[0], p);
      kt_same_bits(t, "m", whole.m[0], m);
      kt_same_bits(t, "v", whole.v[0], v);
    }
  }
  free(zeros);
  free(chosen);
  kt_clear(t);
}

static void bad_input(kt *t) {
  kt_case(t, "bad input");
  kt_tensor *p = kt_new(t, "p", SW_F32, 12), *last = kt_bytes(t, "last_step", 12);
  kt_fill(t, p, 0);
  if (t->device->copy_in(&t->stream, last->data, (int32_t[]){4, 5, 2}, 12)) exit(1);
  kt_tensor *history = kt_bytes(t, "history", 4 * sizeof(sw_adamw_step));
  if (t->device->zero(&t->stream, history->data, history->bytes)) exit(1);
  rows_job j = {.desc = {3, 4, 1, 1, 6, 4}, .history = history->data, .p = p->data, .m = p->data, .v = p->data, .last_step = last->data, .g = p->data};
#define TRY(n, ...)                                                                                                              \
  SW_RUN(&t->stream, adamw_rows, &j.desc, j.history, j.p, j.m, j.v, j.last_step, kt_int32(t, "touched", n, (int32_t[]){__VA_ARGS__}), n, j.g)
  if (strcmp(t->device->backend, "cpu")) { /* rows outside the table are left out, those without their history become NaN */
    kt_ok(t, TRY(4, 3, 0, 2, -1));
    j.desc.step = 5;
    kt_ok(t, TRY(1, 1));
    kt_download(t, p);
    for (int i = 0; i < 12; i++) kt_check(t, !isnan(p->host[i]) == (i < 4), "p[%d] is %g", i, p->host[i]);
    int32_t seen[3];
    if (t->device->copy_out(&t->stream, seen, last->data, 12) || t->device->synchronize(&t->stream)) exit(1);
    kt_check(t, seen[0] == 6 && seen[1] == 5 && seen[2] == 2, "last_step is %d %d %d", seen[0], seen[1], seen[2]);
    j.desc.step = 3;
    kt_fails(t, TRY(1, 0), "out of range");
    kt_clear(t);
    return;
  }
  kt_fails(t, TRY(2, 0, 3), "touched[1] is 3, outside the table of 3 rows");
  kt_fails(t, TRY(1, -1), "touched[0] is -1");
  kt_fails(t, TRY(3, 0, 1, 0), "row 0 is touched twice");
  kt_fails(t, TRY(2, 1, 2), "row 2 has seen step 2, but the history begins at step 4");
  j.desc.step = 5;
  kt_fails(t, TRY(2, 0, 1), "row 1 has seen step 5 already");
  kt_fails(t, SW_RUN(&t->stream, adamw_rows, &j.desc, j.history, j.p, j.m, j.v, j.last_step, NULL, 0, NULL), "row 2 has seen step 2");
  j.desc.step = 3;
  kt_fails(t, TRY(1, 0), "out of range");
#undef TRY
  int32_t now[3];
  if (t->device->copy_out(&t->stream, now, last->data, 12) || t->device->synchronize(&t->stream)) exit(1);
  kt_check(t, now[0] == 4 && now[1] == 5 && now[2] == 2, "a refused call has changed last_step to %d %d %d", now[0], now[1], now[2]);
  kt_clear(t);
}

/* --- sum of squares, cast --- */
typedef struct {
  int tensors;
  sw_adamw_tensor list[8];
  kt_tensor *sum, *workspace;
} squares_job;
static void run_squares(kt *t, void *argument) {
  squares_job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, sum_squares, j->tensors, j->list, j->sum->data, j->workspace->data));
}
static double result_of(kt *t, const squares_job *j) {
  double sum;
  if (t->device->copy_out(&t->stream, &sum, j->sum->data, sizeof sum) || t->device->synchronize(&t->stream)) exit(1);
  return sum;
}
static void sums(kt *t, int tensors, const int64_t *counts, int whole_numbers) {
  kt_case(t, "sum of squares of %d tensors", tensors);
  squares_job j = {.tensors = tensors, .sum = kt_bytes(t, "sum", 8), .workspace = kt_bytes(t, "workspace", SW_SUM_WORKSPACE)};
  long double want = 0;
  for (int i = 0; i < tensors; i++) {
    kt_tensor *g = kt_new(t, "g", SW_F32, counts[i]);
    if (whole_numbers)
      kt_integers(t, g, -9, 9);
    else
      kt_normal(t, g, 0, i % 2 ? 1e15 : 3e22); /* squares beyond fp32 */
    for (int64_t k = 0; k < counts[i]; k++) want += (long double)g->host[k] * g->host[k];
    j.list[i] = (sw_adamw_tensor){.g = g->data, .count = counts[i]};
  }
  kt_with_threads(t, "sum", run_squares, &j, &j.sum, 1);
  double sum = result_of(t, &j), allowed = whole_numbers ? 0 : 1e-13 * (double)want;
  kt_check(t, fabs(sum - (double)want) <= allowed, "%.17g, want %.17g", sum, (double)want);
  kt_clear(t);
}
static void squares_of_nan(kt *t) {
  kt_case(t, "sum of squares with NaN");
  kt_tensor *g = kt_new(t, "g", SW_F32, 40001);
  squares_job j = {.tensors = 1, .list = {{.g = g->data, .count = g->count}}, .sum = kt_bytes(t, "sum", 8),
                   .workspace = kt_bytes(t, "workspace", SW_SUM_WORKSPACE)};
  for (int at = 0; at <= 40000; at += 20000) {
    kt_fill(t, g, 1);
    g->host[at] = NAN;
    kt_upload(t, g);
    run_squares(t, &j);
    kt_check(t, isnan(result_of(t, &j)), "%g", result_of(t, &j));
  }
  kt_clear(t);
}

static void casts(kt *t, int64_t count) {
  kt_case(t, "cast %lld", (long long)count);
  kt_tensor *x = kt_new(t, "x", SW_F32, count), *h = kt_new(t, "h", SW_BF16, count), *back = kt_new(t, "back", SW_F32, count);
  double *want = kt_doubles(t, count);
  for (int64_t i = 0; i < count; i++) { /* every kind of number: random bits; NaN among them */
    uint32_t bits = sw_random_u32(&t->random);
    float f;
    memcpy(&f, &bits, 4);
    x->host[i] = i % 97 == 5 ? INFINITY : i % 89 == 7 ? NAN : f;
  }
  kt_upload(t, x);
  for (int64_t i = 0; i < count; i++) { /* round to nearest even, 8 bits of significand, in double */
    double v = fabs(x->host[i]), rounded = v;
    if (isfinite(v) && v > 0) {
      double unit = ldexp(1, (ilogb(v) < -126 ? -126 : ilogb(v)) - 7); /* the distance between bfloat16 numbers here */
      rounded = nearbyint(v / unit) * unit;
      if (rounded >= 0x1p128) rounded = INFINITY;
    }
    want[i] = copysign(rounded, x->host[i]);
  }
  for (int threads = 1; threads <= 3; threads++) {
    t->stream.threads = threads;
    kt_ok(t, SW_RUN(&t->stream, cast, count, SW_F32, x->data, SW_BF16, h->data));
    kt_compare(t, "to bf16", h, want, 0, 0);
    kt_ok(t, SW_RUN(&t->stream, cast, count, SW_BF16, h->data, SW_F32, back->data));
    kt_compare(t, "and back", back, want, 0, 0);
    kt_ok(t, SW_RUN(&t->stream, cast, count, SW_F32, x->data, SW_F32, back->data));
    kt_same_bits(t, "fp32 to fp32", x, back);
  }
  t->stream.threads = 2;
  kt_clear(t);
}

/* --- --bench --- */
static void bench(kt *t) {
  int64_t counts[] = {11720448, 10615680, 384, 1536 * 384, 384 * 384}; /* about MiniLM's 22.6 million parameters */
  for (t->stream.threads = 1; t->stream.threads <= 2; t->stream.threads++) {
    job j = make(t, 5, counts);
    double elements = 0;
    sw_adamw_settings s = {1e-4, 0.9, 0.999, 1e-8, 0.01, 1, 0};
    j.desc.step = step_of(&s, 3);
    j.desc.grad_scale = 1;
    for (int i = 0; i < 5; i++) kt_normal(t, j.g[i], 0, 0.01), elements += (double)counts[i];
    kt_report(t, "adamw 23 M elements", kt_seconds(t, run_adamw, &j), 0, elements * 28);
    squares_job q = {.tensors = 5, .sum = kt_bytes(t, "sum", 8), .workspace = kt_bytes(t, "workspace", SW_SUM_WORKSPACE)};
    memcpy(q.list, j.list, sizeof q.list);
    kt_report(t, "sum_squares 23 M elements", kt_seconds(t, run_squares, &q), 0, elements * 4);
    /* 1500 rows of the word table a step; then all 30522, of which most were never touched */
    sw_adamw_step steps[101];
    for (int k = 0; k < 101; k++) steps[k] = step_of(&s, 1 + k);
    kt_tensor *history = kt_bytes(t, "history", sizeof steps);
    if (t->device->copy_in(&t->stream, history->data, steps, sizeof steps)) exit(1);
    int32_t *touched = malloc(1500 * 4);
    for (int i = 0; i < 1500; i++) touched[i] = i * 20;
    kt_tensor *last = kt_bytes(t, "last_step", 30522 * 4);
    rows_job r = {.desc = {30522, 384, 1, 1, 1, 1}, .history = history->data, .p = j.p[0]->data, .m = j.m[0]->data, .v = j.v[0]->data,
                  .last_step = last->data, .touched = kt_int32(t, "touched", 1500, touched), .count = 1500, .g = j.g[1]->data};
    kt_fill(t, j.m[0], 0);
    kt_fill(t, j.v[0], 0);
    if (t->device->zero(&t->stream, last->data, last->bytes)) exit(1);
    double best = 1e9, replay = 0, all = 0;
    for (r.desc.step = 1; r.desc.step <= 40; r.desc.step++) {
      double a = sw_clock();
      run_rows(t, &r);
      best = fmin(best, sw_clock() - a);
    }
    r.desc.step = 101;
    double a = sw_clock();
    run_rows(t, &r);
    replay = sw_clock() - a;
    r.touched = NULL;
    a = sw_clock();
    run_rows(t, &r);
    all = sw_clock() - a;
    kt_report(t, "adamw_rows 1500 x 384", best, 0, 1500 * 384 * 28.0);
    kt_report(t, "  after 60 missed steps", replay, 0, 1500 * 384 * 28.0);
    kt_report(t, "  all 30522 rows, 101 missed steps", all, 0, 30522 * 384 * 12.0);
    kt_tensor *h = kt_new(t, "h", SW_BF16, counts[0]);
    a = 1e9;
    for (int i = 0; i < 10; i++) {
      double b = sw_clock();
      kt_ok(t, SW_RUN(&t->stream, cast, counts[0], SW_F32, j.p[0]->data, SW_BF16, h->data));
      a = fmin(a, sw_clock() - b);
    }
    kt_report(t, "cast fp32 to bf16", a, 0, (double)counts[0] * 6);
    free(touched);
    kt_clear(t);
  }
}

int main(int argc, char **argv) {
  kt t;
  int status = kt_open(&t, argc, argv);
  if (status) return status;
  scalars(&t);
  dense(&t, 6, (int64_t[]){1, 17, 0, 16384, 70001, 384}, 0.999, 0.3);
  dense(&t, 3, (int64_t[]){5, 64, 33}, 0.98, 1);
  dense_special(&t);
  many_tensors(&t);
  static const int hiddens[] = {1, 7, 16, 33, 64, 100};
  for (int h = 0; h < 6; h++) {
    sparse(&t, 40, hiddens[h], 50, 4, 1e-8, 1, 0, 0);
    sparse(&t, 40, hiddens[h], 50, 4, 1e-8, 0, 0, 1e-3);
    sparse(&t, 15, hiddens[h], 50, 2, 0.1, 1, 0, 10);
    sparse(&t, 40, hiddens[h], 50, 4, 1e-8, h % 2, 0.4, h / 2 % 2 * 1e-3);
  }
  sparse(&t, 300, 97, 12, 90, 1e-6, 1, 0, 0.1); /* large enough for threads */
  sparse(&t, 6, 20, 900, 1, 1e-8, 1, 0, 1e-3); /* long enough for m to die away between touches */
  bad_input(&t);
  sums(&t, 5, (int64_t[]){3, 0, 100003, 16384, 7}, 1);
  sums(&t, 4, (int64_t[]){1, 90000, 12345, 31}, 0);
  sums(&t, 0, NULL, 1);
  squares_of_nan(&t);
  casts(&t, 0);
  casts(&t, 37);
  casts(&t, 50021);
  if (t.bench) bench(&t);
  return kt_close(&t);
}
