/* The steps of UMAP on the GPU: see umap.h. A thread a row, or in the layout an edge of a colour; in the sparse product
 * eight threads share a row. Between two barriers or launches no thread touches what another writes, so the order of
 * threads shows nowhere. */
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
static __global__ void __launch_bounds__(THREADS)
    weigh(const sw_umap_weights_desc d, const float *distances, float *weights) {
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

static __global__ void __launch_bounds__(THREADS)
    multiply(const sw_umap_multiply_desc d, const int64_t *row_start, const int32_t *column, const float *value,
             const float *x, float *y) {
  const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = at / SW_UMAP_BLOCK;
  if (i >= d.rows) return;
  float sum = 0;
  for (int64_t e = row_start[i]; e < row_start[i + 1]; e++)
    sum += value[e] * x[(int64_t)column[e] * SW_UMAP_BLOCK + at % SW_UMAP_BLOCK];
  float result = d.scale * sum + d.shift * x[at];
  if (d.back != 0) result += d.back * y[at];
  y[at] = result;
}

/* The step of p from q, by an attraction or a repulsion. */
template <int DIMS, bool ATTRACT>
__device__ __forceinline__ void force(const sw_umap_descent &u, float alpha, const float *p, const float *q,
                                      float (&by)[DIMS]) {
  float d[DIMS], squares = 0;
#pragma unroll
  for (int c = 0; c < DIMS; c++) {
    d[c] = p[c] - q[c];
    squares += d[c] * d[c];
  }
  squares = fmaxf(squares, 1e-30f); /* where the points are one, d = 0 and there is no force */
  const float a = u.a, b = u.b, power = powf(squares, b), below = 1 + a * power;
  const float factor = ATTRACT ? -2 * a * b * power / (squares * below) : 2 * b / ((0.001f + squares) * below);
#pragma unroll
  for (int c = 0; c < DIMS; c++) by[c] = alpha * fmaxf(fminf(factor * d[c], 4.0f), -4.0f);
}
/* The n-th negative of an event, n = 0, 1, 2 ... in turn, pushes p away, unless it is `own`. */
template <int DIMS>
__device__ __forceinline__ void repel(const sw_umap_descent &u, float alpha, uint64_t id, int epoch, uint32_t n,
                                      uint32_t (&word)[4], const float *points, int64_t own, float (&p)[DIMS]) {
  const uint32_t which = n % 5;
  if (which == 0) {
    const uint32_t counter[4] = {(uint32_t)id, (uint32_t)(id >> 32), (uint32_t)epoch, n / 5};
    sw_dropout_mask::sw_philox_device(u.seed, counter, word);
  }
  const uint32_t w = which == 0   ? word[0]
                     : which == 1 ? word[1]
                     : which == 2 ? word[2]
                     : which == 3 ? word[3]
                                  : word[0] + word[1] + word[2] + word[3];
  const int64_t other = __umulhi(w, (uint32_t)u.points);
  if (other == own) return;
  float by[DIMS];
  force<DIMS, false>(u, alpha, p, points + other * DIMS, by);
#pragma unroll
  for (int c = 0; c < DIMS; c++) p[c] += by[c];
}

struct layout_job {
  sw_umap_descent u;
  const int32_t *head, *tail; /* the other way round in the second direction */
  const uint32_t *rate;
  const float *before;
  float *positions;
  float alpha;
  int epoch, direction;
};
template <int DIMS> __device__ __forceinline__ void move_edge(const layout_job &j, int64_t e) {
  if (((uint32_t)j.epoch + 1) * j.rate[e] >= j.rate[e]) return;
  const int64_t head = j.head[e];
  float *at = j.positions + head * DIMS, *tail = j.positions + (int64_t)j.tail[e] * DIMS, p[DIMS], by[DIMS];
  uint32_t word[4] = {0};
#pragma unroll
  for (int c = 0; c < DIMS; c++) p[c] = at[c];
  force<DIMS, true>(j.u, j.alpha, p, tail, by);
#pragma unroll
  for (int c = 0; c < DIMS; c++) p[c] += by[c], tail[c] -= by[c];
  for (int n = 0; n < j.u.negatives; n++)
    repel<DIMS>(j.u, j.alpha, 2 * (uint64_t)e + (uint64_t)j.direction, j.epoch, (uint32_t)n, word, j.before, head, p);
#pragma unroll
  for (int c = 0; c < DIMS; c++) at[c] = p[c];
}
/* A colour. */
template <int DIMS>
static __global__ void __launch_bounds__(THREADS) move_edges(const layout_job j, int64_t first, int64_t last) {
  const int64_t e = first + (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (e < last) move_edge<DIMS>(j, e);
}
/* Small colours one after the other, by one block. */
constexpr int COLORS = 32;
struct few {
  int count;
  int64_t start[COLORS + 1];
};
template <int DIMS> static __global__ void __launch_bounds__(THREADS) move_few(const layout_job j, const few f) {
  for (int color = 0; color < f.count; color++) {
    for (int64_t e = f.start[color] + threadIdx.x; e < f.start[color + 1]; e += THREADS) move_edge<DIMS>(j, e);
    __syncthreads(); /* the next colour has the same points */
  }
}
static __global__ void __launch_bounds__(THREADS) remember(int64_t numbers, const float *positions, float *before) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i < numbers) before[i] = positions[i];
}

