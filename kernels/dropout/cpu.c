#include "base/error.h"
#include "kernels/dropout/mask.h"
#include "kernels/isa.h"

sw_dropout_fn SW_CPU(dropout);

enum { CHUNK = 1024, PARALLEL_FROM = 1 << 15 };

SW_INLINE void drop(const sw_dropout_desc *desc, sw_dtype dtype, const void *x, void *y, int64_t start, int n) {
  float buffer[SW_DROPOUT_ROOM(CHUNK)];
  const float *keep = sw_dropout_row(&desc->dropout, (uint64_t)start, n, buffer);
  int i = 0;
  for (; i + SW_LANES <= n; i += SW_LANES) vf_put(y, dtype, start + i, vf_get(x, dtype, start + i) * vf_load(keep + i));
  for (; i < n; i++) sw_put(y, dtype, start + i, sw_get(x, dtype, start + i) * keep[i]);
}

int SW_CPU(dropout)(sw_stream *stream, const sw_dropout_desc *desc, const void *x, void *y) {
  if (desc->count < 0) return sw_fail("dropout: %lld elements", (long long)desc->count);
  if (!(desc->dropout.p >= 0 && desc->dropout.p < 1)) return sw_fail("dropout: p = %g is not in [0, 1)", (double)desc->dropout.p);
  if (desc->dropout.p == 0) {
    if (x != y && desc->count) memcpy(y, x, (size_t)desc->count * sw_dtype_bytes(desc->dtype));
    return 0;
  }
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (desc->count >= PARALLEL_FROM)
  for (int64_t start = 0; start < desc->count; start += CHUNK) {
    int n = desc->count - start < CHUNK ? (int)(desc->count - start) : CHUNK;
    if (desc->dtype == SW_F32)
      drop(desc, SW_F32, x, y, start, n);
    else
      drop(desc, SW_BF16, x, y, start, n);
  }
  return 0;
}
