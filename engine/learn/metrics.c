#include "engine/learn/metrics.h"
#include "base/error.h"
#include "engine/data/labels.h"
#include "engine/learn/viterbi.h"

#include <stdlib.h>
#include <string.h>

int sw_entity_metrics_open(char *const *labels, size_t num_labels, sw_entity_metrics *out) {
  *out = (sw_entity_metrics){0};
  sw_viterbi_rules rules;
  if (sw_viterbi_rules_open(labels, num_labels, &rules)) return -1;
  sw_entity_counts *counts = sw_alloc_array(rules.num_types, sizeof *counts);
  if (!counts) {
    sw_viterbi_rules_close(&rules);
    return -1;
  }
  *out = (sw_entity_metrics){.num_types = rules.num_types,
                             .types = rules.types,
                             .counts = counts,
                             .type_of = rules.type_of,
                             .is_begin = rules.is_begin,
                             .num_labels = num_labels};
  free(rules.begin_of); /* the rest of it lives on here */
  return 0;
}

void sw_entity_metrics_close(sw_entity_metrics *m) {
  for (size_t t = 0; t < m->num_types; t++) free(m->types[t]);
  free(m->types);
  free(m->counts);
  free(m->type_of);
  free(m->is_begin);
  *m = (sw_entity_metrics){0};
}

/* The entity that a position may belong to, while a sequence is read from left to right. */
typedef struct {
  int32_t type; /* -1: outside */
  size_t start;
} open_entity;

/* What seqeval's start_of_chunk and end_of_chunk amount to for B, I and O: an entity ends before an O, a B and another
 * type; a B, and an I that continues nothing, begins one. `label` -1 stands for the O behind the end. 1: *closed has
 * ended at this position. */
static int step(const sw_entity_metrics *m, open_entity *now, int32_t label, size_t position, open_entity *closed) {
  int32_t type = label < 0 ? -1 : m->type_of[label];
  int begins = type >= 0 && (m->is_begin[label] || type != now->type);
  int ended = now->type >= 0 && (begins || type < 0);
  *closed = *now;
  if (begins) now->start = position;
  now->type = type;
  return ended;
}

int sw_entity_metrics_add(sw_entity_metrics *m, const int32_t *gold, const int32_t *predicted, size_t count) {
  for (size_t i = 0; i < count; i++) { /* before anything is counted */
    if (gold[i] == SW_IGNORE) continue;
    if (gold[i] < 0 || (size_t)gold[i] >= m->num_labels || predicted[i] < 0 || (size_t)predicted[i] >= m->num_labels)
      return sw_fail("tag %d or %d at position %zu is none of the %zu labels", (int)gold[i], (int)predicted[i], i,
                     m->num_labels);
  }
  open_entity g = {-1, 0}, p = {-1, 0}, g_closed, p_closed;
  size_t position = 0;
  for (size_t i = 0; i <= count; i++) {
    if (i < count && gold[i] == SW_IGNORE) continue;
    int g_ended = step(m, &g, i < count ? gold[i] : -1, position, &g_closed);
    int p_ended = step(m, &p, i < count ? predicted[i] : -1, position, &p_closed);
    if (g_ended) m->counts[g_closed.type].gold++;
    if (p_ended) m->counts[p_closed.type].predicted++;
    if (g_ended && p_ended && g_closed.type == p_closed.type && g_closed.start == p_closed.start)
      m->counts[g_closed.type].true_positive++;
    if (i == count) break;
    m->tags_right += gold[i] == predicted[i];
    m->tags++;
    position++;
  }
  return 0;
}

sw_entity_score sw_entity_score_of(sw_entity_counts c) {
  double precision = c.predicted ? (double)c.true_positive / (double)c.predicted : 0;
  double recall = c.gold ? (double)c.true_positive / (double)c.gold : 0;
  double sum = precision + recall;
  return (sw_entity_score){precision, recall, sum > 0 ? 2 * precision * recall / sum : 0, c.gold};
}

sw_entity_score sw_entity_micro(const sw_entity_counts *counts, size_t count) {
  sw_entity_counts all = {0};
  for (size_t t = 0; t < count; t++) {
    all.true_positive += counts[t].true_positive;
    all.predicted += counts[t].predicted;
    all.gold += counts[t].gold;
  }
  return sw_entity_score_of(all);
}

sw_entity_score sw_entity_macro(const sw_entity_counts *counts, size_t count) {
  sw_entity_score mean = {0};
  size_t types = 0;
  for (size_t t = 0; t < count; t++) {
    if (!counts[t].gold && !counts[t].predicted) continue;
    sw_entity_score score = sw_entity_score_of(counts[t]);
    mean.precision += score.precision;
    mean.recall += score.recall;
    mean.f1 += score.f1;
    mean.support += score.support;
    types++;
  }
  if (types) mean.precision /= (double)types, mean.recall /= (double)types, mean.f1 /= (double)types;
  return mean;
}

static json_t *score_json(sw_entity_score s) {
  return json_pack("{s:f,s:f,s:f,s:I}", "precision", s.precision, "recall", s.recall, "f1", s.f1, "support",
                   (json_int_t)s.support);
}

json_t *sw_entity_metrics_json(const sw_entity_metrics *m) {
  json_t *labels = json_object();
  int failed = !labels;
  for (size_t t = 0; t < m->num_types && !failed; t++)
    failed = json_object_set_new(labels, m->types[t], score_json(sw_entity_score_of(m->counts[t])));
  json_t *json = failed ? NULL
                        : json_pack("{s:o,s:o,s:f,s:O}", "micro", score_json(sw_entity_micro(m->counts, m->num_types)), "macro",
                                    score_json(sw_entity_macro(m->counts, m->num_types)), "accuracy",
                                    m->tags ? (double)m->tags_right / (double)m->tags : 0.0, "labels", labels);
  json_decref(labels);
  if (!json) sw_fail("cannot write the scores as JSON: out of memory, or a label that is not valid UTF-8");
  return json;
}
