#include "engine/learn/trend.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>

/* --- distributions --- */

/* The continued fraction of the incomplete beta function's I_x(a, b), evaluated from the front (Lentz). */
static double beta_fraction(double x, double a, double b) {
  const double tiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (fabs(d) < tiny ? tiny : d);
  double value = d;
  for (int m = 1; m < 10000; m++) {
    double before = value;
    for (int half = 0; half < 2; half++) {
      const double term = half ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)) : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 + term * d;
      c = 1 + term / c;
      d = 1 / (fabs(d) < tiny ? tiny : d);
      if (fabs(c) < tiny) c = tiny;
      before = value;
      value *= d * c;
    }
    if (fabs(value - before) <= 1e-16 * fabs(value)) break;
  }
  return value;
}

double sw_student_tail(double t, double freedom) {
  /* I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2); where x is large the fraction converges from the other end */
  if (!(fabs(t) > 0)) return t == 0 ? 1 : NAN;
  if (isinf(t)) return 0;
  const double a = freedom / 2, x = freedom / (freedom + t * t), y = t * t / (freedom + t * t);
  const double front = exp(lgamma(a + 0.5) - lgamma(a) - lgamma(0.5) + a * log(x) + 0.5 * log(y));
  if (x < (a + 1) / (a + 2.5)) return front * beta_fraction(x, a, 0.5) / a;
  return 1 - front * beta_fraction(y, 0.5, a) / 0.5;
}

/* The x > 0 at which `tail`, which falls, is `wanted`. */
static double invert(double (*tail)(double, double), double wanted, double freedom) {
  double low = 0, high = 1;
  while (tail(high, freedom) > wanted && high < 1e300) high *= 2;
  for (int i = 0; i < 200 && low < high; i++) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    if (tail(middle, freedom) > wanted) low = middle;
    else high = middle;
  }
  return high;
}

static double normal_tail(double z, double unused) { return erfc(z / sqrt(2)); }

double sw_student_quantile(double tail, double freedom) { return invert(sw_student_tail, tail, freedom); }
double sw_normal_quantile(double tail) { return invert(normal_tail, tail, 0); }

sw_interval sw_wilson(double count, double total, double level) {
  if (!(total > 0)) return (sw_interval){0, 1};
  const double z = sw_normal_quantile(1 - level), share = count / total, scale = 1 / (1 + z * z / total);
  const double centre = scale * (share + z * z / (2 * total)), half = scale * z * sqrt(share * (1 - share) / total + z * z / (4 * total * total));
  return (sw_interval){count > 0 ? fmax(0, centre - half) : 0, count < total ? fmin(1, centre + half) : 1};
}

/* --- logistic regression on time --- */

typedef struct {
  const double *count, *total, *time;
  int n;
  double centre, span; /* times are taken as (time - centre) / span: within -1..1 */
  double named, postings;
} data;

/* A slope of so much along the span is as good as none that ends: shares of 1e-13. */
static const double STEEPEST = 60;

static double share_at(double odds) { return odds < 0 ? exp(odds) / (1 + exp(odds)) : 1 / (1 + exp(-odds)); }
static double time_at(const data *d, int i) { return (d->time[i] - d->centre) / d->span; }

/* The a that is likeliest for this b: where the fitted counts add up to those that were seen. Newton's method within bounds. */
static double level_for(const data *d, double b, double a) {
  double low = -STEEPEST - fabs(b) - 40, high = -low;
  for (int step = 0; step < 200; step++) {
    double fitted = 0, slope = 0;
    for (int i = 0; i < d->n; i++) {
      const double p = share_at(a + b * time_at(d, i));
      fitted += d->total[i] * p;
      slope += d->total[i] * p * (1 - p);
    }
    const double off = d->named - fitted;
    if (off > 0) low = a;
    else high = a;
    double next = slope > 0 ? a + off / slope : (low + high) / 2;
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (fabs(next - a) <= 1e-13 * (1 + fabs(a))) return next;
    a = next;
  }
  return a;
}

/* log(share) without going through a share of 0 */
static double log_share(double odds) { return odds < 0 ? odds - log1p(exp(odds)) : -log1p(exp(-odds)); }

