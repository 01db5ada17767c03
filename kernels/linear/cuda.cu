/* Linear layers on the GPU: cuBLASLt multiplies, two kernels of our own do the activations and conversions, one the bias gradient.
 *
 * Layout. What is row-major [tokens, features] here is a column-major features x tokens matrix there, and the weight [out, in] is in x out:
 *   forward          Y (out x tokens) = W^T X + bias          W is the prepared weight, a copy in the dtype of x;
 *   input gradient   dX (in x tokens) = W G + beta dX         the same copy serves both, read the other way round;
 *   weight gradient  dW (in x out)    = X G^T + dW            fp32, whatever the factors are.
 * fp32 is CUBLAS_COMPUTE_32F: no TF32. The product's type is bf16 or fp32 for bf16 factors, fp32 for fp32 factors; other combinations of
 * dtypes (fp32 gradients of bf16 states, bf16 results of fp32 states) are converted by a pass through the workspace.
 *
 * The bias is always added by the product (CUBLASLT_EPILOGUE_BIAS), in the product's type, which cuBLASLt asks for: it is copied (rounded
 * to bf16 where y is bf16) into the workspace, which also settles its alignment. Activations are kernels of our own, all of them, eight
 * elements a thread: cuBLASLt's GELU is the tanh approximation, not BERT's, so only SW_GELU_TANH could use it, and that only without a
 * conversion; one way for all is simpler. They read what the product wrote (pre, or y in place), so in bf16 it is the rounded value that is
 * activated. Nor is the bias gradient fused (BGRADB overwrites, in a type of its own, and which types it serves differs between devices):
 * column sums in two stages, the first over chunks of rows, whose number depends on the number of tokens only.
 *
 * The same bits for a row in any batch. A product of one shape and type always uses one algorithm, the library's first choice for CANONICAL
 * tokens that sums over k in one sequence (no split k, no reduction scheme) and needs no workspace: tiles differ in which rows they hold, not
 * in the order in which one element is summed. (A kernel that deals out equal parts of all sums to the multiprocessors, as stream-K does, would
 * cut k where the number of tokens says, but has to leave partial sums in a workspace.) The library promises none of this: the tests compare
 * bits. The alignment that is claimed is that of every row, not of the pointers of one call. In the weight gradient tokens are summed over, so
 * no row could be the same in two batches; there the sum may be split, with a reduction through the workspace, in fixed order (768 x 768
 * outputs alone would leave most of the GPU idle), by an algorithm for each power of two of tokens. Handles and algorithms are kept
 * under a mutex until the device is closed; a call allocates nothing. */
#include "kernels/cuda/cuda.cuh"
extern "C" {
#include "kernels/linear/check.h"
}
#include "kernels/cuda/operators.cuh"
#ifdef SW_CUDA_EMULATED
#include "tests/cuda_emulator/cublasLt.h"
#else
#include <cublasLt.h>
#endif
#include <cstdlib>
#include <mutex>
#include <tuple>

/* ------------------------------------------------ elementwise ------------------------------------------------ */

constexpr int THREADS = 256, EIGHT = 8;

static __device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
/* x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3) is x/2 (1 + tanh u), with one exponential. */
static __device__ __forceinline__ float tanh_gate(float x) {
  return 1.0f / (1.0f + expf(x * -2.0f * (0.79788456080286536f + 0.035677408136300125f * x * x)));
}
static __device__ __forceinline__ float gelu_tanh(float x) { return x * tanh_gate(x); }
static __device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; } /* NaN stays */

/* Constant beyond +-limit, so that there is no 0 * infinity; NaN stays. */
static __device__ __forceinline__ float within(float x, float limit) { return x > limit ? limit : x < -limit ? -limit : x; }
static __device__ __forceinline__ float gelu_slope(float x) {
  const float c = within(x, 20.0f);
  return 0.5f + 0.5f * erff(c * 0.70710678118654752f) + c * 0.39894228040143268f * expf(-0.5f * c * c);
}
static __device__ __forceinline__ float gelu_tanh_slope(float x) {
  const float c = within(x, 20.0f), s = tanh_gate(c);
  return s + c * s * (1.0f - s) * (1.5957691216057308f + 0.21406444881780074f * c * c);
}
static __device__ __forceinline__ float tanh_slope(float x) {
  const float t = tanhf(x);
  return 1.0f - t * t;
}
static __device__ __forceinline__ float relu_slope(float x) { return x <= 0.0f ? 0.0f : 1.0f; }

