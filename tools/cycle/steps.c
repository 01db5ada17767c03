#include "base/error.h"
#include "base/file.h"
#include "base/table.h"
#include "engine/store/json.h"
#include "tools/cycle/cycle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOP_BYTES = 1 << 28 };

/* Appends texts, up to NULL. */
static int add(json_t *list, ...) {
  va_list rest;
  int status = 0;
  va_start(rest, list);
  for (const char *text; !status && (text = va_arg(rest, const char *));) status = json_array_append_new(list, json_string(text));
  va_end(rest);
  return status ? sw_fail("a name or a setting is not UTF-8") : 0;
}

/* Appends `option` (NULL: none) and a file of this run to the command, and the file to `list` (NULL: to none). */
static int add_file(const cycle *c, plan *p, const char *option, const char *name, json_t *list) {
  char *path = cycle_path(c, NULL, name);
  int status = path ? 0 : -1;
  if (!status && option) status = add(p->command, option, NULL);
  if (!status) status = add(p->command, path, NULL);
  if (!status && list) status = add(list, path, NULL);
  free(path);
  return status;
}

static int is_file(const char *path) { return sw_exists(path) && !sw_is_folder(path); }

/* The step's own settings; the files that they name are inputs ("FILE:0.5", too). */
static int add_settings(const cycle *c, plan *p, const char *name) {
  json_t *given = json_object_get(c->given, name), *item;
  size_t i;
  json_array_foreach(given, i, item) {
    const char *text = json_string_value(item), *colon = strrchr(text, ':');
    char *file = strncmp(text, "--", 2) ? sw_strdup(text) : NULL;
    if (file && colon && !is_file(file)) file[colon - text] = 0;
    const char *option = i ? json_string_value(json_array_get(given, i - 1)) : "";
    const int reads = !strcmp(option, "--data") || !strcmp(option, "--dev"); /* folders, too; another's may be a cache */
    const int status = add(p->command, text, NULL) || (file && (reads ? sw_exists(file) : is_file(file)) && add(p->inputs, file, NULL));
    free(file);
    if (status) return -1;
  }
  return 0;
}

/* "-m" and a checkpoint, an input; free()s the path. */
static int add_model(plan *p, const char *option, char *path) {
  const int status = path ? add(p->command, option, path, NULL) || add(p->inputs, path, NULL) : 0;
  free(path);
  return status;
}

static int make_fetch(cycle *c, plan *p) {
  const char *source = sw_json_string(json_object_get(c->config, "fetch"), "source");
  if (add(p->command, "fetch", source, "-o", c->postings, "--date", sw_json_string(c->info, "date"), "--json", NULL) || add_settings(c, p, "fetch")) return -1;
  return is_file(source) ? add(p->inputs, source, NULL) : 0;
}

static int make_label(cycle *c, plan *p) {
  char *answers = sw_path_join(c->state, "answers"), *tagger = NULL;
  const json_t *settings = json_object_get(c->config, "label");
  const int own_cache = json_object_get(settings, "cache") != NULL, picks = json_object_get(settings, "pick") != NULL;
  int status = answers ? add(p->command, "label", NULL) || cycle_add_postings(c, p) || add_file(c, p, "-o", "label/labels.jsonl", p->outputs) || add(p->command, "--json", NULL) : -1;
  if (!status && !own_cache) status = add(p->command, "--cache", answers, NULL);
  if (!status && picks) status = cycle_trained_from(c, &tagger);
  if (!status && picks && !tagger) status = sw_fail("\"label\": \"pick\" needs a tagger, and none was promoted yet: leave it out in the first week");
  if (!status) status = add_model(p, "-m", tagger) || add_settings(c, p, "label");
  free(answers);
  return status ? -1 : 0;
}

