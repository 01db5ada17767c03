/* Word + position + type, LayerNorm, dropout, and the gradients of the tables, against the fp64 reference. */
#include "kernels/embedding/reference.h"
#include "kernels/layernorm/reference.h"
#include "tests/support/kernel_test.h"

#include <string.h>

typedef struct {
  sw_embedding_desc desc;
  int32_t *ids, *positions, *type_ids, *sorted, *segments; /* on the device */
  int64_t unique;
  kt_tensor *word, *position, *type, *gamma, *beta, *z, *y, *mean, *rstd;
  kt_tensor *dy, *dword, *dposition, *dtype_table, *dgamma, *dbeta, *workspace;
  int training;
} layer;

static void *data_of(kt_tensor *x) {
  return x ? x->data : NULL;
}
static void forward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, embedding_forward, &l->desc, l->ids, l->positions, l->type_ids, l->word->data,
                  l->position->data, data_of(l->type), l->gamma->data, l->beta->data, l->training ? l->z->data : NULL,
                  l->y->data, l->training ? l->mean->data : NULL, l->training ? l->rstd->data : NULL));
}
static void backward(kt *t, void *argument) {
  layer *l = argument;
  kt_ok(t, SW_RUN(&t->stream, embedding_backward, &l->desc, l->positions, l->type_ids, l->dy->data, l->z->data,
                  l->gamma->data, l->mean->data, l->rstd->data, l->sorted, l->segments, l->unique, l->dword->data,
                  l->dposition->data, data_of(l->dtype_table), l->dgamma->data, l->dbeta->data, l->workspace->data));
}
static kt_tensor *workspace_of(kt *t, const sw_embedding_desc *desc) {
  size_t bytes = 0;
  kt_ok(t, SW_RUN(&t->stream, embedding_workspace, desc, &bytes));
  return kt_bytes(t, "workspace", bytes);
}
static double *copy_of(kt *t, const kt_tensor *from) {
  if (!from) return NULL;
  double *to = kt_doubles(t, from->count);
  memcpy(to, from->host, (size_t)from->count * sizeof *to);
  return to;
}

/* Tokens by id, stable, and where each distinct id starts; *distinct [tokens] lists the ids. */
static void sort_tokens(kt *t, layer *l, const int32_t *ids, int32_t *distinct) {
  int tokens = (int)l->desc.tokens, filled = 0;
  int32_t *sorted = malloc(((size_t)tokens + 1) * 4), *segments = malloc(((size_t)tokens + 1) * 4);
  l->unique = 0;
  segments[0] = 0;
  for (int32_t id = 0; id < l->desc.vocab_size; id++) {
    int before = filled;
    for (int i = 0; i < tokens; i++)
      if (ids[i] == id) sorted[filled++] = i;
    if (filled == before) continue;
    distinct[l->unique++] = id;
    segments[l->unique] = filled;
  }
  l->sorted = kt_int32(t, "sorted_tokens", tokens, sorted);
  l->segments = kt_int32(t, "segments", l->unique + 1, segments);
  free(sorted);
  free(segments);
}

enum { VOCABULARY = 50, POSITIONS = 40 };

