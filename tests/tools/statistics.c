/* tool-statistics: answers JSON lines of standard input, one each, with the statistics of engine/learn. For the
 * comparison with scipy.
 *   {"mcnemar": [only_first, only_second]}
 *   {"calibration": [[probability, right], ...]}
 *   {"bootstrap": {"counts": [[...], ...], "resamples", "seed", "stream", "threads"}}   the sums
 *   {"interval": [values], "level"}   [low, high, p]
 *   {"trend": {"count", "total", "time", "prior": [freedom, dispersion]}, "level"}   [weeks, slope, low, high, p, dispersion, first, last], null for no bound; or null
 *   {"wilson": [count, total, level]}   {"student": [t, freedom]}   [tail, the t of that tail]
 *   {"discovery": [p]}   q
 *   {"prior": [dispersions], "freedom"}   [freedom, dispersion]
 *   {"serial": {"total", "time", "skills"}, "dispersions", "lagged"}   [correlation, inflation]
 *   {"cka": {"x": [[...], ...], "y", "threads"}}   [cka, cosine of the first rows or null] */
#include "base/error.h"
#include "base/options.h"
#include "engine/learn/calibration.h"
#include "engine/learn/drift.h"
#include "engine/learn/significance.h"
#include "engine/learn/trend.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static double number(const json_t *object, const char *key) {
  return json_number_value(json_object_get(object, key));
}
static double at(const json_t *array, size_t i) {
  return json_number_value(json_array_get(array, i));
}

static json_t *calibration(const json_t *predictions) {
  sw_calibration c = {.count = {0}}, half = c;
  const size_t count = json_array_size(predictions);
  for (size_t i = 0; i < count; i++) {
    const json_t *p = json_array_get(predictions, i);
    sw_calibration_add(i % 2 ? &half : &c, at(p, 0), (int)at(p, 1));
  }
  sw_calibration_merge(&c, &half);
  return json_real(sw_calibration_error(&c));
}

static json_t *bootstrap(const json_t *request) {
  const json_t *rows = json_object_get(request, "counts");
  const size_t examples = json_array_size(rows), columns = json_array_size(json_array_get(rows, 0)),
               resamples = (size_t)number(request, "resamples");
  uint32_t *counts = sw_alloc_array(examples * columns + 1, sizeof *counts);
  uint64_t *sums = sw_alloc_array(resamples * columns + 1, sizeof *sums);
  json_t *out = NULL;
  for (size_t i = 0; counts && i < examples * columns; i++)
    counts[i] = (uint32_t)at(json_array_get(rows, i / columns), i % columns);
  if (counts && sums &&
      !sw_bootstrap_sums(counts, examples, columns, resamples, (uint64_t)number(request, "seed"),
                         (uint64_t)number(request, "stream"), (int)number(request, "threads"), sums)) {
    out = json_array();
    for (size_t i = 0; i < resamples * columns; i++) json_array_append_new(out, json_integer((json_int_t)sums[i]));
  }
  free(counts), free(sums);
  return out;
}

static json_t *interval(const json_t *list, double level) {
  const size_t count = json_array_size(list);
  double *values = sw_alloc_array(count + 1, sizeof *values);
  if (!values) return NULL;
  for (size_t i = 0; i < count; i++) values[i] = at(list, i);
  const double p = sw_bootstrap_p(values, count);
  const sw_interval found = sw_bootstrap_interval(values, count, level);
  free(values);
  return json_pack("[f,f,f]", found.low, found.high, p);
}

static float *matrix(const json_t *rows, size_t *columns) {
  *columns = json_array_size(json_array_get(rows, 0));
  float *out = sw_alloc_array(json_array_size(rows) * *columns + 1, sizeof *out);
  for (size_t i = 0; out && i < json_array_size(rows) * *columns; i++)
    out[i] = (float)at(json_array_get(rows, i / *columns), i % *columns);
  return out;
}

static json_t *cka(const json_t *request) {
  size_t x_size, y_size;
  double value;
  const json_t *rows = json_object_get(request, "x");
  float *x = matrix(rows, &x_size), *y = matrix(json_object_get(request, "y"), &y_size);
  json_t *out = NULL;
  if (x && y && !sw_linear_cka(x, x_size, y, y_size, json_array_size(rows), (int)number(request, "threads"), &value))
    out = json_pack("[f,o]", value, x_size == y_size ? json_real(sw_cosine(x, y, x_size)) : json_null());
  free(x), free(y);
  return out;
}

