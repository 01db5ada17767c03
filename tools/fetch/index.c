#include "tools/fetch/index.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine/data/rows.h"
#include "engine/data/sources.h"
#include "engine/store/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[] = "skillwatch postings index 1\n";
enum { DIGITS = 64 };

static char *path_of(const job_index *x, size_t file) {
  return x->current && file + 1 == x->num_files ? sw_strdup(x->current) : sw_path_join(x->folder, x->files[file].name);
}

static int64_t mtime_of(const struct stat *info) { return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec; }

/* --- adding --- */

static int make_key(sw_buffer *key, const char *source, const char *id) {
  sw_buffer_clear(key);
  return sw_buffer_print(key, "%s\t%s", source, id);
}

static int add(job_index *x, const char *key, const uint32_t bands[SW_MINHASH_BANDS], index_place place) {
  if (x->near.count == x->capacity) {
    const size_t capacity = x->capacity ? 2 * x->capacity : 256;
    index_place *places = sw_realloc_array(x->places, capacity, sizeof *places);
    if (!places) return -1;
    x->places = places;
    x->capacity = capacity;
  }
  const int64_t id = sw_table_add(&x->ids, key);
  if (id < 0) return -1;
  place.id = (uint32_t)id;
  x->places[x->near.count] = place;
  return sw_near_add(&x->near, bands);
}

static int add_row(job_index *x, size_t file, const json_t *row, uint64_t offset, size_t bytes) {
  const char *id = sw_json_string(row, "id"), *source = sw_json_string(row, "source"), *text = sw_json_string(row, "text");
  if (!id || !source || !text) {
    x->unread++;
    return 0;
  }
  sw_shingles shingles = {0};
  sw_buffer key = {0};
  uint32_t bands[SW_MINHASH_BANDS];
  int status = sw_shingles_make(text, strlen(text), &shingles);
  if (!status) {
    sw_minhash(&shingles, bands);
    status = make_key(&key, source, id) || add(x, key.data, bands, (index_place){.file = (uint32_t)file, .bytes = (uint32_t)bytes, .offset = offset});
  }
  sw_shingles_close(&shingles);
  sw_buffer_close(&key);
  return status ? -1 : 0;
}

int index_add(job_index *x, const json_t *row, uint64_t offset, size_t bytes) { return add_row(x, x->num_files - 1, row, offset, bytes); }

/* --- reading rows --- */

typedef int each_line(void *context, const json_t *row, uint64_t offset, size_t bytes);

/* Rows that are no JSON give NULL. Pages are read with NULs, too. */
static int read_lines(const char *path, each_line *each, void *context) {
  FILE *file = fopen(path, "re");
  if (!file) return errno == ENOENT ? 0 : sw_fail("cannot read %s: %s", path, strerror(errno));
  char *line = NULL;
  size_t capacity = 0;
  uint64_t offset = 0;
  ssize_t bytes;
  int status = 0;
  while (!status && (bytes = getline(&line, &capacity, file)) > 0) {
    json_error_t error;
    json_t *row = NULL;
    status = sw_json_row(line, (size_t)bytes, JSON_ALLOW_NUL, &row, &error) || each(context, row, offset, (size_t)bytes) ? -1 : 0;
    json_decref(row);
    offset += (uint64_t)bytes;
  }
  if (!status && ferror(file)) status = sw_fail("cannot read %s: %s", path, strerror(errno));
  free(line);
  fclose(file);
  return status;
}

typedef struct {
  job_index *index;
  size_t file;
} reading;

static int on_line(void *context, const json_t *row, uint64_t offset, size_t bytes) {
  const reading *r = context;
  if (bytes > SW_MAX_ROW_BYTES) row = NULL;
  return add_row(r->index, r->file, row, offset, bytes);
}

json_t *index_row(const job_index *x, size_t i) {
  const index_place *p = &x->places[i];
  char *path = path_of(x, p->file), *text = sw_alloc(p->bytes + 1);
  json_t *row = NULL;
  json_error_t error;
  const int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (text && path && (file < 0 || pread(file, text, p->bytes, (off_t)p->offset) != (ssize_t)p->bytes))
    sw_fail("cannot read %s: %s", path, errno ? strerror(errno) : "it is shorter than it was");
  else if (text && path && !sw_json_row(text, p->bytes, JSON_ALLOW_NUL, &row, &error) && !row)
    sw_fail("%s: what is at byte %llu is no row: %s", path, (unsigned long long)p->offset, error.text);
  if (file >= 0) close(file);
  free(path);
  free(text);
  return row;
}

typedef struct {
  index_each *each;
  void *context;
} visitor;

static int visit(void *context, const json_t *row, uint64_t offset, size_t bytes) {
  const visitor *v = context;
  return v->each(v->context, row);
}

int index_rows(const job_index *x, index_each *each, void *context) {
  visitor v = {each, context};
  int status = 0;
  for (size_t i = 0; i < x->num_files && !status; i++) {
    char *path = path_of(x, i);
    status = path ? read_lines(path, visit, &v) : -1;
    free(path);
  }
  return status;
}

