#include "kernels/backend.h"
#include "base/error.h"
#include "base/launch.h"
#include "kernels/module.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef SW_HAVE_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const sw_operators sw_operators_baseline;
#ifdef SW_HAVE_X86
extern const sw_operators sw_operators_avx2, sw_operators_avx512;
#endif
#ifdef SW_HAVE_AMX
sw_attention_workspace_fn sw_attention_workspace_amx;
sw_attention_forward_fn sw_attention_forward_amx;
sw_neighbours_workspace_fn sw_neighbours_workspace_amx;
sw_neighbours_fn sw_neighbours_amx;
sw_linear_weight_bytes_fn sw_linear_weight_bytes_amx;
sw_linear_prepare_fn sw_linear_prepare_amx;
sw_linear_workspace_fn sw_linear_workspace_amx;
sw_linear_forward_fn sw_linear_forward_amx;
sw_linear_backward_input_fn sw_linear_backward_input_amx;
sw_linear_backward_weight_fn sw_linear_backward_weight_amx;
#endif

int sw_unsupported(const sw_device *device, const char *name) {
  return sw_fail("the %s backend has no operator %s", device->backend, name);
}

static void *cpu_alloc(sw_device *device, size_t bytes) { return sw_alloc_aligned(bytes); }
static void cpu_release(sw_device *device, void *memory) { free(memory); }
static int cpu_copy(sw_stream *stream, void *to, const void *from, size_t bytes) {
  if (bytes) memcpy(to, from, bytes);
  return 0;
}
static int cpu_zero(sw_stream *stream, void *memory, size_t bytes) {
  if (bytes) memset(memory, 0, bytes);
  return 0;
}
static int cpu_synchronize(sw_stream *stream) { return 0; }
static void cpu_close(sw_device *device) { free(device); }

enum { MAX_THREADS = 1024, MAX_DEVICES = 1024 };
enum isa { BASELINE, AVX2, AVX512, AMX, ISA_COUNT };
static const char *const isa_names[ISA_COUNT] = {"baseline", "avx2", "avx512", "amx"};

