/* The parts of the monitor. */
#ifndef SW_MONITOR_INTERNAL_H
#define SW_MONITOR_INTERNAL_H
#include "engine/monitor/monitor.h"
#include <stddef.h>

/* Named numbers of one step. */
typedef struct {
  size_t count, capacity;
  char **names; /* owned */
  double *values;
} sw_numbers;

/* TensorBoard event files: TFRecords (length, CRC-32C of the length, data, CRC-32C of the data; checksums rotated by 15 bits plus a constant) of
 * Event protocol buffers. https://github.com/tensorflow/tensorboard: proto/event.proto, proto/summary.proto;
 * https://www.tensorflow.org/tutorials/load_data/tfrecord */
typedef struct sw_events sw_events;
/* A new file that readers take after those that are there. What those show of `first_step` and later steps is withdrawn. */
int sw_events_open(const char *folder, int64_t first_step, sw_events **out);
int sw_events_add(sw_events *events, int64_t step, const sw_numbers *numbers);
void sw_events_close(sw_events *events);

/* An MLflow run over the REST API. https://mlflow.org/docs/latest/rest-api.html
 * A thread of its own talks to the server, from a queue of bounded size: the caller never waits before sw_mlflow_close. */
typedef struct sw_mlflow sw_mlflow;
int sw_mlflow_open(const sw_monitor_options *options, const char *name, const char *run_id, const json_t *params, sw_mlflow **out);
void sw_mlflow_add(sw_mlflow *mlflow, int64_t step, const sw_numbers *numbers);
void sw_mlflow_run_id(sw_mlflow *mlflow, char id[SW_MONITOR_ID]);
void sw_mlflow_close(sw_mlflow *mlflow, sw_monitor_end end, const char *metrics_path, const char *checkpoint, const volatile sig_atomic_t *hurry);
#endif
