#include "tools/label/sentences.h"

#include <string.h>

int sw_sentences_open(const char *const *inputs, size_t count, const sw_postings_options *options, int whole, sw_sentences *out) {
  *out = (sw_sentences){.whole = whole};
  return sw_postings_open(inputs, count, options, &out->postings);
}

/* White space around a text is none of the sentence; where one text is one sentence, its line breaks stay. */
static int take_whole(sw_sentences *s) {
  const char *text = s->posting.text;
  size_t from = 0, to = s->posting.bytes;
  while (from < to && strchr(" \t\r\n", text[from])) from++;
  while (to > from && strchr(" \t\r\n", text[to - 1])) to--;
  s->spans.count = 0;
  return from == to ? 0 : sw_spans_append(&s->spans, (sw_span){(uint32_t)from, (uint32_t)to, 0, 0});
}

int sw_sentences_next(sw_sentences *s, sw_sentence *out) {
  while (!s->open || s->next == s->spans.count) {
    if (s->open) sw_posting_close(&s->posting);
    s->open = 0;
    const int more = sw_postings_next(s->postings, &s->posting);
    if (more <= 0) return more;
    s->open = 1;
    s->next = 0;
    if (s->whole ? take_whole(s) : sw_split_sentences(s->posting.text, s->posting.bytes, &s->spans)) return -1;
  }
  const sw_span *span = &s->spans.items[s->next++];
  *out = (sw_sentence){s->posting.text + span->byte_start, span->byte_end - span->byte_start, s->posting.id, s->posting.date, s->next};
  return 1;
}

int sw_sentences_close(sw_sentences *s) {
  if (s->open) sw_posting_close(&s->posting);
  sw_spans_close(&s->spans);
  int status = s->postings ? sw_postings_close(s->postings) : 0;
  *s = (sw_sentences){0};
  return status;
}
