#include "base/error.h"
#include "base/file.h"
#include "engine/store/json.h"
#include "engine/store/models.h"
#include "tools/cycle/cycle.h"

#include <stdlib.h>
#include <string.h>

static int same(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

static int in_models(const cycle *c, const char *name, char **path) {
  *path = name ? sw_path_join(c->models, name) : NULL;
  return name && !*path ? -1 : 0;
}

/* What `name` replaced when this run promoted it, or `name` itself where another did. The run's record is written before the link moves, the history
 * after it. Borrowed from either. */
static const char *replaced(const cycle *c, const char *name, const json_t *history, const json_t *record) {
  const json_t *result = json_object_get(record, "result");
  if (same(sw_json_string(result, "to"), name) && same(sw_json_string(result, "outcome"), "promoted")) return sw_json_string(result, "from");
  for (size_t i = json_array_size(history); i-- > 0;) {
    const json_t *entry = json_array_get(history, i);
    if (same(sw_json_string(entry, "action"), "promote") && same(sw_json_string(entry, "to"), name)) return same(sw_json_string(entry, "run"), c->run) ? sw_json_string(entry, "from") : name;
  }
  return name;
}

int cycle_trained_from(cycle *c, char **path) {
  char *current = NULL;
  *path = NULL;
  if (sw_models_current(c->models, &current)) return -1;
  json_t *history = sw_models_history(c->models), *record = cycle_record(c, NULL, "promote");
  const char *from = current;
  for (size_t i = 0; from && i <= json_array_size(history); i++) { /* what this run promoted was trained from what it replaced */
    const char *before = replaced(c, from, history, record);
    if (same(before, from)) break;
    from = before;
  }
  const int status = history ? in_models(c, from, path) : -1;
  json_decref(history);
  json_decref(record);
  free(current);
  return status;
}

int cycle_compared_with(cycle *c, char **path) {
  char *candidate = cycle_path(c, NULL, "train/tagger.h5"), *name = NULL, *current = NULL, hex[65];
  json_t *history = NULL, *record = NULL;
  int status = candidate ? 0 : -1;
  *path = NULL;
  if (!status && sw_exists(candidate)) status = sw_models_name(candidate, c->run, &name, hex);
  if (!status) status = sw_models_current(c->models, &current);
  if (!status && name && same(name, current)) { /* promoted already */
    record = cycle_record(c, NULL, "promote");
    if (!(history = sw_models_history(c->models))) status = -1;
  }
  if (!status) status = in_models(c, history ? replaced(c, name, history, record) : current, path);
  json_decref(history);
  json_decref(record);
  free(candidate);
  free(name);
  free(current);
  return status;
}

int cycle_in_use(cycle *c, char **path) {
  char *current = NULL;
  json_t *record = c->newest ? NULL : cycle_record(c, NULL, "promote");
  const char *then = sw_json_string(json_object_get(record, "result"), "current"); /* an older run stays with what it ended with */
  int status = then ? 0 : sw_models_current(c->models, &current);
  if (!status) status = in_models(c, then ? then : current ? current : c->dry ? "current.h5" : NULL, path); /* a plan: what is promoted before */
  json_decref(record);
  free(current);
  return status;
}

int cycle_check_models(const cycle *c) {
  char *current = NULL, *path = NULL;
  json_t *history = sw_models_history(c->models);
  int status = !history || sw_models_current(c->models, &current) || in_models(c, current, &path) ? -1 : 0;
  const char *last = sw_json_string(json_array_get(history, json_array_size(history) - 1), "to");
  if (!status && (path ? !sw_exists(path) : last != NULL))
    status = sw_fail("%s/current.h5 %s%s is gone: put it back, or name another that was promoted: skillwatch rollback --to RUN %s (--list shows them)", c->models, path ? "points to " : "-> ", path ? current : last, c->models);
  json_decref(history);
  free(current);
  free(path);
  return status;
}

/* --- promotion --- */

int cycle_make_promote(cycle *c, plan *p) {
  const int gated = json_object_get(c->config, "compare") != NULL;
  char *candidate = cycle_path(c, NULL, "train/tagger.h5"), *compared = cycle_path(c, NULL, "compare/compare.json");
  int status = candidate && compared ? 0 : -1;
  const int none = c->newest ? cycle_no_labels(c) : 0;
  if (none < 0) status = -1;
  if (!status && (none || !c->newest)) status = sw_buffer_print(&p->left_out, none ? "no labels" : "a later run has gone on");
  if (!status) status = json_array_append_new(p->command, json_string("promote")) || json_array_append_new(p->command, json_string(gated ? "gated" : "ungated")) || json_array_append_new(p->inputs, json_string(candidate));
  if (!status && gated && sw_exists(compared)) status = json_array_append_new(p->inputs, json_string(compared));
  free(candidate);
  free(compared);
  return status ? -1 : 0;
}

/* {"test.jsonl": F1 over all layers} of the candidate, which is the last of those that were compared. */
static json_t *scores_of(const json_t *compared) {
  json_t *scores = json_object(), *data;
  size_t i;
  json_array_foreach(json_object_get(compared, "data"), i, data) {
    const json_t *sides = json_object_get(data, "scores"), *last = json_array_get(sides, json_array_size(sides) - 1);
    const json_t *f1 = json_object_get(json_object_get(last, "micro"), "f1");
    if (f1 && sw_json_string(data, "path")) json_object_set(scores, sw_json_string(data, "path"), (json_t *)f1);
  }
  return scores;
}

/* What follows `option` in the command of a step's record, or NULL. */
static const char *argument_of(const json_t *record, const char *option) {
  const json_t *command = json_object_get(record, "command");
  for (size_t i = 0; i + 1 < json_array_size(command); i++)
    if (same(json_string_value(json_array_get(command, i)), option)) return json_string_value(json_array_get(command, i + 1));
  return NULL;
}

/* 1 where compare has judged the present candidate, and its table is the present one; 0, or -1 with a message. */
static int is_judged(cycle *c, const json_t *record, const char *candidate, const char *compared) {
  const json_t *status = json_object_get(record, "status");
  if (!json_is_integer(status) || (json_integer_value(status) != 0 && json_integer_value(status) != 3) || !sw_exists(compared)) return 0;
  const char *now = cycle_hash(c, candidate), *table = now ? cycle_hash(c, compared) : NULL;
  if (!table) return -1;
  return same(sw_json_string(json_object_get(record, "inputs"), candidate), now) && same(sw_json_string(json_object_get(record, "outputs"), compared), table);
}

/* The link is not where the candidate was trained from or compared with. Where those steps come before this one the next run does them anew. */
static int moved(const cycle *c, const char *step_needed) {
  if (c->first <= (int)(cycle_step(step_needed) - cycle_steps)) {
    sw_fail("%s/current.h5 was moved while the run was under way: run it again", c->models);
    return 75;
  }
  return sw_fail("%s/current.h5 was moved after this checkpoint's %s: run --from %s, or, for one that was promoted before, use rollback --to", c->models, step_needed, step_needed);
}

/* "was rolled back (why)" where a rollback was the last to move the link away from `name`; free() it. NULL where none was. */
static char *rolled_back(const json_t *history, const char *name) {
  sw_buffer text = {0};
  for (size_t i = json_array_size(history); i-- > 0;) {
    const json_t *entry = json_array_get(history, i);
    if (!same(sw_json_string(entry, "from"), name)) continue;
    const char *why = sw_json_string(entry, "why");
    if (same(sw_json_string(entry, "action"), "rollback")) sw_buffer_print(&text, "was rolled back (%s)", why ? why : "-");
    break;
  }
  return text.size ? sw_buffer_take(&text) : NULL;
}

int cycle_promote(cycle *c, json_t **result) {
  const int gated = json_object_get(c->config, "compare") != NULL;
  char *candidate = cycle_path(c, NULL, "train/tagger.h5"), *compared = cycle_path(c, NULL, "compare/compare.json"), *current = NULL, *base = NULL, *gate_path = NULL, *name = NULL, *back = NULL, hex[65];
  json_t *gate = cycle_record(c, NULL, "compare"), *train = cycle_record(c, NULL, "train"), *record = cycle_record(c, NULL, "promote"), *history = NULL, *table = NULL, *entry = NULL;
  *result = NULL;
  int status = candidate && compared ? sw_models_name(candidate, c->run, &name, hex) : -1;
  if (!status && (sw_models_current(c->models, &current) || !(history = sw_models_history(c->models)) || cycle_trained_from(c, &base))) status = -1;
  const int here = !status && same(current, name);
  const char *from = status ? NULL : here ? replaced(c, name, history, record) : current;
  const char *trained = argument_of(train, "--base");
  if (!status && !same(trained, base ? base : c->base)) status = moved(c, "train");
  if (!status && gated && from) {
    const int judged = is_judged(c, gate, candidate, compared);
    status = judged < 0 ? -1 : in_models(c, from, &gate_path);
    if (!status && !judged) status = sw_fail("compare has not judged this checkpoint; run --from compare");
    if (!status && !same(argument_of(gate, "--gate"), gate_path)) status = moved(c, "compare");
    if (!status && !(table = sw_json_read(compared, 1 << 28))) status = -1;
  }
  if (!status && !here) back = rolled_back(history, name);
  const int refused = back || (table && json_integer_value(json_object_get(gate, "status")) == 3);
  const char *reason = sw_json_string(json_object_get(table, "gate"), "reason");
  const char *why = back ? back : refused ? reason ? reason : "the gate said no" : table ? "no worse than the one before" : from ? "ungated" : "the first";
  if (!status) {
    *result = json_pack("{s:s, s:s*, s:s, s:s, s:s*, s:s, s:o}", "outcome", refused ? "refused" : "promoted", "from", from, "to", name, "sha256", hex, "current", refused ? current : name, "why", why,
                        "scores", scores_of(table));
    if (!*result) status = sw_fail_memory("the promotion cannot be noted");
  }
  if (!status && !refused) { /* what is meant is on disk before anything moves */
    json_t *meant = json_pack("{s:O, s:i}", "result", *result, "status", -1);
    json_t *present = cycle_record(c, NULL, "promote");
    status = meant && present && !json_object_update(present, meant) ? cycle_record_write(c, "promote", present) : -1;
    json_decref(meant);
    json_decref(present);
    entry = json_pack("{s:s, s:s, s:s*, s:s, s:s, s:s, s:O}", "action", "promote", "run", c->run, "from", from, "to", name, "sha256", hex, "why", why, "scores", json_object_get(*result, "scores"));
    if (!entry) status = -1;
    if (!status) status = sw_models_add(c->models, candidate, name) || sw_models_move(c->models, entry) ? -1 : 0;
  }
  if (!status && refused) status = 3;
  json_decref(gate);
  json_decref(train);
  json_decref(record);
  json_decref(history);
  json_decref(table);
  json_decref(entry);
  free(candidate);
  free(compared);
  free(current);
  free(base);
  free(gate_path);
  free(name);
  free(back);
  return status;
}
