#include "infer/serve/request.h"
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sw_fault_set(sw_fault *f, int status, const char *param, const char *format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  *f = (sw_fault){.status = status, .param = param};
  return sw_fail("%s", message);
}

static int no_memory(sw_fault *f) {
  *f = (sw_fault){.status = 503};
  return -1; /* with the message of whoever found out */
}

/* A whole number, also one written as 2.0, as JSON Schema has it. */
static int whole(const json_t *value, int64_t low, int64_t high, int64_t *out) {
  if (json_is_integer(value)) {
    *out = json_integer_value(value);
  } else {
    const double real = json_is_real(value) ? json_real_value(value) : 0.5;
    if (!(real >= (double)low && real <= (double)high)) return -1;
    *out = (int64_t)real;
    if ((double)*out != real) return -1;
  }
  return *out >= low && *out <= high ? 0 : -1;
}

static int read_number(const json_t *value, const char *name, int high, int *out, sw_fault *f) {
  int64_t number;
  if (whole(value, 1, high, &number)) return sw_fault_set(f, 400, name, "'%s' must be a whole number from 1 to %d", name, high);
  *out = (int)number;
  return 0;
}

static int read_string(const json_t *value, const char *name, const char **out, sw_fault *f) {
  const char *text = json_string_value(value);
  if (!text || strlen(text) != json_string_length(value)) return sw_fault_set(f, 400, name, "'%s' must be a string", name);
  *out = text;
  return 0;
}

/* --- texts --- */

static int make_room(sw_request *r, size_t count, sw_fault *f) {
  r->texts = sw_alloc_array(count, sizeof *r->texts);
  r->count = count;
  return r->texts ? 0 : no_memory(f);
}

static int read_text(const json_t *value, const char *name, sw_request_text *out, sw_fault *f) {
  if (!json_is_string(value)) return sw_fault_set(f, 400, name, "'%s' must be a text, or an array of texts", name);
  *out = (sw_request_text){.text = json_string_value(value), .bytes = json_string_length(value)};
  return out->bytes ? 0 : sw_fault_set(f, 400, name, "'%s' has an empty text", name);
}

static int read_texts(sw_request *r, const json_t *array, const char *name, sw_fault *f) {
  if (!json_is_array(array) || json_array_size(array) == 0) return sw_fault_set(f, 400, name, "'%s' must be an array with at least one text", name);
  if (make_room(r, json_array_size(array), f)) return -1;
  for (size_t i = 0; i < r->count; i++)
    if (read_text(json_array_get(array, i), name, &r->texts[i], f)) return -1;
  return 0;
}

/* Token ids of a text, behind the first `from` of r->ids. */
static int read_ids(sw_request *r, const json_t *array, size_t from, sw_request_text *out, sw_fault *f) {
  const size_t count = json_array_size(array);
  if (count == 0) return sw_fault_set(f, 400, "input", "'input' has an empty array of token ids");
  for (size_t i = 0; i < count; i++) {
    int64_t id;
    if (whole(json_array_get(array, i), 0, INT32_MAX, &id))
      return sw_fault_set(f, 400, "input", "'input' has a token id that is no whole number from 0 to %d", INT32_MAX);
    r->ids[from + i] = (int32_t)id;
  }
  *out = (sw_request_text){.ids = r->ids + from, .num_ids = count};
  return 0;
}

static int read_input(sw_request *r, const json_t *value, sw_fault *f) {
  const json_t *first = json_array_get(value, 0);
  if (json_is_string(value)) return make_room(r, 1, f) || read_text(value, "input", r->texts, f) ? -1 : 0;
  if (!first || json_is_string(first)) return read_texts(r, value, "input", f);
  if (!json_is_array(first)) {
    r->ids = sw_alloc_array(json_array_size(value), sizeof *r->ids);
    if (!r->ids) return no_memory(f);
    return make_room(r, 1, f) || read_ids(r, value, 0, r->texts, f) ? -1 : 0;
  }
  size_t total = 0;
  for (size_t i = 0; i < json_array_size(value); i++) total += json_array_size(json_array_get(value, i));
  r->ids = sw_alloc_array(total + 1, sizeof *r->ids);
  if (!r->ids) return no_memory(f);
  if (make_room(r, json_array_size(value), f)) return -1;
  for (size_t i = 0, from = 0; i < r->count; i++) {
    const json_t *array = json_array_get(value, i);
    if (!json_is_array(array)) return sw_fault_set(f, 400, "input", "'input' must be a text, texts, token ids, or arrays of token ids, not a mixture");
    if (read_ids(r, array, from, &r->texts[i], f)) return -1;
    from += json_array_size(array);
  }
  return 0;
}

/* --- fields --- */

