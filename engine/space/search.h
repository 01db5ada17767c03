/* The nearest rows of a corpus, of any size, for blocks of queries: exact (kernels/neighbours), piece by piece, in bounded memory.
 *
 * Similarity is the cosine (rows are brought to unit length first; a row of zeros is at cosine 0 from everything), the larger, the better, or the
 * Euclidean distance, the smaller, the better. Equal ones: the lower index is the better one. The same bits in whatever blocks and pieces. */
#ifndef SW_SPACE_SEARCH_H
#define SW_SPACE_SEARCH_H
#include "kernels/backend.h"

typedef enum { SW_COSINE, SW_EUCLIDEAN } sw_similarity;
/* "cosine" or "euclidean" */
int sw_similarity_parse(const char *name, sw_similarity *out);

/* The corpus. `read` gives rows [first, first + rows), out [rows, hidden]. */
typedef struct {
  int64_t rows; /* below 2^31 */
  int (*read)(void *context, int64_t first, int64_t rows, float *out);
  void *context;
  const char *name; /* for messages */
} sw_search_corpus;

typedef struct sw_search sw_search;
/* 1 <= k <= SW_MOST_NEIGHBOURS; blocks of at most max_queries queries. */
int sw_search_open(sw_stream *stream, int hidden, int k, sw_similarity similarity, int64_t max_queries, sw_search **out);
void sw_search_close(sw_search *search);
/* queries (host) [count, hidden]; index [count, k] and score [count, k], the best first. Where the corpus has fewer than k rows the rest is index -1. With
 * first_skip >= 0 query i is not compared with row first_skip + i. A value that is no finite number is a failure. */
int sw_search_run(sw_search *search, const sw_search_corpus *corpus, const float *queries, int64_t count, int64_t first_skip, int64_t *index, float *score);
#endif
