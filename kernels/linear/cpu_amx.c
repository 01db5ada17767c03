/* Linear layers on processors with AMX. bf16: one product of bf16 tiles. fp32: six products of the three bf16 parts of
 * each factor (amx_tiles.h), as accurate as fp32 multiply-adds and more than twice as fast as AVX-512 can do them.
 *
 * Weights are prepared as panels of 32 columns, panel by panel, step by step (32 k), part by part, two B tiles each:
 * the products read them in a straight line. Rows go through in blocks whose (packed) A tiles stay in the level-2
 * cache; for every panel, all pairs of row tiles of the block are multiplied by it, so that each panel comes from
 * memory once a block. While the tile unit works on one 32 x 32 piece, the vector units finish (bias, activation,
 * rounding) the piece before it.
 *
 * Each element of a result is the same sequence of tile operations on its own row and column, whatever the other rows
 * are and whoever computes them: batches, positions and threads change no bit. */
#include "kernels/linear/amx_tiles.h"
#include <omp.h>
#include <stdatomic.h>

sw_linear_weight_bytes_fn sw_linear_weight_bytes_amx;
sw_linear_prepare_fn sw_linear_prepare_amx;
sw_linear_workspace_fn sw_linear_workspace_amx;
sw_linear_forward_fn sw_linear_forward_amx;
sw_linear_backward_input_fn sw_linear_backward_input_amx;
sw_linear_backward_weight_fn sw_linear_backward_weight_amx;

enum {
  CACHE = 1 << 20,
  GROUP = 64,
  STRIPE = 128
}; /* bytes of A tiles; panels whose C waits between turns; rows of dW in a task */

static int parts_of(const sw_linear_desc *desc) {
  return desc->dtype == SW_F32 ? 3 : 1;
}
static int gradient_parts_of(const sw_linear_desc *desc) {
  return desc->dtype == SW_F32 && desc->quick_gradients ? 2 : parts_of(desc);
}
static int64_t steps_of(int64_t k) {
  return (k + STEP - 1) / STEP;
}
static int64_t panels_of(int64_t n) {
  return (n + PANEL - 1) / PANEL;
}
static int64_t panel_bytes(int64_t k, int parts) {
  return steps_of(k) * parts * 2 * TILE;
}
/* Products of tiles for one of fp32: of the parts whose numbers add up to at most parts + 1. */
#define PRODUCTS(parts) ((parts) * ((parts) + 1) / 2)
/* Below some ten microseconds of work a second thread costs more than it brings. */
static int threads_for(const sw_stream *stream, double multiply_adds, int parts) {
  return multiply_adds * PRODUCTS(parts) < 6e6 ? 1 : stream->threads;
}

/* The next units of work that nobody has taken, [*first, *first + the result), 0 when there are none before `end`.
 * Blocks become smaller towards the end, so that the threads finish together also where one of them is slower. */
static int64_t claim(_Atomic int64_t *next, int64_t end, int threads, int64_t limit, int64_t *first) {
  int64_t units, at = atomic_load(next);
  do {
    if (at >= end) return 0;
    units = threads == 1 ? end - at : (end - at + 2 * threads - 1) / (2 * threads);
    if (units > limit) units = limit;
  } while (!atomic_compare_exchange_weak(next, &at, at + units));
  *first = at;
  return units;
}

/* ------------------------------------------------ prepared weights ------------------------------------------------ */

int sw_linear_weight_bytes_amx(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes) {
  if (linear_check(stream, desc)) return -1;
  int64_t forward = panels_of(desc->out_features) * panel_bytes(desc->in_features, parts_of(desc));
  int64_t backward = desc->training ? panels_of(desc->in_features) * panel_bytes(desc->out_features, gradient_parts_of(desc)) : 0;
  *bytes = (size_t)(forward + backward);
  return 0;
}

/* 32 rows by 32 columns of W, read and split once for both: forward B[k = in][n = out] = W[n][k], whose pairs lie
 * within the rows and are then transposed; backward (may be NULL) B[k = out][n = in] = W[k][n], whose pairs are two
 * rows. Written past the caches: a model's prepared weights are larger than they are. */
