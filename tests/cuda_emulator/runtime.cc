/* The emulator's device: memory, streams, events, graphs. Work put on a stream runs only when somebody waits for it, so that a host
 * that reads a result too early, or changes an input too early, is found out. */
#include "kernels/cuda/cuda.cuh"
#include "tests/cuda_emulator/launch.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(at, bytes) ((void)(at), (void)(bytes))
#define __asan_unpoison_memory_region(at, bytes) ((void)(at), (void)(bytes))
#endif

struct emu_graph {
  std::vector<std::function<void()>> work;
  std::string kinds; /* of its nodes */
};
struct emu_stream {
  std::deque<std::function<void()>> work;
  uint64_t added = 0, done = 0;
  emu_graph *capture = nullptr;
};
struct emu_event {
  emu_stream *stream = nullptr;
  uint64_t place = 0; /* the stream's work before this count */
};

/* SW_CUDA_EMULATOR_GRAPHS=FILE: how many graphs were made executable, updated and launched, written at the end. */
static struct graph_counts {
  int made = 0, updated = 0, launched = 0;
  ~graph_counts() {
    const char *path = getenv("SW_CUDA_EMULATOR_GRAPHS");
    FILE *file = path ? fopen(path, "w") : nullptr;
    if (!file) return;
    fprintf(file, "%d %d %d\n", made, updated, launched);
    fclose(file);
  }
} graph_counts;
static std::set<emu_stream *> streams;
static std::map<char *, size_t> device_memory, pinned_memory;
static size_t device_bytes;
static cudaError_t last_error;
static char error_text[700];
static int running; /* depth of draining: device memory may be touched */

static const size_t LIMIT = (size_t)4 << 30;       /* of the pretended device */
static const size_t POISON_LIMIT = (size_t)32 << 20; /* above it, the host's hands off device memory are not checked: too slow */

static size_t memory_limit() {
  const char *limit = getenv("SW_CUDA_EMULATOR_MEMORY"); /* bytes, for tests of a full device */
  return limit ? strtoull(limit, nullptr, 10) : LIMIT;
}

/* Shared memory that a block may ask for: that of 8.0, or what the variable says, for tests of smaller devices. */
static size_t shared_limit() {
  const char *limit = getenv("SW_CUDA_EMULATOR_SHARED");
  return limit ? strtoull(limit, nullptr, 10) : 163 * 1024;
}

/* The host must not touch device memory: under AddressSanitizer it is poisoned while no work runs. */
static void guard(bool closed) {
  if (device_bytes > POISON_LIMIT && closed) return;
  for (auto &block : device_memory) {
    if (closed)
      __asan_poison_memory_region(block.first, block.second);
    else
      __asan_unpoison_memory_region(block.first, block.second);
  }
}

void emu_set_error(cudaError_t error, const char *format, ...) {
  if (last_error) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  last_error = error;
}
static cudaError_t refuse(cudaError_t error, const char *why) {
  emu_set_error(error, "%s", why);
  return error;
}
cudaError_t cudaGetLastError() {
  cudaError_t error = last_error;
  if (error != cudaErrorLaunchFailure) last_error = cudaSuccess; /* a failed kernel leaves the device unusable, as on the real one */
  return error;
}
const char *cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : error_text; }

/* Runs a stream's work up to a count. */
static void drain(emu_stream *stream, uint64_t until) {
  if (stream->done >= until) return;
  if (!running++) guard(false);
  while (stream->done < until && !stream->work.empty()) {
    std::function<void()> work = std::move(stream->work.front());
    stream->work.pop_front();
    stream->done++;
    if (!last_error) work();
  }
  if (!--running) guard(true);
}
void emu_enqueue(cudaStream_t stream, std::function<void()> work, char kind) {
  if (stream->capture) {
    stream->capture->work.push_back(std::move(work));
    stream->capture->kinds += kind;
    return;
  }
  stream->work.push_back(std::move(work));
  stream->added++;
}
void emu_launch_threads(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, std::function<void()> thread) {
  const std::string problem = emu_launch_problem(grid, block, shared_bytes);
  if (!problem.empty()) {
    emu_set_error(cudaErrorInvalidConfiguration, "%s: %s", name, problem.c_str());
    return;
  }
  std::string kernel(name);
  emu_enqueue(stream, [=] {
    const std::string failed = emu_run_kernel(kernel.c_str(), grid, block, shared_bytes, thread);
    if (!failed.empty()) emu_set_error(cudaErrorLaunchFailure, "%s", failed.c_str());
  });
}

/* --- the device --- */
cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device ? refuse(cudaErrorInvalidValue, "there is one emulated device, 0") : cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = 0, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 0, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  *properties = {};
  snprintf(properties->name, sizeof properties->name, "SIMT emulator");
  properties->totalGlobalMem = memory_limit();
  properties->sharedMemPerBlockOptin = shared_limit();
  properties->major = 8;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *total = memory_limit();
  *free_bytes = *total - device_bytes;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int value) {
  return (size_t)value > shared_limit() ? refuse(cudaErrorInvalidValue, "more dynamic shared memory than a block may have") : cudaSuccess;
}

