/* Diagrams as PNG files, drawn with cairo. Lengths are in points, from the upper left corner; a point is two pixels, so
 * that text stays sharp. Every text is measured before it gets its place. What fails while drawing is reported by
 * sw_picture_write. */
#ifndef SW_PICTURE_H
#define SW_PICTURE_H
#include <stddef.h>

typedef struct sw_picture sw_picture;
/* A white page. Fails beyond 16,000 points on a side. */
int sw_picture_open(double width, double height, sw_picture **out);
void sw_picture_close(sw_picture *picture);
/* Atomic (base/file.h). */
int sw_picture_write(sw_picture *picture, const char *path);

/* 0xRRGGBB. The first eight tell from each other also for the colour-blind (Okabe and Ito, "Color universal design",
 * 2008). */
enum { SW_BLACK = 0x000000, SW_GREY = 0x666666, SW_LIGHT = 0xdddddd };
enum { SW_COLOURS = 8 };
int sw_colour(int i);

typedef enum { SW_LEFT, SW_CENTRE, SW_RIGHT } sw_align; /* which part of the text is at x */
typedef struct {
  double size; /* points */
  int bold, colour;
} sw_font;
/* Height of a line of text. */
double sw_line_height(sw_font font);
/* -1 where memory runs out. Bytes that are no UTF-8 are drawn as '?'. */
double sw_text_width(sw_font font, const char *text);
/* The text, or as much of its beginning and end as is not wider than `width`, with an ellipsis in the middle; free()
 * it. */
char *sw_text_fit(sw_font font, const char *text, double width);
/* y: the middle of the line. */
void sw_picture_text(sw_picture *picture, sw_font font, sw_align align, double x, double y, const char *text);
/* The same, read from below upwards; y: where `align` puts the text. */
void sw_picture_text_upwards(sw_picture *picture, sw_font font, sw_align align, double x, double y, const char *text);

void sw_picture_line(sw_picture *picture, double x0, double y0, double x1, double y1, double width, int colour,
                     int dashed);
/* Shape and colour number i, so that nothing is told by colour alone. */
void sw_picture_marker(sw_picture *picture, int i, double x, double y, double radius);

/* Shape number `shape` alone, of which there are SW_COLOURS, in a colour (0xRRGGBB); `opacity` 0..1. */
void sw_picture_shape(sw_picture *picture, int shape, int colour, double opacity, double x, double y, double radius);
/* A disc, `opacity` 0..1. */
void sw_picture_dot(sw_picture *picture, int colour, double opacity, double x, double y, double radius);
/* What the points x, y [count] go round. */
void sw_picture_area(sw_picture *picture, int colour, double opacity, const double *x, const double *y, size_t count);
/* The text with a white rim, for busy ground. */
void sw_picture_text_rimmed(sw_picture *picture, sw_font font, sw_align align, double x, double y, const char *text);

/* Places that are taken, so that labels do not overlap. */
typedef struct {
  double left, top, right, bottom;
} sw_box;
/* Finds a place for a label of width x height near its middle x, y, within `field` and off the `count` boxes that are taken: 1 with *out, 0
 * where there is none nearer than three of its heights. */
int sw_box_place(sw_box field, const sw_box *taken, size_t count, double x, double y, double width, double height, sw_box *out);

typedef struct {
  double low, high, step; /* ticks at the multiples of step */
} sw_axis;
/* Covers low..high with about `ticks` round steps of 1, 2 or 5 times a power of ten. */
sw_axis sw_axis_make(double low, double high, int ticks);
/* The tick's text: no more digits than the steps need; with a sign where the axis crosses 0. */
void sw_axis_text(sw_axis axis, double value, char text[32]);

/* A diagram's field: what lies within it is placed by its axes, y upwards. */
typedef struct {
  double left, top, width, height;
  sw_axis x, y;
} sw_field;
double sw_field_x(const sw_field *field, double value);
double sw_field_y(const sw_field *field, double value);
/* Frame, grid lines and numbers of the x axis, and of the y axis where `with_y`. */
void sw_picture_field(sw_picture *picture, const sw_field *field, sw_font font, int with_y);
#endif
