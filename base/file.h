/* Files: whole reads with a cap, and writes that are atomic (temporary file beside the destination, fsync, rename). */
#ifndef SW_BASE_FILE_H
#define SW_BASE_FILE_H
#include "base/buffer.h"
#include <stdio.h>

/* Appends the whole file to `out`; fails when it is longer than `limit` bytes (0 = no limit). */
int sw_file_read(const char *path, size_t limit, sw_buffer *out);

/* A file being written. Nothing exists at `path` until sw_output_commit; path "-" is standard output; a device or a pipe is written to
 * as it is; a symbolic link is followed. */
typedef struct {
  FILE *file;      /* write here; errors are collected and reported by commit */
  char *path;      /* destination, owned */
  char *temporary; /* NULL for standard output, devices and pipes */
} sw_output;

int sw_output_open(sw_output *output, const char *path);
/* Flushes, fsyncs, renames and closes. On failure the destination is as it was and the temporary file is gone. */
int sw_output_commit(sw_output *output);
/* Throws the temporary file away; does nothing after a commit or on a zeroed struct. */
void sw_output_abandon(sw_output *output);

/* The name of the temporary file for `path` ("<path>.tmp-<pid>-<n>", beside the target where path is a symbolic link); free() it. */
char *sw_temporary_path(const char *path);
/* fsync of an existing file, then rename over `path` (or what it links to), then fsync of the folder; removes `temporary` on failure.
 * A destination that is no regular file is refused. */
int sw_file_publish(const char *temporary, const char *path);
/* mkdir -p */
int sw_make_folders(const char *path);
/* Joins with one '/'; free() it. */
char *sw_path_join(const char *folder, const char *name);
/* Refuses an output that is one of the inputs (the same file on disk, by any name); "-" and NULL are skipped. */
int sw_check_output(const char *output, const char *const *inputs, int count);
int sw_is_folder(const char *path);
int sw_exists(const char *path);
#endif
