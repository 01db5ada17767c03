/* The numbers of every figure as CSV. A number is empty where there is none, and "inf" where an interval has no end; a text that begins with one of
 * = + - @, a tab or a line's end has an apostrophe before it. */
#include "base/error.h"
#include "engine/data/csv.h"
#include "tools/report/report.h"

#include <math.h>
#include <string.h>

typedef struct {
  sw_buffer text;
  int filled, failed; /* cells of the row; of memory */
} table;

static void cell(table *t, const char *value) {
  if (t->filled++) t->failed |= sw_buffer_append(&t->text, ",", 1);
  t->failed |= sw_csv_quote(&t->text, value, strlen(value));
}

/* What comes from outside. A spreadsheet takes a text that begins like a formula for one and runs it; behind an apostrophe it is a text. */
static void text(table *t, const char *value) {
  sw_buffer quoted = {0};
  const int formula = *value && strchr("=+-@\t\r", *value);
  t->failed |= formula && sw_buffer_print(&quoted, "'%s", value);
  cell(t, formula && quoted.data ? quoted.data : value);
  sw_buffer_close(&quoted);
}

static void number(table *t, double value) {
  char digits[40];
  snprintf(digits, sizeof digits, "%.10g", value);
  cell(t, isnan(value) ? "" : digits);
}

static void end_row(table *t) {
  t->failed |= sw_buffer_append(&t->text, "\r\n", 2);
  t->filled = 0;
}

static void head(table *t, const char *names) {
  t->failed |= sw_buffer_print(&t->text, "%s\r\n", names);
}

static int finish(table *t, const char *folder, const char *name) {
  const int status = t->failed ? -1 : sw_file_write(folder, name, t->text.data, t->text.size);
  sw_buffer_close(&t->text);
  return status;
}

static void week(table *t, int number) {
  char date[16];
  cell(t, number == NO_WEEK ? "" : report_week_text(number, date));
}

static int write_skills(const report *r, const char *folder) {
  static const char *const directions[] = {"falls", "", "rises"};
  table t = {{0}, 0, 0};
  head(&t, "layer,skill,postings,share,direction,slope,slope_low,slope_high,odds_per_week,p,q,dispersion,fitted_first,fitted_last");
  for (size_t i = 0; i < r->num_skills; i++) {
    const report_skill *s = &r->skills[i];
    const sw_trend *trend = &s->trend;
    const double of_trend[] = {trend->slope, trend->range.low, trend->range.high, exp(trend->slope), trend->p, s->q, trend->dispersion, trend->first, trend->last};
    text(&t, report_layer_name(r, s->skill->layer));
    text(&t, s->skill->name);
    number(&t, s->skill->total);
    number(&t, s->skill->total / (double)r->counts.postings);
    text(&t, directions[s->direction + 1]);
    for (size_t k = 0; k < sizeof of_trend / sizeof *of_trend; k++) number(&t, s->tested ? of_trend[k] : NAN);
    end_row(&t);
  }
  if (finish(&t, folder, "skills.csv")) return -1;
  head(&t, "layer,skill,week,postings,named,share,low,high");
  for (size_t i = 0; i < r->num_skills; i++)
    for (int w = 0; w < r->num_weeks; w++) {
      const report_skill *s = &r->skills[i];
      if (!(r->postings[w] > 0)) continue;
      const sw_interval range = sw_wilson(s->named[w], r->postings[w], 0.95);
      text(&t, report_layer_name(r, s->skill->layer));
      text(&t, s->skill->name);
      week(&t, r->first_week + w);
      number(&t, r->postings[w]), number(&t, s->named[w]), number(&t, s->named[w] / r->postings[w]), number(&t, range.low), number(&t, range.high);
      end_row(&t);
    }
  if (finish(&t, folder, "skills-by-week.csv")) return -1;
  head(&t, "week,postings");
  for (int w = 0; w < r->num_weeks; w++) {
    week(&t, r->first_week + w), number(&t, r->postings[w]);
    end_row(&t);
  }
  return finish(&t, folder, "weeks.csv");
}

