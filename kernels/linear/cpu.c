/* Linear layers on any CPU: the matrix products are oneDNN's, which picks SSE4.1, AVX2, AVX-512 or AVX512-BF16 at run
 * time.
 *
 * Rows go through in chunks of a fixed size (the last one padded with zeros) and columns in fixed blocks, each a
 * product of one thread; threads share the chunks and blocks. So one row's result comes from the same instructions
 * whatever the other rows are and however many threads there are. Few rows use a smaller chunk, but only where both
 * sizes were seen to give the same bits (try_small).
 *
 * oneDNN's primitives are made once for each shape and kept for the life of the process; a mutex guards the list. Their
 * scratch memory is part of the workspace. bf16 on a processor without bf16 products: the same numbers multiplied in
 * fp32. */
#include "kernels/linear/epilogue.h"
#include "kernels/isa.h"
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>

sw_linear_weight_bytes_fn SW_CPU(linear_weight_bytes);
sw_linear_prepare_fn SW_CPU(linear_prepare);
sw_linear_workspace_fn SW_CPU(linear_workspace);
sw_linear_forward_fn SW_CPU(linear_forward);
sw_linear_backward_input_fn SW_CPU(linear_backward_input);
sw_linear_backward_weight_fn SW_CPU(linear_backward_weight);

enum { CHUNK = 64, SMALL = 16, COLUMNS = 256, TOKENS = 256, STRIPE = 128 };

/* ------------------------------------------------ oneDNN ------------------------------------------------ */

typedef struct {
  int64_t m, n, k;
  int64_t weight_k, weight_n; /* distance of two k and of two n in the weight that is prepared */
  int gradient; /* C [m, n] += A^T B with A [k, m] and B [k, n] as they are; else C = A [m, k] B, B prepared */
  int bf16;
} shape;

typedef struct product {
  shape shape;
  dnnl_primitive_t primitive, small; /* small: the same with m = SMALL, or NULL */
  dnnl_primitive_t reorder;          /* plain weight to the layout B has */
  dnnl_memory_desc_t a, b, c, a_small, c_small, plain, scratch, scratch_small;
  size_t b_bytes, scratch_bytes; /* rounded up to 64 */
  struct product *next;
} product;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static dnnl_engine_t engine;
static int bf16_native;
static product *products;

static size_t round_bytes(size_t n) {
  return (n + 63) / 64 * 64;
}

static int dnn_fail(const char *what, dnnl_status_t status) {
  return sw_fail("linear: oneDNN cannot %s (status %d)", what, (int)status);
}

/* With the mutex held. */
static int open_engine(void) {
  if (engine) return 0;
#if defined(__AVX512F__)
  dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
#elif defined(__AVX2__)
  dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
#elif defined(__SSE2__)
  dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
#endif /* refused where oneDNN was used before or was built without this: it then uses what the machine has, which is  \
          as right */
  dnnl_status_t status = dnnl_engine_create(&engine, dnnl_cpu, 0);
  if (status) return dnn_fail("start", status);
  dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  bf16_native = isa == dnnl_cpu_isa_avx512_core_bf16 || isa == dnnl_cpu_isa_avx512_core_amx;
  return 0;
}

typedef struct {
  int argument;
  const dnnl_memory_desc_t *desc;
  void *data;
} operand;

/* Runs a primitive on the calling thread. */
static dnnl_status_t execute(dnnl_primitive_t primitive, const operand *operands, int count) {
  dnnl_stream_t stream = NULL;
  dnnl_exec_arg_t arguments[4];
  int made = 0;
  dnnl_status_t status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
  for (; !status && made < count; made++) {
    arguments[made].arg = operands[made].argument;
    status = dnnl_memory_create(&arguments[made].memory, operands[made].desc, engine, operands[made].data);
    if (status) break;
  }
  if (!status) status = dnnl_primitive_execute(primitive, stream, count, arguments);
  if (!status) status = dnnl_stream_wait(stream);
  for (int i = 0; i < made; i++) dnnl_memory_destroy(arguments[i].memory);
  if (stream) dnnl_stream_destroy(stream);
  return status;
}
static dnnl_status_t multiply(const product *p, int small, const void *a, const void *b, float *c, void *scratch) {
  operand operands[4] = {{DNNL_ARG_SRC, small ? &p->a_small : &p->a, (void *)a},
                         {DNNL_ARG_WEIGHTS, &p->b, (void *)b},
                         {DNNL_ARG_DST, small ? &p->c_small : &p->c, c},
                         {DNNL_ARG_SCRATCHPAD, small ? &p->scratch_small : &p->scratch, scratch}};
  return execute(small ? p->small : p->primitive, operands, 4);
}

