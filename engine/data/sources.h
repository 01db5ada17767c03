/* The files that a list of operands stands for: files as given, folders with everything below them in a natural order.
 */
#ifndef SW_DATA_SOURCES_H
#define SW_DATA_SOURCES_H
#include "engine/data/postings.h"

typedef struct {
  char *path;
  char *id;       /* of a text file: "<date>/<n>" or the path within the folder, without .txt, .gz, .zst */
  char *date;     /* name of the dated folder it lies in, as written; "" where there is none */
  uint64_t bytes; /* on disk; 0 for what is no plain file */
  sw_postings_format format;
} sw_source;

typedef struct {
  size_t count, capacity;
  sw_source *items;
  uint64_t bytes; /* sum; 0 where one is unknown (standard input, pipes) */
} sw_sources;

/* `format` AUTO: by name: .csv .tsv; .jsonl .ndjson .json; any other file given by name is one text; "-" is text lines.
 * In folders only .txt, .csv, .tsv, .jsonl, .ndjson and .json (.gz, .zst) count, hidden names do not; with a format
 * given, only its own names. Order in a folder: dated names (DD-MM-YYYY or YYYY-MM-DD) by date, then the others, where
 * numbers count as numbers. Fails for what is missing, and for a folder without any such file. */
int sw_sources_open(const char *const *inputs, size_t count, sw_postings_format format, sw_sources *out);
/* The same of one folder, any form; none is no failure. */
int sw_sources_below(const char *folder, sw_sources *out);
void sw_sources_close(sw_sources *sources);
/* Days-like number that orders dates; 0 where `name` is no date. */
int sw_date_number(const char *name, size_t bytes);
/* "2026-01-05" of such a date, with or without a time behind it ("05-01-2026", "2026-01-05T08:30:00Z"): 1; 0 where it is none. */
int sw_date_iso(const char *text, char iso[16]);
/* <0, 0, >0, as strcmp, in the order said above; 0 only for equal names. */
int sw_natural_compare(const char *a, const char *b);
#endif
