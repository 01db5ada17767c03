/* From a Hugging Face model to a checkpoint: the config, sentence-transformers' side files, the weights under their own
 * names. */
#include "engine/store/import.h"
#include "base/error.h"
#include "engine/store/encoder.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATH = 512, MAX_FILE = 64 << 20, MAX_SHARDS = 1024 };

static int join(char out[MAX_PATH], const char *prefix, const char *name) {
  return snprintf(out, MAX_PATH, "%s%s", prefix, name) < MAX_PATH
             ? 0
             : sw_fail("the path %s%.64s... is too long", prefix, name);
}

int sw_import_json(const sw_model_source *source, const char *prefix, const char *name, int optional, json_t **out) {
  char path[MAX_PATH], what[2 * MAX_PATH];
  *out = NULL;
  if (join(path, prefix, name)) return -1;
  snprintf(what, sizeof what, "%s: %s", source->what, path);
  if (!source->has(source->self, path)) return optional ? 0 : sw_fail("%s is missing", what);
  sw_buffer text = {0};
  if (!source->read(source->self, path, MAX_FILE, &text)) *out = sw_json_parse(text.data, text.size, what);
  sw_buffer_close(&text);
  if (*out && !json_is_object(*out) && !json_is_array(*out)) {
    json_decref(*out);
    *out = NULL;
    return sw_fail("%s: a JSON object is expected", what);
  }
  return *out ? 0 : -1;
}

/* --- sentence-transformers: modules.json, 1_Pooling/config.json, sentence_bert_config.json */

typedef struct {
  char transformer[MAX_PATH]; /* "" or "0_Transformer/" */
  char pooling_at[MAX_PATH];  /* "1_Pooling/"; "" = none */
  const char *pooling;
  int normalize;
} sentence_modules;

static int folder_prefix(const sw_model_source *source, const json_t *module, char out[MAX_PATH]) {
  const char *path = sw_json_string(module, "path");
  if (!path) path = "";
  if (path[0] == '/' || strstr(path, ".."))
    return sw_fail("%s: modules.json names the path %.64s outside the model", source->what, path);
  size_t length = strlen(path);
  return join(out, path, length && path[length - 1] != '/' ? "/" : "");
}

static int read_modules(const sw_model_source *source, sentence_modules *m) {
  json_t *list;
  if (sw_import_json(source, "", "modules.json", 1, &list)) return -1;
  if (!list) {
    if (source->has(source->self, "1_Pooling/config.json")) snprintf(m->pooling_at, MAX_PATH, "1_Pooling/");
    return 0;
  }
  size_t i;
  const json_t *module;
  int status = 0;
  json_array_foreach(list, i, module) {
    const char *type = sw_json_string(module, "type"), *dot = type ? strrchr(type, '.') : NULL;
    const char *name = dot ? dot + 1 : type ? type : "(none)";
    if (!strcmp(name, "Transformer"))
      status = folder_prefix(source, module, m->transformer);
    else if (!strcmp(name, "Pooling"))
      status = folder_prefix(source, module, m->pooling_at);
    else if (!strcmp(name, "Normalize"))
      m->normalize = 1;
    else
      status =
          sw_fail("%s: modules.json asks for a %.64s module; only Transformer, Pooling and Normalize are supported",
                  source->what, name);
    if (status) break;
  }
  json_decref(list);
  return status;
}

static int read_pooling(const sw_model_source *source, sentence_modules *m) {
  static const struct {
    const char *flag, *pooling;
  } flags[] = {{"pooling_mode_mean_tokens", "mean"},       {"pooling_mode_cls_token", "cls"},
               {"pooling_mode_max_tokens", "max"},         {"pooling_mode_mean_sqrt_len_tokens", NULL},
               {"pooling_mode_weightedmean_tokens", NULL}, {"pooling_mode_lasttoken", NULL}};
  m->pooling = "mean";
  if (!m->pooling_at[0]) return 0;
  json_t *config;
  if (sw_import_json(source, m->pooling_at, "config.json", 0, &config)) return -1;
  const char *mode = sw_json_string(config, "pooling_mode"), *found = NULL; /* the newer form: one name */
  int count = 0, status = 0, on;
  if (mode) {
    found = !strcmp(mode, "mean") ? "mean" : !strcmp(mode, "cls") ? "cls" : !strcmp(mode, "max") ? "max" : NULL;
    if (!found)
      status = sw_fail("%s: pooling_mode \"%.64s\" is not supported, only mean, cls and max", source->what, mode);
  } else {
    for (size_t i = 0; !status && i < sizeof flags / sizeof *flags; i++) {
      status = sw_json_boolean(config, flags[i].flag, 0, source->what, &on);
      if (status || !on) continue;
      count++;
      found = flags[i].pooling;
      if (!found)
        status = sw_fail("%s: %s is not supported, only mean, cls and max pooling", source->what, flags[i].flag);
    }
    if (!status && count != 1)
      status = sw_fail("%s: %d ways of pooling are switched on, exactly one is supported", source->what, count);
  }
  json_decref(config);
  if (!status) m->pooling = found;
  return status;
}

