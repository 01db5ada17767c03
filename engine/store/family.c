#include "engine/store/family.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static const char *hash_of(const sw_family *f, int member) {
  const char *hash = json_string_value(json_object_get(f->members[member].entry, "content_sha256"));
  return hash ? hash : "";
}

/* The index of the entry's checkpoint, which becomes a member where it is none yet; -1 on failure. */
static int join(sw_family *f, json_t *entry, int parent) {
  const char *hash = json_string_value(json_object_get(entry, "content_sha256") ? json_object_get(entry, "content_sha256") : json_object_get(entry, "sha256"));
  for (int i = 0; i < f->count && hash; i++)
    if (!strcmp(hash_of(f, i), hash)) return i;
  sw_family_member *members = sw_realloc_array(f->members, (unsigned long)f->count + 1, sizeof *members);
  if (!members) return -1;
  f->members = members;
  json_t *copy = json_copy(entry);
  /* files of version 0.1.0 do not say who an ancestor's parent is: the one before it */
  const char *parent_hash = parent < 0 ? "" : hash_of(f, parent);
  if (!copy || json_object_set_new(copy, "content_sha256", json_string(hash ? hash : "?")) ||
      json_object_set_new(copy, "parent_sha256", json_string(parent_hash))) {
    json_decref(copy);
    return sw_fail("out of memory");
  }
  members[f->count] = (sw_family_member){copy, parent};
  return f->count++;
}

int sw_family_add(sw_family *f, const sw_checkpoint *c, const char *path) {
  size_t i;
  json_t *ancestor, *entry = sw_checkpoint_entry(c);
  int at = -1;
  if (!entry) return -1;
  json_array_foreach(c->lineage, i, ancestor) {
    at = join(f, ancestor, at);
    if (at < 0) break;
  }
  if (i == json_array_size(c->lineage)) at = join(f, entry, at);
  json_decref(entry);
  if (at < 0) return -1;
  json_t *paths = json_object_get(f->members[at].entry, "paths");
  if (!paths && !json_object_set_new(f->members[at].entry, "paths", json_array())) paths = json_object_get(f->members[at].entry, "paths");
  return json_array_append_new(paths, json_string(path)) ? sw_fail("out of memory") : 0;
}

void sw_family_close(sw_family *f) {
  for (int i = 0; i < f->count; i++) json_decref(f->members[i].entry);
  free(f->members);
}

int sw_family_scores(const json_t *metrics, sw_family_score out[SW_FAMILY_SCORES]) {
  static const char *const scores[][2] = {{"f1", "F1"}, {"accuracy", "accuracy"}, {"accuracy@1", "accuracy@1"}, {"mrr", "MRR"},
                                          {"spearman", "Spearman"}, {"perplexity", "perplexity"}, {"loss", "loss"}};
  const json_t *micro = json_object_get(metrics, "micro");
  int count = 0;
  for (size_t i = 0; i < sizeof scores / sizeof *scores && count < SW_FAMILY_SCORES; i++) {
    const json_t *value = json_object_get(metrics, scores[i][0]);
    if (!json_is_number(value)) value = json_object_get(micro, scores[i][0]);
    if (json_is_number(value)) out[count++] = (sw_family_score){scores[i][1], json_number_value(value)};
  }
  return count;
}
