#include "engine/space/kmeans.h"
#include "base/error.h"
#include "base/philox.h"
#include "base/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  WAVE_BYTES = 1 << 30, /* about what the rows of all starts that go together may take */
  MOST_CLUSTERS = 1000,
  MOST_TRIALS = 8,     /* 2 + log MOST_CLUSTERS */
  BOUND_PASSES = 256   /* bounds begin anew after as many */
};

/* A start on its way. */
typedef struct {
  int number, passes;
} start;

/* A wave of starts: groups 0 to active - 1 of the operators. */
typedef struct {
  sw_kmeans_options o;
  sw_stream *stream;
  sw_device *device;
  int64_t rows;
  int hidden, most, trials, active, done, first; /* most: starts of a wave; trials: candidates of a start's next centre; done: starts of all waves;
                                                first: number of this wave's first */
  double least_shift;
  const float *x;
  start *starts;     /* [most], in the order of groups */
  int *passes;       /* [most], of those that are done, in the order of numbers */
  sw_random *random;
  /* device */
  float *bound, *drift;      /* [most, rows], [most, k]: see kernels/kmeans */
  float *centres, *distance; /* [most, k, hidden] or [most, trials, hidden]; [most, trials, rows] */
  int32_t *label[2];         /* before, now: [most, rows] */
  double *sums;              /* [most, k, hidden] */
  int64_t *counts, *changed; /* [most, k], [most] */
  void *workspace;
  /* host */
  float *host_centres, *done_centres, *host_drift; /* done_centres: in the order of numbers */
  float *candidates, *host_distance, *nearest;     /* [most, trials, hidden], [most, trials, rows], [most, rows] */
  int32_t *host_label;                             /* [rows] */
  double *host_sums;
  int64_t *host_counts, *host_changed, *chosen;    /* chosen [most, trials] */
  sw_kmeans *best;                                 /* label is NULL before the first; distances squared */
} wave;

int sw_kmeans_check(const sw_kmeans_options *o) {
  if (o->k < 1 || o->k > MOST_CLUSTERS) return sw_fail("%d clusters: there must be 1 to %d", o->k, MOST_CLUSTERS);
  if (o->starts < 1) return sw_fail("%d starts: there must be at least 1", o->starts);
  if (o->max_iterations < 1) return sw_fail("%d iterations: there must be at least 1", o->max_iterations);
  if (!(o->tolerance >= 0)) return sw_fail("the tolerance is %g, must not be negative", o->tolerance);
  return 0;
}

static size_t of_centre(const wave *w) { return (size_t)w->hidden; }
static size_t of_group(const wave *w) { return (size_t)w->o.k * (size_t)w->hidden; }
static sw_kmeans_desc shape(const wave *w, int groups, int k) { return (sw_kmeans_desc){.rows = w->rows, .hidden = w->hidden, .groups = groups, .k = k}; }

static int put(wave *w, void *device, const void *host, size_t bytes) { return w->device->copy_in(w->stream, device, host, bytes); }
static int get(wave *w, void *host, const void *device, size_t bytes) {
  return w->device->copy_out(w->stream, host, device, bytes) || w->device->synchronize(w->stream) ? -1 : 0;
}

/* --- memory --- */

