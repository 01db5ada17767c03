/* For tests/parity/test_model.py and test_pooled.py: runs a checkpoint on given token ids and writes states, gradients and the losses of
 * some training steps as safetensors; for a token head log probabilities, too.
 * usage: tool-model_dump CHECKPOINT BATCH.json OUT.safetensors STEPS LR [fp32|bf16 [DEVICE]]
 * BATCH.json: {"sequences": [[id, ...], ...]} and
 *   "labels": [[label, ...], ...]                for the first head, or
 *   "queries": n, "positive": [i, ...], "parts": p    the first n sequences are queries, the others candidates, of which each query has one
 *                                                positive; they go through the encoder in so many parts (default 1), or
 *   "heads": [{"name", "task", "weight": [[x]], "bias": [x], "labels": [label of each sequence] or "targets": [[x]], "weights": [[x]] of the targets or none}]
 *                                                the loss is the sum of their means */
#include "base/error.h"
#include "engine/data/labels.h"
#include "engine/learn/optimizer.h"
#include "tests/support/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float similarity_scale = 20;

typedef struct {
  json_t *json;
  sw_batch batch;
  int32_t *labels;   /* [tokens], or each query's positive */
  int queries, parts; /* 0: no pairs */
  double weight;     /* labelled tokens or queries: the loss is the mean over them */
  int64_t hidden;
  sw_pair_vectors *vectors;
  json_t *heads; /* on one vector a sequence; NULL: none */
} job;

static int32_t *read_numbers(const json_t *array, size_t room) {
  int32_t *numbers = sw_alloc_array(room + 1, sizeof *numbers);
  for (size_t i = 0; numbers && i < json_array_size(array) && i < room; i++) numbers[i] = (int32_t)json_integer_value(json_array_get(array, i));
  return numbers;
}

/* The sequences [first, last) of the file, as a packed batch; its arrays are to be freed. */
static int pack(const json_t *sequences, size_t first, size_t last, sw_batch *batch) {
  size_t total = 0;
  for (size_t i = first; i < last; i++) total += json_array_size(json_array_get(sequences, i));
  int32_t *ids = sw_alloc_array((size_t)batch->tokens + total, 4), *cu = sw_alloc_array((size_t)batch->batch + last - first + 1, 4);
  if (!ids || !cu) return -1;
  if (batch->batch) {
    memcpy(ids, batch->ids, (size_t)batch->tokens * 4);
    memcpy(cu, batch->cu_seqlens, ((size_t)batch->batch + 1) * 4);
    free((void *)batch->ids);
    free((void *)batch->cu_seqlens);
  }
  for (size_t i = first; i < last; i++) {
    const json_t *s = json_array_get(sequences, i);
    for (size_t k = 0; k < json_array_size(s); k++) ids[batch->tokens++] = (int32_t)json_integer_value(json_array_get(s, k));
    cu[++batch->batch] = (int32_t)batch->tokens;
    if ((int)json_array_size(s) > batch->max_seqlen) batch->max_seqlen = (int)json_array_size(s);
  }
  batch->ids = ids;
  batch->cu_seqlens = cu;
  return 0;
}

static float *read_reals(const json_t *array, size_t *count) {
  const json_t *value, *one;
  size_t i, k, n = 0;
  json_array_foreach(array, i, value) n += json_is_array(value) ? json_array_size(value) : 1;
  float *reals = sw_alloc_array(n + 1, sizeof *reals);
  if (!reals) return NULL;
  *count = 0;
  json_array_foreach(array, i, value) {
    if (!json_is_array(value)) reals[(*count)++] = (float)json_number_value(value);
    json_array_foreach(value, k, one) reals[(*count)++] = (float)json_number_value(one);
  }
  return reals;
}

/* The heads of the file in place of the checkpoint's. */
static int add_heads(const job *j, sw_checkpoint *c) {
  const json_t *head;
  size_t i;
  json_array_foreach(j->heads, i, head) {
    const char *name = json_string_value(json_object_get(head, "name")), *labels[64];
    char tensor[100];
    size_t bias_count, weight_count;
    float *parts[2] = {read_reals(json_object_get(head, "weight"), &weight_count), read_reals(json_object_get(head, "bias"), &bias_count)};
    for (size_t k = 0; k < 64; k++) labels[k] = "some";
    if (!parts[0] || !parts[1] || bias_count > 64 || sw_checkpoint_add_head(c, name, json_string_value(json_object_get(head, "task")), labels, bias_count))
      return -1;
    for (int k = 0; k < 2; k++) {
      const int64_t shape[4] = {(int64_t)bias_count, (int64_t)(weight_count / bias_count)};
      snprintf(tensor, sizeof tensor, "heads.%s.%s", name, k ? "bias" : "weight");
      sw_tensor *t = sw_tensors_add(&c->weights, tensor, SW_F32, k ? 1 : 2, shape);
      if (!t) return -1;
      memcpy(t->data, parts[k], (size_t)sw_tensor_elements(t) * sizeof(float));
      free(parts[k]);
    }
  }
  return 0;
}

