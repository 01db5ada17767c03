/* One linear layer with everything that its calls need: what the tests of linear layers share. */
#ifndef SW_TESTS_LINEAR_LAYER_H
#define SW_TESTS_LINEAR_LAYER_H
#include "tests/support/kernel_test.h"

static const double unit = 0x1p-24; /* half a unit in the last place of 1 */

typedef struct {
  sw_linear_desc desc;
  kt_tensor *x, *weight, *bias, *prepared, *workspace, *pre, *y, *dy, *dx, *dweight, *dbias;
  int accumulate;
} layer;

static inline int64_t elements(const sw_linear_desc *d, int out) {
  return d->tokens * (out ? d->out_features : d->in_features);
}

static inline void prepare(kt *t, layer *l) {
  size_t bytes = 0;
  kt_ok(t, SW_RUN(&t->stream, linear_weight_bytes, &l->desc, &bytes));
  l->prepared = kt_bytes(t, "prepared", bytes);
  kt_ok(t, SW_RUN(&t->stream, linear_prepare, &l->desc, l->weight->data, l->prepared->data));
}

/* Normal values out of a pool, by a quick generator: drawing millions afresh would be most of the test's time. */
static inline double normal_value(kt *t) {
  enum { POOL = 8192 };
  static double pool[POOL];
  static uint64_t state = 0;
  for (int i = 0; !state && i < POOL; i++) pool[i] = kt_random_normal(t);
  if (!state) state = t->seed * 2 + 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return pool[state >> 51];
}

static inline void fill_normal(kt *t, kt_tensor *x) {
  for (int64_t i = 0; i < x->count; i++) x->host[i] = normal_value(t);
  kt_upload(t, x);
}

/* Tensors and normal values for a layer; the weight is uploaded as the dtype will hold it, so that the reference sees
 * the same. */
static inline layer make(kt *t, sw_linear_desc desc, int with_bias, int with_pre) {
  layer l = {.desc = desc};
  l.x = kt_new(t, "x", desc.dtype, elements(&desc, 0));
  l.weight = kt_new(t, "weight", SW_F32, (int64_t)desc.in_features * desc.out_features);
  l.dweight = kt_new(t, "dweight", SW_F32, l.weight->count);
  l.dbias = kt_new(t, "dbias", SW_F32, desc.out_features);
  l.y = kt_new(t, "y", desc.out_dtype, elements(&desc, 1));
  l.dy = kt_new(t, "dy", desc.out_dtype, elements(&desc, 1));
  l.dx = kt_new(t, "dx", desc.dtype, elements(&desc, 0));
  fill_normal(t, l.x);
  for (int64_t i = 0; i < l.weight->count; i++) {
    float w = (float)(normal_value(t) / sqrt(desc.in_features));
    l.weight->host[i] = desc.dtype == SW_BF16 ? sw_bf16_to_f32(sw_f32_to_bf16(w)) : w;
  }
  kt_upload(t, l.weight);
  fill_normal(t, l.dy);
  fill_normal(t, l.dweight);
  fill_normal(t, l.dbias);
  fill_normal(t, l.dx);
  if (with_bias) {
    l.bias = kt_new(t, "bias", SW_F32, desc.out_features);
    fill_normal(t, l.bias);
  }
  if (with_pre) l.pre = kt_new(t, "pre", desc.out_dtype, elements(&desc, 1));
  size_t bytes = 0;
  kt_ok(t, SW_RUN(&t->stream, linear_workspace, &desc, &bytes));
  l.workspace = kt_bytes(t, "workspace", bytes);
  prepare(t, &l);
  return l;
}

static inline void *data_of(kt_tensor *x) {
  return x ? x->data : NULL;
}

static inline void forward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, linear_forward, &l->desc, l->x->data, l->prepared->data, data_of(l->bias),
                  data_of(l->pre), l->y->data, l->workspace->data));
}

static inline void backward_input(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, linear_backward_input, &l->desc, l->dy->data, data_of(l->pre), l->prepared->data,
                  data_of(l->dx), l->accumulate, l->workspace->data));
}

static inline void backward_weight(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, linear_backward_weight, &l->desc, l->dy->data, l->x->data, l->dweight->data,
                  data_of(l->dbias), l->workspace->data));
}
#endif
