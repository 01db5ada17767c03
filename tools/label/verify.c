#include "tools/label/verify.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sw_label_spans_close(sw_label_spans *s) {
  free(s->items);
  *s = (sw_label_spans){0};
}

void sw_verifier_close(sw_verifier *v) {
  sw_label_words_close(&v->named);
  sw_word_ranges_close(&v->places);
}

static int vote(sw_label_spans *s, sw_word_range place, int label, int source) {
  for (size_t i = 0; i < s->count; i++) {
    sw_label_span *old = &s->items[i];
    if (old->first != place.first || old->end != place.end || old->label != label) continue;
    old->votes += old->source != source;
    old->source = source;
    return 0;
  }
  if (s->count == s->capacity) {
    const size_t capacity = s->capacity ? 2 * s->capacity : 16;
    sw_label_span *items = sw_realloc_array(s->items, capacity, sizeof *items);
    if (!items) return -1;
    s->items = items;
    s->capacity = capacity;
  }
  s->items[s->count++] = (sw_label_span){place.first, place.end, label, 1, source};
  return 0;
}

static int same_mention(const sw_mention *a, const sw_mention *b) {
  return a->label == b->label && !a->occurrence && !b->occurrence && a->bytes == b->bytes && !memcmp(a->text, b->text, a->bytes);
}

int sw_verify(sw_verifier *v, const sw_label_words *sentence, const sw_mentions *mentions, const sw_label_names *labels, int source,
              sw_label_spans *spans, sw_mention_dropped *dropped, void *context) {
  int status = 0;
  char reason[96];
  for (size_t i = 0; i < mentions->count && !status; i++) {
    const sw_mention *m = &mentions->items[i];
    size_t turn = 0, times = 0; /* how often it is named, and which of these this one is */
    for (size_t k = 0; k < mentions->count && !m->occurrence; k++) {
      const int same = same_mention(m, &mentions->items[k]);
      times += (size_t)same;
      turn += (size_t)(same && k < i);
    }
    reason[0] = 0;
    if (m->label < 0) {
      snprintf(reason, sizeof reason, "has a label that was not asked for");
    } else if (sw_check_utf8(m->text, m->bytes)) {
      snprintf(reason, sizeof reason, "is not valid UTF-8");
    } else {
      if (sw_label_words_read(&v->named, m->text, m->bytes) || sw_label_words_find(sentence, &v->named, &v->places)) return -1;
      const size_t count = v->places.count, place = m->occurrence ? (size_t)m->occurrence - 1 : turn;
      if (!count)
        snprintf(reason, sizeof reason, "is not in the sentence");
      else if (m->occurrence && place >= count && count > 1)
        snprintf(reason, sizeof reason, "is not %d times in the sentence", m->occurrence);
      else if (m->occurrence || times > 1)
        status = place < count || m->occurrence ? vote(spans, v->places.items[place < count ? place : 0], m->label, source) : 0;
      else
        for (size_t k = 0; k < count && !status; k++) status = vote(spans, v->places.items[k], m->label, source);
    }
    if (reason[0]) status = dropped(context, m, reason);
  }
  return status;
}

static int by_worth(const void *a, const void *b) {
  const sw_label_span *x = a, *y = b;
  const uint32_t n = x->end - x->first, m = y->end - y->first;
  if (x->votes != y->votes) return y->votes - x->votes;
  if (n != m) return n < m ? 1 : -1;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  return x->label - y->label;
}

static int by_place(const void *a, const void *b) {
  const sw_label_span *x = a, *y = b;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return x->label - y->label;
}

void sw_settle(sw_label_spans *s, int answers, double *weight) {
  double sum = 0;
  const size_t named = s->count;
  size_t kept = 0;
  if (named) qsort(s->items, named, sizeof *s->items, by_worth);
  for (size_t i = 0; i < named; i++) {
    const sw_label_span span = s->items[i];
    const double share = (double)span.votes / answers;
    sum += share > 0.5 ? share : 1 - share;
    int keeps = share > 0.5;
    for (size_t k = 0; k < kept && keeps; k++)
      keeps = s->items[k].label != span.label || s->items[k].end <= span.first || span.end <= s->items[k].first;
    if (keeps) s->items[kept++] = span;
  }
  s->count = kept;
  if (kept) qsort(s->items, kept, sizeof *s->items, by_place);
  *weight = named ? sum / (double)named : 1;
}
