/* cuBLASLt, opened when a device is: the functions of cublasLt.h that linear/cuda.cu calls, each handed on to the library that is there.
 *
 * The library is large, belongs to toolkits and to other programs' packages, and carries its major version in its name, so that a module linked
 * with one could not use the other. What is used here is the same in 12 and 13: the functions, their structures' sizes and the numbers of
 * the attributes (compared in the headers of 12.4 and 13.1; both libraries were asked to describe a product). */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/operators.cuh"
#ifdef SW_CUDA_EMULATED
int sw_cuda_linear_open() { return 0; }
#else
#include <cublasLt.h>
#include <dlfcn.h>
#include <mutex>

/* result, name, parameters, arguments */
#define FUNCTIONS(X)                                                                                                                       \
  X(cublasStatus_t, cublasLtCreate, (cublasLtHandle_t * handle), (handle))                                                                 \
  X(cublasStatus_t, cublasLtDestroy, (cublasLtHandle_t handle), (handle))                                                                  \
  X(const char *, cublasLtGetStatusString, (cublasStatus_t status), (status))                                                              \
  X(cublasStatus_t, cublasLtMatmulDescInit_internal, (cublasLtMatmulDesc_t d, size_t n, cublasComputeType_t c, cudaDataType_t t),          \
    (d, n, c, t))                                                                                                                          \
  X(cublasStatus_t, cublasLtMatmulDescSetAttribute, (cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *v, size_t n),   \
    (d, a, v, n))                                                                                                                          \
  X(cublasStatus_t, cublasLtMatrixLayoutInit_internal,                                                                                     \
    (cublasLtMatrixLayout_t l, size_t n, cudaDataType t, uint64_t rows, uint64_t columns, int64_t ld), (l, n, t, rows, columns, ld))       \
  X(cublasStatus_t, cublasLtMatmulPreferenceInit_internal, (cublasLtMatmulPreference_t p, size_t n), (p, n))                               \
  X(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute,                                                                                  \
    (cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a, const void *v, size_t n), (p, a, v, n))                         \
  X(cublasStatus_t, cublasLtMatmulAlgoConfigGetAttribute,                                                                                  \
    (const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulAlgoConfigAttributes_t a, void *v, size_t n, size_t *written),                   \
    (algorithm, a, v, n, written))                                                                                                         \
  X(cublasStatus_t, cublasLtMatmulAlgoCheck,                                                                                               \
    (cublasLtHandle_t handle, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t la, cublasLtMatrixLayout_t lb, cublasLtMatrixLayout_t lc,     \
     cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulHeuristicResult_t *result),                           \
    (handle, d, la, lb, lc, ld, algorithm, result))                                                                                        \
  X(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,                                                                                        \
    (cublasLtHandle_t handle, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t la, cublasLtMatrixLayout_t lb, cublasLtMatrixLayout_t lc,     \
     cublasLtMatrixLayout_t ld, cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[], int *found), \
    (handle, d, la, lb, lc, ld, preference, wanted, results, found))                                                                       \
  X(cublasStatus_t, cublasLtMatmul,                                                                                                        \
    (cublasLtHandle_t handle, cublasLtMatmulDesc_t d, const void *alpha, const void *a, cublasLtMatrixLayout_t la, const void *b,          \
     cublasLtMatrixLayout_t lb, const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *to, cublasLtMatrixLayout_t ld,           \
     const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes, cudaStream_t stream),                                           \
    (handle, d, alpha, a, la, b, lb, beta, c, lc, to, ld, algorithm, workspace, bytes, stream))

#define X(result, name, parameters, arguments)                                                                                             \
  static result(*loaded_##name) parameters;                                                                                                \
  result name parameters { return loaded_##name arguments; }
extern "C" {
FUNCTIONS(X)
}
#undef X

static const struct {
  const char *name;
  void **function;
} functions[] = {
#define X(result, name, parameters, arguments) {#name, (void **)&loaded_##name},
    FUNCTIONS(X)
#undef X
};

/* LD_LIBRARY_PATH, then the module's own places (cmake/cuda.cmake), then the system's. */
static int open_library() {
  setenv("NVIDIA_TF32_OVERRIDE", "0", 1); /* read by the library when it starts: fp32 products stay fp32, whatever was meant for other programs */
  static const char *const names[] = {CUBLAS_VER_MAJOR == 12 ? "libcublasLt.so.12" : "libcublasLt.so.13",
                                      CUBLAS_VER_MAJOR == 12 ? "libcublasLt.so.13" : "libcublasLt.so.12"};
  void *library = dlopen(names[0], RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen(names[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return sw_fail("neither %s nor %s can be loaded: %s; name its folder in LD_LIBRARY_PATH", names[0], names[1], dlerror());
  for (const auto &f : functions)
    if (!(*f.function = dlsym(library, f.name))) return sw_fail("libcublasLt.so has no function %s: another version is needed", f.name);
  return 0;
}

int sw_cuda_linear_open() {
  static std::mutex mutex;
  static bool opened;
  std::lock_guard<std::mutex> lock(mutex);
  if (!opened && !open_library()) opened = true;
  return opened ? 0 : -1;
}
#endif
