/* Reads a checkpoint and believes nothing: every size is held against the size of the file before memory is taken for
 * it. */
#include "base/error.h"
#include "base/file.h"
#include "engine/store/encoder.h"
#include "engine/store/hdf.h"
#include "engine/store/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  const char *path;
  hid_t file;
  uint64_t bytes;   /* of the file */
  uint64_t claimed; /* by the datasets read so far: never more than `bytes` */
  size_t objects;
  sw_checkpoint *out;
  sw_checkpoint_texts texts;
} reader;

static int damaged(const reader *r, const char *object, const char *why) {
  char reason[160];
  sw_hdf_reason(reason);
  return sw_fail("%s is damaged: %s: %s%s%s; copy it again from its source or from a backup", r->path, object, why,
                 reason[0] ? ": " : "", reason);
}

static int foreign(const reader *r, const char *object, const char *why) {
  return sw_fail("%s is not a valid Skillwatch checkpoint: %s: %s (the format is in checkpoints/README.md)", r->path,
                 object, why);
}

/* --- before HDF5 sees the file */

static uint64_t little_endian(const unsigned char *p, int bytes) {
  uint64_t v = 0;
  for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

/* The superblock: signature, version 3 (HDF5 1.10: all structures carry checksums), and the end of file it was closed
 * with. */
static int check_superblock(const reader *r, const unsigned char *head, size_t got) {
  static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  if (!r->bytes) return sw_fail("%s is empty (0 bytes): the copy or download failed; fetch it again", r->path);
  if (got < 8 || memcmp(head, signature, 8)) {
    const char *guess =
        got >= 4 && !memcmp(head, "PK\3\4", 4) ? ": it is a zip archive; 'skillwatch pull' reads wheels"
        : got >= 9 && head[8] == '{' ? ": it looks like safetensors; 'skillwatch pull' reads the folder it lies in"
        : got >= 9 && !memcmp(head, "version ", 8) ? ": it looks like a Git LFS pointer; fetch the file itself"
                                                   : ": it is no HDF5 file; 'skillwatch pull' makes a checkpoint";
    return sw_fail("%s is not a Skillwatch checkpoint%s", r->path, guess);
  }
  if (got < 48)
    return sw_fail("%s is truncated: %llu bytes are left of it; copy it again", r->path, (unsigned long long)r->bytes);
  if (head[8] < 3 || head[9] != 8 || head[10] != 8)
    return sw_fail("%s is not a Skillwatch checkpoint: it is an HDF5 file in an older form (superblock %d); "
                   "checkpoints use that of HDF5 1.10",
                   r->path, head[8]);
  uint64_t end = little_endian(head + 28, 8);
  if (little_endian(head + 12, 8) == 0 && end > r->bytes)
    return sw_fail("%s is truncated: %llu of %llu bytes are there; copy it again from its source or from a backup",
                   r->path, (unsigned long long)r->bytes, (unsigned long long)end);
  return 0;
}

static int look_at(reader *r, int fd) {
  unsigned char head[48];
  struct stat info;
  if (fstat(fd, &info)) return sw_fail("%s cannot be read: %s", r->path, strerror(errno));
  if (S_ISDIR(info.st_mode))
    return sw_fail("%s is a folder, a checkpoint file was expected; 'skillwatch pull %s -o model.h5' makes one of a "
                   "model's folder",
                   r->path, r->path);
  if (!S_ISREG(info.st_mode)) return sw_fail("%s is not a regular file", r->path);
  ssize_t got = pread(fd, head, sizeof head, 0);
  if (got < 0) return sw_fail("%s cannot be read: %s", r->path, strerror(errno));
  r->bytes = (uint64_t)info.st_size;
  return check_superblock(r, head, (size_t)got);
}

static int look_at_file(reader *r) {
  int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT)
    return sw_fail("%s does not exist; 'skillwatch pull' and 'skillwatch train' make checkpoints", r->path);
  if (fd < 0 && errno == EACCES)
    return sw_fail("%s cannot be read: permission denied; check its mode with ls -l", r->path);
  if (fd < 0) return sw_fail("%s cannot be read: %s", r->path, strerror(errno));
  int status = look_at(r, fd);
  close(fd);
  return status;
}

