#include "infer/shards.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

static int path_of(const sw_shards *s, const char *ending, sw_buffer *out) { return sw_buffer_print(out, "%s%s", s->output, ending); }

/* While it is held nobody else joins parts, or removes them. */
static int take_lock(sw_shards *s) {
  sw_buffer path = {0};
  const int held = path_of(s, ".join.lock", &path) ? -1 : sw_lock_take(path.data, &s->lock);
  sw_buffer_close(&path);
  return held;
}

/* --- parts that were joined --- */

/* "<out>.joined" says how many there are and of what run. */
static int write_note(const sw_shards *s) {
  sw_buffer path = {0};
  sw_output out = {0};
  int status = path_of(s, ".joined", &path) ? -1 : sw_output_open(&out, path.data);
  sw_buffer_close(&path);
  if (!status && fprintf(out.file, "%d %s", s->count, s->identity) >= 0) return sw_output_commit(&out);
  sw_output_abandon(&out);
  return -1;
}

static void remove_parts(const sw_shards *s) {
  sw_buffer note = {0};
  for (int i = 0; i < s->count; i++) {
    char *path = sw_shards_path(s, i);
    if (path) unlink(path);
    free(path);
  }
  if (!path_of(s, ".joined", &note)) unlink(note.data);
  sw_buffer_close(&note);
}

int sw_shards_clear(sw_shards *s) {
  static const struct timespec moment = {.tv_nsec = 10000000};
  sw_buffer path = {0}, note = {0};
  int status = path_of(s, ".joined", &path) ? -1 : 0, held = 0, same = 0;
  while (!status && sw_exists(path.data) && (held = take_lock(s)) > 0) nanosleep(&moment, NULL); /* who removes them is soon done */
  if (held < 0) status = -1;
  if (!status && s->lock.path && sw_exists(path.data)) {
    sw_shards old = *s;
    char *rest = NULL;
    status = sw_file_read(path.data, 0, &note);
    if (!status) old.count = (int)strtol(note.data, &rest, 10);
    if (!status && old.count > 0 && old.count <= MOST_SHARDS) {
      same = old.count == s->count && *rest == ' ' && !strcmp(rest + 1, s->identity);
      remove_parts(&old);
    }
  }
  sw_lock_release(&s->lock);
  sw_buffer_close(&path);
  sw_buffer_close(&note);
  return status ? -1 : same;
}

/* --- joining --- */

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
    close_parts(s);
    held = take_lock(s);
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
  for (int i = 0; s->parts && i < s->count; i++) sw_journal_close(&s->parts[i], 0);
  if (joined) {
    write_note(s); /* without it, on a full disk, a kill right now would leave some of them: no reason to keep all */
    remove_parts(s);
  }
  free(s->parts);
  free(s->identity);
  sw_lock_release(&s->lock);
  *s = (sw_shards){0};
}
