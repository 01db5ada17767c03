/* The checkpoint: what both programs share. Format: checkpoints/README.md. */
#ifndef SW_STORE_CHECKPOINT_H
#define SW_STORE_CHECKPOINT_H
#include "kernels/dtype.h"
#include "engine/text/stems.h"
#include "engine/text/tokenizer.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  char *name; /* Hugging Face's name, "encoder.layer.0.attention.self.query.weight"; owned */
  int rank;
  int64_t shape[4];
  sw_dtype dtype; /* SW_F32 or SW_BF16 (as uint16) */
  void *data;     /* owned, row-major, 64-byte aligned */
} sw_tensor;

typedef struct {
  size_t count, capacity;
  sw_tensor *items;
} sw_tensors;

/* Appends a tensor, its data not initialised; NULL on failure. The pointer is valid until the next append. */
sw_tensor *sw_tensors_add(sw_tensors *tensors, const char *name, sw_dtype dtype, int rank, const int64_t *shape);
sw_tensor *sw_tensors_find(const sw_tensors *tensors, const char *name);
/* Takes `tensor` (one of `tensors`) out and frees it; later ones move down. */
void sw_tensors_remove(sw_tensors *tensors, sw_tensor *tensor);
int64_t sw_tensor_elements(const sw_tensor *tensor);
void sw_tensors_close(sw_tensors *tensors);

/* One output layer on the shared encoder: its weights are "heads.<name>.weight" [labels, hidden] and
 * "heads.<name>.bias" in `weights`. */
typedef struct {
  char *name; /* "knowledge" */
  char *task; /* "token" (BIO tags), "sequence", "multilabel" */
  size_t num_labels;
  char **labels; /* "O", "B-Knowledge" … ; owned */
} sw_head;

typedef struct {
  char *kind;     /* "base" (an encoder), "ner", … */
  json_t *config; /* Hugging Face key names; plus "skillwatch": {"pooling": "mean", "normalize": true, "max_seq_length":
                     256} */
  size_t vocab_size; /* 0 = no tokenizer */
  char **vocab;      /* UTF-8, in id order */
  size_t *vocab_bytes;
  sw_tokenizer_options tokenizer;
  sw_tensors weights;
  size_t num_heads;
  sw_head *heads;
  sw_tensors optimizer; /* "m/<weight>", "v/<weight>"; empty in a checkpoint for inference */
  json_t *training;     /* hyper-parameters, data manifest, metrics, counters; or NULL */
  json_t *lineage;      /* array, oldest first, one sw_checkpoint_entry an ancestor; or NULL */
  /* set by read and write */
  char content_sha256[65];
  char parent_sha256[65]; /* "" = none */
  char created[32];       /* ISO 8601, UTC */
  char tool_version[32];
} sw_checkpoint;

void sw_checkpoint_init(sw_checkpoint *checkpoint);
void sw_checkpoint_close(sw_checkpoint *checkpoint);

/* Reads and verifies the whole file (format, version, Fletcher32, content hash, shapes of a BERT or DistilBERT encoder
 * and its heads). A missing, torn, truncated, flipped, foreign or newer file is refused with one line. `out` need not
 * be initialised; on failure it is empty, and closing it is allowed but not needed. */
int sw_checkpoint_read(const char *path, sw_checkpoint *out);
/* Writes atomically: the destination holds the old or the new file at any instant. Sets content_sha256, created and
 * tool_version. Temporary files that dead processes left beside `path` are removed. Tensors and heads are read back in
 * the order they have here. */
int sw_checkpoint_write(const char *path, sw_checkpoint *checkpoint);

/* A tokenizer from the checkpoint's vocabulary; fails where it is one of stems. */
int sw_checkpoint_tokenizer(const sw_checkpoint *checkpoint, sw_tokenizer **out);
/* What the checkpoint's children keep of it in their lineage: who it is, from what code, data and settings it came, what it scored. New
 * reference; NULL on failure. */
json_t *sw_checkpoint_entry(const sw_checkpoint *checkpoint);
/* 1 where texts are read as stems (engine/text/stems.h): the config has "tokenizer": {"type": "stems", "stemmer", "stop_words"}, and the
 * vocabulary is one of stems. */
int sw_checkpoint_has_stems(const sw_checkpoint *checkpoint);
int sw_checkpoint_stems(const sw_checkpoint *checkpoint, sw_stems **out);
/* Sets the vocabulary and that key of the config. */
int sw_checkpoint_set_stems(sw_checkpoint *checkpoint, const char *stemmer, const char *const *stop_words, size_t num_stop_words,
                            const char *const *vocab, size_t count);
/* Adds a head and its labels (copied). */
int sw_checkpoint_add_head(sw_checkpoint *checkpoint, const char *name, const char *task, const char *const *labels,
                           size_t count);
#endif
