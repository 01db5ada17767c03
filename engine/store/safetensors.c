#include "engine/store/safetensors.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 100 << 20, MAX_TENSORS = 1 << 20 };

typedef enum { KEEP_F32, KEEP_BF16, FROM_F16, FROM_F64, SKIP } treatment;
static const struct {
  const char *name;
  unsigned bytes;
  treatment treatment;
} dtypes[] = {{"F32", 4, KEEP_F32}, {"BF16", 2, KEEP_BF16}, {"F16", 2, FROM_F16}, {"F64", 8, FROM_F64},
              {"I64", 8, SKIP},     {"I32", 4, SKIP},       {"I16", 2, SKIP},     {"I8", 1, SKIP},
              {"U64", 8, SKIP},     {"U32", 4, SKIP},       {"U16", 2, SKIP},     {"U8", 1, SKIP},
              {"BOOL", 1, SKIP}};

typedef struct {
  const char *name; /* in the header's JSON */
  unsigned dtype;   /* index into dtypes */
  int rank;
  int64_t shape[8];
  uint64_t begin, end;
} entry;

static float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | fraction << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else {
    float value = (float)fraction * 0x1p-24f; /* subnormal halves are normal floats */
    return sign ? -value : value;
  }
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static int read_shape(const json_t *shape, const char *what, entry *e, uint64_t *elements) {
  size_t i;
  const json_t *size;
  if (!json_is_array(shape)) return sw_fail("%s: tensor %s has no shape", what, e->name);
  if (json_array_size(shape) > 8)
    return sw_fail("%s: tensor %s has %zu dimensions", what, e->name, json_array_size(shape));
  *elements = 1;
  json_array_foreach(shape, i, size) {
    json_int_t n = json_integer_value(size);
    if (!json_is_integer(size) || n < 0 || __builtin_mul_overflow(*elements, (uint64_t)n, elements))
      return sw_fail("%s: the shape of tensor %s is not valid", what, e->name);
    e->shape[e->rank++] = n;
  }
  return 0;
}

static int read_entry(const char *name, const json_t *value, const char *what, uint64_t data_bytes, entry *e) {
  *e = (entry){.name = name};
  if (!json_is_object(value)) return sw_fail("%s: the header's entry for %s is not an object", what, name);
  const char *dtype = sw_json_string(value, "dtype");
  while (dtype && e->dtype < sizeof dtypes / sizeof *dtypes && strcmp(dtypes[e->dtype].name, dtype)) e->dtype++;
  if (!dtype || e->dtype == sizeof dtypes / sizeof *dtypes)
    return sw_fail("%s: tensor %s has the dtype %.32s, which is not supported; convert it to float32 or bfloat16", what,
                   name, dtype ? dtype : "(none)");
  uint64_t elements = 0, bytes;
  if (read_shape(json_object_get(value, "shape"), what, e, &elements)) return -1;
  const json_t *offsets = json_object_get(value, "data_offsets"), *begin = json_array_get(offsets, 0),
               *end = json_array_get(offsets, 1);
  if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
      json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
    return sw_fail("%s: the data_offsets of tensor %s are not valid", what, name);
  e->begin = (uint64_t)json_integer_value(begin);
  e->end = (uint64_t)json_integer_value(end);
  if (e->end > data_bytes)
    return sw_fail("%s: tensor %s should end at byte %llu of the data, but there are only %llu: the file is truncated "
                   "or its header is wrong; "
                   "fetch it again",
                   what, name, (unsigned long long)e->end, (unsigned long long)data_bytes);
  if (__builtin_mul_overflow(elements, (uint64_t)dtypes[e->dtype].bytes, &bytes) || bytes != e->end - e->begin)
    return sw_fail("%s: tensor %s has %llu bytes of data, its shape and dtype ask for %llu", what, name,
                   (unsigned long long)(e->end - e->begin), (unsigned long long)bytes);
  return 0;
}

static int by_begin(const void *a, const void *b) {
  const entry *x = a, *y = b;
  return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : (x->end > y->end) - (x->end < y->end);
}

