/* tool-write_checkpoint PATH COUNT KILOBYTES: writes a checkpoint over PATH again and again (COUNT 0: until it is
 * killed). The n-th one has training {"n": n} and weights that are all n; n is printed once its write has returned. For
 * tests/e2e/test_kill.py. */
#include "base/error.h"
#include "engine/store/checkpoint.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static int write_one(const char *path, int n, int64_t kilobytes) {
  sw_checkpoint c;
  sw_checkpoint_init(&c);
  c.kind = sw_strdup("test");
  c.config = json_pack("{s:s}", "model_type", "test");
  c.training = json_pack("{s:i}", "n", n);
  int status = c.kind && c.config && c.training ? 0 : sw_fail("out of memory");
  for (int i = 0; !status && i < 4; i++) {
    char name[32];
    snprintf(name, sizeof name, "tensor.%d", i);
    sw_tensor *t = sw_tensors_add(&c.weights, name, SW_F32, 2, (int64_t[]){kilobytes, 64});
    if (!t) status = -1;
    for (int64_t k = 0; t && k < sw_tensor_elements(t); k++) ((float *)t->data)[k] = (float)n;
  }
  if (!status) status = sw_checkpoint_write(path, &c);
  sw_checkpoint_close(&c);
  return status;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s PATH COUNT KILOBYTES\n", argv[0]);
    return 2;
  }
  signal(SIGXFSZ, SIG_IGN);
  int count = atoi(argv[2]);
  for (int n = 1; !count || n <= count; n++) {
    if (write_one(argv[1], n, atoi(argv[3]))) {
      fprintf(stderr, "skillwatch: %s\n", sw_error());
      return 1;
    }
    printf("%d\n", n);
    fflush(stdout);
  }
  return 0;
}
