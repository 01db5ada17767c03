/* The body of a request: JSON, read by the table of fields that /openapi.json is made of, too. */
#ifndef SW_SERVE_REQUEST_H
#define SW_SERVE_REQUEST_H
#include "kernels/backend.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Which fields a route's body may have. */
enum {
  SW_FIELD_MODEL = 1,
  SW_FIELD_INPUT = 2, /* a text, texts, a text's token ids or those of several */
  SW_FIELD_ENCODING = 4,
  SW_FIELD_DIMENSIONS = 8,
  SW_FIELD_USER = 16, /* ignored */
  SW_FIELD_TEXTS = 32, /* "text" or "texts", one of them */
  SW_FIELD_K = 64,
  SW_FIELD_THRESHOLD = 128,
  SW_FIELD_CORPUS = 256,
};
enum { SW_REQUEST_MOST_K = SW_MOST_NEIGHBOURS };

typedef struct {
  const char *text; /* UTF-8 without NUL; NULL where ids are given */
  size_t bytes;
  const int32_t *ids; /* not negative */
  size_t num_ids;
} sw_request_text;

typedef struct {
  sw_request_text *texts; /* [count], count >= 1 */
  size_t count;
  const char *model, *corpus; /* NULL: not given */
  int base64, dimensions, k;  /* 0: not given */
  double threshold;           /* -1: not given */
  json_t *json;               /* owner of the texts, */
  int32_t *ids;               /* and of ids; both owned */
} sw_request;

/* What was wrong with a request: an HTTP status, the field (NULL: none), a code of a word or two (NULL: none). The message is sw_error()'s. */
typedef struct {
  int status;
  const char *param, *code;
} sw_fault;
/* Sets status, param and message; always returns -1. */
int sw_fault_set(sw_fault *fault, int status, const char *param, const char *format, ...) __attribute__((format(printf, 4, 5), cold));

/* `fields`: those that the route has. Close `out` in any case. */
int sw_request_read(const char *body, size_t bytes, int fields, sw_request *out, sw_fault *fault);
/* Bytes that reading such a body takes at most, by and large. */
size_t sw_request_cost(const char *body, size_t bytes);
void sw_request_close(sw_request *request);
#endif
