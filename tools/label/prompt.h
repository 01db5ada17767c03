/* What is asked: instructions, examples and settings, as the body of a request to /chat/completions. */
#ifndef SW_LABEL_PROMPT_H
#define SW_LABEL_PROMPT_H
#include "tools/label/answer.h"

typedef enum { SW_FORM_SCHEMA, SW_FORM_OBJECT, SW_FORM_FREE } sw_answer_form; /* response_format: a JSON schema, any JSON object, none */

typedef struct {
  const char *model;
  const char *path;  /* of the prompt file; NULL: the one that comes with the program */
  const char *extra; /* a JSON object whose keys join the request; NULL: none */
  sw_answer_form form;
  double temperature; /* below 0: not sent */
  int max_tokens;     /* of an answer; 0: not sent */
  int votes;          /* answers a sentence; with more than one, each has a seed of its own */
  int seed;
} sw_prompt_options;

typedef struct {
  const sw_prompt_options *options;
  const sw_label_names *labels;
  char *head, *tail; /* of the body, before and after the sentence; the tail without its seed and its last brace */
  char hash[65];     /* of all that does not depend on the sentence */
  size_t examples;
  double answer_bytes, sentence_bytes; /* of the examples, for the estimate */
} sw_prompt;

/* A prompt file: instructions, in which {labels} stands for the labels; then examples, each
 *   Text: We use Rust.                    or   Tags Knowledge: ['O', 'O', 'B', 'O']
 *   Answer: {"spans": [...]}                   Tokens: ['We', 'use', 'Rust', '.']
 * where the answer may have any form that answer.h reads. A file without instructions gets those of the program. Fails on an example that does not
 * fit its text. */
int sw_prompt_open(const sw_prompt_options *options, const sw_label_names *labels, sw_prompt *out);
void sw_prompt_close(sw_prompt *prompt);
/* Replaces `out` by the body for a sentence and vote. */
int sw_prompt_body(const sw_prompt *prompt, const char *text, size_t bytes, int vote, sw_buffer *out);
/* What tells an answer to this from any other: prompt, settings, sentence, vote. */
int sw_prompt_key(const sw_prompt *prompt, const char *text, size_t bytes, int vote, char hex[65]);
/* Guesses, in tokens: four bytes one. */
double sw_prompt_tokens_in(const sw_prompt *prompt, size_t bytes);
double sw_prompt_tokens_out(const sw_prompt *prompt, size_t bytes);
#endif
