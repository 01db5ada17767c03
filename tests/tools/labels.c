/* tool-labels [--rejected FILE] [--fixed FILE] INPUT[:WEIGHT]...
 * Reads labelled data and prints it as one JSON object: files, layers, and for each example its text, words (offsets in
 * code points) and tags by name. --fixed: with the layers of that file. For the tests. */
#include "base/error.h"
#include "base/options.h"
#include "engine/data/labels.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static json_t *example_json(const sw_labels *labels, const sw_example *e) {
  json_t *words = json_array(), *tags = json_object();
  for (size_t i = 0; i < e->num_words; i++)
    json_array_append_new(words, json_pack("[i,i,s%]", (int)e->words[i].start, (int)e->words[i].end,
                                           e->text + e->words[i].byte_start,
                                           (size_t)(e->words[i].byte_end - e->words[i].byte_start)));
  for (size_t k = 0; k < labels->num_layers; k++) {
    json_t *row = json_array();
    for (size_t i = 0; i < e->num_words; i++) {
      int32_t tag = e->tags[k * e->num_words + i];
      json_array_append_new(row, tag == SW_IGNORE ? json_null() : json_string(labels->layers[k].labels[tag]));
    }
    json_object_set_new(tags, labels->layers[k].name, row);
  }
  return json_pack("{s:s%,s:o,s:o,s:f,s:i,s:i}", "text", e->text, e->bytes, "words", words, "tags", tags, "weight",
                   (double)e->weight, "file", (int)e->file, "line", (int)e->line);
}

int main(int argc, char **argv) {
  const char *rejected = NULL, *fixed_path = NULL;
  sw_option options[] = {{"rejected", 0, SW_OPTION_TEXT, &rejected, "FILE", "rows that were set aside"},
                         {"fixed", 0, SW_OPTION_TEXT, &fixed_path, "FILE", "use the layers of this file"},
                         {0}};
  sw_command command = {"tool-labels [options] INPUT[:WEIGHT]...", "Prints labelled data as JSON.", "", options};
  sw_list inputs = {0};
  int parsed = sw_options_parse(&command, argc, argv, &inputs);
  if (parsed) return parsed > 0 ? 0 : sw_exit_message(SW_EXIT_USAGE);
  sw_labels fixed = {0}, labels = {0};
  int status = fixed_path ? sw_labels_read(&fixed_path, 1, NULL, NULL, &fixed) : 0;
  if (!status)
    status = sw_labels_read(inputs.items, (size_t)inputs.count, rejected, fixed_path ? &fixed : NULL, &labels);
  sw_list_close(&inputs);
  if (!status) {
    json_t *files = json_array(), *layers = json_object(), *examples = json_array();
    for (size_t i = 0; i < labels.num_files; i++)
      json_array_append_new(files, json_pack("{s:s,s:s,s:i,s:i,s:f}", "path", labels.files[i].path, "sha256",
                                             labels.files[i].sha256, "rows", (int)labels.files[i].rows, "rejected",
                                             (int)labels.files[i].rejected, "weight", labels.files[i].weight));
    for (size_t k = 0; k < labels.num_layers; k++) {
      json_t *names = json_array();
      for (size_t i = 0; i < labels.layers[k].num_labels; i++)
        json_array_append_new(names, json_string(labels.layers[k].labels[i]));
      json_object_set_new(layers, labels.layers[k].name, names);
    }
    for (size_t i = 0; i < labels.num_examples; i++)
      json_array_append_new(examples, example_json(&labels, &labels.examples[i]));
    json_t *all =
        json_pack("{s:o,s:o,s:o,s:i,s:i,s:s?}", "files", files, "layers", layers, "examples", examples, "rejected",
                  (int)labels.rejected, "repaired", (int)labels.repaired, "skipped_layers", labels.skipped_layers);
    if (!all || json_dumpf(all, stdout, JSON_ENSURE_ASCII)) status = sw_fail("cannot print the labels as JSON");
    putchar('\n');
    json_decref(all);
  }
  sw_labels_close(&labels);
  sw_labels_close(&fixed);
  return status ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
}
