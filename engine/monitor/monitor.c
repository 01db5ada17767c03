#include "engine/monitor/internal.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/store/mlflow_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 16 };

struct sw_monitor {
  sw_events *events;
  sw_mlflow *mlflow;
  sw_numbers numbers; /* of the present step */
};

int sw_monitor_check(const sw_monitor_options *o) {
  if (o->tensorboard && sw_exists(o->tensorboard) && !sw_is_folder(o->tensorboard)) return sw_fail("--tensorboard %s is a file, a folder was expected", o->tensorboard);
  if (!o->mlflow && o->model) return sw_fail("--mlflow-model needs --mlflow, the address of a tracking server");
  if (!o->mlflow) return 0;
  const char *host = !strncmp(o->mlflow, "https://", 8) ? o->mlflow + 8 : !strncmp(o->mlflow, "http://", 7) ? o->mlflow + 7 : "";
  const size_t length = strcspn(host, "/?#");
  if (!length) return sw_fail("--mlflow %s: an address that begins with http:// or https:// was expected", o->mlflow);
  if (memchr(host, '@', length))
    return sw_fail("--mlflow: no user or password in the address; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD hold them");
  if (!o->experiment[0] || (o->model && !o->model[0])) return sw_fail("--mlflow-experiment and --mlflow-model want a name");
  sw_http_login login;
  return sw_mlflow_login(o->mlflow, &login);
}

int sw_monitor_open(const sw_monitor_options *o, const char *name, int64_t step, const char *run_id, const json_t *params, sw_monitor **out) {
  *out = NULL;
  if (!o->tensorboard && !o->mlflow) return 0;
  sw_monitor *m = sw_alloc(sizeof *m);
  if (!m) return -1;
  if ((o->tensorboard && sw_events_open(o->tensorboard, step + 1, &m->events)) || (o->mlflow && sw_mlflow_open(o, name, run_id, params, &m->mlflow))) {
    sw_events_close(m->events);
    free(m);
    return -1;
  }
  *out = m;
  return 0;
}

static int add_number(sw_numbers *n, const char *name, double value) {
  if (n->count == n->capacity) {
    const size_t capacity = n->capacity ? 2 * n->capacity : 16;
    char **names = sw_realloc_array(n->names, capacity, sizeof *names);
    if (!names) return -1;
    n->names = names;
    double *values = sw_realloc_array(n->values, capacity, sizeof *values);
    if (!values) return -1;
    n->values = values;
    n->capacity = capacity;
  }
  n->values[n->count] = value;
  return (n->names[n->count] = sw_strdup(name)) ? (n->count++, 0) : -1;
}

static void clear_numbers(sw_numbers *n) {
  while (n->count) free(n->names[--n->count]);
}

static int collect(sw_numbers *n, const json_t *object, const char *prefix, int depth) {
  const char *key;
  json_t *value;
  int status = 0;
  json_object_foreach((json_t *)object, key, value) {
    sw_buffer name = {0};
    if (!prefix[0] && (!strcmp(key, "step") || !strcmp(key, "epoch"))) continue;
    status = sw_buffer_print(&name, "%s%s%s", prefix, prefix[0] ? "/" : "", key);
    if (!status && json_is_number(value)) status = add_number(n, name.data, json_number_value(value));
    if (!status && json_is_object(value) && depth < DEPTH) status = collect(n, value, name.data, depth + 1);
    sw_buffer_close(&name);
    if (status) break;
  }
  return status;
}

void sw_monitor_metrics(sw_monitor *m, int64_t step, const json_t *metrics) {
  if (!m) return;
  int status = collect(&m->numbers, metrics, "", 0);
  if (!status && m->mlflow) sw_mlflow_add(m->mlflow, step, &m->numbers);
  if (!status && m->events) status = sw_events_add(m->events, step, &m->numbers);
  clear_numbers(&m->numbers);
  if (!status || !m->events) return;
  fprintf(stderr, "skillwatch: %s; training goes on without event files\n", sw_error());
  sw_events_close(m->events);
  m->events = NULL;
}

void sw_monitor_run_id(sw_monitor *m, char id[SW_MONITOR_ID]) {
  id[0] = 0;
  if (m && m->mlflow) sw_mlflow_run_id(m->mlflow, id);
}

void sw_monitor_close(sw_monitor *m, sw_monitor_end end, const char *metrics_path, const char *checkpoint, const volatile sig_atomic_t *hurry) {
  if (!m) return;
  if (m->mlflow) sw_mlflow_close(m->mlflow, end, metrics_path, checkpoint, hurry);
  sw_events_close(m->events);
  clear_numbers(&m->numbers);
  free(m->numbers.names);
  free(m->numbers.values);
  free(m);
}
