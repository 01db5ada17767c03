/* Attention over packed sequences, forward and backward, against the fp64 reference. */
#include "kernels/attention/reference.h"
#include "kernels/layernorm/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_attention_desc desc;
  int32_t cu[600]; /* on the host */
  int32_t *device_cu;
  kt_tensor *qkv, *out, *lse, *dout, *dqkv, *workspace;
  int keep_lse;
} layer;

static void forward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, attention_forward, &l->desc, l->device_cu, l->qkv->data, l->out->data,
                  l->keep_lse ? l->lse->data : NULL, l->workspace->data));
}
static void backward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, attention_backward, &l->desc, l->device_cu, l->qkv->data, l->out->data, l->lse->data,
                  l->dout->data, l->dqkv->data, l->workspace->data));
}

/* Tensors for these lengths; the workspace serves up to 3 threads. */
static layer layer_of(kt *t, sw_dtype dtype, int batch, const int32_t *lengths, int heads, int size, float p) {
  layer l = {.desc = {.batch = batch,
                      .num_heads = heads,
                      .head_size = size,
                      .scale = (float)(1 / sqrt(size)),
                      .dtype = dtype,
                      .dropout = {.p = p, .seed = t->seed * 0x9E3779B97F4A7C15ull, .site = 12, .step = 3, .first = (uint64_t)batch << 10}},
             .keep_lse = 1};
  for (int i = 0; i < batch; i++) {
    l.cu[i + 1] = l.cu[i] + lengths[i];
    if (lengths[i] > l.desc.max_seqlen) l.desc.max_seqlen = lengths[i];
  }
  l.device_cu = kt_cu_seqlens(t, batch, lengths, &l.desc.total_tokens);
  int64_t wide = l.desc.total_tokens * heads * size;
  size_t bytes = 0;
  int threads = t->stream.threads;
  t->stream.threads = 3;
  kt_ok(t, SW_RUN(&t->stream, attention_workspace, &l.desc, &bytes));
  t->stream.threads = threads;
  l.workspace = kt_bytes(t, "workspace", bytes);
  l.qkv = kt_new(t, "qkv", dtype, 3 * wide), l.out = kt_new(t, "out", dtype, wide);
  l.lse = kt_new(t, "lse", SW_F32, l.desc.total_tokens * heads);
  l.dout = kt_new(t, "dout", dtype, wide), l.dqkv = kt_new(t, "dqkv", dtype, 3 * wide);
  return l;
}

static double to_bf16(double x) { return sw_bf16_to_f32(sw_f32_to_bf16((float)x)); }

/* Backward as a plain implementation in bf16 does it, step by step: P and dS are rounded to bf16 as factors of products, D is taken from the
 * rounded output, everything else is exact. */
