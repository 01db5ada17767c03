/* Forward and backward of the encoder over packed batches, layer by layer.
 *
 * Forward of a layer, x [tokens, hidden]:
 *   qkv = x Wqkv^T + b;  context = attention(qkv);  a = context Wo^T + b;  z1 = x + dropout(a);  y1 = LayerNorm(z1)
 *   u = gelu(pre), pre = y1 Wup^T + b;  f = u Wdown^T + b;  z2 = y1 + dropout(f);  y2 = LayerNorm(z2)
 * Inference keeps one set of these buffers for all layers; training keeps what backward reads, for every layer. */
#include "base/error.h"
#include "engine/data/labels.h"
#include "engine/model/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

sw_dropout sw_run_dropout(const sw_run *run, float p, uint32_t site) {
  return (sw_dropout){.p = run->dropout_enabled ? p : 0, .seed = run->seed, .site = site, .step = run->step,
                      .first = run->first_token * (uint64_t)run->model->config.hidden_size};
}

/* --- the arena --- */
void *sw_arena_take(sw_arena *a, int64_t count, size_t bytes) {
  void *p = a->base ? a->base + a->used : NULL;
  a->used += ((size_t)count * bytes + 63) / 64 * 64;
  return p;
}

int sw_model_head_is_pooled(const sw_model_head *head) { return strcmp(head->task, "token") != 0; }

int sw_model_most_labels(const sw_model *model, int pooled) {
  int most = 0;
  for (size_t i = 0; i < model->num_heads; i++)
    if (sw_model_head_is_pooled(&model->heads[i]) == pooled && model->heads[i].num_labels > most) most = model->heads[i].num_labels;
  return most;
}

static sw_attention_desc attention_shape(const sw_model *model, int batch, int64_t tokens, int max_seqlen) {
  const int heads = model->config.num_heads, size = model->config.hidden_size / heads;
  return (sw_attention_desc){.batch = batch, .total_tokens = tokens, .max_seqlen = max_seqlen, .num_heads = heads, .head_size = size,
                             .scale = 1 / sqrtf((float)size), .dtype = model->dtype};
}

static sw_embedding_desc embedding_shape(const sw_model *model, int64_t tokens) {
  const sw_model_config *c = &model->config;
  return (sw_embedding_desc){.tokens = tokens, .hidden = c->hidden_size, .vocab_size = c->vocab_size, .max_positions = c->max_positions,
                             .type_vocab_size = c->type_vocab_size, .eps = c->layer_norm_eps, .dtype = model->dtype};
}

static sw_layernorm_desc layernorm_shape(const sw_model *model, int64_t tokens) {
  return (sw_layernorm_desc){.tokens = tokens, .hidden = model->config.hidden_size, .eps = model->config.layer_norm_eps, .dtype = model->dtype};
}

