/* The GRU against the double reference. */
#include "kernels/gru/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_gru_desc desc;
  int32_t *cu, *host_cu; /* device; host, of double's memory */
  kt_tensor *gates, *weight, *bias, *initial, *y, *saved, *dy, *dweight, *dbias, *dinitial, *workspace;
} job;
static void *data_of(const kt_tensor *x) { return x ? x->data : NULL; }
static void forward(kt *t, void *argument) {
  job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, gru_forward, &j->desc, j->cu, j->gates->data, j->weight->data, j->bias->data, data_of(j->initial), j->y->data,
                  data_of(j->saved), j->workspace->data));
}
static void backward(kt *t, void *argument) {
  job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, gru_backward, &j->desc, j->cu, j->gates->data, j->saved->data, j->weight->data, data_of(j->initial), j->y->data,
                  j->dy->data, j->dweight->data, j->dbias->data, data_of(j->dinitial), j->workspace->data));
}

/* Weights as bf16 holds them, which a GPU rounds them to where the storage is bf16. */
static void weights(kt *t, job *j) {
  const double most = 2 / sqrt(j->desc.hidden);
  kt_uniform(t, j->weight, -most, most);
  for (int64_t i = 0; i < j->weight->count; i++) j->weight->host[i] = sw_bf16_to_f32(sw_f32_to_bf16((float)j->weight->host[i]));
  kt_upload(t, j->weight);
}
static job make(kt *t, int batch, const int32_t *lengths, int hidden, int with_initial, int reverse, sw_dtype dtype) {
  int64_t total;
  job j = {.cu = kt_cu_seqlens(t, batch, lengths, &total)};
  j.host_cu = (int32_t *)kt_doubles(t, batch + 1);
  for (int i = 0; i < batch; i++) j.host_cu[i + 1] = j.host_cu[i] + lengths[i];
  j.desc = (sw_gru_desc){batch, total, hidden, reverse, dtype, j.host_cu};
  j.gates = kt_new(t, "gates", dtype, total * 3 * hidden), j.saved = kt_new(t, "saved", dtype, total * hidden);
  j.y = kt_new(t, "y", dtype, total * hidden), j.dy = kt_new(t, "dy", dtype, total * hidden);
  j.weight = kt_new(t, "weight", SW_F32, 3 * hidden * hidden), j.dweight = kt_new(t, "dweight", SW_F32, 3 * hidden * hidden);
  j.bias = kt_new(t, "bias", SW_F32, 3 * hidden), j.dbias = kt_new(t, "dbias", SW_F32, 3 * hidden);
  if (with_initial) {
    j.initial = kt_new(t, "initial", SW_F32, (int64_t)batch * hidden), j.dinitial = kt_new(t, "dinitial", SW_F32, (int64_t)batch * hidden);
    kt_normal(t, j.initial, 0, 0.7);
  }
  kt_normal(t, j.gates, 0, 1.5);
  kt_normal(t, j.bias, 0, 0.5);
  kt_normal(t, j.dy, 0, 1);
  kt_normal(t, j.dweight, 0, 1);
  kt_normal(t, j.dbias, 0, 1);
  weights(t, &j);
  size_t bytes;
  const int threads = t->stream.threads;
  t->stream.threads = 3; /* the most that kt_with_threads takes */
  kt_ok(t, SW_RUN(&t->stream, gru_workspace, &j.desc, &bytes));
  t->stream.threads = threads;
  j.workspace = kt_bytes(t, "workspace", bytes);
  return j;
}
static void copy_part(kt *t, kt_tensor *to, const kt_tensor *from, int64_t first) {
  memcpy(to->host, from->host + first, (size_t)to->count * sizeof(double));
  kt_upload(t, to);
}
static double *copy_of(kt *t, const kt_tensor *x) {
  double *copy = kt_doubles(t, x->count);
  memcpy(copy, x->host, (size_t)x->count * sizeof(double));
  return copy;
}

