/* NCCL's twin: what kernels/cuda/nccl.cu calls, between the emulated devices of processes on one machine. Messages go through rings in a
 * file that all map, when the stream's work runs, and not before; what NCCL would refuse, or wait for without end, is refused. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/nccl.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

/* SW_CUDA_EMULATOR_NCCL_LOG=FILE: at the end each process adds a line: its rank, messages sent, bytes in them. */
static struct counts {
  int rank = -1;
  long messages = 0, bytes = 0;
  ~counts() {
    const char *path = getenv("SW_CUDA_EMULATOR_NCCL_LOG");
    FILE *file = path && rank >= 0 ? fopen(path, "a") : nullptr;
    if (!file) return;
    fprintf(file, "%d %ld %ld\n", rank, messages, bytes);
    fclose(file);
  }
} counts;

enum { MOST_RANKS = 8, RING = 1 << 14, WAIT_MS = 60000 };
struct ring {
  std::atomic<uint64_t> written, read;
  char data[RING];
};
struct shared_rings {
  std::atomic<int> joined;
  ring rings[MOST_RANKS][MOST_RANKS]; /* [from][to] */
};
struct ncclComm {
  shared_rings *shared;
  int rank, ranks;
};

static thread_local const char *reason = "";
static ncclResult_t refuse(ncclResult_t result, const char *why) { return reason = why, result; }
const char *ncclGetErrorString(ncclResult_t result) { return result == ncclSuccess ? "success" : reason; }
ncclResult_t ncclGetVersion(int *version) { return *version = 22000, ncclSuccess; }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  const char *folder = getenv("TMPDIR");
  if (snprintf(id->internal, sizeof id->internal, "%s/skillwatch-nccl-XXXXXX", folder && *folder ? folder : "/tmp") >= (int)sizeof id->internal)
    return refuse(ncclInvalidArgument, "TMPDIR is too long");
  const int file = mkstemp(id->internal);
  if (file < 0 || ftruncate(file, sizeof(shared_rings))) return refuse(ncclInvalidArgument, "no room for the rings in TMPDIR");
  close(file);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
  if (ranks < 1 || ranks > MOST_RANKS || rank < 0 || rank >= ranks) return refuse(ncclInvalidArgument, "no such rank, or more than are emulated");
  const int file = open(id.internal, O_RDWR);
  void *memory = file < 0 ? MAP_FAILED : mmap(nullptr, sizeof(shared_rings), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (memory == MAP_FAILED) return refuse(ncclInvalidArgument, "the id is of no communicator");
  shared_rings *shared = static_cast<shared_rings *>(memory);
  shared->joined++;
  for (int waited = 0; shared->joined < ranks; waited++) {
    if (waited == WAIT_MS) return refuse(ncclInvalidUsage, "the other processes do not come");
    usleep(1000);
  }
  if (rank == 0) unlink(id.internal);
  counts.rank = rank;
  *comm = new ncclComm{shared, rank, ranks};
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  munmap(comm->shared, sizeof *comm->shared);
  delete comm;
  return ncclSuccess;
}

/* A message: its length, then its bytes. */
struct message {
  char *data;
  uint64_t bytes;
  int peer;
  bool sends;
  uint64_t header, done; /* done counts the header, too */
};
static bool copy(ring &r, message &m) {
  const uint64_t whole = sizeof m.header + m.bytes, written = r.written, read = r.read;
  uint64_t n = m.sends ? RING - (written - read) : written - read;
  if (n > whole - m.done) n = whole - m.done;
  for (uint64_t i = 0; i < n; i++, m.done++) {
    char &in_ring = r.data[(m.sends ? written + i : read + i) % RING];
    char &own = m.done < sizeof m.header ? ((char *)&m.header)[m.done] : m.data[m.done - sizeof m.header];
    if (m.sends)
      in_ring = own;
    else
      own = in_ring;
    if (!m.sends && m.done + 1 == sizeof m.header && m.header != m.bytes) {
      emu_set_error(cudaErrorLaunchFailure, "NCCL: %llu bytes are received from process %d, which sends %llu", (unsigned long long)m.bytes, m.peer,
                    (unsigned long long)m.header);
      return false;
    }
  }
  if (m.sends)
    r.written += n;
  else
    r.read += n;
  return n > 0;
}
static void run(const ncclComm *comm, std::vector<message> &messages) {
  for (int waited = 0; waited < WAIT_MS * 10; waited++) {
    bool moved = false, done = true;
    for (message &m : messages) {
      if (m.done == sizeof m.header + m.bytes) continue;
      bool first = true; /* of those with the same peer and direction */
      for (const message *before = messages.data(); before < &m; before++)
        first = first && (before->peer != m.peer || before->sends != m.sends || before->done == sizeof m.header + before->bytes);
      if (first && copy(m.sends ? comm->shared->rings[comm->rank][m.peer] : comm->shared->rings[m.peer][comm->rank], m)) moved = true;
      if (cudaError_t error = cudaGetLastError()) return emu_set_error(error, "%s", cudaGetErrorString(error));
      done = done && m.done == sizeof m.header + m.bytes;
    }
    if (done) return;
    if (moved)
      waited = 0;
    else
      usleep(100);
  }
  emu_set_error(cudaErrorLaunchFailure, "NCCL: the other processes do not answer");
}

static thread_local int depth;
static thread_local std::vector<message> grouped;
static thread_local ncclComm_t group_comm;
static thread_local cudaStream_t group_stream;
ncclResult_t ncclGroupStart() { return depth++, ncclSuccess; }
ncclResult_t ncclGroupEnd() {
  if (depth == 0) return refuse(ncclInvalidUsage, "a group ends that did not begin");
  if (--depth || grouped.empty()) return ncclSuccess;
  auto messages = std::make_shared<std::vector<message>>(std::move(grouped));
  grouped.clear();
  emu_enqueue(group_stream, [messages, comm = group_comm] { run(comm, *messages); });
  return ncclSuccess;
}
static ncclResult_t add(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream, bool sends) {
  const uint64_t bytes = count * (type == ncclFloat32 ? 4 : 1);
  if (!depth) return refuse(ncclInvalidUsage, "two processes that both send first would wait for each other: only groups are emulated");
  if (peer < 0 || peer >= comm->ranks || peer == comm->rank) return refuse(ncclInvalidArgument, "no such peer");
  if (!emu_device_memory(data, bytes)) return refuse(ncclInvalidArgument, "a message that leaves its allocation");
  if (!grouped.empty() && (comm != group_comm || stream != group_stream)) return refuse(ncclInvalidUsage, "one communicator and stream in a group");
  group_comm = comm;
  group_stream = stream;
  if (sends) counts.messages++, counts.bytes += (long)bytes;
  grouped.push_back({(char *)const_cast<void *>(data), bytes, peer, sends, sends ? bytes : 0, 0});
  return ncclSuccess;
}
ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add(from, count, type, peer, comm, stream, true);
}
ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add(to, count, type, peer, comm, stream, false);
}
