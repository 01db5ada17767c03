/* skillwatch bench: how fast this machine tokenizes, embeds and trains, measured on the very programs people run, file to file; and what
 * each operator makes of the device (bench/operators.c). */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/progress.h"
#include "engine/data/labels.h"
#include "engine/store/checkpoint.h"
#include "engine/store/config_file.h"
#include "kernels/backend.h"
#include "tools/bench/bench.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGS = 40 };

typedef struct {
  const char *checkpoint, *titles, *postings, *labels, *device;
  int threads, runs, json;
  int kernels, quick, sequences;
  sw_list operators;
  char *folder, *programs; /* temporary folder; where the programs lie */
  int told;                /* a program failed and has said why */
  json_t *results;
} bench;

static int add_result(bench *b, const char *what, const char *dtype, double value, const char *unit) {
  if (!b->json) printf("%-28s %-6s %14.0f %s\n", what, dtype, value, unit);
  fflush(stdout);
  json_t *row = json_pack("{s:s, s:s, s:f, s:s}", "what", what, "dtype", dtype, "value", value, "unit", unit);
  return json_array_append_new(b->results, row) ? sw_fail("out of memory") : 0;
}

/* Runs one of our programs; its standard output goes to `output`. */
static int run_program(bench *b, const char *name, const char *const *args, sw_buffer *output) {
  char *argv[MAX_ARGS] = {sw_path_join(b->programs, name)};
  int n = 1, pipes[2], state = 0, status = 0;
  while (args[n - 1] && n < MAX_ARGS - 1) {
    argv[n] = (char *)args[n - 1];
    n++;
  }
  if (!argv[0] || pipe(pipes)) return sw_fail("cannot make a pipe: %s", strerror(errno));
  pid_t child = fork();
  if (child == 0) {
    dup2(pipes[1], STDOUT_FILENO);
    close(pipes[0]);
    close(pipes[1]);
    execv(argv[0], argv);
    _exit(127);
  }
  close(pipes[1]);
  char block[4096];
  ssize_t got;
  while ((got = read(pipes[0], block, sizeof block)) > 0)
    if (sw_buffer_append(output, block, (size_t)got)) status = -1;
  close(pipes[0]);
  if (child < 0 || waitpid(child, &state, 0) < 0 || !WIFEXITED(state) || WEXITSTATUS(state)) {
    b->told = child > 0 && WIFEXITED(state) && WEXITSTATUS(state) < 127;
    status = sw_fail("%s failed (status %d)", argv[0], WIFEXITED(state) ? WEXITSTATUS(state) : -1);
  }
  free(argv[0]);
  return status;
}

static int embed(bench *b, const char *what, const char *input, const char *format, const char *dtype) {
  char threads[16], *out = sw_path_join(b->folder, "vectors.npy");
  double best = 0, best_tokens = 0;
  int status = out ? 0 : -1;
  snprintf(threads, sizeof threads, "%d", b->threads);
  for (int i = 0; !status && i < b->runs; i++) {
    const char *args[] = {"embed",     "-m",      b->checkpoint, input,  "-o",        out,  "--dtype", dtype, "--threads", threads,
                          "--device",  b->device, "--no-dedup",  "-q",   "--json",    format ? "--format" : NULL, format, NULL};
    sw_buffer text = {0};
    status = run_program(b, "skillwatch-infer", args, &text);
    json_t *summary = status ? NULL : json_loadb(text.data ? text.data : "", text.size, 0, NULL);
    double rows = json_number_value(json_object_get(summary, "rows")), seconds = json_number_value(json_object_get(summary, "seconds"));
    double tokens = json_number_value(json_object_get(summary, "tokens"));
    if (!status && !(seconds > 0)) status = sw_fail("skillwatch infer embed printed no summary");
    if (!status && rows / seconds > best) {
      best = rows / seconds;
      best_tokens = tokens / seconds;
    }
    json_decref(summary);
    sw_buffer_close(&text);
  }
  free(out);
  char name[64];
  snprintf(name, sizeof name, "embed %s", what);
  if (!status) status = add_result(b, name, dtype, best, "texts/s");
  if (!status) status = add_result(b, name, dtype, best_tokens, "tokens/s");
  return status;
}

