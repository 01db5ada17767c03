#include "infer/corpus.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/text/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SHOWN = 200, IDS_AT_ONCE = 4096 };
static const uint64_t RESIDENT_BYTES = (uint64_t)1 << 30; /* a larger file is read again for every block of queries */

int sw_corpus_is_store(const char *path) {
  return sw_infer_ends_in(path, ".h5") || sw_infer_ends_in(path, ".hdf5") || sw_infer_ends_in(path, ".npy");
}

int sw_corpus_format(const char *const *paths, size_t count, const char *format, sw_postings_format *out) {
  if (sw_postings_format_parse(format, out)) return -1;
  for (size_t i = 0; i < count && *out == SW_POSTINGS_AUTO; i++)
    if (sw_is_folder(paths[i]) || !(sw_infer_ends_in(paths[i], ".txt") || sw_infer_ends_in(paths[i], ".txt.gz") || sw_infer_ends_in(paths[i], ".txt.zst")))
      return 0;
  if (*out == SW_POSTINGS_AUTO) *out = SW_POSTINGS_LINES;
  return 0;
}

json_t *sw_corpus_identity(const char *path) {
  struct stat info = {0};
  if (stat(path, &info)) info.st_size = 0; /* what cannot be read is reported by its reader */
  return json_pack("{s:s%, s:I, s:I}", "path", path, strlen(path), "bytes", (json_int_t)info.st_size, "time",
                   (json_int_t)info.st_mtim.tv_sec * 1000000000 + (json_int_t)info.st_mtim.tv_nsec);
}

/* --- files of vectors --- */

static int check_model(const sw_infer_session *s, const char *path, const sw_vectors *v) {
  const char *model = s->options->model;
  if (v->hidden != s->model->config.hidden_size)
    return sw_fail("%s holds vectors of %d numbers, those of %s have %d", path, v->hidden, model, s->model->config.hidden_size);
  if (*v->model_sha256 && strcmp(v->model_sha256, s->checkpoint.content_sha256))
    return sw_fail("%s was made with another model than %s: make it with skillwatch infer embed -m %s", path, model, model);
  return 0;
}

int sw_corpus_open_store(sw_infer_session *s, const char *path, int again, sw_usable *u) {
  static const int squares = 0;
  sw_rejects told = {0}, *rejects = again ? &told : &s->rejects;
  const uint64_t before = rejects->count;
  if (sw_usable_open(path, 0, u) || (s->model && check_model(s, path, &u->file)) || sw_usable_find(u, NULL, sw_row_is_finite, &squares, rejects)) return -1;
  const unsigned long long rejected = rejects->count - before;
  if (rejected && !again && !s->options->quiet)
    fprintf(stderr, "skillwatch: %s: %llu unusable row%s %s (%s)\n", path, rejected, SW_S(rejected), rejects->path ? "set aside" : "left out", rejects->reason);
  return 0;
}

static int open_vectors(sw_infer_session *s, const char *path, sw_corpus *c) {
  *c = (sw_corpus){.name = path};
  if (sw_corpus_open_store(s, path, 0, &c->store)) return -1;
  c->rows = (uint64_t)c->store.rows;
  c->hidden = c->store.width;
  if (!(c->ids = sw_alloc_array(c->rows, sizeof *c->ids))) return -1;
  for (uint64_t first = 0; first < c->rows; first += IDS_AT_ONCE)
    if (sw_usable_read(&c->store, (int64_t)first, (int64_t)(c->rows - first < IDS_AT_ONCE ? c->rows - first : IDS_AT_ONCE), NULL, c->ids + first)) return -1;
  if (c->rows * (uint64_t)c->hidden * sizeof(float) > RESIDENT_BYTES) return 0;
  c->vectors = sw_alloc_array(c->rows, (size_t)c->hidden * sizeof *c->vectors);
  return c->vectors ? sw_usable_read(&c->store, 0, c->store.rows, c->vectors, NULL) : -1;
}

static int read_rows(void *context, int64_t first, int64_t rows, float *out) {
  sw_corpus *c = context;
  if (!c->vectors) return sw_usable_read(&c->store, first, rows, out, NULL);
  memcpy(out, c->vectors + first * c->hidden, (size_t)(rows * c->hidden) * sizeof *out);
  return 0;
}

sw_search_corpus sw_corpus_rows(sw_corpus *c) {
  return (sw_search_corpus){.rows = (int64_t)c->rows, .read = read_rows, .context = c, .name = c->name};
}

void sw_corpus_close(sw_corpus *c) {
  for (uint64_t i = 0; i < c->rows; i++) {
    if (c->ids) free(c->ids[i]);
    if (c->texts) free(c->texts[i]);
  }
  free(c->ids);
  free(c->texts);
  free(c->places);
  free(c->vectors);
  sw_usable_close(&c->store);
  *c = (sw_corpus){0};
}

/* --- texts --- */

typedef struct {
  sw_embedder embedder; /* first: the pipeline's */
  const char *pattern;
  sw_corpus *corpus;
} job;

typedef struct {
  sw_embed_worker embed; /* first: sw_embed_run_vectors' */
  sw_pattern *pattern;
} worker;