/* Whether training is cuDNN's, or its twin's. */
static int by_library(const kt *t, sw_dtype dtype) {
  const char *wanted = getenv("SKILLWATCH_GRU");
  return wanted && !strcmp(wanted, "cudnn") && dtype == SW_F32 && strcmp(t->device->backend, "cpu");
}

static void against_reference(kt *t, int batch, const int32_t *lengths, int hidden, int with_initial, int reverse, sw_dtype dtype) {
  kt_case(t, "%s batch %d, hidden %d%s%s", sw_dtype_name(dtype), batch, hidden, with_initial ? ", initial" : "", reverse ? ", reverse" : "");
  job j = make(t, batch, lengths, hidden, with_initial, reverse, dtype);
  const int64_t total = j.desc.total_tokens;
  int32_t *cu = calloc((size_t)batch + 1, sizeof *cu);
  for (int i = 0; i < batch; i++) cu[i + 1] = cu[i] + lengths[i];
  const double *initial = j.initial ? j.initial->host : NULL;
  double *y = kt_doubles(t, total * hidden), *dgates = kt_doubles(t, total * 3 * hidden), *dinitial = kt_doubles(t, (int64_t)batch * hidden);
  double *dweight = copy_of(t, j.dweight), *dbias = copy_of(t, j.dbias), *gates = copy_of(t, j.gates);
  sw_gru_reference(&j.desc, cu, gates, j.weight->host, j.bias->host, initial, y);
  sw_gru_backward_reference(&j.desc, cu, gates, j.weight->host, j.bias->host, initial, j.dy->host, dgates, dweight, dbias, dinitial);

  kt_with_threads(t, "forward", forward, &j, (kt_tensor *[]){j.y, j.gates, j.saved}, 3);
  /* states lie within +-1, or the initial ones. On the CPU bf16 rounds only what is stored, so the states themselves are one rounding away;
   * a GPU's products are those of rounded states */
  const int rounded = dtype == SW_BF16 && strcmp(t->device->backend, "cpu");
  kt_compare(t, "y", j.y, y, dtype == SW_BF16 ? 0x1.01p-8 : 0, rounded ? 0.01 : 4e-6);
  { /* without what backward needs: the same states, and the gates stay as they are */
    job inference = j;
    inference.saved = NULL;
    inference.gates = kt_new(t, "inference gates", dtype, total * 3 * hidden);
    inference.y = kt_new(t, "inference y", dtype, total * hidden);
    memcpy(inference.gates->host, gates, (size_t)inference.gates->count * sizeof(double));
    kt_upload(t, inference.gates);
    forward(t, &inference);
    if (by_library(t, dtype)) { /* in training only */
      kt_compare(t, "inference", inference.y, y, 0, 4e-6);
      kt_compare(t, "gates kept by a library", j.gates, gates, 0, 0);
    } else {
      kt_same_bits(t, "inference", inference.y, j.y);
    }
    kt_compare(t, "gates kept", inference.gates, gates, 0, 0);
  }
  /* each sequence alone: the same bits, here and in the gradients below */
  job *alone = calloc((size_t)batch, sizeof *alone);
  const int each = kt_small(t) ? 3 : 1;
  for (int i = 0; i < batch; i += each) {
    job *k = alone + i;
    *k = make(t, 1, lengths + i, hidden, with_initial, reverse, dtype);
    memcpy(k->gates->host, gates + (int64_t)cu[i] * 3 * hidden, (size_t)k->gates->count * sizeof(double));
    kt_upload(t, k->gates);
    copy_part(t, k->weight, j.weight, 0);
    copy_part(t, k->bias, j.bias, 0);
    copy_part(t, k->dy, j.dy, (int64_t)cu[i] * hidden);
    if (k->initial) copy_part(t, k->initial, j.initial, (int64_t)i * hidden);
    forward(t, k);
    kt_same_bits_at(t, "y alone", k->y, 0, j.y, (int64_t)cu[i] * hidden, k->y->count);
    backward(t, k);
  }

  kt_tensor *outputs[] = {j.gates, j.saved, j.dweight, j.dbias, j.dinitial};
  kt_tensor *kept = kt_new(t, "saved by forward", dtype, total * hidden), *kept_gates = kt_new(t, "gates by forward", dtype, total * 3 * hidden);
  kt_download(t, j.saved);
  kt_download(t, j.gates);
  copy_part(t, kept, j.saved, 0);
  copy_part(t, kept_gates, j.gates, 0);
  kt_with_threads(t, "backward", backward, &j, outputs, j.dinitial ? 5 : 4);
  /* fp32 errors follow the largest gradient, since cells mix them in every step; in bf16 so do the roundings of what is stored, which
   * have either sign: sums over tokens grow with the root of their number */
  const double unit = dtype == SW_BF16 ? 0.03 : 1e-5, many = sqrt((double)total + 1);
  kt_compare(t, "dgates", j.gates, dgates, 0, unit * kt_largest(dgates, total * 3 * hidden));
  kt_compare(t, "dweight", j.dweight, dweight, 1e-5, unit * many);
  kt_compare(t, "dbias", j.dbias, dbias, 1e-5, unit * many);
  if (j.dinitial) kt_compare(t, "dinitial", j.dinitial, dinitial, 0, unit * (1 + kt_largest(dinitial, (int64_t)batch * hidden)));
  for (int i = 0; i < batch; i += each) {
    kt_same_bits_at(t, "dgates alone", alone[i].gates, 0, j.gates, (int64_t)cu[i] * 3 * hidden, alone[i].gates->count);
    kt_same_bits_at(t, "dq alone", alone[i].saved, 0, j.saved, (int64_t)cu[i] * hidden, alone[i].saved->count);
    if (j.dinitial) kt_same_bits_at(t, "dinitial alone", alone[i].dinitial, 0, j.dinitial, (int64_t)i * hidden, hidden);
  }
  /* the parameters' gradients add */
  copy_part(t, j.saved, kept, 0);
  copy_part(t, j.gates, kept_gates, 0);
  sw_gru_backward_reference(&j.desc, cu, gates, j.weight->host, j.bias->host, initial, j.dy->host, dgates, dweight, dbias, dinitial);
  backward(t, &j);
  kt_compare(t, "dweight twice", j.dweight, dweight, 1e-5, 2 * unit * many);
  kt_compare(t, "dbias twice", j.dbias, dbias, 1e-5, 2 * unit * many);
  free(alone);
  free(cu);
  kt_clear(t);
}