/* bill.json, in a line, for reports: {"date", "cost", "tokens_in", "tokens_out"}. */
static int after_label(cycle *c, json_t *record) {
  const json_t *told = json_object_get(record, "result"), *cost = json_object_get(told, "cost"), *in = json_object_get(told, "tokens_in"), *out = json_object_get(told, "tokens_out");
  json_t *bill = cost && in && out ? json_pack("{s:s, s:O, s:O, s:O}", "date", sw_json_string(c->info, "date"), "cost", cost, "tokens_in", in, "tokens_out", out) : NULL;
  char *text = bill ? sw_json_canonical(bill) : NULL, *folder = cycle_path(c, NULL, "label");
  sw_buffer line = {0};
  int status = !folder ? -1 : !text ? sw_fail("skillwatch label told no bill") : sw_buffer_print(&line, "%s\n", text);
  if (!status) status = sw_file_write(folder, "bill.json", line.data, line.size);
  sw_buffer_close(&line);
  json_decref(bill);
  free(folder);
  free(text);
  return status;
}

/* 1 where a file of labels is there and none of its rows has a span; -1 on failure. */
static int names_nothing(const char *path) {
  FILE *file = fopen(path, "re");
  char *line = NULL;
  size_t room = 0;
  ssize_t length;
  int none = file != NULL;
  while (none > 0 && (length = getline(&line, &room, file)) > 0) {
    json_t *row = NULL;
    json_error_t error;
    if (sw_json_row(line, (size_t)length, 0, &row, &error)) none = -1;
    else if (json_array_size(json_object_get(row, "spans"))) none = 0;
    json_decref(row);
  }
  if (file) fclose(file);
  free(line);
  return none;
}

/* Labels of earlier runs, as --replay, the same part each. */
static int add_earlier(const cycle *c, plan *p) {
  const double part = cycle_number(c, "train", "earlier", 0.3);
  const size_t most = (size_t)cycle_number(c, "train", "earlier_weeks", 8);
  json_t *files = json_array(), *item;
  size_t i;
  int status = files ? 0 : -1;
  for (i = 0; !status && i < json_array_size(c->runs); i++) {
    const char *run = json_string_value(json_array_get(c->runs, i));
    char *path = cycle_path(c, run, "label/labels.jsonl");
    if (!path) status = -1;
    if (path && strcmp(run, c->run) && sw_exists(path)) {
      const int none = names_nothing(path);
      status = none < 0 ? -1 : none ? 0 : add(files, path, NULL);
    }
    free(path);
  }
  while (json_array_size(files) > most) json_array_remove(files, 0);
  const size_t count = part > 0 ? json_array_size(files) : 0;
  json_array_foreach(files, i, item) {
    sw_buffer text = {0};
    if (status || !count) break;
    status = sw_buffer_print(&text, "%s:%.6g", json_string_value(item), part / (double)count) || add(p->command, "--replay", text.data, NULL) || add(p->inputs, json_string_value(item), NULL) ? -1 : 0;
    sw_buffer_close(&text);
  }
  json_decref(files);
  return status;
}

/* 1, and the plan says so, where a step of training is not for this run; -1 on failure. What is not labelled yet may be. */
static int no_training(const cycle *c, plan *p) {
  if (!c->newest) return sw_buffer_print(&p->left_out, "a later run has gone on") ? -1 : 1;
  const int none = cycle_no_labels(c);
  return none > 0 && sw_buffer_print(&p->left_out, "no labels") ? -1 : none;
}

int cycle_no_labels(const cycle *c) {
  if (!json_object_get(c->config, "label") || json_object_get(json_object_get(c->config, "train"), "data")) return 0;
  char *path = cycle_path(c, NULL, "label/labels.jsonl");
  const int none = path ? names_nothing(path) : -1;
  free(path);
  return none;
}

/* 1, and the plan says so, where a week without labels came before anything was promoted; -1 on failure. */
static int no_tagger(cycle *c, plan *p) {
  char *model = NULL;
  int none = cycle_in_use(c, &model) ? -1 : model ? 0 : cycle_no_labels(c);
  free(model);
  return none > 0 && sw_buffer_print(&p->left_out, "nothing was promoted yet, and there were no labels") ? -1 : none;
}

static int make_train(cycle *c, plan *p) {
  char *from = NULL;
  const int none = no_training(c, p);
  if (none) return none < 0 ? -1 : 0;
  if (cycle_trained_from(c, &from)) return -1;
  if (!from && !(from = sw_strdup(c->base))) return -1;
  if (add(p->command, "train", "ner", NULL) || add_model(p, "--base", from)) return -1;
  if (json_object_get(c->config, "label") && add_file(c, p, "--data", "label/labels.jsonl", p->inputs)) return -1;
  return add_earlier(c, p) || add_file(c, p, "-o", "train/tagger.h5", p->outputs) || add(p->command, "--resume", NULL) ? -1 : add_settings(c, p, "train");
}

