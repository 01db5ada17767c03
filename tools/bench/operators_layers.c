/* Cases of the operators that a model's layers are made of. */
#include "tools/bench/cases.h"

#include <math.h>
#include <stdlib.h>

/* --- embedding --- */
RUN(embedding_forward) {
  return SW_RUN(stream, embedding_forward, &c->embedding, t[0], t[1], NULL, t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10]);
}
static sw_embedding_desc embedding_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype) {
  return (sw_embedding_desc){.tokens = tokens_of(b), .hidden = s->hidden, .vocab_size = s->vocab, .max_positions = s->positions,
                             .type_vocab_size = 2, .eps = 1e-12f, .dtype = dtype, .dropout = tenth};
}
static int positions(op_case *c, const sw_bench *b) {
  int32_t *values = int32s(c, tokens_of(b));
  for (int64_t i = 0; values && i < tokens_of(b); i++) values[i] = (int32_t)(i % b->lengths[0]);
  return values ? 0 : -1;
}
static int by_value(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}
int sw_distinct_ids(op_case *c, int64_t tokens, int vocab, int want_segments, int64_t *unique) {
  sw_random random = {.seed = 4};
  uint64_t *keys = sw_alloc_array((size_t)tokens, sizeof *keys);
  int32_t *ids = sw_alloc_array((size_t)tokens, 4), *sorted = NULL, *segments = NULL, *distinct = NULL;
  int status = keys && ids ? 0 : -1;
  for (int64_t i = 0; !status && i < tokens; i++) keys[i] = (uint64_t)sw_random_below(&random, (uint32_t)vocab) << 32 | (uint64_t)i;
  if (!status) qsort(keys, (size_t)tokens, sizeof *keys, by_value);
  int64_t n = 0;
  for (int64_t i = 0; !status && i < tokens; i++)
    if (!i || keys[i] >> 32 != keys[i - 1] >> 32) ids[n++] = (int32_t)i;
  if (!status && want_segments) {
    status = (sorted = int32s(c, tokens)) && (segments = int32s(c, n + 1)) ? 0 : -1;
    for (int64_t i = 0; !status && i < tokens; i++) sorted[i] = (int32_t)(uint32_t)keys[i];
    for (int64_t u = 0; !status && u <= n; u++) segments[u] = u < n ? ids[u] : (int32_t)tokens;
  } else if (!status) {
    status = (distinct = int32s(c, n)) ? 0 : -1;
    for (int64_t u = 0; !status && u < n; u++) distinct[u] = (int32_t)(keys[ids[u]] >> 32);
  }
  *unique = n;
  free(keys);
  free(ids);
  return status;
}
MAKE(embedding_forward) {
  const int64_t tokens = tokens_of(b), h = s->hidden;
  int64_t unique;
  op_case other = {0};
  if (variant) return 0;
  const int failed = sw_distinct_ids(&other, tokens, s->vocab, 0, &unique);
  free(other.owned[0]);
  if (failed || random_ids(c, tokens, s->vocab) || positions(c, b)) return -1;
  c->embedding = embedding_of(b, s, dtype);
  table(c, s->vocab, unique, h, IN | SHARED);
  table(c, s->positions, b->lengths[0], h, IN | SHARED);
  table(c, 2, 1, h, IN | SHARED);
  constant(c, h, 1);
  constant(c, h, 0);
  output(c, dtype, tokens * h);
  output(c, dtype, tokens * h);
  output(c, SW_F32, tokens);
  output(c, SW_F32, tokens);
  c->run = run_embedding_forward;
  SHAPE("%lld x %lld, %lld of %d ids", (long long)tokens, (long long)h, (long long)unique, s->vocab);
  return 1;
}
RUN(embedding_backward) {
  return SW_RUN(stream, embedding_backward, &c->embedding, t[0], NULL, t[3], t[4], t[5], t[6], t[7], t[1], t[2], c->tensors[2].bytes / 4 - 1, t[8],
                t[9], t[10], t[11], t[12], t[13]);
}
MAKE(embedding_backward) {
  const int64_t tokens = tokens_of(b), h = s->hidden;
  int64_t unique;
  size_t bytes;
  sw_stream stream = b->stream;
  if (variant) return 0;
  c->embedding = embedding_of(b, s, dtype);
  if (SW_RUN(&stream, embedding_workspace, &c->embedding, &bytes) || positions(c, b) || sw_distinct_ids(c, tokens, s->vocab, 1, &unique)) return -1;
  floats(c, dtype, tokens * h, VALUES, 1, IN | OUT); /* dy becomes dz: gamma is 1 - p, so that repeats do not grow */
  input(c, dtype, tokens * h);
  constant(c, h, 1 - tenth.p);
  constant(c, tokens, 0);
  constant(c, tokens, 1);
  output(c, SW_F32, unique * h);
  table(c, s->positions, b->lengths[0], h, IN | OUT);
  gradient(c, 2 * h);
  gradient(c, h);
  gradient(c, h);
  workspace(c, bytes);
  c->run = run_embedding_backward;
  SHAPE("%lld x %lld, %lld of %d ids", (long long)tokens, (long long)h, (long long)unique, s->vocab);
  return 1;
}