static int write_map(const report *r, const report_map *map, const char *folder, const char *name) {
  table t = {{0}, 0, 0};
  char digits[32];
  head(&t, map->dims == 3 ? "id,x,y,z,cluster,title,first_week,last_week" : "id,x,y,cluster,title,first_week,last_week");
  for (size_t i = 0; i < map->count; i++) {
    const report_point *point = &r->points[map->id[i]];
    text(&t, r->ids.keys[map->id[i]]);
    for (int c = 0; c < map->dims; c++) {
      snprintf(digits, sizeof digits, "%.9g", (double)map->at[i * (size_t)map->dims + (size_t)c]); /* nine digits give every float back exactly */
      cell(&t, digits);
    }
    text(&t, point->cluster < 0 ? "" : r->clusters.keys[point->cluster]);
    text(&t, point->title ? point->title : "");
    week(&t, point->first_week), week(&t, point->last_week);
    end_row(&t);
  }
  return finish(&t, folder, name);
}

static int write_topics(const report *r, const char *folder) {
  table t = {{0}, 0, 0};
  const double documents = r->topic_sums[r->num_topics];
  head(&t, "topic,words,share");
  for (int k = 0; k < r->num_topics; k++) {
    number(&t, k + 1), text(&t, r->topic_words[k]), number(&t, documents > 0 ? r->topic_sums[k] / documents : NAN);
    end_row(&t);
  }
  if (finish(&t, folder, "topics.csv")) return -1;
  if (!r->topic_weeks.count) return 0;
  head(&t, "week,documents,topic,share");
  for (size_t w = 0; w < r->topic_weeks.count; w++) {
    const double *sums = r->topic_weeks.values + w * (size_t)r->topic_weeks.columns;
    for (int k = 0; k < r->num_topics; k++) {
      week(&t, r->topic_weeks.weeks[w]), number(&t, sums[r->num_topics]), number(&t, k + 1), number(&t, sums[k] / sums[r->num_topics]);
      end_row(&t);
    }
  }
  return finish(&t, folder, "topics-by-week.csv");
}

static int write_occupations(const report *r, const char *folder) {
  table t = {{0}, 0, 0};
  head(&t, "occupation,postings,share,low,high");
  for (size_t i = 0; i < r->num_occupations; i++) {
    const double count = (double)r->occupations[i].count, total = (double)r->occupied;
    const sw_interval range = sw_wilson(count, total, 0.95);
    text(&t, r->occupations[i].label), number(&t, count), number(&t, count / total), number(&t, range.low), number(&t, range.high);
    end_row(&t);
  }
  return finish(&t, folder, "occupations.csv");
}

static int write_quality(const report *r, const char *folder) {
  table t = {{0}, 0, 0};
  head(&t, "created,kind,checkpoint,parent,file,data,measure,score,second_measure,second_score");
  for (size_t i = 0; i < r->num_quality; i++) {
    const report_quality *q = &r->quality[i];
    const char *const texts[] = {q->created, q->kind, q->hash, q->parent, q->path, q->data};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) text(&t, texts[k]);
    for (int k = 0; k < 2; k++) text(&t, q->names[k] ? q->names[k] : ""), number(&t, q->names[k] ? q->scores[k] : NAN);
    end_row(&t);
  }
  return finish(&t, folder, "quality.csv");
}

static int write_labels(const report *r, const char *folder) {
  table t = {{0}, 0, 0};
  head(&t, "week,sentences,spans,tokens_in,tokens_out,cost");
  for (size_t w = 0; w <= r->labels.count; w++) { /* at the end those that have no date are in the sum */
    week(&t, w < r->labels.count ? r->labels.weeks[w] : NO_WEEK);
    for (size_t k = 0; k < LABEL_COLUMNS; k++) number(&t, w < r->labels.count ? r->labels.values[w * LABEL_COLUMNS + k] : r->label_sums[k]);
    end_row(&t);
  }
  return finish(&t, folder, "labels.csv");
}

int report_write_tables(const report *r, const char *folder) {
  if (r->o->tags.count && write_skills(r, folder)) return -1;
  if (r->maps[0].count && write_map(r, &r->maps[0], folder, "map.csv")) return -1;
  if (r->maps[1].count && write_map(r, &r->maps[1], folder, "map-3d.csv")) return -1;
  if (r->num_topics && write_topics(r, folder)) return -1;
  if (r->occupied && write_occupations(r, folder)) return -1;
  if (r->num_quality && write_quality(r, folder)) return -1;
  return r->o->labels.count ? write_labels(r, folder) : 0;
}
