/* Linear layers: every shape class, dtype and activation against the fp64 reference, what is not finite, calls that must be refused.
 * linear_numerics.c: accuracy and repeatability. --bench: speeds beside the machine's limits. */
#include "base/progress.h"
#include "kernels/linear/reference.h"
#include "tests/kernels/linear_layer.h"
#include <string.h>

static const char *const activation_names[] = {"none", "gelu", "gelu_tanh", "tanh", "relu"};
static const double bf16_unit = 0x1p-8; /* half a unit in the last place of 1 */
/* The error allowed of a sum of products, over the sum of their magnitudes: eight roundings. The worst case of a long
 * sum is far more, but roundings are not all of one sign; a plain fp32 loop's largest over 100,000 random sums is about
 * five. */
static const double sum_unit = 8 * 0x1p-24;
static double gradient_unit(const sw_linear_desc *d) { return sum_unit + (d->dtype == SW_F32 && d->quick_gradients ? 3 * 0x1p-16 : 0); }

/* |got - want| <= relative |want| + absolute[i] */
static void compare_each(kt *t, const char *what, kt_tensor *got, const double *want, double relative,
                         const double *absolute) {
  double worst = 0;
  int64_t where = -1;
  kt_download(t, got);
  for (int64_t i = 0; i < got->count; i++) {
    double ratio = fabs(got->host[i] - want[i]) / (relative * fabs(want[i]) + absolute[i] + 1e-37);
    if (!(ratio <= worst) && !isnan(worst)) worst = ratio, where = i;
  }
  if (t->verbose) printf("  %s: %.2f of the tolerance\n", what, worst);
  kt_check(t, worst <= 1, "%s: worst at [%lld]: got %.9g, want %.9g, %.3g times the tolerance", what, (long long)where,
           where >= 0 ? got->host[where] : 0, where >= 0 ? want[where] : 0, worst);
}
static double *magnitudes(kt *t, const double *x, int64_t count) {
  double *m = kt_doubles(t, count);
  for (int64_t i = 0; i < count; i++) m[i] = fabs(x[i]);
  return m;
}

