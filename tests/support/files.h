/* Files for tests: a folder of their own that is removed at exit, contents from strings, and what a program left
 * behind. */
#ifndef SW_TEST_FILES_H
#define SW_TEST_FILES_H
#include <stddef.h>
#include <stdint.h>

/* "<temporary folder>/<name>"; the text lives in one of 16 buffers that are used in turn. Missing folders are made. */
const char *test_path(const char *name);
/* Writes a file below the test's folder, as it is or compressed when the name ends in .gz or .zst, and returns its
 * path. */
const char *test_write(const char *name, const void *data, size_t bytes);
const char *test_write_text(const char *name, const char *text);
/* The same, from compressed bytes that are cut or changed by the caller first: gzip (kind 'g') or Zstandard ('z').
 * free() them. */
void *test_compress(char kind, const void *data, size_t bytes, size_t *out_bytes);
void test_write_raw(const char *path, const void *data, size_t bytes);
/* The whole file with a NUL behind it, or NULL where there is none; free() it. */
char *test_read(const char *path, size_t *bytes);
/* The seed of random tests: SW_TEST_SEED, or a fixed one; printed, so that a failure can be repeated. */
uint64_t test_seed(const char *what);
#endif
