/* Groups of similar vectors by one pass (leader clustering: Hartigan, "Clustering Algorithms", 1975, chapter 3): each row joins the most similar
 * leader before it, where the cosine reaches the threshold, and otherwise leads a group of its own. Rows come in the order of their importance. */
#ifndef SW_SPACE_LEADERS_H
#define SW_SPACE_LEADERS_H
#include "engine/space/search.h"

/* vectors (host) [rows, hidden], read-only; out (host) leader [rows]: the row that leads row i's group, i itself for a leader. The same for any number
 * of threads. */
int sw_leaders_run(sw_stream *stream, const float *vectors, int64_t rows, int hidden, double threshold, int64_t *leader);
#endif
