/* What every backend refuses. */
#ifndef SW_NEIGHBOURS_CHECK_H
#define SW_NEIGHBOURS_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"
#include <string.h>

static inline int neighbours_check(const sw_neighbours_desc *d) {
  if (d->queries < 0 || d->corpus < 0 || d->corpus > INT32_MAX || d->hidden < 1)
    return sw_fail("neighbours: %lld queries, %lld corpus rows of %d numbers: sizes must be positive, the corpus below 2^31 rows (it may come "
                   "in pieces)",
                   (long long)d->queries, (long long)d->corpus, d->hidden);
  if (d->k < 1 || d->k > SW_MOST_NEIGHBOURS) return sw_fail("neighbours: k is %d, not 1 to %d", d->k, SW_MOST_NEIGHBOURS);
  int metric; /* in C++ an enum must not even be read where it holds none of its values */
  memcpy(&metric, &d->metric, sizeof metric);
  if (metric != SW_INNER_PRODUCT && metric != SW_SQUARED_DISTANCE) return sw_fail("neighbours: unknown metric %d", metric);
  if (d->base < 0) return sw_fail("neighbours: base is %lld, must not be negative", (long long)d->base);
  return 0;
}
#endif
