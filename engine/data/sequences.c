#include "engine/data/sequences.h"
#include "base/error.h"
#include "engine/data/piece_cache.h"

#include <stdlib.h>
#include <string.h>

/* The slot of the sequence, or the empty one where it belongs. */
static size_t find(const sw_sequences *s, const int32_t *ids, int32_t length) {
  size_t at = sw_piece_hash(ids, length, NULL, 0) & (s->num_slots - 1);
  for (; s->slots[at]; at = (at + 1) & (s->num_slots - 1)) {
    const uint32_t number = s->slots[at] - 1;
    if (sw_sequence_length(s, number) == length && !memcmp(sw_sequence_ids(s, number), ids, (size_t)length * sizeof *ids)) break;
  }
  return at;
}

static int grow(sw_sequences *s, size_t ids) {
  if (s->count == UINT32_MAX / 2) return sw_fail("more than %u texts", s->count);
  if (s->count + 2 > s->capacity) {
    const size_t capacity = s->capacity ? 2 * s->capacity : 1024;
    size_t *starts = sw_realloc_array(s->starts, capacity, sizeof *starts);
    if (!starts) return -1;
    if (!s->starts) starts[0] = 0;
    s->starts = starts;
    s->capacity = capacity;
  }
  if (s->starts[s->count] + ids > s->id_capacity) {
    const size_t capacity = 2 * s->id_capacity + ids + 4096;
    int32_t *more = sw_realloc_array(s->ids, capacity, sizeof *more);
    if (!more) return -1;
    s->ids = more;
    s->id_capacity = capacity;
  }
  if (2 * ((size_t)s->count + 1) > s->num_slots) {
    free(s->slots);
    s->num_slots = s->num_slots ? 2 * s->num_slots : 2048;
    if (!(s->slots = sw_alloc_array(s->num_slots, sizeof *s->slots))) return -1;
    for (uint32_t i = 0; i < s->count; i++) s->slots[find(s, sw_sequence_ids(s, i), sw_sequence_length(s, i))] = i + 1;
  }
  return 0;
}

int sw_sequences_add(sw_sequences *s, const int32_t *ids, int32_t length, uint32_t *number) {
  if (grow(s, (size_t)length)) return -1;
  const size_t slot = find(s, ids, length);
  if (!s->slots[slot]) {
    memcpy(s->ids + s->starts[s->count], ids, (size_t)length * sizeof *ids);
    s->starts[s->count + 1] = s->starts[s->count] + (size_t)length;
    s->slots[slot] = ++s->count;
  }
  *number = s->slots[slot] - 1;
  return 0;
}

void sw_sequences_close(sw_sequences *s) {
  free(s->starts);
  free(s->ids);
  free(s->slots);
  *s = (sw_sequences){0};
}
