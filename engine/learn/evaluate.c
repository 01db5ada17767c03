#include "engine/learn/evaluate.h"
#include "base/error.h"
#include "engine/learn/viterbi.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sequences are sorted by length within blocks of about this many, so that the log probabilities kept at a time are
 * bounded. */
enum { BLOCK_SEQUENCES = 8192 };

struct sw_eval_set {
  const sw_labels *labels;
  sw_token_set tokens;
  sw_group *group;
};

int sw_eval_set_open(const sw_labels *labels, const sw_tokenizer *tokenizer, int max_positions, sw_eval_set **out) {
  *out = NULL;
  sw_eval_set *set = sw_alloc(sizeof *set);
  if (!set) return -1;
  set->labels = labels;
  if (sw_token_set_open(labels, tokenizer, max_positions, SW_WINDOW_OVERLAP, &set->tokens)) {
    free(set);
    return -1;
  }
  *out = set;
  return 0;
}

void sw_eval_set_close(sw_eval_set *set) {
  if (!set) return;
  sw_token_set_close(&set->tokens);
  free(set);
}

void sw_eval_set_share(sw_eval_set *set, sw_group *group) { set->group = group; }

uint64_t sw_eval_set_tokens(const sw_eval_set *set) {
  return set->tokens.tokens;
}

int sw_eval_layers(const sw_model *model, const char *path, sw_labels *out) {
  *out = (sw_labels){.layers = sw_alloc_array(model->num_heads + 1, sizeof(sw_layer))};
  if (!out->layers) return -1;
  for (size_t h = 0; h < model->num_heads; h++)
    if (!strcmp(model->heads[h].task, "token"))
      out->layers[out->num_layers++] = (sw_layer){.name = model->heads[h].name,
                                                  .num_labels = (size_t)model->heads[h].num_labels,
                                                  .labels = model->heads[h].labels};
  if (out->num_layers) return 0;
  free(out->layers);
  out->layers = NULL;
  return sw_fail("%s has no token head; train one with: skillwatch train ner --base %s --data labels.jsonl -o ner.h5",
                 path, path);
}

int sw_eval_words_open(const sw_labels *labels, sw_eval_words *out) {
  *out = (sw_eval_words){0};
  for (size_t i = 0; i < labels->num_examples; i++) out->num_words += labels->examples[i].num_words;
  const size_t count = labels->num_layers * out->num_words;
  out->tags = sw_alloc_array(count, sizeof *out->tags);
  out->log_probs = sw_alloc_array(count, sizeof *out->log_probs);
  out->gold_log_probs = sw_alloc_array(count, sizeof *out->gold_log_probs);
  if (out->tags && out->log_probs && out->gold_log_probs) return 0;
  sw_eval_words_close(out);
  return -1;
}

void sw_eval_words_close(sw_eval_words *words) {
  free(words->tags), free(words->log_probs), free(words->gold_log_probs);
  *words = (sw_eval_words){0};
}

/* What one evaluation holds. Log probabilities lie by layer, one row a labelled word, in the order of the words. */
typedef struct {
  const sw_eval_set *set;
  const sw_model *model;
  sw_run *run;
  int64_t max_tokens;
  int max_batch;
  sw_decode decode;
  size_t num_layers;
  size_t *heads;              /* [num_layers] index of the model's head */
  sw_entity_metrics *metrics; /* [num_layers] */
  size_t metrics_open;
  double *loss;            /* [num_layers] sum */
  uint64_t *loss_words;    /* [num_layers] */
  sw_viterbi_rules *rules; /* [num_layers] */
  size_t rules_open;
  uint64_t *keys;  /* [block] length and index, for sorting */
  uint32_t *order; /* [block] */
  size_t *starts;  /* [block + 1] batches */
  size_t *rows;    /* [block + 1] first row of each sequence, by its place in the block */
  float **probs;   /* [num_layers] */
  size_t *probs_capacity;
  float *batch_probs; /* [max_tokens, the most labels] */
  int32_t *ids, *cu_seqlens;
  int32_t *predicted, *path; /* of one example: by word; by row */
  size_t words_capacity;
  sw_eval_words *words; /* NULL: not wanted */
  size_t words_done;
} evaluation;

