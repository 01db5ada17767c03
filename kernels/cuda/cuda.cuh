/* All that our CUDA kernels may use besides plain C++: launches, shared memory, warp reductions, number formats, and the few PTX
 * instructions behind inline functions. Compiled by nvcc this is the real thing; compiled by the host compiler with
 * SW_CUDA_EMULATED it is the SIMT emulator under tests/cuda_emulator, which runs the same kernels thread by thread.
 *
 * Rules that keep a kernel inside both:
 *  - shared memory comes from SW_SHARED and SW_DYNAMIC_SHARED only; every thread of a block passes the same declarations;
 *  - kernels are started by sw_launch only, and read nothing from host memory;
 *  - no float atomics and no thread order in results: same input, same bits;
 *  - PTX lives in this file only.
 * Fragments of the tensor cores' m16n8k16 product, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16"):
 *   a[0] = A[g][2t, 2t+1]  a[1] = A[g+8][2t, 2t+1]  a[2] = A[g][2t+8, 2t+9]  a[3] = A[g+8][2t+8, 2t+9]
 *   b[0] = B[2t, 2t+1][g]  b[1] = B[2t+8, 2t+9][g]  c[0], c[1] = C[g][2t, 2t+1]  c[2], c[3] = C[g+8][2t, 2t+1]
 * (the lower column or row in the lower half of the register). */
#ifndef SW_KERNELS_CUDA_CUH
#define SW_KERNELS_CUDA_CUH
extern "C" {
#include "base/error.h"
#include "base/philox.h"
#include "kernels/backend.h"
}

#ifdef SW_CUDA_EMULATED
#include "tests/cuda_emulator/cuda_emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* Static and dynamic shared memory, 128-byte aligned. */
#define SW_SHARED(type, name, count) __shared__ __align__(128) type name[count]
#define SW_DYNAMIC_SHARED(type, name)                                                                                            \
  extern __shared__ __align__(128) unsigned char sw_dynamic_shared[];                                                            \
  type *name = reinterpret_cast<type *>(sw_dynamic_shared)

/* The address of shared memory as PTX wants it. */
__device__ __forceinline__ uint32_t sw_shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* 16 bytes from global to shared memory (both 16-byte aligned) in the background; zeros instead where !valid. A commit closes the
 * group of the thread's copies so far; sw_async_wait<N> waits until at most N of its groups are under way. Others see
 * the bytes after a barrier that follows the wait. */
__device__ __forceinline__ void sw_async_copy16(void *shared, const void *global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sw_shared_address(shared)), "l"(global), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void sw_async_commit() { asm volatile("cp.async.commit_group;"); }
template <int N> __device__ __forceinline__ void sw_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Four 8 x 8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, 16-byte aligned), r[j] gets
 * matrix j's elements [lane / 4][2 (lane % 4), + 1]; transposed: [2 (lane % 4), + 1][lane / 4]. */
__device__ __forceinline__ void sw_ldmatrix_x4(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(sw_shared_address(row)) : "memory");
}
__device__ __forceinline__ void sw_ldmatrix_x4_transposed(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(sw_shared_address(row)) : "memory");
}
/* c += a b, bf16 factors, fp32 sums. */
__device__ __forceinline__ void sw_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Two floats rounded to bf16, `low` in the lower half. */
__device__ __forceinline__ uint32_t sw_pack_bf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
/* 2^x, to 2 units in the last place (2^-126 and less come out as 0). */
__device__ __forceinline__ float sw_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

/* --- launches --- */
/* The stream of an operator's call. */
static inline cudaStream_t sw_cuda_stream(const sw_stream *stream) { return (cudaStream_t)stream->handle; }

/* 0, or -1 with sw_error() naming `what` and CUDA's reason. The runtime then forgets it, or the next launch would be blamed for it (what
 * a kernel has broken stays). */
static inline int sw_cuda_check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return 0;
  sw_fail("CUDA: %s: %s", what, cudaGetErrorString(error));
  cudaGetLastError();
  return -1;
}
/* Starts kernel<<<grid, block, shared_bytes>>>(arguments...) on the operator's stream. A grid of 0 blocks does nothing. */
template <class... Parameters, class... Arguments>
int sw_launch(const sw_stream *stream, const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
              Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return 0;
  if (shared_bytes > 48 * 1024 &&
      sw_cuda_check(cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), name))
    return -1;
#ifdef SW_CUDA_EMULATED
  emu_launch<Parameters...>(name, kernel, grid, block, shared_bytes, sw_cuda_stream(stream), arguments...);
#else
  kernel<<<grid, block, shared_bytes, sw_cuda_stream(stream)>>>(arguments...);
#endif
  return sw_cuda_check(cudaGetLastError(), name);
}
/* Blocks for `count` items, `each` a block. */
static inline unsigned sw_blocks(int64_t count, int64_t each) { return (unsigned)((count + each - 1) / each); }

