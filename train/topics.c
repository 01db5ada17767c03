/* skillwatch train topics: what postings are about, by latent Dirichlet allocation. */
#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/progress.h"
#include "engine/learn/coherence.h"
#include "engine/model/lda.h"
#include "engine/store/config_file.h"
#include "train/setup.h"
#include "train/tasks.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_ORDER = 12, TOP_WORDS = 20, SHOWN_WORDS = 10 };
static const double SAVE_SECONDS = 60; /* between checkpoints to resume from */

typedef struct {
  sw_setup_options setup;
  sw_list data;
  const char *column, *format, *stems;
  int topics, passes, iterations, chunk, no_below, keep, words_per_document, json;
  double no_above, holdout, alpha, eta, decay, offset, tolerance;
} topics_options;

typedef struct {
  const topics_options *options;
  sw_setup setup;
  sw_documents documents;
  sw_documents_facts facts;
  sw_lda_shape shape;
  sw_bags bags, held_out;
  sw_lda lda;
  sw_lda_room room;
  json_t *run; /* what a resumed run must have in common with its checkpoint */
  char *last_path;
  float *lambda; /* the checkpoint's */
  int64_t chunks, chunk; /* of a pass, and the documents of each but the last */
  int64_t step;          /* chunks done, over all passes */
} topics;

static volatile sig_atomic_t stop_signal;
static void on_signal(int signal) { stop_signal = signal; }

/* --- data --- */

static int read_data(topics *t) {
  const topics_options *o = t->options;
  const int quiet = o->setup.loop.quiet;
  char *rejected = sw_loop_path(o->setup.loop.output, ".rejected.jsonl");
  sw_documents_options reading = {.stemmer = o->stems, .words = (size_t)o->words_per_document, .holdout = o->holdout, .progress = quiet ? NULL : "read",
                                  .postings = {.column = o->column, .rejected_path = rejected}};
  sw_stems *stems = NULL;
  const char **vocab = NULL;
  size_t count = 0;
  int status = rejected ? sw_postings_format_parse(o->format, &reading.postings.format) : -1;
  if (!status) status = sw_documents_read(o->data.items, (size_t)o->data.count, &reading, &t->documents, &stems, &t->facts);
  const size_t learned = t->documents.count - t->documents.num_held_out;
  if (!status && t->facts.rejected && !quiet)
    fprintf(stderr, "%llu unusable row%s set aside in %s\n", (unsigned long long)t->facts.rejected, SW_S(t->facts.rejected), rejected);
  if (!status && t->facts.truncated && !quiet)
    fprintf(stderr, "of %llu posting%s with more than %d words the first are read\n", (unsigned long long)t->facts.truncated, SW_S(t->facts.truncated), SW_DOCUMENT_WORDS);
  if (!status && learned < (size_t)o->no_below)
    status = sw_fail("%zu document%s to learn from, and a word must stand in %d of them (--no-below): give more postings, or a lower --no-below", learned,
                     SW_S(learned), o->no_below);
  if (!status) status = sw_documents_filter(&t->documents, stems, (size_t)o->no_below, o->no_above, (size_t)o->keep, &vocab, &count);
  if (!status && !t->setup.checkpoint.config && !(t->setup.checkpoint.config = json_object())) status = sw_fail("out of memory");
  if (!status) status = sw_checkpoint_set_stems(&t->setup.checkpoint, o->stems, sw_stop_words, sw_num_stop_words, vocab, count);
  t->shape = (sw_lda_shape){.topics = o->topics, .words = (int)count - 1, .alpha = o->alpha > 0 ? o->alpha : 1.0 / o->topics, .eta = o->eta > 0 ? o->eta : 1.0 / o->topics,
                            .tolerance = o->tolerance, .iterations = o->iterations};
  free(vocab);
  sw_stems_close(stems);
  free(rejected);
  return status;
}

