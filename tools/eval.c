/* skillwatch eval: scores a tagger on labelled data. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "engine/learn/evaluate.h"
#include "engine/store/config_file.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const char *model, *output, *rejected, *device, *dtype, *decode;
  sw_list data;
  int threads, batch_tokens, json;
} eval_options;

typedef struct {
  sw_checkpoint checkpoint;
  sw_tokenizer *tokenizer;
  sw_device *device;
  sw_stream stream;
  sw_model *model;
  sw_labels labels;
  sw_eval_set *set;
  sw_run *run;
  int64_t batch_tokens;
  json_t *scores;
} eval;

static void close_eval(eval *e) {
  json_decref(e->scores);
  if (e->run) sw_run_close(e->run);
  sw_eval_set_close(e->set);
  sw_labels_close(&e->labels);
  sw_model_close(e->model);
  sw_tokenizer_close(e->tokenizer);
  sw_device_close(e->device);
  sw_checkpoint_close(&e->checkpoint);
}

static int load(eval *e, const eval_options *o, sw_dtype dtype) {
  if (sw_device_choose(o->device, 0, &e->device) || sw_stream_open(e->device, o->threads, &e->stream) ||
      sw_checkpoint_read(o->model, &e->checkpoint))
    return -1;
  if (e->checkpoint.vocab_size == 0) return sw_fail("%s has no tokenizer, so it cannot read text", o->model);
  if (sw_checkpoint_tokenizer(&e->checkpoint, &e->tokenizer) ||
      sw_model_open(&e->stream, &e->checkpoint, dtype, SW_INFERENCE, &e->model))
    return sw_fail_in("%s", o->model);
  sw_labels layers;
  if (sw_eval_layers(e->model, o->model, &layers)) return -1;
  int status = sw_labels_read(o->data.items, (size_t)o->data.count, o->rejected, &layers, &e->labels);
  free(layers.layers);
  return status;
}

static int score(eval *e, const eval_options *o) {
  const int positions = e->model->config.max_positions, max_batch = 1024;
  e->batch_tokens = o->batch_tokens > positions ? o->batch_tokens : positions;
  if (sw_eval_set_open(&e->labels, e->tokenizer, positions, &e->set) ||
      sw_run_open(&e->stream, e->model, e->batch_tokens, max_batch, 0, &e->run) ||
      sw_eval_set_run(e->set, e->model, e->run, e->batch_tokens, max_batch,
                      strcmp(o->decode, "argmax") ? SW_DECODE_VITERBI : SW_DECODE_ARGMAX, NULL, &e->scores, NULL))
    return -1;
  json_t *files = json_array();
  for (size_t i = 0; files && i < e->labels.num_files; i++)
    json_array_append_new(files, json_pack("{s:s,s:s,s:I,s:I}", "path", e->labels.files[i].path, "sha256",
                                           e->labels.files[i].sha256, "rows", (json_int_t)e->labels.files[i].rows,
                                           "rejected", (json_int_t)e->labels.files[i].rejected));
  if (json_object_set_new(e->scores, "model", json_string(o->model)) ||
      json_object_set_new(e->scores, "model_sha256", json_string(e->checkpoint.content_sha256)) ||
      json_object_set_new(e->scores, "examples", json_integer((json_int_t)e->labels.num_examples)) ||
      json_object_set_new(e->scores, "rejected", json_integer((json_int_t)e->labels.rejected)) ||
      json_object_set_new(e->scores, "data", files))
    return sw_fail("the scores could not be written as JSON: a file name is not valid UTF-8");
  return 0;
}

static double number(const json_t *object, const char *key) {
  return json_number_value(json_object_get(object, key));
}

static void print_row(FILE *to, int width, const char *name, const json_t *row) {
  fprintf(to, "  %-*s %9.4f %9.4f %9.4f %9lld\n", width, name, number(row, "precision"), number(row, "recall"),
          number(row, "f1"), (long long)json_integer_value(json_object_get(row, "support")));
}

static void print_table(const eval *e, FILE *to) {
  const char *layer_name, *label;
  json_t *layers = json_object_get(e->scores, "layers"), *layer, *row;
  int width = 14;
  json_object_foreach(layers, layer_name, layer)
      json_object_foreach(json_object_get(layer, "labels"), label, row) if ((int)strlen(label) > width) width =
          (int)strlen(label);
  json_object_foreach(layers, layer_name, layer) {
    fprintf(to, "%-*s %9s %9s %9s %9s\n", width + 2, layer_name, "precision", "recall", "F1", "support");
    json_object_foreach(json_object_get(layer, "labels"), label, row)
        print_row(to, width, label, row);
    print_row(to, width, "micro", json_object_get(layer, "micro"));
    print_row(to, width, "macro", json_object_get(layer, "macro"));
    fprintf(to, "  %-*s %9.4f   loss %.4f\n\n", width, "accuracy", number(layer, "accuracy"), number(layer, "loss"));
  }
  if (json_object_size(layers) > 1) {
    fprintf(to, "%-*s %9s %9s %9s %9s\n", width + 2, "all layers", "precision", "recall", "F1", "support");
    print_row(to, width, "micro", json_object_get(e->scores, "micro"));
    print_row(to, width, "macro", json_object_get(e->scores, "macro"));
    fprintf(to, "  %-*s %9.4f   loss %.4f\n\n", width, "accuracy", number(e->scores, "accuracy"),
            number(e->scores, "loss"));
  }
  const unsigned long long tokens = sw_eval_set_tokens(e->set);
  fprintf(to, "%zu example%s, %llu token%s, decoded by %s", e->labels.num_examples, SW_S(e->labels.num_examples), tokens,
          SW_S(tokens), json_string_value(json_object_get(e->scores, "decode")));
  if (e->labels.rejected) fprintf(to, ", %zu row%s set aside", e->labels.rejected, SW_S(e->labels.rejected));
  if (e->labels.skipped_layers) fprintf(to, ", layers without a head left out: %s", e->labels.skipped_layers);
  fputc('\n', to);
}

static int print(const eval *e, const eval_options *o) {
  sw_output output;
  if (sw_output_open(&output, o->output)) return -1;
  if (o->json) {
    char *text = sw_json_pretty(e->scores);
    if (!text) {
      sw_output_abandon(&output);
      return -1;
    }
    fputs(text, output.file);
    free(text);
  } else {
    print_table(e, output.file);
  }
  return sw_output_commit(&output);
}

static int check(const eval_options *o, const sw_list *operands, sw_dtype *dtype) {
  *dtype = strcmp(o->dtype, "bf16") ? SW_F32 : SW_BF16;
  if (operands->count) return sw_fail("'%s' is not expected; name labelled data with --data FILE", operands->items[0]);
  if (!o->model) return sw_fail("a checkpoint is needed: -m FILE (see --help)");
  if (sw_check_output(o->output, &o->model, 1) || sw_labels_check_output(o->output, o->data.items, (size_t)o->data.count))
    return -1;
  if (o->data.count == 0) return sw_fail("labelled data is needed: --data FILE (see --help)");
  if (strcmp(o->dtype, "fp32") && strcmp(o->dtype, "bf16"))
    return sw_fail("--dtype %s is not known: use fp32 or bf16", o->dtype);
  if (strcmp(o->decode, "viterbi") && strcmp(o->decode, "argmax"))
    return sw_fail("--decode %s is not known: use viterbi or argmax", o->decode);
  if (o->batch_tokens < 1 || o->batch_tokens > 1 << 20)
    return sw_fail("--batch-tokens wants a number from 1 to %d", 1 << 20);
  return sw_device_check(o->device, o->threads);
}

static int body(int argc, char **argv) {
  eval_options o = {.output = "-", .device = "auto", .dtype = "fp32", .decode = "viterbi", .batch_tokens = 4096};
  const sw_option options[] = {
      {"model", 'm', SW_OPTION_TEXT, &o.model, "FILE", "checkpoint with token heads (needed)"},
      {"data", 'd', SW_OPTION_LIST, &o.data, "FILE", "labelled data; may be given several times (needed)"},
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "where the scores go"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "JSON instead of a table"},
      {"decode", 0, SW_OPTION_TEXT, &o.decode, "HOW",
       "viterbi: the best valid sequence, as tagging does; argmax: the best tag of each word"},
      {"rejected", 0, SW_OPTION_TEXT, &o.rejected, "FILE", "where unusable rows go, with the reason"},
      {"device", 0, SW_OPTION_TEXT, &o.device, "D", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o.dtype, "T", "fp32 or bf16"},
      {"threads", 0, SW_OPTION_INT, &o.threads, "N", "0: one a core. Scores do not depend on it"},
      {"batch-tokens", 0, SW_OPTION_INT, &o.batch_tokens, "N", "tokens of a batch. Scores do not depend on it"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch eval -m CHECKPOINT --data LABELS... [options]",
      .summary = "Scores a tagger on labelled data: precision, recall and F1 of whole entities, as seqeval counts it,\n"
                 "for each label of each layer, with micro and macro averages, tag accuracy and mean loss.",
      .example = "skillwatch eval -m ner.h5 --data samples/labels/test.jsonl",
      .options = options,
  };
  sw_list operands = {0};
  sw_dtype dtype = SW_F32;
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status) status = check(&o, &operands, &dtype);
  if (status) {
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  } else {
    eval e = {0};
    sw_checkpoint_init(&e.checkpoint);
    status = load(&e, &o, dtype) || score(&e, &o) || print(&e, &o) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
    close_eval(&e);
  }
  sw_list_close(&operands);
  sw_list_close(&o.data);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
