/* Linear layers: fp32 as accurate as a plain fp32 loop; the same bits for a row alone and in any batch, with any number of threads and
 * from several workers of one process. */
#include "tests/kernels/linear_layer.h"
#include <pthread.h>
#include <string.h>

/* --- fp32 must be as accurate as fp32 multiply-adds --- */

typedef enum { NORMAL, POSITIVE, WIDE, CANCELLING, LARGE } data_kind;
static const char *const data_names[] = {"normal", "positive", "wide range", "cancelling", "near the largest"};
static double draw(kt *t, data_kind kind) {
  double v = normal_value(t);
  if (kind == POSITIVE) return fabs(v);
  if (kind == WIDE) return v * exp2(40 * kt_random(t) - 20);
  if (kind == LARGE) return (v < 0 ? -1 : 1) * (0x1.fffffep127 - kt_random(t) * 0x1p121);
  return v;
}
/* Largest and root mean square error in units of 2^-24 times the sum of magnitudes, of sums over k of a[m * ka + k *
 * sa] b[...]. */
typedef struct {
  double largest, mean;
} accuracy;
static accuracy accuracy_of(const double *got, const double *want, const double *scale, int64_t count) {
  accuracy a = {0, 0};
  for (int64_t i = 0; i < count; i++) {
    double e = fabs(got[i] - want[i]) / (scale[i] * unit);
    if (!(e <= a.largest)) a.largest = e;
    a.mean += e * e;
  }
  a.mean = sqrt(a.mean / (double)count);
  return a;
}
/* c[m][n] = sum over k of a[m][k] b[k][n] with strides: in fp64, in fp32 (multiply-adds, one after the other; `fused`
 * where the instruction set has that), and of the magnitudes. */
static void three_products(int fused, const double *a, int64_t am, int64_t ak, const double *b, int64_t bk, int64_t bn,
                           int64_t m, int64_t n, int64_t k, double *exact, double *plain, double *scale) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0, magnitude = 0;
      float f = 0;
      for (int64_t p = 0; p < k; p++) {
        double u = a[i * am + p * ak], v = b[p * bk + j * bn];
        sum += u * v;
        magnitude += fabs(u * v);
        volatile float uv = (float)u * (float)v; /* volatile: not to be fused by the compiler */
        f = fused ? fmaf((float)u, (float)v, f) : f + uv;
      }
      exact[i * n + j] = sum, plain[i * n + j] = f, scale[i * n + j] = magnitude + 1e-300;
    }
}
static void compare_accuracy(kt *t, const char *what, kt_tensor *got, const double *exact, const double *plain,
                             const double *scale) {
  kt_download(t, got);
  accuracy ours = accuracy_of(got->host, exact, scale, got->count), loop = accuracy_of(plain, exact, scale, got->count);
  if (t->verbose)
    printf("  %-44s %-7s error in 2^-24: largest %.3f (plain fp32 loop %.3f), rms %.4f (%.4f)\n", t->context, what,
           ours.largest, loop.largest, ours.mean, loop.mean);
  /* A few sums, each ruled by a few terms, say little about the largest error. oneDNN adds in an order of its own, whose errors do not
   * cancel where a plain loop's do: up to half a unit in the last place of the sum of magnitudes passes there. */
  int amx = strstr(t->device->name, "amx") != NULL;
  double slack = got->count < 500 || !amx ? 2 : 1;
  kt_check(t, ours.largest <= slack * 1.5 * loop.largest + (amx ? 0.25 : 1), "%s: largest error %.3f, a plain fp32 loop's is %.3f", what,
           ours.largest, loop.largest);
  kt_check(t, ours.mean <= slack * 1.25 * loop.mean + (amx ? 0.05 : 0.2), "%s: rms error %.4f, a plain fp32 loop's is %.4f", what, ours.mean,
           loop.mean);
}
static void test_accuracy(kt *t) {
  int fused = !strstr(t->device->name, "baseline");
  static const int sizes[][3] = {{40, 384, 40}, {16, 1536, 20}, {200, 64, 24}, {48, 24, 64}, {200, 1, 40}, {100, 3, 9}};
  for (int s = 0; s < 6; s++)
    for (int kind = NORMAL; kind <= LARGE; kind++) {
      sw_linear_desc d = {
          .tokens = sizes[s][0], .in_features = sizes[s][1], .out_features = sizes[s][2], .training = 1};
      if (s > 1 && kind > WIDE) continue;
      kt_case(t, "%s %lld x %d -> %d", data_names[kind], (long long)d.tokens, d.in_features, d.out_features);
      layer l = make(t, d, 0, 0);
      double shrink = kind == LARGE ? 0x1p-14 : 1; /* sums of 1536 products stay finite */
      for (int64_t i = 0; i < l.x->count; i++) l.x->host[i] = draw(t, (data_kind)kind);
      for (int64_t i = 0; i < l.weight->count; i++)
        l.weight->host[i] = draw(t, kind == LARGE ? NORMAL : (data_kind)kind) * shrink;
      for (int64_t i = 0; i < l.dy->count; i++)
        l.dy->host[i] = draw(t, kind == LARGE ? NORMAL : (data_kind)kind) * shrink;
      int64_t half = d.in_features / 2;
      for (int64_t k = 0; kind == CANCELLING && k < half;
           k++) { /* the second half of a sum takes nearly all of the first away */
        for (int64_t m = 0; m < d.tokens; m++) {
          double *row = l.x->host + m * d.in_features;
          row[half + k] = -row[k] * (1 + 1e-5 * kt_random(t));
        }
        for (int64_t o = 0; o < d.out_features; o++)
          l.weight->host[o * d.in_features + half + k] = l.weight->host[o * d.in_features + k];
      }
      kt_upload(t, l.x);
      kt_upload(t, l.weight);
      kt_upload(t, l.dy);
      kt_fill(t, l.dweight, 0);
      kt_ok(t, SW_RUN(&t->stream, linear_prepare, &d, l.weight->data, l.prepared->data));
      forward(t, &l);
      if (kind != LARGE) backward_input(t, &l);
      backward_weight(t, &l);
      int64_t m = d.tokens, k = d.in_features, n = d.out_features, most = l.weight->count + l.x->count + l.y->count;
      double *exact = kt_doubles(t, most), *plain = kt_doubles(t, most), *scale = kt_doubles(t, most);
      three_products(fused, l.x->host, k, 1, l.weight->host, 1, k, m, n, k, exact, plain, scale);
      compare_accuracy(t, "y", l.y, exact, plain, scale);
      if (kind != LARGE) {
        three_products(fused, l.dy->host, n, 1, l.weight->host, k, 1, m, k, n, exact, plain, scale);
        compare_accuracy(t, "dx", l.dx, exact, plain, scale);
      }
      three_products(fused, l.dy->host, 1, n, l.x->host, k, 1, n, k, m, exact, plain, scale);
      compare_accuracy(t, "dweight", l.dweight, exact, plain, scale);
      kt_clear(t);
    }
}

