#include "base/file.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
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

/* The folder that `path` lies in; free() it. */
static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == path ? sw_strdup("/") : slash ? sw_strndup(path, (size_t)(slash - path)) : sw_strdup(".");
}

void sw_remove_folder(const char *folder) {
  const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (unlinkat(dirfd(dir), entry->d_name, 0) == 0) continue;
    char *inside = sw_path_join(folder, entry->d_name);
    if (inside) sw_remove_folder(inside);
    free(inside);
  }
  if (dir) closedir(dir);
  else if (fd >= 0) close(fd);
  if (rmdir(folder) && errno == ENOTDIR) unlink(folder);
}

void sw_temporary_lock(int descriptor) { flock(descriptor, LOCK_EX | LOCK_NB); }

/* No such process, or one that has ended and is only not yet asked how: under an init that does not ask, for good. */
static int has_ended(pid_t pid) {
  char path[32], line[512]; /* "<pid> (<name of at most 64 bytes>) <state> ..." */
  if (kill(pid, 0)) return errno == ESRCH;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "re");
  const size_t size = file ? fread(line, 1, sizeof line - 1, file) : 0;
  if (file) fclose(file);
  line[size] = 0;
  const char *name_end = strrchr(line, ')');
  return name_end && (!strncmp(name_end, ") Z", 3) || !strncmp(name_end, ") X", 3));
}

/* Whether `name` is "<base>.tmp-<pid>-<n>" (base NULL: of any) and no such process is there. */
static int is_left_over(const char *name, const char *base) {
  const char *ending = base ? NULL : strstr(name, ".tmp-");
  for (const char *more = ending; more && (more = strstr(more + 1, ".tmp-"));) ending = more;
  if (!base && !ending) return 0;
  const size_t length = base ? strlen(base) : (size_t)(ending - name);
  int pid, number, end = 0;
  return (!base || !strncmp(name, base, length)) && sscanf(name + length, ".tmp-%d-%d%n", &pid, &number, &end) == 2 && end &&
         !name[length + (size_t)end] && pid > 0 && pid != getpid() && has_ended(pid);
}

/* Removes what processes that were killed left behind. A living one whose pid means nothing here holds a lock. */
static void remove_left_over(DIR *dir, const char *folder, const char *name) {
  int fd = openat(dirfd(dir), name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && errno == EISDIR) fd = openat(dirfd(dir), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_DIRECTORY);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && unlinkat(dirfd(dir), name, 0)) {
    char *path = sw_path_join(folder, name);
    if (path) sw_remove_folder(path);
    free(path);
  }
  if (fd >= 0) close(fd);
}

static void remove_left_overs_of(const char *target) {
  const char *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
  char *folder = folder_of(target);
  DIR *dir = folder ? opendir(folder) : NULL;
  for (struct dirent *entry; dir && (entry = readdir(dir));)
    if (is_left_over(entry->d_name, base)) remove_left_over(dir, folder, entry->d_name);
  if (dir) closedir(dir);
  free(folder);
}

void sw_temporary_sweep(const char *folder) {
  DIR *dir = opendir(folder);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    if (is_left_over(entry->d_name, NULL)) {
      remove_left_over(dir, folder, entry->d_name);
    } else if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
      char *below = sw_path_join(folder, entry->d_name);
      if (below) sw_temporary_sweep(below);
      free(below);
    }
  }
  if (dir) closedir(dir);
}

/* The newest temporary names, for a signal that ends the process. One that is stale does no harm: no name comes twice. */
enum { REMEMBERED = 32 };
static struct {
  char path[PATH_MAX];
  atomic_int whole;
} remembered[REMEMBERED];

static void remember(const char *path) {
  static atomic_uint next;
  const unsigned at = atomic_fetch_add(&next, 1) % REMEMBERED;
  atomic_store(&remembered[at].whole, 0);
  if (snprintf(remembered[at].path, PATH_MAX, "%s", path) < PATH_MAX) atomic_store(&remembered[at].whole, 1);
}

static void remove_and_end(int signal) {
  for (int i = 0; i < REMEMBERED; i++)
    if (atomic_load(&remembered[i].whole)) unlink(remembered[i].path);
  raise(signal); /* the handler is gone: this ends the process once we return */
}

void sw_temporary_remove_at_signals(void) {
  static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
  const struct sigaction ours = {.sa_handler = remove_and_end, .sa_flags = (int)SA_RESETHAND};
  struct sigaction present;
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    if (!sigaction(signals[i], NULL, &present) && present.sa_handler == SIG_DFL) sigaction(signals[i], &ours, NULL); /* nohup's stays */
}