/* With weights, biases and gates of zero r = z = 1/2 and n = 0: the state is halved in every step, exactly; and so is its gradient. */
static void exact(kt *t, sw_dtype dtype, int reverse) {
  kt_case(t, "%s halves%s", sw_dtype_name(dtype), reverse ? ", reverse" : "");
  enum { HIDDEN = 37, LONGEST = 6 };
  const int32_t lengths[] = {3, 0, LONGEST, 1}, cu[] = {0, 3, 3, 3 + LONGEST, 4 + LONGEST};
  job j = make(t, 4, lengths, HIDDEN, 1, reverse, dtype);
  kt_tensor *zeros[] = {j.gates, j.weight, j.bias, j.dy, j.dweight, j.dbias};
  for (int i = 0; i < 6; i++) kt_fill(t, zeros[i], 0);
  kt_integers(t, j.initial, -8, 8);
  for (int b = 0; b < 4; b++) /* the gradient comes from the last state */
    for (int c = 0; lengths[b] && c < HIDDEN; c++) j.dy->host[(reverse ? cu[b] : cu[b + 1] - 1) * HIDDEN + c] = 1 + c % 5;
  kt_upload(t, j.dy);
  double *y = kt_doubles(t, j.y->count), *dinitial = kt_doubles(t, 4 * HIDDEN), *di_z = kt_doubles(t, j.gates->count);
  double *dbias = kt_doubles(t, 3 * HIDDEN);
  for (int b = 0; b < 4; b++)
    for (int c = 0; c < HIDDEN; c++) {
      const double h = j.initial->host[b * HIDDEN + c], g = 1 + c % 5;
      for (int i = 0; i < lengths[b]; i++) {
        const int at = reverse ? cu[b + 1] - 1 - i : cu[b] + i;
        y[at * HIDDEN + c] = ldexp(h, -1 - i);
        di_z[at * 3 * HIDDEN + HIDDEN + c] = ldexp(h, -i) * ldexp(g, i + 1 - lengths[b]) / 4;     /* dh h z (1 - z) */
        di_z[at * 3 * HIDDEN + 2 * HIDDEN + c] = ldexp(g, i + 1 - lengths[b]) / 2;                /* dh (1 - z) */
        dbias[HIDDEN + c] += di_z[at * 3 * HIDDEN + HIDDEN + c];
        dbias[2 * HIDDEN + c] += ldexp(g, i + 1 - lengths[b]) / 4;                                /* times r */
      }
      dinitial[b * HIDDEN + c] = lengths[b] ? ldexp(g, -lengths[b]) : 0;
    }
  forward(t, &j);
  kt_compare(t, "y", j.y, y, 0, 0);
  backward(t, &j);
  kt_compare(t, "dgates", j.gates, di_z, 0, 0);
  kt_compare(t, "dbias", j.dbias, dbias, 0, 0);
  kt_compare(t, "dinitial", j.dinitial, dinitial, 0, 0);
  kt_clear(t);
}

