#include "base/error.h"
#include "engine/model/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16 /* floats: every parameter starts on a cache line */ };

sw_parameter *sw_model_add_parameter(sw_model *model, const char *name, int rank, int64_t rows, int64_t columns, int decays) {
  sw_parameter *list = sw_realloc_array(model->parameters, model->num_parameters + 1, sizeof *list);
  if (!list) return NULL;
  model->parameters = list;
  sw_parameter *p = &list[model->num_parameters];
  *p = (sw_parameter){.name = sw_strdup(name), .rank = rank, .shape = {rows, columns}, .offset = model->values_count,
                      .count = (size_t)(rows * columns), .decays = decays};
  if (!p->name) return NULL;
  model->num_parameters++;
  model->values_count += (p->count + ALIGN - 1) / ALIGN * ALIGN;
  return p;
}

int sw_model_add_pair(sw_model *model, const char *prefix, int out, int in, size_t *weight, size_t *bias) {
  char name[256];
  snprintf(name, sizeof name, "%s.weight", prefix);
  sw_parameter *p = in ? sw_model_add_parameter(model, name, 2, out, in, 1) : sw_model_add_parameter(model, name, 1, out, 1, 0);
  if (!p) return -1;
  *weight = p->offset;
  snprintf(name, sizeof name, "%s.bias", prefix);
  p = sw_model_add_parameter(model, name, 1, out, 1, 0);
  if (!p) return -1;
  *bias = p->offset;
  return 0;
}

/* Query, key and value: three weights side by side, then three biases, so that one matrix product makes all three. The padding
 * between parameters would tear them apart, so they take their places by hand. */
static int add_qkv(sw_model *model, const char *const prefixes[3], int hidden, size_t *weight, size_t *bias) {
  char name[256];
  for (int part = 0; part < 2; part++) {
    size_t start = model->values_count, each = part ? (size_t)hidden : (size_t)hidden * (size_t)hidden;
    for (int i = 0; i < 3; i++) {
      snprintf(name, sizeof name, "%s.%s", prefixes[i], part ? "bias" : "weight");
      sw_parameter *p = part ? sw_model_add_parameter(model, name, 1, hidden, 1, 0) : sw_model_add_parameter(model, name, 2, hidden, hidden, 1);
      if (!p) return -1;
      p->offset = start + (size_t)i * each;
    }
    model->values_count = start + (3 * each + ALIGN - 1) / ALIGN * ALIGN;
    *(part ? bias : weight) = start;
  }
  return 0;
}

static void set_product(sw_model_layer *layer, int product, int in, int out, sw_activation activation) {
  layer->product[product].in = in;
  layer->product[product].out = out;
  layer->product[product].activation = activation;
}

