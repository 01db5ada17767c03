#include "tools/picture/picture.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/text/words.h"

#include <cairo.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = 2, LONGEST = 16000, TICK = 4 };

struct sw_picture {
  cairo_surface_t *surface;
  cairo_t *cairo;
};

int sw_colour(int i) {
  /* the palette's own order but for black, which comes last, and yellow, which is faint on white */
  static const int colours[SW_COLOURS] = {0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7,
                                          0xe69f00, 0x56b4e9, 0x000000, 0xb3a800};
  return colours[i % SW_COLOURS];
}

int sw_picture_open(double width, double height, sw_picture **out) {
  *out = NULL;
  if (!(width >= 1 && height >= 1 && width <= LONGEST && height <= LONGEST))
    return sw_fail("a picture of %.0f by %.0f points is too large: %d is the most", width, height, (int)LONGEST);
  sw_picture *p = sw_alloc(sizeof *p);
  if (!p) return -1;
  p->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, PIXELS * (int)ceil(width), PIXELS * (int)ceil(height));
  p->cairo = cairo_create(p->surface);
  if (cairo_status(p->cairo) != CAIRO_STATUS_SUCCESS) {
    sw_fail("a picture of %.0f by %.0f points cannot be made: %s", width, height,
            cairo_status_to_string(cairo_status(p->cairo)));
    sw_picture_close(p);
    return -1;
  }
  cairo_scale(p->cairo, PIXELS, PIXELS);
  cairo_set_source_rgb(p->cairo, 1, 1, 1);
  cairo_paint(p->cairo);
  *out = p;
  return 0;
}

void sw_picture_close(sw_picture *p) {
  if (!p) return;
  cairo_destroy(p->cairo);
  cairo_surface_destroy(p->surface);
  free(p);
}

