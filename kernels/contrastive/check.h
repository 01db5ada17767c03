/* What every backend refuses. */
#ifndef SW_CONTRASTIVE_CHECK_H
#define SW_CONTRASTIVE_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

static inline int contrastive_check(const sw_contrastive_desc *d) {
  if (d->rows < 0 || d->rows > INT32_MAX || d->candidates < 1 || d->candidates > INT32_MAX || d->hidden < 1)
    return sw_fail("contrastive: %lld rows, %lld candidates of %d numbers: sizes must be positive and below 2^31", (long long)d->rows,
                   (long long)d->candidates, d->hidden);
  return 0;
}
#endif
