#include "engine/model/logistic.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  MEMORY = 10,           /* pairs that L-BFGS remembers: scipy's number */
  LOGITS = 4 << 20,      /* bytes of a block's logits */
  SPAN = 4096,           /* numbers that are summed on their own, whoever does it */
  TRIALS = 25,           /* points that one line search may look at */
  FLAT = 10,             /* iterations without progress before the end */
  MOST_PARAMETERS = 1 << 29
};
static const double ARMIJO = 1e-4, CURVATURE = 0.9; /* Nocedal, Wright: c1 and c2 */
static const double NOISE = 1e-7;                   /* of a row's loss in fp32: differences of the objective below it say nothing */

/* A point: parameters are W row after row, then b. */
typedef struct {
  float *p, *gradient; /* [n] */
  double f, loss;      /* the objective, and its part without the penalty */
  double t, slope;     /* in a line search: how far from its start, and the derivative there */
} point;
/* What a line search keeps of a point that it will not go to. */
typedef struct {
  double f, t, slope;
} mark;

typedef struct {
  const sw_logistic_problem *problem;
  sw_stream stream;
  double lambda, total; /* 1 / C; sum of the weights */
  int64_t block;        /* rows */
  size_t n, weights;    /* parameters: all, those of W */
  /* device */
  float *x, *row_weights, *parameters, *gradient, *logits;
  int32_t *labels;
  double *loss;
  void *prepared, *workspace;
  /* host */
  double *mean, *variance; /* [dim] of the features */
  double *shares;          /* [classes]: weight of their rows */
  double *partial;         /* [spans] */
  point here, next, low;   /* low: of a line search */
  float *direction, *s[MEMORY], *y[MEMORY];
  double rho[MEMORY];
  int pairs; /* that were made; pair i lies at i % MEMORY */
  int evaluations;
} fit;

/* --- vectors: spans belong to a thread, their sums are added in order --- */

static size_t spans_of(size_t n) { return (n + SPAN - 1) / SPAN; }

static double total_of(const fit *f) {
  double sum = 0;
  for (size_t i = 0; i < spans_of(f->n); i++) sum += f->partial[i];
  return sum;
}

static double span_dot(const float *a, const float *b, size_t count) {
  double sum[8] = {0}, rest = 0;
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int k = 0; k < 8; k++) sum[k] += (double)a[i + (size_t)k] * (double)b[i + (size_t)k];
  for (; i < count; i++) rest += (double)a[i] * (double)b[i];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])) + rest;
}

/* Evaluates the expression, of a span's first number `begin` and its `count`, for all spans: total_of gives the sum. */
#define OVER_SPANS(f, expression)                                                                                                       \
  do {                                                                                                                                  \
    const int threads = spans_of((f)->n) < 8 ? 1 : (f)->stream.threads;                                                                 \
    _Pragma("omp parallel for num_threads(threads) schedule(static) if (threads > 1)") for (size_t i = 0; i < spans_of((f)->n); i++) {  \
      const size_t begin = i * SPAN, count = (f)->n - begin < SPAN ? (f)->n - begin : SPAN;                                             \
      (f)->partial[i] = (expression);                                                                                                   \
    }                                                                                                                                   \
  } while (0)

static double dot(fit *f, const float *a, const float *b) {
  OVER_SPANS(f, span_dot(a + begin, b + begin, count));
  return total_of(f);
}

static double span_add_dot(float *q, const float *v, double factor, const float *w, size_t count) {
  for (size_t i = 0; i < count; i++) q[i] += (float)(factor * (double)v[i]);
  return w ? span_dot(q, w, count) : 0;
}
/* q += factor v; then q.w (w may be NULL: 0). */
static double add_dot(fit *f, float *q, const float *v, double factor, const float *w) {
  OVER_SPANS(f, span_add_dot(q + begin, v + begin, factor, w ? w + begin : NULL, count));
  return total_of(f);
}

