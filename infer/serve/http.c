/* HTTP by libmicrohttpd: one thread for all connections, which hands requests to the batcher and sends answers; one that accepts, so that it can stop
 * accepting without losing who is in the queue; one that ends what takes too long. */
#include "base/error.h"
#include "base/progress.h"
#include "engine/data/rejects.h"
#include "infer/serve/server.h"
#include "infer/serve/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <math.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTION_MEMORY = 16 << 10, BACKLOG = 4096, TICK_MS = 50, ANSWER_BYTES_PER_SECOND = 64 << 10, SHOWN_PATH = 200, MOST_PIECES = 500, CLIENT_CLOSED = 499 };
enum {
  LAST_WORDS = 2,  /* seconds for whoever still has a connection at the end */
  READ_BODIES = 4, /* times --max-body that is read of what is refused, before it is answered */
};

static const double LOOK_AGAIN = 0.25; /* seconds between looks at who waits for an answer */

typedef enum { RECEIVING, COMPUTING, ANSWERING } client_phase;

/* One connection. */
typedef struct client {
  MHD_socket socket;
  client_phase phase;
  double until;  /* when it is cut; while it is computed for: when it is looked at next */
  int begun;     /* a request has begun */
  int used;      /* one was answered before */
  int cut;
  int asked;     /* whether somebody is there still */
  sw_call *call; /* that is computed for it */
  struct client *before, *after;
} client;

struct sw_http {
  sw_server *server;
  struct MHD_Daemon *daemon;
  int listener;
  int is_tls;
  pthread_t acceptor, clock;
  int accepting, ticking; /* threads that were started */
  atomic_int stop;
  pthread_mutex_t lock; /* of what follows, and of what is in clients */
  client *clients;
  size_t computing; /* requests that are suspended: libmicrohttpd aborts where it is stopped before they are resumed */
  int ending;       /* none is suspended any more */
  double drained;   /* until when sw_http_drain waits */
  pthread_mutex_t log_lock;
  FILE *log;
  int log_failed; /* and that is told */
};

/* What http.c keeps of an exchange. */
typedef struct {
  sw_exchange exchange; /* first */
  sw_http *http;
  struct MHD_Connection *connection;
  client *client;
  char *method, *path;
  int is_old; /* HTTP/1.0, which knows no 100 */
  double began, received; /* received: the whole request */
  int refused, answered;  /* refused: the answer is made already */
  int told;               /* the answer was sent before the body was read */
  uint64_t bytes_in, bytes_out;
} request;

/* --- connections --- */

static void set_phase(sw_http *h, client *c, client_phase phase, double seconds) {
  pthread_mutex_lock(&h->lock);
  c->phase = phase;
  c->until = sw_clock() + seconds;
  if (phase == RECEIVING) {
    c->begun = 0;
    c->used = 1;
  }
  pthread_mutex_unlock(&h->lock);
}

static int was_cut(sw_http *h, const client *c) {
  pthread_mutex_lock(&h->lock);
  const int cut = c->cut;
  pthread_mutex_unlock(&h->lock);
  return cut;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **own, enum MHD_ConnectionNotificationCode code) {
  sw_http *h = context;
  client *c = *own;
  if (code == MHD_CONNECTION_NOTIFY_STARTED) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *own = c = calloc(1, sizeof *c);
    if (!c) return; /* its requests are refused */
    c->socket = info ? info->connect_fd : MHD_INVALID_SOCKET;
    c->until = sw_clock() + h->server->options->receive_timeout;
    pthread_mutex_lock(&h->lock);
    c->after = h->clients;
    if (h->clients) h->clients->before = c;
    h->clients = c;
    pthread_mutex_unlock(&h->lock);
  } else {
    atomic_fetch_sub(&h->server->connections, 1);
    if (!c) return;
    pthread_mutex_lock(&h->lock);
    *(c->before ? &c->before->after : &h->clients) = c->after;
    if (c->after) c->after->before = c->before;
    pthread_mutex_unlock(&h->lock);
    free(c);
    *own = NULL;
  }
}

static void *on_begin(void *context, const char *uri, struct MHD_Connection *connection) {
  sw_http *h = context;
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  client *c = info ? info->socket_context : NULL;
  if (c) {
    pthread_mutex_lock(&h->lock);
    c->begun = 1;
    pthread_mutex_unlock(&h->lock);
  }
  return NULL;
}

static void say(int socket, const char *text) { (void)!send(socket, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL); }

