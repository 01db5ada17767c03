#include "tools/label/answer.h"
#include "base/error.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_STARTS = 64, MAX_DEPTH = 32, MAX_MARKED = 64 << 10 }; /* the last in bytes: a sentence with its tags is shorter */

void sw_mentions_close(sw_mentions *m) {
  for (size_t i = 0; i < m->count; i++) free(m->items[i].text);
  free(m->items);
  *m = (sw_mentions){0};
}

static void clear(sw_mentions *m) {
  for (size_t i = 0; i < m->count; i++) free(m->items[i].text);
  m->count = 0;
}

static int add(sw_mentions *m, const char *text, size_t bytes, int label, int occurrence) {
  if (m->count == SW_MAX_MENTIONS) return 1;
  if (m->count == m->capacity) {
    const size_t capacity = m->capacity ? 2 * m->capacity : 16;
    sw_mention *items = sw_realloc_array(m->items, capacity, sizeof *items);
    if (!items) return -1;
    m->items = items;
    m->capacity = capacity;
  }
  sw_mention mention = {sw_strndup(text, bytes), bytes, label, occurrence};
  if (!mention.text) return -1;
  m->items[m->count++] = mention;
  return 0;
}

/* "Skills", "skill" and "SKILL" are the label "skill"; where there is but one label, what names none is that one. */
static int find_label(const sw_label_names *labels, const char *name, size_t bytes) {
  for (int i = 0; i < labels->count; i++) {
    const size_t n = strlen(labels->names[i]);
    if ((bytes == n || (bytes == n + 1 && (name[n] | 32) == 's')) && !strncasecmp(name, labels->names[i], n)) return i;
  }
  return -1;
}

static int only_label(const sw_label_names *labels) { return labels->count == 1 ? 0 : -1; }

/* --- text with tags --- */

typedef struct {
  sw_buffer plain; /* without its tags */
  struct mark {
    size_t start, end; /* bytes of plain */
    int label;
  } marks[SW_MAX_MENTIONS];
  size_t count;
} marked_text;

/* Mentions of a marked text: each says which of its places it means. */
static int add_marks(const marked_text *m, sw_mentions *out) {
  sw_label_words all = {0}, one = {0};
  sw_word_ranges places = {0};
  int status = sw_check_utf8(m->plain.data ? m->plain.data : "", m->plain.size) ? 1 : sw_label_words_read(&all, m->plain.data ? m->plain.data : "", m->plain.size);
  for (size_t i = 0; i < m->count && !status; i++) {
    const struct mark *mark = &m->marks[i];
    const char *text = m->plain.data + mark->start;
    const size_t bytes = mark->end - mark->start;
    int occurrence = 0;
    status = sw_check_utf8(text, bytes) ? 1 : sw_label_words_read(&one, text, bytes) || sw_label_words_find(&all, &one, &places) ? -1 : 0;
    for (size_t k = 0; k < places.count && !status && !occurrence; k++)
      if (all.words.items[places.items[k].end - 1].byte_end > mark->start) occurrence = (int)k + 1;
    if (!status) status = add(out, text, bytes, mark->label, occurrence);
  }
  sw_word_ranges_close(&places);
  sw_label_words_close(&all);
  sw_label_words_close(&one);
  return status;
}

static int mark(marked_text *m, size_t start, int label) {
  if (m->count == SW_MAX_MENTIONS) return 1;
  if (m->plain.size > start) m->marks[m->count++] = (struct mark){start, m->plain.size, label};
  return 0;
}

/* "<name>" or "</name>" of a label at `at`: its bytes, or 0. */
static size_t read_tag(const char *at, size_t left, const sw_label_names *labels, int *label, int *closes) {
  const char *end = memchr(at, '>', left < 80 ? left : 80);
  if (at[0] != '<' || !end) return 0;
  *closes = left > 1 && at[1] == '/';
  const char *name = at + 1 + *closes;
  *label = end > name ? find_label(labels, name, (size_t)(end - name)) : -1;
  return *label < 0 ? 0 : (size_t)(end - at) + 1;
}

