/* config.json (Hugging Face's key names) -> sw_model_config. */
#include "base/error.h"
#include "engine/model/model.h"

#include <math.h>
#include <string.h>

static int read_int(const json_t *config, const char *key, int fallback, int low, int high, int *out) {
  const json_t *value = json_object_get(config, key);
  if (!value || json_is_null(value)) {
    if (fallback < 0) return sw_fail("config: '%s' is missing", key);
    *out = fallback;
    return 0;
  }
  if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
    return sw_fail("config: '%s' must be a whole number from %d to %d", key, low, high);
  *out = (int)json_integer_value(value);
  return 0;
}

static int read_float(const json_t *config, const char *key, double fallback, double low, double high, float *out) {
  const json_t *value = json_object_get(config, key);
  double v = json_is_number(value) ? json_number_value(value) : fallback;
  if ((value && !json_is_null(value) && !json_is_number(value)) || !(v >= low && v <= high))
    return sw_fail("config: '%s' must be a number from %g to %g", key, low, high);
  *out = (float)v;
  return 0;
}

static int read_activation(const json_t *config, const char *key, sw_activation *out) {
  static const struct {
    const char *name;
    sw_activation activation;
  } known[] = {{"gelu", SW_GELU}, {"gelu_python", SW_GELU}, {"gelu_new", SW_GELU_TANH}, {"gelu_pytorch_tanh", SW_GELU_TANH}, {"relu", SW_RELU}};
  const char *name = json_string_value(json_object_get(config, key));
  if (!name) name = "gelu";
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(name, known[i].name)) {
      *out = known[i].activation;
      return 0;
    }
  return sw_fail("config: activation '%s' is not supported (gelu, gelu_new, gelu_pytorch_tanh or relu)", name);
}

static int parse_gru(const json_t *config, sw_model_config *out) {
  out->gru = out->num_heads = 1;
  return read_int(config, "vocab_size", -1, 1, 1 << 24, &out->vocab_size) ||
                 read_int(config, "embedding_size", -1, 1, 1 << 13, &out->embedding_size) ||
                 read_int(config, "hidden_size", -1, 1, 1024, &out->hidden_size) ||
                 read_int(config, "max_position_embeddings", -1, 1, 1 << 16, &out->max_positions) ||
                 read_float(config, "hidden_dropout_prob", 0, 0, 0.99, &out->hidden_dropout)
             ? -1
             : (out->max_seq_length = out->max_positions, 0);
}

int sw_model_config_parse(const json_t *config, sw_model_config *out) {
  *out = (sw_model_config){0};
  const char *type = json_string_value(json_object_get(config, "model_type"));
  if (!type) type = "bert";
  if (!strcmp(type, "gru")) return parse_gru(config, out);
  out->distilbert = !strcmp(type, "distilbert");
  if (!strcmp(type, "lda")) return sw_fail("it holds topics (of skillwatch train topics), and no encoder: skillwatch infer topics reads it");
  if (!out->distilbert && strcmp(type, "bert"))
    return sw_fail("config: model_type '%s' is not supported (bert, distilbert or gru)", type);
  const char *position = json_string_value(json_object_get(config, "position_embedding_type"));
  if (position && strcmp(position, "absolute"))
    return sw_fail("config: position_embedding_type '%s' is not supported (absolute only)", position);
  const int d = out->distilbert;
  if (read_int(config, "vocab_size", -1, 1, 1 << 24, &out->vocab_size) ||
      read_int(config, d ? "dim" : "hidden_size", -1, 1, 1 << 14, &out->hidden_size) ||
      read_int(config, d ? "n_layers" : "num_hidden_layers", -1, 1, 256, &out->num_layers) ||
      read_int(config, d ? "n_heads" : "num_attention_heads", -1, 1, 1 << 10, &out->num_heads) ||
      read_int(config, d ? "hidden_dim" : "intermediate_size", -1, 1, 1 << 16, &out->intermediate_size) ||
      read_int(config, "max_position_embeddings", 512, 2, 1024, &out->max_positions) ||
      read_int(config, "type_vocab_size", d ? 0 : 2, 0, 1 << 10, &out->type_vocab_size) ||
      read_float(config, "layer_norm_eps", 1e-12, 0, 1, &out->layer_norm_eps) ||
      read_float(config, d ? "dropout" : "hidden_dropout_prob", 0.1, 0, 0.99, &out->hidden_dropout) ||
      read_float(config, d ? "attention_dropout" : "attention_probs_dropout_prob", 0.1, 0, 0.99, &out->attention_dropout) ||
      read_activation(config, d ? "activation" : "hidden_act", &out->activation))
    return -1;
  if (d) out->type_vocab_size = 0;
  if (out->hidden_size % out->num_heads)
    return sw_fail("config: hidden size %d is not a multiple of %d heads", out->hidden_size, out->num_heads);
  if (out->hidden_size / out->num_heads > 256)
    return sw_fail("config: heads of size %d are not supported (at most 256)", out->hidden_size / out->num_heads);

  const json_t *own = json_object_get(config, "skillwatch");
  const char *pooling = json_string_value(json_object_get(own, "pooling"));
  if (!pooling || !strcmp(pooling, "mean"))
    out->pooling = SW_POOL_MEAN;
  else if (!strcmp(pooling, "cls"))
    out->pooling = SW_POOL_CLS;
  else if (!strcmp(pooling, "max"))
    out->pooling = SW_POOL_MAX;
  else
    return sw_fail("config: pooling '%s' is not supported (mean, cls or max)", pooling);
  out->normalize = json_is_true(json_object_get(own, "normalize"));
  if (read_int(own, "max_seq_length", out->max_positions, 2, 1 << 30, &out->max_seq_length)) return -1;
  if (out->max_seq_length > out->max_positions) out->max_seq_length = out->max_positions;
  return 0;
}
