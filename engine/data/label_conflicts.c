/* Rows that say different things of the same words. */
#include "base/error.h"
#include "engine/data/label_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const sw_raw_example *example;
  size_t index;
} entry;

static int compare_words(const sw_raw_example *a, const sw_raw_example *b) {
  size_t shorter = a->bytes < b->bytes ? a->bytes : b->bytes;
  int order = memcmp(a->text, b->text, shorter);
  if (order) return order;
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
  if (a->num_words != b->num_words) return a->num_words < b->num_words ? -1 : 1;
  return memcmp(a->words, b->words, a->num_words * sizeof *a->words);
}
static int compare_entries(const void *a, const void *b) {
  const entry *x = a, *y = b;
  int order = compare_words(x->example, y->example);
  return order ? order : x->index < y->index ? -1 : 1;
}

static const int32_t *tags_of(const sw_raw_example *e, uint32_t layer) {
  for (size_t k = 0; k < e->num_layers; k++)
    if (e->layers[k] == layer) return e->tags + k * e->num_words;
  return NULL;
}
/* One way in which a group labels a layer: tags, the row that has them first, and what the rows with them weigh. */
typedef struct {
  const int32_t *tags;
  size_t row;
  double weight;
} variant;

/* Marks the rows of a group (the same words) whose tags in this layer others outweigh, or equal; *against: a row with those. */
static void judge_layer(const entry *group, size_t count, uint32_t layer, variant *variants, unsigned char *refused, size_t *against) {
  size_t n = 0;
  const size_t bytes = group[0].example->num_words * sizeof(int32_t);
  for (size_t i = 0, v; i < count; i++) {
    const int32_t *tags = tags_of(group[i].example, layer);
    if (!tags) continue;
    for (v = 0; v < n && memcmp(variants[v].tags, tags, bytes);) v++;
    if (v == n) variants[n++] = (variant){tags, group[i].index, 0};
    variants[v].weight += group[i].example->weight;
  }
  if (n < 2) return;
  size_t best = 0, second = 1;
  for (size_t v = 1; v < n; v++) {
    if (variants[v].weight > variants[best].weight)
      second = best, best = v;
    else if (v == 1 || variants[v].weight > variants[second].weight)
      second = v;
  }
  const int draw = variants[second].weight == variants[best].weight;
  for (size_t i = 0; i < count; i++) {
    const int32_t *tags = tags_of(group[i].example, layer);
    if (!tags) continue;
    const int is_best = !memcmp(variants[best].tags, tags, bytes);
    if (is_best && !draw) continue;
    refused[group[i].index] = 1;
    against[group[i].index] = variants[is_best ? second : best].row;
  }
}

static void judge(const entry *group, size_t count, variant *variants, unsigned char *refused, size_t *against) {
  unsigned char seen[SW_MAX_LAYERS] = {0};
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < group[i].example->num_layers; k++) {
      const uint32_t layer = group[i].example->layers[k];
      if (!seen[layer]) judge_layer(group, count, layer, variants, refused, against);
      seen[layer] = 1;
    }
}

static int set_aside(sw_label_reader *r, sw_labels *labels, const unsigned char *refused, const size_t *against) {
  for (size_t i = 0; i < r->num_examples; i++) {
    if (!refused[i]) continue;
    const sw_raw_example *e = &r->examples[i], *other = &r->examples[against[i]];
    char reason[320];
    snprintf(reason, sizeof reason, "its tags contradict those of the same words in line %llu of %.200s", (unsigned long long)other->line,
             labels->files[other->file].path);
    if (sw_rejects_add(&r->rejects, labels->files[e->file].path, e->line, reason, e->text, e->bytes)) return -1;
  }
  size_t kept = 0;
  for (size_t i = 0; i < r->num_examples; i++) {
    sw_raw_example *e = &r->examples[i];
    if (!refused[i]) {
      r->examples[kept++] = *e;
      continue;
    }
    labels->files[e->file].rejected++;
    labels->rejected++;
    sw_raw_example_close(e);
  }
  r->num_examples = kept;
  return kept ? 0 : sw_fail("%s: all rows contradict each other, so none can be used", labels->files[0].path);
}

int sw_labels_settle_conflicts(sw_label_reader *r, sw_labels *labels) {
  const size_t n = r->num_examples;
  entry *entries = sw_alloc_array(n, sizeof *entries);
  unsigned char *refused = sw_alloc_array(n, 1);
  size_t *against = sw_alloc_array(n, sizeof *against);
  variant *variants = sw_alloc_array(n, sizeof *variants);
  int status = entries && refused && against && variants ? 0 : -1;
  for (size_t i = 0; i < n && !status; i++) entries[i] = (entry){&r->examples[i], i};
  if (!status) qsort(entries, n, sizeof *entries, compare_entries);
  int any = 0;
  for (size_t first = 0, end; first < n && !status; first = end) {
    for (end = first + 1; end < n && !compare_words(entries[first].example, entries[end].example);) end++;
    if (end - first == 1) continue;
    judge(entries + first, end - first, variants, refused, against);
    for (size_t i = first; i < end; i++) any |= refused[entries[i].index];
  }
  if (!status && any) status = set_aside(r, labels, refused, against);
  free(entries);
  free(refused);
  free(against);
  free(variants);
  return status;
}
