/* Pooling and gathering against the double reference. */
#include "kernels/pool/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

static const char *const pooling_names[] = {"mean", "cls", "max", "sum"};

typedef struct {
  sw_pool_desc desc;
  int32_t *cu; /* device */
  kt_tensor *x, *y, *norms, *dy, *dx;
} job;
static void forward(kt *t, void *argument) {
  job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, pool_forward, &j->desc, j->cu, j->x->data, j->y->data, j->norms->data));
}
static void backward(kt *t, void *argument) {
  job *j = argument;
  kt_ok(t, SW_RUN(&t->stream, pool_backward, &j->desc, j->cu, j->x->data, j->y->data, j->norms->data, j->dy->data, j->dx->data));
}

static job make(kt *t, int batch, const int32_t *lengths, int64_t spare, int hidden, sw_pooling pooling, int normalize, sw_dtype dtype) {
  int64_t total;
  job j = {.cu = kt_cu_seqlens(t, batch, lengths, &total)};
  total += spare;
  j.desc = (sw_pool_desc){batch, total, hidden, pooling, normalize, dtype};
  j.x = kt_new(t, "x", dtype, total * hidden);
  j.y = kt_new(t, "y", SW_F32, (int64_t)batch * hidden);
  j.norms = kt_new(t, "norms", SW_F32, batch);
  j.dy = kt_new(t, "dy", SW_F32, (int64_t)batch * hidden);
  j.dx = kt_new(t, "dx", dtype, total * hidden);
  kt_normal(t, j.x, 0.1, 1);
  if (pooling == SW_POOL_MAX) { /* in each column no two of 211 tokens are close: a maximum has no derivative at a tie */
    int shift = kt_below(t, 211);
    for (int64_t i = 0; i < j.x->count; i++) j.x->host[i] = (double)((i / hidden * 79 + i % hidden * 31 + shift) % 211) * 4 / 211 - 2;
    kt_upload(t, j.x);
  }
  kt_normal(t, j.dy, 0, 1);
  return j;
}

/* sum(dy * y(x)), for finite differences */
typedef struct {
  const sw_pool_desc *desc;
  const int32_t *cu;
  const double *dy;
  double *y, *norms;
} scalar;
static double objective(const double *x, void *argument) {
  scalar *s = argument;
  double sum = 0;
  sw_pool_reference(s->desc, s->cu, x, s->y, s->norms);
  for (int64_t i = 0; i < (int64_t)s->desc->batch * s->desc->hidden; i++) sum += s->dy[i] * s->y[i];
  return sum;
}

