/* CoNLL: a word a line, columns between tabs or white space, a blank line between sentences. */
#include "base/error.h"
#include "engine/data/label_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file's columns are judged by this many of its first lines. */
enum { SAMPLE_LINES = 2000, MAX_COLUMNS = 64 };

typedef struct {
  const char *text;
  size_t bytes;
} column;

typedef struct {
  sw_buffer text; /* lines with their '\n' */
  uint64_t line;  /* of the first one */
} sentence;

typedef struct {
  size_t num_columns, first_tag; /* columns first_tag.. hold tags; 0 = not known yet */
  sentence *sample;
  size_t count, capacity, lines;
} conll;

/* Columns of one line: between tabs where it has one, otherwise between runs of spaces. Returns their number, up to
 * MAX_COLUMNS. */
static size_t split(const char *line, size_t bytes, column *columns) {
  size_t count = 0, i = 0;
  int tabs = memchr(line, '\t', bytes) != NULL;
  while (i <= bytes && count < MAX_COLUMNS) {
    while (!tabs && i < bytes && line[i] == ' ') i++;
    if (!tabs && i == bytes) break;
    size_t start = i;
    while (i < bytes && line[i] != (tabs ? '\t' : ' ')) i++;
    columns[count++] = (column){line + start, i - start};
    i++;
  }
  return count;
}

static int is_blank(const char *line, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return 0;
  return 1;
}

static int is_tag(column c) {
  sw_raw_tag tag;
  return sw_tag_parse(c.text, c.bytes, &tag) == 0;
}

/* "# sent_id = 3": begins with '#' and does not look like a word with tags. */
static int is_comment(const conll *c, const column *columns, size_t count) {
  if (columns[0].text[0] != '#') return 0;
  return count != c->num_columns || !is_tag(columns[count - 1]);
}

/* Takes the next line of a sentence; 0 at its end. */
static int next_line(const sentence *s, size_t *at, const char **line, size_t *bytes) {
  if (*at >= s->text.size) return 0;
  *line = s->text.data + *at;
  const char *end = memchr(*line, '\n', s->text.size - *at);
  *bytes = (size_t)(end - *line);
  *at += *bytes + 1;
  return 1;
}

/* How many columns most lines have, and how many of the last ones hold tags nearly always. */
static void judge(conll *c) {
  size_t lines[MAX_COLUMNS + 1] = {0}, tags[MAX_COLUMNS + 1] = {0};
  for (int pass = 0; pass < 2; pass++) {
    for (size_t i = 0; i < c->count; i++) {
      const char *line;
      size_t at = 0, bytes;
      column columns[MAX_COLUMNS];
      while (next_line(&c->sample[i], &at, &line, &bytes)) {
        size_t count = split(line, bytes, columns);
        if (pass == 0)
          lines[count]++;
        else
          for (size_t k = 1; count == c->num_columns && k < count; k++) tags[k] += (size_t)is_tag(columns[k]);
      }
    }
    if (pass == 0)
      for (size_t k = 2; k <= MAX_COLUMNS; k++)
        if (!c->num_columns || lines[k] > lines[c->num_columns]) c->num_columns = k;
  }
  c->first_tag = c->num_columns;
  /* half is enough: a column of tags with some typing errors is still one, words or parts of speech never come near */
  while (c->first_tag > 1 && tags[c->first_tag - 1] * 2 > lines[c->num_columns]) c->first_tag--;
}

