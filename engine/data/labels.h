/* Labelled text for token classification, from every format of the README, as one form: words with one tag a layer.
 *
 * Layers: overlapping annotations live in separate layers, each with its own head.
 *   {"tokens", "tags_<layer>": ["B"|"I"|"O" or "B-<type>" ...]}   layer <layer>; "tags" (or "ner_tags", "labels"): layer "tags".
 *       WordPieces are joined to words where a token begins with "##"; a word takes the tag of its first piece
 *   {"text", "spans": [{"start","end","label"}]}   one layer a label, in lower case (offsets are code points); also prodigy's
 *       "answer" (only "accept" is used), doccano's "label"/"labels": [[start,end,label]] and "entities": [{"start_offset",...}]
 *   Label Studio: one array of tasks {"data": {"text"}, "annotations": [{"result": [{"value": {"start","end","labels"}}]}]}, or its
 *       JSON-MIN form; where offsets turn out to count UTF-16 units (the quoted "text" tells), they are converted
 *   CoNLL: "word TAG [TAG2 ...]" lines, blank line between sentences   layer "tags" (then "tags2" ...): the last columns, as many as hold
 *       B/I/O tags; -DOCSTART- and comment lines are skipped
 * Each plain, .gz or .zst; a JSON file holds one row a line or one array. The content decides, the name where that is unclear.
 * In all JSON rows "weight" (a number above 0) multiplies the file's weight.
 * A span covers whole words (sw_split_words), white space at its edges aside; otherwise its row is set aside. A file of spans labels, in
 * all its rows, the layers that any of its spans names; a file of tokens in each row those of that row.
 * White space and '/' in layer names become '_'.
 * An I that continues nothing (after O, or after another type) begins an entity, as seqeval reads it: it is stored as B, and counted.
 * Layers are sorted by name. Tags are numbered within a layer: 0 = "O", then for each type, sorted by name, B-, I-. */
#ifndef SW_DATA_LABELS_H
#define SW_DATA_LABELS_H
#include "engine/text/words.h"
#include <stddef.h>
#include <stdint.h>

enum { SW_IGNORE = -100 };

typedef struct {
  char *name;           /* "knowledge" */
  size_t num_labels;    /* 1 + 2 * types */
  char **labels;        /* "O", "B", "I" for the single nameless type; "O", "B-Tool", "I-Tool" otherwise */
} sw_layer;

typedef struct {
  char *text;           /* the words in their sentence; where the source had words only, joined by one space */
  size_t bytes;
  size_t num_words;
  sw_span *words;
  int32_t *tags;        /* [num_layers][num_words]; SW_IGNORE for a layer that the source does not label */
  float weight;         /* of its file times of its row ("weight"), 1 by default */
  uint32_t file;        /* index of the file it came from */
  uint64_t line;        /* 1-based */
} sw_example;

typedef struct {
  size_t num_layers;
  sw_layer *layers;
  size_t num_examples;
  sw_example *examples;
  size_t rejected;      /* rows set aside */
  size_t num_files;
  struct sw_data_file {
    char *path;           /* without the weight */
    char sha256[65];      /* of the file as it lies on disk */
    size_t rows, rejected; /* rows = usable + rejected */
    double weight;
  } *files;
  size_t repaired;        /* I tags that were stored as B */
  char *skipped_layers;   /* "a, b": layers of the files that fixed_layers lacks; NULL where there are none */
} sw_labels;

/* `inputs`: "path" or "path:weight" (a number above 0); "-" is standard input. Bad rows (broken JSON, tags that do not align, unknown
 * tags, spans outside the text or across words, overlapping spans of one label, empty tokens, invalid UTF-8, NUL, lines above 8 MiB) go
 * to `rejected_path` as {"file","line","reason","row"} JSON lines, and are counted; NULL: counted only. Fails when a file cannot be
 * read or holds no usable row; the rejected rows are written then, too.
 * `fixed_layers` (may be NULL): read into these layers and labels (a checkpoint's heads), in their order. Other layers of a row are left
 * out and named in skipped_layers; a row with none of them, or with a tag that its layer lacks, is rejected. */
int sw_labels_read(const char *const *inputs, size_t count, const char *rejected_path, const sw_labels *fixed_layers, sw_labels *out);
/* As sw_labels_read with the files' own layers. Rows that contradict each other, the same words with other tags in a layer, are set aside but for
 * those whose tags have more weight behind them (of all rows with these words) than any others; duplicates that agree stay. */
int sw_labels_read_training(const char *const *inputs, size_t count, const char *rejected_path, sw_labels *out);
void sw_labels_close(sw_labels *labels);
/* sw_check_output (base/file.h) for such inputs. */
int sw_labels_check_output(const char *output, const char *const *inputs, size_t count);
#endif
