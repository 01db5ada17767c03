#include "engine/data/csv.h"
#include "base/error.h"
#include "engine/text/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { MAX_COLUMNS = 1 << 16 };

/* First delimiter, newline or quote in [p, end), or `end`. */
static inline const char *scan(const char *p, const char *end, char delimiter) {
#ifdef __SSE2__
  const __m128i d = _mm_set1_epi8(delimiter), n = _mm_set1_epi8('\n'), q = _mm_set1_epi8('"');
  for (; end - p >= 16; p += 16) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, d), _mm_cmpeq_epi8(v, n)), _mm_cmpeq_epi8(v, q));
    int mask = _mm_movemask_epi8(hit);
    if (mask) return p + __builtin_ctz((unsigned)mask);
  }
#endif
  while (p < end && *p != delimiter && *p != '\n' && *p != '"') p++;
  return p;
}

sw_csv_status sw_csv_parse(const char *data, size_t bytes, int final, char delimiter, int strict, sw_csv_field *fields,
                           size_t max_fields, size_t *count, size_t *used) {
  const char *p = data, *end = data + bytes;
  size_t n = 0;
  for (;; n++) {
    if (n == max_fields && strict) return SW_CSV_STRAY;
    sw_csv_field field = {p, 0, 0};
    if (p < end && *p == '"') {
      field.data = ++p;
      for (;;) {
        const char *quote = p < end ? memchr(p, '"', (size_t)(end - p)) : NULL;
        if (!quote) return final ? SW_CSV_OPEN : SW_CSV_MORE;
        p = quote + 1;
        if (p == end && !final) return SW_CSV_MORE;
        if (p == end || *p != '"') break;
        field.doubled = 1;
        p++;
      }
      field.bytes = (size_t)(p - 1 - field.data);
      if (p < end && *p == '\r') {
        if (p + 1 == end && !final) return SW_CSV_MORE;
        if (p + 1 == end || p[1] == '\n') p++;
      }
      if (p < end && *p != delimiter && *p != '\n') return SW_CSV_STRAY;
    } else {
      while ((p = scan(p, end, delimiter)) < end && *p == '"') {
        if (strict) return SW_CSV_STRAY;
        p++;
      }
      if (p == end && !final) return SW_CSV_MORE;
      field.bytes = (size_t)(p - field.data);
      if ((p == end || *p == '\n') && field.bytes && p[-1] == '\r') field.bytes--;
    }
    if (n < max_fields) fields[n] = field;
    if (p == end || *p == '\n') break;
    p++;
  }
  *count = n + 1;
  *used = (size_t)(p - data) + (p < end);
  return SW_CSV_RECORD;
}

static int ends_with(const char *path, const char *end) {
  size_t n = strlen(path), m = strlen(end);
  return n >= m && !strcmp(path + n - m, end);
}

static char guess_delimiter(const char *path, const char *line, size_t bytes) {
  if (ends_with(path, ".tsv") || ends_with(path, ".tsv.gz") || ends_with(path, ".tsv.zst")) return '\t';
  if (memchr(line, ',', bytes)) return ',';
  return memchr(line, '\t', bytes) ? '\t' : memchr(line, ';', bytes) ? ';' : ',';
}

/* Reads until the record at the window's start is whole; -1: failure, else a sw_csv_status (SW_CSV_MORE: longer than
 * the limit). */
static int parse_record(sw_csv *csv, int strict, sw_csv_field *fields, size_t max_fields, size_t *count) {
  sw_window *w = &csv->window;
  for (;;) {
    size_t held = w->end - w->start;
    sw_csv_status status =
        sw_csv_parse(w->data + w->start, held, w->ended, csv->delimiter, strict, fields, max_fields, count, &csv->used);
    if (status == SW_CSV_RECORD && csv->used > csv->limit) return SW_CSV_MORE;
    if (status != SW_CSV_MORE || held > csv->limit) return (int)status;
    if (sw_window_fill(w) < 0) return -1;
  }
}

