/* Questions to a chat endpoint, several at a time, within its limits: every request waits for its turn in two token buckets, what fails is tried again,
 * within bounds, and what still fails is given back with the reason. */
#ifndef SW_LABEL_ASK_H
#define SW_LABEL_ASK_H
#include "base/buffer.h"
#include <stdint.h>

enum { SW_MAX_ANSWER = 4 << 20 }; /* bytes of an answer; a longer one is cut off and counts as a failure */

typedef struct {
  const char *url;      /* of /chat/completions */
  const char *key;      /* sent as "Authorization: Bearer"; NULL: none. Never printed, and blotted out in whatever the server says */
  const char *key_name; /* the environment variable, for messages */
  int parallel, tries;
  int seconds;                                     /* a request may take */
  double requests_per_minute, tokens_per_minute;   /* 0: no limit */
  double price_in, price_out, budget, spent;       /* per million tokens; budget 0: none; spent: before */
  int max_tokens;                                  /* of an answer, which the budget keeps free until the first one tells how long they are; 0: not known */
  int quiet;
} sw_ask_options;

/* What is asked; owned by who asks, given back with its answer. */
typedef struct {
  char *text;
  size_t bytes;
  int vote;
  int before; /* an earlier run set it aside: that it fails again says nothing of the server */
  char key[65];
  double tokens_in, tokens_out; /* expected */
} sw_question;

typedef struct {
  const char *text; /* what the model said; NULL where there is nothing that can be used */
  size_t bytes;
  const char *reason; /* why there is none, or why it cannot be used; "" otherwise */
  int final;          /* 0: the question is asked again; this was only what an unusable answer cost */
  uint64_t tokens_in, tokens_out; /* billed for this answer */
  int estimated;      /* the server did not say, these are the expected ones */
} sw_reply;

typedef struct {
  void *context;
  /* 1: *out is the next question; 0: there is none; -1. */
  int (*next)(void *context, sw_question *out);
  /* Replaces `body` by the request. */
  int (*body)(void *context, const sw_question *question, sw_buffer *body);
  /* 0: an answer that can be used; 1: it cannot, *reason says why; -1. */
  int (*check)(void *context, const sw_question *question, const char *text, size_t bytes, const char **reason);
  int (*done)(void *context, const sw_question *question, const sw_reply *reply);
} sw_ask_job;

typedef enum { SW_ASK_ALL, SW_ASK_BUDGET, SW_ASK_TROUBLE, SW_ASK_REFUSED, SW_ASK_SIGNAL } sw_ask_end;

typedef struct {
  uint64_t requests, retries, answers, set_aside;
  sw_ask_end end;
  char why[320]; /* of an end before the last question */
} sw_ask_counts;

/* Asks until there is no question, the budget is reached, a signal (SIGINT, SIGTERM) comes, or the server is in so much trouble that going on makes no
 * sense (REFUSED: and would not later, either): then the answers under way are waited for. -1: a failure that no patience heals (a refused key, a certificate that is not trusted). */
int sw_ask(const sw_ask_options *options, const sw_ask_job *job, double total, sw_ask_counts *counts);
void sw_question_close(sw_question *question);
#endif
