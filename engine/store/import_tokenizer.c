/* The tokenizer of a Hugging Face model: tokenizer.json where there is one, otherwise vocab.txt; tokenizer_config.json
 * has the last word on lower case, accents and CJK characters, as it has in transformers. */
#include "base/error.h"
#include "engine/store/import.h"
#include "engine/store/json.h"
#include "engine/text/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WHAT = 1024, MAX_FILE = 64 << 20, MAX_VOCAB = 1 << 24 };

static int open_vocab(sw_checkpoint *out, size_t count) {
  out->vocab = sw_alloc_array(count, sizeof *out->vocab);
  out->vocab_bytes = sw_alloc_array(count, sizeof *out->vocab_bytes);
  if (!out->vocab || !out->vocab_bytes) return -1;
  out->vocab_size = count;
  return 0;
}

static int set_token(sw_checkpoint *out, size_t id, const char *text, size_t bytes) {
  out->vocab_bytes[id] = bytes;
  return (out->vocab[id] = sw_strndup(text, bytes)) ? 0 : -1;
}

/* One token a line; "\r\n" and "\r" end a line too, as in Python's text files. */
static int parse_vocab_text(char *text, size_t bytes, const char *what, sw_checkpoint *out) {
  size_t kept = 0, count = 0;
  for (size_t i = 0; i < bytes; i++) {
    if (text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n') continue;
    text[kept++] = text[i] == '\r' ? '\n' : text[i];
  }
  for (size_t i = 0; i < kept; i++) count += text[i] == '\n' || i + 1 == kept;
  if (!count) return sw_fail("%s is empty", what);
  if (count > MAX_VOCAB) return sw_fail("%s has %zu lines, too many for a vocabulary", what, count);
  if (open_vocab(out, count)) return -1;
  for (size_t i = 0, id = 0; i < kept; id++) {
    const char *end = memchr(text + i, '\n', kept - i);
    size_t length = end ? (size_t)(end - (text + i)) : kept - i;
    if (set_token(out, id, text + i, length)) return -1;
    i += length + 1;
  }
  return 0;
}

static int read_vocab_text(const sw_model_source *source, const char *path, const char *what, sw_checkpoint *out) {
  sw_buffer text = {0};
  int status = source->read(source->self, path, MAX_FILE, &text);
  if (!status && text.size && sw_check_utf8(text.data, text.size)) status = sw_fail_in("%s", what);
  if (!status) status = parse_vocab_text(text.data, text.size, what, out);
  sw_buffer_close(&text);
  return status;
}

static int wants_type(const json_t *part, const char *type, const char *name, const char *what) {
  const char *found = sw_json_string(part, "type");
  if (found && !strcmp(found, type)) return 0;
  return sw_fail("%s: the %s is of type %.64s; only BERT's %s is supported", what, name, found ? found : "(none)",
                 type);
}

static int parse_vocab_map(json_t *vocab, const char *what, sw_checkpoint *out) {
  size_t count = json_object_size(vocab);
  if (!count) return sw_fail("%s: model.vocab is missing or empty", what);
  if (count > MAX_VOCAB) return sw_fail("%s: a vocabulary of %zu tokens is too large", what, count);
  if (open_vocab(out, count)) return -1;
  const char *token;
  json_t *value;
  json_object_foreach(vocab, token, value) {
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || (size_t)id >= count || out->vocab[id])
      return sw_fail("%s: the ids of model.vocab should be 0 to %zu, each once; token \"%.64s\" breaks that", what,
                     count - 1, token);
    if (set_token(out, (size_t)id, token, strlen(token))) return -1;
  }
  return 0;
}

