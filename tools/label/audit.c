#include "tools/label/audit.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/table.h"
#include "engine/data/labels.h"
#include "engine/learn/metrics.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char *name;
  sw_entity_metrics metrics;
  uint64_t *table; /* [tags][tags]: words by gold and other tag */
  size_t tags;
  uint64_t words;
} layer_scores;

/* The words of an example, one space between them: what tells it from others. */
static char *words_of(const sw_example *e) {
  sw_buffer text = {0};
  for (size_t i = 0; i < e->num_words; i++)
    if (sw_buffer_print(&text, "%s%.*s", i ? " " : "", (int)(e->words[i].byte_end - e->words[i].byte_start), e->text + e->words[i].byte_start)) {
      sw_buffer_close(&text);
      return NULL;
    }
  return sw_buffer_take(&text);
}

static int same_words(const sw_example *a, const sw_example *b) {
  if (a->num_words != b->num_words) return 0;
  for (size_t i = 0; i < a->num_words; i++) {
    const size_t n = a->words[i].byte_end - a->words[i].byte_start;
    if (n != b->words[i].byte_end - b->words[i].byte_start || memcmp(a->text + a->words[i].byte_start, b->text + b->words[i].byte_start, n)) return 0;
  }
  return 1;
}

/* A label that the other side never has was never found: its words are outside. */
static int add_example(layer_scores *s, const int32_t *gold, int32_t *other, size_t count) {
  for (size_t w = 0; w < count; w++) {
    if (other[w] == SW_IGNORE) other[w] = 0;
    if (gold[w] == SW_IGNORE) continue;
    s->table[(size_t)gold[w] * s->tags + (size_t)other[w]]++;
    s->words++;
  }
  return sw_entity_metrics_add(&s->metrics, gold, other, count);
}

static double kappa(const layer_scores *s) {
  double same = 0, chance = 0;
  for (size_t i = 0; i < s->tags; i++) {
    double row = 0, column = 0;
    for (size_t k = 0; k < s->tags; k++) row += (double)s->table[i * s->tags + k], column += (double)s->table[k * s->tags + i];
    same += (double)s->table[i * s->tags + i];
    chance += row * column;
  }
  const double n = (double)s->words;
  if (!(n > 0)) return 0;
  return chance >= n * n ? 1 : (same / n - chance / (n * n)) / (1 - chance / (n * n));
}

static json_t *row_of(const layer_scores *s, sw_entity_counts *all) {
  sw_entity_counts sum = {0};
  for (size_t t = 0; t < s->metrics.num_types; t++) {
    sum.true_positive += s->metrics.counts[t].true_positive;
    sum.predicted += s->metrics.counts[t].predicted;
    sum.gold += s->metrics.counts[t].gold;
  }
  all->true_positive += sum.true_positive;
  all->predicted += sum.predicted;
  all->gold += sum.gold;
  const sw_entity_score score = sw_entity_score_of(sum);
  return json_pack("{s:f,s:f,s:f,s:f,s:I,s:I,s:I}", "precision", score.precision, "recall", score.recall, "f1", score.f1, "kappa", kappa(s), "spans_gold",
                   (json_int_t)sum.gold, "spans", (json_int_t)sum.predicted, "words", (json_int_t)s->words);
}

static void print_row(const char *name, const json_t *row) {
  printf("%-20s %9.4f %9.4f %9.4f", name, json_number_value(json_object_get(row, "precision")), json_number_value(json_object_get(row, "recall")),
         json_number_value(json_object_get(row, "f1")));
  const json_t *k = json_object_get(row, "kappa");
  if (k) printf(" %9.4f", json_number_value(k));
  else printf(" %9s", "");
  printf(" %9lld %9lld\n", (long long)json_integer_value(json_object_get(row, "spans_gold")), (long long)json_integer_value(json_object_get(row, "spans")));
}

