/* MPI behind engine/learn/group.h: a module, so that programs run where there is none. */
#include "base/error.h"
#include "engine/learn/group.h"

#include <mpi.h>
#include <sched.h>
#include <time.h>

/* Blocking calls of MPI keep a core busy, which the operators want: the wait yields, and soon sleeps. */
static void complete(MPI_Request *request) {
  const struct timespec nap = {.tv_nsec = 30000};
  int done = 0;
  for (int tries = 0; MPI_Test(request, &done, MPI_STATUS_IGNORE), !done; tries++) {
    if (tries < 100)
      sched_yield();
    else
      nanosleep(&nap, NULL);
  }
}

static int open_mpi(int *rank, int *size) {
  int given;
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given)) return sw_fail("MPI does not start");
  if (given < MPI_THREAD_FUNNELED) return sw_fail("this MPI is built without threads (MPI_THREAD_FUNNELED is needed)");
  MPI_Comm_rank(MPI_COMM_WORLD, rank);
  MPI_Comm_size(MPI_COMM_WORLD, size);
  return 0;
}

static void exchange(const void *send, void *receive, int bytes) {
  MPI_Request request;
  MPI_Ialltoall(send, bytes, MPI_BYTE, receive, bytes, MPI_BYTE, MPI_COMM_WORLD, &request);
  complete(&request);
}

static void gather(const void *mine, void *all, int bytes) {
  MPI_Request request;
  MPI_Iallgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, MPI_COMM_WORLD, &request);
  complete(&request);
}

static void broadcast(void *data, int bytes) {
  MPI_Request request;
  MPI_Ibcast(data, bytes, MPI_BYTE, 0, MPI_COMM_WORLD, &request);
  complete(&request);
}

static void abort_all(int status) { MPI_Abort(MPI_COMM_WORLD, status); }

static void close_mpi(void) {
  MPI_Request request;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  complete(&request);
  MPI_Finalize();
}

__attribute__((visibility("default"))) const sw_transport sw_transport_module = {
    .api = SW_TRANSPORT_API, .open = open_mpi, .exchange = exchange, .gather = gather, .broadcast = broadcast, .abort = abort_all, .close = close_mpi};
