/* Scores of a multilabel classifier: each label by itself, and over all. As scikit-learn's accuracy_score of each column, f1_score with
 * average="micro" and "macro", zero_division=0. */
#ifndef SW_LEARN_LABEL_SCORES_H
#define SW_LEARN_LABEL_SCORES_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
  uint64_t true_positive, false_positive, false_negative, true_negative;
} sw_label_counts;

typedef struct {
  double median_accuracy, mean_accuracy; /* over the labels */
  double micro_precision, micro_recall, micro_f1, macro_f1;
} sw_label_scores;

/* 1 / (1 + exp(-logit)) */
float sw_label_probability(float logit);

/* targets [rows][labels] 0 or 1; probabilities the same shape: at or above the label's threshold it is predicted. counts [labels] */
void sw_label_count(const uint8_t *targets, const float *probabilities, const float *thresholds, size_t rows, size_t labels,
                    sw_label_counts *counts);
/* Fails for want of memory. */
int sw_label_scores_of(const sw_label_counts *counts, size_t labels, sw_label_scores *out);
/* {"median_accuracy", "mean_accuracy", "micro": {"precision", "recall", "f1"}, "macro": {"f1"}, "rows", "per_label": {name: {"accuracy",
 * "precision", "recall", "f1", "support", "threshold"}}}; new reference, NULL on failure. */
json_t *sw_label_scores_json(const sw_label_scores *scores, const sw_label_counts *counts, char *const *names, const float *thresholds,
                             size_t labels);
/* The metrics above as a table for people: a label a line, the least accurate first. */
int sw_label_scores_print(const json_t *metrics, FILE *to);

/* For each label the threshold with the largest F1 over the rows: between two neighbouring probabilities, the nearest to 0.5 of equally good ones;
 * 0.5 for a label that no row has. */
int sw_label_thresholds(const uint8_t *targets, const float *probabilities, size_t rows, size_t labels, float *thresholds);
#endif
