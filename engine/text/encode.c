/* Text to tokens. Two paths give the same answer.
 *
 * Most words are ASCII letters and digits: they are found eight bytes at a time, lower-cased in a register, and looked
 * up in a cache of words seen before.
 *
 * Whatever else lies between two ASCII spaces or punctuation characters is normalised character by character as
 * BertNormalizer does (clean, space ideographs, decompose, strip marks, lower-case), each character remembering which
 * one of the text it came from. ASCII spaces and punctuation make a safe border: no step of the normalisation looks
 * across them. */
#include "base/error.h"
#include "engine/text/unicode.h"
#include "engine/text/wordpiece.h"

#include <stdlib.h>
#include <string.h>

/* --- what is kept between calls */

enum { SHORT_WORD = 16, SHORT_PIECES = 8, CACHE_BITS_FIRST = 6, CACHE_BITS_LAST = 14 };

/* The bytes of a word of up to SHORT_WORD ASCII letters and digits, padded with zeros, the first one lowest. */
typedef struct {
  uint64_t low, high;
} word_key;

/* Such a word and its pieces; one cache line. */
typedef struct {
  word_key key;
  int32_t id[SHORT_PIECES];
  uint8_t end[SHORT_PIECES]; /* byte where piece i ends */
  uint8_t count;             /* 0: no word here */
} cached_word;

typedef struct {
  uint32_t c;
  uint32_t source;  /* index of the character of the text it came from */
  uint8_t class;    /* canonical combining class, not 0 */
  uint8_t is_first; /* of its character's decomposition */
} mark;

typedef struct {
  uint64_t serial; /* of the tokenizer that filled the cache */
  cached_word *cache;
  unsigned cache_bits;
  size_t misses; /* since the cache has this size */

  uint8_t *word;    /* the normalised word being put together, UTF-8 */
  uint32_t *source; /* the character of the text that each of its bytes came from */
  size_t word_bytes, word_capacity;
  size_t word_chars; /* counted on where the word is too long to be kept */
  uint32_t first_source, last_source;

  mark *marks; /* nonstarters waiting for the next starter */
  size_t mark_count, mark_capacity;
  uint32_t consumed; /* source of the last character that took the place of one of the text */
} scratch;

static void close_scratch(scratch *s) {
  if (!s) return;
  free(s->cache);
  free(s->word);
  free(s->source);
  free(s->marks);
  free(s);
}

void sw_encoding_close(sw_encoding *encoding) {
  free(encoding->ids);
  free(encoding->start);
  free(encoding->end);
  close_scratch(encoding->scratch);
  *encoding = (sw_encoding){0};
}

static int resize_cache(scratch *s, unsigned bits) {
  size_t bytes = sizeof(cached_word) << bits;
  cached_word *cache = sw_alloc_aligned(bytes);
  if (!cache) return -1;
  memset(cache, 0, bytes);
  free(s->cache);
  s->cache = cache;
  s->cache_bits = bits;
  s->misses = 0;
  return 0;
}

static scratch *open_scratch(const sw_tokenizer *t, sw_encoding *out) {
  if (!out->scratch) out->scratch = sw_alloc(sizeof(scratch));
  scratch *s = out->scratch;
  if (!s || s->serial == t->serial) return s;
  size_t capacity = (size_t)t->options.max_chars_per_word * 4;
  if (capacity > s->word_capacity) {
    uint8_t *word = sw_realloc_array(s->word, capacity, 1);
    if (!word) return NULL;
    s->word = word;
    uint32_t *source = sw_realloc_array(s->source, capacity, sizeof *source);
    if (!source) return NULL;
    s->source = source;
    s->word_capacity = capacity;
  }
  if (resize_cache(s, CACHE_BITS_FIRST)) return NULL;
  s->serial = t->serial;
  return s;
}

