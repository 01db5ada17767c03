#include "tools/label/ask.h"
#include "base/error.h"
#include "base/progress.h"
#include "engine/store/http.h"
#include "engine/store/json.h"

#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { IN_A_ROW = 8, CONNECT_SECONDS = 20, LONGEST_WAIT = 600, KEPT = 1 << 18, MOST_TOKENS = 100000000 };

/* --- limits --- */

/* So many in any minute: a burst of a tenth of a second's worth, at least one, and a rate a little below, so that what the network delays does not add
 * up at the server. `level` may fall below 0, where something cost more than was expected. */
typedef struct {
  double rate, capacity, level, at; /* rate 0: no limit */
} bucket;

static bucket bucket_open(double per_minute, double least, double now) {
  if (!(per_minute > 0)) return (bucket){0};
  const double burst = per_minute / 600;
  return (bucket){.rate = (per_minute - burst) / 61, .capacity = least + burst, .level = least + burst, .at = now};
}

/* Seconds until `amount` may be taken; more than a full bucket may be taken from a full one. */
static double bucket_wait(bucket *b, double amount, double now) {
  if (b->rate <= 0) return 0;
  b->level += (now - b->at) * b->rate;
  b->at = now;
  if (b->level > b->capacity) b->level = b->capacity;
  const double wanted = amount < b->capacity ? amount : b->capacity;
  return b->level >= wanted ? 0 : (wanted - b->level) / b->rate;
}

/* --- slots --- */

typedef struct {
  CURL *curl;
  int used, running;
  int failures, again; /* of the present question; it was asked before */
  double due;   /* when it may be asked again */
  sw_question question;
  sw_buffer body, answer;
  int too_long, hopeless; /* hopeless: asking again would not have helped */
  double reserved, taken; /* while it runs: its expected price, and tokens */
  char retry_after[64], error[CURL_ERROR_SIZE];
} slot;

typedef struct {
  const sw_ask_options *o;
  const sw_ask_job *job;
  sw_ask_counts *counts;
  CURLM *multi;
  slot *slots; /* [o->parallel] */
  struct curl_slist *headers;
  bucket requests, tokens;
  double held;  /* when the server wants to hear nothing before */
  double spent; /* money, with what is under way at its expected price in `reserved` */
  double reserved;
  double asked_in, billed_in, asked_out, billed_out; /* tokens expected and billed so far: how good the guesses are */
  int heard;                  /* an answer of status 200 came: address, model and key are right */
  int under_way;              /* requests */
  int trouble;                /* questions set aside in a row */
  int turned_away;            /* answers of status 429 in a row */
  int no_more, fatal;
  char why[400]; /* of fatal */
  double finished;
  sw_progress progress;
} asker;

static volatile sig_atomic_t signalled;
static void on_signal(int number) { signalled++; }

void sw_question_close(sw_question *q) {
  free(q->text);
  q->text = NULL;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *data) {
  slot *s = data;
  if (s->answer.size + size * count > SW_MAX_ANSWER) s->too_long = 1;
  return s->too_long || sw_buffer_append(&s->answer, bytes, size * count) ? 0 : size * count;
}

static size_t on_header(char *line, size_t size, size_t count, void *data) {
  static const char name[] = "retry-after:";
  slot *s = data;
  const size_t bytes = size * count, n = sizeof name - 1;
  if (bytes > 5 && !memcmp(line, "HTTP/", 5)) s->retry_after[0] = 0;
  if (bytes > n && bytes - n < sizeof s->retry_after && !strncasecmp(line, name, n)) {
    size_t from = n, to = bytes;
    while (from < to && (line[from] == ' ' || line[from] == '\t')) from++;
    while (to > from && (unsigned char)line[to - 1] <= ' ') to--;
    memcpy(s->retry_after, line + from, to - from);
    s->retry_after[to - from] = 0;
  }
  return bytes;
}

static double price(const asker *a, double in, double out) { return (in * a->o->price_in + out * a->o->price_out) / 1e6; }

/* Bills so far correct the guesses. */
static double expected_in(const asker *a, const sw_question *q) { return a->asked_in > 0 ? q->tokens_in * a->billed_in / a->asked_in : q->tokens_in; }

static double expected_out(const asker *a, const sw_question *q) { return a->asked_out > 0 ? q->tokens_out * a->billed_out / a->asked_out : q->tokens_out; }

