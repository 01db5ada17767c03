/* Fibers: functions with stacks of their own that hand control to and fro, known to AddressSanitizer. */
#ifndef SW_TESTS_CUDA_EMULATOR_FIBERS_H
#define SW_TESTS_CUDA_EMULATOR_FIBERS_H
#include <cstddef>

struct emu_fiber {
  void *stack = nullptr; /* mapped memory; a page that cannot be touched lies below */
  size_t stack_bytes = 0;
  void *saved = nullptr; /* stack pointer while it does not run */
  void *fake_stack = nullptr;
};

/* 0, or -1 when there is no memory. */
int emu_fiber_open(emu_fiber *fiber, size_t stack_bytes);
void emu_fiber_close(emu_fiber *fiber);
/* Makes the fiber start at `entry` when it is next entered, whatever it did before. `entry` must never return. */
void emu_fiber_start(emu_fiber *fiber, void (*entry)());
/* From the scheduler: runs the fiber until it leaves. */
void emu_fiber_enter(emu_fiber *fiber);
/* From a fiber: back to the scheduler; `for_good` when it will not be entered again before emu_fiber_start. */
void emu_fiber_leave(emu_fiber *fiber, bool for_good);
#endif
