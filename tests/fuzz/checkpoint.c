/* Files that pretend to be checkpoints: read or refused with a message. An even first byte: the rest is the file. An
 * odd one: the rest tells what to put into a proper HDF5 file with the HDF5 library, so that the odd types, shapes,
 * links and filters get past its checksums. */
#include "base/error.h"
#include "engine/store/hdf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
  return "leak:libhdf5";
} /* it loses memory of its own on damaged headers */

typedef struct {
  const uint8_t *data;
  size_t size;
} input;

static unsigned take(input *in) {
  if (!in->size) return 0;
  in->size--;
  return *in->data++;
}

static const char *const places[] = {"config",         "training",  "lineage",         "weights/a",   "weights/b/c",
                                     "weights",        "tokenizer", "tokenizer/vocab", "heads",       "heads/h",
                                     "heads/h/labels", "optimizer", "optimizer/m/a",   "optimizer/v", "other"};
static const char *const attributes[] = {"format",
                                         "version",
                                         "kind",
                                         "created",
                                         "tool_version",
                                         "content_sha256",
                                         "header_sha256",
                                         "parent_sha256",
                                         "dtype",
                                         "task",
                                         "clean_text",
                                         "do_lower_case",
                                         "max_chars_per_word",
                                         "model_max_length",
                                         "strip_accents",
                                         "tokenize_chinese_chars"};
static const char *const texts[] = {"skillwatch",
                                    "bfloat16",
                                    "{}",
                                    "[]",
                                    "{\"model_type\":\"bert\",\"vocab_size\":2}",
                                    "",
                                    "token",
                                    "x",
                                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                                    "{\"model_type\":\"distilbert\",\"dim\":4294967296}"};
#define PICK(in, list) list[take(in) % (sizeof list / sizeof *list)]

static hid_t make_type(input *in, size_t *bytes) {
  hid_t text;
  *bytes = 8;
  switch (take(in) % 9) {
  case 0:
    return H5Tcopy(H5T_IEEE_F32LE);
  case 1:
    return H5Tcopy(H5T_STD_U16LE);
  case 2:
    return H5Tcopy(H5T_STD_I32LE);
  case 3:
    return H5Tcopy(H5T_IEEE_F64BE);
  case 4:
    return H5Tvlen_create(H5T_NATIVE_INT);
  case 5:
    text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    return text;
  case 6:
    return H5Tcopy(H5T_STD_REF_OBJ);
  default:
    text = H5Tcopy(H5T_C_S1);
    *bytes = 1 + take(in);
    H5Tset_size(text, *bytes);
    H5Tset_strpad(text, take(in) % 2 ? H5T_STR_NULLPAD : H5T_STR_SPACEPAD);
    return text;
  }
}

static hid_t make_space(input *in, hsize_t dims[4], int *rank) {
  *rank = (int)(take(in) % 5);
  if (!*rank) return H5Screate(take(in) % 2 ? H5S_SCALAR : H5S_NULL);
  for (int i = 0; i < *rank; i++) {
    dims[i] = take(in) % 9;
    if (take(in) % 16 == 0) dims[i] = (hsize_t)1 << take(in) % 63; /* never written, only claimed */
  }
  return H5Screate_simple(*rank, dims, NULL);
}

static void make_dataset(input *in, hid_t file) {
  hsize_t dims[4] = {0}, chunk[4];
  int rank;
  size_t bytes;
  const char *place = PICK(in, places), *text = PICK(in, texts);
  hid_t type = make_type(in, &bytes), space = make_space(in, dims, &rank), create = H5Pcreate(H5P_DATASET_CREATE),
        links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  unsigned how = take(in);
  uint64_t elements = 1;
  for (int i = 0; i < rank; i++) {
    chunk[i] = dims[i] && dims[i] < 64 ? dims[i] : 8;
    if (__builtin_mul_overflow(elements, dims[i], &elements)) elements = UINT64_MAX;
  }
  if (rank && how % 8 < 7) H5Pset_chunk(create, rank, chunk);
  if (rank && how % 8 < 6) H5Pset_fletcher32(create);
  if (rank && how % 8 == 5) H5Pset_deflate(create, 1);
  hid_t set = H5Dcreate2(file, place, type, space, links, create, H5P_DEFAULT);
  if (set >= 0 && elements <= 4096 && bytes > 1) {
    char *data = calloc(elements ? elements : 1, bytes < 8 ? 8 : bytes);
    if (data && H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 && elements)
      memcpy(data, text, strlen(text) < bytes ? strlen(text) : bytes);
    if (data && H5Tget_class(type) != H5T_VLEN && H5Tis_variable_str(type) <= 0)
      H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    free(data);
  }
  if (set >= 0) H5Dclose(set);
  H5Pclose(links);
  H5Pclose(create);
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
}