static int parse_sentence(sw_label_reader *r, const conll *c, const sentence *s, uint64_t *bad_line) {
  const char *line;
  size_t at = 0, bytes, num_words = 0;
  column columns[MAX_COLUMNS];
  *bad_line = s->line;
  if (sw_check_utf8(s->text.data, s->text.size)) return sw_bad_row(r, "%s", sw_error());
  if (c->first_tag >= c->num_columns) return sw_bad_row(r, "no column of B, I and O tags behind the words");
  for (size_t k = c->first_tag; k < c->num_columns; k++) {
    char name[32] = "tags";
    size_t number = k - c->first_tag + 1, unused;
    if (number > 1) snprintf(name, sizeof name, "tags%zu", number);
    int status = sw_row_column(r, name, strlen(name), 0, &unused);
    if (status) return status;
  }
  for (int pass = 0; pass < 2; pass++) { /* the words, then their tags */
    at = num_words = 0;
    for (uint64_t number = s->line; next_line(s, &at, &line, &bytes); number++) {
      size_t count = split(line, bytes, columns);
      if (!count || is_comment(c, columns, count)) continue;
      *bad_line = number;
      if (count != c->num_columns) return sw_bad_row(r, "%zu column%s, the file has %zu", count, SW_S(count), c->num_columns);
      if (pass == 0) {
        if (is_blank(columns[0].text, columns[0].bytes)) return sw_bad_row(r, "an empty word");
        if (sw_row_word(r, columns[0].text, columns[0].bytes, 0)) return -1;
      }
      for (size_t k = c->first_tag; k < count && pass == 1; k++)
        if (sw_tag_parse(columns[k].text, columns[k].bytes, &sw_row_tags(r, k - c->first_tag)[num_words]))
          return sw_bad_row(r, "unknown tag \"%.*s\": B, I, O, B-<type> or I-<type> was expected",
                            (int)(columns[k].bytes > 60 ? 60 : columns[k].bytes), columns[k].text);
      num_words++;
    }
    if (!num_words) return 0; /* comments only */
    if (pass == 0 && sw_row_allocate(r)) return -1;
  }
  return 0;
}

static int add_sentence(sw_label_reader *r, const conll *c, const sentence *s) {
  uint64_t bad_line;
  sw_row_begin(r);
  int status = parse_sentence(r, c, s, &bad_line);
  if (!status && r->row.words.count) status = sw_row_commit(r, s->line);
  return status == 1 ? sw_row_reject(r, bad_line, s->text.data, s->text.size) : status;
}

/* The sentence is finished: keep it for the sample, or use it at once. Takes its text over. */
static int end_sentence(sw_label_reader *r, conll *c, sentence *s) {
  if (!s->text.size) return 0;
  if (c->first_tag) {
    int status = add_sentence(r, c, s);
    sw_buffer_clear(&s->text);
    return status;
  }
  if (c->count == c->capacity) {
    size_t capacity = c->capacity ? c->capacity * 2 : 64;
    sentence *sample = sw_realloc_array(c->sample, capacity, sizeof *sample);
    if (!sample) return -1;
    c->sample = sample;
    c->capacity = capacity;
  }
  c->sample[c->count++] = *s;
  s->text = (sw_buffer){0};
  return 0;
}

static int use_sample(sw_label_reader *r, conll *c) {
  int status = 0;
  judge(c);
  for (size_t i = 0; i < c->count; i++) {
    if (!status) status = add_sentence(r, c, &c->sample[i]);
    sw_buffer_close(&c->sample[i].text);
  }
  free(c->sample);
  c->sample = NULL;
  c->count = c->capacity = 0;
  return status;
}

int sw_read_conll(sw_label_reader *r, sw_window *w) {
  conll c = {0};
  sentence s = {0};
  int status = 0;
  for (;;) {
    const char *line;
    size_t bytes;
    uint64_t number;
    int got = sw_window_line(w, SW_MAX_ROW_BYTES, &line, &bytes, &number);
    if (got < 0) status = -1;
    if (got <= 0) break;
    int starts = got == SW_ROW && bytes >= 10 && !memcmp(line, "-DOCSTART-", 10);
    int long_row = got == SW_ROW_LONG || s.text.size + bytes > SW_MAX_ROW_BYTES;
    if (starts || long_row || is_blank(line, bytes)) {
      if ((status = end_sentence(r, &c, &s))) break;
      if (!c.first_tag && c.lines >= SAMPLE_LINES && (status = use_sample(r, &c))) break;
      if (long_row) {
        sw_bad_row(r, "a line or sentence longer than %d bytes", (int)SW_MAX_ROW_BYTES);
        if ((status = sw_row_reject(r, number, line, bytes))) break;
      }
      continue;
    }
    if (!s.text.size) s.line = number;
    c.lines++;
    if ((status = sw_buffer_append(&s.text, line, bytes) || sw_buffer_append(&s.text, "\n", 1) ? -1 : 0)) break;
  }
  if (!status) status = end_sentence(r, &c, &s);
  if (!status && !c.first_tag) status = use_sample(r, &c);
  sw_buffer_close(&s.text);
  for (size_t i = 0; i < c.count; i++) sw_buffer_close(&c.sample[i].text);
  free(c.sample);
  return status;
}
