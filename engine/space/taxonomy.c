#include "engine/space/taxonomy.h"
#include "base/error.h"
#include "engine/data/csv.h"
#include "engine/text/words.h"

#include <stdlib.h>
#include <string.h>

const char *const sw_link_reasons[SW_LINK_REASONS] = {"unlinked", "label", "alternative", "normalised", "embedding", "ambiguous"};

enum { EXACT = SW_KEYS, KINDS, NO_TERM = UINT32_MAX, SEVERAL = UINT32_MAX - 1 };

/* Of a key: the term whose label has it, and the one whose alternative has it. */
struct sw_taxonomy_entry {
  uint32_t label, alternative; /* a term, NO_TERM or SEVERAL */
};

/* --- keys --- */

/* The name of a key in the table: each kind has a space of its own. */
static int name_key(sw_buffer *out, int kind, const char *key, size_t bytes) {
  const char mark = (char)('0' + kind);
  sw_buffer_clear(out);
  return sw_buffer_append(out, &mark, 1) || sw_buffer_append(out, key, bytes) ? -1 : 0;
}

static int add_key(sw_taxonomy *t, sw_buffer *name, uint32_t term) {
  const size_t before = t->keys.count;
  const int64_t at = sw_table_add(&t->keys, name->data);
  if (at < 0) return -1;
  if (t->keys.count > t->entry_capacity) {
    const size_t larger = 2 * t->entry_capacity + 256;
    struct sw_taxonomy_entry *entries = sw_realloc_array(t->entries, larger, sizeof *entries);
    if (!entries) return -1;
    t->entries = entries;
    t->entry_capacity = larger;
  }
  struct sw_taxonomy_entry *e = &t->entries[at];
  if (t->keys.count > before) *e = (struct sw_taxonomy_entry){NO_TERM, NO_TERM};
  uint32_t *place = t->terms[term].is_label ? &e->label : &e->alternative;
  if (*place == NO_TERM)
    *place = term;
  else if (*place != SEVERAL && t->terms[*place].skill != t->terms[term].skill)
    *place = SEVERAL;
  return 0;
}

static int add_keys(sw_taxonomy *t, sw_skill_keys *keys, uint32_t term) {
  const char *text = t->terms[term].text;
  sw_buffer name = {0};
  int status = name_key(&name, EXACT, text, strlen(text)) || add_key(t, &name, term) ? -1 : 0;
  const int forms = status ? -1 : sw_skill_keys_read(keys, SW_FORMS_TERM, text, strlen(text));
  if (forms < 0) status = -1;
  for (int f = 0; f < forms && !status; f++)
    for (int kind = 0; kind < SW_KEYS && !status; kind++) {
      const char *key = sw_skill_key(keys, f, (sw_key_kind)kind);
      status = !key || (*key && (name_key(&name, kind, key, strlen(key)) || add_key(t, &name, term))) ? -1 : 0;
    }
  sw_buffer_close(&name);
  return status;
}

/* 1: the key decides; 0: no term has it. */
static int decide(const sw_taxonomy *t, const char *name, sw_link_reason *reason, uint32_t *term) {
  const int64_t at = sw_table_find(&t->keys, name);
  if (at < 0) return 0;
  const struct sw_taxonomy_entry *e = &t->entries[at];
  const uint32_t found = e->label != NO_TERM ? e->label : e->alternative;
  *reason = found == SEVERAL ? SW_LINK_AMBIGUOUS : *name != '0' + EXACT ? SW_LINK_NORMALISED : t->terms[found].is_label ? SW_LINK_LABEL : SW_LINK_ALTERNATIVE;
  *term = found;
  return 1;
}

int sw_taxonomy_find(const sw_taxonomy *t, sw_skill_keys *keys, const char *text, size_t bytes, sw_link_reason *reason, uint32_t *term) {
  sw_buffer name = {0};
  int status = name_key(&name, EXACT, text, bytes), found = !status && decide(t, name.data, reason, term);
  const int forms = status || found ? 0 : sw_skill_keys_read(keys, SW_FORMS_TEXT, text, bytes);
  if (forms < 0) status = -1;
  for (int f = 0; f < forms && !status && !found; f++)
    for (int kind = 0; kind < SW_KEYS && !status && !found; kind++) {
      const char *key = sw_skill_key(keys, f, (sw_key_kind)kind);
      status = !key || name_key(&name, kind, key, strlen(key)) ? -1 : 0;
      found = !status && *key && decide(t, name.data, reason, term);
    }
  sw_buffer_close(&name);
  if (!found) *reason = SW_LINK_NONE;
  return status;
}