static void against_reference(kt *t, int batch, const int32_t *lengths, int hidden, sw_pooling pooling, int normalize, sw_dtype dtype) {
  kt_case(t, "%s%s %s, batch %d, hidden %d", pooling_names[pooling], normalize ? " normalised" : "", sw_dtype_name(dtype), batch, hidden);
  job j = make(t, batch, lengths, batch % 2 ? 3 : 0, hidden, pooling, normalize, dtype);
  int32_t cu[64] = {0};
  for (int i = 0; i < batch; i++) cu[i + 1] = cu[i] + lengths[i];
  int64_t elements = j.desc.total_tokens * hidden;
  double *y = kt_doubles(t, (int64_t)batch * hidden), *norms = kt_doubles(t, batch), *dx = kt_doubles(t, elements);
  sw_pool_reference(&j.desc, cu, j.x->host, y, norms);
  kt_with_threads(t, "forward", forward, &j, (kt_tensor *[]){j.y, j.norms}, 2);
  double scale = kt_largest(j.dy->host, j.dy->count), shortest = 1, terms = 1; /* of the largest sum that is not divided */
  for (int i = 0; normalize && i < batch; i++)
    if (lengths[i]) shortest = fmin(shortest, norms[i]);
  for (int i = 0; pooling == SW_POOL_SUM && i < batch; i++) terms = fmax(terms, lengths[i]);
  kt_compare(t, "y", j.y, y, 2e-6, 2e-6 * terms / shortest);
  kt_compare(t, "norms", j.norms, norms, 4e-6, 1e-6 * terms);
  sw_pool_backward_reference(&j.desc, cu, j.x->host, j.dy->host, dx);
  kt_with_threads(t, "backward", backward, &j, (kt_tensor *[]){j.dx}, 1);
  /* one rounding to bf16 is at most 2^-8 of the value; dy - y (y . dy) cancels, so its error follows dy / norm */
  kt_compare(t, "dx", j.dx, dx, dtype == SW_BF16 ? 0x1.01p-8 : 1e-5, 2e-6 * scale / shortest);
  scalar s = {&j.desc, cu, j.dy->host, kt_doubles(t, (int64_t)batch * hidden), kt_doubles(t, batch)};
  if (elements <= 3000) kt_finite_difference(t, "reference", objective, &s, j.x->host, dx, elements);

  /* each sequence alone: the same bits */
  for (int i = 0; i < batch; i++) {
    job k = make(t, 1, lengths + i, 0, hidden, pooling, normalize, dtype);
    memcpy(k.x->host, j.x->host + (int64_t)cu[i] * hidden, (size_t)k.x->count * sizeof(double));
    kt_upload(t, k.x);
    memcpy(k.dy->host, j.dy->host + (int64_t)i * hidden, (size_t)hidden * sizeof(double));
    kt_upload(t, k.dy);
    forward(t, &k);
    backward(t, &k);
    kt_same_bits_at(t, "y alone", k.y, 0, j.y, (int64_t)i * hidden, hidden);
    kt_same_bits_at(t, "dx alone", k.dx, 0, j.dx, (int64_t)cu[i] * hidden, k.dx->count);
  }
  kt_clear(t);
}

/* whole numbers, powers of two as lengths: no rounding anywhere, ties for the maximum */
static void exact(kt *t, sw_pooling pooling, sw_dtype dtype) {
  const int32_t lengths[] = {4, 1, 0, 8, 2};
  const int hidden = 37;
  kt_case(t, "exact %s %s", pooling_names[pooling], sw_dtype_name(dtype));
  job j = make(t, 5, lengths, 0, hidden, pooling, 0, dtype);
  kt_integers(t, j.x, -3, 3);
  kt_integers(t, j.dy, -8, 8);
  int32_t cu[6] = {0, 4, 5, 5, 13, 15};
  double *y = kt_doubles(t, 5 * hidden), *norms = kt_doubles(t, 5), *dx = kt_doubles(t, j.x->count);
  sw_pool_reference(&j.desc, cu, j.x->host, y, norms);
  sw_pool_backward_reference(&j.desc, cu, j.x->host, j.dy->host, dx);
  forward(t, &j);
  backward(t, &j);
  kt_check(t, kt_largest(y, 5 * hidden) > 0, "the result is all zero");
  kt_compare(t, "y", j.y, y, 0, 0);
  kt_compare(t, "dx", j.dx, dx, 0, 0);
  kt_clear(t);
}

static void special_values(kt *t) {
  const int hidden = 21;
  for (int pooling = SW_POOL_MEAN; pooling <= SW_POOL_SUM; pooling++) {
    kt_case(t, "NaN, %s", pooling_names[pooling]);
    job j = make(t, 2, (int32_t[]){3, 3}, 0, hidden, (sw_pooling)pooling, 1, SW_F32);
    j.x->host[(pooling == SW_POOL_CLS ? 0 : 1) * hidden + 5] = NAN; /* in the first sequence only */
    kt_upload(t, j.x);
    forward(t, &j);
    kt_download(t, j.y);
    int nans = 0, others = 0;
    for (int c = 0; c < hidden; c++) nans += isnan(j.y->host[c]) != 0, others += isnan(j.y->host[hidden + c]) != 0;
    kt_check(t, nans == hidden && others == 0, "NaN in %d of the first and %d of the second sequence's features", nans, others);
    kt_clear(t);

    kt_case(t, "zeros, %s", pooling_names[pooling]);
    j = make(t, 1, (int32_t[]){2}, 0, hidden, (sw_pooling)pooling, 1, SW_F32);
    kt_fill(t, j.x, 0);
    double *zeros = kt_doubles(t, 2 * hidden);
    forward(t, &j);
    kt_compare(t, "y", j.y, zeros, 0, 0);
    kt_compare(t, "norm", j.norms, zeros, 0, 0);
    backward(t, &j);
    sw_pool_backward_reference(&j.desc, (int32_t[]){0, 2}, j.x->host, j.dy->host, zeros);
    kt_compare(t, "dx", j.dx, zeros, 1e-6, 0);
    kt_clear(t);
  }
}

