/* Attention on the GPU: see attention.h for the mathematics and the contract.
 *
 * Every kernel has the same shape. A block owns a tile of positions of one head of one sequence (`own`: queries, or in the kernel of dK
 * and dV keys) and streams the sequence's positions on the other side (`columns`: keys, or queries) through shared memory, 64 at a time:
 *
 *   forward        own queries, columns keys:    S = Q K^T, online softmax, O += P V
 *   backward dQ    own queries, columns keys:    S = Q K^T, dP = dO V^T, dQ += dS K; also D = rowsum(dO o O), kept in the workspace
 *   backward dK dV own keys, columns queries:    S^T = K Q^T, dP^T = V dO^T, dV += P^T dO, dK += dS^T Q
 *
 * The two kernels of backward are one template. Scores are computed twice instead of adding dQ across blocks: no atomics, one order of
 * sums. That order follows from the positions within the sequence alone, so the bits depend neither on the batch nor on its longest
 * sequence (which only decides how many warps, each with rows of its own, share a block).
 *
 * Probabilities come in 4 x 4 blocks: a thread owns four neighbouring positions, and four neighbouring columns of every 16 (tensor cores)
 * or 32 (FMA). So on either side the four keys of a Philox counter are one thread's, and it computes each counter once.
 * Tiles in shared memory have their rows permuted for that.
 *
 * bf16 with heads of 32 or 64: tensor cores. A warp owns 32 positions, whose fragments stay in registers; 32 and not 16, because one
 * ldmatrix then feeds four products, otherwise shared memory is slower than the tensor cores. In the accumulators a thread has rows g, g + 8,
 * g + 16, g + 24 of the warp's 32: they are positions 4 g .. 4 g + 3. Of 16 columns it has 2 t, 2 t + 1 and 2 t + 8, 2 t + 9: they are positions
 * 4 t .. 4 t + 3. P and dS go from accumulators to the factors of the next product inside the thread, rounded to bf16.
 * Tiles are double-buffered: while one is used, cp.async brings the next, in 16-byte chunks whose places are
 * xor-ed with the row, so that neither ldmatrix nor the copies meet bank conflicts.
 *
 * Everything else (fp32, other head sizes): fp32 multiply-adds, 128 threads, each with 4 x 8 scores and 4 rows of the result. Heads wider than
 * 64 are cut in slices of 64: each block makes one slice of the result and computes the scores anew from all slices. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/operators.cuh"
extern "C" {
#include "kernels/attention/check.h"
}

constexpr int COLUMNS = 64; /* of a tile */

template <class T> struct job {
  const int32_t *cu_seqlens;
  const T *qkv, *dout;
  T *out, *dqkv;
  float *lse, *inner; /* [total, heads]; inner is D */
  int batch, max_seqlen, heads, head_size;
  int tiles; /* of the longest sequence */
  float scale;
  bool dropout;
  sw_dropout_mask mask;
};

/* What a block works on. */
struct place {
  int begin, length;      /* the sequence's first token, its tokens */
  int first;              /* the block's first own position */
  int head, slice, heads; /* the slice of the head (tensor cores: all of it) */
  /* Its row in tensors [total, heads]. */
  __device__ __forceinline__ int64_t row(int position) const { return (int64_t)(begin + position) * heads + head; }
};
/* False where there is nothing to do. Blocks beyond a sequence's end leave at once; a sequence longer than promised is left alone. */
template <class T> __device__ __forceinline__ bool locate(const job<T> &j, int rows, place *p) {
  const int64_t sequence = (int64_t)blockIdx.z * gridDim.y + blockIdx.y;
  if (sequence >= j.batch) return false;
  p->begin = j.cu_seqlens[sequence];
  p->length = j.cu_seqlens[sequence + 1] - p->begin;
  const int rest = (int)blockIdx.x / j.tiles;
  p->first = (int)blockIdx.x % j.tiles * rows;
  p->head = rest % j.heads;
  p->slice = rest / j.heads;
  p->heads = j.heads;
  return p->first < p->length && p->length <= j.max_seqlen;
}
/* Where a head's row begins in qkv [total, 3, heads, size] (part: q 0, k 1, v 2) and in out [total, heads, size]. */
template <class T> __device__ __forceinline__ int64_t qkv_at(const job<T> &j, const place &p, int part, int position) {
  return (((int64_t)(p.begin + position) * 3 + part) * j.heads + p.head) * j.head_size;
}
template <class T> __device__ __forceinline__ int64_t out_at(const job<T> &j, const place &p, int position) {
  return p.row(position) * j.head_size;
}
/* Elements from a row to the next. */
template <class T> __device__ __forceinline__ int out_stride(const job<T> &j) { return j.heads * j.head_size; }

/* Which of a 4 x 4 block dropout keeps: bit 4 i + k for the i-th query from `query` on and the k-th key from `key` on. */
template <class T> __device__ __forceinline__ unsigned kept_of(const job<T> &j, const place &p, int query, int key) {
  unsigned bits = 0;
#pragma unroll 2 /* all four at once need too many registers */
  for (int i = 0; i < 4; i++) bits |= j.mask.kept((uint64_t)p.row(query + i) << 8 | (unsigned)key >> 2) << 4 * i;
  return bits;
}
template <class T> __device__ __forceinline__ float multiplier(const job<T> &j, unsigned kept, int query, int key) {
  return kept >> (4 * query + key) & 1 ? j.mask.scale : 0.0f;
}

