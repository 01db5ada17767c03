#include "base/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double sw_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sw_progress_open(sw_progress *progress, const char *what, double total, int quiet) {
  *progress = (sw_progress){.what = what, .total = total, .start = sw_clock(), .enabled = !quiet && isatty(STDERR_FILENO)};
}

void sw_progress_show(sw_progress *progress, double done, const char *details) {
  if (!progress->enabled) return;
  double now = sw_clock(), elapsed = now - progress->start;
  if (now - progress->last < 0.1) return;
  progress->last = now;
  fprintf(stderr, "\r\033[K%s ", progress->what);
  if (progress->total > 0) {
    double part = done / progress->total;
    if (part > 1) part = 1;
    fputc('[', stderr);
    for (int i = 0; i < 24; i++) fputc(i < (int)(part * 24) ? '=' : i == (int)(part * 24) ? '>' : ' ', stderr);
    fprintf(stderr, "] %3.0f%%", 100 * part);
    if (part > 0 && elapsed > 1) {
      int left = (int)(elapsed / part - elapsed + 0.5);
      fprintf(stderr, "  ETA %d:%02d:%02d", left / 3600, left / 60 % 60, left % 60);
    }
  } else {
    fprintf(stderr, "%.0f", done);
  }
  if (details) fprintf(stderr, "  %s", details);
  fflush(stderr);
}

void sw_progress_close(sw_progress *progress) {
  if (progress->enabled) fprintf(stderr, "\r\033[K");
  progress->enabled = 0;
}
