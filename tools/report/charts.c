/* Pictures of topics, occupations, model quality and labels: bars, lines over time, columns by week. */
#include "base/error.h"
#include "tools/report/draw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- what all pictures share --- */

int report_finish_picture(sw_picture *p, const char *folder, const char *file, int status) {
  char *path = status ? NULL : sw_path_join(folder, file);
  if (!status) status = path ? sw_picture_write(p, path) : -1;
  free(path);
  sw_picture_close(p);
  return status;
}

int report_draw_text(sw_picture *p, sw_font style, sw_align align, double x, double y, const char *words, double width) {
  char *fitting = sw_text_fit(style, words, width);
  if (!fitting) return -1;
  sw_picture_text(p, style, align, x, y, fitting);
  free(fitting);
  return 0;
}

int report_draw_key(sw_picture *p, int number, double x, double y, const char *words, double width) {
  sw_picture_line(p, x, y, x + 26, y, 2, sw_colour(number), 0);
  sw_picture_marker(p, number, x + 13, y, 5);
  return report_draw_text(p, font, SW_LEFT, x + 34, y, words, width - 34);
}

void report_draw_scale(sw_picture *p, const sw_field *f, int share) {
  for (int i = 0; i * f->y.step <= f->y.high + f->y.step / 2; i++) {
    char number[24];
    const double value = i * f->y.step, y = sw_field_y(f, value);
    sw_picture_line(p, f->left, y, f->left + f->width, y, 0.6, SW_LIGHT, 0);
    snprintf(number, sizeof number, share ? "%g %%" : "%g", share ? 100 * value : value);
    sw_picture_text(p, small_font, SW_RIGHT, f->left - 6, y, number);
  }
}

void report_draw_weeks(sw_picture *p, const sw_field *f, int first) {
  enum { MOST_TICKS = 9 };
  const int weeks = (int)f->x.high + 1, step = (weeks + MOST_TICKS - 1) / MOST_TICKS;
  const double bottom = f->top + f->height;
  char date[16];
  for (int w = 0; w < weeks; w += step) {
    const double x = sw_field_x(f, w);
    sw_picture_line(p, x, bottom, x, bottom + 5, 0.8, SW_GREY, 0);
    sw_picture_text(p, small_font, SW_CENTRE, x, bottom + 15, report_week_text(first + w, date));
  }
}

void report_draw_column(sw_picture *p, const sw_field *f, double week, double value, int colour) {
  const double x = sw_field_x(f, week);
  if (value > 0) sw_picture_line(p, x, sw_field_y(f, 0), x, sw_field_y(f, value), fmax(1, 0.6 * f->width / (f->x.high - f->x.low)), colour, 0);
}

/* --- bars --- */

typedef struct {
  const char *name;
  double share;
  sw_interval range; /* low 0 and high 0: none */
} bar;