static double expected_tokens(const asker *a, const sw_question *q) { return expected_in(a, q) + expected_out(a, q); }

/* How long answers are can only be known from the first. */
static double expected_price(const asker *a, const sw_question *q) {
  const double out = expected_out(a, q);
  return price(a, expected_in(a, q), !a->heard && out < a->o->max_tokens ? a->o->max_tokens : out);
}

/* 1: there is money for one more; 0: not before the requests under way tell what they cost; with `no_more`, not at all. */
static int afford(asker *a, const sw_question *q) {
  if (a->o->budget <= 0 || a->spent + a->reserved + expected_price(a, q) <= a->o->budget) return 1;
  if (a->under_way) return 0;
  a->no_more = 1;
  a->counts->end = SW_ASK_BUDGET;
  snprintf(a->counts->why, sizeof a->counts->why, "the budget of %.2f is reached: %.4f is spent, one more answer may cost %.4f", a->o->budget, a->spent,
           expected_price(a, q));
  return 0;
}

static int start(asker *a, slot *s, double now) {
  curl_easy_reset(s->curl); /* keeps connections */
  sw_http_set_up(s->curl);
  sw_buffer_clear(&s->body);
  if (a->job->body(a->job->context, &s->question, &s->body)) return -1;
  sw_buffer_clear(&s->answer);
  s->too_long = 0;
  s->retry_after[0] = s->error[0] = 0;
  sw_http_set_url(s->curl, a->o->url);
  curl_easy_setopt(s->curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, a->headers);
  curl_easy_setopt(s->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.size);
  curl_easy_setopt(s->curl, CURLOPT_POSTFIELDS, s->body.data);
  curl_easy_setopt(s->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
  curl_easy_setopt(s->curl, CURLOPT_TIMEOUT, (long)a->o->seconds);
  curl_easy_setopt(s->curl, CURLOPT_ACCEPT_ENCODING, "");
  curl_easy_setopt(s->curl, CURLOPT_ERRORBUFFER, s->error);
  curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s);
  curl_easy_setopt(s->curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(s->curl, CURLOPT_HEADERDATA, s);
  curl_easy_setopt(s->curl, CURLOPT_PRIVATE, s);
  if (curl_multi_add_handle(a->multi, s->curl)) return sw_fail("libcurl cannot start a request");
  a->requests.level -= 1;
  a->tokens.level -= s->taken = expected_tokens(a, &s->question);
  a->reserved += s->reserved = expected_price(a, &s->question);
  a->counts->requests++;
  a->counts->retries += (uint64_t)s->again;
  s->again = 1;
  s->running = 1;
  a->under_way++;
  return 0;
}

/* Fills free slots and starts what is due. *wait: seconds until the next may start. */
static int fill(asker *a, double *wait) {
  double now = sw_clock();
  *wait = 1;
  for (int i = 0; i < a->o->parallel && !a->fatal; i++) {
    slot *s = &a->slots[i];
    if (s->running) continue;
    if (!s->used) {
      if (a->no_more) continue;
      const int more = a->job->next(a->job->context, &s->question);
      if (more < 0) return -1;
      if (!more) {
        a->no_more = 1;
        continue;
      }
      s->used = 1;
      s->failures = s->again = 0;
      s->due = 0;
    }
    if (a->counts->end != SW_ASK_ALL) { /* for another run */
      sw_question_close(&s->question);
      s->used = 0;
      continue;
    }
    double left = s->due - now, turn = bucket_wait(&a->requests, 1, now), room = bucket_wait(&a->tokens, expected_tokens(a, &s->question), now);
    if (a->held - now > left) left = a->held - now;
    if (turn > left) left = turn;
    if (room > left) left = room;
    if (left > 0) {
      if (left < *wait) *wait = left;
    } else if (!afford(a, &s->question)) {
      if (a->under_way) continue;
      sw_question_close(&s->question);
      s->used = 0;
    } else if (start(a, s, now)) {
      return -1;
    }
  }
  return 0;
}

/* --- answers --- */

/* A copy of the string without the key, which JSON can write in many ways. */
static char *read_string(const asker *a, const json_t *string) {
  char *text = sw_strndup(json_string_value(string), json_string_length(string));
  if (text) sw_http_hide(text, json_string_length(string), a->o->key);
  return text;
}

/* What the server says of an error, on one line. */
static void server_says(const asker *a, const slot *s, char out[160]) {
  json_error_t error;
  json_t *answer = NULL;
  out[0] = 0;
  if (!s->answer.size || sw_json_row(s->answer.data, s->answer.size, 0, &answer, &error) || !answer) return;
  const json_t *of = json_object_get(answer, "error");
  const json_t *message = json_is_string(of) ? of : json_object_get(of ? of : answer, "message");
  char *text = json_is_string(message) ? read_string(a, message) : NULL;
  if (text) {
    size_t n = strnlen(text, 140);
    while (n && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
    snprintf(out, 160, ": %.*s", (int)n, text);
  }
  for (char *c = out; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
  free(text);
  json_decref(answer);
}

/* Quota used up: waiting a minute does not help. */
static int no_money(const slot *s, long status) {
  return status == 402 || (status == 429 && s->answer.size && memmem(s->answer.data, s->answer.size, "insufficient_quota", 18));
}

static void stop_for(asker *a, sw_ask_end end, const char *why) {
  if (a->counts->end != SW_ASK_ALL) return;
  a->counts->end = end;
  a->no_more = 1;
  snprintf(a->counts->why, sizeof a->counts->why, "%s", why);
}

static int give_back(asker *a, slot *s, const sw_reply *reply) {
  a->finished++;
  if (reply->text) {
    a->counts->answers++;
    a->trouble = 0;
  } else {
    a->counts->set_aside++;
    char why[320];
    snprintf(why, sizeof why, "%d questions in a row got no answer that can be used; the last: %s", IN_A_ROW, reply->reason);
    if (!s->question.before && ++a->trouble >= IN_A_ROW) stop_for(a, s->hopeless ? SW_ASK_REFUSED : SW_ASK_TROUBLE, why);
  }
  const int status = a->job->done(a->job->context, &s->question, reply);
  sw_question_close(&s->question);
  if (s->answer.capacity > KEPT) sw_buffer_close(&s->answer);
  s->used = 0;
  return status;
}

/* After a failure: asks again later, or gives the question back. */
static int try_again(asker *a, slot *s, sw_reply *reply, int later, double wait) {
  s->hopeless = !later;
  reply->final = !later || ++s->failures >= a->o->tries;
  if (reply->final) return give_back(a, s, reply);
  s->due = sw_clock() + (wait < LONGEST_WAIT ? wait : LONGEST_WAIT);
  return reply->tokens_in || reply->tokens_out ? a->job->done(a->job->context, &s->question, reply) : 0;
}

/* The run ends as soon as the other answers that are here are written down. */
static int fatal(asker *a, long status, const char *says) {
  const sw_ask_options *o = a->o;
  a->fatal = 1;
  if (!status)
    snprintf(a->why, sizeof a->why, "the server's certificate is not trusted (%s); name the authority that signed it with SSL_CERT_FILE", says);
  else if (status == 401 || status == 403)
    snprintf(a->why, sizeof a->why, "the server refuses the key of %s (HTTP %ld)%s; set %s to one that may use it", o->key ? o->key_name : "no variable", status, says,
             o->key_name);
  else if (status >= 300 && status < 400)
    snprintf(a->why, sizeof a->why, "the server sends us to another address (HTTP %ld), where the key must not go; check --base-url", status);
  else
    snprintf(a->why, sizeof a->why, "the server knows no such address or model (HTTP %ld)%s; check --base-url and --model", status, says);
  return 0;
}

/* Of the whole run's settings; 403 and 404 only where no answer has come: later they mean one sentence, or a server in trouble. */
static int is_fatal(const asker *a, long status) { return status == 401 || (status >= 300 && status < 400) || (!a->heard && (status == 403 || status == 404)); }

/* What the server did not say of its bill. */
static void guess_bill(const asker *a, const sw_question *q, sw_reply *reply) {
  reply->estimated = 1;
  reply->tokens_in = (uint64_t)expected_in(a, q);
  reply->tokens_out = (uint64_t)expected_out(a, q);
}

static void pay(asker *a, const slot *s, const sw_reply *reply) {
  a->tokens.level += s->taken - (double)reply->tokens_in - (double)reply->tokens_out;
  a->spent += price(a, (double)reply->tokens_in, (double)reply->tokens_out);
}

/* A number of tokens that can be true. */
static int is_usage(const json_t *n) { return json_is_integer(n) && json_integer_value(n) >= 0 && json_integer_value(n) <= MOST_TOKENS; }

/* A response of status 429 means all of us and is no fault of the question's: everybody waits. */
static void on_turned_away(asker *a, slot *s, const char *reason) {
  const double wait = sw_http_wait(a->turned_away++ / a->o->parallel + 1, s->retry_after), until = sw_clock() + wait;
  if (until > a->held) a->held = until;
  if (wait > LONGEST_WAIT || a->turned_away > a->o->tries * a->o->parallel) stop_for(a, SW_ASK_TROUBLE, reason);
}

/* A response of status 200. */
static int on_answer(asker *a, slot *s) {
  a->turned_away = 0;
  a->heard = 1;
  json_error_t error;
  json_t *answer = NULL;
  sw_reply reply = {.reason = "", .final = 1};
  if (sw_json_row(s->answer.data ? s->answer.data : "", s->answer.size, 0, &answer, &error)) return -1;
  const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0), *content = json_object_get(json_object_get(choice, "message"), "content");
  const json_t *usage = json_object_get(answer, "usage"), *in = json_object_get(usage, "prompt_tokens"), *out = json_object_get(usage, "completion_tokens");
  const char *why = sw_json_string(choice, "finish_reason"), *refusal = sw_json_string(json_object_get(choice, "message"), "refusal");
  if (is_usage(in) && is_usage(out)) {
    a->asked_in += s->question.tokens_in;
    a->asked_out += s->question.tokens_out;
    a->billed_in += (double)(reply.tokens_in = (uint64_t)json_integer_value(in));
    a->billed_out += (double)(reply.tokens_out = (uint64_t)json_integer_value(out));
  } else if (answer) {
    guess_bill(a, &s->question, &reply);
  }
  pay(a, s, &reply);
  char *text = json_is_string(content) ? read_string(a, content) : NULL;
  int later = 1, status = json_is_string(content) && !text ? -1 : 0;
  if (!answer) reply.reason = "the server's answer is not valid JSON";
  else if (refusal) reply.reason = "the model refuses to answer", later = 0;
  else if (why && !strcmp(why, "content_filter")) reply.reason = "the server's filter kept the answer back", later = 0;
  else if (why && !strcmp(why, "length")) reply.reason = "the answer was cut off: raise --max-tokens"; /* even where the half of it makes sense */
  else if (!json_is_string(content)) reply.reason = "the server's answer has no choices[0].message.content";
  else if (!status && (status = a->job->check(a->job->context, &s->question, text, json_string_length(content), &reply.reason)) == 0) {
    reply.text = text;
    reply.bytes = json_string_length(content);
  }
  if (status >= 0) status = reply.text ? give_back(a, s, &reply) : try_again(a, s, &reply, later, sw_http_wait(s->failures + 1, NULL));
  free(text);
  json_decref(answer);
  return status;
}

static int on_end(asker *a, slot *s, CURLcode code) {
  long status = 0;
  char says[160], reason[320];
  curl_off_t sent = 0;
  curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(s->curl, CURLINFO_SIZE_UPLOAD_T, &sent);
  curl_multi_remove_handle(a->multi, s->curl);
  s->running = 0;
  a->under_way--;
  a->reserved -= s->reserved;
  sw_http_hide(s->answer.data, s->answer.size, a->o->key);
  if (!code && status == 200) return on_answer(a, s);
  server_says(a, s, says);
  sw_reply reply = {.reason = reason};
  /* what we hung up on is on the server's bill all the same */
  if ((status == 200 || !status) && (s->too_long || (code == CURLE_OPERATION_TIMEDOUT && sent > 0))) guess_bill(a, &s->question, &reply);
  pay(a, s, &reply);
  if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) return fatal(a, 0, s->error[0] ? s->error : curl_easy_strerror(code));
  if (!code && is_fatal(a, status)) return fatal(a, status, says);
  if (s->too_long) snprintf(reason, sizeof reason, "the server's answer is longer than %d bytes", SW_MAX_ANSWER);
  else if (code) snprintf(reason, sizeof reason, "%s", s->error[0] ? s->error : curl_easy_strerror(code));
  else snprintf(reason, sizeof reason, "the server answers with HTTP status %ld%s", status, says);
  if (!code && no_money(s, status)) {
    stop_for(a, SW_ASK_TROUBLE, reason);
    s->used = 0;
    sw_question_close(&s->question);
    return 0;
  }
  if (!code && status == 429) {
    on_turned_away(a, s, reason);
    return 0;
  }
  return try_again(a, s, &reply, s->too_long || sw_http_is_temporary((int)code, status), sw_http_wait(s->failures + 1, status == 503 ? s->retry_after : NULL));
}

/* How many requests ended; -1 on failure. */
static int collect(asker *a) {
  int left, ended = 0;
  for (CURLMsg *m; (m = curl_multi_info_read(a->multi, &left));) {
    char *s = NULL;
    if (m->msg != CURLMSG_DONE) continue;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s);
    if (on_end(a, (slot *)(void *)s, m->data.result)) return -1;
    ended++;
  }
  return ended;
}

