#include "engine/model/gru.h"
#include "base/error.h"
#include "base/philox.h"
#include "engine/model/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STREAM_WEIGHTS = 4 };

/* --- parameters --- */

/* Offset of a new parameter: weight [rows, columns], or a vector where columns = 0. SIZE_MAX on failure. */
static size_t declare(sw_model *model, const char *name, int64_t rows, int64_t columns, int decays) {
  const sw_parameter *p = sw_model_add_parameter(model, name, columns ? 2 : 1, rows, columns ? columns : 1, decays);
  return p ? p->offset : SIZE_MAX;
}

int sw_gru_declare(sw_model *model) {
  const sw_model_config *c = &model->config;
  if (!(model->gru = sw_alloc(sizeof *model->gru))) return -1;
  sw_gru_layer *layer = model->gru;
  if (declare(model, "embedding.weight", c->vocab_size, c->embedding_size, 1) == SIZE_MAX) return -1;
  model->parameters[0].sparse_rows = 1;
  layer->input_weight = declare(model, "gru.weight_ih_l0", 3 * c->hidden_size, c->embedding_size, 1);
  layer->weight = declare(model, "gru.weight_hh_l0", 3 * c->hidden_size, c->hidden_size, 1);
  layer->input_bias = declare(model, "gru.bias_ih_l0", 3 * c->hidden_size, 0, 0);
  layer->bias = declare(model, "gru.bias_hh_l0", 3 * c->hidden_size, 0, 0);
  return layer->input_weight == SIZE_MAX || layer->weight == SIZE_MAX || layer->input_bias == SIZE_MAX || layer->bias == SIZE_MAX ? -1 : 0;
}

sw_linear_desc sw_gru_input_desc(const sw_model *model, int64_t tokens) {
  return (sw_linear_desc){.tokens = tokens, .in_features = model->config.embedding_size, .out_features = 3 * model->config.hidden_size,
                          .dtype = model->dtype, .out_dtype = model->dtype, .training = model->training};
}

static double uniform(sw_random *random) { return ((double)sw_random_u32(random) + 0.5) * 0x1p-32; }

/* N(0, 1) where k is 0, by Box, Muller 1958; otherwise U(-k, k) */
static int add_weight(sw_checkpoint *c, const char *name, int64_t rows, int64_t columns, double k, uint64_t seed) {
  const int64_t shape[] = {rows, columns};
  sw_random random = {.seed = seed, .stream = (uint64_t)STREAM_WEIGHTS << 32 | c->weights.count};
  sw_tensor *t = sw_tensors_add(&c->weights, name, SW_F32, columns ? 2 : 1, shape);
  if (!t) return -1;
  float *w = t->data;
  for (int64_t i = 0; i < sw_tensor_elements(t); i++)
    w[i] = (float)(k > 0 ? k * (2 * uniform(&random) - 1) : sqrt(-2 * log(uniform(&random))) * cos(2 * M_PI * uniform(&random)));
  return 0;
}

int sw_gru_init(sw_checkpoint *c, int vocab_size, int embedding_size, int hidden_size, int max_words, double dropout, const char *name,
                const char *const *labels, size_t num_labels, uint64_t seed) {
  const double k = 1 / sqrt(hidden_size);
  char weight[256], bias[256];
  snprintf(weight, sizeof weight, "heads.%s.weight", name);
  snprintf(bias, sizeof bias, "heads.%s.bias", name);
  c->config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:f}", "model_type", "gru", "vocab_size", vocab_size, "embedding_size", embedding_size,
                        "hidden_size", hidden_size, "max_position_embeddings", max_words, "hidden_dropout_prob", dropout);
  if (!c->config) return sw_fail("out of memory");
  return add_weight(c, "embedding.weight", vocab_size, embedding_size, 0, seed) ||
                 add_weight(c, "gru.weight_ih_l0", 3 * hidden_size, embedding_size, k, seed) ||
                 add_weight(c, "gru.weight_hh_l0", 3 * hidden_size, hidden_size, k, seed) ||
                 add_weight(c, "gru.bias_ih_l0", 3 * hidden_size, 0, k, seed) || add_weight(c, "gru.bias_hh_l0", 3 * hidden_size, 0, k, seed) ||
                 add_weight(c, weight, (int64_t)num_labels, hidden_size, k, seed) || add_weight(c, bias, (int64_t)num_labels, 0, k, seed) ||
                 sw_checkpoint_add_head(c, name, "multilabel", labels, num_labels)
             ? -1
             : 0;
}

