/* The emulator's threads: blocks of fibers, barriers, warp operations, shared memory. runtime.cc has the streams. */
#include "kernels/cuda/cuda.cuh"
#include "tests/cuda_emulator/fibers.h"
#include "tests/cuda_emulator/launch.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(at, bytes) ((void)0)
#define __asan_unpoison_memory_region(at, bytes) ((void)0)
#endif

enum { STACK_BYTES = 256 * 1024, GAP = 128 };
enum state { RUN, AT_BARRIER, AT_WARP_OPERATION, DONE };

struct copy { void *to; const void *from; bool valid; };
struct thread : emu_thread {
  unsigned number, warp;
  enum state state;
  const char *kind, *file;
  int line;
  emu_fiber fiber;
  std::vector<copy> open_copies;
  std::vector<std::vector<copy>> groups;
};
struct warp {
  unsigned mask = 0, arrived = 0; /* of the operation that is waited for; mask 0: none */
  const char *kind, *file;
  int line;
  uint64_t in[32][4], out[32][4];
};

emu_thread *emu_self;
uint3 emu_block_index;
dim3 emu_block_dim, emu_grid_dim;

static std::vector<thread *> threads;
static std::vector<warp> warps;
static unsigned live_threads, at_barrier;
static const std::function<void()> *body;
static const char *kernel_name;
static std::string failure;
static thread *self() { return static_cast<thread *>(emu_self); }

