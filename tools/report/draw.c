/* Pictures of skills that rise and fall, of skills over time, and of maps. */
#include "tools/report/draw.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAME = 230, FIELD = 520, EACH_WAY = 10, MOST_LAYERS = 8 };
static const int RISING = 0x009e73, FALLING = 0xd55e00;

/* --- rising and falling --- */

typedef struct {
  const report_skill *rows[2 * EACH_WAY];
  size_t count;
} trend_layer;

static int by_slope(const void *a, const void *b) {
  const double x = (*(const report_skill *const *)a)->trend.slope, y = (*(const report_skill *const *)b)->trend.slope;
  return (x < y) - (x > y);
}

static void choose(const report *r, int layer, trend_layer *out) {
  out->count = report_pick(r, layer, 1, EACH_WAY, out->rows);
  out->count += report_pick(r, layer, -1, EACH_WAY, out->rows + out->count);
  if (out->count < EACH_WAY) { /* with those that come next, so that the picture shows what was looked at */
    const report_skill *all[3 * EACH_WAY];
    const size_t tested = report_pick(r, layer, 0, 3 * EACH_WAY, all);
    for (size_t i = 0; i < tested && out->count < EACH_WAY; i++)
      if (!all[i]->direction) out->rows[out->count++] = all[i];
  }
  if (out->count) qsort(out->rows, out->count, sizeof *out->rows, by_slope);
}

static double within(const sw_field *f, double slope) { return fmin(fmax(slope, f->x.low), f->x.high); }

/* A dot; of a slope that goes on beyond the field an arrow at the edge on its side. */
static void draw_slope(sw_picture *p, int colour, int beyond, double x, double y, double radius) {
  if (beyond) sw_picture_area(p, colour, 1, (double[]){x - beyond * 2 * radius, x, x - beyond * 2 * radius}, (double[]){y - radius, y, y + radius}, 3);
  else sw_picture_dot(p, colour, 1, x, y, radius);
}

static void draw_trend(sw_picture *p, const sw_field *f, const report_skill *s, double y) {
  const int colour = s->direction > 0 ? RISING : s->direction < 0 ? FALLING : SW_GREY, beyond = s->trend.slope > f->x.high ? 1 : s->trend.slope < f->x.low ? -1 : 0;
  const double low = within(f, s->trend.range.low), high = within(f, s->trend.range.high), x = sw_field_x(f, within(f, s->trend.slope));
  sw_picture_line(p, sw_field_x(f, low), y, sw_field_x(f, high), y, 2.2, colour, 0);
  /* an interval that goes on beyond the field has no bar at that end */
  if (low == s->trend.range.low) sw_picture_line(p, sw_field_x(f, low), y - 4, sw_field_x(f, low), y + 4, 2.2, colour, 0);
  if (high == s->trend.range.high) sw_picture_line(p, sw_field_x(f, high), y - 4, sw_field_x(f, high), y + 4, 2.2, colour, 0);
  draw_slope(p, colour, beyond, x, y, 5.5);
  if (!s->direction) draw_slope(p, 0xffffff, beyond, x - beyond * 2, y, 3.2);
}

/* Odds multiplied by so much a week. */
static void draw_odds_axis(sw_picture *p, const sw_field *f) {
  static const double ticks[] = {0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.4, 2, 3, 5, 10, 20};
  const double bottom = f->top + f->height;
  const size_t count = sizeof ticks / sizeof *ticks, one = 9;
  double from = sw_field_x(f, 0), to = from;
  for (size_t k = 0; k < count; k++) { /* from 1 outwards, so that what is left out for want of room is the same on both sides */
    const size_t i = k % 2 ? one + (k + 1) / 2 : one - k / 2;
    const double at = log(ticks[i]), x = sw_field_x(f, at);
    char number[16];
    if (at < f->x.low || at > f->x.high) continue;
    snprintf(number, sizeof number, "×%g", ticks[i]);
    const double half = sw_text_width(small_font, number) / 2 + 5;
    if (i != one && x + half > from && x - half < to) continue;
    from = fmin(from, x - half), to = fmax(to, x + half);
    sw_picture_line(p, x, f->top, x, bottom + 4, i == one ? 1.4 : 0.6, i == one ? SW_GREY : SW_LIGHT, 0);
    sw_picture_text(p, small_font, SW_CENTRE, x, bottom + 14, number);
  }
}

