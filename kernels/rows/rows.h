/* Rows of one fp32 table added to chosen rows of another: the word gradients of several micro-batches meet in one table. */
#ifndef SW_KERNELS_ROWS_H
#define SW_KERNELS_ROWS_H
#include <stdint.h>

typedef struct {
  int64_t rows; /* rows of x */
  int hidden;
} sw_add_rows_desc;

/* y[index[i]] += x[i], i in order; the indices of one call are distinct. */
typedef int sw_add_rows_fn(sw_stream *stream, const sw_add_rows_desc *desc, const int32_t *index, const float *x, float *y);
#endif
