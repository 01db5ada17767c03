/* Checkpoints as versions of a registered model of an MLflow server (MLFLOW_TRACKING_URI), by its REST API and its
 * artifact proxy. */
#ifndef SW_STORE_MLFLOW_REGISTRY_H
#define SW_STORE_MLFLOW_REGISTRY_H
#include "engine/store/checkpoint.h"

typedef struct {
  const char *name, *experiment;   /* both made where they are not there */
  const char *alias, *description; /* NULL: none */
  const char *checkpoint, *cache;  /* its file; where the export is written, NULL: the usual folder */
  int quiet;
} sw_mlflow_push_options;

typedef struct {
  char version[24], run_id[65];
  int unchanged; /* a version has this checkpoint already: only the alias was set */
  int temporary; /* on failure: it may work later */
} sw_mlflow_pushed;

/* A run with the checkpoint's settings, scores, file and (where transformers knows the model) the folder of
 * sw_export_folder, and a version whose tags say what it is and where it comes from. The version comes last: one that
 * is there is whole. */
int sw_mlflow_push(const sw_checkpoint *checkpoint, const sw_head *head, const sw_mlflow_push_options *options,
                   sw_mlflow_pushed *out);
/* "NAME" (the newest version), "NAME@alias" or "NAME/version" into the file `path`, byte for byte, once its hashes are
 * right; `out` is what it holds. */
int sw_mlflow_pull(const char *model, const char *path, int quiet, sw_checkpoint *out);
#endif