static int draw_trends(const report *r, const char *folder) {
  trend_layer layers[MOST_LAYERS] = {{{NULL}, 0}};
  size_t rows = 0, shown = 0;
  int finite = 0, endless = 0;
  double names = 0, reach = 0.02, wide = 0.02;
  for (size_t l = 0; l < r->counts.layers.count && l < MOST_LAYERS; l++) {
    choose(r, (int)l, &layers[l]);
    rows += layers[l].count, shown += layers[l].count > 0;
    for (size_t i = 0; i < layers[l].count; i++) {
      const sw_trend *t = &layers[l].rows[i]->trend;
      names = fmax(names, fmin(MOST_NAME, sw_text_width(font, layers[l].rows[i]->skill->name)));
      if (isfinite(t->slope)) reach = fmax(reach, fabs(t->slope)), finite = 1;
      else endless = 1;
      if (isfinite(t->range.low)) wide = fmax(wide, -t->range.low);
      if (isfinite(t->range.high)) wide = fmax(wide, t->range.high);
    }
  }
  if (!rows) return 0;
  wide = 1.05 * (finite ? fmin(wide, 2 * reach) : wide);
  static const char subtitle[] = "Change a week of the odds that a posting names the skill, with 95 % intervals; on the right the fitted share in the first and last week",
                    no_bound[] = "no bound: in none, or all, of the postings before or after some week";
  const double least = fmax(sw_text_width(small_font, subtitle), endless ? 300 + sw_text_width(small_font, no_bound) : 0) + 1;
  const double width = 2 * EDGE + fmax(names + 10 + FIELD + 150, least), height = 2 * EDGE + 72 + (double)shown * 62 + (double)rows * ROW + (r->counts.layers.count > MOST_LAYERS ? 20 : 0);
  sw_picture *p;
  if (sw_picture_open(width, height, &p)) return -1;
  double y = EDGE + 10;
  sw_picture_text(p, title_font, SW_LEFT, EDGE, y, "Rising and falling skills");
  y += 22;
  int status = report_draw_text(p, small_font, SW_LEFT, EDGE, y, subtitle, width - 2 * EDGE);
  y += 22;
  static const struct {
    const char *text;
    int colour;
  } legend[] = {{"rises", RISING}, {"falls", FALLING}, {"cannot be told from chance", SW_GREY}};
  double x = EDGE + 6;
  for (size_t i = 0; i < 3; i++) {
    sw_picture_dot(p, legend[i].colour, 1, x, y, 5.5);
    if (i == 2) sw_picture_dot(p, 0xffffff, 1, x, y, 3.2);
    sw_picture_text(p, small_font, SW_LEFT, x + 11, y, legend[i].text);
    x += 11 + sw_text_width(small_font, legend[i].text) + 22;
  }
  if (endless) {
    draw_slope(p, SW_GREY, 1, x + 5.5, y, 5.5);
    sw_picture_text(p, small_font, SW_LEFT, x + 12, y, no_bound);
  }
  y += 18;
  for (size_t l = 0; l < MOST_LAYERS && !status; l++) {
    if (!layers[l].count) continue;
    y += 12;
    status = report_draw_text(p, section_font, SW_LEFT, EDGE, y, report_layer_name(r, (int)l), width - 2 * EDGE);
    sw_field f = {.left = EDGE + names + 10, .top = y + 12, .width = FIELD, .height = ROW * (double)layers[l].count, .x = {-wide, wide, 1}, .y = {0, 1, 1}};
    draw_odds_axis(p, &f);
    for (size_t i = 0; i < layers[l].count && !status; i++) {
      const report_skill *s = layers[l].rows[i];
      const double middle = f.top + ROW * ((double)i + 0.5);
      char shares[48];
      status = report_draw_text(p, font, SW_RIGHT, f.left - 10, middle, s->skill->name, MOST_NAME);
      draw_trend(p, &f, s, middle);
      snprintf(shares, sizeof shares, "%.1f %% to %.1f %%", 100 * s->trend.first, 100 * s->trend.last);
      sw_picture_text(p, small_font, SW_LEFT, f.left + FIELD + 12, middle, shares);
    }
    y = f.top + f.height + 38;
  }
  if (r->counts.layers.count > MOST_LAYERS) {
    char more[64];
    snprintf(more, sizeof more, "%zu more layers are in skills.csv", r->counts.layers.count - MOST_LAYERS);
    sw_picture_text(p, small_font, SW_LEFT, EDGE, y, more);
  }
  return report_finish_picture(p, folder, "trends.png", status);
}

