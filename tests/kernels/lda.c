/* Latent Dirichlet allocation against the double reference. */
#include "kernels/lda/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_lda_desc desc;
  int64_t entries, *starts;
  int32_t *word;
  double *count;
  float rho, scale;
  /* device */
  kt_tensor *dev_starts, *dev_count, *beta, *gamma, *theta, *ratio, *lambda, *workspace;
  kt_tensor *word_starts, *entry;
  int32_t *dev_word, *document;
} job;

static kt_tensor *int64s(kt *t, const char *name, const int64_t *values, int64_t count) {
  kt_tensor *x = kt_bytes(t, name, (size_t)count * sizeof *values + 1);
  if (count && t->device->copy_in(&t->stream, x->data, values, (size_t)count * sizeof *values)) exit(1);
  return x;
}

static int try_beta(kt *t, job *j) { return SW_RUN(&t->stream, lda_beta, &j->desc, j->lambda->data, j->beta->data, j->workspace->data); }
static void run_beta(kt *t, void *argument) { kt_ok(t, try_beta(t, argument)); }
static int try_documents(kt *t, job *j) {
  return SW_RUN(&t->stream, lda_documents, &j->desc, j->dev_starts->data, j->dev_word, j->dev_count->data, j->beta->data, j->gamma->data,
                j->theta->data, j->ratio->data, j->workspace->data);
}
static void run_documents(kt *t, void *argument) { kt_ok(t, try_documents(t, argument)); }
static int try_update(kt *t, job *j) {
  return SW_RUN(&t->stream, lda_update, &j->desc, j->rho, j->scale, j->word_starts->data, j->entry->data, j->document, j->ratio->data, j->theta->data,
                j->beta->data, j->lambda->data);
}
static void run_update(kt *t, void *argument) { kt_ok(t, try_update(t, argument)); }

/* Documents of up to `longest` words, among them one of none, one and all. */
static job make(kt *t, int64_t documents, int words, int topics, int longest) {
  job j = {.desc = {.documents = documents, .words = words, .topics = topics, .longest = longest < words ? longest : words, .alpha = 1.0f / (float)topics,
                    .eta = 1.0f / (float)topics, .tolerance = 0, .iterations = 6},
           .rho = 0.3f, .scale = 2.5f};
  const int stride = sw_lda_stride(topics);
  j.starts = malloc((size_t)(documents + 1) * sizeof *j.starts);
  j.word = malloc((size_t)(documents * j.desc.longest + 1) * sizeof *j.word);
  j.count = malloc((size_t)(documents * j.desc.longest + 1) * sizeof *j.count);
  int32_t *all = malloc((size_t)words * sizeof *all);
  for (int w = 0; w < words; w++) all[w] = w;
  j.starts[0] = 0;
  for (int64_t d = 0; d < documents; d++) {
    const int n = d == 0 ? j.desc.longest : d == 1 ? 0 : d == 2 ? 1 : kt_below(t, j.desc.longest + 1);
    for (int i = 0; i < n; i++) {
      const int other = i + kt_below(t, words - i), kept = all[i];
      all[i] = all[other], all[other] = kept;
      j.word[j.entries] = all[i];
      j.count[j.entries++] = 1 + kt_below(t, 4);
    }
    j.starts[d + 1] = j.entries;
  }
  free(all);
  j.dev_starts = int64s(t, "starts", j.starts, documents + 1);
  j.dev_word = kt_int32(t, "word", j.entries, j.word);
  j.dev_count = kt_new(t, "count", SW_F32, j.entries);
  for (int64_t e = 0; e < j.entries; e++) j.dev_count->host[e] = j.count[e];
  kt_upload(t, j.dev_count);
  j.ratio = kt_new(t, "ratio", SW_F32, j.entries);
  j.gamma = kt_new(t, "gamma", SW_F32, documents * stride);
  j.theta = kt_new(t, "theta", SW_F32, documents * stride);
  kt_uniform(t, j.gamma, 0.05, 3);
  j.beta = kt_new(t, "beta", SW_F32, (int64_t)words * stride);
  j.lambda = kt_new(t, "lambda", SW_F32, (int64_t)words * stride);
  kt_uniform(t, j.lambda, 0, 1); /* few words of a topic have much: as they come out */
  for (int64_t i = 0; i < j.lambda->count; i++) j.lambda->host[i] = j.desc.eta + 40 * pow(j.lambda->host[i], 8);
  kt_upload(t, j.lambda);
  int64_t *starts = calloc((size_t)words + 1, sizeof *starts), *entry = malloc((size_t)(j.entries + 1) * sizeof *entry), at = 0;
  int32_t *document = malloc((size_t)(j.entries + 1) * sizeof *document);
  for (int w = 0; w < words; w++) {
    starts[w] = at;
    for (int64_t d = 0; d < documents; d++)
      for (int64_t e = j.starts[d]; e < j.starts[d + 1]; e++)
        if (j.word[e] == w) document[at] = (int32_t)d, entry[at++] = e;
  }
  starts[words] = at;
  j.word_starts = int64s(t, "word starts", starts, words + 1);
  j.entry = int64s(t, "entry", entry, at);
  j.document = kt_int32(t, "document", at, document);
  free(starts), free(entry), free(document);
  const int threads = t->stream.threads;
  size_t bytes;
  t->stream.threads = 3; /* the most that kt_with_threads takes */
  kt_ok(t, SW_RUN(&t->stream, lda_workspace, &j.desc, &bytes));
  t->stream.threads = threads;
  j.workspace = kt_bytes(t, "workspace", bytes);
  return j;
}

