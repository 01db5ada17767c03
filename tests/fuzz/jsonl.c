/* Any bytes as postings in JSON lines or one array: no crash, texts that are text, indices that grow. */
#include "engine/data/postings.h"
#include "engine/text/words.h"
#include "tests/fuzz/memory_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  int fd = memory_file(data, size, path);
  const char *input = path;
  sw_postings_options options = {.format = SW_POSTINGS_JSONL, .max_text_bytes = 1000};
  sw_postings *postings;
  sw_posting p;
  if (sw_postings_open(&input, 1, &options, &postings)) abort();
  uint64_t next = 0;
  while (sw_postings_next(postings, &p) == 1) {
    if (p.index < next || p.bytes > 1000 || strlen(p.text) != p.bytes || sw_check_utf8(p.text, p.bytes)) abort();
    if (sw_check_utf8(p.id, strlen(p.id)) || sw_check_utf8(p.date, strlen(p.date)) || !*p.id) abort();
    next = p.index + 1;
    sw_posting_close(&p);
  }
  if (sw_postings_rows(postings) < sw_postings_rejected(postings)) abort();
  sw_postings_close(postings);
  close(fd);
  return 0;
}
