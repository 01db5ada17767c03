#include "base/options.h"
#include "base/error.h"
#include "base/file.h"
#include "base/launch.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int sw_list_append(sw_list *list, const char *item) {
  const char **items = sw_realloc_array(list->items, (unsigned long)list->count + 1, sizeof *items);
  if (!items) return -1;
  list->items = items;
  list->items[list->count++] = item;
  return 0;
}

void sw_list_close(sw_list *list) {
  free(list->items);
  *list = (sw_list){0};
}

static const char config_help[] = "options from a JSON object {\"option\": value, ...}; those of the command line win";

static void print_default(const sw_option *o) {
  if (strstr(o->help, "(else: ")) return; /* the text says it */
  if (o->type == SW_OPTION_INT) printf(" [%d]", *(int *)o->value);
  if (o->type == SW_OPTION_DOUBLE) printf(" [%g]", *(double *)o->value);
  if (o->type == SW_OPTION_TEXT && *(const char **)o->value) printf(" [%s]", *(const char **)o->value);
}

static void print_help(const sw_command *command, int with_config) {
  printf("usage: %s\n\n%s\n", command->usage, command->summary);
  if (command->example) printf("\nexample:\n  %s\n", command->example);
  printf("\noptions:\n");
  for (const sw_option *o = command->options; o->name; o++) {
    char left[64];
    snprintf(left, sizeof left, "%c%c%s--%s %s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
             o->argument ? o->argument : "");
    printf("  %-30s %s", left, o->help);
    print_default(o);
    putchar('\n');
  }
  if (with_config) printf("  %-30s %s\n", "    --config FILE", config_help);
  printf("  %-30s %s\n", "-h, --help", "show this text");
}

/* What programs that start this one check their own settings by; names need no quoting. */
static void print_json(const sw_command *command) {
  static const char *const types[] = {[SW_OPTION_FLAG] = "flag", [SW_OPTION_INT] = "int", [SW_OPTION_DOUBLE] = "double", [SW_OPTION_TEXT] = "text", [SW_OPTION_LIST] = "list"};
  putchar('{');
  for (const sw_option *o = command->options; o->name; o++) printf("%s\"%s\": \"%s\"", o == command->options ? "" : ", ", o->name, types[o->type]);
  puts("}");
}

static int set_value(const sw_option *o, const char *text) {
  char *end;
  errno = 0;
  switch (o->type) {
  case SW_OPTION_INT: {
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < INT_MIN || v > INT_MAX) return sw_fail("--%s wants a whole number, not '%s'", o->name, text);
    *(int *)o->value = (int)v;
    return 0;
  }
  case SW_OPTION_DOUBLE: {
    double v = strtod(text, &end);
    if (errno || end == text || *end || v != v) return sw_fail("--%s wants a number, not '%s'", o->name, text);
    *(double *)o->value = v;
    return 0;
  }
  case SW_OPTION_TEXT: *(const char **)o->value = text; return 0;
  case SW_OPTION_LIST: return sw_list_append(o->value, text);
  case SW_OPTION_FLAG: break;
  }
  return sw_fail("--%s takes no value", o->name);
}

int sw_word_distance(const char *a, const char *b) {
  enum { MOST = 32 };
  int rows[MOST + 1][MOST + 1] = {{0}}, n = (int)strlen(a), m = (int)strlen(b);
  if (n > MOST || m > MOST) return MOST;
  for (int i = 0; i <= n; i++)
    for (int j = 0; j <= m; j++) {
      if (!i || !j) {
        rows[i][j] = i + j;
        continue;
      }
      int best = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      if (rows[i - 1][j] + 1 < best) best = rows[i - 1][j] + 1;
      if (rows[i][j - 1] + 1 < best) best = rows[i][j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && rows[i - 2][j - 2] + 1 < best)
        best = rows[i - 2][j - 2] + 1;
      rows[i][j] = best;
    }
  return rows[n][m];
}

const sw_option *sw_option_near(const sw_command *command, const char *name) {
  const sw_option *near = NULL;
  int least = ((int)strlen(name) + 1) / 3 + 1;
  for (const sw_option *o = command->options; o->name; o++) {
    int far = sw_word_distance(name, o->name);
    if (strlen(name) > 3 && strstr(o->name, name) && far >= least) far = least - 1; /* "tokens" for batch-tokens */
    if (far >= least) continue;
    least = far;
    near = o;
  }
  return near;
}

