/* GRU on the CPU: see gru.h. A sequence's steps wait for each other, so a thread takes several sequences, one a slot, and steps them
 * together: each step is a product of the slots' states with the weight. A slot whose sequence has ended gets the last slot's, and
 * further sequences follow; so the slots at work are always the first ones, and nothing is sorted.
 *
 * The three products (forward, backward through time, weight gradient) are one loop, which keeps ROWS x 3 vectors of sums in registers.
 * Its right side lies in panels of 3 SW_LANES columns, zeros beyond the edge. Forward, a panel [hidden][3][SW_LANES] holds the r, z and n rows of
 * SW_LANES cells, so that their new state is made at once; it stays in L1 while the slots pass, the whole weight in L2. Backward, it is
 * [3 hidden][3 SW_LANES] of the weight as it is. Both are laid out once a call.
 * A row's sums run over k in order, in fp32, whatever the other rows are: its bits depend on neither slots nor threads.
 *
 * The weight's gradient is one product over all tokens after the time loop: chunks of tokens in order, threads share its rows. */
#include "kernels/gru/check.h"
#include "kernels/isa.h"
#include "kernels/simd.h"
#include <omp.h>

sw_gru_workspace_fn SW_CPU(gru_workspace);
sw_gru_forward_fn SW_CPU(gru_forward);
sw_gru_backward_fn SW_CPU(gru_backward);

enum {
  ROWS = SW_LANES == 16 ? 8 : 4, /* of a tile: as many as there are registers for */
  SLOTS = 2 * ROWS,
  PANEL = 3 * SW_LANES,
  CHUNK = 256, /* tokens that the weight's gradient takes at a time */
  STRIPE = 48  /* its rows a task */
};

/* --- the product --- */
/* c[i][0, PANEL) += sum over k of a[i * a_row + k * a_step] * b[k * b_row + 0 ..] for i < rows, k < count */
SW_INLINE void tile(float *c, int64_t c_row, int rows, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row,
                    int64_t count) {
  vf sum[ROWS][3];
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
    for (int v = 0; v < 3; v++) sum[i][v] = vf_load(c + i * c_row + v * SW_LANES);
  for (int64_t k = 0; k < count; k++, a += a_step, b += b_row) {
    const vf b0 = vf_load(b), b1 = vf_load(b + SW_LANES), b2 = vf_load(b + 2 * SW_LANES);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
      const vf x = vf_set(a[i * a_row]);
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
      sum[i][2] += x * b2;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
    for (int v = 0; v < 3; v++) vf_store(c + i * c_row + v * SW_LANES, sum[i][v]);
}
/* The same for any number of rows. */
static void multiply(float *c, int64_t c_row, int rows, const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row,
                     int64_t count) {
  for (; rows >= ROWS; rows -= ROWS, c += ROWS * c_row, a += ROWS * a_row) tile(c, c_row, ROWS, a, a_row, a_step, b, b_row, count);
  if (rows & 4) {
    tile(c, c_row, 4 < ROWS ? 4 : ROWS, a, a_row, a_step, b, b_row, count);
    c += 4 * c_row, a += 4 * a_row;
  }
  if (rows & 2) {
    tile(c, c_row, 2, a, a_row, a_step, b, b_row, count);
    c += 2 * c_row, a += 2 * a_row;
  }
  if (rows & 1) tile(c, c_row, 1, a, a_row, a_step, b, b_row, count);
}

/* --- numbers --- */
SW_INLINE vf get(const void *p, sw_dtype dtype, int64_t i, int n) { return n == SW_LANES ? vf_get(p, dtype, i) : vf_get_n(p, dtype, i, n); }
SW_INLINE void put(void *p, sw_dtype dtype, int64_t i, vf v, int n) {
  if (n == SW_LANES)
    vf_put(p, dtype, i, v);
  else
    vf_put_n(p, dtype, i, v, n);
}
SW_INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }
static int least(int64_t a, int b) { return a < b ? (int)a : b; }
static int panels(int hidden) { return (hidden + PANEL - 1) / PANEL; }
static size_t whole_lines(size_t floats) { return (floats + 15) / 16 * 16; }

