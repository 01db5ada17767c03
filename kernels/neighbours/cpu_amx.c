/* Nearest neighbours on processors with AMX: products of bf16 rows rule out nearly all pairs, the few that are left are computed in fp32 by
 * the contract's chain. The result is that of search.h, bit for bit.
 *
 * With rounded rows q' and c', Cauchy and Schwarz bound what the rounding can change:
 *   |q.c - q'.c'| <= |q - q'| |c| + |q'| |c - c'|
 * and what is added in fp32, here and in the chain, is off by a small multiple of hidden 2^-24 |q| |c|. The norms of what was rounded away are
 * measured, so the bound is a third of the worst case of bf16. A distance is |q|^2 + |c|^2 - 2 q.c: its key, halved, is
 * q.c - |c|^2 / 2 up to a constant of the query. Below, `score` is q'.c', minus |c|^2 / 2 for distances.
 *
 * Of each query the pairs that may be among the k best wait, with the least and the greatest that their score can be. The k-th largest
 * of the least scores is a limit: a pair that cannot reach it is out. Where those that wait become many, the limit is raised; where
 * that does not help (equal texts, say), and at the end, they are computed in fp32 and offered to the query's heap.
 *
 * Whatever is not finite, or too large for bf16, gives a bound that is infinite or NaN, and such pairs always wait. */
#include "kernels/linear/amx_tiles.h"
#include "kernels/neighbours/search.h"

sw_neighbours_workspace_fn sw_neighbours_workspace_amx;
sw_neighbours_fn sw_neighbours_amx;

enum {
  BLOCK = 32,                /* queries, and corpus rows of a panel */
  ROWS_BYTES = 3 << 18,      /* of a chunk of the corpus as bf16: a part of the level-2 cache */
  GROUP_BYTES = 24 << 20,    /* of a group's queries and waiting pairs: they pass through the caches once a chunk */
  FEWEST_QUERIES = 2 * BLOCK /* below, rounding and packing the corpus costs more than it saves */
};

typedef struct {
  int64_t most_queries; /* of a group */
  int64_t chunk;        /* corpus rows */
  int steps, room;      /* tiles of 32 numbers in a row; pairs of a query that may wait */
} sizes;

static sizes sizes_of(const sw_neighbours_desc *d) {
  sizes z = {.steps = (d->hidden + STEP - 1) / STEP};
  z.room = d->k <= 16 ? 128 : (int)round_up(6 * d->k, 16);
  z.chunk = larger(ROWS_BYTES / (z.steps * STEP * 2) / BLOCK * BLOCK, BLOCK);
  z.chunk = smaller(z.chunk, larger(round_up(d->corpus, BLOCK), BLOCK));
  z.most_queries = larger(GROUP_BYTES / (z.steps * STEP * 2 + z.room * 12) / BLOCK * BLOCK, 16 * BLOCK);
  z.most_queries = smaller(z.most_queries, round_up(larger(d->queries, 1), BLOCK));
  return z;
}

/* A thread's scratch. */
typedef struct {
  const search *s;
  sizes z;
  int squares;
  float rounding;                                  /* of sums in fp32, relative to the product of the norms */
  char *queries, *rows;                            /* bf16 tiles: [block][2][step], [panel][step][2] */
  float *half_square;                              /* |c|^2 / 2 for distances, otherwise 0; [chunk] */
  float *row_norm, *row_error, *row_slack;         /* the largest of each panel */
  float *error, *norm, *slack, *half, *limit;      /* of each query; half: |q|^2 / 2 for distances */
  int32_t *waiting, *row;                          /* how many of each query; [queries, room] */
  float *least, *greatest;                         /* [queries, room] */
  int32_t *spare;                                  /* [room] */
  int64_t first_query, count;                      /* this task's queries */
  int64_t first_row, computed;                     /* of this chunk; pairs in fp32 */
  float *key;
  int64_t *index;
} task;

static char *take(char **at, int64_t bytes) {
  char *p = *at;
  *at += round_up(bytes, 64);
  return p;
}
static int64_t place(task *t, const sw_neighbours_desc *d, char *memory) {
  char *at = memory;
  const sizes z = t->z = sizes_of(d);
  const int64_t q = z.most_queries, panels = z.chunk / BLOCK, width = (int64_t)z.steps * STEP * 2;
  t->queries = take(&at, q * width);
  t->rows = take(&at, z.chunk * width);
  t->half_square = (float *)take(&at, z.chunk * 4);
  float **const of_panels[] = {&t->row_norm, &t->row_error, &t->row_slack}, **const of_queries[] = {&t->error, &t->norm, &t->slack, &t->half, &t->limit};
  for (int i = 0; i < 3; i++) *of_panels[i] = (float *)take(&at, panels * 4);
  for (int i = 0; i < 5; i++) *of_queries[i] = (float *)take(&at, q * 4);
  t->waiting = (int32_t *)take(&at, q * 4);
  t->row = (int32_t *)take(&at, q * z.room * 4);
  t->least = (float *)take(&at, q * z.room * 4);
  t->greatest = (float *)take(&at, q * z.room * 4);
  t->spare = (int32_t *)take(&at, z.room * 4);
  return at - memory;
}

