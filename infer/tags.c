#include "infer/tags.h"
#include "base/error.h"
#include "base/file.h"
#include "base/table.h"
#include "engine/data/csv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_place(const void *a, const void *b) {
  const sw_tag *x = a, *y = b;
  if (x->span.start != y->span.start) return x->span.start < y->span.start ? -1 : 1;
  if (x->span.end != y->span.end) return x->span.end < y->span.end ? -1 : 1;
  return (x->order > y->order) - (x->order < y->order);
}

void sw_tags_sort(sw_tag *tags, size_t count) {
  if (count) qsort(tags, count, sizeof *tags, by_place);
}

static int put(sw_buffer *out, const char *text) {
  return sw_buffer_append(out, text, strlen(text));
}
static int quote(sw_buffer *out, const char *text) {
  return sw_json_quote(out, text, strlen(text));
}

static int print_json(const sw_tag_job *job, const sw_item *item, const sw_tag *tags, size_t count, sw_buffer *out) {
  const sw_posting *posting = &item->posting;
  const int only_spans = job->format == SW_TAGS_SPANS;
  if (!only_spans && (put(out, "{\"id\": ") || quote(out, posting->id) || put(out, ", \"date\": ") || quote(out, posting->date))) return -1;
  if (job->with_text && (put(out, ", \"text\": ") || sw_json_quote(out, posting->text, posting->bytes))) return -1;
  if (put(out, only_spans ? "{\"spans\": [" : ", \"spans\": [")) return -1;
  for (size_t i = 0; i < count; i++) {
    const sw_span *span = &tags[i].span;
    if (sw_buffer_print(out, "%s{\"start\": %u, \"end\": %u, \"text\": ", i ? ", " : "", span->start, span->end) ||
        sw_json_quote(out, posting->text + span->byte_start, span->byte_end - span->byte_start) ||
        put(out, ", \"label\": ") || quote(out, tags[i].label) || put(out, ", \"layer\": ") ||
        quote(out, tags[i].layer) || sw_buffer_print(out, ", \"score\": %.6g}", (double)tags[i].score))
      return -1;
  }
  return put(out, only_spans ? "]}" : "]}\n");
}

static int print_csv(const sw_item *item, const sw_tag *tags, size_t count, sw_buffer *out) {
  const sw_posting *posting = &item->posting;
  for (size_t i = 0; i < count; i++) {
    const sw_span *span = &tags[i].span;
    if (sw_csv_quote(out, posting->id, strlen(posting->id)) || put(out, ",") ||
        sw_csv_quote(out, posting->date, strlen(posting->date)) ||
        sw_buffer_print(out, ",%u,%u,", span->start, span->end) ||
        sw_csv_quote(out, posting->text + span->byte_start, span->byte_end - span->byte_start) || put(out, ",") ||
        sw_csv_quote(out, tags[i].label, strlen(tags[i].label)) || put(out, ",") ||
        sw_csv_quote(out, tags[i].layer, strlen(tags[i].layer)) ||
        sw_buffer_print(out, ",%.6g\r\n", (double)tags[i].score))
      return -1;
  }
  return 0;
}

/* One part of a path: nothing that leads elsewhere or that a file system refuses. */
static int put_name(sw_buffer *out, const char *name, const char *otherwise) {
  if (!name[0]) name = otherwise;
  size_t bytes = strlen(name);
  if (bytes > 200) {
    bytes = 200;
    while (((unsigned char)name[bytes] & 0xc0) == 0x80) bytes--;
  }
  for (size_t i = 0; i < bytes; i++) {
    const unsigned char c = (unsigned char)name[i];
    const int bad = c < 0x20 || c == 0x7f || c == '/' || c == '\\' || (i == 0 && c == '.');
    if (sw_buffer_append(out, bad ? "_" : name + i, 1)) return -1;
  }
  return 0;
}

static int print_file(const sw_item *item, const sw_tag *tags, size_t count, sw_buffer *out) {
  const sw_posting *posting = &item->posting;
  const size_t date = strlen(posting->date);
  const char *id = posting->id; /* "<date>/<n>" where the postings lie in dated folders */
  if (date && !strncmp(id, posting->date, date) && id[date] == '/') id += date + 1;
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++) bytes += tags[i].span.byte_end - tags[i].span.byte_start + 1;
  if (put_name(out, posting->date, "undated") || put(out, "/") || put_name(out, id, "_") ||
      sw_buffer_print(out, "\n%zu\n", bytes))
    return -1;
  for (size_t i = 0; i < count; i++) {
    for (uint32_t k = tags[i].span.byte_start; k < tags[i].span.byte_end; k++) {
      const char c = posting->text[k];
      if (sw_buffer_append(out, c == '\n' || c == '\r' ? " " : &c, 1)) return -1;
    }
    if (put(out, "\n")) return -1;
  }
  return 0;
}