/* --- layernorm --- */
RUN(layernorm_forward) { return SW_RUN(stream, layernorm_forward, &c->layernorm, t[0], t[1], t[2], t[3], t[4], t[5], t[6]); }
RUN(layernorm_inference) { return SW_RUN(stream, layernorm_forward, &c->layernorm, t[0], t[1], t[2], t[3], t[4], NULL, NULL); }
MAKE(layernorm_forward) {
  const int64_t tokens = tokens_of(b), h = s->hidden;
  if (variant > 1) return 0;
  c->layernorm = (sw_layernorm_desc){.tokens = tokens, .hidden = s->hidden, .eps = 1e-12f, .dtype = dtype};
  if (!variant) c->layernorm.dropout = tenth;
  floats(c, dtype, tokens * h, VALUES, 1, variant ? IN : IN | OUT);
  input(c, dtype, tokens * h);
  constant(c, h, 1);
  constant(c, h, 0);
  output(c, dtype, tokens * h);
  if (!variant) {
    output(c, SW_F32, tokens);
    output(c, SW_F32, tokens);
  }
  c->run = variant ? run_layernorm_inference : run_layernorm_forward;
  SHAPE("%lld x %lld, residual%s", (long long)tokens, (long long)h, variant ? "" : ", dropout");
  return 1;
}
RUN(layernorm_backward) {
  return SW_RUN(stream, layernorm_backward, &c->layernorm, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9]);
}
MAKE(layernorm_backward) {
  const int64_t tokens = tokens_of(b), h = s->hidden;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant) return 0;
  c->layernorm = (sw_layernorm_desc){.tokens = tokens, .hidden = s->hidden, .eps = 1e-12f, .dtype = dtype, .dropout = tenth};
  if (SW_RUN(&stream, layernorm_workspace, &c->layernorm, &bytes)) return -1;
  input(c, dtype, tokens * h);
  input(c, dtype, tokens * h);
  constant(c, h, 1);
  constant(c, tokens, 0);
  constant(c, tokens, 1);
  output(c, dtype, tokens * h);
  output(c, dtype, tokens * h);
  gradient(c, h);
  gradient(c, h);
  workspace(c, bytes);
  c->run = run_layernorm_backward;
  SHAPE("%lld x %lld, dropout", (long long)tokens, (long long)h);
  return 1;
}

