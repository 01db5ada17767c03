/* A double-array trie over byte strings: the longest key that begins a text, one memory access a byte.
 * Aoe, "An efficient digital search algorithm by using a double-array structure", IEEE TSE 15(9), 1989. */
#ifndef SW_TEXT_TRIE_H
#define SW_TEXT_TRIE_H
#include <stddef.h>
#include <stdint.h>

/* The child of `node` by byte c is node[node.base + c], if its label is c: no two nodes share a base. */
typedef struct {
  uint32_t base;
  uint32_t label : 8;  /* the byte that leads here; 0: the place is free */
  uint32_t value : 24; /* the key that ends here, plus 1; 0: none does */
} sw_trie_node;

typedef struct {
  sw_trie_node *nodes; /* owned; nodes[0] is the root */
  size_t count;
} sw_trie;

typedef struct {
  const char *text; /* no byte is 0 */
  uint32_t bytes, value;
} sw_trie_key;

#define SW_TRIE_VALUES ((1u << 24) - 1) /* values are below this */
#define SW_TRIE_NONE UINT32_MAX

/* Builds the trie of `keys`, sorted by their bytes (a prefix first) and distinct; each has one byte or more. */
int sw_trie_open(const sw_trie_key *keys, size_t count, sw_trie *out);
void sw_trie_close(sw_trie *trie);

/* The child of `node` by `byte`, or SW_TRIE_NONE. */
static inline uint32_t sw_trie_step(const sw_trie *trie, uint32_t node, uint8_t byte) {
  uint32_t child = trie->nodes[node].base + byte; /* in bounds: the array ends with 256 free places */
  return byte && trie->nodes[child].label == byte ? child : SW_TRIE_NONE;
}

/* The longest key that begins `text`, where the walk starts at `node`: its value, and its end in *length.
 * SW_TRIE_NONE when there is none. */
static inline uint32_t sw_trie_longest(const sw_trie *trie, uint32_t node, const uint8_t *text, size_t bytes,
                                       size_t *length) {
  uint32_t found = 0;
  for (size_t i = 0; i < bytes; i++) {
    node = sw_trie_step(trie, node, text[i]);
    if (node == SW_TRIE_NONE) break;
    if (trie->nodes[node].value) {
      found = trie->nodes[node].value;
      *length = i + 1;
    }
  }
  return found - 1; /* 0 wraps to SW_TRIE_NONE */
}
#endif
