/* Nearest neighbours against the scores of the contract, pair by pair, and those against the double reference. The contract leaves one
 * result only, so everything is compared bit for bit. */
#include "kernels/neighbours/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef enum { NORMAL, INTEGERS, DUPLICATES, EQUAL, ZEROS, NOT_FINITE, HUGE_VALUES, TINY_VALUES, RISING, CLOSE, NEAR_TIES, OUTLIERS, OVERFLOWING, UNEVEN, DATA_COUNT } data;
static const char *const data_names[DATA_COUNT] = {"normal",     "integers",    "duplicates",  "all equal", "zeros",
                                                   "not finite", "huge values", "tiny values", "rising",    "close",
                                                   "near ties",  "outliers",    "overflowing", "uneven"};

typedef struct {
  sw_neighbours_desc desc;
  kt_tensor *queries, *corpus, *index, *score, *workspace;
  int64_t *want_index;
  double *scores, *want_score;
} job;

static int try_neighbours(kt *t, job *j) {
  return SW_RUN(&t->stream, neighbours, &j->desc, j->queries->data, j->corpus->data, j->index->data, j->score->data, j->workspace->data);
}
static void neighbours(kt *t, void *argument) { kt_ok(t, try_neighbours(t, argument)); }

static kt_tensor *workspace(kt *t, const sw_neighbours_desc *d) {
  int threads = t->stream.threads;
  size_t bytes;
  t->stream.threads = 3; /* the most that kt_with_threads takes */
  kt_ok(t, SW_RUN(&t->stream, neighbours_workspace, d, &bytes));
  t->stream.threads = threads;
  return kt_bytes(t, "workspace", bytes);
}

static void draw(kt *t, kt_tensor *x, int hidden, data kind, int corpus) {
  int64_t rows = x->count / hidden;
  double deviation = 1 / sqrt(hidden);
  kt_normal(t, x, 0, deviation);
  if (kind == INTEGERS) kt_integers(t, x, -2, 2);
  for (int64_t i = 0; i < rows; i++)
    for (int h = 0; h < hidden; h++) {
      double *v = x->host + i * hidden + h;
      if (kind == DUPLICATES) *v = corpus ? x->host[i * 7 % 11 % rows * hidden + h] : *v;
      if (kind == EQUAL) *v = 0.1 * (h + 1);
      if (kind == ZEROS) *v = 0;
      if (kind == HUGE_VALUES) *v *= i % 3 ? 3e38 : 1e19;
      if (kind == TINY_VALUES) *v *= i % 3 ? 1e-38 : 1e-20;
      if (kind == RISING) *v = corpus ? 1 + 1e-4 * (double)i : 1;
      if (kind == NEAR_TIES && corpus && i % 4) *v = x->host[i / 4 * 4 * hidden + h] * (1 + (double)((i * 7 + h) % 3) * 0x1p-23); /* the same as bf16 */
      if (kind == OUTLIERS) *v *= i % 50 == 0 ? 1e4 : i % 7 == 0 ? 1e-3 : 1;
      if (kind == OVERFLOWING) *v *= 1.5e19 * sqrt(hidden); /* a sum may overflow in one order and not in another */
      if (kind == UNEVEN) *v = (h ? 0.3 * cos(h) + 1e-6 * *v : 1) * (i % 8 ? 1 : 1e-6); /* a bound that sees only some rows is too small */
      if (kind == CLOSE) *v = h ? 0.3 * cos(h) + 1e-6 * *v : 1; /* closer than bf16 can tell */
    }
  if (kind == NOT_FINITE)
    for (int64_t i = 1; i < rows; i += 3) x->host[i * hidden + i % hidden] = i % 4 == 0 ? NAN : i % 4 == 1 ? INFINITY : -INFINITY;
  kt_upload(t, x);
}