static int read_job(const char *path, job *j) {
  j->json = json_load_file(path, 0, NULL);
  const json_t *sequences = json_object_get(j->json, "sequences"), *labels = json_object_get(j->json, "labels");
  const size_t n = json_array_size(sequences);
  if (!n || pack(sequences, 0, n, &j->batch)) return sw_fail("%s: no batch", path);
  if ((j->queries = (int)json_integer_value(json_object_get(j->json, "queries")))) {
    j->parts = (int)json_integer_value(json_object_get(j->json, "parts"));
    if (j->parts < 1) j->parts = 1;
    j->labels = read_numbers(json_object_get(j->json, "positive"), (size_t)j->queries);
    j->weight = j->queries;
    return j->labels ? 0 : -1;
  }
  j->weight = 1;
  if ((j->heads = json_object_get(j->json, "heads"))) return 0;
  j->weight = 0;
  if (!(j->labels = sw_alloc_array((size_t)j->batch.tokens, 4))) return -1;
  for (size_t i = 0; i < n; i++) {
    const int32_t at = j->batch.cu_seqlens[i], length = j->batch.cu_seqlens[i + 1] - at;
    int32_t *row = read_numbers(json_array_get(labels, i), (size_t)length);
    if (!row) return -1;
    memcpy(j->labels + at, row, (size_t)length * 4);
    free(row);
  }
  for (int64_t i = 0; i < j->batch.tokens; i++) j->weight += j->labels[i] != SW_IGNORE;
  return 0;
}

static int token_step(job *j, sw_stream *stream, sw_run *run, sw_optimizer *optimizer, float *words) {
  sw_gradients *g = sw_optimizer_gradients(optimizer);
  return sw_run_forward(run, &j->batch, NULL) || sw_run_token_loss(run, 0, j->labels, NULL, (float)(1 / j->weight), 1, g) ||
                 sw_run_backward(run, g) || tensors_add_word_rows(stream, g, j->hidden, words) || sw_optimizer_collect(optimizer)
             ? -1
             : 0;
}

static int sequence_step(job *j, sw_stream *stream, sw_run *run, sw_optimizer *optimizer, float *words) {
  sw_gradients *g = sw_optimizer_gradients(optimizer);
  const json_t *head;
  size_t i, n, weighted;
  if (sw_run_forward(run, &j->batch, NULL)) return -1;
  json_array_foreach(j->heads, i, head) {
    int32_t *labels = read_numbers(json_object_get(head, "labels"), (size_t)j->batch.batch);
    float *targets = read_reals(json_object_get(head, "targets"), &n), *weights = read_reals(json_object_get(head, "weights"), &weighted);
    const double rows = n ? (double)n : j->batch.batch;
    int status = !labels || !targets || !weights ||
                 sw_run_sequence_loss(run, i, n ? NULL : labels, n ? targets : NULL, weighted ? weights : NULL, (float)(1 / rows), i == 0, g);
    free(labels);
    free(targets);
    free(weights);
    if (status) return -1;
  }
  return sw_run_backward(run, g) || tensors_add_word_rows(stream, g, j->hidden, words) || sw_optimizer_collect(optimizer) ? -1 : 0;
}

/* The sum of the means over what each loss was summed over. */
static double mean_loss(const job *j, const double *sums, size_t num_heads) {
  double loss = 0;
  const json_t *head;
  size_t i, n;
  json_array_foreach(j->heads, i, head) {
    float *targets = read_reals(json_object_get(head, "targets"), &n);
    loss += sums[i] / (n ? (double)n : j->batch.batch);
    free(targets);
  }
  return j->heads ? loss : sums[j->queries ? num_heads : 0] / j->weight;
}

