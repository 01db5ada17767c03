#include "engine/data/rows.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static int is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int sw_window_peek(sw_window *w) {
  for (size_t i = 0;; i++) {
    while (w->start + i == w->end) {
      if (i >= SW_MAX_ROW_BYTES) return 0;
      int more = sw_window_fill(w);
      if (more <= 0) return more;
    }
    char c = w->data[w->start + i];
    if (!is_space(c)) return (unsigned char)c;
  }
}

int sw_rows_open(sw_rows *rows, sw_window window, const char *path, size_t limit) {
  *rows = (sw_rows){.window = window, .path = path, .limit = limit ? limit : SW_MAX_ROW_BYTES};
  int first = sw_window_peek(&rows->window);
  if (first < 0) {
    sw_rows_close(rows);
    return -1;
  }
  rows->array = first == '[';
  return 0;
}

void sw_rows_close(sw_rows *rows) {
  sw_window_close(&rows->window);
  *rows = (sw_rows){0};
}

/* Moves to the next byte of the array that is neither white space nor one of `skipped`; 0 at the end of the file, -1 on
 * failure. */
static int next_byte(sw_window *w, char skipped) {
  for (;;) {
    while (w->start < w->end) {
      char c = w->data[w->start];
      if (!is_space(c) && c != skipped) return (unsigned char)c;
      w->line += c == '\n';
      w->start++;
    }
    int more = sw_window_fill(w);
    if (more <= 0) return more;
  }
}

/* The brackets that are open within an element. Those below MAX_OPEN are remembered by kind, so that one that is
 * missing spoils its own element only: a closing bracket closes those of the other kind above its partner, too. */
enum { MAX_OPEN = 4096 };
typedef struct {
  size_t depth;
  size_t open[2]; /* how many are '[' and how many '{', of those remembered */
  char kinds[MAX_OPEN];
} brackets;

static void open_bracket(brackets *b, char c) {
  if (b->depth < MAX_OPEN) {
    b->kinds[b->depth] = c;
    b->open[c == '{']++;
  }
  b->depth++;
}

/* 0: `c` closes nothing in here. */
static int close_bracket(brackets *b, char c) {
  if (b->depth > MAX_OPEN) {
    b->depth--;
    return 1;
  }
  if (!b->open[c == '}']) return 0;
  for (char last = 0; last != (c == '}' ? '{' : '[');) {
    last = b->kinds[--b->depth];
    b->open[last == '{']--;
  }
  return 1;
}

/* One element of the array: up to the ',' or ']' at its own depth. A line break inside a string, which JSON forbids,
 * ends the string, so that a quote that is missing spoils one element of an indented file and not all that follow. */
static int next_element(sw_rows *rows, const char **row, size_t *bytes, uint64_t *line) {
  sw_window *w = &rows->window;
  int first = next_byte(w, ',');
  if (first <= 0) return first;
  *line = w->line;
  if (first == ']') {
    w->start++;
    rows->closed = 1;
    return 0;
  }
  size_t i = 0, newlines = 0, skipped = 0;
  int inside = 0, escaped = 0, whole = 0;
  brackets open;
  open.depth = open.open[0] = open.open[1] = 0;
  while (!whole) {
    if (w->start + i == w->end) {
      if (i > rows->limit) { /* keep the beginning in front, forget the rest */
        size_t kept = 4096;
        skipped += i - kept;
        w->end = w->start + kept;
        i = kept;
      }
      int more = sw_window_fill(w);
      if (more < 0) return -1;
      if (!more) break;
      continue;
    }
    char c = w->data[w->start + i];
    newlines += c == '\n';
    if (inside) {
      if (c == '\n' || (c == '"' && !escaped)) inside = 0;
      escaped = c == '\\' && !escaped;
    } else if (c == '"') {
      inside = 1;
      escaped = 0;
    } else if (c == '{' || c == '[') {
      open_bracket(&open, c);
    } else if (c == '}' || c == ']') {
      whole = !close_bracket(&open, c) && (c == ']' || !open.depth);
    } else if (c == ',' && !open.depth) {
      whole = 1;
    }
    i += !whole;
  }
  w->line += newlines;
  *row = w->data + w->start;
  *bytes = i;
  w->start += i;
  if (whole && w->data[w->start] == '}') { /* closes nothing: part of the broken element */
    w->start++;
    ++*bytes;
  }
  while (*bytes && is_space((*row)[*bytes - 1])) --*bytes;
  return skipped || i > rows->limit ? SW_ROW_LONG : SW_ROW;
}

int sw_rows_next(sw_rows *rows, const char **row, size_t *bytes, uint64_t *line) {
  sw_window *w = &rows->window;
  if (rows->array) {
    if (!rows->begun) {
      if (next_byte(w, 0) < 0) return -1;
      w->start++; /* the '[' that sw_rows_open saw */
      rows->begun = 1;
    }
    if (!rows->closed) {
      int status = next_element(rows, row, bytes, line);
      if (status != 0) return status;
      if (!rows->closed)
        return sw_fail("%s: the JSON array is never closed: the file is truncated, or a ']' is missing", rows->path);
    }
  }
  for (;;) { /* lines; after an array there should be none */
    int status = sw_window_line(w, rows->limit, row, bytes, line);
    if (status != SW_ROW) return status;
    while (*bytes && is_space(**row)) ++*row, --*bytes;
    while (*bytes && is_space((*row)[*bytes - 1])) --*bytes;
    if (*bytes) return SW_ROW;
  }
}
