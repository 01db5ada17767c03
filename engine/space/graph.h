/* The weighted, symmetric graph of UMAP, on the host: it is linear in its edges, and a small part of the work. */
#ifndef SW_SPACE_GRAPH_H
#define SW_SPACE_GRAPH_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  int64_t rows;
  int64_t *row_start; /* [rows + 1] */
  int32_t *column;    /* [row_start[rows]], ascending in each row */
  float *weight;
} sw_graph;

/* The fuzzy union of directed neighbours: w + w' - w w' of the weights of i to j and of j to i. neighbours [rows, k],
 * -1: none; weights [rows, k], 0 to 1; a row has a neighbour once. Edges below `least` times the largest weight are
 * left out. */
int sw_graph_union(int64_t rows, int k, const int64_t *neighbours, const float *weights, double least, sw_graph *out);
/* Which connected part each row belongs to: 0, 1, ... in the order of their first rows. */
int sw_graph_components(const sw_graph *graph, int32_t *component, int32_t *count);
void sw_graph_close(sw_graph *graph);

/* An order of the rows that has neighbours near each other: the one in which Prim's algorithm finds a tree of the
 * heaviest edges, for every connected part from its first row on. */
int sw_graph_order(const sw_graph *graph, int32_t *order);

/* The edges of a symmetric graph, each once, in colours: no two of a colour share a row. In a colour they ascend by
 * head and tail. */
typedef struct {
  int64_t edges;
  int32_t *head, *tail; /* [edges], head < tail */
  float *weight;
  int32_t colors;
  int64_t *color_start; /* [colors + 1] */
} sw_colored_edges;
/* Rows get new numbers: order[i] is i from now on. Greedily: every edge takes the first colour that is free at both
 * ends, the edges of rows that have many first, so that the work is linear in the edges even then. At most twice the
 * largest number of edges of a row, less one. */
int sw_graph_color(const sw_graph *graph, const int32_t *order, sw_colored_edges *out);
void sw_colored_edges_close(sw_colored_edges *edges);
#endif