SW_INLINE void prepare_block(const float *w, int64_t in, int64_t out, int64_t row, int64_t col, int parts,
                             int back_parts, char *forward, char *backward) {
  __m512i t[2][3][SIDE];
  __mmask16 first = lanes(in - col), second = lanes(in - col - SIDE);
  for (int p = 0; p < SIDE; p++) {
    int r[2] = {parts == 1 ? 2 * p : p, parts == 1 ? 2 * p + 1 : p + SIDE};
    __m512 x[2][2];
    __m512i pairs[3];
    for (int i = 0; i < 2; i++) {
      int valid = row + r[i] < out;
      const float *at = w + (valid ? (row + r[i]) * in + col : 0);
      x[i][0] = load16(at, SW_F32, 0, valid ? first : 0), x[i][1] = load16(at, SW_F32, SIDE, valid ? second : 0);
      _mm_prefetch((const char *)(at + PANEL), _MM_HINT_T0),
          _mm_prefetch((const char *)(at + PANEL + SIDE), _MM_HINT_T0);
      merge_row(x[i][0], x[i][1], parts, pairs);
      for (int part = 0; part < parts; part++) t[r[i] / SIDE][part][r[i] % SIDE] = pairs[part];
    }
    for (int tile = 0; backward && tile < 2; tile++) {
      split_pairs(x[0][tile], x[1][tile], back_parts, pairs);
      for (int part = 0; part < back_parts; part++)
        _mm512_stream_si512((__m512i *)(backward + (part * 2 + tile) * TILE + p * 64), pairs[part]);
    }
  }
  for (int tile = 0; tile < 2; tile++)
    for (int part = 0; part < parts; part++) {
      transpose16(t[tile][part]);
      for (int i = 0; i < SIDE; i++)
        _mm512_stream_si512((__m512i *)(forward + (part * 2 + tile) * TILE + i * 64), t[tile][part][i]);
    }
}

int sw_linear_prepare_amx(sw_stream *stream, const sw_linear_desc *desc, const float *weight, void *prepared) {
  if (linear_check(stream, desc)) return -1;
  int parts = parts_of(desc), back_parts = gradient_parts_of(desc), training = desc->training;
  int64_t in = desc->in_features, out = desc->out_features, block = 2 * TILE;
  char *forward = prepared, *backward = forward + panels_of(out) * panel_bytes(in, parts);
  int threads = in * out < 1 << 15 ? 1 : stream->threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < panels_of(out); i++)
      for (int64_t j = 0; j < steps_of(in);
           j++) { /* block i, j: step j of forward's panel i, step i of backward's panel j */
        char *to = forward + i * panel_bytes(in, parts) + j * parts * block;
        char *back = training ? backward + j * panel_bytes(out, back_parts) + i * back_parts * block : NULL;
        if (parts == 1)
          prepare_block(weight, in, out, i * PANEL, j * STEP, 1, 1, to, back);
        else if (back_parts == 2)
          prepare_block(weight, in, out, i * PANEL, j * STEP, 3, 2, to, back);
        else
          prepare_block(weight, in, out, i * PANEL, j * STEP, 3, 3, to, back);
      }
    _mm_sfence(); /* for the other threads' eyes, too */
  }
  return 0;
}

/* ------------------------------------------------ tile products ------------------------------------------------ */

/* A piece of the result that waits for its epilogue. */
typedef struct {
  const linear_output *out;
  const float *c;
  int64_t row;
  int rows, done, fetched, col, cols, ld;
} piece;

SW_INLINE void finish_rows(piece *p, int rows) {
  if (rows > p->rows - p->done) rows = p->rows - p->done;
  if (rows <= 0) return;
  linear_finish(p->out, p->c + p->done * p->ld, p->ld, p->row + p->done, rows, p->col, p->cols);
  p->done += rows;
}

/* Asks for the lines where `rows` more rows of a piece will be written, while there is still time: stores that miss
 * would fill the store buffer, and the tile unit would wait behind them. */
SW_INLINE void fetch_rows(piece *p, int rows) {
  int64_t size = p->out->dtype == SW_F32 ? 4 : 2;
  for (int end = p->fetched + rows < p->rows ? p->fetched + rows : p->rows; p->fetched < end; p->fetched++) {
    int64_t at = ((p->row + p->fetched) * p->out->ld + p->col) * size;
    for (int64_t i = 0; i < p->cols * size; i += 64) {
      __asm__ volatile("prefetchw %0" ::"m"(((char *)p->out->y)[at + i]));
      if (p->out->pre) __asm__ volatile("prefetchw %0" ::"m"(((char *)p->out->pre)[at + i]));
    }
  }
}

/* The products of one step, (part of A, part of B): each changes one of the two, so that few tiles are loaded. */
#define SIX_PRODUCTS(A, B, ADD) A(0) B(2) ADD B(1) ADD A(1) ADD B(0) ADD A(2) ADD A(0) ADD
#define THREE_PRODUCTS(A, B, ADD) A(1) B(0) ADD A(0) ADD B(1) ADD