/* --- warps --- */
constexpr int SW_WARP = 32;
constexpr unsigned SW_ALL_LANES = 0xffffffffu;

/* The sum of all 32 lanes, in every lane; always the same tree. */
template <class T> __device__ __forceinline__ T sw_warp_sum(T value) {
#pragma unroll
  for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(SW_ALL_LANES, value, step);
  return value;
}

/* --- number formats --- */
__device__ __forceinline__ float sw_to_float(float x) { return x; }
__device__ __forceinline__ float sw_to_float(sw_bf16 x) { return __uint_as_float((uint32_t)x << 16); }
__device__ __forceinline__ float sw_low_float(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float sw_high_float(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
template <class T> __device__ __forceinline__ T sw_from_float(float x);
template <> __device__ __forceinline__ float sw_from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ sw_bf16 sw_from_float<sw_bf16>(float x) { return (sw_bf16)sw_pack_bf16(x, 0); }

/* Four neighbours at an index divisible by 4: one 16-byte (fp32) or 8-byte (bf16) access. The tensor is at least so aligned. */
__device__ __forceinline__ float4 sw_load4(const float *p) { return *reinterpret_cast<const float4 *>(p); }
__device__ __forceinline__ float4 sw_load4(const sw_bf16 *p) {
  uint2 v = *reinterpret_cast<const uint2 *>(p);
  return make_float4(sw_low_float(v.x), sw_high_float(v.x), sw_low_float(v.y), sw_high_float(v.y));
}
__device__ __forceinline__ void sw_store4(float *p, float4 v) { *reinterpret_cast<float4 *>(p) = v; }
__device__ __forceinline__ void sw_store4(sw_bf16 *p, float4 v) {
  *reinterpret_cast<uint2 *>(p) = make_uint2(sw_pack_bf16(v.x, v.y), sw_pack_bf16(v.z, v.w));
}

/* W neighbours at an index divisible by W, one access. */
template <int W> struct alignas(4 * W) sw_floats {
  float v[W];
};
template <int W> __device__ __forceinline__ sw_floats<W> sw_load(const float *p) { return *reinterpret_cast<const sw_floats<W> *>(p); }
template <int W> __device__ __forceinline__ void sw_store(float *p, sw_floats<W> x) { *reinterpret_cast<sw_floats<W> *>(p) = x; }

/* --- dropout (kernels/backend.h says which element is kept) --- */
struct sw_dropout_mask {
  uint32_t threshold, site, step;
  uint64_t seed;
  float scale;
  uint64_t first; /* sw_dropout's, in quads */
  /* Multipliers (0 or 1 / (1 - p)) of elements 4 * quad .. 4 * quad + 3. */
  __device__ __forceinline__ float4 four(uint64_t quad) const {
    quad += first;
    const uint32_t counter[4] = {(uint32_t)quad, (uint32_t)(quad >> 32), site, step};
    uint32_t w[4];
    sw_philox_device(seed, counter, w);
    return make_float4(w[0] >= threshold ? scale : 0.0f, w[1] >= threshold ? scale : 0.0f, w[2] >= threshold ? scale : 0.0f,
                       w[3] >= threshold ? scale : 0.0f);
  }
  /* Which of these four are kept: bit k for element 4 * quad + k. */
  __device__ __forceinline__ unsigned kept(uint64_t quad) const {
    quad += first;
    const uint32_t counter[4] = {(uint32_t)quad, (uint32_t)(quad >> 32), site, step};
    uint32_t w[4];
    sw_philox_device(seed, counter, w);
    return (w[0] >= threshold ? 1u : 0u) | (w[1] >= threshold ? 2u : 0u) | (w[2] >= threshold ? 4u : 0u) | (w[3] >= threshold ? 8u : 0u);
  }
  /* The multiplier of one element. */
  __device__ __forceinline__ float one(uint64_t element) const {
    const float4 m = four(element >> 2);
    const unsigned k = (unsigned)element & 3;
    return k == 0 ? m.x : k == 1 ? m.y : k == 2 ? m.z : m.w;
  }
  __device__ static __forceinline__ void sw_philox_device(uint64_t key, const uint32_t counter[4], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) { /* base/philox.h */
      const uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0, h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
      c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
  }
};
/* p > 0 (kernels take a template flag where there is none). The threshold is the smallest whole number not below p 2^32. */
static inline sw_dropout_mask sw_dropout_mask_of(const sw_dropout &d) {
  const double t = (double)d.p * 4294967296.0;
  uint64_t whole = (uint64_t)t;
  whole += (double)whole < t;
  return {whole > 0xffffffffu ? 0xffffffffu : (uint32_t)whole, d.site, d.step, d.seed, 1.0f / (1.0f - d.p), d.first >> 2};
}

/* Calls f with a null pointer of the C++ type of a dtype: dispatch over the two storage formats. */
template <class F> int sw_with_type(sw_dtype dtype, F f) { return dtype == SW_F32 ? f((float *)nullptr) : f((sw_bf16 *)nullptr); }
#endif
