/* Whether a difference between systems on the same test data is more than luck. */
#ifndef SW_LEARN_SIGNIFICANCE_H
#define SW_LEARN_SIGNIFICANCE_H
#include <stddef.h>
#include <stdint.h>

/* The bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979) over test examples: as many of them
 * as there are, drawn with replacement, again and again. It is paired (Koehn, "Statistical significance tests for
 * machine translation evaluation", 2004) where a row holds the counts of all systems, so that all meet the same
 * examples in a resample. counts: [examples][columns], each below 2^23; examples: 1 to 2^32 - 1. sums:
 * [resamples][columns], the column sums of each resample's rows. Draw i of resample b is the i-th
 * sw_random_below(examples) of the stream `stream` + b (base/philox.h): the same for any number of threads. */
int sw_bootstrap_sums(const uint32_t *counts, size_t examples, size_t columns, size_t resamples, uint64_t seed,
                      uint64_t stream, int threads, uint64_t *sums);

typedef struct {
  double low, high;
} sw_interval;
/* The value below which a share q of the sorted values lies, interpolated linearly (Hyndman and Fan's definition 7,
 * numpy's default). */
double sw_quantile(const double *sorted, size_t count, double q);
/* The percentile interval (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13) that holds
 * `level` of the resampled values, as much outside on either side. Sorts them. */
sw_interval sw_bootstrap_interval(double *values, size_t count, double level);
/* Two-sided p-value of "the difference is 0", by inverting that interval: twice the smaller of the shares of resampled
 * differences <= 0 and >= 0, each with one more added to both its counts, so that it is never 0; at most 1. */
double sw_bootstrap_p(const double *differences, size_t count);

/* McNemar's test (McNemar, "Note on the sampling error of the difference between correlated proportions or
 * percentages", 1947) in its exact form: of the cases that just one of two systems gets right, how likely is a split at
 * least as uneven as this where either is equally likely? The two-sided binomial p-value, 1 where there is no such
 * case. Counts of any size. */
double sw_mcnemar(uint64_t only_first, uint64_t only_second);
#endif
