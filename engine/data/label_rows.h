/* Inside of labels.h: rows as they are parsed, and where they are gathered before layers and tags get their numbers. */
#ifndef SW_DATA_LABEL_ROWS_H
#define SW_DATA_LABEL_ROWS_H
#include "engine/data/labels.h"
#include "engine/data/rejects.h"
#include "engine/data/window.h"

#include <jansson.h>

enum { SW_MAX_LAYERS = 256, SW_MAX_TYPES = 1024, SW_MAX_NAME = 200 };

typedef struct {
  char kind; /* 'O', 'B', 'I' */
  uint32_t type_bytes;
  const char *type; /* not NUL-terminated; lives as long as what the row was parsed from */
} sw_raw_tag;

/* One row; reused from row to row. */
typedef struct {
  sw_buffer text;
  sw_spans words;
  size_t num_columns;
  char (*names)[SW_MAX_NAME + 1]; /* [SW_MAX_LAYERS]: layer of each column */
  sw_raw_tag *tags;               /* [num_columns][words.count] */
  size_t tag_capacity;
  double weight;
  int from_spans; /* covers all layers that the file's spans name */
} sw_raw_row;

typedef struct {
  char *name;
  size_t num_types;
  char **types;      /* "" = the nameless type */
  int32_t (*ids)[2]; /* [num_types]: label of B and I; -1 where the fixed layers lack it */
  int32_t outside;   /* label of "O" */
  uint32_t rank;     /* position in the result */
} sw_raw_layer;

typedef struct {
  char *text;
  size_t bytes, num_words;
  sw_span *words;
  size_t num_layers;
  uint32_t *layers; /* [num_layers], raw numbers */
  int32_t *tags;    /* [num_layers][num_words]: 0 = O, 1 + 2 * type = B, 2 + 2 * type = I */
  float weight;
  uint32_t file;
  uint64_t line;
  int from_spans;
} sw_raw_example;

typedef struct {
  sw_raw_layer layers[SW_MAX_LAYERS];
  size_t num_layers;
  int fixed;
  sw_raw_example *examples;
  size_t num_examples, capacity;
  sw_buffer skipped; /* names of layers left out */
  size_t repaired;
  sw_rejects rejects;
  /* of the file that is being read */
  const char *path;
  uint32_t file;
  double weight;
  size_t rows, rejected;
  unsigned char covered[SW_MAX_LAYERS]; /* layers that its spans name */
  uint64_t first_line;                  /* of the first rejected row, for the message */
  char first_reason[320];
  sw_raw_row row;
  char reason[320]; /* why the present row is rejected */
} sw_label_reader;

void sw_raw_example_close(sw_raw_example *example);
/* Sets rows aside that contradict others (labels.h, sw_labels_read_training). */
int sw_labels_settle_conflicts(sw_label_reader *reader, sw_labels *labels);

/* The functions below return 0, -1 on failure, or 1: the row is bad and reader->reason says why. */
int sw_bad_row(sw_label_reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Empties reader->row. */
void sw_row_begin(sw_label_reader *reader);
/* A new column for layer `name`; or, for the label of a span, the column of that label in lower case, new or not. */
int sw_row_column(sw_label_reader *reader, const char *name, size_t bytes, int is_label, size_t *column);
/* Makes room for the tags once all columns and words are there; every tag is 'O'. */
int sw_row_allocate(sw_label_reader *reader);
/* The tags of a column: [words.count]. */
sw_raw_tag *sw_row_tags(sw_label_reader *reader, size_t column);
/* Appends a word to the row's text, behind a space; or, joined, more letters to the last word. */
int sw_row_word(sw_label_reader *reader, const char *word, size_t bytes, int joined);
/* "O", "B", "I", "B-<type>" or "I-<type>"; -1 for anything else, without a message. */
int sw_tag_parse(const char *tag, size_t bytes, sw_raw_tag *out);
/* Numbers the layers and types of the row and stores it. */
int sw_row_commit(sw_label_reader *reader, uint64_t line);
/* Writes a bad row down and counts it. */
int sw_row_reject(sw_label_reader *reader, uint64_t line, const char *row, size_t bytes);

/* Parses one JSON row into reader->row (tokens with tags, or a text with spans). */
int sw_row_from_json(sw_label_reader *reader, json_t *row);
/* The span forms (label_spans.c). */
int sw_row_from_spans(sw_label_reader *reader, json_t *row);
/* Reads a whole CoNLL file; does not close the window. */
int sw_read_conll(sw_label_reader *reader, sw_window *window);
#endif
