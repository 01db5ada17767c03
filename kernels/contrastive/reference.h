/* The in-batch-negatives loss in double, straight from its definition; for tests. The sum is returned unscaled; gradients are those of
 * scale * sum. */
#ifndef SW_CONTRASTIVE_REFERENCE_H
#define SW_CONTRASTIVE_REFERENCE_H
#include "kernels/backend.h"

/* row_weights, dqueries and dcandidates may be NULL */
double sw_contrastive_reference(const sw_contrastive_desc *desc, const double *queries, const double *candidates, const int32_t *positive,
                                const double *row_weights, double *dqueries, double *dcandidates);
#endif
