/* Losses fused with their gradients. Logits are fp32, [rows, classes].
 * cross entropy: sum over rows of w_row * w_class[label] * (log sum exp(l) - l[label]); rows labelled `ignore` count nothing.
 * sigmoid BCE: sum of w_row * (max(l, 0) - l t + log(1 + exp(-|l|))), targets t in [0, 1].
 * The caller knows the labels and gives `scale` (1 / the sum of weights for PyTorch's mean): gradients are those of scale * sum. */
#ifndef SW_KERNELS_LOSS_H
#define SW_KERNELS_LOSS_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t rows;
  int classes;
  int ignore;   /* -100; cross entropy only */
  float scale;
} sw_loss_desc;

/* labels [rows] int32; class_weights [classes] or NULL; row_weights [rows] or NULL; loss: one double, += the unscaled sum, the
 * rows added in a fixed order; dlogits [rows, classes] or NULL, overwritten (zeros for ignored rows), may be the same buffer as logits;
 * workspace: SW_SUM_WORKSPACE bytes. The CPU refuses a label out of range; a GPU makes the loss and the row's gradient NaN. */
typedef int sw_cross_entropy_fn(sw_stream *stream, const sw_loss_desc *desc, const float *logits, const int32_t *labels,
                                const float *class_weights, const float *row_weights, double *loss, float *dlogits, void *workspace);
typedef int sw_sigmoid_bce_fn(sw_stream *stream, const sw_loss_desc *desc, const float *logits, const float *targets,
                              const float *row_weights, double *loss, float *dlogits, void *workspace);
/* y [rows, classes] = logits - log sum exp(logits); may be in place. */
typedef int sw_log_softmax_fn(sw_stream *stream, const sw_loss_desc *desc, const float *logits, float *y);
#endif