/* Bags of the documents to learn from, in an order drawn from the seed, so that a chunk is a sample of all; and of those held out. Documents
 * without a word of the dictionary are left out. */
static int make_bags(topics *t, size_t *empty) {
  const sw_documents *d = &t->documents;
  sw_random random = {.seed = (uint64_t)t->options->setup.loop.seed, .stream = (uint64_t)STREAM_ORDER << 32};
  size_t counts[2] = {0};
  uint32_t *order[2] = {sw_alloc_array(d->count, sizeof **order), sw_alloc_array(d->count, sizeof **order)};
  int status = order[0] && order[1] ? 0 : -1;
  *empty = 0;
  for (size_t i = 0; i < d->count && !status; i++) {
    int known = 0;
    for (size_t at = d->starts[i]; at < d->starts[i + 1] && !known; at++) known = d->ids[at] > 0;
    if (known) order[d->held_out[i]][counts[d->held_out[i]]++] = (uint32_t)i;
    else ++*empty;
  }
  for (size_t i = counts[0]; i > 1 && !status; i--) { /* Fisher, Yates */
    const size_t other = sw_random_below(&random, (uint32_t)i);
    const uint32_t moved = order[0][i - 1];
    order[0][i - 1] = order[0][other];
    order[0][other] = moved;
  }
  if (!status) status = sw_bags_make(d, order[0], counts[0], &t->bags) || sw_bags_make(d, order[1], counts[1], &t->held_out) ? -1 : 0;
  free(order[0]);
  free(order[1]);
  return status;
}

/* --- checkpoints --- */

static json_t *run_facts(const topics *t) {
  const topics_options *o = t->options;
  json_t *hyper = json_pack("{s:i, s:i, s:i, s:i, s:i, s:f, s:i, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:s?}", "topics", o->topics, "passes", o->passes,
                            "iterations", o->iterations, "chunk_size", o->chunk, "no_below", o->no_below, "no_above", o->no_above, "keep", o->keep,
                            "words_per_document", o->words_per_document, "stems", o->stems, "holdout", o->holdout, "alpha", t->shape.alpha, "eta", t->shape.eta,
                            "decay", o->decay, "offset", o->offset, "tolerance", o->tolerance, "seed", o->setup.loop.seed, "column", o->column);
  sw_buffer names = {0}; /* one entry for all: they are read as one stream */
  int failed = 0;
  for (int i = 0; i < o->data.count; i++) failed |= sw_buffer_print(&names, "%s%s", i ? ", " : "", o->data.items[i]);
  json_t *data = failed ? NULL
                        : json_pack("[{s:s, s:s, s:I, s:I}]", "file", names.data, "sha256", t->facts.sha256, "rows", (json_int_t)t->facts.rows, "rejected",
                                    (json_int_t)t->facts.rejected);
  sw_buffer_close(&names);
  json_t *run = json_pack("{s:o, s:o, s:s}", "hyper_parameters", hyper, "data", data, "device", t->setup.device->name);
  if (!run) sw_fail("the settings cannot be kept: --column or a file's name is not valid UTF-8");
  return run;
}

static int write_checkpoint(topics *t, const char *path, json_t *metrics) {
  sw_checkpoint *c = &t->setup.checkpoint;
  if (sw_lda_get(&t->lda, t->lambda)) return sw_fail_in("after %lld chunks", (long long)t->step);
  json_decref(c->training);
  c->training = json_pack("{s:s, s:O, s:O?, s:{s:I}}", "task", "topics", "run", t->run, "metrics", metrics, "position", "step", (json_int_t)t->step);
  return c->training ? sw_checkpoint_write(path, c) : sw_fail("out of memory");
}