static int open_wave(wave *w) {
  const size_t rows = (size_t)w->rows, starts = (size_t)w->most, tried = starts * (size_t)w->trials, k = (size_t)w->o.k, hidden = of_centre(w);
  const size_t centres = starts * k > tried ? starts * k : tried;
  const sw_kmeans_desc of_starts = shape(w, w->most, w->o.k), of_trials = shape(w, w->most * w->trials, 1);
  size_t bytes, more;
  if (SW_RUN(w->stream, kmeans_workspace, &of_starts, &bytes) || SW_RUN(w->stream, kmeans_workspace, &of_trials, &more)) return -1;
  const struct {
    void *pointer;
    size_t bytes;
  } device[] = {{&w->centres, centres * hidden * sizeof(float)},
                {&w->distance, tried * rows * sizeof(float)},
                {&w->bound, starts * rows * sizeof(float)},
                {&w->drift, starts * k * sizeof(float)},
                {&w->label[0], starts * rows * sizeof(int32_t)},
                {&w->label[1], starts * rows * sizeof(int32_t)},
                {&w->sums, starts * k * hidden * sizeof(double)},
                {&w->counts, starts * k * sizeof(int64_t)},
                {&w->changed, starts * sizeof(int64_t)},
                {&w->workspace, (bytes > more ? bytes : more) + 1}},
    host[] = {{&w->starts, starts * sizeof *w->starts},
              {&w->passes, starts * sizeof *w->passes},
              {&w->host_drift, starts * k * sizeof(float)},
              {&w->done_centres, starts * k * hidden * sizeof(float)},
              {&w->random, starts * sizeof *w->random},
              {&w->host_centres, starts * k * hidden * sizeof(float)},
              {&w->candidates, tried * hidden * sizeof(float)},
              {&w->host_distance, tried * rows * sizeof(float)},
              {&w->nearest, starts * rows * sizeof(float)},
              {&w->host_label, rows * sizeof(int32_t)},
              {&w->host_sums, starts * k * hidden * sizeof(double)},
              {&w->host_counts, starts * k * sizeof(int64_t)},
              {&w->host_changed, starts * sizeof(int64_t)},
              {&w->chosen, tried * sizeof(int64_t)}};
  for (size_t i = 0; i < sizeof device / sizeof *device; i++)
    if (!(*(void **)device[i].pointer = w->device->alloc(w->device, device[i].bytes))) return -1;
  for (size_t i = 0; i < sizeof host / sizeof *host; i++)
    if (!(*(void **)host[i].pointer = sw_alloc(host[i].bytes))) return -1;
  return 0;
}

static void close_wave(wave *w) {
  void *const device[] = {w->bound, w->drift, w->centres, w->distance, w->label[0], w->label[1], w->sums, w->counts, w->changed, w->workspace};
  void *const host[] = {w->starts, w->passes, w->host_drift, w->done_centres, w->random, w->host_centres, w->candidates, w->host_distance, w->nearest, w->host_label, w->host_sums,
                        w->host_counts, w->host_changed, w->chosen};
  for (size_t i = 0; i < sizeof device / sizeof *device; i++)
    if (device[i]) w->device->release(w->device, device[i]);
  for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
}

/* --- the first centres --- */

/* The distances of all rows to the chosen ones, `each` a start: host_distance [starts, each, rows]. */
static int distances_to_chosen(wave *w, int each) {
  const size_t count = (size_t)w->active * (size_t)each, width = of_centre(w) * sizeof(float);
  const sw_kmeans_desc d = shape(w, (int)count, 1);
  for (size_t i = 0; i < count; i++)
    if (w->device->copy_out(w->stream, w->candidates + i * of_centre(w), w->x + w->chosen[i] * w->hidden, width)) return -1;
  return w->device->synchronize(w->stream) || put(w, w->centres, w->candidates, count * width) ||
                 SW_RUN(w->stream, kmeans_assign, &d, w->x, w->centres, NULL, NULL, w->distance, w->workspace) ||
                 get(w, w->host_distance, w->distance, count * (size_t)w->rows * sizeof(float))
             ? -1
             : 0;
}

/* Draws a start's candidates for its next centre. 0 where every row lies on a centre. */
static int draw(wave *w, int s) {
  const float *nearest = w->nearest + (int64_t)s * w->rows;
  int64_t *chosen = w->chosen + (int64_t)s * w->trials, last = -1;
  double all = 0, sum = 0, until[MOST_TRIALS];
  for (int64_t i = 0; i < w->rows; i++) {
    all += (double)nearest[i];
    if (nearest[i] > 0) last = i;
  }
  for (int t = 0; t < w->trials; t++) chosen[t] = -1, until[t] = sw_random_double(&w->random[s]) * all;
  for (int64_t i = 0; i < w->rows; i++) {
    sum += (double)nearest[i];
    for (int t = 0; t < w->trials; t++)
      if (chosen[t] < 0 && sum > until[t]) chosen[t] = i;
  }
  for (int t = 0; t < w->trials; t++)
    if (chosen[t] < 0) chosen[t] = last; /* the product was rounded up */
  return last >= 0;
}

