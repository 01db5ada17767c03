/* What every backend's GRU can check of its descriptor: 0, or -1 with the message set. */
#ifndef SW_KERNELS_GRU_CHECK_H
#define SW_KERNELS_GRU_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

enum { SW_GRU_MAX_HIDDEN = 1024 };

static inline int gru_check(const sw_gru_desc *d) {
  if (d->hidden < 1 || d->hidden > SW_GRU_MAX_HIDDEN) return sw_fail("gru: hidden size %d is not in 1..%d", d->hidden, SW_GRU_MAX_HIDDEN);
  if (d->batch < 0 || d->total_tokens < 0 || d->total_tokens > INT32_MAX)
    return sw_fail("gru: %lld tokens in %d sequences: neither may be negative, and fewer than 2^31 tokens are taken", (long long)d->total_tokens,
                   d->batch);
  return 0;
}
#endif