/* --- the same bits in any batch and with any number of threads --- */
static void test_invariance(kt *t) {
  /* the last: more tiles than a GPU has multiprocessors */
  static const int sizes[][3] = {{100, 384, 448}, {100, 96, 1536}, {100, 17, 9}, {100, 100, 70}, {3001, 384, 1536}};
  static const int small_pieces[10][2] = {{0, 1},  {1, 1},   {37, 1}, {99, 1},  {0, 16},
                                          {5, 17}, {50, 33}, {3, 97}, {40, 40}, {32, 64}};
  static const int large_pieces[10][2] = {{0, 1},   {3000, 1}, {1700, 1},  {9, 16},    {2900, 101},
                                          {40, 64}, {5, 300},  {1000, 1025}, {300, 2048}, {1, 3000}};
  for (int f = 0; f < (kt_small(t) ? 4 : 5); f++)
    for (int variant = 0; variant < 3; variant++) {
      const int(*pieces)[2] = f == 4 ? large_pieces : small_pieces;
      sw_linear_desc d = {.tokens = sizes[f][0],
                          .in_features = sizes[f][1],
                          .out_features = sizes[f][2],
                          .dtype = (sw_dtype)(variant & 1),
                          .out_dtype = (sw_dtype)(variant & 1),
                          .activation = f == 3 ? SW_TANH : SW_GELU,
                          .training = 1,
                          .quick_gradients = variant == 2};
      kt_case(t, "invariance %s%s %lld x %d -> %d", sw_dtype_name(d.dtype), d.quick_gradients ? " quick" : "", (long long)d.tokens, d.in_features, d.out_features);
      layer l = make(t, d, 1, 1);
      kt_tensor *dy = kt_new(t, "a piece of dy", d.out_dtype, l.dy->count),
                *dx = kt_new(t, "a piece of dx", d.dtype, l.dx->count);
      kt_tensor *y = kt_new(t, "a piece of y", d.out_dtype, l.y->count),
                *pre = kt_new(t, "a piece of pre", d.out_dtype, l.y->count);
      size_t size = sw_dtype_bytes(d.dtype);
      memcpy(dy->host, l.dy->host, (size_t)dy->count * sizeof *dy->host);
      kt_upload(t, dy);
      forward(t, &l);
      backward_input(t, &l);
      for (int p = 0; p < 10; p++) {
        int first = pieces[p][0], count = pieces[p][1];
        size_t in_at = (size_t)first * (size_t)d.in_features * size,
               out_at = (size_t)first * (size_t)d.out_features * size;
        sw_linear_desc one = d;
        one.tokens = count;
        t->stream.threads = 1 + p % 2;
        kt_ok(t, SW_RUN(&t->stream, linear_forward, &one, (char *)l.x->data + in_at, l.prepared->data, l.bias->data,
                        pre->data, y->data, l.workspace->data));
        kt_same_bits_at(t, "y", y, 0, l.y, (int64_t)first * d.out_features, (int64_t)count * d.out_features);
        kt_same_bits_at(t, "pre", pre, 0, l.pre, (int64_t)first * d.out_features, (int64_t)count * d.out_features);
        kt_tensor *piece = kt_new(t, "g", d.out_dtype, (int64_t)count * d.out_features);
        memcpy(piece->host, dy->host + (int64_t)first * d.out_features, (size_t)piece->count * sizeof *piece->host);
        kt_upload(t, piece);
        kt_ok(t, SW_RUN(&t->stream, linear_backward_input, &one, piece->data, (char *)l.pre->data + out_at,
                        l.prepared->data, dx->data, 0, l.workspace->data));
        kt_same_bits_at(t, "dx", dx, 0, l.dx, (int64_t)first * d.in_features, (int64_t)count * d.in_features);
        kt_same_bits_at(t, "g", piece, 0, l.dy, (int64_t)first * d.out_features, piece->count);
      }
      t->stream.threads = 2;
      kt_clear(t);
    }
}
static void test_threads(kt *t) {
  static const int sizes[][3] = {{257, 384, 384}, {100, 128, 1536}, {40, 768, 300}, {700, 96, 9}};
  for (int s = 0; s < 4; s++)
    for (int variant = 0; variant < 3; variant++) {
      sw_linear_desc d = {.tokens = sizes[s][0],
                          .in_features = sizes[s][1],
                          .out_features = sizes[s][2],
                          .dtype = (sw_dtype)(variant & 1),
                          .out_dtype = (sw_dtype)(variant & 1),
                          .activation = SW_GELU,
                          .training = 1,
                          .quick_gradients = variant == 2};
      kt_case(t, "threads %s%s %lld x %d -> %d", sw_dtype_name(d.dtype), d.quick_gradients ? " quick" : "", (long long)d.tokens, d.in_features,
              d.out_features);
      t->stream.threads = 3; /* for the workspace */
      layer l = make(t, d, 1, 1);
      l.accumulate = s % 2;
      kt_with_threads(t, "forward", forward, &l, (kt_tensor *[]){l.y, l.pre}, 2);
      kt_with_threads(t, "backward_input", backward_input, &l, (kt_tensor *[]){l.dy, l.dx}, 2);
      kt_with_threads(t, "backward_weight", backward_weight, &l, (kt_tensor *[]){l.dweight, l.dbias}, 2);
      t->stream.threads = 2;
      kt_clear(t);
    }
}

