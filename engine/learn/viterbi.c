#include "engine/learn/viterbi.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The type of a label: "" for B and I, NULL for O; *known = 0 for what is no B/I/O tag. */
static const char *type_name(const char *label, int *known) {
  *known = !strcmp(label, "O") || !strcmp(label, "B") || !strcmp(label, "I") ||
           ((label[0] == 'B' || label[0] == 'I') && label[1] == '-' && label[2]);
  return !*known || label[0] == 'O' ? NULL : label[1] ? label + 2 : "";
}

int sw_viterbi_rules_open(char *const *labels, size_t num_labels, sw_viterbi_rules *out) {
  *out = (sw_viterbi_rules){.num_labels = num_labels,
                            .types = sw_alloc_array(num_labels, sizeof *out->types),
                            .type_of = sw_alloc_array(num_labels, sizeof *out->type_of),
                            .is_begin = sw_alloc_array(num_labels, sizeof *out->is_begin),
                            .begin_of = sw_alloc_array(num_labels, sizeof *out->begin_of)};
  int known, status = out->types && out->type_of && out->is_begin && out->begin_of ? 0 : -1;
  if (!status && !num_labels) status = sw_fail("a tagger needs at least the label \"O\"");
  for (size_t i = 0; i < num_labels && !status; i++) {
    const char *type = type_name(labels[i], &known);
    if (!known)
      status =
          sw_fail("the label \"%.60s\" is no B/I/O tag: \"O\", \"B\", \"I\", \"B-<type>\" or \"I-<type>\" was expected",
                  labels[i]);
    size_t t = 0;
    while (type && t < out->num_types && strcmp(out->types[t], type)) t++;
    if (status || !type || t < out->num_types) continue;
    if (!(out->types[t] = sw_strdup(type))) status = -1;
    out->num_types += !status;
  }
  if (status) {
    sw_viterbi_rules_close(out);
    return -1;
  }
  qsort(out->types, out->num_types, sizeof *out->types, compare_names);
  for (size_t t = 0; t < out->num_types; t++) out->begin_of[t] = -1;
  for (size_t i = 0; i < num_labels; i++) {
    const char *type = type_name(labels[i], &known);
    out->type_of[i] = -1;
    if (!type) continue;
    char **at = bsearch(&type, out->types, out->num_types, sizeof *out->types, compare_names);
    out->type_of[i] = (int32_t)(at - out->types);
    out->is_begin[i] = labels[i][0] == 'B';
    if (out->is_begin[i]) out->begin_of[out->type_of[i]] = (int32_t)i;
  }
  return 0;
}

void sw_viterbi_rules_close(sw_viterbi_rules *rules) {
  for (size_t t = 0; t < rules->num_types; t++) free(rules->types[t]);
  free(rules->types);
  free(rules->type_of);
  free(rules->is_begin);
  free(rules->begin_of);
  *rules = (sw_viterbi_rules){0};
}

static int decode(const sw_viterbi_rules *rules, const float *log_probs, size_t count, int32_t *tags, double *before,
                  int32_t *back) {
  size_t labels = rules->num_labels;
  double *now =
      before + labels; /* sums of the best sequences that end in each label, at the position before and at this one */
  int32_t best_before = -1;
  for (size_t t = 0; t < count; t++) {
    int32_t best = -1;
    for (size_t j = 0; j < labels; j++) {
      float p = log_probs[t * labels + j];
      if (!(p < INFINITY))
        return sw_fail("the log probability of label %zu at position %zu is %s", j, t, isnan(p) ? "NaN" : "infinite");
      int32_t from = best_before;
      if (rules->type_of[j] >= 0 && !rules->is_begin[j]) { /* I: only behind B or I of its own type */
        int32_t begin = rules->begin_of[rules->type_of[j]];
        from = -1;
        if (t > 0) {
          int inside_valid = back[(t - 1) * labels + j] >= 0;
          /* of equal ones the smaller label */
          if (begin >= 0 &&
              (!inside_valid || before[begin] > before[j] || (before[begin] == before[j] && begin < (int32_t)j)))
            from = begin;
          else if (inside_valid)
            from = (int32_t)j;
        }
        back[t * labels + j] = from;
        if (from < 0) continue;
      } else {
        back[t * labels + j] = t ? from : 0;
      }
      now[j] = (t ? before[from] : 0) + (double)p;
      if (best < 0 || now[j] > now[best]) best = (int32_t)j;
    }
    if (best < 0) return sw_fail("no valid sequence: the layer has no label \"O\" and no B");
    best_before = best;
    double *swap = before;
    before = now;
    now = swap;
  }
  for (size_t t = count; t-- > 0;) {
    tags[t] = best_before;
    best_before = back[t * labels + (size_t)best_before];
  }
  return 0;
}

int sw_viterbi_decode(const sw_viterbi_rules *rules, const float *log_probs, size_t count, int32_t *tags) {
  /* back: [count][labels], the best label before; -1: the label cannot stand here */
  double *sums = sw_alloc_array(rules->num_labels, 2 * sizeof *sums);
  int32_t *back = sw_alloc_array(count, rules->num_labels * sizeof *back);
  int status = sums && back ? decode(rules, log_probs, count, tags, sums, back) : -1;
  free(sums);
  free(back);
  return status;
}

size_t sw_entities(const sw_viterbi_rules *rules, const int32_t *tags, const float *log_probs, size_t count,
                   sw_entity *out) {
  size_t found = 0;
  int32_t open = -1; /* type of the entity that the position before belongs to */
  double sum = 0;
  for (size_t t = 0; t <= count; t++) {
    int32_t type = t < count ? rules->type_of[tags[t]] : -1;
    int begins = type >= 0 && (rules->is_begin[tags[t]] || type != open);
    if (open >= 0 && (begins || type < 0)) {
      sw_entity *e = &out[found++];
      e->end = (uint32_t)t;
      e->score = (float)(sum / (double)(e->end - e->start));
    }
    if (begins) {
      out[found] = (sw_entity){.start = (uint32_t)t, .type = type};
      sum = 0;
    }
    if (type >= 0 && log_probs) sum += exp((double)log_probs[t * rules->num_labels + (size_t)tags[t]]);
    open = type;
  }
  return found;
}
