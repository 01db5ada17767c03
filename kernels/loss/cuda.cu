/* Losses and log-softmax on the GPU.
 *
 * Cross-entropy and log-softmax. For a row l with its maximum M and o = sum of e^(l_j - M) over all j but the label y:
 *   S = o + e^(l_y - M);  loss = M - l_y + log S, which is log(1 + o) where l_y = M: a confident row's loss keeps its digits;
 *   gradient: c e^(l_j - M) / S with c = weight * scale; at the label -c o / S, without cancellation.
 * A row belongs to LANES threads: a part of a warp for few classes, a whole block for many. Thread `self` holds columns
 * W (self + LANES i) .. + W - 1 in registers, so a row is read once and written once, W floats an access (as many as the row's length
 * divides by, so that every row is aligned alike). Only rows of more than 32768 classes are read twice, a tile after the other.
 * Each thread makes the exponentials' sum below its own maximum; these are brought to the common one when the threads' sums are combined.
 *
 * Sigmoid BCE is elementwise, four neighbours a thread.
 *
 * Deterministic: a row's threads and their trees depend on the number of classes only. A block's rows and trees depend on the number of
 * rows only; the block's first threads add their rows' losses in order, in double, and kernels/cuda/sum.cuh the rest. */
#include "kernels/cuda/sum.cuh"
#include "kernels/cuda/operators.cuh"

