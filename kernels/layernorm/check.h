/* What every backend refuses alike: shared by LayerNorm and the embedding. */
#ifndef SW_KERNELS_LAYERNORM_CHECK_H
#define SW_KERNELS_LAYERNORM_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

enum { SW_MAX_HIDDEN = 8192 };

static inline int sw_check_rows(const char *what, int hidden, const sw_dropout *dropout) {
  if (hidden < 1 || hidden > SW_MAX_HIDDEN) return sw_fail("%s: hidden size %d is not in 1..%d", what, hidden, SW_MAX_HIDDEN);
  if (!(dropout->p >= 0 && dropout->p < 1)) return sw_fail("%s: dropout %g is not in [0, 1)", what, (double)dropout->p);
  return 0;
}
#endif