/* A product of m rows; `b` may still be open (dnnl_format_tag_any) and then says afterwards what was chosen. */
static dnnl_status_t make_primitive(const shape *s, int64_t m, dnnl_memory_desc_t *a, dnnl_memory_desc_t *b,
                                    dnnl_memory_desc_t *c, dnnl_memory_desc_t *scratch, dnnl_primitive_t *out) {
  dnnl_data_type_t type = s->bf16 ? dnnl_bf16 : dnnl_f32;
  dnnl_matmul_desc_t desc;
  dnnl_primitive_attr_t attributes = NULL;
  dnnl_post_ops_t post_ops = NULL;
  dnnl_primitive_desc_t chosen = NULL;
  dnnl_status_t status = dnnl_memory_desc_init_by_strides(a, 2, (dnnl_dims_t){m, s->k}, type,
                                                          s->gradient ? (dnnl_dims_t){1, m} : (dnnl_dims_t){s->k, 1});
  if (!status)
    status = dnnl_memory_desc_init_by_strides(c, 2, (dnnl_dims_t){m, s->n}, dnnl_f32, (dnnl_dims_t){s->n, 1});
  if (!status) status = dnnl_matmul_desc_init(&desc, a, b, NULL, c);
  if (!status) status = dnnl_primitive_attr_create(&attributes);
  if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
  if (!status && s->gradient) {
    status = dnnl_post_ops_create(&post_ops);
    if (!status) status = dnnl_post_ops_append_sum(post_ops, 1);
    if (!status) status = dnnl_primitive_attr_set_post_ops(attributes, post_ops);
  }
  if (!status) status = dnnl_primitive_desc_create(&chosen, &desc, attributes, engine, NULL);
  if (!status) {
    *b = *dnnl_primitive_desc_query_md(chosen, dnnl_query_weights_md, 0);
    *scratch = *dnnl_primitive_desc_query_md(chosen, dnnl_query_scratchpad_md, 0);
    status = dnnl_primitive_create(out, chosen);
  }
  if (chosen) dnnl_primitive_desc_destroy(chosen);
  if (post_ops) dnnl_post_ops_destroy(post_ops);
  if (attributes) dnnl_primitive_attr_destroy(attributes);
  return status;
}
static void close_product(product *p) {
  if (p->primitive) dnnl_primitive_destroy(p->primitive);
  if (p->small) dnnl_primitive_destroy(p->small);
  if (p->reorder) dnnl_primitive_destroy(p->reorder);
  free(p);
}

/* Makes p->small, multiplies arbitrary numbers by both primitives and keeps it only when every bit agrees: which
 * instructions a row meets does not depend on the numbers. */
