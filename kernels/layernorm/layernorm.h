/* Residual + dropout + LayerNorm: z = residual + dropout(x), y = gamma (z - mean) / sqrt(var + eps) + beta.
 * Ba, Kiros, Hinton 2016. Mean and variance over the hidden dimension, two passes, in fp32 (never E[z^2] - mean^2).
 * Backward: with n = (z - mean) rstd, a = dy gamma: dz = rstd (a - mean(a) - n mean(a n)); dgamma += sum dy n; dbeta +=
 * sum dy. */
#ifndef SW_KERNELS_LAYERNORM_H
#define SW_KERNELS_LAYERNORM_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t tokens;
  int hidden; /* <= 8192 */
  float eps;
  sw_dtype dtype;
  sw_dropout dropout; /* of x, before the residual is added */
} sw_layernorm_desc;

/* x [tokens, hidden]: where mean and rstd are given (training) it becomes z in place, otherwise it may be left as it
 * is. residual [tokens, hidden] or NULL; y [tokens, hidden], may be the same buffer as residual; mean, rstd [tokens] or
 * both NULL. */
typedef int sw_layernorm_forward_fn(sw_stream *stream, const sw_layernorm_desc *desc, void *x, const void *residual,
                                    const float *gamma, const float *beta, void *y, float *mean, float *rstd);
/* Scratch for backward with at most desc->tokens tokens. */
typedef int sw_layernorm_workspace_fn(sw_stream *stream, const sw_layernorm_desc *desc, size_t *bytes);
/* dy, z [tokens, hidden]; dz [tokens, hidden] = gradient of the residual branch; dx [tokens, hidden] = gradient of x,
 * that is dz through the dropout mask; dx may be NULL when p = 0 (it equals dz). dz may be dy. dgamma, dbeta [hidden]
 * are added to. */
typedef int sw_layernorm_backward_fn(sw_stream *stream, const sw_layernorm_desc *desc, const void *dy, const void *z,
                                     const float *gamma, const float *mean, const float *rstd, void *dz, void *dx,
                                     float *dgamma, float *dbeta, void *workspace);
#endif
