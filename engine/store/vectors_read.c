/* Reads vectors back: HDF5 or .npy, told by their first bytes. */
#include "base/error.h"
#include "base/file.h"
#include "engine/store/hdf.h"
#include "engine/store/npy.h"
#include "engine/store/vectors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  char *path;
  hid_t file, vectors, ids;
  size_t id_bytes;
  FILE *npy, *names;
  uint64_t data;      /* offset of the first value of the .npy */
  uint64_t next_name; /* the row that `names` stands at */
} handle;

static int damaged(const handle *h, const char *what) {
  char why[160];
  sw_hdf_reason(why);
  return sw_fail("%s is damaged or no vectors file: %s%s%s", h->path, what, why[0] ? ": " : "", why);
}

static int get_text(const handle *h, const char *name, char **out) {
  *out = NULL;
  if (H5Aexists(h->file, name) <= 0) return (*out = sw_strdup("")) ? 0 : -1;
  hid_t attribute = H5Aopen(h->file, name, H5P_DEFAULT), type = attribute < 0 ? -1 : H5Aget_type(attribute);
  int status = -1;
  size_t bytes = type < 0 ? 0 : H5Tget_size(type);
  if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 || bytes > 1 << 16) {
    damaged(h, name);
  } else if ((*out = sw_alloc(bytes + 1))) {
    status = H5Aread(attribute, type, *out) < 0 ? damaged(h, name) : 0;
  }
  if (type >= 0) H5Tclose(type);
  if (attribute >= 0) H5Aclose(attribute);
  return status;
}

static int get_int(const handle *h, const char *name, int *out) {
  if (H5Aexists(h->file, name) <= 0) return damaged(h, name);
  hid_t attribute = H5Aopen(h->file, name, H5P_DEFAULT), space = attribute < 0 ? -1 : H5Aget_space(attribute);
  int status = space < 0 || H5Sget_simple_extent_npoints(space) != 1 || H5Aread(attribute, H5T_NATIVE_INT, out) < 0
                   ? damaged(h, name)
                   : 0;
  if (space >= 0) H5Sclose(space);
  if (attribute >= 0) H5Aclose(attribute);
  return status;
}

/* Opens a dataset of the rank and class; `size` is its shape. */
static hid_t open_dataset(const handle *h, const char *name, int rank, H5T_class_t class, hsize_t size[2]) {
  hid_t dataset = H5Dopen2(h->file, name, H5P_DEFAULT);
  hid_t space = dataset < 0 ? -1 : H5Dget_space(dataset), type = dataset < 0 ? -1 : H5Dget_type(dataset);
  int right = space >= 0 && type >= 0 && H5Sget_simple_extent_ndims(space) == rank && H5Tget_class(type) == class &&
              (class != H5T_STRING || H5Tis_variable_str(type) == 0) &&
              H5Sget_simple_extent_dims(space, size, NULL) == rank;
  if (type >= 0) H5Tclose(type);
  if (space >= 0) H5Sclose(space);
  if (right) return dataset;
  damaged(h, name);
  if (dataset >= 0) H5Dclose(dataset);
  return -1;
}

