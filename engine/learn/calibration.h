/* Whether the probabilities of predictions are what they say: of the tags predicted with probability 0.8, are 80 %
 * right? */
#ifndef SW_LEARN_CALIBRATION_H
#define SW_LEARN_CALIBRATION_H
#include <stdint.h>

enum { SW_CALIBRATION_BINS = 15 };

/* A reliability diagram: bin m of M holds the predictions with a probability in (m / M, (m + 1) / M]; a 0 is in the
 * first. */
typedef struct {
  uint64_t count[SW_CALIBRATION_BINS], right[SW_CALIBRATION_BINS];
  double probability[SW_CALIBRATION_BINS]; /* sum */
} sw_calibration;

/* probability: of the predicted tag, 0 to 1. */
void sw_calibration_add(sw_calibration *calibration, double probability, int right);
/* Adds all of `more`. */
void sw_calibration_merge(sw_calibration *calibration, const sw_calibration *more);
/* Expected calibration error (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015;
 * Guo et al., "On calibration of modern neural networks", 2017): the mean over predictions of |share right - mean
 * probability| of their bin. */
double sw_calibration_error(const sw_calibration *calibration);
#endif
