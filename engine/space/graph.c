#include "engine/space/graph.h"
#include "base/error.h"

#include <stdlib.h>

void sw_graph_close(sw_graph *g) {
  free(g->row_start);
  free(g->column);
  free(g->weight);
  *g = (sw_graph){0};
}

static int graph_alloc(int64_t rows, int64_t edges, sw_graph *g) {
  g->rows = rows;
  g->row_start = sw_alloc_array((size_t)rows + 1, sizeof *g->row_start);
  g->column = sw_alloc_array((size_t)edges + 1, sizeof *g->column);
  g->weight = sw_alloc_array((size_t)edges + 1, sizeof *g->weight);
  return g->row_start && g->column && g->weight ? 0 : -1;
}

/* The directed edges the other way round, by counting; those of a row come in the order of their sources. */
static int transpose(int64_t rows, int k, const int64_t *neighbours, const float *weights, sw_graph *out) {
  int64_t edges = 0;
  for (int64_t e = 0; e < rows * k; e++) edges += neighbours[e] >= 0 && weights[e] > 0;
  if (graph_alloc(rows, edges, out)) return -1;
  for (int64_t e = 0; e < rows * k; e++)
    if (neighbours[e] >= 0 && weights[e] > 0) out->row_start[neighbours[e] + 1]++;
  for (int64_t i = 0; i < rows; i++) out->row_start[i + 1] += out->row_start[i];
  for (int64_t e = 0; e < rows * k; e++) /* moves each start to the next row's */
    if (neighbours[e] >= 0 && weights[e] > 0) {
      int64_t at = out->row_start[neighbours[e]]++;
      out->column[at] = (int32_t)(e / k);
      out->weight[at] = weights[e];
    }
  for (int64_t i = rows; i > 0; i--) out->row_start[i] = out->row_start[i - 1];
  out->row_start[0] = 0;
  return 0;
}

typedef struct {
  int32_t column;
  float weight;
} edge;
static int by_column(const void *a, const void *b) {
  int32_t x = ((const edge *)a)->column, y = ((const edge *)b)->column;
  return (x > y) - (x < y);
}

/* Merges a row's own edges with those that come to it. */
static int64_t merge(const edge *own, int count, const int32_t *column, const float *weight, int64_t incoming, int32_t *out_column,
                     float *out_weight) {
  int64_t n = 0, j = 0;
  for (int i = 0; i < count || j < incoming; n++) {
    if (j >= incoming || (i < count && own[i].column < column[j])) {
      out_column[n] = own[i].column, out_weight[n] = own[i].weight, i++;
    } else if (i >= count || column[j] < own[i].column) {
      out_column[n] = column[j], out_weight[n] = weight[j], j++;
    } else { /* the same sum from both ends */
      float a = own[i].weight, b = weight[j], product = a * b;
      out_column[n] = column[j], out_weight[n] = (a + b) - product, i++, j++;
    }
  }
  return n;
}

static void prune(sw_graph *g, double least) {
  float largest = 0;
  for (int64_t e = 0; e < g->row_start[g->rows]; e++) largest = g->weight[e] > largest ? g->weight[e] : largest;
  int64_t kept = 0, start = 0;
  for (int64_t i = 0; i < g->rows; i++) {
    int64_t end = g->row_start[i + 1];
    for (int64_t e = start; e < end; e++)
      if (g->weight[e] >= least * largest) g->column[kept] = g->column[e], g->weight[kept++] = g->weight[e];
    g->row_start[i + 1] = kept;
    start = end;
  }
}

int sw_graph_union(int64_t rows, int k, const int64_t *neighbours, const float *weights, double least, sw_graph *out) {
  *out = (sw_graph){0};
  sw_graph in = {0};
  edge *own = sw_alloc_array((size_t)k, sizeof *own);
  int status = own && !transpose(rows, k, neighbours, weights, &in) && !graph_alloc(rows, 2 * in.row_start[rows], out) ? 0 : -1;
  for (int64_t i = 0; i < rows && !status; i++) {
    int count = 0;
    for (int64_t e = i * k; e < (i + 1) * k; e++)
      if (neighbours[e] >= 0 && weights[e] > 0) own[count++] = (edge){(int32_t)neighbours[e], weights[e]};
    qsort(own, (size_t)count, sizeof *own, by_column);
    int64_t at = out->row_start[i], from = in.row_start[i];
    out->row_start[i + 1] = at + merge(own, count, in.column + from, in.weight + from, in.row_start[i + 1] - from, out->column + at, out->weight + at);
  }
  if (!status) {
    prune(out, least);
    const size_t edges = (size_t)out->row_start[rows] + 1;
    int32_t *column = realloc(out->column, edges * sizeof *column); /* a failure to shrink is none */
    float *weight = realloc(out->weight, edges * sizeof *weight);
    if (column) out->column = column;
    if (weight) out->weight = weight;
  }
  sw_graph_close(&in);
  free(own);
  if (status) sw_graph_close(out);
  return status;
}

int sw_graph_components(const sw_graph *g, int32_t *component, int32_t *count) {
  int32_t *queue = sw_alloc_array((size_t)g->rows + 1, sizeof *queue);
  if (!queue) return -1;
  for (int64_t i = 0; i < g->rows; i++) component[i] = -1;
  *count = 0;
  for (int64_t first = 0; first < g->rows; first++) {
    if (component[first] >= 0) continue;
    int64_t done = 0, found = 1;
    queue[0] = (int32_t)first;
    component[first] = *count;
    while (done < found) {
      int32_t i = queue[done++];
      for (int64_t e = g->row_start[i]; e < g->row_start[i + 1]; e++)
        if (component[g->column[e]] < 0) {
          component[g->column[e]] = *count;
          queue[found++] = g->column[e];
        }
    }
    ++*count;
  }
  free(queue);
  return 0;
}
