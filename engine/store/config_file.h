/* --config FILE: options from a JSON object. Keys are the options' long names; a flag is true or false, a number a number, a text a text, and
 * an option that may be repeated a list of texts. */
#ifndef SW_STORE_CONFIG_FILE_H
#define SW_STORE_CONFIG_FILE_H
#include "base/options.h"

/* sw_options_parse that understands --config FILE; the command line wins. Texts of the file stay for the program's life. An unknown key and a
 * value of another type are wrong usage: the message names file and key. */
int sw_config_parse(const sw_command *command, int argc, char **argv, sw_list *operands);
#endif
