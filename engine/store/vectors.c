/* Writes vectors as HDF5 or .npy: a temporary file beside the destination, synced, then renamed over it. */
#include "engine/store/vectors.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/store/hdf.h"
#include "engine/store/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sw_vectors_writer {
  char *path, *temporary;
  int hidden;
  uint64_t rows;
  /* HDF5 */
  hid_t file, vectors, ids, id_type;
  size_t id_bytes;
  int descriptor;
  uint64_t reserved;
  /* .npy */
  sw_output npy, names;
};

static int is_npy(const char *path) {
  size_t n = strlen(path);
  return n > 4 && !strcmp(path + n - 4, ".npy");
}

static int failed(const sw_vectors_writer *w, int saved) {
  char why[160];
  sw_hdf_reason(why);
  return sw_fail("cannot write %s: %s", w->path, saved ? strerror(saved) : why[0] ? why : "HDF5 failed");
}

static int put_attribute(hid_t file, const char *name, hid_t type, const void *value) {
  hid_t space = H5Screate(H5S_SCALAR),
        attribute = space < 0 ? -1 : H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  int status = attribute < 0 || H5Awrite(attribute, type, value) < 0 ? -1 : 0;
  if (attribute >= 0 && H5Aclose(attribute) < 0) status = -1;
  if (space >= 0) H5Sclose(space);
  return status;
}

static int put_text(hid_t file, const char *name, const char *text) {
  if (!text) text = "";
  hid_t type = H5Tcopy(H5T_C_S1);
  int status = type < 0 || H5Tset_size(type, text[0] ? strlen(text) : 1) < 0 ||
                       H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0
                   ? -1
                   : put_attribute(file, name, type, text);
  if (type >= 0) H5Tclose(type);
  return status;
}

