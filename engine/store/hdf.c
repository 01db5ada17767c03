#include "engine/store/hdf.h"
#include "base/error.h"
#include "base/sha256.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void sw_hdf_enter(void) {
  pthread_mutex_lock(&lock);
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void sw_hdf_leave(void) {
  pthread_mutex_unlock(&lock);
}

static herr_t keep_message(unsigned n, const H5E_error2_t *error, void *text) {
  if (error->desc) snprintf(text, 160, "%s", error->desc);
  return 0;
}

hid_t sw_hdf_create(const char *path, hid_t access) {
  const hid_t create = H5Pcreate(H5P_FILE_CREATE);
  const hid_t file = create >= 0 && H5Pset_obj_track_times(create, 0) >= 0 ? H5Fcreate(path, H5F_ACC_TRUNC, create, access) : -1;
  if (create >= 0) H5Pclose(create);
  return file;
}

void sw_hdf_reason(char text[160]) {
  text[0] = 0;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_message, text);
}

const sw_tokenizer_attribute sw_tokenizer_attributes[SW_TOKENIZER_ATTRIBUTES] = {
    {"clean_text", offsetof(sw_tokenizer_options, clean_text)},
    {"do_lower_case", offsetof(sw_tokenizer_options, do_lower_case)},
    {"max_chars_per_word", offsetof(sw_tokenizer_options, max_chars_per_word)},
    {"model_max_length", offsetof(sw_tokenizer_options, model_max_length)},
    {"strip_accents", offsetof(sw_tokenizer_options, strip_accents)},
    {"tokenize_chinese_chars", offsetof(sw_tokenizer_options, tokenize_chinese_chars)},
};

/* One item of the canonical form: "<length>:<bytes>". */
static void add(sw_sha256 *hash, const void *data, size_t bytes) {
  char length[24];
  sw_sha256_add(hash, length, (size_t)snprintf(length, sizeof length, "%zu:", bytes));
  sw_sha256_add(hash, data, bytes);
}

static void add_text(sw_sha256 *hash, const char *text) {
  add(hash, text ? text : "", text ? strlen(text) : 0);
}

static void add_number(sw_sha256 *hash, long long number) {
  char text[24];
  add(hash, text, (size_t)snprintf(text, sizeof text, "%lld", number));
}

typedef struct {
  const char *group;
  const sw_tensor *tensor;
} place;

static int by_name(const void *a, const void *b) {
  return strcmp(((const place *)a)->tensor->name, ((const place *)b)->tensor->name);
}
static int by_head(const void *a, const void *b) {
  return strcmp((*(const sw_head *const *)a)->name, (*(const sw_head *const *)b)->name);
}

static void add_heads(sw_sha256 *hash, const sw_head **heads, size_t count) {
  qsort(heads, count, sizeof *heads, by_head);
  for (size_t i = 0; i < count; i++) {
    add_text(hash, "head");
    add_text(hash, heads[i]->name);
    add_text(hash, heads[i]->task);
    add_number(hash, (long long)heads[i]->num_labels);
    for (size_t j = 0; j < heads[i]->num_labels; j++) add_text(hash, heads[i]->labels[j]);
  }
}

static void add_tensors(sw_sha256 *hash, const char *group, const sw_tensors *tensors, place *places) {
  for (size_t i = 0; i < tensors->count; i++) places[i] = (place){group, &tensors->items[i]};
  qsort(places, tensors->count, sizeof *places, by_name);
  for (size_t i = 0; i < tensors->count; i++) {
    const sw_tensor *tensor = places[i].tensor;
    char shape[128] = "";
    size_t used = 0;
    for (int k = 0; k < tensor->rank; k++)
      used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%lld", k ? "," : "", (long long)tensor->shape[k]);
    add_text(hash, group);
    add_text(hash, tensor->name);
    add_text(hash, tensor->dtype == SW_F32 ? "float32" : "bfloat16");
    add_text(hash, shape);
    add(hash, tensor->data, (size_t)sw_tensor_elements(tensor) * sw_dtype_bytes(tensor->dtype));
  }
}

int sw_checkpoint_hash(const sw_checkpoint *checkpoint, const sw_checkpoint_texts *texts, char hex[65]) {
  size_t most =
      checkpoint->weights.count > checkpoint->optimizer.count ? checkpoint->weights.count : checkpoint->optimizer.count;
  place *places = sw_alloc_array(most, sizeof *places);
  const sw_head **heads = sw_alloc_array(checkpoint->num_heads, sizeof *heads);
  sw_sha256 *hash = places && heads ? sw_sha256_open() : NULL;
  if (hash) {
    add_text(hash, "skillwatch");
    add_number(hash, SW_CHECKPOINT_VERSION);
    add_text(hash, checkpoint->kind);
    add_text(hash, checkpoint->parent_sha256);
    add_text(hash, texts->config);
    add_text(hash, texts->training);
    add_text(hash, texts->lineage);
    if (checkpoint->vocab_size) {
      add_text(hash, "vocab");
      for (size_t i = 0; i < SW_TOKENIZER_ATTRIBUTES; i++)
        add_number(hash, *(const int *)((const char *)&checkpoint->tokenizer + sw_tokenizer_attributes[i].offset));
      add_number(hash, (long long)checkpoint->vocab_size);
      for (size_t i = 0; i < checkpoint->vocab_size; i++) add(hash, checkpoint->vocab[i], checkpoint->vocab_bytes[i]);
    }
    for (size_t i = 0; i < checkpoint->num_heads; i++) heads[i] = &checkpoint->heads[i];
    add_heads(hash, heads, checkpoint->num_heads);
    add_tensors(hash, "weights", &checkpoint->weights, places);
    add_tensors(hash, "optimizer", &checkpoint->optimizer, places);
    sw_sha256_close(hash, hex);
  }
  free(places);
  free(heads);
  return hash ? 0 : -1;
}

int sw_checkpoint_header_hash(const sw_checkpoint *checkpoint, char hex[65]) {
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  add_text(hash, checkpoint->content_sha256);
  add_text(hash, checkpoint->created);
  add_text(hash, checkpoint->tool_version);
  sw_sha256_close(hash, hex);
  return 0;
}
