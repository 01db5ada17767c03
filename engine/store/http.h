/* Downloads over HTTP(S) by libcurl, as model hubs need them: resumed, retried, checked. */
#ifndef SW_STORE_HTTP_H
#define SW_STORE_HTTP_H
#include "base/progress.h"
#include <stddef.h>
#include <stdint.h>

typedef enum {
  SW_HTTP_DONE,      /* `path` holds the file */
  SW_HTTP_UNCHANGED, /* `path` held it already: the server says that its ETag is still right */
  SW_HTTP_ABSENT,    /* 404 */
  SW_HTTP_DENIED,    /* 401 or 403 */
} sw_http_outcome;

typedef struct {
  const char *url; /* http:// or https:// */
  const char
      *token; /* sent as "Authorization: Bearer" to the host of `url` and to no other; NULL = none. Never printed. */
  const char
      *path; /* destination; "<path>.etag" beside it keeps the ETag, "<path>.<digest>.part" an unfinished download */
  const char *name; /* for messages and the progress bar */
  uint64_t limit;   /* bytes; a longer file is refused */
  const char *known; /* a SHA-256: SW_HTTP_UNCHANGED, and nothing is fetched, where the server says that the file has it; NULL: none */
  const char *user, *password; /* basic authentication in the place of the token; NULL: none. Never printed. */
  int quiet;
} sw_http_request;

typedef struct {
  sw_http_outcome outcome;
  long status;     /* HTTP status of the last answer */
  char commit[65]; /* X-Repo-Commit, "" where the server sends none */
  char code[64];   /* X-Error-Code ("RepoNotFound", "GatedRepo"), "" where the server sends none */
} sw_http_result;

/* Fetches one file. Connection failures, cut connections, 408, 429 and 5xx are tried again (6 times, waiting 0.5 s, 1
 * s, 2 s ... with jitter, or as Retry-After says, 60 s at most). An ETag or X-Linked-Etag that is a SHA-256 is checked
 * against the content and makes resuming by Range possible, also in a later run. Redirects from https to http are
 * refused. Certificates are checked against the system's authorities, or those that REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE,
 * SSL_CERT_FILE or SSL_CERT_DIR names. -1 with a message on any other failure. */
int sw_http_download(const sw_http_request *request, sw_http_result *result);

/* What all our requests have in common. A libcurl handle (CURL *), NULL on failure; and its settings: no redirect is followed unasked, the
 * authorities above are trusted. Returns the environment variable that named them, or NULL. */
void *sw_http_open(void);
const char *sw_http_set_up(void *curl);
/* The address of the next request. Plain http to this machine goes through no proxy, which would carry its secrets away. */
void sw_http_set_url(void *curl, const char *url);

/* The rule for trying again, for all who ask a server. */
enum { SW_HTTP_TRIES = 6 }; /* as many requests as one is worth */
/* 1 where the same request may succeed later: libcurl's code says that the connection failed, or it is 0 (CURLE_OK) and the HTTP status is 408,
 * 429 or 5xx (less 501 and 505). */
int sw_http_is_temporary(int code, long status);
/* Seconds to wait after the `failures`-th failure in a row (from 1): 0.5, 1, 2 ... 60 with a quarter of jitter, or what the header Retry-After says
 * (seconds or a date; NULL or "": none), where that is longer: up to a day, so that the caller says whether it waits so long or gives up. */
double sw_http_wait(int failures, const char *retry_after);
void sw_http_pause(double seconds);

/* 1 for https, and for http to this machine: where a secret may be sent. */
int sw_http_keeps_secrets(const char *url);
/* Bytes at `p` (a text with a NUL behind it) that stand for the key: itself, also as %XX and JSON's escapes of it, escaped again or not; 0: none. */
size_t sw_http_key_at(const char *p, const char *key);
/* Overwrites with * what stands for the key (NULL: none) in `text`, which has a NUL behind it. */
void sw_http_hide(char *text, size_t bytes, const char *key);
/* 1 where scheme, host and port are the same: a secret for `a` may go to `b`. */
int sw_http_same_origin(const char *a, const char *b);
/* The address that a Location (relative or absolute) in the answer from `url` means; free() it. NULL with a message where it is none, or leads from
 * https to anything else. */
char *sw_http_redirect(const char *url, const char *location);
#endif
