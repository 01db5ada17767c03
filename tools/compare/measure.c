#include "base/error.h"
#include "base/progress.h"
#include "engine/learn/drift.h"
#include "tools/compare/compare.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BATCH = 1024, DRIFT_SENTENCES = 4096, LATENCY_SENTENCES = 200 };

static void close_side(compare_side *s) {
  sw_eval_words_close(&s->words);
  sw_eval_set_close(s->set);
  for (size_t i = 0; s->rules && i < s->labels.num_layers; i++) sw_viterbi_rules_close(&s->rules[i]);
  free(s->rules);
  free(s->labels.layers);
  free(s->labels.examples);
  free(s->tags);
  if (s->run) sw_run_close(s->run);
  sw_model_close(s->model);
  sw_tokenizer_close(s->tokenizer);
  sw_checkpoint_close(&s->checkpoint);
}

void compare_close(comparison *c) {
  for (size_t k = 0; k < c->num_sides; k++) close_side(&c->sides[k]);
  for (size_t i = 0; c->sections && i < c->num_sections; i++) free(c->sections[i].results), free(c->sections[i].words);
  sw_labels_close(&c->gold);
  sw_buffer_close(&c->left_out);
  sw_buffer_close(&c->verdict);
  free(c->first_word), free(c->missing), free(c->measures), free(c->sections), free(c->counts), free(c->disagreements);
  sw_device_close(c->device);
}

/* --- checkpoints, and the layers that all of them have --- */

static int open_side(comparison *c, compare_side *s) {
  struct stat status;
  if (sw_checkpoint_read(s->path, &s->checkpoint)) return -1;
  if (stat(s->path, &status)) return sw_fail("cannot read %s: %s", s->path, strerror(errno));
  s->bytes = (uint64_t)status.st_size;
  if (s->checkpoint.vocab_size == 0) return sw_fail("%s has no tokenizer, so it cannot read text", s->path);
  if (sw_checkpoint_tokenizer(&s->checkpoint, &s->tokenizer) ||
      sw_model_open(&c->stream, &s->checkpoint, strcmp(c->options->dtype, "bf16") ? SW_F32 : SW_BF16, SW_INFERENCE, &s->model))
    return sw_fail_in("%s", s->path);
  sw_tensors_close(&s->checkpoint.weights); /* they are in the model now */
  s->checkpoint.weights = (sw_tensors){0};
  for (size_t i = 0; i < s->model->num_parameters; i++) s->parameters += s->model->parameters[i].count;
  const int positions = s->model->config.max_positions;
  s->batch_tokens = c->options->batch_tokens > positions ? c->options->batch_tokens : positions;
  return sw_run_open(&c->stream, s->model, s->batch_tokens, MAX_BATCH, 0, &s->run);
}

static int has_label(const sw_layer *layer, const char *label, int32_t *at) {
  for (*at = 0; (size_t)*at < layer->num_labels; ++*at)
    if (!strcmp(layer->labels[*at], label)) return 1;
  return 0;
}

static const sw_layer *find_layer(const sw_labels *labels, const char *name) {
  for (size_t i = 0; i < labels->num_layers; i++)
    if (!strcmp(labels->layers[i].name, name)) return &labels->layers[i];
  return NULL;
}

/* What keeps `other` from being compared in this layer; NULL: nothing. */
static const char *why_not(const sw_layer *layer, const sw_labels *other) {
  const sw_layer *same = find_layer(other, layer->name);
  if (!same) return "not in";
  int32_t at, differ = same->num_labels != layer->num_labels;
  for (size_t i = 0; i < layer->num_labels; i++) differ |= !has_label(same, layer->labels[i], &at);
  return differ ? "other labels in" : NULL;
}

static int add_reason(sw_buffer *to, const char *name, size_t bytes, const char *why, const char *where) {
  return sw_buffer_print(to, "%s%.*s (%s%s%s)", to->size ? ", " : "", (int)bytes, name, why, *where ? " " : "", where);
}

