#include "engine/data/stream.h"
#include "base/error.h"
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { MOST_RAW_BYTES = 256 * 1024, LEAST_RAW_BYTES = 4096 };
typedef enum { PLAIN, GZIP, ZSTANDARD } compression;

struct sw_byte_stream {
  char *path; /* for messages; "standard input" for "-" */
  int fd;
  compression kind;
  uint64_t done, size;
  sw_sha256 *hash;
  int raw_ended; /* read() said so */
  int inside;    /* a member or frame has begun and not ended */
  int finished;  /* only zero padding may follow */
  size_t raw_start, raw_end;
  z_stream zlib;
  int zlib_open;
  ZSTD_DStream *zstd;
  unsigned char *raw; /* [raw_bytes] compressed bytes, or the first bytes of a plain file */
  size_t raw_bytes;
};

static _Thread_local struct {
  int (*call)(void *context);
  void *context;
} idle;

void sw_byte_stream_on_idle(int (*call)(void *context), void *context) {
  idle.call = call;
  idle.context = context;
}

static int wait_for_input(int fd) {
  struct pollfd input = {.fd = fd, .events = POLLIN};
  int ready;
  while ((ready = poll(&input, 1, SW_IDLE_MS)) == 0 || (ready < 0 && errno == EINTR))
    if (ready == 0 && idle.call(idle.context)) return -1;
  return 0; /* what is wrong with the file, if anything, is what read() says */
}

static ssize_t read_some(sw_byte_stream *s, void *data, size_t capacity) {
  if (s->raw_ended) return 0;
  if (idle.call && wait_for_input(s->fd)) return -1;
  ssize_t got;
  do got = read(s->fd, data, capacity > SSIZE_MAX ? SSIZE_MAX : capacity);
  while (got < 0 && errno == EINTR);
  if (got < 0) return sw_fail("cannot read %s: %s", s->path, strerror(errno));
  if (got == 0) s->raw_ended = 1;
  s->done += (uint64_t)got;
  if (s->hash && got) sw_sha256_add(s->hash, data, (size_t)got);
  return got;
}

/* Makes at least one raw byte available; 0 at the end of the file. */
static int fill_raw(sw_byte_stream *s) {
  if (s->raw_start < s->raw_end) return 1;
  ssize_t got = read_some(s, s->raw, s->raw_bytes);
  if (got < 0) return -1;
  s->raw_start = 0;
  s->raw_end = (size_t)got;
  return got > 0;
}

static int ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && !strcmp(text + n - m, end);
}

/* Whether the first bytes begin like a compressed file: where they do not, a short first line need not wait for a second. */
static int may_be_compressed(const unsigned char *raw, size_t bytes) {
  static const unsigned char starts[3][2] = {{0x1f, 0x8b}, {0x28, 0xb5}, {0x50, 0x2a}};
  if (!bytes) return 1;
  for (int i = 0; i < 3; i++)
    if ((raw[0] == starts[i][0] || (i == 2 && (raw[0] & 0xf0) == 0x50)) && (bytes < 2 || raw[1] == starts[i][1])) return 1;
  return 0;
}

static int detect(sw_byte_stream *s) {
  while (s->raw_end < 4 && may_be_compressed(s->raw, s->raw_end)) {
    ssize_t got = read_some(s, s->raw + s->raw_end, s->raw_bytes - s->raw_end);
    if (got < 0) return -1;
    if (got == 0) break;
    s->raw_end += (size_t)got;
  }
  const unsigned char *raw = s->raw;
  if (s->raw_end >= 2 && raw[0] == 0x1f && raw[1] == 0x8b) {
    s->kind = GZIP;
    if (inflateInit2(&s->zlib, 15 + 16) != Z_OK) return sw_fail_memory("%s cannot be decompressed", s->path);
    s->zlib_open = 1;
  } else if (s->raw_end >= 4 && raw[0] == 0x28 && raw[1] == 0xb5 && raw[2] == 0x2f && raw[3] == 0xfd) {
    s->kind = ZSTANDARD;
  } else if (s->raw_end >= 4 && (raw[0] & 0xf0) == 0x50 && raw[1] == 0x2a && raw[2] == 0x4d && raw[3] == 0x18) {
    s->kind = ZSTANDARD; /* a skippable frame first */
  } else if (s->raw_end && ends_with(s->path, ".gz")) {
    return sw_fail("%s is not gzip data, though its name says so", s->path);
  } else if (s->raw_end && ends_with(s->path, ".zst")) {
    return sw_fail("%s is not Zstandard data, though its name says so", s->path);
  }
  if (s->kind == ZSTANDARD) {
    s->zstd = ZSTD_createDStream();
    if (!s->zstd || ZSTD_isError(ZSTD_initDStream(s->zstd)))
      return sw_fail_memory("%s cannot be decompressed", s->path);
  }
  return 0;
}