static int read_columns(sw_csv *csv) {
  sw_window *w = &csv->window;
  for (;;) { /* the first line that is not blank */
    size_t blank = 0, held = w->end - w->start;
    while (blank < held && (w->data[w->start + blank] == '\n' || w->data[w->start + blank] == '\r')) blank++;
    w->line += sw_count_newlines(w->data + w->start, blank);
    w->start += blank;
    if (blank < held) break;
    int more = sw_window_fill(w);
    if (more < 0) return -1;
    if (!more) return sw_fail("%s is empty: a line of column names was expected", csv->path);
  }
  if (!csv->delimiter) {
    const char *newline;
    while (!(newline = memchr(w->data + w->start, '\n', w->end - w->start)) && w->end - w->start < csv->limit) {
      int more = sw_window_fill(w);
      if (more < 0) return -1;
      if (!more) break;
    }
    size_t bytes = newline ? (size_t)(newline - w->data) - w->start : w->end - w->start;
    csv->delimiter = guess_delimiter(csv->path, w->data + w->start, bytes);
  }
  size_t count = 0; /* once to count them, once to keep them */
  int status = parse_record(csv, 0, NULL, 0, &count);
  if (status < 0) return -1;
  if (status != SW_CSV_RECORD)
    return sw_fail("%s: the line of column names (line %llu) is not valid CSV: %s", csv->path,
                   (unsigned long long)w->line,
                   status == SW_CSV_STRAY ? "text follows a closing quote" : "a quote is never closed");
  if (count > MAX_COLUMNS) return sw_fail("%s has %zu columns; at most %d can be read", csv->path, count, MAX_COLUMNS);
  csv->fields = sw_alloc_array(count, sizeof *csv->fields);
  csv->columns = sw_alloc_array(count, sizeof *csv->columns);
  if (!csv->fields || !csv->columns || parse_record(csv, 0, csv->fields, count, &count) < 0) return -1;
  sw_buffer name = {0};
  for (size_t i = 0; i < count; i++) {
    if (sw_csv_field_text(&csv->fields[i], &name) || !(csv->columns[i] = sw_strdup(name.data ? name.data : ""))) {
      sw_buffer_close(&name);
      return -1;
    }
    csv->num_columns = i + 1;
  }
  sw_buffer_close(&name);
  w->line += sw_count_newlines(w->data + w->start, csv->used);
  w->start += csv->used;
  csv->used = 0;
  return 0;
}

int sw_csv_open(sw_csv *csv, const char *path, char delimiter, size_t limit) {
  *csv = (sw_csv){.delimiter = delimiter, .limit = limit ? limit : SW_MAX_ROW_BYTES};
  if (sw_window_open(&csv->window, path, 0)) return -1;
  csv->path = sw_strdup(strcmp(path, "-") ? path : "standard input");
  if (!csv->path || read_columns(csv)) {
    sw_csv_close(csv);
    return -1;
  }
  return 0;
}

void sw_csv_close(sw_csv *csv) {
  sw_window_close(&csv->window);
  for (size_t i = 0; i < csv->num_columns; i++) free(csv->columns[i]);
  free(csv->columns);
  free(csv->fields);
  free(csv->path);
  sw_buffer_close(&csv->bad);
  *csv = (sw_csv){0};
}

/* Gives up one line of a bad record: the window moves behind it, its beginning is kept for the rejected file. */
static int drop_line(sw_csv *csv) {
  sw_window *w = &csv->window;
  int any = 0;
  for (;;) {
    size_t held = w->end - w->start;
    const char *newline = held ? memchr(w->data + w->start, '\n', held) : NULL;
    size_t dropped = newline ? (size_t)(newline - w->data) + 1 - w->start : held;
    size_t room = SW_REJECT_ROW_BYTES + 1 - csv->bad.size, kept = dropped < room ? dropped : room;
    if (kept && sw_buffer_append(&csv->bad, w->data + w->start, kept)) return -1;
    w->start += dropped;
    csv->search_left -= dropped < csv->search_left ? dropped : csv->search_left;
    if (newline || (any && !dropped)) {
      w->line++;
      return 0;
    }
    any = 1;
    if (sw_window_fill(w) < 0) return -1;
  }
}

/* A record that makes no sense: notes why and gives up its first line. It may run for `bytes` bytes (UINT64_MAX:
 * unknown). */
static int begin_bad(sw_csv *csv, uint64_t bytes) {
  sw_buffer_clear(&csv->bad);
  csv->bad_line = csv->window.line;
  csv->searching = 1;
  csv->search_left = bytes;
  return drop_line(csv);
}

/* Writes the bad record down. */
static int end_bad(sw_csv *csv, sw_rejects *rejects) {
  size_t bytes = csv->bad.size;
  while (bytes && (csv->bad.data[bytes - 1] == '\n' || csv->bad.data[bytes - 1] == '\r')) bytes--;
  size_t reason = strlen(csv->bad_reason);
  if (csv->window.line > csv->bad_line + 1)
    snprintf(csv->bad_reason + reason, sizeof csv->bad_reason - reason, "; lines %llu to %llu were left out",
             (unsigned long long)csv->bad_line, (unsigned long long)csv->window.line - 1);
  csv->searching = 0;
  return sw_rejects_add(rejects, csv->path, csv->bad_line, csv->bad_reason, csv->bad.data ? csv->bad.data : "", bytes)
             ? -1
             : 2;
}

/* Behind a bad record: moves to the next line that makes sense, or to where the bad record ends. */
static int search(sw_csv *csv, sw_rejects *rejects) {
  sw_window *w = &csv->window;
  while (csv->search_left) {
    size_t count = 0;
    if (w->start == w->end) {
      int more = sw_window_fill(w);
      if (more < 0) return -1;
      if (!more) break;
    }
    int status = parse_record(csv, 1, csv->fields, csv->num_columns, &count);
    if (status < 0) return -1;
    if (status == SW_CSV_RECORD && count == csv->num_columns && !(count == 1 && csv->fields[0].bytes == 0)) break;
    if (drop_line(csv)) return -1;
  }
  csv->used = 0;
  return end_bad(csv, rejects);
}

