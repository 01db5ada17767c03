/* A file or standard input as a stream of bytes: plain, gzip (RFC 1952, several members) or Zstandard (RFC 8878,
 * several frames). What it is, is told by its first bytes; a name that ends in .gz or .zst with other content is
 * refused. */
#ifndef SW_DATA_STREAM_H
#define SW_DATA_STREAM_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct sw_byte_stream sw_byte_stream;

/* `path` "-" is standard input. `hash`: 1 to take the SHA-256 of the bytes as they lie on disk while they are read.
 * Fails for a missing, unreadable or empty-named path and for a folder. */
int sw_byte_stream_open(const char *path, int hash, sw_byte_stream **out);
/* Puts up to `capacity` (> 0) decompressed bytes into `data`: their number, 0 at the end, -1 on failure (read error,
 * damaged or truncated compressed data). Returns as soon as there is something, so that a slow pipe is not held up. */
ssize_t sw_byte_stream_read(sw_byte_stream *stream, void *data, size_t capacity);
/* Has the calling thread's streams call `idle` whenever a pipe or a terminal has given nothing for SW_IDLE_MS; where it returns -1, with
 * sw_error() set, reading fails with that. NULL: they just wait. */
enum { SW_IDLE_MS = 1000 };
void sw_byte_stream_on_idle(int (*idle)(void *context), void *context);
/* Bytes taken from the file so far, as they lie on disk, and its size (0 where unknown: pipes). */
uint64_t sw_byte_stream_done(const sw_byte_stream *stream);
uint64_t sw_byte_stream_size(const sw_byte_stream *stream);
/* 1 where the bytes are not compressed. */
int sw_byte_stream_is_plain(const sw_byte_stream *stream);
/* Reads what is left (bytes after the content, too), and gives the SHA-256 of the whole file. Needs hash = 1; once
 * only. */
int sw_byte_stream_sha256(sw_byte_stream *stream, char hex[65]);
void sw_byte_stream_close(sw_byte_stream *stream);
#endif