/* Reads the header's entries in the order of their data. As in the format's own reader they must follow each other
 * without holes or overlaps and end where the file ends. Names point into `header`. */
static int read_entries(json_t *header, const char *what, uint64_t data_bytes, entry **out, size_t *count) {
  const char *name;
  json_t *value;
  *count = 0;
  size_t most = json_object_size(header);
  if (most > MAX_TENSORS) return sw_fail("%s: the header lists %zu tensors", what, most);
  entry *entries = *out = sw_alloc_array(most, sizeof *entries);
  if (!entries) return -1;
  json_object_foreach(header, name, value) {
    if (!strcmp(name, "__metadata__")) continue;
    if (read_entry(name, value, what, data_bytes, &entries[*count])) return -1;
    ++*count;
  }
  qsort(entries, *count, sizeof *entries, by_begin);
  uint64_t at = 0;
  for (size_t i = 0; i < *count; i++) {
    if (entries[i].begin < at)
      return sw_fail("%s: the data of tensors %s and %s overlap", what, entries[i - 1].name, entries[i].name);
    if (entries[i].begin > at)
      return sw_fail("%s: there is a hole in the data before tensor %s", what, entries[i].name);
    at = entries[i].end;
  }
  if (at != data_bytes)
    return sw_fail("%s: the header describes %llu bytes of data, the file has %llu", what, (unsigned long long)at,
                   (unsigned long long)data_bytes);
  return 0;
}

enum { BLOCK = 1 << 16 };

static int fetch_tensor(sw_fetch fetch, void *source, const entry *e, const char *what, sw_tensors *out) {
  unsigned width = dtypes[e->dtype].bytes;
  treatment how = dtypes[e->dtype].treatment;
  uint64_t left = e->end - e->begin;
  char block[BLOCK];
  if (how == SKIP) {
    for (; left; left -= left < BLOCK ? left : BLOCK)
      if (fetch(source, block, left < BLOCK ? (size_t)left : BLOCK)) return -1;
    return 0;
  }
  sw_tensor *tensor = sw_tensors_add(out, e->name, how == KEEP_BF16 ? SW_BF16 : SW_F32, e->rank, e->shape);
  if (!tensor) return sw_fail_in("%s", what);
  if (how == KEEP_F32 || how == KEEP_BF16) return fetch(source, tensor->data, (size_t)left);
  float *to = tensor->data;
  while (left) {
    size_t bytes = left < BLOCK ? (size_t)left : BLOCK;
    if (fetch(source, block, bytes)) return -1;
    for (size_t i = 0; i < bytes / width; i++) {
      if (how == FROM_F16) {
        uint16_t half;
        memcpy(&half, block + 2 * i, 2);
        *to++ = half_to_float(half);
      } else {
        double wide;
        memcpy(&wide, block + 8 * i, 8);
        *to++ = (float)wide;
      }
    }
    left -= bytes;
  }
  return 0;
}

int sw_safetensors_stream(sw_fetch fetch, void *source, uint64_t bytes, const char *what, sw_tensors *out) {
  unsigned char prefix[8];
  if (bytes < 8)
    return sw_fail("%s is not a safetensors file: it has only %llu bytes", what, (unsigned long long)bytes);
  if (fetch(source, prefix, 8)) return -1;
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | prefix[i];
  if (!memcmp(prefix, "version ", 8))
    return sw_fail("%s is a Git LFS pointer, not the weights; fetch the file itself (git lfs pull)", what);
  if (length > bytes - 8)
    return sw_fail("%s is truncated or no safetensors file: its header should be %llu bytes long, the file has %llu",
                   what, (unsigned long long)length, (unsigned long long)bytes);
  if (length > MAX_HEADER) return sw_fail("%s: a header of %llu bytes is too large", what, (unsigned long long)length);
  char *text = sw_alloc(length + 1);
  json_t *header = NULL;
  entry *entries = NULL;
  size_t count = 0;
  int status = -1;
  if (text && !fetch(source, text, (size_t)length)) {
    char place[256];
    snprintf(place, sizeof place, "the header of %.220s", what);
    header = sw_json_parse(text, (size_t)length, place);
    if (header && !json_is_object(header))
      sw_fail("%s: the header is not a JSON object", what);
    else if (header)
      status = read_entries(header, what, bytes - 8 - length, &entries, &count);
  }
  free(text);
  for (size_t i = 0; !status && i < count; i++) status = fetch_tensor(fetch, source, &entries[i], what, out);
  free(entries);
  json_decref(header);
  return status;
}

