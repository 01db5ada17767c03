/* Checkpoints: everything comes back as it was written; whatever happens to the file, it is the same content or a clear
 * refusal. */
#include "base/error.h"
#include "base/file.h"
#include "engine/store/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* HDF5 1.10 loses some hundred bytes of its own when it meets a damaged object header; ours are still counted. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
  return "leak:libhdf5";
}

static char folder[] = "/tmp/sw-checkpoint-XXXXXX";
static char path[64], other[64];

static int make_folder(void **state) {
  if (!mkdtemp(folder)) return -1;
  snprintf(path, sizeof path, "%s/c.h5", folder);
  snprintf(other, sizeof other, "%s/other.h5", folder);
  return 0;
}

static int remove_folder(void **state) {
  unlink(path);
  unlink(other);
  return rmdir(folder); /* fails where something was left behind */
}

static void add(sw_tensors *tensors, const char *name, sw_dtype dtype, int rank, const int64_t *shape) {
  sw_tensor *t = sw_tensors_add(tensors, name, dtype, rank, shape);
  assert_non_null(t);
  for (size_t i = 0; i < (size_t)sw_tensor_elements(t); i++) {
    float value = (float)i * 0.37f - 3;
    if (dtype == SW_F32)
      ((float *)t->data)[i] = value;
    else
      ((sw_bf16 *)t->data)[i] = sw_f32_to_bf16(value);
  }
}

static void make(sw_checkpoint *c, int full) {
  static const char *const vocab[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "", "w\xc3\xb6rt", "##x"};
  static const char *const labels[] = {"O", "B-Kn\xc3\xb6wledge", "I"}, *const two[] = {"no", "yes"};
  sw_checkpoint_init(c);
  c->kind = sw_strdup("test");
  c->config = json_pack("{s:s, s:f, s:i}", "model_type", "other", "eps", 1e-12, "a", 1);
  add(&c->weights, "z.first", SW_F32, 2, (int64_t[]){3, 2});
  if (!full) return;
  add(&c->weights, "a.second", SW_BF16, 1, (int64_t[]){5});
  add(&c->weights, "m/with/groups", SW_F32, 4, (int64_t[]){2, 1, 3, 2});
  add(&c->weights, "large", SW_F32, 2, (int64_t[]){1000, 700});  /* several chunks */
  add(&c->weights, "wide", SW_BF16, 2, (int64_t[]){2, 1200000}); /* rows larger than a chunk */
  add(&c->optimizer, "m/z.first", SW_F32, 2, (int64_t[]){3, 2});
  add(&c->optimizer, "v/z.first", SW_F32, 2, (int64_t[]){3, 2});
  c->vocab_size = 7;
  c->vocab = sw_alloc_array(7, sizeof *c->vocab);
  c->vocab_bytes = sw_alloc_array(7, sizeof *c->vocab_bytes);
  for (size_t i = 0; i < 7; i++) {
    c->vocab[i] = sw_strdup(vocab[i]);
    c->vocab_bytes[i] = strlen(vocab[i]);
  }
  c->tokenizer = (sw_tokenizer_options){0, -1, 1, 0, 77, 512};
  assert_int_equal(sw_checkpoint_add_head(c, "zweite", "token", labels, 3), 0);
  assert_int_equal(sw_checkpoint_add_head(c, "erste", "multilabel", two, 2), 0);
  c->training = json_pack("{s:[i, f], s:s}", "x", 1, 0.1, "text", "\xe2\x82\xac \"q\" \\ \n");
  c->lineage = json_pack("[{s:s}]", "content_sha256", "00");
  memset(c->parent_sha256, 'a', 64);
}

static void same_tensors(const sw_tensors *a, const sw_tensors *b) {
  assert_int_equal(a->count, b->count);
  for (size_t i = 0; i < a->count; i++) {
    const sw_tensor *x = &a->items[i], *y = &b->items[i];
    assert_string_equal(x->name, y->name);
    assert_true(x->dtype == y->dtype && x->rank == y->rank && !memcmp(x->shape, y->shape, sizeof x->shape));
    assert_int_equal((uintptr_t)y->data % 64, 0);
    assert_memory_equal(x->data, y->data, (size_t)sw_tensor_elements(x) * sw_dtype_bytes(x->dtype));
  }
}