/* A product's share of the lines of the next step: the tile unit waits long for loads that miss the level-1 cache,
 * above all where another hardware thread shares the core. */
SW_INLINE int fetch_step(const char *const *ahead, int line, int parts) {
  int each = parts == 3 ? 8 : parts == 2 ? 11 : 16; /* 24, 12 or 4 products a step; 192, 128 or 64 lines */
  for (int i = line; i < line + each; i++) {
    int rows = parts * SIDE;
    const char *at = i < rows       ? ahead[0] + i * 64
                     : i < 2 * rows ? ahead[1] + (i - rows) * 64
                                    : ahead[2] + (i - 2 * rows) * 64;
    _mm_prefetch(at, _MM_HINT_T0);
  }
  return line + each;
}

/* C (tile registers 0-3: two row tiles by two column tiles) += A B, while the rows of the piece `before` are finished
 * and those of `now` (may be NULL) fetched. */
SW_INLINE void multiply_2x2(const char *upper, const char *lower, const char *b, int64_t steps, int parts,
                            piece *before, piece *now) {
  int drain = (int)((before->rows + steps - 1) / steps), fetch = now ? (int)((now->rows + steps - 1) / steps) : 0;
  for (int64_t s = 0; s < steps; s++) {
    const char *ahead[3] = {upper + parts * TILE, lower + parts * TILE, b + parts * 2 * TILE};
    int line = 0;
#define A(part)                                                                                                        \
  _tile_loadd(4, upper + (part)*TILE, 64);                                                                             \
  _tile_loadd(5, lower + (part)*TILE, 64);
#define B(part)                                                                                                        \
  _tile_loadd(6, b + (part)*2 * TILE, 64);                                                                             \
  _tile_loadd(7, b + (part)*2 * TILE + TILE, 64);
#define ADD                                                                                                            \
  _tile_dpbf16ps(0, 4, 6);                                                                                             \
  line = fetch_step(ahead, line, parts);                                                                               \
  _tile_dpbf16ps(1, 4, 7);                                                                                             \
  line = fetch_step(ahead, line, parts);                                                                               \
  _tile_dpbf16ps(2, 5, 6);                                                                                             \
  line = fetch_step(ahead, line, parts);                                                                               \
  _tile_dpbf16ps(3, 5, 7);                                                                                             \
  line = fetch_step(ahead, line, parts);
    if (parts == 1) {
      A(0) B(0) ADD
    } else if (parts == 2) {
      THREE_PRODUCTS(A, B, ADD)
    } else {
      SIX_PRODUCTS(A, B, ADD)
    }
#undef A
#undef B
#undef ADD
    upper += parts * TILE, lower += parts * TILE, b += parts * 2 * TILE;
    if (now) fetch_rows(now, fetch);
    finish_rows(before, drain);
  }
}
/* C (0-3: one row tile by four column tiles, in two panels) += A B: for what is left when there are 16 rows or fewer.
 */
SW_INLINE void multiply_1x4(const char *a, const char *b, const char *c, int64_t steps, int parts, piece *before,
                            piece *now) {
  int drain = (int)((before->rows + steps - 1) / steps), fetch = now ? (int)((now->rows + steps - 1) / steps) : 0;
  for (int64_t s = 0; s < steps; s++) {
    const char *b_now, *c_now;
#define A(part) _tile_loadd(4, a + (part)*TILE, 64);
#define B(part) b_now = b + (part)*2 * TILE, c_now = c + (part)*2 * TILE;
#define ADD                                                                                                            \
  _tile_loadd(5, b_now, 64);                                                                                           \
  _tile_dpbf16ps(0, 4, 5);                                                                                             \
  _tile_loadd(6, b_now + TILE, 64);                                                                                    \
  _tile_dpbf16ps(1, 4, 6);                                                                                             \
  _tile_loadd(7, c_now, 64);                                                                                           \
  _tile_dpbf16ps(2, 4, 7);                                                                                             \
  _tile_loadd(5, c_now + TILE, 64);                                                                                    \
  _tile_dpbf16ps(3, 4, 5);
    if (parts == 1) {
      A(0) B(0) ADD
    } else if (parts == 2) {
      THREE_PRODUCTS(A, B, ADD)
    } else {
      SIX_PRODUCTS(A, B, ADD)
    }
#undef A
#undef B
#undef ADD
    a += parts * TILE, b += parts * 2 * TILE, c += parts * 2 * TILE;
    if (now) fetch_rows(now, fetch);
    finish_rows(before, drain);
  }
}

