/* Number formats and conversions. bfloat16 is the upper half of an IEEE 754 binary32, rounded to nearest even. */
#ifndef SW_KERNELS_DTYPE_H
#define SW_KERNELS_DTYPE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { SW_F32 = 0, SW_BF16 = 1 } sw_dtype;
typedef uint16_t sw_bf16;

static inline size_t sw_dtype_bytes(sw_dtype dtype) { return dtype == SW_F32 ? 4 : 2; }
static inline const char *sw_dtype_name(sw_dtype dtype) { return dtype == SW_F32 ? "fp32" : "bf16"; }

static inline float sw_bf16_to_f32(sw_bf16 h) {
  uint32_t bits = (uint32_t)h << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static inline sw_bf16 sw_f32_to_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (sw_bf16)(bits >> 16 | 0x40); /* NaN stays NaN */
  return (sw_bf16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
#endif
