/* Distinct byte strings, numbered from 0 in the order they came in. */
#ifndef SW_BASE_TABLE_H
#define SW_BASE_TABLE_H
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise it. keys[i] is NUL-terminated and owned by the table. */
typedef struct {
  size_t count, capacity, num_slots;
  char **keys;
  uint32_t *slots; /* number + 1 of the key, or 0 */
} sw_table;

void sw_table_close(sw_table *table);
/* The key's number, or -1 where it is not there. Keys have no NUL byte. */
int64_t sw_table_find(const sw_table *table, const char *key);
/* The same for a key that is added where it is not there; -1: no memory. */
int64_t sw_table_add(sw_table *table, const char *key);
#endif
