/* Any bytes as labelled data in any format: no crash, and what is read is valid BIO over words that lie in their text.
 */
#include "engine/data/labels.h"
#include "tests/fuzz/memory_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  int fd = memory_file(data, size, path);
  const char *input = path;
  sw_labels labels;
  if (!sw_labels_read(&input, 1, NULL, NULL, &labels)) {
    if (!labels.num_examples || !labels.num_layers) abort();
    for (size_t i = 0; i < labels.num_examples; i++) {
      const sw_example *e = &labels.examples[i];
      if (sw_check_utf8(e->text, e->bytes) || !e->num_words || !(e->weight > 0)) abort();
      for (size_t w = 0; w < e->num_words; w++) {
        const sw_span *s = &e->words[w];
        if (s->byte_start >= s->byte_end || s->byte_end > e->bytes || s->start >= s->end ||
            (w && s->byte_start < s[-1].byte_end))
          abort();
      }
      for (size_t k = 0; k < labels.num_layers; k++) {
        const int32_t *tags = e->tags + k * e->num_words;
        for (size_t w = 0; w < e->num_words; w++) {
          if (tags[w] == SW_IGNORE) continue;
          if (tags[w] < 0 || (size_t)tags[w] >= labels.layers[k].num_labels) abort();
          /* I of a type is one above its B */
          if (tags[w] > 0 && tags[w] % 2 == 0 && (!w || (tags[w - 1] != tags[w] && tags[w - 1] != tags[w] - 1)))
            abort();
        }
      }
    }
    sw_labels_close(&labels);
  }
  close(fd);
  return 0;
}
