#include "engine/store/mlflow_registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/version.h"
#include "engine/store/encoder.h"
#include "engine/store/http.h"
#include "engine/store/hub.h"
#include "engine/store/huggingface.h"
#include "engine/store/json.h"
#include "engine/store/mlflow_api.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  FILE_SECONDS = 60,
  MAX_WAIT = 60,
  BATCH = 100,
  TAG = 5000,
  PAGE = 200,
  MAX_PAGES = 1000
}; /* BATCH: params at once; TAG: bytes of a value; PAGE: versions at once */
static const uint64_t max_checkpoint = (uint64_t)64 << 30;

typedef struct {
  sw_mlflow_api api;
  sw_http_login login;
  char *address;
  const char *name;
  int quiet, temporary;
  atomic_int stop;
  atomic_ullong moved;
  sw_progress progress;
  double sent;
} registry;

static int open_registry(registry *r, const char *name, int quiet) {
  const char *address = getenv("MLFLOW_TRACKING_URI");
  r->name = name;
  r->quiet = quiet;
  if (!address || !address[0])
    return sw_fail(
        "MLFLOW_TRACKING_URI is not set; it should be the MLflow server's address, https://mlflow.example.org");
  if (strncmp(address, "https://", 8) && strncmp(address, "http://", 7))
    return sw_fail("MLFLOW_TRACKING_URI should begin with https:// or http://");
  if (strchr(address, '@'))
    return sw_fail(
        "MLFLOW_TRACKING_URI must hold no user or password; use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD");
  if (!name[0] || strpbrk(name, "/:@'\"%\\"))
    return sw_fail("'%s' is no name of a registered model: it may not be empty or hold / : @ ' \" %% \\", name);
  size_t length = strlen(address);
  while (address[length - 1] == '/') length--;
  if (!(r->address = sw_strndup(address, length))) return -1;
  r->api.address = r->address;
  return sw_mlflow_login(r->address, &r->login) || sw_http_client_open(&r->login, &r->stop, &r->moved, &r->api.client)
             ? -1
             : 0;
}

static void close_registry(registry *r) {
  sw_http_client_close(r->api.client);
  free(r->address);
}

/* After a call that did not succeed: 1: send it again, some time was waited; -1: given up. */
static int wait_again(registry *r, int failures) {
  const int code = sw_http_client_code(r->api.client);
  const double wait = sw_http_wait(failures, r->api.retry_after);
  const int certain = code && !sw_http_is_temporary(code, 0);
  r->temporary = !certain;
  if (certain || failures >= SW_HTTP_TRIES) return sw_fail_in("MLflow at %s", r->address);
  if (wait > MAX_WAIT)
    return sw_fail("MLflow at %s asks to come back in %.0f seconds; run the command again then", r->address, wait);
  if (!r->quiet) {
    const sw_progress shown = r->progress;
    sw_progress_close(&r->progress);
    fprintf(stderr, "MLflow at %s: %s; trying again in %.1f s\n", r->address, sw_error(), wait);
    r->progress = shown;
  }
  sw_http_pause(wait);
  return 1;
}

/* Looks for what an earlier call with `body` made, whose answer was lost: *answer as the call's own; NULL: nothing. */
typedef int look_up(registry *r, const json_t *body, json_t **answer);

/* A call, tried again unless `look` (NULL: none) finds that it was heeded. 0: done; 1: refused; -1. *answer as
 * sw_mlflow_call's. `body` is taken. */
static int ask_unless(registry *r, const char *endpoint, const char *post, json_t *body, look_up *look,
                      json_t **answer) {
  sw_mlflow_outcome result;
  int failures = 0, status = 0;
  *answer = NULL;
  while ((result = sw_mlflow_call(&r->api, endpoint, post, json_incref(body), answer)) == SW_MLFLOW_LATER) {
    json_decref(*answer);
    *answer = NULL;
    status = wait_again(r, ++failures) < 0 || (look && look(r, body, answer)) ? -1 : 0;
    if (status || *answer) break;
  }
  json_decref(body);
  if (result == SW_MLFLOW_LATER) return status;
  r->temporary = 0;
  return result == SW_MLFLOW_HOPELESS ? sw_fail_in("MLflow at %s", r->address) : result == SW_MLFLOW_REFUSED;
}

