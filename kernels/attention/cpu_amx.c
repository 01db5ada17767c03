/* Attention's forward pass on processors with AMX, for sequences long enough to pay for the packing; the rest is
 * vector.h.
 *
 * bf16: bf16 products, with the probabilities rounded to bf16 and their sum taken before. fp32: six products of the
 * three bf16 parts of each factor (kernels/linear/amx_tiles.h), as accurate as fp32 multiply-adds. As in vector.h
 * scores are transposed, [keys, 32 queries]: two rows of probabilities then are one row of a B tile without any
 * shuffling.
 *
 *   S^T = K Q^T:    A = K   (16 keys x 32 dimensions),       B = Q^T (32 dimensions x 16 queries)
 *   O^T = V^T P^T:  A = V^T (16 dimensions x 32 keys),       B = P^T (32 keys x 16 queries)
 *
 * A tiles lie as [row tile][step][part], B tiles as [step][part][2 column tiles], 1 KiB each. */
#include "kernels/attention/vector.h"
#include "kernels/linear/amx_tiles.h"
#include <omp.h>

sw_attention_workspace_fn sw_attention_workspace_amx;
sw_attention_forward_fn sw_attention_forward_amx;

enum { AMX_CHUNK = 256 }; /* queries that one item takes: packing the keys and values is about 1/30 of its work then */
/* Measured: where packing keys, values and queries costs less than the tiles gain over vectors. */
static int amx_pays(const sw_attention_desc *d, int length) {
  return d->dtype == SW_F32 ? d->head_size > 32 && length >= 256 : length * d->head_size >= 1280;
}

static int steps_of(int n) {
  return (n + STEP - 1) / STEP;
}
typedef struct {
  char *keys, *values;     /* A tiles: [2 key steps][dimension steps][parts], [2 dimension steps][key steps][parts] */
  char *queries, *weights; /* B tiles: [dimension steps][parts][2], [key steps][parts][2] */
  float *scores;           /* [32 key steps, 32] */
  float *result;           /* [32, 32]: dimensions x queries */
} tiles;
static size_t tiles_bytes(const sw_attention_desc *d) {
  size_t keys = (size_t)steps_of(d->max_seqlen), size = (size_t)steps_of(d->head_size),
         parts = d->dtype == SW_F32 ? 3 : 1;
  return (4 * keys * size + 2 * size + 2 * keys) * parts * TILE + keys * STEP * 32 * sizeof(float) +
         32 * 32 * sizeof(float);
}
static tiles tiles_of(const sw_attention_desc *d, char *memory) {
  size_t keys = (size_t)steps_of(d->max_seqlen), size = (size_t)steps_of(d->head_size),
         parts = d->dtype == SW_F32 ? 3 : 1;
  tiles t;
  t.keys = memory, memory += 2 * keys * size * parts * TILE;
  t.values = memory, memory += 2 * keys * size * parts * TILE;
  t.queries = memory, memory += 2 * size * parts * TILE;
  t.weights = memory, memory += 2 * keys * parts * TILE;
  t.scores = (float *)memory, memory += keys * STEP * 32 * sizeof(float);
  t.result = (float *)memory;
  return t;
}
static size_t thread_bytes(const sw_attention_desc *d) {
  size_t a = tiles_bytes(d), b = scratch_bytes(d);
  return a > b ? a : b;
}

int sw_attention_workspace_amx(sw_stream *stream, const sw_attention_desc *desc, size_t *bytes) {
  if (check(desc, NULL)) return -1;
  *bytes = thread_bytes(desc) * (size_t)stream->threads;
  return 0;
}