static double span_step(float *to, const float *from, const float *d, double t, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = (float)((double)from[i] + t * (double)d[i]);
  return 0;
}
/* to = from + t d */
static void step(fit *f, float *to, const float *from, const float *d, double t) { OVER_SPANS(f, span_step(to + begin, from + begin, d + begin, t, count)); }

static double span_pair(float *s, float *y, const point *a, const point *b, size_t at, size_t count) {
  for (size_t i = at; i < at + count; i++) {
    s[i] = b->p[i] - a->p[i];
    y[i] = b->gradient[i] - a->gradient[i];
  }
  return span_dot(s + at, y + at, count);
}
static double span_penalty(float *gradient, const float *p, double lambda, size_t weights, size_t at, size_t count) {
  const size_t end = at + count < weights ? at + count : weights;
  for (size_t i = at; i < end; i++) gradient[i] += (float)(lambda * (double)p[i]);
  return at < end ? lambda / 2 * span_dot(p + at, p + at, end - at) : 0;
}

/* --- the objective --- */

static sw_linear_desc shape_of(const fit *f, int64_t rows) {
  return (sw_linear_desc){.tokens = rows, .in_features = f->problem->dim, .out_features = f->problem->classes, .dtype = SW_F32, .out_dtype = SW_F32,
                          .training = 1};
}

/* Adds the gradient of the cross entropy at `parameters` to `gradient` and itself to `loss`. */
static int add_blocks(fit *f) {
  const sw_logistic_problem *q = f->problem;
  const sw_linear_desc all = shape_of(f, f->block);
  if (SW_RUN(&f->stream, linear_prepare, &all, f->parameters, f->prepared)) return -1;
  for (int64_t from = 0; from < q->rows; from += f->block) {
    const int64_t rows = q->rows - from < f->block ? q->rows - from : f->block;
    const sw_linear_desc desc = shape_of(f, rows);
    const sw_loss_desc loss = {.rows = rows, .classes = q->classes, .ignore = -100, .scale = 1};
    const float *x = f->x + from * q->dim;
    if (SW_RUN(&f->stream, linear_forward, &desc, x, f->prepared, f->parameters + f->weights, NULL, f->logits, f->workspace) ||
        SW_RUN(&f->stream, cross_entropy, &loss, f->logits, f->labels + from, NULL, q->row_weights ? f->row_weights + from : NULL, f->loss,
               f->logits, f->workspace) ||
        SW_RUN(&f->stream, linear_backward_weight, &desc, f->logits, x, f->gradient, f->gradient + f->weights, f->workspace))
      return -1;
  }
  return 0;
}

/* Fills in all but t and slope for at->p. */
static int evaluate(fit *f, point *at) {
  sw_device *device = f->stream.device;
  const size_t bytes = f->n * sizeof(float);
  f->evaluations++;
  if (device->copy_in(&f->stream, f->parameters, at->p, bytes) || device->zero(&f->stream, f->gradient, bytes) ||
      device->zero(&f->stream, f->loss, sizeof(double)) || sw_collect(&f->stream) || sw_submit(&f->stream, add_blocks(f)) ||
      device->copy_out(&f->stream, at->gradient, f->gradient, bytes) ||
      device->copy_out(&f->stream, &at->loss, f->loss, sizeof(double)) || device->synchronize(&f->stream))
    return -1;
  OVER_SPANS(f, span_penalty(at->gradient, at->p, f->lambda, f->weights, begin, count));
  at->f = at->loss + total_of(f);
  return isfinite(at->f) ? 0 : sw_fail("logistic regression: the objective is no finite number; the features are too large: scale them");
}