/* Which of a start's candidates leaves the smallest sum of distances; `nearest` becomes that with it. */
static int best_candidate(wave *w, int s) {
  float *nearest = w->nearest + (int64_t)s * w->rows;
  const float *distance = w->host_distance + (int64_t)s * w->trials * w->rows;
  double least = INFINITY;
  int best = 0;
  for (int t = 0; t < w->trials; t++) {
    double sum = 0;
    for (int64_t i = 0; i < w->rows; i++) sum += (double)fminf(nearest[i], distance[t * w->rows + i]);
    if (sum < least) best = t, least = sum;
  }
  for (int64_t i = 0; i < w->rows; i++) nearest[i] = fminf(nearest[i], distance[best * w->rows + i]);
  return best;
}

/* To host_centres. */
static int choose_centres(wave *w) {
  const size_t width = of_centre(w);
  for (int s = 0; s < w->active; s++) {
    w->random[s] = (sw_random){.seed = w->o.seed, .stream = (uint64_t)w->starts[s].number};
    w->chosen[s] = (int64_t)(sw_random_double(&w->random[s]) * (double)w->rows);
  }
  if (distances_to_chosen(w, 1)) return -1;
  memcpy(w->nearest, w->host_distance, (size_t)w->active * (size_t)w->rows * sizeof(float));
  for (int s = 0; s < w->active; s++) memcpy(w->host_centres + (size_t)s * of_group(w), w->candidates + (size_t)s * width, width * sizeof(float));
  for (int c = 1; c < w->o.k; c++) {
    int on_centres = 0;
#pragma omp parallel for num_threads(w->stream->threads) schedule(static) reduction(+ : on_centres)
    for (int s = 0; s < w->active; s++) on_centres += !draw(w, s);
    if (on_centres)
      return sw_fail("there %s only %d different vector%s, too few for %d clusters: ask for %d or fewer", c == 1 ? "is" : "are", c, SW_S(c), w->o.k, c);
    if (distances_to_chosen(w, w->trials)) return -1;
#pragma omp parallel for num_threads(w->stream->threads) schedule(static)
    for (int s = 0; s < w->active; s++) {
      const size_t from = (size_t)(s * w->trials + best_candidate(w, s));
      memcpy(w->host_centres + (size_t)s * of_group(w) + (size_t)c * width, w->candidates + from * width, width * sizeof(float));
    }
  }
  return 0;
}

/* --- Lloyd's algorithm --- */

/* Nothing is in any sum yet. */
static int empty_sums(wave *w) {
  for (int64_t i = 0; i < w->rows; i++) w->host_label[i] = -1;
  for (int s = 0; s < w->active; s++)
    if (put(w, w->label[0] + s * w->rows, w->host_label, (size_t)w->rows * sizeof(int32_t))) return -1;
  return w->device->zero(w->stream, w->sums, (size_t)w->active * of_group(w) * sizeof(double)) ||
                 w->device->zero(w->stream, w->counts, (size_t)w->active * (size_t)w->o.k * sizeof(int64_t))
             ? -1
             : 0;
}

/* The tolerance as a sum of squares: relative to the columns' mean variance, which is the mean squared distance to the one mean. */
static int find_least_shift(wave *w) {
  const sw_kmeans_desc d = shape(w, 1, 1);
  w->active = 1;
  if (empty_sums(w) || w->device->zero(w->stream, w->label[1], (size_t)w->rows * sizeof(int32_t)) ||
      SW_RUN(w->stream, kmeans_update, &d, w->x, w->label[0], w->label[1], w->sums, w->counts, w->changed) ||
      get(w, w->host_sums, w->sums, of_centre(w) * sizeof(double)))
    return -1;
  for (int h = 0; h < w->hidden; h++) w->host_centres[h] = (float)(w->host_sums[h] / (double)w->rows);
  if (put(w, w->centres, w->host_centres, of_centre(w) * sizeof(float)) ||
      SW_RUN(w->stream, kmeans_assign, &d, w->x, w->centres, NULL, NULL, w->distance, w->workspace) ||
      get(w, w->host_distance, w->distance, (size_t)w->rows * sizeof(float)))
    return -1;
  double sum = 0;
  for (int64_t i = 0; i < w->rows; i++) sum += (double)w->host_distance[i];
  w->least_shift = w->o.tolerance * sum / (double)w->rows / w->hidden;
  return 0;
}

