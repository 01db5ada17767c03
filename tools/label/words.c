#include "tools/label/words.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <unicode/unorm2.h>
#include <unicode/ustring.h>
#include <unicode/utf8.h>

enum { MAX_WORD = 2048 }; /* bytes of a word that are looked at */

void sw_label_words_close(sw_label_words *w) {
  sw_spans_close(&w->words);
  sw_buffer_close(&w->keys);
  free(w->key_of);
  free(w->silent);
  *w = (sw_label_words){0};
}

void sw_word_ranges_close(sw_word_ranges *r) {
  free(r->items);
  *r = (sw_word_ranges){0};
}

static UChar unify(UChar c) {
  switch (c) {
  case 0x2018: case 0x2019: case 0x201A: case 0x201B: case 0x2032: case 0x02BC: case 0x0060: case 0x00B4: return '\'';
  case 0x201C: case 0x201D: case 0x201E: case 0x201F: case 0x2033: case 0x00AB: case 0x00BB: return '"';
  case 0x2010: case 0x2011: case 0x2012: case 0x2013: case 0x2014: case 0x2015: case 0x2212: return '-';
  default: return c;
  }
}

static int append_key(sw_buffer *out, const char *word, size_t bytes) {
  char ascii[64];
  size_t n = 0;
  while (n < bytes && n < sizeof ascii && (unsigned char)word[n] < 0x80 && word[n] != '`') {
    ascii[n] = word[n] >= 'A' && word[n] <= 'Z' ? (char)(word[n] + 32) : word[n];
    n++;
  }
  if (n == bytes) return sw_buffer_append(out, ascii, n) || sw_buffer_append(out, "", 1) ? -1 : 0;
  UErrorCode error = U_ZERO_ERROR;
  const UNormalizer2 *fold = unorm2_getNFKCCasefoldInstance(&error);
  UChar from[MAX_WORD], to[4 * MAX_WORD];
  char utf8[12 * MAX_WORD];
  int32_t length = 0, folded = 0, final = 0;
  if (bytes <= MAX_WORD) {
    u_strFromUTF8(from, MAX_WORD, &length, word, (int32_t)bytes, &error);
    folded = unorm2_normalize(fold, from, length, to, 4 * MAX_WORD, &error);
    for (int32_t i = 0; U_SUCCESS(error) && i < folded; i++) to[i] = unify(to[i]);
    u_strToUTF8(utf8, sizeof utf8, &final, to, folded, &error);
  }
  if (bytes > MAX_WORD || error == U_BUFFER_OVERFLOW_ERROR || (U_SUCCESS(error) && !final)) { /* as it is */
    return sw_buffer_append(out, word, bytes) || sw_buffer_append(out, "", 1) ? -1 : 0;
  }
  if (U_FAILURE(error)) return sw_fail("ICU cannot normalise a word: %s", u_errorName(error));
  return sw_buffer_append(out, utf8, (size_t)final) || sw_buffer_append(out, "", 1) ? -1 : 0;
}

/* sw_split_words makes each punctuation character a word of its own. */
static int is_silent(const char *word, size_t bytes) {
  int32_t i = 0, n = (int32_t)bytes;
  UChar32 c;
  U8_NEXT((const uint8_t *)word, i, n, c);
  return i == n && c != '+' && c != '#' && (u_ispunct(c) || (c < 0x80 && !u_isalnum(c)));
}

int sw_label_words_read(sw_label_words *w, const char *text, size_t bytes) {
  w->text = text;
  w->bytes = bytes;
  sw_buffer_clear(&w->keys);
  if (sw_split_words(text, bytes, &w->words)) return -1;
  if (w->words.count > w->capacity) {
    const size_t capacity = w->words.count + w->words.count / 2 + 32;
    uint32_t *key_of = sw_realloc_array(w->key_of, capacity, sizeof *key_of);
    if (!key_of) return -1;
    w->key_of = key_of;
    uint8_t *silent = sw_realloc_array(w->silent, capacity, sizeof *silent);
    if (!silent) return -1;
    w->silent = silent;
    w->capacity = capacity;
  }
  for (size_t i = 0; i < w->words.count; i++) {
    const sw_span *s = &w->words.items[i];
    w->key_of[i] = (uint32_t)w->keys.size;
    w->silent[i] = (uint8_t)is_silent(text + s->byte_start, s->byte_end - s->byte_start);
    if (append_key(&w->keys, text + s->byte_start, s->byte_end - s->byte_start)) return -1;
  }
  return 0;
}

static int same_key(const sw_label_words *a, size_t i, const sw_label_words *b, size_t k) {
  return !strcmp(a->keys.data + a->key_of[i], b->keys.data + b->key_of[k]);
}

int sw_label_words_same(const sw_label_words *a, const sw_label_words *b) {
  if (a->words.count != b->words.count) return 0;
  for (size_t i = 0; i < a->words.count; i++)
    if (!same_key(a, i, b, i)) return 0;
  return 1;
}

/* "C" does not stand in "C++". */
static int is_cut(const sw_label_words *t, size_t end) {
  if (end >= t->words.count) return 0;
  const sw_span *next = &t->words.items[end];
  const char c = t->text[next->byte_start];
  return next->byte_start == t->words.items[end - 1].byte_end && (c == '+' || c == '#');
}

typedef enum { BY_LETTER, BY_KEY, WITHOUT_PUNCTUATION, WAYS } way;

/* The end of the words of `named` in `text` from word `first` on; 0: they do not stand there. */
static size_t match(const sw_label_words *t, size_t first, const sw_label_words *n, way how) {
  size_t i = first, end = 0;
  if (how == WITHOUT_PUNCTUATION && t->silent[first]) return 0;
  for (size_t k = 0; k < n->words.count; k++) {
    if (how == WITHOUT_PUNCTUATION) {
      if (n->silent[k]) continue;
      while (i < t->words.count && t->silent[i]) i++;
    }
    if (i == t->words.count || !same_key(t, i, n, k)) return 0;
    end = ++i;
  }
  if (how == BY_LETTER && end) { /* what lies between the words counts, too */
    const uint32_t from = t->words.items[first].byte_start, bytes = t->words.items[end - 1].byte_end - from;
    const uint32_t start = n->words.items[0].byte_start;
    if (bytes != n->words.items[n->words.count - 1].byte_end - start || memcmp(t->text + from, n->text + start, bytes)) return 0;
  }
  return end && !is_cut(t, end) ? end : 0;
}

int sw_label_words_find(const sw_label_words *t, const sw_label_words *n, sw_word_ranges *out) {
  out->count = 0;
  if (!n->words.count) return 0;
  for (way how = BY_LETTER; how < WAYS && !out->count; how++)
    for (size_t i = 0; i < t->words.count; i++) {
      const size_t end = match(t, i, n, how);
      if (!end) continue;
      if (out->count == out->capacity) {
        const size_t capacity = out->capacity ? 2 * out->capacity : 16;
        sw_word_range *items = sw_realloc_array(out->items, capacity, sizeof *items);
        if (!items) return -1;
        out->items = items;
        out->capacity = capacity;
      }
      out->items[out->count++] = (sw_word_range){(uint32_t)i, (uint32_t)end};
    }
  return 0;
}