static int ask(registry *r, const char *endpoint, const char *post, json_t *body, json_t **answer) {
  return ask_unless(r, endpoint, post, body, NULL, answer);
}

/* The same where a refusal is a failure. */
static int tell(registry *r, const char *endpoint, const char *post, json_t *body, json_t **answer) {
  const int result = ask(r, endpoint, post, body, answer);
  return result > 0 ? sw_fail_in("MLflow at %s", r->address) : result;
}

static int tell_only(registry *r, const char *endpoint, const char *post, json_t *body) {
  json_t *answer;
  const int result = tell(r, endpoint, post, body, &answer);
  json_decref(answer);
  return result;
}

static const char *tag_of(const json_t *version, const char *key) {
  size_t i;
  const json_t *tag;
  json_array_foreach(json_object_get(version, "tags"), i, tag) {
    const char *name = sw_json_string(tag, "key");
    if (name && !strcmp(name, key)) return sw_json_string(tag, "value");
  }
  return NULL;
}

/* The version that has the tag skillwatch.content_sha256 = `content`, or (NULL) the newest; *out NULL: there is none.
 */
static int find_version(registry *r, const char *content, json_t **out) {
  sw_buffer endpoint = {0};
  char *token = NULL;
  long long newest = 0;
  int status = 0, pages = 0;
  *out = NULL;
  do {
    json_t *answer = NULL;
    const json_t *version;
    size_t i;
    sw_buffer_clear(&endpoint);
    status = sw_buffer_print(&endpoint, "model-versions/search?max_results=%d&filter=name%%3D%%27", PAGE) ||
                     sw_mlflow_escape(&endpoint, r->name) || sw_buffer_print(&endpoint, "%%27") ||
                     (token && (sw_buffer_print(&endpoint, "&page_token=") || sw_mlflow_escape(&endpoint, token)))
                 ? -1
                 : 0;
    if (!status) status = ask(r, endpoint.data, NULL, NULL, &answer);
    if (status > 0 && sw_mlflow_says(answer, "RESOURCE_DOES_NOT_EXIST"))
      status = 0; /* no such model yet */
    else if (status > 0)
      status = sw_fail_in("MLflow at %s", r->address);
    json_array_foreach(json_object_get(answer, "model_versions"), i, version) {
      const char *number = sw_json_string(version, "version"), *tag = tag_of(version, "skillwatch.content_sha256");
      const long long n = number ? strtoll(number, NULL, 10) : json_integer_value(json_object_get(version, "version"));
      if (n <= newest || (content && (!tag || strcmp(tag, content)))) continue;
      newest = n;
      json_decref(*out);
      *out = json_incref((json_t *)version);
    }
    const char *next = sw_json_string(answer, "next_page_token");
    if (!status && next && next[0] && (++pages == MAX_PAGES || (token && !strcmp(next, token))))
      status = sw_fail("MLflow at %s: its list of the versions of %s has no end: is it an MLflow tracking server?",
                       r->address, r->name);
    free(token);
    token = NULL;
    if (!status && next && next[0] && !(token = sw_strdup(next))) status = -1;
    json_decref(answer);
  } while (!status && token);
  sw_buffer_close(&endpoint);
  return status;
}

static void number_of(const json_t *version, char out[24]) {
  const json_t *number = json_object_get(version, "version");
  if (json_is_integer(number))
    snprintf(out, 24, "%lld", (long long)json_integer_value(number));
  else
    snprintf(out, 24, "%.23s", json_string_value(number) ? json_string_value(number) : "");
}

