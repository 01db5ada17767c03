/* k-means: Lloyd's algorithm from several starts, the best of which is kept.
 *
 * A start's first centres are chosen by greedy k-means++ (Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007): each from
 * 2 + log k candidates, drawn with a chance that follows their distance to those chosen before. Then rows go to their nearest centre and centres to the
 * mean of their rows, until no row moves, or until centres move less than `tolerance` (the sum of squares, relative to the mean variance
 * of the columns; scikit-learn's rule). A centre that has lost all its rows is put on the row that is farthest from its own.
 *
 * All starts go through the data together (kernels/kmeans). The same seed gives the same bits with any number of threads. */
#ifndef SW_SPACE_KMEANS_H
#define SW_SPACE_KMEANS_H
#include "kernels/backend.h"

typedef struct {
  int k, starts, max_iterations;
  double tolerance;
  uint64_t seed;
} sw_kmeans_options;
#define SW_KMEANS_DEFAULTS ((sw_kmeans_options){.k = 8, .starts = 10, .max_iterations = 300, .tolerance = 1e-4})

/* Clusters are numbered by size, the largest first (equal ones by their first row). All arrays are owned. */
typedef struct {
  int k;
  int32_t *label;  /* [rows] */
  float *distance; /* [rows] to the centre, Euclidean */
  float *centres;  /* [k, hidden] */
  int64_t *sizes;  /* [k] */
  double inertia;  /* the sum of the squared distances */
  int start, iterations; /* which start was the best, and how many passes it took */
} sw_kmeans;

/* Fails on settings that make no sense; sw_kmeans_fit checks, too. */
int sw_kmeans_check(const sw_kmeans_options *options);
/* x [rows, hidden] on the stream's device: finite numbers, their squared distances too. Fails where there are fewer different rows than k. `quiet`: no
 * progress bar. Close `out` with sw_kmeans_close, not after a failure. */
int sw_kmeans_fit(sw_stream *stream, const sw_kmeans_options *options, int64_t rows, int hidden, const float *x, int quiet, sw_kmeans *out);
void sw_kmeans_close(sw_kmeans *kmeans);
#endif
