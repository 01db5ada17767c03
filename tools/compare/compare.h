/* Inside of skillwatch compare: what is compared, and what came out. measure.c fills it, the others show it. */
#ifndef SW_COMPARE_H
#define SW_COMPARE_H
#include "base/buffer.h"
#include "base/options.h"
#include "engine/learn/calibration.h"
#include "engine/learn/evaluate.h"
#include "engine/learn/significance.h"
#include "engine/learn/viterbi.h"

#include <stdio.h>

enum { MAX_SIDES = 8 };
#define COMPARE_LEVEL 0.95 /* of all intervals */

typedef struct {
  const char *output, *picture, *disagreements_out, *rejected, *device, *dtype, *decode;
  sw_list data, metrics;
  double margin;
  int json, gate, confident, resamples, seed, disagreements, speed, repeats, threads, batch_tokens, quiet;
} compare_options;

/* One checkpoint. */
typedef struct {
  const char *path;
  char name[2]; /* "A" */
  sw_checkpoint checkpoint;
  sw_tokenizer *tokenizer;
  sw_model *model;
  sw_run *run;
  int64_t batch_tokens;
  uint64_t parameters, bytes; /* bytes: on disk */
  sw_labels
      labels; /* the compared layers of the gold labels, tags numbered as its heads are; text and words are borrowed */
  int32_t *tags;           /* what the labels' examples point to */
  sw_viterbi_rules *rules; /* [layers] */
  sw_eval_set *set;
  sw_eval_words words;
  double tokens_per_second, latency_median, latency_high; /* milliseconds: median and 95th percentile */
  double cosine_mean, cosine_low, cka;                    /* to the first; cosines are NAN where hidden sizes differ */
} compare_side;

/* What is scored: one label, or an average over labels. */
typedef enum { LABEL, MICRO, MACRO } measure_kind;
typedef struct {
  measure_kind kind;
  int layer;                /* -1: all layers */
  size_t first_type, types; /* among those of all layers, one after the other */
  const char *name;         /* of the label, "micro" or "macro" */
} compare_measure;

typedef struct {
  sw_entity_score score;
  sw_interval interval; /* of F1 */
  double difference;    /* of F1, to the first checkpoint's */
  sw_interval difference_interval;
  double p;
} compare_result;

/* Labelled words, one by one. */
typedef struct {
  uint64_t words, right;
  uint64_t only_this, only_first; /* right here and wrong in the first checkpoint; the other way round */
  uint64_t predicted;             /* words with a probability */
  double loss;                    /* mean negative log likelihood of the gold tag */
  sw_calibration calibration;
  double p; /* McNemar's */
} compare_words;

/* A data file, or all of them. */
typedef struct {
  const char *name;
  size_t first, end;       /* examples */
  compare_result *results; /* [sides][measures] */
  compare_words *words;    /* [sides][layers + 1], the last of them for all layers */
} compare_section;

/* An example where a checkpoint finds other spans than the first. */
typedef struct {
  uint32_t example, side;
  int64_t gain;    /* errors of the first less its own; an error is a span too many or one that is missed */
  double sureness; /* of the words that they tag differently: the products of their probabilities, added up */
} compare_disagreement;

typedef struct {
  const compare_options *options;
  sw_device *device;
  sw_stream stream;
  size_t num_sides;
  compare_side sides[MAX_SIDES];
  sw_labels gold;
  size_t *first_word; /* [examples]: place of the example's first word among all words */
  sw_buffer left_out; /* "skill (not in B), tools (no labels in the data)" */
  int nothing_shared; /* the checkpoints have no layer in common */
  char *missing;      /* the baseline's layers that the candidate lacks, in the same form; NULL: none */
  size_t num_layers, num_types, num_measures, num_sections, num_disagreements;
  compare_measure *measures;
  compare_section *sections; /* one a data file; where there are several, one more for all of them */
  uint32_t *counts; /* [examples][columns]: entities by type, gold; then by side and type, predicted and right */
  size_t columns;
  compare_disagreement *disagreements; /* by side, the most telling first */
  size_t drift_sentences;
  sw_buffer verdict; /* of the gate: why it says no; empty: passed */
} comparison;

/* measure.c: the models; the data, in each model's terms; all that is measured. */
int compare_open(comparison *c, const compare_options *options, const sw_list *checkpoints);
int compare_read(comparison *c);
int compare_measure_all(comparison *c);
void compare_close(comparison *c);
const compare_result *compare_result_of(const comparison *c, const compare_section *s, size_t side, size_t measure);
const compare_words *compare_words_of(const comparison *c, const compare_section *s, size_t side, size_t layer);
/* Layers that the section labels. */
int compare_is_labelled(const comparison *c, const compare_section *s, int layer);
/* Of measures that say the same one is shown: a layer's only label, not its averages. */
int compare_is_shown(const comparison *c, const compare_section *s, size_t measure);

/* disagree.c */
int compare_disagree(comparison *c);
/* The examples of `side` in c->disagreements: [*first, *end). */
void compare_disagreements_of(const comparison *c, size_t side, size_t *first, size_t *end);
json_t *compare_disagreement_json(const comparison *c, const compare_disagreement *d);
void compare_print_disagreements(const comparison *c, FILE *to);
int compare_write_disagreements(const comparison *c, const char *path);

/* gate.c */
int compare_check_metrics(const comparison *c);
/* Fills c->verdict. Fails where a file has nothing to judge by. */
int compare_judge(comparison *c);

/* table.c, json.c, draw.c */
void compare_print(const comparison *c, FILE *to);
json_t *compare_json(const comparison *c);
int compare_draw(const comparison *c, const char *path);
#endif
