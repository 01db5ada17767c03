/* A job board's API as a small JSON file: how a page of postings is asked for, and where in its answer the rows and their fields lie.
 *
 *   {"name": "board",
 *    "url": "https://api.example/jobs",                      where the pages are
 *    "params": {"q": "{query}", "page": "{page}"},           added as "?q=...&page=..."; one whose placeholder has no value is left out
 *    "method": "GET", "body": {...},                         POST sends the body as JSON
 *    "headers": {"x-key": "env:BOARD_KEY"},                  "env:NAME": a secret from the environment
 *    "paging": {"by": "page", "size": 100},                  see below
 *    "rows": "data.jobs",                                    field path of the list of postings; "": the answer is the list
 *    "fields": {"id": "id", "text": ["description", "snippet"], "location": "places.0.name"},
 *    "html": true,                                           the text is HTML: it becomes plain text
 *    "rate": {"requests": 60, "seconds": 60, "per_day": 500},
 *    "timeout": 60, "max_bytes": 16777216}                   of one answer
 *
 * Placeholders in "url", "params" and strings of "body": {query} {since} {offset} {limit} {page} {cursor} {env:NAME}. A string of the body that is
 * nothing but {offset}, {limit} or {page} becomes a number.
 * Paging: {"by": "none"}; "offset" ({offset}, {limit}); "page" ({page}, from "first" [1]); "cursor" ({cursor}, found at "path" of the answer before);
 * "next" (the address at "path", or of the header Link with rel="next"). "size" [100] is {limit}; "until": "short" [the default] ends after a page
 * with fewer rows than "size", "empty" only after one without rows; "most" [1000] is the largest number of pages.
 * Field paths: keys and numbers with dots between them; of a list of paths the first that leads to something counts. "text" is needed; id, title,
 * company, location, posted, url, salary have a meaning for Skillwatch, others may be added. */
#ifndef SW_DATA_JOB_SOURCE_H
#define SW_DATA_JOB_SOURCE_H
#include "base/buffer.h"
#include <jansson.h>
#include <stdint.h>

typedef enum { SW_PAGING_NONE, SW_PAGING_OFFSET, SW_PAGING_PAGE, SW_PAGING_CURSOR, SW_PAGING_NEXT } sw_paging;
enum { SW_ASK_QUERY = 1, SW_ASK_SINCE = 2, SW_ASK_OFFSET = 4, SW_ASK_LIMIT = 8, SW_ASK_PAGE = 16, SW_ASK_CURSOR = 32, SW_ASK_SECRET = 64 };

typedef struct {
  json_t *config;    /* owned; the texts below point into it */
  json_t *secrets;   /* owned: names of the environment variables that hold its keys */
  const char *name, *url, *method, *rows, *next_path;
  const json_t *params, *body, *headers, *fields; /* objects, or NULL */
  sw_paging paging;
  int64_t size, first, most;
  int until_empty, html;
  int64_t rate_requests, rate_seconds, per_day; /* 0: no limit */
  int64_t timeout, max_bytes;
  unsigned uses; /* SW_ASK_... of all templates */
} sw_job_source;

/* "linkedin", which is built in, or the path of a file. */
int sw_job_source_open(const char *source, sw_job_source *out);
/* The same of a text; `what` is its name in messages. */
int sw_job_source_parse(const char *text, size_t bytes, const char *what, sw_job_source *out);
void sw_job_source_close(sw_job_source *source);

/* What one page is asked for. */
typedef struct {
  const char *query, *since, *cursor; /* NULL: not given */
  int64_t offset, limit, page;
} sw_job_ask;

/* Append the address and the body (nothing where there is none). `masked`: with *** for secrets, which need not be set then; otherwise a secret that
 * the environment lacks is a failure that names it. */
int sw_job_url(const sw_job_source *source, const sw_job_ask *ask, int masked, sw_buffer *out);
int sw_job_body(const sw_job_source *source, const sw_job_ask *ask, int masked, sw_buffer *out);
/* The value of a header: as it is, or from the environment ("env:NAME"); *variable is set to NAME, or NULL. NULL with a message where it is not set. */
const char *sw_job_header(const char *value, const char **variable);

/* Appends `text` with {env:NAME} in the place of keys of 8 bytes or more, also of %XX and JSON's escapes of them. `json`: within strings only, so that
 * the text stays valid JSON. A key that is not set is not looked for. */
int sw_job_mask(const sw_job_source *source, const char *text, size_t bytes, int json, sw_buffer *out);
/* The opposite, with %XX where `encode`, for an address. Fails where a key is not set. */
int sw_job_unmask(const sw_job_source *source, const char *text, int encode, sw_buffer *out);

typedef struct {
  json_t *root;       /* owned */
  const json_t *rows; /* array */
  char *next;         /* the cursor or address of the next page; owned, NULL: none */
  uint64_t bad_bytes; /* that were not UTF-8 */
} sw_job_page;

/* Reads one answer. Fails with a message about what is wrong with it, which holds none of the source's keys. */
int sw_job_page_read(const sw_job_source *source, const char *text, size_t bytes, sw_job_page *out);
void sw_job_page_close(sw_job_page *page);
/* Row `i` as a flat object: the fields as strings, "id" (where the source has none: from the url or the text) and "text" among them, and the whole row
 * as "row". 1; 0: it cannot be used, `reason` says why; -1: failure. */
int sw_job_read(const sw_job_source *source, const sw_job_page *page, size_t i, json_t **out, char reason[256]);
#endif