/* Several workers of one process, each with a stream of one thread and a workspace of its own, share the prepared
 * weight. */
typedef struct {
  layer *l;
  sw_stream stream;
  void *y, *workspace;
  int status;
} worker;
static void *work(void *argument) {
  worker *w = argument;
  for (int i = 0; i < 20 && !w->status; i++)
    w->status = SW_RUN(&w->stream, linear_forward, &w->l->desc, w->l->x->data, w->l->prepared->data, w->l->bias->data,
                       NULL, w->y, w->workspace);
  return NULL;
}
static void test_workers(kt *t) {
  if (!strcmp(t->device->backend, "cuda-emulated")) return; /* the emulator's streams belong to one thread */
  for (int dtype = 0; dtype < 2; dtype++) {
    sw_linear_desc d = {.tokens = 75,
                        .in_features = 130,
                        .out_features = 300,
                        .dtype = (sw_dtype)dtype,
                        .out_dtype = (sw_dtype)dtype,
                        .activation = SW_GELU};
    kt_case(t, "workers %s", sw_dtype_name(d.dtype));
    layer l = make(t, d, 1, 0);
    forward(t, &l);
    pthread_t threads[4];
    worker workers[4];
    kt_tensor *y[4];
    for (int i = 0; i < 4; i++) {
      size_t bytes = 0;
      workers[i] = (worker){.l = &l, .stream = t->stream};
      workers[i].stream.threads = 1;
      kt_ok(t, SW_RUN(&workers[i].stream, linear_workspace, &d, &bytes));
      y[i] = kt_new(t, "y of a worker", d.out_dtype, l.y->count);
      workers[i].y = y[i]->data;
      workers[i].workspace = kt_bytes(t, "workspace of a worker", bytes)->data;
    }
    for (int i = 0; i < 4; i++) kt_check(t, !pthread_create(&threads[i], NULL, work, &workers[i]), "pthread_create");
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++) {
      kt_check(t, workers[i].status == 0, "worker %d returned %d", i, workers[i].status);
      kt_same_bits(t, "y of a worker", y[i], l.y);
    }
    kt_fails(t,
             SW_RUN(&t->stream, linear_backward_input, &d, l.dy->data, l.y->data, l.prepared->data, l.dx->data, 0,
                    l.workspace->data),
             "without training");
    kt_clear(t);
  }
}

int main(int argc, char **argv) {
  kt t;
  int status = kt_open(&t, argc, argv);
  if (status) return status;
  test_accuracy(&t);
  test_invariance(&t);
  test_threads(&t);
  test_workers(&t);
  return kt_close(&t);
}