/* Forward and both backward calls of one layer against the reference. */
static void check_layer(kt *t, sw_linear_desc desc, int with_bias, int with_pre, int accumulate) {
  kt_case(t, "%lld x %d -> %d %s/%s %s%s%s%s%s", (long long)desc.tokens, desc.in_features, desc.out_features,
          sw_dtype_name(desc.dtype), sw_dtype_name(desc.out_dtype), activation_names[desc.activation],
          with_bias ? " bias" : "", with_pre ? " pre" : "", accumulate ? " accumulate" : "",
          desc.quick_gradients ? " quick" : "");
  layer l = make(t, desc, with_bias, with_pre);
  l.accumulate = accumulate;
  int64_t in = elements(&desc, 0), out = elements(&desc, 1), weights = l.weight->count;
  double rounding = desc.out_dtype == SW_BF16 ? 1.01 * bf16_unit : 2 * unit,
         dx_rounding = desc.dtype == SW_BF16 ? 1.01 * bf16_unit : 2 * unit;
  double *pre = kt_doubles(t, out), *y = kt_doubles(t, out), *scale = kt_doubles(t, out), *unused = kt_doubles(t, out);
  double *abs_x = magnitudes(t, l.x->host, in), *abs_w = magnitudes(t, l.weight->host, weights);
  sw_linear_desc plain = desc;
  plain.activation = SW_NO_ACTIVATION;

  sw_reference_linear_forward(&desc, l.x->host, l.weight->host, l.bias ? l.bias->host : NULL, pre, y);
  sw_reference_linear_forward(&plain, abs_x, abs_w, l.bias ? magnitudes(t, l.bias->host, desc.out_features) : NULL,
                              scale, unused);
  /* linear.h: where y is bf16 a GPU rounds the bias to it, and the sum before the activation */
  int rounds_first = strcmp(t->device->backend, "cpu") && desc.dtype == SW_BF16 && desc.out_dtype == SW_BF16;
  for (int64_t i = 0; i < out; i++) scale[i] *= sum_unit;
  for (int64_t i = 0; rounds_first && l.bias && i < out; i++) scale[i] += rounding * fabs(l.bias->host[i % desc.out_features]);
  forward(t, &l);
  if (l.pre) compare_each(t, "pre", l.pre, pre, rounding, scale);
  if (rounds_first) {
    for (int64_t i = 0; i < out; i++) {
      scale[i] += desc.activation ? rounding * fabs(pre[i]) : 0;
      if (!l.pre) continue;
      y[i] = sw_reference_activation(desc.activation, l.pre->host[i]); /* exactly what was activated */
      scale[i] = 0;
    }
  }
  /* elementary functions: a few units in the last place of 1, or of x where that is larger */
  for (int64_t i = 0; desc.activation && i < out; i++) scale[i] = 1.2 * scale[i] + 8 * unit * fmax(1, fabs(pre[i]));
  compare_each(t, "y", l.y, y, rounding, scale);

  if (!desc.training) return kt_clear(t);
  if (desc.activation && !l.pre) {
    kt_fails(t,
             SW_RUN(&t->stream, linear_backward_input, &desc, l.dy->data, NULL, l.prepared->data, l.dx->data, 0,
                    l.workspace->data),
             "values before");
    return kt_clear(t);
  }
  double *g = kt_doubles(t, out), *dx = kt_doubles(t, in), *dx_scale = kt_doubles(t, in);
  memcpy(g, l.dy->host, (size_t)out * sizeof *g);
  for (int64_t i = 0; i < out; i++) scale[i] = 16 * unit * fabs(g[i]) * (l.pre ? fmax(1, fabs(l.pre->host[i])) : 1);
  sw_reference_linear_backward_input(&desc, g, l.pre ? l.pre->host : NULL, l.weight->host, NULL, 0);
  memcpy(dx, l.dx->host, (size_t)in * sizeof *dx);
  backward_input(t, &l);
  compare_each(t, "g", l.dy, g, rounding, scale);
  if (!desc.activation) kt_compare(t, "dy without activation", l.dy, g, 0, 0);
  /* from here on with the g that was made, rounded as the products round it */
  memcpy(g, l.dy->host, (size_t)out * sizeof *g);
  for (int64_t i = 0; desc.dtype == SW_BF16 && i < out; i++) g[i] = sw_bf16_to_f32(sw_f32_to_bf16((float)g[i]));
  sw_reference_linear_backward_input(&plain, g, NULL, l.weight->host, dx, accumulate);
  sw_reference_linear_backward_input(&plain, magnitudes(t, g, out), NULL, abs_w, dx_scale, 0);
  for (int64_t i = 0; i < in; i++) dx_scale[i] *= gradient_unit(&desc);
  compare_each(t, "dx", l.dx, dx, dx_rounding, dx_scale);

  double *dweight = kt_doubles(t, weights), *dbias = kt_doubles(t, desc.out_features);
  double *before = magnitudes(t, l.dweight->host, weights), *unused_dbias = kt_doubles(t, desc.out_features);
  double *dweight_scale = magnitudes(t, l.dweight->host, weights),
         *dbias_scale = magnitudes(t, l.dbias->host, desc.out_features);
  memcpy(dweight, l.dweight->host, (size_t)weights * sizeof *dweight);
  memcpy(dbias, l.dbias->host, (size_t)desc.out_features * sizeof *dbias);
  double *abs_g = magnitudes(t, g, out);
  for (int repeat = 0; repeat < 2; repeat++) {
    sw_reference_linear_backward_weight(&desc, g, l.x->host, dweight, unused_dbias);
    sw_reference_linear_backward_weight(&desc, abs_g, abs_x, dweight_scale, dbias_scale);
    for (int64_t i = 0; i < out; i++) dbias[i % desc.out_features] += l.dy->host[i]; /* not rounded */
    backward_weight(t, &l);
  }
  /* oneDNN may add the products to dW one by one: as many roundings of dW itself */
  for (int64_t i = 0; i < weights; i++)
    dweight_scale[i] = dweight_scale[i] * gradient_unit(&desc) + 2 * sqrt(2 * (double)desc.tokens) * unit * fabs(before[i]);
  for (int64_t i = 0; i < desc.out_features; i++) dbias_scale[i] *= sum_unit;
  compare_each(t, "dweight", l.dweight, dweight, 2 * unit, dweight_scale);
  compare_each(t, "dbias", l.dbias, dbias, 2 * unit, dbias_scale);
  kt_clear(t);
}

