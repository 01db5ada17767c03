#include "engine/learn/retrieval.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sw_retrieval_add_relevant(sw_retrieval *r, uint32_t query, uint32_t document) {
  if (r->num_relevant == r->capacity) {
    const size_t capacity = r->capacity ? 2 * r->capacity : 1024;
    uint64_t *more = sw_realloc_array(r->relevant, capacity, sizeof *more);
    if (!more) return -1;
    r->relevant = more;
    r->capacity = capacity;
  }
  r->relevant[r->num_relevant++] = (uint64_t)query << 32 | document;
  return 0;
}

static int by_value(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static sw_neighbours_desc neighbours_desc(const sw_retrieval *r) {
  return (sw_neighbours_desc){.queries = r->queries.count, .corpus = r->corpus.count, .hidden = r->hidden, .k = SW_RETRIEVAL_DEPTH,
                              .metric = SW_INNER_PRODUCT, .first_skip = -1};
}

int sw_retrieval_open(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, sw_retrieval *r) {
  sw_device *device = stream->device;
  const size_t q = r->queries.count, c = r->corpus.count, most = q > c ? q : c, row = (size_t)model->config.hidden_size * sizeof(float);
  size_t unique = 0, bytes;
  qsort(r->relevant, r->num_relevant, sizeof *r->relevant, by_value);
  for (size_t i = 0; i < r->num_relevant; i++)
    if (!unique || r->relevant[i] != r->relevant[unique - 1]) r->relevant[unique++] = r->relevant[i];
  r->num_relevant = unique;
  r->stream = *stream;
  r->hidden = model->config.hidden_size;
  r->max_tokens = max_tokens;
  r->max_batch = max_batch;
  sw_neighbours_desc desc = neighbours_desc(r);
  if (SW_RUN(stream, neighbours_workspace, &desc, &bytes) || !(r->workspace = device->alloc(device, bytes)) ||
      !(r->device_queries = device->alloc(device, q * row)) || !(r->device_corpus = device->alloc(device, c * row)) ||
      !(r->device_scores = device->alloc(device, q * SW_RETRIEVAL_DEPTH * sizeof(float))) ||
      !(r->device_index = device->alloc(device, q * SW_RETRIEVAL_DEPTH * sizeof(int64_t))))
    return -1;
  r->vectors = sw_alloc_array(most, row);
  r->order = sw_alloc_array(most, sizeof *r->order);
  r->index = sw_alloc_array(q * SW_RETRIEVAL_DEPTH, sizeof *r->index);
  r->ids = sw_alloc_array((size_t)max_tokens, sizeof *r->ids);
  r->cu_seqlens = sw_alloc_array((size_t)max_batch + 1, sizeof *r->cu_seqlens);
  return r->vectors && r->order && r->index && r->ids && r->cu_seqlens ? 0 : -1;
}

void sw_retrieval_close(sw_retrieval *r) {
  sw_device *device = r->stream.device;
  void *const owned[] = {r->workspace, r->device_queries, r->device_corpus, r->device_scores, r->device_index};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
    if (owned[i]) device->release(device, owned[i]);
  sw_sequences_close(&r->queries);
  sw_sequences_close(&r->corpus);
  free(r->relevant);
  free(r->vectors);
  free(r->order);
  free(r->index);
  free(r->ids);
  free(r->cu_seqlens);
  *r = (sw_retrieval){0};
}

/* Order by length, so that the sequences of a batch are alike: counted, then placed. */
static int order_by_length(const sw_sequences *set, int32_t longest, uint32_t *order) {
  uint32_t *starts = sw_alloc_array((size_t)longest + 2, sizeof *starts);
  if (!starts) return -1;
  for (uint32_t i = 0; i < set->count; i++) starts[sw_sequence_length(set, i) + 1]++;
  for (int32_t length = 1; length <= longest; length++) starts[length] += starts[length - 1];
  for (uint32_t i = 0; i < set->count; i++) order[starts[sw_sequence_length(set, i)]++] = i;
  free(starts);
  return 0;
}

/* Unit vectors of all sequences, in their own order, to the device. */
static int embed(sw_retrieval *r, sw_run *run, const sw_sequences *set, float *device_vectors) {
  const size_t hidden = (size_t)r->hidden;
  int32_t longest = 0;
  for (uint32_t i = 0; i < set->count; i++)
    if (sw_sequence_length(set, i) > longest) longest = sw_sequence_length(set, i);
  if (longest > r->max_tokens) return sw_fail("a sequence of %d tokens in batches of %lld", longest, (long long)r->max_tokens);
  if (order_by_length(set, longest, r->order)) return -1;
  float *out = sw_alloc_array((size_t)r->max_batch, hidden * sizeof *out);
  if (!out) return -1;
  int status = 0, turn = 0; /* whose batch it is */
  if (r->group) memset(r->vectors, 0, set->count * hidden * sizeof(float));
  for (uint32_t first = 0; first < set->count && !status;) {
    sw_batch b = {.ids = r->ids, .cu_seqlens = r->cu_seqlens};
    for (uint32_t i = first; i < set->count && b.batch < r->max_batch; i++) {
      const int32_t length = sw_sequence_length(set, r->order[i]);
      if (b.tokens + length > r->max_tokens) break;
      memcpy(r->ids + b.tokens, sw_sequence_ids(set, r->order[i]), (size_t)length * sizeof *r->ids);
      b.tokens += length;
      b.max_seqlen = length; /* the last is the longest */
      r->cu_seqlens[++b.batch] = (int32_t)b.tokens;
    }
    const int own = turn == sw_group_rank(r->group);
    turn = (turn + 1) % sw_group_size(r->group);
    if (own) status = sw_run_embed(run, &b, out);
    for (int i = 0; i < b.batch && own && !status; i++) {
      float *to = r->vectors + r->order[first + (uint32_t)i] * hidden;
      double squares = 0;
      for (size_t h = 0; h < hidden; h++) squares += (double)out[(size_t)i * hidden + h] * out[(size_t)i * hidden + h];
      const double factor = squares > 0 ? 1 / sqrt(squares) : 0;
      for (size_t h = 0; h < hidden; h++) to[h] = (float)(out[(size_t)i * hidden + h] * factor);
    }
    first += (uint32_t)b.batch;
  }
  free(out);
  if (status || sw_group_start_sum(r->group, r->vectors, set->count * hidden) || sw_group_wait(r->group)) return -1;
  sw_device *device = r->stream.device;
  return device->copy_in(&r->stream, device_vectors, r->vectors, set->count * hidden * sizeof(float)) || device->synchronize(&r->stream) ? -1 : 0;
}

int sw_retrieval_run(sw_retrieval *r, sw_run *run, sw_ranking *out) {
  static const uint32_t cuts[SW_RETRIEVAL_CUTS] = {1, 3, 5, SW_RETRIEVAL_DEPTH};
  sw_device *device = r->stream.device;
  sw_neighbours_desc desc = neighbours_desc(r);
  sw_ranking_open(out, cuts, SW_RETRIEVAL_CUTS);
  if (embed(r, run, &r->queries, r->device_queries) || embed(r, run, &r->corpus, r->device_corpus) ||
      SW_RUN(&r->stream, neighbours, &desc, r->device_queries, r->device_corpus, r->device_index, r->device_scores, r->workspace) ||
      device->copy_out(&r->stream, r->index, r->device_index, r->queries.count * SW_RETRIEVAL_DEPTH * sizeof *r->index) ||
      device->synchronize(&r->stream))
    return -1;
  size_t at = 0; /* in relevant, which is sorted by query */
  for (uint32_t q = 0; q < r->queries.count; q++) {
    uint64_t ranks[SW_RETRIEVAL_DEPTH];
    const size_t first = at;
    size_t found = 0;
    while (at < r->num_relevant && r->relevant[at] >> 32 == q) at++;
    if (at == first) return sw_fail("query %u has no relevant document", q);
    for (uint64_t i = 0; i < SW_RETRIEVAL_DEPTH; i++) { /* index -1, none, is no document's number */
      const uint64_t key = (uint64_t)q << 32 | (uint32_t)r->index[q * SW_RETRIEVAL_DEPTH + i];
      if (bsearch(&key, r->relevant + first, at - first, sizeof key, by_value)) ranks[found++] = i + 1;
    }
    sw_ranking_add(out, ranks, found, at - first);
  }
  return 0;
}

json_t *sw_retrieval_json(const sw_ranking *ranking) {
  static const char *const names[SW_RANKING_SCORES] = {
      [SW_ACCURACY_AT] = "accuracy", [SW_PRECISION_AT] = "precision", [SW_RECALL_AT] = "recall", [SW_MRR_AT] = "mrr", [SW_NDCG_AT] = "ndcg"};
  json_t *all = json_pack("{s:I}", "queries", (json_int_t)ranking->queries);
  int failed = !all;
  for (int score = 0; score < SW_RANKING_SCORES && !failed; score++) {
    json_t *by_cut = json_object();
    for (int i = 0; i < ranking->num_cuts && !failed; i++) {
      char key[12];
      snprintf(key, sizeof key, "%u", ranking->cuts[i]);
      failed = json_object_set_new(by_cut, key, json_real(sw_ranking_mean(ranking, (sw_ranking_score)score, i)));
    }
    failed |= json_object_set_new(all, names[score], by_cut);
  }
  if (!failed) return all;
  json_decref(all);
  return NULL;
}