static int unknown_option(const sw_command *command, const char *arg, size_t length) {
  char name[64];
  snprintf(name, sizeof name, "%.*s", (int)length, arg);
  const sw_option *near = length > 4 && length < sizeof name ? sw_option_near(command, name + 2) : NULL;
  if (near) return sw_fail("unknown option '%.*s'; did you mean --%s? (see --help)", (int)length, arg, near->name);
  return sw_fail("unknown option '%.*s' (see --help)", (int)length, arg);
}

/* given[row]: set where the command line has the option. config NULL: no --config. */
static int parse_line(const sw_command *command, int argc, char **argv, sw_list *operands, char *given, const char **config) {
  const sw_option config_option = {"config", 0, SW_OPTION_TEXT, config, "FILE", config_help};
  int only_operands = 0;
  for (int i = 1; i < argc; i++) {
    const char *arg = argv[i];
    if (only_operands || arg[0] != '-' || !arg[1]) {
      if (sw_list_append(operands, arg)) return -1;
      continue;
    }
    if (!strcmp(arg, "--")) {
      only_operands = 1;
      continue;
    }
    if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
      print_help(command, config != NULL);
      return 1;
    }
    if (!strcmp(arg, "--help=json")) {
      print_json(command);
      return 1;
    }
    if (!strcmp(arg, "--version")) {
      puts("skillwatch " SW_VERSION);
      return 1;
    }
    const char *value = NULL;
    size_t length = strlen(arg);
    int negated = 0;
    const sw_option *o = command->options;
    if (arg[1] == '-') {
      const char *equals = strchr(arg, '=');
      if (equals) {
        length = (size_t)(equals - arg);
        value = equals + 1;
      }
      for (; o->name; o++) {
        if (strlen(o->name) == length - 2 && !memcmp(o->name, arg + 2, length - 2)) break;
        if (o->type == SW_OPTION_FLAG && length > 5 && !memcmp(arg, "--no-", 5) && strlen(o->name) == length - 5 &&
            !memcmp(o->name, arg + 5, length - 5)) {
          negated = 1;
          break;
        }
      }
    } else {
      while (o->name && (!o->letter || o->letter != arg[1])) o++;
      if (o->name && arg[2]) value = arg + 2;
    }
    if (!o->name && config && length == 8 && !memcmp(arg, "--config", 8))
      o = &config_option;
    else if (!o->name)
      return unknown_option(command, arg, length);
    else
      given[o - command->options] = 1;
    if (o->type == SW_OPTION_FLAG) {
      if (value) return sw_fail("--%s takes no value", o->name);
      *(int *)o->value = !negated;
      continue;
    }
    if (!value) {
      if (i + 1 >= argc) return sw_fail("--%s wants a value: --%s %s", o->name, o->name, o->argument);
      value = argv[++i];
    }
    if (set_value(o, value)) return -1;
  }
  return 0;
}

int sw_options_parse_with(const sw_command *command, sw_config_reader read, int argc, char **argv, sw_list *operands) {
  size_t count = 0;
  while (command->options[count].name) count++;
  char *given = sw_alloc_array(count, 1);
  const char *config = NULL;
  int status = given ? parse_line(command, argc, argv, operands, given, read ? &config : NULL) : -1;
  if (!status && config) status = read(command, config, given);
  free(given);
  return status;
}

int sw_options_parse(const sw_command *command, int argc, char **argv, sw_list *operands) {
  return sw_options_parse_with(command, NULL, argc, argv, operands);
}

int sw_exit_message(int status) {
  const sw_launch *launch = sw_launched();
  if (status == SW_EXIT_USAGE && launch->rank) {
    sleep(2); /* what is wrong with the command line of all is the first process's to say: it ends this one meanwhile */
    sw_fail_in("process %d of %d", launch->rank + 1, launch->size);
  }
  fprintf(stderr, "skillwatch: %s\n", sw_error());
  return status;
}

int sw_program(int argc, char **argv, int (*body)(int argc, char **argv)) {
  signal(SIGXFSZ, SIG_IGN); /* a file size limit should be a message, not a death */
  sw_temporary_remove_at_signals();
  int status = body(argc, argv);
  errno = 0;
  int lost = fflush(stdout) || ferror(stdout);
  if (!lost) lost = fclose(stdout) && errno != EBADF; /* closed from the start, and nothing was printed */
  if (!lost || status != SW_EXIT_DONE) return status;
  sw_fail("cannot write to standard output: %s", errno ? strerror(errno) : "write error");
  return sw_exit_message(SW_EXIT_FAILED);
}