/* The chain of the contract for every pair, NaN where it is left out. */
static void chain_scores(kt *t, job *j) {
  const sw_neighbours_desc *d = &j->desc;
  int fused = !strstr(t->device->name, "baseline"), squares = d->metric == SW_SQUARED_DISTANCE;
  double *reference = kt_doubles(t, d->queries * d->corpus);
  sw_neighbours_scores_reference(d, j->queries->host, j->corpus->host, reference);
  long wrong = 0;
  for (int64_t i = 0; i < d->queries; i++)
    for (int64_t n = 0; n < d->corpus; n++) {
      volatile float sum = 0, product; /* volatile: two roundings where there are two */
      double magnitude = 0;
      for (int h = 0; h < d->hidden; h++) {
        float q = (float)j->queries->host[i * d->hidden + h], c = (float)j->corpus->host[n * d->hidden + h], a = squares ? q - c : q,
              b = squares ? a : c;
        product = a * b;
        sum = fused ? fmaf(a, b, sum) : sum + product;
        magnitude += fabs((double)a * b);
      }
      double want = reference[i * d->corpus + n], got = sum;
      if (isnan(want) && !isnan(got)) got = (d->first_skip >= 0 && d->base + n == d->first_skip + i) || isinf(got) ? NAN : got;
      if (got == (squares ? INFINITY : -INFINITY)) got = NAN;
      j->scores[i * d->corpus + n] = got;
      if (!isnan(got) && isfinite(got) && !(fabs(got - want) <= magnitude * (d->hidden + 4) * 0x1p-23 + d->hidden * 0x1p-148)) wrong++;
    }
  kt_check(t, wrong == 0, "%ld chains are far from the reference", wrong);
}

static job make(kt *t, int64_t queries, int64_t corpus, int hidden, int k, sw_metric metric, int64_t first_skip, data kind) {
  job j = {.desc = {.queries = queries, .corpus = corpus, .hidden = hidden, .k = k, .metric = metric, .first_skip = first_skip}};
  j.queries = kt_new(t, "queries", SW_F32, queries * hidden);
  j.corpus = kt_new(t, "corpus", SW_F32, corpus * hidden);
  draw(t, j.corpus, hidden, kind, 1);
  draw(t, j.queries, hidden, kind, 0);
  if (first_skip >= 0 || kind == CLOSE) { /* the corpus searches itself */
    for (int64_t i = 0; i < queries * hidden; i++) {
      int64_t from = i + (first_skip > 0 ? first_skip * hidden : 0);
      if (from < corpus * hidden) j.queries->host[i] = j.corpus->host[from];
    }
    kt_upload(t, j.queries);
  }
  j.index = kt_bytes(t, "index", (size_t)(queries * k) * sizeof(int64_t));
  j.score = kt_new(t, "score", SW_F32, queries * k);
  j.workspace = workspace(t, &j.desc);
  return j;
}
static void expect(kt *t, job *j) {
  j->scores = kt_doubles(t, j->desc.queries * j->desc.corpus);
  j->want_score = kt_doubles(t, j->desc.queries * j->desc.k);
  j->want_index = (int64_t *)kt_doubles(t, j->desc.queries * j->desc.k); /* as many bytes */
  chain_scores(t, j);
  sw_neighbours_best_reference(&j->desc, j->scores, j->want_index, j->want_score);
}
static void compare(kt *t, const char *what, const job *j) {
  int64_t count = j->desc.queries * j->desc.k, wrong = 0, first = -1, *got = malloc((size_t)(count + 1) * sizeof *got);
  if (t->device->copy_out(&t->stream, got, j->index->data, j->index->bytes) || t->device->synchronize(&t->stream)) exit(1);
  for (int64_t i = 0; i < count; i++)
    if (got[i] != j->want_index[i] && wrong++ == 0) first = i;
  kt_check(t, wrong == 0, "%s: %lld of %lld indices are wrong, the first is [%lld][%lld]: %lld, want %lld", what, (long long)wrong,
           (long long)count, (long long)(first / j->desc.k), (long long)(first % j->desc.k), (long long)(first < 0 ? 0 : got[first]),
           (long long)(first < 0 ? 0 : j->want_index[first]));
  free(got);
  kt_compare(t, what, j->score, j->want_score, 0, 0);
}

