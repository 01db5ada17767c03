/* What the report's pictures share. Each can be read by itself: title, axes with units, legend. */
#ifndef SW_REPORT_DRAW_H
#define SW_REPORT_DRAW_H
#include "tools/picture/picture.h"
#include "tools/report/report.h"

enum { EDGE = 22, ROW = 22 }; /* points: around a picture, and a row of one */
static const sw_font title_font = {17, 1, SW_BLACK}, section_font = {13, 1, SW_BLACK}, font = {12, 0, SW_BLACK}, small_font = {11, 0, SW_GREY};

/* Writes it, where `status` is 0, and closes it: 0 or -1. */
int report_finish_picture(sw_picture *p, const char *folder, const char *file, int status);
/* As much of the text as fits into the width. */
int report_draw_text(sw_picture *p, sw_font style, sw_align align, double x, double y, const char *words, double width);
/* A row of a legend: line and marker of that number, and what they stand for. */
int report_draw_key(sw_picture *p, int number, double x, double y, const char *words, double width);
/* Lines across, with their numbers; shares as per cent. */
void report_draw_scale(sw_picture *p, const sw_field *f, int share);
/* The dates under a field whose x counts weeks from `first`. */
void report_draw_weeks(sw_picture *p, const sw_field *f, int first);
/* A column of such a field; none for 0. */
void report_draw_column(sw_picture *p, const sw_field *f, double week, double value, int colour);

/* Topics, occupations, quality, labels: those that there are (charts.c). */
int report_draw_rest(const report *r, const char *folder);
#endif