/* --- push */

static json_int_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static int find_experiment(registry *r, const char *name, char id[64]) {
  sw_buffer endpoint = {0};
  json_t *answer = NULL;
  int result =
      sw_buffer_print(&endpoint, "experiments/get-by-name?experiment_name=") || sw_mlflow_escape(&endpoint, name) ? -1
                                                                                                                  : 0;
  for (int round = 0; round < 2 && !result; round++) { /* twice: somebody else may make it meanwhile */
    json_decref(answer);
    result = ask(r, endpoint.data, NULL, NULL, &answer);
    const char *found = sw_json_string(json_object_get(answer, "experiment"), "experiment_id");
    if (!result) {
      snprintf(id, 64, "%.63s", found ? found : "");
      break;
    }
    if (result < 0 || !sw_mlflow_says(answer, "RESOURCE_DOES_NOT_EXIST")) break;
    json_decref(answer);
    result = ask(r, "experiments/create", "POST", json_pack("{s:s}", "name", name), &answer);
    found = sw_json_string(answer, "experiment_id");
    if (!result) {
      snprintf(id, 64, "%.63s", found ? found : "");
      break;
    }
    if (result > 0 && sw_mlflow_says(answer, "RESOURCE_ALREADY_EXISTS") && !round) result = 0;
  }
  if (result > 0) result = sw_fail_in("MLflow at %s", r->address);
  json_decref(answer);
  sw_buffer_close(&endpoint);
  if (!result && !id[0])
    result = sw_fail("MLflow at %s: it gives the experiment no id: is it an MLflow tracking server?", r->address);
  return result;
}

/* What a version and its run are, as their tags. */
static json_t *make_tags(const sw_checkpoint *c, const char *file_sha256) {
  sw_buffer line = {0}; /* the ancestors' hashes, the youngest first */
  for (size_t i = json_array_size(c->lineage); i-- && line.size + 66 < TAG;) {
    const char *hash = sw_json_string(json_array_get(c->lineage, i), "content_sha256");
    if (hash) sw_buffer_print(&line, "%s%s", line.size ? " " : "", hash);
  }
  const char *task = sw_json_string(c->training, "task");
  const struct {
    const char *key, *value;
  } rows[] = {{"skillwatch.content_sha256", c->content_sha256},
              {"skillwatch.file_sha256", file_sha256},
              {"skillwatch.kind", c->kind},
              {"skillwatch.task", task},
              {"skillwatch.created", c->created},
              {"skillwatch.version", c->tool_version},
              {"skillwatch.parent_sha256", c->parent_sha256},
              {"skillwatch.lineage", line.data}};
  json_t *tags = json_array();
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].value && rows[i].value[0])
      json_array_append_new(tags, json_pack("{s:s, s:s}", "key", rows[i].key, "value", rows[i].value));
  sw_buffer_close(&line);
  return tags;
}

/* Numbers below `value`: "layers/knowledge/micro/f1". */
static int add_metrics(json_t *list, const json_t *value, const char *path, json_int_t time_ms) {
  const char *name;
  json_t *item;
  int status = 0;
  json_object_foreach((json_t *)value, name, item) {
    sw_buffer longer = {0};
    status = sw_buffer_print(&longer, "%s%s%s", path, path[0] && name[0] ? "/" : "", name);
    if (!status && json_is_object(item)) status = add_metrics(list, item, longer.data, time_ms);
    char *key =
        !status && json_is_number(item) && isfinite(json_number_value(item)) ? sw_mlflow_clean(longer.data) : NULL;
    if (key)
      status = json_array_append_new(list, json_pack("{s:s, s:f, s:I, s:i}", "key", key, "value",
                                                     json_number_value(item), "timestamp", time_ms, "step", 0));
    free(key);
    sw_buffer_close(&longer);
    if (status) break;
  }
  return status;
}