static void say_answer(int socket, int status, const char *headers, const char *body, size_t bytes) {
  char text[4096]; /* more than a message takes, however it is quoted */
  snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%.*s", status,
           MHD_get_reason_phrase_for((unsigned)status), headers, bytes, (int)bytes, body);
  say(socket, text);
}

static void say_error(int socket, int status, const char *headers, const char *type, const char *message) {
  char body[256];
  const int bytes = snprintf(body, sizeof body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}", message, type);
  say_answer(socket, status, headers, body, (size_t)bytes);
}

/* Whether nobody waits for the answer that is computed. Who has ended its sending may still read: a 100, which clients ignore however often it comes
 * (RFC 9110, 15.2), tells, as the system of a client that has closed its connection answers it with a reset. */
static int has_gone(const sw_http *h, client *c) {
  struct pollfd end = {.fd = c->socket, .events = POLLRDHUP};
  if (poll(&end, 1, 0) != 1) return 0;
  if (end.revents & (POLLERR | POLLHUP) || h->is_tls) return 1;
  if (!c->asked) say(c->socket, "HTTP/1.1 100 Continue\r\n\r\n");
  c->asked = 1;
  return 0;
}

/* Ends connections that take too long for a request, however they send it, or for reading an answer, and requests that nobody waits for. */
static void cut_slow(sw_http *h) {
  const double now = sw_clock();
  pthread_mutex_lock(&h->lock);
  for (client *c = h->clients; c; c = c->after) {
    if (c->cut || c->until > now || c->socket == MHD_INVALID_SOCKET) continue;
    if (c->phase == COMPUTING) {
      if (has_gone(h, c)) sw_batcher_cancel(h->server->batcher, c->call);
      c->until = now + LOOK_AGAIN;
      continue;
    }
    c->cut = 1;
    if (c->phase == RECEIVING && (c->begun || !c->used) && !h->is_tls) /* one that rests between requests just ends */
      say_error(c->socket, 408, "", "invalid_request_error", "the request took too long to come");
    shutdown(c->socket, SHUT_RDWR); /* libmicrohttpd sees the end, and closes it */
  }
  pthread_mutex_unlock(&h->lock);
}

static void *tick(void *context) {
  sw_http *h = context;
  const struct timespec pause = {.tv_nsec = TICK_MS * 1000000};
  while (!atomic_load(&h->stop)) {
    nanosleep(&pause, NULL);
    sw_batcher_expire(h->server->batcher, sw_clock());
    cut_slow(h);
  }
  return NULL;
}

static void give_connection(sw_http *h, int socket, const struct sockaddr *address, socklen_t bytes) {
  const size_t most = (size_t)h->server->options->connections;
  if (atomic_fetch_add(&h->server->connections, 1) >= most) {
    atomic_fetch_sub(&h->server->connections, 1);
    if (!h->is_tls) say_error(socket, 503, "Retry-After: 1\r\n", "server_error", "too many connections: try again");
    close(socket);
    return;
  }
  /* on_connection(CLOSED) takes the connection off again, where there is one */
  if (MHD_add_connection(h->daemon, socket, address, bytes) != MHD_YES) atomic_fetch_sub(&h->server->connections, 1);
}

/* From here on the system drops what opens a connection, so that none is made between the last accept and the end of the listener, which would reset it;
 * who asks again a second later is told that nobody is there. */
static void refuse_new(int listener) {
  enum { OF_FLAGS = 13, SYN = 2 }; /* of TCP's header */
  struct sock_filter steps[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, OF_FLAGS), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SYN, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
                                BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)};
  const struct sock_fprog filter = {.len = sizeof steps / sizeof *steps, .filter = steps};
  if (setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter))
    fprintf(stderr, "skillwatch: the system cannot hold connections back (%s): one that comes in this moment may be lost\n", strerror(errno));
}

static void *accept_all(void *context) {
  sw_http *h = context;
  for (int ending = 0;;) {
    if (!ending && atomic_load(&h->server->draining)) {
      refuse_new(h->listener);
      ending = 1;
    }
    struct pollfd wait = {.fd = h->listener, .events = POLLIN};
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    if (poll(&wait, 1, TICK_MS) <= 0) {
      if (ending) return NULL;
      continue;
    }
    const int socket = accept4(h->listener, (struct sockaddr *)&address, &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket >= 0) give_connection(h, socket, (struct sockaddr *)&address, bytes);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) usleep(TICK_MS * 1000);
  }
}

