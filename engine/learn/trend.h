/* Whether a share rises or falls over time: of n_w postings of week w, y_w name a skill.
 *
 * The model is logistic regression on time, y_w ~ Binomial(n_w, p_w), logit p_w = a + b t_w, fitted by maximum
 * likelihood (McCullagh and Nelder, "Generalized linear models", 2nd edition, 1989, chapter 4). Postings of one week are
 * no independent draws (one company posts many alike), so weeks may scatter more than the binomial says: the dispersion
 * phi is Pearson's X2 / d with d = weeks - 2, and variances are phi times the binomial's (quasi-binomial, the same, 4.5).
 * A few weeks say little about one skill's phi, all skills together much: as in the testing of genes, phi is drawn
 * towards what they have in common, (d0 s0 + d phi) / (d0 + d), where d0 and s0 come from the spread of the skills' log
 * phi (Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
 * experiments", 2004, section 6; for quasi-likelihood: Lund, Nettleton, McCarthy and Smyth, 2012). What is used is never
 * below 1. Weeks that follow each other are alike, too, and would look like a trend: what scatters more than the binomial
 * is taken as a latent autoregression of order 1 (Zeger, "A regression model for time series of counts", 1988), whose
 * correlation all skills share; phi is multiplied by what it adds to the variance of b. A random walk's drift over a few
 * weeks is no different from a trend. The test of b = 0 is the likelihood ratio's: (deviance(b = 0) - deviance) / phi against F(1, d0 + d). The
 * interval of b are the values that this test does not reject (profile likelihood): unlike Wald's it holds where a skill
 * is in no or in all postings of some weeks, and may then have no end on one side. */
#ifndef SW_LEARN_TREND_H
#define SW_LEARN_TREND_H
#include "engine/learn/significance.h"

/* Wilson's score interval of a share (Wilson, "Probable inference, the law of succession, and statistical inference",
 * 1927), of plain binomial draws. level: 0.95, say. total 0: 0 to 1. */
sw_interval sw_wilson(double count, double total, double level);

typedef struct {
  int weeks;          /* those with postings */
  double slope;       /* b, in log odds for 1 of t; +-INFINITY where it has no end: named in the last weeks only, say */
  double ratio;       /* deviance(b = 0) - deviance */
  double dispersion;  /* Pearson's phi of this skill, as it is */
  double lagged;      /* sum of the products of Pearson's residuals of weeks that follow each other (as the entries do) */
  double first, last; /* the fitted share at the first and the last of the weeks */
  /* set by sw_trend_test */
  double p;           /* two-sided, of b = 0 */
  sw_interval range;  /* of b; +-INFINITY where it has no end on that side */
} sw_trend;
/* count, total, time: [n], 0 <= count <= total, in any order; entries whose total is 0 do not count. 1: a trend was fitted; 0: there is none to
 * fit: fewer than three times with postings, or a skill that no or every posting names. */
int sw_trend_fit(const double *count, const double *total, const double *time, int n, sw_trend *out);

/* What many skills' dispersions over the same weeks have in common. */
typedef struct {
  double freedom;    /* d0; 0: nothing is known */
  double dispersion; /* s0 */
  double serial;     /* times phi, for weeks that are alike; below 1 counts as 1 */
} sw_dispersion_prior;
/* dispersions: [count], each of `freedom` = weeks - 2; from skills with too few postings the spread would be no chi-square's, so give those that are named
 * once a week or more. Fewer than ten say nothing. d0 is at most four times `freedom`: a skill of its own kind is to stay one. */
sw_dispersion_prior sw_trend_prior(const double *dispersions, size_t count, double freedom);
typedef struct {
  double correlation; /* from a week to the next, of what scatters more than the binomial: 0..0.95 */
  double inflation;   /* of the variance of b against independent weeks of the same phi: 1 or more */
} sw_trend_serial;
/* From the sums of many skills' dispersions and `lagged`, fitted to the same weeks total, time: [n], in the order of time. The residuals' lag-1
 * correlation is compared with what each latent correlation makes of it after a line was fitted, which takes most of a slow wave away. It is drawn
 * to none as if 10 independent residuals had been seen, too. -1: no memory. */
int sw_trend_serial_find(double dispersions, double lagged, size_t skills, const double *total, const double *time, int n, sw_trend_serial *out);
/* Sets p and range of what sw_trend_fit made of the same data. */
void sw_trend_test(const double *count, const double *total, const double *time, int n, sw_dispersion_prior prior, double level, sw_trend *trend);

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