/* types: 0 = no type table; otherwise the rows of one. without_ids: a table, but every token of type 0. */
static void one_case(kt *t, sw_dtype dtype, int tokens, int hidden, int types, int without_ids, float p) {
  kt_case(t, "%s tokens %d hidden %d types %d%s p %g", sw_dtype_name(dtype), tokens, hidden, types,
          without_ids ? " (NULL ids)" : "", p);
  int64_t count = (int64_t)tokens * hidden;
  layer l = {
      .desc =
          {tokens, hidden, VOCABULARY, POSITIONS, types, 1e-5f, dtype, {.p = p, .seed = t->seed, .site = 0, .step = 9, .first = 4 * (uint64_t)tokens}},
      .training = 1};
  int32_t *ids = calloc((size_t)tokens + 1, 4), *positions = calloc((size_t)tokens + 1, 4),
          *type_ids = calloc((size_t)tokens + 1, 4);
  int32_t *distinct = calloc((size_t)tokens + 1, 4);
  for (int i = 0; i < tokens; i++) {
    ids[i] = i % 9 == 0 ? 2 : kt_below(t, VOCABULARY); /* one id is frequent, as [CLS] is */
    positions[i] = i % POSITIONS;
    type_ids[i] = types && !without_ids ? i / 23 % types : 0;
  }
  l.ids = kt_int32(t, "ids", tokens, ids), l.positions = kt_int32(t, "positions", tokens, positions);
  if (types && !without_ids) l.type_ids = kt_int32(t, "type_ids", tokens, type_ids);
  l.word = kt_new(t, "word", SW_F32, VOCABULARY * hidden),
  l.position = kt_new(t, "position", SW_F32, POSITIONS * hidden);
  l.type = types ? kt_new(t, "type", SW_F32, (int64_t)types * hidden) : NULL;
  l.gamma = kt_new(t, "gamma", SW_F32, hidden), l.beta = kt_new(t, "beta", SW_F32, hidden);
  l.z = kt_new(t, "z", dtype, count), l.y = kt_new(t, "y", dtype, count);
  l.mean = kt_new(t, "mean", SW_F32, tokens), l.rstd = kt_new(t, "rstd", SW_F32, tokens);
  kt_normal(t, l.word, 0, 1);
  kt_normal(t, l.position, 0, 0.5);
  if (l.type) kt_normal(t, l.type, 0, 0.5);
  kt_normal(t, l.gamma, 1, 0.3);
  kt_normal(t, l.beta, 0, 0.3);
  double *mask = NULL;
  if (p > 0) {
    mask = kt_doubles(t, count);
    for (int64_t i = 0; i < count; i++) mask[i] = sw_reference_multiplier(&l.desc.dropout, (uint64_t)i);
  }
  double *z = kt_doubles(t, count), *y = kt_doubles(t, count);
  sw_reference_embedding_forward(tokens, hidden, l.desc.eps, ids, positions, type_ids, l.word->host, l.position->host,
                                 l.type ? l.type->host : NULL, l.gamma->host, l.beta->host, mask, z, y);
  double rtol = dtype == SW_F32 ? 2e-6 : 0x1p-8;
  kt_with_threads(t, "forward", forward, &l, (kt_tensor *[]){l.z, l.y, l.mean, l.rstd}, 4);
  kt_compare(t, "z", l.z, z, rtol, 1e-6);
  double *mean = kt_doubles(t, tokens), *rstd = kt_doubles(t, tokens), amplified = 1;
  double *unmasked = kt_doubles(t, count);
  sw_reference_layernorm_forward(tokens, hidden, l.desc.eps, z, NULL, NULL, l.gamma->host, l.beta->host, NULL, NULL,
                                 unmasked, mean, rstd);
  for (int i = 0; i < tokens; i++)
    amplified = fmax(amplified, rstd[i] * rstd[i]); /* nearly constant rows lose digits */
  kt_compare(t, "y", l.y, y, rtol, 4e-6 * amplified);
  kt_compare(t, "mean", l.mean, mean, 2e-6, 2e-6);
  kt_compare(t, "rstd", l.rstd, rstd, 4e-6 * amplified, 0);
  layer inference = l; /* nothing kept: the same bits */
  inference.training = 0;
  inference.y = kt_new(t, "y alone", dtype, count);
  forward(t, &inference);
  kt_same_bits(t, "inference", inference.y, l.y);

  /* backward, from z, mean and rstd as they are stored */
  kt_download(t, l.z);
  sw_reference_layernorm_forward(tokens, hidden, l.desc.eps, l.z->host, NULL, NULL, l.gamma->host, l.beta->host, NULL,
                                 NULL, unmasked, l.mean->host, l.rstd->host);
  kt_upload(t, l.mean);
  kt_upload(t, l.rstd);
  sort_tokens(t, &l, ids, distinct);
  l.dy = kt_new(t, "dy", dtype, count), l.dword = kt_new(t, "dword_rows", SW_F32, l.unique * hidden);
  l.dposition = kt_new(t, "dposition", SW_F32, POSITIONS * hidden);
  l.dtype_table = types ? kt_new(t, "dtype_table", SW_F32, (int64_t)types * hidden) : NULL;
  l.dgamma = kt_new(t, "dgamma", SW_F32, hidden), l.dbeta = kt_new(t, "dbeta", SW_F32, hidden);
  l.workspace = workspace_of(t, &l.desc);
  kt_normal(t, l.dy, 0, 1);
  kt_normal(t, l.dposition, 0, 1);
  if (types) kt_normal(t, l.dtype_table, 0, 1);
  kt_normal(t, l.dgamma, 0, 1);
  kt_normal(t, l.dbeta, 0, 1);
  double *dy = copy_of(t, l.dy), *dz = kt_doubles(t, count), *dtable = kt_doubles(t, VOCABULARY * hidden);
  double *dposition = copy_of(t, l.dposition), *dtypes = copy_of(t, l.dtype_table), *dgamma = copy_of(t, l.dgamma);
  double *dbeta = copy_of(t, l.dbeta), *dword = kt_doubles(t, l.unique * hidden);
  kt_tensor *outputs[] = {l.dy, l.dword, l.dposition, l.dgamma, l.dbeta, l.dtype_table};
  kt_with_threads(t, "backward", backward, &l, outputs, types ? 6 : 5);
  for (int run = 0; run < 2; run++) { /* parameter gradients add; dword_rows is overwritten */
    memset(dtable, 0, (size_t)VOCABULARY * (size_t)hidden * sizeof *dtable);
    sw_reference_embedding_backward(tokens, hidden, l.desc.eps, ids, positions, type_ids, dy, l.z->host, l.gamma->host,
                                    mask, dz, dtable, dposition, dtypes, dgamma, dbeta);
    for (int64_t u = 0; u < l.unique; u++)
      memcpy(dword + u * hidden, dtable + distinct[u] * (int64_t)hidden, (size_t)hidden * sizeof *dword);
    if (run) { /* dy holds dz by now */
      memcpy(l.dy->host, dy, (size_t)count * sizeof *dy);
      kt_upload(t, l.dy);
      backward(t, &l);
    }
    /* the tables sum dz as it is stored; in bf16 each of the n summands is off by up to 2^-9 of itself, n^0.5 together
     */
    double each = 8e-6 * amplified + (dtype == SW_BF16 ? 0x1p-9 * kt_largest(dz, count) : 0);
    double many = each * (dtype == SW_BF16 ? 4 * sqrt(tokens + 1.0) : 1 + tokens / 16.0);
    kt_compare(t, "dz", l.dy, dz, rtol, 8e-6 * amplified);
    kt_compare(t, "dword", l.dword, dword, 1e-5, many);
    kt_compare(t, "dposition", l.dposition, dposition, 1e-5, many);
    if (types) kt_compare(t, "dtype", l.dtype_table, dtypes, 1e-5, many);
    kt_compare(t, "dgamma", l.dgamma, dgamma, 1e-5, 2e-6 * amplified * (5 + tokens));
    kt_compare(t, "dbeta", l.dbeta, dbeta, 1e-5, 2e-6 * (5 + tokens));
  }
  free(ids);
  free(positions);
  free(type_ids);
  free(distinct);
  kt_clear(t);
}

