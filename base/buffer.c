#include "base/buffer.h"
#include "base/error.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sw_buffer_reserve(sw_buffer *buffer, size_t extra) {
  size_t wanted;
  if (__builtin_add_overflow(buffer->size, extra, &wanted) || wanted == (size_t)-1) return sw_fail("text too large");
  if (buffer->limit && wanted > buffer->limit) return sw_fail("text is longer than the limit of %zu bytes", buffer->limit);
  if (wanted < buffer->capacity) return 0;
  size_t capacity = buffer->capacity + buffer->capacity / 2;
  if (capacity < wanted + 1) capacity = wanted + 1;
  if (capacity < 64) capacity = 64;
  char *data = sw_realloc_array(buffer->data, capacity, 1);
  if (!data) return -1;
  if (!buffer->data) data[0] = 0;
  buffer->data = data;
  buffer->capacity = capacity;
  return 0;
}

int sw_buffer_append(sw_buffer *buffer, const void *data, size_t bytes) {
  if (sw_buffer_reserve(buffer, bytes)) return -1;
  if (bytes) memcpy(buffer->data + buffer->size, data, bytes);
  buffer->size += bytes;
  buffer->data[buffer->size] = 0;
  return 0;
}

int sw_buffer_print(sw_buffer *buffer, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int bytes = vsnprintf(NULL, 0, format, args);
  va_end(args);
  int status = bytes < 0 ? sw_fail("cannot format text") : sw_buffer_reserve(buffer, (size_t)bytes);
  if (!status) {
    vsnprintf(buffer->data + buffer->size, (size_t)bytes + 1, format, again);
    buffer->size += (size_t)bytes;
  }
  va_end(again);
  return status;
}

void sw_buffer_clear(sw_buffer *buffer) {
  buffer->size = 0;
  if (buffer->data) buffer->data[0] = 0;
}

void sw_buffer_close(sw_buffer *buffer) {
  free(buffer->data);
  buffer->data = NULL;
  buffer->size = buffer->capacity = 0;
}

char *sw_buffer_take(sw_buffer *buffer) {
  char *data = buffer->data ? buffer->data : sw_alloc(1);
  buffer->data = NULL;
  buffer->size = buffer->capacity = 0;
  return data;
}

int sw_buffer_base64(sw_buffer *buffer, const void *data, size_t bytes) {
  enum { PIECE = 3 << 20 }; /* a multiple of three, so that the pieces join */
  for (size_t at = 0; at < bytes; at += PIECE) {
    const size_t piece = bytes - at < PIECE ? bytes - at : PIECE;
    if (sw_buffer_reserve(buffer, piece / 3 * 4 + 8)) return -1;
    buffer->size += (size_t)EVP_EncodeBlock((unsigned char *)buffer->data + buffer->size, (const unsigned char *)data + at, (int)piece);
  }
  return 0;
}
