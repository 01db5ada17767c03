/* Any bytes as CSV (also compressed): no crash, no row with the wrong shape, every byte accounted for. */
#include "engine/data/csv.h"
#include "tests/fuzz/memory_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  int fd = memory_file(data, size, path);
  sw_csv csv;
  sw_rejects rejects;
  sw_buffer text = {0};
  /* small limits reach the long-row paths with short inputs */
  if (sw_rejects_open(&rejects, NULL)) abort();
  if (!sw_csv_open(&csv, path, 0, size && data[0] % 2 ? 64 : 0)) {
    uint64_t line, last = 0, records = 0, aside = 0;
    int status;
    while ((status = sw_csv_next(&csv, &rejects, &line)) > 0) {
      if (status == 2) {
        aside++;
        continue;
      }
      records++;
      if (line <= last) abort();
      last = line;
      for (size_t i = 0; i < csv.num_columns; i++) {
        if (sw_csv_field_text(&csv.fields[i], &text) || text.size > csv.fields[i].bytes) abort();
      }
    }
    if (aside != rejects.count) abort();
    if (status == 0 && (csv.window.start != csv.window.end || records + aside > size)) abort();
    sw_csv_close(&csv);
  }
  sw_rejects_close(&rejects);
  sw_buffer_close(&text);
  close(fd);
  return 0;
}
