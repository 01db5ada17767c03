/* What the two ways of train classify share. */
#ifndef SW_TRAIN_CLASSIFY_H
#define SW_TRAIN_CLASSIFY_H
#include "train/labelled.h"
#include "train/setup.h"

#define SW_CLASSIFY_HEAD "label"

typedef struct {
  sw_setup_options setup;
  const char *column, *label, *prefix, *method;
  sw_list data, dev;
  double holdout;
  int k, json;
  /* logistic */
  const char *vectors, *dev_vectors;
  double c, tolerance;
  int max_iterations;
  /* fine-tune */
  sw_list replay, test;
  char *replay_files[SW_MAX_REPLAYS];
  double parts[SW_MAX_REPLAYS];
} sw_classify_options;

/* Whether `output` is one of the inputs. */
int sw_classify_check_output(const void *options, const char *output);
void sw_classify_print_metrics(const sw_checkpoint *checkpoint);

/* The encoder and a head on its pooled vectors trained together (classify_tune.c). Returns an exit status, its message printed. */
int sw_classify_tune(sw_classify_options *o);
#endif