void emu_fail(const char *format, ...) {
  char text[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (failure.empty()) {
    char where[200];
    snprintf(where, sizeof where, "kernel %s, block (%u,%u,%u), thread %u: ", kernel_name, emu_block_index.x, emu_block_index.y,
             emu_block_index.z, self()->number);
    failure = std::string(where) + text;
  }
  emu_fiber_leave(&self()->fiber, true);
  abort(); /* an abandoned fiber is never entered again */
}

/* --- places --- */
static std::set<std::string> places;
static void write_places() {
  const char *path = getenv("SW_CUDA_EMULATOR_SITES");
  FILE *file = path ? fopen(path, "a") : nullptr;
  if (!file) return;
  for (const std::string &place : places) fprintf(file, "%s\n", place.c_str());
  fclose(file);
}
static const char *skip;
static int skip_line;
static bool note_places;
/* Paths as the source tree has them: what follows the last "/kernels/". */
static std::string place_of(const char *file, int line) {
  const char *tail = file;
  for (const char *at = file; (at = strstr(at, "kernels/")); at++) tail = at;
  return std::string(tail) + ":" + std::to_string(line);
}
bool emu_skipped(const char *kind, const char *file, int line) {
  if (note_places) { /* building strings is slow: only where the place is new */
    static std::set<std::pair<const char *, int>> known;
    if (known.insert({file, line}).second) places.insert(place_of(file, line) + " " + kind);
  }
  return skip && line == skip_line && place_of(file, line) == skip;
}

/* --- shared memory --- */
enum { SHARED_LIMIT = 48 * 1024, DYNAMIC_LIMIT = 163 * 1024, ARENA = SHARED_LIMIT + DYNAMIC_LIMIT + 64 * 1024 };
alignas(128) static unsigned char arena[ARENA];
struct piece { void *at; size_t bytes; };
static std::map<const void *, piece> pieces;
static size_t arena_used, static_used, arena_dirty, dynamic_bytes;
static void *dynamic_shared;

static void *take(size_t bytes) {
  void *at = arena + arena_used;
  arena_used += (bytes + 127) / 128 * 128 + GAP;
  arena_dirty = std::max(arena_dirty, arena_used);
  __asan_unpoison_memory_region(at, bytes);
  return at;
}
static void renew_shared() {
  __asan_unpoison_memory_region(arena, sizeof arena);
  memset(arena, 0xff, arena_dirty); /* NaN: what was not written must not be used */
  __asan_poison_memory_region(arena, sizeof arena);
  pieces.clear();
  arena_used = static_used = 0;
  dynamic_shared = dynamic_bytes ? take(dynamic_bytes) : nullptr;
}
void *emu_shared(const void *site, const char *name, size_t bytes) {
  auto found = pieces.find(site);
  if (found != pieces.end()) {
    if (found->second.bytes != bytes) emu_fail("shared array %s has two sizes, %zu and %zu bytes", name, found->second.bytes, bytes);
    return found->second.at;
  }
  static_used += (bytes + 127) / 128 * 128;
  if (static_used > SHARED_LIMIT) emu_fail("static shared memory of %zu bytes is over the limit of %d", static_used, (int)SHARED_LIMIT);
  void *at = take(bytes);
  pieces[site] = {at, bytes};
  return at;
}
void *emu_dynamic_shared() {
  if (!dynamic_shared) emu_fail("dynamic shared memory is used, but the launch asked for none");
  return dynamic_shared;
}
static bool in_shared(const void *p, size_t bytes) {
  return (const unsigned char *)p >= arena && (const unsigned char *)p + bytes <= arena + sizeof arena;
}

/* --- async copies --- */
void emu_async_copy16(void *shared, const void *global, bool valid) {
  if (!in_shared(shared, 16) || (uintptr_t)shared % 16) emu_fail("an async copy to %p: not shared memory, or not aligned to 16 bytes", shared);
  if (valid && (uintptr_t)global % 16) emu_fail("an async copy from %p: not aligned to 16 bytes", global);
  memset(shared, 0xff, 16); /* nothing may be read there until the copy has landed */
  self()->open_copies.push_back({shared, global, valid});
}
void emu_async_commit() {
  self()->groups.push_back(self()->open_copies);
  self()->open_copies.clear();
}
void emu_async_wait(int left) {
  thread *t = self();
  while ((int)t->groups.size() > left) {
    for (const copy &c : t->groups.front()) {
      if (c.valid)
        memcpy(c.to, c.from, 16);
      else
        memset(c.to, 0, 16);
    }
    t->groups.erase(t->groups.begin());
  }
}

/* --- barriers --- */
static void wait_in(enum state state, const char *kind, const char *file, int line) {
  thread *t = self();
  t->state = state, t->kind = kind, t->file = file, t->line = line;
  emu_fiber_leave(&t->fiber, false);
}
/* Opens the barrier when every live thread waits at it. */
static void try_barrier() {
  if (!at_barrier || at_barrier < live_threads) return;
  const thread *first = nullptr;
  for (thread *t : threads) {
    if (t->state != AT_BARRIER) continue;
    if (!first) first = t;
    if (t->line != first->line || strcmp(t->file, first->file)) {
      char text[300];
      snprintf(text, sizeof text, "kernel %s: threads %u and %u wait at different barriers, %s:%d and %s:%d", kernel_name, first->number,
               t->number, first->file, first->line, t->file, t->line);
      if (failure.empty()) failure = text;
      return;
    }
  }
  for (thread *t : threads)
    if (t->state == AT_BARRIER) t->state = RUN;
  at_barrier = 0;
}
void emu_syncthreads(const char *file, int line) {
  if (emu_skipped("__syncthreads", file, line)) return;
  at_barrier++;
  self()->state = AT_BARRIER, self()->kind = "__syncthreads", self()->file = file, self()->line = line;
  try_barrier();
  if (self()->state == AT_BARRIER || !failure.empty()) emu_fiber_leave(&self()->fiber, !failure.empty());
}

/* --- warp operations --- */
void emu_warp_operation(const char *kind, unsigned mask, const void *in, size_t in_bytes, void *out, size_t out_bytes, emu_exchange *exchange,
                        const void *argument, size_t argument_bytes, const char *file, int line) {
  thread *t = self();
  warp &w = warps[t->warp];
  const unsigned bit = 1u << t->lane;
  (void)argument_bytes;
  if (!(mask & bit)) emu_fail("%s:%d: %s by lane %u, which its mask %08x leaves out", file, line, kind, t->lane, mask);
  if (w.mask && (w.mask != mask || w.line != line || strcmp(w.file, file) || strcmp(w.kind, kind)))
    emu_fail("%s:%d: %s with mask %08x, while other lanes wait in %s with mask %08x at %s:%d", file, line, kind, mask, w.kind, w.mask, w.file,
             w.line);
  if (!w.mask) w.mask = mask, w.arrived = 0, w.kind = kind, w.file = file, w.line = line;
  if (in_bytes) memcpy(w.in[t->lane], in, in_bytes);
  w.arrived |= bit;
  if (w.arrived == mask) {
    if (exchange) exchange(mask, w.in, w.out, argument);
    w.mask = 0;
    for (unsigned lane = 0, first = t->number - t->lane; lane < 32; lane++)
      if (mask >> lane & 1 && lane != t->lane) threads[first + lane]->state = RUN;
  } else {
    wait_in(AT_WARP_OPERATION, kind, file, line);
  }
  if (out_bytes) memcpy(out, warps[t->warp].out[t->lane], out_bytes);
}

void emu_shuffle_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *) {
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    emu_shuffle mine, theirs;
    memcpy(&mine, in[lane], sizeof mine);
    if (mine.source >= 0 && mine.source < 32 && mask >> mine.source & 1) {
      memcpy(&theirs, in[mine.source], sizeof theirs);
      out[lane][0] = theirs.value;
    } else {
      out[lane][0] = ~(uint64_t)0;
    }
  }
}
void emu_ballot_exchange(unsigned mask, const uint64_t (*in)[4], uint64_t (*out)[4], const void *) {
  uint64_t all = 0;
  for (int lane = 0; lane < 32; lane++)
    if (mask >> lane & 1 && in[lane][0]) all |= 1ull << lane;
  for (int lane = 0; lane < 32; lane++) out[lane][0] = all;
}
void emu_ldmatrix_exchange(unsigned, const uint64_t (*in)[4], uint64_t (*out)[4], const void *argument) {
  bool transposed;
  memcpy(&transposed, argument, sizeof transposed);
  for (int lane = 0; lane < 32; lane++) {
    uint32_t r[4];
    for (int j = 0; j < 4; j++) {
      uint16_t two[2];
      for (int k = 0; k < 2; k++) {
        int row = lane / 4, col = 2 * (lane % 4) + k;
        if (transposed) std::swap(row, col);
        two[k] = ((const uint16_t *)(uintptr_t)in[8 * j + row][0])[col];
      }
      memcpy(&r[j], two, 4);
    }
    memcpy(out[lane], r, sizeof r);
  }
}
void emu_mma_exchange(unsigned, const uint64_t (*in)[4], uint64_t (*out)[4], const void *) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; lane++) {
    uint32_t f[6];
    memcpy(f, in[lane], sizeof f);
    const int g = lane / 4, t = 2 * (lane % 4);
    for (int i = 0; i < 4; i++) {
      a[g + 8 * (i & 1)][t + 8 * (i >> 1)] = sw_low_float(f[i]);
      a[g + 8 * (i & 1)][t + 8 * (i >> 1) + 1] = sw_high_float(f[i]);
    }
    for (int i = 0; i < 2; i++) {
      b[t + 8 * i][g] = sw_low_float(f[4 + i]);
      b[t + 8 * i + 1][g] = sw_high_float(f[4 + i]);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    double sums[4];
    for (int i = 0; i < 4; i++) {
      const int row = lane / 4 + 8 * (i >> 1), col = 2 * (lane % 4) + (i & 1);
      sums[i] = 0;
      for (int k = 0; k < 16; k++) sums[i] += (double)a[row][k] * (double)b[k][col];
    }
    memcpy(out[lane], sums, sizeof sums);
  }
}

