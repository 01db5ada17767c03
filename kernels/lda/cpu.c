/* Latent Dirichlet allocation on the CPU: see lda.h for the mathematics.
 *
 * A document belongs to one thread. The rows of beta that it needs are copied twice, into scratch that stays in the level-1 or level-2 cache
 * for its (up to 50) iterations: as they are, for the sum over words of ratio beta (vectors of topics), and in panels of SW_LANES words turned
 * topic by topic, for the sum over topics of theta beta (vectors of words). Neither needs a sum across a vector's lanes. Theta is kept
 * without its denominator, which cancels, until the end.
 * The update belongs to a word's thread, sums over all words are added up in SPANS pieces: the bits do not depend on the threads. */
#include "kernels/isa.h"
#include "kernels/lda/check.h"
#include "kernels/tile_products.h"

#include <math.h>
#include <omp.h>

sw_lda_workspace_fn SW_CPU(lda_workspace);
sw_lda_beta_fn SW_CPU(lda_beta);
sw_lda_documents_fn SW_CPU(lda_documents);
sw_lda_update_fn SW_CPU(lda_update);

enum { SPANS = 32, AHEAD = 4, PARALLEL_FROM = 1 << 14 };

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* exp psi(x), x > 0. From 6 on psi(y) = log y - 1/2y - 1/12y^2 + 1/120y^4 - 1/252y^6 (Abramowitz, Stegun, 6.3.18), below
 * psi(x) = psi(x + 6) - sum of 1 / (x + i), i < 6, whose terms are taken in pairs: 1 / (x + i) + 1 / (x + 5 - i) = (2x + 5) / (a + i (5 - i)), a = x^2 + 5x. */
SW_INLINE vf exp_digamma(vf x) {
  const vi low = x < vf_set(6);
  const vf y = vf_select(low, x + 6.0f, x), t = 1.0f / y, s = t * t, a = x * x + 5.0f * x;
  const vf sum = (2.0f * x + 5.0f) * (3.0f * a * a + 20.0f * a + 24.0f) / (a * (a + 4.0f) * (a + 6.0f));
  const vf series = t * 0.5f + s * (1.0f / 12 - s * (1.0f / 120 - s * (1.0f / 252)));
  const vf e = y * vf_exp(-series - vf_select(low, sum, vf_zero()));
  return vf_select(x != x, x, vf_max(e, vf_set(SW_LDA_LEAST)));
}
static float exp_digamma_of(float x) { return exp_digamma(vf_set(x))[0]; }

/* Floats of a thread: rows, panels, theta's numerators, gamma. */
static int64_t thread_floats(const sw_lda_desc *d) {
  return round_up(d->longest, AHEAD * SW_LANES) * 2 * sw_lda_stride(d->topics) + 2 * sw_lda_stride(d->topics) +
         round_up(d->longest, AHEAD * SW_LANES);
}
static int64_t sum_bytes(const sw_lda_desc *d) { return (SPANS + 1) * (int64_t)sw_lda_stride(d->topics) * (int64_t)sizeof(double); }

int SW_CPU(lda_workspace)(sw_stream *stream, const sw_lda_desc *desc, size_t *bytes) {
  if (lda_check(desc)) return -1;
  const int64_t documents = stream->threads * thread_floats(desc) * 4, sums = sum_bytes(desc);
  *bytes = (size_t)(documents > sums ? documents : sums);
  return 0;
}

/* --- beta --- */

