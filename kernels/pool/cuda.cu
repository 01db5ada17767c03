/* Pooling and gathering on the GPU.
 *
 * A sequence belongs to a block of 512 threads. A thread holds V neighbouring columns (4 where the row's length divides by it) of one of
 * `slices` interleaved parts of the tokens, so that a block reads several whole rows at a time, one after the other in memory:
 * slice s takes tokens s, s + slices, ... Rows of more than 512 V columns go in panels, one slice each. The slices' sums or maxima meet in
 * shared memory and are joined in order. Backward each thread makes its columns' gradient anew and writes it to its slice's tokens.
 *
 * Deterministic: slices and order depend on the number of columns and tokens of the sequence only. */
#include "kernels/cuda/sum.cuh"
#include "kernels/cuda/operators.cuh"
#include <climits>

namespace {
constexpr int THREADS = 512;
constexpr float SMALLEST_NORM = 1e-12f;

struct pool_job {
  int batch, hidden;
  int64_t total;
  bool cls, sum, normalize;
  const int32_t *cu_seqlens;
};

template <int V, class T> __device__ __forceinline__ sw_floats<V> load(const T *p) {
  if constexpr (V == 4) {
    const float4 x = sw_load4(p);
    return {{x.x, x.y, x.z, x.w}};
  } else {
    return {{sw_to_float(*p)}};
  }
}
template <int V, class T> __device__ __forceinline__ void store(T *p, sw_floats<V> x) {
  if constexpr (V == 4)
    sw_store4(p, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
  else
    *p = sw_from_float<T>(x.v[0]);
}

/* Does a take over from the running maximum m? NaN does, and stays, as in PyTorch. */
__device__ __forceinline__ bool beats(float a, float m) { return a > m || (isnan(a) && !isnan(m)); }

/* A block's sequence, and a thread's place in it. */
struct place {
  int64_t first;   /* token */
  int tokens;      /* of the sequence; -1 where cu_seqlens is no good */
  int across;      /* threads side by side in a panel */
  int slices, slice, column;
};
template <int V> __device__ __forceinline__ place place_of(const pool_job &job) {
  place at;
  at.first = job.cu_seqlens[blockIdx.x];
  const int64_t tokens = job.cu_seqlens[blockIdx.x + 1] - at.first;
  at.tokens = at.first < 0 || tokens < 0 || at.first + tokens > job.total ? -1 : (int)tokens;
  at.across = job.hidden / V < THREADS ? job.hidden / V : THREADS;
  at.slices = THREADS / at.across;
  at.slice = (int)threadIdx.x / at.across; /* beyond `slices`: a spare thread */
  at.column = (int)threadIdx.x % at.across * V;
  return at;
}

template <class T, int V, bool MAX> static __global__ void __launch_bounds__(THREADS) pool(pool_job job, const T *x, float *y, float *norms) {
  SW_SHARED(float, parts, THREADS * V); /* [V][THREADS] */
  const place at = place_of<V>(job);
  const int hidden = job.hidden, count = job.cls && at.tokens > 1 ? 1 : at.tokens; /* the first token is the mean of one */
  const int64_t sequence = blockIdx.x;
  float squares = 0;
  for (int panel = 0; panel < hidden; panel += at.across * V) {
    const int column = panel + at.column;
    sw_floats<V> sum;
#pragma unroll
    for (int j = 0; j < V; j++) sum.v[j] = MAX ? -INFINITY : 0.0f;
    if (at.slice < at.slices && column < hidden) {
      const T *from = x + at.first * hidden + column;
#pragma unroll 8
      for (int t = at.slice; t < count; t += at.slices) {
        const sw_floats<V> a = load<V>(from + (int64_t)t * hidden);
#pragma unroll
        for (int j = 0; j < V; j++) sum.v[j] = !MAX ? sum.v[j] + a.v[j] : beats(a.v[j], sum.v[j]) ? a.v[j] : sum.v[j];
      }
    }
#pragma unroll
    for (int j = 0; j < V; j++) parts[j * THREADS + threadIdx.x] = sum.v[j];
    __syncthreads(); /* once is enough: where there are more panels, a slice is all */
    if (at.slice == 0 && column < hidden) {
      for (int s = 1; s < at.slices; s++)
#pragma unroll
        for (int j = 0; j < V; j++) {
          const float a = parts[j * THREADS + s * at.across + threadIdx.x];
          sum.v[j] = !MAX ? sum.v[j] + a : beats(a, sum.v[j]) ? a : sum.v[j];
        }
#pragma unroll
      for (int j = 0; j < V; j++) {
        sum.v[j] = count < 0 ? NAN : count == 0 ? 0.0f : MAX || job.sum ? sum.v[j] : sum.v[j] / (float)count;
        squares += sum.v[j] * sum.v[j];
      }
      store<V>(y + sequence * hidden + column, sum);
    }
  }
  if (!job.normalize && !norms) return;
  const float length = sqrtf(sw_block_sum(squares)), divisor = length < SMALLEST_NORM ? SMALLEST_NORM : length; /* NaN stays NaN */
  if (norms && threadIdx.x == 0) norms[sequence] = length;
  if (!job.normalize || at.slice) return;
  for (int column = at.column; column < hidden; column += at.across * V) { /* what this thread has written */
    sw_floats<V> v = load<V>(y + sequence * hidden + column);
#pragma unroll
    for (int j = 0; j < V; j++) v.v[j] /= divisor;
    store<V>(y + sequence * hidden + column, v);
  }
}

/* With n = |pooled| and y = pooled / n: d pooled = (dy - y (y . dy)) / n; where n was below the floor, y = pooled / floor. */
template <class T, int V, bool MAX>
static __global__ void __launch_bounds__(THREADS) unpool(pool_job job, const T *x, const float *y, const float *norms, const float *dy, T *dx) {
  SW_SHARED(float, best, THREADS * V); /* [V][THREADS]: a slice's maximum and its token */
  SW_SHARED(int, token, THREADS * V);
  const int hidden = job.hidden;
  if ((int)blockIdx.x == job.batch) { /* tokens that belong to no sequence */
    const int64_t end = job.total * hidden;
    for (int64_t i = (int64_t)job.cu_seqlens[job.batch] * hidden + threadIdx.x; i >= 0 && i < end; i += THREADS) dx[i] = sw_from_float<T>(0);
    return;
  }
  const place at = place_of<V>(job);
  if (at.tokens <= 0) return;
  y += (int64_t)blockIdx.x * hidden;
  dy += (int64_t)blockIdx.x * hidden;
  float along = 0, divisor = 1;
  if (job.normalize) {
    const float norm = norms[blockIdx.x];
    divisor = norm < SMALLEST_NORM ? SMALLEST_NORM : norm;
    for (int column = threadIdx.x; column < hidden; column += THREADS) along += y[column] * dy[column];
    along = sw_block_sum(along);
    if (norm < SMALLEST_NORM) along = 0;
  }
  for (int panel = 0; panel < hidden; panel += at.across * V) {
    const int column = panel + at.column;
    const bool mine = at.slice < at.slices && column < hidden;
    const int64_t from = at.first * hidden + column;
    int where[V];
    if (MAX) {
      sw_floats<V> most;
#pragma unroll
      for (int j = 0; j < V; j++) most.v[j] = -INFINITY, where[j] = INT_MAX; /* a slice without tokens */
      if (mine && at.slice < at.tokens) {
        most = load<V>(x + from + (int64_t)at.slice * hidden);
#pragma unroll
        for (int j = 0; j < V; j++) where[j] = at.slice;
#pragma unroll 4
        for (int t = at.slice + at.slices; t < at.tokens; t += at.slices) {
          const sw_floats<V> a = load<V>(x + from + (int64_t)t * hidden);
#pragma unroll
          for (int j = 0; j < V; j++)
            if (beats(a.v[j], most.v[j])) most.v[j] = a.v[j], where[j] = t;
        }
      }
#pragma unroll
      for (int j = 0; j < V; j++) best[j * THREADS + threadIdx.x] = most.v[j], token[j * THREADS + threadIdx.x] = where[j];
      __syncthreads(); /* once is enough, as in pool */
      if (mine)
        for (int s = 0; s < at.slices; s++)
#pragma unroll
          for (int j = 0; j < V; j++) { /* the first of equal ones */
            const int other = j * THREADS + s * at.across + at.column / V;
            if (beats(best[other], most.v[j]) || (!beats(most.v[j], best[other]) && token[other] < where[j]))
              most.v[j] = best[other], where[j] = token[other];
          }
    }
    if (!mine) continue;
    sw_floats<V> g = load<V>(dy + column), pooled = load<V>(y + column);
#pragma unroll
    for (int j = 0; j < V; j++) {
      if (job.normalize) g.v[j] = (g.v[j] - pooled.v[j] * along) / divisor;
      if (!MAX && !job.cls && !job.sum) g.v[j] /= (float)at.tokens;
    }
    for (int t = at.slice; t < at.tokens; t += at.slices) {
      sw_floats<V> d;
#pragma unroll
      for (int j = 0; j < V; j++) d.v[j] = (MAX ? t == where[j] : t == 0 || !job.cls) ? g.v[j] : 0.0f;
      store<V>(dx + from + (int64_t)t * hidden, d);
    }
  }
}

int job_of(const char *what, const sw_pool_desc *d, const int32_t *cu_seqlens, pool_job *job) {
  if (d->batch < 0 || d->hidden < 1 || d->total_tokens < 0)
    return sw_fail("%s: batch %d, hidden %d, tokens %lld: sizes must be positive", what, d->batch, d->hidden, (long long)d->total_tokens);
  if (d->pooling != SW_POOL_MEAN && d->pooling != SW_POOL_CLS && d->pooling != SW_POOL_MAX && d->pooling != SW_POOL_SUM)
    return sw_fail("%s: unknown pooling %d", what, (int)d->pooling);
  *job = {d->batch, d->hidden, d->total_tokens, d->pooling == SW_POOL_CLS, d->pooling == SW_POOL_SUM, d->normalize != 0, cu_seqlens};
  return 0;
}
template <class T, int V> int launch_pool(sw_stream *stream, const pool_job &job, bool max, const void *x, float *y, float *norms) {
  return sw_launch(stream, "pool_forward", max ? pool<T, V, true> : pool<T, V, false>, dim3((unsigned)job.batch), dim3(THREADS), 0, job,
                   (const T *)x, y, norms);
}
template <class T, int V>
int launch_unpool(sw_stream *stream, const pool_job &job, bool max, const void *x, const float *y, const float *norms, const float *dy, void *dx) {
  return sw_launch(stream, "pool_backward", max ? unpool<T, V, true> : unpool<T, V, false>, dim3((unsigned)job.batch + 1), dim3(THREADS), 0,
                   job, (const T *)x, y, norms, dy, (T *)dx);
}

/* --- gather: a warp a row, 16 bytes a thread where rows divide by that --- */
constexpr int ROWS = 8; /* warps of a block */
template <class U, bool BACKWARD>
static __global__ void __launch_bounds__(ROWS *SW_WARP) gather(int64_t rows, int64_t tokens, int64_t units, const int32_t *index, const U *x, U *y) {
  U nan;
  memset(&nan, 0xff, sizeof nan);
  for (int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / SW_WARP; row < rows; row += (int64_t)gridDim.x * ROWS) {
    const int64_t token = index[row];
    const bool bad = token < 0 || token >= tokens;
    if (BACKWARD && bad) continue;
    const U *from = x + (BACKWARD ? row : token) * units;
    U *to = y + (BACKWARD ? token : row) * units;
    for (int64_t i = threadIdx.x % SW_WARP; i < units; i += SW_WARP) to[i] = bad ? nan : from[i];
  }
}
template <class U, bool BACKWARD>
int launch_gather(sw_stream *stream, const sw_gather_desc *d, int64_t row_bytes, const int32_t *index, const void *x, void *y) {
  const int64_t needed = (d->rows + ROWS - 1) / ROWS;
  return sw_launch(stream, BACKWARD ? "gather_backward" : "gather_forward", gather<U, BACKWARD>,
                   dim3((unsigned)(needed < 1 << 20 ? needed : 1 << 20)), dim3(ROWS * SW_WARP), 0, d->rows, d->tokens,
                   row_bytes / (int64_t)sizeof(U), index, (const U *)x, (U *)y);
}
template <bool BACKWARD> int gather_rows(sw_stream *stream, const sw_gather_desc *d, const int32_t *index, const void *x, void *y) {
  const char *what = BACKWARD ? "gather_backward" : "gather_forward";
  if (d->rows < 0 || d->tokens < 0 || d->hidden < 1)
    return sw_fail("%s: rows %lld, tokens %lld, hidden %d: sizes must be positive", what, (long long)d->rows, (long long)d->tokens, d->hidden);
  const int64_t bytes = (int64_t)d->hidden * (int64_t)sw_dtype_bytes(d->dtype);
  if (BACKWARD && d->tokens &&
      sw_cuda_check(cudaMemsetAsync(y, 0, (size_t)(d->tokens * bytes), sw_cuda_stream(stream)), what))
    return -1;
  return bytes % 16 == 0  ? launch_gather<uint4, BACKWARD>(stream, d, bytes, index, x, y)
         : bytes % 4 == 0 ? launch_gather<uint32_t, BACKWARD>(stream, d, bytes, index, x, y)
                          : launch_gather<uint16_t, BACKWARD>(stream, d, bytes, index, x, y);
}
} // namespace

int sw_cuda_pool_forward(sw_stream *stream, const sw_pool_desc *desc, const int32_t *cu_seqlens, const void *x, float *y, float *norms) {
  pool_job job;
  if (job_of("pool_forward", desc, cu_seqlens, &job)) return -1;
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool max = desc->pooling == SW_POOL_MAX;
    return job.hidden % 4 ? launch_pool<T, 1>(stream, job, max, x, y, norms) : launch_pool<T, 4>(stream, job, max, x, y, norms);
  });
}

int sw_cuda_pool_backward(sw_stream *stream, const sw_pool_desc *desc, const int32_t *cu_seqlens, const void *x, const float *y,
                          const float *norms, const float *dy, void *dx) {
  pool_job job;
  if (job_of("pool_backward", desc, cu_seqlens, &job)) return -1;
  if (desc->normalize && !norms) return sw_fail("pool_backward: the norms of the forward pass are needed when normalising");
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool max = desc->pooling == SW_POOL_MAX;
    return job.hidden % 4 ? launch_unpool<T, 1>(stream, job, max, x, y, norms, dy, dx) : launch_unpool<T, 4>(stream, job, max, x, y, norms, dy, dx);
  });
}

int sw_cuda_gather_forward(sw_stream *stream, const sw_gather_desc *desc, const int32_t *index, const void *x, void *y) {
  return gather_rows<false>(stream, desc, index, x, y);
}
int sw_cuda_gather_backward(sw_stream *stream, const sw_gather_desc *desc, const int32_t *index, const void *dy, void *dx) {
  return gather_rows<true>(stream, desc, index, dy, dx);
}
