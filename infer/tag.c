/* skillwatch infer tag: skills in postings, as spans. */
#include "base/error.h"
#include "base/file.h"
#include "engine/data/token_set.h"
#include "engine/learn/viterbi.h"
#include "engine/store/config_file.h"
#include "engine/text/windows.h"
#include "engine/text/words.h"
#include "infer/tags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What encode leaves for finish: the words that have tokens, by sentence. One block: sentence_end, then words. */
typedef struct {
  uint32_t num_sentences, num_words;
} tagged_text;

static uint32_t *sentence_ends(const tagged_text *text) {
  return (uint32_t *)(text + 1);
} /* [num_sentences] index behind the last word */
static sw_span *words_of(const tagged_text *text) {
  return (sw_span *)(sentence_ends(text) + text->num_sentences);
}

typedef struct {
  sw_runs_worker turn;
  sw_encoding encoding;
  sw_spans sentences, words, kept;
  sw_word_windows windows;
  uint32_t *ends; /* [sentences] */
  size_t ends_capacity;
  int32_t *ids;              /* of the present sentence's words */
  uint32_t *tokens, *starts; /* of each word with tokens: how many, and where in ids */
  size_t ids_capacity, words_capacity;
  int32_t *sequence, *reads; /* [batch_tokens] */
  float *log_probs;          /* [batch_tokens, the most labels] */
  float *rows;               /* [words of a sentence, labels of a head] */
  int32_t *path;
  sw_entity *entities;
  size_t rows_capacity, path_capacity;
  sw_tag *tags;
  size_t tags_capacity;
} tag_worker;

static void close_worker(void *context, void *worker) {
  tag_worker *w = worker;
  sw_runs_worker_close(&w->turn);
  sw_encoding_close(&w->encoding);
  sw_spans_close(&w->sentences), sw_spans_close(&w->words), sw_spans_close(&w->kept);
  sw_word_windows_close(&w->windows);
  free(w->ends), free(w->ids), free(w->tokens), free(w->starts), free(w->sequence), free(w->reads), free(w->log_probs);
  free(w->rows), free(w->path), free(w->entities), free(w->tags);
  free(w);
}

static int open_worker(void *context, void **worker) {
  sw_tag_job *job = context;
  tag_worker *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *worker = w; /* closed by the pipeline, also when what follows fails */
  const unsigned long tokens = (unsigned long)job->session->runs.batch_tokens;
  w->sequence = sw_alloc_array(tokens, sizeof *w->sequence);
  w->reads = sw_alloc_array(tokens, sizeof *w->reads);
  w->log_probs = sw_alloc_array(tokens, sizeof(float) * (unsigned long)job->most_labels);
  return w->sequence && w->reads && w->log_probs ? sw_runs_worker_open(&job->session->runs, &w->turn) : -1;
}

/* Tokenises the words of a sentence one by one, as training does; those with tokens go to w->kept with offsets into the
 * text. */
static int encode_words(const sw_tag_job *job, tag_worker *w, const char *text, const sw_span *sentence) {
  if (sw_split_words(text + sentence->byte_start, sentence->byte_end - sentence->byte_start, &w->words)) return -1;
  if (w->words.count > w->words_capacity) {
    const size_t larger = w->words.count + w->words.count / 2 + 64;
    uint32_t *tokens = sw_realloc_array(w->tokens, larger, sizeof *tokens);
    if (!tokens) return -1;
    w->tokens = tokens;
    uint32_t *starts = sw_realloc_array(w->starts, larger, sizeof *starts);
    if (!starts) return -1;
    w->starts = starts;
    w->words_capacity = larger;
  }
  size_t num_ids = 0, num_words = 0;
  for (size_t i = 0; i < w->words.count; i++) {
    sw_span word = w->words.items[i];
    word.byte_start += sentence->byte_start, word.byte_end += sentence->byte_start;
    word.start += sentence->start, word.end += sentence->start;
    sw_encoding *encoding = &w->encoding;
    if (sw_tokenizer_encode(job->session->tokenizer, text + word.byte_start, word.byte_end - word.byte_start, encoding))
      return -1;
    if (encoding->count == 0) continue; /* control characters only */
    if (num_ids + encoding->count > w->ids_capacity) {
      const size_t larger = 2 * (num_ids + encoding->count);
      int32_t *ids = sw_realloc_array(w->ids, larger, sizeof *ids);
      if (!ids) return -1;
      w->ids = ids;
      w->ids_capacity = larger;
    }
    memcpy(w->ids + num_ids, encoding->ids, encoding->count * sizeof *w->ids);
    w->tokens[num_words] = (uint32_t)encoding->count;
    w->starts[num_words++] = (uint32_t)num_ids;
    num_ids += encoding->count;
    if (sw_spans_append(&w->kept, word)) return -1;
  }
  return sw_word_windows_make(w->tokens, num_words, (uint32_t)job->session->model->config.max_positions - 2,
                              job->overlap, &w->windows);
}

