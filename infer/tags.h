/* The results of tagging and how they are written. */
#ifndef SW_INFER_TAGS_H
#define SW_INFER_TAGS_H
#include "engine/learn/viterbi.h"
#include "engine/text/words.h"
#include "infer/session.h"
#include <stdio.h>

typedef enum { SW_TAGS_JSONL, SW_TAGS_CSV, SW_TAGS_FOLDER, SW_TAGS_SPANS /* an object with nothing but the spans, in no line */ } sw_tags_format;

typedef struct {
  size_t head;      /* of the model */
  const char *name; /* borrowed from it */
  sw_viterbi_rules rules;
} sw_tag_layer;

typedef struct {
  sw_infer_session *session; /* borrowed */
  sw_tags_format format;
  int with_text;
  double overlap;
  size_t num_layers;
  sw_tag_layer *layers;
  int total_labels, most_labels; /* over the layers: sum and largest */
  sw_special_ids special;
} sw_tag_job;

typedef struct {
  sw_span span;              /* in the posting's text */
  const char *label, *layer; /* borrowed */
  float score;
  uint32_t order; /* of the layer */
} sw_tag;

/* The token heads of the session's model; the caller has set session, format, with_text and overlap. Close it in any case. */
int sw_tag_open(sw_tag_job *job);
void sw_tag_close(sw_tag_job *job);
/* The pipeline's steps for a context that is an sw_tag_job; it writes nowhere. */
extern const sw_pipeline_job sw_tag_steps;

/* By start, then end, then layer. */
void sw_tags_sort(sw_tag *tags, size_t count);
/* Appends the tags of one posting in the job's format: a JSON line; CSV rows; or, for a folder, an entry
 * "<path>\n<bytes>\n<content>". */
int sw_tags_print(const sw_tag_job *job, const sw_item *item, const sw_tag *tags, size_t count, sw_buffer *out);
/* What comes before all results: the CSV header, or "". */
const char *sw_tags_head(const sw_tag_job *job);
/* From the journal to the destination: a file, or the files of a folder. */
int sw_tags_publish(void *job);
#endif
