/* Plain fp64 reference of LayerNorm and of dropout masks, for tests. Arguments as in layernorm.h; masks hold the
 * multipliers [tokens, hidden] or are NULL. */
#ifndef SW_KERNELS_LAYERNORM_REFERENCE_H
#define SW_KERNELS_LAYERNORM_REFERENCE_H
#include "kernels/backend.h"

/* 0 or 1 / (1 - p) for element `index`, by base/philox.h. */
double sw_reference_multiplier(const sw_dropout *dropout, uint64_t index);
/* z = residual + mask * x; out_mask multiplies y at the end. residual, z, mean, rstd may be NULL. */
void sw_reference_layernorm_forward(int64_t tokens, int hidden, double eps, const double *x, const double *mask,
                                    const double *residual, const double *gamma, const double *beta,
                                    const double *out_mask, double *z, double *y, double *mean, double *rstd);
/* From z alone: mean and rstd are computed anew. dz, dx are overwritten (dx may be NULL), dgamma and dbeta added to. */
void sw_reference_layernorm_backward(int64_t tokens, int hidden, double eps, const double *dy, const double *z,
                                     const double *gamma, const double *mask, const double *out_mask, double *dz,
                                     double *dx, double *dgamma, double *dbeta);
#endif
