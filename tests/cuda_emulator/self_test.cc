/* The emulator's own test: broken kernels must be found out, right ones must give the right numbers. */
#include "kernels/cuda/cuda.cuh"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

static int checks, failed;
static cudaStream_t stream;

static void check(bool holds, const char *what, const std::string &detail = "") {
  checks++;
  if (holds) return;
  failed++;
  fprintf(stderr, "FAILED %s %s\n", what, detail.c_str());
}
static void order(const char *name) { setenv("SW_CUDA_EMULATOR_ORDER", name, 1); }

/* Device memory with a copy on the host. */
struct floats {
  std::vector<float> host;
  float *device = nullptr;
  explicit floats(size_t n) : host(n) {
    void *p = nullptr;
    cudaMalloc(&p, n * 4);
    device = (float *)p;
  }
  ~floats() { cudaFree(device); }
  void send() { cudaMemcpyAsync(device, host.data(), host.size() * 4, cudaMemcpyHostToDevice, stream); }
  void fetch() { cudaMemcpyAsync(host.data(), device, host.size() * 4, cudaMemcpyDeviceToHost, stream); }
};

template <class... P, class... A> static void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... a) {
  emu_launch<P...>("kernel under test", kernel, grid, block, shared, stream, a...);
}
/* Synchronises; the message of what went wrong, "" when nothing did. A failed kernel leaves the device unusable: start anew in a child. */
static std::string outcome() { return cudaStreamSynchronize(stream) ? cudaGetErrorString(cudaErrorLaunchFailure) : ""; }

