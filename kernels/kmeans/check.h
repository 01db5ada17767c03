/* What every backend refuses, and what they have in common. */
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
/* What distances of fp32 chains can be off by, relative to them, and 512 roundings of bounds more. */
static inline float kmeans_rounding(const sw_kmeans_desc *d) { return (float)(d->hidden + 520) * 0x1p-24f; }
#endif
