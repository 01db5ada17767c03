/* Any bytes as a safetensors file: parsed or refused with a message; memory follows the size of the file, not its claims. */
#include "base/error.h"
#include "engine/store/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int by_header(const uint8_t *data, size_t size) {
  sw_tensors tensors = {0};
  int status = sw_safetensors_parse(data, size, "fuzz", &tensors);
  if (status && !sw_error()[0]) abort();
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.count; i++) {
    uint64_t elements = (uint64_t)sw_tensor_elements(&tensors.items[i]), width = sw_dtype_bytes(tensors.items[i].dtype);
    bytes += elements * width;
    for (uint64_t k = 0; k < elements * width; k++) (void)((volatile char *)tensors.items[i].data)[k]; /* all of it is there */
  }
  if (bytes > 2 * size) abort(); /* float16 becomes float32 */
  sw_tensors_close(&tensors);
  return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  by_header(data, size);
  /* the same bytes as header text and data, with a length prefix that is right: more of them get past the first check */
  const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
  uint64_t length = end ? (uint64_t)(end - data) : size;
  uint8_t *file = malloc(8 + size);
  if (!file) return 0;
  for (int i = 0; i < 8; i++) file[i] = (uint8_t)(length >> 8 * i);
  if (size) memcpy(file + 8, data, size);
  by_header(file, 8 + size);
  free(file);
  return 0;
}