static int try_small(product *p) {
  const shape *s = &p->shape;
  dnnl_memory_desc_t b = p->b;
  size_t size = s->bf16 ? 2 : 4, a_bytes = round_bytes((size_t)(CHUNK * s->k) * size),
         c_bytes = round_bytes((size_t)(CHUNK * s->n) * 4);
  if (make_primitive(s, SMALL, &p->a_small, &b, &p->c_small, &p->scratch_small, &p->small)) {
    p->small = NULL;
    return 0;
  }
  size_t scratch = round_bytes(dnnl_memory_desc_get_size(&p->scratch_small));
  if (scratch > p->scratch_bytes) p->scratch_bytes = scratch;
  char *memory = sw_alloc_aligned(a_bytes + p->b_bytes + 2 * c_bytes + p->scratch_bytes);
  if (!memory) return -1;
  char *a = memory, *weight = a + a_bytes, *c = weight + p->b_bytes, *c_small = c + c_bytes,
       *scratch_memory = c_small + c_bytes;
  uint32_t state = 1;
  for (size_t i = 0; i < (a_bytes + p->b_bytes) / 2;
       i++) { /* bf16, or halves of fp32, of magnitudes around 1 and either sign */
    state = state * 1664525u + 1013904223u;
    uint16_t h = (uint16_t)((state >> 16 & 0x81ff) | 0x3e00);
    memcpy(memory + 2 * i, &h, 2);
  }
  int same = dnnl_memory_desc_equal(&b, &p->b) && !multiply(p, 0, a, weight, (float *)c, scratch_memory);
  for (int64_t row = 0; same && row < CHUNK; row += SMALL)
    same = !multiply(p, 1, a + (size_t)(row * s->k) * size, weight, (float *)c_small + row * s->n, scratch_memory);
  if (!same || memcmp(c, c_small, (size_t)(CHUNK * s->n) * 4)) {
    dnnl_primitive_destroy(p->small);
    p->small = NULL;
  }
  free(memory);
  return 0;
}

static product *make_product(const shape *s) {
  product *p = sw_alloc(sizeof *p);
  if (!p) return NULL;
  p->shape = *s;
  dnnl_dims_t b_dims = {s->k, s->n};
  dnnl_data_type_t type = s->bf16 ? dnnl_bf16 : dnnl_f32;
  dnnl_primitive_desc_t chosen = NULL;
  dnnl_status_t status = s->gradient ? dnnl_memory_desc_init_by_strides(&p->b, 2, b_dims, type, (dnnl_dims_t){s->n, 1})
                                     : dnnl_memory_desc_init_by_tag(&p->b, 2, b_dims, type, dnnl_format_tag_any);
  if (!status) status = make_primitive(s, s->m, &p->a, &p->b, &p->c, &p->scratch, &p->primitive);
  p->b_bytes = round_bytes(dnnl_memory_desc_get_size(&p->b));
  p->scratch_bytes = round_bytes(dnnl_memory_desc_get_size(&p->scratch));
  if (!status && !s->gradient) {
    status = dnnl_memory_desc_init_by_strides(&p->plain, 2, b_dims, dnnl_f32, (dnnl_dims_t){s->weight_k, s->weight_n});
    if (!status) status = dnnl_reorder_primitive_desc_create(&chosen, &p->plain, engine, &p->b, engine, NULL);
    if (!status) status = dnnl_primitive_create(&p->reorder, chosen);
    if (chosen) dnnl_primitive_desc_destroy(chosen);
    if (!status && try_small(p)) {
      close_product(p);
      return NULL;
    }
  }
  if (status) {
    dnn_fail("prepare a matrix product", status);
    close_product(p);
    return NULL;
  }
  return p;
}

/* The kept product of this shape; NULL with the message set. */
static const product *find_product(const shape *s) {
  product *p = NULL;
  pthread_mutex_lock(&mutex);
  if (!open_engine()) {
    for (p = products; p && memcmp(&p->shape, s, sizeof *s); p = p->next) {
    }
    if (!p) {
#pragma omp parallel num_threads(1)
      { /* a region of its own: oneDNN then plans for one thread, and the caller's setting stays */
        omp_set_num_threads(1);
        p = make_product(s);
      }
      if (p) {
        p->next = products;
        products = p;
      }
    }
  }
  pthread_mutex_unlock(&mutex);
  return p;
}

/* ------------------------------------------------ one layer's products
 * ------------------------------------------------ */

/* A weight's columns in blocks: all of `columns`, the last perhaps fewer. */
typedef struct {
  int64_t k, n, columns, blocks;
  const product *whole, *last;
  size_t bytes; /* of the prepared form */
  int bf16;     /* A is bf16 (else fp32) */
} blocked;

