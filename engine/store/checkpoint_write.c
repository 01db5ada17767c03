/* Writes a checkpoint: a temporary file beside the destination, synced, then renamed over it. */
#include "base/error.h"
#include "base/file.h"
#include "base/version.h"
#include "engine/store/hdf.h"
#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- what may be written */

static int check_name(const char *kind, const char *name) {
  if (!name || !name[0]) return sw_fail("a %s without a name cannot be written", kind);
  if (strlen(name) > SW_MAX_NAME)
    return sw_fail("the name of a %s is longer than %d bytes: %.64s...", kind, SW_MAX_NAME, name);
  for (const char *c = name; *c; c++)
    if ((unsigned char)*c < 0x20) return sw_fail("the name of a %s holds a control character: %s", kind, name);
  for (const char *part = name;; part = strchr(part, '/') + 1) {
    size_t length = strcspn(part, "/");
    if (!length || (length == 1 && part[0] == '.')) return sw_fail("%s cannot be the name of a %s", name, kind);
    if (!part[length]) return 0;
  }
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_tensors(const sw_tensors *tensors) {
  const char **names = sw_alloc_array(tensors->count, sizeof *names);
  if (!names) return -1;
  int status = tensors->count > SW_MAX_OBJECTS ? sw_fail("%zu tensors are too many", tensors->count) : 0;
  for (size_t i = 0; !status && i < tensors->count; i++) {
    const sw_tensor *tensor = &tensors->items[i];
    status = check_name("tensor", names[i] = tensor->name);
    if (!status && (tensor->rank < 1 || sw_tensor_elements(tensor) < 1))
      status = sw_fail("tensor %s has no elements", tensor->name);
  }
  if (!status) qsort(names, tensors->count, sizeof *names, compare_names);
  for (size_t i = 1; !status && i < tensors->count; i++)
    if (!strcmp(names[i - 1], names[i])) status = sw_fail("two tensors are named %s", names[i]);
  free(names);
  return status;
}

static int check_content(const sw_checkpoint *c) {
  if (check_name("kind", c->kind)) return -1;
  if (!json_is_object(c->config)) return sw_fail("a checkpoint needs a config, a JSON object");
  if (c->parent_sha256[0] && strspn(c->parent_sha256, "0123456789abcdef") != 64)
    return sw_fail("parent_sha256 is no SHA-256");
  for (size_t i = 0; i < c->vocab_size; i++) {
    if (c->vocab_bytes[i] > SW_MAX_TOKEN)
      return sw_fail("token %zu of the vocabulary is longer than %d bytes", i, SW_MAX_TOKEN);
    if (memchr(c->vocab[i], 0, c->vocab_bytes[i])) return sw_fail("token %zu of the vocabulary holds a NUL byte", i);
  }
  if (c->num_heads > SW_MAX_OBJECTS) return sw_fail("%zu heads are too many", c->num_heads);
  for (size_t i = 0; i < c->num_heads; i++) {
    const sw_head *head = &c->heads[i];
    if (check_name("head", head->name) || check_name("head's task", head->task)) return -1;
    if (strchr(head->name, '/')) return sw_fail("the name of head %s holds a '/'", head->name);
    if (!head->num_labels || head->num_labels > SW_MAX_OBJECTS)
      return sw_fail("head %s has %zu labels", head->name, head->num_labels);
    for (size_t j = 0; j < head->num_labels; j++)
      if (!head->labels[j][0] || strlen(head->labels[j]) > SW_MAX_NAME)
        return sw_fail("label %zu of head %s is empty or longer than %d bytes", j, head->name, SW_MAX_NAME);
  }
  return check_tensors(&c->weights) || check_tensors(&c->optimizer) ? -1 : 0;
}

/* --- HDF5 objects; each returns -1 without a message, the caller reports the file */

static hid_t text_type(size_t bytes) {
  hid_t type = H5Tcopy(H5T_C_S1);
  if (type >= 0 && (H5Tset_size(type, bytes) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
                    H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
    H5Tclose(type);
    return -1;
  }
  return type;
}

static int write_attribute(hid_t object, const char *name, hid_t file_type, hid_t memory_type, const void *value) {
  hid_t space = H5Screate(H5S_SCALAR);
  hid_t attribute = space < 0 ? -1 : H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
  int status = attribute < 0 || H5Awrite(attribute, memory_type, value) < 0 ? -1 : 0;
  if (attribute >= 0 && H5Aclose(attribute) < 0) status = -1;
  if (space >= 0) H5Sclose(space);
  return status;
}

static int write_text_attribute(hid_t object, const char *name, const char *text) {
  hid_t type = text_type(text[0] ? strlen(text) : 1);
  int status = type < 0 ? -1 : write_attribute(object, name, type, type, text);
  if (type >= 0) H5Tclose(type);
  return status;
}

static int write_int_attribute(hid_t object, const char *name, int value) {
  return write_attribute(object, name, H5T_STD_I32LE, H5T_NATIVE_INT, &value);
}

/* Chunks of about SW_CHUNK_BYTES along the first dimension, of nearly equal size so that the last one wastes little.
 * One row may be larger than that (a vector of a wide layer is one row): it is cut along the second dimension then. */
static void chunk_shape(int rank, const hsize_t *shape, size_t element, hsize_t *chunk) {
  hsize_t row = element;
  for (int i = rank - 1; i >= 0; i--) {
    hsize_t most = row < SW_CHUNK_BYTES ? SW_CHUNK_BYTES / row : 1, parts = (shape[i] + most - 1) / most;
    chunk[i] = (shape[i] + parts - 1) / parts;
    row *= chunk[i];
  }
}

static uint64_t stored_bytes(int rank, const hsize_t *shape, size_t element) {
  hsize_t chunk[4];
  uint64_t bytes = element, chunks = 1;
  chunk_shape(rank, shape, element, chunk);
  for (int i = 0; i < rank; i++) {
    uint64_t parts = (shape[i] + chunk[i] - 1) / chunk[i];
    chunks *= parts;
    bytes *= parts * chunk[i];
  }
  return bytes + chunks * 32 + 4096; /* checksum and index entry of a chunk; headers of a dataset */
}

/* A group that remembers the order in which things were put into it. */
static hid_t make_group(hid_t parent, const char *name) {
  hid_t create = H5Pcreate(H5P_GROUP_CREATE), group = -1;
  if (create >= 0 && H5Pset_obj_track_times(create, 0) >= 0 && H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) >= 0)
    group = H5Gcreate2(parent, name, H5P_DEFAULT, create, H5P_DEFAULT);
  if (create >= 0) H5Pclose(create);
  return group;
}

/* The group that a name such as "m/encoder.weight" lies in; HDF5 would make it with times. */
static int make_group_of(hid_t parent, const char *name) {
  char group[SW_MAX_NAME];
  const char *slash = strchr(name, '/');
  if (!slash) return 0;
  snprintf(group, sizeof group, "%.*s", (int)(slash - name), name);
  if (H5Lexists(parent, group, H5P_DEFAULT) > 0) return 0;
  const hid_t made = make_group(parent, group);
  return made < 0 || H5Gclose(made) < 0 ? -1 : 0;
}

/* Returns the dataset (close it), or -1. */
static hid_t write_dataset(hid_t parent, const char *name, hid_t file_type, hid_t memory_type, int rank,
                           const hsize_t *shape, const void *data) {
  hsize_t chunk[4];
  chunk_shape(rank, shape, H5Tget_size(file_type), chunk);
  hid_t create = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE),
        space = H5Screate_simple(rank, shape, NULL), dataset = -1;
  if (make_group_of(parent, name) == 0 && create >= 0 && links >= 0 && space >= 0 && H5Pset_chunk(create, rank, chunk) >= 0 &&
      H5Pset_fletcher32(create) >= 0 && H5Pset_fill_time(create, H5D_FILL_TIME_NEVER) >= 0 &&
      H5Pset_obj_track_times(create, 0) >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0)
    dataset = H5Dcreate2(parent, name, file_type, space, links, create, H5P_DEFAULT);
  if (dataset >= 0 && H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    H5Dclose(dataset);
    dataset = -1;
  }
  if (space >= 0) H5Sclose(space);
  if (links >= 0) H5Pclose(links);
  if (create >= 0) H5Pclose(create);
  return dataset;
}

