/* Requests to a job board: paced, within the daily quota, tried again, redirected without its keys. */
#ifndef SW_FETCH_ASK_H
#define SW_FETCH_ASK_H
#include "engine/data/job_source.h"
#include "engine/store/http_client.h"

/* What is known of a page from an earlier run; "": nothing. */
typedef struct {
  char etag[512], modified[128];
} validator;

typedef struct {
  sw_buffer body; /* with {env:NAME} for keys, as is the page's `next` */
  sw_job_page page;
  validator validator;
  int unchanged; /* 304: there is no body */
} answer;

typedef struct {
  const sw_job_source *source;
  sw_http_client *client;
  sw_buffer quota;  /* path of the file that keeps the quota and the pace across runs */
  double deadline;  /* of sw_clock() */
  int time_limit;   /* seconds, for messages */
  int quiet;
  uint64_t requests; /* of this run */
  char day[11];      /* UTC, that `used` counts */
  int64_t used;
  double *recent;    /* [rate_requests] Unix times of the last requests, a ring */
  int64_t num_recent, oldest;
  atomic_int stop;
  atomic_ullong moved;
} asker;

/* `folder` keeps the quota. */
int asker_open(const sw_job_source *source, const char *folder, int time_limit, int quiet, asker *out);
void asker_close(asker *a);

typedef enum { ASK_DONE, ASK_LATER, ASK_FAILED } ask_result; /* LATER and FAILED: the message is set */
/* One page: by `url`, or, where that is NULL, by the source's templates. `known` may be NULL. `what` is its name in messages. */
ask_result ask_page(asker *a, const sw_job_ask *ask, const char *url, const validator *known, const char *what, answer *out);
void answer_close(answer *a);
#endif
