#include "tests/support/tensors.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int tensors_add(sw_tensors *out, const char *prefix, const char *name, int rank, const int64_t *shape, const float *data) {
  char full[400];
  snprintf(full, sizeof full, "%s%s", prefix, name);
  sw_tensor *t = sw_tensors_add(out, full, SW_F32, rank, shape);
  if (!t) return -1;
  memcpy(t->data, data, (size_t)sw_tensor_elements(t) * sizeof(float));
  return 0;
}

float *tensors_fetch(sw_stream *stream, const void *memory, sw_dtype dtype, int64_t count) {
  float *values = sw_alloc_array((size_t)count + 1, sizeof *values);
  sw_bf16 *halves = (sw_bf16 *)values;
  if (!values || stream->device->copy_out(stream, values, memory, (size_t)count * sw_dtype_bytes(dtype)) || stream->device->synchronize(stream)) {
    free(values);
    return NULL;
  }
  for (int64_t i = count; dtype == SW_BF16 && i-- > 0;) values[i] = sw_bf16_to_f32(halves[i]); /* from the end: they share the memory */
  return values;
}

int tensors_add_word_rows(sw_stream *stream, const sw_gradients *g, int64_t hidden, float *words) {
  float *rows = tensors_fetch(stream, g->word_rows, SW_F32, g->unique * hidden);
  if (!rows) return -1;
  for (int64_t u = 0; u < g->unique; u++)
    for (int64_t h = 0; h < hidden; h++) words[g->word_ids[u] * hidden + h] += rows[u * hidden + h];
  free(rows);
  return 0;
}

int tensors_add_gradients(sw_stream *stream, const sw_model *model, const sw_gradients *g, const float *words, sw_tensors *out) {
  float *values = tensors_fetch(stream, g->values, SW_F32, (int64_t)model->values_count);
  int status = values ? 0 : -1;
  for (size_t i = 0; i < model->num_parameters && !status; i++) {
    const sw_parameter *p = &model->parameters[i];
    const int64_t shape[4] = {p->shape[0], p->shape[1]};
    float *own = p->sparse_rows && !words ? sw_alloc_array(p->count, sizeof *own) : NULL;
    if (p->sparse_rows && !words) status = own ? tensors_add_word_rows(stream, g, p->shape[1], own) : -1;
    if (!status) status = tensors_add(out, "grad/", p->name, p->rank, shape, !p->sparse_rows ? values + p->offset : own ? own : words);
    free(own);
  }
  free(values);
  return status;
}
