/* Dropout of a tensor against base/philox.h, number by number; add_rows, exact on whole numbers. */
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  const sw_dropout_desc *desc;
  kt_tensor *x, *y;
} dropout_case;
static void run_dropout(kt *t, void *argument) {
  dropout_case *c = argument;
  kt_ok(t, SW_RUN(&t->stream, dropout, c->desc, c->x->data, c->y->data));
}

static void dropout_of(kt *t, sw_dtype dtype, int64_t count, float p, uint64_t first) {
  kt_case(t, "dropout %s count %lld p %g first %llu", sw_dtype_name(dtype), (long long)count, (double)p, (unsigned long long)first);
  sw_dropout_desc desc = {.count = count, .dtype = dtype, .dropout = {.p = p, .seed = t->seed, .site = 5, .step = 9, .first = first}};
  kt_tensor *x = kt_new(t, "x", dtype, count), *y = kt_new(t, "y", dtype, count);
  kt_normal(t, x, 1, 2);
  double *want = kt_doubles(t, count);
  int64_t kept = 0;
  for (int64_t i = 0; i < count; i++) {
    const uint64_t at = first + (uint64_t)i;
    uint32_t counter[4] = {(uint32_t)(at >> 2), (uint32_t)(at >> 34), 5, 9}, words[4];
    sw_philox(t->seed, counter, words);
    int keep = (double)words[i & 3] >= (double)p * 4294967296.0;
    kept += keep;
    want[i] = keep ? x->host[i] / (1 - (double)p) : 0;
  }
  dropout_case c = {&desc, x, y};
  kt_with_threads(t, "y", run_dropout, &c, (kt_tensor *[]){y}, 1);
  kt_compare(t, "y", y, want, dtype == SW_F32 ? 1e-6 : 0.005, 0);
  if (count > 5000) kt_check(t, fabs((double)kept / (double)count - (1 - (double)p)) < 0.03, "%lld of %lld kept", (long long)kept, (long long)count);
  kt_ok(t, SW_RUN(&t->stream, dropout, &desc, x->data, x->data)); /* in place */
  kt_same_bits(t, "in place", x, y);
  kt_clear(t);
}

static void add_rows(kt *t, int hidden) {
  kt_case(t, "add_rows hidden %d", hidden);
  enum { ROWS = 5, TABLE = 9 };
  const int32_t index[ROWS] = {7, 0, 3, 8, 2};
  sw_add_rows_desc desc = {.rows = ROWS, .hidden = hidden};
  kt_tensor *x = kt_new(t, "x", SW_F32, (int64_t)ROWS * hidden), *y = kt_new(t, "y", SW_F32, (int64_t)TABLE * hidden);
  kt_integers(t, x, -9, 9);
  kt_integers(t, y, -9, 9);
  double *want = kt_doubles(t, y->count);
  memcpy(want, y->host, (size_t)y->count * sizeof *want);
  for (int twice = 0; twice < 2; twice++)
    for (int64_t i = 0; i < x->count; i++) want[index[i / hidden] * hidden + i % hidden] += x->host[i];
  int32_t *at = kt_int32(t, "index", ROWS, index);
  for (int twice = 0; twice < 2; twice++) kt_ok(t, SW_RUN(&t->stream, add_rows, &desc, at, x->data, y->data));
  kt_compare(t, "y", y, want, 0, 0);
  kt_clear(t);
}

int main(int argc, char **argv) {
  kt t;
  int status = kt_open(&t, argc, argv);
  if (status) return status;
  const int64_t counts[] = {0, 1, 3, 15, 64, 1023, 1024, 1025, 40000};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    for (int bf16 = 0; bf16 < 2; bf16++) {
      dropout_of(&t, bf16 ? SW_BF16 : SW_F32, counts[i], 0.1f, 0);
      dropout_of(&t, bf16 ? SW_BF16 : SW_F32, counts[i], 0.0f, 8);
      dropout_of(&t, bf16 ? SW_BF16 : SW_F32, counts[i], 0.75f, ((uint64_t)5 << 32) + 12);
    }
  for (int hidden = 1; hidden < 70; hidden += 17) add_rows(&t, hidden);
  return kt_close(&t);
}