static int read_model(sw_request *r, const json_t *v, sw_fault *f) { return read_string(v, "model", &r->model, f); }
static int read_corpus(sw_request *r, const json_t *v, sw_fault *f) { return read_string(v, "corpus", &r->corpus, f); }
static int read_dimensions(sw_request *r, const json_t *v, sw_fault *f) { return read_number(v, "dimensions", INT32_MAX, &r->dimensions, f); }
static int read_k(sw_request *r, const json_t *v, sw_fault *f) { return read_number(v, "k", SW_REQUEST_MOST_K, &r->k, f); }
static int read_user(sw_request *r, const json_t *v, sw_fault *f) { return json_is_string(v) ? 0 : sw_fault_set(f, 400, "user", "'user' must be a string"); }
static int read_many(sw_request *r, const json_t *v, sw_fault *f) { return read_texts(r, v, "texts", f); }
static int read_one(sw_request *r, const json_t *v, sw_fault *f) { return make_room(r, 1, f) || read_text(v, "text", r->texts, f) ? -1 : 0; }

static int read_encoding(sw_request *r, const json_t *value, sw_fault *f) {
  const char *name = "";
  if (read_string(value, "encoding_format", &name, f)) return -1;
  r->base64 = !strcmp(name, "base64");
  return r->base64 || !strcmp(name, "float") ? 0 : sw_fault_set(f, 400, "encoding_format", "'encoding_format' must be \"float\" or \"base64\"");
}

static int read_threshold(sw_request *r, const json_t *value, sw_fault *f) {
  r->threshold = json_is_number(value) ? json_number_value(value) : -1;
  return r->threshold >= 0 && r->threshold <= 1 ? 0 : sw_fault_set(f, 400, "threshold", "'threshold' must be a number from 0 to 1");
}

static const struct {
  int field;
  const char *name;
  int (*read)(sw_request *request, const json_t *value, sw_fault *fault);
} readers[] = {
    {SW_FIELD_MODEL, "model", read_model},
    {SW_FIELD_INPUT, "input", read_input},
    {SW_FIELD_ENCODING, "encoding_format", read_encoding},
    {SW_FIELD_DIMENSIONS, "dimensions", read_dimensions},
    {SW_FIELD_USER, "user", read_user},
    {SW_FIELD_TEXTS, "text", read_one},
    {SW_FIELD_TEXTS, "texts", read_many},
    {SW_FIELD_K, "k", read_k},
    {SW_FIELD_THRESHOLD, "threshold", read_threshold},
    {SW_FIELD_CORPUS, "corpus", read_corpus},
};
enum { READERS = sizeof readers / sizeof *readers };

static int read_field(sw_request *r, int fields, const char *key, const json_t *value, sw_fault *f) {
  for (int i = 0; i < READERS; i++)
    if (fields & readers[i].field && !strcmp(key, readers[i].name)) {
      if (!strncmp(key, "text", 4) && r->texts) return sw_fault_set(f, 400, readers[i].name, "'text' and 'texts' exclude each other: send one of them");
      return readers[i].read(r, value, f);
    }
  return sw_fault_set(f, 400, NULL, "'%.80s' is no field of this request; see /openapi.json", key);
}

/* What JSON takes in memory, by its signs: an object has a table, an array one that grows, and a number or text is an allocation of its own. */
size_t sw_request_cost(const char *body, size_t bytes) {
  enum { OF_OBJECT = 512, OF_ARRAY = 256, OF_VALUE = 56, OF_STRING = 64 };
  size_t cost = 2 * bytes + OF_VALUE;
  for (size_t i = 0, in_text = 0; i < bytes; i++) {
    const char c = body[i];
    if (c == '"') cost += in_text ? 0 : OF_STRING, in_text = !in_text;
    else if (in_text) i += c == '\\';
    else cost += c == '{' ? OF_OBJECT : c == '[' ? OF_ARRAY : c == ',' ? OF_VALUE : 0;
  }
  return cost;
}

int sw_request_read(const char *body, size_t bytes, int fields, sw_request *r, sw_fault *f) {
  json_error_t error;
  *r = (sw_request){.threshold = -1};
  r->json = json_loadb(body, bytes, JSON_REJECT_DUPLICATES, &error);
  if (!r->json && json_error_code(&error) == json_error_out_of_memory) {
    sw_fail_memory("out of memory for the request's JSON");
    return no_memory(f);
  }
  if (!r->json) return sw_fault_set(f, 400, NULL, "the body is not valid JSON: line %d: %s", error.line, error.text);
  if (!json_is_object(r->json)) return sw_fault_set(f, 400, NULL, "the body must be a JSON object");
  const char *key;
  json_t *value;
  json_object_foreach(r->json, key, value) {
    if (read_field(r, fields, key, value, f)) return -1;
  }
  if (r->ids) json_object_del(r->json, "input"); /* a number of JSON takes ten times what an id takes */
  if (r->texts) return 0;
  return fields & SW_FIELD_INPUT ? sw_fault_set(f, 400, "input", "'input' is missing") : sw_fault_set(f, 400, "text", "'text' or 'texts' is missing");
}

void sw_request_close(sw_request *r) {
  json_decref(r->json);
  free(r->texts);
  free(r->ids);
  *r = (sw_request){0};
}
