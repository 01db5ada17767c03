#include "engine/space/leaders.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024 };

typedef struct {
  const float *vectors;
  int hidden;
  int64_t *leaders; /* their rows, in order */
} places;

static int read_leaders(void *context, int64_t first, int64_t rows, float *out) {
  const places *p = context;
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * p->hidden, p->vectors + p->leaders[first + i] * p->hidden, (size_t)p->hidden * sizeof *out);
  return 0;
}

static double dot(const float *a, const float *b, int hidden) {
  double sum = 0;
  for (int h = 0; h < hidden; h++) sum += (double)a[h] * (double)b[h];
  return sum;
}

/* To unit length; a row of zeros stays one. */
static void make_unit(const float *row, int hidden, float *out) {
  const double length = sqrt(dot(row, row, hidden));
  for (int h = 0; h < hidden; h++) out[h] = length > 0 ? (float)(row[h] / length) : 0;
}

int sw_leaders_run(sw_stream *stream, const float *vectors, int64_t rows, int hidden, double threshold, int64_t *leader) {
  places p = {vectors, hidden, sw_alloc_array((size_t)rows + 1, sizeof *p.leaders)};
  int64_t *index = sw_alloc_array(BLOCK, sizeof *index), count = 0;
  float *score = sw_alloc_array(BLOCK, sizeof *score), *unit = sw_alloc_array(BLOCK, (size_t)hidden * sizeof *unit); /* of a block's rows */
  sw_search *search = NULL;
  int status = p.leaders && index && score && unit ? sw_search_open(stream, hidden, 1, SW_COSINE, BLOCK, &search) : -1;
  for (int64_t first = 0; first < rows && !status; first += BLOCK) {
    /* leaders of the blocks before by search, those of this block one by one */
    const int64_t n = rows - first < BLOCK ? rows - first : BLOCK, before = count;
    const sw_search_corpus corpus = {.rows = before, .read = read_leaders, .context = &p, .name = "the groups"};
    if (before) status = sw_search_run(search, &corpus, vectors + first * hidden, n, -1, index, score);
    for (int64_t i = 0; i < n && !status; i++) {
      make_unit(vectors + (first + i) * hidden, hidden, unit + i * hidden);
      double best = before ? (double)score[i] : -2;
      int64_t found = before ? p.leaders[index[i]] : -1;
      for (int64_t k = before; k < count; k++) {
        const double c = dot(unit + i * hidden, unit + (p.leaders[k] - first) * hidden, hidden);
        if (c > best) best = c, found = p.leaders[k];
      }
      leader[first + i] = found >= 0 && best >= threshold ? found : (p.leaders[count++] = first + i);
    }
  }
  sw_search_close(search);
  free(p.leaders);
  free(index);
  free(score);
  free(unit);
  return status;
}
