#include "train/order.h"
#include "base/error.h"
#include "base/philox.h"

#include <stdlib.h>

enum { STREAM_SHUFFLE = 1, STREAM_REPLAY = 64 };

/* Whose turn it is at every place of an epoch: the source furthest behind its part. Source 0 is the new items; with the last of them the epoch
 * ends. sources (may be NULL): [count]. */
static void deal(sw_order *o, uint32_t *sources) {
  double due[1 + SW_MAX_REPLAYS] = {0}, part[1 + SW_MAX_REPLAYS] = {1};
  for (size_t r = 0; r < o->num_replays; r++) {
    part[1 + r] = o->replays[r].part;
    part[0] -= part[1 + r];
    o->drawn[r] = 0;
  }
  o->count = 0;
  for (size_t left = o->new_items; left; o->count++) {
    size_t next = 0;
    for (size_t k = 0; k <= o->num_replays; k++) {
      due[k] += part[k];
      if (due[k] > due[next]) next = k;
    }
    due[next] -= 1;
    if (next)
      o->drawn[next - 1]++;
    else
      left--;
    if (sources) sources[o->count] = (uint32_t)next;
  }
}

int sw_order_open(uint64_t seed, size_t new_items, const sw_replay *replays, size_t num_replays, sw_order *out) {
  *out = (sw_order){.seed = seed, .new_items = new_items, .num_replays = num_replays, .replays = replays};
  if (num_replays > SW_MAX_REPLAYS) return sw_fail("%zu replays are too many (at most %d)", num_replays, SW_MAX_REPLAYS);
  size_t most = new_items;
  for (size_t r = 0; r < num_replays; r++)
    if (replays[r].count > most) most = replays[r].count;
  deal(out, NULL);
  out->items = sw_alloc_array(out->count, sizeof *out->items);
  out->shuffled = sw_alloc_array(most, sizeof *out->shuffled);
  return out->items && out->shuffled ? 0 : -1;
}

void sw_order_close(sw_order *o) {
  free(o->items);
  free(o->shuffled);
}

/* `count` items from `first` on (Fisher, Yates), from a stream of random numbers of their own. */
static void shuffle(sw_order *o, uint32_t stream, uint32_t number, size_t first, size_t count) {
  sw_random random = {.seed = o->seed, .stream = (uint64_t)stream << 32 | number};
  for (size_t i = 0; i < count; i++) o->shuffled[i] = (uint32_t)(first + i);
  for (size_t i = count; i > 1; i--) {
    uint32_t k = sw_random_below(&random, (uint32_t)i), t = o->shuffled[i - 1];
    o->shuffled[i - 1] = o->shuffled[k];
    o->shuffled[k] = t;
  }
}

void sw_order_epoch(sw_order *o, int epoch) {
  const uint32_t WAITING = 1u << 31; /* with the source's number: a place that has no item yet; items are fewer */
  deal(o, o->items);
  shuffle(o, STREAM_SHUFFLE, (uint32_t)epoch, 0, o->new_items);
  for (size_t place = 0, next = 0; place < o->count; place++)
    o->items[place] = o->items[place] ? WAITING | o->items[place] : o->shuffled[next++];
  for (size_t r = 0; r < o->num_replays; r++) {
    const sw_replay *replay = &o->replays[r];
    size_t at = (size_t)epoch * o->drawn[r], round = SIZE_MAX;
    for (size_t place = 0; place < o->count; place++) {
      if (o->items[place] != (WAITING | (uint32_t)(1 + r))) continue;
      if (at / replay->count != round) {
        round = at / replay->count;
        shuffle(o, STREAM_REPLAY + (uint32_t)r, (uint32_t)round, replay->first, replay->count);
      }
      o->items[place] = o->shuffled[at++ % replay->count];
    }
  }
}