int sw_tags_print(const sw_tag_job *job, const sw_item *item, const sw_tag *tags, size_t count, sw_buffer *out) {
  switch (job->format) {
  case SW_TAGS_CSV:
    return print_csv(item, tags, count, out);
  case SW_TAGS_FOLDER:
    return print_file(item, tags, count, out);
  case SW_TAGS_JSONL:
  case SW_TAGS_SPANS:
    break;
  }
  return print_json(job, item, tags, count, out);
}

const char *sw_tags_head(const sw_tag_job *job) { return job->format == SW_TAGS_CSV ? "id,date,start,end,text,label,layer,score\r\n" : ""; }

/* --- from the journal to the destination --- */

/* The files written so far, so that two postings of one date and id do not overwrite each other. */
typedef struct {
  const char *folder;
  char *temporary; /* a name within it */
  sw_table names;
} file_set;

/* 1: added; 0: it is there already. */
static int add_name(file_set *set, const char *name) {
  const size_t before = set->names.count;
  return sw_table_add(&set->names, name) < 0 ? -1 : set->names.count > before;
}

/* Renamed into place whole; the disk is told to keep all files once, at the end, and the journal stays until then. */
static int write_content(const char *temporary, const char *path, const char *content, size_t bytes) {
  errno = 0;
  FILE *file = fopen(temporary, "wbe");
  int status = file ? 0 : -1;
  if (file && bytes && fwrite(content, bytes, 1, file) != 1) status = -1;
  if (file && fclose(file)) status = -1;
  if (!status) status = rename(temporary, path);
  if (status) sw_fail("cannot write %s: %s", path, errno ? strerror(errno) : "write error");
  if (status && file) unlink(temporary);
  return status;
}

static int write_file(file_set *set, const char *name, const char *content, size_t bytes) {
  sw_buffer path = {0};
  int added = 0, status = -1;
  for (int n = 1; !added; n++) {
    sw_buffer_clear(&path);
    if (n == 1 ? sw_buffer_print(&path, "%s/%s.txt", set->folder, name)
               : sw_buffer_print(&path, "%s/%s-%d.txt", set->folder, name, n))
      break;
    added = add_name(set, path.data);
  }
  if (added > 0) {
    char *slash = strrchr(path.data, '/');
    *slash = 0;
    status = sw_make_folders(path.data);
    *slash = '/';
    if (!status) status = write_content(set->temporary, path.data, content, bytes);
  }
  sw_buffer_close(&path);
  return status;
}

static int write_files(void *context, const uint64_t counters[SW_JOURNAL_COUNTERS], const void *payload, size_t bytes) {
  const char *at = payload, *end = at + bytes;
  while (at < end) {
    const char *name_end = memchr(at, '\n', (size_t)(end - at));
    const char *size_end = name_end ? memchr(name_end + 1, '\n', (size_t)(end - name_end - 1)) : NULL;
    if (!size_end) return sw_fail("the journal is damaged");
    const unsigned long long size = strtoull(name_end + 1, NULL, 10);
    if (size > (unsigned long long)(end - size_end - 1)) return sw_fail("the journal is damaged");
    char *name = sw_strndup(at, (size_t)(name_end - at));
    if (!name || write_file(context, name, size_end + 1, size)) {
      free(name);
      return -1;
    }
    free(name);
    at = size_end + 1 + size;
  }
  return 0;
}

int sw_tags_publish(void *context) {
  sw_tag_job *job = context;
  if (job->format != SW_TAGS_FOLDER) return sw_infer_publish(job->session, sw_tags_head(job));
  file_set set = {.folder = job->session->output};
  char *name = sw_path_join(set.folder, "tags");
  int status = name && !sw_make_folders(set.folder) && (set.temporary = sw_temporary_path(name)) ? 0 : -1;
  free(name);
  if (!status) status = sw_infer_replay(job->session, write_files, &set);
  int folder = status ? -1 : open(set.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    if (syncfs(folder)) status = sw_fail("cannot write %s: %s", set.folder, strerror(errno));
    close(folder);
  }
  sw_table_close(&set.names);
  free(set.temporary);
  return status;
}
