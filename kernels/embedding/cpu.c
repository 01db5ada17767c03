/* BERT's input on the CPU: see embedding.h. */
#include "kernels/isa.h"
#include "kernels/layernorm/check.h"
#include "kernels/layernorm/row.h"

sw_embedding_forward_fn SW_CPU(embedding_forward);
sw_embedding_workspace_fn SW_CPU(embedding_workspace);
sw_embedding_backward_fn SW_CPU(embedding_backward);

typedef struct {
  const sw_embedding_desc *desc;
  const int32_t *ids, *positions, *type_ids;
  const float *word, *position, *type, *gamma, *beta;
  void *z, *y, *dy; /* backward: dy becomes dz */
  float *mean, *rstd;
  const int32_t *sorted_tokens, *segments;
  float *dword_rows, *dposition, *dtype_table;
} job;

static int check(const sw_embedding_desc *d) {
  return sw_check_rows("embedding", d->hidden, &d->dropout);
}
/* Loops over tokens are dealt out in groups of this many. */
enum { GROUP = 16 };

SW_INLINE void forward_rows(const job *j, int64_t first, int64_t last, sw_dtype dtype) {
  int hidden = j->desc->hidden;
  float z[SW_MAX_HIDDEN], room[SW_DROPOUT_ROOM(SW_MAX_HIDDEN)];
  for (int64_t t = first; t < last; t++) {
    int64_t at = t * hidden;
    const float *word = j->word + (int64_t)j->ids[t] * hidden,
                *position = j->position + (int64_t)j->positions[t] * hidden;
    const float *type = j->type ? j->type + (j->type_ids ? (int64_t)j->type_ids[t] : 0) * hidden : NULL;
    if (t + 1 < last) /* the table is far larger than the caches, and its rows come in no order */
      for (int i = 0; i < hidden; i += 16) __builtin_prefetch(j->word + (int64_t)j->ids[t + 1] * hidden + i);
    SW_EACH_VECTOR(hidden, {
      vf v = row_get(word, SW_F32, i, n);
      if (type) v += row_get(type, SW_F32, i, n);
      v += row_get(position, SW_F32, i, n);
      vf_store(z + i, v); /* zeros beyond the row */
      if (j->z) row_put(j->z, dtype, at + i, v, n);
    });
    float mean, rstd;
    row_statistics(z, hidden, j->desc->eps, &mean, &rstd);
    const float *mask = j->desc->dropout.p > 0 ? sw_dropout_row(&j->desc->dropout, (uint64_t)at, hidden, room) : NULL;
    row_normalize(z, hidden, mean, rstd, j->gamma, j->beta, mask, j->y, at, dtype);
    if (j->mean) j->mean[t] = mean, j->rstd[t] = rstd;
  }
}
static __attribute__((noinline)) void forward_f32(const job *j, int64_t a, int64_t b) {
  forward_rows(j, a, b, SW_F32);
}
static __attribute__((noinline)) void forward_bf16(const job *j, int64_t a, int64_t b) {
  forward_rows(j, a, b, SW_BF16);
}

int SW_CPU(embedding_forward)(sw_stream *stream, const sw_embedding_desc *desc, const int32_t *ids,
                              const int32_t *positions, const int32_t *type_ids, const float *word,
                              const float *position, const float *type, const float *gamma, const float *beta, void *z,
                              void *y, float *mean, float *rstd) {
  if (check(desc)) return -1;
  job j = {.desc = desc,
           .ids = ids,
           .positions = positions,
           .type_ids = type_ids,
           .word = word,
           .position = position,
           .type = type,
           .gamma = gamma,
           .beta = beta,
           .z = z,
           .y = y,
           .mean = mean,
           .rstd = rstd};
  int64_t tokens = desc->tokens;
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (tokens * desc->hidden > 16384)
  for (int64_t t = 0; t < tokens; t += GROUP) {
    int64_t end = t + GROUP < tokens ? t + GROUP : tokens;
    if (desc->dtype == SW_F32)
      forward_f32(&j, t, end);
    else
      forward_bf16(&j, t, end);
  }
  return 0;
}

/* dy becomes dz. */
SW_INLINE void backward_slice(const job *j, int64_t first, int64_t last, float *dgamma, float *dbeta, sw_dtype dtype) {
  int hidden = j->desc->hidden;
  float room[SW_DROPOUT_ROOM(SW_MAX_HIDDEN)];
  memset(dgamma, 0, (size_t)hidden * sizeof *dgamma);
  memset(dbeta, 0, (size_t)hidden * sizeof *dbeta);
  for (int64_t t = first; t < last; t++) {
    int64_t at = t * hidden;
    const float *mask = j->desc->dropout.p > 0 ? sw_dropout_row(&j->desc->dropout, (uint64_t)at, hidden, room) : NULL;
    row_backward(j->dy, j->z, at, hidden, j->gamma, j->mean[t], j->rstd[t], mask, j->dy, NULL, NULL, dgamma, dbeta,
                 dtype);
  }
}
/* The rows of the word table: one sum a distinct id, over its tokens in order. */
SW_INLINE void word_rows(const job *j, int64_t u, sw_dtype dtype) {
  int hidden = j->desc->hidden;
  int first = j->segments[u], last = j->segments[u + 1];
  SW_EACH_VECTOR(hidden, {
    vf sum = vf_zero();
    for (int s = first; s < last; s++) sum += row_get(j->dy, dtype, (int64_t)j->sorted_tokens[s] * hidden + i, n);
    row_put(j->dword_rows, SW_F32, u * hidden + i, sum, n);
  });
}
/* The position and type tables, for one block of columns: tokens in order. Runs of one type are summed in registers, at
 * most RUN long, so that adding a batch into the two rows of the type table loses no digits. */
