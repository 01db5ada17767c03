/* A file that is part of the program, this one, is what lies on the disk. */
#include "base/embedded.h"

#include "tests/support/files.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

SW_EMBEDDED(embedded_itself);

static void the_file(void **state) {
  (void)state;
  size_t bytes = 0;
  char *text = test_read(SW_SOURCE_DIR "/tests/unit/embedded.c", &bytes);
  assert_non_null(text);
  assert_int_equal(embedded_itself_size, bytes);
  assert_memory_equal(embedded_itself, text, bytes + 1);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_file)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
