/* Nearest neighbours on the CPU: see neighbours.h for what, search.h for how. Every pair is computed in fp32. */
#include "kernels/neighbours/search.h"

sw_neighbours_workspace_fn SW_CPU(neighbours_workspace);
sw_neighbours_fn SW_CPU(neighbours);

int SW_CPU(neighbours_workspace)(sw_stream *stream, const sw_neighbours_desc *desc, size_t *bytes) {
  if (neighbours_check(desc)) return -1;
  search s = plan(stream, desc);
  *bytes = workspace_bytes(stream, desc, plain_floats(&s));
  return 0;
}

int SW_CPU(neighbours)(sw_stream *stream, const sw_neighbours_desc *desc, const float *queries, const float *corpus, int64_t *index,
                       float *score, void *workspace) {
  if (neighbours_check(desc)) return -1;
  search s = plan(stream, desc);
  s.queries = queries, s.corpus = corpus, s.index = index, s.key = score;
  run_search(stream, &s, search_plain, plain_floats(&s), workspace);
  return 0;
}