static int close_dataset(hid_t dataset) {
  return dataset < 0 || H5Dclose(dataset) < 0 ? -1 : 0;
}

static int write_json(hid_t file, const char *name, const char *text) {
  if (!text) return 0;
  hid_t type = text_type(strlen(text));
  int status = type < 0 ? -1 : close_dataset(write_dataset(file, name, type, type, 1, (hsize_t[]){1}, text));
  if (type >= 0) H5Tclose(type);
  return status;
}

/* Strings as one fixed-size type, padded with NULs: unlike variable-length strings their bytes lie inside the
 * checksummed chunks. */
static hid_t write_strings(hid_t parent, const char *name, size_t count, char *const *items, const size_t *lengths) {
  size_t width = 1;
  for (size_t i = 0; i < count; i++) {
    size_t length = lengths ? lengths[i] : strlen(items[i]);
    if (length > width) width = length;
  }
  char *block = sw_alloc_array(count, width);
  hid_t type = block ? text_type(width) : -1, dataset = -1;
  if (type >= 0) {
    for (size_t i = 0; i < count; i++) memcpy(block + i * width, items[i], lengths ? lengths[i] : strlen(items[i]));
    dataset = write_dataset(parent, name, type, type, 1, (hsize_t[]){count}, block);
    H5Tclose(type);
  }
  free(block);
  return dataset;
}

