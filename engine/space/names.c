#include "engine/space/names.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/table.h"
#include "engine/text/letter_words.h"
#include "engine/text/stems.h"
#include "engine/text/unicode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sw_names {
  int clusters;
  sw_table words, stop_words;
  uint64_t *counts;                /* [words, clusters] */
  size_t capacity;                 /* words */
  uint64_t total;
};

void sw_names_close(sw_names *n) {
  if (!n) return;
  sw_table_close(&n->words);
  sw_table_close(&n->stop_words);
  free(n->counts);
  free(n);
}

int sw_names_open(int clusters, sw_names **out) {
  sw_names *n = *out = sw_alloc(sizeof *n);
  if (!n) return -1;
  n->clusters = clusters;
  int status = sw_unicode_open();
  for (size_t i = 0; i < sw_num_stop_words && !status; i++)
    status = sw_table_add(&n->stop_words, sw_stop_words[i]) < 0 ? -1 : 0;
  if (!status) return 0;
  sw_names_close(n);
  *out = NULL;
  return -1;
}

/* Room for one word more. */
static int grow(sw_names *n) {
  const size_t width = (size_t)n->clusters;
  if (n->words.count < n->capacity) return 0;
  const size_t larger = 2 * n->capacity + 256;
  uint64_t *counts = sw_realloc_array(n->counts, larger * width, sizeof *counts);
  if (!counts) return -1;
  memset(counts + n->capacity * width, 0, (larger - n->capacity) * width * sizeof *counts);
  n->counts = counts, n->capacity = larger;
  return 0;
}

int sw_names_add(sw_names *n, int cluster, const char *text, size_t bytes) {
  sw_words w = sw_words_of(text, bytes);
  int status;
  while ((status = sw_words_next(&w)) > 0) {
    if (w.bytes > SW_WORD_BYTES || sw_table_find(&n->stop_words, w.word) >= 0) continue;
    if (grow(n)) return -1;
    const int64_t word = sw_table_add(&n->words, w.word);
    if (word < 0) return -1;
    n->counts[word * n->clusters + cluster]++;
    n->total++;
  }
  return status;
}

typedef struct {
  const char *word;
  double score;
} term;
static int is_better(term a, term b) { return a.score > b.score || (a.score == b.score && strcmp(a.word, b.word) < 0); }

/* The best terms of a cluster to best [terms]; how many there are. */
static int best_terms(const sw_names *n, int cluster, int terms, term *best) {
  const double mean = (double)n->total / n->clusters;
  int found = 0;
  for (size_t i = 0; i < n->words.count; i++) {
    const uint64_t *counts = n->counts + i * (size_t)n->clusters;
    if (!counts[cluster]) continue;
    uint64_t all = 0;
    for (int c = 0; c < n->clusters; c++) all += counts[c];
    const term t = {n->words.keys[i], (double)counts[cluster] * log1p(mean / (double)all)};
    if (found == terms && !is_better(t, best[found - 1])) continue;
    int at = found < terms ? found++ : terms - 1;
    for (; at > 0 && is_better(t, best[at - 1]); at--) best[at] = best[at - 1];
    best[at] = t;
  }
  return found;
}

int sw_names_make(const sw_names *n, int terms, char **out) {
  term *best = sw_alloc_array((size_t)terms, sizeof *best);
  int status = best ? 0 : -1;
  for (int c = 0; c < n->clusters; c++) out[c] = NULL;
  for (int c = 0; c < n->clusters && !status; c++) {
    sw_buffer name = {0};
    const int found = best_terms(n, c, terms, best);
    for (int t = 0; t < found && !status; t++) status = sw_buffer_print(&name, "%s%s", t ? " / " : "", best[t].word);
    if (!status && !(out[c] = sw_buffer_take(&name))) status = -1;
    sw_buffer_close(&name);
  }
  for (int c = 0; c < n->clusters && status; c++) {
    free(out[c]);
    out[c] = NULL;
  }
  free(best);
  return status;
}
