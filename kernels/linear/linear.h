/* Linear layer: y = activation(x W^T + b), W is [out_features, in_features] as in PyTorch.
 *
 * Backward, with g = dy * activation'(pre): dx = g W, dW += g^T x, db += column sums of g.
 * GELU is the exact one, x/2 (1 + erf(x / sqrt 2)) (Hendrycks, Gimpel 2016); SW_GELU_TANH is BERT's "gelu_new".
 *
 * Weights are used in a prepared form, the backend's own (bf16 copies, blocked or split layouts), made from the fp32 master by
 * linear_prepare after every change of it. fp32 means: as accurate as fp32 multiply-adds (the tests compare the error with that of
 * a plain fp32 loop), however the backend gets there; with quick_gradients dx and dW may be off by 3 x 2^-16 of the sum of the products'
 * magnitudes besides (two bf16 parts of each factor instead of three; PyTorch's float32_matmul_precision "high"). bf16 means: products of
 * bf16 numbers (weights, and g where dy is fp32, are rounded to it), summed in fp32; where y is bf16 too, a GPU rounds the bias to bf16
 * before it is added, and the sum before the activation (the CPU only the results). What is not finite stays so, in its row or column
 * only, but an infinity may come out as NaN. */
#ifndef SW_KERNELS_LINEAR_H
#define SW_KERNELS_LINEAR_H
#include <stddef.h>
#include <stdint.h>

typedef enum { SW_NO_ACTIVATION, SW_GELU, SW_GELU_TANH, SW_TANH, SW_RELU } sw_activation;

typedef struct {
  int64_t tokens;
  int in_features, out_features;
  sw_dtype dtype;           /* of x, dx */
  sw_dtype out_dtype;       /* of y, pre, dy */
  sw_activation activation;
  int training;             /* the backward calls will be made: linear_prepare and linear_workspace provide for them */
  int quick_gradients;      /* fp32: dx and dW may come from 16 bits of each factor, where that is quicker */
} sw_linear_desc;

/* Bytes of the prepared weight (does not depend on tokens). */
typedef int sw_linear_weight_bytes_fn(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes);
typedef int sw_linear_prepare_fn(sw_stream *stream, const sw_linear_desc *desc, const float *weight, void *prepared);
/* Scratch for any of the three below with at most desc->tokens tokens. */
typedef int sw_linear_workspace_fn(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes);

/* x [tokens, in]; bias [out] or NULL; y [tokens, out]; pre [tokens, out] or NULL: x W^T + b before the activation, kept for backward. */
typedef int sw_linear_forward_fn(sw_stream *stream, const sw_linear_desc *desc, const void *x, const void *prepared, const float *bias,
                                 void *pre, void *y, void *workspace);
/* dy [tokens, out] becomes g in place (nothing changes without activation); `pre` from forward (NULL without activation).
 * dx [tokens, in] is overwritten, or added to when `accumulate`; NULL: only g is made. */
typedef int sw_linear_backward_input_fn(sw_stream *stream, const sw_linear_desc *desc, void *dy, const void *pre, const void *prepared,
                                        void *dx, int accumulate, void *workspace);
/* g [tokens, out], x [tokens, in]; dweight [out, in] += g^T x, dbias [out] += sum of g (NULL: not wanted). */
typedef int sw_linear_backward_weight_fn(sw_stream *stream, const sw_linear_desc *desc, const void *g, const void *x, float *dweight,
                                         float *dbias, void *workspace);
#endif
