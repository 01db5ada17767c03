/* Every operator by itself, at the shapes of real models.
 *
 * A case is what one call of an operator works on: tensors, with what fills them and whether they are read or written, the multiply-adds
 * that the mathematics asks for, and the call. sw_make_<operator> (operators_*.c) makes the cases of an operator, one a variant; SW_OPERATOR_LIST collects
 * them, so that an operator without a maker does not compile.
 *
 * Bytes are those that have to move at least: every input once, every result once (twice where it is added to); tables by the rows that are
 * used; no workspaces. Multiply-adds are those of the matrix products; attention's backward has five of them (S is made again, because
 * only its row sums are kept), of which forward has two; contrastive has four (its S is made twice, too).
 *
 * Time. A sample is a number of calls one behind the other in the device's queue, then one wait, divided by the number: so a GPU's launches
 * overlap with its work and only a call shorter than its launches (some microseconds) shows them. Calls take turns on copies of the tensors
 * that are together larger than caches. Repeated calls see the values that earlier ones left: makers choose values that stay what they
 * are in kind (no infinities, no subnormal numbers). */
#include "tools/bench/cases.h"
#include "base/progress.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_COPIES = 64, MAX_CALLS = 1000, BLOCK = 1 << 18 };

/* --- every operator; those that only say how much memory is wanted have nothing to measure --- */
#define sw_make_embedding_workspace NULL
#define sw_make_layernorm_workspace NULL
#define sw_make_linear_weight_bytes NULL
#define sw_make_linear_workspace NULL
#define sw_make_attention_workspace NULL
#define sw_make_gru_workspace NULL
#define sw_make_contrastive_workspace NULL
#define sw_make_neighbours_workspace NULL
#define sw_make_umap_layout_workspace NULL
#define sw_make_umap_ranks_workspace NULL
#define sw_make_lda_workspace NULL
#define sw_make_kmeans_workspace NULL
static const struct {
  const char *name;
  make *make;
} makers[] = {
#define X(operator) {#operator, sw_make_##operator},
    SW_OPERATOR_LIST(X)
#undef X
};

/* --- device memory of a case --- */
typedef struct {
  sw_device *device;
  int copies;
  void *tensors[MAX_COPIES][MAX_TENSORS];
  int64_t turns[MAX_COPIES];
  int next;
} memory;

static void release(const op_case *c, memory *m) {
  for (int k = 0; k < m->copies; k++)
    for (int i = 0; i < c->count; i++)
      if (m->tensors[k][i] && (!k || !(c->tensors[i].use & SHARED))) m->device->release(m->device, m->tensors[k][i]);
  *m = (memory){.device = m->device};
}

/* A block of values, over and over. */
static int fill_tensor(sw_stream *stream, const tensor *t, void *to) {
  static float drawn[BLOCK], values[BLOCK];
  static sw_bf16 halves[BLOCK];
  static int have_drawn;
  sw_device *device = stream->device;
  if (t->fill == NOTHING) return 0;
  if (t->fill == ZERO) return device->zero(stream, to, t->bytes);
  if (t->fill == GIVEN) return device->copy_in(stream, to, t->given, t->bytes);
  sw_random random = {.seed = 6};
  for (; have_drawn < BLOCK; have_drawn++) drawn[have_drawn] = 3.4641016f * (sw_random_float(&random) - 0.5f); /* deviation 1 */
  const size_t element = sw_dtype_bytes(t->dtype), count = t->bytes / element < BLOCK ? t->bytes / element : BLOCK;
  for (size_t i = 0; i < count; i++) {
    const float x = drawn[i];
    values[i] = t->fill == CONSTANT ? t->scale : t->fill == SQUARES ? t->scale * t->scale * x * x : t->scale * x;
    if (t->dtype == SW_BF16) halves[i] = sw_f32_to_bf16(values[i]);
  }
  for (size_t at = 0, here; at < t->bytes; at += here) {
    here = t->bytes - at < BLOCK * element ? t->bytes - at : BLOCK * element;
    if (device->copy_in(stream, (char *)to + at, t->dtype == SW_BF16 ? (const void *)halves : values, here)) return -1;
  }
  return 0;
}

static int provide(sw_stream *stream, size_t spread, const op_case *c, memory *m) {
  size_t bytes = 1;
  for (int i = 0; i < c->count; i++)
    if (!(c->tensors[i].use & SHARED)) bytes += c->tensors[i].bytes;
  const size_t wanted = spread / bytes + 1;
  *m = (memory){.device = stream->device};
  for (size_t k = 0; k < wanted && k < MAX_COPIES; k++) {
    m->copies++;
    for (int i = 0; i < c->count; i++) {
      const tensor *t = &c->tensors[i];
      if (k && t->use & SHARED) {
        m->tensors[k][i] = m->tensors[0][i];
        continue;
      }
      if (!(m->tensors[k][i] = m->device->alloc(m->device, t->bytes ? t->bytes : 1)) || fill_tensor(stream, t, m->tensors[k][i])) return -1;
    }
    if (c->prepare && c->prepare(stream, c, m->tensors[k], 0)) return -1;
  }
  return m->device->synchronize(stream);
}