static void release(job *j) { free(j->starts), free(j->word), free(j->count); }

/* Without padding. */
static double *narrow(kt *t, const kt_tensor *x, int topics) {
  const int stride = sw_lda_stride(topics);
  double *out = kt_doubles(t, x->count / stride * topics);
  for (int64_t i = 0; i < x->count / stride * topics; i++) out[i] = x->host[i / topics * stride + i % topics];
  return out;
}
/* The tensor against a reference without padding; there it holds zeros, or is as it was. */
static void compare(kt *t, const char *what, kt_tensor *got, const double *want, int topics, double rtol, double atol, int zeros) {
  const int stride = sw_lda_stride(topics);
  double *wide = kt_doubles(t, got->count);
  for (int64_t i = 0; i < got->count; i++) wide[i] = i % stride < topics ? want[i / stride * topics + i % stride] : zeros ? 0 : got->host[i];
  kt_compare(t, what, got, wide, rtol, atol);
}

static void against_reference(kt *t, int64_t documents, int words, int topics, int longest) {
  kt_case(t, "%lld documents, %d words, %d topics, up to %d", (long long)documents, words, topics, longest);
  job j = make(t, documents, words, topics, longest);
  double *lambda = narrow(t, j.lambda, topics), *beta = kt_doubles(t, (int64_t)words * topics), *gamma = narrow(t, j.gamma, topics);
  double *theta = kt_doubles(t, documents * topics), *ratio = kt_doubles(t, j.entries);
  sw_lda_beta_reference(&j.desc, lambda, beta);
  kt_check(t, kt_largest(beta, (int64_t)words * topics) == 1, "the largest is not 1");
  kt_with_threads(t, "beta", run_beta, &j, (kt_tensor *[]){j.beta}, 1);
  compare(t, "beta", j.beta, beta, topics, 2e-5, 1e-12, 1);
  sw_lda_documents_reference(&j.desc, j.starts, j.word, j.count, beta, gamma, theta, ratio);
  const double error = topics > 100 ? 10 : 1; /* with a small alpha a weight near 0 depends steeply on what it was */
  kt_with_threads(t, "documents", run_documents, &j, (kt_tensor *[]){j.gamma, j.theta, j.ratio}, 3);
  compare(t, "gamma", j.gamma, gamma, topics, error * 2e-4, error * 2e-5, 1);
  compare(t, "theta", j.theta, theta, topics, error * 4e-4, error * 2e-6, 1);
  kt_compare(t, "ratio", j.ratio, ratio, error * 2e-4, 0);
  sw_lda_update_reference(&j.desc, j.rho, j.scale, j.starts, j.word, ratio, theta, beta, lambda);
  kt_with_threads(t, "update", run_update, &j, (kt_tensor *[]){j.lambda}, 1);
  compare(t, "lambda", j.lambda, lambda, topics, error * 5e-4, error * 2e-5, 0);
  release(&j);
  kt_clear(t);
}