static int declare_parameters(sw_model *model) {
  const sw_model_config *c = &model->config;
  const int h = c->hidden_size, d = c->distilbert;
  size_t gamma, beta;
  if (!sw_model_add_parameter(model, "embeddings.word_embeddings.weight", 2, c->vocab_size, h, 1) ||
      !sw_model_add_parameter(model, "embeddings.position_embeddings.weight", 2, c->max_positions, h, 1))
    return -1;
  model->parameters[0].sparse_rows = !model->mlm;
  if (c->type_vocab_size && !sw_model_add_parameter(model, "embeddings.token_type_embeddings.weight", 2, c->type_vocab_size, h, 1)) return -1;
  if (sw_model_add_pair(model, "embeddings.LayerNorm", h, 0, &gamma, &beta)) return -1;
  for (int i = 0; i < c->num_layers; i++) {
    sw_model_layer *layer = &model->layers[i];
    char names[8][128];
    static const char *const bert[] = {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                                       "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"};
    static const char *const distil[] = {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
                                         "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"};
    for (int k = 0; k < 8; k++)
      snprintf(names[k], sizeof names[k], "%s.layer.%d.%s", d ? "transformer" : "encoder", i, d ? distil[k] : bert[k]);
    set_product(layer, SW_QKV, h, 3 * h, SW_NO_ACTIVATION);
    set_product(layer, SW_OUTPUT, h, h, SW_NO_ACTIVATION);
    set_product(layer, SW_UP, h, c->intermediate_size, c->activation);
    set_product(layer, SW_DOWN, c->intermediate_size, h, SW_NO_ACTIVATION);
    const char *const qkv[3] = {names[0], names[1], names[2]};
    if (add_qkv(model, qkv, h, &layer->product[SW_QKV].weight, &layer->product[SW_QKV].bias) ||
        sw_model_add_pair(model, names[3], h, h, &layer->product[SW_OUTPUT].weight, &layer->product[SW_OUTPUT].bias) ||
        sw_model_add_pair(model, names[4], h, 0, &layer->norm1_gamma, &layer->norm1_beta) ||
        sw_model_add_pair(model, names[5], c->intermediate_size, h, &layer->product[SW_UP].weight, &layer->product[SW_UP].bias) ||
        sw_model_add_pair(model, names[6], h, c->intermediate_size, &layer->product[SW_DOWN].weight, &layer->product[SW_DOWN].bias) ||
        sw_model_add_pair(model, names[7], h, 0, &layer->norm2_gamma, &layer->norm2_beta))
      return -1;
  }
  return 0;
}

static int declare_heads(sw_model *model, const sw_checkpoint *checkpoint) {
  if (!checkpoint->num_heads) return 0;
  model->heads = sw_alloc_array(checkpoint->num_heads, sizeof *model->heads);
  if (!model->heads) return -1;
  for (size_t i = 0; i < checkpoint->num_heads; i++) {
    const sw_head *source = &checkpoint->heads[i];
    sw_model_head *head = &model->heads[model->num_heads++];
    char prefix[200];
    size_t weight, bias;
    if (strlen(source->name) > 150) return sw_fail("head name '%.40s...' is too long", source->name);
    snprintf(prefix, sizeof prefix, "heads.%s", source->name);
    *head = (sw_model_head){.name = sw_strdup(source->name), .task = sw_strdup(source->task), .num_labels = (int)source->num_labels,
                            .weight = model->num_parameters, .bias = model->num_parameters + 1};
    head->labels = sw_alloc_array(source->num_labels, sizeof *head->labels);
    if (!head->name || !head->task || !head->labels) return -1;
    for (size_t k = 0; k < source->num_labels; k++)
      if (!(head->labels[k] = sw_strdup(source->labels[k]))) return -1;
    if (sw_model_add_pair(model, prefix, head->num_labels, model->config.hidden_size, &weight, &bias)) return -1;
  }
  return 0;
}

static int load_parameters(sw_stream *stream, sw_model *model, const sw_checkpoint *checkpoint) {
  model->values = model->device->alloc(model->device, model->values_count * sizeof(float));
  if (!model->values || model->device->zero(stream, model->values, model->values_count * sizeof(float))) return -1;
  for (size_t i = 0; i < model->num_parameters; i++) {
    const sw_parameter *p = &model->parameters[i];
    const sw_tensor *t = sw_tensors_find(&checkpoint->weights, p->name);
    if (!t) return sw_fail("the checkpoint has no weight '%s', which its configuration asks for", p->name);
    int same = t->rank == p->rank && t->shape[0] == p->shape[0] && (p->rank == 1 || t->shape[1] == p->shape[1]);
    if (!same)
      return sw_fail("weight '%s' has shape [%lld%s%lld], the configuration asks for [%lld, %lld]", p->name, (long long)t->shape[0],
                     t->rank > 1 ? ", " : " x", (long long)(t->rank > 1 ? t->shape[1] : 1), (long long)p->shape[0], (long long)p->shape[1]);
    if (t->dtype == SW_F32) {
      if (model->device->copy_in(stream, model->values + p->offset, t->data, p->count * sizeof(float))) return -1;
      continue;
    }
    float *wide = sw_alloc_array(p->count, sizeof *wide);
    if (!wide) return -1;
    for (size_t k = 0; k < p->count; k++) wide[k] = sw_bf16_to_f32(((const sw_bf16 *)t->data)[k]);
    int status = model->device->copy_in(stream, model->values + p->offset, wide, p->count * sizeof(float));
    if (!status) status = model->device->synchronize(stream);
    free(wide);
    if (status) return -1;
  }
  return 0;
}

