#include "engine/store/config_file.h"
#include "base/error.h"
#include "engine/store/json.h"

#include <limits.h>
#include <string.h>

static json_t *kept; /* all files read: options point into their texts */

static int wrong(const char *path, const sw_option *o, const char *wanted) {
  return sw_fail("%s: \"%s\" should be %s", path, o->name, wanted);
}

static int set_list(const char *path, const sw_option *o, const json_t *value) {
  static const char wanted[] = "a list of texts: [\"...\"]";
  size_t i;
  const json_t *item;
  if (!json_is_array(value)) return wrong(path, o, wanted);
  json_array_foreach(value, i, item) {
    if (!json_is_string(item)) return wrong(path, o, wanted);
    if (sw_list_append(o->value, json_string_value(item))) return -1;
  }
  return 0;
}

static int set_value(const char *path, const sw_option *o, const json_t *value) {
  switch (o->type) {
  case SW_OPTION_FLAG:
    if (!json_is_boolean(value)) return wrong(path, o, "true or false");
    *(int *)o->value = json_is_true(value);
    return 0;
  case SW_OPTION_INT:
    if (!json_is_integer(value) || json_integer_value(value) < INT_MIN || json_integer_value(value) > INT_MAX)
      return wrong(path, o, "a whole number");
    *(int *)o->value = (int)json_integer_value(value);
    return 0;
  case SW_OPTION_DOUBLE:
    if (!json_is_number(value)) return wrong(path, o, "a number");
    *(double *)o->value = json_number_value(value);
    return 0;
  case SW_OPTION_TEXT:
    if (!json_is_string(value)) return wrong(path, o, "a text");
    *(const char **)o->value = json_string_value(value);
    return 0;
  case SW_OPTION_LIST: return set_list(path, o, value);
  }
  return 0;
}

static int read_config(const sw_command *command, const char *path, const char *given) {
  json_t *file = sw_json_read(path, 1 << 20);
  if (!file) return -1;
  if (!kept) kept = json_array();
  if (!kept || json_array_append_new(kept, file)) return sw_fail_memory("%s cannot be kept", path);
  if (!json_is_object(file)) return sw_fail("%s should hold one JSON object: {\"option\": value, ...}", path);
  const char *key;
  json_t *value;
  json_object_foreach(file, key, value) {
    const sw_option *o = command->options;
    while (o->name && strcmp(o->name, key)) o++;
    if (!o->name) {
      const sw_option *near = sw_option_near(command, key);
      return near ? sw_fail("%s: \"%s\" is no option of this command; did you mean \"%s\"? (see --help)", path, key, near->name)
                  : sw_fail("%s: \"%s\" is no option of this command (see --help)", path, key);
    }
    if (!given[o - command->options] && set_value(path, o, value)) return -1;
  }
  return 0;
}

int sw_config_parse(const sw_command *command, int argc, char **argv, sw_list *operands) {
  return sw_options_parse_with(command, read_config, argc, argv, operands);
}
