/* An encoder with its heads: parameters on a device, and runs of forward and backward over packed batches.
 *
 * Architectures: a GRU over word embeddings (gru.h), and the BERT family: Devlin et al., "BERT", 2018 (post-LN, absolute positions); DistilBERT (Sanh et al. 2019) is the same without token
 * types, with Hugging Face's names of the parameters. One sw_model may be used by several threads for inference, each with its own sw_run. */
#ifndef SW_MODEL_MODEL_H
#define SW_MODEL_MODEL_H
#include "engine/store/checkpoint.h"
#include "kernels/backend.h"

typedef struct {
  int vocab_size, hidden_size, num_layers, num_heads, intermediate_size, max_positions, type_vocab_size;
  float layer_norm_eps, hidden_dropout, attention_dropout;
  sw_activation activation;
  int distilbert;
  int gru, embedding_size;       /* gru: gru.h; num_layers is 0, and max_positions the words of a text that are read */
  /* of the embedding (config's "skillwatch" object) */
  sw_pooling pooling;
  int normalize, max_seq_length; /* max_seq_length counts [CLS] and [SEP] */
} sw_model_config;
int sw_model_config_parse(const json_t *config, sw_model_config *out);

/* One named parameter. The arena of parameters, and those of gradients and moments in training, share the offsets. */
typedef struct {
  char *name;
  int rank;
  int64_t shape[2];
  size_t offset, count; /* in floats, in the arenas */
  int decays;           /* weight decay applies: not to biases and LayerNorm */
  int sparse_rows;      /* the word table, the first parameter: its gradient comes as rows */
} sw_parameter;

typedef struct {
  char *name;
  char *task;
  int num_labels;
  char **labels;  /* owned */
  size_t weight, bias;    /* indices of its parameters */
  void *prepared;
} sw_model_head;

/* SW_TRAINING: fp32 gradients by sw_linear_desc's quick_gradients; SW_TRAINING_EXACT: without. */
typedef enum { SW_INFERENCE, SW_TRAINING, SW_TRAINING_EXACT } sw_model_use;

typedef struct {
  sw_device *device;
  sw_model_config config;
  sw_dtype dtype;             /* of activations and of matrix products */
  sw_model_use training;
  size_t num_parameters;
  sw_parameter *parameters;
  float *values;              /* device; all parameters, each at its offset */
  size_t values_count;
  struct sw_model_layer *layers; /* model.c's own: offsets and prepared weights */
  struct sw_gru_layer *gru;   /* gru.c's own */
  void *prepared;             /* device arena of prepared weights */
  size_t num_heads;
  sw_model_head *heads;
  struct sw_model_mlm *mlm;   /* the masked-language-model head; NULL where it is not open */
} sw_model;

/* Takes encoder and heads from the checkpoint. Missing or mis-shaped weights are a failure. `stream` is used to prepare weights. */
int sw_model_open(sw_stream *stream, const sw_checkpoint *checkpoint, sw_dtype dtype, sw_model_use use, sw_model **out);
/* The same for training, with the masked-language-model head, whose decoder is the word table: the table then has a dense gradient. */
int sw_model_open_mlm(sw_stream *stream, const sw_checkpoint *checkpoint, sw_dtype dtype, sw_model_use use, sw_model **out);
/* Gives the checkpoint the weights of that head where it has none, and says so in *added. The transform is the identity at first: the states
 * of a trained encoder lie closer to its word table than anything random (MiniLM after 33,000 tokens of postings: held-out perplexity 548,
 * with N(0, 0.02) 1235). A decoder of its own is dropped: here it is the word table. */
int sw_mlm_add_head(sw_checkpoint *checkpoint, int *added);
void sw_model_close(sw_model *model);
/* Remakes the prepared weights after `values` changed. */
int sw_model_prepare(sw_stream *stream, sw_model *model);
/* Copies the parameters back into checkpoint->weights (same names, fp32), adding the heads' where they are missing. */
int sw_model_save(sw_stream *stream, const sw_model *model, sw_checkpoint *checkpoint);
const sw_model_head *sw_model_find_head(const sw_model *model, const char *name);

