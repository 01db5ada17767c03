/* Requests to a JSON API over HTTP(S) by libcurl: one connection, bounded times, no redirects (so that a login goes to no other host).
 * Certificates are checked as for downloads (engine/store/http.h). */
#ifndef SW_STORE_HTTP_CLIENT_H
#define SW_STORE_HTTP_CLIENT_H
#include "base/buffer.h"
#include <stdatomic.h>

typedef struct {
  const char *token;           /* sent as "Authorization: Bearer"; NULL: none */
  const char *user, *password; /* sent as basic authentication; NULL: none */
} sw_http_login;

typedef struct {
  const char *name, *value;
} sw_http_header;

/* A header that is wanted of the answer; "" where it has none, or one that does not fit. The last of several counts. */
typedef struct {
  const char *name;
  char value[2048];
} sw_http_wanted;

typedef struct {
  const char *method; /* "GET", "POST", "PUT" */
  const char *url;
  const char *json;   /* the body; NULL: none */
  const char *file;   /* its path: the body, streamed; NULL: none */
  long seconds;       /* for the whole request; with a file: without progress */
  const sw_http_header *headers; /* [num_headers] to send besides; their values never appear in messages */
  size_t num_headers;
  sw_http_wanted *wanted;        /* [num_wanted] filled by the answer */
  size_t num_wanted;
} sw_http_message;

typedef struct sw_http_client sw_http_client;

/* The login is copied and never printed. *stop (may become 1 at any time): requests end at once; *moved grows while bytes move. Both are
 * borrowed. */
int sw_http_client_open(const sw_http_login *login, atomic_int *stop, atomic_ullong *moved, sw_http_client **out);
/* 0: an answer came; *status is its, whatever it is, and `answer` its body (emptied first; longer than its limit: a failure). -1: none came. */
int sw_http_client_send(sw_http_client *client, const sw_http_message *message, long *status, sw_buffer *answer);
/* libcurl's code (CURLcode) of the last request, for sw_http_is_temporary: 0 where an answer came. */
int sw_http_client_code(const sw_http_client *client);
void sw_http_client_close(sw_http_client *client);
#endif
