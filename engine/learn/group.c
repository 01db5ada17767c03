#include "engine/learn/group.h"
#include "base/error.h"
#include "base/launch.h"
#include "kernels/module.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WAITING = 256, PIECE = 1 << 18, MOST_BYTES = 1 << 26 }; /* requests; elements of a share, and bytes of a message, at a time */

typedef enum { SUM_DOUBLES, SUM_FLOATS, BROADCAST, GATHER, END, ABORT } operation;
typedef struct {
  operation operation;
  void *data, *all;
  size_t count;
} request;

struct sw_group {
  const sw_transport *transport;
  int rank, size;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  request queue[WAITING]; /* of requests first .. last - 1, request n is queue[n % WAITING] */
  size_t first, last;
  int opened; /* 1: the thread takes requests; -1: it could not begin */
  int joined; /* the devices */
  char *error;
  void *send, *receive, *sum;
};

/* --- in the thread that speaks with the others --- */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* `add` of a share: the values of one rank to those of the ranks before. */
static void add_floats(void *sum, const void *values, size_t count) {
  float *s = sum;
  const float *v = values;
  for (size_t i = 0; i < count; i++) s[i] += v[i];
}
static void add_doubles(void *sum, const void *values, size_t count) {
  double *s = sum;
  const double *v = values;
  for (size_t i = 0; i < count; i++) s[i] += v[i];
}

static void add_up(sw_group *g, void *values, size_t count, size_t bytes, void (*add)(void *sum, const void *values, size_t count)) {
  const size_t ranks = (size_t)g->size;
  for (size_t at = 0; at < count; at += ranks * PIECE) {
    const size_t here = smaller(count - at, ranks * PIECE), share = (here + ranks - 1) / ranks;
    char *from = (char *)values + at * bytes, *all = g->receive;
    const void *send = from;
    if (share * ranks != here) { /* the last share is filled up */
      memcpy(g->send, from, here * bytes);
      memset((char *)g->send + here * bytes, 0, (share * ranks - here) * bytes);
      send = g->send;
    }
    g->transport->exchange(send, all, (int)(share * bytes));
    memcpy(g->sum, all, share * bytes);
    for (size_t r = 1; r < ranks; r++) add(g->sum, all + r * share * bytes, share);
    g->transport->gather(g->sum, all, (int)(share * bytes));
    memcpy(from, all, here * bytes);
  }
}

static void gather(sw_group *g, const char *mine, size_t bytes, char *all) {
  const size_t most = PIECE * sizeof(double);
  for (size_t at = 0; at < bytes; at += most) {
    const size_t here = smaller(bytes - at, most);
    g->transport->gather(mine + at, g->receive, (int)here);
    for (size_t r = 0; r < (size_t)g->size; r++) memcpy(all + r * bytes + at, (char *)g->receive + r * here, here);
  }
}

static void broadcast(sw_group *g, char *data, size_t bytes) {
  for (size_t at = 0; at < bytes; at += MOST_BYTES) g->transport->broadcast(data + at, (int)smaller(bytes - at, MOST_BYTES));
}

static void serve(sw_group *g, const request *r) {
  switch (r->operation) {
  case SUM_FLOATS: add_up(g, r->data, r->count, sizeof(float), add_floats); break;
  case SUM_DOUBLES: add_up(g, r->data, r->count, sizeof(double), add_doubles); break;
  case BROADCAST: broadcast(g, r->data, r->count); break;
  case GATHER: gather(g, r->data, r->count, r->all); break;
  case ABORT: g->transport->abort((int)r->count); break;
  case END: g->transport->close(); break;
  }
}

static void *speak(void *context) {
  sw_group *g = context;
  const int status = g->transport->open(&g->rank, &g->size);
  pthread_mutex_lock(&g->lock);
  if (status) g->error = strdup(sw_error());
  g->opened = status ? -1 : 1;
  pthread_cond_broadcast(&g->changed);
  for (int ended = status; !ended;) {
    while (g->first == g->last) pthread_cond_wait(&g->changed, &g->lock);
    const request r = g->queue[g->first % WAITING];
    pthread_mutex_unlock(&g->lock);
    serve(g, &r);
    ended = r.operation == END;
    pthread_mutex_lock(&g->lock);
    g->first++;
    pthread_cond_broadcast(&g->changed);
  }
  pthread_mutex_unlock(&g->lock);
  return NULL;
}

/* --- the caller's side --- */

static void ask(sw_group *g, operation what, void *data, size_t count, void *all) {
  pthread_mutex_lock(&g->lock);
  while (g->last - g->first == WAITING) pthread_cond_wait(&g->changed, &g->lock);
  g->queue[g->last++ % WAITING] = (request){what, data, all, count};
  pthread_cond_broadcast(&g->changed);
  pthread_mutex_unlock(&g->lock);
}

int sw_group_wait(sw_group *g) {
  if (!g) return 0;
  pthread_mutex_lock(&g->lock);
  while (g->first != g->last) pthread_cond_wait(&g->changed, &g->lock);
  pthread_mutex_unlock(&g->lock);
  return 0;
}

