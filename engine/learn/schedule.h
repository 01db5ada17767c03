/* Learning rates by step, as transformers' get_{linear,cosine,constant}_schedule_with_warmup. */
#ifndef SW_LEARN_SCHEDULE_H
#define SW_LEARN_SCHEDULE_H
#include <stdint.h>

typedef enum { SW_SCHEDULE_LINEAR, SW_SCHEDULE_COSINE, SW_SCHEDULE_CONSTANT } sw_schedule_kind;

typedef struct {
  sw_schedule_kind kind;
  double peak;           /* learning rate after warm-up */
  int64_t warmup, total; /* steps */
} sw_schedule;

/* "linear", "cosine" or "constant"; -1 with the message set otherwise. */
int sw_schedule_parse(const char *name, sw_schedule_kind *out);
/* The learning rate of update `step`, from 0. */
double sw_schedule_rate(const sw_schedule *schedule, int64_t step);
#endif
