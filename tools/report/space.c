/* Maps, and what is known of their points: clusters, titles, dates. */
#include "base/error.h"
#include "engine/data/csv.h"
#include "engine/data/postings.h"
#include "engine/data/rows.h"
#include "engine/store/json.h"
#include "engine/store/vectors.h"
#include "tools/report/inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The number of an id, which becomes one where it is none yet. */
static int64_t add_id(report *r, const char *id) {
  const size_t before = r->ids.count;
  const int64_t at = sw_table_add(&r->ids, id);
  if (at < 0) return -1;
  if (r->ids.count > r->points_room) {
    const size_t room = r->points_room ? 2 * r->points_room : 4096;
    report_point *points = sw_realloc_array(r->points, room, sizeof *points);
    if (!points) return -1;
    r->points = points, r->points_room = room;
  }
  if (r->ids.count > before) r->points[at] = (report_point){NULL, -1, NO_WEEK, NO_WEEK};
  return at;
}

/* --- maps --- */

static int read_map_file(report *r, report_map *map) {
  enum { BLOCK = 4096 };
  sw_vectors file;
  char *json = NULL, **ids = NULL;
  int dims;
  if (sw_vectors_open(map->path, &file)) return -1;
  int status = sw_vectors_read_map(&file, &dims, &map->at, &json);
  free(json);
  if (!status && dims != map->dims)
    status = sw_fail("%s is a map of %d dimensions: %s it as --map%s", map->path, dims, dims == 2 || dims == 3 ? "give" : "none can be shown; skillwatch infer map makes others; do not give",
                     dims == 3 ? "-3d" : "");
  if (!status && (!(map->id = sw_alloc_array(file.rows + 1, sizeof *map->id)) || !(ids = sw_alloc_array(BLOCK, sizeof *ids)))) status = -1;
  for (uint64_t first = 0; first < file.rows && !status; first += BLOCK) {
    const uint64_t count = file.rows - first < BLOCK ? file.rows - first : BLOCK;
    status = sw_vectors_read_ids(&file, first, count, ids);
    for (uint64_t i = 0; i < count && !status; i++) {
      float *to = map->at + map->count * (size_t)dims;
      memmove(to, map->at + (first + i) * (uint64_t)dims, (size_t)dims * sizeof *to);
      int finite = 1;
      for (int c = 0; c < dims; c++) finite &= isfinite(to[c]);
      if (!finite) {
        status = sw_rejects_add(&r->rejects, map->path, first + i + 1, "a coordinate is no finite number", ids[i], strlen(ids[i]));
        continue;
      }
      const int64_t id = add_id(r, ids[i]);
      if (id < 0) status = -1;
      map->id[map->count++] = (int)id;
    }
    for (uint64_t i = 0; i < count; i++) free(ids[i]), ids[i] = NULL;
  }
  free(ids);
  sw_vectors_close(&file);
  return status;
}

typedef struct {
  report_map *map;
  size_t room;
} map_rows;

static int use_map_row(report *r, void *context, const char *const *values, const char **why) {
  map_rows *rows = context;
  report_map *map = rows->map;
  const size_t dims = (size_t)map->dims;
  *why = "a coordinate is no finite number";
  if (map->count == rows->room) {
    const size_t room = rows->room ? 2 * rows->room : 4096;
    float *at = sw_realloc_array(map->at, room, dims * sizeof *at);
    if (at) map->at = at;
    int *id = at ? sw_realloc_array(map->id, room, sizeof *id) : NULL;
    if (!id) return -1;
    map->id = id, rows->room = room;
  }
  for (size_t c = 0; c < dims; c++) {
    char *end;
    const float value = strtof(values[1 + c], &end);
    if (end == values[1 + c] || *end || !isfinite(value)) return 1;
    map->at[map->count * dims + c] = value;
  }
  const int64_t id = add_id(r, values[0]);
  map->id[map->count++] = (int)id;
  return id < 0 ? -1 : 0;
}

static int read_map(report *r, report_map *map, const char *path, int dims) {
  static const char *const columns[] = {"id", "x", "y", "z"};
  *map = (report_map){.path = path, .dims = dims};
  if (!path) return 0;
  map_rows rows = {map, 0};
  if (report_is_table(path) ? report_each_csv(r, path, columns, dims + 1, dims + 1, use_map_row, &rows) : read_map_file(r, map)) return -1;
  return map->count ? 0 : sw_fail("%s holds no point: skillwatch infer map writes one with -o map.h5 or map.csv", path);
}

