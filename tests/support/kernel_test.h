/* What every operator's test is written with: a backend, seeded guarded tensors, comparisons that NaN cannot pass.
 *
 *   int main(int argc, char **argv) {
 *     kt t;
 *     int status = kt_open(&t, argc, argv);     // 77 where the machine lacks what the test needs
 *     if (status) return status;
 *     kt_tensor *x = kt_new(&t, "x", SW_BF16, 7 * 33), *y = kt_new(&t, "y", SW_F32, 7);
 *     kt_normal(&t, x, 0, 1);                   // x->host: the values as bf16 holds them, x->data: on the device
 *     kt_ok(&t, SW_RUN(&t.stream, op_forward, &desc, x->data, y->data));
 *     kt_compare(&t, "y", y, reference, 1e-6, 1e-6);
 *     kt_clear(&t);                             // checks every guard, frees every tensor
 *     return kt_close(&t);
 *   }
 *
 * Environment: SW_TEST_BACKEND (default cpu; cuda, cuda-emulated), SW_TEST_SEED (default: the time; printed), SKILLWATCH_CPU_ISA,
 * SW_TEST_SMALL=1 (fewer of the large cases), SW_TEST_STOP=1 (the first failure ends the test).
 * Arguments: --bench (t.bench = 1), -v (prints the largest error of every comparison).
 * The harness itself exits with status 1 when memory or the device fails: it is never linked into a program. */
#ifndef SW_TESTS_KERNEL_TEST_H
#define SW_TESTS_KERNEL_TEST_H
#include "base/error.h"
#include "base/philox.h"
#include "kernels/backend.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Device memory between guards. New memory is all 0xff bytes: NaN in both dtypes, -1 as int32. Owned by the kt. */
typedef struct kt_tensor {
  char name[48];
  sw_dtype dtype;
  int64_t count;
  double *host; /* [count] the values in double, exactly as the dtype holds them; NULL for raw bytes */
  void *data;   /* device memory, 64-byte aligned */
  size_t bytes;
  char *block; /* the device allocation around it */
  struct kt_tensor *next;
} kt_tensor;

typedef struct {
  sw_device *device;
  sw_stream stream; /* 2 threads unless the test says otherwise */
  uint64_t seed;
  sw_random random;
  int bench, verbose;
  long checks, failed;
  char context[96]; /* printed before every failure; see kt_case */
  kt_tensor *tensors;
} kt;

/* All of a test's main: opens, runs `tests`, or with --bench `bench`, closes; the exit status. */
int kt_run(int argc, char **argv, void (*tests)(kt *t), void (*bench)(kt *t));
/* 0, or the status with which main should return: 77 = skipped, 1 = failed. */
int kt_open(kt *t, int argc, char **argv);
/* Checks the guards, frees everything, prints "N checks, N failed"; the exit status. No checks at all is a failure. */
int kt_close(kt *t);
/* Checks the guards and frees all tensors made so far. */
void kt_clear(kt *t);
/* 1 where large cases would take too long: in the emulator, and under tools that are as slow (SW_TEST_SMALL). */
int kt_small(const kt *t);
/* Names the case that follows: "bf16 hidden 33". */
void kt_case(kt *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- random numbers --- */
double kt_random(kt *t);            /* [0, 1) */
int kt_below(kt *t, int n);         /* [0, n) */
double kt_random_normal(kt *t);     /* mean 0, deviation 1 */

/* --- tensors --- */
kt_tensor *kt_new(kt *t, const char *name, sw_dtype dtype, int64_t count);
kt_tensor *kt_bytes(kt *t, const char *name, size_t bytes); /* workspaces and the like; ->data */
/* int32 on the device, e.g. cu_seqlens, labels, indices */
int32_t *kt_int32(kt *t, const char *name, int64_t count, const int32_t *values);
/* cu_seqlens from lengths, on the device; *total (may be NULL) = their sum */
int32_t *kt_cu_seqlens(kt *t, int batch, const int32_t *lengths, int64_t *total);
/* Fill host and device. Integers are whole numbers in [low, high]. */
void kt_uniform(kt *t, kt_tensor *x, double low, double high);
void kt_normal(kt *t, kt_tensor *x, double mean, double deviation);
void kt_integers(kt *t, kt_tensor *x, int low, int high);
void kt_fill(kt *t, kt_tensor *x, double value);
/* After writing x->host: rounds it to the dtype and copies it to the device. */
void kt_upload(kt *t, kt_tensor *x);
/* Device to x->host. */
void kt_download(kt *t, kt_tensor *x);
/* Zeroed host doubles that kt_clear frees: room for references. */
double *kt_doubles(kt *t, int64_t count);

/* --- checks: each counts one, prints one line when it fails and returns 1 when it holds --- */
int kt_check(kt *t, int holds, const char *format, ...) __attribute__((format(printf, 3, 4)));
int kt_ok(kt *t, int status); /* an operator's return value: prints sw_error() where it is not 0 */
/* The call must fail, with a message that contains `part`. */
int kt_fails(kt *t, int status, const char *part);
/* |got - want| <= atol + rtol |want| everywhere; NaN and infinities must be where `want` has them. Downloads `got`. */
int kt_compare(kt *t, const char *what, kt_tensor *got, const double *want, double rtol, double atol);
int kt_compare_host(kt *t, const char *what, const double *got, const double *want, int64_t count, double rtol, double atol);
int kt_same_bits(kt *t, const char *what, const kt_tensor *a, const kt_tensor *b);
/* `count` elements of a from a_first and of b from b_first: one sequence alone against the same one in a batch */
int kt_same_bits_at(kt *t, const char *what, const kt_tensor *a, int64_t a_first, const kt_tensor *b, int64_t b_first, int64_t count);
/* Largest |x|, for absolute tolerances that follow the scale. */
double kt_largest(const double *x, int64_t count);

/* Runs with 1, 1, 2 and 3 threads (in the emulator: with threads in forward, reversed and three random orders); before each run the outputs
 * are as they were at the call; all must agree bit for bit. */
typedef void kt_run_fn(kt *t, void *argument);
void kt_with_threads(kt *t, const char *what, kt_run_fn *run, void *argument, kt_tensor *const *outputs, int count);

/* Central differences of f around x against `gradient`, at up to 48 elements drawn at random; within 1e-6 of the gradient's scale
 * unless f is not smooth there. x is changed and put back. */
typedef double kt_scalar_fn(const double *x, void *argument);
void kt_finite_difference(kt *t, const char *what, kt_scalar_fn *f, void *argument, double *x, const double *gradient, int64_t count);

/* --- --bench --- */
/* Best of several runs, in seconds. */
double kt_seconds(kt *t, kt_run_fn *run, void *argument);
/* One line: GFLOP/s and GB/s (whichever is not 0) beside the limits measured on this machine with the same thread count. */
void kt_report(kt *t, const char *what, double seconds, double flops, double bytes);
/* Bytes read plus written a second by a parallel copy of 256 MiB. */
double kt_copy_bandwidth(kt *t);
/* fp32 multiply-adds * 2 a second in registers with the widest instruction set in use; 0 where unknown. */
double kt_fma_peak(kt *t);
#endif
