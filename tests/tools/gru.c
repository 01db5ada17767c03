/* For tests/parity/test_gru.py: runs the GRU's operators forward and backward on given tensors, in fp32.
 * usage: tool-gru DEVICE IN.safetensors OUT.safetensors REVERSE LENGTH...
 * IN: gates [total, 3 * hidden], weight, bias, initial [batch, hidden], dy [total, hidden]; OUT: y, gates and initial (now their
 * gradients), weight, bias (gradients). */
#include "base/error.h"
#include "engine/store/safetensors.h"
#include "kernels/backend.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 256 };
static sw_device *device;
static sw_stream stream;

/* Device memory with these bytes, or zeros; kept until the program ends. */
static void *upload(const void *host, size_t bytes) {
  void *memory = device->alloc(device, bytes);
  if (!memory || (host ? device->copy_in(&stream, memory, host, bytes) : device->zero(&stream, memory, bytes))) return NULL;
  return memory;
}
static float *tensor(const sw_tensors *in, const char *name, int64_t elements) {
  const sw_tensor *t = sw_tensors_find(in, name);
  if (!t || t->dtype != SW_F32 || sw_tensor_elements(t) != elements) {
    sw_fail("%s: fp32, %lld elements are wanted", name, (long long)elements);
    return NULL;
  }
  return upload(t->data, (size_t)elements * sizeof(float));
}
static int output(sw_tensors *out, const char *name, const float *memory, int64_t elements) {
  sw_tensor *t = sw_tensors_add(out, name, SW_F32, 1, &elements);
  return t ? device->copy_out(&stream, t->data, memory, (size_t)elements * sizeof(float)) : -1;
}

static int run(int argc, char **argv) {
  int32_t cu[MOST + 1] = {0};
  sw_tensors in = {0}, out = {0};
  sw_gru_desc d = {.batch = argc - 5, .reverse = atoi(argv[4]), .dtype = SW_F32};
  for (int i = 0; i < d.batch; i++) cu[i + 1] = cu[i] + (int32_t)atoi(argv[5 + i]);
  d.total_tokens = cu[d.batch];
  if (sw_device_open(argv[1], &device) || sw_stream_open(device, 2, &stream) || sw_safetensors_read(argv[2], &in)) return -1;
  const sw_tensor *biases = sw_tensors_find(&in, "bias");
  d.hidden = biases ? (int)(sw_tensor_elements(biases) / 3) : 0;
  size_t bytes;
  if (SW_RUN(&stream, gru_workspace, &d, &bytes)) return -1;
  const int64_t hidden = d.hidden, states = d.total_tokens * hidden, initials = d.batch * hidden;
  const int32_t *cu_seqlens = upload(cu, sizeof cu);
  float *gates = tensor(&in, "gates", 3 * states), *weight = tensor(&in, "weight", 3 * hidden * hidden), *bias = tensor(&in, "bias", 3 * hidden),
        *initial = tensor(&in, "initial", initials), *dy = tensor(&in, "dy", states);
  float *y = upload(NULL, (size_t)states * 4), *saved = upload(NULL, (size_t)states * 4), *dweight = upload(NULL, (size_t)(3 * hidden * hidden) * 4),
        *dbias = upload(NULL, (size_t)(3 * hidden) * 4), *dinitial = upload(NULL, (size_t)initials * 4);
  void *workspace = upload(NULL, bytes);
  if (!cu_seqlens || !gates || !weight || !bias || !initial || !dy || !y || !saved || !dweight || !dbias || !dinitial || !workspace) return -1;
  if (SW_RUN(&stream, gru_forward, &d, cu_seqlens, gates, weight, bias, initial, y, saved, workspace) ||
      SW_RUN(&stream, gru_backward, &d, cu_seqlens, gates, saved, weight, initial, y, dy, dweight, dbias, dinitial, workspace) ||
      output(&out, "y", y, states) || output(&out, "gates", gates, 3 * states) || output(&out, "initial", dinitial, initials) ||
      output(&out, "weight", dweight, 3 * hidden * hidden) || output(&out, "bias", dbias, 3 * hidden) || device->synchronize(&stream))
    return -1;
  const int status = sw_safetensors_write(argv[3], &out);
  void *memory[] = {(void *)cu_seqlens, gates, weight, bias, initial, dy, y, saved, dweight, dbias, dinitial, workspace};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) device->release(device, memory[i]);
  sw_tensors_close(&in);
  sw_tensors_close(&out);
  sw_device_close(device);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 6 || argc > MOST + 5) return fprintf(stderr, "usage: tool-gru DEVICE IN.safetensors OUT.safetensors REVERSE LENGTH...\n"), 2;
  if (run(argc, argv)) return fprintf(stderr, "%s\n", sw_error()), 1;
  return 0;
}
