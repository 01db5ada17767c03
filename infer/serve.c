/* skillwatch infer serve: the jobs of single texts over HTTP. */
#include "base/error.h"
#include "base/launch.h"
#include "base/progress.h"
#include "engine/store/config_file.h"
#include "infer/serve/server.h"
#include "infer/serve/tls.h"

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOK_SECONDS = 1 }; /* how often files of checkpoints are looked at */

static void block_signals(sigset_t *signals) {
  sigemptyset(signals);
  sigaddset(signals, SIGTERM);
  sigaddset(signals, SIGINT);
  sigaddset(signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, signals, NULL); /* before there are threads, which take it over */
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, SIG_DFL); /* a shell's job in the background comes with SIGINT ignored: that it ends at once is to be so there, too */
  signal(SIGINT, SIG_DFL);
}

enum { LOADED = SIGUSR1 }; /* what the thread is told that waits for the end meanwhile */

static void *end_now(void *given) {
  const sigset_t *ends = given;
  int got;
  sigwait(ends, &got);
  if (got == LOADED) return NULL;
  pthread_sigmask(SIG_UNBLOCK, ends, NULL);
  raise(got);
  return NULL;
}

/* Loads what is served, which may take long; meanwhile a signal to end does so at once: nobody has asked yet. */
static int load(sw_server *s, const sw_list *specs, const sw_models_options *models) {
  sigset_t ends;
  pthread_t watch;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, LOADED);
  pthread_sigmask(SIG_BLOCK, &ends, NULL);
  if (pthread_create(&watch, NULL, end_now, &ends)) return sw_fail("cannot start a thread");
  const int status = sw_models_open(specs, models, &s->models);
  pthread_kill(watch, LOADED);
  pthread_join(watch, NULL);
  return status;
}

static void reload(sw_server *s, sw_http *http) {
  const sw_serve_options *o = s->options;
  if (sw_tokens_reload(&s->tokens)) fprintf(stderr, "skillwatch: the tokens stay as they are: %s\n", sw_error());
  if (o->certificate && sw_tls_load(o->certificate, o->key)) fprintf(stderr, "skillwatch: the certificate stays as it is: %s\n", sw_error());
  sw_http_reopen_log(http);
}

static void reload_models(sw_server *s, int force) {
  if (sw_models_reload(&s->models, force) && sw_openapi_update(s)) fprintf(stderr, "skillwatch: /openapi.json stays as it is: %s\n", sw_error());
}

/* Whether a signal to end is waiting: the system gives SIGHUP first, however often it comes. */
static int ends(void) {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT);
}

static void wait_for_end(sw_server *s, sw_http *http, const sigset_t *signals) {
  const struct timespec pause = {.tv_sec = LOOK_SECONDS};
  for (;;) {
    const int got = sigtimedwait(signals, NULL, &pause);
    if (got == SIGTERM || got == SIGINT) return;
    if (ends()) continue;
    if (got == SIGHUP) reload(s, http);
    reload_models(s, got == SIGHUP);
    if (atomic_exchange(&s->trim, 0)) malloc_trim(0);
  }
}

static void tell(const sw_server *s, const sw_infer_options *o, const char *address, int port, double seconds) {
  if (!o->quiet) {
    fprintf(stderr, "skillwatch: serving at %s after %.2f s:", address, seconds);
    for (size_t i = 0; i < s->models.count; i++) {
      const char *before = ": ";
      fprintf(stderr, "%s %s", i ? ";" : "", s->models.names[i]);
      for (int job = 0; job < SW_SERVE_JOBS; job++)
        if (sw_served_can(s->models.items[i], (sw_serve_job)job)) {
          fprintf(stderr, "%s%s", before, sw_serve_job_names[job]);
          before = ", ";
        }
    }
    fprintf(stderr, "\n");
  }
  if (o->json) {
    printf("{\"address\": \"%s\", \"port\": %d, \"seconds\": %.3f}\n", address, port, seconds);
    fflush(stdout);
  }
}