template <float F(float)> static __device__ __forceinline__ void each(float v[EIGHT]) {
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = F(v[i]);
}
static __device__ __forceinline__ void activate(sw_activation activation, float v[EIGHT]) {
  switch (activation) {
  case SW_GELU: return each<gelu>(v);
  case SW_GELU_TANH: return each<gelu_tanh>(v);
  case SW_TANH: return each<tanhf>(v);
  case SW_RELU: return each<relu>(v);
  case SW_NO_ACTIVATION: return;
  }
}
static __device__ __forceinline__ void slope(sw_activation activation, float v[EIGHT]) {
  switch (activation) {
  case SW_GELU: return each<gelu_slope>(v);
  case SW_GELU_TANH: return each<gelu_tanh_slope>(v);
  case SW_TANH: return each<tanh_slope>(v);
  case SW_RELU: return each<relu_slope>(v);
  case SW_NO_ACTIVATION: return;
  }
}

/* Eight neighbours at a 16-byte aligned place. */
static __device__ __forceinline__ void load8(const float *p, float v[EIGHT]) {
  const float4 a = sw_load4(p), b = sw_load4(p + 4);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
static __device__ __forceinline__ void load8(const sw_bf16 *p, float v[EIGHT]) {
  const uint4 w = *reinterpret_cast<const uint4 *>(p);
  v[0] = sw_low_float(w.x), v[1] = sw_high_float(w.x), v[2] = sw_low_float(w.y), v[3] = sw_high_float(w.y);
  v[4] = sw_low_float(w.z), v[5] = sw_high_float(w.z), v[6] = sw_low_float(w.w), v[7] = sw_high_float(w.w);
}
static __device__ __forceinline__ void store8(float *p, const float v[EIGHT]) {
  sw_store4(p, make_float4(v[0], v[1], v[2], v[3]));
  sw_store4(p + 4, make_float4(v[4], v[5], v[6], v[7]));
}
static __device__ __forceinline__ void store8(sw_bf16 *p, const float v[EIGHT]) {
  *reinterpret_cast<uint4 *>(p) =
      make_uint4(sw_pack_bf16(v[0], v[1]), sw_pack_bf16(v[2], v[3]), sw_pack_bf16(v[4], v[5]), sw_pack_bf16(v[6], v[7]));
}
/* The same with `count` elements left; one by one where there are fewer than eight or !aligned. */
template <class T> static __device__ __forceinline__ void load_some(const T *p, bool aligned, int64_t count, float v[EIGHT]) {
  if (aligned && count >= EIGHT) return load8(p, v);
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] = i < count ? sw_to_float(p[i]) : 0.0f;
}
template <class T> static __device__ __forceinline__ void store_some(T *p, bool aligned, int64_t count, const float v[EIGHT]) {
  if (aligned && count >= EIGHT) return store8(p, v);
#pragma unroll
  for (int i = 0; i < EIGHT; i++)
    if (i < count) p[i] = sw_from_float<T>(v[i]);
}

/* pre (may be NULL) = x, y = activation(x); x may be y. Without activation and pre: a conversion. */
template <class From, class To>
static __global__ void __launch_bounds__(THREADS)
    finish(int64_t count, bool aligned, sw_activation activation, const From *x, To *pre, To *y) {
  const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EIGHT;
  if (at >= count) return;
  float v[EIGHT];
  load_some(x + at, aligned, count - at, v);
  if (pre) store_some(pre + at, aligned, count - at, v);
  activate(activation, v);
  store_some(y + at, aligned, count - at, v);
}
/* dy *= activation'(pre) */
template <class T>
static __global__ void __launch_bounds__(THREADS) gradient(int64_t count, bool aligned, sw_activation activation, T *dy, const T *pre) {
  const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EIGHT;
  if (at >= count) return;
  float g[EIGHT], v[EIGHT];
  load_some(dy + at, aligned, count - at, g);
  load_some(pre + at, aligned, count - at, v);
  slope(activation, v);
#pragma unroll
  for (int i = 0; i < EIGHT; i++) v[i] *= g[i];
  store_some(dy + at, aligned, count - at, v);
}

static bool aligned16(const void *p) { return (uintptr_t)p % 16 == 0; }