static void close_evaluation(evaluation *e) {
  for (size_t i = 0; i < e->metrics_open; i++) sw_entity_metrics_close(&e->metrics[i]);
  for (size_t i = 0; i < e->rules_open; i++) sw_viterbi_rules_close(&e->rules[i]);
  for (size_t i = 0; e->probs && i < e->num_layers; i++) free(e->probs[i]);
  free(e->heads), free(e->metrics), free(e->loss), free(e->loss_words), free(e->rules), free(e->keys), free(e->order),
      free(e->starts);
  free(e->rows), free(e->probs), free(e->probs_capacity), free(e->batch_probs), free(e->ids), free(e->cu_seqlens);
  free(e->predicted), free(e->path);
}

static int find_heads(evaluation *e) {
  for (size_t i = 0; i < e->num_layers; i++) {
    const sw_layer *layer = &e->set->labels->layers[i];
    const sw_model_head *head = sw_model_find_head(e->model, layer->name);
    if (!head || strcmp(head->task, "token"))
      return sw_fail("the model has no token head for the layer '%s'", layer->name);
    if ((size_t)head->num_labels != layer->num_labels)
      return sw_fail("layer '%s' has %zu labels, the model's head has %d", layer->name, layer->num_labels,
                     head->num_labels);
    for (size_t k = 0; k < layer->num_labels; k++)
      if (strcmp(head->labels[k], layer->labels[k]))
        return sw_fail("layer '%s': label %zu is '%s', in the model '%s'", layer->name, k, layer->labels[k],
                       head->labels[k]);
    e->heads[i] = (size_t)(head - e->model->heads);
  }
  return 0;
}

static int open_evaluation(evaluation *e) {
  const size_t layers = e->num_layers,
               block = e->set->tokens.count < BLOCK_SEQUENCES ? e->set->tokens.count : BLOCK_SEQUENCES;
  size_t longest_block = block; /* an example's sequences stay in one block, which may be longer for it */
  for (size_t i = 0, run = 0; i < e->set->tokens.count; i++) {
    run = i && e->set->tokens.items[i].example == e->set->tokens.items[i - 1].example ? run + 1 : 1;
    if (block + run > longest_block) longest_block = block + run;
  }
  int most_labels = 1;
  for (size_t i = 0; i < layers; i++)
    if (e->model->heads[e->heads[i]].num_labels > most_labels) most_labels = e->model->heads[e->heads[i]].num_labels;
  e->metrics = sw_alloc_array(layers, sizeof *e->metrics);
  e->rules = sw_alloc_array(layers, sizeof *e->rules);
  e->loss = sw_alloc_array(layers, sizeof *e->loss);
  e->loss_words = sw_alloc_array(layers, sizeof *e->loss_words);
  e->probs = sw_alloc_array(layers, sizeof *e->probs);
  e->probs_capacity = sw_alloc_array(layers, sizeof *e->probs_capacity);
  e->keys = sw_alloc_array(longest_block + 1, sizeof *e->keys);
  e->order = sw_alloc_array(longest_block + 1, sizeof *e->order);
  e->starts = sw_alloc_array(longest_block + 1, sizeof *e->starts);
  e->rows = sw_alloc_array(longest_block + 1, sizeof *e->rows);
  e->batch_probs = sw_alloc_array((unsigned long)e->max_tokens, sizeof(float) * (unsigned long)most_labels);
  e->ids = sw_alloc_array((unsigned long)e->max_tokens, sizeof *e->ids);
  e->cu_seqlens = sw_alloc_array((unsigned long)e->max_batch + 1, sizeof *e->cu_seqlens);
  if (!e->metrics || !e->rules || !e->loss || !e->loss_words || !e->probs || !e->probs_capacity || !e->keys ||
      !e->order || !e->starts || !e->rows || !e->batch_probs || !e->ids || !e->cu_seqlens)
    return -1;
  for (size_t i = 0; i < layers; i++) {
    const sw_layer *layer = &e->set->labels->layers[i];
    if (sw_entity_metrics_open(layer->labels, layer->num_labels, &e->metrics[i])) return -1;
    e->metrics_open++;
    if (sw_viterbi_rules_open(layer->labels, layer->num_labels, &e->rules[i])) return -1;
    e->rules_open++;
  }
  return 0;
}

static int bad_number(const evaluation *e, const sw_sequence *sequence, const char *layer) {
  const sw_example *example = &e->set->labels->examples[sequence->example];
  const char *file = example->file < e->set->labels->num_files ? e->set->labels->files[example->file].path : "?";
  return sw_fail("%s line %llu: the model gives a value that is no number in layer '%s'; its weights are unusable",
                 file, (unsigned long long)example->line, layer);
}

