#include "kernels/backend.h"

#include <math.h>

/* Everything is computed in double and rounded once. 1 - b^t through expm1 and log keeps its digits when b is close to 1. */
static double one_minus_power(double b, int64_t t) { return b > 0 ? -expm1((double)t * log(b)) : 1; }

sw_adamw_step sw_adamw_step_of(double lr, double beta1, double beta2, double eps, double weight_decay, double pull, int64_t t) {
  return (sw_adamw_step){.beta1 = (float)beta1,
                         .beta2 = (float)beta2,
                         .one_minus_beta1 = (float)(1 - beta1),
                         .one_minus_beta2 = (float)(1 - beta2),
                         .decay = (float)(1 - lr * weight_decay),
                         .step_size = (float)(lr / one_minus_power(beta1, t)),
                         .inverse_sqrt_correction = (float)(1 / sqrt(one_minus_power(beta2, t))),
                         .eps = (float)eps,
                         .pull = (float)(lr * pull)};
}
