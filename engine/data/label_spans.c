/* Rows of a text with character spans: plain, prodigy, doccano, Label Studio. */
#include "base/error.h"
#include "engine/data/label_rows.h"

#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

typedef struct {
  json_int_t start, end; /* half-open; code points */
  const char *label;
  size_t label_bytes;
  const char *quote; /* the text of the span as the export quotes it, or NULL */
  size_t quote_bytes;
  size_t column;
} raw_span;

typedef struct {
  raw_span *items;
  size_t count, capacity;
} raw_spans;

static json_t *either(const json_t *object, const char *key, const char *other) {
  json_t *value = json_object_get(object, key);
  return value ? value : json_object_get(object, other);
}

static int append(raw_spans *spans, raw_span span) {
  if (spans->count == spans->capacity) {
    size_t capacity = spans->capacity ? spans->capacity * 2 : 16;
    raw_span *items = sw_realloc_array(spans->items, capacity, sizeof *items);
    if (!items) return -1;
    spans->items = items;
    spans->capacity = capacity;
  }
  spans->items[spans->count++] = span;
  return 0;
}

/* One span: {"start","end","label"}, with "labels": [...] it stands for several; or [start, end, label]. */
static int read_span(sw_label_reader *r, json_t *item, raw_spans *spans) {
  size_t number = spans->count + 1;
  json_t *start, *end, *label, *quote = NULL, *labels = NULL;
  if (json_is_array(item)) {
    start = json_array_get(item, 0), end = json_array_get(item, 1), label = json_array_get(item, 2);
  } else if (json_is_object(item)) {
    start = either(item, "start", "start_offset"), end = either(item, "end", "end_offset");
    label = json_object_get(item, "label");
    labels = json_object_get(item, "labels");
    quote = json_object_get(item, "text");
  } else {
    return sw_bad_row(r, "span %zu is neither an object nor an array", number);
  }
  if (!json_is_integer(start) || !json_is_integer(end))
    return sw_bad_row(r, "span %zu has no whole numbers as start and end", number);
  if (json_is_array(label) && !labels) labels = label;
  size_t count = json_is_array(labels) ? json_array_size(labels) : 1;
  if (!count) return sw_bad_row(r, "span %zu has no label", number);
  for (size_t i = 0; i < count; i++) {
    json_t *one = json_is_array(labels) ? json_array_get(labels, i) : label;
    if (!json_is_string(one)) return sw_bad_row(r, "the label of span %zu is no string", number);
    raw_span span = {json_integer_value(start),
                     json_integer_value(end),
                     json_string_value(one),
                     json_string_length(one),
                     NULL,
                     0,
                     0};
    if (json_is_string(quote)) span.quote = json_string_value(quote), span.quote_bytes = json_string_length(quote);
    if (append(spans, span)) return -1;
  }
  return 0;
}

static int read_list(sw_label_reader *r, json_t *list, raw_spans *spans) {
  size_t index;
  json_t *item;
  json_array_foreach(list, index, item) {
    int status = read_span(r, item, spans);
    if (status) return status;
  }
  return 0;
}

/* Label Studio's full export: the regions of the first annotation that was not cancelled. */
static int read_annotations(sw_label_reader *r, json_t *annotations, raw_spans *spans) {
  size_t index;
  json_t *annotation, *region;
  json_array_foreach(annotations, index, annotation) {
    if (json_is_true(json_object_get(annotation, "was_cancelled"))) continue;
    json_t *result = json_object_get(annotation, "result");
    if (!json_is_array(result)) return sw_bad_row(r, "the annotation has no \"result\"");
    json_array_foreach(result, index, region) {
      json_t *value = json_object_get(region, "value");
      /* relations between regions and choices about the whole text are no spans */
      if (!json_is_object(value) || !json_object_get(value, "labels")) continue;
      int status = read_span(r, value, spans);
      if (status) return status;
    }
    return 0;
  }
  return sw_bad_row(r, "the task has no annotation");
}

