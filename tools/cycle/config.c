#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "engine/store/json.h"
#include "tools/cycle/child.h"
#include "tools/cycle/cycle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONFIG_BYTES = 1 << 20 };

/* 1 where `word` is one of the words of `list`. */
static int has_word(const char *list, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = list; at && *at; at += strspn(at, " ")) {
    const size_t n = strcspn(at, " ");
    if (n == length && !memcmp(at, word, n)) return 1;
    at += n;
  }
  return 0;
}

const json_t *cycle_config_of(const cycle *c, const step *s) { return json_object_get(c->config, s->key ? s->key : s->name); }

double cycle_number(const cycle *c, const char *name, const char *key, double otherwise) {
  const json_t *value = json_object_get(json_object_get(c->config, name), key);
  return value ? json_number_value(value) : otherwise;
}

/* --- the top --- */

static const struct {
  const char *key;
  json_type type;
  const char *wanted;
} keys[] = {{"state", JSON_STRING, "a text: a folder"},      {"models", JSON_STRING, "a text: a folder"}, {"postings", JSON_STRING, "a text: a folder"},
            {"base", JSON_STRING, "a text: a checkpoint"}, {"keep", JSON_INTEGER, "a whole number from 1 to 1000"}};
enum { KEYS = sizeof keys / sizeof *keys };

static const char *nearest(const char *key) {
  const char *near = NULL;
  int least = ((int)strlen(key) + 1) / 3 + 1;
  for (int i = 0; i < KEYS + cycle_step_count(); i++) {
    const char *name = i < KEYS ? keys[i].key : cycle_steps[i - KEYS].name;
    const int far = sw_word_distance(key, name);
    if (far < least) {
      least = far;
      near = name;
    }
  }
  return near;
}

static int check_top(const char *path, const json_t *config) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)config, key, value) {
    int i = 0;
    while (i < KEYS && strcmp(keys[i].key, key)) i++;
    const json_int_t number = json_integer_value(value);
    if (i < KEYS && (json_typeof(value) != keys[i].type || (json_is_string(value) && !*json_string_value(value)) || (json_is_integer(value) && (number < 1 || number > 1000))))
      return sw_fail("%s: \"%s\" should be %s", path, key, keys[i].wanted);
    const step *s = i < KEYS ? NULL : cycle_step(key);
    if (s && !json_is_object(value)) return sw_fail("%s: \"%s\" should be an object with the step's settings, {} for none", path, key);
    if (i == KEYS && !s) {
      const char *near = nearest(key);
      return sw_fail("%s: \"%s\" is no key of a cycle%s%s%s (see skillwatch cycle --help)", path, key, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
  }
  return 0;
}

/* --- a step --- */

static int add(json_t *list, const char *format, const char *text) {
  sw_buffer all = {0};
  const int status = sw_buffer_print(&all, format, text) || json_array_append_new(list, json_string(all.data)) ? -1 : 0;
  sw_buffer_close(&all);
  return status;
}

/* Appends `value` as arguments; 1: it has another type than `type`. */
static int add_option(json_t *list, const char *name, const char *type, const json_t *value) {
  if (!strcmp(type, "flag")) return json_is_boolean(value) ? add(list, json_is_true(value) ? "--%s" : "--no-%s", name) : 1;
  if (!strcmp(type, "list") && json_is_array(value)) {
    size_t i;
    const json_t *item;
    json_array_foreach((json_t *)value, i, item) {
      if (!json_is_string(item)) return 1;
      if (add(list, "--%s", name) || json_array_append(list, (json_t *)item)) return -1;
    }
    return 0;
  }
  const int number = !strcmp(type, "double") ? json_is_number(value) : !strcmp(type, "int") ? json_is_integer(value) : 0;
  if (!number && (!json_is_string(value) || !strcmp(type, "int") || !strcmp(type, "double"))) return 1;
  char *text = number ? sw_json_canonical(value) : NULL;
  const int status = (number && !text) || add(list, "--%s", name) || add(list, "%s", number ? text : json_string_value(value)) ? -1 : 0;
  free(text);
  return status;
}

static int check_own(const char *path, const step *s, const char *key, const json_t *value) {
  static const struct {
    const char *key, *type;
    double low, high;
    const char *wanted;
  } own[] = {{"stop_after", "number", 1e-3, 1e9, "a number of seconds above 0"},
             {"earlier", "number", 0, 0.95, "a number from 0 to 0.95: a part of every batch"},
             {"earlier_weeks", "integer", 1, 1000, "a whole number from 1 to 1000"},
             {"ungated", "boolean", 0, 0, "true or false"},
             {"source", "text", 0, 0, "a text: linkedin, or a file"}};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    if (strcmp(own[i].key, key)) continue;
    const int number = json_is_integer(value) || (json_is_real(value) && !strcmp(own[i].type, "number"));
    const double v = json_number_value(value);
    const int right = !strcmp(own[i].type, "boolean") ? json_is_boolean(value) : !strcmp(own[i].type, "text") ? json_is_string(value) : number && v >= own[i].low && v <= own[i].high;
    if (!right) return sw_fail("%s: \"%s\": \"%s\" should be %s", path, s->name, key, own[i].wanted);
  }
  return 0;
}