/* Group g has come to its end; the last group takes its place. */
static int finish(wave *w, int g) {
  const int last = --w->active, place = w->starts[g].number - w->first;
  const size_t rows = (size_t)w->rows, k = (size_t)w->o.k, group = of_group(w);
  w->passes[place] = w->starts[g].passes;
  memcpy(w->done_centres + (size_t)place * group, w->host_centres + (size_t)g * group, group * sizeof(float));
  if (g == last) return 0;
  w->starts[g] = w->starts[last];
  memcpy(w->host_drift + (size_t)g * k, w->host_drift + (size_t)last * k, k * sizeof(float));
  memcpy(w->host_counts + (size_t)g * k, w->host_counts + (size_t)last * k, k * sizeof(int64_t));
  memcpy(w->host_sums + (size_t)g * group, w->host_sums + (size_t)last * group, group * sizeof(double));
  memcpy(w->host_centres + (size_t)g * group, w->host_centres + (size_t)last * group, group * sizeof(float));
  return get(w, w->host_label, w->label[1] + last * w->rows, rows * sizeof(int32_t)) ||
                 put(w, w->label[1] + g * w->rows, w->host_label, rows * sizeof(int32_t)) ||
                 get(w, w->host_distance, w->bound + last * w->rows, rows * sizeof(float)) ||
                 put(w, w->bound + g * w->rows, w->host_distance, rows * sizeof(float)) ||
                 put(w, w->sums + (size_t)g * group, w->host_sums + (size_t)g * group, group * sizeof(double)) ||
                 put(w, w->counts + (size_t)g * k, w->host_counts + (size_t)g * k, k * sizeof(int64_t))
             ? -1
             : 0;
}

/* Where rows are after a wave of `count` starts; the best is kept. */
static int compare_starts(wave *w, int count) {
  const sw_kmeans_desc d = shape(w, count, w->o.k);
  const size_t rows = (size_t)w->rows, group = of_group(w);
  sw_kmeans *best = w->best;
  if (put(w, w->centres, w->done_centres, (size_t)count * group * sizeof(float)) ||
      SW_RUN(w->stream, kmeans_assign, &d, w->x, w->centres, NULL, w->label[1], w->distance, w->workspace) ||
      get(w, w->host_distance, w->distance, (size_t)count * rows * sizeof(float)))
    return -1;
  if (!best->label && (!(best->label = sw_alloc_array(rows, sizeof *best->label)) || !(best->distance = sw_alloc_array(rows, sizeof *best->distance)) ||
                       !(best->centres = sw_alloc_array(group, sizeof *best->centres))))
    return -1;
  for (int s = 0; s < count; s++) {
    const float *distance = w->host_distance + (size_t)s * rows;
    double inertia = 0;
    for (size_t i = 0; i < rows; i++) inertia += (double)distance[i];
    if (!isfinite(inertia)) return sw_fail("the vectors' distances are not finite: their numbers are too large");
    if (!(inertia < best->inertia)) continue;
    best->inertia = inertia, best->start = w->first + s, best->iterations = w->passes[s];
    memcpy(best->distance, distance, rows * sizeof *distance);
    memcpy(best->centres, w->done_centres + (size_t)s * group, group * sizeof(float));
    if (get(w, best->label, w->label[1] + (size_t)s * rows, rows * sizeof(int32_t))) return -1;
  }
  return 0;
}

