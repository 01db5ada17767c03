/* Every kernels/<operator>/cpu.c is compiled once for each instruction set; SW_CPU(name) is the function's name in this one. */
#ifndef SW_KERNELS_ISA_H
#define SW_KERNELS_ISA_H
#ifndef SW_ISA
#define SW_ISA baseline
#endif
#define SW_JOIN_(a, b) sw_##a##_##b
#define SW_JOIN(a, b) SW_JOIN_(a, b)
#define SW_CPU(name) SW_JOIN(name, SW_ISA)
#endif