static void against_reference(kt *t, int64_t queries, int64_t corpus, int hidden, int k, int64_t first_skip, data kind) {
  for (int metric = SW_INNER_PRODUCT; metric <= SW_SQUARED_DISTANCE; metric++) {
    kt_case(t, "%s, %s, %lld x %lld x %d, k %d, skip %lld", data_names[kind], metric ? "distance" : "product", (long long)queries,
            (long long)corpus, hidden, k, (long long)first_skip);
    job j = make(t, queries, corpus, hidden, k, (sw_metric)metric, first_skip, kind);
    expect(t, &j);
    kt_with_threads(t, "neighbours", neighbours, &j, (kt_tensor *[]){j.index, j.score}, 2);
    compare(t, "score", &j);
    kt_clear(t);
  }
}

/* Pieces in any order, with a base of their own: the bits of one piece. */
static void pieces(kt *t, int64_t queries, int64_t corpus, int hidden, int k, sw_metric metric, data kind, int backwards) {
  kt_case(t, "pieces, %s, %s, %lld x %lld x %d, k %d%s", data_names[kind], metric ? "distance" : "product", (long long)queries,
          (long long)corpus, hidden, k, backwards ? ", backwards" : "");
  const int64_t base = 5000000000, cuts[] = {0, corpus / 3 + 1, corpus / 3 + 1, corpus / 3 + 2, corpus};
  job j = make(t, queries, corpus, hidden, k, metric, 2, kind);
  j.desc.base = base, j.desc.first_skip += base;
  expect(t, &j);
  neighbours(t, &j);
  compare(t, "one piece", &j);
  for (int n = 0; n < 4; n++) {
    int piece = backwards ? 3 - n : n;
    job part = j;
    part.desc.base = base + cuts[piece];
    part.desc.corpus = cuts[piece + 1] - cuts[piece];
    part.desc.resume = n > 0;
    kt_tensor *rows = kt_new(t, "piece", SW_F32, part.desc.corpus * hidden); /* with guards around it */
    memcpy(rows->host, j.corpus->host + cuts[piece] * hidden, (size_t)rows->count * sizeof(double));
    kt_upload(t, rows);
    part.corpus = rows;
    neighbours(t, &part);
  }
  compare(t, "four pieces", &j);
  kt_clear(t);
}

/* A query alone, and the workspace of a larger call. */
static void alone(kt *t) {
  kt_case(t, "alone");
  job j = make(t, 37, 70, 21, 9, SW_INNER_PRODUCT, -1, NORMAL), one = make(t, 1, 70, 21, 9, SW_INNER_PRODUCT, -1, NORMAL);
  neighbours(t, &j);
  one.corpus = j.corpus, one.workspace = j.workspace;
  for (int i = 0; i < 37; i += 5) {
    memcpy(one.queries->host, j.queries->host + i * 21, 21 * sizeof(double));
    kt_upload(t, one.queries);
    neighbours(t, &one);
    kt_same_bits_at(t, "score alone", one.score, 0, j.score, i * 9, 9);
  }
  kt_clear(t);
}

static void bad_input(kt *t) {
  job j = make(t, 3, 5, 4, 2, SW_INNER_PRODUCT, -1, NORMAL);
  const sw_neighbours_desc good = j.desc;
  kt_case(t, "bad input");
  static const struct {
    const char *message;
    sw_neighbours_desc desc;
  } cases[] = {{"k is 0", {3, 5, 4, 0, SW_INNER_PRODUCT, 0, -1, 0}},
               {"k is 257", {3, 5, 4, 257, SW_INNER_PRODUCT, 0, -1, 0}},
               {"5 corpus rows of 0 numbers", {3, 5, 0, 2, SW_INNER_PRODUCT, 0, -1, 0}},
               {"-1 queries", {-1, 5, 4, 2, SW_INNER_PRODUCT, 0, -1, 0}},
               {"below 2^31", {3, 1LL << 31, 4, 2, SW_INNER_PRODUCT, 0, -1, 0}},
               {"unknown metric 2", {3, 5, 4, 2, (sw_metric)2, 0, -1, 0}},
               {"base is -1", {3, 5, 4, 2, SW_INNER_PRODUCT, -1, -1, 0}}};
  for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
    size_t bytes;
    j.desc = cases[i].desc;
    kt_fails(t, try_neighbours(t, &j), cases[i].message);
    kt_fails(t, SW_RUN(&t->stream, neighbours_workspace, &j.desc, &bytes), cases[i].message);
  }
  j.desc = good;
  kt_download(t, j.score);
  kt_check(t, isnan(j.score->host[0]), "a refused call has written something");
  kt_clear(t);
}

