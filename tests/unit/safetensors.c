/* safetensors: what is written is read back; headers that lie are refused with a message, whatever they claim. */
#include "base/error.h"
#include "base/file.h"
#include "engine/store/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/sw-safetensors-XXXXXX";

static int make_folder(void **state) {
  return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state) {
  return rmdir(folder);
}

/* A file of `header` and `data_bytes` bytes of data counting up; the length prefix is `claimed`, or right when that is
 * -1. */
static char *build(const char *header, size_t data_bytes, long long claimed, size_t *bytes) {
  size_t length = strlen(header);
  uint64_t prefix = claimed < 0 ? length : (uint64_t)claimed;
  char *file = malloc(8 + length + data_bytes + 1);
  assert_non_null(file);
  for (int i = 0; i < 8; i++) file[i] = (char)(prefix >> 8 * i);
  memcpy(file + 8, header, length);
  for (size_t i = 0; i < data_bytes; i++) file[8 + length + i] = (char)i;
  *bytes = 8 + length + data_bytes;
  return file;
}

static void refuse(const char *header, size_t data_bytes, long long claimed, const char *needle) {
  size_t bytes;
  char *file = build(header, data_bytes, claimed, &bytes);
  sw_tensors tensors = {0};
  assert_int_equal(sw_safetensors_parse(file, bytes, "model.safetensors", &tensors), -1);
  if (!strstr(sw_error(), needle) || !strstr(sw_error(), "model.safetensors"))
    fail_msg("'%s' expected in '%s'", needle, sw_error());
  sw_tensors_close(&tensors);
  free(file);
}

