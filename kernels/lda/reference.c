#include "kernels/lda/reference.h"

#include <math.h>
#include <stdlib.h>

/* psi(x) = psi(x + 1) - 1 / x, and from 40 on the first terms of the asymptotic series (Abramowitz, Stegun, 6.3.5 and 6.3.18). */
double sw_lda_digamma(double x) {
  double sum = 0;
  for (; x < 40; x++) sum -= 1 / x;
  return sum + log(x) - 1 / (2 * x) - 1 / (12 * x * x) + 1 / (120 * pow(x, 4)) - 1 / (252 * pow(x, 6));
}

void sw_lda_beta_reference(const sw_lda_desc *d, const double *lambda, double *beta) {
  const int topics = d->topics;
  for (int k = 0; k < topics; k++) {
    double sum = 0;
    for (int64_t w = 0; w < d->words; w++) sum += lambda[w * topics + k];
    for (int64_t w = 0; w < d->words; w++) beta[w * topics + k] = sw_lda_digamma(lambda[w * topics + k]) - sw_lda_digamma(sum);
  }
  for (int64_t w = 0; w < d->words; w++) {
    double largest = beta[w * topics];
    for (int k = 1; k < topics; k++) largest = fmax(largest, beta[w * topics + k]);
    for (int k = 0; k < topics; k++) beta[w * topics + k] = exp(beta[w * topics + k] - largest);
  }
}

static void set_theta(const sw_lda_desc *d, const double *gamma, double *theta) {
  double sum = 0;
  for (int k = 0; k < d->topics; k++) sum += gamma[k];
  for (int k = 0; k < d->topics; k++) theta[k] = exp(sw_lda_digamma(gamma[k]) - sw_lda_digamma(sum));
}

void sw_lda_documents_reference(const sw_lda_desc *d, const int64_t *starts, const int32_t *word, const double *count, const double *beta,
                                double *gamma, double *theta, double *ratio) {
  const int topics = d->topics;
  for (int64_t i = 0; i < d->documents; i++) {
    double *g = gamma + i * topics, *t = theta + i * topics, change = INFINITY;
    for (int n = 0; n <= d->iterations; n++) {
      set_theta(d, g, t);
      for (int64_t e = starts[i]; e < starts[i + 1]; e++) {
        double norm = 0;
        for (int k = 0; k < topics; k++) norm += t[k] * beta[(int64_t)word[e] * topics + k];
        ratio[e] = count[e] / norm;
      }
      if (n == d->iterations || change < d->tolerance) break;
      change = 0;
      for (int k = 0; k < topics; k++) {
        double next = 0;
        for (int64_t e = starts[i]; e < starts[i + 1]; e++) next += ratio[e] * beta[(int64_t)word[e] * topics + k];
        next = d->alpha + t[k] * next;
        change += fabs(next - g[k]) / topics;
        g[k] = next;
      }
    }
  }
}

void sw_lda_update_reference(const sw_lda_desc *d, double rho, double scale, const int64_t *starts, const int32_t *word, const double *ratio,
                             const double *theta, const double *beta, double *lambda) {
  const int topics = d->topics;
  for (int64_t i = 0; i < (int64_t)d->words * topics; i++) lambda[i] = (1 - rho) * lambda[i] + rho * d->eta;
  for (int64_t i = 0; i < d->documents; i++)
    for (int64_t e = starts[i]; e < starts[i + 1]; e++)
      for (int k = 0; k < topics; k++) {
        const int64_t at = (int64_t)word[e] * topics + k;
        lambda[at] += rho * scale * beta[at] * theta[i * topics + k] * ratio[e];
      }
}
