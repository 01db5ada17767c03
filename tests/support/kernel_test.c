#include "tests/support/kernel_test.h"
#include "base/progress.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KT_ASAN 1
#endif
#endif
#ifdef KT_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { GUARD = 256 }; /* bytes on either side; a multiple of 64 keeps the alignment */
static const unsigned char guard_byte = 0xa5;

static void die(const char *what) {
  fprintf(stderr, "kernel_test: %s: %s\n", what, sw_error());
  exit(1);
}
static void *host_alloc(size_t bytes) {
  void *p = calloc(bytes ? bytes : 1, 1);
  if (!p) {
    sw_fail("out of memory for %zu bytes", bytes);
    die("host memory");
  }
  return p;
}

int kt_open(kt *t, int argc, char **argv) {
  *t = (kt){0};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--bench")) {
      t->bench = 1;
    } else if (!strcmp(argv[i], "-v")) {
      t->verbose = 1;
    } else {
      fprintf(stderr, "usage: %s [--bench] [-v]\n", argv[0]);
      return 2;
    }
  }
  const char *backend = getenv("SW_TEST_BACKEND"), *seed = getenv("SW_TEST_SEED"), *isa = getenv("SKILLWATCH_CPU_ISA");
  if (sw_device_open(backend && *backend ? backend : "cpu", &t->device)) {
    /* a known instruction set that this machine lacks is a skip; every other failure is one */
    int lacking = isa && (!strcmp(isa, "avx2") || !strcmp(isa, "avx512") || !strcmp(isa, "amx"));
    fprintf(stderr, "%s: %s\n", lacking ? "skipped" : "failed", sw_error());
    return lacking ? 77 : 1;
  }
  if (sw_stream_open(t->device, 2, &t->stream)) die("stream");
  t->seed = seed && *seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
  t->random = (sw_random){.seed = t->seed, .stream = 0x7e57};
  printf("%s, SW_TEST_SEED=%llu\n", t->device->name, (unsigned long long)t->seed);
  return 0;
}

int kt_close(kt *t) {
  kt_clear(t);
  sw_device_close(t->device);
  printf("%ld checks, %ld failed\n", t->checks, t->failed);
  return t->failed || !t->checks;
}

int kt_run(int argc, char **argv, void (*tests)(kt *t), void (*bench)(kt *t)) {
  kt t;
  const int status = kt_open(&t, argc, argv);
  if (status) return status;
  (t.bench ? bench : tests)(&t);
  return kt_close(&t);
}

void kt_case(kt *t, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(t->context, sizeof t->context, format, arguments);
  va_end(arguments);
  if (t->verbose) printf("- %s\n", t->context);
}

/* --- random numbers --- */
double kt_random(kt *t) { return (sw_random_u32(&t->random) + 0.5) * 0x1p-32; }
int kt_below(kt *t, int n) { return (int)sw_random_below(&t->random, (uint32_t)n); }
double kt_random_normal(kt *t) { return sqrt(-2 * log(kt_random(t))) * cos(6.283185307179586 * kt_random(t)); }

/* --- tensors --- */
static int on_cpu(const kt *t) { return !strcmp(t->device->backend, "cpu"); }
static int emulated(const kt *t) { return !strcmp(t->device->backend, "cuda-emulated"); }
int kt_small(const kt *t) { return emulated(t) || getenv("SW_TEST_SMALL") != NULL; }

/* The emulator lets AddressSanitizer watch the ends of its allocations itself: reads beyond them are seen too. */
static size_t guard_of(const kt *t) {
#ifdef KT_ASAN
  if (emulated(t)) return 0;
#endif
  return GUARD;
}
static void to_host(const kt *t, void *host, const void *memory, size_t bytes, const char *name) {
  sw_stream stream = t->stream;
  if (t->device->copy_out(&stream, host, memory, bytes) || t->device->synchronize(&stream)) die(name);
}

/* AddressSanitizer then also sees a kernel that only reads a guard. */
static void poison(kt *t, kt_tensor *x, int on) {
#ifdef KT_ASAN
  if (!on_cpu(t)) return;
  if (on) {
    ASAN_POISON_MEMORY_REGION(x->block, GUARD);
    ASAN_POISON_MEMORY_REGION(x->block + GUARD + x->bytes, GUARD);
  } else {
    ASAN_UNPOISON_MEMORY_REGION(x->block, 2 * GUARD + x->bytes);
  }
#endif
}

