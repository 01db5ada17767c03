/* skillwatch compare: checkpoints side by side on labelled data, and the gate that a newer one must pass. */
#include "base/error.h"
#include "base/file.h"
#include "engine/store/config_file.h"
#include "engine/store/json.h"
#include "tools/compare/compare.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int check_outputs(const compare_options *o, const sw_list *checkpoints) {
  const char *outputs[] = {o->output, o->picture, o->disagreements_out, o->rejected};
  for (int i = 0; i < 4; i++) {
    if (!outputs[i]) continue;
    if (sw_check_output(outputs[i], checkpoints->items, checkpoints->count) ||
        sw_labels_check_output(outputs[i], o->data.items, (size_t)o->data.count) ||
        sw_check_output(outputs[i], outputs, i))
      return -1;
    for (int k = 0; k < i; k++)
      if (outputs[k] && !strcmp(outputs[k], outputs[i])) return sw_fail("%s is named for two outputs", outputs[i]);
  }
  return 0;
}

/* Usage: what can be told from the command line alone. */
static int check(const compare_options *o, const sw_list *checkpoints) {
  if (checkpoints->count < 2) return sw_fail("two checkpoints or more are needed: the older first (see --help)");
  if (checkpoints->count > MAX_SIDES)
    return sw_fail("%d checkpoints are too many: %d is the most", checkpoints->count, (int)MAX_SIDES);
  if (o->data.count == 0) return sw_fail("labelled data is needed: --data FILE (see --help)");
  if (strcmp(o->dtype, "fp32") && strcmp(o->dtype, "bf16"))
    return sw_fail("--dtype %s is not known: use fp32 or bf16", o->dtype);
  if (strcmp(o->decode, "viterbi") && strcmp(o->decode, "argmax"))
    return sw_fail("--decode %s is not known: use viterbi or argmax", o->decode);
  if (o->batch_tokens < 1 || o->batch_tokens > 1 << 20)
    return sw_fail("--batch-tokens wants a number from 1 to %d", 1 << 20);
  if (o->resamples < 100 || o->resamples > 1000000) return sw_fail("--resamples wants a number from 100 to 1000000");
  if (o->repeats < 1 || o->repeats > 1000) return sw_fail("--repeats wants a number from 1 to 1000");
  if (o->disagreements < 0) return sw_fail("--disagreements wants a number of 0 or more");
  if (!(o->margin >= -1 && o->margin <= 1))
    return sw_fail("--margin wants a difference of F1, such as 0.01 (from -1 to 1)");
  if (!o->gate && (o->margin != 0 || o->confident || o->metrics.count))
    return sw_fail("--margin, --metric and --confident need --gate");
  return check_outputs(o, checkpoints) || sw_device_check(o->device, o->threads) ? -1 : 0;
}

static int check_writable(const compare_options *o) {
  const char *outputs[] = {o->output, o->picture, o->disagreements_out};
  for (int i = 0; i < 3; i++)
    if (outputs[i] && sw_check_writable(outputs[i])) return -1;
  return 0;
}

static int write_json(const comparison *c, const char *path) {
  json_t *json = compare_json(c);
  char *text = json ? sw_json_pretty(json) : NULL;
  sw_output output;
  int status = text ? sw_output_open(&output, path) : -1;
  if (!status) {
    fputs(text, output.file);
    status = sw_output_commit(&output);
  }
  free(text);
  json_decref(json);
  return status;
}

static int show(const comparison *c) {
  const compare_options *o = c->options;
  if (o->disagreements_out && compare_write_disagreements(c, o->disagreements_out)) return -1;
  if (o->output && write_json(c, o->output)) return -1;
  if (o->json && write_json(c, "-")) return -1;
  if (!o->json) compare_print(c, stdout);
  return o->picture ? compare_draw(c, o->picture) : 0;
}

/* The gate's "no" is status 3; nothing else is. */
static int run(comparison *c, const compare_options *o, const sw_list *checkpoints) {
  if (check_writable(o) || compare_open(c, o, checkpoints)) return sw_exit_message(SW_EXIT_FAILED);
  int failed = compare_read(c);
  if (failed && o->gate && c->missing && c->nothing_shared) /* nothing to compare, and that settles it */
    failed = compare_judge(c);
  else if (!failed)
    failed = compare_check_metrics(c) || compare_measure_all(c) || compare_disagree(c) ||
             (o->gate && compare_judge(c)) || show(c);
  if (failed) return sw_exit_message(SW_EXIT_FAILED);
  if (!c->verdict.size) return SW_EXIT_DONE;
  sw_fail("gate: %s", c->verdict.data);
  return sw_exit_message(SW_EXIT_GATE);
}

