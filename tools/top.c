/* skillwatch top: which skills the tagged postings ask for, by date. A posting counts once for a skill, however often it names it. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/table.h"
#include "engine/store/config_file.h"
#include "engine/text/skill_key.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>
#include <unicode/utf8.h>

enum { MAX_LINE = 64 << 20, MAX_DATES = 4096, SHOWN_DATES = 8 };

typedef struct {
  const char *key; /* compared; the table's */
  char *name;      /* as first seen: printed */
  int *by_date;    /* [dates] postings */
  int dates;       /* room in by_date */
  int total;
  long last_posting;
} skill;

typedef struct {
  sw_table keys;
  skill *skills; /* [count], as keys */
  int count, capacity;
  char **dates;
  int num_dates, *postings_of; /* [num_dates] */
  long postings, rejected;
  long linked, spans;  /* spans that count, and those of them that are linked to a taxonomy's skill */
  int any_linked;      /* infer link made one of the inputs */
  sw_skill_keys *unify; /* of unlinked spans of such an input */
  json_t *layers; /* the keys: layers of the spans seen */
} counts;

/* White space and control characters, which a terminal would obey, as one space; with `fold` in lower case: "Machine  learning" and
 * "machine learning" are one skill. */
static char *tidy(const char *text, int fold) {
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

/* What tells one skill from another: of a linked span its label; of the others of a linked input the key of skill_key.h; otherwise the folded text. */
static char *make_key(counts *c, const char *text, int linked, int unified) {
  char *folded = tidy(text, 1), *key = NULL;
  sw_buffer out = {0};
  if (!folded || !unified) return folded;
  const int forms = linked ? 1 : sw_skill_keys_read(c->unify, SW_FORMS_TEXT, text, strlen(text));
  const char *words = linked ? folded : forms > 0 ? sw_skill_key(c->unify, sw_skill_keys_plain(c->unify), SW_KEY_JOINED) : forms ? NULL : folded;
  if (words && !sw_buffer_print(&out, "%s:%s", linked ? "linked" : "words", words)) key = sw_buffer_take(&out);
  sw_buffer_close(&out);
  free(folded);
  return key;
}

static skill *find_skill(counts *c, const char *text, int linked, int unified) {
  char *key = make_key(c, text, linked, unified);
  const int64_t at = key ? sw_table_add(&c->keys, key) : -1;
  free(key);
  if (at < 0) return NULL;
  if (at < c->count) return &c->skills[at];
  if (c->count == c->capacity) {
    int capacity = c->capacity ? 2 * c->capacity : 256;
    skill *skills = sw_realloc_array(c->skills, (unsigned long)capacity, sizeof *skills);
    if (!skills) return NULL;
    c->skills = skills;
    c->capacity = capacity;
  }
  skill *s = &c->skills[at];
  *s = (skill){.key = c->keys.keys[at], .name = tidy(text, 0), .last_posting = -1};
  c->count++;
  return s->name ? s : NULL;
}

static int find_date(counts *c, const char *date) {
  for (int i = 0; i < c->num_dates; i++)
    if (!strcmp(c->dates[i], date)) return i;
  if (c->num_dates == MAX_DATES) return sw_fail("more than %d dates", MAX_DATES);
  char **dates = sw_realloc_array(c->dates, (unsigned long)c->num_dates + 1, sizeof *dates);
  if (!dates) return -1;
  c->dates = dates;
  int *of = sw_realloc_array(c->postings_of, (unsigned long)c->num_dates + 1, sizeof *of);
  if (!of) return -1;
  c->postings_of = of;
  if (!(dates[c->num_dates] = sw_strdup(date))) return -1;
  of[c->num_dates] = 0;
  return c->num_dates++;
}

static int count_posting(counts *c, const json_t *row, const char *layer) {
  const char *of_row = json_string_value(json_object_get(row, "date"));
  const json_t *spans = json_object_get(row, "spans");
  if (!json_is_array(spans)) return 1;
  char *date = tidy(of_row ? of_row : "", 0);
  int d = date ? find_date(c, *date ? date : "undated") : -1;
  free(date);
  if (d < 0) return -1;
  long posting = c->postings++;
  c->postings_of[d]++;
  for (size_t i = 0; i < json_array_size(spans); i++) {
    const json_t *span = json_array_get(spans, i);
    const char *text = json_string_value(json_object_get(span, "text")), *of = json_string_value(json_object_get(span, "layer"));
    if (of && json_object_set_new(c->layers, of, json_true())) return sw_fail("out of memory");
    if (!text || !has_letter(text) || (layer && (!of || strcmp(of, layer)))) continue;
    const json_t *link = json_object_get(span, "skill"); /* null: linked to none */
    const char *label = json_string_value(json_object_get(link, "label"));
    c->spans++;
    c->linked += label != NULL;
    c->any_linked |= link != NULL;
    skill *s = find_skill(c, label ? label : text, label != NULL, link != NULL);
    if (!s) return -1;
    if (s->last_posting == posting) continue;
    s->last_posting = posting;
    if (d >= s->dates) {
      int *by_date = sw_realloc_array(s->by_date, (unsigned long)c->num_dates, sizeof *by_date);
      if (!by_date) return -1;
      for (int k = s->dates; k < c->num_dates; k++) by_date[k] = 0;
      s->by_date = by_date;
      s->dates = c->num_dates;
    }
    s->by_date[d]++;
    s->total++;
  }
  return 0;
}

static int read_tags(counts *c, const char *path, const char *layer) {
  FILE *file = strcmp(path, "-") ? fopen(path, "re") : stdin;
  if (!file) return sw_fail("cannot open %s: %s", path, strerror(errno));
  char *line = NULL;
  size_t room = 0;
  ssize_t bytes;
  int status = 0;
  while (status >= 0 && (bytes = getline(&line, &room, file)) > 0) {
    json_t *row = bytes < MAX_LINE ? json_loadb(line, (size_t)bytes, 0, NULL) : NULL;
    status = row ? count_posting(c, row, layer) : 1;
    c->rejected += status > 0;
    json_decref(row);
  }
  free(line);
  if (status >= 0 && ferror(file)) status = sw_fail("cannot read %s: %s", path, strerror(errno));
  if (file != stdin) fclose(file);
  return status < 0 ? -1 : 0;
}

/* A layer that no span has is a slip, and an empty table would hide it. */
static int check_layer(const counts *c, const char *layer) {
  if (!layer || !json_object_size(c->layers) || json_object_get(c->layers, layer)) return 0;
  sw_buffer names = {0};
  const char *name;
  json_t *value;
  json_object_foreach(c->layers, name, value) sw_buffer_print(&names, "%s%s", names.size ? ", " : "", name);
  sw_fail("no span has the layer '%s'; the layers are: %s", layer, names.data);
  sw_buffer_close(&names);
  return -1;
}

static int at_date(const skill *s, int d) { return d < s->dates ? s->by_date[d] : 0; }

static int by_total(const void *a, const void *b) {
  const skill *x = a, *y = b;
  return x->total != y->total ? (x->total < y->total) - (x->total > y->total) : strcmp(x->key, y->key);
}

/* DD-MM-YYYY and YYYY-MM-DD in the order of time; anything else as text. */
static void date_key(const char *date, char key[64]) {
  if (strlen(date) == 10 && date[2] == '-' && date[5] == '-')
    snprintf(key, 64, "%.4s-%.2s-%.2s", date + 6, date + 3, date);
  else
    snprintf(key, 64, "%.60s", date);
}
static char *const *dates_being_sorted;
static int by_date_key(const void *a, const void *b) {
  char x[64], y[64];
  date_key(dates_being_sorted[*(const int *)a], x);
  date_key(dates_being_sorted[*(const int *)b], y);
  return strcmp(x, y);
}

static int columns_of(const char *text) { /* code points: close enough to the width on a terminal */
  int n = 0;
  for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
  return n;
}

static void print_table(const counts *c, const int *order, int top) {
  int first = c->num_dates > SHOWN_DATES ? c->num_dates - SHOWN_DATES : 0, width = 10;
  for (int k = 0; k < top; k++)
    if (columns_of(c->skills[k].name) > width) width = columns_of(c->skills[k].name);
  if (width > 40) width = 40;
  printf("%-*s", width, "skill");
  for (int i = first; i < c->num_dates; i++) printf(" %10s", c->dates[order[i]]);
  printf("  %8s\n%-*s", "postings", width, "(postings of that date)");
  for (int i = first; i < c->num_dates; i++) printf(" %10d", c->postings_of[order[i]]);
  printf("  %8ld\n", c->postings);
  for (int k = 0; k < top; k++) {
    const skill *s = &c->skills[k];
    printf("%s%*s", s->name, width - columns_of(s->name) > 0 ? width - columns_of(s->name) : 0, "");
    for (int i = first; i < c->num_dates; i++) printf(" %10d", at_date(s, order[i]));
    printf("  %8d\n", s->total);
  }
}

static int print_json(const counts *c, const int *order, int top) {
  json_t *out = json_object(), *dates = json_array(), *skills = json_array();
  for (int i = 0; i < c->num_dates; i++)
    json_array_append_new(dates, json_pack("{s:s, s:i}", "date", c->dates[order[i]], "postings", c->postings_of[order[i]]));
  for (int k = 0; k < top; k++) {
    json_t *by = json_array();
    for (int i = 0; i < c->num_dates; i++) json_array_append_new(by, json_integer(at_date(&c->skills[k], order[i])));
    json_array_append_new(skills, json_pack("{s:s, s:i, s:o}", "skill", c->skills[k].name, "postings", c->skills[k].total, "by_date", by));
  }
  int failed = json_object_set_new(out, "dates", dates) || json_object_set_new(out, "skills", skills) ||
               json_dumpf(out, stdout, JSON_COMPACT);
  putchar('\n');
  json_decref(out);
  return failed ? sw_fail("cannot write to standard output") : 0;
}

static int body(int argc, char **argv) {
  const char *layer = NULL;
  int top = 15, json = 0;
  const sw_option options[] = {{"count", 'k', SW_OPTION_INT, &top, "N", "skills to show"},
                               {"layer", 0, SW_OPTION_TEXT, &layer, "NAME", "of this label layer only, as 'knowledge'"},
                               {"json", 0, SW_OPTION_FLAG, &json, NULL, "print JSON"},
                               {0}};
  const sw_command command = {"skillwatch top TAGS.jsonl [...] [options]",
                              "Counts in how many postings of each date a skill was tagged; the latest 8 dates are shown, --json gives all. Spans without a\n"
                              "letter or digit are no skills. Of tags that infer link linked, a taxonomy's skill counts once under its label.",
                              "skillwatch top tags.jsonl -k 10 --layer knowledge", options};
  sw_list inputs = {0};
  counts c = {.layers = json_object()};
  int *order = NULL, status = sw_config_parse(&command, argc, argv, &inputs), code = SW_EXIT_DONE;
  if (!status && !inputs.count) status = sw_fail("which tags? skillwatch infer tag -m CKPT POSTINGS -o tags.jsonl writes them");
  if (!status && top < 1) status = sw_fail("-k must be at least 1");
  if (status) code = status < 0 ? sw_exit_message(SW_EXIT_USAGE) : SW_EXIT_DONE;
  if (!status) status = sw_skill_keys_open(&c.unify);
  for (int i = 0; !status && i < inputs.count; i++) status = read_tags(&c, inputs.items[i], layer);
  if (!status && !c.postings && c.rejected)
    status = sw_fail("no tagged posting was found in %ld line%s: give the output of skillwatch infer tag", c.rejected, SW_S(c.rejected));
  if (!status) status = check_layer(&c, layer);
  if (!status && !(order = sw_alloc_array((unsigned long)c.num_dates, sizeof *order))) status = -1;
  if (!status) {
    for (int i = 0; i < c.num_dates; i++) order[i] = i;
    dates_being_sorted = c.dates;
    if (c.num_dates) qsort(order, (size_t)c.num_dates, sizeof *order, by_date_key);
    if (c.count) qsort(c.skills, (size_t)c.count, sizeof *c.skills, by_total);
    if (top > c.count) top = c.count;
    if (json)
      status = print_json(&c, order, top);
    else
      print_table(&c, order, top);
    if (c.any_linked)
      fprintf(stderr, "%ld of %ld spans are linked to a taxonomy's skills, which count once; the others count by their normalised words\n", c.linked, c.spans);
    if (c.rejected == 1) fprintf(stderr, "1 line is no tagged posting and was skipped\n");
    if (c.rejected > 1) fprintf(stderr, "%ld lines are no tagged postings and were skipped\n", c.rejected);
  }
  if (status < 0 && code == SW_EXIT_DONE) code = sw_exit_message(SW_EXIT_FAILED);
  for (int i = 0; i < c.count; i++) {
    free(c.skills[i].name);
    free(c.skills[i].by_date);
  }
  for (int i = 0; i < c.num_dates; i++) free(c.dates[i]);
  free(c.skills);
  sw_table_close(&c.keys);
  sw_skill_keys_close(c.unify);
  free(c.dates);
  free(c.postings_of);
  free(order);
  json_decref(c.layers);
  sw_list_close(&inputs);
  return code;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
