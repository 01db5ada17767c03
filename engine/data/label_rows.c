#include "engine/data/label_rows.h"
#include "base/error.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

int sw_bad_row(sw_label_reader *r, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(r->reason, sizeof r->reason, format, args);
  va_end(args);
  return 1;
}

int sw_row_reject(sw_label_reader *r, uint64_t line, const char *row, size_t bytes) {
  if (!r->rejected) {
    r->first_line = line;
    memcpy(r->first_reason, r->reason, sizeof r->first_reason);
  }
  r->rejected++;
  r->rows++;
  return sw_rejects_add(&r->rejects, r->path, line, r->reason, row, bytes);
}

void sw_row_begin(sw_label_reader *r) {
  sw_buffer_clear(&r->row.text);
  r->row.words.count = 0;
  r->row.num_columns = 0;
  r->row.weight = 1;
  r->row.from_spans = 0;
}

/* A name that can stand in a path inside a checkpoint. */
static int layer_name(sw_label_reader *r, const char *name, size_t bytes, int lower, char out[SW_MAX_NAME + 1]) {
  int32_t i = 0, n = 0, length = (int32_t)bytes;
  UBool failed = 0;
  if (bytes > SW_MAX_NAME) return sw_bad_row(r, "a layer's name is longer than %d bytes", (int)SW_MAX_NAME);
  while (i < length && !failed) {
    UChar32 c;
    U8_NEXT((const uint8_t *)name, i, length, c);
    if (c < 0) return sw_bad_row(r, "a layer's name is not valid UTF-8");
    if (c == '/' || u_isUWhiteSpace(c) || u_iscntrl(c)) c = '_';
    if (lower) c = u_tolower(c);
    U8_APPEND((uint8_t *)out, n, SW_MAX_NAME, c, failed);
  }
  if (failed) return sw_bad_row(r, "a layer's name is longer than %d bytes", (int)SW_MAX_NAME);
  out[n] = 0;
  if (n == 0 || !strcmp(out, ".") || !strcmp(out, "..")) return sw_bad_row(r, "a label or layer without a name");
  return 0;
}

int sw_row_column(sw_label_reader *r, const char *name, size_t bytes, int is_label, size_t *column) {
  sw_raw_row *row = &r->row;
  if (row->num_columns == SW_MAX_LAYERS) return sw_bad_row(r, "more than %d layers", (int)SW_MAX_LAYERS - 1);
  char *fresh = row->names[row->num_columns];
  int status = layer_name(r, name, bytes, is_label, fresh);
  if (status) return status;
  for (*column = 0; *column < row->num_columns; ++*column)
    if (!strcmp(row->names[*column], fresh)) return is_label ? 0 : sw_bad_row(r, "layer \"%s\" twice", fresh);
  row->num_columns++;
  return 0;
}

int sw_row_allocate(sw_label_reader *r) {
  sw_raw_row *row = &r->row;
  size_t count = row->num_columns * row->words.count; /* at most 256 times 8 Mi */
  if (count > row->tag_capacity) {
    sw_raw_tag *tags = sw_realloc_array(row->tags, count, sizeof *tags);
    if (!tags) return -1;
    row->tags = tags;
    row->tag_capacity = count;
  }
  for (size_t i = 0; i < count; i++) row->tags[i] = (sw_raw_tag){.kind = 'O', .type = ""};
  return 0;
}

sw_raw_tag *sw_row_tags(sw_label_reader *r, size_t column) {
  return r->row.tags + column * r->row.words.count;
}

static uint32_t code_points(const char *text, size_t bytes) {
  uint32_t count = 0;
  for (size_t i = 0; i < bytes; i++) count += ((unsigned char)text[i] & 0xC0) != 0x80;
  return count;
}