/* The layers of the first checkpoint that all others have, too, borrowed; the rest is named. */
static int share_layers(comparison *c, sw_labels *layers, sw_labels *shared) {
  sw_buffer missing = {0};
  int status = 0;
  *shared = (sw_labels){.layers = sw_alloc_array(layers[0].num_layers, sizeof(sw_layer))};
  if (!shared->layers) return -1;
  for (size_t i = 0; i < layers[0].num_layers && !status; i++) {
    const sw_layer *layer = &layers[0].layers[i];
    const char *why = NULL;
    for (size_t k = 1; k < c->num_sides && !status; k++) {
      const char *here = why_not(layer, &layers[k]);
      if (here && !why) status = add_reason(&c->left_out, layer->name, strlen(layer->name), here, c->sides[k].name);
      if (here && k + 1 == c->num_sides && !status)
        status = add_reason(&missing, layer->name, strlen(layer->name), here, c->sides[k].name);
      if (here) why = here;
    }
    if (!why) shared->layers[shared->num_layers++] = *layer;
  }
  for (size_t k = 1; k < c->num_sides && !status; k++)
    for (size_t i = 0; i < layers[k].num_layers && !status; i++) {
      const char *name = layers[k].layers[i].name;
      int named = find_layer(&layers[0], name) != NULL;
      for (size_t before = 1; before < k; before++) named |= find_layer(&layers[before], name) != NULL;
      if (!named) status = add_reason(&c->left_out, name, strlen(name), "not in", c->sides[0].name);
    }
  if (!status && missing.size && !(c->missing = sw_buffer_take(&missing))) status = -1;
  sw_buffer_close(&missing);
  return status;
}

int compare_open(comparison *c, const compare_options *options, const sw_list *checkpoints) {
  c->options = options;
  if (sw_device_choose(options->device, options->json, &c->device) ||
      sw_stream_open(c->device, options->threads, &c->stream))
    return -1;
  for (int k = 0; k < checkpoints->count; k++) {
    compare_side *s = &c->sides[c->num_sides++];
    s->path = checkpoints->items[k];
    s->name[0] = (char)('A' + k);
    sw_checkpoint_init(&s->checkpoint);
    if (open_side(c, s)) return -1;
  }
  return 0;
}

/* --- data --- */

/* The gold labels as the checkpoint numbers them: the layers gold.layers[chosen[i]]. */
static int translate(const comparison *c, const size_t *chosen, size_t count, compare_side *s) {
  const sw_labels *gold = &c->gold;
  size_t words = 0;
  for (size_t i = 0; i < gold->num_examples; i++) words += gold->examples[i].num_words;
  s->labels = (sw_labels){.layers = sw_alloc_array(count, sizeof(sw_layer)),
                          .num_examples = gold->num_examples,
                          .examples = sw_alloc_array(gold->num_examples, sizeof(sw_example)),
                          .num_files = gold->num_files,
                          .files = gold->files};
  s->tags = sw_alloc_array(count * words, sizeof *s->tags);
  s->rules = sw_alloc_array(count, sizeof *s->rules);
  if (!s->labels.layers || !s->labels.examples || !s->tags || !s->rules) return -1;
  int32_t *to = s->tags;
  for (size_t i = 0; i < gold->num_examples; i++) {
    s->labels.examples[i] = gold->examples[i];
    s->labels.examples[i].tags = to;
    to += count * gold->examples[i].num_words;
  }
  for (size_t l = 0; l < count; l++) {
    const sw_layer *from = &gold->layers[chosen[l]];
    const sw_model_head *head = sw_model_find_head(s->model, from->name);
    const sw_layer layer = {.name = head->name, .num_labels = (size_t)head->num_labels, .labels = head->labels};
    int32_t *number = sw_alloc_array(from->num_labels, sizeof *number);
    if (!number) return -1;
    for (size_t i = 0; i < from->num_labels; i++) has_label(&layer, from->labels[i], &number[i]);
    for (size_t i = 0; i < gold->num_examples; i++) {
      const size_t n = gold->examples[i].num_words;
      for (size_t w = 0; w < n; w++) {
        const int32_t tag = gold->examples[i].tags[chosen[l] * n + w];
        s->labels.examples[i].tags[l * n + w] = tag == SW_IGNORE ? SW_IGNORE : number[tag];
      }
    }
    free(number);
    s->labels.layers[s->labels.num_layers] = layer;
    if (sw_viterbi_rules_open(layer.labels, layer.num_labels, &s->rules[s->labels.num_layers++])) return -1;
  }
  return 0;
}

static int is_labelled(const sw_labels *labels, size_t layer) {
  for (size_t i = 0; i < labels->num_examples; i++) {
    const size_t n = labels->examples[i].num_words;
    for (size_t w = 0; w < n; w++)
      if (labels->examples[i].tags[layer * n + w] != SW_IGNORE) return 1;
  }
  return 0;
}