/* Reads lambda and position of a checkpoint that has to be of this very run. */
static int resume(topics *t, const char *path) {
  sw_checkpoint c;
  sw_lda_shape shape;
  const float *lambda;
  if (sw_checkpoint_read(path, &c)) return -1;
  int status = sw_lda_of_checkpoint(&c, path, &shape, &lambda);
  if (!status && !json_equal(json_object_get(c.training, "run"), t->run))
    status = sw_fail("%s was made with other options or data: give the same ones, or another -o, or --force to start anew", path);
  if (!status) {
    memcpy(t->lambda, lambda, (size_t)shape.topics * (size_t)shape.words * sizeof *lambda);
    t->step = json_integer_value(json_object_get(json_object_get(c.training, "position"), "step"));
  }
  sw_checkpoint_close(&c);
  return status;
}

/* --- learning --- */

/* Chunks of about the same size: the few documents that would be left over would count as much as all the others. */
static void plan_chunks(topics *t) {
  const int64_t documents = t->bags.documents;
  t->chunks = (documents + t->options->chunk - 1) / t->options->chunk;
  t->chunk = (documents + t->chunks - 1) / t->chunks;
  t->chunks = (documents + t->chunk - 1) / t->chunk;
}

/* 0: done; 1: stopped by a signal, and saved; -1: failure. */
static int learn(topics *t) {
  const topics_options *o = t->options;
  const int64_t chunks = t->chunks, total = t->bags.documents, begun = t->step;
  const double start = sw_clock();
  double saved = start;
  sw_progress bar;
  sw_progress_open(&bar, "learn", (double)(chunks * o->passes), o->setup.loop.quiet);
  int status = 0;
  for (; t->step < chunks * o->passes && !status && !stop_signal; t->step++) {
    const int64_t pass = t->step / chunks, first = t->step % chunks * t->chunk, count = total - first < t->chunk ? total - first : t->chunk;
    if (sw_clock() - saved > SAVE_SECONDS) {
      if ((status = write_checkpoint(t, t->last_path, NULL))) break;
      saved = sw_clock();
    }
    const double seen = (double)(pass * total + first) / (double)t->chunk;
    status = sw_lda_learn(&t->room, &t->bags, first, count, pow(o->offset + (double)pass + seen, -o->decay), total);
    char details[96];
    snprintf(details, sizeof details, "pass %lld/%d", (long long)pass + 1, o->passes);
    sw_progress_show(&bar, (double)t->step + 1, details);
  }
  sw_progress_close(&bar);
  if (status) return -1;
  if (t->step < chunks * o->passes) {
    if (write_checkpoint(t, t->last_path, NULL)) return -1;
    fprintf(stderr, "skillwatch: stopped by signal %d after chunk %lld; go on with --resume\n", (int)stop_signal, (long long)t->step);
    return 1;
  }
  const double seconds = sw_clock() - start;
  if (!o->setup.loop.quiet)
    fprintf(stderr, "learned in %.3f s (%.0f documents/s)\n", seconds, (double)(t->step - begun) / (double)chunks * (double)total / seconds);
  return 0;
}

/* --- scores --- */

static int infer_all(topics *t, const sw_bags *bags, float *gamma) {
  for (int64_t first = 0; first < bags->documents; first += t->chunk) {
    const int64_t count = bags->documents - first < t->chunk ? bags->documents - first : t->chunk;
    if (sw_lda_infer(&t->room, bags, first, count, gamma + first * t->shape.topics)) return -1;
  }
  return 0;
}

/* The bound per word; shares (may be NULL): each topic's mean part of a document. */
static int bound_of(topics *t, const sw_bags *bags, double *bound, double *shares) {
  const int topics_here = t->shape.topics;
  float *gamma = sw_alloc_array((size_t)bags->documents, (size_t)topics_here * sizeof *gamma);
  int status = gamma ? infer_all(t, bags, gamma) : -1;
  if (!status) status = sw_lda_bound(&t->shape, t->lambda, bags, gamma, t->bags.documents, t->setup.stream.threads, bound);
  for (int64_t d = 0; d < bags->documents && !status && shares; d++) {
    double sum = 0;
    for (int k = 0; k < topics_here; k++) sum += (double)gamma[d * topics_here + k];
    for (int k = 0; k < topics_here; k++) shares[k] += (double)gamma[d * topics_here + k] / sum / (double)bags->documents;
  }
  free(gamma);
  return status;
}

