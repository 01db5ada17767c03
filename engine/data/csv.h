/* CSV after RFC 4180: a field may be in double quotes, then it may hold delimiters, line breaks and doubled quotes;
 * "\n" or "\r\n" ends a record. As Python's csv module and pandas do, a quote inside a field that does not begin with
 * one is an ordinary character.
 *
 * Bad rows. Text after a closing quote, a quote that is never closed, a record above 8 MiB or one with a wrong number
 * of columns is set aside with its line. A stray quote must not swallow the rows after it: where the bad record runs
 * over several lines, only its first line is given up, and reading goes on at the next line that makes sense: one that
 * begins a record with the right number of columns and without a quote in the wrong place. What lies between is part of
 * the row that is set aside. */
#ifndef SW_DATA_CSV_H
#define SW_DATA_CSV_H
#include "base/buffer.h"
#include "engine/data/rejects.h"
#include "engine/data/window.h"

typedef struct {
  const char *data; /* without the outer quotes; in the window */
  size_t bytes;
  int doubled; /* holds doubled quotes: sw_csv_field_text makes them single */
} sw_csv_field;

typedef struct {
  sw_window window;
  char *path; /* owned, for messages */
  char delimiter;
  size_t num_columns;
  char **columns;       /* owned names, from the first record */
  sw_csv_field *fields; /* [num_columns], of the present record */
  size_t limit;         /* longest record, in bytes */
  size_t used;          /* bytes of the present record */
  int searching;        /* after a bad record: looking for a line that makes sense */
  uint64_t search_left; /* bytes that may be searched before the bad record ends */
  sw_buffer bad;        /* beginning of the bad record */
  uint64_t bad_line;
  char bad_reason[256];
} sw_csv;

/* Opens and reads the column names. `delimiter` 0: tab where the name ends in .tsv (.gz, .zst), otherwise a comma, or
 * the tab or semicolon where the first line holds those and no comma. `limit` 0: SW_MAX_ROW_BYTES. Fails on an empty
 * file. */
int sw_csv_open(sw_csv *csv, const char *path, char delimiter, size_t limit);
/* 1: csv->fields holds a record, which began at line *line, until the next call; 2: a row was set aside into `rejects`;
 * 0: the end; -1: failure. */
int sw_csv_next(sw_csv *csv, sw_rejects *rejects, uint64_t *line);
void sw_csv_close(sw_csv *csv);
/* Number of the column of that name, or -1. */
int sw_csv_column(const sw_csv *csv, const char *name);
/* "a, b, c" of the columns present, cut after about 300 bytes; free() it. Fails where they are not UTF-8. */
char *sw_csv_column_list(const sw_csv *csv);
/* Replaces `out` by the field's text. */
int sw_csv_field_text(const sw_csv_field *field, sw_buffer *out);

/* Appends a field of RFC 4180: in quotes where it must be. */
int sw_csv_quote(sw_buffer *out, const char *text, size_t bytes);

/* The parser itself, for one record at data[0..bytes). `final`: nothing follows. `strict`: a quote inside a field
 * without quotes, or more than max_fields fields, is an error. Up to max_fields fields are stored; *count counts all.
 * *used: bytes with the line break. */
typedef enum { SW_CSV_RECORD, SW_CSV_MORE, SW_CSV_STRAY, SW_CSV_OPEN } sw_csv_status;
sw_csv_status sw_csv_parse(const char *data, size_t bytes, int final, char delimiter, int strict, sw_csv_field *fields,
                           size_t max_fields, size_t *count, size_t *used);
#endif
