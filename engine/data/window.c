#include "engine/data/window.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
  BLOCK_BYTES = 1 << 20,
  LEAST_BYTES = 16 * 1024,
  LEAST_ROOM = 4096,
  PATIENT_BYTES = 256 * 1024,
  KEPT_OF_LONG = 4096
};

/* Adds whatever one read gives. */
static int fill_once(sw_window *w) {
  if (w->ended) return 0;
  if (w->start == w->end) w->start = w->end = 0;
  if (w->start && w->capacity - w->end < w->capacity / 2) {
    memmove(w->data, w->data + w->start, w->end - w->start);
    w->end -= w->start;
    w->start = 0;
  }
  if (w->capacity - w->end < LEAST_ROOM) {
    char *data = sw_realloc_array(w->data, w->capacity * 2, 1);
    if (!data) return -1;
    w->data = data;
    w->capacity *= 2;
  }
  ssize_t got = sw_byte_stream_read(w->stream, w->data + w->end, w->capacity - w->end);
  if (got < 0) return -1;
  if (got == 0) w->ended = 1;
  w->end += (size_t)got;
  return got > 0;
}

int sw_window_fill(sw_window *w) {
  size_t held = w->end - w->start, wanted = held < PATIENT_BYTES ? held + 1 : held * 2;
  int added = 0;
  while (w->end - w->start < wanted) {
    int more = fill_once(w);
    if (more < 0) return -1;
    if (!more) break;
    added = 1;
  }
  return added;
}

int sw_window_open(sw_window *w, const char *path, int hash) {
  *w = (sw_window){.line = 1, .capacity = BLOCK_BYTES};
  if (sw_byte_stream_open(path, hash, &w->stream)) return -1;
  uint64_t size = sw_byte_stream_size(w->stream) + LEAST_ROOM;
  /* a small file needs no more; one that grows meanwhile makes the window grow */
  if (size > LEAST_ROOM && size < BLOCK_BYTES && sw_byte_stream_is_plain(w->stream))
    w->capacity = size > LEAST_BYTES ? size : LEAST_BYTES;
  w->data = sw_realloc_array(NULL, w->capacity, 1);
  int more = w->data ? 1 : -1;
  /* a byte order mark is looked for only where the first byte may begin one: a short first line need not wait for a second */
  while (more > 0 && w->end < 3 && (!w->end || (unsigned char)w->data[0] >= 0xEF)) more = fill_once(w);
  if (more < 0) {
    sw_window_close(w);
    return -1;
  }
  if (w->end >= 3 && !memcmp(w->data, "\xEF\xBB\xBF", 3)) w->start = 3;
  if (w->end >= 2 && (!memcmp(w->data, "\xFF\xFE", 2) || !memcmp(w->data, "\xFE\xFF", 2))) {
    sw_window_close(w);
    return sw_fail("%s is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8",
                   strcmp(path, "-") ? path : "standard input");
  }
  return 0;
}

void sw_window_close(sw_window *w) {
  sw_byte_stream_close(w->stream);
  free(w->data);
  *w = (sw_window){0};
}

int sw_window_line(sw_window *w, size_t limit, const char **row, size_t *bytes, uint64_t *line) {
  size_t looked = 0;
  const char *newline = NULL;
  for (;;) {
    const char *from = w->data + w->start + looked;
    size_t left = w->end - w->start - looked;
    newline = left ? memchr(from, '\n', left) : NULL;
    looked += newline ? (size_t)(newline - from) : left;
    if (newline || looked > limit) break;
    int more = sw_window_fill(w);
    if (more < 0) return -1;
    if (!more) break;
  }
  *line = w->line;
  if (!newline && looked == 0) return 0;
  if (looked <= limit) {
    *row = w->data + w->start;
    *bytes = looked && (*row)[looked - 1] == '\r' ? looked - 1 : looked;
    w->start += looked + (newline != NULL);
    w->line++;
    return SW_ROW;
  }
  /* keep the beginning at the front of the window and skip to the end of the line behind it */
  size_t kept = looked < KEPT_OF_LONG ? looked : KEPT_OF_LONG;
  memmove(w->data, w->data + w->start, kept);
  w->start += looked;
  while (!newline) {
    ssize_t got = sw_byte_stream_read(w->stream, w->data + KEPT_OF_LONG, w->capacity - KEPT_OF_LONG);
    if (got < 0) return -1;
    w->start = KEPT_OF_LONG;
    w->end = KEPT_OF_LONG + (size_t)got;
    if (got == 0) {
      w->ended = 1;
      break;
    }
    newline = memchr(w->data + w->start, '\n', (size_t)got);
    w->start = newline ? (size_t)(newline - w->data) : w->end;
  }
  if (newline) w->start++;
  w->line++;
  *row = w->data;
  *bytes = kept;
  return SW_ROW_LONG;
}

size_t sw_count_newlines(const char *data, size_t bytes) {
  size_t count = 0, i = 0;
#ifdef __SSE2__
  const __m128i newline = _mm_set1_epi8('\n');
  while (bytes - i >= 16) {
    /* each lane counts up to 255 matches before the lanes are added up */
    size_t rounds = (bytes - i) / 16 < 255 ? (bytes - i) / 16 : 255;
    __m128i lanes = _mm_setzero_si128();
    for (size_t r = 0; r < rounds; r++, i += 16)
      lanes = _mm_sub_epi8(lanes, _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(data + i)), newline));
    __m128i sums = _mm_sad_epu8(lanes, _mm_setzero_si128());
    count += (size_t)_mm_cvtsi128_si64(sums) + (size_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(sums, sums));
  }
#endif
  for (; i < bytes; i++) count += data[i] == '\n';
  return count;
}
