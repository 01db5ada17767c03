/* Philox4x32-10, a counter-based random number generator: the same numbers on every backend and in any order.
 * Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef SW_BASE_PHILOX_H
#define SW_BASE_PHILOX_H
#include <stdint.h>

static inline void sw_philox(uint64_t key, const uint32_t counter[4], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* A sequential stream over the counters, for shuffles and initial weights. Its state is three numbers, kept in checkpoints. */
typedef struct {
  uint64_t seed;
  uint64_t stream; /* what it is for; distinct streams never share numbers */
  uint64_t next;   /* index of the next 32-bit number */
} sw_random;

static inline uint32_t sw_random_u32(sw_random *r) {
  uint64_t block = r->next >> 2;
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)r->stream, (uint32_t)(r->stream >> 32)}, out[4];
  sw_philox(r->seed, counter, out);
  return out[r->next++ & 3];
}
static inline uint64_t sw_random_u64(sw_random *r) {
  const uint64_t high = sw_random_u32(r);
  return high << 32 | sw_random_u32(r);
}
/* Uniform in [0, n), n > 0, by rejection: no modulo bias. */
static inline uint32_t sw_random_below(sw_random *r, uint32_t n) {
  uint32_t limit = (uint32_t)(0x100000000ull / n * n - 1), v;
  do v = sw_random_u32(r);
  while (v > limit);
  return v % n;
}
/* Uniform in [0, 1), 24 bits. */
static inline float sw_random_float(sw_random *r) { return (float)(sw_random_u32(r) >> 8) * 0x1p-24f; }
/* The same with 53 bits. */
static inline double sw_random_double(sw_random *r) { return (double)(sw_random_u64(r) >> 11) * 0x1p-53; }
#endif
