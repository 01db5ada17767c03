#include "engine/data/documents.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

void sw_documents_close(sw_documents *d) {
  free(d->starts);
  free(d->ids);
  free(d->held_out);
  *d = (sw_documents){0};
}

/* --- reading --- */

static int add_document(sw_documents *d, const int32_t *ids, size_t count, int held_out) {
  if (d->count + 1 >= d->capacity) {
    const size_t larger = d->capacity ? 2 * d->capacity : 1024;
    size_t *starts = sw_realloc_array(d->starts, larger, sizeof *starts);
    if (!starts) return -1;
    d->starts = starts;
    uint8_t *held = sw_realloc_array(d->held_out, larger, sizeof *held);
    if (!held) return -1;
    d->held_out = held;
    d->capacity = larger;
  }
  if (!d->count) d->starts[0] = 0;
  const size_t start = d->starts[d->count];
  if (start + count > d->id_capacity) {
    const size_t larger = 2 * (start + count);
    int32_t *all = sw_realloc_array(d->ids, larger, sizeof *all);
    if (!all) return -1;
    d->ids = all;
    d->id_capacity = larger;
  }
  if (count) memcpy(d->ids + start, ids, count * sizeof *ids);
  d->held_out[d->count] = (uint8_t)held_out;
  d->num_held_out += (size_t)held_out;
  d->starts[++d->count] = start + count;
  return 0;
}

/* 1: the posting is among those held out; -1: failure. */
static int is_held_out(const sw_posting *posting, double share) {
  char hex[65];
  if (!(share > 0)) return 0;
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  sw_sha256_add(hash, posting->text, posting->bytes);
  sw_sha256_close(hash, hex);
  hex[16] = 0;
  return (double)strtoull(hex, NULL, 16) * 0x1p-64 < share;
}

static int add_posting(const sw_documents_options *o, const sw_posting *posting, sw_stems *stems, sw_documents *out, sw_documents_facts *facts) {
  const int32_t *numbers;
  size_t count;
  const int held_out = is_held_out(posting, o->holdout);
  if (held_out < 0 || sw_stems_number(stems, posting->text, posting->bytes, &numbers, &count)) return -1;
  const size_t most = o->words ? o->words : SW_DOCUMENT_WORDS;
  if (!o->words && count > most) {
    count = most;
    facts->truncated++;
  }
  for (size_t at = 0; at == 0 || at < count; at += most)
    if (add_document(out, numbers + at, count - at < most ? count - at : most, held_out)) return -1;
  return 0;
}

static int read_all(sw_postings *postings, const sw_documents_options *o, sw_sha256 *hash, sw_documents *out, sw_stems *stems, sw_documents_facts *facts) {
  uint64_t done, total;
  sw_progress bar;
  sw_posting posting;
  int status;
  sw_postings_progress(postings, &done, &total);
  sw_progress_open(&bar, o->progress ? o->progress : "", (double)total, !o->progress);
  while ((status = sw_postings_next(postings, &posting)) > 0) {
    sw_sha256_add(hash, &posting.bytes, sizeof posting.bytes); /* where each text ends */
    sw_sha256_add(hash, posting.text, posting.bytes);
    const int failed = add_posting(o, &posting, stems, out, facts);
    sw_posting_close(&posting);
    if (failed) {
      status = -1;
      break;
    }
    sw_postings_progress(postings, &done, &total);
    sw_progress_show(&bar, (double)done, NULL);
  }
  sw_progress_close(&bar);
  facts->rows = sw_postings_rows(postings);
  facts->rejected = sw_postings_rejected(postings);
  if (status || out->count) return status;
  const char *reason = sw_postings_reason(postings, 0);
  return sw_fail("no posting can be used: %s", reason ? reason : "there is none");
}

int sw_documents_read(const char *const *inputs, size_t count, const sw_documents_options *options, sw_documents *out, sw_stems **stems,
                      sw_documents_facts *facts) {
  sw_postings *postings = NULL;
  *out = (sw_documents){0};
  *facts = (sw_documents_facts){0};
  if (sw_stems_open(options->stemmer, sw_stop_words, sw_num_stop_words, NULL, NULL, 0, stems)) return -1;
  sw_sha256 *hash = sw_sha256_open();
  int status = hash ? sw_postings_open(inputs, count, &options->postings, &postings) : -1;
  if (!status) status = read_all(postings, options, hash, out, *stems, facts);
  if (postings && sw_postings_close(postings)) status = -1;
  if (hash) sw_sha256_close(hash, facts->sha256);
  return status;
}

/* --- the dictionary --- */

typedef struct {
  size_t documents;
  const char *name;
  int32_t number;
} word;

static int by_documents(const void *a, const void *b) {
  const word *x = a, *y = b;
  return x->documents != y->documents ? (x->documents > y->documents ? -1 : 1) : strcmp(x->name, y->name);
}