static void plain_backward(const layer *l, double *dqkv) {
  const int heads = l->desc.num_heads, size = l->desc.head_size, wide = heads * size;
  const double scale = l->desc.scale, *qkv = l->qkv->host, *dout = l->dout->host, *out = l->out->host;
  memset(dqkv, 0, (size_t)l->dqkv->count * sizeof *dqkv);
  for (int s = 0; s < l->desc.batch; s++)
    for (int h = 0; h < heads; h++)
      for (int64_t i = l->cu[s]; i < l->cu[s + 1]; i++) {
        const int64_t q = i * 3 * wide + h * size, o = i * wide + h * size;
        double inner = 0;
        for (int c = 0; c < size; c++) inner += dout[o + c] * out[o + c];
        for (int64_t j = l->cu[s]; j < l->cu[s + 1]; j++) {
          const int64_t k = j * 3 * wide + wide + h * size, v = k + wide;
          double score = 0, dp = 0, m = 1;
          if (l->desc.dropout.p > 0)
            m = sw_reference_multiplier(&l->desc.dropout, (uint64_t)(i * heads + h) << 10 | (uint64_t)(j - l->cu[s]));
          for (int c = 0; c < size; c++) score += qkv[q + c] * qkv[k + c], dp += dout[o + c] * qkv[v + c];
          const double probability = exp(scale * score - l->lse->host[i * heads + h]);
          const double weight = to_bf16(probability * m), ds = to_bf16(probability * (dp * m - inner));
          for (int c = 0; c < size; c++) {
            dqkv[q + c] += scale * ds * qkv[k + c];
            dqkv[k + c] += scale * ds * qkv[q + c];
            dqkv[v + c] += weight * dout[o + c];
          }
        }
      }
  for (int64_t i = 0; i < l->dqkv->count; i++) dqkv[i] = to_bf16(dqkv[i]);
}
/* dqkv may be at most twice as far from the exact gradients as a plain implementation in the same precision: in the worst place, and by norm. */
static void compare_with_plain(kt *t, layer *l, const double *want, double atol) {
  double *plain = kt_doubles(t, l->dqkv->count), norm[2] = {0}, worst[2] = {0};
  plain_backward(l, plain);
  kt_download(t, l->dqkv);
  for (int64_t i = 0; i < l->dqkv->count; i++) {
    const double error[2] = {fabs(l->dqkv->host[i] - want[i]), fabs(plain[i] - want[i])};
    for (int k = 0; k < 2; k++) {
      norm[k] += error[k] * error[k];
      if (!(error[k] <= worst[k])) worst[k] = error[k];
    }
  }
  kt_check(t, worst[0] <= 2 * worst[1] + atol, "dqkv: largest error %g, a plain implementation's %g", worst[0], worst[1]);
  kt_check(t, sqrt(norm[0]) <= 2 * sqrt(norm[1]) + atol * sqrt((double)l->dqkv->count), "dqkv: error %g by norm, a plain implementation's %g", sqrt(norm[0]),
           sqrt(norm[1]));
}

static void one_case(kt *t, sw_dtype dtype, int batch, const int32_t *lengths, int heads, int size, float p,
                     double spread) {
  kt_case(t, "%s batch %d of %d.. tokens, heads %d x %d, p %g, spread %g", sw_dtype_name(dtype), batch,
          batch ? lengths[0] : 0, heads, size, p, spread);
  layer l = layer_of(t, dtype, batch, lengths, heads, size, p);
  kt_normal(t, l.qkv, 0, spread);
  kt_normal(t, l.dout, 0, 1);
  double *out = kt_doubles(t, l.out->count), *lse = kt_doubles(t, l.lse->count), *dqkv = kt_doubles(t, l.dqkv->count);
  sw_reference_attention_forward(&l.desc, l.cu, l.qkv->host, out, lse);
  sw_reference_attention_backward(&l.desc, l.cu, l.qkv->host, l.dout->host, dqkv);
  /* An error of e in a score changes its probability by the factor 1 + e, and a score is a sum of products of size
   * spread^2. In bf16 each result is rounded once, and the probabilities may be: each by 2^-9 of itself, and so their
   * sum of values. */
  double score = 3e-7 * (4 + spread * spread * sqrt(size)), rtol = dtype == SW_F32 ? 1e-6 : 0x1p-8;
  double most = kt_largest(l.qkv->host, l.qkv->count);
  double weights = dtype == SW_BF16 ? 0x1p-9 * most / (1 - p) : 0;
  kt_with_threads(t, "forward", forward, &l, (kt_tensor *[]){l.out, l.lse}, 2);
  kt_compare(t, "out", l.out, out, rtol, score * most + weights);
  kt_compare(t, "lse", l.lse, lse, 1e-6, score);
  layer inference = l;
  inference.keep_lse = 0;
  inference.out = kt_new(t, "out without lse", dtype, l.out->count);
  forward(t, &inference);
  kt_same_bits(t, "without lse", inference.out, l.out);

  for (int64_t i = 0; i < l.lse->count; i++) l.lse->host[i] = lse[i];
  kt_upload(t, l.lse);
  for (int64_t i = 0; i < l.out->count; i++) l.out->host[i] = out[i];
  kt_upload(t, l.out);
  kt_with_threads(t, "backward", backward, &l, &l.dqkv, 1);
  /* With one key the gradients of q and k are 0; what is left of them is the rounding of dP - D, some |dout| |v| each.
   */
  double largest = kt_largest(dqkv, l.dqkv->count), atol = 4 * score * (largest + size * spread);
  if (dtype == SW_BF16 && strcmp(t->device->backend, "cpu"))
    compare_with_plain(t, &l, dqkv, atol);
  else
    kt_compare(t, "dqkv", l.dqkv, dqkv, rtol, atol);
  kt_clear(t);
}