/* weight [out, in]. forward: k = in, n = out; backward: k = out, n = in. */
static int find_blocked(const sw_linear_desc *desc, int backward, blocked *b) {
  int64_t in = desc->in_features, out = desc->out_features;
  pthread_mutex_lock(&mutex);
  int failed = open_engine();
  pthread_mutex_unlock(&mutex);
  if (failed) return -1;
  *b = (blocked){.k = backward ? out : in, .n = backward ? in : out, .bf16 = desc->dtype == SW_BF16 && bf16_native};
  b->blocks = (b->n + COLUMNS - 1) / COLUMNS;
  b->columns = linear_min(b->n, linear_round_up((b->n + b->blocks - 1) / b->blocks, 64));
  b->blocks = (b->n + b->columns - 1) / b->columns;
  shape s = {.m = CHUNK,
             .n = b->columns,
             .k = b->k,
             .weight_k = backward ? in : 1,
             .weight_n = backward ? 1 : in,
             .bf16 = b->bf16};
  b->whole = find_product(&s);
  s.n = b->n - (b->blocks - 1) * b->columns;
  b->last = find_product(&s);
  if (!b->whole || !b->last) return -1;
  b->bytes = (size_t)(b->blocks - 1) * b->whole->b_bytes + b->last->b_bytes;
  return 0;
}
static const product *product_of(const blocked *b, int64_t block) {
  return block + 1 < b->blocks ? b->whole : b->last;
}

/* bf16 layers multiplied in fp32 need the weight rounded: a copy of it, behind the prepared forms. */
static size_t rounded_bytes(const sw_linear_desc *desc, const blocked *b) {
  return desc->dtype == SW_BF16 && !b->bf16 ? (size_t)desc->in_features * (size_t)desc->out_features * 4 : 0;
}

int SW_CPU(linear_weight_bytes)(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes) {
  blocked forward, backward = {0};
  if (linear_check(stream, desc) || find_blocked(desc, 0, &forward) ||
      (desc->training && find_blocked(desc, 1, &backward)))
    return -1;
  *bytes = forward.bytes + backward.bytes + rounded_bytes(desc, &forward);
  return 0;
}

int SW_CPU(linear_prepare)(sw_stream *stream, const sw_linear_desc *desc, const float *weight, void *prepared) {
  blocked forward, backward = {0};
  if (linear_check(stream, desc) || find_blocked(desc, 0, &forward) ||
      (desc->training && find_blocked(desc, 1, &backward)))
    return -1;
  int64_t in = desc->in_features, out = desc->out_features;
  int failed = 0, threads = in * out < 1 << 15 ? 1 : stream->threads;
  float *rounded = (float *)((char *)prepared + forward.bytes + backward.bytes);
  int round = rounded_bytes(desc, &forward) > 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    omp_set_num_threads(1);
    if (round) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < out; row++)
        for (int64_t i = row * in; i < (row + 1) * in; i++) rounded[i] = sw_bf16_to_f32(sw_f32_to_bf16(weight[i]));
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < forward.blocks + backward.blocks; i++) {
      const blocked *b = i < forward.blocks ? &forward : &backward;
      int64_t block = i < forward.blocks ? i : i - forward.blocks;
      const product *p = product_of(b, block);
      const float *from = (round ? rounded : weight) + block * b->columns * p->shape.weight_n;
      char *to = (char *)prepared + (b == &backward ? forward.bytes : 0) + (size_t)block * b->whole->b_bytes;
      operand operands[2] = {{DNNL_ARG_FROM, &p->plain, (void *)from}, {DNNL_ARG_TO, &p->b, to}};
      if (execute(p->reorder, operands, 2)) {
#pragma omp atomic write
        failed = 1;
      }
    }
  }
  return failed ? sw_fail("linear: oneDNN could not lay out a weight of %lld x %lld", (long long)out, (long long)in)
                : 0;
}

/* `count` elements of either dtype as fp32 or bf16; with `round`, fp32 holds what bf16 would. */
static void convert(const void *from, sw_dtype dtype, int64_t at, int64_t count, int to_bf16, int round, void *to) {
  if (to_bf16 ? dtype == SW_BF16 : dtype == SW_F32 && !round) {
    size_t size = sw_dtype_bytes(dtype);
    memcpy(to, (const char *)from + (size_t)at * size, (size_t)count * size);
    return;
  }
  for (int64_t i = 0; i < count; i++) {
    float v = sw_get(from, dtype, at + i);
    sw_bf16 h = sw_f32_to_bf16(v);
    if (to_bf16)
      ((sw_bf16 *)to)[i] = h;
    else
      ((float *)to)[i] = round ? sw_bf16_to_f32(h) : v;
  }
}

