#include "engine/store/encoder.h"
#include "base/error.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <string.h>

enum { MAX_LAYERS = 512, MAX_WIDTH = 1 << 17 };

/* Tensors by pattern: %d is the layer; the letters give the shape.
 * V words, P positions, T types, H hidden, F feed-forward. */
typedef struct {
  const char *name, *shape;
  int optional; /* 0: always there; n: of the optional group n, checked when present */
} tensor_rule;

static const tensor_rule bert_rules[] = {
    {"embeddings.word_embeddings.weight", "VH", 0},
    {"embeddings.position_embeddings.weight", "PH", 0},
    {"embeddings.token_type_embeddings.weight", "TH", 0},
    {"embeddings.LayerNorm.weight", "H", 0},
    {"embeddings.LayerNorm.bias", "H", 0},
    {"encoder.layer.%d.attention.self.query.weight", "HH", 0},
    {"encoder.layer.%d.attention.self.query.bias", "H", 0},
    {"encoder.layer.%d.attention.self.key.weight", "HH", 0},
    {"encoder.layer.%d.attention.self.key.bias", "H", 0},
    {"encoder.layer.%d.attention.self.value.weight", "HH", 0},
    {"encoder.layer.%d.attention.self.value.bias", "H", 0},
    {"encoder.layer.%d.attention.output.dense.weight", "HH", 0},
    {"encoder.layer.%d.attention.output.dense.bias", "H", 0},
    {"encoder.layer.%d.attention.output.LayerNorm.weight", "H", 0},
    {"encoder.layer.%d.attention.output.LayerNorm.bias", "H", 0},
    {"encoder.layer.%d.intermediate.dense.weight", "FH", 0},
    {"encoder.layer.%d.intermediate.dense.bias", "F", 0},
    {"encoder.layer.%d.output.dense.weight", "HF", 0},
    {"encoder.layer.%d.output.dense.bias", "H", 0},
    {"encoder.layer.%d.output.LayerNorm.weight", "H", 0},
    {"encoder.layer.%d.output.LayerNorm.bias", "H", 0},
    {"pooler.dense.weight", "HH", 1},
    {"pooler.dense.bias", "H", 1},
    {"cls.predictions.transform.dense.weight", "HH", 2},
    {"cls.predictions.transform.dense.bias", "H", 2},
    {"cls.predictions.transform.LayerNorm.weight", "H", 2},
    {"cls.predictions.transform.LayerNorm.bias", "H", 2},
    {"cls.predictions.bias", "V", 2},
    {"cls.predictions.decoder.weight", "VH", 3},
    {NULL, NULL, 0},
};

static const tensor_rule distilbert_rules[] = {
    {"embeddings.word_embeddings.weight", "VH", 0},
    {"embeddings.position_embeddings.weight", "PH", 0},
    {"embeddings.LayerNorm.weight", "H", 0},
    {"embeddings.LayerNorm.bias", "H", 0},
    {"transformer.layer.%d.attention.q_lin.weight", "HH", 0},
    {"transformer.layer.%d.attention.q_lin.bias", "H", 0},
    {"transformer.layer.%d.attention.k_lin.weight", "HH", 0},
    {"transformer.layer.%d.attention.k_lin.bias", "H", 0},
    {"transformer.layer.%d.attention.v_lin.weight", "HH", 0},
    {"transformer.layer.%d.attention.v_lin.bias", "H", 0},
    {"transformer.layer.%d.attention.out_lin.weight", "HH", 0},
    {"transformer.layer.%d.attention.out_lin.bias", "H", 0},
    {"transformer.layer.%d.sa_layer_norm.weight", "H", 0},
    {"transformer.layer.%d.sa_layer_norm.bias", "H", 0},
    {"transformer.layer.%d.ffn.lin1.weight", "FH", 0},
    {"transformer.layer.%d.ffn.lin1.bias", "F", 0},
    {"transformer.layer.%d.ffn.lin2.weight", "HF", 0},
    {"transformer.layer.%d.ffn.lin2.bias", "H", 0},
    {"transformer.layer.%d.output_layer_norm.weight", "H", 0},
    {"transformer.layer.%d.output_layer_norm.bias", "H", 0},
    {"vocab_transform.weight", "HH", 2},
    {"vocab_transform.bias", "H", 2},
    {"vocab_layer_norm.weight", "H", 2},
    {"vocab_layer_norm.bias", "H", 2},
    {"vocab_projector.bias", "V", 2},
    {"vocab_projector.weight", "VH", 3},
    {NULL, NULL, 0},
};

static int is_distilbert(const json_t *config) {
  const char *type = sw_json_string(config, "model_type");
  return type && !strcmp(type, "distilbert");
}

int sw_encoder_is_known(const json_t *config) {
  const char *type = sw_json_string(config, "model_type");
  return type && (!strcmp(type, "bert") || !strcmp(type, "distilbert"));
}