/* --- rows as bf16 --- */

typedef struct {
  double square, error, norm; /* |x|^2, |x - x'|, |x'| */
} measures;
static measures measure(const float *x, int depth) {
  __m512d square = _mm512_setzero_pd(), error = square, norm = square;
  for (int d = 0; d < depth; d += 16) {
    __m512 v = load16(x, SW_F32, d, lanes(depth - d));
    __m512 rounded = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v)), 16)), lost = _mm512_sub_ps(v, rounded);
    for (int half = 0; half < 2; half++) {
      const __m512 a = half ? _mm512_shuffle_f32x4(v, v, 0xee) : v, b = half ? _mm512_shuffle_f32x4(lost, lost, 0xee) : lost,
                   c = half ? _mm512_shuffle_f32x4(rounded, rounded, 0xee) : rounded;
      const __m512d wide = _mm512_cvtps_pd(_mm512_castps512_ps256(a)), wide_lost = _mm512_cvtps_pd(_mm512_castps512_ps256(b)),
                    wide_rounded = _mm512_cvtps_pd(_mm512_castps512_ps256(c));
      square = _mm512_fmadd_pd(wide, wide, square);
      error = _mm512_fmadd_pd(wide_lost, wide_lost, error);
      norm = _mm512_fmadd_pd(wide_rounded, wide_rounded, norm);
    }
  }
  return (measures){_mm512_reduce_add_pd(square), sqrt(_mm512_reduce_add_pd(error)), sqrt(_mm512_reduce_add_pd(norm))};
}
/* A float above x >= 0, never 0. */
static float above(double x) { return (float)(x * 1.001 + 0x1p-126); }

static void pack_queries(task *t, int64_t from, int64_t to) {
  const int depth = t->s->d.hidden, steps = t->z.steps;
  for (int64_t q = 0; q < round_up(to - from, BLOCK); q++) {
    const int real = from + q < to;
    const float *x = t->s->queries + (real ? from + q : from) * depth;
    char *row = t->queries + q / SIDE * steps * TILE + q % SIDE * 64;
    for (int step = 0; step < steps; step++) {
      __m512i pairs[3];
      row_pairs(x, SW_F32, step * STEP, real ? depth - step * STEP : 0, 1, pairs);
      _mm512_store_si512(row + step * TILE, pairs[0]);
    }
    measures m = measure(x, depth);
    t->error[q] = above(m.error + t->rounding * sqrt(m.square));
    t->norm[q] = above(m.norm);
    t->half[q] = t->squares ? (float)(m.square / 2) : 0;
    t->slack[q] = t->rounding * t->half[q] + (float)depth * 0x1p-120f; /* tile products take subnormal numbers for zeros */
    t->waiting[q] = 0;
    t->limit[q] = -INFINITY;
  }
}
static void pack_panel(task *t, int64_t panel, int64_t first, int64_t count) {
  const int depth = t->s->d.hidden, steps = t->z.steps;
  char *to = t->rows + panel * steps * 2 * TILE;
  float norm = 0, error = 0, slack = 0;
  for (int64_t r = 0; r < BLOCK; r++) {
    measures m = r < count ? measure(t->s->corpus + (first + r) * depth, depth) : (measures){0};
    const float half = t->squares ? (float)(m.square / 2) : 0, norms[3] = {above(sqrt(m.square)), above(m.error), t->rounding * half};
    t->half_square[panel * BLOCK + r] = half;
    norm = norms[0] > norm ? norms[0] : norm; /* a row with NaN changes nothing: its own scores are NaN */
    error = norms[1] > error ? norms[1] : error;
    slack = norms[2] > slack ? norms[2] : slack;
  }
  t->row_norm[panel] = norm, t->row_error[panel] = error, t->row_slack[panel] = slack;
  for (int tile = 0; tile < 2; tile++)
    for (int step = 0; step < steps; step++) {
      __m512i columns[SIDE];
      for (int r = 0; r < SIDE; r++) {
        const int64_t row = tile * SIDE + r;
        __m512i pairs[3];
        row_pairs(t->s->corpus + (first + (row < count ? row : 0)) * depth, SW_F32, step * STEP, row < count ? depth - step * STEP : 0, 1, pairs);
        columns[r] = pairs[0];
      }
      transpose16(columns);
      for (int i = 0; i < SIDE; i++) _mm512_store_si512(to + (step * 2 + tile) * TILE + i * 64, columns[i]);
    }
}

