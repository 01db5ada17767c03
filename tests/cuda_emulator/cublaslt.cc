/* cuBLASLt's matrix products on the host (cublasLt.h). */
#include "kernels/cuda/cuda.cuh"
#include "tests/cuda_emulator/cublasLt.h"
#include <vector>

struct emu_cublaslt { uint64_t mark; };
static const uint64_t MARK = 0x63626c746d61726b;

static thread_local const char *reason = "";
static cublasStatus_t refuse(cublasStatus_t status, const char *why) { return reason = why, status; }
static cublasStatus_t invalid(const char *why) { return refuse(CUBLAS_STATUS_INVALID_VALUE, why); }
static cublasStatus_t unsupported(const char *why) { return refuse(CUBLAS_STATUS_NOT_SUPPORTED, why); }
const char *cublasLtGetStatusString(cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS ? "success" : reason; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) { return *handle = new emu_cublaslt{MARK}, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return delete handle, CUBLAS_STATUS_SUCCESS; }

/* --- descriptions --- */
cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute, cudaDataType_t scale) {
  *desc = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
  return CUBLAS_STATUS_SUCCESS;
}
template <class T> static cublasStatus_t assign(T *to, const void *value, size_t bytes) {
  if (!value || bytes != sizeof *to) return invalid("an attribute of another size");
  memcpy(to, value, sizeof *to);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
  switch (attribute) {
  case CUBLASLT_MATMUL_DESC_TRANSA: return assign(&desc->transa, value, bytes);
  case CUBLASLT_MATMUL_DESC_TRANSB: return assign(&desc->transb, value, bytes);
  case CUBLASLT_MATMUL_DESC_EPILOGUE: return assign(&desc->epilogue, value, bytes);
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return assign(&desc->bias, value, bytes);
  }
  return invalid("an unknown attribute of a product");
}
cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
  *layout = {type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  *preference = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
  switch (attribute) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return assign(&preference->workspace, value, bytes);
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return assign(&preference->schemes, value, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return assign(&preference->alignment[0], value, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return assign(&preference->alignment[1], value, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return assign(&preference->alignment[2], value, bytes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return assign(&preference->alignment[3], value, bytes);
  }
  return invalid("an unknown preference");
}

static size_t size_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }
struct shape { uint64_t m, n, k; };
/* What cublasLtMatmul's documentation lists, and nothing else. */
static cublasStatus_t check_product(const emu_cublaslt *handle, const cublasLtMatmulDescOpaque_t *desc,
                                    const cublasLtMatrixLayoutOpaque_t *a, const cublasLtMatrixLayoutOpaque_t *b,
                                    const cublasLtMatrixLayoutOpaque_t *c, const cublasLtMatrixLayoutOpaque_t *d, shape *s) {
  if (!handle || handle->mark != MARK) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "no handle");
  if (!desc || !a || !b || !c || !d) return invalid("a missing description");
  for (const auto *layout : {a, b, c, d}) {
    if (!layout->rows || !layout->cols) return invalid("an empty matrix");
    if (layout->ld < 0 || (uint64_t)layout->ld < layout->rows) return invalid("a leading dimension below the number of rows");
  }
  *s = {d->rows, d->cols, desc->transa == CUBLAS_OP_N ? a->cols : a->rows};
  if ((desc->transa == CUBLAS_OP_N ? a->rows : a->cols) != s->m) return invalid("op(A) and D differ in their rows");
  if ((desc->transb == CUBLAS_OP_N ? b->cols : b->rows) != s->n) return invalid("op(B) and D differ in their columns");
  if ((desc->transb == CUBLAS_OP_N ? b->rows : b->cols) != s->k) return invalid("op(A) and op(B) do not fit together");
  if (c->type != d->type || c->rows != d->rows || c->cols != d->cols) return invalid("C and D differ");
  if (desc->compute != CUBLAS_COMPUTE_32F || desc->scale != CUDA_R_32F) return unsupported("only fp32 sums and scales are emulated");
  if (a->type != b->type) return unsupported("A and B of different types");
  if (!(a->type == CUDA_R_32F && d->type == CUDA_R_32F) && !(a->type == CUDA_R_16BF && (d->type == CUDA_R_32F || d->type == CUDA_R_16BF)))
    return unsupported("no product of these types gives a result of that type");
  if (desc->epilogue == CUBLASLT_EPILOGUE_BIAS) {
    if (!desc->bias || (uintptr_t)desc->bias % 16) return invalid("a bias that is missing or not aligned to 16 bytes");
  } else if (desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT)
    return unsupported("this epilogue is not emulated");
  return CUBLAS_STATUS_SUCCESS;
}

/* --- algorithms: sums of `block` products each are added up, in each part of k; then the parts --- */
struct algorithm {
  uint32_t alignment; /* bytes, that rows and pointers need; 0: the element's size */
  uint64_t block;
};
static const algorithm algorithms[] = {{16, 64}, {16, 32}, {8, 32}, {0, 8}};
enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms, LONG_K = 96, MANY_COLUMNS = 64 };