/* As train/embed.c does it. */
static int pair_step(job *j, sw_stream *stream, sw_run *run, sw_optimizer *optimizer, float *words) {
  sw_gradients *g = sw_optimizer_gradients(optimizer);
  const json_t *sequences = json_object_get(j->json, "sequences");
  const size_t queries = (size_t)j->queries, candidates = (size_t)(j->batch.batch - j->queries), parts = (size_t)j->parts;
  int32_t *rows = sw_alloc_array(queries + candidates, sizeof *rows);
  int status = rows ? 0 : -1;
  for (int pass = 0; pass < 2 && !status; pass++) {
    for (size_t p = 0; p < parts && !status; p++) {
      const size_t q = queries * p / parts, next_q = queries * (p + 1) / parts, c = candidates * p / parts, next_c = candidates * (p + 1) / parts;
      const int64_t first = (int64_t)(q + c);
      for (size_t i = q; i < next_q; i++) rows[i] = (int32_t)(c + i);
      for (size_t i = c; i < next_c; i++) rows[queries + i] = (int32_t)(next_q + i);
      sw_batch b = {0};
      status = pack(sequences, q, next_q, &b) || pack(sequences, queries + c, queries + next_c, &b);
      if (!status && (!pass || parts > 1)) status = sw_run_forward(run, &b, NULL);
      if (!status)
        status = pass ? sw_run_unpool_pairs(run, j->vectors, first) || sw_run_backward(run, g) || tensors_add_word_rows(stream, g, j->hidden, words) ||
                            sw_optimizer_collect(optimizer)
                      : sw_run_pool_pairs(run, j->vectors, first);
      free((void *)b.ids);
      free((void *)b.cu_seqlens);
    }
    if (!status && !pass)
      status = sw_run_contrastive_loss(run, j->vectors, j->queries, (int64_t)candidates, rows, j->labels, similarity_scale, (float)(1 / j->weight));
  }
  free(rows);
  return status ? -1 : 0;
}

static int dump(const char *const *argv) {
  sw_checkpoint checkpoint;
  sw_device *device = NULL;
  sw_stream stream;
  sw_model *model = NULL;
  sw_run *run = NULL;
  sw_optimizer *optimizer = NULL;
  sw_tensors out = {0};
  job j = {0};
  const int steps = atoi(argv[4]);
  const double lr = atof(argv[5]);
  const sw_dtype dtype = argv[6] && !strcmp(argv[6], "bf16") ? SW_BF16 : SW_F32;
  sw_optimizer_options options = SW_OPTIMIZER_DEFAULTS;
  sw_checkpoint_init(&checkpoint);
  if (sw_checkpoint_read(argv[1], &checkpoint) || read_job(argv[2], &j) || add_heads(&j, &checkpoint) || sw_device_open(argv[6] && argv[7] ? argv[7] : "cpu", &device) ||
      sw_stream_open(device, 0, &stream) || sw_model_open(&stream, &checkpoint, dtype, SW_TRAINING, &model) ||
      sw_run_open(&stream, model, j.batch.tokens, j.batch.batch, 1, &run) ||
      sw_optimizer_open(&stream, model, &options, j.batch.tokens, j.parts ? j.parts : 1, &optimizer) ||
      (j.queries && sw_pair_vectors_open(&stream, model, j.queries, j.batch.batch - j.queries, &j.vectors)))
    return -1;
  const int64_t n = j.batch.tokens, h = j.hidden = model->config.hidden_size;
  const void *states;
  float *losses = sw_alloc_array((size_t)steps + 1, sizeof *losses), *last;
  double *sums = sw_alloc_array(model->num_heads + 1, sizeof *sums);
  if (!losses || !sums || sw_run_forward(run, &j.batch, &states) || !(last = tensors_fetch(&stream, states, dtype, n * h))) return -1;
  int failed = tensors_add(&out, "", "states", 2, (int64_t[4]){n, h}, last);
  free(last);
  if (!failed && j.labels && !j.queries) {
    const int64_t c = model->heads[0].num_labels;
    float *host = sw_alloc_array((size_t)(n * c), sizeof *host);
    failed = !host || sw_run_token_log_probs(run, 0, host) || tensors_add(&out, "", "log_probs", 2, (int64_t[4]){n, c}, host);
    free(host);
  }
  if (failed) return -1;
  for (int s = 0; s <= steps; s++) {
    double norm;
    float *words = sw_alloc_array((size_t)(model->config.vocab_size * h), sizeof *words);
    if (!words || sw_optimizer_refresh(optimizer, j.batch.ids, n) || (j.queries ? pair_step : j.heads ? sequence_step : token_step)(&j, &stream, run, optimizer, words) ||
        sw_run_losses(run, sums) || sw_optimizer_measure(optimizer) || model->device->synchronize(&stream))
      return -1;
    losses[s] = (float)mean_loss(&j, sums, model->num_heads);
    if (s == 0 && tensors_add_gradients(&stream, model, sw_optimizer_gradients(optimizer), words, &out)) return -1;
    free(words);
    if (sw_optimizer_step(optimizer, lr, &norm)) return -1;
  }
  if (tensors_add(&out, "", "losses", 1, (int64_t[4]){steps + 1}, losses) || sw_safetensors_write(argv[3], &out)) return -1;
  free(losses);
  free(sums);
  free(j.labels);
  free((void *)j.batch.ids);
  free((void *)j.batch.cu_seqlens);
  json_decref(j.json);
  sw_pair_vectors_close(j.vectors);
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