static int busy(const asker *a) {
  for (int i = 0; i < a->o->parallel; i++)
    if (a->slots[i].used) return 1;
  return 0;
}

static void show(asker *a) {
  char details[96];
  snprintf(details, sizeof details, "%llu answers, %llu retries, %.4f spent", (unsigned long long)a->counts->answers, (unsigned long long)a->counts->retries, a->spent);
  sw_progress_show(&a->progress, a->finished, details);
}

static int loop(asker *a) {
  double wait;
  while (!a->fatal) {
    if (signalled) stop_for(a, SW_ASK_SIGNAL, "stopped by a signal");
    if (signalled > 1) return 0; /* asked twice: what is under way is not waited for */
    if (fill(a, &wait)) return -1;
    if (!busy(a)) return 0;
    int running;
    if (curl_multi_perform(a->multi, &running)) return sw_fail("libcurl cannot go on with its requests");
    const int ended = collect(a);
    if (ended < 0) return -1;
    show(a);
    if (ended) continue; /* slots are free */
    if (curl_multi_poll(a->multi, NULL, 0, (int)(wait * 1000) + 1, NULL)) return sw_fail("libcurl cannot wait for the server");
  }
  return sw_fail("%s", a->why);
}

static int open_asker(asker *a) {
  const sw_ask_options *o = a->o;
  const double now = sw_clock();
  sw_buffer line = {0};
  a->requests = bucket_open(o->requests_per_minute, 1, now);
  a->tokens = bucket_open(o->tokens_per_minute, 0, now);
  a->slots = sw_alloc_array((unsigned long)o->parallel, sizeof *a->slots);
  a->headers = curl_slist_append(curl_slist_append(NULL, "Content-Type: application/json"), "Expect:");
  int status = a->slots && a->headers ? 0 : -1;
  for (int i = 0; i < o->parallel && !status; i++) {
    if (!(a->slots[i].curl = sw_http_open())) status = -1;
  }
  if (!status && o->key) {
    status = sw_buffer_print(&line, "Authorization: Bearer %s", o->key);
    struct curl_slist *all = status ? NULL : curl_slist_append(a->headers, line.data);
    if (all) a->headers = all;
    else status = -1;
  }
  if (!status && !(a->multi = curl_multi_init())) status = sw_fail("libcurl cannot start");
  sw_buffer_close(&line);
  return status;
}

int sw_ask(const sw_ask_options *options, const sw_ask_job *job, double total, sw_ask_counts *counts) {
  *counts = (sw_ask_counts){0};
  asker a = {.o = options, .job = job, .counts = counts, .spent = options->spent};
  struct sigaction act = {.sa_handler = on_signal}, old[2];
  signalled = 0;
  sigaction(SIGINT, &act, &old[0]);
  sigaction(SIGTERM, &act, &old[1]);
  int status = open_asker(&a);
  sw_progress_open(&a.progress, "label", total, options->quiet);
  if (!status) status = loop(&a);
  sw_progress_close(&a.progress);
  for (int i = 0; a.slots && i < options->parallel; i++) {
    slot *s = &a.slots[i];
    if (s->running) curl_multi_remove_handle(a.multi, s->curl);
    if (s->curl) curl_easy_cleanup(s->curl);
    sw_question_close(&s->question);
    sw_buffer_close(&s->body);
    sw_buffer_close(&s->answer);
  }
  if (a.multi) curl_multi_cleanup(a.multi);
  curl_slist_free_all(a.headers);
  free(a.slots);
  sigaction(SIGINT, &old[0], NULL);
  sigaction(SIGTERM, &old[1], NULL);
  return status;
}
