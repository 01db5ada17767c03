/* The masked-language-model head: BERT's cls.predictions (Devlin et al. 2018), DistilBERT's vocab_transform, vocab_layer_norm and
 * vocab_projector.
 *
 * Forward, x [rows, hidden] the states at the masked positions:
 *   h = LayerNorm(gelu(x W^T + b));  logits = h E^T + c, E the word table [vocab, hidden], c [vocab]
 * The decoder is tied to the word table, so the table's gradient has a dense part. The logits are made, turned into their gradient and used up
 * CHUNK positions at a time: memory for them does not grow with the batch or with the share of tokens that is masked. */
#include "base/error.h"
#include "engine/model/internal.h"

#include <stdio.h>

enum { CHUNK = 512 };

typedef struct {
  const char *dense, *norm, *bias, *decoder;
} head_names;
static const head_names names[2] = {
    {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias", "cls.predictions.decoder.weight"},
    {"vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight"}};

/* --- parameters --- */

int sw_mlm_declare(sw_model *model) {
  const sw_model_config *c = &model->config;
  const head_names *n = &names[c->distilbert];
  sw_model_mlm *m = model->mlm;
  if (sw_model_add_pair(model, n->dense, c->hidden_size, c->hidden_size, &m->dense_weight, &m->dense_bias) ||
      sw_model_add_pair(model, n->norm, c->hidden_size, 0, &m->gamma, &m->beta))
    return -1;
  const sw_parameter *bias = sw_model_add_parameter(model, n->bias, 1, c->vocab_size, 1, 0);
  if (!bias) return -1;
  m->bias = bias->offset;
  return 0;
}

static sw_linear_desc dense_desc(const sw_model *model, int64_t rows) {
  const int hidden = model->config.hidden_size;
  return (sw_linear_desc){.tokens = rows, .in_features = hidden, .out_features = hidden, .dtype = model->dtype, .out_dtype = model->dtype,
                          .activation = model->config.activation, .training = 1, .quick_gradients = model->training == SW_TRAINING};
}
static sw_linear_desc decoder_desc(const sw_model *model, int64_t rows) {
  return (sw_linear_desc){.tokens = rows, .in_features = model->config.hidden_size, .out_features = model->config.vocab_size,
                          .dtype = model->dtype, .out_dtype = SW_F32, .training = 1, .quick_gradients = model->training == SW_TRAINING};
}

int sw_mlm_place_prepared(sw_stream *stream, sw_model *model, sw_arena *arena) {
  const sw_linear_desc dense = dense_desc(model, 1), decoder = decoder_desc(model, 1);
  size_t bytes, decoder_bytes;
  if (SW_RUN(stream, linear_weight_bytes, &dense, &bytes) || SW_RUN(stream, linear_weight_bytes, &decoder, &decoder_bytes)) return -1;
  model->mlm->prepared_dense = sw_arena_take(arena, (int64_t)bytes, 1);
  model->mlm->prepared_decoder = sw_arena_take(arena, (int64_t)decoder_bytes, 1);
  return 0;
}

int sw_mlm_prepare(sw_stream *stream, sw_model *model) {
  const sw_model_mlm *m = model->mlm;
  const sw_linear_desc dense = dense_desc(model, 1), decoder = decoder_desc(model, 1);
  return SW_RUN(stream, linear_prepare, &dense, model->values + m->dense_weight, m->prepared_dense) ||
                 SW_RUN(stream, linear_prepare, &decoder, model->values + sw_model_embedding_of(model).word, m->prepared_decoder)
             ? -1
             : 0;
}

/* --- what a run needs --- */

static int64_t chunk_of(int64_t tokens) { return tokens < CHUNK ? tokens : CHUNK; }

int sw_mlm_workspace(sw_stream *stream, const sw_model *model, int64_t tokens, size_t *most) {
  const sw_linear_desc dense = dense_desc(model, tokens), decoder = decoder_desc(model, chunk_of(tokens));
  size_t bytes;
  if (SW_RUN(stream, linear_workspace, &dense, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  if (SW_RUN(stream, linear_workspace, &decoder, &bytes)) return -1;
  if (bytes > *most) *most = bytes;
  return 0;
}

void sw_mlm_place(const sw_model *model, int64_t tokens, sw_arena *a, sw_mlm_state *s) {
  const size_t e = sw_dtype_bytes(model->dtype);
  const int64_t th = tokens * model->config.hidden_size;
  s->positions = sw_arena_take(a, tokens, 4);
  s->labels = sw_arena_take(a, tokens, 4);
  s->input = sw_arena_take(a, th, e);
  s->pre = sw_arena_take(a, th, e);
  s->z = sw_arena_take(a, th, e);
  s->output = sw_arena_take(a, th, e);
  s->d = sw_arena_take(a, th, e);
  s->mean = sw_arena_take(a, tokens, 4);
  s->rstd = sw_arena_take(a, tokens, 4);
  s->logits = sw_arena_take(a, chunk_of(tokens) * model->config.vocab_size, 4);
}

/* --- forward and backward --- */

static sw_layernorm_desc norm_desc(const sw_model *model, int64_t rows) {
  return (sw_layernorm_desc){.tokens = rows, .hidden = model->config.hidden_size, .eps = model->config.layer_norm_eps, .dtype = model->dtype};
}
static sw_gather_desc gather_desc(const sw_run *run, int64_t rows) {
  return (sw_gather_desc){.tokens = run->tokens, .rows = rows, .hidden = run->model->config.hidden_size, .dtype = run->model->dtype};
}

/* Row `row` of a tensor [rows, hidden]. */
static void *at_row(const sw_model *model, void *tensor, int64_t row) {
  return (char *)tensor + (size_t)(row * model->config.hidden_size) * sw_dtype_bytes(model->dtype);
}

/* From the states at the positions to what the decoder takes. */
static int transform(sw_run *run, const int32_t *positions, int64_t count) {
  const sw_model *model = run->model;
  const sw_model_mlm *m = model->mlm;
  const sw_mlm_state *s = &run->mlm;
  const float *v = model->values;
  if (!m || !run->training) return sw_fail("this run was not opened for training with a masked-language-model head");
  if (count < 1 || count > run->tokens) return sw_fail("%lld masked positions in %lld tokens", (long long)count, (long long)run->tokens);
  for (int64_t i = 0; i < count; i++)
    if (positions[i] < 0 || positions[i] >= run->tokens || (i && positions[i] <= positions[i - 1]))
      return sw_fail("masked position %d is out of order or outside the %lld tokens", positions[i], (long long)run->tokens);
  const sw_gather_desc gather = gather_desc(run, count);
  const sw_linear_desc dense = dense_desc(model, count);
  const sw_layernorm_desc norm = norm_desc(model, count);
  return model->device->copy_in(&run->stream, s->positions, positions, (size_t)count * 4) ||
                 SW_RUN(&run->stream, gather_forward, &gather, s->positions, sw_run_states(run), s->input) ||
                 SW_RUN(&run->stream, linear_forward, &dense, s->input, m->prepared_dense, v + m->dense_bias, s->pre, s->z, run->workspace) ||
                 SW_RUN(&run->stream, layernorm_forward, &norm, s->z, NULL, v + m->gamma, v + m->beta, s->output, s->mean, s->rstd)
             ? -1
             : 0;
}

static int decode(sw_run *run, int64_t from, int64_t rows) {
  const sw_model *model = run->model;
  const sw_linear_desc decoder = decoder_desc(model, rows);
  return SW_RUN(&run->stream, linear_forward, &decoder, at_row(model, run->mlm.output, from), model->mlm->prepared_decoder,
                model->values + model->mlm->bias, NULL, run->mlm.logits, run->workspace);
}

/* Back from the gradient of the decoder's input, in s->d, to that of the states. */
static int backward(sw_run *run, int64_t count, float *g) {
  const sw_model *model = run->model;
  const sw_model_mlm *m = model->mlm;
  const sw_mlm_state *s = &run->mlm;
  const sw_gather_desc gather = gather_desc(run, count);
  const sw_linear_desc dense = dense_desc(model, count);
  const sw_layernorm_desc norm = norm_desc(model, count);
  void *dx = s->output; /* the decoder has used it up */
  return SW_RUN(&run->stream, layernorm_backward, &norm, s->d, s->z, model->values + m->gamma, s->mean, s->rstd, s->d, NULL, g + m->gamma,
                g + m->beta, run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_input, &dense, s->d, s->pre, m->prepared_dense, dx, 0, run->workspace) ||
                 SW_RUN(&run->stream, linear_backward_weight, &dense, s->d, s->input, g + m->dense_weight, g + m->dense_bias, run->workspace) ||
                 SW_RUN(&run->stream, gather_backward, &gather, s->positions, dx, run->d_state)
             ? -1
             : 0;
}

int sw_run_mlm_loss(sw_run *run, const int32_t *positions, const int32_t *labels, int64_t count, float scale, sw_gradients *gradients) {
  const sw_model *model = run->model;
  const sw_model_mlm *m = model->mlm;
  const sw_mlm_state *s = &run->mlm;
  if (transform(run, positions, count)) return -1;
  for (int64_t i = 0; i < count; i++)
    if (labels[i] < 0 || labels[i] >= model->config.vocab_size)
      return sw_fail("masked token %lld has label %d; the vocabulary has %d", (long long)i, labels[i], model->config.vocab_size);
  if (model->device->copy_in(&run->stream, s->labels, labels, (size_t)count * 4)) return -1;
  float *g = gradients ? gradients->values : NULL;
  for (int64_t from = 0; from < count; from += CHUNK) {
    const int64_t rows = chunk_of(count - from);
    const sw_loss_desc loss = {.rows = rows, .classes = model->config.vocab_size, .ignore = -1, .scale = scale};
    const sw_linear_desc decoder = decoder_desc(model, rows);
    if (decode(run, from, rows) || SW_RUN(&run->stream, cross_entropy, &loss, s->logits, s->labels + from, NULL, NULL,
                                          run->losses + model->num_heads, g ? s->logits : NULL, run->workspace))
      return -1;
    if (g && (SW_RUN(&run->stream, linear_backward_weight, &decoder, s->logits, at_row(model, s->output, from),
                     g + sw_model_embedding_of(model).word, g + m->bias, run->workspace) ||
              SW_RUN(&run->stream, linear_backward_input, &decoder, s->logits, NULL, m->prepared_decoder, at_row(model, s->d, from), 0,
                     run->workspace)))
      return -1;
  }
  return g ? backward(run, count, g) : 0;
}

int sw_run_mlm_log_probs(sw_run *run, const int32_t *positions, int64_t count, float *out) {
  const sw_model *model = run->model;
  const int64_t vocab = model->config.vocab_size;
  if (transform(run, positions, count)) return -1;
  for (int64_t from = 0; from < count; from += CHUNK) {
    const int64_t rows = chunk_of(count - from);
    const sw_loss_desc desc = {.rows = rows, .classes = (int)vocab};
    if (decode(run, from, rows) || SW_RUN(&run->stream, log_softmax, &desc, run->mlm.logits, run->mlm.logits) ||
        model->device->copy_out(&run->stream, out + from * vocab, run->mlm.logits, (size_t)(rows * vocab) * sizeof(float)))
      return -1;
  }
  return model->device->synchronize(&run->stream);
}

/* --- a new head --- */

/* [rows, columns], all `value`; columns = 0: [rows]. */
static float *add_tensor(sw_checkpoint *c, const char *prefix, const char *part, int64_t rows, int64_t columns, float value) {
  char name[64];
  snprintf(name, sizeof name, "%s%s", prefix, part);
  sw_tensor *t = sw_tensors_add(&c->weights, name, SW_F32, columns ? 2 : 1, (int64_t[4]){rows, columns});
  float *data = t ? t->data : NULL;
  for (int64_t i = 0; data && i < rows * (columns ? columns : 1); i++) data[i] = value;
  return data;
}

int sw_mlm_add_head(sw_checkpoint *c, int *added) {
  sw_model_config config;
  *added = 0;
  if (sw_model_config_parse(c->config, &config)) return -1;
  const head_names *n = &names[config.distilbert];
  const int h = config.hidden_size;
  sw_tensor *own = sw_tensors_find(&c->weights, n->decoder);
  if (own) sw_tensors_remove(&c->weights, own);
  json_object_del(c->config, "tie_word_embeddings"); /* transformers ties them unless it says no */
  if (sw_tensors_find(&c->weights, n->bias)) return 0;
  *added = 1;
  float *dense = add_tensor(c, n->dense, ".weight", h, h, 0);
  for (int i = 0; dense && i < h; i++) dense[i * h + i] = 1;
  return dense && add_tensor(c, n->dense, ".bias", h, 0, 0) && add_tensor(c, n->norm, ".weight", h, 0, 1) &&
                 add_tensor(c, n->norm, ".bias", h, 0, 0) && add_tensor(c, n->bias, "", config.vocab_size, 0, 0)
             ? 0
             : -1;
}
