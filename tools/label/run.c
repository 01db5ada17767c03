#include "tools/label/run.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/store/checkpoint.h"
#include "engine/store/http.h"
#include "engine/store/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int sw_label_is_picked(const sw_label_options *o, uint64_t number) {
  size_t low = 0, high = o->num_picked;
  if (!o->picked) return 1;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (o->picked[middle].number < number) low = middle + 1;
    else high = middle;
  }
  return low < o->num_picked && o->picked[low].number == number;
}

static int open_stream(const sw_label_options *o, const char *rejected, sw_sentences *out) {
  sw_postings_options reading = o->postings;
  reading.rejected_path = rejected;
  return sw_sentences_open(o->inputs.items, (size_t)o->inputs.count, &reading, o->whole, out);
}

static double price(const sw_label_options *o, double in, double out) { return (in * o->price_in + out * o->price_out) / 1e6; }

static double spent(const sw_label_run *r) { return price(r->o, (double)r->book.tokens_in, (double)r->book.tokens_out); }

/* --- before --- */

static int look_at(sw_label_run *r, const sw_sentence *s) {
  for (int vote = 0; vote < r->o->prompt.votes; vote++) {
    char key[65];
    if (sw_prompt_key(&r->prompt, s->text, s->bytes, vote, key)) return -1;
    const sw_book_state state = sw_book_find(&r->book, key);
    if (state == SW_BOOK_ANSWERED) {
      r->before++;
      continue;
    }
    const size_t known = r->book.count;
    if (sw_book_mark(&r->book, key, state == SW_BOOK_BEFORE || state == SW_BOOK_AGAIN ? SW_BOOK_AGAIN : SW_BOOK_UNKNOWN)) return -1;
    if (r->book.count == known && state != SW_BOOK_BEFORE) {
      r->alike++;
    } else if (sw_book_is_cached(&r->book, key)) {
      r->before++;
    } else {
      r->to_ask++;
      r->tokens_in += sw_prompt_tokens_in(&r->prompt, s->bytes);
      r->tokens_out += sw_prompt_tokens_out(&r->prompt, s->bytes);
    }
  }
  return 0;
}

/* Counts what there is to ask. */
static int survey(sw_label_run *r) {
  sw_sentences stream = {0};
  sw_sentence s;
  int status = open_stream(r->o, NULL, &stream), more = 0;
  for (uint64_t number = 0; !status && (more = sw_sentences_next(&stream, &s)) > 0; number++) {
    if (!sw_label_is_picked(r->o, number)) continue;
    r->sentences++;
    if (s.bytes > SW_MAX_SENTENCE) r->too_long++;
    else status = look_at(r, &s);
  }
  if (more < 0) status = -1;
  if (!status && !r->sentences) {
    const char *reason = sw_postings_reason(stream.postings, 0);
    status = sw_fail("no sentence can be used%s%s", reason ? ": " : "", reason ? reason : "");
  }
  if (stream.postings) sw_sentences_close(&stream);
  return status;
}

static void tell_plan(const sw_label_run *r) {
  const sw_label_options *o = r->o;
  const double money = price(o, r->tokens_in, r->tokens_out);
  if (o->quiet) return;
  fprintf(stderr, "label: %llu sentence%s, %llu question%s to ask", (unsigned long long)r->sentences, SW_S(r->sentences), (unsigned long long)r->to_ask, SW_S(r->to_ask));
  if (r->before || r->alike)
    fprintf(stderr, " (%llu answered before, %llu about a sentence that comes again)", (unsigned long long)r->before, (unsigned long long)r->alike);
  fprintf(stderr, "; about %.0f tokens in and %.0f out", r->tokens_in, r->tokens_out);
  if (o->price_in > 0 || o->price_out > 0) fprintf(stderr, ", which cost about %.2f", money);
  fprintf(stderr, "\n");
}

/* --- asking --- */

