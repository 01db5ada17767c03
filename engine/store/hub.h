/* What pulling from the Hugging Face Hub and pushing to it have in common. */
#ifndef SW_STORE_HUB_H
#define SW_STORE_HUB_H
#include "base/buffer.h"

typedef struct {
  char id[256], revision[128]; /* as given: "owner/name", "main" */
  char at[128]; /* the revision files are asked of: the commit once it is known, so that all belong together */
  const char *endpoint, *token; /* HF_ENDPOINT, HF_TOKEN (NULL: none): the environment's */
  char *folder;                 /* where files are kept; owned */
  int quiet;
} sw_hub;

/* "owner/name" or "owner/name@revision", and the environment: an address without a login, and a token that goes over
 * https or to this machine only. */
int sw_hub_read(const char *id, sw_hub *hub);
/* HF_HUB_OFFLINE forbids the network. */
int sw_hub_is_offline(void);
/* {endpoint}/{before}{owner/name}{after}{revision, escaped; NULL: none}: appended to `url`. */
int sw_hub_url(const sw_hub *hub, const char *before, const char *after, const char *revision, sw_buffer *url);
/* `cache`, or where it is NULL $XDG_CACHE_HOME/skillwatch or ~/.cache/skillwatch; free() it. */
char *sw_cache_folder(const char *cache);
/* <cache>/push, made; free() it. */
char *sw_cache_push(const char *cache);

/* A folder of this process alone in <cache>/push (those of dead processes are removed), locked until it is closed. */
typedef struct {
  char *folder;
  char *model; /* in it, not made yet: what is to be sent */
  int lock;
} sw_cache_room;

int sw_cache_open(const char *cache, sw_cache_room *room);
/* Removes it. One of zeros is fine. */
void sw_cache_close(sw_cache_room *room);

/* What `push` adds to the files of an export: where they come from, and the checkpoint itself where it goes along:
 * {"format": "skillwatch", "version": 1, "kind", "content_sha256", "weights_sha256": of model.safetensors,
 * "checkpoint": "skillwatch.h5"} */
#define SW_HUB_ORIGIN "skillwatch.json"
#define SW_HUB_CHECKPOINT "skillwatch.h5"
#define SW_HUB_WEIGHTS "model.safetensors"
#endif