static int write_tensors(hid_t file, const char *name, const sw_tensors *tensors) {
  if (!tensors->count) return 0;
  hid_t group = make_group(file, name);
  int status = group < 0 ? -1 : 0;
  for (size_t i = 0; !status && i < tensors->count; i++) {
    const sw_tensor *tensor = &tensors->items[i];
    hsize_t shape[4];
    for (int k = 0; k < tensor->rank; k++) shape[k] = (hsize_t)tensor->shape[k];
    int single = tensor->dtype == SW_F32;
    hid_t dataset = write_dataset(group, tensor->name, single ? H5T_IEEE_F32LE : H5T_STD_U16LE,
                                  single ? H5T_NATIVE_FLOAT : H5T_NATIVE_UINT16, tensor->rank, shape, tensor->data);
    if (dataset < 0 || (!single && write_text_attribute(dataset, "dtype", "bfloat16"))) status = -1;
    if (close_dataset(dataset)) status = -1;
  }
  if (group >= 0 && H5Gclose(group) < 0) status = -1;
  return status;
}

static int write_heads(hid_t file, const sw_checkpoint *c) {
  if (!c->num_heads) return 0;
  hid_t heads = make_group(file, "heads");
  int status = heads < 0 ? -1 : 0;
  for (size_t i = 0; !status && i < c->num_heads; i++) {
    const sw_head *head = &c->heads[i];
    hid_t group = make_group(heads, head->name);
    if (group < 0 || write_text_attribute(group, "task", head->task) ||
        close_dataset(write_strings(group, "labels", head->num_labels, head->labels, NULL)))
      status = -1;
    if (group >= 0 && H5Gclose(group) < 0) status = -1;
  }
  if (heads >= 0 && H5Gclose(heads) < 0) status = -1;
  return status;
}

static int write_tokenizer(hid_t file, const sw_checkpoint *c) {
  if (!c->vocab_size) return 0;
  hid_t group = make_group(file, "tokenizer");
  hid_t vocab = group < 0 ? -1 : write_strings(group, "vocab", c->vocab_size, c->vocab, c->vocab_bytes);
  int status = vocab < 0 ? -1 : 0;
  for (size_t i = 0; !status && i < SW_TOKENIZER_ATTRIBUTES; i++)
    status = write_int_attribute(vocab, sw_tokenizer_attributes[i].name,
                                 *(const int *)((const char *)&c->tokenizer + sw_tokenizer_attributes[i].offset));
  if (vocab >= 0 && H5Dclose(vocab) < 0) status = -1;
  if (group >= 0 && H5Gclose(group) < 0) status = -1;
  return status;
}

