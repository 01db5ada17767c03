/* What every backend refuses. */
#ifndef SW_KMEANS_CHECK_H
#define SW_KMEANS_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

static inline int kmeans_check(const sw_kmeans_desc *d) {
  if (d->rows < 0 || d->hidden < 1 || d->groups < 1 || d->k < 1 || d->k > SW_KMEANS_MOST_CENTRES / d->groups)
    return sw_fail("kmeans: %lld rows of %d numbers, %d groups of %d centres: sizes must be positive, and at most %d centres in all",
                   (long long)d->rows, d->hidden, d->groups, d->k, SW_KMEANS_MOST_CENTRES);
  return 0;
}
#endif
