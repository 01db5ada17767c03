#include "kernels/adamw/reference.h"

#include <math.h>

void sw_adamw_reference(const sw_adamw_settings *s, int64_t t, int decays, int64_t count, const double *g, const double *anchor,
                        double *p, double *m, double *v) {
  for (int64_t i = 0; i < count; i++) {
    double gradient = g[i] * s->grad_scale;
    p[i] -= s->lr * (decays ? s->weight_decay * p[i] : 0) + s->lr * (anchor ? s->pull * (p[i] - anchor[i]) : 0);
    m[i] = s->beta1 * m[i] + (1 - s->beta1) * gradient;
    v[i] = s->beta2 * v[i] + (1 - s->beta2) * gradient * gradient;
    double mean = m[i] / (1 - pow(s->beta1, (double)t)), square = v[i] / (1 - pow(s->beta2, (double)t)); /* bias-corrected */
    p[i] -= s->lr * mean / (sqrt(square) + s->eps);
  }
}
