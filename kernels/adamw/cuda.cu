/* AdamW, sums of squares and casts on the GPU.
 *
 * Many tensors go in one launch: a table of them is a parameter of the kernel, and a block finds the tensor of its chunk there.
 * Each multiplication, fused or not, is spelled out, so that the compiler cannot choose: a row brought up to date step by step by
 * adamw_rows gets the bits that the dense kernel would have given it, and those of the CPU with FMA.
 *
 * adamw_rows: a block a row, each thread its columns, step after step in registers. Where m is 0, a step without gradient only scales p
 * and v (see kernels/adamw/cpu.c), which goes without the square root and the division. Rows are distinct, so nobody shares an element.
 *
 * sum_squares: chunk by chunk, a thread its elements in order, in double; then kernels/cuda/sum.cuh. Chunks and blocks depend on the tensors'
 * sizes only. */
#include "kernels/cuda/sum.cuh"
#include "kernels/cuda/operators.cuh"

namespace {
constexpr int THREADS = 256;

/* The last part that begins at `chunk` or before. */
template <class Table> __device__ __forceinline__ int part_of(const Table &table, int64_t chunk) {
  int low = 0, high = table.parts;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.part[middle].first <= chunk)
      low = middle;
    else
      high = middle;
  }
  return low;
}
__device__ __forceinline__ bool aligned16(const float *p) { return (uintptr_t)p % 16 == 0; }

/* Calls launch(table) for as many tensors at a time as the table holds; fill(part, tensor) copies what the kernel needs. */
template <class Table, class Fill, class Launch>
int for_tables(const char *what, int tensors, const sw_adamw_tensor *list, int chunk, Table table, Fill fill, Launch launch) {
  const int most = (int)(sizeof table.part / sizeof *table.part);
  for (int i = 0; i < tensors; i++)
    if (list[i].count < 0) return sw_fail("%s: tensor %d has %lld elements", what, i, (long long)list[i].count);
  for (int i = 0; i < tensors;) {
    table.parts = 0;
    table.chunks = 0;
    for (; i < tensors && table.parts < most; i++) {
      if (list[i].count == 0) continue;
      fill(table.part[table.parts], list[i]);
      table.part[table.parts].count = list[i].count;
      table.part[table.parts++].first = table.chunks;
      table.chunks += (list[i].count + chunk - 1) / chunk;
    }
    if (launch(table)) return -1;
  }
  return 0;
}

/* --- the update --- */
__device__ __forceinline__ float flushed(float x, float smallest) { return fabsf(x) < smallest ? 0.0f : x; }
constexpr float SMALLEST_M = 1e-30f, SMALLEST_V = 1e-36f; /* as on the CPU */

/* What an anchor adds to a step that began at `before`. */
__device__ __forceinline__ float pulled(const sw_adamw_step &s, float anchor, float before, float p) {
  return __fmaf_rn(s.pull, __fsub_rn(anchor, before), p);
}
/* One step of one element; g is the gradient already scaled. */
__device__ __forceinline__ void update(const sw_adamw_step &s, float decay, float g, float &p, float &m, float &v) {
  m = flushed(__fmaf_rn(s.beta1, m, __fmul_rn(g, s.one_minus_beta1)), SMALLEST_M);
  v = flushed(__fmaf_rn(s.beta2, v, __fmul_rn(__fmul_rn(g, s.one_minus_beta2), g)), SMALLEST_V);
  const float denominator = __fmaf_rn(__fsqrt_rn(v), s.inverse_sqrt_correction, s.eps);
  p = __fmaf_rn(p, decay, -__fdiv_rn(__fmul_rn(m, s.step_size), denominator));
}

struct dense_part {
  float *p, *m, *v;
  const float *g, *anchor;
  int64_t count, first;
  int decays;
};
struct dense_table {
  sw_adamw_step step;
  float scale;
  int parts;
  int64_t chunks;
  dense_part part[62];
};
static_assert(sizeof(dense_table) <= 4096, "kernels' parameters end there");
constexpr int DENSE_CHUNK = THREADS * 8;