static int make_compare(cycle *c, plan *p) {
  char *old = NULL;
  const int none = no_training(c, p);
  if (none) return none < 0 ? -1 : 0;
  if (cycle_compared_with(c, &old)) return -1;
  if (!old) return sw_buffer_print(&p->left_out, "there is no earlier checkpoint to compare with");
  return add(p->command, "compare", NULL) || add_model(p, "--gate", old) || add_file(c, p, NULL, "train/tagger.h5", p->inputs) || add(p->command, "--no-speed", NULL) ||
                 add_file(c, p, "-o", "compare/compare.json", p->outputs)
             ? -1
             : add_settings(c, p, "compare");
}

static int make_tag(cycle *c, plan *p) {
  char *model = NULL;
  const int none = no_tagger(c, p);
  if (none) return none < 0 ? -1 : 0;
  if (cycle_in_use(c, &model)) return -1;
  if (!model) return sw_fail("%s/current.h5 is not there: nothing was promoted yet, so there is no tagger (--from promote makes the run's the first, ln -s NAME.h5 %s/current.h5 brings one of your own)", c->models, c->models);
  return add(p->command, "infer", "tag", NULL) || add_model(p, "-m", model) || cycle_add_postings(c, p) || add_file(c, p, "-o", "tag/tags.jsonl", p->outputs) ? -1 : add_settings(c, p, "tag");
}

static char *base_of(const cycle *c) { return sw_strdup(c->base); }

static int make_link(cycle *c, plan *p) {
  const int none = no_tagger(c, p);
  if (none) return none < 0 ? -1 : 0;
  const json_t *settings = json_object_get(c->config, "link");
  const int words = json_is_true(json_object_get(settings, "exact-only"));
  if (!words && !c->base) return sw_fail("\"link\" needs \"base\", or \"exact-only\": true");
  return add(p->command, "infer", "link", NULL) || add_file(c, p, NULL, "tag/tags.jsonl", p->inputs) || (!words && add_model(p, "-m", base_of(c))) ||
                 add_file(c, p, "-o", "link/linked.jsonl", p->outputs) || add_file(c, p, "--candidates", "link/candidates.csv", NULL)
             ? -1
             : add_settings(c, p, "link");
}

static int make_skills(cycle *c, plan *p) {
  const int none = no_tagger(c, p);
  if (none) return none < 0 ? -1 : 0;
  char *file = cycle_path(c, NULL, "skills/skills.jsonl");
  int status = !file || add(p->command, "top", NULL) || add_file(c, p, NULL, json_object_get(c->config, "link") ? "link/linked.jsonl" : "tag/tags.jsonl", p->inputs) ||
               add(p->command, "--json", "-k", "1000000000", NULL) || add(p->outputs, file, NULL);
  free(file);
  return status ? -1 : add_settings(c, p, "skills");
}

/* skills.jsonl from what skillwatch top printed: {"id", "text", "postings"}, a skill a line, the most frequent first. */
static int after_skills(cycle *c, json_t *record) {
  char *path = cycle_path(c, NULL, "skills/top.json");
  json_t *top = path ? sw_json_read(path, TOP_BYTES) : NULL, *skill;
  sw_table seen = {0};
  sw_buffer lines = {0};
  size_t i;
  int status = top ? 0 : -1;
  json_array_foreach(json_object_get(top, "skills"), i, skill) {
    const char *name = sw_json_string(skill, "skill");
    if (status || !name || !*name || sw_table_find(&seen, name) >= 0) continue; /* linked, and as a text beside */
    json_t *row = json_pack("{s:s, s:s, s:O}", "id", name, "text", name, "postings", json_object_get(skill, "postings"));
    char *text = row && sw_table_add(&seen, name) >= 0 ? sw_json_canonical(row) : NULL;
    status = text ? sw_buffer_print(&lines, "%s\n", text) : -1;
    json_decref(row);
    free(text);
  }
  free(path);
  path = status ? NULL : cycle_path(c, NULL, "skills");
  if (!status) status = path ? sw_file_write(path, "skills.jsonl", lines.data ? lines.data : "", lines.size) : -1;
  sw_table_close(&seen);
  sw_buffer_close(&lines);
  json_decref(top);
  free(path);
  return status;
}

