/* Multinomial logistic regression with L2 on fixed features.
 *
 *   F(W, b) = sum_i w_i (log sum_k exp(z_ik) - z_i,label(i)) + ||W||^2 / (2 C),   z_i = W x_i + b,   b is not penalised
 *
 * This is scikit-learn's LogisticRegression(C=C) for three and more classes (user guide, 1.1.11.3, times C); two classes are two outputs
 * here and not one. F is convex, and strictly so in W: the minimum does not depend on the way there.
 *
 * The way is L-BFGS (Nocedal, Wright, "Numerical Optimization", 2006, algorithm 7.5) with a line search for the strong Wolfe conditions
 * (algorithms 3.5 and 3.6). Two changes of the coordinates, which leave F as it is, and one of the metric take most of its iterations away:
 * features are centred (b takes up the shift); b begins at the logarithm of the classes' shares, W at 0; and the two-loop recursion starts
 * from the diagonal 1 / (c n_k v_d + 1 / C), where n_k is a class's weight, v_d a feature's variance and c = 1 - exp(-mean cross entropy)
 * stands for the mean of 1 - p: an estimate of F's second derivatives, better than one number for all.
 *
 * Logits, their gradient and that of W are products of the linear operator in fp32, blocks of rows at a time so that logits stay in the
 * caches; the objective and all scalar products are sums in double, in a fixed order. The same input gives the same bits with any number of
 * threads. Nothing is allocated inside an iteration. */
#ifndef SW_MODEL_LOGISTIC_H
#define SW_MODEL_LOGISTIC_H
#include "kernels/backend.h"

typedef struct {
  int64_t rows;
  int dim, classes;         /* classes >= 2, each with at least one row of weight > 0 */
  const float *features;    /* host [rows, dim], finite */
  const int32_t *labels;    /* host [rows], 0 to classes - 1 */
  const float *row_weights; /* host [rows], >= 0; NULL: all 1 */
} sw_logistic_problem;

typedef struct {
  double c;          /* > 0: the larger, the less W is held back */
  double tolerance;  /* ends where max |gradient of F / sum of weights| is no larger: scikit-learn's `tol` */
  int max_iterations;
  /* after every iteration; may be NULL. gradient: what is compared with the tolerance */
  void (*report)(void *context, int iteration, double objective, double gradient);
  void *context;
} sw_logistic_options;
/* scikit-learn's C. Its tolerance of 1e-4 is for few classes: with a thousand, the gradient may be smaller before the first step. */
#define SW_LOGISTIC_DEFAULTS {.c = 1, .tolerance = 5e-6, .max_iterations = 1000}

typedef enum {
  SW_LOGISTIC_CONVERGED,  /* the gradient is within the tolerance */
  SW_LOGISTIC_ITERATIONS, /* max_iterations were done */
  SW_LOGISTIC_PRECISION   /* steps no longer lower the objective in fp32 */
} sw_logistic_end;

typedef struct {
  double objective, gradient; /* F, and max |gradient of F / sum of weights| */
  int iterations, evaluations;
  sw_logistic_end end;
} sw_logistic_result;

/* Fits; weight [classes, dim] and bias [classes] (host) are overwritten. Returns 0, or -1 for a problem that has no answer: sizes, labels or
 * numbers out of range, a class without rows. */
int sw_logistic_fit(sw_stream *stream, const sw_logistic_problem *problem, const sw_logistic_options *options, float *weight, float *bias,
                    sw_logistic_result *result);
/* F and its gradient (d_weight [classes, dim], d_bias [classes], host; both may be NULL) at a point, by the same code. */
int sw_logistic_objective(sw_stream *stream, const sw_logistic_problem *problem, double c, const float *weight, const float *bias,
                          double *objective, float *d_weight, float *d_bias);
/* z = W x + b: features [rows, dim], logits [rows, classes], all host; the same bits for a row whatever the others are. */
int sw_logistic_logits(sw_stream *stream, int dim, int classes, const float *weight, const float *bias, const float *features, int64_t rows,
                       float *logits);
/* "converged", "iteration limit", "limit of fp32": for people and metrics */
const char *sw_logistic_end_name(sw_logistic_end end);
#endif
