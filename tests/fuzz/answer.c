/* Any bytes as the answer of a chat model: no crash, and the spans that come of it are words of the sentence that do not overlap within a label. The
 * input's first line is the sentence where it is valid UTF-8. */
#include "tools/label/verify.h"

#include <stdlib.h>
#include <string.h>

static int dropped(void *context, const sw_mention *mention, const char *reason) {
  if (!reason[0] || sw_check_utf8(reason, strlen(reason))) abort();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char usual[] = "We use Rust, C++ and more Rust.";
  static const sw_label_names labels = {.count = 2, .names = {"knowledge", "skill"}};
  const char *text = (const char *)data, *line = size ? memchr(data, '\n', size) : NULL, *sentence = usual;
  size_t bytes = sizeof usual - 1;
  if (line && line > text && line - text < 2000 && !sw_check_utf8(text, (size_t)(line - text))) {
    sentence = text;
    bytes = (size_t)(line - text);
    size -= bytes + 1;
    text = line + 1;
  }
  sw_label_words words = {0};
  sw_mentions mentions = {0};
  sw_label_spans spans = {0};
  sw_verifier verifier = {0};
  char reason[SW_REASON];
  double weight;
  if (sw_label_words_read(&words, sentence, bytes)) abort();
  const int status = sw_answer_read(text, size, sentence, bytes, &labels, &mentions, reason);
  if (status < 0 || mentions.count > SW_MAX_MENTIONS || (status > 0 && !reason[0])) abort();
  if (status == 0) {
    if (sw_verify(&verifier, &words, &mentions, &labels, 0, &spans, dropped, NULL)) abort();
    sw_settle(&spans, 1, &weight);
    if (!(weight > 0 && weight <= 1)) abort();
    for (size_t i = 0; i < spans.count; i++) {
      const sw_label_span *s = &spans.items[i];
      if (s->first >= s->end || s->end > words.words.count || s->label < 0 || s->label >= labels.count) abort();
      for (size_t k = 0; k < i; k++)
        if (spans.items[k].label == s->label && spans.items[k].end > s->first) abort();
    }
  }
  sw_verifier_close(&verifier);
  sw_label_spans_close(&spans);
  sw_mentions_close(&mentions);
  sw_label_words_close(&words);
  return 0;
}
