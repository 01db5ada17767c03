/* skillwatch report: what the postings ask for, what rises and falls, as a page with charts, as pictures and as tables. */
#include "tools/report/report.h"
#include "base/error.h"
#include "base/folder.h"
#include "base/progress.h"
#include "engine/store/config_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check(const report_options *o, const sw_list *operands) {
  if (operands->count) return sw_fail("'%s' is no option; tags are given with --tags (see skillwatch report --help)", operands->items[0]);
  if (!o->output) return sw_fail("-o FOLDER is missing (see skillwatch report --help)");
  if (!o->tags.count && !o->map && !o->map_3d && !o->topics && !o->occupations && !o->checkpoints.count && !o->labels.count)
    return sw_fail("a report on what? give --tags, --map, --map-3d, --topics, --occupations, --checkpoint or --labels (see --help)");
  const int mapped = o->map || o->map_3d;
  if (o->clusters && !mapped) return sw_fail("--clusters colours a map: give --map or --map-3d, too");
  if (o->titles && !mapped) return sw_fail("--titles names the points of a map: give --map or --map-3d, too");
  if ((o->column || o->id_column) && !o->titles) return sw_fail("--column and --id-column are for --titles, which is missing");
  if (o->document_topics && !o->topics) return sw_fail("--document-topics needs the model they are of: --topics topics.h5");
  if (o->min_postings < 1) return sw_fail("--min-postings must be at least 1");
  return 0;
}

/* The report reads its inputs before the old one goes, but a report that lies in the way of an input would take it along. */
static int check_inputs(const report_options *o) {
  const char *const inputs[] = {o->map, o->map_3d, o->clusters, o->titles, o->topics, o->document_topics, o->occupations};
  const sw_list *const lists[] = {&o->tags, &o->checkpoints, &o->labels};
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
    if (inputs[i] && sw_is_inside(inputs[i], o->output)) return sw_fail("the input %s lies in the folder of the report, %s: give another -o", inputs[i], o->output);
  for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
    for (int i = 0; i < lists[k]->count; i++)
      if (strcmp(lists[k]->items[i], "-") && sw_is_inside(lists[k]->items[i], o->output))
        return sw_fail("the input %s lies in the folder of the report, %s: give another -o", lists[k]->items[i], o->output);
  return 0;
}

static int make(report *r) {
  /* no patterns: somebody's folder may hold tables and pictures, too */
  static const char *const ours[] = {"index.html", "skills.csv", "skills-by-week.csv", "weeks.csv", "map.csv", "map-3d.csv", "topics.csv", "topics-by-week.csv", "occupations.csv",
                                     "quality.csv", "labels.csv", "trends.png", "skills-over-time.png", "map.png", "map-3d.png", "topics.png", "topics-over-time.png",
                                     "occupations.png", "quality.png", "labels.png", "rejected.jsonl", NULL};
  const report_options *o = r->o;
  const double started = sw_clock();
  sw_output_folder folder;
  if (report_check_page() || check_inputs(o) || sw_output_folder_open(&folder, o->output, ours, "report", o->force)) return -1;
  char *aside = sw_path_join(folder.temporary, "rejected.jsonl");
  int status = aside ? sw_rejects_open(&r->rejects, aside) : -1;
  free(aside);
  if (!status)
    status = report_read_tags(r) || report_read_maps(r) || report_read_topics(r) || report_read_occupations(r) || report_read_quality(r) ||
                     report_read_labels(r) || report_find_trends(r) || sw_rejects_commit(&r->rejects) || report_write_tables(r, folder.temporary) ||
                     report_write_pictures(r, folder.temporary) || report_write_page(r, folder.temporary)
                 ? -1
                 : 0;
  if (status) {
    sw_output_folder_abandon(&folder);
    return -1;
  }
  if (sw_output_folder_commit(&folder)) return -1;
  if (!o->quiet) {
    fprintf(stderr, "report: %s/index.html", o->output);
    if (o->tags.count) fprintf(stderr, ", %ld posting%s in %zu week%s", r->counts.postings, SW_S(r->counts.postings), r->weeks_with_postings, SW_S(r->weeks_with_postings));
    if (r->rejects.count)
      fprintf(stderr, ", %llu row%s set aside in %s/rejected.jsonl", (unsigned long long)r->rejects.count, SW_S(r->rejects.count), o->output);
    fprintf(stderr, ", %.1f s\n", sw_clock() - started);
  }
  return 0;
}

