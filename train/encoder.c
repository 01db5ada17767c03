#include "train/encoder.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sw_encoder_open(sw_encoder *e, const sw_tokenizer *tokenizer, int max_length, const char *prefix) {
  *e = (sw_encoder){.tokenizer = tokenizer, .prefix = prefix, .special = sw_tokenizer_special_ids(tokenizer), .max_length = max_length,
                    .ids = sw_alloc_array((size_t)max_length, sizeof *e->ids)};
  return e->ids ? 0 : -1;
}

void sw_encoder_close(sw_encoder *e) {
  sw_encoding_close(&e->encoding);
  sw_buffer_close(&e->text);
  free(e->ids);
}

int sw_encoder_run(sw_encoder *e, const char *text, size_t bytes, int32_t *length) {
  if (*e->prefix) {
    sw_buffer_clear(&e->text);
    if (sw_buffer_append(&e->text, e->prefix, strlen(e->prefix)) || sw_buffer_append(&e->text, text, bytes)) return -1;
    text = e->text.data;
    bytes = e->text.size;
  }
  if (sw_tokenizer_encode(e->tokenizer, text, bytes, &e->encoding)) return -1;
  const size_t room = (size_t)e->max_length - 2, count = e->encoding.count < room ? e->encoding.count : room;
  e->texts += count > 0;
  e->truncated += e->encoding.count > room;
  e->ids[0] = e->special.cls;
  if (count) memcpy(e->ids + 1, e->encoding.ids, count * sizeof *e->ids);
  e->ids[count + 1] = e->special.sep;
  *length = (int32_t)count + 2;
  return 0;
}

void sw_encoder_report(const sw_encoder *e) {
  const char *were = e->truncated == 1 ? "was" : "were";
  if (e->truncated)
    fprintf(stderr, "%llu of %llu texts %s longer than %d tokens and %s cut\n", (unsigned long long)e->truncated, (unsigned long long)e->texts, were,
            e->max_length, were);
}

int sw_encoder_length(const sw_model_config *config, const char *base, int wanted, int limit, int *out) {
  if (config->max_seq_length < 3) return sw_fail("%s: max_seq_length %d leaves no room for text", base, config->max_seq_length);
  if (wanted > limit) return sw_fail("--max-length %d: %s takes at most %d tokens of a text", wanted, base, limit);
  *out = wanted ? wanted : config->max_seq_length;
  return 0;
}