/* --- pairs that wait --- */

/* The chains of one query and 16 rows. */
SW_INLINE vf chains(const float *query, const float *const *rows, int depth, int squares) {
  vf sum = vf_zero();
  for (int d = 0; d < depth; d += SW_LANES) {
    const int n = (int)smaller(depth - d, SW_LANES);
    vf v[SW_LANES];
    for (int r = 0; r < SW_LANES; r++) v[r] = n == SW_LANES ? vf_load(rows[r] + d) : vf_load_n(rows[r] + d, n);
    tile_transpose(v);
    for (int i = 0; i < n; i++) {
      const vf q = vf_set(query[d + i]), a = squares ? q - v[i] : q, b = squares ? a : v[i];
      sum = vf_fma(a, b, sum);
    }
  }
  return sum;
}

/* Raises the limit of query q to the worst of its heap. */
static void raise_to_worst(task *t, int64_t q) {
  const float worst = t->key[q * t->s->d.k] * (t->squares ? 0.5f : 1) + t->half[q];
  if (worst > t->limit[q]) t->limit[q] = worst;
}

/* Computes what waits of query q (of the group) and offers it to the heap. */
static void compute_waiting(task *t, int64_t q) {
  const search *s = t->s;
  const int depth = s->d.hidden, k = s->d.k, count = t->waiting[q];
  const int32_t *row = t->row + q * t->z.room;
  const float *query = s->queries + (t->first_query + q) * depth;
  for (int i = 0; i < count; i += SW_LANES) {
    const float *rows[SW_LANES];
    float keys[SW_LANES];
    for (int l = 0; l < SW_LANES; l++) rows[l] = s->corpus + (int64_t)row[i + l < count ? i + l : i] * depth;
    vf_store(keys, t->squares ? -chains(query, rows, depth, 1) : chains(query, rows, depth, 0));
    for (int l = 0; l < SW_LANES && i + l < count; l++) offer(t->key + q * k, t->index + q * k, k, keys[l], s->d.base + row[i + l]);
  }
  t->waiting[q] = 0;
  t->computed += count;
  raise_to_worst(t, q);
}

/* Whole numbers in the order of the floats. */
SW_INLINE __m512i ordered(__m512i bits) { return _mm512_xor_si512(bits, _mm512_srli_epi32(_mm512_srai_epi32(bits, 31), 1)); }