static int next_question(void *context, sw_question *out) {
  sw_label_run *r = context;
  for (;;) {
    if (++r->vote >= r->o->prompt.votes || !r->number) { /* the next sentence */
      const int more = sw_sentences_next(&r->stream, &r->sentence);
      if (more <= 0) return more;
      r->vote = 0;
      r->number++;
      if (r->sentence.bytes > SW_MAX_SENTENCE || !sw_label_is_picked(r->o, r->number - 1)) {
        r->vote = r->o->prompt.votes;
        continue;
      }
    }
    const sw_sentence *s = &r->sentence;
    *out = (sw_question){.bytes = s->bytes, .vote = r->vote};
    if (sw_prompt_key(&r->prompt, s->text, s->bytes, r->vote, out->key)) return -1;
    const sw_book_state state = sw_book_find(&r->book, out->key);
    out->before = state == SW_BOOK_AGAIN;
    if (state != SW_BOOK_UNKNOWN && state != SW_BOOK_AGAIN) continue;
    const int cached = sw_book_fetch(&r->book, out->key);
    if (cached < 0) return -1;
    if (cached) continue;
    out->tokens_in = sw_prompt_tokens_in(&r->prompt, s->bytes);
    out->tokens_out = sw_prompt_tokens_out(&r->prompt, s->bytes);
    out->text = sw_strndup(s->text, s->bytes);
    return out->text && !sw_book_mark(&r->book, out->key, SW_BOOK_UNDER_WAY) ? 1 : -1;
  }
}

static int make_body(void *context, const sw_question *q, sw_buffer *body) {
  const sw_label_run *r = context;
  return sw_prompt_body(&r->prompt, q->text, q->bytes, q->vote, body);
}

static int check_answer(void *context, const sw_question *q, const char *text, size_t bytes, const char **reason) {
  sw_label_run *r = context;
  *reason = r->reason;
  return sw_answer_read(text, bytes, q->text, q->bytes, &r->o->labels, &r->mentions, r->reason);
}

static int keep_answer(void *context, const sw_question *q, const sw_reply *reply) {
  sw_label_run *r = context;
  return sw_book_put(&r->book, q->key, reply);
}

static int ask(sw_label_run *r) {
  sw_ask_options options = r->o->ask;
  options.url = r->o->url;
  options.key = r->o->key;
  options.price_in = r->o->price_in;
  options.price_out = r->o->price_out;
  options.budget = r->o->budget;
  options.max_tokens = r->o->prompt.max_tokens;
  options.spent = spent(r);
  options.quiet = r->o->quiet;
  const sw_ask_job job = {r, next_question, make_body, check_answer, keep_answer};
  r->number = 0;
  r->vote = 0;
  int status = open_stream(r->o, NULL, &r->stream) ? -1 : sw_ask(&options, &job, (double)r->to_ask, &r->asked);
  if (r->stream.postings) sw_sentences_close(&r->stream);
  return status;
}

/* --- the output --- */

typedef struct {
  sw_label_run *run;
  sw_row_writer writer;
  sw_rejects rejects;
  sw_label_words words;
  sw_label_spans spans;
  sw_verifier verifier;
  sw_buffer answer, row;
  const sw_sentence *sentence;
} publication;

static int set_aside(publication *p, const char *reason) {
  const sw_sentence *s = p->sentence;
  return sw_rejects_add(&p->rejects, s->posting, s->number, reason, s->text, s->bytes);
}

static int drop_mention(void *context, const sw_mention *m, const char *why) {
  publication *p = context;
  char reason[240];
  int n = m->bytes > 100 ? 100 : (int)m->bytes;
  sw_http_hide(m->text, m->bytes, p->run->o->key); /* tags may have kept its parts apart */
  while (n && n < (int)m->bytes && ((unsigned char)m->text[n] & 0xC0) == 0x80) n--;
  snprintf(reason, sizeof reason, "dropped: \"%.*s\" %s", n, m->text, why);
  p->run->dropped++;
  return set_aside(p, reason);
}

/* Gathers the answers about the sentence: how many there are, -1 on failure; `reason` says why one is missing. */
static int gather(publication *p, char reason[SW_REASON]) {
  sw_label_run *r = p->run;
  const sw_sentence *s = p->sentence;
  int answers = 0;
  p->spans.count = 0;
  for (int vote = 0; vote < r->o->prompt.votes; vote++) {
    char key[65];
    if (sw_prompt_key(&r->prompt, s->text, s->bytes, vote, key)) return -1;
    const sw_book_state state = sw_book_find(&r->book, key);
    if (state != SW_BOOK_ANSWERED && state != SW_BOOK_SET_ASIDE) return sw_fail("the inputs changed while they were in use; run the command again");
    if (sw_book_read(&r->book, key, &p->answer)) return -1;
    int status = 1;
    if (state == SW_BOOK_SET_ASIDE) snprintf(reason, SW_REASON, "no label: %.200s", p->answer.data);
    else status = sw_answer_read(p->answer.data, p->answer.size, s->text, s->bytes, &r->o->labels, &r->mentions, reason);
    if (!status) status = sw_verify(&p->verifier, &p->words, &r->mentions, &r->o->labels, answers, &p->spans, drop_mention, p);
    if (status < 0) return -1;
    answers += !status;
  }
  return answers;
}