static void same(const sw_checkpoint *a, const sw_checkpoint *b) {
  assert_string_equal(a->kind, b->kind);
  assert_true(json_equal(a->config, b->config));
  assert_true(a->training == b->training || json_equal(a->training, b->training));
  assert_true(a->lineage == b->lineage || json_equal(a->lineage, b->lineage));
  assert_int_equal(a->vocab_size, b->vocab_size);
  for (size_t i = 0; i < a->vocab_size; i++) {
    assert_int_equal(a->vocab_bytes[i], b->vocab_bytes[i]);
    assert_string_equal(a->vocab[i], b->vocab[i]);
  }
  assert_memory_equal(&a->tokenizer, &b->tokenizer, sizeof a->tokenizer);
  assert_int_equal(a->num_heads, b->num_heads);
  for (size_t i = 0; i < a->num_heads; i++) {
    assert_string_equal(a->heads[i].name, b->heads[i].name);
    assert_string_equal(a->heads[i].task, b->heads[i].task);
    assert_int_equal(a->heads[i].num_labels, b->heads[i].num_labels);
    for (size_t j = 0; j < a->heads[i].num_labels; j++)
      assert_string_equal(a->heads[i].labels[j], b->heads[i].labels[j]);
  }
  same_tensors(&a->weights, &b->weights);
  same_tensors(&a->optimizer, &b->optimizer);
  assert_string_equal(a->content_sha256, b->content_sha256);
  assert_string_equal(a->parent_sha256, b->parent_sha256);
  assert_string_equal(a->created, b->created);
  assert_string_equal(a->tool_version, b->tool_version);
}

static size_t files_in_folder(void) {
  size_t n = 0;
  DIR *dir = opendir(folder);
  assert_non_null(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n - 2;
}

static void write_bytes(const char *name, const void *data, size_t bytes) {
  FILE *f = fopen(name, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, bytes, f), bytes);
  assert_int_equal(fclose(f), 0);
}

/* Reading fails with one line that holds `needle`, and leaves an empty checkpoint. */
static void refuse(const char *name, const char *needle) {
  sw_checkpoint c;
  assert_int_equal(sw_checkpoint_read(name, &c), -1);
  if (!strstr(sw_error(), needle) || !strstr(sw_error(), name) || strchr(sw_error(), '\n'))
    fail_msg("'%s' expected in '%s'", needle, sw_error());
  assert_null(c.weights.items);
  assert_null(c.config);
}

static void test_round_trip(void **state) {
  for (int full = 0; full < 2; full++) {
    sw_checkpoint a, b;
    make(&a, full);
    assert_int_equal(sw_checkpoint_write(path, &a), 0);
    assert_int_equal(strlen(a.content_sha256), 64);
    if (sw_checkpoint_read(path, &b)) fail_msg("%s", sw_error());
    same(&a, &b);
    /* the same content again has the same hash; one changed number does not */
    char hash[65];
    memcpy(hash, a.content_sha256, 65);
    assert_int_equal(sw_checkpoint_write(path, &b), 0);
    assert_string_equal(b.content_sha256, hash);
    ((float *)b.weights.items[0].data)[5] += 1;
    assert_int_equal(sw_checkpoint_write(path, &b), 0);
    assert_string_not_equal(b.content_sha256, hash);
    sw_checkpoint_close(&a);
    sw_checkpoint_close(&b);
    assert_int_equal(files_in_folder(), 1);
  }
}

/* One bit of every byte flipped, one after the other: never other content, never a crash. */
static void test_every_byte_flipped(void **state) {
  sw_checkpoint a, b;
  sw_buffer file = {0};
  make(&a, 0);
  assert_int_equal(sw_checkpoint_write(path, &a), 0);
  assert_int_equal(sw_file_read(path, 0, &file), 0);
  size_t refused = 0;
  for (size_t i = 0; i < file.size; i++) {
    char bit = (char)(1 << (i * 5 % 8));
    file.data[i] ^= bit;
    write_bytes(other, file.data, file.size);
    file.data[i] ^= bit;
    if (sw_checkpoint_read(other, &b)) {
      refused++;
      assert_non_null(strstr(sw_error(), other));
      assert_null(strchr(sw_error(), '\n'));
    } else {
      same(&a, &b); /* a byte that holds nothing */
      sw_checkpoint_close(&b);
    }
  }
  printf("%zu of %zu flips refused\n", refused, file.size);
  assert_true(refused > 1000);
  sw_buffer_close(&file);
  sw_checkpoint_close(&a);
}