/* Not above the k-th largest of n >= k values, and seldom much below it: by bisection. `spare`: [n, rounded up to 16]. */
static float reached_by(const float *values, int n, int k, int32_t *spare) {
  const __m512i none = _mm512_set1_epi32(INT32_MIN);
  __m512i largest = none, smallest = _mm512_set1_epi32(INT32_MAX);
  for (int i = 0; i < n; i += 16) {
    const __m512i v = _mm512_mask_mov_epi32(none, lanes(n - i), ordered(_mm512_maskz_loadu_epi32(lanes(n - i), values + i)));
    _mm512_store_si512(spare + i, v);
    largest = _mm512_max_epi32(largest, v);
    smallest = _mm512_mask_min_epi32(smallest, lanes(n - i), smallest, v);
  }
  int64_t low = _mm512_reduce_min_epi32(smallest), high = (int64_t)_mm512_reduce_max_epi32(largest) + 1; /* at least k reach low, fewer high */
  for (int turn = 0; turn < 20 && high - low > 1; turn++) {
    const int64_t middle = low + (high - low) / 2;
    const __m512i limit = _mm512_set1_epi32((int32_t)middle);
    int count = 0;
    for (int i = 0; i < n; i += 16) count += __builtin_popcount(_mm512_cmpge_epi32_mask(_mm512_load_si512(spare + i), limit));
    if (count >= k)
      low = middle;
    else
      high = middle;
  }
  float value;
  const uint32_t bits = (uint32_t)low ^ (low < 0 ? 0x7fffffffu : 0);
  memcpy(&value, &bits, sizeof value);
  return value;
}
/* Raises the limit of query q by what waits, and drops what cannot reach it. */
static void raise_limit(task *t, int64_t q) {
  const int n = t->waiting[q];
  float *least = t->least + q * t->z.room, *greatest = t->greatest + q * t->z.room;
  int32_t *row = t->row + q * t->z.room;
  if (n < t->s->d.k) return;
  const float reached = reached_by(least, n, t->s->d.k, t->spare);
  if (reached > t->limit[q]) t->limit[q] = reached;
  const __m512 limit = _mm512_set1_ps(t->limit[q]);
  int kept = 0;
  for (int i = 0; i < n; i += 16) {
    const __m512 high = _mm512_loadu_ps(greatest + i), low = _mm512_loadu_ps(least + i);
    const __m512i rows = _mm512_loadu_si512(row + i);
    const __mmask16 stay = _mm512_mask_cmp_ps_mask(lanes(n - i), high, limit, _CMP_NLT_UQ);
    _mm512_mask_compressstoreu_ps(greatest + kept, stay, high);
    _mm512_mask_compressstoreu_ps(least + kept, stay, low);
    _mm512_mask_compressstoreu_epi32(row + kept, stay, rows);
    kept += __builtin_popcount(stay);
  }
  t->waiting[q] = kept;
}
/* The lanes of `hits`: row `first` of the corpus and the following, with their scores. */
static void keep_waiting(task *t, int64_t q, int64_t panel, unsigned hits, const float *scores, int64_t first, int64_t last) {
  if (q >= t->count) return; /* the last block is filled up */
  const int room = t->z.room;
  const float bound = t->error[q] * t->row_norm[panel] + t->norm[q] * t->row_error[panel] + (t->slack[q] + t->row_slack[panel]);
  for (; hits; hits &= hits - 1) {
    const int l = __builtin_ctz(hits);
    if (first + l >= last || (t->s->d.first_skip >= 0 && t->s->d.base + first + l == t->s->d.first_skip + t->first_query + q)) continue;
    const int64_t at = q * room + t->waiting[q]++;
    const float score = scores[l] - t->half_square[panel * BLOCK + l], low = score - bound, high = score + bound;
    t->least[at] = isnan(low) ? -INFINITY : low;
    t->greatest[at] = isnan(high) ? INFINITY : high;
    t->row[at] = (int32_t)(first + l);
    if (t->waiting[q] < room) continue;
    raise_limit(t, q);
    if (t->waiting[q] > room - room / 4) compute_waiting(t, q);
  }
}

/* --- products --- */

/* 32 queries by a panel, multiplied but not looked through yet. */
typedef struct {
  const float *scores; /* [32, 32] */
  float limit[BLOCK] __attribute__((aligned(64)));
  int64_t query, panel, last;
  int done;
} piece;

static void open_piece(const task *t, piece *p, const float *scores, int64_t query, int64_t panel, int64_t last) {
  const __m512 norm = _mm512_set1_ps(t->row_norm[panel]), error = _mm512_set1_ps(t->row_error[panel]), slack = _mm512_set1_ps(t->row_slack[panel]);
  for (int i = 0; i < BLOCK; i += 16) {
    __m512 bound = _mm512_add_ps(_mm512_load_ps(t->slack + query + i), slack);
    bound = _mm512_fmadd_ps(_mm512_load_ps(t->error + query + i), norm, bound);
    bound = _mm512_fmadd_ps(_mm512_load_ps(t->norm + query + i), error, bound);
    _mm512_store_ps(p->limit + i, _mm512_sub_ps(_mm512_load_ps(t->limit + query + i), bound));
  }
  p->scores = scores, p->query = query, p->panel = panel, p->last = last, p->done = 0;
}
SW_INLINE void look_through(task *t, piece *p, int rows) {
  const float *half_square = t->half_square + p->panel * BLOCK;
  const __m512 h0 = _mm512_load_ps(half_square), h1 = _mm512_load_ps(half_square + 16);
  for (int r = p->done, end = (int)smaller(p->done + rows, BLOCK); r < end; r++) {
    const float *scores = p->scores + r * BLOCK;
    const __m512 limit = _mm512_set1_ps(p->limit[r]);
    /* not less than, or NaN */
    const unsigned hits = _mm512_cmp_ps_mask(_mm512_sub_ps(_mm512_load_ps(scores), h0), limit, _CMP_NLT_UQ) |
                          (unsigned)_mm512_cmp_ps_mask(_mm512_sub_ps(_mm512_load_ps(scores + 16), h1), limit, _CMP_NLT_UQ) << 16;
    if (__builtin_expect(hits != 0, 0)) keep_waiting(t, p->query + r, p->panel, hits, scores, t->first_row + p->panel * BLOCK, p->last);
  }
  p->done += rows;
}