void sw_shape_text(int rank, const int64_t *shape, char text[96]) {
  size_t used = 0;
  text[0] = 0;
  if (!rank) snprintf(text, 96, "(one number)");
  for (int i = 0; i < rank && used < 80; i++)
    used += (size_t)snprintf(text + used, 96 - used, "%s%lld", i ? "x" : "", (long long)shape[i]);
}

static int set_default(json_t *config, const char *key, json_t *value) {
  const json_t *present = json_object_get(config, key);
  if (present && !json_is_null(present)) {
    json_decref(value);
    return 0;
  }
  return json_object_set_new(config, key, value) ? sw_fail("out of memory") : 0;
}

static int check_size(const json_t *config, const char *key, int64_t high, const char *what) {
  int64_t value;
  if (sw_json_integer(config, key, 1, high, 0, what, &value)) return -1;
  return value ? 0 : sw_fail("%s: \"%s\" is missing", what, key);
}

static int check_sizes(const json_t *config, const char *what) {
  int distil = is_distilbert(config);
  const char *hidden = distil ? "dim" : "hidden_size", *heads = distil ? "n_heads" : "num_attention_heads";
  if (check_size(config, "vocab_size", 1 << 28, what) || check_size(config, hidden, MAX_WIDTH, what) ||
      check_size(config, distil ? "hidden_dim" : "intermediate_size", 4 * MAX_WIDTH, what) ||
      check_size(config, distil ? "n_layers" : "num_hidden_layers", MAX_LAYERS, what) ||
      check_size(config, heads, MAX_WIDTH, what) || check_size(config, "max_position_embeddings", 1 << 24, what) ||
      (!distil && check_size(config, "type_vocab_size", 1 << 16, what)))
    return -1;
  long long width = json_integer_value(json_object_get(config, hidden)),
            count = json_integer_value(json_object_get(config, heads));
  if (count && width % count)
    return sw_fail("%s: %s %lld is not a multiple of %s %lld", what, hidden, width, heads, count);
  return 0;
}

/* sw_json_integer also takes 384.0 (every number becomes a real where one does not fit 64 bits); keep integers from
 * here on. */
static int reals_to_integers(json_t *config) {
  const char *const keys[] = {
      "vocab_size", "hidden_size",         "dim",     "intermediate_size",       "hidden_dim",      "num_hidden_layers",
      "n_layers",   "num_attention_heads", "n_heads", "max_position_embeddings", "type_vocab_size", "pad_token_id"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const json_t *value = json_object_get(config, keys[i]);
    double v = json_real_value(value);
    if (json_is_real(value) && v == (double)(int32_t)v &&
        json_object_set_new(config, keys[i], json_integer((int32_t)v)))
      return sw_fail("out of memory");
  }
  return 0;
}

