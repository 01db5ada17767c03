/* The comparison as a picture: for each data file F1 by label with intervals, the differences to the first checkpoint,
 * and reliability. */
#include "base/error.h"
#include "tools/compare/compare.h"
#include "tools/picture/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const sw_font title_font = {15, 1, SW_BLACK}, section_font = {12, 1, SW_BLACK}, font = {11, 0, SW_BLACK},
                     small_font = {10, 0, SW_GREY};
enum {
  EDGE = 18,
  GAP = 44,
  SCORES = 300,
  DIFFERENCES = 270,
  SQUARE = 210,
  MOST_LABEL = 240,
  SPREAD = 9,
  FEW = 5
}; /* FEW: a bin of fewer words says nothing */

/* A line of the diagrams: a measure, or the name of the layer that the next ones belong to. */
typedef struct {
  int measure; /* -1: a layer's name */
  char *name;
} row;

typedef struct {
  size_t count;
  row *items;
  double labels, height; /* width of the names; height of a row */
} rows;

static void close_rows(rows *r) {
  for (size_t i = 0; i < r->count; i++) free(r->items[i].name);
  free(r->items);
}

static int add_row(rows *r, int measure, const char *layer, const char *name) {
  sw_buffer whole = {0};
  if (sw_buffer_print(&whole, "%s%s%s", layer, *layer && *name ? ", " : "", name)) return -1;
  const sw_font style = measure < 0 ? section_font : font;
  char *fitting = sw_text_fit(style, whole.data, MOST_LABEL);
  sw_buffer_close(&whole);
  if (!fitting) return -1;
  const double width = sw_text_width(style, fitting);
  if (width > r->labels) r->labels = width;
  r->items[r->count++] = (row){measure, fitting};
  return 0;
}

static int list_rows(const comparison *c, const compare_section *s, rows *r) {
  if (!(r->items = sw_alloc_array(c->num_measures + c->num_layers, sizeof *r->items))) return -1;
  for (size_t m = 0; m < c->num_measures; m++) {
    if (!compare_is_shown(c, s, m)) continue;
    const compare_measure *measure = &c->measures[m];
    const char *layer = measure->layer < 0 ? "all layers" : c->sides[0].labels.layers[measure->layer].name;
    int status = 0;
    if (measure->layer >= 0 && measure->types > 1 && measure->kind == MICRO) status = add_row(r, -1, layer, "");
    if (measure->layer >= 0 && measure->kind == LABEL && c->sides[0].rules[measure->layer].num_types == 1)
      status = add_row(r, (int)m, layer, strcmp(layer, measure->name) ? measure->name : ""); /* a layer of one label */
    else if (!status)
      status = add_row(r, (int)m, measure->layer < 0 ? layer : "", measure->name);
    if (status) return -1;
  }
  r->height = fmax(SPREAD * (double)c->num_sides + 8, (double)SQUARE / fmax(1, (double)r->count));
  return 0;
}

static double section_height(const rows *r) {
  return sw_line_height(section_font) + 4 + sw_line_height(font) + 6 + r->height * (double)r->count +
         2 * sw_line_height(font) + GAP;
}

static void whisker(sw_picture *p, const sw_field *f, int colour, double y, sw_interval interval, double value) {
  const double low = sw_field_x(f, interval.low), high = sw_field_x(f, interval.high);
  sw_picture_line(p, low, y, high, y, 1.6, sw_colour(colour), 0);
  sw_picture_line(p, low, y - 2.5, low, y + 2.5, 1.6, sw_colour(colour), 0);
  sw_picture_line(p, high, y - 2.5, high, y + 2.5, 1.6, sw_colour(colour), 0);
  sw_picture_marker(p, colour, sw_field_x(f, value), y, 3.4);
}

/* The side's place within its row: first above last. */
static double side_y(const rows *r, const sw_field *f, size_t index, size_t side, size_t first, size_t sides) {
  const double middle = f->top + r->height * ((double)index + 0.5);
  return middle + SPREAD * ((double)(side - first) - (double)(sides - first - 1) / 2);
}

