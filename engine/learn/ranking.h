/* How good ranked lists are where each answer is relevant or not, as the means over queries of sentence-transformers'
 * InformationRetrievalEvaluator. With r_i = 1 where the i-th answer (from 1) is relevant and R relevant answers in all:
 *   accuracy@k = [some r_i = 1, i <= k]    precision@k = sum r_i / k    recall@k = sum r_i / R    MRR@k = 1 / the first i <= k with r_i = 1, or 0
 *   NDCG@k = sum r_i / log2(i + 1) over i <= k, by the same sum for R relevant answers in front (Järvelin, Kekäläinen 2002) */
#ifndef SW_LEARN_RANKING_H
#define SW_LEARN_RANKING_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { SW_RANKING_CUTS = 4, SW_RANKING_DEPTH = 10 }; /* of MRR and NDCG: the depth */
extern const int sw_ranking_cuts[SW_RANKING_CUTS];   /* k of accuracy, precision and recall: 1, 3, 5, 10 */

/* Sums over queries; zero-initialise. */
typedef struct {
  uint64_t queries;
  double accuracy[SW_RANKING_CUTS], precision[SW_RANKING_CUTS], recall[SW_RANKING_CUTS], mrr, ndcg;
} sw_ranking;

/* One query: relevant[i] is 0 or 1 for the i-th best answer, [count], of which those behind SW_RANKING_DEPTH do not matter; `total`, at
 * least 1: relevant answers that there are. */
void sw_ranking_add(sw_ranking *ranking, const unsigned char *relevant, int count, uint64_t total);
/* The means over queries; zeros where there was none. */
sw_ranking sw_ranking_mean(const sw_ranking *ranking);
/* The means: {"queries": n, "accuracy": {"1": x, ...}, "precision": {...}, "recall": {...}, "mrr@10": x, "ndcg@10": x}; new reference, NULL on failure. */
json_t *sw_ranking_json(const sw_ranking *ranking);
#endif
