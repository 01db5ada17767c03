/* Several processes over one input: --shard I/N (an array of jobs), or the ranks of mpirun.
 *
 * Every process reads the whole input and does every N-th chunk of it. Its results are a journal, "<out>.part-I-of-N.partial", which is renamed
 * to "<out>.part-I-of-N" when its last chunk is in it. Whoever ends last joins the parts, in input order, into what one process would have
 * written, and removes them. "<out>.joined" is there while it does: who is killed then leaves the rest to the next run. */
#ifndef SW_INFER_SHARDS_H
#define SW_INFER_SHARDS_H
#include "base/lock.h"
#include "engine/store/journal.h"

typedef struct {
  int index, count;    /* this process's, from 0; 0 of 1 where there is no other */
  const char *output;  /* borrowed */
  char *identity;      /* owned: what all parts share */
  sw_journal *parts;   /* [count], open while they are joined */
  sw_lock lock;
} sw_shards;

/* What the option says ("2/4"), or, where it is NULL, the launcher. -1: wrong usage. */
int sw_shards_parse(const char *option, int *index, int *count);
/* "<out>.part-I-of-N"; free() it. */
char *sw_shards_path(const sw_shards *shards, int index);
/* Removes what a process that was killed left of parts that it had joined. 1: they were those of this very run, which is done; 0: there is nothing, or it
 * is of another run; -1: failure. */
int sw_shards_clear(sw_shards *shards);
/* Opens all parts, for whoever is to join them: 1: this process; 0: some are missing, or another process has joined or joins them; then a line
 * on standard error says what is left to do, unless quiet. -1: failure. */
int sw_shards_gather(sw_shards *shards, int quiet);
/* `joined`: the output is written, the parts go away. */
void sw_shards_close(sw_shards *shards, int joined);
#endif