/* One line of each measure and side: F1 itself, or its difference to the first side's. */
static void draw_scores(sw_picture *p, const comparison *c, const compare_section *s, const rows *r, sw_field f,
                        int differences) {
  const size_t first = differences ? 1 : 0;
  double low = differences ? fmin(0, -c->options->margin) : 1, high = differences ? fmax(0, -c->options->margin) : 0;
  for (size_t i = 0; i < r->count; i++)
    for (size_t k = first; k < c->num_sides && r->items[i].measure >= 0; k++) {
      const compare_result *result = compare_result_of(c, s, k, (size_t)r->items[i].measure);
      const sw_interval *interval = differences ? &result->difference_interval : &result->interval;
      const double value = differences ? result->difference : result->score.f1; /* may lie outside its interval */
      low = fmin(low, fmin(interval->low, value));
      high = fmax(high, fmax(interval->high, value));
    }
  if (differences) low = fmin(low, -fmax(high / 10, 0.01)), high = fmax(high, -fmin(low / 10, -0.01)); /* 0 is within */
  high = fmax(high, low + 0.05);
  f.x = sw_axis_make(low, high, 6);
  for (size_t i = 0; i < r->count; i++) {
    const double y = f.top + r->height * ((double)i + 0.5);
    if (i)
      sw_picture_line(p, f.left, f.top + r->height * (double)i, f.left + f.width, f.top + r->height * (double)i, 0.6,
                      SW_LIGHT, 0);
    if (!differences)
      sw_picture_text(p, r->items[i].measure < 0 ? section_font : font, SW_RIGHT, f.left - 8, y, r->items[i].name);
  }
  sw_picture_field(p, &f, small_font, 0);
  sw_picture_text(p, font, SW_LEFT, f.left, f.top - 6 - sw_line_height(font) / 2,
                  differences ? "F1 less that of A, 95 % interval" : "F1 of whole spans, 95 % interval");
  if (differences) {
    sw_picture_line(p, sw_field_x(&f, 0), f.top, sw_field_x(&f, 0), f.top + f.height, 1.2, SW_GREY, 0);
    if (c->options->gate) {
      const double x = sw_field_x(&f, -c->options->margin), half = sw_text_width(small_font, "gate") / 2;
      sw_picture_line(p, x, f.top, x, f.top + f.height, 1.4, SW_BLACK, 1);
      sw_picture_text(p, small_font, SW_CENTRE, fmin(x, f.left + f.width - half),
                      f.top + f.height + 6 + 1.5 * sw_line_height(small_font), "gate");
    }
  }
  for (size_t i = 0; i < r->count; i++)
    for (size_t k = first; k < c->num_sides && r->items[i].measure >= 0; k++) {
      const compare_result *result = compare_result_of(c, s, k, (size_t)r->items[i].measure);
      whisker(p, &f, (int)k, side_y(r, &f, i, k, first, c->num_sides),
              differences ? result->difference_interval : result->interval,
              differences ? result->difference : result->score.f1);
    }
}

static void draw_reliability(sw_picture *p, const comparison *c, const compare_section *s, double left, double top) {
  const sw_field f = {left, top, SQUARE, SQUARE, {0, 1, 0.2}, {0, 1, 0.2}};
  sw_picture_field(p, &f, small_font, 1);
  sw_picture_line(p, left, top + SQUARE, left + SQUARE, top, 1, SW_GREY, 1);
  sw_picture_text(p, small_font, SW_CENTRE, left + SQUARE / 2.0, top + SQUARE + 6 + 1.5 * sw_line_height(small_font),
                  "probability of the predicted tag");
  sw_picture_text_upwards(p, small_font, SW_CENTRE, left - 34, top + SQUARE / 2.0, "share of right tags");
  sw_picture_text(p, font, SW_LEFT, left, top - 6 - sw_line_height(font) / 2, "Reliability of words");
  for (size_t k = 0; k < c->num_sides; k++) {
    char text[64];
    const sw_font coloured = {small_font.size, 1, sw_colour((int)k)};
    const double y = top + SQUARE - sw_line_height(coloured) * ((double)(c->num_sides - k) - 0.4);
    snprintf(text, sizeof text, "%s ECE %.4f", c->sides[k].name,
             sw_calibration_error(&compare_words_of(c, s, k, c->num_layers)->calibration));
    sw_picture_text(p, coloured, SW_RIGHT, left + SQUARE - 6, y, text);
  }
  for (size_t k = 0; k < c->num_sides; k++) {
    const compare_words *w = compare_words_of(c, s, k, c->num_layers);
    double x_before = -1, y_before = 0;
    for (int again = 0; again < 2; again++) /* lines first, then markers on them */
      for (int i = 0; i < SW_CALIBRATION_BINS; i++) {
        const double n = (double)w->calibration.count[i];
        if (n < FEW) continue;
        const double x = sw_field_x(&f, w->calibration.probability[i] / n),
                     y = sw_field_y(&f, (double)w->calibration.right[i] / n);
        if (!again && x_before >= 0) sw_picture_line(p, x_before, y_before, x, y, 1.4, sw_colour((int)k), 0);
        if (again) sw_picture_marker(p, (int)k, x, y, 1.6 + 3 * log1p(n) / log1p((double)w->words));
        x_before = x, y_before = y;
      }
  }
}

