/* How far two encoders' vectors of the same texts lie apart. */
#ifndef SW_LEARN_DRIFT_H
#define SW_LEARN_DRIFT_H
#include <stddef.h>

/* Cosine of the angle between two vectors; 1 exactly for equal ones, 0 where one has no length. */
double sw_cosine(const float *x, const float *y, size_t size);

/* Linear centred kernel alignment (Kornblith et al., "Similarity of neural network representations revisited", 2019):
 * |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms of the centred x [rows, x_size] and y [rows, y_size]. 1 where one set of
 * vectors is a rotated, scaled, moved copy of the other; sizes may differ. Few rows for many dimensions make it large.
 * Exactly 1 for equal ones; 0 where all rows of one are equal. The same bits for any number of threads. */
int sw_linear_cka(const float *x, size_t x_size, const float *y, size_t y_size, size_t rows, int threads, double *out);
#endif