static int serve(const sw_list *specs, sw_models_options *models, const sw_serve_options *o) {
  sw_server server = {.options = o};
  sw_http *http = NULL;
  sigset_t signals;
  char address[128];
  int port;
  const double started = sw_clock();
  block_signals(&signals);
  models->threads = models->common.threads ? models->common.threads : sw_launch_threads();
  sw_metrics_open(&server.metrics);
  pthread_mutex_init(&server.openapi_lock, NULL);
  int status = sw_tokens_open(o->tokens, &server.tokens);
  if (!status) status = load(&server, specs, models);
  if (!status) status = sw_batcher_open(models->threads, sw_metrics_batch, &server.metrics, &server.batcher);
  if (!status) status = sw_openapi_update(&server);
  if (!status) status = sw_page_policy(sw_page, &server.page_policy);
  if (!status) status = sw_http_open(&server, &http, address, &port);
  if (!status) {
    tell(&server, &models->common, address, port, sw_clock() - started);
    wait_for_end(&server, http, &signals);
    signal(SIGHUP, SIG_IGN);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* a second one ends the process at once */
    const int answered = sw_http_drain(http);
    if (!models->common.quiet || !answered) fprintf(stderr, "skillwatch: %s\n", answered ? "every request is answered" : "requests that take too long are ended");
  }
  sw_http_close(http);
  sw_batcher_close(server.batcher);
  sw_models_close(&server.models);
  sw_tokens_close(&server.tokens);
  sw_metrics_close(&server.metrics);
  free(server.openapi);
  pthread_mutex_destroy(&server.openapi_lock);
  sw_buffer_close(&server.page_policy);
  return status;
}

static int check_range(const char *option, int value, int most) {
  return value < 1 || value > most ? sw_fail("--%s must be from 1 to %d", option, most) : 0;
}

static int check(sw_models_options *m, const sw_serve_options *o, const sw_list *specs, const sw_list *inputs) {
  if (inputs->count) return sw_fail("'%s' is not understood: texts come in requests; checkpoints are given with -m FILE", inputs->items[0]);
  if (specs->count == 0) return sw_fail("a checkpoint is needed: -m FILE, once for each (see --help)");
  if (m->texts->count && !m->corpora->count) return sw_fail("--texts are those of a --corpus: give its vectors, too");
  if (!o->certificate != !o->key) return sw_fail("--tls-cert and --tls-key go together");
  if (check_range("timeout", o->timeout, 86400) || check_range("receive-timeout", o->receive_timeout, 86400) || check_range("connections", o->connections, 1 << 20) ||
      check_range("queue", o->queue, 1 << 20) || check_range("max-body", o->body_megabytes, 2047) || check_range("memory", o->memory_megabytes, 1 << 20))
    return -1;
  /* what it reads is the server's own: options of inputs and outputs are at their defaults */
  m->common.model = specs->items[0];
  return sw_infer_check(&m->common, &(sw_list){.count = 1, .items = (const char *[]){"-"}}) || sw_http_check(o) ? -1 : 0;
}

