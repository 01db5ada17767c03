#include "kernels/layernorm/reference.h"
#include "base/philox.h"

#include <math.h>

double sw_reference_multiplier(const sw_dropout *d, uint64_t index) {
  index += d->first;
  uint64_t block = index / 4;
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), d->site, d->step}, words[4];
  sw_philox(d->seed, counter, words);
  return words[index % 4] >= (double)d->p * 4294967296.0 ? 1.0 / (1.0 - (double)d->p) : 0.0;
}

static void statistics(int hidden, double eps, const double *z, double *mean, double *rstd) {
  double sum = 0, squares = 0;
  for (int c = 0; c < hidden; c++) sum += z[c];
  *mean = sum / hidden;
  for (int c = 0; c < hidden; c++) squares += (z[c] - *mean) * (z[c] - *mean);
  *rstd = 1 / sqrt(squares / hidden + eps);
}

void sw_reference_layernorm_forward(int64_t tokens, int hidden, double eps, const double *x, const double *mask,
                                    const double *residual, const double *gamma, const double *beta,
                                    const double *out_mask, double *z, double *y, double *mean, double *rstd) {
  for (int64_t t = 0; t < tokens; t++) {
    double m, r;
    for (int c = 0; c < hidden; c++) {
      int64_t i = t * hidden + c;
      y[i] = x[i] * (mask ? mask[i] : 1) + (residual ? residual[i] : 0);
      if (z) z[i] = y[i];
    }
    statistics(hidden, eps, y + t * hidden, &m, &r);
    for (int c = 0; c < hidden; c++) {
      int64_t i = t * hidden + c;
      y[i] = (gamma[c] * (y[i] - m) * r + beta[c]) * (out_mask ? out_mask[i] : 1);
    }
    if (mean) mean[t] = m;
    if (rstd) rstd[t] = r;
  }
}

/* The Jacobian as it stands: with v = var + eps and c = z - mean,
 *   d y_i / d z_k = gamma_i ((delta_ik - 1/H) v^-1/2 - c_i c_k v^-3/2 / H). */
void sw_reference_layernorm_backward(int64_t tokens, int hidden, double eps, const double *dy, const double *z,
                                     const double *gamma, const double *mask, const double *out_mask, double *dz,
                                     double *dx, double *dgamma, double *dbeta) {
  for (int64_t t = 0; t < tokens; t++) {
    const double *row = z + t * hidden;
    double mean, rstd, sum = 0, moment = 0;
    statistics(hidden, eps, row, &mean, &rstd);
    for (int i = 0; i < hidden; i++) {
      double g = dy[t * hidden + i] * (out_mask ? out_mask[t * hidden + i] : 1);
      dgamma[i] += g * (row[i] - mean) * rstd;
      dbeta[i] += g;
      sum += g * gamma[i];
      moment += g * gamma[i] * (row[i] - mean);
    }
    for (int k = 0; k < hidden; k++) {
      int64_t at = t * hidden + k;
      double g = dy[at] * (out_mask ? out_mask[at] : 1);
      dz[at] = (gamma[k] * g - sum / hidden) * rstd - moment * (row[k] - mean) * rstd * rstd * rstd / hidden;
    }
    if (dx)
      for (int k = 0; k < hidden; k++) dx[t * hidden + k] = dz[t * hidden + k] * (mask ? mask[t * hidden + k] : 1);
  }
}
