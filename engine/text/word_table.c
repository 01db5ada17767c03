#include "engine/text/word_table.h"
#include "base/error.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>

sw_words sw_words_of(const char *text, size_t bytes) {
  return (sw_words){.at = (const uint8_t *)text, .begin = (const uint8_t *)text, .end = (const uint8_t *)text + bytes};
}

int sw_words_next(sw_words *w) {
  w->bytes = 0;
  while (w->at < w->end) {
    uint32_t c, lower[2];
    if (*w->at < 0x80) { /* most texts: the same without the tables of Unicode */
      const uint8_t ascii = *w->at++ | 0x20;
      const int is_ascii_letter = ascii >= 'a' && ascii <= 'z' && (w->at[-1] & 0x40);
      if (!is_ascii_letter && w->bytes) return 1;
      if (is_ascii_letter && w->bytes <= SW_WORD_BYTES) w->word[w->bytes++] = (char)ascii;
      continue;
    }
    const size_t length = sw_utf8_decode(w->at, w->end, &c);
    if (!length) return sw_fail("byte %zu (0x%02X) is not UTF-8: convert the text to UTF-8", (size_t)(w->at - w->begin), *w->at);
    w->at += length;
    const int is_letter = u_isUAlphabetic((UChar32)c) || (w->bytes && (U_GET_GC_MASK((UChar32)c) & U_GC_M_MASK));
    if (!is_letter && w->bytes) return 1;
    if (!is_letter) continue;
    const size_t letters = sw_char_lower(c, lower);
    for (size_t i = 0; i < letters; i++) /* the room is that of two letters more than the limit */
      if (w->bytes <= SW_WORD_BYTES) w->bytes += sw_utf8_encode(lower[i], (uint8_t *)w->word + w->bytes);
  }
  return w->bytes != 0;
}

void sw_word_table_close(sw_word_table *t) {
  for (size_t i = 0; i < t->capacity; i++) free(t->entries[i].text);
  free(t->entries);
  *t = (sw_word_table){0};
}

/* The text's entry, or the free place for it. The table has one. */
static sw_word_entry *place(const sw_word_table *t, const char *text, size_t bytes) {
  uint64_t hash = 14695981039346656037u; /* FNV-1a */
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
  for (size_t at = (size_t)(hash ^ hash >> 32);; at++) {
    sw_word_entry *e = &t->entries[at & (t->capacity - 1)];
    if (!e->text || (!strncmp(e->text, text, bytes) && !e->text[bytes])) return e;
  }
}

sw_word_entry *sw_word_table_find(const sw_word_table *t, const char *text, size_t bytes) {
  sw_word_entry *e = t->capacity ? place(t, text, bytes) : NULL;
  return e && e->text ? e : NULL;
}

sw_word_entry *sw_word_table_add(sw_word_table *t, const char *text, size_t bytes) {
  if (2 * t->count >= t->capacity) {
    sw_word_table larger = {.count = t->count, .capacity = t->capacity ? 2 * t->capacity : 256};
    if (!(larger.entries = sw_alloc_array(larger.capacity, sizeof *larger.entries))) return NULL;
    for (size_t i = 0; i < t->capacity; i++)
      if (t->entries[i].text) *place(&larger, t->entries[i].text, strlen(t->entries[i].text)) = t->entries[i];
    free(t->entries);
    *t = larger;
  }
  sw_word_entry *e = place(t, text, bytes);
  if (e->text) return e;
  if (!(e->text = sw_strndup(text, bytes))) return NULL;
  t->count++;
  return e;
}
