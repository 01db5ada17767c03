#include "engine/text/stems.h"
#include "base/error.h"
#include "base/table.h"
#include "engine/text/letter_words.h"
#include "engine/text/unicode.h"

#include <libstemmer.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
const char *const sw_stop_words[] = {
    "a", "about", "above", "across", "after", "again", "against", "all", "along", "already", "also", "although", "always", "am", "among", "an",
    "and", "another", "any", "anybody", "anyone", "anything", "are", "aren", "around", "as", "at", "away", "be", "became", "because", "become",
    "becomes", "been", "before", "behind", "being", "below", "beneath", "beside", "besides", "between", "beyond", "both", "but", "by", "came",
    "can", "cannot", "come", "could", "couldn", "d", "despite", "did", "didn", "do", "does", "doesn", "doing", "don", "done", "down", "due",
    "during", "each", "eg", "either", "else", "elsewhere", "enough", "etc", "even", "ever", "every", "everybody", "everyone", "everything",
    "except", "few", "for", "from", "further", "furthermore", "gave", "get", "gets", "give", "given", "go", "goes", "got", "had", "has", "hasn",
    "have", "haven", "having", "he", "hence", "her", "here", "hers", "herself", "him", "himself", "his", "how", "however", "i", "ie", "if", "in",
    "inside", "instead", "into", "is", "isn", "it", "its", "itself", "just", "later", "least", "less", "like", "ll", "m", "made", "make", "many",
    "may", "me", "meanwhile", "might", "mine", "more", "moreover", "most", "mostly", "much", "must", "my", "myself", "namely", "near", "neither",
    "never", "nevertheless", "next", "no", "nobody", "none", "nor", "not", "nothing", "now", "of", "off", "often", "on", "once", "only", "onto",
    "or", "other", "others", "otherwise", "ought", "our", "ours", "ourselves", "out", "over", "own", "per", "perhaps", "please", "put", "quite",
    "rather", "re", "s", "same", "see", "seem", "seemed", "seems", "several", "shall", "she", "should", "shouldn", "since", "so", "some",
    "somebody", "somehow", "someone", "something", "sometimes", "somewhere", "still", "such", "t", "take", "than", "that", "the", "their",
    "theirs", "them", "themselves", "then", "thence", "there", "thereby", "therefore", "these", "they", "thing", "things", "this", "those",
    "though", "through", "throughout", "thus", "to", "together", "too", "toward", "towards", "under", "unless", "until", "up", "upon", "us",
    "ve", "very", "via", "was", "wasn", "we", "well", "were", "weren", "what", "whatever", "when", "whenever", "where", "whereas", "wherever",
    "whether", "which", "whichever", "while", "who", "whoever", "whom", "whose", "why", "will", "with", "within", "without", "won", "would",
    "wouldn", "yet", "you", "your", "yours", "yourself", "yourselves"};
/* clang-format on */
const size_t sw_num_stop_words = sizeof sw_stop_words / sizeof *sw_stop_words;

struct sw_stems {
  struct sb_stemmer *stemmer; /* NULL: none */
  sw_table stop_words;
  sw_table stems;      /* their numbers are ids; 0: the empty stem, which stands for the unknown word */
  uint64_t *counts;    /* [num_counts], of sw_stems_count */
  size_t num_counts;
  int32_t *ids;
  size_t count, capacity;
  const char **vocab; /* of sw_stems_vocabulary and sw_stems_names */
};

void sw_stems_close(sw_stems *s) {
  if (!s) return;
  if (s->stemmer) sb_stemmer_delete(s->stemmer);
  sw_table_close(&s->stop_words);
  sw_table_close(&s->stems);
  free(s->counts);
  free(s->ids);
  free(s->vocab);
  free(s);
}

static int open_stems(sw_stems *s, const char *algorithm, const char *const *stop_words, size_t num_stop_words, const char *const *vocab,
                      const size_t *bytes, size_t count) {
  if (strcmp(algorithm, SW_STEM_NONE) && !(s->stemmer = sb_stemmer_new(algorithm, "UTF_8"))) return sw_fail("libstemmer has no stemmer '%s'", algorithm);
  for (size_t i = 0; i < num_stop_words; i++)
    if (sw_table_add(&s->stop_words, stop_words[i]) < 0) return -1;
  if (count && strcmp(vocab[0], SW_STEM_UNKNOWN_NAME)) return sw_fail("the first stem of the vocabulary is not %s", SW_STEM_UNKNOWN_NAME);
  if (sw_table_add(&s->stems, "") < 0) return -1;
  for (size_t i = 1; i < count; i++) {
    char *stem = sw_strndup(vocab[i], bytes ? bytes[i] : strlen(vocab[i]));
    const int64_t number = stem ? sw_table_add(&s->stems, stem) : -1;
    if (number >= 0 && number < (int64_t)i) sw_fail("the stem '%s' stands twice in the vocabulary", stem);
    free(stem);
    if (number != (int64_t)i) return -1;
  }
  return sw_unicode_open();
}

int sw_stems_open(const char *algorithm, const char *const *stop_words, size_t num_stop_words, const char *const *vocab, const size_t *bytes,
                  size_t count, sw_stems **out) {
  *out = NULL;
  sw_stems *s = sw_alloc(sizeof *s);
  if (!s) return -1;
  if (open_stems(s, algorithm, stop_words, num_stop_words, vocab, bytes, count)) {
    sw_stems_close(s);
    return -1;
  }
  *out = s;
  return 0;
}