/* --- the scheduler --- */
static void thread_main() {
  for (;;) { /* entered anew for every block */
    (*body)(); /* copies that nobody waited for never land */
    thread *t = self();
    t->state = DONE;
    live_threads--;
    try_barrier();
    emu_fiber_leave(&t->fiber, true);
  }
}

/* Threads or blocks in the order that the environment asks for. */
struct order {
  enum { FORWARD, REVERSED, RANDOM } kind = FORWARD;
  uint64_t state = 0;
  std::vector<unsigned> list;
  order() {
    const char *text = getenv("SW_CUDA_EMULATOR_ORDER");
    if (text && !strcmp(text, "reversed")) kind = REVERSED;
    if (text && !strncmp(text, "random:", 7)) kind = RANDOM, state = strtoull(text + 7, nullptr, 10) * 0x9E3779B97F4A7C15ull + 1;
  }
  void make(unsigned count) {
    list.resize(count);
    for (unsigned i = 0; i < count; i++) list[i] = kind == REVERSED ? count - 1 - i : i;
    if (kind == RANDOM)
      for (unsigned i = count; i > 1; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(list[i - 1], list[(state >> 33) % i]);
      }
  }
};

static void stand_still() { /* nobody can run: say who waits for whom */
  const thread *barrier = nullptr, *operation = nullptr;
  for (const thread *t : threads) {
    if (t->state == AT_BARRIER && !barrier) barrier = t;
    if (t->state == AT_WARP_OPERATION && !operation) operation = t;
  }
  char text[500];
  int n = snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u) stands still:", kernel_name, emu_block_index.x, emu_block_index.y,
                   emu_block_index.z);
  if (operation)
    n += snprintf(text + n, sizeof text - (size_t)n, " thread %u waits in %s at %s:%d for lanes %08x, of which %08x came;", operation->number,
                  operation->kind, operation->file, operation->line, warps[operation->warp].mask, warps[operation->warp].arrived);
  if (barrier)
    snprintf(text + n, sizeof text - (size_t)n, " thread %u waits in %s at %s:%d (%u of %u threads there)", barrier->number, barrier->kind,
             barrier->file, barrier->line, at_barrier, live_threads);
  failure = text;
}

