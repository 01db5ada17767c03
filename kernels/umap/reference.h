/* The steps of UMAP in double precision, from their contract. */
#ifndef SW_UMAP_REFERENCE_H
#define SW_UMAP_REFERENCE_H
#include "kernels/backend.h"

void sw_umap_weights_reference(const sw_umap_weights_desc *d, const double *distances, double *weights);
void sw_umap_multiply_reference(const sw_umap_multiply_desc *d, const int64_t *row_start, const int32_t *column,
                                const double *value, const double *x, double *y);
/* before: as positions */
void sw_umap_layout_reference(const sw_umap_layout_desc *d, const int32_t *head, const int32_t *tail,
                              const uint32_t *rate, double *positions, double *before);
void sw_umap_place_reference(const sw_umap_place_desc *d, const int64_t *row_start, const int32_t *column,
                             const uint32_t *rate, const uint64_t *ids, double *positions, const double *points);
void sw_umap_ranks_reference(const sw_umap_ranks_desc *d, const double *queries, const double *corpus,
                             const int64_t *own, const int64_t *index, int32_t *ranks);
#endif