/* The sequence's lse (for exp2) and D to shared memory; queries beyond its end have no probability. */
template <class T> __device__ __forceinline__ void load_statistics(const job<T> &j, const place &p, float *lse, float *inner) {
  for (int i = threadIdx.x; i < (p.length + 15) / 16 * 16; i += blockDim.x) {
    const bool valid = i < p.length;
    lse[i] = valid ? j.lse[p.row(i)] * LOG2_E : INFINITY;
    inner[i] = valid ? j.inner[p.row(i)] : 0.0f;
  }
}
__device__ __forceinline__ float4 load_shared4(const float *p) { return *reinterpret_cast<const float4 *>(p); }

/* --- tensor cores --- */
/* Where position r of a tile is in shared memory, among 32 if it is the block's own, among 16 of columns: see above. */
template <bool OWN> __device__ __forceinline__ int tile_row(int r) {
  return OWN ? (r & ~31) | (r & 3) << 3 | (r & 28) >> 2 : (r & ~15) | (r & 2) << 2 | (r & 12) >> 1 | (r & 1);
}
/* The place of a 16-byte chunk of a row. */
template <int SIZE> __device__ __forceinline__ int chunk_at(int row, int chunk) {
  return row * SIZE + (chunk ^ (SIZE == 64 ? row & 7 : row >> 1 & 3)) * 8;
}

/* `rows` rows to a tile in the background, zeros up to the next 16 or (own) 32. */
template <int SIZE, bool OWN> __device__ __forceinline__ void copy_tile(sw_bf16 *to, const sw_bf16 *from, int stride, int rows) {
  constexpr int CHUNKS = SIZE / 8, WHOLE = OWN ? 32 : 16;
#pragma unroll 1 /* registers are scarcer than time here */
  for (int i = threadIdx.x; i < (rows + WHOLE - 1) / WHOLE * WHOLE * CHUNKS; i += blockDim.x) {
    const int r = i / CHUNKS, c = i % CHUNKS;
    const bool valid = r < rows;
    sw_async_copy16(to + chunk_at<SIZE>(tile_row<OWN>(r), c), from + (int64_t)(valid ? r : 0) * stride + c * 8, valid);
  }
}

/* The four lanes of a quad transpose their 4 x 4 words: lane t's w[k] becomes lane k's w[t]. */
__device__ __forceinline__ void quad_transpose(uint32_t w[4]) {
#pragma unroll
  for (int step = 1; step <= 2; step <<= 1) {
    const bool upper = threadIdx.x & step;
#pragma unroll
    for (int a = 0; a < 4; a++) {
      if (a & step) continue;
      const uint32_t other = __shfl_xor_sync(SW_ALL_LANES, upper ? w[a] : w[a | step], step);
      if (upper)
        w[a] = other;
      else
        w[a | step] = other;
    }
  }
}
/* The sum or the largest of a quad's four values, in each. */
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(SW_ALL_LANES, x, 1);
  return x + __shfl_xor_sync(SW_ALL_LANES, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(SW_ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(SW_ALL_LANES, x, 2));
}

/* One of a thread's four rows as words of two elements: words[c] is elements 8 c + 2 t, + 1. Zeros where !valid. */
template <int SIZE> __device__ __forceinline__ void load_row(uint32_t words[SIZE / 8], const sw_bf16 *row, bool valid) {
  const int t = threadIdx.x & 3;
#pragma unroll
  for (int c = 0; c < SIZE / 8; c += 4) {
    const uint4 v = valid ? *reinterpret_cast<const uint4 *>(row + (c + t) * 8) : make_uint4(0, 0, 0, 0);
    words[c] = v.x, words[c + 1] = v.y, words[c + 2] = v.z, words[c + 3] = v.w;
    quad_transpose(words + c);
  }
}
/* The warp's 32 rows as the left factor of products; `row` is the thread's first, `valid` how many of its four there are. */
template <int SIZE>
__device__ __forceinline__ void load_rows(uint32_t a[2][SIZE / 16][4], const sw_bf16 *row, int stride, int valid) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t words[SIZE / 8];
    load_row<SIZE>(words, row + (int64_t)i * stride, i < valid);