/* Every sequence alone has the same bits as in the batch: with dropout off, because its counters follow the packed
 * position. */
static void sequences_alone(kt *t, sw_dtype dtype, int size) {
  kt_case(t, "%s sequences alone, head size %d", sw_dtype_name(dtype), size);
  static const int32_t lengths[] = {5, 0, 129, 16, 1, 257, 33, 12, 64};
  enum { BATCH = sizeof lengths / sizeof *lengths, HEADS = 2 };
  layer l = layer_of(t, dtype, BATCH, lengths, HEADS, size, 0);
  kt_normal(t, l.qkv, 0, 1);
  kt_normal(t, l.dout, 0, 1);
  forward(t, &l);
  backward(t, &l);
  for (int s = 0; s < BATCH; s++) {
    int64_t at = (int64_t)l.cu[s] * HEADS * size;
    layer one = layer_of(t, dtype, 1, lengths + s, HEADS, size, 0);
    memcpy(one.qkv->host, l.qkv->host + 3 * at, (size_t)one.qkv->count * sizeof(double));
    memcpy(one.dout->host, l.dout->host + at, (size_t)one.dout->count * sizeof(double));
    kt_upload(t, one.qkv);
    kt_upload(t, one.dout);
    forward(t, &one);
    backward(t, &one);
    kt_same_bits_at(t, "out", one.out, 0, l.out, at, one.out->count);
    kt_same_bits_at(t, "lse", one.lse, 0, l.lse, (int64_t)l.cu[s] * HEADS, one.lse->count);
    kt_same_bits_at(t, "dqkv", one.dqkv, 0, l.dqkv, 3 * at, one.dqkv->count);
  }
  kt_clear(t);
}

/* Keys that are all equal give equal probabilities: with a power of two of them, integers stay exact. */
static void integers(kt *t, sw_dtype dtype, int size) {
  kt_case(t, "%s integers, head size %d", sw_dtype_name(dtype), size);
  static const int32_t lengths[] = {4, 1, 32, 8};
  enum { BATCH = 4, HEADS = 3 };
  layer l = layer_of(t, dtype, BATCH, lengths, HEADS, size, 0.5f);
  double *want = kt_doubles(t, l.out->count), *qkv = l.qkv->host;
  kt_integers(t, l.qkv, -4, 4);
  for (int64_t i = 0; i < l.desc.total_tokens; i++)
    for (int c = 0; c < HEADS * size; c++) {
      qkv[(i * 3 + 1) * HEADS * size + c] = c % 5 - 2; /* the same key everywhere */
      qkv[(i * 3 + 2) * HEADS * size + c] *= 32;       /* divisible by the number of keys */
    }
  for (int64_t i = 0; i < l.qkv->count; i++) l.qkv->host[i] = qkv[i];
  kt_upload(t, l.qkv);
  sw_reference_attention_forward(&l.desc, l.cu, l.qkv->host, want, NULL);
  for (int64_t i = 0; i < l.out->count; i++) want[i] = nearbyint(want[i]); /* removes the reference's own last digits */
  if (dtype == SW_BF16)
    for (int64_t i = 0; i < l.out->count; i++) want[i] = sw_bf16_to_f32(sw_f32_to_bf16((float)want[i]));
  forward(t, &l);
  kt_compare(t, "out", l.out, want, 0, 0);
  kt_clear(t);
}