static int draw_bars(const char *folder, const char *file, const char *title, const char *subtitle, const bar *bars, size_t count) {
  enum { FIELD = 460, MOST_NAME = 460, SHARES = 70 };
  double names = 0, most = 0;
  for (size_t i = 0; i < count; i++) {
    names = fmax(names, fmin(MOST_NAME, sw_text_width(font, bars[i].name)));
    most = fmax(most, fmax(bars[i].share, bars[i].range.high));
  }
  const double wide = fmax(names + 10 + FIELD + SHARES, sw_text_width(small_font, subtitle) + 1);
  sw_field f = {EDGE + names + 10, EDGE + 46, FIELD, ROW * (double)count, sw_axis_make(0, fmin(1, most), 6), {0, 1, 1}};
  sw_picture *p;
  if (sw_picture_open(2 * EDGE + wide, 2 * EDGE + 46 + f.height + 24, &p)) return -1;
  sw_picture_text(p, title_font, SW_LEFT, EDGE, EDGE + 8, title);
  sw_picture_text(p, small_font, SW_LEFT, EDGE, EDGE + 30, subtitle);
  for (int i = 0; i * f.x.step <= f.x.high + f.x.step / 2; i++) {
    char number[24];
    const double x = sw_field_x(&f, i * f.x.step);
    sw_picture_line(p, x, f.top, x, f.top + f.height + 4, 0.6, SW_LIGHT, 0);
    snprintf(number, sizeof number, "%g %%", 100 * i * f.x.step);
    sw_picture_text(p, small_font, SW_CENTRE, x, f.top + f.height + 15, number);
  }
  int status = 0;
  for (size_t i = 0; i < count && !status; i++) {
    const bar *b = &bars[i];
    const double y = f.top + ROW * ((double)i + 0.5), low = sw_field_x(&f, b->range.low), high = sw_field_x(&f, b->range.high);
    char share[24];
    status = report_draw_text(p, font, SW_RIGHT, f.left - 10, y, b->name, MOST_NAME);
    sw_picture_line(p, f.left, y, sw_field_x(&f, b->share), y, 0.68 * ROW, sw_colour(0), 0);
    if (b->range.high > 0) {
      sw_picture_line(p, low, y, high, y, 1.6, SW_BLACK, 0);
      sw_picture_line(p, low, y - 4, low, y + 4, 1.6, SW_BLACK, 0);
      sw_picture_line(p, high, y - 4, high, y + 4, 1.6, SW_BLACK, 0);
    }
    snprintf(share, sizeof share, "%.1f %%", 100 * b->share);
    sw_picture_text(p, small_font, SW_RIGHT, f.left + FIELD + SHARES, y, share);
  }
  return report_finish_picture(p, folder, file, status);
}

static int draw_occupations(const report *r, const char *folder) {
  enum { MOST = 25 };
  bar bars[MOST] = {{0}};
  char subtitle[200], most[64] = "";
  const size_t count = r->num_occupations < MOST ? r->num_occupations : MOST;
  const double total = (double)r->occupied;
  for (size_t i = 0; i < count; i++) {
    const double postings = (double)r->occupations[i].count;
    bars[i] = (bar){r->occupations[i].label, postings / total, sw_wilson(postings, total, 0.95)};
  }
  if (count < r->num_occupations) snprintf(most, sizeof most, "; the %zu most frequent of %zu", count, r->num_occupations);
  snprintf(subtitle, sizeof subtitle, "Share of %.0f postings by their most probable occupation, with 95 %% Wilson intervals%s", total, most);
  return draw_bars(folder, "occupations.png", "Occupations", subtitle, bars, count);
}

/* --- lines over time --- */

typedef struct {
  size_t line;
  double week, value;
} mark;

/* marks: [count], line after line, in the order of time. */
static int draw_lines(const char *folder, const char *file, const char *title, const char *subtitle, int share, char *const *names, size_t lines, const mark *marks, size_t count) {
  enum { WIDE = 700, LEGEND = 300 };
  double from = INFINITY, to = -INFINITY, most = 0;
  for (size_t i = 0; i < count; i++) from = fmin(from, marks[i].week), to = fmax(to, marks[i].week), most = fmax(most, marks[i].value);
  const double first = floor(from), high = fmax(300, 26 * (double)lines);
  sw_picture *p;
  if (sw_picture_open(2 * EDGE + 50 + WIDE + LEGEND, 2 * EDGE + 46 + high + 24, &p)) return -1;
  sw_picture_text(p, title_font, SW_LEFT, EDGE, EDGE + 8, title);
  sw_picture_text(p, small_font, SW_LEFT, EDGE, EDGE + 30, subtitle);
  sw_field f = {EDGE + 50, EDGE + 46, WIDE, high, {-0.5, fmax(to - first, 1) + 0.5, 1}, sw_axis_make(0, most > 0 ? most : 1, 5)};
  report_draw_scale(p, &f, share);
  report_draw_weeks(p, &f, (int)first);
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < count; i++) {
      const int number = (int)marks[i].line;
      const double x = sw_field_x(&f, marks[i].week - first), y = sw_field_y(&f, marks[i].value);
      if (pass) sw_picture_marker(p, number, x, y, 5);
      else if (i && marks[i - 1].line == marks[i].line) sw_picture_line(p, sw_field_x(&f, marks[i - 1].week - first), sw_field_y(&f, marks[i - 1].value), x, y, 2, sw_colour(number), 0);
    }
  int status = 0;
  for (size_t k = 0; k < lines && !status; k++) status = report_draw_key(p, (int)k, f.left + WIDE + 14, f.top + 12 + 26 * (double)k, names[k], LEGEND - 14);
  return report_finish_picture(p, folder, file, status);
}

