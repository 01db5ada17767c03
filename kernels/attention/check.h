/* What every backend's attention can check of its descriptor: 0, or -1 with the message set. */
#ifndef SW_KERNELS_ATTENTION_CHECK_H
#define SW_KERNELS_ATTENTION_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

enum { MAX_HEAD_SIZE = 256, MAX_SEQLEN = 1024 };
#define LOG2_E 1.44269504088896341f

static inline int attention_check(const sw_attention_desc *d) {
  if (d->head_size < 1 || d->head_size > MAX_HEAD_SIZE)
    return sw_fail("attention: head size %d is not in 1..%d", d->head_size, MAX_HEAD_SIZE);
  if (d->num_heads < 1) return sw_fail("attention: %d heads", d->num_heads);
  if (d->max_seqlen < 0 || d->max_seqlen > MAX_SEQLEN)
    return sw_fail("attention: max_seqlen %d is not in 0..%d", d->max_seqlen, MAX_SEQLEN);
  if (!(d->scale > 0)) return sw_fail("attention: scale %g is not positive", d->scale);
  if (!(d->dropout.p >= 0 && d->dropout.p < 1)) return sw_fail("attention: dropout %g is not in [0, 1)", d->dropout.p);
  return 0;
}
#endif