int sw_csv_next(sw_csv *csv, sw_rejects *rejects, uint64_t *line) {
  sw_window *w = &csv->window;
  w->start += csv->used; /* the record given out last time; its lines were counted then */
  csv->used = 0;
  for (;;) {
    if (w->start == w->end) {
      int more = sw_window_fill(w);
      if (more < 0) return -1;
      if (!more) return 0;
    }
    size_t count = 0;
    int status = parse_record(csv, 0, csv->fields, csv->num_columns, &count);
    if (status < 0) return -1;
    *line = w->line;
    if (status != SW_CSV_RECORD) {
      if (status == SW_CSV_STRAY)
        snprintf(csv->bad_reason, sizeof csv->bad_reason, "stray quote: text follows a closing quote");
      else if (status == SW_CSV_OPEN)
        snprintf(csv->bad_reason, sizeof csv->bad_reason, "stray quote: a quote is never closed");
      else
        snprintf(csv->bad_reason, sizeof csv->bad_reason, "longer than %zu bytes, or a quote is never closed",
                 csv->limit);
      return begin_bad(csv, UINT64_MAX) ? -1 : search(csv, rejects);
    }
    size_t used = csv->used, newlines = sw_count_newlines(w->data + w->start, used);
    if (count == csv->num_columns &&
        !(count == 1 && csv->fields[0].bytes == 0 && csv->fields[0].data == w->data + w->start)) {
      w->line += newlines;
      return 1;
    }
    csv->used = 0;
    if (count == 1 && used <= 2 && csv->fields[0].bytes == 0 && w->data[w->start] != '"') { /* a blank line */
      w->start += used;
      w->line += newlines;
      continue;
    }
    snprintf(csv->bad_reason, sizeof csv->bad_reason, "%zu column%s, %zu %s expected", count, SW_S(count), csv->num_columns,
             csv->num_columns == 1 ? "was" : "were");
    /* With one or two columns nearly every line of a text makes sense, so there is nothing to search for. */
    if (newlines > 1 && csv->num_columns > 2) {
      return begin_bad(csv, used) ? -1 : search(csv, rejects);
    }
    size_t kept = used < SW_REJECT_ROW_BYTES + 1 ? used : SW_REJECT_ROW_BYTES + 1;
    sw_buffer_clear(&csv->bad);
    if (sw_buffer_append(&csv->bad, w->data + w->start, kept)) return -1;
    csv->bad_line = w->line;
    w->start += used;
    w->line += newlines;
    return end_bad(csv, rejects);
  }
}

int sw_csv_column(const sw_csv *csv, const char *name) {
  for (size_t i = 0; i < csv->num_columns; i++)
    if (!strcmp(csv->columns[i], name)) return (int)i;
  return -1;
}

char *sw_csv_column_list(const sw_csv *csv) {
  sw_buffer text = {0};
  for (size_t i = 0; i < csv->num_columns; i++)
    if (sw_check_utf8(csv->columns[i], strlen(csv->columns[i]))) {
      sw_fail("%s: the line of column names is not UTF-8; convert the file first: iconv -f ISO-8859-1 -t UTF-8 (or -f WINDOWS-1252)", csv->path);
      return NULL;
    }
  for (size_t i = 0; i < csv->num_columns; i++) {
    int cut = text.size > 300;
    if (cut ? sw_buffer_print(&text, ", ... (%zu in all)", csv->num_columns)
            : sw_buffer_print(&text, "%s%.80s", i ? ", " : "", csv->columns[i])) {
      sw_buffer_close(&text);
      return NULL;
    }
    if (cut) break;
  }
  return sw_buffer_take(&text);
}

int sw_csv_field_text(const sw_csv_field *field, sw_buffer *out) {
  sw_buffer_clear(out);
  if (!field->doubled) return sw_buffer_append(out, field->data, field->bytes);
  const char *p = field->data, *end = p + field->bytes;
  while (p < end) {
    const char *quote = memchr(p, '"', (size_t)(end - p));
    const char *stop = quote ? quote + 1 : end;
    if (sw_buffer_append(out, p, (size_t)(stop - p))) return -1;
    p = quote ? quote + 2 : end;
  }
  return 0;
}

int sw_csv_quote(sw_buffer *out, const char *text, size_t bytes) {
  int plain = bytes && text[0] != ' ' && text[bytes - 1] != ' ';
  for (size_t i = 0; i < bytes && plain; i++) plain = !strchr(",\"\r\n", text[i]);
  if (plain || bytes == 0) return sw_buffer_append(out, text, bytes);
  if (sw_buffer_append(out, "\"", 1)) return -1;
  for (size_t i = 0; i < bytes; i++)
    if ((text[i] == '"' && sw_buffer_append(out, "\"", 1)) || sw_buffer_append(out, text + i, 1)) return -1;
  return sw_buffer_append(out, "\"", 1);
}
