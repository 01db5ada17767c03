/* tool-metrics: reads JSON lines {"labels": [...], "sentences": [[[gold ids], [predicted ids]], ...]} from standard
 * input and prints the scores of each as one line of JSON. For the comparison with seqeval. */
#include "base/error.h"
#include "base/options.h"
#include "engine/learn/metrics.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_LABELS = 256, MAX_TOKENS = 4096 };

static int score(const json_t *request) {
  json_t *names = json_object_get(request, "labels"), *sentences = json_object_get(request, "sentences"), *sentence;
  char *labels[MAX_LABELS];
  size_t num_labels = json_array_size(names), index;
  if (num_labels > MAX_LABELS) return sw_fail("too many labels");
  for (size_t i = 0; i < num_labels; i++) labels[i] = (char *)json_string_value(json_array_get(names, i));
  sw_entity_metrics metrics;
  if (sw_entity_metrics_open(labels, num_labels, &metrics)) return -1;
  int status = 0;
  json_array_foreach(sentences, index, sentence) {
    static int32_t tags[2][MAX_TOKENS];
    size_t count = json_array_size(json_array_get(sentence, 0));
    if (count > MAX_TOKENS || count != json_array_size(json_array_get(sentence, 1)))
      status = sw_fail("bad sentence %zu", index);
    for (size_t k = 0; k < 2 && !status; k++)
      for (size_t i = 0; i < count; i++)
        tags[k][i] = (int32_t)json_integer_value(json_array_get(json_array_get(sentence, k), i));
    if (!status) status = sw_entity_metrics_add(&metrics, tags[0], tags[1], count);
    if (status) break;
  }
  json_t *json = status ? NULL : sw_entity_metrics_json(&metrics);
  if (json) {
    json_dumpf(json, stdout, JSON_REAL_PRECISION(17));
    putchar('\n');
  }
  json_decref(json);
  sw_entity_metrics_close(&metrics);
  return json ? 0 : -1;
}

int main(void) {
  char *line = NULL;
  size_t capacity = 0;
  int status = 0;
  while (!status && getline(&line, &capacity, stdin) > 0) {
    json_error_t error;
    json_t *request = json_loads(line, 0, &error);
    status = request ? score(request) : sw_fail("broken JSON: %s", error.text);
    json_decref(request);
  }
  free(line);
  return status ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
}