/* --- the file --- */

typedef struct {
  const char *id, *label, *alternatives[2], *parent;
} known_columns;
static const known_columns known[] = {{"id", "label", {"alternatives", NULL}, "parent"},
                                      {"conceptUri", "preferredLabel", {"altLabels", "hiddenLabels"}, "broaderUri"},
                                      {"Element ID", "Element Name", {NULL, NULL}, NULL},
                                      {"Example", "Example", {NULL, NULL}, NULL}};
enum { ID, LABEL, PARENT, ALTERNATIVES, HIDDEN, FIELDS };

static int find_columns(const sw_csv *csv, const sw_taxonomy_columns *asked, int fields[FIELDS]) {
  const known_columns *k = known;
  while (k < known + sizeof known / sizeof *known && (sw_csv_column(csv, k->id) < 0 || sw_csv_column(csv, k->label) < 0)) k++;
  static const known_columns none;
  if (k == known + sizeof known / sizeof *known) k = &none;
  const char *names[FIELDS] = {k->id, k->label, k->parent, k->alternatives[0], k->alternatives[1]},
             *wanted[FIELDS] = {asked->id, asked->label, asked->parent, asked->alternatives, NULL};
  for (int i = 0; i < FIELDS; i++) {
    fields[i] = wanted[i] ? sw_csv_column(csv, wanted[i]) : names[i] && !(i == HIDDEN && asked->alternatives) ? sw_csv_column(csv, names[i]) : -1;
    if (fields[i] >= 0 || (!wanted[i] && i > LABEL)) continue;
    char *columns = sw_csv_column_list(csv);
    if (!columns) return -1;
    if (wanted[i])
      sw_fail("%s has no column '%s'; its columns are: %s", csv->path, wanted[i], columns);
    else
      sw_fail("%s: which column holds the skills' %ss? Name it with --%s-column; the columns are: %s", csv->path, i == ID ? "id" : "label",
              i == ID ? "id" : "label", columns);
    free(columns);
    return -1;
  }
  return 0;
}

static const char *skip_space(const char *at, const char *end) {
  while (at < end && strchr(" \t\r\n", *at)) at++;
  return at;
}

/* A field without white space around it; valid until `out` changes. */
static const char *field_text(const sw_csv *csv, int field, sw_buffer *out) {
  sw_buffer_clear(out);
  if (field < 0) return "";
  if (sw_csv_field_text(&csv->fields[field], out) || sw_buffer_append(out, "", 1)) return NULL;
  while (out->size > 1 && strchr(" \t\r\n", out->data[out->size - 2])) out->data[--out->size - 1] = 0;
  return skip_space(out->data, out->data + out->size - 1);
}

static int add_term(sw_taxonomy *t, sw_skill_keys *keys, uint32_t skill, const char *text, size_t bytes, int is_label) {
  if (t->num_terms == t->term_capacity) {
    const size_t larger = 2 * t->term_capacity + 256;
    sw_taxonomy_term *terms = larger < SEVERAL ? sw_realloc_array(t->terms, larger, sizeof *terms) : NULL;
    if (!terms) return larger < SEVERAL ? -1 : sw_fail("more than %u labels", SEVERAL / 2);
    t->terms = terms;
    t->term_capacity = larger;
  }
  sw_taxonomy_term *term = &t->terms[t->num_terms];
  *term = (sw_taxonomy_term){sw_strndup(text, bytes), skill, is_label};
  if (!term->text) return -1;
  return add_keys(t, keys, (uint32_t)t->num_terms++);
}

static int add_alternatives(sw_taxonomy *t, sw_skill_keys *keys, uint32_t skill, const char *list) {
  for (const char *at = list; *at;) {
    size_t bytes = strcspn(at, "|\n"), used = bytes + (at[bytes] != 0);
    const char *from = skip_space(at, at + bytes), *to = at + bytes;
    while (to > from && strchr(" \t\r", to[-1])) to--;
    if (to > from && add_term(t, keys, skill, from, (size_t)(to - from), 0)) return -1;
    at += used;
  }
  return 0;
}