static int publish_sentence(publication *p, FILE *file) {
  sw_label_run *r = p->run;
  const sw_sentence *s = p->sentence;
  char reason[SW_REASON] = "";
  double weight;
  if (s->bytes > SW_MAX_SENTENCE) {
    snprintf(reason, sizeof reason, "no label: the sentence is longer than %d bytes", SW_MAX_SENTENCE);
    r->unlabelled++;
    return set_aside(p, reason);
  }
  if (sw_label_words_read(&p->words, s->text, s->bytes)) return -1;
  const int answers = gather(p, reason);
  if (answers < 0) return -1;
  if (2 * answers <= r->o->prompt.votes || !p->words.words.count) { /* no majority can be known; or nothing but control characters */
    r->unlabelled++;
    return set_aside(p, reason[0] ? reason : "no label: the sentence has no word");
  }
  sw_settle(&p->spans, answers, &weight);
  r->labelled++;
  r->spans += p->spans.count;
  if (sw_row_print(&p->writer, s, &p->words, &p->spans, weight, answers, &p->row)) return -1;
  return fwrite(p->row.data, p->row.size, 1, file) == 1 ? 0 : sw_fail("cannot write %s: the disk is full or fails", r->o->output);
}

/* Rows that the reader of postings set aside, into the same file as ours. */
static int join_rejects(publication *p) {
  const char *path = p->run->o->rows;
  sw_buffer text = {0};
  json_error_t error;
  if (!sw_exists(path)) return 0;
  int status = sw_file_read(path, 0, &text);
  for (char *at = text.data; at && *at && !status;) {
    const size_t n = strcspn(at, "\n");
    json_t *row = NULL;
    status = sw_json_row(at, n, 0, &row, &error);
    const json_t *cut = json_object_get(row, "row");
    if (row) {
      status = sw_rejects_add(&p->rejects, sw_json_string(row, "file"), (uint64_t)json_integer_value(json_object_get(row, "line")), sw_json_string(row, "reason"),
                              json_string_value(cut), json_string_length(cut));
      p->run->rows_rejected++;
    }
    json_decref(row);
    at += n + (at[n] == '\n');
  }
  sw_buffer_close(&text);
  return status;
}

static int publish(sw_label_run *r, const sw_tokenizer *tokenizer) {
  const sw_label_options *o = r->o;
  publication p = {.run = r, .writer = {.form = o->form, .labels = &o->labels, .tokenizer = tokenizer, .model = o->prompt.model}};
  sw_sentences stream = {0};
  sw_sentence s;
  sw_output output = {0};
  unlink(o->rows); /* of a run that was killed */
  int more = 0, status = sw_rejects_open(&p.rejects, o->rejected) || sw_output_open(&output, o->output) ? -1 : 0;
  if (!status) status = open_stream(o, o->rows, &stream);
  for (uint64_t number = 0; !status && (more = sw_sentences_next(&stream, &s)) > 0; number++) {
    p.sentence = &s;
    if (sw_label_is_picked(o, number)) status = publish_sentence(&p, output.file);
  }
  if (more < 0) status = -1;
  if (stream.postings && sw_sentences_close(&stream)) status = -1;
  if (!status) status = join_rejects(&p);
  unlink(o->rows);
  if (!status && fputs(sw_row_end(&p.writer), output.file) < 0) status = -1;
  if (!status && !r->labelled) status = sw_fail("no sentence got a label that can be used; %s: the reasons are in %s", p.rejects.reason, o->rejected);
  if (!status || r->unlabelled) status = sw_rejects_commit(&p.rejects) || status ? -1 : 0;
  if (!status) status = sw_output_commit(&output);
  else sw_output_abandon(&output);
  sw_rejects_close(&p.rejects);
  sw_row_writer_close(&p.writer);
  sw_label_words_close(&p.words);
  sw_label_spans_close(&p.spans);
  sw_verifier_close(&p.verifier);
  sw_buffer_close(&p.answer);
  sw_buffer_close(&p.row);
  return status;
}

/* --- telling --- */

static void tell_bill(const sw_label_run *r) {
  const sw_label_options *o = r->o;
  const sw_book *b = &r->book;
  if (o->quiet) return;
  fprintf(stderr, "label: %llu answer%s by %s (%llu request%s, %llu of them again), %llu from the cache; %llu tokens in and %llu out",
          (unsigned long long)b->answered, SW_S(b->answered), o->prompt.model, (unsigned long long)r->asked.requests, SW_S(r->asked.requests),
          (unsigned long long)r->asked.retries, (unsigned long long)b->cached, (unsigned long long)b->tokens_in, (unsigned long long)b->tokens_out);
  if (o->price_in > 0 || o->price_out > 0) fprintf(stderr, ", which cost %.4f", spent(r));
  if (b->estimated) fprintf(stderr, " (guessed for %llu answer%s, whose usage the server did not say)", (unsigned long long)b->estimated, SW_S(b->estimated));
  fprintf(stderr, "\n");
}