/* Pairs up the examples of both sides and counts. */
static int compare(const sw_labels *gold, const sw_labels *other, layer_scores *scores, uint64_t *shared) {
  sw_table keys = {0};
  size_t *of = sw_alloc_array(gold->num_examples + 1, sizeof *of);
  uint8_t *seen = sw_alloc_array(gold->num_examples + 1, 1);
  int status = of && seen ? 0 : -1;
  for (size_t i = 0; i < gold->num_examples && !status; i++) {
    char *key = words_of(&gold->examples[i]);
    const size_t known = keys.count;
    const int64_t at = key ? sw_table_add(&keys, key) : -1;
    if (at < 0) status = -1;
    else if ((size_t)at == known) of[at] = i;
    free(key);
  }
  for (size_t i = 0; i < other->num_examples && !status; i++) {
    const sw_example *b = &other->examples[i];
    char *key = words_of(b);
    const int64_t at = key ? sw_table_find(&keys, key) : -1;
    if (!key) status = -1;
    free(key);
    if (status || at < 0 || seen[at] || !same_words(&gold->examples[of[at]], b)) continue;
    seen[at] = 1; /* a sentence counts once */
    ++*shared;
    const sw_example *a = &gold->examples[of[at]];
    for (size_t l = 0; l < gold->num_layers && !status; l++)
      status = add_example(&scores[l], a->tags + l * a->num_words, b->tags + l * b->num_words, a->num_words);
  }
  sw_table_close(&keys);
  free(of);
  free(seen);
  return status;
}

static int report(const sw_labels *gold, const layer_scores *scores, uint64_t shared, int json) {
  sw_entity_counts all = {0};
  json_t *layers = json_object(), *result = json_pack("{s:I,s:I,s:o}", "sentences", (json_int_t)shared, "sentences_gold", (json_int_t)gold->num_examples, "labels", layers);
  if (!result) return sw_fail("out of memory");
  if (!json) {
    printf("%llu sentence%s of %zu\n", (unsigned long long)shared, SW_S(shared), gold->num_examples);
    printf("%-20s %9s %9s %9s %9s %9s %9s\n", "label", "precision", "recall", "F1", "kappa", "of people", "of model");
  }
  for (size_t l = 0; l < gold->num_layers; l++) {
    json_t *row = row_of(&scores[l], &all);
    json_object_set_new(layers, scores[l].name, row);
    if (!json) print_row(scores[l].name, row);
  }
  const sw_entity_score score = sw_entity_score_of(all);
  json_t *micro = json_pack("{s:f,s:f,s:f,s:I,s:I}", "precision", score.precision, "recall", score.recall, "f1", score.f1, "spans_gold", (json_int_t)all.gold, "spans",
                            (json_int_t)all.predicted);
  json_object_set_new(result, "all", micro);
  if (!json) print_row("all", micro);
  char *text = json ? sw_json_canonical(result) : NULL;
  json_decref(result);
  if (text) puts(text);
  free(text);
  return json && !text ? -1 : 0;
}

int sw_label_audit(const char *gold_path, const char *labels_path, int json) {
  sw_labels gold = {0}, other = {0};
  uint64_t shared = 0;
  if (sw_labels_read(&gold_path, 1, NULL, NULL, &gold)) return -1;
  layer_scores *scores = sw_alloc_array(gold.num_layers + 1, sizeof *scores);
  /* in the gold's layers: what it does not label cannot be judged */
  int status = scores ? sw_labels_read(&labels_path, 1, NULL, &gold, &other) : -1;
  for (size_t l = 0; l < gold.num_layers && !status; l++) {
    const sw_layer *layer = &gold.layers[l];
    scores[l].name = layer->name;
    scores[l].tags = layer->num_labels;
    status = sw_entity_metrics_open(layer->labels, layer->num_labels, &scores[l].metrics);
    if (!status && !(scores[l].table = sw_alloc_array(scores[l].tags * scores[l].tags, sizeof *scores[l].table))) status = -1;
  }
  if (!status) status = compare(&gold, &other, scores, &shared);
  if (!status && !shared) status = sw_fail("%s and %s share no sentence; label the gold's own texts: skillwatch label GOLD --sentences ...", gold_path, labels_path);
  if (!status && other.rejected)
    fprintf(stderr, "label: %zu row%s of %s could not be used\n", other.rejected, SW_S(other.rejected), labels_path);
  if (!status) status = report(&gold, scores, shared, json);
  for (size_t l = 0; scores && l < gold.num_layers; l++) {
    sw_entity_metrics_close(&scores[l].metrics);
    free(scores[l].table);
  }
  free(scores);
  sw_labels_close(&other);
  sw_labels_close(&gold);
  return status;
}
