/* skillwatch push: a checkpoint to the Hugging Face Hub, or to an MLflow server as a registered model's new version. */
#include "base/error.h"
#include "base/options.h"
#include "engine/store/config_file.h"
#include "engine/store/encoder.h"
#include "engine/store/hub_push.h"
#include "engine/store/huggingface.h"
#include "engine/store/json.h"
#include "engine/store/mlflow_registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_json(json_t *value) {
  char *text = value ? sw_json_canonical(value) : NULL;
  json_decref(value);
  if (text) puts(text);
  free(text);
  return text ? 0 : sw_fail("out of memory");
}

static int to_hub(const sw_checkpoint *c, const sw_head *head, const sw_hub_push_options *o, int as_json,
                  int *temporary) {
  sw_hub_pushed done;
  const int status = sw_hub_push(c, head, o, &done);
  *temporary = done.temporary;
  if (status) return -1;
  if (!o->quiet && done.unchanged)
    fprintf(stderr, "%s: %s has all of it already, commit %.12s; nothing was sent\n", done.address, done.branch,
            done.commit);
  else if (!o->quiet)
    fprintf(stderr, "%s: commit %.12s on %s, %zu file%s, %.1f MB uploaded\n", done.address, done.commit, done.branch,
            done.files, SW_S(done.files), (double)done.bytes / 1e6);
  return as_json ? print_json(json_pack("{s:s, s:s, s:s, s:b, s:I, s:I}", "address", done.address, "branch",
                                        done.branch, "commit", done.commit, "unchanged", done.unchanged, "files",
                                        (json_int_t)done.files, "bytes", (json_int_t)done.bytes))
                 : 0;
}

static int to_mlflow(const sw_checkpoint *c, const sw_head *head, const sw_mlflow_push_options *o, int as_json,
                     int *temporary) {
  sw_mlflow_pushed done;
  const int status = sw_mlflow_push(c, head, o, &done);
  *temporary = done.temporary;
  if (status) return -1;
  if (!o->quiet)
    fprintf(stderr, "%s: version %s %s%s%s\n", o->name, done.version,
            done.unchanged ? "is this checkpoint already" : "made", o->alias ? ", alias " : "",
            o->alias ? o->alias : "");
  return as_json ? print_json(json_pack("{s:s, s:s, s:s, s:b}", "model", o->name, "version", done.version, "run_id",
                                        done.run_id, "unchanged", done.unchanged))
                 : 0;
}

static int body(int argc, char **argv) {
  const char *to = NULL, *head_name = NULL, *branch = NULL, *message = NULL, *cache = NULL, *alias = NULL,
             *experiment = NULL;
  int private = 0, with_checkpoint = 0, quiet = 0, as_json = 0, temporary = 0;
  const sw_option options[] = {
      {"to", 0, SW_OPTION_TEXT, &to, "PLACE", "hub:OWNER/NAME or mlflow:NAME"},
      {"head", 0, SW_OPTION_TEXT, &head_name, "NAME",
       "the token head to export, where there are several; none: the encoder alone"},
      {"private", 0, SW_OPTION_FLAG, &private, NULL, "Hub: make the model private; one that is public is refused"},
      {"revision", 0, SW_OPTION_TEXT, &branch, "BRANCH", "Hub: the branch, made where it is not there [main]"},
      {"message", 0, SW_OPTION_TEXT, &message, "TEXT", "Hub: the commit's title; MLflow: the version's description"},
      {"with-checkpoint", 0, SW_OPTION_FLAG, &with_checkpoint, NULL,
       "Hub: send the checkpoint, too, so that pull gets back all heads and the lineage"},
      {"cache", 0, SW_OPTION_TEXT, &cache, "FOLDER", "where unfinished uploads are remembered (~/.cache/skillwatch)"},
      {"alias", 0, SW_OPTION_TEXT, &alias, "NAME", "MLflow: the alias that moves to the version, such as champion"},
      {"experiment", 0, SW_OPTION_TEXT, &experiment, "NAME", "MLflow: the experiment of its run [skillwatch]"},
      {"json", 0, SW_OPTION_FLAG, &as_json, NULL, "print what was done as JSON"},
      {"quiet", 'q', SW_OPTION_FLAG, &quiet, NULL, "no progress bar, no summary"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch push CHECKPOINT --to hub:OWNER/NAME|mlflow:NAME [options]",
      .summary =
          "Sends a checkpoint to the Hugging Face Hub, in the layout that transformers loads and with a model card,\n"
          "or to an MLflow server, as the new version of a registered model. What is there already is not sent again;\n"
          "skillwatch pull gets both back.\n\n"
          "environment:\n"
          "  HF_TOKEN                 a token that may write; sent to the Hub only\n"
          "  HF_ENDPOINT              the Hub's address [https://huggingface.co]\n"
          "  MLFLOW_TRACKING_URI      the MLflow server's address\n"
          "  MLFLOW_TRACKING_TOKEN    its login; or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD\n"
          "  SSL_CERT_FILE            file of the certificate authorities to trust instead of the system's\n\n"
          "Exit status 75: the server was busy or could not be reached; the same command may work later.",
      .example = "skillwatch push tagger.h5 --to hub:acme/skill-tagger --private --with-checkpoint",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  const int hub = to && !strncmp(to, "hub:", 4), mlflow = to && !strncmp(to, "mlflow:", 7);
  if (!status && operands.count != 1) status = sw_fail("one checkpoint is wanted (see skillwatch push --help)");
  if (!status && !hub && !mlflow)
    status = sw_fail("--to is %s%s; it should be hub:OWNER/NAME or mlflow:NAME", to ? "" : "missing", to ? to : "");
  if (!status && mlflow && (private || branch || with_checkpoint))
    status = sw_fail("--private, --revision and --with-checkpoint are for the Hub");
  if (!status && hub && (alias || experiment)) status = sw_fail("--alias and --experiment are for MLflow");
  if (!status && message && !message[0]) status = sw_fail("--message is empty");
  if (status) {
    sw_list_close(&operands);
    return status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  }
  const sw_hub_push_options to_a_hub = {.id = hub ? to + 4 : NULL,
                                        .branch = branch,
                                        .message = message,
                                        .checkpoint = operands.items[0],
                                        .cache = cache,
                                        .with_checkpoint = with_checkpoint,
                                        .private = private,
                                        .quiet = quiet};
  const sw_mlflow_push_options to_a_server = {.name = mlflow ? to + 7 : NULL,
                                              .experiment = experiment ? experiment : "skillwatch",
                                              .alias = alias,
                                              .description = message,
                                              .checkpoint = operands.items[0],
                                              .cache = cache,
                                              .quiet = quiet};
  sw_checkpoint checkpoint;
  const sw_head *head = NULL;
  if (sw_checkpoint_read(operands.items[0], &checkpoint))
    status = sw_exit_message(SW_EXIT_FAILED);
  else if (sw_export_head(&checkpoint, head_name, &head))
    status = sw_exit_message(SW_EXIT_USAGE);
  else if (hub ? to_hub(&checkpoint, head, &to_a_hub, as_json, &temporary)
               : to_mlflow(&checkpoint, head, &to_a_server, as_json, &temporary))
    status = sw_exit_message(temporary ? SW_EXIT_AGAIN : SW_EXIT_FAILED);
  sw_checkpoint_close(&checkpoint);
  sw_list_close(&operands);
  return status;
}

int main(int argc, char **argv) {
  return sw_program(argc, argv, body);
}
