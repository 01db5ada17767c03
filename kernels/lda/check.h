/* What every backend refuses. */
#ifndef SW_LDA_CHECK_H
#define SW_LDA_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

static inline int lda_check(const sw_lda_desc *d) {
  if (d->documents < 0 || d->documents > INT32_MAX || d->words < 1 || d->topics < 1 || d->topics > SW_LDA_TOPICS || d->longest < 0)
    return sw_fail("lda: %lld documents of up to %d words, %d words, %d topics: there must be a word, and 1 to %d topics", (long long)d->documents,
                   d->longest, d->words, d->topics, SW_LDA_TOPICS);
  if (!(d->alpha > 0) || !(d->eta > 0) || !(d->tolerance >= 0) || d->iterations < 1)
    return sw_fail("lda: alpha %g, eta %g, tolerance %g, %d iterations: the first two must be above 0, there must be an iteration", (double)d->alpha,
                   (double)d->eta, (double)d->tolerance, d->iterations);
  return 0;
}
#endif
