/* Rows of the inputs, one after the other. What cannot be used is set aside with its reason. */
#ifndef SW_REPORT_INPUTS_H
#define SW_REPORT_INPUTS_H
#include "tools/report/report.h"

/* 0; 1 with *why: the row cannot be used; -1: failure. */
typedef int report_json_fn(report *r, void *context, const json_t *row, const char **why);
typedef int report_csv_fn(report *r, void *context, const char *const *values, const char **why);
enum { REPORT_COLUMNS = 4 };
/* Objects of JSON lines. */
int report_each_json(report *r, const char *path, report_json_fn *use, void *context);
/* The fields of those columns; the first `required` must be there, values of others may be NULL. */
int report_each_csv(report *r, const char *path, const char *const *columns, int count, int required, report_csv_fn *use, void *context);
/* 1 where the name ends in .csv or .tsv (.gz, .zst). */
int report_is_table(const char *path);
/* The text of a key; "" where it has none. */
const char *report_text(const json_t *row, const char *key);
#endif
