/* Rows of JSON, streamed: one value a line (JSON lines), or the elements of one top-level array (as Label Studio
 * exports). Rows are only cut out here; what is in them is parsed by who reads them. */
#ifndef SW_DATA_ROWS_H
#define SW_DATA_ROWS_H
#include "engine/data/window.h"

typedef struct {
  sw_window window;
  size_t limit;      /* longest row in bytes */
  const char *path;  /* borrowed, for messages */
  int array;         /* the file is one array */
  int begun, closed; /* its '[' and its ']' were read */
} sw_rows;

/* Takes the window over (already opened; closed on failure); `path` must stay valid; `limit` 0: SW_MAX_ROW_BYTES. The
 * form is told by the first byte that is no white space. */
int sw_rows_open(sw_rows *rows, sw_window window, const char *path, size_t limit);
/* SW_ROW: `row` holds the text of one value until the next call. SW_ROW_LONG: it is longer than the limit; `row` is its
 * beginning. Blank lines are skipped. 0: the end; -1: failure. */
int sw_rows_next(sw_rows *rows, const char **row, size_t *bytes, uint64_t *line);
void sw_rows_close(sw_rows *rows);
/* The first byte of the window that is no white space, without using it up; 0 where there is none, -1 on failure. */
int sw_window_peek(sw_window *window);
#endif