static size_t workspace_of(const shape &s, uint64_t parts) { return parts > 1 ? parts * s.m * s.n * sizeof(float) : 0; }
static bool aligned(const algorithm &x, uint64_t bytes) { return !x.alignment || bytes % x.alignment == 0; }
static cublasStatus_t check_algorithm(const cublasLtMatmulAlgo_t *algo, const shape &s, const cublasLtMatrixLayoutOpaque_t *a,
                                      const cublasLtMatrixLayoutOpaque_t *b, const cublasLtMatrixLayoutOpaque_t *d) {
  if (algo->data[0] >= ALGORITHMS || !algo->data[1]) return invalid("no such algorithm");
  if (algo->data[1] > s.k) return invalid("more parts than there is to sum over");
  for (const auto *layout : {a, b, d})
    if (!aligned(algorithms[algo->data[0]], (uint64_t)layout->ld * size_of(layout->type)))
      return unsupported("the algorithm needs columns that start more aligned");
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result) {
  shape s;
  cublasStatus_t status = check_product(handle, desc, a, b, c, d, &s);
  if (!status) status = check_algorithm(algo, s, a, b, d);
  result->state = status;
  if (!status) result->workspaceSize = workspace_of(s, algo->data[1]);
  return status;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t *results,
                                              int *count) {
  shape s;
  cublasStatus_t status = check_product(handle, desc, a, b, c, d, &s);
  if (status) return status;
  if (wanted <= 0) return invalid("no room for results");
  const bool split = s.k >= LONG_K && preference->schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  *count = 0;
  for (uint64_t parts = !split ? 1 : s.n < MANY_COLUMNS ? 4 : 2; parts; parts /= 2)
    for (uint64_t i = 0; i < ALGORITHMS && *count < wanted; i++) {
      const uint64_t index = s.n >= MANY_COLUMNS || i > 1 ? i : 1 - i;
      const cublasLtMatmulAlgo_t algo = {{index, parts}};
      bool fits = !check_algorithm(&algo, s, a, b, d) && workspace_of(s, parts) <= preference->workspace;
      for (uint32_t claimed : preference->alignment) fits = fits && aligned(algorithms[index], claimed);
      if (fits) results[(*count)++] = {algo, workspace_of(s, parts), CUBLAS_STATUS_SUCCESS, 1, {}};
    }
  return *count ? CUBLAS_STATUS_SUCCESS : unsupported("no algorithm keeps to the preferences");
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written) {
  const uint32_t values[] = {(uint32_t)algo->data[1],
                             (uint32_t)(algo->data[1] > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE)};
  if (bytes != sizeof *values) return invalid("an attribute of another size");
  memcpy(value, &values[attribute], *written = bytes);
  return CUBLAS_STATUS_SUCCESS;
}

/* --- products --- */
struct matrix {
  char *data;
  cublasLtMatrixLayoutOpaque_t layout;
  size_t bytes() const { return ((layout.cols - 1) * (uint64_t)layout.ld + layout.rows) * size_of(layout.type); }
  float get(uint64_t row, uint64_t col) const {
    const uint64_t i = col * (uint64_t)layout.ld + row;
    return layout.type == CUDA_R_32F ? ((const float *)data)[i] : sw_bf16_to_f32(((const sw_bf16 *)data)[i]);
  }
  void put(uint64_t row, uint64_t col, float value) const {
    const uint64_t i = col * (uint64_t)layout.ld + row;
    if (layout.type == CUDA_R_32F)
      ((float *)data)[i] = value;
    else
      ((sw_bf16 *)data)[i] = sw_f32_to_bf16(value);
  }
};
struct work {
  shape s;
  cublasLtMatmulDescOpaque_t desc;
  matrix a, b, c, d;
  float alpha, beta;
  cublasLtMatmulAlgo_t algo;
  char *workspace;
  size_t workspace_bytes;
};

/* Several rows of D at once: they do not touch each other's sums. */
typedef float lanes __attribute__((vector_size(32)));
enum { LANES = 8 };