int sw_infer_serve(int argc, char **argv) {
  sw_models_options m = {.prefix = "", .common = SW_INFER_DEFAULTS};
  sw_serve_options o = {.listen = "127.0.0.1:8080", .timeout = 30, .receive_timeout = 30, .connections = 1000, .queue = 1000, .body_megabytes = 16, .memory_megabytes = 1024};
  sw_list specs = {0}, corpora = {0}, texts = {0}, inputs = {0};
  const sw_option options[] = {
      {"model", 'm', SW_OPTION_LIST, &specs, "FILE", "checkpoint, or NAME=FILE (needed; once for each)"},
      {"listen", 0, SW_OPTION_TEXT, &o.listen, "ADDRESS", "where to listen, [::1]:8080 say; port 0: any that is free"},
      {"prefix", 0, SW_OPTION_TEXT, &m.prefix, "TEXT", "put before every text that is embedded"},
      {"corpus", 'c', SW_OPTION_LIST, &corpora, "FILE", "vectors to search in, or NAME=FILE, that infer embed made with one of the models"},
      {"texts", 0, SW_OPTION_LIST, &texts, "FILE", "postings that --corpus was made of: hits come with the beginnings of their texts"},
      {"column", 0, SW_OPTION_TEXT, &m.reading.column, "NAME", "of --texts, as when vectors were made (else: description, text or the only one)"},
      {"id-column", 0, SW_OPTION_TEXT, &m.reading.id_column, "NAME", "of --texts, the same (else: id or job_id, or the row number)"},
      {"map", 0, SW_OPTION_TEXT, &m.map, "FILE", "map.h5 to place texts on, made of such vectors"},
      {"tokens", 0, SW_OPTION_TEXT, &o.tokens, "FILE", "a bearer token a line: requests need one of them"},
      {"public", 0, SW_OPTION_FLAG, &o.is_public, NULL, "lets everybody ask who can reach the address, without a token"},
      {"tls-cert", 0, SW_OPTION_TEXT, &o.certificate, "FILE", "certificate (PEM): speaks HTTPS"},
      {"tls-key", 0, SW_OPTION_TEXT, &o.key, "FILE", "its key (PEM)"},
      {"cors", 0, SW_OPTION_TEXT, &o.cors, "ORIGIN", "pages of this origin may ask, https://example.org or * (else: none)"},
      {"access-log", 0, SW_OPTION_TEXT, &o.access_log, "FILE", "a line of JSON for each request; - for standard output"},
      {"timeout", 0, SW_OPTION_INT, &o.timeout, "SECONDS", "a request may take; then it is answered with 504"},
      {"receive-timeout", 0, SW_OPTION_INT, &o.receive_timeout, "SECONDS", "a client may take to send a request"},
      {"queue", 0, SW_OPTION_INT, &o.queue, "N", "requests that may wait or be computed at a time; others: 429"},
      {"connections", 0, SW_OPTION_INT, &o.connections, "N", "that may be open at a time"},
      {"max-body", 0, SW_OPTION_INT, &o.body_megabytes, "MB", "of a request; a larger one is answered with 413"},
      {"memory", 0, SW_OPTION_INT, &o.memory_megabytes, "MB", "that requests and their answers may take together"},
      {"device", 0, SW_OPTION_TEXT, &m.common.device, "D", "auto, cpu or cuda[:N]"},
      {"dtype", 0, SW_OPTION_TEXT, &m.common.dtype, "T", "fp32 or bf16 (else: fp32 on the CPU)"},
      {"threads", 0, SW_OPTION_INT, &m.common.threads, "N", "worker threads; 0: one a core. Changes no result"},
      {"batch-tokens", 0, SW_OPTION_INT, &m.common.batch_tokens, "N", "tokens of a batch. Changes no result"},
      {"quiet", 'q', SW_OPTION_FLAG, &m.common.quiet, NULL, "says nothing but failures"},
      {"json", 0, SW_OPTION_FLAG, &m.common.json, NULL, "address and port as JSON, to stdout"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer serve -m CHECKPOINT... [options]",
      .summary = "Answers over HTTP what the other jobs answer for files, with the same bits:\n"
                 "  POST /v1/embeddings  as OpenAI's API: {\"input\": text, texts or token ids}\n"
                 "  POST /tag            {\"text\"} or {\"texts\": [...]}: spans with offsets in code points, label, score\n"
                 "  POST /classify       the same, and \"k\": the most probable labels\n"
                 "  POST /multilabel     the same, and \"threshold\": labels that are probable enough\n"
                 "  POST /search         the same, \"k\" and \"corpus\": the nearest of --corpus\n"
                 "  POST /place          the same: where texts are on --map\n"
                 "  GET  /               a page to try it on, in a browser\n"
                 "  GET  /map /models /health/live /health/ready /metrics /openapi.json\n"
                 "Texts of all requests share batches. SIGTERM: what was received is answered, then it ends; a second one, or one before it serves,\n"
                 "ends it at once. SIGHUP: tokens, certificate, log, checkpoints, corpora and map are read anew; the last three also when a file,\n"
                 "or what its link points to, is another one. What cannot be read stays as it was. Who may ask: only this machine, unless --listen\n"
                 "says otherwise; then --tokens or --public is needed.",
      .example = "skillwatch infer serve -m skills=ner.h5 -m base.h5 --listen 127.0.0.1:8080\n"
                 "  curl -H 'Content-Type: application/json' -d '{\"text\": \"You know Python.\"}' http://127.0.0.1:8080/tag",
      .options = options,
  };
  m.corpora = &corpora;
  m.texts = &texts;
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = check(&m, &o, &specs, &inputs);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = serve(&specs, &m, &o) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  sw_list_close(&specs);
  sw_list_close(&corpora);
  sw_list_close(&texts);
  sw_list_close(&inputs);
  return status;
}