int sw_byte_stream_open(const char *path, int hash, sw_byte_stream **out) {
  *out = NULL;
  sw_byte_stream *s = sw_alloc(sizeof *s);
  if (!s) return -1;
  int standard_input = !strcmp(path, "-");
  s->fd = -1;
  s->path = sw_strdup(standard_input ? "standard input" : path);
  struct stat info;
  if (!s->path) goto failed;
  s->fd = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
  if (s->fd < 0 || fstat(s->fd, &info)) {
    sw_fail("cannot open %s: %s", s->path, strerror(errno));
    goto failed;
  }
  if (S_ISDIR(info.st_mode)) {
    sw_fail("%s is a folder, a file was expected", s->path);
    goto failed;
  }
  if (S_ISREG(info.st_mode)) {
    s->size = (uint64_t)info.st_size;
    (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* advice only: nothing is lost where it fails */
  }
  /* folders hold thousands of small files: no more than such a file needs */
  s->raw_bytes = S_ISREG(info.st_mode) && s->size < MOST_RAW_BYTES ? s->size + 1 : MOST_RAW_BYTES;
  if (s->raw_bytes < LEAST_RAW_BYTES) s->raw_bytes = LEAST_RAW_BYTES;
  if (!(s->raw = sw_realloc_array(NULL, s->raw_bytes, 1))) goto failed;
  if (hash && !(s->hash = sw_sha256_open())) goto failed;
  if (detect(s)) goto failed;
  *out = s;
  return 0;
failed:
  sw_byte_stream_close(s);
  return -1;
}

/* After a member: more members, or the zero bytes that tapes and block devices leave. */
static int skip_padding(sw_byte_stream *s) {
  int more;
  while ((more = fill_raw(s)) == 1 && s->raw[s->raw_start] == 0) {
    s->finished = 1;
    s->raw_start++;
  }
  if (more == 1 && s->finished) return sw_fail("%s is damaged: bytes follow the end of the compressed data", s->path);
  return more;
}

static ssize_t read_gzip(sw_byte_stream *s, void *data, size_t capacity) {
  if (capacity > UINT_MAX) capacity = UINT_MAX;
  s->zlib.next_out = data;
  s->zlib.avail_out = (unsigned)capacity;
  while (s->zlib.avail_out == capacity) {
    int more = s->inside ? fill_raw(s) : skip_padding(s);
    if (more < 0) return -1;
    if (!more && s->inside) return sw_fail("%s is truncated: its gzip data ends too early", s->path);
    if (!more) return 0;
    s->inside = 1;
    s->zlib.next_in = s->raw + s->raw_start;
    s->zlib.avail_in = (unsigned)(s->raw_end - s->raw_start);
    int status = inflate(&s->zlib, Z_NO_FLUSH);
    s->raw_start = s->raw_end - s->zlib.avail_in;
    if (status == Z_STREAM_END) {
      s->inside = 0;
      if (inflateReset(&s->zlib) != Z_OK) return sw_fail("cannot go on reading %s", s->path);
    } else if (status == Z_MEM_ERROR) {
      return sw_fail_memory("%s cannot be decompressed", s->path);
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      return sw_fail("%s is damaged: %s (gzip)", s->path, s->zlib.msg ? s->zlib.msg : "bad data");
    }
  }
  return (ssize_t)(capacity - s->zlib.avail_out);
}

static ssize_t read_zstd(sw_byte_stream *s, void *data, size_t capacity) {
  ZSTD_outBuffer out = {data, capacity, 0};
  while (out.pos == 0) {
    int more = fill_raw(s);
    if (more < 0) return -1;
    /* what is decoded already may wait inside the decoder: ask for it, too, when the file is at its end */
    if (!more && !s->inside) return 0;
    ZSTD_inBuffer in = {s->raw, s->raw_end, s->raw_start};
    size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
    if (ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation) return sw_fail_memory("%s cannot be decompressed", s->path);
    if (ZSTD_isError(left)) return sw_fail("%s is damaged: %s (Zstandard)", s->path, ZSTD_getErrorName(left));
    s->raw_start = in.pos;
    s->inside = left != 0;
    if (!more && out.pos == 0 && s->inside)
      return sw_fail("%s is truncated: its Zstandard data ends too early", s->path);
  }
  return (ssize_t)out.pos;
}

ssize_t sw_byte_stream_read(sw_byte_stream *s, void *data, size_t capacity) {
  if (s->kind == GZIP) return read_gzip(s, data, capacity);
  if (s->kind == ZSTANDARD) return read_zstd(s, data, capacity);
  size_t held = s->raw_end - s->raw_start;
  if (!held) return read_some(s, data, capacity);
  if (held > capacity) held = capacity;
  memcpy(data, s->raw + s->raw_start, held);
  s->raw_start += held;
  return (ssize_t)held;
}

uint64_t sw_byte_stream_done(const sw_byte_stream *s) {
  return s->done;
}
int sw_byte_stream_is_plain(const sw_byte_stream *s) {
  return s->kind == PLAIN;
}
uint64_t sw_byte_stream_size(const sw_byte_stream *s) {
  return s->size;
}

int sw_byte_stream_sha256(sw_byte_stream *s, char hex[65]) {
  ssize_t got;
  while ((got = read_some(s, s->raw, s->raw_bytes)) > 0) continue;
  if (got < 0) return -1;
  s->raw_start = s->raw_end = 0;
  sw_sha256_close(s->hash, hex);
  s->hash = NULL;
  return 0;
}

void sw_byte_stream_close(sw_byte_stream *s) {
  if (!s) return;
  char hex[65];
  if (s->hash) sw_sha256_close(s->hash, hex);
  if (s->zlib_open) inflateEnd(&s->zlib);
  ZSTD_freeDStream(s->zstd);
  if (s->fd > STDIN_FILENO) close(s->fd);
  free(s->raw);
  free(s->path);
  free(s);
}
