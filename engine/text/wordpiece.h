/* What the two halves of the tokenizer share: tokenizer.c builds it, encode.c reads it. */
#ifndef SW_TEXT_WORDPIECE_H
#define SW_TEXT_WORDPIECE_H
#include "engine/text/tokenizer.h"
#include "engine/text/trie.h"

/* What a byte does where a word may begin or end. */
typedef enum {
  SW_BYTE_OTHER, /* not ASCII, or a control character: the text around it needs normalisation */
  SW_BYTE_WORD,  /* an ASCII letter or digit */
  SW_BYTE_SPACE,
  SW_BYTE_ALONE, /* ASCII punctuation: a word of its own */
} sw_byte_class;

enum { SW_SPECIAL_TOKENS = 5, SW_MAX_CHARS_PER_WORD = 1 << 16 };

struct sw_tokenizer {
  sw_tokenizer_options options; /* as given */
  int strip_accents;            /* as it follows from them */
  uint64_t serial;              /* tells a scratch whose words it remembers */
  char *text;                   /* all tokens one after another */
  size_t *offset;               /* [count + 1] into text */
  size_t count;
  sw_special_ids special;
  const char *special_text[SW_SPECIAL_TOKENS]; /* those that the vocabulary has; all begin with '[' */
  int32_t special_id[SW_SPECIAL_TOKENS];
  int special_count;
  sw_trie trie;
  uint32_t inside; /* the trie's node of "##", where the search inside a word starts; SW_TRIE_NONE: there is none */
  uint8_t byte_class[256]; /* sw_byte_class */
  int32_t alone_id[128];   /* the id of an ASCII punctuation character */
};
#endif