static const double *being_sorted;
static int by_sum(const void *a, const void *b) {
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return being_sorted[x] != being_sorted[y] ? (being_sorted[x] < being_sorted[y]) - (being_sorted[x] > being_sorted[y]) : (x > y) - (x < y);
}

/* Bytes of the first five words. */
static int few_words(const char *words) {
  const char *end = words;
  for (int k = 0; k < 5 && *end; k++) end += strcspn(end + 1, " ") + 1;
  return (int)(end - words);
}

static int draw_topics(const report *r, const char *folder) {
  enum { MOST = 40 };
  const size_t topics = (size_t)r->num_topics, shown = topics < MOST ? topics : MOST, lines = topics < SW_COLOURS ? topics : SW_COLOURS, weeks = r->topic_weeks.count;
  const double documents = r->topic_sums[topics];
  size_t *order = sw_alloc_array(topics, sizeof *order);
  mark *marks = sw_alloc_array(lines * weeks + 1, sizeof *marks);
  char *names[MOST] = {NULL}, subtitle[200], most[64] = "";
  bar bars[MOST] = {{0}};
  int status = order && marks ? 0 : -1;
  for (size_t k = 0; k < topics && !status; k++) order[k] = k;
  being_sorted = r->topic_sums;
  if (!status) qsort(order, topics, sizeof *order, by_sum);
  for (size_t k = 0; k < shown && !status; k++) {
    sw_buffer name = {0};
    status = sw_buffer_print(&name, "%zu: %.*s", order[k] + 1, few_words(r->topic_words[order[k]]), r->topic_words[order[k]]) || !(names[k] = sw_buffer_take(&name)) ? -1 : 0;
    bars[k] = (bar){names[k], r->topic_sums[order[k]] / documents, {0, 0}};
  }
  if (shown < topics) snprintf(most, sizeof most, "; the %zu most frequent of %zu topics", shown, topics);
  snprintf(subtitle, sizeof subtitle, "Mean share of a posting, of %.0f postings, and each topic's first words%s", documents, most);
  if (!status) status = draw_bars(folder, "topics.png", "Topics", subtitle, bars, shown);
  for (size_t k = 0; k < lines && !status; k++)
    for (size_t w = 0; w < weeks; w++) {
      const double *sums = r->topic_weeks.values + w * (topics + 1);
      marks[k * weeks + w] = (mark){k, r->topic_weeks.weeks[w], sums[order[k]] / sums[topics]};
    }
  if (lines < topics) snprintf(most, sizeof most, "; the %zu most frequent of %zu topics", lines, topics);
  snprintf(subtitle, sizeof subtitle, "Mean share of a posting by week%s", most);
  if (!status && weeks > 1) status = draw_lines(folder, "topics-over-time.png", "Topics over time", subtitle, 1, names, lines, marks, lines * weeks);
  for (size_t k = 0; k < shown; k++) free(names[k]);
  free(order), free(marks);
  return status;
}

/* "2026-01-14T12:00:00Z" in weeks, with their parts; NAN where it is none. */
static double week_at(const char *created) {
  struct tm t = {0};
  if (sscanf(created, "%d-%d-%dT%d:%d", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min) < 3) return NAN;
  t.tm_year -= 1900, t.tm_mon -= 1;
  return ((double)timegm(&t) / 86400 + 3) / 7;
}

