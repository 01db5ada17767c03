/* Any bytes as the prompt file of skillwatch label: no crash, and a file that is taken makes requests that are JSON, whose examples answer as the program
 * wants to be answered: read again, every text that they name is in its sentence. */
#include "tools/label/prompt.h"
#include "base/error.h"
#include "engine/store/json.h"
#include "tests/fuzz/memory_file.h"
#include "tools/label/verify.h"

#include <string.h>

static const sw_label_names labels = {.count = 2, .names = {"knowledge", "skill"}};

static void check(int holds) {
  if (!holds) abort();
}

static int dropped(void *context, const sw_mention *mention, const char *reason) { abort(); }

static void check_example(const json_t *user, const json_t *assistant) {
  const json_t *text = json_object_get(user, "content"), *answer = json_object_get(assistant, "content");
  sw_label_words words = {0};
  sw_mentions mentions = {0};
  sw_label_spans spans = {0};
  sw_verifier verifier = {0};
  char reason[SW_REASON];
  double weight;
  check(!strcmp(sw_json_string(user, "role"), "user") && !strcmp(sw_json_string(assistant, "role"), "assistant"));
  check(!sw_label_words_read(&words, json_string_value(text), json_string_length(text)));
  check(!sw_answer_read(json_string_value(answer), json_string_length(answer), json_string_value(text), json_string_length(text), &labels, &mentions, reason));
  check(!sw_verify(&verifier, &words, &mentions, &labels, 0, &spans, dropped, NULL));
  const size_t named = spans.count;
  sw_settle(&spans, 1, &weight);
  check(spans.count == named && named == mentions.count); /* nothing overlaps, nothing is said twice */
  sw_verifier_close(&verifier);
  sw_label_spans_close(&spans);
  sw_mentions_close(&mentions);
  sw_label_words_close(&words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char sentence[] = "We use \"Rust\" {labels}.";
  char path[64], key[65];
  const int fd = memory_file(data, size, path);
  const sw_prompt_options options = {.model = "m", .path = path, .votes = 1, .seed = -1};
  sw_prompt prompt;
  if (sw_prompt_open(&options, &labels, &prompt)) {
    check(sw_error()[0] && !prompt.head);
  } else {
    sw_buffer body = {0};
    json_error_t error;
    json_t *request;
    check(!sw_prompt_body(&prompt, sentence, sizeof sentence - 1, 0, &body) && !sw_prompt_key(&prompt, sentence, sizeof sentence - 1, 0, key) && strlen(key) == 64);
    check(!sw_json_row(body.data, body.size, 0, &request, &error) && request);
    const json_t *messages = json_object_get(request, "messages");
    check(json_array_size(messages) == 2 * prompt.examples + 2 && !strcmp(sw_json_string(json_array_get(messages, 2 * prompt.examples + 1), "content"), sentence));
    check(!strcmp(sw_json_string(json_array_get(messages, 0), "role"), "system"));
    for (size_t i = 0; i < prompt.examples; i++) check_example(json_array_get(messages, 2 * i + 1), json_array_get(messages, 2 * i + 2));
    json_decref(request);
    sw_buffer_close(&body);
    sw_prompt_close(&prompt);
  }
  close(fd);
  return 0;
}
