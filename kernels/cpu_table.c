/* The CPU's operator table for one instruction set (compiled once for each). */
#include "kernels/backend.h"
#include "kernels/isa.h"

#define X(name) sw_##name##_fn SW_CPU(name);
SW_OPERATOR_LIST(X)
#undef X

extern const sw_operators SW_CPU(operators);
const sw_operators SW_CPU(operators) = {
#define X(name) .name = SW_CPU(name),
    SW_OPERATOR_LIST(X)
#undef X
};
