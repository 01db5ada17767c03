/* skillwatch infer cluster: vectors, or the points of a map, to clusters by k-means. */
#include "base/error.h"
#include "base/progress.h"
#include "base/table.h"
#include "engine/data/csv.h"
#include "engine/data/postings.h"
#include "engine/space/kmeans.h"
#include "engine/space/names.h"
#include "engine/space/silhouette.h"
#include "engine/store/config_file.h"
#include "engine/store/json.h"
#include "infer/session.h"
#include "infer/usable.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_TERMS = 3 };

typedef struct {
  const char *output, *rejected, *device, *clusters, *texts, *column, *id_column;
  int csv, vectors, seed, threads, quiet, json;
  int first_k, last_k; /* from clusters */
  sw_kmeans_options kmeans;
} cluster_options;

typedef struct {
  int k;
  double inertia, silhouette; /* NaN: there is none */
} attempt;

typedef struct {
  const cluster_options *o;
  sw_device *device;
  sw_stream stream;
  sw_usable input;
  char **ids; /* [input.rows] */
  sw_rejects rejects;
  sw_kmeans best;
  attempt *attempts; /* of first_k to last_k */
  double silhouette; /* of the best */
  char **names;      /* [best.k]; "" without texts */
  uint64_t texts, texts_left_out;
} cluster_job;

/* --- clusters --- */

static int find_clusters(cluster_job *job) {
  const cluster_options *o = job->o;
  sw_silhouette_sample sample = {0};
  if (job->input.rows < o->last_k)
    return sw_fail("%s: %lld row%s cannot make %d clusters: ask for fewer (-k)", job->input.path, (long long)job->input.rows, SW_S(job->input.rows), o->last_k);
  int status = sw_silhouette_open(&job->stream, job->input.rows, job->input.width, job->input.device, o->kmeans.seed, &sample);
  for (int k = o->first_k; k <= o->last_k && !status; k++) {
    sw_kmeans_options options = o->kmeans;
    sw_kmeans found;
    attempt *a = &job->attempts[k - o->first_k];
    options.k = k;
    if ((status = sw_kmeans_fit(&job->stream, &options, job->input.rows, job->input.width, job->input.device, o->quiet, &found))) {
      sw_fail_in("%s", job->input.path);
      break;
    }
    *a = (attempt){k, found.inertia, NAN};
    status = sw_silhouette(&sample, found.label, k, &a->silhouette);
    const int better = !job->best.label || a->silhouette > job->silhouette || (isnan(job->silhouette) && !isnan(a->silhouette));
    if (better) {
      sw_kmeans_close(&job->best);
      job->best = found, job->silhouette = a->silhouette;
    } else {
      sw_kmeans_close(&found);
    }
  }
  sw_silhouette_close(&sample);
  return status;
}

/* --- names --- */

/* Rows by their id: `first` of the id's number, then those that share it by `next` (-1: the last). Both [rows]. */
static int index_rows(const cluster_job *job, sw_table *ids, int64_t *first, int64_t *next) {
  for (int64_t i = job->input.rows - 1; i >= 0; i--) {
    const size_t before = ids->count;
    const int64_t id = sw_table_add(ids, job->ids[i]);
    if (id < 0) return -1;
    next[i] = ids->count > before ? -1 : first[id];
    first[id] = i;
  }
  return 0;
}

static int read_texts(cluster_job *job, sw_names *names) {
  const cluster_options *o = job->o;
  const sw_postings_options reading = {.column = o->column, .id_column = o->id_column};
  sw_table ids = {0};
  int64_t *first = sw_alloc_array((size_t)job->input.rows, sizeof *first), *next = sw_alloc_array((size_t)job->input.rows, sizeof *next);
  sw_postings *postings = NULL;
  sw_posting posting;
  int status = first && next ? index_rows(job, &ids, first, next) : -1, more = 0;
  if (!status) status = sw_postings_open(&o->texts, 1, &reading, &postings);
  while (!status && (more = sw_postings_next(postings, &posting)) > 0) {
    const int64_t id = sw_table_find(&ids, posting.id);
    if (id >= 0) { /* the n-th text of an id is of the n-th row that has it */
      const int64_t row = first[id];
      status = sw_names_add(names, job->best.label[row], posting.text, posting.bytes);
      if (next[row] >= 0) first[id] = next[row];
      job->texts++;
    }
    sw_posting_close(&posting);
  }
  if (!status && more < 0) status = -1;
  if (postings) {
    job->texts_left_out = sw_postings_rows(postings) - job->texts;
    if (sw_postings_close(postings)) status = -1;
  }
  sw_table_close(&ids);
  free(first), free(next);
  if (!status && !job->texts)
    status = sw_fail("no row of --texts %s has the id of a vector in %s: it must be the file that was embedded (--id-column names the ids)", o->texts, job->input.path);
  return status;
}

