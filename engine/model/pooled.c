/* Losses over one vector a sequence. */
#include "base/error.h"
#include "engine/model/internal.h"

#include <stdlib.h>

struct sw_pair_vectors {
  sw_device *device;
  int hidden;
  int64_t max_queries, max_candidates;
  float *values, *norms, *gradients; /* device; those of the candidates behind those of all max_queries queries */
  int32_t *positive;                 /* device [max_queries] */
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
      !(v->gradients = device->alloc(device, bytes)) || !(v->norms = device->alloc(device, rows * sizeof(float))) ||
      !(v->positive = device->alloc(device, (size_t)max_queries * sizeof(int32_t))) || !(v->workspace = device->alloc(device, scratch))) {
    sw_pair_vectors_close(v);
    return -1;
  }
  *out = v;
  return 0;
}

void sw_pair_vectors_close(sw_pair_vectors *v) {
  if (!v) return;
  void *const owned[] = {v->values, v->gradients, v->norms, v->positive, v->workspace};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) v->device->release(v->device, owned[i]);
  free(v);
}

int sw_run_forward_pairs(sw_run *run, const sw_batch *batch, int queries) {
  if (!run->training) return sw_fail("this run was not opened for training");
  if (queries < 0 || queries > batch->batch) return sw_fail("%d queries in a batch of %d sequences", queries, batch->batch);
  if (sw_run_forward(run, batch, NULL)) return -1;
  run->queries = queries;
  for (int i = queries; i <= batch->batch; i++) run->host_candidate_starts[i - queries] = batch->cu_seqlens[i] - batch->cu_seqlens[queries];
  run->candidate_token = batch->cu_seqlens[queries];
  return run->model->device->copy_in(&run->stream, run->candidate_starts, run->host_candidate_starts,
                                     (size_t)(batch->batch - queries + 1) * sizeof(int32_t));
}

/* One side of the last forward, and where its vectors are. */
typedef struct {
  sw_pool_desc desc;
  const int32_t *cu_seqlens;
  size_t states; /* bytes before its states, or their gradients */
  int64_t row;   /* of its first vector */
} side;
static side side_of(const sw_run *run, const sw_pair_vectors *v, int candidates, int64_t first) {
  const sw_model_config *c = &run->model->config;
  const int64_t begin = candidates ? run->candidate_token : 0, end = candidates ? run->tokens : run->candidate_token;
  return (side){.desc = {.batch = candidates ? run->batch - run->queries : run->queries, .total_tokens = end - begin, .hidden = c->hidden_size,
                         .pooling = c->pooling, .normalize = 1, .dtype = run->model->dtype},
                .cu_seqlens = candidates ? run->candidate_starts : run->cu_seqlens,
                .states = (size_t)(begin * c->hidden_size) * sw_dtype_bytes(run->model->dtype),
                .row = candidates ? v->max_queries + first : first};
}

static int check_places(const sw_run *run, const sw_pair_vectors *v, int64_t first_query, int64_t first_candidate) {
  if (first_query < 0 || first_query + run->queries > v->max_queries || first_candidate < 0 ||
      first_candidate + run->batch - run->queries > v->max_candidates)
    return sw_fail("%d queries from %lld and %d candidates from %lld on do not fit %lld and %lld vectors", run->queries, (long long)first_query,
                   run->batch - run->queries, (long long)first_candidate, (long long)v->max_queries, (long long)v->max_candidates);
  return 0;
}

int sw_run_pool_pairs(sw_run *run, sw_pair_vectors *v, int64_t first_query, int64_t first_candidate) {
  if (check_places(run, v, first_query, first_candidate)) return -1;
  for (int k = 0; k < 2; k++) {
    const side s = side_of(run, v, k, k ? first_candidate : first_query);
    if (s.desc.batch && SW_RUN(&run->stream, pool_forward, &s.desc, s.cu_seqlens, (const char *)sw_run_states(run) + s.states,
                               v->values + s.row * v->hidden, v->norms + s.row))
      return -1;
  }
  return 0;
}

int sw_run_contrastive_loss(sw_run *run, sw_pair_vectors *v, int64_t queries, int64_t candidates, const int32_t *positive,
                            float similarity_scale, float scale) {
  if (queries < 1 || queries > v->max_queries || candidates < 1 || candidates > v->max_candidates)
    return sw_fail("%lld queries and %lld candidates do not fit %lld and %lld vectors", (long long)queries, (long long)candidates,
                   (long long)v->max_queries, (long long)v->max_candidates);
  for (int64_t i = 0; i < queries; i++)
    if (positive[i] < 0 || positive[i] >= candidates)
      return sw_fail("query %lld has positive %d; there are %lld candidates", (long long)i, positive[i], (long long)candidates);
  sw_contrastive_desc desc = contrastive_desc(v, queries, candidates);
  desc.similarity_scale = similarity_scale;
  desc.scale = scale;
  const int64_t behind = v->max_queries * v->hidden;
  return v->device->copy_in(&run->stream, v->positive, positive, (size_t)queries * sizeof *positive) ||
                 SW_RUN(&run->stream, contrastive, &desc, v->values, v->values + behind, v->positive, NULL,
                        run->losses + run->model->num_heads, v->gradients, v->gradients + behind, v->workspace)
             ? -1
             : 0;
}

int sw_run_unpool_pairs(sw_run *run, const sw_pair_vectors *v, int64_t first_query, int64_t first_candidate) {
  if (check_places(run, v, first_query, first_candidate)) return -1;
  for (int k = 0; k < 2; k++) {
    const side s = side_of(run, v, k, k ? first_candidate : first_query);
    if (s.desc.batch && SW_RUN(&run->stream, pool_backward, &s.desc, s.cu_seqlens, (const char *)sw_run_states(run) + s.states,
                               v->values + s.row * v->hidden, v->norms + s.row, v->gradients + s.row * v->hidden,
                               (char *)run->d_state + s.states))
      return -1;
  }
  return 0;
}
