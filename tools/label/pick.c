#include "tools/label/pick.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "engine/learn/evaluate.h"
#include "engine/store/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 2048, BATCH_TOKENS = 4096, MAX_BATCH = 1024 };

typedef struct {
  sw_pick_rule rule;
  sw_checkpoint checkpoint;
  sw_tokenizer *tokenizer;
  sw_device *device;
  sw_stream stream;
  sw_model *model;
  sw_run *run;
  int64_t batch_tokens;
  sw_labels layers;  /* of the model, with the chunk's sentences as examples */
  size_t *heads;     /* [num_layers] */
  uint64_t *numbers; /* [CHUNK] of the sentences */
  int32_t *ids, cu_seqlens[MAX_BATCH + 1];
  float *probs; /* [batch_tokens, the most labels] */
  sw_book seen; /* texts, by hash */
  struct sw_picked *best;
  size_t num_best, wanted, capacity;
} picker;

static int by_score(const void *a, const void *b) {
  const struct sw_picked *x = a, *y = b;
  if (x->score != y->score) return x->score < y->score ? 1 : -1;
  return x->number < y->number ? -1 : 1;
}

static int by_number(const void *a, const void *b) {
  const struct sw_picked *x = a, *y = b;
  return (x->number > y->number) - (x->number < y->number);
}

static void keep_best(picker *p) {
  if (p->num_best) qsort(p->best, p->num_best, sizeof *p->best, by_score);
  if (p->num_best > p->wanted) p->num_best = p->wanted;
}

static int open_picker(picker *p, const char *checkpoint, const char *device, int threads) {
  sw_checkpoint_init(&p->checkpoint);
  p->seen.journal.file = -1;
  if (sw_device_choose(device, 1, &p->device) || sw_stream_open(p->device, threads, &p->stream) || sw_checkpoint_read(checkpoint, &p->checkpoint)) return -1;
  if (!p->checkpoint.vocab_size) return sw_fail("%s has no tokenizer, so it cannot read text", checkpoint);
  if (sw_checkpoint_tokenizer(&p->checkpoint, &p->tokenizer) || sw_model_open(&p->stream, &p->checkpoint, SW_F32, SW_INFERENCE, &p->model))
    return sw_fail_in("%s", checkpoint);
  if (sw_eval_layers(p->model, checkpoint, &p->layers)) return -1;
  const int positions = p->model->config.max_positions;
  size_t most = 1;
  p->batch_tokens = positions > BATCH_TOKENS ? positions : BATCH_TOKENS;
  p->heads = sw_alloc_array(p->layers.num_layers, sizeof *p->heads);
  for (size_t l = 0; l < p->layers.num_layers && p->heads; l++) {
    p->heads[l] = (size_t)(sw_model_find_head(p->model, p->layers.layers[l].name) - p->model->heads);
    if (p->layers.layers[l].num_labels > most) most = p->layers.layers[l].num_labels;
  }
  p->layers.examples = sw_alloc_array(CHUNK, sizeof *p->layers.examples);
  p->numbers = sw_alloc_array(CHUNK, sizeof *p->numbers);
  p->ids = sw_alloc_array((unsigned long)p->batch_tokens, sizeof *p->ids);
  p->probs = sw_alloc_array((unsigned long)p->batch_tokens, sizeof *p->probs * most);
  p->capacity = 2 * p->wanted + CHUNK;
  p->best = sw_alloc_array(p->capacity, sizeof *p->best);
  if (!p->heads || !p->layers.examples || !p->numbers || !p->ids || !p->probs || !p->best) return -1;
  return sw_run_open(&p->stream, p->model, p->batch_tokens, MAX_BATCH, 0, &p->run);
}

static void clear_chunk(picker *p) {
  for (size_t i = 0; i < p->layers.num_examples; i++) free(p->layers.examples[i].text), free(p->layers.examples[i].words), free(p->layers.examples[i].tags);
  p->layers.num_examples = 0;
}

static void close_picker(picker *p) {
  if (p->layers.examples) clear_chunk(p);
  if (p->run) sw_run_close(p->run);
  free(p->layers.examples), free(p->layers.layers), free(p->heads), free(p->numbers), free(p->ids), free(p->probs), free(p->best);
  sw_book_close(&p->seen, 0);
  sw_model_close(p->model);
  sw_tokenizer_close(p->tokenizer);
  sw_device_close(p->device);
  sw_checkpoint_close(&p->checkpoint);
}

