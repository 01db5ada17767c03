#include "engine/model/lda.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_LAMBDA = 11 };

static sw_lda_desc desc_of(const sw_lda_shape *s, int64_t documents, int64_t longest) {
  return (sw_lda_desc){.documents = documents, .words = s->words, .topics = s->topics, .longest = (int)longest, .alpha = (float)s->alpha,
                       .eta = (float)s->eta, .tolerance = (float)s->tolerance, .iterations = s->iterations};
}

static void *device_array(sw_device *device, int64_t count, size_t size) {
  return device->alloc(device, (size_t)(count ? count : 1) * size);
}

/* --- the model --- */

/* beta follows lambda. */
static int refresh(sw_lda *l, sw_stream *stream) {
  const sw_lda_desc desc = desc_of(&l->shape, 0, 0);
  return SW_RUN(stream, lda_beta, &desc, l->lambda, l->beta, l->workspace);
}

int sw_lda_open(sw_stream *stream, const sw_lda_shape *shape, const float *lambda, uint64_t seed, sw_lda *l) {
  *l = (sw_lda){.stream = *stream, .shape = *shape};
  sw_device *device = stream->device;
  const int64_t stride = sw_lda_stride(shape->topics), numbers = stride * shape->words;
  const sw_lda_desc desc = desc_of(shape, 0, 0);
  size_t bytes;
  if (SW_RUN(stream, lda_workspace, &desc, &bytes)) return -1;
  float *host = sw_alloc_array((size_t)numbers, sizeof *host);
  l->lambda = device_array(device, numbers, sizeof *l->lambda);
  l->beta = device_array(device, numbers, sizeof *l->beta);
  l->workspace = device->alloc(device, bytes ? bytes : 1);
  int status = host && l->lambda && l->beta && l->workspace ? 0 : -1;
  sw_random random = {.seed = seed, .stream = (uint64_t)STREAM_LAMBDA << 32};
  for (int64_t w = 0; w < shape->words && !status; w++)
    for (int k = 0; k < shape->topics; k++) {
      float *to = host + w * stride + k;
      *to = lambda ? lambda[(int64_t)k * shape->words + w] : 0.8f + 0.4f * sw_random_float(&random); /* about as wide as gensim's Gamma(100, 1/100) */
      if (!(*to > 0) || !isfinite(*to)) status = sw_fail("topic %d has the weight %g for word %lld: it must be a number above 0", k + 1, (double)*to, (long long)w);
    }
  if (!status) status = device->copy_in(&l->stream, l->lambda, host, (size_t)numbers * sizeof *host) || refresh(l, &l->stream) || device->synchronize(&l->stream) ? -1 : 0;
  free(host);
  if (status) sw_lda_close(l);
  return status;
}

void sw_lda_close(sw_lda *l) {
  sw_device *device = l->stream.device;
  if (!device) return;
  device->release(device, l->lambda);
  device->release(device, l->beta);
  device->release(device, l->workspace);
  *l = (sw_lda){0};
}

int sw_lda_get(sw_lda *l, float *lambda) {
  const int64_t stride = sw_lda_stride(l->shape.topics), words = l->shape.words;
  float *host = sw_alloc_array((size_t)(stride * words), sizeof *host);
  int status = host ? 0 : -1;
  if (!status) status = l->stream.device->copy_out(&l->stream, host, l->lambda, (size_t)(stride * words) * sizeof *host) || l->stream.device->synchronize(&l->stream) ? -1 : 0;
  for (int64_t w = 0; w < words && !status; w++)
    for (int k = 0; k < l->shape.topics; k++) {
      lambda[k * words + w] = host[w * stride + k];
      if (!isfinite(host[w * stride + k])) status = sw_fail("topic %d has a weight that is no finite number", k + 1);
    }
  free(host);
  return status;
}

/* --- checkpoints --- */

