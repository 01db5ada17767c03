/* A checkpoint as a folder that transformers and sentence-transformers load. */
#include "base/error.h"
#include "base/file.h"
#include "base/folder.h"
#include "engine/store/encoder.h"
#include "engine/store/huggingface.h"
#include "engine/store/json.h"
#include "engine/store/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
static const char *const special_keys[] = {"pad_token", "unk_token", "cls_token", "sep_token", "mask_token"};
enum { SPECIALS = 5 };

/* --- files */

/* Takes the reference to `value`, which may be NULL (out of memory). */
static int write_json(const char *folder, const char *name, json_t *value) {
  char *text = value ? sw_json_pretty(value) : NULL;
  if (!value) sw_fail("out of memory while writing %s", name);
  int status = text ? sw_file_write(folder, name, text, strlen(text)) : -1;
  free(text);
  json_decref(value);
  return status;
}

/* --- config.json */

static int is_distilbert(const sw_checkpoint *c) {
  const char *type = sw_json_string(c->config, "model_type");
  return type && !strcmp(type, "distilbert");
}

static int has_mlm(const sw_checkpoint *c) {
  return sw_tensors_find(&c->weights, "cls.predictions.bias") || sw_tensors_find(&c->weights, "vocab_projector.bias");
}

static const char *architecture_of(const sw_checkpoint *c, const sw_head *head) {
  if (is_distilbert(c))
    return head ? "DistilBertForTokenClassification" : has_mlm(c) ? "DistilBertForMaskedLM" : "DistilBertModel";
  return head ? "BertForTokenClassification" : has_mlm(c) ? "BertForMaskedLM" : "BertModel";
}

static const char *dtype_of(const sw_checkpoint *c) {
  for (size_t i = 0; i < c->weights.count; i++)
    if (c->weights.items[i].dtype == SW_F32) return "float32";
  return "bfloat16";
}

static int write_config(const sw_checkpoint *c, const sw_head *head, const char *folder) {
  json_t *config = json_deep_copy(c->config);
  int failed = !config || json_object_set_new(config, "architectures", json_pack("[s]", architecture_of(c, head))) ||
               json_object_set_new(config, "torch_dtype", json_string(dtype_of(c)));
  if (config) json_object_del(config, "skillwatch");
  if (!failed && head) {
    json_t *names = json_object(), *ids = json_object();
    for (size_t i = 0; i < head->num_labels; i++) {
      char id[24];
      snprintf(id, sizeof id, "%zu", i);
      failed |= json_object_set_new(names, id, json_string(head->labels[i])) ||
                json_object_set_new(ids, head->labels[i], json_integer((json_int_t)i));
    }
    failed |= json_object_set_new(config, "id2label", names) || json_object_set_new(config, "label2id", ids);
  }
  if (failed) {
    json_decref(config);
    return sw_fail("config.json cannot be written: a label is not valid UTF-8, or memory has run out");
  }
  return write_json(folder, "config.json", config);
}

/* --- tokenizer */

static int64_t token_id(const sw_checkpoint *c, const char *token) {
  size_t length = strlen(token);
  for (size_t i = 0; i < c->vocab_size; i++)
    if (c->vocab_bytes[i] == length && !memcmp(c->vocab[i], token, length)) return (int64_t)i;
  return -1;
}

static json_t *accents_json(const sw_tokenizer_options *o) {
  return o->strip_accents < 0 ? json_null() : json_boolean(o->strip_accents);
}

static int max_length_of(const sw_checkpoint *c) {
  if (c->tokenizer.model_max_length) return c->tokenizer.model_max_length;
  return (int)json_integer_value(json_object_get(c->config, "max_position_embeddings"));
}