static __global__ void __launch_bounds__(THREADS) dense(dense_table job) {
  const int which = part_of(job, blockIdx.x);
  const dense_part &t = job.part[which];
  float *const to_p = t.p, *const to_m = t.m, *const to_v = t.v;
  const float *const from_g = t.g, *const anchor = t.anchor;
  const float decay = t.decays ? job.step.decay : 1.0f;
  const int64_t start = (blockIdx.x - t.first) * DENSE_CHUNK, end = start + DENSE_CHUNK < t.count ? start + DENSE_CHUNK : t.count;
  if (end - start == DENSE_CHUNK && aligned16(to_p) && aligned16(to_m) && aligned16(to_v) && aligned16(from_g)) {
    sw_floats<4> p[2], m[2], v[2], g[2];
    const int64_t at = start + threadIdx.x * 4;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      p[k] = sw_load<4>(to_p + at + k * THREADS * 4), m[k] = sw_load<4>(to_m + at + k * THREADS * 4);
      v[k] = sw_load<4>(to_v + at + k * THREADS * 4), g[k] = sw_load<4>(from_g + at + k * THREADS * 4);
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float before = p[k].v[i];
        update(job.step, decay, __fmul_rn(g[k].v[i], job.scale), p[k].v[i], m[k].v[i], v[k].v[i]);
        if (anchor) p[k].v[i] = pulled(job.step, anchor[at + k * THREADS * 4 + i], before, p[k].v[i]);
      }
      sw_store<4>(to_p + at + k * THREADS * 4, p[k]), sw_store<4>(to_m + at + k * THREADS * 4, m[k]);
      sw_store<4>(to_v + at + k * THREADS * 4, v[k]);
    }
    return;
  }
  for (int64_t i = start + threadIdx.x; i < end; i += THREADS) {
    const float before = to_p[i];
    float p = before, m = to_m[i], v = to_v[i];
    update(job.step, decay, __fmul_rn(from_g[i], job.scale), p, m, v);
    if (anchor) p = pulled(job.step, anchor[i], before, p);
    to_p[i] = p, to_m[i] = m, to_v[i] = v;
  }
}

/* --- rows --- */
constexpr int ROW_THREADS = 128;
struct rows_job {
  sw_adamw_rows_desc d;
  const sw_adamw_step *history;
  float *p, *m, *v;
  int32_t *last_step;
  const int32_t *touched;
  const float *g;
};

__device__ __forceinline__ sw_adamw_step step_at(const sw_adamw_step *history) {
  static_assert(sizeof(sw_adamw_step) == 48, "three accesses of 16 bytes");
  const float4 *from = reinterpret_cast<const float4 *>(history);
  const float4 a = from[0], b = from[1], c = from[2];
  return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, {}};
}
template <int W> __device__ __forceinline__ bool all_zero_bits(const sw_floats<W> &x) {
  uint32_t any = 0;
#pragma unroll
  for (int i = 0; i < W; i++) any |= __float_as_uint(x.v[i]);
  return any == 0;
}