/* A packed batch, in host memory. Positions count from 0 in each sequence. Every sequence has at most config.max_positions tokens. */
typedef struct {
  int batch;
  int64_t tokens;
  int max_seqlen;
  const int32_t *ids;        /* [tokens], within the vocabulary */
  const int32_t *cu_seqlens; /* [batch + 1] */
} sw_batch;

/* The activations of one run: an arena sized once. Not to be shared by threads. */
typedef struct sw_run sw_run;
/* Bytes that sw_run_open will allocate. */
int sw_run_bytes(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, int training, size_t *bytes);
int sw_run_open(sw_stream *stream, const sw_model *model, int64_t max_tokens, int max_batch, int training, sw_run **out);
void sw_run_close(sw_run *run);

/* Token states of the last layer, [tokens, hidden] in model->dtype, device memory owned by the run, valid until its next forward. */
int sw_run_forward(sw_run *run, const sw_batch *batch, const void **states);
/* Pooled vectors as the configuration says: out (host, fp32) [batch, hidden]. */
int sw_run_embed(sw_run *run, const sw_batch *batch, float *out);
/* Logits of head `h`, of task "multilabel", for the texts of the last forward of a GRU or the vectors of the last sw_run_embed: out (host, fp32)
 * [batch, num_labels]. */
int sw_run_label_logits(sw_run *run, size_t h, float *out);
/* Token logits of head `h` for the states of the last forward, log-softmaxed over labels: out (host, fp32) [tokens, num_labels]. */
int sw_run_token_log_probs(sw_run *run, size_t h, float *out);
/* Of head `h`, of task "sequence", for the vectors of the last sw_run_embed (which this may be called for once), log-softmaxed over labels:
 * out (host, fp32) [batch, num_labels]. */
int sw_run_sequence_log_probs(sw_run *run, size_t h, float *out);

/* --- training (runs opened with training = 1) --- */
typedef struct {
  float *values;      /* device, parameters' offsets; the word table's place is the MLM decoder's, otherwise unused */
  float *word_rows;   /* device [max_tokens, the word table's columns]: gradients of the batch's distinct ids, in increasing order of id */
  int32_t *word_ids;  /* host [unique], increasing */
  int64_t unique;
  /* NULL, or called by backward whenever, once the stream has done what it was given so far, the gradients from offset `from` to the end of `values`
   * are final. -1 ends backward. */
  int (*done)(void *context, size_t from);
  void *context;
} sw_gradients;

/* Dropout of this forward: masks depend on (seed, step) only. Set before sw_run_forward; p comes from the configuration (0 turns off). */
void sw_run_set_dropout(sw_run *run, int enabled, uint64_t seed, uint32_t step);
/* Then, where the batches of the following forwards are parts of larger ones: the tokens and the sequences of the whole before the part, so that it
 * gets the masks that it has in the whole. For hidden sizes (and a GRU's embedding size) that are multiples of 4. */
void sw_run_set_place(sw_run *run, int64_t first_token, int64_t first_sequence);
/* After a forward: cross entropy of head h over the tokens. labels (host) [tokens], SW_IGNORE where there is none, otherwise one of the
 * head's; row_weights (host) [tokens] or NULL; gradients are those of scale * sum. The unscaled weighted sum is added to the head's loss, which
 * stays on the device. Heads add up: `first` is 1 for the first head of a forward. Parameter gradients of the head are added to `gradients`. */
int sw_run_token_loss(sw_run *run, size_t h, const int32_t *labels, const float *row_weights, float scale, int first,
                      sw_gradients *gradients);
/* The same for the MLM head, over the tokens at `positions` (host) [count], increasing, count >= 1; labels (host) [count]: the ids to find there.
 * Replaces all other losses of the forward. gradients = NULL: only the loss is added up. */
