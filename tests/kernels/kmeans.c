/* k-means' operators: distances and labels bit for bit against the contract's chains, those against the double reference; sums against
 * those of a labelling from nothing. */
#include "kernels/kmeans/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef enum { NORMAL, INTEGERS, EQUAL, DUPLICATES, NOT_FINITE, HUGE_VALUES, DATA_COUNT } data;
static const char *const data_names[DATA_COUNT] = {"normal", "integers", "all equal", "duplicates", "not finite", "huge values"};

typedef struct {
  sw_kmeans_desc desc;
  kt_tensor *x, *centres, *label, *distance, *workspace; /* label: int32 as raw bytes */
  kt_tensor *before, *sums, *counts, *changed;
} job;

static int try_assign(kt *t, job *j) {
  return SW_RUN(&t->stream, kmeans_assign, &j->desc, j->x->data, j->centres->data, NULL, j->label->data, j->distance->data,
                j->workspace->data);
}
static void assign(kt *t, void *argument) { kt_ok(t, try_assign(t, argument)); }
static int try_update(kt *t, job *j) {
  return SW_RUN(&t->stream, kmeans_update, &j->desc, j->x->data, j->before->data, j->label->data, j->sums->data, j->counts->data, j->changed->data);
}
static void update(kt *t, void *argument) { kt_ok(t, try_update(t, argument)); }

static kt_tensor *workspace(kt *t, const sw_kmeans_desc *d) {
  const int threads = t->stream.threads;
  size_t bytes;
  t->stream.threads = 3; /* the most that kt_with_threads takes */
  kt_ok(t, SW_RUN(&t->stream, kmeans_workspace, d, &bytes));
  t->stream.threads = threads;
  return kt_bytes(t, "workspace", bytes);
}
static void draw(kt *t, kt_tensor *x, int hidden, data kind) {
  kt_normal(t, x, 0, 1);
  if (kind == INTEGERS) kt_integers(t, x, -2, 2);
  for (int64_t i = 0; i < x->count; i++) {
    if (kind == EQUAL) x->host[i] = 0.1 * (double)(i % hidden + 1);
    if (kind == DUPLICATES) x->host[i] = x->host[i / hidden % 3 * hidden + i % hidden];
    if (kind == NOT_FINITE && i / hidden % 3 == 1 && i % hidden == i / hidden % hidden) x->host[i] = i % 4 < 2 ? NAN : i % 4 == 2 ? INFINITY : -INFINITY;
    if (kind == HUGE_VALUES) x->host[i] *= i / hidden % 3 ? 3e38 : 1e19;
  }
  kt_upload(t, x);
}
static job make(kt *t, int64_t rows, int hidden, int groups, int k, data kind) {
  job j = {.desc = {rows, hidden, groups, k}};
  const int64_t centres = (int64_t)groups * k;
  j.x = kt_new(t, "x", SW_F32, rows * hidden);
  j.centres = kt_new(t, "centres", SW_F32, centres * hidden);
  draw(t, j.x, hidden, kind);
  draw(t, j.centres, hidden, kind);
  j.label = kt_bytes(t, "label", (size_t)(groups * rows) * sizeof(int32_t));
  j.before = kt_bytes(t, "before", (size_t)(groups * rows) * sizeof(int32_t));
  j.distance = kt_new(t, "distance", SW_F32, groups * rows);
  j.sums = kt_bytes(t, "sums", (size_t)(centres * hidden) * sizeof(double));
  j.counts = kt_bytes(t, "counts", (size_t)centres * sizeof(int64_t));
  j.changed = kt_bytes(t, "changed", (size_t)groups * sizeof(int64_t));
  j.workspace = workspace(t, &j.desc);
  return j;
}
static void *download(kt *t, const kt_tensor *x) {
  void *host = kt_doubles(t, (int64_t)x->bytes / 8 + 1);
  if (t->device->copy_out(&t->stream, host, x->data, x->bytes) || t->device->synchronize(&t->stream)) exit(1);
  return host;
}
static void upload(kt *t, kt_tensor *x, const void *host) {
  if (t->device->copy_in(&t->stream, x->data, host, x->bytes)) exit(1);
}

