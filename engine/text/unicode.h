/* What one Unicode character means to BERT's tokenizer, pinned to what Hugging Face's `tokenizers` was built with.
 *
 * `tokenizers` takes its properties from three places of different age, and so do we, whatever ICU is installed:
 *   general categories (punctuation, marks, format characters)  crate unicode_categories, Unicode 8
 *   canonical decomposition and combining classes  crate unicode-normalization-alignments, Unicode 9
 *   lower-casing and white space  the Rust standard library, Unicode 17
 * A character younger than that, by ICU's own record of its age, has no such property here; the few whose properties
 * changed later, or that ICU 72 does not know yet, are listed in unicode.c. tests/parity compares all code points. */
#ifndef SW_TEXT_UNICODE_H
#define SW_TEXT_UNICODE_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
  SW_CHAR_SPACE = 1,       /* White_Space: separates words */
  SW_CHAR_PUNCTUATION = 2, /* a word of its own: ASCII punctuation and general category P */
  SW_CHAR_CJK = 4,         /* an ideograph, in the ranges that BERT sets spaces around */
  SW_CHAR_CONTROL = 8,     /* removed by clean_text: categories Cc (but \t \n \r), Cf, Co, and U+0000, U+FFFD */
  SW_CHAR_MARK = 16,       /* category Mn: removed by strip_accents */
  SW_CHAR_DECOMPOSES = 32, /* sw_char_decompose gives something else */
  SW_CHAR_REORDERS = 64,   /* canonical combining class is not 0 */
  SW_CHAR_UPPER = 128,     /* sw_char_lower gives something else */
};

#define SW_CODE_POINTS 0x110000u
#define SW_CHAR_PAGE 256u
extern uint8_t sw_char_classes[SW_CODE_POINTS];
extern _Atomic uint8_t sw_char_pages_ready[SW_CODE_POINTS / SW_CHAR_PAGE];
void sw_char_fill_page(uint32_t page);

/* The classes above, of a code point below SW_CODE_POINTS. Thread-safe; a page of 256 is found at its first use. */
static inline uint8_t sw_char_class(uint32_t c) {
  uint32_t page = c / SW_CHAR_PAGE;
  if (!atomic_load_explicit(&sw_char_pages_ready[page], memory_order_acquire)) sw_char_fill_page(page);
  return sw_char_classes[c];
}

/* Fails where ICU's normalisation data cannot be had; call it once before the functions below. */
int sw_unicode_open(void);
/* Full canonical decomposition of one character; returns how many characters it gave. */
enum { SW_DECOMPOSITION_MAX = 4 };
size_t sw_char_decompose(uint32_t c, uint32_t out[SW_DECOMPOSITION_MAX]);
uint8_t sw_char_combining_class(uint32_t c);
/* Lower case of one character without context; returns 1, or 2 for U+0130. */
size_t sw_char_lower(uint32_t c, uint32_t out[2]);

/* Decodes the character at `p` < `end`; returns its bytes, or 0 where they are not UTF-8 (too long a form, a surrogate,
 * beyond U+10FFFF, cut off). */
static inline size_t sw_utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *c) {
  uint32_t lead = p[0];
  if (lead < 0x80) {
    *c = lead;
    return 1;
  }
  size_t left = (size_t)(end - p), bytes = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (lead < 0xC2 || lead > 0xF4 || left < bytes || (p[1] & 0xC0) != 0x80) return 0;
  if (bytes == 2) {
    *c = (lead & 0x1F) << 6 | (p[1] & 0x3F);
    return 2;
  }
  if ((p[2] & 0xC0) != 0x80) return 0;
  if (bytes == 3) {
    *c = (lead & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    return *c < 0x800 || (*c >= 0xD800 && *c < 0xE000) ? 0 : 3;
  }
  if ((p[3] & 0xC0) != 0x80) return 0;
  *c = (lead & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
  return *c < 0x10000 || *c >= SW_CODE_POINTS ? 0 : 4;
}

/* Writes 1 to 4 bytes; returns how many. */
static inline size_t sw_utf8_encode(uint32_t c, uint8_t out[4]) {
  if (c < 0x80) {
    out[0] = (uint8_t)c;
    return 1;
  }
  if (c < 0x800) {
    out[0] = (uint8_t)(0xC0 | c >> 6);
    out[1] = (uint8_t)(0x80 | (c & 0x3F));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = (uint8_t)(0xE0 | c >> 12);
    out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c & 0x3F));
    return 3;
  }
  out[0] = (uint8_t)(0xF0 | c >> 18);
  out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
  out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
  out[3] = (uint8_t)(0x80 | (c & 0x3F));
  return 4;
}
#endif