/* A writer may have put a new file at the path since we looked: what counts is the one that HDF5 has open. */
static int look_at_open_file(reader *r) {
  void *fd = NULL;
  if (H5Fget_vfd_handle(r->file, H5P_DEFAULT, &fd) < 0 || !fd)
    return damaged(r, "the file", "HDF5 gives no file descriptor");
  return look_at(r, *(int *)fd);
}

/* --- attributes */

/* Reads a fixed-size text attribute of at most `capacity` - 1 bytes. */
static int read_text_attribute(const reader *r, hid_t object, const char *where, const char *name, char *out,
                               size_t capacity) {
  memset(out, 0, capacity);
  char what[SW_MAX_NAME + 64];
  snprintf(what, sizeof what, "attribute %s of %s", name, where);
  htri_t exists = H5Aexists(object, name);
  if (exists <= 0) return exists ? damaged(r, what, "cannot be looked up") : foreign(r, what, "missing");
  hid_t attribute = H5Aopen(object, name, H5P_DEFAULT), type = attribute < 0 ? -1 : H5Aget_type(attribute);
  hid_t space = attribute < 0 ? -1 : H5Aget_space(attribute);
  int status = -1;
  if (type < 0 || space < 0)
    damaged(r, what, "cannot be opened");
  else if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 ||
           H5Sget_simple_extent_npoints(space) != 1 || H5Tget_size(type) >= capacity)
    foreign(r, what, "a short fixed-size string is expected");
  else if (H5Aread(attribute, type, out) < 0)
    damaged(r, what, "cannot be read");
  else
    status = 0;
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  if (attribute >= 0) H5Aclose(attribute);
  return status;
}

static int read_int_attribute(const reader *r, hid_t object, const char *where, const char *name, int *out) {
  char what[SW_MAX_NAME + 64];
  snprintf(what, sizeof what, "attribute %s of %s", name, where);
  htri_t exists = H5Aexists(object, name);
  if (exists <= 0) return exists ? damaged(r, what, "cannot be looked up") : foreign(r, what, "missing");
  hid_t attribute = H5Aopen(object, name, H5P_DEFAULT), type = attribute < 0 ? -1 : H5Aget_type(attribute);
  hid_t space = attribute < 0 ? -1 : H5Aget_space(attribute);
  int status = -1;
  if (type < 0 || space < 0)
    damaged(r, what, "cannot be opened");
  else if (H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) > 8 || H5Sget_simple_extent_npoints(space) != 1)
    foreign(r, what, "one integer is expected");
  else if (H5Aread(attribute, H5T_NATIVE_INT, out) < 0)
    damaged(r, what, "cannot be read");
  else
    status = 0;
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  if (attribute >= 0) H5Aclose(attribute);
  return status;
}

/* --- datasets */

typedef struct {
  hid_t id, type;
  int rank;
  hsize_t shape[4];
  uint64_t bytes;
} dataset;

static void close_dataset(dataset *d) {
  if (d->type >= 0) H5Tclose(d->type);
  if (d->id >= 0) H5Dclose(d->id);
  d->id = d->type = -1;
}

static int check_layout(reader *r, const dataset *d, const char *where) {
  hid_t create = H5Dget_create_plist(d->id);
  unsigned flags, config;
  size_t values = 0;
  hsize_t chunk[4] = {0};
  int status = -1;
  if (create < 0)
    damaged(r, where, "cannot be opened");
  else if (H5Pget_layout(create) != H5D_CHUNKED || H5Pget_chunk(create, 4, chunk) != d->rank ||
           H5Pget_nfilters(create) != 1 ||
           H5Pget_filter2(create, 0, &flags, &values, NULL, 0, NULL, &config) != H5Z_FILTER_FLETCHER32)
    foreign(r, where, "chunks with Fletcher32 and no other filter are expected");
  else {
    uint64_t bytes = H5Tget_size(d->type), stored = H5Dget_storage_size(d->id);
    for (int i = 0; i < d->rank; i++)
      if (__builtin_mul_overflow(bytes, chunk[i], &bytes)) bytes = UINT64_MAX;
    if (bytes > 2 * d->bytes + 4096)
      foreign(r, where, "its chunks are larger than itself");
    else if (stored < d->bytes || stored > r->bytes - r->claimed)
      damaged(r, where, "the file is too small for its shape");
    else {
      r->claimed += stored;
      status = 0;
    }
  }
  if (create >= 0) H5Pclose(create);
  return status;
}