/* --- the access log --- */

/* Under the lock. Nobody waits for who reads the log: a pipe that can be written takes a line of PIPE_BUF bytes at once, and what it cannot take is left out
 * and counted. */
static void write_log(sw_http *h, const sw_buffer *line) {
  struct pollfd room = {.fd = fileno(h->log), .events = POLLOUT};
  if (line->size <= PIPE_BUF && poll(&room, 1, 0) == 1 && room.revents & POLLOUT) {
    if (write(room.fd, line->data, line->size) == (ssize_t)line->size) {
      h->log_failed = 0;
      return;
    }
    if (!h->log_failed) fprintf(stderr, "skillwatch: cannot write %s: %s; requests are answered without it\n", h->server->options->access_log, strerror(errno));
    h->log_failed = 1;
  }
  atomic_fetch_add(&h->server->unlogged, 1);
}

static void log_request(const request *r, double now) {
  sw_http *h = r->http;
  const sw_exchange *x = &r->exchange;
  sw_buffer line = {0};
  struct timespec clock;
  struct tm date;
  char address[INET6_ADDRSTRLEN] = "?", stamp[32];
  if (!h->server->options->access_log) return;
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  const struct sockaddr *from = info ? info->client_addr : NULL;
  if (from && from->sa_family == AF_INET) inet_ntop(AF_INET, &((const struct sockaddr_in *)from)->sin_addr, address, sizeof address);
  if (from && from->sa_family == AF_INET6) inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)from)->sin6_addr, address, sizeof address);
  clock_gettime(CLOCK_REALTIME, &clock);
  gmtime_r(&clock.tv_sec, &date);
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &date);
  if (!sw_buffer_print(&line, "{\"time\":\"%s.%03ldZ\",\"client\":\"%s\",\"method\":", stamp, clock.tv_nsec / 1000000, address) &&
      !sw_json_quote(&line, r->method, strnlen(r->method, 16)) && !sw_buffer_print(&line, ",\"path\":") &&
      !sw_json_quote(&line, r->path, strnlen(r->path, SHOWN_PATH)) &&
      !sw_buffer_print(&line, ",\"status\":%d,\"seconds\":%.6f,\"bytes_in\":%llu,\"bytes_out\":%llu,\"texts\":%zu,\"tokens\":%llu", x->status, now - r->began,
                       (unsigned long long)r->bytes_in, (unsigned long long)r->bytes_out, x->call.count, (unsigned long long)x->call.tokens) &&
      (!x->served || (!sw_buffer_print(&line, ",\"model\":") && !sw_json_quote(&line, x->served->name, strlen(x->served->name)))) &&
      !sw_buffer_print(&line, "}\n")) {
    pthread_mutex_lock(&h->log_lock);
    write_log(h, &line);
    pthread_mutex_unlock(&h->log_lock);
  }
  sw_buffer_close(&line);
}

static int open_log(const char *path, FILE **out) {
  if (!path) return 0;
  *out = strcmp(path, "-") ? fopen(path, "ae") : stdout;
  return *out ? 0 : sw_fail("cannot write %s: %s", path, strerror(errno));
}

void sw_http_reopen_log(sw_http *h) {
  FILE *new = NULL;
  if (!h->log || h->log == stdout) return;
  if (open_log(h->server->options->access_log, &new)) {
    fprintf(stderr, "skillwatch: %s\n", sw_error());
    return;
  }
  pthread_mutex_lock(&h->log_lock);
  fclose(h->log);
  h->log = new;
  pthread_mutex_unlock(&h->log_lock);
}

/* --- answers --- */

/* What libmicrohttpd sends piece by piece, and frees. */
typedef struct {
  sw_slice *slices;
  size_t num_slices;
  char *head, *tail;
  struct MHD_IoVec pieces[];
} answer_body;

static void free_answer(void *context) {
  answer_body *a = context;
  for (size_t i = 0; i < a->num_slices; i++) sw_buffer_close(&a->slices[i].output);
  free(a->slices);
  free(a->head);
  free(a->tail);
  free(a);
}

/* libmicrohttpd gives all pieces to one system call, which takes 1024 at most: neighbours are put together until there are few enough. */
static int join_slices(sw_call *c) {
  const size_t together = c->num_slices / MOST_PIECES + 1;
  for (size_t i = 0; i < c->num_slices; i++) {
    sw_buffer *to = &c->slices[i - i % together].output, *from = &c->slices[i].output;
    if (to == from) continue;
    if (from->size && sw_buffer_append(to, from->data, from->size)) return -1;
    sw_buffer_close(from);
  }
  return 0;
}