#pragma unroll
    for (int c = 0; c < SIZE / 8; c++) a[i >> 1][c >> 1][(i & 1) + 2 * (c & 1)] = words[c];
  }
}
/* The warp's 32 rows of results, row i times factor[i]. */
template <int SIZE>
__device__ __forceinline__ void store_rows(const float c[2][SIZE / 8][4], const float factor[4], sw_bf16 *row, int stride, int valid) {
  const int t = threadIdx.x & 3;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int n = 0; n < SIZE / 8; n += 4) {
      uint32_t w[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const float *two = c[i >> 1][n + k] + 2 * (i & 1);
        w[k] = sw_pack_bf16(two[0] * factor[i], two[1] * factor[i]);
      }
      quad_transpose(w);
      if (i < valid) *reinterpret_cast<uint4 *>(row + (int64_t)i * stride + (n + t) * 8) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

/* c [32 own, 16 columns] += own [32, SIZE] (tile rows 16 group .. + 15)^T; the warp's own rows are `own`, or in shared memory. */
template <int SIZE, bool SHARED>
__device__ __forceinline__ void scores(float c[2][2][4], const uint32_t own[2][SIZE / 16][4], const sw_bf16 *own_tile, const sw_bf16 *tile,
                                       int group) {
  const int lane = threadIdx.x & 31, row = group * 16 + (lane >> 4) * 8 + (lane & 7), own_row = (int)(threadIdx.x & ~31u) + (lane & 15);
#pragma unroll
  for (int k = 0; k < SIZE / 16; k++) {
    uint32_t a[4], b[4];
    sw_ldmatrix_x4(b, tile + chunk_at<SIZE>(row, 2 * k + (lane >> 3 & 1)));
#pragma unroll
    for (int m = 0; m < 2; m++) {
      if (SHARED) sw_ldmatrix_x4(a, own_tile + chunk_at<SIZE>(own_row + 16 * m, 2 * k + (lane >> 4)));
      sw_mma_bf16(c[m][0], SHARED ? a : own[m][k], b);
      sw_mma_bf16(c[m][1], SHARED ? a : own[m][k], b + 2);
    }
  }
}
/* c [32 own, SIZE] += weights [32, 16 columns] (tile rows 16 group .. + 15) */
template <int SIZE>
__device__ __forceinline__ void combine(float c[2][SIZE / 8][4], const uint32_t weights[2][4], const sw_bf16 *tile, int group) {
  const int lane = threadIdx.x & 31, row = group * 16 + (lane & 15);
#pragma unroll
  for (int n = 0; n < SIZE / 8; n += 2) {
    uint32_t b[4];
    sw_ldmatrix_x4_transposed(b, tile + chunk_at<SIZE>(row, n + (lane >> 4)));
#pragma unroll
    for (int m = 0; m < 2; m++) {
      sw_mma_bf16(c[m][n], weights[m], b);
      sw_mma_bf16(c[m][n + 1], weights[m], b + 2);
    }
  }
}
/* Element (own i, column e) of a thread's 4 x 4 block in accumulators, and the blocks as the left factor of a product. */
__device__ __forceinline__ float &element(float c[2][2][4], int i, int e) { return c[i >> 1][e >> 1][2 * (i & 1) + (e & 1)]; }
__device__ __forceinline__ void as_factor(uint32_t a[2][4], const float c[2][2][4]) {
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < 2; n++) {
      a[m][2 * n] = sw_pack_bf16(c[m][n][0], c[m][n][1]);
      a[m][2 * n + 1] = sw_pack_bf16(c[m][n][2], c[m][n][3]);
    }
}

/* A tile of forward: `left` keys from position `first` on, for the thread's queries from `own` on. */
template <int SIZE, bool DROPOUT, bool FULL>
__device__ __forceinline__ void forward_tile(const job<sw_bf16> &j, const place &p, const sw_bf16 *keys, const sw_bf16 *values, int first,
                                             int left, int own, const uint32_t q[2][SIZE / 16][4], float o[2][SIZE / 8][4], float top[4],
                                             float sum[4]) {
  const int t = threadIdx.x & 3, groups = FULL ? COLUMNS / 16 : (left + 15) / 16;
  const float factor = j.scale * LOG2_E;
  float s[COLUMNS / 16][2][2][4] = {}, high[4], shift[4];
  uint64_t kept = 0; /* 16 bits a group */
  if (DROPOUT)
#pragma unroll 1
    for (int group = groups; group-- > 0;) kept = kept << 16 | kept_of(j, p, own, first + group * 16 + 4 * t);
#pragma unroll
  for (int i = 0; i < 4; i++) high[i] = top[i];
#pragma unroll
  for (int group = 0; group < COLUMNS / 16; group++) {
    if (!FULL && group >= groups) break;
    scores<SIZE, false>(s[group], q, nullptr, keys, group);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float &x = element(s[group], i, e);
        if (!FULL && group * 16 + 4 * t + e >= left) x = -INFINITY;
        high[i] = fmaxf(high[i], x);
      }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    high[i] = quad_max(high[i]);
    const float shrink = sw_exp2((top[i] - high[i]) * factor);
    top[i] = high[i];
    shift[i] = high[i] * factor;
    sum[i] *= shrink;
#pragma unroll
    for (int n = 0; n < SIZE / 8; n++) {
      o[i >> 1][n][2 * (i & 1)] *= shrink;
      o[i >> 1][n][2 * (i & 1) + 1] *= shrink;
    }
  }
#pragma unroll
  for (int group = 0; group < COLUMNS / 16; group++) {
    if (!FULL && group >= groups) break;
    uint32_t weights[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float &x = element(s[group], i, e);
        x = sw_exp2(fmaf(x, factor, -shift[i]));
        sum[i] += x;
        if (DROPOUT) x *= multiplier(j, (unsigned)(kept >> 16 * group), i, e);
      }
    as_factor(weights, s[group]);
    combine<SIZE>(o, weights, values, group);
  }
}