/* The contract's chain of every row and centre [groups * k, rows]; where they are finite they must be near the reference's. */
static double *chains(kt *t, const job *j) {
  const sw_kmeans_desc *d = &j->desc;
  const int fused = !strstr(t->device->name, "baseline");
  const int64_t count = (int64_t)d->groups * d->k * d->rows;
  double *reference = kt_doubles(t, count + 1), *out = kt_doubles(t, count + 1);
  long wrong = 0;
  sw_kmeans_distances_reference(d, j->x->host, j->centres->host, reference);
  for (int64_t n = 0; n < count; n++) {
    const double *x = j->x->host + n % d->rows * d->hidden, *c = j->centres->host + n / d->rows * d->hidden;
    volatile float sum = 0, product; /* volatile: two roundings where there are two */
    for (int h = 0; h < d->hidden; h++) {
      const float a = (float)x[h] - (float)c[h];
      product = a * a;
      sum = fused ? fmaf(a, a, sum) : sum + product;
    }
    out[n] = sum;
    if (isfinite(out[n]) && !(fabs(out[n] - reference[n]) <= reference[n] * (d->hidden + 4) * 0x1p-22 + d->hidden * 0x1p-140)) wrong++;
    if (isnan(reference[n]) != isnan(out[n])) wrong += !isinf(out[n]) && !isnan(out[n]);
  }
  kt_check(t, wrong == 0, "%ld chains are far from the reference", wrong);
  return out;
}

static void compare_labels(kt *t, const job *j, const int32_t *want) {
  const int64_t count = j->desc.groups * j->desc.rows;
  const int32_t *got = download(t, j->label);
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < count; i++)
    if (got[i] != want[i] && wrong++ == 0) first = i;
  kt_check(t, wrong == 0, "%lld of %lld labels are wrong, the first is of group %lld, row %lld: %d, want %d", (long long)wrong, (long long)count,
           (long long)(first < 0 ? 0 : first / j->desc.rows), (long long)(first < 0 ? 0 : first % j->desc.rows), first < 0 ? 0 : got[first],
           first < 0 ? 0 : want[first]);
}

static void assigning(kt *t, int64_t rows, int hidden, int groups, int k, data kind) {
  kt_case(t, "assign, %s, %lld x %d, %d groups of %d", data_names[kind], (long long)rows, hidden, groups, k);
  job j = make(t, rows, hidden, groups, k, kind);
  double *distance = kt_doubles(t, groups * rows + 1);
  int32_t *label = (int32_t *)kt_doubles(t, groups * rows + 1);
  sw_kmeans_nearest_reference(&j.desc, chains(t, &j), label, distance);
  kt_with_threads(t, "assign", assign, &j, (kt_tensor *[]){j.label, j.distance}, 2);
  compare_labels(t, &j, label);
  kt_compare(t, "distance", j.distance, distance, 0, 0);
  kt_tensor *only = kt_new(t, "distance only", SW_F32, groups * rows);
  kt_ok(t, SW_RUN(&t->stream, kmeans_assign, &j.desc, j.x->data, j.centres->data, NULL, NULL, only->data, j.workspace->data));
  kt_same_bits(t, "distance without labels", only, j.distance);
  if (rows > 2 && groups > 1) { /* a row and a group alone */
    const int64_t row = rows / 2, g = groups - 1, centres = (int64_t)k * hidden;
    job one = make(t, 1, hidden, 1, k, kind);
    memcpy(one.x->host, j.x->host + row * hidden, (size_t)hidden * sizeof(double));
    memcpy(one.centres->host, j.centres->host + g * centres, (size_t)centres * sizeof(double));
    kt_upload(t, one.x), kt_upload(t, one.centres);
    assign(t, &one);
    compare_labels(t, &one, label + g * rows + row);
    kt_same_bits_at(t, "distance alone", one.distance, 0, j.distance, g * rows + row, 1);
  }
  kt_clear(t);
}