/* The largest |derivative| by the parameters of the uncentred features, over the sum of weights. */
static double largest_gradient(const fit *f, const float *gradient) {
  const int dim = f->problem->dim;
  double largest = 0;
  for (int k = 0; k < f->problem->classes; k++) {
    const double shift = (double)gradient[f->weights + (size_t)k];
    const float *row = gradient + (size_t)k * (size_t)dim;
    if (fabs(shift) > largest) largest = fabs(shift);
    for (int d = 0; d < dim; d++) {
      const double g = fabs((double)row[d] + shift * f->mean[d]);
      if (g > largest) largest = g;
    }
  }
  return largest / f->total;
}

/* --- the direction --- */

static double span_scale(const fit *f, double c, double factor, const float *from, float *to, const float *w, size_t at, size_t count) {
  const size_t dim = (size_t)f->problem->dim;
  for (size_t i = at; i < at + count;) {
    const size_t k = i < f->weights ? i / dim : i - f->weights, end = i < f->weights ? (k + 1) * dim : i + 1;
    const double n = c * f->shares[k];
    for (; i < end && i < at + count; i++)
      to[i] = (float)(factor * (double)from[i] / (i < f->weights ? n * f->variance[i - k * dim] + f->lambda : n));
  }
  return span_dot(to + at, w + at, count);
}
/* to = factor D from, with the diagonal D of the header (may be in place); then to.w. */
static double scale(fit *f, double c, double factor, const float *from, float *to, const float *w) {
  OVER_SPANS(f, span_scale(f, c, factor, from, to, w, begin, count));
  return total_of(f);
}

/* The two-loop recursion: direction = - H gradient; gives its slope. */
static double find_direction(fit *f, const point *at) {
  const int count = f->pairs < MEMORY ? f->pairs : MEMORY, last = f->pairs - 1;
  const double c = fmax(-expm1(-at->loss / f->total), 1e-6);
  double alpha[MEMORY], q_s = 0, factor = 1;
  float *q = f->direction;
  if (count) {
    const float *y = f->y[last % MEMORY];
    factor = 1 / (f->rho[last % MEMORY] * scale(f, c, 1, y, q, y)); /* s.y / y.D y, q as scratch */
    q_s = dot(f, at->gradient, f->s[last % MEMORY]);
  }
  memcpy(q, at->gradient, f->n * sizeof *q);
  for (int i = last; i > last - count; i--) {
    const int k = i % MEMORY;
    alpha[k] = f->rho[k] * q_s;
    q_s = add_dot(f, q, f->y[k], -alpha[k], i - 1 > last - count ? f->s[(i - 1) % MEMORY] : NULL);
  }
  double q_y = scale(f, c, -factor, q, q, count ? f->y[(last - count + 1) % MEMORY] : q);
  for (int i = last - count + 1; i <= last; i++) {
    const int k = i % MEMORY;
    q_y = add_dot(f, q, f->s[k], -alpha[k] - f->rho[k] * q_y, i < last ? f->y[(i + 1) % MEMORY] : NULL);
  }
  return dot(f, q, at->gradient);
}

/* --- the line search --- */

static int try_step(fit *f, double t) {
  f->next.t = t;
  step(f, f->next.p, f->here.p, f->direction, t);
  if (evaluate(f, &f->next)) return -1;
  f->next.slope = dot(f, f->next.gradient, f->direction);
  return 0;
}

static void swap(point *a, point *b) {
  point c = *a;
  *a = *b, *b = c;
}

static double noise_of(const fit *f) { return NOISE * (f->total + fabs(f->here.f)); }

/* Where the cubic through both points has its minimum (Nocedal, Wright: 3.59), or, where their objectives differ by no more than noise, the
 * line through their slopes its zero; kept away from the ends; the middle where there is none. */
static double between(const point *a, mark b, double noise) {
  const double d1 = a->slope + b.slope - 3 * (a->f - b.f) / (a->t - b.t), square = d1 * d1 - a->slope * b.slope;
  const double low = fmin(a->t, b.t), width = fabs(b.t - a->t);
  double t = (a->t + b.t) / 2;
  if (fabs(a->f - b.f) <= noise) {
    if (a->slope * b.slope < 0) t = (a->t * b.slope - b.t * a->slope) / (b.slope - a->slope);
  } else if (square >= 0) {
    const double d2 = copysign(sqrt(square), b.t - a->t), found = b.t - (b.t - a->t) * (b.slope + d2 - d1) / (b.slope - a->slope + 2 * d2);
    if (isfinite(found)) t = found;
  }
  return fmin(fmax(t, low + 0.1 * width), low + 0.9 * width);
}