/* One batch of the block that begins at `first`: forward, then the rows of its labelled words. */
static int run_batch(evaluation *e, size_t first, const uint32_t *order, size_t count) {
  sw_batch batch = {.batch = (int)count, .ids = e->ids, .cu_seqlens = e->cu_seqlens};
  for (size_t i = 0; i < count; i++) {
    const sw_sequence *sequence = &e->set->tokens.items[order[i]];
    if (batch.tokens + sequence->length > e->max_tokens)
      return sw_fail("a sequence of %d tokens does not fit into a batch of %lld", sequence->length,
                     (long long)e->max_tokens);
    e->cu_seqlens[i] = (int32_t)batch.tokens;
    memcpy(e->ids + batch.tokens, sequence->ids, (size_t)sequence->length * sizeof *e->ids);
    batch.tokens += sequence->length;
    if (sequence->length > batch.max_seqlen) batch.max_seqlen = sequence->length;
  }
  e->cu_seqlens[count] = (int32_t)batch.tokens;
  const void *states;
  if (sw_run_forward(e->run, &batch, &states)) return -1;
  for (size_t layer = 0; layer < e->num_layers; layer++) {
    if (sw_run_token_log_probs(e->run, e->heads[layer], e->batch_probs)) return -1;
    const size_t labels = e->set->labels->layers[layer].num_labels;
    for (size_t i = 0; i < count; i++) {
      const sw_sequence *sequence = &e->set->tokens.items[order[i]];
      float *to = e->probs[layer] + e->rows[order[i] - first] * labels;
      for (int32_t t = 0; t < sequence->length; t++) {
        if (sequence->words[t] < 0) continue;
        const float *from = e->batch_probs + ((size_t)e->cu_seqlens[i] + (size_t)t) * labels;
        for (size_t k = 0; k < labels; k++)
          if (!isfinite(from[k])) return bad_number(e, sequence, e->set->labels->layers[layer].name);
        memcpy(to, from, labels * sizeof *to);
        to += labels;
        const int32_t gold = sequence->labels[layer * (size_t)sequence->length + (size_t)t];
        if (gold != SW_IGNORE) {
          e->loss[layer] -= from[gold];
          e->loss_words[layer]++;
        }
      }
    }
  }
  return 0;
}

static int decode_rows(evaluation *e, size_t layer, const float *probs, size_t rows) {
  const size_t labels = e->set->labels->layers[layer].num_labels;
  if (e->decode == SW_DECODE_VITERBI) return sw_viterbi_decode(&e->rules[layer], probs, rows, e->path);
  for (size_t i = 0; i < rows; i++) {
    size_t best = 0;
    for (size_t k = 1; k < labels; k++)
      if (probs[i * labels + k] > probs[i * labels + best]) best = k;
    e->path[i] = (int32_t)best;
  }
  return 0;
}

/* Writes down what the layer says of the example's words; probs: the rows of its sequences. */
static void keep_words(evaluation *e, size_t layer, size_t index, size_t from, size_t to, const float *probs) {
  const sw_example *example = &e->set->labels->examples[index];
  const size_t labels = e->set->labels->layers[layer].num_labels, first = layer * e->words->num_words + e->words_done;
  const int32_t *gold = example->tags + layer * example->num_words;
  for (size_t w = 0; w < example->num_words; w++) {
    e->words->tags[first + w] = e->predicted[w];
    e->words->log_probs[first + w] = e->words->gold_log_probs[first + w] = NAN;
  }
  for (size_t i = from; i < to; i++)
    for (int32_t t = 0; t < e->set->tokens.items[i].length; t++) {
      const int32_t w = e->set->tokens.items[i].words[t];
      if (w < 0) continue;
      e->words->log_probs[first + (size_t)w] = probs[e->predicted[w]];
      if (gold[w] != SW_IGNORE) e->words->gold_log_probs[first + (size_t)w] = probs[gold[w]];
      probs += labels;
    }
}

/* The sequences [from, to) of the token set, in the block that begins at `first`, are example `index`; it has none
 * where no word has tokens. */