/* Centres that move less and less, with bounds: the labels without. */
static void with_bounds(kt *t, int64_t rows, int hidden, int groups, int k, data kind) {
  kt_case(t, "bounds, %s, %lld x %d, %d groups of %d", data_names[kind], (long long)rows, hidden, groups, k);
  job j = make(t, rows, hidden, groups, k, kind);
  const int64_t count = groups * rows;
  kt_tensor *drift = kt_new(t, "drift", SW_F32, groups * k), *bound = kt_new(t, "bound", SW_F32, count), *stale = kt_new(t, "stale", SW_F32, count);
  const sw_kmeans_bounds bounds = {j.before->data, drift->data, bound->data};
  double *moved = kt_doubles(t, groups * k);
  int64_t passed_over = 0;
  kt_fill(t, drift, 0), kt_fill(t, bound, 0);
  if (t->device->zero(&t->stream, j.before->data, j.before->bytes)) exit(1);
  for (int pass = 0; pass < 12; pass++) {
    for (int64_t c = 0; c < groups * k && pass; c++) {
      double *centre = j.centres->host + c * hidden, squares = 0;
      for (int h = 0; h < hidden; h++) {
        const double old = centre[h];
        centre[h] = (float)(old + kt_random_normal(t) * 0.3 / (1 << pass));
        squares += (centre[h] - old) * (centre[h] - old);
      }
      moved[c] = sqrt(squares);
    }
    kt_upload(t, j.centres);
    for (int64_t c = 0; c < groups * k; c++) {
      double others = 0;
      for (int64_t o = c / k * k; o < c / k * k + k; o++) others = o != c && moved[o] > others ? moved[o] : others;
      drift->host[c] = (moved[c] + others) * (1 + 1e-6);
    }
    kt_upload(t, drift);
    kt_fill(t, stale, -1);
    kt_ok(t, SW_RUN(&t->stream, kmeans_assign, &j.desc, j.x->data, j.centres->data, &bounds, j.label->data, stale->data, j.workspace->data));
    const int32_t *got = download(t, j.label);
    assign(t, &j);
    compare_labels(t, &j, got);
    upload(t, j.before, got);
    kt_download(t, stale), kt_download(t, j.distance);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) {
      passed_over += stale->host[i] == -1;
      wrong += stale->host[i] != -1 && !(stale->host[i] == j.distance->host[i]);
    }
    kt_check(t, wrong == 0, "pass %d: %lld distances are neither left alone nor right", pass, (long long)wrong);
  }
  if (kind == NORMAL && rows < 100 && groups == 1 && k > 1) kt_check(t, passed_over > 0, "no row was ever passed over");
  kt_clear(t);
}

static int32_t *random_labels(kt *t, const job *j, int always) {
  const int64_t count = j->desc.groups * j->desc.rows;
  int32_t *label = (int32_t *)kt_doubles(t, count + 1);
  for (int64_t i = 0; i < count; i++) label[i] = always ? kt_below(t, j->desc.k) : kt_below(t, j->desc.k + 1) - 1;
  return label;
}
static void updating(kt *t, int64_t rows, int hidden, int groups, int k, data kind) {
  kt_case(t, "update, %s, %lld x %d, %d groups of %d", data_names[kind], (long long)rows, hidden, groups, k);
  job j = make(t, rows, hidden, groups, k, kind);
  const int64_t size = (int64_t)groups * k * hidden;
  double *want = kt_doubles(t, size), *want_counts = kt_doubles(t, groups * k), *got_counts = kt_doubles(t, groups * k);
  int64_t *counts = (int64_t *)kt_doubles(t, groups * k);
  const int32_t *before = NULL;
  if (t->device->zero(&t->stream, j.sums->data, j.sums->bytes) || t->device->zero(&t->stream, j.counts->data, j.counts->bytes)) exit(1);
  int32_t *none = (int32_t *)kt_doubles(t, groups * rows + 1);
  for (int64_t i = 0; i < groups * rows; i++) none[i] = -1;
  for (int pass = 0; pass < 3; pass++) { /* from nothing; to others; few */
    int32_t *label = random_labels(t, &j, pass == 0);
    for (int64_t i = 0; pass == 2 && i < groups * rows; i++)
      if (i % 7) label[i] = before[i];
    upload(t, j.before, before ? before : none);
    upload(t, j.label, label);
    kt_with_threads(t, "update", update, &j, (kt_tensor *[]){j.sums, j.counts, j.changed}, 3);
    sw_kmeans_sums_reference(&j.desc, j.x->host, label, want, counts);
    kt_compare_host(t, "sums", download(t, j.sums), want, size, 0, kind == INTEGERS ? 0 : 1e-12 * (double)rows);
    const int64_t *got = download(t, j.counts), *changed = download(t, j.changed);
    for (int64_t i = 0; i < groups * k; i++) want_counts[i] = (double)counts[i], got_counts[i] = (double)got[i];
    kt_compare_host(t, "counts", got_counts, want_counts, groups * k, 0, 0);
    for (int64_t g = 0; g < groups; g++) {
      int64_t moved = 0;
      for (int64_t i = g * rows; i < (g + 1) * rows; i++) moved += label[i] != (before ? before[i] : -1);
      kt_check(t, changed[g] == moved, "%lld rows of group %lld changed, want %lld", (long long)changed[g], (long long)g, (long long)moved);
    }
    before = label;
  }
  kt_clear(t);
}

