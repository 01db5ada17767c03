/* Nearest neighbours as distances, and their weights in UMAP. */
#ifndef SW_SPACE_NEAREST_H
#define SW_SPACE_NEAREST_H
#include "kernels/backend.h"

typedef struct {
  int64_t queries, corpus;
  int hidden, k;
  int cosine; /* rows have unit length, and the distance is 1 - cosine; otherwise Euclidean */
  int self;   /* query i is corpus row i, and not its own neighbour */
} sw_nearest_desc;
/* queries and corpus: device. index and distances [queries, k], host: the nearest first, -1 and infinity where there are fewer. Cosine
 * distances that are nothing but rounding (below 2e-6) are 0, so that equal vectors are. A progress bar unless quiet. */
int sw_nearest(sw_stream *stream, const sw_nearest_desc *desc, const float *queries, const float *corpus, int quiet, int64_t *index,
               float *distances);
/* distances [rows, k], host, to weights, in place: see sw_umap_weights_desc. */
int sw_nearest_weights(sw_stream *stream, int64_t rows, int k, int nearest, double target, float *distances);
#endif