template <int SIZE, bool DROPOUT> static __global__ void __launch_bounds__(128, 2) forward_bf16(const job<sw_bf16> j, const int tile_rows) {
  SW_DYNAMIC_SHARED(sw_bf16, shared); /* [2][K, V][tile_rows, SIZE]; one stage where no sequence has a second tile */
  place p;
  if (!locate(j, (int)blockDim.x, &p)) return;
  const int stride = 3 * out_stride(j);
  const int warp_first = p.first + (int)(threadIdx.x & ~31u), own = warp_first + (int)(threadIdx.x & 31) / 4 * 4, tile = tile_rows * SIZE;
  copy_tile<SIZE, false>(shared, j.qkv + qkv_at(j, p, 1, 0), stride, min(p.length, COLUMNS));
  copy_tile<SIZE, false>(shared + tile, j.qkv + qkv_at(j, p, 2, 0), stride, min(p.length, COLUMNS));
  sw_async_commit();
  uint32_t q[2][SIZE / 16][4];
  load_rows<SIZE>(q, j.qkv + qkv_at(j, p, 0, own), stride, p.length - own);
  float o[2][SIZE / 8][4] = {}, top[4], sum[4];
#pragma unroll
  for (int i = 0; i < 4; i++) top[i] = -INFINITY, sum[i] = 0;
  for (int first = 0; first < p.length; first += COLUMNS) {
    const int left = p.length - first, next = first + COLUMNS, stage = first / COLUMNS & 1;
    sw_async_wait<0>();
    __syncthreads(); /* this tile is there, and nobody uses the one before any more */
    if (next < p.length) {
      sw_bf16 *to = shared + (stage ^ 1) * 2 * tile;
      copy_tile<SIZE, false>(to, j.qkv + qkv_at(j, p, 1, next), stride, min(left - COLUMNS, COLUMNS));
      copy_tile<SIZE, false>(to + tile, j.qkv + qkv_at(j, p, 2, next), stride, min(left - COLUMNS, COLUMNS));
      sw_async_commit();
    }
    if (warp_first >= p.length) continue;
    const sw_bf16 *keys = shared + stage * 2 * tile, *values = keys + tile;
    if (left >= COLUMNS)
      forward_tile<SIZE, DROPOUT, true>(j, p, keys, values, first, left, own, q, o, top, sum);
    else
      forward_tile<SIZE, DROPOUT, false>(j, p, keys, values, first, left, own, q, o, top, sum);
  }
  if (warp_first >= p.length) return;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float whole = quad_sum(sum[i]);
    if (j.lse && threadIdx.x % 4 == 0 && own + i < p.length) j.lse[p.row(own + i)] = fmaf(top[i], j.scale, logf(whole));
    sum[i] = 1.0f / whole;
  }
  store_rows<SIZE>(o, sum, j.out + out_at(j, p, own), out_stride(j), p.length - own);
}

/* What a thread of backward keeps: its own rows as factors (Q and dO, or K), sums (of dQ, or of dK and dV), and for its queries lse and D.
 * Where it owns keys V is in shared memory, because there are not registers enough, and so are lse and D of all queries. */
template <int SIZE> struct gradients {
  uint32_t first[2][SIZE / 16][4], second[2][SIZE / 16][4];
  float to_first[2][SIZE / 8][4], to_second[2][SIZE / 8][4];
  float lse[4], inner[4];
};
/* A tile of backward: `columns` of them from position `start` on, rows of K and V, or of Q and dO. */
template <int SIZE, bool OF_KEYS, bool DROPOUT>
__device__ __forceinline__ void backward_tile(const job<sw_bf16> &j, const place &p, const sw_bf16 *first, const sw_bf16 *second, int start,
                                              int columns, int own, const sw_bf16 *own_values, const float *lse,
                                              const float *inner, gradients<SIZE> &g) {
  const float factor = j.scale * LOG2_E;
#pragma unroll 1 /* a group has products enough to hide each other, and needs all registers */
  for (int group = 0; group * 16 < columns; group++) {
    const int column = start + group * 16 + 4 * (int)(threadIdx.x & 3);
    const unsigned kept = DROPOUT ? kept_of(j, p, OF_KEYS ? column : own, OF_KEYS ? own : column) : 0;
    float s[2][2][4] = {}, d[2][2][4] = {};
    scores<SIZE, false>(s, g.first, nullptr, first, group);
    scores<SIZE, OF_KEYS>(d, g.second, own_values, second, group);
#pragma unroll
    for (int e = 0; e < 4; e++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float l = OF_KEYS ? lse[column + e] : g.lse[i], in = OF_KEYS ? inner[column + e] : g.inner[i];
        float &x = element(s, i, e), &y = element(d, i, e);
        x = sw_exp2(fmaf(x, factor, -l));
        if (!OF_KEYS && column + e >= p.length) x = 0; /* a key that is not there; a query's lse says so */
        const float m = DROPOUT ? multiplier(j, kept, OF_KEYS ? e : i, OF_KEYS ? i : e) : 1.0f;
        y = x * (y * m - in);
        x *= m;
      }
    uint32_t weights[2][4];
    if (OF_KEYS) {
      as_factor(weights, s);
      combine<SIZE>(g.to_second, weights, second, group);
    }
    as_factor(weights, d);
    combine<SIZE>(g.to_first, weights, first, group);
  }
}

