/* A window that slides over a text stream: blocks of 1 MiB, grown only while one record needs more. Lines, CSV records
 * and JSON rows are parsed in place in it, so nothing is copied before a row is known to be wanted. */
#ifndef SW_DATA_WINDOW_H
#define SW_DATA_WINDOW_H
#include "engine/data/stream.h"

/* The longest line or record that is kept, unless a reader is told otherwise; longer ones are set aside. */
enum { SW_MAX_ROW_BYTES = 8 << 20 };

typedef struct {
  sw_byte_stream *stream;
  char *data;
  size_t capacity;
  size_t start, end; /* the bytes data[start..end) are read and not used up */
  uint64_t line;     /* 1-based number of the line that data[start] is in; kept by who uses bytes up */
  int ended;         /* nothing more will come */
} sw_window;

/* Opens `path` ("-": standard input) and skips a UTF-8 byte order mark; refuses UTF-16. */
int sw_window_open(sw_window *window, const char *path, int hash);
void sw_window_close(sw_window *window);
/* Reads more: 1 when bytes were added, 0 at the end, -1 on failure. Pointers into the window are no longer valid
 * afterwards. Once much is waiting it reads until that has doubled, so that parsing again from the start stays linear
 * in all. */
int sw_window_fill(sw_window *window);

/* One line without its "\n" or "\r\n". SW_ROW: whole. SW_ROW_LONG: more than `limit` bytes; `row` holds the first of
 * them and the rest was skipped. 0: the end; -1: failure. `row` is valid until the next call. */
enum { SW_ROW = 1, SW_ROW_LONG = 2 };
int sw_window_line(sw_window *window, size_t limit, const char **row, size_t *bytes, uint64_t *line);

/* Number of '\n'. */
size_t sw_count_newlines(const char *data, size_t bytes);
#endif
