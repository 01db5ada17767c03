/* Vectors on disk: what was written comes back, from both formats; torn, flipped and foreign files are refused without
 * a crash. */
#include "base/error.h"
#include "base/philox.h"
#include "engine/store/npy.h"
#include "engine/store/vectors.h"
#include "tests/support/files.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 2500, HIDDEN = 7 };
static float values[ROWS * HIDDEN];
static char names[ROWS][32];
static const char *ids[ROWS];
static const sw_vectors_origin origin = {"0123abcd", "models/b\xc3\xa9rt.h5", "mean", "Job title: ", 1};

static void fill(void) {
  sw_random r = {.seed = test_seed("vectors")};
  for (size_t i = 0; i < ROWS * HIDDEN; i++) values[i] = sw_random_float(&r) - 0.5f;
  for (size_t i = 0; i < ROWS; i++) {
    names[i][0] = 0;
    if (i % 7) snprintf(names[i], sizeof names[i], "id %zu \xc3\xa9", i);
    ids[i] = names[i];
  }
}

static void write_file(const char *path, size_t rows) {
  sw_vectors_writer *w;
  assert_int_equal(sw_vectors_create(path, HIDDEN, 20, &origin, &w), 0);
  assert_int_not_equal(access(path, F_OK), 0);
  for (size_t at = 0, step = 1; at < rows; at += step, step = step * 3 + 1) {
    if (step > rows - at) step = rows - at;
    assert_int_equal(sw_vectors_append(w, values + at * HIDDEN, ids + at, step), 0);
  }
  assert_int_equal(sw_vectors_commit(w), 0);
}

static void check_file(const char *path, size_t rows) {
  sw_vectors v;
  assert_int_equal(sw_vectors_open(path, &v), 0);
  assert_int_equal(v.rows, rows);
  assert_int_equal(v.hidden, HIDDEN);
  static float got[ROWS * HIDDEN];
  static char *names_back[ROWS];
  const size_t starts[] = {0, 1, rows / 2, rows};
  for (size_t k = 0; k < 4; k++) {
    const size_t first = starts[k] < rows ? starts[k] : rows, count = rows - first;
    assert_int_equal(sw_vectors_read(&v, first, count, got), 0);
    assert_memory_equal(got, values + first * HIDDEN, count * HIDDEN * sizeof(float));
    assert_int_equal(sw_vectors_read_ids(&v, first, count, names_back), 0);
    for (size_t i = 0; i < count; i++) {
      assert_string_equal(names_back[i], ids[first + i]);
      free(names_back[i]);
    }
  }
  assert_int_not_equal(sw_vectors_read(&v, rows, 1, got), 0);
  assert_int_not_equal(sw_vectors_read(&v, 1, UINT64_MAX, got), 0);
  assert_int_not_equal(sw_vectors_read_ids(&v, 0, rows + 1, names_back), 0);
  sw_vectors_close(&v);
}

static void test_round_trip(void **state) {
  fill();
  const size_t sizes[] = {0, 1, 3, ROWS};
  for (size_t k = 0; k < 4; k++) {
    char name[32];
    for (int npy = 0; npy < 2; npy++) {
      snprintf(name, sizeof name, "round%zu.%s", k, npy ? "npy" : "h5");
      const char *path = test_path(name);
      write_file(path, sizes[k]);
      check_file(path, sizes[k]);
    }
  }
  sw_vectors v;
  assert_int_equal(sw_vectors_open(test_path("round3.h5"), &v), 0);
  assert_string_equal(v.model, origin.model);
  assert_string_equal(v.model_sha256, origin.model_sha256);
  assert_string_equal(v.pooling, origin.pooling);
  assert_string_equal(v.prefix, origin.prefix);
  assert_int_equal(v.normalize, 1);
  sw_vectors_close(&v);
}

static void test_abandoned(void **state) {
  fill();
  for (int npy = 0; npy < 2; npy++) {
    const char *path = test_path(npy ? "gone/a.npy" : "gone/a.h5");
    sw_vectors_writer *w;
    assert_int_equal(sw_vectors_create(path, HIDDEN, 20, &origin, &w), 0);
    assert_int_equal(sw_vectors_append(w, values, ids, 100), 0);
    sw_vectors_abandon(w);
  }
  assert_int_equal(rmdir(test_path("gone")), 0); /* nothing was left in it */
  sw_vectors_writer *w;
  assert_int_not_equal(sw_vectors_create("/no/such/folder/v.h5", HIDDEN, 20, &origin, &w), 0);
  assert_int_not_equal(sw_vectors_create("/no/such/folder/v.npy", HIDDEN, 20, &origin, &w), 0);
  assert_int_equal(sw_vectors_create(test_path("long.h5"), HIDDEN, 3, &origin, &w), 0);
  const char *longer = "four";
  assert_int_not_equal(sw_vectors_append(w, values, &longer, 1), 0);
  sw_vectors_abandon(w);
}

/* Reads everything; whatever is wrong must be said, not crash. 1 when all could be read. */
static int read_all(const char *path) {
  sw_vectors v;
  if (sw_vectors_open(path, &v)) {
    assert_true(sw_error()[0]);
    return 0;
  }
  int right = v.rows <= ROWS && v.hidden == HIDDEN;
  static float got[ROWS * HIDDEN];
  static char *names_back[ROWS];
  if (right && sw_vectors_read(&v, 0, v.rows, got)) right = 0;
  if (right && sw_vectors_read_ids(&v, 0, v.rows, names_back)) {
    right = 0;
  } else if (right) {
    for (uint64_t i = 0; i < v.rows; i++) free(names_back[i]);
  }
  sw_vectors_close(&v);
  return right;
}

