#include "engine/store/json.h"
#include "base/error.h"
#include "base/file.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where jansson gets no memory it may speak of an invalid token, or go on with half a string: we look for ourselves. */
static _Thread_local int refused;

static void *take(size_t bytes) {
  void *p = malloc(bytes);
  if (!p) refused = 1;
  return p;
}

static void watch_memory(void) {
  json_set_alloc_funcs(take, free);
}

static void begin(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_memory);
  refused = 0;
}

int sw_json_row(const char *text, size_t bytes, size_t flags, json_t **out, json_error_t *error) {
  begin();
  *out = json_loadb(text ? text : "", bytes, flags, error);
  if (!refused) return 0;
  json_decref(*out);
  *out = NULL;
  return sw_fail_memory("JSON of %zu bytes cannot be read", bytes);
}

json_t *sw_json_parse(const char *text, size_t bytes, const char *what) {
  json_error_t error;
  json_t *value;
  int status = sw_json_row(text, bytes, JSON_REJECT_DUPLICATES, &value, &error);
  if (!status && !value && json_error_code(&error) == json_error_numeric_overflow)
    status = sw_json_row(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &value, &error);
  if (status)
    sw_fail_in("%s", what);
  else if (!value)
    sw_fail("%s is not valid JSON: line %d: %s", what, error.line, error.text);
  return value;
}

json_t *sw_json_read(const char *path, size_t limit) {
  sw_buffer text = {0};
  json_t *value = NULL;
  if (!sw_file_read(path, limit, &text)) value = sw_json_parse(text.data, text.size, path);
  sw_buffer_close(&text);
  return value;
}

/* The number of significant digits that gives every real number of `value` back exactly: 1e-12 should not become
 * 9.9999999999999998e-13 only because doubles need 17 digits in general. */
static int digits_needed(const json_t *value) {
  int digits = 1;
  if (json_is_real(value)) {
    double v = json_real_value(value);
    char text[64];
    for (; digits < 17; digits++) {
      snprintf(text, sizeof text, "%.*g", digits, v);
      if (strtod(text, NULL) == v) break;
    }
  } else if (json_is_array(value)) {
    size_t i;
    const json_t *item;
    json_array_foreach(value, i, item) digits = (int)fmax(digits, digits_needed(item));
  } else if (json_is_object(value)) {
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item) digits = (int)fmax(digits, digits_needed(item));
  }
  return digits;
}

/* json_dumps with as many digits as `value` needs. */
static char *dump(const json_t *value, size_t flags) {
  begin();
  char *text = json_dumps(value, JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits_needed(value)) | flags);
  if (!text && !refused) sw_fail("a JSON value cannot be written: it is not valid");
  if (!refused) return text;
  free(text);
  sw_fail_memory("a JSON value cannot be written");
  return NULL;
}

char *sw_json_canonical(const json_t *value) {
  return dump(value, JSON_COMPACT);
}

char *sw_json_pretty(const json_t *value) {
  char *text = dump(value, JSON_INDENT(2));
  char *longer = text ? sw_realloc_array(text, strlen(text) + 2, 1) : NULL;
  if (longer)
    strcat(longer, "\n");
  else
    free(text);
  return longer;
}

int sw_json_integer(const json_t *object, const char *key, int64_t low, int64_t high, int64_t fallback,
                    const char *what, int64_t *out) {
  const json_t *value = json_object_get(object, key);
  if (!value || json_is_null(value)) {
    *out = fallback;
    return 0;
  }
  if (!json_is_number(value)) return sw_fail("%s: \"%s\" should be a whole number", what, key);
  double v = json_number_value(value);
  if (json_is_real(value) && v != floor(v))
    return sw_fail("%s: \"%s\" is %g, it should be a whole number", what, key, v);
  if (v < (double)low || v > (double)high)
    return sw_fail("%s: \"%s\" is %.17g, it should lie in %lld to %lld", what, key, v, (long long)low, (long long)high);
  *out = json_is_integer(value) ? (int64_t)json_integer_value(value) : (int64_t)v;
  return 0;
}

int sw_json_boolean(const json_t *object, const char *key, int fallback, const char *what, int *out) {
  const json_t *value = json_object_get(object, key);
  *out = fallback;
  if (!value || json_is_null(value)) return 0;
  if (!json_is_boolean(value)) return sw_fail("%s: \"%s\" should be true or false", what, key);
  *out = json_is_true(value);
  return 0;
}

const char *sw_json_string(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}