static int open_worker(void *context, void **out) {
  job *j = context;
  worker *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *out = w; /* closed by the pipeline, also when what follows fails */
  return sw_embed_worker_open(&j->embedder, &w->embed) || (j->pattern && sw_pattern_open(j->pattern, &w->pattern)) ? -1 : 0;
}

static void close_worker(void *context, void *given) {
  worker *w = given;
  sw_embed_worker_close(&w->embed);
  sw_pattern_close(w->pattern);
  free(w);
}

static int encode(void *context, void *given, sw_item *item, sw_pieces *pieces) {
  worker *w = given;
  const int found = w->pattern ? sw_pattern_find(w->pattern, item->posting.text, item->posting.bytes) : 1;
  if (found < 0) return sw_fail_in("row %llu (id %s)", (unsigned long long)item->posting.index + 1, item->posting.id);
  return found ? sw_embed_encode_vector(context, w, item, pieces) : 0;
}

/* The first SHOWN characters, in one line. */
static char *beginning(const char *text, size_t bytes) {
  size_t end = 0;
  for (int characters = 0; end < bytes; end++)
    if (((unsigned char)text[end] & 0xc0) != 0x80 && ++characters > SHOWN) break;
  char *out = sw_strndup(text, end);
  for (char *c = out; c && *c; c++)
    if (*c == '\n' || *c == '\r' || *c == '\t') *c = ' ';
  return out;
}

static int grow(sw_corpus *c) {
  const size_t larger = c->capacity ? 2 * c->capacity : 256;
  float *vectors = sw_realloc_array(c->vectors, larger, (size_t)c->hidden * sizeof *vectors);
  if (vectors) c->vectors = vectors;
  char **ids = sw_realloc_array(c->ids, larger, sizeof *ids);
  if (ids) c->ids = ids;
  char **texts = sw_realloc_array(c->texts, larger, sizeof *texts);
  if (texts) c->texts = texts;
  uint64_t *places = sw_realloc_array(c->places, larger, sizeof *places);
  if (places) c->places = places;
  c->capacity = larger;
  return vectors && ids && texts && places ? 0 : -1;
}

static int keep(void *context, const sw_item *items, size_t count, const sw_buffer *output, const sw_pipeline_counts *counts) {
  sw_corpus *c = ((job *)context)->corpus;
  for (size_t i = 0; i < count; i++) {
    const sw_posting *posting = &items[i].posting;
    if (!items[i].num_pieces) continue;
    if (c->rows == c->capacity && grow(c)) return -1;
    memcpy(c->vectors + c->rows * (uint64_t)c->hidden, items[i].pieces[0].result, (size_t)c->hidden * sizeof(float));
    c->places[c->rows] = posting->index;
    c->ids[c->rows] = sw_strdup(posting->id);
    c->texts[c->rows] = beginning(posting->text, posting->bytes);
    c->rows++;
    if (!c->ids[c->rows - 1] || !c->texts[c->rows - 1]) return -1;
  }
  return 0;
}

static int embed_postings(sw_infer_session *s, sw_postings *postings, job *j) {
  const sw_pipeline_job pipeline = {.context = j, .open_worker = open_worker, .close_worker = close_worker, .encode = encode, .run = sw_embed_run_vectors,
                                    .write = keep};
  const sw_pipeline_options options = {.threads = s->threads, .batch_tokens = s->runs.batch_tokens, .max_batch = s->runs.max_batch,
                                       .dedup = s->options->dedup, .progress = s->options->quiet ? NULL : j->pattern ? "anchors" : "corpus"};
  return sw_pipeline_run(postings, &pipeline, &options, NULL);
}

int sw_corpus_embed_texts(sw_infer_session *s, const char *const *texts, size_t count, sw_corpus *out) {
  *out = (sw_corpus){.name = "texts", .hidden = s->model->config.hidden_size};
  job j = {.corpus = out};
  sw_postings *postings;
  if (sw_embedder_open(&j.embedder, &s->runs, s->tokenizer, "", -1) || sw_postings_open_texts(texts, count, &postings)) return -1;
  const int status = embed_postings(s, postings, &j);
  return sw_postings_close(postings) || status ? -1 : 0;
}

int sw_corpus_embed(sw_infer_session *s, const char *const *paths, size_t count, const sw_postings_options *reading, const char *prefix,
                    const char *pattern, int quietly, sw_corpus *out) {
  *out = (sw_corpus){.name = paths[0], .hidden = s->model->config.hidden_size};
  job j = {.pattern = pattern, .corpus = out};
  sw_postings *postings;
  if (sw_embedder_open(&j.embedder, &s->runs, s->tokenizer, prefix, -1) || sw_postings_open(paths, count, reading, &postings)) return -1;
  int status = embed_postings(s, postings, &j);
  const unsigned long long rejected = sw_postings_rejected(postings);
  const char *reason = sw_postings_reason(postings, 0);
  if (!status && !out->rows && pattern)
    status = sw_fail("no text matches '%s': there are no anchors", pattern);
  else if (!status && !out->rows)
    status = sw_fail("%s has no text%s%s: there is nothing to search in", paths[0], reason ? "; " : "", reason ? reason : "");
  if (!status && rejected && !quietly)
    fprintf(stderr, "skillwatch: %s: %llu unusable row%s left out (%s)\n", paths[0], rejected, SW_S(rejected), reason);
  char *message = status ? sw_strdup(sw_error()) : NULL;
  if (sw_postings_close(postings)) status = -1;
  if (message) sw_fail("%s", message);
  free(message);
  return status;
}