static int name_clusters(cluster_job *job) {
  sw_names *names = NULL;
  int status = (job->names = sw_alloc_array((size_t)job->best.k, sizeof *job->names)) ? sw_names_open(job->best.k, &names) : -1;
  if (!status && job->o->texts) status = read_texts(job, names);
  if (!status) status = sw_names_make(names, NAME_TERMS, job->names);
  sw_names_close(names);
  return status;
}

/* --- output --- */

static int print_row(const cluster_job *job, int64_t i, sw_buffer *out) {
  const char *id = job->ids[i], *name = job->names[job->best.label[i]];
  const int number = job->best.label[i];
  const double distance = (double)job->best.distance[i];
  if (job->o->csv)
    return sw_csv_quote(out, id, strlen(id)) || sw_buffer_print(out, ",%d,", number) || sw_csv_quote(out, name, strlen(name)) ||
           sw_buffer_print(out, ",%.9g\r\n", distance);
  return sw_buffer_print(out, "{\"id\": ") || sw_json_quote(out, id, strlen(id)) || sw_buffer_print(out, ", \"cluster\": %d, \"name\": ", number) ||
         sw_json_quote(out, name, strlen(name)) || sw_buffer_print(out, ", \"distance\": %.9g}\n", distance);
}

static int write_rows(const cluster_job *job) {
  sw_output out;
  sw_buffer text = {0};
  if (sw_output_open(&out, job->o->output)) return -1;
  int status = job->o->csv ? sw_buffer_print(&text, "id,cluster,name,distance\r\n") : 0;
  for (int64_t i = 0; i < job->input.rows && !status; i++) {
    status = print_row(job, i, &text) ? -1 : 0;
    if (status || (text.size < 1 << 16 && i + 1 < job->input.rows)) continue;
    fwrite(text.data, text.size, 1, out.file); /* the commit reports errors */
    sw_buffer_clear(&text);
  }
  sw_buffer_close(&text);
  if (!status) return sw_output_commit(&out);
  sw_output_abandon(&out);
  return -1;
}

static json_t *number_or_null(double x) { return isnan(x) ? json_null() : json_real(x); }

static int print_json(const cluster_job *job, double seconds, FILE *to) {
  json_t *clusters = json_array(), *attempts = json_array();
  for (int c = 0; c < job->best.k; c++)
    json_array_append_new(clusters, json_pack("{s:i,s:s,s:I}", "cluster", c, "name", job->names[c], "size", (json_int_t)job->best.sizes[c]));
  for (int k = 0; k <= job->o->last_k - job->o->first_k; k++)
    json_array_append_new(attempts, json_pack("{s:i,s:f,s:o}", "k", job->attempts[k].k, "inertia", job->attempts[k].inertia, "silhouette",
                                              number_or_null(job->attempts[k].silhouette)));
  json_t *summary = json_pack("{s:I,s:I,s:i,s:f,s:o,s:i,s:f,s:o,s:o}", "rows", (json_int_t)job->input.rows, "rejected", (json_int_t)job->rejects.count, "k",
                              job->best.k, "inertia", job->best.inertia, "silhouette", number_or_null(job->silhouette), "iterations", job->best.iterations,
                              "seconds", seconds, "clusters", clusters, "tried", attempts);
  char *text = summary ? sw_json_canonical(summary) : NULL;
  const int status = text ? 0 : summary ? -1 : sw_fail("out of memory");
  if (text) fprintf(to, "%s\n", text);
  free(text);
  json_decref(summary);
  return status;
}