/* Layers of the data that no comparison is made of, unless a checkpoint has been blamed already. */
static int name_skipped(comparison *c, const sw_labels *layers) {
  for (const char *name = c->gold.skipped_layers; name && *name;) {
    const size_t bytes = strcspn(name, ",");
    int known = 0;
    for (size_t k = 0; k < c->num_sides; k++)
      for (size_t i = 0; i < layers[k].num_layers; i++)
        known |= strlen(layers[k].layers[i].name) == bytes && !memcmp(layers[k].layers[i].name, name, bytes);
    if (!known && add_reason(&c->left_out, name, bytes, "in no checkpoint", "")) return -1;
    name += bytes;
    name += strspn(name, ", ");
  }
  return 0;
}

static int read_shared(comparison *c, const sw_labels *layers, const sw_labels *shared) {
  const compare_options *o = c->options;
  c->nothing_shared = !shared->num_layers;
  if (c->nothing_shared) return sw_fail("the checkpoints have no layer in common: %s", c->left_out.data);
  if (sw_labels_read(o->data.items, (size_t)o->data.count, o->rejected, shared, &c->gold) || name_skipped(c, layers))
    return -1;
  size_t *chosen = sw_alloc_array(shared->num_layers, sizeof *chosen);
  c->first_word = sw_alloc_array(c->gold.num_examples, sizeof *c->first_word);
  int status = chosen && c->first_word ? 0 : -1;
  for (size_t i = 1; i < c->gold.num_examples && !status; i++)
    c->first_word[i] = c->first_word[i - 1] + c->gold.examples[i - 1].num_words;
  for (size_t i = 0; i < shared->num_layers && !status; i++)
    if (is_labelled(&c->gold, i))
      chosen[c->num_layers++] = i;
    else
      status =
          add_reason(&c->left_out, shared->layers[i].name, strlen(shared->layers[i].name), "no labels in the data", "");
  for (size_t k = 0; k < c->num_sides && !status; k++) status = translate(c, chosen, c->num_layers, &c->sides[k]);
  free(chosen);
  return status;
}

static int list_measures(comparison *c) {
  const compare_side *s = &c->sides[0];
  for (size_t l = 0; l < c->num_layers; l++) c->num_types += s->rules[l].num_types;
  c->columns = c->num_types * (1 + 2 * c->num_sides);
  if (!(c->measures = sw_alloc_array(c->num_types + 2 * c->num_layers + 2, sizeof *c->measures))) return -1;
  size_t type = 0;
  for (size_t l = 0; l < c->num_layers; l++) {
    const sw_viterbi_rules *rules = &s->rules[l];
    c->measures[c->num_measures++] = (compare_measure){MICRO, (int)l, type, rules->num_types, "micro"};
    c->measures[c->num_measures++] = (compare_measure){MACRO, (int)l, type, rules->num_types, "macro"};
    for (size_t t = 0; t < rules->num_types; t++, type++)
      c->measures[c->num_measures++] =
          (compare_measure){LABEL, (int)l, type, 1, *rules->types[t] ? rules->types[t] : s->labels.layers[l].name};
  }
  c->measures[c->num_measures++] = (compare_measure){MICRO, -1, 0, c->num_types, "micro"};
  c->measures[c->num_measures++] = (compare_measure){MACRO, -1, 0, c->num_types, "macro"};
  return 0;
}

static int list_sections(comparison *c) {
  const size_t files = c->gold.num_files;
  c->num_sections = files + (files > 1);
  if (!(c->sections = sw_alloc_array(c->num_sections, sizeof *c->sections))) return -1;
  for (size_t i = 0, example = 0; i < c->num_sections; i++) {
    compare_section *s = &c->sections[i];
    *s = (compare_section){
        .name = i < files ? c->gold.files[i].path : "all data", .first = example, .end = c->gold.num_examples};
    if (i == files) s->first = 0;
    while (i < files && example < c->gold.num_examples && c->gold.examples[example].file == i) example++;
    if (i < files) s->end = example;
    s->results = sw_alloc_array(c->num_sides * c->num_measures, sizeof *s->results);
    s->words = sw_alloc_array(c->num_sides * (c->num_layers + 1), sizeof *s->words);
    if (!s->results || !s->words) return -1;
  }
  return 0;
}