/* From `here` along the direction to a point `next` with the strong Wolfe conditions: 0; 1: there is none that lowers the objective; -1. */
static int search(fit *f, double slope) {
  const double slack = noise_of(f);
  point *low = &f->low, *now = &f->next;
  mark high = {0};
  int bracketed = 0;
  double t = 1;
  low->t = 0, low->f = f->here.f, low->slope = slope;
  for (int trial = 0; trial < TRIALS; trial++) {
    if (try_step(f, t)) return -1;
    if (now->f > f->here.f + ARMIJO * t * slope + slack || (low->t > 0 && now->f >= low->f + slack)) {
      high = (mark){now->f, t, now->slope};
      bracketed = 1;
    } else {
      if (fabs(now->slope) <= -CURVATURE * slope) return 0;
      if (bracketed ? now->slope * (high.t - low->t) >= 0 : now->slope >= 0) {
        high = (mark){low->f, low->t, low->slope};
        bracketed = 1;
      }
      swap(low, now);
    }
    if (bracketed && fabs(high.t - low->t) < 1e-10 * fmax(1, low->t)) break;
    t = bracketed ? between(low, high, slack) : 2 * t;
  }
  if (!(low->t > 0) || !(low->f < f->here.f)) return 1;
  swap(low, now); /* lower, if not as flat as wished */
  return 0;
}

/* --- L-BFGS --- */

/* The pair of the step from `here` to `next`. */
static void remember(fit *f) {
  const int k = f->pairs % MEMORY;
  OVER_SPANS(f, span_pair(f->s[k], f->y[k], &f->here, &f->next, begin, count));
  const double product = total_of(f);
  if (product > 0) {
    f->rho[k] = 1 / product;
    f->pairs++;
  } else { /* by rounding, or after a search that was given up; the oldest pair's place is taken, too */
    f->pairs = 0;
  }
}

static int minimise(fit *f, const sw_logistic_options *o, sw_logistic_result *r) {
  int flat = 0;
  if (evaluate(f, &f->here)) return -1;
  double least = r->gradient = largest_gradient(f, f->here.gradient);
  r->end = SW_LOGISTIC_CONVERGED;
  while (!(r->gradient <= o->tolerance)) {
    if (r->iterations == o->max_iterations) {
      r->end = SW_LOGISTIC_ITERATIONS;
      break;
    }
    double slope = find_direction(f, &f->here);
    int status = slope < 0 ? search(f, slope) : 1;
    if (status < 0) return -1;
    if (status && f->pairs) { /* what is remembered may mislead: once more without */
      f->pairs = 0;
      continue;
    }
    if (!status) {
      const double fall = f->here.f - f->next.f;
      remember(f);
      swap(&f->here, &f->next);
      r->gradient = largest_gradient(f, f->here.gradient);
      flat = fall > noise_of(f) || r->gradient < 0.9 * least ? 0 : flat + 1;
      least = fmin(least, r->gradient);
      r->iterations++;
      if (o->report) o->report(o->context, r->iterations, f->here.f, r->gradient);
    }
    if ((status || flat == FLAT) && r->gradient > o->tolerance) {
      r->end = SW_LOGISTIC_PRECISION;
      break;
    }
  }
  r->objective = f->here.f;
  r->evaluations = f->evaluations;
  return 0;
}

/* --- opening --- */