static struct MHD_Response *make_response(sw_exchange *x, uint64_t *bytes) {
  sw_call *c = &x->call;
  const size_t slices = x->tail.size ? c->num_slices : 0;
  if (slices && join_slices(c)) return NULL;
  answer_body *a = calloc(1, sizeof *a + (slices + 2) * sizeof *a->pieces);
  if (!a) return NULL;
  size_t count = 0;
  if (x->head.size) a->pieces[count++] = (struct MHD_IoVec){x->head.data, x->head.size};
  for (size_t i = 0; i < slices; i++)
    if (c->slices[i].output.size) a->pieces[count++] = (struct MHD_IoVec){c->slices[i].output.data, c->slices[i].output.size};
  if (x->tail.size) a->pieces[count++] = (struct MHD_IoVec){x->tail.data, x->tail.size};
  *bytes = 0;
  for (size_t i = 0; i < count; i++) *bytes += a->pieces[i].iov_len;
  struct MHD_Response *response = MHD_create_response_from_iovec(a->pieces, (unsigned)count, free_answer, a);
  if (!response) {
    free(a);
    return NULL;
  }
  a->head = x->head.data;
  a->tail = x->tail.data;
  x->head = x->tail = (sw_buffer){0};
  if (slices) {
    a->slices = c->slices;
    a->num_slices = slices;
    c->slices = NULL;
    c->num_slices = 0;
  }
  return response;
}

static void add_cors(const request *r, struct MHD_Response *response) {
  const char *allowed = r->http->server->options->cors, *origin;
  if (!allowed) return;
  MHD_add_response_header(response, "Vary", "Origin");
  origin = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "Origin");
  if (!origin || (strcmp(allowed, "*") && strcmp(allowed, origin))) return;
  MHD_add_response_header(response, "Access-Control-Allow-Origin", allowed);
  MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST");
  MHD_add_response_header(response, "Access-Control-Allow-Headers", "authorization, content-type");
  MHD_add_response_header(response, "Access-Control-Max-Age", "600");
}

static enum MHD_Result send_answer(request *r) {
  sw_exchange *x = &r->exchange;
  const sw_server *s = r->http->server;
  r->answered = 1;
  struct MHD_Response *response = make_response(x, &r->bytes_out);
  if (!response) return MHD_NO;
  if (x->content_type && r->bytes_out) MHD_add_response_header(response, "Content-Type", x->content_type);
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  if (x->route && x->route->is_page && x->status == 200) {
    MHD_add_response_header(response, "Content-Security-Policy", s->page_policy.data);
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Cache-Control", "no-cache");
  }
  if (x->status == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
  if (x->status == 405) MHD_add_response_header(response, "Allow", x->route->is_post ? "POST" : "GET, HEAD");
  if (x->status == 429 || x->status == 503) MHD_add_response_header(response, "Retry-After", "1");
  if (atomic_load(&s->draining)) MHD_add_response_header(response, "Connection", "close");
  add_cors(r, response);
  if (r->client) set_phase(r->http, r->client, ANSWERING, s->options->receive_timeout + (double)r->bytes_out / ANSWER_BYTES_PER_SECOND);
  const enum MHD_Result status = MHD_queue_response(r->connection, (unsigned)x->status, response);
  MHD_destroy_response(response);
  return status;
}

/* 0 where the server is ending: nothing may be suspended then. */
static int suspend(request *r) {
  sw_http *h = r->http;
  pthread_mutex_lock(&h->lock);
  const int allowed = !h->ending;
  h->computing += (size_t)allowed;
  if (allowed) {
    r->client->phase = COMPUTING;
    r->client->until = sw_clock() + LOOK_AGAIN;
    r->client->call = &r->exchange.call;
    r->client->asked = r->is_old;
  }
  pthread_mutex_unlock(&h->lock);
  if (allowed) MHD_suspend_connection(r->connection);
  return allowed;
}

static void resume(request *r) {
  sw_http *h = r->http; /* r may be gone as soon as it is resumed */
  MHD_resume_connection(r->connection);
  pthread_mutex_lock(&h->lock);
  h->computing--;
  pthread_mutex_unlock(&h->lock);
}

static void on_done(sw_call *call, sw_call_outcome outcome) {
  request *r = (request *)call;
  sw_route_answer(&r->exchange, outcome);
  resume(r);
}

/* --- requests --- */

static void refuse(request *r, int status, const char *param, const char *format, const char *what) {
  if (r->refused) return;
  sw_fault_set(&r->exchange.fault, status, param, format, what);
  sw_route_refuse(&r->exchange);
  r->refused = 1;
  sw_buffer_close(&r->exchange.body);
}

static size_t most_body(const request *r) { return (size_t)r->http->server->options->body_megabytes << 20; }
static void refuse_size(request *r) { refuse(r, 413, NULL, "the body is larger than this server takes (%s): send fewer texts at a time", "--max-body"); }

static const char *header(const request *r, const char *name) { return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name); }