static void print_topics(const topics *t, const int32_t *top, size_t n, const double *shares, const double *u_mass, const double *c_npmi) {
  printf("topic   share   u_mass  c_npmi  words\n");
  for (int k = 0; k < t->shape.topics; k++) {
    printf("%5d  %6.4f  %7.3f  %6.3f ", k + 1, shares[k], u_mass[k], c_npmi[k]);
    for (size_t i = 0; i < n && i < SHOWN_WORDS; i++) printf(" %s", t->setup.checkpoint.vocab[top[(size_t)k * n + i]]);
    putchar('\n');
  }
}

/* New reference, or NULL. */
static json_t *score(topics *t) {
  const topics_options *o = t->options;
  const size_t count = (size_t)t->shape.topics, n = t->shape.words < TOP_WORDS ? (size_t)t->shape.words : TOP_WORDS;
  int32_t *top = sw_alloc_array(count, n * sizeof *top);
  double *shares = sw_alloc_array(count, sizeof *shares), *u_mass = sw_alloc_array(count + 1, sizeof *u_mass), *c_npmi = sw_alloc_array(count + 1, sizeof *c_npmi);
  double bound = 0, held_out = 0;
  json_t *metrics = NULL;
  int status = top && shares && u_mass && c_npmi ? 0 : -1;
  for (int k = 0; k < t->shape.topics && !status; k++) {
    status = sw_lda_top_words(&t->shape, t->lambda, k, n, top + (size_t)k * n);
    for (size_t i = 0; i < n && !status; i++) top[(size_t)k * n + i]++; /* as ids */
  }
  if (!status) status = bound_of(t, &t->bags, &bound, shares) || (t->held_out.documents && bound_of(t, &t->held_out, &held_out, NULL)) ? -1 : 0;
  if (!status) status = sw_coherence(&t->documents, top, count, n, u_mass, c_npmi);
  if (!status) {
    metrics = json_pack("{s:f, s:f, s:f, s:I, s:I, s:f}", "bound_per_word", bound, "u_mass", u_mass[count], "c_npmi", c_npmi[count], "documents",
                        (json_int_t)t->bags.documents, "words", (json_int_t)t->shape.words, "tokens", t->bags.tokens);
    if (metrics && t->held_out.documents)
      json_object_set_new(metrics, "held_out", json_pack("{s:f, s:I}", "bound_per_word", held_out, "documents", (json_int_t)t->held_out.documents));
    if (!metrics) sw_fail("out of memory");
    if (metrics && !o->json) print_topics(t, top, n, shares, u_mass, c_npmi);
    if (metrics && !o->setup.loop.quiet) {
      fprintf(stderr, "bound per word %.4f", bound);
      if (t->held_out.documents) fprintf(stderr, ", held out %.4f", held_out);
      fprintf(stderr, "; coherence u_mass %.4f, c_npmi %.4f\n", u_mass[count], c_npmi[count]);
    }
  }
  free(top);
  free(shares);
  free(u_mass);
  free(c_npmi);
  return metrics;
}

/* --- the task --- */

