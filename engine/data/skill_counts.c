#include "engine/data/skill_counts.h"
#include "base/error.h"
#include "engine/data/rows.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"

#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>
#include <unicode/utf8.h>

enum { MAX_ROW = 64 << 20, MAX_DATES = 20000 }; /* 54 years of days */

char *sw_tidy_text(const char *text, int fold) {
  int32_t n = (int32_t)strlen(text), i = 0;
  sw_buffer out = {0};
  int space = 0;
  while (i < n) {
    UChar32 c;
    U8_NEXT((const uint8_t *)text, i, n, c);
    if (c < 0) continue;
    if (u_isUWhiteSpace(c) || u_charType(c) == U_CONTROL_CHAR) {
      space = out.size > 0;
      continue;
    }
    uint8_t bytes[8];
    int32_t length = 0;
    UBool error = 0;
    if (space) bytes[length++] = ' ';
    space = 0;
    if (fold) c = u_foldCase(c, U_FOLD_CASE_DEFAULT);
    U8_APPEND(bytes, length, 8, c, error);
    if (error || sw_buffer_append(&out, bytes, (size_t)length)) {
      sw_buffer_close(&out);
      return NULL;
    }
  }
  return sw_buffer_take(&out);
}

/* A bullet or a dash is no skill. */
static int has_letter(const char *text) {
  int32_t n = (int32_t)strlen(text), i = 0;
  while (i < n) {
    UChar32 c;
    U8_NEXT((const uint8_t *)text, i, n, c);
    if (c >= 0 && u_isalnum(c)) return 1;
  }
  return 0;
}

/* Of a linked span its label; of the others of a linked input the key of skill_key.h; otherwise the folded text. Behind the layer's number. */
static char *make_key(sw_skill_counts *c, const char *text, int layer, int linked, int unified) {
  char *folded = sw_tidy_text(text, 1), *key = NULL;
  sw_buffer out = {0};
  if (!folded) return NULL;
  const int forms = linked || !unified ? 1 : sw_skill_keys_read(c->unify, SW_FORMS_TEXT, text, strlen(text));
  const char *words = linked || !unified ? folded : forms > 0 ? sw_skill_key(c->unify, sw_skill_keys_plain(c->unify), SW_KEY_JOINED) : forms ? NULL : folded;
  if (words && !sw_buffer_print(&out, "%d:%s%s", layer, !unified ? "" : linked ? "linked:" : "words:", words)) key = sw_buffer_take(&out);
  sw_buffer_close(&out);
  free(folded);
  return key;
}

static sw_skill_count *find_skill(sw_skill_counts *c, const char *text, int layer, int linked, int unified) {
  char *key = make_key(c, text, layer, linked, unified);
  const int64_t at = key ? sw_table_add(&c->keys, key) : -1;
  free(key);
  if (at < 0) return NULL;
  if (at < c->count) return &c->skills[at];
  if (c->count == c->capacity) {
    int capacity = c->capacity ? 2 * c->capacity : 256;
    sw_skill_count *skills = sw_realloc_array(c->skills, (unsigned long)capacity, sizeof *skills);
    if (!skills) return NULL;
    c->skills = skills;
    c->capacity = capacity;
  }
  sw_skill_count *s = &c->skills[at];
  *s = (sw_skill_count){.key = c->keys.keys[at], .layer = layer, .name = sw_tidy_text(text, 0), .last_posting = -1};
  c->count++;
  return s->name ? s : NULL;
}

static int find_date(sw_skill_counts *c, const char *path, const char *date) {
  const int64_t at = sw_table_add(&c->dates, date);
  if (at < 0) return -1;
  if (at >= MAX_DATES)
    return sw_fail("%s: more than %d different dates, the last '%.40s': write dates as 2026-01-05 or 05-01-2026, a time may follow", path, MAX_DATES, date);
  if (at >= c->dates_room) {
    const int room = c->dates_room ? 2 * c->dates_room : 64;
    int *of = sw_realloc_array(c->postings_of, (unsigned long)room, sizeof *of);
    if (!of) return -1;
    for (int i = c->dates_room; i < room; i++) of[i] = 0;
    c->postings_of = of;
    c->dates_room = room;
  }
  return (int)at;
}

/* 1: a posting of that id and date was read before. */
static int know_posting(sw_skill_counts *c, const char *id, int d) {
  sw_buffer dated = {0};
  if (!id || !*id) return 0;
  const size_t before = c->ids_dated.count, ids = c->ids.count;
  const int failed = sw_buffer_print(&dated, "%d:%s", d, id) || sw_table_add(&c->ids_dated, dated.data) < 0 || sw_table_add(&c->ids, id) < 0;
  sw_buffer_close(&dated);
  if (failed) return -1;
  if (c->ids.count > c->ids_room) {
    const size_t room = c->ids_room ? 2 * c->ids_room : 1024;
    int *of = sw_realloc_array(c->date_of_id, room, sizeof *of);
    if (!of) return -1;
    c->date_of_id = of;
    c->ids_room = room;
  }
  if (c->ids.count > ids) c->date_of_id[ids] = d;
  return c->ids_dated.count == before;
}

