/* What the server counts, in Prometheus' text format. Label values are bounded: routes and statuses of fixed lists, names of models. */
#ifndef SW_SERVE_METRICS_H
#define SW_SERVE_METRICS_H
#include "base/buffer.h"
#include <pthread.h>
#include <stdint.h>

enum { SW_METRIC_ROUTES = 24, SW_METRIC_STATUSES = 20, SW_METRIC_BUCKETS = 14 };

typedef struct {
  uint64_t buckets[SW_METRIC_BUCKETS + 1], count;
  double sum;
} sw_histogram;

typedef struct {
  pthread_mutex_t lock;
  uint64_t requests[SW_METRIC_ROUTES + 1][SW_METRIC_STATUSES + 1]; /* the last of each: any other */
  sw_histogram seconds[SW_METRIC_ROUTES + 1], batch_tokens;
  uint64_t texts, tokens;
} sw_metrics;

void sw_metrics_open(sw_metrics *metrics);
void sw_metrics_close(sw_metrics *metrics);
/* One request that is over; route: its index in the table of routes, or -1. */
void sw_metrics_request(sw_metrics *metrics, int route, int status, double seconds, uint64_t texts, uint64_t tokens);
void sw_metrics_batch(void *metrics, int64_t tokens);
/* routes: the names of the first `count` routes. */
int sw_metrics_print(sw_metrics *metrics, const char *const *routes, int count, sw_buffer *out);
/* One metric without labels: "gauge" or "counter". */
int sw_metric_print(sw_buffer *out, const char *name, const char *type, const char *help, double value);
#endif
