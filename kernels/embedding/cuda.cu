/* BERT's input on a GPU: see embedding.h for the mathematics, kernels/layernorm/row.cuh for LayerNorm and who holds what of a row.
 *
 * Forward: the three table rows are added in registers and normalised there. Backward: dy becomes dz; then the tables' gradients are sums
 * of rows of dz, made without atomics by blocks of WARPS warps and COLUMNS columns. Each warp adds its own rows, AHEAD of them loaded
 * at a time, and the warps' sums are added in their order:
 *  - words: a block for each distinct id, whose tokens are listed;
 *  - positions and types: a block for each row of the table and each chunk of the batch. Its warps look through the chunk's
 *    keys, list the tokens with theirs in shared memory and add those. The chunks' sums lie in the workspace, [chunk][row][hidden], and
 *    are added in their order. Few rows make many chunks, many rows few: all have work.
 * Which tokens a warp adds, and when, depends on the tokens and their number alone. */
#include "kernels/layernorm/row.cuh"
#include "kernels/cuda/operators.cuh"

/* type_ids NULL: all 0; type NULL: no type table; z NULL: not kept, nor are mean and rstd. */
template <class T, class S, bool DROPOUT>
static __global__ void __launch_bounds__(S::THREADS)
    embedding_forward(int64_t tokens, int hidden, float eps, sw_dropout_mask mask, const int32_t *ids, const int32_t *positions,
                      const int32_t *type_ids, const float *word, const float *position, const float *type, const float *__restrict__ gamma,
                      const float *__restrict__ beta, T *z, T *y, float *mean, float *rstd) {
  const int64_t t = (int64_t)blockIdx.x * S::ROWS + S::row(), at = t * hidden;
  if (t >= tokens) return;
  word += (int64_t)ids[t] * hidden;
  position += (int64_t)positions[t] * hidden;
  if (type && type_ids) type += (int64_t)type_ids[t] * hidden;
  row_four sum[S::QUADS], second[S::QUADS];
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) {
    sum[q] = row_load<S::VECTOR>(word, S::column() + q * S::STEP, hidden);
    second[q] = row_load<S::VECTOR>(position, S::column() + q * S::STEP, hidden);
  }
#pragma unroll
  for (int q = 0; q < S::QUADS; q++) {
    row_four third = {{0, 0, 0, 0}};
    if (type) third = row_load<S::VECTOR>(type, S::column() + q * S::STEP, hidden);
#pragma unroll
    for (int e = 0; e < 4; e++) sum[q].v[e] = sum[q].v[e] + third.v[e] + second[q].v[e];
  }
  if (z) {
#pragma unroll
    for (int q = 0; q < S::QUADS; q++) row_store<S::VECTOR>(z + at, S::column() + q * S::STEP, hidden, sum[q]);
  }
  row_normalize<S, DROPOUT>(sum, hidden, eps, gamma, beta, mask, t, y, mean, rstd);
}

template <class T, bool DROPOUT>
static int forward(const sw_stream *stream, const sw_embedding_desc *desc, const int32_t *ids, const int32_t *positions, const int32_t *type_ids,
                   const float *word, const float *position, const float *type, const float *gamma, const float *beta, void *z, void *y,
                   float *mean, float *rstd) {
  return row_with_shape(desc->hidden, [&](auto shape) {
    using S = decltype(shape);
    return sw_launch(stream, "embedding forward", embedding_forward<T, S, DROPOUT>, dim3(sw_blocks(desc->tokens, S::ROWS)), dim3(S::THREADS), 0,
                     desc->tokens, desc->hidden, desc->eps, sw_dropout_mask_of(desc->dropout), ids, positions, type_ids, word, position, type,
                     gamma, beta, (T *)z, (T *)y, mean, rstd);
  });
}

static int check(const sw_embedding_desc *desc) { return row_check("embedding", desc->tokens, desc->hidden, &desc->dropout); }

int sw_cuda_embedding_forward(sw_stream *stream, const sw_embedding_desc *desc, const int32_t *ids, const int32_t *positions,
                              const int32_t *type_ids, const float *word, const float *position, const float *type, const float *gamma,
                              const float *beta, void *z, void *y, float *mean, float *rstd) {
  if (check(desc)) return -1;
  return sw_with_type(desc->dtype, [&](auto *kind) {
    using T = std::remove_pointer_t<decltype(kind)>;
    return (desc->dropout.p > 0 ? forward<T, true> : forward<T, false>)(stream, desc, ids, positions, type_ids, word, position, type, gamma, beta,
                                                                        z, y, mean, rstd);
  });
}