sw_linear_desc sw_model_product_desc(const sw_model *model, const sw_model_layer *layer, int product, int64_t tokens) {
  return (sw_linear_desc){.tokens = tokens, .in_features = layer->product[product].in, .out_features = layer->product[product].out,
                          .dtype = model->dtype, .out_dtype = model->dtype, .activation = layer->product[product].activation,
                          .training = model->training, .quick_gradients = model->training == SW_TRAINING};
}

sw_linear_desc sw_model_head_desc(const sw_model *model, const sw_model_head *head, int64_t tokens) {
  return (sw_linear_desc){.tokens = tokens, .in_features = model->config.hidden_size, .out_features = head->num_labels,
                          .dtype = model->dtype, .out_dtype = SW_F32, .training = model->training};
}

sw_model_embedding sw_model_embedding_of(const sw_model *model) {
  const sw_parameter *p = model->parameters;
  int types = model->config.type_vocab_size > 0;
  return (sw_model_embedding){.word = p[0].offset, .position = p[1].offset, .type = types ? p[2].offset : SIZE_MAX,
                              .gamma = p[2 + types].offset, .beta = p[3 + types].offset};
}

/* Walks over all products and heads. */
static int place_prepared(sw_stream *stream, sw_model *model, char *base, size_t *total) {
  sw_arena arena = {.base = base};
  size_t bytes;
  if (model->gru) {
    sw_linear_desc desc = sw_gru_input_desc(model, 1);
    if (SW_RUN(stream, linear_weight_bytes, &desc, &bytes)) return -1;
    model->gru->prepared = sw_arena_take(&arena, (int64_t)bytes, 1);
  }
  for (int i = 0; i < model->config.num_layers; i++)
    for (int k = 0; k < SW_PRODUCTS; k++) {
      sw_linear_desc desc = sw_model_product_desc(model, &model->layers[i], k, 1);
      if (SW_RUN(stream, linear_weight_bytes, &desc, &bytes)) return -1;
      model->layers[i].product[k].prepared = sw_arena_take(&arena, (int64_t)bytes, 1);
    }
  for (size_t i = 0; i < model->num_heads; i++) {
    sw_linear_desc desc = sw_model_head_desc(model, &model->heads[i], 1);
    if (SW_RUN(stream, linear_weight_bytes, &desc, &bytes)) return -1;
    model->heads[i].prepared = sw_arena_take(&arena, (int64_t)bytes, 1);
  }
  if (model->mlm && sw_mlm_place_prepared(stream, model, &arena)) return -1;
  *total = arena.used;
  return 0;
}

int sw_model_prepare(sw_stream *stream, sw_model *model) {
  if (model->gru) {
    sw_linear_desc desc = sw_gru_input_desc(model, 1);
    if (SW_RUN(stream, linear_prepare, &desc, model->values + model->gru->input_weight, model->gru->prepared)) return -1;
  }
  for (int i = 0; i < model->config.num_layers; i++)
    for (int k = 0; k < SW_PRODUCTS; k++) {
      sw_linear_desc desc = sw_model_product_desc(model, &model->layers[i], k, 1);
      if (SW_RUN(stream, linear_prepare, &desc, model->values + model->layers[i].product[k].weight, model->layers[i].product[k].prepared))
        return -1;
    }
  for (size_t i = 0; i < model->num_heads; i++) {
    sw_linear_desc desc = sw_model_head_desc(model, &model->heads[i], 1);
    const float *weight = model->values + model->parameters[model->heads[i].weight].offset;
    if (SW_RUN(stream, linear_prepare, &desc, weight, model->heads[i].prepared)) return -1;
  }
  return model->mlm ? sw_mlm_prepare(stream, model) : 0;
}