static int check(const sw_logistic_problem *q, double c) {
  if (q->rows < 1 || q->dim < 1 || q->classes < 2)
    return sw_fail("logistic regression: %lld rows of %d features in %d classes; at least two classes are needed", (long long)q->rows, q->dim, q->classes);
  if (((int64_t)q->dim + 1) * q->classes > MOST_PARAMETERS)
    return sw_fail("logistic regression: %d classes of %d features are too many", q->classes, q->dim);
  if (!(c > 0) || !isfinite(c)) return sw_fail("logistic regression: C must be a number above 0");
  for (int64_t i = 0; i < q->rows; i++)
    if (q->labels[i] < 0 || q->labels[i] >= q->classes)
      return sw_fail("logistic regression: row %lld has label %d; labels are 0 to %d", (long long)i, q->labels[i], q->classes - 1);
  for (int64_t i = 0; q->row_weights && i < q->rows; i++)
    if (!(q->row_weights[i] >= 0) || !isfinite(q->row_weights[i]))
      return sw_fail("logistic regression: row %lld has a weight that is no number from 0 on", (long long)i);
  return 0;
}

/* Sums over rows: a feature's mean and variance, a class's weight. */
static int measure(fit *f) {
  const sw_logistic_problem *q = f->problem;
  for (int64_t i = 0; i < q->rows; i++) {
    const double w = q->row_weights ? (double)q->row_weights[i] : 1;
    f->shares[q->labels[i]] += w;
    f->total += w;
    for (int d = 0; d < q->dim; d++) f->mean[d] += w * (double)q->features[i * q->dim + d];
  }
  for (int k = 0; k < q->classes; k++)
    if (!(f->shares[k] > 0)) return sw_fail("logistic regression: class %d has no row", k);
  for (int d = 0; d < q->dim; d++)
    if (!isfinite(f->mean[d] /= f->total)) return sw_fail("logistic regression: feature %d holds a value that is no finite number", d);
  for (int64_t i = 0; i < q->rows; i++)
    for (int d = 0; d < q->dim; d++) {
      const double w = q->row_weights ? (double)q->row_weights[i] : 1, away = (double)q->features[i * q->dim + d] - f->mean[d];
      f->variance[d] += w * away * away;
    }
  for (int d = 0; d < q->dim; d++) f->variance[d] /= f->total;
  return 0;
}

static int copy_rows(fit *f) {
  const sw_logistic_problem *q = f->problem;
  sw_device *device = f->stream.device;
  const int64_t most = q->rows < 4096 ? q->rows : 4096;
  float *centred = sw_alloc_array((size_t)most * (size_t)q->dim, sizeof *centred);
  int status = centred ? 0 : -1;
  for (int64_t from = 0; from < q->rows && !status; from += most) {
    const int64_t rows = q->rows - from < most ? q->rows - from : most;
    for (int64_t i = 0; i < rows; i++)
      for (int d = 0; d < q->dim; d++) centred[i * q->dim + d] = (float)((double)q->features[(from + i) * q->dim + d] - f->mean[d]);
    status = device->copy_in(&f->stream, f->x + from * q->dim, centred, (size_t)(rows * q->dim) * sizeof *centred);
  }
  free(centred);
  if (status || device->copy_in(&f->stream, f->labels, q->labels, (size_t)q->rows * sizeof *q->labels)) return -1;
  return q->row_weights ? device->copy_in(&f->stream, f->row_weights, q->row_weights, (size_t)q->rows * sizeof *q->row_weights) : 0;
}