int sw_lda_of_checkpoint(const sw_checkpoint *c, const char *path, sw_lda_shape *s, const float **lambda) {
  const char *type = json_string_value(json_object_get(c->config, "model_type"));
  json_int_t topics, iterations;
  if (!type || strcmp(type, "lda"))
    return sw_fail("%s has no topics (kind %s); learn them with: skillwatch train topics --data postings/ -o topics.h5", path, c->kind);
  if (json_unpack(c->config, "{s:I, s:F, s:F, s:F, s:I}", "num_topics", &topics, "alpha", &s->alpha, "eta", &s->eta, "tolerance", &s->tolerance,
                  "iterations", &iterations) ||
      topics < 1 || topics > SW_LDA_TOPICS || iterations < 1 || iterations > INT32_MAX || !(s->alpha > 0) || !(s->eta > 0) || !(s->tolerance >= 0))
    return sw_fail("%s: num_topics, alpha, eta, tolerance or iterations is missing in its config, or out of range", path);
  const sw_tensor *t = sw_tensors_find(&c->weights, "lambda");
  if (c->vocab_size < 2 || !t || t->rank != 2 || t->dtype != SW_F32 || t->shape[0] != topics || t->shape[1] != (int64_t)c->vocab_size - 1)
    return sw_fail("%s: the tensor lambda must have %lld topics and a number for each word of the vocabulary but the first", path, (long long)topics);
  s->topics = (int)topics;
  s->iterations = (int)iterations;
  s->words = (int)c->vocab_size - 1;
  *lambda = t->data;
  return 0;
}

int sw_lda_to_checkpoint(const sw_lda_shape *s, sw_checkpoint *c, float **lambda) {
  json_t *config = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:i}", "model_type", "lda", "num_topics", s->topics, "vocab_size", s->words + 1, "alpha",
                             s->alpha, "eta", s->eta, "tolerance", s->tolerance, "iterations", s->iterations);
  const int failed = !config || json_object_update(c->config, config);
  json_decref(config);
  if (failed) return sw_fail("out of memory");
  free(c->kind);
  if (!(c->kind = sw_strdup("topics"))) return -1;
  const int64_t shape[2] = {s->topics, s->words};
  sw_tensor *t = sw_tensors_add(&c->weights, "lambda", SW_F32, 2, shape);
  if (t) *lambda = t->data;
  return t ? 0 : -1;
}

/* --- documents --- */

int sw_lda_room_open(sw_lda *lda, sw_stream *stream, int64_t documents, int64_t entries, int64_t longest, int learns, sw_lda_room *r) {
  *r = (sw_lda_room){.lda = lda, .stream = *stream, .documents = documents, .entries = entries, .longest = longest};
  sw_device *device = stream->device;
  const int64_t stride = sw_lda_stride(lda->shape.topics), words = lda->shape.words;
  const sw_lda_desc desc = desc_of(&lda->shape, documents, longest);
  size_t bytes;
  if (SW_RUN(stream, lda_workspace, &desc, &bytes)) return -1;
  int ok = (r->starts = device_array(device, documents + 1, sizeof *r->starts)) && (r->word = device_array(device, entries, sizeof *r->word)) &&
           (r->count = device_array(device, entries, sizeof *r->count)) && (r->gamma = device_array(device, documents * stride, sizeof *r->gamma)) &&
           (r->theta = device_array(device, documents * stride, sizeof *r->theta)) && (r->ratio = device_array(device, entries, sizeof *r->ratio)) &&
           (r->workspace = device->alloc(device, bytes ? bytes : 1)) && (r->staging = sw_alloc_array((size_t)(documents * stride), sizeof *r->staging)) &&
           (r->host_starts = sw_alloc_array((size_t)documents + 1, sizeof *r->host_starts));
  if (ok && learns)
    ok = (r->word_starts = device_array(device, words + 1, sizeof *r->word_starts)) && (r->entry = device_array(device, entries, sizeof *r->entry)) &&
         (r->document = device_array(device, entries, sizeof *r->document)) &&
         (r->host_word_starts = sw_alloc_array((size_t)words + 2, sizeof *r->host_word_starts)) &&
         (r->host_entry = sw_alloc_array((size_t)entries + 1, sizeof *r->host_entry)) &&
         (r->host_document = sw_alloc_array((size_t)entries + 1, sizeof *r->host_document));
  if (ok) return 0;
  sw_lda_room_close(r);
  return -1;
}

void sw_lda_room_close(sw_lda_room *r) {
  sw_device *device = r->stream.device;
  if (!device) return;
  void *const on_device[] = {r->starts, r->word_starts, r->entry, r->word, r->document, r->count, r->gamma, r->theta, r->ratio, r->workspace};
  for (size_t i = 0; i < sizeof on_device / sizeof *on_device; i++) device->release(device, on_device[i]);
  free(r->staging);
  free(r->host_starts);
  free(r->host_word_starts);
  free(r->host_entry);
  free(r->host_document);
  *r = (sw_lda_room){0};
}

