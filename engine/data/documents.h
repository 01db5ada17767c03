/* Postings as lists of words for topic models: read once, kept in memory, four bytes a word. */
#ifndef SW_DATA_DOCUMENTS_H
#define SW_DATA_DOCUMENTS_H
#include "engine/data/postings.h"
#include "engine/text/stems.h"

enum { SW_DOCUMENT_WORDS = 1 << 16 }; /* of longer postings the first */

typedef struct {
  size_t count;
  size_t *starts;    /* [count + 1] in ids */
  int32_t *ids;      /* of the documents' words, in order; 0: a word outside the dictionary */
  uint8_t *held_out; /* [count] 1: not to learn from */
  size_t num_held_out, capacity, id_capacity;
} sw_documents;

typedef struct {
  const char *stemmer;    /* of libstemmer, or SW_STEM_NONE */
  size_t words;           /* postings are cut into documents of so many words; 0: a posting is a document */
  double holdout;         /* the share of the postings, by the hash of their text, that is held out */
  sw_postings_options postings;
  const char *progress;   /* what the progress bar says; NULL: none */
} sw_documents_options;

/* What was read, for the manifest. */
typedef struct {
  uint64_t rows, rejected, truncated;
  char sha256[65]; /* of the usable texts, in order */
} sw_documents_facts;

/* Reads the postings; ids are the numbers of *stems (opened here). `out` and *stems must be closed in any case. Fails where no posting can be
 * used, naming the first reason. */
int sw_documents_read(const char *const *inputs, size_t count, const sw_documents_options *options, sw_documents *out, sw_stems **stems,
                      sw_documents_facts *facts);
void sw_documents_close(sw_documents *documents);

/* Keeps the words that stand in at least no_below and at most the part no_above of the documents that are not held out, of these the `keep` that
 * stand in the most (those in equally many by their bytes), and makes them the documents' ids: vocab[id], [UNK] first. free() *vocab; its texts
 * belong to `stems`. Fails where no word is left. */
int sw_documents_filter(sw_documents *documents, sw_stems *stems, size_t no_below, double no_above, size_t keep, const char ***vocab, size_t *count);

/* Bags of words: what the documents' likelihood depends on. Word w of a bag is id w + 1 of the dictionary. */
typedef struct {
  int64_t documents, longest; /* longest: distinct words of one at most */
  int64_t *starts;            /* [documents + 1] */
  int32_t *words;             /* each document's distinct words, ascending */
  float *counts;
  double tokens; /* sum of counts */
} sw_bags;

/* The bags of documents order[i], i < count. */
int sw_bags_make(const sw_documents *documents, const uint32_t *order, size_t count, sw_bags *out);
void sw_bags_close(sw_bags *bags);
/* Sorts the ids of a document, without those that are 0; returns how many are left. */
size_t sw_bag_sort(int32_t *ids, size_t count);
/* The distinct words and counts of sorted ids: words, counts [count]; returns how many there are. */
size_t sw_bag_of(const int32_t *ids, size_t count, int32_t *words, float *counts);
#endif