/* 1 where the run's tags name no skill; what is not there yet may. */
static int no_skills(cycle *c, plan *p) {
  const int untagged = no_tagger(c, p);
  if (untagged) return untagged;
  char *path = cycle_path(c, NULL, "skills/skills.jsonl");
  FILE *file = path ? fopen(path, "re") : NULL;
  const int none = file && fgetc(file) == EOF;
  if (file) fclose(file);
  free(path);
  return none ? sw_buffer_print(&p->left_out, "no skill was found") || 1 : 0;
}

static int make_embed(cycle *c, plan *p) {
  const int none = no_skills(c, p);
  if (none) return none < 0 ? -1 : 0;
  return add(p->command, "infer", "embed", NULL) || add_file(c, p, NULL, "skills/skills.jsonl", p->inputs) || add(p->command, "--column", "text", "--id-column", "id", NULL) ||
                 add_model(p, "-m", base_of(c)) || add_file(c, p, "-o", "embed/vectors.h5", p->outputs)
             ? -1
             : add_settings(c, p, "embed");
}

/* The latest earlier run's map that was fitted, on vectors of the present base. Sets *map to NULL where there is none. */
static int find_fitted(cycle *c, char **map) {
  const char *base = cycle_hash(c, c->base);
  *map = NULL;
  if (!base) return -1;
  for (size_t i = json_array_size(c->runs); !*map && i-- > 0;) {
    const char *run = json_string_value(json_array_get(c->runs, i));
    if (!strcmp(run, c->run)) continue;
    json_t *record = cycle_record(c, run, "map"), *embed = cycle_record(c, run, "embed");
    const char *with = sw_json_string(json_object_get(embed, "inputs"), c->base);
    const json_t *command = json_object_get(record, "command");
    int fitted = record && json_integer_value(json_object_get(record, "status")) == 0 && with && !strcmp(with, base);
    for (size_t k = 0; fitted && k < json_array_size(command); k++) fitted = strcmp(json_string_value(json_array_get(command, k)), "--fit-on") != 0;
    if (fitted && !(*map = cycle_path(c, run, "map/map.h5"))) fitted = -1;
    json_decref(record);
    json_decref(embed);
    if (fitted < 0) return -1;
    if (*map && !sw_exists(*map)) {
      free(*map);
      *map = NULL;
    }
  }
  return 0;
}

/* A fitted map's settings are those of all that is placed on it. */
static int add_map_settings(const cycle *c, plan *p) {
  static const char *const others[] = {"--device", "--threads", "--memory", "--quality", "--no-quality", "--rejected", "--quiet", "--no-quiet"};
  const json_t *given = json_object_get(c->given, "map");
  for (size_t i = 0; i < json_array_size(given); i++) {
    const char *text = json_string_value(json_array_get(given, i));
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
      if (strcmp(text, others[k])) continue;
      if (add(p->command, text, NULL)) return -1;
      if (k < 3 || k == 5) {
        if (add(p->command, json_string_value(json_array_get(given, i + 1)), NULL)) return -1;
      }
    }
  }
  return 0;
}

static int make_map(cycle *c, plan *p) {
  char *fitted = NULL;
  const int none = no_skills(c, p);
  if (none) return none < 0 ? -1 : 0;
  if (find_fitted(c, &fitted)) return -1;
  const int placed = fitted != NULL;
  if (add(p->command, "infer", "map", NULL) || add_file(c, p, NULL, "embed/vectors.h5", p->inputs) || add_model(p, "--fit-on", fitted) || add_file(c, p, "-o", "map/map.h5", p->outputs)) return -1;
  return placed ? add_map_settings(c, p) : add_settings(c, p, "map");
}