/* --- clusters --- */

/* Numbers are of those that infer cluster wrote; a name may be missing. */
static int put_cluster(report *r, void *matched, const char *id, const char *number, const char *name, const char **why) {
  const int64_t at = sw_table_find(&r->ids, id);
  char *tidy = at < 0 ? NULL : sw_tidy_text(*name ? name : number, 0);
  *why = "the row has no cluster";
  if (at < 0) return 0;
  if (!tidy) return -1;
  if (!*tidy) {
    free(tidy);
    return 1;
  }
  sw_buffer key = {0};
  const int64_t cluster = sw_buffer_print(&key, "%s\n%s", number, tidy) ? -1 : sw_table_add(&r->clusters, key.data);
  sw_buffer_close(&key);
  free(tidy);
  if (cluster < 0) return -1;
  r->points[at].cluster = (int)cluster;
  ++*(size_t *)matched;
  return 0;
}

static int use_cluster_csv(report *r, void *context, const char *const *values, const char **why) {
  return put_cluster(r, context, values[0], values[1], values[2] ? values[2] : "", why);
}

static int use_cluster_json(report *r, void *context, const json_t *row, const char **why) {
  const json_t *number = json_object_get(row, "cluster");
  char text[24];
  *why = "no cluster of a point: give what skillwatch infer cluster writes";
  if (!json_is_integer(number) || !json_is_string(json_object_get(row, "id"))) return 1;
  snprintf(text, sizeof text, "%lld", (long long)json_integer_value(number));
  return put_cluster(r, context, report_text(row, "id"), text, report_text(row, "name"), why);
}

static int check_match(const report *r, const char *path, size_t matched) {
  if (matched) return 0;
  return sw_fail("no id of %s is on the map, where the first is '%.80s': give the file that belongs to %s", path, r->ids.keys[0], r->maps[r->maps[0].path ? 0 : 1].path);
}

static int note_without(report *r, size_t without, const char *what, const char *path) {
  const char *slash = strrchr(path, '/');
  return without ? report_note(r, "%zu of %zu points of the map have no %s in %.200s.", without, r->ids.count, what, slash ? slash + 1 : path) : 0;
}

static const report *being_sorted;
static int by_size(const void *a, const void *b) {
  const int x = *(const int *)a, y = *(const int *)b;
  const uint64_t m = being_sorted->cluster_sizes[x], n = being_sorted->cluster_sizes[y];
  return m != n ? (m < n ? 1 : -1) : (x > y) - (x < y);
}

/* The largest is number 0; the names are what is before the line break in their keys. */
static int sort_clusters(report *r) {
  enum { MOST_CLUSTERS = 1000 }; /* as infer cluster */
  const size_t count = r->clusters.count;
  if (count > MOST_CLUSTERS) return sw_fail("%s has %zu clusters, and %d are the most that can be shown: is 'cluster' the right column?", r->o->clusters, count, (int)MOST_CLUSTERS);
  sw_table sorted = {0};
  int *order = sw_alloc_array(count + 1, sizeof *order), *place = sw_alloc_array(count + 1, sizeof *place), status = 0;
  uint64_t *sizes = sw_alloc_array(count + 1, sizeof *sizes);
  if (!order || !place || !sizes || !(r->cluster_sizes = sw_alloc_array(count + 1, sizeof *r->cluster_sizes))) status = -1;
  for (size_t i = 0; i < r->ids.count && !status; i++)
    if (r->points[i].cluster >= 0) r->cluster_sizes[r->points[i].cluster]++;
  for (size_t i = 0; i < count && !status; i++) order[i] = (int)i;
  being_sorted = r;
  if (!status && count) qsort(order, count, sizeof *order, by_size);
  for (size_t i = 0; i < count && !status; i++) {
    const char *key = r->clusters.keys[order[i]], *name = strchr(key, '\n') + 1;
    sw_buffer unique = {0};
    place[order[i]] = (int)i;
    sizes[i] = r->cluster_sizes[order[i]];
    status = sw_buffer_print(&unique, "%s", name);
    for (int again = 0; !status && sw_table_find(&sorted, unique.data) >= 0; again++) { /* one of the same name, or that bears a number already */
      unique.size = 0;
      status = again ? sw_buffer_print(&unique, "%s (%.*s) (%d)", name, (int)(name - key - 1), key, again + 1) : sw_buffer_print(&unique, "%s (%.*s)", name, (int)(name - key - 1), key);
    }
    if (!status && sw_table_add(&sorted, unique.data) < 0) status = -1;
    sw_buffer_close(&unique);
  }
  for (size_t i = 0; i < r->ids.count && !status; i++)
    if (r->points[i].cluster >= 0) r->points[i].cluster = place[r->points[i].cluster];
  sw_table_close(&r->clusters);
  r->clusters = sorted;
  free(r->cluster_sizes), free(order), free(place);
  r->cluster_sizes = sizes;
  return status;
}