/* The settings and scores of the checkpoint, in pieces that the server takes. */
static int send_numbers(registry *r, const sw_checkpoint *c, const char *run_id) {
  const json_t *settings = json_object_get(c->training, "run");
  json_t *lists[] = {json_array(), json_array()};
  static const char *const names[] = {"params", "metrics"};
  int failed = !lists[0] || !lists[1] ||
               (settings && sw_mlflow_params(lists[0], "", settings, json_object_get(settings, "hyper_parameters"))) ||
               add_metrics(lists[1], json_object_get(c->training, "metrics"), "", now_ms());
  if (failed) sw_fail("the checkpoint's settings or scores cannot be written as JSON, or memory is short");
  for (int k = 0; k < 2; k++)
    for (size_t from = 0; from < json_array_size(lists[k]) && !failed; from += BATCH) {
      json_t *part = json_array();
      for (size_t i = from; i < json_array_size(lists[k]) && i < from + BATCH; i++)
        json_array_append(part, json_array_get(lists[k], i));
      failed = tell_only(r, "runs/log-batch", "POST", json_pack("{s:s, s:o}", "run_id", run_id, names[k], part));
    }
  json_decref(lists[0]);
  json_decref(lists[1]);
  return failed ? -1 : 0;
}

static int send_file(registry *r, const char *path, const char *place, const char *name) {
  struct stat info;
  if (stat(path, &info)) return sw_fail("cannot open %s: %s", path, strerror(errno));
  const sw_http_message message = {.file = path, .seconds = FILE_SECONDS, .progress = &r->progress, .done = r->sent};
  sw_mlflow_outcome result;
  int failures = 0;
  while ((result = sw_mlflow_put(&r->api, place, name, &message)) == SW_MLFLOW_LATER)
    if (wait_again(r, ++failures) < 0) return -1;
  r->temporary = 0;
  r->sent += (double)info.st_size;
  return result == SW_MLFLOW_DONE ? 0 : sw_fail_in("MLflow at %s: %s", r->address, name);
}

/* All files of `folder`, below `prefix`; only their bytes are added up where `place` is NULL. */
static int send_folder(registry *r, const char *folder, const char *place, const char *prefix) {
  DIR *dir = opendir(folder);
  int status = dir ? 0 : sw_fail("cannot read %s: %s", folder, strerror(errno));
  for (struct dirent *entry; dir && !status && (entry = readdir(dir));) {
    if (entry->d_name[0] == '.') continue;
    struct stat info;
    sw_buffer name = {0};
    char *path = sw_path_join(folder, entry->d_name);
    status = path ? sw_buffer_print(&name, "%s/%s", prefix, entry->d_name) : -1;
    if (!status && sw_is_folder(path))
      status = send_folder(r, path, place, name.data);
    else if (!status && place)
      status = send_file(r, path, place, name.data);
    else if (!status && !stat(path, &info))
      r->progress.total += (double)info.st_size;
    sw_buffer_close(&name);
    free(path);
  }
  if (dir) closedir(dir);
  return status ? -1 : 0;
}

static int send_artifacts(registry *r, const char *checkpoint, const char *folder, const char *place) {
  struct stat info;
  if (stat(checkpoint, &info)) return sw_fail("cannot open %s: %s", checkpoint, strerror(errno));
  sw_progress_open(&r->progress, "upload", (double)info.st_size, r->quiet);
  int status = (folder && send_folder(r, folder, NULL, "")) || send_file(r, checkpoint, place, base_name(checkpoint)) ||
               (folder && send_folder(r, folder, place, "huggingface"));
  sw_progress_close(&r->progress);
  return status ? -1 : 0;
}

static int look_for_version(registry *r, const json_t *body, json_t **answer) {
  json_t *version;
  int status = find_version(r, tag_of(body, "skillwatch.content_sha256"), &version);
  if (!status && version && !(*answer = json_pack("{s:O}", "model_version", version)))
    status = sw_fail_memory("a version");
  json_decref(version);
  return status;
}