/* An empty, extendable dataset of rows of `width` values; `packed`: deflated. -1 with the message set. */
static hid_t make_dataset(const sw_vectors_writer *w, const char *name, hid_t type, int rank, hsize_t width,
                          int packed) {
  const hsize_t row = width * H5Tget_size(type), rows = row < (1 << 18) ? (1 << 18) / row : 1;
  hsize_t now[2] = {0, width}, most[2] = {H5S_UNLIMITED, width}, block[2] = {rows, width};
  hid_t create = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(rank, now, most), dataset = -1;
  if (create >= 0 && space >= 0 && H5Pset_chunk(create, rank, block) >= 0 && H5Pset_obj_track_times(create, 0) >= 0 &&
      (!packed || H5Pset_deflate(create, 1) >= 0) && H5Pset_fletcher32(create) >= 0)
    dataset = H5Dcreate2(w->file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
  if (dataset < 0) failed(w, 0);
  if (space >= 0) H5Sclose(space);
  if (create >= 0) H5Pclose(create);
  return dataset;
}

/* HDF5 does not survive a failing write well (it tries again at exit), so the disk says before whether there is room.
 */
static int reserve(sw_vectors_writer *w, uint64_t more) {
  const uint64_t step = (uint64_t)1 << 20, wanted = w->reserved + more;
  int error = posix_fallocate(w->descriptor, 0, (off_t)(wanted + step));
  if (error && error != EOPNOTSUPP && error != EINVAL)
    return sw_fail("cannot write %s: %s (%.1f MB are needed): free some space or choose another place with -o", w->path,
                   strerror(error), (double)(wanted + step) / 1e6);
  w->reserved = wanted;
  return 0;
}

static int create_hdf(sw_vectors_writer *w, const sw_vectors_origin *origin) {
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  errno = 0;
  if (access >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0)
    w->file = sw_hdf_create(w->temporary, access);
  int saved = errno;
  if (access >= 0) H5Pclose(access);
  if (w->file < 0) return failed(w, saved);
  void *handle = NULL;
  if (H5Fget_vfd_handle(w->file, H5P_DEFAULT, &handle) < 0 || !handle) return failed(w, 0);
  w->descriptor = *(int *)handle;
  sw_temporary_lock(w->descriptor);
  if (reserve(w, 1 << 20)) return -1;
  w->id_type = H5Tcopy(H5T_C_S1);
  const int version = 1;
  if (w->id_type < 0 || H5Tset_size(w->id_type, w->id_bytes) < 0 || H5Tset_strpad(w->id_type, H5T_STR_NULLPAD) < 0 ||
      H5Tset_cset(w->id_type, H5T_CSET_UTF8) < 0 || put_text(w->file, "format", "skillwatch-vectors") ||
      put_attribute(w->file, "version", H5T_NATIVE_INT, &version) ||
      put_text(w->file, "model_sha256", origin->model_sha256) || put_text(w->file, "model", origin->model) ||
      put_text(w->file, "pooling", origin->pooling) || put_text(w->file, "prefix", origin->prefix) ||
      put_attribute(w->file, "normalize", H5T_NATIVE_INT, &origin->normalize))
    return failed(w, 0);
  w->vectors = make_dataset(w, "vectors", H5T_IEEE_F32LE, 2, (hsize_t)w->hidden, 0);
  if (w->vectors < 0) return -1;
  w->ids = make_dataset(w, "ids", w->id_type, 1, 1, 1);
  return w->ids < 0 ? -1 : 0;
}

static int create_npy(sw_vectors_writer *w) {
  sw_buffer names = {0};
  if (sw_buffer_print(&names, "%s.ids.txt", w->path)) return -1;
  int status = sw_output_open(&w->npy, w->path) || sw_output_open(&w->names, names.data) ? -1 : 0;
  sw_buffer_close(&names);
  /* the number of rows is filled in at the end: the header keeps its size */
  return status ? -1 : sw_npy_header(w->npy.file, 0, (uint64_t)w->hidden);
}

int sw_vectors_create(const char *path, int hidden, size_t id_bytes, const sw_vectors_origin *origin,
                      sw_vectors_writer **out) {
  *out = NULL;
  if (id_bytes > 1 << 16) return sw_fail("cannot write %s: an id of %zu bytes is too long", path, id_bytes);
  if (sw_is_folder(path)) return sw_fail("cannot write %s: it is a folder, a file name was expected", path);
  sw_vectors_writer *w = sw_alloc(sizeof *w);
  if (!w) return -1;
  *w = (sw_vectors_writer){.hidden = hidden,
                           .file = -1,
                           .vectors = -1,
                           .ids = -1,
                           .id_type = -1,
                           .id_bytes = id_bytes ? id_bytes : 1,
                           .path = sw_strdup(path)};
  int status = w->path ? 0 : -1;
  if (!status && is_npy(path)) {
    status = create_npy(w);
  } else if (!status) {
    w->temporary = sw_temporary_path(path);
    sw_hdf_enter();
    status = w->temporary ? create_hdf(w, origin) : -1;
    sw_hdf_leave();
  }
  if (status) {
    sw_vectors_abandon(w);
    return -1;
  }
  *out = w;
  return 0;
}

static int append_rows(hid_t dataset, hid_t type, int rank, uint64_t at, size_t rows, int width, const void *data) {
  hsize_t size[2] = {at + rows, (hsize_t)width}, start[2] = {at, 0}, count[2] = {rows, (hsize_t)width};
  if (H5Dset_extent(dataset, size) < 0) return -1;
  hid_t file_space = H5Dget_space(dataset), memory_space = H5Screate_simple(rank, count, NULL);
  int status = file_space < 0 || memory_space < 0 ||
                       H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
                       H5Dwrite(dataset, type, memory_space, file_space, H5P_DEFAULT, data) < 0
                   ? -1
                   : 0;
  if (memory_space >= 0) H5Sclose(memory_space);
  if (file_space >= 0) H5Sclose(file_space);
  return status;
}

/* The ids as HDF5 keeps them, side by side, in blocks of bounded size. */
static int append_ids(sw_vectors_writer *w, const char *const *ids, size_t rows) {
  const size_t block = w->id_bytes < 1 << 12 ? 1024 : 16;
  char *text = sw_alloc(block * w->id_bytes);
  if (!text) return -1;
  int status = 0;
  for (size_t first = 0; first < rows && !status; first += block) {
    const size_t count = rows - first < block ? rows - first : block;
    for (size_t i = 0; i < count; i++)
      strncpy(text + i * w->id_bytes, ids[first + i], w->id_bytes); /* fills up with NUL */
    errno = 0;
    if (append_rows(w->ids, w->id_type, 1, w->rows + first, count, 1, text)) status = failed(w, errno);
  }
  free(text);
  return status;
}

static int append_hdf(sw_vectors_writer *w, const float *vectors, const char *const *ids, size_t rows) {
  for (size_t i = 0; i < rows; i++)
    if (strlen(ids[i]) > w->id_bytes)
      return sw_fail("cannot write %s: the id %.64s... is longer than was said", w->path, ids[i]);
  const uint64_t bytes = rows * ((uint64_t)w->hidden * sizeof(float) + w->id_bytes) + (1 << 16);
  sw_hdf_enter();
  int status = reserve(w, bytes + bytes / 64);
  if (!status) {
    errno = 0;
    if (append_rows(w->vectors, H5T_NATIVE_FLOAT, 2, w->rows, rows, w->hidden, vectors)) status = failed(w, errno);
  }
  if (!status) status = append_ids(w, ids, rows);
  sw_hdf_leave();
  return status;
}

static int append_npy(sw_vectors_writer *w, const float *vectors, const char *const *ids, size_t rows) {
  errno = 0;
  if (fwrite(vectors, sizeof(float) * (size_t)w->hidden, rows, w->npy.file) != rows)
    return sw_fail("cannot write %s: %s", w->path, errno ? strerror(errno) : "write error");
  for (size_t i = 0; i < rows; i++) {
    for (const char *c = ids[i]; *c; c++) putc(*c == '\n' || *c == '\r' ? ' ' : *c, w->names.file);
    putc('\n', w->names.file); /* errors are kept by stdio and found by the commit */
  }
  return 0;
}

int sw_vectors_append(sw_vectors_writer *w, const float *vectors, const char *const *ids, size_t rows) {
  if (rows == 0) return 0;
  if (w->npy.file ? append_npy(w, vectors, ids, rows) : append_hdf(w, vectors, ids, rows)) return -1;
  w->rows += rows;
  return 0;
}

int sw_vectors_add_map(sw_vectors_writer *w, const float *coordinates, int components, const char *json) {
  if (w->npy.file) return sw_fail("cannot write %s: a map is kept in HDF5 only", w->path);
  sw_hdf_enter();
  int status = reserve(w, w->rows * (uint64_t)components * sizeof(float) + strlen(json) + (1 << 16));
  hid_t dataset = status ? -1 : make_dataset(w, "coordinates", H5T_IEEE_F32LE, 2, (hsize_t)components, 0);
  if (dataset < 0) {
    status = -1;
  } else {
    errno = 0;
    if (put_text(w->file, "map", json) ||
        (w->rows && append_rows(dataset, H5T_NATIVE_FLOAT, 2, 0, w->rows, components, coordinates)))
      status = failed(w, errno);
    if (H5Dclose(dataset) < 0 && !status) status = failed(w, errno);
  }
  sw_hdf_leave();
  return status;
}

/* Closes what is open of the HDF5 file; -1 without a message when that failed. */
static int close_hdf(sw_vectors_writer *w) {
  int status = 0;
  if (w->vectors >= 0 && H5Dclose(w->vectors) < 0) status = -1;
  if (w->ids >= 0 && H5Dclose(w->ids) < 0) status = -1;
  if (w->id_type >= 0) H5Tclose(w->id_type);
  if (w->file >= 0 && H5Fclose(w->file) < 0) status = -1;
  w->file = w->vectors = w->ids = w->id_type = -1;
  return status;
}

int sw_vectors_commit(sw_vectors_writer *w) {
  int status = 0;
  if (w->npy.file) {
    status = fseek(w->npy.file, 0, SEEK_SET) ? sw_fail("cannot write %s: %s", w->path, strerror(errno))
                                             : sw_npy_header(w->npy.file, w->rows, (uint64_t)w->hidden);
    if (!status) status = sw_output_commit(&w->names);
    if (!status) status = sw_output_commit(&w->npy);
  } else {
    sw_hdf_enter();
    errno = 0;
    hsize_t bytes = 0;
    if (H5Fflush(w->file, H5F_SCOPE_GLOBAL) < 0 || H5Fget_filesize(w->file, &bytes) < 0) status = failed(w, errno);
    if (close_hdf(w) && !status) status = failed(w, errno);
    sw_hdf_leave();
    /* HDF5 does not know of the space that was reserved and not used */
    if (!status && truncate(w->temporary, (off_t)bytes))
      status = sw_fail("cannot write %s: %s", w->path, strerror(errno));
    if (!status) {
      status = sw_file_publish(w->temporary, w->path);
      free(w->temporary);
      w->temporary = NULL;
    }
  }
  sw_vectors_abandon(w);
  return status;
}

void sw_vectors_abandon(sw_vectors_writer *w) {
  if (!w) return;
  sw_output_abandon(&w->npy);
  sw_output_abandon(&w->names);
  sw_hdf_enter();
  close_hdf(w);
  sw_hdf_leave();
  if (w->temporary) unlink(w->temporary);
  free(w->temporary);
  free(w->path);
  free(w);
}