/* A gate that is NaN or infinite: NaN stays in its sequence, infinities close or open a gate. */
static void special_values(kt *t) {
  kt_case(t, "special values");
  enum { HIDDEN = 20 };
  const int32_t lengths[] = {3, 4, 2};
  job j = make(t, 3, lengths, HIDDEN, 1, 0, SW_F32);
  double *y = kt_doubles(t, j.y->count);
  j.desc.host_cu_seqlens = NULL; /* a library multiplies the gates by ones and zeros, which knows no infinities */
  j.gates->host[4 * 3 * HIDDEN + 2 * HIDDEN + 7] = NAN;                                          /* second sequence, second token */
  for (int c = 0; c < HIDDEN; c++) j.gates->host[7 * 3 * HIDDEN + HIDDEN + c] = INFINITY;        /* third sequence: the state stays */
  for (int c = 0; c < HIDDEN; c++) j.gates->host[8 * 3 * HIDDEN + HIDDEN + c] = -INFINITY;       /* ... and goes */
  for (int c = 0; c < HIDDEN; c++) j.gates->host[8 * 3 * HIDDEN + 2 * HIDDEN + c] = INFINITY;
  kt_upload(t, j.gates);
  sw_gru_reference(&j.desc, (int32_t[]){0, 3, 7, 9}, j.gates->host, j.weight->host, j.bias->host, j.initial->host, y);
  kt_check(t, isnan(y[6 * HIDDEN]) && y[7 * HIDDEN + 3] == j.initial->host[2 * HIDDEN + 3] && y[8 * HIDDEN + 3] == 1, "the reference is wrong");
  forward(t, &j);
  kt_compare(t, "y", j.y, y, 0, 4e-6);
  kt_clear(t);
}

