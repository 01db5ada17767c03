/* Rows with one label each, as train classify reads them, and how well labels are ranked. */
#ifndef SW_TRAIN_LABELLED_H
#define SW_TRAIN_LABELLED_H
#include "base/table.h"
#include "engine/data/postings.h"
#include "engine/learn/group.h"
#include "engine/learn/ranking.h"

#include <jansson.h>

/* Zero-initialise, with row_bytes. `names` are the distinct labels in the order they came, by name after sw_labelled_sort; labels [rows] count in it. */
typedef struct {
  size_t rows, capacity;
  size_t row_bytes;
  char *values; /* [rows][row_bytes] what is learned from: a vector, or a text's number */
  int32_t *labels;
  sw_table names;
  json_t *files;  /* the manifest */
} sw_labelled;

void sw_labelled_close(sw_labelled *set);
int sw_labelled_add(sw_labelled *set, const char *label, const void *value);
static inline void *sw_labelled_value(const sw_labelled *set, size_t row) { return set->values + row * set->row_bytes; }
/* Reads a file: `take` adds the rows of its postings, which have labels. Unusable rows go to `rejected` (NULL: nowhere), and are told of on standard
 * error unless quiet. The manifest gets an entry, *entry (may be NULL; borrowed). Fails where no row can be used. */
int sw_labelled_read(sw_labelled *set, const char *path, const sw_postings_options *reading, const char *rejected, int quiet,
                     int (*take)(void *context, sw_postings *postings, sw_labelled *set), void *context, json_t **entry);
/* Classes are numbered by name, whatever the order of the rows. */
int sw_labelled_sort(sw_labelled *set);
/* Rows of dev whose class `train` has, numbered as there; returns how many were dropped. */
size_t sw_labelled_adopt(const sw_labelled *train, sw_labelled *dev);
/* Moves a random part of the rows from train to dev; every class keeps one. */
int sw_labelled_hold_out(sw_labelled *train, sw_labelled *dev, double part, int seed);

typedef struct {
  const sw_labelled *set; /* borrowed */
  size_t classes;
  int num_cuts;
  uint32_t cuts[5];
  double *found; /* [rows][2]: the label's rank, and the best class */
} sw_class_scores;
/* accuracy at 1, 3, 5, 10 and k */
int sw_class_scores_open(sw_class_scores *scores, const sw_labelled *set, size_t classes, int k);
void sw_class_scores_close(sw_class_scores *scores);
/* values [classes] of a row: the larger, the more probable. */
void sw_class_scores_add(sw_class_scores *scores, size_t row, const float *values);
/* Of rows that another process has added; rows are each added by one of them. */
int sw_class_scores_share(sw_class_scores *scores, sw_group *group);
/* After all rows: accuracy@<k>, mrr, macro_f1 and rows become members of `metrics`; `line` (200 bytes) says them for people. */
int sw_class_scores_json(sw_class_scores *scores, json_t *metrics, char *line);
#endif