static double likelihood(const data *d, double a, double b) {
  double sum = 0;
  for (int i = 0; i < d->n; i++) {
    const double odds = a + b * time_at(d, i);
    if (d->count[i] > 0) sum += d->count[i] * log_share(odds);
    if (d->count[i] < d->total[i]) sum += (d->total[i] - d->count[i]) * log_share(-odds);
  }
  return sum;
}

/* What the likelihood of b gains with b, and (*curve) how fast that falls; its `a` moves along. */
static double gain(const data *d, double b, double *a, double *curve) {
  double score = 0, weights = 0, first = 0, second = 0;
  *a = level_for(d, b, *a);
  for (int i = 0; i < d->n; i++) {
    const double t = time_at(d, i), p = share_at(*a + b * t), w = d->total[i] * p * (1 - p);
    score += t * (d->count[i] - d->total[i] * p);
    weights += w, first += w * t, second += w * t * t;
  }
  *curve = weights > 0 ? second - first * first / weights : 0;
  return score;
}

/* The likeliest b, by Newton's method within bounds. */
static double likeliest(const data *d, double *a) {
  double low = -STEEPEST, high = STEEPEST, b = 0;
  for (int step = 0; step < 200; step++) {
    double curve;
    const double score = gain(d, b, a, &curve);
    if (score > 0) low = b;
    else high = b;
    double next = curve > 0 ? b + score / curve : (low + high) / 2;
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (fabs(next - b) <= 1e-12 * (1 + fabs(b))) return next;
    b = next;
  }
  return b;
}

/* From `inside` towards `outside` the b whose likelihood is `least`, or an infinity of that sign where it is not reached. */
static double edge(const data *d, double inside, double outside, double least, double a) {
  a = level_for(d, outside, a);
  if (likelihood(d, a, outside) >= least) return outside > inside ? INFINITY : -INFINITY;
  for (int step = 0; step < 60 && fabs(outside - inside) > 1e-12 * (1 + fabs(inside)); step++) {
    const double middle = (inside + outside) / 2;
    a = level_for(d, middle, a);
    if (likelihood(d, a, middle) >= least) inside = middle;
    else outside = middle;
  }
  return (inside + outside) / 2;
}

/* 0 where there is nothing to fit. */
static int prepare(const double *count, const double *total, const double *time, int n, data *d, int *weeks) {
  double first = INFINITY, last = -INFINITY;
  *d = (data){count, total, time, n, 0, 0, 0, 0};
  *weeks = 0;
  for (int i = 0; i < n; i++) {
    if (!(total[i] > 0)) continue;
    ++*weeks;
    d->named += count[i], d->postings += total[i];
    first = fmin(first, time[i]), last = fmax(last, time[i]);
  }
  d->centre = (first + last) / 2, d->span = (last - first) / 2;
  return *weeks >= 3 && last > first && d->named > 0 && d->named < d->postings;
}

int sw_trend_fit(const double *count, const double *total, const double *time, int n, sw_trend *out) {
  data d;
  *out = (sw_trend){0};
  if (!prepare(count, total, time, n, &d, &out->weeks)) return 0;
  const double flat = log(d.named / (d.postings - d.named));
  double a = flat, b = likeliest(&d, &a), best = likelihood(&d, a, b);
  const double steepest = copysign(STEEPEST, b), a_there = level_for(&d, steepest, a);
  const int endless = likelihood(&d, a_there, steepest) >= best - 1e-9; /* it only gets likelier: weeks before or after some day have none, or all */
  if (endless) a = a_there, b = steepest, best = likelihood(&d, a, b);
  double pearson = 0, before = 0;
  for (int i = 0; i < n; i++) {
    if (!(total[i] > 0)) continue;
    const double p = share_at(a + b * time_at(&d, i)), variance = total[i] * p * (1 - p), residual = variance > 0 ? (count[i] - total[i] * p) / sqrt(variance) : 0;
    pearson += residual * residual;
    out->lagged += before * residual;
    before = residual;
  }
  out->slope = endless ? copysign(INFINITY, b) : b / d.span;
  out->ratio = fmax(0, 2 * (best - likelihood(&d, flat, 0)));
  out->dispersion = pearson / (out->weeks - 2);
  out->first = share_at(a - b), out->last = share_at(a + b);
  return 1;
}