char *sw_temporary_path(const char *path) {
  static atomic_int number;
  sw_buffer name = {0};
  char *target = target_of(path);
  if (!target) return NULL;
  remove_left_overs_of(target);
  int status = sw_buffer_print(&name, "%s.tmp-%d-%d", target, (int)getpid(), atomic_fetch_add(&number, 1));
  free(target);
  if (status) {
    sw_buffer_close(&name);
    return NULL;
  }
  remember(name.data);
  return sw_buffer_take(&name);
}

static int is_special(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

int sw_is_inside(const char *path, const char *folder) {
  char within[PATH_MAX], here[PATH_MAX];
  if (!realpath(folder, within)) return 0;
  char *there = sw_strdup(path); /* what exists of it: the rest cannot lead out */
  while (there && !realpath(there, here)) {
    char *up = folder_of(there);
    const int end = !up || !strcmp(up, there);
    free(there);
    there = up;
    if (end) break;
  }
  const size_t length = strlen(within);
  const int found = there && !strncmp(here, within, length) && (!here[length] || here[length] == '/' || length == 1);
  free(there);
  return found;
}

int sw_check_output(const char *output, const char *const *inputs, int count) {
  struct stat out, in;
  if (!output || !strcmp(output, "-")) return 0;
  const int regular = !stat(output, &out) && S_ISREG(out.st_mode);
  for (int i = 0; i < count; i++) {
    if (!inputs[i] || !strcmp(inputs[i], "-") || stat(inputs[i], &in)) continue;
    if (regular && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
      return sw_fail("%s would be overwritten, but it is the input %s: give another -o", output, inputs[i]);
    if (S_ISDIR(in.st_mode) && sw_is_inside(output, inputs[i]))
      return sw_fail("%s lies in the input folder %s, so that the next run would read it: give another -o", output, inputs[i]);
  }
  return 0;
}

/* An absolute name without links, also of a file that is not there yet; 0 where its folder is not. */
static int resolve(const char *path, char full[PATH_MAX]) {
  if (realpath(path, full)) return 1;
  const char *name = strrchr(path, '/');
  char *folder = folder_of(path);
  const int found = folder && realpath(folder, full);
  free(folder);
  const size_t used = found ? strlen(full) : 0;
  return found && snprintf(full + used, PATH_MAX - used, "/%s", name ? name + 1 : path) < (int)(PATH_MAX - used);
}

int sw_check_outputs(const char *const *outputs, int num_outputs, const char *const *inputs, int num_inputs) {
  char one[PATH_MAX], other[PATH_MAX];
  for (int i = 0; i < num_outputs; i++) {
    if (!outputs[i] || !strcmp(outputs[i], "-")) continue;
    if (sw_check_output(outputs[i], inputs, num_inputs)) return -1;
    for (int k = 0; k < i; k++)
      if (outputs[k] && strcmp(outputs[k], "-") && resolve(outputs[i], one) && resolve(outputs[k], other) && !strcmp(one, other))
        return sw_fail("%s and %s are the same file, and both would be written: give one another name", outputs[k], outputs[i]);
  }
  return 0;
}

static int sync_folder_of(const char *path) {
  char *folder = folder_of(path);
  if (!folder) return -1;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd); /* some file systems refuse this on folders; the rename itself is done */
    close(fd);
  }
  free(folder);
  return 0;
}

int sw_file_move(const char *temporary, const char *path) {
  char *target = target_of(path);
  if (!target || is_special(target)) {
    if (target) sw_fail("cannot write %s: it is a device or a pipe, a file name was expected", path);
    free(target);
    return -1;
  }
  int fd = open(temporary, O_RDONLY | O_CLOEXEC);
  int status = fd < 0 ? -1 : fsync(fd);
  int saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
  if (status == 0) status = rename(temporary, target);
  if (status)
    sw_fail("cannot write %s: %s", path, strerror(errno));
  else
    status = sync_folder_of(target);
  free(target);
  return status ? -1 : 0;
}

int sw_file_publish(const char *temporary, const char *path) {
  if (!sw_file_move(temporary, path)) return 0;
  unlink(temporary); /* it may have been renamed: then there is none */
  return -1;
}

int sw_output_open(sw_output *output, const char *path) {
  *output = (sw_output){.path = sw_strdup(strcmp(path, "-") ? path : "standard output")};
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
    if (!output->file)
      sw_fail("cannot write %s: %s", path, strerror(errno));
    else
      sw_temporary_lock(fileno(output->file));
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

int sw_file_write(const char *folder, const char *name, const void *data, size_t bytes) {
  char *path = sw_path_join(folder, name);
  sw_output output = {0};
  int status = path ? sw_output_open(&output, path) : -1;
  if (!status) {
    fwrite(data, 1, bytes, output.file);
    status = sw_output_commit(&output);
  }
  free(path);
  return status;
}

int sw_check_writable(const char *output) {
  sw_output probe;
  if (sw_output_open(&probe, output)) return -1;
  sw_output_abandon(&probe);
  return 0;
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