/* --- linear: the four products of a layer --- */
static int linear_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int product, op_case *c, size_t *weight, size_t *scratch) {
  const int h = s->hidden, i = s->intermediate;
  const int in[] = {h, h, h, i}, out[] = {3 * h, h, i, h};
  sw_stream stream = b->stream;
  if (product > 3) return 0;
  c->linear = (sw_linear_desc){.tokens = tokens_of(b), .in_features = in[product], .out_features = out[product], .dtype = dtype,
                               .out_dtype = dtype, .activation = product == 2 ? SW_GELU : SW_NO_ACTIVATION, .training = 1};
  if (SW_RUN(&stream, linear_weight_bytes, &c->linear, weight) || SW_RUN(&stream, linear_workspace, &c->linear, scratch)) return -1;
  c->macs = (double)c->linear.tokens * in[product] * out[product];
  SHAPE("%lld x %d to %d%s", (long long)c->linear.tokens, in[product], out[product], product == 2 ? ", GELU" : "");
  return 1;
}
/* The weight as it is used, and its fp32 master, from which `prepare` makes it. */
static void weights(op_case *c, size_t prepared) {
  const int64_t count = (int64_t)c->linear.in_features * c->linear.out_features;
  add(c, prepared, (double)count * (double)sw_dtype_bytes(c->linear.dtype), NOTHING, SW_F32, 0, NULL, IN);
  floats(c, SW_F32, count, VALUES, 0.05f, SHARED);
}
static int prepare_weight(sw_stream *stream, const op_case *c, void *const *t, int64_t turn) {
  return SW_RUN(stream, linear_prepare, &c->linear, t[1], t[0]);
}
RUN(linear_prepare) { return SW_RUN(stream, linear_prepare, &c->linear, t[1], t[0]); }
MAKE(linear_prepare) {
  size_t weight, scratch;
  if (variant) return 0;
  if (linear_of(b, s, dtype, 2, c, &weight, &scratch) < 0) return -1;
  const int64_t count = (int64_t)c->linear.in_features * c->linear.out_features;
  add(c, weight, (double)count * (double)sw_dtype_bytes(dtype), NOTHING, SW_F32, 0, NULL, OUT);
  floats(c, SW_F32, count, VALUES, 0.05f, IN);
  c->macs = 0;
  c->run = run_linear_prepare;
  SHAPE("%d x %d", c->linear.out_features, c->linear.in_features);
  return 1;
}
RUN(linear_forward) {
  return SW_RUN(stream, linear_forward, &c->linear, t[2], t[0], t[3], c->linear.activation ? t[6] : NULL, t[4], t[5]);
}
MAKE(linear_forward) {
  size_t weight, scratch;
  const int made = linear_of(b, s, dtype, variant, c, &weight, &scratch);
  if (made < 1) return made;
  const int64_t tokens = c->linear.tokens, in = c->linear.in_features, out = c->linear.out_features;
  weights(c, weight);
  input(c, dtype, tokens * in);
  constant(c, out, 0.1f);
  output(c, dtype, tokens * out);
  workspace(c, scratch);
  if (c->linear.activation) output(c, dtype, tokens * out);
  c->prepare = prepare_weight;
  c->run = run_linear_forward;
  return 1;
}
RUN(linear_backward_input) {
  return SW_RUN(stream, linear_backward_input, &c->linear, t[2], c->linear.activation ? t[5] : NULL, t[0], t[3], 0, t[4]);
}
MAKE(linear_backward_input) {
  size_t weight, scratch;
  const int made = linear_of(b, s, dtype, variant, c, &weight, &scratch);
  if (made < 1) return made;
  const int64_t tokens = c->linear.tokens, in = c->linear.in_features, out = c->linear.out_features;
  weights(c, weight);
  floats(c, dtype, tokens * out, VALUES, 1, c->linear.activation ? IN | OUT : IN);
  output(c, dtype, tokens * in);
  workspace(c, scratch);
  if (c->linear.activation) floats(c, dtype, tokens * out, CONSTANT, 16, IN); /* where GELU's slope is 1: dy stays as it is */
  c->prepare = prepare_weight;
  c->run = run_linear_backward_input;
  return 1;
}
RUN(linear_backward_weight) { return SW_RUN(stream, linear_backward_weight, &c->linear, t[0], t[1], t[2], t[3], t[4]); }
MAKE(linear_backward_weight) {
  size_t weight, scratch;
  const int made = linear_of(b, s, dtype, variant, c, &weight, &scratch);
  if (made < 1) return made;
  const int64_t tokens = c->linear.tokens, in = c->linear.in_features, out = c->linear.out_features;
  input(c, dtype, tokens * out);
  input(c, dtype, tokens * in);
  gradient(c, in * out);
  gradient(c, out);
  workspace(c, scratch);
  c->run = run_linear_backward_weight;
  return 1;
}