/* E[log x_k] = psi(x_k) - psi(sum) is the derivative of log B(x): the reference's psi. */
static double log_gamma(const double *x, void *argument) { return lgamma(x[0]); }
static void digamma(kt *t) {
  kt_case(t, "digamma");
  for (double x = 0.01; x < 300; x *= 1.7) {
    double at = x, slope = sw_lda_digamma(x);
    if (x > 0.3) kt_finite_difference(t, "digamma", log_gamma, NULL, &at, &slope, 1);
    kt_check(t, fabs(sw_lda_digamma(x + 1) - slope - 1 / x) <= 1e-12 / x + 1e-12, "the recurrence at %g", x);
  }
}

/* One topic: gamma is alpha + the words, theta 1, a document's words go to lambda as they are. */
static void one_topic(kt *t) {
  kt_case(t, "one topic");
  job j = make(t, 9, 20, 1, 12);
  j.desc.tolerance = 1e-3f;
  run_beta(t, &j);
  run_documents(t, &j);
  double *gamma = kt_doubles(t, 9), *lambda = narrow(t, j.lambda, 1);
  for (int64_t d = 0; d < 9; d++) {
    gamma[d] = j.desc.alpha;
    for (int64_t e = j.starts[d]; e < j.starts[d + 1]; e++) gamma[d] += j.count[e];
  }
  compare(t, "gamma", j.gamma, gamma, 1, 1e-6, 0, 1);
  for (int64_t w = 0; w < 20; w++) lambda[w] = (1 - j.rho) * lambda[w] + j.rho * j.desc.eta;
  for (int64_t e = 0; e < j.entries; e++) lambda[j.word[e]] += j.rho * j.scale * j.count[e];
  run_update(t, &j);
  compare(t, "lambda", j.lambda, lambda, 1, 1e-5, 0, 0);
  release(&j);
  kt_clear(t);
}

/* Ended by the tolerance: another iteration would change little, and the end comes before the limit where that is far. */
static void converged(kt *t, int topics) {
  kt_case(t, "converged, %d topics", topics);
  job j = make(t, 7, 60, topics, 40);
  const int stride = sw_lda_stride(topics);
  kt_fill(t, j.gamma, 1);
  j.desc.tolerance = 1e-3f, j.desc.iterations = 500;
  run_beta(t, &j);
  run_documents(t, &j);
  kt_download(t, j.gamma);
  double *before = kt_doubles(t, j.gamma->count);
  memcpy(before, j.gamma->host, (size_t)j.gamma->count * sizeof *before);
  j.desc.iterations = 1;
  run_documents(t, &j);
  kt_download(t, j.gamma);
  for (int64_t d = 0; d < 7; d++) {
    double change = 0, largest = 0;
    for (int k = 0; k < topics; k++) {
      change += fabs(j.gamma->host[d * stride + k] - before[d * stride + k]) / topics;
      largest = fmax(largest, before[d * stride + k]);
    }
    kt_check(t, change < 1.1e-3, "document %lld still changes by %g", (long long)d, change);
    kt_check(t, d == 1 || largest > 0.9, "document %lld has no topic", (long long)d);
  }
  /* a loose tolerance ends after the first iteration */
  kt_tensor *once = kt_new(t, "once", SW_F32, j.gamma->count);
  kt_fill(t, j.gamma, 1);
  run_documents(t, &j);
  kt_download(t, j.gamma);
  memcpy(once->host, j.gamma->host, (size_t)once->count * sizeof *once->host);
  kt_upload(t, once);
  kt_fill(t, j.gamma, 1);
  j.desc.tolerance = 1e6f, j.desc.iterations = 50;
  run_documents(t, &j);
  kt_same_bits(t, "tolerance", j.gamma, once);
  release(&j);
  kt_clear(t);
}

