/* English words as stems: lower-cased runs of letters (letter_words.h), without stop words, cut down by a Snowball stemmer ("porter": Porter, "An algorithm
 * for suffix stripping", 1980). A vocabulary of the most frequent stems gives them ids; id 0 is for every other word.
 *
 * A word of more than SW_WORD_BYTES is unknown. */
#ifndef SW_TEXT_STEMS_H
#define SW_TEXT_STEMS_H
#include <stddef.h>
#include <stdint.h>

enum { SW_STEM_UNKNOWN = 0 };
#define SW_STEM_UNKNOWN_NAME "[UNK]"
#define SW_STEM_ALGORITHM "porter"
#define SW_STEM_NONE "none" /* words stay as they are, in lower case */
/* Articles, pronouns, prepositions, conjunctions, auxiliaries: words that say nothing of what a text is about. */
extern const char *const sw_stop_words[];
extern const size_t sw_num_stop_words;

/* Keeps its stemmer's state: one a thread. */
typedef struct sw_stems sw_stems;

/* vocab[i] is the stem of id i, vocab[0] SW_STEM_UNKNOWN_NAME; `count` 0: none yet, for sw_stems_count. Copies what it needs. Fails on an
 * algorithm that libstemmer lacks and on a stem that stands twice. */
int sw_stems_open(const char *algorithm, const char *const *stop_words, size_t num_stop_words, const char *const *vocab, const size_t *bytes,
                  size_t count, sw_stems **out);
void sw_stems_close(sw_stems *stems);

/* Without a vocabulary: counts the stems of a text. Fails on what is not UTF-8. */
int sw_stems_count(sw_stems *stems, const char *text, size_t bytes);
/* The unknown word and the stems counted at least `min_count` times, the most frequent first, equally frequent ones by their bytes, `limit`
 * entries at most. *vocab and its texts belong to `stems`. */
int sw_stems_vocabulary(sw_stems *stems, uint64_t min_count, size_t limit, const char *const **vocab, size_t *count);

/* Without a vocabulary: the numbers of a text's words, in order; each new stem gets the next one, from 1 on, 0 is a word that is too long. The
 * numbers are valid until the next call. */
int sw_stems_number(sw_stems *stems, const char *text, size_t bytes, const int32_t **numbers, size_t *count);
/* names[number]: the stems numbered so far, and SW_STEM_UNKNOWN_NAME; *names and its texts belong to `stems`. */
int sw_stems_names(sw_stems *stems, const char *const **names, size_t *count);

/* The ids of a text's first `limit` words, in order; a text without words is one unknown word. *truncated (may be NULL): 1 where there
 * are more. The ids are valid until the next call. */
int sw_stems_encode(sw_stems *stems, const char *text, size_t bytes, size_t limit, const int32_t **ids, size_t *count, int *truncated);
#endif