kt_tensor *kt_bytes(kt *t, const char *name, size_t bytes) {
  kt_tensor *x = host_alloc(sizeof *x);
  snprintf(x->name, sizeof x->name, "%s", name);
  x->bytes = bytes;
  const size_t guard = guard_of(t);
  x->block = t->device->alloc(t->device, bytes + 2 * guard);
  if (!x->block) die(name);
  x->data = x->block + guard;
  unsigned char *image = host_alloc(bytes + 2 * guard);
  memset(image, guard_byte, bytes + 2 * guard);
  memset(image + guard, 0xff, bytes);
  if (t->device->copy_in(&t->stream, x->block, image, bytes + 2 * guard)) die(name);
  free(image);
  poison(t, x, 1);
  x->next = t->tensors;
  t->tensors = x;
  return x;
}
kt_tensor *kt_new(kt *t, const char *name, sw_dtype dtype, int64_t count) {
  kt_tensor *x = kt_bytes(t, name, (size_t)count * sw_dtype_bytes(dtype));
  x->dtype = dtype;
  x->count = count;
  x->host = host_alloc((size_t)count * sizeof(double));
  for (int64_t i = 0; i < count; i++) x->host[i] = NAN;
  return x;
}
double *kt_doubles(kt *t, int64_t count) { /* a tensor without device memory, so that kt_clear frees it too */
  kt_tensor *x = host_alloc(sizeof *x);
  x->host = host_alloc((size_t)count * sizeof(double));
  x->next = t->tensors;
  t->tensors = x;
  return x->host;
}
int32_t *kt_int32(kt *t, const char *name, int64_t count, const int32_t *values) {
  kt_tensor *x = kt_bytes(t, name, (size_t)count * 4);
  if (count && t->device->copy_in(&t->stream, x->data, values, x->bytes)) die(name);
  return x->data;
}
int32_t *kt_cu_seqlens(kt *t, int batch, const int32_t *lengths, int64_t *total) {
  int32_t *sums = host_alloc((size_t)(batch + 1) * 4);
  for (int i = 0; i < batch; i++) sums[i + 1] = sums[i] + lengths[i];
  if (total) *total = sums[batch];
  int32_t *device = kt_int32(t, "cu_seqlens", batch + 1, sums);
  free(sums);
  return device;
}

void kt_upload(kt *t, kt_tensor *x) {
  unsigned char *raw = host_alloc(x->bytes);
  for (int64_t i = 0; i < x->count; i++) {
    float f = (float)x->host[i];
    sw_bf16 h = sw_f32_to_bf16(f);
    if (x->dtype == SW_F32)
      memcpy(raw + 4 * i, &f, 4);
    else
      memcpy(raw + 2 * i, &h, 2);
    x->host[i] = x->dtype == SW_F32 ? f : sw_bf16_to_f32(h);
  }
  if (t->device->copy_in(&t->stream, x->data, raw, x->bytes)) die(x->name);
  free(raw);
}
void kt_download(kt *t, kt_tensor *x) {
  unsigned char *raw = host_alloc(x->bytes);
  to_host(t, raw, x->data, x->bytes, x->name);
  for (int64_t i = 0; i < x->count; i++) {
    float f;
    sw_bf16 h;
    if (x->dtype == SW_F32) {
      memcpy(&f, raw + 4 * i, 4);
    } else {
      memcpy(&h, raw + 2 * i, 2);
      f = sw_bf16_to_f32(h);
    }
    x->host[i] = f;
  }
  free(raw);
}
void kt_uniform(kt *t, kt_tensor *x, double low, double high) {
  for (int64_t i = 0; i < x->count; i++) x->host[i] = low + (high - low) * kt_random(t);
  kt_upload(t, x);
}
void kt_normal(kt *t, kt_tensor *x, double mean, double deviation) {
  for (int64_t i = 0; i < x->count; i++) x->host[i] = mean + deviation * kt_random_normal(t);
  kt_upload(t, x);
}
void kt_integers(kt *t, kt_tensor *x, int low, int high) {
  for (int64_t i = 0; i < x->count; i++) x->host[i] = low + kt_below(t, high - low + 1);
  kt_upload(t, x);
}
void kt_fill(kt *t, kt_tensor *x, double value) {
  for (int64_t i = 0; i < x->count; i++) x->host[i] = value;
  kt_upload(t, x);
}