/* "2..20" or "8" for no more clusters than there are skills; NULL where the setting can stay. free() it. */
static char *fewer_clusters(const cycle *c, const char *asked) {
  char *path = cycle_path(c, NULL, "skills/skills.jsonl"), byte;
  FILE *file = path ? fopen(path, "re") : NULL;
  int low, high, skills = 0, read = 0;
  for (int next; file && (next = fgetc(file)) != EOF;) skills += next == '\n';
  const int parts = sscanf(asked, "%d..%d%n%c", &low, &high, &read, &byte);
  sw_buffer text = {0};
  if (file) fclose(file);
  free(path);
  if (parts < 1 || (parts == 1 && strspn(asked, "0123456789") != strlen(asked)) || parts > 2) return NULL;
  if (parts == 1) high = low;
  if (!skills || high <= skills) return NULL;
  high = skills > 1 ? skills / 2 : 1; /* some of them may have the same vector */
  if (low >= high) sw_buffer_print(&text, "%d", high);
  else sw_buffer_print(&text, "%d..%d", low, high);
  return sw_buffer_take(&text);
}

/* The settings, with fewer clusters where the week has fewer skills. */
static int add_cluster_settings(const cycle *c, plan *p) {
  json_t *given = json_object_get(c->given, "cluster"), *asked = NULL;
  size_t i = 0;
  while (i < json_array_size(given) && strcmp(json_string_value(json_array_get(given, i)), "--clusters")) i++;
  char *fewer = i + 1 < json_array_size(given) ? fewer_clusters(c, json_string_value(asked = json_array_get(given, i + 1))) : NULL;
  if (!fewer) return add_settings(c, p, "cluster");
  json_incref(asked);
  const int status = json_array_set_new(given, i + 1, json_string(fewer)) || add_settings(c, p, "cluster") || json_array_set(given, i + 1, asked) ? -1 : 0;
  json_decref(asked);
  free(fewer);
  return status;
}

static int make_cluster(cycle *c, plan *p) {
  const int none = no_skills(c, p);
  if (none) return none < 0 ? -1 : 0;
  return add(p->command, "infer", "cluster", NULL) || add_file(c, p, NULL, json_object_get(c->config, "map") ? "map/map.h5" : "embed/vectors.h5", p->inputs) ||
                 add_file(c, p, "--texts", "skills/skills.jsonl", p->inputs) || add(p->command, "--column", "text", "--id-column", "id", NULL) || add_file(c, p, "-o", "cluster/clusters.csv", p->outputs)
             ? -1
             : add_cluster_settings(c, p);
}

/* A file of a run, as an option and an input, where it is there. */
static int add_if_there(const cycle *c, plan *p, const char *option, const char *run, const char *name) {
  char *path = cycle_path(c, run, name);
  const int there = path && sw_exists(path), status = !path || (there && (add(p->command, option, path, NULL) || add(p->inputs, path, NULL)));
  free(path);
  return status ? -1 : there;
}

/* Tags and labels of all weeks up to this, this week's map and clusters, the checkpoint in use, with its ancestors. */
static int make_report(cycle *c, plan *p) {
  char *model = NULL;
  const int untagged = no_tagger(c, p);
  if (untagged) return untagged < 0 ? -1 : 0;
  const int bare = no_skills(c, p), linked = json_object_get(c->config, "link") != NULL;
  sw_buffer_clear(&p->left_out); /* no map, but a report all the same */
  if (cycle_in_use(c, &model)) return -1;
  int status = add(p->command, "report", NULL), ours = 0;
  for (size_t i = 0; !status && !ours && i < json_array_size(c->runs); i++) { /* a later run's are not this one's */
    const char *run = json_string_value(json_array_get(c->runs, i));
    const int found = (ours = !strcmp(run, c->run)) ? add_file(c, p, "--tags", linked ? "link/linked.jsonl" : "tag/tags.jsonl", p->inputs) : add_if_there(c, p, "--tags", run, "link/linked.jsonl");
    status = found < 0 || (!ours && !found && add_if_there(c, p, "--tags", run, "tag/tags.jsonl") < 0) || add_if_there(c, p, "--labels", run, "label/labels.jsonl") < 0 ||
             add_if_there(c, p, "--labels", run, "label/bill.json") < 0;
  }
  const int mapped = !bare && json_object_get(c->config, "map"), grouped = mapped && json_object_get(c->config, "cluster");
  if (!status && mapped) status = add_file(c, p, cycle_number(c, "map", "components", 2) == 3 ? "--map-3d" : "--map", "map/map.h5", p->inputs) || add_file(c, p, "--titles", "skills/skills.jsonl", p->inputs) || add(p->command, "--column", "text", "--id-column", "id", NULL);
  if (!status && grouped) status = add_file(c, p, "--clusters", "cluster/clusters.csv", p->inputs);
  if (!status) status = add_model(p, "--checkpoint", model);
  else free(model);
  if (!status) status = add_file(c, p, "-o", "report", NULL) || add(p->command, "--force", NULL);
  char *page = status ? NULL : cycle_path(c, NULL, "report/index.html");
  if (!status) status = !page || add(p->outputs, page, NULL) || add_settings(c, p, "report");
  free(page);
  return status ? -1 : 0;
}

