#include "engine/store/models.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/store/checkpoint.h"
#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SHORT_HASH = 12, LEAST_DIGITS = 4, HISTORY_BYTES = 1 << 28 };

int sw_models_lock(const char *folder, sw_lock *lock) {
  if (sw_make_folders(folder)) return -1;
  char *path = sw_path_join(folder, "lock");
  const int status = path ? sw_lock_take_as(path, "another cycle or rollback moves the link", "try again when it is done", lock) : -1;
  free(path);
  return status;
}

int sw_models_current(const char *folder, char **name) {
  char target[PATH_MAX];
  *name = NULL;
  char *link = sw_path_join(folder, "current.h5");
  if (!link) return -1;
  const ssize_t length = readlink(link, target, sizeof target - 1);
  int status = 0;
  if (length < 0) {
    if (errno == EINVAL)
      status = sw_fail("%s should be a symbolic link: give the file another name in %s, and link to it: ln -s NAME.h5 %s", link, folder, link);
    else if (errno != ENOENT)
      status = sw_fail("cannot read %s: %s", link, strerror(errno));
  } else {
    target[length] = 0;
    if (strchr(target, '/'))
      status = sw_fail("%s points to %s: it should point to a file of its own folder, by its name alone", link, target);
    else if (!(*name = sw_strdup(target)))
      status = -1;
  }
  free(link);
  return status;
}

int sw_models_name(const char *checkpoint, const char *run, char **name, char *hex) {
  sw_checkpoint c;
  sw_buffer text = {0};
  *name = NULL;
  if (sw_checkpoint_read(checkpoint, &c)) return -1;
  memcpy(hex, c.content_sha256, sizeof c.content_sha256);
  sw_checkpoint_close(&c);
  int status = sw_buffer_print(&text, "%s-%.*s.h5", run, SHORT_HASH, hex);
  if (!status && !(*name = sw_buffer_take(&text))) status = -1;
  sw_buffer_close(&text);
  return status;
}

static int copy(const char *from, const char *to) {
  sw_buffer block = {0};
  sw_output output;
  FILE *in = fopen(from, "rbe");
  if (!in) return sw_fail("cannot open %s: %s", from, strerror(errno));
  int status = sw_buffer_reserve(&block, 1 << 20) || sw_output_open(&output, to) ? -1 : 0;
  if (!status) {
    size_t got;
    while ((got = fread(block.data, 1, 1 << 20, in)) && fwrite(block.data, 1, got, output.file) == got) {}
    if (ferror(in)) {
      status = sw_fail("cannot read %s: %s", from, strerror(errno));
      sw_output_abandon(&output);
    } else {
      status = sw_output_commit(&output);
    }
  }
  sw_buffer_close(&block);
  fclose(in);
  return status;
}

int sw_models_add(const char *folder, const char *checkpoint, const char *name) {
  char *path = sw_path_join(folder, name), *temporary = path ? sw_temporary_path(path) : NULL;
  int status = temporary ? 0 : -1;
  if (!status && link(checkpoint, temporary) == 0)
    status = sw_file_publish(temporary, path);
  else if (!status)
    status = copy(checkpoint, path);
  if (temporary) unlink(temporary); /* where both names are one file already, rename leaves it */
  free(temporary);
  free(path);
  return status;
}

/* --- the history --- */

/* Whole lines of the file; *torn: bytes after the last. */
static int read_lines(const char *path, sw_buffer *text, size_t *torn) {
  *torn = 0;
  if (!sw_exists(path)) return 0;
  if (sw_file_read(path, HISTORY_BYTES, text)) return -1;
  while (text->size && text->data[text->size - 1] != '\n') {
    text->size--;
    ++*torn;
  }
  return 0;
}

static json_t *parse_lines(const char *path, const sw_buffer *text) {
  json_t *all = json_array();
  char what[PATH_MAX];
  int line = 0;
  for (const char *at = text->data, *end = at + text->size, *stop; all && at < end; at = stop + 1) {
    stop = memchr(at, '\n', (size_t)(end - at));
    snprintf(what, sizeof what, "line %d of %s", ++line, path);
    json_t *entry = sw_json_parse(at, (size_t)(stop - at), what);
    if (!entry) {
      sw_fail("%s; take the line out", sw_error());
    } else if (!sw_json_string(entry, "to")) {
      sw_fail("%s lacks \"to\"; take the line out", what);
      json_decref(entry);
      entry = NULL;
    }
    if (!entry || json_array_append_new(all, entry)) {
      json_decref(all);
      all = NULL;
    }
  }
  return all;
}

json_t *sw_models_history(const char *folder) {
  char *path = sw_path_join(folder, "history.jsonl");
  sw_buffer text = {0};
  size_t torn;
  json_t *all = path && !read_lines(path, &text, &torn) ? parse_lines(path, &text) : NULL;
  sw_buffer_close(&text);
  free(path);
  return all;
}

static int same_move(const json_t *a, const json_t *b) {
  static const char *const keys[] = {"action", "run", "from", "to"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const char *x = sw_json_string(a, keys[i]), *y = sw_json_string(b, keys[i]);
    if (strcmp(x ? x : "", y ? y : "")) return 0;
  }
  return 1;
}