static json_t *only_string(json_t *object) {
  json_t *text = json_object_get(object, "text"), *value;
  const char *key;
  if (text) return text;
  json_object_foreach(object, key, value) {
    if (!json_is_string(value)) continue;
    if (text) return NULL;
    text = value;
  }
  return text;
}

/* Finds the text and the spans in any of the forms. */
static int read_row(sw_label_reader *r, json_t *row, json_t **text, raw_spans *spans) {
  json_t *data = json_object_get(row, "data"), *annotations = json_object_get(row, "annotations");
  if (json_is_object(data)) {
    *text = only_string(data);
    if (!json_is_array(annotations)) return sw_bad_row(r, "the task has no \"annotations\"");
    return read_annotations(r, annotations, spans);
  }
  *text = either(row, "text", "data");
  json_t *answer = json_object_get(row, "answer");
  if (json_is_string(answer) && strcmp(json_string_value(answer), "accept"))
    return sw_bad_row(r, "its answer is \"%.40s\", not \"accept\"", json_string_value(answer));
  static const char *const keys[] = {"spans", "label", "labels", "entities"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    json_t *list = json_object_get(row, keys[i]);
    if (json_is_array(list)) return read_list(r, list, spans);
  }
  if (json_is_string(answer)) return 0; /* prodigy leaves "spans" out where there are none */
  return sw_bad_row(r, "neither \"tokens\" with \"tags_<layer>\" nor \"text\" with \"spans\"");
}

/* --- offsets --- */
typedef struct {
  uint32_t *bytes; /* [points + 1]: byte offset of each code point */
  uint32_t *units; /* [points + 1]: its offset in UTF-16 units */
  size_t points;
} offsets;

static int measure(const char *text, size_t size, size_t points, offsets *out) {
  *out =
      (offsets){sw_alloc_array(points + 1, sizeof *out->bytes), sw_alloc_array(points + 1, sizeof *out->units), points};
  if (!out->bytes || !out->units) return -1;
  uint32_t unit = 0;
  int32_t i = 0;
  for (size_t p = 0; p < points; p++) {
    UChar32 c;
    out->bytes[p] = (uint32_t)i;
    out->units[p] = unit;
    U8_NEXT((const uint8_t *)text, i, (int32_t)size, c);
    unit += c > 0xFFFF ? 2 : 1;
  }
  out->bytes[points] = (uint32_t)size;
  out->units[points] = unit;
  return 0;
}

/* Code point at a UTF-16 offset; -1 where there is none. */
static json_int_t point_of_unit(const offsets *o, json_int_t unit) {
  size_t low = 0, high = o->points;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (o->units[middle] < unit)
      low = middle + 1;
    else
      high = middle;
  }
  return o->units[low] == unit ? (json_int_t)low : -1;
}

static int32_t next_visible(const char *text, int32_t *i, int32_t size) {
  UChar32 c;
  while (*i < size) {
    U8_NEXT((const uint8_t *)text, *i, size, c);
    if (!u_isUWhiteSpace(c)) return c;
  }
  return -1;
}

/* Exports differ in how they quote white space, so only the rest is compared. */
static int same_text(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
  int32_t i = 0, j = 0;
  for (;;) {
    int32_t c = next_visible(a, &i, (int32_t)a_bytes);
    if (c != next_visible(b, &j, (int32_t)b_bytes)) return 0;
    if (c < 0) return 1;
  }
}

/* Whether every quoted span says what stands at its place, with offsets in code points or in UTF-16 units. */
static int quotes_fit(const char *text, const offsets *o, const raw_spans *spans, int units) {
  for (size_t i = 0; i < spans->count; i++) {
    const raw_span *s = &spans->items[i];
    if (!s->quote) continue;
    json_int_t start = units ? point_of_unit(o, s->start) : s->start, end = units ? point_of_unit(o, s->end) : s->end;
    if (start < 0 || end < start || end > (json_int_t)o->points) return 0;
    if (!same_text(text + o->bytes[start], o->bytes[end] - o->bytes[start], s->quote, s->quote_bytes)) return 0;
  }
  return 1;
}

