/* What every backend refuses. */
#ifndef SW_UMAP_CHECK_H
#define SW_UMAP_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"
#include <string.h>

static inline int umap_weights_check(const sw_umap_weights_desc *d) {
  if (d->rows < 0 || d->k < 1 || d->k > SW_MOST_NEIGHBOURS)
    return sw_fail("umap_weights: %lld rows of %d neighbours: rows must not be negative, neighbours 1 to %d",
                   (long long)d->rows, d->k, SW_MOST_NEIGHBOURS);
  return 0;
}
static inline int umap_multiply_check(const sw_umap_multiply_desc *d) {
  if (d->rows < 0 || d->rows > INT32_MAX)
    return sw_fail("umap_multiply: %lld rows, not 0 to 2^31 - 1", (long long)d->rows);
  return 0;
}
static inline int umap_descent_check(const char *name, const sw_umap_descent *d) {
  if (d->components != 2 && d->components != 3) return sw_fail("%s: %d components, not 2 or 3", name, d->components);
  if (d->points < 1 || d->points > INT32_MAX / d->components)
    return sw_fail("%s: %lld points of %d components: there must be some, their coordinates below 2^31", name,
                   (long long)d->points, d->components);
  if (d->first_epoch < 0 || d->last_epoch < d->first_epoch || d->epochs < d->last_epoch)
    return sw_fail("%s: epochs %d to %d of %d", name, d->first_epoch, d->last_epoch, d->epochs);
  return d->negatives < 0 ? sw_fail("%s: %d negatives", name, d->negatives) : 0;
}
static inline int umap_layout_check(const sw_umap_layout_desc *d) {
  if (umap_descent_check("umap_layout", &d->descent)) return -1;
  return d->colors < 0 || (d->colors && !d->color_start)
             ? sw_fail("umap_layout: %d colours, or no starts of them", d->colors)
             : 0;
}
static inline int umap_place_check(const sw_umap_place_desc *d) {
  if (umap_descent_check("umap_place", &d->descent)) return -1;
  return d->rows < 0 || d->rows > INT32_MAX ? sw_fail("umap_place: %lld rows, not 0 to 2^31 - 1", (long long)d->rows)
                                            : 0;
}
static inline int umap_ranks_check(const sw_umap_ranks_desc *d) {
  if (d->queries < 0 || d->corpus < 0 || d->corpus > INT32_MAX || d->hidden < 1 || d->k < 1 ||
      d->k > SW_MOST_NEIGHBOURS)
    return sw_fail("umap_ranks: %d of %lld queries, %lld corpus rows of %d numbers: sizes must be positive, the corpus "
                   "below 2^31, at most %d of a query",
                   d->k, (long long)d->queries, (long long)d->corpus, d->hidden, SW_MOST_NEIGHBOURS);
  int metric; /* in C++ an enum must not even be read where it holds none of its values */
  memcpy(&metric, &d->metric, sizeof metric);
  return metric == SW_INNER_PRODUCT || metric == SW_SQUARED_DISTANCE ? 0
                                                                     : sw_fail("umap_ranks: unknown metric %d", metric);
}
#endif