static void test_shapes(kt *t) {
  static const int tokens[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 257},
                   features[] = {1, 3, 9, 16, 17, 32, 48, 128, 384, 1536};
  static const sw_dtype dtypes[][2] = {{SW_F32, SW_F32}, {SW_BF16, SW_BF16}, {SW_BF16, SW_F32}, {SW_F32, SW_BF16}};
  int n = kt_below(t, 1000);
  for (int i = 0; i < 10; i++)
    for (int j = 0; j < 10; j++)
      for (int k = 0; k < 10; k++) {
        double work = (double)tokens[i] * features[j] * features[k];
        if (work > 2e5 ? work > 6e6 || kt_below(t, 48) : kt_below(t, 4)) continue; /* a sample: the reference is slow */
        /* strides without common factors: all combinations come up */
        n++;
        sw_linear_desc d = {.tokens = tokens[i],
                            .in_features = features[j],
                            .out_features = features[k],
                            .dtype = dtypes[n % 4][0],
                            .out_dtype = dtypes[n % 4][1],
                            .activation = (sw_activation)(n % 5),
                            .training = 1,
                            .quick_gradients = n % 3 == 1};
        check_layer(t, d, n % 3 != 0, n % 7 != 0, n / 2 % 2);
      }
  for (int variant = 0; variant < 4; variant++) {
    const int dtype = variant % 3, quick = variant == 3;
    check_layer(t, (sw_linear_desc){40, 384, 200, dtypes[dtype][0], dtypes[dtype][1], SW_GELU, 1, quick}, 1, 1, 0);
    check_layer(t, (sw_linear_desc){520, 40, 130, dtypes[dtype][0], dtypes[dtype][1], SW_NO_ACTIVATION, 1, quick}, 1, 1, 1);
    check_layer(t, (sw_linear_desc){33, 1536, 48, dtypes[dtype][0], dtypes[dtype][1], SW_NO_ACTIVATION, 1, quick}, 1, 0, 0);
    check_layer(t, (sw_linear_desc){35, 3200, 40, dtypes[dtype][0], dtypes[dtype][1], SW_RELU, 1, quick}, 0, 1, 0);
    check_layer(t, (sw_linear_desc){17, 800, 2100, dtypes[dtype][0], dtypes[dtype][1], SW_NO_ACTIVATION, dtype == 0, quick}, 0,
                0, 0);
    check_layer(t, (sw_linear_desc){150, 24, 264, dtypes[dtype][0], dtypes[dtype][1], SW_GELU_TANH, 1, quick}, 1, 1, 0);
    check_layer(t, (sw_linear_desc){17001, 3, 5, dtypes[dtype][0], dtypes[dtype][1], SW_GELU, 1, quick}, 1, 1, 0);
  }
}

/* Whole numbers whose sums have at most 24 bits: exact. */
static void test_integers(kt *t) {
  for (int dtype = 0; dtype < 2; dtype++) {
    sw_linear_desc d = {.tokens = 37,
                        .in_features = 200,
                        .out_features = 70,
                        .dtype = (sw_dtype)dtype,
                        .out_dtype = SW_F32,
                        .training = 1};
    kt_case(t, "integers %s", sw_dtype_name(d.dtype));
    layer l = make(t, d, 1, 1);
    kt_integers(t, l.x, -9, 9);
    kt_integers(t, l.weight, -9, 9);
    kt_integers(t, l.bias, -9, 9);
    kt_integers(t, l.dy, -9, 9);
    kt_integers(t, l.dweight, -9, 9);
    kt_integers(t, l.dbias, -9, 9);
    kt_ok(t, SW_RUN(&t->stream, linear_prepare, &d, l.weight->data, l.prepared->data));
    double *pre = kt_doubles(t, l.y->count), *y = kt_doubles(t, l.y->count), *dx = kt_doubles(t, l.dx->count);
    sw_reference_linear_forward(&d, l.x->host, l.weight->host, l.bias->host, pre, y);
    sw_reference_linear_backward_input(&d, l.dy->host, NULL, l.weight->host, dx, 0);
    double *dweight = kt_doubles(t, l.dweight->count), *dbias = kt_doubles(t, l.dbias->count);
    memcpy(dweight, l.dweight->host, (size_t)l.dweight->count * sizeof *dweight);
    memcpy(dbias, l.dbias->host, (size_t)l.dbias->count * sizeof *dbias);
    sw_reference_linear_backward_weight(&d, l.dy->host, l.x->host, dweight, dbias);
    forward(t, &l);
    backward_input(t, &l);
    backward_weight(t, &l);
    kt_compare(t, "y", l.y, y, 0, 0);
    if (d.dtype == SW_F32) kt_compare(t, "dx", l.dx, dx, 0, 0);
    kt_compare(t, "dweight", l.dweight, dweight, 0, 0);
    kt_compare(t, "dbias", l.dbias, dbias, 0, 0);
    kt_clear(t);
  }
}