/* A token's row has the same bits in a batch of one as anywhere else. */
static void tokens_alone(kt *t, sw_dtype dtype) {
  kt_case(t, "%s tokens alone", sw_dtype_name(dtype));
  enum { TOKENS = 50, HIDDEN = 100 };
  int32_t ids[TOKENS], positions[TOKENS];
  layer l = {.desc = {TOKENS, HIDDEN, VOCABULARY, POSITIONS, 0, 1e-12f, dtype, {.p = 0}}};
  for (int i = 0; i < TOKENS; i++) ids[i] = kt_below(t, VOCABULARY), positions[i] = i % POSITIONS;
  l.word = kt_new(t, "word", SW_F32, VOCABULARY * HIDDEN),
  l.position = kt_new(t, "position", SW_F32, POSITIONS * HIDDEN);
  l.gamma = kt_new(t, "gamma", SW_F32, HIDDEN), l.beta = kt_new(t, "beta", SW_F32, HIDDEN);
  kt_tensor *all[] = {l.word, l.position, l.gamma, l.beta};
  for (int i = 0; i < 4; i++) kt_normal(t, all[i], 0, 1);
  kt_tensor *y = l.y = kt_new(t, "y", dtype, TOKENS * HIDDEN);
  l.ids = kt_int32(t, "ids", TOKENS, ids), l.positions = kt_int32(t, "positions", TOKENS, positions);
  forward(t, &l);
  l.desc.tokens = 1;
  l.y = kt_new(t, "one y", dtype, HIDDEN);
  for (int i = 0; i < TOKENS; i += 7) {
    l.ids = kt_int32(t, "id", 1, ids + i), l.positions = kt_int32(t, "position", 1, positions + i);
    forward(t, &l);
    kt_same_bits_at(t, "one token", y, (int64_t)i * HIDDEN, l.y, 0, HIDDEN);
  }
  kt_clear(t);
}

