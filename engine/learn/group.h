/* The processes of one training run, started by mpirun: each has the whole model and a part of every batch, and what they found out is added up.
 *
 * A sum is made in the order of the ranks, so that it has the same bits on every process and in every run: each process receives all others'
 * values of its own share of the elements, adds them up, and the shares are gathered (reduce-scatter, then all-gather).
 *
 * MPI is a module of its own (skillwatch_mpi.so) that is opened where there is more than one process. One thread makes all calls to it, in the
 * order in which they were asked for, so that sums go on while the caller computes. All processes must ask for the same things in the same
 * order. A NULL group is one process: then every function does nothing. Where a process dies, mpirun ends the others. */
#ifndef SW_LEARN_GROUP_H
#define SW_LEARN_GROUP_H
#include "kernels/backend.h"
#include <stddef.h>

typedef struct sw_group sw_group;

/* *out = NULL without a launcher. */
int sw_group_open(sw_group **out);
/* Waits for the others. */
void sw_group_close(sw_group *group);
/* Ends all processes of the job, this one too, with this exit status. */
void sw_group_abort(sw_group *group, int status);
int sw_group_rank(const sw_group *group); /* 0 of 1 for NULL */
int sw_group_size(const sw_group *group);

/* The sums replace the values, on every process. */
int sw_group_sum(sw_group *group, double *values, size_t count);
/* The same, under way when it returns: nothing may touch the values before sw_group_wait. */
int sw_group_start_sum(sw_group *group, float *values, size_t count);
int sw_group_wait(sw_group *group);
/* The devices of all processes join, where all have the means (sw_collectives): from then on the optimizer's gradients go from device to device.
 * *why, static memory: NULL, or why they go by way of the host (everywhere then; a process on the CPU is never asked why). */
int sw_group_join(sw_group *group, sw_device *device, const char **why);
int sw_group_joined(const sw_group *group);
/* Rank 0's bytes to all. */
int sw_group_broadcast(sw_group *group, void *data, size_t bytes);
/* all [size][bytes]: what each process gave, by rank. `bytes` is the same everywhere. */
int sw_group_gather(sw_group *group, const void *mine, size_t bytes, void *all);

/* What the module brings: plain collective operations that return when they are done, called from one thread. */
#define SW_TRANSPORT_API 1
typedef struct {
  int api;
  int (*open)(int *rank, int *size); /* -1 with sw_error() set */
  void (*exchange)(const void *send, void *receive, int bytes); /* `bytes` to and from each process, by rank */
  void (*gather)(const void *mine, void *all, int bytes);
  void (*broadcast)(void *data, int bytes);
  void (*abort)(int status);
  void (*close)(void);
} sw_transport;
#define SW_TRANSPORT_SYMBOL "sw_transport_module"
#endif