static int open_device(fit *f) {
  const sw_logistic_problem *q = f->problem;
  sw_device *device = f->stream.device;
  const sw_linear_desc desc = shape_of(f, f->block);
  size_t prepared, workspace;
  if (SW_RUN(&f->stream, linear_weight_bytes, &desc, &prepared) || SW_RUN(&f->stream, linear_workspace, &desc, &workspace)) return -1;
  if (workspace < SW_SUM_WORKSPACE) workspace = SW_SUM_WORKSPACE;
  const size_t rows = (size_t)q->rows;
  return (f->x = device->alloc(device, rows * (size_t)q->dim * sizeof *f->x)) && (f->labels = device->alloc(device, rows * sizeof *f->labels)) &&
                 (!q->row_weights || (f->row_weights = device->alloc(device, rows * sizeof *f->row_weights))) &&
                 (f->parameters = device->alloc(device, f->n * sizeof *f->parameters)) &&
                 (f->gradient = device->alloc(device, f->n * sizeof *f->gradient)) &&
                 (f->logits = device->alloc(device, (size_t)f->block * (size_t)q->classes * sizeof *f->logits)) &&
                 (f->loss = device->alloc(device, sizeof *f->loss)) && (f->prepared = device->alloc(device, prepared)) &&
                 (f->workspace = device->alloc(device, workspace))
             ? 0
             : -1;
}

static int open_point(point *p, size_t n) {
  p->p = sw_alloc_array(n, sizeof *p->p);
  p->gradient = sw_alloc_array(n, sizeof *p->gradient);
  return p->p && p->gradient ? 0 : -1;
}

static int open_fit(fit *f, sw_stream *stream, const sw_logistic_problem *q, double c) {
  if (check(q, c)) return -1;
  f->problem = q;
  f->stream = *stream;
  f->lambda = 1 / c;
  f->weights = (size_t)q->classes * (size_t)q->dim;
  f->n = f->weights + (size_t)q->classes;
  f->block = LOGITS / ((int64_t)q->classes * (int64_t)sizeof(float)) / 64 * 64;
  if (f->block < 64) f->block = 64;
  if (f->block > q->rows) f->block = q->rows;
  f->mean = sw_alloc_array((size_t)q->dim, sizeof *f->mean);
  f->variance = sw_alloc_array((size_t)q->dim, sizeof *f->variance);
  f->shares = sw_alloc_array((size_t)q->classes, sizeof *f->shares);
  f->partial = sw_alloc_array(spans_of(f->n), sizeof *f->partial);
  if (!f->mean || !f->variance || !f->shares || !f->partial || open_point(&f->here, f->n)) return -1;
  return measure(f) || open_device(f) || copy_rows(f) ? -1 : 0;
}

static int open_search(fit *f) {
  f->direction = sw_alloc_array(f->n, sizeof *f->direction);
  if (!f->direction || open_point(&f->next, f->n) || open_point(&f->low, f->n)) return -1;
  for (int i = 0; i < MEMORY; i++)
    if (!(f->s[i] = sw_alloc_array(f->n, sizeof(float))) || !(f->y[i] = sw_alloc_array(f->n, sizeof(float)))) return -1;
  return 0;
}

static void close_fit(fit *f) {
  void *const device[] = {f->x, f->row_weights, f->parameters, f->gradient, f->logits, f->labels, f->loss, f->prepared, f->workspace};
  void *const host[] = {f->mean, f->variance, f->shares, f->partial, f->here.p, f->here.gradient, f->next.p, f->next.gradient, f->low.p,
                        f->low.gradient, f->direction};
  for (size_t i = 0; i < sizeof device / sizeof *device; i++)
    if (device[i]) f->stream.device->release(f->stream.device, device[i]);
  for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
  for (int i = 0; i < MEMORY; i++) {
    free(f->s[i]);
    free(f->y[i]);
  }
}

/* b of the uncentred features is b - W mean; `sign` 1 goes the other way. */
static void shift_bias(const fit *f, const float *weight, double sign, const float *from, float *to) {
  const int dim = f->problem->dim;
  for (int k = 0; k < f->problem->classes; k++) {
    double sum = 0;
    for (int d = 0; d < dim; d++) sum += (double)weight[(size_t)k * (size_t)dim + (size_t)d] * f->mean[d];
    to[k] = (float)((double)from[k] + sign * sum);
  }
}

