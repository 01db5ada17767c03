/* Every operator by itself, at the shapes of real models.
 *
 * A case is what one call of an operator works on: tensors, with what fills them and whether they are read or written, the multiply-adds
 * that the mathematics asks for, and the call. make_<operator> makes the cases of an operator, one a variant; SW_OPERATOR_LIST collects
 * them, so that an operator without a maker does not compile.
 *
 * Bytes are those that have to move at least: every input once, every result once (twice where it is added to); tables by the rows that are
 * used; no workspaces. Multiply-adds are those of the matrix products; attention's backward has five of them (S is made again, because
 * only its row sums are kept), of which forward has two; contrastive has four (its S is made twice, too).
 *
 * Time. A sample is a number of calls one behind the other in the device's queue, then one wait, divided by the number: so a GPU's launches
 * overlap with its work and only a call shorter than its launches (some microseconds) shows them. Calls take turns on copies of the tensors
 * that are together larger than caches. Repeated calls see the values that earlier ones left: makers choose values that stay what they
 * are in kind (no infinities, no subnormal numbers). */
#include "tools/bench/bench.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 16, MAX_OWNED = 4, MAX_COPIES = 64, MAX_CALLS = 1000, MAX_PARAMETERS = 256, HISTORY = 1 << 14, BLOCK = 1 << 18 };

typedef enum { NOTHING, ZERO, CONSTANT, VALUES, SQUARES, GIVEN } fill;
typedef enum { NEITHER = 0, IN = 1, OUT = 2, SHARED = 4 } tensor_use; /* SHARED: one for all copies */

typedef struct {
  size_t bytes;
  fill fill;
  sw_dtype dtype;
  float scale;       /* of VALUES; what CONSTANT is */
  const void *given; /* host */
  int use;
} tensor;

typedef struct op_case op_case;
typedef int call(sw_stream *stream, const op_case *c, void *const *t, int64_t turn);
struct op_case {
  char shape[64];
  int any_model; /* does not depend on the model's shape */
  tensor tensors[MAX_TENSORS];
  int count;
  double bytes, macs;
  call *prepare, *run; /* prepare, once a copy, may be NULL; turn: calls made on this copy before */
  void *owned[MAX_OWNED]; /* host memory */
  int num_owned;
  union {
    sw_embedding_desc embedding;
    sw_layernorm_desc layernorm;
    sw_linear_desc linear;
    sw_attention_desc attention;
    sw_gru_desc gru;
    sw_pool_desc pool;
    sw_gather_desc gather;
    sw_loss_desc loss;
    sw_contrastive_desc contrastive;
    sw_neighbours_desc neighbours;
    sw_umap_weights_desc umap_weights;
    sw_umap_multiply_desc umap_multiply;
    sw_umap_layout_desc umap_layout;
    sw_umap_place_desc umap_place;
    sw_umap_ranks_desc umap_ranks;
    sw_lda_desc lda;
    sw_kmeans_desc kmeans;
    sw_adamw_rows_desc rows;
    sw_dropout_desc dropout;
    sw_add_rows_desc add;
    struct {
      int count;
      int64_t size[MAX_PARAMETERS], total;
    } parameters;
    struct {
      int64_t count;
      sw_dtype from, to;
    } cast;
  };
};

/* 1: made; 0: there is no such variant; -1: failed. */
typedef int make(const sw_bench *bench, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c);

