#include "engine/text/letter_words.h"
#include "base/error.h"
#include "engine/text/unicode.h"

#include <unicode/uchar.h>

sw_words sw_words_of(const char *text, size_t bytes) {
  return (sw_words){.at = (const uint8_t *)text, .begin = (const uint8_t *)text, .end = (const uint8_t *)text + bytes};
}

/* Gathers the letters of the next word, without its end. */
static int gather(sw_words *w) {
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

int sw_words_next(sw_words *w) {
  const int status = gather(w);
  w->word[w->bytes] = 0;
  return status;
}