/* sum(dy * y), for finite differences */
typedef struct {
  const sw_gru_desc *desc;
  const int32_t *cu;
  const double *gates, *weight, *bias, *initial, *dy;
  double *y;
} scalar;
static double objective(const scalar *s) {
  double sum = 0;
  sw_gru_reference(s->desc, s->cu, s->gates, s->weight, s->bias, s->initial, s->y);
  for (int64_t i = 0; i < s->desc->total_tokens * s->desc->hidden; i++) sum += s->dy[i] * s->y[i];
  return sum;
}
static double of_gates(const double *x, void *s) {
  scalar changed = *(scalar *)s;
  return changed.gates = x, objective(&changed);
}
static double of_weight(const double *x, void *s) {
  scalar changed = *(scalar *)s;
  return changed.weight = x, objective(&changed);
}
static double of_bias(const double *x, void *s) {
  scalar changed = *(scalar *)s;
  return changed.bias = x, objective(&changed);
}
static double of_initial(const double *x, void *s) {
  scalar changed = *(scalar *)s;
  return changed.initial = x, objective(&changed);
}
static void reference_by_differences(kt *t, int reverse) {
  kt_case(t, "reference%s", reverse ? ", reverse" : "");
  enum { HIDDEN = 7, BATCH = 4, TOTAL = 12 };
  const int32_t cu[] = {0, 5, 5, 6, TOTAL};
  const sw_gru_desc desc = {BATCH, TOTAL, HIDDEN, reverse, SW_F32, NULL};
  double gates[TOTAL * 3 * HIDDEN], weight[3 * HIDDEN * HIDDEN], bias[3 * HIDDEN], initial[BATCH * HIDDEN], dy[TOTAL * HIDDEN], y[TOTAL * HIDDEN];
  double dgates[TOTAL * 3 * HIDDEN], dweight[3 * HIDDEN * HIDDEN] = {0}, dbias[3 * HIDDEN] = {0}, dinitial[BATCH * HIDDEN];
  for (int i = 0; i < TOTAL * 3 * HIDDEN; i++) gates[i] = kt_random_normal(t);
  for (int i = 0; i < 3 * HIDDEN * HIDDEN; i++) weight[i] = 0.5 * kt_random_normal(t);
  for (int i = 0; i < 3 * HIDDEN; i++) bias[i] = kt_random_normal(t);
  for (int i = 0; i < BATCH * HIDDEN; i++) initial[i] = kt_random_normal(t);
  for (int i = 0; i < TOTAL * HIDDEN; i++) dy[i] = kt_random_normal(t);
  scalar s = {&desc, cu, gates, weight, bias, initial, dy, y};
  sw_gru_backward_reference(&desc, cu, gates, weight, bias, initial, dy, dgates, dweight, dbias, dinitial);
  kt_finite_difference(t, "dgates", of_gates, &s, gates, dgates, TOTAL * 3 * HIDDEN);
  kt_finite_difference(t, "dweight", of_weight, &s, weight, dweight, 3 * HIDDEN * HIDDEN);
  kt_finite_difference(t, "dbias", of_bias, &s, bias, dbias, 3 * HIDDEN);
  kt_finite_difference(t, "dinitial", of_initial, &s, initial, dinitial, BATCH * HIDDEN);
}

