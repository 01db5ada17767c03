/* Whether a share rises or falls over time: of n_w postings of week w, y_w name a skill.
 *
 * The model is logistic regression on time, y_w ~ Binomial(n_w, p_w), logit p_w = a + b t_w, fitted by maximum
 * likelihood (McCullagh and Nelder, "Generalized linear models", 2nd edition, 1989, chapter 4). Postings of one week are
 * no independent draws (one company posts many alike), so weeks may scatter more than the binomial says: the dispersion
 * phi is Pearson's X2 / (weeks - 2), and variances are phi times the binomial's where it is above 1 (quasi-binomial, the
 * same, 4.5); it is never taken below 1. The test of b = 0 is the likelihood ratio's: (deviance(b = 0) - deviance) / phi
 * against F(1, weeks - 2), whose long tails also stand for phi being an estimate. The interval of b are the values that
 * this test does not reject (profile likelihood): unlike Wald's it holds where a skill is in no or in all postings of
 * some weeks, and may then have no end on one side. */
#ifndef SW_LEARN_TREND_H
#define SW_LEARN_TREND_H
#include "engine/learn/significance.h"

/* Wilson's score interval of a share (Wilson, "Probable inference, the law of succession, and statistical inference",
 * 1927), of plain binomial draws. level: 0.95, say. total 0: 0 to 1. */
sw_interval sw_wilson(double count, double total, double level);

typedef struct {
  int weeks;          /* those with postings */
  double slope;       /* b, in log odds for 1 of t; +-INFINITY where it has no end: named in the last weeks only, say */
  sw_interval range;  /* of b; +-INFINITY where it has no end on that side */
  double p;           /* two-sided, of b = 0 */
  double dispersion;  /* Pearson's phi, as it is */
  double first, last; /* the fitted share at the first and the last of the weeks */
} sw_trend;
/* count, total, time: [n], 0 <= count <= total, in any order; entries whose total is 0 do not count. 1: a trend was fitted; 0: there is none to
 * fit: fewer than three times with postings, or a skill that no or every posting names. */
int sw_trend_fit(const double *count, const double *total, const double *time, int n, double level, sw_trend *out);

/* Two-sided tail P(|T| >= t) of Student's distribution with `freedom` > 0 degrees of freedom, by the continued fraction of the incomplete beta
 * function (Abramowitz and Stegun, 26.5.8); its square root's F(1, freedom) test has the same. */
double sw_student_tail(double t, double freedom);
/* The t whose two-sided tail is `tail`, 0 < tail < 1. */
double sw_student_quantile(double tail, double freedom);
/* The z whose two-sided normal tail is `tail`, 0 < tail < 1. */
double sw_normal_quantile(double tail);

/* False discovery rates: q[i] is the least rate at which test i counts among the discoveries (Benjamini and Hochberg, "Controlling the false
 * discovery rate", 1995, in its step-up form). p, q: [count]; may be the same array. -1: no memory. */
int sw_false_discovery(const double *p, size_t count, double *q);
#endif