static void test_every_truncation(void **state) {
  sw_checkpoint a;
  sw_buffer file = {0};
  make(&a, 0);
  assert_int_equal(sw_checkpoint_write(path, &a), 0);
  sw_checkpoint_close(&a);
  assert_int_equal(sw_file_read(path, 0, &file), 0);
  for (size_t n = 0; n < file.size; n += n < 64 || file.size - n < 64 ? 1 : 61) {
    write_bytes(other, file.data, n);
    refuse(other, n == 0 ? "empty" : n < 8 ? "not a Skillwatch checkpoint" : "truncated");
  }
  /* a hole of zeros in the middle, as a crashed machine leaves it */
  memset(file.data + file.size / 2, 0, file.size / 4);
  write_bytes(other, file.data, file.size);
  refuse(other, "damaged");
  sw_buffer_close(&file);
}

static void test_foreign(void **state) {
  refuse("/nowhere/c.h5", "does not exist");
  refuse(folder, "folder");
  refuse("/dev/null", "not a regular file");
  write_bytes(other, "hello, this is text", 19);
  refuse(other, "not a Skillwatch checkpoint");
  write_bytes(other, "PK\3\4 and so on", 14);
  refuse(other, "zip");
  write_bytes(other, "\x10\0\0\0\0\0\0\0{\"a\":1}", 15);
  refuse(other, "safetensors");
  write_bytes(other, (const char[64]){"\x89HDF\r\n\x1a\n"}, 64);
  refuse(other, "older form");
  if (geteuid()) {
    assert_int_equal(chmod(other, 0), 0);
    refuse(other, "permission denied");
  }
}

static void expect_no_write(const char *name, sw_checkpoint *c, const char *needle) {
  assert_int_equal(sw_checkpoint_write(name, c), -1);
  if (!strstr(sw_error(), needle) || !strstr(sw_error(), name)) fail_msg("'%s' expected in '%s'", needle, sw_error());
}

static void test_what_cannot_be_written(void **state) {
  sw_checkpoint c;
  make(&c, 1);
  unlink(path);
  unlink(other);
  expect_no_write("/nowhere/at/all.h5", &c, "No such file");
  expect_no_write(folder, &c, "folder");
  static const char *const names[] = {"", "/", "a//b", ".", "a/./b", "a/", "x\ny"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    sw_tensor *t = sw_tensors_add(&c.weights, names[i], SW_F32, 1, (int64_t[]){1});
    *(float *)t->data = 0;
    expect_no_write(path, &c, "name");
    sw_tensors_remove(&c.weights, t);
  }
  sw_tensor *t = sw_tensors_add(&c.weights, "a.second", SW_F32, 1, (int64_t[]){1});
  expect_no_write(path, &c, "two tensors are named a.second");
  sw_tensors_remove(&c.weights, t);
  t = sw_tensors_add(&c.weights, "none", SW_F32, 2, (int64_t[]){0, 4});
  expect_no_write(path, &c, "no elements");
  sw_tensors_remove(&c.weights, t);
  t = sw_tensors_add(&c.weights, "scalar", SW_F32, 0, NULL);
  expect_no_write(path, &c, "no elements");
  sw_tensors_remove(&c.weights, t);
  assert_int_equal(sw_checkpoint_add_head(&c, "erste", "token", (const char *const[]){"O"}, 1), -1);
  assert_int_equal(sw_checkpoint_add_head(&c, "dritte", "token", NULL, 0), -1);
  assert_null(sw_tensors_add(&c.weights, "huge", SW_F32, 3, (int64_t[]){1 << 30, 1 << 30, 1 << 30}));
  assert_null(sw_tensors_add(&c.weights, "negative", SW_F32, 1, (int64_t[]){-1}));
  assert_null(sw_tensors_add(&c.weights, "deep", SW_F32, 5, (int64_t[]){1, 1, 1, 1, 1}));
  assert_int_equal(files_in_folder(), 0);
  sw_checkpoint_close(&c);
}

