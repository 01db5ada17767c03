/* The server: what its parts share. http.c speaks HTTP, routes.c knows what is asked, batcher.c computes. */
#ifndef SW_SERVE_SERVER_H
#define SW_SERVE_SERVER_H
#include "infer/serve/batcher.h"
#include "infer/serve/metrics.h"
#include "infer/serve/models.h"
#include "infer/serve/page.h"
#include "infer/serve/request.h"
#include "infer/serve/tokens.h"

#include <stdio.h>

typedef struct {
  const char *listen, *tokens, *certificate, *key, *cors, *access_log; /* NULL: none */
  int is_public, timeout, receive_timeout, connections, queue, body_megabytes, memory_megabytes;
} sw_serve_options;

typedef struct sw_http sw_http;
typedef struct sw_exchange sw_exchange;

typedef struct {
  const sw_serve_options *options;
  sw_models models;
  sw_tokens tokens;
  sw_metrics metrics;
  sw_batcher *batcher;
  atomic_int draining;
  atomic_size_t memory;      /* bytes of requests and answers */
  atomic_int trim;           /* a large one was freed: the system gets its memory back */
  atomic_size_t connections;
  atomic_size_t unlogged; /* requests that --access-log could not take */
  pthread_mutex_t openapi_lock;
  char *openapi; /* under the lock */
  sw_buffer page_policy;
} sw_server;

/* 0 where so many bytes more may be held; to be given back. -1: not now. */
int sw_server_reserve(sw_server *server, size_t bytes);
void sw_server_give_back(sw_server *server, size_t bytes);

/* --- routes.c --- */

/* A path. POST: texts to a job; GET: `answer`, or a static asset. */
typedef struct {
  const char *path, *summary;
  int is_post, is_open; /* open: without a token */
  /* POST */
  sw_serve_job job;
  enum { SW_USE_PLAIN, SW_USE_SEARCH, SW_USE_PLACE } use; /* what becomes of vectors */
  int fields; /* SW_FIELD_... */
  int (*finish)(sw_call *call, void *worker, size_t first, size_t count, sw_buffer *out);
  /* GET: appends to x->head; sets x->status where it is not 200 */
  int (*answer)(sw_exchange *exchange);
  const char *content_type; /* NULL: application/json */
  int is_page;              /* sent with the page's policy */
  const char *bytes;        /* of a static asset; `size` of them */
  size_t size;
} sw_route;
/* A static asset is a row of this table: path, content_type, is_open, bytes, size. */
extern const sw_route sw_routes[];
extern const int sw_num_routes;
/* Its index, or -1. */
int sw_route_find(const char *path);

/* One request and its answer. */
struct sw_exchange {
  sw_call call; /* first */
  sw_server *server;
  int route_index;
  const sw_route *route; /* NULL: there is none */
  sw_buffer body;
  size_t reserved; /* of the server's memory */
  sw_request request;
  sw_served *served;
  sw_served_corpus *corpus; /* of served; /search */
  sw_fault fault;
  /* the answer: head, slices of the call, tail */
  int status;
  sw_buffer head, tail;
  const char *content_type;
  void *http; /* http.c's */
};

/* The call's prepare and encode. */
int sw_route_prepare(sw_call *call);
int sw_route_encode(sw_call *call, void *worker, size_t index, sw_pieces *pieces);
/* After the call is done: status, head and tail of the answer. */
void sw_route_answer(sw_exchange *exchange, sw_call_outcome outcome);
/* The answer is an error, of x->fault.status with sw_error()'s message. */
void sw_route_refuse(sw_exchange *exchange);
/* Frees all but what http.c keeps. */
void sw_exchange_clear(sw_exchange *exchange);

/* --- openapi.c --- */

/* Makes what /openapi.json says, of the models that are served now; a failure leaves what it said before. */
int sw_openapi_update(sw_server *server);

/* --- http.c --- */

/* Listens and answers, until sw_http_close. `address` is given what to ask: "http://127.0.0.1:8080". */
int sw_http_open(sw_server *server, sw_http **out, char address[128], int *port);
/* No new connections; waits until every request that was received is answered: 1, or at most for --timeout and --receive-timeout: 0. */
int sw_http_drain(sw_http *http);
void sw_http_close(sw_http *http);
/* Opens the access log anew. */
void sw_http_reopen_log(sw_http *http);
/* Address and port of --listen; *loopback: only this machine can reach it. Wrong usage is a failure. */
int sw_http_check(const sw_serve_options *options);
#endif