template <int SIZE, bool OF_KEYS, bool DROPOUT> static __global__ void __launch_bounds__(128, SIZE == 32 && !OF_KEYS ? 3 : 2) backward_bf16(const job<sw_bf16> j, const int tile_rows) {
  SW_DYNAMIC_SHARED(sw_bf16, shared); /* as in forward, K and V or Q and dO; where keys are owned then own V, and lse and D of max_seqlen */
  place p;
  if (!locate(j, (int)blockDim.x, &p)) return;
  const int stride = 3 * out_stride(j), second_stride = OF_KEYS ? out_stride(j) : stride;
  const int warp_first = p.first + (int)(threadIdx.x & ~31u), own = warp_first + (int)(threadIdx.x & 31) / 4 * 4, tile = tile_rows * SIZE;
  const int valid = p.length - own, stages = j.max_seqlen > COLUMNS ? 2 : 1;
  copy_tile<SIZE, false>(shared, j.qkv + qkv_at(j, p, OF_KEYS ? 0 : 1, 0), stride, min(p.length, COLUMNS));
  copy_tile<SIZE, false>(shared + tile, OF_KEYS ? j.dout + out_at(j, p, 0) : j.qkv + qkv_at(j, p, 2, 0), second_stride, min(p.length, COLUMNS));
  sw_bf16 *own_values = shared + stages * 2 * tile;
  if (OF_KEYS) copy_tile<SIZE, true>(own_values, j.qkv + qkv_at(j, p, 2, p.first), stride, min(p.length - p.first, (int)blockDim.x));
  sw_async_commit();
  float *lse = reinterpret_cast<float *>(own_values + blockDim.x * SIZE), *inner = lse + (j.max_seqlen + 15) / 16 * 16;
  if (OF_KEYS) load_statistics(j, p, lse, inner);
  gradients<SIZE> g;
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < SIZE / 8; n++) {
      g.to_first[0][n][k] = g.to_first[1][n][k] = 0;
      if (OF_KEYS) g.to_second[0][n][k] = g.to_second[1][n][k] = 0;
    }
  load_rows<SIZE>(g.first, j.qkv + qkv_at(j, p, OF_KEYS ? 1 : 0, own), stride, valid);
  if (!OF_KEYS) {
    load_rows<SIZE>(g.second, j.dout + out_at(j, p, own), out_stride(j), valid);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint32_t words[SIZE / 8];
      float sum = 0;
      load_row<SIZE>(words, j.out + out_at(j, p, own + i), i < valid);
#pragma unroll
      for (int c = 0; c < SIZE / 8; c++) {
        const uint32_t d = g.second[i >> 1][c >> 1][(i & 1) + 2 * (c & 1)];
        sum = fmaf(sw_low_float(words[c]), sw_low_float(d), sum);
        sum = fmaf(sw_high_float(words[c]), sw_high_float(d), sum);
      }
      g.inner[i] = quad_sum(sum);
      g.lse[i] = i < valid ? j.lse[p.row(own + i)] * LOG2_E : 0.0f;
      if (i < valid && threadIdx.x % 4 == 0) j.inner[p.row(own + i)] = g.inner[i];
    }
  }
  for (int start = 0; start < p.length; start += COLUMNS) {
    const int left = p.length - start, next = start + COLUMNS, stage = start / COLUMNS & 1;
    sw_async_wait<0>();
    __syncthreads(); /* this tile is there, and nobody uses the one before any more */
    if (next < p.length) {
      sw_bf16 *to = shared + (stage ^ 1) * 2 * tile;
      copy_tile<SIZE, false>(to, j.qkv + qkv_at(j, p, OF_KEYS ? 0 : 1, next), stride, min(left - COLUMNS, COLUMNS));
      copy_tile<SIZE, false>(to + tile, OF_KEYS ? j.dout + out_at(j, p, next) : j.qkv + qkv_at(j, p, 2, next), second_stride, min(left - COLUMNS, COLUMNS));
      sw_async_commit();
    }
    if (warp_first >= p.length) continue;
    const sw_bf16 *first = shared + stage * 2 * tile, *second = first + tile;
    backward_tile<SIZE, OF_KEYS, DROPOUT>(j, p, first, second, start, min(left, COLUMNS), own, own_values, lse, inner, g);
  }
  if (warp_first >= p.length) return;
  const float scales[4] = {j.scale, j.scale, j.scale, j.scale}, ones[4] = {1, 1, 1, 1};
  store_rows<SIZE>(g.to_first, scales, j.dqkv + qkv_at(j, p, OF_KEYS ? 1 : 0, own), stride, valid);
  if (OF_KEYS) store_rows<SIZE>(g.to_second, ones, j.dqkv + qkv_at(j, p, 2, own), stride, valid);
}

/* --- fp32 multiply-adds ---
 * Threads are 16 rows (ty) of 8 (tx). Position r of a tile of 64 is row r / 4 + 16 (r % 4) of shared memory, rows SIZE + 4 floats apart: whoever reads
 * tx, tx + 16, .. or ty, ty + 16, .. reads four neighbouring positions, without bank conflicts. */
constexpr int FMA_THREADS = 128, OWN = 64, WEIGHTS_STRIDE = COLUMNS + 4;
template <int SIZE> constexpr int TILE_FLOATS = OWN * (SIZE + 4);