static int write_content(hid_t file, const sw_checkpoint *c, const sw_checkpoint_texts *texts) {
  char header[65];
  return sw_checkpoint_header_hash(c, header) || write_text_attribute(file, "format", "skillwatch") ||
                 write_int_attribute(file, "version", SW_CHECKPOINT_VERSION) ||
                 write_text_attribute(file, "kind", c->kind) || write_text_attribute(file, "created", c->created) ||
                 write_text_attribute(file, "tool_version", c->tool_version) ||
                 write_text_attribute(file, "content_sha256", c->content_sha256) ||
                 write_text_attribute(file, "header_sha256", header) ||
                 write_text_attribute(file, "parent_sha256", c->parent_sha256) ||
                 write_json(file, "config", texts->config) || write_tokenizer(file, c) ||
                 write_tensors(file, "weights", &c->weights) || write_heads(file, c) ||
                 write_tensors(file, "optimizer", &c->optimizer) || write_json(file, "training", texts->training) ||
                 write_json(file, "lineage", texts->lineage)
             ? -1
             : 0;
}

/* --- the file */

static uint64_t tensors_bytes(const sw_tensors *tensors) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors->count; i++) {
    hsize_t shape[4];
    for (int k = 0; k < tensors->items[i].rank; k++) shape[k] = (hsize_t)tensors->items[i].shape[k];
    bytes += stored_bytes(tensors->items[i].rank, shape, sw_dtype_bytes(tensors->items[i].dtype));
  }
  return bytes;
}

/* A bound on the size of the file, to reserve its space before HDF5 starts. */
static uint64_t file_bytes(const sw_checkpoint *c, const sw_checkpoint_texts *texts) {
  uint64_t bytes = (1 << 17) + tensors_bytes(&c->weights) + tensors_bytes(&c->optimizer), width = 1;
  const char *const json[] = {texts->config, texts->training, texts->lineage};
  for (size_t i = 0; i < 3; i++) bytes += json[i] ? strlen(json[i]) + 4096 : 0;
  for (size_t i = 0; i < c->vocab_size; i++)
    if (c->vocab_bytes[i] > width) width = c->vocab_bytes[i];
  if (c->vocab_size) bytes += stored_bytes(1, (hsize_t[]){c->vocab_size}, width);
  for (size_t i = 0; i < c->num_heads; i++) bytes += 8192 + (uint64_t)c->heads[i].num_labels * (SW_MAX_NAME + 32);
  return bytes;
}

/* For file systems that cannot reserve space: zeros take it. Returns an errno. */
static int fill(int fd, uint64_t bytes) {
  static const char zeros[1 << 16];
  for (uint64_t at = 0; at < bytes;) {
    size_t part = bytes - at < sizeof zeros ? (size_t)(bytes - at) : sizeof zeros;
    ssize_t put = pwrite(fd, zeros, part, (off_t)at);
    if (put < 0 && errno != EINTR) return errno;
    if (put > 0) at += (uint64_t)put;
  }
  return 0;
}

/* HDF5 does not survive a failing write (it tries again at exit and crashes), so we make sure of the room before it
 * starts. */
static int reserve(int fd, uint64_t bytes, const char *path) {
  int error = posix_fallocate(fd, 0, (off_t)bytes);
  if (error == EOPNOTSUPP || error == EINVAL || error == ENOSYS) error = fill(fd, bytes);
  if (error)
    return sw_fail("cannot write %s: %s (%.1f MB are needed): free some space or choose another place with -o", path,
                   strerror(error), (double)bytes / 1e6);
  return 0;
}

