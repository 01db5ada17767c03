/* The checkpoint in memory: tensors, heads, ancestry. Reading and writing the file are in checkpoint_read.c and
 * checkpoint_write.c. */
#include "engine/store/checkpoint.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

int64_t sw_tensor_elements(const sw_tensor *tensor) {
  int64_t n = 1;
  for (int i = 0; i < tensor->rank; i++) n *= tensor->shape[i];
  return n;
}

sw_tensor *sw_tensors_add(sw_tensors *tensors, const char *name, sw_dtype dtype, int rank, const int64_t *shape) {
  if (rank < 0 || rank > 4) {
    sw_fail("tensor %s has %d dimensions, at most 4 are supported", name, rank);
    return NULL;
  }
  uint64_t bytes = sw_dtype_bytes(dtype);
  for (int i = 0; i < rank; i++) {
    if (shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)shape[i], &bytes) || bytes > INT64_MAX / 2) {
      sw_fail("tensor %s is too large", name);
      return NULL;
    }
  }
  if (tensors->count == tensors->capacity) {
    size_t capacity = tensors->capacity ? 2 * tensors->capacity : 64;
    sw_tensor *items = sw_realloc_array(tensors->items, capacity, sizeof *items);
    if (!items) return NULL;
    tensors->items = items;
    tensors->capacity = capacity;
  }
  sw_tensor *tensor = &tensors->items[tensors->count];
  *tensor = (sw_tensor){.name = sw_strdup(name), .rank = rank, .dtype = dtype, .data = sw_alloc_aligned(bytes)};
  if (!tensor->name || !tensor->data) {
    free(tensor->name);
    free(tensor->data);
    return NULL;
  }
  for (int i = 0; i < rank; i++) tensor->shape[i] = shape[i];
  tensors->count++;
  return tensor;
}

sw_tensor *sw_tensors_find(const sw_tensors *tensors, const char *name) {
  for (size_t i = 0; i < tensors->count; i++)
    if (!strcmp(tensors->items[i].name, name)) return &tensors->items[i];
  return NULL;
}

void sw_tensors_remove(sw_tensors *tensors, sw_tensor *tensor) {
  free(tensor->name);
  free(tensor->data);
  size_t index = (size_t)(tensor - tensors->items);
  memmove(tensor, tensor + 1, (--tensors->count - index) * sizeof *tensor);
}

void sw_tensors_close(sw_tensors *tensors) {
  for (size_t i = 0; i < tensors->count; i++) {
    free(tensors->items[i].name);
    free(tensors->items[i].data);
  }
  free(tensors->items);
  *tensors = (sw_tensors){0};
}

void sw_checkpoint_init(sw_checkpoint *checkpoint) {
  *checkpoint = (sw_checkpoint){.tokenizer = SW_TOKENIZER_DEFAULTS};
}

static void close_head(sw_head *head) {
  for (size_t i = 0; i < head->num_labels; i++) free(head->labels[i]);
  free(head->labels);
  free(head->name);
  free(head->task);
}

void sw_checkpoint_close(sw_checkpoint *checkpoint) {
  free(checkpoint->kind);
  json_decref(checkpoint->config);
  json_decref(checkpoint->training);
  json_decref(checkpoint->lineage);
  if (checkpoint->vocab)
    for (size_t i = 0; i < checkpoint->vocab_size; i++) free(checkpoint->vocab[i]);
  free(checkpoint->vocab);
  free(checkpoint->vocab_bytes);
  sw_tensors_close(&checkpoint->weights);
  sw_tensors_close(&checkpoint->optimizer);
  for (size_t i = 0; i < checkpoint->num_heads; i++) close_head(&checkpoint->heads[i]);
  free(checkpoint->heads);
  sw_checkpoint_init(checkpoint);
}

int sw_checkpoint_tokenizer(const sw_checkpoint *checkpoint, sw_tokenizer **out) {
  if (!checkpoint->vocab_size)
    return sw_fail("the checkpoint (kind %s) holds no vocabulary, so it cannot read text",
                   checkpoint->kind ? checkpoint->kind : "unknown");
  if (sw_checkpoint_has_stems(checkpoint))
    return sw_fail("the checkpoint (kind %s) reads texts as stems of words, not as WordPieces: it is for skillwatch infer multilabel or topics",
                   checkpoint->kind);
  return sw_tokenizer_open((const char *const *)checkpoint->vocab, checkpoint->vocab_bytes, checkpoint->vocab_size,
                           &checkpoint->tokenizer, out);
}