static int add_window(const sw_tag_job *job, tag_worker *w, const sw_word_window *window, sw_pieces *pieces) {
  const uint32_t room = (uint32_t)job->session->model->config.max_positions - 2;
  int32_t length = 0;
  uint32_t num_reads = 0;
  w->sequence[length++] = job->special.cls;
  for (uint32_t i = window->first; i < window->end; i++) {
    const uint32_t own = w->tokens[i] < room ? w->tokens[i] : room;
    if (i >= window->keep_first && i < window->keep_end) w->reads[num_reads++] = length;
    memcpy(w->sequence + length, w->ids + w->starts[i], own * sizeof *w->ids);
    length += (int32_t)own;
  }
  w->sequence[length++] = job->special.sep;
  if (num_reads == 0) return 0;
  return sw_pieces_add(pieces, w->sequence, length, w->reads, num_reads, num_reads * (uint32_t)job->total_labels);
}

static int encode_text(const sw_tag_job *job, tag_worker *w, sw_item *item, sw_pieces *pieces) {
  const char *text = item->posting.text;
  if (sw_split_sentences(text, item->posting.bytes, &w->sentences)) return -1;
  if (w->sentences.count > w->ends_capacity) {
    uint32_t *ends = sw_realloc_array(w->ends, w->sentences.count, sizeof *ends);
    if (!ends) return -1;
    w->ends = ends;
    w->ends_capacity = w->sentences.count;
  }
  w->kept.count = 0;
  for (size_t i = 0; i < w->sentences.count; i++) {
    if (encode_words(job, w, text, &w->sentences.items[i])) return -1;
    w->ends[i] = (uint32_t)w->kept.count;
    for (size_t k = 0; k < w->windows.count; k++)
      if (add_window(job, w, &w->windows.items[k], pieces)) return -1;
  }
  const size_t ends = w->sentences.count * sizeof *w->ends, words = w->kept.count * sizeof *w->kept.items;
  tagged_text *extra = sw_alloc(sizeof *extra + ends + words);
  if (!extra) return -1;
  *extra = (tagged_text){(uint32_t)w->sentences.count, (uint32_t)w->kept.count};
  if (ends) memcpy(sentence_ends(extra), w->ends, ends);
  if (words) memcpy(words_of(extra), w->kept.items, words);
  item->extra = extra;
  return 0;
}

static int encode(void *context, void *worker, sw_item *item, sw_pieces *pieces) {
  if (encode_text(context, worker, item, pieces) == 0) return 0;
  return sw_fail_in("row %llu (id %s)", (unsigned long long)item->posting.index + 1, item->posting.id);
}

/* A piece's result: a row for each read, the labels of all layers side by side. */
static int run_batch(const sw_tag_job *job, tag_worker *w, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  const void *states;
  if (sw_run_forward(w->turn.run, batch, &states)) return -1;
  const size_t total = (size_t)job->total_labels;
  for (size_t layer = 0, column = 0; layer < job->num_layers; layer++) {
    const size_t labels = job->layers[layer].rules.num_labels;
    if (sw_run_token_log_probs(w->turn.run, job->layers[layer].head, w->log_probs)) return -1;
    for (int i = 0; i < batch->batch; i++)
      for (uint32_t r = 0; r < pieces[i]->num_reads; r++) {
        const float *from = w->log_probs + (size_t)(batch->cu_seqlens[i] + pieces[i]->reads[r]) * labels;
        if (sw_item_check_finite(from, labels, &items[pieces[i]->item])) return -1;
        memcpy(pieces[i]->result + r * total + column, from, labels * sizeof *from);
      }
    column += labels;
  }
  return 0;
}
static int run(void *context, void *worker, const sw_batch *batch, const sw_piece *const *pieces, const sw_item *items) {
  tag_worker *w = worker;
  if (sw_runs_begin(&w->turn)) return -1;
  const int status = run_batch(context, w, batch, pieces, items);
  sw_runs_end(&w->turn);
  return status;
}

/* Decodes one layer of one sentence: `count` words beginning at `words`, whose rows are those of the pieces from
 * (piece, read) on. */
