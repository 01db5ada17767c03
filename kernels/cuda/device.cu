/* The CUDA backend: devices, their memory, the stream, copies through a ring of pinned memory, and the table of operators. */
#include "kernels/cuda/cuda.cuh"
extern "C" {
#include "kernels/module.h"
}
#include "kernels/cuda/operators.cuh"
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef SW_CUDA_EMULATED
static const char backend_name[] = "cuda-emulated";
#else
static const char backend_name[] = "cuda";
#endif

/* Copies to and from pageable host memory go through pinned slots, so that they neither block nor wait for the kernels before
 * them. A slot that brings results holds them until its host memory may be written: at the next synchronize, or when its turn comes again. */
enum { SLOTS = 32, GRAPHS = 64, WARM_UPS = 2 };
static const size_t SLOT_BYTES = 1 << 19;
struct slot {
  char *memory;
  cudaEvent_t done;
  int busy;
  void *destination; /* host, for copies out; NULL for copies in */
  size_t bytes;
};


/* Collected work is captured as a graph. Work of one form (the kernels of a training step, say) has always the same number of nodes: the
 * executable graph that has it is brought up to date (shapes, addresses, scalars), which takes a fraction of making one. Meanwhile copies
 * in go out on a stream of their own, after all work handed over before; the graph starts after them. The first times, work goes out
 * piece by piece: the libraries then load and choose what they need, outside of any capture. */
struct graph {
  cudaGraphExec_t exec;
  size_t nodes;
};
struct cuda_device {
  sw_device base;
  int index;
  size_t shared_bytes;               /* that a block may ask for */
  cudaStream_t stream, copies;
  cudaEvent_t handed_over, copied;
  slot slots[SLOTS];
  int next;
  int graphs_off;                    /* SKILLWATCH_CUDA_GRAPHS=off */
  int depth, collections, capturing; /* pairs of collect and submit that are open; finished; whether the outermost one captures */
  graph graphs[GRAPHS];
  int num_graphs, next_graph;
  sw_cuda_sums *sums;                /* NULL: not joined to other processes */
  cudaEvent_t given, summed;         /* what is to be added up is computed; it is added up */
};
static cuda_device *cuda_of(sw_device *device) { return reinterpret_cast<cuda_device *>(device); }

int sw_cuda_choose(const sw_device *device) {
  return sw_cuda_check(cudaSetDevice(reinterpret_cast<const cuda_device *>(device)->index), "choosing the device");
}

size_t sw_cuda_shared_bytes(const sw_device *device) { return reinterpret_cast<const cuda_device *>(device)->shared_bytes; }

static void *cuda_alloc(sw_device *device, size_t bytes) {
  void *memory = nullptr;
  size_t free_bytes = 0, total = 0;
  cudaSetDevice(cuda_of(device)->index);
  cudaError_t error = cudaMalloc(&memory, bytes ? bytes : 1);
  if (error == cudaSuccess) return memory;
  cudaGetLastError(); /* forget it: running out of memory leaves the device usable */
  if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess)
    sw_fail_memory("%zu bytes wanted on %s, %zu free; a smaller --batch-tokens wants less", bytes, device->name, free_bytes);
  else
    sw_cuda_check(error, "allocating memory");
  return nullptr;
}
static void cuda_release(sw_device *, void *memory) { cudaFree(memory); }

