/* What a long run has done so far, beside its destination ("<out>.partial"): records that are whole or not there, so
 * that a run that was killed goes on after its last whole record. Record: counters, an opaque payload, and a checksum
 * over both. The first record says what run it is (a JSON text): another model, other options or other inputs do not
 * fit, and begin anew; the first record overwrites, so that a run that fails at once has destroyed nothing.
 *
 * The journal is locked while it is open: a second run for the same destination fails. */
#ifndef SW_STORE_JOURNAL_H
#define SW_STORE_JOURNAL_H
#include "base/buffer.h"
#include <stddef.h>
#include <stdint.h>

enum { SW_JOURNAL_COUNTERS = 4 };

typedef struct {
  int file;
  int removable;  /* it is ours, and holds nothing but what this run put there */
  char *identity; /* not NULL: nothing of this run is in the file yet, what it held before still is */
  char *path;
  uint64_t end;   /* bytes of whole records: where the next one goes */
  uint64_t first; /* where the records of payload begin */
  uint64_t at;    /* where the record lies that was appended last, or that a replay is at */
  uint64_t records;
  uint64_t totals[SW_JOURNAL_COUNTERS]; /* sums of the counters of all records */
} sw_journal;

/* Opens or makes <out>.partial. `identity`: a text that is the same for the same run. `resume`: 0 begins anew without
 * looking. *why (may be NULL) is set to a constant text when an existing journal is not continued, otherwise to NULL.
 * Fails where it cannot be written or another process has it. */
int sw_journal_open(const char *out, const char *identity, int resume, sw_journal *journal, const char **why);
/* Appends one record; on failure (full disk) the journal ends with the record before. */
int sw_journal_append(sw_journal *journal, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload,
                      size_t bytes);
typedef int sw_journal_each(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes);
/* Replaces `payload` by that of the record at `at`, which journal->at was once. */
int sw_journal_read(const sw_journal *journal, uint64_t at, sw_buffer *payload);
/* Calls `each` with every payload, in order. */
int sw_journal_replay(sw_journal *journal, sw_journal_each *each, void *context);
/* The same for several journals, whose records come in turn: the first of each, then the second of each, and so on. Their numbers of
 * records must fit that. */
int sw_journal_replay_in_turn(sw_journal *journals, int count, sw_journal_each *each, void *context);
/* Nothing will follow: marks the end, and the journal is renamed to `path` and closed. */
int sw_journal_finish(sw_journal *journal, const char *path);
/* Opens, for reading, what sw_journal_finish left, and looks at all of it. 1: it is whole and has this identity; 0: there is none, or one of
 * another identity; -1: it is damaged or cannot be read. */
int sw_journal_open_finished(const char *path, const char *identity, sw_journal *journal);
/* The records stay for the next run, unless there are none. `done`: the destination is written, the journal goes away.
 */
void sw_journal_close(sw_journal *journal, int done);
#endif