static int body(int argc, char **argv) {
  report_options o = {.title = "Skills in job postings", .min_postings = 10};
  /* clang-format off */
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FOLDER", "the report: index.html, pictures and tables (needed)"},
      {"tags", 0, SW_OPTION_LIST, &o.tags, "FILE", "tags.jsonl of infer tag, or linked.jsonl of infer link; may be given several times"},
      {"map", 0, SW_OPTION_TEXT, &o.map, "FILE", "a map in two dimensions: map.h5 or map.csv of infer map"},
      {"map-3d", 0, SW_OPTION_TEXT, &o.map_3d, "FILE", "one in three dimensions"},
      {"clusters", 0, SW_OPTION_TEXT, &o.clusters, "FILE", "of the maps' points: clusters.csv or .jsonl of infer cluster"},
      {"titles", 0, SW_OPTION_TEXT, &o.titles, "FILE", "texts of the maps' points by id, as infer embed reads them: CSV or JSON lines"},
      {"column", 0, SW_OPTION_TEXT, &o.column, "NAME", "of --titles: the text (else: title, description or text)"},
      {"id-column", 0, SW_OPTION_TEXT, &o.id_column, "NAME", "of --titles: the id (else: id or job_id, or the row's number)"},
      {"topics", 0, SW_OPTION_TEXT, &o.topics, "FILE", "the model of train topics"},
      {"document-topics", 0, SW_OPTION_TEXT, &o.document_topics, "FILE", "its topics of postings: JSON lines of infer topics"},
      {"occupations", 0, SW_OPTION_TEXT, &o.occupations, "FILE", "of postings: top.csv or .jsonl of infer classify; the best one counts"},
      {"checkpoint", 0, SW_OPTION_LIST, &o.checkpoints, "FILE", "scores of a model and its ancestors; may be given several times"},
      {"labels", 0, SW_OPTION_LIST, &o.labels, "FILE", "labels.jsonl of label, or the bill that label --json printed; may be given several times"},
      {"title", 0, SW_OPTION_TEXT, &o.title, "TEXT", "of the page"},
      {"min-postings", 0, SW_OPTION_INT, &o.min_postings, "N", "skills that fewer postings name are left out"},
      {"force", 0, SW_OPTION_FLAG, &o.force, NULL, "replace an earlier report"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.quiet, NULL, "no summary"},
      {0},
  };
  /* clang-format on */
  const sw_command command = {
      .usage = "skillwatch report -o FOLDER --tags TAGS.jsonl [options]",
      .summary = "One page, index.html, that needs no network: what the postings ask for, which skills rise and fall, maps, topics, occupations, scores of\n"
                 "models, costs of labels, as far as they are given; beside it the pictures as PNG and the numbers of every figure as CSV.\n\n"
                 "Rising and falling: the share of a week's postings that name a skill, by logistic regression on time, with 95 % intervals. Weeks that\n"
                 "scatter more than chance says widen them (quasi-binomial, with what all skills have in common), and so do weeks that are like those\n"
                 "before them; of all skills that are said to rise or fall at most 5 % are expected to do neither (Benjamini and Hochberg over all\n"
                 "layers). Fewer than three weeks show no trend. A posting without a date counts in no week. Rows that cannot be used, and postings\n"
                 "that were read before, go to rejected.jsonl. In the CSV a text that begins like a formula has an apostrophe before it.",
      .example = "skillwatch report --tags tags.jsonl --map map.h5 --clusters clusters.csv --titles titles.csv -o report/",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_config_parse(&command, argc, argv, &operands);
  if (!status) status = check(&o, &operands);
  if (status) {
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  } else {
    report r = {.o = &o};
    sw_temporary_remove_at_signals();
    status = make(&r) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
    report_close(&r);
  }
  sw_list_close(&operands);
  sw_list_close(&o.tags);
  sw_list_close(&o.checkpoints);
  sw_list_close(&o.labels);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
