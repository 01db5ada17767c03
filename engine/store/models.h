/* A folder of promoted checkpoints: "current.h5" is a symbolic link to the one that counts, "<run>-<12 digits of its content hash>.h5" are all
 * of them, "history.jsonl" tells what the link was moved to, in order: a JSON object a line,
 *   {"action": "promote" | "rollback", "run", "from" (null at first), "to", "sha256" (of the content), "when", "who", "why", "scores"}
 * A line is written, with fsync, after the link was moved; one that a crash left torn is no line. Whoever writes locks "lock" (base/lock.h). */
#ifndef SW_STORE_MODELS_H
#define SW_STORE_MODELS_H
#include "base/lock.h"
#include <jansson.h>

/* The file's name that current.h5 points to: 0, and *name (free() it) or NULL where there is no link. The file may be missing. Fails where
 * current.h5 is no link, or one that leads out of the folder. */
int sw_models_current(const char *folder, char **name);
/* The name that `checkpoint` has as a promoted one; its content is verified. free() *name; hex[65] gets its content hash. */
int sw_models_name(const char *checkpoint, const char *run, char **name, char *hex);
/* Makes <folder>/<name> from `checkpoint`: a hard link, or a copy across file systems. */
int sw_models_add(const char *folder, const char *checkpoint, const char *name);
/* Moves the link to `entry`'s "to" and appends the entry, with "when" and "who". Done again after a crash it ends the same. */
int sw_models_move(const char *folder, const json_t *entry);
/* All entries, the oldest first; NULL on failure. */
json_t *sw_models_history(const char *folder);
/* The entry of "promote" that `which` names: a run (its last), or at least four of the first digits of the content hash; NULL, with a message,
 * for none or several. Borrowed. */
json_t *sw_models_find(const json_t *history, const char *which);
/* Removes promoted checkpoints but that of the link and those that the last `keep` promotions or `needed` name, {"NAME.h5": ...} (may be NULL); *removed: how many (may be NULL). */
int sw_models_prune(const char *folder, int keep, const json_t *needed, int *removed);
/* Takes the folder's lock: 0; 1 where another has it; -1. The folder is made. */
int sw_models_lock(const char *folder, sw_lock *lock);
#endif
