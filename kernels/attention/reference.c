#include "kernels/attention/reference.h"
#include "base/philox.h"

#include <math.h>
#include <string.h>

static double multiplier(const sw_dropout *d, uint64_t row, int key) {
  if (d->p == 0) return 1;
  uint64_t index = d->first + (row << 10 | (uint64_t)key), block = index >> 2;
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), d->site, d->step}, words[4];
  sw_philox(d->seed, counter, words);
  return words[index & 3] >= (double)d->p * 4294967296.0 ? 1.0 / (1.0 - (double)d->p) : 0;
}
static const double *part(const sw_attention_desc *d, const double *qkv, int64_t token, int which, int head) {
  return qkv + ((token * 3 + which) * d->num_heads + head) * d->head_size;
}
/* Softmax of one query's scores; returns log sum exp. */
static double probabilities(const sw_attention_desc *d, const double *qkv, int64_t begin, int length, int query,
                            int head, double *p) {
  const double *q = part(d, qkv, begin + query, 0, head);
  double most = -INFINITY, sum = 0;
  for (int k = 0; k < length; k++) {
    const double *key = part(d, qkv, begin + k, 1, head);
    p[k] = 0;
    for (int c = 0; c < d->head_size; c++) p[k] += q[c] * key[c];
    p[k] *= (double)d->scale;
    if (!(p[k] <= most)) most = p[k];
  }
  for (int k = 0; k < length; k++) sum += p[k] = exp(p[k] - most);
  for (int k = 0; k < length; k++) p[k] /= sum;
  return most + log(sum);
}

void sw_reference_attention_forward(const sw_attention_desc *d, const int32_t *cu_seqlens, const double *qkv,
                                    double *out, double *lse) {
  double p[1024];
  for (int s = 0; s < d->batch; s++)
    for (int head = 0; head < d->num_heads; head++) {
      int64_t begin = cu_seqlens[s];
      int length = cu_seqlens[s + 1] - cu_seqlens[s];
      for (int i = 0; i < length; i++) {
        uint64_t row = (uint64_t)((begin + i) * d->num_heads + head);
        double *o = out + row * (uint64_t)d->head_size, l = probabilities(d, qkv, begin, length, i, head, p);
        if (lse) lse[row] = l;
        memset(o, 0, (size_t)d->head_size * sizeof *o);
        for (int k = 0; k < length; k++) {
          double weight = p[k] * multiplier(&d->dropout, row, k);
          for (int c = 0; c < d->head_size; c++) o[c] += weight * part(d, qkv, begin + k, 2, head)[c];
        }
      }
    }
}

/* The chain rule through each step: out = W V, W = P o M, P = softmax(S), S = scale Q K^T. */
void sw_reference_attention_backward(const sw_attention_desc *d, const int32_t *cu_seqlens, const double *qkv,
                                     const double *dout, double *dqkv) {
  double p[1024], dp[1024];
  memset(dqkv, 0, (size_t)d->total_tokens * 3 * (size_t)d->num_heads * (size_t)d->head_size * sizeof *dqkv);
  for (int s = 0; s < d->batch; s++)
    for (int head = 0; head < d->num_heads; head++) {
      int64_t begin = cu_seqlens[s];
      int length = cu_seqlens[s + 1] - cu_seqlens[s];
      for (int i = 0; i < length; i++) {
        uint64_t row = (uint64_t)((begin + i) * d->num_heads + head);
        const double *g = dout + row * (uint64_t)d->head_size, *q = part(d, qkv, begin + i, 0, head);
        double *dq = (double *)part(d, dqkv, begin + i, 0, head), inner = 0;
        probabilities(d, qkv, begin, length, i, head, p);
        for (int k = 0; k < length; k++) {
          const double *value = part(d, qkv, begin + k, 2, head);
          double *dvalue = (double *)part(d, dqkv, begin + k, 2, head), keep = multiplier(&d->dropout, row, k);
          dp[k] = 0;
          for (int c = 0; c < d->head_size; c++) {
            dvalue[c] += p[k] * keep * g[c];
            dp[k] += keep * g[c] * value[c];
          }
          inner += p[k] * dp[k];
        }
        for (int k = 0; k < length; k++) {
          double ds = p[k] * (dp[k] - inner) * (double)d->scale; /* the softmax's Jacobian: diag(p) - p p^T */
          const double *key = part(d, qkv, begin + k, 1, head);
          double *dkey = (double *)part(d, dqkv, begin + k, 1, head);
          for (int c = 0; c < d->head_size; c++) {
            dq[c] += ds * key[c];
            dkey[c] += ds * q[c];
          }
        }
      }
    }
}