static int read_clusters(report *r) {
  static const char *const columns[] = {"id", "cluster", "name"};
  const char *path = r->o->clusters;
  size_t matched = 0;
  if (!path) return 0;
  if (report_is_table(path) ? report_each_csv(r, path, columns, 3, 2, use_cluster_csv, &matched) : report_each_json(r, path, use_cluster_json, &matched)) return -1;
  if (check_match(r, path, matched) || sort_clusters(r)) return -1;
  size_t without = 0;
  for (size_t i = 0; i < r->ids.count; i++) without += r->points[i].cluster < 0;
  return note_without(r, without, "cluster", path);
}

/* --- titles --- */

/* 1 where the table has a column, or its first row of JSON a key, of that name. */
static int has_column(const char *path, const char *name) {
  sw_csv csv;
  sw_window window;
  sw_rows rows;
  const char *text;
  size_t bytes;
  uint64_t line;
  int has = 0;
  if (report_is_table(path)) {
    if (sw_csv_open(&csv, path, 0, 0)) return -1;
    has = sw_csv_column(&csv, name) >= 0;
    sw_csv_close(&csv);
    return has;
  }
  if (sw_window_open(&window, path, 0) || sw_rows_open(&rows, window, path, 0)) return -1;
  const int more = sw_rows_next(&rows, &text, &bytes, &line);
  json_error_t error;
  json_t *row = NULL;
  if (more == SW_ROW && sw_json_row(text, bytes, 0, &row, &error)) has = -1;
  if (row) has = json_is_string(json_object_get(row, name));
  json_decref(row);
  sw_rows_close(&rows);
  return more < 0 ? -1 : has;
}

static int read_titles(report *r) {
  const char *path = r->o->titles, *column = r->o->column;
  if (!path) return 0;
  const int has_title = column ? 0 : has_column(path, "title");
  if (has_title < 0) return -1;
  sw_postings_options reading = {.column = has_title ? "title" : column, .id_column = r->o->id_column, .column_option = "column", .id_option = "id-column", .rejects = &r->rejects};
  sw_postings *postings;
  sw_posting posting;
  size_t matched = 0;
  if (sw_postings_open(&path, 1, &reading, &postings)) return -1;
  int more = 0, status = 0;
  while (!status && (more = sw_postings_next(postings, &posting)) > 0) {
    const int64_t at = sw_table_find(&r->ids, posting.id);
    if (at >= 0) {
      report_point *point = &r->points[at];
      free(point->title);
      if (!(point->title = sw_tidy_text(posting.text, 0))) status = -1;
      const int week = report_week_of(posting.date);
      if (week != NO_WEEK) point->first_week = point->last_week = week;
      matched++;
    }
    sw_posting_close(&posting);
  }
  if (sw_postings_close(postings) || more < 0) status = -1;
  if (status || check_match(r, path, matched)) return -1;
  size_t without = 0;
  for (size_t i = 0; i < r->ids.count; i++) without += !r->points[i].title;
  return note_without(r, without, "title", path);
}

int report_read_maps(report *r) {
  if (read_map(r, &r->maps[0], r->o->map, 2) || read_map(r, &r->maps[1], r->o->map_3d, 3) || read_clusters(r) || read_titles(r)) return -1;
  return 0;
}
