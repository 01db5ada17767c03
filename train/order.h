/* The order in which an epoch sees its items: new ones shuffled, older ones replayed among them. All of it follows from (seed, epoch). */
#ifndef SW_TRAIN_ORDER_H
#define SW_TRAIN_ORDER_H
#include <stddef.h>
#include <stdint.h>

/* Items [first, first + count), older examples that make up `part` of the items of every batch (Robins, "Catastrophic Forgetting, Rehearsal and
 * Pseudorehearsal", 1995). They are drawn in a shuffled order that goes on from epoch to epoch: each has its turn before any comes again. */
typedef struct {
  size_t first, count;
  double part; /* above 0; the parts of all replays together below 1 */
} sw_replay;
enum { SW_MAX_REPLAYS = 32 };

typedef struct {
  uint64_t seed;
  size_t new_items; /* [0, new_items): each comes once an epoch */
  size_t num_replays;
  const sw_replay *replays; /* borrowed */
  size_t drawn[SW_MAX_REPLAYS]; /* items of each replay in an epoch */
  size_t count;     /* items of an epoch */
  uint32_t *items;  /* [count], of the epoch that sw_order_epoch was last called for */
  uint32_t *shuffled;
} sw_order;

int sw_order_open(uint64_t seed, size_t new_items, const sw_replay *replays, size_t num_replays, sw_order *out);
void sw_order_close(sw_order *order);
void sw_order_epoch(sw_order *order, int epoch); /* from 0 */
#endif
