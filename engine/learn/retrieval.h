/* An encoder judged as information retrieval: the cosines of each query's vector with those of all documents of a corpus, ranked. */
#ifndef SW_LEARN_RETRIEVAL_H
#define SW_LEARN_RETRIEVAL_H
#include "engine/data/sequences.h"
#include "engine/learn/group.h"
#include "engine/learn/ranking.h"
#include "engine/model/model.h"
#include "engine/space/search.h"

/* Zero-initialise; fill queries and corpus with sw_sequences_add (of at most the model's positions each), and note what belongs together. */
typedef struct {
  sw_sequences queries, corpus;
  uint64_t *relevant; /* query << 32 | document; after sw_retrieval_open sorted, each once */
  size_t num_relevant, capacity;
  sw_group *group; /* processes that share the texts of every run; each has all vectors, and the scores (borrowed); NULL: there are no others */
  /* opened */
  int hidden;
  sw_search *search;
  float *query_vectors, *corpus_vectors, *scores;
  int64_t *index; /* [SW_RETRIEVAL_BLOCK, SW_RETRIEVAL_DEPTH], as scores */
  uint32_t *order;
  int32_t *ids, *cu_seqlens; /* of a batch */
  int64_t max_tokens;
  int max_batch;
} sw_retrieval;

int sw_retrieval_add_relevant(sw_retrieval *r, uint32_t query, uint32_t document);
/* Once all is added: every query must have a relevant document. Batches have at most max_tokens tokens, at least the model's positions, in
 * max_batch sequences. */
int sw_retrieval_open(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, sw_retrieval *r);
/* With a run that has room for such batches, whose dropout is turned off. *out: at 1, 3, 5 and 10. */
enum { SW_RETRIEVAL_CUTS = 4, SW_RETRIEVAL_DEPTH = 10, SW_RETRIEVAL_BLOCK = 4096 };
int sw_retrieval_run(sw_retrieval *r, sw_run *run, sw_ranking *out);
/* {"queries": n, "accuracy": {"1": x, "3": ...}, "precision": {...}, "recall": {...}, "mrr": {...}, "ndcg": {...}}; new reference, NULL on failure. */
json_t *sw_retrieval_json(const sw_ranking *ranking);
void sw_retrieval_close(sw_retrieval *r);
#endif
