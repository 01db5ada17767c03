/* Memory that runs out: every piece of work is done again and again, each time with another request for memory refused
 * (the first, the second ...; that one alone, and that one and all after it). What fails must say so, must have memory
 * as its reason, and must give everything back; what does not fail must have the result that it has with all memory.
 *
 * The linker puts the four functions below in the place of malloc and its kin in our own code (--wrap, see
 * tests/CMakeLists.txt), and through engine/store/json.c in jansson; other libraries keep theirs. After curl's
 * "torture" tests. */
#include "base/error.h"
#include "base/sha256.h"
#include "engine/data/labels.h"
#include "engine/data/postings.h"
#include "engine/data/token_set.h"
#include "engine/learn/optimizer.h"
#include "engine/store/huggingface.h"
#include "tests/support/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int armed, all_after;
static long requests, refused, live; /* `live`: blocks taken and not given back while armed */

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void __real_free(void *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
int __wrap_posix_memalign(void **, size_t, size_t);
void __wrap_free(void *);

static int refuse(void) {
  if (!armed) return 0;
  requests++;
  int no = refused && (requests == refused || (all_after && requests > refused));
  if (no) errno = ENOMEM;
  return no;
}

static void *taken(void *p) {
  live += armed && p;
  return p;
}

void *__wrap_malloc(size_t bytes) {
  return refuse() ? NULL : taken(__real_malloc(bytes));
}
void *__wrap_calloc(size_t count, size_t size) {
  return refuse() ? NULL : taken(__real_calloc(count, size));
}
void *__wrap_realloc(void *old, size_t bytes) {
  return refuse() ? NULL : old ? __real_realloc(old, bytes) : taken(__real_realloc(old, bytes));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes) {
  if (refuse()) return ENOMEM;
  int status = __real_posix_memalign(out, alignment, bytes);
  live += armed && !status;
  return status;
}

void __wrap_free(void *p) {
  live -= armed && p;
  __real_free(p);
}

/* 0 and a fingerprint of the result, or -1 with the message set. */
typedef int work(uint64_t *result);

static uint64_t mix(uint64_t hash, const void *data, size_t bytes) { /* FNV-1a */
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
  return hash;
}

static int run(work *body, uint64_t *result) {
  *result = 0xcbf29ce484222325u;
  requests = live = 0;
  sw_fail("no message");
  armed = 1;
  int status = body(result);
  armed = 0;
  return status;
}

static void torture(const char *name, work *body) {
  uint64_t want, got;
  long failed = 0;
  refused = 0;
  if (run(body, &want)) fail_msg("%s: %s", name, sw_error());
  const long total = requests;
  if (live) fail_msg("%s: %ld blocks are not given back", name, live);
  assert_true(total > 0);
  for (all_after = 0; all_after < 2; all_after++)
    for (refused = 1; refused <= total; refused++) {
      int status = run(body, &got);
      const char *which = all_after ? "from request" : "request", *error = sw_error();
      if (live)
        fail_msg("%s, %s %ld of %ld refused: %ld blocks are not given back (%s)", name, which, refused, total, live,
                 error);
      if (status != 0 && status != -1) fail_msg("%s, %s %ld refused: status %d", name, which, refused, status);
      if (status && (!strstr(error, "memory") || strstr(error, "damaged") || strstr(error, "valid")))
        fail_msg("%s, %s %ld of %ld refused: the message is: %s", name, which, refused, total, error);
      if (!status && got != want)
        fail_msg("%s, %s %ld of %ld refused: done, with another result", name, which, refused, total);
      failed += status != 0;
    }
  printf("%s: %ld requests, %ld of %ld refusals failed\n", name, total, failed, 2 * total);
  assert_true(failed > 0);
}

/* --- labels --- */
static const char *label_inputs[3], *rejected_path;

static int read_labels(uint64_t *result) {
  sw_labels labels;
  if (sw_labels_read(label_inputs, 3, rejected_path, NULL, &labels)) return -1;
  for (size_t i = 0; i < labels.num_examples; i++) {
    const sw_example *e = &labels.examples[i];
    *result = mix(*result, e->text, e->bytes);
    *result = mix(*result, e->tags, labels.num_layers * e->num_words * sizeof *e->tags);
  }
  *result = mix(*result, &labels.rejected, sizeof labels.rejected);
  sw_labels_close(&labels);
  return 0;
}

static void test_labels(void **state) {
  label_inputs[0] = test_write_text(
      "words.jsonl", "{\"tokens\": [\"Know\", \"Rust\"], \"tags_skill\": [\"O\", \"B-Tool\"]}\n"
                     "{\"tokens\": [\"bad\"], \"tags_skill\": [\"X\"]}\n"
                     "{\"tokens\": [\"Post\", \"##gres\"], \"tags_skill\": [\"B\", \"I\"], \"weight\": 2}\n");
  label_inputs[1] = test_write_text(
      "spans.jsonl", "{\"text\": \"Know Rust\", \"spans\": [{\"start\": 5, \"end\": 9, \"label\": \"Tool\"}]}\n"
                     "{\"text\": \"Know C\", \"spans\": [{\"start\": 5, \"end\": 99, \"label\": \"Tool\"}]}\n");
  label_inputs[2] = test_write_text("tags.conll.gz", "Know O\nRust B-Tool\n\nSpeak O\nFrench B-Skill\n");
  rejected_path = test_path("labels.rejected.jsonl");
  torture("labels", read_labels);
}

/* --- postings --- */
static const char *postings_input;

static int read_postings(uint64_t *result) {
  const sw_postings_options options = {.rejected_path = rejected_path};
  sw_postings *postings;
  if (sw_postings_open(&postings_input, 1, &options, &postings)) return -1;
  sw_posting posting;
  int status;
  while ((status = sw_postings_next(postings, &posting)) > 0) {
    *result = mix(*result, posting.id, strlen(posting.id));
    *result = mix(*result, posting.date, strlen(posting.date));
    *result = mix(*result, posting.text, posting.bytes);
    sw_posting_close(&posting);
  }
  uint64_t rejected = sw_postings_rejected(postings);
  *result = mix(*result, &rejected, sizeof rejected);
  if (!status) return sw_postings_close(postings);
  char why[256]; /* closing may fail, too; the first failure is the one to report */
  snprintf(why, sizeof why, "%s", sw_error());
  sw_postings_close(postings);
  return sw_fail("%s", why);
}

static void test_postings(void **state) {
  rejected_path = test_path("postings.rejected.jsonl");
  postings_input = test_write_text(
      "postings.csv.gz",
      "id,date,description\n7,2026-01-05,\"Know Rust,\nand C\"\n8,2026-01-06,\n9,2026-01-07,\"a \"\"b\"\"\"\n");
  torture("postings, CSV", read_postings);
  postings_input = test_write_text(
      "postings.jsonl.zst", "{\"id\": 7, \"text\": \"Know Rust\"}\n{\"text\"\n{\"id\": \"x\", \"text\": \"and C\"}\n");
  torture("postings, JSONL", read_postings);
  test_write_text("daily/2026-01-05/1.txt", "Know Rust");
  test_write_text("daily/2026-01-05/2.txt", "");
  postings_input = test_path("daily");
  torture("postings, folder", read_postings);
}

/* --- a small model --- */
enum { VOCAB = 12, HIDDEN = 8, POSITIONS = 8, TOKENS = 7 };
static const char *const vocabulary[VOCAB] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "know", "rust",
                                              "##s",   "and",   "c",     ",",     "post", "##gres"};