/* The tile unit multiplies one piece while the vector units look through the one before. */
static void multiply(task *t, const char *queries, const char *rows, float *scores, piece *before) {
  const int steps = t->z.steps, each = (BLOCK + steps - 1) / steps;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int step = 0; step < steps; step++, queries += TILE, rows += 2 * TILE) {
    _tile_loadd(4, queries, 64);
    _tile_loadd(5, queries + steps * TILE, 64);
    _tile_loadd(6, rows, 64);
    _tile_loadd(7, rows + TILE, 64);
    _tile_dpbf16ps(0, 4, 6);
    for (int i = 0; i < 16; i++) _mm_prefetch(rows + 4 * TILE + i * 64, _MM_HINT_T0);
    _tile_dpbf16ps(1, 4, 7);
    for (int i = 16; i < 32; i++) _mm_prefetch(rows + 4 * TILE + i * 64, _MM_HINT_T0);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    if (before->scores) look_through(t, before, each);
  }
  _tile_stored(0, scores, BLOCK * 4);
  _tile_stored(1, scores + 16, BLOCK * 4);
  _tile_stored(2, scores + 16 * BLOCK, BLOCK * 4);
  _tile_stored(3, scores + 16 * BLOCK + 16, BLOCK * 4);
  TILE_FENCE();
}

static void search_tiles(const search *s, int64_t from, int64_t to, int64_t first, int64_t last, float *memory, float *key, int64_t *index) {
  if (to - from < FEWEST_QUERIES) return search_plain(s, from, to, first, last, memory, key, index);
  float scores[2][BLOCK * BLOCK] __attribute__((aligned(64)));
  task t = {.s = s, .squares = s->d.metric == SW_SQUARED_DISTANCE, .rounding = (float)(s->d.hidden + 16) * 0x1p-22f, .first_query = from, .count = to - from,
            .key = key, .index = index};
  place(&t, &s->d, (char *)memory);
  pack_queries(&t, from, to);
  for (int64_t q = 0; q < to - from; q++) raise_to_worst(&t, q); /* by pieces of the corpus that came before */
  const int64_t blocks = (to - from + BLOCK - 1) / BLOCK;
  const int pieces = t.z.steps * TILE;
  for (; first < last; first += t.z.chunk) {
    const int64_t end = smaller(first + t.z.chunk, last), panels = (end - first + BLOCK - 1) / BLOCK, computed = t.computed;
    piece before = {.scores = NULL};
    int turn = 0;
    t.first_row = first;
    for (int64_t panel = 0; panel < panels; panel++) pack_panel(&t, panel, first + panel * BLOCK, smaller(BLOCK, end - first - panel * BLOCK));
    TILE_FENCE();
    configure_tiles((int[8]){16, 16, 16, 16, 16, 16, 16, 16});
    for (int64_t block = 0; block < blocks; block++)
      for (int64_t panel = 0; panel < panels; panel++, turn = !turn) {
        multiply(&t, t.queries + block * 2 * pieces, t.rows + panel * 2 * pieces, scores[turn], &before);
        open_piece(&t, &before, scores[turn], block * BLOCK, panel, end);
      }
    if (before.scores) look_through(&t, &before, BLOCK);
    _tile_release();
    if (t.computed - computed > (to - from) * (end - first) / 8) { /* too many are too close: fp32 throughout is quicker */
      first = end;
      break;
    }
  }
  for (int64_t q = 0; q < to - from; q++) {
    raise_limit(&t, q);
    compute_waiting(&t, q);
  }
  if (first < last) search_plain(s, from, to, first, last, memory, key, index);
}

static int64_t scratch_floats(const search *s) {
  task t;
  return larger(plain_floats(s), place(&t, &s->d, NULL) / 4);
}

int sw_neighbours_workspace_amx(sw_stream *stream, const sw_neighbours_desc *desc, size_t *bytes) {
  if (neighbours_check(desc)) return -1;
  search s = plan(stream, desc);
  *bytes = workspace_bytes(stream, desc, scratch_floats(&s));
  return 0;
}

int sw_neighbours_amx(sw_stream *stream, const sw_neighbours_desc *desc, const float *queries, const float *corpus, int64_t *index, float *score,
                      void *workspace) {
  if (neighbours_check(desc)) return -1;
  search s = plan(stream, desc);
  s.queries = queries, s.corpus = corpus, s.index = index, s.key = score;
  s.groups = larger(s.groups, (desc->queries + sizes_of(desc).most_queries - 1) / sizes_of(desc).most_queries);
  run_search(stream, &s, search_tiles, scratch_floats(&s), workspace);
  return 0;
}
