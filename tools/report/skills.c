/* Skills by week, and what rises or falls. */
#include "base/error.h"
#include "engine/data/sources.h"
#include "tools/report/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The share of falsely discovered trends that is put up with, and weeks that dates may span: a slip in a year would make a table of millions. */
static const double DISCOVERIES = 0.05;
enum { MOST_WEEKS = 5200 };

int report_week_of(const char *date) {
  char iso[16];
  int year, month, day;
  if (!sw_date_iso(date, iso) || sscanf(iso, "%d-%d-%d", &year, &month, &day) != 3) return NO_WEEK;
  struct tm when = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day};
  const long long seconds = (long long)timegm(&when);
  return when.tm_mday != day || seconds < 0 ? NO_WEEK : (int)((seconds / 86400 + 3) / 7); /* that 1 January was a Thursday */
}

const char *report_week_text(int week, char text[16]) {
  const time_t monday = ((time_t)week * 7 - 3) * 86400;
  struct tm when;
  strftime(text, 16, "%Y-%m-%d", gmtime_r(&monday, &when));
  return text;
}

double *report_weekly_at(report_weekly *w, int week) {
  size_t low = 0, high = w->count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (w->weeks[middle] < week) low = middle + 1;
    else high = middle;
  }
  const size_t columns = (size_t)w->columns;
  if (low < w->count && w->weeks[low] == week) return w->values + low * columns;
  if (w->count == w->capacity) {
    const size_t capacity = w->capacity ? 2 * w->capacity : 64;
    int *weeks = sw_realloc_array(w->weeks, capacity, sizeof *weeks);
    if (weeks) w->weeks = weeks;
    double *values = weeks ? sw_realloc_array(w->values, capacity * columns, sizeof *values) : NULL;
    if (!values) return NULL;
    w->values = values, w->capacity = capacity;
  }
  double *row = w->values + low * columns;
  memmove(w->weeks + low + 1, w->weeks + low, (w->count - low) * sizeof *w->weeks);
  memmove(row + columns, row, (w->count - low) * columns * sizeof *row);
  w->weeks[low] = week;
  for (size_t i = 0; i < columns; i++) row[i] = 0;
  w->count++;
  return row;
}

const char *report_layer_name(const report *r, int layer) {
  const char *name = (size_t)layer < r->counts.layers.count ? r->counts.layers.keys[layer] : "";
  return *name ? name : "skills";
}

/* --- weeks --- */

static int check_span(const char *what, int first, int last) {
  char from[16], to[16];
  if (last - first < MOST_WEEKS) return 0;
  return sw_fail("%s run from %s to %s, more than %d weeks: correct those that are wrong", what, report_week_text(first, from), report_week_text(last, to), (int)MOST_WEEKS);
}

static int find_weeks(report *r, int *week_of_date) {
  const sw_skill_counts *c = &r->counts;
  int first = 0, last = -1;
  for (size_t d = 0; d < c->dates.count; d++) {
    const int week = week_of_date[d] = report_week_of(c->dates.keys[d]);
    if (week == NO_WEEK || !c->postings_of[d]) continue;
    if (last < 0 || week < first) first = week;
    if (week > last) last = week;
  }
  if (last < 0) return 0;
  if (check_span("the postings' dates", first, last)) return -1;
  r->first_week = first, r->num_weeks = last - first + 1;
  return 0;
}

static int by_layer_and_total(const void *a, const void *b) {
  const sw_skill_count *x = ((const report_skill *)a)->skill, *y = ((const report_skill *)b)->skill;
  if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
  return x->total != y->total ? (x->total < y->total) - (x->total > y->total) : strcmp(x->key, y->key);
}

static double sum_of(const double *values, int count) {
  double sum = 0;
  for (int i = 0; i < count; i++) sum += values[i];
  return sum;
}

