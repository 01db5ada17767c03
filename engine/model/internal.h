/* What the files of this folder share. */
#ifndef SW_MODEL_INTERNAL_H
#define SW_MODEL_INTERNAL_H
#include "engine/model/model.h"

/* The four matrix products of a layer. Query, key and value are one product: their rows lie side by side. */
enum { SW_QKV, SW_OUTPUT, SW_UP, SW_DOWN, SW_PRODUCTS };

typedef struct sw_model_layer {
  struct {
    size_t weight, bias; /* offsets into the arenas, in floats */
    int in, out;
    sw_activation activation;
    void *prepared;
  } product[SW_PRODUCTS];
  size_t norm1_gamma, norm1_beta, norm2_gamma, norm2_beta; /* offsets */
} sw_model_layer;

typedef struct {
  size_t word, position, type, gamma, beta; /* offsets; type = SIZE_MAX where there is none */
} sw_model_embedding;
sw_model_embedding sw_model_embedding_of(const sw_model *model);

/* Appends a parameter to the arena; its index is model->num_parameters - 1. */
sw_parameter *sw_model_add_parameter(sw_model *model, const char *name, int rank, int64_t rows, int64_t columns, int decays);
/* Weight [out, in] and bias [out] under `prefix`, or a LayerNorm's when in = 0. Their offsets are returned. */
int sw_model_add_pair(sw_model *model, const char *prefix, int out, int in, size_t *weight, size_t *bias);
/* The recurrent layer: a linear layer that makes the gates' input half, and the recurrence. */
typedef struct sw_gru_layer {
  size_t input_weight, input_bias, weight, bias; /* offsets */
  void *prepared; /* of the linear layer */
} sw_gru_layer;

int sw_gru_declare(sw_model *model);
sw_linear_desc sw_gru_input_desc(const sw_model *model, int64_t tokens);

sw_linear_desc sw_model_product_desc(const sw_model *model, const sw_model_layer *layer, int product, int64_t tokens);
sw_linear_desc sw_model_head_desc(const sw_model *model, const sw_model_head *head, int64_t tokens);

/* What one layer keeps for backward. In inference every layer points to the same memory, and lse, pre and the statistics are NULL. */
typedef struct {
  void *qkv, *context, *z1, *y1, *pre, *up, *z2, *y2;
  float *lse, *mean1, *rstd1, *mean2, *rstd2;
} sw_layer_state;

/* An arena in the making: one walk that sizes (base = NULL) or points. */
typedef struct {
  char *base;
  size_t used;
} sw_arena;
void *sw_arena_take(sw_arena *arena, int64_t count, size_t bytes);

/* The masked-language-model head (mlm.c). */
typedef struct sw_model_mlm {
  size_t dense_weight, dense_bias, gamma, beta, bias; /* offsets; the decoder's weight is the word table */
  void *prepared_dense, *prepared_decoder;
} sw_model_mlm;
typedef struct {
  int32_t *positions, *labels;          /* [max_tokens] */
  void *input, *pre, *z, *output, *d;   /* [max_tokens, hidden] */
  float *mean, *rstd;
  float *logits;                        /* of one chunk of positions */
} sw_mlm_state;
int sw_mlm_declare(sw_model *model);
int sw_mlm_place_prepared(sw_stream *stream, sw_model *model, sw_arena *arena);
int sw_mlm_prepare(sw_stream *stream, sw_model *model);
int sw_mlm_workspace(sw_stream *stream, const sw_model *model, int64_t tokens, size_t *most);
void sw_mlm_place(const sw_model *model, int64_t tokens, sw_arena *arena, sw_mlm_state *state);
/* What a GRU's run keeps for backward. */
typedef struct {
  float *words;       /* [tokens, embedding] rows of the word table; the same as x in fp32 */
  void *x;            /* the same in the model's dtype, after dropout; backward: its gradient */
  void *sorted_x;     /* its gradient by word */
  void *gates, *saved, *y;
  int32_t *last;      /* [batch] last token of each text */
  void *last_state, *d_last_state; /* [batch, hidden] */
  float *targets, *weights; /* [num_heads, batch, most labels]: each head's have places of their own, as labels below */
  int32_t *host_last, *host_cu_seqlens;
} sw_gru_state;

struct sw_run {
  sw_stream stream;
  const sw_model *model;
  int64_t max_tokens;
  int max_batch, training;
  void *arena;
  /* of the present batch */
  int64_t tokens;
  int batch, max_seqlen;
  int32_t *ids, *positions, *cu_seqlens; /* device */
  int32_t *host_positions;
  /* activations */
  void *z0, *x0;
  float *mean0, *rstd0;
  sw_layer_state *layers;
  sw_gru_state gru;
  void *head_input;      /* states after the heads' dropout; the states themselves where there is none */
  void *head_buffer;
  float *logits, *pooled;
  void *workspace;
  /* gradients of activations */
  void *d_state, *d_hidden, *d_up, *d_qkv, *d_context;
  int head_dropout_ran;
  /* heads on one vector a sequence: where the model has such */
  void *vector_input;  /* pooled vectors after the heads' dropout, in model->dtype; NULL before the first head of a forward */
  void *vector_buffer, *d_vectors; /* [max_batch, hidden] in model->dtype */
  float *d_pooled;                 /* the same, fp32; scratch before backward */
  float *targets, *target_weights; /* [num_heads, max_batch * the most labels of such a head] */
  int32_t *labels;    /* [num_heads, max_tokens] */
  float *row_weights; /* the same: a step's inputs have places of their own, so that they can be copied ahead of its work */
  double *losses;     /* a head each, and one for the MLM head or a loss without a head */
  sw_mlm_state mlm;
  /* dropout */
  int dropout_enabled;
  uint64_t first_token, first_sequence; /* of the whole batch that this run has a part of */
  uint64_t seed;
  uint32_t step;
  /* tokens sorted by id, for the word table's gradient */
  uint64_t *sort_keys;       /* host */
  int32_t *host_sorted, *host_segments;
  int32_t *sorted, *segments; /* device */
};

/* Numbers the distinct ids of the batch in increasing order: run->sorted, run->segments, gradients->word_ids and unique. */
int sw_run_sort_ids(sw_run *run, sw_gradients *gradients);

int sw_gru_workspace(sw_stream *stream, const sw_model *model, int64_t tokens, int batch, size_t *bytes);
void sw_gru_place(sw_arena *arena, const sw_model *model, int64_t tokens, int batch, int training, sw_run *run);
int sw_gru_forward(sw_run *run, const int32_t *cu_seqlens);
int sw_gru_backward(sw_run *run, sw_gradients *gradients);

/* Where dropout happens: a stream of random numbers each. */
enum { SITE_EMBEDDING = 0, SITE_HEAD = 1, SITE_LAYERS = 8 };

sw_dropout sw_run_dropout(const sw_run *run, float p, uint32_t site);
/* Whether the head reads one vector a sequence, not every token's. */
int sw_model_head_is_pooled(const sw_model_head *head);
/* The most labels of a head that does, or does not. 0: there is none. */
int sw_model_most_labels(const sw_model *model, int pooled);
/* logits [rows, labels] of a head */
int sw_run_head_logits(sw_run *run, const sw_model_head *head, int64_t rows, const void *x);
/* Token states of the last forward, [tokens, hidden]. */
const void *sw_run_states(const sw_run *run);
#endif
