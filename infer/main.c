/* skillwatch-infer: one verb a job. */
#include "base/error.h"
#include "base/launch.h"
#include "infer/session.h"

#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} jobs[] = {
    {"tag", sw_infer_tag, "finds skills in postings: spans with offsets, label and score"},
    {"embed", sw_infer_embed, "turns texts into vectors"},
    {"map", sw_infer_map, "draws vectors in two or three dimensions, neighbours together (UMAP)"},
    {"classify", sw_infer_classify, "gives texts the most probable of a model's labels"},
    {"search", sw_infer_search, "the nearest of a corpus for each text, exactly"},
    {"select", sw_infer_select, "postings that are similar to anchors: a regular expression, or a file of texts"},
    {"cluster", sw_infer_cluster, "groups vectors, or the points of a map, by k-means; names the groups"},
    {"link", sw_infer_link, "tagged spans to the skills of a taxonomy"},
    {"multilabel", sw_infer_multilabel, "finds the labels of whole texts, with probabilities"},
    {"topics", sw_infer_topics, "gives texts their topics, with probabilities"},
    {"serve", sw_infer_serve, "does these jobs for single texts over HTTP"},
};
enum { JOBS = sizeof jobs / sizeof *jobs };

/* Jobs that several processes can do together (infer/shards.h). */
static int shares(const char *name) {
  static const char *const names[] = {"tag", "embed", "classify", "multilabel", "search", "select", "topics"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) return 1;
  return 0;
}

static void usage(FILE *to) {
  fprintf(to, "usage: skillwatch infer JOB [options]\n\njobs:\n");
  for (int i = 0; i < JOBS; i++) fprintf(to, "  %-10s %s\n", jobs[i].name, jobs[i].summary);
  fprintf(to, "\nskillwatch infer JOB --help tells more.\n\nexample:\n  skillwatch infer tag -m ner.h5 postings/ -o "
              "tags.jsonl\n");
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
    puts("skillwatch-infer " SW_VERSION);
    return SW_EXIT_DONE;
  }
  for (int i = 0; i < JOBS; i++)
    if (!strcmp(argv[1], jobs[i].name)) {
      if (sw_launched()->size == 1 || shares(argv[1])) return jobs[i].run(argc - 1, argv + 1);
      sw_fail("infer %s runs in one process: start it without mpirun", argv[1]);
      return sw_exit_message(SW_EXIT_USAGE);
    }
  fprintf(stderr, "skillwatch: unknown job '%s' (see skillwatch infer --help)\n", argv[1]);
  return SW_EXIT_USAGE;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