static int decode(const sw_tag_job *job, tag_worker *w, size_t layer, size_t column, const sw_item *item,
                  const sw_span *words, size_t count, uint32_t piece, size_t *num_tags) {
  const sw_viterbi_rules *rules = &job->layers[layer].rules;
  const size_t labels = rules->num_labels, total = (size_t)job->total_labels;
  for (size_t i = 0; i < count; piece++)
    for (uint32_t r = 0; r < item->pieces[piece].num_reads; r++, i++)
      memcpy(w->rows + i * labels, item->pieces[piece].result + r * total + column, labels * sizeof *w->rows);
  if (sw_viterbi_decode(rules, w->rows, count, w->path)) return -1;
  const size_t found = sw_entities(rules, w->path, w->rows, count, w->entities);
  if (*num_tags + found > w->tags_capacity) {
    const size_t larger = 2 * (*num_tags + found);
    sw_tag *tags = sw_realloc_array(w->tags, larger, sizeof *tags);
    if (!tags) return -1;
    w->tags = tags;
    w->tags_capacity = larger;
  }
  for (size_t k = 0; k < found; k++) {
    const sw_entity *entity = &w->entities[k];
    const sw_span *first = &words[entity->start], *last = &words[entity->end - 1];
    const char *type = rules->types[entity->type], *name = job->layers[layer].name;
    w->tags[(*num_tags)++] = (sw_tag){.span = {first->byte_start, last->byte_end, first->start, last->end},
                                      .layer = name,
                                      .label = type[0] ? type : name,
                                      .score = entity->score,
                                      .order = (uint32_t)layer};
  }
  return 0;
}

static int make_room(tag_worker *w, size_t words, size_t labels) {
  if (words * labels > w->rows_capacity) {
    free(w->rows);
    w->rows = sw_alloc_array(words, labels * sizeof *w->rows);
    w->rows_capacity = w->rows ? words * labels : 0;
    if (!w->rows) return -1;
  }
  if (words > w->path_capacity) {
    free(w->path), free(w->entities);
    w->path = sw_alloc_array(words, sizeof *w->path);
    w->entities = sw_alloc_array(words, sizeof *w->entities);
    w->path_capacity = w->path && w->entities ? words : 0;
    if (!w->path_capacity) return -1;
  }
  return 0;
}

static int finish(void *context, void *worker, const sw_item *item, sw_buffer *out) {
  const sw_tag_job *job = context;
  tag_worker *w = worker;
  const tagged_text *text = item->extra;
  size_t num_tags = 0;
  uint32_t piece = 0;
  for (uint32_t s = 0, first = 0; s < text->num_sentences; s++) {
    const uint32_t end = sentence_ends(text)[s], count = end - first;
    if (count == 0) continue;
    if (make_room(w, count, (size_t)job->most_labels)) return -1;
    for (size_t layer = 0, column = 0; layer < job->num_layers; layer++) {
      if (decode(job, w, layer, column, item, words_of(text) + first, count, piece, &num_tags)) return -1;
      column += job->layers[layer].rules.num_labels;
    }
    for (uint32_t seen = 0; seen < count; piece++) seen += item->pieces[piece].num_reads;
    first = end;
  }
  sw_tags_sort(w->tags, num_tags);
  return sw_tags_print(job, item, w->tags, num_tags, out);
}

static int write_record(void *context, const sw_item *items, size_t count, const sw_buffer *output,
                        const sw_pipeline_counts *counts) {
  sw_tag_job *job = context;
  return sw_infer_put(job->session, counts, output->data, output->size);
}

static int open_layers(sw_tag_job *job) {
  const sw_model *model = job->session->model;
  job->layers = sw_alloc_array(model->num_heads + 1, sizeof *job->layers);
  if (!job->layers) return -1;
  job->most_labels = 1;
  for (size_t h = 0; h < model->num_heads; h++) {
    const sw_model_head *head = &model->heads[h];
    if (strcmp(head->task, "token")) continue;
    sw_tag_layer *layer = &job->layers[job->num_layers];
    *layer = (sw_tag_layer){.head = h, .name = head->name};
    if (sw_viterbi_rules_open(head->labels, (size_t)head->num_labels, &layer->rules))
      return sw_fail_in("head '%s'", head->name);
    job->num_layers++;
    job->total_labels += head->num_labels;
    if (head->num_labels > job->most_labels) job->most_labels = head->num_labels;
  }
  if (job->num_layers == 0)
    return sw_fail("%s has no token head; train one with: skillwatch train ner --base %s --data labels.jsonl -o ner.h5",
                   job->session->options->model, job->session->options->model);
  if (model->config.max_positions < 3)
    return sw_fail("%s: sequences of %d tokens leave no room for text", job->session->options->model,
                   model->config.max_positions);
  return 0;
}

