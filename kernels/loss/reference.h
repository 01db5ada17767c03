/* Losses in double, straight from their definitions; for tests. The sum is returned unscaled; gradients are those of scale * sum. */
#ifndef SW_LOSS_REFERENCE_H
#define SW_LOSS_REFERENCE_H
#include "kernels/backend.h"

/* weights may be NULL; dlogits may be NULL */
double sw_cross_entropy_reference(const sw_loss_desc *desc, const double *logits, const int32_t *labels, const double *class_weights,
                                  const double *row_weights, double *dlogits);
double sw_sigmoid_bce_reference(const sw_loss_desc *desc, const double *logits, const double *targets, const double *row_weights,
                                double *dlogits);
void sw_log_softmax_reference(const sw_loss_desc *desc, const double *logits, double *y);
#endif
