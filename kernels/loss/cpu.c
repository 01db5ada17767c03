/* Losses on the CPU. A row belongs to one thread; the rows' losses are kept in a fixed buffer and added in order, so that the sum
 * does not depend on the number of threads. Sums over classes are kept in double every SUM_BLOCK vectors. */
#include "base/error.h"
#include "kernels/backend.h"
#include "kernels/isa.h"
#include "kernels/simd.h"

#include <math.h>

sw_cross_entropy_fn SW_CPU(cross_entropy);
sw_sigmoid_bce_fn SW_CPU(sigmoid_bce);
sw_log_softmax_fn SW_CPU(log_softmax);

enum { ROWS = 2048, SUM_BLOCK = 32, PARALLEL_FROM = 1 << 13 };

SW_INLINE float row_maximum(const float *l, int classes) {
  int i = 0;
  float best = l[0];
  if (classes >= SW_LANES) {
    vf m0 = vf_load(l), m1 = m0;
    for (i = SW_LANES; i + 2 * SW_LANES <= classes; i += 2 * SW_LANES) {
      m0 = vf_max(m0, vf_load(l + i));
      m1 = vf_max(m1, vf_load(l + i + SW_LANES));
    }
    best = vf_max_lane(vf_max(m0, m1));
  }
  for (; i < classes; i++) best = l[i] > best ? l[i] : best;
  return best;
}

/* sum of e^(l - maximum), and where `e` is not NULL each term (may be l itself). A NaN anywhere makes the sum NaN. */
SW_INLINE double row_exponentials(const float *l, int classes, float maximum, float *e) {
  double sum = 0;
  for (int i = 0; i < classes;) {
    vf part = vf_zero();
    for (int k = 0; k < SUM_BLOCK && i < classes; k++, i += SW_LANES) {
      int n = classes - i;
      if (n >= SW_LANES) {
        vf v = vf_exp(vf_load(l + i) - maximum);
        if (e) vf_store(e + i, v);
        part += v;
      } else {
        vf v = vf_exp(vf_load_n(l + i, n) - maximum), kept = vf_zero();
        if (e) vf_store_n(e + i, v, n);
        for (int j = 0; j < n; j++) kept[j] = v[j]; /* the lanes beyond the row count nothing */
        part += kept;
      }
    }
    sum += (double)vf_sum(part);
  }
  return sum;
}

SW_INLINE void row_scale(float *x, int classes, float factor) {
  int i = 0;
  for (; i + SW_LANES <= classes; i += SW_LANES) vf_store(x + i, vf_load(x + i) * factor);
  for (; i < classes; i++) x[i] *= factor;
}

static int check_shape(const char *what, const sw_loss_desc *d) {
  if (d->rows < 0 || d->classes < 1)
    return sw_fail("%s: %lld rows of %d classes: sizes must be positive", what, (long long)d->rows, d->classes);
  return 0;
}

static double cross_entropy_row(const float *l, int classes, int label, double weight, float scale, float *dl) {
  float maximum = row_maximum(l, classes), picked = l[label];
  double sum = row_exponentials(l, classes, maximum, dl);
  if (dl) {
    double c = weight * scale, e = dl[label];
    row_scale(dl, classes, (float)(c / sum));
    dl[label] = (float)(c * (e / sum - 1));
  }
  return weight * ((double)maximum - picked + log(sum));
}

int SW_CPU(cross_entropy)(sw_stream *stream, const sw_loss_desc *desc, const float *logits, const int32_t *labels,
                          const float *class_weights, const float *row_weights, double *loss, float *dlogits, void *workspace) {
  (void)workspace;
  const sw_loss_desc d = *desc;
  if (check_shape("cross_entropy", &d)) return -1;
  for (int64_t i = 0; i < d.rows; i++)
    if (labels[i] != d.ignore && (labels[i] < 0 || labels[i] >= d.classes))
      return sw_fail("cross_entropy: row %lld has label %d; labels are 0 to %d, or %d for none", (long long)i, labels[i], d.classes - 1,
                     d.ignore);
  double rows[ROWS], total = *loss;
  for (int64_t start = 0; start < d.rows; start += ROWS) {
    int64_t end = start + ROWS < d.rows ? start + ROWS : d.rows;
#pragma omp parallel for num_threads(stream->threads) schedule(static) if ((end - start) * d.classes >= PARALLEL_FROM)
    for (int64_t i = start; i < end; i++) {
      const float *l = logits + i * d.classes;
      float *dl = dlogits ? dlogits + i * d.classes : NULL;
      if (labels[i] == d.ignore) {
        if (dl) memset(dl, 0, (size_t)d.classes * sizeof *dl);
        continue;
      }
      double weight = (row_weights ? row_weights[i] : 1.0) * (class_weights ? class_weights[labels[i]] : 1.0);
      rows[i - start] = cross_entropy_row(l, d.classes, labels[i], weight, d.scale, dl);
    }
    for (int64_t i = start; i < end; i++)
      if (labels[i] != d.ignore) total += rows[i - start];
  }
  *loss = total;
  return 0;
}

