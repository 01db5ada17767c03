#include "kernels/backend.h"
#include "kernels/isa.h"

sw_add_rows_fn SW_CPU(add_rows);

int SW_CPU(add_rows)(sw_stream *stream, const sw_add_rows_desc *desc, const int32_t *index, const float *x, float *y) {
  const int64_t hidden = desc->hidden;
#pragma omp parallel for num_threads(stream->threads) if (desc->rows * hidden > 1 << 15) schedule(static)
  for (int64_t i = 0; i < desc->rows; i++) {
    const float *from = x + i * hidden;
    float *to = y + index[i] * hidden;
    for (int64_t k = 0; k < hidden; k++) to[k] += from[k];
  }
  return 0;
}