/* The options of the step's program, by its own word: {"name": "type"}. */
static json_t *options_of(const step *s) {
  sw_buffer text = {0};
  json_t *command = s->task ? json_pack("[s,s,s]", s->verb, s->task, "--help=json") : json_pack("[s,s]", s->verb, "--help=json");
  json_t *options = command && !cycle_ask(command, &text) ? sw_json_parse(text.data ? text.data : "", text.size, s->verb) : NULL;
  json_decref(command);
  sw_buffer_close(&text);
  return options;
}

static int check_step(cycle *c, const char *path, const step *s) {
  static const char *const types[][2] = {{"flag", "true or false"}, {"int", "a whole number"}, {"double", "a number"}, {"text", "a text"}, {"list", "a list of texts: [\"...\"]"}};
  const json_t *settings = json_object_get(c->config, s->name);
  json_t *options = s->verb ? options_of(s) : json_object(), *list = json_array();
  int status = options && list && !json_object_set_new(c->given, s->name, list) ? 0 : -1;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)settings, key, value) {
    if (status) break;
    const char *type = sw_json_string(options, key);
    if (!strcmp(key, "stop_after") || has_word(s->own, key)) {
      status = check_own(path, s, key, value);
    } else if (type && has_word(s->set, key)) {
      status = sw_fail("%s: \"%s\": \"%s\" is set by the cycle itself: leave it out", path, s->name, key);
    } else if (!type) {
      status = s->verb ? sw_fail("%s: \"%s\": \"%s\" is no option of skillwatch %s%s%s (its --help lists them)", path, s->name, key, s->verb, s->task ? " " : "", s->task ? s->task : "")
                       : sw_fail("%s: \"%s\" has no \"%s\"", path, s->name, key);
    } else if ((status = add_option(list, key, type, value)) > 0) {
      const char *wanted = "";
      for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i][0], type)) wanted = types[i][1];
      status = sw_fail("%s: \"%s\": \"%s\" should be %s", path, s->name, key, wanted);
    }
  }
  if (!status && s->required && !json_object_get(settings, s->required)) status = sw_fail("%s: \"%s\" needs \"%s\"", path, s->name, s->required);
  if (!status && s->needs[0] && !cycle_config_of(c, cycle_step(s->needs[0])) && (!s->needs[1] || !cycle_config_of(c, cycle_step(s->needs[1]))) &&
      !(!strcmp(s->name, "train") && json_object_get(settings, "data")))
    status = sw_fail("%s: \"%s\" needs the step \"%s\"%s%s%s", path, s->name, s->needs[0], s->needs[1] ? " or \"" : "", s->needs[1] ? s->needs[1] : "", s->needs[1] ? "\"" : "");
  json_decref(options);
  return status;
}