static sw_checkpoint checkpoint;

static void add_weight(const char *name, int64_t rows, int64_t columns) {
  sw_tensor *t = sw_tensors_add(&checkpoint.weights, name, SW_F32, columns ? 2 : 1, (int64_t[]){rows, columns});
  assert_non_null(t);
  for (int64_t i = 0; i < sw_tensor_elements(t); i++) ((float *)t->data)[i] = (float)(i * 7 % 11 - 5) * 0.05f;
}

static void add_pair(const char *prefix, int64_t out, int64_t in) {
  char name[128];
  snprintf(name, sizeof name, "%s.weight", prefix);
  add_weight(name, out, in);
  snprintf(name, sizeof name, "%s.bias", prefix);
  add_weight(name, out, 0);
}

static int make_checkpoint(void **state) {
  static const char *const labels[] = {"O", "B", "I"};
  sw_checkpoint_init(&checkpoint);
  checkpoint.kind = sw_strdup("ner");
  checkpoint.config =
      json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "model_type", "bert", "vocab_size", VOCAB,
                "hidden_size", HIDDEN, "num_hidden_layers", 1, "num_attention_heads", 2, "intermediate_size", 12,
                "max_position_embeddings", POSITIONS, "type_vocab_size", 2, "hidden_act", "gelu");
  checkpoint.training = json_pack("{s:i, s:f}", "steps", 3, "loss", 0.25);
  checkpoint.lineage = json_pack("[{s:s}]", "kind", "base");
  checkpoint.vocab = sw_alloc_array(VOCAB, sizeof *checkpoint.vocab);
  checkpoint.vocab_bytes = sw_alloc_array(VOCAB, sizeof *checkpoint.vocab_bytes);
  for (; checkpoint.vocab_size < VOCAB; checkpoint.vocab_size++) {
    checkpoint.vocab[checkpoint.vocab_size] = sw_strdup(vocabulary[checkpoint.vocab_size]);
    checkpoint.vocab_bytes[checkpoint.vocab_size] = strlen(vocabulary[checkpoint.vocab_size]);
  }
  add_weight("embeddings.word_embeddings.weight", VOCAB, HIDDEN);
  add_weight("embeddings.position_embeddings.weight", POSITIONS, HIDDEN);
  add_weight("embeddings.token_type_embeddings.weight", 2, HIDDEN);
  add_pair("embeddings.LayerNorm", HIDDEN, 0);
  add_pair("encoder.layer.0.attention.self.query", HIDDEN, HIDDEN);
  add_pair("encoder.layer.0.attention.self.key", HIDDEN, HIDDEN);
  add_pair("encoder.layer.0.attention.self.value", HIDDEN, HIDDEN);
  add_pair("encoder.layer.0.attention.output.dense", HIDDEN, HIDDEN);
  add_pair("encoder.layer.0.attention.output.LayerNorm", HIDDEN, 0);
  add_pair("encoder.layer.0.intermediate.dense", 12, HIDDEN);
  add_pair("encoder.layer.0.output.dense", HIDDEN, 12);
  add_pair("encoder.layer.0.output.LayerNorm", HIDDEN, 0);
  add_pair("heads.skill", 3, HIDDEN);
  return sw_checkpoint_add_head(&checkpoint, "skill", "token", labels, 3);
}

