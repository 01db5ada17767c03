#include "engine/learn/ranking.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>

void sw_ranking_open(sw_ranking *r, const uint32_t *cuts, int num_cuts) {
  *r = (sw_ranking){.num_cuts = num_cuts < SW_RANKING_CUTS ? num_cuts : SW_RANKING_CUTS};
  for (int i = 0; i < r->num_cuts; i++) r->cuts[i] = cuts[i];
}

void sw_ranking_add(sw_ranking *r, const uint64_t *ranks, size_t found, size_t relevant) {
  r->queries++;
  if (found) r->reciprocal += 1 / (double)ranks[0];
  for (int i = 0; i < r->num_cuts; i++) {
    const size_t k = r->cuts[i];
    size_t hits = 0;
    double gain = 0, ideal = 0;
    for (; hits < found && ranks[hits] <= k; hits++) gain += 1 / log2((double)ranks[hits] + 1);
    for (size_t rank = 1; rank <= k && rank <= relevant; rank++) ideal += 1 / log2((double)rank + 1);
    r->sums[SW_ACCURACY_AT][i] += hits > 0;
    r->sums[SW_PRECISION_AT][i] += (double)hits / (double)k;
    r->sums[SW_RECALL_AT][i] += (double)hits / (double)relevant;
    r->sums[SW_MRR_AT][i] += hits ? 1 / (double)ranks[0] : 0;
    r->sums[SW_NDCG_AT][i] += gain / ideal;
  }
}

double sw_ranking_mean(const sw_ranking *r, sw_ranking_score score, int i) { return r->queries ? r->sums[score][i] / (double)r->queries : 0; }
double sw_ranking_mrr(const sw_ranking *r) { return r->queries ? r->reciprocal / (double)r->queries : 0; }

uint64_t sw_rank_of(const float *scores, size_t count, size_t item) {
  uint64_t before = 0;
  for (size_t i = 0; i < count; i++) before += scores[i] > scores[item] || (scores[i] == scores[item] && i < item);
  return before + 1;
}

void sw_rank_best(const float *scores, size_t count, size_t k, uint32_t *best) {
  size_t held = 0;
  for (size_t i = 0; i < count && k; i++) {
    if (held == k && !(scores[i] > scores[best[k - 1]])) continue;
    size_t at = held < k ? held++ : k - 1;
    for (; at > 0 && scores[i] > scores[best[at - 1]]; at--) best[at] = best[at - 1];
    best[at] = (uint32_t)i;
  }
}

int sw_macro_f1(const int32_t *gold, const int32_t *predicted, size_t rows, size_t classes, double *out) {
  uint64_t *counts = sw_alloc_array(3 * classes, sizeof *counts), *right = counts, *in_gold = counts + classes, *in_predicted = counts + 2 * classes;
  if (!counts) return -1;
  for (size_t i = 0; i < rows; i++) {
    in_gold[gold[i]]++;
    in_predicted[predicted[i]]++;
    right[gold[i]] += gold[i] == predicted[i];
  }
  double sum = 0;
  size_t occurring = 0;
  for (size_t c = 0; c < classes; c++) {
    const uint64_t both = in_gold[c] + in_predicted[c];
    occurring += both > 0;
    sum += both ? 2 * (double)right[c] / (double)both : 0;
  }
  free(counts);
  *out = occurring ? sum / (double)occurring : 0;
  return 0;
}