int sw_logistic_fit(sw_stream *stream, const sw_logistic_problem *q, const sw_logistic_options *o, float *weight, float *bias,
                    sw_logistic_result *result) {
  fit f = {0};
  *result = (sw_logistic_result){0};
  int status = open_fit(&f, stream, q, o->c) || open_search(&f) ? -1 : 0;
  if (!status) {
    double mean = 0; /* only differences of b count */
    for (int k = 0; k < q->classes; k++) mean += log(f.shares[k]) / q->classes;
    for (int k = 0; k < q->classes; k++) f.here.p[f.weights + (size_t)k] = (float)(log(f.shares[k]) - mean);
    status = minimise(&f, o, result);
  }
  if (!status) {
    memcpy(weight, f.here.p, f.weights * sizeof *weight);
    shift_bias(&f, weight, -1, f.here.p + f.weights, bias);
  }
  close_fit(&f);
  return status;
}

int sw_logistic_objective(sw_stream *stream, const sw_logistic_problem *q, double c, const float *weight, const float *bias, double *objective,
                          float *d_weight, float *d_bias) {
  fit f = {0};
  int status = open_fit(&f, stream, q, c);
  if (!status) {
    memcpy(f.here.p, weight, f.weights * sizeof *weight);
    shift_bias(&f, weight, 1, bias, f.here.p + f.weights);
    status = evaluate(&f, &f.here);
  }
  if (!status) {
    const float *d_b = f.here.gradient + f.weights;
    *objective = f.here.f;
    for (size_t i = 0; d_weight && i < f.weights; i++) {
      const size_t k = i / (size_t)q->dim;
      d_weight[i] = (float)((double)f.here.gradient[i] + (double)d_b[k] * f.mean[i - k * (size_t)q->dim]);
    }
    if (d_bias) memcpy(d_bias, d_b, (size_t)q->classes * sizeof *d_bias);
  }
  close_fit(&f);
  return status;
}

int sw_logistic_logits(sw_stream *stream, int dim, int classes, const float *weight, const float *bias, const float *features, int64_t rows,
                       float *logits) {
  sw_device *device = stream->device;
  const sw_linear_desc desc = {.tokens = rows, .in_features = dim, .out_features = classes, .dtype = SW_F32, .out_dtype = SW_F32};
  const size_t weight_bytes = (size_t)classes * (size_t)dim * sizeof(float), bias_bytes = (size_t)classes * sizeof(float);
  const size_t x_bytes = (size_t)rows * (size_t)dim * sizeof(float), z_bytes = (size_t)rows * bias_bytes;
  size_t prepared_bytes, workspace_bytes;
  if (SW_RUN(stream, linear_weight_bytes, &desc, &prepared_bytes) || SW_RUN(stream, linear_workspace, &desc, &workspace_bytes)) return -1;
  const size_t sizes[] = {weight_bytes, bias_bytes, x_bytes, z_bytes, prepared_bytes, workspace_bytes};
  void *at[6] = {NULL};
  int status = 0;
  for (int i = 0; i < 6 && !status; i++) status = (at[i] = device->alloc(device, sizes[i] ? sizes[i] : 1)) ? 0 : -1;
  if (!status)
    status = device->copy_in(stream, at[0], weight, weight_bytes) || device->copy_in(stream, at[1], bias, bias_bytes) ||
                     device->copy_in(stream, at[2], features, x_bytes) || SW_RUN(stream, linear_prepare, &desc, at[0], at[4]) ||
                     SW_RUN(stream, linear_forward, &desc, at[2], at[4], at[1], NULL, at[3], at[5]) ||
                     device->copy_out(stream, logits, at[3], z_bytes) || device->synchronize(stream)
                 ? -1
                 : 0;
  for (int i = 0; i < 6; i++)
    if (at[i]) device->release(device, at[i]);
  return status;
}

const char *sw_logistic_end_name(sw_logistic_end end) {
  static const char *const names[] = {"converged", "iteration limit", "limit of fp32"};
  return names[end];
}
