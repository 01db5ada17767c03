/* One number from many, always in the same order: threads add up in a tree, blocks leave their sums in the caller's workspace, and one
 * block adds those. */
#ifndef SW_KERNELS_CUDA_SUM_CUH
#define SW_KERNELS_CUDA_SUM_CUH
#include "kernels/cuda/cuda.cuh"

/* Most blocks of a kernel that sums: each has a double in the workspace. */
constexpr int SW_SUM_BLOCKS = SW_SUM_WORKSPACE / (int)sizeof(double);

/* The sum over a block of whole warps, in every thread. Once in a kernel: nothing keeps a second call's values apart. */
template <class T> __device__ __forceinline__ T sw_block_sum(T value) {
  SW_SHARED(T, warps, SW_WARP);
  const int lane = (int)threadIdx.x % SW_WARP;
  value = sw_warp_sum(value);
  if (lane == 0) warps[threadIdx.x / SW_WARP] = value;
  __syncthreads();
  return sw_warp_sum(lane < (int)blockDim.x / SW_WARP ? warps[lane] : T(0));
}

static __global__ void __launch_bounds__(SW_SUM_BLOCKS) sw_add_partials(int count, const double *partials, bool accumulate, double *sum) {
  const double total = sw_block_sum((int)threadIdx.x < count ? partials[threadIdx.x] : 0.0);
  if (threadIdx.x == 0) *sum = accumulate ? *sum + total : total;
}
/* *sum = or += the sum of `blocks` partial sums. */
static inline int sw_finish_sum(const sw_stream *stream, const char *name, unsigned blocks, const void *workspace, bool accumulate,
                                double *sum) {
  return sw_launch(stream, name, sw_add_partials, dim3(1), dim3(SW_SUM_BLOCKS), 0, (int)blocks, (const double *)workspace, accumulate, sum);
}
#endif