static int close_checkpoint(void **state) {
  sw_checkpoint_close(&checkpoint);
  return 0;
}

static int use_tokenizer(uint64_t *result) {
  sw_tokenizer *tokenizer;
  sw_encoding encoding = {0};
  static const char text[] = "Know Rusts, [SEP] and C\xc3\xa9 postgres 2026 caf\xc3\xa9";
  if (sw_checkpoint_tokenizer(&checkpoint, &tokenizer)) return -1;
  int status = sw_tokenizer_encode(tokenizer, text, strlen(text), &encoding);
  *result = mix(*result, encoding.ids, encoding.count * sizeof *encoding.ids);
  *result = mix(*result, encoding.start, encoding.count * sizeof *encoding.start);
  sw_encoding_close(&encoding);
  sw_tokenizer_close(tokenizer);
  return status;
}

static void test_tokenizer(void **state) {
  torture("tokenizer", use_tokenizer);
}

static int make_token_set(uint64_t *result) {
  sw_tokenizer *tokenizer;
  sw_labels labels = {0};
  sw_token_set set = {0};
  if (sw_checkpoint_tokenizer(&checkpoint, &tokenizer)) return -1;
  int status =
      sw_labels_read(label_inputs, 1, NULL, NULL, &labels) || sw_token_set_open(&labels, tokenizer, POSITIONS, 0, &set)
          ? -1
          : 0;
  for (size_t i = 0; i < set.count; i++)
    *result = mix(*result, set.items[i].ids, (size_t)set.items[i].length * sizeof *set.items[i].ids);
  sw_token_set_close(&set);
  sw_labels_close(&labels);
  sw_tokenizer_close(tokenizer);
  return status;
}

static void test_token_set(void **state) {
  label_inputs[0] =
      test_write_text("set.jsonl", "{\"tokens\": [\"Know\", \"Rusts\"], \"tags_skill\": [\"O\", \"B\"]}\n");
  torture("token set", make_token_set);
}

/* --- checkpoints --- */
static const char *checkpoint_path;

static int write_checkpoint(uint64_t *result) {
  if (sw_checkpoint_write(checkpoint_path, &checkpoint)) return -1;
  *result = mix(*result, checkpoint.content_sha256, 64);
  return 0;
}

static int read_checkpoint(uint64_t *result) {
  sw_checkpoint c;
  if (sw_checkpoint_read(checkpoint_path, &c)) return -1;
  *result = mix(*result, c.content_sha256, 64);
  sw_checkpoint_close(&c);
  return 0;
}

static void test_checkpoint(void **state) {
  checkpoint_path = test_path("c/torture.h5");
  torture("checkpoint, writing", write_checkpoint);
  uint64_t result;
  refused = 0;
  assert_int_equal(run(read_checkpoint, &result),
                   0); /* after the last failure the file of the last success is there, whole */
  assert_int_equal(unlink(checkpoint_path), 0);
  char folder[1024];
  snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(checkpoint_path, '/') - checkpoint_path), checkpoint_path);
  if (rmdir(folder)) fail_msg("something lies beside the checkpoint: %s", strerror(errno));
  checkpoint_path = test_path("d/torture.h5");
  assert_int_equal(sw_checkpoint_write(checkpoint_path, &checkpoint), 0);
  torture("checkpoint, reading", read_checkpoint);
}

/* --- Hugging Face's layout --- */
static const char *model_folder;

static int export_folder(uint64_t *result) {
  static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"};
  if (sw_export_folder(&checkpoint, &checkpoint.heads[0], model_folder, 1)) return -1;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[1200], hex[65];
    snprintf(path, sizeof path, "%s/%s", model_folder, files[i]);
    if (sw_sha256_file(path, hex)) return -1;
    *result = mix(*result, hex, 64);
  }
  return 0;
}

