/* AdamW in double, straight from its definition; for tests. */
#ifndef SW_ADAMW_REFERENCE_H
#define SW_ADAMW_REFERENCE_H
#include "kernels/backend.h"

typedef struct {
  double lr, beta1, beta2, eps, weight_decay, grad_scale, pull;
} sw_adamw_settings;

/* step t (from 1) on count elements; weight decay only where `decays`; the pull only where there is an anchor */
void sw_adamw_reference(const sw_adamw_settings *settings, int64_t t, int decays, int64_t count, const double *g, const double *anchor,
                        double *p, double *m, double *v);
#endif