/* --- over time --- */

static void draw_band(sw_picture *p, const sw_field *f, const report *r, const report_skill *s, int number, double *x, double *y) {
  size_t n = 0;
  const size_t all = r->weeks_with_postings;
  for (int w = 0; w < r->num_weeks; w++) {
    if (!(r->postings[w] > 0)) continue;
    const sw_interval range = sw_wilson(s->named[w], r->postings[w], 0.95);
    x[n] = x[2 * all - 1 - n] = sw_field_x(f, w);
    y[n] = sw_field_y(f, range.high), y[2 * all - 1 - n] = sw_field_y(f, range.low);
    n++;
  }
  sw_picture_area(p, sw_colour(number), 0.1, x, y, 2 * n);
}

static void draw_line(sw_picture *p, const sw_field *f, const report *r, const report_skill *s, int number) {
  double before_x = 0, before_y = 0;
  for (int pass = 0; pass < 2; pass++) {
    size_t k = 0;
    for (int w = 0; w < r->num_weeks; w++) {
      if (!(r->postings[w] > 0)) continue;
      const double at_x = sw_field_x(f, w), at_y = sw_field_y(f, s->named[w] / r->postings[w]);
      if (pass) sw_picture_marker(p, number, at_x, at_y, 5);
      else if (k) sw_picture_line(p, before_x, before_y, at_x, at_y, 2, sw_colour(number), 0);
      before_x = at_x, before_y = at_y, k++;
    }
  }
}

static int draw_time(const report *r, const char *folder) {
  enum { WIDE = 700, HIGH = 330, BARS = 80, LEGEND = 250 };
  double *x = sw_alloc_array(2 * r->weeks_with_postings + 1, sizeof *x), *y = sw_alloc_array(2 * r->weeks_with_postings + 1, sizeof *y), most = 0, bars = 0;
  sw_picture *p = NULL;
  int status = x && y ? 0 : -1;
  const report_skill *chosen[REPORT_LINES];
  const size_t lines = report_pick_lines(r, chosen);
  for (int w = 0; w < r->num_weeks; w++) {
    bars = fmax(bars, r->postings[w]);
    for (size_t i = 0; i < lines; i++)
      if (r->postings[w] > 0) most = fmax(most, sw_wilson(chosen[i]->named[w], r->postings[w], 0.95).high);
  }
  if (!status) status = sw_picture_open(2 * EDGE + 50 + WIDE + LEGEND, 2 * EDGE + 60 + HIGH + 20 + BARS + 40, &p);
  if (!status) {
    sw_picture_text(p, title_font, SW_LEFT, EDGE, EDGE + 10, "Skills over time");
    sw_picture_text(p, small_font, SW_LEFT, EDGE, EDGE + 32, "Share of a week's postings that name the skill, with 95 % Wilson intervals; below, the week's postings");
    const double last = r->num_weeks > 1 ? r->num_weeks - 1 : 1;
    sw_field f = {EDGE + 50, EDGE + 60, WIDE, HIGH, {-0.5, last + 0.5, 1}, sw_axis_make(0, most, 5)};
    f.y.low = 0;
    report_draw_scale(p, &f, 1);
    for (size_t i = lines; i-- > 0;) draw_band(p, &f, r, chosen[i], (int)i, x, y);
    for (size_t i = lines; i-- > 0;) draw_line(p, &f, r, chosen[i], (int)i);
    for (size_t i = 0; i < lines && !status; i++) {
      const double at = f.top + 12 + 40 * (double)i;
      status = report_draw_key(p, (int)i, f.left + WIDE + 14, at, chosen[i]->skill->name, LEGEND - 26);
      sw_buffer layer = {0};
      if (!status)
        status = sw_buffer_print(&layer, "%s%s", report_layer_name(r, chosen[i]->skill->layer), chosen[i]->direction > 0 ? ", rises" : chosen[i]->direction < 0 ? ", falls" : "") ||
                 report_draw_text(p, small_font, SW_LEFT, f.left + WIDE + 48, at + 15, layer.data, LEGEND - 60);
      sw_buffer_close(&layer);
    }
    sw_field b = {f.left, f.top + HIGH + 20, WIDE, BARS, f.x, sw_axis_make(0, fmax(bars, 1), 2)};
    report_draw_scale(p, &b, 0);
    for (int w = 0; w < r->num_weeks; w++) report_draw_column(p, &b, w, r->postings[w], 0x9aa4b0);
    report_draw_weeks(p, &b, r->first_week);
    status = report_finish_picture(p, folder, "skills-over-time.png", status);
  }
  free(x), free(y);
  return status;
}