/* 32 x 32 (or 32 x 16) of A B over `steps`, to c [32, 32]. fp32: the products of parts (i, j) with i + j <= 4. */
SW_INLINE void load_a(const char *first, const char *second) {
  _tile_loadd(4, first, 64);
  _tile_loadd(5, second, 64);
}
SW_INLINE void load_b(const char *b, const int columns) {
  _tile_loadd(6, b, 64);
  if (columns > 1) _tile_loadd(7, b + TILE, 64);
}
SW_INLINE void multiply(const int columns) {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(2, 5, 6);
  if (columns > 1) {
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}
SW_INLINE void product(const char *a0, int64_t second, const char *b, int steps, float *c, const int parts,
                       const int columns) {
  const char *a1 = a0 + second;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int s = 0; s < steps; s++, a0 += parts * TILE, a1 += parts * TILE, b += 2 * parts * TILE) {
    load_a(a0, a1);
    if (parts == 3) {
      load_b(b + 2 * 2 * TILE, columns);
      multiply(columns);
      load_b(b + 2 * TILE, columns);
      multiply(columns);
    }
    load_b(b, columns);
    multiply(columns);
    if (parts == 3) {
      load_a(a0 + 2 * TILE, a1 + 2 * TILE);
      multiply(columns);
      load_a(a0 + TILE, a1 + TILE);
      multiply(columns);
      load_b(b + 2 * TILE, columns);
      multiply(columns);
    }
  }
  _tile_stored(0, c, 128);
  _tile_stored(2, c + 16 * 32, 128);
  if (columns > 1) {
    _tile_stored(1, c + 16, 128);
    _tile_stored(3, c + 16 * 32 + 16, 128);
  }
}

/* Rows of K as A tiles; rows beyond the sequence are 0. */
SW_INLINE void pack_keys(const job *j, int64_t begin, int head, int length, char *to, sw_dtype dtype, const int parts) {
  int size = j->desc->head_size, steps = steps_of(size), rows = steps_of(length) * STEP;
  for (int k = 0; k < rows; k++) {
    int64_t at = k < length ? qkv_at(j, begin + k, 1, head) : 0;
    char *row = to + (int64_t)(k / SIDE) * steps * parts * TILE + k % SIDE * 64;
    for (int s = 0; s < steps; s++) {
      __m512i pairs[3];
      row_pairs(j->qkv, dtype, at + s * STEP, k < length ? size - s * STEP : 0, parts, pairs);
      for (int part = 0; part < parts; part++) _mm512_store_si512(row + (s * parts + part) * TILE, pairs[part]);
    }
  }
}
/* Columns of V as A tiles: a pair is two keys in a row. */
SW_INLINE void pack_values(const job *j, int64_t begin, int head, int length, char *to, sw_dtype dtype,
                           const int parts) {
  int size = j->desc->head_size, steps = steps_of(length);
  int64_t base = qkv_at(j, begin, 2, head), stride = qkv_stride(j);
  for (int d = 0; d < steps_of(size) * 2; d++)
    for (int s = 0; s < steps; s++) {
      __m512i t[3][SIDE];
      for (int p = 0; p < SIDE; p++) {
        int k = s * STEP + 2 * p;
        __m512i pairs[3];
        column_pairs(j->qkv, dtype, 1, k < length ? base + k * stride : -1,
                     k + 1 < length ? base + (k + 1) * stride : -1, d * SIDE, lanes(size - d * SIDE), parts, pairs);
        for (int part = 0; part < parts; part++) t[part][p] = pairs[part];
      }
      for (int part = 0; part < parts; part++) {
        transpose16(t[part]);
        memcpy(to + (((int64_t)d * steps + s) * parts + part) * TILE, t[part], TILE);
      }
    }
}
/* Rows of Q as B tiles. */
SW_INLINE void pack_queries(const job *j, int64_t token, int head, int queries, char *to, sw_dtype dtype,
                            const int parts) {
  int size = j->desc->head_size;
  for (int s = 0; s < steps_of(size); s++)
    for (int tile = 0; tile * SIDE < queries; tile++) {
      __m512i t[3][SIDE];
      for (int r = 0; r < SIDE; r++) {
        int q = tile * SIDE + r;
        __m512i pairs[3];
        row_pairs(j->qkv, dtype, q < queries ? qkv_at(j, token + q, 0, head) + s * STEP : 0,
                  q < queries ? size - s * STEP : 0, parts, pairs);
        for (int part = 0; part < parts; part++) t[part][r] = pairs[part];
      }
      for (int part = 0; part < parts; part++) {
        transpose16(t[part]);
        memcpy(to + ((s * parts + part) * 2 + tile) * TILE, t[part], TILE);
      }
    }
}

/* Two rows of probabilities as one row of the B tiles' parts. Like split_pairs; they are never so large that rounding
 * overflows. A NaN may get lost here: its query's sum has it too, and the result is divided by that. */