static const char *last_part(const char *path) {
  return strrchr(path, '/') && strrchr(path, '/')[1] ? strrchr(path, '/') + 1 : path;
}

/* "old.h5, new.h5 on test.jsonl" */
static char *title(const comparison *c, double width) {
  sw_buffer text = {0};
  int status = 0;
  for (size_t k = 0; k < c->num_sides && !status; k++)
    status = sw_buffer_print(&text, "%s%s", k ? ", " : "", last_part(c->sides[k].path));
  for (size_t i = 0; i < c->gold.num_files && !status; i++)
    status = sw_buffer_print(&text, "%s%s", i ? ", " : " on ", last_part(c->gold.files[i].path));
  char *fitting = status ? NULL : sw_text_fit(title_font, text.data, width);
  sw_buffer_close(&text);
  return fitting;
}

static int draw_head(sw_picture *p, const comparison *c, double width, double *y) {
  char *text = title(c, width - 2 * EDGE);
  if (!text) return -1;
  sw_picture_text(p, title_font, SW_LEFT, EDGE, *y + sw_line_height(title_font) / 2, text);
  free(text);
  *y += sw_line_height(title_font) + 6;
  for (size_t k = 0; k < c->num_sides; k++, *y += sw_line_height(font)) {
    const double middle = *y + sw_line_height(font) / 2;
    if (!(text = sw_text_fit(font, c->sides[k].path, width - 2 * EDGE - 46))) return -1;
    sw_picture_line(p, EDGE, middle, EDGE + 24, middle, 1.6, sw_colour((int)k), 0);
    sw_picture_marker(p, (int)k, EDGE + 12, middle, 3.4);
    sw_picture_text(p, font, SW_LEFT, EDGE + 30, middle, c->sides[k].name);
    sw_picture_text(p, font, SW_LEFT, EDGE + 46, middle, text);
    free(text);
  }
  *y += GAP / 2.0;
  return 0;
}

static int draw_section(sw_picture *p, const comparison *c, const compare_section *s, const rows *r, double labels,
                        double width, double *y) {
  char count[64];
  snprintf(count, sizeof count, ": %zu example%s", s->end - s->first, SW_S(s->end - s->first));
  const double room = width - 2 * EDGE - sw_text_width(section_font, count),
               middle = *y + sw_line_height(section_font) / 2;
  char *name = sw_text_fit(section_font, s->name, room);
  if (!name) return -1;
  sw_picture_text(p, section_font, SW_LEFT, EDGE, middle, name);
  sw_picture_text(p, section_font, SW_LEFT, EDGE + sw_text_width(section_font, name), middle, count);
  free(name);
  sw_field f = {.left = EDGE + labels + 8,
                .top = *y + sw_line_height(section_font) + 4 + sw_line_height(font) + 6,
                .width = SCORES};
  f.height = r->height * (double)r->count;
  draw_scores(p, c, s, r, f, 0);
  f.left += SCORES + GAP;
  f.width = DIFFERENCES;
  draw_scores(p, c, s, r, f, 1);
  draw_reliability(p, c, s, f.left + DIFFERENCES + 2 * GAP, f.top);
  *y += section_height(r);
  return 0;
}

int compare_draw(const comparison *c, const char *path) {
  rows *all = sw_alloc_array(c->num_sections, sizeof *all);
  sw_picture *p = NULL;
  double labels = 0, y = EDGE,
         height = 2 * EDGE + sw_line_height(title_font) + 6 + sw_line_height(font) * (double)c->num_sides;
  int status = all ? 0 : -1;
  for (size_t i = 0; i < c->num_sections && !status; i++) {
    status = list_rows(c, &c->sections[i], &all[i]);
    labels = fmax(labels, all[i].labels);
    height += section_height(&all[i]);
  }
  const double width = EDGE + labels + 8 + SCORES + GAP + DIFFERENCES + 2 * GAP + SQUARE + EDGE;
  if (!status) status = sw_picture_open(width, height, &p) || draw_head(p, c, width, &y) ? -1 : 0;
  for (size_t i = 0; i < c->num_sections && !status; i++)
    status = draw_section(p, c, &c->sections[i], &all[i], labels, width, &y);
  if (!status) status = sw_picture_write(p, path);
  sw_picture_close(p);
  for (size_t i = 0; all && i < c->num_sections; i++) close_rows(&all[i]);
  free(all);
  return status;
}