void kt_clear(kt *t) {
  if (t->device && t->device->synchronize(&t->stream)) die("synchronize");
  while (t->tensors) {
    kt_tensor *x = t->tensors;
    t->tensors = x->next;
    if (x->block) {
      const size_t guard = guard_of(t);
      unsigned char *image = host_alloc(x->bytes + 2 * guard);
      poison(t, x, 0);
      to_host(t, image, x->block, x->bytes + 2 * guard, x->name);
      size_t before = 0, after = 0; /* distance of the nearest broken byte */
      for (size_t i = guard; i >= 1; i--) {
        if (image[guard - i] != guard_byte) before = i;
        if (image[guard + x->bytes + i - 1] != guard_byte) after = i;
      }
      free(image);
      kt_check(t, !before && !after, "%s: written outside, %zu bytes %s its %s", x->name, before ? before : after,
               before ? "before" : "beyond", before ? "start" : "end");
      t->device->release(t->device, x->block);
    }
    free(x->host);
    free(x);
  }
}

/* --- checks --- */
int kt_check(kt *t, int holds, const char *format, ...) {
  t->checks++;
  if (holds) return 1;
  if (t->failed++ < 20) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAILED %s%s", t->context, *t->context ? ": " : "");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
  }
  if (getenv("SW_TEST_STOP")) exit(1);
  return 0;
}
int kt_ok(kt *t, int status) { return kt_check(t, status == 0, "returned %d: %s", status, sw_error()); }
int kt_fails(kt *t, int status, const char *part) {
  return kt_check(t, status == -1 && strstr(sw_error(), part), "should fail with \"%s\": returned %d, message \"%s\"", part, status,
                  sw_error());
}

int kt_compare_host(kt *t, const char *what, const double *got, const double *want, int64_t count, double rtol, double atol) {
  double worst = -1, largest = 0; /* error over tolerance; absolute error */
  int64_t where = 0, wrong = 0;
  for (int64_t i = 0; i < count; i++) {
    double error, allowed = atol + rtol * fabs(want[i]);
    if (isfinite(want[i]))
      error = fabs(got[i] - want[i]);
    else
      error = (isnan(want[i]) ? isnan(got[i]) : got[i] == want[i]) ? 0 : INFINITY, allowed = 0;
    double ratio = error == 0 ? 0 : error / allowed; /* an infinity where nothing is allowed */
    if (isnan(ratio)) ratio = INFINITY;
    if (!(error <= allowed)) wrong++;
    if (error > largest || isnan(error)) largest = error;
    if (ratio > worst) worst = ratio, where = i;
  }
  if (t->verbose)
    printf("  %s: largest error %.3g, %.2f of the tolerance at %lld\n", what, largest, worst < 0 ? 0 : worst, (long long)where);
  return kt_check(t, !wrong, "%s: %lld of %lld differ; worst at [%lld]: got %.9g, want %.9g, error %.3g; rtol %.3g atol %.3g", what,
                  (long long)wrong, (long long)count, (long long)where, count ? got[where] : 0, count ? want[where] : 0,
                  count ? fabs(got[where] - want[where]) : 0, rtol, atol);
}
int kt_compare(kt *t, const char *what, kt_tensor *got, const double *want, double rtol, double atol) {
  kt_download(t, got);
  return kt_compare_host(t, what, got->host, want, got->count, rtol, atol);
}
double kt_largest(const double *x, int64_t count) {
  double m = 0;
  for (int64_t i = 0; i < count; i++)
    if (!(fabs(x[i]) <= m)) m = fabs(x[i]);
  return m;
}