/* --- sums of rows --- */
enum { WARPS = 8, THREADS = WARPS * SW_WARP, QUADS = 3, STEP = 4 * SW_WARP, COLUMNS = QUADS * STEP, AHEAD = 4 };
/* Keys that a warp looks through at a time; the least tokens of a chunk; rows of partial sums where there is more than one chunk. */
enum { LIST = 128, CHUNK = 2048, MOST_CHUNKED_ROWS = 2048 };

/* sum += rows list[first], list[first + step], ... of dz, those below `count`. */
template <class T, bool VECTOR>
static __device__ __forceinline__ void add_listed(const T *dz, int hidden, int column, const int32_t *list, int first, int count, int step,
                                                  row_four (&sum)[QUADS]) {
  for (int i = first; i < count; i += AHEAD * step) {
    row_four row[AHEAD][QUADS];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      const T *from = dz + (int64_t)list[i + a * step < count ? i + a * step : i] * hidden; /* beyond the end: a row again, not added */
#pragma unroll
      for (int q = 0; q < QUADS; q++) row[a][q] = row_load<VECTOR>(from, column + q * STEP, hidden);
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
#pragma unroll
      for (int q = 0; q < QUADS; q++)
#pragma unroll
        for (int e = 0; e < 4; e++) sum[q].v[e] += i + a * step < count ? row[a][q].v[e] : 0.0f;
  }
}
/* out[column] = the warps' sums. */
static __device__ __forceinline__ void add_warps(const row_four (&sum)[QUADS], int hidden, float *out) {
  SW_SHARED(float, sums, WARPS *COLUMNS);
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP, start = (int)blockIdx.y * COLUMNS;
#pragma unroll
  for (int q = 0; q < QUADS; q++) row_store<true>(sums + warp * COLUMNS, 4 * lane + q * STEP, COLUMNS, sum[q]);
  __syncthreads();
  for (int column = (int)threadIdx.x; column < COLUMNS && start + column < hidden; column += THREADS) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += sums[w * COLUMNS + column];
    out[start + column] = total;
  }
}

template <class T, bool VECTOR>
static __global__ void __launch_bounds__(THREADS, 2)
    word_rows(int hidden, const T *__restrict__ dz, const int32_t *__restrict__ sorted_tokens, const int32_t *__restrict__ segments, float *dword_rows) {
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP, column = (int)blockIdx.y * COLUMNS + 4 * lane;
  const int first = segments[blockIdx.x], count = segments[blockIdx.x + 1] - first;
  float *out = dword_rows + (int64_t)blockIdx.x * hidden;
  row_four sum[QUADS] = {};
  add_listed<T, VECTOR>(dz, hidden, column, sorted_tokens + first, warp, count, WARPS, sum);
  if (count > 1) {
    add_warps(sum, hidden, out);
  } else if (warp == 0) { /* most ids: nobody else has anything */
#pragma unroll
    for (int q = 0; q < QUADS; q++) row_store<VECTOR>(out, column + q * STEP, hidden, sum[q]);
  }
}

/* partial[chunk][key] = the sum of the rows of dz whose key it is; keys NULL: all 0. Grid: keys, blocks of columns, chunks. */
template <class T, bool VECTOR>
static __global__ void __launch_bounds__(THREADS, 2)
    rows_by_key(int64_t tokens, int64_t chunk, int hidden, const T *__restrict__ dz, const int32_t *__restrict__ keys, float *partial) {
  SW_SHARED(int32_t, lists, 2 * WARPS *LIST); /* two for each warp, in turn: a list may still be read when the next one is written */
  const int lane = (int)threadIdx.x % SW_WARP, warp = (int)threadIdx.x / SW_WARP, column = (int)blockIdx.y * COLUMNS + 4 * lane;
  const int64_t start = blockIdx.z * chunk, end = start + chunk < tokens ? start + chunk : tokens;
  int turn = 0;
  row_four sum[QUADS] = {};
  for (int64_t base = start + warp * LIST; base < end; base += WARPS * LIST, turn ^= 1) {
    int32_t *list = lists + (2 * warp + turn) * LIST;
    int count = 0;
#pragma unroll
    for (int k = 0; k < LIST; k += SW_WARP) {
      const int64_t t = base + k + lane;
      const bool mine = t < end && (keys ? keys[t] : 0) == (int)blockIdx.x;
      const unsigned all = __ballot_sync(SW_ALL_LANES, mine);
      if (mine) list[count + __popc(all & ((1u << lane) - 1))] = (int32_t)t;
      count += __popc(all);
    }
    __syncwarp();
    add_listed<T, VECTOR>(dz, hidden, column, list, 0, count, 1, sum);
  }
  add_warps(sum, hidden, partial + ((int64_t)blockIdx.z * gridDim.x + blockIdx.x) * hidden);
}
static int chunks_of(int64_t tokens, int keys) {
  const int64_t most = keys < MOST_CHUNKED_ROWS ? MOST_CHUNKED_ROWS / keys : 1, wanted = (tokens + CHUNK - 1) / CHUNK;
  return (int)(wanted < most ? wanted : most);
}

