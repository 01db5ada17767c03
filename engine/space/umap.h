/* UMAP: a map of vectors in two or three dimensions that keeps neighbours together (McInnes, Healy, Melville: "UMAP:
 * Uniform Manifold Approximation and Projection for Dimension Reduction", 2018). Exact neighbours, their fuzzy union, a
 * spectral start, and a layout that gathers (kernels/umap/umap.h): a seed gives the same bits with any number of
 * threads.
 *
 * Vectors are rows of `hidden` floats in device memory, all of them finite; for the cosine metric of unit length
 * (sw_umap_normalize). */
#ifndef SW_SPACE_UMAP_H
#define SW_SPACE_UMAP_H
#include "kernels/backend.h"

typedef struct {
  int neighbours; /* of a point, itself among them: 2 to SW_MOST_NEIGHBOURS; fewer where there are fewer points */
  int components; /* 2 or 3 */
  int cosine;     /* 1: the distance is 1 - cosine; 0: Euclidean */
  int epochs;     /* 0: 500 up to 10,000 points, 300 for more */
  double min_dist, spread;
  uint64_t seed;
} sw_umap_options;
#define SW_UMAP_DEFAULTS                                                                                               \
  ((sw_umap_options){.neighbours = 15, .components = 2, .cosine = 1, .min_dist = 0.1, .spread = 1})

/* Refuses what has no meaning. */
int sw_umap_check(const sw_umap_options *options);
/* The curve 1 / (1 + a d^2b) that is nearest, by least squares, to 1 up to min_dist and exp(-(d - min_dist) / spread)
 * beyond. */
int sw_umap_curve(double min_dist, double spread, double *a, double *b);
/* Bytes for a map of `rows` vectors, with the vectors, on host and device together; of which `device` on the device. */
size_t sw_umap_bytes(const sw_umap_options *options, int64_t rows, int hidden, size_t *device);
/* A row, in host memory: 0 where it can be used, for the cosine metric after bringing it to unit length; otherwise why
 * it cannot. */
const char *sw_umap_normalize(const sw_umap_options *options, int hidden, float *row);

/* The map of rows >= 1 vectors to coordinates [rows, components], host. A progress bar unless quiet. */
int sw_umap_fit(sw_stream *stream, const sw_umap_options *options, int64_t rows, int hidden, const float *vectors,
                int quiet, float *coordinates);

/* Places vectors on a map: near their neighbours among the old points, which stay where they are. Where a vector goes
 * depends on nothing but itself, the map and the options. */
typedef struct {
  int64_t rows;             /* of the map */
  const float *vectors;     /* device */
  const float *coordinates; /* host */
} sw_umap_map;
int sw_umap_place(sw_stream *stream, const sw_umap_options *options, const sw_umap_map *map, int64_t rows, int hidden,
                  const float *vectors, int quiet, float *coordinates);
#endif