/* How unsure a word's log probabilities are. */
static double doubt(sw_pick_rule rule, const float *row, size_t labels) {
  double entropy = 0, first = -INFINITY, second = -INFINITY;
  for (size_t k = 0; k < labels; k++) {
    const double x = (double)row[k];
    entropy -= exp(x) * x;
    second = x > first ? first : x > second ? x : second;
    first = x > first ? x : first;
  }
  return rule == SW_PICK_MARGIN && isfinite(entropy) ? 1 - exp(first) + exp(second) : entropy;
}

/* Adds what a batch's words are in doubt of to their sentences' scores. */
static int run_batch(picker *p, const sw_token_set *set, const uint32_t *order, size_t count, double *scores) {
  sw_batch batch = {.batch = (int)count, .ids = p->ids, .cu_seqlens = p->cu_seqlens};
  for (size_t i = 0; i < count; i++) {
    const sw_sequence *s = &set->items[order[i]];
    p->cu_seqlens[i] = (int32_t)batch.tokens;
    memcpy(p->ids + batch.tokens, s->ids, (size_t)s->length * sizeof *p->ids);
    batch.tokens += s->length;
    if (s->length > batch.max_seqlen) batch.max_seqlen = s->length;
  }
  p->cu_seqlens[count] = (int32_t)batch.tokens;
  const void *states;
  if (sw_run_forward(p->run, &batch, &states)) return -1;
  for (size_t l = 0; l < p->layers.num_layers; l++) {
    const size_t labels = p->layers.layers[l].num_labels;
    if (sw_run_token_log_probs(p->run, p->heads[l], p->probs)) return -1;
    for (size_t i = 0; i < count; i++) {
      const sw_sequence *s = &set->items[order[i]];
      for (int32_t t = 0; t < s->length; t++) {
        const float *row = p->probs + ((size_t)p->cu_seqlens[i] + (size_t)t) * labels;
        if (s->words[t] < 0) continue;
        const double d = doubt(p->rule, row, labels);
        if (!isfinite(d)) return sw_fail("the model gives a value that is no number; its weights are unusable");
        double *score = &scores[s->example];
        *score = p->rule == SW_PICK_MAX ? fmax(*score, d) : *score + d;
      }
    }
  }
  return 0;
}

static int score_chunk(picker *p) {
  const size_t examples = p->layers.num_examples;
  sw_token_set set = {0};
  if (!examples || sw_token_set_open(&p->layers, p->tokenizer, p->model->config.max_positions, SW_WINDOW_OVERLAP, &set)) return examples ? -1 : 0;
  double *scores = sw_alloc_array(examples, sizeof *scores);
  uint64_t *words = sw_alloc_array(examples, sizeof *words);
  uint32_t *order = sw_alloc_array(set.count + 1, sizeof *order);
  size_t *starts = sw_alloc_array(set.count + 1, sizeof *starts);
  int status = scores && words && order && starts ? 0 : -1;
  for (size_t i = 0; i < set.count && !status; i++) order[i] = (uint32_t)i, words[set.items[i].example] += set.items[i].num_words;
  const size_t batches = status ? 0 : sw_token_set_cut(&set, order, set.count, p->batch_tokens, MAX_BATCH, starts);
  for (size_t i = 0; i < batches && !status; i++) status = run_batch(p, &set, order + starts[i], starts[i + 1] - starts[i], scores);
  const int mean = p->rule == SW_PICK_MEAN || p->rule == SW_PICK_MARGIN;
  for (size_t i = 0; i < examples && !status; i++)
    if (words[i]) p->best[p->num_best++] = (struct sw_picked){p->numbers[i], mean ? scores[i] / ((double)words[i] * (double)p->layers.num_layers) : scores[i]};
  if (p->num_best + CHUNK > p->capacity) keep_best(p);
  sw_token_set_close(&set);
  free(scores), free(words), free(order), free(starts);
  clear_chunk(p);
  return status;
}