/* Puts the centres of group g that have lost all rows on those that are farthest from their own. */
static int fill_empty(wave *w, int g) {
  const size_t rows = (size_t)w->rows, k = (size_t)w->o.k;
  const sw_kmeans_desc d = shape(w, 1, w->o.k);
  int32_t *before = w->label[0] + g * w->rows, *now = w->label[1] + g * w->rows;
  int64_t *count = w->host_counts + (size_t)g * k;
  int empty = 0;
  for (size_t c = 0; c < k; c++) empty += count[c] == 0;
  if (!empty) return 0;
  if (get(w, w->host_label, now, rows * sizeof(int32_t)) || put(w, before, w->host_label, rows * sizeof(int32_t)) ||
      SW_RUN(w->stream, kmeans_assign, &d, w->x, w->centres + (size_t)g * of_group(w), NULL, NULL, w->distance + g * w->rows, w->workspace) ||
      get(w, w->host_distance, w->distance + g * w->rows, rows * sizeof(float)))
    return -1;
  for (int32_t c = 0; c < w->o.k; c++) {
    if (count[c]) continue;
    int64_t far = -1;
    for (int64_t i = 0; i < w->rows; i++)
      if (w->host_label[i] >= 0 && count[w->host_label[i]] > 1 && (far < 0 || w->host_distance[i] > w->host_distance[far])) far = i;
    if (far < 0) break;
    count[w->host_label[far]]--, count[c]++;
    w->host_label[far] = c;
    if (put(w, w->bound + g * w->rows + far, &(float){0}, sizeof(float))) return -1; /* it was of its old centre */
  }
  return put(w, now, w->host_label, rows * sizeof(int32_t)) ||
                 SW_RUN(w->stream, kmeans_update, &d, w->x, before, now, w->sums + (size_t)g * of_group(w), w->counts + (size_t)g * k, w->changed)
             ? -1
             : 0;
}

/* Centres to the mean of their rows; 1 where that was the last time. */
static int move_centres(wave *w, int g) {
  const size_t k = (size_t)w->o.k, hidden = of_centre(w);
  const int64_t *count = w->host_counts + (size_t)g * k;
  float *drift = w->host_drift + (size_t)g * k;
  double all = 0, first = 0, second = 0; /* the two largest moves */
  size_t farthest = 0;
  for (size_t c = 0; c < k; c++) {
    double squares = 0;
    for (size_t h = ((size_t)g * k + c) * hidden, end = h + hidden; h < end && count[c]; h++) {
      const float mean = (float)(w->host_sums[h] / (double)count[c]);
      const double step = (double)mean - (double)w->host_centres[h];
      squares += step * step;
      w->host_centres[h] = mean;
    }
    const double moved = sqrt(squares);
    all += squares;
    drift[c] = (float)(moved * 1.000001); /* never less */
    second = moved > first ? first : moved > second ? moved : second;
    if (moved > first) first = moved, farthest = c;
  }
  for (size_t c = 0; c < k; c++) drift[c] = (float)(((double)drift[c] + (c == farthest ? second : first)) * 1.000001);
  return all <= w->least_shift || w->starts[g].passes >= w->o.max_iterations;
}

static int pass(wave *w, sw_progress *progress) {
  const sw_kmeans_desc d = shape(w, w->active, w->o.k);
  const size_t starts = (size_t)w->active, k = (size_t)w->o.k;
  const sw_kmeans_bounds bounds = {w->label[0], w->drift, w->bound};
  if (put(w, w->centres, w->host_centres, starts * of_group(w) * sizeof(float)) || put(w, w->drift, w->host_drift, starts * k * sizeof(float)) ||
      SW_RUN(w->stream, kmeans_assign, &d, w->x, w->centres, &bounds, w->label[1], w->distance, w->workspace) ||
      SW_RUN(w->stream, kmeans_update, &d, w->x, w->label[0], w->label[1], w->sums, w->counts, w->changed) ||
      w->device->copy_out(w->stream, w->host_counts, w->counts, starts * k * sizeof(int64_t)) ||
      get(w, w->host_changed, w->changed, starts * sizeof(int64_t)))
    return -1;
  for (int g = 0; g < w->active; g++)
    if (w->host_changed[g] && fill_empty(w, g)) return -1;
  if (get(w, w->host_sums, w->sums, starts * of_group(w) * sizeof(double))) return -1;
  for (int g = w->active - 1; g >= 0; g--) { /* what takes the place of one that is done has been looked at */
    w->starts[g].passes++;
    if (w->host_changed[g] && !move_centres(w, g)) continue;
    if (finish(w, g)) return -1;
    sw_progress_show(progress, ++w->done, NULL);
  }
  int32_t *before = w->label[0];
  w->label[0] = w->label[1], w->label[1] = before;
  return 0;
}

