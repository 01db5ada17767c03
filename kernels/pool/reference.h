/* Pooling in double, straight from its definition; for tests. */
#ifndef SW_POOL_REFERENCE_H
#define SW_POOL_REFERENCE_H
#include "kernels/backend.h"

/* x [total, hidden] -> y [batch, hidden], norms [batch] (lengths before normalisation) */
void sw_pool_reference(const sw_pool_desc *desc, const int32_t *cu_seqlens, const double *x, double *y, double *norms);
/* dx [total, hidden] = gradient of sum(dy * y(x)); computed from x alone */
void sw_pool_backward_reference(const sw_pool_desc *desc, const int32_t *cu_seqlens, const double *x, const double *dy, double *dx);
#endif
