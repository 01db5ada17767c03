/* What a model answered, read with patience: JSON as asked for, JSON among other text or in a code fence, with commas too many or single quotes, in
 * one of the shapes that models fall into; tagged text (@@skill##, <skill>...</skill>); words with B/I/O tags.
 *   {"spans": [{"text", "label", "occurrence"}]}   also "skills", "entities", "mentions", "items", "results"; an array alone; strings alone
 *   {"knowledge": ["Rust"], "skill": [...]}        keys that are labels
 *   {"tokens": [...], "tags_<label>": ["B", ...]}  also "tags" where there is one label
 *   We use @@Rust## daily.  We use <knowledge>Rust</knowledge> daily. */
#ifndef SW_LABEL_ANSWER_H
#define SW_LABEL_ANSWER_H
#include "tools/label/words.h"

enum { SW_MAX_LABELS = 32, SW_MAX_MENTIONS = 1000, SW_REASON = 240 };

typedef struct {
  int count;
  char *names[SW_MAX_LABELS]; /* owned */
} sw_label_names;

typedef struct {
  char *text; /* owned */
  size_t bytes;
  int label;      /* index into the names; -1: the answer says none of them */
  int occurrence; /* which of its places in the sentence, from 1; 0: not said */
} sw_mention;

typedef struct {
  size_t count, capacity;
  sw_mention *items; /* owned */
} sw_mentions;
void sw_mentions_close(sw_mentions *mentions);

/* Empties `out` first. `sentence`: what was asked about; an answer that is it, without a tag, names nothing. 0; 1: the answer makes no sense, and
 * `reason` says why; -1: failure. */
int sw_answer_read(const char *answer, size_t bytes, const char *sentence, size_t sentence_bytes, const sw_label_names *labels, sw_mentions *out,
                   char reason[SW_REASON]);

/* The list of strings at `text`, as JSON or Python writes it: ["a"] or ['a', "it's"]; a new reference, NULL where there is none. */
struct json_t *sw_answer_list(const char *text, size_t bytes);
#endif
