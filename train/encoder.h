/* Texts to token ids as `infer embed` reads them: a prefix and the text between [CLS] and [SEP], cut at the longest that the model reads. */
#ifndef SW_TRAIN_ENCODER_H
#define SW_TRAIN_ENCODER_H
#include "base/buffer.h"
#include "engine/model/model.h"

typedef struct {
  const sw_tokenizer *tokenizer; /* borrowed, as prefix */
  const char *prefix;
  sw_special_ids special;
  int max_length; /* tokens, with [CLS] and [SEP] */
  sw_encoding encoding;
  sw_buffer text;
  int32_t *ids; /* [max_length] of the last text */
  uint64_t texts, truncated; /* of those with tokens */
} sw_encoder;

/* Close it in any case. */
int sw_encoder_open(sw_encoder *encoder, const sw_tokenizer *tokenizer, int max_length, const char *prefix);
void sw_encoder_close(sw_encoder *encoder);
/* Sets encoder->ids and *length, which is 2 where the text has no tokens. */
int sw_encoder_run(sw_encoder *encoder, const char *text, size_t bytes, int32_t *length);
/* "3 of 9 texts were longer than 64 tokens and were cut", a line on standard error; nothing where none was. */
void sw_encoder_report(const sw_encoder *encoder);
/* How long texts may be: `wanted` (--max-length), or the model's max_seq_length where it is 0; at most `limit`. */
int sw_encoder_length(const sw_model_config *config, const char *base, int wanted, int limit, int *out);
#endif