static int report(const cluster_job *job, double seconds) {
  const cluster_options *o = job->o;
  if (!o->quiet) {
    for (int k = o->first_k; k <= o->last_k && o->first_k < o->last_k; k++)
      fprintf(stderr, "cluster: k %d: inertia %.6g, silhouette %.4f%s\n", k, job->attempts[k - o->first_k].inertia, job->attempts[k - o->first_k].silhouette,
              k == job->best.k ? ", the best" : "");
    fprintf(stderr, "cluster: %lld vectors in %d cluster%s, inertia %.6g, silhouette %.4f, %.1f s", (long long)job->input.rows, job->best.k, SW_S(job->best.k),
            job->best.inertia, job->silhouette, seconds);
    if (job->rejects.count)
      fprintf(stderr, ", %llu unusable row%s set aside%s%s", (unsigned long long)job->rejects.count, SW_S(job->rejects.count),
              job->rejects.path ? " in " : ": ", job->rejects.path ? job->rejects.path : job->rejects.reason);
    if (job->texts_left_out)
      fprintf(stderr, ", %llu row%s of %s without text or vector", (unsigned long long)job->texts_left_out, SW_S(job->texts_left_out), o->texts);
    fprintf(stderr, "\n");
    for (int c = 0; c < job->best.k; c++) fprintf(stderr, "  %3d %9lld  %s\n", c, (long long)job->best.sizes[c], job->names[c]);
  }
  return o->json ? print_json(job, seconds, strcmp(o->output, "-") ? stdout : stderr) : 0;
}

/* --- the job --- */

/* Usable rows to the device, and their ids. */
static int load(cluster_job *job) {
  static const int squares = 1;
  return sw_usable_find(&job->input, &job->stream, sw_row_is_finite, &squares, &job->rejects) ||
                 !(job->ids = sw_alloc_array((size_t)job->input.rows, sizeof *job->ids)) || sw_usable_read(&job->input, 0, job->input.rows, NULL, job->ids)
             ? -1
             : 0;
}

static int run(cluster_job *job, const char *path) {
  const cluster_options *o = job->o;
  const double started = sw_clock();
  sw_buffer aside = {0};
  int status = sw_device_choose(o->device, o->quiet, &job->device) || sw_stream_open(job->device, o->threads, &job->stream) ||
                       sw_usable_open(path, !o->vectors, &job->input) || !(job->attempts = sw_alloc_array((size_t)(o->last_k - o->first_k + 1), sizeof *job->attempts))
                   ? -1
                   : 0;
  const int beside = !o->rejected && strcmp(o->output, "-");
  if (!status && beside) status = sw_buffer_print(&aside, "%s.rejected.jsonl", o->output);
  if (!status) status = sw_rejects_open(&job->rejects, beside ? aside.data : o->rejected);
  sw_buffer_close(&aside);
  if (!status)
    status = load(job) || find_clusters(job) || name_clusters(job) || sw_rejects_commit(&job->rejects) || write_rows(job) ? -1 : 0;
  return status ? -1 : report(job, sw_clock() - started);
}

static void close_job(cluster_job *job) {
  for (int64_t i = 0; i < job->input.rows && job->ids; i++) free(job->ids[i]);
  for (int c = 0; c < job->best.k && job->names; c++) free(job->names[c]);
  free(job->ids), free(job->names), free(job->attempts);
  sw_kmeans_close(&job->best);
  sw_rejects_close(&job->rejects);
  sw_usable_close(&job->input);
  if (job->device) sw_device_close(job->device);
}

/* "5" or "2..12" */
static int parse_clusters(cluster_options *o) {
  char *end = NULL;
  if (!o->clusters) return sw_fail("-k is missing: the number of clusters, or a range such as 2..12");
  const long first = strtol(o->clusters, &end, 10), last = end != o->clusters && !strncmp(end, "..", 2) ? strtol(end + 2, &end, 10) : first;
  if (end == o->clusters || *end || first < 1 || last < first || last > 1000 || (first < last && first < 2))
    return sw_fail("-k is '%s', not a number of clusters from 1 to 1000, or a range such as 2..12 (from 2 on)", o->clusters);
  o->first_k = (int)first, o->last_k = (int)last;
  o->kmeans.k = o->last_k;
  return 0;
}