static void tell_labels(const sw_label_run *r) {
  const sw_label_options *o = r->o;
  if (!o->quiet) {
    fprintf(stderr, "label: %s: %llu sentence%s with %llu span%s", o->output, (unsigned long long)r->labelled, SW_S(r->labelled), (unsigned long long)r->spans, SW_S(r->spans));
    if (r->dropped || r->unlabelled || r->rows_rejected)
      fprintf(stderr, "; in %s: %llu mention%s dropped, %llu sentence%s without an answer, %llu unusable row%s", o->rejected, (unsigned long long)r->dropped,
              SW_S(r->dropped), (unsigned long long)r->unlabelled, SW_S(r->unlabelled), (unsigned long long)r->rows_rejected, SW_S(r->rows_rejected));
    fprintf(stderr, "\n");
  }
}

static int tell_json(const sw_label_run *r) {
  char date[16];
  struct tm utc;
  const time_t now = time(NULL);
  strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&now, &utc)); /* of the bill: skillwatch report draws costs by week */
  json_t *all = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "sentences", (json_int_t)r->sentences, "questions", (json_int_t)r->to_ask, "labelled",
                          (json_int_t)r->labelled, "set_aside", (json_int_t)r->unlabelled, "rejected", (json_int_t)r->rows_rejected, "spans", (json_int_t)r->spans, "dropped",
                          (json_int_t)r->dropped, "requests", (json_int_t)r->asked.requests, "retries", (json_int_t)r->asked.retries, "answers",
                          (json_int_t)r->book.answered, "cached", (json_int_t)r->book.cached, "tokens_in", (json_int_t)r->book.tokens_in, "tokens_out",
                          (json_int_t)r->book.tokens_out, "cost", spent(r));
  if (all) json_object_set_new(all, "date", json_string(date));
  if (all && r->o->dry_run) {
    json_object_set_new(all, "expected_tokens_in", json_real(r->tokens_in));
    json_object_set_new(all, "expected_tokens_out", json_real(r->tokens_out));
    json_object_set_new(all, "expected_cost", json_real(price(r->o, r->tokens_in, r->tokens_out)));
  }
  char *text = all ? sw_json_canonical(all) : NULL;
  json_decref(all);
  if (text) puts(text);
  fflush(stdout); /* before the journal goes: the bill is told whenever the run is killed */
  free(text);
  return text ? 0 : sw_fail("out of memory");
}

static int run(sw_label_run *r, int *code) {
  const sw_label_options *o = r->o;
  sw_checkpoint checkpoint;
  sw_tokenizer *tokenizer = NULL;
  sw_checkpoint_init(&checkpoint);
  int status = o->form == SW_WRITE_TOKENS ? sw_checkpoint_read(o->checkpoint, &checkpoint) || sw_checkpoint_tokenizer(&checkpoint, &tokenizer) : 0;
  sw_checkpoint_close(&checkpoint);
  if (!status) status = sw_prompt_open(&o->prompt, &o->labels, &r->prompt) || sw_book_open(o->output, o->cache, o->resume, &r->book) || survey(r);
  if (!status) tell_plan(r);
  if (!status && !o->dry_run) {
    status = ask(r);
    if (r->book.answered || r->asked.requests) tell_bill(r);
    if (!status && r->asked.end != SW_ASK_ALL) {
      *code = r->asked.end == SW_ASK_REFUSED ? SW_EXIT_FAILED : SW_EXIT_AGAIN;
      status = sw_fail("%s; what was answered is kept, the same command goes on from there", r->asked.why);
    }
    if (!status) status = publish(r, tokenizer);
    if (!status) tell_labels(r);
  }
  if (!status && o->json) status = tell_json(r);
  sw_book_close(&r->book, !status && !o->dry_run);
  sw_prompt_close(&r->prompt);
  sw_mentions_close(&r->mentions);
  sw_tokenizer_close(tokenizer);
  return status ? -1 : 0;
}

int sw_label_run_all(const sw_label_options *options) {
  sw_label_run r = {.o = options, .book = {.journal = {.file = -1}}};
  int code = SW_EXIT_FAILED;
  return run(&r, &code) ? sw_exit_message(code) : SW_EXIT_DONE;
}