static void refused(kt *t) {
  kt_case(t, "refused");
  size_t bytes;
  sw_gru_desc d = {1, 1, 1025, 0, SW_F32, NULL};
  kt_fails(t, SW_RUN(&t->stream, gru_workspace, &d, &bytes), "hidden size 1025");
  job j = make(t, 2, (int32_t[]){2, 3}, 8, 0, 0, SW_F32);
  j.desc.hidden = 0;
  kt_fails(t, SW_RUN(&t->stream, gru_forward, &j.desc, j.cu, j.gates->data, j.weight->data, j.bias->data, NULL, j.y->data, NULL, j.workspace->data),
           "hidden size 0");
  j.desc.hidden = 8;
  j.desc.batch = -1;
  kt_fails(t, SW_RUN(&t->stream, gru_backward, &j.desc, j.cu, j.gates->data, j.saved->data, j.weight->data, NULL, j.y->data, j.dy->data,
                     j.dweight->data, j.dbias->data, NULL, j.workspace->data),
           "-1 sequences");
  j.desc.batch = 2;
  j.desc.host_cu_seqlens = NULL;
  static const struct {
    int32_t cu[3];
    const char *message;
  } bad[] = {{{1, 2, 5}, "cu_seqlens[0] is 1"}, {{0, 6, 5}, "falls at sequence 1"}, {{0, 2, 4}, "ends at 4"}};
  for (int i = 0; i < 3; i++) {
    j.cu = kt_int32(t, "bad", 3, bad[i].cu);
    if (!strcmp(t->device->backend, "cpu")) {
      kt_fails(t, SW_RUN(&t->stream, gru_forward, &j.desc, j.cu, j.gates->data, j.weight->data, j.bias->data, NULL, j.y->data, NULL,
                         j.workspace->data),
               bad[i].message);
      kt_fails(t, SW_RUN(&t->stream, gru_backward, &j.desc, j.cu, j.gates->data, j.saved->data, j.weight->data, NULL, j.y->data, j.dy->data,
                         j.dweight->data, j.dbias->data, NULL, j.workspace->data),
               bad[i].message);
    }
  }
  if (strcmp(t->device->backend, "cpu")) { /* sequences outside the tokens are left alone, and nothing else is touched */
    j.cu = kt_int32(t, "outside", 3, (int32_t[]){-2, 6, 3});
    kt_download(t, j.y);
    double *y = copy_of(t, j.y), *gates = copy_of(t, j.gates), *dweight = copy_of(t, j.dweight), *dbias = copy_of(t, j.dbias);
    forward(t, &j);
    backward(t, &j);
    kt_compare(t, "y", j.y, y, 0, 0);
    kt_compare(t, "gates", j.gates, gates, 0, 0);
    kt_compare(t, "dweight", j.dweight, dweight, 0, 0);
    kt_compare(t, "dbias", j.dbias, dbias, 0, 0);
  }
  kt_clear(t);
}

/* The small multilabel model's layer: 32 texts of 100 words, 128 features to 180 cells; `beside` runs the input half with its gradients. */
typedef struct {
  job gru;
  sw_linear_desc linear;
  kt_tensor *x, *dx, *input_weight, *prepared, *input_bias, *dinput_weight, *dinput_bias, *scratch;
} layer;
static void layer_forward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, linear_prepare, &l->linear, l->input_weight->data, l->prepared->data));
  kt_ok(t, SW_RUN(&t->stream, linear_forward, &l->linear, l->x->data, l->prepared->data, l->input_bias->data, NULL, l->gru.gates->data,
                  l->scratch->data));
  forward(t, &l->gru);
}
static void layer_both(kt *t, void *argument) {
  layer *l = argument;
  layer_forward(t, l);
  backward(t, &l->gru);
  kt_ok(t, SW_RUN(&t->stream, linear_backward_weight, &l->linear, l->gru.gates->data, l->x->data, l->dinput_weight->data, l->dinput_bias->data,
                  l->scratch->data));
  kt_ok(t, SW_RUN(&t->stream, linear_backward_input, &l->linear, l->gru.gates->data, NULL, l->prepared->data, l->dx->data, 0, l->scratch->data));
}
static void recurrence(kt *t, void *argument) {
  layer *l = argument;
  forward(t, &l->gru);
  backward(t, &l->gru);
}
static void bench(kt *t) {
  enum { INPUT = 128, HIDDEN = 180, TOKENS = 100, MOST = 256 };
  int32_t lengths[MOST];
  for (int i = 0; i < MOST; i++) lengths[i] = TOKENS;
  for (int k = 0; k < 8; k++) {
    const sw_dtype dtype = k & 1 ? SW_BF16 : SW_F32;
    const int batch = k & 2 ? MOST : 32;
    t->stream.threads = k & 4 ? 1 : 2;
    layer l = {.gru = make(t, batch, lengths, HIDDEN, 0, 0, dtype)};
    const int64_t total = l.gru.desc.total_tokens;
    l.linear = (sw_linear_desc){total, INPUT, 3 * HIDDEN, dtype, dtype, SW_NO_ACTIVATION, 1, 0};
    size_t prepared, scratch;
    kt_ok(t, SW_RUN(&t->stream, linear_weight_bytes, &l.linear, &prepared));
    kt_ok(t, SW_RUN(&t->stream, linear_workspace, &l.linear, &scratch));
    l.x = kt_new(t, "x", dtype, total * INPUT), l.dx = kt_new(t, "dx", dtype, total * INPUT);
    l.input_weight = kt_new(t, "input weight", SW_F32, 3 * HIDDEN * INPUT), l.input_bias = kt_new(t, "input bias", SW_F32, 3 * HIDDEN);
    l.dinput_weight = kt_new(t, "dinput weight", SW_F32, 3 * HIDDEN * INPUT), l.dinput_bias = kt_new(t, "dinput bias", SW_F32, 3 * HIDDEN);
    l.prepared = kt_bytes(t, "prepared", prepared), l.scratch = kt_bytes(t, "scratch", scratch);
    kt_normal(t, l.x, 0, 1);
    kt_uniform(t, l.input_weight, -0.1, 0.1);
    kt_uniform(t, l.input_bias, -0.1, 0.1);
    kt_fill(t, l.dinput_weight, 0);
    kt_fill(t, l.dinput_bias, 0);
    const double product = 2.0 * (double)total * 3 * HIDDEN; /* a feature or cell */
    char what[80];
    snprintf(what, sizeof what, "gru %s %dx%d layer forward", sw_dtype_name(dtype), batch, TOKENS);
    kt_report(t, what, kt_seconds(t, layer_forward, &l), product * (INPUT + HIDDEN), 0);
    snprintf(what, sizeof what, "gru %s %dx%d layer forward+backward", sw_dtype_name(dtype), batch, TOKENS);
    kt_report(t, what, kt_seconds(t, layer_both, &l), 3 * product * (INPUT + HIDDEN), 0);
    snprintf(what, sizeof what, "gru %s %dx%d recurrence forward+backward", sw_dtype_name(dtype), batch, TOKENS);
    kt_report(t, what, kt_seconds(t, recurrence, &l), 3 * product * HIDDEN, 0);
    kt_clear(t);
  }
}

