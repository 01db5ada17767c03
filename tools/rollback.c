/* skillwatch rollback: moves the link to the checkpoint in use back to one that was promoted before. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "engine/store/checkpoint.h"
#include "engine/store/json.h"
#include "engine/store/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 1 << 20 };

/* The folder of models that a cycle's config names; free() it. */
static char *folder_of(const char *config) {
  json_t *all = sw_json_read(config, CONFIG_BYTES);
  if (!all) return NULL;
  const char *name = sw_json_string(all, "models"), *slash = strrchr(config, '/');
  if (!name) name = "models";
  char *at = slash && name[0] != '/' ? sw_strndup(config, (unsigned long)(slash - config + 1)) : sw_strdup("");
  char *folder = at ? sw_path_join(at, name) : NULL;
  free(at);
  json_decref(all);
  return folder;
}

static const char *text_of(const json_t *entry, const char *key) {
  const char *text = sw_json_string(entry, key);
  return text ? text : "-";
}

static int list(const char *folder, int as_json) {
  char *current = NULL;
  json_t *history = sw_models_history(folder), *entry;
  size_t i;
  int status = history && !sw_models_current(folder, &current) ? 0 : -1;
  if (!status && as_json) {
    char *text = sw_json_pretty(history);
    if (text) fputs(text, stdout);
    status = text ? 0 : -1;
    free(text);
  }
  json_array_foreach(history, i, entry) {
    if (status || as_json) break;
    const char *to = text_of(entry, "to");
    char *path = sw_path_join(folder, to);
    printf("%s %s  %-8s  %-10s  %s%s\n    from %s, by %s: %s\n", current && !strcmp(current, to) ? "*" : " ", text_of(entry, "when"), text_of(entry, "action"),
           text_of(entry, "run"), to, path && sw_exists(path) ? "" : " (removed)", text_of(entry, "from"), text_of(entry, "who"), text_of(entry, "why"));
    free(path);
  }
  if (!status && !as_json && !json_array_size(history)) printf("nothing was promoted in %s yet\n", folder);
  json_decref(history);
  free(current);
  return status;
}

/* Where the promotion that led to `current` came from, or what `to` names. Borrowed from `history`; *run: of that checkpoint. */
static const char *target_of(const json_t *history, const char *current, const char *to, const json_t **promoted) {
  if (to) return (*promoted = sw_models_find(history, to)) ? sw_json_string(*promoted, "to") : NULL;
  const char *from = NULL;
  size_t i;
  int known = 0;
  json_t *entry;
  *promoted = NULL;
  json_array_foreach((json_t *)history, i, entry)
    if (!strcmp(text_of(entry, "action"), "promote") && !strcmp(text_of(entry, "to"), current)) from = sw_json_string(entry, "from"), known = 1;
  if (!known) return sw_fail("the history does not say what %s came after: name the checkpoint, --to RUN (--list shows them)", current), NULL;
  if (!from) return sw_fail("%s was promoted over none: there is nothing before it", current), NULL;
  json_array_foreach((json_t *)history, i, entry)
    if (!strcmp(text_of(entry, "to"), from)) *promoted = entry;
  return from;
}

/* The file must be there, whole, and what was promoted under its name. */
static int verify(const char *folder, const char *name, const json_t *promoted, char hex[65]) {
  sw_checkpoint c;
  char *path = sw_path_join(folder, name);
  int status = path ? sw_checkpoint_read(path, &c) : -1;
  if (!status) {
    const char *wanted = sw_json_string(promoted, "sha256");
    memcpy(hex, c.content_sha256, sizeof c.content_sha256);
    sw_checkpoint_close(&c);
    if (wanted && strcmp(wanted, hex)) status = sw_fail("%s is another checkpoint than the one that was promoted: its content hash is %.12s, not %.12s", path, hex, wanted);
  }
  free(path);
  return status;
}

static int roll_back(const char *folder, const char *to, const char *why) {
  char *current = NULL, hex[65];
  sw_lock lock = {0};
  const int locked = sw_models_lock(folder, &lock);
  if (locked) return sw_exit_message(locked > 0 ? SW_EXIT_AGAIN : SW_EXIT_FAILED);
  const json_t *promoted = NULL;
  json_t *history = sw_models_history(folder), *entry = NULL;
  int status = history && !sw_models_current(folder, &current) ? 0 : -1;
  if (!status && !current && !to) status = sw_fail("%s/current.h5 is not there: nothing was promoted yet (--to RUN names a checkpoint)", folder);
  const char *name = status ? NULL : target_of(history, current, to, &promoted);
  if (!name) status = -1;
  const int there = !status && current && !strcmp(current, name);
  if (!status && !there) {
    status = verify(folder, name, promoted, hex);
    entry = status ? NULL : json_pack("{s:s, s:s*, s:s*, s:s, s:s, s:s}", "action", "rollback", "run", sw_json_string(promoted, "run"), "from", current, "to", name, "sha256", hex, "why", why);
    if (!status && !entry) status = sw_fail("--why should be UTF-8");
    if (!status) status = sw_models_move(folder, entry);
  }
  if (!status) printf("%s/current.h5 %s %s%s%s\n", folder, there ? "points to" : "->", name, there ? " already" : "; before: ", there ? "" : current ? current : "nothing");
  json_decref(entry);
  json_decref(history);
  free(current);
  sw_lock_release(&lock);
  return status ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
}

static int body(int argc, char **argv) {
  const char *config = NULL, *to = NULL, *why = "asked for";
  int shows = 0, json = 0;
  const sw_option options[] = {
      {"config", 'c', SW_OPTION_TEXT, &config, "FILE", "the cycle's config, which names the folder of models"},
      {"to", 0, SW_OPTION_TEXT, &to, "RUN|HASH", "back to that run's checkpoint, or the one whose content hash begins so (else: the one before)"},
      {"why", 0, SW_OPTION_TEXT, &why, "TEXT", "written down in the history"},
      {"list", 'l', SW_OPTION_FLAG, &shows, NULL, "show what was promoted and rolled back, and change nothing"},
      {"json", 0, SW_OPTION_FLAG, &json, NULL, "with --list: as JSON"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch rollback [--to RUN|HASH] --config week.json | MODELS_FOLDER",
      .summary = "Moves models/current.h5, the link that skillwatch cycle sets, back to a checkpoint that was promoted before, and writes\n"
                 "that down in models/history.jsonl. The file is verified first. The next week's training goes on from it, and a cycle\n"
                 "that is run again for the same week does not undo it.",
      .example = "skillwatch rollback --config week.json --why 'tags too much'\n"
                 "  skillwatch rollback --list models/",
      .options = options,
  };
  sw_list operands = {0};
  char *folder = NULL;
  int status = sw_options_parse(&command, argc, argv, &operands);
  if (!status && operands.count + (config != NULL) != 1) status = sw_fail("which models? --config week.json, or the folder (see --help)");
  if (!status) folder = config ? folder_of(config) : sw_strdup(operands.items[0]);
  if (!status && !folder) status = -1;
  if (!status && !sw_is_folder(folder)) status = sw_fail("%s is no folder: nothing was promoted there", folder);
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else if (shows)
    status = list(folder, json) ? sw_exit_message(SW_EXIT_FAILED) : SW_EXIT_DONE;
  else
    status = roll_back(folder, to, why);
  sw_list_close(&operands);
  free(folder);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