static int write_tokenizer_config(const sw_checkpoint *c, const char *folder) {
  const sw_tokenizer_options *o = &c->tokenizer;
  json_t *config =
      json_pack("{s:b, s:o, s:b, s:i, s:s}", "do_lower_case", o->do_lower_case, "strip_accents", accents_json(o),
                "tokenize_chinese_chars", o->tokenize_chinese_chars, "model_max_length", max_length_of(c),
                "tokenizer_class", is_distilbert(c) ? "DistilBertTokenizer" : "BertTokenizer");
  json_t *map = json_object();
  int failed = !config || !map;
  for (int i = 0; !failed && i < SPECIALS; i++) {
    if (token_id(c, specials[i]) < 0) continue; /* a vocabulary may lack [MASK] */
    failed = json_object_set_new(config, special_keys[i], json_string(specials[i])) ||
             json_object_set_new(map, special_keys[i], json_string(specials[i]));
  }
  if (failed) {
    json_decref(config);
    json_decref(map);
    return sw_fail("out of memory while writing tokenizer_config.json");
  }
  int status = write_json(folder, "tokenizer_config.json", config);
  return write_json(folder, "special_tokens_map.json", map) || status ? -1 : 0;
}

static json_t *special_piece(const char *token, int type) {
  return json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", token, "type_id", type);
}
static json_t *sequence_piece(const char *name, int type) {
  return json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type);
}

static json_t *post_processor(int64_t cls, int64_t sep) {
  json_t *single = json_pack("[o, o, o]", special_piece("[CLS]", 0), sequence_piece("A", 0), special_piece("[SEP]", 0));
  json_t *pair = json_pack("[o, o, o, o, o]", special_piece("[CLS]", 0), sequence_piece("A", 0),
                           special_piece("[SEP]", 0), sequence_piece("B", 1), special_piece("[SEP]", 1));
  return json_pack("{s:s, s:o, s:o, s:{s:{s:s, s:[I], s:[s]}, s:{s:s, s:[I], s:[s]}}}", "type", "TemplateProcessing",
                   "single", single, "pair", pair, "special_tokens", "[CLS]", "id", "[CLS]", "ids", (json_int_t)cls,
                   "tokens", "[CLS]", "[SEP]", "id", "[SEP]", "ids", (json_int_t)sep, "tokens", "[SEP]");
}

