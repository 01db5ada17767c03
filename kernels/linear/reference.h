/* The linear layer in double precision, written from the mathematics (linear.h); for tests only. All arrays are host
 * memory. */
#ifndef SW_KERNELS_LINEAR_REFERENCE_H
#define SW_KERNELS_LINEAR_REFERENCE_H
#include "kernels/backend.h"

double sw_reference_activation(sw_activation activation, double x);
double sw_reference_activation_gradient(sw_activation activation, double x);
/* pre [tokens, out] = x [tokens, in] weight [out, in]^T + bias [out] (may be NULL); y = activation(pre). */
void sw_reference_linear_forward(const sw_linear_desc *desc, const double *x, const double *weight, const double *bias,
                                 double *pre, double *y);
/* dy becomes g = dy * activation'(pre); dx = g weight, added to what dx holds when `accumulate`; dx NULL: not wanted.
 */
void sw_reference_linear_backward_input(const sw_linear_desc *desc, double *dy, const double *pre, const double *weight,
                                        double *dx, int accumulate);
/* dweight += g^T x; dbias += column sums of g (NULL: not wanted). */
void sw_reference_linear_backward_weight(const sw_linear_desc *desc, const double *g, const double *x, double *dweight,
                                         double *dbias);
#endif
