/* What was asked and answered: a journal beside the output, so that nothing is paid for twice after a crash, and a folder of answers that runs share.
 * Questions are known by their key (prompt.h): a changed input or option loses no answer that still fits. */
#ifndef SW_LABEL_BOOK_H
#define SW_LABEL_BOOK_H
#include "engine/store/journal.h"
#include "tools/label/ask.h"

/* BEFORE: an earlier run set it aside; AGAIN: the same, and the inputs still hold it. */
typedef enum { SW_BOOK_UNKNOWN, SW_BOOK_UNDER_WAY, SW_BOOK_BEFORE, SW_BOOK_AGAIN, SW_BOOK_ANSWERED, SW_BOOK_SET_ASIDE } sw_book_state;

typedef struct {
  sw_journal journal;
  const char *cache; /* folder; NULL: none */
  struct sw_book_entry {
    uint64_t key[2]; /* of the key's 256 bits */
    uint64_t at;     /* 0: empty; a state or a place in the journal */
  } *entries;
  size_t count, num_slots;
  uint64_t tokens_in, tokens_out; /* billed, with earlier runs' */
  uint64_t answered, cached;      /* answers of this output: asked for, and taken from the cache */
  uint64_t estimated;             /* answers whose bill the server did not say */
} sw_book;

/* `resume` 0: what an earlier run left is thrown away at the first answer. `output` NULL: no journal, for a look around. */
int sw_book_open(const char *output, const char *cache, int resume, sw_book *out);
/* What is known of a question. */
sw_book_state sw_book_find(const sw_book *book, const char key[65]);
/* As unknown, under way, or to be asked again. */
int sw_book_mark(sw_book *book, const char key[65], sw_book_state state);
/* Writes a reply down (journal, then cache). */
int sw_book_put(sw_book *book, const char key[65], const sw_reply *reply);
/* 1: the cache had an answer, which is in the journal now; 0: it has none that can be read; -1. */
int sw_book_fetch(sw_book *book, const char key[65]);
int sw_book_is_cached(const sw_book *book, const char key[65]);
/* The answer, or the reason why there is none. */
int sw_book_read(sw_book *book, const char key[65], sw_buffer *out);
/* `done`: the output is written, the journal goes away. */
void sw_book_close(sw_book *book, int done);
#endif
