/* Plain fp64 reference of attention, for tests: the whole matrix of probabilities of one (sequence, head) at a time.
 * Arguments as in attention.h. */
#ifndef SW_KERNELS_ATTENTION_REFERENCE_H
#define SW_KERNELS_ATTENTION_REFERENCE_H
#include "kernels/backend.h"

/* out [total, heads * size], lse [total, heads] or NULL */
void sw_reference_attention_forward(const sw_attention_desc *desc, const int32_t *cu_seqlens, const double *qkv,
                                    double *out, double *lse);
/* From qkv and dout alone; dqkv is overwritten. */
void sw_reference_attention_backward(const sw_attention_desc *desc, const int32_t *cu_seqlens, const double *qkv,
                                     const double *dout, double *dqkv);
#endif
