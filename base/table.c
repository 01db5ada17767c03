#include "base/table.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

void sw_table_close(sw_table *t) {
  for (size_t i = 0; i < t->count; i++) free(t->keys[i]);
  free(t->keys);
  free(t->slots);
  *t = (sw_table){0};
}

/* The key's slot, or the free one for it. There is always one: at least half of them are free. */
static size_t slot_of(const sw_table *t, const char *key) {
  uint64_t hash = 14695981039346656037u; /* FNV-1a */
  for (const char *c = key; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
  size_t at = (size_t)(hash ^ hash >> 32) & (t->num_slots - 1);
  while (t->slots[at] && strcmp(t->keys[t->slots[at] - 1], key)) at = (at + 1) & (t->num_slots - 1);
  return at;
}

int64_t sw_table_find(const sw_table *t, const char *key) { return t->num_slots ? (int64_t)t->slots[slot_of(t, key)] - 1 : -1; }

static int grow(sw_table *t) {
  if (t->count >= UINT32_MAX / 2) return sw_fail("more than %u distinct texts", UINT32_MAX / 2);
  const size_t larger = t->num_slots ? 2 * t->num_slots : 256;
  uint32_t *slots = sw_alloc_array(larger, sizeof *slots);
  char **keys = slots ? sw_realloc_array(t->keys, larger / 2, sizeof *keys) : NULL;
  if (!keys) {
    free(slots);
    return -1;
  }
  free(t->slots);
  t->slots = slots;
  t->keys = keys;
  t->capacity = larger / 2;
  t->num_slots = larger;
  for (size_t i = 0; i < t->count; i++) slots[slot_of(t, keys[i])] = (uint32_t)i + 1;
  return 0;
}

int64_t sw_table_add(sw_table *t, const char *key) {
  const int64_t found = sw_table_find(t, key);
  if (found >= 0) return found;
  if (t->count == t->capacity && grow(t)) return -1;
  char *copy = sw_strdup(key);
  if (!copy) return -1;
  const size_t at = slot_of(t, key);
  t->keys[t->count++] = copy;
  t->slots[at] = (uint32_t)t->count;
  return (int64_t)t->count - 1;
}