/* --- attention: sequences of both lengths, without and with dropout --- */
RUN(attention_forward) { return SW_RUN(stream, attention_forward, &c->attention, t[0], t[1], t[2], t[3], t[4]); }
RUN(attention_backward) { return SW_RUN(stream, attention_backward, &c->attention, t[0], t[1], t[2], t[3], t[5], t[6], t[4]); }
static int attention_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c) {
  const int length = b->lengths[variant % 2], size = s->hidden / s->heads;
  const int64_t tokens = (int64_t)b->sequences * length;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant > 3) return 0;
  c->attention = (sw_attention_desc){.batch = b->sequences, .total_tokens = tokens, .max_seqlen = length, .num_heads = s->heads, .head_size = size,
                                     .scale = 1 / sqrtf((float)size), .dtype = dtype};
  if (variant / 2) c->attention.dropout = tenth;
  if (SW_RUN(&stream, attention_workspace, &c->attention, &bytes) || multiples(c, b->sequences + 1, length)) return -1;
  input(c, dtype, 3 * tokens * s->hidden);
  c->macs = 2 * (double)tokens * length * s->hidden;
  SHAPE("%d x %d, %d heads of %d%s", b->sequences, length, s->heads, size, variant / 2 ? ", dropout" : "");
  floats(c, dtype, tokens * s->hidden, NOTHING, 0, NEITHER);
  floats(c, SW_F32, tokens * s->heads, NOTHING, 0, NEITHER);
  workspace(c, bytes);
  return 1;
}
MAKE(attention_forward) {
  const int made = attention_of(b, s, dtype, variant, c);
  c->bytes += (double)(c->tensors[2].bytes + c->tensors[3].bytes);
  c->run = run_attention_forward;
  return made;
}
MAKE(attention_backward) {
  const int made = attention_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  const int64_t count = c->attention.total_tokens * s->hidden;
  c->bytes += (double)(c->tensors[2].bytes + c->tensors[3].bytes);
  input(c, dtype, count);
  output(c, dtype, 3 * count);
  c->macs *= 2.5;
  c->prepare = run_attention_forward;
  c->run = run_attention_backward;
  return 1;
}

/* --- GRU, small: the multilabel model's layer --- */
RUN(gru_forward) { return SW_RUN(stream, gru_forward, &c->gru, t[0], t[1], t[2], t[3], NULL, t[4], t[5], t[6]); }
RUN(gru_backward) { return SW_RUN(stream, gru_backward, &c->gru, t[0], t[1], t[5], t[2], NULL, t[4], t[7], t[8], t[9], NULL, t[6]); }
/* Weights are so small that gates, to which bf16's forward adds, stay near the values they had. Backward has its gradients in place of
 * gates and saved: from zeros on, they stay small in either dtype. */
