/* Scores of a token classifier on labelled data: entity precision, recall and F1 as seqeval counts them, tag accuracy,
 * mean loss. The trainer calls it every epoch; skillwatch-eval prints it. */
#ifndef SW_LEARN_EVALUATE_H
#define SW_LEARN_EVALUATE_H
#include "engine/data/token_set.h"
#include "engine/learn/group.h"
#include "engine/learn/metrics.h"
#include "engine/model/model.h"

typedef enum {
  SW_DECODE_VITERBI, /* the most probable valid BIO sequence of an example: what tagging does */
  SW_DECODE_ARGMAX   /* the most probable tag of every word by itself: what most peers score */
} sw_decode;

typedef struct {
  sw_entity_score micro, macro; /* over all layers: counts added, and the mean over the types that occur in any layer */
  double accuracy;              /* right tags / labelled words, over all layers */
  double loss;                  /* mean cross entropy of a labelled word, over all layers; unweighted */
  uint64_t words;               /* labelled words, over all layers */
} sw_eval_scores;

/* A prepared evaluation set: token ids, encoded once. Borrows `labels`, which must outlive it and stay as it is. */
typedef struct sw_eval_set sw_eval_set;
/* max_positions: config.max_positions of the model. Longer examples are windowed (SW_WINDOW_OVERLAP). */
int sw_eval_set_open(const sw_labels *labels, const sw_tokenizer *tokenizer, int max_positions, sw_eval_set **out);
void sw_eval_set_close(sw_eval_set *set);
/* From now on the processes of the group (borrowed; may be NULL) evaluate a part each: scores are those of the whole, `words` is not to be asked for. */
void sw_eval_set_share(sw_eval_set *set, sw_group *group);
uint64_t sw_eval_set_tokens(const sw_eval_set *set);

/* The token heads of a model as layers, for sw_labels_read; they borrow from the model: free(out->layers). `path`: of
 * the checkpoint, for the message where it has none. */
int sw_eval_layers(const sw_model *model, const char *path, sw_labels *out);

/* What a model says of every word of a set: [num_layers][num_words], the words of all examples one after the other. */
typedef struct {
  size_t num_words;
  int32_t *tags;         /* as decoded; "O" where the word has no tokens */
  float *log_probs;      /* of that tag; NAN where the word has no tokens */
  float *gold_log_probs; /* of the gold tag; NAN also where there is none */
} sw_eval_words;
int sw_eval_words_open(const sw_labels *labels, sw_eval_words *out);
void sw_eval_words_close(sw_eval_words *words);

/* Runs the model over the set, with dropout off (sw_run_set_dropout(run, 0, ...): set it again before training goes
 * on). `run` belongs to `model`, for training or inference, with room for max_tokens tokens (at least the model's
 * max_positions) and max_batch sequences. Every layer of the labels must be a token head of the model with the same
 * labels in the same order. A NaN or infinity among the log probabilities is a failure that names the example's file
 * and line. scores, json and words (opened for the set's labels) may each be NULL; *json is a new reference:
 *   {"micro": {"precision","recall","f1","support"}, "macro": {...}, "accuracy": x, "loss": x, "words": n,
 *    "decode": "viterbi", "layers": {"knowledge": {sw_entity_metrics_json's keys, "loss": x}}}; a nameless label is
 * called after its layer. */
int sw_eval_set_run(const sw_eval_set *set, const sw_model *model, sw_run *run, int64_t max_tokens, int max_batch,
                    sw_decode decode, sw_eval_scores *scores, json_t **json, sw_eval_words *words);
#endif