/* --- asking --- */

int index_has_id(const job_index *x, const char *source, const char *id) {
  sw_buffer key = {0};
  const int failed = make_key(&key, source, id), found = !failed && sw_table_find(&x->ids, key.data) >= 0;
  sw_buffer_close(&key);
  return failed ? -1 : found;
}

typedef struct {
  const job_index *index;
  const sw_shingles *wanted;
  sw_shingles found;
  double threshold;
} search;

static int compare(void *context, uint32_t text) {
  search *s = context;
  json_t *row = index_row(s->index, text);
  const char *other = sw_json_string(row, "text");
  int status = row ? 0 : -1;
  if (other && !(status = sw_shingles_make(other, strlen(other), &s->found))) status = sw_jaccard(s->wanted, &s->found) >= s->threshold;
  json_decref(row);
  return status;
}

int index_has_text(job_index *x, const char *text, double threshold) {
  sw_shingles shingles = {0};
  uint32_t bands[SW_MINHASH_BANDS];
  int status = sw_shingles_make(text, strlen(text), &shingles);
  if (!status) {
    search s = {.index = x, .wanted = &shingles, .threshold = threshold};
    sw_minhash(&shingles, bands);
    status = sw_near_find(&x->near, bands, compare, &s);
    sw_shingles_close(&s.found);
  }
  sw_shingles_close(&shingles);
  return status;
}

/* --- the file "index" --- */

typedef struct {
  const char *at, *end;
} cursor;

static int take(cursor *c, void *out, size_t bytes) {
  if ((size_t)(c->end - c->at) < bytes) return -1;
  memcpy(out, c->at, bytes);
  c->at += bytes;
  return 0;
}

static char *take_text(cursor *c) {
  uint32_t length;
  if (take(c, &length, sizeof length) || (size_t)(c->end - c->at) < length) return NULL;
  char *text = sw_strndup(c->at, length);
  c->at += length;
  return text;
}

/* The file number of that name, as long as the file on disk is what the index saw; otherwise -1. */
static int64_t find_file(const job_index *x, const char *name, uint64_t size, int64_t mtime) {
  for (size_t i = 0; i + 1 < x->num_files; i++)
    if (!strcmp(x->files[i].name, name)) return x->files[i].size == size && x->files[i].mtime == mtime ? (int64_t)i : -1;
  return -1;
}

/* Rows of files that are as they were; 1: the index is damaged. */
static int load_rows(job_index *x, cursor *c, uint8_t *known) {
  uint32_t files;
  if (take(c, &files, sizeof files)) return 1;
  for (uint32_t i = 0; i < files; i++) {
    char *name = take_text(c);
    uint64_t size, count;
    int64_t mtime;
    if (!name || take(c, &size, sizeof size) || take(c, &mtime, sizeof mtime) || take(c, &count, sizeof count)) {
      free(name);
      return 1;
    }
    const int64_t file = find_file(x, name, size, mtime);
    free(name);
    if (file >= 0) known[file] = 1;
    for (uint64_t k = 0; k < count; k++) {
      index_place place = {.file = (uint32_t)file};
      uint32_t bands[SW_MINHASH_BANDS];
      char *key = NULL;
      int status = take(c, &place.offset, sizeof place.offset) || take(c, &place.bytes, sizeof place.bytes) || take(c, bands, sizeof bands) || !(key = take_text(c));
      if (!status && file >= 0 && add(x, key, bands, place)) status = -1;
      free(key);
      if (status) return status;
    }
  }
  return 0;
}

static int load_index(job_index *x, uint8_t *known) {
  char *path = sw_path_join(x->folder, "index"), hex[DIGITS + 1];
  sw_buffer text = {0};
  int status = path ? 0 : -1;
  if (!status && sw_exists(path) && !(status = sw_file_read(path, 0, &text))) {
    sw_sha256 *hash = text.size >= sizeof magic + DIGITS ? sw_sha256_open() : NULL;
    int whole = hash != NULL;
    if (hash) {
      sw_sha256_add(hash, text.data, text.size - DIGITS);
      sw_sha256_close(hash, hex);
      whole = !memcmp(hex, text.data + text.size - DIGITS, DIGITS) && !memcmp(text.data, magic, sizeof magic - 1);
    }
    cursor c = {.at = text.data + sizeof magic - 1, .end = text.data + text.size - DIGITS};
    if (whole && (status = load_rows(x, &c, known)) > 0) status = sw_fail("%s is damaged: remove it, it is made anew", path);
    if (!whole) fprintf(stderr, "%s is damaged: it is made anew\n", path);
  }
  sw_buffer_close(&text);
  free(path);
  return status;
}