/* gamma and what follows from it, on the device, for these documents. */
static int expect(sw_lda_room *r, const sw_bags *b, int64_t first, int64_t count) {
  sw_device *device = r->stream.device;
  sw_stream *stream = &r->stream;
  const int64_t from = b->starts[first], entries = b->starts[first + count] - from, stride = sw_lda_stride(r->lda->shape.topics);
  if (count > r->documents || entries > r->entries || b->longest > r->longest) return sw_fail("topics: more documents than there is room for");
  for (int64_t d = 0; d <= count; d++) r->host_starts[d] = b->starts[first + d] - from;
  /* equal weights, whatever the document and whatever it is with: the bound came out better than from random ones */
  for (int64_t i = 0; i < count * stride; i++) r->staging[i] = 1;
  const sw_lda_desc desc = desc_of(&r->lda->shape, count, r->longest);
  return device->copy_in(stream, r->starts, r->host_starts, (size_t)(count + 1) * sizeof *r->starts) ||
                 device->copy_in(stream, r->word, b->words + from, (size_t)entries * sizeof *r->word) ||
                 device->copy_in(stream, r->count, b->counts + from, (size_t)entries * sizeof *r->count) ||
                 device->copy_in(stream, r->gamma, r->staging, (size_t)(count * stride) * sizeof *r->gamma) ||
                 SW_RUN(stream, lda_documents, &desc, r->starts, r->word, r->count, r->lda->beta, r->gamma, r->theta, r->ratio, r->workspace)
             ? -1
             : 0;
}

int sw_lda_infer(sw_lda_room *r, const sw_bags *b, int64_t first, int64_t count, float *gamma) {
  const int64_t stride = sw_lda_stride(r->lda->shape.topics);
  const int topics = r->lda->shape.topics;
  if (expect(r, b, first, count) || r->stream.device->copy_out(&r->stream, r->staging, r->gamma, (size_t)(count * stride) * sizeof *r->staging) ||
      r->stream.device->synchronize(&r->stream))
    return -1;
  for (int64_t d = 0; d < count; d++) memcpy(gamma + d * topics, r->staging + d * stride, (size_t)topics * sizeof *gamma);
  return 0;
}

/* The entries listed by word; counting sort keeps documents in order. */
static void list_by_word(sw_lda_room *r, const sw_bags *b, int64_t first, int64_t count) {
  const int64_t from = b->starts[first], to = b->starts[first + count], words = r->lda->shape.words;
  int64_t *next = r->host_word_starts + 1; /* next[w]: where the next entry of w goes; when all are there, it is where w + 1 starts */
  memset(r->host_word_starts, 0, (size_t)(words + 2) * sizeof *next);
  for (int64_t e = from; e < to; e++)
    if (b->words[e] + 1 < words) next[b->words[e] + 1]++;
  for (int64_t w = 1; w < words; w++) next[w] += next[w - 1];
  for (int64_t d = first; d < first + count; d++)
    for (int64_t e = b->starts[d]; e < b->starts[d + 1]; e++) {
      const int64_t at = next[b->words[e]]++;
      r->host_entry[at] = e - from;
      r->host_document[at] = (int32_t)(d - first);
    }
}

int sw_lda_learn(sw_lda_room *r, const sw_bags *b, int64_t first, int64_t count, double rho, int64_t total) {
  sw_device *device = r->stream.device;
  sw_stream *stream = &r->stream;
  const int64_t entries = b->starts[first + count] - b->starts[first];
  const sw_lda_desc desc = desc_of(&r->lda->shape, count, r->longest);
  if (expect(r, b, first, count)) return -1;
  list_by_word(r, b, first, count);
  return device->copy_in(stream, r->word_starts, r->host_word_starts, (size_t)(r->lda->shape.words + 1) * sizeof *r->word_starts) ||
                 device->copy_in(stream, r->entry, r->host_entry, (size_t)entries * sizeof *r->entry) ||
                 device->copy_in(stream, r->document, r->host_document, (size_t)entries * sizeof *r->document) ||
                 SW_RUN(stream, lda_update, &desc, (float)rho, (float)((double)total / (double)count), r->word_starts, r->entry, r->document, r->ratio,
                        r->theta, r->lda->beta, r->lda->lambda) ||
                 refresh(r->lda, stream) || device->synchronize(stream)
             ? -1
             : 0;
}

/* --- the bound --- */