template <int DIMS> static int run_direction(sw_stream *stream, const sw_umap_layout_desc *desc, const layout_job &j) {
  const int64_t *start = desc->color_start;
  for (int32_t color = 0; color < desc->colors;) {
    if (start[color + 1] - start[color] > THREADS) {
      if (sw_launch(stream, "umap_layout", move_edges<DIMS>, dim3(sw_blocks(start[color + 1] - start[color], THREADS)),
                    dim3(THREADS), 0, j, start[color], start[color + 1]))
        return -1;
      color++;
      continue;
    }
    few f;
    for (f.count = 0; f.count < COLORS && color < desc->colors && start[color + 1] - start[color] <= THREADS; f.count++)
      f.start[f.count] = start[color++];
    f.start[f.count] = start[color];
    if (sw_launch(stream, "umap_layout: few", move_few<DIMS>, dim3(1), dim3(THREADS), 0, j, f)) return -1;
  }
  return 0;
}

struct place_job {
  sw_umap_place_desc d;
  const int64_t *row_start;
  const int32_t *column;
  const uint32_t *rate;
  const uint64_t *ids;
  float *positions;
  const float *points;
};
template <int DIMS>
static __global__ void __launch_bounds__(THREADS) place_rows(const place_job j, int epoch, float alpha) {
  const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  if (i >= j.d.rows) return;
  const uint64_t id = j.ids[i];
  const uint32_t times = (uint32_t)epoch + 1;
  uint32_t drawn = 0, word[4] = {0};
  float p[DIMS], by[DIMS];
#pragma unroll
  for (int c = 0; c < DIMS; c++) p[c] = j.positions[i * DIMS + c];
  for (int64_t e = j.row_start[i]; e < j.row_start[i + 1]; e++) {
    if (times * j.rate[e] >= j.rate[e]) continue;
    force<DIMS, true>(j.d.descent, alpha, p, j.points + (int64_t)j.column[e] * DIMS, by);
#pragma unroll
    for (int c = 0; c < DIMS; c++) p[c] += by[c];
    for (int n = 0; n < j.d.descent.negatives; n++)
      repel<DIMS>(j.d.descent, alpha, id, epoch, drawn++, word, j.points, -1, p);
  }
#pragma unroll
  for (int c = 0; c < DIMS; c++) j.positions[i * DIMS + c] = p[c];
}

static float alpha_of(const sw_umap_descent *d, int epoch) {
  return (float)(d->first_alpha * (1 - (double)epoch / d->epochs));
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
static __global__ void __launch_bounds__(THREADS)
    rank(const sw_umap_ranks_desc d, const float *queries, const float *corpus, const int64_t *own,
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
  return sw_launch(stream, "umap_weights", weigh, dim3(sw_blocks(desc->rows, THREADS)), dim3(THREADS), 0, *desc,
                   distances, weights);
}

int sw_cuda_umap_multiply(sw_stream *stream, const sw_umap_multiply_desc *desc, const int64_t *row_start,
                          const int32_t *column, const float *value, const float *x, float *y) {
  if (umap_multiply_check(desc)) return -1;
  return sw_launch(stream, "umap_multiply", multiply, dim3(sw_blocks(desc->rows * SW_UMAP_BLOCK, THREADS)),
                   dim3(THREADS), 0, *desc, row_start, column, value, x, y);
}

int sw_cuda_umap_layout_workspace(sw_stream *stream, const sw_umap_layout_desc *desc, size_t *bytes) {
  if (umap_layout_check(desc)) return -1;
  *bytes = (size_t)(desc->descent.points * desc->descent.components) * sizeof(float);
  return 0;
}

int sw_cuda_umap_layout(sw_stream *stream, const sw_umap_layout_desc *desc, const int32_t *head, const int32_t *tail,
                        const uint32_t *rate, float *positions, void *workspace) {
  if (umap_layout_check(desc)) return -1;
  const sw_umap_descent *u = &desc->descent;
  const int64_t numbers = u->points * u->components;
  for (int epoch = u->first_epoch; epoch < u->last_epoch; epoch++) {
    if (sw_launch(stream, "umap_layout: remember", remember, dim3(sw_blocks(numbers, THREADS)), dim3(THREADS), 0,
                  numbers, positions, (float *)workspace))
      return -1;
    for (int direction = 0; direction < 2; direction++) {
      const layout_job j = {*u,
                            direction ? tail : head,
                            direction ? head : tail,
                            rate,
                            (float *)workspace,
                            positions,
                            alpha_of(u, epoch),
                            epoch,
                            direction};
      if (u->components == 2 ? run_direction<2>(stream, desc, j) : run_direction<3>(stream, desc, j)) return -1;
    }
  }
  return 0;
}

int sw_cuda_umap_place(sw_stream *stream, const sw_umap_place_desc *desc, const int64_t *row_start,
                       const int32_t *column, const uint32_t *rate, const uint64_t *ids, float *positions,
                       const float *points) {
  if (umap_place_check(desc)) return -1;
  const place_job j = {*desc, row_start, column, rate, ids, positions, points};
  for (int epoch = desc->descent.first_epoch; epoch < desc->descent.last_epoch; epoch++)
    if (sw_launch(stream, "umap_place", desc->descent.components == 2 ? place_rows<2> : place_rows<3>,
                  dim3(sw_blocks(desc->rows, THREADS)), dim3(THREADS), 0, j, epoch, alpha_of(&desc->descent, epoch)))
      return -1;
  return 0;
}

int sw_cuda_umap_ranks_workspace(sw_stream *stream, const sw_umap_ranks_desc *desc, size_t *bytes) {
  *bytes = 0;
  return umap_ranks_check(desc);
}

int sw_cuda_umap_ranks(sw_stream *stream, const sw_umap_ranks_desc *desc, const float *queries, const float *corpus,
                       const int64_t *own, const int64_t *index, int32_t *ranks, void *workspace) {
  if (umap_ranks_check(desc)) return -1;
  return sw_launch(stream, "umap_ranks", rank, dim3((unsigned)desc->queries), dim3(THREADS), 0, *desc, queries, corpus,
                   own, index, ranks);
}
