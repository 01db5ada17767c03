/* Losses over one vector a sequence. */
#include "base/error.h"
#include "engine/data/labels.h"
#include "engine/model/internal.h"

#include <stdlib.h>
#include <string.h>

struct sw_pair_vectors {
  sw_device *device;
  int hidden;
  int64_t max_queries, max_candidates;
  float *values, *norms, *gradients; /* device: a row a text, as they were fed */
  float *sides, *d_sides;            /* device: the rows of a loss and their gradients, its queries before its candidates */
  int32_t *rows, *positive;          /* device */
  void *workspace;
};

/* The one thing that the loss and its scratch are described by. */
static sw_contrastive_desc contrastive_desc(const sw_pair_vectors *v, int64_t queries, int64_t candidates) {
  return (sw_contrastive_desc){.rows = queries, .candidates = candidates, .hidden = v->hidden};
}

int sw_pair_vectors_open(sw_stream *stream, const sw_model *model, int64_t max_queries, int64_t max_candidates, sw_pair_vectors **out) {
  *out = NULL;
  sw_device *device = stream->device;
  sw_pair_vectors *v = sw_alloc(sizeof *v);
  if (!v) return -1;
  *v = (sw_pair_vectors){.device = device, .hidden = model->config.hidden_size, .max_queries = max_queries, .max_candidates = max_candidates};
  const size_t rows = (size_t)(max_queries + max_candidates), bytes = rows * (size_t)v->hidden * sizeof(float);
  sw_contrastive_desc desc = contrastive_desc(v, max_queries, max_candidates);
  size_t scratch;
  if (SW_RUN(stream, contrastive_workspace, &desc, &scratch) || !(v->values = device->alloc(device, bytes)) ||
      !(v->gradients = device->alloc(device, bytes)) || !(v->sides = device->alloc(device, bytes)) || !(v->d_sides = device->alloc(device, bytes)) ||
      !(v->norms = device->alloc(device, rows * sizeof(float))) || !(v->rows = device->alloc(device, rows * sizeof *v->rows)) ||
      !(v->positive = device->alloc(device, (size_t)max_queries * sizeof(int32_t))) || !(v->workspace = device->alloc(device, scratch))) {
    sw_pair_vectors_close(v);
    return -1;
  }
  *out = v;
  return 0;
}

void sw_pair_vectors_close(sw_pair_vectors *v) {
  if (!v) return;
  void *const owned[] = {v->values, v->gradients, v->sides, v->d_sides, v->norms, v->rows, v->positive, v->workspace};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) v->device->release(v->device, owned[i]);
  free(v);
}

static size_t bytes_of(const sw_pair_vectors *v, int64_t rows) { return (size_t)(rows * v->hidden) * sizeof(float); }

int sw_pair_vectors_clear(sw_stream *stream, sw_pair_vectors *v) {
  return v->device->zero(stream, v->values, bytes_of(v, v->max_queries + v->max_candidates));
}

int sw_pair_vectors_read(sw_stream *stream, const sw_pair_vectors *v, int64_t rows, float *out) {
  return v->device->copy_out(stream, out, v->values, bytes_of(v, rows)) || v->device->synchronize(stream) ? -1 : 0;
}

int sw_pair_vectors_write(sw_stream *stream, sw_pair_vectors *v, int64_t rows, const float *values) {
  return v->device->copy_in(stream, v->values, values, bytes_of(v, rows)) || v->device->synchronize(stream) ? -1 : 0;
}

static sw_pool_desc pool_desc(const sw_run *run) {
  const sw_model_config *c = &run->model->config;
  return (sw_pool_desc){.batch = run->batch, .total_tokens = run->tokens, .hidden = c->hidden_size, .pooling = c->pooling, .dtype = run->model->dtype};
}

static int check_rows(const sw_run *run, const sw_pair_vectors *v, int64_t first) {
  const int64_t room = v->max_queries + v->max_candidates;
  if (!run->training) return sw_fail("this run was not opened for training");
  if (first < 0 || first + run->batch > room)
    return sw_fail("%d vectors from row %lld on do not fit %lld", run->batch, (long long)first, (long long)room);
  return 0;
}

