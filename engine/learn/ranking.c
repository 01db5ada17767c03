#include "engine/learn/ranking.h"

#include <math.h>
#include <stdio.h>

const int sw_ranking_cuts[SW_RANKING_CUTS] = {1, 3, 5, 10};

void sw_ranking_add(sw_ranking *ranking, const unsigned char *relevant, int count, uint64_t total) {
  double gain = 0, best = 0;
  int hits = 0, first = 0, k = 0;
  for (int i = 0; i < SW_RANKING_DEPTH; i++) {
    const int hit = i < count && relevant[i];
    const double discount = 1 / log2(i + 2.0);
    hits += hit;
    if (hit) gain += discount;
    if (hit && !first) first = i + 1;
    if ((uint64_t)i < total) best += discount;
    if (i + 1 != sw_ranking_cuts[k]) continue;
    ranking->accuracy[k] += hits > 0;
    ranking->precision[k] += (double)hits / (i + 1);
    ranking->recall[k++] += (double)hits / (double)total;
  }
  ranking->mrr += first ? 1.0 / first : 0;
  ranking->ndcg += gain / best;
  ranking->queries++;
}

sw_ranking sw_ranking_mean(const sw_ranking *ranking) {
  sw_ranking mean = *ranking;
  const double n = ranking->queries ? (double)ranking->queries : 1;
  for (int k = 0; k < SW_RANKING_CUTS; k++) {
    mean.accuracy[k] /= n;
    mean.precision[k] /= n;
    mean.recall[k] /= n;
  }
  mean.mrr /= n;
  mean.ndcg /= n;
  return mean;
}

static json_t *cuts_json(const double *values) {
  json_t *object = json_object();
  for (int k = 0; object && k < SW_RANKING_CUTS; k++) {
    char key[12];
    snprintf(key, sizeof key, "%d", sw_ranking_cuts[k]);
    if (json_object_set_new(object, key, json_real(values[k]))) {
      json_decref(object);
      return NULL;
    }
  }
  return object;
}

json_t *sw_ranking_json(const sw_ranking *ranking) {
  const sw_ranking mean = sw_ranking_mean(ranking);
  return json_pack("{s:I, s:o, s:o, s:o, s:f, s:f}", "queries", (json_int_t)mean.queries, "accuracy", cuts_json(mean.accuracy), "precision",
                   cuts_json(mean.precision), "recall", cuts_json(mean.recall), "mrr@10", mean.mrr, "ndcg@10", mean.ndcg);
}
