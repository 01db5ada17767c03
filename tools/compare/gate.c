/* The promotion rule: the candidate (the last checkpoint) replaces the baseline (the first) only where it is no worse.
 */
#include "base/error.h"
#include "tools/compare/compare.h"

#include <string.h>

/* micro_f1, macro_f1: over all layers; a layer's name: its micro average. -1: no such thing. */
static int find_measure(const comparison *c, const char *metric) {
  for (size_t m = 0; m < c->num_measures; m++) {
    const compare_measure *measure = &c->measures[m];
    if (measure->layer < 0 ? !strcmp(metric, measure->kind == MICRO ? "micro_f1" : "macro_f1")
                           : measure->kind == MICRO && !strcmp(metric, c->sides[0].labels.layers[measure->layer].name))
      return (int)m;
  }
  return -1;
}

int compare_check_metrics(const comparison *c) {
  for (int i = 0; i < c->options->metrics.count; i++) {
    if (find_measure(c, c->options->metrics.items[i]) >= 0) continue;
    sw_buffer names = {0};
    int status = 0;
    for (size_t l = 0; l < c->num_layers && !status; l++)
      status = sw_buffer_print(&names, "%s%s", l ? ", " : "", c->sides[0].labels.layers[l].name);
    if (!status)
      sw_fail("--metric %s: use micro_f1, macro_f1 or a layer that is compared: %s", c->options->metrics.items[i],
              names.data);
    sw_buffer_close(&names);
    return -1;
  }
  return 0;
}

static int judge(comparison *c, const compare_section *s, const char *metric, size_t *refusals) {
  const size_t m = (size_t)find_measure(c, metric), last = c->num_sides - 1;
  const compare_result *old = compare_result_of(c, s, 0, m), *new = compare_result_of(c, s, last, m);
  if (!new->score.support)
    return sw_fail("%s labels nothing that %s counts, so the gate has nothing to judge by", s->name, metric);
  /* rounding is no reason to refuse: F1 is a ratio of counts */
  const double most = -c->options->margin - 1e-12,
               seen = c->options->confident ? new->difference_interval.high : new->difference;
  if (seen >= most) return 0;
  if ((*refusals)++) return 0; /* one is enough to say no, and to say why */
  return sw_buffer_print(
      &c->verdict,
      "%s is worse than %s on %s: %s %s %.4f after %.4f, %+.4f (95 %% interval %+.4f to %+.4f) with a margin of %g",
      c->sides[last].path, c->sides[0].path, s->name, metric, strstr(metric, "_f1") ? "is" : "has an F1 of",
      new->score.f1, old->score.f1, new->difference, new->difference_interval.low, new->difference_interval.high,
      c->options->margin);
}

int compare_judge(comparison *c) {
  static const char *usual[] = {"micro_f1"};
  const sw_list *given = &c->options->metrics;
  const int count = given->count ? given->count : 1;
  size_t refusals = 0;
  if (c->missing)
    return sw_buffer_print(&c->verdict, "%s cannot replace %s, whose layers it lacks: %s",
                           c->sides[c->num_sides - 1].path, c->sides[0].path, c->missing);
  for (size_t i = 0; i < c->gold.num_files; i++)
    for (int k = 0; k < count; k++)
      if (judge(c, &c->sections[i], given->count ? given->items[k] : usual[0], &refusals)) return -1;
  return refusals > 1 ? sw_buffer_print(&c->verdict, "; and %zu more", refusals - 1) : 0;
}