/* In how many documents that are not held out each word stands. */
static int count_documents(const sw_documents *d, word *words, size_t num_words) {
  size_t *last = sw_alloc_array(num_words, sizeof *last); /* the document + 1 that it was last seen in */
  if (!last) return -1;
  for (size_t i = 0; i < d->count; i++)
    for (size_t at = d->starts[i]; at < d->starts[i + 1] && !d->held_out[i]; at++) {
      const int32_t number = d->ids[at];
      if (last[number] != i + 1) words[number].documents++;
      last[number] = i + 1;
    }
  free(last);
  return 0;
}

int sw_documents_filter(sw_documents *d, sw_stems *stems, size_t no_below, double no_above, size_t keep, const char ***vocab, size_t *count) {
  const char *const *names;
  size_t num_words, kept = 0;
  *vocab = NULL;
  *count = 0;
  if (sw_stems_names(stems, &names, &num_words)) return -1;
  word *words = sw_alloc_array(num_words, sizeof *words);
  int32_t *ids = sw_alloc_array(num_words, sizeof *ids);
  int status = words && ids ? count_documents(d, words, num_words) : -1;
  const size_t documents = d->count - d->num_held_out;
  if (!status) {
    for (size_t i = 1; i < num_words; i++)
      if (words[i].documents >= no_below && words[i].documents && (double)words[i].documents <= no_above * (double)documents)
        words[kept++] = (word){words[i].documents, names[i], (int32_t)i};
    qsort(words, kept, sizeof *words, by_documents);
    if (kept > keep) kept = keep;
    if (!kept)
      status = sw_fail("of %zu words none is left: each must stand in at least %zu of %zu document%s (--no-below) and in at most %g of them (--no-above); "
                       "give more postings, or a lower --no-below",
                       num_words - 1, no_below, documents, SW_S(documents), no_above);
  }
  if (!status && !(*vocab = sw_alloc_array(kept + 1, sizeof **vocab))) status = -1;
  if (!status) {
    (*vocab)[0] = SW_STEM_UNKNOWN_NAME;
    for (size_t i = 0; i < kept; i++) {
      (*vocab)[i + 1] = words[i].name;
      ids[words[i].number] = (int32_t)i + 1;
    }
    for (size_t at = 0; at < d->starts[d->count]; at++) d->ids[at] = ids[d->ids[at]];
    *count = kept + 1;
  }
  free(words);
  free(ids);
  return status;
}

/* --- bags --- */

static int by_number(const void *a, const void *b) {
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

size_t sw_bag_sort(int32_t *ids, size_t count) {
  size_t known = 0;
  for (size_t i = 0; i < count; i++)
    if (ids[i]) ids[known++] = ids[i];
  qsort(ids, known, sizeof *ids, by_number);
  return known;
}

size_t sw_bag_of(const int32_t *ids, size_t count, int32_t *words, float *counts) {
  size_t distinct = 0;
  for (size_t i = 0; i < count; i++) {
    if (!i || ids[i] != ids[i - 1]) {
      words[distinct] = ids[i] - 1;
      counts[distinct++] = 0;
    }
    counts[distinct - 1]++;
  }
  return distinct;
}

void sw_bags_close(sw_bags *b) {
  free(b->starts);
  free(b->words);
  free(b->counts);
  *b = (sw_bags){0};
}

int sw_bags_make(const sw_documents *d, const uint32_t *order, size_t count, sw_bags *out) {
  size_t room = 0, longest = 0;
  *out = (sw_bags){.documents = (int64_t)count};
  for (size_t i = 0; i < count; i++) {
    const size_t n = d->starts[order[i] + 1] - d->starts[order[i]];
    room += n;
    if (n > longest) longest = n;
  }
  int32_t *ids = sw_alloc_array(longest + 1, sizeof *ids);
  out->starts = sw_alloc_array(count + 1, sizeof *out->starts);
  out->words = sw_alloc_array(room + 1, sizeof *out->words);
  out->counts = sw_alloc_array(room + 1, sizeof *out->counts);
  if (!ids || !out->starts || !out->words || !out->counts) {
    free(ids);
    sw_bags_close(out);
    return -1;
  }
  for (size_t i = 0; i < count; i++) {
    const size_t from = d->starts[order[i]], n = d->starts[order[i] + 1] - from;
    const int64_t start = out->starts[i];
    memcpy(ids, d->ids + from, n * sizeof *ids);
    const int64_t distinct = (int64_t)sw_bag_of(ids, sw_bag_sort(ids, n), out->words + start, out->counts + start);
    for (int64_t e = start; e < start + distinct; e++) out->tokens += (double)out->counts[e];
    out->starts[i + 1] = start + distinct;
    if (distinct > out->longest) out->longest = distinct;
  }
  free(ids);
  return 0;
}
