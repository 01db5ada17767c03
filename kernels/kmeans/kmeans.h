/* The steps of k-means (Lloyd, "Least squares quantization in PCM", 1982), for several starts at once: `groups` of k centres each over the same
 * rows, which are read once for all of them.
 *
 * A distance is squared and Euclidean, fp32: one chain of fused multiply-adds s = fma(x_h - c_h, x_h - c_h, s) from h = 0 on, the same bits in
 * every backend (but the CPU's baseline, which has no fused multiply-add). Of equally near centres the first is taken; a row to
 * which no distance is below infinity (NaN, say) has label -1 and distance infinity.
 *
 * Sums are kept in double and follow the labels: a row is taken out of its old centre's and added to its new one's, row after row, so that a pass
 * in which few rows move costs little, and has the same bits for any number of threads. */
#ifndef SW_KERNELS_KMEANS_H
#define SW_KERNELS_KMEANS_H
#include <stddef.h>
#include <stdint.h>

enum { SW_KMEANS_MOST_CENTRES = 65535 };

typedef struct {
  int64_t rows;
  int hidden, groups, k; /* groups * k <= SW_KMEANS_MOST_CENTRES */
} sw_kmeans_desc;

/* Lets kmeans_assign pass over rows that cannot have a nearer centre than before (after Hamerly, "Making k-means even faster", SDM 2010). Which
 * these are is the backend's affair: labels are those that it would find without. */
typedef struct {
  const int32_t *before; /* [groups, rows] the labels of the call before */
  const float *drift;    /* [groups, k] not less than how far the centre has moved since, plus how far any other of its group */
  float *bound;          /* [groups, rows] from the call before: how much nearer a row's centre is than any other; 0 at first. Overwritten */
} sw_kmeans_bounds;

/* Scratch of kmeans_assign for these or fewer rows, groups and k (depends on the stream's threads). */
typedef int sw_kmeans_workspace_fn(sw_stream *stream, const sw_kmeans_desc *desc, size_t *bytes);
/* x [rows, hidden], centres [groups, k, hidden] fp32; label int32 and distance fp32 [groups, rows]: the nearest centre of the group, 0 to k - 1,
 * and how far it is. label may be NULL. bounds (host; may be NULL) is for at most 256 calls in a row; distances of rows that are passed over stay as
 * they are. */
typedef int sw_kmeans_assign_fn(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const float *centres, const sw_kmeans_bounds *bounds,
                                int32_t *label, float *distance, void *workspace);
/* before, label int32 [groups, rows]: -1 (in no sum) to k - 1. sums double [groups, k, hidden] and counts int64 [groups, k] are those of `before`
 * and become those of `label`; changed int64 [groups]: rows whose label is another (overwritten). */
typedef int sw_kmeans_update_fn(sw_stream *stream, const sw_kmeans_desc *desc, const float *x, const int32_t *before, const int32_t *label,
                                double *sums, int64_t *counts, int64_t *changed);
#endif