/* Scratch of one thread for rows times a prepared weight: a chunk of A, a block of C, oneDNN's own. */
typedef struct {
  size_t a, c, dnn, all;
} scratch_sizes;
static scratch_sizes rows_scratch(const blocked *b) {
  scratch_sizes s = {.a = round_bytes((size_t)(CHUNK * b->k) * (b->bf16 ? 2 : 4)),
                     .c = round_bytes((size_t)(CHUNK * b->columns) * 4)};
  s.dnn = b->whole->scratch_bytes > b->last->scratch_bytes ? b->whole->scratch_bytes : b->last->scratch_bytes;
  s.all = s.a + s.c + s.dnn;
  return s;
}

typedef struct {
  const sw_linear_desc *desc;
  const blocked *b;
  const void *a;
  sw_dtype a_dtype;
  const char *prepared;
  void *dy; /* not NULL: a is dy, still without the activation's gradient at `pre` */
  const void *pre;
  linear_output out;
} rows_job;

/* Rows [from, from + rows), rows <= CHUNK, by the blocks [first, last). */
static dnnl_status_t run_chunk(const rows_job *j, int64_t from, int64_t rows, int64_t first, int64_t last,
                               char *scratch) {
  const blocked *b = j->b;
  scratch_sizes sizes = rows_scratch(b);
  float *c = (float *)(scratch + sizes.a);
  int64_t size = b->bf16 ? 2 : 4;
  int same_type = j->a_dtype == (b->bf16 ? SW_BF16 : SW_F32), round = j->desc->dtype == SW_BF16 && !b->bf16;
  const char *a = (const char *)j->a + from * b->k * size;
  if (!same_type || rows < CHUNK || (round && j->a_dtype == SW_F32)) {
    convert(j->a, j->a_dtype, from * b->k, rows * b->k, b->bf16, round, scratch);
    memset(scratch + rows * b->k * size, 0, (size_t)((CHUNK - rows) * b->k * size));
    a = scratch;
  }
  for (int64_t block = first; block < last; block++) {
    const product *p = product_of(b, block);
    const char *weight = j->prepared + (size_t)block * b->whole->b_bytes;
    int small = p->small && rows <= CHUNK - SMALL;
    for (int64_t row = 0; row < rows; row += small ? SMALL : CHUNK) {
      dnnl_status_t status =
          multiply(p, small, a + row * b->k * size, weight, c + row * p->shape.n, scratch + sizes.a + sizes.c);
      if (status) return status;
    }
    linear_finish(&j->out, c, p->shape.n, from, (int)rows, (int)(block * b->columns), (int)p->shape.n);
  }
  return dnnl_success;
}

static int run_rows(sw_stream *stream, rows_job *j, char *workspace) {
  const blocked *b = j->b;
  int64_t rows = j->desc->tokens, chunks = (rows + CHUNK - 1) / CHUNK;
  int failed = 0, threads = (double)rows * b->k * b->n < 1e6 ? 1 : stream->threads;
  int64_t parts =
      linear_min((threads + chunks - 1) / chunks, b->blocks); /* a task is a chunk by a part of the blocks */
  size_t bytes = rows_scratch(b).all;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    omp_set_num_threads(1);
    char *own = workspace + (size_t)omp_get_thread_num() * bytes;
    if (j->dy) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; row++) linear_gradient(j->desc, j->dy, j->pre, row, row + 1);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < chunks * parts; task++) {
      int64_t from = task / parts * CHUNK, part = task % parts;
      if (run_chunk(j, from, linear_min(CHUNK, rows - from), b->blocks * part / parts, b->blocks * (part + 1) / parts,
                    own)) {
#pragma omp atomic write
        failed = 1;
      }
    }
  }
  return failed ? sw_fail("linear: oneDNN could not multiply %lld x %lld x %lld", (long long)rows, (long long)b->k,
                          (long long)b->n)
                : 0;
}

