/* Entity scores identical to seqeval's (default mode, IOB2 read leniently as conlleval does), and tag accuracy. */
#ifndef SW_LEARN_METRICS_H
#define SW_LEARN_METRICS_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint64_t true_positive, predicted, gold;
} sw_entity_counts;
typedef struct {
  double precision, recall, f1;
  uint64_t support;
} sw_entity_score;

/* Counts of one layer; `labels` as in sw_layer ("O","B","I" or "B-<type>"), in any order. */
typedef struct {
  size_t num_types;
  char **types;               /* owned, sorted by name; "" for the nameless type (seqeval's "_") */
  sw_entity_counts *counts;   /* one a type */
  uint64_t tags_right, tags;  /* accuracy */
  int32_t *type_of, *is_begin; /* per label id */
  size_t num_labels;
} sw_entity_metrics;

int sw_entity_metrics_open(char *const *labels, size_t num_labels, sw_entity_metrics *out);
void sw_entity_metrics_close(sw_entity_metrics *metrics);
/* One sentence; positions whose gold tag is SW_IGNORE (labels.h) are left out of both. Fails on a tag that is no label. */
int sw_entity_metrics_add(sw_entity_metrics *metrics, const int32_t *gold, const int32_t *predicted, size_t count);
sw_entity_score sw_entity_score_of(sw_entity_counts counts);
/* Averages over `count` types. Division by zero gives 0, as in seqeval. Macro: the unweighted mean over the types that occur, in gold or
 * predicted; 0 where none does. Its support, as that of micro, is the number of gold entities. */
sw_entity_score sw_entity_micro(const sw_entity_counts *counts, size_t count);
sw_entity_score sw_entity_macro(const sw_entity_counts *counts, size_t count);
/* {"micro": {...}, "macro": {...}, "accuracy": x, "labels": {type: {...}}}; new reference, NULL on failure. */
json_t *sw_entity_metrics_json(const sw_entity_metrics *metrics);
#endif
