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
static int64_t merge(const edge *own, int count, const int32_t *column, const float *weight, int64_t incoming,
                     int32_t *out_column, float *out_weight) {
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
  int status =
      own && !transpose(rows, k, neighbours, weights, &in) && !graph_alloc(rows, 2 * in.row_start[rows], out) ? 0 : -1;
  for (int64_t i = 0; i < rows && !status; i++) {
    int count = 0;
    for (int64_t e = i * k; e < (i + 1) * k; e++)
      if (neighbours[e] >= 0 && weights[e] > 0) own[count++] = (edge){(int32_t)neighbours[e], weights[e]};
    qsort(own, (size_t)count, sizeof *own, by_column);
    int64_t at = out->row_start[i], from = in.row_start[i];
    out->row_start[i + 1] = at + merge(own, count, in.column + from, in.weight + from, in.row_start[i + 1] - from,
                                       out->column + at, out->weight + at);
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

/* --- order --- */

/* A heap, the heaviest edge first, of equal ones that to the lower row. */
static int before(edge a, edge b) {
  return a.weight != b.weight ? a.weight > b.weight : a.column < b.column;
}
static void push(edge *heap, int64_t *count, edge new) {
  int64_t at = (*count)++;
  for (; at > 0 && before(new, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = new;
}
static edge pop(edge *heap, int64_t *count) {
  const edge first = heap[0], last = heap[--*count];
  int64_t at = 0;
  for (int64_t child; (child = 2 * at + 1) < *count; at = child) {
    if (child + 1 < *count && before(heap[child + 1], heap[child])) child++;
    if (!before(heap[child], last)) break;
    heap[at] = heap[child];
  }
  heap[at] = last;
  return first;
}

int sw_graph_order(const sw_graph *g, int32_t *order) {
  float *heaviest =
      sw_alloc_array((size_t)g->rows + 1, sizeof *heaviest); /* edge to a row so far; 2 when it has its place */
  edge *heap = sw_alloc_array((size_t)g->row_start[g->rows] + 1, sizeof *heap);
  int64_t done = 0, waiting = 0;
  for (int64_t first = 0; first < g->rows && heaviest && heap; first++) {
    if (heaviest[first] < 2) push(heap, &waiting, (edge){(int32_t)first, 1});
    while (waiting) {
      const int32_t i = pop(heap, &waiting).column;
      if (heaviest[i] == 2) continue;
      heaviest[i] = 2;
      order[done++] = i;
      for (int64_t e = g->row_start[i]; e < g->row_start[i + 1]; e++) {
        const int32_t j = g->column[e];
        if (g->weight[e] <= heaviest[j]) continue;
        heaviest[j] = g->weight[e];
        push(heap, &waiting, (edge){j, g->weight[e]});
      }
    }
  }
  const int status = heaviest && heap ? 0 : -1;
  free(heaviest), free(heap);
  return status;
}

/* --- colours --- */

void sw_colored_edges_close(sw_colored_edges *c) {
  free(c->head), free(c->tail), free(c->weight), free(c->color_start);
  *c = (sw_colored_edges){0};
}

static int64_t degree(const sw_graph *g, int64_t i) {
  return g->row_start[i + 1] - g->row_start[i];
}

/* Rows by their number of edges, the largest first. */
static int by_degree(const sw_graph *g, int64_t most, int32_t *order) {
  int64_t *start = sw_alloc_array((size_t)most + 2, sizeof *start);
  if (!start) return -1;
  for (int64_t i = 0; i < g->rows; i++) start[most - degree(g, i) + 1]++;
  for (int64_t d = 0; d < most; d++) start[d + 1] += start[d];
  for (int64_t i = 0; i < g->rows; i++) order[start[most - degree(g, i)]++] = (int32_t)i;
  free(start);
  return 0;
}

static int64_t find(const sw_graph *g, int64_t row, int32_t column) {
  int64_t low = g->row_start[row], high = g->row_start[row + 1];
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (g->column[middle] < column)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The colour of each edge, in the rows of both its ends. Rows in turn colour their edges to rows that come later. */
static int choose_colors(const sw_graph *g, int32_t *color, int32_t *colors) {
  int64_t most = 0, edges = 0;
  for (int64_t i = 0; i < g->rows; i++) most = degree(g, i) > most ? degree(g, i) : most;
  int32_t *order = sw_alloc_array((size_t)g->rows + 1, sizeof *order),
          *filled = sw_alloc_array((size_t)g->rows + 1, sizeof *filled);
  int32_t *used = sw_alloc_array((size_t)g->row_start[g->rows] + 1, sizeof *used); /* by a row, as many as filled */
  int64_t *here = sw_alloc_array(2 * (size_t)most + 1, sizeof *here),
          *there = sw_alloc_array(2 * (size_t)most + 1, sizeof *there);
  int status = order && filled && used && here && there && !by_degree(g, most, order) ? 0 : -1;
  *colors = 0;
  for (int64_t at = 0; at < g->rows && !status; at++) {
    const int64_t i = order[at];
    int32_t first = 0; /* that is free here */
    for (int32_t n = 0; n < filled[i]; n++) here[used[g->row_start[i] + n]] = at + 1;
    while (here[first] == at + 1) first++;
    for (int64_t e = g->row_start[i]; e < g->row_start[i + 1]; e++) {
      const int64_t j = g->column[e];
      if (degree(g, j) > degree(g, i) || (degree(g, j) == degree(g, i) && j < i)) continue; /* j had its turn */
      edges++;
      for (int32_t n = 0; n < filled[j]; n++) there[used[g->row_start[j] + n]] = edges;
      int32_t c = first;
      while (here[c] == at + 1 || there[c] == edges) c++;
      here[c] = at + 1;
      while (here[first] == at + 1) first++;
      used[g->row_start[i] + filled[i]++] = used[g->row_start[j] + filled[j]++] = c;
      color[e] = color[find(g, j, (int32_t)i)] = c;
      if (c >= *colors) *colors = c + 1;
    }
  }
  free(order), free(filled), free(used), free(here), free(there);
  return status;
}

int sw_graph_color(const sw_graph *g, const int32_t *order, sw_colored_edges *out) {
  const int64_t directed = g->row_start[g->rows];
  *out = (sw_colored_edges){.edges = directed / 2};
  int32_t *color = sw_alloc_array((size_t)directed + 1, sizeof *color),
          *number = sw_alloc_array((size_t)g->rows + 1, sizeof *number);
  int status = color && number ? choose_colors(g, color, &out->colors) : -1;
  if (!status) {
    out->head = sw_alloc_array((size_t)out->edges + 1, sizeof *out->head);
    out->tail = sw_alloc_array((size_t)out->edges + 1, sizeof *out->tail);
    out->weight = sw_alloc_array((size_t)out->edges + 1, sizeof *out->weight);
    out->color_start = sw_alloc_array((size_t)out->colors + 2, sizeof *out->color_start);
    status = out->head && out->tail && out->weight && out->color_start ? 0 : -1;
  }
  for (int64_t i = 0; i < g->rows && !status; i++) number[order[i]] = (int32_t)i;
  /* a counting sort: color_start[c + 1] is first where the next edge of colour c goes, and in the end where colour c +
   * 1 begins */
  for (int64_t e = 0; e < directed && !status; e++) out->color_start[color[e] + 2]++;
  for (int32_t c = 0; c < out->colors && !status; c++)
    out->color_start[c + 1] = out->color_start[c] + out->color_start[c + 1] / 2;
  for (int64_t i = 0; i < g->rows && !status; i++)
    for (int64_t e = g->row_start[order[i]]; e < g->row_start[order[i] + 1]; e++) {
      if (i >= number[g->column[e]]) continue;
      const int64_t at = out->color_start[color[e] + 1]++;
      out->head[at] = (int32_t)i, out->tail[at] = number[g->column[e]], out->weight[at] = g->weight[e];
    }
  free(color), free(number);
  if (status) sw_colored_edges_close(out);
  return status;
}