/* --- what makers use --- */
static void add(op_case *c, size_t bytes, double moved, fill how, sw_dtype dtype, float scale, const void *given, int use) {
  c->tensors[c->count++] = (tensor){bytes, how, dtype, scale, given, use};
  c->bytes += moved * (!!(use & IN) + !!(use & OUT));
}
static void floats(op_case *c, sw_dtype dtype, int64_t count, fill how, float scale, int use) {
  const size_t bytes = (size_t)count * sw_dtype_bytes(dtype);
  add(c, bytes, (double)bytes, how, dtype, scale, NULL, use);
}
static void input(op_case *c, sw_dtype dtype, int64_t count) { floats(c, dtype, count, VALUES, 1, IN); }
static void output(op_case *c, sw_dtype dtype, int64_t count) { floats(c, dtype, count, NOTHING, 0, OUT); }
static void gradient(op_case *c, int64_t count) { floats(c, SW_F32, count, ZERO, 0, IN | OUT); }
static void constant(op_case *c, int64_t count, float value) { floats(c, SW_F32, count, CONSTANT, value, IN); }
static void workspace(op_case *c, size_t bytes) { add(c, bytes, 0, NOTHING, SW_F32, 0, NULL, SHARED); }
/* A table of which `rows` rows are used. */
static void table(op_case *c, int64_t size, int64_t rows, int64_t hidden, int use) {
  add(c, (size_t)(size * hidden) * 4, (double)(rows * hidden) * 4, VALUES, SW_F32, 0.5f, NULL, use);
}
static void given(op_case *c, const void *host, size_t bytes) { add(c, bytes, (double)bytes, GIVEN, SW_F32, 0, host, IN); }
static void *own(op_case *c, size_t bytes) {
  void *memory = sw_alloc(bytes);
  if (memory) c->owned[c->num_owned++] = memory;
  return memory;
}
static int32_t *int32s(op_case *c, int64_t count) {
  int32_t *values = own(c, (size_t)count * sizeof *values);
  if (values) given(c, values, (size_t)count * sizeof *values);
  return values;
}
/* Random numbers below n. */
static int random_ids(op_case *c, int64_t count, int n) {
  sw_random random = {.seed = 4};
  int32_t *ids = int32s(c, count);
  for (int64_t i = 0; ids && i < count; i++) ids[i] = (int32_t)sw_random_below(&random, (uint32_t)n);
  return ids ? 0 : -1;
}
/* 0, step, 2 step, … */
static int multiples(op_case *c, int64_t count, int64_t step) {
  int32_t *values = int32s(c, count);
  for (int64_t i = 0; values && i < count; i++) values[i] = (int32_t)(i * step);
  return values ? 0 : -1;
}
static int by_value(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static int64_t tokens_of(const sw_bench *b) { return (int64_t)b->sequences * b->lengths[0]; }
static const sw_dropout tenth = {.p = 0.1f, .seed = 5}; /* BERT's */
enum { MASKED_IN = 20, MASKED_OF = 3 }; /* 3 of 20 tokens are masked in pretraining */
static int64_t masked_of(const sw_bench *b) { return tokens_of(b) * MASKED_OF / MASKED_IN; }
#define SHAPE(...) snprintf(c->shape, sizeof c->shape, __VA_ARGS__)
#define RUN(name) static int run_##name(sw_stream *stream, const op_case *c, void *const *t, int64_t turn)
#define MAKE(name) static int make_##name(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c)

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
/* The distinct ones of random_ids, increasing: what is not wanted may be NULL. *unique: how many. */
static int distinct_ids(op_case *c, int64_t tokens, int vocab, int want_segments, int64_t *unique) {
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
  const int failed = distinct_ids(&other, tokens, s->vocab, 0, &unique);
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
  if (SW_RUN(&stream, embedding_workspace, &c->embedding, &bytes) || positions(c, b) || distinct_ids(c, tokens, s->vocab, 1, &unique)) return -1;
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

/* --- losses, fp32: of tags, and over the vocabulary --- */
static int loss_of(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c) {
  if (variant > 1 || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->loss = (sw_loss_desc){.rows = variant ? masked_of(b) : tokens_of(b), .classes = variant ? s->vocab : 3, .ignore = -100, .scale = 1e-3f};
  SHAPE("%lld x %d", (long long)c->loss.rows, c->loss.classes);
  input(c, SW_F32, c->loss.rows * c->loss.classes);
  return 1;
}
RUN(cross_entropy) { return SW_RUN(stream, cross_entropy, &c->loss, t[0], t[3], NULL, NULL, t[1], t[2], t[4]); }
MAKE(cross_entropy) {
  const int made = loss_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  add(c, 8, 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  output(c, SW_F32, c->loss.rows * c->loss.classes);
  if (random_ids(c, c->loss.rows, c->loss.classes)) return -1;
  workspace(c, SW_SUM_WORKSPACE);
  c->run = run_cross_entropy;
  return 1;
}
RUN(sigmoid_bce) { return SW_RUN(stream, sigmoid_bce, &c->loss, t[0], t[3], NULL, t[1], t[2], t[4]); }
MAKE(sigmoid_bce) {
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->loss = (sw_loss_desc){.rows = b->sequences, .classes = s->vocab / 10, .scale = 1e-3f};
  SHAPE("%lld x %d", (long long)c->loss.rows, c->loss.classes);
  const int64_t count = c->loss.rows * c->loss.classes;
  input(c, SW_F32, count);
  add(c, 8, 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  output(c, SW_F32, count);
  constant(c, count, 0.5f);
  workspace(c, SW_SUM_WORKSPACE);
  c->run = run_sigmoid_bce;
  return 1;
}
RUN(log_softmax) { return SW_RUN(stream, log_softmax, &c->loss, t[0], t[1]); }
MAKE(log_softmax) {
  const int made = loss_of(b, s, dtype, variant, c);
  if (made < 1) return made;
  output(c, SW_F32, c->loss.rows * c->loss.classes);
  c->run = run_log_softmax;
  return 1;
}

/* --- embeddings of texts, fp32: the bi-encoder's loss, nearest neighbours --- */
RUN(contrastive) { return SW_RUN(stream, contrastive, &c->contrastive, t[0], t[1], t[2], NULL, t[3], t[4], t[5], t[6]); }
MAKE(contrastive) {
  const int rows = b->quick ? 6 : 256, candidates = 2 * rows, hidden = b->quick ? 8 : 384;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->contrastive = (sw_contrastive_desc){.rows = rows, .candidates = candidates, .hidden = hidden, .similarity_scale = 20,
                                         .scale = 1.0f / (float)rows};
  if (SW_RUN(&stream, contrastive_workspace, &c->contrastive, &bytes)) return -1;
  floats(c, SW_F32, (int64_t)rows * hidden, VALUES, 1 / sqrtf((float)hidden), IN); /* of about unit length */
  floats(c, SW_F32, (int64_t)candidates * hidden, VALUES, 1 / sqrtf((float)hidden), IN);
  if (multiples(c, rows, 1)) return -1;
  add(c, 8, 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  output(c, SW_F32, (int64_t)rows * hidden);
  output(c, SW_F32, (int64_t)candidates * hidden);
  workspace(c, bytes);
  c->macs = 4 * (double)rows * candidates * hidden;
  c->run = run_contrastive;
  SHAPE("%d x %d x %d", rows, candidates, hidden);
  return 1;
}
RUN(neighbours) { return SW_RUN(stream, neighbours, &c->neighbours, t[0], t[1], t[2], t[3], t[4]); }
MAKE(neighbours) {
  const int queries = b->quick ? 5 : 1000, corpus = b->quick ? 30 : 20000, hidden = b->quick ? 8 : 384, k = b->quick ? 3 : 15;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant > 1 || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->neighbours = (sw_neighbours_desc){.queries = queries, .corpus = corpus, .hidden = hidden, .k = k, .first_skip = -1,
                                       .metric = variant ? SW_SQUARED_DISTANCE : SW_INNER_PRODUCT};
  if (SW_RUN(&stream, neighbours_workspace, &c->neighbours, &bytes)) return -1;
  input(c, SW_F32, (int64_t)queries * hidden);
  input(c, SW_F32, (int64_t)corpus * hidden);
  add(c, (size_t)queries * (size_t)k * 8, (double)queries * k * 8, NOTHING, SW_F32, 0, NULL, OUT);
  output(c, SW_F32, (int64_t)queries * k);
  workspace(c, bytes);
  c->macs = (double)queries * corpus * hidden;
  c->run = run_neighbours;
  SHAPE("%d of %d x %d, k %d, %s", queries, corpus, hidden, k, variant ? "distances" : "products");
  return 1;
}

/* Where each list's entries begin: all of the same length. */
static int equal_lists(op_case *c, int64_t lists, int64_t entries) {
  int64_t *starts = own(c, (size_t)(lists + 1) * sizeof *starts);
  if (!starts) return -1;
  for (int64_t i = 0; i <= lists; i++) starts[i] = entries * i / lists;
  given(c, starts, (size_t)(lists + 1) * sizeof *starts);
  return 0;
}
/* --- maps, fp32: points with 14 neighbours, 20 edges each --- */
enum { MAP_NEIGHBOURS = 14, MAP_EDGES = 20 };
static int64_t points_of(const sw_bench *b) { return b->quick ? 40 : 20000; }
RUN(umap_weights) { return SW_RUN(stream, umap_weights, &c->umap_weights, t[0], t[1]); }
MAKE(umap_weights) {
  const int64_t rows = points_of(b), values = rows * MAP_NEIGHBOURS;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  float *distances = own(c, (size_t)values * sizeof *distances);
  if (!distances) return -1;
  for (int64_t i = 0; i < values; i++) distances[i] = (float)(i / MAP_NEIGHBOURS % 7 + i % MAP_NEIGHBOURS + 1) * 0.1f; /* ascending in each row */
  c->any_model = 1;
  c->umap_weights = (sw_umap_weights_desc){.rows = rows, .k = MAP_NEIGHBOURS, .nearest = 1, .target = log2f(MAP_NEIGHBOURS + 1)};
  given(c, distances, (size_t)values * sizeof *distances);
  output(c, SW_F32, values);
  c->run = run_umap_weights;
  SHAPE("%lld x %d", (long long)rows, MAP_NEIGHBOURS);
  return 1;
}
static int graph_of(op_case *c, int64_t rows) {
  return equal_lists(c, rows, rows * MAP_EDGES) || random_ids(c, rows * MAP_EDGES, (int)rows) ? -1 : 0;
}
RUN(umap_multiply) { return SW_RUN(stream, umap_multiply, &c->umap_multiply, t[0], t[1], t[2], t[3], t[4]); }
MAKE(umap_multiply) {
  const int64_t rows = points_of(b);
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (graph_of(c, rows)) return -1;
  c->any_model = 1;
  c->umap_multiply = (sw_umap_multiply_desc){.rows = rows, .scale = 1};
  constant(c, rows * MAP_EDGES, 1.0f / MAP_EDGES);
  input(c, SW_F32, rows * SW_UMAP_BLOCK);
  output(c, SW_F32, rows * SW_UMAP_BLOCK);
  c->macs = (double)rows * MAP_EDGES * SW_UMAP_BLOCK;
  c->run = run_umap_multiply;
  SHAPE("%lld rows of %d edges", (long long)rows, MAP_EDGES);
  return 1;
}
RUN(umap_layout) { return SW_RUN(stream, umap_layout, &c->umap_layout, t[0], t[1], t[2], t[3], t[4]); }
MAKE(umap_layout) {
  const int64_t rows = points_of(b), half = rows / 2, edges = half * MAP_EDGES;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  int64_t *color_start = own(c, (MAP_EDGES + 1) * sizeof *color_start);
  int32_t *head = own(c, (size_t)edges * sizeof *head), *tail = own(c, (size_t)edges * sizeof *tail);
  uint32_t *rates = own(c, (size_t)edges * sizeof *rates);
  if (!color_start || !head || !tail || !rates) return -1;
  for (int64_t e = 0; e < edges; e++) { /* a colour joins each point of one half to one of the other */
    head[e] = (int32_t)(e % half), tail[e] = (int32_t)(half + (e % half * 7919 + e / half) % half);
    rates[e] = UINT32_MAX / (uint32_t)(e % 7 + 1);
  }
  for (int n = 0; n <= MAP_EDGES; n++) color_start[n] = n * half;
  c->umap_layout = (sw_umap_layout_desc){{.points = rows, .components = 2, .last_epoch = 1, .epochs = 200, .negatives = 5, .a = 1.577f,
                                          .b = 0.895f, .first_alpha = 1, .seed = 6}, MAP_EDGES, color_start};
  if (SW_RUN(&stream, umap_layout_workspace, &c->umap_layout, &bytes)) return -1;
  given(c, head, (size_t)edges * sizeof *head);
  given(c, tail, (size_t)edges * sizeof *tail);
  given(c, rates, (size_t)edges * sizeof *rates);
  floats(c, SW_F32, rows * 2, VALUES, 10, IN | OUT);
  workspace(c, bytes);
  c->run = run_umap_layout;
  SHAPE("an epoch of %lld points, %lld edges", (long long)rows, (long long)edges);
  return 1;
}
RUN(umap_place) { return SW_RUN(stream, umap_place, &c->umap_place, t[0], t[1], t[2], t[3], t[4], t[5]); }
MAKE(umap_place) {
  const int64_t rows = points_of(b), edges = rows * MAP_EDGES;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (graph_of(c, rows)) return -1;
  c->any_model = 1;
  c->umap_place = (sw_umap_place_desc){{.points = rows, .components = 2, .last_epoch = 1, .epochs = 100, .negatives = 5, .a = 1.577f, .b = 0.895f,
                                        .first_alpha = 0.25f, .seed = 6}, rows};
  uint32_t *rates = own(c, (size_t)edges * sizeof *rates);
  uint64_t *ids = own(c, (size_t)rows * sizeof *ids);
  if (!rates || !ids) return -1;
  for (int64_t e = 0; e < edges; e++) rates[e] = UINT32_MAX / (uint32_t)(e % 7 + 1);
  for (int64_t i = 0; i < rows; i++) ids[i] = (uint64_t)i;
  given(c, rates, (size_t)edges * sizeof *rates);
  given(c, ids, (size_t)rows * sizeof *ids);
  floats(c, SW_F32, rows * 2, VALUES, 10, IN | OUT);
  input(c, SW_F32, rows * 2);
  c->run = run_umap_place;
  SHAPE("an epoch of %lld rows, %d edges each", (long long)rows, MAP_EDGES);
  return 1;
}
RUN(umap_ranks) { return SW_RUN(stream, umap_ranks, &c->umap_ranks, t[0], t[1], t[2], t[3], t[4], t[5]); }
MAKE(umap_ranks) {
  const int queries = b->quick ? 5 : 1000, corpus = b->quick ? 30 : 20000, hidden = b->quick ? 8 : 384;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->umap_ranks = (sw_umap_ranks_desc){.queries = queries, .corpus = corpus, .hidden = hidden, .k = MAP_NEIGHBOURS};
  int64_t *self = own(c, (size_t)queries * sizeof *self), *index = own(c, (size_t)queries * MAP_NEIGHBOURS * sizeof *index);
  if (!self || !index || SW_RUN(&stream, umap_ranks_workspace, &c->umap_ranks, &bytes)) return -1;
  for (int64_t i = 0; i < queries; i++) self[i] = -1;
  for (int64_t i = 0; i < (int64_t)queries * MAP_NEIGHBOURS; i++) index[i] = i % corpus;
  input(c, SW_F32, (int64_t)queries * hidden);
  input(c, SW_F32, (int64_t)corpus * hidden);
  given(c, self, (size_t)queries * sizeof *self);
  given(c, index, (size_t)queries * MAP_NEIGHBOURS * sizeof *index);
  add(c, (size_t)queries * MAP_NEIGHBOURS * 4, (double)queries * MAP_NEIGHBOURS * 4, NOTHING, SW_F32, 0, NULL, OUT);
  workspace(c, bytes);
  c->macs = (double)queries * corpus * hidden;
  c->run = run_umap_ranks;
  SHAPE("%d of %d x %d, k %d", queries, corpus, hidden, MAP_NEIGHBOURS);
  return 1;
}

/* --- topics, fp32: documents of 64 distinct words, a chunk and its update --- */
enum { LDA_WORDS_OF_DOCUMENT = 64 };
static int lda_of(const sw_bench *b, op_case *c, size_t *workspace_bytes) {
  sw_stream stream = b->stream;
  c->any_model = 1;
  c->lda = (sw_lda_desc){.documents = b->quick ? 4 : 2000, .words = b->quick ? 100 : 5000, .topics = b->quick ? 3 : 30, .longest = LDA_WORDS_OF_DOCUMENT,
                         .alpha = 1.0f / 30, .eta = 1.0f / 30, .iterations = b->quick ? 2 : 50};
  return SW_RUN(&stream, lda_workspace, &c->lda, workspace_bytes);
}
RUN(lda_beta) { return SW_RUN(stream, lda_beta, &c->lda, t[0], t[1], t[2]); }
MAKE(lda_beta) {
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (lda_of(b, c, &bytes)) return -1;
  const int64_t numbers = (int64_t)c->lda.words * sw_lda_stride(c->lda.topics);
  constant(c, numbers, 2);
  output(c, SW_F32, numbers);
  workspace(c, bytes);
  c->run = run_lda_beta;
  SHAPE("%d words, %d topics", c->lda.words, c->lda.topics);
  return 1;
}
RUN(lda_documents) { return SW_RUN(stream, lda_documents, &c->lda, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]); }
MAKE(lda_documents) {
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (lda_of(b, c, &bytes)) return -1;
  const int64_t entries = c->lda.documents * LDA_WORDS_OF_DOCUMENT, stride = sw_lda_stride(c->lda.topics);
  if (equal_lists(c, c->lda.documents, entries)) return -1;
  int32_t *word = int32s(c, entries);
  if (!word) return -1;
  for (int64_t e = 0; e < entries; e++) word[e] = (int32_t)((e / LDA_WORDS_OF_DOCUMENT + e % LDA_WORDS_OF_DOCUMENT) % c->lda.words);
  constant(c, entries, 1);
  floats(c, SW_F32, c->lda.words * stride, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.documents * stride, CONSTANT, 1, IN | OUT);
  output(c, SW_F32, c->lda.documents * stride);
  output(c, SW_F32, entries);
  workspace(c, bytes);
  c->macs = 2.0 * (double)entries * c->lda.topics * c->lda.iterations;
  c->run = run_lda_documents;
  SHAPE("%lld of %d words, %d topics, %d iterations", (long long)c->lda.documents, LDA_WORDS_OF_DOCUMENT, c->lda.topics, c->lda.iterations);
  return 1;
}
RUN(lda_update) { return SW_RUN(stream, lda_update, &c->lda, 0.1f, 1, t[0], t[1], t[2], t[3], t[4], t[5], t[6]); }
MAKE(lda_update) {
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (lda_of(b, c, &bytes)) return -1;
  const int64_t entries = c->lda.documents * LDA_WORDS_OF_DOCUMENT, stride = sw_lda_stride(c->lda.topics);
  if (equal_lists(c, c->lda.words, entries)) return -1;
  int64_t *entry = own(c, (size_t)entries * sizeof *entry);
  if (!entry) return -1;
  for (int64_t e = 0; e < entries; e++) entry[e] = e * 31 % entries;
  given(c, entry, (size_t)entries * sizeof *entry);
  if (random_ids(c, entries, (int)c->lda.documents)) return -1;
  floats(c, SW_F32, entries, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.documents * stride, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.words * stride, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.words * stride, CONSTANT, 1, IN | OUT);
  c->macs = (double)entries * c->lda.topics;
  c->run = run_lda_update;
  SHAPE("%lld entries, %d words, %d topics", (long long)entries, c->lda.words, c->lda.topics);
  return 1;
}

/* Several starts of k-means; in updates every row moves to its first centre. */
static int make_kmeans_case(const sw_bench *b, op_case *c) {
  const int rows = b->quick ? 40 : 20000, hidden = b->quick ? 8 : 384, groups = b->quick ? 2 : 10, k = b->quick ? 3 : 5;
  c->any_model = 1;
  c->kmeans = (sw_kmeans_desc){.rows = rows, .hidden = hidden, .groups = groups, .k = k};
  input(c, SW_F32, (int64_t)rows * hidden);
  SHAPE("%d x %d, %d starts of %d", rows, hidden, groups, k);
  return 1;
}
RUN(kmeans_assign) { return SW_RUN(stream, kmeans_assign, &c->kmeans, t[0], t[1], NULL, t[2], t[3], t[4]); }
MAKE(kmeans_assign) {
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  make_kmeans_case(b, c);
  const sw_kmeans_desc *d = &c->kmeans;
  const int64_t centres = (int64_t)d->groups * d->k;
  if (SW_RUN(&stream, kmeans_workspace, d, &bytes)) return -1;
  input(c, SW_F32, centres * d->hidden);
  output(c, SW_F32, d->groups * d->rows); /* labels, as wide */
  output(c, SW_F32, d->groups * d->rows);
  workspace(c, bytes);
  c->macs = (double)d->rows * (double)centres * d->hidden;
  c->run = run_kmeans_assign;
  return 1;
}
RUN(kmeans_update) { return SW_RUN(stream, kmeans_update, &c->kmeans, t[0], t[1], t[2], t[3], t[4], t[5]); }
MAKE(kmeans_update) {
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  make_kmeans_case(b, c);
  const sw_kmeans_desc *d = &c->kmeans;
  const size_t labels = (size_t)(d->groups * d->rows) * sizeof(int32_t), centres = (size_t)d->groups * (size_t)d->k;
  int32_t *none = own(c, labels);
  if (!none) return -1;
  for (int64_t i = 0; i < d->groups * d->rows; i++) none[i] = -1;
  given(c, none, labels);
  add(c, labels, (double)labels, ZERO, SW_F32, 0, NULL, IN);
  add(c, centres * (size_t)d->hidden * 8, (double)d->groups * d->hidden * 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  add(c, centres * 8, (double)d->groups * 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  add(c, (size_t)d->groups * 8, (double)d->groups * 8, NOTHING, SW_F32, 0, NULL, OUT);
  c->run = run_kmeans_update;
  return 1;
}

/* --- parameters, fp32: all of a model's but the word table, and the word table by rows --- */
static void parameters_of(const sw_bench_shape *s, op_case *c) {
  const int64_t h = s->hidden, i = s->intermediate;
  const int64_t embedding[] = {s->positions * h, 2 * h, h, h};
  const int64_t layer[] = {3 * h * h, 3 * h, h * h, h, h, h, i * h, i, h * i, h, h, h};
  int n = 0;
  for (size_t k = 0; k < sizeof embedding / sizeof *embedding; k++) c->parameters.size[n++] = embedding[k];
  for (int l = 0; l < s->layers; l++)
    for (size_t k = 0; k < sizeof layer / sizeof *layer; k++) c->parameters.size[n++] = layer[k];
  c->parameters.count = n;
  for (int k = 0; k < n; k++) c->parameters.total += c->parameters.size[k];
  SHAPE("%d tensors, %.1f million", n, (double)c->parameters.total * 1e-6);
}
/* t: g, p, m, v, each with all tensors one behind the other */
static void list_of(const op_case *c, void *const *t, int all, sw_adamw_tensor list[MAX_PARAMETERS]) {
  for (int64_t k = 0, at = 0; k < c->parameters.count; at += c->parameters.size[k], k++) {
    list[k] = (sw_adamw_tensor){.g = (float *)t[0] + at, .count = c->parameters.size[k], .decays = 1};
    if (all) list[k].p = (float *)t[1] + at, list[k].m = (float *)t[2] + at, list[k].v = (float *)t[3] + at;
  }
}
RUN(adamw) {
  sw_adamw_tensor list[MAX_PARAMETERS];
  const sw_adamw_desc desc = {.tensors = c->parameters.count, .step = sw_adamw_step_of(1e-5, 0.9, 0.999, 1e-8, 0.01, 0, turn + 1), .grad_scale = 1};
  list_of(c, t, 1, list);
  return SW_RUN(stream, adamw, &desc, list);
}
MAKE(adamw) {
  if (variant || dtype != SW_F32) return 0;
  parameters_of(s, c);
  floats(c, SW_F32, c->parameters.total, VALUES, 0.01f, IN);
  floats(c, SW_F32, c->parameters.total, VALUES, 0.05f, IN | OUT);
  floats(c, SW_F32, c->parameters.total, VALUES, 0.01f, IN | OUT);
  floats(c, SW_F32, c->parameters.total, SQUARES, 0.01f, IN | OUT);
  c->run = run_adamw;
  return 1;
}
RUN(sum_squares) {
  sw_adamw_tensor list[MAX_PARAMETERS];
  list_of(c, t, 0, list);
  return SW_RUN(stream, sum_squares, c->parameters.count, list, t[1], t[2]);
}
MAKE(sum_squares) {
  if (variant || dtype != SW_F32) return 0;
  parameters_of(s, c);
  input(c, SW_F32, c->parameters.total);
  add(c, 8, 8, NOTHING, SW_F32, 0, NULL, OUT);
  workspace(c, SW_SUM_WORKSPACE);
  c->run = run_sum_squares;
  return 1;
}
RUN(adamw_rows) {
  sw_adamw_rows_desc desc = c->rows;
  desc.step = turn + 1;
  return turn < HISTORY ? SW_RUN(stream, adamw_rows, &desc, t[0], t[2], t[3], t[4], t[5], t[1], (int64_t)c->tensors[1].bytes / 4, t[6])
                        : sw_fail("adamw_rows: no more than %d steps can be measured", HISTORY);
}
MAKE(adamw_rows) {
  int64_t unique;
  if (variant || dtype != SW_F32) return 0;
  sw_adamw_step *history = own(c, HISTORY * sizeof *history);
  if (!history) return -1;
  for (int i = 0; i < HISTORY; i++) history[i] = sw_adamw_step_of(1e-5, 0.9, 0.999, 1e-8, 0.01, 0, i + 1);
  add(c, HISTORY * sizeof *history, sizeof *history, GIVEN, SW_F32, 0, history, IN | SHARED);
  if (distinct_ids(c, tokens_of(b), s->vocab, 0, &unique)) return -1;
  c->rows = (sw_adamw_rows_desc){.rows = s->vocab, .hidden = s->hidden, .decays = 1, .grad_scale = 1, .first_step = 1};
  for (int i = 0; i < 3; i++) {
    table(c, s->vocab, unique, s->hidden, IN | OUT);
    if (i == 2) c->tensors[c->count - 1].fill = SQUARES;
  }
  add(c, (size_t)s->vocab * 4, (double)unique * 4, ZERO, SW_F32, 0, NULL, IN | OUT);
  floats(c, SW_F32, unique * s->hidden, VALUES, 0.01f, IN);
  c->run = run_adamw_rows;
  SHAPE("%lld of %d x %d", (long long)unique, s->vocab, s->hidden);
  return 1;
}
RUN(add_rows) { return SW_RUN(stream, add_rows, &c->add, t[0], t[1], t[2]); }
MAKE(add_rows) {
  int64_t unique;
  if (variant || dtype != SW_F32) return 0;
  if (distinct_ids(c, tokens_of(b), s->vocab, 0, &unique)) return -1;
  c->add = (sw_add_rows_desc){.rows = unique, .hidden = s->hidden};
  input(c, SW_F32, unique * s->hidden);
  table(c, s->vocab, unique, s->hidden, IN | OUT);
  c->run = run_add_rows;
  SHAPE("%lld of %d x %d", (long long)unique, s->vocab, s->hidden);
  return 1;
}

/* --- elementwise --- */
RUN(cast) { return SW_RUN(stream, cast, c->cast.count, c->cast.from, t[0], c->cast.to, t[1]); }
static void cast_of(op_case *c, int64_t count, sw_dtype from, sw_dtype to) {
  c->cast.count = count;
  c->cast.from = from;
  c->cast.to = to;
  input(c, from, count);
  output(c, to, count);
  c->run = run_cast;
}
MAKE(cast) {
  if (variant) return 0;
  const sw_dtype from = dtype == SW_F32 ? SW_BF16 : SW_F32;
  cast_of(c, tokens_of(b) * s->intermediate, from, dtype);
  SHAPE("%lld x %d, %s to %s", (long long)tokens_of(b), s->intermediate, sw_dtype_name(from), sw_dtype_name(dtype));
  return 1;
}
RUN(dropout) { return SW_RUN(stream, dropout, &c->dropout, t[0], t[1]); }
MAKE(dropout) {
  if (variant) return 0;
  c->dropout = (sw_dropout_desc){.count = tokens_of(b) * s->hidden, .dtype = dtype, .dropout = tenth};
  input(c, dtype, c->dropout.count);
  output(c, dtype, c->dropout.count);
  c->run = run_dropout;
  SHAPE("%lld x %d", (long long)tokens_of(b), s->hidden);
  return 1;
}

/* --- every operator; those that only say how much memory is wanted have nothing to measure --- */
#define make_embedding_workspace NULL
#define make_layernorm_workspace NULL
#define make_linear_weight_bytes NULL
#define make_linear_workspace NULL
#define make_attention_workspace NULL
#define make_gru_workspace NULL
#define make_contrastive_workspace NULL
#define make_neighbours_workspace NULL
#define make_umap_layout_workspace NULL
#define make_umap_ranks_workspace NULL
#define make_lda_workspace NULL
#define make_kmeans_workspace NULL
static const struct {
  const char *name;
  make *make;
} makers[] = {
#define X(operator) {#operator, make_##operator},
    SW_OPERATOR_LIST(X)
#undef X
};

/* --- device memory of a case --- */
typedef struct {
  sw_device *device;
  int copies;
  void *tensors[MAX_COPIES][MAX_TENSORS];
  int64_t turns[MAX_COPIES];
  int next;
} memory;

static void release(const op_case *c, memory *m) {
  for (int k = 0; k < m->copies; k++)
    for (int i = 0; i < c->count; i++)
      if (m->tensors[k][i] && (!k || !(c->tensors[i].use & SHARED))) m->device->release(m->device, m->tensors[k][i]);
  *m = (memory){.device = m->device};
}

/* A block of values, over and over. */
static int fill_tensor(sw_stream *stream, const tensor *t, void *to) {
  static float drawn[BLOCK], values[BLOCK];
  static sw_bf16 halves[BLOCK];
  static int have_drawn;
  sw_device *device = stream->device;
  if (t->fill == NOTHING) return 0;
  if (t->fill == ZERO) return device->zero(stream, to, t->bytes);
  if (t->fill == GIVEN) return device->copy_in(stream, to, t->given, t->bytes);
  sw_random random = {.seed = 6};
  for (; have_drawn < BLOCK; have_drawn++) drawn[have_drawn] = 3.4641016f * (sw_random_float(&random) - 0.5f); /* deviation 1 */
  const size_t element = sw_dtype_bytes(t->dtype), count = t->bytes / element < BLOCK ? t->bytes / element : BLOCK;
  for (size_t i = 0; i < count; i++) {
    const float x = drawn[i];
    values[i] = t->fill == CONSTANT ? t->scale : t->fill == SQUARES ? t->scale * t->scale * x * x : t->scale * x;
    if (t->dtype == SW_BF16) halves[i] = sw_f32_to_bf16(values[i]);
  }
  for (size_t at = 0, here; at < t->bytes; at += here) {
    here = t->bytes - at < BLOCK * element ? t->bytes - at : BLOCK * element;
    if (device->copy_in(stream, (char *)to + at, t->dtype == SW_BF16 ? (const void *)halves : values, here)) return -1;
  }
  return 0;
}

static int provide(sw_stream *stream, size_t spread, const op_case *c, memory *m) {
  size_t bytes = 1;
  for (int i = 0; i < c->count; i++)
    if (!(c->tensors[i].use & SHARED)) bytes += c->tensors[i].bytes;
  const size_t wanted = spread / bytes + 1;
  *m = (memory){.device = stream->device};
  for (size_t k = 0; k < wanted && k < MAX_COPIES; k++) {
    m->copies++;
    for (int i = 0; i < c->count; i++) {
      const tensor *t = &c->tensors[i];
      if (k && t->use & SHARED) {
        m->tensors[k][i] = m->tensors[0][i];
        continue;
      }
      if (!(m->tensors[k][i] = m->device->alloc(m->device, t->bytes ? t->bytes : 1)) || fill_tensor(stream, t, m->tensors[k][i])) return -1;
    }
    if (c->prepare && c->prepare(stream, c, m->tensors[k], 0)) return -1;
  }
  return m->device->synchronize(stream);
}

/* --- time --- */
static int sample(sw_stream *stream, const op_case *c, memory *m, long calls, double *seconds) {
  const double start = sw_clock();
  for (long i = 0; i < calls; i++) {
    const int k = m->next;
    m->next = (k + 1) % m->copies;
    if (c->run(stream, c, m->tensors[k], m->turns[k]++)) return -1;
  }
  if (m->device->synchronize(stream)) return -1;
  *seconds = (sw_clock() - start) / (double)calls;
  return 0;
}

enum { ENOUGH_SAMPLES = 3, ENOUGH_SECONDS = 2 }; /* slow calls need fewer samples */

static int measure(sw_bench *b, const char *what, const char *model, sw_dtype dtype, const op_case *c, double *best) {
  memory m;
  double seconds[SW_BENCH_SAMPLES] = {0}, one = 0, spent = 0;
  int samples = 0, status = provide(&b->stream, b->spread, c, &m);
  if (!status) status = sample(&b->stream, c, &m, 1, &one); /* warms up */
  if (!status) status = sample(&b->stream, c, &m, 1, &one);
  const double wanted = b->sample_seconds / (one > 0 ? one : 1e-9);
  const long calls = wanted < 1 ? 1 : wanted > MAX_CALLS ? MAX_CALLS : (long)wanted;
  while (!status && samples < b->samples && (samples < ENOUGH_SAMPLES || spent < ENOUGH_SECONDS)) {
    status = sample(&b->stream, c, &m, calls, &seconds[samples]);
    spent += seconds[samples++] * (double)calls;
  }
  release(c, &m);
  if (!status)
    status = sw_bench_add(b, &(sw_bench_row){.what = what, .model = model, .shape = c->shape, .dtype = dtype, .seconds = seconds,
                                             .samples = samples, .calls = calls, .bytes = c->bytes, .macs = c->macs});
  if (best) *best = seconds[0];
  return status;
}

static void close_case(op_case *c) {
  for (int i = 0; i < c->num_owned; i++) free(c->owned[i]);
}

/* --- the device's limits --- */
static int measure_copy(sw_bench *b) {
  op_case c = {0};
  double best;
  cast_of(&c, b->quick ? 1 << 12 : (int64_t)1 << 26, SW_F32, SW_F32);
  snprintf(c.shape, sizeof c.shape, "%lld KiB to as many", (long long)c.cast.count / 256);
  if (measure(b, "copy", "-", SW_F32, &c, &best)) return -1;
  b->copy = c.bytes / best;
  return 0;
}
/* The best of square products, each twice as wide as the one before until one takes a quarter of a second. */
static int measure_peak(sw_bench *b, sw_dtype dtype) {
  double peak = 0, best = 0;
  for (int side = b->largest < 512 ? b->largest : 512; side <= b->largest && best < 0.25; side *= 2) {
    const sw_bench_shape shape = {.hidden = side, .intermediate = side};
    sw_bench square = *b;
    square.sequences = 1;
    square.lengths[0] = side;
    op_case c = {0};
    const int status = make_linear_forward(&square, &shape, dtype, 3, &c) < 1 || measure(b, "matrix product", "-", dtype, &c, &best) ? -1 : 0;
    close_case(&c);
    if (status) return -1;
    if (c.macs / best > peak) peak = c.macs / best;
  }
  b->peak[dtype] = peak;
  return 0;
}

/* 1 where `name` is to be measured; with NULL: -1 where a name that was asked for is no operator's. */
static int wanted(const sw_bench *b, const char *name) {
  for (int i = 0; name && i < b->only->count; i++)
    if (!strcmp(name, b->only->items[i])) return 1;
  if (name) return !b->only->count;
  for (int i = 0; i < b->only->count; i++) {
    size_t k = 0;
    while (k < sizeof makers / sizeof *makers && (!makers[k].make || strcmp(makers[k].name, b->only->items[i]))) k++;
    if (k == sizeof makers / sizeof *makers) return sw_fail("--operator %s is not known; without it the table lists all", b->only->items[i]);
  }
  return 0;
}

int sw_bench_operators(sw_bench *b) {
  if (wanted(b, NULL) < 0) return -1;
  if (measure_copy(b) || measure_peak(b, SW_F32) || measure_peak(b, SW_BF16)) return -1;
  for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
    for (int s = 0; makers[i].make && wanted(b, makers[i].name) && s < b->num_shapes; s++)
      for (int d = SW_F32; d <= SW_BF16; d++)
        for (int variant = 0, made = 1; made; variant++) {
          op_case *c = sw_alloc(sizeof *c);
          if (!c) return -1;
          made = makers[i].make(b, &b->shapes[s], (sw_dtype)d, variant, c);
          if (made > 0 && measure(b, makers[i].name, c->any_model ? "-" : b->shapes[s].name, (sw_dtype)d, c, NULL)) made = -1;
          close_case(c);
          free(c);
          if (made < 0) return sw_fail_in("%s, %s, %s", makers[i].name, b->shapes[s].name, sw_dtype_name((sw_dtype)d));
        }
  return 0;
}
