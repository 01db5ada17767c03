/* skillwatch export: a checkpoint as a folder that transformers and sentence-transformers load. */
#include "base/error.h"
#include "base/options.h"
#include "engine/store/huggingface.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  const char *output = NULL, *head = NULL;
  int force = 0, quiet = 0;
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &output, "FOLDER", "the folder to write"},
      {"head", 0, SW_OPTION_TEXT, &head, "NAME", "the token head to write, where there are several"},
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
  signal(SIGXFSZ, SIG_IGN); /* a file size limit should be a message, not a death */
  sw_list operands = {0};
  int status = sw_options_parse(&command, argc, argv, &operands);
  if (!status && operands.count != 1) status = sw_fail("one checkpoint is wanted (see skillwatch export --help)");
  if (!status && !output) status = sw_fail("-o FOLDER is missing (see skillwatch export --help)");
  if (status) {
    sw_list_close(&operands);
    return status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  }
  sw_checkpoint checkpoint;
  if (sw_checkpoint_read(operands.items[0], &checkpoint) || sw_export_folder(&checkpoint, head, output, force)) {
    status = sw_exit_message(SW_EXIT_FAILED);
  } else if (!quiet) {
    size_t token_heads = 0;
    for (size_t i = 0; i < checkpoint.num_heads; i++) token_heads += !strcmp(checkpoint.heads[i].task, "token");
    fprintf(stderr, "%s: written\n", output);
    if (token_heads > 1 && !head) {
      fprintf(stderr, "no head was written, because there are %zu; pick one with --head:", token_heads);
      for (size_t i = 0; i < checkpoint.num_heads; i++)
        if (!strcmp(checkpoint.heads[i].task, "token")) fprintf(stderr, " %s", checkpoint.heads[i].name);
      fputc('\n', stderr);
    }
  }
  sw_checkpoint_close(&checkpoint);
  sw_list_close(&operands);
  return status;
}