/* Converts offsets that count UTF-16 units, as JavaScript tools write them. */
static int settle_offsets(sw_label_reader *r, size_t points, raw_spans *spans) {
  size_t quoted = 0;
  for (size_t i = 0; i < spans->count; i++) quoted += spans->items[i].quote != NULL;
  if (!quoted) return 0;
  const sw_buffer *text = &r->row.text;
  offsets o;
  int status = measure(text->data, text->size, points, &o);
  if (!status && !quotes_fit(text->data, &o, spans, 0)) {
    if (!quotes_fit(text->data, &o, spans, 1))
      status = sw_bad_row(r, "the offsets of its spans do not point at the text they quote");
    for (size_t i = 0; i < spans->count && !status; i++) {
      spans->items[i].start = point_of_unit(&o, spans->items[i].start);
      spans->items[i].end = point_of_unit(&o, spans->items[i].end);
    }
  }
  free(o.bytes);
  free(o.units);
  return status;
}

/* First word that ends behind code point `point`. */
static size_t word_behind(const sw_spans *words, json_int_t point) {
  size_t low = 0, high = words->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if ((json_int_t)words->items[middle].end > point)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

static int place(sw_label_reader *r, const raw_span *span, size_t number, size_t points) {
  const sw_spans *words = &r->row.words;
  long long start = span->start, end = span->end;
  if (start < 0 || end > (long long)points)
    return sw_bad_row(r, "span %zu (%lld to %lld) lies outside the text of %zu characters", number, start, end, points);
  if (start >= end) return sw_bad_row(r, "span %zu (%lld to %lld) is empty", number, start, end);
  size_t first = word_behind(words, start), last = first;
  while (last < words->count && (long long)words->items[last].start < end) last++;
  if (first == last) return sw_bad_row(r, "span %zu (%lld to %lld) holds no word", number, start, end);
  if ((long long)words->items[first].start < start || (long long)words->items[last - 1].end > end) {
    const sw_span *cut = (long long)words->items[first].start < start ? &words->items[first] : &words->items[last - 1];
    return sw_bad_row(r, "span %zu (%lld to %lld) does not align: it cuts the word \"%.*s\"", number, start, end,
                      (int)(cut->byte_end - cut->byte_start > 60 ? 60 : cut->byte_end - cut->byte_start),
                      r->row.text.data + cut->byte_start);
  }
  sw_raw_tag *tags = sw_row_tags(r, span->column);
  for (size_t w = first; w < last; w++) {
    if (tags[w].kind != 'O')
      return sw_bad_row(r, "span %zu (%lld to %lld) overlaps another span of its label", number, start, end);
    tags[w].kind = w == first ? 'B' : 'I';
  }
  return 0;
}

int sw_row_from_spans(sw_label_reader *r, json_t *row) {
  raw_spans spans = {0};
  json_t *text = NULL;
  size_t points = 0;
  int status = read_row(r, row, &text, &spans);
  if (!status && !json_is_string(text)) status = sw_bad_row(r, "no \"text\"");
  if (!status) {
    r->row.from_spans = 1;
    const char *bytes = json_string_value(text);
    size_t size = json_string_length(text);
    status = sw_buffer_append(&r->row.text, bytes, size) || sw_split_words(bytes, size, &r->row.words) ? -1 : 0;
    points = sw_count_code_points(bytes, size);
  }
  if (!status && !r->row.words.count) status = sw_bad_row(r, "the text is empty");
  for (size_t i = 0; i < spans.count && !status; i++)
    status = sw_row_column(r, spans.items[i].label, spans.items[i].label_bytes, 1, &spans.items[i].column);
  if (!status) status = settle_offsets(r, points, &spans);
  if (!status) status = sw_row_allocate(r);
  for (size_t i = 0; i < spans.count && !status; i++) status = place(r, &spans.items[i], i + 1, points);
  free(spans.items);
  return status;
}
