/* Any bytes as a safetensors file: parsed or refused with a message; memory follows the size of the file, not its
 * claims. */
#include "base/buffer.h"
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
    for (uint64_t k = 0; k < elements * width; k++)
      (void)((volatile char *)tensors.items[i].data)[k]; /* all of it is there */
  }
  if (bytes > 2 * size) abort(); /* float16 becomes float32 */
  sw_tensors_close(&tensors);
  return status;
}

/* A header made of nearly right entries: most of them fit, so that what lies behind the first check is reached too. */
static void by_entries(const uint8_t *data, size_t size) {
  static const char *const dtypes[] = {"F32", "BF16", "F16", "F64", "I64", "BOOL", "F8_E5M2", "f32"};
  static const unsigned widths[] = {4, 2, 2, 8, 8, 1, 1, 4};
  sw_buffer file = {0};
  uint64_t at = 0;
  if (sw_buffer_append(&file, "01234567{", 9)) return;
  for (int i = 0; size >= 6 && i < 40; i++, data += 6, size -= 6) {
    unsigned dtype = data[0] % 8, rank = data[1] % 6, dim = data[2] % 5;
    uint64_t bytes = widths[dtype];
    sw_buffer_print(&file, "%s\"t%u\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", data[3] % 64, dtypes[dtype]);
    for (unsigned k = 0; k < rank; k++, bytes *= dim) sw_buffer_print(&file, "%s%u", k ? "," : "", dim);
    long long begin = (long long)at + (data[4] < 8 ? data[4] - 4 : 0),
              end = (long long)(at + bytes) + (data[5] < 8 ? data[5] - 4 : 0);
    sw_buffer_print(&file, "],\"data_offsets\":[%lld,%lld]}", begin, end);
    at += bytes;
  }
  sw_buffer_print(&file, "}");
  uint64_t length = file.size - 8;
  for (int i = 0; i < 8; i++) file.data[i] = (char)(length >> 8 * i);
  for (uint64_t i = 0; i < at && i < 1 << 20; i++)
    if (sw_buffer_append(&file, "\x7c", 1)) break;
  by_header((const uint8_t *)file.data, file.size);
  sw_buffer_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  by_header(data, size);
  by_entries(data, size);
  /* the same bytes as header text and data, with a length prefix that is right: more of them get past the first check
   */
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
