/* Latent Dirichlet allocation by online variational Bayes (Hoffman, Blei, Bach, "Online Learning for Latent Dirichlet Allocation", 2010,
 * algorithm 2). Topic k gives word w the weight lambda_wk; document d with counts n_dw has the weights gamma_dk:
 *
 *   theta_dk = exp E[log theta_dk] = exp psi(gamma_dk) / exp psi(sum_j gamma_dj)
 *   beta_wk  = exp E[log beta_wk]  = exp psi(lambda_wk) / exp psi(sum_v lambda_vk)
 *   ratio_dw = n_dw / sum_k theta_dk beta_wk
 *   until the mean over k of |change of gamma_dk| is below `tolerance`, at most `iterations` times:
 *     gamma_dk = alpha + theta_dk sum_w ratio_dw beta_wk,   then theta and ratio anew
 *   lambda_wk = (1 - rho) lambda_wk + rho (eta + scale beta_wk sum_d theta_dk ratio_dw)
 *
 * psi is the digamma function; exp psi is computed as one function, which is smooth and near x - 1/2, so that fp32 is enough; it is at least
 * SW_LDA_LEAST. Factors that are common to a row of beta cancel in gamma and lambda: rows are scaled so that their largest number is 1, and
 * nothing underflows. sum_j gamma_dj is taken to be what it is after any update, topics alpha + sum_w n_dw.
 *
 * A matrix has a row of sw_lda_stride(topics) numbers for each word or document; what is behind `topics` is 0 in beta, theta and the new gamma;
 * in lambda and the old gamma it means nothing, and the update leaves it alone. Documents are lists of distinct words: those of document d
 * are entries starts[d] to starts[d + 1]. */
#ifndef SW_KERNELS_LDA_H
#define SW_KERNELS_LDA_H
#include <stddef.h>
#include <stdint.h>

enum { SW_LDA_TOPICS = 1024 }; /* at most */
#define SW_LDA_LEAST 1e-30f
static inline int sw_lda_stride(int topics) { return (topics + 15) / 16 * 16; }

typedef struct {
  int64_t documents; /* 0 for sw_lda_beta; below 2^31 */
  int words, topics; /* of the vocabulary; 1 to SW_LDA_TOPICS */
  int longest;       /* distinct words of a document at most */
  float alpha, eta;  /* > 0: of the symmetric Dirichlet distributions */
  float tolerance;   /* 0.001; 0: all iterations are done */
  int iterations;    /* 50; at least 1 */
} sw_lda_desc;

/* Scratch of the two that take it, for these or smaller sizes (depends on the stream's threads). */
typedef int sw_lda_workspace_fn(sw_stream *stream, const sw_lda_desc *desc, size_t *bytes);

/* beta, with rows scaled, from lambda: both fp32 [words, stride]. */
typedef int sw_lda_beta_fn(sw_stream *stream, const sw_lda_desc *desc, const float *lambda, float *beta, void *workspace);

/* The documents' gamma. starts: int64 [documents + 1], word: int32 [entries], count: fp32 [entries], > 0; beta as above.
 * gamma: fp32 [documents, stride], in: where to begin (all 1, say), out: the result; theta: as gamma; ratio: fp32 [entries]. The CPU refuses a word out of range and a document with more than `longest`; a GPU makes such a document's
 * results NaN. */
typedef int sw_lda_documents_fn(sw_stream *stream, const sw_lda_desc *desc, const int64_t *starts, const int32_t *word, const float *count,
                                const float *beta, float *gamma, float *theta, float *ratio, void *workspace);

/* lambda's update, in place, from the documents' theta and ratio. The entries are listed by word: those of word w are from
 * word_starts[w] to word_starts[w + 1] (int64 [words + 1]), entry: int64 [entries] index in ratio, document: int32 [entries] row of theta. A
 * word's are added in that order. */
typedef int sw_lda_update_fn(sw_stream *stream, const sw_lda_desc *desc, float rho, float scale, const int64_t *word_starts,
                             const int64_t *entry, const int32_t *document, const float *ratio, const float *theta, const float *beta,
                             float *lambda);
#endif