typedef struct {
  const double *word, *position, *type, *weight, *mask, *gamma, *beta;
} smooth;
enum { S_TOKENS = 6, S_HIDDEN = 12, S_VOCABULARY = 4, S_POSITIONS = 3, S_TYPES = 2 };
static const int32_t s_ids[] = {0, 3, 3, 1, 0, 3}, s_positions[] = {0, 1, 2, 0, 1, 2}, s_types[] = {0, 0, 1, 1, 1, 0};
static double loss_of(const smooth *s, const double *word, const double *position, const double *type) {
  double z[S_TOKENS * S_HIDDEN], y[S_TOKENS * S_HIDDEN], sum = 0;
  sw_reference_embedding_forward(S_TOKENS, S_HIDDEN, 1e-3, s_ids, s_positions, s_types, word, position, type, s->gamma,
                                 s->beta, s->mask, z, y);
  for (int i = 0; i < S_TOKENS * S_HIDDEN; i++) sum += y[i] * s->weight[i];
  return sum;
}
static double of_word(const double *x, void *s) {
  return loss_of(s, x, ((smooth *)s)->position, ((smooth *)s)->type);
}
static double of_position(const double *x, void *s) {
  return loss_of(s, ((smooth *)s)->word, x, ((smooth *)s)->type);
}
static double of_type(const double *x, void *s) {
  return loss_of(s, ((smooth *)s)->word, ((smooth *)s)->position, x);
}
static void reference_by_differences(kt *t) {
  kt_case(t, "reference");
  enum { COUNT = S_TOKENS * S_HIDDEN };
  double word[S_VOCABULARY * S_HIDDEN], position[S_POSITIONS * S_HIDDEN], type[S_TYPES * S_HIDDEN], gamma[S_HIDDEN],
      beta[S_HIDDEN];
  double weight[COUNT], mask[COUNT], z[COUNT], y[COUNT], dz[COUNT];
  double dword[S_VOCABULARY * S_HIDDEN] = {0}, dposition[S_POSITIONS * S_HIDDEN] = {0},
                              dtypes[S_TYPES * S_HIDDEN] = {0};
  double dgamma[S_HIDDEN] = {0}, dbeta[S_HIDDEN] = {0};
  sw_dropout dropout = {.p = 0.3f, .seed = t->seed};
  for (int i = 0; i < S_VOCABULARY * S_HIDDEN; i++) word[i] = kt_random_normal(t);
  for (int i = 0; i < S_POSITIONS * S_HIDDEN; i++) position[i] = kt_random_normal(t);
  for (int i = 0; i < S_TYPES * S_HIDDEN; i++) type[i] = kt_random_normal(t);
  for (int i = 0; i < S_HIDDEN; i++) gamma[i] = kt_random_normal(t), beta[i] = kt_random_normal(t);
  for (int i = 0; i < COUNT; i++)
    weight[i] = kt_random_normal(t), mask[i] = sw_reference_multiplier(&dropout, (uint64_t)i);
  smooth s = {word, position, type, weight, mask, gamma, beta};
  sw_reference_embedding_forward(S_TOKENS, S_HIDDEN, 1e-3, s_ids, s_positions, s_types, word, position, type, gamma,
                                 beta, mask, z, y);
  sw_reference_embedding_backward(S_TOKENS, S_HIDDEN, 1e-3, s_ids, s_positions, s_types, weight, z, gamma, mask, dz,
                                  dword, dposition, dtypes, dgamma, dbeta);
  kt_finite_difference(t, "dword", of_word, &s, word, dword, S_VOCABULARY * S_HIDDEN);
  kt_finite_difference(t, "dposition", of_position, &s, position, dposition, S_POSITIONS * S_HIDDEN);
  kt_finite_difference(t, "dtype", of_type, &s, type, dtypes, S_TYPES * S_HIDDEN);
}