static int count_in(sw_skill_count *s, const sw_skill_counts *c, int d) {
  if (s->last_posting == c->postings) return 0;
  s->last_posting = c->postings;
  if (d >= s->dates) {
    const int dates = (int)c->dates.count;
    int *by_date = sw_realloc_array(s->by_date, (unsigned long)dates, sizeof *by_date);
    if (!by_date) return -1;
    for (int k = s->dates; k < dates; k++) by_date[k] = 0;
    s->by_date = by_date;
    s->dates = dates;
  }
  s->by_date[d]++;
  s->total++;
  return 0;
}

static int count_span(sw_skill_counts *c, const json_t *span, int d) {
  const char *text = json_string_value(json_object_get(span, "text")), *of = json_string_value(json_object_get(span, "layer"));
  const int64_t layer = of || c->by_layer ? sw_table_add(&c->layers, of ? of : "") : 0;
  if (layer < 0) return -1;
  if (!text || !has_letter(text) || (c->layer && (!of || strcmp(of, c->layer)))) return 0;
  const json_t *link = json_object_get(span, "skill"); /* null: linked to none */
  const char *label = json_string_value(json_object_get(link, "label"));
  c->spans++;
  c->linked += label != NULL;
  c->any_linked |= link != NULL;
  sw_skill_count *s = find_skill(c, label ? label : text, c->by_layer ? (int)layer : 0, label != NULL, link != NULL);
  return s ? count_in(s, c, d) : -1;
}

/* 0: counted; 1: no tagged posting, or (with `why`) one that is known. */
static int count_posting(sw_skill_counts *c, const char *path, const json_t *row, const char **why) {
  const char *of_row = json_string_value(json_object_get(row, "date"));
  const json_t *spans = json_object_get(row, "spans"), *span;
  size_t i;
  *why = "no tagged posting: \"spans\" is missing; give the output of skillwatch infer tag or infer link";
  if (!json_is_array(spans)) return 1;
  char *date = sw_tidy_text(of_row ? of_row : "", 0);
  char iso[16];
  const int d = date ? find_date(c, path, sw_date_iso(date, iso) ? iso : *date ? date : "undated") : -1;
  free(date);
  if (d < 0) return -1;
  const int known = c->known_postings ? know_posting(c, json_string_value(json_object_get(row, "id")), d) : 0;
  *why = "a posting of this id and date was read before";
  if (known) return known;
  c->postings_of[d]++;
  json_array_foreach(spans, i, span) if (count_span(c, span, d)) return -1;
  c->postings++;
  return 0;
}

int sw_skill_counts_open(sw_skill_counts *c) { return sw_skill_keys_open(&c->unify); }

int sw_skill_counts_read(sw_skill_counts *c, const char *path, sw_rejects *rejects) {
  sw_window window;
  sw_rows rows;
  const char *text, *why;
  size_t bytes;
  uint64_t line;
  if (sw_window_open(&window, path, 0) || sw_rows_open(&rows, window, path, MAX_ROW)) return -1;
  int more, status = 0;
  while (!status && (more = sw_rows_next(&rows, &text, &bytes, &line)) > 0) {
    json_error_t error;
    json_t *row = NULL;
    if (more == SW_ROW) status = sw_json_row(text, bytes, 0, &row, &error);
    why = more == SW_ROW ? error.text : "the row is too long";
    if (!status && row) status = count_posting(c, path, row, &why);
    if (status > 0 || (!status && !row)) {
      c->rejected++;
      status = sw_rejects_add(rejects, path, line, why, text, bytes);
    }
    json_decref(row);
  }
  sw_rows_close(&rows);
  return status || more < 0 ? -1 : 0;
}

int sw_skill_at(const sw_skill_count *s, int d) { return d < s->dates ? s->by_date[d] : 0; }

int sw_skill_counts_check_layer(const sw_skill_counts *c) {
  if (!c->layer || !c->layers.count || sw_table_find(&c->layers, c->layer) >= 0) return 0;
  sw_buffer names = {0};
  for (size_t i = 0; i < c->layers.count; i++) sw_buffer_print(&names, "%s%s", names.size ? ", " : "", c->layers.keys[i]);
  sw_fail("no span has the layer '%s'; the layers are: %s", c->layer, names.data ? names.data : "");
  sw_buffer_close(&names);
  return -1;
}

static int by_total(const void *a, const void *b) {
  const sw_skill_count *x = a, *y = b;
  return x->total != y->total ? (x->total < y->total) - (x->total > y->total) : strcmp(x->key, y->key);
}

void sw_skill_counts_sort(sw_skill_counts *c) {
  if (c->count) qsort(c->skills, (size_t)c->count, sizeof *c->skills, by_total);
}

void sw_skill_counts_close(sw_skill_counts *c) {
  for (int i = 0; i < c->count; i++) {
    free(c->skills[i].name);
    free(c->skills[i].by_date);
  }
  free(c->skills);
  sw_table_close(&c->keys);
  sw_table_close(&c->dates);
  sw_table_close(&c->layers);
  sw_table_close(&c->ids);
  sw_table_close(&c->ids_dated);
  free(c->date_of_id);
  free(c->postings_of);
  sw_skill_keys_close(c->unify);
  *c = (sw_skill_counts){0};
}
