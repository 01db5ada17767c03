/* What the programs that Python tests run (tests/tools: model_dump.c and its like) write: device memory as named fp32 tensors. */
#ifndef SW_TESTS_TENSORS_H
#define SW_TESTS_TENSORS_H
#include "engine/model/model.h"
#include "engine/store/safetensors.h"

/* A copy of `data` as the tensor <prefix><name>. */
int tensors_add(sw_tensors *out, const char *prefix, const char *name, int rank, const int64_t *shape, const float *data);
/* Device memory in fp32 on the host; free() it. */
float *tensors_fetch(sw_stream *stream, const void *memory, sw_dtype dtype, int64_t count);
/* words (host) [vocabulary, hidden] += the word table's gradient of one backward, which has a row for each distinct id. */
int tensors_add_word_rows(sw_stream *stream, const sw_gradients *gradients, int64_t hidden, float *words);
/* Every parameter's gradient as grad/<name>. words: the word table's where it has rows of its own, or NULL: those of `gradients`. */
int tensors_add_gradients(sw_stream *stream, const sw_model *model, const sw_gradients *gradients, const float *words, sw_tensors *out);
#endif
