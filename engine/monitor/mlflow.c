#include "engine/monitor/internal.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/version.h"
#include "engine/store/mlflow_api.h"
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
  FILE_SECONDS = 30,              /* a file may take without progress */
  END_SECONDS = FILE_SECONDS + 10, KILLED_SECONDS = 5, /* the end may take without progress; and at all where a scheduler waits */
  MAX_BACKOFF = 30, END_TRIES = 3,
};

typedef struct {
  const char *name; /* one of `names` */
  int64_t step, time; /* ms */
  double value;
} point;


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
  sw_mlflow_api api;
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

/* --- the caller's side --- */

static void release(sw_mlflow *m) {
  sw_http_client_close(m->api.client);
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
  sw_http_login login;
  size_t length = strlen(o->mlflow);
  while (length && o->mlflow[length - 1] == '/') length--;
  m->address = sw_strndup(o->mlflow, length);
  m->api.address = m->address;
  m->experiment = sw_strdup(o->experiment);
  m->model = o->model ? sw_strdup(o->model) : NULL;
  m->name = sw_strdup(base_name(name));
  m->queue = sw_alloc_array(QUEUE, sizeof *m->queue);
  m->batch = sw_alloc_array(BATCH, sizeof *m->batch);
  m->params = json_array();
  m->was_over = o->over;
  if (run_id) snprintf(m->run_id, sizeof m->run_id, "%s", run_id);
  int status = !m->address || !m->experiment || (o->model && !m->model) || !m->name || !m->queue || !m->batch ? -1 : 0;
  if (!status && (!m->params || sw_mlflow_params(m->params, "", params, json_object_get(params, "hyper_parameters")))) status = sw_fail("out of memory");
  if (!status) status = sw_mlflow_login(m->address, &login) || sw_http_client_open(&login, &m->stop, &m->moved, &m->api.client) ? -1 : 0;
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
  char *clean = sw_mlflow_clean(name);
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

/* The run's id and place from an answer that tells of it. */
static sw_mlflow_outcome learn_run(sw_mlflow *m, const json_t *info) {
  const char *id = sw_json_string(info, "run_id"), *artifacts = sw_json_string(info, "artifact_uri");
  const size_t length = id ? strlen(id) : 0;
  if (!length || length >= SW_MONITOR_ID || strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != length) {
    sw_fail("it gives the run no usable id: is it an MLflow tracking server?");
    return SW_MLFLOW_HOPELESS;
  }
  free(m->artifacts);
  m->artifacts = sw_strdup(artifacts ? artifacts : "");
  pthread_mutex_lock(&m->lock);
  memcpy(m->run_id, id, length + 1);
  pthread_mutex_unlock(&m->lock);
  m->begun = 1;
  return m->artifacts ? SW_MLFLOW_DONE : SW_MLFLOW_HOPELESS;
}

/* Finds or makes the experiment, and makes a run in it. */
static sw_mlflow_outcome make_run(sw_mlflow *m) {
  json_t *answer = NULL;
  sw_buffer endpoint = {0};
  char id[64] = "";
  sw_mlflow_outcome result = SW_MLFLOW_LATER;
  if (!sw_buffer_print(&endpoint, "experiments/get-by-name?experiment_name=") && !sw_mlflow_escape(&endpoint, m->experiment))
    result = sw_mlflow_call(&m->api, endpoint.data, NULL, NULL, &answer);
  sw_buffer_close(&endpoint);
  const char *found = sw_json_string(json_object_get(answer, "experiment"), "experiment_id");
  if (found) snprintf(id, sizeof id, "%s", found);
  if (result == SW_MLFLOW_REFUSED && sw_mlflow_says(answer, "RESOURCE_DOES_NOT_EXIST")) {
    json_decref(answer);
    result = sw_mlflow_call(&m->api, "experiments/create", "POST", json_pack("{s:s}", "name", m->experiment), &answer);
    if (result == SW_MLFLOW_REFUSED && sw_mlflow_says(answer, "RESOURCE_ALREADY_EXISTS")) result = SW_MLFLOW_LATER; /* somebody was faster */
    found = sw_json_string(answer, "experiment_id");
    if (found) snprintf(id, sizeof id, "%s", found);
  }
  json_decref(answer);
  answer = NULL;
  if (result == SW_MLFLOW_DONE)
    result = sw_mlflow_call(&m->api, "runs/create", "POST", json_pack("{s:s, s:I, s:s, s:[{s:s, s:s}]}", "experiment_id", id, "start_time", (json_int_t)now_ms(), "run_name",
                                              m->name, "tags", "key", "skillwatch.version", "value", sw_code_version), &answer);
  if (result == SW_MLFLOW_DONE) result = learn_run(m, json_object_get(json_object_get(answer, "run"), "info"));
  json_decref(answer);
  return result == SW_MLFLOW_REFUSED ? SW_MLFLOW_HOPELESS : result;
}

/* A run that was killed before its end was told goes on there; otherwise nothing is left to say. */
static sw_mlflow_outcome look_at_run(sw_mlflow *m) {
  json_t *answer = NULL;
  sw_buffer endpoint = {0};
  sw_mlflow_outcome result = sw_buffer_print(&endpoint, "runs/get?run_id=%s", m->run_id) ? SW_MLFLOW_LATER : sw_mlflow_call(&m->api, endpoint.data, NULL, NULL, &answer);
  const json_t *info = json_object_get(json_object_get(answer, "run"), "info");
  const char *status = sw_json_string(info, "status");
  const int ended = result == SW_MLFLOW_REFUSED || (status && !strcmp(status, "FINISHED")); /* refused: deleted meanwhile */
  if (result == SW_MLFLOW_DONE) result = learn_run(m, info);
  if (ended) {
    m->begun = 1;
    m->params_sent = json_array_size(m->params);
    m->ended = ENDED;
    result = SW_MLFLOW_DONE;
  }
  sw_buffer_close(&endpoint);
  json_decref(answer);
  return result;
}

static sw_mlflow_outcome begin_run(sw_mlflow *m) {
  if (m->was_over) return look_at_run(m);
  if (!m->run_id[0]) return make_run(m);
  json_t *answer;
  sw_mlflow_outcome result = sw_mlflow_call(&m->api, "runs/update", "POST", json_pack("{s:s, s:s}", "run_id", m->run_id, "status", "RUNNING"), &answer);
  if (result == SW_MLFLOW_DONE) result = learn_run(m, json_object_get(answer, "run_info"));
  json_decref(answer);
  return result == SW_MLFLOW_REFUSED ? make_run(m) : result; /* deleted meanwhile, or another server */
}

static sw_mlflow_outcome send_params(sw_mlflow *m) {
  json_t *part = json_array(), *answer;
  const size_t total = json_array_size(m->params);
  size_t end = m->params_sent;
  for (; end < total && end < m->params_sent + PARAMS; end++) json_array_append(part, json_array_get(m->params, end));
  sw_mlflow_outcome result = sw_mlflow_call(&m->api, "runs/log-batch", "POST", json_pack("{s:s, s:o}", "run_id", m->run_id, "params", part), &answer);
  json_decref(answer);
  if (result == SW_MLFLOW_REFUSED) m->params_failed = 1;
  if (result == SW_MLFLOW_DONE || result == SW_MLFLOW_REFUSED) m->params_sent = end;
  return result;
}

static sw_mlflow_outcome send_batch(sw_mlflow *m) {
  json_t *list = json_array(), *answer;
  for (size_t i = 0; i < m->batched; i++) {
    const point *p = &m->batch[i];
    json_array_append_new(list, json_pack("{s:s, s:f, s:I, s:I}", "key", p->name, "value", p->value, "timestamp", (json_int_t)p->time, "step", (json_int_t)p->step));
  }
  sw_mlflow_outcome result = sw_mlflow_call(&m->api, "runs/log-batch", "POST", json_pack("{s:s, s:o}", "run_id", m->run_id, "metrics", list), &answer);
  json_decref(answer);
  if (result == SW_MLFLOW_REFUSED) {
    pthread_mutex_lock(&m->lock);
    m->lost += m->batched;
    pthread_mutex_unlock(&m->lock);
  }
  if (result == SW_MLFLOW_DONE || result == SW_MLFLOW_REFUSED) m->batched = 0;
  return result;
}

static sw_mlflow_outcome send_file(sw_mlflow *m, const char *path) {
  const sw_http_message message = {.file = path, .seconds = FILE_SECONDS};
  return sw_mlflow_put(&m->api, m->artifacts, base_name(path), &message);
}

static sw_mlflow_outcome send_version(sw_mlflow *m) {
  json_t *answer;
  sw_buffer source = {0};
  sw_mlflow_outcome result = sw_mlflow_call(&m->api, "registered-models/create", "POST", json_pack("{s:s}", "name", m->model), &answer);
  if (result == SW_MLFLOW_REFUSED && sw_mlflow_says(answer, "RESOURCE_ALREADY_EXISTS")) result = SW_MLFLOW_DONE;
  json_decref(answer);
  if (result != SW_MLFLOW_DONE) return result;
  if (sw_buffer_print(&source, "%s/%s", m->artifacts, base_name(m->files[1]))) return SW_MLFLOW_LATER;
  result = sw_mlflow_call(&m->api, "model-versions/create", "POST", json_pack("{s:s, s:s, s:s}", "name", m->model, "source", source.data, "run_id", m->run_id), &answer);
  json_decref(answer);
  sw_buffer_close(&source);
  return result;
}

static sw_mlflow_outcome send_end(sw_mlflow *m) {
  static const char *const names[] = {"FINISHED", "FAILED", "KILLED"};
  json_t *answer;
  sw_mlflow_outcome result = sw_mlflow_call(&m->api, "runs/update", "POST", json_pack("{s:s, s:s, s:I}", "run_id", m->run_id, "status", names[m->end], "end_time", (json_int_t)now_ms()), &answer);
  json_decref(answer);
  return result;
}

static sw_mlflow_outcome send_last(sw_mlflow *m) {
  const int finished = m->end == SW_MONITOR_FINISHED;
  sw_mlflow_outcome result = SW_MLFLOW_DONE;
  if (m->ended == SEND_METRICS && m->end != SW_MONITOR_KILLED) result = send_file(m, m->files[0]);
  if (m->ended == SEND_CHECKPOINT && finished) result = send_file(m, m->files[1]);
  if (m->ended == SEND_VERSION && finished && m->model && !m->failed[SEND_CHECKPOINT]) result = send_version(m);
  if (m->ended == SEND_END) result = send_end(m);
  if (result == SW_MLFLOW_REFUSED) m->failed[m->ended] = 1;
  if (result == SW_MLFLOW_DONE || result == SW_MLFLOW_REFUSED) m->ended++;
  return result;
}

/* --- the thread --- */

/* The next thing to say to the server. */
static sw_mlflow_outcome work(sw_mlflow *m) {
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
    const sw_mlflow_outcome result = work(m);
    failures = result == SW_MLFLOW_LATER ? failures + 1 : 0;
    if (result == SW_MLFLOW_DONE) continue;
    if (!atomic_load(&m->stop)) snprintf(m->error, sizeof m->error, "%s", sw_error());
    pthread_mutex_lock(&m->lock);
    const int ending = m->ending;
    pthread_mutex_unlock(&m->lock);
    if (!m->told && !ending) {
      fprintf(stderr, "skillwatch: MLflow at %s: %s; training goes on%s\n", m->address, m->error,
              result == SW_MLFLOW_LATER ? ", its numbers wait" : result == SW_MLFLOW_HOPELESS ? ", nothing is sent" : "");
      m->told = 1;
    }
    if (result == SW_MLFLOW_HOPELESS || (result == SW_MLFLOW_LATER && ending && ++last_tries == END_TRIES)) break;
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