/* --- what is not finite must stay visible, and only where it belongs --- */
static void test_not_finite(kt *t) {
  static const double bad_values[] = {NAN, INFINITY, -INFINITY};
  for (int dtype = 0; dtype < 2; dtype++)
    for (int v = 0; v < 3; v++) {
      sw_linear_desc d = {.tokens = 50,
                          .in_features = 70,
                          .out_features = 40,
                          .dtype = (sw_dtype)dtype,
                          .out_dtype = (sw_dtype)dtype,
                          .activation = v == 0 ? SW_RELU : SW_NO_ACTIVATION,
                          .training = 1};
      kt_case(t, "%s with %g", sw_dtype_name(d.dtype), bad_values[v]);
      layer l = make(t, d, 1, 1);
      int row = kt_below(t, 50), col = kt_below(t, 70), feature = kt_below(t, 40);
      l.x->host[row * 70 + col] = bad_values[v];
      l.dy->host[row * 40 + feature] = bad_values[v];
      kt_upload(t, l.x);
      kt_upload(t, l.dy);
      kt_fill(t, l.dweight, 0);
      kt_fill(t, l.dbias, 0);
      forward(t, &l);
      kt_fill(t, l.pre, 1); /* g = dy */
      backward_input(t, &l);
      backward_weight(t, &l);
      kt_download(t, l.y);
      kt_download(t, l.dx);
      kt_download(t, l.dweight);
      kt_download(t, l.dbias);
      long wrong[4] = {0};
      for (int i = 0; i < 50; i++)
        for (int o = 0; o < 40; o++) wrong[0] += isfinite(l.y->host[i * 40 + o]) != (i != row);
      for (int i = 0; i < 50; i++)
        for (int c = 0; c < 70; c++) wrong[1] += isfinite(l.dx->host[i * 70 + c]) != (i != row);
      for (int o = 0; o < 40; o++)
        for (int c = 0; c < 70; c++) wrong[2] += isfinite(l.dweight->host[o * 70 + c]) != (o != feature && c != col);
      for (int o = 0; o < 40; o++) wrong[3] += isfinite(l.dbias->host[o]) != (o != feature);
      static const char *const names[] = {"y", "dx", "dweight", "dbias"};
      for (int i = 0; i < 4; i++)
        kt_check(t, !wrong[i], "%s: %ld elements are finite and should not be, or the reverse", names[i], wrong[i]);

      l.weight->host[feature * 70 + col] = bad_values[v];
      kt_upload(t, l.weight);
      fill_normal(t, l.x);
      kt_ok(t, SW_RUN(&t->stream, linear_prepare, &d, l.weight->data, l.prepared->data));
      forward(t, &l);
      kt_download(t, l.y);
      wrong[0] = 0;
      for (int i = 0; i < 50; i++)
        for (int o = 0; o < 40; o++) wrong[0] += isfinite(l.y->host[i * 40 + o]) != (o != feature);
      if (d.activation == SW_NO_ACTIVATION) kt_check(t, !wrong[0], "weight: %ld elements of y", wrong[0]);
      kt_clear(t);
    }
}

