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

int cycle_trained_from(cycle *c, char **path) {
  char *current = NULL;
  *path = NULL;
  if (sw_models_current(c->models, &current)) return -1;
  json_t *history = sw_models_history(c->models);
  const char *from = current;
  for (size_t i = json_array_size(history); from && i-- > 0;) { /* what this run promoted was trained from what it replaced */
    const json_t *entry = json_array_get(history, i);
    if (same(sw_json_string(entry, "run"), c->run) && same(sw_json_string(entry, "action"), "promote") && same(sw_json_string(entry, "to"), from))
      from = sw_json_string(entry, "from");
  }
  const int status = history ? in_models(c, from, path) : -1;
  json_decref(history);
  free(current);
  return status;
}

/* Where the run's own promotion of the candidate stands: its record's "result", or NULL. *record is to be released. */
static const json_t *own_promotion(const cycle *c, const char *name, json_t **record) {
  *record = cycle_record(c, NULL, "promote");
  const json_t *result = json_object_get(*record, "result");
  return name && same(sw_json_string(result, "to"), name) ? result : NULL;
}

int cycle_compared_with(cycle *c, char **path) {
  char *candidate = cycle_path(c, NULL, "train/tagger.h5"), *name = NULL, *current = NULL, hex[65];
  json_t *record = NULL;
  int status = candidate ? 0 : -1;
  *path = NULL;
  if (!status && sw_exists(candidate)) status = sw_models_name(candidate, c->run, &name, hex);
  if (!status) status = sw_models_current(c->models, &current);
  const json_t *own = status ? NULL : own_promotion(c, name, &record);
  if (!status) status = in_models(c, own ? sw_json_string(own, "from") : current, path);
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

/* --- promotion --- */

int cycle_make_promote(cycle *c, plan *p) {
  char *candidate = cycle_path(c, NULL, "train/tagger.h5"), *compared = cycle_path(c, NULL, "compare/compare.json");
  int status = candidate && compared ? 0 : -1;
  if (!status && !c->newest) status = sw_buffer_print(&p->left_out, "a later run has gone on");
  if (!status) status = json_array_append_new(p->command, json_string("promote")) || json_array_append_new(p->inputs, json_string(candidate));
  if (!status && sw_exists(compared)) status = json_array_append_new(p->inputs, json_string(compared));
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

int cycle_promote(cycle *c, json_t **result) {
  char *candidate = cycle_path(c, NULL, "train/tagger.h5"), *compared = NULL, *current = NULL, *from = NULL, *name = NULL, hex[65];
  json_t *gate = cycle_record(c, NULL, "compare"), *table = NULL, *record = NULL, *entry = NULL;
  *result = NULL;
  int status = candidate && (compared = cycle_path(c, NULL, "compare/compare.json")) ? sw_models_name(candidate, c->run, &name, hex) : -1;
  if (!status && sw_exists(compared) && !(table = sw_json_read(compared, 1 << 28))) status = -1;
  if (!status) status = sw_models_current(c->models, &current);
  const json_t *own = status ? NULL : own_promotion(c, name, &record);
  const char *before = own ? sw_json_string(own, "from") : current;
  from = before ? sw_strdup(before) : NULL;
  const int refused = table && json_integer_value(json_object_get(gate, "status")) == 3;
  const char *reason = sw_json_string(json_object_get(table, "gate"), "reason");
  const char *why = refused ? reason ? reason : "the gate said no" : table ? "no worse than the one before" : from ? "ungated" : "the first";
  if (!status && !refused && !same(current, from) && !same(current, name)) {
    sw_fail("%s/current.h5 was moved while the run was under way: run it again", c->models);
    status = 75;
  }
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
  json_decref(table);
  json_decref(record);
  json_decref(entry);
  free(candidate);
  free(compared);
  free(current);
  free(from);
  free(name);
  return status;
}