static int finish_slot(slot *s) {
  if (!s->busy) return 0;
  s->busy = 0;
  if (sw_cuda_check(cudaEventSynchronize(s->done), "waiting for a copy")) return -1;
  if (s->destination) memcpy(s->destination, s->memory, s->bytes);
  return 0;
}
static slot *take_slot(cuda_device *d) {
  slot *s = &d->slots[d->next];
  d->next = (d->next + 1) % SLOTS;
  return finish_slot(s) ? nullptr : s;
}
static int send(cuda_device *d, cudaStream_t stream, slot *s, void *destination, size_t bytes) {
  s->destination = destination;
  s->bytes = bytes;
  s->busy = 1;
  return sw_cuda_check(cudaEventRecord(s->done, stream), "recording a copy");
}
static int cuda_copy_in(sw_stream *stream, void *device_memory, const void *host, size_t bytes) {
  cuda_device *d = cuda_of(stream->device);
  cudaStream_t on = d->capturing ? d->copies : sw_cuda_stream(stream);
  cudaSetDevice(d->index); /* the choice is each thread's own, and every batch begins with a copy */
  for (size_t at = 0, here; at < bytes; at += here) {
    here = bytes - at < SLOT_BYTES ? bytes - at : SLOT_BYTES;
    slot *s = take_slot(d);
    if (!s) return -1;
    memcpy(s->memory, (const char *)host + at, here);
    if (sw_cuda_check(cudaMemcpyAsync((char *)device_memory + at, s->memory, here, cudaMemcpyHostToDevice, on), "copying to the device") ||
        send(d, on, s, nullptr, here))
      return -1;
  }
  return 0;
}
static int cuda_copy_out(sw_stream *stream, void *host, const void *device_memory, size_t bytes) {
  cuda_device *d = cuda_of(stream->device);
  if (d->capturing) return sw_fail("results cannot be copied while work is being collected");
  for (size_t at = 0, here; at < bytes; at += here) {
    here = bytes - at < SLOT_BYTES ? bytes - at : SLOT_BYTES;
    slot *s = take_slot(d);
    if (!s) return -1;
    if (sw_cuda_check(cudaMemcpyAsync(s->memory, (const char *)device_memory + at, here, cudaMemcpyDeviceToHost, sw_cuda_stream(stream)),
                      "copying from the device") ||
        send(d, sw_cuda_stream(stream), s, (char *)host + at, here))
      return -1;
  }
  return 0;
}
static int cuda_zero(sw_stream *stream, void *device_memory, size_t bytes) {
  return bytes ? sw_cuda_check(cudaMemsetAsync(device_memory, 0, bytes, sw_cuda_stream(stream)), "zeroing memory") : 0;
}
static int cuda_synchronize(sw_stream *stream) {
  cuda_device *d = cuda_of(stream->device);
  if (sw_cuda_check(cudaStreamSynchronize(sw_cuda_stream(stream)), "running on the device")) {
    for (slot &s : d->slots) s.destination = nullptr; /* whoever wanted results gives up, and with them the memory for them */
    return -1;
  }
  for (int i = 0; i < SLOTS; i++)
    if (finish_slot(&d->slots[(d->next + i) % SLOTS])) return -1;
  return 0;
}

static int begin_capture(cuda_device *d) {
  if (sw_cuda_check(cudaEventRecord(d->handed_over, d->stream), "recording an event") ||
      sw_cuda_check(cudaStreamWaitEvent(d->copies, d->handed_over, 0), "ordering the copies") ||
      sw_cuda_check(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeRelaxed), "collecting work"))
    return -1;
  d->capturing = 1;
  return 0;
}
static int cuda_collect(sw_stream *stream) {
  cuda_device *d = cuda_of(stream->device);
  if (d->depth++ || d->collections < WARM_UPS || d->graphs_off) return 0;
  cudaSetDevice(d->index);
  if (!begin_capture(d)) return 0;
  d->depth = 0;
  return -1;
}
/* Brings the executable graph of this form up to date, or makes one. */
static int executable(cuda_device *d, cudaGraph_t captured, cudaGraphExec_t *exec) {
  size_t nodes;
  if (sw_cuda_check(cudaGraphGetNodes(captured, nullptr, &nodes), "asking a graph")) return -1;
  for (int i = 0; i < d->num_graphs; i++) {
    if (d->graphs[i].nodes != nodes) continue;
    cudaGraphExecUpdateResultInfo result;
    *exec = d->graphs[i].exec;
    if (cudaGraphExecUpdate(*exec, captured, &result) == cudaSuccess) return 0;
    cudaGetLastError(); /* of another form after all, with as many nodes */
  }
  const int at = d->num_graphs < GRAPHS ? d->num_graphs++ : d->next_graph++ % GRAPHS;
  if (d->graphs[at].exec) cudaGraphExecDestroy(d->graphs[at].exec);
  d->graphs[at] = {nullptr, 0};
  if (sw_cuda_check(cudaGraphInstantiate(exec, captured, 0), "making a graph executable")) return -1;
  d->graphs[at] = {*exec, nodes};
  return 0;
}
static int end_capture(cuda_device *d, int keep) {
  d->capturing = 0;
  cudaGraph_t captured = nullptr;
  cudaGraphExec_t exec;
  int status = sw_cuda_check(cudaStreamEndCapture(d->stream, &captured), "collecting work");
  /* whatever became of the work: what comes next must not overtake the copies */
  if (sw_cuda_check(cudaEventRecord(d->copied, d->copies), "recording an event") ||
      sw_cuda_check(cudaStreamWaitEvent(d->stream, d->copied, 0), "ordering the copies"))
    status = -1;
  if (!status && keep) status = executable(d, captured, &exec) || sw_cuda_check(cudaGraphLaunch(exec, d->stream), "handing over work");
  if (captured) cudaGraphDestroy(captured);
  return status ? -1 : 0;
}
static int cuda_submit(sw_stream *stream, int keep) {
  cuda_device *d = cuda_of(stream->device);
  if (--d->depth) return 0;
  d->collections++;
  return d->capturing ? end_capture(d, keep) : 0;
}
int sw_cuda_pause_collecting(sw_stream *stream, int *paused) {
  cuda_device *d = cuda_of(stream->device);
  *paused = d->capturing;
  return *paused ? end_capture(d, 1) : 0;
}
int sw_cuda_resume_collecting(sw_stream *stream, int paused) { return paused ? begin_capture(cuda_of(stream->device)) : 0; }