/* --- a run's memory --- */

static sw_gru_desc gru_desc(const sw_model *model, int batch, int64_t tokens) {
  return (sw_gru_desc){.batch = batch, .total_tokens = tokens, .hidden = model->config.hidden_size, .dtype = model->dtype};
}

int sw_gru_workspace(sw_stream *stream, const sw_model *model, int64_t tokens, int batch, size_t *most) {
  size_t bytes;
  sw_linear_desc input = sw_gru_input_desc(model, tokens);
  if (SW_RUN(stream, linear_workspace, &input, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  sw_gru_desc gru = gru_desc(model, batch, tokens);
  if (SW_RUN(stream, gru_workspace, &gru, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  return 0;
}

void sw_gru_place(sw_arena *a, const sw_model *model, int64_t tokens, int batch, int training, sw_run *run) {
  const sw_model_config *c = &model->config;
  const size_t e = sw_dtype_bytes(model->dtype);
  sw_gru_state *s = &run->gru;
  s->words = sw_arena_take(a, tokens * c->embedding_size, 4);
  s->x = model->dtype == SW_F32 ? (void *)s->words : sw_arena_take(a, tokens * c->embedding_size, e);
  s->gates = sw_arena_take(a, 3 * tokens * c->hidden_size, e);
  s->y = sw_arena_take(a, tokens * c->hidden_size, e);
  s->last = sw_arena_take(a, batch, 4);
  s->last_state = sw_arena_take(a, (int64_t)batch * c->hidden_size, e);
  if (!training) return;
  s->saved = sw_arena_take(a, tokens * c->hidden_size, e);
  s->sorted_x = sw_arena_take(a, tokens * c->embedding_size, e);
  s->d_last_state = sw_arena_take(a, (int64_t)batch * c->hidden_size, e);
  s->targets = sw_arena_take(a, (int64_t)model->num_heads * batch * sw_model_most_labels(model, 1), 4);
  s->weights = sw_arena_take(a, (int64_t)model->num_heads * batch * sw_model_most_labels(model, 1), 4);
}

/* --- forward --- */

/* x [rows, columns], the first of which is row `first` of the whole batch. */
static int drop(sw_run *run, void *x, int64_t rows, int columns, uint64_t first, uint32_t site) {
  sw_dropout_desc desc = {.count = rows * columns, .dtype = run->model->dtype,
                          .dropout = sw_run_dropout(run, run->model->config.hidden_dropout, site)};
  desc.dropout.first = first * (uint64_t)columns;
  return desc.dropout.p > 0 ? SW_RUN(&run->stream, dropout, &desc, x, x) : 0;
}

static int drop_words(sw_run *run) {
  return drop(run, run->gru.x, run->tokens, run->model->config.embedding_size, run->first_token, SITE_EMBEDDING);
}
static int drop_last(sw_run *run, void *states) {
  return drop(run, states, run->batch, run->model->config.hidden_size, run->first_sequence, SITE_HEAD);
}

int sw_gru_forward(sw_run *run, const int32_t *cu_seqlens) {
  const sw_model *model = run->model;
  const sw_model_config *c = &model->config;
  const sw_gru_layer *layer = model->gru;
  sw_gru_state *s = &run->gru;
  for (int i = 0; i < run->batch; i++) {
    if (cu_seqlens[i + 1] == cu_seqlens[i]) return sw_fail("text %d of a batch has no word", i);
    s->host_last[i] = cu_seqlens[i + 1] - 1;
  }
  memcpy(s->host_cu_seqlens, cu_seqlens, ((size_t)run->batch + 1) * sizeof *cu_seqlens);
  const int64_t values = run->tokens * c->embedding_size;
  sw_gather_desc rows = {.tokens = c->vocab_size, .rows = run->tokens, .hidden = c->embedding_size, .dtype = SW_F32};
  sw_gather_desc last = {.tokens = run->tokens, .rows = run->batch, .hidden = c->hidden_size, .dtype = model->dtype};
  sw_linear_desc input = sw_gru_input_desc(model, run->tokens);
  sw_gru_desc gru = gru_desc(model, run->batch, run->tokens);
  gru.host_cu_seqlens = s->host_cu_seqlens;
  return model->device->copy_in(&run->stream, s->last, s->host_last, (size_t)run->batch * 4) ||
                 SW_RUN(&run->stream, gather_forward, &rows, run->ids, model->values + model->parameters[0].offset, s->words) ||
                 (s->x != s->words && SW_RUN(&run->stream, cast, values, SW_F32, s->words, model->dtype, s->x)) ||
                 drop_words(run) ||
                 SW_RUN(&run->stream, linear_forward, &input, s->x, layer->prepared, model->values + layer->input_bias, NULL, s->gates,
                        run->workspace) ||
                 SW_RUN(&run->stream, gru_forward, &gru, run->cu_seqlens, s->gates, model->values + layer->weight,
                        model->values + layer->bias, NULL, s->y, s->saved, run->workspace) ||
                 SW_RUN(&run->stream, gather_forward, &last, s->last, s->y, s->last_state)
             ? -1
             : 0;
}

/* --- backward --- */

int sw_run_label_loss(sw_run *run, size_t h, const float *targets, const float *weights, float scale, int first, sw_gradients *gradients) {
  const sw_model *model = run->model;
  const sw_model_head *head = &model->heads[h];
  sw_gru_state *s = &run->gru;
  if (!model->gru) return sw_run_sequence_loss(run, h, NULL, targets, weights, scale, first, gradients);
  const size_t bytes = (size_t)run->batch * (size_t)head->num_labels * sizeof *targets;
  /* the operator's weights are of rows: with weights, each output is a row */
  sw_loss_desc loss = {.rows = run->batch, .classes = head->num_labels, .scale = scale};
  if (weights) loss.rows *= loss.classes, loss.classes = 1;
  const sw_linear_desc linear = sw_model_head_desc(model, head, run->batch);
  const int64_t place = (int64_t)h * run->max_batch * sw_model_most_labels(model, 1);
  float *device_targets = s->targets + place, *device_weights = weights ? s->weights + place : NULL;
  if (first && drop_last(run, s->last_state)) return -1;
  return model->device->copy_in(&run->stream, device_targets, targets, bytes) ||
                 (weights && model->device->copy_in(&run->stream, device_weights, weights, bytes)) ||
                 sw_run_head_logits(run, head, run->batch, s->last_state) ||
                 SW_RUN(&run->stream, sigmoid_bce, &loss, run->logits, device_targets, device_weights, run->losses + h, run->logits, run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_weight, &linear, run->logits, s->last_state,
                        gradients->values + model->parameters[head->weight].offset, gradients->values + model->parameters[head->bias].offset,
                        run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_input, &linear, run->logits, NULL, head->prepared, s->d_last_state, !first, run->workspace)
             ? -1
             : 0;
}

int sw_gru_backward(sw_run *run, sw_gradients *gradients) {
  const sw_model *model = run->model;
  const sw_model_config *c = &model->config;
  const sw_gru_layer *layer = model->gru;
  sw_gru_state *s = &run->gru;
  float *g = gradients->values;
  sw_gather_desc last = {.tokens = run->tokens, .rows = run->batch, .hidden = c->hidden_size, .dtype = model->dtype};
  sw_gru_desc gru = gru_desc(model, run->batch, run->tokens);
  gru.host_cu_seqlens = s->host_cu_seqlens;
  sw_linear_desc input = sw_gru_input_desc(model, run->tokens);
  sw_gather_desc by_word = {.tokens = run->tokens, .rows = run->tokens, .hidden = c->embedding_size, .dtype = model->dtype};
  if (drop_last(run, s->d_last_state) ||
      SW_RUN(&run->stream, gather_backward, &last, s->last, s->d_last_state, run->d_state) ||
      SW_RUN(&run->stream, gru_backward, &gru, run->cu_seqlens, s->gates, s->saved, model->values + layer->weight, NULL, s->y, run->d_state,
             g + layer->weight, g + layer->bias, NULL, run->workspace) ||
      SW_RUN(&run->stream, linear_backward_weight, &input, s->gates, s->x, g + layer->input_weight, g + layer->input_bias, run->workspace) ||
      SW_RUN(&run->stream, linear_backward_input, &input, s->gates, NULL, layer->prepared, s->x, 0, run->workspace) ||
      drop_words(run) || sw_run_sort_ids(run, gradients))
    return -1;
  sw_pool_desc sum = {.batch = (int)gradients->unique, .total_tokens = run->tokens, .hidden = c->embedding_size, .pooling = SW_POOL_SUM,
                      .dtype = model->dtype};
  return SW_RUN(&run->stream, gather_forward, &by_word, run->sorted, s->x, s->sorted_x) ||
                 SW_RUN(&run->stream, pool_forward, &sum, run->segments, s->sorted_x, gradients->word_rows, NULL)
             ? -1
             : 0;
}
