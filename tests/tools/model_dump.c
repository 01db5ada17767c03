/* For tests/parity/test_model.py: runs a checkpoint on given token ids and writes states, log probabilities, gradients and the losses
 * of some training steps as safetensors.
 * usage: tool-model_dump CHECKPOINT BATCH.json OUT.safetensors STEPS LR [fp32|bf16 [DEVICE]]
 * BATCH.json: {"sequences": [[id, ...], ...], "labels": [[label, ...], ...], "mlm": true|false}: labels of the first head, or with "mlm" of the
 * masked-language-model head, whose log probabilities are those at the labelled tokens */
#include "base/error.h"
#include "engine/learn/optimizer.h"
#include "tests/support/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_batch(const char *path, sw_batch *batch, int32_t **labels, int *mlm) {
  json_t *json = json_load_file(path, 0, NULL), *sequences = json_object_get(json, "sequences");
  size_t n = json_array_size(sequences), total = 0;
  for (size_t i = 0; i < n; i++) total += json_array_size(json_array_get(sequences, i));
  int32_t *ids = sw_alloc_array(total, 4), *cu = sw_alloc_array(n + 1, 4);
  *labels = sw_alloc_array(total, 4);
  size_t at = 0;
  for (size_t i = 0; i < n; i++) {
    json_t *s = json_array_get(sequences, i), *l = json_array_get(json_object_get(json, "labels"), i);
    for (size_t k = 0; k < json_array_size(s); k++, at++) {
      ids[at] = (int32_t)json_integer_value(json_array_get(s, k));
      (*labels)[at] = (int32_t)json_integer_value(json_array_get(l, k));
    }
    cu[i + 1] = (int32_t)at;
    if ((int)json_array_size(s) > batch->max_seqlen) batch->max_seqlen = (int)json_array_size(s);
  }
  *mlm = json_is_true(json_object_get(json, "mlm"));
  json_decref(json);
  batch->batch = (int)n;
  batch->tokens = (int64_t)total;
  batch->ids = ids;
  batch->cu_seqlens = cu;
  return n ? 0 : sw_fail("%s: no batch", path);
}

static int dump(const char *const *argv) {
  sw_checkpoint checkpoint;
  sw_device *device = NULL;
  sw_stream stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  sw_optimizer *optimizer = NULL;
  sw_tensors out = {0};
  sw_batch batch = {0};
  int32_t *labels = NULL, *positions, *masked;
  int mlm = 0;
  const int steps = atoi(argv[4]);
  const double lr = atof(argv[5]);
  const sw_dtype dtype = argv[6] && !strcmp(argv[6], "bf16") ? SW_BF16 : SW_F32;
  sw_optimizer_options options = SW_OPTIMIZER_DEFAULTS;
  sw_checkpoint_init(&checkpoint);
  if (sw_checkpoint_read(argv[1], &checkpoint) || read_batch(argv[2], &batch, &labels, &mlm) || sw_device_open(argv[6] && argv[7] ? argv[7] : "cpu", &device) ||
      sw_stream_open(device, 0, &stream) ||
      (mlm ? sw_model_open_mlm(&stream, &checkpoint, dtype, SW_TRAINING, &model) : sw_model_open(&stream, &checkpoint, dtype, SW_TRAINING, &model)) ||
      sw_run_open(&stream, model, batch.tokens, batch.batch, 1, &run) ||
      sw_optimizer_open(&stream, model, &options, batch.tokens, 1, &optimizer))
    return -1;
  const int64_t n = batch.tokens, h = model->config.hidden_size, c = mlm ? model->config.vocab_size : model->heads[0].num_labels;
  const void *states;
  float *host = sw_alloc_array((size_t)(n * c), sizeof *host), *last;
  float *losses = sw_alloc_array((size_t)steps + 1, sizeof *losses);
  int64_t labelled = 0;
  positions = sw_alloc_array((size_t)n, sizeof *positions);
  masked = sw_alloc_array((size_t)n, sizeof *masked);
  if (!positions || !masked) return -1;
  for (int64_t i = 0; i < n; i++)
    if (labels[i] != -100) {
      positions[labelled] = (int32_t)i;
      masked[labelled++] = labels[i];
    }
  if (!host || !losses || sw_run_forward(run, &batch, &states) || !(last = tensors_fetch(&stream, states, dtype, n * h))) return -1;
  int failed = tensors_add(&out, "", "states", 2, (int64_t[4]){n, h}, last);
  free(last);
  if (failed || (mlm ? sw_run_mlm_log_probs(run, positions, labelled, host) : sw_run_token_log_probs(run, 0, host)) ||
      tensors_add(&out, "", "log_probs", 2, (int64_t[4]){mlm ? labelled : n, c}, host))
    return -1;
  for (int s = 0; s <= steps; s++) {
    sw_gradients *g = sw_optimizer_gradients(optimizer);
    double sums[8] = {0}, norm;
    if (sw_optimizer_refresh(optimizer, batch.ids, n) || sw_run_forward(run, &batch, NULL) ||
        (mlm ? sw_run_mlm_loss(run, positions, masked, labelled, (float)(1.0 / (double)labelled), g)
             : sw_run_token_loss(run, 0, labels, NULL, (float)(1.0 / (double)labelled), 1, g)) ||
        sw_run_backward(run, g) || sw_run_losses(run, sums) ||
        sw_optimizer_collect(optimizer) || sw_optimizer_measure(optimizer) || model->device->synchronize(&stream))
      return -1;
    losses[s] = (float)(sums[0] / (double)labelled);
    if (s == 0 && tensors_add_gradients(&stream, model, g, NULL, &out)) return -1;
    if (sw_optimizer_step(optimizer, lr, &norm)) return -1;
  }
  if (tensors_add(&out, "", "losses", 1, (int64_t[4]){steps + 1}, losses) || sw_safetensors_write(argv[3], &out)) return -1;
  free(host);
  free(losses);
  free(labels);
  free(positions);
  free(masked);
  free((void *)batch.ids);
  free((void *)batch.cu_seqlens);
  sw_tensors_close(&out);
  sw_optimizer_close(optimizer);
  sw_run_close(run);
  sw_model_close(model);
  sw_device_close(device);
  sw_checkpoint_close(&checkpoint);
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 6) return fprintf(stderr, "usage: tool-model_dump CHECKPOINT BATCH.json OUT.safetensors STEPS LR [fp32|bf16 [DEVICE]]\n"), 2;
  if (dump((const char *const *)argv)) return fprintf(stderr, "%s\n", sw_error()), 1;
  return 0;
}