/* Abramowitz, Stegun, 6.3.5 and 6.3.18. */
static double digamma(double x) {
  double shift = 0;
  for (; x < 10; x++) shift -= 1 / x;
  const double s = 1 / (x * x);
  return shift + log(x) - 0.5 / x - s * (1.0 / 12 - s * (1.0 / 120 - s * (1.0 / 252 - s * (1.0 / 240 - s / 132))));
}

static double log_gamma(double x) {
  int sign;
  return lgamma_r(x, &sign);
}

/* E[log p(x | prior) - log q(x | weights)] of a Dirichlet distribution, from E[log x]. The next weight is `step` further. */
static double divergence(const float *weights, int64_t step, int64_t count, double prior, const double *log_x, int64_t log_step) {
  double sum = log_gamma(prior * (double)count) - (double)count * log_gamma(prior), total = 0;
  for (int64_t i = 0; i < count; i++) {
    const double w = (double)weights[i * step];
    sum += (prior - w) * log_x[i * log_step] + log_gamma(w);
    total += w;
  }
  return sum - log_gamma(total);
}

/* E[log p(words, theta) - log q] of a document. beta [words, topics]; scratch [topics]. */
static double document_bound(const sw_lda_shape *s, const sw_bags *b, int64_t d, const float *gamma, const double *beta, double *theta) {
  double total = 0, sum;
  for (int k = 0; k < s->topics; k++) total += (double)gamma[k];
  for (int k = 0; k < s->topics; k++) theta[k] = digamma((double)gamma[k]) - digamma(total);
  sum = divergence(gamma, 1, s->topics, s->alpha, theta, 1);
  for (int k = 0; k < s->topics; k++) theta[k] = exp(theta[k]);
  for (int64_t e = b->starts[d]; e < b->starts[d + 1]; e++) {
    const double *row = beta + (int64_t)b->words[e] * s->topics;
    double norm = 0;
    for (int k = 0; k < s->topics; k++) norm += theta[k] * row[k];
    sum += (double)b->counts[e] * log(norm + 1e-300);
  }
  return sum;
}

int sw_lda_bound(const sw_lda_shape *s, const float *lambda, const sw_bags *b, const float *gamma, int64_t total, int threads, double *bound) {
  const int64_t words = s->words, topics = s->topics;
  if (!(b->tokens > 0)) return sw_fail("topics: no document holds a word of the dictionary");
  double *beta = sw_alloc_array((size_t)words, (size_t)topics * sizeof *beta), *parts = sw_alloc_array((size_t)(topics + b->documents), sizeof *parts);
  double *scratch = sw_alloc_array((size_t)threads, (size_t)topics * sizeof *scratch);
  const int status = beta && parts && scratch ? 0 : -1;
  if (!status) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t k = 0; k < topics; k++) {
      double sum = 0;
      for (int64_t w = 0; w < words; w++) sum += (double)lambda[k * words + w];
      const double log_sum = digamma(sum);
      for (int64_t w = 0; w < words; w++) beta[w * topics + k] = digamma((double)lambda[k * words + w]) - log_sum;
      parts[k] = divergence(lambda + k * words, 1, words, s->eta, beta + k, topics);
      for (int64_t w = 0; w < words; w++) beta[w * topics + k] = exp(beta[w * topics + k]);
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
      for (int64_t d = b->documents * t / threads; d < b->documents * (t + 1) / threads; d++)
        parts[topics + d] = document_bound(s, b, d, gamma + d * topics, beta, scratch + t * topics);
    const double share = (double)total / (double)b->documents; /* gensim's subsample_ratio */
    double of_topics = 0, of_documents = 0;
    for (int64_t k = 0; k < topics; k++) of_topics += parts[k];
    for (int64_t d = 0; d < b->documents; d++) of_documents += parts[topics + d];
    *bound = (of_documents * share + of_topics) / (share * b->tokens);
  }
  free(beta);
  free(parts);
  free(scratch);
  return status;
}

/* --- topics for people --- */

int sw_lda_top_words(const sw_lda_shape *s, const float *lambda, int topic, size_t n, int32_t *top) {
  const float *row = lambda + (int64_t)topic * s->words;
  size_t held = 0;
  if (n > (size_t)s->words) return sw_fail("topics: %zu top words of a dictionary of %d", n, s->words);
  for (int32_t w = 0; w < s->words; w++) {
    if (held == n && !(row[w] > row[top[n - 1]])) continue;
    size_t at = held < n ? held++ : n - 1;
    for (; at > 0 && row[w] > row[top[at - 1]]; at--) top[at] = top[at - 1];
    top[at] = w;
  }
  return 0;
}