/* The largest scratch that any operator of a run can ask for. */
static int workspace_bytes(sw_stream *stream, const sw_model *model, int64_t tokens, int batch, size_t *most) {
  size_t bytes;
  *most = SW_SUM_WORKSPACE;
  for (int k = 0; k < SW_PRODUCTS && !model->gru; k++) {
    sw_linear_desc desc = sw_model_product_desc(model, &model->layers[0], k, tokens);
    if (SW_RUN(stream, linear_workspace, &desc, &bytes)) return -1;
    if (bytes > *most) *most = bytes;
  }
  for (size_t i = 0; i < model->num_heads; i++) {
    sw_linear_desc desc = sw_model_head_desc(model, &model->heads[i], sw_model_head_is_pooled(&model->heads[i]) ? batch : tokens);
    if (SW_RUN(stream, linear_workspace, &desc, &bytes)) return -1;
    if (bytes > *most) *most = bytes;
  }
  if (model->gru) return sw_gru_workspace(stream, model, tokens, batch, most);
  if (model->mlm && sw_mlm_workspace(stream, model, tokens, most)) return -1;
  sw_attention_desc attention = attention_shape(model, batch, tokens, model->config.max_positions);
  if (SW_RUN(stream, attention_workspace, &attention, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  if (!model->training) return 0;
  sw_embedding_desc embedding = embedding_shape(model, tokens);
  if (SW_RUN(stream, embedding_workspace, &embedding, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  sw_layernorm_desc layernorm = layernorm_shape(model, tokens);
  if (SW_RUN(stream, layernorm_workspace, &layernorm, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  return 0;
}

/* What the layers of a BERT keep. */
static void place_layers(sw_arena *a, const sw_model *model, int64_t tokens, int batch, int training, sw_run *run, sw_layer_state *layers) {
  const sw_model_config *c = &model->config;
  const size_t e = sw_dtype_bytes(model->dtype);
  const int64_t th = tokens * c->hidden_size, tu = tokens * c->intermediate_size;
  run->x0 = sw_arena_take(a, th, e);
  for (int i = 0; i < c->num_layers; i++) {
    sw_layer_state *l = &layers[i];
    if (!training && i) {
      *l = layers[0];
      continue;
    }
    l->qkv = sw_arena_take(a, 3 * th, e);
    l->context = sw_arena_take(a, th, e);
    l->z1 = sw_arena_take(a, th, e);
    l->y1 = sw_arena_take(a, th, e);
    l->up = sw_arena_take(a, tu, e);
    l->z2 = sw_arena_take(a, th, e);
    l->y2 = training ? sw_arena_take(a, th, e) : run->x0; /* inference: a layer's output replaces its input */
    if (!training) continue;
    l->pre = sw_arena_take(a, tu, e);
    l->lse = sw_arena_take(a, tokens * c->num_heads, 4);
    l->mean1 = sw_arena_take(a, tokens, 4);
    l->rstd1 = sw_arena_take(a, tokens, 4);
    l->mean2 = sw_arena_take(a, tokens, 4);
    l->rstd2 = sw_arena_take(a, tokens, 4);
  }
  if (!training) return;
  run->z0 = sw_arena_take(a, th, e);
  run->mean0 = sw_arena_take(a, tokens, 4);
  run->rstd0 = sw_arena_take(a, tokens, 4);
  run->head_buffer = sw_arena_take(a, th, e);
  run->d_hidden = sw_arena_take(a, th, e);
  run->d_up = sw_arena_take(a, tu, e);
  run->d_qkv = sw_arena_take(a, 3 * th, e);
  run->d_context = sw_arena_take(a, th, e);
}

static int place(sw_stream *stream, const sw_model *model, int64_t tokens, int batch, int training, char *base, sw_run *run,
                 sw_layer_state *layers, size_t *total) {
  const sw_model_config *c = &model->config;
  const size_t e = sw_dtype_bytes(model->dtype);
  const int64_t th = tokens * c->hidden_size, bh = (int64_t)batch * c->hidden_size;
  const int64_t token_logits = tokens * sw_model_most_labels(model, 0), pooled_logits = (int64_t)batch * sw_model_most_labels(model, 1);
  sw_arena a = {.base = base};
  size_t scratch;
  if (workspace_bytes(stream, model, tokens, batch, &scratch)) return -1;
  run->ids = sw_arena_take(&a, tokens, 4);
  run->positions = sw_arena_take(&a, tokens, 4);
  run->cu_seqlens = sw_arena_take(&a, batch + 1, 4);
  run->logits = sw_arena_take(&a, token_logits > pooled_logits ? token_logits : pooled_logits, 4);
  run->pooled = sw_arena_take(&a, bh, 4);
  run->workspace = sw_arena_take(&a, (int64_t)scratch, 1);
  if (model->gru)
    sw_gru_place(&a, model, tokens, batch, training, run);
  else
    place_layers(&a, model, tokens, batch, training, run, layers);
  if (training) {
    run->d_state = sw_arena_take(&a, th, e);
    run->labels = sw_arena_take(&a, tokens * (int64_t)model->num_heads, 4);
    run->row_weights = sw_arena_take(&a, tokens * (int64_t)model->num_heads, 4);
    run->losses = sw_arena_take(&a, (int64_t)model->num_heads + 1, 8);
    if (model->mlm) sw_mlm_place(model, tokens, &a, &run->mlm);
    if (pooled_logits) {
      run->vector_buffer = sw_arena_take(&a, bh, e);
      run->d_vectors = sw_arena_take(&a, bh, e);
      run->d_pooled = sw_arena_take(&a, bh, 4);
      run->targets = sw_arena_take(&a, (int64_t)model->num_heads * pooled_logits, 4);
      run->target_weights = sw_arena_take(&a, (int64_t)model->num_heads * pooled_logits, 4);
    }
    run->sorted = sw_arena_take(&a, tokens, 4);
    run->segments = sw_arena_take(&a, tokens + 1, 4);
  }
  *total = a.used;
  return 0;
}

static int check_sizes(const sw_model *model, int64_t max_tokens, int max_batch, int training) {
  if (training && !model->training) return sw_fail("the model was not opened for training");
  if (max_tokens < 1 || max_tokens > 1 << 24 || max_batch < 1 || max_batch > 1 << 24)
    return sw_fail("a run of %lld tokens and %d sequences is out of range", (long long)max_tokens, max_batch);
  return 0;
}

int sw_run_bytes(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, int training, size_t *bytes) {
  if (check_sizes(model, max_tokens, max_batch, training)) return -1;
  sw_run run = {0};
  sw_layer_state *layers = sw_alloc_array((size_t)model->config.num_layers, sizeof *layers);
  if (!layers) return -1;
  int status = place(stream, model, max_tokens, max_batch, training, NULL, &run, layers, bytes);
  free(layers);
  return status;
}

static int open_run(sw_run *run) {
  const sw_model *model = run->model;
  size_t bytes, n = (size_t)run->max_tokens;
  run->layers = sw_alloc_array((size_t)model->config.num_layers, sizeof *run->layers);
  run->host_positions = sw_alloc_array(n, sizeof(int32_t));
  run->gru.host_last = sw_alloc_array((size_t)run->max_batch, sizeof(int32_t));
  run->gru.host_cu_seqlens = sw_alloc_array((size_t)run->max_batch + 1, sizeof(int32_t));
  if (!run->layers || !run->host_positions || !run->gru.host_last || !run->gru.host_cu_seqlens) return -1;
  if (run->training) {
    run->sort_keys = sw_alloc_array(n, sizeof(uint64_t));
    run->host_sorted = sw_alloc_array(n, sizeof(int32_t));
    run->host_segments = sw_alloc_array(n + 1, sizeof(int32_t));
    if (!run->sort_keys || !run->host_sorted || !run->host_segments) return -1;
  }
  if (sw_run_bytes(&run->stream, model, run->max_tokens, run->max_batch, run->training, &bytes)) return -1;
  if (!(run->arena = model->device->alloc(model->device, bytes))) return -1;
  if (place(&run->stream, model, run->max_tokens, run->max_batch, run->training, run->arena, run, run->layers, &bytes)) return -1;
  return run->training ? model->device->zero(&run->stream, run->losses, (model->num_heads + 1) * sizeof(double)) : 0;
}

int sw_run_open(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, int training, sw_run **out) {
  *out = NULL;
  if (check_sizes(model, max_tokens, max_batch, training)) return -1;
  sw_run *run = sw_alloc(sizeof *run);
  if (!run) return -1;
  run->stream = *stream;
  run->model = model;
  run->max_tokens = max_tokens;
  run->max_batch = max_batch;
  run->training = training;
  if (open_run(run)) {
    sw_run_close(run);
    return -1;
  }
  *out = run;
  return 0;
}

void sw_run_close(sw_run *run) {
  if (!run) return;
  if (run->arena) run->model->device->release(run->model->device, run->arena);
  free(run->layers);
  free(run->host_positions);
  free(run->gru.host_last);
  free(run->gru.host_cu_seqlens);
  free(run->sort_keys);
  free(run->host_sorted);
  free(run->host_segments);
  free(run);
}

void sw_run_set_dropout(sw_run *run, int enabled, uint64_t seed, uint32_t step) {
  run->dropout_enabled = enabled;
  run->seed = seed;
  run->step = step;
  run->first_token = run->first_sequence = 0;
}
void sw_run_set_place(sw_run *run, int64_t first_token, int64_t first_sequence) {
  run->first_token = (uint64_t)first_token;
  run->first_sequence = (uint64_t)first_sequence;
}

/* --- forward --- */
static int accept_batch(sw_run *run, const sw_batch *batch) {
  const sw_model_config *c = &run->model->config;
  if (batch->tokens > run->max_tokens || batch->batch > run->max_batch || batch->batch < 1)
    return sw_fail("a batch of %lld tokens in %d sequences does not fit a run of %lld tokens and %d sequences", (long long)batch->tokens,
                   batch->batch, (long long)run->max_tokens, run->max_batch);
  if (batch->cu_seqlens[0] != 0 || batch->cu_seqlens[batch->batch] != batch->tokens) return sw_fail("cu_seqlens do not cover the batch");
  for (int s = 0; s < batch->batch; s++) {
    int length = batch->cu_seqlens[s + 1] - batch->cu_seqlens[s];
    if (length < 0 || length > c->max_positions)
      return sw_fail("a sequence of %d tokens; the model takes at most %d", length, c->max_positions);
    for (int i = 0; i < length; i++) run->host_positions[batch->cu_seqlens[s] + i] = i;
  }
  for (int64_t i = 0; i < batch->tokens; i++)
    if (batch->ids[i] < 0 || batch->ids[i] >= c->vocab_size)
      return sw_fail("token id %d is outside the model's vocabulary of %d", batch->ids[i], c->vocab_size);
  run->tokens = batch->tokens;
  run->batch = batch->batch;
  run->max_seqlen = batch->max_seqlen;
  sw_device *device = run->model->device;
  size_t bytes = (size_t)batch->tokens * 4;
  if (run->training) { /* distinct ids in increasing order, the tokens of each in order */
    for (int64_t i = 0; i < batch->tokens; i++) run->sort_keys[i] = (uint64_t)(uint32_t)batch->ids[i] << 32 | (uint64_t)i;
  }
  return device->copy_in(&run->stream, run->ids, batch->ids, bytes) ||
                 device->copy_in(&run->stream, run->positions, run->host_positions, bytes) ||
                 device->copy_in(&run->stream, run->cu_seqlens, batch->cu_seqlens, (size_t)(batch->batch + 1) * 4)
             ? -1
             : 0;
}

static sw_embedding_desc embedding_desc(const sw_run *run) {
  sw_embedding_desc desc = embedding_shape(run->model, run->tokens);
  desc.dropout = sw_run_dropout(run, run->model->config.hidden_dropout, SITE_EMBEDDING);
  return desc;
}

static sw_attention_desc attention_desc(const sw_run *run, int layer) {
  sw_attention_desc desc = attention_shape(run->model, run->batch, run->tokens, run->max_seqlen);
  desc.dropout = sw_run_dropout(run, run->model->config.attention_dropout, SITE_LAYERS + 3 * (uint32_t)layer);
  desc.dropout.first = run->first_token * (uint64_t)run->model->config.num_heads << 10;
  return desc;
}

static sw_layernorm_desc layernorm_desc(const sw_run *run, int layer, int second) {
  sw_layernorm_desc desc = layernorm_shape(run->model, run->tokens);
  desc.dropout = sw_run_dropout(run, run->model->config.hidden_dropout, SITE_LAYERS + 3 * (uint32_t)layer + 1 + (uint32_t)second);
  return desc;
}

/* y = activation(x W^T + b) with product `k` of a layer */
static int multiply(sw_run *run, const sw_model_layer *layer, int k, const void *x, void *pre, void *y) {
  sw_linear_desc desc = sw_model_product_desc(run->model, layer, k, run->tokens);
  return SW_RUN(&run->stream, linear_forward, &desc, x, layer->product[k].prepared, run->model->values + layer->product[k].bias, pre, y,
                run->workspace);
}

static int forward_layer(sw_run *run, int i, const void *x) {
  const sw_model_layer *layer = &run->model->layers[i];
  const float *v = run->model->values;
  sw_layer_state *s = &run->layers[i];
  sw_attention_desc attention = attention_desc(run, i);
  sw_layernorm_desc norm1 = layernorm_desc(run, i, 0), norm2 = layernorm_desc(run, i, 1);
  void *pre = layer->product[SW_UP].activation == SW_NO_ACTIVATION ? NULL : s->pre;
  return multiply(run, layer, SW_QKV, x, NULL, s->qkv) ||
                 SW_RUN(&run->stream, attention_forward, &attention, run->cu_seqlens, s->qkv, s->context, s->lse, run->workspace) ||
                 multiply(run, layer, SW_OUTPUT, s->context, NULL, s->z1) ||
                 SW_RUN(&run->stream, layernorm_forward, &norm1, s->z1, x, v + layer->norm1_gamma, v + layer->norm1_beta, s->y1, s->mean1,
                        s->rstd1) ||
                 multiply(run, layer, SW_UP, s->y1, pre, s->up) || multiply(run, layer, SW_DOWN, s->up, NULL, s->z2) ||
                 SW_RUN(&run->stream, layernorm_forward, &norm2, s->z2, s->y1, v + layer->norm2_gamma, v + layer->norm2_beta, s->y2,
                        s->mean2, s->rstd2)
             ? -1
             : 0;
}

static int forward(sw_run *run, const sw_batch *batch, const void **states) {
  const sw_model *model = run->model;
  if (accept_batch(run, batch)) return -1;
  if (model->gru) {
    if (states) *states = run->gru.y;
    return sw_gru_forward(run, batch->cu_seqlens);
  }
  const sw_model_embedding at = sw_model_embedding_of(model);
  const float *v = model->values;
  sw_embedding_desc embedding = embedding_desc(run);
  if (SW_RUN(&run->stream, embedding_forward, &embedding, run->ids, run->positions, NULL, v + at.word, v + at.position,
             at.type == SIZE_MAX ? NULL : v + at.type, v + at.gamma, v + at.beta, run->z0, run->x0, run->mean0, run->rstd0))
    return -1;
  const void *x = run->x0;
  for (int i = 0; i < model->config.num_layers; i++) {
    if (forward_layer(run, i, x)) return -1;
    x = run->layers[i].y2;
  }
  run->head_input = run->vector_input = NULL;
  run->head_dropout_ran = 0;
  if (states) *states = x;
  return 0;
}

int sw_run_forward(sw_run *run, const sw_batch *batch, const void **states) {
  return sw_collect(&run->stream) ? -1 : sw_submit(&run->stream, forward(run, batch, states));
}

const void *sw_run_states(const sw_run *run) {
  return run->model->gru ? run->gru.y : run->layers[run->model->config.num_layers - 1].y2;
}

static int forward_and_pool(sw_run *run, const sw_batch *batch) {
  const sw_model_config *c = &run->model->config;
  const void *states;
  if (run->model->gru) return sw_fail("a GRU gives no vectors of texts");
  if (forward(run, batch, &states)) return -1;
  sw_pool_desc pool = {.batch = run->batch, .total_tokens = run->tokens, .hidden = c->hidden_size, .pooling = c->pooling,
                       .normalize = c->normalize, .dtype = run->model->dtype};
  return SW_RUN(&run->stream, pool_forward, &pool, run->cu_seqlens, states, run->pooled, NULL);
}

int sw_run_embed(sw_run *run, const sw_batch *batch, float *out) {
  const size_t hidden = (size_t)run->model->config.hidden_size;
  if (sw_collect(&run->stream) || sw_submit(&run->stream, forward_and_pool(run, batch)) ||
      run->model->device->copy_out(&run->stream, out, run->pooled, (size_t)run->batch * hidden * sizeof(float)))
    return -1;
  return run->model->device->synchronize(&run->stream);
}

int sw_run_head_logits(sw_run *run, const sw_model_head *head, int64_t rows, const void *x) {
  sw_linear_desc desc = sw_model_head_desc(run->model, head, rows);
  return SW_RUN(&run->stream, linear_forward, &desc, x, head->prepared, run->model->values + run->model->parameters[head->bias].offset, NULL,
                run->logits, run->workspace);
}

static int logits_out(sw_run *run, const sw_model_head *head, int64_t rows, float *out) {
  if (run->model->device->copy_out(&run->stream, out, run->logits, (size_t)rows * (size_t)head->num_labels * sizeof(float))) return -1;
  return run->model->device->synchronize(&run->stream);
}

static int log_probs_out(sw_run *run, const sw_model_head *head, int64_t rows, float *out) {
  sw_loss_desc desc = {.rows = rows, .classes = head->num_labels};
  return SW_RUN(&run->stream, log_softmax, &desc, run->logits, run->logits) ? -1 : logits_out(run, head, rows, out);
}

int sw_run_token_log_probs(sw_run *run, size_t h, float *out) {
  const sw_model_head *head = &run->model->heads[h];
  return sw_run_head_logits(run, head, run->tokens, sw_run_states(run)) ? -1 : log_probs_out(run, head, run->tokens, out);
}

/* Of the vectors of the last sw_run_embed. */
static int vector_logits(sw_run *run, const sw_model_head *head) {
  void *x = run->pooled;
  if (!sw_model_head_is_pooled(head)) return sw_fail("head '%s' is one of tokens", head->name);
  if (run->model->dtype == SW_BF16) { /* the states are pooled and needed no more */
    x = run->x0;
    if (SW_RUN(&run->stream, cast, (int64_t)run->batch * run->model->config.hidden_size, SW_F32, run->pooled, SW_BF16, x)) return -1;
  }
  return sw_run_head_logits(run, head, run->batch, x);
}

int sw_run_sequence_log_probs(sw_run *run, size_t h, float *out) {
  const sw_model_head *head = &run->model->heads[h];
  return vector_logits(run, head) ? -1 : log_probs_out(run, head, run->batch, out);
}

int sw_run_label_logits(sw_run *run, size_t h, float *out) {
  const sw_model_head *head = &run->model->heads[h];
  const int failed = run->model->gru ? sw_run_head_logits(run, head, run->batch, run->gru.last_state) : vector_logits(run, head);
  return failed ? -1 : logits_out(run, head, run->batch, out);
}

/* --- backward --- */
void *sw_run_state_gradient(sw_run *run) { return run->d_state; }

int sw_run_token_loss(sw_run *run, size_t h, const int32_t *labels, const float *row_weights, float scale, int first,
                      sw_gradients *gradients) {
  const sw_model *model = run->model;
  const sw_model_head *head = &model->heads[h];
  const size_t weight = model->parameters[head->weight].offset, bias = model->parameters[head->bias].offset;
  if (!run->head_input) {
    run->head_input = (void *)sw_run_states(run);
    sw_dropout dropout = sw_run_dropout(run, model->config.hidden_dropout, SITE_HEAD);
    if (dropout.p > 0) {
      sw_dropout_desc desc = {.count = run->tokens * model->config.hidden_size, .dtype = model->dtype, .dropout = dropout};
      if (SW_RUN(&run->stream, dropout, &desc, run->head_input, run->head_buffer)) return -1;
      run->head_input = run->head_buffer;
      run->head_dropout_ran = 1;
    }
  }
  for (int64_t i = 0; i < run->tokens; i++)
    if (labels[i] != SW_IGNORE && (labels[i] < 0 || labels[i] >= head->num_labels))
      return sw_fail("token %lld has label %d; head '%s' has %d", (long long)i, labels[i], head->name, head->num_labels);
  int32_t *device_labels = run->labels + (int64_t)h * run->max_tokens;
  float *device_weights = row_weights ? run->row_weights + (int64_t)h * run->max_tokens : NULL;
  if (model->device->copy_in(&run->stream, device_labels, labels, (size_t)run->tokens * 4)) return -1;
  if (row_weights && model->device->copy_in(&run->stream, device_weights, row_weights, (size_t)run->tokens * 4)) return -1;
  sw_loss_desc desc = {.rows = run->tokens, .classes = head->num_labels, .ignore = SW_IGNORE, .scale = scale};
  sw_linear_desc linear = sw_model_head_desc(model, head, run->tokens);
  return sw_run_head_logits(run, head, run->tokens, run->head_input) ||
                 SW_RUN(&run->stream, cross_entropy, &desc, run->logits, device_labels, NULL, device_weights, run->losses + h,
                        run->logits, run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_weight, &linear, run->logits, run->head_input, gradients->values + weight,
                        gradients->values + bias, run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_input, &linear, run->logits, NULL, head->prepared, run->d_state, !first, run->workspace)
             ? -1
             : 0;
}


int sw_run_losses(sw_run *run, double *sums) {
  sw_device *device = run->model->device;
  const size_t bytes = (run->model->num_heads + 1) * sizeof(double);
  return device->copy_out(&run->stream, sums, run->losses, bytes) || device->zero(&run->stream, run->losses, bytes) ? -1 : 0;
}

/* From g (gradient of the product's output) to the gradients of its parameters. */
static int weight_gradient(sw_run *run, const sw_model_layer *layer, int k, const void *g, const void *x, float *gradients) {
  sw_linear_desc desc = sw_model_product_desc(run->model, layer, k, run->tokens);
  return SW_RUN(&run->stream, linear_backward_weight, &desc, g, x, gradients + layer->product[k].weight, gradients + layer->product[k].bias,
                run->workspace);
}
static int input_gradient(sw_run *run, const sw_model_layer *layer, int k, void *dy, const void *pre, void *dx, int accumulate) {
  sw_linear_desc desc = sw_model_product_desc(run->model, layer, k, run->tokens);
  return SW_RUN(&run->stream, linear_backward_input, &desc, dy, pre, layer->product[k].prepared, dx, accumulate, run->workspace);
}

/* d_state: gradient of the layer's output on entry, of its input x on return. */
static int backward_layer(sw_run *run, int i, const void *x, float *g) {
  const sw_model_layer *layer = &run->model->layers[i];
  const float *v = run->model->values;
  sw_layer_state *s = &run->layers[i];
  sw_attention_desc attention = attention_desc(run, i);
  sw_layernorm_desc norm1 = layernorm_desc(run, i, 0), norm2 = layernorm_desc(run, i, 1);
  /* without dropout the gradient of the branch is that of the residual; it must stay apart, because d_state is added to below */
  void *d = run->d_state, *branch = run->d_hidden;
  void *pre = layer->product[SW_UP].activation == SW_NO_ACTIVATION ? NULL : s->pre;
  return SW_RUN(&run->stream, layernorm_backward, &norm2, d, s->z2, v + layer->norm2_gamma, s->mean2, s->rstd2, d, branch,
                g + layer->norm2_gamma, g + layer->norm2_beta, run->workspace) ||
                 weight_gradient(run, layer, SW_DOWN, branch, s->up, g) ||
                 input_gradient(run, layer, SW_DOWN, branch, NULL, run->d_up, 0) ||
                 input_gradient(run, layer, SW_UP, run->d_up, pre, d, 1) || weight_gradient(run, layer, SW_UP, run->d_up, s->y1, g) ||
                 SW_RUN(&run->stream, layernorm_backward, &norm1, d, s->z1, v + layer->norm1_gamma, s->mean1, s->rstd1, d, branch,
                        g + layer->norm1_gamma, g + layer->norm1_beta, run->workspace) ||
                 weight_gradient(run, layer, SW_OUTPUT, branch, s->context, g) ||
                 input_gradient(run, layer, SW_OUTPUT, branch, NULL, run->d_context, 0) ||
                 SW_RUN(&run->stream, attention_backward, &attention, run->cu_seqlens, s->qkv, s->context, s->lse, run->d_context,
                        run->d_qkv, run->workspace) ||
                 weight_gradient(run, layer, SW_QKV, run->d_qkv, x, g) || input_gradient(run, layer, SW_QKV, run->d_qkv, NULL, d, 1)
             ? -1
             : 0;
}

static int by_key(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

int sw_run_sort_ids(sw_run *run, sw_gradients *gradients) {
  sw_device *device = run->model->device;
  qsort(run->sort_keys, (size_t)run->tokens, sizeof *run->sort_keys, by_key);
  int64_t unique = 0;
  for (int64_t i = 0; i < run->tokens; i++) {
    int32_t id = (int32_t)(run->sort_keys[i] >> 32);
    run->host_sorted[i] = (int32_t)(uint32_t)run->sort_keys[i];
    if (i == 0 || id != gradients->word_ids[unique - 1]) {
      run->host_segments[unique] = (int32_t)i;
      gradients->word_ids[unique++] = id;
    }
  }
  run->host_segments[unique] = (int32_t)run->tokens;
  gradients->unique = unique;
  return device->copy_in(&run->stream, run->sorted, run->host_sorted, (size_t)run->tokens * 4) ||
                 device->copy_in(&run->stream, run->segments, run->host_segments, (size_t)(unique + 1) * 4)
             ? -1
             : 0;
}

int sw_run_backward(sw_run *run, sw_gradients *gradients) {
  const sw_model *model = run->model;
  float *g = gradients->values;
  if (!run->training) return sw_fail("this run was not opened for training");
  if (model->gru) return sw_gru_backward(run, gradients);
  const sw_model_embedding at = sw_model_embedding_of(model);
  if (run->head_dropout_ran) {
    sw_dropout_desc desc = {.count = run->tokens * model->config.hidden_size, .dtype = model->dtype,
                            .dropout = sw_run_dropout(run, model->config.hidden_dropout, SITE_HEAD)};
    if (SW_RUN(&run->stream, dropout, &desc, run->d_state, run->d_state)) return -1;
  }
  for (int i = model->config.num_layers - 1; i >= 0; i--) {
    if (backward_layer(run, i, i ? run->layers[i - 1].y2 : run->x0, g)) return -1;
    if (gradients->done && gradients->done(gradients->context, model->layers[i].product[SW_QKV].weight)) return -1;
  }
  if (sw_run_sort_ids(run, gradients)) return -1;
  sw_embedding_desc desc = embedding_desc(run);
  return SW_RUN(&run->stream, embedding_backward, &desc, run->positions, NULL, run->d_state, run->z0, model->values + at.gamma, run->mean0,
                run->rstd0, run->sorted, run->segments, gradients->unique, gradients->word_rows, g + at.position,
                at.type == SIZE_MAX ? NULL : g + at.type, g + at.gamma, g + at.beta, run->workspace);
}