int SW_CPU(linear_forward)(sw_stream *stream, const sw_linear_desc *desc, const void *x, const void *prepared,
                           const float *bias, void *pre, void *y, void *workspace) {
  blocked b;
  if (linear_check(stream, desc)) return -1;
  if (!desc->tokens) return 0;
  if (find_blocked(desc, 0, &b)) return -1;
  rows_job j = {.desc = desc,
                .b = &b,
                .a = x,
                .a_dtype = desc->dtype,
                .prepared = prepared,
                .out = {.y = y,
                        .pre = pre,
                        .bias = bias,
                        .ld = desc->out_features,
                        .dtype = desc->out_dtype,
                        .activation = desc->activation}};
  return run_rows(stream, &j, workspace);
}

int SW_CPU(linear_backward_input)(sw_stream *stream, const sw_linear_desc *desc, void *dy, const void *pre,
                                  const void *prepared, void *dx, int accumulate, void *workspace) {
  blocked forward, backward;
  if (linear_check(stream, desc) || linear_check_backward_input(desc, pre, dx)) return -1;
  if (!desc->tokens) return 0;
  if (!dx) {
    int threads = desc->tokens * desc->out_features < 1 << 14 ? 1 : stream->threads;
    if (!desc->activation) return 0;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < desc->tokens; row++) linear_gradient(desc, dy, pre, row, row + 1);
    return 0;
  }
  if (find_blocked(desc, 0, &forward) || find_blocked(desc, 1, &backward)) return -1;
  rows_job j = {.desc = desc,
                .b = &backward,
                .a = dy,
                .a_dtype = desc->out_dtype,
                .prepared = (const char *)prepared + forward.bytes,
                .dy = desc->activation ? dy : NULL,
                .pre = pre,
                .out = {.y = dx, .ld = desc->in_features, .dtype = desc->dtype, .accumulate = accumulate}};
  return run_rows(stream, &j, workspace);
}

/* ------------------------------------------------ weight gradients ------------------------------------------------ */
/* A task is a stripe of output features over all tokens, TOKENS at a time in order; what is left is padded with zeros
 * to a power of 2. The additions to one element are in the same order whatever the threads. */

static int64_t chunk_of(int64_t tokens) {
  int64_t chunk = TOKENS;
  while (chunk > 16 && chunk / 2 >= tokens) chunk /= 2;
  return chunk;
}
static const product *gradient_product(const sw_linear_desc *desc, int64_t columns, int64_t tokens) {
  return find_product(&(shape){.m = columns,
                               .n = desc->in_features,
                               .k = chunk_of(tokens),
                               .gradient = 1,
                               .bf16 = desc->dtype == SW_BF16 && bf16_native});
}
typedef struct {
  const product *of[2][2]; /* [last stripe][last chunk] */
  int64_t stripe, stripes, chunks;
  size_t x, g, dnn, all;
} gradient_plan;
static int plan_gradient(const sw_linear_desc *desc, gradient_plan *plan) {
  int64_t out = desc->out_features, tokens = linear_max(desc->tokens, 1);
  *plan = (gradient_plan){.stripe = linear_min(STRIPE, out)};
  pthread_mutex_lock(&mutex);
  int failed = open_engine();
  pthread_mutex_unlock(&mutex);
  if (failed) return -1;
  plan->stripes = (out + plan->stripe - 1) / plan->stripe;
  plan->chunks = (tokens + TOKENS - 1) / TOKENS;
  for (int i = 0; i < 4; i++) {
    int64_t columns = i / 2 ? out - (plan->stripes - 1) * plan->stripe : plan->stripe;
    const product *p =
        gradient_product(desc, columns, i % 2 || plan->chunks == 1 ? tokens - (plan->chunks - 1) * TOKENS : TOKENS);
    if (!p) return -1;
    plan->of[i / 2][i % 2] = p;
    if (p->scratch_bytes > plan->dnn) plan->dnn = p->scratch_bytes;
  }
  int64_t most = chunk_of(tokens);
  plan->x = round_bytes((size_t)(most * desc->in_features) * 4);
  plan->g = round_bytes((size_t)(most * plan->stripe) * 4);
  plan->all = plan->x + plan->g + plan->dnn;
  return 0;
}