/* 0: there were tags; 1: none, or they do not fit together. */
static int read_marked(const char *text, size_t bytes, const sw_label_names *labels, marked_text *m) {
  size_t opened[SW_MAX_LABELS], depth = 0, at_start = 0, tags = 0;
  int of[SW_MAX_LABELS], inside = 0, label, closes;
  if (bytes > MAX_MARKED) return 1;
  for (size_t i = 0; i < bytes;) {
    const size_t left = bytes - i, tag = read_tag(text + i, left, labels, &label, &closes);
    int status = 0;
    if (tag && !closes) {
      if (depth == SW_MAX_LABELS) return 1;
      of[depth] = label;
      opened[depth++] = m->plain.size;
    } else if (tag) {
      if (!depth || of[--depth] != label) return 1;
      status = mark(m, opened[depth], label);
    } else if (left > 1 && !memcmp(text + i, "@@", 2) && !inside) {
      inside = 1;
      at_start = m->plain.size;
    } else if (left > 1 && !memcmp(text + i, "##", 2) && inside && (left == 2 || text[i + 2] != '#')) { /* of "C###" the first is C#'s */
      inside = 0;
      status = mark(m, at_start, only_label(labels));
    } else {
      if (sw_buffer_append(&m->plain, text + i, 1)) return -1;
      i++;
      continue;
    }
    if (status) return status;
    tags++;
    i += tag ? tag : 2;
  }
  return tags && !depth && !inside ? 0 : 1;
}

static int from_marked(const char *text, size_t bytes, const sw_label_names *labels, sw_mentions *out) {
  marked_text *m = sw_alloc(sizeof *m);
  if (!m) return -1;
  int status = read_marked(text, bytes, labels, m);
  if (!status) status = add_marks(m, out);
  sw_buffer_close(&m->plain);
  free(m);
  return status;
}

/* Words with one tag each. */
static int from_tags(const json_t *tokens, const json_t *tags, int label, sw_mentions *out) {
  if (!json_is_array(tags) || json_array_size(tags) != json_array_size(tokens)) return 1;
  marked_text *m = sw_alloc(sizeof *m);
  if (!m) return -1;
  size_t start = 0;
  int status = 0, open = 0;
  for (size_t i = 0; i < json_array_size(tokens) && !status; i++) {
    const json_t *token = json_array_get(tokens, i);
    const char *tag = json_string_value(json_array_get(tags, i));
    if (!json_is_string(token) || !tag || !strchr("BIO", tag[0]) || !tag[0] || m->plain.size + json_string_length(token) > MAX_MARKED) status = 1;
    if (!status && open && tag[0] != 'I') {
      status = mark(m, start, label);
      open = 0;
    }
    if (!status && m->plain.size && sw_buffer_append(&m->plain, " ", 1)) status = -1;
    if (!status && tag[0] != 'O' && !open) {
      start = m->plain.size;
      open = 1;
    }
    if (!status && sw_buffer_append(&m->plain, json_string_value(token), json_string_length(token))) status = -1;
  }
  if (!status && open) status = mark(m, start, label);
  if (!status) status = add_marks(m, out);
  sw_buffer_close(&m->plain);
  free(m);
  return status;
}

/* --- JSON --- */

static const json_t *first_of(const json_t *object, const char *const *keys) {
  for (; *keys; keys++) {
    const json_t *value = json_object_get(object, *keys);
    if (value) return value;
  }
  return NULL;
}

/* One mention: a string, or an object. */
static int from_item(const json_t *item, int label, const sw_label_names *labels, sw_mentions *out) {
  static const char *const texts[] = {"text", "span", "mention", "name", "value", "entity", "skill", NULL};
  static const char *const types[] = {"label", "type", "category", "layer", NULL};
  static const char *const places[] = {"occurrence", "occurence", NULL};
  if (json_is_string(item)) return add(out, json_string_value(item), json_string_length(item), label, 0);
  const json_t *text = first_of(item, texts), *type = first_of(item, types), *place = first_of(item, places);
  if (!json_is_string(text)) return 1;
  if (json_is_string(type)) label = find_label(labels, json_string_value(type), json_string_length(type));
  const json_int_t n = json_is_integer(place) ? json_integer_value(place) : 0;
  return add(out, json_string_value(text), json_string_length(text), label, n > 0 && n < 10000 ? (int)n : 0);
}

static int from_array(const json_t *array, int label, const sw_label_names *labels, sw_mentions *out) {
  int status = 0;
  for (size_t i = 0; i < json_array_size(array) && !status; i++) status = from_item(json_array_get(array, i), label, labels, out);
  return status;
}

