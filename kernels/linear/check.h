/* What the linear layers of every backend refuse, in the same words. */
#ifndef SW_KERNELS_LINEAR_CHECK_H
#define SW_KERNELS_LINEAR_CHECK_H
#include "base/error.h"
#include "kernels/backend.h"

/* An enum as the number it holds: C++ must not even read a value that the enum lacks. */
static inline int linear_number(const void *value) {
  int number;
  memcpy(&number, value, sizeof number);
  return number;
}
static inline int linear_check_desc(const sw_stream *stream, const sw_linear_desc *d) {
  if (d->tokens < 0 || d->in_features < 1 || d->out_features < 1)
    return sw_fail("linear: %lld tokens of %d features to %d: sizes must be positive", (long long)d->tokens, d->in_features,
                   d->out_features);
  const int dtype = linear_number(&d->dtype), out_dtype = linear_number(&d->out_dtype), activation = linear_number(&d->activation);
  if ((dtype != SW_F32 && dtype != SW_BF16) || (out_dtype != SW_F32 && out_dtype != SW_BF16) || activation < SW_NO_ACTIVATION ||
      activation > SW_RELU)
    return sw_fail("linear: unknown dtype %d, output dtype %d or activation %d", dtype, out_dtype, activation);
  if (stream->threads < 1) return sw_fail("linear: the stream has %d threads", stream->threads);
  return 0;
}
static inline int linear_check_backward_input(const sw_linear_desc *d, const void *pre, const void *dx) {
  if (dx && !d->training) return sw_fail("linear: the weight was prepared without training, so it has no backward form");
  if (d->activation && !pre) return sw_fail("linear: the gradient of an activation needs the values before it");
  return 0;
}
static inline int linear_check_backward_weight(const sw_linear_desc *d) {
  return d->training ? 0 : sw_fail("linear: gradients need a layer made for training");
}
#endif