/* `rows` rows of `size` <= SIZE elements as a tile, zeros elsewhere; vectors: rows are aligned for four elements. */
template <int SIZE, class T>
__device__ __forceinline__ void load_tile(float *to, const T *from, int stride, int rows, int size, bool vectors) {
  for (int i = threadIdx.x; i < COLUMNS * SIZE / 4; i += FMA_THREADS) {
    const int r = i / (SIZE / 4), c = i % (SIZE / 4) * 4;
    const T *at = from + (int64_t)r * stride + c;
    float4 v = make_float4(0, 0, 0, 0);
    if (r < rows && c < size) {
      if (vectors) {
        v = sw_load4(at);
      } else {
        v.x = sw_to_float(at[0]);
        if (c + 1 < size) v.y = sw_to_float(at[1]);
        if (c + 2 < size) v.z = sw_to_float(at[2]);
        if (c + 3 < size) v.w = sw_to_float(at[3]);
      }
    }
    sw_store4(to + (r / 4 + 16 * (r % 4)) * (SIZE + 4) + c, v);
  }
}
/* s[i][4 h + e] += own position 4 ty + i times column 32 h + 4 tx + e */
template <int SIZE> __device__ __forceinline__ void dot_products(float s[4][8], const float *own, const float *columns) {
  const int tx = threadIdx.x & 7, ty = threadIdx.x >> 3;
#pragma unroll 2
  for (int c = 0; c < SIZE; c += 4) {
    float4 x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = load_shared4(own + (ty + 16 * i) * (SIZE + 4) + c);
#pragma unroll
    for (int k = 0; k < 8; k++) {
      const float4 y = load_shared4(columns + (tx + 8 * (k >> 2) + 16 * (k & 3)) * (SIZE + 4) + c);
#pragma unroll
      for (int i = 0; i < 4; i++) s[i][k] = fmaf(x[i].w, y.w, fmaf(x[i].z, y.z, fmaf(x[i].y, y.y, fmaf(x[i].x, y.x, s[i][k]))));
    }
  }
}
/* Scores' successors to where combine_rows reads them: only the eight threads of a ty, all of one warp, share a row. */
__device__ __forceinline__ void store_weights(float *weights, const float s[4][8]) {
  const int tx = threadIdx.x & 7, ty = threadIdx.x >> 3;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int h = 0; h < 2; h++)
      sw_store4(weights + (ty + 16 * i) * WEIGHTS_STRIDE + 32 * h + 4 * tx,
                make_float4(s[i][4 * h], s[i][4 * h + 1], s[i][4 * h + 2], s[i][4 * h + 3]));
}
/* c[i][4 n + k], element 32 n + 4 tx + k of own position 4 ty + i, += weights of `left` columns times their rows */
template <int SIZE>
__device__ __forceinline__ void combine_rows(float c[4][SIZE / 8], const float *weights, const float *columns, int left) {
  const int tx = threadIdx.x & 7, ty = threadIdx.x >> 3;
  for (int column = 0; column < left; column += 4) {
    float4 w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = load_shared4(weights + (ty + 16 * i) * WEIGHTS_STRIDE + column);
#pragma unroll
    for (int e = 0; e < 4; e++)
#pragma unroll
      for (int n = 0; n < SIZE / 32; n++) {
        const float4 v = load_shared4(columns + (column / 4 + 16 * e) * (SIZE + 4) + 32 * n + 4 * tx);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float x = e == 0 ? w[i].x : e == 1 ? w[i].y : e == 2 ? w[i].z : w[i].w;
          c[i][4 * n] = fmaf(x, v.x, c[i][4 * n]);
          c[i][4 * n + 1] = fmaf(x, v.y, c[i][4 * n + 1]);
          c[i][4 * n + 2] = fmaf(x, v.z, c[i][4 * n + 2]);
          c[i][4 * n + 3] = fmaf(x, v.w, c[i][4 * n + 3]);
        }
      }
  }
}
/* A row of `size` elements of the thread's results, times factor. */
template <int SIZE, class T>
__device__ __forceinline__ void store_row(const float c[SIZE / 8], float factor, T *row, int size, bool vectors) {
  const int tx = threadIdx.x & 7;
#pragma unroll
  for (int n = 0; n < SIZE / 32; n++) {
    const int at = 32 * n + 4 * tx;
    if (at >= size) continue;
    if (vectors) {
      sw_store4(row + at, make_float4(c[4 * n] * factor, c[4 * n + 1] * factor, c[4 * n + 2] * factor, c[4 * n + 3] * factor));
    } else {
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (at + k < size) row[at + k] = sw_from_float<T>(c[4 * n + k] * factor);
    }
  }
}
/* Over the eight threads of a row. */
__device__ __forceinline__ float row_sum(float x) {
  x = quad_sum(x);
  return x + __shfl_xor_sync(SW_ALL_LANES, x, 4);
}
__device__ __forceinline__ float row_max(float x) {
  x = quad_max(x);
  return fmaxf(x, __shfl_xor_sync(SW_ALL_LANES, x, 4));
}

/* The slices of a head, the block's own last: it is then the one that shared memory holds. */
template <int SIZE> struct slices {
  int count, own, head_size;
  __device__ __forceinline__ slices(int size, int slice) : count((size + SIZE - 1) / SIZE), own(slice), head_size(size) {}
  __device__ __forceinline__ int at(int k) const { return (own + 1 + k) % count * SIZE; }
  __device__ __forceinline__ int size(int at) const { return min(head_size - at, SIZE); }
};

template <class T, int SIZE> static __global__ void __launch_bounds__(FMA_THREADS, 2) forward_fma(const job<T> j) {
  SW_DYNAMIC_SHARED(float, queries);
  float *keys = queries + TILE_FLOATS<SIZE>, *values = keys + TILE_FLOATS<SIZE>, *weights = values + TILE_FLOATS<SIZE>;
  place p;
  if (!locate(j, OWN, &p)) return;
  const int tx = threadIdx.x & 7, own = p.first + (int)(threadIdx.x >> 3) * 4;
  const int stride = 3 * out_stride(j);
  const bool vectors = j.head_size % 4 == 0;
  const float factor = j.scale * LOG2_E;
  const slices<SIZE> slice(j.head_size, p.slice);
  float o[4][SIZE / 8] = {}, top[4], sum[4];
#pragma unroll
  for (int i = 0; i < 4; i++) top[i] = -INFINITY, sum[i] = 0;
  for (int first = 0; first < p.length; first += COLUMNS) {
    const int left = p.length - first;
    float s[4][8] = {};
    for (int k = 0; k < slice.count; k++) {
      const int at = slice.at(k), size = slice.size(at);
      __syncthreads(); /* nobody uses the tiles before any more */
      if (first == 0 || slice.count > 1) load_tile<SIZE>(queries, j.qkv + qkv_at(j, p, 0, p.first) + at, stride, p.length - p.first, size, vectors);
      load_tile<SIZE>(keys, j.qkv + qkv_at(j, p, 1, first) + at, stride, left, size, vectors);
      if (k == slice.count - 1) load_tile<SIZE>(values, j.qkv + qkv_at(j, p, 2, first) + at, stride, left, size, vectors);
      __syncthreads(); /* the tiles are there */
      dot_products<SIZE>(s, queries, keys);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float high = top[i];
#pragma unroll
      for (int k = 0; k < 8; k++) {
        if (32 * (k >> 2) + 4 * tx + (k & 3) >= left) s[i][k] = -INFINITY;
        high = fmaxf(high, s[i][k]);
      }
      high = row_max(high);
      const float shrink = sw_exp2((top[i] - high) * factor);
      top[i] = high;
      sum[i] *= shrink;
#pragma unroll
      for (int n = 0; n < SIZE / 8; n++) o[i][n] *= shrink;
#pragma unroll
      for (int k = 0; k < 8; k++) {
        s[i][k] = sw_exp2((s[i][k] - high) * factor);
        sum[i] += s[i][k];
      }
    }
    if (j.dropout) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const unsigned kept = kept_of(j, p, own, first + 32 * h + 4 * tx);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int e = 0; e < 4; e++) s[i][4 * h + e] *= multiplier(j, kept, i, e);
      }
    }
    store_weights(weights, s);
    __syncwarp();
    combine_rows<SIZE>(o, weights, values, min(left, COLUMNS));
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float whole = row_sum(sum[i]);
    if (own + i >= p.length) continue;
    const int at = p.slice * SIZE;
    if (j.lse && tx == 0 && p.slice == 0) j.lse[p.row(own + i)] = fmaf(top[i], j.scale, logf(whole));
    store_row<SIZE>(o[i], 1.0f / whole, j.out + out_at(j, p, own + i) + at, slice.size(at), vectors);
  }
}