/* A document alone has the same bits as among others. */
static void alone(kt *t, int topics) {
  kt_case(t, "alone, %d topics", topics);
  job j = make(t, 12, 90, topics, 70);
  const int stride = sw_lda_stride(topics);
  j.desc.tolerance = 1e-3f, j.desc.iterations = 30;
  kt_fill(t, j.gamma, 1);
  run_beta(t, &j);
  run_documents(t, &j);
  for (int64_t d = 0; d < 12; d += 3) {
    job one = j;
    const int64_t n = j.starts[d + 1] - j.starts[d], starts[2] = {0, n};
    one.desc.documents = 1;
    one.dev_starts = int64s(t, "starts", starts, 2);
    one.dev_word = kt_int32(t, "word", n, j.word + j.starts[d]);
    one.dev_count = kt_new(t, "count", SW_F32, n);
    memcpy(one.dev_count->host, j.count + j.starts[d], (size_t)n * sizeof *j.count);
    kt_upload(t, one.dev_count);
    one.gamma = kt_new(t, "gamma", SW_F32, stride);
    one.theta = kt_new(t, "theta", SW_F32, stride);
    one.ratio = kt_new(t, "ratio", SW_F32, n);
    kt_fill(t, one.gamma, 1);
    run_documents(t, &one);
    kt_same_bits_at(t, "gamma", one.gamma, 0, j.gamma, d * stride, stride);
    kt_same_bits_at(t, "theta", one.theta, 0, j.theta, d * stride, stride);
    kt_same_bits_at(t, "ratio", one.ratio, 0, j.ratio, j.starts[d], n);
  }
  release(&j);
  kt_clear(t);
}

/* Words that only one topic knows, whose weights underflow in all others: every word goes to its topic whole. NaN stays with its word and
 * the documents that have it. */
static void special_values(kt *t) {
  kt_case(t, "apart");
  enum { TOPICS = 700 };
  job j = make(t, 3, TOPICS, TOPICS, 30);
  const int stride = sw_lda_stride(TOPICS);
  j.desc.iterations = 20;
  for (int64_t i = 0; i < j.lambda->count; i++) j.lambda->host[i] = i % stride == i / stride ? 5000 : 1.0 / TOPICS;
  kt_upload(t, j.lambda);
  kt_fill(t, j.gamma, 1);
  run_beta(t, &j);
  run_documents(t, &j);
  double *gamma = kt_doubles(t, 3 * TOPICS);
  for (int i = 0; i < 3 * TOPICS; i++) gamma[i] = j.desc.alpha;
  for (int64_t d = 0; d < 3; d++)
    for (int64_t e = j.starts[d]; e < j.starts[d + 1]; e++) gamma[d * TOPICS + j.word[e]] += j.count[e];
  compare(t, "gamma", j.gamma, gamma, TOPICS, 1e-5, 1e-6, 1);
  release(&j);
  kt_clear(t);

  kt_case(t, "NaN");
  j = make(t, 6, 40, 5, 20);
  kt_fill(t, j.gamma, 1);
  run_beta(t, &j);
  kt_download(t, j.beta);
  for (int k = 0; k < 5; k++) j.beta->host[7 * 16 + k] = NAN;
  kt_upload(t, j.beta);
  run_documents(t, &j);
  kt_download(t, j.gamma);
  for (int64_t d = 0; d < 6; d++) {
    int has = 0;
    for (int64_t e = j.starts[d]; e < j.starts[d + 1]; e++) has |= j.word[e] == 7;
    for (int k = 0; k < 5; k++) kt_check(t, !isnan(j.gamma->host[d * 16 + k]) == !has, "gamma of document %lld is %g", (long long)d, j.gamma->host[d * 16 + k]);
  }
  j.lambda->host[3 * 16 + 2] = NAN;
  kt_upload(t, j.lambda);
  run_beta(t, &j);
  kt_download(t, j.beta);
  kt_check(t, isnan(j.beta->host[3 * 16 + 2]) && isnan(j.beta->host[3 * 16]), "beta is %g", j.beta->host[3 * 16 + 2]);
  release(&j);
  kt_clear(t);
}