static void gather(kt *t, int64_t tokens, int64_t rows, int hidden, sw_dtype dtype) {
  kt_case(t, "gather %lld of %lld, hidden %d, %s", (long long)rows, (long long)tokens, hidden, sw_dtype_name(dtype));
  sw_gather_desc desc = {tokens, rows, hidden, dtype};
  kt_tensor *x = kt_new(t, "x", dtype, tokens * hidden), *y = kt_new(t, "y", dtype, rows * hidden),
            *dx = kt_new(t, "dx", dtype, tokens * hidden);
  kt_normal(t, x, 0, 1);
  int32_t *index = malloc((size_t)tokens * sizeof *index);
  for (int i = 0; i < tokens; i++) { /* a shuffle: distinct */
    int k = kt_below(t, i + 1);
    index[i] = index[k];
    index[k] = i;
  }
  int32_t *device = kt_int32(t, "index", rows, index);
  double *want = kt_doubles(t, rows * hidden), *back = kt_doubles(t, tokens * hidden);
  for (int64_t i = 0; i < rows * hidden; i++) {
    want[i] = x->host[index[i / hidden] * hidden + i % hidden];
    back[index[i / hidden] * hidden + i % hidden] = want[i];
  }
  for (int threads = 1; threads <= 3; threads++) {
    t->stream.threads = threads;
    kt_ok(t, SW_RUN(&t->stream, gather_forward, &desc, device, x->data, y->data));
    kt_compare(t, "y", y, want, 0, 0);
    kt_ok(t, SW_RUN(&t->stream, gather_backward, &desc, device, y->data, dx->data));
    kt_compare(t, "dx", dx, back, 0, 0);
  }
  t->stream.threads = 2;
  for (int k = 0; rows && k < 2; k++) {
    int32_t bad = k ? -1 : (int32_t)tokens;
    device = kt_int32(t, "bad", 1, &bad);
    desc.rows = 1;
    int forward = SW_RUN(&t->stream, gather_forward, &desc, device, x->data, y->data);
    int backward = SW_RUN(&t->stream, gather_backward, &desc, device, y->data, dx->data);
    if (!strcmp(t->device->backend, "cpu")) {
      kt_fails(t, forward, "index[0] is");
      kt_fails(t, backward, k ? "index[0] is -1" : "index[0] is");
    } else {
      for (int i = 0; i < hidden; i++) want[i] = NAN;
      memset(back, 0, (size_t)(tokens * hidden) * sizeof *back);
      kt_ok(t, forward);
      kt_compare(t, "y", y, want, 0, 0);
      kt_ok(t, backward);
      kt_compare(t, "dx", dx, back, 0, 0);
    }
  }
  free(index);
  kt_clear(t);
}