static int open_model(sw_stream *stream, const sw_checkpoint *checkpoint, sw_model *model) {
  size_t bytes;
  if (sw_model_config_parse(checkpoint->config, &model->config)) return -1;
  model->layers = sw_alloc_array((size_t)model->config.num_layers, sizeof *model->layers);
  const int failed = !model->layers || (model->config.gru ? sw_gru_declare(model) : declare_parameters(model));
  if (failed || declare_heads(model, checkpoint) || (model->mlm && sw_mlm_declare(model)) || load_parameters(stream, model, checkpoint) ||
      place_prepared(stream, model, NULL, &bytes))
    return -1;
  model->prepared = model->device->alloc(model->device, bytes);
  if (!model->prepared || place_prepared(stream, model, model->prepared, &bytes)) return -1;
  return sw_model_prepare(stream, model);
}

static int open_with(sw_stream *stream, const sw_checkpoint *checkpoint, sw_dtype dtype, sw_model_use use, int mlm, sw_model **out) {
  *out = NULL;
  sw_model *model = sw_alloc(sizeof *model);
  if (!model) return -1;
  model->device = stream->device;
  model->dtype = dtype;
  model->training = use;
  if ((mlm && !(model->mlm = sw_alloc(sizeof *model->mlm))) || open_model(stream, checkpoint, model)) {
    sw_model_close(model);
    return -1;
  }
  *out = model;
  return 0;
}

int sw_model_open(sw_stream *stream, const sw_checkpoint *checkpoint, sw_dtype dtype, sw_model_use use, sw_model **out) {
  return open_with(stream, checkpoint, dtype, use, 0, out);
}

int sw_model_open_mlm(sw_stream *stream, const sw_checkpoint *checkpoint, sw_dtype dtype, sw_model_use use, sw_model **out) {
  return open_with(stream, checkpoint, dtype, use, 1, out);
}

void sw_model_close(sw_model *model) {
  if (!model) return;
  for (size_t i = 0; i < model->num_parameters; i++) free(model->parameters[i].name);
  for (size_t i = 0; i < model->num_heads; i++) {
    sw_model_head *head = &model->heads[i];
    for (int k = 0; head->labels && k < head->num_labels; k++) free(head->labels[k]);
    free(head->labels);
    free(head->name);
    free(head->task);
  }
  if (model->values) model->device->release(model->device, model->values);
  if (model->prepared) model->device->release(model->device, model->prepared);
  free(model->parameters);
  free(model->heads);
  free(model->layers);
  free(model->mlm);
  free(model->gru);
  free(model);
}

int sw_model_save(sw_stream *stream, const sw_model *model, sw_checkpoint *checkpoint) {
  for (size_t i = 0; i < model->num_parameters; i++) {
    const sw_parameter *p = &model->parameters[i];
    sw_tensor *t = sw_tensors_find(&checkpoint->weights, p->name);
    if (t && t->dtype != SW_F32) { /* trained weights are kept in full */
      free(t->data);
      t->dtype = SW_F32;
      if (!(t->data = sw_alloc_aligned(p->count * sizeof(float)))) return -1;
    }
    if (!t) t = sw_tensors_add(&checkpoint->weights, p->name, SW_F32, p->rank, p->shape);
    if (!t || model->device->copy_out(stream, t->data, model->values + p->offset, p->count * sizeof(float))) return -1;
  }
  return model->device->synchronize(stream);
}

const sw_model_head *sw_model_find_head(const sw_model *model, const char *name) {
  for (size_t i = 0; i < model->num_heads; i++)
    if (!strcmp(model->heads[i].name, name)) return &model->heads[i];
  return NULL;
}
