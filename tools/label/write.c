#include "tools/label/write.h"
#include "base/error.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicode/utf8.h>

/* JavaScript counts UTF-16 units. */
static json_int_t units(const char *text, uint32_t byte_end) {
  json_int_t n = 0;
  for (int32_t i = 0; i < (int32_t)byte_end;) {
    UChar32 c;
    U8_NEXT((const uint8_t *)text, i, (int32_t)byte_end, c);
    n += c > 0xFFFF ? 2 : 1;
  }
  return n;
}

typedef struct {
  const char *text, *label;
  size_t bytes;
  const sw_span *first, *last; /* words */
} piece;

static piece piece_of(const sw_row_writer *w, const sw_label_words *words, const sw_label_span *s) {
  const sw_span *first = &words->words.items[s->first], *last = &words->words.items[s->end - 1];
  return (piece){words->text + first->byte_start, w->labels->names[s->label], last->byte_end - first->byte_start, first, last};
}

static json_t *spans_of(const sw_row_writer *w, const sw_label_words *words, const sw_label_spans *spans, int answers) {
  json_t *list = json_array();
  for (size_t i = 0; i < spans->count; i++) {
    const piece p = piece_of(w, words, &spans->items[i]);
    const double share = (double)spans->items[i].votes / answers;
    json_t *item = NULL;
    if (w->form == SW_WRITE_DOCCANO)
      item = json_pack("[iis]", (int)p.first->start, (int)p.last->end, p.label);
    else if (w->form == SW_WRITE_LABEL_STUDIO)
      item = json_pack("{s:s,s:s,s:s,s:f,s:{s:I,s:I,s:s%,s:[s]}}", "from_name", "label", "to_name", "text", "type", "labels", "score", share, "value", "start",
                       units(words->text, p.first->byte_start), "end", units(words->text, p.last->byte_end), "text", p.text, p.bytes, "labels", p.label);
    else
      item = json_pack("{s:i,s:i,s:s,s:s%}", "start", (int)p.first->start, "end", (int)p.last->end, "label", p.label, "text", p.text, p.bytes);
    if (item && answers > 1 && w->form == SW_WRITE_SPANS) json_object_set_new(item, "weight", json_real(share));
    json_array_append_new(list, item);
  }
  return list;
}

/* A token's text; of one that the vocabulary lacks what stands in the sentence. */
static json_t *token_of(const sw_row_writer *w, size_t i, const char *word, size_t bytes) {
  size_t length;
  const char *text = sw_tokenizer_token(w->tokenizer, w->encoding.ids[i], &length);
  return w->encoding.ids[i] == sw_tokenizer_special_ids(w->tokenizer).unk ? json_stringn(word, bytes) : json_stringn(text, length);
}

static json_t *tokens_of(sw_row_writer *w, const sw_label_words *words, const sw_label_spans *spans) {
  json_t *tokens = json_array(), *row = json_pack("{s:o}", "tokens", tokens), *tags[SW_MAX_LABELS];
  char name[256];
  for (int l = 0; l < w->labels->count; l++) {
    snprintf(name, sizeof name, "tags_%.200s", w->labels->names[l]);
    for (char *c = name; *c; c++) *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c; /* as the layer of spans with this label is called */
    json_object_set_new(row, name, tags[l] = json_array());
  }
  for (size_t i = 0; i < words->words.count; i++) {
    const sw_span *word = &words->words.items[i];
    const char *kind[SW_MAX_LABELS], *text = words->text + word->byte_start;
    for (int l = 0; l < w->labels->count; l++) kind[l] = "O";
    for (size_t k = 0; k < spans->count; k++)
      if (spans->items[k].first <= i && i < spans->items[k].end) kind[spans->items[k].label] = spans->items[k].first == i ? "B" : "I";
    if (sw_tokenizer_encode(w->tokenizer, text, word->byte_end - word->byte_start, &w->encoding)) {
      json_decref(row);
      return NULL;
    }
    for (size_t t = 0; t < w->encoding.count; t++) {
      json_array_append_new(tokens, token_of(w, t, text, word->byte_end - word->byte_start));
      for (int l = 0; l < w->labels->count; l++) json_array_append_new(tags[l], json_string(t && kind[l][0] == 'B' ? "I" : kind[l]));
    }
  }
  return row;
}

static json_t *make_row(sw_row_writer *w, const sw_sentence *s, const sw_label_words *words, const sw_label_spans *spans, double weight, int answers) {
  sw_buffer source = {0};
  if (sw_buffer_print(&source, "%s#%zu", s->posting, s->number)) return NULL;
  json_t *row = NULL, *list = w->form == SW_WRITE_TOKENS ? NULL : spans_of(w, words, spans, answers);
  switch (w->form) {
  case SW_WRITE_TOKENS:
    row = tokens_of(w, words, spans);
    break;
  case SW_WRITE_SPANS:
    row = json_pack("{s:s%,s:o}", "text", s->text, s->bytes, "spans", list);
    break;
  case SW_WRITE_DOCCANO:
    row = json_pack("{s:s%,s:o}", "text", s->text, s->bytes, "label", list);
    break;
  case SW_WRITE_LABEL_STUDIO:
    row = json_pack("{s:{s:s%,s:s},s:[{s:s,s:f,s:o}]}", "data", "text", s->text, s->bytes, "source", source.data, "predictions", "model_version",
                     w->model ? w->model : "none", "score", weight, "result", list);
    break;
  }
  if (row && w->form != SW_WRITE_LABEL_STUDIO) json_object_set_new(row, "source", json_string(source.data));
  if (row && w->form < SW_WRITE_LABEL_STUDIO) json_object_set_new(row, "weight", json_real(weight));
  sw_buffer_close(&source);
  return row;
}

int sw_row_print(sw_row_writer *w, const sw_sentence *s, const sw_label_words *words, const sw_label_spans *spans, double weight, int answers, sw_buffer *out) {
  const int list = w->form == SW_WRITE_LABEL_STUDIO;
  json_t *row = make_row(w, s, words, spans, weight, answers);
  char *text = row ? json_dumps(row, JSON_REAL_PRECISION(6)) : NULL;
  json_decref(row);
  sw_buffer_clear(out);
  int status = text ? sw_buffer_print(out, "%s%s%s", list ? w->rows ? ",\n" : "[\n" : "", text, list ? "" : "\n") : row ? sw_fail("out of memory") : -1;
  free(text);
  w->rows += !status;
  return status;
}

const char *sw_row_end(const sw_row_writer *w) { return w->form != SW_WRITE_LABEL_STUDIO ? "" : w->rows ? "\n]\n" : "[]\n"; }

void sw_row_writer_close(sw_row_writer *w) { sw_encoding_close(&w->encoding); }