static int body(int argc, char **argv) {
  compare_options o = {.device = "auto",
                       .dtype = "fp32",
                       .decode = "viterbi",
                       .batch_tokens = 4096,
                       .resamples = 2000,
                       .seed = 1,
                       .disagreements = 10,
                       .speed = 1,
                       .repeats = 3};
  /* clang-format off */
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o.data, "FILE", "labelled data; may be given several times (needed)"},
      {"gate", 0, SW_OPTION_FLAG, &o.gate, NULL, "exit with 3 unless the last checkpoint is no worse than the first"},
      {"margin", 0, SW_OPTION_DOUBLE, &o.margin, "X", "gate: how much F1 may fall; below 0: how much it must gain"},
      {"metric", 0, SW_OPTION_LIST, &o.metrics, "NAME", "gate: micro_f1 (when none is named), macro_f1 or a layer; may be given several times"},
      {"confident", 0, SW_OPTION_FLAG, &o.confident, NULL, "gate: refuse only where the whole interval of the difference is below the margin"},
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE.json", "everything as JSON, besides the table"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "JSON to standard output instead of the table"},
      {"picture", 0, SW_OPTION_TEXT, &o.picture, "FILE.png", "F1 by label, differences and reliability as a picture"},
      {"disagreements", 0, SW_OPTION_INT, &o.disagreements, "N", "sentences shown where a checkpoint and the first differ most"},
      {"disagreements-out", 0, SW_OPTION_TEXT, &o.disagreements_out, "FILE", "all of them, as JSON lines"},
      {"rejected", 0, SW_OPTION_TEXT, &o.rejected, "FILE", "where unusable rows go, with the reason"},
      {"decode", 0, SW_OPTION_TEXT, &o.decode, "HOW", "viterbi: the best valid sequence, as tagging does; argmax: the best tag of each word"},
      {"resamples", 0, SW_OPTION_INT, &o.resamples, "N", "of the bootstrap"},
      {"seed", 0, SW_OPTION_INT, &o.seed, "N", "of the bootstrap"},
      {"speed", 0, SW_OPTION_FLAG, &o.speed, NULL, "measure speed (--no-speed: not; all that is left is the same in every run)"},
      {"repeats", 0, SW_OPTION_INT, &o.repeats, "N", "timed runs of each checkpoint, in turns; the median counts"},
      {"device", 0, SW_OPTION_TEXT, &o.device, "D", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &o.dtype, "T", "fp32 or bf16"},
      {"threads", 0, SW_OPTION_INT, &o.threads, "N", "0: one a core. Changes nothing but speed"},
      {"batch-tokens", 0, SW_OPTION_INT, &o.batch_tokens, "N", "tokens of a batch. Changes nothing but speed"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.quiet, NULL, "no progress"},
      {0},
  };
  /* clang-format on */
  const sw_command command = {
      .usage = "skillwatch compare OLD.h5 [MORE.h5...] NEW.h5 --data LABELS... [options]",
      .summary = "Taggers side by side, each against the first: precision, recall and F1 of whole spans as skillwatch "
                 "eval counts\n"
                 "them, with 95 % intervals and p by paired bootstrap over examples; accuracy of words with McNemar's "
                 "exact test,\n"
                 "which takes words for independent (trust the bootstrap where the two disagree), mean loss and "
                 "expected calibration\n"
                 "error; the sentences where they differ most; drift of the embeddings (cosine, linear CKA); tokens a "
                 "second over the\n"
                 "data, milliseconds for a sentence alone (median and 95th percentile), size. Layers that not all have "
                 "are left out.\n\n"
                 "--gate: the last checkpoint is refused, with status 3 and one line, where its F1 on any data file "
                 "lies more than\n"
                 "--margin below that of the first, by any --metric: a layer's own, micro_f1 or macro_f1 over all "
                 "layers; or where it\n"
                 "lacks a layer of the first, or has other labels in one. With the usual margin of 0 nothing may get "
                 "worse on this data;\n"
                 "--confident lets a loss pass that luck may explain. A file without anything to find is an error, as "
                 "is all else\n"
                 "that fails: 1, or 2 for wrong usage.",
      .example =
          "skillwatch compare --gate tagger.h5 new.h5 --data test.jsonl --picture new.png && mv new.h5 tagger.h5",
      .options = options,
  };
  sw_list checkpoints = {0};
  int status = sw_config_parse(&command, argc, argv, &checkpoints);
  if (!status) status = check(&o, &checkpoints);
  if (status) {
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  } else {
    comparison c = {0};
    status = run(&c, &o, &checkpoints);
    compare_close(&c);
  }
  sw_list_close(&checkpoints);
  sw_list_close(&o.data);
  sw_list_close(&o.metrics);
  return status;
}

int main(int argc, char **argv) {
  return sw_program(argc, argv, body);
}
