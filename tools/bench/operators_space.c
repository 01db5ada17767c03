/* Cases of the operators on vectors: the bi-encoder's loss, neighbours, maps, topics, clusters. */
#include "tools/bench/cases.h"

#include <math.h>

/* --- embeddings of texts, fp32: the bi-encoder's loss, nearest neighbours --- */
RUN(contrastive) { return SW_RUN(stream, contrastive, &c->contrastive, t[0], t[1], t[2], NULL, t[3], t[4], t[5], t[6]); }
MAKE(contrastive) {
  const int rows = b->quick ? 6 : 256, candidates = 2 * rows, hidden = b->quick ? 8 : 384;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->contrastive = (sw_contrastive_desc){.rows = rows, .candidates = candidates, .hidden = hidden, .similarity_scale = 20,
                                         .scale = 1.0f / (float)rows};
  if (SW_RUN(&stream, contrastive_workspace, &c->contrastive, &bytes)) return -1;
  floats(c, SW_F32, (int64_t)rows * hidden, VALUES, 1 / sqrtf((float)hidden), IN); /* of about unit length */
  floats(c, SW_F32, (int64_t)candidates * hidden, VALUES, 1 / sqrtf((float)hidden), IN);
  if (multiples(c, rows, 1)) return -1;
  add(c, 8, 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  output(c, SW_F32, (int64_t)rows * hidden);
  output(c, SW_F32, (int64_t)candidates * hidden);
  workspace(c, bytes);
  c->macs = 4 * (double)rows * candidates * hidden;
  c->run = run_contrastive;
  SHAPE("%d x %d x %d", rows, candidates, hidden);
  return 1;
}
RUN(neighbours) { return SW_RUN(stream, neighbours, &c->neighbours, t[0], t[1], t[2], t[3], t[4]); }
MAKE(neighbours) {
  const int queries = b->quick ? 5 : 1000, corpus = b->quick ? 30 : 20000, hidden = b->quick ? 8 : 384, k = b->quick ? 3 : 15;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant > 1 || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->neighbours = (sw_neighbours_desc){.queries = queries, .corpus = corpus, .hidden = hidden, .k = k, .first_skip = -1,
                                       .metric = variant ? SW_SQUARED_DISTANCE : SW_INNER_PRODUCT};
  if (SW_RUN(&stream, neighbours_workspace, &c->neighbours, &bytes)) return -1;
  input(c, SW_F32, (int64_t)queries * hidden);
  input(c, SW_F32, (int64_t)corpus * hidden);
  add(c, (size_t)queries * (size_t)k * 8, (double)queries * k * 8, NOTHING, SW_F32, 0, NULL, OUT);
  output(c, SW_F32, (int64_t)queries * k);
  workspace(c, bytes);
  c->macs = (double)queries * corpus * hidden;
  c->run = run_neighbours;
  SHAPE("%d of %d x %d, k %d, %s", queries, corpus, hidden, k, variant ? "distances" : "products");
  return 1;
}

/* Where each list's entries begin: all of the same length. */
static int equal_lists(op_case *c, int64_t lists, int64_t entries) {
  int64_t *starts = own(c, (size_t)(lists + 1) * sizeof *starts);
  if (!starts) return -1;
  for (int64_t i = 0; i <= lists; i++) starts[i] = entries * i / lists;
  given(c, starts, (size_t)(lists + 1) * sizeof *starts);
  return 0;
}
/* --- maps, fp32: points with 14 neighbours, 20 edges each --- */
enum { MAP_NEIGHBOURS = 14, MAP_EDGES = 20 };
static int64_t points_of(const sw_bench *b) { return b->quick ? 40 : 20000; }
RUN(umap_weights) { return SW_RUN(stream, umap_weights, &c->umap_weights, t[0], t[1]); }
MAKE(umap_weights) {
  const int64_t rows = points_of(b), values = rows * MAP_NEIGHBOURS;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  float *distances = own(c, (size_t)values * sizeof *distances);
  if (!distances) return -1;
  for (int64_t i = 0; i < values; i++) distances[i] = (float)(i / MAP_NEIGHBOURS % 7 + i % MAP_NEIGHBOURS + 1) * 0.1f; /* ascending in each row */
  c->any_model = 1;
  c->umap_weights = (sw_umap_weights_desc){.rows = rows, .k = MAP_NEIGHBOURS, .nearest = 1, .target = log2f(MAP_NEIGHBOURS + 1)};
  given(c, distances, (size_t)values * sizeof *distances);
  output(c, SW_F32, values);
  c->run = run_umap_weights;
  SHAPE("%lld x %d", (long long)rows, MAP_NEIGHBOURS);
  return 1;
}
static int graph_of(op_case *c, int64_t rows) {
  return equal_lists(c, rows, rows * MAP_EDGES) || random_ids(c, rows * MAP_EDGES, (int)rows) ? -1 : 0;
}
RUN(umap_multiply) { return SW_RUN(stream, umap_multiply, &c->umap_multiply, t[0], t[1], t[2], t[3], t[4]); }
MAKE(umap_multiply) {
  const int64_t rows = points_of(b);
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (graph_of(c, rows)) return -1;
  c->any_model = 1;
  c->umap_multiply = (sw_umap_multiply_desc){.rows = rows, .scale = 1};
  constant(c, rows * MAP_EDGES, 1.0f / MAP_EDGES);
  input(c, SW_F32, rows * SW_UMAP_BLOCK);
  output(c, SW_F32, rows * SW_UMAP_BLOCK);
  c->macs = (double)rows * MAP_EDGES * SW_UMAP_BLOCK;
  c->run = run_umap_multiply;
  SHAPE("%lld rows of %d edges", (long long)rows, MAP_EDGES);
  return 1;
}
RUN(umap_layout) { return SW_RUN(stream, umap_layout, &c->umap_layout, t[0], t[1], t[2], t[3], t[4]); }
MAKE(umap_layout) {
  const int64_t rows = points_of(b), half = rows / 2, edges = half * MAP_EDGES;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  int64_t *color_start = own(c, (MAP_EDGES + 1) * sizeof *color_start);
  int32_t *head = own(c, (size_t)edges * sizeof *head), *tail = own(c, (size_t)edges * sizeof *tail);
  uint32_t *rates = own(c, (size_t)edges * sizeof *rates);
  if (!color_start || !head || !tail || !rates) return -1;
  for (int64_t e = 0; e < edges; e++) { /* a colour joins each point of one half to one of the other */
    head[e] = (int32_t)(e % half), tail[e] = (int32_t)(half + (e % half * 7919 + e / half) % half);
    rates[e] = UINT32_MAX / (uint32_t)(e % 7 + 1);
  }
  for (int n = 0; n <= MAP_EDGES; n++) color_start[n] = n * half;
  c->umap_layout = (sw_umap_layout_desc){{.points = rows, .components = 2, .last_epoch = 1, .epochs = 200, .negatives = 5, .a = 1.577f,
                                          .b = 0.895f, .first_alpha = 1, .seed = 6}, MAP_EDGES, color_start};
  if (SW_RUN(&stream, umap_layout_workspace, &c->umap_layout, &bytes)) return -1;
  given(c, head, (size_t)edges * sizeof *head);
  given(c, tail, (size_t)edges * sizeof *tail);
  given(c, rates, (size_t)edges * sizeof *rates);
  floats(c, SW_F32, rows * 2, VALUES, 10, IN | OUT);
  workspace(c, bytes);
  c->run = run_umap_layout;
  SHAPE("an epoch of %lld points, %lld edges", (long long)rows, (long long)edges);
  return 1;
}
RUN(umap_place) { return SW_RUN(stream, umap_place, &c->umap_place, t[0], t[1], t[2], t[3], t[4], t[5]); }
MAKE(umap_place) {
  const int64_t rows = points_of(b), edges = rows * MAP_EDGES;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (graph_of(c, rows)) return -1;
  c->any_model = 1;
  c->umap_place = (sw_umap_place_desc){{.points = rows, .components = 2, .last_epoch = 1, .epochs = 100, .negatives = 5, .a = 1.577f, .b = 0.895f,
                                        .first_alpha = 0.25f, .seed = 6}, rows};
  uint32_t *rates = own(c, (size_t)edges * sizeof *rates);
  uint64_t *ids = own(c, (size_t)rows * sizeof *ids);
  if (!rates || !ids) return -1;
  for (int64_t e = 0; e < edges; e++) rates[e] = UINT32_MAX / (uint32_t)(e % 7 + 1);
  for (int64_t i = 0; i < rows; i++) ids[i] = (uint64_t)i;
  given(c, rates, (size_t)edges * sizeof *rates);
  given(c, ids, (size_t)rows * sizeof *ids);
  floats(c, SW_F32, rows * 2, VALUES, 10, IN | OUT);
  input(c, SW_F32, rows * 2);
  c->run = run_umap_place;
  SHAPE("an epoch of %lld rows, %d edges each", (long long)rows, MAP_EDGES);
  return 1;
}
RUN(umap_ranks) { return SW_RUN(stream, umap_ranks, &c->umap_ranks, t[0], t[1], t[2], t[3], t[4], t[5]); }
MAKE(umap_ranks) {
  const int queries = b->quick ? 5 : 1000, corpus = b->quick ? 30 : 20000, hidden = b->quick ? 8 : 384;
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  c->any_model = 1;
  c->umap_ranks = (sw_umap_ranks_desc){.queries = queries, .corpus = corpus, .hidden = hidden, .k = MAP_NEIGHBOURS};
  int64_t *self = own(c, (size_t)queries * sizeof *self), *index = own(c, (size_t)queries * MAP_NEIGHBOURS * sizeof *index);
  if (!self || !index || SW_RUN(&stream, umap_ranks_workspace, &c->umap_ranks, &bytes)) return -1;
  for (int64_t i = 0; i < queries; i++) self[i] = -1;
  for (int64_t i = 0; i < (int64_t)queries * MAP_NEIGHBOURS; i++) index[i] = i % corpus;
  input(c, SW_F32, (int64_t)queries * hidden);
  input(c, SW_F32, (int64_t)corpus * hidden);
  given(c, self, (size_t)queries * sizeof *self);
  given(c, index, (size_t)queries * MAP_NEIGHBOURS * sizeof *index);
  add(c, (size_t)queries * MAP_NEIGHBOURS * 4, (double)queries * MAP_NEIGHBOURS * 4, NOTHING, SW_F32, 0, NULL, OUT);
  workspace(c, bytes);
  c->macs = (double)queries * corpus * hidden;
  c->run = run_umap_ranks;
  SHAPE("%d of %d x %d, k %d", queries, corpus, hidden, MAP_NEIGHBOURS);
  return 1;
}

/* --- topics, fp32: documents of 64 distinct words, a chunk and its update --- */
enum { LDA_WORDS_OF_DOCUMENT = 64 };
static int lda_of(const sw_bench *b, op_case *c, size_t *workspace_bytes) {
  sw_stream stream = b->stream;
  c->any_model = 1;
  c->lda = (sw_lda_desc){.documents = b->quick ? 4 : 2000, .words = b->quick ? 100 : 5000, .topics = b->quick ? 3 : 30, .longest = LDA_WORDS_OF_DOCUMENT,
                         .alpha = 1.0f / 30, .eta = 1.0f / 30, .iterations = b->quick ? 2 : 50};
  return SW_RUN(&stream, lda_workspace, &c->lda, workspace_bytes);
}
RUN(lda_beta) { return SW_RUN(stream, lda_beta, &c->lda, t[0], t[1], t[2]); }
MAKE(lda_beta) {
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (lda_of(b, c, &bytes)) return -1;
  const int64_t numbers = (int64_t)c->lda.words * sw_lda_stride(c->lda.topics);
  constant(c, numbers, 2);
  output(c, SW_F32, numbers);
  workspace(c, bytes);
  c->run = run_lda_beta;
  SHAPE("%d words, %d topics", c->lda.words, c->lda.topics);
  return 1;
}
RUN(lda_documents) { return SW_RUN(stream, lda_documents, &c->lda, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]); }
MAKE(lda_documents) {
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (lda_of(b, c, &bytes)) return -1;
  const int64_t entries = c->lda.documents * LDA_WORDS_OF_DOCUMENT, stride = sw_lda_stride(c->lda.topics);
  if (equal_lists(c, c->lda.documents, entries)) return -1;
  int32_t *word = int32s(c, entries);
  if (!word) return -1;
  for (int64_t e = 0; e < entries; e++) word[e] = (int32_t)((e / LDA_WORDS_OF_DOCUMENT + e % LDA_WORDS_OF_DOCUMENT) % c->lda.words);
  constant(c, entries, 1);
  floats(c, SW_F32, c->lda.words * stride, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.documents * stride, CONSTANT, 1, IN | OUT);
  output(c, SW_F32, c->lda.documents * stride);
  output(c, SW_F32, entries);
  workspace(c, bytes);
  c->macs = 2.0 * (double)entries * c->lda.topics * c->lda.iterations;
  c->run = run_lda_documents;
  SHAPE("%lld of %d words, %d topics, %d iterations", (long long)c->lda.documents, LDA_WORDS_OF_DOCUMENT, c->lda.topics, c->lda.iterations);
  return 1;
}
RUN(lda_update) { return SW_RUN(stream, lda_update, &c->lda, 0.1f, 1, t[0], t[1], t[2], t[3], t[4], t[5], t[6]); }
MAKE(lda_update) {
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  if (lda_of(b, c, &bytes)) return -1;
  const int64_t entries = c->lda.documents * LDA_WORDS_OF_DOCUMENT, stride = sw_lda_stride(c->lda.topics);
  if (equal_lists(c, c->lda.words, entries)) return -1;
  int64_t *entry = own(c, (size_t)entries * sizeof *entry);
  if (!entry) return -1;
  for (int64_t e = 0; e < entries; e++) entry[e] = e * 31 % entries;
  given(c, entry, (size_t)entries * sizeof *entry);
  if (random_ids(c, entries, (int)c->lda.documents)) return -1;
  floats(c, SW_F32, entries, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.documents * stride, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.words * stride, SQUARES, 0.5f, IN);
  floats(c, SW_F32, c->lda.words * stride, CONSTANT, 1, IN | OUT);
  c->macs = (double)entries * c->lda.topics;
  c->run = run_lda_update;
  SHAPE("%lld entries, %d words, %d topics", (long long)entries, c->lda.words, c->lda.topics);
  return 1;
}

