#include "engine/learn/calibration.h"

#include <math.h>

void sw_calibration_add(sw_calibration *c, double probability, int right) {
  int bin = (int)ceil(probability * SW_CALIBRATION_BINS) - 1;
  if (bin < 0) bin = 0;
  if (bin >= SW_CALIBRATION_BINS) bin = SW_CALIBRATION_BINS - 1; /* exp() of a log probability may be a bit above 1 */
  c->count[bin]++;
  c->right[bin] += right != 0;
  c->probability[bin] += probability;
}

void sw_calibration_merge(sw_calibration *c, const sw_calibration *more) {
  for (int i = 0; i < SW_CALIBRATION_BINS; i++) {
    c->count[i] += more->count[i];
    c->right[i] += more->right[i];
    c->probability[i] += more->probability[i];
  }
}

double sw_calibration_error(const sw_calibration *c) {
  double gaps = 0;
  uint64_t all = 0;
  for (int i = 0; i < SW_CALIBRATION_BINS; i++) {
    gaps += fabs((double)c->right[i] - c->probability[i]);
    all += c->count[i];
  }
  return all ? gaps / (double)all : 0;
}