/* --- a call --- */
typedef struct {
  const sw_gru_desc *desc;
  const int32_t *cu_seqlens;
  int hidden, padded; /* padded to whole panels */
  int threads, slots; /* slots a thread fills */
  void *gates, *saved, *y;
  const void *dy;
  const float *weight, *bias, *initial;
  float *dweight, *dbias, *dinitial;
  int next; /* sequence that nobody has taken yet */
  /* in the workspace: */
  float *laid_out;   /* the weight in panels */
  float *states;     /* [CHUNK][padded]: the states before a chunk's tokens */
  int32_t *previous; /* [total]: the token of a token's state before, or -1 - its sequence for the initial one */
  float *own;        /* a thread's: own_floats() each */
} job;

/* forward: two states [SLOTS][padded] each and sums [SLOTS][PANEL]; backward: the state's gradient and the products' [SLOTS][3 hidden];
 * then a stripe of bf16 gradients [CHUNK][STRIPE] and sums [STRIPE][PANEL] */
static size_t own_floats(int padded) { return whole_lines((size_t)SLOTS * 4 * (size_t)padded + (CHUNK + PANEL) * STRIPE); }
static size_t laid_out_floats(int hidden, int padded) { return whole_lines(3 * (size_t)hidden * (size_t)padded); }

int SW_CPU(gru_workspace)(sw_stream *stream, const sw_gru_desc *desc, size_t *bytes) {
  if (gru_check(desc)) return -1;
  const int padded = panels(desc->hidden) * PANEL;
  *bytes = (laid_out_floats(desc->hidden, padded) + whole_lines((size_t)CHUNK * (size_t)padded) + whole_lines((size_t)desc->total_tokens) +
            (size_t)stream->threads * own_floats(padded)) *
           sizeof(float);
  return 0;
}

static int start(job *j, sw_stream *stream, float *workspace) {
  const sw_gru_desc *d = j->desc;
  if (gru_check(d)) return -1;
  if (j->cu_seqlens[0] != 0) return sw_fail("gru: cu_seqlens[0] is %d, not 0", j->cu_seqlens[0]);
  for (int i = 0; i < d->batch; i++)
    if (j->cu_seqlens[i + 1] < j->cu_seqlens[i]) return sw_fail("gru: cu_seqlens falls at sequence %d", i);
  if (j->cu_seqlens[d->batch] != d->total_tokens)
    return sw_fail("gru: cu_seqlens ends at %d, but there are %lld tokens", j->cu_seqlens[d->batch], (long long)d->total_tokens);
  j->hidden = d->hidden;
  j->padded = panels(d->hidden) * PANEL;
  j->threads = (double)d->total_tokens * d->hidden * d->hidden < 1e5 ? 1 : stream->threads;
  j->slots = least((d->batch + j->threads - 1) / j->threads, SLOTS);
  j->laid_out = workspace;
  j->states = j->laid_out + laid_out_floats(j->hidden, j->padded);
  j->previous = (int32_t *)(j->states + whole_lines((size_t)CHUNK * (size_t)j->padded));
  j->own = (float *)(j->previous + whole_lines((size_t)d->total_tokens));
  return 0;
}

/* A sequence under way: the token of its step, and how many steps are left with this one. */
typedef struct {
  int sequence;
  int64_t token, left;
} slot;
/* Takes the next sequence that is not empty. 0: there is none. */
static int take(job *j, int from_end, slot *s) {
  for (;;) {
    int b;
#pragma omp atomic capture
    b = j->next++;
    if (b >= j->desc->batch) return 0;
    const int64_t first = j->cu_seqlens[b], count = j->cu_seqlens[b + 1] - first;
    *s = (slot){b, from_end ? first + count - 1 : first, count};
    if (count) return 1;
    if (j->dinitial) memset(j->dinitial + (int64_t)b * j->hidden, 0, (size_t)j->hidden * sizeof(float));
  }
}
/* A state of fp32 in a row of zeros behind it; NULL gives zeros. */
static void set_row(const job *j, float *row, const float *state) {
  memset(row, 0, (size_t)j->padded * sizeof *row);
  if (state) memcpy(row, state, (size_t)j->hidden * sizeof *row);
}
static const float *initial_of(const job *j, int sequence) { return j->initial ? j->initial + (int64_t)sequence * j->hidden : NULL; }