/* Without a token only this machine's own pages may ask. A page of another site can reach this address, too, under a name of its own that it lets point
 * here (DNS rebinding); its name is what Host says then, and never an address. */
static int is_own_host(const sw_serve_options *o, const char *host) {
  char name[256];
  struct in6_addr address;
  if (!host) return 1; /* HTTP/1.0, which no browser speaks */
  const int is_bracketed = *host == '[';
  const size_t bytes = is_bracketed ? strcspn(host + 1, "]") : strcspn(host, ":");
  if (bytes >= sizeof name) return 0;
  memcpy(name, host + is_bracketed, bytes);
  name[bytes] = 0;
  if (is_bracketed) return inet_pton(AF_INET6, name, &address) == 1;
  const char *colon = strrchr(o->listen, ':');
  const size_t own = colon ? (size_t)(colon - o->listen) : 0;
  return inet_pton(AF_INET, name, &address) == 1 || !strcasecmp(name, "localhost") || (own == bytes && !strncasecmp(name, o->listen, own));
}

static int is_json(const char *type) {
  static const char json[] = "application/json";
  if (!type || strncasecmp(type, json, sizeof json - 1)) return 0;
  type += sizeof json - 1;
  while (*type == ' ' || *type == '\t') type++;
  return !*type || *type == ';';
}

/* The answer to a request that is refused, while its body comes: some clients read meanwhile, others only when they have sent all of it, and would lose what they
 * have not read if the connection were closed before. So it is read, and dropped, until its end or for --receive-timeout. */
static void tell_now(request *r) {
  if (r->told || !r->client || r->http->is_tls) return;
  say_answer(r->client->socket, r->exchange.status, "", r->exchange.head.data, r->exchange.head.size);
  shutdown(r->client->socket, SHUT_WR);
  r->told = 1;
}

/* How often each header is there that says where a request ends and whom it is for. */
struct framing {
  int lengths, codings, hosts, unknown; /* unknown: a coding other than chunked */
};

static enum MHD_Result look_at_header(void *context, enum MHD_ValueKind kind, const char *name, const char *value) {
  struct framing *f = context;
  f->lengths += !strcasecmp(name, "Content-Length");
  f->hosts += !strcasecmp(name, "Host");
  if (strcasecmp(name, "Transfer-Encoding")) return MHD_YES;
  f->codings++;
  f->unknown |= !value || strcasecmp(value, "chunked");
  return MHD_YES;
}

/* Whether somebody between the client and this server could see another end of the body, or another host (RFC 9112, 3.2 and 6.3): libmicrohttpd takes one of
 * several, and goes on with what it takes for the next request. */
static int is_ambiguous(const request *r) {
  struct framing f = {0};
  MHD_get_connection_values(r->connection, MHD_HEADER_KIND, look_at_header, &f);
  return f.hosts > 1 || f.lengths + f.codings > 1 || f.unknown;
}

