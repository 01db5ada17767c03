/* Rows added to rows: a block a row, four columns a thread; the rows of a call are distinct, so nobody shares an element. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/operators.cuh"

static __global__ void add_rows(int hidden, const int32_t *index, const float *x, float *y) {
  const float *from = x + (int64_t)blockIdx.x * hidden;
  float *to = y + (int64_t)index[blockIdx.x] * hidden;
  for (int i = threadIdx.x; i < hidden; i += blockDim.x) to[i] += from[i];
}

int sw_cuda_add_rows(sw_stream *stream, const sw_add_rows_desc *desc, const int32_t *index, const float *x, float *y) {
  if (desc->rows > 0x7fffffff) return sw_fail("add_rows: %lld rows are too many", (long long)desc->rows);
  return sw_launch(stream, "add_rows", add_rows, dim3((unsigned)desc->rows), dim3(128), 0, desc->hidden, index, x, y);
}
