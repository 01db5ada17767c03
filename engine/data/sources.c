#include "engine/data/sources.h"
#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 64 };

static int is_digit(char c) {
  return c >= '0' && c <= '9';
}

static int number(const char *text, int digits) {
  int value = 0;
  for (int i = 0; i < digits; i++) {
    if (!is_digit(text[i])) return -1;
    value = value * 10 + text[i] - '0';
  }
  return value;
}

int sw_date_number(const char *name, size_t bytes) {
  if (bytes != 10) return 0;
  int year, month, day;
  if (name[2] == '-' && name[5] == '-')
    day = number(name, 2), month = number(name + 3, 2), year = number(name + 6, 4);
  else if (name[4] == '-' && name[7] == '-')
    year = number(name, 4), month = number(name + 5, 2), day = number(name + 8, 2);
  else
    return 0;
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > 31) return 0;
  return (year * 12 + month - 1) * 31 + day;
}

int sw_date_iso(const char *text, char iso[16]) {
  const size_t bytes = strlen(text);
  if (!sw_date_number(text, bytes > 10 && (text[10] == 'T' || text[10] == ' ') ? 10 : bytes)) return 0;
  if (text[2] == '-') snprintf(iso, 16, "%.4s-%.2s-%.2s", text + 6, text + 3, text);
  else snprintf(iso, 16, "%.10s", text);
  return 1;
}

int sw_natural_compare(const char *a, const char *b) {
  int date_a = sw_date_number(a, strlen(a)), date_b = sw_date_number(b, strlen(b));
  if (date_a != date_b) return !date_b || (date_a && date_a < date_b) ? -1 : 1;
  const char *p = a, *q = b;
  while (*p && *q) {
    if (is_digit(*p) && is_digit(*q)) {
      while (*p == '0') p++;
      while (*q == '0') q++;
      size_t m = 0, n = 0;
      while (is_digit(p[m])) m++;
      while (is_digit(q[n])) n++;
      int order = m != n ? (m < n ? -1 : 1) : memcmp(p, q, m);
      if (order) return order;
      p += m, q += n;
    } else if (*p != *q) {
      return (unsigned char)*p < (unsigned char)*q ? -1 : 1;
    } else {
      p++, q++;
    }
  }
  if (*p || *q) return *p ? 1 : -1;
  return strcmp(a, b); /* "01" and "1" */
}

/* Length of the name without .gz or .zst. */
static size_t plain_length(const char *name) {
  size_t n = strlen(name);
  if (n > 3 && !strcmp(name + n - 3, ".gz")) return n - 3;
  if (n > 4 && !strcmp(name + n - 4, ".zst")) return n - 4;
  return n;
}

static int has_ending(const char *name, const char *ending) {
  size_t n = plain_length(name), m = strlen(ending);
  return n > m && !strncasecmp(name + n - m, ending, m);
}

/* AUTO where the name tells nothing. */
static sw_postings_format format_of(const char *name) {
  if (has_ending(name, ".csv") || has_ending(name, ".tsv")) return SW_POSTINGS_CSV;
  if (has_ending(name, ".jsonl") || has_ending(name, ".ndjson") || has_ending(name, ".json")) return SW_POSTINGS_JSONL;
  return has_ending(name, ".txt") ? SW_POSTINGS_TEXT : SW_POSTINGS_AUTO;
}

static int wanted_in_folder(const char *name, sw_postings_format format) {
  sw_postings_format own = format_of(name);
  if (own == SW_POSTINGS_AUTO) return 0;
  return format == SW_POSTINGS_AUTO || own == format || (format == SW_POSTINGS_LINES && own == SW_POSTINGS_TEXT);
}

/* The part of `path` behind its last '/', which does not count where it stands at the end: name[0..*bytes). */
static const char *last_part(const char *path, size_t length, size_t *bytes) {
  while (length > 1 && path[length - 1] == '/') length--;
  size_t start = length;
  while (start && path[start - 1] != '/') start--;
  *bytes = length - start;
  return path + start;
}

/* `inside`: the path within the folder that was given, or NULL for a file that was given itself. */
static int add(sw_sources *sources, const char *path, const char *inside, const struct stat *info,
               sw_postings_format format) {
  if (sources->count == sources->capacity) {
    size_t capacity = sources->capacity ? sources->capacity * 2 : 64;
    sw_source *items = sw_realloc_array(sources->items, capacity, sizeof *items);
    if (!items) return -1;
    sources->items = items;
    sources->capacity = capacity;
  }
  int standard_input = !strcmp(path, "-");
  sw_source source = {.format = format};
  if (format == SW_POSTINGS_AUTO) {
    source.format = standard_input ? SW_POSTINGS_LINES : format_of(path);
    if (source.format == SW_POSTINGS_AUTO) source.format = SW_POSTINGS_TEXT;
  }
  if (info && S_ISREG(info->st_mode)) source.bytes = (uint64_t)info->st_size;

  size_t name_bytes, folder_bytes = 0;
  const char *name = last_part(path, strlen(path), &name_bytes), *folder = "";
  size_t before = (size_t)(name - path);
  if (before) folder = last_part(path, before, &folder_bytes);
  int dated = folder_bytes && sw_date_number(folder, folder_bytes);
  /* a dated folder further up counts, too: <date>/<site>/<n>.txt */
  const char *date = folder;
  size_t date_bytes = dated ? folder_bytes : 0;
  for (const char *up = folder; inside && !date_bytes && up > path;) {
    size_t bytes;
    up = last_part(path, (size_t)(up - path), &bytes);
    if (sw_date_number(up, bytes)) date = up, date_bytes = bytes;
    if (bytes == 0) break;
  }
  const char *rest = inside ? inside : name;
  size_t rest_bytes = plain_length(rest);
  if (rest_bytes > 4 && !strncasecmp(rest + rest_bytes - 4, ".txt", 4)) rest_bytes -= 4;
  sw_buffer id = {0};
  int prefixed = dated && (!inside || !strchr(inside, '/'));
  if (sw_buffer_print(&id, "%.*s%s%.*s", prefixed ? (int)folder_bytes : 0, folder, prefixed ? "/" : "", (int)rest_bytes,
                      rest))
    goto failed;
  source.id = sw_buffer_take(&id);
  source.path = sw_strdup(path);
  source.date = sw_strndup(date, date_bytes);
  if (!source.id || !source.path || !source.date) goto failed;
  sources->items[sources->count++] = source;
  return 0;
failed:
  sw_buffer_close(&id);
  free(source.id);
  free(source.path);
  free(source.date);
  return -1;
}