/* --- the map --- */

static int by_value(const void *a, const void *b) { return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b); }

enum { NOT_NAMED = 0x777777, CLUSTER_GREY = 0x8c8c8c };

/* As on the page: colours come again after eight clusters in another shape, with grey for black; "others" are small discs, those without a cluster
 * (-1) crosses. */
static void draw_point(sw_picture *p, int cluster, double opacity, double x, double y, double radius) {
  if (cluster < 0) {
    sw_picture_line(p, x - radius, y - radius, x + radius, y + radius, 0.4 * radius, NOT_NAMED, 0);
    sw_picture_line(p, x - radius, y + radius, x + radius, y - radius, 0.4 * radius, NOT_NAMED, 0);
  } else if (cluster >= REPORT_CLUSTERS) sw_picture_dot(p, NOT_NAMED, opacity, x, y, 0.6 * radius);
  else sw_picture_shape(p, cluster / SW_COLOURS, cluster % SW_COLOURS == 6 ? CLUSTER_GREY : sw_colour(cluster), opacity, x, y, radius);
}

/* The middle of a cluster's points, by the median of each coordinate: 1 where it has any. */
static int centre_of(const report *r, const report_map *m, const float *at, int cluster, float *scratch, float centre[2]) {
  for (int c = 0; c < 2; c++) {
    size_t n = 0;
    for (size_t i = 0; i < m->count; i++)
      if (r->points[m->id[i]].cluster == cluster) scratch[n++] = at[2 * i + (size_t)c];
    if (!n) return 0;
    qsort(scratch, n, sizeof *scratch, by_value);
    centre[c] = scratch[n / 2];
  }
  return 1;
}

typedef struct {
  size_t point;
  float depth; /* towards the eye */
} seen_point;

static int by_depth(const void *a, const void *b) {
  const seen_point *x = a, *y = b;
  return x->depth != y->depth ? (x->depth > y->depth) - (x->depth < y->depth) : (x->point > y->point) - (x->point < y->point);
}

/* at: [count, 2], where the points are on the page; of three dimensions as they are seen without perspective from a corner, 25 degrees from above. order: [count], the
 * farthest first. */
static void look(const report_map *m, float *at, seen_point *order) {
  const double up = sin(25 * M_PI / 180), flat = cos(25 * M_PI / 180);
  for (size_t i = 0; i < m->count; i++) {
    const float *from = m->at + i * (size_t)m->dims;
    order[i] = (seen_point){i, 0};
    at[2 * i] = from[0], at[2 * i + 1] = from[1];
    if (m->dims != 3) continue;
    const double right = ((double)from[1] - (double)from[0]) * M_SQRT1_2, near = ((double)from[0] + (double)from[1]) * M_SQRT1_2;
    at[2 * i] = (float)right, at[2 * i + 1] = (float)(flat * (double)from[2] - up * near);
    order[i].depth = (float)(flat * near + up * (double)from[2]);
  }
  qsort(order, m->count, sizeof *order, by_depth);
}

