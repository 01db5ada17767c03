/* In-batch-negatives loss of a bi-encoder (Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply", 2017; van
 * den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018; MultipleNegativesRankingLoss of
 * sentence-transformers): cross-entropy over a query's similarities to all candidates of the batch, of which one is its positive.
 *
 *   s_ij = similarity_scale q_i.c_j      lse_i = log sum_j e^s_ij      loss = sum_i w_i (lse_i - s_i,pos(i))
 *   g_ij = scale w_i similarity_scale (e^(s_ij - lse_i) - [j = pos(i)])      dq_i = sum_j g_ij c_j      dc_j = sum_i g_ij q_i
 *
 * Rows are taken as they are: for cosine similarities the caller gives vectors of unit length (kernels/pool). No matrix of queries x
 * candidates is stored: forward keeps lse_i, backward computes tiles of s anew, as in attention. */
#ifndef SW_KERNELS_CONTRASTIVE_H
#define SW_KERNELS_CONTRASTIVE_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t rows, candidates; /* below 2^31 */
  int hidden;
  float similarity_scale; /* 20, the inverse of a temperature */
  float scale;            /* gradients are those of scale * loss: 1 / the sum of weights for the mean */
} sw_contrastive_desc;

/* Scratch for these or smaller sizes (depends on the stream's threads). */
typedef int sw_contrastive_workspace_fn(sw_stream *stream, const sw_contrastive_desc *desc, size_t *bytes);
/* queries [rows, hidden], candidates [candidates, hidden] fp32; positive [rows] int32: which candidate is the row's, several rows may
 * share one; row_weights [rows] or NULL; loss: one double, += the unscaled sum, the rows added in a fixed order; dqueries, dcandidates: as
 * queries and candidates, overwritten, each may be NULL. The CPU refuses a positive
 * out of range; a GPU makes the loss and all that the row's gradient reaches NaN. */
typedef int sw_contrastive_fn(sw_stream *stream, const sw_contrastive_desc *desc, const float *queries, const float *candidates,
                              const int32_t *positive, const float *row_weights, double *loss, float *dqueries, float *dcandidates,
                              void *workspace);
#endif
