/* Near-identical texts: shingles of words, MinHash, locality-sensitive hashing.
 * Broder: "On the resemblance and containment of documents", 1997; bands: Leskovec, Rajaraman, Ullman: "Mining of Massive Datasets", chapter 3. */
#ifndef SW_TEXT_MINHASH_H
#define SW_TEXT_MINHASH_H
#include <stddef.h>
#include <stdint.h>

/* The hash (never 0) of the next word in [*at, end), in lower case: a run of characters that are neither white space, punctuation nor control
 * characters; an ideograph is a word. 1, and *at is behind it; 0: no more; -1: no UTF-8. */
int sw_next_word(const uint8_t **at, const uint8_t *end, uint64_t *hash);
/* A hash that goes on with another one. */
uint64_t sw_mix_hash(uint64_t hash, uint64_t next);

/* The distinct hashes of all runs of SW_SHINGLE_WORDS words of a text, ascending. A shorter text is one shingle; one without words has none. */
enum { SW_SHINGLE_WORDS = 5 };
typedef struct {
  size_t count, capacity;
  uint64_t *items; /* owned */
} sw_shingles;

/* Fills `out` (zero-initialised before the first call; its memory is kept). Fails for a text that is not UTF-8. */
int sw_shingles_make(const char *text, size_t bytes, sw_shingles *out);
void sw_shingles_close(sw_shingles *shingles);
/* |a and b| / |a or b|; 1 for two empty sets. */
double sw_jaccard(const sw_shingles *a, const sw_shingles *b);

/* SW_MINHASH_BANDS bands of SW_MINHASH_ROWS MinHash values, each band as one number. Two texts whose sets have Jaccard similarity s agree in at
 * least one band with probability 1 - (1 - s^5)^20: 99.96 % at 0.8, 47 % at 0.5, 5 % at 0.3. The numbers are the same on every machine. */
enum { SW_MINHASH_BANDS = 20, SW_MINHASH_ROWS = 5 };
void sw_minhash(const sw_shingles *shingles, uint32_t bands[SW_MINHASH_BANDS]);

/* Texts that were added, by their bands; zero-initialise it. */
typedef struct {
  size_t count, capacity, num_heads;
  uint32_t *bands; /* [count][SW_MINHASH_BANDS] */
  uint32_t *next;  /* [count][SW_MINHASH_BANDS] chains of a hash table, entry + 1 */
  uint32_t *heads; /* [num_heads] */
  uint32_t *seen;  /* [count] the query that last met the text */
  uint32_t queries;
} sw_near;

/* Adds a text, whose number is its place in the order of calls, from 0. */
int sw_near_add(sw_near *near, const uint32_t bands[SW_MINHASH_BANDS]);
/* Calls `each` with every text that shares a band, once, until it returns something else than 0, which is returned. */
typedef int sw_near_each(void *context, uint32_t text);
int sw_near_find(sw_near *near, const uint32_t bands[SW_MINHASH_BANDS], sw_near_each *each, void *context);
void sw_near_close(sw_near *near);
#endif
