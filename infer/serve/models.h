/* The checkpoints that are served, each under a name; one can be replaced by another while requests go on with the old one. */
#ifndef SW_SERVE_MODELS_H
#define SW_SERVE_MODELS_H
#include "infer/labels.h"
#include "infer/serve/batcher.h"
#include "infer/serve/corpora.h"
#include "infer/serve/request.h"
#include "engine/data/token_set.h"
#include "infer/tags.h"

#include <stdatomic.h>
#include <sys/stat.h>

typedef enum { SW_SERVE_EMBED, SW_SERVE_TAG, SW_SERVE_CLASSIFY, SW_SERVE_MULTILABEL, SW_SERVE_JOBS } sw_serve_job;
extern const char *const sw_serve_job_names[SW_SERVE_JOBS]; /* "embed" ... */

/* What a file of a checkpoint was when it was opened. */
typedef struct {
  dev_t device;
  ino_t inode;
  off_t bytes;
  struct timespec changed;
} sw_file_state;

/* A checkpoint in memory. */
typedef struct sw_served {
  const char *name, *path; /* borrowed */
  sw_infer_options options;
  sw_infer_session session;
  sw_embedder embedder;
  sw_tag_job tag;
  sw_classify_job classify;
  sw_label_job label;
  sw_lane lanes[SW_SERVE_JOBS]; /* those that it can do have workers */
  sw_served_corpus **corpora;   /* [the options' corpora]: those that it made, NULL for others' */
  sw_served_map *map;           /* NULL: none, or another's */
  size_t num_corpora;
  int64_t created;              /* seconds since 1970 */
  atomic_int references;
  struct sw_models *owner;
  struct sw_served *next; /* of the owner's gone */
} sw_served;
int sw_served_can(const sw_served *served, sw_serve_job job);
/* What the spans or texts of this job may be called, each once; `each` -1 ends it. */
int sw_served_labels(const sw_served *served, sw_serve_job job, int (*each)(void *context, const char *label), void *context);
/* Frees nothing: that takes long, and waits for files. sw_models_reload does. */
void sw_served_release(sw_served *served);

typedef struct {
  const char *prefix;      /* of texts to embed */
  sw_infer_options common; /* device, dtype, threads, batch_tokens, quiet */
  int threads;             /* of the batcher */
  const sw_list *corpora;  /* files of vectors, or name=file */
  const char *map;         /* NULL: none */
  const sw_list *texts;    /* files of texts that corpora were made of, read as `reading` says */
  sw_postings_options reading;
} sw_models_options;

typedef struct sw_models {
  sw_models_options options;
  size_t count;
  char **names, **paths; /* owned */
  char **corpus_names, **corpus_paths;
  size_t num_corpora;
  sw_served **items;     /* the present ones */
  sw_file_state *states; /* [count, num_corpora, 1]: of the files of models, corpora and map that were last opened, or tried */
  char *stale;           /* [count]: its corpora or the map may be others than those in memory */
  pthread_mutex_t lock;  /* of items and gone */
  sw_served *gone;       /* that nobody uses any more, to be freed */
  atomic_ullong reloads, failures;
} sw_models;

/* `specs`: "path" or "name=path"; without a name it is the file's, without what follows its first dot. Close `out` in any case. */
int sw_models_open(const sw_list *specs, const sw_models_options *options, sw_models *out);
void sw_models_close(sw_models *models);
/* The model of that name, or the first that can do the job where `name` is NULL; to be released. NULL: 404 or 422, as the fault says. */
sw_served *sw_models_take(sw_models *models, const char *name, sw_serve_job job, sw_fault *fault);
/* The same of the model that made the corpus, by name or (NULL) the first, and its place in served->corpora; or that made the map. */
sw_served *sw_models_take_corpus(sw_models *models, const char *name, size_t *corpus, sw_fault *fault);
sw_served *sw_models_take_map(sw_models *models, sw_fault *fault);
sw_served *sw_models_at(sw_models *models, size_t index); /* to be released */
/* Opens anew, beside the present model, what lies in other files than before (all where `force`; all that embed where vectors or the map are others), and
 * swaps them; how many. What fails to open is told of on standard error; the present model stays, until one of its files changes again. Frees models that
 * nobody uses any more. */
int sw_models_reload(sw_models *models, int force);
#endif