int sw_tag_open(sw_tag_job *job) {
  job->special = sw_tokenizer_special_ids(job->session->tokenizer);
  return open_layers(job);
}

void sw_tag_close(sw_tag_job *job) {
  for (size_t i = 0; i < job->num_layers; i++) sw_viterbi_rules_close(&job->layers[i].rules);
  free(job->layers);
}

const sw_pipeline_job sw_tag_steps = {.open_worker = open_worker, .close_worker = close_worker, .encode = encode, .run = run, .finish = finish};

static int tag(sw_tag_job *job, const sw_infer_options *options, const sw_list *inputs) {
  sw_infer_session session;
  job->session = &session;
  int status = sw_infer_open(&session, "tag", options, inputs);
  if (!status) status = sw_tag_open(job);
  if (!status) {
    json_t *settings =
        json_pack("{s:i,s:b,s:f}", "format", (int)job->format, "text", job->with_text, "overlap", job->overlap);
    status = settings ? sw_infer_open_output(job->session, settings) : sw_fail("out of memory");
  }
  sw_pipeline_job pipeline = sw_tag_steps;
  pipeline.context = job;
  pipeline.write = write_record;
  if (!status) status = sw_infer_complete(job->session, &pipeline, sw_tags_head(job), sw_tags_publish);
  sw_tag_close(job);
  sw_infer_close(&session);
  return status;
}

static int check(sw_tag_job *job, const sw_infer_options *o, const sw_list *inputs, int csv) {
  const size_t n = strlen(o->output);
  const int is_folder = n && o->output[n - 1] == '/', is_csv = csv || sw_infer_ends_in(o->output, ".csv");
  if (n == 0) return sw_fail("-o wants a name");
  if (csv && is_folder) return sw_fail("--csv and a folder as output exclude each other");
  if (!is_folder && !is_csv && strcmp(o->output, "-") && !sw_infer_ends_in(o->output, ".jsonl"))
    return sw_fail("-o %s: the name must end in .jsonl, .csv or / (a folder)", o->output);
  if (job->with_text && (is_folder || is_csv)) return sw_fail("--text is for JSON lines only");
  if (!(job->overlap >= 0 && job->overlap <= 0.9)) return sw_fail("--overlap wants a number from 0 to 0.9");
  for (int i = 0; is_folder && i < inputs->count; i++)
    if (strcmp(inputs->items[i], "-") && sw_is_inside(inputs->items[i], o->output))
      return sw_fail("the input %s lies in the output folder %s, whose files would replace it: give another -o",
                     inputs->items[i], o->output);
  job->format = is_folder ? SW_TAGS_FOLDER : is_csv ? SW_TAGS_CSV : SW_TAGS_JSONL;
  return 0;
}

int sw_infer_tag(int argc, char **argv) {
  sw_infer_options o = SW_INFER_DEFAULTS;
  sw_tag_job job = {.overlap = SW_WINDOW_OVERLAP};
  int csv = 0;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE",
       "tags.jsonl, tags.csv, folder/ (<date>/<n>.txt, one skill a line) or - for stdout"},
      {"csv", 0, SW_OPTION_FLAG, &csv, NULL, "one span a row: id, date, start, end, text, label, layer, score"},
      {"text", 0, SW_OPTION_FLAG, &job.with_text, NULL, "put the posting's text into each JSON line"},
      {"overlap", 0, SW_OPTION_DOUBLE, &job.overlap, "X",
       "of windows over sentences longer than the model, as a share of a window"},
      SW_INFER_COMMON_OPTIONS(o),
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer tag -m CHECKPOINT POSTINGS... [options]",
      .summary = "Finds skills in postings. POSTINGS: " SW_INFER_INPUTS
                 "One JSON object a posting, in input order:\n"
                 "  {\"id\", \"date\", \"spans\": [{\"start\", \"end\", \"text\", \"label\", \"layer\", \"score\"}]}\n"
                 "Offsets are Unicode code points; score is the mean probability of the span's tags. The output\n"
                 "appears when all is done; until then the work is kept in OUTPUT.partial, and an interrupted run\n"
                 "goes on from there.",
      .example = "skillwatch infer tag -m ner.h5 postings/ -o tags.jsonl",
      .options = options,
  };
  sw_list inputs = {0};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = sw_infer_check(&o, &inputs);
  if (!status) status = check(&job, &o, &inputs, csv);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = tag(&job, &o, &inputs) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&inputs);
  return status;
}
