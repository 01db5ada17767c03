/* Results of pieces that were run before, in bounded memory. Two generations: the young one fills up, becomes the old
 * one and the old one is thrown away; what is used from the old one moves to the young. Entries are compared token by
 * token, not by hash alone. */
#ifndef SW_DATA_PIECE_CACHE_H
#define SW_DATA_PIECE_CACHE_H
#include "engine/data/pipeline.h"

typedef struct {
  unsigned char *data;
  size_t size, capacity;
  uint64_t *slots; /* offset of the entry + 1; 0 = empty */
  size_t num_slots, used;
} sw_piece_generation;

typedef struct {
  size_t limit; /* bytes of a generation, entries and slots */
  sw_piece_generation young, old;
} sw_piece_cache;

uint64_t sw_piece_hash(const int32_t *ids, int32_t length, const int32_t *reads, uint32_t num_reads);
int sw_piece_equal(const sw_piece *a, const sw_piece *b);

/* `bytes`: of both generations together. */
void sw_piece_cache_open(sw_piece_cache *cache, size_t bytes);
void sw_piece_cache_close(sw_piece_cache *cache);
/* 1: piece->result was filled from the cache; 0: it is not there. */
int sw_piece_cache_get(sw_piece_cache *cache, const sw_piece *piece);
/* Keeps the piece's result. A piece that is larger than the limit, or that memory is lacking for, is not kept. */
void sw_piece_cache_put(sw_piece_cache *cache, const sw_piece *piece);
#endif
