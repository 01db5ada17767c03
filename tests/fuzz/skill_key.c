/* Any bytes as a skill's name: no crash, no form too many, keys are UTF-8 and the same when read again. */
#include "base/error.h"
#include "engine/text/skill_key.h"
#include "engine/text/words.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static sw_skill_keys *keys;
  static char first[SW_MOST_FORMS][SW_KEYS][1 << 16];
  if (!keys && sw_skill_keys_open(&keys)) abort();
  for (int kind = SW_FORMS_TERM; kind <= SW_FORMS_TEXT; kind++)
    for (int again = 0; again < 2; again++) {
      const int forms = sw_skill_keys_read(keys, (sw_form_kind)kind, (const char *)data, size);
      if (forms > SW_MOST_FORMS || (forms < 0 && sw_error_is_memory())) abort();
      if (forms > 0 && sw_skill_keys_plain(keys) >= forms) abort();
      for (int f = 0; f < forms; f++)
        for (int k = 0; k < SW_KEYS; k++) {
          const char *key = sw_skill_key(keys, f, (sw_key_kind)k);
          if (!key || sw_check_utf8(key, strlen(key)) || (!*key && k != SW_KEY_SORTED)) abort();
          if (again && strcmp(first[f][k], key)) abort();
          strcpy(first[f][k], key);
        }
    }
  return 0;
}