/* Scores of +-10^4 neither overflow nor vanish; a sequence with NaN or infinities leaves the others alone. */
static void hard_values(kt *t, sw_dtype dtype) {
  kt_case(t, "%s hard values", sw_dtype_name(dtype));
  static const int32_t lengths[] = {33, 20, 17};
  enum { BATCH = 3, HEADS = 2, SIZE = 32 };
  layer l = layer_of(t, dtype, BATCH, lengths, HEADS, SIZE, 0);
  kt_normal(t, l.qkv, 0, 40);
  kt_normal(t, l.dout, 0, 1);
  double *out = kt_doubles(t, l.out->count), *lse = kt_doubles(t, l.lse->count), *dqkv = kt_doubles(t, l.dqkv->count);
  sw_reference_attention_forward(&l.desc, l.cu, l.qkv->host, out, lse);
  sw_reference_attention_backward(&l.desc, l.cu, l.qkv->host, l.dout->host, dqkv);
  kt_tensor *clean = kt_new(t, "clean", dtype, l.out->count), *dclean = kt_new(t, "dclean", dtype, l.dqkv->count);
  kt_tensor *dirty = l.out, *ddirty = l.dqkv;
  forward(t, &l);
  backward(t, &l);
  kt_check(t, kt_largest(lse, l.lse->count) > 5000, "the scores are not large");
  kt_compare(t, "lse", l.lse, lse, 1e-6, 1e-3);
  /* a score of 10^4 is known to 10^-3 in fp32: so are the probabilities */
  kt_compare(t, "out", l.out, out, 0x1p-7, 0.5);
  if (dtype == SW_BF16 && strcmp(t->device->backend, "cpu")) {
    kt_download(t, l.out);
    kt_download(t, l.lse);
    compare_with_plain(t, &l, dqkv, 0.01 * kt_largest(dqkv, l.dqkv->count));
  } else {
    kt_compare(t, "dqkv", l.dqkv, dqkv, 0x1p-7, 0.01 * kt_largest(dqkv, l.dqkv->count));
  }
  l.out = clean, l.dqkv = dclean;
  forward(t, &l);
  backward(t, &l);
  int64_t first = (int64_t)l.cu[1] * HEADS * SIZE, middle = (int64_t)lengths[1] * HEADS * SIZE;
  for (int64_t i = 0; i < 3 * middle; i += 97) l.qkv->host[3 * first + i] = i % 2 ? NAN : INFINITY;
  kt_upload(t, l.qkv);
  l.out = dirty, l.dqkv = ddirty;
  forward(t, &l);
  backward(t, &l);
  kt_same_bits_at(t, "before the NaN", dirty, 0, clean, 0, first);
  kt_same_bits_at(t, "after the NaN", dirty, first + middle, clean, first + middle, clean->count - first - middle);
  kt_same_bits_at(t, "gradient before the NaN", ddirty, 0, dclean, 0, 3 * first);
  kt_same_bits_at(t, "gradient after the NaN", ddirty, 3 * (first + middle), dclean, 3 * (first + middle),
                  dclean->count - 3 * (first + middle));
  kt_download(t, dirty);
  int64_t nan = 0;
  for (int64_t i = 0; i < middle; i++) nan += isnan(dirty->host[first + i]) != 0;
  kt_check(t, nan > middle / 2, "NaN in the keys must show in the output: %lld of %lld", (long long)nan,
           (long long)middle);
  kt_clear(t);
}

/* Dropout keeps about 1 - p of the weights, and another step draws another mask. */
static void dropout_draws(kt *t) {
  kt_case(t, "dropout draws");
  static const int32_t lengths[] = {256};
  enum { SIZE = 16 };
  layer l = layer_of(t, SW_F32, 1, lengths, 1, SIZE, 0.25f);
  kt_fill(t, l.qkv, 0);
  for (int64_t i = 0; i < l.desc.total_tokens; i++)
    for (int c = 0; c < SIZE; c++) l.qkv->host[(i * 3 + 2) * SIZE + c] = 1; /* out = kept / (keys (1 - p)) */
  kt_upload(t, l.qkv);
  forward(t, &l);
  kt_download(t, l.out);
  double sum = 0;
  for (int64_t i = 0; i < l.out->count; i++) sum += l.out->host[i] / (double)l.out->count;
  kt_check(t, fabs(sum - 1) < 0.02, "the mean of dropout is %g, not 1", sum);
  layer other = l;
  other.out = kt_new(t, "other", SW_F32, l.out->count);
  other.desc.dropout.step++;
  forward(t, &other);
  kt_download(t, other.out);
  kt_check(t, memcmp(other.out->host, l.out->host, (size_t)l.out->count * sizeof(double)) != 0,
           "two steps share a mask");
  kt_clear(t);
}