template <class T, bool VECTOR>
static int add_by_key(const sw_stream *stream, const sw_embedding_desc *desc, const void *dz, const int32_t *ids, int keys, float *table,
                      void *workspace) {
  float *partial = (float *)workspace;
  const int chunks = chunks_of(desc->tokens, keys);
  return sw_launch(stream, "embedding rows by key", rows_by_key<T, VECTOR>, dim3((unsigned)keys, sw_blocks(desc->hidden, COLUMNS), (unsigned)chunks),
                   dim3(THREADS), 0, desc->tokens, (desc->tokens + chunks - 1) / chunks, desc->hidden, (const T *)dz, ids, partial) ||
                 row_add(stream, (int64_t)keys * desc->hidden, chunks, partial, table, nullptr)
             ? -1
             : 0;
}

template <class T, bool VECTOR>
static int add_tables(const sw_stream *stream, const sw_embedding_desc *desc, const int32_t *positions, const int32_t *type_ids, const void *dz,
                      const int32_t *sorted_tokens, const int32_t *segments, int64_t unique, float *dword_rows, float *dposition,
                      float *dtype_table, void *workspace) {
  if (sw_launch(stream, "embedding word rows", word_rows<T, VECTOR>, dim3((unsigned)unique, sw_blocks(desc->hidden, COLUMNS)), dim3(THREADS), 0,
                desc->hidden, (const T *)dz, sorted_tokens, segments, dword_rows) ||
      add_by_key<T, VECTOR>(stream, desc, dz, positions, desc->max_positions, dposition, workspace))
    return -1;
  return dtype_table ? add_by_key<T, VECTOR>(stream, desc, dz, type_ids, desc->type_vocab_size, dtype_table, workspace) : 0;
}

int sw_cuda_embedding_workspace(sw_stream *, const sw_embedding_desc *desc, size_t *bytes) {
  if (check(desc)) return -1;
  *bytes = row_partial_bytes(desc->tokens, desc->hidden);
  for (int keys : {desc->max_positions, desc->type_vocab_size}) {
    const size_t rows = keys > 0 ? (size_t)chunks_of(desc->tokens, keys) * (size_t)keys : 0, needed = rows * (size_t)desc->hidden * sizeof(float);
    if (needed > *bytes) *bytes = needed;
  }
  return 0;
}

int sw_cuda_embedding_backward(sw_stream *stream, const sw_embedding_desc *desc, const int32_t *positions, const int32_t *type_ids, void *dy,
                               const void *z, const float *gamma, const float *mean, const float *rstd, const int32_t *sorted_tokens,
                               const int32_t *segments, int64_t unique, float *dword_rows, float *dposition, float *dtype_table, float *dgamma,
                               float *dbeta, void *workspace) {
  if (check(desc)) return -1;
  if (!desc->tokens) return 0;
  return sw_with_type(desc->dtype, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if ((desc->dropout.p > 0 ? row_run_backward<T, ROW_MASK_DY> : row_run_backward<T, ROW_PLAIN>)(
            stream, "embedding backward", desc->tokens, desc->hidden, desc->dropout, dy, z, gamma, mean, rstd, dy, nullptr, dgamma, dbeta, workspace))
      return -1;
    return (desc->hidden % 4 ? add_tables<T, false> : add_tables<T, true>)(stream, desc, positions, type_ids, dy, sorted_tokens, segments, unique,
                                                                           dword_rows, dposition, dtype_table, workspace);
  });
}
