/* A run of skillwatch fetch: its journal, where in the source's pages it is, and what it writes. */
#ifndef SW_FETCH_RUN_H
#define SW_FETCH_RUN_H
#include "base/options.h"
#include "base/table.h"
#include "engine/data/job_source.h"
#include "engine/store/journal.h"
#include "tools/fetch/ask.h"

typedef struct {
  const char *source, *output, *query, *since, *date, *base_url;
  int limit, time_limit, dry_run, finish, strip, companies, quiet, json;
  double similarity;
} fetch_options;

/* The journal's records begin with their kind. */
enum { RECORD_BEGIN = 'B', RECORD_PAGE = 'P', RECORD_WRITE = 'W' };

typedef struct {
  uint64_t pages, requests, unchanged, repeated, read, added, same_id, same_text, rejected, bad_bytes, cut;
} fetch_counts;

typedef struct {
  const fetch_options *options;
  const sw_job_source *source;
  char *state;        /* folder: "<output>.fetch" */
  char *journal_path; /* without ".partial" */
  char *identity;
  sw_journal journal;
  json_t *validators; /* key of a page -> {"etag", "modified", "rows", "next", "date"} of earlier runs */
  /* from the journal */
  char date[11]; /* DD-MM-YYYY */
  int begun, writing; /* all pages are there: `first` is the number of the first new posting */
  int64_t first, last; /* last: Unix time of the last record */
  /* where the next page is */
  int64_t offset, page, taken; /* taken: rows that count for --limit */
  char *next;                  /* cursor or address, with {env:NAME} for keys */
  int done, repeats;           /* repeats: pages in a row that brought nothing new */
  sw_table seen;               /* ids of this run */
  fetch_counts counts;
} fetch_run;

/* The head of a RECORD_PAGE: a JSON object, a line break, the body. */
json_t *fetch_read_head(const void *payload, size_t bytes, const char **body, size_t *body_bytes);
/* Only one run at a time may be between RECORD_WRITE and its end, as the numbers of a day's postings are everybody's: "<state>/writing" names it.
 * Fails where that is another run, which is still to be ended. */
int fetch_check_turn(const fetch_run *run);
/* The journal is gone: others may write. */
void fetch_end_turn(const fetch_run *run);
/* Writes what the journal holds: texts, JSON lines, rejected rows, index, validators; the same files whenever it is done again. */
int fetch_write(fetch_run *run);
#endif