typedef struct {
  const layer *l;
  const double *weight;
} smooth;
static double loss_of(const double *qkv, void *argument) {
  const smooth *s = argument;
  double out[40 * 12], sum = 0;
  sw_reference_attention_forward(&s->l->desc, s->l->cu, qkv, out, NULL);
  for (int64_t i = 0; i < s->l->desc.total_tokens * 12; i++) sum += out[i] * s->weight[i];
  return sum;
}
static void reference_by_differences(kt *t) {
  kt_case(t, "reference");
  static const int32_t lengths[] = {7, 0, 1, 11};
  layer l = {.desc = {4, 19, 11, 2, 6, 0.5f, SW_F32, {.p = 0.2f, .seed = t->seed, .site = 4, .step = 9}}};
  for (int i = 0; i < 4; i++) l.cu[i + 1] = l.cu[i] + lengths[i];
  enum { COUNT = 19 * 12 };
  double qkv[3 * COUNT], weight[COUNT], dqkv[3 * COUNT];
  for (int i = 0; i < 3 * COUNT; i++) qkv[i] = kt_random_normal(t);
  for (int i = 0; i < COUNT; i++) weight[i] = kt_random_normal(t);
  sw_reference_attention_backward(&l.desc, l.cu, qkv, weight, dqkv);
  smooth s = {&l, weight};
  for (int i = 0; i < 3; i++) kt_finite_difference(t, "dqkv", loss_of, &s, qkv, dqkv, 3 * COUNT);
}

/* A sequence longer than promised: the CPU says so, the GPU, which cannot look without waiting, leaves its rows alone. */
static void forward_refused(kt *t, layer *l) {
  int status = SW_RUN(&t->stream, attention_forward, &l->desc, l->device_cu, l->qkv->data, l->out->data, NULL, l->workspace->data);
  if (!strcmp(t->device->backend, "cpu")) {
    kt_fails(t, status, "sequence 0 has 20 tokens");
    return;
  }
  kt_ok(t, status);
  kt_download(t, l->out);
  int64_t first = l->cu[1] * (int64_t)l->desc.num_heads * l->desc.head_size, written = 0, missing = 0;
  for (int64_t i = 0; i < l->out->count; i++) {
    written += i < first && !isnan(l->out->host[i]); /* new memory is NaN */
    missing += i >= first && isnan(l->out->host[i]);
  }
  kt_check(t, !written && !missing, "%lld elements of the long sequence are written, %lld of the other are not", (long long)written,
           (long long)missing);
}
static void refused(kt *t) {
  kt_case(t, "refused");
  static const int32_t lengths[] = {20, 3};
  layer l = layer_of(t, SW_F32, 2, lengths, 1, 16, 0);
  size_t bytes;
  kt_fill(t, l.qkv, 0);
  l.desc.max_seqlen = 10;
  forward_refused(t, &l);
  l.desc.max_seqlen = 2000;
  kt_fails(t, SW_RUN(&t->stream, attention_workspace, &l.desc, &bytes), "max_seqlen 2000");
  l.desc.max_seqlen = 20;
  l.desc.head_size = 300;
  kt_fails(t, SW_RUN(&t->stream, attention_workspace, &l.desc, &bytes), "head size 300");
  l.desc.head_size = 16;
  l.desc.dropout.p = 1.5f;
  kt_fails(t, SW_RUN(&t->stream, attention_workspace, &l.desc, &bytes), "dropout 1.5");
  kt_clear(t);
}