/* --- forward --- */
/* The new state of cells [cell, cell + n) of the slots at work; sums [active][3][SW_LANES] are the weight's products with the bias. */
SW_INLINE void new_states(const job *j, const slot *slots, int active, int cell, int n, const float *sums, const float *h, float *next,
                          sw_dtype dtype) {
  for (int s = 0; s < active; s++, sums += PANEL) {
    const int64_t at = slots[s].token * j->hidden + cell, gates = 2 * slots[s].token * j->hidden + at;
    vf r = get(j->gates, dtype, gates, n) + vf_load(sums), z = get(j->gates, dtype, gates + j->hidden, n) + vf_load(sums + SW_LANES);
    const vf q = vf_load(sums + 2 * SW_LANES), before_r = r, before_z = z, i_n = get(j->gates, dtype, gates + 2 * j->hidden, n);
    r = sigmoid(r);
    z = sigmoid(z);
    const vf before_n = i_n + r * q, tanh_n = vf_tanh(before_n);
    const vf state = (1.0f - z) * tanh_n + z * vf_load(h + (int64_t)s * j->padded + cell);
    vf_store(next + (int64_t)s * j->padded + cell, state);
    put(j->y, dtype, at, state, n);
    if (!j->saved) continue;
    const int whole = dtype == SW_F32;
    put(j->gates, dtype, gates, whole ? r : before_r, n);
    put(j->gates, dtype, gates + j->hidden, whole ? z : before_z, n);
    put(j->gates, dtype, gates + 2 * j->hidden, whole ? tanh_n : before_n, n);
    put(j->saved, dtype, at, q, n);
  }
}

/* A panel: [hidden][3][SW_LANES] of cells [cell, cell + n). */
static void lay_out_cells(const job *j, int cell, int n, float *panel) {
  const int64_t hidden = j->hidden;
  for (int gate = 0; gate < 3; gate++)
    for (int i = 0; i < SW_LANES; i++) {
      const float *row = j->weight + (gate * hidden + cell + i) * hidden;
      float *to = panel + gate * SW_LANES + i;
      for (int64_t k = 0; k < hidden; k++) to[k * PANEL] = i < n ? row[k] : 0;
    }
}

SW_INLINE void forward_thread(job *j, float *own, sw_dtype dtype) {
  const int hidden = j->hidden, padded = j->padded, step = j->desc->reverse ? -1 : 1;
  float *h = own, *next = h + SLOTS * padded, *sums = next + SLOTS * padded;
  slot slots[SLOTS];
  for (int active = 0, more = 1;;) {
    while (more && active < j->slots && (more = take(j, j->desc->reverse, slots + active))) {
      set_row(j, h + active * padded, initial_of(j, slots[active].sequence));
      active++;
    }
    if (!active) return;
    for (int cell = 0; cell < hidden; cell += SW_LANES) {
      const int n = least(hidden - cell, SW_LANES);
      for (int gate = 0; gate < 3; gate++) {
        const vf bias = get(j->bias, SW_F32, gate * hidden + cell, n);
        for (int s = 0; s < active; s++) vf_store(sums + s * PANEL + gate * SW_LANES, bias);
      }
      multiply(sums, PANEL, active, h, padded, 1, j->laid_out + (int64_t)(cell / SW_LANES) * hidden * PANEL, PANEL, hidden);
      if (n == SW_LANES)
        new_states(j, slots, active, cell, SW_LANES, sums, h, next, dtype);
      else
        new_states(j, slots, active, cell, n, sums, h, next, dtype);
    }
    float *swap = h;
    h = next;
    next = swap;
    for (int s = active; s-- > 0;) {
      slots[s].token += step;
      if (--slots[s].left) continue;
      active--;
      slots[s] = slots[active];
      if (s < active) memcpy(h + s * padded, h + active * padded, (size_t)padded * sizeof *h);
    }
  }
}

int SW_CPU(gru_forward)(sw_stream *stream, const sw_gru_desc *desc, const int32_t *cu_seqlens, void *gates, const float *weight,
                        const float *bias, const float *initial, void *y, void *saved, void *workspace) {
  job j = {.desc = desc, .cu_seqlens = cu_seqlens, .gates = gates, .saved = saved, .y = y, .weight = weight, .bias = bias, .initial = initial};
  if (start(&j, stream, workspace)) return -1;
#pragma omp parallel num_threads(j.threads) if (j.threads > 1)
  {
    float *own = j.own + (size_t)omp_get_thread_num() * own_floats(j.padded);
#pragma omp for schedule(static)
    for (int cell = 0; cell < j.hidden; cell += SW_LANES)
      lay_out_cells(&j, cell, least(j.hidden - cell, SW_LANES), j.laid_out + (int64_t)cell / SW_LANES * j.hidden * PANEL);
    if (desc->dtype == SW_F32)
      forward_thread(&j, own, SW_F32);
    else
      forward_thread(&j, own, SW_BF16);
  }
  return 0;
}

