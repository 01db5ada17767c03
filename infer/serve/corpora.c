#include "infer/serve/corpora.h"
#include "base/error.h"
#include "infer/serve/request.h"

#include <stdlib.h>
#include <string.h>

enum { FEW_HITS = 16 }; /* to find more of them takes longer */

pthread_mutex_t sw_serve_files = PTHREAD_MUTEX_INITIALIZER;

int sw_corpora_match(const char *path, const sw_infer_session *s) {
  sw_vectors file;
  if (sw_vectors_open(path, &file)) return -1;
  const int known = *file.model_sha256 != 0, same = known && !strcmp(file.model_sha256, s->checkpoint.content_sha256);
  sw_vectors_close(&file);
  return known ? same : sw_fail("%s does not say which model made it: make it with skillwatch infer embed -o vectors.h5", path);
}

/* --- corpora --- */

static int find_texts(sw_served_corpus *c, const sw_list *texts, const sw_postings_options *reading) {
  uint64_t known;
  if (!texts->count) return 0;
  if (sw_corpus_find_texts(&c->corpus, texts->items, (size_t)texts->count, reading, &known)) return -1;
  if (!known || !c->session->options->quiet)
    fprintf(stderr, "skillwatch: the corpus '%s': the texts of %llu of %llu rows were found%s\n", c->name, (unsigned long long)known, (unsigned long long)c->corpus.rows,
            known ? "" : ": --texts wants the files that it was made of, --column and --id-column as they were then");
  return 0;
}

int sw_served_corpus_open(sw_infer_session *s, const char *name, const char *path, const sw_list *texts, const sw_postings_options *reading,
                          sw_served_corpus **out) {
  sw_served_corpus *c = sw_alloc(sizeof *c);
  if (!c) return -1;
  *out = c;
  c->name = name;
  c->session = s;
  pthread_mutex_init(&c->turn, NULL);
  if (sw_corpus_open(s, path, &(sw_postings_options){0}, "auto", "", &c->corpus) || find_texts(c, texts, reading)) return -1;
  const sw_search_corpus rows = sw_corpus_rows(&c->corpus);
  return sw_finder_open(s, &rows, c->corpus.hidden, FEW_HITS, SW_COSINE, &c->few) ||
                 sw_finder_open(s, &rows, c->corpus.hidden, SW_REQUEST_MOST_K, SW_COSINE, &c->many) ||
                 sw_embedder_open(&c->embedder, &s->runs, s->tokenizer, c->corpus.store.file.prefix, -1)
             ? -1
             : 0;
}

void sw_served_corpus_close(sw_served_corpus *c) {
  if (!c) return;
  sw_finder_close(&c->few);
  sw_finder_close(&c->many);
  sw_corpus_close(&c->corpus);
  pthread_mutex_destroy(&c->turn);
  free(c);
}

int sw_served_corpus_search(sw_served_corpus *c, const float *vectors, size_t count, int k, int64_t *index, float *score) {
  sw_finder *f = k <= FEW_HITS ? &c->few : &c->many;
  const int from_file = !c->corpus.vectors;
  pthread_mutex_lock(&c->turn);
  if (from_file) pthread_mutex_lock(&sw_serve_files);
  memcpy(f->vectors, vectors, count * (size_t)f->hidden * sizeof *vectors);
  const int failed = sw_finder_run(c->session, f, count, -1);
  if (from_file) pthread_mutex_unlock(&sw_serve_files);
  for (size_t i = 0; i < count && !failed; i++) {
    memcpy(index + i * (size_t)k, f->index + i * (size_t)f->k, (size_t)k * sizeof *index);
    memcpy(score + i * (size_t)k, f->score + i * (size_t)f->k, (size_t)k * sizeof *score);
  }
  pthread_mutex_unlock(&c->turn);
  return failed ? -1 : 0;
}

/* --- maps --- */

int sw_served_map_open(sw_infer_session *s, const char *path, sw_served_map **out) {
  sw_served_map *m = sw_alloc(sizeof *m);
  if (!m) return -1;
  *out = m;
  m->session = s;
  pthread_mutex_init(&m->turn, NULL);
  return sw_stream_open(s->device, s->options->threads, &m->stream) || sw_map_open(path, &m->old, &m->coordinates, &m->umap) ||
                 sw_usable_find(&m->old, &m->stream, sw_map_check_row, &m->umap, NULL) ||
                 sw_embedder_open(&m->embedder, &s->runs, s->tokenizer, m->old.file.prefix, -1)
             ? -1
             : 0;
}

void sw_served_map_close(sw_served_map *m) {
  if (!m) return;
  sw_usable_close(&m->old);
  free(m->coordinates);
  pthread_mutex_destroy(&m->turn);
  free(m);
}

int sw_served_map_place(sw_served_map *m, float *vectors, size_t count, float *coordinates) {
  const int hidden = m->old.file.hidden;
  sw_device *device = m->stream.device;
  const size_t bytes = count * (size_t)hidden * sizeof *vectors;
  const sw_umap_map map = {m->old.rows, m->old.device, m->coordinates};
  for (size_t i = 0; i < count; i++) {
    const char *why = sw_map_check_row(&m->umap, hidden, vectors + i * (size_t)hidden);
    if (why) return sw_fail("a text cannot be placed: %s", why);
  }
  float *on_device = device->alloc(device, bytes);
  if (!on_device) return -1;
  pthread_mutex_lock(&m->turn);
  pthread_mutex_lock(&m->session->runs.turn); /* on a GPU batches take turns with it */
  const int failed = device->copy_in(&m->stream, on_device, vectors, bytes) || device->synchronize(&m->stream) ||
                     sw_umap_place(&m->stream, &m->umap, &map, (int64_t)count, hidden, on_device, 1, coordinates);
  pthread_mutex_unlock(&m->session->runs.turn);
  pthread_mutex_unlock(&m->turn);
  device->release(device, on_device);
  return failed ? -1 : 0;
}
