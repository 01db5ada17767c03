/* Texts to vectors, and on to the outputs of a head over vectors, as steps of a pipeline (pipeline.h): what is the same for all who embed. */
#ifndef SW_DATA_EMBED_H
#define SW_DATA_EMBED_H
#include "engine/data/pipeline.h"
#include "engine/model/runs.h"

typedef struct {
  sw_runs *runs;
  const sw_tokenizer *tokenizer; /* borrowed, as runs and prefix */
  const char *prefix;            /* put before every text */
  sw_special_ids special;
  int hidden, max_length;
  int head; /* index in the model: its outputs are wanted, too; -1: none */
} sw_embedder;
/* Fails where the model's max_seq_length leaves no room for text. */
int sw_embedder_open(sw_embedder *embedder, sw_runs *runs, const sw_tokenizer *tokenizer, const char *prefix, int head);

typedef struct {
  sw_runs_worker turn;
  sw_encoding encoding;
  sw_buffer text;
  int32_t *ids;     /* [max_length] */
  float *vectors; /* [max_batch, hidden] */
  float *outputs; /* [max_batch, labels] log-probabilities, of task "multilabel" logits; NULL without a head */
} sw_embed_worker;
/* Close it in any case. */
int sw_embed_worker_open(const sw_embedder *embedder, sw_embed_worker *worker);
void sw_embed_worker_close(sw_embed_worker *worker);

/* A text's one piece: prefix and text between [CLS] and [SEP], cut at max_length tokens (item->truncated). `outputs`: of the piece. */
int sw_embed_encode(const sw_embedder *embedder, sw_embed_worker *worker, sw_item *item, sw_pieces *pieces, uint32_t outputs);
/* The same of a text's token ids, all within the vocabulary, without prefix; those that stand between [CLS] and [SEP] already are not put between them again. */
int sw_embed_encode_ids(const sw_embedder *embedder, sw_embed_worker *worker, const int32_t *ids, size_t count, sw_item *item, sw_pieces *pieces,
                        uint32_t outputs);
/* Fills worker->vectors, and outputs where there is a head, for a batch; fails where a value is no finite number, naming the text. */
int sw_embed_run(const sw_embedder *embedder, sw_embed_worker *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items);

/* A pipeline's open_worker, close_worker, encode and run for a context that begins with an sw_embedder and workers that are sw_embed_workers:
 * the result of a text's one piece is its vector. */
int sw_embed_open_worker(void *context, void **worker);
void sw_embed_close_worker(void *context, void *worker);
int sw_embed_encode_vector(void *context, void *worker, sw_item *item, sw_pieces *pieces);
int sw_embed_run_vectors(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items);
#endif
