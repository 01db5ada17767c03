/* Nearest neighbours in double, straight from the definition; for tests. */
#ifndef SW_NEIGHBOURS_REFERENCE_H
#define SW_NEIGHBOURS_REFERENCE_H
#include "kernels/backend.h"

/* scores [queries, corpus], NaN where the pair is left out */
void sw_neighbours_scores_reference(const sw_neighbours_desc *desc, const double *queries, const double *corpus, double *scores);
/* The k best of scores [queries, corpus] (NaN: left out) to index and score [queries, k]; indices begin with desc->base. */
void sw_neighbours_best_reference(const sw_neighbours_desc *desc, const double *scores, int64_t *index, double *score);
#endif