/* Room for `extra` more tokens. */
static int grow(sw_encoding *out, size_t extra) {
  if (out->capacity - out->count >= extra) return 0;
  size_t capacity = (out->count + extra) * 2 + 64;
  int32_t **arrays[3] = {&out->ids, &out->start, &out->end};
  for (int i = 0; i < 3; i++) {
    int32_t *larger = sw_realloc_array(*arrays[i], capacity, sizeof *larger);
    if (!larger) return -1;
    *arrays[i] = larger;
  }
  out->capacity = capacity;
  return 0;
}

static void put_token(sw_encoding *out, int32_t id, size_t start, size_t end) {
  out->ids[out->count] = id;
  out->start[out->count] = (int32_t)start;
  out->end[out->count++] = (int32_t)end;
}

/* --- WordPiece: the longest piece first, from left to right; [UNK] where that does not reach the end */

/* Appends the word's pieces, offsets counted in bytes from `base`. There must be room for `bytes` tokens. */
static void put_pieces(const sw_tokenizer *t, const uint8_t *word, size_t bytes, size_t base, sw_encoding *out) {
  size_t before = out->count;
  uint32_t node = 0;
  for (size_t at = 0; at < bytes; node = t->inside) {
    size_t length = 0;
    uint32_t id = SW_TRIE_NONE;
    if (node != SW_TRIE_NONE) id = sw_trie_longest(&t->trie, node, word + at, bytes - at, &length);
    if (id == SW_TRIE_NONE) {
      out->count = before;
      put_token(out, t->special.unk, base, base + bytes);
      return;
    }
    put_token(out, (int32_t)id, base + at, base + at + length);
    at += length;
  }
}

/* --- the ASCII path */

#define EACH_BYTE(x) (0x0101010101010101ull * (x))

/* Eight bytes with the first one lowest, on any machine. */
static uint64_t load8(const uint8_t *p) {
  uint64_t x;
  memcpy(&x, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  x = __builtin_bswap64(x);
#endif
  return x;
}

static void store8(uint8_t *p, uint64_t x) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  x = __builtin_bswap64(x);
#endif
  memcpy(p, &x, 8);
}

/* Bit 7 of every byte that is an ASCII letter or digit. Adding 0x80 - n to a 7-bit value sets bit 7 where it is n or
 * more. */
static uint64_t find_letters_and_digits(uint64_t x) {
  uint64_t low = x & EACH_BYTE(0x7F), folded = low | EACH_BYTE(0x20);
  uint64_t digits = (low + EACH_BYTE(0x80 - '0')) & ~(low + EACH_BYTE(0x80 - ('9' + 1)));
  uint64_t letters = (folded + EACH_BYTE(0x80 - 'a')) & ~(folded + EACH_BYTE(0x80 - ('z' + 1)));
  return (digits | letters) & ~x & EACH_BYTE(0x80);
}

static uint64_t lower_letters(uint64_t x) {
  uint64_t low = x & EACH_BYTE(0x7F);
  uint64_t upper = (low + EACH_BYTE(0x80 - 'A')) & ~(low + EACH_BYTE(0x80 - ('Z' + 1))) & ~x & EACH_BYTE(0x80);
  return x | upper >> 2;
}

/* The bytes before the first one whose bit 7 is not in `mask`. */
static size_t count_leading(uint64_t mask) {
  uint64_t others = ~mask & EACH_BYTE(0x80);
  return others ? (size_t)__builtin_ctzll(others) / 8 : 8;
}

static uint64_t keep_bytes(uint64_t x, size_t bytes) {
  return bytes >= 8 ? x : x & ((1ull << bytes * 8) - 1);
}

/* Reads the word at `p`: returns the number of letters and digits up to SHORT_WORD, and these, other bytes being 0. */
static size_t read_short_word(const uint8_t *p, const uint8_t *end, word_key *key) {
  uint8_t copy[SHORT_WORD] = {0};
  if (end - p < SHORT_WORD) p = memcpy(copy, p, (size_t)(end - p)); /* never read beyond the text */
  uint64_t low = load8(p), high = load8(p + 8);
  size_t bytes = count_leading(find_letters_and_digits(low));
  *key = (word_key){keep_bytes(low, bytes), 0};
  if (bytes == 8) {
    size_t more = count_leading(find_letters_and_digits(high));
    key->high = keep_bytes(high, more);
    bytes += more;
  }
  return bytes;
}