/* The last line of the metrics file holds the tokens a second of all steps. */
static int last_rate(const char *path, double *rate) {
  sw_buffer text = {0};
  int status = sw_file_read(path, 1 << 28, &text);
  *rate = 0;
  for (char *line = text.data, *end; !status && line && (end = strchr(line, '\n')); line = end + 1) {
    json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
    double value = json_number_value(json_object_get(row, "tokens_per_second"));
    if (value > 0) *rate = value;
    json_decref(row);
  }
  sw_buffer_close(&text);
  if (!status && !(*rate > 0)) status = sw_fail("%s: no rate was recorded", path);
  return status;
}

static int train(bench *b, const char *dtype, const char *gradients) {
  char threads[16], *out = sw_path_join(b->folder, "tagger.h5"), *metrics = sw_path_join(b->folder, "tagger.metrics.jsonl");
  int status = out && metrics ? 0 : -1;
  double best = 0, rate;
  snprintf(threads, sizeof threads, "%d", b->threads);
  for (int i = 0; !status && i < b->runs; i++) {
    const char *args[] = {"ner",          "--base", b->checkpoint, "--data",  b->labels,   "-o",      out,         "--epochs", "1",       "--batch-size",
                          "32",           "--dtype", dtype,        "--threads", threads,   "--device", b->device, "--force", "-q",      "--gradients", gradients, NULL};
    sw_buffer text = {0};
    status = run_program(b, "skillwatch-train", args, &text);
    sw_buffer_close(&text);
    if (!status) status = last_rate(metrics, &rate);
    if (!status && rate > best) best = rate;
  }
  free(out);
  free(metrics);
  const char *name = strcmp(gradients, "exact") ? "train ner, 32 a batch" : "the same, exact gradients";
  return status ? -1 : add_result(b, name, dtype, best, "tokens/s");
}

/* One thread, the lines of a file in memory. */
static int tokenize(bench *b) {
  sw_checkpoint checkpoint;
  sw_tokenizer *tokenizer = NULL;
  sw_buffer text = {0};
  sw_encoding encoding = {0};
  double best = 0;
  sw_checkpoint_init(&checkpoint);
  int status = sw_checkpoint_read(b->checkpoint, &checkpoint) || sw_checkpoint_tokenizer(&checkpoint, &tokenizer) ||
                       sw_file_read(b->titles, 1u << 30, &text)
                   ? -1
                   : 0;
  for (int i = 0; !status && i < b->runs; i++) {
    double start = sw_clock(), tokens = 0;
    const char *line = text.data, *last = text.data + text.size, *end;
    for (int number = 1; !status && line < last; line = end + 1, number++) {
      end = memchr(line, '\n', (size_t)(last - line));
      if (!end) end = last;
      if (sw_tokenizer_encode(tokenizer, line, (size_t)(end - line), &encoding)) status = sw_fail_in("%s line %d", b->titles, number);
      tokens += (double)encoding.count;
    }
    double rate = tokens / (sw_clock() - start);
    if (rate > best) best = rate;
    if (!status && !(tokens > 0)) status = sw_fail("%s holds no text to measure with", b->titles);
  }
  sw_encoding_close(&encoding);
  sw_buffer_close(&text);
  sw_tokenizer_close(tokenizer);
  sw_checkpoint_close(&checkpoint);
  return status ? -1 : add_result(b, "tokenize titles, 1 thread", "-", best, "tokens/s");
}

static char *folder_of_this_program(void) {
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n <= 0) {
    sw_fail("cannot find this program's folder: %s", strerror(errno));
    return NULL;
  }
  path[n] = 0;
  *strrchr(path, '/') = 0;
  return sw_strdup(path);
}

static int run_all(bench *b) {
  static const char *const dtypes[] = {"fp32", "bf16"};
  char pattern[] = "/tmp/skillwatch-bench-XXXXXX";
  sw_device *device = NULL;
  sw_stream stream;
  if (sw_device_choose(b->device, b->json, &device) || sw_stream_open(device, b->threads, &stream)) {
    sw_device_close(device);
    return -1;
  }
  b->threads = stream.threads;
  if (!b->json) printf("%s, %d thread%s, best of %d run%s\n", device->name, b->threads, SW_S(b->threads), b->runs, SW_S(b->runs));
  int status = 0;
  if (b->kernels) {
    sw_bench kernels;
    sw_bench_init(&kernels, &stream, b->quick, b->sequences, &b->operators, !b->json, b->results);
    status = sw_bench_operators(&kernels) || sw_bench_models(&kernels) ? -1 : 0;
  }
  sw_device_close(device);
  if (status) return -1;
  if (!(b->programs = folder_of_this_program())) return -1;
  if (!mkdtemp(pattern)) return sw_fail("cannot make a temporary folder: %s", strerror(errno));
  b->folder = pattern;
  if (b->titles) status = tokenize(b);
  for (int d = 0; d < 2 && !status; d++) {
    if (b->titles) status = embed(b, "titles", b->titles, "lines", dtypes[d]);
    if (!status && b->postings) status = embed(b, "postings", b->postings, NULL, dtypes[d]);
    if (!status && b->labels) status = train(b, dtypes[d], "quick") || (!d && train(b, dtypes[d], "exact")) ? -1 : 0;
  }
  sw_remove_folder(pattern);
  if (!status && b->json) {
    status = json_dumpf(b->results, stdout, JSON_INDENT(1)) ? sw_fail("cannot write to standard output") : 0;
    putchar('\n');
  }
  return status;
}