static json_t *added_tokens(const sw_checkpoint *c) {
  json_t *list = json_array();
  for (size_t i = 0; list && i < c->vocab_size; i++) /* in the order of their ids */
    for (int k = 0; k < SPECIALS; k++)
      if (c->vocab_bytes[i] == strlen(specials[k]) && !memcmp(c->vocab[i], specials[k], c->vocab_bytes[i]))
        json_array_append_new(list, json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                                              specials[k], "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                              "special", 1));
  return list;
}

/* The whole fast tokenizer, as the `tokenizers` library saves it. Keys keep their order here: the vocabulary is listed
 * by id. */
static int write_tokenizer_json(const sw_checkpoint *c, const char *folder) {
  const sw_tokenizer_options *o = &c->tokenizer;
  int64_t cls = token_id(c, "[CLS]"), sep = token_id(c, "[SEP]");
  if (cls < 0 || sep < 0) return sw_fail("the vocabulary has no [CLS] or no [SEP]");
  json_t *vocab = json_object();
  int failed = !vocab;
  for (size_t i = 0; !failed && i < c->vocab_size; i++)
    if (json_object_set_new(vocab, c->vocab[i], json_integer((json_int_t)i)))
      failed = sw_fail(
          "tokenizer.json cannot be written: token %zu of the vocabulary is not valid UTF-8, or memory has run out", i);
  if (!failed && json_object_size(vocab) != c->vocab_size)
    failed = sw_fail("tokenizer.json cannot be written: a token is twice in the vocabulary");
  if (failed) {
    json_decref(vocab);
    return -1;
  }
  json_t *root = json_pack(
      "{s:s, s:n, s:n, s:o, s:{s:s, s:b, s:b, s:o, s:b}, s:{s:s}, s:o, s:{s:s, s:s, s:b}, s:{s:s, s:s, s:s, s:i, s:o}}",
      "version", "1.0", "truncation", "padding", "added_tokens", added_tokens(c), "normalizer", "type",
      "BertNormalizer", "clean_text", o->clean_text, "handle_chinese_chars", o->tokenize_chinese_chars, "strip_accents",
      accents_json(o), "lowercase", o->do_lower_case, "pre_tokenizer", "type", "BertPreTokenizer", "post_processor",
      post_processor(cls, sep), "decoder", "type", "WordPiece", "prefix", "##", "cleanup", 1, "model", "type",
      "WordPiece", "unk_token", "[UNK]", "continuing_subword_prefix", "##", "max_input_chars_per_word",
      o->max_chars_per_word, "vocab", vocab);
  char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  if (!text) return sw_fail("out of memory while writing tokenizer.json");
  int status = sw_file_write(folder, "tokenizer.json", text, strlen(text));
  free(text);
  return status;
}

static int write_vocab(const sw_checkpoint *c, const char *folder) {
  sw_buffer text = {0};
  int status = 0;
  for (size_t i = 0; !status && i < c->vocab_size; i++) {
    if (memchr(c->vocab[i], '\n', c->vocab_bytes[i]) ||
        memchr(c->vocab[i], '\r', c->vocab_bytes[i])) { /* tokenizer.json can say it, a text file cannot */
      sw_buffer_close(&text);
      return 0;
    }
    status = sw_buffer_append(&text, c->vocab[i], c->vocab_bytes[i]) || sw_buffer_append(&text, "\n", 1);
  }
  if (!status) status = sw_file_write(folder, "vocab.txt", text.data, text.size);
  sw_buffer_close(&text);
  return status;
}

/* --- sentence-transformers */

static json_t *module(int index, const char *path, const char *type) {
  char name[16], full[80];
  snprintf(name, sizeof name, "%d", index);
  snprintf(full, sizeof full, "sentence_transformers.models.%s", type);
  return json_pack("{s:i, s:s, s:s, s:s}", "idx", index, "name", name, "path", path, "type", full);
}

static int make_folder(const char *folder, const char *name, char **out) {
  *out = sw_path_join(folder, name);
  return *out ? sw_make_folders(*out) : -1;
}

static int write_pooling(const sw_checkpoint *c, const char *folder, const char *pooling) {
  const json_t *width = json_object_get(c->config, is_distilbert(c) ? "dim" : "hidden_size");
  char *inside = NULL;
  int status = make_folder(folder, "1_Pooling", &inside);
  if (!status)
    status = write_json(inside, "config.json",
                        json_pack("{s:I, s:b, s:b, s:b, s:b}", "word_embedding_dimension", json_integer_value(width),
                                  "pooling_mode_cls_token", !strcmp(pooling, "cls"), "pooling_mode_mean_tokens",
                                  !strcmp(pooling, "mean"), "pooling_mode_max_tokens", !strcmp(pooling, "max"),
                                  "pooling_mode_mean_sqrt_len_tokens", 0));
  free(inside);
  return status;
}

static int write_sentence_files(const sw_checkpoint *c, const char *folder) {
  const json_t *settings = json_object_get(c->config, "skillwatch");
  const char *pooling = sw_json_string(settings, "pooling");
  if (!pooling) return 0;
  int normalize = json_is_true(json_object_get(settings, "normalize"));
  json_int_t length = json_integer_value(json_object_get(settings, "max_seq_length"));
  json_t *modules = json_pack("[o, o]", module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"));
  if (modules && normalize) json_array_append_new(modules, module(2, "2_Normalize", "Normalize"));
  char *inside = NULL;
  int status = write_json(folder, "modules.json", modules) || write_pooling(c, folder, pooling) ||
                       write_json(folder, "sentence_bert_config.json",
                                  json_pack("{s:I, s:b}", "max_seq_length",
                                            length ? length : (json_int_t)max_length_of(c), "do_lower_case", 0)) ||
                       (normalize && make_folder(folder, "2_Normalize", &inside))
                   ? -1
                   : 0;
  free(inside);
  return status;
}

/* --- weights */

/* Names as the architecture has them; the data stays the checkpoint's. */
static int write_weights(const sw_checkpoint *c, const sw_head *head, const char *folder) {
  const char *prefix = !head && !has_mlm(c) ? "" : is_distilbert(c) ? "distilbert." : "bert.";
  sw_tensors named = {.items = sw_alloc_array(c->weights.count, sizeof *named.items)};
  char *path = sw_path_join(folder, "model.safetensors");
  int status = named.items && path ? 0 : -1;
  for (size_t i = 0; !status && i < c->weights.count; i++) {
    const sw_tensor *tensor = &c->weights.items[i];
    const char *name = tensor->name;
    sw_buffer full = {0};
    if (!strncmp(name, "heads.", 6)) {
      size_t length = head ? strlen(head->name) : 0;
      if (!head || strncmp(name + 6, head->name, length) || name[6 + length] != '.') continue;
      status = sw_buffer_print(&full, "classifier%s", name + 6 + length);
    } else if (!strncmp(name, "cls.", 4) || !strncmp(name, "vocab_", 6)) {
      if (head) continue; /* a token classifier has no masked-language-model head */
      status = sw_buffer_print(&full, "%s", name);
    } else {
      status = sw_buffer_print(&full, "%s%s", prefix, name);
    }
    named.items[named.count] = *tensor;
    named.items[named.count++].name = full.data;
  }
  if (!status) status = sw_safetensors_write(path, &named);
  for (size_t i = 0; i < named.count; i++) free(named.items[i].name);
  free(named.items);
  free(path);
  return status;
}

/* --- the folder */

int sw_export_head(const sw_checkpoint *c, const char *name, const sw_head **out) {
  size_t count = 0;
  const sw_head *only = NULL, *pooled = NULL; /* pooled: one that is not over tokens */
  sw_buffer names = {0};
  *out = NULL;
  if (!sw_encoder_is_known(c->config)) return 0; /* sw_export_folder says why it cannot be exported at all */
  for (size_t i = 0; i < c->num_heads; i++) {
    const sw_head *head = &c->heads[i];
    if (strcmp(head->task, "token")) {
      if (name ? !strcmp(head->name, name) : !pooled) pooled = head;
      continue;
    }
    count++;
    only = head;
    sw_buffer_print(&names, "%s%s", names.size ? ", " : "", head->name);
    if (name && !strcmp(head->name, name)) *out = head;
  }
  int status = 0;
  if (pooled && !count && (!name || strcmp(name, "none")))
    status = sw_fail("the head '%s' reads the mean of all tokens' states, which no model of transformers does: export the encoder alone with --head none",
                     pooled->name);
  else if (name && !*out && strcmp(name, "none"))
    status = sw_fail("the checkpoint has no token head named %s; it has: %s", name, names.size ? names.data : "none");
  if (!name && count > 1)
    status = sw_fail("the checkpoint has %zu heads, and transformers' model takes one: choose with --head NAME (%s), or "
                     "--head none for the encoder alone",
                     count, names.data);
  if (!name && count == 1) *out = only;
  sw_buffer_close(&names);
  return status;
}

static int write_all(const sw_checkpoint *c, const sw_head *head, const char *folder) {
  return write_config(c, head, folder) || write_tokenizer_config(c, folder) || write_tokenizer_json(c, folder) ||
                 write_vocab(c, folder) || write_sentence_files(c, folder) || write_weights(c, head, folder)
             ? -1
             : 0;
}

int sw_export_folder(const sw_checkpoint *c, const sw_head *head, const char *folder, int force) {
  static const char *const ours[] = {"config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors",
                                     "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling", "2_Normalize", NULL};
  if (!sw_encoder_is_known(c->config))
    return sw_fail("only BERT and DistilBERT checkpoints can be exported, this one is of kind %s", c->kind);
  if (!c->vocab_size) return sw_fail("the checkpoint holds no vocabulary, so transformers could not use it");
  sw_output_folder out;
  if (sw_output_folder_open(&out, folder, ours, "export", force)) return -1;
  if (!write_all(c, head, out.temporary)) return sw_output_folder_commit(&out);
  sw_output_folder_abandon(&out);
  return -1;
}
