/* Shared by checkpoint_read.c and checkpoint_write.c: names of the file format, the lock around HDF5, and the content
 * hash. */
#ifndef SW_STORE_HDF_H
#define SW_STORE_HDF_H
#include "engine/store/checkpoint.h"
#ifndef H5_USE_110_API
#define H5_USE_110_API /* HDF5 1.12 and later keep the functions of 1.10 under their old names with this */
#endif
#include <hdf5.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoints are hashed as they lie in memory, which must be little-endian"
#endif

enum {
  SW_CHECKPOINT_VERSION = 1,
  SW_MAX_NAME = 512,        /* bytes of a tensor's, head's or label's name */
  SW_MAX_JSON = 64 << 20,   /* bytes of one JSON text */
  SW_MAX_TOKEN = 1024,      /* bytes of one token of the vocabulary */
  SW_MAX_OBJECTS = 1 << 16, /* tensors, heads, labels of a head */
  SW_CHUNK_BYTES = 1 << 20, /* datasets are cut into chunks of at most about this size, one checksum each */
};

/* HDF5 may be built without thread safety, so one lock is held around every use of it. Entering also silences the error
 * stack that HDF5 prints on its own: our callers print one line. */
void sw_hdf_enter(void);
void sw_hdf_leave(void);
/* The innermost message of HDF5's error stack, for "why"; `text` is emptied where there is none. */
void sw_hdf_reason(char text[160]);

/* A new file, whose root group keeps no times: the same content, the same bytes. Negative on failure. */
hid_t sw_hdf_create(const char *path, hid_t access);

/* The tokenizer's options as integer attributes of /tokenizer/vocab, in the order of their names. */
enum { SW_TOKENIZER_ATTRIBUTES = 6 };
typedef struct {
  const char *name;
  size_t offset; /* of the int in sw_tokenizer_options */
} sw_tokenizer_attribute;
extern const sw_tokenizer_attribute sw_tokenizer_attributes[SW_TOKENIZER_ATTRIBUTES];

/* The JSON texts as they lie in the file; NULL = absent. */
typedef struct {
  char *config, *training, *lineage;
} sw_checkpoint_texts;

/* SHA-256 over the content as checkpoints/README.md defines it, in hexadecimal. */
int sw_checkpoint_hash(const sw_checkpoint *checkpoint, const sw_checkpoint_texts *texts, char hex[65]);
/* SHA-256 over the attributes that the content hash leaves out (created, tool_version) and the content hash. */
int sw_checkpoint_header_hash(const sw_checkpoint *checkpoint, char hex[65]);
#endif