static void tests(kt *t) {
  const int small = kt_small(t); /* slow: fewer tokens */
  reference_by_differences(t, 0);
  reference_by_differences(t, 1);
  static const int32_t mixed[] = {5, 0, 1, 17, 2, 9, 3, 0, 11, 1, 4, 23, 6, 6, 8, 2, 1, 13, 7, 5, 3, 12, 0, 1, 2, 4, 9, 30, 1, 6, 2, 5, 3, 8, 1, 40, 2};
  static const int32_t one[] = {300}, none[] = {0, 0};
  static const int hiddens[] = {1, 5, 16, 33, 48, 100};
  for (int dtype = SW_F32; dtype <= (by_library(t, SW_F32) ? SW_F32 : SW_BF16); dtype++) { /* the library does fp32 only */
    for (int h = 0; h < (small ? 5 : 6); h++)
      for (int k = 0; k < (small ? 1 : 2); k++)
        against_reference(t, small ? 4 + h : 37, mixed, hiddens[h], (h + k) % 2, (h / 2 + k) % 2, (sw_dtype)dtype);
    against_reference(t, 3, mixed + (small ? 7 : 3), 180, 1, 0, (sw_dtype)dtype);
    against_reference(t, 1, one, small ? 5 : 32, 1, 1, (sw_dtype)dtype); /* more tokens than the weight's gradient takes at a time */
    against_reference(t, 2, none, 12, 1, 0, (sw_dtype)dtype);
    against_reference(t, 0, none, 12, 0, 0, (sw_dtype)dtype);
    exact(t, (sw_dtype)dtype, dtype == SW_F32);
  }
  against_reference(t, small ? 1 : 2, mixed + 4, 400, 1, 0, SW_F32); /* wide cells */
  special_values(t);
  refused(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
