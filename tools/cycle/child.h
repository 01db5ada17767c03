/* One step's program as a child process, as a person would start it: the skillwatch beside this program, in the present folder. */
#ifndef SW_CYCLE_CHILD_H
#define SW_CYCLE_CHILD_H
#include "base/buffer.h"
#include <jansson.h>

/* From now on signals that end the run are kept until a child waits, or cycle_stopped asks. To be called once, at the start. */
int cycle_keep_signals(void);
/* 1 where one of them has come. */
int cycle_stopped(void);

typedef enum { CHILD_ENDED, CHILD_STOPPED, CHILD_TOO_LONG, CHILD_DIED } child_end;

typedef struct {
  child_end end; /* STOPPED: a signal to us, which it was sent as SIGTERM; TOO_LONG: its time was over; DIED: by a signal of its own */
  int status;    /* ENDED: its exit status; DIED: the signal */
} child_result;

typedef struct {
  const char *log; /* standard error, and standard output without `out`, are appended to this file */
  const char *out; /* NULL, or the file that standard output goes to; `append`: after what it holds */
  int append;
  double seconds; /* it may take; 0: any */
  int lock;       /* a descriptor that it keeps open, so that a lock is held as long as anything is at work */
} child_options;

/* Runs "skillwatch <arguments>" (a JSON array of texts). -1 where it cannot be started. Should this process die, the child gets SIGTERM. */
int cycle_run(const json_t *arguments, const child_options *options, child_result *out);
/* The same, its standard output to `out`; fails with what it said where it does not end with 0. */
int cycle_ask(const json_t *arguments, sw_buffer *out);
#endif
