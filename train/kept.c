#include "train/kept.h"
#include "base/error.h"
#include "base/file.h"
#include "train/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *sw_kept_path(const char *output, int64_t step) {
  char ending[64];
  snprintf(ending, sizeof ending, ".step-%lld.h5", (long long)step);
  return sw_loop_path(output, ending);
}

static int ascending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

int sw_kept_list(const char *output, int64_t **steps, size_t *count) {
  *steps = NULL;
  *count = 0;
  char *start = sw_loop_path(output, ".step-");
  if (!start) return -1;
  char *slash = strrchr(start, '/');
  const char *base = slash ? slash + 1 : start, *folder = slash == start ? "/" : slash ? start : ".";
  if (slash) *slash = 0;
  const size_t length = strlen(base);
  DIR *dir = opendir(folder);
  int status = 0;
  for (struct dirent *entry; !status && dir && (entry = readdir(dir));) {
    const char *digits = entry->d_name + length;
    long long step;
    char name[32];
    if (strncmp(entry->d_name, base, length) || sscanf(digits, "%18lld", &step) != 1) continue;
    snprintf(name, sizeof name, "%lld.h5", step);
    if (step < 0 || strcmp(digits, name)) continue;
    int64_t *more = sw_realloc_array(*steps, *count + 1, sizeof *more);
    if (more) {
      *steps = more;
      more[(*count)++] = step;
    } else {
      status = -1;
    }
  }
  if (dir) closedir(dir);
  free(start);
  if (*count) qsort(*steps, *count, sizeof **steps, ascending);
  return status;
}

int sw_kept_link(const char *output, const char *last_path, int64_t step) {
  /* under a name that the next writer of last_path clears away, should we be killed here */
  char *path = sw_kept_path(output, step), *temporary = path ? sw_temporary_path(last_path) : NULL;
  int status = temporary ? 0 : -1;
  if (!status && linkat(AT_FDCWD, last_path, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW))
    status = errno == EPERM || errno == EXDEV || errno == EMLINK || errno == EOPNOTSUPP || errno == ENOSYS
                 ? 1
                 : sw_fail("cannot write %s: %s", path, strerror(errno));
  if (!status) {
    status = sw_file_publish(temporary, path);
    unlink(temporary); /* rename does nothing where both are the same file: a resumed run may keep the same step again */
  }
  free(temporary);
  free(path);
  return status;
}

static int discard(const char *output, int64_t step) {
  char *path = sw_kept_path(output, step);
  int status = path ? 0 : -1;
  if (path && unlink(path) && errno != ENOENT) status = sw_fail("cannot remove %s: %s", path, strerror(errno));
  free(path);
  return status;
}

int sw_kept_prune(const char *output, int64_t step, int keep) {
  int64_t *steps;
  size_t count, left = (size_t)keep - 1; /* newest first */
  int status = sw_kept_list(output, &steps, &count);
  while (!status && count--) {
    if (steps[count] == step) continue;
    if (left)
      left--;
    else
      status = discard(output, steps[count]);
  }
  free(steps);
  return status;
}

int sw_kept_cut(const char *output, int64_t step) {
  int64_t *steps;
  size_t count;
  int status = sw_kept_list(output, &steps, &count);
  for (size_t i = 0; !status && i < count; i++)
    if (steps[i] > step) status = discard(output, steps[i]);
  free(steps);
  return status;
}
