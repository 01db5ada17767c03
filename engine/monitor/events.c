#include "engine/monitor/internal.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct sw_events {
  FILE *file;
  char *path;
};

/* --- protocol buffers: a field is its number and wire type, then a varint, eight or four bytes, or a length and bytes --- */

enum { VARINT = 0, EIGHT_BYTES = 1, BYTES = 2, FOUR_BYTES = 5 };

static int put_varint(sw_buffer *b, uint64_t value) {
  unsigned char bytes[10];
  size_t count = 0;
  for (; value > 0x7f; value >>= 7) bytes[count++] = (unsigned char)(value | 0x80);
  bytes[count++] = (unsigned char)value;
  return sw_buffer_append(b, bytes, count);
}

static int put_key(sw_buffer *b, int field, int type) { return put_varint(b, (uint64_t)field << 3 | (unsigned)type); }

/* Little-endian, whatever the machine. */
static void little(unsigned char *to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) to[i] = (unsigned char)(value >> 8 * i);
}

static int put_double(sw_buffer *b, int field, double value) {
  uint64_t bits;
  unsigned char bytes[8];
  memcpy(&bits, &value, sizeof bits);
  little(bytes, bits, 8);
  return put_key(b, field, EIGHT_BYTES) || sw_buffer_append(b, bytes, 8) ? -1 : 0;
}

static int put_float(sw_buffer *b, int field, float value) {
  uint32_t bits;
  unsigned char bytes[4];
  memcpy(&bits, &value, sizeof bits);
  little(bytes, bits, 4);
  return put_key(b, field, FOUR_BYTES) || sw_buffer_append(b, bytes, 4) ? -1 : 0;
}

static int put_integer(sw_buffer *b, int field, int64_t value) { return put_key(b, field, VARINT) || put_varint(b, (uint64_t)value) ? -1 : 0; }

static int put_bytes(sw_buffer *b, int field, const void *data, size_t size) {
  return put_key(b, field, BYTES) || put_varint(b, size) || sw_buffer_append(b, data, size) ? -1 : 0;
}

/* --- records --- */

static uint32_t masked_crc32c(const void *data, size_t size) {
  const unsigned char *at = data;
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; i++) {
    crc ^= at[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0); /* Castagnoli's polynomial, reflected */
  }
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static int write_record(sw_events *e, const sw_buffer *event) {
  unsigned char head[12], tail[4];
  little(head, event->size, 8);
  little(head + 8, masked_crc32c(head, 8), 4);
  little(tail, masked_crc32c(event->data, event->size), 4);
  if (fwrite(head, sizeof head, 1, e->file) == 1 && fwrite(event->data, event->size, 1, e->file) == 1 && fwrite(tail, sizeof tail, 1, e->file) == 1 &&
      !fflush(e->file))
    return 0;
  return sw_fail("cannot write %s: %s", e->path, strerror(errno));
}

/* An Event: wall_time = 1, step = 2, and one of file_version = 3, summary = 5, session_log = 7. */
static int write_event(sw_events *e, int64_t step, int field, const void *data, size_t size) {
  struct timespec now;
  sw_buffer event = {0};
  clock_gettime(CLOCK_REALTIME, &now);
  int status = put_double(&event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec) || put_integer(&event, 2, step) ||
               put_bytes(&event, field, data, size) || write_record(e, &event);
  sw_buffer_close(&event);
  return status ? -1 : 0;
}

int sw_events_add(sw_events *e, int64_t step, const sw_numbers *numbers) {
  sw_buffer summary = {0}, value = {0};
  int status = 0;
  for (size_t i = 0; i < numbers->count && !status; i++) { /* Summary: value = 1; Value: tag = 1, simple_value = 2 */
    sw_buffer_clear(&value);
    status = put_bytes(&value, 1, numbers->names[i], strlen(numbers->names[i])) || put_float(&value, 2, (float)numbers->values[i]) ||
             put_bytes(&summary, 1, value.data, value.size);
  }
  if (!status && summary.size) status = write_event(e, step, 5, summary.data, summary.size);
  sw_buffer_close(&summary);
  sw_buffer_close(&value);
  return status ? -1 : 0;
}

/* Readers take files in the order of their names, which begin with the second they were made in: ours has to come last, also within one second
 * and where a clock was set back. */
static long long next_second(const char *folder) {
  long long second = (long long)time(NULL), there;
  DIR *dir = opendir(folder);
  for (struct dirent *entry; dir && (entry = readdir(dir));)
    if (sscanf(entry->d_name, "events.out.tfevents.%18lld", &there) == 1 && there >= second) second = there + 1;
  if (dir) closedir(dir);
  return second;
}

int sw_events_open(const char *folder, int64_t first_step, sw_events **out) {
  static const char version[] = "brain.Event:2";
  char host[256] = "";
  sw_buffer path = {0}, session = {0};
  sw_events *e = sw_alloc(sizeof *e);
  *out = NULL;
  gethostname(host, sizeof host - 1);
  int status = !e || sw_make_folders(folder) ||
               sw_buffer_print(&path, "%s/events.out.tfevents.%010lld.%s.%d", folder, next_second(folder), host, (int)getpid());
  if (!status) {
    e->path = sw_buffer_take(&path);
    e->file = fopen(e->path, "wbxe");
    if (!e->file) status = sw_fail("cannot write %s: %s", e->path, strerror(errno));
  }
  if (!status) status = write_event(e, 0, 3, version, sizeof version - 1);
  /* SessionLog: status = 1, START = 1: readers forget what they have of this step and later ones */
  if (!status) status = put_integer(&session, 1, 1) || write_event(e, first_step, 7, session.data, session.size);
  sw_buffer_close(&path);
  sw_buffer_close(&session);
  if (!status)
    *out = e;
  else
    sw_events_close(e);
  return status ? -1 : 0;
}

void sw_events_close(sw_events *e) {
  if (!e) return;
  if (e->file) fclose(e->file);
  free(e->path);
  free(e);
}