int sw_encoder_check_config(json_t *config, const char *what) {
  if (!json_is_object(config)) return sw_fail("%s: a JSON object was expected", what);
  const char *type = sw_json_string(config, "model_type");
  if (!type) return sw_fail("%s: \"model_type\" is missing; it should be \"bert\" or \"distilbert\"", what);
  if (!sw_encoder_is_known(config))
    return sw_fail("%s: models of type \"%.64s\" are not supported, only bert and distilbert", what, type);
  int distil = is_distilbert(config), decoder, cross;
  const char *positions = sw_json_string(config, "position_embedding_type");
  if (positions && strcmp(positions, "absolute"))
    return sw_fail("%s: position_embedding_type \"%.64s\" is not supported, only \"absolute\"", what, positions);
  const char *key = distil ? "activation" : "hidden_act", *activation = sw_json_string(config, key);
  if (json_object_get(config, key) && !activation) return sw_fail("%s: \"%s\" should be a string", what, key);
  static const char *const activations[] = {"gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "relu"};
  int known = !activation;
  for (size_t i = 0; i < sizeof activations / sizeof *activations && !known; i++)
    known = !strcmp(activation, activations[i]);
  if (!known)
    return sw_fail("%s: %s \"%.64s\" is not supported, only gelu, gelu_new, gelu_pytorch_tanh and relu", what, key,
                   activation);
  if (sw_json_boolean(config, "is_decoder", 0, what, &decoder) ||
      sw_json_boolean(config, "add_cross_attention", 0, what, &cross))
    return -1;
  if (decoder || cross)
    return sw_fail("%s: this is a decoder (is_decoder or add_cross_attention is true); an encoder is needed", what);
  const json_t *pruned = json_object_get(config, "pruned_heads");
  if (json_object_size(pruned) || json_array_size(pruned))
    return sw_fail("%s: models with pruned_heads are not supported", what);
  int status = set_default(config, "vocab_size", json_integer(30522)) ||
               set_default(config, "max_position_embeddings", json_integer(512)) ||
               set_default(config, "initializer_range", json_real(0.02)) ||
               set_default(config, "pad_token_id", json_integer(0));
  if (distil)
    status = status || set_default(config, "dim", json_integer(768)) ||
             set_default(config, "n_layers", json_integer(6)) || set_default(config, "n_heads", json_integer(12)) ||
             set_default(config, "hidden_dim", json_integer(3072)) || set_default(config, "dropout", json_real(0.1)) ||
             set_default(config, "attention_dropout", json_real(0.1)) ||
             set_default(config, "activation", json_string("gelu"));
  else
    status = status || set_default(config, "hidden_size", json_integer(768)) ||
             set_default(config, "num_hidden_layers", json_integer(12)) ||
             set_default(config, "num_attention_heads", json_integer(12)) ||
             set_default(config, "intermediate_size", json_integer(3072)) ||
             set_default(config, "hidden_dropout_prob", json_real(0.1)) ||
             set_default(config, "type_vocab_size", json_integer(2)) ||
             set_default(config, "attention_probs_dropout_prob", json_real(0.1)) ||
             set_default(config, "layer_norm_eps", json_real(1e-12)) ||
             set_default(config, "hidden_act", json_string("gelu"));
  const char *const fractions[] = {"hidden_dropout_prob", "attention_probs_dropout_prob", "dropout",
                                   "attention_dropout", "layer_norm_eps"};
  for (size_t i = 0; !status && i < sizeof fractions / sizeof *fractions; i++) {
    const json_t *value = json_object_get(config, fractions[i]);
    if (value && !(json_is_number(value) && json_number_value(value) >= 0 && json_number_value(value) < 1))
      return sw_fail("%s: \"%s\" should be a number of at least 0 and below 1", what, fractions[i]);
  }
  return status || reals_to_integers(config) || check_sizes(config, what) ? -1 : 0;
}

static int64_t size_of(const json_t *config, char letter) {
  int distil = is_distilbert(config);
  const char *key = letter == 'V'   ? "vocab_size"
                    : letter == 'P' ? "max_position_embeddings"
                    : letter == 'T' ? "type_vocab_size"
                    : letter == 'H' ? (distil ? "dim" : "hidden_size")
                                    : (distil ? "hidden_dim" : "intermediate_size");
  return json_integer_value(json_object_get(config, key));
}

static int check_tensor(const json_t *config, const sw_tensors *weights, const tensor_rule *rule, int layer,
                        const char *what) {
  char name[128], wanted_text[96], found_text[96];
  if (strstr(rule->name, "%d")) {
    const char *at = strstr(rule->name, "%d");
    snprintf(name, sizeof name, "%.*s%d%s", (int)(at - rule->name), rule->name, layer, at + 2);
  } else {
    snprintf(name, sizeof name, "%s", rule->name);
  }
  int64_t wanted[2] = {0, 0};
  int rank = (int)strlen(rule->shape);
  for (int i = 0; i < rank; i++) wanted[i] = size_of(config, rule->shape[i]);
  sw_shape_text(rank, wanted, wanted_text);
  const sw_tensor *tensor = sw_tensors_find(weights, name);
  if (!tensor) return sw_fail("%s: tensor %s [%s] is missing", what, name, wanted_text);
  if (tensor->rank != rank || tensor->shape[0] != wanted[0] || (rank == 2 && tensor->shape[1] != wanted[1])) {
    sw_shape_text(tensor->rank, tensor->shape, found_text);
    return sw_fail("%s: tensor %s is [%s], the config asks for [%s]", what, name, found_text, wanted_text);
  }
  return 0;
}

int sw_encoder_check_weights(const json_t *config, const sw_tensors *weights, const char *what) {
  if (check_sizes(config, what)) return -1;
  int distil = is_distilbert(config);
  int layers = (int)json_integer_value(json_object_get(config, distil ? "n_layers" : "num_hidden_layers"));
  const tensor_rule *rules = distil ? distilbert_rules : bert_rules;
  int present[4] = {1, 0, 0, 0};
  for (const tensor_rule *rule = rules; rule->name; rule++)
    if (rule->optional && sw_tensors_find(weights, rule->name)) present[rule->optional] = 1;
  for (const tensor_rule *rule = rules; rule->name; rule++) {
    if (!present[rule->optional]) continue;
    int repeats = strstr(rule->name, "%d") ? layers : 1;
    for (int layer = 0; layer < repeats; layer++)
      if (check_tensor(config, weights, rule, layer, what)) return -1;
  }
  return 0;
}

int sw_encoder_owns(const json_t *config, const char *name) {
  for (const tensor_rule *rule = is_distilbert(config) ? distilbert_rules : bert_rules; rule->name; rule++) {
    const char *at = strstr(rule->name, "%d");
    if (!at) {
      if (!strcmp(name, rule->name)) return 1;
      continue;
    }
    size_t before = (size_t)(at - rule->name), digits;
    if (strncmp(name, rule->name, before)) continue;
    digits = strspn(name + before, "0123456789");
    if (digits && !strcmp(name + before + digits, at + 2)) return 1;
  }
  return 0;
}