static int open_dataset(reader *r, hid_t parent, const char *name, const char *where, dataset *d) {
  *d = (dataset){.id = -1, .type = -1};
  H5O_info_t info;
  if (++r->objects > 4 * SW_MAX_OBJECTS) return foreign(r, where, "too many objects");
  if (H5Oget_info_by_name2(parent, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
    return damaged(r, where, "cannot be opened");
  if (info.type != H5O_TYPE_DATASET) return foreign(r, where, "a dataset is expected");
  d->id = H5Dopen2(parent, name, H5P_DEFAULT);
  hid_t space = d->id < 0 ? -1 : H5Dget_space(d->id);
  d->type = d->id < 0 ? -1 : H5Dget_type(d->id);
  int status = -1;
  if (space < 0 || d->type < 0)
    damaged(r, where, "cannot be opened");
  else if ((d->rank = H5Sget_simple_extent_ndims(space)) < 1 || d->rank > 4 ||
           H5Sget_simple_extent_dims(space, d->shape, NULL) != d->rank)
    foreign(r, where, "one to four dimensions are expected");
  else {
    d->bytes = H5Tget_size(d->type);
    for (int i = 0; i < d->rank; i++)
      if (__builtin_mul_overflow(d->bytes, d->shape[i], &d->bytes)) d->bytes = UINT64_MAX;
    if (!d->bytes)
      foreign(r, where, "it has no elements");
    else if (d->bytes > r->bytes)
      damaged(r, where, "the file is too small for its shape");
    else
      status = check_layout(r, d, where);
  }
  if (space >= 0) H5Sclose(space);
  if (status) close_dataset(d);
  return status;
}

/* Only plain (hard) links are followed, so nothing outside the file is ever read. 1: there, 0: absent. */
static int has_link(const reader *r, hid_t parent, const char *name, const char *where) {
  htri_t exists = H5Lexists(parent, name, H5P_DEFAULT);
  if (exists == 0) return 0;
  H5L_info_t info;
  if (exists < 0 || H5Lget_info(parent, name, &info, H5P_DEFAULT) < 0) return damaged(r, where, "cannot be looked up");
  return info.type == H5L_TYPE_HARD ? 1 : foreign(r, where, "links to other places are not allowed");
}

static int is_fixed_text(const dataset *d) {
  return d->rank == 1 && H5Tget_class(d->type) == H5T_STRING && H5Tis_variable_str(d->type) == 0;
}

/* The file's type with our own padding rule, so that nothing is cut off or converted. */
static hid_t memory_text_type(size_t width) {
  hid_t type = H5Tcopy(H5T_C_S1);
  if (type >= 0 && (H5Tset_size(type, width) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0)) {
    H5Tclose(type);
    return -1;
  }
  return type;
}

/* All strings of a dataset as one block of `count` x `width` bytes; free() it. */
static char *read_text_block(reader *r, dataset *d, const char *where, size_t *count, size_t *width) {
  *width = H5Tget_size(d->type);
  *count = (size_t)d->shape[0];
  char *block = sw_alloc_aligned(d->bytes);
  H5T_cset_t cset = H5Tget_cset(d->type);
  hid_t type = block ? memory_text_type(*width) : -1;
  int status = -1;
  if (block &&
      (type < 0 || H5Tset_cset(type, cset) < 0 || H5Dread(d->id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, block) < 0))
    damaged(r, where, "cannot be read");
  else if (block)
    status = 0;
  if (type >= 0) H5Tclose(type);
  if (status) {
    free(block);
    return NULL;
  }
  return block;
}

static int read_json(reader *r, const char *name, char **text, json_t **value) {
  char where[64];
  snprintf(where, sizeof where, "/%s", name);
  int found = has_link(r, r->file, name, where);
  if (found <= 0) return found;
  dataset d;
  if (open_dataset(r, r->file, name, where, &d)) return -1;
  size_t count, width;
  if (!is_fixed_text(&d) || d.shape[0] != 1 || d.bytes > SW_MAX_JSON) {
    close_dataset(&d);
    return foreign(r, where, "one fixed-size string is expected");
  }
  char *block = read_text_block(r, &d, where, &count, &width);
  close_dataset(&d);
  if (!block) return -1;
  *text = sw_strndup(block, strnlen(block, width));
  free(block);
  if (!*text) return -1;
  *value = sw_json_parse(*text, strlen(*text), where);
  return *value ? 0 : sw_fail_in("%s cannot be read", r->path);
}

/* --- groups */

typedef struct {
  size_t count, capacity;
  char **names;
  int bad; /* 1: a link that is not hard, or too many of them; -1: memory ran out, and the message says so */
} names;

static herr_t collect_name(hid_t group, const char *name, const H5L_info_t *info, void *data) {
  names *list = data;
  if (info->type != H5L_TYPE_HARD || list->count >= SW_MAX_OBJECTS || strlen(name) > SW_MAX_NAME) {
    list->bad = 1;
    return 1;
  }
  if (list->count == list->capacity) {
    char **items =
        sw_realloc_array(list->names, list->capacity = list->capacity ? 2 * list->capacity : 64, sizeof *items);
    if (!items) return list->bad = -1;
    list->names = items;
  }
  if (!(list->names[list->count] = sw_strdup(name))) return list->bad = -1;
  list->count++;
  return 0;
}

static void close_names(names *list) {
  for (size_t i = 0; i < list->count; i++) free(list->names[i]);
  free(list->names);
  *list = (names){0};
}

/* The members of a group, in the order they were put in where the file knows it, by name otherwise. Empty on failure.
 */
static int list_group(const reader *r, hid_t group, const char *where, names *list) {
  *list = (names){0};
  unsigned order = 0;
  hid_t create = H5Gget_create_plist(group);
  if (create < 0 || H5Pget_link_creation_order(create, &order) < 0) order = 0;
  if (create >= 0) H5Pclose(create);
  H5_index_t index = order & H5P_CRT_ORDER_TRACKED ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  int failed = H5Literate(group, index, H5_ITER_INC, NULL, collect_name, list) < 0, bad = list->bad;
  if (failed || bad) close_names(list);
  if (bad < 0) return -1;
  if (bad) return foreign(r, where, "too many members, or a link to another place");
  return failed ? damaged(r, where, "its members cannot be listed") : 0;
}

static hid_t open_group(const reader *r, hid_t parent, const char *name, const char *where) {
  hid_t group = H5Gopen2(parent, name, H5P_DEFAULT);
  if (group < 0) damaged(r, where, "cannot be opened as a group");
  return group;
}

static int read_tensor(reader *r, hid_t group, const char *name, const char *full, const char *where, sw_tensors *out) {
  dataset d;
  if (open_dataset(r, group, name, where, &d)) return -1;
  int status = -1, is_float = H5Tequal(d.type, H5T_IEEE_F32LE) > 0, is_bf16 = H5Tequal(d.type, H5T_STD_U16LE) > 0;
  char dtype[16] = "";
  if (is_bf16 && read_text_attribute(r, d.id, where, "dtype", dtype, sizeof dtype)) {
    /* said already */
  } else if (!is_float && !(is_bf16 && !strcmp(dtype, "bfloat16"))) {
    foreign(r, where, "float32, or uint16 with the attribute dtype=\"bfloat16\", is expected");
  } else {
    int64_t shape[4];
    for (int i = 0; i < d.rank; i++) shape[i] = (int64_t)d.shape[i];
    sw_tensor *tensor = sw_tensors_add(out, full, is_float ? SW_F32 : SW_BF16, d.rank, shape);
    if (tensor &&
        H5Dread(d.id, is_float ? H5T_NATIVE_FLOAT : H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor->data) < 0)
      damaged(r, where, "cannot be read");
    else if (tensor)
      status = 0;
  }
  close_dataset(&d);
  return status;
}

/* All tensors below a group; "/" in a tensor's name are groups. */
static int read_tensors(reader *r, hid_t parent, const char *name, const char *top, const char *prefix, int depth,
                        sw_tensors *out) {
  char where[2 * SW_MAX_NAME];
  snprintf(where, sizeof where, "/%s%s%s", top, prefix[0] ? "/" : "", prefix);
  if (depth > 4) return foreign(r, where, "groups are nested too deeply");
  hid_t group = open_group(r, parent, name, where);
  names list;
  if (group < 0) return -1;
  int status = list_group(r, group, where, &list);
  for (size_t i = 0; !status && i < list.count; i++) {
    char full[SW_MAX_NAME + 1], place[2 * SW_MAX_NAME];
    int length = snprintf(full, sizeof full, "%s%s%s", prefix, prefix[0] ? "/" : "", list.names[i]);
    snprintf(place, sizeof place, "/%s/%s", top, full);
    H5O_info_t info;
    if (length > SW_MAX_NAME)
      status = foreign(r, where, "a name is too long");
    else if (++r->objects > 4 * SW_MAX_OBJECTS)
      status = foreign(r, where, "too many objects");
    else if (H5Oget_info_by_name2(group, list.names[i], &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
      status = damaged(r, place, "cannot be opened");
    else if (info.type == H5O_TYPE_GROUP)
      status = read_tensors(r, group, list.names[i], top, full, depth + 1, out);
    else
      status = read_tensor(r, group, list.names[i], full, place, out);
  }
  close_names(&list);
  H5Gclose(group);
  return status;
}

static int read_tensors_of(reader *r, const char *top, sw_tensors *out) {
  char where[64];
  snprintf(where, sizeof where, "/%s", top);
  int found = has_link(r, r->file, top, where);
  return found <= 0 ? found : read_tensors(r, r->file, top, top, "", 0, out);
}

static int read_head(reader *r, hid_t heads, const char *name) {
  char where[SW_MAX_NAME + 32], labels_at[SW_MAX_NAME + 40], task[SW_MAX_NAME + 1];
  snprintf(where, sizeof where, "/heads/%s", name);
  snprintf(labels_at, sizeof labels_at, "/heads/%s/labels", name);
  hid_t group = open_group(r, heads, name, where);
  if (group < 0) return -1;
  dataset d;
  int status = read_text_attribute(r, group, where, "task", task, sizeof task), found = 0;
  if (!status && (found = has_link(r, group, "labels", labels_at)) <= 0)
    status = found < 0 ? -1 : foreign(r, labels_at, "missing");
  if (!status && !(status = open_dataset(r, group, "labels", labels_at, &d))) {
    size_t count = 0, width = 0;
    char *block = NULL;
    if (!is_fixed_text(&d) || d.shape[0] > SW_MAX_OBJECTS || H5Tget_size(d.type) > SW_MAX_NAME)
      foreign(r, labels_at, "a list of fixed-size strings is expected");
    else
      block = read_text_block(r, &d, labels_at, &count, &width);
    close_dataset(&d);
    char **labels = block ? sw_alloc_array(count, sizeof *labels) : NULL;
    status = labels ? 0 : -1;
    for (size_t i = 0; !status && i < count; i++)
      if (!(labels[i] = sw_strndup(block + i * width, strnlen(block + i * width, width)))) status = -1;
    if (!status) status = sw_checkpoint_add_head(r->out, name, task, (const char *const *)labels, count);
    for (size_t i = 0; labels && i < count; i++) free(labels[i]);
    free(labels);
    free(block);
  }
  H5Gclose(group);
  return status;
}

static int read_heads(reader *r) {
  int found = has_link(r, r->file, "heads", "/heads");
  if (found <= 0) return found;
  hid_t heads = open_group(r, r->file, "heads", "/heads");
  names list;
  if (heads < 0) return -1;
  int status = list_group(r, heads, "/heads", &list);
  for (size_t i = 0; !status && i < list.count; i++) status = read_head(r, heads, list.names[i]);
  close_names(&list);
  H5Gclose(heads);
  return status;
}

static int take_vocab(reader *r, const char *block, size_t count, size_t width) {
  sw_checkpoint *c = r->out;
  c->vocab = sw_alloc_array(count, sizeof *c->vocab);
  c->vocab_bytes = sw_alloc_array(count, sizeof *c->vocab_bytes);
  if (!c->vocab || !c->vocab_bytes) return -1;
  for (size_t i = 0; i < count; i++) {
    size_t bytes = strnlen(block + i * width, width);
    if (!(c->vocab[i] = sw_strndup(block + i * width, bytes))) return -1;
    c->vocab_bytes[i] = bytes;
    c->vocab_size = i + 1;
  }
  return 0;
}

static int read_tokenizer(reader *r) {
  int found = has_link(r, r->file, "tokenizer", "/tokenizer");
  if (found <= 0) return found;
  found = has_link(r, r->file, "tokenizer/vocab", "/tokenizer/vocab");
  if (found <= 0) return found < 0 ? -1 : foreign(r, "/tokenizer/vocab", "missing");
  dataset d;
  if (open_dataset(r, r->file, "tokenizer/vocab", "/tokenizer/vocab", &d)) return -1;
  int status = -1;
  size_t count, width;
  if (!is_fixed_text(&d) || H5Tget_size(d.type) > SW_MAX_TOKEN || d.shape[0] > 1 << 24) {
    foreign(r, "/tokenizer/vocab", "a list of fixed-size strings is expected");
  } else {
    char *block = read_text_block(r, &d, "/tokenizer/vocab", &count, &width);
    status = block ? take_vocab(r, block, count, width) : -1;
    free(block);
  }
  for (size_t i = 0; !status && i < SW_TOKENIZER_ATTRIBUTES; i++)
    status = read_int_attribute(r, d.id, "/tokenizer/vocab", sw_tokenizer_attributes[i].name,
                                (int *)((char *)&r->out->tokenizer + sw_tokenizer_attributes[i].offset));
  close_dataset(&d);
  return status;
}

/* --- the whole */

static int read_header(reader *r, char header[65]) {
  sw_checkpoint *c = r->out;
  char format[64], kind[SW_MAX_NAME + 1];
  int version;
  htri_t exists = H5Aexists(r->file, "format");
  if (exists < 0) return damaged(r, "attribute format of /", "cannot be looked up");
  if (!exists)
    return sw_fail("%s is an HDF5 file of another program, not a Skillwatch checkpoint: it has no attribute \"format\"",
                   r->path);
  if (read_text_attribute(r, r->file, "/", "format", format, sizeof format)) return -1;
  if (!strcmp(format, "skillwatch-vectors"))
    return sw_fail("%s holds vectors, not a model: give the checkpoint that made them", r->path);
  if (strcmp(format, "skillwatch"))
    return sw_fail("%s is an HDF5 file of another program, not a Skillwatch checkpoint: its format is \"%s\"", r->path,
                   format);
  if (read_int_attribute(r, r->file, "/", "version", &version)) return -1;
  if (version > SW_CHECKPOINT_VERSION)
    return sw_fail(
        "%s was written by a newer version (format %d, this program reads up to %d): upgrade skillwatch (this is %s)",
        r->path, version, SW_CHECKPOINT_VERSION, SW_VERSION);
  if (version < 1) return foreign(r, "attribute version of /", "it should be 1 or more");
  if (read_text_attribute(r, r->file, "/", "kind", kind, sizeof kind) ||
      read_text_attribute(r, r->file, "/", "created", c->created, sizeof c->created) ||
      read_text_attribute(r, r->file, "/", "tool_version", c->tool_version, sizeof c->tool_version) ||
      read_text_attribute(r, r->file, "/", "content_sha256", c->content_sha256, sizeof c->content_sha256) ||
      read_text_attribute(r, r->file, "/", "parent_sha256", c->parent_sha256, sizeof c->parent_sha256) ||
      read_text_attribute(r, r->file, "/", "header_sha256", header, 65))
    return -1;
  return (c->kind = sw_strdup(kind)) ? 0 : -1;
}

static int check_hashes(const reader *r, const char *header) {
  char found[65];
  if (sw_checkpoint_hash(r->out, &r->texts, found)) return -1;
  if (strcmp(found, r->out->content_sha256))
    return sw_fail("%s is damaged: its content does not have the hash it was written with (%.12s..., now %.12s...); "
                   "copy it again from its "
                   "source or from a backup",
                   r->path, r->out->content_sha256, found);
  if (sw_checkpoint_header_hash(r->out, found)) return -1;
  if (strcmp(found, header))
    return sw_fail(
        "%s is damaged: its date or version attributes do not have the hash they were written with; copy it again",
        r->path);
  return 0;
}

/* A model that this engine runs must fit its config before anyone multiplies with it. */
static int check_model(const reader *r) {
  const sw_checkpoint *c = r->out;
  if (!json_is_object(c->config)) return foreign(r, "/config", "a JSON object is expected");
  if (!sw_encoder_is_known(c->config)) return 0;
  if (sw_encoder_check_weights(c->config, &c->weights, r->path)) return -1;
  const sw_tensor *words = sw_tensors_find(&c->weights, "embeddings.word_embeddings.weight");
  if ((int64_t)c->vocab_size > words->shape[0])
    return sw_fail("%s: the vocabulary has %zu tokens, the embedding only %lld rows", r->path, c->vocab_size,
                   (long long)words->shape[0]);
  for (size_t i = 0; i < c->num_heads; i++) {
    char name[SW_MAX_NAME + 32], wanted[96], found[96];
    int64_t shape[2] = {(int64_t)c->heads[i].num_labels, words->shape[1]};
    for (int rank = 2; rank >= 1; rank--) {
      snprintf(name, sizeof name, "heads.%s.%s", c->heads[i].name, rank == 2 ? "weight" : "bias");
      sw_shape_text(rank, shape, wanted);
      const sw_tensor *tensor = sw_tensors_find(&c->weights, name);
      if (!tensor) return sw_fail("%s: tensor %s [%s] is missing", r->path, name, wanted);
      sw_shape_text(tensor->rank, tensor->shape, found);
      if (strcmp(wanted, found))
        return sw_fail("%s: tensor %s is [%s], the head asks for [%s]", r->path, name, found, wanted);
    }
  }
  return 0;
}

static int read_content(reader *r) {
  char header[65];
  if (read_header(r, header) || read_json(r, "config", &r->texts.config, &r->out->config) ||
      read_json(r, "training", &r->texts.training, &r->out->training) ||
      read_json(r, "lineage", &r->texts.lineage, &r->out->lineage) || read_tokenizer(r) || read_heads(r) ||
      read_tensors_of(r, "weights", &r->out->weights) || read_tensors_of(r, "optimizer", &r->out->optimizer))
    return -1;
  if (!r->texts.config) return foreign(r, "/config", "missing");
  return check_hashes(r, header) || check_model(r) ? -1 : 0;
}

int sw_checkpoint_read(const char *path, sw_checkpoint *out) {
  reader r = {.path = path, .file = -1, .out = out};
  sw_checkpoint_init(out);
  if (look_at_file(&r)) return -1;
  sw_hdf_enter();
  int status = -1;
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (access >= 0 && H5Pset_file_locking(access, 0, 1) >= 0) r.file = H5Fopen(path, H5F_ACC_RDONLY, access);
  if (r.file < 0) {
    damaged(&r, "the file", "HDF5 cannot open it");
  } else {
    status = look_at_open_file(&r) || read_content(&r) ? -1 : 0;
    H5Fclose(r.file);
  }
  if (access >= 0) H5Pclose(access);
  sw_hdf_leave();
  free(r.texts.config);
  free(r.texts.training);
  free(r.texts.lineage);
  if (status) sw_checkpoint_close(out);
  return status;
}
