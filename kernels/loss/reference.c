#include "kernels/loss/reference.h"

#include <math.h>

static double log_sum_exp(const double *l, int n) {
  double m = l[0], sum = 0;
  for (int j = 1; j < n; j++) m = fmax(m, l[j]);
  for (int j = 0; j < n; j++) sum += exp(l[j] - m);
  return m + log(sum);
}

double sw_cross_entropy_reference(const sw_loss_desc *d, const double *logits, const int32_t *labels, const double *class_weights,
                                  const double *row_weights, double *dlogits) {
  double total = 0;
  for (int64_t i = 0; i < d->rows; i++) {
    const double *l = logits + i * d->classes;
    double weight = 0, lse = 0;
    if (labels[i] != d->ignore) {
      weight = (class_weights ? class_weights[labels[i]] : 1) * (row_weights ? row_weights[i] : 1);
      lse = log_sum_exp(l, d->classes);
      total += weight * (lse - l[labels[i]]);
    }
    for (int j = 0; dlogits && j < d->classes; j++)
      dlogits[i * d->classes + j] = labels[i] == d->ignore ? 0 : d->scale * weight * (exp(l[j] - lse) - (j == labels[i]));
  }
  return total;
}

/* -t log(sigmoid(l)) - (1 - t) log(1 - sigmoid(l)), with log sigmoid(l) = -log(1 + e^-l) */
double sw_sigmoid_bce_reference(const sw_loss_desc *d, const double *logits, const double *targets, const double *row_weights,
                                double *dlogits) {
  double total = 0;
  for (int64_t k = 0; k < d->rows * d->classes; k++) {
    double weight = row_weights ? row_weights[k / d->classes] : 1, l = logits[k], t = targets[k];
    double minus_log_yes = l > 0 ? log1p(exp(-l)) : log1p(exp(l)) - l, minus_log_no = l > 0 ? l + log1p(exp(-l)) : log1p(exp(l));
    total += weight * (t * minus_log_yes + (1 - t) * minus_log_no);
    if (dlogits) dlogits[k] = d->scale * weight * (1 / (1 + exp(-l)) - t);
  }
  return total;
}

void sw_log_softmax_reference(const sw_loss_desc *d, const double *logits, double *y) {
  for (int64_t i = 0; i < d->rows; i++) {
    double lse = log_sum_exp(logits + i * d->classes, d->classes);
    for (int j = 0; j < d->classes; j++) y[i * d->classes + j] = logits[i * d->classes + j] - lse;
  }
}
