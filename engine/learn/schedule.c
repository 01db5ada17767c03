#include "engine/learn/schedule.h"
#include "base/error.h"

#include <math.h>
#include <string.h>

int sw_schedule_parse(const char *name, sw_schedule_kind *out) {
  static const char *const names[] = {"linear", "cosine", "constant"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(name, names[i])) {
      *out = (sw_schedule_kind)i;
      return 0;
    }
  return sw_fail("--schedule %s: use linear, cosine or constant", name);
}

double sw_schedule_rate(const sw_schedule *schedule, int64_t step) {
  if (step < schedule->warmup) return schedule->peak * (double)step / (double)schedule->warmup;
  if (schedule->kind == SW_SCHEDULE_CONSTANT) return schedule->peak;
  int64_t span = schedule->total - schedule->warmup;
  double part = span > 0 ? (double)(step - schedule->warmup) / (double)span : 1;
  if (part > 1) part = 1;
  return schedule->peak * (schedule->kind == SW_SCHEDULE_LINEAR ? 1 - part : 0.5 * (1 + cos(M_PI * part)));
}
