/* tool-postings [--format auto|text|lines|csv|jsonl] [--column X] [--id-column X] [--rejected FILE] [--max BYTES]
 * [--count] INPUT... Reads postings and prints each as {"index","id","date","text"}; --count: only how many, and how
 * fast. For the tests. */
#include "base/error.h"
#include "base/options.h"
#include "base/progress.h"
#include "engine/data/postings.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  const char *format = "auto", *column = NULL, *id_column = NULL, *rejected = NULL;
  int count_only = 0, max = 0;
  sw_option options[] = {{"format", 0, SW_OPTION_TEXT, &format, "FORMAT", "auto, text, lines, csv or jsonl"},
                         {"column", 0, SW_OPTION_TEXT, &column, "NAME", "column or key of the text"},
                         {"id-column", 0, SW_OPTION_TEXT, &id_column, "NAME", "column or key of the id"},
                         {"rejected", 0, SW_OPTION_TEXT, &rejected, "FILE", "rows that were set aside"},
                         {"max", 0, SW_OPTION_INT, &max, "BYTES", "longest text"},
                         {"count", 0, SW_OPTION_FLAG, &count_only, NULL, "print numbers only"},
                         {0}};
  sw_command command = {"tool-postings [options] INPUT...", "Prints postings as JSON lines.", "", options};
  sw_list inputs = {0};
  int parsed = sw_options_parse(&command, argc, argv, &inputs);
  if (parsed) return parsed > 0 ? 0 : sw_exit_message(SW_EXIT_USAGE);
  static const char *const names[] = {"auto", "text", "lines", "csv", "jsonl"};
  sw_postings_options o = {
      .column = column, .id_column = id_column, .rejected_path = rejected, .max_text_bytes = (uint64_t)max};
  for (int i = 0; i < 5; i++)
    if (!strcmp(names[i], format)) o.format = (sw_postings_format)i;
  sw_postings *postings;
  if (sw_postings_open(inputs.items, (size_t)inputs.count, &o, &postings)) {
    sw_list_close(&inputs);
    return sw_exit_message(SW_EXIT_FAILED);
  }
  sw_list_close(&inputs);
  sw_posting p;
  int status;
  uint64_t rows = 0, done, total, last = 0, text = 0;
  double start = sw_clock();
  while ((status = sw_postings_next(postings, &p)) == 1) {
    rows++;
    text += p.bytes;
    sw_postings_progress(postings, &done, &total);
    if (done < last || (total && done > total))
      status = sw_fail("progress went from %llu to %llu", (unsigned long long)last, (unsigned long long)done);
    last = done;
    if (!count_only) {
      json_t *line = json_pack("{s:I,s:s,s:s,s:s%}", "index", (json_int_t)p.index, "id", p.id, "date", p.date, "text",
                               p.text, p.bytes);
      if (!line || json_dumpf(line, stdout, JSON_ENSURE_ASCII)) status = sw_fail("a posting that is no JSON text");
      json_decref(line);
      putchar('\n');
    }
    sw_posting_close(&p);
    if (status < 0) break;
  }
  double seconds = sw_clock() - start;
  if (status < 0) sw_exit_message(1);
  uint64_t aside = sw_postings_rejected(postings);
  sw_postings_progress(postings, &done, &total);
  if (count_only)
    printf("%llu rows, %llu rejected, %.1f MB of text, %.1f MB read in %.3f s: %.0f MB/s\n", (unsigned long long)rows,
           (unsigned long long)aside, (double)text / 1e6, (double)done / 1e6, seconds, (double)done / 1e6 / seconds);
  if (sw_postings_close(postings)) return sw_exit_message(SW_EXIT_FAILED);
  return status < 0 ? SW_EXIT_FAILED : SW_EXIT_DONE;
}
