/* Attention on the CPU: see attention.h for what, vector.h for how. */
#include "kernels/attention/vector.h"
#include "kernels/isa.h"

#include <omp.h>

sw_attention_workspace_fn SW_CPU(attention_workspace);
sw_attention_forward_fn SW_CPU(attention_forward);
sw_attention_backward_fn SW_CPU(attention_backward);

enum { CHUNK = 128 }; /* queries that one item of forward takes */

int SW_CPU(attention_workspace)(sw_stream *stream, const sw_attention_desc *desc, size_t *bytes) {
  if (check(desc, NULL)) return -1;
  *bytes = scratch_bytes(desc) * (size_t)stream->threads;
  return 0;
}

int SW_CPU(attention_forward)(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens,
                              const void *qkv, void *out, float *lse, void *workspace) {
  if (check(desc, cu_seqlens)) return -1;
  job j = forward_job(desc, cu_seqlens, qkv, out, lse);
  int heads = desc->num_heads, chunks = (desc->max_seqlen + CHUNK - 1) / CHUNK;
  int64_t items = (int64_t)desc->batch * chunks * heads;
#pragma omp parallel num_threads(stream->threads) if (worth_threads(desc))
  {
    scratch s = scratch_of(&j, (char *)workspace + (size_t)omp_get_thread_num() * scratch_bytes(desc));
#pragma omp for schedule(dynamic, grain(items, stream->threads))
    for (int64_t item = 0; item < items; item++) {
      int head = (int)(item % heads), chunk = (int)(item / heads % chunks), sequence = (int)(item / heads / chunks);
      if (chunk * CHUNK >= cu_seqlens[sequence + 1] - cu_seqlens[sequence]) continue;
      if (desc->dtype == SW_F32)
        forward_f32(&j, &s, sequence, head, chunk * CHUNK, CHUNK);
      else
        forward_bf16(&j, &s, sequence, head, chunk * CHUNK, CHUNK);
    }
  }
  return 0;
}

int SW_CPU(attention_backward)(sw_stream *stream, const sw_attention_desc *desc, const int32_t *cu_seqlens,
                               const void *qkv, const void *out, const float *lse, const void *dout, void *dqkv,
                               void *workspace) {
  if (check(desc, cu_seqlens)) return -1;
  job j = {.desc = desc,
           .cu_seqlens = cu_seqlens,
           .qkv = qkv,
           .dout = dout,
           .dqkv = dqkv,
           .lse = (float *)lse,
           .padded = padded_size(desc->head_size)};
  int heads = desc->num_heads;
  int64_t items = (int64_t)desc->batch * heads;
#pragma omp parallel num_threads(stream->threads) if (worth_threads(desc))
  {
    scratch s = scratch_of(&j, (char *)workspace + (size_t)omp_get_thread_num() * scratch_bytes(desc));
#pragma omp for schedule(dynamic, grain(items, stream->threads))
    for (int64_t item = 0; item < items; item++) {
      int head = (int)(item % heads), sequence = (int)(item / heads);
      if (cu_seqlens[sequence + 1] == cu_seqlens[sequence]) continue;
      if (desc->dtype == SW_F32)
        backward_f32(&j, &s, sequence, head);
      else
        backward_bf16(&j, &s, sequence, head);
    }
  }
  return 0;
}
