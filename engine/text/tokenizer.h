/* WordPiece as Hugging Face's `tokenizers` does it for BERT: the same ids and the same offsets.
 * Devlin et al., "BERT", 2018; behaviour follows BertNormalizer, BertPreTokenizer and WordPiece of tokenizers 0.23.
 * The offsets are those of its alignments: a token begins at the first and ends after the last character of the text
 * that any of its characters came from; characters that normalisation removed lie in a token only where it goes on
 * after them. */
#ifndef SW_TEXT_TOKENIZER_H
#define SW_TEXT_TOKENIZER_H
#include <stddef.h>
#include <stdint.h>

typedef struct sw_tokenizer sw_tokenizer;

typedef struct {
  int do_lower_case;          /* 1 for uncased vocabularies */
  int strip_accents;          /* 0, 1, or -1: as do_lower_case (Hugging Face's null) */
  int tokenize_chinese_chars; /* 1: spaces around CJK characters */
  int clean_text;             /* 1: control characters removed, white space unified */
  int max_chars_per_word;     /* 100: a longer word becomes [UNK] (characters after normalisation); 1 to 65536 */
  int model_max_length;       /* the tokenizer's own limit incl. special tokens; 0 = not given */
} sw_tokenizer_options;
#define SW_TOKENIZER_DEFAULTS ((sw_tokenizer_options){1, -1, 1, 1, 100, 0})

/* The encoding of one text; memory is kept between calls. Zero-initialise before the first call.
 * Keep one a thread and use it for many texts: the scratch remembers the words it met (up to 1 MB of them). */
typedef struct {
  size_t count, capacity;
  int32_t *ids;
  int32_t *start, *end; /* half-open offsets into the text, in Unicode code points */
  void *scratch;        /* the tokenizer's own */
} sw_encoding;

/* `vocab[i]` is the text of id i (need not be NUL-terminated: bytes[i] long). Copies what it needs.
 * Fails when [UNK], [CLS], [SEP] or [PAD] is missing, a token appears twice, or one is not UTF-8 or has a NUL byte. */
int sw_tokenizer_open(const char *const *vocab, const size_t *bytes, size_t count, const sw_tokenizer_options *options,
                      sw_tokenizer **out);
void sw_tokenizer_close(sw_tokenizer *tokenizer);

/* Encodes UTF-8 `text` without adding special tokens; those written in the text are recognised, as Hugging Face does.
 * Invalid UTF-8 is a failure that names the byte, and so is a text of 2 GB; `out` then holds no token. A NUL byte is a
 * control character. Thread-safe: the tokenizer is constant, the encoding is the caller's. */
int sw_tokenizer_encode(const sw_tokenizer *tokenizer, const char *text, size_t bytes, sw_encoding *out);
void sw_encoding_close(sw_encoding *encoding);

typedef struct {
  int32_t unk, cls, sep, pad, mask; /* mask is -1 where the vocabulary has none */
} sw_special_ids;
sw_special_ids sw_tokenizer_special_ids(const sw_tokenizer *tokenizer);
size_t sw_tokenizer_vocab_size(const sw_tokenizer *tokenizer);
/* The token's text and its length; NULL for an id outside the vocabulary. */
const char *sw_tokenizer_token(const sw_tokenizer *tokenizer, int32_t id, size_t *bytes);
/* 1 for a token that goes on within a word: "##ing". */
int sw_tokenizer_continues(const sw_tokenizer *tokenizer, int32_t id);
const sw_tokenizer_options *sw_tokenizer_get_options(const sw_tokenizer *tokenizer);
#endif