static int open_hdf(handle *h, sw_vectors *v) {
  h->file = H5Fopen(h->path, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (h->file < 0) return damaged(h, "HDF5 cannot open it");
  char *format = NULL;
  int version = 0, status = get_text(h, "format", &format);
  if (!status && strcmp(format, "skillwatch-vectors"))
    status = sw_fail("%s holds no vectors (its format is '%s'); 'skillwatch infer embed' makes them", h->path, format);
  free(format);
  if (status || get_int(h, "version", &version)) return -1;
  if (version != 1) return sw_fail("%s is of version %d; this program reads version 1: update it", h->path, version);
  if (get_text(h, "model_sha256", &v->model_sha256) || get_text(h, "model", &v->model) ||
      get_text(h, "pooling", &v->pooling) || get_text(h, "prefix", &v->prefix) ||
      get_int(h, "normalize", &v->normalize))
    return -1;
  hsize_t size[2] = {0}, ids[2] = {0};
  if ((h->vectors = open_dataset(h, "vectors", 2, H5T_FLOAT, size)) < 0) return -1;
  if ((h->ids = open_dataset(h, "ids", 1, H5T_STRING, ids)) < 0) return -1;
  hid_t type = H5Dget_type(h->ids);
  h->id_bytes = type < 0 ? 0 : H5Tget_size(type);
  if (type >= 0) H5Tclose(type);
  if (h->id_bytes < 1 || h->id_bytes > 1 << 16) return damaged(h, "the length of the ids");
  if (size[0] != ids[0]) return damaged(h, "there are not as many ids as vectors");
  if (size[1] < 1 || size[1] > 1 << 20) return damaged(h, "the vectors' length");
  v->rows = size[0];
  v->hidden = (int)size[1];
  return 0;
}

static int open_npy(handle *h, sw_vectors *v) {
  uint64_t columns;
  if (sw_npy_read_header(h->npy, h->path, &v->rows, &columns, &h->data)) return -1;
  v->hidden = (int)columns;
  sw_buffer names = {0};
  if (sw_buffer_print(&names, "%s.ids.txt", h->path)) return -1;
  h->names = fopen(names.data, "re");
  sw_buffer_close(&names);
  char **const texts[] = {&v->model_sha256, &v->model, &v->pooling, &v->prefix};
  for (size_t i = 0; i < 4; i++)
    if (!(*texts[i] = sw_strdup(""))) return -1;
  return 0;
}

int sw_vectors_open(const char *path, sw_vectors *out) {
  *out = (sw_vectors){0};
  handle *h = sw_alloc(sizeof *h);
  if (!h) return -1;
  *h = (handle){.file = -1, .vectors = -1, .ids = -1, .path = sw_strdup(path)};
  out->handle = h;
  int status = h->path ? 0 : -1;
  unsigned char start[8] = {0};
  if (!status && !(h->npy = fopen(path, "rbe"))) status = sw_fail("cannot open %s: %s", path, strerror(errno));
  if (!status && sw_is_folder(path)) status = sw_fail("%s is a folder, a vectors file was expected", path);
  const size_t got = status ? 0 : fread(start, 1, sizeof start, h->npy);
  if (!status && got < 6)
    status = got ? sw_fail("%s is no vectors file: 'skillwatch infer embed' makes them", path)
                 : sw_fail("%s is empty (0 bytes): the copy or download failed, or what should have written it", path);
  if (!status && !memcmp(start, "\x93NUMPY", 6)) {
    rewind(h->npy);
    status = open_npy(h, out);
  } else if (!status) {
    fclose(h->npy);
    h->npy = NULL;
    sw_hdf_enter();
    status = open_hdf(h, out);
    sw_hdf_leave();
  }
  if (status) sw_vectors_close(out);
  return status;
}

/* Reads a hyperslab of rows. */
static int read_rows(hid_t dataset, hid_t type, int rank, uint64_t first, uint64_t rows, int width, void *out) {
  hsize_t start[2] = {first, 0}, count[2] = {rows, (hsize_t)width};
  hid_t file_space = H5Dget_space(dataset), memory_space = H5Screate_simple(rank, count, NULL);
  int status = file_space < 0 || memory_space < 0 ||
                       H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
                       H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, out) < 0
                   ? -1
                   : 0;
  if (memory_space >= 0) H5Sclose(memory_space);
  if (file_space >= 0) H5Sclose(file_space);
  return status;
}

static int check_range(const sw_vectors *v, uint64_t first, uint64_t rows) {
  const handle *h = v->handle;
  if (first <= v->rows && rows <= v->rows - first) return 0;
  return sw_fail("%s has %llu rows; rows %llu to %llu were asked for", h->path, (unsigned long long)v->rows,
                 (unsigned long long)first, (unsigned long long)(first + rows));
}

int sw_vectors_read(sw_vectors *v, uint64_t first, uint64_t rows, float *out) {
  handle *h = v->handle;
  if (check_range(v, first, rows)) return -1;
  if (rows == 0) return 0;
  if (h->npy) {
    const size_t bytes = sizeof(float) * (size_t)v->hidden;
    if (fseeko(h->npy, (off_t)(h->data + first * bytes), SEEK_SET) || fread(out, bytes, rows, h->npy) != rows)
      return sw_fail("cannot read %s", h->path);
    return 0;
  }
  sw_hdf_enter();
  int status = read_rows(h->vectors, H5T_NATIVE_FLOAT, 2, first, rows, v->hidden, out);
  if (status) damaged(h, "/vectors cannot be read");
  sw_hdf_leave();
  return status;
}

static int read_names(handle *h, uint64_t first, uint64_t rows, char **ids) {
  if (first < h->next_name) {
    rewind(h->names);
    h->next_name = 0;
  }
  char *line = NULL;
  size_t capacity = 0;
  int status = 0;
  for (; !status && h->next_name < first + rows; h->next_name++) {
    ssize_t n = getline(&line, &capacity, h->names);
    if (n < 0) {
      status = sw_fail("%s.ids.txt has fewer lines than there are vectors", h->path);
      break;
    }
    if (n && line[n - 1] == '\n') line[n - 1] = 0;
    if (h->next_name >= first && !(ids[h->next_name - first] = sw_strdup(line))) status = -1;
  }
  free(line);
  return status;
}

static int number_names(uint64_t first, uint64_t rows, char **ids) {
  for (uint64_t i = 0; i < rows; i++) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)(first + i + 1));
    if (!(ids[i] = sw_strdup(text))) return -1;
  }
  return 0;
}