/* A model that this engine runs must have the tensors its config asks for. */
static void test_model_must_fit(void **state) {
  sw_checkpoint c;
  make(&c, 1);
  json_object_set_new(c.config, "model_type", json_string("bert"));
  assert_int_equal(sw_checkpoint_write(path, &c), 0);
  refuse(path, "vocab_size");
  static const char *const keys[] = {"vocab_size",          "hidden_size",       "num_hidden_layers",
                                     "num_attention_heads", "intermediate_size", "max_position_embeddings",
                                     "type_vocab_size"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) json_object_set_new(c.config, keys[i], json_integer(2));
  assert_int_equal(sw_checkpoint_write(path, &c), 0);
  refuse(path, "embeddings.word_embeddings.weight [2x2] is missing");
  sw_checkpoint_close(&c);
}

/* No room for the new file: the old one stays, nothing is left beside it, the message says why. In a child, for its
 * limit. */
static void test_no_room(void **state) {
  sw_checkpoint a, b;
  unlink(other);
  make(&a, 0);
  assert_int_equal(sw_checkpoint_write(path, &a), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {1 << 20, 1 << 20};
    if (setrlimit(RLIMIT_FSIZE, &limit)) _exit(3);
    sw_checkpoint big;
    make(&big, 1);
    int failed = sw_checkpoint_write(path, &big);
    int said = strstr(sw_error(), "File too large") && strstr(sw_error(), path);
    sw_checkpoint_close(&big);
    _exit(failed == -1 && said ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(sw_checkpoint_read(path, &b), 0);
  same(&a, &b);
  assert_int_equal(files_in_folder(), 1);
  sw_checkpoint_close(&a);
  sw_checkpoint_close(&b);
}

/* Temporary files of dead processes go, waited for or not; those of living ones and files that only look similar stay. */
static void test_stale_files(void **state) {
  sw_checkpoint c;
  char dead[96], unasked[96], living[96], similar[96];
  pid_t child = fork();
  if (!child) _exit(0);
  assert_int_equal(waitpid(child, NULL, 0), child);
  const pid_t zombie = fork();
  if (!zombie) _exit(0);
  siginfo_t ended;
  assert_int_equal(waitid(P_PID, (id_t)zombie, &ended, WEXITED | WNOWAIT), 0);
  snprintf(dead, sizeof dead, "%s.tmp-%d-0", path, (int)child);
  snprintf(unasked, sizeof unasked, "%s.tmp-%d-0", path, (int)zombie);
  snprintf(living, sizeof living, "%s.tmp-%d-0", path, (int)getppid());
  snprintf(similar, sizeof similar, "%s.tmp-%d-0.bak", path, (int)child);
  write_bytes(dead, "x", 1);
  write_bytes(unasked, "x", 1);
  write_bytes(living, "x", 1);
  write_bytes(similar, "x", 1);
  make(&c, 0);
  assert_int_equal(sw_checkpoint_write(path, &c), 0);
  sw_checkpoint_close(&c);
  assert_true(!sw_exists(dead) && !sw_exists(unasked) && sw_exists(living) && sw_exists(similar));
  assert_int_equal(waitpid(zombie, NULL, 0), zombie);
  unlink(living);
  unlink(similar);
}

static void *write_and_read(void *data) {
  int *failures = data;
  for (int i = 0; i < 8; i++) {
    sw_checkpoint a, b;
    sw_checkpoint_init(&b);
    make(&a, i % 2);
    /* what is read is ours or another thread's, but whole */
    if (sw_checkpoint_write(path, &a) || sw_checkpoint_read(path, &b)) {
      ++*failures;
      print_error("%s\n", sw_error());
    }
    sw_checkpoint_close(&a);
    sw_checkpoint_close(&b);
  }
  return NULL;
}

static void test_threads(void **state) {
  pthread_t threads[4];
  int failures[4] = {0};
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &failures[i]), 0);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(failures[i], 0);
  }
  assert_int_equal(files_in_folder(), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_every_byte_flipped),
      cmocka_unit_test(test_every_truncation),
      cmocka_unit_test(test_foreign),
      cmocka_unit_test(test_what_cannot_be_written),
      cmocka_unit_test(test_model_must_fit),
      cmocka_unit_test(test_no_room),
      cmocka_unit_test(test_stale_files),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