/* A sentence that was not there before joins the chunk. */
static int add_sentence(picker *p, const sw_sentence *s, uint64_t number) {
  char key[65];
  sw_sha256 *hash = sw_sha256_open();
  if (!hash) return -1;
  sw_sha256_add(hash, s->text, s->bytes);
  sw_sha256_close(hash, key);
  const size_t known = p->seen.count;
  if (sw_book_mark(&p->seen, key, SW_BOOK_UNKNOWN)) return -1;
  if (p->seen.count == known) return 0;
  sw_spans words = {0};
  if (sw_split_words(s->text, s->bytes, &words)) return -1;
  sw_example e = {.text = sw_strndup(s->text, s->bytes), .bytes = s->bytes, .num_words = words.count, .words = words.items, .weight = 1};
  e.tags = sw_alloc_array(p->layers.num_layers * words.count + 1, sizeof *e.tags);
  p->numbers[p->layers.num_examples] = number;
  p->layers.examples[p->layers.num_examples++] = e;
  if (!e.text || !e.tags) return -1;
  for (size_t i = 0; i < p->layers.num_layers * words.count; i++) e.tags[i] = SW_IGNORE;
  return p->layers.num_examples == CHUNK ? score_chunk(p) : 0;
}

int sw_label_pick(sw_label_options *o, size_t count, sw_pick_rule rule, const char *device, int threads) {
  picker p = {.rule = rule, .wanted = count};
  sw_sentences stream = {0};
  sw_sentence s;
  sw_progress progress;
  int more = 0, status = open_picker(&p, o->checkpoint, device, threads);
  if (!status) status = sw_sentences_open(o->inputs.items, (size_t)o->inputs.count, &o->postings, o->whole, &stream);
  sw_progress_open(&progress, "pick", 0, o->quiet);
  for (uint64_t number = 0; !status && (more = sw_sentences_next(&stream, &s)) > 0; number++) {
    if (s.bytes <= SW_MAX_SENTENCE) status = add_sentence(&p, &s, number);
    sw_progress_show(&progress, (double)number, "sentences");
  }
  sw_progress_close(&progress);
  if (more < 0) status = -1;
  if (!status) status = score_chunk(&p);
  if (stream.postings) sw_sentences_close(&stream);
  if (!status) {
    keep_best(&p);
    if (p.num_best) qsort(p.best, p.num_best, sizeof *p.best, by_number);
    if (!p.num_best) status = sw_fail("no sentence can be picked");
    if (!status && !o->quiet) fprintf(stderr, "pick: %zu of %zu distinct sentences\n", p.num_best, p.seen.count);
    o->picked = p.best;
    o->num_picked = p.num_best;
    p.best = NULL;
  }
  close_picker(&p);
  return status;
}

static int print_picked(const sw_label_options *o, sw_row_writer *w, const sw_sentence *s, double score, sw_buffer *row) {
  if (o->form > SW_WRITE_TOKENS) {
    static const sw_label_words none = {0};
    static const sw_label_spans nothing = {0};
    return sw_row_print(w, s, &none, &nothing, 0, 1, row);
  }
  sw_buffer_clear(row);
  sw_buffer source = {0};
  int status = sw_buffer_print(&source, "%s#%zu", s->posting, s->number) || sw_buffer_print(row, "{\"text\": ") || sw_json_quote(row, s->text, s->bytes) ||
               sw_buffer_print(row, ", \"source\": ") || sw_json_quote(row, source.data, source.size) || sw_buffer_print(row, ", \"uncertainty\": %.6f}\n", score);
  sw_buffer_close(&source);
  return status ? -1 : 0;
}

int sw_label_write_picked(const sw_label_options *o) {
  sw_row_writer writer = {.form = o->form, .labels = &o->labels};
  sw_sentences stream = {0};
  sw_sentence s;
  sw_output output = {0};
  sw_buffer row = {0};
  size_t next = 0;
  int more = 0, status = sw_output_open(&output, o->output) ? -1 : sw_sentences_open(o->inputs.items, (size_t)o->inputs.count, &o->postings, o->whole, &stream);
  for (uint64_t number = 0; !status && next < o->num_picked && (more = sw_sentences_next(&stream, &s)) > 0; number++) {
    if (o->picked[next].number != number) continue;
    status = print_picked(o, &writer, &s, o->picked[next++].score, &row);
    if (!status && fwrite(row.data, row.size, 1, output.file) != 1) status = sw_fail("cannot write %s: the disk is full or fails", o->output);
  }
  if (more < 0) status = -1;
  if (!status && next < o->num_picked) status = sw_fail("the inputs changed while they were in use; run the command again");
  if (!status && fputs(sw_row_end(&writer), output.file) < 0) status = sw_fail("cannot write %s", o->output);
  if (stream.postings) sw_sentences_close(&stream);
  if (!status) status = sw_output_commit(&output);
  else sw_output_abandon(&output);
  sw_row_writer_close(&writer);
  sw_buffer_close(&row);
  return status;
}