int SW_CPU(linear_workspace)(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes) {
  blocked forward, backward;
  if (linear_check(stream, desc) || find_blocked(desc, 0, &forward)) return -1;
  size_t most = rows_scratch(&forward).all;
  if (desc->training) {
    /* fewer tokens mean other products, with scratch of their own */
    sw_linear_desc fewer = *desc;
    if (find_blocked(desc, 1, &backward)) return -1;
    if (rows_scratch(&backward).all > most) most = rows_scratch(&backward).all;
    for (int64_t tokens = TOKENS; tokens >= 16; tokens /= 2) {
      gradient_plan plan;
      if (tokens > chunk_of(desc->tokens)) continue;
      fewer.tokens = tokens;
      if (plan_gradient(&fewer, &plan)) return -1;
      if (plan.all > most) most = plan.all;
    }
  }
  *bytes = (size_t)stream->threads * most;
  return 0;
}

/* sums[0, n) += the sum over rows of g [rows, ld], row after row. */
static void add_column_sums(const void *g, sw_dtype dtype, int64_t ld, int64_t first, int64_t n, int64_t from,
                            int64_t to, float *sums) {
  int64_t col = 0;
  for (; col + SW_LANES <= n; col += SW_LANES) {
    vf sum = vf_zero();
    for (int64_t row = from; row < to; row++) sum += vf_get(g, dtype, row * ld + first + col);
    vf_store(sums + first + col, vf_load(sums + first + col) + sum);
  }
  for (; col < n; col++) {
    float sum = 0;
    for (int64_t row = from; row < to; row++) sum += sw_get(g, dtype, row * ld + first + col);
    sums[first + col] += sum;
  }
}

int SW_CPU(linear_backward_weight)(sw_stream *stream, const sw_linear_desc *desc, const void *g, const void *x,
                                   float *dweight, float *dbias, void *workspace) {
  gradient_plan plan;
  if (linear_check(stream, desc) || linear_check_backward_weight(desc)) return -1;
  if (!desc->tokens) return 0;
  if (plan_gradient(desc, &plan)) return -1;
  int64_t tokens = desc->tokens, in = desc->in_features, out = desc->out_features;
  int bf16 = desc->dtype == SW_BF16 && bf16_native, round = desc->dtype == SW_BF16 && !bf16, failed = 0;
  int threads = (double)tokens * in * out < 1e6 ? 1 : stream->threads;
  int64_t size = bf16 ? 2 : 4;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    omp_set_num_threads(1);
    char *own_x = (char *)workspace + (size_t)omp_get_thread_num() * plan.all, *own_g = own_x + plan.x,
         *dnn = own_g + plan.g;
#pragma omp for schedule(dynamic, 1)
    for (int64_t stripe = 0; stripe < plan.stripes; stripe++)
      for (int64_t chunk = 0; chunk < plan.chunks; chunk++) {
        const product *p = plan.of[stripe + 1 == plan.stripes][chunk + 1 == plan.chunks];
        int64_t first = stripe * plan.stripe, columns = p->shape.m, from = chunk * TOKENS,
                count = linear_min(TOKENS, tokens - from);
        int64_t padding = p->shape.k - count;
        const char *x_here = (const char *)x + from * in * size;
        for (int64_t row = 0; row < count; row++)
          convert(g, desc->out_dtype, (from + row) * out + first, columns, bf16, round, own_g + row * columns * size);
        memset(own_g + count * columns * size, 0, (size_t)(padding * columns * size));
        if (padding || desc->dtype != (bf16 ? SW_BF16 : SW_F32)) {
          convert(x, desc->dtype, from * in, count * in, bf16, round, own_x);
          memset(own_x + count * in * size, 0, (size_t)(padding * in * size));
          x_here = own_x;
        }
        if (dbias) add_column_sums(g, desc->out_dtype, out, first, columns, from, from + count, dbias);
        if (multiply(p, 0, own_g, x_here, dweight + first * in, dnn)) {
#pragma omp atomic write
          failed = 1;
        }
      }
  }
  return failed ? sw_fail("linear: oneDNN could not multiply %d x %lld x %d", desc->out_features, (long long)tokens,
                          desc->in_features)
                : 0;
}
