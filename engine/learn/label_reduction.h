/* Labels that say the same, merged. Two labels are two columns of 0 and 1 over the same rows; with n = rows, a and b = those with the one and with
 * the other label, ab = those with both:
 *
 *   pearson    (n ab - a b) / sqrt(a (n - a) b (n - b)), which is Pearson's correlation of the columns (Pearson 1895), also known as phi
 *   spearman   Pearson's correlation of the ranks, rows that are equal having the mean of their ranks (Spearman 1904)
 *   cramer     Cramer's V, sqrt(chi^2 / n) with Pearson's chi^2 of the 2 x 2 table without Yates' correction (Cramer 1946, section 21.9)
 *
 * The ranks of a column of two values are a linear map of it, and chi^2 / n is phi^2: for such columns spearman is pearson, and V its magnitude.
 * A column that is all 0 or all 1 has no correlation and is merged with none. A pair whose correlation is negative is reported and never merged,
 * because the or of labels that exclude each other says something else than either. */
#ifndef SW_LEARN_LABEL_REDUCTION_H
#define SW_LEARN_LABEL_REDUCTION_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { SW_PEARSON, SW_SPEARMAN, SW_CRAMER } sw_association;

/* "pearson:0.9"; the threshold above 0 and at most 1. */
int sw_association_parse(const char *text, sw_association *kind, double *threshold);
/* counts: rows with neither label, the second only, the first only, both. NaN where a column is constant. */
double sw_association_of(sw_association kind, const uint64_t counts[4]);

typedef struct {
  size_t a, b; /* labels, a < b */
  double value;
  int merged;
} sw_label_pair;

typedef struct {
  sw_association kind;
  double threshold;
  size_t num_labels, num_groups;
  size_t *group;          /* [num_labels] what each becomes; groups are in the order of their first labels */
  size_t *representative; /* [num_groups] its most frequent label, the first of equals */
  uint64_t *frequency;    /* [num_labels] rows that have it */
  size_t num_pairs;
  sw_label_pair *pairs;   /* all with |value| >= threshold, by a, then b */
} sw_label_reduction;

/* Joins the labels of all pairs at or above the threshold, and so what they have in common, over the rows listed. targets [..][num_labels]: 0 or 1. */
int sw_label_reduction_make(sw_association kind, double threshold, const uint8_t *targets, size_t num_labels, const uint32_t *rows, size_t num_rows,
                            sw_label_reduction *out);
void sw_label_reduction_close(sw_label_reduction *reduction);
/* to [num_rows][num_groups]: a group is there where any of its labels is. from [num_rows][num_labels] */
void sw_label_reduction_apply(const sw_label_reduction *reduction, const uint8_t *from, size_t num_rows, uint8_t *to);
/* {"method", "threshold", "labels_before", "labels_after", "groups": [{"label", "merged": [...], "rows"}] of two and more, "pairs": [{"a", "b",
 * "value", "merged", "reason"}]}; new reference, NULL on failure. */
json_t *sw_label_reduction_json(const sw_label_reduction *reduction, char *const *labels);
#endif