static int by_name(const void *a, const void *b) {
  return sw_natural_compare(*(char *const *)a, *(char *const *)b);
}

static int list_folder(const char *path, char ***names, size_t *count) {
  DIR *folder = opendir(path);
  if (!folder) return sw_fail("cannot open the folder %s: %s", path, strerror(errno));
  size_t capacity = 0;
  int status = 0;
  struct dirent *entry;
  *names = NULL;
  *count = 0;
  while (!status && (errno = 0, entry = readdir(folder))) {
    if (entry->d_name[0] == '.') continue;
    if (*count == capacity) {
      capacity = capacity ? capacity * 2 : 64;
      char **more = sw_realloc_array(*names, capacity, sizeof *more);
      if (!more) {
        status = -1;
        break;
      }
      *names = more;
    }
    char *name = sw_strdup(entry->d_name);
    if (name)
      (*names)[(*count)++] = name;
    else
      status = -1;
  }
  if (!status && errno) status = sw_fail("cannot read the folder %s: %s", path, strerror(errno));
  closedir(folder);
  if (*count) qsort(*names, *count, sizeof **names, by_name);
  return status;
}

/* The folders that lead to the present one: a link back to one of them would never end. */
typedef struct chain {
  const struct chain *up;
  dev_t device;
  ino_t inode;
  int depth;
} chain;

static int walk(sw_sources *sources, const char *path, size_t root_bytes, const chain *up, sw_postings_format format) {
  struct stat info;
  if (stat(path, &info)) return sw_fail("cannot open the folder %s: %s", path, strerror(errno));
  chain here = {up, info.st_dev, info.st_ino, up ? up->depth + 1 : 0};
  for (const chain *c = up; c; c = c->up)
    if (c->device == here.device && c->inode == here.inode) return 0;
  if (here.depth > MAX_DEPTH) return sw_fail("%s: more than %d folders in each other", path, (int)MAX_DEPTH);
  char **names = NULL;
  size_t count = 0;
  int status = list_folder(path, &names, &count);
  for (size_t i = 0; i < count; i++) {
    char *child = status ? NULL : sw_path_join(path, names[i]);
    free(names[i]);
    if (!child) {
      status = -1;
      continue;
    }
    if (stat(child, &info)) { /* a broken link is only worth a failure where it would have been read */
      if (wanted_in_folder(child, format)) status = sw_fail("cannot open %s: %s", child, strerror(errno));
    } else if (S_ISDIR(info.st_mode)) {
      status = walk(sources, child, root_bytes, &here, format);
    } else if (S_ISREG(info.st_mode) && wanted_in_folder(child, format)) {
      const char *inside = child + root_bytes;
      while (*inside == '/') inside++;
      status = add(sources, child, inside, &info, format);
    }
    free(child);
  }
  free(names);
  return status;
}

int sw_sources_open(const char *const *inputs, size_t count, sw_postings_format format, sw_sources *out) {
  *out = (sw_sources){0};
  int unknown = 0;
  for (size_t i = 0; i < count; i++) {
    struct stat info;
    size_t before = out->count;
    int status;
    if (!strcmp(inputs[i], "-")) {
      status = add(out, "-", NULL, NULL, format);
      unknown = 1;
    } else if (stat(inputs[i], &info)) {
      status = sw_fail("cannot open %s: %s", inputs[i], strerror(errno));
    } else if (S_ISDIR(info.st_mode)) {
      status = walk(out, inputs[i], strlen(inputs[i]), NULL, format);
      if (!status && out->count == before)
        status = sw_fail("the folder %s holds no %s file", inputs[i],
                         format == SW_POSTINGS_AUTO    ? ".txt, .csv, .tsv, .jsonl or .json"
                         : format == SW_POSTINGS_CSV   ? ".csv or .tsv"
                         : format == SW_POSTINGS_JSONL ? ".jsonl or .json"
                                                       : ".txt");
    } else {
      status = add(out, inputs[i], NULL, &info, format);
      unknown |= !S_ISREG(info.st_mode);
    }
    if (status) {
      sw_sources_close(out);
      return -1;
    }
  }
  for (size_t i = 0; i < out->count && !unknown; i++) out->bytes += out->items[i].bytes;
  return 0;
}

int sw_sources_below(const char *folder, sw_sources *out) {
  *out = (sw_sources){0};
  const int status = walk(out, folder, strlen(folder), NULL, SW_POSTINGS_AUTO);
  for (size_t i = 0; i < out->count; i++) out->bytes += out->items[i].bytes;
  if (status) sw_sources_close(out);
  return status;
}

void sw_sources_close(sw_sources *sources) {
  for (size_t i = 0; i < sources->count; i++) {
    free(sources->items[i].path);
    free(sources->items[i].id);
    free(sources->items[i].date);
  }
  free(sources->items);
  *sources = (sw_sources){0};
}