/* word +-4, position 3, type 2: z = 5 +- 4, and with eps = 0 the normalised value is +-1: exact. */
static void integers(kt *t, sw_dtype dtype) {
  kt_case(t, "%s integers", sw_dtype_name(dtype));
  enum { TOKENS = 7, HIDDEN = 32 };
  int32_t ids[TOKENS], positions[TOKENS];
  layer l = {.desc = {TOKENS, HIDDEN, VOCABULARY, POSITIONS, 2, 0, dtype, {.p = 0.5f, .seed = 3}}, .training = 1};
  for (int i = 0; i < TOKENS; i++) ids[i] = i, positions[i] = TOKENS - i;
  l.ids = kt_int32(t, "ids", TOKENS, ids), l.positions = kt_int32(t, "positions", TOKENS, positions);
  l.word = kt_new(t, "word", SW_F32, VOCABULARY * HIDDEN),
  l.position = kt_new(t, "position", SW_F32, POSITIONS * HIDDEN);
  l.type = kt_new(t, "type", SW_F32, 2 * HIDDEN);
  l.gamma = kt_new(t, "gamma", SW_F32, HIDDEN), l.beta = kt_new(t, "beta", SW_F32, HIDDEN);
  l.z = kt_new(t, "z", dtype, TOKENS * HIDDEN), l.y = kt_new(t, "y", dtype, TOKENS * HIDDEN);
  l.mean = kt_new(t, "mean", SW_F32, TOKENS), l.rstd = kt_new(t, "rstd", SW_F32, TOKENS);
  for (int i = 0; i < VOCABULARY * HIDDEN; i++) l.word->host[i] = i % 2 ? 4 : -4;
  kt_upload(t, l.word);
  kt_fill(t, l.position, 3);
  kt_fill(t, l.type, 2);
  kt_integers(t, l.gamma, 1, 4);
  kt_integers(t, l.beta, -4, 4);
  double *want = kt_doubles(t, TOKENS * HIDDEN), *z = kt_doubles(t, TOKENS * HIDDEN);
  for (int i = 0; i < TOKENS * HIDDEN; i++) {
    z[i] = i % 2 ? 9 : 1;
    want[i] = ((i % 2 ? 1 : -1) * l.gamma->host[i % HIDDEN] + l.beta->host[i % HIDDEN]) *
              sw_reference_multiplier(&l.desc.dropout, (uint64_t)i);
  }
  forward(t, &l);
  kt_compare(t, "z", l.z, z, 0, 0);
  kt_compare(t, "y", l.y, want, 0, 0);
  kt_clear(t);
}

static void refused(kt *t) {
  kt_case(t, "refused");
  layer l = {.desc = {.tokens = 1, .hidden = 0, .vocab_size = 1, .max_positions = 1}};
  l.word = l.position = l.gamma = l.beta = l.y = kt_new(t, "x", SW_F32, 16);
  kt_fails(t,
           SW_RUN(&t->stream, embedding_forward, &l.desc, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                  NULL, NULL),
           "hidden size 0");
  kt_clear(t);
}