static int make_push(cycle *c, plan *p) {
  char *model = NULL;
  if (!c->newest) return sw_buffer_print(&p->left_out, "a later run has gone on");
  if (cycle_in_use(c, &model)) return -1;
  if (!model) return sw_buffer_print(&p->left_out, "nothing was promoted yet");
  int status = add(p->command, "push", model, NULL) || add(p->inputs, model, NULL) || add(p->command, "--json", NULL) || add_settings(c, p, "push");
  for (size_t i = json_array_size(c->runs); !status && i-- > 0;) { /* the gate may have kept last week's, which was the last to be pushed */
    const char *run = json_string_value(json_array_get(c->runs, i));
    json_t *record = strcmp(run, c->run) ? cycle_record(c, run, "push") : NULL;
    const int pushed = record && json_integer_value(json_object_get(record, "status")) == 0;
    if (pushed && json_equal(json_object_get(record, "command"), p->command)) status = sw_buffer_print(&p->left_out, "run %s has pushed %s", run, model);
    json_decref(record);
    if (pushed) break;
  }
  free(model);
  return status ? -1 : 0;
}

const step cycle_steps[] = {
    {.name = "fetch", .verb = "fetch", .own = "source", .set = "output date json quiet dry-run finish", .required = "source", .make = make_fetch, .printed = ""},
    {.name = "label", .verb = "label", .set = "output json resume dry-run audit of export format checkpoint", .required = "model", .make = make_label, .after = after_label, .printed = "", .keeps = "label/labels.jsonl.partial"},
    {.name = "train", .verb = "train", .task = "ner", .own = "earlier earlier_weeks", .set = "base output resume force", .needs = {"label"}, .make = make_train},
    {.name = "compare", .verb = "compare", .set = "gate speed output json", .required = "data", .needs = {"train"}, .make = make_compare, .gate = 1},
    {.name = "promote", .key = "train", .own = "ungated", .needs = {"train"}, .make = cycle_make_promote, .gate = 1},
    {.name = "tag", .verb = "infer", .task = "tag", .set = "output csv model resume shard json", .make = make_tag},
    {.name = "link", .verb = "infer", .task = "link", .set = "output candidates model json", .required = "taxonomy", .needs = {"tag"}, .make = make_link},
    {.name = "skills", .verb = "top", .key = "embed", .set = "count json", .needs = {"tag"}, .make = make_skills, .after = after_skills, .printed = "top.json"},
    {.name = "embed", .verb = "infer", .task = "embed", .set = "output model column id-column format resume shard json", .needs = {"tag"}, .make = make_embed},
    {.name = "map", .verb = "infer", .task = "map", .set = "output fit-on json", .needs = {"embed"}, .make = make_map},
    {.name = "cluster", .verb = "infer", .task = "cluster", .set = "output csv texts column id-column json", .required = "clusters", .needs = {"embed"}, .make = make_cluster},
    {.name = "report", .verb = "report", .set = "output tags map map-3d clusters titles column id-column labels checkpoint force", .needs = {"tag"}, .make = make_report},
    {.name = "push", .verb = "push", .set = "json", .required = "to", .make = make_push, .printed = "", .last = 1},
};

int cycle_step_count(void) { return (int)(sizeof cycle_steps / sizeof *cycle_steps); }

const step *cycle_step(const char *name) {
  for (int i = 0; i < cycle_step_count(); i++)
    if (!strcmp(cycle_steps[i].name, name)) return &cycle_steps[i];
  return NULL;
}
