#include "base/error.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[2048];
static _Thread_local int is_memory;

static void set_message(const char *prefix, const char *format, va_list args) {
  /* the arguments may point into the present message, so format beside it first */
  char text[sizeof message];
  int used = snprintf(text, sizeof text, "%s", prefix);
  vsnprintf(text + used, sizeof text - (size_t)used, format, args);
  for (char *c = text; *c; c++) /* one line, whatever a file or a server put into it */
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
  memcpy(message, text, sizeof message);
}

int sw_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  set_message("", format, args);
  va_end(args);
  is_memory = 0;
  return -1;
}

int sw_fail_memory(const char *format, ...) {
  va_list args;
  va_start(args, format);
  set_message("out of memory: ", format, args);
  va_end(args);
  is_memory = 1;
  return -1;
}

int sw_fail_in(const char *format, ...) {
  char context[512];
  int was_memory = is_memory;
  va_list args;
  va_start(args, format);
  vsnprintf(context, sizeof context, format, args);
  va_end(args);
  sw_fail("%s: %s", context, message);
  is_memory = was_memory;
  return -1;
}

int sw_error_is_memory(void) { return is_memory; }

const char *sw_error(void) { return message; }

void *sw_alloc_array(unsigned long count, unsigned long size) {
  void *p = calloc(count ? count : 1, size ? size : 1);
  if (!p) sw_fail_memory("%lu x %lu bytes wanted", count, size);
  return p;
}

void *sw_alloc(unsigned long bytes) { return sw_alloc_array(1, bytes); }

void *sw_realloc_array(void *old, unsigned long count, unsigned long size) {
  size_t bytes;
  void *p = NULL;
  if (!__builtin_mul_overflow(count, size, &bytes)) p = realloc(old, bytes ? bytes : 1);
  if (!p) sw_fail_memory("%lu x %lu bytes wanted", count, size);
  return p;
}

char *sw_strndup(const char *text, unsigned long bytes) {
  char *copy = sw_alloc(bytes + 1);
  if (copy) memcpy(copy, text, bytes);
  return copy;
}

char *sw_strdup(const char *text) { return sw_strndup(text, strlen(text)); }

void *sw_alloc_aligned(unsigned long bytes) {
  void *p = NULL;
  size_t rounded = (bytes + 63) / 64 * 64;
  if (posix_memalign(&p, 64, rounded ? rounded : 64)) {
    sw_fail_memory("%lu bytes wanted", bytes);
    return NULL;
  }
  return p;
}