/* --- sums with other processes --- */
static int cuda_make_id(sw_device *, char id[SW_COLLECTIVE_ID]) { return sw_cuda_sums_id(id); }
static int cuda_join(sw_device *device, const char id[SW_COLLECTIVE_ID], int rank, int ranks) {
  return cuda_of(device)->sums ? sw_fail("the device has joined other processes already") : sw_cuda_sums_open(device, id, rank, ranks, &cuda_of(device)->sums);
}
/* Runs what was collected up to here, so that what it computed can be sent while the rest is still being collected: NCCL's own work is in no
 * graph, since one that has it cannot be relied on to be brought up to date. */
template <class F> static int beside(sw_stream *stream, F start) {
  cuda_device *d = cuda_of(stream->device);
  int paused;
  if (!d->sums) return sw_fail("the device has not joined other processes");
  if (sw_cuda_pause_collecting(stream, &paused) || sw_cuda_check(cudaEventRecord(d->given, d->stream), "recording an event") ||
      sw_cuda_check(cudaStreamWaitEvent(sw_cuda_sums_stream(d->sums), d->given, 0), "ordering the sums") || start(d->sums))
    return -1;
  return sw_cuda_resume_collecting(stream, paused);
}
static int cuda_sum(sw_stream *stream, float *values, size_t count) {
  return beside(stream, [=](sw_cuda_sums *sums) { return sw_cuda_sums_add(sums, values, count); });
}
static int cuda_gather(sw_stream *stream, void *all, size_t bytes) {
  return beside(stream, [=](sw_cuda_sums *sums) { return sw_cuda_sums_gather(sums, all, bytes); });
}
static int cuda_wait(sw_stream *stream) {
  cuda_device *d = cuda_of(stream->device);
  if (d->capturing) return sw_fail("sums cannot be waited for while work is being collected");
  return sw_cuda_check(cudaEventRecord(d->summed, sw_cuda_sums_stream(d->sums)), "recording an event") ||
                 sw_cuda_check(cudaStreamWaitEvent(d->stream, d->summed, 0), "ordering the sums")
             ? -1
             : 0;
}
static const sw_collectives collectives = {cuda_make_id, cuda_join, cuda_sum, cuda_gather, cuda_wait};

static void cuda_close(sw_device *device) {
  cuda_device *d = cuda_of(device);
  cudaSetDevice(d->index);
  if (d->copies) cudaStreamSynchronize(d->copies);
  if (d->stream) cudaStreamSynchronize(d->stream);
  for (int i = 0; i < d->num_graphs; i++)
    if (d->graphs[i].exec) cudaGraphExecDestroy(d->graphs[i].exec);
  sw_cuda_sums_close(d->sums);
  sw_cudnn_gru_close(device);
  for (cudaEvent_t event : {d->handed_over, d->copied, d->given, d->summed})
    if (event) cudaEventDestroy(event);
  sw_cuda_linear_close(device);
  for (slot &s : d->slots) {
    if (s.done) cudaEventDestroy(s.done);
    if (s.memory) cudaFreeHost(s.memory);
  }
  for (cudaStream_t stream : {d->copies, d->stream})
    if (stream) cudaStreamDestroy(stream);
  free(d);
}

static const sw_operators operators = {
#define X(name) sw_cuda_##name,
    SW_OPERATOR_LIST(X)
#undef X
};

