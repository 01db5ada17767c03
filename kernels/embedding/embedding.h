/* BERT's input: y = dropout(LayerNorm(word[id] + position[pos] + type[type_id])).
 * The gradient of the word table is sparse: only rows of ids in the batch. It is made without atomics from tokens
 * sorted by id. */
#ifndef SW_KERNELS_EMBEDDING_H
#define SW_KERNELS_EMBEDDING_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t tokens;
  int hidden;                                     /* <= 8192 */
  int vocab_size, max_positions, type_vocab_size; /* type_vocab_size 0: no type table (DistilBERT) */
  float eps;
  sw_dtype dtype;     /* of z and y */
  sw_dropout dropout; /* after the LayerNorm */
} sw_embedding_desc;

/* ids, positions [tokens], within the tables (the caller has checked); type_ids [tokens] or NULL: all 0.
 * word [vocab, hidden], position [max_positions, hidden], type [types, hidden] or NULL, gamma, beta [hidden].
 * z [tokens, hidden] (the sum before LayerNorm), mean, rstd [tokens]: kept for backward, or all NULL. y [tokens,
 * hidden]. */
typedef int sw_embedding_forward_fn(sw_stream *stream, const sw_embedding_desc *desc, const int32_t *ids,
                                    const int32_t *positions, const int32_t *type_ids, const float *word,
                                    const float *position, const float *type, const float *gamma, const float *beta,
                                    void *z, void *y, float *mean, float *rstd);
/* Scratch for backward with at most desc->tokens tokens. */
typedef int sw_embedding_workspace_fn(sw_stream *stream, const sw_embedding_desc *desc, size_t *bytes);
/* dy [tokens, hidden] becomes dz in place. The distinct ids of the batch are numbered 0 .. unique-1 in increasing
 * order: sorted_tokens [tokens] lists the tokens by id (stable), those of the u-th distinct id at [segments[u],
 * segments[u+1]). dword_rows [unique, hidden] is overwritten; dposition, dtype_table (NULL where there is no table),
 * dgamma, dbeta are added to. */
typedef int sw_embedding_backward_fn(sw_stream *stream, const sw_embedding_desc *desc, const int32_t *positions,
                                     const int32_t *type_ids, void *dy, const void *z, const float *gamma,
                                     const float *mean, const float *rstd, const int32_t *sorted_tokens,
                                     const int32_t *segments, int64_t unique, float *dword_rows, float *dposition,
                                     float *dtype_table, float *dgamma, float *dbeta, void *workspace);
#endif