static int draw_map(const report *r, const report_map *m, const char *folder, const char *file) {
  enum { WIDE = 860, HIGH = 640, MOST_NAMES = 40, LEGEND_ROWS = 28, LEGEND = 240 };
  const size_t clusters = r->clusters.count;
  float *scratch = sw_alloc_array(m->count + 1, sizeof *scratch), *at = sw_alloc_array(2 * m->count + 1, sizeof *at), low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
  seen_point *order = sw_alloc_array(m->count + 1, sizeof *order);
  sw_picture *p = NULL;
  int status = scratch && at && order ? sw_picture_open(2 * EDGE + WIDE + (clusters ? LEGEND : 0), 2 * EDGE + 36 + HIGH, &p) : -1;
  if (!status) look(m, at, order);
  for (size_t i = 0; i < m->count && !status; i++)
    for (size_t c = 0; c < 2; c++) low[c] = fminf(low[c], at[2 * i + c]), high[c] = fmaxf(high[c], at[2 * i + c]);
  /* one scale for both axes: distances on a map mean something */
  const double scale = fmin((WIDE - 40) / fmax((double)high[0] - (double)low[0], 1e-9), (HIGH - 40) / fmax((double)high[1] - (double)low[1], 1e-9));
  const double left = EDGE + WIDE / 2.0 - scale * ((double)low[0] + (double)high[0]) / 2, middle = EDGE + 36 + HIGH / 2.0 + scale * ((double)low[1] + (double)high[1]) / 2;
  if (!status) {
    char count[160];
    sw_picture_text(p, title_font, SW_LEFT, EDGE, EDGE + 8, "Map");
    size_t without = 0;
    for (size_t i = 0; i < m->count; i++) without += r->points[m->id[i]].cluster < 0;
    snprintf(count, sizeof count, "%zu points%s%s%s", m->count, m->dims == 3 ? " in three dimensions, seen from a corner" : "", clusters ? ", coloured by cluster" : "", clusters && without ? "; crosses have none" : "");
    sw_picture_text(p, small_font, SW_LEFT, EDGE + 50, EDGE + 9, count);
    const double radius = m->count > 50000 ? 1 : m->count > 5000 ? 1.6 : m->count > 500 ? 3 : 4.5, opacity = m->count > 5000 ? 0.45 : 0.75;
    for (size_t k = 0; k < m->count; k++) {
      const size_t i = order[k].point;
      const int cluster = r->points[m->id[i]].cluster;
      const double x = left + scale * (double)at[2 * i], y = middle - scale * (double)at[2 * i + 1];
      draw_point(p, clusters ? cluster : 0, opacity, x, y, radius);
    }
  }
  sw_box taken[MOST_NAMES];
  const sw_box field = {EDGE, EDGE + 36, EDGE + WIDE, EDGE + 36 + HIGH};
  size_t placed = 0;
  for (size_t k = 0; k < clusters && k < MOST_NAMES && !status; k++) { /* the largest first */
    float centre[2];
    if (!centre_of(r, m, at, (int)k, scratch, centre)) continue;
    char *name = sw_text_fit(section_font, r->clusters.keys[k], 220);
    if (!name) status = -1;
    else if (sw_box_place(field, taken, placed, left + scale * (double)centre[0], middle - scale * (double)centre[1], sw_text_width(section_font, name) + 8, sw_line_height(section_font), &taken[placed])) {
      sw_picture_text_rimmed(p, section_font, SW_CENTRE, (taken[placed].left + taken[placed].right) / 2, (taken[placed].top + taken[placed].bottom) / 2, name);
      placed++;
    }
    free(name);
  }
  for (size_t k = 0; k < clusters && k < LEGEND_ROWS && !status; k++) {
    sw_buffer line = {0};
    const double y = EDGE + 50 + 20 * (double)k;
    draw_point(p, (int)k, 1, EDGE + WIDE + 20, y, 5.5);
    status = k == LEGEND_ROWS - 1 && clusters > LEGEND_ROWS ? sw_buffer_print(&line, "and %zu more", clusters - k) : sw_buffer_print(&line, "%s (%llu)", r->clusters.keys[k], (unsigned long long)r->cluster_sizes[k]);
    if (!status) status = report_draw_text(p, small_font, SW_LEFT, EDGE + WIDE + 32, y, line.data, LEGEND - 40);
    sw_buffer_close(&line);
  }
  free(scratch), free(at), free(order);
  return report_finish_picture(p, folder, file, status);
}

int report_write_pictures(const report *r, const char *folder) {
  if (r->num_skills && r->num_weeks && (draw_trends(r, folder) || draw_time(r, folder))) return -1;
  if ((r->maps[0].count && draw_map(r, &r->maps[0], folder, "map.png")) || (r->maps[1].count && draw_map(r, &r->maps[1], folder, "map-3d.png"))) return -1;
  return report_draw_rest(r, folder);
}
