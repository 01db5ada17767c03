#include "kernels/gru/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* What one step makes of the state h: each [hidden]. */
typedef struct {
  double *r, *z, *n, *q;
} step;

static void forward_step(int hidden, const double *gates, const double *weight, const double *bias, const double *h, step s) {
  for (int j = 0; j < hidden; j++) {
    double product[3];
    for (int gate = 0; gate < 3; gate++) {
      const int row = gate * hidden + j;
      product[gate] = bias[row];
      for (int k = 0; k < hidden; k++) product[gate] += weight[row * hidden + k] * h[k];
    }
    s.r[j] = sigmoid(gates[j] + product[0]);
    s.z[j] = sigmoid(gates[hidden + j] + product[1]);
    s.q[j] = product[2];
    s.n[j] = tanh(gates[2 * hidden + j] + s.r[j] * s.q[j]);
  }
}

/* Token of a sequence's i-th step. */
static int64_t token(const sw_gru_desc *d, const int32_t *cu, int sequence, int64_t i) {
  return d->reverse ? cu[sequence + 1] - 1 - i : cu[sequence] + i;
}
/* The state before it; `zeros` where there is none. */
static const double *before(const sw_gru_desc *d, const int32_t *cu, int sequence, int64_t i, const double *initial, const double *y,
                            const double *zeros) {
  if (i > 0) return y + token(d, cu, sequence, i - 1) * d->hidden;
  return initial ? initial + (int64_t)sequence * d->hidden : zeros;
}

void sw_gru_reference(const sw_gru_desc *d, const int32_t *cu, const double *gates, const double *weight, const double *bias,
                      const double *initial, double *y) {
  const int hidden = d->hidden;
  double *room = calloc((size_t)hidden * 5, sizeof *room), *zeros = room + 4 * hidden;
  step s = {room, room + hidden, room + 2 * hidden, room + 3 * hidden};
  for (int b = 0; b < d->batch; b++)
    for (int64_t i = 0; i < cu[b + 1] - cu[b]; i++) {
      const int64_t t = token(d, cu, b, i);
      const double *h = before(d, cu, b, i, initial, y, zeros);
      forward_step(hidden, gates + t * 3 * hidden, weight, bias, h, s);
      for (int j = 0; j < hidden; j++) y[t * hidden + j] = (1 - s.z[j]) * s.n[j] + s.z[j] * h[j];
    }
  free(room);
}

void sw_gru_backward_reference(const sw_gru_desc *d, const int32_t *cu, const double *gates, const double *weight, const double *bias,
                               const double *initial, const double *dy, double *dgates, double *dweight, double *dbias, double *dinitial) {
  const int hidden = d->hidden;
  double *y = calloc((size_t)(d->total_tokens * hidden + 10 * hidden), sizeof *y), *room = y + d->total_tokens * hidden;
  step s = {room, room + hidden, room + 2 * hidden, room + 3 * hidden};
  double *zeros = room + 4 * hidden, *dh = room + 5 * hidden, *earlier = room + 6 * hidden, *dproduct = room + 7 * hidden;
  sw_gru_reference(d, cu, gates, weight, bias, initial, y);
  for (int b = 0; b < d->batch; b++) {
    memset(dh, 0, (size_t)hidden * sizeof *dh);
    for (int64_t i = cu[b + 1] - cu[b]; i-- > 0;) {
      const int64_t t = token(d, cu, b, i);
      const double *h = before(d, cu, b, i, initial, y, zeros);
      double *dg = dgates + t * 3 * hidden;
      forward_step(hidden, gates + t * 3 * hidden, weight, bias, h, s);
      for (int j = 0; j < hidden; j++) {
        const double g = dh[j] + dy[t * hidden + j], dn = g * (1 - s.z[j]), dz = g * (h[j] - s.n[j]);
        const double before_tanh = dn * (1 - s.n[j] * s.n[j]);
        earlier[j] = g * s.z[j];
        dg[j] = dproduct[j] = before_tanh * s.q[j] * s.r[j] * (1 - s.r[j]);
        dg[hidden + j] = dproduct[hidden + j] = dz * s.z[j] * (1 - s.z[j]);
        dg[2 * hidden + j] = before_tanh;
        dproduct[2 * hidden + j] = before_tanh * s.r[j];
      }
      for (int row = 0; row < 3 * hidden; row++) {
        dbias[row] += dproduct[row];
        for (int k = 0; k < hidden; k++) {
          dweight[row * hidden + k] += dproduct[row] * h[k];
          earlier[k] += dproduct[row] * weight[row * hidden + k];
        }
      }
      memcpy(dh, earlier, (size_t)hidden * sizeof *dh);
    }
    memcpy(dinitial + (int64_t)b * hidden, dh, (size_t)hidden * sizeof *dh);
  }
  free(y);
}