int sw_row_word(sw_label_reader *r, const char *word, size_t bytes, int joined) {
  sw_raw_row *row = &r->row;
  sw_span *last = row->words.count ? &row->words.items[row->words.count - 1] : NULL;
  if (last && !joined && sw_buffer_append(&row->text, " ", 1)) return -1;
  uint32_t start = last ? last->end + !joined : 0, byte_start = (uint32_t)row->text.size;
  if (sw_buffer_append(&row->text, word, bytes)) return -1;
  sw_span span = {byte_start, (uint32_t)row->text.size, start, start + code_points(word, bytes)};
  if (!joined || !last) return sw_spans_append(&row->words, span);
  last->byte_end = span.byte_end;
  last->end = span.end;
  return 0;
}

int sw_tag_parse(const char *tag, size_t bytes, sw_raw_tag *out) {
  *out = (sw_raw_tag){.kind = bytes ? tag[0] : 0, .type = ""};
  if (bytes == 1) return tag[0] == 'O' || tag[0] == 'B' || tag[0] == 'I' ? 0 : -1;
  if (bytes < 3 || bytes > 2 + SW_MAX_NAME || (tag[0] != 'B' && tag[0] != 'I') || tag[1] != '-') return -1;
  out->type = tag + 2;
  out->type_bytes = (uint32_t)(bytes - 2);
  return 0;
}

/* --- tokens with tags --- */
static int is_blank(const char *text, size_t bytes) {
  for (int32_t i = 0; i < (int32_t)bytes;) {
    UChar32 c;
    U8_NEXT((const uint8_t *)text, i, (int32_t)bytes, c);
    if (!u_isUWhiteSpace(c)) return 0;
  }
  return 1;
}

/* Whether token t continues the word before: "##x" in a row of WordPieces. */
static int is_piece(const json_t *token) {
  return json_string_length(token) > 2 && !strncmp(json_string_value(token), "##", 2);
}

static int read_tokens(sw_label_reader *r, json_t *tokens) {
  size_t index;
  json_t *token;
  json_array_foreach(tokens, index, token) {
    if (!json_is_string(token)) return sw_bad_row(r, "token %zu is no string", index + 1);
    const char *text = json_string_value(token);
    size_t bytes = json_string_length(token);
    if (is_blank(text, bytes)) return sw_bad_row(r, "token %zu is empty", index + 1);
    int piece = is_piece(token);
    if (sw_row_word(r, text + 2 * piece, bytes - 2 * (size_t)piece, piece)) return -1;
  }
  return r->row.words.count ? 0 : sw_bad_row(r, "no tokens");
}

static int read_tags(sw_label_reader *r, json_t *tokens, json_t *tags, size_t column) {
  const char *name = r->row.names[column];
  sw_raw_tag *out = sw_row_tags(r, column);
  size_t word = 0;
  for (size_t i = 0; i < json_array_size(tokens); i++) {
    json_t *tag = json_array_get(tags, i);
    sw_raw_tag parsed;
    if (!json_is_string(tag)) return sw_bad_row(r, "tag %zu of layer %s is no string", i + 1, name);
    if (sw_tag_parse(json_string_value(tag), json_string_length(tag), &parsed))
      return sw_bad_row(r, "unknown tag \"%.60s\" at token %zu of layer %s: B, I, O, B-<type> or I-<type> was expected",
                        json_string_value(tag), i + 1, name);
    if (i == 0 || !is_piece(json_array_get(tokens, i))) out[word++] = parsed;
  }
  return 0;
}

/* The layer that a key holds tags for; NULL: none. */
static const char *layer_of(const char *key, int named) {
  if (named) return strncmp(key, "tags_", 5) ? NULL : key + 5;
  return !strcmp(key, "tags") || !strcmp(key, "ner_tags") || !strcmp(key, "labels") ? "tags" : NULL;
}

