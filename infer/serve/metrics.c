#include "infer/serve/metrics.h"

#include <stdio.h>

static const int statuses[] = {200, 204, 400, 401, 404, 405, 408, 411, 413, 415, 421, 422, 429, 431, 499, 500, 503, 504};
enum { STATUSES = sizeof statuses / sizeof *statuses };
static const double second_bounds[SW_METRIC_BUCKETS] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30};
static const double token_bounds[SW_METRIC_BUCKETS] = {8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};

void sw_metrics_open(sw_metrics *m) {
  *m = (sw_metrics){0};
  pthread_mutex_init(&m->lock, NULL);
}

void sw_metrics_close(sw_metrics *m) { pthread_mutex_destroy(&m->lock); }

static void observe(sw_histogram *h, const double *bounds, double value) {
  int i = 0;
  while (i < SW_METRIC_BUCKETS && value > bounds[i]) i++;
  h->buckets[i]++;
  h->count++;
  h->sum += value;
}

void sw_metrics_request(sw_metrics *m, int route, int status, double seconds, uint64_t texts, uint64_t tokens) {
  int s = 0;
  while (s < STATUSES && statuses[s] != status) s++;
  if (route < 0) route = SW_METRIC_ROUTES;
  pthread_mutex_lock(&m->lock);
  m->requests[route][s == STATUSES ? SW_METRIC_STATUSES : s]++;
  observe(&m->seconds[route], second_bounds, seconds);
  m->texts += texts;
  m->tokens += tokens;
  pthread_mutex_unlock(&m->lock);
}

void sw_metrics_batch(void *metrics, int64_t tokens) {
  sw_metrics *m = metrics;
  pthread_mutex_lock(&m->lock);
  observe(&m->batch_tokens, token_bounds, (double)tokens);
  pthread_mutex_unlock(&m->lock);
}

int sw_metric_print(sw_buffer *out, const char *name, const char *type, const char *help, double value) {
  return sw_buffer_print(out, "# HELP skillwatch_%s %s\n# TYPE skillwatch_%s %s\nskillwatch_%s %.17g\n", name, help, name, type, name, value);
}

static int print_histogram(sw_buffer *out, const char *name, const char *label, const double *bounds, const sw_histogram *h) {
  uint64_t below = 0;
  const char *comma = *label ? "," : "", *open = *label ? "{" : "", *close = *label ? "}" : "";
  for (int i = 0; i < SW_METRIC_BUCKETS; i++) {
    below += h->buckets[i];
    if (sw_buffer_print(out, "skillwatch_%s_bucket{%s%sle=\"%g\"} %llu\n", name, label, comma, bounds[i], (unsigned long long)below)) return -1;
  }
  return sw_buffer_print(out, "skillwatch_%s_bucket{%s%sle=\"+Inf\"} %llu\nskillwatch_%s_sum%s%s%s %.9g\nskillwatch_%s_count%s%s%s %llu\n", name, label, comma,
                         (unsigned long long)h->count, name, open, label, close, h->sum, name, open, label, close, (unsigned long long)h->count);
}

static int print_requests(const sw_metrics *m, const char *const *routes, int count, sw_buffer *out) {
  if (sw_buffer_print(out, "# HELP skillwatch_requests_total Requests that were answered.\n# TYPE skillwatch_requests_total counter\n")) return -1;
  for (int r = 0; r <= SW_METRIC_ROUTES; r++)
    for (int s = 0; s <= SW_METRIC_STATUSES; s++) {
      char status[16] = "other";
      if (!m->requests[r][s]) continue;
      if (s < STATUSES) snprintf(status, sizeof status, "%d", statuses[s]);
      if (sw_buffer_print(out, "skillwatch_requests_total{route=\"%s\",status=\"%s\"} %llu\n", r < count ? routes[r] : "other", status,
                          (unsigned long long)m->requests[r][s]))
        return -1;
    }
  if (sw_buffer_print(out, "# HELP skillwatch_request_seconds From the whole request to its answer's end.\n# TYPE skillwatch_request_seconds histogram\n")) return -1;
  for (int r = 0; r <= SW_METRIC_ROUTES; r++) {
    char label[128];
    if (!m->seconds[r].count) continue;
    snprintf(label, sizeof label, "route=\"%s\"", r < count ? routes[r] : "other");
    if (print_histogram(out, "request_seconds", label, second_bounds, &m->seconds[r])) return -1;
  }
  return 0;
}

int sw_metrics_print(sw_metrics *m, const char *const *routes, int count, sw_buffer *out) {
  pthread_mutex_lock(&m->lock);
  const int failed = print_requests(m, routes, count, out) ||
                     sw_buffer_print(out, "# HELP skillwatch_batch_tokens Tokens of a batch.\n# TYPE skillwatch_batch_tokens histogram\n") ||
                     print_histogram(out, "batch_tokens", "", token_bounds, &m->batch_tokens) ||
                     sw_metric_print(out, "texts_total", "counter", "Texts in requests that were answered.", (double)m->texts) ||
                     sw_metric_print(out, "tokens_total", "counter", "Tokens of those texts.", (double)m->tokens);
  pthread_mutex_unlock(&m->lock);
  return failed ? -1 : 0;
}
