/* Any texts as the files of a Hugging Face model (config.json, tokenizer.json, ...): imported or refused with a
 * message. The input is cut at NUL bytes, a file each; weights that fit a one-layer BERT are always there, so that an
 * import can succeed. */
#include "base/error.h"
#include "engine/store/import.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
    "config.json",  "tokenizer.json",        "tokenizer_config.json",     "vocab.txt",
    "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "model.safetensors.index.json"};
enum { FILES = sizeof names / sizeof *names };

typedef struct {
  const char *text[FILES];
  size_t bytes[FILES]; /* empty: absent */
} files;

static int find(const char *name) {
  for (int i = 0; i < FILES; i++)
    if (!strcmp(name, names[i])) return i;
  return -1;
}

static int has(void *self, const char *name) {
  const files *f = self;
  int i = find(name);
  return !strcmp(name, "model.safetensors") ? !f->bytes[FILES - 1] : i >= 0 && f->bytes[i] > 0;
}

static int read_file(void *self, const char *name, size_t limit, sw_buffer *out) {
  const files *f = self;
  int i = find(name);
  return i < 0 ? sw_fail("%s is missing", name) : sw_buffer_append(out, f->text[i], f->bytes[i]);
}

static int add(sw_tensors *out, const char *name, int64_t rows, int64_t columns) {
  sw_tensor *t = sw_tensors_add(out, name, SW_F32, columns ? 2 : 1, (int64_t[]){rows, columns});
  if (t) memset(t->data, 0, (size_t)sw_tensor_elements(t) * 4);
  return t ? 0 : -1;
}

static int tensors(void *self, const char *name, sw_tensors *out) {
  static const struct {
    const char *name;
    int64_t rows, columns;
  } list[] = {{"bert.embeddings.word_embeddings.weight", 8, 2},
              {"bert.embeddings.position_embeddings.weight", 4, 2},
              {"bert.embeddings.token_type_embeddings.weight", 2, 2},
              {"bert.embeddings.LayerNorm.gamma", 2, 0},
              {"bert.embeddings.LayerNorm.beta", 2, 0},
              {"classifier.weight", 3, 2},
              {"classifier.bias", 3, 0},
              {"cls.seq_relationship.bias", 2, 0}};
  static const char *const products[] = {"attention.self.query",   "attention.self.key", "attention.self.value",
                                         "attention.output.dense", "intermediate.dense", "output.dense"};
  static const char *const norms[] = {"attention.output.LayerNorm", "output.LayerNorm"};
  char full[128];
  for (size_t i = 0; i < sizeof list / sizeof *list; i++)
    if (add(out, list[i].name, list[i].rows, list[i].columns)) return -1;
  for (size_t i = 0; i < 6; i++) {
    int64_t rows = i == 4 ? 3 : 2, columns = i == 5 ? 3 : 2;
    snprintf(full, sizeof full, "bert.encoder.layer.0.%s.weight", products[i]);
    if (add(out, full, rows, columns)) return -1;
    snprintf(full, sizeof full, "bert.encoder.layer.0.%s.bias", products[i]);
    if (add(out, full, rows, 0)) return -1;
  }
  for (size_t i = 0; i < 4; i++) {
    snprintf(full, sizeof full, "bert.encoder.layer.0.%s.%s", norms[i / 2], i % 2 ? "bias" : "weight");
    if (add(out, full, 2, 0)) return -1;
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char good_config[] =
      "{\"model_type\":\"bert\",\"vocab_size\":8,\"hidden_size\":2,\"num_hidden_layers\":1,\"num_attention_heads\":1,"
      "\"intermediate_size\":3,\"max_position_embeddings\":4}";
  static const char good_vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b";
  files f = {0};
  for (int i = 0; i < FILES && size; i++) {
    const uint8_t *end = memchr(data, 0, size);
    size_t bytes = end ? (size_t)(end - data) : size;
    f.text[i] = (const char *)data;
    f.bytes[i] = bytes;
    bytes += end != NULL;
    data += bytes;
    size -= bytes;
  }
  if (!f.bytes[0]) f.text[0] = good_config, f.bytes[0] = sizeof good_config - 1;
  if (!f.bytes[1] && !f.bytes[3]) f.text[3] = good_vocab, f.bytes[3] = sizeof good_vocab - 1;
  sw_model_source source = {.what = "fuzz", .self = &f, .has = has, .read = read_file, .tensors = tensors};
  sw_checkpoint c;
  int status = sw_import_source(&source, "fuzz", "fuzz", &c);
  if (status && !sw_error()[0]) abort();
  if (!status && (c.vocab_size > 8 || !json_object_get(c.config, "skillwatch"))) abort();
  sw_checkpoint_close(&c);
  return 0;
}