static cairo_status_t put(void *file, const unsigned char *data, unsigned bytes) {
  return fwrite(data, 1, bytes, file) == bytes ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

int sw_picture_write(sw_picture *p, const char *path) {
  if (cairo_status(p->cairo) != CAIRO_STATUS_SUCCESS)
    return sw_fail("%s cannot be drawn: %s", path, cairo_status_to_string(cairo_status(p->cairo)));
  sw_output output;
  if (sw_output_open(&output, path)) return -1;
  cairo_surface_flush(p->surface);
  const cairo_status_t status = cairo_surface_write_to_png_stream(p->surface, put, output.file);
  if (status == CAIRO_STATUS_SUCCESS) return sw_output_commit(&output);
  const int why = errno;
  sw_output_abandon(&output);
  return sw_fail("cannot write %s: %s", path,
                 status == CAIRO_STATUS_WRITE_ERROR ? strerror(why) : cairo_status_to_string(status));
}

static void set_colour(cairo_t *c, int colour) {
  cairo_set_source_rgb(c, (colour >> 16 & 255) / 255.0, (colour >> 8 & 255) / 255.0, (colour & 255) / 255.0);
}

/* --- text --- */

static void set_font(cairo_t *c, sw_font font) {
  cairo_select_font_face(c, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                         font.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(c, font.size);
  cairo_font_options_t *options = cairo_font_options_create();
  cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF); /* so that widths are the same at every scale */
  cairo_set_font_options(c, options);
  cairo_font_options_destroy(options);
  set_colour(c, font.colour);
}

/* What cairo can draw: file names need not be UTF-8. free() it. */
static char *drawable(const char *text) {
  char *copy = sw_strdup(text);
  if (copy && sw_check_utf8(copy, strlen(copy)))
    for (char *at = copy; *at; at++)
      if (*at & 0x80) *at = '?';
  return copy;
}

double sw_line_height(sw_font font) {
  return 1.35 * font.size;
}

double sw_text_width(sw_font font, const char *text) {
  char *copy = drawable(text);
  if (!copy) return -1;
  cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
  cairo_t *c = cairo_create(surface);
  cairo_text_extents_t extents = {0};
  set_font(c, font);
  cairo_text_extents(c, copy, &extents);
  cairo_destroy(c);
  cairo_surface_destroy(surface);
  free(copy);
  return extents.x_advance;
}

char *sw_text_fit(sw_font font, const char *text, double width) {
  enum { MOST_BYTES = 800 }; /* bytes; no picture has room for more */
  char *copy = drawable(text), *best = NULL;
  const size_t bytes = copy ? strlen(copy) : 0;
  if (!copy || (bytes <= MOST_BYTES && sw_text_width(font, copy) <= width)) return copy;
  size_t low = 2, high = bytes < MOST_BYTES ? bytes : MOST_BYTES; /* bytes kept of the beginning and of the end: two are, whatever their width */
  while (low <= high) {
    const size_t keep = best ? (low + high + 1) / 2 : low;
    size_t head = keep / 2, tail = bytes - (keep - head);
    while (head && (copy[head] & 0xC0) == 0x80) head--;
    while (copy[tail] && (copy[tail] & 0xC0) == 0x80) tail++;
    sw_buffer cut = {0};
    if (sw_buffer_print(&cut, "%.*s…%s", (int)head, copy, copy + tail)) {
      sw_buffer_close(&cut);
      break;
    }
    if (!best || sw_text_width(font, cut.data) <= width) {
      free(best);
      best = sw_buffer_take(&cut);
      low = keep + 1;
    } else {
      sw_buffer_close(&cut);
      high = keep - 1;
    }
    if (!best) break;
  }
  if (!best) return copy;
  free(copy);
  return best;
}

static void text(sw_picture *p, sw_font font, sw_align align, double x, double y, double angle, const char *text_) {
  char *copy = drawable(text_);
  if (!copy) return;
  cairo_text_extents_t extents;
  cairo_font_extents_t line;
  cairo_save(p->cairo);
  set_font(p->cairo, font);
  cairo_text_extents(p->cairo, copy, &extents);
  cairo_font_extents(p->cairo, &line);
  cairo_translate(p->cairo, x, y);
  cairo_rotate(p->cairo, angle);
  cairo_move_to(p->cairo,
                -extents.x_advance * (align == SW_LEFT     ? 0
                                      : align == SW_CENTRE ? 0.5
                                                           : 1),
                (line.ascent - line.descent) / 2);
  cairo_show_text(p->cairo, copy);
  cairo_restore(p->cairo);
  free(copy);
}

void sw_picture_text(sw_picture *p, sw_font font, sw_align align, double x, double y, const char *words) {
  text(p, font, align, x, y, 0, words);
}

void sw_picture_text_upwards(sw_picture *p, sw_font font, sw_align align, double x, double y, const char *words) {
  text(p, font, align, x, y, -M_PI / 2, words);
}

void sw_picture_text_rimmed(sw_picture *p, sw_font font, sw_align align, double x, double y, const char *words) {
  const sw_font rim = {font.size, font.bold, 0xffffff};
  for (int i = 0; i < 16; i++) text(p, rim, align, x + 1.6 * cos(i * M_PI / 8), y + 1.6 * sin(i * M_PI / 8), 0, words);
  text(p, font, align, x, y, 0, words);
}

/* --- shapes --- */

static void set_opacity(cairo_t *c, int colour, double opacity) {
  cairo_set_source_rgba(c, (colour >> 16 & 255) / 255.0, (colour >> 8 & 255) / 255.0, (colour & 255) / 255.0, opacity);
}

void sw_picture_dot(sw_picture *p, int colour, double opacity, double x, double y, double radius) {
  set_opacity(p->cairo, colour, opacity);
  cairo_new_path(p->cairo);
  cairo_arc(p->cairo, x, y, radius, 0, 2 * M_PI);
  cairo_fill(p->cairo);
}

void sw_picture_area(sw_picture *p, int colour, double opacity, const double *x, const double *y, size_t count) {
  set_opacity(p->cairo, colour, opacity);
  cairo_new_path(p->cairo);
  for (size_t i = 0; i < count; i++) cairo_line_to(p->cairo, x[i], y[i]);
  cairo_close_path(p->cairo);
  cairo_fill(p->cairo);
}

int sw_box_place(sw_box field, const sw_box *taken, size_t count, double x, double y, double width, double height, sw_box *out) {
  enum { RINGS = 12, TURNS = 16 };
  for (int ring = 0; ring <= RINGS; ring++)
    for (int turn = 0; turn < (ring ? TURNS : 1); turn++) {
      const double far = ring * height / 4, angle = M_PI / 2 + turn * 2 * M_PI / TURNS, cx = x + 2 * far * cos(angle), cy = y + far * sin(angle);
      const sw_box box = {cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2};
      int fits = box.left >= field.left && box.right <= field.right && box.top >= field.top && box.bottom <= field.bottom;
      for (size_t i = 0; i < count && fits; i++)
        fits = box.left >= taken[i].right || taken[i].left >= box.right || box.top >= taken[i].bottom || taken[i].top >= box.bottom;
      if (!fits) continue;
      *out = box;
      return 1;
    }
  return 0;
}

void sw_picture_line(sw_picture *p, double x0, double y0, double x1, double y1, double width, int colour, int dashed) {
  const double dash[] = {4, 3};
  set_colour(p->cairo, colour);
  cairo_set_line_width(p->cairo, width);
  cairo_set_dash(p->cairo, dash, dashed ? 2 : 0, 0);
  cairo_move_to(p->cairo, x0, y0);
  cairo_line_to(p->cairo, x1, y1);
  cairo_stroke(p->cairo);
}

static void shape_path(sw_picture *p, int i, double x, double y, double radius) {
  /* corners of the shapes, as shares of the radius; a circle has none */
  static const struct {
    int corners;
    double turn, size;
  } shapes[] = {{0, 0, 1},          {4, M_PI / 4, 1.2},  {3, -M_PI / 2, 1.3}, {4, 0, 1.3},
                {3, M_PI / 2, 1.3}, {5, -M_PI / 2, 1.2}, {6, 0, 1.2},         {8, 0, 1.1}};
  cairo_new_path(p->cairo);
  const int corners = shapes[i % SW_COLOURS].corners;
  for (int k = 0; k < corners; k++) {
    const double angle = shapes[i % SW_COLOURS].turn + 2 * M_PI * k / corners,
                 far = radius * shapes[i % SW_COLOURS].size;
    cairo_line_to(p->cairo, x + far * cos(angle), y + far * sin(angle));
  }
  if (corners)
    cairo_close_path(p->cairo);
  else
    cairo_arc(p->cairo, x, y, radius, 0, 2 * M_PI);
}

void sw_picture_shape(sw_picture *p, int shape, int colour, double opacity, double x, double y, double radius) {
  shape_path(p, shape, x, y, radius);
  cairo_set_source_rgba(p->cairo, (colour >> 16 & 255) / 255.0, (colour >> 8 & 255) / 255.0, (colour & 255) / 255.0, opacity);
  cairo_fill(p->cairo);
}

void sw_picture_marker(sw_picture *p, int i, double x, double y, double radius) {
  shape_path(p, i, x, y, radius);
  set_colour(p->cairo, sw_colour(i));
  cairo_fill_preserve(p->cairo);
  cairo_set_source_rgb(p->cairo, 1, 1, 1); /* apart from the lines they stand on */
  cairo_set_line_width(p->cairo, 0.7);
  cairo_set_dash(p->cairo, NULL, 0, 0);
  cairo_stroke(p->cairo);
}

/* --- axes --- */

sw_axis sw_axis_make(double low, double high, int ticks) {
  if (!(high > low)) high = low + 1e-3 + fabs(low) * 1e-3;
  const double rough = (high - low) / ticks, power = pow(10, floor(log10(rough)));
  const double step = power * (rough <= power ? 1 : rough <= 2 * power ? 2 : rough <= 5 * power ? 5 : 10);
  return (sw_axis){step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9), step};
}