/* Several starts of k-means; in updates every row moves to its first centre. */
static int make_kmeans_case(const sw_bench *b, op_case *c) {
  const int rows = b->quick ? 40 : 20000, hidden = b->quick ? 8 : 384, groups = b->quick ? 2 : 10, k = b->quick ? 3 : 5;
  c->any_model = 1;
  c->kmeans = (sw_kmeans_desc){.rows = rows, .hidden = hidden, .groups = groups, .k = k};
  input(c, SW_F32, (int64_t)rows * hidden);
  SHAPE("%d x %d, %d starts of %d", rows, hidden, groups, k);
  return 1;
}
RUN(kmeans_assign) { return SW_RUN(stream, kmeans_assign, &c->kmeans, t[0], t[1], NULL, t[2], t[3], t[4]); }
MAKE(kmeans_assign) {
  sw_stream stream = b->stream;
  size_t bytes;
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  make_kmeans_case(b, c);
  const sw_kmeans_desc *d = &c->kmeans;
  const int64_t centres = (int64_t)d->groups * d->k;
  if (SW_RUN(&stream, kmeans_workspace, d, &bytes)) return -1;
  input(c, SW_F32, centres * d->hidden);
  output(c, SW_F32, d->groups * d->rows); /* labels, as wide */
  output(c, SW_F32, d->groups * d->rows);
  workspace(c, bytes);
  c->macs = (double)d->rows * (double)centres * d->hidden;
  c->run = run_kmeans_assign;
  return 1;
}
RUN(kmeans_update) { return SW_RUN(stream, kmeans_update, &c->kmeans, t[0], t[1], t[2], t[3], t[4], t[5]); }
MAKE(kmeans_update) {
  if (variant || dtype != SW_F32 || s != b->shapes) return 0;
  make_kmeans_case(b, c);
  const sw_kmeans_desc *d = &c->kmeans;
  const size_t labels = (size_t)(d->groups * d->rows) * sizeof(int32_t), centres = (size_t)d->groups * (size_t)d->k;
  int32_t *none = own(c, labels);
  if (!none) return -1;
  for (int64_t i = 0; i < d->groups * d->rows; i++) none[i] = -1;
  given(c, none, labels);
  add(c, labels, (double)labels, ZERO, SW_F32, 0, NULL, IN);
  add(c, centres * (size_t)d->hidden * 8, (double)d->groups * d->hidden * 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  add(c, centres * 8, (double)d->groups * 8, ZERO, SW_F32, 0, NULL, IN | OUT);
  add(c, (size_t)d->groups * 8, (double)d->groups * 8, NOTHING, SW_F32, 0, NULL, OUT);
  c->run = run_kmeans_update;
  return 1;
}