int sw_run_mlm_loss(sw_run *run, const int32_t *positions, const int32_t *labels, int64_t count, float scale, sw_gradients *gradients);
/* What the MLM head expects at these tokens of the last forward, log-softmaxed over the vocabulary: out (host, fp32) [count, vocab_size]. */
int sw_run_mlm_log_probs(sw_run *run, const int32_t *positions, int64_t count, float *out);
/* After a forward: binary cross entropy of head h, whose outputs are independent sigmoids, over a GRU's last states or, by sw_run_sequence_loss, pooled vectors.
 * targets (host) [batch, num_labels], 0 to 1; weights (host), the same shape or NULL: of each output. Otherwise as sw_run_token_loss. */
int sw_run_label_loss(sw_run *run, size_t h, const float *targets, const float *weights, float scale, int first, sw_gradients *gradients);
/* sums (host) [num_heads + 1]: the heads' losses since the last call, then that of the MLM head or of a loss without a head, which all start anew at
 * 0; there once the device is synchronised. */
int sw_run_losses(sw_run *run, double *sums);
/* Back through the encoder from what the losses left. Dense gradients are added to gradients->values; the word table's are
 * written to word_rows/word_ids (the caller merges them over accumulated batches). */
int sw_run_backward(sw_run *run, sw_gradients *gradients);
/* The gradient of the states that backward starts from, device [tokens, hidden] in model->dtype: for losses of other files. */
void *sw_run_state_gradient(sw_run *run);

/* --- losses over one vector a sequence (pooled.c) --- */
/* A bi-encoder's loss (kernels/contrastive) over unit vectors, pooled as the configuration says, of the queries and the candidates of
 * one forward or of several: where a batch is too large for one, each part goes through the encoder twice, for its vectors and for its
 * gradients (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021). For every part
 *   sw_run_forward, sw_run_pool_pairs                         then, once, sw_run_contrastive_loss, and again for every part
 *   sw_run_forward (not where there is one part only), sw_run_unpool_pairs, sw_run_backward.
 * A vector is a row, in the order in which the texts are fed; which rows are queries the loss is told. */
typedef struct sw_pair_vectors sw_pair_vectors;
/* Device memory for so many vectors and their gradients; for runs of this model on this stream. */
int sw_pair_vectors_open(sw_stream *stream, const sw_model *model, int64_t max_queries, int64_t max_candidates, sw_pair_vectors **out);
void sw_pair_vectors_close(sw_pair_vectors *vectors);
/* Vectors of other processes: rows that no part of this one fills are 0 after `clear`; `read` takes the first `rows` from the device, `write` puts
 * them there (host [rows, hidden]). The device is synchronised. */
int sw_pair_vectors_clear(sw_stream *stream, sw_pair_vectors *vectors);
int sw_pair_vectors_read(sw_stream *stream, const sw_pair_vectors *vectors, int64_t rows, float *out);
int sw_pair_vectors_write(sw_stream *stream, sw_pair_vectors *vectors, int64_t rows, const float *values);
/* The vectors of the last forward's sequences, as row `first` and the following. */
int sw_run_pool_pairs(sw_run *run, sw_pair_vectors *vectors, int64_t first);
/* rows (host) [queries + candidates]: each query's row, then each candidate's, a permutation. positive (host) [queries]: each query's candidate; several may share one.
 * Gradients are those of scale * sum; the unscaled sum is added to the run's loss without a head. */
int sw_run_contrastive_loss(sw_run *run, sw_pair_vectors *vectors, int64_t queries, int64_t candidates, const int32_t *rows, const int32_t *positive,
                            float similarity_scale, float scale);
/* From the gradients of the last forward's vectors to that of its states. */
int sw_run_unpool_pairs(sw_run *run, const sw_pair_vectors *vectors, int64_t first);

/* Heads of one vector a sequence, which is pooled as the configuration says and not brought to unit length; after a forward. Task "sequence":
 * cross entropy; labels (host) [batch], SW_IGNORE where there is none; targets NULL. Task "multilabel": sigmoid cross entropy of each label;
 * targets (host) [batch, num_labels] in [0, 1]; labels NULL. weights (host): of each label or target, or NULL. The rest as in sw_run_token_loss,
 * which cannot have a share in the same forward. */
int sw_run_sequence_loss(sw_run *run, size_t h, const int32_t *labels, const float *targets, const float *weights, float scale, int first,
                         sw_gradients *gradients);
#endif