/* 0, -1, or 1 where `reason` says why the row is set aside. */
static int add_row(sw_taxonomy *t, sw_skill_keys *keys, const char *id, const char *label, const char *parent, char reason[256]) {
  if (!*id || !*label) return snprintf(reason, 256, "the %s is empty", *id ? "label" : "id"), 1;
  const int64_t by_label = sw_table_find(&t->labels, label), by_id = sw_table_find(&t->ids, id);
  if (by_label >= 0 && by_label == by_id) return 0; /* the same skill again */
  if (by_id >= 0) return snprintf(reason, 256, "the id %.80s has the label %.80s already", id, t->skills[by_id].label), 1;
  if (by_label >= 0) return snprintf(reason, 256, "the label %.80s has the id %.80s already", label, t->skills[by_label].id), 1;
  if (t->num_skills == t->skill_capacity) {
    const size_t larger = 2 * t->skill_capacity + 256;
    sw_taxonomy_skill *skills = sw_realloc_array(t->skills, larger, sizeof *skills);
    if (!skills) return -1;
    t->skills = skills;
    t->skill_capacity = larger;
  }
  const int64_t parents = sw_table_add(&t->parents, parent);
  if (sw_table_add(&t->ids, id) < 0 || sw_table_add(&t->labels, label) < 0 || parents < 0) return -1;
  t->skills[t->num_skills] = (sw_taxonomy_skill){t->ids.keys[t->num_skills], t->labels.keys[t->num_skills], t->parents.keys[parents]};
  return add_term(t, keys, (uint32_t)t->num_skills++, label, strlen(label), 1);
}

/* Takes the record that `csv` has: 0, -1, or 1 where `reason` says why it is set aside. */
static int read_row(sw_taxonomy *t, sw_skill_keys *keys, const sw_csv *csv, const int fields[FIELDS], sw_buffer texts[FIELDS], char reason[256]) {
  const char *text[FIELDS];
  for (int i = 0; i < FIELDS; i++) {
    if (!(text[i] = field_text(csv, fields[i], &texts[i]))) return -1;
    if (fields[i] < 0 || !sw_check_utf8(texts[i].data, texts[i].size - 1)) continue;
    snprintf(reason, 256, "%.200s", sw_error());
    return 1;
  }
  const int status = add_row(t, keys, text[ID], text[LABEL], text[PARENT], reason);
  if (status) return status;
  const uint32_t skill = (uint32_t)sw_table_find(&t->ids, text[ID]);
  return add_alternatives(t, keys, skill, text[ALTERNATIVES]) || add_alternatives(t, keys, skill, text[HIDDEN]) ? -1 : 0;
}

static int read_rows(sw_taxonomy *t, sw_skill_keys *keys, sw_csv *csv, const int fields[FIELDS]) {
  sw_buffer texts[FIELDS] = {0};
  sw_rejects rejects = {0}; /* without a path: it keeps the reason only */
  uint64_t line;
  int status;
  while ((status = sw_csv_next(csv, &rejects, &line)) > 0) {
    char reason[256];
    if (status == 2) snprintf(reason, sizeof reason, "%s", rejects.reason);
    else if (!(status = read_row(t, keys, csv, fields, texts, reason))) continue;
    if (status < 0) break;
    t->rejected++;
    snprintf(t->reason, sizeof t->reason, "line %llu: %.200s", (unsigned long long)line, reason);
  }
  for (int i = 0; i < FIELDS; i++) sw_buffer_close(&texts[i]);
  sw_rejects_close(&rejects);
  return status;
}

int sw_taxonomy_open(const char *path, const sw_taxonomy_columns *columns, sw_skill_keys *keys, sw_taxonomy *t) {
  int fields[FIELDS];
  sw_csv csv;
  *t = (sw_taxonomy){0};
  if (sw_csv_open(&csv, path, 0, 0)) return -1;
  int status = find_columns(&csv, columns, fields) || read_rows(t, keys, &csv, fields) ? -1 : 0;
  sw_csv_close(&csv);
  if (!status && !t->num_skills)
    status = sw_fail("%s has no usable row%s%s: a taxonomy has an id and a label in every row", path, t->rejected ? "; " : "", t->reason);
  for (size_t i = 0; i < t->num_skills && !status; i++) t->unknown_parents += *t->skills[i].parent && sw_table_find(&t->ids, t->skills[i].parent) < 0;
  if (status) sw_taxonomy_close(t);
  return status;
}

void sw_taxonomy_close(sw_taxonomy *t) {
  for (size_t i = 0; i < t->num_terms; i++) free(t->terms[i].text);
  free(t->terms);
  free(t->skills);
  free(t->entries);
  sw_table_close(&t->ids);
  sw_table_close(&t->labels);
  sw_table_close(&t->parents);
  sw_table_close(&t->keys);
  *t = (sw_taxonomy){0};
}