static void bad_input(kt *t) {
  kt_case(t, "bad input");
  job j = make(t, 4, 3, 2, 2, NORMAL);
  static const struct {
    const char *message;
    sw_kmeans_desc desc;
  } cases[] = {{"-1 rows", {-1, 3, 2, 2}}, {"of 0 numbers", {4, 0, 2, 2}}, {"0 groups", {4, 3, 0, 2}}, {"of 0 centres", {4, 3, 2, 0}},
               {"at most 65535 centres", {4, 3, 257, 256}}};
  for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
    size_t bytes;
    j.desc = cases[i].desc;
    kt_fails(t, try_assign(t, &j), cases[i].message);
    kt_fails(t, try_update(t, &j), cases[i].message);
    kt_fails(t, SW_RUN(&t->stream, kmeans_workspace, &j.desc, &bytes), cases[i].message);
  }
  kt_download(t, j.distance);
  kt_check(t, isnan(j.distance->host[0]), "a refused call has written something");
  kt_clear(t);
}

static void bench(kt *t) {
  static const int shapes[][4] = {{20000, 384, 10, 5}, {20000, 384, 1, 5}, {200000, 2, 10, 5}};
  for (int s = 0; s < 3; s++) {
    const int rows = shapes[s][0], hidden = shapes[s][1], groups = shapes[s][2], k = shapes[s][3];
    job j = make(t, rows, hidden, groups, k, NORMAL);
    char name[80];
    snprintf(name, sizeof name, "assign %d x %d, %d groups of %d", rows, hidden, groups, k);
    kt_report(t, name, kt_seconds(t, assign, &j), 3.0 * rows * hidden * groups * k, (double)(j.x->bytes + j.label->bytes + j.distance->bytes));
    kt_clear(t);
  }
}

static void tests(kt *t) {
  const int small = kt_small(t);
  static const int hiddens[] = {1, 2, 3, 16, 37, 64, 384}, ks[] = {1, 2, 5, 7, 12, 13, 40};
  for (int h = 0; h < 7; h++) {
    assigning(t, 70, hiddens[h], 1 + h % 3, ks[h], NORMAL);
    assigning(t, 40, hiddens[h], 3, ks[6 - h], INTEGERS);
    updating(t, 150, hiddens[h], 1 + h % 3, ks[h], h % 2 ? NORMAL : INTEGERS);
  }
  for (int kind = 0; kind < DATA_COUNT; kind++) assigning(t, 130, 24, 4, 5, (data)kind);
  for (int rows = 0; rows <= 3; rows++) assigning(t, rows, 8, 2, 3, NORMAL), updating(t, rows, 8, 2, 3, NORMAL);
  assigning(t, 33, 5, small ? 70 : 700, 1, NORMAL); /* a matrix of distances */
  assigning(t, 20, 6, 2, 150, DUPLICATES);         /* a group's centres in several tiles */
  if (!small) {
    assigning(t, 3000, 40, 10, 5, NORMAL);
    updating(t, 20000, 33, 3, 5, NORMAL);
  }
  static const int group_counts[] = {1, 3};
  for (int g = 0; g < 2; g++)
    for (int k = 1; k <= 5; k += 2) {
      with_bounds(t, 5, 2, group_counts[g], k, NORMAL); /* few rows: a GPU's block of them can be passed over */
      with_bounds(t, small ? 140 : 1000, 24, group_counts[g], k, NORMAL);
      with_bounds(t, 70, 3, group_counts[g], k, INTEGERS);
    }
  with_bounds(t, 70, 7, 2, 4, EQUAL);
  with_bounds(t, 70, 7, 2, 4, NOT_FINITE);
  bad_input(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
