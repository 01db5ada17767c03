/* The vocabulary of a tokenizer: opened, checked and looked up. encode.c uses it. */
#include "engine/text/tokenizer.h"
#include "base/error.h"
#include "engine/text/unicode.h"
#include "engine/text/wordpiece.h"
#include "engine/text/words.h"

#include <stdlib.h>
#include <string.h>

static int compare_keys(const void *a, const void *b) {
  const sw_trie_key *x = a, *y = b;
  int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
  return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int copy_vocab(sw_tokenizer *t, const char *const *vocab, const size_t *bytes) {
  size_t total = 0;
  for (size_t i = 0; i < t->count; i++) {
    if (bytes[i] > INT32_MAX) return sw_fail("vocabulary: token %zu is %zu bytes long", i, bytes[i]);
    if (sw_check_utf8(vocab[i], bytes[i])) return sw_fail_in("vocabulary: token %zu", i);
    total += bytes[i];
  }
  t->text = sw_alloc(total + 1);
  t->offset = sw_alloc_array(t->count + 1, sizeof *t->offset);
  if (!t->text || !t->offset) return -1;
  for (size_t i = 0; i < t->count; i++) {
    if (bytes[i]) memcpy(t->text + t->offset[i], vocab[i], bytes[i]);
    t->offset[i + 1] = t->offset[i] + bytes[i];
  }
  return 0;
}

static int build_trie(sw_tokenizer *t) {
  sw_trie_key *keys = sw_alloc_array(t->count, sizeof *keys);
  if (!keys) return -1;
  for (size_t i = 0; i < t->count; i++)
    keys[i] = (sw_trie_key){t->text + t->offset[i], (uint32_t)(t->offset[i + 1] - t->offset[i]), (uint32_t)i};
  qsort(keys, t->count, sizeof *keys, compare_keys);
  int status = 0;
  for (size_t i = 1; i < t->count && !status; i++)
    if (!compare_keys(&keys[i - 1], &keys[i])) {
      uint32_t a = keys[i - 1].value, b = keys[i].value;
      status = sw_fail("vocabulary: \"%.*s\" appears twice, as tokens %u and %u: one of them can have no id",
                       (int)(keys[i].bytes < 200 ? keys[i].bytes : 200), keys[i].text, a < b ? a : b, a < b ? b : a);
    }

  /* a token longer than any word is never found; the empty one neither */
  size_t kept = 0, longest = (size_t)t->options.max_chars_per_word * 4 + 2;
  for (size_t i = 0; i < t->count; i++)
    if (keys[i].bytes && keys[i].bytes <= longest) keys[kept++] = keys[i];
  if (!status) status = sw_trie_open(keys, kept, &t->trie);
  free(keys);
  if (status) return -1;
  t->inside = sw_trie_step(&t->trie, 0, '#');
  if (t->inside != SW_TRIE_NONE) t->inside = sw_trie_step(&t->trie, t->inside, '#');
  return 0;
}

static int32_t find(const sw_tokenizer *t, const char *text, size_t bytes) {
  size_t length = 0;
  uint32_t id = sw_trie_longest(&t->trie, 0, (const uint8_t *)text, bytes, &length);
  return id != SW_TRIE_NONE && length == bytes ? (int32_t)id : -1;
}

static int find_special_tokens(sw_tokenizer *t) {
  const struct {
    const char *text;
    int32_t *id;
    int is_needed;
  } tokens[SW_SPECIAL_TOKENS] = {{"[UNK]", &t->special.unk, 1},
                                 {"[CLS]", &t->special.cls, 1},
                                 {"[SEP]", &t->special.sep, 1},
                                 {"[PAD]", &t->special.pad, 1},
                                 {"[MASK]", &t->special.mask, 0}};
  for (int i = 0; i < SW_SPECIAL_TOKENS; i++) {
    *tokens[i].id = find(t, tokens[i].text, strlen(tokens[i].text));
    if (*tokens[i].id >= 0) {
      t->special_text[t->special_count] = tokens[i].text;
      t->special_id[t->special_count++] = *tokens[i].id;
    } else if (tokens[i].is_needed)
      return sw_fail("vocabulary: no token %s among %zu: is this a BERT vocabulary?", tokens[i].text, t->count);
  }
  return 0;
}

static void classify_bytes(sw_tokenizer *t) {
  for (int c = 0; c < 128; c++) {
    uint8_t class = sw_char_class((uint32_t)c);
    char text = (char)c;
    int32_t id = find(t, &text, 1);
    t->alone_id[c] = id < 0 ? t->special.unk : id;
    if (class & SW_CHAR_CONTROL && t->options.clean_text)
      t->byte_class[c] = SW_BYTE_OTHER;
    else if (class & SW_CHAR_SPACE)
      t->byte_class[c] = SW_BYTE_SPACE;
    else if (class & SW_CHAR_PUNCTUATION)
      t->byte_class[c] = SW_BYTE_ALONE;
    else
      t->byte_class[c] = class & SW_CHAR_CONTROL ? SW_BYTE_OTHER : SW_BYTE_WORD;
  }
}

static int open_vocab(sw_tokenizer *t, const char *const *vocab, const size_t *bytes) {
  static atomic_uint_least64_t serials;
  t->serial = atomic_fetch_add(&serials, 1) + 1;
  if (sw_unicode_open() || copy_vocab(t, vocab, bytes) || build_trie(t) || find_special_tokens(t)) return -1;
  classify_bytes(t);
  return 0;
}

int sw_tokenizer_open(const char *const *vocab, const size_t *bytes, size_t count, const sw_tokenizer_options *options,
                      sw_tokenizer **out) {
  *out = NULL;
  if (!count || count >= SW_TRIE_VALUES)
    return sw_fail("vocabulary: %zu tokens; it must have at least one and fewer than %u", count, SW_TRIE_VALUES);
  if (options->max_chars_per_word < 1 || options->max_chars_per_word > SW_MAX_CHARS_PER_WORD)
    return sw_fail("tokenizer: max_chars_per_word is %d; it must be 1 to %d", options->max_chars_per_word,
                   SW_MAX_CHARS_PER_WORD);
  sw_tokenizer *t = sw_alloc(sizeof *t);
  if (!t) return -1;
  t->options = *options;
  t->strip_accents = options->strip_accents < 0 ? options->do_lower_case : options->strip_accents;
  t->count = count;
  if (open_vocab(t, vocab, bytes)) {
    sw_tokenizer_close(t);
    return -1;
  }
  *out = t;
  return 0;
}

void sw_tokenizer_close(sw_tokenizer *t) {
  if (!t) return;
  sw_trie_close(&t->trie);
  free(t->offset);
  free(t->text);
  free(t);
}

sw_special_ids sw_tokenizer_special_ids(const sw_tokenizer *t) {
  return t->special;
}
size_t sw_tokenizer_vocab_size(const sw_tokenizer *t) {
  return t->count;
}
int sw_tokenizer_continues(const sw_tokenizer *tokenizer, int32_t id) {
  size_t bytes;
  const char *token = sw_tokenizer_token(tokenizer, id, &bytes);
  return token && bytes > 2 && !memcmp(token, "##", 2);
}

const sw_tokenizer_options *sw_tokenizer_get_options(const sw_tokenizer *t) {
  return &t->options;
}

const char *sw_tokenizer_token(const sw_tokenizer *t, int32_t id, size_t *bytes) {
  if (id < 0 || (size_t)id >= t->count) return NULL;
  *bytes = t->offset[id + 1] - t->offset[id];
  return t->text + t->offset[id];
}
