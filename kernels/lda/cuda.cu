/* Latent Dirichlet allocation on the GPU: see lda.h for the mathematics.
 *
 *   beta       a thread a topic sums its column of lambda in SPANS pieces, in double; then a warp a word
 *   documents  a block a document, its words dealt out to the warps. For each word the lanes share the topics: the scalar product with theta by
 *              shuffles, then each lane adds ratio beta to its topics' sums in shared memory. The first warp adds up the warps' sums, in their order,
 *              and makes the new gamma and theta. Theta is kept without its denominator, which cancels, until the end.
 *   update     a warp a word, its documents in order
 * Deterministic: no sum depends on the order in which blocks or warps run. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/operators.cuh"
extern "C" {
#include "kernels/lda/check.h"
}

namespace {
constexpr int SPANS = 64, WARPS = 4, THREADS = WARPS * SW_WARP;

/* exp psi(x), x > 0: see cpu.c */
__device__ __forceinline__ float exp_digamma(float x) {
  if (x != x) return x;
  const bool low = x < 6.0f;
  const float y = low ? x + 6.0f : x, t = 1.0f / y, s = t * t, a = x * x + 5.0f * x;
  const float sum = low ? (2.0f * x + 5.0f) * (3.0f * a * a + 20.0f * a + 24.0f) / (a * (a + 4.0f) * (a + 6.0f)) : 0.0f;
  const float series = t * 0.5f + s * (1.0f / 12 - s * (1.0f / 120 - s * (1.0f / 252)));
  return fmaxf(y * expf(-series - sum), SW_LDA_LEAST);
}

static __global__ void __launch_bounds__(THREADS) column_sums(int words, int topics, int stride, const float *lambda, double *sums) {
  const int64_t from = (int64_t)words * blockIdx.x / SPANS, to = (int64_t)words * (blockIdx.x + 1) / SPANS;
  for (int k = threadIdx.x; k < topics; k += THREADS) {
    double sum = 0;
    for (int64_t w = from; w < to; w++) sum += (double)lambda[w * stride + k];
    sums[(int64_t)blockIdx.x * stride + k] = sum;
  }
}

static __global__ void __launch_bounds__(THREADS) column_scales(int topics, int stride, const double *sums, float *scale) {
  for (int k = threadIdx.x; k < topics; k += THREADS) {
    double sum = 0;
    for (int s = 0; s < SPANS; s++) sum += sums[s * stride + k];
    scale[k] = 1.0f / exp_digamma((float)sum);
  }
}

static __global__ void __launch_bounds__(THREADS) beta_rows(int words, int topics, int stride, const float *lambda, const float *scale, float *beta) {
  const int lane = (int)threadIdx.x % SW_WARP;
  const int64_t w = (int64_t)blockIdx.x * WARPS + threadIdx.x / SW_WARP;
  if (w >= words) return;
  float *row = beta + w * stride, largest = 0, nothing = 0; /* nothing: 0, or NaN where there is one in the row */
  for (int k = lane; k < stride; k += SW_WARP) {
    const float b = k < topics ? exp_digamma(lambda[w * stride + k]) * scale[k] : 0.0f;
    largest = fmaxf(largest, b);
    nothing += 0.0f * b;
    row[k] = b;
  }
#pragma unroll
  for (int step = 16; step; step >>= 1) largest = fmaxf(largest, __shfl_xor_sync(SW_ALL_LANES, largest, step));
  const float factor = 1.0f / largest + sw_warp_sum(nothing);
  for (int k = lane; k < stride; k += SW_WARP) row[k] *= factor;
}

struct job {
  const int64_t *starts;
  const int32_t *word;
  const float *count, *beta;
  float *gamma, *theta, *ratio;
  int words, topics, stride, iterations;
  float alpha, least; /* least: of the summed changes for another iteration */
};