int sw_corpus_open(sw_infer_session *s, const char *path, const sw_postings_options *reading, const char *format, const char *prefix, sw_corpus *out) {
  sw_postings_options options = *reading;
  if (sw_corpus_is_store(path)) return open_vectors(s, path, out);
  return sw_corpus_format(&path, 1, format, &options.format) ? -1 : sw_corpus_embed(s, &path, 1, &options, prefix, NULL, s->options->quiet, out);
}

/* --- the texts of vectors --- */

static int order_by_id(const void *a, const void *b, void *context) {
  char *const *ids = context;
  return strcmp(ids[*(const uint64_t *)a], ids[*(const uint64_t *)b]);
}

/* The first of `order` whose id is not before this one. */
static uint64_t find_id(const sw_corpus *c, const uint64_t *order, const char *id) {
  uint64_t low = 0, high = c->rows;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (strcmp(c->ids[order[middle]], id) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

int sw_corpus_find_texts(sw_corpus *c, const char *const *paths, size_t count, const sw_postings_options *reading, uint64_t *known) {
  sw_postings *postings = NULL;
  sw_posting posting;
  uint64_t *order = sw_alloc_array(c->rows, sizeof *order);
  sw_postings_options options = *reading;
  int got = -1;
  *known = 0;
  c->texts = sw_alloc_array(c->rows, sizeof *c->texts);
  if (order && c->texts && !sw_corpus_format(paths, count, "auto", &options.format) && !sw_postings_open(paths, count, &options, &postings)) {
    for (uint64_t i = 0; i < c->rows; i++) order[i] = i;
    qsort_r(order, c->rows, sizeof *order, order_by_id, c->ids);
    while ((got = sw_postings_next(postings, &posting)) == 1) {
      for (uint64_t at = find_id(c, order, posting.id); at < c->rows && !strcmp(c->ids[order[at]], posting.id); at++) {
        char **text = &c->texts[order[at]];
        if (!*text && (*text = beginning(posting.text, posting.bytes))) ++*known;
      }
      sw_posting_close(&posting);
    }
  }
  free(order);
  return (postings && sw_postings_close(postings)) || got ? -1 : 0;
}

/* --- what is nearest --- */

int sw_finder_open(sw_infer_session *s, const sw_search_corpus *corpus, int hidden, int k, sw_similarity similarity, sw_finder *f) {
  sw_stream stream;
  *f = (sw_finder){.corpus = *corpus, .hidden = hidden, .k = k};
  if (sw_stream_open(s->device, s->options->threads, &stream) || sw_search_open(&stream, hidden, k, similarity, SW_FINDER_BLOCK, &f->search)) return -1;
  f->vectors = sw_alloc_array(SW_FINDER_BLOCK, (size_t)hidden * sizeof *f->vectors);
  f->index = sw_alloc_array(SW_FINDER_BLOCK, (size_t)k * sizeof *f->index);
  f->score = sw_alloc_array(SW_FINDER_BLOCK, (size_t)k * sizeof *f->score);
  return f->vectors && f->index && f->score ? 0 : -1;
}

int sw_finder_run(sw_infer_session *s, sw_finder *f, size_t rows, int64_t first_skip) {
  if (s->model) pthread_mutex_lock(&s->runs.turn); /* on a GPU batches and searches take turns */
  const int failed = sw_search_run(f->search, &f->corpus, f->vectors, (int64_t)rows, first_skip, f->index, f->score);
  if (s->model) pthread_mutex_unlock(&s->runs.turn);
  return failed;
}

int sw_finder_items(sw_infer_session *s, sw_finder *f, const sw_item *items, size_t count, int64_t first_skip, sw_finder_each *each, void *context) {
  const size_t hidden = (size_t)f->hidden;
  for (size_t first = 0; first < count; first += SW_FINDER_BLOCK) {
    const size_t rows = count - first < SW_FINDER_BLOCK ? count - first : SW_FINDER_BLOCK;
    for (size_t i = 0; i < rows; i++) memcpy(f->vectors + i * hidden, items[first + i].pieces[0].result, hidden * sizeof *f->vectors);
    if (sw_finder_run(s, f, rows, first_skip < 0 ? -1 : first_skip + (int64_t)first)) return -1;
    for (size_t i = 0; i < rows; i++)
      if (each(context, &items[first + i].posting, f->index + i * (size_t)f->k, f->score + i * (size_t)f->k)) return -1;
  }
  return 0;
}

void sw_finder_close(sw_finder *f) {
  sw_search_close(f->search);
  free(f->vectors);
  free(f->index);
  free(f->score);
  *f = (sw_finder){0};
}
