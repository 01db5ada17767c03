/* A SIMT emulator: CUDA kernels as plain C++, for machines without a GPU. kernels/cuda/cuda.cuh includes this instead of CUDA's headers.
 *
 * A block's threads are fibers that run until they block: at a barrier, a warp operation, or their end. What it checks, beyond what
 * AddressSanitizer and UBSan see in ordinary C++: barriers that not all threads reach, shuffles that miss a lane of their mask, launches
 * beyond the limits of the hardware, shared memory that is used before it is written (it starts as NaN), copies used before they
 * were waited for, host code that reads results before it synchronised (work runs only then). A failure names both sites and
 * becomes the launch's error. It does not see bank conflicts, occupancy or real timing.
 *
 * Environment, read at every launch:
 *   SW_CUDA_EMULATOR_ORDER=forward|reversed|random:SEED   order in which threads and blocks run; results must not depend on it. Forward
 *                                     and reversed, a warp runs as far ahead of the others as barriers let it; random, all go in step
 *   SW_CUDA_EMULATOR_SKIP=FILE:LINE   the barrier, warp operation or wait at that place does nothing (mutation tests)
 *   SW_CUDA_EMULATOR_SITES=FILE       at exit, adds a line "FILE:LINE kind" for each such place that was reached */
#ifndef SW_TESTS_CUDA_EMULATOR_H
#define SW_TESTS_CUDA_EMULATOR_H
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

/* --- vector types --- */
struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

/* --- the running thread --- */
struct emu_thread {
  uint3 index;
  unsigned lane;
};
extern emu_thread *emu_self;
extern uint3 emu_block_index;
extern dim3 emu_block_dim, emu_grid_dim;
#define threadIdx (emu_self->index)
#define blockIdx emu_block_index
#define blockDim emu_block_dim
#define gridDim emu_grid_dim
constexpr int warpSize = 32;

/* --- shared memory --- */
void *emu_shared(const void *site, const char *name, size_t bytes);
void *emu_dynamic_shared();
#define SW_SHARED(type, name, count)                                                                                             \
  static const char emu_site_##name = 0;                                                                                         \
  type *const name = static_cast<type *>(emu_shared(&emu_site_##name, #name, sizeof(type) * (count)))
#define SW_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emu_dynamic_shared())

/* --- barriers and warp operations; the default arguments are the caller's place --- */
#define EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
void emu_syncthreads(const char *file, int line);
inline void __syncthreads(EMU_SITE) { emu_syncthreads(file, line); }

/* What the lanes of `mask` bring, and what each takes away; called once, when the last of them has come. */
typedef void emu_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *argument);
/* Waits for the lanes of the mask at this place. in, out: up to 32 bytes. */
void emu_warp_operation(const char *kind, unsigned mask, const void *in, size_t in_bytes, void *out, size_t out_bytes, emu_exchange *exchange,
                        const void *argument, size_t argument_bytes, const char *file, int line);
bool emu_skipped(const char *kind, const char *file, int line);
[[noreturn]] void emu_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_SITE) {
  if (emu_skipped("syncwarp", file, line)) return;
  emu_warp_operation("__syncwarp", mask, nullptr, 0, nullptr, 0, nullptr, nullptr, 0, file, line);
}