int sw_run_pool_pairs(sw_run *run, sw_pair_vectors *v, int64_t first) {
  sw_pool_desc desc = pool_desc(run);
  desc.normalize = 1;
  return check_rows(run, v, first) || SW_RUN(&run->stream, pool_forward, &desc, run->cu_seqlens, sw_run_states(run), v->values + first * v->hidden, v->norms + first)
             ? -1
             : 0;
}

int sw_run_contrastive_loss(sw_run *run, sw_pair_vectors *v, int64_t queries, int64_t candidates, const int32_t *rows, const int32_t *positive,
                            float similarity_scale, float scale) {
  const int64_t all = queries + candidates, behind = queries * v->hidden;
  if (queries < 1 || queries > v->max_queries || candidates < 1 || candidates > v->max_candidates)
    return sw_fail("%lld queries and %lld candidates do not fit %lld and %lld vectors", (long long)queries, (long long)candidates,
                   (long long)v->max_queries, (long long)v->max_candidates);
  for (int64_t i = 0; i < queries; i++)
    if (positive[i] < 0 || positive[i] >= candidates)
      return sw_fail("query %lld has positive %d; there are %lld candidates", (long long)i, positive[i], (long long)candidates);
  sw_contrastive_desc desc = contrastive_desc(v, queries, candidates);
  desc.similarity_scale = similarity_scale;
  desc.scale = scale;
  const sw_gather_desc sides = {.tokens = all, .rows = all, .hidden = v->hidden, .dtype = SW_F32};
  return v->device->copy_in(&run->stream, v->rows, rows, (size_t)all * sizeof *rows) ||
                 v->device->copy_in(&run->stream, v->positive, positive, (size_t)queries * sizeof *positive) ||
                 SW_RUN(&run->stream, gather_forward, &sides, v->rows, v->values, v->sides) ||
                 SW_RUN(&run->stream, contrastive, &desc, v->sides, v->sides + behind, v->positive, NULL,
                        run->losses + run->model->num_heads, v->d_sides, v->d_sides + behind, v->workspace) ||
                 SW_RUN(&run->stream, gather_backward, &sides, v->rows, v->d_sides, v->gradients)
             ? -1
             : 0;
}

int sw_run_unpool_pairs(sw_run *run, const sw_pair_vectors *v, int64_t first) {
  sw_pool_desc desc = pool_desc(run);
  desc.normalize = 1;
  return check_rows(run, v, first) || SW_RUN(&run->stream, pool_backward, &desc, run->cu_seqlens, sw_run_states(run), v->values + first * v->hidden, v->norms + first,
                                             v->gradients + first * v->hidden, run->d_state)
             ? -1
             : 0;
}

/* --- heads --- */

/* In fp32, also where the model computes in bf16. */
static int vector_dropout(sw_run *run, const float *x, float *y) {
  sw_dropout_desc desc = {.count = (int64_t)run->batch * run->model->config.hidden_size, .dtype = SW_F32,
                          .dropout = sw_run_dropout(run, run->model->config.hidden_dropout, SITE_HEAD)};
  desc.dropout.first = run->first_sequence * (uint64_t)run->model->config.hidden_size;
  return SW_RUN(&run->stream, dropout, &desc, x, y);
}

/* What the heads read: pooled vectors, dropped out, in the model's dtype. */
static int pool_for_heads(sw_run *run) {
  const sw_pool_desc pool = pool_desc(run);
  const int half = run->model->dtype == SW_BF16, dropped = sw_run_dropout(run, run->model->config.hidden_dropout, SITE_HEAD).p > 0;
  float *vectors = !dropped ? run->pooled : half ? run->d_pooled : run->vector_buffer;
  if (SW_RUN(&run->stream, pool_forward, &pool, run->cu_seqlens, sw_run_states(run), run->pooled, NULL) ||
      (dropped && vector_dropout(run, run->pooled, vectors)) ||
      (half && SW_RUN(&run->stream, cast, (int64_t)run->batch * pool.hidden, SW_F32, vectors, SW_BF16, run->vector_buffer)))
    return -1;
  run->vector_input = half ? run->vector_buffer : vectors;
  return 0;
}