static int test(report *r) {
  double *time = sw_alloc_array((size_t)r->num_weeks + 1, sizeof *time), *p = sw_alloc_array(r->num_skills + 1, sizeof *p);
  int status = time && p ? 0 : -1;
  size_t frequent = 0;
  double dispersions = 0, lagged = 0;
  for (int w = 0; w < r->num_weeks && !status; w++) time[w] = w;
  for (size_t i = 0; i < r->num_skills && !status; i++) {
    report_skill *s = &r->skills[i];
    s->tested = sw_trend_fit(s->named, r->postings, time, r->num_weeks, &s->trend);
    if (!s->tested || sum_of(s->named, r->num_weeks) < s->trend.weeks) continue;
    dispersions += p[frequent++] = s->trend.dispersion;
    lagged += s->trend.lagged;
  }
  if (!status) status = sw_trend_serial_find(dispersions, lagged, frequent, r->postings, time, r->num_weeks, &r->serial);
  sw_dispersion_prior prior = sw_trend_prior(p, status ? 0 : frequent, (double)r->weeks_with_postings - 2);
  prior.serial = r->serial.inflation;
  for (size_t i = 0; i < r->num_skills && !status; i++)
    if (r->skills[i].tested) sw_trend_test(r->skills[i].named, r->postings, time, r->num_weeks, prior, 0.95, &r->skills[i].trend);
  size_t tests = 0, t = 0; /* all layers together: the page says what rises and falls in all of them */
  for (size_t i = 0; i < r->num_skills && !status; i++)
    if (r->skills[i].tested) p[tests++] = r->skills[i].trend.p;
  if (!status) status = sw_false_discovery(p, tests, p);
  for (size_t i = 0; i < r->num_skills && !status; i++) {
    report_skill *s = &r->skills[i];
    if (!s->tested) continue;
    s->q = p[t++];
    s->direction = s->q > DISCOVERIES ? 0 : s->trend.slope > 0 ? 1 : -1;
  }
  free(time), free(p);
  return status;
}

/* --- the points of maps --- */

static void seen(report_point *point, int week) {
  if (week == NO_WEEK) return;
  if (point->first_week == NO_WEEK || week < point->first_week) point->first_week = week;
  if (week > point->last_week) point->last_week = week;
}

/* A point that is a posting has its week; one that is a skill those from the first to the last posting that names it. */
static int date_points(report *r, const int *week_of_date) {
  const sw_skill_counts *c = &r->counts;
  sw_table names = {0};
  int *first = sw_alloc_array((size_t)c->count + 1, sizeof *first), *last = sw_alloc_array((size_t)c->count + 1, sizeof *last);
  int status = first && last ? 0 : -1;
  for (int i = 0; i < c->count && !status; i++) {
    char *name = sw_tidy_text(c->skills[i].name, 1);
    const size_t before = names.count;
    const int64_t at = name ? sw_table_add(&names, name) : -1;
    free(name);
    if (at < 0) {
      status = -1;
      break;
    }
    if (names.count > before) first[at] = last[at] = NO_WEEK;
    for (int d = 0; d < c->skills[i].dates; d++) {
      if (!c->skills[i].by_date[d] || week_of_date[d] == NO_WEEK) continue;
      if (first[at] == NO_WEEK || week_of_date[d] < first[at]) first[at] = week_of_date[d];
      if (week_of_date[d] > last[at]) last[at] = week_of_date[d];
    }
  }
  for (size_t i = 0; i < r->ids.count && !status; i++) {
    report_point *point = &r->points[i];
    if (point->first_week != NO_WEEK) continue; /* --titles said it */
    const int64_t posting = sw_table_find(&c->ids, r->ids.keys[i]);
    if (posting >= 0) {
      seen(point, week_of_date[c->date_of_id[posting]]);
      continue;
    }
    char *name = sw_tidy_text(point->title ? point->title : r->ids.keys[i], 1);
    const int64_t skill = name ? sw_table_find(&names, name) : -1;
    if (!name) status = -1;
    if (skill >= 0) seen(point, first[skill]), seen(point, last[skill]);
    free(name);
  }
  sw_table_close(&names);
  free(first), free(last);
  int from = r->first_week, to = r->first_week + r->num_weeks - 1, any = r->num_weeks > 0;
  for (size_t i = 0; i < r->ids.count; i++) { /* --titles may have dates that the tags have not */
    const report_point *point = &r->points[i];
    if (point->first_week == NO_WEEK) continue;
    from = any && from < point->first_week ? from : point->first_week, to = any && to > point->last_week ? to : point->last_week, any = 1;
  }
  if (status || !any) return status;
  r->map_first = from, r->map_weeks = to - from + 1;
  return check_span("the dates of the map's points and of the postings", from, to);
}

