/* skillwatch infer map: vectors to a map in two or three dimensions, by UMAP; or onto a map that is there. */
#include "base/error.h"
#include "base/progress.h"
#include "engine/data/csv.h"
#include "engine/space/quality.h"
#include "engine/store/config_file.h"
#include "engine/store/json.h"
#include "infer/map.h"
#include "infer/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 2048, QUALITY_NEIGHBOURS = 15 };

typedef struct {
  const char *output, *rejected, *device, *fit_on, *metric;
  int neighbours, components, epochs, seed, threads, memory, quality, quiet, json; /* -1: not given */
  double min_dist, spread;                                                       /* -1: not given */
} map_options;

typedef struct {
  const map_options *o;
  sw_umap_options umap;
  sw_device *device;
  sw_stream stream;
  sw_usable old, input; /* old: the map that is fitted on */
  float *old_coordinates, *coordinates;
  sw_rejects rejects;
  sw_map_quality quality;
} map_job;

/* --- settings --- */

/* Those of the map, which new points must share. */
static int settings_of_map(const sw_usable *old, int components, const char *text, sw_umap_options *u) {
  json_t *json = sw_json_parse(text, strlen(text), old->path);
  if (!json) return -1;
  int64_t neighbours, dims, epochs, seed;
  const char *metric = sw_json_string(json, "metric");
  double min_dist = json_number_value(json_object_get(json, "min_dist")), spread = json_number_value(json_object_get(json, "spread"));
  int status = sw_json_integer(json, "n_neighbors", 2, SW_MOST_NEIGHBOURS, 0, old->path, &neighbours) ||
                       sw_json_integer(json, "components", 2, 3, 0, old->path, &dims) || sw_json_integer(json, "epochs", 0, INT32_MAX, 0, old->path, &epochs) ||
                       sw_json_integer(json, "seed", 0, INT64_MAX, 0, old->path, &seed)
                   ? -1
                   : 0;
  if (!status && (!metric || (strcmp(metric, "cosine") && strcmp(metric, "euclidean")) || dims != components))
    status = sw_fail("%s is damaged: its map has no such metric or components", old->path);
  if (!status)
    *u = (sw_umap_options){(int)neighbours, (int)dims, !strcmp(metric, "cosine"), (int)epochs, min_dist, spread, (uint64_t)seed};
  json_decref(json);
  return status ? -1 : sw_umap_check(u);
}

static json_t *settings_to_json(const map_job *job) {
  const sw_umap_options *u = &job->umap;
  double a, b;
  if (sw_umap_curve(u->min_dist, u->spread, &a, &b)) return NULL;
  json_t *json = json_pack("{s:s,s:i,s:i,s:s,s:i,s:f,s:f,s:f,s:f,s:I,s:s,s:s}", "method", "umap", "n_neighbors", u->neighbours, "components", u->components,
                           "metric", u->cosine ? "cosine" : "euclidean", "epochs", u->epochs, "min_dist", u->min_dist, "spread", u->spread, "a", a, "b", b,
                           "seed", (json_int_t)u->seed, "vectors_sha256", job->input.sha256, "tool_version", SW_VERSION);
  if (json && job->o->fit_on) json_object_set_new(json, "fit_on_sha256", json_string(job->old.sha256));
  if (json && job->o->quality && !isnan(job->quality.kept))
    json_object_set_new(json, "quality", json_pack("{s:f,s:f,s:i,s:I}", "trustworthiness", job->quality.trustworthiness, "neighbours_kept",
                                                   job->quality.kept, "k", job->quality.k, "queries", (json_int_t)job->quality.queries));
  if (!json) sw_fail("out of memory");
  return json;
}

/* --- memory --- */