/* --- the reference itself, and calls that must be refused or do nothing --- */
typedef struct {
  sw_linear_desc desc;
  const double *x, *weight, *bias, *r;
  double *pre, *y;
  int which; /* what varies: 0 x, 1 weight, 2 bias */
} reference_case;
static double reference_loss(const double *v, void *argument) {
  reference_case *c = argument;
  sw_reference_linear_forward(&c->desc, c->which == 0 ? v : c->x, c->which == 1 ? v : c->weight,
                              c->which == 2 ? v : c->bias, c->pre, c->y);
  double sum = 0;
  for (int64_t i = 0; i < elements(&c->desc, 1); i++) sum += c->y[i] * c->r[i];
  return sum;
}
static double *normals(kt *t, int64_t count) {
  double *x = kt_doubles(t, count);
  for (int64_t i = 0; i < count; i++) x[i] = kt_random_normal(t);
  return x;
}
static void test_reference(kt *t) {
  for (int activation = SW_NO_ACTIVATION; activation <= SW_RELU; activation++) {
    reference_case c = {
        .desc = {.tokens = 5, .in_features = 7, .out_features = 6, .activation = (sw_activation)activation}};
    kt_case(t, "reference %s", activation_names[activation]);
    double *x = normals(t, 35), *weight = normals(t, 42), *bias = normals(t, 6), *g = normals(t, 30),
           *dx = kt_doubles(t, 35);
    double *dweight = kt_doubles(t, 42), *dbias = kt_doubles(t, 6), *r = kt_doubles(t, 30);
    memcpy(r, g, 30 * sizeof *r);
    c.x = x, c.weight = weight, c.bias = bias, c.r = r, c.pre = kt_doubles(t, 30), c.y = kt_doubles(t, 30);
    for (int smooth = 0; !smooth;) { /* no value so near zero that a difference would cross ReLU's corner */
      sw_reference_linear_forward(&c.desc, x, weight, bias, c.pre, c.y);
      smooth = 1;
      for (int i = 0; i < 30; i++) smooth = smooth && fabs(c.pre[i]) > 0.02;
      for (int i = 0; i < 6 && !smooth; i++) bias[i] = kt_random_normal(t);
    }
    sw_reference_linear_backward_input(&c.desc, g, c.pre, weight, dx, 0);
    sw_reference_linear_backward_weight(&c.desc, g, x, dweight, dbias);
    kt_finite_difference(t, "dx", reference_loss, &c, x, dx, 35);
    c.which = 1;
    kt_finite_difference(t, "dweight", reference_loss, &c, weight, dweight, 42);
    c.which = 2;
    kt_finite_difference(t, "dbias", reference_loss, &c, bias, dbias, 6);
    kt_clear(t);
  }
}
static void test_calls(kt *t) {
  kt_case(t, "calls");
  size_t bytes = 0;
  sw_linear_desc d = {.tokens = -1, .in_features = 4, .out_features = 4};
  kt_fails(t, SW_RUN(&t->stream, linear_workspace, &d, &bytes), "sizes must be positive");
  d.tokens = 1, d.in_features = 0;
  kt_fails(t, SW_RUN(&t->stream, linear_weight_bytes, &d, &bytes), "sizes must be positive");
  d.in_features = 4, d.dtype = (sw_dtype)7;
  kt_fails(t, SW_RUN(&t->stream, linear_weight_bytes, &d, &bytes), "dtype");
  d = (sw_linear_desc){.tokens = 3, .in_features = 40, .out_features = 20, .training = 1};
  layer l = make(t, d, 1, 1), none = l;
  none.desc.tokens = 0;
  kt_tensor *dweight = kt_new(t, "dweight before", SW_F32, l.dweight->count);
  memcpy(dweight->host, l.dweight->host, (size_t)dweight->count * sizeof *dweight->host);
  kt_upload(t, dweight);
  forward(t, &none);
  backward_input(t, &none);
  backward_weight(t, &none);
  kt_same_bits(t, "dweight of no tokens", dweight, l.dweight);
  kt_download(t, l.y);
  kt_check(t, isnan(l.y->host[0]) && isnan(l.y->host[59]), "y of no tokens was written");
  if (strcmp(t->device->backend, "cpu")) /* rows of 160 bytes start at multiples of 16 */
    kt_fails(t,
             SW_RUN(&t->stream, linear_forward, &d, (char *)l.x->data + 4, l.prepared->data, NULL, NULL, l.y->data,
                    l.workspace->data),
             "multiple of 16 bytes");
  /* only g: dx is not wanted, and no training form is needed */
  sw_linear_desc gelu = d;
  gelu.activation = SW_GELU, gelu.training = 0;
  layer g = make(t, gelu, 1, 1);
  forward(t, &g);
  double *want = kt_doubles(t, 60);
  kt_download(t, g.pre);
  memcpy(want, g.dy->host, 60 * sizeof *want);
  sw_reference_linear_backward_input(&gelu, want, g.pre->host, g.weight->host, NULL, 0);
  g.dx = NULL;
  backward_input(t, &g);
  kt_compare(t, "g alone", g.dy, want, 1e-6, 1e-6);
  kt_clear(t);
}

