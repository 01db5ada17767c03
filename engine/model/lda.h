/* A topic model: latent Dirichlet allocation, learned by online variational Bayes on kernels/lda (Hoffman, Blei, Bach, 2010).
 *
 * Documents are learned from in chunks. The same chunks give the same bits with any number of threads, and a document the same topics whatever
 * else it is inferred with. */
#ifndef SW_MODEL_LDA_H
#define SW_MODEL_LDA_H
#include "engine/data/documents.h"
#include "engine/store/checkpoint.h"
#include "kernels/backend.h"

typedef struct {
  int topics, words;
  double alpha, eta; /* of the Dirichlet distributions of topics in a document and words in a topic; symmetric */
  double tolerance;  /* of a document's weights, mean change */
  int iterations;    /* of a document at most */
} sw_lda_shape;

typedef struct {
  sw_stream stream;
  sw_lda_shape shape;
  float *lambda, *beta; /* device, as kernels/lda has them */
  void *workspace;      /* of the operator that makes beta */
} sw_lda;

/* lambda: host [topics, words], > 0, or NULL: random near 1 from the seed. */
int sw_lda_open(sw_stream *stream, const sw_lda_shape *shape, const float *lambda, uint64_t seed, sw_lda *out);
void sw_lda_close(sw_lda *lda);
/* lambda as host [topics, words] */
int sw_lda_get(sw_lda *lda, float *lambda);

/* The shape and lambda [topics, words] (borrowed) of a checkpoint of kind "topics"; `path` for messages. */
int sw_lda_of_checkpoint(const sw_checkpoint *checkpoint, const char *path, sw_lda_shape *shape, const float **lambda);
/* Makes `checkpoint`, whose vocabulary is set, one of this kind; *lambda: where the weights go, valid until another tensor is added. */
int sw_lda_to_checkpoint(const sw_lda_shape *shape, sw_checkpoint *checkpoint, float **lambda);

/* Device memory for the documents that go through the model at once. A thread has its own. */
typedef struct {
  sw_lda *lda;
  sw_stream stream;
  int64_t documents, entries, longest; /* room */
  int64_t *starts, *word_starts, *entry;
  int32_t *word, *document;
  float *count, *gamma, *theta, *ratio;
  void *workspace;
  float *staging;       /* host [documents, stride] */
  int64_t *host_starts, *host_word_starts, *host_entry;
  int32_t *host_document;
} sw_lda_room;
/* For up to so many documents with so many distinct words in all and each; `learns`: also for sw_lda_learn. */
int sw_lda_room_open(sw_lda *lda, sw_stream *stream, int64_t documents, int64_t entries, int64_t longest, int learns, sw_lda_room *out);
void sw_lda_room_close(sw_lda_room *room);

/* The weights of documents [first, first + count) of the bags: gamma, host [count, topics]. A document of no known word gets alpha. */
int sw_lda_infer(sw_lda_room *room, const sw_bags *bags, int64_t first, int64_t count, float *gamma);
/* Moves lambda by the documents [first, first + count), as if the `total` documents of the data were like them. */
int sw_lda_learn(sw_lda_room *room, const sw_bags *bags, int64_t first, int64_t count, double rho, int64_t total);

/* The variational bound on the documents' log likelihood in a word (gensim's log_perplexity; perplexity is exp2 of its negative there), from
 * lambda and the documents' gamma, both host, in double. `total`: documents that the topics' part of the bound is shared by. */
int sw_lda_bound(const sw_lda_shape *shape, const float *lambda, const sw_bags *bags, const float *gamma, int64_t total, int threads, double *bound);

/* The n words that have the most weight in a topic, of equal ones the lower first: top [n], counted from 0. */
int sw_lda_top_words(const sw_lda_shape *shape, const float *lambda, int topic, size_t n, int32_t *top);
#endif