static int check_memory(const map_job *job) {
  const map_options *o = job->o;
  size_t on_device, bytes = sw_umap_bytes(&job->umap, (int64_t)job->input.file.rows, job->input.file.hidden, &on_device);
  const size_t old = (size_t)job->old.file.rows * (size_t)(job->old.file.hidden + 2 * job->umap.components) * sizeof(float);
  bytes += old;
  const size_t limit = o->memory > 0 ? (size_t)o->memory << 20 : (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
  if (!o->quiet)
    fprintf(stderr, "map: %llu vectors of %d numbers take up to %.0f MB of memory\n", (unsigned long long)job->input.file.rows, job->input.file.hidden,
            (double)bytes / 1e6);
  if (bytes > limit)
    return sw_fail("%s: a map of %llu vectors of %d numbers takes up to %.0f MB of memory, and %.0f MB are %s: use fewer rows or a smaller --n-neighbors%s",
                   job->input.path, (unsigned long long)job->input.file.rows, job->input.file.hidden, (double)bytes / 1e6, (double)limit / 1e6,
                   o->memory > 0 ? "allowed" : "there", o->memory > 0 ? ", or raise --memory" : "");
  return 0;
}

const char *sw_map_check_row(const void *options, int width, float *row) { return sw_umap_normalize(options, width, row); }

static void free_ids(char **ids) {
  for (int64_t i = 0; i < BLOCK; i++) {
    free(ids[i]);
    ids[i] = NULL;
  }
}

/* --- output --- */

static int write_hdf(map_job *job, char **ids, const char *json) {
  sw_usable *s = &job->input;
  const sw_vectors *v = &s->file;
  const sw_vectors_origin origin = {v->model_sha256, v->model, v->pooling, v->prefix, v->normalize};
  float *block = sw_alloc_array(BLOCK, (size_t)v->hidden * sizeof *block);
  sw_vectors_writer *writer = NULL;
  size_t longest = 0;
  int status = block ? 0 : -1;
  for (int pass = 0; pass < 2 && !status; pass++) { /* the longest id must be known before */
    if (pass) status = sw_vectors_create(job->o->output, v->hidden, longest, &origin, &writer);
    for (int64_t first = 0; first < s->rows && !status; first += BLOCK) {
      const int64_t count = s->rows - first < BLOCK ? s->rows - first : BLOCK;
      status = sw_usable_read(s, first, count, pass ? block : NULL, ids);
      for (int64_t i = 0; i < count && !status; i++) longest = strlen(ids[i]) > longest ? strlen(ids[i]) : longest;
      if (!status && pass) status = sw_vectors_append(writer, block, (const char *const *)ids, (size_t)count);
      free_ids(ids);
    }
  }
  free(block);
  if (!status) status = sw_vectors_add_map(writer, job->coordinates, job->umap.components, json);
  if (!status) return sw_vectors_commit(writer);
  sw_vectors_abandon(writer);
  return -1;
}

/* Nine digits give every float back exactly. */
static int put_csv(sw_buffer *text, const char *id, const float *at, int dims) {
  int status = sw_csv_quote(text, id, strlen(id));
  for (int c = 0; c < dims && !status; c++) status = sw_buffer_print(text, ",%.9g", (double)at[c]);
  return status ? -1 : sw_buffer_append(text, "\r\n", 2);
}

static int put_json(sw_buffer *text, const char *id, const float *at, int dims, int first) {
  int status = sw_buffer_print(text, first ? "\n{\"id\": " : ",\n{\"id\": ") || sw_json_quote(text, id, strlen(id));
  for (int c = 0; c < dims && !status; c++) status = sw_buffer_print(text, ", \"%c\": %.9g", "xyz"[c], (double)at[c]);
  return status ? -1 : sw_buffer_append(text, "}", 1);
}

/* json: the settings, for JSON; NULL: CSV. */
static int write_text(map_job *job, char **ids, const char *json) {
  const int dims = job->umap.components;
  sw_output out;
  sw_buffer text = {0};
  if (sw_output_open(&out, job->o->output)) return -1;
  int status = json ? sw_buffer_print(&text, "{\"map\": %s,\n\"points\": [", json) : sw_buffer_print(&text, "id,x,y%s\r\n", dims == 3 ? ",z" : "");
  for (int64_t first = 0; first < job->input.rows && !status; first += BLOCK) {
    const int64_t count = job->input.rows - first < BLOCK ? job->input.rows - first : BLOCK;
    status = sw_usable_read(&job->input, first, count, NULL, ids);
    for (int64_t i = 0; i < count && !status; i++) {
      const float *at = job->coordinates + (first + i) * dims;
      status = json ? put_json(&text, ids[i], at, dims, first + i == 0) : put_csv(&text, ids[i], at, dims);
    }
    if (!status && text.size) fwrite(text.data, text.size, 1, out.file); /* the commit reports errors */
    sw_buffer_clear(&text);
    free_ids(ids);
  }
  sw_buffer_close(&text);
  if (json) fputs("\n]}\n", out.file);
  if (!status) return sw_output_commit(&out);
  sw_output_abandon(&out);
  return -1;
}

static int write_map(map_job *job) {
  char **ids = sw_alloc_array(BLOCK, sizeof *ids);
  json_t *settings = ids ? settings_to_json(job) : NULL;
  char *json = settings ? sw_json_canonical(settings) : NULL;
  const char *path = job->o->output;
  int status = !json ? -1 : sw_infer_ends_in(path, ".csv") ? write_text(job, ids, NULL) : sw_infer_ends_in(path, ".json") ? write_text(job, ids, json) : write_hdf(job, ids, json);
  free(json);
  json_decref(settings);
  if (ids) free_ids(ids);
  free(ids);
  return status;
}

static void report(const map_job *job, double seconds) {
  const map_options *o = job->o;
  if (!o->quiet) {
    fprintf(stderr, "map: %lld point%s in %.1f s", (long long)job->input.rows, SW_S(job->input.rows), seconds);
    if (job->rejects.count)
      fprintf(stderr, ", %llu unusable row%s set aside in %s", (unsigned long long)job->rejects.count, SW_S(job->rejects.count), job->rejects.path);
    fprintf(stderr, "\n");
    if (o->quality && isnan(job->quality.kept)) fprintf(stderr, "map: too few points to say how well neighbours were kept\n");
    if (o->quality && !isnan(job->quality.kept))
      fprintf(stderr, "map: trustworthiness %.4f, %.4f of the %d nearest neighbours kept (%lld of the points asked)\n", job->quality.trustworthiness,
              job->quality.kept, job->quality.k, (long long)job->quality.queries);
  }
  if (o->json) {
    printf("{\"rows\": %lld, \"rejected\": %llu, \"seconds\": %.3f", (long long)job->input.rows, (unsigned long long)job->rejects.count, seconds);
    if (o->quality && !isnan(job->quality.kept))
      printf(", \"trustworthiness\": %.6f, \"neighbours_kept\": %.6f, \"quality_k\": %d, \"quality_queries\": %lld", job->quality.trustworthiness,
             job->quality.kept, job->quality.k, (long long)job->quality.queries);
    printf("}\n");
  }
}

/* --- the job --- */

int sw_map_open(const char *path, sw_usable *vectors, float **coordinates, sw_umap_options *umap) {
  char *json = NULL;
  int components;
  const int failed = sw_usable_open(path, 0, vectors) || sw_vectors_read_map(&vectors->file, &components, coordinates, &json) ||
                     settings_of_map(vectors, components, json, umap);
  free(json);
  return failed ? -1 : 0;
}

static int open_old(map_job *job) {
  const sw_usable *old = &job->old, *input = &job->input;
  return sw_map_open(job->o->fit_on, &job->old, &job->old_coordinates, &job->umap) ||
                 sw_vectors_check_origin(input->path, &input->file, old->path, &old->file, 1)
             ? -1
             : 0;
}

static int run(map_job *job, const char *input) {
  const map_options *o = job->o;
  const double started = sw_clock();
  sw_buffer aside = {0};
  int status = sw_device_choose(o->device, o->quiet, &job->device) || sw_stream_open(job->device, o->threads, &job->stream) ||
                       sw_usable_open(input, 0, &job->input) || (o->fit_on && open_old(job)) || check_memory(job)
                   ? -1
                   : 0;
  if (!status) status = o->rejected ? sw_buffer_print(&aside, "%s", o->rejected) : sw_buffer_print(&aside, "%s.rejected.jsonl", o->output);
  if (!status) status = sw_rejects_open(&job->rejects, aside.data);
  sw_buffer_close(&aside);
  if (!status)
    status = (o->fit_on && sw_usable_find(&job->old, &job->stream, sw_map_check_row, &job->umap, NULL)) ||
                     sw_usable_find(&job->input, &job->stream, sw_map_check_row, &job->umap, &job->rejects)
                 ? -1
                 : 0;
  const int dims = job->umap.components, hidden = job->input.file.hidden;
  if (!status && !(job->coordinates = sw_alloc_array((size_t)job->input.rows, (size_t)dims * sizeof(float)))) status = -1;
  if (!status && o->fit_on) {
    const sw_umap_map map = {job->old.rows, job->old.device, job->old_coordinates};
    status = sw_umap_place(&job->stream, &job->umap, &map, job->input.rows, hidden, job->input.device, o->quiet, job->coordinates);
  } else if (!status) {
    status = sw_umap_fit(&job->stream, &job->umap, job->input.rows, hidden, job->input.device, o->quiet, job->coordinates);
  }
  if (!status && o->quality)
    status = sw_map_quality_of(&job->stream, job->umap.cosine, job->input.rows, hidden, job->input.device, dims, job->coordinates, QUALITY_NEIGHBOURS,
                               job->umap.seed, &job->quality);
  if (!status) status = sw_rejects_commit(&job->rejects) || write_map(job) ? -1 : 0;
  if (!status) report(job, sw_clock() - started);
  return status;
}

/* Options to settings; a map that is fitted on brings its own. */
static int settle(const map_options *o, const sw_list *inputs, sw_umap_options *u) {
  if (inputs->count != 1) return sw_fail("one vectors file is needed (see --help)");
  if (!o->output) return sw_fail("an output is needed: -o map.h5, map.csv or map.json");
  if (!sw_infer_ends_in(o->output, ".h5") && !sw_infer_ends_in(o->output, ".hdf5") && !sw_infer_ends_in(o->output, ".csv") && !sw_infer_ends_in(o->output, ".json"))
    return sw_fail("-o %s: the name must end in .h5, .csv or .json", o->output);
  if (sw_infer_check_outputs(o->output, o->rejected, NULL, (const char *const[]){inputs->items[0], o->fit_on}, 2) || sw_check_writable(o->output) ||
      sw_device_check(o->device, o->threads))
    return -1;
  if (o->memory < 0) return sw_fail("--memory cannot be negative");
  const int given = o->neighbours != -1 || o->components != -1 || o->epochs != -1 || o->seed != -1 || o->metric || o->min_dist != -1 || o->spread != -1;
  if (o->fit_on && given)
    return sw_fail("--fit-on takes --components, --n-neighbors, --min-dist, --spread, --metric, --epochs and --seed from the map: leave them out");
  *u = SW_UMAP_DEFAULTS;
  if (o->neighbours != -1) u->neighbours = o->neighbours;
  if (o->components != -1) u->components = o->components;
  if (o->epochs != -1) u->epochs = o->epochs;
  if (o->min_dist != -1) u->min_dist = o->min_dist;
  if (o->spread != -1) u->spread = o->spread;
  if (o->seed < -1) return sw_fail("--seed is %d, must not be negative", o->seed);
  u->seed = o->seed == -1 ? 0 : (uint64_t)o->seed;
  if (o->metric && strcmp(o->metric, "cosine") && strcmp(o->metric, "euclidean"))
    return sw_fail("--metric is '%s', not cosine or euclidean", o->metric);
  u->cosine = !o->metric || !strcmp(o->metric, "cosine");
  return sw_umap_check(u);
}

int sw_infer_map(int argc, char **argv) {
  map_options o = {.device = "auto", .neighbours = -1, .components = -1, .epochs = -1, .seed = -1, .min_dist = -1, .spread = -1};
  const sw_option options[] = {
      {"output", 'o', SW_OPTION_TEXT, &o.output, "FILE", "map.h5; map.csv with id, x, y; or map.json, the same with the settings (needed)"},
      {"components", 0, SW_OPTION_INT, &o.components, "N", "dimensions of the map: 2 or 3 (else: 2)"},
      {"n-neighbors", 0, SW_OPTION_INT, &o.neighbours, "N", "of a point, itself among them: more show the whole, fewer the details (else: 15)"},
      {"min-dist", 0, SW_OPTION_DOUBLE, &o.min_dist, "D", "how near points may come to each other on the map (else: 0.1)"},
      {"spread", 0, SW_OPTION_DOUBLE, &o.spread, "D", "scale of the map (else: 1)"},
      {"metric", 0, SW_OPTION_TEXT, &o.metric, "M", "distance of vectors: cosine or euclidean (else: cosine)"},
      {"epochs", 0, SW_OPTION_INT, &o.epochs, "N", "of the layout: more untangle large maps (else: 0: 500, or 1000 above 10,000 points)"},
      {"seed", 0, SW_OPTION_INT, &o.seed, "N", "of all that is random: the same seed, the same bits (else: 0)"},
      {"fit-on", 0, SW_OPTION_TEXT, &o.fit_on, "MAP", "places the vectors on this map.h5, which stays as it is"},
      {"quality", 0, SW_OPTION_FLAG, &o.quality, NULL, "measures how well neighbours were kept"},
      {"rejected", 0, SW_OPTION_TEXT, &o.rejected, "FILE", "unusable rows go here (else: OUTPUT.rejected.jsonl)"},
      {"memory", 0, SW_OPTION_INT, &o.memory, "MB", "that may be taken, and no more; 0: this machine's"},
      {"device", 0, SW_OPTION_TEXT, &o.device, "D", "auto, cpu or cuda[:N]"},
      {"threads", 0, SW_OPTION_INT, &o.threads, "N", "worker threads; 0: one a core. Changes no result"},
      {"quiet", 'q', SW_OPTION_FLAG, &o.quiet, NULL, "no progress and no summary"},
      {"json", 0, SW_OPTION_FLAG, &o.json, NULL, "summary as JSON, to stdout"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch infer map VECTORS -o MAP [options]",
      .summary = "Draws vectors (.h5 or .npy, of skillwatch infer embed) in two or three dimensions, so that neighbours are\n"
                 "together: UMAP. A map.h5 keeps the vectors beside the coordinates, so that others can be placed on it later\n"
                 "(--fit-on); where one goes depends on the map and itself only, not on what is placed with it.",
      .example = "skillwatch infer map vectors.h5 -o map.h5 --seed 1 --quality\n"
                 "  skillwatch infer map next-week.h5 --fit-on map.h5 -o next-week-map.h5",
      .options = options,
  };
  sw_list inputs = {0};
  map_job job = {.o = &o};
  int status = sw_config_parse(&command, argc, argv, &inputs);
  if (!status) status = settle(&o, &inputs, &job.umap);
  if (status) {
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  } else {
    status = run(&job, inputs.items[0]) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
    sw_usable_close(&job.old);
    sw_usable_close(&job.input);
    free(job.old_coordinates), free(job.coordinates);
    sw_rejects_close(&job.rejects);
    if (job.device) sw_device_close(job.device);
  }
  sw_list_close(&inputs);
  return status;
}