/* The next word that is no stop word, as a stem: it is valid until the next call, and empty where the word is too long. 0: the end; -1: failure */
static int next_stem(sw_stems *s, sw_words *w, const char **stem, size_t *bytes) {
  int status;
  *stem = "";
  *bytes = 0;
  while ((status = sw_words_next(w)) > 0) {
    if (w->bytes > SW_WORD_BYTES) return 1;
    if (sw_table_find(&s->stop_words, w->word) >= 0) continue;
    *stem = w->word;
    *bytes = w->bytes;
    if (!s->stemmer) return 1;
    *stem = (const char *)sb_stemmer_stem(s->stemmer, (const sb_symbol *)w->word, (int)w->bytes);
    if (!*stem) return sw_fail_memory("libstemmer wanted some");
    *bytes = (size_t)sb_stemmer_length(s->stemmer);
    return 1;
  }
  return status;
}

/* A count for every stem. */
static int grow_counts(sw_stems *s) {
  if (s->stems.count <= s->num_counts) return 0;
  const size_t larger = 2 * s->stems.count;
  uint64_t *counts = sw_realloc_array(s->counts, larger, sizeof *counts);
  if (!counts) return -1;
  memset(counts + s->num_counts, 0, (larger - s->num_counts) * sizeof *counts);
  s->counts = counts;
  s->num_counts = larger;
  return 0;
}

int sw_stems_count(sw_stems *s, const char *text, size_t bytes) {
  sw_words w = sw_words_of(text, bytes);
  const char *stem;
  size_t length;
  int status;
  while ((status = next_stem(s, &w, &stem, &length)) > 0) {
    if (!length) continue;
    const int64_t number = sw_table_add(&s->stems, stem);
    if (number < 0 || grow_counts(s)) return -1;
    s->counts[number]++;
  }
  return status;
}

typedef struct {
  const char *stem;
  uint64_t count;
} counted;
static int by_frequency(const void *a, const void *b) {
  const counted *x = a, *y = b;
  return x->count != y->count ? (x->count > y->count ? -1 : 1) : strcmp(x->stem, y->stem);
}

int sw_stems_vocabulary(sw_stems *s, uint64_t min_count, size_t limit, const char *const **vocab, size_t *count) {
  size_t found = 0;
  counted *kept = sw_alloc_array(s->stems.count, sizeof *kept);
  free(s->vocab);
  s->vocab = sw_alloc_array(s->stems.count, sizeof *s->vocab);
  if (!kept || !s->vocab || grow_counts(s)) {
    free(kept);
    return -1;
  }
  for (size_t i = 1; i < s->stems.count; i++)
    if (s->counts[i] && s->counts[i] >= min_count) kept[found++] = (counted){s->stems.keys[i], s->counts[i]};
  qsort(kept, found, sizeof *kept, by_frequency);
  s->vocab[0] = SW_STEM_UNKNOWN_NAME;
  *count = 1;
  for (size_t i = 0; i < found && *count < limit; i++) s->vocab[(*count)++] = kept[i].stem;
  free(kept);
  *vocab = s->vocab;
  return 0;
}

static int add_id(sw_stems *s, int32_t id) {
  if (s->count == s->capacity) {
    const size_t larger = 2 * s->capacity + 64;
    int32_t *ids = sw_realloc_array(s->ids, larger, sizeof *ids);
    if (!ids) return -1;
    s->ids = ids;
    s->capacity = larger;
  }
  s->ids[s->count++] = id;
  return 0;
}

int sw_stems_encode(sw_stems *s, const char *text, size_t bytes, size_t limit, const int32_t **ids, size_t *count, int *truncated) {
  sw_words w = sw_words_of(text, bytes);
  const char *stem;
  size_t length;
  int status, more = 0;
  s->count = 0;
  while (!more && (status = next_stem(s, &w, &stem, &length)) != 0) {
    if (status < 0) return -1;
    more = s->count == limit;
    const int64_t known = more ? -1 : sw_table_find(&s->stems, stem);
    if (!more && add_id(s, known < 0 ? SW_STEM_UNKNOWN : (int32_t)known)) return -1;
  }
  if (!s->count && add_id(s, SW_STEM_UNKNOWN)) return -1;
  if (truncated) *truncated = more;
  *ids = s->ids;
  *count = s->count;
  return 0;
}

int sw_stems_number(sw_stems *s, const char *text, size_t bytes, const int32_t **numbers, size_t *count) {
  sw_words w = sw_words_of(text, bytes);
  const char *stem;
  size_t length;
  int status;
  s->count = 0;
  while ((status = next_stem(s, &w, &stem, &length)) > 0) {
    const int64_t number = sw_table_add(&s->stems, stem);
    if (number < 0 || add_id(s, (int32_t)number)) return -1;
  }
  *numbers = s->ids;
  *count = s->count;
  return status;
}

int sw_stems_names(sw_stems *s, const char *const **names, size_t *count) {
  free(s->vocab);
  if (!(s->vocab = sw_alloc_array(s->stems.count, sizeof *s->vocab))) return -1;
  for (size_t i = 1; i < s->stems.count; i++) s->vocab[i] = s->stems.keys[i];
  s->vocab[0] = SW_STEM_UNKNOWN_NAME;
  *names = s->vocab;
  *count = s->stems.count;
  return 0;
}