static int read_ids(const handle *h, uint64_t first, uint64_t rows, char **ids) {
  const uint64_t block = h->id_bytes < 1 << 12 ? 1024 : 16;
  char *text = sw_alloc(block * h->id_bytes);
  hid_t type = H5Tcopy(H5T_C_S1);
  int status = !text || type < 0 || H5Tset_size(type, h->id_bytes) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
                       H5Tset_cset(type, H5T_CSET_UTF8) < 0
                   ? damaged(h, "/ids cannot be read")
                   : 0;
  for (uint64_t at = 0; at < rows && !status; at += block) {
    const uint64_t count = rows - at < block ? rows - at : block;
    if (read_rows(h->ids, type, 1, first + at, count, 1, text)) status = damaged(h, "/ids cannot be read");
    for (uint64_t i = 0; i < count && !status; i++) {
      const char *id = text + i * h->id_bytes;
      if (!(ids[at + i] = sw_strndup(id, strnlen(id, h->id_bytes)))) status = -1;
    }
  }
  if (type >= 0) H5Tclose(type);
  free(text);
  return status;
}

int sw_vectors_read_ids(sw_vectors *v, uint64_t first, uint64_t rows, char **ids) {
  handle *h = v->handle;
  if (check_range(v, first, rows)) return -1;
  for (uint64_t i = 0; i < rows; i++) ids[i] = NULL;
  if (rows == 0) return 0;
  int status;
  if (h->npy) {
    status = h->names ? read_names(h, first, rows, ids) : number_names(first, rows, ids);
  } else {
    sw_hdf_enter();
    status = read_ids(h, first, rows, ids);
    sw_hdf_leave();
  }
  for (uint64_t i = 0; status && i < rows; i++) {
    free(ids[i]);
    ids[i] = NULL;
  }
  return status;
}

int sw_vectors_check_origin(const char *path_a, const sw_vectors *a, const char *path_b, const sw_vectors *b, int prefixes) {
  if (a->hidden != b->hidden)
    return sw_fail("%s holds vectors of %d numbers, %s of %d: they must come from the same model", path_a, a->hidden, path_b, b->hidden);
  if (!*a->model_sha256 || !*b->model_sha256) return 0;
  if (strcmp(a->model_sha256, b->model_sha256)) return sw_fail("%s and %s were made with different models: their vectors cannot be compared", path_a, path_b);
  if (prefixes && strcmp(a->prefix, b->prefix))
    return sw_fail("%s was made with the prefix '%s', %s with '%s': make it anew with skillwatch infer embed --prefix '%s'", path_a, a->prefix, path_b, b->prefix,
                   b->prefix);
  return 0;
}

int sw_vectors_is_map(const sw_vectors *v) {
  const handle *h = v->handle;
  sw_hdf_enter();
  const int holds = !h->npy && H5Aexists(h->file, "map") > 0;
  sw_hdf_leave();
  return holds;
}

int sw_vectors_read_map(sw_vectors *v, int *components, float **coordinates, char **json) {
  const handle *h = v->handle;
  *coordinates = NULL, *json = NULL;
  int status = sw_vectors_is_map(v) ? 0 : sw_fail("%s holds no map; 'skillwatch infer map' makes them", h->path);
  sw_hdf_enter();
  hsize_t size[2] = {0};
  hid_t dataset = status || get_text(h, "map", json) ? -1 : open_dataset(h, "coordinates", 2, H5T_FLOAT, size);
  if (dataset < 0) {
    status = -1;
  } else {
    if (size[0] != v->rows || size[1] < 1 || size[1] > 3) status = damaged(h, "the shape of /coordinates");
    *components = (int)size[1];
    if (!status && !(*coordinates = sw_alloc_array((size_t)size[0] + 1, (size_t)size[1] * sizeof **coordinates))) status = -1;
    if (!status && v->rows && read_rows(dataset, H5T_NATIVE_FLOAT, 2, 0, v->rows, *components, *coordinates))
      status = damaged(h, "/coordinates cannot be read");
    H5Dclose(dataset);
  }
  sw_hdf_leave();
  if (status) {
    free(*coordinates), free(*json);
    *coordinates = NULL, *json = NULL;
  }
  return status;
}

void sw_vectors_close(sw_vectors *v) {
  handle *h = v->handle;
  if (h) {
    sw_hdf_enter();
    if (h->vectors >= 0) H5Dclose(h->vectors);
    if (h->ids >= 0) H5Dclose(h->ids);
    if (h->file >= 0) H5Fclose(h->file);
    sw_hdf_leave();
    if (h->npy) fclose(h->npy);
    if (h->names) fclose(h->names);
    free(h->path);
    free(h);
  }
  free(v->model_sha256), free(v->model), free(v->pooling), free(v->prefix);
  *v = (sw_vectors){0};
}