/* Adds "skillwatch" to the config, and what sentence_bert_config.json says to the tokenizer's options. */
static int add_settings(const sw_model_source *source, const sentence_modules *m, sw_checkpoint *out) {
  json_t *sentence;
  if (sw_import_json(source, m->transformer, "sentence_bert_config.json", 1, &sentence)) return -1;
  int64_t positions = json_integer_value(json_object_get(out->config, "max_position_embeddings")), length;
  int64_t own = out->tokenizer.model_max_length > 0 && out->tokenizer.model_max_length < positions
                    ? out->tokenizer.model_max_length
                    : positions;
  int lower = 0;
  int status = sw_json_integer(sentence, "max_seq_length", 3, 1 << 24, own, source->what, &length) ||
                       sw_json_boolean(sentence, "do_lower_case", 0, source->what, &lower)
                   ? -1
                   : 0;
  json_decref(sentence);
  if (status) return -1;
  if (lower && !out->tokenizer
                    .do_lower_case) { /* sentence-transformers lowers the text itself, and leaves accents as they are */
    out->tokenizer.do_lower_case = 1;
    if (out->tokenizer.strip_accents < 0) out->tokenizer.strip_accents = 0;
  }
  if (length > positions) length = positions;
  json_t *settings = json_pack("{s:s, s:b, s:I}", "pooling", m->pooling, "normalize", m->normalize, "max_seq_length",
                               (json_int_t)length);
  return json_object_set_new(out->config, "skillwatch", settings) ? sw_fail("out of memory") : 0;
}

/* --- weights */

static int read_shards(const sw_model_source *source, const char *prefix, sw_tensors *out) {
  json_t *index;
  char what[2 * MAX_PATH], path[MAX_PATH];
  snprintf(what, sizeof what, "%s: model.safetensors.index.json", source->what);
  if (sw_import_json(source, prefix, "model.safetensors.index.json", 0, &index)) return -1;
  json_t *map = json_object_get(index, "weight_map"), *file;
  const char *name, *shards[MAX_SHARDS];
  size_t count = 0;
  int status = json_object_size(map) ? 0 : sw_fail("%s: no weight_map", what);
  json_object_foreach(map, name, file) {
    const char *shard = json_string_value(file);
    size_t i = 0, length = shard ? strlen(shard) : 0;
    if (length < 13 || strcmp(shard + length - 12, ".safetensors") || strchr(shard, '/') || strchr(shard, '\\')) {
      status = sw_fail("%s: the file of %s is not the name of a .safetensors file", what, name);
      break;
    }
    while (i < count && strcmp(shards[i], shard)) i++;
    if (i < count) continue;
    if (count == MAX_SHARDS) {
      status = sw_fail("%s: more than %d files", what, MAX_SHARDS);
      break;
    }
    shards[count++] = shard;
  }
  for (size_t i = 0; !status && i < count; i++) {
    if ((status = join(path, prefix, shards[i]))) break;
    status = source->has(source->self, path)
                 ? source->tensors(source->self, path, out)
                 : sw_fail("%s: %s is missing, which model.safetensors.index.json names", source->what, path);
  }
  json_decref(index);
  return status;
}

static int read_weights(const sw_model_source *source, const char *prefix, sw_tensors *out) {
  char path[MAX_PATH], other[MAX_PATH];
  if (join(path, prefix, "model.safetensors")) return -1;
  if (source->has(source->self, path)) return source->tensors(source->self, path, out);
  if (join(other, prefix, "model.safetensors.index.json")) return -1;
  if (source->has(source->self, other)) return read_shards(source, prefix, out);
  if (join(other, prefix, "pytorch_model.bin")) return -1;
  if (source->has(source->self, other))
    return sw_fail("%s holds pytorch_model.bin, which can run code when it is read; convert it once with transformers: "
                   "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)",
                   source->what);
  return sw_fail("%s: %s is missing", source->what, path);
}

static int rename_tensor(sw_tensor *tensor, const char *name) {
  char *copy = sw_strdup(name);
  if (!copy) return -1;
  free(tensor->name);
  tensor->name = copy;
  return 0;
}

static int ends_with(const char *text, const char *end) {
  size_t a = strlen(text), b = strlen(end);
  return a >= b && !strcmp(text + a - b, end);
}

