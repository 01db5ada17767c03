#include "base/folder.h"
#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How many entries there are, and the first that is not ours; "" where there is none. */
static int look(const char *folder, const char *const *ours, char stranger[256]) {
  DIR *dir = opendir(folder);
  int entries = 0;
  stranger[0] = 0;
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    size_t i = 0;
    entries++;
    while (ours[i] && fnmatch(ours[i], entry->d_name, 0)) i++;
    if (!ours[i] && !stranger[0]) snprintf(stranger, 256, "%s", entry->d_name);
  }
  if (dir) closedir(dir);
  return entries;
}

int sw_output_folder_open(sw_output_folder *out, const char *folder, const char *const *ours, const char *what, int force) {
  char stranger[256];
  *out = (sw_output_folder){.folder = sw_strdup(folder), .descriptor = -1};
  if (!out->folder) return -1;
  for (size_t n = strlen(out->folder); n > 1 && out->folder[n - 1] == '/';) out->folder[--n] = 0;
  struct stat info;
  if (lstat(out->folder, &info) == 0 && S_ISLNK(info.st_mode)) { /* what it links to is replaced, the link stays */
    char *target = realpath(out->folder, NULL);
    if (!target) {
      sw_fail("cannot write the folder %s: it is a link to nothing; remove it, or choose another", out->folder);
      sw_output_folder_abandon(out);
      return -1;
    }
    free(out->folder);
    out->folder = target;
  }
  const int entries = look(out->folder, ours, stranger);
  if (sw_exists(out->folder) && !sw_is_folder(out->folder))
    sw_fail("cannot write the folder %s: a file of that name exists", out->folder);
  else if (entries && !force)
    sw_fail("the folder %s exists and is not empty; choose another, or replace it with --force", out->folder);
  else if (stranger[0])
    sw_fail("the folder %s holds %s, which no %s wrote: it is not replaced, choose another", out->folder, stranger, what);
  else if ((out->temporary = sw_temporary_path(out->folder)) && mkdir(out->temporary, 0777)) {
    sw_fail("cannot write the folder %s: %s", out->folder, strerror(errno));
    free(out->temporary);
    out->temporary = NULL;
  }
  if (!out->temporary) {
    sw_output_folder_abandon(out);
    return -1;
  }
  out->descriptor = open(out->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  sw_temporary_lock(out->descriptor);
  return 0;
}

/* Where the file system cannot exchange two names, the older folder is moved away first: for a moment there is none. */
static int replace(const char *temporary, const char *folder) {
  char *old = sw_temporary_path(folder);
  int status = old ? rename(folder, old) : -1;
  if (!status && (status = rename(temporary, folder))) {
    const int saved = errno;
    if (rename(old, folder)) sw_fail("cannot put the new folder at %s: %s; the former one is now %s", folder, strerror(saved), old), status = -2;
    errno = saved;
  }
  if (!status) sw_remove_folder(old);
  free(old);
  return status;
}

int sw_output_folder_commit(sw_output_folder *out) {
  int status;
  if (rmdir(out->folder) == 0 || errno == ENOENT) { /* absent or empty */
    status = rename(out->temporary, out->folder);
  } else {
    status = renameat2(AT_FDCWD, out->temporary, AT_FDCWD, out->folder, RENAME_EXCHANGE);
    if (!status) sw_remove_folder(out->temporary);
    else if (errno == EINVAL || errno == ENOSYS) status = replace(out->temporary, out->folder);
  }
  if (status == -1) sw_fail("cannot write %s: %s", out->folder, strerror(errno));
  if (!status) {
    free(out->temporary);
    out->temporary = NULL;
  }
  sw_output_folder_abandon(out);
  return status ? -1 : 0;
}

void sw_output_folder_abandon(sw_output_folder *out) {
  if (out->temporary) sw_remove_folder(out->temporary);
  if (out->folder && out->descriptor >= 0) close(out->descriptor);
  free(out->temporary);
  free(out->folder);
  *out = (sw_output_folder){.descriptor = -1};
}