static int run_wave(wave *w, sw_progress *progress) {
  const int count = w->active;
  const size_t starts = (size_t)count;
  if (choose_centres(w) || empty_sums(w)) return -1;
  memset(w->host_drift, 0, starts * (size_t)w->o.k * sizeof(float));
  for (int n = 0; w->active; n++)
    if ((n % BOUND_PASSES == 0 && w->device->zero(w->stream, w->bound, starts * (size_t)w->rows * sizeof(float))) || pass(w, progress)) return -1;
  return compare_starts(w, count);
}

/* --- the result --- */

typedef struct {
  int64_t size, first; /* row */
  int32_t number;
} cluster;
static int by_size(const void *a, const void *b) {
  const cluster *x = a, *y = b;
  return x->size != y->size ? (x->size > y->size ? -1 : 1) : (x->first > y->first) - (x->first < y->first);
}

/* The largest cluster first; distances from squared ones. */
static int arrange(sw_kmeans *m, int64_t rows, int hidden, int k) {
  cluster *clusters = sw_alloc_array((size_t)k, sizeof *clusters);
  int32_t *place = sw_alloc_array((size_t)k, sizeof *place);
  float *centres = sw_alloc_array((size_t)k * (size_t)hidden, sizeof *centres);
  m->sizes = sw_alloc_array((size_t)k, sizeof *m->sizes);
  const int status = clusters && place && centres && m->sizes ? 0 : -1;
  for (int32_t c = 0; c < k && !status; c++) clusters[c] = (cluster){0, rows, c};
  for (int64_t i = rows - 1; i >= 0 && !status; i--) clusters[m->label[i]].size++, clusters[m->label[i]].first = i;
  if (!status) {
    qsort(clusters, (size_t)k, sizeof *clusters, by_size);
    for (int32_t c = 0; c < k; c++) {
      place[clusters[c].number] = c;
      m->sizes[c] = clusters[c].size;
      memcpy(centres + (size_t)c * (size_t)hidden, m->centres + (size_t)clusters[c].number * (size_t)hidden, (size_t)hidden * sizeof *centres);
    }
    memcpy(m->centres, centres, (size_t)k * (size_t)hidden * sizeof *centres);
    for (int64_t i = 0; i < rows; i++) m->label[i] = place[m->label[i]], m->distance[i] = sqrtf(m->distance[i]);
  }
  free(clusters), free(place), free(centres);
  return status;
}

int sw_kmeans_fit(sw_stream *stream, const sw_kmeans_options *o, int64_t rows, int hidden, const float *x, int quiet, sw_kmeans *out) {
  *out = (sw_kmeans){.k = o->k, .inertia = INFINITY};
  if (sw_kmeans_check(o)) return -1;
  if (rows < o->k) return sw_fail("%lld vector%s cannot make %d clusters: ask for %lld or fewer", (long long)rows, SW_S(rows), o->k, (long long)rows);
  wave w = {.o = *o, .stream = stream, .device = stream->device, .rows = rows, .hidden = hidden, .x = x, .best = out, .trials = 2 + (int)log(o->k)};
  const int64_t fitting = WAVE_BYTES / (rows * (4 * w.trials + 12)), together = SW_KMEANS_MOST_CENTRES / (o->k > w.trials ? o->k : w.trials);
  w.most = (int)(fitting < 1 ? 1 : fitting < together ? fitting : together);
  if (w.most > o->starts) w.most = o->starts;
  sw_progress progress;
  sw_progress_open(&progress, "k-means", o->starts, quiet);
  int status = open_wave(&w) || find_least_shift(&w) ? -1 : 0;
  for (int first = 0; first < o->starts && !status; first += w.most) {
    w.first = first, w.active = o->starts - first < w.most ? o->starts - first : w.most;
    for (int s = 0; s < w.active; s++) w.starts[s] = (start){.number = first + s};
    status = run_wave(&w, &progress);
  }
  sw_progress_close(&progress);
  close_wave(&w);
  if (!status) status = arrange(out, rows, hidden, o->k);
  if (status) sw_kmeans_close(out);
  return status;
}

void sw_kmeans_close(sw_kmeans *m) {
  free(m->label), free(m->distance), free(m->centres), free(m->sizes);
  *m = (sw_kmeans){0};
}