namespace {
struct row_job {
  int64_t rows;
  int classes, ignore;
  float scale;
  const float *logits;
  const int32_t *labels;
  const float *class_weights, *row_weights;
  float *out; /* dlogits or NULL; log-softmax's y */
  double *partials;
};

/* What is known of some columns of a row: sum of e^(l - largest) but for the label's, which is `picked` (0 where it is elsewhere). */
struct row_sums {
  float largest, others, picked;
};

template <int LANES> __device__ __forceinline__ row_sums combine(row_sums s) {
  const float mine = s.largest;
#pragma unroll
  for (int step = LANES / 2; step; step >>= 1) s.largest = fmaxf(s.largest, __shfl_xor_sync(SW_ALL_LANES, s.largest, step));
  s.others *= mine == -INFINITY ? 0.0f : expf(mine - s.largest); /* NaN stays NaN */
#pragma unroll
  for (int step = LANES / 2; step; step >>= 1) {
    s.others += __shfl_xor_sync(SW_ALL_LANES, s.others, step);
    s.picked += __shfl_xor_sync(SW_ALL_LANES, s.picked, step);
  }
  return s;
}

/* A thread's columns of the tile that begins at column `start`; -infinity, which counts nothing, beyond the row. */
template <int LANES, int VALUES, int W>
__device__ __forceinline__ void load_tile(const float *l, unsigned classes, unsigned start, unsigned self, float v[VALUES]) {
#pragma unroll
  for (int k = 0; k < VALUES; k += W) {
    const unsigned c = start + W * self + LANES * k;
    sw_floats<W> x;
#pragma unroll
    for (int i = 0; i < W; i++) x.v[i] = -INFINITY;
    if (c < classes) x = sw_load<W>(l + c);
#pragma unroll
    for (int i = 0; i < W; i++) v[k + i] = x.v[i];
  }
}

template <int LANES> constexpr int THREADS = LANES > SW_WARP ? LANES : 256; /* of a block */
constexpr int LONGEST = 1024; /* threads of the rows that may need more than one tile */

template <bool LOSS, int LANES, int VALUES, int W> static __global__ void __launch_bounds__(THREADS<LANES>) rows_of(row_job job) {
  constexpr int GROUPS = THREADS<LANES> / LANES; /* rows that a block works on at a time */
  constexpr unsigned TILE = LANES * VALUES;
  SW_SHARED(row_sums, warps, 2 * SW_WARP);
  const unsigned self = threadIdx.x % LANES, classes = (unsigned)job.classes, tiles = LANES < LONGEST ? 1 : (classes + TILE - 1) / TILE;
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP;
  double total = 0;
  int turn = 0; /* the two halves of `warps` alternate, so that one barrier a row is enough */
  for (int64_t first = (int64_t)blockIdx.x * GROUPS; first < job.rows; first += (int64_t)gridDim.x * GROUPS) {
    const int64_t row = first + threadIdx.x / LANES; /* threads beyond the last row go along: a warp shuffles as a whole */
    const bool inside = row < job.rows;
    const int label = LOSS && inside ? job.labels[row] : -1;
    const bool counts = inside && !(LOSS && label == job.ignore);
    const float *l = job.logits + row * job.classes;
    row_sums s = {-INFINITY, 0, 0};
    float v[VALUES];
    if (counts) {
      for (unsigned tile = 0; tile < tiles; tile++) {
        load_tile<LANES, VALUES, W>(l, classes, tile * TILE, self, v);
        const unsigned place = (unsigned)label - tile * TILE - W * self; /* k + i, LANES apart for every W, where the label is mine */
        const float before = s.largest;
#pragma unroll
        for (int k = 0; k < VALUES; k++) s.largest = fmaxf(s.largest, v[k]);
        const float base = s.largest == -INFINITY ? 0.0f : s.largest;
        if (LANES == LONGEST) s.others *= expf(before - base);
#pragma unroll
        for (int k = 0; k < VALUES; k++) {
          const float e = expf(v[k] - base);
          const bool mine = LOSS && place == unsigned(LANES * (k - k % W) + k % W);
          s.others += mine ? 0.0f : e;
          if (mine) s.picked = v[k];
        }
      }
    }
    float c = 0;
    if (LANES <= SW_WARP || counts) { /* where a block has one row, all its threads agree */
      s = combine<(LANES < SW_WARP ? LANES : SW_WARP)>(s);
      if (LANES > SW_WARP) {
        if (lane == 0) warps[turn * SW_WARP + warp] = s;
        __syncthreads();
        s = lane < LANES / SW_WARP ? warps[turn * SW_WARP + lane] : row_sums{-INFINITY, 0, 0};
        s = combine<SW_WARP>(s);
        turn ^= 1;
      }
    }
    if (!inside) continue;
    const float sum = LOSS ? s.others + expf(s.picked - s.largest) : s.others;
    if (LOSS && counts) {
      double weight = job.row_weights ? job.row_weights[row] : 1.0;
      if (label < 0 || label >= job.classes)
        weight = NAN;
      else if (job.class_weights)
        weight *= job.class_weights[label];
      if (self == 0)
        total += weight * (s.picked == s.largest ? (double)log1pf(s.others) : (double)s.largest - s.picked + (double)logf(sum));
      c = (float)(weight * job.scale) / sum;
    }
    if (!job.out) continue;
    const float log_sum = LOSS ? 0.0f : logf(sum);
    for (unsigned tile = 0; tile < tiles; tile++) {
      if (tiles > 1 && counts) load_tile<LANES, VALUES, W>(l, classes, tile * TILE, self, v);
      const unsigned place = (unsigned)label - tile * TILE - W * self;
#pragma unroll
      for (int k = 0; k < VALUES; k += W) {
        const unsigned column = tile * TILE + W * self + LANES * k;
        if (column >= classes) continue;
        sw_floats<W> y;
#pragma unroll
        for (int i = 0; i < W; i++) {
          const float x = v[k + i] - s.largest;
          y.v[i] = !LOSS ? x - log_sum : !counts ? 0.0f : place == unsigned(LANES * k + i) ? -(c * s.others) : c * expf(x);
        }
        sw_store<W>(job.out + row * job.classes + column, y);
      }
    }
  }
  if (LOSS) {
    total = sw_block_sum(total);
    if (threadIdx.x == 0) job.partials[blockIdx.x] = total;
  }
}

template <bool LOSS, int LANES, int VALUES, int W> int launch_as(const sw_stream *stream, const char *name, const row_job &job, unsigned *blocks) {
  const int64_t needed = (job.rows + THREADS<LANES> / LANES - 1) / (THREADS<LANES> / LANES);
  *blocks = (unsigned)(needed < SW_SUM_BLOCKS ? needed : SW_SUM_BLOCKS);
  return sw_launch(stream, name, rows_of<LOSS, LANES, VALUES, W>, dim3(*blocks), dim3(THREADS<LANES>), 0, job);
}
template <bool LOSS, int LANES, int VALUES> int launch_long(const sw_stream *stream, const char *name, const row_job &job, unsigned *blocks) {
  return job.classes % 4 == 0   ? launch_as<LOSS, LANES, VALUES, 4>(stream, name, job, blocks)
         : job.classes % 2 == 0 ? launch_as<LOSS, LANES, VALUES, 2>(stream, name, job, blocks)
                                : launch_as<LOSS, LANES, VALUES, 1>(stream, name, job, blocks);
}
template <bool LOSS> int launch_rows(const sw_stream *stream, const char *name, const row_job &job, unsigned *blocks) {
  return job.classes <= 4      ? launch_as<LOSS, 1, 4, 1>(stream, name, job, blocks)
         : job.classes <= 8    ? launch_as<LOSS, 2, 4, 1>(stream, name, job, blocks)
         : job.classes <= 16   ? launch_as<LOSS, 4, 4, 1>(stream, name, job, blocks)
         : job.classes <= 32   ? launch_as<LOSS, 8, 4, 1>(stream, name, job, blocks)
         : job.classes <= 256  ? launch_as<LOSS, 32, 8, 1>(stream, name, job, blocks)
         : job.classes <= 2048 ? launch_long<LOSS, 256, 8>(stream, name, job, blocks)
                               : launch_long<LOSS, LONGEST, 32>(stream, name, job, blocks);
}

struct bce_job {
  int64_t count;
  int classes;
  float scale;
  const float *logits, *targets, *row_weights;
  float *dlogits;
  double *partials;
};
constexpr int BCE_THREADS = 256;

static __global__ void __launch_bounds__(BCE_THREADS) bce(bce_job job) {
  const int64_t step = (int64_t)gridDim.x * BCE_THREADS * 4;
  double total = 0;
  for (int64_t at = ((int64_t)blockIdx.x * BCE_THREADS + threadIdx.x) * 4; at < job.count; at += step) {
    const int n = job.count - at < 4 ? (int)(job.count - at) : 4;
    sw_floats<4> l = {}, t = {}, g;
    if (n == 4) {
      l = sw_load<4>(job.logits + at);
      t = sw_load<4>(job.targets + at);
    } else {
#pragma unroll
      for (int i = 0; i < 3; i++)
        if (i < n) l.v[i] = job.logits[at + i], t.v[i] = job.targets[at + i];
    }
    int64_t row = job.row_weights ? at / job.classes : 0;
    int column = (int)(at - row * job.classes);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i >= n) break;
      double weight = 1;
      if (job.row_weights) {
        weight = job.row_weights[row];
        if (++column == job.classes) column = 0, row++;
      }
      const float x = l.v[i], e = expf(-fabsf(x)), larger = 1 / (1 + e); /* sigmoid(|x|) */
      total += weight * (fmaxf(x, 0.0f) - x * t.v[i] + log1pf(e));
      g.v[i] = ((x >= 0 ? larger : e * larger) - t.v[i]) * (float)(weight * job.scale);
    }
    if (!job.dlogits) continue;
    if (n == 4) {
      sw_store<4>(job.dlogits + at, g);
    } else {
#pragma unroll
      for (int i = 0; i < 3; i++)
        if (i < n) job.dlogits[at + i] = g.v[i];
    }
  }
  total = sw_block_sum(total);
  if (threadIdx.x == 0) job.partials[blockIdx.x] = total;
}

