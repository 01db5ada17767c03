/* The operators' test harness itself: a harness that lets NaN, a stray write or an unstable result pass proves nothing. */
#include "tests/support/kernel_test.h"

#include <string.h>

static int wrong;
/* The checks since the last call must have failed (or not). Their messages go to stderr: they are expected. */
static void expect(kt *t, int failing, const char *what) {
  if ((t->failed > 0) != failing) {
    fprintf(stderr, "WRONG: %s: %ld checks failed\n", what, t->failed);
    wrong = 1;
  }
  t->failed = 0;
}

/* a kernel's stray write, which AddressSanitizer shall not report here */
static __attribute__((no_sanitize("address"), noinline)) void write_byte(char *p) { *(volatile char *)p = 1; }

static double square(const double *x, void *argument) { return x[0] * x[0] + 3 * x[1]; }
typedef struct {
  kt_tensor *x;
  int mode;
} job;
static void run(kt *t, void *argument) {
  job *j = argument;
  j->x->host[1] += 1; /* accumulates upon what is there */
  double kept = j->x->host[1];
  kt_download(t, j->x);
  j->x->host[1] += j->mode == 0 ? 1 : j->mode == 1 ? t->stream.threads : kept;
  kt_upload(t, j->x);
}

int main(void) {
  kt t;
  if (kt_open(&t, 1, (char *[]){"kernel_test"})) return 1;
  kt_tensor *x = kt_new(&t, "x", SW_F32, 3), *h = kt_new(&t, "h", SW_BF16, 3), *same = kt_new(&t, "same", SW_F32, 3);
  double one[3] = {1, 1, 1}, off[3] = {1, 1.5, 1}, nan[3] = {1, NAN, 1}, infinite[3] = {1, INFINITY, 1};

  kt_compare(&t, "never written", x, one, 1, 1), expect(&t, 1, "new memory is NaN in fp32");
  kt_compare(&t, "never written", h, one, 1, 1), expect(&t, 1, "new memory is NaN in bf16");
  kt_fill(&t, x, 1);
  kt_compare(&t, "equal", x, one, 0, 0), expect(&t, 0, "equal values");
  kt_compare(&t, "off", x, off, 0.1, 0.1), expect(&t, 1, "a difference of 0.5");
  kt_compare(&t, "off", x, off, 0, 0.5), expect(&t, 0, "a difference within the tolerance");
  kt_compare(&t, "NaN wanted", x, nan, 1, 1), expect(&t, 1, "a number where NaN is wanted");
  kt_compare(&t, "infinity wanted", x, infinite, 1, 1), expect(&t, 1, "a number where infinity is wanted");
  kt_compare_host(&t, "NaN got", nan, one, 3, 1, 1), expect(&t, 1, "NaN where a number is wanted");
  kt_compare_host(&t, "NaN got and wanted", nan, nan, 3, 0, 0), expect(&t, 0, "NaN where it is wanted");
  kt_compare_host(&t, "infinity", infinite, infinite, 3, 0, 0), expect(&t, 0, "infinity where it is wanted");

  kt_fill(&t, h, 1.001); /* not a bfloat16 */
  kt_check(&t, h->host[0] == 1, "host %g", h->host[0]), expect(&t, 0, "host values are rounded to the dtype");
  kt_fill(&t, same, 1);
  kt_same_bits(&t, "same", x, same), expect(&t, 0, "same bits");
  same->host[2] = nextafterf(1, 2);
  kt_upload(&t, same);
  kt_same_bits(&t, "one bit", x, same), expect(&t, 1, "one bit of difference");
  kt_same_bits_at(&t, "a part", x, 0, same, 0, 2), expect(&t, 0, "the part before it");

  for (int mode = 0; mode < 3; mode++) {
    kt_fill(&t, x, 1);
    job j = {x, mode};
    kt_with_threads(&t, "threads", run, &j, &x, 1);
    expect(&t, mode != 0, mode == 0 ? "an accumulating result" : mode == 1 ? "a result that follows the threads" : "one that differs between runs");
  }
  double at[2] = {2, 5}, right[2] = {4, 3}, false_gradient[2] = {4, 3.001}, nans[2] = {NAN, 3};
  kt_finite_difference(&t, "right", square, NULL, at, right, 2), expect(&t, 0, "a right gradient");
  kt_finite_difference(&t, "false", square, NULL, at, false_gradient, 2), expect(&t, 1, "a false gradient");
  kt_finite_difference(&t, "NaN", square, NULL, at, nans, 2), expect(&t, 1, "a NaN gradient");
  kt_ok(&t, sw_fail("broken")), expect(&t, 1, "a failing operator");
  kt_fails(&t, sw_fail("row 3 is bad"), "row 3"), expect(&t, 0, "the failure that is wanted");
  kt_fails(&t, sw_fail("row 3 is bad"), "row 4"), expect(&t, 1, "another failure");
  kt_fails(&t, 0, ""), expect(&t, 1, "no failure");

  kt_clear(&t), expect(&t, 0, "whole guards");
  for (int after = 0; after <= 1; after++) {
    kt_tensor *guarded = kt_new(&t, "guarded", SW_BF16, 5);
    write_byte(after ? (char *)guarded->data + guarded->bytes : (char *)guarded->data - 1);
    kt_clear(&t), expect(&t, 1, after ? "a write behind the end" : "a write before the start");
  }
  int status = kt_close(&t);
  kt empty;
  if (kt_open(&empty, 1, (char *[]){"kernel_test"})) return 1;
  if (!kt_close(&empty)) wrong = 1, fprintf(stderr, "WRONG: no checks at all is a pass\n");
  return status || wrong;
}
