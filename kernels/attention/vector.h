/* Attention in fp32 vectors, one item of work at a time; included by cpu.c, and by cpu_amx.c for what AMX does not do
 * better.
 *
 * One thread computes a block of queries of one head of one sequence, against all its keys at once: at most 1024 keys x
 * 32 queries of scores are stored, which stay in the L2 cache, so the softmax needs no rescaling. What is done depends
 * on the sequence alone, so the result does not depend on the batch or on the number of threads. */
#ifndef SW_KERNELS_ATTENTION_VECTOR_H
#define SW_KERNELS_ATTENTION_VECTOR_H
#include "kernels/attention/check.h"
#include "kernels/attention/tiles.h"
#include "kernels/dropout/mask.h"

#include <math.h>

#define LN_2 0.693147180559945309f

typedef struct {
  const sw_attention_desc *desc;
  const int32_t *cu_seqlens;
  const void *qkv, *dout;
  void *out, *dqkv;
  float *lse;
  int padded; /* head size, rounded up to whole vectors */
} job;

/* A thread's scratch, in floats. */
typedef struct {
  float *keys, *values;    /* [max_seqlen, padded] */
  float *scores;           /* [max_seqlen, SW_QUERIES] */
  float *rows, *columns;   /* queries [SW_QUERIES, padded], transposed [padded, SW_QUERIES] */
  float *result;           /* [SW_QUERIES, padded] */
  float *mask, *gradients; /* [max_seqlen, SW_QUERIES]; from here on only in backward */
  float *drows, *dcolumns; /* of dout, as rows and columns */
  float *dkeys, *dvalues;  /* [max_seqlen, padded] */
} scratch;

static int padded_size(int head_size) {
  return (head_size + SW_LANES - 1) / SW_LANES * SW_LANES;
}
SW_INLINE job forward_job(const sw_attention_desc *desc, const int32_t *cu_seqlens, const void *qkv, void *out, float *lse) {
  return (job){.desc = desc, .cu_seqlens = cu_seqlens, .qkv = qkv, .out = out, .lse = lse, .padded = padded_size(desc->head_size)};
}
/* Bytes of a scratch, a multiple of 64. */
static size_t scratch_bytes(const sw_attention_desc *d) {
  int64_t padded = padded_size(d->head_size), keys = d->max_seqlen;
  return ((size_t)((4 * keys + 5 * SW_QUERIES) * padded + 3 * keys * SW_QUERIES) * sizeof(float) + 63) / 64 * 64;
}
static scratch scratch_of(const job *j, void *memory) {
  int64_t keys = j->desc->max_seqlen, wide = keys * j->padded, block = (int64_t)SW_QUERIES * j->padded,
          scores = keys * SW_QUERIES;
  float *p = memory;
  scratch s;
  s.keys = p, p += wide;
  s.values = p, p += wide;
  s.scores = p, p += scores;
  s.rows = p, p += block;
  s.columns = p, p += block;
  s.result = p, p += block;
  s.mask = p, p += scores;
  s.gradients = p, p += scores;
  s.drows = p, p += block;
  s.dcolumns = p, p += block;
  s.dkeys = p, p += wide;
  s.dvalues = p;
  return s;
}

static int check(const sw_attention_desc *d, const int32_t *cu_seqlens) {
  if (attention_check(d)) return -1;
  for (int s = 0; cu_seqlens && s < d->batch; s++)
    if (cu_seqlens[s + 1] < cu_seqlens[s] || cu_seqlens[s + 1] - cu_seqlens[s] > d->max_seqlen)
      return sw_fail("attention: sequence %d has %d tokens, not 0..%d (max_seqlen)", s,
                     cu_seqlens[s + 1] - cu_seqlens[s], d->max_seqlen);
  return 0;
}

