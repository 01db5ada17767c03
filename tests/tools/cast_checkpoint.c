/* tool-cast_checkpoint fp32|bf16 IN.h5 OUT.h5: the same checkpoint with weights of that type. tests/gpu.sh carries bf16, half as large. */
#include "base/error.h"
#include "engine/store/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cast(sw_tensor *t, sw_dtype to) {
  const int64_t n = sw_tensor_elements(t);
  if (t->dtype == to) return 0;
  void *data = sw_alloc_aligned((size_t)n * sw_dtype_bytes(to));
  if (!data) return -1;
  for (int64_t i = 0; i < n; i++) {
    if (to == SW_BF16)
      ((sw_bf16 *)data)[i] = sw_f32_to_bf16(((float *)t->data)[i]);
    else
      ((float *)data)[i] = sw_bf16_to_f32(((sw_bf16 *)t->data)[i]);
  }
  free(t->data);
  t->data = data;
  t->dtype = to;
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 4 || (strcmp(argv[1], "fp32") && strcmp(argv[1], "bf16"))) {
    fprintf(stderr, "usage: %s fp32|bf16 IN.h5 OUT.h5\n", argv[0]);
    return 2;
  }
  sw_checkpoint c;
  int status = sw_checkpoint_read(argv[2], &c);
  for (size_t i = 0; !status && i < c.weights.count; i++) status = cast(&c.weights.items[i], strcmp(argv[1], "bf16") ? SW_F32 : SW_BF16);
  if (!status) status = sw_checkpoint_write(argv[3], &c);
  sw_checkpoint_close(&c);
  if (status) fprintf(stderr, "skillwatch: %s\n", sw_error());
  return status ? 1 : 0;
}