/* "bert.embeddings.LayerNorm.gamma" becomes "embeddings.LayerNorm.weight" */
static int bring_to_own_name(sw_tensor *tensor, const char *model_type) {
  size_t length = strlen(model_type);
  char name[MAX_PATH];
  const char *from = tensor->name;
  if (strlen(from) >= MAX_PATH - 8) return sw_fail("the name of tensor %.64s... is too long", from);
  if (!strncmp(from, model_type, length) && from[length] == '.') from += length + 1;
  snprintf(name, sizeof name, "%s", from);
  if (ends_with(name, "LayerNorm.gamma")) strcpy(name + strlen(name) - 5, "weight");
  if (ends_with(name, "LayerNorm.beta")) strcpy(name + strlen(name) - 4, "bias");
  return strcmp(name, tensor->name) ? rename_tensor(tensor, name) : 0;
}

static int same_tensor(const sw_tensor *a, const sw_tensor *b) {
  return a && b && a->dtype == b->dtype && a->rank == b->rank && !memcmp(a->shape, b->shape, sizeof a->shape) &&
         !memcmp(a->data, b->data, (size_t)sw_tensor_elements(a) * sw_dtype_bytes(a->dtype));
}

/* The masked-language-model decoder usually is the word embedding again: one copy is enough. */
static int drop_tied(sw_tensors *weights) {
  static const char *const pairs[][2] = {{"cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"},
                                         {"vocab_projector.weight", "embeddings.word_embeddings.weight"},
                                         {"cls.predictions.decoder.bias", "cls.predictions.bias"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    sw_tensor *copy = sw_tensors_find(weights, pairs[i][0]);
    if (copy && same_tensor(copy, sw_tensors_find(weights, pairs[i][1]))) sw_tensors_remove(weights, copy);
  }
  sw_tensor *bias = sw_tensors_find(weights, "cls.predictions.decoder.bias");
  return bias && !sw_tensors_find(weights, "cls.predictions.bias") ? rename_tensor(bias, "cls.predictions.bias") : 0;
}

/* A token classifier becomes the head "tags", its labels in the order of their ids. */
static int take_classifier(const sw_model_source *source, const json_t *architectures, const json_t *id2label,
                           sw_checkpoint *out) {
  const char *architecture = json_string_value(json_array_get(architectures, 0));
  sw_tensor *weight = sw_tensors_find(&out->weights, "classifier.weight"),
            *bias = sw_tensors_find(&out->weights, "classifier.bias");
  if (!architecture || !strstr(architecture, "ForTokenClassification")) return 0;
  if (!weight || !bias || weight->rank != 2 || bias->rank != 1 || bias->shape[0] != weight->shape[0])
    return sw_fail("%s: config.json says %.64s, but classifier.weight and classifier.bias are missing or do not fit",
                   source->what, architecture);
  size_t count = (size_t)weight->shape[0];
  if (count > 1 << 16 || !count) return sw_fail("%s: a classifier with %zu labels", source->what, count);
  if (id2label && json_object_size(id2label) != count)
    return sw_fail("%s: id2label of config.json has %zu labels, classifier.weight %zu rows", source->what,
                   json_object_size(id2label), count);
  const char **labels = sw_alloc_array(count, sizeof *labels);
  enum { ROOM = 32 };
  char *made = sw_alloc_array(count, ROOM);
  int status = labels && made ? 0 : -1;
  for (size_t i = 0; !status && i < count; i++) {
    char id[24];
    snprintf(id, sizeof id, "%zu", i);
    snprintf(made + ROOM * i, ROOM, "LABEL_%zu", i);
    labels[i] = id2label ? sw_json_string(id2label, id) : made + ROOM * i;
    if (!labels[i] || !labels[i][0])
      status = sw_fail("%s: id2label of config.json has no label for \"%s\"", source->what, id);
  }
  if (!status) status = sw_checkpoint_add_head(out, "tags", "token", labels, count);
  free(labels);
  free(made);
  return status || rename_tensor(weight, "heads.tags.weight") || rename_tensor(bias, "heads.tags.bias") ? -1 : 0;
}

static int compare_names(const void *a, const void *b) {
  return strcmp((*(sw_tensor *const *)a)->name, (*(sw_tensor *const *)b)->name);
}

static int refuse_doubles(const sw_model_source *source, const sw_tensors *weights) {
  sw_tensor **sorted = sw_alloc_array(weights->count, sizeof *sorted);
  if (!sorted) return -1;
  for (size_t i = 0; i < weights->count; i++) sorted[i] = &weights->items[i];
  qsort(sorted, weights->count, sizeof *sorted, compare_names);
  int status = 0;
  for (size_t i = 1; !status && i < weights->count; i++)
    if (!strcmp(sorted[i - 1]->name, sorted[i]->name))
      status = sw_fail("%s: two tensors are named %s", source->what, sorted[i]->name);
  free(sorted);
  return status;
}

/* Takes out what no part of the program uses (other heads) and lists the names. */
static int leave_out(sw_checkpoint *out, json_t *left_out) {
  for (size_t i = out->weights.count; i-- > 0;) {
    sw_tensor *tensor = &out->weights.items[i];
    if (!strncmp(tensor->name, "heads.", 6) || sw_encoder_owns(out->config, tensor->name)) continue;
    if (json_array_insert_new(left_out, 0, json_string(tensor->name)))
      return sw_fail("out of memory, or a tensor's name is not valid UTF-8");
    sw_tensors_remove(&out->weights, tensor);
  }
  return 0;
}

static int import_weights(const sw_model_source *source, const char *prefix, const json_t *architectures,
                          const json_t *id2label, json_t *left_out, sw_checkpoint *out) {
  const char *model_type = sw_json_string(out->config, "model_type");
  if (read_weights(source, prefix, &out->weights)) return -1;
  for (size_t i = 0; i < out->weights.count; i++) {
    sw_tensor *tensor = &out->weights.items[i];
    if (!strncmp(tensor->name, "heads.", 6))
      return sw_fail("%s: a tensor named %s cannot be imported", source->what, tensor->name);
    if (bring_to_own_name(tensor, model_type)) return -1;
  }
  if (refuse_doubles(source, &out->weights) || drop_tied(&out->weights) ||
      take_classifier(source, architectures, id2label, out) || leave_out(out, left_out) ||
      sw_encoder_check_weights(out->config, &out->weights, source->what))
    return -1;
  const sw_tensor *words = sw_tensors_find(&out->weights, "embeddings.word_embeddings.weight");
  const sw_tensor *head = sw_tensors_find(&out->weights, "heads.tags.weight");
  if (head && head->shape[1] != words->shape[1])
    return sw_fail("%s: classifier.weight has %lld columns, the encoder is %lld wide", source->what,
                   (long long)head->shape[1], (long long)words->shape[1]);
  if ((int64_t)out->vocab_size > words->shape[0])
    return sw_fail(
        "%s: the vocabulary has %zu tokens, but the embedding only %lld rows: the tokenizer belongs to another model",
        source->what, out->vocab_size, (long long)words->shape[0]);
  return 0;
}

static int import_all(const sw_model_source *source, json_t *left_out, sw_checkpoint *out) {
  sentence_modules modules = {0};
  char what[2 * MAX_PATH];
  if (read_modules(source, &modules) || read_pooling(source, &modules) ||
      sw_import_json(source, modules.transformer, "config.json", 0, &out->config))
    return -1;
  snprintf(what, sizeof what, "%s: %sconfig.json", source->what, modules.transformer);
  if (sw_encoder_check_config(out->config, what) || sw_import_tokenizer(source, modules.transformer, out)) return -1;
  json_t *architectures = json_incref(json_object_get(out->config, "architectures")),
         *id2label = json_incref(json_object_get(out->config, "id2label"));
  /* what the checkpoint says elsewhere (labels of the heads, dtype of each tensor) or what does not concern it */
  static const char *const dropped[] = {"architectures",
                                        "id2label",
                                        "label2id",
                                        "num_labels",
                                        "problem_type",
                                        "dtype",
                                        "torch_dtype",
                                        "transformers_version",
                                        "_name_or_path",
                                        "use_cache",
                                        "gradient_checkpointing",
                                        "skillwatch"};
  for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++) json_object_del(out->config, dropped[i]);
  int status = add_settings(source, &modules, out) ||
                       import_weights(source, modules.transformer, architectures, id2label, left_out, out)
                   ? -1
                   : 0;
  json_decref(architectures);
  json_decref(id2label);
  return status;
}

int sw_import_source(const sw_model_source *source, const char *format, const char *name, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  json_t *left_out = json_array();
  int status = left_out ? import_all(source, left_out, out) : sw_fail("out of memory");
  if (!status) {
    out->kind = sw_strdup(out->num_heads ? "ner" : "base");
    out->training = json_pack("{s:{s:s, s:s}}", "source", "format", format, "name", name);
    if (!out->kind)
      status = -1;
    else if (!out->training ||
             (json_array_size(left_out) && json_object_set(json_object_get(out->training, "source"), "left_out", left_out)))
      status = sw_fail("out of memory, or the name of the source is not valid UTF-8");
  }
  json_decref(left_out);
  if (!status) { /* a vocabulary without [CLS] or with a token twice should be noticed now, not at the first use */
    sw_tokenizer *tokenizer = NULL;
    status = sw_checkpoint_tokenizer(out, &tokenizer);
    if (status)
      sw_fail_in("%s", source->what);
    else
      sw_tokenizer_close(tokenizer);
  }
  if (status) sw_checkpoint_close(out);
  return status;
}