/* Where q (part 0), k (1) or v (2) of a token's head begins in qkv. */
static inline int64_t qkv_at(const job *j, int64_t token, int part, int head) {
  return ((token * 3 + part) * j->desc->num_heads + head) * j->desc->head_size;
}
static inline int64_t qkv_stride(const job *j) {
  return (int64_t)3 * j->desc->num_heads * j->desc->head_size;
}
static inline int64_t out_stride(const job *j) {
  return (int64_t)j->desc->num_heads * j->desc->head_size;
}

/* `count` rows as fp32: where they are, if they are whole vectors of fp32 already; otherwise packed into `room`. */
SW_INLINE const float *as_rows(const job *j, const void *from, int64_t at, int64_t from_stride, int count, float *room,
                               int64_t *stride, sw_dtype dtype) {
  if (dtype == SW_F32 && j->padded == j->desc->head_size) {
    *stride = from_stride;
    return (const float *)from + at;
  }
  attention_pack(from, dtype, at, from_stride, count, j->desc->head_size, j->padded, room);
  *stride = j->padded;
  return room;
}

/* 2^(score - top) in place, summed before dropout. */
SW_INLINE void softmax(const job *j, int64_t row, int length, int vectors, float *t, const float *top, float *sums) {
  const sw_dropout *dropout = &j->desc->dropout;
  for (int v = 0; v < vectors; v++) {
    vf m = vf_load(top + v * SW_LANES), s0 = vf_zero(), s1 = vf_zero();
    float *p = t + v * SW_LANES;
    int k = 0;
    if (dropout->p > 0) {
      uint32_t threshold = sw_dropout_threshold(dropout->p);
      float scale = sw_dropout_scale(dropout->p);
      sw_dropout_rows rows = sw_dropout_rows_of(dropout, (uint64_t)(row + (int64_t)v * SW_LANES * j->desc->num_heads),
                                                (uint64_t)j->desc->num_heads);
      for (; k < length; k += 4) {
        vf mask[4];
        sw_dropout_columns(dropout, &rows, (uint32_t)k >> 2, threshold, scale, mask);
        for (int w = 0; w < 4 && k + w < length; w++) {
          vf e = attention_exp2(vf_load(p + (k + w) * SW_QUERIES) - m);
          s0 += e;
          vf_store(p + (k + w) * SW_QUERIES, e * mask[w]);
        }
      }
    } else {
      for (; k + 2 <= length; k += 2) {
        vf a = attention_exp2(vf_load(p + k * SW_QUERIES) - m),
           b = attention_exp2(vf_load(p + (k + 1) * SW_QUERIES) - m);
        s0 += a;
        s1 += b;
        vf_store(p + k * SW_QUERIES, a);
        vf_store(p + (k + 1) * SW_QUERIES, b);
      }
      if (k < length) {
        vf a = attention_exp2(vf_load(p + k * SW_QUERIES) - m);
        s0 += a;
        vf_store(p + k * SW_QUERIES, a);
      }
    }
    vf_store(sums + v * SW_LANES, s0 + s1);
  }
}