template <class T, int SIZE, bool OF_KEYS> static __global__ void __launch_bounds__(FMA_THREADS, 2) backward_fma(const job<T> j) {
  SW_DYNAMIC_SHARED(float, own_first);
  float *own_second = own_first + TILE_FLOATS<SIZE>, *first = own_second + TILE_FLOATS<SIZE>, *second = first + TILE_FLOATS<SIZE>;
  float *weights = second + TILE_FLOATS<SIZE>, *lse = weights + OWN * WEIGHTS_STRIDE, *inner = lse + (j.max_seqlen + 15) / 16 * 16;
  place p;
  if (!locate(j, OWN, &p)) return;
  const int tx = threadIdx.x & 7, own = p.first + (int)(threadIdx.x >> 3) * 4;
  const int stride = 3 * out_stride(j);
  const bool vectors = j.head_size % 4 == 0;
  const float factor = j.scale * LOG2_E;
  const slices<SIZE> slice(j.head_size, p.slice);
  float own_lse[4], own_inner[4], to_first[4][SIZE / 8] = {}, to_second[4][SIZE / 8] = {};
  if (OF_KEYS) {
    load_statistics(j, p, lse, inner);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool valid = own + i < p.length;
      const int64_t row = out_at(j, p, own + i);
      float d = 0;
      for (int c = tx; valid && c < j.head_size; c += 8) d = fmaf(sw_to_float(j.dout[row + c]), sw_to_float(j.out[row + c]), d);
      own_inner[i] = row_sum(d);
      own_lse[i] = valid ? j.lse[p.row(own + i)] * LOG2_E : 0.0f;
      if (valid && tx == 0 && p.slice == 0) j.inner[p.row(own + i)] = own_inner[i];
    }
  }
  for (int start = 0; start < p.length; start += COLUMNS) {
    const int left = p.length - start;
    float s[4][8] = {}, d[4][8] = {};
    for (int k = 0; k < slice.count; k++) {
      const int at = slice.at(k), size = slice.size(at);
      __syncthreads(); /* nobody uses the tiles before any more */
      if (start == 0 || slice.count > 1) {
        const int rows = p.length - p.first;
        load_tile<SIZE>(own_first, j.qkv + qkv_at(j, p, OF_KEYS ? 1 : 0, p.first) + at, stride, rows, size, vectors);
        if (OF_KEYS)
          load_tile<SIZE>(own_second, j.qkv + qkv_at(j, p, 2, p.first) + at, stride, rows, size, vectors);
        else
          load_tile<SIZE>(own_second, j.dout + out_at(j, p, p.first) + at, out_stride(j), rows, size, vectors);
      }
      load_tile<SIZE>(first, j.qkv + qkv_at(j, p, OF_KEYS ? 0 : 1, start) + at, stride, left, size, vectors);
      if (OF_KEYS)
        load_tile<SIZE>(second, j.dout + out_at(j, p, start) + at, out_stride(j), left, size, vectors);
      else
        load_tile<SIZE>(second, j.qkv + qkv_at(j, p, 2, start) + at, stride, left, size, vectors);
      __syncthreads(); /* the tiles are there */
      dot_products<SIZE>(s, own_first, first);
      dot_products<SIZE>(d, own_second, second);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int column = start + 32 * h + 4 * tx;
      const unsigned kept = j.dropout ? kept_of(j, p, OF_KEYS ? column : own, OF_KEYS ? own : column) : 0;
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const bool valid = column + e < p.length;
          const float l = !OF_KEYS ? own_lse[i] : valid ? lse[column + e] : 0.0f, in = !OF_KEYS ? own_inner[i] : valid ? inner[column + e] : 0.0f;
          float &x = s[i][4 * h + e], &y = d[i][4 * h + e];
          x = valid ? sw_exp2(fmaf(x, factor, -l)) : 0.0f;
          const float m = j.dropout ? multiplier(j, kept, OF_KEYS ? e : i, OF_KEYS ? i : e) : 1.0f;
          y = x * (y * m - in);
          x *= m;
        }
    }
    if (OF_KEYS) {
      store_weights(weights, s);
      __syncwarp();
      combine_rows<SIZE>(to_second, weights, second, min(left, COLUMNS));
      __syncwarp(); /* the weights are used */
    }
    store_weights(weights, d);
    __syncwarp();
    combine_rows<SIZE>(to_first, weights, first, min(left, COLUMNS));
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (own + i >= p.length) continue;
    const int at = p.slice * SIZE;
    store_row<SIZE>(to_first[i], j.scale, j.dqkv + qkv_at(j, p, OF_KEYS ? 1 : 0, own + i) + at, slice.size(at), vectors);
    if (OF_KEYS) store_row<SIZE>(to_second[i], 1.0f, j.dqkv + qkv_at(j, p, 2, own + i) + at, slice.size(at), vectors);
  }
}

