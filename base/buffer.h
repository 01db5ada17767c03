/* A byte string that grows, with a cap: used for every text that comes from outside, so that no input can take all memory. */
#ifndef SW_BASE_BUFFER_H
#define SW_BASE_BUFFER_H
#include <stddef.h>

typedef struct {
  char *data;      /* owned; NUL-terminated whenever it is not NULL */
  size_t size;     /* bytes, without the NUL */
  size_t capacity; /* bytes allocated */
  size_t limit;    /* sw_buffer_* fail beyond this many bytes; 0 = no limit */
} sw_buffer;

int sw_buffer_reserve(sw_buffer *buffer, size_t extra);
int sw_buffer_append(sw_buffer *buffer, const void *data, size_t bytes);
int sw_buffer_print(sw_buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends the bytes as base64 (RFC 4648, with padding). */
int sw_buffer_base64(sw_buffer *buffer, const void *data, size_t bytes);
/* Empties the buffer and keeps its memory. */
void sw_buffer_clear(sw_buffer *buffer);
void sw_buffer_close(sw_buffer *buffer);
/* Gives the memory to the caller (free() it) and leaves the buffer empty; "" is allocated where it was empty. */
char *sw_buffer_take(sw_buffer *buffer);
#endif
