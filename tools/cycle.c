/* skillwatch cycle: the steps of a week one after the other, each a program as a person would start it. What is done is written down with hashes,
 * so that the same command goes on where a run stood, and does nothing where all is done. */
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "engine/store/json.h"
#include "engine/store/models.h"
#include "tools/cycle/child.h"
#include "tools/cycle/cycle.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOG_TAIL = 4096 };

typedef struct {
  const char *config, *run, *date, *from, *only, *to;
  int dry, quiet, json;
} settings;

typedef struct {
  cycle c;
  settings o;
  json_t *told;    /* step: what became of it */
  json_t *remade;  /* dry run: paths that would be written anew */
  int late;        /* all is done but a step that does not stop the others: push */
} job;

static int say(const job *j, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int say(const job *j, const char *name, const char *format, ...) {
  if (j->o.quiet) return 0;
  va_list rest;
  va_start(rest, format);
  FILE *to = j->o.dry && !j->o.json ? stdout : stderr;
  fprintf(to, "%-8s ", name);
  vfprintf(to, format, rest);
  fputc('\n', to);
  va_end(rest);
  return 0;
}

static void note(job *j, const char *name, const char *outcome) { json_object_set_new(j->told, name, json_string(outcome)); }

static void stamp(json_t *record, const char *key) {
  char text[32];
  const time_t now = time(NULL);
  struct tm utc;
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  json_object_set_new(record, key, json_string(text));
}

/* --- what is to be done --- */

/* {path: SHA-256}; NULL on failure. */
static json_t *hash_all(cycle *c, const json_t *paths) {
  json_t *all = json_object();
  for (size_t i = 0; all && i < json_array_size(paths); i++) {
    const char *path = json_string_value(json_array_get(paths, i)), *hash = cycle_hash(c, path);
    if (!hash || json_object_set_new(all, path, json_string(hash))) {
      json_decref(all);
      all = NULL;
    }
  }
  return all;
}

static const char *missing(const json_t *paths) {
  for (size_t i = 0; i < json_array_size(paths); i++)
    if (!sw_exists(json_string_value(json_array_get(paths, i)))) return json_string_value(json_array_get(paths, i));
  return NULL;
}

static const char *first_difference(const json_t *before, const json_t *now) {
  const char *path;
  json_t *hash;
  json_object_foreach((json_t *)now, path, hash)
    if (!json_equal(hash, json_object_get(before, path))) return path;
  json_object_foreach((json_t *)before, path, hash)
    if (!json_object_get(now, path)) return path;
  return "?";
}

/* The place of the next argument from `i` on that is no option of pace or price, and no posting. */
static size_t skip(const cycle *c, const json_t *command, size_t i) {
  static const char *const pace[] = {"--budget", "--price-in", "--price-out", "--requests-per-minute", "--tokens-per-minute", "--tries", "--timeout", "--time-limit", "--parallel"};
  const size_t length = strlen(c->postings);
  for (size_t o = 0; o < sizeof pace / sizeof *pace;) {
    const char *word = json_string_value(json_array_get(command, i));
    if (word && !strcmp(word, pace[o])) i += 2, o = 0;
    else if (word && !strncmp(word, c->postings, length) && word[length] == '/') i++, o = 0;
    else o++;
  }
  return i;
}

/* 1 for the same work: options that only say how fast it goes or how dear it may be do not count; nor do postings, which are inputs. */
static int same_work(const cycle *c, const json_t *a, const json_t *b) {
  for (size_t i = 0, k = 0;; i++, k++) {
    i = skip(c, a, i);
    k = skip(c, b, k);
    if (i >= json_array_size(a) || k >= json_array_size(b)) return i >= json_array_size(a) && k >= json_array_size(b);
    if (!json_equal(json_array_get(a, i), json_array_get(b, k))) return 0;
  }
}

/* What an older run read and is gone by now, such as a checkpoint or postings, or NULL: such a run stays as it is. */
static const char *gone_input(const cycle *c, const json_t *record) {
  const char *path, *hash;
  json_t *value;
  if (!c->newest) json_object_foreach(json_object_get(record, "inputs"), path, value)
      if ((hash = json_string_value(value)) && *hash && !sw_exists(path)) return path;
  return NULL;
}

typedef enum { UP_TO_DATE, GO_ON, BEGIN } decision;

/* `why`: a part of a sentence. */
static decision decide(const job *j, const step *s, const plan *p, const json_t *record, const json_t *inputs, int forced, char why[512]) {
  const json_int_t status = json_integer_value(json_object_get(record, "status"));
  const int ended = status == 0 || (status == 3 && s->gate);
  const char *lacks = missing(p->outputs);
  *why = 0;
  if (forced) snprintf(why, 512, "asked for");
  else if (!record) snprintf(why, 512, "not done yet");
  else if (ended && !lacks && gone_input(&j->c, record)) return UP_TO_DATE;
  else if (!same_work(&j->c, p->command, json_object_get(record, "command"))) snprintf(why, 512, "another command than last time");
  else if (!json_equal(inputs, json_object_get(record, "inputs"))) snprintf(why, 512, "%s has changed", first_difference(json_object_get(record, "inputs"), inputs));
  if (*why) return BEGIN;
  if (!ended) {
    if (status < 0) snprintf(why, 512, "interrupted");
    else snprintf(why, 512, "ended with status %lld", (long long)status);
    return GO_ON;
  }
  if (lacks) snprintf(why, 512, "%s is gone", lacks);
  return lacks ? BEGIN : UP_TO_DATE;
}

/* --- doing it --- */

static char *command_text(const json_t *command) {
  sw_buffer text = {0};
  sw_buffer_print(&text, "skillwatch");
  for (size_t i = 0; i < json_array_size(command); i++) {
    const char *word = json_string_value(json_array_get(command, i));
    const int plain = *word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,=+%@") == strlen(word);
    if (plain) {
      sw_buffer_print(&text, " %s", word);
      continue;
    }
    sw_buffer_print(&text, " '");
    for (size_t n; (n = strcspn(word, "'")), word[n]; word += n + 1) sw_buffer_print(&text, "%.*s'\\''", (int)n, word);
    sw_buffer_print(&text, "%s'", word);
  }
  char *all = sw_buffer_take(&text);
  return all;
}

static int log_line(const char *path, const char *text) {
  FILE *log = fopen(path, "ae");
  if (!log) return sw_fail("cannot write %s", path);
  json_t *when = json_object();
  stamp(when, "at");
  fprintf(log, "== %s %s\n", sw_json_string(when, "at"), text);
  json_decref(when);
  return fclose(log) ? sw_fail("cannot write %s", path) : 0;
}

/* The last line that says something; free() it. */
static char *last_line(const char *path) {
  char tail[LOG_TAIL + 1] = "";
  FILE *log = fopen(path, "re");
  if (!log) return sw_strdup("");
  if (fseek(log, -LOG_TAIL, SEEK_END)) rewind(log);
  tail[fread(tail, 1, LOG_TAIL, log)] = 0;
  fclose(log);
  size_t end = strlen(tail);
  while (end && (tail[end - 1] == '\n' || tail[end - 1] == ' ')) tail[--end] = 0;
  char *line = strrchr(tail, '\n');
  line = line ? line + 1 : tail;
  return sw_strdup(strncmp(line, "skillwatch: ", 12) ? line : line + 12);
}

/* What the program printed as JSON, from a place in the file on. A run that went on where another was killed may have printed twice; the one with the
 * larger bill counts. */
static json_t *read_printed(const char *path, json_int_t from) {
  sw_buffer text = {0};
  json_t *best = NULL, *row;
  json_error_t error;
  if (!sw_exists(path) || sw_file_read(path, 1 << 24, &text)) return NULL;
  for (char *at = (json_int_t)text.size > from ? text.data + from : NULL, *end; at && (end = strchr(at, '\n')); at = end + 1) {
    if (sw_json_row(at, (size_t)(end - at), 0, &row, &error) || !row) continue;
    const json_int_t bill = json_integer_value(json_object_get(row, "tokens_in")), before = json_integer_value(json_object_get(best, "tokens_in"));
    if (best && before > bill) {
      json_decref(row);
    } else {
      json_decref(best);
      best = row;
    }
  }
  sw_buffer_close(&text);
  return best;
}

/* 0, 3 or, with a message, another exit status; the child's own goes to the record. */
static int judge(const job *j, const step *s, decision how, const child_result *r, const char *log, json_t *record) {
  const char *again = j->o.from || j->o.only ? "; the same command without --from and --only goes on from there" : "; the same command goes on from there";
  const int afresh = how == GO_ON && !s->printed;
  char *line = last_line(log);
  const int by_hand = r->end == CHILD_DIED && (r->status == SIGTERM || r->status == SIGINT || r->status == SIGHUP || r->status == SIGKILL);
  int code = r->end == CHILD_ENDED ? r->status : SW_EXIT_AGAIN;
  json_object_set_new(record, "status", json_integer(r->end == CHILD_DIED ? 128 + r->status : r->end == CHILD_ENDED ? r->status : SW_EXIT_AGAIN));
  if (r->end == CHILD_STOPPED) {
    sw_fail("stopped by a signal in the step %s%s", s->name, again);
  } else if (r->end == CHILD_TOO_LONG) {
    sw_fail("the step %s took longer than its \"stop_after\" and was stopped%s", s->name, again);
  } else if (r->end == CHILD_DIED) {
    code = by_hand ? SW_EXIT_AGAIN : SW_EXIT_FAILED;
    sw_fail("the step %s was ended by signal %d (%s); its log: %s", s->name, r->status, strsignal(r->status), log);
  } else if (code == SW_EXIT_AGAIN) {
    sw_fail("the step %s is to be tried again: %s (log: %s)", s->name, line ? line : "", log);
  } else if (code && !(code == SW_EXIT_GATE && s->gate)) {
    code = SW_EXIT_FAILED;
    sw_fail("the step %s failed with status %d: %s (log: %s%s%s)", s->name, r->status, line ? line : "", log, afresh ? "; to begin it anew: --from " : "", afresh ? s->name : "");
  }
  free(line);
  return code;
}

/* <state>/<run>/<step><ending>; free() it. */
static char *beside(const cycle *c, const step *s, const char *ending) {
  sw_buffer name = {0};
  char *path = sw_buffer_print(&name, "%s%s", s->name, ending) ? NULL : cycle_path(c, NULL, name.data);
  sw_buffer_close(&name);
  return path;
}

/* What the step made before is kept as <step>.before until it has ended well again; what an attempt since then left is removed. The folder of label
 * stays: its journal holds answers that are paid for. */
static int set_aside(const cycle *c, const step *s) {
  if (s->keeps) return 0;
  char *folder = cycle_path(c, NULL, s->name), *before = beside(c, s, ".before");
  int status = folder && before ? 0 : -1;
  if (!status && sw_is_folder(folder)) {
    if (sw_exists(before)) sw_remove_folder(folder);
    else if (rename(folder, before)) status = sw_fail("cannot rename %s to %s", folder, before);
  }
  free(folder);
  free(before);
  return status;
}

/* Once the record says that the step ended well. */
static void clear_aside(const cycle *c, const step *s) {
  char *before = beside(c, s, ".before"), *out = s->printed && !*s->printed ? beside(c, s, ".out") : NULL;
  if (before && sw_exists(before)) sw_remove_folder(before);
  if (out) unlink(out);
  free(before);
  free(out);
}

/* Outputs that are not as the step left them, which people may have corrected, before it makes them anew: labels.jsonl becomes labels.1.jsonl. Under
 * its first record one may be just made. */
static int keep_corrected(job *j, const step *s, const plan *p, const json_t *before) {
  int status = 0;
  for (size_t i = 0; s->keeps && !status && i < json_array_size(p->outputs); i++) {
    const char *path = json_string_value(json_array_get(p->outputs, i)), *dot = strrchr(path, '.');
    const char *then = sw_json_string(json_object_get(before, "outputs"), path), *now = sw_exists(path) ? cycle_hash(&j->c, path) : NULL;
    if (!now || (before && !then) || (then && !strcmp(now, then))) continue;
    sw_buffer other = {0};
    int number = 0;
    do {
      sw_buffer_clear(&other);
      status = sw_buffer_print(&other, "%.*s.%d%s", (int)(dot - path), path, ++number, dot);
    } while (!status && sw_exists(other.data));
    if (!status && rename(path, other.data)) status = sw_fail("cannot rename %s to %s", path, other.data);
    if (!status) say(j, s->name, "%s was changed since: it is kept as %s", path, other.data);
    json_object_del(j->c.hashes, path);
    sw_buffer_close(&other);
  }
  return status;
}

/* Adds what earlier attempts cost. */
static void add_bill(json_t *bill, const json_t *earlier) {
  static const char *const keys[] = {"cost", "tokens_in", "tokens_out"};
  for (size_t i = 0; earlier && i < sizeof keys / sizeof *keys; i++) {
    const json_t *a = json_object_get(bill, keys[i]), *b = json_object_get(earlier, keys[i]);
    if (a && b) json_object_set_new(bill, keys[i], json_is_integer(a) ? json_integer(json_integer_value(a) + json_integer_value(b)) : json_real(json_number_value(a) + json_number_value(b)));
  }
}

/* What attempts that are over have cost, or NULL: the record's, and what one that was killed before its record had printed. One whose journal is there
 * is not over: it goes on, and its bill with it. */
static json_t *spent_before(const cycle *c, const step *s, decision how, const json_t *before) {
  if (!s->keeps || !before) return NULL;
  if (json_is_integer(json_object_get(before, "status")) && json_integer_value(json_object_get(before, "status")) == 0) return json_deep_copy(json_object_get(before, "result"));
  json_t *spent = json_deep_copy(json_object_get(before, "spent_before"));
  char *journal = cycle_path(c, NULL, s->keeps), *out = beside(c, s, ".out");
  json_t *told = how == BEGIN && journal && out && !sw_exists(journal) ? read_printed(out, json_integer_value(json_object_get(before, "printed_from"))) : NULL;
  if (told) {
    add_bill(told, spent);
    json_decref(spent);
    spent = told;
  }
  free(journal);
  free(out);
  return spent;
}

/* Runs the step's program, or what the cycle does itself. 0, 3, or another status with a message. */
static int act(job *j, const step *s, const plan *p, decision how, json_t *record) {
  cycle *c = &j->c;
  sw_buffer name = {0};
  char *folder = cycle_path(c, NULL, s->name), *log = NULL, *out = NULL, *text = command_text(p->command);
  int status = folder && text && !sw_buffer_print(&name, "%s.log", s->name) && (log = cycle_path(c, NULL, name.data)) ? 0 : -1, code = SW_EXIT_FAILED;
  sw_buffer_clear(&name);
  if (!status && s->printed) status = sw_buffer_print(&name, *s->printed ? "%s/%s" : "%s.out", s->name, s->printed) || !(out = cycle_path(c, NULL, name.data)) ? -1 : 0;
  const int prints = out && !*s->printed;
  if (!status && !s->verb) {
    json_t *result = NULL;
    sw_lock lock = {0};
    const int locked = sw_models_lock(c->models, &lock);
    code = locked ? locked > 0 ? SW_EXIT_AGAIN : SW_EXIT_FAILED : cycle_promote(c, &result);
    sw_lock_release(&lock);
    if (code < 0) code = SW_EXIT_FAILED;
    if (result) json_object_set_new(record, "result", result);
    json_object_set_new(record, "status", json_integer(code));
  } else if (!status) {
    const int files = json_array_size(p->outputs) > 0;
    const child_options child = {.log = log, .out = out, .append = prints, .seconds = cycle_number(c, s->name, "stop_after", 0), .lock = c->lock.path ? c->lock.file : -1};
    child_result result;
    status = (files && sw_make_folders(folder)) || log_line(log, text) || cycle_run(p->command, &child, &result) ? -1 : 0;
    if (!status) code = judge(j, s, how, &result, log, record);
    json_t *printed = !status && !code && prints ? read_printed(out, json_integer_value(json_object_get(record, "printed_from"))) : NULL;
    if (printed) {
      add_bill(printed, json_object_get(record, "spent_before"));
      json_object_set_new(record, "result", printed);
    }
    json_object_clear(c->hashes);
    if (!status && !code && s->after && s->after(c, record)) status = -1;
    if (!status && (code == 0 || code == SW_EXIT_GATE)) {
      const char *lacks = missing(p->outputs);
      if (lacks) status = sw_fail("the step %s ended well, but %s is not there (log: %s)", s->name, lacks, log);
    }
    if (status) code = SW_EXIT_FAILED;
    if (status) json_object_set_new(record, "status", json_integer(SW_EXIT_FAILED));
  }
  sw_buffer_close(&name);
  free(folder);
  free(log);
  free(out);
  free(text);
  return code;
}

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Where the output of an attempt begins in <step>.out, behind that of those before it. */
static void note_printed(const cycle *c, const step *s, decision how, const json_t *before, json_t *record) {
  struct stat file;
  char *out = s->printed && !*s->printed ? beside(c, s, ".out") : NULL;
  json_t *from = how == GO_ON ? json_incref(json_object_get(before, "printed_from")) : out && !stat(out, &file) ? json_integer((json_int_t)file.st_size) : NULL;
  if (from) json_object_set_new(record, "printed_from", from);
  free(out);
}

/* The record of an attempt is written before it and after it. */
static int run_step(job *j, const step *s, const plan *p, decision how, json_t *before, json_t *inputs) {
  cycle *c = &j->c;
  const json_int_t attempts = how == GO_ON ? json_integer_value(json_object_get(before, "attempts")) : 0;
  json_t *record = json_pack("{s:O, s:O, s:i, s:I}", "command", p->command, "inputs", inputs, "status", -1, "attempts", attempts + 1);
  const double began = seconds_now();
  if (!record) return sw_fail_memory("the step cannot be noted"), SW_EXIT_FAILED;
  json_t *spent = spent_before(c, s, how, before), *outputs = s->keeps ? json_object_get(before, "outputs") : NULL;
  if (spent) json_object_set_new(record, "spent_before", spent);
  if (outputs) json_object_set(record, "outputs", outputs); /* of the last that ended well, for keep_corrected */
  note_printed(c, s, how, before, record);
  if ((how == GO_ON || !s->verb) && json_object_get(before, "result")) json_object_set(record, "result", json_object_get(before, "result"));
  stamp(record, "begun");
  /* what was there goes before the record of the new attempt comes: one that goes on must not find it */
  if (keep_corrected(j, s, p, before) || (how == BEGIN && set_aside(c, s)) || cycle_finished(c, 0) || cycle_record_write(c, s->name, record)) {
    json_decref(record);
    return SW_EXIT_FAILED;
  }
  int code = act(j, s, p, how, record);
  char *message = code && code != SW_EXIT_GATE ? sw_strdup(sw_error()) : NULL;
  stamp(record, "ended");
  json_object_set_new(record, "seconds", json_real((double)(int64_t)((seconds_now() - began) * 1000) / 1000));
  if (!code || code == SW_EXIT_GATE) {
    outputs = hash_all(c, p->outputs);
    if (!outputs || json_object_set_new(record, "outputs", outputs)) code = SW_EXIT_FAILED;
  }
  if (cycle_record_write(c, s->name, record)) code = SW_EXIT_FAILED;
  else if (message) sw_fail("%s", message);
  else clear_aside(c, s);
  free(message);
  json_decref(record);
  return code;
}

/* Such as labels that people have corrected: what follows goes on from them. */
static void tell_changed(const job *j, const step *s, const plan *p, const json_t *record) {
  json_t *now = hash_all((cycle *)&j->c, p->outputs);
  const json_t *then = json_object_get(record, "outputs");
  const char *gone = gone_input(&j->c, record);
  if (!j->o.dry) clear_aside(&j->c, s);
  if (gone) say(j, s->name, "up to date, though %s, which it was made with, is gone", gone);
  else if (now && then && !json_equal(now, then)) say(j, s->name, "up to date, but %s was changed since: it stays as it is (--from %s makes it anew)", first_difference(then, now), s->name);
  else say(j, s->name, "up to date");
  json_decref(now);
}

static int depends_on_remade(const job *j, const plan *p) {
  for (size_t i = 0; i < json_array_size(p->inputs); i++)
    if (json_object_get(j->remade, json_string_value(json_array_get(p->inputs, i)))) return 1;
  return 0;
}

static void plan_close(plan *p) {
  json_decref(p->command);
  json_decref(p->inputs);
  json_decref(p->outputs);
  sw_buffer_close(&p->left_out);
}

/* Plans a step and does it where it is to be done; returns an exit status, with a message where it is neither 0 nor 3. */
static int do_step(job *j, const step *s, int forced) {
  cycle *c = &j->c;
  plan p = {.command = json_array(), .inputs = json_array(), .outputs = json_array()};
  json_t *record = cycle_record(c, NULL, s->name), *inputs = NULL;
  char why[512], *text = NULL;
  int code = p.command && p.inputs && p.outputs && !s->make(c, &p) && (p.left_out.size || (inputs = hash_all(c, p.inputs))) && (text = command_text(p.command)) ? 0 : SW_EXIT_FAILED;
  if (!code && p.left_out.size) {
    say(j, s->name, "left out: %s", p.left_out.data);
    note(j, s->name, "left out");
  } else if (!code) {
    const decision how = decide(j, s, &p, record, inputs, forced, why);
    const int waits = j->o.dry && how == UP_TO_DATE && depends_on_remade(j, &p);
    if (waits) snprintf(why, sizeof why, "if what it reads has changed");
    if (how == UP_TO_DATE && !waits) {
      tell_changed(j, s, &p, record);
      note(j, s->name, "up to date");
      if (s->gate && json_integer_value(json_object_get(record, "status")) == 3) code = SW_EXIT_GATE;
    } else if (j->o.dry) {
      say(j, s->name, "%s (%s)", s->verb ? text : "move the link current.h5 where the gate lets it", why);
      note(j, s->name, "would run");
      for (size_t i = 0; i < json_array_size(p.outputs); i++) json_object_set_new(j->remade, json_string_value(json_array_get(p.outputs, i)), json_true());
    } else {
      say(j, s->name, "%s (%s)", s->verb ? text : "promote", why);
      code = run_step(j, s, &p, how, record, inputs);
      note(j, s->name, code == 0 ? "done" : code == SW_EXIT_GATE ? "refused" : code == SW_EXIT_AGAIN ? "to be tried again" : "failed");
    }
  }
  if (code == SW_EXIT_GATE && !strcmp(s->name, "promote")) {
    json_t *now = cycle_record(c, NULL, "promote");
    const char *reason = sw_json_string(json_object_get(now, "result"), "why");
    say(j, s->name, "refused: %s", reason ? reason : "the gate said no");
    json_decref(now);
  }
  free(text);
  json_decref(record);
  json_decref(inputs);
  plan_close(&p);
  return code;
}

/* --- the whole --- */

static int step_index(const char *option, const char *name, int otherwise) {
  if (!name) return otherwise;
  for (int i = 0; i < cycle_step_count(); i++)
    if (!strcmp(cycle_steps[i].name, name)) return i;
  sw_buffer list = {0};
  for (int i = 0; i < cycle_step_count(); i++) sw_buffer_print(&list, "%s%s", i ? ", " : "", cycle_steps[i].name);
  sw_fail("--%s %s: there is no such step; the steps are %s", option, name, list.data ? list.data : "");
  sw_buffer_close(&list);
  return -1;
}

/* Returns the exit status; messages are printed. */
static int run_all(job *j, int first, int last, int forced) {
  cycle *c = &j->c;
  int code = SW_EXIT_DONE;
  for (int i = 0; i < cycle_step_count(); i++) {
    const step *s = &cycle_steps[i];
    if (i == 1 && cycle_take_postings(c)) return sw_exit_message(SW_EXIT_FAILED);
    if (i == 1 && !json_array_size(json_object_get(c->info, "postings"))) {
      say(j, "run", "there are no new postings in %s: nothing else is to be done", c->postings);
      return code;
    }
    if (i < first || i > last || !cycle_config_of(c, s)) continue;
    if (!j->o.dry && cycle_stopped()) {
      sw_fail("stopped by a signal before the step %s; the same command goes on from there", s->name);
      return sw_exit_message(SW_EXIT_AGAIN);
    }
    const int ended = do_step(j, s, forced);
    if (ended == SW_EXIT_GATE) {
      if (!code) code = ended;
    } else if (ended) {
      sw_exit_message(ended);
      code = ended;
      j->late = s->last;
      if (!s->last) return j->o.dry || !cycle_finished(c, 0) ? code : sw_exit_message(SW_EXIT_FAILED);
    }
  }
  const int whole = !forced && last == cycle_step_count() - 1;
  if (!j->o.dry && whole && (cycle_finished(c, !j->late) || cycle_clean(c))) return sw_exit_message(SW_EXIT_FAILED);
  return code;
}

static int tell(const job *j, int code) {
  json_t *all = json_pack("{s:s, s:O, s:i}", "run", j->c.run, "steps", j->told, "status", code);
  char *text = all ? sw_json_canonical(all) : NULL;
  if (text) puts(text);
  json_decref(all);
  free(text);
  return text ? 0 : -1;
}

static int lock_state(cycle *c) {
  if (sw_make_folders(c->state)) return -1;
  char *path = sw_path_join(c->state, "cycle.lock");
  const int status = path ? sw_lock_take_as(path, "another cycle, or what it started, is at work", "wait for it, or stop it", &c->lock) : -1;
  free(path);
  return status;
}

static int run_one(job *j, int first, int last, int forced) {
  if (cycle_check_models(&j->c) || cycle_run_open(&j->c)) return sw_exit_message(SW_EXIT_FAILED);
  say(j, "run", "%s%s", j->c.run, j->o.dry ? ": what would be done" : "");
  const int code = run_all(j, first, last, forced);
  return j->o.json && tell(j, code) ? sw_exit_message(SW_EXIT_FAILED) : code;
}

static int run(job *j) {
  const settings *o = &j->o;
  cycle *c = &j->c;
  const char *start = o->only ? o->only : o->from, *end = o->only ? o->only : o->to;
  const int first = step_index(o->only ? "only" : "from", start, 0), last = step_index(o->only ? "only" : "to", end, cycle_step_count() - 1);
  if (first < 0 || last < 0) return sw_exit_message(SW_EXIT_USAGE);
  if (first > last) {
    sw_fail("--from %s --to %s: %s comes before %s", start, end, end, start);
    return sw_exit_message(SW_EXIT_USAGE);
  }
  if (cycle_config_open(o->config, c)) {
    if (cycle_stopped()) sw_fail("stopped by a signal before the first step");
    return sw_exit_message(cycle_stopped() ? SW_EXIT_AGAIN : SW_EXIT_USAGE);
  }
  if ((start && !cycle_config_of(c, &cycle_steps[first])) || (end && !cycle_config_of(c, &cycle_steps[last]))) {
    sw_fail("%s has no step \"%s\"", o->config, start && !cycle_config_of(c, &cycle_steps[first]) ? start : end);
    return sw_exit_message(SW_EXIT_USAGE);
  }
  if (cycle_run_name(c, o->run, o->date)) return sw_exit_message(SW_EXIT_USAGE);
  c->dry = o->dry;
  c->first = first;
  const int locked = o->dry ? 0 : lock_state(c);
  if (locked) return sw_exit_message(locked > 0 ? SW_EXIT_AGAIN : SW_EXIT_FAILED);
  if (start || end || o->run || o->date) return run_one(j, first, last, start != NULL);
  char *earlier = NULL;
  if (cycle_unfinished(c, &earlier)) return sw_exit_message(SW_EXIT_FAILED);
  int before = SW_EXIT_DONE;
  if (earlier && strcmp(earlier, c->run)) { /* the next week would leave its training out */
    say(j, "run", "%s is not finished: first that (--run NAME goes on without it)", earlier);
    cycle_run_close(c);
    before = cycle_run_name(c, earlier, NULL) ? sw_exit_message(SW_EXIT_FAILED) : run_one(j, first, last, 0);
    cycle_run_close(c);
    json_object_clear(j->told);
    json_object_clear(j->remade);
    if (cycle_run_name(c, NULL, NULL)) before = sw_exit_message(SW_EXIT_FAILED);
  }
  free(earlier);
  if (before && before != SW_EXIT_GATE && !j->late) return before; /* a push that fails holds no week up */
  j->late = 0;
  const int code = run_one(j, first, last, 0);
  return code ? code : before;
}

static int body(int argc, char **argv) {
  job j = {.told = json_object(), .remade = json_object()};
  settings *o = &j.o;
  const sw_option options[] = {
      {"config", 'c', SW_OPTION_TEXT, &o->config, "FILE", "the steps and their settings, JSON (needed)"},
      {"run", 0, SW_OPTION_TEXT, &o->run, "NAME", "name of the run (else: the ISO week of its date, 2026-W05)"},
      {"date", 0, SW_OPTION_TEXT, &o->date, "DATE", "the run's day, 31-01-2026, instead of today (UTC)"},
      {"from", 0, SW_OPTION_TEXT, &o->from, "STEP", "do this step and all that follow again, and take those before as they are"},
      {"only", 0, SW_OPTION_TEXT, &o->only, "STEP", "do this step again, and no other"},
      {"to", 0, SW_OPTION_TEXT, &o->to, "STEP", "end after this step"},
      {"dry-run", 'n', SW_OPTION_FLAG, &o->dry, NULL, "print what would be done and why, and do nothing"},
      {"json", 0, SW_OPTION_FLAG, &o->json, NULL, "print what became of the steps as JSON, to standard output"},
      {"quiet", 'q', SW_OPTION_FLAG, &o->quiet, NULL, "print errors only"},
      {0},
  };
  const sw_command command = {
      .usage = "skillwatch cycle --config week.json [options]",
      .summary = "The whole week as one command: fetch, label, train (from the checkpoint in use, with earlier weeks' labels), compare, promote,\n"
                 "tag, link, skills, embed, map, cluster, report, push; those that the config names. Each step is a program, started as a person\n"
                 "would, in the config's folder. What it did is in STATE/RUN/STEP.json, what it said in STATE/RUN/STEP.log. The same command\n"
                 "goes on after a crash, and does nothing where all is done; what has changed is done again, and what depends on it.\n"
                 "Exit status: 0 done; 1 a step failed; 2 wrong usage or config; 3 the gate refused the new checkpoint (all else is done,\n"
                 "with the one before); 75 try again: stopped, out of time, a server busy, or another cycle at work.",
      .example = "skillwatch cycle --config week.json --dry-run\n"
                 "  skillwatch cycle --config week.json",
      .options = options,
  };
  sw_list operands = {0};
  int status = sw_options_parse(&command, argc, argv, &operands);
  if (!status && operands.count) status = sw_fail("'%s' is too much: skillwatch cycle --config week.json", operands.items[0]);
  if (!status && !o->config) status = sw_fail("which config? skillwatch cycle --config week.json (see --help)");
  if (!status && o->only && (o->from || o->to)) status = sw_fail("--only and --from or --to exclude each other");
  if (!status && (!j.told || !j.remade)) status = sw_fail_memory("a run cannot begin");
  if (!status) status = cycle_keep_signals();
  if (status)
    status = status > 0 ? SW_EXIT_DONE : sw_exit_message(SW_EXIT_USAGE);
  else
    status = run(&j);
  cycle_config_close(&j.c);
  json_decref(j.told);
  json_decref(j.remade);
  sw_list_close(&operands);
  return status;
}

int main(int argc, char **argv) { return sw_program(argc, argv, body); }
