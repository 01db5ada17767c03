/* Rows that could not be used: set aside with the reason, one JSON object a line, and counted.
 *   {"file": "a.csv", "line": 17, "reason": "...", "row": "the first 2 KiB of the row"}
 * The file is valid UTF-8 whatever the row held: a byte that is not is written as the four characters \xNN, NUL as
 * \x00. */
#ifndef SW_DATA_REJECTS_H
#define SW_DATA_REJECTS_H
#include "base/file.h"
#include <stdint.h>

enum { SW_REJECT_ROW_BYTES = 2048 };

typedef struct {
  uint64_t count;
  char reason[256]; /* of the last one */
  char *path;       /* owned; NULL: only counted */
  sw_output output; /* opened at the first row */
} sw_rejects;

int sw_rejects_open(sw_rejects *rejects, const char *path);
/* `line` is 1-based. `file`, `reason` and `row` may hold any bytes. */
int sw_rejects_add(sw_rejects *rejects, const char *file, uint64_t line, const char *reason, const void *row,
                   size_t bytes);
/* Publishes the file; where nothing was rejected, a file of that name from an earlier run is removed (a device is not). `count` stays
 * readable. */
int sw_rejects_commit(sw_rejects *rejects);
/* Throws away what was not committed and frees; may follow a commit. */
void sw_rejects_close(sw_rejects *rejects);

/* Appends `bytes` of `text` as a JSON string with its quotes, escaped as said above. */
int sw_json_quote(sw_buffer *out, const void *text, size_t bytes);
#endif
