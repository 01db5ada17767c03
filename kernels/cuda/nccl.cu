/* Sums between the devices of several processes: what NCCL carries, our own kernel adds up.
 *
 * As in engine/learn/group.c each process receives all others' values of its own share of the elements, adds them up in the order of the
 * ranks, and the shares go back to all. So a sum has the same bits on every process, in every run, and by way of the host, which
 * NCCL's own all-reduce (whose order follows from the machine's topology) does not promise. As many bytes travel. */
#include "kernels/cuda/nccl.h"
#include "kernels/cuda/operators.cuh"
#include <cstdlib>
#include <cstring>

#ifdef SW_CUDA_EMULATED
static int open_library() { /* its twin is compiled in */
  const char *wanted = getenv("SW_CUDA_EMULATOR_NCCL");
  return wanted && !strcmp(wanted, "off") ? sw_fail("libnccl.so.2 cannot be loaded: SW_CUDA_EMULATOR_NCCL is off") : 0;
}
#else
#include <dlfcn.h>
#include <mutex>

#define X(result, name, parameters, arguments)                                                                                             \
  static result(*loaded_##name) parameters;                                                                                                \
  result name parameters { return loaded_##name arguments; }
extern "C" {
SW_NCCL_FUNCTIONS(X)
}
#undef X
static const struct {
  const char *name;
  void **function;
} functions[] = {
#define X(result, name, parameters, arguments) {#name, (void **)&loaded_##name},
    SW_NCCL_FUNCTIONS(X)
#undef X
};

static int load() {
  void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!library) return sw_fail("libnccl.so.2 cannot be loaded: %s; name its folder in LD_LIBRARY_PATH", dlerror());
  for (const auto &f : functions)
    if (!(*f.function = dlsym(library, f.name))) return sw_fail("libnccl.so.2 has no function %s: 2.7 or newer is needed", f.name);
  return 0;
}
static int open_library() {
  static std::mutex mutex;
  static bool opened;
  std::lock_guard<std::mutex> lock(mutex);
  if (!opened && !load()) opened = true;
  return opened ? 0 : -1;
}
#endif

static int check(ncclResult_t result, const char *what) { return result == ncclSuccess ? 0 : sw_fail("NCCL: %s: %s", what, ncclGetErrorString(result)); }

static constexpr size_t PIECE = 1 << 20; /* floats that are added up at a time */

struct sw_cuda_sums {
  sw_stream stream; /* its own: sums go on beside what the device computes */
  ncclComm_t comm;
  int rank, ranks;
  float *parts; /* [ranks][share of a piece]: the others' values */
};

static size_t share_of(size_t count, int ranks) { return ((count + (size_t)ranks - 1) / (size_t)ranks + 3) / 4 * 4; }

/* own [count] becomes the sum of all ranks' values, in their order; parts [ranks][stride] holds the others'. */
static __global__ void add_parts(int64_t count, int rank, int ranks, const float *parts, int64_t stride, float *own) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = rank == 0 ? own[i] : parts[i];
  for (int r = 1; r < ranks; r++) sum += r == rank ? own[i] : parts[r * stride + i];
  own[i] = sum;
}

int sw_cuda_sums_id(char id[SW_COLLECTIVE_ID]) {
  int version;
  ncclUniqueId unique = {};
  static_assert(sizeof unique == SW_COLLECTIVE_ID, "an id travels whole");
  if (open_library() || check(ncclGetVersion(&version), "asking its version")) return -1;
  if (version < 2700) return sw_fail("libnccl.so.2 is too old: 2.7 or newer is needed"); /* numbered 2 7 00 until 2.8, 2 09 00 later */
  if (!id) return 0;
  if (check(ncclGetUniqueId(&unique), "making an id")) return -1;
  memcpy(id, &unique, sizeof unique);
  return 0;
}

void sw_cuda_sums_close(sw_cuda_sums *s) {
  if (!s) return;
  const cudaStream_t stream = (cudaStream_t)s->stream.handle;
  if (stream) cudaStreamSynchronize(stream);
  if (s->comm) ncclCommDestroy(s->comm);
  if (s->parts) cudaFree(s->parts);
  if (stream) cudaStreamDestroy(stream);
  free(s);
}