static void make_attribute(input *in, hid_t file) {
  const char *place = take(in) % 3 ? "/" : PICK(in, places), *name = PICK(in, attributes), *text = PICK(in, texts);
  size_t bytes;
  char value[512] = {0};
  hid_t type = make_type(in, &bytes), space = H5Screate(H5S_SCALAR), object = H5Oopen(file, place, H5P_DEFAULT);
  hid_t attribute = object < 0 ? -1 : H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  if (attribute >= 0 && H5Tget_class(type) != H5T_VLEN && H5Tis_variable_str(type) <= 0) {
    if (H5Tget_class(type) == H5T_STRING)
      memcpy(value, text, strlen(text) < bytes ? strlen(text) : bytes);
    else
      value[0] = (char)take(in);
    H5Awrite(attribute, type, value);
  }
  if (attribute >= 0) H5Aclose(attribute);
  if (object >= 0) H5Oclose(object);
  H5Sclose(space);
  if (type >= 0) H5Tclose(type);
}

static void make_link(input *in, hid_t file) {
  const char *from = PICK(in, places), *to = PICK(in, places);
  switch (take(in) % 4) {
  case 0:
    H5Lcreate_soft(to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    break;
  case 1:
    H5Lcreate_external("/etc/passwd", to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    break;
  case 2:
    H5Lcreate_hard(file, to, file, from, H5P_DEFAULT, H5P_DEFAULT);
    break;
  default: {
    hid_t group = H5Gcreate2(file, from, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group >= 0) H5Gclose(group);
  }
  }
}

/* The attributes that every checkpoint has, so that most inputs come to what lies behind them. */
static void make_header(hid_t file) {
  static const char *const names[] = {"format",         "kind",          "created",      "tool_version",
                                      "content_sha256", "header_sha256", "parent_sha256"};
  hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, 64);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char value[64] = "skillwatch";
    hid_t attribute = H5Acreate2(file, names[i], type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (i == 2 || i == 3) {
      H5Adelete(file, names[i]);
      H5Tset_size(type, 16);
      if (attribute >= 0) H5Aclose(attribute);
      attribute = H5Acreate2(file, names[i], type, space, H5P_DEFAULT, H5P_DEFAULT);
      H5Tset_size(type, 64);
    }
    if (attribute < 0) continue;
    hid_t own = H5Aget_type(attribute);
    H5Awrite(attribute, own, value);
    H5Tclose(own);
    H5Aclose(attribute);
  }
  hid_t version = H5Acreate2(file, "version", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
  int one = 1;
  H5Awrite(version, H5T_NATIVE_INT, &one);
  H5Aclose(version);
  H5Sclose(space);
  H5Tclose(type);
}

static void make_file(input in, const char *path) {
  sw_hdf_enter();
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
  H5Pclose(access);
  if (file >= 0) {
    if (take(&in) % 8) make_header(file);
    for (int i = 0; i < 24 && in.size; i++) {
      unsigned what = take(&in) % 4;
      if (what < 2)
        make_dataset(&in, file);
      else if (what == 2)
        make_attribute(&in, file);
      else
        make_link(&in, file);
    }
    H5Fclose(file);
  }
  sw_hdf_leave();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/sw-fuzz-%d.h5", (int)getpid());
  if (!size) return 0;
  if (data[0] % 2) {
    make_file((input){data + 1, size - 1}, path);
  } else {
    FILE *file = fopen(path, "wb");
    if (!file) abort();
    fwrite(data + 1, 1, size - 1, file);
    fclose(file);
  }
  sw_checkpoint c;
  int status = sw_checkpoint_read(path, &c);
  if (status && !sw_error()[0]) abort();
  sw_checkpoint_close(&c);
  unlink(path);
  return 0;
}
