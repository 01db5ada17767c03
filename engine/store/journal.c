#include "engine/store/journal.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static const char magic[8] = "SWJRNL1\n", closing[8] = "the end\n"; /* the latter: payload of a finished journal's last record */
enum { MAX_PAYLOAD = 1 << 30 };

/* In the machine's byte order: a journal is read by the machine that wrote it. */
typedef struct {
  uint64_t bytes; /* of the payload */
  uint64_t counters[SW_JOURNAL_COUNTERS];
  uint32_t checksum; /* CRC-32 of bytes, counters and payload */
  uint32_t check;    /* the checksum's complement, so that zeros are no record */
} record;

static uint32_t checksum_of(const record *r, const void *payload) {
  uLong crc = crc32(0, (const Bytef *)r, offsetof(record, checksum));
  const Bytef *at = payload;
  for (uint64_t left = r->bytes; left;) {
    const uInt part = left > (1u << 30) ? 1u << 30 : (uInt)left;
    crc = crc32(crc, at, part);
    at += part;
    left -= part;
  }
  return (uint32_t)crc;
}

static int write_all(int file, const void *data, size_t bytes, uint64_t at) {
  const char *from = data;
  while (bytes) {
    ssize_t n = pwrite(file, from, bytes, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    from += n;
    at += (uint64_t)n;
    bytes -= (size_t)n;
  }
  return 0;
}

/* 1: read whole; 0: the file ends before. */
static int read_all(int file, void *data, size_t bytes, uint64_t at) {
  char *to = data;
  while (bytes) {
    ssize_t n = pread(file, to, bytes, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) return 0;
    to += n;
    at += (uint64_t)n;
    bytes -= (size_t)n;
  }
  return 1;
}

/* Reads the record at `at` into `r` and `payload`. 1: whole; 0: torn or the end; -1: the file cannot be read. */
static int read_record(const sw_journal *j, uint64_t at, record *r, sw_buffer *payload) {
  int status = read_all(j->file, r, sizeof *r, at);
  if (status < 0) return sw_fail("cannot read %s: %s", j->path, strerror(errno));
  if (status == 0 || r->check != ~r->checksum || r->bytes > MAX_PAYLOAD) return 0;
  sw_buffer_clear(payload);
  if (sw_buffer_reserve(payload, r->bytes + 1)) return -1;
  status = read_all(j->file, payload->data, r->bytes, at + sizeof *r);
  if (status < 0) return sw_fail("cannot read %s: %s", j->path, strerror(errno));
  if (status == 0) return 0;
  payload->size = r->bytes;
  return checksum_of(r, payload->data) == r->checksum;
}

static int append(sw_journal *j, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  if (bytes > MAX_PAYLOAD) return sw_fail("%s: a record of %zu bytes is too long", j->path, bytes);
  record r = {.bytes = bytes};
  memcpy(r.counters, counters, sizeof r.counters);
  r.checksum = checksum_of(&r, payload);
  r.check = ~r.checksum;
  if (write_all(j->file, &r, sizeof r, j->end) || write_all(j->file, payload, bytes, j->end + sizeof r)) {
    sw_fail("cannot write %s: %s", j->path, errno ? strerror(errno) : "nothing could be written");
    if (ftruncate(j->file, (off_t)j->end)) return -1; /* the checksum tells that the record is torn */
    return -1;
  }
  j->end += sizeof r + bytes;
  return 0;
}

static int begin(sw_journal *j) {
  const uint64_t none[SW_JOURNAL_COUNTERS] = {0};
  if (ftruncate(j->file, 0) || write_all(j->file, magic, sizeof magic, 0))
    return sw_fail("cannot write %s: %s", j->path, strerror(errno));
  j->removable = 1;
  j->end = sizeof magic;
  if (append(j, none, j->identity, strlen(j->identity))) return -1;
  j->first = j->end;
  free(j->identity);
  j->identity = NULL;
  return 0;
}

int sw_journal_append(sw_journal *j, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  if (j->identity && begin(j)) return -1;
  const uint64_t at = j->end;
  if (append(j, counters, payload, bytes)) return -1;
  j->at = at;
  j->records++;
  for (int i = 0; i < SW_JOURNAL_COUNTERS; i++) j->totals[i] += counters[i];
  return 0;
}

static const char DAMAGED[] = "it is damaged";

/* 1: the journal is of this run and its whole records are counted; 0: it is not (why); -1: failure. */
static int scan(sw_journal *j, const char *identity, const char **why) {
  *why = DAMAGED;
  sw_buffer payload = {0};
  record r;
  int status = read_record(j, sizeof magic, &r, &payload);
  if (status > 0 && (payload.size != strlen(identity) || memcmp(payload.data, identity, payload.size))) {
    *why = "it is of another model, other options or other inputs";
    status = 0;
  }
  if (status > 0) {
    *why = NULL;
    j->end = j->first = sizeof magic + sizeof r + r.bytes;
    while ((status = read_record(j, j->end, &r, &payload)) > 0) {
      j->end += sizeof r + r.bytes;
      j->records++;
      for (int i = 0; i < SW_JOURNAL_COUNTERS; i++) j->totals[i] += r.counters[i];
    }
    if (status == 0) status = 1;
  }
  sw_buffer_close(&payload);
  return status;
}

/* Takes the closing record of sw_journal_finish off again: 1; 0: there is none; -1: failure. */
static int open_again(sw_journal *j) {
  record r;
  sw_buffer payload = {0};
  const uint64_t bytes = sizeof r + sizeof closing;
  int status = j->records && j->end - j->first >= bytes ? read_record(j, j->end - bytes, &r, &payload) : 0;
  if (status > 0) status = payload.size == sizeof closing && !memcmp(payload.data, closing, sizeof closing);
  if (status > 0) {
    j->end -= bytes;
    j->records--;
    memcpy(j->totals, r.counters, sizeof j->totals);
  }
  sw_buffer_close(&payload);
  return status;
}

/* Somebody's file of that name is left alone. */
static int check_start(const sw_journal *j, uint64_t size) {
  char start[sizeof magic] = {0};
  const size_t bytes = size < sizeof start ? size : sizeof start;
  if (read_all(j->file, start, bytes, 0) < 0) return sw_fail("cannot read %s: %s", j->path, strerror(errno));
  if (!memcmp(start, magic, bytes)) return 0;
  return sw_fail("%s exists and is not a journal of an earlier run; move it away", j->path);
}

int sw_journal_open(const char *out, const char *identity, int resume, sw_journal *j, const char **why) {
  const char *reason = NULL;
  if (why) *why = NULL;
  *j = (sw_journal){.file = -1};
  sw_buffer path = {0};
  if (sw_buffer_print(&path, "%s.partial", out)) {
    sw_buffer_close(&path);
    return -1;
  }
  j->path = sw_buffer_take(&path);
  if (!j->path) return -1;
  j->file = open(j->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  int status = j->file < 0 ? sw_fail("cannot write %s: %s", j->path, strerror(errno)) : 0;
  if (!status && flock(j->file, LOCK_EX | LOCK_NB))
    status = sw_fail("%s is in use: another run writes the same output", j->path);
  struct stat info, there;
  if (!status && fstat(j->file, &info)) status = sw_fail("cannot read %s: %s", j->path, strerror(errno));
  if (!status && (stat(j->path, &there) || there.st_ino != info.st_ino)) /* the other run ended, and removed or renamed it, between our two steps */
    status = sw_fail("%s is in use: another run writes the same output", j->path);
  if (!status) status = check_start(j, (uint64_t)info.st_size);
  if (!status) {
    int fits = resume && info.st_size > 0 ? scan(j, identity, &reason) : 0;
    if (fits > 0 && open_again(j) < 0) fits = -1; /* killed before it got its other name */
    if (fits > 0 && ftruncate(j->file, (off_t)j->end)) fits = sw_fail("cannot write %s: %s", j->path, strerror(errno));
    if (fits < 0) status = -1;
    if (fits == 0) {
      j->end = j->first = 0;
      j->removable = info.st_size == 0;
      if (!(j->identity = sw_strdup(identity))) status = -1;
    }
  }
  if (status) sw_journal_close(j, 0);
  if (!status && why) *why = reason;
  return status;
}

int sw_journal_replay_in_turn(sw_journal *journals, int count, sw_journal_each *each, void *context) {
  sw_buffer payload = {0};
  record r;
  int status = 0, turn = 0;
  uint64_t *at = sw_alloc_array((unsigned long)count, sizeof *at);
  if (!at) return -1;
  for (int i = 0; i < count; i++) at[i] = journals[i].first;
  for (; !status && at[turn] < journals[turn].end; turn = (turn + 1) % count) {
    journals[turn].at = at[turn];
    int found = read_record(&journals[turn], at[turn], &r, &payload);
    if (found == 0) sw_fail("%s changed while it was in use", journals[turn].path);
    status = found > 0 ? each(context, r.counters, payload.data, payload.size) : -1;
    at[turn] += sizeof r + r.bytes;
  }
  for (int i = 0; i < count && !status; i++)
    if (at[i] != journals[i].end) status = sw_fail("%s and %s do not belong together", journals[i].path, journals[turn].path);
  sw_buffer_close(&payload);
  free(at);
  return status;
}

int sw_journal_read(const sw_journal *j, uint64_t at, sw_buffer *payload) {
  record r;
  const int found = at < j->first || at >= j->end ? 0 : read_record(j, at, &r, payload);
  return found > 0 ? 0 : found ? -1 : sw_fail("%s changed while it was in use", j->path);
}

int sw_journal_replay(sw_journal *j, sw_journal_each *each, void *context) { return sw_journal_replay_in_turn(j, 1, each, context); }

int sw_journal_finish(sw_journal *j, const char *path) {
  if ((j->identity && begin(j)) || append(j, j->totals, closing, sizeof closing) || sw_file_move(j->path, path)) return -1;
  j->removable = 0; /* it has another name now */
  sw_journal_close(j, 0);
  return 0;
}

int sw_journal_open_finished(const char *path, const char *identity, sw_journal *j) {
  const char *why;
  char start[sizeof magic];
  *j = (sw_journal){.file = open(path, O_RDONLY | O_CLOEXEC)};
  if (j->file < 0) return errno == ENOENT ? 0 : sw_fail("cannot read %s: %s", path, strerror(errno));
  int status = (j->path = sw_strdup(path)) ? read_all(j->file, start, sizeof start, 0) : -1;
  if (status < 0 && j->path) sw_fail("cannot read %s: %s", path, strerror(errno));
  if (status == 0 || (status > 0 && memcmp(start, magic, sizeof start))) status = sw_fail("%s is no part of a run", path);
  if (status > 0) status = scan(j, identity, &why);
  if (status == 0 && !strcmp(why, DAMAGED)) status = sw_fail("%s is damaged: remove it, and run its shard again", path);
  struct stat info;
  if (status > 0 && (fstat(j->file, &info) || (uint64_t)info.st_size != j->end || open_again(j) <= 0))
    status = sw_fail("%s is damaged: remove it, and run its shard again", path);
  if (status <= 0) sw_journal_close(j, 0);
  return status;
}

void sw_journal_close(sw_journal *j, int done) {
  if (j->file >= 0) {
    if (done || (j->removable && j->records == 0)) unlink(j->path); /* nothing is lost where nothing was done */
    close(j->file);
  }
  free(j->path);
  free(j->identity);
  *j = (sw_journal){.file = -1};
}