/* What can be said of a request before its body is there. 1: it is refused, and its body is not read. */
static int check_head(request *r) {
  sw_exchange *x = &r->exchange;
  sw_server *s = r->http->server;
  const sw_serve_options *o = s->options;
  const int is_get = !strcmp(r->method, "GET") || !strcmp(r->method, "HEAD"), is_post = !strcmp(r->method, "POST");
  const char *length = header(r, "Content-Length"), *coding = header(r, "Content-Encoding");
  if (!r->client) refuse(r, 503, NULL, "%s", "out of memory");
  if (is_ambiguous(r)) {
    refuse(r, 400, NULL, "%s", "one Host is wanted, and one Content-Length or Transfer-Encoding: chunked");
    return 1; /* what follows it may be no request: the connection ends */
  }
  if (!strcmp(r->method, "OPTIONS") && o->cors && header(r, "Origin") && header(r, "Access-Control-Request-Method")) {
    x->status = 204;
    r->refused = 1;
    return 0;
  }
  if (!o->tokens && !o->is_public && !is_own_host(o, header(r, "Host")))
    refuse(r, 421, NULL, "%s", "the request is meant for another host: ask by address or as localhost, or start the server with --tokens or --public");
  else if (!x->route) refuse(r, 404, NULL, "there is nothing at %.200s; /openapi.json says what there is", r->path);
  else if (x->route->is_post ? !is_post : !is_get) refuse(r, 405, NULL, "%.200s is not the method of this path", r->method);
  else if (!x->route->is_open && !sw_tokens_allow(&s->tokens, header(r, "Authorization")))
    refuse(r, 401, NULL, "%s", "a token is needed, as Authorization: Bearer TOKEN");
  else if (is_post && !length && !header(r, "Transfer-Encoding")) refuse(r, 411, NULL, "%s", "the request has no body: Content-Length is missing");
  else if (is_post && !is_json(header(r, "Content-Type"))) refuse(r, 415, NULL, "%s", "the body must be JSON, with Content-Type: application/json");
  else if (is_post && coding && strcasecmp(coding, "identity")) refuse(r, 415, NULL, "%s", "the body must be plain JSON, without Content-Encoding");
  const unsigned long long bytes = length ? strtoull(length, NULL, 10) : 0;
  if (bytes > most_body(r)) refuse_size(r);
  if (r->refused && bytes > READ_BODIES * most_body(r)) tell_now(r);
  return r->refused && header(r, "Expect"); /* who waits for leave to send the body waits for nothing else */
}

/* A part of the body. */
static void receive(request *r, const char *data, size_t bytes) {
  sw_exchange *x = &r->exchange;
  sw_server *s = r->http->server;
  r->bytes_in += bytes;
  if (r->refused) {
    if (r->bytes_in > READ_BODIES * most_body(r)) tell_now(r);
    return;
  }
  if (x->body.size + bytes > most_body(r)) refuse_size(r);
  else if (sw_server_reserve(s, bytes)) refuse(r, 429, NULL, "%s", "the server holds as much as it can: try again");
  else {
    x->reserved += bytes;
    if (sw_buffer_append(&x->body, data, bytes)) refuse(r, 503, NULL, "%s", "out of memory");
  }
}

/* The whole request is there. */
static enum MHD_Result answer(request *r) {
  sw_exchange *x = &r->exchange;
  sw_server *s = r->http->server;
  r->received = sw_clock();
  if (r->told) return MHD_NO;
  if (r->refused) return send_answer(r);
  if (!x->route->is_post) {
    x->status = 200;
    x->content_type = x->route->content_type ? x->route->content_type : "application/json";
    const int failed = x->route->answer ? x->route->answer(x) : sw_buffer_append(&x->head, x->route->bytes, x->route->size);
    if (failed) refuse(r, 503, NULL, "%s", "out of memory");
    return send_answer(r);
  }
  x->call.weight = x->body.size;
  x->call.deadline = r->received + s->options->timeout;
  if (!suspend(r)) { /* before anybody can resume it */
    refuse(r, 503, NULL, "%s", "the server is ending");
    return send_answer(r);
  }
  if (sw_batcher_add(s->batcher, &x->call, (size_t)s->options->queue)) {
    refuse(r, 429, NULL, "%s", "the queue is full: try again");
    resume(r);
  }
  return MHD_YES;
}

static request *begin(sw_http *h, struct MHD_Connection *connection, const char *url, const char *method, const char *version) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  request *r = calloc(1, sizeof *r);
  char *path = strdup(url), *name = strdup(method);
  if (!r || !path || !name) {
    free(r), free(path), free(name);
    return NULL;
  }
  const int route = sw_route_find(url);
  *r = (request){.exchange = {.server = h->server, .route_index = route, .route = route < 0 ? NULL : &sw_routes[route]},
                 .http = h,
                 .connection = connection,
                 .client = info ? info->socket_context : NULL,
                 .method = name,
                 .path = path,
                 .is_old = !strcmp(version, MHD_HTTP_VERSION_1_0),
                 .began = sw_clock()};
  sw_call *c = &r->exchange.call;
  c->prepare = sw_route_prepare;
  c->encode = sw_route_encode;
  c->finish = route < 0 ? NULL : sw_routes[route].finish;
  c->done = on_done;
  return r;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method, const char *version, const char *data,
                                  size_t *bytes, void **own) {
  request *r = *own;
  if (!r) {
    if (!(*own = r = begin(context, connection, url, method, version))) return MHD_NO;
    return check_head(r) ? send_answer(r) : MHD_YES;
  }
  if (r->answered) { /* too large: what comes is dropped */
    *bytes = 0;
    return MHD_YES;
  }
  if (*bytes) {
    receive(r, data, *bytes);
    *bytes = 0;
    return MHD_YES;
  }
  return r->exchange.status ? send_answer(r) : answer(r); /* the former: after the connection was suspended, or refused before */
}

