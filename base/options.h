/* Command-line options from one table: parsing, --help and error messages come from the same rows. */
#ifndef SW_BASE_OPTIONS_H
#define SW_BASE_OPTIONS_H

typedef enum { SW_OPTION_FLAG, SW_OPTION_INT, SW_OPTION_DOUBLE, SW_OPTION_TEXT, SW_OPTION_LIST } sw_option_type;

typedef struct {
  int count;
  const char **items; /* points into argv; owned, release with sw_list_close */
} sw_list;

typedef struct {
  const char *name;  /* without the dashes */
  char letter;       /* 0 = none */
  sw_option_type type;
  void *value;       /* int* (flag, int), double*, const char **, sw_list * ; holds the default before parsing */
  const char *argument; /* "FILE", "N" … ; NULL for a flag */
  const char *help;
} sw_option;

typedef struct {
  const char *usage;    /* "skillwatch infer tag -m CHECKPOINT POSTINGS... [options]" */
  const char *summary;  /* one or more lines */
  const char *example;  /* shown by --help */
  const sw_option *options; /* ended by name == NULL */
} sw_command;

/* Parses argv[1..]; what is no option goes to `operands` (after "--" everything does; "-" is an operand).
 * "--x value", "--x=value", "-x value" and "--no-x" (for flags) are understood.
 * Returns 0; 1 after --help, --help=json ({"name": "flag|int|double|text|list"}) or --version was printed to stdout; -1 with sw_error set on wrong usage. */
int sw_options_parse(const sw_command *command, int argc, char **argv, sw_list *operands);
/* The same, and --config FILE is understood: `read` sets the options that `given` (one flag a row of options) does not have from the command
 * line. Programs call sw_config_parse (engine/store/config_file.h), which brings a reader of JSON. */
typedef int (*sw_config_reader)(const sw_command *command, const char *path, const char *given);
int sw_options_parse_with(const sw_command *command, sw_config_reader read, int argc, char **argv, sw_list *operands);
/* The option whose name is most like `name`, a slip in every three letters at most, or part of it; NULL for none. */
const sw_option *sw_option_near(const sw_command *command, const char *name);
/* Damerau-Levenshtein distance (with swaps of neighbours) of two short words. */
int sw_word_distance(const char *a, const char *b);
int sw_list_append(sw_list *list, const char *item);
void sw_list_close(sw_list *list);

/* Exit statuses (DESIGN: command line). */
enum { SW_EXIT_DONE = 0, SW_EXIT_FAILED = 1, SW_EXIT_USAGE = 2, SW_EXIT_GATE = 3, SW_EXIT_AGAIN = 75 };
/* Prints "skillwatch: <sw_error()>" to stderr and returns `status`. */
int sw_exit_message(int status);
/* What every main() does: runs `body` and returns its exit status, or 1 with a message where what it printed did not reach standard
 * output. */
int sw_program(int argc, char **argv, int (*body)(int argc, char **argv));
#endif
