/* tool-monitor URL COUNT: hands COUNT values to an MLflow monitor, says "added" and closes it. For tests/e2e/test_mlflow.py. */
#include "base/error.h"
#include "engine/monitor/monitor.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s URL COUNT\n", argv[0]);
    return 2;
  }
  sw_monitor *monitor;
  json_t *params = json_object(), *metrics = json_pack("{s:f}", "loss", 0.5);
  const sw_monitor_options options = {.mlflow = argv[1], .experiment = "flood"};
  int status = sw_monitor_open(&options, "flood", 0, NULL, params, &monitor);
  if (!status) {
    const volatile sig_atomic_t none = 0;
    const int count = atoi(argv[2]);
    for (int i = 1; i <= count; i++) sw_monitor_metrics(monitor, i, metrics);
    puts("added");
    fflush(stdout);
    sw_monitor_close(monitor, SW_MONITOR_FAILED, "/dev/null", NULL, &none);
  } else {
    fprintf(stderr, "skillwatch: %s\n", sw_error());
  }
  json_decref(params);
  json_decref(metrics);
  return status ? 1 : 0;
}
