/* tool-group, under mpirun: what the processes of a group tell each other, against the same by hand. Prints "right" once a process. */
#include "base/error.h"
#include "engine/learn/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What rank r has at place i: numbers whose sum depends on its order. */
static float value(int r, size_t i) { return (float)(i % 977) * 0.1f + 1e4f / (float)(1 + (i * 31 + (size_t)r * 7) % 101) * (r % 2 ? -1.0f : 1.0f); }

static int sums(sw_group *g, size_t count) {
  float *values = sw_alloc_array(count, sizeof *values);
  double *doubles = sw_alloc_array(count, sizeof *doubles);
  int status = values && doubles ? 0 : -1;
  for (size_t i = 0; !status && i < count; i++) doubles[i] = values[i] = value(sw_group_rank(g), i);
  const size_t half = count / 3; /* two at once */
  if (!status) status = sw_group_start_sum(g, values + half, count - half) || sw_group_start_sum(g, values, half) || sw_group_wait(g) || sw_group_sum(g, doubles, count);
  for (size_t i = 0; !status && i < count; i++) {
    float sum = value(0, i);
    double exact = value(0, i);
    for (int r = 1; r < sw_group_size(g); r++) sum += value(r, i), exact += value(r, i);
    if (memcmp(&sum, &values[i], sizeof sum) || exact != doubles[i])
      status = sw_fail("%zu values: at %zu the sum is %g and %g, not %g and %g", count, i, (double)values[i], doubles[i], (double)sum, exact);
  }
  free(values);
  free(doubles);
  return status;
}

static int bytes(sw_group *g, size_t count) {
  const size_t ranks = (size_t)sw_group_size(g);
  unsigned char *mine = sw_alloc_array(count, 1), *all = sw_alloc_array(count, ranks);
  int status = mine && all ? 0 : -1;
  for (size_t i = 0; !status && i < count; i++) mine[i] = (unsigned char)(i * 7 + (size_t)sw_group_rank(g));
  if (!status) status = sw_group_gather(g, mine, count, all) || sw_group_broadcast(g, mine, count);
  for (size_t i = 0; !status && i < count; i++) {
    for (size_t r = 0; r < ranks; r++)
      if (all[r * count + i] != (unsigned char)(i * 7 + r)) status = sw_fail("gathered %zu bytes: rank %zu's byte %zu is another", count, r, i);
    if (mine[i] != (unsigned char)(i * 7)) status = sw_fail("sent %zu bytes: byte %zu is another", count, i);
  }
  free(mine);
  free(all);
  return status;
}

int main(void) {
  sw_group *g;
  int status = sw_group_open(&g);
  const size_t counts[] = {1, 2, 3, 1000, 262144, 524288, 524289, 1600003};
  for (size_t i = 0; !status && i < sizeof counts / sizeof *counts; i++) status = sums(g, counts[i]) || bytes(g, 2 * counts[i]);
  if (status) fprintf(stderr, "%s\n", sw_error());
  sw_group_close(g);
  if (!status) puts("right");
  return status ? 1 : 0;
}