/* Gives back what was reserved and not used: the superblock says where the file ends. */
static int cut_to_size(const char *temporary, const char *path) {
  unsigned char end[8] = {0};
  uint64_t bytes = 0;
  int fd = open(temporary, O_RDWR | O_CLOEXEC);
  int status = fd >= 0 && pread(fd, end, 8, 28) == 8 ? 0 : -1;
  for (int i = 7; i >= 0; i--) bytes = bytes << 8 | end[i];
  if (!status) status = ftruncate(fd, (off_t)bytes);
  if (status) sw_fail("cannot write %s: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  return status;
}

static int write_file(const char *temporary, const char *path, const sw_checkpoint *c,
                      const sw_checkpoint_texts *texts) {
  int status = -1;
  hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = -1;
  /* the 1.10 format has checksums in all its own structures too, so that a flipped bit is found before it is believed
   */
  if (access >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
      H5Pset_file_locking(access, 0, 1) >= 0) {
    errno = 0;
    file = sw_hdf_create(temporary, access);
    if (file < 0) sw_fail("cannot write %s: %s", path, errno ? strerror(errno) : "HDF5 cannot create the file");
  } else {
    sw_fail("cannot write %s: HDF5 refuses its settings", path);
  }
  if (file >= 0) {
    void *handle = NULL;
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0 || !handle) {
      sw_fail("cannot write %s: HDF5 gives no file descriptor", path);
    } else {
      sw_temporary_lock(*(int *)handle);
      status = reserve(*(int *)handle, file_bytes(c, texts), path);
    }
    int reported = status != 0;
    errno = 0;
    if (!status) status = write_content(file, c, texts);
    if (!status && H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) status = -1;
    char why[160];
    int saved = errno;
    sw_hdf_reason(why);
    if (H5Fclose(file) < 0) status = -1;
    if (status && !reported)
      sw_fail("cannot write %s: %s", path, saved ? strerror(saved) : why[0] ? why : "HDF5 failed");
  }
  if (access >= 0) H5Pclose(access);
  return status ? status : cut_to_size(temporary, path);
}

static int prepare_texts(const sw_checkpoint *c, sw_checkpoint_texts *texts) {
  texts->config = sw_json_canonical(c->config);
  texts->training = c->training ? sw_json_canonical(c->training) : NULL;
  texts->lineage = c->lineage ? sw_json_canonical(c->lineage) : NULL;
  if (!texts->config || (c->training && !texts->training) || (c->lineage && !texts->lineage)) return -1;
  const char *const json[] = {texts->config, texts->training, texts->lineage};
  for (size_t i = 0; i < 3; i++)
    if (json[i] && strlen(json[i]) > SW_MAX_JSON)
      return sw_fail("a JSON text of the checkpoint is larger than %d MiB", SW_MAX_JSON >> 20);
  return 0;
}

int sw_checkpoint_write(const char *path, sw_checkpoint *c) {
  if (check_content(c)) return sw_fail_in("cannot write %s", path);
  if (sw_is_folder(path)) return sw_fail("cannot write %s: it is a folder, a file name was expected", path);
  sw_checkpoint_texts texts = {0};
  const char *epoch = getenv("SOURCE_DATE_EPOCH"); /* reproducible-builds.org: the same run twice, the same bytes */
  time_t now = epoch && *epoch ? (time_t)strtoll(epoch, NULL, 10) : time(NULL);
  struct tm utc;
  strftime(c->created, sizeof c->created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  snprintf(c->tool_version, sizeof c->tool_version, "%s", sw_code_version);
  char *temporary = NULL;
  int status = prepare_texts(c, &texts) || sw_checkpoint_hash(c, &texts, c->content_sha256) ||
                       !(temporary = sw_temporary_path(path))
                   ? -1
                   : 0;
  if (!status) {
    sw_hdf_enter();
    status = write_file(temporary, path, c, &texts);
    sw_hdf_leave();
    if (status)
      unlink(temporary);
    else
      status = sw_file_publish(temporary, path);
  }
  free(temporary);
  free(texts.config);
  free(texts.training);
  free(texts.lineage);
  return status;
}