static void on_completed(void *context, struct MHD_Connection *connection, void **own, enum MHD_RequestTerminationCode code) {
  sw_http *h = context;
  request *r = *own;
  if (!r) return;
  const double now = sw_clock();
  sw_exchange *x = &r->exchange;
  if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && !r->told) x->status = r->client && !r->answered && was_cut(h, r->client) ? 408 : CLIENT_CLOSED;
  sw_metrics_request(&h->server->metrics, x->route_index, x->status, now - (r->received > 0 ? r->received : r->began), x->call.count, x->call.tokens);
  log_request(r, now);
  if (r->client) set_phase(h, r->client, RECEIVING, h->server->options->receive_timeout);
  sw_exchange_clear(x);
  free(r->method);
  free(r->path);
  free(r);
  *own = NULL;
}

/* --- listening --- */

/* "host:port", with "[host]:port" for IPv6. */
static int resolve(const char *listen, struct addrinfo **out) {
  const char *colon = strrchr(listen, ':');
  char host[256], *name = host;
  const unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
  if (!colon || !colon[1] || colon[1 + strspn(colon + 1, "0123456789")] || port > 65535 || (size_t)(colon - listen) >= sizeof host || colon == listen)
    return sw_fail("--listen %s: an address and a port are wanted, as in 127.0.0.1:8080 or [::1]:8080", listen);
  memcpy(host, listen, (size_t)(colon - listen));
  host[colon - listen] = 0;
  const size_t bytes = strlen(host);
  if (host[0] == '[' && host[bytes - 1] == ']') {
    host[bytes - 1] = 0;
    name++;
  }
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  const int error = getaddrinfo(name, colon + 1, &hints, out);
  return error ? sw_fail("--listen %s: %s", listen, gai_strerror(error)) : 0;
}

static int is_loopback(const struct sockaddr *a) {
  if (a->sa_family == AF_INET) return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
  return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

int sw_http_check(const sw_serve_options *o) {
  struct addrinfo *found = NULL;
  if (resolve(o->listen, &found)) return -1;
  const int loopback = is_loopback(found->ai_addr);
  freeaddrinfo(found);
  if (loopback || o->tokens || o->is_public) return 0;
  return sw_fail("--listen %s can be reached by others, and there is no token that they must have: give --tokens FILE, or --public to let everybody ask", o->listen);
}

static int listen_at(sw_http *h, char address[128], int *port) {
  const char *wanted = h->server->options->listen;
  struct addrinfo *found = NULL;
  struct sockaddr_storage own;
  socklen_t bytes = sizeof own;
  const int on = 1;
  char host[INET6_ADDRSTRLEN];
  if (resolve(wanted, &found)) return -1;
  h->listener = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int failed = h->listener < 0 || setsockopt(h->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
               bind(h->listener, found->ai_addr, found->ai_addrlen) || listen(h->listener, BACKLOG) || getsockname(h->listener, (struct sockaddr *)&own, &bytes);
  freeaddrinfo(found);
  if (failed) return sw_fail("cannot listen at %s: %s; choose another with --listen", wanted, strerror(errno));
  const int is_6 = own.ss_family == AF_INET6;
  inet_ntop(own.ss_family, is_6 ? (const void *)&((struct sockaddr_in6 *)&own)->sin6_addr : (const void *)&((struct sockaddr_in *)&own)->sin_addr, host, sizeof host);
  *port = ntohs(is_6 ? ((struct sockaddr_in6 *)&own)->sin6_port : ((struct sockaddr_in *)&own)->sin_port);
  snprintf(address, 128, "%s://%s%s%s:%d", h->is_tls ? "https" : "http", is_6 ? "[" : "", host, is_6 ? "]" : "", *port);
  return 0;
}

/* Each connection is a file. */
static int allow_files(int connections) {
  struct rlimit limit;
  const rlim_t wanted = (rlim_t)connections + 128;
  if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= wanted) return 0;
  if (limit.rlim_max < wanted)
    return sw_fail("--connections %d: this process may open only %llu files; raise the limit (ulimit -n, LimitNOFILE=) or use fewer", connections,
                   (unsigned long long)limit.rlim_max);
  limit.rlim_cur = wanted;
  return setrlimit(RLIMIT_NOFILE, &limit) ? sw_fail("cannot open %llu files: %s", (unsigned long long)wanted, strerror(errno)) : 0;
}

static int start_daemon(sw_http *h) {
  const sw_serve_options *o = h->server->options;
  unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME;
  if (h->is_tls) flags |= MHD_USE_TLS;
  if (h->is_tls && sw_tls_load(o->certificate, o->key)) return -1;
  struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(intptr_t)sw_tls_choose},
                                 {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"},
                                 {MHD_OPTION_END, 0, NULL}};
  if (!h->is_tls) tls[0] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
  h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections + 1,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED,
                               on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_URI_LOG_CALLBACK, on_begin, h, MHD_OPTION_ARRAY, tls,
                               MHD_OPTION_END);
  return h->daemon ? 0 : sw_fail("cannot start the HTTP server: %s", strerror(errno));
}

