/* skillwatch-train: one verb a task. */
#include "base/error.h"
#include "base/launch.h"
#include "base/options.h"
#include "train/tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} tasks[] = {
    {"mlm", sw_train_mlm, "a base adapted to a domain (masked language model), from raw postings"},
    {"embed", sw_train_embed, "an encoder whose vectors are near where texts belong together, from pairs"},
    {"ner", sw_train_ner, "a tagger of skills (token classification), from labelled sentences"},
    {"classify", sw_train_classify, "one of many labels for a text: logistic regression on the encoder's vectors, or the encoder fine-tuned"},
    {"multilabel", sw_train_multilabel, "labels of whole texts, any number each, from a table of texts: a GRU, or an encoder fine-tuned"},
    {"topics", sw_train_topics, "what postings are about: topics of words, by latent Dirichlet allocation"},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

static void usage(FILE *to) {
  fprintf(to, "usage: skillwatch train TASK [options]\n\ntasks:\n");
  for (int i = 0; i < TASKS; i++) fprintf(to, "  %-10s %s\n", tasks[i].name, tasks[i].summary);
  fprintf(to, "\nskillwatch train TASK --help tells more, with an example.\n");
}

/* GCC's OpenMP lets idle threads spin for a long time at every barrier; where other work wants the cores, training then takes several
 * times as long. A much shorter spin (some milliseconds still) costs nothing where the cores are free. The library reads its settings before
 * main, so the program starts itself again, once. */
static void limit_spinning(char **argv) {
  if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
  if (setenv("GOMP_SPINCOUNT", "100000", 1) == 0) execv("/proc/self/exe", argv);
}

static int body(int argc, char **argv) {
  if (argc < 2) {
    usage(stderr);
    return SW_EXIT_USAGE;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
    usage(stdout);
    return SW_EXIT_DONE;
  }
  if (!strcmp(argv[1], "--version")) {
    puts("skillwatch-train " SW_VERSION);
    return SW_EXIT_DONE;
  }
  for (int i = 0; i < TASKS; i++)
    if (!strcmp(argv[1], tasks[i].name)) {
      if (sw_launched()->size == 1 || strcmp(argv[1], "topics")) return tasks[i].run(argc - 1, argv + 1);
      sw_fail("train %s runs in one process: start it without mpirun", tasks[i].name);
      return sw_exit_message(SW_EXIT_USAGE);
    }
  fprintf(stderr, "skillwatch: unknown task '%s' (see skillwatch train --help)\n", argv[1]);
  return SW_EXIT_USAGE;
}

int main(int argc, char **argv) {
  limit_spinning(argv);
  return sw_program(argc, argv, body);
}