/* --- backward --- */
/* The elementwise half of a step, for a slot: gates and saved become gradients; products [3 hidden] = (di_r, di_z, dq); dh = dh z. */
SW_INLINE void gradients_of(const job *j, const slot *s, float *dh, float *products, sw_dtype dtype) {
  const int64_t hidden = j->hidden, at = s->token * hidden, gates = 3 * at;
  const int32_t before = j->previous[s->token];
  for (int cell = 0; cell < hidden; cell += SW_LANES) {
    const int n = least(hidden - cell, SW_LANES);
    const vf h = before >= 0 ? get(j->y, dtype, before * hidden + cell, n)
                 : j->initial ? get(j->initial, SW_F32, (-1 - before) * hidden + cell, n)
                              : vf_zero();
    vf r = get(j->gates, dtype, gates + cell, n), z = get(j->gates, dtype, gates + hidden + cell, n),
       tanh_n = get(j->gates, dtype, gates + 2 * hidden + cell, n);
    if (dtype == SW_BF16) r = sigmoid(r), z = sigmoid(z), tanh_n = vf_tanh(tanh_n);
    const vf q = get(j->saved, dtype, at + cell, n), g = vf_load(dh + cell) + get(j->dy, dtype, at + cell, n);
    const vf di_n = g * (1.0f - z) * (1.0f - tanh_n * tanh_n), di_z = g * (h - tanh_n) * (z * (1.0f - z)), di_r = di_n * q * (r * (1.0f - r)),
             dq = di_n * r;
    vf_store(dh + cell, g * z);
    put(products, SW_F32, cell, di_r, n);
    put(products, SW_F32, hidden + cell, di_z, n);
    put(products, SW_F32, 2 * hidden + cell, dq, n);
    put(j->gates, dtype, gates + cell, di_r, n);
    put(j->gates, dtype, gates + hidden + cell, di_z, n);
    put(j->gates, dtype, gates + 2 * hidden + cell, di_n, n);
    put(j->saved, dtype, at + cell, dq, n);
  }
}

SW_INLINE void backward_thread(job *j, float *own, sw_dtype dtype) {
  const int hidden = j->hidden, padded = j->padded, step = j->desc->reverse ? 1 : -1;
  float *dh = own, *products = dh + SLOTS * padded;
  slot slots[SLOTS];
  for (int active = 0, more = 1;;) {
    while (more && active < j->slots && (more = take(j, !j->desc->reverse, slots + active))) {
      set_row(j, dh + active * padded, NULL);
      active++;
    }
    if (!active) return;
    for (int s = 0; s < active; s++) {
      j->previous[slots[s].token] = slots[s].left > 1 ? (int32_t)slots[s].token + step : -1 - slots[s].sequence;
      gradients_of(j, slots + s, dh + s * padded, products + s * 3 * hidden, dtype);
    }
    for (int column = 0; column < padded; column += PANEL)
      multiply(dh + column, padded, active, products, 3 * hidden, 1, j->laid_out + (int64_t)column * 3 * hidden, PANEL, 3 * hidden);
    for (int s = active; s-- > 0;) {
      slots[s].token += step;
      if (--slots[s].left) continue;
      if (j->dinitial) memcpy(j->dinitial + (int64_t)slots[s].sequence * hidden, dh + s * padded, (size_t)hidden * sizeof *dh);
      active--;
      slots[s] = slots[active];
      if (s < active) memcpy(dh + s * padded, dh + active * padded, (size_t)padded * sizeof *dh);
    }
  }
}

/* The state before a token, as fp32 in whole panels. */
static void state_before(const job *j, int64_t token, float *row) {
  const int64_t before = j->previous[token];
  if (before < 0) {
    set_row(j, row, initial_of(j, (int)(-1 - before)));
    return;
  }
  set_row(j, row, NULL);
  for (int cell = 0; cell < j->hidden; cell += SW_LANES) {
    const int n = least(j->hidden - cell, SW_LANES);
    vf_store(row + cell, get(j->y, j->desc->dtype, before * j->hidden + cell, n));
  }
}