/* Where the k of a product are taken in several turns, C waits in `partial` between them. */
typedef struct {
  float *partial;
  int first, last;
} turn;

SW_INLINE void open_tiles(const turn *k, int64_t ld, int64_t lower) {
  if (k->first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, k->partial, ld * 4);
    _tile_loadd(1, k->partial + 16, ld * 4);
    _tile_loadd(2, k->partial + lower, ld * 4);
    _tile_loadd(3, k->partial + lower + 16, ld * 4);
  }
}
/* Stores the tiles; a finished piece becomes the one that waits. c: two buffers. */
SW_INLINE void close_tiles(const turn *k, int64_t ld, int64_t lower, piece *before, piece *now, float (*c)[32 * 32]) {
  float *to = k->partial;
  if (k->last) {
    finish_rows(before, 32);
    to = before->c == c[0] ? c[1] : c[0];
  }
  _tile_stored(0, to, ld * 4);
  _tile_stored(1, to + 16, ld * 4);
  _tile_stored(2, to + lower, ld * 4);
  _tile_stored(3, to + lower + 16, ld * 4);
  TILE_FENCE();
  if (k->last) {
    now->c = to, now->ld = (int)ld;
    *before = *now;
  }
}
/* One piece of 32 x 32 (fewer rows where the tile registers have fewer). */
SW_INLINE void next_2x2(piece *before, piece now, const turn *k, float (*c)[32 * 32], const char *a, const char *b,
                        int64_t steps, int parts) {
  open_tiles(k, 32, 16 * 32);
  multiply_2x2(a, a + steps * parts * TILE, b, steps, parts, before, k->last ? &now : NULL);
  close_tiles(k, 32, 16 * 32, before, &now, c);
}
/* One piece of at most 16 x 64, in two panels. */
SW_INLINE void next_1x4(piece *before, piece now, const turn *k, float (*c)[32 * 32], const char *a, const char *b,
                        const char *b_next, int64_t steps, int parts) {
  open_tiles(k, 64, 32);
  multiply_1x4(a, b, b_next, steps, parts, before, k->last ? &now : NULL);
  close_tiles(k, 64, 32, before, &now, c);
}

/* ------------------------------------------------ rows times prepared weights
 * ------------------------------------------------ */

typedef struct {
  const sw_linear_desc *desc;
  const void *a; /* [rows, k] */
  sw_dtype a_dtype;
  int64_t rows, k, n;
  int parts;
  const char *b; /* prepared panels */
  linear_output out;
  void *dy; /* not NULL: a is dy, which still has to be multiplied by the activation's gradient at `pre` */
  const void *pre;
  int64_t unit_rows, units, panel_blocks,
      limit; /* work is claimed in units of rows by blocks of panels, `limit` at most */
  _Atomic int64_t claimed;
} product;

/* Long sums are taken in turns, as the A tiles of all k of enough rows would not fit into the cache. Longer ones in
 * bf16: a third of the room, and products so quick that putting C aside counts. */
static int64_t turns_of(int64_t k, int parts) {
  int64_t most = parts == 3 ? 24 : parts == 2 ? 36 : 96;
  return (steps_of(k) + most - 1) / most;
}
static int64_t turn_steps(int64_t k, int parts) {
  return (steps_of(k) + turns_of(k, parts) - 1) / turns_of(k, parts);
}
static int64_t packed_bytes(int64_t rows, int64_t steps, int parts) {
  return linear_round_up(rows, SIDE) / SIDE * steps * parts * TILE;
}
/* Rows of a block: its packed A tiles take a part of the level-2 cache. */
static int64_t block_limit(int64_t k, int parts) {
  int64_t rows = CACHE / (turn_steps(k, parts) * STEP * 2 * parts) / 32 * 32;
  return rows < 64 ? 64 : rows > 512 ? 512 : rows;
}
/* Scratch of one thread: A tiles, and C of a group of panels between turns. */
static int64_t rows_scratch(int64_t rows, int64_t k, int64_t n, int parts) {
  int64_t block = linear_min(linear_round_up(rows, 32), block_limit(k, parts));
  int64_t partial =
      turns_of(k, parts) > 1 ? block / 32 * linear_min(panels_of(n), GROUP) * (int64_t)sizeof(float[32 * 32]) : 0;
  return packed_bytes(block, turn_steps(k, parts), parts) + partial;
}
/* `steps` steps from `first` of the rows [from, to) of A, as tiles: row tile by row tile, step by step, part by part.
 * Rows beyond `to` are left as they are: the tile registers have no such rows. A dozen steps of a row at once: long
 * reads, and the tiles being written stay near. */