static int from_tokens(sw_label_reader *r, json_t *row, json_t *tokens) {
  const char *key;
  json_t *value, *lists[SW_MAX_LAYERS];
  size_t column = 0;
  int named = 0, status;
  json_object_foreach(row, key, value) named |= !strncmp(key, "tags_", 5);
  json_object_foreach(row, key, value) {
    const char *layer = layer_of(key, named);
    if (!layer) continue;
    if (!json_is_array(value)) return sw_bad_row(r, "\"%.60s\" is no array", key);
    if (json_array_size(value) != json_array_size(tokens))
      return sw_bad_row(r, "%zu token%s but %zu tag%s in \"%.60s\"", json_array_size(tokens), SW_S(json_array_size(tokens)),
                        json_array_size(value), SW_S(json_array_size(value)), key);
    if ((status = sw_row_column(r, layer, strlen(layer), 0, &column))) return status;
    lists[column] = value;
  }
  if (!r->row.num_columns) return sw_bad_row(r, "tokens without tags: a key \"tags_<layer>\" was expected");
  if ((status = read_tokens(r, tokens)) || (status = sw_row_allocate(r))) return status;
  for (size_t i = 0; i < r->row.num_columns; i++)
    if ((status = read_tags(r, tokens, lists[i], i))) return status;
  return 0;
}

int sw_row_from_json(sw_label_reader *r, json_t *row) {
  if (!json_is_object(row)) return sw_bad_row(r, "the row is no JSON object");
  json_t *weight = json_object_get(row, "weight");
  if (weight && !json_is_null(weight)) {
    double value = json_number_value(weight);
    if (!json_is_number(weight) || !(value > 0) || !isfinite(value) || !((float)(value * r->weight) > 0) ||
        !isfinite((float)(value * r->weight)))
      return sw_bad_row(r, "\"weight\" is no number above 0");
    r->row.weight = value;
  }
  json_t *tokens = json_object_get(row, "tokens");
  /* prodigy's "tokens" are objects; its spans are what counts */
  if (json_is_array(tokens) && !json_is_object(json_array_get(tokens, 0))) return from_tokens(r, row, tokens);
  return sw_row_from_spans(r, row);
}

/* --- storing --- */
static int find_layer(sw_label_reader *r, const char *name) {
  for (size_t i = 0; i < r->num_layers; i++)
    if (!strcmp(r->layers[i].name, name)) return (int)i;
  return -1;
}

static int find_type(const sw_raw_layer *layer, const char *type, size_t bytes) {
  for (size_t i = 0; i < layer->num_types; i++)
    if (!strncmp(layer->types[i], type, bytes) && !layer->types[i][bytes]) return (int)i;
  return -1;
}

static int skip_layer(sw_label_reader *r, const char *name) {
  const char *p = r->skipped.data;
  size_t n = strlen(name);
  while (p && *p) {
    size_t m = strcspn(p, ",");
    if (m == n && !strncmp(p, name, n)) return 0;
    p += m + (p[m] ? 2 : 0);
  }
  return r->skipped.size > 4096 ? 0 : sw_buffer_print(&r->skipped, "%s%s", r->skipped.size ? ", " : "", name);
}

/* What keeps the row out, before anything of it is stored. */
static int check(sw_label_reader *r, size_t *known) {
  sw_raw_row *row = &r->row;
  size_t n = row->words.count, layers = r->num_layers;
  *known = 0;
  for (size_t c = 0; c < row->num_columns; c++) {
    int layer = find_layer(r, row->names[c]);
    if (layer < 0 && r->fixed) {
      if (skip_layer(r, row->names[c])) return -1;
      continue;
    }
    ++*known;
    if (layer < 0 && layers++ == SW_MAX_LAYERS) return sw_bad_row(r, "more than %d layers in all", (int)SW_MAX_LAYERS);
    size_t fresh = 0;
    for (size_t w = 0; w < n; w++) {
      const sw_raw_tag *tag = &row->tags[c * n + w];
      if (tag->kind == 'O') continue;
      int type = layer < 0 ? -1 : find_type(&r->layers[layer], tag->type, tag->type_bytes);
      if (type < 0 && r->fixed)
        return sw_bad_row(r, "unknown tag \"%c%s%.*s\": layer %s of the model has no such label", tag->kind,
                          tag->type_bytes ? "-" : "", (int)tag->type_bytes, tag->type, row->names[c]);
      fresh += type < 0;
    }
    if (fresh > SW_MAX_TYPES) return sw_bad_row(r, "more than %d types of entities", (int)SW_MAX_TYPES);
  }
  if (!*known && !row->from_spans)
    return sw_bad_row(r, "none of its layers (%s%s) is a layer of the model", row->names[0],
                      row->num_columns > 1 ? ", ..." : "");
  return 0;
}

