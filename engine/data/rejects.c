#include "engine/data/rejects.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes of the well-formed UTF-8 sequence (Unicode 15, table 3-7) at p; 0 where there is none. */
static size_t sequence_bytes(const unsigned char *p, size_t left) {
  if (p[0] < 0x80) return 1;
  if (p[0] >= 0xC2 && p[0] <= 0xDF) return left >= 2 && (p[1] & 0xC0) == 0x80 ? 2 : 0;
  if ((p[0] & 0xF0) == 0xE0) {
    unsigned low = p[0] == 0xE0 ? 0xA0 : 0x80, high = p[0] == 0xED ? 0x9F : 0xBF;
    return left >= 3 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 ? 3 : 0;
  }
  if (p[0] >= 0xF0 && p[0] <= 0xF4) {
    unsigned low = p[0] == 0xF0 ? 0x90 : 0x80, high = p[0] == 0xF4 ? 0x8F : 0xBF;
    return left >= 4 && p[1] >= low && p[1] <= high && (p[2] & 0xC0) == 0x80 && (p[3] & 0xC0) == 0x80 ? 4 : 0;
  }
  return 0;
}

int sw_json_quote(sw_buffer *out, const void *text, size_t bytes) {
  const unsigned char *p = text, *end = p + bytes;
  if (sw_buffer_append(out, "\"", 1)) return -1;
  while (p < end) {
    int status;
    size_t n = sequence_bytes(p, (size_t)(end - p));
    if (n == 0 || *p == 0)
      status = sw_buffer_print(out, "\\\\x%02x", *p), n = 1;
    else if (*p == '"' || *p == '\\')
      status = sw_buffer_print(out, "\\%c", *p);
    else if (*p == '\n' || *p == '\r' || *p == '\t')
      status = sw_buffer_append(out, *p == '\n' ? "\\n" : *p == '\r' ? "\\r" : "\\t", 2);
    else if (*p < 0x20 || *p == 0x7F)
      status = sw_buffer_print(out, "\\u%04x", *p);
    else
      status = sw_buffer_append(out, p, n);
    if (status) return -1;
    p += n;
  }
  return sw_buffer_append(out, "\"", 1);
}

int sw_rejects_open(sw_rejects *r, const char *path) {
  *r = (sw_rejects){0};
  return path && !(r->path = sw_strdup(path)) ? -1 : 0;
}

int sw_rejects_add(sw_rejects *r, const char *file, uint64_t line, const char *reason, const void *row, size_t bytes) {
  r->count++;
  snprintf(r->reason, sizeof r->reason, "%s", reason);
  if (!r->path) return 0;
  if (!r->output.file && sw_output_open(&r->output, r->path)) return -1;
  if (bytes > SW_REJECT_ROW_BYTES) {
    /* do not cut a character in two */
    const unsigned char *text = row;
    size_t cut = SW_REJECT_ROW_BYTES;
    while (cut > SW_REJECT_ROW_BYTES - 3 && (text[cut] & 0xC0) == 0x80) cut--;
    bytes = sequence_bytes(text + cut, bytes - cut) > 1 ? cut : SW_REJECT_ROW_BYTES;
  }
  sw_buffer text = {0};
  int status = sw_buffer_print(&text, "{\"file\": ") || sw_json_quote(&text, file, strlen(file)) ||
               sw_buffer_print(&text, ", \"line\": %llu, \"reason\": ", (unsigned long long)line) ||
               sw_json_quote(&text, reason, strlen(reason)) || sw_buffer_print(&text, ", \"row\": ") ||
               sw_json_quote(&text, row, bytes) || sw_buffer_append(&text, "}\n", 2);
  if (!status && fwrite(text.data, 1, text.size, r->output.file) != text.size)
    status = sw_fail("cannot write %s: %s", r->path, strerror(errno));
  sw_buffer_close(&text);
  return status ? -1 : 0;
}

int sw_rejects_commit(sw_rejects *r) {
  if (!r->path) return 0;
  if (r->output.file) return sw_output_commit(&r->output);
  struct stat info;
  if (strcmp(r->path, "-") && !lstat(r->path, &info) && S_ISREG(info.st_mode) && unlink(r->path))
    return sw_fail("cannot remove the old %s: %s", r->path, strerror(errno));
  return 0;
}

void sw_rejects_close(sw_rejects *r) {
  sw_output_abandon(&r->output);
  free(r->path);
  r->path = NULL;
}