static int from_tokens(const json_t *object, const json_t *tokens, const sw_label_names *labels, sw_mentions *out) {
  const char *key;
  json_t *value;
  int status = 1;
  json_object_foreach((json_t *)object, key, value) {
    const int label = !strcmp(key, "tags") || !strcmp(key, "labels") ? only_label(labels) : strncmp(key, "tags_", 5) ? -1 : find_label(labels, key + 5, strlen(key + 5));
    if (label >= 0 && (status = from_tags(tokens, value, label, out))) return status;
  }
  return status;
}

static int from_json(const json_t *value, const sw_label_names *labels, int depth, sw_mentions *out) {
  static const char *const lists[] = {"spans", "skills", "entities", "mentions", "items", "results", "labels", NULL};
  static const char *const inner[] = {"answer", "result", "output", "tagged", "text", NULL};
  if (json_is_array(value)) return from_array(value, only_label(labels), labels, out);
  if (json_is_string(value)) return from_marked(json_string_value(value), json_string_length(value), labels, out);
  if (!json_is_object(value)) return 1;
  const json_t *tokens = json_object_get(value, "tokens"), *list = first_of(value, lists);
  if (json_is_array(tokens)) return from_tokens(value, tokens, labels, out);
  const char *key;
  json_t *of;
  int keys = 0, status = 0;
  json_object_foreach((json_t *)value, key, of) {
    const int label = json_is_array(of) ? find_label(labels, key, strlen(key)) : -1;
    if (label < 0 || (of == list && labels->count == 1)) continue;
    keys++;
    if ((status = from_array(of, label, labels, out))) return status;
  }
  if (keys) return 0;
  if (json_is_array(list)) return from_array(list, only_label(labels), labels, out);
  const json_t *within = first_of(value, inner);
  return within && depth ? from_json(within, labels, depth - 1, out) : 1;
}

/* The bytes of the JSON value that begins at `text` with a bracket, to its last bracket; 0: it has none. A ' begins a string where a string may begin. */
static size_t balanced(const char *text, size_t bytes) {
  char closing[MAX_DEPTH], quote = 0;
  int depth = 0;
  for (size_t i = 0; i < bytes; i++) {
    const char c = text[i];
    if (quote) {
      if (c == '\\') i++;
      else if (c == quote) quote = 0;
    } else if (c == '"' || (c == '\'' && i && strchr("[{,: \n\t", text[i - 1]))) {
      quote = c;
    } else if (c == '{' || c == '[') {
      if (depth == MAX_DEPTH) return 0;
      closing[depth++] = c == '{' ? '}' : ']';
    } else if (c == '}' || c == ']') {
      if (closing[--depth] != c) return 0;
      if (!depth) return i + 1;
    }
  }
  return 0;
}

/* Python's and JavaScript's ways of writing as JSON: single quotes, commas before a closing bracket, comments of // to the end of a line. */
static int repair(const char *text, size_t bytes, sw_buffer *out) {
  char quote = 0;
  int status = 0;
  sw_buffer_clear(out);
  for (size_t i = 0; i < bytes && !status; i++) {
    const char c = text[i];
    if (quote) {
      if (c == '\\' && i + 1 < bytes) {
        const int single = text[++i] == '\'';
        status = single ? sw_buffer_append(out, "'", 1) : sw_buffer_append(out, text + i - 1, 2);
      } else if (c == quote) {
        quote = 0;
        status = sw_buffer_append(out, "\"", 1);
      } else if (c == '"') {
        status = sw_buffer_append(out, "\\\"", 2);
      } else {
        status = c == '\n' ? sw_buffer_append(out, "\\n", 2) : sw_buffer_append(out, &c, 1);
      }
    } else if (c == '"' || (c == '\'' && i && strchr("[{,: \n\t", text[i - 1]))) {
      quote = c;
      status = sw_buffer_append(out, "\"", 1);
    } else if (c == ',') {
      size_t k = i + 1;
      while (k < bytes && strchr(" \t\r\n", text[k])) k++;
      if (k == bytes || (text[k] != '}' && text[k] != ']')) status = sw_buffer_append(out, ",", 1);
    } else if (c == '/' && i + 1 < bytes && text[i + 1] == '/') {
      while (i + 1 < bytes && text[i + 1] != '\n') i++;
    } else {
      status = sw_buffer_append(out, &c, 1);
    }
  }
  return status;
}

