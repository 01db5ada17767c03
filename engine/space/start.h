/* Where the points of a map begin: spectral coordinates in [0, 10] with a little noise.
 *
 * A graph may fall apart. Its large parts (a twentieth of the points or more) have their own spectral start, and stand apart from each other as
 * their mean vectors do (classical scaling). A smaller part begins beside the points of the large ones that are nearest to its first vector,
 * on an area that is its share. Where all parts are small, a graph of their first vectors has a start of its own, which places them. */
#ifndef SW_SPACE_START_H
#define SW_SPACE_START_H
#include "engine/space/spectral.h"

typedef struct {
  int cosine, hidden, dims;
  uint64_t seed;
  const float *vectors; /* device, [rows, hidden] */
} sw_start_desc;

/* coordinates [rows, dims], host. row_start and column: the graph's, on the device. */
int sw_start(sw_stream *stream, const sw_start_desc *desc, const sw_graph *graph, const int64_t *row_start, const int32_t *column,
             float *coordinates);
#endif