static void run_block(unsigned count, order &turns) {
  renew_shared();
  for (warp &w : warps) w = warp();
  for (unsigned i = 0; i < count; i++) {
    thread *t = threads[i];
    t->number = i;
    t->index = {i % emu_block_dim.x, i / emu_block_dim.x % emu_block_dim.y, i / emu_block_dim.x / emu_block_dim.y};
    t->lane = i % 32;
    t->warp = i / 32;
    t->state = RUN;
    t->open_copies.clear();
    t->groups.clear();
    emu_fiber_start(&t->fiber, thread_main);
  }
  live_threads = count;
  at_barrier = 0;
  /* Forward and reversed, a warp runs as far ahead of the others as barriers let it; in random orders all warps go in step. */
  const unsigned together = turns.kind == order::RANDOM ? count : 32;
  while (live_threads && failure.empty()) {
    bool any = false;
    turns.make(count);
    for (unsigned from = 0; from < count; from += together)
      for (bool ran = true; ran;) {
        ran = false;
        for (unsigned n = from; n < std::min(from + together, count); n++) {
          const unsigned i = turns.list[n];
          if (threads[i]->state != RUN) continue;
          any = ran = true;
          emu_self = threads[i];
          emu_fiber_enter(&threads[i]->fiber);
          if (!failure.empty()) return;
        }
        if (turns.kind == order::RANDOM) break;
      }
    if (!any) stand_still();
  }
}

std::string emu_run_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread_body) {
  static const int registered = atexit(write_places);
  (void)registered;
  const unsigned count = block.x * block.y * block.z;
  skip = getenv("SW_CUDA_EMULATOR_SKIP");
  if (skip && !*skip) skip = nullptr;
  if (skip) skip_line = strrchr(skip, ':') ? atoi(strrchr(skip, ':') + 1) : -1;
  note_places = getenv("SW_CUDA_EMULATOR_SITES") != nullptr;
  failure.clear();
  kernel_name = name;
  body = &thread_body;
  emu_block_dim = block;
  emu_grid_dim = grid;
  dynamic_bytes = shared_bytes;
  warps.assign((count + 31) / 32, warp());
  threads.reserve(1024);
  static std::vector<thread *> &all = *new std::vector<thread *>(); /* kept until the process ends: reachable, so no leak */
  while (all.size() < count) {
    thread *t = new thread();
    if (emu_fiber_open(&t->fiber, STACK_BYTES)) return "no memory for the emulator's threads";
    all.push_back(t);
  }
  threads.assign(all.begin(), all.begin() + count);
  order blocks, turns;
  blocks.make(grid.x * grid.y * grid.z);
  for (unsigned b : blocks.list) {
    emu_block_index = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    run_block(count, turns);
    if (!failure.empty()) break;
  }
  return failure;
}

std::string emu_launch_problem(dim3 grid, dim3 block, size_t shared_bytes) {
  char text[160] = "";
  const uint64_t count = (uint64_t)block.x * block.y * block.z;
  if (!count || count > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64)
    snprintf(text, sizeof text, "a block of %u x %u x %u threads (the limit is 1024)", block.x, block.y, block.z);
  else if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || !grid.x || !grid.y || !grid.z)
    snprintf(text, sizeof text, "a grid of %u x %u x %u blocks (the limits are 2^31 - 1, 65535, 65535)", grid.x, grid.y, grid.z);
  else if (shared_bytes > DYNAMIC_LIMIT)
    snprintf(text, sizeof text, "%zu bytes of dynamic shared memory (the limit is %d)", shared_bytes, (int)DYNAMIC_LIMIT);
  return text;
}