/* --- launches --- */
/* tiles, heads and slices in x, sequences in y and z */
template <class T> static dim3 grid_of(const job<T> &j, int slice_count) {
  const unsigned y = (unsigned)min(j.batch, 65535);
  return dim3((unsigned)(j.tiles * j.heads * slice_count), y, y ? sw_blocks(j.batch, y) : 0);
}

template <int SIZE> static int run_bf16(sw_stream *stream, job<sw_bf16> j, bool backward) {
  const int threads = j.max_seqlen <= 32 ? 32 : j.max_seqlen <= 64 ? 64 : 128; /* each owns a position */
  const int stages = j.max_seqlen > COLUMNS ? 2 : 1, padded = (j.max_seqlen + 15) / 16 * 16, tile_rows = min(padded, COLUMNS);
  const size_t tiles_bytes = (size_t)stages * 2 * tile_rows * SIZE * sizeof(sw_bf16), own_bytes = (size_t)threads * SIZE * sizeof(sw_bf16) + (size_t)padded * 2 * sizeof(float);
  j.tiles = (j.max_seqlen + threads - 1) / threads;
  const dim3 grid = grid_of(j, 1), block((unsigned)threads);
  if (!backward) return sw_launch(stream, "attention_forward", j.dropout ? forward_bf16<SIZE, true> : forward_bf16<SIZE, false>, grid, block, tiles_bytes, j, tile_rows);
  if (sw_launch(stream, "attention_backward dQ", j.dropout ? backward_bf16<SIZE, false, true> : backward_bf16<SIZE, false, false>, grid, block, tiles_bytes, j, tile_rows))
    return -1;
  return sw_launch(stream, "attention_backward dK, dV", j.dropout ? backward_bf16<SIZE, true, true> : backward_bf16<SIZE, true, false>, grid, block,
                   tiles_bytes + own_bytes, j, tile_rows);
}
template <class T, int SIZE> static int run_fma(sw_stream *stream, job<T> j, bool backward) {
  j.tiles = (j.max_seqlen + OWN - 1) / OWN;
  const dim3 grid = grid_of(j, (j.head_size + SIZE - 1) / SIZE), block(FMA_THREADS);
  const size_t tile = TILE_FLOATS<SIZE>, weights = OWN * WEIGHTS_STRIDE, statistics = (size_t)(j.max_seqlen + 15) / 16 * 16 * 2;
  if (!backward) return sw_launch(stream, "attention_forward", forward_fma<T, SIZE>, grid, block, (3 * tile + weights) * sizeof(float), j);
  if (sw_launch(stream, "attention_backward dQ", backward_fma<T, SIZE, false>, grid, block, (4 * tile + weights) * sizeof(float), j)) return -1;
  return sw_launch(stream, "attention_backward dK, dV", backward_fma<T, SIZE, true>, grid, block, (4 * tile + weights + statistics) * sizeof(float), j);
}
static int run(sw_stream *stream, job<float> j, bool backward) {
  return j.head_size <= 32 ? run_fma<float, 32>(stream, j, backward) : run_fma<float, 64>(stream, j, backward);
}
static int run(sw_stream *stream, job<sw_bf16> j, bool backward) {
  if (j.head_size == 32) return run_bf16<32>(stream, j, backward);
  if (j.head_size == 64) return run_bf16<64>(stream, j, backward);
  return j.head_size < 32 ? run_fma<sw_bf16, 32>(stream, j, backward) : run_fma<sw_bf16, 64>(stream, j, backward);
}

int sw_cuda_attention_workspace(sw_stream *, const sw_attention_desc *desc, size_t *bytes) {
  if (attention_check(desc)) return -1;
  *bytes = (size_t)desc->total_tokens * (size_t)desc->num_heads * sizeof(float);
  return 0;
}

static int attention(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens, const void *qkv, void *out, float *lse,
                     const void *dout, void *dqkv, void *workspace) {
  if (attention_check(desc)) return -1;
  if (!desc->max_seqlen) return 0;
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const job<T> j = {cu_seqlens, (const T *)qkv, (const T *)dout, (T *)out, (T *)dqkv, lse, (float *)workspace, desc->batch, desc->max_seqlen,
                      desc->num_heads, desc->head_size, 0, desc->scale, desc->dropout.p > 0, sw_dropout_mask_of(desc->dropout)};
    return run(stream, j, dqkv != nullptr);
  });
}
int sw_cuda_attention_forward(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens, const void *qkv, void *out,
                              float *lse, void *workspace) {
  return attention(stream, desc, cu_seqlens, qkv, out, lse, nullptr, nullptr, workspace);
}
int sw_cuda_attention_backward(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens, const void *qkv, const void *out,
                               const float *lse, const void *dout, void *dqkv, void *workspace) {
  return attention(stream, desc, cu_seqlens, qkv, (void *)out, (float *)lse, dout, dqkv, workspace);
}
