/* Checkpoints and their ancestors, each once: what skillwatch show --lineage and skillwatch report tell of. */
#ifndef SW_STORE_FAMILY_H
#define SW_STORE_FAMILY_H
#include "engine/store/checkpoint.h"

typedef struct {
  json_t *entry; /* as sw_checkpoint_entry makes it; with "paths" for those that were asked for */
  int parent;    /* its index; -1: none is known */
} sw_family_member;

/* Zero-initialise it. */
typedef struct {
  int count;
  sw_family_member *members; /* parents before children */
} sw_family;

/* Adds a checkpoint, read from `path`, and those in its lineage that are not there yet. */
int sw_family_add(sw_family *family, const sw_checkpoint *checkpoint, const char *path);
void sw_family_close(sw_family *family);

/* The numbers that people judge by, the first that `metrics` (may be NULL) has: F1, accuracy, ... */
enum { SW_FAMILY_SCORES = 2 };
typedef struct {
  const char *name;
  double value;
} sw_family_score;
int sw_family_scores(const json_t *metrics, sw_family_score out[SW_FAMILY_SCORES]);
#endif