void sw_trend_test(const double *count, const double *total, const double *time, int n, sw_dispersion_prior prior, double level, sw_trend *trend) {
  data d;
  int weeks;
  if (!prepare(count, total, time, n, &d, &weeks)) return;
  const double own = weeks - 2, freedom = own + prior.freedom, phi = fmax(1, (prior.freedom * prior.dispersion + own * trend->dispersion) / freedom) * fmax(1, prior.serial);
  const double t = sw_student_quantile(1 - level, freedom), b = isinf(trend->slope) ? copysign(STEEPEST, trend->slope) : trend->slope * d.span, a = level_for(&d, b, 0);
  const double least = likelihood(&d, a, b) - phi * t * t / 2;
  trend->p = sw_student_tail(sqrt(trend->ratio / phi), freedom);
  trend->range.low = (isinf(trend->slope) && b < 0 ? -INFINITY : edge(&d, b, -STEEPEST, least, a)) / d.span;
  trend->range.high = (isinf(trend->slope) && b > 0 ? INFINITY : edge(&d, b, STEEPEST, least, a)) / d.span;
}

/* --- what dispersions have in common --- */

/* Of the digamma (order 0) and trigamma (1) function of x > 0: recurrence to where the asymptotic series holds (Abramowitz and Stegun, 6.3.18 and 6.4.12). */
static double polygamma(int order, double x) {
  double sum = 0;
  for (; x < 20; x++) sum += order ? 1 / (x * x) : -1 / x;
  const double y = 1 / (x * x);
  if (order) return sum + 1 / x + y / 2 + y / x * (1.0 / 6 - y * (1.0 / 30 - y * (1.0 / 42 - y / 30)));
  return sum + log(x) - 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y / 240)));
}

static double trigamma(double x, double unused) { return polygamma(1, x); }

sw_dispersion_prior sw_trend_prior(const double *dispersions, size_t count, double freedom) {
  enum { FEWEST = 10, MOST_WEIGHT = 4 };
  if (count < FEWEST) return (sw_dispersion_prior){0, 1, 1};
  double mean = 0, spread = 0;
  const double half = freedom / 2, shift = polygamma(0, half) - log(half), least = 1e-5; /* a perfect fit has no logarithm */
  for (size_t i = 0; i < count; i++) mean += (log(fmax(dispersions[i], least)) - shift) / (double)count;
  for (size_t i = 0; i < count; i++) {
    const double off = log(fmax(dispersions[i], least)) - shift - mean;
    spread += off * off / (double)(count - 1);
  }
  const double more = spread - polygamma(1, half); /* than chance alone makes */
  const double own = more > 0 ? 2 * invert(trigamma, more, 0) : INFINITY;
  const double common = isinf(own) ? exp(mean) : exp(mean + polygamma(0, own / 2) - log(own / 2));
  return (sw_dispersion_prior){fmin(own, MOST_WEIGHT * freedom), common, 1};
}

/* --- weeks that follow each other --- */

/* Pearson's residuals have the covariance C = I + v A, A_ij = s_i s_j q^|t_i - t_j| with s_i^2 the week's postings over their mean, before the fit,
 * and H C H after it, where H takes away the two orthonormal columns u of the regression. */
typedef struct {
  int n;
  double *scale, *time, *u[2], *au[2]; /* [n] each; au: A u */
} serial;

typedef struct {
  double trace, lagged, slope; /* of H C H, of its first off-diagonal, and the variance of the slope, u[1]' C u[1] */
} moments;

/* A u by recursion from either end: a sum over pairs in linear time. */
static void multiply(const serial *s, double q, const double *u, double *out) {
  double sum = 0;
  for (int i = 0; i < s->n; i++) {
    if (i) sum = (sum + s->scale[i - 1] * u[i - 1]) * pow(q, s->time[i] - s->time[i - 1]);
    out[i] = s->scale[i] * (s->scale[i] * u[i] + sum);
  }
  sum = 0;
  for (int i = s->n - 2; i >= 0; i--) {
    sum = (sum + s->scale[i + 1] * u[i + 1]) * pow(q, s->time[i + 1] - s->time[i]);
    out[i] += s->scale[i] * sum;
  }
}