static int make_version(registry *r, const sw_mlflow_push_options *o, const char *source, json_t *tags,
                        sw_mlflow_pushed *out) {
  json_t *answer = NULL;
  int result = ask(r, "registered-models/create", "POST", json_pack("{s:s}", "name", r->name), &answer);
  if (result > 0 && sw_mlflow_says(answer, "RESOURCE_ALREADY_EXISTS")) result = 0;
  json_decref(answer);
  answer = NULL;
  if (!result)
    result = ask_unless(r, "model-versions/create", "POST",
                        json_pack("{s:s, s:s, s:s, s:s, s:O}", "name", r->name, "source", source, "run_id",
                                  out->run_id, "description", o->description ? o->description : "", "tags", tags),
                        look_for_version, &answer);
  if (result > 0) result = sw_fail_in("MLflow at %s", r->address);
  if (!result) number_of(json_object_get(answer, "model_version"), out->version);
  if (!result && !out->version[0])
    result = sw_fail("MLflow at %s: it gives the version no number: is it an MLflow tracking server?", r->address);
  json_decref(answer);
  return result;
}

/* The time, to the millisecond, and the file tell it from others' runs. A server that cannot search gets a second run.
 */
static int look_for_run(registry *r, const json_t *body, json_t **answer) {
  sw_buffer filter = {0};
  json_t *found = NULL;
  const char *experiment = sw_json_string(body, "experiment_id"), *file = tag_of(body, "skillwatch.file_sha256");
  int status = sw_buffer_print(&filter, "attributes.start_time = %lld and tags.`skillwatch.file_sha256` = '%s'",
                               (long long)json_integer_value(json_object_get(body, "start_time")), file) ||
               ask(r, "runs/search", "POST",
                   json_pack("{s:[s], s:s, s:i}", "experiment_ids", experiment, "filter", filter.data, "max_results", 1),
                   &found) < 0;
  json_t *run = json_array_get(json_object_get(found, "runs"), 0);
  if (run && !(*answer = json_pack("{s:O}", "run", run))) status = sw_fail_memory("a run");
  json_decref(found);
  sw_buffer_close(&filter);
  return status ? -1 : 0;
}

/* A run, what it holds, and the version that points to it. */
static int make_run(registry *r, const sw_checkpoint *c, const char *folder, const sw_mlflow_push_options *o,
                    sw_mlflow_pushed *out) {
  char experiment[64], digest[65];
  json_t *answer = NULL, *tags = sw_sha256_file(o->checkpoint, digest) ? NULL : make_tags(c, digest);
  sw_buffer source = {0};
  int status = !tags || find_experiment(r, o->experiment, experiment) ? -1 : 0;
  if (!status)
    status = ask_unless(r, "runs/create", "POST",
                        json_pack("{s:s, s:I, s:s, s:O}", "experiment_id", experiment, "start_time", now_ms(),
                                  "run_name", base_name(o->checkpoint), "tags", tags),
                        look_for_run, &answer);
  if (status > 0) status = sw_fail_in("MLflow at %s", r->address);
  const json_t *info = json_object_get(json_object_get(answer, "run"), "info");
  const char *id = sw_json_string(info, "run_id"), *place = sw_json_string(info, "artifact_uri");
  if (!status && (!id || !id[0] || strlen(id) >= sizeof out->run_id || !place))
    status = sw_fail("MLflow at %s: it gives the run no usable id: is it an MLflow tracking server?", r->address);
  if (!status) {
    strcpy(out->run_id, id);
    status = send_numbers(r, c, id) || send_artifacts(r, o->checkpoint, folder, place) ||
             sw_buffer_print(&source, "%s/%s", place, base_name(o->checkpoint)) ||
             make_version(r, o, source.data, tags, out);
    json_t *last = NULL;
    char why[512];
    snprintf(why, sizeof why, "%s", status ? sw_error() : "");
    const sw_mlflow_outcome ended = sw_mlflow_call(
        &r->api, "runs/update", "POST",
        json_pack("{s:s, s:s, s:I}", "run_id", id, "status", status ? "FAILED" : "FINISHED", "end_time", now_ms()),
        &last);
    json_decref(last);
    if (status) sw_fail("%s", why);
    if (!status && ended != SW_MLFLOW_DONE && !r->quiet)
      fprintf(stderr, "MLflow at %s: the run's end was not taken: %s\n", r->address, sw_error());
  }
  json_decref(answer);
  json_decref(tags);
  sw_buffer_close(&source);
  return status ? -1 : 0;
}

