#include "engine/store/npy.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int sw_npy_header(FILE *file, uint64_t rows, uint64_t columns) {
  char header[SW_NPY_HEADER + 1];
  memcpy(header, "\x93NUMPY\1\0", 8);
  header[8] = (char)(SW_NPY_HEADER - 10);
  header[9] = 0;
  int n = snprintf(header + 10, sizeof header - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }",
                   (unsigned long long)rows, (unsigned long long)columns);
  memset(header + 10 + n, ' ', (size_t)(SW_NPY_HEADER - 11 - n));
  header[SW_NPY_HEADER - 1] = '\n';
  if (fwrite(header, SW_NPY_HEADER, 1, file) != 1) return sw_fail("cannot write the .npy header: %s", strerror(errno));
  return 0;
}

/* The value after 'key': in the header's Python dictionary, or NULL. */
static const char *value_of(const char *header, const char *key) {
  const char *at = strstr(header, key);
  if (!at) return NULL;
  at += strlen(key);
  while (*at == ' ' || *at == ':') at++;
  return at;
}

static int parse_shape(const char *text, uint64_t *rows, uint64_t *columns) {
  char *end;
  if (!text || *text != '(') return -1;
  errno = 0;
  *rows = strtoull(text + 1, &end, 10);
  if (errno || end == text + 1 || *end != ',') return -1;
  const char *second = end + 1;
  *columns = strtoull(second, &end, 10);
  if (errno || end == second || strchr(second, '-')) return -1;
  while (*end == ',' || *end == ' ') end++;
  return *end == ')' ? 0 : -1;
}

int sw_npy_read_header(FILE *file, const char *path, uint64_t *rows, uint64_t *columns, uint64_t *data) {
  unsigned char start[12];
  size_t got = fread(start, 1, 10, file), length = 0;
  if (got < 10 || memcmp(start, "\x93NUMPY", 6)) return sw_fail("%s is no .npy file", path);
  if (start[6] < 1 || start[6] > 3)
    return sw_fail("%s: .npy format %d.%d is not known (1.0 to 3.0 are)", path, start[6], start[7]);
  length = start[8] | (size_t)start[9] << 8;
  *data = 10 + length;
  if (start[6] > 1) {
    if (fread(start + 10, 1, 2, file) != 2) return sw_fail("%s is truncated: its header is not whole", path);
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    *data = 12 + length;
  }
  char header[4096];
  if (length >= sizeof header) return sw_fail("%s: a header of %zu bytes is too long", path, length);
  if (fread(header, 1, length, file) != length) return sw_fail("%s is truncated: its header is not whole", path);
  header[length] = 0;
  const char *descr = value_of(header, "'descr'"), *order = value_of(header, "'fortran_order'");
  if (!descr || strncmp(descr, "'<f4'", 5))
    return sw_fail("%s: float32 values are expected ('<f4'); convert with astype('float32')", path);
  if (!order || strncmp(order, "False", 5))
    return sw_fail("%s: C order is expected; convert with numpy.ascontiguousarray", path);
  if (parse_shape(value_of(header, "'shape'"), rows, columns))
    return sw_fail("%s: an array of two dimensions, rows and columns, is expected", path);
  if (*columns == 0) return sw_fail("%s: its shape is %llu x 0: vectors without numbers", path, (unsigned long long)*rows);
  struct stat info;
  if (fstat(fileno(file), &info)) return sw_fail("cannot read %s: %s", path, strerror(errno));
  const uint64_t left = (uint64_t)info.st_size > *data ? ((uint64_t)info.st_size - *data) / 4 : 0;
  if (*columns > INT32_MAX || *rows > left / *columns)
    return sw_fail("%s is truncated: %llu values are there, its shape says %llu x %llu", path, (unsigned long long)left,
                   (unsigned long long)*rows, (unsigned long long)*columns);
  return 0;
}
