/* Cases of operators, for those who make them (operators.c tells what a case is). */
#ifndef SW_TOOLS_BENCH_CASES_H
#define SW_TOOLS_BENCH_CASES_H
#include "tools/bench/bench.h"
#include "base/error.h"
#include "base/philox.h"

#include <stdio.h>

enum { MAX_TENSORS = 16, MAX_OWNED = 8, MAX_PARAMETERS = 256 };

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
static inline void add(op_case *c, size_t bytes, double moved, fill how, sw_dtype dtype, float scale, const void *given, int use) {
  c->tensors[c->count++] = (tensor){bytes, how, dtype, scale, given, use};
  c->bytes += moved * (!!(use & IN) + !!(use & OUT));
}
static inline void floats(op_case *c, sw_dtype dtype, int64_t count, fill how, float scale, int use) {
  const size_t bytes = (size_t)count * sw_dtype_bytes(dtype);
  add(c, bytes, (double)bytes, how, dtype, scale, NULL, use);
}
static inline void input(op_case *c, sw_dtype dtype, int64_t count) { floats(c, dtype, count, VALUES, 1, IN); }
static inline void output(op_case *c, sw_dtype dtype, int64_t count) { floats(c, dtype, count, NOTHING, 0, OUT); }
static inline void gradient(op_case *c, int64_t count) { floats(c, SW_F32, count, ZERO, 0, IN | OUT); }
static inline void constant(op_case *c, int64_t count, float value) { floats(c, SW_F32, count, CONSTANT, value, IN); }
static inline void workspace(op_case *c, size_t bytes) { add(c, bytes, 0, NOTHING, SW_F32, 0, NULL, SHARED); }
/* A table of which `rows` rows are used. */
static inline void table(op_case *c, int64_t size, int64_t rows, int64_t hidden, int use) {
  add(c, (size_t)(size * hidden) * 4, (double)(rows * hidden) * 4, VALUES, SW_F32, 0.5f, NULL, use);
}
static inline void given(op_case *c, const void *host, size_t bytes) { add(c, bytes, (double)bytes, GIVEN, SW_F32, 0, host, IN); }
static inline void *own(op_case *c, size_t bytes) {
  void *memory = sw_alloc(bytes);
  if (memory) c->owned[c->num_owned++] = memory;
  return memory;
}
static inline int32_t *int32s(op_case *c, int64_t count) {
  int32_t *values = own(c, (size_t)count * sizeof *values);
  if (values) given(c, values, (size_t)count * sizeof *values);
  return values;
}
/* Random numbers below n. */
static inline int random_ids(op_case *c, int64_t count, int n) {
  sw_random random = {.seed = 4};
  int32_t *ids = int32s(c, count);
  for (int64_t i = 0; ids && i < count; i++) ids[i] = (int32_t)sw_random_below(&random, (uint32_t)n);
  return ids ? 0 : -1;
}
/* 0, step, 2 step, … */
static inline int multiples(op_case *c, int64_t count, int64_t step) {
  int32_t *values = int32s(c, count);
  for (int64_t i = 0; values && i < count; i++) values[i] = (int32_t)(i * step);
  return values ? 0 : -1;
}

static inline int64_t tokens_of(const sw_bench *b) { return (int64_t)b->sequences * b->lengths[0]; }
static const sw_dropout tenth = {.p = 0.1f, .seed = 5}; /* BERT's */
enum { MASKED_IN = 20, MASKED_OF = 3 }; /* 3 of 20 tokens are masked in pretraining */
static inline int64_t masked_of(const sw_bench *b) { return tokens_of(b) * MASKED_OF / MASKED_IN; }
#define SHAPE(...) snprintf(c->shape, sizeof c->shape, __VA_ARGS__)
#define RUN(name) static int run_##name(sw_stream *stream, const op_case *c, void *const *t, int64_t turn)
#define MAKE(name) int sw_make_##name(const sw_bench *b, const sw_bench_shape *s, sw_dtype dtype, int variant, op_case *c)

#define X(operator) make sw_make_##operator; /* of those that only say how much memory is wanted there is none */
SW_OPERATOR_LIST(X)
#undef X
/* The distinct ones of random_ids, increasing: what is not wanted may be NULL. *unique: how many. */
int sw_distinct_ids(op_case *c, int64_t tokens, int vocab, int want_segments, int64_t *unique);
/* The case of a cast, which measures copies, too. */
void sw_cast_case(op_case *c, int64_t count, sw_dtype from, sw_dtype to);
#endif
