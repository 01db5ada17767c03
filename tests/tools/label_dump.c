/* For tests/parity/test_multilabel.py. "run" runs a multilabel checkpoint on given ids and writes logits, gradients and the losses of some
 * training steps; "associations" and "stems" print what the engine's functions give.
 * usage: tool-label_dump run CHECKPOINT BATCH.json OUT.safetensors STEPS LR DEVICE
 *        tool-label_dump init OUT.h5 VOCABULARY EMBEDDING CELLS LABELS
 *        tool-label_dump associations N00 N01 N10 N11     pearson, spearman and cramer of a table of counts
 *        tool-label_dump stems WORD...                    their stems, a line each */
#include "base/error.h"
#include "engine/learn/label_reduction.h"
#include "engine/learn/optimizer.h"
#include "engine/model/gru.h"
#include "tests/support/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* {"sequences": [[id, ...], ...], "targets": [[0 or 1, ...], ...], "weights": the same or null} */
static int read_batch(const char *path, int labels, sw_batch *batch, float **targets, float **weights) {
  json_t *json = json_load_file(path, 0, NULL), *sequences = json_object_get(json, "sequences"), *sequence, *id;
  const json_t *wanted = json_object_get(json, "targets"), *weighted = json_object_get(json, "weights");
  size_t total = 0, i, k;
  json_array_foreach(sequences, i, sequence) total += json_array_size(sequence);
  int32_t *ids = sw_alloc_array(total, sizeof *ids), *cu = sw_alloc_array(json_array_size(sequences) + 1, sizeof *cu);
  *targets = sw_alloc_array(json_array_size(sequences), (size_t)labels * sizeof **targets);
  *weights = json_is_array(weighted) ? sw_alloc_array(json_array_size(sequences), (size_t)labels * sizeof **weights) : NULL;
  if (!total || !ids || !cu || !*targets) return sw_fail("%s: no batch", path);
  json_array_foreach(sequences, i, sequence) {
    json_array_foreach(sequence, k, id) ids[batch->tokens++] = (int32_t)json_integer_value(id);
    cu[i + 1] = (int32_t)batch->tokens;
    if ((int)json_array_size(sequence) > batch->max_seqlen) batch->max_seqlen = (int)json_array_size(sequence);
    for (size_t l = 0; l < (size_t)labels; l++) {
      (*targets)[i * (size_t)labels + l] = (float)json_number_value(json_array_get(json_array_get(wanted, i), l));
      if (*weights) (*weights)[i * (size_t)labels + l] = (float)json_number_value(json_array_get(json_array_get(weighted, i), l));
    }
  }
  batch->batch = (int)json_array_size(sequences);
  batch->ids = ids;
  batch->cu_seqlens = cu;
  json_decref(json);
  return 0;
}

static int run(char **argv) {
  sw_checkpoint checkpoint;
  sw_device *device = NULL;
  sw_stream stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  sw_optimizer *optimizer = NULL;
  sw_tensors out = {0};
  sw_batch batch = {0};
  float *targets, *weights;
  const int steps = atoi(argv[3]);
  sw_optimizer_options options = SW_OPTIMIZER_DEFAULTS;
  if (sw_checkpoint_read(argv[0], &checkpoint) || sw_device_open(argv[5], &device) || sw_stream_open(device, 0, &stream) ||
      sw_model_open(&stream, &checkpoint, SW_F32, SW_TRAINING, &model) || read_batch(argv[1], model->heads[0].num_labels, &batch, &targets, &weights) ||
      sw_run_open(&stream, model, batch.tokens, batch.batch, 1, &run) || sw_optimizer_open(&stream, model, &options, batch.tokens, 1, &optimizer))
    return -1;
  const int64_t shape[4] = {batch.batch, model->heads[0].num_labels};
  const float scale = 1 / ((float)shape[0] * (float)shape[1]);
  float *logits = sw_alloc_array((size_t)(shape[0] * shape[1]), sizeof *logits), *losses = sw_alloc_array((size_t)steps + 1, sizeof *losses);
  if (!logits || !losses || sw_run_forward(run, &batch, NULL) || sw_run_label_logits(run, 0, logits) || tensors_add(&out, "", "logits", 2, shape, logits))
    return -1;
  for (int s = 0; s <= steps; s++) {
    sw_gradients *g = sw_optimizer_gradients(optimizer);
    double loss[2] = {0}, norm;
    if (sw_optimizer_refresh(optimizer, batch.ids, batch.tokens) || sw_run_forward(run, &batch, NULL) ||
        sw_run_label_loss(run, 0, targets, weights, scale, 1, g) || sw_run_backward(run, g) || sw_run_losses(run, loss) ||
        sw_optimizer_collect(optimizer) || sw_optimizer_measure(optimizer) || model->device->synchronize(&stream))
      return -1;
    losses[s] = (float)(loss[0] * (double)scale);
    if (s == 0 && tensors_add_gradients(&stream, model, g, NULL, &out)) return -1;
    if (sw_optimizer_step(optimizer, atof(argv[4]), &norm)) return -1;
  }
  if (tensors_add(&out, "", "losses", 1, (int64_t[4]){steps + 1}, losses) || sw_safetensors_write(argv[2], &out)) return -1;
  free(logits);
  free(losses);
  free(targets);
  free(weights);
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

static int init(char **argv) {
  sw_checkpoint c;
  char names[64][16];
  const char *labels[64];
  const int count = atoi(argv[4]) < 64 ? atoi(argv[4]) : 64;
  for (int i = 0; i < count; i++) {
    snprintf(names[i], sizeof names[i], "label %d", i);
    labels[i] = names[i];
  }
  sw_checkpoint_init(&c);
  int status = (c.kind = sw_strdup("multilabel")) && !sw_gru_init(&c, atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), 64, 0, "labels", labels, (size_t)count, 3)
                   ? sw_checkpoint_write(argv[0], &c)
                   : -1;
  sw_checkpoint_close(&c);
  return status;
}

static int associations(char **argv) {
  uint64_t counts[4];
  for (int i = 0; i < 4; i++) counts[i] = strtoull(argv[i], NULL, 10);
  printf("%.17g %.17g %.17g\n", sw_association_of(SW_PEARSON, counts), sw_association_of(SW_SPEARMAN, counts), sw_association_of(SW_CRAMER, counts));
  return 0;
}

static int stems(int count, char **words) {
  sw_stems *s;
  const char *const *vocab;
  size_t found;
  for (int i = 0; i < count; i++) {
    if (sw_stems_open(SW_STEM_ALGORITHM, NULL, 0, NULL, NULL, 0, &s) || sw_stems_count(s, words[i], strlen(words[i])) ||
        sw_stems_vocabulary(s, 1, 2, &vocab, &found))
      return -1;
    puts(found == 2 ? vocab[1] : "");
    sw_stems_close(s);
  }
  return 0;
}

int main(int argc, char **argv) {
  int status;
  if (argc == 8 && !strcmp(argv[1], "run"))
    status = run(argv + 2);
  else if (argc == 7 && !strcmp(argv[1], "init"))
    status = init(argv + 2);
  else if (argc == 6 && !strcmp(argv[1], "associations"))
    status = associations(argv + 2);
  else if (argc > 1 && !strcmp(argv[1], "stems"))
    status = stems(argc - 2, argv + 2);
  else
    return fprintf(stderr, "usage: tool-label_dump run|init|associations|stems ...\n"), 2;
  if (status) fprintf(stderr, "%s\n", sw_error());
  return status ? 1 : 0;
}
