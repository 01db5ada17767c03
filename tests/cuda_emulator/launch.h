/* Between the emulator's streams (runtime.cc) and its threads (emulator.cc). */
#ifndef SW_TESTS_CUDA_EMULATOR_LAUNCH_H
#define SW_TESTS_CUDA_EMULATOR_LAUNCH_H
#include <functional>
#include <string>

/* Runs every thread of every block; "" or what went wrong. */
std::string emu_run_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread_body);
/* "" or why hardware would refuse the launch. */
std::string emu_launch_problem(dim3 grid, dim3 block, size_t shared_bytes);
#endif
