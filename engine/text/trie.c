#include "engine/text/trie.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  uint32_t node;
  uint32_t first, last; /* the keys below it, half-open */
  uint32_t depth;       /* bytes they share */
} subtree;

typedef struct {
  sw_trie trie;
  size_t capacity;
  uint8_t *base_used; /* one byte a base */
  size_t search_from; /* nearly every place before it is taken */
} builder;

/* The array always reaches 256 places beyond the last one in use. */
static int reserve(builder *b, size_t last) {
  if (last + 257 <= b->capacity) return 0;
  size_t capacity = (last + 257) * 2;
  sw_trie_node *nodes = sw_realloc_array(b->trie.nodes, capacity, sizeof *nodes);
  if (!nodes) return -1;
  b->trie.nodes = nodes;
  uint8_t *base_used = sw_realloc_array(b->base_used, capacity, 1);
  if (!base_used) return -1;
  b->base_used = base_used;
  memset(nodes + b->capacity, 0, (capacity - b->capacity) * sizeof *nodes);
  memset(base_used + b->capacity, 0, capacity - b->capacity);
  b->capacity = capacity;
  return 0;
}

/* A base that puts every label on a free place; 0 on failure. Base 0 stays unused, so that a leaf's children are never
 * found. */
static uint32_t find_base(builder *b, const uint8_t *labels, size_t count) {
  size_t place = b->search_from > labels[0] ? b->search_from : labels[0] + 1u, looked_at = 0, taken = 0;
  for (;; place++) {
    if (place + 256 > UINT32_MAX || reserve(b, place)) return 0;
    looked_at++;
    if (b->trie.nodes[place].label) {
      taken++;
      continue;
    }
    size_t base = place - labels[0];
    int fits = !b->base_used[base];
    for (size_t i = 1; fits && i < count; i++) fits = !b->trie.nodes[base + labels[i]].label;
    if (!fits) continue;
    if (taken * 16 >= looked_at * 15 || looked_at > 4096) b->search_from = place;
    b->base_used[base] = 1;
    return (uint32_t)base;
  }
}

static int build(builder *b, const sw_trie_key *keys, subtree *stack, size_t count) {
  size_t depth = 0;
  if (reserve(b, 0)) return -1;
  if (count) stack[depth++] = (subtree){0, 0, (uint32_t)count, 0};
  while (depth) {
    subtree s = stack[--depth];
    if (keys[s.first].bytes == s.depth) b->trie.nodes[s.node].value = keys[s.first++].value + 1;
    if (s.first == s.last) continue;

    uint8_t labels[256];
    uint32_t begin[257];
    size_t children = 0;
    for (uint32_t k = s.first; k < s.last; k++) {
      uint8_t label = (uint8_t)keys[k].text[s.depth];
      if (!children || labels[children - 1] != label) {
        labels[children] = label;
        begin[children++] = k;
      }
    }
    begin[children] = s.last;
    uint32_t base = find_base(b, labels, children);
    if (!base || reserve(b, base + labels[children - 1])) return -1;
    b->trie.nodes[s.node].base = base;
    for (size_t i = 0; i < children; i++) {
      uint32_t child = base + labels[i];
      b->trie.nodes[child].label = labels[i];
      if (child >= b->trie.count) b->trie.count = child + 1;
      stack[depth++] = (subtree){child, begin[i], begin[i + 1], s.depth + 1};
    }
  }
  return 0;
}

int sw_trie_open(const sw_trie_key *keys, size_t count, sw_trie *out) {
  /* the subtrees on the stack share no key, so there are never more than keys */
  subtree *stack = sw_alloc_array(count + 1, sizeof *stack);
  builder b = {.trie = {NULL, 1}};
  int status = stack ? build(&b, keys, stack, count) : -1;
  free(stack);
  free(b.base_used);
  if (status)
    sw_trie_close(&b.trie);
  else {
    b.trie.count += 256;
    sw_trie_node *fitted = realloc(b.trie.nodes, b.trie.count * sizeof *fitted);
    if (fitted) b.trie.nodes = fitted;
  }
  *out = b.trie;
  return status;
}

void sw_trie_close(sw_trie *trie) {
  free(trie->nodes);
  *trie = (sw_trie){0};
}
