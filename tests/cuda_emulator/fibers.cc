#include "tests/cuda_emulator/fibers.h"

#include <cstdint>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(save, bottom, bytes) ((void)0)
#define __sanitizer_finish_switch_fiber(save, bottom, bytes) ((void)0)
#define __asan_unpoison_memory_region(at, bytes) ((void)0)
#endif

static emu_fiber scheduler;

int emu_fiber_open(emu_fiber *fiber, size_t stack_bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *all = (char *)mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return -1;
  mprotect(all, page, PROT_NONE);
  fiber->stack = all + page;
  fiber->stack_bytes = stack_bytes;
  return 0;
}

void emu_fiber_close(emu_fiber *fiber) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (fiber->stack) munmap((char *)fiber->stack - page, fiber->stack_bytes + page);
  *fiber = emu_fiber();
}

#ifdef __x86_64__
/* Saves what a called function must keep (System V ABI) on the present stack, and goes on where the other stack was left. swapcontext
 * would do, with two system calls a switch. */
extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch, .-emu_switch
)");
static void prepare(emu_fiber *fiber, void (*entry)()) {
  uintptr_t top = ((uintptr_t)fiber->stack + fiber->stack_bytes) & ~(uintptr_t)15;
  void **sp = (void **)(top - 8); /* at entry, rsp + 8 is a multiple of 16 */
  *sp = nullptr;
  *--sp = (void *)entry;
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  fiber->saved = sp;
}
static void switch_stacks(emu_fiber *from, emu_fiber *to) { emu_switch(&from->saved, to->saved); }
#else
static void prepare(emu_fiber *fiber, void (*entry)()) {
  if (!fiber->saved) fiber->saved = new ucontext_t;
  ucontext_t *context = (ucontext_t *)fiber->saved;
  getcontext(context);
  context->uc_stack.ss_sp = fiber->stack;
  context->uc_stack.ss_size = fiber->stack_bytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}
static void switch_stacks(emu_fiber *from, emu_fiber *to) {
  if (!from->saved) from->saved = new ucontext_t;
  swapcontext((ucontext_t *)from->saved, (ucontext_t *)to->saved);
}
#endif

/* Whoever entered a fiber is the scheduler: its stack is the one we came from. */
static void arrive(void *fake_stack) {
  const void *bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
  scheduler.stack = (void *)bottom;
  scheduler.stack_bytes = bytes;
}

static void (*starting)();
static void first_entry() {
  arrive(nullptr);
  starting();
}

void emu_fiber_start(emu_fiber *fiber, void (*entry)()) {
  starting = entry;
  __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes); /* what an abandoned run left */
  fiber->fake_stack = nullptr;
  prepare(fiber, first_entry);
}

void emu_fiber_enter(emu_fiber *fiber) {
  __sanitizer_start_switch_fiber(&scheduler.fake_stack, fiber->stack, fiber->stack_bytes);
  switch_stacks(&scheduler, fiber);
  __sanitizer_finish_switch_fiber(scheduler.fake_stack, nullptr, nullptr);
}

void emu_fiber_leave(emu_fiber *fiber, bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber->fake_stack, scheduler.stack, scheduler.stack_bytes);
  switch_stacks(fiber, &scheduler);
  arrive(fiber->fake_stack);
}
