/* Texts with any number of labels each, to train multilabel models on. One of
 *   CSV     a column of texts, and a column of 0 and 1 for each label
 *   JSONL   {"text": "...", "labels": ["a", "b"]}
 * each plain, .gz or .zst. The text is the column or key that is asked for, otherwise "text", otherwise "description" (columns: in small or large
 * letters). The labels are those that are asked for; otherwise, in CSV, the columns, other than the text, that hold 0 or 1 in nine of ten
 * rows (so that one wrong cell costs its row, and not the column), and in JSONL all that occur, sorted by name. With CSV and JSONL in one
 * list, those of the first CSV file. */
#ifndef SW_DATA_LABEL_TABLE_H
#define SW_DATA_LABEL_TABLE_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  size_t num_labels;
  char **labels;
  size_t num_rows;
  struct sw_labelled_text {
    char *text; /* valid UTF-8, not blank */
    size_t bytes;
    uint32_t file;
    uint64_t line; /* 1-based */
  } *rows;
  uint8_t *targets; /* [num_rows][num_labels] 0 or 1 */
  size_t num_files;
  struct sw_label_table_file {
    char *path;
    char sha256[65]; /* of the file as it lies on disk */
    size_t rows, rejected; /* rows = usable + rejected */
  } *files;
  size_t rejected;
} sw_label_table;

/* `text`: name of the column or key, or NULL. `labels`: names of the labels as one record of CSV (a name that holds a comma stands in
 * quotes), or NULL. `fixed` (may be NULL): read into this table's labels. Rows that cannot be used (a cell of a label that is neither 0 nor 1,
 * a label that is not known, a blank text, what postings.h says of rows) go to `rejected_path` with the reason, and are counted; NULL: counted
 * only. Fails where a file cannot be read, lacks a column, or has no usable row. */
int sw_label_table_read(const char *const *inputs, size_t count, const char *text, const char *labels, const sw_label_table *fixed,
                        const char *rejected_path, sw_label_table *out);
void sw_label_table_close(sw_label_table *table);
#endif