void sw_axis_text(sw_axis axis, double value, char out[32]) {
  const int digits = (int)fmax(0, ceil(-log10(axis.step) - 1e-9));
  if (fabs(value) < axis.step / 2) value = 0;
  snprintf(out, 32, axis.low < 0 && value != 0 ? "%+.*f" : "%.*f", digits, value);
}

double sw_field_x(const sw_field *f, double value) {
  return f->left + f->width * (value - f->x.low) / (f->x.high - f->x.low);
}
double sw_field_y(const sw_field *f, double value) {
  return f->top + f->height * (f->y.high - value) / (f->y.high - f->y.low);
}

void sw_picture_field(sw_picture *p, const sw_field *f, sw_font font, int with_y) {
  char number[32];
  const double right = f->left + f->width, bottom = f->top + f->height;
  double free_from = -1; /* a number that would touch the one before is left out */
  for (int i = 0; f->x.low + i * f->x.step <= f->x.high + f->x.step / 2; i++) {
    const double value = f->x.low + i * f->x.step, x = sw_field_x(f, value);
    sw_picture_line(p, x, f->top, x, bottom + TICK, 0.6, SW_LIGHT, 0);
    sw_axis_text(f->x, value, number);
    const double half = sw_text_width(font, number) / 2;
    if (x - half < free_from) continue;
    sw_picture_text(p, font, SW_CENTRE, x, bottom + TICK + sw_line_height(font) / 2, number);
    free_from = x + half + font.size / 2;
  }
  for (int i = 0; with_y && f->y.low + i * f->y.step <= f->y.high + f->y.step / 2; i++) {
    const double value = f->y.low + i * f->y.step, y = sw_field_y(f, value);
    sw_picture_line(p, f->left - TICK, y, right, y, 0.6, SW_LIGHT, 0);
    sw_axis_text(f->y, value, number);
    sw_picture_text(p, font, SW_RIGHT, f->left - TICK - 2, y, number);
  }
  sw_picture_line(p, f->left, f->top, f->left, bottom, 0.8, SW_GREY, 0);
  sw_picture_line(p, f->left, bottom, right, bottom, 0.8, SW_GREY, 0);
}