/* Shuffles: each lane names the lane it reads; reading one that is not in the mask gives all ones (NaN). */
struct emu_shuffle { uint64_t value; int source; };
void emu_shuffle_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *argument);
template <class T> T emu_shuffle_from(const char *kind, unsigned mask, T value, int source, const char *file, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  if (emu_skipped(kind, file, line)) return value;
  emu_shuffle in = {0, source};
  uint64_t out = 0;
  memcpy(&in.value, &value, sizeof value);
  emu_warp_operation(kind, mask, &in, sizeof in, &out, sizeof out, emu_shuffle_exchange, nullptr, 0, file, line);
  memcpy(&value, &out, sizeof value);
  return value;
}
inline int emu_lane() { return (int)emu_self->lane; }
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_SITE) {
  return emu_shuffle_from("__shfl_sync", mask, value, (emu_lane() & ~(width - 1)) | (source & (width - 1)), file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_SITE) {
  int source = emu_lane() ^ bits;
  if ((source & ~(width - 1)) > (emu_lane() & ~(width - 1))) source = emu_lane();
  return emu_shuffle_from("__shfl_xor_sync", mask, value, source, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_SITE) {
  int source = emu_lane() - (int)delta;
  if (source < (emu_lane() & ~(width - 1))) source = emu_lane();
  return emu_shuffle_from("__shfl_up_sync", mask, value, source, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_SITE) {
  int source = emu_lane() + (int)delta;
  if (source > (emu_lane() | (width - 1))) source = emu_lane();
  return emu_shuffle_from("__shfl_down_sync", mask, value, source, file, line);
}
void emu_ballot_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *argument);
inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_SITE) {
  if (emu_skipped("__ballot_sync", file, line)) return predicate ? 1u << emu_lane() : 0;
  uint64_t in = predicate != 0, out = 0;
  emu_warp_operation("__ballot_sync", mask, &in, sizeof in, &out, sizeof out, emu_ballot_exchange, nullptr, 0, file, line);
  return (unsigned)out;
}
inline int __any_sync(unsigned mask, int predicate, EMU_SITE) { return __ballot_sync(mask, predicate, file, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, EMU_SITE) {
  if (emu_skipped("__all_sync", file, line)) return predicate;
  return __ballot_sync(mask, !predicate, file, line) == 0;
}
unsigned __activemask() = delete; /* nothing may depend on who happens to run together */

/* --- async copies: they land when the thread waits for them --- */
void emu_async_copy16(void *shared, const void *global, bool valid);
void emu_async_commit();
void emu_async_wait(int groups);
inline void sw_async_copy16(void *shared, const void *global, bool valid) { emu_async_copy16(shared, global, valid); }
inline void sw_async_commit() { emu_async_commit(); }
template <int N> void sw_async_wait(EMU_SITE) {
  if (!emu_skipped("async wait", file, line)) emu_async_wait(N);
}

/* --- tensor cores --- */
void emu_ldmatrix_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *argument);
inline void emu_ldmatrix(uint32_t r[4], const void *row, bool transposed, const char *file, int line) {
  if ((uintptr_t)row % 16) emu_fail("%s:%d: ldmatrix of an address that is not a multiple of 16", file, line);
  emu_warp_operation("ldmatrix", 0xffffffffu, &row, sizeof row, r, 16, emu_ldmatrix_exchange, &transposed, sizeof transposed, file, line);
}
inline void sw_ldmatrix_x4(uint32_t r[4], const void *row, EMU_SITE) { emu_ldmatrix(r, row, false, file, line); }
inline void sw_ldmatrix_x4_transposed(uint32_t r[4], const void *row, EMU_SITE) { emu_ldmatrix(r, row, true, file, line); }
void emu_mma_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *argument);
inline void sw_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], EMU_SITE) {
  const uint32_t in[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  double sums[4]; /* of the products, exact but for the last bits of a double */
  emu_warp_operation("mma", 0xffffffffu, in, sizeof in, sums, sizeof sums, emu_mma_exchange, nullptr, 0, file, line);
  for (int i = 0; i < 4; i++) c[i] = (float)(c[i] + sums[i]);
}

/* --- arithmetic --- */
inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
inline float __int_as_float(int i) { return __uint_as_float((uint32_t)i); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
/* one rounding each, never fused with a neighbour (the emulated kernels are compiled with -ffp-contract=off) */
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __frcp_rn(float x) { return 1 / x; }
template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> void __stcs(T *p, T value) { *p = value; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
using std::isfinite;
using std::isinf;
using std::isnan;
inline uint32_t sw_pack_bf16(float low, float high) { return sw_f32_to_bf16(low) | (uint32_t)sw_f32_to_bf16(high) << 16; }
inline float sw_exp2(float x) { return x < -126 ? 0 : exp2f(x); }

/* --- the runtime: what kernels/cuda uses of it. Work on a stream runs when somebody waits for it --- */
typedef enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9,
               cudaErrorNotReady = 600, cudaErrorGraphExecUpdateFailure = 910, cudaErrorLaunchFailure = 719 } cudaError_t;
typedef enum { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault } cudaMemcpyKind;
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
typedef enum { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed } cudaStreamCaptureMode;
typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 } cudaFuncAttribute;
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlockOptin;
  int major, minor, multiProcessorCount;
};
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
/* As on the device, an executable graph takes new parameters, but no other form: the kinds of the nodes must be the same, in order. */
typedef enum { cudaGraphExecUpdateSuccess = 0, cudaGraphExecUpdateErrorTopologyChanged = 2 } cudaGraphExecUpdateResult;
struct cudaGraphExecUpdateResultInfo { cudaGraphExecUpdateResult result; };
typedef struct emu_node *cudaGraphNode_t;
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count);
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);

/* Adds work to a stream: for the library twins beside this file. What runs may fail by emu_set_error. */
void emu_enqueue(cudaStream_t stream, std::function<void()> work, char kind = 'k'); /* kind: k kernel, s set, c copy */
void emu_set_error(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Whether these bytes lie within one allocation of device memory. */
bool emu_device_memory(const void *p, size_t bytes);
/* Stands for kernel<<<...>>>: the limits are checked at once, the threads run later. */
void emu_launch_threads(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, std::function<void()> thread);
template <class... Parameters, class... Arguments>
void emu_launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                Arguments... arguments) {
  std::tuple<std::remove_cv_t<Parameters>...> copies(arguments...); /* by value, as a launch does */
  emu_launch_threads(name, grid, block, shared_bytes, stream, [kernel, copies] { std::apply(kernel, copies); });
}
#endif
