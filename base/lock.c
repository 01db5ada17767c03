#include "base/lock.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TRIES = 100 };

/* "pid 12 on host since 2025-01-31T12:00:00Z" */
static void sign(int file) {
  char host[256] = "", text[512];
  const time_t now = time(NULL);
  struct tm utc;
  gethostname(host, sizeof host - 1);
  int length = snprintf(text, sizeof text, "pid %d on %s since ", (int)getpid(), host);
  length += (int)strftime(text + length, sizeof text - (size_t)length, "%Y-%m-%dT%H:%M:%SZ\n", gmtime_r(&now, &utc));
  if (ftruncate(file, 0) || pwrite(file, text, (size_t)length, 0) != length) return; /* a full disk: the lock holds without a name on it */
}

static void name_holder(int file, const char *path, const char *what, const char *advice) {
  char text[512];
  const ssize_t length = pread(file, text, sizeof text - 1, 0);
  text[length > 0 ? length : 0] = 0;
  text[strcspn(text, "\n")] = 0;
  sw_fail("%s: %s%s%s%s; %s", path, what, text[0] ? " (" : "", text, text[0] ? ")" : "", advice);
}

/* 0: locked; 1: held by another; 2: the file was removed meanwhile; -1: failed. */
static int try_lock(const char *path, const char *what, const char *advice, sw_lock *lock) {
  struct stat ours, there;
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) return sw_fail("cannot write %s: %s", path, strerror(errno));
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  int status = 0;
  if (fcntl(file, F_OFD_SETLK, &whole)) {
    if (errno == EAGAIN || errno == EACCES) {
      name_holder(file, path, what, advice);
      status = 1;
    } else {
      fprintf(stderr, "skillwatch: %s: this file system has no locks (%s): take care that only one run writes to this output\n", path,
              strerror(errno));
    }
  } else if (fstat(file, &ours) || stat(path, &there) || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev) {
    status = 2; /* its holder ended, and removed it, between our two steps */
  }
  if (status) {
    close(file);
    return status;
  }
  sign(file);
  lock->file = file;
  return 0;
}

int sw_lock_take_as(const char *path, const char *what, const char *advice, sw_lock *lock) {
  char *copy = sw_strdup(path);
  int status = copy ? 2 : -1;
  for (int i = 0; i < MAX_TRIES && status == 2; i++) status = try_lock(path, what, advice, lock);
  if (status == 2) status = sw_fail("%s appears and disappears: too many runs start at once", path);
  if (status)
    free(copy);
  else
    lock->path = copy;
  return status;
}

int sw_lock_take(const char *path, sw_lock *lock) {
  return sw_lock_take_as(path, "another run writes the same output", "wait for it, stop it, or give another -o", lock);
}

void sw_lock_release(sw_lock *lock) {
  if (!lock->path) return;
  unlink(lock->path);
  close(lock->file);
  free(lock->path);
  *lock = (sw_lock){0};
}
