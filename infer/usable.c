#include "infer/usable.h"
#include "base/error.h"
#include "base/sha256.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 2048 };

const char *sw_row_is_finite(const void *context, int width, float *row) {
  double squares = 0;
  for (int i = 0; i < width; i++) {
    if (!isfinite(row[i])) return "the vector has a value that is not finite";
    squares += (double)row[i] * (double)row[i];
  }
  return *(const int *)context && squares >= 1e37 ? "the vector is too long for squared distances" : NULL;
}

int sw_usable_open(const char *path, int as_map, sw_usable *u) {
  char *settings = NULL;
  *u = (sw_usable){.path = path};
  int status = sw_vectors_open(path, &u->file);
  u->width = u->file.hidden;
  if (!status && as_map && sw_vectors_is_map(&u->file)) status = sw_vectors_read_map(&u->file, &u->width, &u->points, &settings);
  free(settings);
  return status;
}

static int read_rows(sw_usable *u, uint64_t first, uint64_t count, float *out) {
  if (!u->points) return sw_vectors_read(&u->file, first, count, out);
  memcpy(out, u->points + first * (size_t)u->width, count * (size_t)u->width * sizeof *out);
  return 0;
}

static int set_aside(sw_usable *u, uint64_t row, const char *why, sw_rejects *rejects) {
  char *id = NULL;
  if (!rejects) return sw_fail("%s: row %llu: %s", u->path, (unsigned long long)row + 1, why);
  const int failed = sw_vectors_read_ids(&u->file, row, 1, &id) || sw_rejects_add(rejects, u->path, row + 1, why, id, strlen(id));
  free(id);
  return failed ? -1 : 0;
}

/* Checks the rows from `first` on and moves those that can be used to the beginning of the block. */
static int sift(sw_usable *u, uint64_t first, uint64_t count, float *block, sw_row_check *check, const void *context, sw_rejects *rejects, size_t *kept) {
  const size_t width = (size_t)u->width;
  *kept = 0;
  for (uint64_t i = 0; i < count; i++) {
    const char *why = check(context, u->width, block + i * width);
    if (why && set_aside(u, first + i, why, rejects)) return -1;
    if (why) continue;
    u->row[(size_t)u->rows + *kept] = first + i;
    memmove(block + (*kept)++ * width, block + i * width, width * sizeof *block);
  }
  return 0;
}

int sw_usable_find(sw_usable *u, sw_stream *stream, sw_row_check *check, const void *context, sw_rejects *rejects) {
  const uint64_t all = u->file.rows;
  const size_t bytes = (size_t)u->width * sizeof(float);
  sw_sha256 *hash = stream ? sw_sha256_open() : NULL;
  float *block = sw_alloc_array(BLOCK, bytes);
  u->row = sw_alloc_array(all + 1, sizeof *u->row);
  if (stream) {
    u->on = stream->device;
    u->device = u->on->alloc(u->on, all * bytes + 1);
  }
  int status = block && u->row && (!stream || (hash && u->device)) ? 0 : -1;
  for (uint64_t first = 0; first < all && !status; first += BLOCK) {
    const uint64_t count = all - first < BLOCK ? all - first : BLOCK;
    size_t kept;
    if ((status = read_rows(u, first, count, block))) break;
    if (hash) sw_sha256_add(hash, block, count * bytes);
    status = sift(u, first, count, block, check, context, rejects, &kept);
    if (!status && stream && kept)
      status = u->on->copy_in(stream, u->device + (size_t)u->rows * (size_t)u->width, block, kept * bytes) || u->on->synchronize(stream) ? -1 : 0;
    u->rows += status ? 0 : (int64_t)kept;
  }
  if (hash) sw_sha256_close(hash, u->sha256);
  free(block);
  if (status || u->rows) return status;
  return all ? sw_fail("%s: there is no vector that can be used: %s", u->path, rejects->reason)
             : sw_fail("%s is empty: it holds no vector", u->path);
}

int sw_usable_read(sw_usable *u, int64_t first, int64_t count, float *vectors, char **ids) {
  if (ids) memset(ids, 0, (size_t)count * sizeof *ids);
  for (int64_t done = 0, run; done < count; done += run) { /* runs of rows that follow each other in the file */
    const uint64_t at = u->row[first + done];
    for (run = 1; done + run < count && u->row[first + done + run] == at + (uint64_t)run;) run++;
    if ((ids && sw_vectors_read_ids(&u->file, at, (uint64_t)run, ids + done)) ||
        (vectors && read_rows(u, at, (uint64_t)run, vectors + done * u->width)))
      return -1;
  }
  return 0;
}

void sw_usable_close(sw_usable *u) {
  if (u->device) u->on->release(u->on, u->device);
  free(u->row);
  free(u->points);
  sw_vectors_close(&u->file);
  *u = (sw_usable){0};
}
