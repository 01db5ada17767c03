/* How well a map keeps neighbours. With r(i, j) = 1 + the number of vectors that are strictly nearer to vector i than vector j is, and
 * N(i) the k nearest of point i on the map (Euclidean; of equally near ones those with the lower index):
 *   trustworthiness = 1 - 2 / (m k (2 n - 3 k - 1)) sum_i sum_(j in N(i)) max(0, r(i, j) - k)
 *   kept            = 1 / (m k) sum_i |{j in N(i): r(i, j) <= k}|
 * over all n points i, or m that are drawn; the ranks are among all n. (Venna and Kaski, 2001; scikit-learn's trustworthiness, but
 * for ties.) */
#ifndef SW_SPACE_QUALITY_H
#define SW_SPACE_QUALITY_H
#include "kernels/backend.h"

typedef struct {
  double trustworthiness, kept; /* NaN with fewer than 4 points */
  int k;                        /* at most (n - 1) / 2 */
  int64_t queries;              /* m */
} sw_map_quality;

/* All points are asked up to this many, otherwise as many that the seed draws. */
enum { SW_QUALITY_QUERIES = 2000 };
/* vectors [rows, hidden]: device, of unit length for the cosine metric; coordinates [rows, dims]: host. */
int sw_map_quality_of(sw_stream *stream, int cosine, int64_t rows, int hidden, const float *vectors, int dims, const float *coordinates, int k,
                      uint64_t seed, sw_map_quality *out);
#endif
