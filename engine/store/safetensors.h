/* safetensors: 8-byte little-endian header length, JSON header, raw data. Every size in the header is checked before
 * use. https://huggingface.co/docs/safetensors */
#ifndef SW_STORE_SAFETENSORS_H
#define SW_STORE_SAFETENSORS_H
#include "engine/store/checkpoint.h"

/* Gives the next `bytes` bytes of a source that is read from front to back; 0 or -1. */
typedef int (*sw_fetch)(void *source, void *out, size_t bytes);

/* F32 and BF16 are kept, F16 and F64 become F32; integer tensors (position_ids) are left out. `what` names the source
 * in messages. */
int sw_safetensors_parse(const void *data, size_t bytes, const char *what, sw_tensors *out);
int sw_safetensors_read(const char *path, sw_tensors *out);
/* From a stream of `bytes` bytes in all, read once from front to back. */
int sw_safetensors_stream(sw_fetch fetch, void *source, uint64_t bytes, const char *what, sw_tensors *out);
/* All three append to `out`; on failure it may hold a part, the caller closes it. The file has tensors in the order of
 * their data. Writing is atomic. */
int sw_safetensors_write(const char *path, const sw_tensors *tensors);
#endif
