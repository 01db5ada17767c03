/* Examples where checkpoints find other spans than the first one does. */
#include "base/error.h"
#include "base/file.h"
#include "tools/compare/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- finding them --- */

static int64_t errors_of(const comparison *c, size_t example, size_t side) {
  const uint32_t *gold = c->counts + example * c->columns, *own = gold + c->num_types * (1 + 2 * side);
  int64_t errors = 0;
  for (size_t t = 0; t < c->num_types; t++) errors += (int64_t)gold[t] + own[2 * t] - 2 * (int64_t)own[2 * t + 1];
  return errors;
}

/* Whether the example's spans differ, and how sure both sides are of the words they differ in. */
static int differs(const comparison *c, size_t example, const compare_side *s, sw_entity *spans, double *sureness) {
  const compare_side *first = &c->sides[0];
  const size_t n = c->gold.examples[example].num_words;
  int differ = 0;
  *sureness = 0;
  for (size_t l = 0; l < c->num_layers; l++) {
    if (s->labels.examples[example].tags[l * n] == SW_IGNORE) continue;
    const size_t at = l * s->words.num_words + c->first_word[example];
    const int32_t *own = s->words.tags + at, *other = first->words.tags + at;
    const size_t count = sw_entities(&s->rules[l], own, NULL, n, spans),
                 other_count = sw_entities(&first->rules[l], other, NULL, n, spans + n);
    differ |= count != other_count;
    for (size_t i = 0; i < count && i < other_count; i++)
      differ |= spans[i].start != spans[n + i].start || spans[i].end != spans[n + i].end ||
                spans[i].type != spans[n + i].type;
    for (size_t w = 0; w < n; w++)
      if (strcmp(s->labels.layers[l].labels[own[w]], first->labels.layers[l].labels[other[w]]) &&
          !isnan(s->words.log_probs[at + w]) && !isnan(first->words.log_probs[at + w]))
        *sureness += exp((double)s->words.log_probs[at + w] + (double)first->words.log_probs[at + w]);
  }
  return differ;
}

/* By side; what changed most first, then what both are most sure of. */
static int more_telling(const void *a, const void *b) {
  const compare_disagreement *x = a, *y = b;
  if (x->side != y->side) return x->side < y->side ? -1 : 1;
  if (llabs(x->gain) != llabs(y->gain)) return llabs(x->gain) > llabs(y->gain) ? -1 : 1;
  if (x->sureness != y->sureness) return x->sureness > y->sureness ? -1 : 1;
  return x->example < y->example ? -1 : x->example > y->example;
}

int compare_disagree(comparison *c) {
  size_t longest = 0;
  for (size_t i = 0; i < c->gold.num_examples; i++)
    if (c->gold.examples[i].num_words > longest) longest = c->gold.examples[i].num_words;
  sw_entity *spans = sw_alloc_array(longest, 2 * sizeof *spans);
  c->disagreements = sw_alloc_array(c->gold.num_examples, c->num_sides * sizeof *c->disagreements);
  if (!spans || !c->disagreements) {
    free(spans);
    return -1;
  }
  for (uint32_t k = 1; k < c->num_sides; k++)
    for (size_t i = 0; i < c->gold.num_examples; i++) {
      compare_disagreement d = {.example = (uint32_t)i, .side = k, .gain = errors_of(c, i, 0) - errors_of(c, i, k)};
      if (differs(c, i, &c->sides[k], spans, &d.sureness)) c->disagreements[c->num_disagreements++] = d;
    }
  qsort(c->disagreements, c->num_disagreements, sizeof *c->disagreements, more_telling);
  free(spans);
  return 0;
}

void compare_disagreements_of(const comparison *c, size_t side, size_t *first, size_t *end) {
  *first = 0;
  while (*first < c->num_disagreements && c->disagreements[*first].side < side) ++*first;
  *end = *first;
  while (*end < c->num_disagreements && c->disagreements[*end].side == side) ++*end;
}

/* --- showing them --- */

/* A span as it is shown: its text, its label, its layer where that is another name. */
typedef int (*visitor)(void *to, const sw_example *example, const sw_entity *span, const char *label,
                       const char *layer);

/* The gold spans of an example (side -1), or what a side finds. */
static int each_span(const comparison *c, size_t index, int side, visitor visit, void *to) {
  const compare_side *s = &c->sides[side < 0 ? 0 : side];
  const sw_example *e = &s->labels.examples[index];
  sw_entity *spans = sw_alloc_array(e->num_words, sizeof *spans);
  int status = spans ? 0 : -1;
  for (size_t l = 0; l < c->num_layers && !status; l++) {
    const int32_t *gold = e->tags + l * e->num_words;
    if (*gold == SW_IGNORE) continue;
    const int32_t *tags = side < 0 ? gold : s->words.tags + l * s->words.num_words + c->first_word[index];
    const size_t count = sw_entities(&s->rules[l], tags, NULL, e->num_words, spans);
    for (size_t i = 0; i < count && !status; i++) {
      const char *layer = s->labels.layers[l].name, *type = s->rules[l].types[spans[i].type];
      status = visit(to, e, &spans[i], *type ? type : layer, layer);
    }
  }
  free(spans);
  return status;
}