/* 0 with *out, NULL where the text from its bracket on is no JSON whatever one does; *used: the bytes it takes. */
static int parse(const char *text, size_t bytes, json_t **out, size_t *used) {
  json_error_t error;
  *out = NULL;
  if (!(*used = balanced(text, bytes))) return 0;
  if (sw_json_row(text, *used, 0, out, &error)) return -1;
  if (*out) return 0;
  sw_buffer fixed = {0};
  int status = repair(text, *used, &fixed);
  if (!status) status = sw_json_row(fixed.data, fixed.size, 0, out, &error);
  sw_buffer_close(&fixed);
  return status;
}

json_t *sw_answer_list(const char *text, size_t bytes) {
  json_t *list = NULL;
  size_t used;
  const char *start = memchr(text, '[', bytes);
  if (!start || parse(start, bytes - (size_t)(start - text), &list, &used)) return NULL;
  return list;
}

/* Reasoning that some models print before the answer. */
static void skip_thoughts(const char **text, size_t *bytes) {
  static const char end[] = "</think>";
  const char *last = *bytes ? memmem(*text, *bytes, end, sizeof end - 1) : NULL;
  if (!last) return;
  last += sizeof end - 1;
  *bytes -= (size_t)(last - *text);
  *text = last;
}

static int no_sense(char reason[SW_REASON], const char *text, size_t bytes) {
  size_t n = bytes > 80 ? 80 : bytes;
  while (n && n < bytes && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
  snprintf(reason, SW_REASON, "the answer is neither the JSON that was asked for nor tagged text: %.*s%s", (int)n, text, n < bytes ? "..." : "");
  for (char *c = reason; *c; c++)
    if ((unsigned char)*c < 0x20) *c = ' ';
  return 1;
}

/* The answer is the sentence itself, or says that there is nothing. */
static int names_nothing(const char *answer, size_t bytes, const char *sentence, size_t sentence_bytes, int *status) {
  sw_label_words a = {0}, b = {0};
  *status = sw_label_words_read(&a, answer, bytes) || sw_label_words_read(&b, sentence, sentence_bytes) ? -1 : 0;
  int same = !*status && b.words.count && sw_label_words_same(&a, &b);
  if (!*status && !same && a.words.count) same = !strcmp(a.keys.data, "none") && (a.words.count == 1 || (a.words.count == 2 && a.silent[1]));
  sw_label_words_close(&a);
  sw_label_words_close(&b);
  return same;
}

/* The first JSON value in the text that begins with that bracket and has a shape that is known. A list within an object is not looked at by itself. */
static int from_bracket(const char *text, size_t bytes, char bracket, const sw_label_names *labels, sw_mentions *out) {
  size_t used;
  int starts = 0;
  for (size_t i = 0; i < bytes && starts < MAX_STARTS; i++) {
    json_t *value;
    if (text[i] == '{' && bracket == '[' && ++starts && (used = balanced(text + i, bytes - i))) i += used - 1;
    if (text[i] != bracket) continue;
    starts++;
    if (parse(text + i, bytes - i, &value, &used)) return -1;
    if (!value) continue;
    const int status = from_json(value, labels, 2, out);
    json_decref(value);
    if (status <= 0) return status;
    clear(out);
    i += used - 1;
  }
  return 1;
}

int sw_answer_read(const char *answer, size_t bytes, const char *sentence, size_t sentence_bytes, const sw_label_names *labels, sw_mentions *out,
                   char reason[SW_REASON]) {
  clear(out);
  reason[0] = 0;
  if (sw_check_utf8(answer, bytes)) return snprintf(reason, SW_REASON, "the answer is not valid UTF-8"), 1;
  skip_thoughts(&answer, &bytes);
  int status = from_bracket(answer, bytes, '{', labels, out);
  if (status > 0) status = from_bracket(answer, bytes, '[', labels, out);
  if (status <= 0) return status;
  status = from_marked(answer, bytes, labels, out);
  if (status <= 0) return status;
  clear(out);
  if (names_nothing(answer, bytes, sentence, sentence_bytes, &status)) return 0;
  return status ? status : no_sense(reason, answer, bytes);
}
