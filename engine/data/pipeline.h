/* Bulk inference over streamed postings, in bounded memory and in input order:
 *
 *   reader thread -> chunks of texts -> worker threads: encode slices, run packed batches, finish slices
 *   -> caller's thread: write, in order
 *
 * A text becomes zero or more pieces (token sequences). The pieces of a chunk are sorted by length, packed into batches
 * by token budget and run; pieces with the same tokens are run once, within a chunk and, through a bounded cache,
 * across chunks. Operators give one sequence the same bits in any batch, so results do not depend on threads, batch
 * size, order or that cache. At most three chunks exist at a time. */
#ifndef SW_DATA_PIPELINE_H
#define SW_DATA_PIPELINE_H
#include "base/buffer.h"
#include "engine/data/postings.h"
#include "engine/model/model.h"

/* One token sequence. Two pieces with the same ids and reads have the same result. */
typedef struct {
  const int32_t *ids;   /* [length], with [CLS] and [SEP] */
  const int32_t *reads; /* [num_reads] increasing token positions whose outputs are wanted; none where all is pooled */
  float *result;        /* [outputs]; set before run and finish. Pieces that are the same share it */
  int32_t length;
  uint32_t num_reads, outputs;
  uint32_t item; /* index of its text in the chunk */
  uint64_t hash;
} sw_piece;

/* One text of the stream. */
typedef struct {
  sw_posting posting;
  const sw_piece *pieces; /* its pieces, in order; valid in finish and write */
  uint32_t num_pieces;
  int truncated; /* set by encode */
  void *extra;   /* encode's own, for finish; released with free() */
} sw_item;

/* -1 where one of the values is no finite number; the message names the text. */
int sw_item_check_finite(const float *values, size_t count, const sw_item *item);

/* Where encode puts the pieces of a text. Zeroed at first. */
typedef struct {
  sw_piece *items;
  size_t count, capacity;
  int32_t *numbers; /* ids then reads of each piece, one after the other; moves while it grows */
  size_t numbers_count, numbers_capacity;
  uint32_t item; /* the text that is being encoded */
} sw_pieces;
int sw_pieces_add(sw_pieces *pieces, const int32_t *ids, int32_t length, const int32_t *reads, uint32_t num_reads,
                  uint32_t outputs);
/* After the last one was added: gives pieces their ids and reads, and texts, to which they belong in order by num_pieces, their pieces. */
void sw_pieces_settle(sw_pieces *pieces, sw_item *items, size_t count);
void sw_pieces_close(sw_pieces *pieces);
/* Packs pieces [count] into a batch; ids [all their tokens] and cu_seqlens [count + 1] are the caller's. */
sw_batch sw_pieces_pack(const sw_piece *const *pieces, size_t count, int32_t *ids, int32_t *cu_seqlens);

typedef struct {
  uint64_t rows, truncated, tokens;
  uint64_t computed_tokens; /* tokens that were run: without those of repeated texts */
} sw_pipeline_counts;

/* What is done with the texts. Callbacks return 0 or -1 with sw_error() set; the first failure ends the run. `worker`
 * is what open_worker gave to the calling thread. */
typedef struct {
  void *context;
  int (*open_worker)(void *context, void **worker);
  void (*close_worker)(void *context, void *worker);
  /* Text to pieces, none longer than batch_tokens. */
  int (*encode)(void *context, void *worker, sw_item *item, sw_pieces *pieces);
  /* Runs a batch and fills pieces[i]->result, i < batch->batch; pieces[i] is sequence i of the batch. `items` are those
   * of the chunk. */
  int (*run)(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items);
  /* Appends what is to be written for a text; NULL: nothing. */
  int (*finish)(void *context, void *worker, const sw_item *item, sw_buffer *out);
  /* In the thread that called sw_pipeline_run, in input order: one chunk. `output`: what finish appended, over all
   * items in order. */
  int (*write)(void *context, const sw_item *items, size_t count, const sw_buffer *output,
               const sw_pipeline_counts *counts);
} sw_pipeline_job;

typedef struct {
  int threads;          /* workers, >= 1 */
  int64_t batch_tokens; /* tokens of a batch */
  int max_batch;        /* sequences of a batch */
  int dedup;            /* run equal pieces once */
  uint64_t skip;        /* usable postings at the beginning that are left out */
  size_t chunk_texts;   /* 0: 4096 */
  size_t chunk_bytes;   /* of text; 0: 4 MiB */
  size_t cache_bytes;   /* of the cache across chunks; 0: 128 MiB */
  const char *progress; /* what the progress bar says; NULL: none */
  /* shards > 1: the chunks of a run over all texts are dealt out in turn, and only those of `shard` (from 0) are done; `skip` counts its
   * texts. Chunks then do not depend on how the input comes. */
  int shard, shards;
} sw_pipeline_options;

/* Runs to the end of the postings. `counts` (may be NULL): of everything that was written. */
int sw_pipeline_run(sw_postings *postings, const sw_pipeline_job *job, const sw_pipeline_options *options,
                    sw_pipeline_counts *counts);
#endif
