/* Whole models with random weights: the work of a step depends on shapes alone.
 *
 * Multiply-adds of a token, as the field counts them (2 for each weight of a product, 6 with the gradients, in FLOP): a layer's products
 * are 4 h^2 + 2 h i, its attention 2 h for each token of the sequence; the gradients are twice the forward. Recomputing, embeddings, heads and
 * AdamW are not counted. */
#include "tools/bench/bench.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/progress.h"
#include "engine/learn/optimizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 2 };

static int add_weight(sw_checkpoint *c, const char *name, int64_t rows, int64_t columns, float constant, sw_random *random) {
  sw_tensor *t = sw_tensors_add(&c->weights, name, SW_F32, columns ? 2 : 1, (int64_t[4]){rows, columns});
  if (!t) return -1;
  float *values = t->data;
  for (int64_t i = 0, n = sw_tensor_elements(t); i < n; i++)
    values[i] = columns ? 0.0693f * (sw_random_float(random) - 0.5f) : constant; /* deviation 0.02, as BERT starts */
  return 0;
}
static int add_pair(sw_checkpoint *c, const char *prefix, int64_t rows, int64_t columns, sw_random *random) {
  char name[128];
  snprintf(name, sizeof name, "%s.weight", prefix);
  if (add_weight(c, name, rows, columns, 1, random)) return -1;
  snprintf(name, sizeof name, "%s.bias", prefix);
  return add_weight(c, name, rows, 0, 0, random);
}

static int make_model(const sw_bench_shape *s, sw_checkpoint *c) {
  static const char *const labels[] = {"O", "B", "I"};
  const int64_t h = s->hidden, i = s->intermediate;
  sw_random random = {.seed = 1};
  sw_checkpoint_init(c);
  c->kind = sw_strdup("base");
  c->config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "model_type", "bert", "vocab_size", s->vocab, "hidden_size", s->hidden,
                        "num_hidden_layers", s->layers, "num_attention_heads", s->heads, "intermediate_size", s->intermediate,
                        "max_position_embeddings", s->positions, "type_vocab_size", 2, "hidden_act", "gelu");
  if (!c->kind || !c->config) return sw_fail_memory("making a model");
  if (add_weight(c, "embeddings.word_embeddings.weight", s->vocab, h, 0, &random) ||
      add_weight(c, "embeddings.position_embeddings.weight", s->positions, h, 0, &random) ||
      add_weight(c, "embeddings.token_type_embeddings.weight", 2, h, 0, &random) || add_pair(c, "embeddings.LayerNorm", h, 0, &random))
    return -1;
  const struct {
    const char *name;
    int64_t rows, columns;
  } parts[] = {{"attention.self.query", h, h},     {"attention.self.key", h, h},      {"attention.self.value", h, h},
               {"attention.output.dense", h, h},   {"attention.output.LayerNorm", h, 0}, {"intermediate.dense", i, h},
               {"output.dense", h, i},             {"output.LayerNorm", h, 0}};
  for (int layer = 0; layer < s->layers; layer++)
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
      char name[96];
      snprintf(name, sizeof name, "encoder.layer.%d.%s", layer, parts[p].name);
      if (add_pair(c, name, parts[p].rows, parts[p].columns, &random)) return -1;
    }
  return sw_checkpoint_add_head(c, "tags", "token", labels, 3) || add_pair(c, "heads.tags", 3, h, &random) ? -1 : 0;
}

/* A packed batch of random ids; lengths are `length`, or as job titles have them where it is 0. */
typedef struct {
  sw_batch batch;
  int32_t *ids, *cu_seqlens, *labels;
} batch_memory;

static int make_batch(const sw_bench_shape *s, int64_t most_tokens, int length, batch_memory *b) {
  static const int titles[] = {6, 8, 9, 10, 11, 12, 13, 14, 16, 17}; /* [CLS] and [SEP] counted; 11.6 in the mean */
  sw_random random = {.seed = 2};
  *b = (batch_memory){.ids = sw_alloc_array((size_t)most_tokens, 4), .cu_seqlens = sw_alloc_array((size_t)most_tokens + 1, 4),
                      .labels = sw_alloc_array((size_t)most_tokens, 4)};
  if (!b->ids || !b->cu_seqlens || !b->labels) return -1;
  int n = 0, next;
  while (next = length ? length : titles[n % 10], b->cu_seqlens[n] + next <= most_tokens) {
    b->cu_seqlens[n + 1] = b->cu_seqlens[n] + next;
    if (next > b->batch.max_seqlen) b->batch.max_seqlen = next;
    n++;
  }
  for (int i = 0; i < b->cu_seqlens[n]; i++) {
    b->ids[i] = (int32_t)sw_random_below(&random, (uint32_t)s->vocab);
    b->labels[i] = (int32_t)sw_random_below(&random, 3);
  }
  b->batch.batch = n;
  b->batch.tokens = b->cu_seqlens[n];
  b->batch.ids = b->ids;
  b->batch.cu_seqlens = b->cu_seqlens;
  return 0;
}
static void free_batch(batch_memory *b) {
  free(b->ids);
  free(b->cu_seqlens);
  free(b->labels);
}

