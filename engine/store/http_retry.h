/* Requests to an API, tried again by the rule of engine/store/http.h; what went wrong at last is one line. */
#ifndef SW_STORE_HTTP_RETRY_H
#define SW_STORE_HTTP_RETRY_H
#include "engine/store/http_client.h"

/* Headers of the last answer. */
enum {
  SW_RETRY_AFTER,
  SW_RETRY_ETAG,
  SW_RETRY_CODE,
  SW_RETRY_MESSAGE,
  SW_RETRY_HEADERS
}; /* Retry-After, ETag, X-Error-Code, X-Error-Message */

typedef struct {
  sw_http_client *client;
  const char *name; /* of what is asked for, in messages */
  int quiet;        /* no line before another try */
  int failures;     /* of the request, in a row */
  int temporary;    /* it was given up for something that may be over later: exit status 75 */
  sw_http_wanted headers[SW_RETRY_HEADERS];
} sw_http_retry;

/* 0: an answer that would be the same again; 1: none, or a temporary one (408, 429, 5xx): some time was waited, try
 * again; -1: given up, after SW_HTTP_TRIES failures or for a fault that stays. */
int sw_http_retry_once(sw_http_retry *retry, const sw_http_message *message, long *status, sw_buffer *answer);
/* The same, as often as needed: 0 or -1. */
int sw_http_retry_send(sw_http_retry *retry, const sw_http_message *message, long *status, sw_buffer *answer);
#endif
