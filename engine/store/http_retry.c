#include "engine/store/http_retry.h"
#include "base/error.h"
#include "engine/store/http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WAIT = 60, MAX_CONNECT_TRIES = 3 };

static int never_connected(int code) {
  return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_COULDNT_CONNECT;
}

static int give_up(sw_http_retry *r, int code, long status, double wait) {
  r->temporary = sw_http_is_temporary(code, status);
  if (code == CURLE_PEER_FAILED_VERIFICATION)
    return sw_fail("%s: the server's certificate is not trusted (%s); where it is the right server, name the authority "
                   "that signed it with SSL_CERT_FILE",
                   r->name, sw_error());
  if (code) return sw_fail_in("%s: the server cannot be reached", r->name);
  if (wait > MAX_WAIT)
    return sw_fail("%s: the server asks to come back in %.0f seconds (HTTP %ld); run the command again then", r->name,
                   wait, status);
  return sw_fail("%s: the server answers with HTTP status %ld, %d times; run the command again later", r->name, status,
                 r->failures);
}

int sw_http_retry_once(sw_http_retry *r, const sw_http_message *message, long *status, sw_buffer *answer) {
  static const char *const names[SW_RETRY_HEADERS] = {"Retry-After", "ETag", "X-Error-Code", "X-Error-Message"};
  sw_http_message m = *message;
  for (int i = 0; i < SW_RETRY_HEADERS; i++) r->headers[i].name = names[i];
  m.wanted = r->headers;
  m.num_wanted = SW_RETRY_HEADERS;
  const int failed = sw_http_client_send(r->client, &m, status, answer), code = sw_http_client_code(r->client);
  if (failed && !code) return sw_fail_in("%s", r->name); /* it could not be sent */
  if (!sw_http_is_temporary(code, *status)) {
    r->failures = 0;
    return failed ? give_up(r, code, *status, 0) : 0;
  }
  const double wait = sw_http_wait(++r->failures, r->headers[SW_RETRY_AFTER].value);
  if (r->failures >= (never_connected(code) ? MAX_CONNECT_TRIES : SW_HTTP_TRIES) || wait > MAX_WAIT)
    return give_up(r, code, *status, wait);
  if (!r->quiet) {
    const sw_progress shown = message->progress ? *message->progress : (sw_progress){0};
    if (message->progress) sw_progress_close(message->progress);
    fprintf(stderr, "%s: %s; trying again in %.1f s\n", r->name,
            code             ? sw_error()
            : *status == 429 ? "the server asks to wait"
                             : "the server is busy",
            wait);
    if (message->progress) *message->progress = shown;
  }
  sw_http_pause(wait);
  return 1;
}

int sw_http_retry_send(sw_http_retry *r, const sw_http_message *message, long *status, sw_buffer *answer) {
  int again;
  r->failures = 0;
  while ((again = sw_http_retry_once(r, message, status, answer)) > 0) {
  }
  return again;
}