static int gru_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, int backward, op_case *c) {
  const int hidden = b->quick ? 9 : 180, tokens = b->quick ? 5 : 100, batch = (b->quick ? 4 : 32) * (variant ? 8 : 1);
  const int64_t total = (int64_t)batch * tokens;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant > 1 || s != b->shapes) return 0;
  c->any_model = 1;
  c->gru = (sw_gru_desc){.batch = batch, .total_tokens = total, .hidden = hidden, .dtype = dtype};
  if (SW_RUN(&stream, gru_workspace, &c->gru, &bytes) || multiples(c, batch + 1, tokens)) return -1;
  floats(c, dtype, 3 * total * hidden, backward ? ZERO : VALUES, 1, IN | OUT);
  floats(c, SW_F32, 3 * hidden * hidden, VALUES, 1e-4f, IN);
  floats(c, SW_F32, 3 * hidden, VALUES, 1e-4f, backward ? NEITHER : IN);
  floats(c, dtype, total * hidden, VALUES, 0.5f, backward ? IN : OUT);
  floats(c, dtype, total * hidden, ZERO, 0, backward ? IN | OUT : OUT);
  workspace(c, bytes);
  c->macs = 3 * (double)total * hidden * hidden;
  SHAPE("%d x %d, %d cells", batch, tokens, hidden);
  return 1;
}
MAKE(gru_forward) {
  c->run = run_gru_forward;
  return gru_of(b, s, dtype, variant, 0, c);
}
MAKE(gru_backward) {
  const int made = gru_of(b, s, dtype, variant, 1, c);
  if (made < 1) return made;
  floats(c, dtype, c->gru.total_tokens * c->gru.hidden, VALUES, 0.1f, IN);
  gradient(c, 3 * c->gru.hidden * c->gru.hidden);
  gradient(c, 3 * c->gru.hidden);
  c->macs *= 2;
  c->run = run_gru_backward;
  return 1;
}

/* --- pooling, gathering --- */
RUN(pool_forward) { return SW_RUN(stream, pool_forward, &c->pool, t[0], t[1], t[2], t[3]); }
RUN(pool_backward) { return SW_RUN(stream, pool_backward, &c->pool, t[0], t[1], t[2], t[3], t[4], t[5]); }
static int pool_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c) {
  if (variant) return 0;
  c->pool = (sw_pool_desc){.batch = b->sequences, .total_tokens = tokens_of(b), .hidden = s->hidden, .pooling = SW_POOL_MEAN, .normalize = 1,
                           .dtype = dtype};
  SHAPE("%d x %d x %d, mean", b->sequences, b->lengths[0], s->hidden);
  return multiples(c, b->sequences + 1, b->lengths[0]) ? -1 : 1;
}
MAKE(pool_forward) {
  const int made = pool_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  input(c, dtype, c->pool.total_tokens * s->hidden);
  output(c, SW_F32, (int64_t)b->sequences * s->hidden);
  output(c, SW_F32, b->sequences);
  c->run = run_pool_forward;
  return 1;
}
MAKE(pool_backward) {
  const int made = pool_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  floats(c, dtype, c->pool.total_tokens * s->hidden, VALUES, 1, NEITHER); /* only the maximum reads x */
  input(c, SW_F32, (int64_t)b->sequences * s->hidden);
  constant(c, b->sequences, 1);
  input(c, SW_F32, (int64_t)b->sequences * s->hidden);
  output(c, dtype, c->pool.total_tokens * s->hidden);
  c->run = run_pool_backward;
  return 1;
}
RUN(gather_forward) { return SW_RUN(stream, gather_forward, &c->gather, t[0], t[1], t[2]); }
RUN(gather_backward) { return SW_RUN(stream, gather_backward, &c->gather, t[0], t[1], t[2]); }
static int gather_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c) {
  if (variant) return 0;
  c->gather = (sw_gather_desc){.tokens = tokens_of(b), .rows = masked_of(b), .hidden = s->hidden, .dtype = dtype};
  SHAPE("%lld of %lld x %d", (long long)c->gather.rows, (long long)c->gather.tokens, s->hidden);
  return multiples(c, c->gather.rows, MASKED_IN / MASKED_OF) ? -1 : 1;
}
MAKE(gather_forward) {
  const int made = gather_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  const size_t row = (size_t)s->hidden * sw_dtype_bytes(dtype);
  add(c, (size_t)c->gather.tokens * row, (double)c->gather.rows * (double)row, VALUES, dtype, 1, NULL, IN);
  output(c, dtype, c->gather.rows * s->hidden);
  c->run = run_gather_forward;
  return 1;
}
MAKE(gather_backward) {
  const int made = gather_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  input(c, dtype, c->gather.rows * s->hidden);
  output(c, dtype, c->gather.tokens * s->hidden);
  c->run = run_gather_backward;
  return 1;
}
