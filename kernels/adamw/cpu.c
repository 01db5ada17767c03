/* AdamW on the CPU. Both updates go through `update` below, whose multiply-adds are written out: the compiler is left no choice
 * that could round the dense and the row-wise form differently. The dense one is bound by memory (28 bytes an element). */
#include "base/error.h"
#include "kernels/backend.h"
#include "kernels/isa.h"
#include "kernels/simd.h"


sw_adamw_fn SW_CPU(adamw);
sw_adamw_rows_fn SW_CPU(adamw_rows);
sw_sum_squares_fn SW_CPU(sum_squares);
sw_cast_fn SW_CPU(cast);

enum { CHUNK = 16384, AHEAD = 256, SLOTS = 256, PARALLEL_FROM = 1 << 15, ROW_BLOCK = 4 };

/* Moments that have died away become 0 before they turn subnormal (there a multiplication costs a hundred cycles, and 0.9 * x stops
 * shrinking altogether). At these sizes they move a parameter by less than 1e-20 of the learning rate. */
SW_INLINE vf flushed(vf x, float smallest) { return vf_select(vf_abs(x) < smallest, vf_zero(), x); }
static const float smallest_m = 1e-30f, smallest_v = 1e-36f;

/* One step of one vector of elements; g is the gradient already scaled; anchor: NULL where there is none. */
SW_INLINE vf pulled(const sw_adamw_step *s, const vf *anchor, vf before, vf p) {
  return anchor ? vf_fma(vf_set(s->pull), *anchor - before, p) : p;
}
SW_INLINE void update(const sw_adamw_step *s, vf decay, vf g, const vf *anchor, vf *p, vf *m, vf *v) {
  *m = flushed(vf_fma(vf_set(s->beta1), *m, g * s->one_minus_beta1), smallest_m);
  *v = flushed(vf_fma(vf_set(s->beta2), *v, (g * s->one_minus_beta2) * g), smallest_v);
  vf denominator = vf_fma(vf_sqrt(*v), vf_set(s->inverse_sqrt_correction), vf_set(s->eps));
  *p = pulled(s, anchor, *p, vf_fma(*p, decay, -((*m * s->step_size) / denominator)));
}

static void update_range(const sw_adamw_step *step, float scale, const sw_adamw_tensor *t, int64_t i, int64_t end) {
  const sw_adamw_step s = *step;
  vf decay = vf_set(t->decays ? s.decay : 1.0f);
  float *restrict to_p = t->p, *restrict to_m = t->m, *restrict to_v = t->v;
  const float *restrict from_g = t->g, *restrict anchor = t->anchor;
  for (; i + SW_LANES <= end; i += SW_LANES) {
    vf p = vf_load(to_p + i), m = vf_load(to_m + i), v = vf_load(to_v + i);
    /* seven streams are more than the processor's own prefetching follows; beyond the end a prefetch does nothing */
    __builtin_prefetch(to_p + i + AHEAD, 1);
    __builtin_prefetch(to_m + i + AHEAD, 1);
    __builtin_prefetch(to_v + i + AHEAD, 1);
    __builtin_prefetch(from_g + i + AHEAD, 0);
    vf a = anchor ? vf_load(anchor + i) : vf_zero();
    update(&s, decay, vf_load(from_g + i) * scale, anchor ? &a : NULL, &p, &m, &v);
    vf_store(to_p + i, p);
    vf_store(to_m + i, m);
    vf_store(to_v + i, v);
  }
  if (i < end) {
    int n = (int)(end - i);
    vf p = vf_load_n(to_p + i, n), m = vf_load_n(to_m + i, n), v = vf_load_n(to_v + i, n);
    vf a = anchor ? vf_load_n(anchor + i, n) : vf_zero();
    update(&s, decay, vf_load_n(from_g + i, n) * scale, anchor ? &a : NULL, &p, &m, &v);
    vf_store_n(to_p + i, p, n);
    vf_store_n(to_m + i, m, n);
    vf_store_n(to_v + i, v, n);
  }
}

static int64_t chunks_of(int64_t count) { return (count + CHUNK - 1) / CHUNK; }
static int count_chunks(const char *what, int tensors, const sw_adamw_tensor *list, int64_t *chunks, int64_t *elements) {
  *chunks = *elements = 0;
  for (int i = 0; i < tensors; i++) {
    if (list[i].count < 0) return sw_fail("%s: tensor %d has %lld elements", what, i, (long long)list[i].count);
    *chunks += chunks_of(list[i].count);
    *elements += list[i].count;
  }
  return 0;
}