static int cuda_count() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  return error == cudaSuccess ? count : sw_cuda_check(error, "looking for devices");
}
static int describe(int index, sw_device_info *info, size_t *shared_bytes) {
  cudaDeviceProp p;
  size_t free_bytes = 0, total = 0;
  if (sw_cuda_check(cudaSetDevice(index), "choosing the device") || sw_cuda_check(cudaGetDeviceProperties(&p, index), "asking the device") ||
      sw_cuda_check(cudaMemGetInfo(&free_bytes, &total), "asking the device"))
    return -1;
  *info = sw_device_info();
  snprintf(info->name, sizeof info->name, "%.95s", p.name);
  info->major = p.major;
  info->minor = p.minor;
  info->multiprocessors = p.multiProcessorCount;
  info->memory = total;
  info->memory_free = free_bytes;
  *shared_bytes = p.sharedMemPerBlockOptin;
  return 0;
}
static int cuda_describe(int index, sw_device_info *info) {
  size_t shared_bytes;
  return describe(index, info, &shared_bytes);
}
static int open_device(cuda_device *d) {
  sw_device_info info;
  if (describe(d->index, &info, &d->shared_bytes)) return -1;
  if (info.major < 8)
    return sw_fail("%s has compute capability %d.%d; 8.0 or newer is needed", info.name, info.major, info.minor);
  if (sw_cuda_linear_open()) return -1;
  snprintf(d->base.name, sizeof d->base.name, "%s:%d (%.70s)", backend_name, d->index, info.name);
  if (sw_cuda_check(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "opening a stream") ||
      sw_cuda_check(cudaStreamCreateWithFlags(&d->copies, cudaStreamNonBlocking), "opening a stream") ||
      sw_cuda_check(cudaEventCreateWithFlags(&d->handed_over, cudaEventDisableTiming), "making an event") ||
      sw_cuda_check(cudaEventCreateWithFlags(&d->copied, cudaEventDisableTiming), "making an event") ||
      sw_cuda_check(cudaEventCreateWithFlags(&d->given, cudaEventDisableTiming), "making an event") ||
      sw_cuda_check(cudaEventCreateWithFlags(&d->summed, cudaEventDisableTiming), "making an event"))
    return -1;
  for (slot &s : d->slots)
    if (sw_cuda_check(cudaHostAlloc((void **)&s.memory, SLOT_BYTES, cudaHostAllocDefault), "allocating pinned memory") ||
        sw_cuda_check(cudaEventCreateWithFlags(&s.done, cudaEventDisableTiming), "making an event"))
      return -1;
  d->base.stream = d->stream;
  return 0;
}
static int cuda_open(int index, sw_device **out) {
  int count = cuda_count();
  if (count < 0) return -1;
  if (index < 0 || index >= count) return sw_fail("there is no device %d, only %d; skillwatch devices lists them", index, count);
  cuda_device *d = static_cast<cuda_device *>(calloc(1, sizeof *d));
  if (!d) return sw_fail("out of memory");
  const char *graphs = getenv("SKILLWATCH_CUDA_GRAPHS");
  d->graphs_off = graphs && !strcmp(graphs, "off");
  d->index = index;
  d->base.backend = backend_name;
  d->base.operators = &operators;
  d->base.alloc = cuda_alloc;
  d->base.release = cuda_release;
  d->base.copy_in = cuda_copy_in;
  d->base.copy_out = cuda_copy_out;
  d->base.zero = cuda_zero;
  d->base.synchronize = cuda_synchronize;
  d->base.collect = cuda_collect;
  d->base.submit = cuda_submit;
  d->base.collectives = &collectives;
  d->base.close = cuda_close;
  if (open_device(d)) {
    cuda_close(&d->base);
    return -1;
  }
  *out = &d->base;
  return 0;
}

#ifdef SW_CUDA_EMULATED
#define BUILT_WITH "the emulator"
#else
#define SW_TEXT_OF(x) #x
#define SW_TEXT(x) SW_TEXT_OF(x)
#define BUILT_WITH "CUDA " SW_TEXT(__CUDACC_VER_MAJOR__) "." SW_TEXT(__CUDACC_VER_MINOR__)
#endif
extern "C" __attribute__((visibility("default"))) const sw_module sw_backend_module;
extern "C" const sw_module sw_backend_module = {SW_MODULE_API, backend_name, BUILT_WITH, cuda_count, cuda_describe, cuda_open};