static int prepare(topics *t) {
  const topics_options *o = t->options;
  const sw_loop_options *l = &o->setup.loop;
  size_t empty;
  int resumed = 0;
  if (read_data(t) || make_bags(t, &empty) || !(t->run = run_facts(t)) || !(t->last_path = sw_loop_path(l->output, ".last.h5")) ||
      sw_lda_to_checkpoint(&t->shape, &t->setup.checkpoint, &t->lambda))
    return -1;
  if (l->force && !l->resume) remove(t->last_path);
  if (l->resume && (sw_exists(t->last_path) || sw_exists(l->output))) {
    if (resume(t, sw_exists(t->last_path) ? t->last_path : l->output)) return -1;
    resumed = 1;
  }
  if (!l->quiet) {
    sw_setup_print_device(&t->setup);
    fprintf(stderr, "; %lld document%s of %.1f words, a dictionary of %d, %d topics", (long long)t->bags.documents, SW_S(t->bags.documents),
            t->bags.tokens / (double)t->bags.documents, t->shape.words, t->shape.topics);
    if (t->held_out.documents) fprintf(stderr, "; %lld held out", (long long)t->held_out.documents);
    if (empty) fprintf(stderr, "; %zu without a word of the dictionary", empty);
    fputc('\n', stderr);
    if (resumed) fprintf(stderr, "resumed after chunk %lld\n", (long long)t->step);
  }
  if (!t->bags.documents) return sw_fail("no document holds a word of the dictionary");
  plan_chunks(t);
  int64_t entries = 0;
  for (int which = 0; which < 2; which++) {
    const sw_bags *b = which ? &t->held_out : &t->bags;
    for (int64_t first = 0; first < b->documents; first += t->chunk) {
      const int64_t end = b->documents - first < t->chunk ? b->documents : first + t->chunk, here = b->starts[end] - b->starts[first];
      if (here > entries) entries = here;
    }
  }
  const int64_t longest = t->held_out.longest > t->bags.longest ? t->held_out.longest : t->bags.longest;
  return sw_lda_open(&t->setup.stream, &t->shape, resumed ? t->lambda : NULL, (uint64_t)l->seed, &t->lda) ||
                 sw_lda_room_open(&t->lda, &t->setup.stream, t->chunk, entries, longest, 1, &t->room)
             ? -1
             : 0;
}

/* An exit status. */
static int run(topics *t) {
  const sw_loop_options *l = &t->options->setup.loop;
  if (prepare(t)) return SW_EXIT_FAILED;
  if (t->step >= t->chunks * t->options->passes && !sw_exists(t->last_path)) {
    if (!l->quiet) fprintf(stderr, "nothing left to train: %s is complete\n", l->output);
    return SW_EXIT_DONE;
  }
  const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
  for (int i = 0; i < 3; i++) sigaction(signals[i], &(struct sigaction){.sa_handler = on_signal}, NULL);
  const int stopped = learn(t);
  if (stopped) return stopped > 0 ? SW_EXIT_AGAIN : SW_EXIT_FAILED;
  if (sw_lda_get(&t->lda, t->lambda)) return SW_EXIT_FAILED;
  json_t *metrics = score(t);
  int status = metrics ? write_checkpoint(t, l->output, metrics) : -1;
  if (!status) {
    remove(t->last_path);
    if (t->options->json) {
      char *text = json_dumps(metrics, JSON_REAL_PRECISION(17));
      if (text) puts(text);
      free(text);
    }
    if (!l->quiet) fprintf(stderr, "%s: written\n", l->output);
  }
  json_decref(metrics);
  return status ? SW_EXIT_FAILED : SW_EXIT_DONE;
}

static int train_topics(topics_options *o) {
  topics t = {.options = o};
  int status = sw_setup_open(&o->setup, &t.setup);
  if (!status) status = run(&t);
  if (status == SW_EXIT_FAILED || status == SW_EXIT_USAGE) sw_exit_message(status);
  sw_lda_room_close(&t.room);
  sw_lda_close(&t.lda);
  sw_bags_close(&t.bags);
  sw_bags_close(&t.held_out);
  sw_documents_close(&t.documents);
  json_decref(t.run);
  free(t.last_path);
  sw_setup_close(&t.setup);
  return status;
}

/* --- the command line --- */