static unsigned char *raw_copy(kt *t, const kt_tensor *x) {
  unsigned char *raw = host_alloc(x->bytes);
  to_host(t, raw, x->data, x->bytes, x->name);
  return raw;
}
static int same_bytes(kt *t, const char *what, const unsigned char *a, const unsigned char *b, size_t bytes, size_t element) {
  size_t i = 0;
  while (i < bytes && a[i] == b[i]) i++;
  return kt_check(t, i == bytes, "%s: the bits differ, first at element %zu", what, i / element);
}
int kt_same_bits_at(kt *t, const char *what, const kt_tensor *a, int64_t a_first, const kt_tensor *b, int64_t b_first, int64_t count) {
  size_t element = a->host ? sw_dtype_bytes(a->dtype) : 1;
  if (a->dtype != b->dtype || (size_t)(a_first + count) * element > a->bytes || (size_t)(b_first + count) * element > b->bytes)
    return kt_check(t, 0, "%s: the tensors' types or sizes differ", what);
  unsigned char *x = raw_copy(t, a), *y = raw_copy(t, b);
  int same = same_bytes(t, what, x + (size_t)a_first * element, y + (size_t)b_first * element, (size_t)count * element, element);
  free(x);
  free(y);
  return same;
}
int kt_same_bits(kt *t, const char *what, const kt_tensor *a, const kt_tensor *b) {
  if (a->bytes != b->bytes) return kt_check(t, 0, "%s: %zu and %zu bytes", what, a->bytes, b->bytes);
  return kt_same_bits_at(t, what, a, 0, b, 0, a->host ? a->count : (int64_t)a->bytes);
}

/* The ways in which a device may run the same work: numbers of threads on the CPU, orders of threads in the emulator. */
static const char *set_way(kt *t, int way) {
  static const int threads[] = {1, 1, 2, 3};
  static const char *const names[] = {"1 thread", "1 thread again", "2 threads", "3 threads"};
  static const char *const orders[] = {"forward", "reversed", "random:1", "random:2", "random:3"};
  if (emulated(t)) {
    if (way >= 5) return NULL;
    setenv("SW_CUDA_EMULATOR_ORDER", orders[way], 1);
    return orders[way];
  }
  if (way >= 4) return NULL;
  t->stream.threads = threads[way];
  return names[way];
}

void kt_with_threads(kt *t, const char *what, kt_run_fn *run, void *argument, kt_tensor *const *outputs, int count) {
  int before = t->stream.threads;
  unsigned char **start = host_alloc((size_t)count * sizeof *start), **first = host_alloc((size_t)count * sizeof *first);
  for (int i = 0; i < count; i++) start[i] = raw_copy(t, outputs[i]);
  const char *name;
  for (int way = 0; (name = set_way(t, way)); way++) {
    char label[128];
    for (int i = 0; i < count; i++)
      if (t->device->copy_in(&t->stream, outputs[i]->data, start[i], outputs[i]->bytes)) die(what);
    run(t, argument);
    for (int i = 0; i < count; i++) {
      unsigned char *now = raw_copy(t, outputs[i]);
      if (way == 0) {
        first[i] = now;
        continue;
      }
      snprintf(label, sizeof label, "%s: %s, %s", what, outputs[i]->name, name);
      same_bytes(t, label, first[i], now, outputs[i]->bytes, outputs[i]->host ? sw_dtype_bytes(outputs[i]->dtype) : 1);
      free(now);
    }
  }
  t->stream.threads = before;
  if (emulated(t)) unsetenv("SW_CUDA_EMULATOR_ORDER");
  for (int i = 0; i < count; i++) {
    free(start[i]);
    free(first[i]);
  }
  free(start);
  free(first);
}

void kt_finite_difference(kt *t, const char *what, kt_scalar_fn *f, void *argument, double *x, const double *gradient, int64_t count) {
  enum { SAMPLES = 48 };
  int64_t n = count < SAMPLES ? count : SAMPLES;
  double scale = fmax(kt_largest(gradient, count), 1e-3), worst = 0, got = 0;
  int64_t where = -1;
  for (int64_t s = 0; s < n; s++) {
    int64_t i = n == count ? s : kt_below(t, (int)(count < INT32_MAX ? count : INT32_MAX));
    /* fourth-order differences: truncation h^4, rounding 1e-16 / h */
    double kept = x[i], h = 1e-3 * fmax(1e-1, fabs(kept)), v[4];
    static const int steps[4] = {-2, -1, 1, 2};
    for (int k = 0; k < 4; k++) {
      x[i] = kept + steps[k] * h;
      v[k] = f(x, argument);
    }
    x[i] = kept;
    double difference = (v[0] - 8 * v[1] + 8 * v[2] - v[3]) / (12 * h), error = fabs(difference - gradient[i]);
    if (!(error <= worst) && !isnan(worst)) worst = error, where = i, got = difference; /* NaN stays */
  }
  if (t->verbose) printf("  %s: finite differences within %.3g of a scale of %.3g\n", what, worst, scale);
  kt_check(t, worst <= 1e-6 * scale, "%s: gradient at [%lld] is %.9g, finite differences give %.9g", what, (long long)where,
           where >= 0 ? gradient[where] : 0, got);
}