/* Postings with a date that name it; where none has one, all. */
static int counted(const report *r, const sw_skill_count *s, const int *week_of_date) {
  int dated = 0;
  for (int d = 0; d < s->dates; d++)
    if (week_of_date[d] != NO_WEEK) dated += s->by_date[d];
  return r->num_weeks ? dated : s->total;
}

int report_find_trends(report *r) {
  const sw_skill_counts *c = &r->counts;
  int *week_of_date = sw_alloc_array(c->dates.count + 1, sizeof *week_of_date), status = week_of_date ? find_weeks(r, week_of_date) : -1;
  size_t kept = 0;
  for (int i = 0; i < c->count && !status; i++) kept += counted(r, &c->skills[i], week_of_date) >= r->o->min_postings;
  if (!status && (!(r->postings = sw_alloc_array((size_t)r->num_weeks + 1, sizeof *r->postings)) ||
                  !(r->named = sw_alloc_array(kept * (size_t)r->num_weeks + 1, sizeof *r->named)) || !(r->skills = sw_alloc_array(kept + 1, sizeof *r->skills))))
    status = -1;
  for (size_t d = 0; d < c->dates.count && !status; d++) {
    if (week_of_date[d] == NO_WEEK) continue;
    r->postings[week_of_date[d] - r->first_week] += c->postings_of[d];
    r->dated += c->postings_of[d];
  }
  for (int w = 0; w < r->num_weeks && !status; w++) r->weeks_with_postings += r->postings[w] > 0;
  for (int i = 0; i < c->count && !status; i++)
    if (counted(r, &c->skills[i], week_of_date) >= r->o->min_postings) r->skills[r->num_skills++].skill = &c->skills[i];
  if (!status && r->num_skills) qsort(r->skills, r->num_skills, sizeof *r->skills, by_layer_and_total);
  for (size_t i = 0; i < r->num_skills && !status; i++) {
    report_skill *s = &r->skills[i];
    s->named = r->named + i * (size_t)r->num_weeks;
    for (int d = 0; d < s->skill->dates; d++)
      if (week_of_date[d] != NO_WEEK) s->named[week_of_date[d] - r->first_week] += s->skill->by_date[d];
  }
  if (!status) status = test(r) || date_points(r, week_of_date) ? -1 : 0;
  free(week_of_date);
  return status;
}

/* --- which to show --- */

static double surety(const report_skill *s) { return s->direction > 0 ? s->trend.range.low : -s->trend.range.high; }

static int is_before(const report_skill *a, const report_skill *b, int direction) {
  if (direction) return surety(a) != surety(b) ? surety(a) > surety(b) : a < b;
  return a->trend.p != b->trend.p ? a->trend.p < b->trend.p : a < b;
}

size_t report_pick(const report *r, int layer, int direction, size_t room, const report_skill **out) {
  size_t count = 0;
  for (size_t i = 0; i < r->num_skills; i++) {
    const report_skill *s = &r->skills[i];
    if (s->skill->layer != layer || !s->tested || (direction && s->direction != direction)) continue;
    size_t at = count < room ? count++ : room;
    while (at > 0 && is_before(s, out[at - 1], direction)) {
      if (at < room) out[at] = out[at - 1];
      at--;
    }
    if (at < room) out[at] = s;
  }
  return count;
}

size_t report_pick_lines(const report *r, const report_skill *out[REPORT_LINES]) {
  size_t count = 0;
  for (size_t rank = 1; rank <= REPORT_LINES; rank++)
    for (size_t l = 0; l < r->counts.layers.count; l++)
      for (int direction = 1; direction >= -1 && count < REPORT_LINES; direction -= 2) {
        const report_skill *best[REPORT_LINES];
        if (report_pick(r, (int)l, direction, rank, best) == rank) out[count++] = best[rank - 1];
      }
  if (count) return count;
  for (size_t i = 0; i < r->num_skills; i++) {
    size_t at = count < REPORT_LINES ? count++ : REPORT_LINES;
    for (; at > 0 && r->skills[i].skill->total > out[at - 1]->skill->total; at--)
      if (at < REPORT_LINES) out[at] = out[at - 1];
    if (at < REPORT_LINES) out[at] = &r->skills[i];
  }
  return count;
}
