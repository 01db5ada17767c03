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

/* Writes a whole file, "<folder>/<name>", in this way. */
int sw_file_write(const char *folder, const char *name, const void *data, size_t bytes);

/* The name of the temporary file or folder for `path` ("<path>.tmp-<pid>-<n>", beside the target where path is a symbolic link);
 * free() it. Those that a process which is gone left for the same path are removed. */
char *sw_temporary_path(const char *path);
/* Removes all of them, whatever they were for, in a folder and those below. */
void sw_temporary_sweep(const char *folder);
/* From now on SIGTERM, SIGINT and SIGHUP remove temporary files before they end the process, unless it has handlers of its own. */
void sw_temporary_remove_at_signals(void);
/* Tells processes that see no pid of ours, on another machine or in another container, that a temporary file or folder is in use; until
 * `descriptor` is closed. A file system without locks is no reason to stop. */
void sw_temporary_lock(int descriptor);
/* Removes a folder that we made, with what we put into it; of a symbolic link the link only. */
void sw_remove_folder(const char *folder);
/* fsync of an existing file, then rename over `path` (or what it links to), then fsync of the folder; removes `temporary` on failure.
 * A destination that is no regular file is refused. */
int sw_file_publish(const char *temporary, const char *path);
/* The same, but `temporary` stays on failure. */
int sw_file_move(const char *temporary, const char *path);
/* mkdir -p */
int sw_make_folders(const char *path);
/* Joins with one '/'; free() it. */
char *sw_path_join(const char *folder, const char *name);
/* 1 when `path`, which need not exist, is `folder` or lies below it, by any name. */
int sw_is_inside(const char *path, const char *folder);
/* Refuses an output that is one of the inputs (the same file on disk, by any name) or lies in one that is a folder, where the next run
 * would read it; "-" and NULL are skipped. */
int sw_check_output(const char *output, const char *const *inputs, int count);
/* The same for all outputs of a run, of which no two may be one file by any name. */
int sw_check_outputs(const char *const *outputs, int num_outputs, const char *const *inputs, int num_inputs);
/* Fails where a file of that name could not be written, so that a long run need not find out at its end. */
int sw_check_writable(const char *output);
int sw_is_folder(const char *path);
int sw_exists(const char *path);
#endif