/* --- benchmarks --- */
double kt_seconds(kt *t, kt_run_fn *run, void *argument) {
  double best = INFINITY, start = sw_clock();
  run(t, argument); /* caches, primitives */
  for (int i = 0; i < 200 && (i < 5 || sw_clock() - start < 0.5); i++) {
    double a = sw_clock();
    run(t, argument);
    if (t->device->synchronize(&t->stream)) die("synchronize");
    best = fmin(best, sw_clock() - a);
  }
  return best;
}

double kt_copy_bandwidth(kt *t) {
  static double known[65];
  int threads = t->stream.threads;
  if (!on_cpu(t) || threads > 64) return 0;
  if (known[threads] > 0) return known[threads];
  int64_t n = (int64_t)256 << 17; /* doubles: half of it is read, half written */
  double *from = host_alloc((size_t)n * 4), *to = host_alloc((size_t)n * 4), best = INFINITY;
  int64_t half = n / 2, piece = half / threads;
  for (int repeat = 0; repeat < 6; repeat++) {
    double a = sw_clock();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int k = 0; k < threads; k++) memcpy(to + k * piece, from + k * piece, (size_t)piece * 8);
    if (repeat) best = fmin(best, sw_clock() - a);
    from[repeat] = to[half - 1] + repeat;
  }
  free(from);
  free(to);
  return known[threads] = (double)(piece * threads) * 16 / best;
}

/* Twelve independent chains hide the latency of the multiply-adds. */
#ifdef __x86_64__
#define KT_FMA_LOOP(name, target_string, type, set, fma)                                                                         \
  static __attribute__((target(target_string), noinline)) float name(long n) {                                                  \
    type a[12], b = set(0.999999f), c = set(1e-7f);                                                                              \
    for (int i = 0; i < 12; i++) a[i] = set((float)i);                                                                           \
    for (long k = 0; k < n; k++) {                                                                                               \
      _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = fma(a[i], b, c);                                              \
    }                                                                                                                            \
    for (int i = 1; i < 12; i++) a[0] = fma(a[i], b, a[0]);                                                                      \
    float out[sizeof(type) / 4];                                                                                                 \
    memcpy(out, &a[0], sizeof out);                                                                                              \
    return out[0];                                                                                                               \
  }
KT_FMA_LOOP(fma_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps)
KT_FMA_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)
#define KT_MUL_ADD_SSE(a, b, c) _mm_add_ps(_mm_mul_ps(a, b), c)
KT_FMA_LOOP(fma_baseline, "sse2", __m128, _mm_set1_ps, KT_MUL_ADD_SSE)
#endif
double kt_fma_peak(kt *t) {
#ifdef __x86_64__
  static double known[65];
  int threads = t->stream.threads, lanes = 4;
  float (*loop)(long) = fma_baseline;
  if (!on_cpu(t) || threads > 64) return 0;
  if (known[threads] > 0) return known[threads];
  if (strstr(t->device->name, "avx512") || strstr(t->device->name, "amx"))
    loop = fma_avx512, lanes = 16;
  else if (strstr(t->device->name, "avx2"))
    loop = fma_avx2, lanes = 8;
  long n = 2000000;
  double best = INFINITY;
  volatile float sink = 0;
  for (int repeat = 0; repeat < 4; repeat++) {
    double a = sw_clock();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int k = 0; k < threads; k++) sink = loop(n);
    best = fmin(best, sw_clock() - a);
  }
  (void)sink;
  return known[threads] = (double)n * 12 * 2 * lanes * threads / best;
#else
  return 0;
#endif
}
void kt_report(kt *t, const char *what, double seconds, double flops, double bytes) {
  printf("%-44s %2d threads %10.1f us", what, t->stream.threads, seconds * 1e6);
  if (flops > 0) printf("  %8.1f GFLOP/s (fp32 FMA peak %.1f)", flops / seconds * 1e-9, kt_fma_peak(t) * 1e-9);
  if (bytes > 0) printf("  %7.1f GB/s (copy %.1f)", bytes / seconds * 1e-9, kt_copy_bandwidth(t) * 1e-9);
  printf("\n");
  fflush(stdout);
}
