#include "engine/learn/retrieval.h"
#include "base/error.h"

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

int sw_retrieval_open(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, sw_retrieval *r) {
  const size_t q = r->queries.count, c = r->corpus.count, row = (size_t)model->config.hidden_size * sizeof(float);
  size_t unique = 0;
  qsort(r->relevant, r->num_relevant, sizeof *r->relevant, by_value);
  for (size_t i = 0; i < r->num_relevant; i++)
    if (!unique || r->relevant[i] != r->relevant[unique - 1]) r->relevant[unique++] = r->relevant[i];
  r->num_relevant = unique;
  r->hidden = model->config.hidden_size;
  r->max_tokens = max_tokens;
  r->max_batch = max_batch;
  if (sw_search_open(stream, r->hidden, SW_RETRIEVAL_DEPTH, SW_COSINE, SW_RETRIEVAL_BLOCK, &r->search)) return -1;
  r->query_vectors = sw_alloc_array(q, row);
  r->corpus_vectors = sw_alloc_array(c, row);
  r->order = sw_alloc_array(q > c ? q : c, sizeof *r->order);
  r->index = sw_alloc_array(SW_RETRIEVAL_BLOCK, SW_RETRIEVAL_DEPTH * sizeof *r->index);
  r->scores = sw_alloc_array(SW_RETRIEVAL_BLOCK, SW_RETRIEVAL_DEPTH * sizeof *r->scores);
  r->ids = sw_alloc_array((size_t)max_tokens, sizeof *r->ids);
  r->cu_seqlens = sw_alloc_array((size_t)max_batch + 1, sizeof *r->cu_seqlens);
  return r->query_vectors && r->corpus_vectors && r->order && r->index && r->scores && r->ids && r->cu_seqlens ? 0 : -1;
}

void sw_retrieval_close(sw_retrieval *r) {
  sw_search_close(r->search);
  sw_sequences_close(&r->queries);
  sw_sequences_close(&r->corpus);
  free(r->relevant);
  free(r->query_vectors);
  free(r->corpus_vectors);
  free(r->scores);
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

/* Vectors of all sequences, in their own order. */
static int embed(sw_retrieval *r, sw_run *run, const sw_sequences *set, float *vectors) {
  const size_t hidden = (size_t)r->hidden;
  int32_t longest = 0;
  for (uint32_t i = 0; i < set->count; i++)
    if (sw_sequence_length(set, i) > longest) longest = sw_sequence_length(set, i);
  if (longest > r->max_tokens) return sw_fail("a sequence of %d tokens in batches of %lld", longest, (long long)r->max_tokens);
  if (order_by_length(set, longest, r->order)) return -1;
  float *out = sw_alloc_array((size_t)r->max_batch, hidden * sizeof *out);
  if (!out) return -1;
  int status = 0, turn = 0; /* whose batch it is */
  if (r->group) memset(vectors, 0, set->count * hidden * sizeof(float));
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
    for (int i = 0; i < b.batch && own && !status; i++)
      memcpy(vectors + r->order[first + (uint32_t)i] * hidden, out + (size_t)i * hidden, hidden * sizeof *out);
    first += (uint32_t)b.batch;
  }
  free(out);
  if (status) return -1;
  return sw_group_start_sum(r->group, vectors, set->count * hidden) || sw_group_wait(r->group) ? -1 : 0;
}

static int read_corpus(void *context, int64_t first, int64_t rows, float *out) {
  const sw_retrieval *r = context;
  memcpy(out, r->corpus_vectors + first * r->hidden, (size_t)(rows * r->hidden) * sizeof *out);
  return 0;
}

/* The ranks, from 1, at which the documents found for a query are relevant; `at` goes on to the next query's. */
static int add_query(const sw_retrieval *r, uint32_t query, const int64_t *found, size_t *at, sw_ranking *out) {
  uint64_t ranks[SW_RETRIEVAL_DEPTH];
  const size_t first = *at;
  size_t hits = 0;
  while (*at < r->num_relevant && r->relevant[*at] >> 32 == query) ++*at;
  if (*at == first) return sw_fail("query %u has no relevant document", query);
  for (uint64_t i = 0; i < SW_RETRIEVAL_DEPTH; i++) { /* index -1, none, is no document's number */
    const uint64_t key = (uint64_t)query << 32 | (uint32_t)found[i];
    if (bsearch(&key, r->relevant + first, *at - first, sizeof key, by_value)) ranks[hits++] = i + 1;
  }
  sw_ranking_add(out, ranks, hits, *at - first);
  return 0;
}

int sw_retrieval_run(sw_retrieval *r, sw_run *run, sw_ranking *out) {
  static const uint32_t cuts[SW_RETRIEVAL_CUTS] = {1, 3, 5, SW_RETRIEVAL_DEPTH};
  const sw_search_corpus corpus = {.rows = r->corpus.count, .read = read_corpus, .context = r, .name = "the corpus"};
  size_t at = 0; /* in relevant, which is sorted by query */
  sw_ranking_open(out, cuts, SW_RETRIEVAL_CUTS);
  if (embed(r, run, &r->queries, r->query_vectors) || embed(r, run, &r->corpus, r->corpus_vectors)) return -1;
  for (uint32_t first = 0, rows; first < r->queries.count; first += rows) {
    rows = r->queries.count - first < SW_RETRIEVAL_BLOCK ? r->queries.count - first : SW_RETRIEVAL_BLOCK;
    if (sw_search_run(r->search, &corpus, r->query_vectors + (size_t)first * (size_t)r->hidden, rows, -1, r->index, r->scores)) return -1;
    for (uint32_t i = 0; i < rows; i++)
      if (add_query(r, first + i, r->index + (size_t)i * SW_RETRIEVAL_DEPTH, &at, out)) return -1;
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