static cached_word *find_place(const scratch *s, word_key key) {
  uint64_t hash = (key.low ^ (key.high << 29 | key.high >> 35)) * 0x9E3779B97F4A7C15ull;
  hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93ull;
  return &s->cache[hash >> (64 - s->cache_bits)];
}

/* A word that the cache does not hold. The cache grows with the words it meets. */
static int put_new_word(const sw_tokenizer *t, scratch *s, word_key key, size_t bytes, size_t base, sw_encoding *out) {
  if (++s->misses > (size_t)2 << s->cache_bits && s->cache_bits < CACHE_BITS_LAST && resize_cache(s, s->cache_bits + 2))
    return -1;
  uint8_t word[SHORT_WORD];
  store8(word, key.low);
  store8(word + 8, key.high);
  size_t before = out->count;
  if (bytes > (size_t)t->options.max_chars_per_word)
    put_token(out, t->special.unk, base, base + bytes);
  else
    put_pieces(t, word, bytes, base, out);
  const size_t count = out->count - before;
  if (count > SHORT_PIECES) return 0;
  cached_word known = {.key = key, .count = (uint8_t)count};
  for (size_t i = 0; i < SHORT_PIECES && i < count; i++) {
    known.id[i] = out->ids[before + i];
    known.end[i] = (uint8_t)((size_t)out->end[before + i] - base);
  }
  *find_place(s, key) = known;
  return 0;
}

/* `base`: where the word starts in the text, in code points; an ASCII word has as many as bytes. */
static int put_short_word(const sw_tokenizer *t, scratch *s, word_key key, size_t bytes, size_t base,
                          sw_encoding *out) {
  if (grow(out, SHORT_WORD)) return -1;
  if (t->options.do_lower_case) key = (word_key){lower_letters(key.low), lower_letters(key.high)};
  const cached_word *known = find_place(s, key);
  if (known->key.low != key.low || known->key.high != key.high) return put_new_word(t, s, key, bytes, base, out);
  for (size_t i = 0, at = 0; i < known->count; at = known->end[i++])
    put_token(out, known->id[i], base + at, base + known->end[i]);
  return 0;
}

static int put_long_word(const sw_tokenizer *t, scratch *s, const uint8_t *word, size_t bytes, size_t base,
                         sw_encoding *out) {
  if (grow(out, bytes)) return -1;
  if (bytes > (size_t)t->options.max_chars_per_word) {
    put_token(out, t->special.unk, base, base + bytes);
    return 0;
  }
  int lower = t->options.do_lower_case;
  for (size_t i = 0; i < bytes; i++) s->word[i] = lower && word[i] >= 'A' && word[i] <= 'Z' ? word[i] | 0x20 : word[i];
  put_pieces(t, s->word, bytes, base, out);
  return 0;
}

/* A punctuation character, or a special token written in the text; returns its bytes, 0 on failure. */
static size_t put_alone(const sw_tokenizer *t, const uint8_t *p, const uint8_t *end, size_t base, sw_encoding *out) {
  if (grow(out, 1)) return 0;
  for (int i = 0; *p == '[' && i < t->special_count; i++) {
    size_t bytes = strlen(t->special_text[i]);
    if ((size_t)(end - p) >= bytes && !memcmp(p, t->special_text[i], bytes)) {
      put_token(out, t->special_id[i], base, base + bytes);
      return bytes;
    }
  }
  put_token(out, t->alone_id[*p], base, base + 1);
  return 1;
}

/* --- the other path: one function a step of BertNormalizer and BertPreTokenizer, the last step first */