typedef struct {
  const char *data;
  size_t at, bytes;
} memory;

static int fetch_memory(void *source, void *out, size_t bytes) {
  memory *m = source;
  if (bytes > m->bytes - m->at) return sw_fail("the data ends early");
  memcpy(out, m->data + m->at, bytes);
  m->at += bytes;
  return 0;
}

int sw_safetensors_parse(const void *data, size_t bytes, const char *what, sw_tensors *out) {
  memory m = {data, 0, bytes};
  return sw_safetensors_stream(fetch_memory, &m, bytes, what, out);
}

typedef struct {
  int fd;
  const char *path;
} file_source;

static int fetch_file(void *source, void *out, size_t bytes) {
  const file_source *file = source;
  for (char *to = out; bytes;) {
    ssize_t got = read(file->fd, to, bytes < 1u << 30 ? bytes : 1u << 30);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sw_fail("cannot read %s: %s", file->path, strerror(errno));
    if (got == 0) return sw_fail("cannot read %s: it became shorter while it was read", file->path);
    to += got;
    bytes -= (size_t)got;
  }
  return 0;
}

int sw_safetensors_read(const char *path, sw_tensors *out) {
  file_source file = {open(path, O_RDONLY | O_CLOEXEC), path};
  struct stat info;
  if (file.fd < 0) return sw_fail("cannot open %s: %s", path, strerror(errno));
  int status;
  if (fstat(file.fd, &info))
    status = sw_fail("cannot read %s: %s", path, strerror(errno));
  else if (!S_ISREG(info.st_mode))
    status = sw_fail("cannot read %s: it is not a regular file", path);
  else
    status = sw_safetensors_stream(fetch_file, &file, (uint64_t)info.st_size, path, out);
  close(file.fd);
  return status;
}

int sw_safetensors_write(const char *path, const sw_tensors *tensors) {
  json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
  uint64_t at = 0;
  int status = header ? 0 : sw_fail("out of memory");
  for (size_t i = 0; !status && i < tensors->count; i++) {
    const sw_tensor *tensor = &tensors->items[i];
    uint64_t end = at + (uint64_t)sw_tensor_elements(tensor) * sw_dtype_bytes(tensor->dtype);
    json_t *shape = json_array();
    for (int k = 0; k < tensor->rank; k++)
      if (json_array_append_new(shape, json_integer(tensor->shape[k]))) status = -1;
    json_t *value = json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensor->dtype == SW_F32 ? "F32" : "BF16", "shape", shape,
                              "data_offsets", (json_int_t)at, (json_int_t)end);
    if (json_object_set_new(header, tensor->name, value) || status)
      status = sw_fail("tensor %s has no valid name, or memory has run out", tensor->name);
    at = end;
  }
  /* the data starts at a multiple of 8 bytes: the header is filled up with spaces */
  char *text = status ? NULL : json_dumps(header, JSON_COMPACT);
  json_decref(header);
  if (!status && !text) status = sw_fail("out of memory");
  sw_output output = {0};
  if (status || sw_output_open(&output, path)) {
    free(text);
    return -1;
  }
  uint64_t length = strlen(text), padded = (length + 7) / 8 * 8;
  unsigned char prefix[8];
  for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)(padded >> 8 * i);
  fwrite(prefix, 1, 8, output.file);
  fprintf(output.file, "%s%*s", text, (int)(padded - length), "");
  free(text);
  for (size_t i = 0; i < tensors->count; i++)
    fwrite(tensors->items[i].data, sw_dtype_bytes(tensors->items[i].dtype),
           (size_t)sw_tensor_elements(&tensors->items[i]), output.file);
  return sw_output_commit(&output);
}
