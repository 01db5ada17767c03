#include "engine/learn/coherence.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double EPSILON = 1e-12;

/* The top words of all topics are numbered; what holds them, documents or windows, is counted for each and for each pair of a topic. */
typedef struct {
  size_t num_words, topics, n;
  int32_t *number;   /* by id: its number + 1, or 0 */
  int32_t *words;    /* [topics][n] the top words' numbers */
  int32_t *owners;   /* [num_words + 1 ...] places where a word stands: owner_starts[word]..., as topic * n + rank */
  size_t *owner_starts;
  uint64_t holders;  /* documents or windows */
  uint64_t *single;  /* [num_words] */
  uint64_t *pairs;   /* [topics][n][n], the first below the second */
  int32_t *inside;   /* [num_words] how often a word stands in the present holder */
  int32_t *present;  /* the words that do */
  size_t num_present;
} counts;

static void close_counts(counts *c) {
  free(c->number);
  free(c->words);
  free(c->owners);
  free(c->owner_starts);
  free(c->single);
  free(c->pairs);
  free(c->inside);
  free(c->present);
}

static int open_counts(const sw_documents *d, const int32_t *top, size_t topics, size_t n, counts *c) {
  size_t largest = 0;
  for (size_t i = 0; i < topics * n; i++)
    if ((size_t)top[i] > largest) largest = (size_t)top[i];
  for (size_t i = 0; i < d->starts[d->count]; i++)
    if ((size_t)d->ids[i] > largest) largest = (size_t)d->ids[i];
  *c = (counts){.topics = topics, .n = n};
  c->number = sw_alloc_array(largest + 1, sizeof *c->number);
  c->words = sw_alloc_array(topics * n, sizeof *c->words);
  c->owners = sw_alloc_array(topics * n, sizeof *c->owners);
  c->owner_starts = sw_alloc_array(topics * n + 2, sizeof *c->owner_starts);
  c->single = sw_alloc_array(topics * n, sizeof *c->single);
  c->pairs = sw_alloc_array(topics * n, n * sizeof *c->pairs);
  c->inside = sw_alloc_array(topics * n, sizeof *c->inside);
  c->present = sw_alloc_array(topics * n, sizeof *c->present);
  if (!c->number || !c->words || !c->owners || !c->owner_starts || !c->single || !c->pairs || !c->inside || !c->present) return -1;
  for (size_t i = 0; i < topics * n; i++) {
    if (!c->number[top[i]]) c->number[top[i]] = (int32_t)++c->num_words;
    c->words[i] = c->number[top[i]] - 1;
    c->owner_starts[c->words[i] + 2]++;
  }
  for (size_t w = 2; w <= c->num_words + 1; w++) c->owner_starts[w] += c->owner_starts[w - 1];
  for (size_t i = 0; i < topics * n; i++) c->owners[c->owner_starts[c->words[i] + 1]++] = (int32_t)i;
  return 0;
}

static void enter(counts *c, int32_t word) {
  if (c->inside[word]++ == 0) c->present[c->num_present++] = word;
}
static void leave(counts *c, int32_t word) {
  if (--c->inside[word]) return;
  size_t at = 0;
  while (c->present[at] != word) at++;
  c->present[at] = c->present[--c->num_present];
}

/* Counts the present holder. */
static void count_holder(counts *c) {
  c->holders++;
  for (size_t i = 0; i < c->num_present; i++) {
    const int32_t word = c->present[i];
    c->single[word]++;
    for (size_t o = c->owner_starts[word]; o < c->owner_starts[word + 1]; o++) {
      const size_t topic = (size_t)c->owners[o] / c->n, rank = (size_t)c->owners[o] % c->n;
      for (size_t other = rank + 1; other < c->n; other++)
        if (c->inside[c->words[topic * c->n + other]]) c->pairs[(topic * c->n + rank) * c->n + other]++;
    }
  }
}

static void count_documents(counts *c, const sw_documents *d) {
  for (size_t i = 0; i < d->count; i++) {
    if (d->held_out[i]) continue;
    for (size_t at = d->starts[i]; at < d->starts[i + 1]; at++)
      if (c->number[d->ids[at]]) enter(c, c->number[d->ids[at]] - 1);
    count_holder(c);
    while (c->num_present) c->inside[c->present[--c->num_present]] = 0;
  }
}

static void count_windows(counts *c, const sw_documents *d) {
  for (size_t i = 0; i < d->count; i++) {
    int any = 0;
    for (size_t at = d->starts[i]; at < d->starts[i + 1] && !any; at++) any = c->number[d->ids[at]] != 0;
    if (d->held_out[i] || !any) continue;
    for (size_t at = d->starts[i], begin = at; at < d->starts[i + 1]; at++) {
      if (at - begin == SW_COHERENCE_WINDOW) {
        if (c->number[d->ids[begin]]) leave(c, c->number[d->ids[begin]] - 1);
        begin++;
      }
      if (c->number[d->ids[at]]) enter(c, c->number[d->ids[at]] - 1);
      if (at - begin == SW_COHERENCE_WINDOW - 1 || (at + 1 == d->starts[i + 1] && begin == d->starts[i])) count_holder(c);
    }
    while (c->num_present) c->inside[c->present[--c->num_present]] = 0;
  }
}

static void reset(counts *c) {
  c->holders = 0;
  memset(c->single, 0, c->topics * c->n * sizeof *c->single);
  memset(c->pairs, 0, c->topics * c->n * c->n * sizeof *c->pairs);
}

/* The mean over a topic's pairs, and over the topics. */
static void score(const counts *c, int normalised, double *out) {
  const double all = (double)c->holders;
  out[c->topics] = 0;
  for (size_t k = 0; k < c->topics; k++) {
    double sum = 0;
    for (size_t i = 0; i < c->n; i++)
      for (size_t j = i + 1; j < c->n; j++) {
        const uint64_t first = c->single[c->words[k * c->n + i]], second = c->single[c->words[k * c->n + j]];
        if (!first || (normalised && !second)) continue;
        const double both = (double)c->pairs[(k * c->n + i) * c->n + j] / all + EPSILON, p = (double)first / all, q = (double)second / all;
        sum += normalised ? log(both / (p * q)) / -log(both) : log(both / p);
      }
    out[k] = c->n > 1 ? sum / ((double)c->n * (double)(c->n - 1) / 2) : 0;
    out[c->topics] += out[k] / (double)c->topics;
  }
}

int sw_coherence(const sw_documents *documents, const int32_t *top, size_t topics, size_t n, double *u_mass, double *c_npmi) {
  counts c;
  const int status = open_counts(documents, top, topics, n, &c);
  if (!status) {
    count_documents(&c, documents);
    score(&c, 0, u_mass);
    reset(&c);
    count_windows(&c, documents);
    score(&c, 1, c_npmi);
  }
  close_counts(&c);
  return status;
}