static int run_finish(const sw_stream *stream, int64_t count, sw_activation activation, sw_dtype from, const void *x, sw_dtype to,
                      void *pre, void *y) {
  return sw_with_type(from, [&](auto *a) {
    return sw_with_type(to, [&](auto *b) {
      using From = std::remove_pointer_t<decltype(a)>;
      using To = std::remove_pointer_t<decltype(b)>;
      return sw_launch(stream, "linear: activation", finish<From, To>, dim3(sw_blocks(count, THREADS * EIGHT)), dim3(THREADS), 0, count,
                       aligned16(x) && aligned16(pre) && aligned16(y), activation, (const From *)x, (To *)pre, (To *)y);
    });
  });
}
static int convert(const sw_stream *stream, int64_t count, sw_dtype from, const void *x, sw_dtype to, void *y) {
  return run_finish(stream, count, SW_NO_ACTIVATION, from, x, to, nullptr, y);
}

/* ------------------------------------------------ bias gradient ------------------------------------------------ */

constexpr int WARPS = THREADS / SW_WARP, CHUNKS = 256, CHUNK_ROWS = 64;

/* V columns a lane (16 bytes, or one element where rows are not whole numbers of those). */
template <int V> static __device__ __forceinline__ void load_columns(const float *p, float v[V]) {
  if (V == 1)
    v[0] = *p;
  else {
    const float4 a = sw_load4(p);
    v[0] = a.x, v[1 % V] = a.y, v[2 % V] = a.z, v[3 % V] = a.w;
  }
}
template <int V> static __device__ __forceinline__ void load_columns(const sw_bf16 *p, float v[V]) {
  if (V == 1)
    v[0] = sw_to_float(*p);
  else {
    float all[EIGHT];
    load8(p, all);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = all[i];
  }
}
/* sums[chunk][column] = the sum of g[row][column] over the chunk's rows, blockIdx.y being the chunk; ADD: one chunk, added to what sums
 * holds. A warp takes every eighth row, a block the columns of 32 lanes; then the warps' sums are added in order. */
template <class T, int V, bool ADD>
static __global__ void __launch_bounds__(THREADS) column_sums(int64_t rows, int64_t columns, int64_t chunk_rows, const T *g, float *sums) {
  SW_SHARED(float, shared, WARPS * V * SW_WARP);
  const int lane = threadIdx.x % SW_WARP, warp = threadIdx.x / SW_WARP;
  const int64_t column = ((int64_t)blockIdx.x * SW_WARP + lane) * V, first = blockIdx.y * chunk_rows;
  const int64_t end = first + chunk_rows < rows ? first + chunk_rows : rows;
  float sum[V] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = first + warp; row < end; row += WARPS) {
      float v[V];
      load_columns<V>(g + row * columns + column, v);
#pragma unroll
      for (int i = 0; i < V; i++) sum[i] += v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < V; i++) shared[(warp * V + i) * SW_WARP + lane] = sum[i];
  __syncthreads();
  if (warp >= V || column >= columns) return; /* warp i adds up the i-th columns of the lanes */
  float total = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) total += shared[(w * V + warp) * SW_WARP + lane];
  float *to = sums + blockIdx.y * columns + column + warp;
  *to = ADD ? *to + total : total;
}

template <class T, bool ADD>
static int run_column_sums(const sw_stream *stream, int64_t rows, int64_t columns, int64_t chunks, int64_t chunk_rows, const T *g,
                           float *sums) {
  constexpr int V = 16 / sizeof(T);
  const bool wide = columns % V == 0 && aligned16(g);
  const dim3 grid(sw_blocks(columns, SW_WARP * (wide ? V : 1)), (unsigned)chunks);
  return sw_launch(stream, "linear: bias gradient", wide ? column_sums<T, V, ADD> : column_sums<T, 1, ADD>, grid, dim3(THREADS), 0, rows,
                   columns, chunk_rows, g, sums);
}
/* dbias += the column sums of g; partial: [CHUNKS, columns]. */
static int bias_gradient(const sw_stream *stream, int64_t rows, int64_t columns, sw_dtype dtype, const void *g, float *partial,
                         float *dbias) {
  int64_t chunk_rows = sw_blocks(rows, CHUNKS);
  if (chunk_rows < CHUNK_ROWS) chunk_rows = CHUNK_ROWS;
  const int64_t chunks = sw_blocks(rows, chunk_rows);
  return sw_with_type(dtype, [&](auto *type) {
    const auto *from = static_cast<decltype(type)>(const_cast<void *>(g));
    using T = std::remove_pointer_t<decltype(type)>;
    if (chunks == 1) return run_column_sums<T, true>(stream, rows, columns, 1, rows, from, dbias);
    return run_column_sums<T, false>(stream, rows, columns, chunks, chunk_rows, from, partial) ||
                   run_column_sums<float, true>(stream, chunks, columns, 1, chunks, partial, dbias)
               ? -1
               : 0;
  });
}

