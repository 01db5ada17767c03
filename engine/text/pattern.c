#include "engine/text/pattern.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <unicode/uregex.h>
#include <unicode/utext.h>

struct sw_pattern {
  URegularExpression *expression;
  UText text;
};

int sw_pattern_open(const char *expression, sw_pattern **out) {
  UErrorCode error = U_ZERO_ERROR;
  UParseError where = {0};
  *out = NULL;
  if (!*expression) return sw_fail("the regular expression is empty: it would match everything");
  sw_pattern *p = sw_alloc(sizeof *p);
  if (!p) return -1;
  p->text = (UText)UTEXT_INITIALIZER;
  utext_openUTF8(&p->text, expression, (int64_t)strlen(expression), &error);
  p->expression = uregex_openUText(&p->text, UREGEX_CASE_INSENSITIVE, &where, &error);
  uregex_setTimeLimit(p->expression, 1000, &error); /* many times what an honest one takes for the longest text */
  if (U_SUCCESS(error)) {
    *out = p;
    return 0;
  }
  sw_fail("the regular expression '%.200s' is broken near character %d: %s", expression, where.offset + (where.line > 1), u_errorName(error));
  sw_pattern_close(p);
  return -1;
}

int sw_pattern_find(sw_pattern *p, const char *text, size_t bytes) {
  UErrorCode error = U_ZERO_ERROR;
  utext_openUTF8(&p->text, text, (int64_t)bytes, &error);
  uregex_setUText(p->expression, &p->text, &error);
  const int found = uregex_find(p->expression, 0, &error);
  if (U_SUCCESS(error)) return found;
  return sw_fail("the regular expression takes too long for a text of %zu bytes (%s): a simpler one is wanted", bytes, u_errorName(error));
}

void sw_pattern_close(sw_pattern *p) {
  if (!p) return;
  uregex_close(p->expression);
  utext_close(&p->text);
  free(p);
}