template <int W> static __global__ void __launch_bounds__(ROW_THREADS) rows_kernel(rows_job job) {
  const int64_t row = job.touched ? job.touched[blockIdx.x] : blockIdx.x;
  if (row < 0 || row >= job.d.rows) return;
  const int64_t seen = job.last_step[row], missed = (job.g ? job.d.step - 1 : job.d.step) - seen;
  if (missed == 0 && !job.g) return;
  const bool known = missed >= 0 && seen >= job.d.first_step - 1;
  const sw_adamw_step *history = job.history + (seen + 1 - job.d.first_step);
  __syncthreads(); /* all have read last_step */
  if (known && threadIdx.x == 0) job.last_step[row] = (int32_t)job.d.step;
  for (int c = (int)threadIdx.x * W; c < job.d.hidden; c += ROW_THREADS * W) {
    const int64_t at = row * job.d.hidden + c;
    sw_floats<W> p, m, v, a = {};
    if (!known) {
#pragma unroll
      for (int i = 0; i < W; i++) p.v[i] = NAN;
      sw_store<W>(job.p + at, p);
      continue;
    }
    m = sw_load<W>(job.m + at), v = sw_load<W>(job.v + at);
    const bool untouched = all_zero_bits(m) && all_zero_bits(v);
    const bool anchored = job.d.anchor != nullptr;
    if (untouched && !job.d.decays && !anchored && !job.g && history->eps > 0) continue;
    p = sw_load<W>(job.p + at);
    if (anchored) a = sw_load<W>(job.d.anchor + at);
    int64_t s = 0;
    for (; s < missed; s++) {
      const sw_adamw_step step = step_at(history + s);
      if (step.eps > 0 && all_zero_bits(m)) break;
#pragma unroll
      for (int i = 0; i < W; i++) {
        const float before = p.v[i];
        update(step, job.d.decays ? step.decay : 1.0f, 0, p.v[i], m.v[i], v.v[i]);
        if (anchored) p.v[i] = pulled(step, a.v[i], before, p.v[i]);
      }
    }
    for (; s < missed; s++) {
      const sw_adamw_step step = step_at(history + s);
#pragma unroll
      for (int i = 0; i < W; i++) {
        const float before = p.v[i];
        if (job.d.decays) p.v[i] = __fmul_rn(before, step.decay);
        if (anchored) p.v[i] = pulled(step, a.v[i], before, p.v[i]);
        v.v[i] = flushed(__fmul_rn(v.v[i], step.beta2), SMALLEST_V);
      }
    }
    if (job.g) {
      const sw_adamw_step step = step_at(job.history + (job.d.step - job.d.first_step));
      const sw_floats<W> g = sw_load<W>(job.g + (int64_t)blockIdx.x * job.d.hidden + c);
#pragma unroll
      for (int i = 0; i < W; i++) {
        const float before = p.v[i];
        update(step, job.d.decays ? step.decay : 1.0f, __fmul_rn(g.v[i], job.d.grad_scale), p.v[i], m.v[i], v.v[i]);
        if (anchored) p.v[i] = pulled(step, a.v[i], before, p.v[i]);
      }
    }
    sw_store<W>(job.p + at, p);
    if (untouched && !job.g) continue;
    sw_store<W>(job.m + at, m), sw_store<W>(job.v + at, v);
  }
}

/* --- sum of squares --- */
struct squares_part {
  const float *g;
  int64_t count, first;
};
struct squares_table {
  double *partials;
  int64_t chunks;
  int parts, written; /* partial sums that are there already: they are added to */
  squares_part part[160];
};
static_assert(sizeof(squares_table) <= 4096, "kernels' parameters end there");
constexpr int SQUARES_CHUNK = THREADS * 16;

static __global__ void __launch_bounds__(THREADS) squares(squares_table job) {
  double sum = 0;
  for (int64_t chunk = blockIdx.x; chunk < job.chunks; chunk += gridDim.x) {
    const int which = part_of(job, chunk);
    const squares_part &t = job.part[which];
    const float *const g = t.g;
    const int64_t start = (chunk - t.first) * SQUARES_CHUNK, end = start + SQUARES_CHUNK < t.count ? start + SQUARES_CHUNK : t.count;
    if (end - start == SQUARES_CHUNK && aligned16(g)) {
      sw_floats<4> x[4];
#pragma unroll
      for (int k = 0; k < 4; k++) x[k] = sw_load<4>(g + start + (k * THREADS + threadIdx.x) * 4);
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum += (double)x[k].v[i] * (double)x[k].v[i];
    } else {
      for (int64_t i = start + threadIdx.x; i < end; i += THREADS) sum += (double)g[i] * (double)g[i];
    }
  }
  sum = sw_block_sum(sum);
  if (threadIdx.x == 0) job.partials[blockIdx.x] = (int)blockIdx.x < job.written ? job.partials[blockIdx.x] + sum : sum;
}