/* Queries [first, first + count) of a sequence. */
SW_INLINE void forward_item(const job *j, const scratch *s, int sequence, int head, int first, int count,
                            sw_dtype dtype) {
  const sw_attention_desc *d = j->desc;
  int64_t begin = j->cu_seqlens[sequence], stride = qkv_stride(j), step;
  int length = j->cu_seqlens[sequence + 1] - (int)begin, last = first + count < length ? first + count : length;
  attention_pack(j->qkv, dtype, qkv_at(j, begin, 1, head), stride, length, d->head_size, j->padded, s->keys);
  attention_pack(j->qkv, dtype, qkv_at(j, begin, 2, head), stride, length, d->head_size, j->padded, s->values);
  for (int q = first; q < last; q += SW_QUERIES) {
    int queries = last - q < SW_QUERIES ? last - q : SW_QUERIES, vectors = queries > SW_LANES ? 2 : 1;
    float top[SW_QUERIES], sums[SW_QUERIES];
    const float *rows = as_rows(j, j->qkv, qkv_at(j, begin + q, 0, head), stride, queries, s->rows, &step, dtype);
    attention_transpose(rows, step, queries, d->head_size, d->scale * LOG2_E, s->columns);
    attention_scores(s->columns, s->keys, j->padded, d->head_size, length, queries, s->scores, top);
    softmax(j, (begin + q) * d->num_heads + head, length, vectors, s->scores, top, sums);
    if (j->lse)
      for (int i = 0; i < queries; i++) j->lse[(begin + q + i) * d->num_heads + head] = top[i] * LN_2 + logf(sums[i]);
    for (int v = 0; v < vectors; v++) vf_store(sums + v * SW_LANES, 1.0f / vf_load(sums + v * SW_LANES));
    int64_t at = (begin + q) * out_stride(j) + (int64_t)head * d->head_size;
    if (dtype == SW_F32 && j->padded == d->head_size) {
      attention_combine(s->scores, 1, s->values, j->padded, length, queries, j->padded, (float *)j->out + at,
                        out_stride(j), 0, sums);
    } else {
      attention_combine(s->scores, 1, s->values, j->padded, length, queries, j->padded, s->result, j->padded, 0, sums);
      attention_unpack(s->result, j->padded, queries, d->head_size, 1.0f, j->out, dtype, at, out_stride(j));
    }
  }
}
static __attribute__((noinline)) void forward_f32(const job *j, const scratch *s, int sequence, int head, int first,
                                                  int count) {
  forward_item(j, s, sequence, head, first, count, SW_F32);
}
static __attribute__((noinline)) void forward_bf16(const job *j, const scratch *s, int sequence, int head, int first,
                                                   int count) {
  forward_item(j, s, sequence, head, first, count, SW_BF16);
}

/* Items that a thread takes at once: few enough to balance, many enough that short sequences cost no scheduling. */
static int grain(int64_t items, int threads) {
  int64_t n = items / ((int64_t)threads * 16);
  return n < 1 ? 1 : n > 32 ? 32 : (int)n;
}
static int worth_threads(const sw_attention_desc *d) {
  return (double)d->total_tokens * d->max_seqlen * d->num_heads * d->head_size > 100000;
}

/* Scores and dP, both [keys, SW_QUERIES], become (P o M) and dS. The probabilities are divided by their sum once more,
 * because an lse of 10^4 has only three digits after the point, and D = rowsum(P o M o dP) is taken from them: it is
 * rowsum(dO * O) without the rounding that the stored O has, and dS sums to 0 over the keys. */
SW_INLINE void softmax_backward(const job *j, int64_t row, int length, int vectors, float *t, float *u, float *mask,
                                const float *lse) {
  const sw_dropout *dropout = &j->desc->dropout;
  for (int v = 0; v < vectors; v++) {
    vf shift = vf_load(lse + v * SW_LANES), sum = vf_zero(), inner = vf_zero();
    float *p = t + v * SW_LANES, *g = u + v * SW_LANES, *m = mask + v * SW_LANES;
    if (dropout->p > 0) {
      uint32_t threshold = sw_dropout_threshold(dropout->p);
      float scale = sw_dropout_scale(dropout->p);
      sw_dropout_rows rows = sw_dropout_rows_of(dropout, (uint64_t)(row + (int64_t)v * SW_LANES * j->desc->num_heads),
                                                (uint64_t)j->desc->num_heads);
      for (int k = 0; k < length; k += 4) {
        vf quad[4];
        sw_dropout_columns(dropout, &rows, (uint32_t)k >> 2, threshold, scale, quad);
        for (int w = 0; w < 4 && k + w < length; w++) {
          int at = (k + w) * SW_QUERIES;
          vf e = attention_exp2(vf_load(p + at) - shift);
          vf_store(p + at, e);
          vf_store(m + at, quad[w]);
          sum += e;
          inner += e * quad[w] * vf_load(g + at);
        }
      }
      sum = 1.0f / sum;
      inner *= sum;
      for (int k = 0; k < length; k++) {
        int at = k * SW_QUERIES;
        vf e = vf_load(p + at) * sum, keep = vf_load(m + at);
        vf_store(g + at, e * (vf_load(g + at) * keep - inner));
        vf_store(p + at, e * keep);
      }
    } else {
      for (int k = 0; k < length; k++) {
        int at = k * SW_QUERIES;
        vf e = attention_exp2(vf_load(p + at) - shift);
        vf_store(p + at, e);
        sum += e;
        inner += e * vf_load(g + at);
      }
      sum = 1.0f / sum;
      inner *= sum;
      for (int k = 0; k < length; k++) {
        int at = k * SW_QUERIES;
        vf e = vf_load(p + at) * sum;
        vf_store(p + at, e);
        vf_store(g + at, e * (vf_load(g + at) - inner));
      }
    }
  }
}