int sw_mlflow_push(const sw_checkpoint *c, const sw_head *head, const sw_mlflow_push_options *o,
                   sw_mlflow_pushed *out) {
  *out = (sw_mlflow_pushed){0};
  registry r = {0};
  json_t *version = NULL;
  sw_cache_room room = {0};
  int status = open_registry(&r, o->name, o->quiet) || find_version(&r, c->content_sha256, &version) ? -1 : 0;
  if (!status && version) {
    const char *run_id = sw_json_string(version, "run_id");
    number_of(version, out->version);
    snprintf(out->run_id, sizeof out->run_id, "%.64s", run_id ? run_id : "");
    out->unchanged = 1;
  } else if (!status) {
    if (sw_encoder_is_known(c->config))
      status = sw_cache_open(o->cache, &room) || sw_export_folder(c, head, room.model, 1) ? -1 : 0;
    if (!status) status = make_run(&r, c, room.model, o, out);
  }
  if (!status && o->alias)
    status = tell_only(&r, "registered-models/alias", "POST",
                       json_pack("{s:s, s:s, s:s}", "name", o->name, "alias", o->alias, "version", out->version));
  sw_cache_close(&room);
  out->temporary = r.temporary;
  json_decref(version);
  close_registry(&r);
  return status;
}

/* --- pull */

/* The version that "NAME", "NAME@alias" or "NAME/3" means; `which` points behind the sign, or is NULL. */
static int choose_version(registry *r, char sign, const char *which, json_t **out) {
  sw_buffer endpoint = {0};
  json_t *answer = NULL;
  int result;
  *out = NULL;
  if (!which) {
    result = find_version(r, NULL, out);
    return !result && !*out ? sw_fail("MLflow at %s has no version of a model %s", r->address, r->name) : result;
  }
  result = sw_buffer_print(&endpoint, "%s?name=", sign == '@' ? "registered-models/alias" : "model-versions/get") ||
                   sw_mlflow_escape(&endpoint, r->name) ||
                   sw_buffer_print(&endpoint, "&%s=", sign == '@' ? "alias" : "version") ||
                   sw_mlflow_escape(&endpoint, which)
               ? -1
               : ask(r, endpoint.data, NULL, NULL, &answer);
  if (!result) *out = json_incref(json_object_get(answer, "model_version"));
  if (result > 0)
    result = sw_fail("MLflow at %s has no %s %s of a model %s (%s)", r->address, sign == '@' ? "alias" : "version",
                     which, r->name, sw_error());
  if (!result && !*out)
    result = sw_fail("MLflow at %s: it does not say what the version is: is it an MLflow tracking server?", r->address);
  json_decref(answer);
  sw_buffer_close(&endpoint);
  return result;
}

