#include "engine/text/words.h"
#include "base/error.h"
#include "engine/text/unicode.h"

#include <stdlib.h>

void sw_spans_close(sw_spans *spans) {
  free(spans->items);
  *spans = (sw_spans){0};
}

int sw_spans_append(sw_spans *spans, sw_span span) {
  if (spans->count == spans->capacity) {
    size_t capacity = spans->capacity * 2 + 16;
    sw_span *items = sw_realloc_array(spans->items, capacity, sizeof *items);
    if (!items) return -1;
    spans->items = items;
    spans->capacity = capacity;
  }
  spans->items[spans->count++] = span;
  return 0;
}

int sw_split_words(const char *text, size_t bytes, sw_spans *out) {
  out->count = 0;
  if (bytes > INT32_MAX) return sw_fail("a text of %zu bytes is too long to split: cut it", bytes);
  const uint8_t *begin = (const uint8_t *)text, *end = begin + bytes;
  sw_span word = {0};
  int is_open = 0;
  uint32_t index = 0;
  for (const uint8_t *p = begin; p < end; index++) {
    uint32_t c, at = (uint32_t)(p - begin);
    size_t length = sw_utf8_decode(p, end, &c);
    if (!length) return sw_fail("byte %u (0x%02X) is not UTF-8: convert the text to UTF-8", at, *p);
    p += length;
    uint8_t class = sw_char_class(c);
    if (class & SW_CHAR_CONTROL) continue; /* BERT does not see it: it neither ends a word nor belongs to its ends */
    int stands_alone = class & (SW_CHAR_PUNCTUATION | SW_CHAR_CJK);
    if (is_open && (stands_alone || class & SW_CHAR_SPACE)) {
      if (sw_spans_append(out, word)) return -1;
      is_open = 0;
    }
    if (class & SW_CHAR_SPACE) continue;
    if (!is_open) word = (sw_span){.byte_start = at, .start = index};
    word.byte_end = at + (uint32_t)length;
    word.end = index + 1;
    is_open = !stands_alone;
    if (stands_alone && sw_spans_append(out, word)) return -1;
  }
  return is_open ? sw_spans_append(out, word) : 0;
}