static int check_outputs(const topics_options *o) {
  static const char *const endings[] = {".last.h5", ".lock", ".rejected.jsonl"};
  const sw_loop_options *l = &o->setup.loop;
  int status = sw_check_output(l->output, o->data.items, o->data.count);
  for (size_t i = 0; i < sizeof endings / sizeof *endings && !status; i++) {
    char *path = sw_loop_path(l->output, endings[i]);
    status = path ? sw_check_output(path, o->data.items, o->data.count) : -1;
    if (!status && i == 0 && !l->force && !l->resume && (sw_exists(l->output) || sw_exists(path)))
      status = sw_fail("%s exists already: --resume goes on with it, --force starts anew, or give another -o", sw_exists(l->output) ? l->output : path);
    free(path);
  }
  return status;
}

static int check(const topics_options *o) {
  const sw_loop_options *l = &o->setup.loop;
  sw_postings_format format;
  if (!o->data.count) return sw_fail("--data is missing: postings to learn from");
  if (!l->output) return sw_fail("-o is missing: the checkpoint to write");
  if (!strcmp(l->output, "-")) return sw_fail("-o -: a checkpoint cannot be written to standard output");
  if (sw_is_folder(l->output)) return sw_fail("-o %s is a folder, a file name was expected", l->output);
  for (int i = 0; i < o->data.count; i++)
    if (!strcmp(o->data.items[i], "-")) return sw_fail("--data -: files or folders are wanted, that a resumed run can read again");
  if (o->topics < 1 || o->topics > SW_LDA_TOPICS) return sw_fail("--topics must be from 1 to %d", SW_LDA_TOPICS);
  if (o->passes < 1 || o->passes > 100000) return sw_fail("--passes must be from 1 to 100000");
  if (o->iterations < 1 || o->iterations > 100000) return sw_fail("--iterations must be from 1 to 100000");
  if (o->chunk < 1 || o->chunk > 1 << 20) return sw_fail("--chunk-size must be from 1 to %d", 1 << 20);
  if (o->no_below < 1) return sw_fail("--no-below must be at least 1");
  if (!(o->no_above > 0 && o->no_above <= 1)) return sw_fail("--no-above is a part of the documents: above 0, at most 1");
  if (o->keep < 1 || o->keep > 1 << 22) return sw_fail("--keep must be from 1 to %d", 1 << 22);
  if (o->words_per_document < 0 || o->words_per_document > SW_DOCUMENT_WORDS) return sw_fail("--words-per-document must be from 0 to %d", SW_DOCUMENT_WORDS);
  if (!(o->holdout >= 0 && o->holdout < 1)) return sw_fail("--holdout is a share of the postings: from 0 to below 1");
  if (!(o->alpha >= 0) || !(o->eta >= 0) || !(o->alpha <= 1e6) || !(o->eta <= 1e6)) return sw_fail("--alpha and --eta must be above 0, or 0 for 1 / topics");
  if (!(o->decay > 0.5 - 1e-9 && o->decay <= 1)) return sw_fail("--decay must be from 0.5 to 1: learning would not converge");
  if (!(o->offset >= 1 && o->offset < 1e9)) return sw_fail("--offset must be at least 1");
  if (!(o->tolerance >= 0)) return sw_fail("--tolerance cannot be negative");
  return sw_device_check(o->setup.device, o->setup.threads) || sw_postings_format_parse(o->format, &format) || check_outputs(o) ? -1 : 0;
}