/* Where the version's files lie. */
static int find_place(registry *r, const char *number, sw_buffer *url) {
  sw_buffer endpoint = {0};
  json_t *answer = NULL;
  int status = sw_buffer_print(&endpoint, "model-versions/get-download-uri?name=") ||
                       sw_mlflow_escape(&endpoint, r->name) || sw_buffer_print(&endpoint, "&version=") ||
                       sw_mlflow_escape(&endpoint, number)
                   ? -1
                   : tell(r, endpoint.data, NULL, NULL, &answer);
  const char *place = sw_json_string(answer, "artifact_uri");
  const size_t length = place ? strlen(place) : 0;
  if (!status && (length < 3 || strcmp(place + length - 3, ".h5")))
    status = sw_fail("version %s of %s is no checkpoint of Skillwatch: it lies at '%.80s'", number, r->name,
                     place ? place : "");
  if (!status && sw_mlflow_artifact(&r->api, place, NULL, url)) status = sw_fail_in("MLflow at %s", r->address);
  json_decref(answer);
  sw_buffer_close(&endpoint);
  return status;
}

static int fetch(registry *r, const char *url, const char *path, const json_t *version, const char *number,
                 sw_checkpoint *out) {
  const sw_http_request request = {.url = url,
                                   .token = r->login.token,
                                   .user = r->login.user,
                                   .password = r->login.password,
                                   .path = path,
                                   .name = r->name,
                                   .limit = max_checkpoint,
                                   .quiet = r->quiet};
  const char *file = tag_of(version, "skillwatch.file_sha256"), *content = tag_of(version, "skillwatch.content_sha256");
  sw_http_result result;
  char digest[65];
  if (sw_http_download(&request, &result)) return sw_fail_in("MLflow at %s", r->address);
  if (result.outcome == SW_HTTP_DENIED)
    return sw_mlflow_judge(result.status, NULL), sw_fail_in("MLflow at %s", r->address);
  if (result.outcome != SW_HTTP_DONE)
    return sw_fail("MLflow at %s: the file of version %s of %s is not there (HTTP %ld)", r->address, number, r->name,
                   result.status);
  if (sw_sha256_file(path, digest)) return -1;
  if (file && strcmp(digest, file))
    return sw_fail("version %s of %s: what the server sends has the SHA-256 %.12s..., the version was registered with "
                   "%.12s...; it is not used",
                   number, r->name, digest, file);
  if (sw_checkpoint_read(path, out)) return sw_fail("version %s of %s: %s", number, r->name, sw_error());
  if (content && strcmp(out->content_sha256, content)) {
    sw_checkpoint_close(out);
    return sw_fail("version %s of %s: it holds another checkpoint than it was registered with; it is not used", number,
                   r->name);
  }
  return 0;
}

int sw_mlflow_pull(const char *model, const char *path, int quiet, sw_checkpoint *out) {
  sw_checkpoint_init(out);
  const char *sign = strpbrk(model, "@/");
  char *name = sw_strndup(model, sign ? (size_t)(sign - model) : strlen(model)), *temporary = NULL, number[24] = "";
  registry r = {0};
  json_t *version = NULL;
  sw_buffer url = {0}, side = {0};
  int status = !name || open_registry(&r, name, quiet) ? -1 : 0;
  if (!status && sign &&
      (!sign[1] || strpbrk(sign + 1, "@/") || (*sign == '/' && sign[1 + strspn(sign + 1, "0123456789")])))
    status = sw_fail(
        "mlflow:%s: NAME, NAME@alias or NAME/version is wanted, such as mlflow:tagger@champion or mlflow:tagger/3",
        model);
  if (!status) status = choose_version(&r, sign ? *sign : 0, sign ? sign + 1 : NULL, &version);
  if (!status) number_of(version, number);
  if (!status) status = find_place(&r, number, &url);
  if (!status) status = (temporary = sw_temporary_path(path)) && !sw_buffer_print(&side, "%s.etag", temporary) ? 0 : -1;
  if (!status) status = fetch(&r, url.data, temporary, version, number, out);
  if (side.data) unlink(side.data);
  if (!status && sw_file_publish(temporary, path)) {
    sw_checkpoint_close(out);
    status = -1;
  }
  if (temporary) unlink(temporary);
  free(name);
  free(temporary);
  json_decref(version);
  sw_buffer_close(&url);
  sw_buffer_close(&side);
  close_registry(&r);
  return status;
}
