/* AdamW (Loshchilov, Hutter 2019), as torch.optim.AdamW: with g the clipped gradient and t the step from 1,
 *   p += lr (pull (anchor - p) - wd p);  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 * The pull, 0 where a tensor has no anchor, draws p towards the value it had in the parent model: L2-SP (Li, Grandvalet, Davoine, "Explicit
 * Inductive Bias for Transfer Learning with Convolutional Networks", 2018), decoupled from the moments as the decay is.
 *
 * adamw_rows does the same for a table of which a step's gradient touches few rows (word embeddings). A row without gradient still
 * moves by its moments, so a row notes the last step it has seen, and the steps it missed are replayed, one by one and with the same
 * arithmetic, when it is next touched: the bits equal those of the dense update, and only touched rows cost memory traffic. */
#ifndef SW_KERNELS_ADAMW_H
#define SW_KERNELS_ADAMW_H
#include <stddef.h>
#include <stdint.h>

/* The scalars of one step, made by sw_adamw_step_of so that every backend uses the same roundings. */
typedef struct {
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float decay;        /* 1 - lr * weight_decay */
  float step_size;    /* lr / (1 - beta1^t) */
  float inverse_sqrt_correction; /* 1 / sqrt(1 - beta2^t) */
  float eps;
  float pull;         /* lr * pull */
  float unused[3];    /* a multiple of 16 bytes */
} sw_adamw_step;
sw_adamw_step sw_adamw_step_of(double lr, double beta1, double beta2, double eps, double weight_decay, double pull, int64_t t);

typedef struct {
  float *p, *m, *v;
  const float *g;
  int64_t count;
  int decays;         /* 0: no weight decay for this tensor */
  const float *anchor; /* where p is pulled to; NULL: nowhere */
} sw_adamw_tensor;

typedef struct {
  int tensors;
  sw_adamw_step step;
  float grad_scale;   /* every gradient is multiplied by it first (clipping) */
} sw_adamw_desc;
/* `list` is a host array, read before the call returns. */
typedef int sw_adamw_fn(sw_stream *stream, const sw_adamw_desc *desc, const sw_adamw_tensor *list);

typedef struct {
  int64_t rows;       /* of the table */
  int hidden;
  int decays;
  float grad_scale;
  int64_t step;       /* t of this update, from 1 */
  int64_t first_step; /* history[0] holds the scalars of this step */
  const float *anchor; /* device [rows, hidden]: where p is pulled to; NULL: nowhere */
} sw_adamw_rows_desc;
/* p, m, v [rows, hidden]; last_step [rows]: the step each row has seen; history [step - first_step + 1].
 * g [count, hidden]: each of the `count` distinct rows touched[i] is brought to step - 1, then updated with its gradient.
 * g = NULL: nothing is updated, rows are brought to `step` itself by replaying what they missed: those in touched (before a forward
 * reads them), or every row where touched = NULL too (before saving).
 * The CPU refuses rows outside the table, touched twice, or whose last_step is outside the history; a GPU ignores the first, must not be
 * given the second, and fills the third with NaN. */
typedef int sw_adamw_rows_fn(sw_stream *stream, const sw_adamw_rows_desc *desc, const sw_adamw_step *history, float *p, float *m, float *v,
                             int32_t *last_step, const int32_t *touched, int64_t count, const float *g);

/* *sum (device) = sum of squares over all tensors' g, in double, in a fixed order (p, m, v are not used). `list` as for adamw;
 * workspace: SW_SUM_WORKSPACE bytes. */
typedef int sw_sum_squares_fn(sw_stream *stream, int tensors, const sw_adamw_tensor *list, double *sum, void *workspace);

/* Conversion between fp32 and bf16 (round to nearest even). */
typedef int sw_cast_fn(sw_stream *stream, int64_t count, sw_dtype from, const void *x, sw_dtype to, void *y);
#endif