static int add_json(void *to, const sw_example *e, const sw_entity *span, const char *label, const char *layer) {
  const sw_span *first = &e->words[span->start], *last = &e->words[span->end - 1];
  json_t *row =
      json_pack("{s:I,s:I,s:s#,s:s,s:s}", "start", (json_int_t)first->start, "end", (json_int_t)last->end, "text",
                e->text + first->byte_start, (int)(last->byte_end - first->byte_start), "label", label, "layer", layer);
  return json_array_append_new(to, row) ? sw_fail("the disagreements could not be written as JSON") : 0;
}

json_t *compare_disagreement_json(const comparison *c, const compare_disagreement *d) {
  const sw_example *e = &c->gold.examples[d->example];
  const char *name = c->sides[d->side].name;
  json_t *gold = json_array(), *first = json_array(), *other = json_array();
  json_t *row = json_pack("{s:s,s:I,s:s#,s:{s:I,s:I},s:f,s:o,s:o,s:o}", "data", c->gold.files[e->file].path, "line",
                          (json_int_t)e->line, "text", e->text, (int)e->bytes, "errors", "A",
                          (json_int_t)errors_of(c, d->example, 0), name, (json_int_t)errors_of(c, d->example, d->side),
                          "sureness", d->sureness, "gold", gold, "A", first, name, other);
  if (!row) sw_fail("the disagreements could not be written as JSON: a file name is not valid UTF-8, or out of memory");
  if (row && (each_span(c, d->example, -1, add_json, gold) || each_span(c, d->example, 0, add_json, first) ||
              each_span(c, d->example, (int)d->side, add_json, other))) {
    json_decref(row);
    row = NULL;
  }
  return row;
}

int compare_write_disagreements(const comparison *c, const char *path) {
  sw_output output;
  if (sw_output_open(&output, path)) return -1;
  for (size_t i = 0; i < c->num_disagreements; i++) {
    json_t *row = compare_disagreement_json(c, &c->disagreements[i]);
    if (!row) {
      sw_output_abandon(&output);
      return -1;
    }
    json_dumpf(row, output.file, JSON_COMPACT | JSON_SORT_KEYS); /* what cannot be written is found by commit */
    fputc('\n', output.file);
    json_decref(row);
  }
  return sw_output_commit(&output);
}

/* On one line. */
static void print_text(FILE *to, const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) fputc((unsigned char)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i], to);
}

typedef struct {
  FILE *to;
  size_t count;
} printer;

static int print_span(void *to, const sw_example *e, const sw_entity *span, const char *label, const char *layer) {
  printer *p = to;
  const sw_span *first = &e->words[span->start], *last = &e->words[span->end - 1];
  fputs(p->count++ ? " | " : "", p->to);
  print_text(p->to, e->text + first->byte_start, last->byte_end - first->byte_start);
  fprintf(p->to, strcmp(label, layer) ? " [%s %s]" : " [%s]", layer, label);
  return 0;
}

static void print_spans(const comparison *c, FILE *to, const char *name, size_t example, int side) {
  printer p = {.to = to};
  fprintf(to, "    %-5s ", name);
  each_span(c, example, side, print_span, &p);
  fputs(p.count ? "\n" : "-\n", to);
}

void compare_print_disagreements(const comparison *c, FILE *to) {
  for (size_t k = 1; k < c->num_sides; k++) {
    size_t first, end, better = 0, worse = 0, shown = (size_t)c->options->disagreements;
    const char *name = c->sides[k].name;
    compare_disagreements_of(c, k, &first, &end);
    for (size_t i = first; i < end; i++) better += c->disagreements[i].gain > 0, worse += c->disagreements[i].gain < 0;
    fprintf(to, "A and %s find other spans in %zu of %zu example%s: %s makes fewer errors in %zu of them, A in %zu\n",
            name, end - first, c->gold.num_examples, SW_S(c->gold.num_examples), name, better, worse);
    for (size_t i = first; i < end && i < first + shown; i++) {
      const compare_disagreement *d = &c->disagreements[i];
      const sw_example *e = &c->gold.examples[d->example];
      fprintf(to, "  %s:%llu  ", c->gold.files[e->file].path, (unsigned long long)e->line);
      print_text(to, e->text, e->bytes);
      fputc('\n', to);
      print_spans(c, to, "gold", d->example, -1);
      print_spans(c, to, "A", d->example, 0);
      print_spans(c, to, name, d->example, (int)d->side);
    }
    fputc('\n', to);
  }
}
