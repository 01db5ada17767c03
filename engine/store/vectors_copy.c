/* A new file of vectors from the rows of others, in bounded memory. */
#include "base/error.h"
#include "engine/store/vectors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 4096 };

typedef struct {
  sw_vectors_writer *writer; /* NULL: only the longest id is looked for */
  sw_vectors_keep_fn *keep;
  void *context;
  size_t id_bytes;
  uint64_t rows;
  float *vectors;    /* [ROWS, hidden] */
  char *ids[ROWS];
  const char *kept[ROWS];
} copy;

static int copy_block(copy *c, sw_vectors *from, size_t source, uint64_t first, size_t rows) {
  const size_t hidden = (size_t)from->hidden;
  size_t count = 0;
  if (c->writer && sw_vectors_read(from, first, rows, c->vectors)) return -1;
  for (size_t i = 0; i < rows; i++) {
    const char *id = c->ids[i];
    if (c->keep && !c->keep(c->context, source, first + i, id)) continue;
    if (strlen(id) > c->id_bytes) c->id_bytes = strlen(id);
    for (size_t h = 0; c->writer && h < hidden; h++)
      if (!isfinite(c->vectors[i * hidden + h])) return sw_fail("the vector of the id '%.64s' has a value that is no finite number", id);
    if (c->writer) memmove(c->vectors + count * hidden, c->vectors + i * hidden, hidden * sizeof *c->vectors);
    c->kept[count++] = id;
  }
  c->rows += count;
  return c->writer ? sw_vectors_append(c->writer, c->vectors, c->kept, count) : 0;
}

static int copy_all(copy *c, sw_vectors *sources, size_t count) {
  c->rows = 0;
  for (size_t s = 0; s < count; s++)
    for (uint64_t first = 0; first < sources[s].rows; first += ROWS) {
      const size_t rows = sources[s].rows - first < ROWS ? (size_t)(sources[s].rows - first) : ROWS;
      if (sw_vectors_read_ids(&sources[s], first, rows, c->ids)) return -1;
      const int failed = copy_block(c, &sources[s], s, first, rows);
      for (size_t i = 0; i < rows; i++) free(c->ids[i]);
      if (failed) return -1;
    }
  return 0;
}

int sw_vectors_copy(const char *path, sw_vectors *sources, size_t count, const sw_vectors_origin *origin, sw_vectors_keep_fn *keep, void *context,
                    uint64_t *rows) {
  const int hidden = sources[0].hidden;
  for (size_t i = 1; i < count; i++)
    if (sources[i].hidden != hidden) return sw_fail("vectors of %d and of %d numbers cannot lie in one file", hidden, sources[i].hidden);
  copy *c = sw_alloc(sizeof *c);
  if (!c) return -1;
  *c = (copy){.keep = keep, .context = context, .vectors = sw_alloc_array(ROWS, (size_t)hidden * sizeof *c->vectors)};
  int status = c->vectors ? copy_all(c, sources, count) : -1;
  if (!status) status = sw_vectors_create(path, hidden, c->id_bytes, origin, &c->writer);
  if (!status && (status = copy_all(c, sources, count))) sw_vectors_abandon(c->writer);
  else if (!status) status = sw_vectors_commit(c->writer);
  *rows = c->rows;
  free(c->vectors);
  free(c);
  return status;
}
