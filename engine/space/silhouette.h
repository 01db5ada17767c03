/* The silhouette coefficient (Rousseeuw, 1987) of clusters, on a sample: how much nearer rows are to their own cluster than to the next one, from -1 to 1. */
#ifndef SW_SPACE_SILHOUETTE_H
#define SW_SPACE_SILHOUETTE_H
#include "kernels/backend.h"

enum { SW_SILHOUETTE_ROWS = 2000 };

typedef struct {
  int64_t count;
  int64_t *row;    /* [count], rising */
  float *distance; /* [count, count], squared */
} sw_silhouette_sample;

/* A sample of at most SW_SILHOUETTE_ROWS rows of x [rows, hidden], which is on the device, and their distances; good for any number of clusterings. */
int sw_silhouette_open(sw_stream *stream, int64_t rows, int hidden, const float *x, uint64_t seed, sw_silhouette_sample *out);
void sw_silhouette_close(sw_silhouette_sample *sample);
/* The mean over the sample, as scikit-learn's silhouette_score counts it; label [rows], 0 to k - 1. NaN where the sample lies in one cluster, or has a
 * cluster for every row. */
int sw_silhouette(const sw_silhouette_sample *sample, const int32_t *label, int k, double *out);
#endif