static void test_damaged(void **state) {
  fill();
  for (int npy = 0; npy < 2; npy++) {
    char path[600];
    snprintf(path, sizeof path, "%s", test_path(npy ? "damaged.npy" : "damaged.h5"));
    write_file(path, 50);
    size_t bytes;
    char *whole = test_read(path, &bytes);
    if (!read_all(path)) fail_msg("%s", sw_error());
    for (size_t cut = 0; cut < bytes; cut += npy ? 1 : 17) {
      test_write_raw(path, whole, cut);
      if (read_all(path)) fail_msg("cut to %zu of %zu bytes and still read", cut, bytes);
    }
    sw_random r = {.seed = test_seed("flips")};
    for (int k = 0; k < 400; k++) {
      const size_t at = sw_random_below(&r, (uint32_t)bytes);
      whole[at] ^= (char)(1 << (k % 8));
      test_write_raw(path, whole, bytes);
      read_all(path); /* a flip in padding does no harm; others must not crash */
      whole[at] ^= (char)(1 << (k % 8));
    }
    free(whole);
  }
  const char *const foreign[] = {"", "x", "id,vector\n1,2\n", "\x93NUMPY\1\0\x10\0{'descr': '<f8'"};
  for (size_t i = 0; i < 4; i++) assert_false(read_all(test_write_text("foreign.h5", foreign[i])));
  assert_false(read_all(test_path("missing.h5")));
  assert_false(read_all("/"));
}

static void test_foreign_npy(void **state) {
  const struct {
    const char *header;
    int fine;
  } cases[] = {
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 1},
      {"{\"descr\": '<f4', 'fortran_order': False, 'shape': (2, 3), }", 0},
      {"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", 0},
      {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 1), }", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", 0},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3), }", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char file[400] = "\x93NUMPY\1";
    const size_t n = strlen(cases[i].header);
    file[8] = (char)n;
    memcpy(file + 10, cases[i].header, n);
    const float six[6] = {1, 2, 3, 4, 5, 6};
    memcpy(file + 10 + n, six, sizeof six);
    sw_vectors v;
    const int status = sw_vectors_open(test_write("case.npy", file, 10 + n + sizeof six), &v);
    assert_int_equal(status == 0, cases[i].fine);
    if (status) continue;
    float got[6];
    assert_int_equal(sw_vectors_read(&v, 0, 2, got), 0);
    assert_memory_equal(got, six, sizeof six);
    char *id[2];
    assert_int_equal(sw_vectors_read_ids(&v, 0, 2, id), 0);
    assert_string_equal(id[1], "2"); /* no names: row numbers */
    free(id[0]), free(id[1]);
    sw_vectors_close(&v);
  }
}

typedef struct {
  size_t calls;
} every_third;

static int keep_every_third(void *context, size_t source, uint64_t row, const char *id) {
  ((every_third *)context)->calls++;
  return source || row % 3 == 0;
}

static void test_copy(void **state) {
  fill();
  char path[600];
  snprintf(path, sizeof path, "%s", test_path("copied.h5"));
  write_file(path, ROWS);
  write_file(test_path("more.npy"), 3);
  sw_vectors both[2], v;
  every_third third = {0};
  uint64_t rows;
  assert_int_equal(sw_vectors_open(path, &both[0]), 0);
  assert_int_equal(sw_vectors_open(test_path("more.npy"), &both[1]), 0);
  assert_int_equal(sw_vectors_copy(path, both, 2, &origin, keep_every_third, &third, &rows), 0); /* over one of its sources */
  for (int i = 0; i < 2; i++) sw_vectors_close(&both[i]);
  const size_t kept = (ROWS + 2) / 3;
  assert_int_equal(rows, kept + 3);
  assert_int_equal(third.calls, 2 * (ROWS + 3));
  assert_int_equal(sw_vectors_open(path, &v), 0);
  assert_int_equal(v.rows, rows);
  assert_string_equal(v.prefix, origin.prefix);
  for (size_t i = 0; i < rows; i++) {
    const size_t from = i < kept ? 3 * i : i - kept;
    float got[HIDDEN];
    char *id;
    assert_int_equal(sw_vectors_read(&v, i, 1, got) || sw_vectors_read_ids(&v, i, 1, &id), 0);
    assert_memory_equal(got, values + from * HIDDEN, sizeof got);
    assert_string_equal(id, ids[from]);
    free(id);
  }
  values[5] = NAN; /* refused, and what was there stays */
  write_file(test_path("nan.npy"), 3);
  assert_int_equal(sw_vectors_open(test_path("nan.npy"), &both[1]), 0);
  assert_int_not_equal(sw_vectors_copy(path, &both[1], 1, &origin, NULL, NULL, &rows), 0);
  assert_int_equal(sw_vectors_read(&v, 0, 1, values), 0);
  sw_vectors_close(&both[1]);
  sw_vectors_close(&v);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_abandoned),
                                     cmocka_unit_test(test_damaged), cmocka_unit_test(test_foreign_npy),
                                     cmocka_unit_test(test_copy)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
