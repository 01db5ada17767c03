#include "base/error.h"
#include "tools/compare/compare.h"

#include <math.h>
#include <string.h>

/* `name`, and spaces up to `width` code points. */
static void print_name(FILE *to, size_t width, const char *name) {
  const size_t points = sw_count_code_points(name, strlen(name));
  fprintf(to, "  %s%*s", name, (int)(points < width ? width - points : 0), "");
}

static const char *p_text(double p, char out[16]) {
  snprintf(out, 16, p < 0.001 ? "<0.001" : "%.3f", p);
  return out;
}

static const char *layer_name(const comparison *c, int layer) {
  return layer < 0 ? "all layers" : c->sides[0].labels.layers[layer].name;
}

static size_t first_column(const comparison *c) {
  size_t width = 0;
  for (size_t m = 0; m < c->num_measures; m++) {
    const char *names[] = {layer_name(c, c->measures[m].layer), c->measures[m].name};
    for (int i = 0; i < 2; i++) {
      const size_t points = sw_count_code_points(names[i], strlen(names[i]));
      width = points > width ? points : width;
    }
  }
  return width;
}

static void print_scores(const comparison *c, const compare_section *s, size_t width, FILE *to) {
  char p[16];
  fprintf(to, "%-*s    precision    recall        F1  95 %% interval       to A  95 %% interval               p\n",
          (int)width + 2, "");
  int layer = -2;
  for (size_t m = 0; m < c->num_measures; m++) {
    if (!compare_is_shown(c, s, m)) continue;
    const compare_measure *measure = &c->measures[m];
    if (measure->layer != layer)
      fprintf(to, "%s, %llu span%s\n", layer_name(c, measure->layer),
              (unsigned long long)compare_result_of(c, s, 0, m)->score.support,
              SW_S(compare_result_of(c, s, 0, m)->score.support));
    layer = measure->layer;
    for (size_t k = 0; k < c->num_sides; k++) {
      const compare_result *r = compare_result_of(c, s, k, m);
      print_name(to, width, k ? "" : measure->name);
      fprintf(to, " %s   %9.4f %9.4f %9.4f  %.4f .. %.4f", c->sides[k].name, r->score.precision, r->score.recall,
              r->score.f1, r->interval.low, r->interval.high);
      if (k)
        fprintf(to, "  %+.4f  %+.4f .. %+.4f %7s", r->difference, r->difference_interval.low,
                r->difference_interval.high, p_text(r->p, p));
      fputc('\n', to);
    }
  }
}

static void print_words(const comparison *c, const compare_section *s, size_t width, FILE *to) {
  char p[16];
  size_t labelled = 0;
  fprintf(to, "\n%-*s     accuracy      loss       ECE  right: only here  only in A  McNemar's p\n", (int)width + 2,
          "words");
  for (size_t l = 0; l <= c->num_layers; l++) {
    if (l < c->num_layers && !compare_is_labelled(c, s, (int)l)) continue;
    if (l == c->num_layers && labelled < 2) continue;
    labelled++;
    for (size_t k = 0; k < c->num_sides; k++) {
      const compare_words *w = compare_words_of(c, s, k, l);
      print_name(to, width, k ? "" : layer_name(c, l < c->num_layers ? (int)l : -1));
      fprintf(to, " %s   %9.4f %9.4f %9.4f", c->sides[k].name, w->words ? (double)w->right / (double)w->words : 0,
              w->loss, sw_calibration_error(&w->calibration));
      if (k)
        fprintf(to, "  %16llu  %9llu  %11s", (unsigned long long)w->only_this, (unsigned long long)w->only_first,
                p_text(w->p, p));
      fputc('\n', to);
    }
  }
}

static void print_sides(const comparison *c, FILE *to) {
  size_t width = strlen("checkpoint");
  for (size_t k = 0; k < c->num_sides; k++) {
    const size_t points = sw_count_code_points(c->sides[k].path, strlen(c->sides[k].path));
    width = points > width ? points : width;
  }
  fprintf(to, "   %-*s  parameters         bytes", (int)width, "checkpoint");
  if (c->options->speed) fputs("   tokens/s  ms/sentence      95th", to);
  fputs("   cosine to A   1 % below       CKA\n", to);
  for (size_t k = 0; k < c->num_sides; k++) {
    const compare_side *s = &c->sides[k];
    fputs(s->name, to);
    print_name(to, width, s->path);
    fprintf(to, "  %10llu  %12llu", (unsigned long long)s->parameters, (unsigned long long)s->bytes);
    if (c->options->speed)
      fprintf(to, "  %9.0f  %11.2f  %8.2f", s->tokens_per_second, s->latency_median, s->latency_high);
    if (k && isnan(s->cosine_mean)) fprintf(to, "  %12s  %10s  %8.4f", "other size", "", s->cka);
    if (k && !isnan(s->cosine_mean)) fprintf(to, "  %12.4f  %10.4f  %8.4f", s->cosine_mean, s->cosine_low, s->cka);
    fputc('\n', to);
  }
  fputc('\n', to);
}

void compare_print(const comparison *c, FILE *to) {
  const size_t width = first_column(c);
  print_sides(c, to);
  for (size_t i = 0; i < c->num_sections; i++) {
    const compare_section *s = &c->sections[i];
    fprintf(to, "%s: %zu example%s", s->name, s->end - s->first, SW_S(s->end - s->first));
    if (i < c->gold.num_files && c->gold.files[i].rejected)
      fprintf(to, ", %zu row%s set aside", c->gold.files[i].rejected, SW_S(c->gold.files[i].rejected));
    fputc('\n', to);
    print_scores(c, s, width, to);
    print_words(c, s, width, to);
    fputc('\n', to);
  }
  compare_print_disagreements(c, to);
  if (c->left_out.size) fprintf(to, "layers left out: %s\n", c->left_out.data);
  fprintf(to,
          "intervals and p: paired bootstrap over examples, %d resamples; decoded by %s; drift over %zu sentence%s\n",
          c->options->resamples, c->options->decode, c->drift_sentences, SW_S(c->drift_sentences));
  if (c->options->gate) fprintf(to, "gate: %s\n", c->verdict.size ? c->verdict.data : "passed");
}
