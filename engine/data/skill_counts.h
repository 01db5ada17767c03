/* In how many postings of each date a skill was tagged, read from what skillwatch infer tag and infer link write. A posting counts once for a
 * skill, however often it names it. What tells one skill from another: of a linked span its taxonomy's label; of the other spans of a linked
 * input the key of skill_key.h; otherwise the text in lower case and with single spaces. A span without a letter or digit is no skill. */
#ifndef SW_DATA_SKILL_COUNTS_H
#define SW_DATA_SKILL_COUNTS_H
#include "base/table.h"
#include "engine/data/rejects.h"
#include "engine/text/skill_key.h"

#include <jansson.h>

typedef struct {
  const char *key; /* compared; the table's */
  char *name;      /* as first seen, without control characters: printed */
  int layer;       /* with by_layer: index of its layer; otherwise 0 */
  int *by_date;    /* [dates] postings */
  int dates;       /* room in by_date */
  int total;
  long last_posting;
} sw_skill_count;

typedef struct {
  /* set before the first row */
  const char *layer; /* borrowed; spans of this layer only. NULL: all */
  int by_layer;      /* the same skill of two layers is two */
  int known_postings; /* keep the postings' ids; one that was read before, with the same id and date, is set aside */
  /* results; do not change */
  sw_table keys;
  sw_skill_count *skills; /* [count], as keys */
  int count, capacity;
  sw_table dates;         /* YYYY-MM-DD, of whichever form, with or without a time; what is no date as written; "undated" for none */
  int *postings_of, dates_room; /* [dates.count] */
  long postings, rejected;
  long linked, spans;     /* spans that count, and those of them that are linked to a taxonomy's skill */
  int any_linked;         /* infer link made one of the inputs */
  sw_skill_keys *unify;
  sw_table layers;        /* of the spans seen, those that do not count, too */
  sw_table ids, ids_dated; /* with known_postings */
  int *date_of_id;        /* [ids.count] */
  size_t ids_room;
} sw_skill_counts;

/* `c` is zeroed but for what is set before. */
int sw_skill_counts_open(sw_skill_counts *c);
void sw_skill_counts_close(sw_skill_counts *c);
/* Counts the rows of a file (.gz, .zst, "-"); those that are no tagged posting go to `rejects`. */
int sw_skill_counts_read(sw_skill_counts *c, const char *path, sw_rejects *rejects);
/* Postings of date number d that name the skill. */
int sw_skill_at(const sw_skill_count *skill, int d);
/* A layer that no span has is a slip, and an empty table would hide it. */
int sw_skill_counts_check_layer(const sw_skill_counts *c);
/* Sorts the skills: the most frequent first. Nothing may be read afterwards. */
void sw_skill_counts_sort(sw_skill_counts *c);
/* White space and control characters, which a terminal would obey, as one space; with `fold` in lower case. free() it. */
char *sw_tidy_text(const char *text, int fold);
#endif