/* ------------------------------------------------ --bench ------------------------------------------------ */
#ifdef __x86_64__
/* Eight products of bf16 tiles without loads: 16 x 16 x 32 multiply-adds each. */
static __attribute__((target("amx-tile,amx-bf16"), noinline)) void amx_loop(long n) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
  } __attribute__((aligned(64))) config = {.palette = 1};
  for (int i = 0; i < 8; i++) config.bytes_per_row[i] = 64, config.rows[i] = 16;
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
  for (long i = 0; i < n; i++)
    __asm__ volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n tdpbf16ps %tmm7, %tmm4, %tmm1\n"
                     "tdpbf16ps %tmm6, %tmm5, %tmm2\n tdpbf16ps %tmm7, %tmm5, %tmm3\n");
  __asm__ volatile("tilerelease");
}
#endif
static double amx_peak(kt *t) {
  double best = INFINITY;
#ifdef __x86_64__
  if (!strstr(t->device->name, "amx")) return 0;
  for (int repeat = 0; repeat < 5; repeat++) {
    double start = sw_clock();
#pragma omp parallel for num_threads(t->stream.threads) schedule(static)
    for (int i = 0; i < t->stream.threads; i++) amx_loop(100000);
    best = fmin(best, sw_clock() - start);
  }
  return 100000.0 * 4 * 2 * 8192 * t->stream.threads / best;
#else
  return 0;
#endif
}
static void bench(kt *t) {
  static const int shapes[][3] = {
      {384, 1152, SW_NO_ACTIVATION}, {384, 384, SW_NO_ACTIVATION}, {384, 1536, SW_GELU}, {1536, 384, SW_NO_ACTIVATION},
      {768, 2304, SW_NO_ACTIVATION}, {768, 768, SW_NO_ACTIVATION}, {768, 3072, SW_GELU}, {3072, 768, SW_NO_ACTIVATION}};
  static const int tokens[] = {256, 512, 4096};
  const char *only = getenv("SW_BENCH_TOKENS");
  for (int threads = 1; threads <= 2; threads++) {
    t->stream.threads = threads;
    double fma = kt_fma_peak(t) * 1e-9, amx = amx_peak(t) * 1e-9;
    printf("%d threads: peak fp32 FMA %.0f GFLOP/s, AMX bf16 %.0f, AMX fp32 by six products %.0f\n", threads, fma, amx,
           amx / 6);
    printf("GFLOP/s                          forward  bwd input  bwd weight\n");
    for (int dtype = 0; dtype < 2; dtype++)
      for (int n = 0; n < 3; n++)
        for (int s = 0; s < 8; s++) {
          if (only && atoi(only) != tokens[n]) continue;
          sw_linear_desc d = {.tokens = tokens[n],
                              .in_features = shapes[s][0],
                              .out_features = shapes[s][1],
                              .dtype = (sw_dtype)dtype,
                              .out_dtype = (sw_dtype)dtype,
                              .activation = (sw_activation)shapes[s][2],
                              .training = 1};
          layer l = make(t, d, 1, shapes[s][2] != SW_NO_ACTIVATION);
          double flops = 2.0 * tokens[n] * shapes[s][0] * shapes[s][1] * 1e-9;
          printf("%s %4d x %4d -> %4d %-5s %9.0f", sw_dtype_name(d.dtype), tokens[n], shapes[s][0], shapes[s][1],
                 shapes[s][2] ? "gelu" : "", flops / kt_seconds(t, forward, &l));
          printf(" %10.0f", flops / kt_seconds(t, backward_input, &l));
          printf(" %11.0f\n", flops / kt_seconds(t, backward_weight, &l));
          fflush(stdout);
          kt_clear(t);
        }
  }
}

static void tests(kt *t) {
  test_reference(t);
  test_calls(t);
  test_integers(t);
  test_not_finite(t);
  test_shapes(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