/* For C = A. */
static moments moments_at(const serial *s, double q) {
  double g[2][2] = {{0}};
  moments out = {0, 0, 0};
  for (int k = 0; k < 2; k++) multiply(s, q, s->u[k], s->au[k]);
  for (int i = 0; i < s->n; i++) {
    out.trace += s->scale[i] * s->scale[i];
    for (int k = 0; k < 2; k++)
      for (int l = 0; l < 2; l++) g[k][l] += s->u[k][i] * s->au[l][i];
  }
  out.trace -= g[0][0] + g[1][1], out.slope = g[1][1];
  for (int i = 0; i + 1 < s->n; i++) {
    out.lagged += s->scale[i] * s->scale[i + 1] * pow(q, s->time[i + 1] - s->time[i]);
    for (int k = 0; k < 2; k++) {
      out.lagged -= s->u[k][i] * s->au[k][i + 1] + s->au[k][i] * s->u[k][i + 1];
      for (int l = 0; l < 2; l++) out.lagged += s->u[k][i] * g[k][l] * s->u[l][i + 1];
    }
  }
  return out;
}

int sw_trend_serial_find(double dispersions, double lagged, size_t skills, const double *total, const double *time, int n, sw_trend_serial *out) {
  enum { DRAWN = 10 };
  *out = (sw_trend_serial){0, 1};
  double *memory = sw_alloc_array(6 * (size_t)n + 1, sizeof *memory), postings = 0, middle = 0, norms[2] = {0};
  if (!memory) return -1;
  serial s = {0, memory, memory + n, {memory + 2 * n, memory + 3 * n}, {memory + 4 * n, memory + 5 * n}};
  for (int i = 0; i < n; i++)
    if (total[i] > 0) postings += total[i], middle += total[i] * time[i], s.time[s.n] = time[i], s.scale[s.n++] = sqrt(total[i]);
  const double freedom = s.n - 2, phi = skills ? dispersions / (double)skills : 0;
  if (freedom >= 2 && phi > 1) {
    for (int i = 0; i < s.n; i++) {
      s.scale[i] /= sqrt(postings / s.n);
      s.u[0][i] = s.scale[i], s.u[1][i] = s.scale[i] * (s.time[i] - middle / postings);
      for (int k = 0; k < 2; k++) norms[k] += s.u[k][i] * s.u[k][i];
    }
    for (int i = 0; i < s.n; i++)
      for (int k = 0; k < 2; k++) s.u[k][i] /= sqrt(norms[k]);
    double independent = 0; /* lagged, for C = I */
    for (int i = 0; i + 1 < s.n; i++) independent -= s.u[0][i] * s.u[0][i + 1] + s.u[1][i] * s.u[1][i + 1];
    const double seen = lagged / (dispersions * freedom), weight = (double)skills * freedom / ((double)skills * freedom + DRAWN);
    double wanted = seen;
    for (int step = 0; step <= 95; step++) {
      const double q = step / 100.0;
      const moments m = moments_at(&s, q);
      const double v = (phi - 1) * freedom / m.trace, expected = (independent + v * m.lagged) / (freedom + v * m.trace);
      if (!step) wanted = expected + weight * (seen - expected);
      else if (expected > wanted) break;
      out->correlation = q;
      out->inflation = fmax(1, (1 + v * m.slope) / (1 + v * m.trace / freedom));
    }
  }
  free(memory);
  return 0;
}

/* --- many tests --- */

typedef struct {
  double p;
  size_t at;
} ranked;

static int by_p(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  return x->p != y->p ? (x->p > y->p) - (x->p < y->p) : (x->at > y->at) - (x->at < y->at);
}

int sw_false_discovery(const double *p, size_t count, double *q) {
  ranked *order = sw_alloc_array(count, sizeof *order);
  if (!order) return -1;
  for (size_t i = 0; i < count; i++) order[i] = (ranked){p[i], i};
  if (count) qsort(order, count, sizeof *order, by_p);
  double least = 1;
  for (size_t i = count; i-- > 0;) {
    least = fmin(least, order[i].p * (double)count / (double)(i + 1));
    q[order[i].at] = least;
  }
  free(order);
  return 0;
}