static int end_word(const sw_tokenizer *t, scratch *s, sw_encoding *out) {
  if (!s->word_chars) return 0;
  if (grow(out, s->word_bytes + 1)) return -1;
  size_t before = out->count;
  if (s->word_chars > (size_t)t->options.max_chars_per_word)
    put_token(out, t->special.unk, s->first_source, s->last_source + 1u);
  else {
    put_pieces(t, s->word, s->word_bytes, 0, out);
    for (size_t i = before; i < out->count; i++) {
      out->start[i] = (int32_t)s->source[out->start[i]];
      out->end[i] = (int32_t)s->source[out->end[i] - 1] + 1;
    }
  }
  s->word_bytes = s->word_chars = 0;
  return 0;
}

static void append_to_word(const sw_tokenizer *t, scratch *s, uint32_t c, uint32_t source) {
  if (!s->word_chars++) s->first_source = source;
  s->last_source = source;
  if (s->word_chars > (size_t)t->options.max_chars_per_word) return; /* it will be [UNK] whatever it is */
  size_t bytes = sw_utf8_encode(c, s->word + s->word_bytes);
  for (size_t i = 0; i < bytes; i++) s->source[s->word_bytes++] = source;
}

static int split(const sw_tokenizer *t, scratch *s, uint32_t c, uint32_t source, sw_encoding *out) {
  uint8_t class = sw_char_class(c);
  if (!(class & (SW_CHAR_SPACE | SW_CHAR_PUNCTUATION))) {
    append_to_word(t, s, c, source);
    return 0;
  }
  if (end_word(t, s, out)) return -1;
  if (class & SW_CHAR_SPACE) return 0;
  append_to_word(t, s, c, source);
  return end_word(t, s, out);
}

static int lower_case(const sw_tokenizer *t, scratch *s, uint32_t c, uint32_t source, sw_encoding *out) {
  if (!t->options.do_lower_case || !(sw_char_class(c) & SW_CHAR_UPPER)) return split(t, s, c, source, out);
  uint32_t lower[2];
  size_t count = sw_char_lower(c, lower);
  for (size_t i = 0; i < count; i++)
    if (split(t, s, lower[i], source, out)) return -1;
  return 0;
}

static int strip_mark(const sw_tokenizer *t, scratch *s, uint32_t c, sw_encoding *out) {
  return sw_char_class(c) & SW_CHAR_MARK ? 0 : lower_case(t, s, c, s->consumed, out);
}

/* Passes the waiting nonstarters on in canonical order, class by class. `tokenizers` aligns by position: the nth
 * character that stands for one of the text (the first of its decomposition) is said to come from the nth one, even
 * where the order changed. */
static int flush_marks(const sw_tokenizer *t, scratch *s, sw_encoding *out) {
  size_t next = 0;
  for (unsigned class = 1, following; s->mark_count && class < 256; class = following) {
    following = 256;
    for (size_t i = 0; i < s->mark_count; i++) {
      const mark *m = &s->marks[i];
      if (m->class == class) {
        if (m->is_first) {
          while (!s->marks[next].is_first) next++;
          s->consumed = s->marks[next++].source;
        }
        if (strip_mark(t, s, m->c, out)) return -1;
      } else if (m->class > class && m->class < following)
        following = m->class;
    }
  }
  s->mark_count = 0;
  return 0;
}

static int push_mark(scratch *s, mark m) {
  if (s->mark_count == s->mark_capacity) {
    size_t capacity = s->mark_capacity * 2 + 16;
    mark *marks = sw_realloc_array(s->marks, capacity, sizeof *marks);
    if (!marks) return -1;
    s->marks = marks;
    s->mark_capacity = capacity;
  }
  s->marks[s->mark_count++] = m;
  return 0;
}

