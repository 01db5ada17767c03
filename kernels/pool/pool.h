/* From token states to one vector a sequence, and rows picked by index.
 * mean: average over the sequence's tokens; cls: its first token; max: per feature; sum: over its tokens. Then y / max(|y|, 1e-12) when
 * normalize. */
#ifndef SW_KERNELS_POOL_H
#define SW_KERNELS_POOL_H
#include <stddef.h>
#include <stdint.h>

typedef enum { SW_POOL_MEAN, SW_POOL_CLS, SW_POOL_MAX, SW_POOL_SUM } sw_pooling;

typedef struct {
  int batch;
  int64_t total_tokens;
  int hidden;
  sw_pooling pooling;
  int normalize;
  sw_dtype dtype; /* of x and dx */
} sw_pool_desc;

/* x [total, hidden]; y [batch, hidden] fp32; norms [batch] or NULL: length of the pooled vector before normalisation, for backward.
 * An empty sequence gives zeros. The CPU refuses cu_seqlens that fall or leave the tokens; a GPU fills such a sequence's y with NaN, and
 * gives it no gradient. */
typedef int sw_pool_forward_fn(sw_stream *stream, const sw_pool_desc *desc, const int32_t *cu_seqlens, const void *x, float *y, float *norms);
/* dy [batch, hidden] fp32, y and norms from forward, x (for max; the first of equal maxima gets the gradient); dx is overwritten. */
typedef int sw_pool_backward_fn(sw_stream *stream, const sw_pool_desc *desc, const int32_t *cu_seqlens, const void *x, const float *y,
                                const float *norms, const float *dy, void *dx);

typedef struct {
  int64_t tokens; /* rows of x */
  int64_t rows;   /* rows picked */
  int hidden;
  sw_dtype dtype;
} sw_gather_desc;
/* y [rows, hidden] = x[index[i]]; index int32, within [0, tokens): the CPU refuses others, a GPU fills their rows with NaN. */
typedef int sw_gather_forward_fn(sw_stream *stream, const sw_gather_desc *desc, const int32_t *index, const void *x, void *y);
/* dx [tokens, hidden] is overwritten: zero but for the picked rows. The indices are distinct; a GPU leaves out
 * those outside [0, tokens), which the CPU refuses. */
typedef int sw_gather_backward_fn(sw_stream *stream, const sw_gather_desc *desc, const int32_t *index, const void *dy, void *dx);
#endif