int compare_read(comparison *c) {
  sw_labels layers[MAX_SIDES] = {{0}}, shared = {0};
  int status = 0;
  for (size_t k = 0; k < c->num_sides && !status; k++)
    status = sw_eval_layers(c->sides[k].model, c->sides[k].path, &layers[k]);
  if (!status) status = share_layers(c, layers, &shared);
  if (!status) status = read_shared(c, layers, &shared);
  free(shared.layers);
  for (size_t k = 0; k < c->num_sides; k++)
    if (layers[k].num_layers) free(layers[k].layers);
  return status || list_measures(c) || list_sections(c) ? -1 : 0;
}

/* --- what the models say, and how fast --- */

static int evaluate(const comparison *c, compare_side *s, sw_eval_words *words) {
  return sw_eval_set_run(s->set, s->model, s->run, s->batch_tokens, MAX_BATCH,
                         strcmp(c->options->decode, "argmax") ? SW_DECODE_VITERBI : SW_DECODE_ARGMAX, NULL, NULL, words)
             ? sw_fail_in("%s", s->path)
             : 0;
}

static int run_models(comparison *c, sw_progress *progress) {
  for (size_t k = 0; k < c->num_sides; k++) {
    compare_side *s = &c->sides[k];
    if (sw_eval_set_open(&s->labels, s->tokenizer, s->model->config.max_positions, &s->set) ||
        sw_eval_words_open(&s->labels, &s->words) || evaluate(c, s, &s->words))
      return -1;
    sw_progress_show(progress, (double)k + 1, s->path);
  }
  return 0;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Takes turns, so that what else the machine does hits all alike. seconds: [sides][repeats] */
static int measure_rates(comparison *c, double *seconds, sw_progress *progress) {
  const size_t repeats = (size_t)c->options->repeats;
  for (size_t r = 0; r < repeats; r++)
    for (size_t k = 0; k < c->num_sides; k++) {
      const double start = sw_clock();
      if (evaluate(c, &c->sides[k], NULL)) return -1;
      seconds[k * repeats + r] = sw_clock() - start;
      sw_progress_show(progress, (double)(c->num_sides * (r + 1) + k + 1), c->sides[k].path);
    }
  for (size_t k = 0; k < c->num_sides; k++) {
    qsort(seconds + k * repeats, repeats, sizeof *seconds, by_value);
    c->sides[k].tokens_per_second =
        (double)sw_eval_set_tokens(c->sides[k].set) / sw_quantile(seconds + k * repeats, repeats, 0.5);
  }
  return 0;
}

/* One sentence at a time, from its words to its tags. seconds: [sides][sentences] */
static int measure_latencies(comparison *c, double *seconds, size_t sentences) {
  for (size_t i = 0; i < sentences; i++)
    for (size_t k = 0; k < c->num_sides; k++) {
      compare_side *s = &c->sides[k], alone = *s;
      alone.labels.examples += i * c->gold.num_examples / sentences;
      alone.labels.num_examples = 1;
      alone.batch_tokens = s->model->config.max_positions;
      const double start = sw_clock();
      const int failed = sw_eval_set_open(&alone.labels, s->tokenizer, s->model->config.max_positions, &alone.set) ||
                         evaluate(c, &alone, NULL);
      seconds[k * sentences + i] = sw_clock() - start;
      sw_eval_set_close(alone.set);
      if (failed) return -1;
    }
  for (size_t k = 0; k < c->num_sides; k++) {
    qsort(seconds + k * sentences, sentences, sizeof *seconds, by_value);
    c->sides[k].latency_median = 1e3 * sw_quantile(seconds + k * sentences, sentences, 0.5);
    c->sides[k].latency_high = 1e3 * sw_quantile(seconds + k * sentences, sentences, 0.95);
  }
  return 0;
}

static int measure_speed(comparison *c, sw_progress *progress) {
  const size_t sentences = c->gold.num_examples < LATENCY_SENTENCES ? c->gold.num_examples : LATENCY_SENTENCES;
  const size_t most = sentences > (size_t)c->options->repeats ? sentences : (size_t)c->options->repeats;
  double *seconds = sw_alloc_array(c->num_sides * most, sizeof *seconds);
  int status = seconds && !measure_rates(c, seconds, progress) && !measure_latencies(c, seconds, sentences) ? 0 : -1;
  free(seconds);
  return status;
}

/* Pooled vectors of sentences spread evenly over the data: [sentences][hidden]. */
static int embed(const comparison *c, compare_side *s, size_t sentences, float *vectors) {
  const size_t hidden = (size_t)s->model->config.hidden_size;
  const int most =
      s->model->config.max_seq_length > 2 ? s->model->config.max_seq_length : s->model->config.max_positions;
  const sw_special_ids special = sw_tokenizer_special_ids(s->tokenizer);
  int32_t *ids = sw_alloc_array((unsigned long)s->batch_tokens, sizeof *ids), cu_seqlens[MAX_BATCH + 1] = {0};
  sw_encoding encoding = {0};
  sw_batch batch = {.ids = ids, .cu_seqlens = cu_seqlens};
  int status = ids ? 0 : -1;
  sw_run_set_dropout(s->run, 0, 0, 0);
  for (size_t i = 0, done = 0; i < sentences && !status; i++) {
    const sw_example *example = &c->gold.examples[i * c->gold.num_examples / sentences];
    status = sw_tokenizer_encode(s->tokenizer, example->text, example->bytes, &encoding);
    if (status) break;
    const int length = encoding.count + 2 < (size_t)most ? (int)encoding.count + 2 : most;
    if (batch.batch == MAX_BATCH || batch.tokens + length > s->batch_tokens) {
      status = sw_run_embed(s->run, &batch, vectors + done * hidden);
      done += (size_t)batch.batch;
      batch.batch = batch.max_seqlen = 0;
      batch.tokens = 0;
    }
    int32_t *to = ids + batch.tokens;
    to[0] = special.cls;
    if (length > 2) memcpy(to + 1, encoding.ids, (size_t)(length - 2) * sizeof *to);
    to[length - 1] = special.sep;
    batch.tokens += length;
    cu_seqlens[++batch.batch] = (int32_t)batch.tokens;
    if (length > batch.max_seqlen) batch.max_seqlen = length;
    if (i + 1 == sentences && !status) status = sw_run_embed(s->run, &batch, vectors + done * hidden);
  }
  sw_encoding_close(&encoding);
  free(ids);
  for (size_t i = 0; !status && i < sentences * hidden; i++)
    if (!isfinite(vectors[i]))
      status = sw_fail("%s: an embedding holds a value that is no number; its weights are unusable", s->path);
  return status ? -1 : 0;
}

static int compare_vectors(comparison *c, compare_side *s, const float *first, const float *other, size_t rows,
                           double *cosines) {
  const size_t hidden = (size_t)s->model->config.hidden_size,
               first_hidden = (size_t)c->sides[0].model->config.hidden_size;
  s->cosine_mean = s->cosine_low = NAN;
  if (hidden == first_hidden) {
    double sum = 0;
    for (size_t i = 0; i < rows; i++) sum += cosines[i] = sw_cosine(first + i * hidden, other + i * hidden, hidden);
    qsort(cosines, rows, sizeof *cosines, by_value);
    s->cosine_mean = sum / (double)rows;
    s->cosine_low = sw_quantile(cosines, rows, 0.01);
  }
  return sw_linear_cka(first, first_hidden, other, hidden, rows, c->stream.threads, &s->cka);
}

static int measure_drift(comparison *c) {
  const size_t rows = c->drift_sentences =
      c->gold.num_examples < DRIFT_SENTENCES ? c->gold.num_examples : DRIFT_SENTENCES;
  float *first = sw_alloc_array(rows, (size_t)c->sides[0].model->config.hidden_size * sizeof *first), *other = NULL;
  double *cosines = sw_alloc_array(rows, sizeof *cosines);
  int status = first && cosines ? embed(c, &c->sides[0], rows, first) : -1;
  for (size_t k = 1; k < c->num_sides && !status; k++) {
    free(other);
    other = sw_alloc_array(rows, (size_t)c->sides[k].model->config.hidden_size * sizeof *other);
    status = other ? embed(c, &c->sides[k], rows, other) : -1;
    if (!status) status = compare_vectors(c, &c->sides[k], first, other, rows, cosines);
  }
  free(first), free(other), free(cosines);
  return status;
}

/* --- scores --- */

/* Entities of every example, type and side. */
static int count_entities(comparison *c) {
  if (!(c->counts = sw_alloc_array(c->gold.num_examples, c->columns * sizeof *c->counts))) return -1;
  for (size_t k = 0; k < c->num_sides; k++) {
    const compare_side *s = &c->sides[k];
    for (size_t l = 0, type = 0; l < c->num_layers; type += s->rules[l++].num_types) {
      sw_entity_metrics m;
      if (sw_entity_metrics_open(s->labels.layers[l].labels, s->labels.layers[l].num_labels, &m)) return -1;
      int status = 0;
      const int32_t *predicted = s->words.tags + l * s->words.num_words;
      for (size_t i = 0; i < c->gold.num_examples && !status; i++) {
        const sw_example *e = &s->labels.examples[i];
        uint32_t *row = c->counts + i * c->columns, *own = row + c->num_types * (1 + 2 * k) + 2 * type;
        memset(m.counts, 0, m.num_types * sizeof *m.counts);
        status = sw_entity_metrics_add(&m, e->tags + l * e->num_words, predicted, e->num_words);
        for (size_t t = 0; t < m.num_types; t++) {
          row[type + t] = (uint32_t)m.counts[t].gold;
          own[2 * t] = (uint32_t)m.counts[t].predicted;
          own[2 * t + 1] = (uint32_t)m.counts[t].true_positive;
        }
        predicted += e->num_words;
      }
      sw_entity_metrics_close(&m);
      if (status) return -1;
    }
  }
  return 0;
}

/* Of a row of sums, one side's counts; scratch: [types] */
static sw_entity_score score_of(const comparison *c, const uint64_t *sums, size_t side, const compare_measure *m,
                                sw_entity_counts *scratch) {
  const uint64_t *own = sums + c->num_types * (1 + 2 * side);
  for (size_t t = m->first_type; t < m->first_type + m->types; t++)
    scratch[t - m->first_type] =
        (sw_entity_counts){.true_positive = own[2 * t + 1], .predicted = own[2 * t], .gold = sums[t]};
  return m->kind == LABEL   ? sw_entity_score_of(*scratch)
         : m->kind == MICRO ? sw_entity_micro(scratch, m->types)
                            : sw_entity_macro(scratch, m->types);
}

typedef struct {
  uint64_t *sums, *all; /* [resamples][columns]: of the file, and of the files up to it */
  uint64_t *once;       /* [columns] without resampling */
  sw_entity_counts *scratch;
  double *values, *differences; /* [sides][resamples], [resamples] */
} bootstrap;

static void summarise(const comparison *c, compare_section *section, const uint64_t *sums, bootstrap *b) {
  const size_t resamples = (size_t)c->options->resamples;
  memset(b->once, 0, c->columns * sizeof *b->once);
  for (size_t i = section->first; i < section->end; i++)
    for (size_t column = 0; column < c->columns; column++) b->once[column] += c->counts[i * c->columns + column];
  for (size_t m = 0; m < c->num_measures; m++) {
    for (size_t k = 0; k < c->num_sides; k++)
      for (size_t r = 0; r < resamples; r++)
        b->values[k * resamples + r] = score_of(c, sums + r * c->columns, k, &c->measures[m], b->scratch).f1;
    for (size_t k = c->num_sides; k-- > 0;) { /* the first at last: it is sorted then */
      compare_result *to = &section->results[k * c->num_measures + m];
      double *values = b->values + k * resamples;
      to->score = score_of(c, b->once, k, &c->measures[m], b->scratch);
      if (k) {
        to->difference = to->score.f1 - score_of(c, b->once, 0, &c->measures[m], b->scratch).f1;
        for (size_t r = 0; r < resamples; r++) b->differences[r] = values[r] - b->values[r];
        to->p = sw_bootstrap_p(b->differences, resamples);
        to->difference_interval = sw_bootstrap_interval(b->differences, resamples, COMPARE_LEVEL);
      }
      to->interval = sw_bootstrap_interval(values, resamples, COMPARE_LEVEL);
    }
  }
}

/* Over all files: each is resampled by itself, as many examples as it has. */
static int score_sections(comparison *c) {
  const size_t resamples = (size_t)c->options->resamples, files = c->gold.num_files;
  bootstrap b = {.sums = sw_alloc_array(resamples, c->columns * sizeof *b.sums),
                 .all = sw_alloc_array(resamples, c->columns * sizeof *b.all),
                 .once = sw_alloc_array(c->columns, sizeof *b.once),
                 .scratch = sw_alloc_array(c->num_types, sizeof *b.scratch),
                 .values = sw_alloc_array(c->num_sides * resamples, sizeof *b.values),
                 .differences = sw_alloc_array(resamples, sizeof *b.differences)};
  int status = b.sums && b.all && b.once && b.scratch && b.values && b.differences ? 0 : -1;
  for (size_t i = 0; i < files && !status; i++) {
    compare_section *s = &c->sections[i];
    status = sw_bootstrap_sums(c->counts + s->first * c->columns, s->end - s->first, c->columns, resamples,
                               (uint64_t)c->options->seed, (uint64_t)i << 32, c->stream.threads, b.sums);
    if (status) break;
    summarise(c, s, b.sums, &b);
    for (size_t k = 0; k < resamples * c->columns; k++) b.all[k] += b.sums[k];
  }
  if (!status && c->num_sections > files) summarise(c, &c->sections[files], b.all, &b);
  free(b.sums), free(b.all), free(b.once), free(b.scratch), free(b.values), free(b.differences);
  return status;
}

static void count_words(const comparison *c, compare_section *section, size_t side, size_t layer, compare_words *to) {
  const compare_side *s = &c->sides[side], *first = &c->sides[0];
  size_t at = layer * s->words.num_words + c->first_word[section->first];
  for (size_t i = section->first; i < section->end; i++) {
    const size_t n = c->gold.examples[i].num_words;
    const int32_t *gold = s->labels.examples[i].tags + layer * n,
                  *first_gold = first->labels.examples[i].tags + layer * n;
    for (size_t w = 0; w < n; w++, at++) {
      if (gold[w] == SW_IGNORE) continue;
      const int right = s->words.tags[at] == gold[w], first_right = first->words.tags[at] == first_gold[w];
      to->words++;
      to->right += (uint64_t)right;
      to->only_this += right && !first_right;
      to->only_first += first_right && !right;
      if (isnan(s->words.log_probs[at])) continue; /* a word that the model cannot see */
      to->predicted++;
      to->loss -= (double)s->words.gold_log_probs[at];
      sw_calibration_add(&to->calibration, exp((double)s->words.log_probs[at]), right);
    }
  }
}

static void score_words(comparison *c) {
  for (size_t i = 0; i < c->num_sections; i++)
    for (size_t k = 0; k < c->num_sides; k++) {
      compare_words *layers = c->sections[i].words + k * (c->num_layers + 1), *all = layers + c->num_layers;
      for (size_t l = 0; l <= c->num_layers; l++) {
        compare_words *to = &layers[l];
        if (l < c->num_layers) {
          count_words(c, &c->sections[i], k, l, to);
          all->words += to->words, all->right += to->right, all->only_this += to->only_this,
              all->only_first += to->only_first;
          all->predicted += to->predicted, all->loss += to->loss;
          sw_calibration_merge(&all->calibration, &to->calibration);
        }
        to->loss = to->predicted ? to->loss / (double)to->predicted : 0;
        to->p = sw_mcnemar(to->only_first, to->only_this);
      }
    }
}

int compare_measure_all(comparison *c) {
  sw_progress progress;
  const double passes = c->options->speed ? 1 + c->options->repeats : 1;
  sw_progress_open(&progress, "compare", passes * (double)c->num_sides, c->options->quiet);
  int status = run_models(c, &progress) || (c->options->speed && measure_speed(c, &progress)) ? -1 : 0;
  sw_progress_close(&progress);
  if (status || measure_drift(c) || count_entities(c) || score_sections(c)) return -1;
  score_words(c);
  return 0;
}

const compare_result *compare_result_of(const comparison *c, const compare_section *s, size_t side, size_t measure) {
  return &s->results[side * c->num_measures + measure];
}

const compare_words *compare_words_of(const comparison *c, const compare_section *s, size_t side, size_t layer) {
  return &s->words[side * (c->num_layers + 1) + layer];
}

int compare_is_labelled(const comparison *c, const compare_section *s, int layer) {
  return layer < 0 || compare_words_of(c, s, 0, (size_t)layer)->words > 0;
}

int compare_is_shown(const comparison *c, const compare_section *s, size_t measure) {
  const compare_measure *m = &c->measures[measure];
  size_t layers = 0;
  for (size_t l = 0; l < c->num_layers; l++) layers += compare_is_labelled(c, s, (int)l);
  return m->layer < 0 ? layers > 1 : compare_is_labelled(c, s, m->layer) && (m->kind == LABEL || m->types > 1);
}