/* Rows [first, first + rows) of the weight's gradient, which all belong to r and z, or all to n, from `count` tokens. */
static void add_gradient(const job *j, int first, int rows, int64_t from, int count, float *own) {
  const int hidden = j->hidden, of_n = first >= 2 * hidden;
  const sw_dtype dtype = j->desc->dtype;
  float *converted = own, *sums = own + CHUNK * STRIPE;
  const void *source = of_n ? j->saved : j->gates;
  int64_t ld = of_n ? hidden : 3 * hidden;
  const int64_t at = from * ld + first - (of_n ? 2 * hidden : 0);
  const float *g = (const float *)source + at;
  if (dtype != SW_F32) {
    for (int64_t t = 0; t < count; t++)
      for (int i = 0; i < rows; i++) converted[t * STRIPE + i] = sw_get(source, dtype, at + t * ld + i);
    g = converted;
    ld = STRIPE;
  }
  for (int i = 0; i < rows; i += SW_LANES) {
    const int n = least(rows - i, SW_LANES);
    vf sum = vf_zero();
    for (int64_t t = 0; t < count; t++) sum += get(g, SW_F32, t * ld + i, n);
    put(j->dbias, SW_F32, first + i, get(j->dbias, SW_F32, first + i, n) + sum, n);
  }
  for (int column = 0; column < hidden; column += PANEL) {
    memset(sums, 0, (size_t)rows * PANEL * sizeof *sums);
    multiply(sums, PANEL, rows, g, 1, ld, j->states + column, j->padded, count);
    for (int i = 0; i < rows; i++) {
      float *row = j->dweight + (int64_t)(first + i) * hidden + column;
      for (int k = 0; k < least(hidden - column, PANEL); k++) row[k] += sums[i * PANEL + k];
    }
  }
}

int SW_CPU(gru_backward)(sw_stream *stream, const sw_gru_desc *desc, const int32_t *cu_seqlens, void *gates, void *saved,
                         const float *weight, const float *initial, const void *y, const void *dy, float *dweight, float *dbias,
                         float *dinitial, void *workspace) {
  job j = {.desc = desc, .cu_seqlens = cu_seqlens, .gates = gates, .saved = saved, .y = (void *)y, .dy = dy, .weight = weight,
           .initial = initial, .dweight = dweight, .dbias = dbias, .dinitial = dinitial};
  if (start(&j, stream, workspace)) return -1;
  const int hidden = j.hidden, of_rz = (2 * hidden + STRIPE - 1) / STRIPE, stripes = of_rz + (hidden + STRIPE - 1) / STRIPE;
#pragma omp parallel num_threads(j.threads) if (j.threads > 1)
  {
    float *own = j.own + (size_t)omp_get_thread_num() * own_floats(j.padded);
#pragma omp for schedule(static)
    for (int column = 0; column < j.padded; column += PANEL)
      for (int64_t row = 0; row < 3 * hidden; row++) {
        float *to = j.laid_out + (int64_t)column * 3 * hidden + row * PANEL;
        const int n = least(hidden - column, PANEL);
        memcpy(to, weight + row * hidden + column, (size_t)n * sizeof *to);
        memset(to + n, 0, (size_t)(PANEL - n) * sizeof *to);
      }
    if (desc->dtype == SW_F32)
      backward_thread(&j, own, SW_F32);
    else
      backward_thread(&j, own, SW_BF16);
#pragma omp barrier
    for (int64_t from = 0; from < desc->total_tokens; from += CHUNK) {
      const int count = least(desc->total_tokens - from, CHUNK);
#pragma omp for schedule(static)
      for (int t = 0; t < count; t++) state_before(&j, from + t, j.states + (int64_t)t * j.padded);
#pragma omp for schedule(dynamic, 1)
      for (int i = 0; i < stripes; i++) {
        const int first = i < of_rz ? i * STRIPE : 2 * hidden + (i - of_rz) * STRIPE, end = i < of_rz ? 2 * hidden : 3 * hidden;
        add_gradient(&j, first, least(end - first, STRIPE), from, count, own);
      }
    }
  }
  return 0;
}