/* --- time --- */
static int sample(sw_stream *stream, const op_case *c, memory *m, long calls, double *seconds) {
  const double start = sw_clock();
  for (long i = 0; i < calls; i++) {
    const int k = m->next;
    m->next = (k + 1) % m->copies;
    if (c->run(stream, c, m->tensors[k], m->turns[k]++)) return -1;
  }
  if (m->device->synchronize(stream)) return -1;
  *seconds = (sw_clock() - start) / (double)calls;
  return 0;
}

enum { ENOUGH_SAMPLES = 3, ENOUGH_SECONDS = 2 }; /* slow calls need fewer samples */

static int measure(sw_bench *b, const char *what, const char *model, sw_dtype dtype, const op_case *c, double *best) {
  memory m;
  double seconds[SW_BENCH_SAMPLES] = {0}, one = 0, spent = 0;
  int samples = 0, status = provide(&b->stream, b->spread, c, &m);
  if (!status) status = sample(&b->stream, c, &m, 1, &one); /* warms up */
  if (!status) status = sample(&b->stream, c, &m, 1, &one);
  const double wanted = b->sample_seconds / (one > 0 ? one : 1e-9);
  const long calls = wanted < 1 ? 1 : wanted > MAX_CALLS ? MAX_CALLS : (long)wanted;
  while (!status && samples < b->samples && (samples < ENOUGH_SAMPLES || spent < ENOUGH_SECONDS)) {
    status = sample(&b->stream, c, &m, calls, &seconds[samples]);
    spent += seconds[samples++] * (double)calls;
  }
  release(c, &m);
  if (!status)
    status = sw_bench_add(b, &(sw_bench_row){.what = what, .model = model, .shape = c->shape, .dtype = dtype, .seconds = seconds,
                                             .samples = samples, .calls = calls, .bytes = c->bytes, .macs = c->macs});
  if (best) *best = seconds[0];
  return status;
}

static void close_case(op_case *c) {
  for (int i = 0; i < c->num_owned; i++) free(c->owned[i]);
}

/* --- the device's limits --- */
static int measure_copy(sw_bench *b) {
  op_case c = {0};
  double best;
  sw_cast_case(&c, b->quick ? 1 << 12 : (int64_t)1 << 26, SW_F32, SW_F32);
  snprintf(c.shape, sizeof c.shape, "%lld KiB to as many", (long long)c.cast.count / 256);
  if (measure(b, "copy", "-", SW_F32, &c, &best)) return -1;
  b->copy = c.bytes / best;
  return 0;
}
/* The best of square products, each twice as wide as the one before until one takes a quarter of a second. */
static int measure_peak(sw_bench *b, sw_dtype dtype) {
  double peak = 0, best = 0;
  for (int side = b->largest < 512 ? b->largest : 512; side <= b->largest && best < 0.25; side *= 2) {
    const sw_bench_shape shape = {.hidden = side, .intermediate = side};
    sw_bench square = *b;
    square.sequences = 1;
    square.lengths[0] = side;
    op_case c = {0};
    const int status = sw_make_linear_forward(&square, &shape, dtype, 3, &c) < 1 || measure(b, "matrix product", "-", dtype, &c, &best) ? -1 : 0;
    close_case(&c);
    if (status) return -1;
    if (c.macs / best > peak) peak = c.macs / best;
  }
  b->peak[dtype] = peak;
  return 0;
}

/* 1 where `name` is to be measured; with NULL: -1 where a name that was asked for is no operator's. */
static int wanted(const sw_bench *b, const char *name) {
  for (int i = 0; name && i < b->only->count; i++)
    if (!strcmp(name, b->only->items[i])) return 1;
  if (name) return !b->only->count;
  for (int i = 0; i < b->only->count; i++) {
    size_t k = 0;
    while (k < sizeof makers / sizeof *makers && (!makers[k].make || strcmp(makers[k].name, b->only->items[i]))) k++;
    if (k == sizeof makers / sizeof *makers) return sw_fail("--operator %s is not known; without it the table lists all", b->only->items[i]);
  }
  return 0;
}

int sw_bench_operators(sw_bench *b) {
  if (wanted(b, NULL) < 0) return -1;
  if (measure_copy(b) || measure_peak(b, SW_F32) || measure_peak(b, SW_BF16)) return -1;
  for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
    for (int s = 0; makers[i].make && wanted(b, makers[i].name) && s < b->num_shapes; s++)
      for (int d = SW_F32; d <= SW_BF16; d++)
        for (int variant = 0, made = 1; made; variant++) {
          op_case *c = sw_alloc(sizeof *c);
          if (!c) return -1;
          made = makers[i].make(b, &b->shapes[s], (sw_dtype)d, variant, c);
          if (made > 0 && measure(b, makers[i].name, c->any_model ? "-" : b->shapes[s].name, (sw_dtype)d, c, NULL)) made = -1;
          close_case(c);
          free(c);
          if (made < 0) return sw_fail_in("%s, %s, %s", makers[i].name, b->shapes[s].name, sw_dtype_name((sw_dtype)d));
        }
  return 0;
}