/* Walks the chunks first, first + 1 ... last - 1 of all tensors in a row. */
typedef struct {
  const sw_adamw_tensor *tensor;
  int64_t chunk, left; /* next chunk of the tensor; chunks still to come */
} walk;
static walk walk_from(const sw_adamw_tensor *list, int64_t first, int64_t last) {
  walk w = {list, first, last - first};
  while (w.left > 0 && w.chunk >= chunks_of(w.tensor->count)) w.chunk -= chunks_of(w.tensor->count), w.tensor++;
  return w;
}
static int walk_next(walk *w, const sw_adamw_tensor **tensor, int64_t *start, int64_t *end) {
  if (w->left <= 0) return 0;
  w->left--;
  while (w->chunk >= chunks_of(w->tensor->count)) w->chunk = 0, w->tensor++;
  *tensor = w->tensor;
  *start = w->chunk++ * CHUNK;
  *end = *start + CHUNK < w->tensor->count ? *start + CHUNK : w->tensor->count;
  return 1;
}

int SW_CPU(adamw)(sw_stream *stream, const sw_adamw_desc *desc, const sw_adamw_tensor *list) {
  int64_t chunks, elements;
  if (count_chunks("adamw", desc->tensors, list, &chunks, &elements)) return -1;
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 1) if (elements >= PARALLEL_FROM)
  for (int slot = 0; slot < SLOTS; slot++) {
    int64_t start, end;
    const sw_adamw_tensor *tensor;
    walk w = walk_from(list, chunks * slot / SLOTS, chunks * (slot + 1) / SLOTS);
    while (walk_next(&w, &tensor, &start, &end)) update_range(&desc->step, desc->grad_scale, tensor, start, end);
  }
  return 0;
}

/* --- rows --- */
SW_INLINE int all_zero_bits(const vf *x, int w) {
  vi any = vi_set(0);
  for (int k = 0; k < w; k++) any |= (vi)x[k];
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)any, (__m512i)any) == 0;
#elif defined(__AVX2__)
  return _mm256_testz_si256((__m256i)any, (__m256i)any);
#else
  int32_t bits = 0;
  for (int i = 0; i < SW_LANES; i++) bits |= any[i];
  return bits == 0;
#endif
}

/* Columns [c, c + w vectors), or n columns where n > 0, of one row: the steps missed (history[0] .. history[missed - 1]) with a zero
 * gradient, then `last` with gradient g where g is not NULL.
 * With g = 0 and m = 0, `update` leaves m as it is, subtracts exactly 0 from p (eps > 0) and only shrinks v: that case, of rows not
 * seen for long or not at all, goes without the square root and the division. */
SW_INLINE void row_columns(const sw_adamw_step *history, int64_t missed, const sw_adamw_step *last, float scale, int decays, int c, int w,
                           int n, const float *anchor, float *row_p, float *row_m, float *row_v, const float *g) {
  vf p[ROW_BLOCK], m[ROW_BLOCK], v[ROW_BLOCK], a[ROW_BLOCK];
#define EACH for (int k = 0; k < w; k++)
  EACH m[k] = n ? vf_load_n(row_m + c, n) : vf_load(row_m + c + k * SW_LANES);
  EACH v[k] = n ? vf_load_n(row_v + c, n) : vf_load(row_v + c + k * SW_LANES);
  int untouched = all_zero_bits(m, w) && all_zero_bits(v, w);
  if (untouched && !decays && !anchor && !g && missed && history[0].eps > 0) return;
  EACH p[k] = n ? vf_load_n(row_p + c, n) : vf_load(row_p + c + k * SW_LANES);
  if (anchor) EACH a[k] = n ? vf_load_n(anchor + c, n) : vf_load(anchor + c + k * SW_LANES);
  int64_t s = 0;
  for (; s < missed && !(all_zero_bits(m, w) && history[s].eps > 0); s++) {
    vf decay = vf_set(decays ? history[s].decay : 1.0f);
    EACH update(&history[s], decay, vf_zero(), anchor ? &a[k] : NULL, &p[k], &m[k], &v[k]);
  }
  for (; s < missed; s++) {
    if (anchor)
      EACH p[k] = pulled(&history[s], &a[k], p[k], decays ? p[k] * history[s].decay : p[k]);
    else if (decays)
      EACH p[k] = p[k] * history[s].decay;
    if (!untouched) EACH v[k] = flushed(v[k] * history[s].beta2, smallest_v);
  }
  if (g) {
    vf decay = vf_set(decays ? last->decay : 1.0f);
    EACH update(last, decay, (n ? vf_load_n(g + c, n) : vf_load(g + c + k * SW_LANES)) * scale, anchor ? &a[k] : NULL, &p[k], &m[k], &v[k]);
  }
  if (n)
    vf_store_n(row_p + c, p[0], n);
  else
    EACH vf_store(row_p + c + k * SW_LANES, p[k]);
  if (untouched && !g) return;
  if (n) {
    vf_store_n(row_m + c, m[0], n);
    vf_store_n(row_v + c, v[0], n);
  } else {
    EACH vf_store(row_m + c + k * SW_LANES, m[k]);
    EACH vf_store(row_v + c + k * SW_LANES, v[k]);
  }
#undef EACH
}