static void bench(kt *t) {
  static const struct {
    int64_t queries, corpus;
    int k;
  } shapes[] = {{20000, 20000, 15}, {256, 100000, 10}, {1, 100000, 10}};
  for (int s = 0; s < 3; s++)
    for (int metric = SW_INNER_PRODUCT; metric <= SW_SQUARED_DISTANCE; metric++) {
      job j = make(t, shapes[s].queries, shapes[s].corpus, 384, shapes[s].k, (sw_metric)metric, -1, NORMAL);
      char name[80];
      snprintf(name, sizeof name, "%s %lld x %lld x 384, k %d", metric ? "distance" : "product", (long long)shapes[s].queries,
               (long long)shapes[s].corpus, shapes[s].k);
      kt_report(t, name, kt_seconds(t, neighbours, &j), 2.0 * (double)shapes[s].queries * (double)shapes[s].corpus * 384,
                (double)(j.corpus->bytes + j.queries->bytes));
      kt_clear(t);
    }
}

static void tests(kt *t) {
  int small = kt_small(t);
  static const int hiddens[] = {1, 3, 16, 37, 64, 131, 384}, ks[] = {1, 2, 15, 32, 33, 100, 256};
  for (int h = 0; h < 7; h++) {
    against_reference(t, 13, 150, hiddens[h], ks[h], -1, NORMAL);
    against_reference(t, 3, 40, hiddens[h], ks[6 - h], h, INTEGERS);
  }
  for (int n = 1; n <= 5; n++) against_reference(t, n, 2 * n, 8, 4, 0, NORMAL);
  against_reference(t, 0, 7, 12, 3, -1, NORMAL);
  against_reference(t, 4, 0, 12, 3, -1, NORMAL);
  against_reference(t, 1, 1, 12, 3, 0, NORMAL);
  for (int kind = INTEGERS; kind < DATA_COUNT; kind++) {
    against_reference(t, 20, small ? 200 : 400, 24, 7, -1, (data)kind);
    if (!small) against_reference(t, 70, 90, 36, 40, 1, (data)kind);
    pieces(t, 9, 200, 20, 12, SW_INNER_PRODUCT, (data)kind, kind % 2);
    pieces(t, 9, 200, 20, 12, SW_SQUARED_DISTANCE, (data)kind, kind % 2 == 0);
  }
  against_reference(t, 9, small ? 1500 : 5000, 16, 15, -1, NORMAL); /* segments, which are merged */
  against_reference(t, 2, small ? 1100 : 3000, 5, 256, -1, DUPLICATES);
  against_reference(t, 130, small ? 150 : 700, 64, 15, 0, CLOSE);
  against_reference(t, 100, small ? 200 : 700, 8, 3, -1, NORMAL);
  if (!small) {
    against_reference(t, 300, 2500, 64, 20, 0, NORMAL);
    against_reference(t, 1100, 1300, 40, 15, 100, DUPLICATES); /* several groups */
    against_reference(t, 64, 1500, 1030, 15, -1, NORMAL);      /* several chunks */
  }
  pieces(t, 50, small ? 1600 : 3500, 12, 33, SW_INNER_PRODUCT, NORMAL, 0);
  pieces(t, 50, small ? 1600 : 3500, 12, 33, SW_SQUARED_DISTANCE, NORMAL, 1);
  alone(t);
  bad_input(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