int SW_CPU(lda_beta)(sw_stream *stream, const sw_lda_desc *desc, const float *lambda, float *beta, void *workspace) {
  if (lda_check(desc)) return -1;
  const int stride = sw_lda_stride(desc->topics), topics = desc->topics, parallel = (int64_t)desc->words * topics >= PARALLEL_FROM;
  double *sums = workspace;
  float *scale = (float *)(sums + SPANS * stride);
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (parallel)
  for (int s = 0; s < SPANS; s++) {
    double *sum = sums + s * stride;
    const int64_t from = (int64_t)desc->words * s / SPANS, to = (int64_t)desc->words * (s + 1) / SPANS;
    for (int k = 0; k < topics; k++) sum[k] = 0;
    for (int64_t w = from; w < to; w++)
      for (int k = 0; k < topics; k++) sum[k] += (double)lambda[w * stride + k];
  }
  for (int k = 0; k < stride; k++) {
    double sum = 0;
    for (int s = 0; s < SPANS && k < topics; s++) sum += sums[s * stride + k];
    scale[k] = k < topics ? 1 / exp_digamma_of((float)sum) : 0;
  }
#pragma omp parallel for num_threads(stream->threads) schedule(static) if (parallel)
  for (int64_t w = 0; w < desc->words; w++) {
    float *row = beta + w * stride;
    vf largest = vf_zero();
    int bad = 0;
    for (int k = 0; k < stride; k += SW_LANES) {
      const int here = topics - k < SW_LANES ? (topics - k > 0 ? topics - k : 0) : SW_LANES;
      const vf l = here == SW_LANES ? vf_load(lambda + w * stride + k) : vf_load_n(lambda + w * stride + k, here);
      vf b = vf_zero();
      if (here) {
        b = exp_digamma(l);
        if (here < SW_LANES) b = vf_select(vf_load(scale + k) > 0.0f, b, vf_zero());
        b = b * vf_load(scale + k);
      }
      for (int i = 0; i < here; i++) bad |= !(b[i] == b[i]);
      largest = vf_max(largest, b);
      vf_store(row + k, b);
    }
    const float factor = bad ? NAN : 1 / vf_max_lane(largest);
    for (int k = 0; k < stride; k += SW_LANES) vf_store(row + k, vf_load(row + k) * factor);
  }
  return 0;
}

/* --- documents --- */

/* Up to SW_LANES rows to a panel: panel[k * SW_LANES + r] = rows[r * stride + k]. */
static void make_panel(const float *rows, int stride, int n, float *panel) {
  for (int k = 0; k < stride; k += SW_LANES) {
    vf v[SW_LANES];
    for (int r = 0; r < SW_LANES; r++) v[r] = r < n ? vf_load(rows + (int64_t)r * stride + k) : vf_zero();
    tile_transpose(v);
    for (int i = 0; i < SW_LANES; i++) vf_store(panel + (k + i) * SW_LANES, v[i]);
  }
}

/* ratio = count / sum over topics of theta panel, for n words. */
static void set_ratios(const float *panels, const float *theta, const float *count, int stride, int n, float *ratio) {
  const int64_t panel = (int64_t)stride * SW_LANES;
  for (int at = 0; at < n; at += AHEAD * SW_LANES, panels += AHEAD * panel) {
    vf sum[AHEAD] = {0};
    const int groups = (n - at + SW_LANES - 1) / SW_LANES;
    if (groups >= AHEAD) {
      for (int k = 0; k < stride; k++)
        for (int g = 0; g < AHEAD; g++) sum[g] = vf_fma(vf_set(theta[k]), vf_load(panels + g * panel + k * SW_LANES), sum[g]);
    } else {
      for (int g = 0; g < groups; g++) { /* the same chain of additions */
        vf one = vf_zero();
        for (int k = 0; k < stride; k++) one = vf_fma(vf_set(theta[k]), vf_load(panels + g * panel + k * SW_LANES), one);
        sum[g] = one;
      }
    }
    for (int g = 0; g < AHEAD && at + g * SW_LANES < n; g++) {
      const int first = at + g * SW_LANES, here = n - first < SW_LANES ? n - first : SW_LANES;
      if (here == SW_LANES) vf_store(ratio + first, vf_load(count + first) / sum[g]);
      else vf_store_n(ratio + first, vf_load_n(count + first, here) / sum[g], here);
    }
  }
}

