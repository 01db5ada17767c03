/* Labelled sentences as rows: spans, WordPiece tokens with tags, and what Label Studio and doccano import. */
#ifndef SW_LABEL_WRITE_H
#define SW_LABEL_WRITE_H
#include "engine/text/tokenizer.h"
#include "tools/label/sentences.h"
#include "tools/label/verify.h"

typedef enum { SW_WRITE_SPANS, SW_WRITE_TOKENS, SW_WRITE_LABEL_STUDIO, SW_WRITE_DOCCANO } sw_write_form;

typedef struct {
  sw_write_form form;
  const sw_label_names *labels;
  const sw_tokenizer *tokenizer; /* of SW_WRITE_TOKENS */
  const char *model;             /* what made the labels; NULL: nothing did */
  sw_encoding encoding;          /* scratch */
  uint64_t rows;
} sw_row_writer;

/* Replaces `out` by a row, with what comes before it in a list of rows; `words` are the sentence's, spans sorted. */
int sw_row_print(sw_row_writer *writer, const sw_sentence *sentence, const sw_label_words *words, const sw_label_spans *spans, double weight, int answers, sw_buffer *out);
/* What follows the last row: "]\n" for Label Studio. */
const char *sw_row_end(const sw_row_writer *writer);
void sw_row_writer_close(sw_row_writer *writer);
#endif