enum { RUN = 64 };
SW_INLINE void position_and_type(const job *j, int column, sw_dtype dtype) {
  int hidden = j->desc->hidden, width = hidden - column < SW_ROW_BLOCK ? hidden - column : SW_ROW_BLOCK;
  int64_t tokens = j->desc->tokens;
  for (int64_t t = 0; t < tokens;) {
    int type = j->type_ids ? j->type_ids[t] : 0;
    int64_t end = t + 1;
    while (end < tokens && end - t < RUN && (j->type_ids ? j->type_ids[end] : 0) == type) end++;
    SW_EACH_VECTOR(width, {
      vf run = vf_zero();
      for (int64_t k = t; k < end; k++) {
        vf v = row_get(j->dy, dtype, k * hidden + column + i, n);
        int64_t at = (int64_t)j->positions[k] * hidden + column + i;
        row_put(j->dposition, SW_F32, at, row_get(j->dposition, SW_F32, at, n) + v, n);
        run += v;
      }
      if (j->dtype_table) {
        int64_t at = (int64_t)type * hidden + column + i;
        row_put(j->dtype_table, SW_F32, at, row_get(j->dtype_table, SW_F32, at, n) + run, n);
      }
    });
    t = end;
  }
}
#define SW_OF_DTYPE(dtype, suffix)                                                                                     \
  static __attribute__((noinline)) void backward_##suffix(const job *j, int64_t a, int64_t b, float *dgamma,           \
                                                          float *dbeta) {                                              \
    backward_slice(j, a, b, dgamma, dbeta, dtype);                                                                     \
  }                                                                                                                    \
  static __attribute__((noinline)) void word_rows_##suffix(const job *j, int64_t u) {                                  \
    word_rows(j, u, dtype);                                                                                            \
  }                                                                                                                    \
  static __attribute__((noinline)) void position_and_type_##suffix(const job *j, int column) {                         \
    position_and_type(j, column, dtype);                                                                               \
  }
SW_OF_DTYPE(SW_F32, f32)
SW_OF_DTYPE(SW_BF16, bf16)

int SW_CPU(embedding_workspace)(sw_stream *stream, const sw_embedding_desc *desc, size_t *bytes) {
  (void)stream;
  if (check(desc)) return -1;
  *bytes = row_slices_bytes(desc->tokens, desc->hidden);
  return 0;
}

int SW_CPU(embedding_backward)(sw_stream *stream, const sw_embedding_desc *desc, const int32_t *positions,
                               const int32_t *type_ids, void *dy, const void *z, const float *gamma, const float *mean,
                               const float *rstd, const int32_t *sorted_tokens, const int32_t *segments, int64_t unique,
                               float *dword_rows, float *dposition, float *dtype_table, float *dgamma, float *dbeta, void *workspace) {
  if (check(desc)) return -1;
  job j = {.desc = desc,
           .positions = positions,
           .type_ids = type_ids,
           .gamma = gamma,
           .z = (void *)z,
           .dy = dy,
           .mean = (float *)mean,
           .rstd = (float *)rstd,
           .sorted_tokens = sorted_tokens,
           .segments = segments,
           .dword_rows = dword_rows,
           .dposition = dposition,
           .dtype_table = dtype_table};
  int64_t tokens = desc->tokens;
  int hidden = desc->hidden, f32 = desc->dtype == SW_F32;
  row_slices slices = row_slices_of(tokens, hidden);
  float *partial = workspace;
#pragma omp parallel num_threads(stream->threads) if (tokens * hidden > 16384)
  {
#pragma omp for schedule(static)
    for (int s = 0; s < slices.count; s++) {
      int64_t first = s * slices.tokens, last = first + slices.tokens < tokens ? first + slices.tokens : tokens;
      float *g = partial + (int64_t)s * 2 * hidden;
      if (f32)
        backward_f32(&j, first, last, g, g + hidden);
      else
        backward_bf16(&j, first, last, g, g + hidden);
    }
#pragma omp for schedule(dynamic, 8) nowait
    for (int64_t u = 0; u < unique; u++) {
      if (f32)
        word_rows_f32(&j, u);
      else
        word_rows_bf16(&j, u);
    }
#pragma omp for schedule(static)
    for (int column = 0; column < hidden; column += SW_ROW_BLOCK) {
      if (f32)
        position_and_type_f32(&j, column);
      else
        position_and_type_bf16(&j, column);
    }
  }
  row_add_slices(partial, slices.count, hidden, dgamma, dbeta);
  return 0;
}