SW_INLINE void pack_rows_as(const product *p, sw_dtype dtype, int parts, int64_t from, int64_t to, int64_t first,
                            int64_t steps, char *packed) {
  for (int64_t tile = from; tile < to; tile += SIDE)
    for (int64_t dozen = 0, here; dozen < steps; dozen += here, packed += here * parts * TILE) {
      here = linear_min(12, steps - dozen);
      for (int64_t row = tile; row < linear_min(tile + SIDE, to); row++) {
        char *to_row = packed + (row - tile) * 64;
        for (int64_t s = dozen; s < dozen + here; s++, to_row += parts * TILE) {
          __m512i pairs[3];
          row_pairs(p->a, dtype, row * p->k + (first + s) * STEP, p->k - (first + s) * STEP, parts, pairs);
          for (int part = 0; part < parts; part++) _mm512_store_si512(to_row + part * TILE, pairs[part]);
        }
      }
    }
}
static void pack_rows(const product *p, int64_t from, int64_t to, int64_t first, int64_t steps, char *packed) {
  if (p->parts == 2)
    pack_rows_as(p, p->a_dtype, 2, from, to, first, steps, packed);
  else if (p->parts == 3 && p->a_dtype == SW_F32)
    pack_rows_as(p, SW_F32, 3, from, to, first, steps, packed);
  else if (p->parts == 3)
    pack_rows_as(p, SW_BF16, 3, from, to, first, steps, packed);
  else if (p->a_dtype == SW_F32)
    pack_rows_as(p, SW_F32, 1, from, to, first, steps, packed);
  else
    pack_rows_as(p, SW_BF16, 1, from, to, first, steps, packed);
}

/* The rows [from, to) by the panels [first, last), the steps [step, step + steps) of them. */
SW_INLINE void run_turn(const product *p, int64_t from, int64_t to, int64_t first, int64_t last, int64_t step,
                        int64_t steps, const char *packed, float *partial, float (*c)[32 * 32], piece *before,
                        int parts) {
  int64_t whole = (to - from) / 32 * 32, rest = to - from - whole, b_panel = panel_bytes(p->k, parts);
  int64_t a_rows = steps * parts * TILE, pairs = (to - from + 31) / 32;
  const char *b = p->b + step * parts * 2 * TILE;
  turn k = {.first = step == 0, .last = step + steps == steps_of(p->k)};
  TILE_FENCE();
  for (int pass = 0; pass < 2;
       pass++) { /* the pairs of full row tiles; then what is left, with the registers cut to its rows */
    int64_t row = pass ? whole : 0, end = pass ? whole + (rest > 16 ? rest : 0) : whole;
    if (row == end) continue;
    int lower = pass ? (int)rest - 16 : 16;
    configure_tiles((int[8]){16, 16, lower, lower, 16, lower, 16, 16});
    for (int64_t panel = first; panel < last; panel++)
      for (int64_t r = row; r < end; r += 32) {
        piece now = {.out = &p->out,
                     .row = from + r,
                     .rows = 16 + lower,
                     .col = (int)panel * PANEL,
                     .cols = (int)linear_min(PANEL, p->n - panel * PANEL)};
        k.partial = partial + ((panel - first) * pairs + r / 32) * 32 * 32;
        next_2x2(before, now, &k, c, packed + r / SIDE * a_rows, b + panel * b_panel, steps, parts);
      }
  }
  if (rest > 0 && rest <= 16) {
    int r = (int)rest;
    configure_tiles((int[8]){r, r, r, r, r, 16, 16, 16});
    for (int64_t panel = first; panel < last; panel += 2) {
      int64_t here =
          linear_min(2, last - panel); /* where only one panel is left, it is multiplied twice and kept once */
      piece now = {.out = &p->out,
                   .row = from + whole,
                   .rows = r,
                   .col = (int)panel * PANEL,
                   .cols = (int)linear_min(here * PANEL, p->n - panel * PANEL)};
      k.partial = partial + ((panel - first) * pairs + whole / 32) * 32 * 32;
      next_1x4(before, now, &k, c, packed + whole / SIDE * a_rows, b + panel * b_panel,
               b + (panel + here - 1) * b_panel, steps, parts);
    }
  }
}

