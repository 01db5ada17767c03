/* Pairs to train a bi-encoder on, streamed: {"query", "positive", "negatives": [...]} JSON lines (or one array), or a CSV or TSV with a
 * column each; plain, .gz or .zst. "negatives" (one text or a list; in CSV an empty field is none) may be missing everywhere; other names
 * can be given. */
#ifndef SW_DATA_PAIRS_H
#define SW_DATA_PAIRS_H
#include "engine/data/rejects.h"

enum { SW_MAX_NEGATIVES = 250 }; /* of a pair */

typedef struct {
  const char *data; /* not NUL-terminated */
  size_t bytes;
} sw_text;
/* Valid until the next pair. The texts are as they lie in the file: UTF-8 is for the caller to check. */
typedef struct {
  sw_text query, positive;
  size_t num_negatives;
  sw_text negatives[SW_MAX_NEGATIVES];
} sw_pair;

typedef struct {
  const char *query, *positive;      /* NULL: "query", "positive" */
  const char *const *negatives;      /* several columns or keys */
  int num_negatives;                 /* 0: "negatives" where it is there */
} sw_pair_columns;

typedef struct {
  size_t rows, rejected; /* rows = usable + rejected */
  char sha256[65];       /* of the file as it lies on disk */
} sw_pair_counts;

/* Gives every pair to `take`, which returns 0, 1 to have the row set aside for the reason in sw_error(), or -1. The kind of file is told
 * by its name. Rows that cannot be used are added to `rejects`. Fails where the file cannot be read, lacks a column, or has no usable row. */
int sw_pairs_read(const char *path, const sw_pair_columns *columns, sw_rejects *rejects, int (*take)(void *context, const sw_pair *pair),
                  void *context, sw_pair_counts *counts);
#endif