int sw_train_topics(int argc, char **argv) {
  topics_options o = {.setup = SW_SETUP_DEFAULTS, .format = "auto", .stems = SW_STEM_NONE, .topics = 30, .passes = 10, .iterations = 50, .chunk = 2000,
                      .no_below = 5, .keep = 5000, .no_above = 0.5, .decay = 0.5, .offset = 1, .tolerance = 1e-3};
  o.setup.from_scratch = 1;
  const sw_option options[] = {
      {"data", 'd', SW_OPTION_LIST, &o.data, "PATH", "postings: <date>/<n>.txt folders, text, CSV and JSONL files; may be repeated"},
      {"output", 'o', SW_OPTION_TEXT, &o.setup.loop.output, "CKPT", "checkpoint of the topics"},
      {"column", 0, SW_OPTION_TEXT, &o.column, "NAME", "column or key of the text (else: description, text, the only one)"},
      {"format", 0, SW_OPTION_TEXT, &o.format, "F", "of the data: auto, text (a posting a file), lines, csv, jsonl"},
      {"topics", 'k', SW_OPTION_INT, &o.topics, "N", "number of topics"},
      {"passes", 0, SW_OPTION_INT, &o.passes, "N", "times that all documents are learned from"},
      {"iterations", 0, SW_OPTION_INT, &o.iterations, "N", "updates of a document's topics at most"},
      {"no-below", 0, SW_OPTION_INT, &o.no_below, "N", "words that stand in fewer documents are left out"},
      {"no-above", 0, SW_OPTION_DOUBLE, &o.no_above, "PART", "words that stand in a larger part of the documents are left out"},
      {"keep", 0, SW_OPTION_INT, &o.keep, "N", "words of the dictionary at most: those in the most documents"},
      {"stems", 0, SW_OPTION_TEXT, &o.stems, "NAME", "cut words down by a Snowball stemmer: english, german, porter, ...; none"},
      {"words-per-document", 0, SW_OPTION_INT, &o.words_per_document, "N", "cut postings into documents of N words; 0: a posting is one"},
      {"holdout", 0, SW_OPTION_DOUBLE, &o.holdout, "SHARE", "share of the postings, by each text's hash, that the bound is also measured on"},
      {"chunk-size", 0, SW_OPTION_INT, &o.chunk, "N", "documents between two updates of the topics at most"},
      {"decay", 0, SW_OPTION_DOUBLE, &o.decay, "X", "how fast older chunks are forgotten, 0.5 to 1"},
      {"offset", 0, SW_OPTION_DOUBLE, &o.offset, "X", "the larger, the less the first chunks count"},
      {"alpha", 0, SW_OPTION_DOUBLE, &o.alpha, "X", "of topics in a document, small: few topics; 0 = 1 / topics"},
      {"eta", 0, SW_OPTION_DOUBLE, &o.eta, "X", "of words in a topic, small: few words; 0 = 1 / topics"},
      {"tolerance", 0, SW_OPTION_DOUBLE, &o.tolerance, "X", "mean change of a document's weights that ends its iterations"},
      {"resume", 0, SW_OPTION_FLAG, &o.setup.loop.resume, NULL, "go on where an interrupted run of the same command stood"},
      {"force", 0, SW_OPTION_FLAG, &o.setup.loop.force, NULL, "start anew over an existing output"},
      {"seed", 0, SW_OPTION_INT, &o.setup.loop.seed, "N", "of the first topics and the order of the documents"},
      {"device", 0, SW_OPTION_TEXT, &o.setup.device, "NAME", "auto, cpu or cuda[:N]"},
      {"threads", 0, SW_OPTION_INT, &o.setup.threads, "N", "CPU threads; 0 = one a core. Changes no result"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "the metrics as JSON, to stdout, instead of the topics"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.setup.loop.quiet, NULL, "print errors and the topics only"},
      {0}};
  const sw_command command = {
      "skillwatch train topics --data POSTINGS -o CKPT [options]",
      "Learns what postings are about: topics, by latent Dirichlet allocation (online variational Bayes). Prints each topic's share of the\n"
      "documents, coherence and top words. Words are runs of letters in lower case, without English function words.",
      "skillwatch train topics --data job-postings/ -o topics.h5 --topics 30 --holdout 0.05", options};
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' was not expected: give data with --data", operands.items[0]);
  if (!status) status = check(&o);
  const int code = status > 0 ? SW_EXIT_DONE : status < 0 ? sw_exit_message(SW_EXIT_USAGE) : train_topics(&o);
  sw_list_close(&operands);
  sw_list_close(&o.data);
  return code;
}
