#include "base/file.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int sw_file_read(const char *path, size_t limit, sw_buffer *out) {
  FILE *file = fopen(path, "rb");
  if (!file) return sw_fail("cannot open %s: %s", path, strerror(errno));
  if (sw_is_folder(path)) {
    fclose(file);
    return sw_fail("%s is a folder, a file was expected", path);
  }
  size_t start = out->size;
  int status = 0;
  for (;;) {
    if ((status = sw_buffer_reserve(out, 1 << 16))) break;
    size_t got = fread(out->data + out->size, 1, 1 << 16, file);
    out->size += got;
    out->data[out->size] = 0;
    if (limit && out->size - start > limit) {
      status = sw_fail("%s is larger than the limit of %zu bytes", path, limit);
      break;
    }
    if (got == 0) {
      if (ferror(file)) status = sw_fail("cannot read %s: %s", path, strerror(errno));
      break;
    }
  }
  fclose(file);
  return status;
}

/* What a symbolic link points to, otherwise the path itself; free() it. */
static char *target_of(const char *path) {
  struct stat info;
  if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode)) {
    char *target = realpath(path, NULL);
    if (target) return target; /* a dangling link is replaced like a file */
  }
  return sw_strdup(path);
}

char *sw_temporary_path(const char *path) {
  static atomic_int number;
  sw_buffer name = {0};
  char *target = target_of(path);
  if (!target) return NULL;
  int status = sw_buffer_print(&name, "%s.tmp-%d-%d", target, (int)getpid(), atomic_fetch_add(&number, 1));
  free(target);
  if (status) {
    sw_buffer_close(&name);
    return NULL;
  }
  return sw_buffer_take(&name);
}

static int is_special(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

int sw_check_output(const char *output, const char *const *inputs, int count) {
  struct stat out, in;
  if (!output || !strcmp(output, "-") || stat(output, &out) || !S_ISREG(out.st_mode)) return 0;
  for (int i = 0; i < count; i++)
    if (inputs[i] && strcmp(inputs[i], "-") && !stat(inputs[i], &in) && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
      return sw_fail("%s would be overwritten, but it is the input %s: give another -o", output, inputs[i]);
  return 0;
}

static int sync_folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  char *folder = slash == path ? sw_strdup("/") : slash ? sw_strndup(path, (size_t)(slash - path)) : sw_strdup(".");
  if (!folder) return -1;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd); /* some file systems refuse this on folders; the rename itself is done */
    close(fd);
  }
  free(folder);
  return 0;
}

int sw_file_publish(const char *temporary, const char *path) {
  char *target = target_of(path);
  if (!target || is_special(target)) {
    if (target) sw_fail("cannot write %s: it is a device or a pipe, a file name was expected", path);
    free(target);
    unlink(temporary);
    return -1;
  }
  int fd = open(temporary, O_RDONLY | O_CLOEXEC);
  int status = fd < 0 ? -1 : fsync(fd);
  int saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
  if (status == 0) status = rename(temporary, target);
  if (status) {
    sw_fail("cannot write %s: %s", path, strerror(errno));
    unlink(temporary);
  } else {
    status = sync_folder_of(target);
  }
  free(target);
  return status ? -1 : 0;
}

int sw_output_open(sw_output *output, const char *path) {
  *output = (sw_output){.path = sw_strdup(path)};
  if (!output->path) return -1;
  if (!strcmp(path, "-")) {
    output->file = stdout;
    return 0;
  }
  if (sw_is_folder(path)) {
    sw_fail("%s is a folder, a file name was expected", path);
    sw_output_abandon(output);
    return -1;
  }
  if (is_special(path)) {
    output->file = fopen(path, "wbe");
    if (!output->file) sw_fail("cannot write %s: %s", path, strerror(errno));
  } else if ((output->temporary = sw_temporary_path(path))) {
    output->file = fopen(output->temporary, "wbe");
    if (!output->file) sw_fail("cannot write %s: %s", path, strerror(errno));
  }
  if (!output->file) {
    sw_output_abandon(output);
    return -1;
  }
  return 0;
}

int sw_output_commit(sw_output *output) {
  errno = 0;
  int status = fflush(output->file) || ferror(output->file) ? -1 : 0;
  if (status) sw_fail("cannot write %s: %s", output->path, errno ? strerror(errno) : "write error");
  if (output->file != stdout) {
    if (fclose(output->file) && !status) status = sw_fail("cannot write %s: %s", output->path, strerror(errno));
    if (output->temporary && status)
      unlink(output->temporary);
    else if (output->temporary)
      status = sw_file_publish(output->temporary, output->path);
    free(output->temporary);
    output->temporary = NULL;
  }
  output->file = NULL;
  free(output->path);
  output->path = NULL;
  return status;
}

void sw_output_abandon(sw_output *output) {
  if (output->file && output->file != stdout) fclose(output->file);
  if (output->temporary) {
    if (output->file) unlink(output->temporary);
    free(output->temporary);
  }
  free(output->path);
  *output = (sw_output){0};
}

int sw_make_folders(const char *path) {
  char *copy = sw_strdup(path);
  if (!copy) return -1;
  for (char *c = copy + 1;; c++) {
    if (*c != '/' && *c != 0) continue;
    char saved = *c;
    *c = 0;
    if (mkdir(copy, 0777) && !(errno == EEXIST && sw_is_folder(copy))) {
      sw_fail("cannot make the folder %s: %s", copy, strerror(errno));
      free(copy);
      return -1;
    }
    *c = saved;
    if (!saved) break;
  }
  free(copy);
  return 0;
}

char *sw_path_join(const char *folder, const char *name) {
  sw_buffer path = {0};
  size_t n = strlen(folder);
  if (sw_buffer_print(&path, "%s%s%s", folder, n && folder[n - 1] != '/' ? "/" : "", name)) {
    sw_buffer_close(&path);
    return NULL;
  }
  return sw_buffer_take(&path);
}

int sw_is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int sw_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}