static void bad_input(kt *t) {
  kt_case(t, "bad input");
  job j = make(t, 4, 30, 3, 10);
  const int on_cpu = !strcmp(t->device->backend, "cpu");
  run_beta(t, &j);
  const int32_t kept = j.word[4];
  for (int high = 0; high < 2; high++) {
    j.word[4] = high ? 30 : -1;
    j.dev_word = kt_int32(t, "word", j.entries, j.word);
    kt_fill(t, j.gamma, 1);
    if (on_cpu) {
      kt_fails(t, try_documents(t, &j), high ? "document 0 has word 30" : "document 0 has word -1");
    } else { /* known on the device only */
      kt_ok(t, try_documents(t, &j));
      kt_download(t, j.gamma);
      kt_check(t, isnan(j.gamma->host[0]) && !isnan(j.gamma->host[2 * 16]), "gamma is %g and %g", j.gamma->host[0], j.gamma->host[2 * 16]);
    }
  }
  j.word[4] = kept;
  j.desc.longest = 9;
  if (on_cpu) kt_fails(t, try_documents(t, &j), "document 0 has 10 words");
  size_t bytes;
  sw_lda_desc d = j.desc;
  d.topics = 0;
  kt_fails(t, SW_RUN(&t->stream, lda_workspace, &d, &bytes), "0 topics");
  d.topics = SW_LDA_TOPICS + 1;
  kt_fails(t, SW_RUN(&t->stream, lda_workspace, &d, &bytes), "1 to 1024");
  d = j.desc, d.alpha = NAN;
  kt_fails(t, SW_RUN(&t->stream, lda_workspace, &d, &bytes), "alpha");
  d = j.desc, d.iterations = 0;
  kt_fails(t, SW_RUN(&t->stream, lda_workspace, &d, &bytes), "iteration");
  release(&j);
  kt_clear(t);
}

static void run_chunk(kt *t, void *argument) {
  job *j = argument;
  kt_fill(t, j->gamma, 1);
  run_documents(t, j);
}
static void bench(kt *t) {
  job j = make(t, 2000, 4000, 30, 120);
  char name[96];
  run_beta(t, &j);
  j.desc.iterations = 50;
  snprintf(name, sizeof name, "2000 documents of %lld words, 30 topics, 50 iterations", (long long)j.entries / 2000);
  kt_report(t, name, kt_seconds(t, run_chunk, &j), 4.0 * 51 * (double)j.entries * 30, 0);
  kt_report(t, "their update", kt_seconds(t, run_update, &j), 2.0 * (double)j.entries * 30, 0);
  kt_report(t, "beta of 4000 words", kt_seconds(t, run_beta, &j), 0, 8.0 * 4000 * 32);
  release(&j);
  kt_clear(t);
}

int main(int argc, char **argv) {
  kt t;
  const int status = kt_open(&t, argc, argv);
  if (status) return status;
  const int small = kt_small(&t);
  static const int topics[] = {1, 2, 5, 15, 16, 17, 30, 33, 64, 100};
  for (int i = 0; i < (int)(sizeof topics / sizeof *topics); i++) against_reference(&t, small ? 5 : 40, 50 + 3 * i, topics[i], 7 + 13 * i);
  against_reference(&t, 1, 3, 7, 3);
  against_reference(&t, 0, 20, 4, 3);
  against_reference(&t, small ? 3 : 30, 300, SW_LDA_TOPICS, small ? 20 : 200);
  if (!small) against_reference(&t, 400, 3000, 30, 150);
  digamma(&t);
  one_topic(&t);
  converged(&t, 6);
  converged(&t, 40);
  alone(&t, 30);
  alone(&t, 3);
  special_values(&t);
  bad_input(&t);
  if (t.bench) bench(&t);
  return kt_close(&t);
}
