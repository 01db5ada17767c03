/* Regular expressions over UTF-8 (ICU's, near Perl's), without regard to case: "machine learning|data scientist". A match anywhere counts. */
#ifndef SW_TEXT_PATTERN_H
#define SW_TEXT_PATTERN_H
#include <stddef.h>

typedef struct sw_pattern sw_pattern; /* not to be shared by threads */
/* Fails where the expression is broken: the message says where. */
int sw_pattern_open(const char *expression, sw_pattern **out);
/* 1, 0, or -1: an expression that takes too long for this text. */
int sw_pattern_find(sw_pattern *pattern, const char *text, size_t bytes);
void sw_pattern_close(sw_pattern *pattern);
#endif