static json_t *signed_entry(const json_t *entry) {
  char host[256] = "", who[512], when[32];
  const struct passwd *user = getpwuid(getuid());
  const time_t now = time(NULL);
  struct tm utc;
  gethostname(host, sizeof host - 1);
  snprintf(who, sizeof who, "%s@%s", user ? user->pw_name : "?", host);
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  json_t *all = json_deep_copy(entry);
  if (all && !json_object_set_new(all, "who", json_string(who)) && !json_object_set_new(all, "when", json_string(when))) return all;
  json_decref(all);
  return NULL;
}

/* Adds the entry, unless it is the last already; what a crash left torn is cut off. */
static int append(const char *folder, const json_t *entry) {
  char *path = sw_path_join(folder, "history.jsonl"), *line = NULL;
  sw_buffer text = {0};
  size_t torn;
  int status = path ? read_lines(path, &text, &torn) : -1;
  json_t *all = status ? NULL : parse_lines(path, &text), *whole = NULL;
  if (!all) status = -1;
  const int there = !status && json_array_size(all) && same_move(json_array_get(all, json_array_size(all) - 1), entry);
  if (!status && !there && (!(whole = signed_entry(entry)) || !(line = sw_json_canonical(whole)))) status = -1;
  if (!status && !there) {
    const size_t length = strlen(line);
    line[length] = '\n';
    const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0 || ftruncate(file, (off_t)text.size) || pwrite(file, line, length + 1, (off_t)text.size) != (ssize_t)length + 1 || fsync(file))
      status = sw_fail("cannot write %s: %s", path, strerror(errno));
    if (file >= 0) close(file);
  }
  json_decref(all);
  json_decref(whole);
  sw_buffer_close(&text);
  free(line);
  free(path);
  return status;
}

int sw_models_move(const char *folder, const json_t *entry) {
  const char *to = sw_json_string(entry, "to");
  char *link = sw_path_join(folder, "current.h5"), *temporary = NULL;
  sw_buffer name = {0};
  int status = link && !sw_buffer_print(&name, "%s.tmp-%d-0", link, (int)getpid()) && (temporary = sw_buffer_take(&name)) ? 0 : -1;
  if (!status) unlink(temporary);
  if (!status && (symlink(to, temporary) || rename(temporary, link))) {
    status = sw_fail("cannot write %s: %s", link, strerror(errno));
    unlink(temporary);
  }
  const int file = status ? -1 : open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file >= 0) {
    fsync(file); /* some file systems refuse this on folders; the rename itself is done */
    close(file);
  }
  sw_buffer_close(&name);
  free(temporary);
  free(link);
  return status ? -1 : append(folder, entry);
}

json_t *sw_models_find(const json_t *history, const char *which) {
  const size_t length = strlen(which), digits = strspn(which, "0123456789abcdef");
  json_t *found = NULL, *entry;
  size_t i;
  int several = 0;
  json_array_foreach((json_t *)history, i, entry) {
    const char *run = sw_json_string(entry, "run"), *hash = sw_json_string(entry, "sha256"), *action = sw_json_string(entry, "action");
    if (!action || strcmp(action, "promote")) continue;
    const int by_run = run && !strcmp(run, which), by_hash = hash && length >= LEAST_DIGITS && digits == length && !strncmp(hash, which, length);
    if (by_hash && !by_run && found && strcmp(sw_json_string(found, "to"), sw_json_string(entry, "to"))) several = 1;
    if (by_run || by_hash) found = entry;
  }
  if (several) return sw_fail("several checkpoints begin with %s: give more digits", which), NULL;
  if (!found) sw_fail("no checkpoint of a run '%s', or with such a hash, was ever promoted (skillwatch rollback --list shows all)", which);
  return found;
}

int sw_models_prune(const char *folder, int keep, const json_t *needed, int *removed) {
  char *current = NULL;
  json_t *history = sw_models_history(folder), *kept = json_object(), *entry;
  size_t i;
  int status = history && kept && !sw_models_current(folder, &current) ? 0 : -1, gone = 0;
  for (i = json_array_size(history); i-- > 0 && keep > 0;) {
    entry = json_array_get(history, i);
    const char *from = sw_json_string(entry, "from"), *to = sw_json_string(entry, "to"), *action = sw_json_string(entry, "action");
    if (!action || strcmp(action, "promote")) continue;
    keep--;
    if (from) json_object_set_new(kept, from, json_true());
    json_object_set_new(kept, to, json_true());
  }
  json_array_foreach(history, i, entry) {
    const char *to = sw_json_string(entry, "to");
    if (status || json_object_get(kept, to) || json_object_get(needed, to) || (current && !strcmp(to, current)) || strchr(to, '/')) continue;
    char *path = sw_path_join(folder, to);
    if (!path) status = -1;
    gone += path && unlink(path) == 0;
    free(path);
  }
  if (removed) *removed = gone;
  json_decref(history);
  json_decref(kept);
  free(current);
  return status;
}
