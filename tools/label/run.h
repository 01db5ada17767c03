/* A run of skillwatch label: what is to be asked, the asking, and the output. */
#ifndef SW_LABEL_RUN_H
#define SW_LABEL_RUN_H
#include "base/options.h"
#include "engine/data/rejects.h"
#include "tools/label/book.h"
#include "tools/label/prompt.h"
#include "tools/label/write.h"

typedef struct {
  sw_prompt_options prompt;
  sw_ask_options ask; /* without url and key */
  sw_label_names labels;
  sw_postings_options postings;
  sw_list inputs; /* borrowed */
  const char *output, *rejected, *cache, *checkpoint;
  const char *rows; /* for the reader of postings: what it sets aside, until `rejected` takes it */
  char *url;              /* owned */
  const char *key;
  sw_write_form form;
  int whole, resume, dry_run, quiet, json;
  double price_in, price_out, budget;
  struct sw_picked {
    uint64_t number;      /* of a sentence, among all of the inputs, from 0 */
    double score;
  } *picked;              /* [num_picked] those that are asked about, ascending by number; NULL: all */
  size_t num_picked;
} sw_label_options;

typedef struct {
  const sw_label_options *o;
  sw_prompt prompt;
  sw_book book;
  uint64_t sentences, too_long, alike, before, to_ask; /* questions but for the first two */
  double tokens_in, tokens_out;                        /* expected of those to ask */
  sw_sentences stream;                                 /* while asking */
  sw_sentence sentence;
  uint64_t number;                                     /* of it, from 0 */
  int vote;
  sw_mentions mentions;                                /* scratch */
  char reason[SW_REASON];
  sw_ask_counts asked;
  uint64_t spans, dropped, labelled, unlabelled, rows_rejected;
} sw_label_run;

/* Does it all; returns an exit status (base/options.h), with its message printed. */
int sw_label_run_all(const sw_label_options *options);
/* 1 where sentence `number` is to be labelled. */
int sw_label_is_picked(const sw_label_options *options, uint64_t number);
#endif