/* The sum over n words of ratio beta, for the topics of one vector: four sums take turns. */
SW_INLINE vf sum_words(const float *rows, const float *ratio, int stride, int n) {
  vf sum[4] = {0};
  int w = 0;
  for (; w + 4 <= n; w += 4)
    for (int i = 0; i < 4; i++) sum[i] = vf_fma(vf_set(ratio[w + i]), vf_load(rows + (int64_t)(w + i) * stride), sum[i]);
  for (; w < n; w++) sum[0] = vf_fma(vf_set(ratio[w]), vf_load(rows + (int64_t)w * stride), sum[0]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void run_document(const sw_lda_desc *d, const int32_t *word, const float *count, int n, const float *beta, float *gamma, float *theta,
                         float *ratio, float *scratch) {
  const int stride = sw_lda_stride(d->topics), topics = d->topics;
  const int64_t words = round_up(n, SW_LANES);
  float *rows = scratch, *panels = rows + words * stride, *u = panels + words * stride, *g = u + stride;
  float total = (float)topics * d->alpha;
  for (int w = 0; w < n; w++) {
    memcpy(rows + (int64_t)w * stride, beta + (int64_t)word[w] * stride, (size_t)stride * sizeof *rows);
    total += count[w];
  }
  for (int w = 0; w < n; w += SW_LANES) make_panel(rows + (int64_t)w * stride, stride, n - w, panels + (int64_t)w * stride);
  for (int k = 0; k < stride; k++) g[k] = k < topics ? gamma[k] : 1; /* behind the topics beta is 0 */
  for (int k = 0; k < stride; k += SW_LANES) vf_store(u + k, exp_digamma(vf_load(g + k)));
  set_ratios(panels, u, count, stride, n, ratio);
  for (int i = 0, moving = 1; i < d->iterations && moving; i++) {
    vf change = vf_zero();
    for (int k = 0; k < stride; k += SW_LANES) {
      const vf next = vf_fma(vf_load(u + k), sum_words(rows + k, ratio, stride, n), vf_set(d->alpha));
      if (k + SW_LANES <= topics) change += vf_abs(next - vf_load(g + k));
      else
        for (int l = 0; k + l < topics; l++) change[l] += __builtin_fabsf(next[l] - g[k + l]);
      vf_store(g + k, next);
      vf_store(u + k, exp_digamma(next));
    }
    set_ratios(panels, u, count, stride, n, ratio);
    moving = !(vf_sum(change) < d->tolerance * (float)topics);
  }
  const float scale = exp_digamma_of(total);
  for (int k = 0; k < stride; k++) {
    gamma[k] = k < topics ? g[k] : 0;
    theta[k] = k < topics ? u[k] / scale : 0;
  }
  for (int w = 0; w < n; w++) ratio[w] *= scale;
}

int SW_CPU(lda_documents)(sw_stream *stream, const sw_lda_desc *desc, const int64_t *starts, const int32_t *word, const float *count,
                          const float *beta, float *gamma, float *theta, float *ratio, void *workspace) {
  if (lda_check(desc)) return -1;
  const int stride = sw_lda_stride(desc->topics);
  for (int64_t d = 0; d < desc->documents; d++) {
    if (starts[d + 1] - starts[d] > desc->longest || starts[d + 1] < starts[d])
      return sw_fail("lda: document %lld has %lld words, at most %d were announced", (long long)d, (long long)(starts[d + 1] - starts[d]), desc->longest);
    for (int64_t e = starts[d]; e < starts[d + 1]; e++)
      if (word[e] < 0 || word[e] >= desc->words)
        return sw_fail("lda: document %lld has word %d, outside the vocabulary of %d", (long long)d, word[e], desc->words);
  }
  const int parallel = desc->documents > 1 && (starts[desc->documents] - starts[0]) * desc->topics >= PARALLEL_FROM;
#pragma omp parallel num_threads(stream->threads) if (parallel)
  {
    float *scratch = (float *)workspace + omp_get_thread_num() * thread_floats(desc);
#pragma omp for schedule(dynamic, 8)
    for (int64_t d = 0; d < desc->documents; d++)
      run_document(desc, word + starts[d], count + starts[d], (int)(starts[d + 1] - starts[d]), beta, gamma + d * stride, theta + d * stride,
                   ratio + starts[d], scratch);
  }
  return 0;
}

/* --- the update --- */

int SW_CPU(lda_update)(sw_stream *stream, const sw_lda_desc *desc, float rho, float scale, const int64_t *word_starts, const int64_t *entry,
                       const int32_t *document, const float *ratio, const float *theta, const float *beta, float *lambda) {
  if (lda_check(desc)) return -1;
  const int stride = sw_lda_stride(desc->topics);
#pragma omp parallel for num_threads(stream->threads) schedule(dynamic, 64) if ((int64_t)desc->words * desc->topics >= PARALLEL_FROM)
  for (int64_t w = 0; w < desc->words; w++)
    for (int k = 0; k < desc->topics; k += SW_LANES) {
      vf sum = vf_zero();
      for (int64_t e = word_starts[w]; e < word_starts[w + 1]; e++)
        sum = vf_fma(vf_set(ratio[entry[e]]), vf_load(theta + (int64_t)document[e] * stride + k), sum);
      float *l = lambda + w * stride + k;
      const vf next = vf_load(l) * (1 - rho) + rho * (desc->eta + scale * vf_load(beta + w * stride + k) * sum);
      if (desc->topics - k < SW_LANES) vf_store_n(l, next, desc->topics - k);
      else vf_store(l, next);
    }
  return 0;
}
