/* Labels of whole texts: the jobs that the command line and the server share. */
#ifndef SW_INFER_LABELS_H
#define SW_INFER_LABELS_H
#include "infer/corpus.h"

/* infer classify: the most probable of a head's labels. */
typedef struct {
  sw_embedder embedder;      /* first: the pipeline's */
  sw_infer_session *session; /* borrowed */
  int csv, k;
  const sw_model_head *head; /* whose labels they are; NULL: those of occupations, */
  sw_corpus occupations;     /* by the cosine of vectors */
  sw_finder finder;
  sw_buffer record;
} sw_classify_job;
/* The head of the session's model, with the prefix that it was trained with unless another is given (NULL). Lowers k to the number of labels. */
int sw_classify_open_head(sw_classify_job *job, const char *prefix);
/* The pipeline's steps, for a job with a head: a text's result is k labels, the most probable first, as numbers, then their log-probabilities. */
extern const sw_pipeline_job sw_classify_steps;

/* infer multilabel: each label by itself. */
typedef struct {
  sw_embedder embedder; /* of an encoder; a GRU reads stems */
  sw_infer_session *session; /* borrowed */
  int csv, all;
  size_t head;
  const sw_model_head *labels;
  float *thresholds; /* a label each; owned: free() */
} sw_label_job;
/* The labels of the session's model; threshold < 0: the model's own. */
int sw_label_open_head(sw_label_job *job, double threshold);
/* The pipeline's steps: a text's result is the probability of each label. */
extern const sw_pipeline_job sw_label_steps;
#endif