static void bench(kt *t) {
  static const int lengths[] = {12, 64, 256, 512}, sizes[] = {32, 64};
  int32_t all[512];
  printf("FMA peak, 1 thread: %.1f GFLOP/s\n", (t->stream.threads = 1, kt_fma_peak(t)) * 1e-9);
  for (int dtype = SW_F32; dtype <= SW_BF16; dtype++)
    for (int i = 0; i < 4; i++)
      for (int k = 0; k < 2; k++)
        for (t->stream.threads = 1; t->stream.threads <= 2; t->stream.threads++) {
          int batch = 4096 / lengths[i], heads = 12;
          for (int s = 0; s < batch; s++) all[s] = lengths[i];
          layer l = layer_of(t, (sw_dtype)dtype, batch, all, heads, sizes[k], 0);
          l.keep_lse = 0;
          kt_uniform(t, l.qkv, -1, 1);
          kt_uniform(t, l.dout, -1, 1);
          double flops = 4.0 * batch * lengths[i] * lengths[i] * heads * sizes[k], seconds;
          char what[96];
          snprintf(what, sizeof what, "%s %d x %d tokens, 12 x %d", sw_dtype_name((sw_dtype)dtype), batch, lengths[i],
                   sizes[k]);
          seconds = kt_seconds(t, forward, &l);
          kt_report(t, what, seconds, flops, 0);
          printf("%60.1f M tokens/s\n", (double)l.desc.total_tokens / seconds * 1e-6);
          l.keep_lse = 1;
          forward(t, &l);
          snprintf(what, sizeof what, "%s %d x %d tokens, 12 x %d backward", sw_dtype_name((sw_dtype)dtype), batch,
                   lengths[i], sizes[k]);
          kt_report(t, what, kt_seconds(t, backward, &l), flops * 2.5, 0);
          l.desc.dropout.p = 0.1f;
          snprintf(what, sizeof what, "%s %d x %d tokens, 12 x %d, dropout", sw_dtype_name((sw_dtype)dtype), batch,
                   lengths[i], sizes[k]);
          kt_report(t, what, kt_seconds(t, forward, &l), flops, 0);
          snprintf(what, sizeof what, "%s %d x %d tokens, 12 x %d backward, drop.", sw_dtype_name((sw_dtype)dtype),
                   batch, lengths[i], sizes[k]);
          kt_report(t, what, kt_seconds(t, backward, &l), flops * 2.5, 0);
          kt_clear(t);
        }
}

static void tests(kt *t) {
  reference_by_differences(t);
  int fast = !kt_small(t);
  static const int32_t mixed[] = {0, 1, 2, 15, 16, 17, 31, 33, 64, 100, 0}, longer[] = {257, 3}, longest[] = {512};
  for (int d = SW_F32; d <= SW_BF16; d++) {
    sw_dtype dtype = (sw_dtype)d;
    static const int sizes[] = {8, 20, 32, 64};
    for (int k = 0; k < 4; k++) {
      one_case(t, dtype, 11, mixed, fast && k == 2 ? 12 : 2, sizes[k], 0, 1);
      one_case(t, dtype, 11, mixed, k == 3 ? 1 : 2, sizes[k], 0.1f, 1);
    }
    one_case(t, dtype, 2, longer, fast ? 2 : 1, 80, 0, 1);
    one_case(t, dtype, 2, longer, 1, 64, 0.1f, 1);
    if (fast) {
      one_case(t, dtype, 2, longer, 1, 32, 0.1f, 1);
      one_case(t, dtype, 1, longest, 1, 64, 0, 1);
    }
    one_case(t, dtype, 1, mixed + 9, 1, 256, 0, 0.5);
    one_case(t, dtype, 5, mixed + 2, 3, 1, 0.1f, 1);
    one_case(t, dtype, 8, mixed + 1, 2, 32, 0, 4);
    one_case(t, dtype, 1, mixed, 2, 32, 0.1f, 1);
    one_case(t, dtype, 0, mixed, 2, 32, 0, 1);
    sequences_alone(t, dtype, 32);
    sequences_alone(t, dtype, 64);
    for (int k = 1; k < 4; k++) integers(t, dtype, sizes[k]);
    hard_values(t, dtype);
  }
  dropout_draws(t);
  refused(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