int sw_http_open(sw_server *server, sw_http **out, char address[128], int *port) {
  sw_http *h = sw_alloc(sizeof *h);
  if (!h) return -1;
  *out = h;
  h->server = server;
  h->listener = -1;
  h->is_tls = server->options->certificate != NULL;
  pthread_mutex_init(&h->lock, NULL);
  pthread_mutex_init(&h->log_lock, NULL);
  if (open_log(server->options->access_log, &h->log) || allow_files(server->options->connections) || start_daemon(h) || listen_at(h, address, port)) return -1;
  h->ticking = !pthread_create(&h->clock, NULL, tick, h);
  h->accepting = h->ticking && !pthread_create(&h->acceptor, NULL, accept_all, h);
  return h->accepting ? 0 : sw_fail("cannot start a thread");
}

/* Whether somebody has sent what is not answered. */
static int is_busy(sw_http *h) {
  int busy = 0, unread;
  pthread_mutex_lock(&h->lock);
  for (client *c = h->clients; c && !busy; c = c->after) busy = !c->cut && (c->begun || (!ioctl(c->socket, FIONREAD, &unread) && unread > 0));
  pthread_mutex_unlock(&h->lock);
  return busy;
}

int sw_http_drain(sw_http *h) {
  atomic_store(&h->server->draining, 1);
  pthread_join(h->acceptor, NULL);
  h->accepting = 0;
  close(h->listener);
  h->listener = -1;
  h->drained = sw_clock() + h->server->options->timeout + h->server->options->receive_timeout;
  for (int quiet = 0; quiet < 3 && sw_clock() < h->drained; quiet = is_busy(h) ? 0 : quiet + 1) usleep(TICK_MS * 1000);
  return !is_busy(h);
}

/* From here on requests are refused, so that nothing is suspended when libmicrohttpd is stopped; whoever rests between two is sent away. */
static void end_clients(sw_http *h) {
  const double soon = sw_clock() + LAST_WORDS, until = soon > h->drained ? soon : h->drained;
  for (int left = 1; left;) {
    const int late = sw_clock() >= until;
    if (late) sw_batcher_expire(h->server->batcher, HUGE_VAL);
    pthread_mutex_lock(&h->lock);
    h->ending = 1;
    for (client *c = h->clients; c; c = c->after)
      if (!c->begun) shutdown(c->socket, SHUT_RD);
    left = h->computing || (h->clients && !late);
    pthread_mutex_unlock(&h->lock);
    if (left) usleep(TICK_MS * 100);
  }
}

void sw_http_close(sw_http *h) {
  if (!h) return;
  if (h->accepting) {
    atomic_store(&h->server->draining, 1);
    pthread_join(h->acceptor, NULL);
  }
  if (h->listener >= 0) close(h->listener);
  if (h->daemon) end_clients(h);
  if (h->ticking) {
    atomic_store(&h->stop, 1);
    pthread_join(h->clock, NULL);
  }
  if (h->daemon) MHD_stop_daemon(h->daemon);
  sw_tls_close();
  if (h->log && h->log != stdout) fclose(h->log);
  pthread_mutex_destroy(&h->lock);
  pthread_mutex_destroy(&h->log_lock);
  free(h);
}
