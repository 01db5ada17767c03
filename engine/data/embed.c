#include "engine/data/embed.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

int sw_embedder_open(sw_embedder *e, sw_runs *runs, const sw_tokenizer *tokenizer, const char *prefix, int head) {
  const sw_model_config *c = &runs->model->config;
  *e = (sw_embedder){.runs = runs, .tokenizer = tokenizer, .prefix = prefix, .special = sw_tokenizer_special_ids(tokenizer),
                     .hidden = c->hidden_size, .max_length = c->max_seq_length, .head = head};
  return c->max_seq_length < 3 ? sw_fail("max_seq_length %d leaves no room for text", c->max_seq_length) : 0;
}

int sw_embed_worker_open(const sw_embedder *e, sw_embed_worker *w) {
  const sw_model *model = e->runs->model;
  const size_t most = (size_t)e->runs->max_batch;
  *w = (sw_embed_worker){.ids = sw_alloc_array((size_t)e->max_length, sizeof *w->ids),
                         .vectors = sw_alloc_array(most * (size_t)e->hidden, sizeof *w->vectors)};
  if (e->head >= 0) w->outputs = sw_alloc_array(most * (size_t)model->heads[e->head].num_labels, sizeof *w->outputs);
  return w->ids && w->vectors && (e->head < 0 || w->outputs) ? sw_runs_worker_open(e->runs, &w->turn) : -1;
}

void sw_embed_worker_close(sw_embed_worker *w) {
  sw_runs_worker_close(&w->turn);
  sw_encoding_close(&w->encoding);
  sw_buffer_close(&w->text);
  free(w->ids);
  free(w->vectors);
  free(w->outputs);
}

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* Encodes as much of the text as is needed to know its first `wanted` tokens and whether there are more. White space
 * separates words for good, so the tokens of a beginning that ends before white space are the beginning of the tokens. */
static int encode_start(const sw_tokenizer *tokenizer, const char *text, size_t bytes, size_t wanted, sw_encoding *encoding) {
  for (size_t part = 8 * (wanted + 1);; part *= 2) {
    size_t end = part;
    while (end < bytes && !is_space(text[end])) end++;
    if (end > bytes) end = bytes;
    if (sw_tokenizer_encode(tokenizer, text, end, encoding)) return -1;
    if (end == bytes || encoding->count > wanted) return 0;
  }
}

/* The piece of a text's tokens: as many as there is room for, between [CLS] and [SEP]. */
static int add_piece(const sw_embedder *e, sw_embed_worker *w, const int32_t *ids, size_t count, sw_item *item, sw_pieces *pieces, uint32_t outputs) {
  const size_t room = (size_t)e->max_length - 2;
  item->truncated = count > room;
  if (count > room) count = room;
  w->ids[0] = e->special.cls;
  if (count) memcpy(w->ids + 1, ids, count * sizeof *w->ids);
  w->ids[count + 1] = e->special.sep;
  return sw_pieces_add(pieces, w->ids, (int32_t)count + 2, NULL, 0, outputs);
}

int sw_embed_encode_ids(const sw_embedder *e, sw_embed_worker *w, const int32_t *ids, size_t count, sw_item *item, sw_pieces *pieces, uint32_t outputs) {
  const int between = count > 1 && ids[0] == e->special.cls && ids[count - 1] == e->special.sep;
  return add_piece(e, w, ids + between, count - 2 * (size_t)between, item, pieces, outputs);
}

int sw_embed_encode(const sw_embedder *e, sw_embed_worker *w, sw_item *item, sw_pieces *pieces, uint32_t outputs) {
  const char *text = item->posting.text;
  size_t bytes = item->posting.bytes;
  if (*e->prefix) {
    sw_buffer_clear(&w->text);
    if (sw_buffer_append(&w->text, e->prefix, strlen(e->prefix)) || sw_buffer_append(&w->text, text, bytes)) return -1;
    text = w->text.data;
    bytes = w->text.size;
  }
  if (encode_start(e->tokenizer, text, bytes, (size_t)e->max_length - 2, &w->encoding))
    return sw_fail_in("row %llu (id %s)", (unsigned long long)item->posting.index + 1, item->posting.id);
  const int status = add_piece(e, w, w->encoding.ids, w->encoding.count, item, pieces, outputs);
  if (w->encoding.capacity > 1 << 20) { /* one huge text is no reason to keep that much */
    sw_encoding_close(&w->encoding);
    memset(&w->encoding, 0, sizeof w->encoding);
  }
  return status;
}

int sw_embed_run(const sw_embedder *e, sw_embed_worker *w, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  const int labels_of_texts = e->head >= 0 && !strcmp(e->runs->model->heads[e->head].task, "multilabel");
  if (sw_runs_begin(&w->turn)) return -1;
  const int failed = sw_run_embed(w->turn.run, batch, w->vectors) ||
                     (e->head >= 0 && (labels_of_texts ? sw_run_label_logits : sw_run_sequence_log_probs)(w->turn.run, (size_t)e->head, w->outputs));
  sw_runs_end(&w->turn);
  if (failed) return -1;
  const size_t hidden = (size_t)e->hidden, labels = e->head >= 0 ? (size_t)e->runs->model->heads[e->head].num_labels : 0;
  for (size_t i = 0; i < (size_t)batch->batch; i++) {
    const sw_item *item = &items[pieces[i]->item];
    if (sw_item_check_finite(w->vectors + i * hidden, hidden, item) ||
        (labels && sw_item_check_finite(w->outputs + i * labels, labels, item)))
      return -1;
  }
  return 0;
}

int sw_embed_open_worker(void *context, void **worker) {
  *worker = sw_alloc(sizeof(sw_embed_worker)); /* closed by the pipeline, also when what follows fails */
  return *worker ? sw_embed_worker_open(context, *worker) : -1;
}

void sw_embed_close_worker(void *context, void *worker) {
  sw_embed_worker_close(worker);
  free(worker);
}

int sw_embed_encode_vector(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  return sw_embed_encode(context, worker, item, pieces, (uint32_t)((const sw_embedder *)context)->hidden);
}

int sw_embed_run_vectors(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  const sw_embedder *e = context;
  sw_embed_worker *w = worker;
  const size_t hidden = (size_t)e->hidden;
  if (sw_embed_run(e, w, batch, pieces, items)) return -1;
  for (int i = 0; i < batch->batch; i++) memcpy(pieces[i]->result, w->vectors + (size_t)i * hidden, hidden * sizeof(float));
  return 0;
}
