/* Multi-head self-attention over packed sequences: out = dropout(softmax(scale Q K^T)) V, each sequence by itself.
 *
 * Online softmax (Milakov, Gimelshein 2018; Dao et al., FlashAttention, 2022): no tokens x tokens matrix is stored.
 * Forward keeps lse = log sum exp(scale q k) per query; backward recomputes the probabilities from it: P = exp(S -
 * lse), D = rowsum(dO * O), dV = (P o M)^T dO, dP = (dO V^T) o M, dS = P o (dP - D), dQ = scale dS K, dK = scale dS^T Q
 * with M the dropout mask divided by (1 - p). D may be taken as rowsum(P o M o dP) instead, which is the same number.
 */
#ifndef SW_KERNELS_ATTENTION_H
#define SW_KERNELS_ATTENTION_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int batch;                /* sequences; one may be empty */
  int64_t total_tokens;     /* = cu_seqlens[batch] */
  int max_seqlen;           /* of this batch, <= 1024 */
  int num_heads, head_size; /* head_size <= 256 */
  float scale;              /* 1 / sqrt(head_size); > 0 */
  sw_dtype dtype;
  sw_dropout dropout;
} sw_attention_desc;

/* Scratch for forward and backward with these or smaller sizes (depends on the stream's threads). */
typedef int sw_attention_workspace_fn(sw_stream *stream, const sw_attention_desc *desc, size_t *bytes);
/* A sequence longer than max_seqlen is refused on the CPU; the GPU, which cannot look without waiting, leaves its rows alone. */
/* qkv [total, 3, heads, head_size]; out [total, heads * head_size]; lse [total, heads] or NULL (inference). */
typedef int sw_attention_forward_fn(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens,
                                    const void *qkv, void *out, float *lse, void *workspace);
/* dqkv [total, 3, heads, head_size] is overwritten. */
typedef int sw_attention_backward_fn(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens,
                                     const void *qkv, const void *out, const float *lse, const void *dout, void *dqkv,
                                     void *workspace);
#endif
