/* The spectral start of a map: eigenvectors of the graph's normalised Laplacian I - D^-1/2 W D^-1/2 with the smallest eigenvalues above
 * 0, D the rows' sums. Subspace iteration with Chebyshev polynomials (Zhou, Saad, Tiago, Chelikowsky: "Self-consistent-field
 * calculations using Chebyshev-filtered subspace iteration", 2006) on SW_UMAP_BLOCK vectors; the connected components are blocks of the
 * matrix, and are iterated together, each in a subspace of its own.
 * All sums have a fixed order: the same bits with any number of threads. */
#ifndef SW_SPACE_SPECTRAL_H
#define SW_SPACE_SPECTRAL_H
#include "engine/space/graph.h"
#include "kernels/backend.h"

/* Components smaller than this get no eigenvectors: 0 instead. */
enum { SW_SPECTRAL_LEAST = 2 * SW_UMAP_BLOCK };

/* component [rows]: as sw_graph_components gives it; `dims` <= 3 eigenvectors to out [rows, dims], the largest entry of each in a component
 * of magnitude 1. row_start and column: the graph's, on the device. */
int sw_spectral_start(sw_stream *stream, const sw_graph *graph, const int64_t *row_start, const int32_t *column, const int32_t *component,
                      int32_t components, int dims, uint64_t seed, float *out);
/* Device memory that it takes. */
size_t sw_spectral_bytes(int64_t rows, int64_t edges);

/* Eigenvalues of the symmetric matrix a [n, n], the largest first, and the eigenvectors as the columns of v; n <= SW_EIGEN_MOST, a is
 * overwritten. Jacobi's rotations. */
enum { SW_EIGEN_MOST = 32 };
void sw_symmetric_eigen(int n, double *a, double *values, double *v);
#endif
