#include "tests/support/files.h"
#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static char folder[256];
static pid_t owner;

static void remove_tree(const char *path) {
  struct stat info;
  if (lstat(path, &info)) return;
  if (S_ISDIR(info.st_mode)) {
    DIR *d = opendir(path);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
      if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
      char *child = sw_path_join(path, entry->d_name);
      if (child) remove_tree(child);
      free(child);
    }
    if (d) closedir(d);
    rmdir(path);
  } else {
    unlink(path);
  }
}

static void clean_up(void) {
  if (getpid() == owner) remove_tree(folder);
}

const char *test_path(const char *name) {
  static char buffers[16][1024];
  static int next;
  if (!*folder) {
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/skillwatch-test-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    assert_non_null(mkdtemp(folder));
    owner = getpid();
    atexit(clean_up);
  }
  char *path = buffers[next++ % 16];
  snprintf(path, sizeof buffers[0], "%s/%s", folder, name);
  char *slash = strrchr(path, '/');
  *slash = 0;
  assert_int_equal(sw_make_folders(path), 0);
  *slash = '/';
  return path;
}

void *test_compress(char kind, const void *data, size_t bytes, size_t *out_bytes) {
  void *out;
  if (kind == 'z') {
    size_t room = ZSTD_compressBound(bytes);
    out = malloc(room);
    assert_non_null(out);
    *out_bytes = ZSTD_compress(out, room, data, bytes, 1);
    assert_false(ZSTD_isError(*out_bytes));
    return out;
  }
  z_stream z = {0};
  assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  size_t room = deflateBound(&z, bytes) + 64;
  out = malloc(room);
  assert_non_null(out);
  z.next_in = (unsigned char *)(uintptr_t)data;
  z.avail_in = (unsigned)bytes;
  z.next_out = out;
  z.avail_out = (unsigned)room;
  assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
  *out_bytes = z.total_out;
  deflateEnd(&z);
  return out;
}

void test_write_raw(const char *path, const void *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, bytes, file), bytes);
  assert_int_equal(fclose(file), 0);
}

const char *test_write(const char *name, const void *data, size_t bytes) {
  const char *path = test_path(name), *dot = strrchr(name, '.');
  char kind = dot && !strcmp(dot, ".gz") ? 'g' : dot && !strcmp(dot, ".zst") ? 'z' : 0;
  if (!kind) {
    test_write_raw(path, data, bytes);
    return path;
  }
  size_t packed_bytes;
  void *packed = test_compress(kind, data, bytes, &packed_bytes);
  test_write_raw(path, packed, packed_bytes);
  free(packed);
  return path;
}

const char *test_write_text(const char *name, const char *text) {
  return test_write(name, text, strlen(text));
}

char *test_read(const char *path, size_t *bytes) {
  sw_buffer text = {0};
  if (!sw_exists(path)) return NULL;
  assert_int_equal(sw_file_read(path, 0, &text), 0);
  if (bytes) *bytes = text.size;
  return sw_buffer_take(&text);
}

uint64_t test_seed(const char *what) {
  const char *given = getenv("SW_TEST_SEED");
  uint64_t seed = given ? strtoull(given, NULL, 10) : 20250607;
  printf("%s: seed %llu (SW_TEST_SEED)\n", what, (unsigned long long)seed);
  return seed;
}