static int add_file(job_index *x, const char *name, const struct stat *info) {
  index_file *files = sw_realloc_array(x->files, x->num_files + 1, sizeof *files);
  if (!files) return -1;
  x->files = files;
  files[x->num_files] = (index_file){.name = sw_strdup(name)};
  if (info) {
    files[x->num_files].size = (uint64_t)info->st_size;
    files[x->num_files].mtime = mtime_of(info);
  }
  return files[x->num_files++].name ? 0 : -1;
}

static int compare_files(const void *a, const void *b) { return sw_natural_compare(((const index_file *)a)->name, ((const index_file *)b)->name); }

static int list_files(job_index *x, const char *current) {
  DIR *dir = opendir(x->folder);
  if (!dir) return sw_fail("cannot read %s: %s", x->folder, strerror(errno));
  int status = 0;
  for (struct dirent *entry; !status && (entry = readdir(dir));) {
    struct stat info;
    if (strlen(entry->d_name) != 16 || strcmp(entry->d_name + 10, ".jsonl") || !sw_date_number(entry->d_name, 10) || !strcmp(entry->d_name, current)) continue;
    if (!fstatat(dirfd(dir), entry->d_name, &info, 0)) status = add_file(x, entry->d_name, &info);
  }
  closedir(dir);
  if (!status && x->num_files) qsort(x->files, x->num_files, sizeof *x->files, compare_files);
  return status ? -1 : add_file(x, current, NULL);
}

int index_open(const char *folder, const char *date, job_index *x) {
  char current[32];
  snprintf(current, sizeof current, "%.10s.jsonl", date);
  *x = (job_index){.folder = sw_strdup(folder)};
  if (!x->folder || list_files(x, current)) return -1;
  uint8_t *known = sw_alloc(x->num_files);
  int status = known ? load_index(x, known) : -1;
  for (size_t i = 0; i + 1 < x->num_files && !status; i++) {
    if (known[i]) continue;
    reading r = {x, i};
    char *path = path_of(x, i);
    x->reread++;
    status = path ? read_lines(path, on_line, &r) : -1;
    free(path);
  }
  free(known);
  return status;
}

static int put(FILE *file, sw_sha256 *hash, const void *data, size_t bytes) {
  sw_sha256_add(hash, data, bytes);
  return fwrite(data, 1, bytes, file) == bytes ? 0 : -1;
}

static int put_text(FILE *file, sw_sha256 *hash, const char *text) {
  const uint32_t length = (uint32_t)strlen(text);
  return put(file, hash, &length, sizeof length) || put(file, hash, text, length);
}

static int write_index(const job_index *x, int published, FILE *out, sw_sha256 *hash) {
  const uint32_t files = (uint32_t)(x->num_files - !published);
  int status = put(out, hash, magic, sizeof magic - 1) || put(out, hash, &files, sizeof files);
  for (size_t i = 0; i < files && !status; i++) {
    const index_file *f = &x->files[i];
    struct stat info;
    uint64_t size = f->size, count = 0;
    int64_t mtime = f->mtime;
    if (i + 1 == x->num_files) { /* published since */
      char *path = sw_path_join(x->folder, f->name);
      if (!path) return -1;
      if (!stat(path, &info)) size = (uint64_t)info.st_size, mtime = mtime_of(&info);
      free(path);
    }
    for (size_t k = 0; k < x->near.count; k++) count += x->places[k].file == i;
    status = put_text(out, hash, f->name) || put(out, hash, &size, sizeof size) || put(out, hash, &mtime, sizeof mtime) || put(out, hash, &count, sizeof count);
    for (size_t k = 0; k < x->near.count && !status; k++) {
      const index_place *p = &x->places[k];
      if (p->file == i)
        status = put(out, hash, &p->offset, sizeof p->offset) || put(out, hash, &p->bytes, sizeof p->bytes) ||
                 put(out, hash, x->near.bands + k * SW_MINHASH_BANDS, SW_MINHASH_BANDS * sizeof *x->near.bands) || put_text(out, hash, x->ids.keys[p->id]);
    }
  }
  return status ? -1 : 0;
}

int index_save(const job_index *x, int published) {
  char *path = sw_path_join(x->folder, "index"), hex[DIGITS + 1];
  sw_output output = {0};
  sw_sha256 *hash = sw_sha256_open();
  int status = path && hash ? sw_output_open(&output, path) : -1;
  if (!status && write_index(x, published, output.file, hash)) status = sw_fail("cannot write %s: %s", path, strerror(errno));
  if (hash) sw_sha256_close(hash, hex);
  if (!status && fwrite(hex, 1, DIGITS, output.file) != DIGITS) status = sw_fail("cannot write %s: %s", path, strerror(errno));
  if (!status) status = sw_output_commit(&output);
  sw_output_abandon(&output);
  free(path);
  return status;
}

void index_close(job_index *x) {
  for (size_t i = 0; i < x->num_files; i++) free(x->files[i].name);
  free(x->files);
  free(x->places);
  free(x->folder);
  free(x->current);
  sw_table_close(&x->ids);
  sw_near_close(&x->near);
  *x = (job_index){0};
}