/* Canonical decomposition (NFD), then without nonspacing marks. */
static int strip_accents(const sw_tokenizer *t, scratch *s, uint32_t c, uint32_t source, sw_encoding *out) {
  if (!t->strip_accents) return lower_case(t, s, c, source, out);
  uint32_t parts[SW_DECOMPOSITION_MAX] = {c};
  size_t count = sw_char_class(c) & SW_CHAR_DECOMPOSES ? sw_char_decompose(c, parts) : 1;
  for (size_t i = 0; i < count; i++) {
    if (sw_char_class(parts[i]) & SW_CHAR_REORDERS) {
      if (push_mark(s, (mark){parts[i], source, sw_char_combining_class(parts[i]), i == 0})) return -1;
      continue;
    }
    if (flush_marks(t, s, out)) return -1;
    if (i == 0) s->consumed = source;
    if (strip_mark(t, s, parts[i], out)) return -1;
  }
  return 0;
}

static int clean(const sw_tokenizer *t, scratch *s, uint32_t c, uint32_t source, sw_encoding *out) {
  uint8_t class = sw_char_class(c);
  if (class & SW_CHAR_CONTROL && t->options.clean_text) return 0;
  int stands_alone = class & SW_CHAR_CJK && t->options.tokenize_chinese_chars;
  if (!stands_alone && !(class & SW_CHAR_SPACE)) return strip_accents(t, s, c, source, out);
  if (flush_marks(t, s, out) || end_word(t, s, out)) return -1;
  if (class & SW_CHAR_SPACE) return 0;
  return strip_accents(t, s, c, source, out) || end_word(t, s, out) ? -1 : 0;
}

/* The text from `p` up to the next ASCII space or punctuation; returns where that is, NULL on failure. */
static const uint8_t *put_other(const sw_tokenizer *t, scratch *s, const uint8_t *text, const uint8_t *p,
                                const uint8_t *end, size_t *index, sw_encoding *out) {
  while (p < end && t->byte_class[*p] != SW_BYTE_SPACE && t->byte_class[*p] != SW_BYTE_ALONE) {
    uint32_t c;
    size_t bytes = sw_utf8_decode(p, end, &c);
    if (!bytes) {
      sw_fail("byte %zu (0x%02X) is not UTF-8: convert the text to UTF-8", (size_t)(p - text), *p);
      return NULL;
    }
    if (clean(t, s, c, (uint32_t)(*index)++, out)) return NULL;
    p += bytes;
  }
  return flush_marks(t, s, out) || end_word(t, s, out) ? NULL : p;
}

int sw_tokenizer_encode(const sw_tokenizer *t, const char *text, size_t bytes, sw_encoding *out) {
  out->count = 0;
  if (bytes > INT32_MAX) return sw_fail("a text of %zu bytes is too long to tokenize: split it", bytes);
  scratch *s = open_scratch(t, out);
  if (!s) return -1;
  s->word_bytes = s->word_chars = s->mark_count = 0; /* what a failed call left */

  const uint8_t *begin = (const uint8_t *)text, *end = begin + bytes, *p = begin;
  size_t index = 0; /* of the character at p */
  while (p < end) {
    size_t length = 1;
    switch ((sw_byte_class)t->byte_class[*p]) {
    case SW_BYTE_SPACE:
      break;
    case SW_BYTE_ALONE:
      if (!(length = put_alone(t, p, end, index, out))) return -1;
      break;
    case SW_BYTE_WORD: {
      word_key key;
      length = read_short_word(p, end, &key);
      if (length == SHORT_WORD)
        while (p + length < end && t->byte_class[p[length]] == SW_BYTE_WORD) length++;
      if (p + length == end || t->byte_class[p[length]] != SW_BYTE_OTHER) {
        if (length <= SHORT_WORD ? put_short_word(t, s, key, length, index, out)
                                 : put_long_word(t, s, p, length, index, out))
          return -1;
        break;
      }
    }
      __attribute__((fallthrough)); /* the word goes on with something that is not ASCII */
    case SW_BYTE_OTHER:
      if (!(p = put_other(t, s, begin, p, end, &index, out))) {
        out->count = 0;
        return -1;
      }
      continue;
    }
    p += length;
    index += length;
  }
  return 0;
}
