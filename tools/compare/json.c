#include "base/error.h"
#include "tools/compare/compare.h"

#include <math.h>
#include <string.h>

/* json_pack("o") gives up on a NULL and frees the rest, so that what fails inside makes the whole NULL. */

static json_t *interval_json(sw_interval i) {
  return json_pack("[f,f]", i.low, i.high);
}

static json_t *result_json(const comparison *c, const compare_section *s, size_t side, size_t measure) {
  const compare_result *r = compare_result_of(c, s, side, measure);
  json_t *row =
      json_pack("{s:f,s:f,s:f,s:I,s:o}", "precision", r->score.precision, "recall", r->score.recall, "f1", r->score.f1,
                "support", (json_int_t)r->score.support, "f1_interval", interval_json(r->interval));
  if (row && side)
    json_object_set_new(
        row, "difference",
        json_pack("{s:f,s:o,s:f}", "f1", r->difference, "interval", interval_json(r->difference_interval), "p", r->p));
  return row;
}

/* What a layer, or all of them, says of words. */
static int add_words(json_t *to, const comparison *c, const compare_section *s, size_t side, size_t layer) {
  const compare_words *w = compare_words_of(c, s, side, layer);
  json_t *bins = json_array();
  for (int i = 0; bins && i < SW_CALIBRATION_BINS; i++) {
    const double n = (double)w->calibration.count[i];
    json_array_append_new(bins,
                          json_pack("{s:f,s:f,s:I,s:o,s:o}", "low", (double)i / SW_CALIBRATION_BINS, "high",
                                    (i + 1.0) / SW_CALIBRATION_BINS, "words", (json_int_t)w->calibration.count[i],
                                    "probability", n > 0 ? json_real(w->calibration.probability[i] / n) : json_null(),
                                    "accuracy", n > 0 ? json_real((double)w->calibration.right[i] / n) : json_null()));
  }
  int failed = json_object_set_new(to, "accuracy", json_real(w->words ? (double)w->right / (double)w->words : 0)) ||
               json_object_set_new(to, "loss", json_real(w->loss)) ||
               json_object_set_new(to, "words", json_integer((json_int_t)w->words)) ||
               json_object_set_new(to, "calibration",
                                   json_pack("{s:f,s:o}", "ece", sw_calibration_error(&w->calibration), "bins", bins));
  if (!failed && side)
    failed = json_object_set_new(to, "mcnemar",
                                 json_pack("{s:I,s:I,s:f}", "only_this_right", (json_int_t)w->only_this,
                                           "only_first_right", (json_int_t)w->only_first, "p", w->p));
  return failed ? -1 : 0;
}

/* In the form of skillwatch eval, with more in it. */
static json_t *scores_json(const comparison *c, const compare_section *s, size_t side) {
  json_t *all = json_object(), *layers = json_object();
  int failed = !all || !layers || add_words(all, c, s, side, c->num_layers);
  for (size_t m = 0; m < c->num_measures && !failed; m++) {
    const compare_measure *measure = &c->measures[m];
    if (!compare_is_labelled(c, s, measure->layer)) continue;
    json_t *to = all;
    if (measure->layer >= 0) {
      const char *name = c->sides[0].labels.layers[measure->layer].name;
      if (!(to = json_object_get(layers, name))) {
        to = json_pack("{s:{}}", "labels");
        failed = json_object_set_new(layers, name, to) || add_words(to, c, s, side, (size_t)measure->layer);
      }
    }
    failed = failed || json_object_set_new(measure->kind == LABEL ? json_object_get(to, "labels") : to, measure->name,
                                           result_json(c, s, side, m));
  }
  if (!failed && !json_object_set(all, "layers", layers)) {
    json_decref(layers);
    return all;
  }
  json_decref(all);
  json_decref(layers);
  return NULL;
}