/* ------------------------------------------------ products ------------------------------------------------ */

#ifdef SW_CUDA_EMULATED
static const size_t LIBRARY_BYTES = 64 << 10;
#else
static const size_t LIBRARY_BYTES = 32 << 20; /* what NVIDIA recommends for Hopper */
#endif
/* tokens: of the choice, up to which a weight gradient is not split, and that an algorithm must be able to take: with many more, tensors pass
 * 2^31 elements, where kernels may refuse; a call with so many says so itself */
static const int64_t CANONICAL = 4096, UNSPLIT = 512, MOST = 1 << 18;
static const size_t LIBRARY_ALIGNMENT = 256;

enum operation { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT };

/* What an algorithm is chosen for. */
struct kind {
  operation op;
  int in, out;
  sw_dtype dtype, result; /* of the factors, of the product */
  bool bias;
  int64_t tokens; /* for which it is chosen */
  auto key() const { return std::tie(op, in, out, dtype, result, bias, tokens); }
};
/* Of the library's workspace. */
static size_t library_bytes(const kind &k) { return k.op == WEIGHT_GRADIENT ? LIBRARY_BYTES : 0; }
struct product {
  kind what;
  cublasLtMatmulAlgo_t algorithm;
  product *next;
};
struct library { /* of one device */
  const sw_device *device;
  cublasLtHandle_t handle;
  product *products;
  library *next;
};
static std::mutex mutex;
static library *libraries;

static int lt_check(cublasStatus_t status, const char *what) {
  return status == CUBLAS_STATUS_SUCCESS ? 0 : sw_fail("linear: cuBLASLt cannot %s: %s", what, cublasLtGetStatusString(status));
}

/* With the mutex held. */
static library *find_library(const sw_device *device) {
  for (library *l = libraries; l; l = l->next)
    if (l->device == device) return l;
  library *l = static_cast<library *>(calloc(1, sizeof *l));
  if (!l) {
    sw_fail("out of memory");
    return nullptr;
  }
  if (sw_cuda_choose(device) || lt_check(cublasLtCreate(&l->handle), "start")) { /* a handle is of the device that is chosen then */
    free(l);
    return nullptr;
  }
  l->device = device;
  l->next = libraries;
  return libraries = l;
}
void sw_cuda_linear_close(const sw_device *device) {
  std::lock_guard<std::mutex> lock(mutex);
  for (library **at = &libraries; *at;) {
    library *l = *at;
    if (l->device != device) {
      at = &l->next;
      continue;
    }
    *at = l->next;
    while (product *p = l->products) {
      l->products = p->next;
      free(p);
    }
    cublasLtDestroy(l->handle);
    free(l);
  }
}

static cudaDataType_t lt_type(sw_dtype dtype) { return dtype == SW_F32 ? CUDA_R_32F : CUDA_R_16BF; }
/* Of every row of that many elements in a tensor that starts aligned. */
static uint32_t row_alignment(int features, sw_dtype dtype) {
  const size_t bytes = (size_t)features * sw_dtype_bytes(dtype), lowest = bytes & -bytes;
  return lowest < 16 ? (uint32_t)lowest : 16;
}

