/* Vectors to compare with: texts that are embedded, kept in memory, or a file of vectors that was made before. */
#ifndef SW_INFER_CORPUS_H
#define SW_INFER_CORPUS_H
#include "engine/space/search.h"
#include "infer/session.h"
#include "infer/usable.h"

typedef struct {
  const char *name; /* its path */
  uint64_t rows, capacity;
  int hidden;
  float *vectors;   /* [rows, hidden]; NULL where they are read from the store piece by piece */
  char **ids;       /* [rows] */
  char **texts;     /* [rows], their beginnings; NULL where they are not known, as may be each */
  uint64_t *places; /* [rows], of texts: the posting's place among the inputs */
  sw_usable store;  /* zeroed for texts */
} sw_corpus;

/* 1 where the name ends in .h5, .hdf5 or .npy. */
int sw_corpus_is_store(const char *path);
/* Opens a file of vectors, or embeds a file of texts as `reading` and `format` ("auto"; sw_corpus_format) say. Vectors must be of the session's model
 * where both are known. Vectors that are not finite are set aside (session->rejects); texts as with sw_corpus_embed. */
int sw_corpus_open(sw_infer_session *session, const char *path, const sw_postings_options *reading, const char *format, const char *prefix, sw_corpus *out);
/* Finds the texts of a file of vectors in the files that it was made of, by their ids; *known: of how many rows. */
int sw_corpus_find_texts(sw_corpus *corpus, const char *const *paths, size_t count, const sw_postings_options *reading, uint64_t *known);
/* A file of vectors by itself; `again`: it was read before, so that nothing is told or set aside twice. */
int sw_corpus_open_store(sw_infer_session *session, const char *path, int again, sw_usable *out);
/* Embeds texts; with a pattern (a regular expression) those that it matches. Unusable rows are left out, and told of on standard error unless
 * `quietly`. Fails where no text is left. */
int sw_corpus_embed(sw_infer_session *session, const char *const *paths, size_t count, const sw_postings_options *reading, const char *prefix,
                    const char *pattern, int quietly, sw_corpus *out);
/* Embeds texts in memory (valid UTF-8, not empty): one row each, in order; ids are empty. */
int sw_corpus_embed_texts(sw_infer_session *session, const char *const *texts, size_t count, sw_corpus *out);
void sw_corpus_close(sw_corpus *corpus);
/* For sw_search_run; borrowed. */
sw_search_corpus sw_corpus_rows(sw_corpus *corpus);
/* What tells one state of the file from another, for the identity of a run. New reference. */
json_t *sw_corpus_identity(const char *path);
/* "lines" for a text file, whose lines are texts, otherwise what --format says. */
int sw_corpus_format(const char *const *paths, size_t count, const char *format, sw_postings_format *out);

/* The nearest of a corpus, for blocks of vectors. */
enum { SW_FINDER_BLOCK = 8192 }; /* queries at once: for each block the corpus is read once; memory that few queries do not touch is not used */
typedef struct {
  sw_search *search;
  sw_search_corpus corpus;
  int hidden, k;
  float *vectors; /* [SW_FINDER_BLOCK, hidden] what is looked for */
  int64_t *index; /* [SW_FINDER_BLOCK, k] what was found, the best first; -1 where there is no more */
  float *score;   /* the same */
} sw_finder;
/* The corpus, whose read function may have a context that lives as long, is searched by the session's device. */
int sw_finder_open(sw_infer_session *session, const sw_search_corpus *corpus, int hidden, int k, sw_similarity similarity, sw_finder *out);
/* The first `rows` of finder->vectors; first_skip as in sw_search_run. */
int sw_finder_run(sw_infer_session *session, sw_finder *finder, size_t rows, int64_t first_skip);
/* What a pipeline has embedded, in blocks; `each` is told every posting with its k neighbours, in order. */
typedef int sw_finder_each(void *context, const sw_posting *posting, const int64_t *index, const float *score);
int sw_finder_items(sw_infer_session *session, sw_finder *finder, const sw_item *items, size_t count, int64_t first_skip, sw_finder_each *each, void *context);
void sw_finder_close(sw_finder *finder);
#endif