SW_INLINE void store_weights(char *to, __m512 a, __m512 b, const int parts) {
  const __m512i top = _mm512_set1_epi32((int)0xffff0000u), half = _mm512_set1_epi32(0x8000);
#pragma GCC unroll 3
  for (int part = 0; part < parts; part++) {
    __m512i l = _mm512_castps_si512(a), h = _mm512_castps_si512(b);
    if (part < 2) l = _mm512_add_epi32(l, half), h = _mm512_add_epi32(h, half);
    _mm512_store_si512(to + part * 2 * TILE, _mm512_ternarylogic_epi32(top, h, _mm512_srli_epi32(l, 16), 0xca));
    if (part + 1 < parts) {
      a = _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(l, top)));
      b = _mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(h, top)));
    }
  }
}
/* The scores [keys, 32] of 16 queries become weights; returns log sum exp (where it is wanted); *inverse = 1 / sum. */
SW_INLINE vf softmax_weights(const job *j, int64_t row, int length, const float *scores, char *to, vf *inverse,
                             const int parts) {
  const sw_dropout *dropout = &j->desc->dropout;
  const float factor = j->desc->scale * LOG2_E;
  vf top = vf_load(scores), top1 = top, s0 = vf_zero(), s1 = vf_zero();
  int k = 1;
  for (; k + 2 <= length; k += 2) {
    top = vf_max(vf_load(scores + k * 32), top);
    top1 = vf_max(vf_load(scores + (k + 1) * 32), top1);
  }
  if (k < length) top = vf_max(vf_load(scores + k * 32), top);
  top = vf_max(top, top1);
  vf shift = top * factor;
  uint32_t threshold = sw_dropout_threshold(dropout->p);
  float keep = sw_dropout_scale(dropout->p);
  sw_dropout_rows rows = sw_dropout_rows_of(dropout, (uint64_t)row, (uint64_t)j->desc->num_heads);
  int padded = steps_of(length) * STEP;
  for (k = 0; k < padded; k += 4) {
    vf e[4], mask[4];
    if (k + 4 <= length) {
#pragma GCC unroll 4
      for (int w = 0; w < 4; w++) e[w] = attention_exp2(vf_load(scores + (k + w) * 32) * factor - shift);
    } else {
      for (int w = 0; w < 4; w++)
        e[w] = k + w < length ? attention_exp2(vf_load(scores + (k + w) * 32) * factor - shift) : vf_zero();
    }
    s0 += e[0];
    s1 += e[1];
    s0 += e[2];
    s1 += e[3];
    if (dropout->p > 0) {
      sw_dropout_columns(dropout, &rows, (uint32_t)k >> 2, threshold, keep, mask);
      for (int w = 0; w < 4; w++) e[w] *= mask[w];
    }
    char *pair = to + (int64_t)(k / STEP) * parts * 2 * TILE + k % STEP / 2 * 64;
    store_weights(pair, (__m512)e[0], (__m512)e[1], parts);
    store_weights(pair + 64, (__m512)e[2], (__m512)e[3], parts);
  }
  s0 += s1;
  *inverse = 1.0f / s0;
  if (!j->lse) return s0;
  float sums[SW_LANES], lse[SW_LANES];
  vf_store(sums, s0);
  vf_store(lse, top * j->desc->scale);
  for (int i = 0; i < SW_LANES; i++) lse[i] += logf(sums[i]);
  return vf_load(lse);
}

/* result [32 dimensions, 32 queries] -> rows of out, from dimension `first` */
SW_INLINE void store_result(const job *j, const float *result, int64_t at, int first, int queries, const vf *inverse,
                            sw_dtype dtype) {
  int size = j->desc->head_size;
  for (int q = 0; q < queries; q += SIDE)
    for (int d = first; d < size && d < first + 32; d += SIDE) {
      __m512i t[SIDE];
      for (int i = 0; i < SIDE; i++) t[i] = (__m512i)(vf_load(result + (d - first + i) * 32 + q) * inverse[q / SIDE]);
      transpose16(t);
      for (int r = 0; r < SIDE && q + r < queries; r++) {
        int64_t to = at + (q + r) * out_stride(j) + d;
        if (dtype == SW_F32)
          _mm512_mask_storeu_epi32((float *)j->out + to, lanes(size - d), t[r]);
        else
          _mm256_mask_storeu_epi16((sw_bf16 *)j->out + to, lanes(size - d), (__m256i)_mm512_cvtneps_pbh((__m512)t[r]));
      }
    }
}

