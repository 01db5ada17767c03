/* Postings and other texts to run inference on, streamed in bounded memory: <date>/<n>.txt folders, .txt files (one posting a file, or
 * one text a line with SW_LINES), CSV (RFC 4180, quoted newlines), JSONL, standard input; each plain, .gz or .zst.
 *
 * Files are read in the order given, a folder in natural order (dates, then numbers). A row that cannot be used is set aside with its
 * reason and counted: broken JSON or CSV (see csv.h), invalid UTF-8, NUL, a text that is missing, empty, blank or too long. A text file
 * is one row, also where its .gz or .zst is damaged; CSV and JSONL that cannot be read to the end are a failure.
 * Blank lines between rows of CSV and JSONL are no rows; in text lines they are (the row number is the line number). */
#ifndef SW_DATA_POSTINGS_H
#define SW_DATA_POSTINGS_H
#include "engine/data/rejects.h"
#include <stddef.h>
#include <stdint.h>

typedef enum { SW_POSTINGS_AUTO, SW_POSTINGS_TEXT, SW_POSTINGS_LINES, SW_POSTINGS_CSV, SW_POSTINGS_JSONL } sw_postings_format;

/* "auto", "text", "lines", "csv" or "jsonl": what --format takes. */
int sw_postings_format_parse(const char *name, sw_postings_format *out);

typedef struct {
  sw_postings_format format;  /* AUTO: by file name (.csv .tsv .jsonl .json .txt, before .gz/.zst); standard input: lines */
  /* CSV column or JSON key of the text; NULL: "description", otherwise "text", otherwise the only one. Several with commas between
   * them, "title,description" (where no column has that name): their texts one after the other, a line each; those without are left out. */
  const char *column;
  const char *id_column;      /* NULL: "id" or "job_id" where present, otherwise the row number */
  const char *column_option, *id_option; /* for messages: the option that names the column, without dashes; NULL: "column" and "id-column" */
  const char *label_column;   /* of the label, which a row must have then; NULL: none. Text files cannot have one */
  const char *rejected_path;  /* rows that cannot be used go here as JSON lines with the reason; NULL: counted only */
  sw_rejects *rejects;        /* borrowed: they go here instead, and the caller publishes them; NULL */
  uint64_t max_text_bytes;    /* a longer text is rejected; 0: 8 MiB */
} sw_postings_options;

typedef struct {
  uint64_t index;       /* 0-based position among all usable and unusable rows: the same for the same inputs */
  char *id;             /* job id, "<date>/<n>" for folders, or the row number (index + 1); owned by the record */
  char *date;           /* from the folder's name or a "date" column; "" where there is none */
  char *text;           /* valid UTF-8 without NUL */
  size_t bytes;
  char *label;          /* valid UTF-8 without white space around it; NULL where no label_column was asked for */
} sw_posting;

typedef struct sw_postings sw_postings;

/* `options` (may be NULL: all defaults) is copied. Fails where an input is missing or a folder holds nothing to read; what is in the
 * files is looked at by sw_postings_next. */
int sw_postings_open(const char *const *inputs, size_t count, const sw_postings_options *options, sw_postings **out);
/* The same of texts in memory (valid UTF-8, not empty), borrowed; their ids are empty. */
int sw_postings_open_texts(const char *const *texts, size_t count, sw_postings **out);
/* 1: `out` is filled (release with sw_posting_close); 0: the end; -1: failure: an unreadable or damaged file, or one without the
 * column or key of the text or the id (the message lists those it has). Bad rows are set aside and skipped. */
int sw_postings_next(sw_postings *postings, sw_posting *out);
void sw_posting_close(sw_posting *posting);
/* Rows seen so far, usable or not, and those set aside. */
uint64_t sw_postings_rows(const sw_postings *postings);
uint64_t sw_postings_rejected(const sw_postings *postings);
/* "row 3: the text is empty", with the file where there are several: the reason of each of the first SW_REASONS rows set aside; NULL for
 * an index behind them. Valid until the postings are closed. */
enum { SW_REASONS = 3 };
const char *sw_postings_reason(const sw_postings *postings, size_t index);
/* Bytes read so far and in total (0 = unknown), of the files as they lie on disk, or texts in memory: for the progress bar. */
void sw_postings_progress(const sw_postings *postings, uint64_t *done, uint64_t *total);
/* Finishes the rejected file (absent when nothing was rejected) and frees everything, also on failure. */
int sw_postings_close(sw_postings *postings);
#endif
