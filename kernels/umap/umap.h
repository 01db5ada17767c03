/* The steps of UMAP that are numeric work (McInnes, Healy, Melville: "UMAP: Uniform Manifold Approximation and
 * Projection for Dimension Reduction", 2018); engine/space/umap.h puts them together.
 *
 * A graph is in CSR form: row i has the edges row_start[i] to row_start[i + 1] - 1, which lead to column[e]. */
#ifndef SW_KERNELS_UMAP_H
#define SW_KERNELS_UMAP_H
#include <stddef.h>
#include <stdint.h>

/* Weights of a row's neighbours. With the distances d_j, ascending, and r = the smallest one above 0 (or 0 where
 * `nearest` is not set, or none is above 0): w_j = exp(-max(d_j - r, 0) / s)   where s is such that sum_j w_j = target,
 * by bisection to 1e-5, and at least a thousandth of the mean of the distances and of one 0, the row's own. Neighbours
 * at an infinite distance are none: they weigh 0, and do not count. */
typedef struct {
  int64_t rows;
  int k, nearest;
  float target; /* log2 of the number of neighbours, the row itself among them */
} sw_umap_weights_desc;
/* distances and weights: [rows, k] fp32, perhaps the same memory. */
typedef int sw_umap_weights_fn(sw_stream *stream, const sw_umap_weights_desc *desc, const float *distances,
                               float *weights);

/* A step of a polynomial of a sparse matrix, on SW_UMAP_BLOCK vectors at once:
 *   y_i = scale sum_e value_e x_column(e) + shift x_i + back y_i      for rows i, edges in their order */
enum { SW_UMAP_BLOCK = 8 };
typedef struct {
  int64_t rows;
  float scale, shift, back; /* back = 0: y is not read */
} sw_umap_multiply_desc;
/* row_start [rows + 1] int64, column [edges] int32, value [edges], x and y [rows, SW_UMAP_BLOCK] fp32, not the same
 * memory. */
typedef int sw_umap_multiply_fn(sw_stream *stream, const sw_umap_multiply_desc *desc, const int64_t *row_start,
                                const int32_t *column, const float *value, const float *x, float *y);

/* Stochastic gradient descent on the cross entropy between the graph and the map, with negative samples. An edge acts
 * in epoch t (0, 1, ...) where (t + 1) rate, modulo 2^32, is less than rate: rate / 2^32 times an epoch, evenly. Then,
 * with d = p - q, D = |d|^2, attract(p, q) = alpha clip(-2 a b D^(b-1) / (1 + a D^b) d)       repel(p, q) = alpha
 * clip(2 b / ((0.001 + D) (1 + a D^b)) d) where clip brings every coordinate to [-4, 4], alpha = first_alpha (1 - t /
 * epochs), and points that are one have no force. The n-th negative of an event with the number `id` in epoch t is
 * point (w points) >> 32, where w is number n mod 5 of the four words of philox(seed, {id low, id high, t, n / 5}) and
 * of their sum (any four of these five are independent). */
typedef struct {
  int64_t points;              /* that attract and repel; points * components < 2^31 */
  int components;              /* 2 or 3 */
  int first_epoch, last_epoch; /* to do now: [first, last) */
  int epochs;                  /* of the whole descent */
  int negatives;
  float a, b, first_alpha;
  uint64_t seed;
} sw_umap_descent;

/* Layout: all points move. As in umap-learn an edge that acts moves both its ends by the attraction, and its head by
 * the repulsions, and acts twice in its epoch, once in each direction; moving only the head, twice, as gathering would,
 * makes worse maps. So that nothing depends on an order of threads, edges are coloured: those of a colour share no
 * point, and act at once; the negatives are where they were before the epoch. An epoch is o = positions; for direction
 * = 0, 1: for each colour: for each active edge e of it, with p its head and q its tail, or the other way: g =
 * attract(p, q), p += g, q -= g;   `negatives` times p += repel(p, o_n), unless n is p's own point;   id = 2 e +
 * direction */
typedef struct {
  sw_umap_descent descent;
  int32_t colors;
  const int64_t
      *color_start; /* [colors + 1], in host memory: colour c is the edges color_start[c] to color_start[c + 1] - 1 */
} sw_umap_layout_desc;
/* Scratch: the points once more. */
typedef int sw_umap_layout_workspace_fn(sw_stream *stream, const sw_umap_layout_desc *desc, size_t *bytes);
/* head, tail and rate [edges]; positions [points, components] fp32, changed. */
typedef int sw_umap_layout_fn(sw_stream *stream, const sw_umap_layout_desc *desc, const int32_t *head,
                              const int32_t *tail, const uint32_t *rate, float *positions, void *workspace);

/* Placing: rows move among points that stay, each by itself. A row at p goes through its active edges in their order,
 * for each p += attract(p, q), q the edge's column;   `negatives` times p += repel(p, n), counted through the epoch; id
 * = ids[row] */
typedef struct {
  sw_umap_descent descent;
  int64_t rows;
} sw_umap_place_desc;
/* The rows' graph, and rate [edges]; ids [rows]; positions [rows, components] fp32, changed; points [points,
 * components]. */
typedef int sw_umap_place_fn(sw_stream *stream, const sw_umap_place_desc *desc, const int64_t *row_start,
                             const int32_t *column, const uint32_t *rate, const uint64_t *ids, float *positions,
                             const float *points);

/* Ranks of pairs: 1 + how many corpus rows, the query's own left out, have a strictly better score with query i than
 * row index[i][j] has. Scores are those of kernels/neighbours. An index of -1 has rank 0. */
typedef struct {
  int64_t queries, corpus; /* corpus < 2^31 */
  int hidden, k;           /* 1 <= k <= SW_MOST_NEIGHBOURS */
  sw_metric metric;
} sw_umap_ranks_desc;
/* Scratch for these or fewer queries (depends on the stream's threads). */
typedef int sw_umap_ranks_workspace_fn(sw_stream *stream, const sw_umap_ranks_desc *desc, size_t *bytes);
/* queries [queries, hidden], corpus [corpus, hidden] fp32; own [queries] int64, the corpus row that the query is, or
 * -1; index [queries, k] int64; ranks [queries, k] int32. */
typedef int sw_umap_ranks_fn(sw_stream *stream, const sw_umap_ranks_desc *desc, const float *queries,
                             const float *corpus, const int64_t *own, const int64_t *index, int32_t *ranks,
                             void *workspace);
#endif