static void run(const work &w) {
  const uint64_t m = w.s.m, n = w.s.n, k = w.s.k, panels = (m + LANES - 1) / LANES, parts = w.algo.data[1],
                 block = algorithms[w.algo.data[0]].block;
  memset(w.workspace, 0xff, w.workspace_bytes);
  std::vector<lanes> a(panels * k); /* [panel of rows][k] */
  std::vector<float> b(n * k);
  for (uint64_t i = 0; i < m; i++)
    for (uint64_t p = 0; p < k; p++) a[i / LANES * k + p][i % LANES] = w.desc.transa == CUBLAS_OP_N ? w.a.get(i, p) : w.a.get(p, i);
  for (uint64_t j = 0; j < n; j++)
    for (uint64_t p = 0; p < k; p++) b[j * k + p] = w.desc.transb == CUBLAS_OP_N ? w.b.get(p, j) : w.b.get(j, p);
  const matrix bias = {(char *)const_cast<void *>(w.desc.bias), {w.d.layout.type, m, 1, (int64_t)m}};
  float *partial = (float *)w.workspace;
  for (uint64_t j = 0; j < n; j++)
    for (uint64_t panel = 0; panel < panels; panel++) {
      lanes total = {};
      for (uint64_t part = 0; part < parts; part++) {
        lanes sum = {};
        const uint64_t end = k * (part + 1) / parts;
        for (uint64_t from = k * part / parts; from < end; from += block) {
          lanes some = {};
          for (uint64_t p = from; p < from + block && p < end; p++) some += a[panel * k + p] * b[j * k + p];
          sum += some;
        }
        if (parts > 1)
          for (uint64_t i = panel * LANES; i < m && i < (panel + 1) * LANES; i++) partial[(part * n + j) * m + i] = sum[i % LANES];
        else
          total = sum;
      }
      for (uint64_t i = panel * LANES; i < m && i < (panel + 1) * LANES; i++) {
        float value = total[i % LANES];
        for (uint64_t part = 0; parts > 1 && part < parts; part++) value += partial[(part * n + j) * m + i];
        value *= w.alpha;
        if (w.beta != 0) value += w.beta * w.c.get(i, j);
        if (w.desc.epilogue == CUBLASLT_EPILOGUE_BIAS) value += bias.get(i, 0);
        w.d.put(i, j, value);
      }
    }
}

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
  return (uintptr_t)a < (uintptr_t)b + b_bytes && (uintptr_t)b < (uintptr_t)a + a_bytes;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes, cudaStream_t stream) {
  shape s;
  cublasStatus_t status = check_product(handle, desc, a_layout, b_layout, c_layout, d_layout, &s);
  if (!status) status = check_algorithm(algo, s, a_layout, b_layout, d_layout);
  if (status) return status;
  const work w = {s, *desc, {(char *)const_cast<void *>(a), *a_layout}, {(char *)const_cast<void *>(b), *b_layout},
                  {(char *)const_cast<void *>(c), *c_layout}, {(char *)d, *d_layout}, *(const float *)alpha, *(const float *)beta, *algo,
                  (char *)workspace, workspace_bytes};
  const size_t bias_bytes = desc->epilogue == CUBLASLT_EPILOGUE_BIAS ? s.m * size_of(d_layout->type) : 0;
  if (workspace_of(s, algo->data[1]) > workspace_bytes) return invalid("the workspace is too small for the algorithm");
  if ((uintptr_t)workspace % 256) return invalid("the workspace is not aligned to 256 bytes");
  if (c == d && c_layout->ld != d_layout->ld) return invalid("C is D, but laid out differently");
  for (const matrix *x : {&w.a, &w.b, &w.c, &w.d}) {
    if (!emu_device_memory(x->data, x->bytes())) return invalid("a matrix that leaves its allocation");
    if (!aligned(algorithms[algo->data[0]], (uintptr_t)x->data) || (uintptr_t)x->data % size_of(x->layout.type))
      return unsupported("the algorithm needs a matrix that starts more aligned");
    if (x != &w.d && !(x == &w.c && c == d) && overlap(x->data, x->bytes(), d, w.d.bytes())) return invalid("the result overlaps a factor");
    if (overlap(x->data, x->bytes(), workspace, workspace_bytes)) return invalid("the workspace overlaps a matrix");
  }
  if (!emu_device_memory(workspace, workspace_bytes)) return invalid("a workspace that leaves its allocation");
  if (bias_bytes && (!emu_device_memory(desc->bias, bias_bytes) || overlap(desc->bias, bias_bytes, workspace, workspace_bytes) ||
                     overlap(desc->bias, bias_bytes, d, w.d.bytes())))
    return invalid("a bias that leaves its allocation, or overlaps the result or the workspace");
  emu_enqueue(stream, [w] { run(w); });
  return CUBLAS_STATUS_SUCCESS;
}