json_t *sw_checkpoint_entry(const sw_checkpoint *c) {
  static const char *const of_training[] = {"source", "task", "metrics"}, *const of_run[] = {"data", "dev", "hyper_parameters", "device"};
  const json_t *run = json_object_get(c->training, "run");
  json_t *entry = json_pack("{s:s, s:s, s:s, s:s, s:s}", "content_sha256", c->content_sha256, "parent_sha256", c->parent_sha256, "kind", c->kind,
                            "created", c->created, "tool_version", c->tool_version);
  int failed = !entry;
  for (size_t i = 0; i < 3 && !failed; i++) {
    json_t *value = json_object_get(c->training, of_training[i]);
    if (value) failed = json_object_set(entry, of_training[i], value);
  }
  for (size_t i = 0; i < 4 && !failed; i++) {
    json_t *value = json_object_get(run, of_run[i]);
    if (value) failed = json_object_set(entry, of_run[i], value);
  }
  if (!failed) return entry;
  json_decref(entry);
  sw_fail("out of memory");
  return NULL;
}

static const json_t *tokenizer_of(const sw_checkpoint *checkpoint) { return json_object_get(checkpoint->config, "tokenizer"); }

int sw_checkpoint_has_stems(const sw_checkpoint *checkpoint) {
  const char *type = json_string_value(json_object_get(tokenizer_of(checkpoint), "type"));
  return type && !strcmp(type, "stems");
}

int sw_checkpoint_stems(const sw_checkpoint *checkpoint, sw_stems **out) {
  const char *stemmer = json_string_value(json_object_get(tokenizer_of(checkpoint), "stemmer"));
  const json_t *list = json_object_get(tokenizer_of(checkpoint), "stop_words");
  const size_t count = json_array_size(list);
  *out = NULL;
  if (!sw_checkpoint_has_stems(checkpoint) || !stemmer || !json_is_array(list) || !checkpoint->vocab_size)
    return sw_fail("the checkpoint (kind %s) holds no vocabulary of stems; skillwatch train multilabel and train topics make one",
                   checkpoint->kind ? checkpoint->kind : "unknown");
  const char **stop_words = sw_alloc_array(count, sizeof *stop_words);
  int status = stop_words ? 0 : -1;
  for (size_t i = 0; i < count && !status; i++)
    if (!(stop_words[i] = json_string_value(json_array_get(list, i)))) status = sw_fail("config: a stop word of the tokenizer is no text");
  if (!status)
    status = sw_stems_open(stemmer, stop_words, count, (const char *const *)checkpoint->vocab, checkpoint->vocab_bytes, checkpoint->vocab_size, out);
  free(stop_words);
  return status;
}

int sw_checkpoint_set_stems(sw_checkpoint *c, const char *stemmer, const char *const *stop_words, size_t num_stop_words,
                            const char *const *vocab, size_t count) {
  json_t *words = json_array(), *tokenizer = json_pack("{s:s, s:s}", "type", "stems", "stemmer", stemmer);
  int failed = !words || !tokenizer;
  for (size_t i = 0; i < num_stop_words && !failed; i++) failed = json_array_append_new(words, json_string(stop_words[i]));
  if (failed || json_object_set(tokenizer, "stop_words", words) || json_object_set(c->config, "tokenizer", tokenizer))
    failed = sw_fail("out of memory");
  json_decref(words);
  json_decref(tokenizer);
  if (failed) return -1;
  c->vocab = sw_alloc_array(count, sizeof *c->vocab);
  c->vocab_bytes = sw_alloc_array(count, sizeof *c->vocab_bytes);
  if (!c->vocab || !c->vocab_bytes) return -1;
  for (c->vocab_size = 0; c->vocab_size < count; c->vocab_size++) {
    if (!(c->vocab[c->vocab_size] = sw_strdup(vocab[c->vocab_size]))) return -1;
    c->vocab_bytes[c->vocab_size] = strlen(vocab[c->vocab_size]);
  }
  return 0;
}

int sw_checkpoint_add_head(sw_checkpoint *checkpoint, const char *name, const char *task, const char *const *labels,
                           size_t count) {
  if (!count) return sw_fail("head %s has no labels", name);
  for (size_t i = 0; i < checkpoint->num_heads; i++)
    if (!strcmp(checkpoint->heads[i].name, name)) return sw_fail("the checkpoint has a head named %s already", name);
  sw_head *heads = sw_realloc_array(checkpoint->heads, checkpoint->num_heads + 1, sizeof *heads);
  if (!heads) return -1;
  checkpoint->heads = heads;
  sw_head head = {
      .name = sw_strdup(name), .task = sw_strdup(task), .labels = sw_alloc_array(count, sizeof *head.labels)};
  if (head.name && head.task && head.labels) {
    while (head.num_labels < count && (head.labels[head.num_labels] = sw_strdup(labels[head.num_labels])))
      head.num_labels++;
    if (head.num_labels == count) {
      heads[checkpoint->num_heads++] = head;
      return 0;
    }
  }
  close_head(&head);
  return -1;
}