/* Cuts the work: blocks of rows where there are enough of them, else panels too. */
static void plan(product *p, int threads) {
  int64_t limit = block_limit(p->k, p->parts), blocks = (p->rows + limit - 1) / limit;
  int by_rows = p->rows >= 64 * threads;
  p->unit_rows = by_rows ? 32 : linear_round_up((p->rows + blocks - 1) / blocks, 32);
  p->panel_blocks = by_rows ? 1 : linear_min((threads + blocks - 1) / blocks, panels_of(p->n));
  p->units = (p->rows + p->unit_rows - 1) / p->unit_rows * p->panel_blocks;
  p->limit = by_rows ? limit / 32 : 1;
}

/* One block of rows by one block of panels. */
SW_INLINE void run_task(const product *p, int64_t unit, int64_t units, char *scratch, int parts) {
  int64_t part = unit % p->panel_blocks, panels = panels_of(p->n), steps = steps_of(p->k);
  int64_t from = unit / p->panel_blocks * p->unit_rows, to = linear_min(from + units * p->unit_rows, p->rows);
  int64_t first = panels * part / p->panel_blocks, last = panels * (part + 1) / p->panel_blocks;
  int64_t turns = turns_of(p->k, parts), each = turn_steps(p->k, parts), group = turns > 1 ? GROUP : panels;
  float *partial = (float *)(scratch + packed_bytes(to - from, each, parts));
  float c[2][32 * 32] __attribute__((aligned(64)));
  piece before = {.out = &p->out, .c = c[1]};
  if (p->dy) linear_gradient(p->desc, p->dy, p->pre, from, to);
  for (int64_t panel = first; panel < last; panel += group)
    for (int64_t step = 0; step < steps; step += each) {
      int64_t here = linear_min(each, steps - step);
      pack_rows(p, from, to, step, here, scratch);
      run_turn(p, from, to, panel, linear_min(panel + group, last), step, here, scratch, partial, c, &before, parts);
    }
  finish_rows(&before, 32);
}

static void run_product(product *p, int threads, void *workspace) {
  int64_t bytes = rows_scratch(p->rows, p->k, p->n, p->parts);
  plan(p, threads);
  if (p->dy && p->panel_blocks > 1) { /* several tasks read the same rows: their gradient must be there before */
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < p->rows; row++) linear_gradient(p->desc, p->dy, p->pre, row, row + 1);
    p->dy = NULL;
  }
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    char *scratch = (char *)workspace + omp_get_thread_num() * bytes;
    for (int64_t unit, units; (units = claim(&p->claimed, p->units, threads, p->limit, &unit));) {
      if (p->parts == 3)
        run_task(p, unit, units, scratch, 3);
      else if (p->parts == 2)
        run_task(p, unit, units, scratch, 2);
      else
        run_task(p, unit, units, scratch, 1);
    }
    _tile_release();
  }
}

int sw_linear_forward_amx(sw_stream *stream, const sw_linear_desc *desc, const void *x, const void *prepared,
                          const float *bias, void *pre, void *y, void *workspace) {
  if (linear_check(stream, desc)) return -1;
  if (!desc->tokens) return 0;
  product p = {.desc = desc,
               .a = x,
               .a_dtype = desc->dtype,
               .rows = desc->tokens,
               .k = desc->in_features,
               .n = desc->out_features,
               .parts = parts_of(desc),
               .b = prepared,
               .out = {.y = y,
                       .pre = pre,
                       .bias = bias,
                       .ld = desc->out_features,
                       .dtype = desc->out_dtype,
                       .activation = desc->activation}};
  run_product(&p, threads_for(stream, (double)p.rows * p.k * p.n, p.parts), workspace);
  return 0;
}

int sw_linear_backward_input_amx(sw_stream *stream, const sw_linear_desc *desc, void *dy, const void *pre,
                                 const void *prepared, void *dx, int accumulate, void *workspace) {
  if (linear_check(stream, desc) || linear_check_backward_input(desc, pre, dx)) return -1;
  if (!desc->tokens) return 0;
  int parts = gradient_parts_of(desc);
  if (!dx) {
    int threads = desc->tokens * desc->out_features < 1 << 14 ? 1 : stream->threads;
    if (!desc->activation) return 0;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < desc->tokens; row++) linear_gradient(desc, dy, pre, row, row + 1);
    return 0;
  }
  product p = {.desc = desc,
               .a = dy,
               .a_dtype = desc->out_dtype,
               .rows = desc->tokens,
               .k = desc->out_features,
               .n = desc->in_features,
               .parts = parts,
               .b = (const char *)prepared + panels_of(desc->out_features) * panel_bytes(desc->in_features, parts_of(desc)),
               .out = {.y = dx, .ld = desc->in_features, .dtype = desc->dtype, .accumulate = accumulate},
               .dy = desc->activation ? dy : NULL,
               .pre = pre};
  run_product(&p, threads_for(stream, (double)p.rows * p.k * p.n, parts), workspace);
  return 0;
}

