/* Distinct sequences of token ids, numbered from 0 in the order in which they are first seen. */
#ifndef SW_DATA_SEQUENCES_H
#define SW_DATA_SEQUENCES_H
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise before the first call. */
typedef struct {
  uint32_t count;
  size_t *starts; /* [count + 1], in ids; NULL before the first */
  int32_t *ids;   /* of all, one behind the other */
  size_t capacity, id_capacity, num_slots;
  uint32_t *slots; /* a hash table of numbers + 1; 0 = empty */
} sw_sequences;

int sw_sequences_add(sw_sequences *set, const int32_t *ids, int32_t length, uint32_t *number);
void sw_sequences_close(sw_sequences *set);
static inline int32_t sw_sequence_length(const sw_sequences *set, uint32_t number) {
  return (int32_t)(set->starts[number + 1] - set->starts[number]);
}
static inline const int32_t *sw_sequence_ids(const sw_sequences *set, uint32_t number) { return set->ids + set->starts[number]; }
#endif
