/* Scores of ranked results with binary relevance, as sentence-transformers' InformationRetrievalEvaluator defines them, and the macro F1.
 * Of a query with R > 0 relevant items, at cut k, with the relevant ones at ranks r1 < r2 < ... (from 1):
 *   accuracy@k   1 where r1 <= k                       precision@k  how many r <= k, over k
 *   recall@k     how many r <= k, over R               mrr@k        1 / r1 where r1 <= k, otherwise 0
 *   ndcg@k       sum over r <= k of 1 / log2(r + 1), over the same sum for ranks 1 to min(R, k)   (Järvelin, Kekäläinen 2002)
 * Everywhere the mean over the queries counts; without queries it is 0. */
#ifndef SW_LEARN_RANKING_H
#define SW_LEARN_RANKING_H
#include <stddef.h>
#include <stdint.h>

typedef enum { SW_ACCURACY_AT, SW_PRECISION_AT, SW_RECALL_AT, SW_MRR_AT, SW_NDCG_AT, SW_RANKING_SCORES } sw_ranking_score;
enum { SW_RANKING_CUTS = 8 };

typedef struct {
  uint64_t queries;
  int num_cuts;
  uint32_t cuts[SW_RANKING_CUTS];
  double sums[SW_RANKING_SCORES][SW_RANKING_CUTS];
  double reciprocal; /* sum of 1 / r1: the MRR without a cut */
} sw_ranking;

/* cuts: from 1 on, in any order. */
void sw_ranking_open(sw_ranking *ranking, const uint32_t *cuts, int num_cuts);
/* One query. ranks [found]: of the relevant items that were found, from 1, increasing; relevant: how many there are in all, >= found, > 0. */
void sw_ranking_add(sw_ranking *ranking, const uint64_t *ranks, size_t found, size_t relevant);
double sw_ranking_mean(const sw_ranking *ranking, sw_ranking_score score, int cut_index);
double sw_ranking_mrr(const sw_ranking *ranking);

/* The rank, from 1, of `item` among scores [count]: the larger, the better; of equal scores the lower index is the better one. */
uint64_t sw_rank_of(const float *scores, size_t count, size_t item);
/* The k <= count best by the same order: best [k]. */
void sw_rank_best(const float *scores, size_t count, size_t k, uint32_t *best);

/* The unweighted mean of the classes' F1, over those that occur in gold or predicted [rows], each below `classes`; 0 where none does.
 * scikit-learn's f1_score(average="macro"). Fails for want of memory. */
int sw_macro_f1(const int32_t *gold, const int32_t *predicted, size_t rows, size_t classes, double *out);
#endif
