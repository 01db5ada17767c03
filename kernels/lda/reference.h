/* Online variational Bayes in double, straight from its definition; for tests. Matrices are [words or documents, topics], without padding. */
#ifndef SW_LDA_REFERENCE_H
#define SW_LDA_REFERENCE_H
#include "kernels/backend.h"

double sw_lda_digamma(double x); /* x > 0 */
/* Rows scaled so that the largest number is 1. */
void sw_lda_beta_reference(const sw_lda_desc *desc, const double *lambda, double *beta);
/* gamma: in and out; theta, ratio: out. */
void sw_lda_documents_reference(const sw_lda_desc *desc, const int64_t *starts, const int32_t *word, const double *count, const double *beta,
                                double *gamma, double *theta, double *ratio);
void sw_lda_update_reference(const sw_lda_desc *desc, double rho, double scale, const int64_t *starts, const int32_t *word, const double *ratio,
                             const double *theta, const double *beta, double *lambda);
#endif