/* log(1 + e), e in [0, 1]: 2 artanh(s), s = e / (2 + e) <= 1/3, by its Taylor series; the first term left out is below 1e-8 of it. */
SW_INLINE vf log1p_unit(vf e) {
  vf s = e / (e + 2.0f), q = s * s;
  vf p = vf_set(1 / 15.0f);
  p = p * q + 1 / 13.0f;
  p = p * q + 1 / 11.0f;
  p = p * q + 1 / 9.0f;
  p = p * q + 1 / 7.0f;
  p = p * q + 1 / 5.0f;
  p = p * q + 1 / 3.0f;
  p = p * q + 1.0f;
  return (s + s) * p;
}

SW_INLINE vf bce(vf l, vf t, float factor, vf *gradient) {
  vf e = vf_exp(-vf_abs(l)), larger = 1.0f / (1.0f + e); /* sigmoid(|l|) */
  vi positive = l >= 0.0f;
  *gradient = (vf_select(positive, larger, e * larger) - t) * factor;
  return vf_select(positive | (l != l), l, vf_zero()) - l * t + log1p_unit(e);
}

static double bce_row(const float *l, const float *t, int classes, float factor, float *dl) {
  double sum = 0;
  for (int i = 0; i < classes;) {
    vf part = vf_zero(), gradient;
    for (int k = 0; k < SUM_BLOCK && i < classes; k++, i += SW_LANES) {
      int n = classes - i;
      if (n >= SW_LANES) {
        part += bce(vf_load(l + i), vf_load(t + i), factor, &gradient);
        if (dl) vf_store(dl + i, gradient);
      } else {
        vf v = bce(vf_load_n(l + i, n), vf_load_n(t + i, n), factor, &gradient), kept = vf_zero();
        if (dl) vf_store_n(dl + i, gradient, n);
        for (int j = 0; j < n; j++) kept[j] = v[j];
        part += kept;
      }
    }
    sum += (double)vf_sum(part);
  }
  return sum;
}

int SW_CPU(sigmoid_bce)(sw_stream *stream, const sw_loss_desc *desc, const float *logits, const float *targets, const float *row_weights,
                        double *loss, float *dlogits, void *workspace) {
  (void)workspace;
  const sw_loss_desc d = *desc;
  if (check_shape("sigmoid_bce", &d)) return -1;
  double rows[ROWS], total = *loss;
  for (int64_t start = 0; start < d.rows; start += ROWS) {
    int64_t end = start + ROWS < d.rows ? start + ROWS : d.rows;
#pragma omp parallel for num_threads(stream->threads) schedule(static) if ((end - start) * d.classes >= PARALLEL_FROM)
    for (int64_t i = start; i < end; i++) {
      double weight = row_weights ? row_weights[i] : 1.0;
      rows[i - start] = weight * bce_row(logits + i * d.classes, targets + i * d.classes, d.classes, (float)(weight * d.scale),
                                         dlogits ? dlogits + i * d.classes : NULL);
    }
    for (int64_t i = start; i < end; i++) total += rows[i - start];
  }
  *loss = total;
  return 0;
}

static void log_softmax_row(const float *l, int classes, float *y) {
  float maximum = row_maximum(l, classes), log_sum = (float)log(row_exponentials(l, classes, maximum, NULL));
  int i = 0;
  for (; i + SW_LANES <= classes; i += SW_LANES) vf_store(y + i, vf_load(l + i) - maximum - log_sum);
  for (; i < classes; i++) y[i] = l[i] - maximum - log_sum;
}

int SW_CPU(log_softmax)(sw_stream *stream, const sw_loss_desc *desc, const float *logits, float *y) {
  const sw_loss_desc d = *desc;
  if (check_shape("log_softmax", &d)) return -1;
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (d.rows * d.classes >= PARALLEL_FROM)
  for (int64_t i = 0; i < d.rows; i++) log_softmax_row(logits + i * d.classes, d.classes, y + i * d.classes);
  return 0;
}
