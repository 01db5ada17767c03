#include "base/error.h"
#include "engine/text/unicode.h"
#include "engine/text/words.h"

#include <string.h>

#define EACH_BYTE(x) (0x0101010101010101ull * (x))

static uint64_t load8(const uint8_t *p) {
  uint64_t x;
  memcpy(&x, p, 8);
  return x;
}

int sw_check_utf8(const char *text, size_t bytes) {
  const uint8_t *start = (const uint8_t *)text, *p = start, *end = start + bytes;
  while (p < end) {
    if (end - p >= 8) {
      uint64_t x = load8(p);
      /* bit 7 of a byte of x - 1 is set where it was 0 (or where it, or a borrow from the byte below, was; then the
       * slow way) */
      if (!((x | (x - EACH_BYTE(1))) & EACH_BYTE(0x80))) {
        p += 8;
        continue;
      }
    }
    const uint8_t *stop = end - p >= 8 ? p + 8 : end;
    while (p < stop) {
      uint32_t c;
      size_t length = sw_utf8_decode(p, end, &c);
      if (!length) return sw_fail("byte %zu (0x%02X) is not UTF-8: convert the text to UTF-8", (size_t)(p - start), *p);
      if (!c) return sw_fail("byte %zu is NUL: this is no text", (size_t)(p - start));
      p += length;
    }
  }
  return 0;
}

size_t sw_count_code_points(const char *text, size_t bytes) {
  const uint8_t *p = (const uint8_t *)text, *end = p + bytes;
  size_t continuations = 0;
  for (; end - p >= 8; p += 8) {
    uint64_t x = load8(p); /* a continuation byte is 10xxxxxx */
    continuations += (x & ~(x << 1) & EACH_BYTE(0x80)) / 0x80 * EACH_BYTE(1) >> 56;
  }
  for (; p < end; p++) continuations += (*p & 0xC0) == 0x80;
  return bytes - continuations;
}
