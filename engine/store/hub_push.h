/* A model to the Hugging Face Hub: POST /api/repos/create, /api/models/{id}/preupload/{revision}, Git LFS' batch API
 * with the transfers basic and multipart, POST /api/models/{id}/commit/{revision} (lines of JSON).
 * https://huggingface.co/docs/hub/api; https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md */
#ifndef SW_STORE_HUB_PUSH_H
#define SW_STORE_HUB_PUSH_H
#include "engine/store/checkpoint.h"

typedef struct {
  const char *id;         /* "owner/name" or "owner/name@branch" */
  const char *branch;     /* NULL: that of the id, or main; made where it is not there */
  const char *message;    /* the commit's; NULL: one that names the checkpoint */
  const char *checkpoint; /* its file; goes along as skillwatch.h5 where `with_checkpoint` is set */
  const char *cache;      /* folder for unfinished uploads; NULL: the usual one */
  int with_checkpoint, private, quiet;
} sw_hub_push_options;

typedef struct {
  char address[384]; /* "https://huggingface.co/owner/name" */
  char branch[128], commit[65];
  int unchanged;  /* the branch had everything: no commit was made */
  size_t files;   /* of the commit, with those it removes */
  uint64_t bytes; /* uploaded as large files */
  int temporary;  /* on failure: it may work later */
} sw_hub_pushed;

/* Sends what sw_export_folder wrote for `head` (where transformers knows the model), a model card, skillwatch.json and,
 * if wanted, the checkpoint. What the Hub has already is not sent again; a branch that somebody changes meanwhile is
 * left as it is, and the call fails. Parts of a large file that arrived are remembered below `cache`, for the next
 * call. */
int sw_hub_push(const sw_checkpoint *checkpoint, const sw_head *head, const sw_hub_push_options *options,
                sw_hub_pushed *out);
#endif