static void bench(kt *t) {
  enum { TOKENS = 8192, VOCAB = 30522, HIDDEN = 384, TABLE = 512 };
  for (t->stream.threads = 1; t->stream.threads <= 2; t->stream.threads++) {
    int32_t *ids = calloc(TOKENS, 4), *positions = calloc(TOKENS, 4), *distinct = calloc(TOKENS, 4);
    layer l = {.desc = {TOKENS, HIDDEN, VOCAB, TABLE, 2, 1e-12f, SW_F32, {.p = 0}}};
    for (int i = 0; i < TOKENS; i++) ids[i] = i % 16 ? kt_below(t, VOCAB) : 101, positions[i] = i % 256;
    l.ids = kt_int32(t, "ids", TOKENS, ids), l.positions = kt_int32(t, "positions", TOKENS, positions);
    l.word = kt_new(t, "word", SW_F32, VOCAB * HIDDEN), l.position = kt_new(t, "position", SW_F32, TABLE * HIDDEN);
    l.type = kt_new(t, "type", SW_F32, 2 * HIDDEN), l.gamma = kt_new(t, "gamma", SW_F32, HIDDEN);
    l.beta = kt_new(t, "beta", SW_F32, HIDDEN), l.z = kt_new(t, "z", SW_F32, TOKENS * HIDDEN);
    l.y = kt_new(t, "y", SW_F32, TOKENS * HIDDEN), l.mean = kt_new(t, "mean", SW_F32, TOKENS);
    l.rstd = kt_new(t, "rstd", SW_F32, TOKENS), l.dy = kt_new(t, "dy", SW_F32, TOKENS * HIDDEN);
    sort_tokens(t, &l, ids, distinct);
    l.dword = kt_new(t, "dword", SW_F32, l.unique * HIDDEN),
    l.dposition = kt_new(t, "dposition", SW_F32, TABLE * HIDDEN);
    l.dtype_table = kt_new(t, "dtype", SW_F32, 2 * HIDDEN), l.dgamma = kt_new(t, "dgamma", SW_F32, HIDDEN);
    l.dbeta = kt_new(t, "dbeta", SW_F32, HIDDEN);
    l.workspace = workspace_of(t, &l.desc);
    kt_tensor *all[] = {l.word, l.position,  l.type,        l.gamma,  l.beta,
                        l.dy,   l.dposition, l.dtype_table, l.dgamma, l.dbeta};
    for (int i = 0; i < 10; i++) kt_uniform(t, all[i], 0, 1);
    double bytes = (double)TOKENS * HIDDEN * 4;
    kt_report(t, "embedding fp32 8192x384 inference", kt_seconds(t, forward, &l), 0, 2 * bytes);
    l.training = 1;
    l.desc.dropout.p = 0.1f;
    kt_report(t, "embedding fp32 8192x384 training, dropout", kt_seconds(t, forward, &l), 0, 3 * bytes);
    kt_report(t, "embedding fp32 8192x384 backward, dropout", kt_seconds(t, backward, &l), 0, 6 * bytes);
    free(ids);
    free(positions);
    free(distinct);
    kt_clear(t);
  }
}

static void tests(kt *t) {
  reference_by_differences(t);
  for (int dtype = SW_F32; dtype <= SW_BF16; dtype++) {
    one_case(t, (sw_dtype)dtype, 77, 5, 2, 0, 0.1f);
    one_case(t, (sw_dtype)dtype, 131, 31, 3, 0, 0);
    one_case(t, (sw_dtype)dtype, 64, 64, 0, 0, 0.1f);
    one_case(t, (sw_dtype)dtype, 90, 100, 2, 1, 0);
    one_case(t, (sw_dtype)dtype, kt_small(t) ? 60 : 401, 384, 2, 0, 0.1f);
    one_case(t, (sw_dtype)dtype, 37, 601, 2, 0, 0.1f);
    one_case(t, (sw_dtype)dtype, 19, 1100, 2, 0, 0);
    one_case(t, (sw_dtype)dtype, 2100, 8, 2, 0, 0.1f); /* the batch in more than one chunk */
    one_case(t, (sw_dtype)dtype, 1, 384, 2, 0, 0);
    one_case(t, (sw_dtype)dtype, 0, 384, 2, 0, 0.1f);
    tokens_alone(t, (sw_dtype)dtype);
    integers(t, (sw_dtype)dtype);
  }
  refused(t);
}

int main(int argc, char **argv) { return kt_run(argc, argv, tests, bench); }
