/* The steps of UMAP on the GPU: see umap.h. A thread a row, but in the sparse product, where eight threads share one. No row's result
 * depends on another's of the same launch, so the order of threads shows nowhere. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/operators.cuh"
extern "C" {
#include "kernels/umap/check.h"
}

namespace {
constexpr int THREADS = 128, STEPS = 64;

__device__ __forceinline__ float weight_of(float distance, float nearest, float scale) {
  return distance < INFINITY ? expf(-fmaxf(distance - nearest, 0.0f) / scale) : 0.0f;
}
static __global__ void __launch_bounds__(THREADS) weigh(const sw_umap_weights_desc d, const float *distances, float *weights) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= d.rows) return;
  const float *row = distances + i * d.k;
  float nearest = 0, mean = 0;
  int count = 0;
  for (int j = 0; j < d.k; j++) {
    if (!(row[j] < INFINITY)) continue;
    if (d.nearest && nearest == 0) nearest = row[j];
    mean += row[j], count++;
  }
  mean /= (float)(count + 1);
  float scale = mean > 0 ? mean : 1, least = 0, most = INFINITY;
  for (int step = 0; step < STEPS; step++) {
    float sum = 0;
    for (int j = 0; j < d.k; j++) sum += weight_of(row[j], nearest, scale);
    if (fabsf(sum - d.target) < 1e-5f) break;
    if (sum > d.target)
      most = scale;
    else
      least = scale;
    scale = most == INFINITY ? scale * 2 : (least + most) / 2;
  }
  scale = fmaxf(scale, fmaxf(1e-3f * mean, 1e-30f));
  for (int j = 0; j < d.k; j++) weights[i * d.k + j] = weight_of(row[j], nearest, scale);
}

static __global__ void __launch_bounds__(THREADS) multiply(const sw_umap_multiply_desc d, const int64_t *row_start, const int32_t *column,
                                                           const float *value, const float *x, float *y) {
  const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = at / SW_UMAP_BLOCK;
  if (i >= d.rows) return;
  float sum = 0;
  for (int64_t e = row_start[i]; e < row_start[i + 1]; e++) sum += value[e] * x[(int64_t)column[e] * SW_UMAP_BLOCK + at % SW_UMAP_BLOCK];
  float result = d.scale * sum + d.shift * x[at];
  if (d.back != 0) result += d.back * y[at];
  y[at] = result;
}

struct job {
  sw_umap_layout_desc d;
  const int64_t *row_start;
  const int32_t *column, *order;
  const uint32_t *rate;
  const uint64_t *ids;
  float *positions;
  const float *points;
  float *next;
};
/* p += alpha clip(factor (p - q)), by an attraction or a repulsion. */
template <int DIMS, bool ATTRACT> __device__ __forceinline__ void push(const job &j, float alpha, const float *q, float (&p)[DIMS]) {
  float d[DIMS], squares = 0;
#pragma unroll
  for (int c = 0; c < DIMS; c++) {
    d[c] = p[c] - q[c];
    squares += d[c] * d[c];
  }
  squares = fmaxf(squares, 1e-30f); /* where the points are one, d = 0 and there is no force */
  const float a = j.d.a, b = j.d.b, power = powf(squares, b), below = 1 + a * power;
  const float factor = ATTRACT ? -2 * a * b * power / (squares * below) : 2 * b / ((0.001f + squares) * below);
#pragma unroll
  for (int c = 0; c < DIMS; c++) p[c] += alpha * fmaxf(fminf(factor * d[c], 4.0f), -4.0f);
}

/* The rows [first, last) of the order, to their places in next. */
template <int DIMS> static __global__ void __launch_bounds__(THREADS) move_rows(const job j, int epoch, float alpha, int64_t first, int64_t last) {
  const int64_t at = first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (at >= last) return;
  const int64_t i = j.order ? j.order[at] : at;
  const uint64_t id = j.ids ? j.ids[i] : (uint64_t)i;
  const uint32_t times = (uint32_t)epoch + 1;
  uint32_t drawn = 0, word[4];
  float p[DIMS];
#pragma unroll
  for (int c = 0; c < DIMS; c++) p[c] = j.positions[i * DIMS + c];
  for (int64_t e = j.row_start[i]; e < j.row_start[i + 1]; e++) {
    if (times * j.rate[e] >= j.rate[e]) continue;
    for (int n = 0; n < j.d.pulls; n++) push<DIMS, true>(j, alpha, j.points + (int64_t)j.column[e] * DIMS, p);
    for (int n = 0; n < j.d.negatives; n++, drawn++) {
      if (drawn % 4 == 0) {
        const uint32_t counter[4] = {(uint32_t)id, (uint32_t)(id >> 32), (uint32_t)epoch, drawn / 4};
        sw_dropout_mask::sw_philox_device(j.d.seed, counter, word);
      }
      const uint32_t which = drawn % 4, w = which == 0 ? word[0] : which == 1 ? word[1] : which == 2 ? word[2] : word[3];
      const int64_t other = __umulhi(w, (uint32_t)j.d.points);
      if (!j.d.own || other != i) push<DIMS, false>(j, alpha, j.points + other * DIMS, p);
    }
  }
#pragma unroll
  for (int c = 0; c < DIMS; c++) j.next[(at - first) * DIMS + c] = p[c];
}
static __global__ void __launch_bounds__(THREADS) settle(const job j, int64_t first, int64_t last) {
  const int dims = j.d.components;
  const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, place = first + at / dims;
  if (place < last) j.positions[(j.order ? j.order[place] : place) * dims + at % dims] = j.next[at];
}