static int settle(cluster_options *o, const sw_list *inputs) {
  if (inputs->count != 1) return sw_fail("one file of vectors or one map is needed (see --help)");
  o->csv |= sw_infer_ends_in(o->output, ".csv");
  if (!o->csv && strcmp(o->output, "-") && !sw_infer_ends_in(o->output, ".jsonl")) return sw_fail("-o %s: the name must end in .csv or .jsonl", o->output);
  if (sw_infer_check_outputs(o->output, o->rejected, NULL, (const char *const[]){inputs->items[0], o->texts}, 2) || sw_check_writable(o->output) ||
      sw_device_check(o->device, o->threads) || parse_clusters(o))
    return -1;
  if ((o->column || o->id_column) && !o->texts) return sw_fail("--column and --id-column are for --texts, which is missing");
  if (o->seed < 0) return sw_fail("--seed is %d, must not be negative", o->seed);
  o->kmeans.seed = (uint64_t)o->seed;
  return sw_kmeans_check(&o->kmeans);
}

int sw_infer_cluster(int argc, char **argv) {
  cluster_options o = {.output = "-", .device = "auto", .kmeans = SW_KMEANS_DEFAULTS};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "clusters.csv, clusters.jsonl or - (JSON lines to stdout)"},
      {"csv", 0, SW_OPTION_FLAG, &o.csv, NULL, "rows of id, cluster, name, distance to the centre"},
      {"clusters", 'k', SW_OPTION_TEXT, &o.clusters, "K", "how many, or a range, 2..12, of which the best silhouette counts (needed)"},
      {"vectors", 0, SW_OPTION_FLAG, &o.vectors, NULL, "of a map: clusters its vectors, not its points"},
      {"texts", 0, SW_OPTION_TEXT, &o.texts, "FILE", "the texts that were embedded, which give the clusters names"},
      {"column", 0, SW_OPTION_TEXT, &o.column, "NAME", "column or key of their text (else: description, text, the only one)"},
      {"id-column", 0, SW_OPTION_TEXT, &o.id_column, "NAME", "column or key of their id (else: id, job_id, number)"},
      {"n-init", 0, SW_OPTION_INT, &o.kmeans.starts, "N", "starts, the best of which is kept"},
      {"max-iterations", 0, SW_OPTION_INT, &o.kmeans.max_iterations, "N", "passes of a start"},
      {"tolerance", 0, SW_OPTION_DOUBLE, &o.kmeans.tolerance, "T", "ends a start whose centres move less"},
      {"seed", 0, SW_OPTION_INT, &o.seed, "N", "of all that is random: the same seed, the same bits"},
      {"rejected", 0, SW_OPTION_TEXT, &o.rejected, "FILE", "unusable rows go here (else: OUTPUT.rejected.jsonl)"},
      {"device", 0, SW_OPTION_TEXT, &o.device, "D", "auto, cpu or cuda[:N]"},
      {"threads", 0, SW_OPTION_INT, &o.threads, "N", "worker threads; 0: one a core. Changes no result"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.quiet, NULL, "no progress and no summary"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "summary as JSON, to stdout (stderr with -o -)"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer cluster VECTORS|MAP -k K [options]",
      .summary = "Groups vectors (.h5 or .npy, of skillwatch infer embed) or the points of a map (of skillwatch infer map) into\n"
                 "clusters around K centres: k-means. A row's cluster is a number, 0 the largest; with --texts it has a name, too:\n"
                 "the three words that set it apart from the others.",
      .example = "skillwatch infer cluster map.h5 -k 2..12 --texts titles.csv --column title -o clusters.csv",
      .options = options,
  };
  sw_list inputs = {0};
  cluster_job job = {.o = &o};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = settle(&o, &inputs);
  if (status) {
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  } else {
    status = run(&job, inputs.items[0]) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
    close_job(&job);
  }
  sw_list_close(&inputs);
  return status;
}