static void update_row(const sw_adamw_step *history, int64_t missed, const sw_adamw_step *last, float scale, int decays, int hidden,
                       const float *anchor, float *p, float *m, float *v, const float *g) {
  int c = 0;
  for (; c + ROW_BLOCK * SW_LANES <= hidden; c += ROW_BLOCK * SW_LANES)
    row_columns(history, missed, last, scale, decays, c, ROW_BLOCK, 0, anchor, p, m, v, g);
  for (; c + SW_LANES <= hidden; c += SW_LANES) row_columns(history, missed, last, scale, decays, c, 1, 0, anchor, p, m, v, g);
  if (c < hidden) row_columns(history, missed, last, scale, decays, c, 1, hidden - c, anchor, p, m, v, g);
}

static int check_row(const sw_adamw_rows_desc *d, int64_t row, int64_t seen, int64_t newest) {
  if (seen < d->first_step - 1)
    return sw_fail("adamw_rows: row %lld has seen step %lld, but the history begins at step %lld", (long long)row, (long long)seen,
                   (long long)d->first_step);
  if (seen > newest)
    return sw_fail("adamw_rows: row %lld has seen step %lld already, which is later than %lld", (long long)row, (long long)seen,
                   (long long)newest);
  return 0;
}

/* Every touched row must lie in the table, come once and have its missed steps in the history. A row met is marked by ~last_step
 * until all are checked, so a second mention shows. */
static int check_touched(const sw_adamw_rows_desc *d, int64_t newest, int32_t *last_step, const int32_t *touched, int64_t count) {
  int status = 0;
  int64_t i = 0;
  for (; i < count && !status; i++) {
    int64_t row = touched[i];
    if (row < 0 || row >= d->rows)
      status = sw_fail("adamw_rows: touched[%lld] is %lld, outside the table of %lld rows", (long long)i, (long long)row, (long long)d->rows);
    else if (last_step[row] < 0)
      status = sw_fail("adamw_rows: row %lld is touched twice in one step", (long long)row);
    else
      status = check_row(d, row, last_step[row], newest);
    if (!status) last_step[row] = ~last_step[row];
  }
  for (int64_t k = 0; k < (status ? i - 1 : i); k++) last_step[touched[k]] = ~last_step[touched[k]];
  return status;
}

