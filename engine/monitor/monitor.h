/* Where the numbers of a run go besides its metrics file: TensorBoard's event files and an MLflow tracking server. Watching never stops a
 * run: what goes wrong after the start is one line on standard error. A NULL monitor is one that does nothing. */
#ifndef SW_MONITOR_MONITOR_H
#define SW_MONITOR_MONITOR_H
#include <jansson.h>
#include <signal.h>
#include <stdint.h>

typedef struct {
  const char *tensorboard; /* folder of this run's event files; NULL: none */
  const char *mlflow;      /* address of a tracking server, http:// or https://; NULL: none */
  const char *experiment;  /* its experiment, made where it is not there */
  const char *model;       /* registered model that gets the checkpoint as a new version; NULL: none */
  int over;                /* training was complete before: the MLflow run is only ended, and only where its server has not heard of the end */
} sw_monitor_options;

typedef enum { SW_MONITOR_FINISHED, SW_MONITOR_FAILED, SW_MONITOR_KILLED } sw_monitor_end;
enum { SW_MONITOR_ID = 65 };

typedef struct sw_monitor sw_monitor;

/* -1: wrong usage. */
int sw_monitor_check(const sw_monitor_options *options);
/* `name`: the run's, for people. `step`: steps that were done before: what event files show of later ones is withdrawn. `run_id`: the MLflow run
 * to go on with, or NULL. `params`: hyper-parameters and data, borrowed. Fails where no event file can be written; MLflow's server is not waited
 * for. *out = NULL where the options ask for nothing. */
int sw_monitor_open(const sw_monitor_options *options, const char *name, int64_t step, const char *run_id, const json_t *params, sw_monitor **out);
/* The numbers in `metrics` and the objects below it, named "dev/micro/f1"; "step" and "epoch" are left out. */
void sw_monitor_metrics(sw_monitor *monitor, int64_t step, const json_t *metrics);
/* The MLflow run, once the server has given it a name; "" before. */
void sw_monitor_run_id(sw_monitor *monitor, char id[SW_MONITOR_ID]);
/* Ends the run and releases the monitor. Waits for MLflow while that makes progress, says what was not delivered. A finished run's server also
 * gets the two files (`checkpoint` may be NULL); a killed one is given a few seconds. Where *hurry
 * becomes 1 it stops waiting. */
void sw_monitor_close(sw_monitor *monitor, sw_monitor_end end, const char *metrics_path, const char *checkpoint, const volatile sig_atomic_t *hurry);
#endif