static void test_lies(void **state) {
  sw_tensors tensors = {0};
  for (size_t n = 0; n < 8; n++) {
    assert_int_equal(sw_safetensors_parse("\1\0\0\0\0\0\0\0", n, "short", &tensors), -1);
    assert_non_null(strstr(sw_error(), "only"));
  }
#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
  refuse("{" A "}", 8, 1000, "truncated");
  refuse("{" A "}", 8, INT64_MAX, "truncated");
  refuse("{" A "}", 8, 10, "not valid JSON");
  refuse("{" A "}", 8, 0, "not valid JSON");
  refuse("{" A "}", 4, -1, "truncated");
  refuse("{" A "}", 9, -1, "the file has 9");
  refuse("{" A "," A "}", 8, -1, "duplicate");
  refuse("[1]", 0, -1, "not a JSON object");
  refuse("{\"a\":1}", 0, -1, "not an object");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, -1, "ask for 12");
  refuse("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, -1, "F8_E4M3");
  refuse("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1, "dtype");
  refuse("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, -1, "no shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1, "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, -1, "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, -1, "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, -1, "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5],\"data_offsets\":[0,8]}}", 8, -1, "shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, -1, "shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, -1,
         "shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, -1, "ask for");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, -1, "dimensions");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, -1, "dimensions");
  refuse("{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, -1, "overlap");
  refuse("{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1, "overlap");
  refuse("{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}", 20, -1, "hole");
  refuse("{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1e30,8]}}", 8, -1, "");
  refuse("{\"__metadata__\":{}}", 4, -1, "describes 0 bytes");
  refuse("ion https://git-lfs.github.com/spec/v1", 0, 0x206e6f6973726576, "LFS");
}

/* Every cut of a good file is refused: none is taken for whole. */
static void test_every_cut(void **state) {
  size_t bytes;
  char *file = build("{" A ",\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]}}", 12, -1, &bytes);
  for (size_t n = 0; n <= bytes; n++) {
    sw_tensors tensors = {0};
    char *copy = malloc(n ? n : 1); /* of its own size, so that AddressSanitizer sees any step too far */
    memcpy(copy, file, n);
    assert_int_equal(sw_safetensors_parse(copy, n, "cut", &tensors), n == bytes ? 0 : -1);
    if (n == bytes) assert_int_equal(tensors.count, 2);
    sw_tensors_close(&tensors);
    free(copy);
  }
  free(file);
}

static void test_dtypes(void **state) {
  /* F64 1.5, -0.1; F16 of every pattern; I64 is skipped; a scalar; an empty tensor */
  const char *header =
      "{\"d\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]},\"h\":{\"dtype\":\"F16\",\"shape\":[256,256],"
      "\"data_offsets\":[16,131088]},\"i\":{\"dtype\":\"I64\",\"shape\":[1,3],\"data_offsets\":[131088,131112]},"
      "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[131112,131116]},\"e\":{\"dtype\":\"F32\",\"shape\":[0,4]"
      ","
      "\"data_offsets\":[131116,131116]},\"__metadata__\":{\"format\":\"pt\"}}";
  size_t bytes;
  char *file = build(header, 131116, -1, &bytes), *data = file + 8 + strlen(header);
  const double doubles[2] = {1.5, -0.1};
  const float scalar = 42;
  memcpy(data, doubles, sizeof doubles);
  for (unsigned h = 0; h < 65536; h++) {
    uint16_t half = (uint16_t)h;
    memcpy(data + 16 + 2 * h, &half, 2);
  }
  memcpy(data + 131112, &scalar, 4);
  sw_tensors tensors = {0};
  assert_int_equal(sw_safetensors_parse(file, bytes, "mixed", &tensors), 0);
  assert_int_equal(tensors.count, 4);
  assert_null(sw_tensors_find(&tensors, "i"));
  const sw_tensor *d = sw_tensors_find(&tensors, "d"), *h = sw_tensors_find(&tensors, "h"),
                  *s = sw_tensors_find(&tensors, "s");
  assert_true(((float *)d->data)[0] == 1.5f && ((float *)d->data)[1] == -0.1f);
  assert_int_equal(s->rank, 0);
  assert_true(*(float *)s->data == 42);
  assert_int_equal(sw_tensor_elements(sw_tensors_find(&tensors, "e")), 0);
  for (unsigned i = 0; i < 65536; i++) { /* from the definition of binary16 */
    double sign = i & 0x8000 ? -1 : 1, fraction = (i & 1023) / 1024.0;
    int exponent = (int)(i >> 10 & 31);
    float found = ((float *)h->data)[i];
    if (exponent == 31 && (i & 1023)) {
      assert_true(isnan(found));
      continue;
    }
    double wanted = exponent == 31 ? INFINITY : exponent ? ldexp(1 + fraction, exponent - 15) : ldexp(fraction, -14);
    if (!((double)found == sign * wanted) || !signbit(found) != (sign > 0))
      fail_msg("half %04x is %g", i, (double)found);
  }
  sw_tensors_close(&tensors);
  free(file);
}

static void test_round_trip(void **state) {
  char path[64];
  snprintf(path, sizeof path, "%s/x.safetensors", folder);
  sw_tensors out = {0}, in = {0};
  const char *const names[] = {"embeddings.word_embeddings.weight", "b \"quoted\" \xc3\xa9", "c"};
  const int64_t shapes[3][4] = {{7, 5}, {3}, {2, 1, 3, 2}};
  const int ranks[] = {2, 1, 4};
  for (int i = 0; i < 3; i++) {
    sw_tensor *t = sw_tensors_add(&out, names[i], i == 1 ? SW_BF16 : SW_F32, ranks[i], shapes[i]);
    assert_non_null(t);
    unsigned char *data = t->data;
    for (size_t k = 0; k < (size_t)sw_tensor_elements(t) * sw_dtype_bytes(t->dtype); k++)
      data[k] = (unsigned char)(k * 37 + (size_t)i);
  }
  assert_int_equal(sw_safetensors_write(path, &out), 0);
  assert_int_equal(sw_safetensors_read(path, &in), 0);
  assert_int_equal(in.count, 3);
  for (int i = 0; i < 3; i++) {
    const sw_tensor *a = &out.items[i], *b = &in.items[i];
    assert_string_equal(a->name, b->name);
    assert_true(a->dtype == b->dtype && a->rank == b->rank && !memcmp(a->shape, b->shape, sizeof a->shape));
    assert_int_equal((uintptr_t)b->data % 64, 0);
    assert_memory_equal(a->data, b->data, (size_t)sw_tensor_elements(a) * sw_dtype_bytes(a->dtype));
  }
  sw_tensors_close(&in);
  sw_tensors_close(&out);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(sw_safetensors_read(path, &in), -1);
  assert_non_null(strstr(sw_error(), "No such file"));
  assert_int_equal(sw_safetensors_read(folder, &in), -1);
  assert_non_null(strstr(sw_error(), "not a regular file"));
  snprintf(path, sizeof path, "%s/no/x.safetensors", folder);
  assert_int_equal(sw_safetensors_write(path, &out), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_lies), cmocka_unit_test(test_every_cut),
                                     cmocka_unit_test(test_dtypes), cmocka_unit_test(test_round_trip)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