static double forward_macs(const sw_bench_shape *s, const sw_batch *b) {
  const double h = s->hidden, i = s->intermediate;
  double pairs = 0;
  for (int n = 0; n < b->batch; n++) {
    const double length = b->cu_seqlens[n + 1] - b->cu_seqlens[n];
    pairs += length * length;
  }
  return s->layers * ((double)b->tokens * (4 * h * h + 2 * h * i) + 2 * h * pairs);
}

/* As the trainer does it: handed over as one, dropout, clipping and AdamW included; one wait a step. */
static int training_step(sw_stream *stream, sw_run *run, sw_optimizer *optimizer, const batch_memory *b, uint32_t step) {
  sw_gradients *g = sw_optimizer_gradients(optimizer);
  double losses[2], norm;
  sw_run_set_dropout(run, 1, 3, step);
  if (sw_collect(stream)) return -1;
  int failed = sw_optimizer_refresh(optimizer, b->ids, b->batch.tokens) || sw_run_forward(run, &b->batch, NULL) ||
               sw_run_token_loss(run, 0, b->labels, NULL, 1.0f / (float)b->batch.tokens, 1, g) || sw_run_backward(run, g) ||
               sw_optimizer_collect(optimizer);
  return sw_submit(stream, failed ? -1 : 0) || sw_optimizer_measure(optimizer) || sw_run_losses(run, losses) ||
                 stream->device->synchronize(stream) || sw_optimizer_step(optimizer, 1e-5, &norm)
             ? -1
             : 0;
}

static int add(sw_bench *bench, const sw_bench_shape *s, const char *what, sw_dtype dtype, const batch_memory *b, double *seconds, double macs,
               double per_call, const char *unit) {
  char shape[64];
  snprintf(shape, sizeof shape, "%d sequences, %lld tokens", b->batch.batch, (long long)b->batch.tokens);
  return sw_bench_add(bench, &(sw_bench_row){.what = what, .model = s->name, .shape = shape, .dtype = dtype, .seconds = seconds,
                                             .samples = bench->samples, .calls = 1, .macs = macs, .per_call = per_call, .unit = unit});
}

static int train(sw_bench *bench, const sw_bench_shape *s, const sw_checkpoint *checkpoint, sw_dtype dtype, double *seconds) {
  sw_stream *stream = &bench->stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  sw_optimizer *optimizer = NULL;
  const sw_optimizer_options options = SW_OPTIMIZER_DEFAULTS;
  batch_memory b = {0};
  int status = make_batch(s, (int64_t)bench->sequences * bench->lengths[0], bench->lengths[0], &b) ||
                       sw_model_open(stream, checkpoint, dtype, SW_TRAINING, &model) ||
                       sw_run_open(stream, model, b.batch.tokens, b.batch.batch, 1, &run) ||
                       sw_optimizer_open(stream, model, &options, b.batch.tokens, 1, &optimizer)
                   ? -1
                   : 0;
  for (int i = -WARM_UP; !status && i < bench->samples; i++) {
    const double start = sw_clock();
    status = training_step(stream, run, optimizer, &b, (uint32_t)(i + WARM_UP)) || stream->device->synchronize(stream) ? -1 : 0;
    if (i >= 0) seconds[i] = sw_clock() - start;
  }
  if (!status) status = add(bench, s, "training step", dtype, &b, seconds, 3 * forward_macs(s, &b.batch), (double)b.batch.tokens, "tokens/s");
  sw_optimizer_close(optimizer);
  sw_run_close(run);
  sw_model_close(model);
  free_batch(&b);
  return status;
}

static int embed(sw_bench *bench, const sw_bench_shape *s, const sw_checkpoint *checkpoint, sw_dtype dtype, double *seconds) {
  sw_stream *stream = &bench->stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  batch_memory b = {0};
  float *vectors = NULL;
  int status = make_batch(s, (int64_t)bench->sequences * bench->lengths[0], 0, &b) || sw_model_open(stream, checkpoint, dtype, SW_INFERENCE, &model) ||
                       sw_run_open(stream, model, b.batch.tokens, b.batch.batch, 0, &run) ||
                       !(vectors = sw_alloc_array((size_t)b.batch.batch * (size_t)s->hidden, sizeof *vectors))
                   ? -1
                   : 0;
  for (int i = -WARM_UP; !status && i < bench->samples; i++) {
    const double start = sw_clock();
    status = sw_run_embed(run, &b.batch, vectors); /* waits for the device */
    if (i >= 0) seconds[i] = sw_clock() - start;
  }
  if (!status) status = add(bench, s, "embed titles", dtype, &b, seconds, forward_macs(s, &b.batch), b.batch.batch, "texts/s");
  free(vectors);
  sw_run_close(run);
  sw_model_close(model);
  free_batch(&b);
  return status;
}

int sw_bench_models(sw_bench *bench) {
  double seconds[SW_BENCH_SAMPLES];
  int status = 0;
  for (int m = 0; !status && !bench->only->count && m < bench->num_shapes; m++) {
    sw_checkpoint checkpoint;
    status = make_model(&bench->shapes[m], &checkpoint);
    for (int d = SW_F32; !status && d <= SW_BF16; d++)
      status = train(bench, &bench->shapes[m], &checkpoint, (sw_dtype)d, seconds) ||
                       embed(bench, &bench->shapes[m], &checkpoint, (sw_dtype)d, seconds)
                   ? -1
                   : 0;
    sw_checkpoint_close(&checkpoint);
  }
  return status;
}