static void bad_sequences(kt *t, job *j, const char *message) {
  kt_case(t, "bad input: %s", message);
  int status = SW_RUN(&t->stream, pool_forward, &j->desc, j->cu, j->x->data, j->y->data, NULL);
  if (!strcmp(t->device->backend, "cpu")) {
    kt_fails(t, status, message);
    return;
  }
  kt_ok(t, status); /* the second sequence is bad */
  kt_download(t, j->y);
  for (int i = 0; i < 16; i++) kt_check(t, !isnan(j->y->host[i]) == (i < 8), "y[%d] is %g", i, j->y->host[i]);
  kt_fill(t, j->norms, 1);
  kt_fill(t, j->dx, 7);
  backward(t, j);
  kt_download(t, j->dx);
  kt_check(t, j->dx->host[0] != 7, "the good sequence's dx is not written");
  if (j->desc.total_tokens == 4) kt_check(t, j->dx->host[4 * 8] == 7, "dx beyond the tokens is %g", j->dx->host[4 * 8]);
}
static void bad_input(kt *t) {
  job j = make(t, 2, (int32_t[]){2, 3}, 0, 8, SW_POOL_MEAN, 1, SW_F32);
  j.desc.total_tokens = 4;
  bad_sequences(t, &j, "beyond the 4 tokens");
  j.desc.total_tokens = 5;
  kt_case(t, "bad input");
  kt_fails(t, SW_RUN(&t->stream, pool_backward, &j.desc, j.cu, j.x->data, j.y->data, NULL, j.dy->data, j.dx->data), "norms");
  j.cu = kt_int32(t, "falling", 3, (int32_t[]){0, 4, 3});
  bad_sequences(t, &j, "falls at sequence 1");
  kt_clear(t);
}

static void bench(kt *t) {
  int32_t lengths[64];
  for (int i = 0; i < 64; i++) lengths[i] = 256;
  for (int dtype = SW_F32; dtype <= SW_BF16; dtype++)
    for (int pooling = SW_POOL_MEAN; pooling <= SW_POOL_MAX; pooling += 2) {
      job j = make(t, 64, lengths, 0, 384, (sw_pooling)pooling, 1, (sw_dtype)dtype);
      char name[64];
      snprintf(name, sizeof name, "pool_forward %s %s 64 x 256 x 384", pooling_names[pooling], sw_dtype_name((sw_dtype)dtype));
      kt_report(t, name, kt_seconds(t, forward, &j), 0, (double)j.x->bytes);
      snprintf(name, sizeof name, "pool_backward %s %s", pooling_names[pooling], sw_dtype_name((sw_dtype)dtype));
      kt_report(t, name, kt_seconds(t, backward, &j), 0, (double)j.dx->bytes * (pooling == SW_POOL_MAX ? 2 : 1));
      kt_clear(t);
    }
}

int main(int argc, char **argv) {
  kt t;
  int status = kt_open(&t, argc, argv);
  if (status) return status;
  static const int32_t mixed[] = {5, 0, 1, 17, 2, 33, 0}, one[] = {13}, many[] = {90, 31, 64, 1, 77, 128, 9, 55};
  static const int hiddens[] = {1, 5, 16, 37, 64, 131, 384, 1030, 2052};
  for (int dtype = SW_F32; dtype <= SW_BF16; dtype++)
    for (int pooling = SW_POOL_MEAN; pooling <= SW_POOL_SUM; pooling++) {
      exact(&t, (sw_pooling)pooling, (sw_dtype)dtype);
      for (int normalize = 0; normalize <= 1; normalize++) {
        for (int h = normalize; h < (int)(sizeof hiddens / sizeof *hiddens); h++) /* one feature normalised is only its sign */
          against_reference(&t, 7, mixed, hiddens[h], (sw_pooling)pooling, normalize, (sw_dtype)dtype);
        against_reference(&t, 1, one, 48, (sw_pooling)pooling, normalize, (sw_dtype)dtype);
      }
      against_reference(&t, 8, many, 100, (sw_pooling)pooling, 1, (sw_dtype)dtype); /* large enough for threads */
    }
  special_values(&t);
  for (int dtype = SW_F32; dtype <= SW_BF16; dtype++) {
    gather(&t, 9, 4, 13, (sw_dtype)dtype);
    gather(&t, 700, 300, 129, (sw_dtype)dtype);
    gather(&t, 3, 0, 8, (sw_dtype)dtype);
  }
  bad_input(&t);
  if (t.bench) bench(&t);
  return kt_close(&t);
}