/* What no single step can tell. */
static int check_together(const cycle *c, const char *path) {
  const json_t *train = json_object_get(c->config, "train"), *promote = json_object_get(c->config, "promote");
  const int ungated = json_is_true(json_object_get(promote, "ungated")), gate = json_object_get(c->config, "compare") != NULL;
  if (!json_object_get(c->config, "postings")) return sw_fail("%s: \"postings\" is needed: the folder of the postings", path);
  for (const char *const *folder = (const char *const[]){c->state, c->models, NULL}; *folder; folder++)
    if (!strcmp(*folder, c->postings) || sw_is_inside(*folder, c->postings)) return sw_fail("%s: %s lies in the folder \"postings\", %s, where it would be taken for postings", path, *folder, c->postings);
  if (!c->base && (train || json_object_get(c->config, "embed"))) return sw_fail("%s: \"base\" is needed: the checkpoint that training starts from and that skills are embedded with", path);
  if (train && !gate && !ungated)
    return sw_fail("%s: \"train\" without \"compare\" lets a worse checkpoint in: give \"compare\": {\"data\": [\"test.jsonl\"]}, or \"promote\": {\"ungated\": true}", path);
  if (json_object_get(c->config, "skills") && !json_object_get(c->config, "embed")) return sw_fail("%s: \"skills\" needs the step \"embed\", which they are counted for", path);
  if (gate && ungated) return sw_fail("%s: \"compare\" and \"promote\": {\"ungated\": true} exclude each other", path);
  if (c->base && !sw_exists(c->base)) return sw_fail("%s: \"base\": %s is not there (skillwatch pull makes one)", path, c->base);
  return 0;
}

/* "models/" is "models": paths are compared by their beginnings. */
static int cut_slashes(json_t *config) {
  for (int i = 0; i < KEYS; i++) {
    json_t *value = json_object_get(config, keys[i].key);
    const char *text = json_string_value(value);
    size_t length = text ? strlen(text) : 0;
    while (length > 1 && text[length - 1] == '/') length--;
    if (text && text[length] && json_string_setn(value, text, length)) return sw_fail_memory("the config cannot be read");
  }
  return 0;
}

static const char *text_or(const cycle *c, const char *key, const char *other) {
  const char *text = sw_json_string(c->config, key);
  return text ? text : other;
}

int cycle_config_open(const char *path, cycle *c) {
  c->config = sw_json_read(path, CONFIG_BYTES);
  c->given = json_object();
  c->hashes = json_object();
  c->present = json_object();
  if (!c->config) return -1;
  if (!c->given || !c->hashes || !c->present) return sw_fail_memory("%s cannot be read", path);
  if (!json_is_object(c->config)) return sw_fail("%s should hold one JSON object: {\"postings\": ..., \"tag\": {}, ...}", path);
  if (check_top(path, c->config) || cut_slashes(c->config)) return -1;
  const json_t *keep = json_object_get(c->config, "keep");
  c->state = text_or(c, "state", "state");
  c->models = text_or(c, "models", "models");
  c->postings = text_or(c, "postings", NULL);
  c->base = text_or(c, "base", NULL);
  c->keep = keep ? (int)json_integer_value(keep) : 4;
  const char *slash = strrchr(path, '/');
  char *folder = slash ? sw_strndup(path, (unsigned long)(slash - path + 1)) : NULL;
  int status = slash && !folder ? -1 : 0;
  if (folder && chdir(folder)) status = sw_fail("cannot go to the folder %s: %s", folder, strerror(errno));
  free(folder);
  for (int i = 0; !status && i < cycle_step_count(); i++)
    if (cycle_config_of(c, &cycle_steps[i]) || json_object_get(c->config, cycle_steps[i].name)) status = check_step(c, path, &cycle_steps[i]);
  return status ? -1 : check_together(c, path);
}

void cycle_config_close(cycle *c) {
  cycle_run_close(c);
  json_decref(c->config);
  json_decref(c->given);
  json_decref(c->hashes);
  json_decref(c->present);
  sw_lock_release(&c->lock);
}
