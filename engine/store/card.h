/* A model card: what a checkpoint is, where it comes from and how to load it, in Markdown with the Hub's YAML header;
 * and, for programs, where it comes from (SW_HUB_ORIGIN). */
#ifndef SW_STORE_CARD_H
#define SW_STORE_CARD_H
#include "base/buffer.h"
#include "engine/store/checkpoint.h"

/* `name`: the model's ("owner/name"). `head`: the exported one, or NULL. `with_checkpoint`: the checkpoint goes along.
 * The same checkpoint gives the same text. */
int sw_card_write(const sw_checkpoint *checkpoint, const sw_head *head, const char *name, int with_checkpoint,
                  sw_buffer *out);
/* `weights`: the SHA-256 of model.safetensors; NULL: there is none. New reference; NULL on failure. */
json_t *sw_card_origin(const sw_checkpoint *checkpoint, const sw_head *head, const char *weights, int with_checkpoint);
#endif