/* --- memory --- */
cudaError_t cudaMalloc(void **memory, size_t bytes) {
  *memory = nullptr;
  if (device_bytes + bytes > memory_limit()) return refuse(cudaErrorMemoryAllocation, "out of memory");
  char *p = (char *)aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!p) return refuse(cudaErrorMemoryAllocation, "out of memory");
  memset(p, 0xff, (bytes + 255) / 256 * 256);
  __asan_poison_memory_region(p, (bytes + 255) / 256 * 256);
  device_memory[p] = bytes;
  device_bytes += bytes;
  if (!running) guard(true);
  *memory = p;
  return cudaSuccess;
}
cudaError_t cudaFree(void *memory) {
  if (!memory) return cudaSuccess;
  cudaDeviceSynchronize();
  auto found = device_memory.find((char *)memory);
  if (found == device_memory.end()) return refuse(cudaErrorInvalidValue, "cudaFree of memory that cudaMalloc did not give");
  __asan_unpoison_memory_region(memory, (found->second + 255) / 256 * 256);
  device_bytes -= found->second;
  device_memory.erase(found);
  free(memory);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
  char *p = (char *)malloc(bytes ? bytes : 1);
  if (!p) return refuse(cudaErrorMemoryAllocation, "out of memory");
  pinned_memory[p] = bytes;
  *memory = p;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void *memory) {
  cudaDeviceSynchronize();
  pinned_memory.erase((char *)memory);
  free(memory);
  return cudaSuccess;
}
static bool within(const std::map<char *, size_t> &blocks, const void *p, size_t bytes) {
  auto after = blocks.upper_bound((char *)p);
  if (after == blocks.begin()) return false;
  --after;
  return (char *)p + bytes <= after->first + after->second;
}
bool emu_device_memory(const void *p, size_t bytes) { return within(device_memory, p, bytes); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (!bytes) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device != within(device_memory, to, bytes) || from_device != within(device_memory, from, bytes))
    return refuse(cudaErrorInvalidValue, "a copy whose ends are not where its kind says, or not within one allocation");
  if (kind == cudaMemcpyHostToDevice && !within(pinned_memory, from, bytes)) { /* pageable memory is staged before the call returns */
    if (stream->capture) return refuse(cudaErrorInvalidValue, "a copy from pageable memory cannot be captured");
    auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
    emu_enqueue(stream, [=] { memcpy(to, staged->data(), bytes); });
  } else {
    emu_enqueue(stream, [=] { memmove(to, from, bytes); }, 'c');
    if (kind == cudaMemcpyDeviceToHost && !within(pinned_memory, to, bytes)) return cudaStreamSynchronize(stream);
  }
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
  if (!bytes) return cudaSuccess;
  if (!within(device_memory, memory, bytes)) return refuse(cudaErrorInvalidValue, "cudaMemset outside one allocation");
  emu_enqueue(stream, [=] { memset(memory, value, bytes); }, 's');
  return cudaSuccess;
}

/* --- streams, events, graphs --- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  streams.insert(*stream = new emu_stream());
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return cudaSuccess;
  drain(stream, stream->added);
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture) return refuse(cudaErrorInvalidValue, "a capturing stream cannot be waited for");
  drain(stream, stream->added);
  return last_error;
}
cudaError_t cudaDeviceSynchronize() {
  for (emu_stream *stream : streams) drain(stream, stream->added);
  return last_error;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return *event = new emu_event(), cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream->capture) return refuse(cudaErrorInvalidValue, "an event recorded in a capture: the host could never wait for it");
  event->stream = stream;
  event->place = stream->added;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream && streams.count(event->stream)) drain(event->stream, event->place);
  return last_error;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const emu_event at = *event;
  if (!at.stream) return cudaSuccess;
  emu_enqueue(stream, [at] {
    if (streams.count(at.stream)) drain(at.stream, at.place);
  });
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capture) return refuse(cudaErrorInvalidValue, "the stream is being captured already");
  stream->capture = new emu_graph();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (!stream->capture) return refuse(cudaErrorInvalidValue, "the stream is not being captured");
  *graph = stream->capture;
  stream->capture = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  graph_counts.made++;
  *exec = new emu_graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *, size_t *count) { return *count = graph->work.size(), cudaSuccess; }
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info) {
  info->result = exec->kinds == graph->kinds ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged;
  if (info->result) return refuse(cudaErrorGraphExecUpdateFailure, "the graph has another form");
  exec->work = graph->work;
  graph_counts.updated++;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  graph_counts.launched++;
  for (const auto &work : exec->work) emu_enqueue(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
