/* Dropout of a whole tensor (Srivastava et al. 2014), its mask by counters as sw_dropout says. It is its own backward. */
#ifndef SW_KERNELS_DROPOUT_H
#define SW_KERNELS_DROPOUT_H
#include <stdint.h>

typedef struct {
  int64_t count;
  sw_dtype dtype;
  sw_dropout dropout;
} sw_dropout_desc;

/* y[i] = x[i] kept ? x[i] / (1 - p) : 0; may be in place. */
typedef int sw_dropout_fn(sw_stream *stream, const sw_dropout_desc *desc, const void *x, void *y);
#endif
