#include "engine/data/token_set.h"
#include "base/error.h"
#include "engine/text/windows.h"

#include <stdlib.h>
#include <string.h>

/* The numbers of all sequences, one block of (2 + num_layers) * length each: ids, words, labels. It may move while it
 * grows, so sequences get their pointers at the end. */
typedef struct {
  int32_t *data;
  size_t count, capacity;
} numbers;

typedef struct {
  const sw_labels *labels;
  const sw_tokenizer *tokenizer;
  sw_special_ids special;
  uint32_t room; /* tokens of a sequence without [CLS] and [SEP] */
  double overlap;
  sw_encoding encoding;
  sw_word_windows windows;
  int32_t *ids;     /* of the present example's words, one after the other */
  uint32_t *tokens; /* of each word */
  size_t *starts;   /* where each word's ids begin */
  size_t ids_capacity, words_capacity;
  numbers numbers;
  size_t sequences_capacity;
} builder;

static void builder_close(builder *b) {
  sw_encoding_close(&b->encoding);
  sw_word_windows_close(&b->windows);
  free(b->ids);
  free(b->tokens);
  free(b->starts);
  free(b->numbers.data);
}

static int32_t *numbers_take(numbers *n, size_t count) {
  if (n->count + count > n->capacity) {
    size_t capacity = n->capacity ? n->capacity : 4096;
    while (capacity < n->count + count) capacity *= 2;
    int32_t *data = sw_realloc_array(n->data, capacity, sizeof *data);
    if (!data) return NULL;
    n->data = data;
    n->capacity = capacity;
  }
  n->count += count;
  return n->data + n->count - count;
}

static int encode_words(builder *b, const sw_example *example) {
  if (example->num_words > b->words_capacity) {
    uint32_t *tokens = sw_realloc_array(b->tokens, example->num_words, sizeof *tokens);
    if (!tokens) return -1;
    b->tokens = tokens;
    size_t *starts = sw_realloc_array(b->starts, example->num_words, sizeof *starts);
    if (!starts) return -1;
    b->starts = starts;
    b->words_capacity = example->num_words;
  }
  size_t count = 0;
  for (size_t w = 0; w < example->num_words; w++) {
    const sw_span *word = &example->words[w];
    if (sw_tokenizer_encode(b->tokenizer, example->text + word->byte_start, word->byte_end - word->byte_start,
                            &b->encoding))
      return -1;
    const size_t own = b->encoding.count;
    if (count + own > b->ids_capacity) {
      size_t capacity = 2 * (count + own);
      int32_t *ids = sw_realloc_array(b->ids, capacity, sizeof *ids);
      if (!ids) return -1;
      b->ids = ids;
      b->ids_capacity = capacity;
    }
    if (own) memcpy(b->ids + count, b->encoding.ids, own * sizeof *b->ids);
    b->starts[w] = count;
    b->tokens[w] = (uint32_t)own;
    count += own;
  }
  return 0;
}

static int add_sequence(builder *b, uint32_t index, const sw_word_window *window, sw_token_set *set) {
  const sw_example *example = &b->labels->examples[index];
  int32_t length = 2;
  uint32_t num_words = 0;
  for (uint32_t w = window->first; w < window->end; w++) {
    const uint32_t own = b->tokens[w] < b->room ? b->tokens[w] : b->room;
    length += (int32_t)own;
    num_words += own && w >= window->keep_first && w < window->keep_end;
  }
  if (num_words == 0) return 0; /* nothing in it is asked for */
  if (set->count == b->sequences_capacity) {
    size_t capacity = set->count ? 2 * set->count : 256;
    sw_sequence *items = sw_realloc_array(set->items, capacity, sizeof *items);
    if (!items) return -1;
    set->items = items;
    b->sequences_capacity = capacity;
  }
  const size_t layers = b->labels->num_layers, n = (size_t)length;
  int32_t *ids = numbers_take(&b->numbers, (2 + layers) * n);
  if (!ids) return -1;
  int32_t *words = ids + n, *labels = words + n;
  for (size_t i = 0; i < n; i++) words[i] = -1;
  for (size_t i = 0; i < layers * n; i++) labels[i] = SW_IGNORE;
  size_t t = 0;
  ids[t++] = b->special.cls;
  for (uint32_t w = window->first; w < window->end; w++) {
    const uint32_t own = b->tokens[w] < b->room ? b->tokens[w] : b->room;
    if (own == 0) continue;
    if (w >= window->keep_first && w < window->keep_end) {
      words[t] = (int32_t)w;
      for (size_t layer = 0; layer < layers; layer++)
        labels[layer * n + t] = example->tags[layer * example->num_words + w];
    }
    memcpy(ids + t, b->ids + b->starts[w], own * sizeof *ids);
    t += own;
  }
  ids[t] = b->special.sep;
  set->items[set->count++] =
      (sw_sequence){.length = length, .example = index, .weight = example->weight, .num_words = num_words};
  set->tokens += n;
  if (length > set->max_length) set->max_length = length;
  return 0;
}

static int build(builder *b, sw_token_set *set) {
  if (b->labels->num_examples > UINT32_MAX) return sw_fail("%zu examples are too many", b->labels->num_examples);
  for (size_t i = 0; i < b->labels->num_examples; i++) {
    const sw_example *example = &b->labels->examples[i];
    if (encode_words(b, example)) return -1;
    if (sw_word_windows_make(b->tokens, example->num_words, b->room, b->overlap, &b->windows)) return -1;
    set->split += b->windows.count > 1;
    for (size_t k = 0; k < b->windows.count; k++)
      if (add_sequence(b, (uint32_t)i, &b->windows.items[k], set)) return -1;
  }
  set->arena = b->numbers.data;
  b->numbers.data = NULL;
  const int32_t *at = set->arena;
  for (size_t i = 0; i < set->count; i++) {
    sw_sequence *sequence = &set->items[i];
    sequence->ids = at;
    sequence->words = at + sequence->length;
    sequence->labels = at + 2 * (size_t)sequence->length;
    at += (2 + set->num_layers) * (size_t)sequence->length;
  }
  return 0;
}

int sw_token_set_open(const sw_labels *labels, const sw_tokenizer *tokenizer, int max_length, double overlap,
                      sw_token_set *out) {
  *out = (sw_token_set){.num_layers = labels->num_layers};
  if (max_length < 3)
    return sw_fail("sequences of at most %d tokens have no room for a word beside [CLS] and [SEP]", max_length);
  builder b = {.labels = labels,
               .tokenizer = tokenizer,
               .special = sw_tokenizer_special_ids(tokenizer),
               .room = (uint32_t)max_length - 2,
               .overlap = overlap};
  int status = build(&b, out);
  builder_close(&b);
  if (status) sw_token_set_close(out);
  return status;
}

void sw_token_set_close(sw_token_set *set) {
  free(set->items);
  free(set->arena);
  *set = (sw_token_set){0};
}

size_t sw_token_set_cut(const sw_token_set *set, const uint32_t *order, size_t count, int64_t max_tokens, int max_batch,
                        size_t *starts) {
  size_t batches = 0;
  int64_t tokens = 0;
  for (size_t i = 0; i < count; i++) {
    const int32_t length = set->items[order[i]].length;
    if (i == 0 || tokens + length > max_tokens || i - starts[batches - 1] >= (size_t)max_batch) {
      starts[batches++] = i;
      tokens = 0;
    }
    tokens += length;
  }
  starts[batches] = count;
  return batches;
}
