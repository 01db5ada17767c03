/* The steps of UMAP that are numeric work (McInnes, Healy, Melville: "UMAP: Uniform Manifold Approximation and Projection for Dimension
 * Reduction", 2018); engine/space/umap.h puts them together.
 *
 * A graph is in CSR form: row i has the edges row_start[i] to row_start[i + 1] - 1, which lead to column[e]. */
#ifndef SW_KERNELS_UMAP_H
#define SW_KERNELS_UMAP_H
#include <stddef.h>
#include <stdint.h>

/* Weights of a row's neighbours. With the distances d_j, ascending, and r = the smallest one above 0 (or 0 where `nearest` is not set, or
 * none is above 0):
 *   w_j = exp(-max(d_j - r, 0) / s)   where s is such that sum_j w_j = target, by bisection to 1e-5,
 *   and at least a thousandth of the mean of the distances and of one 0, the row's own.
 * Neighbours at an infinite distance are none: they weigh 0, and do not count. */
typedef struct {
  int64_t rows;
  int k, nearest;
  float target; /* log2 of the number of neighbours, the row itself among them */
} sw_umap_weights_desc;
/* distances and weights: [rows, k] fp32, perhaps the same memory. */
typedef int sw_umap_weights_fn(sw_stream *stream, const sw_umap_weights_desc *desc, const float *distances, float *weights);

/* A step of a polynomial of a sparse matrix, on SW_UMAP_BLOCK vectors at once:
 *   y_i = scale sum_e value_e x_column(e) + shift x_i + back y_i      for rows i, edges in their order */
enum { SW_UMAP_BLOCK = 8 };
typedef struct {
  int64_t rows;
  float scale, shift, back; /* back = 0: y is not read */
} sw_umap_multiply_desc;
/* row_start [rows + 1] int64, column [edges] int32, value [edges], x and y [rows, SW_UMAP_BLOCK] fp32, not the same memory. */
typedef int sw_umap_multiply_fn(sw_stream *stream, const sw_umap_multiply_desc *desc, const int64_t *row_start, const int32_t *column,
                                const float *value, const float *x, float *y);

/* Epochs of the layout: stochastic gradient descent on the cross entropy between the graph and the map, with negative samples, where
 * every row gathers what moves it, so that nothing depends on an order of threads.
 *
 * Edge e acts in epoch t (0, 1, ...) where (t + 1) rate_e, modulo 2^32, is less than rate_e: rate_e / 2^32 times an epoch, evenly. In an
 * epoch the `groups` parts of `order` take turns; the rows of a part move at once, each from where the others were before. A row i at p
 * goes through its active edges in their order, and for each of them, one after the other, with d = p - q and D = |d|^2,
 *   `pulls` times      p += alpha clip(-2 a b D^(b-1) / (1 + a D^b) d),        q the edge's column,
 *   `negatives` times  p += alpha clip(2 b / ((0.001 + D) (1 + a D^b)) d),     q drawn from all points, unless it is the row itself,
 * clip: every coordinate to [-4, 4]; alpha = first_alpha (1 - t / epochs). In umap-learn both ends move twice in an epoch with an active
 * edge, once for each direction: with pulls = 2 they do here, too.
 * The n-th negative of a row in epoch t is point (w points) >> 32 with w = word n & 3 of philox(seed, {id low, id high, t, n >> 2}). */
typedef struct {
  int64_t rows;   /* that move */
  int64_t points; /* that attract and repel; points * components < 2^31 */
  int components; /* 2 or 3 */
  int own;        /* 1: row i is point i, and `positions` and `points` are the same memory */
  int first_epoch, last_epoch; /* to do now: [first, last) */
  int epochs;                  /* of the whole layout */
  int groups, negatives, pulls;
  float a, b, first_alpha;
  uint64_t seed;
} sw_umap_layout_desc;

/* Scratch for these or fewer rows. */
typedef int sw_umap_layout_workspace_fn(sw_stream *stream, const sw_umap_layout_desc *desc, size_t *bytes);
/* rate [edges]; ids [rows], what the rows' random numbers hang on, or NULL: i; order [rows], a permutation of the rows: part g is
 * [rows g / groups, rows (g + 1) / groups) of it, or NULL: i (the order within a part changes no result); positions [rows, components]
 * fp32, changed; points [points, components]. */
typedef int sw_umap_layout_fn(sw_stream *stream, const sw_umap_layout_desc *desc, const int64_t *row_start, const int32_t *column,
                              const uint32_t *rate, const uint64_t *ids, const int32_t *order, float *positions, const float *points,
                              void *workspace);

/* Ranks of pairs: 1 + how many corpus rows, the query's own left out, have a strictly better score with query i than row index[i][j] has.
 * Scores are those of kernels/neighbours. An index of -1 has rank 0. */
typedef struct {
  int64_t queries, corpus; /* corpus < 2^31 */
  int hidden, k;           /* 1 <= k <= SW_MOST_NEIGHBOURS */
  sw_metric metric;
} sw_umap_ranks_desc;
/* Scratch for these or fewer queries (depends on the stream's threads). */
typedef int sw_umap_ranks_workspace_fn(sw_stream *stream, const sw_umap_ranks_desc *desc, size_t *bytes);
/* queries [queries, hidden], corpus [corpus, hidden] fp32; own [queries] int64, the corpus row that the query is, or -1; index [queries, k]
 * int64; ranks [queries, k] int32. */
typedef int sw_umap_ranks_fn(sw_stream *stream, const sw_umap_ranks_desc *desc, const float *queries, const float *corpus, const int64_t *own,
                             const int64_t *index, int32_t *ranks, void *workspace);
#endif
