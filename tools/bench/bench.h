/* What `skillwatch bench` measures on a device itself, without files: every operator by itself, and whole models with random weights. */
#ifndef SW_TOOLS_BENCH_H
#define SW_TOOLS_BENCH_H
#include "base/options.h"
#include "kernels/backend.h"
#include <jansson.h>

enum { SW_BENCH_SAMPLES = 9 };

typedef struct {
  const char *name;
  int hidden, intermediate, heads, layers, vocab, positions;
} sw_bench_shape;

typedef struct {
  sw_stream stream;
  int sequences;       /* of a batch */
  int lengths[2];      /* tokens of a sequence: the usual, and the long one for attention */
  int samples;         /* timings of each row, from 1 to SW_BENCH_SAMPLES */
  double sample_seconds; /* a sample makes calls for about that long */
  size_t spread;       /* bytes: calls take turns on copies of their tensors that together are larger, so that no cache holds them */
  const sw_bench_shape *shapes;
  int num_shapes;
  int largest;         /* side of the largest matrix in the search for the device's peak */
  int quick;           /* tiny sizes for what does not depend on the shapes above, too */
  int print;           /* a table, too */
  const sw_list *only; /* names of operators; none: all, and the models */
  json_t *rows;
  /* this device's limits, measured first: bytes read plus written a second, multiply-adds a second by dtype */
  double copy, peak[2];
} sw_bench;

/* Quick: tiny shapes, one sample, for tests. */
void sw_bench_init(sw_bench *bench, const sw_stream *stream, int quick, int sequences, const sw_list *only, int print, json_t *rows);

/* One row of results. `bytes` and `macs` of one call; 0 where they say nothing. `rate` a second of `unit`, or 0: the row's value is then
 * milliseconds. */
typedef struct {
  const char *what, *model, *shape;
  sw_dtype dtype;
  double *seconds; /* [samples], of one call; sorted by sw_bench_add */
  int samples;
  long calls;      /* of a sample */
  double bytes, macs, per_call;
  const char *unit; /* of per_call; NULL */
} sw_bench_row;
int sw_bench_add(sw_bench *bench, const sw_bench_row *row);

/* Measures the device's limits, then each operator of SW_OPERATOR_LIST that computes. */
int sw_bench_operators(sw_bench *bench);
/* A training step, and embedding of titles, of each model; after the operators, because it compares with the limits. */
int sw_bench_models(sw_bench *bench);
#endif
