/* Vectors to compare with: texts that are embedded, kept in memory, or a file of vectors that was made before. */
#ifndef SW_INFER_CORPUS_H
#define SW_INFER_CORPUS_H
#include "engine/space/search.h"
#include "engine/store/vectors.h"
#include "infer/session.h"

typedef struct {
  const char *name; /* its path */
  uint64_t rows, capacity;
  int hidden;
  float *vectors;   /* [rows, hidden]; NULL where they are read from the store piece by piece */
  char **ids;       /* [rows] */
  char **texts;     /* [rows], their beginnings; NULL where they are not known */
  uint64_t *places; /* [rows], of texts: the posting's place among the inputs */
  sw_vectors store; /* zeroed for texts */
} sw_corpus;

/* 1 where the name ends in .h5, .hdf5 or .npy. */
int sw_corpus_is_store(const char *path);
/* Opens a file of vectors, which must be of the session's model where both are known. */
int sw_corpus_open(const sw_infer_session *session, const char *path, sw_corpus *out);
/* Embeds texts; with a pattern (a regular expression) those that it matches. Unusable rows are left out, and told of on standard error unless
 * `quietly`. Fails where no text is left. */
int sw_corpus_embed(sw_infer_session *session, const char *const *paths, size_t count, const sw_postings_options *reading, const char *prefix,
                    const char *pattern, int quietly, sw_corpus *out);
/* Embeds texts in memory (valid UTF-8, not empty): one row each, in order; ids are empty. */
int sw_corpus_embed_texts(sw_infer_session *session, const char *const *texts, size_t count, sw_corpus *out);
void sw_corpus_close(sw_corpus *corpus);
/* For sw_search_run; borrowed. */
sw_search_corpus sw_corpus_rows(sw_corpus *corpus);
/* Fails where vectors are not of the session's model, or of the model of other vectors. */
int sw_corpus_check_model(const sw_infer_session *session, const char *path, const sw_vectors *vectors);
int sw_corpus_check_origin(const char *path_a, const sw_vectors *a, const char *path_b, const sw_vectors *b);
/* What tells one state of the file from another, for the identity of a run. New reference. */
json_t *sw_corpus_identity(const char *path);
/* "lines" for a text file, whose lines are texts, otherwise what --format says. */
int sw_corpus_format(const char *const *paths, size_t count, const char *format, sw_postings_format *out);
#endif
