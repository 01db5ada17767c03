/* Exact nearest neighbours: of each query, the k best rows of a corpus, by a matrix product and a selection that share their tiles. No
 * matrix of queries x corpus is ever stored.
 *
 * The score of a pair is the inner product q.c (the larger, the better) or the squared Euclidean distance sum (q_h - c_h)^2 (the
 * smaller, the better), fp32. It is one chain of fused multiply-adds s = fma(q_h, c_h, s), or s = fma(q_h - c_h, q_h - c_h, s), from
 * h = 0 on: the same bits in whatever batch, tile, thread or piece of the corpus, and in every backend (but the CPU's baseline, which
 * has no fused multiply-add). Equal scores: the lower index is the better one. So every result is the only one there is.
 *
 * Pairs whose score is NaN, -infinity (products) or infinity (distances) are never neighbours: rows with NaN have and are none.
 * Where there are fewer than k, the rest is index -1 with the worst score, -infinity or (distances) infinity. */
#ifndef SW_KERNELS_NEIGHBOURS_H
#define SW_KERNELS_NEIGHBOURS_H
#include <stddef.h>
#include <stdint.h>

enum { SW_MOST_NEIGHBOURS = 256 };
typedef enum { SW_INNER_PRODUCT, SW_SQUARED_DISTANCE } sw_metric;

typedef struct {
  int64_t queries, corpus; /* rows; corpus < 2^31 */
  int hidden, k;           /* 1 <= k <= SW_MOST_NEIGHBOURS */
  sw_metric metric;
  int64_t base;       /* index of the corpus' first row: a corpus may come in pieces */
  int64_t first_skip; /* query i is not compared with the row of index first_skip + i (itself); negative: with all rows */
  int resume;         /* index and score hold the results for other pieces, in any order: the k best of all are kept */
} sw_neighbours_desc;

/* Scratch for these or fewer queries and corpus rows (the other numbers alike; depends on the stream's threads). */
typedef int sw_neighbours_workspace_fn(sw_stream *stream, const sw_neighbours_desc *desc, size_t *bytes);
/* queries [queries, hidden], corpus [corpus, hidden] fp32, perhaps the same memory; index [queries, k] int64 and score [queries, k] fp32,
 * the best first. */
typedef int sw_neighbours_fn(sw_stream *stream, const sw_neighbours_desc *desc, const float *queries, const float *corpus, int64_t *index,
                             float *score, void *workspace);
#endif
