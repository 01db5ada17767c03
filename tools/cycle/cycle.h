/* skillwatch cycle: a week's steps, what each of them reads and writes, and what of it is done.
 *
 * The config is a JSON object; all its paths are relative to its own folder, which is where the steps run. A step that has no key is left out.
 *   "state"     folder of the runs; default "state"
 *   "models"    folder of promoted checkpoints (engine/store/models.h); default "models"
 *   "postings"  folder of postings, needed: the files in it and below that no earlier run had are a run's
 *   "base"      checkpoint of an encoder: what the first training starts from, and what link and embed use
 *   "keep"      runs whose training leftovers stay, and promotions whose checkpoints do; default 4
 *   "fetch"     {"source": "linkedin" or a file, ...}
 *   "label"     {"model": ..., ...}
 *   "train"     {"earlier": the part of a batch that labels of earlier runs make, 0.3; "earlier_weeks": of how many runs, 8; ...}
 *   "compare"   {"data": ["test.jsonl"], ...}: the gate
 *   "promote"   {"ungated": true}: without compare
 *   "tag", "link", "skills", "embed", "map", "cluster", "report", "push": {...}
 * A step's other keys are the long options of its program, as in its --config; "stop_after" is how many seconds it may take. Options that the cycle
 * sets itself, such as "output", are refused.
 *
 * <state>/<run>/run.json says what the run is: {"run", "number", "date", "postings" (files), "finished": true once all steps are done};
 * <state>/<run>/<step>.json what a step did: {"command", "inputs", "outputs" (path: SHA-256), "begun", "ended", "seconds", "attempts", "status" (-1
 * while it is under way), "result" (what it printed)}; <step>.log is all it said, <step>/ holds its files. A step is up to date where its last
 * record has the same command and inputs and ended well, and its outputs are there. One that is under way with the same command and inputs goes on;
 * any other begins anew, in an empty folder, and what the folder held is beside it, as <step>.before, until that has ended well. The folder of label
 * stays: answers in it are paid for. */
#ifndef SW_CYCLE_CYCLE_H
#define SW_CYCLE_CYCLE_H
#include "base/buffer.h"
#include "base/lock.h"
#include <jansson.h>

typedef struct {
  json_t *config;
  const char *state, *postings, *models, *base; /* of the config */
  int keep;
  int dry;            /* nothing is to be written */
  int first;          /* index of the step that this call begins with */
  char *run, *folder; /* its name, and <state>/<run>; owned */
  char date[11];      /* of a run that is new, DD-MM-YYYY */
  json_t *info;       /* run.json */
  json_t *runs;       /* names of all runs that there are, in order, this one among them */
  int newest;         /* no run is later */
  json_t *present;    /* folder or file in that of postings: number of files */
  json_t *hashes;     /* path: SHA-256 of what was read in this process */
  json_t *given;      /* step: options as arguments, checked */
  sw_lock lock;
} cycle;

/* What a step is to do. All owned; zero-initialise. */
typedef struct {
  json_t *command;  /* arguments after "skillwatch" */
  json_t *inputs;   /* paths that it depends on */
  json_t *outputs;  /* paths that must be there afterwards */
  sw_buffer left_out; /* not empty: there is nothing to do, and why */
} plan;

typedef struct {
  const char *name, *verb, *task;   /* task: of train and infer; verb NULL: done by the cycle itself */
  const char *key;                  /* of the config that asks for it, where that is not its name */
  const char *needs[2];             /* steps, of which one must be there */
  const char *own;                  /* keys that are no options: "a b" */
  const char *set;                  /* options that the cycle sets */
  const char *required;             /* a key that must be there, or NULL */
  int (*make)(cycle *c, plan *p);   /* fills the plan */
  int (*after)(cycle *c, json_t *record); /* with what was printed, when the step has ended well; or NULL */
  const char *printed;              /* file of the step's folder that standard output goes to; "" : to the record; NULL: to the log */
  const char *keeps;                /* file of the folder that holds what is paid for while the step is under way; the folder stays. NULL: none */
  int gate, last;                   /* gate: status 3 is an end, too; last: its failure does not stop the others */
} step;

extern const step cycle_steps[];
int cycle_step_count(void);
const step *cycle_step(const char *name);

/* 1 where this run's labels are there and name nothing, so that there is nothing to train with; 0, or -1 with a message. */
int cycle_no_labels(const cycle *c);

/* --- config.c --- */

/* Reads and checks the config; the working folder becomes its own. */
int cycle_config_open(const char *path, cycle *c);
void cycle_config_close(cycle *c);
/* What of the config asks for the step, or NULL where it is left out. Borrowed. */
const json_t *cycle_config_of(const cycle *c, const step *s);
/* A number of the step's own settings. */
double cycle_number(const cycle *c, const char *step, const char *key, double otherwise);

/* --- runs.c --- */

/* The run that is meant: `name` (NULL: the ISO week of `date`), and its day (DD-MM-YYYY; NULL: today's, UTC). Fails on wrong usage. */
int cycle_run_name(cycle *c, const char *name, const char *date);
/* Opens it, or begins it where it is new. One that has no postings yet is later than none. */
int cycle_run_open(cycle *c);
void cycle_run_close(cycle *c);
/* The latest run with postings, where not all its steps are done; else NULL. free() it. */
int cycle_unfinished(const cycle *c, char **name);
/* Notes whether they are. */
int cycle_finished(cycle *c, int finished);
/* Notes what lies in the folder of postings that no other run had; in a dry run with what fetch is going to bring. */
int cycle_take_postings(cycle *c);
/* Appends the run's postings to the command: a folder where all in it is the run's, else its files; the folder is the input, its hash that of what is
 * the run's. */
int cycle_add_postings(const cycle *c, plan *p);
/* "<state>/<run>/<name>"; free() it. `run` NULL: this one. */
char *cycle_path(const cycle *c, const char *run, const char *name);
/* A step's record of a run, or NULL where there is none (a message is not set) or it cannot be read. */
json_t *cycle_record(const cycle *c, const char *run, const char *name);
int cycle_record_write(const cycle *c, const char *name, const json_t *record);
/* SHA-256 of a file, or of a folder's names and files; "" where it is not there. NULL on failure. Borrowed from c->hashes. */
const char *cycle_hash(cycle *c, const char *path);
/* Removes what older runs do not need any more, and what processes that were killed left. */
int cycle_clean(cycle *c);

/* --- promote.c --- */

/* Fails where the checkpoint in use, or the link to it, is gone: without it any candidate would be the first, and no gate would judge it. */
int cycle_check_models(const cycle *c);
/* The checkpoint that training goes on from, "models/NAME", or NULL where none was promoted before this run; free() it. */
int cycle_trained_from(cycle *c, char **path);
/* What the candidate is compared with, in the same form. */
int cycle_compared_with(cycle *c, char **path);
/* What the run's postings are tagged with, in the same form. */
int cycle_in_use(cycle *c, char **path);
int cycle_make_promote(cycle *c, plan *p);
/* Does it; *result: what is to be recorded. */
int cycle_promote(cycle *c, json_t **result);
#endif
