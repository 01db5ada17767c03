/* Vectors that a served model made: to search in, and maps to place texts on. */
#ifndef SW_SERVE_CORPORA_H
#define SW_SERVE_CORPORA_H
#include "infer/corpus.h"
#include "infer/map.h"

/* HDF5 is for one thread at a time: whoever opens, reads or closes a file while the server runs holds this. */
extern pthread_mutex_t sw_serve_files;

typedef struct {
  const char *name; /* borrowed */
  sw_infer_session *session;
  sw_corpus corpus;
  sw_finder few, many;  /* neighbours: many are as many as a request may want */
  sw_embedder embedder; /* with the prefix that the vectors were made with */
  pthread_mutex_t turn; /* of the finders */
} sw_served_corpus;

typedef struct {
  sw_infer_session *session;
  sw_usable old;
  float *coordinates;
  sw_umap_options umap;
  sw_stream stream;
  sw_embedder embedder;
  pthread_mutex_t turn; /* of the stream */
} sw_served_map;

/* 1: the file's vectors are of the session's model; 0: of another one; -1: it cannot be read, or does not say. */
int sw_corpora_match(const char *path, const sw_infer_session *session);
/* `texts`: files of the texts that it was made of, for what is said of hits; none: their ids only. */
int sw_served_corpus_open(sw_infer_session *session, const char *name, const char *path, const sw_list *texts, const sw_postings_options *reading,
                          sw_served_corpus **out);
void sw_served_corpus_close(sw_served_corpus *corpus);
int sw_served_map_open(sw_infer_session *session, const char *path, sw_served_map **out);
void sw_served_map_close(sw_served_map *map);

/* vectors [count, hidden], count <= SW_FINDER_BLOCK: index and score [count, k], as sw_finder has them, k <= SW_REQUEST_MOST_K. */
int sw_served_corpus_search(sw_served_corpus *corpus, const float *vectors, size_t count, int k, int64_t *index, float *score);
/* vectors [count, hidden], which it changes: coordinates [count, components]. */
int sw_served_map_place(sw_served_map *map, float *vectors, size_t count, float *coordinates);
#endif