static int open_sums(sw_cuda_sums *s, const char id[SW_COLLECTIVE_ID]) {
  ncclUniqueId unique;
  cudaStream_t stream = nullptr;
  memcpy(&unique, id, sizeof unique);
  /* first what waits for the others: they would wait for ever for a process that had failed before */
  if (sw_cuda_choose(s->stream.device) || check(ncclCommInitRank(&s->comm, s->ranks, unique, s->rank), "joining the other processes") ||
      sw_cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "opening a stream"))
    return -1;
  s->stream.handle = stream;
  return sw_cuda_check(cudaMalloc((void **)&s->parts, (size_t)s->ranks * share_of(PIECE, s->ranks) * sizeof(float)), "allocating memory for sums");
}
int sw_cuda_sums_open(sw_device *device, const char id[SW_COLLECTIVE_ID], int rank, int ranks, sw_cuda_sums **out) {
  sw_cuda_sums *s = static_cast<sw_cuda_sums *>(calloc(1, sizeof *s));
  *out = nullptr;
  if (!s) return sw_fail("out of memory");
  s->stream.device = device;
  s->rank = rank;
  s->ranks = ranks;
  if (open_sums(s, id)) {
    sw_cuda_sums_close(s);
    return -1;
  }
  *out = s;
  return 0;
}
cudaStream_t sw_cuda_sums_stream(const sw_cuda_sums *s) { return (cudaStream_t)s->stream.handle; }

int sw_cuda_sums_add(sw_cuda_sums *s, float *values, size_t count) {
  const cudaStream_t stream = (cudaStream_t)s->stream.handle;
  if (sw_cuda_choose(s->stream.device)) return -1;
  for (size_t at = 0; at < count; at += PIECE) {
    const size_t here = count - at < PIECE ? count - at : PIECE, share = share_of(here, s->ranks);
    const auto begin = [&](int r) { return (size_t)r * share < here ? (size_t)r * share : here; };
    const auto length = [&](int r) { return begin(r + 1) - begin(r); };
    float *from = values + at, *own = from + begin(s->rank);
    for (int back = 0; back < 2; back++) { /* the values to whom they belong; their sums to all */
      if (check(ncclGroupStart(), "sending gradients")) return -1;
      for (int r = 0; r < s->ranks; r++) {
        if (r == s->rank) continue;
        const size_t given = length(back ? s->rank : r), taken = length(back ? r : s->rank);
        if (given && check(ncclSend(back ? own : from + begin(r), given, ncclFloat32, r, s->comm, stream), "sending gradients")) return -1;
        if (taken && check(ncclRecv(back ? from + begin(r) : s->parts + (size_t)r * share, taken, ncclFloat32, r, s->comm, stream), "sending gradients"))
          return -1;
      }
      if (check(ncclGroupEnd(), "sending gradients")) return -1;
      if (!back && sw_launch(&s->stream, "sum of gradients", add_parts, dim3(sw_blocks((int64_t)length(s->rank), 256)), dim3(256), 0,
                             (int64_t)length(s->rank), s->rank, s->ranks, (const float *)s->parts, (int64_t)share, own))
        return -1;
    }
  }
  return 0;
}

int sw_cuda_sums_gather(sw_cuda_sums *s, void *all, size_t bytes) {
  char *const parts = (char *)all;
  if (!bytes) return 0;
  if (sw_cuda_choose(s->stream.device) || check(ncclGroupStart(), "gathering rows")) return -1;
  for (int r = 0; r < s->ranks; r++)
    if (r != s->rank && (check(ncclSend(parts + (size_t)s->rank * bytes, bytes, ncclInt8, r, s->comm, sw_cuda_sums_stream(s)), "gathering rows") ||
                         check(ncclRecv(parts + (size_t)r * bytes, bytes, ncclInt8, r, s->comm, sw_cuda_sums_stream(s)), "gathering rows")))
      return -1;
  return check(ncclGroupEnd(), "gathering rows");
}