/* ------------------------------------------------ weight gradients ------------------------------------------------ */
/* dW [out, in] += g^T x, a chunk of tokens at a time, in order. In a chunk, x is packed once, as panels of 32 columns;
 * then stripes of output features are taken one by one: their g is packed (transposed) and multiplied by the panels. An
 * element of dW belongs to one stripe: the order of its additions does not depend on the threads. */

/* Tokens of a chunk: as many as leave the packed x in the level-2 cache, so that dW is seldom touched. */
static int64_t chunk_of(const sw_linear_desc *desc) {
  int64_t fit = CACHE / (panels_of(desc->in_features) * PANEL * 2 * gradient_parts_of(desc)) / 128 * 128;
  return linear_min(linear_round_up(desc->tokens, STEP), fit < 256 ? 256 : fit > 1024 ? 1024 : fit);
}

int sw_linear_workspace_amx(sw_stream *stream, const sw_linear_desc *desc, size_t *bytes) {
  if (linear_check(stream, desc)) return -1;
  int parts = gradient_parts_of(desc);
  int64_t in = desc->in_features, out = desc->out_features, chunk = chunk_of(desc);
  int64_t forward = rows_scratch(desc->tokens, in, out, parts_of(desc)), backward = rows_scratch(desc->tokens, out, in, parts);
  int64_t weight = packed_bytes(STRIPE, steps_of(chunk), parts), x = panels_of(in) * panel_bytes(chunk, parts);
  int64_t training = linear_max(stream->threads * backward, x + stream->threads * weight);
  *bytes = (size_t)linear_max(stream->threads * forward, desc->training ? training : 0);
  return 0;
}

/* Tokens [from, to) of 32 columns of x. */
SW_INLINE void pack_x_as(const void *x, sw_dtype dtype, int64_t in, int64_t from, int64_t to, int64_t panel, int parts,
                         char *packed) {
  for (int64_t k = from; k < to; k += STEP, packed += parts * 2 * TILE)
    for (int tile = 0; tile < 2; tile++)
      for (int p = 0; p < SIDE; p++) {
        int64_t col = panel * PANEL + tile * SIDE;
        __m512i pairs[3];
        column_pairs(x, dtype, in, k + p < to ? k + p : -1, k + p + 16 < to ? k + p + 16 : -1, col < in ? col : 0,
                     lanes(in - col), parts, pairs);
        for (int part = 0; part < parts; part++) memcpy(packed + (part * 2 + tile) * TILE + p * 64, &pairs[part], 64);
      }
}
/* Tokens [from, to) of 16 columns of g, as the rows of A tiles. */
SW_INLINE void pack_g_as(const void *g, sw_dtype dtype, int64_t out, int64_t from, int64_t to, int64_t col, int parts,
                         char *packed) {
  for (int64_t k = from; k < to; k += STEP, packed += parts * TILE) {
    __m512i t[3][SIDE];
    for (int p = 0; p < SIDE; p++) {
      __m512i pairs[3];
      column_pairs(g, dtype, out, k + p < to ? k + p : -1, k + p + 16 < to ? k + p + 16 : -1, col < out ? col : 0,
                   lanes(out - col), parts, pairs);
      for (int part = 0; part < parts; part++) t[part][p] = pairs[part];
    }
    for (int part = 0; part < parts; part++) {
      transpose16(t[part]);
      memcpy(packed + part * TILE, t[part], TILE);
    }
  }
}
static void pack_x(const void *x, sw_dtype dtype, int64_t in, int64_t from, int64_t to, int64_t panel, int parts, char *packed) {
  if (parts == 3)
    pack_x_as(x, SW_F32, in, from, to, panel, 3, packed);
  else if (parts == 2)
    pack_x_as(x, SW_F32, in, from, to, panel, 2, packed);
  else
    pack_x_as(x, SW_BF16, in, from, to, panel, 1, packed);
}
static void pack_g(const void *g, sw_dtype dtype, int64_t out, int64_t from, int64_t to, int64_t col, int parts,
                   char *packed) {
  if (dtype == SW_F32 && parts == 3)
    pack_g_as(g, SW_F32, out, from, to, col, 3, packed);
  else if (dtype == SW_F32 && parts == 2)
    pack_g_as(g, SW_F32, out, from, to, col, 2, packed);
  else if (dtype == SW_BF16 && parts == 1)
    pack_g_as(g, SW_BF16, out, from, to, col, 1, packed);
  else
    pack_g_as(g, dtype, out, from, to, col, parts, packed);
}
/* dbias[col ...] += the sum over the chunk, token after token. */
static void add_column_sums(const void *g, sw_dtype dtype, int64_t out, int64_t from, int64_t to, int64_t first,
                            int64_t last, float *dbias) {
  for (int64_t col = first; col < last; col += 64) {
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    __mmask16 mask[4];
    for (int i = 0; i < 4; i++) mask[i] = lanes(last - col - i * 16);
    for (int64_t row = from; row < to; row++)
      for (int i = 0; i < 4; i++) sum[i] = _mm512_add_ps(sum[i], load16(g, dtype, row * out + col + i * 16, mask[i]));
    for (int i = 0; i < 4; i++) {
      float *at = dbias + col + i * 16;
      _mm512_mask_storeu_ps(at, mask[i], _mm512_add_ps(_mm512_maskz_loadu_ps(mask[i], at), sum[i]));
    }
  }
}