static int import_folder(uint64_t *result) {
  sw_checkpoint c;
  if (sw_import(model_folder, NULL, 1, &c)) return -1;
  for (size_t i = 0; i < c.weights.count; i++)
    *result = mix(*result, c.weights.items[i].data, (size_t)sw_tensor_elements(&c.weights.items[i]) * sizeof(float));
  for (size_t i = 0; i < c.vocab_size; i++) *result = mix(*result, c.vocab[i], c.vocab_bytes[i]);
  sw_checkpoint_close(&c);
  return 0;
}

/* jansson 2.14 aborts where it finds no memory for a long string with escapes, of which tokenizer.json has many. */
static void *spared(size_t bytes) {
  return taken(__real_malloc(bytes));
}

static void test_huggingface(void **state) {
  json_set_alloc_funcs(spared, __wrap_free);
  model_folder = test_path("model");
  uint64_t result;
  assert_int_equal(export_folder(&result), 0);
  torture("importing a folder", import_folder);
  torture("exporting a folder", export_folder);
}

/* --- models --- */
static const int32_t ids[TOKENS] = {2, 4, 5, 3, 2, 8, 3}, cu_seqlens[3] = {0, 4, 7},
                     targets[TOKENS] = {-100, 0, 1, -100, -100, 2, -100};
static const sw_batch batch = {.batch = 2, .tokens = TOKENS, .max_seqlen = 4, .ids = ids, .cu_seqlens = cu_seqlens};

static int tag(uint64_t *result) {
  sw_device *device;
  sw_stream stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  float out[TOKENS * 3];
  if (sw_device_open("cpu", &device)) return -1;
  int status = sw_stream_open(device, 1, &stream) || sw_model_open(&stream, &checkpoint, SW_F32, SW_INFERENCE, &model) ||
                       sw_run_open(&stream, model, TOKENS, 2, 0, &run) || sw_run_forward(run, &batch, NULL) ||
                       sw_run_token_log_probs(run, 0, out)
                   ? -1
                   : 0;
  if (!status) *result = mix(*result, out, sizeof out);
  sw_run_close(run);
  sw_model_close(model);
  sw_device_close(device);
  return status;
}

static int train(uint64_t *result) {
  const sw_optimizer_options options = SW_OPTIMIZER_DEFAULTS;
  sw_device *device;
  sw_stream stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  sw_optimizer *optimizer = NULL;
  sw_checkpoint trained;
  sw_checkpoint_init(&trained);
  double losses[2] = {0}, norm = 0;
  if (sw_device_open("cpu", &device)) return -1;
  int status = sw_stream_open(device, 1, &stream) || sw_model_open(&stream, &checkpoint, SW_F32, SW_TRAINING, &model) ||
               sw_run_open(&stream, model, TOKENS, 2, 1, &run) ||
               sw_optimizer_open(&stream, model, &options, TOKENS, 2, &optimizer);
  for (int micro = 0; !status && micro < 2; micro++) {
    sw_run_set_dropout(run, 1, 7, (uint32_t)micro);
    status = sw_optimizer_refresh(optimizer, ids, TOKENS) || sw_run_forward(run, &batch, NULL) ||
             sw_run_token_loss(run, 0, targets, NULL, 0.5f, 1, sw_optimizer_gradients(optimizer)) ||
             sw_run_backward(run, sw_optimizer_gradients(optimizer)) || sw_optimizer_collect(optimizer);
  }
  status = status || sw_run_losses(run, losses) || sw_optimizer_measure(optimizer) || sw_optimizer_step(optimizer, 1e-3, &norm) || sw_optimizer_save(optimizer, &trained) ||
                   sw_model_save(&stream, model, &trained)
               ? -1
               : 0;
  if (!status) {
    for (size_t i = 0; i < trained.weights.count; i++)
      *result = mix(*result, trained.weights.items[i].data,
                    (size_t)sw_tensor_elements(&trained.weights.items[i]) * sizeof(float));
    *result = mix(mix(*result, losses, sizeof *losses), &norm, sizeof norm);
  }
  sw_checkpoint_close(&trained);
  sw_optimizer_close(optimizer);
  sw_run_close(run);
  sw_model_close(model);
  sw_device_close(device);
  return status;
}

static void test_model(void **state) {
  torture("tagging", tag);
  torture("a training step", train);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_labels),      cmocka_unit_test(test_postings),   cmocka_unit_test(test_tokenizer),
      cmocka_unit_test(test_token_set),   cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_model),
      cmocka_unit_test(test_huggingface),
  };
  return cmocka_run_group_tests(tests, make_checkpoint, close_checkpoint);
}
