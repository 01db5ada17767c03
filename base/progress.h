/* A progress bar on stderr: only on a terminal, ten times a second at most, one line. */
#ifndef SW_BASE_PROGRESS_H
#define SW_BASE_PROGRESS_H

typedef struct {
  const char *what;  /* "tag", "epoch 2/3" */
  double total;      /* 0 = unknown */
  double start, last; /* seconds of the monotonic clock */
  int enabled;
} sw_progress;

void sw_progress_open(sw_progress *progress, const char *what, double total, int quiet);
/* `details` (may be NULL): "loss 0.123  4512 tokens/s" */
void sw_progress_show(sw_progress *progress, double done, const char *details);
void sw_progress_close(sw_progress *progress);
/* Seconds of the monotonic clock. */
double sw_clock(void);
#endif