/* dW[first .. last) += g x, packed. */
SW_INLINE void multiply_stripe(const linear_output *dweight, const char *g, int64_t first, int64_t last, const char *x,
                               int64_t x_panel, int64_t in, int64_t steps, int parts) {
  float c[2][32 * 32] __attribute__((aligned(64)));
  piece before = {.out = dweight, .c = c[1]};
  turn all = {.first = 1, .last = 1};
  TILE_FENCE();
  for (int64_t panel = 0; panel < panels_of(in); panel++)
    for (int64_t row = first; row < last; row += 32) {
      piece now = {.out = dweight,
                   .row = row,
                   .rows = (int)linear_min(32, last - row),
                   .col = (int)panel * PANEL,
                   .cols = (int)linear_min(PANEL, in - panel * PANEL)};
      next_2x2(&before, now, &all, c, g + (row - first) / SIDE * steps * parts * TILE, x + panel * x_panel, steps,
               parts);
    }
  finish_rows(&before, 32);
}

int sw_linear_backward_weight_amx(sw_stream *stream, const sw_linear_desc *desc, const void *g, const void *x,
                                  float *dweight, float *dbias, void *workspace) {
  if (linear_check(stream, desc) || linear_check_backward_weight(desc)) return -1;
  if (!desc->tokens) return 0;
  int parts = gradient_parts_of(desc);
  int64_t tokens = desc->tokens, in = desc->in_features, out = desc->out_features, chunk = chunk_of(desc);
  int threads = threads_for(stream, (double)tokens * in * out, parts);
  int64_t units = panels_of(out);
  linear_output to_dweight = {.y = dweight, .ld = in, .dtype = SW_F32, .accumulate = 1};
  char *x_packed = workspace, *g_packed = x_packed + panels_of(in) * panel_bytes(chunk, parts);
  _Atomic int64_t claimed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    char *own = g_packed + omp_get_thread_num() * packed_bytes(STRIPE, steps_of(chunk), parts);
    configure_tiles((int[8]){16, 16, 16, 16, 16, 16, 16, 16});
    for (int64_t from = 0, end = units, unit, taken; from < tokens; from += chunk, end += units) {
      int64_t to = linear_min(from + chunk, tokens), steps = steps_of(to - from), a_rows = steps * parts * TILE;
#pragma omp for schedule(dynamic, 1)
      for (int64_t panel = 0; panel < panels_of(in); panel++)
        pack_x(x, desc->dtype, in, from, to, panel, parts, x_packed + panel * panel_bytes(chunk, parts));
      while ((taken = claim(&claimed, end, threads, STRIPE / 32, &unit))) {
        int64_t first = (unit - (end - units)) * 32, last = linear_min(first + taken * 32, out);
        for (int64_t col = first; col < linear_round_up(last, 32); col += SIDE)
          pack_g(g, desc->out_dtype, out, from, to, col, parts, own + (col - first) / SIDE * a_rows);
        if (dbias) add_column_sums(g, desc->out_dtype, out, from, to, first, last, dbias);
        if (parts == 3)
          multiply_stripe(&to_dweight, own, first, last, x_packed, panel_bytes(chunk, parts), in, steps, 3);
        else if (parts == 2)
          multiply_stripe(&to_dweight, own, first, last, x_packed, panel_bytes(chunk, parts), in, steps, 2);
        else
          multiply_stripe(&to_dweight, own, first, last, x_packed, panel_bytes(chunk, parts), in, steps, 1);
      }
#pragma omp barrier
    }
    _tile_release();
  }
  return 0;
}
