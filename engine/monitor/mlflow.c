#include "engine/monitor/internal.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/version.h"
#include "engine/store/http_client.h"
#include "engine/store/json.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  QUEUE = 1 << 16,                /* values that wait at most */
  BATCH = 1000, PARAMS = 100,     /* what the server takes at once */
  KEY = 250, VALUE = 500,         /* bytes it keeps of a name and a parameter */
  ANSWER = 1 << 20,               /* bytes of an answer */
  SECONDS = 10, FILE_SECONDS = 30, /* a request may take; a file may take without progress */
  END_SECONDS = FILE_SECONDS + 10, KILLED_SECONDS = 5, /* the end may take without progress; and at all where a scheduler waits */
  MAX_BACKOFF = 30, END_TRIES = 3,
};

typedef struct {
  const char *name; /* one of `names` */
  int64_t step, time; /* ms */
  double value;
} point;

typedef enum { DONE, LATER, REFUSED, HOPELESS } outcome; /* LATER: try again; REFUSED: never this one; HOPELESS: nothing at all */

/* What is sent at the end, in this order. */
enum { SEND_METRICS, SEND_CHECKPOINT, SEND_VERSION, SEND_END, ENDED };

struct sw_mlflow {
  char *address, *experiment, *model, *name;
  pthread_t thread;
  atomic_int stop;
  atomic_ullong moved;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  /* under the lock */
  char run_id[SW_MONITOR_ID];
  char **names;
  size_t num_names;
  point *queue; /* [QUEUE], a ring */
  size_t first, count;
  unsigned long long lost; /* values dropped */
  int ending, over;        /* asked to end; the thread has */
  sw_monitor_end end;
  const char *files[2];
  /* the thread's; others' after its end */
  sw_http_client *client;
  int begun, told; /* the server knows the run; a failure has been printed */
  int was_over;    /* training was: the run may have been ended */
  char *artifacts; /* the run's artifact_uri */
  json_t *params;  /* array */
  size_t params_sent;
  int params_failed;
  point *batch;    /* [BATCH] taken from the queue */
  size_t batched;
  int ended;       /* next of the SEND_... */
  int failed[ENDED];
  char error[512];
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* Letters, digits and a few signs stay, '/' too. */
static int append_escaped(sw_buffer *b, const char *text) {
  int status = 0;
  for (; *text && !status; text++) {
    const unsigned char c = (unsigned char)*text;
    const int plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~/", c);
    status = plain ? sw_buffer_append(b, text, 1) : sw_buffer_print(b, "%%%02X", c);
  }
  return status;
}

/* A name as the server takes it: other characters become '_'. */
static char *clean_name(const char *name) {
  char *clean = sw_strndup(name, strnlen(name, KEY));
  for (char *c = clean; c && *c; c++)
    if (!((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || strchr("_-./ ", *c))) *c = '_';
  return clean;
}

/* --- the caller's side --- */

static int add_param(json_t *list, const char *name, const json_t *value) {
  char *text = json_is_string(value) ? sw_strdup(json_string_value(value)) : sw_json_canonical(value), *key = clean_name(name);
  size_t length = text ? strlen(text) : 0;
  if (length > VALUE)
    for (length = VALUE; length && ((unsigned char)text[length] & 0xc0) == 0x80;) length--; /* not in the middle of a character */
  int status = text && key ? json_array_append_new(list, json_pack("{s:s, s:s%}", "key", key, "value", text, length)) : -1;
  free(text);
  free(key);
  return status;
}

/* "data/0/file"; the hyper-parameters by their own names. */
static int add_params(json_t *list, const char *prefix, const json_t *value, const json_t *hyper) {
  const char *key;
  json_t *item;
  size_t i;
  int status = 0;
  sw_buffer name = {0};
  json_object_foreach((json_t *)value, key, item) {
    sw_buffer_clear(&name);
    if (!prefix[0] && item == hyper)
      status = add_params(list, "", item, NULL);
    else
      status = sw_buffer_print(&name, "%s%s%s", prefix[0] ? prefix : json_object_get(hyper, key) ? "run" : "",
                               prefix[0] || json_object_get(hyper, key) ? "/" : "", key) ||
               add_params(list, name.data, item, NULL);
    if (status) break;
  }
  json_array_foreach(value, i, item) {
    sw_buffer_clear(&name);
    if (!status) status = sw_buffer_print(&name, "%s/%zu", prefix, i) || add_params(list, name.data, item, NULL);
  }
  if (!json_is_object(value) && !json_is_array(value) && !json_is_null(value)) status = add_param(list, prefix, value);
  sw_buffer_close(&name);
  return status ? -1 : 0;
}

static void release(sw_mlflow *m) {
  sw_http_client_close(m->client);
  for (size_t i = 0; i < m->num_names; i++) free(m->names[i]);
  free(m->names);
  free(m->queue);
  free(m->batch);
  free(m->address);
  free(m->experiment);
  free(m->model);
  free(m->name);
  free(m->artifacts);
  json_decref(m->params);
  free(m);
}

static void *sender(void *data);

int sw_mlflow_open(const sw_monitor_options *o, const char *name, const char *run_id, const json_t *params, sw_mlflow **out) {
  *out = NULL;
  sw_mlflow *m = sw_alloc(sizeof *m);
  if (!m) return -1;
  sw_http_login login = {.user = getenv("MLFLOW_TRACKING_USERNAME"), .password = getenv("MLFLOW_TRACKING_PASSWORD"),
                         .token = getenv("MLFLOW_TRACKING_TOKEN")};
  if (login.user && login.user[0])
    login.token = NULL;
  else
    login.user = NULL;
  if (login.token && !login.token[0]) login.token = NULL;
  size_t length = strlen(o->mlflow);
  while (length && o->mlflow[length - 1] == '/') length--;
  m->address = sw_strndup(o->mlflow, length);
  m->experiment = sw_strdup(o->experiment);
  m->model = o->model ? sw_strdup(o->model) : NULL;
  m->name = sw_strdup(base_name(name));
  m->queue = sw_alloc_array(QUEUE, sizeof *m->queue);
  m->batch = sw_alloc_array(BATCH, sizeof *m->batch);
  m->params = json_array();
  m->was_over = o->over;
  if (run_id) snprintf(m->run_id, sizeof m->run_id, "%s", run_id);
  int status = !m->address || !m->experiment || (o->model && !m->model) || !m->name || !m->queue || !m->batch ? -1 : 0;
  if (!status && (!m->params || add_params(m->params, "", params, json_object_get(params, "hyper_parameters")))) status = sw_fail("out of memory");
  if (!status) status = sw_http_client_open(&login, &m->stop, &m->moved, &m->client);
  if (status) {
    release(m);
    return -1;
  }
  pthread_condattr_t steady;
  pthread_condattr_init(&steady);
  pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
  pthread_mutex_init(&m->lock, NULL);
  pthread_cond_init(&m->changed, &steady);
  pthread_condattr_destroy(&steady);
  sigset_t all, before; /* signals are the trainer's */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int refused = pthread_create(&m->thread, NULL, sender, m);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (refused) {
    release(m);
    return sw_fail("no thread can be started: %s", strerror(refused));
  }
  *out = m;
  return 0;
}

/* The name's copy that stays; NULL for want of memory. */
static const char *intern(sw_mlflow *m, const char *name) {
  char *clean = clean_name(name);
  if (!clean) return NULL;
  for (size_t i = 0; i < m->num_names; i++)
    if (!strcmp(m->names[i], clean)) {
      free(clean);
      return m->names[i];
    }
  char **names = sw_realloc_array(m->names, m->num_names + 1, sizeof *names);
  if (!names) {
    free(clean);
    return NULL;
  }
  m->names = names;
  return names[m->num_names++] = clean;
}

void sw_mlflow_add(sw_mlflow *m, int64_t step, const sw_numbers *numbers) {
  const int64_t time = now_ms();
  pthread_mutex_lock(&m->lock);
  for (size_t i = 0; i < numbers->count; i++) {
    const char *name = intern(m, numbers->names[i]);
    if (m->count == QUEUE) { /* the oldest goes */
      m->first = (m->first + 1) % QUEUE;
      m->count--;
      m->lost++;
    }
    if (name)
      m->queue[(m->first + m->count++) % QUEUE] = (point){name, step, time, numbers->values[i]};
    else
      m->lost++;
  }
  pthread_cond_broadcast(&m->changed);
  pthread_mutex_unlock(&m->lock);
}

void sw_mlflow_run_id(sw_mlflow *m, char id[SW_MONITOR_ID]) {
  pthread_mutex_lock(&m->lock);
  memcpy(id, m->run_id, SW_MONITOR_ID);
  pthread_mutex_unlock(&m->lock);
}

/* --- the thread's side: requests --- */

static outcome judge(long status, const json_t *answer) {
  const char *code = sw_json_string(answer, "error_code"), *text = sw_json_string(answer, "message");
  if (status >= 200 && status < 300) return DONE;
  if (status == 401 || status == 403)
    sw_fail("it denies access (HTTP %ld): set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD", status);
  else if (status >= 300 && status < 400)
    sw_fail("it redirects (HTTP %ld), which is not followed: give the address it really has", status);
  else if (code)
    sw_fail("it answers %s: %.200s", code, text ? text : "");
  else
    sw_fail("it answers with HTTP status %ld", status);
  return status < 400 || status == 401 || status == 403 ? HOPELESS : status == 408 || status == 429 || status >= 500 ? LATER : REFUSED;
}

/* One call of the API: a GET, or with `post` a POST of `body`, which is taken. *answer, where it is not NULL, gets a JSON object with DONE and sometimes otherwise. */
static outcome call(sw_mlflow *m, const char *endpoint, int post, json_t *body, json_t **answer) {
  sw_buffer url = {0}, text = {.limit = ANSWER};
  char *json = body ? sw_json_canonical(body) : NULL;
  const int complete = !sw_buffer_print(&url, "%s/api/2.0/mlflow/%s", m->address, endpoint) && (json || !post);
  long status = 0;
  outcome result = LATER;
  *answer = NULL;
  if (post && !body) { /* a name that is no UTF-8 */
    sw_buffer_close(&url);
    sw_fail("%s: what is to be sent cannot be written as JSON", endpoint);
    return REFUSED;
  }
  const sw_http_message message = {.method = post ? "POST" : "GET", .url = url.data, .json = json, .seconds = SECONDS};
  if (complete && !sw_http_client_send(m->client, &message, &status, &text)) {
    *answer = sw_json_parse(text.data, text.size, "the answer");
    result = judge(status, *answer);
    if (result == DONE && !*answer) {
      sw_fail("it answers with something that is no JSON: is it an MLflow tracking server?");
      result = HOPELESS;
    }
  }
  json_decref(body);
  free(json);
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return result;
}

static int says(const json_t *answer, const char *code) {
  const char *text = sw_json_string(answer, "error_code");
  return text && !strcmp(text, code);
}

/* The run's id and place from an answer that tells of it. */
static outcome learn_run(sw_mlflow *m, const json_t *info) {
  const char *id = sw_json_string(info, "run_id"), *artifacts = sw_json_string(info, "artifact_uri");
  const size_t length = id ? strlen(id) : 0;
  if (!length || length >= SW_MONITOR_ID || strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != length) {
    sw_fail("it gives the run no usable id: is it an MLflow tracking server?");
    return HOPELESS;
  }
  free(m->artifacts);
  m->artifacts = sw_strdup(artifacts ? artifacts : "");
  pthread_mutex_lock(&m->lock);
  memcpy(m->run_id, id, length + 1);
  pthread_mutex_unlock(&m->lock);
  m->begun = 1;
  return m->artifacts ? DONE : HOPELESS;
}

/* Finds or makes the experiment, and makes a run in it. */
static outcome make_run(sw_mlflow *m) {
  json_t *answer = NULL;
  sw_buffer endpoint = {0};
  char id[64] = "";
  outcome result = LATER;
  if (!sw_buffer_print(&endpoint, "experiments/get-by-name?experiment_name=") && !append_escaped(&endpoint, m->experiment))
    result = call(m, endpoint.data, 0, NULL, &answer);
  sw_buffer_close(&endpoint);
  const char *found = sw_json_string(json_object_get(answer, "experiment"), "experiment_id");
  if (found) snprintf(id, sizeof id, "%s", found);
  if (result == REFUSED && says(answer, "RESOURCE_DOES_NOT_EXIST")) {
    json_decref(answer);
    result = call(m, "experiments/create", 1, json_pack("{s:s}", "name", m->experiment), &answer);
    if (result == REFUSED && says(answer, "RESOURCE_ALREADY_EXISTS")) result = LATER; /* somebody was faster */
    found = sw_json_string(answer, "experiment_id");
    if (found) snprintf(id, sizeof id, "%s", found);
  }
  json_decref(answer);
  answer = NULL;
  if (result == DONE)
    result = call(m, "runs/create", 1, json_pack("{s:s, s:I, s:s, s:[{s:s, s:s}]}", "experiment_id", id, "start_time", (json_int_t)now_ms(), "run_name",
                                              m->name, "tags", "key", "skillwatch.version", "value", sw_code_version), &answer);
  if (result == DONE) result = learn_run(m, json_object_get(json_object_get(answer, "run"), "info"));
  json_decref(answer);
  return result == REFUSED ? HOPELESS : result;
}

/* A run that was killed before its end was told goes on there; otherwise nothing is left to say. */
static outcome look_at_run(sw_mlflow *m) {
  json_t *answer = NULL;
  sw_buffer endpoint = {0};
  outcome result = sw_buffer_print(&endpoint, "runs/get?run_id=%s", m->run_id) ? LATER : call(m, endpoint.data, 0, NULL, &answer);
  const json_t *info = json_object_get(json_object_get(answer, "run"), "info");
  const char *status = sw_json_string(info, "status");
  const int ended = result == REFUSED || (status && !strcmp(status, "FINISHED")); /* refused: deleted meanwhile */
  if (result == DONE) result = learn_run(m, info);
  if (ended) {
    m->begun = 1;
    m->params_sent = json_array_size(m->params);
    m->ended = ENDED;
    result = DONE;
  }
  sw_buffer_close(&endpoint);
  json_decref(answer);
  return result;
}

static outcome begin_run(sw_mlflow *m) {
  if (m->was_over) return look_at_run(m);
  if (!m->run_id[0]) return make_run(m);
  json_t *answer;
  outcome result = call(m, "runs/update", 1, json_pack("{s:s, s:s}", "run_id", m->run_id, "status", "RUNNING"), &answer);
  if (result == DONE) result = learn_run(m, json_object_get(answer, "run_info"));
  json_decref(answer);
  return result == REFUSED ? make_run(m) : result; /* deleted meanwhile, or another server */
}

static outcome send_params(sw_mlflow *m) {
  json_t *part = json_array(), *answer;
  const size_t total = json_array_size(m->params);
  size_t end = m->params_sent;
  for (; end < total && end < m->params_sent + PARAMS; end++) json_array_append(part, json_array_get(m->params, end));
  outcome result = call(m, "runs/log-batch", 1, json_pack("{s:s, s:o}", "run_id", m->run_id, "params", part), &answer);
  json_decref(answer);
  if (result == REFUSED) m->params_failed = 1;
  if (result == DONE || result == REFUSED) m->params_sent = end;
  return result;
}

static outcome send_batch(sw_mlflow *m) {
  json_t *list = json_array(), *answer;
  for (size_t i = 0; i < m->batched; i++) {
    const point *p = &m->batch[i];
    json_array_append_new(list, json_pack("{s:s, s:f, s:I, s:I}", "key", p->name, "value", p->value, "timestamp", (json_int_t)p->time, "step", (json_int_t)p->step));
  }
  outcome result = call(m, "runs/log-batch", 1, json_pack("{s:s, s:o}", "run_id", m->run_id, "metrics", list), &answer);
  json_decref(answer);
  if (result == REFUSED) {
    pthread_mutex_lock(&m->lock);
    m->lost += m->batched;
    pthread_mutex_unlock(&m->lock);
  }
  if (result == DONE || result == REFUSED) m->batched = 0;
  return result;
}

/* Through the tracking server's own proxy (mlflow-artifacts:/1/<run>/artifacts): other stores need logins of their own. */
static outcome send_file(sw_mlflow *m, const char *path) {
  const char *place = m->artifacts;
  sw_buffer url = {0}, text = {.limit = ANSWER};
  long status = 0;
  if (strncmp(place, "mlflow-artifacts:/", 18) || (place[18] == '/' && place[19] != '/')) {
    sw_fail("it keeps files at '%.60s', which only its own client can reach", place);
    return REFUSED;
  }
  for (place += 18; *place == '/';) place++;
  outcome result = LATER;
  if (!sw_buffer_print(&url, "%s/api/2.0/mlflow-artifacts/artifacts/", m->address) && !append_escaped(&url, place) && !sw_buffer_append(&url, "/", 1) &&
      !append_escaped(&url, base_name(path))) {
    const sw_http_message message = {.method = "PUT", .url = url.data, .file = path, .seconds = FILE_SECONDS};
    if (!sw_http_client_send(m->client, &message, &status, &text)) {
      json_t *answer = sw_json_parse(text.data, text.size, "the answer");
      result = judge(status, answer);
      json_decref(answer);
    }
  }
  sw_buffer_close(&url);
  sw_buffer_close(&text);
  return result;
}

static outcome send_version(sw_mlflow *m) {
  json_t *answer;
  sw_buffer source = {0};
  outcome result = call(m, "registered-models/create", 1, json_pack("{s:s}", "name", m->model), &answer);
  if (result == REFUSED && says(answer, "RESOURCE_ALREADY_EXISTS")) result = DONE;
  json_decref(answer);
  if (result != DONE) return result;
  if (sw_buffer_print(&source, "%s/%s", m->artifacts, base_name(m->files[1]))) return LATER;
  result = call(m, "model-versions/create", 1, json_pack("{s:s, s:s, s:s}", "name", m->model, "source", source.data, "run_id", m->run_id), &answer);
  json_decref(answer);
  sw_buffer_close(&source);
  return result;
}

static outcome send_end(sw_mlflow *m) {
  static const char *const names[] = {"FINISHED", "FAILED", "KILLED"};
  json_t *answer;
  outcome result = call(m, "runs/update", 1, json_pack("{s:s, s:s, s:I}", "run_id", m->run_id, "status", names[m->end], "end_time", (json_int_t)now_ms()), &answer);
  json_decref(answer);
  return result;
}

static outcome send_last(sw_mlflow *m) {
  const int finished = m->end == SW_MONITOR_FINISHED;
  outcome result = DONE;
  if (m->ended == SEND_METRICS && m->end != SW_MONITOR_KILLED) result = send_file(m, m->files[0]);
  if (m->ended == SEND_CHECKPOINT && finished) result = send_file(m, m->files[1]);
  if (m->ended == SEND_VERSION && finished && m->model && !m->failed[SEND_CHECKPOINT]) result = send_version(m);
  if (m->ended == SEND_END) result = send_end(m);
  if (result == REFUSED) m->failed[m->ended] = 1;
  if (result == DONE || result == REFUSED) m->ended++;
  return result;
}

/* --- the thread --- */

/* The next thing to say to the server. */
static outcome work(sw_mlflow *m) {
  if (!m->begun) return begin_run(m);
  if (m->params_sent < json_array_size(m->params)) return send_params(m);
  pthread_mutex_lock(&m->lock);
  while (m->batched < BATCH && m->count) {
    m->batch[m->batched++] = m->queue[m->first];
    m->first = (m->first + 1) % QUEUE;
    m->count--;
  }
  pthread_mutex_unlock(&m->lock);
  return m->batched ? send_batch(m) : send_last(m);
}

static void wait_ms(sw_mlflow *m, int64_t ms) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += ms / 1000;
  until.tv_nsec += ms % 1000 * 1000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  pthread_cond_timedwait(&m->changed, &m->lock, &until);
}

static double steady(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Sleeps while there is nothing to do, or after failures; 0: all is said. */
static int wait_for_work(sw_mlflow *m, int failures) {
  pthread_mutex_lock(&m->lock);
  if (failures) {
    const int was_ending = m->ending;
    double pause = failures < 6 ? 0.5 * (double)(1 << failures) : MAX_BACKOFF;
    if (was_ending) pause = 0.3;
    for (const double until = steady() + pause; steady() < until && !atomic_load(&m->stop) && m->ending == was_ending;)
      wait_ms(m, (int64_t)(1000 * (until - steady())) + 1);
  }
  while (!atomic_load(&m->stop) && !m->ending && m->begun && m->params_sent == json_array_size(m->params) && !m->count && !m->batched)
    pthread_cond_wait(&m->changed, &m->lock);
  /* no checkpoint knows a run that is made after the last one was written */
  const int too_late = m->ending && m->end == SW_MONITOR_KILLED && !m->begun && !m->run_id[0];
  const int more = !atomic_load(&m->stop) && !too_late && !(m->ending && m->begun && m->ended == ENDED);
  pthread_mutex_unlock(&m->lock);
  return more;
}

static void *sender(void *data) {
  sw_mlflow *m = data;
  int failures = 0, last_tries = 0;
  while (wait_for_work(m, failures)) {
    const outcome result = work(m);
    failures = result == LATER ? failures + 1 : 0;
    if (result == DONE) continue;
    if (!atomic_load(&m->stop)) snprintf(m->error, sizeof m->error, "%s", sw_error());
    pthread_mutex_lock(&m->lock);
    const int ending = m->ending;
    pthread_mutex_unlock(&m->lock);
    if (!m->told && !ending) {
      fprintf(stderr, "skillwatch: MLflow at %s: %s; training goes on%s\n", m->address, m->error,
              result == LATER ? ", its numbers wait" : result == HOPELESS ? ", nothing is sent" : "");
      m->told = 1;
    }
    if (result == HOPELESS || (result == LATER && ending && ++last_tries == END_TRIES)) break;
  }
  pthread_mutex_lock(&m->lock);
  m->over = 1;
  pthread_cond_broadcast(&m->changed);
  pthread_mutex_unlock(&m->lock);
  return NULL;
}

/* --- the end --- */

/* Waits while the thread makes progress, then stops it. */
static void wait_for_end(sw_mlflow *m, const volatile sig_atomic_t *hurry) {
  const double began = steady();
  double last = began;
  unsigned long long seen = atomic_load(&m->moved);
  pthread_mutex_lock(&m->lock);
  pthread_cond_broadcast(&m->changed);
  while (!m->over && !atomic_load(&m->stop)) {
    wait_ms(m, 100);
    const unsigned long long moved = atomic_load(&m->moved);
    if (moved != seen) last = steady();
    seen = moved;
    if (*hurry || (m->end == SW_MONITOR_KILLED ? steady() - began > KILLED_SECONDS : steady() - last > END_SECONDS)) atomic_store(&m->stop, 1);
  }
  pthread_cond_broadcast(&m->changed);
  pthread_mutex_unlock(&m->lock);
  pthread_join(m->thread, NULL);
}

static void report(const sw_mlflow *m) {
  const int finished = m->end == SW_MONITOR_FINISHED;
  const unsigned long long values = m->lost + m->count + m->batched;
  const struct {
    int missing;
    const char *name;
  } rest[] = {{!m->begun || m->params_failed || m->params_sent < json_array_size(m->params), "the settings"},
              {m->end != SW_MONITOR_KILLED && (m->ended <= SEND_METRICS || m->failed[SEND_METRICS]), "the metrics file"},
              {finished && (m->ended <= SEND_CHECKPOINT || m->failed[SEND_CHECKPOINT]), "the checkpoint"},
              {finished && m->model && (m->ended <= SEND_VERSION || m->failed[SEND_VERSION] || m->failed[SEND_CHECKPOINT]), "the model's version"},
              {m->ended <= SEND_END || m->failed[SEND_END], "the run's end"}};
  sw_buffer list = {0};
  int failed = values ? sw_buffer_print(&list, "%llu value%s", values, SW_S(values)) : 0;
  for (size_t i = 0; i < sizeof rest / sizeof *rest && !failed; i++)
    if (rest[i].missing) failed = sw_buffer_print(&list, "%s%s", list.size ? ", " : "", rest[i].name);
  if (list.size)
    fprintf(stderr, "skillwatch: MLflow at %s: not delivered: %s (%s)\n", m->address, list.data, m->error[0] ? m->error : "it is too slow");
  sw_buffer_close(&list);
}

void sw_mlflow_close(sw_mlflow *m, sw_monitor_end end, const char *metrics_path, const char *checkpoint, const volatile sig_atomic_t *hurry) {
  if (!m) return;
  pthread_mutex_lock(&m->lock);
  m->ending = 1;
  m->end = end;
  m->files[0] = metrics_path;
  m->files[1] = checkpoint;
  pthread_mutex_unlock(&m->lock);
  wait_for_end(m, hurry);
  report(m);
  pthread_mutex_destroy(&m->lock);
  pthread_cond_destroy(&m->changed);
  release(m);
}
