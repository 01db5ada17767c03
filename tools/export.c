/* skillwatch export: a checkpoint as a folder that transformers and sentence-transformers load. */
#include "base/error.h"
#include "base/options.h"
#include "engine/store/config_file.h"
#include "engine/store/huggingface.h"

#include <stdio.h>
#include <string.h>

static int body(int argc, char **argv) {
  const char *output = NULL, *head = NULL;
  int force = 0, quiet = 0;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &output, "FOLDER", "the folder to write"},
      {"head", 0, SW_OPTION_TEXT, &head, "NAME", "the token head to write, where there are several; none: the encoder alone"},
      {"force", 0, SW_OPTION_FLAG, &force, NULL, "replace a folder that is not empty"},
      {"quiet", 'q', SW_OPTION_FLAG, &quiet, NULL, "no summary"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch export CHECKPOINT -o FOLDER [options]",
      .summary = "Writes a BERT or DistilBERT checkpoint in Hugging Face layout: transformers' AutoModel, "
                 "AutoTokenizer and (with a token head)\n"
                 "AutoModelForTokenClassification load the folder, and so does SentenceTransformer.",
      .example = "skillwatch export ner.h5 -o ner-model/",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status && operands.count != 1) status = sw_fail("one checkpoint is wanted (see skillwatch export --help)");
  if (!status && !output) status = sw_fail("-o FOLDER is missing (see skillwatch export --help)");
  if (status) {
    sw_list_close(&operands);
    return status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  }
  sw_checkpoint checkpoint;
  const sw_head *chosen;
  if (sw_checkpoint_read(operands.items[0], &checkpoint))
    status = sw_exit_message(SW_EXIT_FAILED);
  else if (sw_export_head(&checkpoint, head, &chosen))
    status = sw_exit_message(SW_EXIT_USAGE);
  else if (sw_export_folder(&checkpoint, chosen, output, force))
    status = sw_exit_message(SW_EXIT_FAILED);
  else if (!quiet)
    fprintf(stderr, "%s: written%s%s\n", output, chosen ? ", with the head " : "", chosen ? chosen->name : "");
  sw_checkpoint_close(&checkpoint);
  sw_list_close(&operands);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