static int body(int argc, char **argv) {
  bench b = {.runs = 3, .device = "auto", .sequences = 32};
  const sw_option options[] = {{"model", 'm', SW_OPTION_TEXT, &b.checkpoint, "CKPT", "base checkpoint, e.g. MiniLM"},
                               {"titles", 0, SW_OPTION_TEXT, &b.titles, "FILE", "one text a line: tokenizer and embedding of short texts"},
                               {"postings", 0, SW_OPTION_TEXT, &b.postings, "FOLDER", "embedding of long texts"},
                               {"data", 0, SW_OPTION_TEXT, &b.labels, "FILE", "labelled sentences: training"},
                               {"kernels", 0, SW_OPTION_FLAG, &b.kernels, NULL, "every operator and whole models at real shapes; needs no files"},
                               {"sequences", 0, SW_OPTION_INT, &b.sequences, "N", "of 128 tokens, a batch of --kernels"},
                               {"operator", 0, SW_OPTION_LIST, &b.operators, "NAME", "--kernels: this one only; may be given again"},
                               {"quick", 0, SW_OPTION_FLAG, &b.quick, NULL, "--kernels at tiny shapes, to see that it works"},
                               {"runs", 0, SW_OPTION_INT, &b.runs, "N", "runs of each; the best counts"},
                               {"threads", 0, SW_OPTION_INT, &b.threads, "N", "CPU threads; 0 = one a core"},
                               {"device", 0, SW_OPTION_TEXT, &b.device, "NAME", "auto, cpu or cuda[:N]"},
                               {"json", 0, SW_OPTION_FLAG, &b.json, NULL, "print JSON"},
                               {0}};
  const sw_command command = {"skillwatch bench [-m CKPT [--titles FILE] [--postings FOLDER] [--data FILE]] [--kernels] [options]",
                              "Measures tokens and texts a second of tokenizer, embedding and training on your files, in fp32 and bf16.\n"
                              "Embedding is timed file to file with repeated texts computed again; training by its steps.\n"
                              "--kernels times each operator, in GB/s and TFLOP/s and as a share of what copies and matrix products reach here.",
                              "skillwatch bench -m minilm.h5 --titles titles.txt --postings job-postings/ --data train.jsonl", options};
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands), code = SW_EXIT_DONE;
  if (!status && operands.count) status = sw_fail("'%s' was not expected (see --help)", operands.items[0]);
  const int files = b.titles || b.postings || b.labels;
  if (!status && (files || !b.kernels) && !b.checkpoint) status = sw_fail("-m is missing: a base checkpoint, made by skillwatch pull");
  if (!status && !files && !b.kernels) status = sw_fail("nothing to measure: give --titles, --postings, --data or --kernels");
  if (!status && (b.sequences < 1 || b.sequences > 4096)) status = sw_fail("--sequences must be from 1 to 4096");
  if (!status && (b.runs < 1 || b.runs > 1000)) status = sw_fail("--runs must be from 1 to 1000");
  if (!status) status = sw_device_check(b.device, b.threads);
  if (!status && b.labels) status = sw_labels_check_output(NULL, &b.labels, 1); /* its weight */
  sw_list_close(&operands);
  if (status) return status < 0 ? sw_exit_message(SW_EXIT_USAGE) : SW_EXIT_DONE;
  if (!(b.results = json_array()) || run_all(&b)) code = b.told ? SW_EXIT_FAILED : sw_exit_message(SW_EXIT_FAILED);
  json_decref(b.results);
  sw_list_close(&b.operators);
  free(b.programs);
  return code;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