static const char *const special_keys[] = {"unk_token", "cls_token", "sep_token", "pad_token", "mask_token"};
static const char *const special_tokens[] = {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"};
enum { SPECIALS = 5 };

/* Tokens that are matched in the text before WordPiece: only the five special ones may be, at their place in the
 * vocabulary. */
static int check_added_tokens(const json_t *added, const char *what, const sw_checkpoint *out) {
  size_t i;
  const json_t *item;
  json_array_foreach(added, i, item) {
    const char *text = sw_json_string(item, "content");
    json_int_t id = json_integer_value(json_object_get(item, "id"));
    int known = 0;
    for (int k = 0; text && k < SPECIALS; k++) known |= !strcmp(text, special_tokens[k]);
    if (!known)
      return sw_fail(
          "%s: the tokenizer adds the token \"%.64s\"; only [UNK], [CLS], [SEP], [PAD] and [MASK] are supported", what,
          text ? text : "");
    if (id < 0 || (size_t)id >= out->vocab_size || strcmp(out->vocab[id], text))
      return sw_fail("%s: the added token %s has the id %lld, which is not its place in the vocabulary", what, text,
                     (long long)id);
  }
  return 0;
}

static int read_accents(const json_t *object, const char *key, const char *what, int *out) {
  const json_t *value = json_object_get(object, key);
  if (!value) return 0;
  if (json_is_null(value)) {
    *out = -1;
    return 0;
  }
  return sw_json_boolean(object, key, 0, what, out);
}

static int parse_tokenizer(const json_t *root, const char *what, sw_checkpoint *out) {
  sw_tokenizer_options *o = &out->tokenizer;
  json_t *model = json_object_get(root, "model"), *normalizer = json_object_get(root, "normalizer");
  const char *prefix = sw_json_string(model, "continuing_subword_prefix");
  int64_t longest;
  /* some older files leave the model's type out; the prefix says enough */
  if (json_object_get(model, "type") ? wants_type(model, "WordPiece", "model", what)
      : prefix                       ? 0
                                     : wants_type(model, "WordPiece", "model", what))
    return -1;
  if (prefix && strcmp(prefix, "##"))
    return sw_fail("%s: word pieces continue with \"%.16s\"; only \"##\" is supported", what, prefix);
  if (wants_type(normalizer, "BertNormalizer", "normalizer", what) ||
      wants_type(json_object_get(root, "pre_tokenizer"), "BertPreTokenizer", "pre_tokenizer", what) ||
      sw_json_boolean(normalizer, "clean_text", 1, what, &o->clean_text) ||
      sw_json_boolean(normalizer, "lowercase", 1, what, &o->do_lower_case) ||
      sw_json_boolean(normalizer, "handle_chinese_chars", 1, what, &o->tokenize_chinese_chars) ||
      read_accents(normalizer, "strip_accents", what, &o->strip_accents) ||
      sw_json_integer(model, "max_input_chars_per_word", 1, 1 << 20, 100, what, &longest) ||
      parse_vocab_map(json_object_get(model, "vocab"), what, out))
    return -1;
  o->max_chars_per_word = (int)longest;
  return check_added_tokens(json_object_get(root, "added_tokens"), what, out);
}

static int parse_tokenizer_config(const json_t *config, int has_tokenizer_json, const char *what, sw_checkpoint *out) {
  sw_tokenizer_options *o = &out->tokenizer;
  const char *class = sw_json_string(config, "tokenizer_class");
  int generic = class && (!strcmp(class, "PreTrainedTokenizerFast") || !strcmp(class, "TokenizersBackend"));
  if (class && !generic && strcmp(class, "BertTokenizer") && strcmp(class, "BertTokenizerFast") &&
      strcmp(class, "DistilBertTokenizer") && strcmp(class, "DistilBertTokenizerFast"))
    return sw_fail("%s: tokenizer_class %.64s is not supported, only BertTokenizer and DistilBertTokenizer", what,
                   class);
  for (int i = 0; i < SPECIALS; i++) {
    const json_t *token = json_object_get(config, special_keys[i]);
    const char *text = json_is_object(token) ? sw_json_string(token, "content") : json_string_value(token);
    if (text && strcmp(text, special_tokens[i]))
      return sw_fail("%s: %s is \"%.64s\"; only \"%s\" is supported", what, special_keys[i], text, special_tokens[i]);
  }
  int basic = 1;
  if (sw_json_boolean(config, "do_basic_tokenize", 1, what, &basic)) return -1;
  if (!basic) return sw_fail("%s: do_basic_tokenize = false is not supported", what);
  /* the generic class takes everything from tokenizer.json; BERT's own class takes these three from here */
  if (!(generic && has_tokenizer_json) &&
      (sw_json_boolean(config, "do_lower_case", o->do_lower_case, what, &o->do_lower_case) ||
       sw_json_boolean(config, "tokenize_chinese_chars", o->tokenize_chinese_chars, what, &o->tokenize_chinese_chars) ||
       read_accents(config, "strip_accents", what, &o->strip_accents)))
    return -1;
  const json_t *length = json_object_get(config, "model_max_length");
  double most = json_number_value(length);
  if (length && !json_is_null(length) && !(json_is_number(length) && most >= 0))
    return sw_fail("%s: \"model_max_length\" should be a number", what);
  o->model_max_length = most >= 3 && most < 1e7 ? (int)most : 0; /* transformers writes 1e30 for "no limit" */
  return 0;
}

int sw_import_tokenizer(const sw_model_source *source, const char *prefix, sw_checkpoint *out) {
  char what[MAX_WHAT], vocab[512];
  json_t *root = NULL, *config = NULL;
  snprintf(vocab, sizeof vocab, "%svocab.txt", prefix);
  int status = sw_import_json(source, prefix, "tokenizer.json", 1, &root) ||
                       sw_import_json(source, prefix, "tokenizer_config.json", 1, &config)
                   ? -1
                   : 0;
  if (!status && root) {
    snprintf(what, sizeof what, "%s: %stokenizer.json", source->what, prefix);
    status = parse_tokenizer(root, what, out);
  } else if (!status && source->has(source->self, vocab)) {
    snprintf(what, sizeof what, "%s: %s", source->what, vocab);
    status = read_vocab_text(source, vocab, what, out);
  } else if (!status) {
    status = sw_fail("%s: neither tokenizer.json nor vocab.txt is there, one is needed", source->what);
  }
  if (!status && config) {
    snprintf(what, sizeof what, "%s: %stokenizer_config.json", source->what, prefix);
    status = parse_tokenizer_config(config, root != NULL, what, out);
  }
  json_decref(root);
  json_decref(config);
  return status;
}