/* --- cast: four elements a thread --- */
template <class From, class To> static __global__ void __launch_bounds__(THREADS) cast(int64_t count, const From *x, To *y) {
  const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4;
  if (at + 4 <= count)
    sw_store4(y + at, sw_load4(x + at));
  else
    for (int64_t i = at; i < count; i++) y[i] = sw_from_float<To>(sw_to_float(x[i]));
}
} // namespace

int sw_cuda_adamw(sw_stream *stream, const sw_adamw_desc *desc, const sw_adamw_tensor *list) {
  dense_table table = {};
  table.step = desc->step;
  table.scale = desc->grad_scale;
  return for_tables(
      "adamw", desc->tensors, list, DENSE_CHUNK, table,
      [](dense_part &part, const sw_adamw_tensor &t) { part.p = t.p, part.m = t.m, part.v = t.v, part.g = t.g, part.decays = t.decays, part.anchor = t.anchor; },
      [&](const dense_table &filled) { return sw_launch(stream, "adamw", dense, dim3((unsigned)filled.chunks), dim3(THREADS), 0, filled); });
}

int sw_cuda_adamw_rows(sw_stream *stream, const sw_adamw_rows_desc *desc, const sw_adamw_step *history, float *p, float *m, float *v,
                       int32_t *last_step, const int32_t *touched, int64_t count, const float *g) {
  const sw_adamw_rows_desc d = *desc;
  const int64_t rows = touched ? count : d.rows;
  if (d.rows < 0 || d.hidden < 1 || count < 0 || rows > INT32_MAX || d.first_step < 1 || d.step < d.first_step || d.step > INT32_MAX)
    return sw_fail("adamw_rows: rows %lld, hidden %d, touched %lld, steps %lld to %lld: out of range", (long long)d.rows, d.hidden,
                   (long long)count, (long long)d.first_step, (long long)d.step);
  if (g && !touched) return sw_fail("adamw_rows: gradients without the rows they belong to");
  const rows_job job = {d, history, p, m, v, last_step, touched, g};
  return sw_launch(stream, "adamw_rows", d.hidden % 4 ? rows_kernel<1> : rows_kernel<4>, dim3((unsigned)rows), dim3(ROW_THREADS), 0, job);
}

int sw_cuda_sum_squares(sw_stream *stream, int tensors, const sw_adamw_tensor *list, double *sum, void *workspace) {
  squares_table table = {};
  unsigned written = 0;
  table.partials = (double *)workspace;
  if (for_tables(
          "sum_squares", tensors, list, SQUARES_CHUNK, table, [](squares_part &part, const sw_adamw_tensor &t) { part.g = t.g; },
          [&](squares_table &filled) {
            const unsigned blocks = (unsigned)(filled.chunks < SW_SUM_BLOCKS ? filled.chunks : SW_SUM_BLOCKS);
            filled.written = (int)written;
            if (blocks > written) written = blocks;
            return sw_launch(stream, "sum_squares", squares, dim3(blocks), dim3(THREADS), 0, filled);
          }))
    return -1;
  return sw_finish_sum(stream, "sum_squares", written, workspace, false, sum);
}

int sw_cuda_cast(sw_stream *stream, int64_t count, sw_dtype from, const void *x, sw_dtype to, void *y) {
  if (count < 0) return sw_fail("cast: %lld elements", (long long)count);
  const dim3 grid(sw_blocks(count, 4 * THREADS));
  if (from == to)
    return count ? sw_cuda_check(cudaMemcpyAsync(y, x, (size_t)count * sw_dtype_bytes(to), cudaMemcpyDeviceToDevice, sw_cuda_stream(stream)), "cast") : 0;
  return to == SW_BF16 ? sw_launch(stream, "cast", cast<float, sw_bf16>, grid, dim3(THREADS), 0, count, (const float *)x, (sw_bf16 *)y)
                       : sw_launch(stream, "cast", cast<sw_bf16, float>, grid, dim3(THREADS), 0, count, (const sw_bf16 *)x, (float *)y);
}
