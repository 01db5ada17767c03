/* k-means in double, for tests. */
#ifndef SW_KMEANS_REFERENCE_H
#define SW_KMEANS_REFERENCE_H
#include "kernels/backend.h"

/* distances [groups, k, rows] */
void sw_kmeans_distances_reference(const sw_kmeans_desc *desc, const double *x, const double *centres, double *distances);
/* The nearest by distances of whatever precision. */
void sw_kmeans_nearest_reference(const sw_kmeans_desc *desc, const double *distances, int32_t *label, double *distance);
/* The sums and counts of a labelling, from nothing. */
void sw_kmeans_sums_reference(const sw_kmeans_desc *desc, const double *x, const int32_t *label, double *sums, int64_t *counts);
#endif