SW_INLINE void amx_item(const job *j, const tiles *t, int sequence, int head, int first, sw_dtype dtype,
                        const int parts) {
  const sw_attention_desc *d = j->desc;
  int64_t begin = j->cu_seqlens[sequence];
  int length = j->cu_seqlens[sequence + 1] - (int)begin, last = first + AMX_CHUNK < length ? first + AMX_CHUNK : length;
  int size_steps = steps_of(d->head_size), key_steps = steps_of(length);
  pack_keys(j, begin, head, length, t->keys, dtype, parts);
  pack_values(j, begin, head, length, t->values, dtype, parts);
  for (int q = first; q < last; q += 32) {
    int queries = last - q < 32 ? last - q : 32, columns = queries > SIDE ? 2 : 1;
    int64_t row = (begin + q) * d->num_heads + head;
    vf inverse[2];
    pack_queries(j, begin + q, head, queries, t->queries, dtype, parts);
    TILE_FENCE();
    int64_t row_tile = (int64_t)size_steps * parts * TILE;
    for (int k = 0; k < key_steps; k++) {
      if (columns == 2)
        product(t->keys + 2 * k * row_tile, row_tile, t->queries, size_steps, t->scores + k * STEP * 32, parts, 2);
      else
        product(t->keys + 2 * k * row_tile, row_tile, t->queries, size_steps, t->scores + k * STEP * 32, parts, 1);
    }
    TILE_FENCE();
    for (int c = 0; c < columns; c++) {
      float lse[SW_LANES];
      int64_t lane_row = row + (int64_t)c * SIDE * d->num_heads;
      vf_store(lse,
               softmax_weights(j, lane_row, length, t->scores + c * SIDE, t->weights + c * TILE, inverse + c, parts));
      for (int i = 0; j->lse && i < SIDE && c * SIDE + i < queries; i++)
        j->lse[lane_row + (int64_t)i * d->num_heads] = lse[i];
    }
    TILE_FENCE();
    row_tile = (int64_t)key_steps * parts * TILE;
    for (int s = 0; s < size_steps; s++) {
      if (columns == 2)
        product(t->values + 2 * s * row_tile, row_tile, t->weights, key_steps, t->result, parts, 2);
      else
        product(t->values + 2 * s * row_tile, row_tile, t->weights, key_steps, t->result, parts, 1);
      TILE_FENCE();
      store_result(j, t->result, row * d->head_size, s * STEP, queries, inverse, dtype);
    }
  }
}
static __attribute__((noinline)) void amx_f32(const job *j, const tiles *t, int sequence, int head, int first) {
  amx_item(j, t, sequence, head, first, SW_F32, 3);
}
static __attribute__((noinline)) void amx_bf16(const job *j, const tiles *t, int sequence, int head, int first) {
  amx_item(j, t, sequence, head, first, SW_BF16, 1);
}

int sw_attention_forward_amx(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens,
                             const void *qkv, void *out, float *lse, void *workspace) {
  if (check(desc, cu_seqlens)) return -1;
  job j = forward_job(desc, cu_seqlens, qkv, out, lse);
  int heads = desc->num_heads, chunks = (desc->max_seqlen + AMX_CHUNK - 1) / AMX_CHUNK, f32 = desc->dtype == SW_F32;
  int64_t items = (int64_t)desc->batch * chunks * heads;
#pragma omp parallel num_threads(stream->threads) if (worth_threads(desc))
  {
    char *memory = (char *)workspace + (size_t)omp_get_thread_num() * thread_bytes(desc);
    scratch s = scratch_of(&j, memory);
    tiles t = tiles_of(desc, memory);
    configure_tiles((const int[8]){16, 16, 16, 16, 16, 16, 16, 16});
#pragma omp for schedule(dynamic, grain(items, stream->threads))
    for (int64_t item = 0; item < items; item++) {
      int head = (int)(item % heads), chunk = (int)(item / heads % chunks), sequence = (int)(item / heads / chunks);
      int length = cu_seqlens[sequence + 1] - cu_seqlens[sequence], first = chunk * AMX_CHUNK;
      if (first >= length) continue;
      if (amx_pays(desc, length)) {
        if (f32)
          amx_f32(&j, &t, sequence, head, first);
        else
          amx_bf16(&j, &t, sequence, head, first);
      } else {
        if (f32)
          forward_f32(&j, &s, sequence, head, first, AMX_CHUNK);
        else
          forward_bf16(&j, &s, sequence, head, first, AMX_CHUNK);
      }
    }
    _tile_release();
  }
  return 0;
}