/* A block a query: 128 scores into shared memory, then each thread counts for its targets. */
__device__ __forceinline__ float score_of(const sw_umap_ranks_desc &d, const float *q, const float *c) {
  float sum = 0;
  if (d.metric == SW_SQUARED_DISTANCE) {
    for (int h = 0; h < d.hidden; h++) sum = fmaf(q[h] - c[h], q[h] - c[h], sum);
    return -sum;
  }
  for (int h = 0; h < d.hidden; h++) sum = fmaf(q[h], c[h], sum);
  return sum;
}
static __global__ void __launch_bounds__(THREADS) rank(const sw_umap_ranks_desc d, const float *queries, const float *corpus, const int64_t *own,
                                                       const int64_t *index, int32_t *ranks) {
  SW_SHARED(float, scores, THREADS);
  constexpr int MINE = (SW_MOST_NEIGHBOURS + THREADS - 1) / THREADS;
  const int64_t i = blockIdx.x, own_row = own[i];
  const float *q = queries + i * d.hidden;
  float target[MINE];
  int32_t count[MINE];
#pragma unroll
  for (int n = 0; n < MINE; n++) {
    const int j = n * THREADS + (int)threadIdx.x;
    const int64_t row = j < d.k ? index[i * d.k + j] : -1;
    target[n] = row < 0 ? INFINITY : score_of(d, q, corpus + row * d.hidden);
    count[n] = row >= 0;
  }
  for (int64_t first = 0; first < d.corpus; first += THREADS) {
    const int64_t row = first + threadIdx.x;
    __syncthreads(); /* the scores before are no longer read */
    scores[threadIdx.x] = row < d.corpus && row != own_row ? score_of(d, q, corpus + row * d.hidden) : -INFINITY;
    __syncthreads();
    for (int c = 0; c < THREADS; c++) {
      const float score = scores[c];
#pragma unroll
      for (int n = 0; n < MINE; n++) count[n] += score > target[n];
    }
  }
#pragma unroll
  for (int n = 0; n < MINE; n++) {
    const int j = n * THREADS + (int)threadIdx.x;
    if (j < d.k) ranks[i * d.k + j] = count[n];
  }
}
} // namespace

int sw_cuda_umap_weights(sw_stream *stream, const sw_umap_weights_desc *desc, const float *distances, float *weights) {
  if (umap_weights_check(desc)) return -1;
  return sw_launch(stream, "umap_weights", weigh, dim3(sw_blocks(desc->rows, THREADS)), dim3(THREADS), 0, *desc, distances, weights);
}

int sw_cuda_umap_multiply(sw_stream *stream, const sw_umap_multiply_desc *desc, const int64_t *row_start, const int32_t *column,
                          const float *value, const float *x, float *y) {
  if (umap_multiply_check(desc)) return -1;
  return sw_launch(stream, "umap_multiply", multiply, dim3(sw_blocks(desc->rows * SW_UMAP_BLOCK, THREADS)), dim3(THREADS), 0, *desc, row_start,
                   column, value, x, y);
}

int sw_cuda_umap_layout_workspace(sw_stream *stream, const sw_umap_layout_desc *desc, size_t *bytes) {
  if (umap_layout_check(desc)) return -1;
  *bytes = (size_t)((desc->rows / desc->groups + 1) * desc->components) * sizeof(float);
  return 0;
}

int sw_cuda_umap_layout(sw_stream *stream, const sw_umap_layout_desc *desc, const int64_t *row_start, const int32_t *column,
                        const uint32_t *rate, const uint64_t *ids, const int32_t *order, float *positions, const float *points,
                        void *workspace) {
  if (umap_layout_check(desc)) return -1;
  const job j = {*desc, row_start, column, order, rate, ids, positions, points, (float *)workspace};
  for (int epoch = desc->first_epoch; epoch < desc->last_epoch; epoch++) {
    const float alpha = (float)(desc->first_alpha * (1 - (double)epoch / desc->epochs));
    for (int64_t g = 0; g < desc->groups; g++) {
      const int64_t first = desc->rows * g / desc->groups, last = desc->rows * (g + 1) / desc->groups;
      if (sw_launch(stream, "umap_layout", desc->components == 2 ? move_rows<2> : move_rows<3>, dim3(sw_blocks(last - first, THREADS)),
                    dim3(THREADS), 0, j, epoch, alpha, first, last) ||
          sw_launch(stream, "umap_layout: settle", settle, dim3(sw_blocks((last - first) * desc->components, THREADS)), dim3(THREADS), 0, j,
                    first, last))
        return -1;
    }
  }
  return 0;
}

int sw_cuda_umap_ranks_workspace(sw_stream *stream, const sw_umap_ranks_desc *desc, size_t *bytes) {
  *bytes = 0;
  return umap_ranks_check(desc);
}

int sw_cuda_umap_ranks(sw_stream *stream, const sw_umap_ranks_desc *desc, const float *queries, const float *corpus, const int64_t *own,
                       const int64_t *index, int32_t *ranks, void *workspace) {
  if (umap_ranks_check(desc)) return -1;
  return sw_launch(stream, "umap_ranks", rank, dim3((unsigned)desc->queries), dim3(THREADS), 0, *desc, queries, corpus, own, index, ranks);
}