static json_t *section_json(const comparison *c, size_t index) {
  const compare_section *s = &c->sections[index];
  json_t *scores = json_array(),
         *row = json_pack("{s:I,s:O}", "examples", (json_int_t)(s->end - s->first), "scores", scores);
  int failed = !row;
  for (size_t k = 0; k < c->num_sides && !failed; k++) failed = json_array_append_new(scores, scores_json(c, s, k));
  json_decref(scores);
  if (!failed && index < c->gold.num_files) {
    const struct sw_data_file *f = &c->gold.files[index];
    failed = json_object_set_new(row, "path", json_string(f->path)) ||
             json_object_set_new(row, "sha256", json_string(f->sha256)) ||
             json_object_set_new(row, "rows", json_integer((json_int_t)f->rows)) ||
             json_object_set_new(row, "rejected", json_integer((json_int_t)f->rejected));
  }
  if (!failed) return row;
  json_decref(row);
  return NULL;
}

static json_t *side_json(const comparison *c, size_t side) {
  const compare_side *s = &c->sides[side];
  json_t *row = json_pack("{s:s,s:s,s:s,s:s,s:I,s:I}", "name", s->name, "path", s->path, "sha256",
                          s->checkpoint.content_sha256, "created", s->checkpoint.created, "parameters",
                          (json_int_t)s->parameters, "bytes", (json_int_t)s->bytes);
  int failed = !row;
  if (!failed && c->options->speed)
    failed = json_object_set_new(row, "speed",
                                 json_pack("{s:f,s:{s:f,s:f}}", "tokens_per_second", s->tokens_per_second, "latency_ms",
                                           "p50", s->latency_median, "p95", s->latency_high));
  if (!failed && side) {
    json_t *cosine =
        isnan(s->cosine_mean) ? json_null() : json_pack("{s:f,s:f}", "mean", s->cosine_mean, "p01", s->cosine_low);
    failed = json_object_set_new(
        row, "drift",
        json_pack("{s:o,s:f,s:I}", "cosine", cosine, "cka", s->cka, "sentences", (json_int_t)c->drift_sentences));
  }
  if (!failed) return row;
  json_decref(row);
  return NULL;
}

static json_t *disagreements_json(const comparison *c) {
  json_t *list = json_array();
  for (size_t k = 1; k < c->num_sides; k++) {
    size_t first, end, shown = (size_t)c->options->disagreements;
    compare_disagreements_of(c, k, &first, &end);
    for (size_t i = first; i < end && i < first + shown; i++)
      if (json_array_append_new(list, compare_disagreement_json(c, &c->disagreements[i]))) {
        json_decref(list);
        return NULL;
      }
  }
  return list;
}

static json_t *gate_json(const comparison *c) {
  json_t *metrics = json_array();
  for (int i = 0; i < c->options->metrics.count; i++)
    json_array_append_new(metrics, json_string(c->options->metrics.items[i]));
  if (!json_array_size(metrics)) json_array_append_new(metrics, json_string("micro_f1"));
  json_t *why = c->verdict.size ? json_string(c->verdict.data) : json_null();
  return json_pack("{s:b,s:o,s:f,s:b,s:o}", "passed", c->verdict.size == 0, "reason", why, "margin", c->options->margin,
                   "confident", c->options->confident, "metrics", metrics);
}

json_t *compare_json(const comparison *c) {
  const compare_options *o = c->options;
  json_t *sides = json_array(), *data = json_array();
  int failed = !sides || !data;
  for (size_t k = 0; k < c->num_sides && !failed; k++) failed = json_array_append_new(sides, side_json(c, k));
  for (size_t i = 0; i < c->gold.num_files && !failed; i++) failed = json_array_append_new(data, section_json(c, i));
  json_t *all = failed ? NULL
                       : json_pack("{s:O,s:O,s:o,s:o,s:s,s:s,s:s,s:i,s:i,s:f,s:I}", "checkpoints", sides, "data", data,
                                   "all", section_json(c, c->num_sections - 1), "disagreements", disagreements_json(c),
                                   "decode", o->decode, "dtype", o->dtype, "left_out",
                                   c->left_out.size ? c->left_out.data : "", "resamples", o->resamples, "seed", o->seed,
                                   "level", COMPARE_LEVEL, "disagreeing", (json_int_t)c->num_disagreements);
  json_decref(sides);
  json_decref(data);
  if (all && o->gate && json_object_set_new(all, "gate", gate_json(c))) {
    json_decref(all);
    all = NULL;
  }
  if (!all) sw_fail("the comparison could not be written as JSON: a file name is not valid UTF-8, or out of memory");
  return all;
}