static __global__ void __launch_bounds__(THREADS) documents(const job j) {
  SW_DYNAMIC_SHARED(float, theta); /* [stride]; then each warp's sums [stride] */
  SW_SHARED(int, moving, 1);
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP, stride = j.stride;
  const int64_t first = j.starts[blockIdx.x], n = j.starts[blockIdx.x + 1] - first;
  float *gamma = j.gamma + (int64_t)blockIdx.x * stride, *sums = theta + (1 + warp) * stride, total = 0;
  for (int64_t w = lane; w < n; w += SW_WARP) total += j.count[first + w];
  const float scale = exp_digamma(sw_warp_sum(total) + (float)j.topics * j.alpha);
  for (int k = threadIdx.x; k < stride; k += THREADS) theta[k] = k < j.topics ? exp_digamma(gamma[k]) : 0.0f;
  if (threadIdx.x == 0) moving[0] = 1;
  __syncthreads();
  for (int i = 0;; i++) {
    const bool last = i == j.iterations || !moving[0];
    for (int k = lane; k < stride; k += SW_WARP) sums[k] = 0;
    for (int64_t w = first + warp; w < first + n; w += WARPS) {
      const bool known = j.word[w] >= 0 && j.word[w] < j.words;
      const float *row = j.beta + (int64_t)(known ? j.word[w] : 0) * stride;
      float norm = 0;
      for (int k = lane; k < stride; k += SW_WARP) norm = fmaf(theta[k], row[k], norm);
      const float ratio = known ? j.count[w] / sw_warp_sum(norm) : NAN;
      if (last && lane == 0) j.ratio[w] = ratio * scale;
      for (int k = lane; !last && k < stride; k += SW_WARP) sums[k] = fmaf(ratio, row[k], sums[k]);
    }
    if (last) break;
    __syncthreads(); /* all sums are there */
    if (warp == 0) {
      float change = 0;
      for (int k = lane; k < j.topics; k += SW_WARP) {
        float sum = 0;
#pragma unroll
        for (int s = 1; s <= WARPS; s++) sum += theta[s * stride + k];
        const float next = fmaf(theta[k], sum, j.alpha);
        change += fabsf(next - gamma[k]);
        gamma[k] = next;
        theta[k] = exp_digamma(next);
      }
      change = sw_warp_sum(change);
      if (lane == 0) moving[0] = !(change < j.least);
    }
    __syncthreads(); /* the new theta */
  }
  for (int k = threadIdx.x; k < stride; k += THREADS) {
    j.theta[(int64_t)blockIdx.x * stride + k] = k < j.topics ? theta[k] / scale : 0.0f;
    if (k >= j.topics) gamma[k] = 0;
  }
}

static __global__ void __launch_bounds__(THREADS) update(int words, int topics, int stride, float rho, float eta, float scale, const int64_t *word_starts,
                                                         const int64_t *entry, const int32_t *document, const float *ratio, const float *theta,
                                                         const float *beta, float *lambda) {
  const int64_t w = (int64_t)blockIdx.x * WARPS + threadIdx.x / SW_WARP;
  if (w >= words) return;
  for (int k = threadIdx.x % SW_WARP; k < topics; k += SW_WARP) {
    float sum = 0;
    for (int64_t e = word_starts[w]; e < word_starts[w + 1]; e++) sum = fmaf(ratio[entry[e]], theta[(int64_t)document[e] * stride + k], sum);
    const int64_t at = w * stride + k;
    lambda[at] = lambda[at] * (1 - rho) + rho * (eta + scale * beta[at] * sum);
  }
}
} // namespace

int sw_cuda_lda_workspace(sw_stream *stream, const sw_lda_desc *desc, size_t *bytes) {
  if (lda_check(desc)) return -1;
  *bytes = (size_t)sw_lda_stride(desc->topics) * (SPANS * sizeof(double) + sizeof(float));
  return 0;
}

int sw_cuda_lda_beta(sw_stream *stream, const sw_lda_desc *desc, const float *lambda, float *beta, void *workspace) {
  if (lda_check(desc)) return -1;
  const int stride = sw_lda_stride(desc->topics);
  double *sums = (double *)workspace;
  float *scale = (float *)(sums + SPANS * stride);
  return sw_launch(stream, "lda beta", column_sums, dim3(SPANS), dim3(THREADS), 0, desc->words, desc->topics, stride, lambda, sums) ||
                 sw_launch(stream, "lda beta", column_scales, dim3(1), dim3(THREADS), 0, desc->topics, stride, (const double *)sums, scale) ||
                 sw_launch(stream, "lda beta", beta_rows, dim3(sw_blocks(desc->words, WARPS)), dim3(THREADS), 0, desc->words, desc->topics, stride,
                           lambda, (const float *)scale, beta)
             ? -1
             : 0;
}

int sw_cuda_lda_documents(sw_stream *stream, const sw_lda_desc *desc, const int64_t *starts, const int32_t *word, const float *count,
                          const float *beta, float *gamma, float *theta, float *ratio, void *workspace) {
  if (lda_check(desc)) return -1;
  const int stride = sw_lda_stride(desc->topics);
  const job j = {starts, word, count, beta, gamma, theta, ratio, desc->words, desc->topics, stride, desc->iterations, desc->alpha,
                 desc->tolerance * (float)desc->topics};
  return sw_launch(stream, "lda documents", documents, dim3((unsigned)desc->documents), dim3(THREADS), (size_t)(1 + WARPS) * stride * sizeof(float), j);
}

int sw_cuda_lda_update(sw_stream *stream, const sw_lda_desc *desc, float rho, float scale, const int64_t *word_starts, const int64_t *entry,
                       const int32_t *document, const float *ratio, const float *theta, const float *beta, float *lambda) {
  if (lda_check(desc)) return -1;
  return sw_launch(stream, "lda update", update, dim3(sw_blocks(desc->words, WARPS)), dim3(THREADS), 0, desc->words, desc->topics,
                   sw_lda_stride(desc->topics), rho, desc->eta, scale, word_starts, entry, document, ratio, theta, beta, lambda);
}