SW_INLINE void backward_item(const job *j, const scratch *s, int sequence, int head, sw_dtype dtype) {
  const sw_attention_desc *d = j->desc;
  int64_t begin = j->cu_seqlens[sequence], stride = qkv_stride(j), q_step, o_step;
  int length = j->cu_seqlens[sequence + 1] - (int)begin, padded = j->padded;
  attention_pack(j->qkv, dtype, qkv_at(j, begin, 1, head), stride, length, d->head_size, padded, s->keys);
  attention_pack(j->qkv, dtype, qkv_at(j, begin, 2, head), stride, length, d->head_size, padded, s->values);
  for (int q = 0; q < length; q += SW_QUERIES) {
    int queries = length - q < SW_QUERIES ? length - q : SW_QUERIES, vectors = queries > SW_LANES ? 2 : 1;
    float unused[SW_QUERIES], lse[SW_QUERIES] = {0};
    int64_t out_at = (begin + q) * out_stride(j) + (int64_t)head * d->head_size;
    const float *rows = as_rows(j, j->qkv, qkv_at(j, begin + q, 0, head), stride, queries, s->rows, &q_step, dtype);
    const float *drows = as_rows(j, j->dout, out_at, out_stride(j), queries, s->drows, &o_step, dtype);
    for (int i = 0; i < queries; i++) lse[i] = j->lse[(begin + q + i) * d->num_heads + head] * LOG2_E;
    attention_transpose(rows, q_step, queries, d->head_size, d->scale * LOG2_E, s->columns);
    attention_transpose(drows, o_step, queries, d->head_size, 1.0f, s->dcolumns);
    attention_scores(s->columns, s->keys, padded, d->head_size, length, queries, s->scores, unused);
    attention_scores(s->dcolumns, s->values, padded, d->head_size, length, queries, s->gradients, unused);
    softmax_backward(j, (begin + q) * d->num_heads + head, length, vectors, s->scores, s->gradients, s->mask, lse);
    attention_combine(s->scores, 0, drows, o_step, queries, length, padded, s->dvalues, padded, q > 0, NULL);
    attention_combine(s->gradients, 0, rows, q_step, queries, length, padded, s->dkeys, padded, q > 0, NULL);
    attention_combine(s->gradients, 1, s->keys, padded, length, queries, padded, s->result, padded, 0, NULL);
    attention_unpack(s->result, padded, queries, d->head_size, d->scale, j->dqkv, dtype, qkv_at(j, begin + q, 0, head),
                     stride);
  }
  attention_unpack(s->dkeys, padded, length, d->head_size, d->scale, j->dqkv, dtype, qkv_at(j, begin, 1, head), stride);
  attention_unpack(s->dvalues, padded, length, d->head_size, 1.0f, j->dqkv, dtype, qkv_at(j, begin, 2, head), stride);
}
static __attribute__((noinline, unused)) void backward_f32(const job *j, const scratch *s, int sequence, int head) {
  backward_item(j, s, sequence, head, SW_F32);
}
static __attribute__((noinline, unused)) void backward_bf16(const job *j, const scratch *s, int sequence, int head) {
  backward_item(j, s, sequence, head, SW_BF16);
}
#endif
