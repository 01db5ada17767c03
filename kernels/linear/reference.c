#include "kernels/linear/reference.h"
#include <math.h>

static const double pi = 3.14159265358979323846;

double sw_reference_activation(sw_activation activation, double x) {
  switch (activation) {
  case SW_GELU:
    return x * 0.5 * erfc(-x / sqrt(2));
  case SW_GELU_TANH:
    return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * pow(x, 3))));
  case SW_TANH:
    return tanh(x);
  case SW_RELU:
    return x < 0 ? 0 : x;
  default:
    return x;
  }
}

double sw_reference_activation_gradient(sw_activation activation, double x) {
  switch (activation) {
  case SW_GELU:
    return 0.5 * erfc(-x / sqrt(2)) + x * exp(-x * x / 2) / sqrt(2 * pi); /* Phi(x) + x phi(x) */
  case SW_GELU_TANH: {
    double t = tanh(sqrt(2 / pi) * (x + 0.044715 * pow(x, 3))), du = sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
  }
  case SW_TANH:
    return 1 / (cosh(x) * cosh(x));
  case SW_RELU:
    return x > 0 ? 1 : 0;
  default:
    return 1;
  }
}

void sw_reference_linear_forward(const sw_linear_desc *desc, const double *x, const double *weight, const double *bias,
                                 double *pre, double *y) {
  int64_t in = desc->in_features, out = desc->out_features;
  for (int64_t t = 0; t < desc->tokens; t++)
    for (int64_t o = 0; o < out; o++) {
      double sum = 0;
      for (int64_t i = 0; i < in; i++) sum += x[t * in + i] * weight[o * in + i];
      if (bias) sum += bias[o];
      pre[t * out + o] = sum;
      y[t * out + o] = sw_reference_activation(desc->activation, sum);
    }
}

void sw_reference_linear_backward_input(const sw_linear_desc *desc, double *dy, const double *pre, const double *weight,
                                        double *dx, int accumulate) {
  int64_t in = desc->in_features, out = desc->out_features;
  for (int64_t t = 0; t < desc->tokens; t++) {
    for (int64_t o = 0; o < out; o++)
      if (desc->activation) dy[t * out + o] *= sw_reference_activation_gradient(desc->activation, pre[t * out + o]);
    for (int64_t i = 0; dx && i < in; i++)
      if (!accumulate) dx[t * in + i] = 0;
    for (int64_t o = 0; dx && o < out; o++)
      for (int64_t i = 0; i < in; i++) dx[t * in + i] += dy[t * out + o] * weight[o * in + i];
  }
}

void sw_reference_linear_backward_weight(const sw_linear_desc *desc, const double *g, const double *x, double *dweight,
                                         double *dbias) {
  int64_t in = desc->in_features, out = desc->out_features;
  for (int64_t t = 0; t < desc->tokens; t++)
    for (int64_t o = 0; o < out; o++) {
      for (int64_t i = 0; i < in; i++) dweight[o * in + i] += g[t * out + o] * x[t * in + i];
      if (dbias) dbias[o] += g[t * out + o];
    }
}
