/* skillwatch top: which skills the tagged postings ask for, by date. A posting counts once for a skill, however often it names it. */
#include "base/error.h"
#include "base/options.h"
#include "engine/data/skill_counts.h"
#include "engine/store/config_file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_DATES = 8 };

static char *const *dates_being_sorted;
static int by_date_key(const void *a, const void *b) {
  return strcmp(dates_being_sorted[*(const int *)a], dates_being_sorted[*(const int *)b]);
}

static int columns_of(const char *text) { /* code points: close enough to the width on a terminal */
  int n = 0;
  for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
  return n;
}

static void print_table(const sw_skill_counts *c, const int *order, int top) {
  int first = (int)c->dates.count > SHOWN_DATES ? (int)c->dates.count - SHOWN_DATES : 0, width = 10;
  for (int k = 0; k < top; k++)
    if (columns_of(c->skills[k].name) > width) width = columns_of(c->skills[k].name);
  if (width > 40) width = 40;
  printf("%-*s", width, "skill");
  for (int i = first; i < (int)c->dates.count; i++) printf(" %10s", c->dates.keys[order[i]]);
  printf("  %8s\n%-*s", "postings", width, "(postings of that date)");
  for (int i = first; i < (int)c->dates.count; i++) printf(" %10d", c->postings_of[order[i]]);
  printf("  %8ld\n", c->postings);
  for (int k = 0; k < top; k++) {
    const sw_skill_count *s = &c->skills[k];
    printf("%s%*s", s->name, width - columns_of(s->name) > 0 ? width - columns_of(s->name) : 0, "");
    for (int i = first; i < (int)c->dates.count; i++) printf(" %10d", sw_skill_at(s, order[i]));
    printf("  %8d\n", s->total);
  }
}

static int print_json(const sw_skill_counts *c, const int *order, int top) {
  json_t *out = json_object(), *dates = json_array(), *skills = json_array();
  for (int i = 0; i < (int)c->dates.count; i++)
    json_array_append_new(dates, json_pack("{s:s, s:i}", "date", c->dates.keys[order[i]], "postings", c->postings_of[order[i]]));
  for (int k = 0; k < top; k++) {
    json_t *by = json_array();
    for (int i = 0; i < (int)c->dates.count; i++) json_array_append_new(by, json_integer(sw_skill_at(&c->skills[k], order[i])));
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
  sw_skill_counts c = {0};
  sw_rejects rejects = {0}; /* counted only */
  int *order = NULL, status = sw_config_parse(&command, argc, argv, &inputs), code = SW_EXIT_DONE;
  if (!status && !inputs.count) status = sw_fail("which tags? skillwatch infer tag -m CKPT POSTINGS -o tags.jsonl writes them");
  if (!status && top < 1) status = sw_fail("-k must be at least 1");
  if (status) code = status < 0 ? sw_exit_message(SW_EXIT_USAGE) : SW_EXIT_DONE;
  c.layer = layer;
  if (!status) status = sw_skill_counts_open(&c);
  for (int i = 0; !status && i < inputs.count; i++) status = sw_skill_counts_read(&c, inputs.items[i], &rejects);
  if (!status && !c.postings && c.rejected)
    status = sw_fail("no tagged posting was found in %ld line%s: give the output of skillwatch infer tag", c.rejected, SW_S(c.rejected));
  if (!status) status = sw_skill_counts_check_layer(&c);
  if (!status && !(order = sw_alloc_array((unsigned long)(int)c.dates.count, sizeof *order))) status = -1;
  if (!status) {
    for (int i = 0; i < (int)c.dates.count; i++) order[i] = i;
    dates_being_sorted = c.dates.keys;
    if ((int)c.dates.count) qsort(order, (size_t)(int)c.dates.count, sizeof *order, by_date_key);
    sw_skill_counts_sort(&c);
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
  sw_skill_counts_close(&c);
  free(order);
  sw_list_close(&inputs);
  return code;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