/* A line for each kind of model and its first measure. */
static int draw_quality(const report *r, const char *folder) {
  mark *marks = sw_alloc_array(r->num_quality + 1, sizeof *marks);
  char *names[SW_COLOURS] = {NULL};
  const report_quality *of[SW_COLOURS];
  size_t lines = 0, count = 0;
  int status = marks ? 0 : -1;
  for (size_t i = 0; i < r->num_quality && !status && lines < SW_COLOURS; i++) {
    const report_quality *q = &r->quality[i];
    size_t k = 0;
    if (!q->names[0]) continue;
    while (k < lines && (strcmp(of[k]->kind, q->kind) || strcmp(of[k]->names[0], q->names[0]))) k++;
    if (k < lines) continue;
    sw_buffer name = {0};
    status = sw_buffer_print(&name, "%s, %s", q->kind, q->names[0]) || !(names[lines] = sw_buffer_take(&name)) ? -1 : 0;
    of[lines++] = q;
  }
  for (size_t k = 0; k < lines && !status; k++)
    for (size_t i = 0; i < r->num_quality; i++) { /* they are in the order of time */
      const report_quality *q = &r->quality[i];
      const double week = week_at(q->created);
      if (q->names[0] && !strcmp(q->kind, of[k]->kind) && !strcmp(q->names[0], of[k]->names[0]) && isfinite(week) && isfinite(q->scores[0])) marks[count++] = (mark){k, week, q->scores[0]};
    }
  if (!status && count) status = draw_lines(folder, "quality.png", "Model quality", "Score of each model and its ancestors, by the day it was made", 0, names, lines, marks, count);
  for (size_t k = 0; k < lines; k++) free(names[k]);
  free(marks);
  return status;
}

/* --- labels --- */

static int draw_labels(const report *r, const char *folder) {
  enum { WIDE = 700, HIGH = 150, PANEL = HIGH + 64 };
  static const struct {
    int column, colour;
    const char *title;
  } panels[] = {{LABELLED, 0, "Labelled sentences, by the week of the posting"}, {BILL_COST, 1, "Cost, by the week of the bill"}};
  const report_weekly *labels = &r->labels;
  const int first = labels->weeks[0], last = labels->weeks[labels->count - 1];
  double most[2] = {0, 0};
  size_t shown = 0;
  for (size_t k = 0; k < 2; k++) {
    for (size_t w = 0; w < labels->count; w++) most[k] = fmax(most[k], labels->values[w * LABEL_COLUMNS + (size_t)panels[k].column]);
    shown += most[k] > 0;
  }
  sw_picture *p;
  if (!shown) return 0;
  if (sw_picture_open(2 * EDGE + 60 + WIDE, 2 * EDGE + 26 + PANEL * (double)shown, &p)) return -1;
  sw_picture_text(p, title_font, SW_LEFT, EDGE, EDGE + 8, "Labels and their cost");
  double y = EDGE + 40;
  for (size_t k = 0; k < 2; k++) {
    if (!(most[k] > 0)) continue;
    sw_field f = {EDGE + 60, y + 18, WIDE, HIGH, {-0.5, fmax(last - first, 1) + 0.5, 1}, sw_axis_make(0, most[k], 4)};
    sw_picture_text(p, section_font, SW_LEFT, EDGE, y, panels[k].title);
    report_draw_scale(p, &f, 0);
    report_draw_weeks(p, &f, first);
    for (size_t w = 0; w < labels->count; w++) report_draw_column(p, &f, labels->weeks[w] - first, labels->values[w * LABEL_COLUMNS + (size_t)panels[k].column], sw_colour(panels[k].colour));
    y += PANEL;
  }
  return report_finish_picture(p, folder, "labels.png", 0);
}

int report_draw_rest(const report *r, const char *folder) {
  if (r->num_topics && r->topic_sums[r->num_topics] > 0 && draw_topics(r, folder)) return -1;
  if (r->occupied && draw_occupations(r, folder)) return -1;
  if (r->num_quality && draw_quality(r, folder)) return -1;
  return r->labels.count ? draw_labels(r, folder) : 0;
}