static int score_example(evaluation *e, size_t first, size_t index, size_t from, size_t to) {
  const sw_token_set *tokens = &e->set->tokens;
  const sw_example *example = &e->set->labels->examples[index];
  if (example->num_words > e->words_capacity) {
    free(e->predicted), free(e->path);
    e->predicted = sw_alloc_array(example->num_words, sizeof *e->predicted);
    e->path = sw_alloc_array(example->num_words, sizeof *e->path);
    e->words_capacity = e->predicted && e->path ? example->num_words : 0;
    if (!e->words_capacity) return -1;
  }
  const size_t row = from < to ? e->rows[from - first] : 0, rows = from < to ? e->rows[to - first] - row : 0;
  for (size_t layer = 0; layer < e->num_layers; layer++) {
    const size_t labels = e->set->labels->layers[layer].num_labels;
    if (rows && decode_rows(e, layer, e->probs[layer] + row * labels, rows)) return -1;
    int32_t outside = 0; /* a word without tokens is "O" */
    while (e->rules[layer].type_of[outside] >= 0 && (size_t)outside + 1 < labels) outside++;
    for (size_t w = 0; w < example->num_words; w++) e->predicted[w] = outside;
    size_t at = 0;
    for (size_t i = from; i < to; i++)
      for (int32_t t = 0; t < tokens->items[i].length; t++)
        if (tokens->items[i].words[t] >= 0) e->predicted[tokens->items[i].words[t]] = e->path[at++];
    if (e->words) keep_words(e, layer, index, from, to, e->probs[layer] + row * labels);
    if (sw_entity_metrics_add(&e->metrics[layer], example->tags + layer * example->num_words, e->predicted,
                              example->num_words))
      return -1;
  }
  e->words_done += example->num_words;
  return 0;
}

