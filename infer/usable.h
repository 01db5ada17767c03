/* The rows of a vectors file that can be used; the others are set aside. */
#ifndef SW_INFER_USABLE_H
#define SW_INFER_USABLE_H
#include "engine/data/rejects.h"
#include "engine/store/vectors.h"
#include "kernels/backend.h"

typedef struct {
  const char *path;
  sw_vectors file;
  /* [file.rows, width], owned: what counts instead of the file's vectors, the points of a map; NULL */
  float *points;
  int width;            /* numbers of a row */
  int64_t rows;         /* that can be used, and */
  uint64_t *row;        /* [rows] which of the file's each is, from 0 */
  float *device;        /* [rows, width] on the device; NULL */
  sw_device *on;
  char sha256[65];      /* of all vectors as they are in the file, where rows are on the device */
} sw_usable;

/* NULL where the row, which it may change, can be used, otherwise why not. */
typedef const char *sw_row_check(const void *context, int width, float *row);
/* Every number is finite; `squares` (const int *) != 0: and so are squared distances. */
sw_row_check sw_row_is_finite;

/* Opens the file; close it in any case. Where it is a map and `as_map`, its points are the rows. */
int sw_usable_open(const char *path, int as_map, sw_usable *out);
/* Finds the usable rows, and puts them on the stream's device, as `check` left them, where there is a stream. A row that cannot be used goes to
 * `rejects`; without (NULL) it is a failure. Fails where none is left. */
int sw_usable_find(sw_usable *usable, sw_stream *stream, sw_row_check *check, const void *context, sw_rejects *rejects);
/* Usable rows [first, first + count) as they are in the file: vectors [count, width] and ids [count], to be freed each; either may be NULL. */
int sw_usable_read(sw_usable *usable, int64_t first, int64_t count, float *vectors, char **ids);
void sw_usable_close(sw_usable *usable);
#endif
