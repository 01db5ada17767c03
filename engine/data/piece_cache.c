#include "engine/data/piece_cache.h"

#include <stdlib.h>
#include <string.h>

/* An entry, 8-byte aligned in its generation: this header, ids, reads, result. */
typedef struct {
  uint64_t hash;
  int32_t length;
  uint32_t num_reads, outputs, unused;
} entry;

static uint64_t mix(uint64_t a, uint64_t b) {
  a = (a ^ b) * 0x9E3779B97F4A7C15u;
  return a ^ a >> 29;
}

uint64_t sw_piece_hash(const int32_t *ids, int32_t length, const int32_t *reads, uint32_t num_reads) {
  uint64_t h = mix(0x2545F4914F6CDD1Du, (uint64_t)(uint32_t)length << 32 | num_reads);
  for (int32_t i = 0; i < length; i++) h = mix(h, (uint32_t)ids[i]);
  for (uint32_t i = 0; i < num_reads; i++) h = mix(h, (uint32_t)reads[i]);
  return h;
}

int sw_piece_equal(const sw_piece *a, const sw_piece *b) {
  return a->hash == b->hash && a->length == b->length && a->num_reads == b->num_reads && a->outputs == b->outputs &&
         !memcmp(a->ids, b->ids, (size_t)a->length * sizeof *a->ids) &&
         (a->num_reads == 0 || !memcmp(a->reads, b->reads, a->num_reads * sizeof *a->reads));
}

static void generation_close(sw_piece_generation *g) {
  free(g->data);
  free(g->slots);
  *g = (sw_piece_generation){0};
}

void sw_piece_cache_open(sw_piece_cache *cache, size_t bytes) {
  *cache = (sw_piece_cache){.limit = bytes / 2};
}

void sw_piece_cache_close(sw_piece_cache *cache) {
  generation_close(&cache->young);
  generation_close(&cache->old);
}

static size_t entry_bytes(const sw_piece *piece) {
  size_t bytes = sizeof(entry) + 4 * ((size_t)piece->length + piece->num_reads + piece->outputs);
  return (bytes + 7) & ~(size_t)7;
}

static const float *find(const sw_piece_generation *g, const sw_piece *piece) {
  if (g->num_slots == 0) return NULL;
  for (size_t i = piece->hash & (g->num_slots - 1); g->slots[i]; i = (i + 1) & (g->num_slots - 1)) {
    const entry *e = (const entry *)(g->data + g->slots[i] - 1);
    if (e->hash != piece->hash) continue;
    const int32_t *ids = (const int32_t *)(e + 1);
    const sw_piece other = {.ids = ids,
                            .reads = ids + e->length,
                            .length = e->length,
                            .num_reads = e->num_reads,
                            .outputs = e->outputs,
                            .hash = e->hash};
    if (sw_piece_equal(&other, piece)) return (const float *)(ids + e->length + e->num_reads);
  }
  return NULL;
}

static void insert(sw_piece_generation *g, uint64_t hash, uint64_t slot) {
  size_t i = hash & (g->num_slots - 1);
  while (g->slots[i]) i = (i + 1) & (g->num_slots - 1);
  g->slots[i] = slot;
}

static int grow(sw_piece_generation *g, size_t bytes, size_t limit) {
  if (g->size + bytes > g->capacity) {
    size_t capacity = g->capacity ? 2 * g->capacity : 1 << 20;
    while (capacity < g->size + bytes) capacity *= 2;
    if (capacity > limit) capacity = limit;
    unsigned char *data = realloc(g->data, capacity);
    if (!data) return -1;
    g->data = data;
    g->capacity = capacity;
  }
  if (2 * (g->used + 1) > g->num_slots) {
    size_t num_slots = g->num_slots ? 2 * g->num_slots : 1024;
    uint64_t *slots = calloc(num_slots, sizeof *slots);
    if (!slots) return -1;
    sw_piece_generation larger = {.slots = slots, .num_slots = num_slots};
    for (size_t i = 0; i < g->num_slots; i++)
      if (g->slots[i]) insert(&larger, ((const entry *)(g->data + g->slots[i] - 1))->hash, g->slots[i]);
    free(g->slots);
    g->slots = slots;
    g->num_slots = num_slots;
  }
  return 0;
}

static void put(sw_piece_cache *cache, const sw_piece *piece, const float *result) {
  const size_t bytes = entry_bytes(piece);
  if (bytes > cache->limit / 2) return;
  sw_piece_generation *g = &cache->young;
  if (g->size + bytes + 2 * sizeof *g->slots * (g->num_slots + 1) > cache->limit) {
    generation_close(&cache->old);
    cache->old = *g;
    *g = (sw_piece_generation){0};
  }
  if (grow(g, bytes, cache->limit)) return;
  entry *e = (entry *)(g->data + g->size);
  *e = (entry){piece->hash, piece->length, piece->num_reads, piece->outputs, 0};
  int32_t *ids = (int32_t *)(e + 1);
  memcpy(ids, piece->ids, (size_t)piece->length * 4);
  if (piece->num_reads) memcpy(ids + piece->length, piece->reads, (size_t)piece->num_reads * 4);
  if (piece->outputs) memcpy(ids + piece->length + piece->num_reads, result, (size_t)piece->outputs * 4);
  insert(g, piece->hash, g->size + 1);
  g->size += bytes;
  g->used++;
}

int sw_piece_cache_get(sw_piece_cache *cache, const sw_piece *piece) {
  const float *result = find(&cache->young, piece);
  const int is_old = !result && (result = find(&cache->old, piece));
  if (!result) return 0;
  if (piece->outputs) memcpy(piece->result, result, (size_t)piece->outputs * sizeof *result);
  if (is_old) put(cache, piece, piece->result);
  return 1;
}

void sw_piece_cache_put(sw_piece_cache *cache, const sw_piece *piece) {
  if (!find(&cache->young, piece)) put(cache, piece, piece->result);
}