int SW_CPU(adamw_rows)(sw_stream *stream, const sw_adamw_rows_desc *desc, const sw_adamw_step *history, float *p, float *m, float *v,
                       int32_t *last_step, const int32_t *touched, int64_t count, const float *g) {
  const sw_adamw_rows_desc d = *desc;
  if (d.rows < 0 || d.hidden < 1 || count < 0 || d.first_step < 1 || d.step < d.first_step || d.step > INT32_MAX)
    return sw_fail("adamw_rows: rows %lld, hidden %d, touched %lld, steps %lld to %lld: out of range", (long long)d.rows, d.hidden,
                   (long long)count, (long long)d.first_step, (long long)d.step);
  if (g && !touched) return sw_fail("adamw_rows: gradients without the rows they belong to");
  const int64_t rows = touched ? count : d.rows, newest = g ? d.step - 1 : d.step;
  if (touched) {
    if (check_touched(&d, newest, last_step, touched, count)) return -1;
  } else {
    for (int64_t row = 0; row < d.rows; row++)
      if (check_row(&d, row, last_step[row], d.step)) return -1;
  }
  const sw_adamw_step *last = history + (d.step - d.first_step);
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 32) if (rows * d.hidden >= PARALLEL_FROM / 4)
  for (int64_t i = 0; i < rows; i++) {
    int64_t row = touched ? touched[i] : i, at = row * d.hidden, missed = newest - last_step[row];
    if (missed || g)
      update_row(history + (last_step[row] + 1 - d.first_step), missed, last, d.grad_scale, d.decays, d.hidden,
                 d.anchor ? d.anchor + at : NULL, p + at, m + at, v + at, g ? g + i * d.hidden : NULL);
    last_step[row] = (int32_t)d.step;
  }
  return 0;
}

/* --- sum of squares --- */
enum { WIDE = SW_LANES / 2 };
typedef double vd __attribute__((vector_size(SW_LANES * 4)));
SW_INLINE vd widened(const float *x) {
#if defined(__AVX512F__)
  return (vd)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(__AVX2__)
  return (vd)_mm256_cvtps_pd(_mm_loadu_ps(x));
#else
  vd v;
  for (int i = 0; i < WIDE; i++) v[i] = x[i];
  return v;
#endif
}
static double squares(const float *g, int64_t n) {
  vd sum[4] = {{0}};
  int64_t i = 0;
  for (; i + 4 * WIDE <= n; i += 4 * WIDE) {
    __builtin_prefetch(g + i + 2 * AHEAD, 0);
    __builtin_prefetch(g + i + 2 * AHEAD + 16, 0);
    for (int k = 0; k < 4; k++) {
      vd x = widened(g + i + k * WIDE);
      sum[k] += x * x;
    }
  }
  vd all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  double total = 0;
  for (int k = 0; k < WIDE; k++) total += all[k];
  for (; i < n; i++) total += (double)g[i] * g[i];
  return total;
}

/* The chunks are dealt to a fixed number of slots, which are added in order: the threads have no part in the order. */
int SW_CPU(sum_squares)(sw_stream *stream, int tensors, const sw_adamw_tensor *list, double *sum, void *workspace) {
  (void)workspace;
  int64_t chunks, elements;
  if (count_chunks("sum_squares", tensors, list, &chunks, &elements)) return -1;
  double slots[SLOTS];
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 1) if (elements >= PARALLEL_FROM)
  for (int slot = 0; slot < SLOTS; slot++) {
    int64_t start, end;
    const sw_adamw_tensor *tensor;
    double total = 0;
    walk w = walk_from(list, chunks * slot / SLOTS, chunks * (slot + 1) / SLOTS);
    while (walk_next(&w, &tensor, &start, &end)) total += squares(tensor->g + start, end - start);
    slots[slot] = total;
  }
  *sum = 0;
  for (int slot = 0; slot < SLOTS; slot++) *sum += slots[slot];
  return 0;
}

/* --- cast --- */
SW_INLINE void cast_range(sw_dtype from, const void *x, sw_dtype to, void *y, int64_t i, int64_t end) {
  for (; i + SW_LANES <= end; i += SW_LANES) vf_put(y, to, i, vf_get(x, from, i));
  for (; i < end; i++) sw_put(y, to, i, sw_get(x, from, i));
}

int SW_CPU(cast)(sw_stream *stream, int64_t count, sw_dtype from, const void *x, sw_dtype to, void *y) {
  if (count < 0) return sw_fail("cast: %lld elements", (long long)count);
  int64_t chunks = chunks_of(count);
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (count >= PARALLEL_FROM)
  for (int64_t c = 0; c < chunks; c++) {
    int64_t start = c * CHUNK, end = start + CHUNK < count ? start + CHUNK : count;
    if (from == to)
      memcpy((char *)y + start * (int64_t)sw_dtype_bytes(to), (const char *)x + start * (int64_t)sw_dtype_bytes(to),
             (size_t)(end - start) * sw_dtype_bytes(to));
    else if (to == SW_BF16)
      cast_range(SW_F32, x, SW_BF16, y, start, end);
    else
      cast_range(SW_BF16, x, SW_F32, y, start, end);
  }
  return 0;
}