int sw_group_rank(const sw_group *g) { return g ? g->rank : 0; }
int sw_group_size(const sw_group *g) { return g ? g->size : 1; }

static void release(sw_group *g) {
  pthread_cond_destroy(&g->changed);
  pthread_mutex_destroy(&g->lock);
  free(g->error);
  free(g->send);
  free(g->receive);
  free(g->sum);
  free(g);
}

int sw_group_open(sw_group **out) {
  *out = NULL;
  const int size = sw_launched()->size;
  if (size < 2) return 0;
  const sw_transport *transport = sw_module_symbol("mpi", SW_TRANSPORT_SYMBOL);
  if (!transport) return sw_fail_in("this run has %d processes", size);
  if (transport->api != SW_TRANSPORT_API) return sw_fail("the module for MPI is of another version of this program: install both from the same one");
  sw_group *g = sw_alloc(sizeof *g);
  if (!g) return -1;
  g->transport = transport;
  pthread_mutex_init(&g->lock, NULL);
  pthread_cond_init(&g->changed, NULL);
  const size_t room = (size_t)size * PIECE * sizeof(double);
  g->send = sw_alloc_aligned(room);
  g->receive = sw_alloc_aligned(room);
  g->sum = sw_alloc_aligned(PIECE * sizeof(double));
  int status = g->send && g->receive && g->sum ? 0 : -1;
  if (!status && pthread_create(&g->thread, NULL, speak, g)) status = sw_fail("cannot start the thread that speaks with the other processes");
  if (status) {
    release(g);
    return -1;
  }
  pthread_mutex_lock(&g->lock);
  while (!g->opened) pthread_cond_wait(&g->changed, &g->lock);
  pthread_mutex_unlock(&g->lock);
  if (g->opened > 0 && g->size != size) {
    sw_fail("mpirun says %d processes, MPI %d: it is another MPI than the one this program was built with", size, g->size);
    sw_group_close(g);
    return -1;
  }
  if (g->opened < 0) {
    pthread_join(g->thread, NULL);
    sw_fail("%s", g->error ? g->error : "out of memory");
    release(g);
    return -1;
  }
  *out = g;
  return 0;
}

void sw_group_close(sw_group *g) {
  if (!g) return;
  ask(g, END, NULL, 0, NULL);
  pthread_join(g->thread, NULL);
  release(g);
}

void sw_group_abort(sw_group *g, int status) {
  if (!g) return;
  ask(g, ABORT, NULL, (size_t)status, NULL);
  pause(); /* mpirun ends this process, too; where a sum is waiting for a process that is gone, it has noticed that already */
  _exit(status);
}

int sw_group_sum(sw_group *g, double *values, size_t count) {
  if (!g) return 0;
  ask(g, SUM_DOUBLES, values, count, NULL);
  return sw_group_wait(g);
}

int sw_group_start_sum(sw_group *g, float *values, size_t count) {
  if (g && count) ask(g, SUM_FLOATS, values, count, NULL);
  return 0;
}

int sw_group_broadcast(sw_group *g, void *data, size_t bytes) {
  if (!g) return 0;
  ask(g, BROADCAST, data, bytes, NULL);
  return sw_group_wait(g);
}

int sw_group_gather(sw_group *g, const void *mine, size_t bytes, void *all) {
  if (!g) {
    memcpy(all, mine, bytes);
    return 0;
  }
  ask(g, GATHER, (void *)mine, bytes, all);
  return sw_group_wait(g);
}

/* Whether all succeeded; otherwise `why` is the reason of the first that did not. */
static int agree(sw_group *g, int status, char why[256]) {
  const size_t ranks = (size_t)g->size;
  char own[256] = "", *all = sw_alloc_array(ranks, sizeof own);
  if (status) snprintf(own, sizeof own, "%s", sw_error());
  if (!all || sw_group_gather(g, own, sizeof own, all)) {
    free(all);
    return -1;
  }
  *why = 0;
  for (size_t r = ranks; r-- > 0;)
    if (all[r * sizeof own]) memcpy(why, all + r * sizeof own, sizeof own);
  free(all);
  return 0;
}

int sw_group_join(sw_group *g, sw_device *device, const char **why) {
  static char reason[256];
  char id[SW_COLLECTIVE_ID] = "";
  *why = NULL;
  if (!g) return 0;
  const sw_collectives *c = device->collectives;
  if (agree(g, c ? c->make_id(device, NULL) : sw_fail("%s has no sums between devices", device->backend), reason)) return -1;
  if (!*reason && agree(g, g->rank ? 0 : c->make_id(device, id), reason)) return -1;
  if (!*reason && (sw_group_broadcast(g, id, sizeof id) || agree(g, c->join(device, id, g->rank, g->size), reason))) return -1;
  g->joined = !*reason;
  if (*reason && strcmp(device->backend, "cpu")) *why = reason;
  return 0;
}
int sw_group_joined(const sw_group *g) { return g && g->joined; }