/* D = op(A) op(B) (+ bias) in cuBLASLt's words. */
struct description {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, d;
  uint32_t a_alignment, b_alignment, d_alignment;
};
template <class T> static cublasStatus_t set(description *c, cublasLtMatmulDescAttributes_t attribute, T value) {
  return cublasLtMatmulDescSetAttribute(&c->operation, attribute, &value, sizeof value);
}
static int describe(const kind &k, int64_t tokens, const void *bias, description *c) {
  const cublasOperation_t transpose_a = k.op == FORWARD ? CUBLAS_OP_T : CUBLAS_OP_N,
                          transpose_b = k.op == WEIGHT_GRADIENT ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasLtMatrixLayoutOpaque_t *weight = k.op == WEIGHT_GRADIENT ? &c->d : &c->a;
  cublasLtMatrixLayoutOpaque_t *x = k.op == FORWARD ? &c->b : k.op == INPUT_GRADIENT ? &c->d : &c->a;
  cublasLtMatrixLayoutOpaque_t *y = k.op == FORWARD ? &c->d : &c->b;
  auto type = [&](const cublasLtMatrixLayoutOpaque_t *layout) { return lt_type(layout == &c->d ? k.result : k.dtype); };
  c->a_alignment = row_alignment(k.in, k.dtype);
  c->b_alignment = row_alignment(k.op == FORWARD ? k.in : k.out, k.dtype);
  c->d_alignment = row_alignment(k.op == FORWARD ? k.out : k.in, k.result);
  cublasStatus_t status = cublasLtMatmulDescInit(&c->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  if (!status) status = set(c, CUBLASLT_MATMUL_DESC_TRANSA, transpose_a);
  if (!status) status = set(c, CUBLASLT_MATMUL_DESC_TRANSB, transpose_b);
  if (!status) status = cublasLtMatrixLayoutInit(weight, type(weight), (uint64_t)k.in, (uint64_t)k.out, k.in);
  if (!status) status = cublasLtMatrixLayoutInit(x, type(x), (uint64_t)k.in, (uint64_t)tokens, k.in);
  if (!status) status = cublasLtMatrixLayoutInit(y, type(y), (uint64_t)k.out, (uint64_t)tokens, k.out);
  if (!status && k.bias) {
    status = set(c, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    if (!status) status = set(c, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  return lt_check(status, "describe a product");
}

static bool runs(cublasLtHandle_t handle, const kind &k, int64_t tokens, const void *bias, const cublasLtMatmulAlgo_t *algorithm) {
  description c;
  cublasLtMatmulHeuristicResult_t result;
  return !describe(k, tokens, bias, &c) &&
         cublasLtMatmulAlgoCheck(handle, &c.operation, &c.a, &c.b, &c.d, &c.d, algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= library_bytes(k);
}
static bool in_one_sequence(const cublasLtMatmulAlgo_t *algorithm) {
  int32_t splits = 0;
  uint32_t scheme = 0;
  size_t written;
  return cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written) ==
             CUBLAS_STATUS_SUCCESS &&
         cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &written) ==
             CUBLAS_STATUS_SUCCESS &&
         splits <= 1 && scheme == CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* The library's first choice that keeps to the rules and runs with as few and as many tokens as it may meet. */
static int choose(cublasLtHandle_t handle, const kind &k, cublasLtMatmulAlgo_t *algorithm) {
  const void *bias = (const void *)LIBRARY_ALIGNMENT; /* only its alignment is looked at */
  const bool split = k.op == WEIGHT_GRADIENT && k.tokens > UNSPLIT;
  const int64_t fewest = split ? k.tokens / 2 + 1 : 1, most = k.op == WEIGHT_GRADIENT ? k.tokens : MOST;
  const uint32_t schemes = split ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
  const uint64_t workspace = library_bytes(k);
  description c;
  cublasLtMatmulPreferenceOpaque_t preference;
  cublasLtMatmulHeuristicResult_t found[16];
  int count = 0;
  if (describe(k, k.tokens, bias, &c)) return -1;
  cublasStatus_t status = cublasLtMatmulPreferenceInit(&preference);
#define PREFER(what, value)                                                                                                                \
  if (!status) status = cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_##what, &(value), sizeof(value))
  PREFER(MAX_WORKSPACE_BYTES, workspace);
  PREFER(REDUCTION_SCHEME_MASK, schemes);
  PREFER(MIN_ALIGNMENT_A_BYTES, c.a_alignment);
  PREFER(MIN_ALIGNMENT_B_BYTES, c.b_alignment);
  PREFER(MIN_ALIGNMENT_C_BYTES, c.d_alignment);
  PREFER(MIN_ALIGNMENT_D_BYTES, c.d_alignment);
#undef PREFER
  if (!status)
    status = cublasLtMatmulAlgoGetHeuristic(handle, &c.operation, &c.a, &c.b, &c.d, &c.d, &preference, (int)(sizeof found / sizeof *found),
                                            found, &count);
  if (status && status != CUBLAS_STATUS_NOT_SUPPORTED) return lt_check(status, "choose an algorithm");
  for (int i = 0; i < count; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS && (split || in_one_sequence(&found[i].algo)) &&
        runs(handle, k, fewest, bias, &found[i].algo) && runs(handle, k, most, bias, &found[i].algo)) {
      *algorithm = found[i].algo;
      return 0;
    }
  static const char *const names[] = {"forward", "input gradient", "weight gradient"};
  return sw_fail("linear: of cuBLASLt's %d algorithms for the %s of %d features to %d, %s to %s, none will do: use --dtype %s or --device cpu",
                 count, names[k.op], k.in, k.out, sw_dtype_name(k.dtype), sw_dtype_name(k.result), k.dtype == SW_F32 ? "bf16" : "fp32");
}

/* With the mutex held. */
static const product *find_product(library *l, const kind &k) {
  for (product *p = l->products; p; p = p->next)
    if (p->what.key() == k.key()) return p;
  product *p = static_cast<product *>(calloc(1, sizeof *p));
  if (!p) {
    sw_fail("out of memory");
    return nullptr;
  }
  p->what = k;
  if (choose(l->handle, k, &p->algorithm)) {
    free(p);
    return nullptr;
  }
  p->next = l->products;
  return l->products = p;
}
/* Chooses the algorithm now, so that nothing is left to refuse in the first step. */
static int provide(const sw_stream *stream, const kind &k) {
  std::lock_guard<std::mutex> lock(mutex);
  library *l = find_library(stream->device);
  return l && find_product(l, k) ? 0 : -1;
}

/* D = op(A) op(B) + beta D (+ bias) */
static int multiply(const sw_stream *stream, const kind &k, int64_t tokens, const void *a, const void *b, const void *bias, float beta,
                    void *d, void *workspace) {
  std::lock_guard<std::mutex> lock(mutex);
  const float alpha = 1;
  description c;
  library *l = find_library(stream->device);
  const product *p = l ? find_product(l, k) : nullptr;
  if (!p || describe(k, tokens, bias, &c)) return -1;
  if ((uintptr_t)a % c.a_alignment || (uintptr_t)b % c.b_alignment || (uintptr_t)d % c.d_alignment)
    return sw_fail("linear: tensors must start at a multiple of 16 bytes, or whole rows after one");
  return lt_check(cublasLtMatmul(l->handle, &c.operation, &alpha, a, &c.a, b, &c.b, &beta, d, &c.d, d, &c.d, &p->algorithm, workspace,
                                 library_bytes(k), sw_cuda_stream(stream)),
                  "multiply");
}

/* ------------------------------------------------ the operator ------------------------------------------------ */

/* What a product of factors of desc->dtype can be written as, to become desc->out_dtype. */
static sw_dtype result_of(const sw_linear_desc *desc) { return desc->dtype == SW_F32 ? SW_F32 : desc->out_dtype; }
static kind forward_kind(const sw_linear_desc *desc, bool bias) {
  return {FORWARD, desc->in_features, desc->out_features, desc->dtype, result_of(desc), bias, CANONICAL};
}
static kind input_kind(const sw_linear_desc *desc) {
  return {INPUT_GRADIENT, desc->in_features, desc->out_features, desc->dtype, desc->dtype, false, CANONICAL};
}
static kind weight_kind(const sw_linear_desc *desc) {
  int64_t tokens = UNSPLIT;
  while (tokens < desc->tokens) tokens *= 2;
  return {WEIGHT_GRADIENT, desc->in_features, desc->out_features, desc->dtype, SW_F32, false, tokens};
}

/* The workspace: the library's part, a bias or partial sums of its gradient, and the y or g that has to be converted. */
struct scratch {
  char *library, *columns, *converted;
  size_t bytes;
};
static size_t round_up(size_t n) { return (n + LIBRARY_ALIGNMENT - 1) / LIBRARY_ALIGNMENT * LIBRARY_ALIGNMENT; }
static scratch scratch_of(const sw_linear_desc *desc, void *workspace) {
  const size_t out = (size_t)desc->out_features, columns = round_up((desc->training ? CHUNKS : 1) * out * sizeof(float));
  const size_t converted = desc->dtype == desc->out_dtype ? 0 : (size_t)desc->tokens * out * sw_dtype_bytes(desc->dtype);
  const size_t library = desc->training ? LIBRARY_BYTES : 0; /* only the weight gradient has any */
  char *start = reinterpret_cast<char *>(round_up(reinterpret_cast<uintptr_t>(workspace)));
  return {start, start + library, start + library + columns, LIBRARY_ALIGNMENT + library + columns + converted};
}

int sw_cuda_linear_weight_bytes(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes) {
  if (linear_check_desc(stream, desc)) return -1;
  *bytes = (size_t)desc->in_features * (size_t)desc->out_features * sw_dtype_bytes(desc->dtype);
  return 0;
}

int sw_cuda_linear_prepare(sw_stream *stream, const sw_linear_desc *desc, const float *weight, void *prepared) {
  if (linear_check_desc(stream, desc)) return -1;
  return convert(stream, (int64_t)desc->in_features * desc->out_features, SW_F32, weight, desc->dtype, prepared);
}

int sw_cuda_linear_workspace(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes) {
  if (linear_check_desc(stream, desc) || provide(stream, forward_kind(desc, true)) ||
      (desc->training && (provide(stream, input_kind(desc)) || provide(stream, weight_kind(desc)))))
    return -1;
  *bytes = scratch_of(desc, nullptr).bytes;
  return 0;
}

int sw_cuda_linear_forward(sw_stream *stream, const sw_linear_desc *desc, const void *x, const void *prepared, const float *bias, void *pre,
                           void *y, void *workspace) {
  if (linear_check_desc(stream, desc)) return -1;
  if (!desc->tokens) return 0;
  const scratch s = scratch_of(desc, workspace);
  const sw_dtype result = result_of(desc);
  void *to = result != desc->out_dtype ? s.converted : pre ? pre : y;
  if ((bias && convert(stream, desc->out_features, SW_F32, bias, result, s.columns)) ||
      multiply(stream, forward_kind(desc, bias), desc->tokens, prepared, x, s.columns, 0, to, s.library))
    return -1;
  if (to == y && !desc->activation) return 0;
  return run_finish(stream, desc->tokens * desc->out_features, desc->activation, result, to, desc->out_dtype, to == pre ? nullptr : pre, y);
}

/* g as a factor: converted where its dtype is not that of x. */
static int factor_of(const sw_stream *stream, const sw_linear_desc *desc, const void **g, const scratch &s) {
  if (desc->dtype == desc->out_dtype) return 0;
  const void *from = *g;
  *g = s.converted;
  return convert(stream, desc->tokens * desc->out_features, desc->out_dtype, from, desc->dtype, s.converted);
}

int sw_cuda_linear_backward_input(sw_stream *stream, const sw_linear_desc *desc, void *dy, const void *pre, const void *prepared, void *dx,
                                  int accumulate, void *workspace) {
  if (linear_check_desc(stream, desc) || linear_check_backward_input(desc, pre, dx)) return -1;
  const int64_t count = desc->tokens * desc->out_features;
  if (desc->activation && sw_with_type(desc->out_dtype, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return sw_launch(stream, "linear: gradient of the activation", gradient<T>, dim3(sw_blocks(count, THREADS * EIGHT)), dim3(THREADS),
                         0, count, aligned16(dy) && aligned16(pre), desc->activation, (T *)dy, (const T *)pre);
      }))
    return -1;
  if (!dx || !desc->tokens) return 0;
  const scratch s = scratch_of(desc, workspace);
  const void *g = dy;
  return factor_of(stream, desc, &g, s) ||
                 multiply(stream, input_kind(desc), desc->tokens, prepared, g, nullptr, accumulate ? 1 : 0, dx, s.library)
             ? -1
             : 0;
}

int sw_cuda_linear_backward_weight(sw_stream *stream, const sw_linear_desc *desc, const void *g, const void *x, float *dweight,
                                   float *dbias, void *workspace) {
  if (linear_check_desc(stream, desc) || linear_check_backward_weight(desc)) return -1;
  if (!desc->tokens) return 0;
  const scratch s = scratch_of(desc, workspace);
  const void *factor = g;
  if (factor_of(stream, desc, &factor, s) || multiply(stream, weight_kind(desc), desc->tokens, x, factor, nullptr, 1, dweight, s.library))
    return -1;
  return dbias ? bias_gradient(stream, desc->tokens, desc->out_features, desc->out_dtype, g, reinterpret_cast<float *>(s.columns), dbias)
               : 0;
}
