/* Dropout of a whole tensor: four elements, one Philox counter, a thread. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/operators.cuh"

template <class T> static __global__ void dropout(int64_t count, sw_dropout_mask mask, const T *x, T *y) {
  const int64_t quad = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, at = quad * 4;
  if (at >= count) return;
  const float4 m = mask.four((uint64_t)quad);
  const float multipliers[4] = {m.x, m.y, m.z, m.w};
  if (at + 4 <= count) {
    const float4 v = sw_load4(x + at);
    /* x / (1 - p) even where x is infinite, 0 even where it is NaN, as the CPU's */
    sw_store4(y + at, make_float4(m.x > 0 ? v.x * m.x : 0.0f, m.y > 0 ? v.y * m.y : 0.0f, m.z > 0 ? v.z * m.z : 0.0f, m.w > 0 ? v.w * m.w : 0.0f));
    return;
  }
  for (int i = 0; at + i < count; i++) y[at + i] = sw_from_float<T>(multipliers[i] > 0 ? sw_to_float(x[at + i]) * multipliers[i] : 0.0f);
}

int sw_cuda_dropout(sw_stream *stream, const sw_dropout_desc *desc, const void *x, void *y) {
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (!(desc->dropout.p > 0)) {
      if (x == y || !desc->count) return 0;
      return sw_cuda_check(cudaMemcpyAsync(y, x, (size_t)desc->count * sizeof(T), cudaMemcpyDeviceToDevice, sw_cuda_stream(stream)), "dropout");
    }
    const int64_t quads = (desc->count + 3) / 4;
    return sw_launch(stream, "dropout", dropout<T>, dim3(sw_blocks(quads, 256)), dim3(256), 0, desc->count, sw_dropout_mask_of(desc->dropout),
                     (const T *)x, (T *)y);
  });
}
