/* Which postings are known: by id, and by text (MinHash; engine/text/minhash.h). The JSON lines files "<date>.jsonl" of a folder are what counts; the
 * file "index" beside them spares reading them again, and is made anew for those that are not as it says. */
#ifndef SW_FETCH_INDEX_H
#define SW_FETCH_INDEX_H
#include "base/table.h"
#include "engine/text/minhash.h"
#include <jansson.h>

typedef struct {
  char *name;
  uint64_t size;
  int64_t mtime; /* ns */
} index_file;

/* One posting: where its row lies. */
typedef struct {
  uint32_t file, bytes, id; /* numbers in files and ids */
  uint64_t offset;
} index_place;

typedef struct {
  char *folder;
  index_file *files;
  size_t num_files;
  sw_table ids;  /* source, a tab, id */
  sw_near near;
  index_place *places; /* [near.count] */
  size_t capacity;
  char *current;   /* path of the file being written, in the place of the last of `files`; NULL: none */
  size_t reread;   /* files that the index did not know */
  uint64_t unread; /* rows of them that are no postings */
} job_index;

/* Reads what is known but for the postings of `date`, whose file is to be written and becomes the last of `files`. */
int index_open(const char *folder, const char *date, job_index *out);
/* Adds a row of the file being written (`bytes` with its line break). */
int index_add(job_index *index, const json_t *row, uint64_t offset, size_t bytes);
/* 1: known by id; 0; -1. */
int index_has_id(const job_index *index, const char *source, const char *id);
/* 1: a text with a Jaccard similarity of at least `threshold` is known; 0; -1. */
int index_has_text(job_index *index, const char *text, double threshold);
/* Reads the row of posting `i` again. */
json_t *index_row(const job_index *index, size_t i);
/* Calls `each` with every row of every file, in order. */
typedef int index_each(void *context, const json_t *row);
int index_rows(const job_index *index, index_each *each, void *context);
/* Writes the file "index". `published`: the file being written is in its place; otherwise what is there may say the same in other bytes, and is left
 * out. */
int index_save(const job_index *index, int published);
void index_close(job_index *index);
#endif
