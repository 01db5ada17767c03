#include "infer/shards.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_SHARDS = 500 }; /* as many files are open at once */

int sw_shards_parse(const char *option, int *index, int *count) {
  const sw_launch *launch = sw_launched();
  char end;
  *index = launch->rank;
  *count = launch->size;
  if (option) {
    if (launch->size > 1) return sw_fail("--shard %s: mpirun has dealt out the work already; leave out one of the two", option);
    if (sscanf(option, "%d/%d%c", index, count, &end) != 2 || *index < 1 || *index > *count)
      return sw_fail("--shard %s: I/N was expected, with I from 1 to N: 1/4 to 4/4", option);
    --*index;
  }
  return *count <= MOST_SHARDS ? 0 : sw_fail("%d processes are too many for one output (at most %d)", *count, MOST_SHARDS);
}

char *sw_shards_path(const sw_shards *s, int index) {
  sw_buffer path = {0};
  if (!sw_buffer_print(&path, "%s.part-%d-of-%d", s->output, index + 1, s->count)) return sw_buffer_take(&path);
  sw_buffer_close(&path);
  return NULL;
}

/* The number of parts that are not there; their names in `names`. -1: failure. */
static int open_parts(sw_shards *s, sw_buffer *names) {
  int missing = 0;
  for (int i = 0; i < s->count; i++) {
    char *path = sw_shards_path(s, i);
    const int status = path ? sw_journal_open_finished(path, s->identity, &s->parts[i]) : -1;
    free(path);
    if (status < 0) return -1;
    if (status == 0 && sw_buffer_print(names, "%s%d/%d", missing++ ? ", " : "", i + 1, s->count)) return -1;
  }
  return missing;
}

static void close_parts(sw_shards *s) {
  for (int i = 0; i < s->count; i++) sw_journal_close(&s->parts[i], 0);
}

int sw_shards_gather(sw_shards *s, int quiet) {
  sw_buffer names = {0};
  if (!(s->parts = sw_alloc_array((unsigned long)s->count, sizeof *s->parts))) return -1;
  for (int i = 0; i < s->count; i++) s->parts[i].file = -1;
  int missing = open_parts(s, &names), held = missing > 0 && s->parts[s->index].file < 0; /* its own is gone: joined already */
  if (missing == 0) { /* before another one does: looked at again under the lock */
    sw_buffer path = {0};
    close_parts(s);
    held = sw_buffer_print(&path, "%s.join.lock", s->output) ? -1 : sw_lock_take(path.data, &s->lock);
    sw_buffer_close(&path);
    sw_buffer_clear(&names);
    missing = held < 0 ? -1 : held > 0 ? 1 : open_parts(s, &names);
    if (missing > 0 && held == 0) held = 1; /* joined since, and removed */
  }
  if (missing > 0) close_parts(s);
  if (missing > 0 && !quiet) {
    if (held)
      fprintf(stderr, "skillwatch: %s: another shard joins the parts\n", s->output);
    else
      fprintf(stderr, "skillwatch: %s: shard %d/%d is done; the last to end joins all, missing: %s\n", s->output, s->index + 1, s->count, names.data);
  }
  sw_buffer_close(&names);
  return missing < 0 ? -1 : missing == 0;
}

void sw_shards_close(sw_shards *s, int joined) {
  for (int i = 0; s->parts && i < s->count; i++) {
    if (joined && s->parts[i].path) unlink(s->parts[i].path);
    sw_journal_close(&s->parts[i], 0);
  }
  free(s->parts);
  free(s->identity);
  sw_lock_release(&s->lock);
  *s = (sw_shards){0};
}