static double *list_of(const json_t *list) {
  double *out = sw_alloc_array(json_array_size(list) + 1, sizeof *out);
  for (size_t i = 0; out && i < json_array_size(list); i++) out[i] = at(list, i);
  return out;
}

static json_t *or_null(double x) {
  return isfinite(x) ? json_real(x) : json_null();
}

static json_t *trend(const json_t *request, double level) {
  const json_t *list = json_object_get(request, "count");
  double *count = list_of(list), *total = list_of(json_object_get(request, "total")), *time = list_of(json_object_get(request, "time"));
  sw_trend t;
  json_t *out = json_null();
  const json_t *of = json_object_get(request, "prior");
  if (count && total && time && sw_trend_fit(count, total, time, (int)json_array_size(list), &t)) {
    sw_trend_test(count, total, time, (int)json_array_size(list), (sw_dispersion_prior){at(of, 0), at(of, 1), 1}, level, &t);
    out = json_pack("[i,o,o,o,f,f,f,f]", t.weeks, or_null(t.slope), or_null(t.range.low), or_null(t.range.high), t.p, t.dispersion, t.first, t.last);
  }
  free(count), free(total), free(time);
  return out;
}

static json_t *discovery(const json_t *list) {
  const size_t count = json_array_size(list);
  double *p = list_of(list);
  if (!p || sw_false_discovery(p, count, p)) return NULL;
  json_t *out = json_array();
  for (size_t i = 0; i < count; i++) json_array_append_new(out, json_real(p[i]));
  free(p);
  return out;
}

static json_t *answer(const json_t *request) {
  const json_t *value;
  if ((value = json_object_get(request, "mcnemar")))
    return json_real(sw_mcnemar((uint64_t)at(value, 0), (uint64_t)at(value, 1)));
  if ((value = json_object_get(request, "calibration"))) return calibration(value);
  if ((value = json_object_get(request, "bootstrap"))) return bootstrap(value);
  if ((value = json_object_get(request, "interval"))) return interval(value, number(request, "level"));
  if ((value = json_object_get(request, "cka"))) return cka(value);
  if ((value = json_object_get(request, "trend"))) return trend(value, number(request, "level"));
  if ((value = json_object_get(request, "wilson"))) {
    const sw_interval range = sw_wilson(at(value, 0), at(value, 1), at(value, 2));
    return json_pack("[f,f]", range.low, range.high);
  }
  if ((value = json_object_get(request, "student"))) {
    const double tail = sw_student_tail(at(value, 0), at(value, 1));
    return json_pack("[f,f]", tail, sw_student_quantile(tail, at(value, 1)));
  }
  if ((value = json_object_get(request, "discovery"))) return discovery(value);
  if ((value = json_object_get(request, "prior"))) {
    double *list = list_of(value);
    const sw_dispersion_prior prior = sw_trend_prior(list, json_array_size(value), number(request, "freedom"));
    free(list);
    return json_pack("[f,f]", prior.freedom, prior.dispersion);
  }
  if ((value = json_object_get(request, "serial"))) {
    const json_t *weeks = json_object_get(value, "time");
    double *total = list_of(json_object_get(value, "total")), *time = list_of(weeks);
    sw_trend_serial found = {0, 0};
    const int failed = !total || !time || sw_trend_serial_find(number(request, "dispersions"), number(request, "lagged"), (size_t)number(value, "skills"), total, time, (int)json_array_size(weeks), &found);
    free(total), free(time);
    return failed ? NULL : json_pack("[f,f]", found.correlation, found.inflation);
  }
  sw_fail("an unknown request");
  return NULL;
}

int main(void) {
  char *line = NULL;
  size_t capacity = 0;
  int status = 0;
  while (!status && getline(&line, &capacity, stdin) > 0) {
    json_error_t error;
    json_t *request = json_loads(line, 0, &error), *result = request ? answer(request) : NULL;
    if (!request) sw_fail("broken JSON: %s", error.text);
    status = result ? 0 : -1;
    if (result) json_dumpf(result, stdout, JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(request);
    json_decref(result);
  }
  free(line);
  return status ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
}