/* From the gradient of what the heads read, so far, to that of the states. */
static int unpool_for_heads(sw_run *run) {
  const sw_pool_desc pool = pool_desc(run);
  const float *gradient = run->d_vectors;
  if (run->model->dtype == SW_BF16) {
    if (SW_RUN(&run->stream, cast, (int64_t)run->batch * pool.hidden, SW_BF16, run->d_vectors, SW_F32, run->d_pooled)) return -1;
    gradient = run->d_pooled;
  }
  if (sw_run_dropout(run, run->model->config.hidden_dropout, SITE_HEAD).p > 0) {
    if (vector_dropout(run, gradient, run->d_pooled)) return -1;
    gradient = run->d_pooled;
  }
  return SW_RUN(&run->stream, pool_backward, &pool, run->cu_seqlens, sw_run_states(run), run->pooled, NULL, gradient, run->d_state);
}

int sw_run_sequence_loss(sw_run *run, size_t h, const int32_t *labels, const float *targets, const float *weights, float scale, int first,
                         sw_gradients *gradients) {
  const sw_model *model = run->model;
  const sw_model_head *head = &model->heads[h];
  const int multilabel = !strcmp(head->task, "multilabel");
  const size_t rows = (size_t)run->batch, weight = model->parameters[head->weight].offset, bias = model->parameters[head->bias].offset;
  if (!sw_model_head_is_pooled(head)) return sw_fail("head '%s' is one of tokens", head->name);
  if (!(multilabel ? targets : (const void *)labels)) return sw_fail("head '%s': there are no %s", head->name, multilabel ? "targets" : "labels");
  if (run->batch > run->max_tokens) return sw_fail("%d sequences in a run of %lld tokens", run->batch, (long long)run->max_tokens);
  for (size_t i = 0; i < rows && !multilabel; i++)
    if (labels[i] != SW_IGNORE && (labels[i] < 0 || labels[i] >= head->num_labels))
      return sw_fail("sequence %zu has label %d; head '%s' has %d", i, labels[i], head->name, head->num_labels);
  int32_t *device_labels = run->labels + (int64_t)h * run->max_tokens;
  const int64_t place = (int64_t)h * run->max_batch * sw_model_most_labels(model, 1);
  float *device_targets = run->targets + place;
  float *device_weights = !weights ? NULL : multilabel ? run->target_weights + place : run->row_weights + (int64_t)h * run->max_tokens;
  const size_t outputs = rows * (multilabel ? (size_t)head->num_labels : 1);
  if ((!run->vector_input && pool_for_heads(run)) || (weights && model->device->copy_in(&run->stream, device_weights, weights, outputs * 4)) ||
      model->device->copy_in(&run->stream, multilabel ? (void *)device_targets : device_labels, multilabel ? (const void *)targets : labels, outputs * 4))
    return -1;
  sw_loss_desc desc = {.rows = run->batch, .classes = head->num_labels, .ignore = SW_IGNORE, .scale = scale};
  if (multilabel && weights) desc.rows *= desc.classes, desc.classes = 1; /* the operator's weights are of rows: each output is one */
  const sw_linear_desc linear = sw_model_head_desc(model, head, run->batch);
  return sw_run_head_logits(run, head, run->batch, run->vector_input) ||
                 (multilabel ? SW_RUN(&run->stream, sigmoid_bce, &desc, run->logits, device_targets, device_weights, run->losses + h, run->logits,
                                      run->workspace)
                             : SW_RUN(&run->stream, cross_entropy, &desc, run->logits, device_labels, NULL, device_weights, run->losses + h,
                                      run->logits, run->workspace)) ||
                 SW_RUN(&run->stream, linear_backward_weight, &linear, run->logits, run->vector_input, gradients->values + weight,
                        gradients->values + bias, run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_input, &linear, run->logits, NULL, head->prepared, run->d_vectors, !first, run->workspace) ||
                 unpool_for_heads(run)
             ? -1
             : 0;
}
