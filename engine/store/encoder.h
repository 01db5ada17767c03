/* What a BERT or DistilBERT encoder must look like: the keys of its config.json and the tensors that follow from them.
 */
#ifndef SW_STORE_ENCODER_H
#define SW_STORE_ENCODER_H
#include "engine/store/checkpoint.h"

/* Checks a Hugging Face config (an object) and fills in the defaults that transformers has for missing keys. Refuses,
 * naming `what`: a model_type other than bert and distilbert, relative positions, an activation that linear.h does not
 * have, decoders, sizes out of range. */
int sw_encoder_check_config(json_t *config, const char *what);
/* Checks that every tensor of the encoder is in `weights` with its shape; also pooler and masked-language-model head
 * where present. The message names the first tensor that is missing or has another shape, with both shapes. Other
 * tensors are not looked at. */
int sw_encoder_check_weights(const json_t *config, const sw_tensors *weights, const char *what);
/* 1 for "bert" and "distilbert". */
int sw_encoder_is_known(const json_t *config);
/* 1 for a tensor that belongs to the encoder, its pooler or its masked-language-model head. */
int sw_encoder_owns(const json_t *config, const char *name);
/* "30522x384" */
void sw_shape_text(int rank, const int64_t *shape, char text[96]);
#endif
