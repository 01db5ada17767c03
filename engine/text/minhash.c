#include "engine/text/minhash.h"
#include "base/error.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection that mixes all bits. */
static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

static int append(sw_shingles *s, uint64_t hash) {
  if (s->count == s->capacity) {
    const size_t capacity = s->capacity ? 2 * s->capacity : 256;
    uint64_t *items = sw_realloc_array(s->items, capacity, sizeof *items);
    if (!items) return -1;
    s->items = items;
    s->capacity = capacity;
  }
  s->items[s->count++] = hash;
  return 0;
}

static int compare(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

uint64_t sw_mix_hash(uint64_t hash, uint64_t next) { return mix(hash * 0x9E3779B97F4A7C15u + next); }

int sw_next_word(const uint8_t **at, const uint8_t *end, uint64_t *hash) {
  const uint8_t *p = *at;
  uint64_t word = 0;
  while (p < end) {
    uint32_t c, lower[2];
    const size_t length = sw_utf8_decode(p, end, &c);
    if (!length) return sw_fail("the text is not UTF-8");
    const uint8_t classes = sw_char_class(c);
    const int between = c <= ' ' || (classes & (SW_CHAR_SPACE | SW_CHAR_PUNCTUATION | SW_CHAR_CONTROL)), alone = classes & SW_CHAR_CJK;
    if (word && (between || alone)) break;
    p += length;
    if (between) continue;
    const size_t n = sw_char_lower(c, lower);
    for (size_t i = 0; i < n; i++) word = sw_mix_hash(word + 1, lower[i]) | 1;
    if (alone) break;
  }
  *at = p;
  *hash = word;
  return word != 0;
}

/* The hash of the last words, oldest first: `words` counts all words so far. */
static uint64_t shingle_of(const uint64_t ring[SW_SHINGLE_WORDS], size_t words) {
  const size_t length = words < SW_SHINGLE_WORDS ? words : SW_SHINGLE_WORDS;
  uint64_t hash = 0;
  for (size_t i = words - length; i < words; i++) hash = sw_mix_hash(hash, ring[i % SW_SHINGLE_WORDS]);
  return hash;
}

int sw_shingles_make(const char *text, size_t bytes, sw_shingles *out) {
  const uint8_t *at = (const uint8_t *)text, *end = at + bytes;
  uint64_t ring[SW_SHINGLE_WORDS], word;
  size_t words = 0;
  int status;
  out->count = 0;
  while ((status = sw_next_word(&at, end, &word)) > 0) {
    ring[words++ % SW_SHINGLE_WORDS] = word;
    if (words >= SW_SHINGLE_WORDS && append(out, shingle_of(ring, words))) return -1;
  }
  if (status) return -1;
  if (words && words < SW_SHINGLE_WORDS && append(out, shingle_of(ring, words))) return -1;
  if (out->count) qsort(out->items, out->count, sizeof *out->items, compare);
  size_t kept = 0;
  for (size_t i = 0; i < out->count; i++)
    if (!i || out->items[i] != out->items[i - 1]) out->items[kept++] = out->items[i];
  out->count = kept;
  return 0;
}

void sw_shingles_close(sw_shingles *s) {
  free(s->items);
  *s = (sw_shingles){0};
}

double sw_jaccard(const sw_shingles *a, const sw_shingles *b) {
  size_t i = 0, k = 0, both = 0;
  while (i < a->count && k < b->count) {
    const uint64_t x = a->items[i], y = b->items[k];
    both += x == y;
    i += x <= y;
    k += y <= x;
  }
  const size_t all = a->count + b->count - both;
  return all ? (double)both / (double)all : 1;
}

void sw_minhash(const sw_shingles *s, uint32_t bands[SW_MINHASH_BANDS]) {
  for (int band = 0; band < SW_MINHASH_BANDS; band++) {
    uint64_t hash = (uint64_t)band;
    for (int row = 0; row < SW_MINHASH_ROWS; row++) {
      const uint64_t seed = mix((uint64_t)(band * SW_MINHASH_ROWS + row + 1) * 0x9E3779B97F4A7C15u);
      uint64_t least = UINT64_MAX;
      for (size_t i = 0; i < s->count; i++) {
        const uint64_t h = mix(s->items[i] ^ seed);
        if (h < least) least = h;
      }
      hash = sw_mix_hash(hash, least);
    }
    bands[band] = (uint32_t)hash;
  }
}

static size_t head_of(const sw_near *near, int band, uint32_t value) {
  return (size_t)mix((uint64_t)band << 32 | value) & (near->num_heads - 1);
}

static void link_entry(sw_near *near, uint32_t entry) {
  uint32_t *head = &near->heads[head_of(near, (int)(entry % SW_MINHASH_BANDS), near->bands[entry])];
  near->next[entry] = *head;
  *head = entry + 1;
}

static int grow(sw_near *near) {
  const size_t capacity = near->capacity ? 2 * near->capacity : 256;
  if (capacity > UINT32_MAX / SW_MINHASH_BANDS) return sw_fail("more texts than can be compared (%zu)", near->capacity);
  size_t heads = 1;
  while (heads < capacity * SW_MINHASH_BANDS) heads *= 2;
  uint32_t *p;
  if (!(p = sw_realloc_array(near->bands, capacity * SW_MINHASH_BANDS, sizeof *p))) return -1;
  near->bands = p;
  if (!(p = sw_realloc_array(near->next, capacity * SW_MINHASH_BANDS, sizeof *p))) return -1;
  near->next = p;
  if (!(p = sw_realloc_array(near->seen, capacity, sizeof *p))) return -1;
  near->seen = p;
  if (!(p = sw_alloc_array(heads, sizeof *p))) return -1;
  free(near->heads);
  near->heads = p;
  near->num_heads = heads;
  near->capacity = capacity;
  for (uint32_t entry = 0; entry < near->count * SW_MINHASH_BANDS; entry++) link_entry(near, entry);
  return 0;
}

int sw_near_add(sw_near *near, const uint32_t bands[SW_MINHASH_BANDS]) {
  if (near->count == near->capacity && grow(near)) return -1;
  const uint32_t first = (uint32_t)near->count * SW_MINHASH_BANDS;
  memcpy(near->bands + first, bands, SW_MINHASH_BANDS * sizeof *bands);
  near->seen[near->count++] = near->queries;
  for (uint32_t i = 0; i < SW_MINHASH_BANDS; i++) link_entry(near, first + i);
  return 0;
}

int sw_near_find(sw_near *near, const uint32_t bands[SW_MINHASH_BANDS], sw_near_each *each, void *context) {
  int status = 0;
  near->queries++;
  for (int band = 0; band < SW_MINHASH_BANDS && near->count && !status; band++)
    for (uint32_t at = near->heads[head_of(near, band, bands[band])]; at && !status; at = near->next[at - 1]) {
      const uint32_t text = (at - 1) / SW_MINHASH_BANDS;
      if ((int)((at - 1) % SW_MINHASH_BANDS) != band || near->bands[at - 1] != bands[band] || near->seen[text] == near->queries) continue;
      near->seen[text] = near->queries;
      status = each(context, text);
    }
  return status;
}

void sw_near_close(sw_near *near) {
  free(near->bands);
  free(near->next);
  free(near->heads);
  free(near->seen);
  *near = (sw_near){0};
}