int check_shape(const char *what, const sw_loss_desc *d) {
  if (d->rows < 0 || d->classes < 1)
    return sw_fail("%s: %lld rows of %d classes: sizes must be positive", what, (long long)d->rows, d->classes);
  return 0;
}
} // namespace

int sw_cuda_cross_entropy(sw_stream *stream, const sw_loss_desc *desc, const float *logits, const int32_t *labels, const float *class_weights,
                          const float *row_weights, double *loss, float *dlogits, void *workspace) {
  unsigned blocks;
  if (check_shape("cross_entropy", desc)) return -1;
  if (desc->rows == 0) return 0;
  const row_job job = {desc->rows, desc->classes, desc->ignore, desc->scale, logits, labels, class_weights, row_weights, dlogits, (double *)workspace};
  if (launch_rows<true>(stream, "cross_entropy", job, &blocks)) return -1;
  return sw_finish_sum(stream, "cross_entropy", blocks, workspace, true, loss);
}

int sw_cuda_sigmoid_bce(sw_stream *stream, const sw_loss_desc *desc, const float *logits, const float *targets, const float *row_weights,
                        double *loss, float *dlogits, void *workspace) {
  if (check_shape("sigmoid_bce", desc)) return -1;
  if (desc->rows == 0) return 0;
  const bce_job job = {desc->rows * desc->classes, desc->classes, desc->scale, logits, targets, row_weights, dlogits, (double *)workspace};
  const int64_t needed = (job.count + 4 * BCE_THREADS - 1) / (4 * BCE_THREADS);
  const unsigned blocks = (unsigned)(needed < SW_SUM_BLOCKS ? needed : SW_SUM_BLOCKS);
  if (sw_launch(stream, "sigmoid_bce", bce, dim3(blocks), dim3(BCE_THREADS), 0, job)) return -1;
  return sw_finish_sum(stream, "sigmoid_bce", blocks, workspace, true, loss);
}

int sw_cuda_log_softmax(sw_stream *stream, const sw_loss_desc *desc, const float *logits, float *y) {
  unsigned blocks;
  if (check_shape("log_softmax", desc)) return -1;
  const row_job job = {desc->rows, desc->classes, 0, 0, logits, nullptr, nullptr, nullptr, y, nullptr};
  return launch_rows<false>(stream, "log_softmax", job, &blocks);
}