#include <sys/wait.h>
#include <unistd.h>
/* Runs `f` in a child of its own; its message must contain every part. */
template <class F> static void must_fail(const char *what, std::vector<const char *> parts, F f) {
  int ends[2];
  if (pipe(ends)) abort();
  const pid_t child = fork();
  if (!child) {
    f();
    const std::string text = outcome();
    if (write(ends[1], text.c_str(), text.size()) < 0) _exit(3);
    _exit(0);
  }
  close(ends[1]);
  char text[1000] = "";
  size_t n = 0;
  for (ssize_t got; (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;) n += (size_t)got;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  bool all = n > 0;
  for (const char *part : parts) all = all && strstr(text, part);
  check(all, what, text);
}

/* --- kernels --- */
static __global__ void rotate(float *y, bool barrier) { /* y[i] = the number of the next thread, through shared memory */
  SW_SHARED(float, shared, 64);
  shared[threadIdx.x] = (float)threadIdx.x;
  if (barrier) __syncthreads();
  y[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
}
static __global__ void in_step(float *y) { /* a missing barrier between warps that wait for their own lanes only */
  SW_SHARED(float, shared, 64);
  shared[threadIdx.x] = (float)threadIdx.x;
  __syncwarp();
  y[threadIdx.x] = shared[(threadIdx.x + 32) % 64];
}
static __global__ void divergent(float *y) {
  if (threadIdx.x < 32) {
    __syncthreads();
    y[threadIdx.x] = 1;
  } else {
    __syncthreads();
    y[threadIdx.x] = 2;
  }
}
static __global__ void some_leave(float *y) { /* legal: threads that have ended count as arrived */
  if (threadIdx.x >= 48) return;
  __syncthreads();
  y[threadIdx.x] = 1;
}
static __global__ void barrier_in_warp(float *y) {
  if (threadIdx.x % 32 < 16) y[threadIdx.x] = sw_warp_sum(1.0f); /* sixteen lanes never come */
}
static __global__ void wrong_mask(float *y) { y[threadIdx.x] = __shfl_xor_sync(0xffff0000u, 1.0f, 1); }
static __global__ void sums(const float *x, float *y) {
  const float sum = sw_warp_sum(x[threadIdx.x]);
  float largest = x[threadIdx.x];
  for (int step = 16; step; step >>= 1) largest = fmaxf(largest, __shfl_xor_sync(SW_ALL_LANES, largest, step));
  const unsigned odd = __ballot_sync(SW_ALL_LANES, (int)x[threadIdx.x] & 1);
  y[threadIdx.x] = sum;
  y[64 + threadIdx.x] = largest;
  y[128 + threadIdx.x] = (float)__popc(odd);
  y[192 + threadIdx.x] = __shfl_up_sync(SW_ALL_LANES, x[threadIdx.x], 1) + 1000 * __shfl_down_sync(SW_ALL_LANES, x[threadIdx.x], 3, 8);
}
static __global__ void unwritten(float *y) {
  SW_SHARED(float, shared, 32);
  y[threadIdx.x] = shared[threadIdx.x];
}
static __global__ void async_copy(const float *x, float *y, bool wait) {
  SW_DYNAMIC_SHARED(float, shared);
  sw_async_copy16(shared + 4 * threadIdx.x, x + 4 * threadIdx.x, threadIdx.x != 3);
  sw_async_commit();
  if (wait) sw_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = shared[(4 * threadIdx.x + i + 4) % 128];
}
/* C[16][8] = A[16][16] B[16][8] by the tensor cores; A and B^T lie in shared memory, rows of 16 numbers. B comes once as it is for
 * the product (rows of B^T), once as rows of B, transposed on the way. */
static __global__ void tile_product(const float *a, const float *b, float *c) {
  SW_SHARED(sw_bf16, left, 256);
  SW_SHARED(sw_bf16, right, 256);   /* [n][k], n < 8 used */
  SW_SHARED(sw_bf16, right_rows, 256); /* [k][n], 16 wide */
  for (int i = threadIdx.x; i < 256; i += 32) {
    left[i] = sw_from_float<sw_bf16>(a[i]);
    right[i] = sw_from_float<sw_bf16>(i / 16 < 8 ? b[i % 16 * 8 + i / 16] : 0.0f);
    right_rows[i] = sw_from_float<sw_bf16>(i % 16 < 8 ? b[i / 16 * 8 + i % 16] : 0.0f);
  }
  __syncwarp();
  const int lane = threadIdx.x, row = lane % 8, matrix = lane / 8;
  uint32_t fa[4], fb[4], ft[4];
  sw_ldmatrix_x4(fa, left + (row + 8 * (matrix & 1)) * 16 + 8 * (matrix >> 1));
  sw_ldmatrix_x4(fb, right + (row + 8 * (matrix >> 1)) * 16 + 8 * (matrix & 1));
  sw_ldmatrix_x4_transposed(ft, right_rows + (row + 8 * (matrix & 1)) * 16 + 8 * (matrix >> 1));
  float first[4] = {0, 0, 0, 0}, second[4] = {1, 1, 1, 1};
  sw_mma_bf16(first, fa, fb);
  sw_mma_bf16(second, fa, ft);
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) {
    const int at = (g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1);
    c[at] = first[i];
    c[128 + at] = second[i];
  }
}
static __global__ void add_one(float *x) { x[blockIdx.x * blockDim.x + threadIdx.x] += 1; }
[[maybe_unused]] static __global__ void beyond(float *x) { x[64] = 1; }
static __global__ void large_shared(float *y) {
  SW_SHARED(float, shared, 13 * 1024);
  shared[threadIdx.x] = 0;
  y[threadIdx.x] = shared[threadIdx.x];
}
static __global__ void no_shared(float *y) {
  SW_DYNAMIC_SHARED(float, shared);
  y[0] = shared[0];
}

int main() {
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  { /* barriers */
    floats y(64);
    for (const char *name : {"forward", "reversed", "random:1", "random:2"}) {
      order(name);
      launch(rotate, dim3(1), dim3(64), 0, y.device, true);
      y.fetch();
      check(outcome().empty(), "a barrier");
      bool right = true;
      for (int i = 0; i < 64; i++) right = right && y.host[i] == (float)((i + 1) % 64);
      check(right, "shared memory behind a barrier", name);
    }
    bool found = false; /* without it, some order must show */
    for (const char *name : {"forward", "reversed"}) {
      order(name);
      launch(rotate, dim3(1), dim3(64), 0, y.device, false);
      y.fetch();
      for (int i = 0; i < 64; i++) found = found || y.host[i] != (float)((i + 1) % 64);
    }
    check(found, "a missing barrier changes results");
    for (const char *name : {"forward", "reversed"}) {
      order(name);
      launch(in_step, dim3(1), dim3(64), 0, y.device);
      y.fetch();
      check(outcome().empty(), "a barrier of warps only");
      check(std::isnan(y.host[*name == 'f' ? 0 : 32]), "a warp runs ahead of one that it should wait for", name);
    }
    order("forward");
    launch(some_leave, dim3(1), dim3(64), 0, y.device);
    check(outcome().empty(), "threads that end before a barrier");
    must_fail("barriers at two places", {"different barriers", "self_test.cc"}, [&] { launch(divergent, dim3(1), dim3(64), 0, y.device); });
    must_fail("a shuffle that half a warp misses", {"stands still", "__shfl_xor_sync"}, [&] { launch(barrier_in_warp, dim3(1), dim3(64), 0, y.device); });
    must_fail("a shuffle by a lane outside its mask", {"leaves out"}, [&] { launch(wrong_mask, dim3(1), dim3(64), 0, y.device); });
  }
  { /* warp operations */
    floats x(64), y(256);
    for (int i = 0; i < 64; i++) x.host[i] = (float)i;
    x.send();
    launch(sums, dim3(1), dim3(64), 0, x.device, y.device);
    y.fetch();
    check(outcome().empty(), "warp operations");
    bool right = true;
    for (int i = 0; i < 64; i++) {
      const int warp = i / 32, lane = i % 32, down = lane % 8 + 3 < 8 ? i + 3 : i;
      right = right && y.host[i] == (warp ? 1520 : 496) && y.host[64 + i] == (warp ? 63 : 31) && y.host[128 + i] == 16 &&
              y.host[192 + i] == (float)((lane ? i - 1 : i) + 1000 * down);
    }
    check(right, "sums, maxima, ballots and shifts of a warp");
  }
  { /* shared memory and async copies */
    floats x(128), y(128);
    for (int i = 0; i < 128; i++) x.host[i] = (float)i;
    x.send();
    launch(unwritten, dim3(1), dim3(32), 0, y.device);
    y.fetch();
    check(std::isnan(y.host[5]), "shared memory that was not written is NaN");
    for (int wait = 1; wait >= 0; wait--) {
      launch(async_copy, dim3(1), dim3(32), 512, x.device, y.device, wait != 0);
      y.fetch();
      bool right = true, poisoned = true;
      for (int i = 0; i < 128; i++) {
        const int from = (i + 4) % 128;
        right = right && y.host[i] == (from / 4 == 3 ? 0.0f : (float)from);
        poisoned = poisoned && std::isnan(y.host[i]);
      }
      check(wait ? right : poisoned, wait ? "an async copy that was waited for" : "an async copy that was not waited for");
    }
    must_fail("too much static shared memory", {"over the limit"}, [&] { launch(large_shared, dim3(1), dim3(32), 0, y.device); });
    must_fail("dynamic shared memory without any", {"asked for none"}, [&] { launch(no_shared, dim3(1), dim3(1), 0, y.device); });
  }
  { /* tensor cores */
    floats a(256), b(128), c(256);
    for (int i = 0; i < 256; i++) a.host[i] = (float)(i * 7 % 13 - 6);
    for (int i = 0; i < 128; i++) b.host[i] = (float)(i * 5 % 11 - 5);
    a.send();
    b.send();
    launch(tile_product, dim3(1), dim3(32), 0, a.device, b.device, c.device);
    c.fetch();
    check(outcome().empty(), "tensor cores");
    bool right = true;
    for (int m = 0; m < 16; m++)
      for (int n = 0; n < 8; n++) {
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += a.host[m * 16 + k] * b.host[k * 8 + n];
        right = right && c.host[m * 8 + n] == sum && c.host[128 + m * 8 + n] == sum + 1;
      }
    check(right, "a 16 x 8 x 16 product, fragments loaded both ways");
  }
  { /* streams: nothing runs before somebody waits; pageable memory is read at once, pinned memory when the copy runs */
    void *pinned = nullptr, *back = nullptr;
    cudaHostAlloc(&pinned, 64 * 4, 0);
    cudaHostAlloc(&back, 64 * 4, 0);
    float *from = (float *)pinned, *to = (float *)back;
    floats x(64);
    for (int i = 0; i < 64; i++) from[i] = x.host[i] = 1, to[i] = -1;
    cudaMemcpyAsync(x.device, pinned, 64 * 4, cudaMemcpyHostToDevice, stream);
    launch(add_one, dim3(2), dim3(32), 0, x.device);
    cudaMemcpyAsync(back, x.device, 64 * 4, cudaMemcpyDeviceToHost, stream);
    check(to[9] == -1, "results are not there before a wait");
    from[9] = 5;
    cudaStreamSynchronize(stream);
    check(to[9] == 6 && to[8] == 2, "pinned memory is read when the copy runs");
    x.send();
    x.host[9] = 7;
    x.fetch();
    check(x.host[9] == 1, "pageable memory is read at once");
    cudaStream_t other;
    cudaEvent_t event;
    cudaStreamCreateWithFlags(&other, 0);
    cudaEventCreateWithFlags(&event, 0);
    launch(add_one, dim3(2), dim3(32), 0, x.device);
    cudaEventRecord(event, stream);
    cudaStreamWaitEvent(other, event, 0);
    cudaMemcpyAsync(back, x.device, 64 * 4, cudaMemcpyDeviceToHost, other);
    cudaStreamSynchronize(other);
    check(to[9] == 2, "a stream waits for another's event");
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    launch(add_one, dim3(2), dim3(32), 0, x.device);
    cudaStreamEndCapture(stream, &graph);
    cudaGraphInstantiate(&exec, graph, 0);
    for (int i = 0; i < 3; i++) cudaGraphLaunch(exec, stream);
    x.fetch();
    check(x.host[9] == 5, "a captured graph runs as often as it is launched, and not while it is captured");
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaEventDestroy(event);
    cudaStreamDestroy(other);
    cudaFreeHost(pinned);
    cudaFreeHost(back);
  }
  { /* limits */
    floats x(64);
    launch(add_one, dim3(1), dim3(1025), 0, x.device);
    check(cudaGetLastError() == cudaErrorInvalidConfiguration, "1,025 threads are refused");
    launch(add_one, dim3(1, 65536), dim3(1), 0, x.device);
    check(cudaGetLastError() == cudaErrorInvalidConfiguration, "65,536 blocks along y are refused");
    launch(add_one, dim3(1), dim3(1), 200 * 1024, x.device);
    check(cudaGetLastError() == cudaErrorInvalidConfiguration, "200 KiB of shared memory are refused");
    setenv("SW_CUDA_EMULATOR_MEMORY", "1000", 1);
    void *p;
    check(cudaMalloc(&p, 2000) == cudaErrorMemoryAllocation && !p, "a full device");
    cudaGetLastError();
    unsetenv("SW_CUDA_EMULATOR_MEMORY");
    check(cudaMemcpyAsync(x.host.data(), x.host.data(), 4, cudaMemcpyHostToDevice, stream) == cudaErrorInvalidValue, "a copy whose end is not device memory");
    cudaGetLastError();
#ifdef __SANITIZE_ADDRESS__
    for (int kernel = 0; kernel < 2; kernel++) { /* beyond an allocation; on the host */
      const pid_t child = fork();
      if (!child) {
        if (!freopen("/dev/null", "w", stderr)) _exit(0);
        if (kernel) {
          launch(beyond, dim3(1), dim3(1), 0, x.device);
          cudaStreamSynchronize(stream);
        } else {
          volatile float got = x.device[0];
          (void)got;
        }
        _exit(0);
      }
      int status = 0;
      waitpid(child, &status, 0);
      check(!WIFEXITED(status) || WEXITSTATUS(status), kernel ? "a write beyond an allocation" : "the host's hands on device memory");
    }
#endif
  }
  cudaStreamDestroy(stream);
  printf("%d checks, %d failed\n", checks, failed);
  return failed ? 1 : 0;
}