static int add_layer(sw_label_reader *r, const char *name) {
  sw_raw_layer *layer = &r->layers[r->num_layers];
  *layer = (sw_raw_layer){.name = sw_strdup(name), .types = sw_alloc_array(SW_MAX_TYPES, sizeof *layer->types)};
  if (!layer->name || !layer->types) {
    free(layer->name);
    free(layer->types);
    return -1;
  }
  return (int)r->num_layers++;
}

/* Number of the tag in raw form, repairing an I that continues nothing; -1 on failure, -2: too many types. */
static int32_t raw_tag(sw_label_reader *r, sw_raw_layer *layer, const sw_raw_tag *tag, int32_t before) {
  if (tag->kind == 'O') return 0;
  int type = find_type(layer, tag->type, tag->type_bytes);
  if (type < 0) {
    if (layer->num_types == SW_MAX_TYPES) return -2;
    if (!(layer->types[layer->num_types] = sw_strndup(tag->type, tag->type_bytes))) return -1;
    type = (int)layer->num_types++;
  }
  int32_t begin = 1 + 2 * type;
  if (tag->kind == 'B') return begin;
  if (before == begin || before == begin + 1) return begin + 1;
  r->repaired++;
  return begin;
}

int sw_row_commit(sw_label_reader *r, uint64_t line) {
  sw_raw_row *row = &r->row;
  size_t known, n = row->words.count;
  int status = check(r, &known);
  if (status) return status;
  if (r->num_examples == r->capacity) {
    size_t capacity = r->capacity ? r->capacity * 2 : 256;
    sw_raw_example *examples = sw_realloc_array(r->examples, capacity, sizeof *examples);
    if (!examples) return -1;
    r->examples = examples;
    r->capacity = capacity;
  }
  sw_raw_example e = {.bytes = row->text.size,
                      .num_words = n,
                      .weight = (float)(row->weight * r->weight),
                      .file = r->file,
                      .line = line,
                      .from_spans = row->from_spans};
  e.text = sw_strndup(row->text.data, row->text.size);
  e.words = sw_alloc_array(n, sizeof *e.words);
  e.layers = sw_alloc_array(known, sizeof *e.layers);
  e.tags = sw_alloc_array(known * n, sizeof *e.tags);
  status = e.text && e.words && e.layers && e.tags ? 0 : -1;
  if (!status) memcpy(e.words, row->words.items, n * sizeof *e.words);
  size_t repaired = r->repaired;
  for (size_t c = 0; c < row->num_columns && !status; c++) {
    int layer = find_layer(r, row->names[c]);
    if (layer < 0 && r->fixed) continue;
    if (layer < 0) layer = add_layer(r, row->names[c]);
    if (layer < 0) {
      status = -1;
      break;
    }
    int32_t before = 0, *tags = e.tags + e.num_layers * n;
    for (size_t w = 0; w < n && !status; w++) {
      tags[w] = before = raw_tag(r, &r->layers[layer], &row->tags[c * n + w], before);
      if (before == -1) status = -1;
      if (before == -2)
        status = sw_bad_row(r, "more than %d types of entities in layer %s", (int)SW_MAX_TYPES, row->names[c]);
    }
    if (row->from_spans) r->covered[layer] = 1;
    e.layers[e.num_layers++] = (uint32_t)layer;
  }
  if (status) {
    r->repaired = repaired;
    free(e.text);
    free(e.words);
    free(e.layers);
    free(e.tags);
    return status;
  }
  r->examples[r->num_examples++] = e;
  r->rows++;
  return 0;
}