#ifdef SW_HAVE_AMX
/* Linux gives a process the tile registers only when it asks (arch_prctl ARCH_REQ_XCOMP_PERM, feature 18 = tile data). */
static int amx_allowed(void) {
  unsigned a, b, c, d;
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
  if (!(d >> 24 & 1) || !(d >> 22 & 1)) return 0; /* AMX-TILE, AMX-BF16 */
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#endif

static enum isa best_isa(void) {
#ifdef SW_HAVE_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
#ifdef SW_HAVE_AMX
    if (__builtin_cpu_supports("avx512bf16") && amx_allowed()) return AMX;
#endif
    return AVX512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
  return BASELINE;
}

#ifdef SW_HAVE_AMX
/* AVX-512 for everything but matrix products, attention forward and neighbours. */
static sw_operators amx;
static pthread_once_t amx_made = PTHREAD_ONCE_INIT; /* a device may be opened while another computes */
static void make_amx(void) {
  amx = sw_operators_avx512;
  amx.attention_workspace = sw_attention_workspace_amx; /* as large as the AVX-512 backward needs, too */
  amx.attention_forward = sw_attention_forward_amx;
  amx.linear_weight_bytes = sw_linear_weight_bytes_amx;
  amx.linear_prepare = sw_linear_prepare_amx;
  amx.linear_workspace = sw_linear_workspace_amx;
  amx.linear_forward = sw_linear_forward_amx;
  amx.linear_backward_input = sw_linear_backward_input_amx;
  amx.linear_backward_weight = sw_linear_backward_weight_amx;
  amx.neighbours_workspace = sw_neighbours_workspace_amx;
  amx.neighbours = sw_neighbours_amx;
}
#endif

static const sw_operators *operators_of(enum isa isa) {
#ifdef SW_HAVE_AMX
  if (isa == AMX) {
    pthread_once(&amx_made, make_amx);
    return &amx;
  }
#endif
#ifdef SW_HAVE_X86
  if (isa == AVX512) return &sw_operators_avx512;
  if (isa == AVX2) return &sw_operators_avx2;
#endif
  return &sw_operators_baseline;
}

static int cpu_open(sw_device **out) {
  enum isa isa = best_isa();
  const char *wanted = getenv("SKILLWATCH_CPU_ISA");
  if (wanted && *wanted) {
    int i = 0;
    while (i < ISA_COUNT && strcmp(wanted, isa_names[i])) i++;
    if (i == ISA_COUNT) return sw_fail("SKILLWATCH_CPU_ISA=%s: use baseline, avx2, avx512 or amx", wanted);
    if (i > (int)isa) return sw_fail("SKILLWATCH_CPU_ISA=%s: this processor has only %s", wanted, isa_names[isa]);
    isa = (enum isa)i;
  }
  sw_device *device = sw_alloc(sizeof *device);
  if (!device) return -1;
  *device = (sw_device){.backend = "cpu", .operators = operators_of(isa), .alloc = cpu_alloc, .release = cpu_release,
                        .copy_in = cpu_copy, .copy_out = cpu_copy, .zero = cpu_zero, .synchronize = cpu_synchronize, .close = cpu_close};
  snprintf(device->name, sizeof device->name, "cpu (%s)", isa_names[isa]);
  *out = device;
  return 0;
}

/* "cuda:1" -> the module "cuda", device 1. Backends of tests are called cuda-<something>. */
static int parse_module_device(const char *name, char backend[32], int *index) {
  const size_t length = strcspn(name, ":");
  if (strncmp(name, "cuda", 4) || (length > 4 && name[4] != '-') || length > 31 || memchr(name, '/', length))
    return sw_fail("--device %s: unknown device; use auto, cpu or cuda[:N]", name);
  char *end = NULL;
  const long number = name[length] ? strtol(name + length + 1, &end, 10) : 0;
  if (end && (!isdigit((unsigned char)name[length + 1]) || *end || number >= MAX_DEVICES))
    return sw_fail("--device %s: a number is wanted behind the colon; skillwatch devices lists them", name);
  memcpy(backend, name, length);
  backend[length] = 0;
  *index = (int)number;
  return 0;
}

int sw_device_check(const char *name, int threads) {
  char backend[32];
  int index;
  if (threads < 0 || threads > MAX_THREADS) return sw_fail("--threads wants a number from 0 (one a core) to %d", MAX_THREADS);
  return !strcmp(name, "auto") || !strcmp(name, "cpu") ? 0 : parse_module_device(name, backend, &index);
}

/* Of a process that is not told which: the processes of a job on one machine take its devices in turn. */
static int own_device(const sw_module *module) {
  const int count = module->count();
  return count > 0 ? sw_launched()->local_rank % count : 0;
}

static int module_device_open(const char *name, sw_device **out) {
  char backend[32];
  int index;
  if (parse_module_device(name, backend, &index)) return -1;
  const sw_module *module = sw_module_open(backend);
  if (module && !strchr(name, ':')) index = own_device(module);
  return module && !module->open(index, out) ? 0 : sw_fail_in("--device %s", name);
}

int sw_device_open(const char *name, sw_device **out) {
  *out = NULL;
  if (!strcmp(name, "cpu")) return cpu_open(out);
  if (strcmp(name, "auto")) return module_device_open(name, out);
  const sw_module *module = sw_module_open("cuda");
  return module && !module->open(own_device(module), out) ? 0 : cpu_open(out);
}

int sw_device_choose(const char *name, int quiet, sw_device **out) {
  static int told;
  if (sw_device_open(name, out)) return -1;
  if (!quiet && !told++ && !strcmp(name, "auto") && !strcmp((*out)->backend, "cpu") && sw_module_installed("cuda"))
    fprintf(stderr, "skillwatch: the CPU is used, no GPU: %s (--device cpu asks for none)\n", sw_error());
  return 0;
}

void sw_device_close(sw_device *device) {
  if (device) device->close(device);
}

int sw_collect(sw_stream *stream) { return stream->device->collect ? stream->device->collect(stream) : 0; }
int sw_submit(sw_stream *stream, int status) {
  if (!stream->device->submit) return status;
  return stream->device->submit(stream, !status) ? -1 : status;
}

int sw_stream_open(sw_device *device, int threads, sw_stream *out) {
  if (threads <= 0) threads = sw_launch_threads();
  if (threads > MAX_THREADS) return sw_fail("--threads %d is too many (at most %d)", threads, MAX_THREADS);
  *out = (sw_stream){.device = device, .threads = threads, .handle = device->stream};
  return 0;
}
