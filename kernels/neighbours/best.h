/* The k best of a query on the CPU: a heap in the rows of `index` and `score` themselves, its root the worst of them. Scores are kept
 * as keys, of which the larger is the better: a distance with its sign turned. */
#ifndef SW_NEIGHBOURS_BEST_H
#define SW_NEIGHBOURS_BEST_H
#include <math.h>
#include <stdint.h>

static inline int is_worse(float key, int64_t index, float than, int64_t than_index) {
  return key < than || (key == than && index > than_index);
}

/* Puts a pair into the place of the root of a heap of n. */
static void replace_worst(float *key, int64_t *index, int64_t n, float new_key, int64_t new_index) {
  int64_t at = 0;
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && is_worse(key[child + 1], index[child + 1], key[child], index[child])) child++;
    if (!is_worse(key[child], index[child], new_key, new_index)) break;
    key[at] = key[child];
    index[at] = index[child];
  }
  key[at] = new_key;
  index[at] = new_index;
}
static inline void offer(float *key, int64_t *index, int k, float new_key, int64_t new_index) {
  if (is_worse(key[0], index[0], new_key, new_index)) replace_worst(key, index, k, new_key, new_index);
}

/* A heap of nothing: every key above -infinity is better. */
static void start_empty(float *key, int64_t *index, int k) {
  for (int i = 0; i < k; i++) key[i] = -INFINITY, index[i] = -1;
}
/* The results of an earlier call, best first, as a heap: the worst first is one. */
static void start_again(float *key, int64_t *index, int k, float sign) {
  for (int a = 0, b = k - 1; a <= b; a++, b--) {
    float score = key[a];
    int64_t i = index[a];
    key[a] = sign * key[b], index[a] = index[b];
    key[b] = sign * score, index[b] = i;
    if (a == b) key[a] = sign * score;
  }
}
/* From a heap of keys to scores, best first. */
static void finish(float *key, int64_t *index, int k, float sign) {
  for (int n = k - 1; n > 0; n--) {
    float worst = key[0];
    int64_t i = index[0];
    replace_worst(key, index, n, key[n], index[n]);
    key[n] = worst, index[n] = i;
  }
  for (int n = 0; n < k; n++) key[n] *= sign;
}
#endif
