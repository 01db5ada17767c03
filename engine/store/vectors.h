/* Embeddings on disk.
 *
 * HDF5:  /            attrs: format="skillwatch-vectors", version=1, model_sha256, model, pooling, prefix, normalize
 *        /vectors     float32 [rows, hidden], chunked by rows, Fletcher32, extendable
 *        /ids         UTF-8 strings, padded with NUL to the longest [rows], Fletcher32, deflated
 *        a map (skillwatch infer map) has besides
 *        /coordinates float32 [rows, components], Fletcher32, and the attribute map: JSON, its parameters
 * NumPy: <name>.npy, float32 [rows, hidden], C order, format 1.0 (numpy.lib.format); ids, one a line, in
 * <name>.npy.ids.txt */
#ifndef SW_STORE_VECTORS_H
#define SW_STORE_VECTORS_H
#include <stddef.h>
#include <stdint.h>

/* Where vectors come from; texts, "" where unknown. Owned by whoever made it. */
typedef struct {
  const char *model_sha256, *model, *pooling, *prefix;
  int normalize;
} sw_vectors_origin;

typedef struct sw_vectors_writer sw_vectors_writer;
/* The format follows the name: .npy or HDF5. Nothing is at `path` before sw_vectors_commit. id_bytes: length of the
 * longest id (HDF5 only; at most 64 KiB). */
int sw_vectors_create(const char *path, int hidden, size_t id_bytes, const sw_vectors_origin *origin,
                      sw_vectors_writer **out);
/* vectors [rows, hidden]; ids [rows], NUL-terminated UTF-8, none longer than id_bytes. */
int sw_vectors_append(sw_vectors_writer *writer, const float *vectors, const char *const *ids, size_t rows);
/* Makes a map of an HDF5 file: coordinates [rows so far, components], and its parameters as JSON. At most once. */
int sw_vectors_add_map(sw_vectors_writer *writer, const float *coordinates, int components, const char *json);
/* Publishes the file(s) and frees the writer, also on failure. */
int sw_vectors_commit(sw_vectors_writer *writer);
/* Throws everything away; NULL is fine. */
void sw_vectors_abandon(sw_vectors_writer *writer);

typedef struct {
  uint64_t rows;
  int hidden;
  /* owned; "" where the file does not say */
  char *model_sha256, *model, *pooling, *prefix;
  int normalize;
  void *handle;
} sw_vectors;
/* Opens HDF5 or .npy (by content) and checks its shape and type. A torn, foreign or newer file is refused with one
 * line. */
int sw_vectors_open(const char *path, sw_vectors *out);
/* Rows [first, first + rows) into out [rows, hidden]. */
int sw_vectors_read(sw_vectors *vectors, uint64_t first, uint64_t rows, float *out);
/* Their ids: ids[i] is allocated, free() each. A .npy without its ids.txt gives the row numbers, from 1. */
int sw_vectors_read_ids(sw_vectors *vectors, uint64_t first, uint64_t rows, char **ids);
/* Fails where the vectors of two files cannot be compared: another size, another model where both say theirs, and with `prefixes` another prefix. */
int sw_vectors_check_origin(const char *path_a, const sw_vectors *a, const char *path_b, const sw_vectors *b, int prefixes);
/* 1 where the file holds a map. */
int sw_vectors_is_map(const sw_vectors *vectors);
/* The map that a file holds: *coordinates [rows, *components] and *json, both to be freed. Fails where it holds none. */
int sw_vectors_read_map(sw_vectors *vectors, int *components, float **coordinates, char **json);
void sw_vectors_close(sw_vectors *vectors);

/* Writes the rows of the sources, one source after the other, to `path`, which may be that of one of them: it stays as it was until the new
 * file is whole. keep (may be NULL: all) is asked twice, and says the same: 1 for rows to write. *rows: how many were written. A value that is no finite number
 * is a failure. */
typedef int sw_vectors_keep_fn(void *context, size_t source, uint64_t row, const char *id);
int sw_vectors_copy(const char *path, sw_vectors *sources, size_t count, const sw_vectors_origin *origin, sw_vectors_keep_fn *keep, void *context,
                    uint64_t *rows);
#endif