static int by_value(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Runs the sequences [first, end), whole examples, shortest first. */
static int run_block(evaluation *e, size_t first, size_t end) {
  const sw_token_set *tokens = &e->set->tokens;
  const size_t count = end - first;
  e->rows[0] = 0;
  for (size_t i = 0; i < count; i++) {
    e->rows[i + 1] = e->rows[i] + tokens->items[first + i].num_words;
    e->keys[i] = (uint64_t)tokens->items[first + i].length << 32 | (uint32_t)(first + i);
  }
  for (size_t layer = 0; layer < e->num_layers; layer++) {
    const size_t wanted = e->rows[count] * e->set->labels->layers[layer].num_labels;
    if (wanted <= e->probs_capacity[layer]) continue;
    free(e->probs[layer]);
    e->probs[layer] = sw_alloc_array(wanted, sizeof(float));
    e->probs_capacity[layer] = e->probs[layer] ? wanted : 0;
    if (!e->probs[layer]) return -1;
  }
  qsort(e->keys, count, sizeof *e->keys, by_value);
  for (size_t i = 0; i < count; i++) e->order[i] = (uint32_t)e->keys[i];
  const size_t batches = sw_token_set_cut(tokens, e->order, count, e->max_tokens, e->max_batch, e->starts);
  for (size_t i = 0; i < batches; i++)
    if (run_batch(e, first, e->order + e->starts[i], e->starts[i + 1] - e->starts[i])) return -1;
  return 0;
}

static int run_set(evaluation *e) {
  const sw_token_set *tokens = &e->set->tokens;
  const size_t examples = e->set->labels->num_examples, ranks = (size_t)sw_group_size(e->set->group), rank = (size_t)sw_group_rank(e->set->group);
  size_t example = examples * rank / ranks; /* this process's are those before `examples_end` */
  const size_t examples_end = examples * (rank + 1) / ranks;
  size_t begin = 0, count = 0;
  while (begin < tokens->count && tokens->items[begin].example < example) begin++;
  for (count = begin; count < tokens->count && tokens->items[count].example < examples_end;) count++;
  for (size_t first = begin; first < count;) {
    size_t end = first;
    while (end < count &&
           (end - first < BLOCK_SEQUENCES || tokens->items[end].example == tokens->items[end - 1].example))
      end++;
    if (run_block(e, first, end)) return -1;
    for (size_t from = first; from < end;) {
      size_t to = from;
      while (to < end && tokens->items[to].example == tokens->items[from].example) to++;
      for (; example < tokens->items[from].example; example++)
        if (score_example(e, first, example, from, from)) return -1;
      if (score_example(e, first, example++, from, to)) return -1;
      from = to;
    }
    first = end;
  }
  for (; example < examples_end; example++)
    if (score_example(e, 0, example, 0, 0)) return -1;
  return 0;
}

/* What the others counted, too. Counts below 2^53 are exact as doubles. */
static int add_others(evaluation *e) {
  size_t n = 0, room = 0;
  for (size_t i = 0; i < e->num_layers; i++) room += 4 + 3 * e->metrics[i].num_types;
  double *all = sw_alloc_array(room, sizeof *all);
  if (!all) return -1;
  int status = 0;
  for (int back = 0; back < 2 && !status; back++, n = 0) {
    for (size_t i = 0; i < e->num_layers; i++) {
      sw_entity_metrics *m = &e->metrics[i];
#define SW_ADDED(type, x) (back ? (void)((x) = (type)all[n++]) : (void)(all[n++] = (double)(x)))
      SW_ADDED(double, e->loss[i]);
      SW_ADDED(uint64_t, e->loss_words[i]);
      SW_ADDED(uint64_t, m->tags_right);
      SW_ADDED(uint64_t, m->tags);
      for (size_t k = 0; k < m->num_types; k++) {
        SW_ADDED(uint64_t, m->counts[k].true_positive);
        SW_ADDED(uint64_t, m->counts[k].predicted);
        SW_ADDED(uint64_t, m->counts[k].gold);
      }
#undef SW_ADDED
    }
    if (!back) status = sw_group_sum(e->set->group, all, n);
  }
  free(all);
  return status;
}

static int add_up(const evaluation *e, sw_eval_scores *out) {
  size_t types = 0;
  for (size_t i = 0; i < e->num_layers; i++) types += e->metrics[i].num_types;
  sw_entity_counts *counts = sw_alloc_array(types, sizeof *counts);
  if (!counts) return -1;
  uint64_t right = 0, tags = 0, loss_words = 0;
  double loss = 0;
  types = 0;
  for (size_t i = 0; i < e->num_layers; i++) {
    const sw_entity_metrics *m = &e->metrics[i];
    for (size_t k = 0; k < m->num_types; k++) counts[types++] = m->counts[k];
    right += m->tags_right;
    tags += m->tags;
    loss += e->loss[i];
    loss_words += e->loss_words[i];
  }
  *out = (sw_eval_scores){.micro = sw_entity_micro(counts, types),
                          .macro = sw_entity_macro(counts, types),
                          .accuracy = tags ? (double)right / (double)tags : 0,
                          .loss = loss_words ? loss / (double)loss_words : 0,
                          .words = tags};
  free(counts);
  return 0;
}

static json_t *score_json(sw_entity_score score) {
  return json_pack("{s:f,s:f,s:f,s:I}", "precision", score.precision, "recall", score.recall, "f1", score.f1, "support",
                   (json_int_t)score.support);
}

static json_t *scores_json(const evaluation *e, const sw_eval_scores *scores) {
  json_t *layers = json_object();
  for (size_t i = 0; layers && i < e->num_layers; i++) {
    json_t *layer = sw_entity_metrics_json(&e->metrics[i]);
    const char *name = e->set->labels->layers[i].name;
    json_t *labels = json_object_get(layer, "labels"), *nameless = json_object_get(labels, "");
    if (nameless && !json_object_get(labels, name) && !json_object_set(labels, name, nameless))
      json_object_del(labels, "");
    const double loss = e->loss_words[i] ? e->loss[i] / (double)e->loss_words[i] : 0;
    if (!layer || json_object_set_new(layer, "loss", json_real(loss)) || json_object_set_new(layers, name, layer)) {
      json_decref(layers);
      layers = NULL;
    }
  }
  json_t *all = layers ? json_pack("{s:o,s:o,s:f,s:f,s:I,s:s,s:o}", "micro", score_json(scores->micro), "macro",
                                   score_json(scores->macro), "accuracy", scores->accuracy, "loss", scores->loss,
                                   "words", (json_int_t)scores->words, "decode",
                                   e->decode == SW_DECODE_VITERBI ? "viterbi" : "argmax", "layers", layers)
                       : NULL;
  if (!all) sw_fail("the scores could not be written as JSON (a name that is not UTF-8, or out of memory)");
  return all;
}

int sw_eval_set_run(const sw_eval_set *set, const sw_model *model, sw_run *run, int64_t max_tokens, int max_batch,
                    sw_decode decode, sw_eval_scores *scores, json_t **json, sw_eval_words *words) {
  if (json) *json = NULL;
  evaluation e = {.set = set,
                  .model = model,
                  .run = run,
                  .max_tokens = max_tokens,
                  .max_batch = max_batch,
                  .decode = decode,
                  .num_layers = set->labels->num_layers,
                  .words = words};
  sw_run_set_dropout(run, 0, 0, 0);
  e.heads = sw_alloc_array(e.num_layers, sizeof *e.heads);
  int status = e.heads && !find_heads(&e) && !open_evaluation(&e) ? run_set(&e) : -1;
  if (!status && set->group) status = add_others(&e);
  if (status == 0) {
    sw_eval_scores all;
    status = add_up(&e, &all);
    if (!status && scores) *scores = all;
    if (!status && json && !(*json = scores_json(&e, &all))) status = -1;
  }
  close_evaluation(&e);
  return status;
}
